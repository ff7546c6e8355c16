//! The calls on one session without the store's thread: the thread that makes them writes and reads the socket itself,
//! when its event loop says that it is ready. To hand each over costs two more wake-ups of threads.
//!
//! A lane does what goes well. All else (a server that refuses or has gone, an update of another user's session) it
//! leaves to the store's thread, which begins that call anew, in the order of the calls on each session (`strays`).

mod strays;
mod wire;

#[cfg(all(test, unix))]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use self::strays::{Astray, Tickets};
use self::wire::{Filled, Wire};
use super::RedisStore;
use super::calls::FOREIGN;
use super::commands::{Change, Creation, Left, touch};
use super::core::{Answers, Cold, Core, Counters, MAX_CALLS, Op, Waiter, fault};
use super::errors;
use super::link::in_words;
use super::record::Stamp;
use super::resp::{Reply, Request, RequestMode};
use super::vault::{Draft, Vault};
use crate::clock::Millis;
use crate::error::{Outcome, Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId};
use crate::store::Answer;

/// The most ends of calls, other than refusals, that one turn tells of.
pub const AT_ONCE: usize = 1024;

/// After how many calls the server is sent them, though more may come at once: it works on some while others are made.
/// Where more are under way they are as large a part of them, as each sending costs a system call on either side.
const A_FLUSH: usize = 16;

/// Is told what became of calls, by their tickets.
pub trait Ends {
    fn number(&mut self, ticket: u32, number: u64);
    /// Of a `get`.
    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>);
    fn refused(&mut self, ticket: u32, error: &StoreError);
}

/// A connection that is logged in, for a lane.
pub struct Line {
    pub(super) socket: TcpStream,
    pub(super) vault: Arc<Vault>,
}

/// What a lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// That the socket takes more.
    pub room: bool,
    /// When there is something to be done without it: the oldest call has to be answered by then.
    pub deadline: Option<Instant>,
}

/// A call that the server has been asked to carry out, or is about to be.
struct Waiting {
    op: Op,
    ticket: u32,
    deadline: Instant,
    /// Where its commands begin in all that is sent.
    start: u64,
    /// How many answers are still to come.
    wanted: u8,
    /// When a session that it creates was.
    created: Stamp,
}

/// What the first answers to a call said whose last is still to come.
#[derive(Default)]
struct Heard {
    is_refused: bool,
    /// How many entries the user's index has.
    held: u64,
}

/// The open connection of a lane.
struct Open {
    wire: Wire,
    vault: Arc<Vault>,
    /// The server is no longer the right one: it answers what it was asked, and is asked no more.
    is_ending: bool,
    /// It takes no more bytes, but what it has may be answered yet.
    is_shut: bool,
    /// Why nothing can be sent any more; for the next turn to tell.
    trouble: Option<String>,
}

/// The way of one thread to a store: by a connection of its own while that is well, else by the store's thread.
pub struct Lane {
    store: Arc<RedisStore>,
    to: Arc<dyn Answers>,
    open: Option<Open>,
    /// That of a connection that has ended, until its poller has let go of it.
    dead: Option<TcpStream>,
    waiting: VecDeque<Waiting>,
    /// Calls before those that are over, as they were late: how many answers to each are still to come.
    late: VecDeque<u8>,
    heard: Heard,
    /// The call whose end is being told.
    current: Option<u32>,
    /// How many calls were sent, and how many answered, in all.
    sent: u64,
    answered: u64,
    astray: HashMap<SessionId, Astray, foldhash::fast::RandomState>,
    /// Those of `astray` that wait for answers.
    held: Vec<SessionId>,
    /// Whose changes the store's thread has.
    tickets: Tickets,
    has_jobs: bool,
    /// How many calls the system does not have yet.
    unflushed: usize,
    /// Whether there is to be a connection.
    is_wanted: bool,
}

impl Lane {
    /// The way to a store, whose thread tells `to` of the calls that go by it.
    pub fn new(store: Arc<RedisStore>, to: Arc<dyn Answers>) -> Self {
        Self {
            store,
            to,
            open: None,
            dead: None,
            waiting: VecDeque::new(),
            late: VecDeque::new(),
            heard: Heard::default(),
            current: None,
            sent: 0,
            answered: 0,
            astray: HashMap::default(),
            held: Vec::new(),
            tickets: Tickets::default(),
            has_jobs: false,
            unflushed: 0,
            is_wanted: false,
        }
    }

    /// Has a connection made, and another whenever that ends. `Answers::line` gives it; where lanes cannot be, never.
    pub fn want(&mut self) {
        self.is_wanted = true;
        self.store.want_line(&self.to);
    }

    /// Uses a connection from now on.
    pub fn open(&mut self, line: Line) {
        match Wire::new(line.socket) {
            Ok(wire) if self.open.is_none() && self.is_wanted => {
                self.open =
                    Some(Open { wire, vault: line.vault, is_ending: false, is_shut: false, trouble: None });
            }
            Err(_) if self.is_wanted => self.store.want_line(&self.to),
            _ => {}
        }
    }

    /// The socket to wait for.
    pub fn socket(&self) -> Option<&TcpStream> {
        self.open.as_ref().map(|open| open.wire.socket())
    }

    /// What is left of a connection that has ended, for whoever waited for its socket.
    pub fn bury(&mut self) -> Option<TcpStream> {
        self.dead.take()
    }

    pub fn interest(&self) -> Interest {
        Interest {
            room: self.open.as_ref().is_some_and(|open| !open.wire.is_flushed() && !open.is_shut),
            deadline: match &self.open {
                Some(open) if open.trouble.is_some() => Some(Instant::now()),
                _ => self.next_deadline(),
            },
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let first = match &self.open {
            Some(open) if self.waiting.is_empty() && !self.late.is_empty() => {
                Some(open.wire.heard() + self.store.command_timeout)
            }
            _ => self.waiting.front().map(|first| first.deadline),
        };
        let held = self.held.iter().filter_map(|id| self.astray.get(id)?.deadline());
        first.into_iter().chain(held).min()
    }

    /// Whether no call is under way here; those with the store's thread are told of by that.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.held.is_empty()
    }

    /// Ends the connection at the next turn, which comes soon.
    pub fn give_up(&mut self) {
        if let Some(open) = &mut self.open {
            open.trouble.get_or_insert_with(|| "the event loop does not wait for it".into());
        }
    }

    /// Takes no more calls. `RedisStore::flush` waits until it is idle, and `shut` has told so.
    pub fn end_soon(&mut self) {
        self.is_wanted = false;
        self.store.shared.lane.set_busy(true);
        self.kick();
    }

    /// Lets go of the connection, and of all that waits for it.
    pub fn shut(&mut self) {
        self.is_wanted = false;
        if let Some(open) = self.open.take() {
            self.end(open);
        }
        self.waiting.clear();
        self.late.clear();
        self.store.shared.lane.set_busy(false);
    }

    /// Begins [`crate::store::SessionStore::create`]: queues it, for `kick`.
    ///
    /// # Errors
    /// `TooLarge`; nothing is queued then.
    pub fn create(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let draft = self.store.draft(session)?;
        self.begin(Op::Create(draft), ticket);
        Ok(())
    }

    /// Begins [`crate::store::SessionStore::update`]. The number is 1 if there was a live session, or 0.
    ///
    /// # Errors
    /// As for `create`.
    pub fn update(&mut self, session: &Session<'_>, ticket: u32) -> Result<()> {
        let draft = self.store.draft(session)?;
        self.begin(Op::Update(draft), ticket);
        Ok(())
    }

    /// Begins [`crate::store::SessionStore::get`].
    pub fn get(&mut self, id: SessionId, ticket: u32) {
        self.begin(Op::Get(id), ticket);
    }

    /// Begins [`crate::store::SessionStore::touch`], or `prolong` where `enough` is given. The number is 1 if there was a
    /// live session, or 0.
    pub fn touch(&mut self, id: SessionId, expires: Expiry, enough: Option<Millis>, ticket: u32) {
        self.begin(Op::Touch(id, expires, enough), ticket);
    }

    /// Begins [`crate::store::SessionStore::delete`].
    pub fn delete(&mut self, id: SessionId, ticket: u32) {
        self.begin(Op::Delete(id), ticket);
    }

    fn begin(&mut self, op: Op, ticket: u32) {
        let now = Instant::now();
        let deadline = now + self.store.command_timeout;
        let strays = !self.astray.is_empty() && op.changes().is_some_and(|id| self.astray.contains_key(id));
        if let Some(open) = self.open.as_mut().filter(|open| !strays && !open.is_ending)
            && self.waiting.len() < MAX_CALLS
        {
            let created =
                if matches!(op, Op::Create(_)) { self.store.shared.stamp(&self.store.times) } else { 0 };
            if let Ok(request) = request_for(&self.store, &open.vault, &op, created) {
                if self.waiting.is_empty() && self.late.is_empty() {
                    open.wire.expect_from(now);
                }
                let start = open.wire.push(&request.bytes);
                let wanted = request.commands as u8;
                self.sent += 1;
                self.unflushed += 1;
                if self.unflushed >= A_FLUSH.max(self.waiting.len() / A_FLUSH) {
                    self.flush();
                }
                return self.waiting.push_back(Waiting { op, ticket, deadline, start, wanted, created });
            }
        }
        self.divert(op, ticket, deadline);
    }

    /// Has what is queued begin.
    pub fn kick(&mut self) {
        self.flush();
        if mem::take(&mut self.has_jobs) {
            self.store.kick();
        }
    }

    fn flush(&mut self) {
        self.unflushed = 0;
        let Some(open) = self.open.as_mut().filter(|open| open.trouble.is_none() && !open.is_shut) else {
            return;
        };
        match open.wire.flush() {
            Ok(()) => {}
            // Its end can be read, behind the answers.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                open.is_shut = true;
                open.is_ending = true;
            }
            Err(error) => open.trouble = Some(in_words(&error)),
        }
    }

    /// Reads what the server says, and writes what it takes; `true` if there is more to be read.
    pub fn turn(&mut self, ends: &mut impl Ends) -> bool {
        let outcome = self.read(ends);
        let more = outcome.as_ref().is_ok_and(|more| *more);
        if let Err(reason) = outcome {
            self.fail(&reason, ends);
        }
        self.hand_over();
        self.kick();
        more
    }

    /// Ends the calls whose time is over; to be called when the deadline has come. What the server says has been read
    /// before: a thread that was busy may be late itself.
    pub fn expire(&mut self, ends: &mut impl Ends) {
        let now = Instant::now();
        let owes = !self.waiting.is_empty() || !self.late.is_empty();
        let is_silent = |open: &Open| now >= open.wire.heard() + self.store.command_timeout;
        if owes && self.open.as_ref().is_some_and(is_silent) {
            self.fail("it stopped answering", ends);
        }
        // One that answers, but not in time, has the others' answers yet.
        while self.waiting.front().is_some_and(|first| now >= first.deadline)
            && let Some(call) = self.waiting.pop_front()
        {
            self.heard = Heard::default();
            self.late.push_back(call.wanted);
            let is_unknown = call.op.changes().is_some();
            let job = self.job(call.op, call.ticket, call.deadline, is_unknown);
            self.push(job);
        }
        self.give_up_late();
        self.kick();
    }

    /// Reads once and takes what has come, up to so much; whether there may be more.
    fn read(&mut self, ends: &mut impl Ends) -> Result<bool, String> {
        let Some(mut open) = self.open.take() else { return Ok(false) };
        // A panic is no reason to leave callers waiting.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read_from(&mut open, ends)));
        self.open = Some(open);
        outcome.unwrap_or_else(|_| {
            if let Some(ticket) = self.current.take() {
                ends.refused(ticket, &fault());
            }
            Err("a fault in the store's own code".into())
        })
    }

    fn read_from(&mut self, open: &mut Open, ends: &mut impl Ends) -> Result<bool, String> {
        const GARBLED: &str = "the server does not speak Redis's protocol";
        if let Some(trouble) = open.trouble.take() {
            return Err(trouble);
        }
        let mut has_read = false;
        let mut more = true;
        let mut taken = 0;
        while taken < AT_ONCE {
            match open.wire.reply().map_err(|_| GARBLED)? {
                Some((reply, len)) => {
                    self.take(reply, &open.vault, &mut open.is_ending, ends)?;
                    open.wire.take(len);
                    taken += 1;
                }
                None if has_read => return Ok(more),
                None => match open.wire.fill().map_err(|error| in_words(&error))? {
                    Filled::Ended => return Err("the server closed it".into()),
                    Filled::Nothing => return Ok(false),
                    filled => {
                        more = matches!(filled, Filled::Whole);
                        has_read = true;
                    }
                },
            }
        }
        Ok(true)
    }

    /// Takes the next answer.
    fn take(
        &mut self,
        reply: Reply<&[u8]>,
        vault: &Vault,
        is_ending: &mut bool,
        ends: &mut impl Ends,
    ) -> Result<(), String> {
        if let Reply::Push(_) = reply {
            return Ok(());
        }
        if let Some(wanted) = self.late.front_mut() {
            *wanted -= 1;
            if *wanted == 0 {
                self.late.pop_front();
                self.answered += 1;
            }
            return Ok(());
        }
        let first = self.waiting.front_mut().ok_or("the server said what nobody asked for")?;
        first.wanted -= 1;
        if let Reply::Error(words) = reply {
            *is_ending |= is_of_another(words);
            self.heard.is_refused = true;
        }
        if first.wanted > 0 {
            if let Reply::Number(number) = reply {
                self.heard.held = u64::try_from(number).unwrap_or(0);
            }
            return Ok(());
        }
        let heard = mem::take(&mut self.heard);
        let Some(call) = self.waiting.pop_front() else { return Ok(()) };
        self.answered += 1;
        self.current = Some(call.ticket);
        let outcome = self.finish(call, reply, heard, vault, ends);
        self.current = None;
        outcome
    }

    fn finish(
        &mut self,
        call: Waiting,
        reply: Reply<&[u8]>,
        heard: Heard,
        vault: &Vault,
        ends: &mut impl Ends,
    ) -> Result<(), String> {
        let ticket = call.ticket;
        if heard.is_refused {
            match call.op {
                // A session must not be without its entry.
                Op::Create(_) if reply == Reply::Okay => self.create_anew(call),
                _ => self.repeat(call, false),
            }
            return Ok(());
        }
        if !self.astray.is_empty()
            && let Some(astray) = call.op.changes().and_then(|id| self.astray.get(id))
        {
            match call.op {
                // What goes before it is not to come upon it.
                Op::Create(_) if reply == Reply::Okay => {
                    if astray.repeats() {
                        self.create_anew(call);
                        return Ok(());
                    }
                }
                _ => {
                    self.repeat(call, true);
                    return Ok(());
                }
            }
        }
        match (&call.op, reply) {
            (Op::Get(id), Reply::Bytes(value)) => {
                let mut found = false;
                let opened = vault.read_live(id, value, &self.store.times, |expires, content| {
                    found = true;
                    ends.session(ticket, Some((expires, content)));
                });
                match opened {
                    Ok(()) => {
                        if !found {
                            ends.session(ticket, None);
                        }
                        self.store.shared.counters.looked_up(found);
                    }
                    Err(error) => ends.refused(ticket, &error),
                }
            }
            (Op::Get(_), Reply::Nil) => {
                self.store.shared.counters.looked_up(false);
                ends.session(ticket, None);
            }
            (Op::Create(_), Reply::Nil) | (Op::Update(_), Reply::Number(2)) => self.repeat(call, false),
            (Op::Create(draft), Reply::Okay) => self.created(draft, call.created, heard.held, ticket, ends),
            (Op::Update(_) | Op::Touch(..), Reply::Number(number @ (0 | 1))) => {
                ends.number(ticket, number.unsigned_abs());
            }
            (Op::Update(_) | Op::Touch(..), Reply::Number(_)) => ends.refused(ticket, &FOREIGN),
            (Op::Delete(_), Reply::Nil) => ends.number(ticket, 1),
            (Op::Delete(id), Reply::Bytes(value)) => {
                if let Some(left) = Left::by(vault.member(id), value, &self.store.names) {
                    self.apart(Waiter::Nobody, async move |core: Rc<Core>| {
                        core.forget_later(left);
                        Ok(Answer::Number(1))
                    });
                }
                ends.number(ticket, 1);
            }
            _ => {
                // It fares as the calls behind it.
                self.answered -= 1;
                self.waiting.push_front(call);
                return Err("the server said what makes no sense here".into());
            }
        }
        Ok(())
    }

    fn created(&mut self, draft: &Draft, created: Stamp, held: u64, ticket: u32, ends: &mut impl Ends) {
        Counters::add(&self.store.shared.counters.created, 1);
        if self.store.max_sessions_per_user.is_none_or(|max| held <= max.get() as u64) {
            return ends.number(ticket, 1);
        }
        let (user, id, expires) = (draft.user().map(|user| user.to_buf()), draft.id.clone(), draft.expires);
        let waiter = Waiter::Ticket { to: Arc::clone(&self.to), ticket };
        self.apart(waiter, async move |core: Rc<Core>| {
            core.step(async |call| {
                let vault = core.vault(call).await?;
                let (user, member) = (vault.user(user.as_ref().map(|user| user.as_key())), vault.member(&id));
                core.limit(call, &user, &member, held, Some(created), expires).await;
                Ok(Answer::Number(1))
            })
            .await
        });
    }

    /// Has the store's thread do what follows a call that went well.
    fn apart<F>(&mut self, waiter: Waiter, work: impl FnOnce(Rc<Core>) -> F + Send + 'static)
    where
        F: Future<Output = Result<Answer>> + 'static,
    {
        let cold: Cold = Box::new(move |core| {
            Box::pin(async move {
                let answer = work(Rc::clone(&core)).await;
                core.end(waiter, answer);
            })
        });
        self.store.shared.push(Op::Cold(cold), Waiter::Nobody, self.store.command_timeout);
        self.has_jobs = true;
    }

    /// The connection has ended: what may be begun anew is, on the store's thread.
    fn fail(&mut self, reason: &str, ends: &mut impl Ends) {
        let Some(open) = self.open.take() else { return };
        self.heard = Heard::default();
        self.late.clear();
        let now = Instant::now();
        for call in mem::take(&mut self.waiting) {
            let was_sent = open.wire.has_sent(call.start);
            let is_late = now >= call.deadline;
            match call.op {
                // Sent twice they might undo what others did in between.
                Op::Create(_) | Op::Update(_) if was_sent && !is_late => {
                    let reason = format!("the connection was lost: {reason}");
                    let error = StoreError::Unavailable { reason, outcome: Outcome::Unknown };
                    ends.refused(call.ticket, &error);
                }
                Op::Get(_) => self.repeat(call, false),
                // Of one that is late it only says so.
                _ => self.repeat(call, was_sent),
            }
        }
        self.answered = self.sent;
        self.end(open);
        self.hand_over();
    }

    fn end(&mut self, open: Open) {
        let socket = open.wire.into_socket();
        // It fails where the connection has ended already.
        let _ = socket.shutdown(Shutdown::Both);
        self.dead = Some(socket);
        if self.is_wanted {
            self.store.want_line(&self.to);
        }
    }
}

/// What asks the server to carry out a call.
fn request_for(store: &RedisStore, vault: &Vault, op: &Op, created: Stamp) -> Result<Request> {
    let (names, times) = (&store.names, &store.times);
    let (read, write) = (Request::read(RequestMode::default()), Request::write(RequestMode::default()));
    let key = |id| vault.key(names, id);
    Ok(match op {
        Op::Get(id) => read.command(&[b"GET", &key(id)]),
        Op::Touch(id, expires, enough) => touch(write, &key(id), *expires, *enough, times),
        Op::Delete(id) => write.command(&[b"GETDEL", &key(id)]),
        Op::Update(draft) => {
            let member = vault.member(&draft.id);
            let user = vault.user(draft.user());
            let change = Change::new(draft, names.session(&member), &member, &user, vault, times)?;
            change.replace(write, &user, None, times)
        }
        Op::Create(draft) => {
            let creation = Creation::new(draft, created, vault, names, times)?;
            let counts = store.max_sessions_per_user.is_some();
            let entered =
                if creation.user.is_nobody() { write } else { creation.entry().enter(write, counts) };
            creation.set(entered)
        }
        Op::Cold(_) => return Err(errors::unexpected()),
    })
}

/// Whether a refusal says that another server is to be asked from now on, or this one again later.
fn is_of_another(words: &[u8]) -> bool {
    let code = words.split(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(code, b"READONLY" | b"MOVED" | b"ASK" | b"LOADING" | b"MASTERDOWN" | b"NOAUTH")
}
