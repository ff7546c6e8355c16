//! The network: TCP connections over paths that are slow, lose packets, and break.
//!
//! Bytes written to a connection arrive in order, once, or not at all. While the path is broken they wait, because
//! TCP retransmits them for minutes, even after the client has closed the connection. Only a reset discards them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, pending};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::data;
use super::process::ProcessId;
use super::server::ServerId;
use super::world::World;
use crate::store::redis::connection::{Stream, simulated};

/// The host of a single server. It has two addresses, and the first one leads nowhere.
pub(super) const HOST: &str = "redis.test";
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
pub(super) const PORT: u16 = 6379;

pub(super) fn host_of(server: ServerId) -> String {
    Ipv4Addr::new(10, 0, 0, server as u8).to_string()
}

enum Segment {
    Bytes(Vec<u8>),
    End(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

/// The bytes on their way in one direction of a connection.
#[derive(Default)]
struct Pipe {
    segments: RefCell<VecDeque<(Instant, Segment)>>,
    bytes: Cell<usize>,
    has_segments: Notify,
}

impl Pipe {
    fn push(&self, due: Instant, segment: Segment) {
        if let Segment::Bytes(bytes) = &segment {
            self.bytes.set(self.bytes.get() + bytes.len());
        }
        let mut segments = self.segments.borrow_mut();
        // Segments arrive in order.
        let due = segments.back().map_or(due, |(last, _)| due.max(*last));
        segments.push_back((due, segment));
        self.has_segments.notify_one();
    }

    fn pop_due(&self) -> Option<Segment> {
        let mut segments = self.segments.borrow_mut();
        segments.front().filter(|(due, _)| *due <= Instant::now())?;
        let (_, segment) = segments.pop_front()?;
        if let Segment::Bytes(bytes) = &segment {
            self.bytes.set(self.bytes.get() - bytes.len());
        }
        Some(segment)
    }

    fn clear(&self) {
        self.segments.borrow_mut().clear();
        self.bytes.set(0);
    }

    fn next_due(&self) -> Option<Instant> {
        self.segments.borrow().front().map(|(due, _)| *due)
    }
}

pub(super) struct Connection {
    pub id: usize,
    pub process: ProcessId,
    pub server: ServerId,
    up: Pipe,
    down: Pipe,
    pub is_blocked: Cell<bool>,
    /// Nothing arrives any more, and nobody reports it: a router has dropped the connection.
    pub is_silent: Cell<bool>,
    resets_on_drop: Cell<bool>,
    is_dropped: Cell<bool>,
    pub is_open_at_server: Cell<bool>,
    pub is_asking: Cell<bool>,
    /// A sentinel announces failovers on this connection.
    pub is_subscribed: Cell<bool>,
    /// The queued commands of a transaction. `Some(None)` after one of them was refused.
    pub transaction: RefCell<Option<Option<Vec<super::data::Command>>>>,
    unparsed: RefCell<Vec<u8>>,
    received: RefCell<VecDeque<u8>>,
    ended: Cell<Option<End>>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        self.is_silent.get() || (self.up.next_due().is_none() && self.down.next_due().is_none())
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_dropped.get() && (!self.is_open_at_server.get() || self.is_silent.get()) && self.is_idle()
    }

    pub(super) fn reply(&self, world: &World, bytes: Vec<u8>) {
        if !self.is_dropped.get() && self.is_open_at_server.get() {
            self.down.push(world.arrival(), Segment::Bytes(bytes));
        }
    }

    /// Ends the server's side. Bytes that it has sent still arrive.
    pub(super) fn end_at_server(&self, world: &World, end: End) {
        if self.is_open_at_server.replace(false) && !self.is_dropped.get() {
            self.down.push(world.arrival(), Segment::End(end));
        }
    }

    /// Resets both sides, as a router does.
    pub(super) fn cut(&self, world: &World) {
        self.up.clear();
        self.down.clear();
        self.is_open_at_server.set(false);
        self.is_blocked.set(false);
        if !self.is_dropped.get() {
            self.down.push(world.arrival(), Segment::End(End::Reset));
        }
        world.network_changed.notify_waiters();
    }

    fn deliver_up(self: &Rc<Self>, world: &Rc<World>, segment: Segment) {
        world.note("arrives at the server", &[self.id]);
        match segment {
            Segment::Bytes(_) if !self.is_open_at_server.get() => {
                if !self.is_dropped.get() {
                    self.down.push(world.arrival(), Segment::End(End::Reset));
                }
            }
            Segment::Bytes(bytes) => {
                let mut unparsed = self.unparsed.borrow_mut();
                unparsed.extend_from_slice(&bytes);
                while let Some((command, len)) = data::parse(&unparsed) {
                    unparsed.drain(..len);
                    world.servers[self.server].receive(self, command);
                }
                wake(&self.writer);
            }
            Segment::End(end) => {
                self.is_open_at_server.set(false);
                // The server may still run the commands that have arrived.
                if end == End::Reset && world.chance(500_000) {
                    world.servers[self.server].forget(self);
                }
            }
        }
    }

    fn deliver_down(&self, world: &World, segment: Segment) {
        world.note("arrives at the client", &[self.id]);
        match segment {
            Segment::Bytes(bytes) => self.received.borrow_mut().extend(bytes),
            Segment::End(end) => {
                self.ended.set(self.ended.get().or(Some(end)));
                wake(&self.writer);
            }
        }
        wake(&self.reader);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Carries the bytes of one direction of a connection.
async fn carry(world: Rc<World>, connection: Rc<Connection>, is_up: bool) {
    let pipe = || if is_up { &connection.up } else { &connection.down };
    loop {
        let Some(due) = pipe().next_due() else {
            if connection.is_dropped.get() && (!is_up || !connection.is_open_at_server.get()) {
                return;
            }
            pipe().has_segments.notified().await;
            continue;
        };
        sleep_until(due).await;
        if connection.is_silent.get() {
            pipe().clear();
            continue;
        }
        if world.is_cut_off(&connection) {
            // A reset is not retransmitted.
            if matches!(pipe().segments.borrow().front(), Some((_, Segment::End(End::Reset)))) {
                pipe().clear();
                continue;
            }
            world.network_changed.notified().await;
            if !world.is_cut_off(&connection) {
                let pause = *world.random.borrow_mut().pick(&[0, 5, 200, 800, 3000]);
                sleep(Duration::from_millis(pause)).await;
            }
            continue;
        }
        let Some(segment) = pipe().pop_due() else { continue };
        if is_up {
            connection.deliver_up(&world, segment);
        } else {
            connection.deliver_down(&world, segment);
        }
    }
}

/// The client's end.
struct ClientEnd {
    world: Rc<World>,
    connection: Rc<Connection>,
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &self.connection;
        let mut received = connection.received.borrow_mut();
        if received.is_empty() {
            return match connection.ended.get() {
                Some(End::Closed) => Poll::Ready(Ok(())),
                Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    *connection.reader.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        let len = self.world.some_of(received.len().min(out.remaining()));
        let bytes: Vec<u8> = received.drain(..len).collect();
        out.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        if connection.ended.get().is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if connection.up.bytes.get() >= self.world.config.window {
            *connection.writer.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let len = self.world.some_of(bytes.len());
        self.world.note("writes", &[connection.id, len]);
        connection.up.push(self.world.arrival(), Segment::Bytes(bytes[..len].to_vec()));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for ClientEnd {
    fn reset_on_drop(&self) {
        self.connection.resets_on_drop.set(true);
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.is_dropped.set(true);
        connection.down.clear();
        connection.down.has_segments.notify_one();
        let end = if connection.resets_on_drop.get() { End::Reset } else { End::Closed };
        if end == End::Reset {
            connection.up.clear();
        }
        self.world.note("the client lets go", &[connection.id]);
        connection.up.push(self.world.arrival(), Segment::End(end));
        self.world.network_changed.notify_waiters();
    }
}

/// The simulated system of a process.
pub(super) struct ProcessSystem {
    pub world: Rc<World>,
    pub process: ProcessId,
}

impl simulated::System for ProcessSystem {
    fn lookup(&self, host: &str, port: u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (world, host) = (Rc::clone(&self.world), host.to_owned());
        async move {
            if let Ok(address) = host.parse() {
                return Ok(vec![SocketAddr::new(address, port)]);
            }
            let pause = world.latency();
            sleep(pause).await;
            if world.are_names_lost.get() {
                world.note("a name is not found", &[]);
                return Err(io::Error::other("no such host"));
            }
            let address = SocketAddr::new(host_of(0).parse().unwrap(), port);
            let has_dead_address = world.config.has_dead_address;
            let dead = has_dead_address.then_some(SocketAddr::new(NOBODY, port));
            Ok(dead.into_iter().chain([address]).collect())
        }
        .boxed_local()
    }

    fn connect(&self, address: SocketAddr) -> simulated::Opening {
        let (world, process) = (Rc::clone(&self.world), self.process);
        async move {
            let IpAddr::V4(ip) = address.ip() else { return pending().await };
            let server = usize::from(ip.octets()[3]);
            if address.ip() == NOBODY || world.is_dead(process) {
                return pending().await;
            }
            sleep(world.latency()).await;
            while world.is_path_cut_off(process, server) {
                world.network_changed.notified().await;
                let pause = *world.random.borrow_mut().pick(&[0, 200, 1000]);
                sleep(Duration::from_millis(pause)).await;
            }
            if world.is_dead(process) {
                return pending().await;
            }
            if !world.servers[server].is_up.get() {
                world.note("a connection is refused", &[process, server]);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let connection = open(&world, process, server);
            sleep(world.latency()).await;
            let end: Box<dyn Stream> = Box::new(ClientEnd { world, connection });
            Ok(end)
        }
        .boxed_local()
    }

    fn chance(&self) -> f64 {
        self.world.random.borrow_mut().below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

fn open(world: &Rc<World>, process: ProcessId, server: ServerId) -> Rc<Connection> {
    let id = world.next_connection();
    world.note("a connection opens", &[id, process, server]);
    let connection = Rc::new(Connection {
        id,
        process,
        server,
        up: Pipe::default(),
        down: Pipe::default(),
        is_blocked: Cell::new(false),
        is_silent: Cell::new(false),
        resets_on_drop: Cell::new(false),
        is_dropped: Cell::new(false),
        is_open_at_server: Cell::new(true),
        is_asking: Cell::new(false),
        is_subscribed: Cell::new(false),
        transaction: RefCell::default(),
        unparsed: RefCell::default(),
        received: RefCell::default(),
        ended: Cell::new(None),
        reader: RefCell::default(),
        writer: RefCell::default(),
    });
    let mut connections = world.connections.borrow_mut();
    connections.retain(|connection| !connection.is_over());
    connections.push(Rc::clone(&connection));
    for is_up in [true, false] {
        spawn_local(carry(Rc::clone(world), Rc::clone(&connection), is_up));
    }
    connection
}
