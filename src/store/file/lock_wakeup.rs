//! Wakes a thread of this process that sleeps before LMDB's write lock, though the lock is free.
//!
//! The lock is a robust mutex in `lock.mdb`. Its word says who has it, and whether others sleep:
//! 1. A has it, B and C sleep. 2. A unlocks it and wakes B. 3. D takes it: the word says that nobody sleeps. 4. B is killed
//!    before it can say that C does. 5. D unlocks it, or is killed, and wakes nobody.
//!
//! Then C would sleep until others compete for the lock again. A thread that is woken without need looks at the word and goes
//! on sleeping, so that waking is always safe.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a thread may wait before it is woken to look again.
const PATIENCE: Duration = Duration::from_millis(250);
/// The two mutexes are within so many bytes of the file.
const MUTEX_BYTES: usize = 256;

/// Since when the writer waits for the lock.
#[derive(Default)]
pub(super) struct LockWait(Mutex<Option<Instant>>);

impl LockWait {
    /// Calls what may wait for the lock.
    pub(super) fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        *self.0.lock() = Some(Instant::now());
        let done = wait();
        *self.0.lock() = None;
        done
    }

    /// Whether the wait takes long. If so, the time is counted from now on again.
    pub(super) fn is_long(&self) -> bool {
        let mut since = self.0.lock();
        let is_long = since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if is_long {
            *since = Some(Instant::now());
        }
        is_long
    }
}

/// Wakes the threads that sleep before a mutex of a lock file. The caller keeps its environment open.
pub(super) fn wake_sleepers(lock_file: &Path) {
    let Some(start) = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| find(&maps, lock_file))
    else {
        return;
    };
    for at in (start..start + MUTEX_BYTES).step_by(4) {
        // SAFETY: the call reads no memory through the address, and fails if there is none. Those who wake look again.
        unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, i32::MAX) };
    }
}

/// Where a file is mapped from its beginning.
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
    fn a_file_is_found_where_it_is_mapped() {
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
    fn only_a_long_wait_is_long() {
        let wait = LockWait::default();
        // A busy machine may let this thread wait for as long.
        let is_short = |begun: Instant| !wait.is_long() || begun.elapsed() >= PATIENCE;
        assert!(!wait.is_long());
        let begun = Instant::now();
        wait.during(|| {
            assert!(is_short(begun));
            std::thread::sleep(PATIENCE);
            let begun = Instant::now();
            assert!(wait.is_long());
            assert!(is_short(begun));
        });
        std::thread::sleep(PATIENCE);
        assert!(!wait.is_long());
    }
}
