//! Session store in files. Sessions survive a restart, and several processes can share them.
//!
//! LMDB stores the sessions in a folder. All writes go through one thread, which commits them in batches (see
//! `writer`). Reads run on the calling thread. A read waits only for pending writes of the same session or user (see
//! `pending`). Opening a folder a second time in one process returns the open store.

mod apply;
mod backup;
mod calls;
mod commit;
mod counters;
mod direct;
mod discard;
mod due;
mod encryption;
mod environment;
mod errors;
mod estimate;
mod folder;
mod health;
mod held;
mod limits;
#[cfg(target_os = "linux")]
mod lock_wakeup;
mod map_size;
mod names;
mod network;
#[cfg(target_os = "linux")]
mod ofd_lock;
mod open;
mod options;
mod owner_lock;
mod pages;
mod pending;
mod private_files;
mod queue;
mod quota;
mod reads;
mod record;
mod redo;
mod registry;
mod rows;
mod secrets;
#[cfg(all(test, target_os = "linux"))]
mod sim;
#[cfg(target_os = "linux")]
mod stale_readers;
mod start;
mod sweep;
mod tables;
mod tickets;
mod times;
mod verify;
mod write_error;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use self::environment::Environment;
use self::queue::Queue;
use self::redo::engine::Redo;
use self::redo::syncer::Syncer;
use self::registry::{Registered, Retire};
use crate::clock::Clock;
use crate::error::{Outcome, Result, StoreError};
use crate::events::Bus;
use crate::executor::Executor;
use crate::lifetime::Lifetime;
use crate::store::LimitsDiffer;
use crate::sweeper::Sweeper;
use crate::sync::join;

pub use crate::keyring::Secret;
pub use discard::{DiscardedLog, LogDamage, LogState};
pub use options::{DEFAULT_COMMAND_TIMEOUT, Durability, FileOptions};
pub use quota::MIN_MAX_BYTES;
pub use tickets::MustWait;
pub use verify::Verification;

/// A store in a folder. Dropping the last handle writes the queued calls and closes the files.
pub struct FileStore {
    environment: Option<Arc<Environment>>,
    queue: Arc<Queue>,
    /// `None` during the drop.
    redo: Option<Arc<Redo>>,
    writer: Option<JoinHandle<()>>,
    /// The thread that drains the redo log. `None` if the store cannot have a log.
    keeper: Option<JoinHandle<()>>,
    /// The thread that syncs the redo log. `None` if each write is synced.
    syncer: Option<Syncer>,
    sweeper: OnceLock<Sweeper>,
    tasks: Executor,
    upkeep: Executor,
    probes: Executor,
    clock: Arc<dyn Clock>,
    handles: AtomicUsize,
    /// Whether the last handle was closed.
    is_closing: AtomicBool,
    options: FileOptions,
    limits_differ: Mutex<Option<LimitsDiffer>>,
    // Dropped after the files, because then the folder can be opened again.
    _registered: Registered<Self>,
    ended: ClosedSignal,
}

/// Dropped last. Its disconnected channels tell waiting `close` calls that the files are closed.
#[derive(Default)]
struct ClosedSignal(Mutex<Vec<mpsc::SyncSender<()>>>);

impl FileStore {
    fn environment(&self) -> &Arc<Environment> {
        // Only `drop` sets it to `None`.
        self.environment.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    fn redo(&self) -> &Redo {
        self.redo.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    /// The absolute path of the folder, without symbolic links.
    pub fn path(&self) -> &Path {
        self.environment().dir()
    }

    pub fn max_session_bytes(&self) -> usize {
        self.environment().limits.max_session_bytes
    }

    pub fn max_lifetime(&self) -> Lifetime {
        self.environment().limits.max_lifetime
    }

    /// The different limits of another process that opened the store first. Only the first call returns them.
    pub fn take_limits_differ(&self) -> Option<LimitsDiffer> {
        self.limits_differ.lock().take()
    }

    /// Runs the calls that read many sessions.
    pub fn tasks(&self) -> &Executor {
        &self.tasks
    }

    /// Runs the calls that read the whole file.
    pub fn upkeep(&self) -> &Executor {
        &self.upkeep
    }

    /// The events of the store.
    pub fn events(&self) -> &Bus {
        &self.environment().events
    }

    /// Runs probes.
    pub fn probes(&self) -> &Executor {
        &self.probes
    }

    /// The clock that decides which sessions are expired.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Adds a handle. [`FileStore::end_handle`] removes it.
    pub fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
        self.is_closing.store(false, Ordering::SeqCst);
    }

    /// Removes a handle. When the last one is removed, a running sweep stops early.
    pub fn end_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.is_closing.store(true, Ordering::SeqCst);
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Closes the store. After the last handle, waits until the files are closed. Running calls, such as a backup,
    /// finish first.
    ///
    /// # Errors
    /// `Timeout`.
    pub fn close(self: Arc<Self>) -> Result<()> {
        if self.handles.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let (sender, ended) = mpsc::sync_channel(0);
        self.ended.0.lock().push(sender);
        let timeout = self.command_timeout();
        drop(self);
        match ended.recv_timeout(timeout) {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(StoreError::Timeout {
                waited_for: "a call that is under way, such as a backup,",
                millis: timeout.as_millis() as u64,
                outcome: Outcome::NotDone,
            }),
            _ => Ok(()),
        }
    }
}

impl Retire for FileStore {
    fn is_current(&self) -> bool {
        self.environment().held.check().is_ok()
    }

    fn retire(&self, deadline: Instant) -> bool {
        self.environment().held.mark_lost();
        self.redo().abandon(deadline) && self.environment().retire(deadline)
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.queue.close();
        self.writer.take().into_iter().for_each(join);
        self.redo().stop();
        self.keeper.take().into_iter().for_each(join);
        self.tasks.close();
        self.upkeep.close();
        self.probes.close();
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.stop();
        }
        self.redo().close();
        // Not earlier: until the log is drained or synced, it may have writes without a sync.
        self.syncer.take().into_iter().for_each(Syncer::stop);
        self.redo = None;
        // Last: this closes the files. After that, another store may open them.
        self.environment = None;
    }
}
