//! A substitute for systems without open file description locks. It locks nothing, and other processes are unknown.

use std::path::Path;

use crate::error::Result;
use crate::store::file::names::LOCK;
use crate::store::file::owner_lock::{Feature, Others, Subject, without_locks};

pub(in crate::store::file) struct OwnerLock;

impl OwnerLock {
    pub(in crate::store::file) fn mark<T>(
        _: &Path,
        make: impl FnOnce(&Self, bool) -> Result<T>,
    ) -> Result<(Self, T)> {
        make(&Self, false).map(|made| (Self, made))
    }

    /// `None` if no process can have the store open: LMDB creates its lock file first.
    pub(in crate::store::file) fn look(dir: &Path) -> Result<Option<Self>> {
        Ok(dir.join(LOCK).exists().then_some(Self))
    }

    pub(in crate::store::file) fn tidy(&self, _: &Path, _: impl FnOnce()) {}

    pub(in crate::store::file) fn others(&self) -> Result<Others> {
        Ok(Others::Unknown)
    }

    pub(in crate::store::file) fn say(&self, _: Subject, _: u64) -> std::io::Result<Option<u64>> {
        Ok(None)
    }

    pub(in crate::store::file) fn may_have_old_version(&self, feature: Feature) -> bool {
        without_locks(feature)
    }
}
