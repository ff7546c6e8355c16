//! The thread that syncs the log once a second, for `durability: "everysec"`.
//!
//! It is not the keeper, because a drain may wait for the disk for a long time. It waits only for another sync: it takes
//! no lock that a drain or a commit holds.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::engine::Redo;
use super::ring::Ring;
use crate::sync::join;

/// The maximum age of an acknowledged batch when its sync starts.
pub(in crate::store::file) const INTERVAL: Duration = Duration::from_secs(1);

/// The running thread. It ends after this is dropped.
pub(in crate::store::file) struct Syncer {
    running: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Syncer {
    /// Starts the thread.
    pub(in crate::store::file) fn start(redo: &Arc<Redo>) -> io::Result<Self> {
        let redo = Arc::clone(redo);
        let (running, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("session-log-sync".into()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                // After a panic, later batches still need their sync.
                let _ = catch_unwind(AssertUnwindSafe(|| redo.sync_log()));
            }
        })?;
        Ok(Self { running, thread })
    }

    /// Stops the thread and waits for its end.
    pub(in crate::store::file) fn stop(self) {
        drop(self.running);
        join(self.thread);
    }
}

impl Redo {
    /// Syncs the log if it has batches without a sync.
    pub(in crate::store::file) fn sync_log(&self) {
        let is_due = |ring: &Arc<Ring>| !ring.has_failed() && ring.durable() < ring.written();
        if let Some(ring) = self.ring().filter(is_due)
            && ring.sync().is_err()
        {
            // The keeper ends the failed log now, because there may never be another write.
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests;
