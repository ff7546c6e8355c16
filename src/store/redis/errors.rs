//! What servers refuse, as errors of the store.

use redis::{ServerError, Value};

use crate::error::{Result, StoreError};

/// What a server says, in its words, but for those in which it repeats what it was asked: ids are secrets.
pub(super) fn in_words(error: &ServerError) -> String {
    const LONGEST: usize = 200;
    let details = error.details().unwrap_or_default();
    let details = details.split(", with args beginning with").next().unwrap_or_default();
    let words: String = details.chars().take(LONGEST).collect();
    format!("Redis says {} {words}", error.code()).trim_end().to_owned()
}

/// Whether a server may do later what it refuses with this code; it has done nothing of it.
pub(super) fn passes(code: &str) -> bool {
    matches!(code, "LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "MASTERDOWN" | "NOREPLICAS" | "BUSY")
}

/// # Errors
/// If the answer is an error.
pub(super) fn check(reply: &Value) -> Result<()> {
    let Value::ServerError(error) = reply else { return Ok(()) };
    Err(match error.code() {
        "OOM" => StoreError::Full(in_words(error).into()),
        "WRONGTYPE" => StoreError::Corrupt("it is no session of this store, but of another type"),
        _ => StoreError::unavailable(in_words(error)),
    })
}

/// The error for an answer that no server should give.
pub(super) fn unexpected() -> StoreError {
    StoreError::unavailable("Redis gave an answer that makes no sense here")
}

/// A number that a server answered.
///
/// # Errors
/// As for [`check`]; and if it is none.
pub(super) fn number(reply: &Value) -> Result<i64> {
    check(reply)?;
    if let Value::Int(number) = reply { Ok(*number) } else { Err(unexpected()) }
}
