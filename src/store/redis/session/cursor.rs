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
use std::time::Duration;

use tokio::time::Instant;

use super::super::routing::{Moves, Node, SlotView};
use super::window::Window;
use crate::error::{Result, StoreError};
use crate::store::Cursor;

/// How many scans may be under way for callers. Beyond that the one that has rested longest ends, and its next call fails.
/// A scan that nobody ends stays until then, or until it has rested for [`MAX_REST`].
const MAX_SCANS: usize = 256;

/// For how long a scan may rest. The caller of a page of ids may take a while for each.
const MAX_REST: Duration = Duration::from_secs(3600);

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
    /// Keys that were given, and whose sessions are to be read.
    pub unread: Vec<Vec<u8>>,
    /// How many of these may be read at once.
    pub window: Window,
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
            unread: Vec::new(),
            window: Window::new(),
        }
    }

    pub fn is_new(&mut self, key: &[u8]) -> bool {
        self.seen.as_mut().is_none_or(|seen| seen.insert(self.hasher.hash_one(key)))
    }
}

/// The scans that are under way for callers, by numbers that cursors hold.
#[derive(Default)]
pub struct Scans {
    last: u64,
    /// The one that has rested longest comes first.
    scans: Vec<RestingScan>,
}

struct RestingScan {
    number: u64,
    since: Instant,
    cursor: ScanCursor,
}

impl Scans {
    /// Takes the scan of a cursor, or begins one.
    ///
    /// # Errors
    /// `Busy` if the scan has ended for others.
    pub fn take(&mut self, cursor: &Cursor, start: &[u8]) -> Result<(u64, ScanCursor)> {
        self.end_abandoned();
        if cursor.as_bytes().is_empty() {
            self.last += 1;
            return Ok((self.last, ScanCursor::new(start)));
        }
        let number_of = |scan: RestingScan| (scan.number, scan.cursor);
        self.position(cursor).map(|at| number_of(self.scans.remove(at))).ok_or_else(|| {
            let minutes = MAX_REST.as_secs() / 60;
            StoreError::Busy(
                format!(
                    "this iteration has ended, as more than {MAX_SCANS} were under way, or as it asked for nothing for \
                     {minutes} minutes"
                )
                .into(),
            )
        })
    }

    /// Ends the scans that have rested for too long.
    pub fn end_abandoned(&mut self) {
        self.scans.retain(|scan| scan.since.elapsed() < MAX_REST);
    }

    /// Ends the scan of a cursor, if it is under way.
    pub fn end(&mut self, cursor: &Cursor) {
        if let Some(at) = self.position(cursor) {
            self.scans.remove(at);
        }
    }

    fn position(&self, cursor: &Cursor) -> Option<usize> {
        let number = cursor.as_bytes().try_into().ok().map(u64::from_le_bytes)?;
        self.scans.iter().position(|scan| scan.number == number)
    }

    pub fn keep(&mut self, number: u64, cursor: ScanCursor) {
        if self.scans.len() == MAX_SCANS {
            self.scans.remove(0);
        }
        self.scans.push(RestingScan { number, since: Instant::now(), cursor });
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    fn cursor(number: u64) -> Cursor {
        Cursor::from_bytes(&number.to_le_bytes())
    }

    #[test]
    fn only_so_many_scans_are_kept_and_one_that_is_gone_does_not_begin_again() {
        let mut scans = Scans::default();
        let begin = |scans: &mut Scans| {
            let (number, scan) = scans.take(&Cursor::default(), b"sess#").unwrap();
            scans.keep(number, scan);
            number
        };
        let first = begin(&mut scans);
        for _ in 0..2 * MAX_SCANS {
            let left_early = begin(&mut scans);
            scans.end(&cursor(left_early));
        }
        let (_, scan) = scans.take(&cursor(first), b"sess#").unwrap();
        scans.keep(first, scan);
        for _ in 0..MAX_SCANS {
            begin(&mut scans);
        }
        assert_eq!(scans.scans.len(), MAX_SCANS);
        let gone = scans.take(&cursor(first), b"sess#").map(drop);
        assert_eq!(gone.unwrap_err().code(), "ERR_STORE_BUSY");
    }

    #[test]
    fn a_scan_that_nobody_goes_on_with_ends() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scans = Scans::default();
            let (number, mut scan) = scans.take(&Cursor::default(), b"sess#").unwrap();
            for _ in 0..3 {
                scans.keep(number, scan);
                tokio::time::advance(MAX_REST - Duration::from_millis(1)).await;
                (_, scan) = scans.take(&cursor(number), b"sess#").unwrap();
            }
            scans.keep(number, scan);
            tokio::time::advance(MAX_REST).await;
            assert_eq!(scans.take(&cursor(number), b"sess#").map(drop).unwrap_err().code(), "ERR_STORE_BUSY");
            assert_eq!(scans.scans.len(), 0);
        });
    }
}
