//! Sweeps of a store with a log.
//!
//! They change the data file directly. This is safe, because an expired session never becomes live again. A logged
//! row is complete, so draining it later also corrects its index entries. A sweep skips keys in the overlay and in
//! the batch in progress, because a drain writes these rows anyway.

use super::engine::Redo;
use super::points;
use crate::clock::Millis;
use crate::error::Result;
use crate::store::file::apply::{DueEntry, SWEEP_STEP, WriteBatch, due_entries};
use crate::store::file::counters::CounterDelta;

/// The result of a step.
pub(in crate::store::file) struct Step {
    pub removed: u64,
    /// The expiry index entry after which the next step starts. `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl Redo {
    /// Runs one step of a sweep. `None` if there is no log. Then a sweep is an ordinary write.
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

    /// Starts writing creation times, if that was impossible when the store was opened.
    ///
    /// # Errors
    /// As for [`Environment::enable_creation_times`](crate::store::file::environment::Environment::enable_creation_times).
    pub(in crate::store::file) fn enable_creation_times(&self) -> Result<()> {
        let _base = points::lock(&self.base);
        self.environment.enable_creation_times()
    }
}
