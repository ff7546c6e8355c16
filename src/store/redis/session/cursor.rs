//! Scans over all that a store has in Redis, on every primary: how far each has come.
//!
//! `SCAN` gives what is there all the time at least once, so that a scan keeps in mind what it has seen: a hash of
//! each, of so many bits that two do not meet. The cursors of a server are of one connection: after another server has
//! taken over, or slots have moved, it begins again with what it has not seen.

use std::collections::HashSet;
use std::hash::BuildHasher;

use super::super::options::Address;
use crate::store::Cursor;

/// How many scans of the ids may be under way. Beyond that the one that has rested longest is forgotten: it starts again,
/// and may repeat ids. One that was given up takes some 32 KiB until then.
const MAX_SCANS: usize = 256;

/// A cursor over the keys that begin alike.
pub struct ScanCursor {
    pub start: Vec<u8>,
    /// `None` if it may give a key more than once.
    seen: Option<HashSet<[u64; 2]>>,
    hashers: [foldhash::quality::RandomState; 2],
    /// The servers that are done, and the state of the map by which they were found.
    pub done: Vec<Address>,
    pub version: Option<u64>,
    /// The server under way: its connection, and its cursor.
    pub now: Option<(Address, u64, Vec<u8>)>,
}

impl ScanCursor {
    pub fn new(start: &[u8]) -> Self {
        Self {
            start: start.to_vec(),
            seen: Some(HashSet::new()),
            hashers: Default::default(),
            done: Vec::new(),
            version: None,
            now: None,
        }
    }

    /// One that keeps nothing in mind, and may give a key more than once.
    pub fn forgetful(start: &[u8]) -> Self {
        Self { seen: None, ..Self::new(start) }
    }

    pub fn is_new(&mut self, key: &[u8]) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        seen.insert([self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)])
    }
}

/// The walks over the ids that are under way, by numbers that cursors hold.
#[derive(Default)]
pub struct Scans {
    last: u64,
    /// The one that has rested longest comes first.
    scans: Vec<(u64, ScanCursor)>,
}

impl Scans {
    pub fn take(&mut self, cursor: &Cursor, start: &[u8]) -> (u64, ScanCursor) {
        let number = cursor.as_bytes().try_into().ok().map(u64::from_le_bytes);
        let at = number.and_then(|number| self.scans.iter().position(|(other, _)| *other == number));
        match at {
            Some(at) => self.scans.remove(at),
            None => {
                self.last += 1;
                (self.last, ScanCursor::new(start))
            }
        }
    }

    pub fn keep(&mut self, number: u64, cursor: ScanCursor) {
        if self.scans.len() == MAX_SCANS {
            self.scans.remove(0);
        }
        self.scans.push((number, cursor));
    }
}
