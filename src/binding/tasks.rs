//! Calls that look at every session: on a thread of libuv's pool, as promises.

use std::sync::Arc;

use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Task};
use napi_derive::napi;

use super::errors::{JsError, guarded};
use super::values::Value;
use crate::error::Result;
use crate::shared::SharedStore;
use crate::store::SessionStore;

/// A call of a store that gives a number.
pub struct StoreTask {
    store: Arc<SharedStore>,
    call: fn(&SharedStore) -> Result<u64>,
}

impl Task for StoreTask {
    type Output = u64;
    type JsValue = f64;

    fn compute(&mut self) -> napi::Result<u64> {
        guarded(|| (self.call)(&self.store))
            .map_err(|error| napi::Error::new(napi::Status::GenericFailure, error.reason.clone()))
    }

    fn resolve(&mut self, _: Env, output: u64) -> napi::Result<f64> {
        Ok(output as f64)
    }
}

fn start(store: Value, call: fn(&SharedStore) -> Result<u64>) -> Result<AsyncTask<StoreTask>, JsError> {
    guarded(|| Ok(AsyncTask::new(StoreTask { store: store.share_store()?, call })))
}

/// Removes what has expired; how many.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clean(store: Value) -> Result<AsyncTask<StoreTask>, JsError> {
    start(store, |store| store.clean())
}

/// Removes every session.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn clear(store: Value) -> Result<AsyncTask<StoreTask>, JsError> {
    start(store, |store| store.clear().map(|()| 0))
}

/// How many sessions are live.
#[napi(ts_args_type = "store: object", ts_return_type = "Promise<number>")]
pub fn size(store: Value) -> Result<AsyncTask<StoreTask>, JsError> {
    start(store, |store| store.size())
}
