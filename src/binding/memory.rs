//! The cold calls: opening and closing, users, ids, counters.

use std::num::NonZeroUsize;

use napi::Env;
use napi_derive::napi;

use super::errors::{JsError, guarded};
use super::reply::{self, with_buffer};
use super::values::Value;
use crate::error::{Result, StoreError};
use crate::json::parse_user;
use crate::session::UserKeyBuf;
use crate::shared::{MemoryOptions, SharedStore};
use crate::store::{Cursor, SessionStore};

/// The options of a store in memory, which `lib/options.js` has validated: whole numbers.
#[napi(object, object_to_js = false)]
pub struct JsMemoryOptions {
    pub name: Option<String>,
    pub max_session_bytes: Option<f64>,
    pub max_sessions_per_user: Option<f64>,
    pub max_sessions: Option<f64>,
    pub max_bytes: Option<f64>,
    pub sweep_interval: Option<f64>,
}

impl From<JsMemoryOptions> for MemoryOptions {
    fn from(options: JsMemoryOptions) -> Self {
        let limit = |number: Option<f64>| number.and_then(|number| NonZeroUsize::new(number as usize));
        Self {
            name: options.name,
            max_session_bytes: options.max_session_bytes.map(|bytes| bytes as usize),
            max_sessions_per_user: limit(options.max_sessions_per_user),
            max_sessions: limit(options.max_sessions),
            max_bytes: limit(options.max_bytes),
            sweep_interval: options.sweep_interval.map(|millis| millis as u64),
        }
    }
}

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
    pub next: Option<u32>,
}

/// Opens a store in memory: an external for the other calls.
#[napi(ts_args_type = "options: JsMemoryOptions", ts_return_type = "object")]
pub fn open_memory(env: Env, options: JsMemoryOptions) -> Result<Value, JsError> {
    guarded(|| Value::store(env.raw(), SharedStore::open(&options.into())?))
}

/// Closes a store, if it is open.
#[napi(ts_args_type = "store: object")]
pub fn close(store: Value) -> Result<(), JsError> {
    guarded(|| store.close_store())
}

/// The live sessions of a user, whose `userId` is given as JSON: the id of each, and the session as `get` gives it.
#[napi(ts_args_type = "store: object, userJson: string")]
pub fn get_by_user(store: Value, user_json: String) -> Result<Vec<(String, String)>, JsError> {
    guarded(|| {
        let user = user_key(&user_json)?;
        let sessions = store.with_store(|store| store.get_by_user(user.as_key()))?;
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

/// Ends the sessions of a user, whose `userId` is given as JSON, save one; how many.
#[napi(ts_args_type = "store: object, userJson: string, except: string | undefined")]
pub fn delete_by_user(store: Value, user_json: String, except: Value) -> Result<f64, JsError> {
    guarded(|| {
        let user = user_key(&user_json)?;
        // Only `undefined` is left out: any other value that is no id must not end the session it was to keep.
        let except = if except.is_undefined() { None } else { Some(except.session_id()?) };
        store
            .with_store(|store| store.delete_by_user(user.as_key(), except.as_ref()))
            .map(|ended| ended as f64)
    })
}

/// The next ids after a cursor; the first is 0.
#[napi(ts_args_type = "store: object, cursor: number")]
pub fn ids(store: Value, cursor: u32) -> Result<JsIds, JsError> {
    guarded(|| {
        let (ids, next) = store.with_store(|store| store.ids(Cursor::from_position(cursor)))?;
        Ok(JsIds { ids: ids.iter().map(ToString::to_string).collect(), next: next.map(Cursor::position) })
    })
}

/// Counters since the store was opened.
#[napi(ts_args_type = "store: object")]
pub fn stats(store: Value) -> Result<JsStats, JsError> {
    guarded(|| {
        let stats = store.with_store(|store| store.stats())?;
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
        })
    })
}

fn user_key(json: &str) -> Result<UserKeyBuf> {
    parse_user(json).ok_or_else(|| StoreError::invalid("userId", "a JSON value other than null", "null"))
}
