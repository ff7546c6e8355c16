//! Promises of jobs on another thread.
//!
//! Not on libuv's pool: Node waits for that when it exits, and apps wait for its few threads.

use napi::Env;
use napi::bindgen_prelude::{JsValue, ToNapiValue};

use super::errors::{JsError, guarded, refused};
use super::values::Value;
use crate::error::Result;
use crate::executor::Executor;

/// Runs on the JavaScript thread.
type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// Settles a promise, from any thread. It must be called, or the process would never end.
pub(super) type Settle<T> = Box<dyn FnOnce(Result<T, JsError>) + Send>;

/// Makes a promise.
pub(super) fn make<T: ToNapiValue + Send + 'static>(env: Env) -> Result<(Value, Settle<T>), JsError> {
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>().map_err(refused)?;
    let settle = move |outcome: Result<T, JsError>| {
        // Rejecting it from here would leave the error's code behind.
        deferred.resolve(Box::new(move |env| {
            outcome.map_err(|error| napi::JsError::from(error).into_unknown(env).into())
        }));
    };
    // SAFETY: the promise is a value of the call under way.
    Ok((unsafe { Value::new(env.raw(), promise.raw()) }, Box::new(settle)))
}

/// Runs a job on an executor, and gives the promise of its result. The job borrows `store`, which is dropped after the
/// promise is settled: dropping the last reference to a store may take long.
pub(super) fn run<S: Send + 'static, T: ToNapiValue + Send + 'static>(
    env: Env,
    executor: &Executor,
    store: S,
    job: impl FnOnce(&S) -> Result<T> + Send + 'static,
) -> Result<Value, JsError> {
    let (promise, settle) = make(env)?;
    executor.submit(move |admitted| {
        settle(guarded(|| admitted.and_then(|()| job(&store))));
        drop(store);
    });
    Ok(promise)
}
