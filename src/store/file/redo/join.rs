//! Opens a store that other processes may have open.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::mode_lock::ModeLock;
use super::points::{self, Point};
use crate::error::{Result, StoreError};
use crate::store::file::errors::io_failed;

/// How this process has opened the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::file) enum Joined {
    /// No other process has it open. If it needs a log, this process has to recover the log.
    Exclusive,
    /// The store needs no log, and no log starts while this process has it open.
    Shared,
}

/// Opens a store exclusively or shares it.
///
/// A process shares the store only after it has seen, while it holds the lock, that the store needs no log. A process
/// with exclusive access may have been killed, or may have closed the store without draining a large log. Then one of
/// the waiting processes must get exclusive access.
///
/// # Errors
/// `Locked` if a process with exclusive access does not share the store in time.
pub(in crate::store::file) fn join(
    lock: &dyn ModeLock,
    dir: &Path,
    timeout: Duration,
    mut needs_log: impl FnMut() -> Result<bool>,
) -> Result<Joined> {
    let joined = try_join(lock, dir, timeout, &mut needs_log);
    let _ = lock.request(false);
    if joined.is_err() {
        lock.release();
    }
    joined
}

fn try_join(
    lock: &dyn ModeLock,
    dir: &Path,
    timeout: Duration,
    needs_log: &mut dyn FnMut() -> Result<bool>,
) -> Result<Joined> {
    let failed = |error: io::Error| io_failed(&dir.display(), "locking", &error);
    let mut left = timeout;
    loop {
        if lock.try_exclusive().map_err(failed)? {
            return Ok(Joined::Exclusive);
        }
        lock.request(true).map_err(failed)?;
        points::reach(Point::Requested);
        let pause = if lock.try_shared().map_err(failed)? {
            if !needs_log()? {
                return Ok(Joined::Shared);
            }
            lock.release();
            // The pauses are random. Otherwise two waiting processes could prevent each other from getting exclusive
            // access.
            Duration::from_millis(1 + u64::from(random_byte() % 10))
        } else {
            Duration::from_millis(1)
        };
        if left.is_zero() {
            return Err(not_shared(lock, dir, timeout));
        }
        left = left.saturating_sub(points::sleep(pause));
    }
}

/// Shares a store for reading only.
///
/// Also returns `Shared` if the store needs a log. Then no process has it open, and one must recover it first.
///
/// # Errors
/// As for `join`.
pub(in crate::store::file) fn join_to_read(
    lock: &dyn ModeLock,
    dir: &Path,
    timeout: Duration,
    mut needs_log: impl FnMut() -> Result<bool>,
) -> Result<Joined> {
    let failed = |error: io::Error| io_failed(&dir.display(), "locking", &error);
    lock.request(true).map_err(failed)?;
    let mut left = timeout;
    let joined = loop {
        if lock.try_shared().map_err(failed)? {
            if needs_log()? {
                lock.release();
            }
            break Ok(Joined::Shared);
        }
        if left.is_zero() {
            break Err(not_shared(lock, dir, timeout));
        }
        let pause = Duration::from_millis(1);
        left = left.saturating_sub(points::sleep(pause));
    };
    let _ = lock.request(false);
    joined
}

fn random_byte() -> u8 {
    // Without randomness the pauses are equal, and the deadline ends the wait.
    points::random().map_or(0, |[byte]| byte)
}

fn not_shared(lock: &dyn ModeLock, dir: &Path, timeout: Duration) -> StoreError {
    let holder = lock.holder().map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
    StoreError::Locked(format!(
        "{holder} has the store in {} to itself, and has not shared it within {} ms. Is it stopped, or is its disk full?",
        dir.display(),
        timeout.as_millis()
    ))
}
