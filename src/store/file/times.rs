//! When sessions were created: records of this version say it, those of older versions do not.
//!
//! An older version takes such a record for damaged, and would write it without the time. So the version of the file's
//! format changes first, which an older version refuses to open. A process of an older version that has the store open
//! already goes on. It has marked itself before it looked at the format. So this process either sees that mark after its
//! commit, or the other one sees the new format. While there is such a process, records are written without the time.
//!
//! The format changes after the log is recovered: an older version can open a store whose recovery fails here. What hinders
//! the change, such as that process or a full disk, passes. So each sweep tries it again, and where lifetimes are limited so
//! does each write that creates or prolongs a session.

use std::sync::atomic::Ordering;

use super::environment::Environment;
use super::open::Access;
use super::owner_lock::Feature;
use crate::error::{Result, StoreError};

impl Environment {
    /// Has records say when their sessions were created, where that is possible. The caller keeps the log from beginning or
    /// ending.
    ///
    /// # Errors
    /// If the store limits lifetimes: `Locked` while a process of an older version has it open, which would not keep them.
    /// Those of a commit.
    pub(super) fn keep_times(&self) -> Result<()> {
        if self.access != Access::Write || self.keeps_times.load(Ordering::SeqCst) {
            return Ok(());
        }
        let begun = self.try_keep_times();
        if self.limits.max_lifetime.is_limited() { begun } else { Ok(()) }
    }

    /// Whether lifetimes are limited, and records do not yet say when their sessions were created.
    pub(super) fn lacks_times(&self) -> bool {
        self.limits.max_lifetime.is_limited() && !self.keeps_times.load(Ordering::SeqCst)
    }

    fn try_keep_times(&self) -> Result<()> {
        self.check_old_versions()?;
        let is_kept = {
            let view = self.read()?;
            view.tables().keeps_times(&view).map_err(|error| self.failed(error))?
        };
        if !is_kept {
            self.change(|rows| {
                rows.tables.keep_times(&mut rows.txn)?;
                rows.has_changed = true;
                Ok(())
            })?;
        }
        // One may have come before the commit.
        self.check_old_versions()?;
        self.keeps_times.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn check_old_versions(&self) -> Result<()> {
        if !self.may_have_old_version(Feature::Times) {
            return Ok(());
        }
        Err(StoreError::Locked(format!(
            "a process has {} open whose version of this package knows of no maxLifetime. Stop it first, or leave \
             maxLifetime out",
            self.dir().display()
        )))
    }
}
