//! Starts calls, and sends them to their primaries.

use std::mem;
use std::time::Instant;

use super::super::RedisStore;
use super::super::connection::is_end_of_writing;
use super::super::error;
use super::super::queue::{MAX_CALLS, MAX_QUEUED_BYTES, too_much_queued};
use super::super::resp::{Request, RequestMode, slot_of};
use super::super::session::{self, Change, ConditionalChange, Creation, Op};
use super::FastPath;
use super::primary::{Call, OpenConnection, PendingCall, Primary};
use super::routes::Destination;
use crate::clock::Millis;
use crate::error::Result;
use crate::session::{Expiry, Session, SessionId};

/// The fewest calls that are sent before the end of the turn.
const MIN_BATCH: usize = 16;

/// How often one turn refills the socket with queued calls. The rest waits for the next turn.
const MAX_REFILLS: usize = 4;

impl FastPath {
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
        let started = self.start(op, ticket);
        if started.is_err() {
            self.cache.iter_mut().for_each(|cache| cache.end(ticket));
        }
        started
    }

    fn start(&mut self, op: Op, ticket: u32) -> Result<()> {
        let deadline = Instant::now() + self.store.command_timeout;
        let call = Call::new(op, ticket, deadline);
        let at = match self.destination(&call.op) {
            Destination::To(at) => at,
            Destination::After(at) => {
                self.fall_back(Some(at), call);
                return Ok(());
            }
            Destination::Unknown => {
                self.fall_back(None, call);
                return Ok(());
            }
        };
        let primary = &mut self.primaries[at];
        if call.op.session().is_some_and(|id| !self.fallback.has(id))
            && primary.share(&call.op, ticket, deadline)
        {
            return Ok(());
        }
        if primary.queued.is_empty() && primary.has_room(&self.store.window) {
            self.send(at, call);
            let primary = &self.primaries[at];
            // The server works on the other pending calls while this thread makes a batch. Smaller batches would cost more
            // system calls on both sides.
            let batch = MIN_BATCH.max(primary.pending.calls.len() / 4);
            if primary.unflushed >= batch || !self.has_room(at) {
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
    fn destination(&self, op: &Op) -> Destination {
        if self.routes.is_one_server() {
            return self.routes.destination(0);
        }
        match (&self.cipher, op.session()) {
            (Some(cipher), Some(id)) => self.routes.destination(slot_of(&cipher.key(&self.store.names, id))),
            _ => Destination::Unknown,
        }
    }

    /// Encodes a call, for `flush`. If that is not possible here, the call falls back.
    pub(super) fn send(&mut self, at: usize, mut call: Call) {
        let Primary { open, pending, unflushed, .. } = &mut self.primaries[at];
        if open.is_some()
            && let Op::Create(_, stamp) = &mut call.op
        {
            *stamp = Some(self.store.times.stamp());
        }
        let is_deferred = call.op.session().is_some_and(|id| self.fallback.has(id));
        // The worker makes a conditional call if the session is not as expected. This change must come after it.
        let must_wait = call.op.changes().is_some_and(|id| pending.has_conditional(id));
        if let Some(open) = open.as_mut().filter(|open| !is_deferred && !open.draining)
            && pending.calls.len() < MAX_CALLS
            && let Ok((request, expected)) = request_for(&self.store, open, &call.op, |id| self.known.get(id))
            // A conditional call expects the value of the one before, so the worker makes it as well.
            && (expected.is_conditional() || !must_wait)
        {
            if pending.len() == 0 {
                open.socket.expect_from(Instant::now());
            }
            let start = open.socket.push(&request.bytes);
            *unflushed += 1;
            match (call.op.changes(), &expected) {
                (Some(id), Expected::Value(value)) => self.known.put(id, value),
                (Some(id), Expected::Unknown) => self.known.forget(id),
                (Some(_), Expected::NoChange) | (None, _) => {}
            }
            let is_conditional = expected.is_conditional();
            return pending.push(PendingCall { call, start, commands: request.commands, is_conditional });
        }
        self.fall_back(Some(at), call);
    }

    /// Takes the next queued call.
    pub(super) fn take_queued(&mut self, at: usize) -> Option<Call> {
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
        for _ in 0..MAX_REFILLS {
            let Primary { open, unflushed, .. } = &mut self.primaries[at];
            *unflushed = 0;
            let Some(open) = open.as_mut().filter(|open| !open.has_failed && !open.write_closed) else {
                return;
            };
            match open.socket.flush() {
                Ok(()) => {}
                // The end of the connection can be read, after the remaining replies.
                Err(error) if is_end_of_writing(&error) => {
                    open.write_closed = true;
                    open.draining = true;
                    self.take_back_unsent(at);
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

    /// Lets the calls fall back that this connection will not send any more. The replies to the others may take long.
    fn take_back_unsent(&mut self, at: usize) {
        let Primary { open, pending, .. } = &mut self.primaries[at];
        let Some(open) = open else { return };
        for unsent in pending.take_unsent(|start| open.socket.has_sent(start)) {
            self.fall_back(Some(at), unsent.call);
        }
        // Without sent calls no reply and no deadline will come.
        self.hand_over(at);
    }

    pub(super) fn has_room(&self, at: usize) -> bool {
        self.primaries[at].has_room(&self.store.window)
    }
}

/// What a call is expected to do.
enum Expected {
    /// The call decides it at the server.
    Unknown,
    /// A conditional change gives the session this value.
    Value(Vec<u8>),
    /// A touch only checks that the session has a late enough expiry.
    NoChange,
}

impl Expected {
    fn is_conditional(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// The request of a call.
fn request_for<'a>(
    store: &RedisStore,
    open: &mut OpenConnection,
    op: &Op,
    known: impl Fn(&SessionId) -> Option<&'a [u8]>,
) -> Result<(Request, Expected)> {
    let OpenConnection { cipher, conditional_form, .. } = open;
    let (names, times) = (&store.names, &store.times);
    let (read, write) = (Request::read(RequestMode::default()), Request::write(RequestMode::default()));
    let key = |id| cipher.key(names, id);
    let request = match op {
        // With `wait_replicas` the worker makes all changes.
        op if store.waits_for_replicas && op.changes().is_some() => return Err(error::unexpected()),
        Op::Get(id) => session::get_request(read, &key(id)),
        Op::Touch(id, expires, enough) => {
            let known = known(id);
            if known.zip(*enough).is_some_and(|(known, enough)| session::is_enough(known, enough, times)) {
                return Ok((session::head_request(read, &key(id)), Expected::NoChange));
            }
            if let Some(change) = known.and_then(|known| ConditionalChange::touch(known, *expires, times)) {
                return Ok((conditional_form.request(&change, &key(id)), Expected::Value(change.value)));
            }
            session::touch_request(write, &key(id), *expires, *enough, None, times)
        }
        Op::Delete(id) => session::delete_request(write, &key(id)),
        Op::Update(session) => {
            let member = cipher.member(&session.id);
            let user = cipher.user(session.user());
            let change = Change::new(session, names.session(&member), &member, &user, cipher, times)?;
            let conditional = known(&session.id)
                .and_then(|known| ConditionalChange::update(known, &change, &user, session.expires, times));
            if let Some(conditional) = conditional {
                let request = conditional_form.request(&conditional, &change.key);
                return Ok((request, Expected::Value(conditional.value)));
            }
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
            let is_simple = store.transactions.is_supported() && !creation.needs_script(limit);
            if session.user().is_none() || is_simple {
                creation.transaction(write, created, limit.max.is_some())
            } else {
                creation.script(write, Some(created), limit, false, times)
            }
        }
        Op::Cold(_) => return Err(error::unexpected()),
    };
    Ok((request, Expected::Unknown))
}
