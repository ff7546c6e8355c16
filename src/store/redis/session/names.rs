//! The Redis keys of a store.

use sha2::{Digest, Sha256};

use super::super::options::MARK;
use super::record::AFTER_USER;
use crate::keyring::LOOKUP_BYTES;

/// The longest user, as JSON, that the key of an index contains. For a longer one the key contains a hash.
const MAX_USER: usize = 128;

/// The Redis keys of a store: `‹prefix›sess#‹id›`, `‹prefix›user#‹user›`, and some single keys.
#[derive(Debug, Clone)]
pub struct Names {
    pub sessions: Vec<u8>,
    pub users: Vec<u8>,
    /// The wrapped keys of encrypted sessions.
    pub wrapped_keys: Vec<u8>,
    /// The lock of the background sweep.
    pub sweep: Vec<u8>,
    /// The limits of all processes.
    pub limits: Vec<u8>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        let name = |name: &str| [prefix, name].concat().into_bytes();
        let marked = |kind: &str| name(&format!("{kind}{MARK}"));
        Self {
            sessions: marked("sess"),
            users: marked("user"),
            wrapped_keys: name("seal"),
            sweep: name("sweep"),
            limits: name("limits"),
        }
    }

    /// The key of a session. `member` is its name in an index.
    pub fn session(&self, member: &[u8]) -> Vec<u8> {
        [&self.sessions, member].concat()
    }
}

/// A `SCAN` pattern for all keys that start with `start`.
pub fn pattern(start: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(start.len() + 1);
    for &byte in start {
        if b"*?[]\\^-".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

/// A user as it appears in records and index keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserField {
    /// As JSON. `null` if there is no user.
    pub json: Vec<u8>,
}

impl UserField {
    pub fn is_nobody(&self) -> bool {
        self.json == b"null"
    }

    /// The text that a script compares with a record.
    pub fn to_match(&self) -> Vec<u8> {
        [&self.json, AFTER_USER].concat()
    }

    /// The key of the user's index.
    pub fn index(&self, names: &Names) -> Vec<u8> {
        if self.json.len() <= MAX_USER {
            return [&names.users[..], &self.json].concat();
        }
        // No JSON starts with this.
        [&names.users[..], b"sha256:", &hex(&Sha256::digest(&self.json))].concat()
    }
}

pub fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 * LOOKUP_BYTES);
    text.extend(
        bytes.iter().flat_map(|&byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    );
    text
}
