//! One server: its connections, and how they are made again when they are lost.

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

/// How long a server is kept to which another has redirected, whatever the map of the slots says.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How long a connection is new.
const NEW_FOR: Duration = Duration::from_secs(1);

/// How all servers of a store are reached, and who wants to know of it.
pub struct Network {
    pub servers: Servers,
    pub connector: Connector,
    /// Those that say where the primary is, where there are any.
    pub sentinels: Option<Rc<Sentinels>>,
    /// A server was reached or lost, or slots have moved.
    pub changed: Notify,
    /// A cluster is to be asked for its slots.
    pub outdated: Notify,
}

/// The connections to a server: one, or one more for what is only read, where writes wait for replicas, which holds up
/// what comes after them.
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

    /// Ends them, as another server may be in this one's place by now. A new one has just been found there: it stays, with
    /// the reads that it answers.
    pub fn cut_unless_new(&self) {
        if self.writes.age() >= NEW_FOR {
            self.cut();
        }
    }

    fn is_dead(&self) -> bool {
        self.writes.is_dead() || self.reads.is_dead()
    }
}

/// Tells the servers of a store from each other. No two ever have the same.
pub type NodeId = u32;

/// One server, to which there is a connection or the attempt at one for as long as it is known.
pub struct Node {
    id: NodeId,
    /// Of the primary that sentinels name it changes.
    address: RefCell<Address>,
    connections: RefCell<Option<NodeConnections>>,
    /// Counts its connections.
    generation: Cell<u64>,
    /// The connection of an event loop. It ends with the node's own: another server may be in this one's place then.
    event_loop: RefCell<Weak<Socket>>,
    last_error: RefCell<Rc<str>>,
    is_gone: Cell<bool>,
    kept_until: Cell<Option<Instant>>,
    gone: Notify,
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
            is_gone: Cell::new(false),
            kept_until: Cell::new(None),
            gone: Notify::new(),
        })
    }

    pub fn id(&self) -> NodeId {
        self.id
    }

    pub fn address(&self) -> Address {
        self.address.borrow().clone()
    }

    /// Its connections, if there are any.
    pub fn connections(&self) -> Option<NodeConnections> {
        self.connections.borrow().clone().filter(|connections| !connections.is_dead())
    }

    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Resets the connection of the event loop.
    pub fn cut_event_loop(&self) {
        if let Some(socket) = self.event_loop.take().upgrade() {
            abort(&socket);
        }
    }

    /// Has the event loop send no more, but take what is answered yet: the node's own connection, on which little is
    /// said, may have ended for that alone.
    pub fn drain_event_loop(&self) {
        if let Some(socket) = self.event_loop.take().upgrade() {
            // It fails where the connection has ended already.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Keeps it for a while, as another server has just said that it has a slot.
    pub fn keep(&self) {
        self.kept_until.set(Some(Instant::now() + KEPT_FOR));
    }

    pub fn is_kept(&self) -> bool {
        self.kept_until.get().is_some_and(|until| Instant::now() < until)
    }

    pub fn retire(&self) {
        self.is_gone.set(true);
        self.gone.notify_one();
        self.cut_event_loop();
        if let Some(connections) = self.connections.take() {
            connections.cut();
        }
    }

    /// Connects to a server, and again whenever that ends.
    pub async fn reconnect_loop(self: Rc<Self>, network: Rc<Network>) {
        let mut attempts = 0;
        while !self.is_gone.get() {
            match self.connect(&network).await {
                Ok((mut connected, mut reader)) => {
                    attempts = 0;
                    self.generation.set(self.generation.get() + 1);
                    if self.is_gone.get() {
                        return;
                    }
                    let writes = Rc::clone(&connected.link);
                    let reads =
                        reader.as_ref().map_or_else(|| Rc::clone(&writes), |reader| Rc::clone(&reader.link));
                    *self.connections.borrow_mut() = Some(NodeConnections { writes, reads });
                    network.connector.monitor.connected(self.id, &self.address.borrow());
                    network.changed.notify_waiters();
                    let replaced = pin!(self.replaced(&network));
                    let ended = pin!(async {
                        match &mut reader {
                            None => connected.ended().await,
                            // One goes with the other: they are of one server.
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
                            "it is the primary no more".into()
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
                timeout(backoff(attempts, network.connector.system.chance()), self.gone.notified()).await;
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
        // Before the first connection it is the address of a sentinel.
        if before != address && self.generation() > 0 {
            network.connector.monitor.failed_over(&before, &address);
        }
        let connected = network.connector.connect(&address, login, replication).await?;
        let role = Request::read(Default::default()).command(&[b"ROLE"]);
        let replies = within(network.connector.timeout, ask(&connected.link, role)).await?;
        // A primary that has just been replaced does not know it yet, but sentinels do.
        match replies.first() {
            Some(Reply::Array(role)) if role.first() == Some(&Reply::Bytes(b"master".to_vec())) => {
                Ok(connected)
            }
            Some(reply) => Err(error_text(reply).unwrap_or_else(|| "it is no primary".into())),
            None => Err("it is no primary".into()),
        }
    }

    /// Waits until sentinels name another primary. It may be up, take itself for one, and lose what it is sent.
    async fn replaced(&self, network: &Network) {
        match &network.sentinels {
            Some(sentinels) => sentinels.replaced(&self.address()).await,
            None => pending().await,
        }
    }

    /// Opens a connection for an event loop, and sends a first request on it. It ends with the node's own.
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
            return Err("it was lost meanwhile".into());
        }
        *self.event_loop.borrow_mut() = Arc::downgrade(&connection.socket);
        Ok((connection, replies))
    }

    /// Why it is not reached; `None` where it is.
    pub fn last_error(&self) -> Option<String> {
        self.connections().is_none().then(|| self.no_connection(&self.last_error.borrow()))
    }

    fn no_connection(&self, reason: &str) -> String {
        format!("no connection to {}: {reason}", self.address.borrow())
    }
}
