//! Calls that look at every session: each on a thread of its own, as a promise.
//!
//! Not on libuv's pool: Node waits for that when it exits, and apps wait for its few threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use napi::Env;
use napi::bindgen_prelude::{JsValue, ToNapiValue};
use napi_derive::napi;

use super::cold::user_key;
use super::errors::{JsError, guarded, refused};
use super::handle::AnyStore;
use super::values::Value;
use crate::error::Result;
use crate::session::SessionId;

/// Removes what has expired; how many.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clean(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.as_dyn().clean())
}

/// Removes every session.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clear(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.as_dyn().clear().map(|()| 0))
}

/// How many sessions are live.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn size(env: Env, store: Value) -> Result<Value, JsError> {
    start(env, store, |store| store.as_dyn().size())
}

/// Ends the sessions of a user, whose `userId` is given as JSON, save one; how many.
#[napi(
    ts_args_type = "store: object, userJson: string, except: string | undefined",
    ts_return_type = "Promise<number>"
)]
pub fn delete_by_user(env: Env, store: Value, user_json: String, except: Value) -> Result<Value, JsError> {
    let (user, except) = guarded(|| {
        // Only `undefined` is left out: any other value that is no id must not end the session it was to keep.
        let except = if except.is_undefined() { None } else { Some(except.session_id()?) };
        Ok((user_key(&user_json)?, except))
    })?;
    start(env, store, move |store| {
        store.as_dyn().delete_by_user(user.as_key(), except.as_ref().map(|id: &SessionId| id))
    })
}

/// Closes a store, if it is open: what was begun before is done then.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn close(env: Env, store: Value) -> Result<Value, JsError> {
    let store = guarded(|| store.take_store())?;
    // It reads nothing, and closes the files itself: no one has to wait for its end.
    promise(env, move || store.map_or(Ok(()), AnyStore::close).map(|()| 0.0)).map(|(promise, _)| promise)
}

fn start(
    env: Env,
    store: Value,
    call: impl FnOnce(&AnyStore) -> Result<u64> + Send + 'static,
) -> Result<Value, JsError> {
    let store = guarded(|| store.share_store())?;
    let theirs = store.clone();
    let (promise, thread) = promise(env, move || call(&theirs).map(|number| number as f64))?;
    store.adopt(thread);
    Ok(promise)
}

/// Settles a promise on the JavaScript thread.
type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// A promise of what a job on another thread gives, and that thread.
pub(super) fn promise<T: ToNapiValue + Send + 'static>(
    env: Env,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<(Value, Option<JoinHandle<()>>), JsError> {
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>().map_err(refused)?;
    let thread = run_apart(move || {
        let outcome = guarded(job);
        // Rejecting it from here would leave the error's code behind.
        deferred.resolve(Box::new(move |env| {
            outcome.map_err(|error| napi::JsError::from(error).into_unknown(env).into())
        }));
    });
    Ok((Value::new(env.raw(), promise.raw()), thread))
}

/// Runs a job on another thread, or on this one where the system has none to give.
fn run_apart(job: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
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
    spawned.ok()
}
