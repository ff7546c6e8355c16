//! Reads what is left of a log that cannot be recovered.
//!
//! The batches that follow `applied` without a gap are the **prefix**. There may also be complete batches after the
//! damage.
//!
//! - A drain writes the newest states of rows, and may be killed between two transactions. Then some rows of the data
//!   file are newer than the prefix. `durable` shows that, because each transaction of a drain records how much of
//!   the log was on disk.
//! - If `durable` is in the prefix, no row of the data file is newer than the end of the prefix. The prefix is
//!   replayed.
//! - If `durable` is after the prefix, the data file may lack a session of the prefix because it was deleted later.
//!   Replaying the prefix would bring that session back.
//! - In both cases a batch proves that sessions have **ended**. No two sessions have the same `created`. So if a
//!   batch deleted a key, every row of this key with an earlier `created` has ended for good. All batches count, so
//!   that few logouts are undone.
//! - Rows after the damage are not replayed. With `durability: "everysec"`, a batch may remain there that a power
//!   loss has cut off from its log, and its sessions may have ended since. At worst, it ends a live session.
//!
//! The checksum of a batch starts with the log's id, which the data file knows. So a damaged first page does not
//! matter, and no batch of another log is valid.

use std::collections::HashMap;
use std::io;

use foldhash::quality::RandomState;

use super::format::{BatchHeader, FILE_HEADER_BYTES, LogEntry, parse_file_header, seeded};
use super::ring::{Scan, follow};
use super::storage::LogFile;
use crate::store::file::record::Record;

/// No log of this package is larger.
const MAX_RING: u64 = 256 << 20;
/// The unit of a disk's read errors.
const PAGE: usize = 4096;

type OwnedKey = Box<[u8]>;
/// `None` means that the row was deleted.
type OwnedRow = Option<Box<[u8]>>;

/// The readable part of a damaged log.
#[derive(Default)]
pub(in crate::store::file) struct Salvaged {
    /// The newest states in the prefix, if they may be replayed.
    pub rows: HashMap<OwnedKey, OwnedRow, RandomState>,
    /// For each key, rows with a smaller `created` belong to sessions that have ended.
    pub ended: HashMap<OwnedKey, u64, RandomState>,
    /// The next `created` after all readable batches.
    pub next: u64,
    /// Row changes in the prefix.
    pub prefix_changes: u64,
    /// Row changes in batches after the damage.
    pub later_changes: u64,
    /// Whether the data file may have rows that are newer than the prefix.
    pub is_data_ahead: bool,
    /// The minimum number of missing bytes.
    pub lost_bytes: u64,
    /// Identifies the bytes that were read.
    pub checksum: u32,
}

/// Reads the valid batches of a log.
///
/// # Errors
/// Those of getting the file's length. Unreadable bytes count as damaged.
pub(in crate::store::file) fn salvage(file: &dyn LogFile, entry: &LogEntry) -> io::Result<Salvaged> {
    let ring = read_ring(file, entry)?;
    let mut hasher = seeded(&entry.id);
    hasher.update(&ring);
    let salvaged = Salvaged { checksum: hasher.finalize(), ..Salvaged::default() };
    Ok(if ring.is_empty() { salvaged } else { salvaged.with_batches(&ring, entry) })
}

impl Salvaged {
    fn with_batches(mut self, ring: &[u8], entry: &LogEntry) -> Self {
        let mut prefix: Vec<(u64, OwnedKey, OwnedRow)> = Vec::new();
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

    /// Records which sessions of a key have ended, as shown by its row after a batch. `next` is the next `created` of
    /// that batch.
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

/// The complete batches from a position on that do not follow it, with their positions in the ring.
fn later_batches<'r>(
    ring: &'r [u8],
    entry: &LogEntry,
    from: u64,
) -> impl Iterator<Item = (usize, BatchHeader)> + use<'r> {
    let (id, size) = (entry.id, ring.len() as u64);
    // Nothing after `applied` is overwritten.
    let lsns = from..entry.applied.lsn.saturating_add(size);
    (0..ring.len()).step_by(8).filter_map(move |at| {
        let is_plausible = |head: &BatchHeader| head.lsn % size == at as u64 && lsns.contains(&head.lsn);
        BatchHeader::parse(&id, &ring[at..], is_plausible).map(|head| (at, head))
    })
}

/// The ring of a file, with zeros for missing and unreadable bytes. Empty if the file has no ring.
fn read_ring(file: &dyn LogFile, entry: &LogEntry) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    let mut page = vec![0; FILE_HEADER_BYTES.min(len) as usize];
    read_leniently(file, &mut page, 0);
    let size = match parse_file_header(&page) {
        Ok((id, size)) if id == entry.id => size,
        // The first page does not contain the size. The length of the file may still be right.
        _ => len.saturating_sub(FILE_HEADER_BYTES),
    };
    let size = size / 8 * 8;
    if !(FILE_HEADER_BYTES..=MAX_RING).contains(&size) {
        return Ok(Vec::new());
    }
    let mut ring = vec![0; size as usize];
    let there = size.min(len.saturating_sub(FILE_HEADER_BYTES)) as usize;
    read_leniently(file, &mut ring[..there], FILE_HEADER_BYTES);
    Ok(ring)
}

/// Reads all readable bytes. Fills unreadable pages with zeros.
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
