//! The cold calls: users, ids, counters.

use napi::Env;
use napi::bindgen_prelude::{Either, ToNapiValue, Uint8Array};
use napi_derive::napi;

use super::errors::{JsError, guarded};
use super::handle::AnyStore;
use super::reply::{self, with_buffer};
use super::tasks::promise;
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::json::parse_user;
use crate::session::UserKeyBuf;
use crate::store::Cursor;

/// Counters of a store.
#[napi(object, object_from_js = false)]
pub struct JsStats {
    pub sessions: f64,
    pub bytes: f64,
    pub hits: f64,
    pub misses: f64,
    pub created: f64,
    pub expired: f64,
    pub evicted: f64,
    pub last_sweep: Option<JsSweep>,
    /// Of a store in a file.
    pub file_bytes: Option<f64>,
}

/// When a sweep began and how long it took, in milliseconds, and how many sessions it removed.
#[napi(object, object_from_js = false)]
pub struct JsSweep {
    pub at: f64,
    pub duration: f64,
    pub removed: f64,
}

/// Some ids, and where to go on; the end has no `next`.
#[napi(object, object_from_js = false)]
pub struct JsIds {
    pub ids: Vec<String>,
    pub next: Option<Uint8Array>,
}

/// The live sessions of a user, whose `userId` is given as JSON: the id of each, and the session as `get` gives it.
#[napi(
    ts_args_type = "store: object, userJson: string",
    ts_return_type = "Array<[string, string]> | Promise<Array<[string, string]>>"
)]
pub fn get_by_user(
    env: Env,
    store: Value,
    user_json: String,
) -> Result<Either<Vec<(String, String)>, Value>, JsError> {
    let user = guarded(|| user_key(&user_json))?;
    give(env, store, move |store| {
        let sessions = store.as_dyn().get_by_user(user.as_key())?;
        sessions
            .iter()
            .map(|session| {
                let content = session.content()?;
                let text = with_buffer(
                    |out| reply::write(session.expires, content, out),
                    |(), text| String::from_utf8_lossy(text).into_owned(),
                );
                Ok((session.id.to_string(), text))
            })
            .collect()
    })
}

/// The next ids after a cursor; the first is left out.
#[napi(ts_args_type = "store: object, cursor?: Uint8Array", ts_return_type = "JsIds | Promise<JsIds>")]
pub fn ids(env: Env, store: Value, cursor: Option<Uint8Array>) -> Result<Either<JsIds, Value>, JsError> {
    let cursor = cursor.map_or_else(Cursor::default, |bytes| Cursor::from_bytes(&bytes));
    give(env, store, move |store| {
        let (ids, next) = store.as_dyn().ids(cursor)?;
        let next = next.map(|next| Uint8Array::from(next.as_bytes()));
        Ok(JsIds { ids: ids.iter().map(ToString::to_string).collect(), next })
    })
}

/// Counters since the store was opened.
#[napi(ts_args_type = "store: object", ts_return_type = "JsStats | Promise<JsStats>")]
pub fn stats(env: Env, store: Value) -> Result<Either<JsStats, Value>, JsError> {
    give(env, store, |store| {
        let file_bytes = match store {
            AnyStore::Memory(_) | AnyStore::Redis(_) => None,
            AnyStore::File(store) => Some(store.file_bytes()? as f64),
        };
        let stats = store.as_dyn().stats()?;
        Ok(JsStats {
            sessions: stats.sessions as f64,
            bytes: stats.bytes as f64,
            hits: stats.hits as f64,
            misses: stats.misses as f64,
            created: stats.created as f64,
            expired: stats.expired as f64,
            evicted: stats.evicted as f64,
            last_sweep: stats.last_sweep.map(|sweep| JsSweep {
                at: sweep.at as f64,
                duration: sweep.duration as f64,
                removed: sweep.removed as f64,
            }),
            file_bytes,
        })
    })
}

/// Calls a store: here and now, or on a thread where it has to ask a server.
fn give<T: ToNapiValue + Send + 'static>(
    env: Env,
    store: Value,
    call: impl FnOnce(&AnyStore) -> Result<T> + Send + 'static,
) -> Result<Either<T, Value>, JsError> {
    match guarded(|| store.share_store())? {
        store @ AnyStore::Redis(_) => {
            // Nothing of the store's waits for the end of the thread.
            let (promise, _) = promise(env, move || call(&store))?;
            Ok(Either::B(promise))
        }
        store => guarded(|| call(&store)).map(Either::A),
    }
}

pub(super) fn user_key(json: &str) -> Result<UserKeyBuf> {
    parse_user(json).ok_or_else(|| StoreError::invalid("userId", "a JSON value other than null", "null"))
}
