//! Promises of jobs on other threads.
//!
//! The jobs do not run on libuv's pool: Node.js waits for that at exit, and apps need its few threads.

use napi::Env;
use napi::bindgen_prelude::{JsValue, ToNapiValue};

use super::errors::{JsError, guarded, refused};
use super::values::Value;
use crate::error::Result;
use crate::executor::Executor;

/// Runs on the JavaScript thread.
type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// Settles a promise, from any thread. It must be called, or the process never exits.
pub(super) type Settle<T> = Box<dyn FnOnce(Result<T, JsError>) + Send>;

/// Makes a promise, and the function that settles it.
pub(super) fn make<T: ToNapiValue + Send + 'static>(env: Env) -> Result<(Value, Settle<T>), JsError> {
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>().map_err(refused)?;
    let settle = move |outcome: Result<T, JsError>| {
        // Reject on the JavaScript thread: from here the error would lose its code.
        deferred.resolve(Box::new(move |env| {
            outcome.map_err(|error| napi::JsError::from(error).into_unknown(env).into())
        }));
    };
    // SAFETY: the promise is a value of the running call.
    Ok((unsafe { Value::new(env.raw(), promise.raw()) }, Box::new(settle)))
}

/// Runs a job on an executor, and returns the promise of its result. `store` is dropped after the promise is settled,
/// because dropping the last reference to a store may take long.
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
