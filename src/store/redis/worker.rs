//! The store's worker: takes calls from other threads, runs the calls on each session in order, and reports the
//! results.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::counters::Counters;
use super::error::panicked;
use super::fast_path::provision;
use super::queue::{Answers, Job, MAX_CALLS, MAX_QUEUED_BYTES, Queue, Waiter, too_much_queued};
use super::routing::{Attempt, PriorState};
use super::session::{self, Cipher, Context, Op};
use crate::error::{Result, StoreError};
use crate::session::SessionId;
use crate::store::Answer;

/// Completed calls, grouped by recipient.
type Completed = (Arc<dyn Answers>, Vec<(u32, Result<Answer>)>);

pub struct Worker {
    context: Rc<Context>,
    queue: Arc<Queue>,
    /// The sessions that a call is changing, and the later calls on each of them.
    busy: RefCell<HashMap<SessionId, VecDeque<Job>, foldhash::fast::RandomState>>,
    /// The size of all pending calls.
    bytes: Cell<usize>,
    completed: RefCell<Vec<Completed>>,
    have_completed: Notify,
}

impl Worker {
    /// Runs until the store is closed and its last call has completed.
    pub async fn serve(context: Rc<Context>, queue: Arc<Queue>) {
        let worker = Rc::new(Self {
            context,
            queue,
            busy: RefCell::default(),
            bytes: Cell::new(0),
            completed: RefCell::default(),
            have_completed: Notify::new(),
        });
        let Self { context, queue, .. } = &*worker;
        let reporter = spawn_local(Rc::clone(&worker).report());
        let sweeper = spawn_local(session::sweep(Rc::clone(context)));
        let watch = spawn_local(session::watch(Rc::clone(context)));
        let provider = spawn_local(provision::provide(Rc::clone(context), Arc::clone(queue)));
        loop {
            queue.wake.notified().await;
            let is_closed = queue.is_closed();
            for job in queue.take() {
                worker.begin(job);
            }
            if is_closed {
                break;
            }
        }
        sweeper.abort();
        watch.abort();
        provider.abort();
        context.tasks.all_ended().await;
        reporter.abort();
        worker.report_now();
        context.router.topology.close();
    }

    fn begin(self: &Rc<Self>, job: Job) {
        if self.context.tasks.running() >= MAX_CALLS && !matches!(job.op, Op::Cold(_)) {
            return self.refuse(job, StoreError::Busy(format!("{MAX_CALLS} calls wait for Redis").into()));
        }
        let bytes = job.op.len();
        // All calls that wait on a fast path may fall back together.
        if self.bytes.get() > 0 && self.bytes.get() + bytes > 2 * MAX_QUEUED_BYTES {
            return self.refuse(job, too_much_queued());
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.context.tasks.start();
        if let Some(id) = job.op.session() {
            let mut busy = self.busy.borrow_mut();
            if let Some(later) = busy.get_mut(id) {
                later.push_back(job);
                return;
            }
            if job.op.changes().is_some() {
                busy.insert(id.clone(), VecDeque::new());
            }
        }
        spawn_local(Rc::clone(self).run(job));
    }

    fn refuse(&self, job: Job, error: StoreError) {
        let error = if job.is_unknown { error.of_unknown_outcome() } else { error };
        self.complete(job.waiter, Err(error));
    }

    /// Runs a call, then the later calls on the same session, which must see its effect.
    async fn run(self: Rc<Self>, job: Job) {
        let id = job.op.changes().cloned();
        let (mut next, mut refusal) = (Some(job), None);
        while let Some(Job { op, waiter, deadline, is_unknown }) = next {
            // If a call panics, its caller and the calls behind it still get an answer.
            let bytes = op.len();
            // A creation over the user's limit ends other sessions.
            let may_end_others = !matches!((&op, &waiter), (Op::Get(_), _) | (_, Waiter::Nobody))
                && self.context.options.user_limit().ends_beyond().is_some();
            let prior = PriorState { deadline, is_unknown, refusal };
            let answer = AssertUnwindSafe(self.carry_out(op, prior)).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(panicked()));
            // If this call used up its time, the next one has little left. It then reports the same reason.
            refusal = match &answer {
                Err(StoreError::Unavailable { reason, .. }) if Instant::now() >= deadline => {
                    Some(reason.clone())
                }
                _ => None,
            };
            if may_end_others {
                Counters::add(&self.context.counters.mass_ends, 1);
            }
            self.complete(waiter, answer);
            self.bytes.set(self.bytes.get() - bytes);
            self.context.tasks.end();
            next = id.as_ref().and_then(|id| {
                let mut busy = self.busy.borrow_mut();
                loop {
                    match busy.get_mut(id).and_then(VecDeque::pop_front) {
                        // Reads change nothing, so they need not wait for each other.
                        Some(read) if read.op.changes().is_none() => {
                            spawn_local(Rc::clone(&self).run(read));
                        }
                        Some(change) => break Some(change),
                        None => {
                            busy.remove(id);
                            break None;
                        }
                    }
                }
            });
        }
    }

    async fn carry_out(&self, op: Op, prior: PriorState) -> Result<Answer> {
        let context = &self.context;
        let found = |found: bool| Answer::Number(found.into());
        let op = match op {
            Op::Cold(work) => return work(Rc::clone(context)).await,
            op => op,
        };
        // Each future is boxed. Otherwise every call would be as large as the largest one, and be copied more than
        // once.
        let work = async |attempt: &Attempt| {
            let call = async |cipher: &Cipher| match &op {
                Op::Create(session, stamp) => {
                    let created = Box::pin(session::create(context, attempt, cipher, session, *stamp)).await;
                    created.map(|()| Answer::Number(1))
                }
                Op::Get(id) => {
                    Box::pin(session::get(context, attempt, cipher, id)).await.map(Answer::Session)
                }
                Op::Update(session) => {
                    Box::pin(session::update(context, attempt, cipher, session)).await.map(found)
                }
                Op::Touch(id, expires, enough) => {
                    Box::pin(session::touch(context, attempt, cipher, id, *expires, *enough)).await.map(found)
                }
                Op::Delete(id) => {
                    Box::pin(session::delete(context, attempt, cipher, id)).await.map(|()| Answer::Number(1))
                }
                Op::Cold(_) => Ok(Answer::Number(0)),
            };
            session::with_cipher(context, attempt, call).await
        };
        context.router.resume(prior, work).await
    }

    fn complete(&self, waiter: Waiter, answer: Result<Answer>) {
        match waiter {
            Waiter::Nobody => {}
            // Sending fails only if the receiver is gone.
            Waiter::Thread(sender) => drop(sender.send(answer)),
            Waiter::Ticket { to, ticket } => {
                let mut completed = self.completed.borrow_mut();
                if completed.is_empty() {
                    self.have_completed.notify_one();
                }
                match completed.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &to)) {
                    Some((_, done)) => done.push((ticket, answer)),
                    None => completed.push((to, vec![(ticket, answer)])),
                }
            }
        }
    }

    /// Reports all calls that complete in one turn together: this task runs after theirs.
    async fn report(self: Rc<Self>) {
        loop {
            self.have_completed.notified().await;
            self.report_now();
        }
    }

    fn report_now(&self) {
        for (to, done) in self.completed.take() {
            to.complete(done);
        }
    }
}
