//! Notices that the store's folder was removed, moved or replaced while it is open.
//!
//! Nothing that is written to a file without a name is there after a restart, and two processes that open one path
//! must have the same files. So each commit first compares the open files with those at the path: one `stat` for each of
//! them, some microseconds, where a commit waits for the disk. After a difference was found the store stays failed, for
//! reads too: another process ends sessions in the new file, and this one would not see it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::directory::{DATA, LOCK};
use crate::error::{Result, StoreError};

/// The files of a store that is open.
pub(super) struct HeldFiles {
    dir: PathBuf,
    /// The name and the identity of each file. An identity that is unknown is not compared.
    files: [(&'static str, Option<FileId>); 2],
    is_lost: AtomicBool,
}

impl HeldFiles {
    /// The files that were just opened in a folder.
    pub(super) fn new(dir: &Path, data: &File) -> Self {
        let lock = dir.join(LOCK).metadata().ok();
        let files = [(DATA, file_id(data.metadata().ok())), (LOCK, file_id(lock))];
        Self { dir: dir.into(), files, is_lost: AtomicBool::new(false) }
    }

    /// Compares the files with those at the path.
    ///
    /// # Errors
    /// `Io` if a file is no longer there, or is another. From then on always.
    pub(super) fn check(&self) -> Result<()> {
        let is_lost = self.files.iter().any(|(name, held)| match self.dir.join(name).metadata() {
            Ok(found) => held.is_some() && file_id(Some(found)) != *held,
            Err(error) => {
                // Other errors do not say that it is gone: a process may give up the right to look.
                matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
            }
        });
        if is_lost {
            self.is_lost.store(true, Ordering::Relaxed);
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
            self.is_lost.store(true, Ordering::Relaxed);
        }
        self.ensure()
    }

    /// Fails if a check has failed.
    ///
    /// # Errors
    /// As for `check`.
    pub(super) fn ensure(&self) -> Result<()> {
        if self.is_lost.load(Ordering::Relaxed) { Err(self.error()) } else { Ok(()) }
    }

    fn error(&self) -> StoreError {
        StoreError::Io(format!(
            "the store's folder {} was removed, moved or replaced while it was open: its files are no longer those that \
             this process has open. Close the store and open the path again",
            self.dir.display()
        ))
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
