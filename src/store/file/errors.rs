//! Errors of LMDB and of the system, in the words of the contract.

use std::io;
use std::path::Path;

use heed::MdbError;

use crate::error::StoreError;

/// What an error of LMDB's means. `path` is the file that it is about.
pub(super) fn failed(path: &Path, error: heed::Error) -> StoreError {
    let is_cut_off = matches!(&error, heed::Error::Io(error) if is_cut_off_write(path, error));
    let path = path.display();
    match error {
        heed::Error::Io(_) if is_cut_off => no_space(&path),
        heed::Error::Io(error) => io_failed(&path, "using", &error),
        heed::Error::Mdb(MdbError::MapFull) => {
            StoreError::Full(format!("{path} fills the address space that it has").into())
        }
        heed::Error::Mdb(
            error @ (MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Invalid
            | MdbError::VersionMismatch
            | MdbError::Incompatible),
        ) => StoreError::Damaged(format!("{path} is damaged, or not a session store: {error}")),
        heed::Error::Mdb(MdbError::ReadersFull) => {
            StoreError::Io(format!("more threads read {path} than it has room for"))
        }
        heed::Error::Mdb(MdbError::MapResized) => {
            StoreError::Io(format!("{path} has outgrown the address space of this process (see `ulimit -v`)"))
        }
        error => StoreError::Io(format!("using {path} failed: {error}")),
    }
}

/// What an error of the system means. `doing` is a word like "opening".
pub(super) fn io_failed(path: &impl std::fmt::Display, doing: &str, error: &io::Error) -> StoreError {
    #[cfg(unix)]
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            return no_space(path);
        }
        Some(libc::EAGAIN) => return StoreError::Locked(same_process_number(path)),
        Some(libc::ENOLCK | libc::ESTALE | libc::EREMOTEIO) => {
            return StoreError::Io(format!(
                "{doing} {path} failed: {error}. Is it on a network file system? The store needs a local one."
            ));
        }
        _ => {}
    }
    StoreError::Io(format!("{doing} {path} failed: {error}"))
}

fn no_space(path: &impl std::fmt::Display) -> StoreError {
    StoreError::Full(format!("no space left on the disk of {path}").into())
}

/// LMDB calls it an error of the device where only a part of what it writes finds room.
#[cfg(unix)]
fn is_cut_off_write(path: &Path, error: &io::Error) -> bool {
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    const LITTLE: u64 = 1 << 20;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    if error.raw_os_error() != Some(libc::EIO) {
        return false;
    }
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string, `stat` is writable.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: statvfs has filled it.
    let stat = unsafe { stat.assume_init() };
    // They have fewer bits on other systems.
    #[allow(clippy::unnecessary_cast)]
    let available = stat.f_bavail as u64 * stat.f_frsize as u64;
    available <= LITTLE
}

#[cfg(not(unix))]
fn is_cut_off_write(_: &Path, _: &io::Error) -> bool {
    false
}

pub(super) fn same_process_number(path: &impl std::fmt::Display) -> String {
    format!(
        "{path} is open in another container, by a process of the same number ({}), or in this process by another \
         copy of this package. Containers that share a store must see each other's processes (docker run --pid), \
         and a process loads the package once.",
        std::process::id()
    )
}
