//! Calls that look at every session: each on a thread of its own, as a promise.
//!
//! Not on libuv's pool: Node waits for that when it exits, and apps wait for its few threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use napi::Env;
use napi::bindgen_prelude::JsValue;
use napi_derive::napi;

use super::errors::{JsError, guarded, refused};
use super::values::Value;
use crate::error::Result;
use crate::shared::SharedStore;
use crate::store::SessionStore;

/// Removes what has expired; how many.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clean(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.clean())
}

/// Removes every session.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clear(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.clear().map(|()| 0))
}

/// How many sessions are live.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn size(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.size())
}

/// Settles a promise on the JavaScript thread.
type Resolver = Box<dyn FnOnce(Env) -> napi::Result<f64> + Send>;

fn start(env: Env, store: Value, call: fn(&SharedStore) -> Result<u64>) -> Result<Value, JsError> {
    let store = guarded(|| store.share_store())?;
    let (deferred, promise) = env.create_deferred::<f64, Resolver>().map_err(refused)?;
    run_apart(move || match guarded(|| call(&store)) {
        Ok(number) => deferred.resolve(Box::new(move |_| Ok(number as f64))),
        Err(error) => deferred.reject(napi::Error::from_reason(error.reason.clone())),
    });
    Ok(Value::new(env.raw(), promise.raw()))
}

/// Runs a job on another thread, or on this one where the system has none to give.
fn run_apart(job: impl FnOnce() + Send + 'static) {
    let job = Arc::new(Mutex::new(Some(job)));
    let take = |job: &Mutex<Option<_>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&job);
    let spawned = thread::Builder::new().name("session-store-task".into()).spawn(move || {
        if let Some(job) = take(&theirs) {
            job();
        }
    });
    if spawned.is_err()
        && let Some(job) = take(&job)
    {
        job();
    }
}
