//! A server: a Redis with its data, a replica, a node of a cluster, or a sentinel. It carries out one command after another,
//! in the order in which they arrive.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::data::{self, Command, Data, Entry, error};
use super::network::{Connection, End, PORT, host_of};
use super::scripts;
use super::world::{Topology, World};
use crate::clock::Clock;
use crate::store::redis::resp::{Reply, SLOTS};

pub(super) type ServerId = usize;

/// A change on its way to a replica: when it arrives, its key, and what is under that then.
pub(super) type Replicated = (Instant, Vec<u8>, Option<Entry>);

pub(super) struct Server {
    pub id: ServerId,
    pub is_sentinel: bool,
    pub data: RefCell<Data>,
    /// An earlier state, for a restart that comes back with that.
    pub snapshot: RefCell<Data>,
    scripts: RefCell<BTreeSet<&'static str>>,
    pub is_up: Cell<bool>,
    pub is_paused: Cell<bool>,
    pub is_readonly: Cell<bool>,
    /// How long a command takes, in milliseconds.
    pub cost: Cell<u64>,
    /// With what it refuses commands, and how often in a million.
    pub refusals: Cell<Option<(&'static str, u32)>>,
    /// Counts its starts.
    starts: Cell<u64>,
    pub replica_of: Cell<Option<ServerId>>,
    /// What a replica has not applied yet.
    pub log: RefCell<VecDeque<Replicated>>,
    /// Who it believes to have each range of slots. For a sentinel: who the primary is.
    pub view: RefCell<Vec<ServerId>>,
    inbox: RefCell<VecDeque<(Rc<Connection>, Command)>>,
    pub changed: Notify,
}

impl Server {
    pub(super) fn new(id: ServerId, is_sentinel: bool, view: Vec<ServerId>) -> Rc<Self> {
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
            changed: Notify::new(),
        })
    }

    pub(super) fn receive(&self, connection: &Rc<Connection>, command: Command) {
        if self.is_up.get() {
            self.inbox.borrow_mut().push_back((Rc::clone(connection), command));
            self.changed.notify_one();
        }
    }

    /// Drops what a connection has said and was not yet carried out.
    pub(super) fn forget(&self, connection: &Rc<Connection>) {
        self.inbox.borrow_mut().retain(|(other, _)| !Rc::ptr_eq(other, connection));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inbox.borrow().is_empty()
    }

    pub(super) fn resume(&self) {
        self.is_paused.set(false);
        self.changed.notify_one();
    }

    pub(super) fn stop(&self, world: &World) {
        self.is_up.set(false);
        self.drop_connections(world);
        self.scripts.borrow_mut().clear();
    }

    pub(super) fn start(&self) {
        self.is_up.set(true);
        self.is_paused.set(false);
    }

    /// Ends all connections, with what was not carried out of them.
    pub(super) fn drop_connections(&self, world: &World) {
        self.starts.set(self.starts.get() + 1);
        self.inbox.borrow_mut().clear();
        for connection in world.connections.borrow().iter().filter(|connection| connection.server == self.id)
        {
            let end = if world.chance(500_000) { End::Closed } else { End::Reset };
            connection.end_at_server(world, end);
        }
    }

    /// What a replica has received by now becomes its data.
    pub(super) fn catch_up(&self) {
        let (mut log, now) = (self.log.borrow_mut(), Instant::now());
        while log.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, key, entry)) = log.pop_front() else { break };
            self.data.borrow_mut().put(&key, entry);
        }
    }

    /// Begins to follow another server, with all that it has.
    pub(super) fn follow(&self, primary: &Server) {
        self.replica_of.set(Some(primary.id));
        *self.data.borrow_mut() = primary.data.borrow().clone();
        self.log.borrow_mut().clear();
    }

    /// Serves until the simulation ends.
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
        }
    }

    fn answer(&self, world: &World, connection: &Connection, command: &Command) -> Reply {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        // Of a creation that is one request the server refuses both parts, or none (see `sim`).
        let follows_refused = connection.is_entry_refused.take() && args[0] == b"SET";
        if let Some((refusal, chance)) = self.refusals.get() {
            let concerns = match refusal.split(' ').next() {
                Some("OOM") => data::takes_memory(command),
                Some("NOREPLICAS") => data::is_write(command),
                Some("LOADING") => true,
                _ => data::key_of(command).is_some(),
            };
            if follows_refused || (concerns && world.chance(chance)) {
                connection.is_entry_refused.set(args[0] == b"ZADD");
                return error(refusal);
            }
        }
        match &args[..] {
            [b"PING"] => return Reply::Status(b"PONG".to_vec()),
            [b"AUTH", ..] | [b"SELECT", _] => return Reply::Okay,
            [b"ROLE"] => {
                let role: &[u8] = if self.replica_of.get().is_some() { b"slave" } else { b"master" };
                return Reply::Array(vec![Reply::Bytes(role.to_vec())]);
            }
            [b"SENTINEL", b"get-master-addr-by-name", _] if self.is_sentinel => {
                let primary = self.view.borrow()[0];
                let port = PORT.to_string().into_bytes();
                return Reply::Array(vec![Reply::Bytes(host_of(primary).into_bytes()), Reply::Bytes(port)]);
            }
            [b"CLUSTER", b"SLOTS"] if world.config.topology == Topology::Cluster => return self.slots(),
            [b"ASKING"] => {
                connection.is_asking.set(true);
                return Reply::Okay;
            }
            _ => {}
        }
        let is_asking = connection.is_asking.take();
        if let Some(redirect) = self.redirect(world, command, is_asking) {
            return redirect;
        }
        let is_write = data::is_write(command);
        let is_replica = self.replica_of.get().is_some();
        if is_write && (is_replica || self.is_readonly.get() || follows_refused) {
            connection.is_entry_refused.set(args[0] == b"ZADD");
            return error("READONLY You can't write against a read only replica.");
        }
        if command[0].starts_with(b"EVAL") {
            let Some(script) = scripts::of(command) else { return error("ERR an unknown script") };
            if command[0] == b"EVAL" {
                self.scripts.borrow_mut().insert(script.digest);
            } else if !self.scripts.borrow().contains(script.digest) {
                return error("NOSCRIPT No matching script. Please use EVAL.");
            }
        }
        // A replica that was a primary until now has all that the new one has.
        let holder = &world.servers[self.replica_of.get().unwrap_or(self.id)];
        let reply = holder.data.borrow_mut().carry_out(command, world.clock.now(), world.config.page);
        if let Some(key) = data::key_of(command).filter(|_| is_write) {
            self.replicate(world, key);
        }
        reply
    }

    /// Has the replicas follow a change.
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

    /// Where a node of a cluster sends a client whose key it does not have.
    fn redirect(&self, world: &World, command: &Command, is_asking: bool) -> Option<Reply> {
        if world.config.topology != Topology::Cluster {
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
        let known = self.view.borrow()[range];
        to("MOVED", if known == self.id { owner } else { known })
    }

    fn slots(&self) -> Reply {
        let view = self.view.borrow();
        let ranges = view.len();
        let edge = |range: usize| (range * SLOTS).div_ceil(ranges) as i64;
        Reply::Array(
            view.iter()
                .enumerate()
                .map(|(range, owner)| {
                    let node = vec![
                        Reply::Bytes(host_of(*owner).into_bytes()),
                        Reply::Number(PORT.into()),
                        Reply::Bytes(format!("node-{owner}").into_bytes()),
                    ];
                    Reply::Array(vec![
                        Reply::Number(edge(range)),
                        Reply::Number(edge(range + 1) - 1),
                        Reply::Array(node),
                    ])
                })
                .collect(),
        )
    }
}
