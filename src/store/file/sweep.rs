//! The sweep: removes expired sessions and unused wrapped keys.

use super::FileStore;
use super::apply::{SWEEP_STEP, Write};
use super::due::SweepCursor;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::events::{Event, SWEEPS};
use crate::store::Sweep;

impl FileStore {
    /// Sweeps in steps of one transaction each. Other writes can run between two steps.
    pub(super) fn sweep(&self) -> Result<u64> {
        let environment = self.environment();
        // Notice removed or replaced files even if nobody writes.
        environment.held.check()?;
        // The sweep reads the expiry index of the data file, so drain the log first.
        self.redo().drain_now()?;
        let at = environment.clock.now();
        let mut removed = 0;
        if self.sweep_after(SweepCursor::EXPIRIES, at, &mut removed)? {
            self.sweep_past_lifetime(at, &mut removed)?;
        }
        if !self.is_closing() && environment.has_unused_keys()? {
            self.write(Write::DropUnusedKeys)?;
        }
        let duration = environment.clock.now() - at;
        *environment.last_sweep.lock() = Some(Sweep { at, duration, removed });
        environment.events.publish(SWEEPS, || Event::Swept { at, duration, removed });
        self.redo().enable_creation_times()?;
        Ok(removed)
    }

    /// Sweeps the sessions that the limit of this process ends before their entry in the expiry index. See `due`.
    pub(super) fn sweep_past_lifetime(&self, at: Millis, removed: &mut u64) -> Result<()> {
        if let Some(scan) = self.redo().begin_lifetime_scan()?
            && self.sweep_after(SweepCursor::SESSIONS, at, removed)?
        {
            self.redo().end_lifetime_scan(scan)?;
        }
        Ok(())
    }

    /// Sweeps from the cursor on. Returns whether it has reached the end, and a scan of all sessions has skipped none.
    /// It stops after the last handle was closed. The next sweep continues.
    fn sweep_after(&self, mut cursor: SweepCursor, at: Millis, removed: &mut u64) -> Result<bool> {
        let mut has_skipped = false;
        while !self.is_closing() {
            let next = match self.redo().sweep(&cursor, at) {
                Ok(Some(step)) => {
                    *removed += step.removed;
                    has_skipped |= step.has_skipped;
                    step.next
                }
                // There is no log, or too little room for such a step.
                Ok(None) | Err(StoreError::Full(_)) => {
                    let (due, next) = self.environment().due(&cursor, at, SWEEP_STEP)?;
                    if due.is_empty() {
                        next
                    } else {
                        *removed += self.write(Write::Sweep { due, now: at })?;
                        // With too little room, the write leaves some of them.
                        Some(cursor)
                    }
                }
                Err(error) => return Err(error),
            };
            let Some(next) = next else { return Ok(!has_skipped) };
            cursor = next;
        }
        Ok(false)
    }
}
