//! Sessions in a file: they outlive the process, and several processes share them.
//!
//! LMDB keeps them, in a folder of their own. Writes go to one thread, which makes transactions of them (see `writer`).
//! A read is made on the calling thread, at once, unless a write of the same session is under way (see `pending`). The
//! second opener of a folder in a process gets the store that is open already.

mod apply;
mod backup;
mod calls;
mod commit;
mod cost;
mod counters;
mod direct;
mod directory;
mod discard;
mod encryption;
mod environment;
mod errors;
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
mod reads;
mod record;
mod redo;
mod registry;
mod room;
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
pub use room::MIN_MAX_BYTES;
pub use tickets::MustWait;
pub use verify::Verification;

/// A store in a folder. Dropping the last handle writes what is queued and closes the files.
pub struct FileStore {
    environment: Option<Arc<Environment>>,
    queue: Arc<Queue>,
    /// `None` once the store is dropped.
    redo: Option<Arc<Redo>>,
    writer: Option<JoinHandle<()>>,
    /// The thread that looks after the log, where there can be one.
    keeper: Option<JoinHandle<()>>,
    sweeper: OnceLock<Sweeper>,
    tasks: Executor,
    upkeep: Executor,
    probes: Executor,
    clock: Arc<dyn Clock>,
    handles: AtomicUsize,
    /// Whether the last handle has ended.
    is_closing: AtomicBool,
    options: FileOptions,
    limits_differ: Mutex<Option<LimitsDiffer>>,
    // After the files, as its end lets others open the folder again.
    _registered: Registered<Self>,
    ended: Ended,
}

/// Ends last. Then those that hold a receiver of its channels know that the files are closed.
#[derive(Default)]
struct Ended(Mutex<Vec<mpsc::SyncSender<()>>>);

impl FileStore {
    fn environment(&self) -> &Arc<Environment> {
        // It is taken when the store is dropped, and not before.
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

    /// The limits of another process that had the store open before with other limits. They are given once.
    pub fn take_limits_differ(&self) -> Option<LimitsDiffer> {
        self.limits_differ.lock().take()
    }

    /// Where calls that look at many sessions run.
    pub fn tasks(&self) -> &Executor {
        &self.tasks
    }

    /// Where calls that read the whole file run.
    pub fn upkeep(&self) -> &Executor {
        &self.upkeep
    }

    /// Where it publishes what happens.
    pub fn events(&self) -> &Bus {
        &self.environment().events
    }

    /// Where probes run.
    pub fn probes(&self) -> &Executor {
        &self.probes
    }

    /// The clock that says which sessions are expired.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Counts one more user of the store, who ends with [`FileStore::end_handle`].
    pub fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
        self.is_closing.store(false, Ordering::SeqCst);
    }

    /// Counts one user less. A sweep under way ends early after the last of them.
    pub fn end_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.is_closing.store(true, Ordering::SeqCst);
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Closes the store. If this was the last handle, waits until the files are closed. Calls under way, such as a backup,
    /// end first.
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
        self.environment().held.lose();
        self.redo().give_up(deadline) && self.environment().retire(deadline)
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
        self.redo = None;
        // The last of it: this closes the files, before another may open them.
        self.environment = None;
    }
}
