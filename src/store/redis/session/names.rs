//! The names of what a store has in Redis.

use sha2::{Digest, Sha256};

use super::super::options::MARK;
use super::record::AFTER_USER;
use crate::keyring::LOOKUP_BYTES;

/// The longest user, as JSON, that an index's key shows; of a longer one it has a hash.
const MAX_USER: usize = 128;

/// The names of what a store has in Redis: `‹prefix›sess#‹id›`, `‹prefix›user#‹user›` and a few of one each.
#[derive(Debug, Clone)]
pub struct Names {
    pub sessions: Vec<u8>,
    pub users: Vec<u8>,
    /// Where encrypted sessions have what their keys are made from.
    pub seal: Vec<u8>,
    /// Whose holder sweeps.
    pub sweep: Vec<u8>,
    /// The limits of the processes.
    pub limits: Vec<u8>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        let name = |name: &str| [prefix, name].concat().into_bytes();
        let marked = |kind: &str| name(&format!("{kind}{MARK}"));
        Self {
            sessions: marked("sess"),
            users: marked("user"),
            seal: name("seal"),
            sweep: name("sweep"),
            limits: name("limits"),
        }
    }

    /// The key of a session, of which this is the name in an index.
    pub fn session(&self, member: &[u8]) -> Vec<u8> {
        [&self.sessions, member].concat()
    }
}

/// A pattern of `SCAN` for all that begins so.
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

/// A user as records and indexes have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserField {
    /// As JSON; `null` for none.
    pub json: Vec<u8>,
}

impl UserField {
    pub fn is_nobody(&self) -> bool {
        self.json == b"null"
    }

    /// What a script compares a record with.
    pub fn to_match(&self) -> Vec<u8> {
        [&self.json, AFTER_USER].concat()
    }

    /// The key of the user's index.
    pub fn index(&self, names: &Names) -> Vec<u8> {
        if self.json.len() <= MAX_USER {
            return [&names.users[..], &self.json].concat();
        }
        // No JSON begins like that.
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
