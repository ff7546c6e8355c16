//! The folders that this process has open.
//!
//! LMDB must not open a file twice in one process, because POSIX locks belong to the process. So the second opener
//! gets the existing store. A store whose files are no longer at its path is retired: its calls fail, and another
//! store can open the path.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::errors::still_closing;
use super::folder::{Identity, identity};
use crate::error::Result;

/// How long an opener waits until the previous store has closed. A constructor blocks the event loop for that time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A store that the registry can replace.
pub(super) trait Retire {
    /// Whether the files at its path are the files that it has open.
    fn is_current(&self) -> bool;

    /// Closes the files permanently. Returns whether all calls have released them by the deadline.
    fn retire(&self, deadline: Instant) -> bool;
}

/// The open stores of one type.
pub(super) struct Registry<S>(Mutex<Vec<Arc<Entry<S>>>>);

/// A folder and its store.
struct Entry<S> {
    identity: Identity,
    dir: PathBuf,
    state: Mutex<State<S>>,
    changed: Condvar,
}

enum State<S> {
    Opening,
    /// The store. After its last handle is gone, the entry stays until the files are closed.
    Open(Weak<S>),
    /// The files are closed, or no longer belong to a folder.
    Gone,
}

/// Held by the store as long as its files are open.
pub(super) struct Registered<S> {
    entry: Arc<Entry<S>>,
}

impl<S> Drop for Registered<S> {
    fn drop(&mut self) {
        self.entry.set(State::Gone);
    }
}

impl<S> Entry<S> {
    fn set(&self, state: State<S>) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }
}

/// The state of the previous store.
enum PreviousStore<S> {
    Store(Arc<S>),
    /// It was opening or has closed. Look again.
    Changed,
    StillClosing,
}

enum Entered<S> {
    New(Registered<S>),
    Taken(Arc<Entry<S>>),
}

impl<S: Retire> Registry<S> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the open store of a folder, or opens one with `start`.
    pub(super) fn open(
        &self,
        dir: &Path,
        start: impl FnOnce(Registered<S>) -> Result<Arc<S>>,
    ) -> Result<Arc<S>> {
        self.open_within(dir, CLOSE_TIMEOUT, start)
    }

    /// Prevents other opens of a folder in this process. `None` if a store is open, opening or closing there.
    pub(super) fn reserve(&self, dir: &Path) -> Result<Option<Registered<S>>> {
        Ok(match self.enter(dir)? {
            Entered::New(registered) => Some(registered),
            Entered::Taken(_) => None,
        })
    }

    fn open_within(
        &self,
        dir: &Path,
        timeout: Duration,
        start: impl FnOnce(Registered<S>) -> Result<Arc<S>>,
    ) -> Result<Arc<S>> {
        let deadline = Instant::now() + timeout;
        let registered = loop {
            let entry = match self.enter(dir)? {
                Entered::New(registered) => break registered,
                Entered::Taken(entry) => entry,
            };
            match await_previous(&entry, deadline) {
                PreviousStore::Store(store) => return Ok(store),
                PreviousStore::Changed => {}
                PreviousStore::StillClosing => return Err(still_closing(dir)),
            }
        };
        // Other threads that open the folder wait for the end of `Opening`. If `start` fails, `registered` ends it.
        let entry = Arc::clone(&registered.entry);
        let store = start(registered)?;
        entry.set(State::Open(Arc::downgrade(&store)));
        Ok(store)
    }

    /// Adds an entry for the folder. Another entry with the same folder or the same path prevents that.
    fn enter(&self, dir: &Path) -> Result<Entered<S>> {
        let identity = identity(dir)?;
        let mut entries = self.0.lock();
        entries.retain(|entry| !matches!(*entry.state.lock(), State::Gone));
        if let Some(entry) = entries.iter().find(|entry| entry.identity == identity || entry.dir == dir) {
            return Ok(Entered::Taken(Arc::clone(entry)));
        }
        let entry = Arc::new(Entry {
            identity,
            dir: dir.to_path_buf(),
            state: Mutex::new(State::Opening),
            changed: Condvar::new(),
        });
        entries.push(Arc::clone(&entry));
        Ok(Entered::New(Registered { entry }))
    }
}

fn await_previous<S: Retire>(entry: &Entry<S>, deadline: Instant) -> PreviousStore<S> {
    let mut state = entry.state.lock();
    let store = match &*state {
        State::Gone => return PreviousStore::Changed,
        State::Opening => {
            // Without a timeout: otherwise this call would have to open the store itself.
            entry.changed.wait(&mut state);
            return PreviousStore::Changed;
        }
        State::Open(store) => store.upgrade(),
    };
    let Some(store) = store else {
        let is_late = entry.changed.wait_until(&mut state, deadline).timed_out();
        return if is_late && !matches!(*state, State::Gone) {
            PreviousStore::StillClosing
        } else {
            PreviousStore::Changed
        };
    };
    // Dropping the last reference to the store takes this lock.
    drop(state);
    if store.is_current() {
        return PreviousStore::Store(store);
    }
    if !store.retire(deadline) {
        return PreviousStore::StillClosing;
    }
    entry.set(State::Gone);
    PreviousStore::Changed
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::SessionStore;
    use crate::store::file::start::OPEN;
    use crate::store::file::{FileOptions, FileStore, names};

    const NOT_AT_ALL: Duration = Duration::ZERO;

    fn start(dir: &Path) -> impl FnOnce(Registered<FileStore>) -> Result<Arc<FileStore>> {
        let options = FileOptions { path: dir.into(), sweep_interval: Some(0), ..FileOptions::default() };
        let dir = dir.to_path_buf();
        move |registered| FileStore::start(&dir, &options, Arc::new(SystemClock), registered)
    }

    fn new_dir() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap();
        (root, dir)
    }

    fn new_entry(dir: &Path) -> Registered<FileStore> {
        match OPEN.enter(dir).unwrap() {
            Entered::New(registered) => registered,
            Entered::Taken(_) => panic!("it is taken"),
        }
    }

    fn code(opened: Result<Arc<FileStore>>) -> &'static str {
        opened.err().map_or("opened", |error| error.code())
    }

    #[test]
    fn an_opener_waits_for_the_previous_store_until_a_timeout() {
        let (_root, dir) = new_dir();
        let closing = new_entry(&dir);
        closing.entry.set(State::Open(Weak::new()));
        assert_eq!(code(OPEN.open_within(&dir, NOT_AT_ALL, start(&dir))), "ERR_STORE_LOCKED");

        thread::scope(|scope| {
            let opening = scope.spawn(|| OPEN.open_within(&dir, Duration::from_secs(60), start(&dir)));
            drop(closing);
            assert_eq!(code(opening.join().unwrap()), "opened");
        });
        assert_eq!(code(OPEN.open_within(&dir, NOT_AT_ALL, start(&dir))), "opened");
    }

    #[cfg(unix)]
    #[test]
    fn a_store_with_removed_files_blocks_its_path_while_a_call_reads_them() {
        let (_root, dir) = new_dir();
        let former = OPEN.open_within(&dir, NOT_AT_ALL, start(&dir)).unwrap();
        let view = former.environment().read().unwrap();
        std::fs::remove_file(dir.join(names::DATA)).unwrap();
        std::fs::remove_file(dir.join(names::LOCK)).unwrap();
        for _ in 0..2 {
            let error = OPEN.open_within(&dir, NOT_AT_ALL, start(&dir)).err().unwrap();
            assert_eq!(error.code(), "ERR_STORE_LOCKED");
            assert!(error.to_string().contains("still being closed"), "{error}");
        }
        drop(view);
        let store = OPEN.open_within(&dir, NOT_AT_ALL, start(&dir)).unwrap();
        assert_eq!(former.size().unwrap_err().code(), "ERR_STORE_IO");
        drop(former);
        assert_eq!(store.size().unwrap(), 0);
        assert!(Arc::ptr_eq(&store, &OPEN.open_within(&dir, NOT_AT_ALL, start(&dir)).unwrap()));
    }
}
