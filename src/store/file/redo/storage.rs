//! The file of the log, as a trait. The simulator implements it with writes that are lost, torn or refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Result, StoreError};
use crate::store::file::errors::io_failed;
use crate::store::file::folder;
use crate::store::file::names::{NEW_REDO, REDO};
use crate::store::file::private_files::{create_private, give_to_owner, is_at, open_private};

/// An open log file.
pub(in crate::store::file) trait LogFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes all earlier writes durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether the file still has its name.
    fn is_in_place(&self) -> io::Result<bool>;
}

/// The folder of a store's log.
pub(in crate::store::file) trait LogFiles: Send + Sync {
    /// Opens the log. `None` if there is none.
    fn open(&self) -> Result<Option<Arc<dyn LogFile>>>;

    /// Creates a file of zeros for the next log. It is durable when this returns.
    fn prepare(&self, len: u64) -> Result<()>;

    /// Replaces the log by the prepared file. The name is durable when this returns.
    fn install(&self) -> Result<Arc<dyn LogFile>>;

    /// Makes the name of the log durable.
    fn sync_name(&self) -> Result<()>;

    /// The path of the log, for messages.
    fn path(&self) -> PathBuf;
}

/// Opens a former log for reading. `None` if it is missing.
pub(in crate::store::file) fn open_to_read(path: &Path) -> Result<Option<Arc<dyn LogFile>>> {
    let file = open_private(path, false)?;
    Ok(file.map(|file| Arc::new(DiskFile { file, path: path.into() }) as Arc<dyn LogFile>))
}

/// Log files in a store folder.
pub(in crate::store::file) struct Folder(pub PathBuf);

struct DiskFile {
    file: File,
    path: PathBuf,
}

impl LogFiles for Folder {
    fn open(&self) -> Result<Option<Arc<dyn LogFile>>> {
        let path = self.path();
        let file = open_private(&path, true)?;
        Ok(file.map(|file| Arc::new(DiskFile { file, path }) as Arc<dyn LogFile>))
    }

    fn prepare(&self, len: u64) -> Result<()> {
        let new = self.0.join(NEW_REDO);
        if !has_room(&self.0, len) {
            return Err(StoreError::Full(
                format!("too little space is left for {}", self.path().display()).into(),
            ));
        }
        create_zeros(&new, len, &self.0).map(drop).map_err(|error| {
            let _ = fs::remove_file(&new);
            io_failed(&self.path().display(), "creating", &error)
        })
    }

    fn install(&self) -> Result<Arc<dyn LogFile>> {
        let (path, new) = (self.path(), self.0.join(NEW_REDO));
        let failed = |error| io_failed(&path.display(), "creating", &error);
        let file = open_private(&new, true)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        fs::rename(&new, &path).map_err(failed)?;
        folder::sync(&self.0).map_err(|error| {
            // After a failed sync, a later one may succeed without writing the name.
            let _ = fs::remove_file(&path);
            failed(error)
        })?;
        Ok(Arc::new(DiskFile { file, path }))
    }

    fn sync_name(&self) -> Result<()> {
        folder::sync(&self.0)
            .map_err(|error| io_failed(&self.path().display(), "syncing the folder of", &error))
    }

    fn path(&self) -> PathBuf {
        self.0.join(REDO)
    }
}

/// Whether `len` is at most a quarter of the free disk space. The sessions and other programs need room too.
#[cfg(unix)]
pub(super) fn has_room(dir: &Path, len: u64) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|found| found.f_bavail * found.f_frsize / 4 >= len)
}

#[cfg(not(unix))]
pub(super) fn has_room(_: &Path, _: u64) -> bool {
    true
}

/// Creates a file of zeros. Allocating it is not enough: the file system tracks unwritten blocks, and the first write
/// to each would cost a commit of its journal.
fn create_zeros(path: &Path, len: u64, dir: &Path) -> io::Result<File> {
    const STEP: usize = 1 << 20;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = create_private(path)?;
    give_to_owner(&file, dir);
    let zeros = vec![0; STEP];
    let mut at = 0;
    while at < len {
        let part = &zeros[..STEP.min((len - at) as usize)];
        write_all_at(&file, part, at)?;
        at += part.len() as u64;
    }
    file.sync_all()?;
    Ok(file)
}

impl LogFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        read_exact_at(&self.file, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        write_all_at(&self.file, bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_in_place(&self) -> io::Result<bool> {
        is_at(&self.file, &self.path)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// Only Linux uses a log.
#[cfg(not(unix))]
fn read_exact_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn write_all_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The error for an unreadable log that the store needs.
pub(super) fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{} has sessions that are not in the data file yet, and it is damaged or replaced: {why}. Put the file back that \
         belongs to this data.mdb. If it is lost, native-store discard-log opens the store without the lost writes. The other way \
         on is a backup",
        path.display()
    ))
}
