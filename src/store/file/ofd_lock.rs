//! Open file description locks (Linux, fcntl(2)).
//!
//! These locks belong to an open file, not to a process. So they also exclude a second open file of the same process.
//! A lock ends when its file is closed, even if the process is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A range of bytes. It may be beyond the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub start: i64,
    pub length: i64,
}

impl Range {
    pub(super) const fn byte(start: i64) -> Self {
        Self { start, length: 1 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Shared,
    Exclusive,
}

/// Locks a range, or atomically changes the kind of its lock. Does not wait: returns `false` if another lock
/// conflicts.
pub(super) fn try_lock(file: &File, kind: Kind, range: Range) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, type_of(kind), range) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unlocks a range. Closing the file would unlock it too.
pub(super) fn unlock(file: &File, range: Range) {
    let _ = fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, range);
}

/// Unlocks the whole file. Closing it is not enough: a child process may briefly have a copy of the descriptor,
/// between fork and exec.
pub(super) fn unlock_all(file: &File) {
    unlock(file, Range { start: 0, length: 0 });
}

/// Returns the start of a conflicting lock, but not always of the lowest one. `None` if there is no conflict.
pub(super) fn find(file: &File, kind: Kind, range: Range) -> io::Result<Option<i64>> {
    let found = fcntl(file, libc::F_OFD_GETLK, type_of(kind), range)?;
    Ok((found.l_type != libc::F_UNLCK as libc::c_short).then_some(found.l_start))
}

/// Whether the error means that the kernel or the file system does not support these locks.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

fn type_of(kind: Kind) -> libc::c_int {
    match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    }
}

fn fcntl(file: &File, command: libc::c_int, kind: libc::c_int, range: Range) -> io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        l_len: range.length as libc::off_t,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and `lock` is a complete flock. rustix has no open file description locks.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        0 => Ok(lock),
        _ => Err(io::Error::last_os_error()),
    }
}
