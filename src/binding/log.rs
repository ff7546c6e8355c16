//! Inspects and discards the redo log of a FileStore that it prevents from opening. For the command line tool.

use napi_derive::napi;

use super::errors::{JsError, guarded};
use crate::store::FileStore;
use crate::store::file::{LogDamage, LogState};

/// The damage of a redo log. Times are milliseconds since 1970.
#[napi(object, object_from_js = false)]
pub struct JsLogDamage {
    pub problem: String,
    pub file: Option<String>,
    pub file_bytes: f64,
    pub written_at: Option<f64>,
    pub data_written_at: Option<f64>,
    pub changes: f64,
    pub is_data_ahead: bool,
    pub later_changes: f64,
    pub lost_bytes: f64,
    pub fingerprint: String,
}

impl From<LogDamage> for JsLogDamage {
    fn from(damage: LogDamage) -> Self {
        Self {
            problem: damage.problem,
            file: damage.file.map(|file| file.to_string_lossy().into_owned()),
            file_bytes: damage.file_bytes as f64,
            written_at: damage.written_at.map(|at| at as f64),
            data_written_at: damage.data_written_at.map(|at| at as f64),
            changes: damage.changes as f64,
            is_data_ahead: damage.is_data_ahead,
            later_changes: damage.later_changes as f64,
            lost_bytes: damage.lost_bytes as f64,
            fingerprint: damage.fingerprint,
        }
    }
}

/// Whether the store needs a redo log, and the damage of that, if any.
#[napi(object, object_from_js = false)]
pub struct JsLogState {
    pub is_needed: bool,
    pub damage: Option<JsLogDamage>,
}

/// The result of discarding a redo log.
#[napi(object, object_from_js = false)]
pub struct JsDiscardedLog {
    pub kept: f64,
    pub ended: f64,
    pub file: Option<String>,
}

/// Inspects the redo log of a store folder. No process may have the store open.
#[napi]
pub fn inspect_log(path: String, allow_network_file_system: bool) -> Result<JsLogState, JsError> {
    guarded(|| {
        let state = FileStore::inspect_log(path.as_ref(), allow_network_file_system)?;
        Ok(match state {
            LogState::NotNeeded => JsLogState { is_needed: false, damage: None },
            LogState::Sound => JsLogState { is_needed: true, damage: None },
            LogState::Damaged(damage) => JsLogState { is_needed: true, damage: Some(damage.into()) },
        })
    })
}

/// Discards a damaged redo log, if it has not changed since `inspect_log`.
#[napi]
pub fn discard_log(
    path: String,
    allow_network_file_system: bool,
    fingerprint: String,
) -> Result<JsDiscardedLog, JsError> {
    guarded(|| {
        let discarded = FileStore::discard_log(path.as_ref(), allow_network_file_system, &fingerprint)?;
        Ok(JsDiscardedLog {
            kept: discarded.kept as f64,
            ended: discarded.ended as f64,
            file: discarded.file.map(|file| file.to_string_lossy().into_owned()),
        })
    })
}
