//! The calls on one session without the worker: the thread that makes them writes and reads a socket itself, when its
//! event loop says that it is ready. To hand each over would cost two more wake-ups of threads.
//!
//! The fast path does what goes well. All else (a server that refuses or has gone, an update of another user's session)
//! falls back to the worker, which begins that call again, in the order of the calls on each session (`fallback`).

mod fallback;
pub(super) mod provision;

#[cfg(all(test, unix))]
mod tests;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use self::fallback::{Fallback, Progress};
use super::RedisStore;
use super::connection::{Filled, Socket, abort};
use super::counters::Counters;
use super::error::{self, panicked};
use super::queue::{Answers, EventLoopConnection, Job, MAX_CALLS, MAX_QUEUED_BYTES, Waiter, too_much_queued};
use super::resp::{Reply, Request, RequestMode};
use super::routing::Attempt;
use super::session::{
    self, Change, Cipher, Cold, Context, Creation, NewSession, Op, StaleEntry, Step, interpret,
};
use super::time::Stamp;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId};
use crate::store::Answer;

/// The most ends of calls, other than refusals, that one turn tells of.
pub const AT_ONCE: usize = 1024;

/// After how many calls the server is sent them, though more may come at once: it works on some while others are made.
/// Where more are under way they are as large a part of them, as each sending costs a system call on either side.
const A_FLUSH: usize = 16;

/// Receives the results of calls, by their tickets.
pub trait Results {
    fn number(&mut self, ticket: u32, number: u64);
    /// Of a `get`.
    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>);
    fn refused(&mut self, ticket: u32, error: &StoreError);
}

/// What a fast path waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// That the socket takes more.
    pub room: bool,
    /// When there is something to be done without it: the oldest call has to be answered by then.
    pub deadline: Option<Instant>,
}

/// How many bytes may wait for the system at once. Calls beyond that wait before they are encoded, so that those whose
/// time is over are never sent.
const MAX_UNSENT: usize = 256 * 1024;

/// How often a turn fills that again.
const FLUSHES: usize = 4;

/// A call that waits until the server has taken others.
struct QueuedCall {
    op: Op,
    ticket: u32,
    deadline: Instant,
}

/// A call that the server has been asked to carry out, or is about to be.
struct PendingCall {
    op: Op,
    ticket: u32,
    deadline: Instant,
    /// Where its command begins in all that is sent. It gets one reply.
    start: u64,
}

/// The connection while it is open.
struct Open {
    socket: Socket,
    cipher: Arc<Cipher>,
    /// The server is no longer the right one: it answers what it was asked, and is asked no more.
    draining: bool,
    /// It takes no more bytes, but what it has may be answered yet.
    write_closed: bool,
    /// Nothing can be sent any more. The next turn sees to it.
    has_failed: bool,
}

/// The error where a connection has ended, or is of no more use: the server closed it, or says what nobody asked for.
struct Ended;

/// How one JavaScript thread reaches a store: by a connection of its own while that is well, else by the worker.
pub struct FastPath {
    store: Arc<RedisStore>,
    to: Arc<dyn Answers>,
    open: Option<Open>,
    /// The socket of a connection that has ended, until its poll is closed.
    dead: Option<Arc<socket2::Socket>>,
    waiting: VecDeque<PendingCall>,
    /// Calls after those.
    queued: VecDeque<QueuedCall>,
    /// How many bytes the queued calls hold.
    queued_bytes: usize,
    /// Calls before those that wait, which are over as they were late: the deadline of each.
    late: VecDeque<Instant>,
    /// The call whose end is being told.
    current: Option<u32>,
    progress: Progress,
    /// Whether replies may have been read that are not taken yet.
    has_buffered: bool,
    fallback: Fallback,
    has_jobs: bool,
    /// How many calls the system does not have yet.
    unflushed: usize,
    /// Whether there is to be a connection.
    is_wanted: bool,
}

impl FastPath {
    /// Makes the fast path of a thread. The worker reports to `to` what becomes of the calls that fall back.
    pub fn new(store: Arc<RedisStore>, to: Arc<dyn Answers>) -> Self {
        Self {
            store,
            to,
            open: None,
            dead: None,
            waiting: VecDeque::new(),
            queued: VecDeque::new(),
            queued_bytes: 0,
            late: VecDeque::new(),
            current: None,
            progress: Progress::default(),
            has_buffered: false,
            fallback: Fallback::default(),
            has_jobs: false,
            unflushed: 0,
            is_wanted: false,
        }
    }

    /// Has a connection made, and another whenever that ends. `Answers::connected` gives it. Where none is possible it never
    /// comes.
    pub fn want(&mut self) {
        self.is_wanted = true;
        self.store.want_connection(&self.to);
    }

    /// Uses a connection from now on.
    pub fn open(&mut self, line: EventLoopConnection) {
        match Socket::new(line.connection) {
            Ok(socket) if self.open.is_none() && self.is_wanted => {
                self.open = Some(Open {
                    socket,
                    cipher: line.cipher,
                    draining: false,
                    write_closed: false,
                    has_failed: false,
                });
            }
            Err(_) if self.is_wanted => self.store.want_connection(&self.to),
            _ => {}
        }
    }

    /// The socket to wait for.
    pub fn socket(&self) -> Option<&socket2::Socket> {
        self.open.as_ref().map(|open| open.socket.socket())
    }

    /// What is left of a connection that has ended, for the code that waited for its socket.
    pub fn take_closed_socket(&mut self) -> Option<Arc<socket2::Socket>> {
        self.dead.take()
    }

    pub fn interest(&self) -> Interest {
        Interest {
            room: self.open.as_ref().is_some_and(|open| {
                !open.write_closed
                    && (!open.socket.is_flushed() || !self.queued.is_empty() && self.has_room())
            }),
            deadline: match &self.open {
                // Nothing of the socket says so.
                Some(open) if open.has_failed || self.has_buffered => Some(Instant::now()),
                _ => self.next_deadline(),
            },
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let first = match &self.open {
            Some(open) if self.waiting.is_empty() && !self.late.is_empty() => {
                Some(open.socket.last_read_at() + self.store.command_timeout)
            }
            _ => self.waiting.front().map(|first| first.deadline),
        };
        let first = first.or(self.queued.front().map(|first| first.deadline));
        first.into_iter().chain(self.fallback.next_deadline()).min()
    }

    /// Whether no call is under way here. The worker reports those that it has.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.queued.is_empty() && !self.fallback.is_waiting()
    }

    /// Ends the connection at the next turn, which comes soon.
    pub fn give_up(&mut self) {
        if let Some(open) = &mut self.open {
            open.has_failed = true;
        }
    }

    /// Takes no more calls. `RedisStore::flush` waits until it is idle, and `shut` has told so.
    pub fn start_drain(&mut self) {
        self.is_wanted = false;
        self.store.queue.fast_path.set_busy(true);
        self.submit();
    }

    /// Drops the connection and all that waits for it.
    pub fn shut(&mut self) {
        self.is_wanted = false;
        if let Some(open) = self.open.take() {
            self.end(open);
        }
        self.waiting.clear();
        self.queued.clear();
        self.queued_bytes = 0;
        self.late.clear();
        self.store.queue.fast_path.set_busy(false);
    }

    /// Begins [`crate::store::SessionStore::create`]: queues it, for `submit`.
    ///
    /// # Errors
    /// `TooLarge`; `Busy` if too much waits for the server. Nothing is queued then.
    pub fn create(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let session = self.store.new_session(session)?;
        self.begin(Op::Create(session, None), ticket)
    }

    /// Begins [`crate::store::SessionStore::update`]. The number is 1 if there was a live session, or 0.
    ///
    /// # Errors
    /// As for `create`.
    pub fn update(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let session = self.store.new_session(session)?;
        self.begin(Op::Update(session), ticket)
    }

    /// Begins [`crate::store::SessionStore::get`].
    ///
    /// # Errors
    /// `Busy`, as for `create`.
    pub fn get(&mut self, id: SessionId, ticket: u32) -> Result<()> {
        self.begin(Op::Get(id), ticket)
    }

    /// Begins [`crate::store::SessionStore::touch`], or `prolong` where `enough` is given. The number is 1 if there was a
    /// live session, or 0.
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

    /// Begins [`crate::store::SessionStore::delete`].
    ///
    /// # Errors
    /// `Busy`, as for `create`.
    pub fn delete(&mut self, id: SessionId, ticket: u32) -> Result<()> {
        self.begin(Op::Delete(id), ticket)
    }

    fn begin(&mut self, op: Op, ticket: u32) -> Result<()> {
        let deadline = Instant::now() + self.store.command_timeout;
        if self.queued.is_empty() && self.has_room() {
            self.send(op, ticket, deadline);
            if self.unflushed >= A_FLUSH.max(self.waiting.len() / A_FLUSH) {
                self.flush();
            }
            return Ok(());
        }
        let bytes = self.queued_bytes + op.len();
        if bytes > MAX_QUEUED_BYTES && !self.queued.is_empty() {
            return Err(too_much_queued());
        }
        self.queued_bytes = bytes;
        // Behind the others: they may change the same session.
        self.queued.push_back(QueuedCall { op, ticket, deadline });
        Ok(())
    }

    /// Whether another call may be encoded.
    fn has_room(&self) -> bool {
        let Some(open) = &self.open else { return true };
        open.socket.unsent() < MAX_UNSENT && self.store.window.has_room(self.waiting.len() + self.late.len())
    }

    /// Encodes a call, for `flush`. What cannot be sent here falls back.
    fn send(&mut self, mut op: Op, ticket: u32, deadline: Instant) {
        if self.open.is_some()
            && let Op::Create(_, stamp) = &mut op
        {
            *stamp = Some(self.store.times.stamp());
        }
        let is_deferred = op.session().is_some_and(|id| self.fallback.has(id));
        if let Some(open) = self.open.as_mut().filter(|open| !is_deferred && !open.draining)
            && self.waiting.len() < MAX_CALLS
            && let Ok(request) = request_for(&self.store, &open.cipher, &op)
        {
            if self.waiting.is_empty() && self.late.is_empty() {
                open.socket.expect_from(Instant::now());
            }
            let start = open.socket.push(&request.bytes);
            self.progress.sent += 1;
            self.unflushed += 1;
            return self.waiting.push_back(PendingCall { op, ticket, deadline, start });
        }
        self.fall_back(op, ticket, deadline);
    }

    /// Takes the next call out of the queue.
    fn take_queued(&mut self) -> Option<QueuedCall> {
        let call = self.queued.pop_front()?;
        self.queued_bytes -= call.op.len();
        Some(call)
    }

    /// Has what is queued begin.
    pub fn submit(&mut self) {
        self.flush();
        if mem::take(&mut self.has_jobs) {
            self.store.wake();
        }
    }

    /// Writes what the system takes, and encodes queued calls in its place. What is left then is for the next turn.
    fn flush(&mut self) {
        for _ in 0..FLUSHES {
            self.unflushed = 0;
            let Some(open) = self.open.as_mut().filter(|open| !open.has_failed && !open.write_closed) else {
                return;
            };
            match open.socket.flush() {
                Ok(()) => {}
                // Its end can be read, behind the answers.
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
            if self.queued.is_empty() || !self.has_room() {
                return;
            }
            let now = Instant::now();
            while self.has_room()
                && let Some(call) = self.take_queued()
            {
                if now >= call.deadline {
                    self.give_up_unsent(call)
                } else {
                    self.send(call.op, call.ticket, call.deadline)
                }
            }
        }
    }

    /// Has the worker say of a call that it is late. Nothing of it was sent.
    fn give_up_unsent(&mut self, call: QueuedCall) {
        let job = self.job(call.op, call.ticket, call.deadline, false);
        self.push([job]);
    }

    /// Reads once what the server says, and writes what it takes; `true` if there may be more to be read.
    ///
    /// The caller has the event loop turn before it reads more: what it reports runs JavaScript, which makes new calls,
    /// whose replies could be read for ever.
    pub fn turn(&mut self, results: &mut impl Results) -> bool {
        let outcome = self.read(results);
        let more = outcome.as_ref().is_ok_and(|more| *more);
        if outcome.is_err() {
            self.store.window.server_closed(self.waiting.len());
            self.fail();
        }
        self.hand_over();
        self.submit();
        more
    }

    /// Ends the calls whose time is over; to be called when the deadline has come, and `turn` has found no more to read: a
    /// thread that was busy may be late itself.
    pub fn expire(&mut self) {
        let now = Instant::now();
        let timeout = self.store.command_timeout;
        let owes = !self.waiting.is_empty() || !self.late.is_empty();
        let is_silent = |open: &Open| now >= open.socket.last_read_at() + timeout;
        // What is so late is in buffers on the way, and all behind it is late too.
        let is_overdue = self.late.front().is_some_and(|deadline| now >= *deadline + timeout);
        if is_overdue || owes && self.open.as_ref().is_some_and(is_silent) {
            self.fail();
        }
        // One that answers, but not in time, has the others' answers yet.
        while self.waiting.front().is_some_and(|first| now >= first.deadline)
            && let Some(call) = self.waiting.pop_front()
        {
            self.late.push_back(call.deadline);
            let is_unknown = call.op.changes().is_some();
            let job = self.job(call.op, call.ticket, call.deadline, is_unknown);
            self.push([job]);
        }
        while self.queued.front().is_some_and(|first| now >= first.deadline)
            && let Some(call) = self.take_queued()
        {
            self.give_up_unsent(call);
        }
        let late = self.fallback.take_late(now);
        self.push(late);
        self.submit();
    }

    /// Reads once and takes what has come, up to so much; whether there may be more.
    fn read(&mut self, results: &mut impl Results) -> Result<bool, Ended> {
        let Some(mut open) = self.open.take() else { return Ok(false) };
        // A panic is no reason to leave callers waiting.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read_from(&mut open, results)));
        self.open = Some(open);
        outcome.unwrap_or_else(|_| {
            if let Some(ticket) = self.current.take() {
                results.refused(ticket, &panicked());
            }
            Err(Ended)
        })
    }

    fn read_from(&mut self, open: &mut Open, results: &mut impl Results) -> Result<bool, Ended> {
        if open.has_failed {
            return Err(Ended);
        }
        let mut has_read = false;
        let mut more = true;
        let mut taken = 0;
        self.has_buffered = false;
        while taken < AT_ONCE {
            if let Some(len) = self.take_next(open, results)? {
                open.socket.take(len);
                self.store.window.reply_came(len);
                taken += 1;
                continue;
            }
            if has_read {
                return Ok(more);
            }
            match open.socket.fill().map_err(|_| Ended)? {
                Filled::Ended => return Err(Ended),
                Filled::Nothing => return Ok(false),
                filled => {
                    more = matches!(filled, Filled::Whole);
                    has_read = true;
                }
            }
        }
        self.has_buffered = true;
        Ok(true)
    }

    /// Takes the reply to the next call, if it has come; its length.
    fn take_next(&mut self, open: &mut Open, results: &mut impl Results) -> Result<Option<usize>, Ended> {
        let found = open.socket.reply().map_err(|_| Ended)?;
        let Some((reply, len)) = found else { return Ok(None) };
        self.take(&reply, &open.cipher, &mut open.draining, results)?;
        Ok(Some(len))
    }

    /// Takes the reply to a call. One that nobody asked for ends the connection.
    fn take(
        &mut self,
        reply: &Reply<&[u8]>,
        cipher: &Cipher,
        draining: &mut bool,
        results: &mut impl Results,
    ) -> Result<(), Ended> {
        if self.late.pop_front().is_some() {
            self.progress.answered += 1;
            return Ok(());
        }
        let call = self.waiting.pop_front().ok_or(Ended)?;
        self.progress.answered += 1;
        *draining |= ends_connection(reply);
        self.current = Some(call.ticket);
        let outcome = self.finish(call, reply, cipher, results);
        self.current = None;
        outcome
    }

    fn finish(
        &mut self,
        call: PendingCall,
        reply: &Reply<&[u8]>,
        cipher: &Cipher,
        results: &mut impl Results,
    ) -> Result<(), Ended> {
        let (ticket, step) = (call.ticket, interpret(call.op.kind(), std::slice::from_ref(reply)));
        if let Step::Refused(_) = step {
            self.retry(call, false);
            return Ok(());
        }
        if let Op::Get(id) = &call.op
            && self.fallback.has(id)
        {
            // It has to see the change before it, which has not been made.
            self.retry(call, false);
            return Ok(());
        }
        if let Some(id) = call.op.changes()
            && self.fallback.has(id)
        {
            match step {
                // What goes before it is not to come upon it.
                Step::Created { .. } => {
                    if self.fallback.has_retries(id) {
                        self.retry_create(call);
                        return Ok(());
                    }
                }
                _ => {
                    self.retry(call, true);
                    return Ok(());
                }
            }
        }
        match (&call.op, step) {
            (_, Step::Number(number)) => results.number(ticket, number),
            (Op::Get(id), Step::Found(value)) => {
                let mut found = false;
                let opened = cipher.read_live(id, value, &self.store.times, |expires, content| {
                    found = true;
                    results.session(ticket, Some((expires, content)));
                });
                match opened {
                    Ok(()) => {
                        if !found {
                            results.session(ticket, None);
                        }
                        self.store.counters.looked_up(found);
                    }
                    Err(error) => results.refused(ticket, &error),
                }
            }
            (_, Step::NotFound) => {
                self.store.counters.looked_up(false);
                results.session(ticket, None);
            }
            (_, Step::Occupied | Step::OtherUser | Step::OutlivesIndex) => self.retry(call, false),
            (Op::Create(session, stamp), Step::Created { index_len }) => {
                self.created(session, *stamp, index_len, ticket, results);
            }
            (Op::Delete(id), Step::Deleted(value)) => {
                if let Some(stale) = StaleEntry::of(cipher.member(id), value, &self.store.names) {
                    self.apart(Waiter::Nobody, async move |context: Rc<Context>| {
                        session::forget_later(&context, stale);
                        Ok(Answer::Number(1))
                    });
                }
                results.number(ticket, 1);
            }
            _ => {
                // It fares as the calls behind it.
                self.progress.answered -= 1;
                self.waiting.push_front(call);
                return Err(Ended);
            }
        }
        Ok(())
    }

    fn created(
        &mut self,
        session: &NewSession,
        created: Option<Stamp>,
        index_len: u64,
        ticket: u32,
        results: &mut impl Results,
    ) {
        Counters::add(&self.store.counters.created, 1);
        if self.store.max_sessions_per_user.is_none_or(|max| index_len <= max.get() as u64) {
            return results.number(ticket, 1);
        }
        let (user, id, expires) =
            (session.user().map(|user| user.to_buf()), session.id.clone(), session.expires);
        let waiter = Waiter::Ticket { to: Arc::clone(&self.to), ticket };
        self.apart(waiter, async move |context: Rc<Context>| {
            let work = async |attempt: &Attempt| {
                let cipher = session::cipher(&context, attempt).await?;
                let (user, member) =
                    (cipher.user(user.as_ref().map(|user| user.as_key())), cipher.member(&id));
                session::limit(&context, attempt, &user, &member, index_len, created, expires).await;
                Ok(())
            };
            // The session is stored, whatever comes of this.
            let _ = context.router.step(work).await;
            Ok(Answer::Number(1))
        });
    }

    /// Has the worker do what follows a call that went well.
    fn apart<F>(&mut self, waiter: Waiter, work: impl FnOnce(Rc<Context>) -> F + Send + 'static)
    where
        F: Future<Output = Result<Answer>> + 'static,
    {
        let cold: Cold = Box::new(move |context| Box::pin(work(context)));
        self.store.queue.push(Op::Cold(cold), waiter, self.store.command_timeout);
        self.has_jobs = true;
    }

    /// The connection has ended: the worker begins its calls again, or says that they are late.
    fn fail(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Before anything goes by another connection.
        abort(open.socket.socket());
        self.late.clear();
        for call in mem::take(&mut self.waiting) {
            let was_sent = open.socket.has_sent(call.start);
            let is_unknown = was_sent && call.op.changes().is_some();
            let follows_retries = call.op.changes().is_some_and(|id| self.fallback.has_retries(id));
            if was_sent && follows_retries && matches!(call.op, Op::Create(..)) {
                // Those before it might change the session that it may have created. The worker says that its time is over.
                let deadline = Instant::now();
                self.retry(PendingCall { deadline, ..call }, true);
            } else {
                self.retry(call, is_unknown);
            }
        }
        self.fall_back_queued();
        self.progress.answered = self.progress.sent;
        self.end(open);
        self.hand_over();
    }

    fn end(&mut self, open: Open) {
        self.has_buffered = false;
        let socket = open.socket.into_socket();
        abort(&socket);
        self.dead = Some(socket);
        if self.is_wanted {
            self.store.want_connection(&self.to);
        }
    }

    /// Has the worker begin what had to wait for answers that have come.
    fn hand_over(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.draining) {
            self.fall_back_queued();
        }
        let ready = self.fallback.take_ready(self.progress);
        self.push(ready);
        if self.waiting.is_empty()
            && let Some(open) = self.open.take_if(|open| open.draining)
        {
            self.end(open);
        }
    }

    /// Takes the tickets of calls that the worker has completed.
    pub fn completed(&mut self, tickets: impl Iterator<Item = u32>) {
        self.fallback.completed(tickets);
    }

    fn fall_back_queued(&mut self) {
        while let Some(call) = self.take_queued() {
            self.fall_back(call.op, call.ticket, call.deadline);
        }
    }

    /// Leaves a call that was not sent to the worker.
    fn fall_back(&mut self, op: Op, ticket: u32, deadline: Instant) {
        let job = self.job(op, ticket, deadline, false);
        // Where no connection ever comes, the worker alone keeps the order.
        let begun = if self.is_wanted { self.fallback.add(job, self.progress) } else { Some(job) };
        self.push(begun);
    }

    /// Leaves a call that was sent to the worker, which begins it again.
    fn retry(&mut self, call: PendingCall, is_unknown: bool) {
        let job = self.job(call.op, call.ticket, call.deadline, is_unknown);
        let begun = self.fallback.retry(job, self.progress);
        self.push(begun);
    }

    /// As `retry`, of a session that was created.
    fn retry_create(&mut self, call: PendingCall) {
        let job = self.job(call.op, call.ticket, call.deadline, true);
        let begun = self.fallback.retry_create(job, self.progress);
        self.push(begun);
    }

    fn job(&self, op: Op, ticket: u32, deadline: Instant, is_unknown: bool) -> Job {
        let waiter = Waiter::Ticket { to: Arc::clone(&self.to), ticket };
        Job { op, waiter, deadline: deadline.into(), is_unknown }
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs = jobs.into_iter().peekable();
        if jobs.peek().is_some() {
            self.store.queue.push_jobs(jobs);
            self.has_jobs = true;
        }
    }
}

/// What asks the server to carry out a call.
fn request_for(store: &RedisStore, cipher: &Cipher, op: &Op) -> Result<Request> {
    let (names, times) = (&store.names, &store.times);
    let (read, write) = (Request::read(RequestMode::default()), Request::write(RequestMode::default()));
    let key = |id| cipher.key(names, id);
    Ok(match op {
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
        Op::Create(session, stamp) => {
            let created = stamp.ok_or_else(error::unexpected)?;
            let creation = Creation::new(session, created, cipher, names, times)?;
            creation.request(write, created, store.max_sessions_per_user.is_some())
        }
        Op::Cold(_) => return Err(error::unexpected()),
    })
}

/// Whether a reply says that another server is to be asked from now on, or this one again later.
fn ends_connection(reply: &Reply<&[u8]>) -> bool {
    let Reply::Error(error) = reply else { return false };
    matches!(error::code(error), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH")
}
