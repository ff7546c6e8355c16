//! Kills a process within a commit of LMDB: the meta page is written, and the lock file is not updated yet.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, off_t, size_t, ssize_t};

/// The number of the commit in which the process is killed.
pub const LAST_COMMIT: &str = "NATIVE_STORE_TEST_LAST_COMMIT";

fn last_commit() -> Option<u64> {
    static LAST: OnceLock<Option<u64>> = OnceLock::new();
    *LAST.get_or_init(|| std::env::var(LAST_COMMIT).ok()?.parse().ok())
}

/// Replaces the function of the C library. Only LMDB calls it by this name here.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    /// The first two pages are the meta pages. A commit writes a part of one, which does not start at 0.
    const META: std::ops::Range<off_t> = 1..8192;
    static COMMITS: AtomicU64 = AtomicU64::new(0);
    // SAFETY: the arguments of the caller are passed on unchanged.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, len, at) as ssize_t };
    if let Some(last) = last_commit()
        && META.contains(&at)
        && COMMITS.fetch_add(1, Ordering::SeqCst) + 1 == last
    {
        // SAFETY: raise accesses no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    written
}
