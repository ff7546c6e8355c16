//! Calls on one session without the worker. The calling thread reads and writes the sockets itself, when its event
//! loop reports that they are ready. Handing each call to the worker would cost two more thread wake-ups.
//!
//! The fast path handles calls that go well. All others fall back to the worker, such as when a server refuses a
//! call, or an update finds another user's session. The worker starts them again, in the order of the calls on each
//! session (`fallback`).
//!
//! Each primary of a cluster has its own connection (`primary`). All pending calls on a session are on one
//! connection, even while its slot moves to another primary (`routes`).

mod cached;
mod calls;
mod fallback;
mod handover;
mod known;
mod primary;
pub(super) mod provision;
mod replies;
mod routes;

pub use cached::Hit;
pub use replies::MAX_COMPLETIONS;

#[cfg(all(test, unix))]
mod tests;

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use self::fallback::Fallback;
use self::known::KnownValues;
use self::primary::{OpenConnection, Primary};
use self::routes::Routes;
use super::RedisStore;
use super::cache::{NearCache, Proof};
use super::connection::Socket;
use super::queue::{Answers, EventLoopConnection, SlotRanges, Supply};
use super::routing::NodeId;
use super::session::{Cipher, ConditionalForm};

/// One JavaScript thread's access to a store: through its own connections, or else through the worker.
pub struct FastPath {
    store: Arc<RedisStore>,
    to: Arc<dyn Answers>,
    primaries: Vec<Primary>,
    routes: Routes,
    /// The cipher of the connections, once there was one.
    cipher: Option<Arc<Cipher>>,
    /// The sockets of ended connections, until their polls are closed.
    dead: Vec<(NodeId, Arc<socket2::Socket>)>,
    /// The size of all queued calls.
    queued_bytes: usize,
    /// The tickets of the calls that are being completed, in reverse order.
    current: SmallVec<[u32; 4]>,
    fallback: Fallback,
    known: KnownValues,
    has_jobs: bool,
    /// Whether there is an event loop. Without it there is never a connection, and the worker alone keeps the order.
    has_event_loop: bool,
    /// Whether the fast path wants connections.
    is_wanted: bool,
    cache: Option<NearCache>,
    /// The slot map that was current when the sessions were cached.
    slots: Option<SlotRanges>,
}

impl FastPath {
    /// Creates the fast path of a thread. The worker reports the results of fallbacks to `to`.
    pub fn new(store: Arc<RedisStore>, to: Arc<dyn Answers>) -> Self {
        let (primaries, routes) = if store.is_cluster {
            (Vec::new(), Routes::of_cluster())
        } else {
            (vec![Primary::new(NodeId::default())], Routes::of_one_server())
        };
        let cache =
            store.cache.as_ref().map(|options| NearCache::new(options, Arc::clone(&store.times.clock)));
        Self {
            store,
            to,
            primaries,
            routes,
            cipher: None,
            dead: Vec::new(),
            queued_bytes: 0,
            current: SmallVec::new(),
            fallback: Fallback::default(),
            known: KnownValues::default(),
            has_jobs: false,
            has_event_loop: false,
            is_wanted: false,
            cache,
            slots: None,
        }
    }

    /// Requests a connection to each primary, and a new one whenever one ends. They arrive through `Answers::supply`,
    /// or never if connections are impossible.
    pub fn want(&mut self) {
        self.has_event_loop = true;
        self.is_wanted = true;
        self.store.want_connections(&self.to);
    }

    /// Takes what the worker provides.
    pub fn take_supply(&mut self, supply: Supply) {
        match supply {
            Supply::Connection(connection) => self.open(connection),
            Supply::Slots(ranges) => self.route(&ranges),
        }
    }

    /// Uses a connection from now on.
    fn open(&mut self, connection: EventLoopConnection) {
        if !self.is_wanted {
            return;
        }
        let EventLoopConnection { node, connection, cipher, tracking } = connection;
        let at = self.index_of(node);
        if self.primaries[at].open.is_some() {
            return;
        }
        let Ok(socket) = Socket::new(connection) else { return self.store.lost_connection(node) };
        if self.cipher.as_ref().is_some_and(|other| !Arc::ptr_eq(other, &cipher)) {
            // The keys have changed, and the worker has reset the other connections. Their calls fall back before any
            // call uses the new keys and slots.
            (0..self.primaries.len()).for_each(|at| self.fail(at));
            self.cache.iter_mut().for_each(NearCache::forget_keys);
        }
        self.cipher = Some(Arc::clone(&cipher));
        let primary = &mut self.primaries[at];
        primary.has_buffered = false;
        let is_tracked = matches!(tracking, Some(Ok(())));
        primary.open = Some(OpenConnection {
            socket,
            cipher,
            conditional_form: ConditionalForm::default(),
            draining: false,
            write_closed: false,
            has_failed: false,
            is_tracked,
            proof: Proof::default(),
            empty_at: Instant::now(),
        });
        if let (Some(cache), Some(tracking)) = (&mut self.cache, tracking) {
            cache.opened(tracking);
        }
    }

    /// Applies a new slot map.
    fn route(&mut self, ranges: &SlotRanges) {
        if self.routes.is_one_server() {
            return;
        }
        if self.slots.replace(Arc::clone(ranges)).as_ref() != Some(ranges) {
            self.cache.iter_mut().for_each(NearCache::drop_all);
        }
        let indexes: Vec<_> =
            ranges.iter().map(|&(first, last, node)| (first, last, self.index_of(node))).collect();
        let may_go = |at: usize| self.primaries[at].is_idle();
        for at in self.routes.apply(indexes.into_iter(), may_go) {
            // Queued calls may be on slots that have moved.
            self.fall_back_queued(at);
            let primary = &mut self.primaries[at];
            primary.lost_until = Some(primary.pending.progress.sent);
            self.hand_over(at);
        }
        for at in (0..self.primaries.len()).rev() {
            let primary = &self.primaries[at];
            if primary.open.is_none() && primary.is_idle() && !self.routes.uses(at) {
                self.primaries.remove(at);
                self.routes.remove(at);
            }
        }
    }

    /// Returns the index of a primary, and adds it if it is new.
    fn index_of(&mut self, node: NodeId) -> usize {
        self.find(node).unwrap_or_else(|| {
            self.primaries.push(Primary::new(node));
            self.primaries.len() - 1
        })
    }

    fn find(&self, node: NodeId) -> Option<usize> {
        self.primaries.iter().position(|primary| primary.node() == node)
    }

    /// The sockets to poll, each with its primary, and whether to poll for writing.
    pub fn sockets(&self) -> impl Iterator<Item = (NodeId, &socket2::Socket, bool)> {
        self.primaries.iter().filter_map(|primary| {
            let open = primary.open.as_ref()?;
            Some((primary.node(), open.socket.socket(), primary.waits_for_room(&self.store.window)))
        })
    }

    /// The sockets of ended connections, for the code that polled them.
    pub fn take_closed_sockets(&mut self) -> Vec<(NodeId, Arc<socket2::Socket>)> {
        mem::take(&mut self.dead)
    }

    /// When `expire` must be called, if no socket becomes ready before: usually the deadline of the oldest call.
    pub fn next_deadline(&self) -> Option<Instant> {
        let of_each = self.primaries.iter().map(|primary| primary.next_deadline(self.store.command_timeout));
        of_each.flatten().chain(self.fallback.next_deadline()).min()
    }

    /// Whether no call is pending here. The worker reports its own calls.
    pub fn is_idle(&self) -> bool {
        self.primaries.iter().all(Primary::is_idle) && !self.fallback.is_waiting()
    }

    /// Ends a connection at its next turn, which is due immediately.
    pub fn give_up(&mut self, node: NodeId) {
        if let Some(at) = self.find(node)
            && let Some(open) = &mut self.primaries[at].open
        {
            open.has_failed = true;
        }
    }

    /// Accepts no more calls. `RedisStore::flush` waits until the fast path is idle and `shut` was called.
    pub fn start_drain(&mut self) {
        self.is_wanted = false;
        self.store.queue.fast_path.set_busy(true);
        self.submit();
    }

    /// Drops the connections and all calls on them.
    pub fn shut(&mut self) {
        self.is_wanted = false;
        self.store.want_no_connections();
        for mut primary in mem::take(&mut self.primaries) {
            if let Some(open) = primary.open.take() {
                self.end(primary.node(), open);
            }
        }
        self.routes = Routes::of_cluster();
        self.queued_bytes = 0;
        self.store.queue.fast_path.set_busy(false);
    }
}
