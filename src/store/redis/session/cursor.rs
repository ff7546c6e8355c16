//! The progress of scans over a store's keys on every primary.
//!
//! `SCAN` returns each key that exists throughout the scan at least once. A scan that must not repeat a key remembers
//! 64 bits of each key. Among 10 million keys, two share these bits once in 300 000 scans.
//!
//! A server's scan cursor is valid on that server only. After a failover, the node is scanned from the start. In a
//! cluster, keys may move during the scan to nodes that were scanned before. So the slots are compared before and
//! after, and nodes that have received some are scanned again (`SlotView`).

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::routing::{Moves, Node, SlotView};
use super::window::Window;
use crate::error::{Result, StoreError};
use crate::store::Cursor;

/// The maximum number of scans that callers may have open. Beyond it, the one that has been idle longest ends, and
/// its next call fails. An abandoned scan stays until then, or until it has been idle for [`MAX_IDLE`].
const MAX_SCANS: usize = 256;

/// How long a scan may be idle. A caller may take its time over each page.
const MAX_IDLE: Duration = Duration::from_secs(3600);

/// A cursor over all keys with a common start.
pub struct ScanCursor {
    pub start: Vec<u8>,
    seen: Option<HashSet<u64>>,
    hasher: foldhash::quality::RandomState,
    /// How often nodes were chosen for scanning.
    pub rounds: u32,
    /// The slots of the cluster at the last choice.
    pub view: Option<SlotView>,
    /// The moves that this round follows. `None` while all nodes are scanned.
    pub moves: Option<Moves>,
    /// The nodes to scan in this round. The last one is being scanned.
    pub nodes: Vec<Rc<Node>>,
    /// The connection and the cursor of the node that is being scanned.
    pub now: Option<(u64, Vec<u8>)>,
    /// Keys that were returned, and whose sessions were not read yet.
    pub unread: Vec<Vec<u8>>,
    /// How many of them may be read together.
    pub window: Window,
}

impl ScanCursor {
    /// Returns each key once.
    pub fn new(start: &[u8]) -> Self {
        Self { seen: Some(HashSet::new()), ..Self::repeating(start) }
    }

    /// May return a key more than once, and remembers none.
    pub fn repeating(start: &[u8]) -> Self {
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

/// The open scans, by the numbers in their callers' cursors.
#[derive(Default)]
pub struct Scans {
    last: u64,
    /// Sorted by idle time, the longest first.
    scans: Vec<IdleScan>,
}

struct IdleScan {
    number: u64,
    since: Instant,
    cursor: ScanCursor,
}

impl Scans {
    /// Takes the scan of a cursor, or starts one.
    ///
    /// # Errors
    /// `Busy` if the scan was ended.
    pub fn take(&mut self, cursor: &Cursor, start: &[u8]) -> Result<(u64, ScanCursor)> {
        self.end_abandoned();
        if cursor.as_bytes().is_empty() {
            self.last += 1;
            return Ok((self.last, ScanCursor::new(start)));
        }
        let number_of = |scan: IdleScan| (scan.number, scan.cursor);
        self.position(cursor).map(|at| number_of(self.scans.remove(at))).ok_or_else(|| {
            let minutes = MAX_IDLE.as_secs() / 60;
            StoreError::Busy(
                format!(
                    "this iteration has ended, as more than {MAX_SCANS} were under way, or as it asked for nothing for \
                     {minutes} minutes"
                )
                .into(),
            )
        })
    }

    /// Ends the scans that have been idle for too long.
    pub fn end_abandoned(&mut self) {
        self.scans.retain(|scan| scan.since.elapsed() < MAX_IDLE);
    }

    /// Ends the scan of a cursor, if it is open.
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
        self.scans.push(IdleScan { number, since: Instant::now(), cursor });
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
    fn the_number_of_open_scans_is_limited() {
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
    fn an_idle_scan_ends() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scans = Scans::default();
            let (number, mut scan) = scans.take(&Cursor::default(), b"sess#").unwrap();
            for _ in 0..3 {
                scans.keep(number, scan);
                tokio::time::advance(MAX_IDLE - Duration::from_millis(1)).await;
                (_, scan) = scans.take(&cursor(number), b"sess#").unwrap();
            }
            scans.keep(number, scan);
            tokio::time::advance(MAX_IDLE).await;
            assert_eq!(scans.take(&cursor(number), b"sess#").map(drop).unwrap_err().code(), "ERR_STORE_BUSY");
            assert_eq!(scans.scans.len(), 0);
        });
    }
}
