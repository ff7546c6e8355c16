//! Whether a store works, and how busy it is.

use super::{FileStore, queue};
use crate::error::{Result, StoreError};

impl FileStore {
    /// The bytes of the data file.
    ///
    /// # Errors
    /// `Io`.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(self.environment().usage_now()?.file)
    }

    /// Whether `stats` need not wait or read the records: all of them can be decrypted, none was recovered lately, and no
    /// drain is under way.
    ///
    /// # Errors
    /// Those of a read.
    pub fn has_quick_stats(&self) -> Result<bool> {
        let environment = self.environment();
        Ok(!environment.overlay.is_unsure()
            && !self.redo().is_draining()
            && environment.opens_all_records()?)
    }

    /// Checks that the store can write: the folder is there, what was begun is written, the log and the data file take
    /// writes, and there is room. Of a store that is read only, that it can be read.
    ///
    /// # Errors
    /// `Timeout`, `Io`, `Full`; those of a write.
    pub fn probe(&self) -> Result<()> {
        let environment = self.environment();
        environment.held.check()?;
        if self.options.read_only {
            return environment.read().map(drop);
        }
        self.flush()?;
        self.redo().probe()
    }

    /// What keeps the store from writing, as far as that is known without a write.
    pub fn problem(&self) -> Option<StoreError> {
        let environment = self.environment();
        if self.options.read_only {
            return environment.held.ensure().err();
        }
        environment
            .held
            .ensure()
            .and_then(|()| self.redo().check())
            .and_then(|()| environment.check_room())
            .err()
    }

    /// How many bytes the calls take that wait for the disk, and the most that they may take.
    pub fn queued_bytes(&self) -> (usize, usize) {
        (self.queue.bytes(), queue::MAX_BYTES)
    }
}
