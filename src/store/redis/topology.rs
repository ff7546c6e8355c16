//! The servers of a store: which there are, which one has a key, and how they are reached again when they are lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::link::{Link, in_words};
use super::options::{Address, Login, Servers};
use super::resp::{Reply, Request, SLOTS};
use super::server::{Connected, Dialler, ask, refusal};

/// How long to wait before a server that was not to be reached is tried again: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a cluster is asked for its slots while the node of some is not to be reached.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// And how often when all is well: nodes that come and go do not say so.
const ASK_ANYWAY: Duration = Duration::from_secs(60);

/// The connections to a server: one, or one more for what is only read, where writes wait for replicas on theirs and hold
/// up what comes after.
#[derive(Clone)]
pub(super) struct Links {
    writes: Rc<Link>,
    reads: Rc<Link>,
}

impl Links {
    pub(super) fn of(&self, request: &Request) -> &Link {
        if request.is_write { &self.writes } else { &self.reads }
    }

    pub(super) fn cut(&self) {
        self.writes.cut();
        self.reads.cut();
    }

    fn is_dead(&self) -> bool {
        self.writes.is_dead() || self.reads.is_dead()
    }
}

/// One server, to which there is a connection or the attempt at one for as long as it is known.
pub(super) struct Node {
    /// Of the primary that sentinels name it changes.
    address: RefCell<Address>,
    links: RefCell<Option<Links>>,
    /// Counts its connections.
    generation: Cell<u64>,
    /// That of a lane, which ends with the store's own: another server may be in this one's place then.
    lane: RefCell<Option<std::net::TcpStream>>,
    trouble: RefCell<Rc<str>>,
    is_gone: Cell<bool>,
    gone: Notify,
}

impl Node {
    fn new(address: Address) -> Rc<Self> {
        Rc::new(Self {
            address: RefCell::new(address),
            links: RefCell::default(),
            generation: Cell::new(0),
            lane: RefCell::default(),
            trouble: RefCell::new("no connection yet".into()),
            is_gone: Cell::new(false),
            gone: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> Address {
        self.address.borrow().clone()
    }

    /// Its connections, if there are any.
    pub(super) fn links(&self) -> Option<Links> {
        self.links.borrow().clone().filter(|links| !links.is_dead())
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn cut_lane(&self) {
        self.shut_lane(Shutdown::Both);
    }

    /// Has the lane send no more, but take what is answered yet: the store's own connection, on which little is said, may
    /// have ended for that alone.
    fn end_lane(&self) {
        self.shut_lane(Shutdown::Write);
    }

    fn shut_lane(&self, how: Shutdown) {
        if let Some(socket) = self.lane.take() {
            // It fails where the connection has ended already.
            let _ = socket.shutdown(how);
        }
    }

    fn leave(&self) {
        self.is_gone.set(true);
        self.gone.notify_one();
        self.cut_lane();
        if let Some(links) = self.links.take() {
            links.cut();
        }
    }
}

pub(super) struct Topology {
    servers: Servers,
    dialler: Dialler,
    nodes: RefCell<BTreeMap<Address, Rc<Node>>>,
    /// The primary of each slot; the one of all outside of clusters.
    primaries: RefCell<Vec<Option<Rc<Node>>>>,
    /// Counts the changes of that.
    version: Cell<u64>,
    /// A server was reached, or slots have moved.
    changed: Notify,
    /// A cluster is to be asked for its slots.
    outdated: Notify,
    trouble: RefCell<Rc<str>>,
    is_closed: Cell<bool>,
}

impl Topology {
    /// Begins to connect.
    pub(super) fn start(servers: Servers, dialler: Dialler) -> Rc<Self> {
        let topology = Rc::new(Self {
            servers,
            dialler,
            nodes: RefCell::default(),
            primaries: RefCell::default(),
            version: Cell::new(0),
            changed: Notify::new(),
            outdated: Notify::new(),
            trouble: RefCell::new("no connection yet".into()),
            is_closed: Cell::new(false),
        });
        match &topology.servers {
            Servers::Single { address, .. } => topology.keep_only(address.clone()),
            Servers::Sentinel { sentinels, .. } => topology.keep_only(sentinels[0].0.clone()),
            Servers::Cluster { .. } => {
                spawn_local(Rc::clone(&topology).follow_cluster());
            }
        }
        topology
    }

    fn keep_only(self: &Rc<Self>, address: Address) {
        let node = self.node(&address);
        *self.primaries.borrow_mut() = vec![Some(node)];
    }

    /// Lets go of all connections.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.outdated.notify_one();
        self.nodes.borrow().values().for_each(|node| node.leave());
    }

    /// Whether all keys are on one server.
    pub(super) fn is_one_server(&self) -> bool {
        !matches!(self.servers, Servers::Cluster { .. })
    }

    /// The server that has a slot, if it is known.
    fn primary(&self, slot: u16) -> Option<Rc<Node>> {
        let primaries = self.primaries.borrow();
        let at = if self.is_one_server() { 0 } else { usize::from(slot) };
        primaries.get(at)?.clone()
    }

    /// All servers that have slots.
    pub(super) fn all_primaries(&self) -> Vec<Rc<Node>> {
        let mut all: Vec<Rc<Node>> = Vec::new();
        for node in self.primaries.borrow().iter().flatten() {
            // Slots of one node are mostly side by side.
            if !all.last().is_some_and(|last| Rc::ptr_eq(last, node))
                && !all.iter().any(|other| Rc::ptr_eq(other, node))
            {
                all.push(Rc::clone(node));
            }
        }
        all
    }

    /// Changes with the map of the slots.
    pub(super) fn version(&self) -> u64 {
        self.version.get()
    }

    /// Waits until there is a connection to the server that has a slot.
    pub(super) async fn links_to(&self, slot: u16) -> Links {
        loop {
            let changed = self.changed.notified();
            match self.primary(slot) {
                Some(node) => match node.links() {
                    Some(links) => return links,
                    None => self.outdated.notify_one(),
                },
                None => self.outdated.notify_one(),
            }
            changed.await;
        }
    }

    /// Waits until there is a connection to this server.
    pub(super) async fn links_of(&self, node: &Node) -> Links {
        loop {
            let changed = self.changed.notified();
            if let Some(links) = node.links() {
                return links;
            }
            changed.await;
        }
    }

    /// Waits until all servers are known.
    pub(super) async fn known(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.primaries.borrow().is_empty() {
                return;
            }
            self.outdated.notify_one();
            changed.await;
        }
    }

    /// Why a slot's server is not to be reached; `None` where it is.
    pub(super) fn trouble(&self, slot: u16) -> Option<String> {
        let Some(node) = self.primary(slot) else { return Some(self.trouble.borrow().to_string()) };
        if node.links().is_some() {
            return None;
        }
        Some(format!("no connection to {}: {}", node.address.borrow(), node.trouble.borrow()))
    }

    /// The server of which another has told, by `MOVED` or `ASK`: its slot, and where it is.
    pub(super) fn told_of(self: &Rc<Self>, target: &str) -> Option<Rc<Node>> {
        let (host, port) = target.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // With no host it is the one that was asked; the map of the slots will say.
        (!host.is_empty() && !self.is_closed.get()).then(|| self.node(&Address { host: host.into(), port }))
    }

    /// The servers are no longer where they were.
    pub(super) fn ask_again(&self) {
        self.outdated.notify_one();
    }

    /// Ends connections on which nothing has come back for so long, though it should.
    pub(super) fn cut_silent(&self, patience: Duration) {
        for node in self.nodes.borrow().values() {
            if let Some(links) = node.links() {
                links.writes.cut_if_silent_for(patience);
                links.reads.cut_if_silent_for(patience);
            }
        }
    }

    /// The node at an address, which is new or known.
    fn node(self: &Rc<Self>, address: &Address) -> Rc<Node> {
        if let Some(node) = self.nodes.borrow().get(address) {
            return Rc::clone(node);
        }
        let node = Node::new(address.clone());
        self.nodes.borrow_mut().insert(address.clone(), Rc::clone(&node));
        spawn_local(Rc::clone(self).hold(Rc::clone(&node)));
        node
    }

    /// Connects to a server, and again whenever that ends.
    async fn hold(self: Rc<Self>, node: Rc<Node>) {
        let mut attempts = 0;
        while !node.is_gone.get() {
            match self.connect(&node).await {
                Ok((mut connected, mut reader)) => {
                    attempts = 0;
                    node.generation.set(node.generation.get() + 1);
                    if node.is_gone.get() {
                        return;
                    }
                    let writes = Rc::clone(&connected.link);
                    let reads =
                        reader.as_ref().map_or_else(|| Rc::clone(&writes), |reader| Rc::clone(&reader.link));
                    *node.links.borrow_mut() = Some(Links { writes, reads });
                    self.changed.notify_waiters();
                    let reason = match &mut reader {
                        None => connected.ended().await,
                        // One goes with the other: they are of one server.
                        Some(reader) => {
                            let (one, other) = (pin!(connected.ended()), pin!(reader.ended()));
                            select(one, other).await.factor_first().0
                        }
                    };
                    node.links.take();
                    node.end_lane();
                    *node.trouble.borrow_mut() = reason;
                }
                Err(reason) => *node.trouble.borrow_mut() = reason.into(),
            }
            self.outdated.notify_one();
            let rested = timeout(pause(attempts), node.gone.notified()).await;
            attempts += 1;
            if rested.is_ok() {
                return;
            }
        }
    }

    async fn connect(&self, node: &Node) -> Result<(Connected, Option<Connected>), String> {
        let connected = self.connect_primary(node).await?;
        if self.dialler.replication.is_none() {
            return Ok((connected, None));
        }
        let reader = self.dialler.connect(&node.address(), self.servers.login(), None).await?;
        Ok((connected, Some(reader)))
    }

    async fn connect_primary(&self, node: &Node) -> Result<Connected, String> {
        let replication = self.dialler.replication;
        match &self.servers {
            Servers::Single { login, .. } | Servers::Cluster { login, .. } => {
                self.dialler.connect(&node.address(), login, replication).await
            }
            Servers::Sentinel { sentinels, master, login } => {
                let address = self.ask_sentinels(sentinels, master).await?;
                *node.address.borrow_mut() = address.clone();
                let connected = self.dialler.connect(&address, login, replication).await?;
                let role = Request::read(Default::default()).command(&[b"ROLE"]);
                let replies = within(self.dialler.timeout, ask(&connected.link, role)).await?;
                // A primary that has just been replaced does not know it yet, but sentinels do.
                match replies.first() {
                    Some(Reply::Array(role)) if role.first() == Some(&text(b"master")) => Ok(connected),
                    Some(reply) => Err(refusal(reply).unwrap_or_else(|| "it is no primary".into())),
                    None => Err("it is no primary".into()),
                }
            }
        }
    }

    /// A connection for a lane, to the server to which there is one.
    pub(super) async fn connect_lane(&self) -> Result<std::net::TcpStream, String> {
        self.links_to(0).await;
        let node = self.primary(0).ok_or("no server is known")?;
        let generation = node.generation();
        let (login, address) = (self.servers.login(), node.address());
        let socket = within(self.dialler.timeout, self.dialler.connect_lane(&address, login)).await?;
        let guard = socket.try_clone().map_err(|error| in_words(&error))?;
        if node.generation() != generation || node.links().is_none() {
            return Err("it was lost meanwhile".into());
        }
        *node.lane.borrow_mut() = Some(guard);
        Ok(socket)
    }

    /// Ends the connection of the lane.
    pub(super) fn cut_lane(&self) {
        if let Some(node) = self.primary(0) {
            node.cut_lane();
        }
    }

    async fn ask_sentinels(&self, sentinels: &[(Address, Login)], master: &str) -> Result<Address, String> {
        let mut trouble = String::new();
        for (address, login) in sentinels {
            let asked = async {
                let connected = self.dialler.connect(address, login, None).await?;
                let command: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()];
                let request = Request::read(Default::default()).command(&command);
                let replies = within(self.dialler.timeout, ask(&connected.link, request)).await?;
                match replies.first() {
                    Some(Reply::Array(parts)) => {
                        parse_address(parts, &address.host).ok_or_else(|| "it named no primary".to_owned())
                    }
                    Some(reply) => Err(refusal(reply).unwrap_or_else(|| format!("it knows no {master:?}"))),
                    None => Err("it named no primary".into()),
                }
            };
            match asked.await {
                Ok(primary) => return Ok(primary),
                Err(reason) => trouble = format!("sentinel {address}: {reason}"),
            }
        }
        Err(trouble)
    }

    /// Keeps the map of a cluster's slots.
    async fn follow_cluster(self: Rc<Self>) {
        let mut attempts = 0;
        loop {
            if self.is_closed.get() {
                return;
            }
            match self.ask_cluster().await {
                Ok(slots) => {
                    attempts = 0;
                    self.take_map(&slots);
                }
                Err(reason) => {
                    *self.trouble.borrow_mut() = reason.into();
                    attempts += 1;
                    sleep(pause(attempts)).await;
                    continue;
                }
            }
            let is_whole = {
                let primaries = self.primaries.borrow();
                primaries.iter().all(|node| node.as_ref().is_some_and(|node| node.links().is_some()))
            };
            if is_whole {
                let _ = timeout(ASK_ANYWAY, self.outdated.notified()).await;
            } else {
                sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Asks whichever node answers first in turn: those that are connected, then the others and the seeds.
    async fn ask_cluster(&self) -> Result<Vec<(u16, u16, Address)>, String> {
        let Servers::Cluster { seeds, login } = &self.servers else { return Ok(Vec::new()) };
        let request = || Request::read(Default::default()).command(&[b"CLUSTER", b"SLOTS"]);
        let nodes: Vec<Rc<Node>> = self.nodes.borrow().values().cloned().collect();
        let mut trouble = String::from("no node is known");
        for node in &nodes {
            let Some(links) = node.links() else { continue };
            let host = node.address().host;
            match within(self.dialler.timeout, ask(&links.reads, request())).await {
                Ok(replies) => match parse_slots(replies.first(), &host) {
                    Ok(slots) => return Ok(slots),
                    Err(reason) => trouble = format!("{}: {reason}", node.address()),
                },
                Err(reason) => trouble = format!("{}: {reason}", node.address()),
            }
        }
        for address in seeds.iter().cloned().chain(nodes.iter().map(|node| node.address())) {
            let asked = async {
                let connected = self.dialler.connect(&address, login, None).await?;
                let replies = within(self.dialler.timeout, ask(&connected.link, request())).await?;
                parse_slots(replies.first(), &address.host)
            };
            match asked.await {
                Ok(slots) => return Ok(slots),
                Err(reason) => trouble = format!("no connection to {address}: {reason}"),
            }
        }
        Err(trouble)
    }

    fn take_map(self: &Rc<Self>, slots: &[(u16, u16, Address)]) {
        if self.is_closed.get() {
            return;
        }
        let mut primaries = vec![None; SLOTS];
        for (first, last, address) in slots {
            let node = self.node(address);
            for slot in *first..=*last {
                if let Some(primary) = primaries.get_mut(usize::from(slot)) {
                    *primary = Some(Rc::clone(&node));
                }
            }
        }
        let is_same = |(one, other): (&Option<Rc<Node>>, &Option<Rc<Node>>)| match (one, other) {
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let before = self.primaries.replace(primaries);
        let now = self.primaries.borrow();
        if before.len() != now.len() || !before.iter().zip(now.iter()).all(is_same) {
            self.version.set(self.version.get() + 1);
        }
        drop(now);
        // What is no primary any more is no longer needed.
        self.nodes.borrow_mut().retain(|address, node| {
            let is_needed = slots.iter().any(|(_, _, primary)| primary == address);
            if !is_needed {
                node.leave();
            }
            is_needed
        });
        self.changed.notify_waiters();
    }
}

/// How long to wait before the next attempt, with some chance in it, so that clients do not all come at once.
pub(super) fn pause(attempts: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(LONGEST_PAUSE);
    let chance = RandomState::new().hash_one(attempts) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + chance / 2.0)
}

async fn within<T>(patience: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} ms", patience.as_millis())))
}

fn text(text: &[u8]) -> Reply {
    Reply::Bytes(text.to_vec())
}

/// A host and a port. With no host it is that of the server that was asked.
fn parse_address(parts: &[Reply], asked: &str) -> Option<Address> {
    let host = match parts.first()? {
        Reply::Bytes(host) if host.is_empty() => asked.to_owned(),
        Reply::Bytes(host) => String::from_utf8(host.clone()).ok()?,
        Reply::Nil => asked.to_owned(),
        _ => return None,
    };
    let port = match parts.get(1)? {
        Reply::Number(port) => u16::try_from(*port).ok()?,
        Reply::Bytes(port) => std::str::from_utf8(port).ok()?.parse().ok()?,
        _ => return None,
    };
    // A node of a cluster that does not know its own name says so.
    (host != "?" && port > 0).then_some(Address { host, port })
}

/// The primaries of ranges of slots, as `CLUSTER SLOTS` says them.
fn parse_slots(reply: Option<&Reply>, asked: &str) -> Result<Vec<(u16, u16, Address)>, String> {
    let Some(Reply::Array(ranges)) = reply else {
        return Err(reply.and_then(refusal).unwrap_or_else(|| "it is no node of a cluster".into()));
    };
    let parse = |range: &Reply| {
        let Reply::Array(range) = range else { return None };
        let (Reply::Number(first), Reply::Number(last), Reply::Array(primary)) =
            (range.first()?, range.get(1)?, range.get(2)?)
        else {
            return None;
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        Some((first, last, parse_address(primary, asked)?))
    };
    let slots: Vec<_> = ranges.iter().filter_map(parse).collect();
    if slots.is_empty() { Err("it knows no slots".into()) } else { Ok(slots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds_and_differ() {
        for (attempts, longest) in [(0, 50), (1, 100), (5, 1600), (6, 2000), (u32::MAX, 2000)] {
            let pauses: Vec<_> = (0..20).map(|_| pause(attempts)).collect();
            let longest = Duration::from_millis(longest);
            assert!(pauses.iter().all(|&pause| pause >= longest / 2 && pause <= longest), "{pauses:?}");
            assert!(pauses.iter().any(|&pause| pause != pauses[0]));
        }
    }

    #[test]
    fn a_map_of_slots_names_the_primaries() {
        let node = |host: Reply, port| Reply::Array(vec![host, Reply::Number(port), text(b"id")]);
        let range = |first, last, node| Reply::Array(vec![Reply::Number(first), Reply::Number(last), node]);
        let reply = Reply::Array(vec![
            range(0, 99, node(text(b"10.0.0.1"), 7000)),
            range(100, 16_383, node(text(b""), 7001)),
            range(5, 6, node(text(b"?"), 7002)),
        ]);
        let address = |host: &str, port| Address { host: host.into(), port };
        let slots = parse_slots(Some(&reply), "asked").unwrap();
        assert_eq!(slots, [(0, 99, address("10.0.0.1", 7000)), (100, 16_383, address("asked", 7001))]);
        assert!(parse_slots(Some(&Reply::Array(vec![])), "asked").is_err());
        assert!(parse_slots(Some(&Reply::Number(1)), "asked").is_err());
    }
}
