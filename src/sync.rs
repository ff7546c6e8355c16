//! Joins threads, and selects the locks of the stores: parking_lot's, or those of the model checker under the feature
//! `shuttle`.
//!
//! parking_lot's locks are eventually fair, and immediately fair with `unlock_fair`. With the standard library's locks,
//! a sweep can retake a lock again and again while another thread waits for it. They have no poisoning: a panic under a
//! lock becomes an error at the boundary, so each critical section must leave its data consistent if it panics.

use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Waits for the end of a thread, unless it is the calling one. Ignores a panic of the thread.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        let _ = thread.join();
    }
}

#[cfg(not(feature = "shuttle"))]
mod locks {
    use std::time::Duration;

    pub(crate) use std::sync::atomic::AtomicU64;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }

    pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock()
    }

    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read()
    }

    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write()
    }

    /// Unlocks. A waiting thread gets the lock before the calling thread can retake it.
    pub(crate) fn unlock_fair<T>(guard: RwLockWriteGuard<'_, T>) {
        RwLockWriteGuard::unlock_fair(guard);
    }

    /// The same as `unlock_fair`, for a mutex.
    pub(crate) fn unlock_fair_mutex<T>(guard: MutexGuard<'_, T>) {
        MutexGuard::unlock_fair(guard);
    }

    pub(super) fn wait<'a, T>(
        changed: &Condvar,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        changed.wait_for(&mut guard, timeout);
        guard
    }
}

#[cfg(feature = "shuttle")]
mod locks {
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic::AtomicU64;
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock().ok()
    }

    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read().unwrap()
    }

    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write().unwrap()
    }

    pub(crate) fn unlock_fair<T>(guard: RwLockWriteGuard<'_, T>) {
        drop(guard);
    }

    pub(crate) fn unlock_fair_mutex<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }

    pub(super) fn wait<'a, T>(
        changed: &Condvar,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        changed.wait_timeout(guard, timeout).unwrap().0
    }
}

pub(crate) use locks::*;

/// Waits until `is_done`, or until `deadline`. A thread that changes the data must notify `changed`.
pub(crate) fn wait_until<'a, T>(
    changed: &Condvar,
    mut guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
    mut is_done: impl FnMut(&T) -> bool,
) -> MutexGuard<'a, T> {
    const WITHOUT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(3600);
    while !is_done(&guard) {
        let left = deadline.map_or(WITHOUT_DEADLINE, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break;
        }
        guard = locks::wait(changed, guard, left);
    }
    guard
}
