//! A background thread that calls a function at an interval.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, join, lock, wait_until};

/// The default of `sweepInterval`, in milliseconds.
pub const DEFAULT_SWEEP_INTERVAL: u64 = 60_000;

/// The stack size. Small, because a sweep calls no app code.
const STACK_BYTES: usize = 128 * 1024;

/// A thread that calls a function at an interval, until the sweeper is dropped or the function breaks.
#[derive(Debug)]
pub struct Sweeper {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Sweeper {
    /// Starts a thread that calls `sweep` after each `interval`. A panic in `sweep` ends only that sweep.
    ///
    /// `sweep` should hold the store weakly, and break when it is gone. Otherwise the thread would keep the store
    /// alive.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread.
    pub fn start(
        interval: Duration,
        mut sweep: impl FnMut() -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let waiting = Arc::clone(&signal);
        let run = move || {
            while !waiting.stops_within(interval) {
                // If a sweep panics, the next one removes the rest.
                if let Ok(ControlFlow::Break(())) = catch_unwind(AssertUnwindSafe(&mut sweep)) {
                    return;
                }
            }
        };
        let thread =
            thread::Builder::new().name("session-sweeper".into()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Stops the thread and waits for its end, unless it is the calling thread.
    pub fn stop(mut self) {
        self.signal.stop();
        self.thread.take().into_iter().for_each(join);
    }
}

impl Drop for Sweeper {
    /// Does not wait for the thread, which ends after a running sweep.
    fn drop(&mut self) {
        self.signal.stop();
    }
}

impl Signal {
    fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }

    fn stops_within(&self, interval: Duration) -> bool {
        // An interval that overflows the clock never ends.
        let deadline = Instant::now().checked_add(interval);
        *wait_until(&self.changed, lock(&self.stopped), deadline, |stopped| *stopped)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_in_a_sweep_does_not_end_the_sweeper() {
        let (sweeps, swept) = mpsc::channel();
        let mut number = 0;
        let sweeper = Sweeper::start(Duration::from_millis(1), move || {
            number += 1;
            // Fails after the test has seen enough.
            let _ = sweeps.send(number);
            assert_ne!(number, 1, "the first sweep panics");
            ControlFlow::Continue(())
        });
        assert_eq!((swept.recv(), swept.recv(), swept.recv()), (Ok(1), Ok(2), Ok(3)));
        sweeper.unwrap().stop();
    }

    #[test]
    fn a_sweep_that_breaks_ends_the_thread() {
        let (sweeps, swept) = mpsc::channel();
        let sweeper = Sweeper::start(Duration::from_millis(1), move || {
            let _ = sweeps.send(());
            ControlFlow::Break(())
        });
        // The second call waits for the end of the thread, which drops the sender.
        assert_eq!((swept.recv(), swept.recv()), (Ok(()), Err(mpsc::RecvError)));
        sweeper.unwrap().stop();
    }
}
