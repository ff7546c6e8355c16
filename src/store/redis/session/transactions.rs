//! Whether the servers support the transaction that creates a session. Before Redis 7 they do not know `PEXPIREAT …
//! GT`.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::error;

#[derive(Default)]
pub struct Transactions {
    are_refused: AtomicBool,
}

impl Transactions {
    pub fn are_supported(&self) -> bool {
        !self.are_refused.load(Ordering::Relaxed)
    }

    /// Records why a server refused a transaction. Returns whether the server does not support it, so that the store
    /// uses a script from now on.
    pub fn record_refusal(&self, reason: &[u8]) -> bool {
        // A proxy or an ACL may report only that the transaction was discarded.
        let is_unknown = matches!(error::code(reason), "ERR" | "NOPERM" | "EXECABORT");
        if is_unknown {
            self.are_refused.store(true, Ordering::Relaxed);
        }
        is_unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_used_until_a_server_refuses_them() {
        for (reason, is_unknown) in [
            ("OOM command not allowed", false),
            ("WRONGTYPE Operation against a key", false),
            ("READONLY no", false),
            ("ERR wrong number of arguments for 'pexpireat' command", true),
            ("NOPERM this user has no permissions to run the 'multi' command", true),
            ("EXECABORT Transaction discarded because of: NOPERM no", true),
            ("EXECABORT Transaction discarded because of: OOM no", false),
            ("EXECABORT Transaction discarded because of previous errors.", true),
        ] {
            let transactions = Transactions::default();
            assert_eq!(transactions.record_refusal(reason.as_bytes()), is_unknown, "{reason}");
            assert_eq!(transactions.are_supported(), !is_unknown, "{reason}");
        }
    }
}
