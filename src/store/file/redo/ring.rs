//! An open log: the position of the next batch, and the parts that are synced and that are in the data file.
//!
//! **Invariants**
//! - `applied <= durable <= written` and `entered <= written`. Bytes from `applied` to `written` are never
//!   overwritten.
//! - A failed log is never written or synced again. After a failed sync, the kernel may consider unwritten pages
//!   clean, and the next sync would succeed without writing them.
//! - `durable` moves to the value that `written` had before the sync started.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchWriter, FILE_HEADER_BYTES, LogEntry, LogId, Position, file_header,
    parse_file_header,
};
use super::points::{self, Point};
use super::storage::{LogFile, LogFiles, damaged};
use crate::error::{Result, StoreError};
use crate::store::file::errors::io_failed;

pub(super) struct Ring {
    file: Arc<dyn LogFile>,
    pub id: LogId,
    /// The size of the ring in bytes.
    size: u64,
    /// See `BatchHeader::salt`. 0 in a log that was not recovered.
    salt: u32,
    state: Mutex<State>,
    /// Held during a sync. The kernel reports a failure only once to each open file. A second concurrent sync could
    /// succeed without writing anything.
    syncing: Mutex<()>,
    has_failed: AtomicBool,
}

struct State {
    /// After the last batch.
    written: Position,
    /// After the last batch whose rows are in the overlay.
    entered: Position,
    durable: u64,
    applied: Position,
    /// Ends of batches between `applied` and `entered`, at distances of about `size / PARTS`.
    parts: VecDeque<Position>,
}

/// The file of the next log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextFile {
    /// The file of the last log, or a new one.
    Old,
    New,
    /// The prepared file.
    Prepared,
}

/// A recovered log.
pub(super) struct Recovered {
    pub ring: Ring,
    /// The next `created` after the last batch.
    pub next: u64,
}

impl Ring {
    /// Starts a log. The data file does not name it yet.
    pub(super) fn begin(files: &dyn LogFiles, id: LogId, size: u64, next: NextFile) -> Result<Self> {
        let failed = |error| io_failed(&files.path().display(), "starting", &error);
        let old = if next == NextFile::Old { files.open()? } else { None };
        let len_of = |file: &Arc<dyn LogFile>| file.len().map_err(failed);
        let is_of_use = |len: u64| len.is_multiple_of(FILE_HEADER_BYTES) && len > MIN_BYTES;
        let (file, len) = match old.map(|file| len_of(&file).map(|len| (file, len))).transpose()? {
            Some((file, len)) if is_of_use(len) => {
                // The process that renamed the file may have been killed before the name was durable.
                files.sync_name()?;
                (file, len)
            }
            _ => {
                let len = size + FILE_HEADER_BYTES;
                if next != NextFile::Prepared {
                    files.prepare(len)?;
                }
                (files.install()?, len)
            }
        };
        let size = len - FILE_HEADER_BYTES;
        file.write_at(&file_header(&id, size), 0).and_then(|()| file.sync()).map_err(failed)?;
        Ok(Self::at(file, id, size, Position::default(), 0))
    }

    fn at(file: Arc<dyn LogFile>, id: LogId, size: u64, at: Position, salt: u32) -> Self {
        let parts = VecDeque::new();
        let state = State { written: at, entered: at, durable: at.lsn, applied: at, parts };
        Self {
            file,
            id,
            size,
            salt,
            state: Mutex::new(state),
            syncing: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Opens the log that the store needs. Calls `visit` with the LSN, the key and the row of each record that the data
    /// file may lack, in log order.
    ///
    /// # Errors
    /// `Damaged` if the file is not the store's log, or lacks synced bytes. Nothing was changed.
    pub(super) fn recover(
        files: &dyn LogFiles,
        entry: &LogEntry,
        mut visit: impl FnMut(u64, &[u8], Option<&[u8]>),
    ) -> Result<Recovered> {
        let path = files.path();
        let file = files.open()?.ok_or_else(|| damaged(&path, MISSING))?;
        let (bytes, scan) = read(&*file, entry, &mut visit).map_err(|fault| match fault {
            LogFault::Damaged(why) => damaged(&path, &why),
            LogFault::Io(error) => io_failed(&path.display(), "reading", &error),
        })?;
        let salt = u32::from_le_bytes(points::random()?);
        // After a failed sync, the kernel may consider bytes clean that are not on disk. Rewriting makes them dirty.
        // The sync then uses this file description.
        let ring = Self::at(file, entry.id, bytes.len() as u64, scan.end, salt);
        {
            let mut state = ring.state.lock();
            state.applied = entry.applied;
            state.durable = entry.durable;
        }
        match ring.rewrite(&bytes, entry.applied.lsn, scan.end.lsn) {
            Ok(()) => ring.state.lock().durable = scan.end.lsn,
            // The next drain uses the rows in memory.
            Err(_) => ring.mark_failed(),
        }
        Ok(Recovered { ring, next: scan.next })
    }

    /// Rewrites a part of the ring unchanged and marks the end of the log. Returns when both are on disk.
    fn rewrite(&self, bytes: &[u8], from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let place = at % self.size;
            let len = (self.size - place).min(to - at);
            let part = &bytes[place as usize..(place + len) as usize];
            self.file.write_at(part, FILE_HEADER_BYTES + place)?;
            at += len;
        }
        self.write_end(from, to)?;
        points::reach(Point::RecoveryRewritten);
        self.file.sync()
    }

    /// Writes zeros where the next batch would start. That place may contain a part of an unreported batch. If the
    /// next process wrote the same bytes there, a power loss could make that batch complete.
    fn write_end(&self, applied: u64, end: u64) -> io::Result<()> {
        let zeros = [0; BATCH_HEADER_BYTES];
        let to_end = self.size - end % self.size;
        let at = if to_end < zeros.len() as u64 { end + to_end } else { end };
        let is_free = at + zeros.len() as u64 <= applied + self.size;
        if is_free { self.file.write_at(&zeros, FILE_HEADER_BYTES + at % self.size) } else { Ok(()) }
    }

    /// The size of the ring in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes that are not yet in the data file.
    pub(super) fn used(&self) -> u64 {
        let state = self.state.lock();
        state.written.lsn - state.applied.lsn
    }

    /// Everything before this position is in the data file.
    pub(super) fn applied(&self) -> Position {
        self.state.lock().applied
    }

    /// After the last batch whose rows are in the overlay.
    pub(super) fn entered(&self) -> Position {
        self.state.lock().entered
    }

    /// The maximum size of a batch at this moment.
    pub(super) fn room(&self) -> u64 {
        let state = self.state.lock();
        let free = self.size - (state.written.lsn - state.applied.lsn);
        let to_end = self.size - state.written.lsn % self.size;
        // A batch that does not fit before the end of the ring goes to its start, and the rest is padding.
        if free <= to_end { free } else { to_end.max(free - to_end) }
    }

    /// The data file's entry about this log.
    pub(super) fn entry(&self, applied: Position) -> LogEntry {
        LogEntry { id: self.id, applied, durable: self.state.lock().durable.max(applied.lsn) }
    }

    /// Writes a batch. The caller has checked that there is room. The next `sync` makes it durable.
    pub(super) fn append(&self, batch: BatchWriter, next: u64) -> io::Result<()> {
        self.check()?;
        let mut head = {
            let State { written: Position { lsn, crc: before }, durable, .. } = *self.state.lock();
            BatchHeader { lsn, before, durable, next, salt: self.salt, ..BatchHeader::default() }
        };
        let to_end = self.size - head.lsn % self.size;
        if (batch.len() as u64) > to_end {
            if to_end >= BATCH_HEADER_BYTES as u64 {
                let (bytes, crc) = head.padding(&self.id, to_end);
                self.write(&bytes, head.lsn)?;
                head.before = crc;
            }
            head.lsn += to_end;
        }
        let (bytes, crc) = batch.finish(&self.id, head);
        points::reach(Point::BeforeWrite);
        self.write(&bytes, head.lsn)?;
        points::reach(Point::AfterWrite);
        let mut state = self.state.lock();
        state.written = Position { lsn: head.lsn + bytes.len() as u64, crc };
        Ok(())
    }

    fn write(&self, bytes: &[u8], lsn: u64) -> io::Result<()> {
        self.file.write_at(bytes, FILE_HEADER_BYTES + lsn % self.size).inspect_err(|_| self.mark_failed())
    }

    /// Makes all earlier appends durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        let syncing = points::lock(&self.syncing);
        self.check()?;
        let written = self.state.lock().written.lsn;
        points::reach(Point::BeforeSync);
        self.file.sync().inspect_err(|_| self.mark_failed())?;
        let mut state = self.state.lock();
        state.durable = state.durable.max(written);
        drop(state);
        drop(syncing);
        points::reach(Point::AfterSync);
        Ok(())
    }

    /// The LSN after the last batch.
    pub(super) fn written(&self) -> u64 {
        self.state.lock().written.lsn
    }

    /// Everything before this LSN is on disk.
    pub(super) fn durable(&self) -> u64 {
        self.state.lock().durable
    }

    /// Records that the rows of all batches are in the overlay.
    pub(super) fn enter(&self) {
        let mut state = self.state.lock();
        let entered = state.written;
        state.entered = entered;
        let last = state.parts.back().unwrap_or(&state.applied).lsn;
        if entered.lsn - last >= self.size / PARTS {
            state.parts.push_back(entered);
        }
    }

    /// The end of the oldest part that is entered and not yet in the data file.
    pub(super) fn oldest_part(&self) -> Position {
        let state = self.state.lock();
        state.parts.front().copied().unwrap_or(state.entered)
    }

    /// Records that everything before a position is in the data file. Those bytes may be overwritten from now on.
    pub(super) fn apply(&self, to: Position) {
        let mut state = self.state.lock();
        state.applied = to;
        state.parts.retain(|part| part.lsn > to.lsn);
    }

    /// Makes every later write and sync fail.
    pub(super) fn mark_failed(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Whether the file is still at its path. Otherwise, nobody would find later writes.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        self.file.is_in_place()
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.has_failed() { Err(io::Error::other("a write to the log has failed before")) } else { Ok(()) }
    }

    /// Reads the log, and returns the problem of its synced and undrained part. The caller prevents drains.
    pub(super) fn verify(&self) -> io::Result<Option<&'static str>> {
        let entry = self.entry(self.applied());
        let mut bytes = vec![0; self.size as usize];
        self.file.read_at(&mut bytes, FILE_HEADER_BYTES)?;
        Ok(scan(&bytes, &entry, &mut |_, _, _| ()).err())
    }
}

/// The number of parts in which a filling log is drained. With small parts, there is room again sooner, but more
/// often two rows of one page are written at different times.
const PARTS: u64 = 4;

/// A smaller file is replaced.
const MIN_BYTES: u64 = 32 << 10;

/// The problem of a log without a file.
pub(in crate::store::file) const MISSING: &str = "it is missing";

/// The reason why a log cannot be recovered.
pub(in crate::store::file) enum LogFault {
    Damaged(String),
    Io(io::Error),
}

impl From<io::Error> for LogFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The reason why a file cannot be recovered as the log of the store. `None` if it can.
pub(in crate::store::file) fn fault_of(file: &dyn LogFile, entry: &LogEntry) -> Option<LogFault> {
    read(file, entry, &mut |_, _, _| ()).err()
}

/// Reads the ring of a file that must be the log of the store.
fn read(
    file: &dyn LogFile,
    entry: &LogEntry,
    visit: &mut impl FnMut(u64, &[u8], Option<&[u8]>),
) -> Result<(Vec<u8>, Scan), LogFault> {
    let damaged = |why: &str| LogFault::Damaged(why.into());
    let len = file.len()?;
    if len < FILE_HEADER_BYTES {
        return Err(damaged("it is cut short"));
    }
    let mut page = vec![0; FILE_HEADER_BYTES as usize];
    file.read_at(&mut page, 0)?;
    let (id, size) = parse_file_header(&page).map_err(LogFault::Damaged)?;
    if id != entry.id {
        return Err(damaged("it belongs to another store, or to an earlier log of this store"));
    }
    if size == 0 || len != size + FILE_HEADER_BYTES {
        return Err(damaged("its length is wrong"));
    }
    let mut bytes = vec![0; size as usize];
    file.read_at(&mut bytes, FILE_HEADER_BYTES)?;
    let scan = scan(&bytes, entry, visit).map_err(damaged)?;
    Ok((bytes, scan))
}

pub(super) struct Scan {
    pub end: Position,
    /// The next `created` after the last batch. 0 if there is no batch.
    pub next: u64,
}

/// Reads the batches after a position, up to the first incomplete one. Checks that no synced bytes are missing.
fn scan(
    ring: &[u8],
    entry: &LogEntry,
    visit: &mut impl FnMut(u64, &[u8], Option<&[u8]>),
) -> Result<Scan, &'static str> {
    let (scan, is_readable) = follow(ring, entry, visit);
    if !is_readable {
        return Err("a batch has records that do not fit into it");
    }
    if scan.end.lsn < entry.durable || last_claimed_sync(ring, &entry.id, scan.end.lsn) > scan.end.lsn {
        return Err("a part that was on disk is gone");
    }
    Ok(scan)
}

/// Reads the batches after a position, up to the first incomplete one. Also stops at a batch with a correct checksum
/// whose records do not fit, and then returns `false`. In that case, `visit` may have received some of its records,
/// with an LSN beyond the end.
pub(super) fn follow(
    ring: &[u8],
    entry: &LogEntry,
    visit: &mut impl FnMut(u64, &[u8], Option<&[u8]>),
) -> (Scan, bool) {
    let size = ring.len() as u64;
    let mut at = entry.applied;
    let mut next = 0;
    loop {
        let rest = &ring[(at.lsn % size) as usize..];
        if rest.len() < BATCH_HEADER_BYTES {
            at.lsn += rest.len() as u64;
            continue;
        }
        let follows = |head: &BatchHeader| (head.lsn, head.before) == (at.lsn, at.crc);
        let Some(head) = BatchHeader::parse(&entry.id, rest, follows) else { break };
        let end = at.lsn + head.len as u64;
        if end - entry.applied.lsn > size {
            break;
        }
        if !head.records(rest, |key, row| visit(end, key, row)) {
            return (Scan { end: at, next }, false);
        }
        next = head.next;
        at = Position { lsn: end, crc: head.crc };
    }
    (Scan { end: at, next }, true)
}

/// The largest LSN up to which a batch of the log claims to be synced, if it is beyond `end`.
fn last_claimed_sync(ring: &[u8], id: &LogId, end: u64) -> u64 {
    let size = ring.len() as u64;
    let heads = (0..ring.len()).step_by(8).filter_map(|at| {
        // Checked before the checksum, which may cover megabytes. A client can put many such headers into its
        // sessions.
        let is_plausible = |head: &BatchHeader| {
            head.lsn % size == at as u64 && (end..end + 2 * size).contains(&head.lsn) && head.durable > end
        };
        BatchHeader::parse(id, &ring[at..], is_plausible).map(|head| head.durable)
    });
    heads.max().unwrap_or(0)
}

/// The error of a failed write to the log.
pub(super) fn failed(files: &dyn LogFiles, error: &io::Error) -> StoreError {
    io_failed(&files.path().display(), "writing", error)
}

#[cfg(test)]
mod tests;
