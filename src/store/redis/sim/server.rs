//! A server: a Redis server with its data, a replica, a node of a cluster, or a sentinel. It runs commands one after
//! another, in order of arrival.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::data::{self, Command, Data, Entry, error};
use super::network::{Connection, End, PORT, host_of};
use super::scripts;
use super::world::{Deployment, World};
use crate::clock::Clock;
use crate::store::redis::resp::{Reply, SLOTS};

pub(super) type ServerId = usize;

/// A change on its way to a replica: when it arrives, its key, and the new value.
pub(super) type Replicated = (Instant, Vec<u8>, Option<Entry>);

/// What a server knows about the others. A sentinel derives the primary from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The owner of each range of slots.
    pub owners: Vec<ServerId>,
    /// For each server, the epoch in which it last received slots.
    pub epochs: Vec<u64>,
}

impl View {
    fn epoch(&self) -> u64 {
        self.epochs.iter().copied().max().unwrap_or(0)
    }
}

pub(super) struct Server {
    pub id: ServerId,
    pub is_sentinel: bool,
    pub data: RefCell<Data>,
    /// An earlier state, for a restart from a snapshot.
    pub snapshot: RefCell<Data>,
    scripts: RefCell<BTreeSet<&'static str>>,
    pub is_up: Cell<bool>,
    pub is_paused: Cell<bool>,
    pub is_readonly: Cell<bool>,
    /// How many milliseconds a command takes.
    pub cost: Cell<u64>,
    /// An error, and how often in a million the server refuses commands with it.
    pub refusals: Cell<Option<(&'static str, u32)>>,
    /// Counts its starts.
    starts: Cell<u64>,
    pub replica_of: Cell<Option<ServerId>>,
    /// Changes that a replica has not applied yet.
    pub log: RefCell<VecDeque<Replicated>>,
    pub view: RefCell<View>,
    inbox: RefCell<VecDeque<(Rc<Connection>, Command)>>,
    /// Whether a command is running.
    is_busy: Cell<bool>,
    pub changed: Notify,
}

impl Server {
    pub(super) fn new(id: ServerId, is_sentinel: bool, view: View) -> Rc<Self> {
        Rc::new(Self {
            id,
            is_sentinel,
            data: RefCell::default(),
            snapshot: RefCell::default(),
            scripts: RefCell::default(),
            is_up: Cell::new(true),
            is_paused: Cell::new(false),
            is_readonly: Cell::new(false),
            cost: Cell::new(0),
            refusals: Cell::new(None),
            starts: Cell::new(0),
            replica_of: Cell::new(None),
            log: RefCell::default(),
            view: RefCell::new(view),
            inbox: RefCell::default(),
            is_busy: Cell::new(false),
            changed: Notify::new(),
        })
    }

    pub(super) fn receive(&self, connection: &Rc<Connection>, command: Command) {
        if self.is_up.get() {
            self.inbox.borrow_mut().push_back((Rc::clone(connection), command));
            self.changed.notify_one();
        }
    }

    /// Drops the commands of a connection that have not run yet.
    pub(super) fn forget(&self, connection: &Rc<Connection>) {
        self.inbox.borrow_mut().retain(|(other, _)| !Rc::ptr_eq(other, connection));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inbox.borrow().is_empty() && !self.is_busy.get()
    }

    pub(super) fn resume(&self) {
        self.is_paused.set(false);
        self.changed.notify_one();
    }

    pub(super) fn stop(&self, world: &World) {
        self.is_up.set(false);
        self.drop_connections(world);
        self.flush_scripts();
    }

    pub(super) fn start(&self) {
        self.is_up.set(true);
        self.is_paused.set(false);
    }

    /// Forgets all scripts, like `SCRIPT FLUSH`.
    pub(super) fn flush_scripts(&self) {
        self.scripts.borrow_mut().clear();
    }

    /// Ends all connections, with their commands that have not run yet.
    pub(super) fn drop_connections(&self, world: &World) {
        self.starts.set(self.starts.get() + 1);
        self.inbox.borrow_mut().clear();
        for connection in world.connections.borrow().iter().filter(|connection| connection.server == self.id)
        {
            let end = if world.chance(500_000) { End::Closed } else { End::Reset };
            connection.end_at_server(world, end);
        }
    }

    /// Applies the changes that a replica has received.
    pub(super) fn catch_up(&self) {
        let (mut log, now) = (self.log.borrow_mut(), Instant::now());
        while log.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, key, entry)) = log.pop_front() else { break };
            self.data.borrow_mut().put(&key, entry);
        }
    }

    /// Makes this a replica of another server, with a full copy of its data.
    pub(super) fn follow(&self, primary: &Server) {
        self.replica_of.set(Some(primary.id));
        *self.data.borrow_mut() = primary.data.borrow().clone();
        self.log.borrow_mut().clear();
    }

    /// Runs until the simulation ends.
    pub(super) async fn serve(self: Rc<Self>, world: Rc<World>) {
        loop {
            let next = if self.is_up.get() && !self.is_paused.get() {
                self.inbox.borrow_mut().pop_front()
            } else {
                None
            };
            let Some((connection, command)) = next else {
                self.changed.notified().await;
                continue;
            };
            let starts = self.starts.get();
            self.is_busy.set(true);
            if self.cost.get() > 0 {
                sleep(Duration::from_millis(self.cost.get())).await;
                while self.is_paused.get() {
                    self.changed.notified().await;
                }
            }
            if self.starts.get() == starts {
                let reply = self.answer(&world, &connection, &command);
                world.note_command(&self, &connection, &command, &reply);
                let mut bytes = Vec::new();
                data::encode(&reply, &mut bytes);
                connection.reply(&world, bytes);
            }
            self.is_busy.set(false);
        }
    }

    fn answer(&self, world: &World, connection: &Connection, command: &Command) -> Reply {
        if let Some(reply) = self.answer_at_once(world, connection, command) {
            if matches!(reply, Reply::Error(_))
                && let Some(transaction) = &mut *connection.transaction.borrow_mut()
            {
                *transaction = None;
            }
            return reply;
        }
        let mut transaction = connection.transaction.borrow_mut();
        match (&command[0][..], &mut *transaction) {
            (b"MULTI", None) => {
                *transaction = Some(Some(Vec::new()));
                Reply::Okay
            }
            (b"EXEC", Some(commands)) => {
                let commands = commands.take();
                *transaction = None;
                match commands {
                    Some(commands) => {
                        Reply::Array(commands.iter().map(|command| self.carry_out(world, command)).collect())
                    }
                    None => error("EXECABORT Transaction discarded because of previous errors."),
                }
            }
            (_, Some(commands)) => {
                if let Some(commands) = commands {
                    commands.push(command.clone());
                }
                Reply::Status(b"QUEUED".to_vec())
            }
            (_, None) => self.carry_out(world, command),
        }
    }

    /// The reply to a command that does not access data, or a refusal.
    fn answer_at_once(&self, world: &World, connection: &Connection, command: &Command) -> Option<Reply> {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        if let Some((refusal, chance)) = self.refusals.get() {
            let concerns = match refusal.split(' ').next() {
                Some("OOM") => data::takes_memory(command, &self.data.borrow()),
                Some("NOREPLICAS") => data::is_write(command),
                // Redis runs these while it loads: in `COMMAND INFO` they have the flag "loading".
                Some("LOADING") => !matches!(&command[0][..], b"MULTI" | b"EXEC"),
                _ => data::key_of(command).is_some(),
            };
            if concerns && world.chance(chance) {
                return Some(error(refusal));
            }
        }
        match &args[..] {
            [b"PING"] => return Some(Reply::Status(b"PONG".to_vec())),
            [b"ROLE"] => {
                let role: &[u8] = if self.replica_of.get().is_some() { b"slave" } else { b"master" };
                return Some(Reply::Array(vec![Reply::Bytes(role.to_vec())]));
            }
            [b"HELLO", b"3"] => return Some(Reply::Array(vec![text("proto"), Reply::Number(3)])),
            [b"SUBSCRIBE", channel] if self.is_sentinel => {
                connection.is_subscribed.set(true);
                let channel = Reply::Bytes(channel.to_vec());
                return Some(Reply::Push(vec![text("subscribe"), channel, Reply::Number(1)]));
            }
            [b"SENTINEL", rest @ ..] if self.is_sentinel => {
                return Some(self.answer_as_sentinel(world, rest));
            }
            [b"CLUSTER", b"SLOTS"] if world.config.deployment == Deployment::Cluster => {
                return Some(self.slots());
            }
            [b"CLUSTER", b"INFO"] if world.config.deployment == Deployment::Cluster => {
                return Some(text(&format!("cluster_current_epoch:{}\r\n", self.view.borrow().epoch())));
            }
            [b"CLUSTER", b"NODES"] if world.config.deployment == Deployment::Cluster => {
                return Some(self.nodes(world));
            }
            [b"ASKING"] => {
                connection.is_asking.set(true);
                return Some(Reply::Okay);
            }
            _ => {}
        }
        let is_asking = connection.is_asking.take();
        if let Some(redirect) = self.redirect(world, command, is_asking) {
            return Some(redirect);
        }
        let is_write = data::is_write(command);
        let is_replica = self.replica_of.get().is_some();
        if is_write && (is_replica || self.is_readonly.get()) {
            return Some(error("READONLY You can't write against a read only replica."));
        }
        if command[0].starts_with(b"EVAL") {
            let Some(script) = scripts::of(command) else { return Some(error("ERR an unknown script")) };
            if command[0] == b"EVAL" {
                self.scripts.borrow_mut().insert(script.digest);
            } else if !self.scripts.borrow().contains(script.digest) {
                return Some(error("NOSCRIPT No matching script. Please use EVAL."));
            }
        }
        // As servers before Redis 7 do.
        let is_unknown = world.config.is_old && command[0] == b"PEXPIREAT" && command.len() > 3;
        is_unknown.then(|| error("ERR wrong number of arguments for 'pexpireat' command"))
    }

    fn carry_out(&self, world: &World, command: &Command) -> Reply {
        // A replica that was a primary until now has all data of the new one.
        let holder = &world.servers[self.replica_of.get().unwrap_or(self.id)];
        let is_write = data::is_write(command);
        let session = data::keys_of(command).filter(|_| is_write).find_map(|key| world.session_of(key));
        let before = session.and_then(|session| world.truth(session));
        let reply = holder.data.borrow_mut().carry_out(command, world.clock.now(), world.config.page);
        if let Some(session) = session {
            world.has_written(session, before.as_ref());
        }
        if is_write {
            data::keys_of(command).for_each(|key| self.replicate(world, key));
        }
        reply
    }

    /// Sends a change to the replicas.
    pub(super) fn replicate(&self, world: &World, key: &[u8]) {
        for replica in world.servers.iter().filter(|other| other.replica_of.get() == Some(self.id)) {
            let entry = self.data.borrow().get(key).cloned();
            let mut log = replica.log.borrow_mut();
            let lag = Duration::from_millis(*world.random.borrow_mut().pick(&world.config.lags));
            let due = Instant::now() + lag;
            let due = log.back().map_or(due, |(last, ..)| due.max(*last));
            log.push_back((due, key.to_vec(), entry));
            drop(log);
            replica.catch_up();
        }
    }

    /// The redirect of a cluster node for a key that it does not own.
    fn redirect(&self, world: &World, command: &Command, is_asking: bool) -> Option<Reply> {
        if world.config.deployment != Deployment::Cluster {
            return None;
        }
        let key = data::key_of(command)?;
        let range = world.range_of(key);
        let (owner, target) = (world.owners.borrow()[range], world.moving.borrow().get(&range).copied());
        let to = |kind: &str, server: ServerId| {
            let slot = crate::store::redis::resp::slot_of(key);
            Some(error(&format!("{kind} {slot} {}:{PORT}", host_of(server))))
        };
        if owner == self.id {
            return match target {
                Some(target) if self.data.borrow().get(key).is_none() => to("ASK", target),
                _ => None,
            };
        }
        if target == Some(self.id) && is_asking {
            return None;
        }
        let known = self.view.borrow().owners[range];
        to("MOVED", if known == self.id { owner } else { known })
    }

    fn slots(&self) -> Reply {
        let view = self.view.borrow();
        let ranges = view.owners.len();
        let each = view.owners.iter().enumerate().map(|(range, owner)| {
            let (first, last) = slots_of(range, ranges);
            let node = vec![text(&host_of(*owner)), Reply::Number(PORT.into()), text(&node_id(*owner))];
            Reply::Array(vec![Reply::Number(first as i64), Reply::Number(last as i64), Reply::Array(node)])
        });
        Reply::Array(each.collect())
    }

    /// The reply to `CLUSTER NODES`. Each node lists only its own moving slots.
    fn nodes(&self, world: &World) -> Reply {
        let view = self.view.borrow();
        let ranges = view.owners.len();
        let mut lines = String::new();
        for (other, epoch) in view.epochs.iter().enumerate() {
            let is_own = other == self.id;
            let is_primary =
                if is_own { self.replica_of.get().is_none() } else { view.owners.contains(&other) };
            let flags = format!(
                "{}{}",
                if is_own { "myself," } else { "" },
                if is_primary { "master" } else { "slave" }
            );
            let (id, host) = (node_id(other), host_of(other));
            lines.push_str(&format!("{id} {host}:{PORT}@1{PORT} {flags} - 0 0 {epoch} connected"));
            for range in (0..ranges).filter(|range| is_primary && view.owners[*range] == other) {
                let (first, last) = slots_of(range, ranges);
                lines.push_str(&format!(" {first}-{last}"));
            }
            for (range, target) in world.moving.borrow().iter().filter(|_| is_own && is_primary) {
                let (first, last) = slots_of(*range, ranges);
                let source = world.owners.borrow()[*range];
                for slot in first..=last {
                    if source == self.id {
                        lines.push_str(&format!(" [{slot}->-{}]", node_id(*target)));
                    } else if *target == self.id {
                        lines.push_str(&format!(" [{slot}-<-{}]", node_id(source)));
                    }
                }
            }
            lines.push('\n');
        }
        text(&lines)
    }

    fn answer_as_sentinel(&self, world: &World, question: &[&[u8]]) -> Reply {
        let port = PORT.to_string();
        let fields = |fields: &[&str]| Reply::Array(fields.iter().map(|field| text(field)).collect());
        match question {
            [b"get-master-addr-by-name", _] => fields(&[&host_of(self.view.borrow().owners[0]), &port]),
            [b"MASTER", _] => fields(&["config-epoch", &self.view.borrow().epoch().to_string()]),
            [b"SENTINELS", _] => {
                let others = world.servers.iter().filter(|other| other.is_sentinel && other.id != self.id);
                let each = others.map(|other| {
                    let flags = if other.is_up.get() { "sentinel" } else { "s_down,sentinel" };
                    let (ip, id) = (host_of(other.id), node_id(other.id));
                    fields(&["ip", &ip, "port", &port, "runid", &id, "flags", flags])
                });
                Reply::Array(each.collect())
            }
            [b"MYID"] => text(&node_id(self.id)),
            _ => error("ERR unknown subcommand"),
        }
    }

    /// Learns the owners of slots. A sentinel announces a change to its subscribers.
    pub(super) fn learn(&self, world: &World) {
        let view = View { owners: world.owners.borrow().clone(), epochs: world.epochs.borrow().clone() };
        let is_news = self.view.replace(view.clone()) != view;
        if !self.is_sentinel || !is_news || !self.is_up.get() || self.is_paused.get() {
            return;
        }
        let mut bytes = Vec::new();
        data::encode(&Reply::Push(vec![text("message"), text("+switch-master"), text("main")]), &mut bytes);
        let connections = world.connections.borrow();
        let subscribed =
            |connection: &&Rc<Connection>| connection.server == self.id && connection.is_subscribed.get();
        connections.iter().filter(subscribed).for_each(|connection| connection.reply(world, bytes.clone()));
    }
}

fn text(text: &str) -> Reply {
    Reply::Bytes(text.as_bytes().to_vec())
}

fn node_id(server: ServerId) -> String {
    format!("node-{server}")
}

/// The first and the last slot of a range.
fn slots_of(range: usize, ranges: usize) -> (usize, usize) {
    let edge = |range: usize| (range * SLOTS).div_ceil(ranges);
    (edge(range), edge(range + 1) - 1)
}
