//! The queue of pending writes, and the reads that wait for them.
//!
//! **Invariants**
//! - Writes are numbered in queue order and end in that order. Writes whose deadline has passed may end earlier.
//! - A waiting read starts when every write up to its number has left the queue and the writer.
//! - A call ends once. The thread that removes it under the lock has to report its result.
//! - Writes use at most [`MAX_BYTES`], except for a single larger write. At most [`MAX_READERS`] reads wait, in addition
//!   to the calls that wait on threads of their own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::apply::Write;
use super::pending::{Pending, Scope};
use crate::error::{Outcome, Result, StoreError};
use crate::session::SessionId;
use crate::store::Completions;

/// The maximum number of bytes of queued writes. If the disk is too slow, further writes are rejected.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The maximum number of waiting reads. Each takes about [`JOB_BYTES`].
const MAX_READERS: usize = MAX_BYTES / JOB_BYTES;

/// The bytes of a queued write without its session: the job, its entry in `Pending`, and the promise in JavaScript.
const JOB_BYTES: usize = 1024;

/// The maximum number of writes in one transaction. A changed page takes the disk about as long with one session as
/// with several, so large batches write fewer pages. But all calls of a batch wait for its end, and so do other
/// processes.
const MAX_BATCH_WRITES: usize = 4096;

/// The maximum number of bytes that one transaction adds, except for a single larger write. The changed pages stay in
/// memory until the commit.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// Receives the result of a call.
#[derive(Clone)]
pub(super) enum Waiter {
    Thread(mpsc::SyncSender<Result<u64>>),
    Ticket { to: Arc<dyn Completions>, ticket: u32 },
}

struct Call {
    waiter: Waiter,
    deadline: Instant,
}

struct Job {
    number: u64,
    write: Write,
    scope: Scope,
    call: Call,
}

impl Job {
    fn bytes(&self) -> usize {
        JOB_BYTES + self.write.growth()
    }
}

/// A call that waits for a write. It then reads a session, if it has one.
pub(super) struct Reader {
    /// The number of the last write that it waits for.
    pub after: u64,
    pub session: Option<SessionId>,
    pub waiter: Waiter,
    pub deadline: Instant,
}

/// The writes of one transaction.
pub(super) struct Batch {
    jobs: Vec<(Write, Scope)>,
    bytes: usize,
}

impl Batch {
    pub(super) fn writes(&self) -> Vec<&Write> {
        self.jobs.iter().map(|(write, _)| write).collect()
    }
}

/// The results of ended calls, and the reads that can start now.
#[derive(Default)]
pub(super) struct EndedCalls {
    pub results: Vec<(Waiter, Result<u64>)>,
    pub readers: Vec<Reader>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    pub pending: Pending,
    /// The maximum duration of a call.
    timeout: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// The calls of the writes that the writer has taken. `None` after the result of a call was reported.
    batch: Vec<Option<Call>>,
    /// The number of the first of these writes.
    batch_start: u64,
    readers: Vec<Reader>,
    /// The number of the next write.
    next: u64,
    /// The bytes of all writes that are queued or that the writer has taken.
    bytes: usize,
    /// Whether the writer should start. Writes that JavaScript queues in one turn wait for the end of that turn.
    awake: bool,
    closing: bool,
}

impl State {
    /// The number of the oldest pending write.
    fn oldest(&self) -> u64 {
        if !self.batch.is_empty() {
            return self.batch_start;
        }
        self.jobs.front().map_or(self.next, |job| job.number)
    }

    fn take_ready(&mut self) -> Vec<Reader> {
        let oldest = self.oldest();
        self.take_readers(|reader| reader.after < oldest)
    }

    fn take_readers(&mut self, mut is_taken: impl FnMut(&Reader) -> bool) -> Vec<Reader> {
        self.readers.extract_if(.., |reader| is_taken(reader)).collect()
    }

    /// Reserves bytes for a write.
    fn admit(&mut self, bytes: usize) -> Result<()> {
        if self.bytes > 0 && self.bytes + bytes > MAX_BYTES {
            let waiting = self.bytes >> 20;
            return Err(StoreError::Busy(format!("writes of {waiting} MiB wait for the disk").into()));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Adds a waiting read. It brings no session, so the bytes of the writes do not matter.
    fn admit_reader(&mut self, reader: Reader) -> Result<()> {
        // Threads are few. And `close` must wait for the writes of any queue.
        let is_limited = matches!(reader.waiter, Waiter::Ticket { .. });
        if is_limited && self.readers.len() >= MAX_READERS {
            return Err(StoreError::Busy(format!("{MAX_READERS} reads wait for the disk").into()));
        }
        self.readers.push(reader);
        Ok(())
    }
}

impl Queue {
    pub(super) fn new(timeout: Duration, pending: Pending) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), pending, timeout }
    }

    /// The deadline of a call that starts now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Queues a write. It starts after `wake`.
    ///
    /// # Errors
    /// `Busy` if too many bytes are queued.
    pub(super) fn push(&self, write: Write, waiter: Waiter) -> Result<()> {
        let scope = write.scope(&self.pending);
        self.pending.begin(scope.clone(), || {
            let mut state = self.state.lock();
            let number = state.next;
            let job = Job { number, write, scope, call: Call { waiter, deadline: self.deadline() } };
            state.admit(job.bytes())?;
            state.next += 1;
            state.jobs.push_back(job);
            Ok(number)
        })
    }

    /// The bytes of all queued and running writes.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Wakes the writer to take the queued writes.
    pub(super) fn wake(&self) {
        self.state.lock().awake = true;
        self.wake.notify_one();
    }

    /// The number of the last pending write. `None` if all have ended.
    pub(super) fn last(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.oldest() < state.next).then(|| state.next - 1)
    }

    /// Queues a read that waits for a write. Returns the reader if that write has already ended.
    ///
    /// # Errors
    /// `Busy` if too many reads wait. Never for a waiting thread.
    pub(super) fn wait(&self, reader: Reader) -> Result<Option<Reader>> {
        let mut state = self.state.lock();
        if reader.after < state.oldest() {
            return Ok(Some(reader));
        }
        state.admit_reader(reader).map(|()| None)
    }

    /// Stops the writer after it has written everything.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Waits for writes and returns the next batch. `None` if the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        while !state.closing && (!state.awake || state.jobs.is_empty()) {
            self.wake.wait(&mut state);
        }
        let mut adds = 0;
        let fits = |job: &&Job| {
            adds += job.write.growth();
            adds <= MAX_BATCH_BYTES
        };
        let count =
            state.jobs.iter().take(MAX_BATCH_WRITES).take_while(fits).count().max(1).min(state.jobs.len());
        let taken: Vec<Job> = state.jobs.drain(..count).collect();
        state.awake = !state.jobs.is_empty();
        state.batch_start = taken.first()?.number;
        let mut batch = Batch { jobs: Vec::with_capacity(count), bytes: 0 };
        for job in taken {
            batch.bytes += job.bytes();
            batch.jobs.push((job.write, job.scope));
            state.batch.push(Some(job.call));
        }
        Some(batch)
    }

    /// Ends a batch with the results of its writes.
    pub(super) fn finish(&self, batch: &Batch, outcomes: Vec<Result<u64>>) -> EndedCalls {
        let (calls, readers) = {
            let mut state = self.state.lock();
            state.bytes -= batch.bytes;
            (std::mem::take(&mut state.batch), state.take_ready())
        };
        self.pending.end(batch.jobs.iter().map(|(_, scope)| scope));
        let results =
            calls.into_iter().zip(outcomes).filter_map(|(call, outcome)| Some((call?.waiter, outcome)));
        EndedCalls { results: results.collect(), readers }
    }

    /// Ends the calls whose deadline has passed. Writes that the writer has not taken are dropped.
    pub(super) fn expire(&self, now: Instant) -> EndedCalls {
        let mut ended = EndedCalls::default();
        let mut scopes = Vec::new();
        let mut state = self.state.lock();
        let late = state.jobs.iter().take_while(|job| job.call.deadline <= now).count();
        for job in state.jobs.drain(..late).collect::<Vec<_>>() {
            state.bytes -= job.bytes();
            ended.results.push((job.call.waiter, Err(self.late(Outcome::NotDone))));
            scopes.push(job.scope);
        }
        for call in &mut state.batch {
            if let Some(call) = call.take_if(|call| call.deadline <= now) {
                ended.results.push((call.waiter, Err(self.late(Outcome::Unknown))));
            }
        }
        let late = state.take_readers(|reader| reader.deadline <= now);
        ended
            .results
            .extend(late.into_iter().map(|reader| (reader.waiter, Err(self.late(Outcome::NotDone)))));
        ended.readers = state.take_ready();
        drop(state);
        self.pending.end(&scopes);
        ended
    }

    /// The earliest deadline of all calls.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        let in_batch = state.batch.iter().flatten().map(|call| call.deadline);
        let reading = state.readers.iter().map(|reader| reader.deadline);
        // Queued jobs are ordered by deadline.
        in_batch.chain(reading).chain(state.jobs.front().map(|job| job.call.deadline)).min()
    }

    /// The error for a call whose deadline has passed.
    pub(super) fn late(&self, outcome: Outcome) -> StoreError {
        let waited_for = "the disk, or another process that has the store open,";
        StoreError::Timeout { waited_for, millis: self.timeout.as_millis() as u64, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delete(name: &str) -> Write {
        Write::Delete { id: SessionId::new(name).unwrap() }
    }

    fn waiter() -> (Waiter, mpsc::Receiver<Result<u64>>) {
        let (sender, receiver) = mpsc::sync_channel(1);
        (Waiter::Thread(sender), receiver)
    }

    fn push(queue: &Queue, name: &str) {
        queue.push(delete(name), waiter().0).unwrap();
    }

    fn wait(queue: &Queue, after: u64, deadline: Instant) -> bool {
        queue.wait(Reader { after, session: None, waiter: waiter().0, deadline }).unwrap().is_none()
    }

    fn outcomes(ended: &EndedCalls) -> Vec<Option<bool>> {
        let is_unknown = |(_, result): &(Waiter, Result<u64>)| match result {
            Ok(_) => None,
            Err(error) => Some(error.is_outcome_unknown()),
        };
        ended.results.iter().map(is_unknown).collect()
    }

    #[test]
    fn a_waiting_read_starts_when_its_write_times_out() {
        let queue = Queue::new(SECOND, Pending::default());
        push(&queue, "a");
        let number = queue.last().unwrap();
        // This read started later than the write.
        assert!(wait(&queue, number, Instant::now() + 10 * SECOND));
        let ended = queue.expire(Instant::now() + 2 * SECOND);
        assert_eq!((outcomes(&ended), ended.readers.len()), (vec![Some(false)], 1));
        assert!(queue.last().is_none() && !wait(&queue, number, Instant::now()));
    }

    #[test]
    fn a_timed_out_call_uses_no_bytes_and_is_not_pending() {
        let queue = Queue::new(SECOND, Pending::default());
        for name in 0..100 {
            push(&queue, &name.to_string());
        }
        assert_eq!(queue.state.lock().bytes, 100 * JOB_BYTES);
        assert!(wait(&queue, queue.last().unwrap(), Instant::now() + SECOND));
        assert_eq!(queue.expire(Instant::now() + 2 * SECOND).results.len(), 101);
        assert_eq!(queue.state.lock().bytes, 0);
        assert_eq!(queue.pending.last_write_of_session(&SessionId::new("7").unwrap()), None);
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn a_timed_out_write_in_progress_has_an_unknown_outcome_and_one_result() {
        let queue = Queue::new(SECOND, Pending::default());
        push(&queue, "a");
        queue.wake();
        let batch = queue.take().unwrap();
        push(&queue, "b");
        let number = queue.last().unwrap();
        let ended = queue.expire(Instant::now() + 2 * SECOND);
        assert_eq!(outcomes(&ended), [Some(false), Some(true)]);
        // For reads of its session, the write is still pending.
        assert!(queue.pending.last_write_of_session(&SessionId::new("a").unwrap()).is_some());
        assert!(wait(&queue, number, Instant::now() + 10 * SECOND));
        let ended = queue.finish(&batch, vec![Ok(1)]);
        assert_eq!((ended.results.len(), ended.readers.len()), (0, 1));
        assert_eq!((queue.last(), queue.state.lock().bytes), (None, 0));
    }

    #[test]
    fn waiting_reads_are_bounded_but_not_waiting_threads() {
        struct Ignored;
        impl Completions for Ignored {
            fn complete(&self, _: Vec<(u32, Result<crate::store::Answer>)>) {}
        }
        let queue = Queue::new(SECOND, Pending::default());
        push(&queue, "a");
        let number = queue.last().unwrap();
        let to: Arc<dyn Completions> = Arc::new(Ignored);
        let read = || {
            let waiter = Waiter::Ticket { to: Arc::clone(&to), ticket: 0 };
            let deadline = Instant::now() + SECOND;
            queue.wait(Reader { after: number, session: None, waiter, deadline }).map(|ready| ready.is_none())
        };
        let waiting = (0..2 * MAX_READERS).take_while(|_| read() == Ok(true)).count();
        assert_eq!(waiting, MAX_READERS);
        assert_eq!(read().unwrap_err().code(), "ERR_STORE_BUSY");
        assert!(wait(&queue, number, Instant::now() + SECOND));
        // Reads do not count against the writes.
        push(&queue, "b");
        assert_eq!(queue.expire(Instant::now() + 2 * SECOND).results.len(), MAX_READERS + 3);
        assert_eq!(read(), Ok(false));
    }

    #[test]
    fn a_call_before_its_deadline_stays_queued() {
        let queue = Queue::new(SECOND, Pending::default());
        push(&queue, "a");
        let ended = queue.expire(Instant::now());
        assert!(ended.results.is_empty() && ended.readers.is_empty());
        assert!(queue.next_deadline().unwrap() <= Instant::now() + SECOND);
    }
}
