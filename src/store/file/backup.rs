//! A compacted copy of the store as it is at one moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use heed::CompactionOption;

use super::FileStore;
use super::directory::{self, Rules};
use super::errors::{failed, io_failed};
use super::names::DATA;
use super::private_files::create_private;
use crate::error::{Result, StoreError};

/// How often progress is reported.
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
    /// Copies the store as it is now into a folder that is new or empty, which then is a store. Returns the size of its
    /// file in bytes. Others go on; until the copy ends, the file of the store may grow. `progress` gets the bytes that
    /// are copied, and about how many there are.
    ///
    /// # Errors
    /// `InvalidOption` for a folder with something in it. `Full`, `Io`: nothing is left behind then but the empty
    /// folder.
    pub fn backup(&self, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
        let dir = prepare(to)?;
        let (path, partial) = (dir.join(DATA), dir.join("data.mdb.partial"));
        let failed_at = |doing, error| io_failed(&partial.display(), doing, &error);
        let mut file = create_private(&partial).map_err(|error| failed_at("making", error))?;
        let mut kept = Partial(Some(&partial));
        let bytes = self.copy(&mut file, &partial, progress)?;
        fs::rename(&partial, &path).map_err(|error| failed_at("renaming", error))?;
        kept.0 = None;
        directory::sync(&dir).map_err(|error| io_failed(&dir.display(), "syncing", &error))?;
        Ok(bytes)
    }

    /// Copies the store likewise into an empty file.
    ///
    /// # Errors
    /// `Full`, `Io`: a part may have been written then.
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
    // A copy is written without any lock, so that it may be on a network file system. To open it there is another matter.
    let dir = directory::prepare(to, Rules { is_created: true, may_be_on_network: true })?;
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
