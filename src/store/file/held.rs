//! Notices that the store's folder was removed, moved or replaced while it is open.
//!
//! Nothing that is written to a file without a name is there after a restart, and two processes that open one path
//! must have the same files. So each commit first compares the open file with that at the path. That is one `stat`, a
//! microsecond or two, where a commit waits for the disk. After a difference was found the store stays failed, for reads
//! too: another process ends sessions in the new file, and this one would not see it.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::errors::files_replaced;
use super::names::{DATA, LOCK};
use super::private_files::{FileId, file_id};
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
        let mut files = vec![(DATA, id_of(data.metadata()))];
        // Without it another process would make a new one, and the two would not see each other's locks. On Linux the
        // owner's lock keeps others out then, so that this process can go on.
        if cfg!(not(target_os = "linux")) {
            files.push((LOCK, id_of(dir.join(LOCK).symlink_metadata())));
        }
        Self { dir: dir.into(), files, is_lost: AtomicBool::new(false) }
    }

    /// Compares the files with those at the path.
    ///
    /// # Errors
    /// `Io` if a file is no longer there, or is another. From then on always.
    pub(super) fn check(&self) -> Result<()> {
        let is_lost = |(name, held): &(&str, Option<FileId>)| match self.dir.join(name).symlink_metadata() {
            Ok(found) => file_id(&found) != *held,
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
        if held.is_some() && id_of(data.metadata()) != held {
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

fn id_of(metadata: io::Result<Metadata>) -> Option<FileId> {
    metadata.ok().as_ref().and_then(file_id)
}
