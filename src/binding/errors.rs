//! Errors on their way to JavaScript: a `StoreError` keeps its code, and a panic becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Result, StoreError};

/// An error with a code of `StoreError`'s. JavaScript makes a `SessionStoreError` of it.
pub(super) type JsError = napi::Error<&'static str>;

/// Runs the body of a call from JavaScript. A panic must not reach N-API, where it would end the process.
pub(super) fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T, JsError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(to_js(&error)),
        // Not its message, which might show a session's content.
        Err(_) => Err(to_js(&StoreError::Internal("a call panicked".into()))),
    }
}

/// The error for a call of ours that N-API refused.
pub(super) fn refused(error: napi::Error) -> JsError {
    to_js(&refused_as_store_error(error))
}

/// The same, as a `StoreError`.
pub(super) fn refused_as_store_error(error: napi::Error) -> StoreError {
    StoreError::Internal(format!("Node-API refused a call ({})", error.reason).into())
}

/// An error's code for `lib/errors.js`. What follows the colon becomes the error's `outcome`.
pub(super) fn code_of(error: &StoreError) -> &'static str {
    let code = error.code();
    if !error.is_outcome_unknown() {
        return code;
    }
    match code {
        "ERR_STORE_TIMEOUT" => "ERR_STORE_TIMEOUT:unknown",
        "ERR_STORE_UNAVAILABLE" => "ERR_STORE_UNAVAILABLE:unknown",
        "ERR_STORE_FULL" => "ERR_STORE_FULL:unknown",
        "ERR_STORE_IO" => "ERR_STORE_IO:unknown",
        "ERR_STORE_CORRUPT" => "ERR_STORE_CORRUPT:unknown",
        _ => "ERR_INTERNAL:unknown",
    }
}

fn to_js(error: &StoreError) -> JsError {
    JsError::new(code_of(error), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded::<()>(|| panic!("a secret")).unwrap_err();
        assert_eq!(error.status, "ERR_INTERNAL");
        assert!(!error.reason.contains("secret"));
    }

    #[test]
    fn an_error_keeps_its_code() {
        assert_eq!(guarded::<()>(|| Err(StoreError::Exists)).unwrap_err().status, "ERR_SESSION_EXISTS");
    }
}
