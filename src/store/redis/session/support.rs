//! Whether the servers support a form of a command that older ones do not know. It is assumed until one refuses it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::error;

#[derive(Default)]
pub struct Support {
    is_refused: AtomicBool,
}

impl Support {
    pub fn is_supported(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// Records why a server refused a command. Returns whether the server does not support it, so that the store uses a
    /// script from now on.
    pub fn record_refusal(&self, reason: &[u8]) -> bool {
        let is_unknown = error::is_permanent(error::code(reason));
        if is_unknown {
            self.is_refused.store(true, Ordering::Relaxed);
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
}
