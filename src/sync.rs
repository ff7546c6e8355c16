//! The locks of the stores: parking_lot's, or those of the model checker under `--cfg shuttle`.
//!
//! parking_lot's are fair in the end and, on demand, at once: the standard library's let a sweep take its lock again
//! and again while another thread waits for it. And they have no poison: a panic under a lock becomes an error at the
//! boundary and the store goes on, as single calls that leave it whole change what a lock protects.

#[cfg(not(shuttle))]
mod locks {
    pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }

    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read()
    }

    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write()
    }

    /// Unlocks, and lets a thread that waits have the lock before this one can take it again.
    pub(crate) fn hand_over<T>(guard: RwLockWriteGuard<'_, T>) {
        RwLockWriteGuard::unlock_fair(guard);
    }

    /// As `hand_over`.
    pub(crate) fn hand_over_mutex<T>(guard: MutexGuard<'_, T>) {
        MutexGuard::unlock_fair(guard);
    }
}

#[cfg(shuttle)]
mod locks {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read().unwrap()
    }

    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write().unwrap()
    }

    pub(crate) fn hand_over<T>(guard: RwLockWriteGuard<'_, T>) {
        drop(guard);
    }

    pub(crate) fn hand_over_mutex<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }
}

pub(crate) use locks::*;

/// Keeps what threads write often off each other's cache lines (two of them, which x86 fetches as a pair).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
