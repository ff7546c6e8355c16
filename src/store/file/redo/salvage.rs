//! The readable part of a log that cannot be recovered.
//!
//! The batches that follow `applied` without a gap are the **prefix**. Whole batches may stand behind the damage as well.
//!
//! - A drain takes the newest states of rows, and it may be killed between two transactions. Then some rows of the data file
//!   are newer than the prefix. `durable` shows that: each transaction of a drain notes up to where the log was on disk.
//! - If `durable` is in the prefix, no row of the data file is newer than the end of the prefix. The prefix is replayed.
//! - If `durable` is behind it, the data file may lack a session of the prefix because it was deleted later. To replay the
//!   prefix would bring that session back.
//! - In both cases a batch proves that sessions have **ended**. No two sessions have one `created`. So a row is over for ever
//!   if its key was deleted by a batch and it was created before that. All batches count, so that few logouts are undone.
//! - Rows behind the damage are not replayed. With `durability: "everysec"` a batch may stand there that a power loss has cut
//!   off from its log. Its sessions may have ended since. At worst it ends a session that is live.
//!
//! The checksum of a batch begins with the log's id, which the data file knows. So a damaged first page is no obstacle, and
//! in another log nothing is found.

use std::collections::HashMap;
use std::io;

use foldhash::quality::RandomState;

use super::format::{HEADER_BYTES, Head, LogEntry, parse_header, seeded};
use super::ring::{Scan, follow};
use super::storage::LogFile;
use crate::store::file::record::Record;

/// No log of this package is larger.
const MAX_RING: u64 = 256 << 20;
/// The unit in which a disk fails to read.
const PAGE: usize = 4096;

type Key = Box<[u8]>;
/// `None` is a deleted row.
type Row = Option<Box<[u8]>>;

/// The readable part of a damaged log.
#[derive(Default)]
pub(in crate::store::file) struct Salvaged {
    /// The newest states of the prefix, if they may be replayed.
    pub rows: HashMap<Key, Row, RandomState>,
    /// The rows of these keys whose `created` is smaller belong to sessions that have ended.
    pub ended: HashMap<Key, u64, RandomState>,
    /// The next `created` after all that was read.
    pub next: u64,
    /// Changes of rows in the prefix.
    pub prefix_changes: u64,
    /// Changes of rows in batches behind the damage.
    pub later_changes: u64,
    /// Whether the data file may have rows that are newer than the prefix.
    pub is_data_ahead: bool,
    /// How many bytes are missing at least.
    pub lost_bytes: u64,
    /// Identifies what was read.
    pub checksum: u32,
}

/// Reads the valid batches of a log.
///
/// # Errors
/// Those of asking for the file's length. What the disk fails to read counts as damaged.
pub(in crate::store::file) fn salvage(file: &dyn LogFile, entry: &LogEntry) -> io::Result<Salvaged> {
    let ring = read_ring(file, entry)?;
    let mut hasher = seeded(&entry.id);
    hasher.update(&ring);
    let salvaged = Salvaged { checksum: hasher.finalize(), ..Salvaged::default() };
    Ok(if ring.is_empty() { salvaged } else { salvaged.with_batches(&ring, entry) })
}

impl Salvaged {
    fn with_batches(mut self, ring: &[u8], entry: &LogEntry) -> Self {
        let mut prefix: Vec<(u64, Key, Row)> = Vec::new();
        let (Scan { end, next }, _) = follow(ring, entry, &mut |lsn, key, row| {
            prefix.push((lsn, key.into(), row.map(Into::into)));
        });
        prefix.retain(|(lsn, _, _)| *lsn <= end.lsn);
        self.prefix_changes = prefix.len() as u64;
        self.next = next;
        self.is_data_ahead = end.lsn < entry.durable;
        for (_, key, row) in prefix {
            self.rows.insert(key, row);
        }
        if self.is_data_ahead {
            for (key, row) in std::mem::take(&mut self.rows) {
                self.note_end(&key, row.as_deref(), next);
            }
        }
        let (mut later_end, mut later_bytes) = (entry.durable, 0);
        for (place, head) in later_batches(ring, entry, end.lsn) {
            later_end = later_end.max(head.durable).max(head.lsn + head.len as u64);
            later_bytes += head.len as u64;
            self.next = self.next.max(head.next);
            let mut changes = Vec::new();
            if head.records(&ring[place..], |key, row| changes.push((key, row))) {
                self.later_changes += changes.len() as u64;
                changes.iter().for_each(|(key, row)| self.note_end(key, *row, head.next));
            }
        }
        self.lost_bytes = later_end.saturating_sub(end.lsn).saturating_sub(later_bytes);
        self
    }

    /// Notes what a row, as it was after a batch, says of former sessions of its key. `next` is that of the batch.
    fn note_end(&mut self, key: &[u8], row: Option<&[u8]>, next: u64) {
        let before = match row.map(Record::parse) {
            None => next,
            Some(Ok(record)) => record.header.created,
            Some(Err(_)) => return,
        };
        let ended = self.ended.entry(key.into()).or_default();
        *ended = before.max(*ended);
    }
}

/// The whole batches from a place on that do not follow it, by their place in the ring.
fn later_batches<'r>(
    ring: &'r [u8],
    entry: &LogEntry,
    from: u64,
) -> impl Iterator<Item = (usize, Head)> + use<'r> {
    let (id, size) = (entry.id, ring.len() as u64);
    // Nothing from `applied` on is overwritten.
    let lsns = from..entry.applied.lsn.saturating_add(size);
    (0..ring.len()).step_by(8).filter_map(move |at| {
        let is_plausible = |head: &Head| head.lsn % size == at as u64 && lsns.contains(&head.lsn);
        Head::parse(&id, &ring[at..], is_plausible).map(|head| (at, head))
    })
}

/// The ring of a file, with zeros for what is missing or cannot be read. Empty if the file has no ring.
fn read_ring(file: &dyn LogFile, entry: &LogEntry) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    let mut page = vec![0; HEADER_BYTES.min(len) as usize];
    read_leniently(file, &mut page, 0);
    let size = match parse_header(&page) {
        Ok((id, size)) if id == entry.id => size,
        // Its first page does not say it. The file may have its length.
        _ => len.saturating_sub(HEADER_BYTES),
    };
    let size = size / 8 * 8;
    if !(HEADER_BYTES..=MAX_RING).contains(&size) {
        return Ok(Vec::new());
    }
    let mut ring = vec![0; size as usize];
    let there = size.min(len.saturating_sub(HEADER_BYTES)) as usize;
    read_leniently(file, &mut ring[..there], HEADER_BYTES);
    Ok(ring)
}

/// Reads what can be read, and leaves the rest as it is.
fn read_leniently(file: &dyn LogFile, bytes: &mut [u8], at: u64) {
    if bytes.is_empty() || file.read_at(bytes, at).is_ok() {
        return;
    }
    for (nth, part) in bytes.chunks_mut(PAGE).enumerate() {
        if file.read_at(part, at + (nth * PAGE) as u64).is_err() {
            part.fill(0);
        }
    }
}

#[cfg(test)]
mod tests;
