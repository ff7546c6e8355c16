//! The lock file `owners.lock`: which processes have the store open, and whose turn it is to make its files.
//!
//! LMDB knows processes by their PIDs. Two with one PID, in two containers, would take each other's readers for their
//! own. So would two copies of this package in one process, whose POSIX locks on one file are one lock. The locks here
//! belong to the open file description instead (Linux, fcntl(2)), so that both are refused.

/// Which other processes have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum Others {
    None,
    Some,
    /// The system has no such locks.
    Unknown,
}

/// What versions of this package know, or do not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// The redo log.
    Log,
    /// Records that say when their sessions were created.
    Times,
}

/// What processes say of themselves while they have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum Subject {
    UserLimit = 0,
    Lifetime = 1,
}

/// The answer of systems and file systems without such locks: no log is used there, but times are kept.
fn without_locks(feature: Feature) -> bool {
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
