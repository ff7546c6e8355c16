//! Sweeps of a store that has a log.
//!
//! They change the data file directly. An expired session is never live again, and what the log has of a session is a whole
//! row, so that draining it later makes the row and its index entries right. A sweep passes over keys that are in the
//! overlay, or in the batch under way: a drain comes by anyhow.

use super::engine::Redo;
use super::points;
use crate::clock::Millis;
use crate::error::Result;
use crate::store::file::apply::{DueEntry, SWEEP_STEP, WriteBatch, due_entries};
use crate::store::file::counters::CounterDelta;

/// A step of a sweep.
pub(in crate::store::file) struct Step {
    pub removed: u64,
    /// The entry of the expiry index after which the next step begins. `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl Redo {
    /// Makes one step of a sweep. `None` if there is no log: then a sweep is a write like others.
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn sweep(&self, after: Option<&[u8]>, now: Millis) -> Result<Option<Step>> {
        let _base = points::lock(&self.base);
        if self.ring().is_none_or(|ring| ring.has_failed()) {
            return Ok(None);
        }
        let max = points::limit(SWEEP_STEP, 3);
        let environment = &self.environment;
        let due = {
            let view = environment.read()?;
            due_entries(view.tables(), &view, after, now, max).map_err(|error| environment.failed(error))?
        };
        let next = due.last().map(|(entry, _)| entry.clone()).filter(|_| due.len() == max);
        let free: Vec<DueEntry> = {
            let gate = self.overlay().gate();
            due.into_iter().filter(|(_, key)| !gate.has(key)).collect()
        };
        if free.is_empty() {
            return Ok(Some(Step { removed: 0, next }));
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
        Ok(Some(Step { removed, next }))
    }

    /// Has records say when their sessions were created, if that was not possible when the store was opened.
    ///
    /// # Errors
    /// As for [`Environment::keep_times`](crate::store::file::environment::Environment::keep_times).
    pub(in crate::store::file) fn keep_times(&self) -> Result<()> {
        let _base = points::lock(&self.base);
        self.environment.keep_times()
    }
}
