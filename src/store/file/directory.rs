//! The store's directory: made, kept private, and marked as open.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::errors::io_failed;
use crate::error::{Result, StoreError};

pub(super) const DATA: &str = "data.mdb";
pub(super) const LOCK: &str = "lock.mdb";
#[cfg(target_os = "linux")]
const OWNERS: &str = "owners.lock";

/// What tells a directory from any other, by whatever path it is reached.
#[cfg(unix)]
pub(super) type Identity = (u64, u64);
#[cfg(not(unix))]
pub(super) type Identity = PathBuf;

#[cfg(unix)]
pub(super) fn identity(dir: &Path) -> Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = dir.metadata().map_err(|error| io_failed(&dir.display(), "opening", &error))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn identity(dir: &Path) -> Result<Identity> {
    dir.canonicalize().map_err(|error| io_failed(&dir.display(), "opening", &error))
}

/// Makes the directory if it is not there, like `mkdir -p`, for its owner alone; and gives its absolute path.
pub(super) fn prepare(path: &Path) -> Result<PathBuf> {
    let failed = |doing| move |error: io::Error| io_failed(&path.display(), doing, &error);
    let dir = std::path::absolute(path).map_err(failed("finding"))?;
    match fs::metadata(&dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(StoreError::InvalidOption {
                option: "path",
                expected: "the path of a folder".into(),
                given: format!("that of a file, {}", dir.display()),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&dir).map_err(failed("making"))?,
        Err(error) => return Err(failed("opening")(error)),
    }
    refuse_network(&dir)?;
    dir.canonicalize().map_err(failed("finding"))
}

/// Makes a directory and its missing parents, each on disk when it is there.
fn make(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for &ancestor in missing.iter().rev() {
        match fs::create_dir(ancestor) {
            // Whatever the umask takes away, the owner must get in; others into the store's own must not.
            Ok(()) => permit(ancestor, |mode| if ancestor == dir { 0o700 } else { mode | 0o700 })?,
            // Another process makes the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && ancestor.is_dir() => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = ancestor.parent() {
            sync(parent)?;
        }
    }
    Ok(())
}

/// Makes the files of a new store before LMDB does, so that the umask has no say in who may use them.
pub(super) fn make_files(dir: &Path) -> Result<()> {
    for name in [DATA, LOCK] {
        let path = dir.join(name);
        let made = File::options().write(true).create_new(true).open(&path);
        match made.and_then(|_| permit(&path, |_| 0o600)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(io_failed(&path.display(), "making", &error)),
        }
        give_to_owner(&path, dir);
        sync(dir).map_err(|error| io_failed(&dir.display(), "syncing", &error))?;
    }
    Ok(())
}

/// Makes the names in a directory last.
#[cfg(unix)]
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(super) fn permit(path: &Path, mode: impl FnOnce(u32) -> u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mode = mode(path.metadata()?.mode() & 0o7777);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(super) fn permit(_: &Path, _: impl FnOnce(u32) -> u32) -> io::Result<()> {
    Ok(())
}

/// Whom the data belongs to can use what root makes beside it.
#[cfg(unix)]
fn give_to_owner(path: &Path, dir: &Path) {
    use std::os::unix::fs::{MetadataExt, chown};
    if let (Ok(data), Ok(made)) = (dir.join(DATA).metadata(), path.metadata())
        && (data.uid(), data.gid()) != (made.uid(), made.gid())
    {
        // Only root may; for others it is theirs already, or of no use to them.
        let _ = chown(path, Some(data.uid()), Some(data.gid()));
    }
}

#[cfg(not(unix))]
fn give_to_owner(_: &Path, _: &Path) {}

/// LMDB's locks and shared memory are only good on one machine.
#[cfg(target_os = "linux")]
fn refuse_network(dir: &Path) -> Result<()> {
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    // From statfs(2).
    const NETWORK: [(u32, &str); 6] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9P"),
        (0x5346_414f, "AFS"),
    ];
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return Ok(()) };
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is a C string, `stat` is writable.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Ok(());
    }
    // SAFETY: statfs has filled it.
    let kind = unsafe { stat.assume_init() }.f_type as u32;
    match NETWORK.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Err(StoreError::Io(format!(
            "{} is on a network file system ({name}), where the store's locks do not hold: it needs a local disk",
            dir.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path) -> Result<()> {
    Ok(())
}

/// The mark that a process of this number has the store open.
///
/// LMDB knows its processes by their numbers. Two of one number, in two containers, would take each other's readers
/// for their own; so would two copies of this package in one process, whose locks on one file are one lock. This lock
/// belongs to the open file instead, so that it is refused to both.
pub(super) struct Owner {
    #[cfg(target_os = "linux")]
    _file: File,
}

impl Owner {
    #[cfg(target_os = "linux")]
    pub(super) fn mark(dir: &Path) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let path = dir.join(OWNERS);
        let failed = |error: io::Error| io_failed(&path.display(), "opening", &error);
        let is_new = !path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        if is_new {
            permit(&path, |_| 0o600).map_err(failed)?;
            give_to_owner(&path, dir);
        }
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::from(std::process::id()),
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, `lock` is a whole flock.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } == 0 {
            return Ok(Self { _file: file });
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => {
                Err(StoreError::Locked(super::errors::same_process_number(&dir.display())))
            }
            // A kernel or file system without such locks: LMDB's own answer remains.
            Some(libc::EINVAL) => Ok(Self { _file: file }),
            _ => Err(failed(error)),
        }
    }

    /// Whether no other process has the store open.
    #[cfg(target_os = "linux")]
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, `lock` is a whole flock.
        match unsafe { libc::fcntl(self._file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
            0 => Ok(lock.l_type == libc::F_UNLCK as libc::c_short),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// It is not known.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn mark(_: &Path) -> Result<Self> {
        Ok(Self {})
    }
}
