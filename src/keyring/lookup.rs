//! Blind index: keyed hashes of ids and users.

use hmac::{Hmac, Mac};
use sha2::Sha256;

pub const LOOKUP_BYTES: usize = 16;

/// The kind of the hashed bytes. An id and a user with the same bytes have different hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    Session = 1,
    User = 2,
}

/// HMAC-SHA-256, truncated to 16 bytes, with a precomputed key schedule.
pub(super) struct Lookup(Hmac<Sha256>);

impl Lookup {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    pub(super) fn of(&self, domain: u8, bytes: &[u8]) -> [u8; LOOKUP_BYTES] {
        let mac = self.0.clone().chain_update([domain]).chain_update(bytes).finalize().into_bytes();
        std::array::from_fn(|at| mac[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2; the domain is the first byte of its data.
    #[test]
    fn matches_the_test_vector_of_the_rfc() {
        let lookup = Lookup::new(b"Jefe").of(b'w', b"hat do ya want for nothing?");
        assert_eq!(lookup, *b"\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7");
    }
}
