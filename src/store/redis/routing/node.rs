//! One server: its connections, and reconnecting.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, pending, select};
use socket2::Socket;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::super::connection::{
    Connected, Connector, MultiplexedConnection, RawConnection, abort, ask, error_text,
};
use super::super::options::{Address, Servers};
use super::super::resp::{Replies, Reply, Request};
use super::backoff::backoff;
use super::sentinel::Sentinels;
use super::within;

/// How long a redirect target is kept, even if the slot map does not contain it.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How long a connection counts as new.
const NEW_FOR: Duration = Duration::from_secs(1);

/// What all nodes of a store share: how to connect, and notifications of changes.
pub struct Network {
    pub servers: Servers,
    pub connector: Connector,
    /// Set if the servers are given as sentinels.
    pub sentinels: Option<Rc<Sentinels>>,
    /// A server was reached or lost, or slots have moved.
    pub changed: Notify,
    /// Requests a new slot map.
    pub outdated: Notify,
}

/// The connections to a server. If writes wait for replicas, reads have a second connection, because `WAIT` delays
/// all commands behind it.
#[derive(Clone)]
pub struct NodeConnections {
    pub writes: Rc<MultiplexedConnection>,
    pub reads: Rc<MultiplexedConnection>,
}

impl NodeConnections {
    pub fn of(&self, request: &Request) -> &MultiplexedConnection {
        if request.is_write { &self.writes } else { &self.reads }
    }

    pub fn cut(&self) {
        self.writes.cut();
        self.reads.cut();
    }

    /// Ends the connections, because another server may have this address by now. A new connection stays: it was made
    /// to the current server, and answers reads.
    pub fn cut_unless_new(&self) {
        if self.writes.age() >= NEW_FOR {
            self.cut();
        }
    }

    fn is_dead(&self) -> bool {
        self.writes.is_dead() || self.reads.is_dead()
    }
}

/// Identifies a server of a store. No two nodes ever have the same id.
pub type NodeId = u32;

/// One server. While it is part of the topology, it is connected or connecting.
pub struct Node {
    id: NodeId,
    /// Changes when sentinels name another primary.
    address: RefCell<Address>,
    connections: RefCell<Option<NodeConnections>>,
    /// Counts the connections made so far.
    generation: Cell<u64>,
    /// The event loop's connection. It ends with the node's own connection, because another server may have this
    /// address then.
    event_loop: RefCell<Weak<Socket>>,
    last_error: RefCell<Rc<str>>,
    is_retired: Cell<bool>,
    kept_until: Cell<Option<Instant>>,
    retired: Notify,
}

impl Node {
    pub fn new(id: NodeId, address: Address) -> Rc<Self> {
        Rc::new(Self {
            id,
            address: RefCell::new(address),
            connections: RefCell::default(),
            generation: Cell::new(0),
            event_loop: RefCell::default(),
            last_error: RefCell::new("no connection yet".into()),
            is_retired: Cell::new(false),
            kept_until: Cell::new(None),
            retired: Notify::new(),
        })
    }

    pub fn id(&self) -> NodeId {
        self.id
    }

    pub fn address(&self) -> Address {
        self.address.borrow().clone()
    }

    /// The connections, if the node is connected.
    pub fn connections(&self) -> Option<NodeConnections> {
        self.connections.borrow().clone().filter(|connections| !connections.is_dead())
    }

    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Resets the event loop's connection.
    pub fn cut_event_loop(&self) {
        if let Some(socket) = self.event_loop.take().upgrade() {
            abort(&socket);
        }
    }

    /// Stops the event loop from sending on its connection, but lets it receive the remaining replies. The node's own
    /// connection may have ended only because it was idle.
    pub fn drain_event_loop(&self) {
        if let Some(socket) = self.event_loop.take().upgrade() {
            // This fails only if the connection has ended already.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    pub fn is_retired(&self) -> bool {
        self.is_retired.get()
    }

    /// Keeps the node for a while: another server has just redirected to it.
    pub fn keep(&self) {
        self.kept_until.set(Some(Instant::now() + KEPT_FOR));
    }

    pub fn is_kept(&self) -> bool {
        self.kept_until.get().is_some_and(|until| Instant::now() < until)
    }

    pub fn retire(&self) {
        self.is_retired.set(true);
        self.retired.notify_one();
        self.cut_event_loop();
        if let Some(connections) = self.connections.take() {
            connections.cut();
        }
    }

    /// Connects, and connects again after each connection ends, until the node is retired.
    pub async fn reconnect_loop(self: Rc<Self>, network: Rc<Network>) {
        let mut attempts = 0;
        while !self.is_retired.get() {
            match self.connect(&network).await {
                Ok((mut connected, mut reader)) => {
                    attempts = 0;
                    self.generation.set(self.generation.get() + 1);
                    if self.is_retired.get() {
                        return;
                    }
                    let writes = Rc::clone(&connected.connection);
                    let reads = reader
                        .as_ref()
                        .map_or_else(|| Rc::clone(&writes), |reader| Rc::clone(&reader.connection));
                    *self.connections.borrow_mut() = Some(NodeConnections { writes, reads });
                    network.connector.monitor.connected(self.id, &self.address.borrow());
                    network.changed.notify_waiters();
                    let replaced = pin!(self.replaced(&network));
                    let ended = pin!(async {
                        match &mut reader {
                            None => connected.ended().await,
                            // If one connection ends, both do, so that they always lead to the same server.
                            Some(reader) => {
                                let (one, other) = (pin!(connected.ended()), pin!(reader.ended()));
                                select(one, other).await.factor_first().0
                            }
                        }
                    });
                    let reason = match select(ended, replaced).await {
                        Either::Left((reason, _)) => {
                            self.drain_event_loop();
                            reason
                        }
                        Either::Right(_) => {
                            self.cut_event_loop();
                            "it is no longer the primary".into()
                        }
                    };
                    self.connections.take();
                    network.changed.notify_waiters();
                    let problem = self.no_connection(&reason);
                    network.connector.monitor.disconnected(self.id, &self.address.borrow(), problem);
                    *self.last_error.borrow_mut() = reason;
                }
                Err(reason) => {
                    network.connector.monitor.failed(self.id, self.no_connection(&reason));
                    *self.last_error.borrow_mut() = reason.into();
                }
            }
            network.outdated.notify_one();
            let rested =
                timeout(backoff(attempts, network.connector.system.chance()), self.retired.notified()).await;
            attempts += 1;
            if rested.is_ok() {
                break;
            }
        }
        network.connector.monitor.forget(self.id);
    }

    async fn connect(&self, network: &Network) -> Result<(Connected, Option<Connected>), String> {
        let connected = self.connect_primary(network).await?;
        if network.connector.replication.is_none() {
            return Ok((connected, None));
        }
        let reader = network.connector.connect(&self.address(), network.servers.login(), None).await?;
        Ok((connected, Some(reader)))
    }

    async fn connect_primary(&self, network: &Network) -> Result<Connected, String> {
        let (login, replication) = (network.servers.login(), network.connector.replication);
        let Some(sentinels) = &network.sentinels else {
            return network.connector.connect(&self.address(), login, replication).await;
        };
        let address = sentinels.find_primary().await?;
        let before = self.address.replace(address.clone());
        // Before the first connection, the address is that of a sentinel.
        if before != address && self.generation() > 0 {
            network.connector.monitor.failed_over(&before, &address);
        }
        let connected = network.connector.connect(&address, login, replication).await?;
        let role = Request::read(Default::default()).command(&[b"ROLE"]);
        let replies = within(network.connector.timeout, ask(&connected.connection, role)).await?;
        // A primary that was just replaced may not know it yet, but the sentinels do.
        match replies.first() {
            Some(Reply::Array(role)) if role.first() == Some(&Reply::Bytes(b"master".to_vec())) => {
                Ok(connected)
            }
            Some(reply) => Err(error_text(reply).unwrap_or_else(|| "it is not a primary".into())),
            None => Err("it is not a primary".into()),
        }
    }

    /// Waits until the sentinels name another primary. The old one may still accept writes, which are then lost.
    async fn replaced(&self, network: &Network) {
        match &network.sentinels {
            Some(sentinels) => sentinels.replaced(&self.address()).await,
            None => pending().await,
        }
    }

    /// Opens a connection for an event loop, and sends a first request on it. The connection ends with the node's
    /// own.
    pub async fn connect_event_loop(
        &self,
        network: &Network,
        first: Request,
    ) -> Result<(RawConnection, Replies), String> {
        let generation = self.generation();
        let (login, address) = (network.servers.login(), self.address());
        let connecting = network.connector.connect_event_loop(&address, login, first);
        let (connection, replies) = within(network.connector.timeout, connecting).await?;
        if self.generation() != generation || self.connections().is_none() {
            return Err("the node was lost before".into());
        }
        *self.event_loop.borrow_mut() = Arc::downgrade(&connection.socket);
        Ok((connection, replies))
    }

    /// Why the node has no connection. `None` if it has one.
    pub fn last_error(&self) -> Option<String> {
        self.connections().is_none().then(|| self.no_connection(&self.last_error.borrow()))
    }

    fn no_connection(&self, reason: &str) -> String {
        format!("no connection to {}: {reason}", self.address.borrow())
    }
}
