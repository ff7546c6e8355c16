//! The names of the files in a store folder.

/// LMDB's data file.
pub(super) const DATA: &str = "data.mdb";
/// LMDB's locks and its reader table.
pub(super) const LOCK: &str = "lock.mdb";
/// See `owner_lock`.
pub(super) const OWNERS: &str = "owners.lock";
/// The redo log. See `redo`.
pub(super) const REDO: &str = "redo.log";
/// A redo log that is being created.
pub(super) const NEW_REDO: &str = "redo.log.new";
