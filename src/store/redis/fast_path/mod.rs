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
mod fallback;
mod primary;
pub(super) mod provision;
mod routes;

pub use cached::Hit;

#[cfg(all(test, unix))]
mod tests;

use std::io::ErrorKind;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use self::fallback::{Fallback, Progress};
use self::primary::{Call, Open, Pending, PendingCall, Primary};
use self::routes::{Routes, Way};
use super::RedisStore;
use super::cache::{Ends, NearCache, PROBE, Proof};
use super::connection::{Filled, Socket, abort};
use super::counters::Counters;
use super::error::{self, panicked};
use super::queue::{
    Answers, EventLoopConnection, Job, MAX_CALLS, MAX_QUEUED_BYTES, Results, SlotRanges, Supply, Waiter,
    too_much_queued,
};
use super::resp::{Reply, Request, RequestMode, slot_of};
use super::routing::{Attempt, NodeId};
use super::session::{
    self, Change, Cipher, Cold, Context, Creation, NewSession, Op, StaleEntry, Step, interpret,
};
use super::time::Stamp;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, Session, SessionId};
use crate::store::Answer;

/// The maximum number of calls that one turn completes. Refused calls do not count.
pub const AT_ONCE: usize = 1024;

/// The number of calls after which a batch is sent, so that the server works while the thread makes more calls. With
/// many pending calls a batch is this fraction of them, because each one costs a system call on both sides.
const A_FLUSH: usize = 16;

/// How often one turn refills the socket with queued calls. The rest waits for the next turn.
const FLUSHES: usize = 4;

/// The connection has ended, or is unusable: the server closed it, or sent a reply that no call expects.
struct Ended;

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
    has_jobs: bool,
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
            has_jobs: false,
            is_wanted: false,
            cache,
            slots: None,
        }
    }

    /// Requests a connection to each primary, and a new one whenever one ends. They arrive through `Answers::supply`,
    /// or never if connections are impossible.
    pub fn want(&mut self) {
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
        let at = self.place_of(node);
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
        primary.open = Some(Open {
            socket,
            cipher,
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
        let places: Vec<_> =
            ranges.iter().map(|&(first, last, node)| (first, last, self.place_of(node))).collect();
        let may_go = |at: usize| self.primaries[at].is_idle();
        for at in self.routes.apply(places.into_iter(), may_go) {
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
    fn place_of(&mut self, node: NodeId) -> usize {
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

    /// Starts [`crate::store::SessionStore::create`]. `submit` sends it.
    ///
    /// # Errors
    /// `TooLarge`. `Busy` if too many calls are queued. In both cases nothing is queued.
    pub fn create(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let session = self.store.new_session(session)?;
        self.begin(Op::Create(session, None), ticket)
    }

    /// Starts [`crate::store::SessionStore::create_at`].
    ///
    /// # Errors
    /// As for `create`.
    pub fn create_at(&mut self, session: &Session<'_>, created: Millis, ticket: u32) -> Result<()> {
        let mut session = self.store.new_session(session)?;
        session.created_at = Some(created);
        self.begin(Op::Create(session, None), ticket)
    }

    /// Starts [`crate::store::SessionStore::update`]. The result is 1 if there was a live session, or 0.
    ///
    /// # Errors
    /// As for `create`.
    pub fn update(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let session = self.store.new_session(session)?;
        self.begin(Op::Update(session), ticket)
    }

    /// Starts [`crate::store::SessionStore::get`].
    ///
    /// # Errors
    /// `Busy`, as for `create`.
    pub fn get(&mut self, id: SessionId, ticket: u32) -> Result<()> {
        self.begin(Op::Get(id), ticket)
    }

    /// Starts [`crate::store::SessionStore::touch`], or `prolong` if `enough` is given. The result is 1 if there was
    /// a live session, or 0.
    ///
    /// # Errors
    /// `Busy`, as for `create`.
    pub fn touch(
        &mut self,
        id: SessionId,
        expires: Expiry,
        enough: Option<Millis>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(Op::Touch(id, expires, enough), ticket)
    }

    /// Starts [`crate::store::SessionStore::delete`].
    ///
    /// # Errors
    /// `Busy`, as for `create`.
    pub fn delete(&mut self, id: SessionId, ticket: u32) -> Result<()> {
        self.begin(Op::Delete(id), ticket)
    }

    fn begin(&mut self, op: Op, ticket: u32) -> Result<()> {
        if let Some(cache) = &mut self.cache {
            cache.begin(&op, ticket, self.cipher.as_deref());
        }
        let begun = self.begin_noted(op, ticket);
        if begun.is_err() {
            self.cache.iter_mut().for_each(|cache| cache.end(ticket));
        }
        begun
    }

    fn begin_noted(&mut self, op: Op, ticket: u32) -> Result<()> {
        let deadline = Instant::now() + self.store.command_timeout;
        let call = Call::new(op, ticket, deadline);
        let at = match self.way(&call.op) {
            Way::To(at) => at,
            Way::After(at) => {
                self.fall_back(Some(at), call);
                return Ok(());
            }
            Way::Unknown => {
                self.fall_back(None, call);
                return Ok(());
            }
        };
        let primary = &mut self.primaries[at];
        if let Op::Get(id) = &call.op
            && !self.fallback.has(id)
            && primary.share(id, ticket, deadline)
        {
            return Ok(());
        }
        if primary.queued.is_empty() && primary.has_room(&self.store.window) {
            self.send(at, call);
            let primary = &self.primaries[at];
            if primary.unflushed >= A_FLUSH.max(primary.pending.calls.len() / A_FLUSH) {
                self.flush(at);
            }
            return Ok(());
        }
        let bytes = self.queued_bytes + call.op.len();
        if bytes > MAX_QUEUED_BYTES && self.queued_bytes > 0 {
            return Err(too_much_queued());
        }
        self.queued_bytes = bytes;
        // Behind the other queued calls, which may change the same session.
        self.primaries[at].queued.push_back(call);
        Ok(())
    }

    /// The primary that a call on one session goes to.
    fn way(&self, op: &Op) -> Way {
        if self.routes.is_one_server() {
            return self.routes.way(0);
        }
        match (&self.cipher, op.session()) {
            (Some(cipher), Some(id)) => self.routes.way(slot_of(&cipher.key(&self.store.names, id))),
            _ => Way::Unknown,
        }
    }

    /// Encodes a call, for `flush`. If that is not possible here, the call falls back.
    fn send(&mut self, at: usize, mut call: Call) {
        let Primary { open, pending, unflushed, .. } = &mut self.primaries[at];
        if open.is_some()
            && let Op::Create(_, stamp) = &mut call.op
        {
            *stamp = Some(self.store.times.stamp());
        }
        let is_deferred = call.op.session().is_some_and(|id| self.fallback.has(id));
        if let Some(open) = open.as_mut().filter(|open| !is_deferred && !open.draining)
            && pending.calls.len() < MAX_CALLS
            && let Ok(request) = request_for(&self.store, &open.cipher, &call.op)
        {
            if pending.len() == 0 {
                open.socket.expect_from(Instant::now());
            }
            let start = open.socket.push(&request.bytes);
            *unflushed += 1;
            return pending.push(PendingCall { call, start, commands: request.commands });
        }
        self.fall_back(Some(at), call);
    }

    /// Takes the next queued call.
    fn take_queued(&mut self, at: usize) -> Option<Call> {
        let call = self.primaries[at].queued.pop_front()?;
        self.queued_bytes -= call.op.len();
        Some(call)
    }

    /// Sends all calls that were started.
    pub fn submit(&mut self) {
        (0..self.primaries.len()).for_each(|at| self.flush(at));
        if mem::take(&mut self.has_jobs) {
            self.store.wake();
        }
    }

    /// Writes what the system accepts, and encodes queued calls in its place.
    fn flush(&mut self, at: usize) {
        for _ in 0..FLUSHES {
            let Primary { open, unflushed, .. } = &mut self.primaries[at];
            *unflushed = 0;
            let Some(open) = open.as_mut().filter(|open| !open.has_failed && !open.write_closed) else {
                return;
            };
            match open.socket.flush() {
                Ok(()) => {}
                // The end of the connection can be read, after the remaining replies.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    open.write_closed = true;
                    open.draining = true;
                    return;
                }
                Err(_) => {
                    open.has_failed = true;
                    return;
                }
            }
            if self.primaries[at].queued.is_empty() || !self.has_room(at) {
                return;
            }
            let now = Instant::now();
            while self.has_room(at)
                && let Some(call) = self.take_queued(at)
            {
                if now >= call.deadline { self.give_up_unsent(call) } else { self.send(at, call) }
            }
        }
    }

    fn has_room(&self, at: usize) -> bool {
        self.primaries[at].has_room(&self.store.window)
    }

    /// Lets the worker report that a call is late. Nothing of the call was sent.
    fn give_up_unsent(&mut self, call: Call) {
        let jobs = self.jobs(call, false);
        self.push(jobs);
    }

    /// Reads once from a server and handles the replies. Returns whether there may be more to read.
    ///
    /// The caller lets the event loop turn before it reads more. The results run JavaScript, which makes new calls.
    /// Reading their replies too could go on forever.
    pub fn turn(&mut self, node: NodeId, results: &mut impl Results) -> bool {
        let Some(at) = self.find(node) else { return false };
        let outcome = self.read(at, results);
        let more = outcome.as_ref().is_ok_and(|more| *more);
        if outcome.is_err() {
            self.store.window.server_closed(self.primaries[at].pending.calls.len());
            self.fail(at);
        }
        self.hand_over(at);
        self.submit();
        more
    }

    /// Completes the calls whose deadline has passed. Call this after `turn` has found nothing more to read, because
    /// a busy thread may itself be late.
    pub fn expire(&mut self) {
        let now = Instant::now();
        for at in 0..self.primaries.len() {
            if self.primaries[at].is_lost(now, self.store.command_timeout) {
                self.fail(at);
            }
            // A server that answers late still owes the replies to the other calls.
            while let Some(call) = self.primaries[at].pending.pop_late(now) {
                let is_unknown = call.op.changes().is_some();
                let jobs = self.jobs(call, is_unknown);
                self.push(jobs);
            }
            while self.primaries[at].queued.front().is_some_and(|first| now >= first.deadline)
                && let Some(call) = self.take_queued(at)
            {
                self.give_up_unsent(call);
            }
        }
        let late = self.fallback.take_late(now);
        self.push(late);
        self.submit();
    }

    /// Reads once and handles the replies, up to a limit. Returns whether there may be more.
    fn read(&mut self, at: usize, results: &mut impl Results) -> Result<bool, Ended> {
        // Handling a reply may change the other primaries.
        let mut primary = mem::take(&mut self.primaries[at]);
        let is_tracked = primary.open.as_ref().is_some_and(|open| open.is_tracked);
        let mut ends = Ends { results, cache: self.cache.take(), is_tracked };
        // If this panics, the callers still get a result.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read_from(&mut primary, &mut ends)));
        self.primaries[at] = primary;
        let outcome = outcome.unwrap_or_else(|_| {
            for ticket in mem::take(&mut self.current) {
                ends.refused(ticket, &panicked());
            }
            Err(Ended)
        });
        self.cache = ends.cache;
        outcome
    }

    fn read_from<R: Results>(
        &mut self,
        primary: &mut Primary,
        ends: &mut Ends<'_, R>,
    ) -> Result<bool, Ended> {
        let Primary { open, pending, has_buffered, .. } = primary;
        let Some(open) = open else { return Ok(false) };
        if open.has_failed {
            return Err(Ended);
        }
        let mut has_read = false;
        let mut more = true;
        let mut taken = 0;
        *has_buffered = false;
        // One pending call may complete all the calls that share its request.
        while taken + pending.calls.front().map_or(1, |next| next.call.count()) <= AT_ONCE {
            let sharing = pending.calls.front().map_or(0, |next| next.call.sharing.len());
            if let Some(len) = self.take_next(open, pending, ends)? {
                open.socket.take(len);
                self.store.window.reply_came(len);
                taken += 1 + sharing;
                continue;
            }
            if has_read {
                return Ok(more);
            }
            match open.fill(ends.cache.as_mut(), &self.store.names).map_err(|_| Ended)? {
                Filled::Ended => return Err(Ended),
                Filled::Nothing => return Ok(false),
                filled => {
                    more = matches!(filled, Filled::Whole);
                    has_read = true;
                }
            }
        }
        *has_buffered = true;
        Ok(true)
    }

    /// Handles the replies to the next call, if they are complete. Returns their length.
    fn take_next(
        &mut self,
        open: &mut Open,
        pending: &mut Pending,
        ends: &mut Ends<'_, impl Results>,
    ) -> Result<Option<usize>, Ended> {
        let found = open.socket.replies(pending.next_replies()).map_err(|_| Ended)?;
        let Some((replies, len)) = found else { return Ok(None) };
        if let Some(cache) = &mut ends.cache {
            let begun_at = pending.next_deadline().and_then(|at| at.checked_sub(self.store.command_timeout));
            replies.iter().for_each(|reply| cache.note_reply(&mut open.proof, reply, begun_at));
        }
        open.draining |= self.take(&replies, &open.cipher, pending, ends)?;
        Ok(Some(len))
    }

    /// Handles the replies to a call. Returns whether the connection must not be used any more. Replies that no call
    /// expects end it.
    fn take(
        &mut self,
        replies: &[Reply<&[u8]>],
        cipher: &Cipher,
        pending: &mut Pending,
        results: &mut impl Results,
    ) -> Result<bool, Ended> {
        if pending.late.pop_front().is_some() {
            pending.progress.answered += 1;
            return Ok(false);
        }
        let call = pending.pop().ok_or(Ended)?;
        pending.progress.answered += 1;
        self.current.clear();
        self.current.extend(call.call.sharing.iter().rev().copied().chain([call.call.ticket]));
        let outcome = self.finish(call, replies, cipher, pending, results);
        self.current.clear();
        outcome.map(|()| replies.iter().any(ends_connection))
    }

    fn finish(
        &mut self,
        call: PendingCall,
        replies: &[Reply<&[u8]>],
        cipher: &Cipher,
        pending: &mut Pending,
        results: &mut impl Results,
    ) -> Result<(), Ended> {
        let progress = pending.progress;
        let PendingCall { call: Call { op, ticket, deadline, .. }, .. } = &call;
        let (ticket, deadline) = (*ticket, *deadline);
        let step = interpret(op.kind(), replies);
        if let Step::Refused(reason) | Step::PartlyRefused(reason) = step {
            if matches!(op, Op::Create(..)) {
                self.store.transactions.were_refused(reason);
            }
            self.retry(call, progress, matches!(step, Step::PartlyRefused(_)));
            return Ok(());
        }
        if let Op::Get(id) = op
            && self.fallback.has_earlier(id)
        {
            // The read must see an earlier change, which the worker has not made yet.
            self.retry(call, progress, false);
            return Ok(());
        }
        if let Some(id) = op.changes()
            && self.fallback.has_earlier(id)
        {
            match step {
                // The earlier change must not find the session that this call has created.
                Step::Created { .. } => {
                    if self.fallback.has_retries(id) {
                        self.retry_create(call, progress);
                        return Ok(());
                    }
                }
                _ => {
                    self.retry(call, progress, true);
                    return Ok(());
                }
            }
        }
        match (op, step) {
            (_, Step::Number(number)) => results.number(ticket, number),
            (Op::Get(id), Step::Found(value)) => {
                let (current, counters) = (&mut self.current, &self.store.counters);
                let opened = cipher.read_live(id, value, &self.store.times, |expires, content| {
                    tell_each(current, |ticket| {
                        results.session(ticket, Some((expires, content)));
                        counters.looked_up(true);
                    });
                });
                match opened {
                    Ok(()) => self.not_found(results),
                    Err(error) => tell_each(&mut self.current, |ticket| results.refused(ticket, &error)),
                }
            }
            (_, Step::NotFound) => self.not_found(results),
            (_, Step::Occupied | Step::OtherUser | Step::OutlivesIndex) => self.retry(call, progress, false),
            (Op::Create(session, stamp), Step::Created { index_len }) => {
                self.created(session, *stamp, index_len, ticket, deadline, results);
            }
            (_, Step::UserIsFull) => {
                let max = self.store.per_user.max.map_or(0, usize::from);
                results.refused(ticket, &StoreError::TooManySessions { max });
            }
            (Op::Delete(id), Step::Deleted(value)) => {
                let member = cipher.member(id);
                self.store.counters.deleted(id, || cipher.user_of(&member, value));
                if let Some(stale) = StaleEntry::of(member, value, &self.store.names) {
                    self.apart(Waiter::Nobody, async move |context: Rc<Context>| {
                        session::forget_later(&context, stale);
                        Ok(Answer::Number(1))
                    });
                }
                results.number(ticket, 1);
            }
            _ => {
                // This call is handled like those behind it.
                pending.progress.answered -= 1;
                pending.put_back(call);
                return Err(Ended);
            }
        }
        Ok(())
    }

    /// Completes the remaining `get`s: there is no session.
    fn not_found(&mut self, results: &mut impl Results) {
        let counters = &self.store.counters;
        tell_each(&mut self.current, |ticket| {
            results.session(ticket, None);
            counters.looked_up(false);
        });
    }

    fn created(
        &mut self,
        session: &NewSession,
        created: Option<Stamp>,
        index_len: u64,
        ticket: u32,
        deadline: Instant,
        results: &mut impl Results,
    ) {
        Counters::add(&self.store.counters.created, 1);
        let limit = self.store.per_user;
        let is_above = limit.max.is_some_and(|max| index_len > max.get() as u64);
        let ends_others = is_above && limit.ends_beyond().is_some();
        if !ends_others {
            results.number(ticket, 1);
        }
        if !is_above {
            return;
        }
        let (user, id, expires) =
            (session.user().map(|user| user.to_buf()), session.id.clone(), session.expires);
        let waiter =
            if ends_others { Waiter::Ticket { to: Arc::clone(&self.to), ticket } } else { Waiter::Nobody };
        self.apart(waiter, async move |context: Rc<Context>| {
            let work = async |attempt: &Attempt| {
                let cipher = session::cipher(&context, attempt).await?;
                let (user, member) =
                    (cipher.user(user.as_ref().map(|user| user.as_key())), cipher.member(&id));
                session::keep_limit(&context, attempt, &user, &member, index_len, created, expires).await;
                Ok(())
            };
            // The session is stored, even if this fails.
            let _ = context.router.within(deadline.into(), work).await;
            Ok(Answer::Number(1))
        });
    }

    /// Lets the worker do the follow-up work of a call that has succeeded.
    fn apart<F>(&mut self, waiter: Waiter, work: impl FnOnce(Rc<Context>) -> F + Send + 'static)
    where
        F: Future<Output = Result<Answer>> + 'static,
    {
        let cold: Cold = Box::new(move |context| Box::pin(work(context)));
        self.store.queue.push(Op::Cold(cold), waiter, self.store.command_timeout);
        self.has_jobs = true;
    }

    /// Ends a connection. Its calls fall back to the worker, which repeats them or reports that they are late.
    fn fail(&mut self, at: usize) {
        let Primary { open, pending, .. } = &mut self.primaries[at];
        let Some(open) = open.take() else { return };
        // Before anything is sent on another connection.
        abort(open.socket.socket());
        let (calls, progress) = (pending.take_all(), pending.progress);
        for mut call in calls {
            let (op, was_sent) = (&call.call.op, open.socket.has_sent(call.start));
            let is_unknown = was_sent && op.changes().is_some();
            let follows_retries = op.changes().is_some_and(|id| self.fallback.has_retries(id));
            if was_sent && follows_retries && matches!(op, Op::Create(..)) {
                // Earlier calls on this session are retried, and might change the session that this one may have
                // created. The worker reports it as late.
                call.call.deadline = Instant::now();
                self.retry(call, progress, true);
            } else {
                self.retry(call, progress, is_unknown);
            }
        }
        self.fall_back_queued(at);
        let progress = &mut self.primaries[at].pending.progress;
        progress.answered = progress.sent;
        let node = progress.node;
        self.end(node, open);
        self.hand_over(at);
    }

    fn end(&mut self, node: NodeId, open: Open) {
        self.cache.iter_mut().for_each(NearCache::drop_all);
        let socket = open.socket.into_socket();
        abort(&socket);
        self.dead.push((node, socket));
        if self.is_wanted {
            self.store.lost_connection(node);
        }
    }

    /// Gives the worker the calls whose preceding replies have arrived.
    fn hand_over(&mut self, at: usize) {
        if self.primaries[at].is_draining() {
            self.fall_back_queued(at);
        }
        let Primary { open, pending, .. } = &mut self.primaries[at];
        if pending.calls.is_empty()
            && let Some(open) = open.take_if(|open| open.draining)
        {
            // No replies to late calls will arrive.
            pending.take_all();
            pending.progress.answered = pending.progress.sent;
            let node = pending.progress.node;
            self.end(node, open);
        }
        let Primary { pending, lost_until, .. } = &mut self.primaries[at];
        if lost_until.take_if(|until| pending.progress.answered >= *until).is_some() {
            self.routes.release(at);
        }
        let primaries = &self.primaries;
        let ready = self.fallback.take_ready(|node| {
            let primary = primaries.iter().find(|primary| primary.node() == node);
            // A removed primary has no pending calls.
            primary.map_or(u64::MAX, |primary| primary.pending.progress.answered)
        });
        self.push(ready);
    }

    /// Records that the worker has completed calls, by their tickets.
    pub fn completed(&mut self, tickets: impl Iterator<Item = u32>) {
        let Self { cache, fallback, .. } = self;
        fallback.completed(tickets.inspect(|&ticket| cache.iter_mut().for_each(|cache| cache.end(ticket))));
    }

    fn fall_back_queued(&mut self, at: usize) {
        while let Some(call) = self.take_queued(at) {
            self.fall_back(Some(at), call);
        }
    }

    /// Gives an unsent call to the worker, after the primary has answered the calls before it.
    fn fall_back(&mut self, at: Option<usize>, call: Call) {
        let pending = at.map(|at| &self.primaries[at].pending);
        let pending = pending.filter(|pending| pending.may_precede(&call.op));
        let after = pending.map_or_else(Progress::default, |pending| pending.progress);
        for job in self.jobs(call, false) {
            // If there will never be a connection, the worker alone keeps the order.
            let begun = if self.is_wanted { self.fallback.add(job, after) } else { Some(job) };
            self.push(begun);
        }
    }

    /// Gives a call that was sent to the worker, which starts it again.
    fn retry(&mut self, call: PendingCall, progress: Progress, is_unknown: bool) {
        for job in self.jobs(call.call, is_unknown) {
            let begun = self.fallback.retry(job, progress);
            self.push(begun);
        }
    }

    /// Like `retry`, for a creation that has stored its session.
    fn retry_create(&mut self, call: PendingCall, progress: Progress) {
        for job in self.jobs(call.call, true) {
            let begun = self.fallback.retry_create(job, progress);
            self.push(begun);
        }
    }

    fn jobs(&self, call: Call, is_unknown: bool) -> impl Iterator<Item = Job> + use<> {
        let (to, deadline) = (Arc::clone(&self.to), call.deadline.into());
        call.each().filter(|(_, ticket)| *ticket != PROBE).map(move |(op, ticket)| {
            let waiter = Waiter::Ticket { to: Arc::clone(&to), ticket };
            Job { op, waiter, deadline, is_unknown }
        })
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs = jobs.into_iter().peekable();
        if jobs.peek().is_some() {
            self.store.queue.push_jobs(jobs);
            self.has_jobs = true;
        }
    }
}

/// Completes each of the current calls. If that panics, `current` contains the remaining ones.
fn tell_each(current: &mut SmallVec<[u32; 4]>, mut tell: impl FnMut(u32)) {
    while let Some(&ticket) = current.last() {
        tell(ticket);
        current.pop();
    }
}

/// The request of a call.
fn request_for(store: &RedisStore, cipher: &Cipher, op: &Op) -> Result<Request> {
    let (names, times) = (&store.names, &store.times);
    let (read, write) = (Request::read(RequestMode::default()), Request::write(RequestMode::default()));
    let key = |id| cipher.key(names, id);
    Ok(match op {
        // With `wait_replicas` the worker makes all changes.
        op if store.waits_for_replicas && op.changes().is_some() => return Err(error::unexpected()),
        Op::Get(id) => session::get_request(read, &key(id)),
        Op::Touch(id, expires, enough) => {
            session::touch_request(write, &key(id), *expires, *enough, None, times)
        }
        Op::Delete(id) => session::delete_request(write, &key(id)),
        Op::Update(session) => {
            let member = cipher.member(&session.id);
            let user = cipher.user(session.user());
            let change = Change::new(session, names.session(&member), &member, &user, cipher, times)?;
            change.replace(write, &user, None, times)
        }
        // In a cluster the index is on another node, which must answer first.
        Op::Create(session, _) if store.is_cluster && session.user().is_some() => {
            return Err(error::unexpected());
        }
        Op::Create(session, stamp) => {
            let created = stamp.ok_or_else(error::unexpected)?;
            let creation = Creation::new(session, created, cipher, names, times)?;
            let limit = store.per_user;
            let is_simple = store.transactions.are_taken() && !creation.needs_script(limit);
            if session.user().is_none() || is_simple {
                creation.transaction(write, created, limit.max.is_some())
            } else {
                creation.script(write, Some(created), limit, false, times)
            }
        }
        Op::Cold(_) => return Err(error::unexpected()),
    })
}

/// Whether a reply shows that another server must be used, or this one only later.
fn ends_connection(reply: &Reply<&[u8]>) -> bool {
    let Reply::Error(error) = reply else { return false };
    matches!(error::code(error), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH")
}
