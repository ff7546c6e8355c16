//! The store on its own thread: takes calls from other threads, and carries out what they ask of the servers.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

use super::errors;
use super::lane::Line;
use super::link::Fault;
use super::options::RedisOptions;
use super::record::Stamp;
use super::resp::{Replies, Reply, Request, RequestMode, slot_of};
use super::topology::{Node, Topology};
use super::vault::{Draft, Names, Vault};
use super::walks::Walks;
use crate::clock::{Clock, Millis};
use crate::error::{Outcome, Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::{Answer, Completions, Sweep};

/// The most calls that may be under way: without a server they wait, and are not to take all of the memory.
pub(super) const MAX_CALLS: usize = 1 << 17;

/// How long to wait before a server is asked again that refused for a reason that passes.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);

/// The error for a call that panicked.
pub(super) fn fault() -> StoreError {
    StoreError::Internal("a call panicked".into())
}

/// Receives the results of calls, and the connections that a lane asked for.
pub trait Answers: Completions {
    /// A lane of its thread has this connection now.
    fn line(&self, line: Line) {
        drop(line);
    }
}

pub(super) enum Op {
    Create(Draft),
    Get(SessionId),
    Update(Draft),
    /// An expiry that is at the last or after it stays as it is.
    Touch(SessionId, Expiry, Option<Millis>),
    Delete(SessionId),
    /// Any other call, which tells of its end itself.
    Cold(Cold),
}

pub(super) type Cold = Box<dyn FnOnce(Rc<Core>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

impl Op {
    /// The session that it reads or changes.
    fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Get(id) => Some(id),
            _ => self.changes(),
        }
    }

    /// The session that it changes.
    pub(super) fn changes(&self) -> Option<&SessionId> {
        match self {
            Self::Create(draft) | Self::Update(draft) => Some(&draft.id),
            Self::Touch(id, ..) | Self::Delete(id) => Some(id),
            Self::Get(_) | Self::Cold(_) => None,
        }
    }
}

pub(super) enum Waiter {
    Thread(mpsc::SyncSender<Result<Answer>>),
    Ticket { to: Arc<dyn Answers>, ticket: u32 },
    Nobody,
}

pub(super) struct Job {
    pub op: Op,
    pub waiter: Waiter,
    pub deadline: Instant,
    /// Whether a server may have carried it out already: what it does may be done twice then.
    pub is_unknown: bool,
}

/// What other threads have of a store.
#[derive(Default)]
pub(super) struct Shared {
    jobs: Mutex<Vec<Job>>,
    wake: Notify,
    is_closed: AtomicBool,
    stamp: AtomicU64,
    pub lane: LaneWanted,
    pub counters: Counters,
}

/// What lanes ask of the store's thread.
#[derive(Default)]
pub(super) struct LaneWanted {
    /// Who is to have the next connection.
    pub by: Mutex<Option<Arc<dyn Answers>>>,
    pub wake: Notify,
    is_busy: Mutex<bool>,
    is_idle: Condvar,
}

impl LaneWanted {
    /// Whether calls are under way on a lane that takes no more.
    pub(super) fn set_busy(&self, is_busy: bool) {
        *self.is_busy.lock() = is_busy;
        self.is_idle.notify_all();
    }

    /// Waits for the end of those calls, for so long at most.
    pub(super) fn wait_until_idle(&self, patience: Duration) {
        self.is_idle.wait_while_for(&mut self.is_busy.lock(), |is_busy| *is_busy, patience);
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub created: AtomicU64,
    pub expired: AtomicU64,
    pub evicted: AtomicU64,
    pub last_sweep: Mutex<Option<Sweep>>,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    pub(super) fn looked_up(&self, found: bool) {
        Self::add(if found { &self.hits } else { &self.misses }, 1);
    }
}

impl Shared {
    /// Queues a call; `kick` begins it.
    pub(super) fn push(&self, op: Op, waiter: Waiter, patience: Duration) {
        self.push_jobs([Job { op, waiter, deadline: Instant::now() + patience, is_unknown: false }]);
    }

    pub(super) fn push_jobs(&self, jobs: impl IntoIterator<Item = Job>) {
        self.jobs.lock().extend(jobs);
    }

    pub(super) fn kick(&self) {
        self.wake.notify_one();
    }

    /// Ends the store once all calls have ended that were begun before.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.jobs.lock())
    }

    /// When a session is created now: later than any before it.
    pub(super) fn stamp(&self, times: &Times) -> Stamp {
        let now = times.now().max(0) as Stamp * 1000;
        let after = |before: Stamp| now.max(before + 1);
        let before = self.stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| Some(after(it)));
        after(before.unwrap_or_else(|it| it))
    }
}

/// When sessions end, by the store's clock and by the server's.
#[derive(Clone)]
pub(super) struct Times {
    pub clock: Arc<dyn Clock>,
    /// For a clock that is not the servers': how long these keep each session, whatever its expiry. Then the store
    /// removes what has expired itself.
    pub kept_for: Option<Duration>,
}

impl Times {
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// When the server is to end a session.
    pub(super) fn server_time(&self, expires: Expiry) -> Millis {
        match self.kept_for {
            // Before its time there is none.
            None => expires.millis().max(1),
            Some(kept_for) => crate::clock::SystemClock.now() + kept_for.as_millis() as Millis,
        }
    }
}

/// One call, for as long as it goes on.
pub(super) struct Call {
    /// How many of its requests a server may have carried out, of those that do what it is for.
    begun: Cell<usize>,
    /// Whose server it waits for.
    slot: Cell<u16>,
    /// Why a server refused for the time being.
    refusal: RefCell<Option<String>>,
}

impl Call {
    fn new(is_begun: bool) -> Self {
        Self { begun: Cell::new(is_begun.into()), slot: Cell::new(0), refusal: RefCell::new(None) }
    }

    /// Whether some of what it is for may have been done.
    fn is_begun(&self) -> bool {
        self.begun.get() > 0
    }

    /// What is told of an error of a call of many parts: those that were done stay so.
    pub(super) fn in_part(&self, error: StoreError) -> StoreError {
        if self.is_begun() { error.of_unknown_outcome() } else { error }
    }
}

/// What a request means to its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing that the call is for, and may be sent twice.
    Aside,
    /// It does what the call is for, and may be sent twice.
    Repeatable,
    /// It does what the call is for, and sent twice it might undo what others did in between.
    Once,
}

/// Whom to tell, and what.
type Ended = (Arc<dyn Answers>, Vec<(u32, Result<Answer>)>);

pub(super) struct Core {
    pub options: RedisOptions,
    pub names: Names,
    pub times: Times,
    pub shared: Arc<Shared>,
    pub topology: Rc<Topology>,
    pub vault: RefCell<Option<Arc<Vault>>>,
    /// What the keys of encryption were made from, as it stands in Redis.
    pub seal: RefCell<Option<Vec<u8>>>,
    pub unlocking: tokio::sync::Mutex<()>,
    pub walks: RefCell<Walks>,
    /// The sessions that a call is changing, and the calls of these that were begun after it.
    busy: RefCell<HashMap<SessionId, VecDeque<Job>, foldhash::fast::RandomState>>,
    ended: RefCell<Vec<Ended>>,
    have_ended: Notify,
    calls: Cell<usize>,
    /// How many of them wait for the end of the others.
    settling: Cell<usize>,
    has_settled: Notify,
}

impl Core {
    pub(super) fn new(
        options: RedisOptions,
        times: Times,
        shared: Arc<Shared>,
        topology: Rc<Topology>,
    ) -> Rc<Self> {
        Rc::new(Self {
            names: Names::new(&options.prefix),
            options,
            times,
            shared,
            topology,
            vault: RefCell::default(),
            seal: RefCell::default(),
            unlocking: tokio::sync::Mutex::default(),
            walks: RefCell::default(),
            busy: RefCell::default(),
            ended: RefCell::default(),
            have_ended: Notify::new(),
            calls: Cell::new(0),
            settling: Cell::new(0),
            has_settled: Notify::new(),
        })
    }

    /// Serves until the store is closed and its last call has ended.
    pub(super) async fn serve(self: Rc<Self>) {
        let teller = spawn_local(Rc::clone(&self).tell());
        let sweeper = spawn_local(Rc::clone(&self).sweep());
        let lines = spawn_local(Rc::clone(&self).make_lines());
        loop {
            self.shared.wake.notified().await;
            let is_closed = self.shared.is_closed.load(Ordering::Acquire);
            for job in self.shared.take() {
                self.begin(job);
            }
            if is_closed {
                break;
            }
        }
        sweeper.abort();
        lines.abort();
        self.all_have_ended().await;
        teller.abort();
        self.tell_now();
        self.topology.close();
    }

    fn begin(self: &Rc<Self>, job: Job) {
        if self.calls.get() >= MAX_CALLS && !matches!(job.op, Op::Cold(_)) {
            let error = StoreError::unavailable(format!("{MAX_CALLS} calls are waiting for Redis already"));
            return self.end(job.waiter, Err(error));
        }
        self.calls.set(self.calls.get() + 1);
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

    /// Runs a call, and then those of the same session that were begun after it, which have to see it.
    async fn run(self: Rc<Self>, job: Job) {
        let id = job.op.changes().cloned();
        let mut next = Some(job);
        while let Some(Job { op, waiter, deadline, is_unknown }) = next {
            // A panic is no reason to leave a caller waiting, or those behind it.
            let answer = AssertUnwindSafe(self.carry_out(op, deadline, is_unknown)).catch_unwind().await;
            self.end(waiter, answer.unwrap_or_else(|_| Err(fault())));
            self.count_down();
            next = id.as_ref().and_then(|id| {
                let mut busy = self.busy.borrow_mut();
                let later = busy.get_mut(id).and_then(VecDeque::pop_front);
                if later.is_none() {
                    busy.remove(id);
                }
                later
            });
        }
    }

    fn count_down(&self) {
        self.calls.set(self.calls.get() - 1);
        if self.calls.get() <= self.settling.get() {
            self.has_settled.notify_waiters();
        }
    }

    async fn carry_out(self: &Rc<Self>, op: Op, deadline: Instant, is_unknown: bool) -> Result<Answer> {
        if let Op::Cold(cold) = op {
            cold(Rc::clone(self)).await;
            return Ok(Answer::Number(0));
        }
        let found = |found: bool| Answer::Number(found.into());
        // Boxed each, or every call would take as much room as the largest, and copy it more than once.
        self.within_as(is_unknown, deadline, async |call| match op {
            Op::Create(draft) => Box::pin(self.create(call, &draft)).await.map(|()| Answer::Number(1)),
            Op::Get(id) => Box::pin(self.get(call, &id)).await.map(Answer::Session),
            Op::Update(draft) => Box::pin(self.update(call, &draft)).await.map(found),
            Op::Touch(id, expires, enough) => {
                Box::pin(self.touch(call, &id, expires, enough)).await.map(found)
            }
            Op::Delete(id) => Box::pin(self.delete(call, &id)).await.map(|()| Answer::Number(1)),
            Op::Cold(_) => Ok(Answer::Number(0)),
        })
        .await
    }

    /// Runs what is a call of its own, until its deadline.
    pub(super) async fn within<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Call) -> Result<T>,
    ) -> Result<T> {
        self.within_as(false, deadline, work).await
    }

    async fn within_as<T>(
        &self,
        is_unknown: bool,
        deadline: Instant,
        work: impl AsyncFnOnce(&Call) -> Result<T>,
    ) -> Result<T> {
        self.until(deadline, &Call::new(is_unknown), work).await
    }

    async fn until<T>(
        &self,
        deadline: Instant,
        call: &Call,
        work: impl AsyncFnOnce(&Call) -> Result<T>,
    ) -> Result<T> {
        // It may have waited for another that changed the same session, and is not to be sent any more.
        if Instant::now() >= deadline {
            return Err(self.late(call));
        }
        match timeout_at(deadline, work(call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late(call)),
        }
    }

    /// As `within`, for one step of a call that may take as many as there are sessions.
    pub(super) async fn step<T>(&self, work: impl AsyncFnOnce(&Call) -> Result<T>) -> Result<T> {
        self.within(Instant::now() + self.options.command_timeout, work).await
    }

    /// As `step`, for a call that changes what it finds: once a step may have changed something, an error of any step
    /// is of an unknown outcome.
    pub(super) async fn step_of<T>(
        &self,
        is_begun: &mut bool,
        work: impl AsyncFnOnce(&Call) -> Result<T>,
    ) -> Result<T> {
        let call = Call::new(*is_begun);
        let done = self.until(Instant::now() + self.options.command_timeout, &call, work).await;
        *is_begun = call.is_begun();
        done.map_err(|error| call.in_part(error))
    }

    fn late(&self, call: &Call) -> StoreError {
        self.topology.cut_silent(self.options.command_timeout);
        let outcome = if call.is_begun() { Outcome::Unknown } else { Outcome::NotDone };
        match call.refusal.take().or_else(|| self.topology.trouble(call.slot.get())) {
            Some(reason) => StoreError::Unavailable { reason, outcome },
            None => {
                let millis = self.options.command_timeout.as_millis() as u64;
                StoreError::Timeout { waited_for: "Redis", millis, outcome }
            }
        }
    }

    /// Goes on with what no caller waits for, but the end of the store does.
    pub(super) fn detach(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let core = Rc::clone(self);
        self.calls.set(self.calls.get() + 1);
        spawn_local(async move {
            work.await;
            core.count_down();
        });
    }

    pub(super) fn end(&self, waiter: Waiter, answer: Result<Answer>) {
        match waiter {
            Waiter::Nobody => {}
            // It fails where no one waits any more.
            Waiter::Thread(sender) => drop(sender.send(answer)),
            Waiter::Ticket { to, ticket } => {
                let mut ended = self.ended.borrow_mut();
                if ended.is_empty() {
                    self.have_ended.notify_one();
                }
                match ended.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &to)) {
                    Some((_, done)) => done.push((ticket, answer)),
                    None => ended.push((to, vec![(ticket, answer)])),
                }
            }
        }
    }

    /// Tells of all calls at once that end in one turn: this task gets its turn after theirs.
    async fn tell(self: Rc<Self>) {
        loop {
            self.have_ended.notified().await;
            self.tell_now();
        }
    }

    fn tell_now(&self) {
        for (to, done) in self.ended.take() {
            to.complete(done);
        }
    }

    /// Waits, in a call, until no other is under way but those that wait likewise.
    pub(super) async fn settled(&self) {
        self.settling.set(self.settling.get() + 1);
        self.all_have_ended().await;
        self.settling.set(self.settling.get() - 1);
    }

    async fn all_have_ended(&self) {
        while self.calls.get() > self.settling.get() {
            self.has_settled.notified().await;
        }
    }

    /// As `ask`, of one server: what it refuses for the time being is refused.
    pub(super) async fn ask_node(
        &self,
        call: &Call,
        node: &Node,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Reply> {
        loop {
            let links = self.topology.links_of(node).await;
            let request = make(RequestMode::default());
            match links.of(&request).send(request).await {
                Err(Fault::NotSent | Fault::Lost(_)) => {}
                Err(Fault::NotReplicated(_)) => return Err(errors::unexpected()),
                Ok(mut replies) => {
                    let reply = replies.pop().unwrap_or(Reply::Nil);
                    let Reply::Error(error) = &reply else { return Ok(reply) };
                    if !errors::passes(errors::code(error)) {
                        return Err(errors::check(&reply).err().unwrap_or_else(errors::unexpected));
                    }
                    self.put_off(call, error).await;
                }
            }
        }
    }

    /// Notes why a server refuses for the time being, and leaves it some.
    async fn put_off(&self, call: &Call, error: &[u8]) {
        *call.refusal.borrow_mut() = Some(errors::in_words(error));
        sleep(REFUSAL_PAUSE).await;
    }

    /// Sends a request to the server of a key until it is answered for good, and gives its answers. Errors of single
    /// commands are among them.
    pub(super) async fn ask(
        &self,
        call: &Call,
        key: &[u8],
        kind: Kind,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Replies> {
        let slot = if self.topology.is_one_server() { 0 } else { slot_of(key) };
        call.slot.set(slot);
        let mut mode = RequestMode::default();
        let mut elsewhere: Option<Rc<Node>> = None;
        loop {
            let links = match elsewhere.take() {
                Some(node) => self.topology.links_of(&node).await,
                None => self.topology.links_to(slot).await,
            };
            let request = make(mode);
            mode.asking = false;
            // What is refused takes back its own part alone: others of the call may be under way.
            let part = usize::from(kind != Kind::Aside && request.is_write);
            let not_done = || call.begun.set(call.begun.get() - part);
            call.begun.set(call.begun.get() + part);
            let replies = match links.of(&request).send(request).await {
                Ok(replies) => replies,
                Err(Fault::NotSent) => {
                    not_done();
                    continue;
                }
                Err(Fault::Lost(reason)) if kind == Kind::Once => {
                    let reason = format!("the connection was lost: {reason}");
                    return Err(StoreError::Unavailable { reason, outcome: Outcome::Unknown });
                }
                Err(Fault::Lost(_)) => continue,
                Err(Fault::NotReplicated(have)) => {
                    let wanted = self.options.wait_replicas;
                    let reason = format!("{have} of {wanted} replicas have it");
                    let outcome = if kind == Kind::Aside { Outcome::NotDone } else { Outcome::Unknown };
                    return Err(StoreError::Unavailable { reason, outcome });
                }
            };
            let refused = replies.iter().find_map(|reply| match reply {
                Reply::Error(error) => Some(error),
                _ => None,
            });
            let Some(error) = refused else { return Ok(replies) };
            // What it says was not done; whether others of the request were is for the caller to see.
            not_done();
            let told = || {
                let to = error.split(|&byte| byte == b' ').nth(2)?;
                self.topology.told_of(std::str::from_utf8(to).ok()?)
            };
            match errors::code(error) {
                "NOSCRIPT" => mode.in_full = true,
                "MOVED" => {
                    self.topology.ask_again();
                    elsewhere = told();
                    if elsewhere.is_none() {
                        sleep(REFUSAL_PAUSE).await;
                    }
                }
                "ASK" => {
                    elsewhere = told();
                    mode.asking = elsewhere.is_some();
                }
                code if code == "READONLY" || errors::passes(code) => {
                    // It is a primary no more: connecting again finds the one that is.
                    if code == "READONLY" {
                        links.cut();
                    }
                    self.topology.ask_again();
                    self.put_off(call, error).await;
                }
                _ => return Ok(replies),
            }
        }
    }

    /// As `ask`, for requests of which no command may fail.
    pub(super) async fn get_all(
        &self,
        call: &Call,
        key: &[u8],
        kind: Kind,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Replies> {
        let replies = self.ask(call, key, kind, make).await?;
        replies.iter().try_for_each(errors::check)?;
        Ok(replies)
    }

    /// As `get_all`, for requests of one command.
    pub(super) async fn get_one(
        &self,
        call: &Call,
        key: &[u8],
        kind: Kind,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Reply> {
        let mut replies = self.get_all(call, key, kind, make).await?;
        Ok(replies.pop().unwrap_or(Reply::Nil))
    }
}
