//! The sweep: removes expired sessions and unused wrapped keys.

use super::FileStore;
use super::apply::{SWEEP_STEP, Write};
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
        let (mut removed, mut after) = (0, None);
        // Stop after the last handle was closed. The next sweep continues.
        while !self.is_closing() {
            match self.redo().sweep(after.as_deref(), at) {
                Ok(Some(step)) => {
                    removed += step.removed;
                    after = step.next;
                    if after.is_none() {
                        break;
                    }
                }
                // There is no log, or too little room for such a step.
                Ok(None) | Err(StoreError::Full(_)) => {
                    if !environment.is_due(at)? {
                        break;
                    }
                    removed += self.write(Write::Sweep { now: at, max: SWEEP_STEP })?;
                    after = None;
                }
                Err(error) => return Err(error),
            }
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
}
