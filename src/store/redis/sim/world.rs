//! The state of a simulation: servers, network, processes, clock and model, and the choices of the seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::data::{Command, Entry, Value};
use super::director::MAX_CLOCK_ERROR;
use super::model::{CallId, Ending, History, Op, Row};
use super::network::Connection;
use super::process::{Process, ProcessId};
use super::server::{Server, ServerId, View};
use crate::clock::{Clock, Millis};
use crate::store::conformance::START;
use crate::store::redis::resp::{Reply, SLOTS, slot_of};
use crate::store::simulation::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deployment {
    Single,
    /// A primary, its replica and sentinels.
    Sentinel,
    /// Three primaries, with a replica each.
    Cluster,
}

/// The fixed choices of a seed. Probabilities are in millionths, times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Config {
    #[allow(dead_code, reason = "the trace shows it")]
    pub seed: u64,
    pub deployment: Deployment,
    pub sessions: usize,
    pub users: usize,
    pub processes: usize,
    pub clients: usize,
    pub ops: usize,
    pub rounds: usize,
    pub think: u64,
    pub chaos: u64,
    pub latency: (u64, u64),
    /// How often a packet is lost and retransmitted.
    pub losses: u32,
    /// How many bytes the client's system buffers before any of them arrives.
    pub window: usize,
    /// How often a write or a read is partial.
    pub parts: u32,
    pub lags: [u64; 4],
    pub has_dead_address: bool,
    /// The servers lack the features of Redis 7.
    pub is_old: bool,
    pub command_timeout: u64,
    pub connect_timeout: u64,
    pub sweep_interval: u64,
    pub lifetimes: [Millis; 4],
    /// How far the clocks of the processes may differ from the servers'. A session that ends within this time may be
    /// seen as live or as expired.
    pub clock_margin: Millis,
    /// The number of old entries that each index starts with, of sessions that have ended.
    pub old_entries: usize,
    /// How many keys one `SCAN` looks at.
    pub page: usize,
    /// The weight of each fault.
    pub faults: [usize; FAULTS],
    /// The weight of each call.
    pub calls: [usize; CALLS],
    /// How long a fault lasts.
    pub durations: [u64; 4],
}

pub(super) const FAULTS: usize = 22;
pub(super) const CALLS: usize = 9;

impl Config {
    pub(super) fn new(seed: u64, random: &mut Random) -> Self {
        let deployment = *random.pick(&[
            Deployment::Single,
            Deployment::Single,
            Deployment::Sentinel,
            Deployment::Cluster,
        ]);
        let low = *random.pick(&[0, 0, 1, 5]);
        let latency = (low, low + *random.pick(&[0, 1, 10, 60]));
        let is_loyal = random.chance(300_000);
        let mut faults = [0; FAULTS];
        for weight in &mut faults {
            *weight = *random.pick(&[0, 0, 1, 1, 4]);
        }
        if is_loyal {
            // Then no acknowledged write may ever be lost.
            for lossy in [7, 8, 12] {
                faults[lossy] = 0;
            }
        }
        let mut calls = [20, 20, 20, 8, 14, 10, 7, 2, 1];
        for weight in &mut calls {
            *weight *= *random.pick(&[0, 1, 1, 1, 3]);
        }
        calls[0] = calls[0].max(5);
        let think = *random.pick(&[1, 30, 300, 1500]);
        let has_dead_address = random.chance(200_000);
        let command_timeout = latency.1 * 10 + random.pick(&[100, 400, 2000]);
        Self {
            seed,
            deployment,
            sessions: random.between(1, 4) as usize,
            users: random.between(1, 2) as usize,
            processes: *random.pick(&[1, 2, 2, 3]),
            clients: random.between(1, 4) as usize,
            ops: random.between(4, 14) as usize,
            rounds: *random.pick(&[1, 1, 2, 3]),
            think,
            chaos: 20 + think * random.pick(&[1, 4, 15]),
            latency,
            losses: *random.pick(&[0, 0, 10_000, 100_000]),
            window: *random.pick(&[50, 300, 65_536]),
            parts: *random.pick(&[0, 20_000, 300_000]),
            lags: *random.pick(&[[0; 4], [0, 1, 20, 300], [1000; 4], [0, 0, 5, 5000]]),
            has_dead_address,
            is_old: random.chance(300_000),
            command_timeout,
            // The second address of a host is tried after 250 ms.
            connect_timeout: latency.1 * 10
                + if has_dead_address { 250 } else { 0 }
                + random.pick(&[50, 300, 2000]),
            sweep_interval: *random.pick(&[0, 700, 5000, 60_000]),
            lifetimes: *random.pick(&[
                [600_000; 4],
                [600_000, 600_000, 600_000, 700],
                [200, 1500, 4000, 600_000],
                // Longer than the first end of the user's index.
                [600_000, 2_220_000, 4_000_000, 8_000_000],
            ]),
            clock_margin: *random.pick(&[0, 0, 0, MAX_CLOCK_ERROR]),
            old_entries: *random.pick(&[0, 0, 0, 40]),
            page: *random.pick(&[1, 2, 1000]),
            faults,
            calls,
            durations: *random.pick(&[
                [20, 100, 300, 800],
                [200, 1000, 2500, 6000],
                [1000, 4000, 9000, 20_000],
            ]),
        }
    }
}

/// The time of all processes and servers.
pub(super) struct SimClock(Instant);

impl Clock for SimClock {
    fn now(&self) -> Millis {
        START + self.0.elapsed().as_millis() as Millis
    }
}

pub(super) struct World {
    pub config: Config,
    pub random: RefCell<Random>,
    pub clock: Arc<SimClock>,
    pub servers: Vec<Rc<Server>>,
    /// The owner of each range of slots. Without a cluster there is one range.
    pub owners: RefCell<Vec<ServerId>>,
    /// For each server, the epoch in which it last received slots.
    pub epochs: RefCell<Vec<u64>>,
    /// The moving ranges, and the servers that they move to.
    pub moving: RefCell<BTreeMap<usize, ServerId>>,
    pub connections: RefCell<Vec<Rc<Connection>>>,
    opened: Cell<usize>,
    pub cut_off: RefCell<BTreeSet<(ProcessId, ServerId)>>,
    /// A task that waits for the network may continue.
    pub network_changed: Notify,
    pub is_slow: Cell<bool>,
    pub are_names_lost: Cell<bool>,
    pub processes: RefCell<Vec<Rc<Process>>>,
    pub histories: RefCell<Vec<History>>,
    pub versions: Cell<u32>,
    pub clients: Cell<usize>,
    /// No faults happen any more.
    pub is_calm: Cell<bool>,
    violation: RefCell<Option<String>>,
    is_over: Cell<bool>,
    pub over: Notify,
    keeps_trace: bool,
    trace: RefCell<Vec<String>>,
    /// How often each event has happened, if the trace is kept.
    pub counts: RefCell<BTreeMap<&'static str, u64>>,
    /// A hash of all events.
    pub digest: Cell<u64>,
    pub steps: Cell<u64>,
}

impl World {
    pub(super) fn new(config: Config, random: Random, keeps_trace: bool) -> Rc<Self> {
        let owners: Vec<ServerId> = match config.deployment {
            Deployment::Single | Deployment::Sentinel => vec![0],
            Deployment::Cluster => vec![0, 1, 2, 0, 1, 2],
        };
        let count = match config.deployment {
            Deployment::Single => 1,
            Deployment::Sentinel => 5,
            Deployment::Cluster => 6,
        };
        let is_sentinel = |id| config.deployment == Deployment::Sentinel && id >= 2;
        let epochs: Vec<u64> =
            (0..count).map(|id| if owners.contains(&id) { id as u64 + 1 } else { 0 }).collect();
        let view = View { owners: owners.clone(), epochs: epochs.clone() };
        let servers: Vec<_> = (0..count).map(|id| Server::new(id, is_sentinel(id), view.clone())).collect();
        match config.deployment {
            Deployment::Single => {}
            Deployment::Sentinel => servers[1].replica_of.set(Some(0)),
            Deployment::Cluster => (3..6).for_each(|id| servers[id].replica_of.set(Some(id - 3))),
        }
        let is_cluster = config.deployment == Deployment::Cluster;
        let histories = (0..config.sessions).map(|_| History::new(is_cluster, config.clock_margin)).collect();
        Rc::new(Self {
            random: RefCell::new(random),
            clock: Arc::new(SimClock(Instant::now())),
            servers,
            owners: RefCell::new(owners),
            epochs: RefCell::new(epochs),
            moving: RefCell::default(),
            connections: RefCell::default(),
            opened: Cell::new(0),
            cut_off: RefCell::default(),
            network_changed: Notify::new(),
            is_slow: Cell::new(false),
            are_names_lost: Cell::new(false),
            processes: RefCell::default(),
            histories: RefCell::new(histories),
            versions: Cell::new(0),
            clients: Cell::new(0),
            is_calm: Cell::new(false),
            violation: RefCell::default(),
            is_over: Cell::new(false),
            over: Notify::new(),
            keeps_trace,
            trace: RefCell::default(),
            counts: RefCell::default(),
            digest: Cell::new(0),
            steps: Cell::new(0),
            config,
        })
    }

    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(super) fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.random.borrow_mut().chance(per_million)
    }

    pub(super) fn pick<T: Copy>(&self, of: &[T]) -> T {
        *self.random.borrow_mut().pick(of)
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound)
    }

    /// Picks an index by weight.
    pub(super) fn weighted(&self, weights: &[usize]) -> Option<usize> {
        let all: usize = weights.iter().sum();
        let mut rest = if all == 0 { return None } else { self.below(all) };
        weights.iter().position(|&weight| {
            let is_this = rest < weight;
            rest = rest.saturating_sub(weight);
            is_this
        })
    }

    pub(super) fn latency(&self) -> Duration {
        let (least, most) = self.config.latency;
        let mut random = self.random.borrow_mut();
        let more = if self.is_slow.get() { random.between(0, 1500) } else { 0 };
        Duration::from_millis(random.between(least, most) + more)
    }

    /// When a segment sent now arrives.
    pub(super) fn arrival(&self) -> Instant {
        let lost = if !self.is_calm.get() && self.chance(self.config.losses) {
            self.pick(&[200, 400, 800])
        } else {
            0
        };
        Instant::now() + self.latency() + Duration::from_millis(lost)
    }

    /// How many of `len` bytes are taken together.
    pub(super) fn some_of(&self, len: usize) -> usize {
        if len > 1 && self.chance(self.config.parts) { 1 + self.below(len - 1) } else { len }
    }

    pub(super) fn next_connection(&self) -> usize {
        self.opened.set(self.opened.get() + 1);
        self.opened.get()
    }

    pub(super) fn is_path_cut_off(&self, process: ProcessId, server: ServerId) -> bool {
        self.cut_off.borrow().contains(&(process, server))
    }

    pub(super) fn is_cut_off(&self, connection: &Connection) -> bool {
        connection.is_blocked.get() || self.is_path_cut_off(connection.process, connection.server)
    }

    /// The processes with an open store.
    pub(super) fn alive(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().filter(|process| process.is_open()).cloned().collect()
    }

    pub(super) fn is_dead(&self, process: ProcessId) -> bool {
        // The store connects while its process is being started.
        self.processes.borrow().get(process).is_some_and(|process| process.is_dead.get())
    }

    /// The range of slots of a key.
    pub(super) fn range_of(&self, key: &[u8]) -> usize {
        match self.config.deployment {
            Deployment::Cluster => usize::from(slot_of(key)) * self.owners.borrow().len() / SLOTS,
            _ => 0,
        }
    }

    /// Starts a new epoch: a server has received slots.
    pub(super) fn begin_epoch(&self, server: ServerId) {
        let mut epochs = self.epochs.borrow_mut();
        epochs[server] = epochs.iter().max().map_or(0, |last| last + 1);
    }

    /// The server that holds a key.
    pub(super) fn holder(&self, key: &[u8]) -> &Rc<Server> {
        let range = self.range_of(key);
        let owner = &self.servers[self.owners.borrow()[range]];
        match self.moving.borrow().get(&range) {
            Some(target) if owner.data.borrow().get(key).is_none() => &self.servers[*target],
            _ => owner,
        }
    }

    /// The session of a key.
    pub(super) fn session_of(&self, key: &[u8]) -> Option<usize> {
        (0..self.config.sessions).find(|session| session_key(*session) == key)
    }

    /// A server has carried out a write of a session, which it held as `before`.
    pub(super) fn has_written(&self, session: usize, before: Option<&Row>) {
        if let Some(after) = self.truth(session)
            && before.is_none_or(|before| before.version != after.version)
        {
            self.histories.borrow_mut()[session].stored(after.version, self.now());
        }
    }

    /// The state of a session on the servers.
    pub(super) fn truth(&self, session: usize) -> Option<Row> {
        let key = session_key(session);
        let data = self.holder(&key).data.borrow();
        let entry =
            data.get(&key).filter(|entry| entry.expires.is_none_or(|expires| expires >= self.now()))?;
        let Value::Text(text) = &entry.value else { return None };
        let record: serde_json::Value = serde_json::from_slice(text).expect("a record");
        let version = record["session"]["v"].as_u64().expect("a version") as u32;
        let user = record["user"].as_str().map(|user| user[1..].parse().expect("a user"));
        let expires = record["expires"].as_i64().expect("an expiry");
        Some(Row { user, expires, version, may_be_unnamed: false })
    }

    /// Adds index entries of sessions that ended long ago.
    pub(super) fn add_old_entries(&self, user: usize) {
        let key = index_key(user);
        let entries = (0..self.config.old_entries).map(|at| (format!("old {at}").into_bytes(), at as f64));
        let value = Value::Set(entries.collect());
        if self.config.old_entries > 0 {
            let end = self.now() + 600_000_000;
            self.holder(&key).data.borrow_mut().put(&key, Some(Entry { value, expires: Some(end) }));
        }
    }

    /// Whether a user's index names a session.
    pub(super) fn is_named(&self, user: usize, session: usize) -> bool {
        let key = index_key(user);
        let data = self.holder(&key).data.borrow();
        let is_there = data.get(&key).is_some_and(|entry| entry.expires.is_none_or(|end| end >= self.now()));
        is_there && matches!(data.score(&key, session_id(session).as_bytes()), Ok(Some(_)))
    }

    pub(super) fn begin(&self, session: usize, op: Op, process: ProcessId) -> CallId {
        self.histories.borrow_mut()[session].begin(op, process, self.now())
    }

    pub(super) fn end(&self, session: usize, call: CallId, ending: &Ending) {
        let ended = self.histories.borrow_mut()[session].end(call, ending, self.now());
        if let Err(why) = ended {
            self.fail(format!("session {session}: call {call} ended with {ending:?}, {why}"));
        }
    }

    /// Servers have lost data.
    pub(super) fn lose(&self) {
        let truths: Vec<_> = (0..self.config.sessions).map(|session| self.truth(session)).collect();
        self.note("data is lost", &[]);
        for (history, truth) in self.histories.borrow_mut().iter_mut().zip(truths) {
            history.lose(truth.as_ref(), self.now());
        }
    }

    /// Whether no bytes are on their way.
    pub(super) fn is_quiet(&self) -> bool {
        self.connections.borrow().iter().all(|connection| connection.is_idle())
            && self.servers.iter().all(|server| server.is_idle())
    }

    /// Runs `work` after a delay.
    pub(super) fn later(self: &Rc<Self>, millis: u64, work: impl FnOnce(&Rc<Self>) + 'static) {
        let world = Rc::clone(self);
        spawn_local(async move {
            sleep(Duration::from_millis(millis)).await;
            if !world.is_over() {
                work(&world);
            }
        });
    }

    /// Records an event.
    pub(super) fn note(&self, what: &'static str, numbers: &[usize]) {
        // The seed does not decide in which order the tasks end then.
        if self.is_over() {
            return;
        }
        self.steps.set(self.steps.get() + 1);
        let now = self.clock.0.elapsed().as_millis() as u64;
        let bytes =
            what.bytes().map(u64::from).chain(numbers.iter().map(|number| *number as u64)).chain([now]);
        let mix = |digest: u64, number: u64| (digest ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.digest.set(bytes.fold(self.digest.get(), mix));
        if self.keeps_trace {
            *self.counts.borrow_mut().entry(what).or_default() += 1;
            self.trace.borrow_mut().push(format!("{now:>8} ms  {what} {numbers:?}"));
        }
    }

    /// Adds details to the trace, if it is kept.
    pub(super) fn detail(&self, what: impl FnOnce() -> String) {
        if self.keeps_trace {
            self.trace.borrow_mut().push(format!("{:>12} {}", "", what()));
        }
    }

    pub(super) fn note_command(
        &self,
        server: &Server,
        connection: &Connection,
        command: &Command,
        reply: &Reply,
    ) {
        let kind = match reply {
            Reply::Error(_) => "a command is refused",
            _ => "a command is done",
        };
        let sum =
            command.iter().flatten().fold(0, |sum: usize, byte| sum * 31 % 1_000_003 + usize::from(*byte));
        self.note(kind, &[server.id, connection.id, sum]);
        self.detail(|| {
            let args: Vec<_> = command.iter().map(|arg| show(arg)).collect();
            let mut bytes = Vec::new();
            super::data::encode(reply, &mut bytes);
            format!("{} -> {}", args.join(" "), show(&bytes))
        });
    }

    pub(super) fn traced(&self) -> String {
        self.trace.borrow().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Records a violation, which ends the simulation.
    pub(super) fn fail(&self, what: String) {
        self.detail(|| format!("VIOLATION {what}"));
        self.violation.borrow_mut().get_or_insert(what);
        self.finish();
    }

    pub(super) fn finish(&self) {
        self.is_over.set(true);
        self.over.notify_one();
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.violation.borrow().clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }
}

fn show(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.starts_with("-- ") {
        text.lines().next().unwrap_or_default().into()
    } else {
        text.escape_debug().collect()
    }
}

pub(super) fn session_id(session: usize) -> String {
    format!("s{session}")
}

fn index_key(user: usize) -> Vec<u8> {
    format!("fluid:user#\"u{user}\"").into_bytes()
}

pub(super) fn session_key(session: usize) -> Vec<u8> {
    format!("fluid:sess#s{session}").into_bytes()
}
