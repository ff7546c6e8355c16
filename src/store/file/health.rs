//! Reports whether the store works, and how busy it is.

use super::{FileStore, queue};
use crate::error::{Result, StoreError};

impl FileStore {
    /// The size of the data file in bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(self.environment().usage_now()?.file)
    }

    /// Whether `stats` can answer without waiting and without reading the records. That needs three things: the
    /// secrets decrypt every record, no recovery has left uncertain entries, and no drain is running.
    ///
    /// # Errors
    /// Those of a read.
    pub fn has_quick_stats(&self) -> Result<bool> {
        let environment = self.environment();
        Ok(!environment.overlay.is_uncertain()
            && !self.redo().is_draining()
            && environment.opens_all_records()?)
    }

    /// Checks that the store can write:
    /// - Its folder is still there.
    /// - The queued writes complete.
    /// - The log and the data file accept writes.
    /// - There is room for sessions.
    ///
    /// For a read-only store, checks that it can be read.
    ///
    /// # Errors
    /// `Timeout`, `Io`, `Full`, and those of a write.
    pub fn probe(&self) -> Result<()> {
        let environment = self.environment();
        environment.held.check()?;
        if self.options.read_only {
            return environment.read().map(drop);
        }
        self.flush()?;
        self.redo().probe()
    }

    /// The known reason why the store cannot write. Finds it without a write.
    pub fn problem(&self) -> Option<StoreError> {
        let environment = self.environment();
        if self.options.read_only {
            return environment.held.ensure_not_lost().err();
        }
        environment
            .held
            .ensure_not_lost()
            .and_then(|()| self.redo().check())
            .and_then(|()| environment.check_room())
            .err()
    }

    /// The bytes of the queued writes, and their limit.
    pub fn queued_bytes(&self) -> (usize, usize) {
        (self.queue.bytes(), queue::MAX_BYTES)
    }
}
