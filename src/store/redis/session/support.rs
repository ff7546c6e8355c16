//! Whether the servers support a form of a command that older ones do not know. It is assumed until one refuses it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::error;

/// So many calls use a script after a refusal with an unknown code. Then the form is tried again, because a proxy may have
/// refused it for a reason that passes.
const SKIPPED_CALLS: u32 = 1000;

/// After a refusal by Redis itself no call uses the form.
const ALL_CALLS: u32 = u32::MAX;

#[derive(Default)]
pub struct Support {
    /// The number of calls left that do not use the form.
    skipped: AtomicU32,
}

impl Support {
    /// Whether the next call may use the form. Threads may count a call together, or twice.
    pub fn is_supported(&self) -> bool {
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 && skipped < ALL_CALLS {
            self.skipped.store(skipped - 1, Ordering::Relaxed);
        }
        skipped == 0
    }

    /// Records why a server refused a command. Returns whether the server does not support it, so that the next calls use
    /// a script.
    pub fn record_refusal(&self, reason: &[u8]) -> bool {
        let code = error::code(reason);
        let is_unknown = error::is_permanent(code);
        if is_unknown {
            let is_by_redis = matches!(code, "ERR" | "NOPERM" | "EXECABORT");
            self.skipped.store(if is_by_redis { ALL_CALLS } else { SKIPPED_CALLS }, Ordering::Relaxed);
        }
        is_unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_used_until_a_server_does_not_support_it() {
        for (reason, is_unknown) in [
            ("OOM command not allowed", false),
            ("WRONGTYPE Operation against a key", false),
            ("READONLY no", false),
            ("LOADING Redis is loading the dataset in memory", false),
            ("MASTERDOWN Link with MASTER is down", false),
            ("BUSY Redis is busy running a script.", false),
            ("MISCONF Errors writing to the AOF file", false),
            ("NOREPLICAS Not enough good replicas to write.", false),
            ("NOAUTH Authentication required.", false),
            ("NOSCRIPT No matching script.", false),
            ("MOVED 3999 127.0.0.1:6381", false),
            ("ASK 3999 127.0.0.1:6381", false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", false),
            ("CLUSTERDOWN The cluster is down", false),
            ("CROSSSLOT Keys in request don't hash to the same slot", false),
            ("REDIRECT 127.0.0.1:6381", false),
            ("NOTSUPPORTED this option", true),
            ("invalid request", true),
            ("", true),
            ("ERR wrong number of arguments for 'pexpireat' command", true),
            ("NOPERM this user has no permissions to run the 'multi' command", true),
            ("ERR syntax error", true),
            ("EXECABORT Transaction discarded because of: NOPERM no", true),
            ("EXECABORT Transaction discarded because of: OOM no", false),
            ("EXECABORT Transaction discarded because of previous errors.", true),
        ] {
            let support = Support::default();
            assert_eq!(support.record_refusal(reason.as_bytes()), is_unknown, "{reason}");
            assert_eq!(support.is_supported(), !is_unknown, "{reason}");
        }
    }

    #[test]
    fn a_form_is_tried_again_some_calls_after_an_unknown_refusal() {
        for (reason, is_forever) in [("upstream failure", false), ("ERR syntax error", true)] {
            let support = Support::default();
            support.record_refusal(reason.as_bytes());
            assert!((0..SKIPPED_CALLS).all(|_| !support.is_supported()));
            assert_eq!(support.is_supported(), !is_forever, "{reason}");
        }
    }
}
