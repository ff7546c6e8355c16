//! Drains: write rows from the log to the data file.
//!
//! A pass drains the rows that were entered up to a position of the log and have not changed since. It sorts them by
//! key and commits one range of keys at a time. A row that has changed since is also later in the log, so a later
//! pass drains it. Each transaction changes rows together with their index entries, and reads the old rows. So rows
//! and index entries agree in every view of the data file. An interrupted pass needs no repair, because the next one
//! does the same work again. The last transaction of a pass moves `applied`.
//!
//! A filling log is drained part by part, oldest first, so that there is room again soon.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::{Base, Redo};
use super::format::Position;
use super::overlay::{OverlayEntry, RowKey};
use super::points::{self, Point};
use super::ring::{self, Ring};
use super::storage::has_room;
use crate::error::{Result, StoreError};
use crate::events::{Event, OTHERS};
use crate::store::file::record::Record;
use crate::store::file::rows::{IndexEntries, Rows};

/// The number of keys in a transaction. More keys make a drain cheaper, but delay other writers of this process.
const RANGE_KEYS: usize = 32_768;
/// The maximum bytes of rows in a transaction, which LMDB keeps in memory.
const RANGE_BYTES: usize = 16 << 20;
/// The maximum number of pages that one row changes in the three tables, and the number that each commit adds.
const PAGES_PER_ROW: usize = 6;
const PAGES_PER_COMMIT: usize = 16;
/// Before writers have to wait, the log is drained to this many bytes, in at most `MAX_PASSES` passes.
const REST_BYTES: u64 = 256 << 10;
const MAX_PASSES: usize = 8;
/// The number of entries that are removed from the overlay while the gate is locked once.
const REMOVAL_CHUNK: usize = 512;

/// The part of the log to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Oldest,
    All,
}

/// The work of a pass.
struct Plan {
    /// Sorted.
    keys: Vec<RowKey>,
    /// The number of keys that were drained.
    drained: usize,
    /// After all keys are drained, everything before this position is in the data file.
    end: Position,
    /// Before that, the log must be on disk up to this LSN, because it has newer states of the rows that the pass
    /// skips.
    synced: u64,
    is_all: bool,
    /// All keys must go into one transaction: the log has failed, and a power loss would take its end. So an
    /// incomplete drain could not be continued.
    is_whole: bool,
    /// The number of failed drains before this plan was made.
    failures: u64,
    is_done: bool,
}

impl Redo {
    /// Drains everything. No other thread writes to the data file during the drain.
    pub(super) fn drain_all(&self, ring: &Ring) -> Result<()> {
        let base = points::lock(&self.base);
        self.drain_under(&base, ring, Part::All)
    }

    /// Makes room in a full log.
    pub(super) fn make_room(&self, ring: &Ring) -> Result<()> {
        let before = ring.applied();
        let base = points::lock(&self.base);
        // A pass may have made room while this call waited.
        for part in [Part::Oldest, Part::All] {
            if ring.applied() == before {
                self.drain_under(&base, ring, part)?;
            }
        }
        Ok(())
    }

    pub(super) fn drain_under(&self, _base: &Base, ring: &Ring, part: Part) -> Result<()> {
        let begun = points::now();
        let mut plan = self.plan(ring, part);
        let bytes = plan.end.lsn.saturating_sub(ring.applied().lsn);
        while !plan.is_done {
            self.drain_next(ring, &mut plan)?;
        }
        self.end_plan(&plan);
        self.publish_drain(bytes, points::now() - begun);
        Ok(())
    }

    fn publish_drain(&self, bytes: u64, took: Duration) {
        if bytes > 0 {
            let millis = took.as_millis() as u64;
            self.environment.events.publish(OTHERS, || Event::Drained { bytes, millis });
        }
    }

    fn plan(&self, ring: &Ring, part: Part) -> Plan {
        let failures = self.overlay().failures();
        let is_whole = ring.has_failed() && ring.durable() < ring.entered().lsn;
        // Drain everything if entries may be wrong about the data file. Newer entries would inherit the error.
        let is_all = part == Part::All || self.overlay().is_uncertain() || is_whole;
        // Read before the keys: it does not matter whether rows that are entered later are among them.
        let end = if is_all { ring.entered() } else { ring.oldest_part() };
        let mut keys = self.overlay().keys_up_to(if is_all { u64::MAX } else { end.lsn });
        // Read after the keys. `entered` would be too small, because a batch is in the overlay a moment before it
        // moves.
        let synced = if is_all { 0 } else { ring.written() };
        keys.sort_unstable();
        Plan { keys, drained: 0, end, synced, is_all, is_whole, failures, is_done: false }
    }

    fn end_plan(&self, plan: &Plan) {
        if plan.is_all {
            self.overlay().mark_certain(plan.failures);
        }
    }

    /// Drains a part of the present log. Other threads may write to the data file between two ranges and during
    /// pauses.
    pub(super) fn pass(&self, ring: &Arc<Ring>, part: Part, pause: Duration) -> Result<()> {
        let mut plan = self.plan(ring, part);
        let bytes = plan.end.lsn.saturating_sub(ring.applied().lsn);
        let mut worked = Duration::ZERO;
        loop {
            {
                let base = points::lock(&self.base);
                let is_current = self.ring().is_some_and(|current| Arc::ptr_eq(&current, ring));
                if !is_current || base.uncertain_clear.is_some() || ring.has_failed() {
                    return Ok(());
                }
                let range_begun = points::now();
                self.drain_next(ring, &mut plan)?;
                worked += points::now() - range_begun;
            }
            if plan.is_done {
                break;
            }
            if !pause.is_zero() {
                points::sleep(pause);
            }
        }
        self.end_plan(&plan);
        self.publish_drain(bytes, worked);
        if let Some(kibibytes) = std::num::NonZeroU64::new(bytes / 1024) {
            let cost = worked.as_nanos() as u64 / kibibytes;
            let before = self.drain_cost.load(Ordering::Relaxed);
            self.drain_cost.store(u64::midpoint(before, cost), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Drains the present content of the log, if there is one.
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn drain_now(&self) -> Result<()> {
        if let Some(ring) = self.ring().filter(|_| !self.overlay().is_empty()) {
            self.pass(&ring, Part::All, Duration::ZERO)?;
        }
        // A pass does not drain a failed or uncertain log, and readers of the data file would miss its rows.
        if self.must_resolve_log() { self.resolve_log(&mut points::lock(&self.mode)) } else { Ok(()) }
    }

    /// Drains until little is left. Writes continue, but are slowed down.
    pub(super) fn drain_most(&self) -> Result<()> {
        self.is_emptying.store(true, Ordering::SeqCst);
        scopeguard::defer!(self.is_emptying.store(false, Ordering::SeqCst));
        for _ in 0..MAX_PASSES {
            match self.ring() {
                Some(ring) if ring.used() > REST_BYTES && !ring.has_failed() => {
                    self.pass(&ring, Part::All, Duration::ZERO)?
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Drains the next range of a plan. Uses smaller transactions if there is too little room.
    fn drain_next(&self, ring: &Ring, plan: &mut Plan) -> Result<()> {
        let all = plan.keys.len();
        let until = if plan.is_whole { all } else { all.min(plan.drained + points::limit(RANGE_KEYS, 4)) };
        let mut len = until - plan.drained;
        loop {
            let to = until.min(plan.drained + len);
            match self.drain_part(ring, plan, to) {
                Ok(drained) => plan.drained += drained,
                Err(StoreError::Full(_)) if to - plan.drained > 1 && !plan.is_whole => {
                    len = (to - plan.drained) / 2;
                }
                Err(error) => return Err(error),
            }
            if plan.drained == until {
                plan.is_done = until == all;
                return Ok(());
            }
        }
    }

    /// Drains keys of a plan up to `to` in one transaction, and returns their number. The last transaction of a plan
    /// moves `applied`.
    fn drain_part(&self, ring: &Ring, plan: &Plan, to: usize) -> Result<usize> {
        let keys = &plan.keys[plan.drained..to];
        let overlay = self.overlay();
        let mut entries: Vec<(&RowKey, OverlayEntry)> = Vec::with_capacity(keys.len());
        let (mut taken, mut bytes, mut last) = (0, 0, 0);
        for key in keys {
            if bytes > points::limit(RANGE_BYTES, 8 << 10) && !plan.is_whole {
                break;
            }
            taken += 1;
            if let Some(entry) = overlay.entry(key) {
                bytes += entry.row.as_ref().map_or(0, |row| row.len());
                last = last.max(entry.lsn);
                entries.push((key, entry));
            }
        }
        let is_last = plan.drained + taken == plan.keys.len();
        let end = Some(plan.end).filter(|end| is_last && end.lsn > ring.applied().lsn);
        if let Some(end) = end {
            last = last.max(end.lsn).max(plan.synced);
        }
        if entries.is_empty() && end.is_none() {
            return Ok(taken);
        }
        let environment = &self.environment;
        if keys.len() > 1 && !self.has_room_for(entries.len(), bytes)? {
            return Err(StoreError::Full("no space left on the disk".into()));
        }
        // The data file must not be ahead of the log. Otherwise, after a power loss, it would name a position that
        // the log does not have. A failed log is no longer needed after it was drained completely.
        if ring.durable() < last && !plan.is_whole {
            ring.sync().map_err(|error| ring::failed(&*self.files, &error))?;
        }
        let next = self.next.load(Ordering::SeqCst);
        let drained = environment.change(|rows| {
            for (key, entry) in &entries {
                let indexed_of = |row: &[u8]| IndexEntries::of(row, &environment.encryption);
                match entry.row.as_deref() {
                    Some(row) => rows.put(key, (indexed(row, entry), row), indexed_of)?,
                    None => {
                        if let Some(old) = rows.read(key, indexed_of)? {
                            rows.set(key, Some(old), None)?;
                        }
                    }
                }
            }
            rows.tables.set_next(&mut rows.txn, next)?;
            // In each transaction, so that `durable` covers the logged states of all rows in the data file.
            let applied = end.unwrap_or_else(|| ring.applied());
            rows.tables.set_log(&mut rows.txn, Some(&ring.entry(applied)))?;
            rows.has_changed = true;
            points::reach(Point::BeforeDrainCommit);
            Ok(())
        });
        // A failed commit may still be on disk.
        drained.inspect_err(|_| overlay.mark_uncertain())?;
        points::reach(Point::AfterDrainCommit);
        for step in entries.chunks(points::limit(REMOVAL_CHUNK, 2)) {
            let mut gate = overlay.gate();
            for (key, entry) in step {
                gate.remove_drained(key, entry);
            }
        }
        points::reach(Point::Removed);
        if let Some(end) = end {
            ring.apply(end);
        }
        Ok(taken)
    }

    /// Whether the disk has room for the pages that a transaction changes, without the reserve for ending sessions.
    /// The next transaction but one can use the pages that this one frees. So several smaller transactions need less
    /// room.
    fn has_room_for(&self, rows: usize, bytes: usize) -> Result<bool> {
        let environment = &self.environment;
        let usage = environment.usage_now()?;
        let pages = (PAGES_PER_ROW * rows + PAGES_PER_COMMIT) as u64;
        let growth = (pages * environment.page_size).min(usage.used()) + 2 * bytes as u64;
        // Allocate only if the disk has little room. Allocated space is never released, and would double the size of
        // the file.
        let allocated = if has_room(environment.dir(), growth) { 0 } else { growth };
        Ok(environment.quota.reserve(environment.data(), usage, allocated))
    }
}

fn indexed(row: &[u8], entry: &OverlayEntry) -> IndexEntries {
    let header = Record::parse(row).map(|record| record.header);
    let (indexed_expiry, created) = header.map_or((0, 0), |header| (header.indexed_expiry, header.created));
    IndexEntries { indexed_expiry, created, user: entry.user }
}

#[cfg(test)]
mod tests;
