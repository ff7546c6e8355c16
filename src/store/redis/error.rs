//! Maps errors of the servers to errors of the store.

use super::resp::Reply;
use crate::error::{Result, StoreError};

/// The server's error message, without the arguments that the server repeats: ids are secrets.
pub fn message(error: &[u8]) -> String {
    const LONGEST: usize = 200;
    let (code, details) = parts(error);
    let details = details.split(", with args beginning with").next().unwrap_or_default();
    let text: String = details.chars().take(LONGEST).collect();
    format!("Redis says {code} {text}").trim_end().to_owned()
}

/// The error code, such as `OOM`.
pub fn code(error: &[u8]) -> &str {
    parts(error).0
}

/// Splits an error into its code and its message. If a server refuses a whole transaction, the reason follows
/// `EXECABORT`. Redis 6.2 reports every error of a script with the code `ERR`, and puts the reason at the end: `ERR
/// Error running script (call to f_…): @user_script:9: @user_script: 9: -OOM …`.
fn parts(error: &[u8]) -> (&str, &str) {
    // The server may repeat bytes of a request. The text after invalid UTF-8 is ignored.
    let text = error.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let (code, details) = text.split_once(' ').unwrap_or((text, ""));
    let in_script = || {
        let (_, refusal) = details.strip_prefix("Error running script ")?.rsplit_once("@user_script:")?;
        let (_, refusal) = refusal.split_once(": ")?;
        let (code, text) = refusal.strip_prefix('-').unwrap_or(refusal).split_once(' ')?;
        code.bytes().all(|byte| byte.is_ascii_uppercase()).then_some((code, text))
    };
    let of_transaction = || details.strip_prefix("Transaction discarded because of: ")?.split_once(' ');
    let reason = match code {
        "ERR" => in_script(),
        "EXECABORT" => of_transaction(),
        _ => None,
    };
    reason.unwrap_or((code, details))
}

/// Whether the error is transient: the server has done nothing, and may accept the same command later.
pub fn is_transient(code: &str) -> bool {
    matches!(code, "LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "MASTERDOWN" | "NOREPLICAS" | "BUSY")
}

/// Whether the server will also refuse the command later, and for other keys. An old server says `ERR`, an ACL `NOPERM`,
/// and a proxy may have a code of its own. The codes below are about a key, or about the state of the server.
pub fn is_permanent(code: &str) -> bool {
    !is_transient(code)
        && !matches!(
            code,
            "OOM"
                | "READONLY"
                | "MISCONF"
                | "NOAUTH"
                | "NOSCRIPT"
                | "MOVED"
                | "ASK"
                | "REDIRECT"
                | "CROSSSLOT"
                | "WRONGTYPE"
        )
}

/// # Errors
/// If the reply is an error.
pub fn check(reply: &Reply) -> Result<()> {
    if let Reply::Error(refusal) = reply { Err(of_refusal(refusal)) } else { Ok(()) }
}

/// The error of the store for an error reply.
pub fn of_refusal(refusal: &[u8]) -> StoreError {
    match code(refusal) {
        // In a cluster the router follows these.
        "MOVED" | "ASK" | "CROSSSLOT" => StoreError::unavailable(
            "this server is a node of a cluster: use the option cluster, with the URLs of some nodes",
        ),
        "OOM" => StoreError::Full(message(refusal).into()),
        "WRONGTYPE" => FOREIGN,
        _ => StoreError::unavailable(message(refusal)),
    }
}

/// The error for a reply that no server should send.
pub fn unexpected() -> StoreError {
    StoreError::unavailable("Redis sent an unexpected reply")
}

/// The error for a value that this store has not written.
pub const FOREIGN: StoreError = StoreError::Corrupt("its key has a value that this store has not written");

/// Replaces the error for a foreign value by `otherwise`: a key of another app must not fail the call for all other
/// keys.
pub fn unless_foreign<T>(outcome: Result<T>, otherwise: T) -> Result<T> {
    match outcome {
        Err(StoreError::Corrupt(_)) => Ok(otherwise),
        outcome => outcome,
    }
}

/// The error for a call that panicked.
pub fn panicked() -> StoreError {
    StoreError::Internal("a call panicked".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_found_in_script_errors_of_any_version() {
        for (line, code_of_it, text) in [
            ("READONLY You can't write.", "READONLY", "Redis says READONLY You can't write."),
            (
                "OOM full. script: 75d9, on @user_script:9.",
                "OOM",
                "Redis says OOM full. script: 75d9, on @user_script:9.",
            ),
            (
                "ERR Error running script (call to f_75d9): @user_script:9: @user_script: 9: -OOM command not allowed.",
                "OOM",
                "Redis says OOM command not allowed.",
            ),
            (
                "ERR Error running script (call to f_75d9): @user_script:1: WRONGTYPE Operation against a key",
                "WRONGTYPE",
                "Redis says WRONGTYPE Operation against a key",
            ),
            (
                "ERR Error running script (call to f_75d9): @user_script:6: @user_script: 6: The user may not",
                "ERR",
                "Redis says ERR Error running script (call to f_75d9): @user_script:6: @user_script: 6: The user may not",
            ),
            ("ERR unknown command", "ERR", "Redis says ERR unknown command"),
            ("EXECABORT Transaction discarded because of: OOM not now.", "OOM", "Redis says OOM not now."),
        ] {
            let error = line.as_bytes();
            assert_eq!((code(error), &message(error)[..]), (code_of_it, text));
        }
    }
}
