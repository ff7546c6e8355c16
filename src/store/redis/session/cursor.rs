//! Scans over all that a store has in Redis, on every primary: how far each has come.
//!
//! `SCAN` gives at least once what is there all the time. So a scan that must not repeat a key keeps in mind what it has
//! seen: 64 bits of each. Two of 10 million keys share theirs once in 300 000 scans.
//!
//! The cursors of a server are of one connection: after another server has taken over, it is scanned from the start.
//! In a cluster keys move while it is scanned, to nodes that were scanned before. So its slots are looked at before and
//! after, and where some have moved, the nodes that got them are scanned once more (`SlotView`).

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::rc::Rc;

use super::super::routing::{Moves, Node, SlotView};
use crate::store::Cursor;

/// How many scans of the ids may be under way. Beyond that the one that has rested longest is forgotten: it starts again,
/// and may repeat ids. One that was given up takes some 32 KiB until then, and as much again in a cluster.
const MAX_SCANS: usize = 256;

/// A cursor over the keys that begin alike.
pub struct ScanCursor {
    pub start: Vec<u8>,
    seen: Option<HashSet<u64>>,
    hasher: foldhash::quality::RandomState,
    /// How often nodes were chosen to be scanned.
    pub rounds: u32,
    /// Where the slots of a cluster were when that was done last.
    pub view: Option<SlotView>,
    /// The moves that this round follows; `None` while all nodes are scanned.
    pub moves: Option<Moves>,
    /// The nodes to be scanned in this round; the last is under way.
    pub nodes: Vec<Rc<Node>>,
    /// Of the node under way: its connection, and its cursor.
    pub now: Option<(u64, Vec<u8>)>,
}

impl ScanCursor {
    /// Gives each key once.
    pub fn new(start: &[u8]) -> Self {
        Self { seen: Some(HashSet::new()), ..Self::forgetful(start) }
    }

    /// May give a key more than once, and remembers none.
    pub fn forgetful(start: &[u8]) -> Self {
        Self {
            start: start.to_vec(),
            seen: None,
            hasher: Default::default(),
            rounds: 0,
            view: None,
            moves: None,
            nodes: Vec::new(),
            now: None,
        }
    }

    pub fn is_new(&mut self, key: &[u8]) -> bool {
        self.seen.as_mut().is_none_or(|seen| seen.insert(self.hasher.hash_one(key)))
    }
}

/// The scans of the ids that are under way, by numbers that cursors hold.
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
