//! Backup: a consistent, compacted copy of the store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use heed::CompactionOption;

use super::FileStore;
use super::errors::{failed, io_failed};
use super::folder::{self, FolderRules};
use super::names::DATA;
use super::private_files::create_private;
use crate::error::{Result, StoreError};

/// The interval between two progress reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// Deletes the file on drop unless it is kept.
struct Partial<'a>(Option<&'a Path>);

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

impl FileStore {
    /// Copies the store into a new or empty folder, which is then a store itself. Returns the size of its data file
    /// in bytes. Other calls continue, but the file of this store may grow until the copy is complete. `progress`
    /// receives the copied bytes and the approximate total.
    ///
    /// # Errors
    /// `InvalidOption` if the folder is not empty. `Full`, `Io`: only the empty folder may be left behind.
    pub fn backup(&self, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
        let dir = prepare(to)?;
        let (path, partial) = (dir.join(DATA), dir.join("data.mdb.partial"));
        let failed_at = |doing, error| io_failed(&partial.display(), doing, &error);
        let mut file = create_private(&partial).map_err(|error| failed_at("creating", error))?;
        let mut kept = Partial(Some(&partial));
        let bytes = self.copy(&mut file, &partial, progress)?;
        fs::rename(&partial, &path).map_err(|error| failed_at("renaming", error))?;
        kept.0 = None;
        folder::sync(&dir).map_err(|error| io_failed(&dir.display(), "syncing", &error))?;
        Ok(bytes)
    }

    /// Copies the store into an empty file, like [`FileStore::backup`].
    ///
    /// # Errors
    /// `Full`, `Io`: the file may contain an incomplete copy.
    pub fn backup_into(&self, file: &mut File, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
        self.copy(file, Path::new("the copy"), progress)
    }

    fn copy(&self, file: &mut File, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
        let environment = self.environment();
        let total = {
            let txn = environment.read()?;
            environment.usage(&txn).map_err(|error| environment.failed(error))?.used()
        };
        let watched = file.try_clone().map_err(|error| io_failed(&path.display(), "writing", &error))?;
        let copied = || watched.metadata().map_or(0, |metadata| metadata.len());
        thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            // Writers wait until the copy has its view of the store.
            let copying = self.redo().without_log(|_paused| {
                let open = environment.open()?;
                let copying = scope.spawn(move || {
                    let _done = done;
                    open.env.copy_to_file(file, CompactionOption::Enabled)?;
                    file.sync_all().map_err(heed::Error::Io)
                });
                while copied() == 0 && !copying.is_finished() {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(copying)
            })?;
            while is_done.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                progress(copied().min(total), total);
            }
            let copied =
                copying.join().unwrap_or_else(|_| Err(heed::Error::Io(std::io::Error::other("a panic"))));
            copied.map_err(|error| failed(path, error))
        })?;
        environment.check_unused()?;
        let bytes = copied();
        progress(bytes, bytes);
        Ok(bytes)
    }
}

fn prepare(to: &Path) -> Result<PathBuf> {
    // A copy needs no locks, so it may be on a network file system. Opening it there is checked separately.
    let dir = folder::prepare(to, FolderRules { is_created: true, may_be_on_network: true })?;
    let mut entries = fs::read_dir(&dir).map_err(|error| io_failed(&dir.display(), "reading", &error))?;
    if entries.next().is_some() {
        return Err(StoreError::InvalidOption {
            option: "path",
            expected: "the path of a new or empty folder".into(),
            given: format!("that of a folder with files, {}", dir.display()),
        });
    }
    Ok(dir)
}
