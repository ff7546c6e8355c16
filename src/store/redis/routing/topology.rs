//! The servers of a store, and the owner of each slot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::super::connection::{Connector, MultiplexedConnection, ask};
use super::super::options::{Address, Servers};
use super::super::resp::{Request, SLOTS};
use super::node::{Network, Node, NodeConnections, NodeId};
use super::sentinel::Sentinels;
use super::within;

/// How long a server has to answer a `PING` on a suspect connection.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

pub struct Topology {
    pub network: Rc<Network>,
    nodes: RefCell<BTreeMap<Address, Rc<Node>>>,
    /// The primary of each slot. Without a cluster there is one element.
    primaries: RefCell<Vec<Option<Rc<Node>>>>,
    /// The cluster epoch of the current slot map.
    epoch: Cell<u64>,
    /// Counts the slot maps.
    slots_version: Cell<u64>,
    next_id: Cell<NodeId>,
    /// The node to ask first for the next slot map.
    first_to_ask: RefCell<Option<Rc<Node>>>,
    /// Why there is no slot map.
    pub last_error: RefCell<Rc<str>>,
    is_closed: Cell<bool>,
}

impl Topology {
    /// Starts to connect, and to follow sentinels. For a cluster, `cluster::follow` does that.
    pub fn new(servers: Servers, connector: Connector) -> Rc<Self> {
        let first = match &servers {
            Servers::Single { address, .. } => Some(address.clone()),
            Servers::Sentinel { sentinels, .. } => Some(sentinels[0].0.clone()),
            Servers::Cluster { .. } => None,
        };
        let sentinels = Sentinels::follow(&servers, &connector);
        let (changed, outdated) = (Notify::new(), Notify::new());
        let topology = Rc::new(Self {
            network: Rc::new(Network { servers, connector, sentinels, changed, outdated }),
            nodes: RefCell::default(),
            primaries: RefCell::default(),
            epoch: Cell::new(0),
            slots_version: Cell::new(0),
            next_id: Cell::new(0),
            first_to_ask: RefCell::default(),
            last_error: RefCell::new("no connection yet".into()),
            is_closed: Cell::new(false),
        });
        if let Some(address) = first {
            *topology.primaries.borrow_mut() = vec![Some(topology.node(&address))];
            topology.report_primaries();
        }
        topology
    }

    /// Ends all connections.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.network.outdated.notify_one();
        if let Some(sentinels) = &self.network.sentinels {
            sentinels.close();
        }
        self.nodes.borrow().values().for_each(|node| node.retire());
    }

    /// Whether one server holds all keys.
    pub fn is_one_server(&self) -> bool {
        !matches!(self.network.servers, Servers::Cluster { .. })
    }

    /// The primary of a slot, if it is known.
    fn primary(&self, slot: u16) -> Option<Rc<Node>> {
        let primaries = self.primaries.borrow();
        let at = if self.is_one_server() { 0 } else { usize::from(slot) };
        primaries.get(at)?.clone()
    }

    /// All servers that own slots.
    pub fn all_primaries(&self) -> Vec<Rc<Node>> {
        let mut all: Vec<Rc<Node>> = Vec::new();
        for node in self.primaries.borrow().iter().flatten() {
            // Most neighbouring slots have the same node.
            if !all.last().is_some_and(|last| Rc::ptr_eq(last, node))
                && !all.iter().any(|other| Rc::ptr_eq(other, node))
            {
                all.push(Rc::clone(node));
            }
        }
        all
    }

    /// The primary of a slot, and the generation of its connection.
    pub fn connection(&self, slot: u16) -> Option<(Rc<Node>, u64)> {
        self.primary(slot).map(|node| (Rc::clone(&node), node.generation()))
    }

    /// Waits until the primary of a slot is connected.
    pub async fn connections_to(&self, slot: u16) -> NodeConnections {
        loop {
            let changed = self.network.changed.notified();
            match self.primary(slot) {
                Some(node) => match node.connections() {
                    Some(connections) => return connections,
                    None => self.network.outdated.notify_one(),
                },
                None => self.network.outdated.notify_one(),
            }
            changed.await;
        }
    }

    /// Waits until a node is connected. `None` if it was retired.
    pub async fn connections_of(&self, node: &Node) -> Option<NodeConnections> {
        loop {
            let changed = self.network.changed.notified();
            if node.is_retired() {
                return None;
            }
            if let Some(connections) = node.connections() {
                return Some(connections);
            }
            changed.await;
        }
    }

    /// Waits until the primaries are known.
    pub async fn known(&self) {
        loop {
            let changed = self.network.changed.notified();
            if !self.primaries.borrow().is_empty() {
                return;
            }
            self.network.outdated.notify_one();
            changed.await;
        }
    }

    /// Why the primary of a slot has no connection. `None` if it has one.
    pub fn last_error(&self, slot: u16) -> Option<String> {
        match self.primary(slot) {
            Some(node) => node.last_error(),
            None => Some(self.last_error.borrow().to_string()),
        }
    }

    /// The target of a `MOVED` or `ASK` redirect. `target` is `host:port`.
    pub fn redirect_target(self: &Rc<Self>, target: &str) -> Option<Rc<Node>> {
        let (host, port) = target.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // An empty host means the server that sent the redirect. The next slot map will show where the slot is.
        let is_known = !host.is_empty() && !self.is_closed.get();
        is_known.then(|| self.node_at(&Address { host: host.into(), port }))
    }

    /// The node at an address that another node has named. It is kept for a while.
    pub fn node_at(self: &Rc<Self>, address: &Address) -> Rc<Node> {
        let node = self.node(address);
        node.keep();
        node
    }

    /// Requests a new slot map.
    pub fn request_refresh(&self) {
        self.network.outdated.notify_one();
    }

    /// Handles `MOVED`: the slot map is outdated, and the target of the redirect is asked first for a new one.
    pub fn moved(&self, to: Option<&Rc<Node>>) {
        if let Some(node) = to {
            *self.first_to_ask.borrow_mut() = Some(Rc::clone(node));
        }
        self.request_refresh();
    }

    pub fn take_first_to_ask(&self) -> Option<Rc<Node>> {
        self.first_to_ask.take()
    }

    /// The cluster epoch of the slot map.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Ends connections whose server has been silent for `timeout` with a request pending, or whose oldest reply is
    /// twice as late. Idle connections become suspect and are checked: if the network has dropped one connection, it
    /// may have dropped all.
    pub fn cut_late(&self, timeout: Duration) {
        for node in self.nodes.borrow().values() {
            let Some(NodeConnections { writes, reads, .. }) = node.connections() else { continue };
            for connection in [writes, reads] {
                if !connection.is_idle() {
                    connection.cut_if_late(timeout);
                } else if !connection.is_suspect.replace(true) {
                    spawn_local(cut_unless_alive(connection, PROBE_TIMEOUT.min(timeout / 2)));
                }
            }
        }
    }

    /// Returns the node at an address, and adds it if it is new.
    fn node(self: &Rc<Self>, address: &Address) -> Rc<Node> {
        if let Some(node) = self.nodes.borrow().get(address) {
            return Rc::clone(node);
        }
        let id = self.next_id.replace(self.next_id.get() + 1);
        let node = Node::new(id, address.clone());
        self.nodes.borrow_mut().insert(address.clone(), Rc::clone(&node));
        spawn_local(Rc::clone(&node).reconnect_loop(Rc::clone(&self.network)));
        node
    }

    /// The owners of all slots, as the first slot, the last slot and the node of each range.
    pub fn slot_ranges(&self) -> Vec<(u16, u16, NodeId)> {
        let mut ranges: Vec<(u16, u16, NodeId)> = Vec::new();
        for (slot, node) in (0..).zip(self.primaries.borrow().iter()) {
            let Some(node) = node else { continue };
            match ranges.last_mut() {
                Some((_, last, id)) if *id == node.id() && *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot, node.id())),
            }
        }
        ranges
    }

    /// Identifies the current slot map.
    pub fn slots_version(&self) -> u64 {
        self.slots_version.get()
    }

    /// Resets the event loops' connections.
    pub fn cut_event_loops(&self) {
        self.nodes.borrow().values().for_each(|node| node.cut_event_loop());
    }

    /// Stops the event loops from sending on their connections, but lets them receive the remaining replies.
    pub fn drain_event_loops(&self) {
        self.nodes.borrow().values().for_each(|node| node.drain_event_loop());
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// All nodes, primaries or not.
    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().values().cloned().collect()
    }

    /// Whether every slot has a primary with a connection.
    pub fn is_whole(&self) -> bool {
        let primaries = self.primaries.borrow();
        primaries.iter().all(|node| node.as_ref().is_some_and(|node| node.connections().is_some()))
    }

    /// Applies a new slot map, and retires all nodes that are not in it.
    pub fn apply_slot_map(self: &Rc<Self>, epoch: u64, slots: &[(u16, u16, Address)]) {
        if self.is_closed.get() {
            return;
        }
        self.epoch.set(epoch);
        let mut primaries = vec![None; SLOTS];
        for (first, last, address) in slots {
            let node = self.node(address);
            for slot in *first..=*last {
                if let Some(primary) = primaries.get_mut(usize::from(slot)) {
                    *primary = Some(Rc::clone(&node));
                }
            }
        }
        let before = self.primaries.replace(primaries);
        self.report_failovers(&before);
        self.slots_version.set(self.slots_version.get() + 1);
        // Retires the nodes that are no longer needed.
        self.nodes.borrow_mut().retain(|address, node| {
            // The slot map may be older than a redirect, and a new node has no slots until the first one has moved.
            let is_needed = slots.iter().any(|(_, _, primary)| primary == address) || node.is_kept();
            if !is_needed {
                node.retire();
            }
            is_needed
        });
        self.report_primaries();
        self.network.changed.notify_waiters();
    }

    /// Reports each server that has lost all its slots, with the new owner of the first of them.
    fn report_failovers(&self, before: &[Option<Rc<Node>>]) {
        let all = self.all_primaries();
        let mut reported: Vec<NodeId> = all.iter().map(|node| node.id()).collect();
        for (old, new) in before.iter().zip(self.primaries.borrow().iter()) {
            if let (Some(old), Some(new)) = (old, new)
                && !reported.contains(&old.id())
            {
                reported.push(old.id());
                self.network.connector.monitor.failed_over(&old.address(), &new.address());
            }
        }
    }

    fn report_primaries(&self) {
        let all = self.all_primaries().iter().map(|node| node.id()).collect();
        let has_gap = self.primaries.borrow().iter().any(Option::is_none);
        self.network.connector.monitor.set_primaries(all, has_gap);
    }
}

/// Ends a connection if its server does not answer a `PING` in time.
async fn cut_unless_alive(connection: Rc<MultiplexedConnection>, limit: Duration) {
    let ping = Request::read(Default::default()).command(&[b"PING"]);
    if within(limit, ask(&connection, ping)).await.is_err() {
        connection.cut();
    }
    connection.is_suspect.set(false);
}
