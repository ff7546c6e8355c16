//! The thread that writes: it takes what is queued, makes one transaction of it, and says when that is on disk.
//!
//! An fsync costs about the same for one write as for a hundred, so that writes which wait for one share the next.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::{Condvar, Mutex};

use super::apply::{SWEEP_STEP, Write};
use super::environment::Environment;
use crate::error::{Result, StoreError};

/// The most writes of one transaction. The disk takes about as long for each page that they change, whether it holds
/// one of their sessions or several: the more at once the fewer pages. But all wait for the last, and so do those of
/// other processes.
const BATCH: usize = 4096;

/// The most bytes that they may add, unless one alone adds more: the pages are in memory until they are committed.
const BATCH_BYTES: usize = 16 << 20;

/// The most sessions that a write ends in one transaction if there is no room for all.
const PART: usize = 128;

/// Is told what became of writes, by their tickets: the number of a write, or why it was refused.
pub trait Completions: Send + Sync {
    fn complete(&self, done: Vec<(u32, Result<u64>)>);
}

/// Who waits for a write.
pub(super) enum Waiter {
    Thread(mpsc::SyncSender<Result<u64>>),
    Ticket { to: Arc<dyn Completions>, ticket: u32 },
}

struct Job {
    write: Write,
    waiter: Waiter,
}

/// The writes that wait for the thread.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// Of ids, for `creating`.
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Whether the thread should begin. What JavaScript queues in one turn waits for the end of that turn.
    awake: bool,
    closing: bool,
    /// The creations that are not done yet, by the hashes of their ids.
    creating: HashMap<u64, u32>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), hasher: RandomState::new() }
    }

    /// Queues a write; `kick` begins it.
    pub(super) fn push(&self, write: Write, waiter: Waiter) {
        let mut state = self.state.lock();
        if let Some(hash) = self.hash_of_creation(&write) {
            *state.creating.entry(hash).or_default() += 1;
        }
        state.jobs.push_back(Job { write, waiter });
    }

    pub(super) fn kick(&self) {
        self.state.lock().awake = true;
        self.wake.notify_one();
    }

    /// Whether a session of this id may be about to be created.
    pub(super) fn may_create(&self, id: &[u8]) -> bool {
        let state = self.state.lock();
        !state.creating.is_empty() && state.creating.contains_key(&self.hasher.hash_one(id))
    }

    /// Lets the thread end once all is written.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// The next writes; none when the queue is closed.
    fn take(&self) -> Vec<Job> {
        let mut state = self.state.lock();
        while !state.closing && (!state.awake || state.jobs.is_empty()) {
            self.wake.wait(&mut state);
        }
        let mut bytes = 0;
        let fits = |job: &&Job| {
            bytes += job.write.growth();
            bytes <= BATCH_BYTES
        };
        let batch = state.jobs.iter().take(BATCH).take_while(fits).count().max(1).min(state.jobs.len());
        let jobs = state.jobs.drain(..batch).collect();
        state.awake = !state.jobs.is_empty();
        jobs
    }

    fn forget(&self, jobs: &[Job]) {
        let mut state = self.state.lock();
        for hash in jobs.iter().filter_map(|job| self.hash_of_creation(&job.write)) {
            if let Some(count) = state.creating.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    state.creating.remove(&hash);
                }
            }
        }
    }

    fn hash_of_creation(&self, write: &Write) -> Option<u64> {
        match write {
            Write::Create(record) => Some(self.hasher.hash_one(record.id.as_bytes())),
            _ => None,
        }
    }
}

/// The body of the thread.
pub(super) fn run(environment: &Environment, queue: &Queue) {
    loop {
        let jobs = queue.take();
        if jobs.is_empty() {
            return;
        }
        let writes: Vec<&Write> = jobs.iter().map(|job| &job.write).collect();
        let outcomes = write_all(environment, &writes);
        queue.forget(&jobs);
        settle(jobs, outcomes);
    }
}

/// Writes a batch. If it cannot be committed as a whole, its halves are tried: one write that finds no room must not
/// keep the others from making some.
fn write_all(environment: &Environment, writes: &[&Write]) -> Vec<Result<u64>> {
    if writes.iter().all(|write| matches!(write, Write::Nothing)) {
        // Others may hold the lock for a transaction.
        return writes.iter().map(|_| Ok(0)).collect();
    }
    match (environment.commit(writes), writes) {
        (Ok(outcomes), _) => outcomes,
        (Err(StoreError::Full(_)), [write]) if write.part(1).is_some() => {
            vec![write_in_parts(environment, write)]
        }
        (Err(error @ StoreError::Full(_)), [write]) if write.seals() => {
            vec![write_after_sweep(environment, write, error)]
        }
        (Err(error), [_]) => vec![Err(error)],
        (Err(_), _) => {
            let (first, second) = writes.split_at(writes.len() / 2);
            let mut outcomes = write_all(environment, first);
            outcomes.extend(write_all(environment, second));
            outcomes
        }
    }
}

/// Writes what found no room when that is made by what has expired, if anything has.
fn write_after_sweep(environment: &Environment, write: &Write, full: StoreError) -> Result<u64> {
    let now = environment.clock.now();
    let sweep = Write::Sweep { now, max: SWEEP_STEP };
    let mut found = false;
    while environment.is_due(now)? {
        write_all(environment, &[&sweep]).swap_remove(0)?;
        found = true;
    }
    if !found {
        return Err(full);
    }
    environment.commit(&[write])?.swap_remove(0)
}

/// Ends sessions where there is no room to end them all at once, as many in a transaction as there is room for: each
/// makes some for the next.
fn write_in_parts(environment: &Environment, write: &Write) -> Result<u64> {
    let mut most = PART;
    let mut ended = 0;
    loop {
        let part = write.part(most);
        match environment.commit(&[part.as_ref().unwrap_or(write)]) {
            Err(StoreError::Full(_)) if most > 1 => most /= 2,
            Err(error) => return Err(error),
            Ok(mut outcomes) => match outcomes.swap_remove(0)? {
                // The rest of a sweep is the next.
                more if matches!(write, Write::Sweep { .. }) => return Ok(more),
                0 if !environment.has_rest(write)? => return Ok(ended),
                more => ended += more,
            },
        }
    }
}

/// Whom to tell, and what.
type Told = Vec<(Arc<dyn Completions>, Vec<(u32, Result<u64>)>)>;

fn settle(jobs: Vec<Job>, outcomes: Vec<Result<u64>>) {
    let (mut told, mut threads) = (Told::new(), Vec::new());
    for (job, outcome) in jobs.into_iter().zip(outcomes) {
        match job.waiter {
            Waiter::Thread(sender) => threads.push((sender, outcome)),
            Waiter::Ticket { to, ticket } => match told.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &to))
            {
                Some((_, done)) => done.push((ticket, outcome)),
                None => told.push((to, vec![(ticket, outcome)])),
            },
        }
    }
    for (to, done) in told {
        to.complete(done);
    }
    // Last, as one of them may wait for the end of all.
    for (sender, outcome) in threads {
        // It fails where no one waits any more.
        let _ = sender.send(outcome);
    }
}

/// Of a write whose thread has gone.
pub(super) const GONE: StoreError = StoreError::Closed;
