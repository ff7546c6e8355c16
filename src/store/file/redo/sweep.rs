//! Sweeps of a store with a log.
//!
//! They change the data file directly. This is safe, because an expired session never becomes live again. A logged
//! row is complete, so draining it later also corrects its index entries. A sweep skips keys in the overlay and in
//! the batch in progress, because a drain writes these rows anyway. But a power loss may remove them from the log. So
//! a scan of all sessions that skips one is incomplete.

use super::engine::Redo;
use super::points;
use crate::clock::Millis;
use crate::error::Result;
use crate::store::file::apply::{DueEntry, SWEEP_STEP, WriteBatch};
use crate::store::file::counters::CounterDelta;
use crate::store::file::due::SweepCursor;
use crate::store::file::tables::IndexedLifetime;

/// The result of a step.
pub(in crate::store::file) struct Step {
    pub removed: u64,
    /// Whether a scan of all sessions has skipped one.
    pub has_skipped: bool,
    /// The cursor of the next step. `None` at the end.
    pub next: Option<SweepCursor>,
}

impl Redo {
    /// Runs one step of a sweep. `None` if there is no log. Then a sweep is an ordinary write.
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn sweep(&self, cursor: &SweepCursor, now: Millis) -> Result<Option<Step>> {
        let _base = points::lock(&self.base);
        if self.ring().is_none_or(|ring| ring.has_failed()) {
            return Ok(None);
        }
        let environment = &self.environment;
        let (due, next) = environment.due(cursor, now, points::limit(SWEEP_STEP, 3))?;
        let found = due.len();
        let free: Vec<DueEntry> = {
            let gate = self.overlay().gate();
            due.into_iter().filter(|(_, key)| !gate.has(key)).collect()
        };
        let has_skipped = matches!(cursor, SweepCursor::Sessions(_)) && free.len() < found;
        if free.is_empty() {
            return Ok(Some(Step { removed: 0, has_skipped, next }));
        }
        let (removed, ended) = environment.change(|rows| {
            let mut batch = WriteBatch::new(
                rows,
                &environment.encryption,
                environment.rules(),
                now,
                environment.events.ends(),
            );
            let removed = batch.sweep(&free, now)?;
            Ok((removed, batch.ended))
        })?;
        // The writer may have decided a batch since.
        for key in &removed {
            self.overlay().gate().set_in_base(key, false);
        }
        let removed = removed.len() as u64;
        environment.counters.add(CounterDelta { expired: removed, ..CounterDelta::default() });
        environment.events.publish_ends(ended);
        Ok(Some(Step { removed, has_skipped, next }))
    }

    /// Same as [`Environment::begin_lifetime_scan`](crate::store::file::environment::Environment::begin_lifetime_scan).
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn begin_lifetime_scan(&self) -> Result<Option<IndexedLifetime>> {
        let _base = points::lock(&self.base);
        self.environment.begin_lifetime_scan()
    }

    /// Ends a scan that has read all sessions.
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn end_lifetime_scan(&self, scan: IndexedLifetime) -> Result<()> {
        let _base = points::lock(&self.base);
        self.environment.end_lifetime_scan(scan)
    }

    /// Starts writing creation times, if that was impossible when the store was opened.
    ///
    /// # Errors
    /// As for [`Environment::enable_creation_times`](crate::store::file::environment::Environment::enable_creation_times).
    pub(in crate::store::file) fn enable_creation_times(&self) -> Result<()> {
        let _base = points::lock(&self.base);
        self.environment.enable_creation_times()
    }
}
