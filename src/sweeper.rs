//! Removes expired sessions in the background, on a thread of its own.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::store::SessionStore;

/// The default of `sweepInterval`, in milliseconds.
pub const DEFAULT_SWEEP_INTERVAL: u64 = 60_000;

/// A thread that calls [`SessionStore::clean`] every so often, until this is dropped or the store is gone.
#[derive(Debug)]
pub struct Sweeper {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signal {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Sweeper {
    /// Starts the thread. It holds the store only while it sweeps, so that it does not keep it alive.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start<S: SessionStore + 'static>(store: &Arc<S>, interval: Duration) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let (store, waiting) = (Arc::downgrade(store), Arc::clone(&signal));
        let thread = thread::Builder::new()
            .name("session-sweeper".into())
            .stack_size(128 * 1024)
            .spawn(move || run(&store, &waiting, interval))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Stops it, and waits for the end of its thread, unless it is this one.
    pub fn stop(mut self) {
        self.signal.stop();
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // If it panicked, it has ended all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Sweeper {
    /// Does not wait for the thread: a sweep under way ends on its own.
    fn drop(&mut self) {
        self.signal.stop();
    }
}

fn run<S: SessionStore>(store: &Weak<S>, signal: &Signal, interval: Duration) {
    while !signal.stops_within(interval) {
        let Some(store) = store.upgrade() else { return };
        // A failed sweep leaves only garbage behind, which the next one removes.
        let _ = store.clean();
    }
}

impl Signal {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn stops_within(&self, interval: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(stopped, interval, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
