//! When sessions were created: records of this version say it, those of older versions do not.
//!
//! An older version takes such a record for damaged, and would write it without the time. So the version of the file's
//! format changes first, which an older version refuses to open. A process of an older version that has the store open
//! already goes on. It has marked itself before it looked at the format. So this process either sees that mark after its
//! commit, or the other one sees the new format. While there is such a process, records are written without the time.

use super::environment::Environment;
use super::open::Access;
use super::owner_lock::Feature;
use crate::error::{Result, StoreError};

impl Environment {
    /// Has records say when their sessions were created, where that is possible.
    ///
    /// # Errors
    /// `Locked` if the store limits lifetimes and a process of an older version has it open, which would not keep them.
    /// Those of a commit.
    pub(super) fn keep_times(&mut self) -> Result<()> {
        if self.access != Access::Write {
            return Ok(());
        }
        // Without such locks nothing is known of other processes.
        let has_old_version = || self.has_old_version(Feature::Times).unwrap_or(false);
        let may_begin = !has_old_version();
        let begun = if may_begin { self.begin_times() } else { Ok(()) };
        // One may have come before the commit.
        self.keeps_times = may_begin && begun.is_ok() && !has_old_version();
        if self.keeps_times || !self.limits.max_lifetime.is_limited() {
            return Ok(());
        }
        begun?;
        Err(StoreError::Locked(format!(
            "a process has {} open whose version of this package knows of no maxLifetime. Stop it first, or leave \
             maxLifetime out",
            self.dir().display()
        )))
    }

    /// Sets the version of the file's format, unless it is that.
    fn begin_times(&self) -> Result<()> {
        let keeps_times = {
            let view = self.read()?;
            view.tables().keeps_times(&view).map_err(|error| self.failed(error))?
        };
        if keeps_times {
            return Ok(());
        }
        self.change(|rows| {
            rows.tables.keep_times(&mut rows.txn)?;
            rows.has_changed = true;
            Ok(())
        })
    }
}
