//! Converts errors of LMDB and of the system to errors of the contract.

use std::io;
use std::path::Path;

use heed::MdbError;

use super::names::DATA;
use crate::error::StoreError;

/// Converts an error of LMDB that concerns the file at `path`.
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
            StoreError::Io(format!("too many threads of all processes read {path}"))
        }
        heed::Error::Mdb(MdbError::MapResized) => {
            StoreError::Io(format!("{path} has outgrown the address space of this process (see `ulimit -v`)"))
        }
        error => StoreError::Io(format!("using {path} failed: {error}")),
    }
}

/// Converts an error of the system. `doing` is a word such as "opening".
pub(super) fn io_failed(path: &impl std::fmt::Display, doing: &str, error: &io::Error) -> StoreError {
    #[cfg(unix)]
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            return no_space(path);
        }
        Some(libc::ENOLCK | libc::ESTALE | libc::EREMOTEIO) => {
            return StoreError::Io(format!(
                "{doing} {path} failed: {error}. Is it on a network file system? The store needs a local one."
            ));
        }
        _ => {}
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return StoreError::Io(format!(
            "{doing} {path} failed: {error}. Give {} the right to read and write there, or use another path",
            this_user()
        ));
    }
    StoreError::Io(format!("{doing} {path} failed: {error}"))
}

#[cfg(unix)]
fn this_user() -> String {
    format!("the user of this process (uid {})", rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn this_user() -> &'static str {
    "the user of this process"
}

fn no_space(path: &impl std::fmt::Display) -> StoreError {
    StoreError::Full(format!("no space left on the disk of {path}").into())
}

/// If the disk has room for only a part of a write, LMDB reports an I/O error.
#[cfg(unix)]
fn is_cut_off_write(path: &Path, error: &io::Error) -> bool {
    const LITTLE: u64 = 1 << 20;
    error.raw_os_error() == Some(libc::EIO)
        && rustix::fs::statvfs(path).is_ok_and(|found| found.f_bavail * found.f_frsize <= LITTLE)
}

#[cfg(not(unix))]
fn is_cut_off_write(_: &Path, _: &io::Error) -> bool {
    false
}

/// Converts an error of LMDB that occurred while it opened a folder.
pub(super) fn open_failed(dir: &Path, error: heed::Error) -> StoreError {
    match error {
        #[cfg(unix)]
        // From pthread_key_create(3): LMDB needs one key for each open environment.
        heed::Error::Io(error) if error.raw_os_error() == Some(libc::EAGAIN) => StoreError::Io(format!(
            "too many stores are open in this process to open {}: the system has no thread-local key left. Close \
             stores that are no longer used, or keep more sessions in one",
            dir.display()
        )),
        heed::Error::EnvAlreadyOpened => still_closing(dir),
        error => failed(&dir.join(DATA), error),
    }
}

/// The previous store of this path has not closed its files in time.
pub(super) fn still_closing(dir: &Path) -> StoreError {
    StoreError::Locked(format!(
        "the former store of {} is still being closed in this process: a call of it, such as a backup, has not ended. \
         Await its close(), or try again later",
        dir.display()
    ))
}

/// The files at the path are no longer those of the open store.
pub(super) fn files_replaced(dir: &Path) -> StoreError {
    StoreError::Io(format!(
        "the files of the store in {} were removed, moved or replaced while it was open. Close the store and open the path again",
        dir.display()
    ))
}

/// The store has a redo log that this process has not created.
pub(super) fn log_of_another(dir: &Path) -> StoreError {
    StoreError::Locked(format!(
        "another process writes to the store in {} without knowing of this one. Were lock files of the store removed? Stop \
         all processes that use it, then start them again",
        dir.display()
    ))
}

pub(super) fn read_only(dir: &Path) -> StoreError {
    StoreError::Io(format!(
        "the store in {} was opened with readOnly: true, and takes no writes",
        dir.display()
    ))
}

#[cfg(target_os = "linux")]
pub(super) fn same_pid(dir: &Path) -> StoreError {
    StoreError::Locked(format!(
        "{} is open in another container, by a process with the same PID ({}), or in this process by another copy \
         of this package. Stop the old container before the new one starts, or let them see each other's processes \
         (docker run --pid). A process must load the package once",
        dir.display(),
        std::process::id()
    ))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn os_error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn too_many_open_stores_are_not_reported_as_locked() {
        let dir = Path::new("/data/sessions");
        let error = open_failed(dir, heed::Error::Io(os_error(libc::EAGAIN)));
        assert_eq!(error.code(), "ERR_STORE_IO");
        assert!(error.to_string().starts_with("too many stores are open in this process"), "{error}");
        assert_eq!(failed(dir, heed::Error::Io(os_error(libc::EAGAIN))).code(), "ERR_STORE_IO");
        assert_eq!(io_failed(&dir.display(), "opening", &os_error(libc::EAGAIN)).code(), "ERR_STORE_IO");
    }

    #[test]
    fn a_missing_right_is_reported_with_the_user_who_needs_it() {
        let error = io_failed(&"/data/sessions", "creating", &os_error(libc::EACCES));
        assert_eq!(
            error.to_string(),
            format!(
                "creating /data/sessions failed: Permission denied (os error 13). Give the user of this process \
                 (uid {}) the right to read and write there, or use another path",
                rustix::process::geteuid().as_raw()
            )
        );
    }

    #[test]
    fn a_store_that_is_still_closing_in_this_process_is_reported_as_locked() {
        let error = open_failed(Path::new("/data/sessions"), heed::Error::EnvAlreadyOpened);
        assert_eq!(error.code(), "ERR_STORE_LOCKED");
    }
}
