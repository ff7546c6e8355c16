//! Conversion of errors for JavaScript. A `StoreError` keeps its code, and a panic becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Outcome, Result, StoreError};
use crate::store::redis::Fault;

/// An error with a code of `StoreError`. JavaScript converts it to a `SessionStoreError`.
pub(super) type JsError = napi::Error<&'static str>;

/// Runs the body of a call from JavaScript. A panic must not reach N-API, where it would end the process.
pub(super) fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T, JsError> {
    catch_panic(body)?.map_err(|error| to_js(&error))
}

/// Converts a panic to an error.
pub(super) fn catch_panic<T>(body: impl FnOnce() -> T) -> Result<T, JsError> {
    // Drop the panic message: it may contain session data.
    catch_unwind(AssertUnwindSafe(body)).map_err(|_| to_js(&StoreError::Internal("a call panicked".into())))
}

/// The error for a failed call of N-API.
pub(super) fn refused(error: napi::Error) -> JsError {
    to_js(&refused_as_store_error(error))
}

/// The same, as a `StoreError`.
pub(super) fn refused_as_store_error(error: napi::Error) -> StoreError {
    StoreError::Internal(format!("Node-API refused a call ({})", error.reason).into())
}

/// The code of `ERR_STORE_UNAVAILABLE` with an outcome and the fault of its reason.
macro_rules! unavailable {
    ($outcome:literal, $reason:expr; $($fault:ident: $name:literal,)*) => {
        match Fault::of($reason) {
            $(Fault::$fault => concat!("ERR_STORE_UNAVAILABLE:", $outcome, ":", $name),)*
        }
    };
    ($outcome:literal, $reason:expr) => {
        unavailable!($outcome, $reason;
            Authentication: "authentication",
            Dns: "dns",
            Tls: "tls",
            NotPrimary: "not-primary",
            Refused: "refused",
            Loading: "loading",
            Timeout: "timeout",
            Other: "other",
        )
    };
}

/// Returns an error's code for `lib/errors.js`: `code`, `code:outcome` or `code:outcome:reason`.
pub(super) fn code_of(error: &StoreError) -> &'static str {
    if let StoreError::Unavailable { reason, outcome } = error {
        return match outcome {
            Outcome::NotDone => unavailable!("", reason),
            Outcome::Unknown => unavailable!("unknown", reason),
        };
    }
    let code = error.code();
    if !error.is_outcome_unknown() {
        return code;
    }
    match code {
        "ERR_STORE_TIMEOUT" => "ERR_STORE_TIMEOUT:unknown",
        "ERR_STORE_FULL" => "ERR_STORE_FULL:unknown",
        "ERR_STORE_IO" => "ERR_STORE_IO:unknown",
        "ERR_STORE_CORRUPT" => "ERR_STORE_CORRUPT:unknown",
        _ => "ERR_INTERNAL:unknown",
    }
}

pub(super) fn to_js(error: &StoreError) -> JsError {
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
    fn an_unavailable_server_has_a_fault() {
        for (words, name) in
            [("NOAUTH", "authentication"), ("DNS: none", "dns"), ("MASTERDOWN", "not-primary")]
        {
            let error = StoreError::unavailable(words);
            assert_eq!(code_of(&error), format!("ERR_STORE_UNAVAILABLE::{name}"));
            assert_eq!(Fault::of(words).name(), name);
            let code = format!("ERR_STORE_UNAVAILABLE:unknown:{name}");
            assert_eq!(code_of(&error.of_unknown_outcome()), code);
        }
    }

    #[test]
    fn an_error_keeps_its_code() {
        assert_eq!(guarded::<()>(|| Err(StoreError::Exists)).unwrap_err().status, "ERR_SESSION_EXISTS");
    }
}
