//! Creation times: only this and later versions of the package write them to records.
//!
//! Older versions treat such a record as damaged, and would rewrite it without its time. So the format version
//! changes first, and older versions refuse to open the store. An older process may have the store open already. It
//! registers in the lock file before it reads the format. So either this process sees the older one after its commit,
//! or the older one sees the new format. While an older process is registered, records are written without times.
//!
//! The format changes after the log is recovered, so that an older version can still open the store if the recovery
//! fails. An older process or a full disk may prevent the change for a while. Each sweep tries again. If lifetimes
//! are limited, so does each write that creates or prolongs a session.

use std::sync::atomic::Ordering;

use super::environment::Environment;
use super::open::Access;
use super::owner_lock::Feature;
use crate::error::{Result, StoreError};

impl Environment {
    /// Starts writing creation times, if possible. The caller prevents that a log starts or ends at the same time.
    ///
    /// # Errors
    /// Only if the store limits lifetimes: `Locked` while a process of an older version has the store open, because
    /// that version would remove creation times. Those of a commit.
    pub(super) fn enable_creation_times(&self) -> Result<()> {
        if self.access != Access::Write || self.has_creation_times.load(Ordering::SeqCst) {
            return Ok(());
        }
        let begun = self.try_enable_creation_times();
        if self.limits.max_lifetime.is_limited() { begun } else { Ok(()) }
    }

    /// Whether lifetimes are limited, but records do not have creation times yet.
    pub(super) fn lacks_creation_times(&self) -> bool {
        self.limits.max_lifetime.is_limited() && !self.has_creation_times.load(Ordering::SeqCst)
    }

    fn try_enable_creation_times(&self) -> Result<()> {
        self.check_old_versions()?;
        let is_kept = {
            let view = self.read()?;
            view.tables().has_creation_times(&view).map_err(|error| self.failed(error))?
        };
        if !is_kept {
            self.change(|rows| {
                rows.tables.enable_creation_times(&mut rows.txn)?;
                rows.has_changed = true;
                Ok(())
            })?;
        }
        // An older process may have opened the store before the commit.
        self.check_old_versions()?;
        self.has_creation_times.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn check_old_versions(&self) -> Result<()> {
        if !self.may_have_old_version(Feature::CreationTimes) {
            return Ok(());
        }
        Err(StoreError::Locked(format!(
            "a process has {} open whose version of this package knows of no maxLifetime. Stop it first, or leave \
             maxLifetime out",
            self.dir().display()
        )))
    }
}
