//! Opening stores.

use std::num::{NonZeroU64, NonZeroUsize};

use napi::Env;
use napi::bindgen_prelude::{Function, Uint8Array};
use napi_derive::napi;

use super::errors::{JsError, guarded};
use super::handle::{OpenFile, OpenStore};
use super::tickets::{SettleArgs, tickets};
use super::values::Value;
use crate::shared::{MemoryOptions, SharedStore};
use crate::store::FileStore;
use crate::store::file::{FileOptions, Secret};

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

/// The options of a store in a file, likewise.
#[napi(object, object_to_js = false)]
pub struct JsFileOptions {
    pub path: String,
    pub secrets: Vec<Uint8Array>,
    pub max_bytes: Option<f64>,
    pub max_session_bytes: Option<f64>,
    pub max_sessions_per_user: Option<f64>,
    pub sweep_interval: Option<f64>,
}

impl From<JsFileOptions> for FileOptions {
    fn from(options: JsFileOptions) -> Self {
        Self {
            path: options.path.into(),
            secrets: options.secrets.iter().map(|secret| Secret::new(secret.to_vec())).collect(),
            max_bytes: options.max_bytes.and_then(|bytes| NonZeroU64::new(bytes as u64)),
            max_session_bytes: limit(options.max_session_bytes),
            max_sessions_per_user: limit(options.max_sessions_per_user),
            sweep_interval: options.sweep_interval.map(|millis| millis as u64),
        }
    }
}

fn limit(number: Option<f64>) -> Option<NonZeroUsize> {
    number.and_then(|number| NonZeroUsize::new(number as usize))
}

/// Opens a store in memory: an external for the other calls.
#[napi(ts_args_type = "options: JsMemoryOptions", ts_return_type = "object")]
pub fn open_memory(env: Env, options: JsMemoryOptions) -> Result<Value, JsError> {
    guarded(|| Value::store(env.raw(), OpenStore::Memory(SharedStore::open(&options.into())?)))
}

/// Opens a store in a file: likewise. `settle` is told of the ends of writes: tickets and numbers by turns, and what
/// was refused.
#[napi(
    ts_args_type = "options: JsFileOptions, settle: (done: Float64Array, failures: JsFailure[]) => void",
    ts_return_type = "object"
)]
pub fn open_file(
    env: Env,
    options: JsFileOptions,
    settle: Function<'_, SettleArgs, ()>,
) -> Result<Value, JsError> {
    guarded(|| {
        let store = FileStore::open(&options.into())?;
        let (tickets, settler) = tickets(&settle)?;
        Value::store(env.raw(), OpenStore::File(OpenFile { store, tickets, settler }))
    })
}

/// The directory of a store in a file, absolute.
#[napi(ts_args_type = "store: object")]
pub fn path_of(store: Value) -> Result<Option<String>, JsError> {
    guarded(|| {
        store.with_store(|store| {
            Ok(match store {
                OpenStore::Memory(_) => None,
                OpenStore::File(file) => Some(file.store.path().to_string_lossy().into_owned()),
            })
        })
    })
}
