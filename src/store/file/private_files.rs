//! Creates and opens the files of a store folder. They are private from the start, and links are never followed.
//!
//! A process that runs as root opens folders of untrusted users. Such a user may have replaced a file by a link, a
//! FIFO or a device. So files are created with `O_EXCL` and opened with `O_NOFOLLOW`. Permissions and owners are set
//! by descriptor.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use super::errors::io_failed;
use super::folder;
use super::names::{DATA, LOCK};
use crate::error::{Result, StoreError};

/// Creates a file with access for its owner only. Fails if the name exists, even as a dangling link.
#[cfg(unix)]
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have removed permissions of the owner.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(not(unix))]
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Opens an existing file. `None` if it is missing.
pub(super) fn open_private(path: &Path, is_writable: bool) -> Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(is_writable);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Without `O_NONBLOCK`, opening a FIFO would block this thread.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            // This gives a better reason than `ELOOP` or the error of a device.
            check(path)?;
            return Err(io_failed(&path.display(), "opening", &error));
        }
    };
    let metadata = file.metadata().map_err(|error| io_failed(&path.display(), "opening", &error))?;
    check_metadata(path, &metadata)?;
    Ok(Some(file))
}

/// Removes the access of others to a file.
#[cfg(unix)]
pub(super) fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| io_failed(&path.display(), "setting the permissions of", &error);
    let file = open_private(path, false)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o7777 == 0o600 {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)
}

#[cfg(not(unix))]
pub(super) fn make_private(_: &Path) -> Result<()> {
    Ok(())
}

/// Rejects everything except a regular file with one link, without opening it. `None` if the file is missing.
///
/// Opening and closing `lock.mdb` would release the locks that this process may have on it.
pub(super) fn check(path: &Path) -> Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(metadata) => check_metadata(path, &metadata).map(|()| Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_failed(&path.display(), "checking", &error)),
    }
}

fn check_metadata(path: &Path, metadata: &Metadata) -> Result<()> {
    let refuse = |what: &str| Err(StoreError::Io(format!("{} {what}", path.display())));
    if metadata.is_symlink() {
        return refuse(
            "is a symbolic link: the files of a store must be regular files. Only its folder may be a link",
        );
    }
    if !metadata.is_file() {
        return refuse("is not a regular file: the files of a store must be");
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(metadata) > 1 {
        return refuse(
            "has more than one hard link: a store changes its files in place, and so would change the others. Copy \
             the file, and put the copy in its place",
        );
    }
    Ok(())
}

/// Device and inode. They stay the same when a file is renamed, and differ when another file takes its name.
pub(super) type FileId = (u64, u64);

#[cfg(unix)]
pub(super) fn file_id(metadata: &Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

/// Windows does not remove or rename an open file.
#[cfg(not(unix))]
pub(super) fn file_id(_: &Metadata) -> Option<FileId> {
    None
}

pub(super) fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    file_id(one) == file_id(other)
}

/// Whether the path still leads to this open file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(is_same_file(&file.metadata()?, &metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Sets close-on-exec on all descriptors of a file. LMDB's own descriptor would otherwise leak into child processes,
/// with write access. LMDB does not report its number, so this searches all descriptors.
#[cfg(unix)]
pub(super) fn close_on_exec(file: &File) -> io::Result<()> {
    use std::os::fd::BorrowedFd;
    let wanted = file.metadata()?;
    for entry in std::fs::read_dir("/dev/fd")? {
        let entry = entry?;
        let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Another thread may have closed it since.
        let Ok(found) = std::fs::metadata(entry.path()) else { continue };
        if is_same_file(&wanted, &found) {
            // SAFETY: the number is not negative. If another thread has closed the descriptor, the call fails or
            // affects a descriptor that was opened since. Node.js sets close-on-exec on all of its descriptors
            // anyway.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Windows handles are not inherited by default.
#[cfg(not(unix))]
pub(super) fn close_on_exec(_: &File) -> io::Result<()> {
    Ok(())
}

/// Creates the missing files of a store and adds their names to `created`.
///
/// LMDB would create them with the permissions of the umask. `lock.mdb` comes first. So a `data.mdb` without
/// `lock.mdb` was copied there, and no process has opened it since.
pub(super) fn create_files(dir: &Path, created: &mut Vec<&'static str>) -> Result<()> {
    for name in [LOCK, DATA] {
        let path = dir.join(name);
        if check(&path)?.is_some() {
            continue;
        }
        match create_private(&path) {
            Ok(file) => {
                created.push(name);
                give_to_owner(&file, dir);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                check(&path)?;
                continue;
            }
            Err(error) => return Err(io_failed(&path.display(), "creating", &error)),
        }
        folder::sync(dir).map_err(|error| io_failed(&dir.display(), "syncing", &error))?;
    }
    Ok(())
}

/// Gives a file that root has created to the owner of the data file.
#[cfg(unix)]
pub(super) fn give_to_owner(created: &File, dir: &Path) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let (Ok(data), Ok(metadata)) = (dir.join(DATA).symlink_metadata(), created.metadata())
        && (data.uid(), data.gid()) != (metadata.uid(), metadata.gid())
    {
        // Only root can change the owner. For other users the file is already their own, or the change is useless.
        let _ = fchown(created, Some(data.uid()), Some(data.gid()));
    }
}

#[cfg(not(unix))]
pub(super) fn give_to_owner(_: &File, _: &Path) {}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_new_file_is_private_and_an_existing_name_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = create_private(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(create_private(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = dir.path().join("link");
        symlink(dir.path().join("victim"), &link).unwrap();
        assert_eq!(create_private(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!dir.path().join("victim").exists());
    }

    #[test]
    fn only_regular_files_with_one_link_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        drop(create_private(&file).unwrap());
        assert!(open_private(&file, true).unwrap().is_some());
        assert!(open_private(&dir.path().join("none"), true).unwrap().is_none());

        let refused = |path: &Path, reason: &str| {
            for error in [check(path).unwrap_err(), open_private(path, true).unwrap_err()] {
                assert!(error.to_string().contains(reason), "{error}");
                assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
                assert_eq!(error.code(), "ERR_STORE_IO");
            }
        };
        symlink(&file, &link).unwrap();
        refused(&link, "symbolic link");
        refused(dir.path(), "regular file");
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        refused(&fifo, "regular file");
        std::fs::hard_link(&file, dir.path().join("other")).unwrap();
        refused(&file, "hard link");
    }

    #[test]
    fn descriptors_of_a_file_are_closed_on_exec() {
        use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        let file = create_private(&path).unwrap();
        let inherited = [File::open(&path).unwrap(), create_private(&other).unwrap()];
        for file in &inherited {
            fcntl_setfd(file, FdFlags::empty()).unwrap();
        }
        close_on_exec(&file).unwrap();
        assert_eq!(fcntl_getfd(&inherited[0]).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(&inherited[1]).unwrap(), FdFlags::empty());
    }

    #[test]
    fn a_replaced_file_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = create_private(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        drop(create_private(&path).unwrap());
        assert!(!is_at(&file, &path).unwrap());
    }
}
