//! The calls that other threads give to the worker, and the results that it returns.

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

/// The maximum number of pending calls. Without a server they pile up, and must not use up the memory.
pub const MAX_CALLS: usize = 1 << 17;

/// The maximum size of waiting calls, for each fast path and for each worker. A single call may be larger.
pub const MAX_QUEUED_BYTES: usize = 32 << 20;

/// The error for a call beyond `MAX_QUEUED_BYTES`.
pub fn too_much_queued() -> StoreError {
    StoreError::Busy(format!("calls of {} MiB wait for Redis", MAX_QUEUED_BYTES >> 20).into())
}

/// A connection after login, for the event loop of a JavaScript thread.
pub struct EventLoopConnection {
    pub(super) node: NodeId,
    pub(super) connection: RawConnection,
    pub(super) cipher: Arc<Cipher>,
    /// With a cache: whether the server sends invalidations, or why not.
    pub(super) tracking: Option<std::result::Result<(), String>>,
}

/// The owner of each range of slots, as the first slot, the last slot and the node.
pub type SlotRanges = Arc<[(u16, u16, NodeId)]>;

/// What the worker provides to a fast path.
pub enum Supply {
    Connection(EventLoopConnection),
    Slots(SlotRanges),
}

/// Receives the results of calls, and what the worker provides to the fast path.
pub trait Answers: Completions {
    /// Hands `supply` to the fast path of this thread.
    fn supply(&self, supply: Supply) {
        drop(supply);
    }
}

/// Receives the results of a fast path's calls, by ticket.
pub trait Results {
    fn number(&mut self, ticket: u32, number: u64);
    /// The result of a `get`.
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
    /// Whether a server may have carried out the call already. It may then be carried out twice.
    pub is_unknown: bool,
}

#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Vec<Job>>,
    pub wake: Notify,
    is_closed: AtomicBool,
    pub fast_path: FastPathRequest,
}

/// What a fast path requests from the worker.
#[derive(Default)]
pub struct FastPathRequest {
    requested: Mutex<Requested>,
    pub wake: Notify,
    is_busy: Mutex<bool>,
    is_idle: Condvar,
}

#[derive(Default)]
struct Requested {
    /// The fast path that wants connections.
    by: Option<Arc<dyn Answers>>,
    /// The servers to which it has lost its connection.
    lost: Vec<NodeId>,
}

impl FastPathRequest {
    /// Requests connections for a fast path, or for none.
    pub fn want(&self, by: Option<Arc<dyn Answers>>) {
        *self.requested.lock() = Requested { by, lost: Vec::new() };
        self.wake.notify_one();
    }

    /// Requests another connection to a server.
    pub fn lost(&self, node: NodeId) {
        self.requested.lock().lost.push(node);
        self.wake.notify_one();
    }

    /// The fast path that wants connections, and the servers to which it lost one since the last `take`.
    pub fn take(&self) -> (Option<Arc<dyn Answers>>, Vec<NodeId>) {
        let mut requested = self.requested.lock();
        (requested.by.clone(), std::mem::take(&mut requested.lost))
    }

    /// Sets whether a fast path that accepts no more calls still has some pending.
    pub fn set_busy(&self, is_busy: bool) {
        *self.is_busy.lock() = is_busy;
        self.is_idle.notify_all();
    }

    /// Waits until those calls have completed, at most for `timeout`.
    pub fn wait_until_idle(&self, timeout: Duration) {
        self.is_idle.wait_while_for(&mut self.is_busy.lock(), |is_busy| *is_busy, timeout);
    }
}

impl Queue {
    /// Queues a call, which `wake` starts.
    pub fn push(&self, op: Op, waiter: Waiter, timeout: Duration) {
        self.push_jobs([Job { op, waiter, deadline: Instant::now() + timeout, is_unknown: false }]);
    }

    pub fn push_jobs(&self, jobs: impl IntoIterator<Item = Job>) {
        self.jobs.lock().extend(jobs);
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Closes the store after all earlier calls have completed.
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
