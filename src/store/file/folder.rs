//! Finds, creates and identifies the store folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::errors::io_failed;
use super::network::refuse_network;
use crate::error::{Result, StoreError};

/// Identifies a folder regardless of the path used to reach it (device and inode).
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

/// Permitted actions and places for a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderRules {
    pub is_created: bool,
    pub may_be_on_network: bool,
}

/// Finds the folder, or creates it like `mkdir -p`, with access for its owner only. Returns its absolute path.
pub(super) fn prepare(path: &Path, rules: FolderRules) -> Result<PathBuf> {
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
        Err(error) if error.kind() == io::ErrorKind::NotFound && rules.is_created => {
            create_all(&dir).map_err(failed("creating"))?;
        }
        Err(error) => return Err(failed("opening")(error)),
    }
    if !rules.may_be_on_network {
        refuse_network(&dir)?;
    }
    dir.canonicalize().map_err(failed("finding"))
}

/// Creates a folder and its missing parents. Each one is durable before the next is created.
fn create_all(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for &ancestor in missing.iter().rev() {
        match create(ancestor, ancestor == dir) {
            Ok(()) => {}
            // Another process is creating the same folder.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && ancestor.is_dir() => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = ancestor.parent() {
            sync(parent)?;
        }
    }
    Ok(())
}

/// Creates a folder, either for its owner only or with the permissions of the umask.
#[cfg(unix)]
fn create(dir: &Path, is_private: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(if is_private { 0o700 } else { 0o777 }).create(dir)?;
    let mode = rustix::fs::Mode::from_raw_mode;
    let (owner, others) = (mode(0o700), mode(0o077));
    let found = mode_of_folder(dir)?;
    // The umask may have locked the owner out. A default ACL may have given others access.
    let wanted = if is_private { owner } else { found | owner };
    if found.contains(owner) && (!is_private || !found.intersects(others)) {
        return Ok(());
    }
    permit_folder(dir, wanted)
}

#[cfg(not(unix))]
fn create(dir: &Path, _: bool) -> io::Result<()> {
    fs::create_dir(dir)
}

#[cfg(unix)]
fn mode_of_folder(dir: &Path) -> io::Result<rustix::fs::Mode> {
    use rustix::fs::{AtFlags, CWD, Mode, statat};
    let found = statat(CWD, dir, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Mode::from_raw_mode(found.st_mode & 0o7777))
}

/// Sets the permissions of the folder, and never of a link's target. If the owner cannot open the folder, only an
/// `O_PATH` descriptor is possible, and fchmod(2) rejects that. So the path goes through /proc.
#[cfg(target_os = "linux")]
fn permit_folder(dir: &Path, mode: rustix::fs::Mode) -> io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, chmod, openat};
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, dir, flags, Mode::empty())?;
    Ok(chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), mode)?)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn permit_folder(dir: &Path, mode: rustix::fs::Mode) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, chmodat};
    Ok(chmodat(CWD, dir, mode, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes the names in a folder durable.
#[cfg(unix)]
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
