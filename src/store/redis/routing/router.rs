//! Sends a request until it has a final reply: follows redirects, and retries after transient errors and lost
//! connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::connection::{Connector, SendError};
use super::super::error;
use super::super::options::RedisOptions;
use super::super::resp::{Replies, Reply, Request, RequestMode, Script, are_refused, slot_of};
use super::backoff::backoff;
use super::cluster;
use super::node::Node;
use super::topology::Topology;
use crate::error::{Outcome, Result, StoreError};

/// The minimum delay before a request is repeated after a transient error.
const MIN_DELAY: Duration = Duration::from_millis(20);

/// The number of redirects that a call follows without a delay. Before each further one the delay doubles.
const FREE_REDIRECTS: u32 = 4;
const REDIRECT_DELAY: Duration = Duration::from_millis(5);
const MAX_DOUBLINGS: u32 = 6;

/// The state of a call while it runs.
pub struct Attempt {
    pub deadline: Instant,
    /// The number of [`Effect::Main`] requests that a server may have carried out.
    effects: Rc<Cell<usize>>,
    /// Whether one of them was sent again.
    is_repeated: Cell<bool>,
    /// The slot of the latest request, for the error if its server cannot be reached.
    slot: Cell<u16>,
    /// The last transient error of a server.
    refusal: RefCell<Option<String>>,
}

/// The state of a call before it reaches the router.
pub struct PriorState {
    pub deadline: Instant,
    /// Whether a server may have carried out the call already.
    pub is_unknown: bool,
    /// The transient error of the call that this one had to wait for.
    pub refusal: Option<String>,
}

impl Attempt {
    fn new(prior: PriorState) -> Self {
        let PriorState { deadline, is_unknown, refusal } = prior;
        Self {
            deadline,
            effects: Rc::new(Cell::new(is_unknown.into())),
            is_repeated: Cell::new(is_unknown),
            slot: Cell::new(0),
            refusal: RefCell::new(refusal),
        }
    }

    /// Whether a server may have carried out the purpose of the call more than once.
    pub fn is_repeated(&self) -> bool {
        self.is_repeated.get()
    }

    /// Whether a server may have carried out a part of the call.
    fn may_have_changed(&self) -> bool {
        self.effects.get() > 0
    }

    /// Records that a request of [`Effect::Main`] has changed nothing, according to its reply.
    pub fn changed_nothing(&self) {
        self.effects.set(self.effects.get() - 1);
    }

    /// Records that all effects of the call have been undone.
    pub fn was_undone(&self) {
        self.effects.set(0);
    }

    /// Marks an error as of unknown outcome if a part of the call may have been carried out.
    fn with_outcome(&self, error: StoreError) -> StoreError {
        if self.may_have_changed() { error.of_unknown_outcome() } else { error }
    }
}

/// The role of a request in its call. All requests are idempotent: if a reply is lost, the request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The request does not change what the call is about.
    None,
    /// The request makes the change that the call is about. Once a server may have carried it out, an error has an
    /// unknown outcome.
    Main,
}

/// Counts the consecutive transient errors of a request.
#[derive(Default)]
pub struct Refusals(u32);

impl Refusals {
    /// The delay before the next attempt: the usual backoff, but at most half of the remaining time. So the request
    /// is tried again shortly before the deadline.
    fn next_delay(&mut self, left: Duration, chance: f64) -> Duration {
        let delay = backoff(self.0, chance);
        self.0 += 1;
        delay.min((left / 2).max(MIN_DELAY))
    }
}

pub struct Router {
    pub topology: Rc<Topology>,
    command_timeout: Duration,
    wait_replicas: u32,
}

impl Router {
    /// Starts to connect.
    pub fn start(options: &RedisOptions, connector: Connector) -> Self {
        let topology = Topology::new(options.servers.clone(), connector);
        if !topology.is_one_server() {
            spawn_local(cluster::follow(Rc::clone(&topology)));
        }
        let (command_timeout, wait_replicas) = (options.command_timeout, options.wait_replicas);
        Self { topology, command_timeout, wait_replicas }
    }

    /// Runs a call until its deadline.
    pub async fn within<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Attempt) -> Result<T>,
    ) -> Result<T> {
        self.resume(PriorState { deadline, is_unknown: false, refusal: None }, work).await
    }

    pub async fn resume<T>(
        &self,
        prior: PriorState,
        work: impl AsyncFnOnce(&Attempt) -> Result<T>,
    ) -> Result<T> {
        self.until(&Attempt::new(prior), work).await
    }

    async fn until<T>(&self, attempt: &Attempt, work: impl AsyncFnOnce(&Attempt) -> Result<T>) -> Result<T> {
        if attempt.is_repeated() {
            self.topology.network.connector.monitor.retried();
        }
        // The call may have waited for another one on the same session, and is too late to be sent.
        if Instant::now() >= attempt.deadline {
            return Err(self.timeout_error(attempt));
        }
        match timeout_at(attempt.deadline, work(attempt)).await {
            Ok(Err(error @ (StoreError::Exists | StoreError::TooManySessions { .. }))) => Err(error),
            Ok(Err(error)) => Err(attempt.with_outcome(error)),
            Ok(outcome) => outcome,
            Err(_) => Err(self.timeout_error(attempt)),
        }
    }

    /// Runs one step of a call that takes a number of steps. Each step has its own deadline.
    pub async fn step<T>(&self, work: impl AsyncFnOnce(&Attempt) -> Result<T>) -> Result<T> {
        self.within(Instant::now() + self.command_timeout, work).await
    }

    /// Like `step`, for a call that changes sessions. Once a step may have changed something, an error of any later
    /// step has an unknown outcome.
    pub async fn changing_step<T>(
        &self,
        may_have_changed: &mut bool,
        work: impl AsyncFnOnce(&Attempt) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.command_timeout;
        let attempt = Attempt::new(PriorState { deadline, is_unknown: *may_have_changed, refusal: None });
        let done = self.until(&attempt, work).await;
        *may_have_changed = attempt.may_have_changed();
        done
    }

    fn timeout_error(&self, attempt: &Attempt) -> StoreError {
        self.topology.cut_late(self.command_timeout);
        let outcome = if attempt.may_have_changed() { Outcome::Unknown } else { Outcome::NotDone };
        match attempt.refusal.take().or_else(|| self.topology.last_error(attempt.slot.get())) {
            Some(reason) => StoreError::Unavailable { reason, outcome },
            None => {
                let millis = self.command_timeout.as_millis() as u64;
                StoreError::Timeout { waited_for: "Redis", millis, outcome }
            }
        }
    }

    /// Like `ask`, for a given node. `None` if the node was retired.
    pub async fn ask_node(
        &self,
        attempt: &Attempt,
        node: &Node,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Option<Reply>> {
        let mut refusals = Refusals::default();
        loop {
            let Some(connections) = self.topology.connections_of(node).await else { return Ok(None) };
            let request = make(RequestMode::default());
            match connections.of(&request).send(request, &Rc::default()).await {
                Err(SendError::Unsent | SendError::ConnectionLost(_)) => {}
                Err(SendError::UnderReplicated(_)) => return Err(error::unexpected()),
                Ok(mut replies) => {
                    let reply = replies.pop().unwrap_or(Reply::Nil);
                    let Reply::Error(error) = &reply else { return Ok(Some(reply)) };
                    if !error::is_transient(error::code(error)) {
                        return Err(error::check(&reply).err().unwrap_or_else(error::unexpected));
                    }
                    self.back_off(attempt, &mut refusals, error::message(error)).await;
                }
            }
        }
    }

    /// Records a transient error, and waits before the next attempt.
    pub async fn back_off(&self, attempt: &Attempt, refusals: &mut Refusals, reason: String) {
        *attempt.refusal.borrow_mut() = Some(reason);
        let left = attempt.deadline.saturating_duration_since(Instant::now());
        sleep(refusals.next_delay(left, self.topology.network.connector.system.chance())).await;
    }

    /// Sends a request to the primary of a key until it has a final reply. The replies may contain errors of single
    /// commands.
    pub async fn ask(
        &self,
        attempt: &Attempt,
        key: &[u8],
        effect: Effect,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Replies> {
        let slot = if self.topology.is_one_server() { 0 } else { slot_of(key) };
        attempt.slot.set(slot);
        let mut mode = RequestMode::default();
        let mut redirected_to: Option<Rc<Node>> = None;
        let (mut was_sent, mut redirects, mut refusals) = (false, 0_u32, Refusals::default());
        loop {
            let connections = match redirected_to.take() {
                Some(node) => match self.topology.connections_of(&node).await {
                    Some(connections) => connections,
                    None => continue,
                },
                None => self.topology.connections_to(slot).await,
            };
            // Set before `make`, which depends on it.
            if was_sent && effect != Effect::None {
                attempt.is_repeated.set(true);
            }
            let request = make(mode);
            mode.asking = false;
            let is_main = effect != Effect::None && request.is_write;
            if was_sent {
                self.topology.network.connector.monitor.retried();
            }
            // Counted only when the request is sent. A request that waits until the deadline was never sent.
            let sent = if is_main { Rc::clone(&attempt.effects) } else { Rc::default() };
            let replies = match connections.of(&request).send(request, &sent).await {
                Ok(replies) => replies,
                Err(SendError::Unsent) => continue,
                Err(SendError::ConnectionLost(_)) => {
                    was_sent = true;
                    continue;
                }
                Err(SendError::UnderReplicated(have)) => {
                    let wanted = self.wait_replicas;
                    let reason = format!("{have} of {wanted} replicas have it");
                    let outcome = if effect == Effect::None { Outcome::NotDone } else { Outcome::Unknown };
                    return Err(StoreError::Unavailable { reason, outcome });
                }
            };
            let refused = replies.iter().find_map(|reply| match reply {
                Reply::Error(error) => Some(error),
                _ => None,
            });
            let Some(error) = refused else { return Ok(replies) };
            was_sent = true;
            // Takes back only its own count, because other requests of the call may be pending.
            if are_refused(&replies) {
                sent.set(sent.get() - 1);
            }
            let target = || {
                let to = error.split(|&byte| byte == b' ').nth(2)?;
                self.topology.redirect_target(std::str::from_utf8(to).ok()?)
            };
            let code = error::code(error);
            if matches!(code, "MOVED" | "ASK") {
                if self.topology.is_one_server() {
                    return Ok(replies);
                }
                redirects += 1;
                if redirects > FREE_REDIRECTS {
                    sleep(REDIRECT_DELAY * (1 << (redirects - FREE_REDIRECTS).min(MAX_DOUBLINGS))).await;
                }
            }
            match code {
                "NOSCRIPT" => mode.in_full = true,
                "MOVED" => {
                    redirected_to = target();
                    self.topology.moved(redirected_to.as_ref());
                    if redirected_to.is_none() {
                        self.back_off(attempt, &mut refusals, error::message(error)).await;
                    }
                }
                "ASK" => {
                    redirected_to = target();
                    mode.asking = redirected_to.is_some();
                }
                code if code == "READONLY" || error::is_transient(code) => {
                    // The server is no longer a primary. Reconnecting finds the new one.
                    if code == "READONLY" {
                        connections.cut_unless_new();
                    }
                    self.topology.request_refresh();
                    self.back_off(attempt, &mut refusals, error::message(error)).await;
                }
                _ => return Ok(replies),
            }
        }
    }

    /// Like `ask`, for a request of one command. An error reply is an error.
    pub async fn get_one(
        &self,
        attempt: &Attempt,
        key: &[u8],
        effect: Effect,
        make: impl Fn(RequestMode) -> Request,
    ) -> Result<Reply> {
        let reply = self.ask(attempt, key, effect, make).await?.pop().unwrap_or(Reply::Nil);
        error::check(&reply)?;
        Ok(reply)
    }

    /// Runs a script on one key.
    pub async fn run_script(
        &self,
        attempt: &Attempt,
        effect: Effect,
        script: &Script,
        key: &[u8],
        args: &[&[u8]],
    ) -> Result<Reply> {
        let make = |mode| Request::write(mode).script(script, key, args);
        self.get_one(attempt, key, effect, make).await
    }
}
