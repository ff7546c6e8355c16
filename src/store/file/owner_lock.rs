//! The lock file `owners.lock` shows which processes have the store open. It also serialises the creation of files.
//!
//! LMDB identifies processes by PID. Two containers may each have a process with the same PID, and each would take
//! the other's readers for its own. The same happens to two copies of this package in one process, because POSIX
//! locks belong to the process. So these locks belong to the open file description (Linux, fcntl(2)), and the second
//! opener is refused.

/// Whether other processes have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum Others {
    None,
    Some,
    /// The system does not support these locks.
    Unknown,
}

/// Features that older versions of this package do not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// The redo log.
    Log,
    /// Records with the creation time of their session.
    CreationTimes,
}

/// Limits that a process publishes while it has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum PublishedLimit {
    UserLimit = 0,
    Lifetime = 1,
}

/// The assumption on systems and file systems without these locks: there is no log, but records have creation times.
fn assumes_old_version(feature: Feature) -> bool {
    feature == Feature::Log
}

#[cfg(not(target_os = "linux"))]
pub(super) use fallback::OwnerLock;
#[cfg(target_os = "linux")]
pub(super) use linux::OwnerLock;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
mod fallback;
