//! Wakes a thread of this process that waits for LMDB's write lock although the lock is free.
//!
//! The lock is a robust mutex in `lock.mdb`. Its futex word contains the owner and whether there are waiters. A
//! killed process can lose a wake-up:
//! 1. A holds the lock. B and C wait.
//! 2. A unlocks it and wakes B.
//! 3. D takes the lock, and its word no longer says that there are waiters.
//! 4. B is killed before it can record that C waits.
//! 5. D unlocks the lock or is killed, and wakes nobody.
//!
//! C would then wait until other threads compete for the lock again. An unnecessary wake-up is harmless, because the
//! thread checks the word and waits again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a thread waits before it is woken to check the lock again.
const WAKE_AFTER: Duration = Duration::from_millis(250);
/// Both mutexes are within this many bytes from the start of the file.
const MUTEX_BYTES: usize = 256;

/// When the writer's wait for the lock started.
#[derive(Default)]
pub(super) struct LockWait(Mutex<Option<Instant>>);

impl LockWait {
    /// Calls a function that may wait for the lock.
    pub(super) fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        *self.0.lock() = Some(Instant::now());
        let done = wait();
        *self.0.lock() = None;
        done
    }

    /// Whether the wait is long. If so, restarts the measurement.
    pub(super) fn is_long(&self) -> bool {
        let mut since = self.0.lock();
        let is_long = since.is_some_and(|since| since.elapsed() >= WAKE_AFTER);
        if is_long {
            *since = Some(Instant::now());
        }
        is_long
    }
}

/// Wakes the threads that wait for a mutex in a lock file. The caller must keep its environment open.
pub(super) fn wake_sleepers(lock_file: &Path) {
    let Some(start) = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| find(&maps, lock_file))
    else {
        return;
    };
    for at in (start..start + MUTEX_BYTES).step_by(4) {
        // SAFETY: the call does not read memory through the address, and fails if the address is not mapped. A woken
        // thread checks its mutex again.
        unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, i32::MAX) };
    }
}

/// The address where the start of a file is mapped.
fn find(maps: &str, file: &Path) -> Option<usize> {
    let file = file.to_str()?;
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (range, offset) = (words.next()?, words.nth(1)?);
        let is_it = line.strip_suffix(file).is_some_and(|rest| rest.ends_with(' '));
        let start = range.split('-').next()?;
        if is_it && offset.bytes().all(|digit| digit == b'0') {
            usize::from_str_radix(start, 16).ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_mapping_is_found() {
        let maps = "\
7f0000000000-7f0000001000 r--p 00000000 fe:00 11  /usr/lib/libc.so\n\
7f1000001000-7f1000002000 rw-s 00001000 fe:00 12  /data/lock.mdb\n\
7f1000000000-7f1000001000 rw-s 00000000 fe:00 12  /data/lock.mdb\n\
7f2000000000-7f2000001000 rw-s 00000000 fe:00 13  /other/data/lock.mdb\n\
7f3000000000-7f3000001000 rw-p 00000000 00:00 0\n";
        assert_eq!(find(maps, Path::new("/data/lock.mdb")), Some(0x7f10_0000_0000));
        assert_eq!(find(maps, Path::new("/other/data/lock.mdb")), Some(0x7f20_0000_0000));
        assert_eq!(find(maps, Path::new("/lock.mdb")), None);
    }

    #[test]
    fn a_wait_is_long_only_after_the_threshold() {
        let wait = LockWait::default();
        // On a busy machine, this thread itself may be delayed for that long.
        let is_short = |begun: Instant| !wait.is_long() || begun.elapsed() >= WAKE_AFTER;
        assert!(!wait.is_long());
        let begun = Instant::now();
        wait.during(|| {
            assert!(is_short(begun));
            std::thread::sleep(WAKE_AFTER);
            let begun = Instant::now();
            assert!(wait.is_long());
            assert!(is_short(begun));
        });
        std::thread::sleep(WAKE_AFTER);
        assert!(!wait.is_long());
    }
}
