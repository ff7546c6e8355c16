//! A substitute for systems without open file description locks. It locks nothing, and other processes are unknown.

use std::path::Path;

use crate::error::Result;
use crate::store::file::names::LOCK;
use crate::store::file::owner_lock::{Feature, Others, PublishedLimit, assumes_old_version};

pub(in crate::store::file) struct OwnerLock;

impl OwnerLock {
    pub(in crate::store::file) fn acquire<T>(
        _: &Path,
        create: impl FnOnce(&Self, bool) -> Result<T>,
    ) -> Result<(Self, T)> {
        create(&Self, false).map(|created| (Self, created))
    }

    /// `None` if no process can have the store open: LMDB creates its lock file first.
    pub(in crate::store::file) fn open_existing(dir: &Path) -> Result<Option<Self>> {
        Ok(dir.join(LOCK).exists().then_some(Self))
    }

    pub(in crate::store::file) fn remove_if_alone(&self, _: &Path, _: impl FnOnce()) {}

    pub(in crate::store::file) fn others(&self) -> Result<Others> {
        Ok(Others::Unknown)
    }

    pub(in crate::store::file) fn publish(&self, _: PublishedLimit, _: u64) -> std::io::Result<Option<u64>> {
        Ok(None)
    }

    pub(in crate::store::file) fn may_have_old_version(&self, feature: Feature) -> bool {
        assumes_old_version(feature)
    }
}
