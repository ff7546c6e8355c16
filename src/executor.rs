//! A bounded thread pool for calls that read many sessions.
//!
//! **Invariants**
//! - There are never more than `max` threads. A thread without work ends after [`IDLE`].
//! - Jobs start in the order in which they were submitted.
//! - A panic ends only its job. The thread continues.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Result, StoreError};
use crate::sync::join;

/// How long an idle thread waits for a job before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// Receives `Ok`, or `Busy` if there is no thread for it.
type Job = Box<dyn FnOnce(Result<()>) + Send>;

/// Runs jobs on at most `max` threads, which it starts on demand.
pub struct Executor {
    shared: Arc<Shared>,
    max: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that accept jobs.
    live: usize,
    /// The live threads that wait for a job.
    idle: usize,
    /// All threads that were not joined yet. LMDB clears a thread's slot in its reader table when the thread ends, so
    /// the file must not be closed before.
    threads: Vec<JoinHandle<()>>,
    closing: bool,
}

impl Executor {
    pub fn new(max: usize) -> Self {
        Self { shared: Arc::default(), max }
    }

    /// Runs a job on one of the threads.
    ///
    /// If there is no thread and the system refuses to start one, the job runs synchronously on the calling thread,
    /// with `Busy`. Then it must only report that error.
    pub fn submit(&self, job: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.shared.state.lock();
        if let Err(error) = self.start_thread(&mut state) {
            drop(state);
            return job(Err(StoreError::Busy(format!("the system refused a thread ({error})").into())));
        }
        state.jobs.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Starts a thread for another job, unless there are enough.
    fn start_thread(&self, state: &mut State) -> io::Result<()> {
        state.threads.extract_if(.., |thread| thread.is_finished()).for_each(join);
        // Each idle thread will take one of the queued jobs.
        if state.idle > state.jobs.len() || state.live >= self.max {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().name("session-store-task".into()).spawn(move || shared.run()) {
            Ok(thread) => {
                state.threads.push(thread);
                state.live += 1;
                Ok(())
            }
            // The live threads will take the job.
            Err(_) if state.live > 0 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs the queued jobs, and then ends and joins the threads.
    pub fn close(&self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.wake.notify_all();
        threads.into_iter().for_each(join);
    }
}

impl Drop for Executor {
    /// Ends the threads without waiting for them.
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(job) = self.next() {
            // A job reports its own result.
            let _ = catch_unwind(AssertUnwindSafe(|| job(Ok(()))));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closing {
                return None;
            }
            state.idle += 1;
            let timed_out = self.wake.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.live -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn many_jobs_share_a_few_threads() {
        let executor = Executor::new(2);
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sender, receiver) = mpsc::channel();
        for number in 0..1000 {
            let (running, peak, sender) = (Arc::clone(&running), Arc::clone(&peak), sender.clone());
            executor.submit(move |_| {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                sender.send(number).unwrap();
            });
        }
        let mut done: Vec<_> = receiver.iter().take(1000).collect();
        done.sort_unstable();
        assert!(done.into_iter().eq(0..1000));
        assert!(peak.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_panic_ends_only_its_job() {
        let executor = Executor::new(1);
        executor.submit(|_| panic!("a job's"));
        let (sender, receiver) = mpsc::channel();
        executor.submit(move |_| sender.send(()).unwrap());
        receiver.recv().unwrap();
    }

    #[test]
    fn close_waits_for_submitted_jobs() {
        let executor = Executor::new(1);
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let ran = Arc::clone(&ran);
            executor.submit(move |_| _ = ran.fetch_add(1, Ordering::SeqCst));
        }
        executor.close();
        assert_eq!(ran.load(Ordering::SeqCst), 100);
    }
}
