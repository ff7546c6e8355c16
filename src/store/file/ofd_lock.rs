//! Locks of open file descriptions (Linux, fcntl(2)). They belong to an open file, not to a process: another opening of the
//! file in the same process is kept out too, and the lock ends when the file is closed, also by a kill.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A range of bytes that is locked. The file need not have these bytes.
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

/// Locks a range, or changes the kind of its lock, at once. Returns `false` if another has a lock that is in the way.
pub(super) fn try_lock(file: &File, kind: Kind, range: Range) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, type_of(kind), range) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unlocks a range. The end of the open file would do so as well.
pub(super) fn unlock(file: &File, range: Range) {
    let _ = fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, range);
}

/// Unlocks the whole file. A child of this process may have a copy of the descriptor, between its fork and its exec: so
/// the end of the open file may come later than it is closed here.
pub(super) fn unlock_all(file: &File) {
    unlock(file, Range { start: 0, length: 0 });
}

/// Returns where a conflicting lock of another begins, not always the lowest. `None` if no lock conflicts.
pub(super) fn find(file: &File, kind: Kind, range: Range) -> io::Result<Option<i64>> {
    let found = fcntl(file, libc::F_OFD_GETLK, type_of(kind), range)?;
    Ok((found.l_type != libc::F_UNLCK as libc::c_short).then_some(found.l_start))
}

/// Whether the error says that the kernel or the file system has no such locks.
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
    // SAFETY: the descriptor is open, and `lock` is a whole flock. rustix has no locks of open file descriptions.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        0 => Ok(lock),
        _ => Err(io::Error::last_os_error()),
    }
}
