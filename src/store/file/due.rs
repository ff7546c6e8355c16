//! The sessions that a sweep removes, or whose entry in the expiry index it moves.
//!
//! A sweep reads the due entries of the expiry index. But `maxLifetime` may end a session before its entry is due: it
//! was lowered, or a process with a longer one or none has written the session. So a sweep also reads all sessions,
//! unless `lifetime` in the data file says that the index respects the limit:
//!
//! - If `lifetime` is complete, no session ends before its entry, with this limit or a longer one.
//! - A sweep with a smaller limit sets `lifetime` to this limit, and then reads all sessions. If `lifetime` is still
//!   the same at the end, the sweep completes it. Otherwise the next sweep starts again.
//! - A sweep that finds an incomplete `lifetime` with its own limit keeps it, and reads all sessions. So concurrent
//!   scans with the same limit do not disturb each other.
//! - A transaction removes `lifetime` if it writes a session that ends before its entry with that limit. See `rows`.
//!
//! Rows in a log do not count before they are drained. A sweep drains the log first.

use std::ops::Bound;

use heed::{AnyTls, RoTxn};

use super::apply::{DueEntry, due_entries};
use super::environment::Environment;
use super::open::Access;
use super::record::{Header, Record};
use super::tables::{IndexedLifetime, Tables, expiry_entry};
use crate::clock::Millis;
use crate::error::Result;
use crate::lifetime::Lifetime;

/// The maximum number of records that one view reads in a scan.
const SCAN_STEP: usize = if cfg!(test) { 70 } else { 10_000 };

/// The position of a sweep. It continues after this key, or starts if the key is empty.
pub(super) enum SweepCursor {
    Expiries(Vec<u8>),
    Sessions(Vec<u8>),
}

impl SweepCursor {
    pub(super) const EXPIRIES: Self = Self::Expiries(Vec::new());
    pub(super) const SESSIONS: Self = Self::Sessions(Vec::new());
}

impl Environment {
    /// Returns up to `max` entries for the sweep, and the cursor after them. It is `None` at the end.
    pub(super) fn due(
        &self,
        cursor: &SweepCursor,
        now: Millis,
        max: usize,
    ) -> Result<(Vec<DueEntry>, Option<SweepCursor>)> {
        let view = self.read()?;
        let tables = view.tables();
        match cursor {
            SweepCursor::Expiries(after) => due_entries(tables, &view, bound(after), now, max).map(|due| {
                let last = due.last().filter(|_| due.len() == max);
                let next = last.map(|(entry, _)| SweepCursor::Expiries(entry.clone()));
                (due, next)
            }),
            SweepCursor::Sessions(after) => {
                ended_before_entry(tables, &view, bound(after), self.limits.max_lifetime, max)
            }
        }
        .map_err(|error| self.failed(error))
    }

    /// Starts a scan of all sessions, unless the expiry index respects the limit of this process. If an incomplete
    /// scan has the same limit, returns that scan.
    ///
    /// # Errors
    /// As for `change`.
    pub(super) fn begin_lifetime_scan(&self) -> Result<Option<IndexedLifetime>> {
        let Some(max) = self.limits.max_lifetime.max().filter(|_| self.access == Access::Write) else {
            return Ok(None);
        };
        let indexed = {
            let view = self.read()?;
            view.tables().indexed_lifetime(&view).map_err(|error| self.failed(error))?
        };
        match indexed {
            Some(indexed) if indexed.is_complete() && indexed.max <= max => return Ok(None),
            Some(indexed) if !indexed.is_complete() && indexed.max == max => return Ok(Some(indexed)),
            _ => {}
        }
        self.change(|rows| {
            let scan = IndexedLifetime { max, scan: rows.txn.id() as u64 };
            rows.tables.set_indexed_lifetime(&mut rows.txn, scan)?;
            rows.has_changed = true;
            Ok(Some(scan))
        })
    }

    /// Completes `lifetime` after a scan, unless it has changed since.
    ///
    /// # Errors
    /// As for `change`.
    pub(super) fn end_lifetime_scan(&self, scan: IndexedLifetime) -> Result<()> {
        self.change(|rows| {
            if rows.tables.indexed_lifetime(&rows.txn)? == Some(scan) {
                rows.tables.set_indexed_lifetime(&mut rows.txn, scan.complete())?;
                rows.has_changed = true;
            }
            Ok(())
        })
    }
}

/// The entries of sessions that the limit ends before their entry in the expiry index.
fn ended_before_entry(
    tables: Tables,
    txn: &RoTxn<'_, AnyTls>,
    after: Bound<&[u8]>,
    lifetime: Lifetime,
    max: usize,
) -> heed::Result<(Vec<DueEntry>, Option<SweepCursor>)> {
    let mut found = Vec::new();
    for (read, row) in tables.sessions.range(txn, &(after, Bound::Unbounded))?.enumerate() {
        let (key, row) = row?;
        if let Ok(Record { header, .. }) = Record::parse(row)
            && header.ends_before_entry(lifetime)
        {
            let Header { indexed_expiry, created, .. } = header;
            found.push((expiry_entry(indexed_expiry, created).to_vec(), key.to_vec()));
        }
        if found.len() == max || read + 1 == SCAN_STEP {
            return Ok((found, Some(SweepCursor::Sessions(key.to_vec()))));
        }
    }
    Ok((found, None))
}

fn bound(after: &[u8]) -> Bound<&[u8]> {
    if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) }
}
