//! The cold calls: users, ids, counters.

use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use super::errors::{JsError, guarded};
use super::handle::OpenStore;
use super::reply::{self, with_buffer};
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
#[napi(ts_args_type = "store: object, userJson: string")]
pub fn get_by_user(store: Value, user_json: String) -> Result<Vec<(String, String)>, JsError> {
    guarded(|| {
        let user = user_key(&user_json)?;
        let sessions = store.with_store(|store| store.as_dyn().get_by_user(user.as_key()))?;
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
#[napi(ts_args_type = "store: object, cursor?: Uint8Array")]
pub fn ids(store: Value, cursor: Option<Uint8Array>) -> Result<JsIds, JsError> {
    guarded(|| {
        let cursor = cursor.map_or_else(Cursor::default, |bytes| Cursor::from_bytes(&bytes));
        let (ids, next) = store.with_store(|store| store.as_dyn().ids(cursor))?;
        let next = next.map(|next| Uint8Array::from(next.as_bytes()));
        Ok(JsIds { ids: ids.iter().map(ToString::to_string).collect(), next })
    })
}

/// Counters since the store was opened.
#[napi(ts_args_type = "store: object")]
pub fn stats(store: Value) -> Result<JsStats, JsError> {
    guarded(|| {
        let (stats, file_bytes) = store.with_store(|store| {
            let file_bytes = match store {
                OpenStore::Memory(_) => None,
                OpenStore::File(file) => Some(file.store.file_bytes()? as f64),
            };
            Ok((store.as_dyn().stats()?, file_bytes))
        })?;
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

pub(super) fn user_key(json: &str) -> Result<UserKeyBuf> {
    parse_user(json).ok_or_else(|| StoreError::invalid("userId", "a JSON value other than null", "null"))
}
