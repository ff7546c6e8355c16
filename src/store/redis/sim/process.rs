//! A process with an open store, and the calls that it makes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::director::MAX_CLOCK_ERROR;
use super::network::ProcessSystem;
use super::world::{SimClock, World};
use crate::clock::{Clock, Millis};
use crate::error::{Result, StoreError};
use crate::store::redis::connection::System;
use crate::store::redis::queue::{Answers, Waiter};
use crate::store::redis::session::Op;
use crate::store::redis::time::Times;
use crate::store::redis::{RedisOptions, RedisStore};
use crate::store::{Answer, Completions};

pub(super) type ProcessId = usize;

/// How far the clock of a process is off when it starts.
const CLOCK_ERRORS: [Millis; 4] = [0, 700, -90_000, 90_000];

pub(super) struct Process {
    pub id: ProcessId,
    pub is_dead: Cell<bool>,
    pub died: Notify,
    pub clock: Arc<ProcessClock>,
    store: RefCell<Option<Arc<RedisStore>>>,
    tickets: Arc<Tickets>,
}

/// The clock of a process's machine.
pub(super) struct ProcessClock {
    world: Arc<SimClock>,
    error: AtomicI64,
}

impl ProcessClock {
    /// Sets the clock.
    pub(super) fn step(&self, millis: Millis) {
        let error = self.error.load(Ordering::Relaxed) + millis;
        self.error.store(error.clamp(-MAX_CLOCK_ERROR, MAX_CLOCK_ERROR), Ordering::Relaxed);
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Millis {
        self.world.now() + self.error.load(Ordering::Relaxed)
    }
}

/// Receives results as a JavaScript thread does.
#[derive(Default)]
struct Tickets {
    last: AtomicU32,
    waiting: Mutex<BTreeMap<u32, oneshot::Sender<Result<Answer>>>>,
}

impl Completions for Tickets {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        for (ticket, answer) in done {
            if let Some(sender) = self.waiting.lock().remove(&ticket) {
                let _ = sender.send(answer);
            }
        }
    }
}

impl Answers for Tickets {}

impl Process {
    pub(super) fn start(world: &Rc<World>, id: ProcessId, options: &RedisOptions) -> Rc<Self> {
        let error = if world.config.clock_margin > 0 { world.pick(&CLOCK_ERRORS) } else { 0 };
        let clock = Arc::new(ProcessClock { world: Arc::clone(&world.clock), error: error.into() });
        let mut times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
        // Stamps of two processes never collide, although each stamp in a millisecond is one higher than the last.
        times.micros = id as u64 * 20 % 1000;
        let (store, serve) = RedisStore::prepare(options, times).unwrap();
        serve(System::Simulated(Rc::new(ProcessSystem { world: Rc::clone(world), process: id })));
        Rc::new(Self {
            id,
            is_dead: Cell::new(false),
            died: Notify::new(),
            clock,
            store: RefCell::new(Some(store)),
            tickets: Arc::default(),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.store.borrow().is_some()
    }

    pub(super) fn store(&self) -> Arc<RedisStore> {
        Arc::clone(self.store.borrow().as_ref().unwrap())
    }

    /// Drops the store. Pending calls still complete.
    pub(super) fn close(&self) {
        self.store.take();
    }

    /// Makes a call on one session.
    pub(super) async fn call(&self, op: Op) -> Result<Answer> {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.tickets.last.fetch_add(1, Ordering::Relaxed);
        self.tickets.waiting.lock().insert(ticket, sender);
        let store = self.store();
        let to = Arc::clone(&self.tickets) as Arc<dyn Answers>;
        store.queue.push(op, Waiter::Ticket { to, ticket }, store.command_timeout);
        store.wake();
        drop(store);
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Makes any other call.
    pub(super) async fn begin<T: Send + 'static>(
        &self,
        begin: impl FnOnce(&RedisStore, Box<dyn FnOnce(Result<T>) + Send>),
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        begin(&self.store(), Box::new(move |result| drop(sender.send(result))));
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }
}
