//! Notices that the store's folder was removed, moved or replaced while it is open.
//!
//! Nothing that is written to a file without a name is there after a restart, and two processes that open one path
//! must have the same files. So each commit first compares the open file with that at the path. That is one `stat`, a
//! microsecond or two, where a commit waits for the disk. After a difference was found the store stays failed, for reads
//! too: another process ends sessions in the new file, and this one would not see it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::errors::files_replaced;
use super::names::{DATA, LOCK};
use crate::error::Result;

/// The files of a store that is open.
pub(super) struct HeldFiles {
    dir: PathBuf,
    /// The name and the identity of each file. An identity that is unknown is not compared.
    files: Vec<(&'static str, Option<FileId>)>,
    is_lost: AtomicBool,
}

impl HeldFiles {
    /// The files that were just opened in a folder.
    pub(super) fn new(dir: &Path, data: &File) -> Self {
        let mut files = vec![(DATA, file_id(data.metadata().ok()))];
        // Without it another process would make a new one, and the two would not see each other's locks. On Linux the
        // owner's lock keeps others out then, so that this process can go on.
        if cfg!(not(target_os = "linux")) {
            files.push((LOCK, file_id(dir.join(LOCK).symlink_metadata().ok())));
        }
        Self { dir: dir.into(), files, is_lost: AtomicBool::new(false) }
    }

    /// Compares the files with those at the path.
    ///
    /// # Errors
    /// `Io` if a file is no longer there, or is another. From then on always.
    pub(super) fn check(&self) -> Result<()> {
        let is_lost = |(name, held): &(&str, Option<FileId>)| match self.dir.join(name).symlink_metadata() {
            Ok(found) => file_id(Some(found)) != *held,
            // Other errors do not say that it is gone: a process may give up the right to look.
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        if self.files.iter().filter(|(_, held)| held.is_some()).any(is_lost) {
            self.lose();
        }
        self.ensure()
    }

    /// Compares a data file that was opened again.
    ///
    /// # Errors
    /// As for `check`.
    pub(super) fn check_data(&self, data: &File) -> Result<()> {
        let (_, held) = self.files[0];
        if held.is_some() && file_id(data.metadata().ok()) != held {
            self.lose();
        }
        self.ensure()
    }

    /// Fails if a check has failed.
    ///
    /// # Errors
    /// As for `check`.
    pub(super) fn ensure(&self) -> Result<()> {
        if self.is_lost.load(Ordering::Relaxed) { Err(files_replaced(&self.dir)) } else { Ok(()) }
    }

    /// Has every check fail from now on.
    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }
}

/// Device and inode.
#[cfg(unix)]
type FileId = (u64, u64);
#[cfg(not(unix))]
type FileId = ();

#[cfg(unix)]
fn file_id(metadata: Option<std::fs::Metadata>) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    metadata.map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Other systems do not let a file be removed or renamed that is mapped.
#[cfg(not(unix))]
fn file_id(_: Option<std::fs::Metadata>) -> Option<FileId> {
    None
}
