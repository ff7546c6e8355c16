//! Detects that the store's folder was removed, moved or replaced while it is open.
//!
//! Data in an unlinked file is lost after a restart, and two processes that open the same path must have the same
//! files. So each commit first compares the open file with the file at the path. That costs one `stat`, or 1 to 2 µs,
//! beside a sync of the disk. After a difference was found, the store fails permanently. Reads fail too, because this
//! process cannot see which sessions another process ends in the new file.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::errors::files_replaced;
use super::names::{DATA, LOCK};
use super::private_files::{FileId, file_id};
use crate::error::Result;

/// The identity of the files that a store has open.
pub(super) struct HeldFiles {
    dir: PathBuf,
    /// The name and the identity of each file. An unknown identity is not compared.
    files: Vec<(&'static str, Option<FileId>)>,
    is_lost: AtomicBool,
}

impl HeldFiles {
    /// Records the files that were just opened in a folder.
    pub(super) fn new(dir: &Path, data: &File) -> Self {
        let mut files = vec![(DATA, id_of(data.metadata()))];
        // Without `lock.mdb`, another process would create a new one, and the two would not see each other's locks.
        // On Linux the owner lock prevents that, so this process can continue.
        if cfg!(not(target_os = "linux")) {
            files.push((LOCK, id_of(dir.join(LOCK).symlink_metadata())));
        }
        Self { dir: dir.into(), files, is_lost: AtomicBool::new(false) }
    }

    /// Compares the files with those at the path.
    ///
    /// # Errors
    /// `Io` if a file is missing or different, and from then on in every call.
    pub(super) fn check(&self) -> Result<()> {
        let is_lost = |(name, held): &(&str, Option<FileId>)| match self.dir.join(name).symlink_metadata() {
            Ok(found) => file_id(&found) != *held,
            // Other errors do not prove that the file is missing. A process may have given up its right to read the
            // folder.
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        if self.files.iter().filter(|(_, held)| held.is_some()).any(is_lost) {
            self.mark_lost();
        }
        self.ensure_not_lost()
    }

    /// Compares a data file that was opened again.
    ///
    /// # Errors
    /// As for `check`.
    pub(super) fn check_data(&self, data: &File) -> Result<()> {
        let (_, held) = self.files[0];
        if held.is_some() && id_of(data.metadata()) != held {
            self.mark_lost();
        }
        self.ensure_not_lost()
    }

    /// Fails if an earlier check has failed. Does not check the files.
    ///
    /// # Errors
    /// As for `check`.
    pub(super) fn ensure_not_lost(&self) -> Result<()> {
        if self.is_lost.load(Ordering::Relaxed) { Err(files_replaced(&self.dir)) } else { Ok(()) }
    }

    /// Makes every later check fail.
    pub(super) fn mark_lost(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }
}

fn id_of(metadata: io::Result<Metadata>) -> Option<FileId> {
    metadata.ok().as_ref().and_then(file_id)
}
