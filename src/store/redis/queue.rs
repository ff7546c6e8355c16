//! What other threads hand to the worker, and what it hands back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::RawConnection;
use super::routing::NodeId;
use super::session::{Cipher, Op};
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry};
use crate::store::{Answer, Completions};

/// The most calls that may be under way: without a server they wait, and are not to take all of the memory.
pub const MAX_CALLS: usize = 1 << 17;

/// The most bytes of calls that may wait, on one fast path and in one worker. A call that is alone may have more.
pub const MAX_QUEUED_BYTES: usize = 32 << 20;

/// The error for a call that would exceed it.
pub fn too_much_queued() -> StoreError {
    StoreError::Busy(format!("calls of {} MiB wait for Redis", MAX_QUEUED_BYTES >> 20).into())
}

/// A connection that is logged in, for the event loop of a JavaScript thread.
pub struct EventLoopConnection {
    pub(super) node: NodeId,
    pub(super) connection: RawConnection,
    pub(super) cipher: Arc<Cipher>,
    /// Where there is a cache: whether the server tells of changes, or why it does not.
    pub(super) tracking: Option<std::result::Result<(), String>>,
}

/// Which servers have which slots: the first and the last of each range.
pub type SlotRanges = Arc<[(u16, u16, NodeId)]>;

/// What a fast path is given by the worker.
pub enum Supply {
    Connection(EventLoopConnection),
    Slots(SlotRanges),
}

/// Receives the results of calls, and what a fast path asked for.
pub trait Answers: Completions {
    /// The fast path of its thread has this now.
    fn supply(&self, supply: Supply) {
        drop(supply);
    }
}

/// Receives the results of the calls of a fast path, by their tickets.
pub trait Results {
    fn number(&mut self, ticket: u32, number: u64);
    /// Of a `get`.
    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>);
    fn refused(&mut self, ticket: u32, error: &StoreError);
}

pub enum Waiter {
    Thread(mpsc::SyncSender<Result<Answer>>),
    Ticket { to: Arc<dyn Answers>, ticket: u32 },
    Nobody,
}

pub struct Job {
    pub op: Op,
    pub waiter: Waiter,
    pub deadline: Instant,
    /// Whether a server may have carried it out already: what it does may be done twice then.
    pub is_unknown: bool,
}

#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Vec<Job>>,
    pub wake: Notify,
    is_closed: AtomicBool,
    pub fast_path: FastPathRequest,
}

/// What a fast path asks of the worker.
#[derive(Default)]
pub struct FastPathRequest {
    wants: Mutex<Wants>,
    pub wake: Notify,
    is_busy: Mutex<bool>,
    is_idle: Condvar,
}

#[derive(Default)]
struct Wants {
    /// Who is to have connections.
    by: Option<Arc<dyn Answers>>,
    /// The servers to which it has lost them.
    lost: Vec<NodeId>,
}

impl FastPathRequest {
    /// Has connections made for a fast path, or for none.
    pub fn want(&self, by: Option<Arc<dyn Answers>>) {
        *self.wants.lock() = Wants { by, lost: Vec::new() };
        self.wake.notify_one();
    }

    /// Has another connection made to a server.
    pub fn lost(&self, node: NodeId) {
        self.wants.lock().lost.push(node);
        self.wake.notify_one();
    }

    /// Who wants connections, and the servers to which they were lost since the last time.
    pub fn take(&self) -> (Option<Arc<dyn Answers>>, Vec<NodeId>) {
        let mut wants = self.wants.lock();
        (wants.by.clone(), std::mem::take(&mut wants.lost))
    }

    /// Sets whether calls are under way on a fast path that takes no more.
    pub fn set_busy(&self, is_busy: bool) {
        *self.is_busy.lock() = is_busy;
        self.is_idle.notify_all();
    }

    /// Waits for the end of those calls, for so long at most.
    pub fn wait_until_idle(&self, timeout: Duration) {
        self.is_idle.wait_while_for(&mut self.is_busy.lock(), |is_busy| *is_busy, timeout);
    }
}

impl Queue {
    /// Queues a call; `wake` begins it.
    pub fn push(&self, op: Op, waiter: Waiter, timeout: Duration) {
        self.push_jobs([Job { op, waiter, deadline: Instant::now() + timeout, is_unknown: false }]);
    }

    pub fn push_jobs(&self, jobs: impl IntoIterator<Item = Job>) {
        self.jobs.lock().extend(jobs);
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the store once all calls have ended that were begun before.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.jobs.lock())
    }
}
