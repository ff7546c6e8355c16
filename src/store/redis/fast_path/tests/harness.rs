//! Drives a fast path on the thread of a test, as JavaScript's event loop does.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::super::{FastPath, Hit};
use crate::clock::Millis;
use crate::codec;
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::redis::{Answers, RedisStore, Results, Supply};
use crate::store::{Answer, Completions, Cursor, Page, SessionStore, Stats, StoredSession};

/// A message from the worker.
enum Message {
    Done(Vec<(u32, Result<Answer>)>),
    Supply(Supply),
}

/// Sends messages to a thread that polls sockets.
struct Waker(Mutex<(mpsc::Sender<Message>, UnixStream)>);

impl Waker {
    fn send(&self, message: Message) {
        let mut waker = self.0.lock().unwrap();
        // These fail only if the receiver is gone.
        let _ = waker.0.send(message);
        let _ = waker.1.write(b"!");
    }
}

impl Completions for Waker {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        self.send(Message::Done(done));
    }
}

impl Answers for Waker {
    fn supply(&self, supply: Supply) {
        self.send(Message::Supply(supply));
    }
}

/// The results of calls.
#[derive(Default)]
struct Recorder {
    /// The ids of the `get` calls, by ticket.
    ids: HashMap<u32, SessionId>,
    ends: HashMap<u32, Result<Answer>>,
    /// The number of results.
    count: usize,
}

impl Recorder {
    fn record(&mut self, ticket: u32, answer: Result<Answer>) {
        self.count += 1;
        assert!(self.ends.insert(ticket, answer).is_none(), "a call ended twice");
    }
}

impl Results for Recorder {
    fn number(&mut self, ticket: u32, number: u64) {
        self.record(ticket, Ok(Answer::Number(number)));
    }

    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>) {
        let id = &self.ids[&ticket];
        let session = session.map(|(expires, content)| {
            let mut bytes = Vec::new();
            codec::encode(&content, &mut bytes);
            StoredSession::new(id.clone(), expires, &bytes)
        });
        self.record(ticket, Ok(Answer::Session(session)));
    }

    fn refused(&mut self, ticket: u32, error: &StoreError) {
        self.record(ticket, Err(error.clone()));
    }
}

pub struct Harness {
    pub fast_path: FastPath,
    messages: mpsc::Receiver<Message>,
    waker: UnixStream,
    results: Recorder,
    next: u32,
    /// The number of connections that the worker has made.
    pub connections: usize,
    /// The largest number of calls that one turn completed.
    pub most_at_once: usize,
    /// Whether the fast path uses the worker's connections and slot maps.
    pub takes_supply: bool,
}

/// A test that waits longer has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

impl Harness {
    /// A fast path that waits for the worker's connection.
    pub fn new(store: Arc<RedisStore>) -> Self {
        let (sender, messages) = mpsc::channel();
        let (far, waker) = UnixStream::pair().unwrap();
        for end in [&far, &waker] {
            end.set_nonblocking(true).unwrap();
        }
        let mut fast_path = FastPath::new(Arc::clone(&store), Arc::new(Waker(Mutex::new((sender, far)))));
        fast_path.want();
        Self {
            fast_path,
            messages,
            waker,
            results: Recorder::default(),
            next: 0,
            connections: 0,
            most_at_once: 0,
            takes_supply: true,
        }
    }

    /// A fast path with the worker's connection.
    pub fn open(store: Arc<RedisStore>) -> Self {
        let mut harness = Self::new(store);
        harness.until(|harness| harness.socket().is_some());
        harness
    }

    /// Starts a call. Returns its ticket.
    pub fn begin(&mut self, call: impl FnOnce(&mut FastPath, u32) -> Result<()>) -> Result<u32> {
        self.next += 1;
        call(&mut self.fast_path, self.next).map(|()| self.next)
    }

    pub fn create(&mut self, session: &Session<'_>) -> u32 {
        self.begin(|fast_path, ticket| fast_path.create(session, ticket)).unwrap()
    }

    pub fn update(&mut self, session: &Session<'_>) -> u32 {
        self.begin(|fast_path, ticket| fast_path.update(session, ticket)).unwrap()
    }

    pub fn get(&mut self, id: &SessionId) -> u32 {
        self.results.ids.insert(self.next + 1, id.clone());
        self.does(|fast_path, ticket| fast_path.get(id.clone(), ticket))
    }

    /// The session that a `get` finds in the cache.
    pub fn cached(&mut self, id: &SessionId) -> Option<StoredSession> {
        let mut found = None;
        let hit = self.fast_path.try_get(id, |expires, content| {
            let mut bytes = Vec::new();
            codec::encode(&content, &mut bytes);
            found = Some(StoredSession::new(id.clone(), expires, &bytes));
        });
        if hit == Some(Hit::HasWork) {
            self.fast_path.submit();
        }
        hit.and(found)
    }

    pub fn touch(&mut self, id: &SessionId, expires: Expiry) -> u32 {
        self.does(|fast_path, ticket| fast_path.touch(id.clone(), expires, None, ticket))
    }

    pub fn prolong(&mut self, id: &SessionId, expires: Expiry) -> u32 {
        self.does(|fast_path, ticket| fast_path.touch(id.clone(), expires, Some(expires.millis()), ticket))
    }

    pub fn delete(&mut self, id: &SessionId) -> u32 {
        self.does(|fast_path, ticket| fast_path.delete(id.clone(), ticket))
    }

    fn does(&mut self, call: impl FnOnce(&mut FastPath, u32) -> Result<()>) -> u32 {
        self.begin(call).unwrap()
    }

    /// The first socket.
    pub fn socket(&self) -> Option<&socket2::Socket> {
        self.fast_path.sockets().next().map(|(_, socket, _)| socket)
    }

    /// Whether a socket is polled for writing.
    pub fn waits_for_room(&self) -> bool {
        self.fast_path.sockets().any(|(_, _, waits_for_room)| waits_for_room)
    }

    /// The number of replies so far.
    pub fn answered(&self) -> u64 {
        self.fast_path.primaries.iter().map(|primary| primary.pending.progress.answered).sum()
    }

    /// Reads what the servers have sent so far.
    pub fn turn(&mut self) {
        let nodes: Vec<_> = self.fast_path.sockets().map(|(node, ..)| node).collect();
        for node in nodes {
            loop {
                let before = self.results.count;
                let more = self.fast_path.turn(node, &mut self.results);
                self.most_at_once = self.most_at_once.max(self.results.count - before);
                if !more {
                    break;
                }
            }
        }
        drop(self.fast_path.take_closed_sockets());
    }

    pub fn expire(&mut self) {
        self.fast_path.expire();
        drop(self.fast_path.take_closed_sockets());
    }

    /// Waits until there is work, and does it.
    pub fn step(&mut self) {
        let deadline = self.fast_path.next_deadline();
        let of = |fd, room| libc::pollfd {
            fd,
            events: if room { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN },
            revents: 0,
        };
        let mut polled = vec![of(self.waker.as_raw_fd(), false)];
        polled.extend(self.fast_path.sockets().map(|(_, socket, room)| of(socket.as_raw_fd(), room)));
        let left = deadline.map_or(TIMEOUT, |at| at.saturating_duration_since(Instant::now()));
        // SAFETY: `poll` writes only to the `polled.len()` elements of `polled`.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, left.as_millis() as i32 + 1) };
        self.turn();
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.expire();
        }
        self.listen();
    }

    /// Handles the worker's messages so far.
    pub fn listen(&mut self) {
        let _ = self.waker.read(&mut [0; 64]);
        for message in self.messages.try_iter() {
            match message {
                Message::Done(done) => {
                    self.fast_path.completed(done.iter().map(|(ticket, _)| *ticket));
                    for (ticket, answer) in done {
                        self.results.record(ticket, answer);
                    }
                }
                Message::Supply(supply) => {
                    self.connections += usize::from(matches!(supply, Supply::Connection(_)));
                    if self.takes_supply {
                        self.fast_path.take_supply(supply);
                        self.fast_path.submit();
                    }
                }
            }
        }
    }

    pub fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < TIMEOUT, "waited in vain");
            self.step();
        }
    }

    /// The result of a call, if it has completed.
    pub fn ended(&mut self, ticket: u32) -> Option<Result<Answer>> {
        self.results.ends.remove(&ticket)
    }

    /// Waits until a call completes.
    pub fn end_of(&mut self, ticket: u32) -> Result<Answer> {
        self.fast_path.submit();
        self.until(|harness| harness.results.ends.contains_key(&ticket));
        self.ended(ticket).unwrap()
    }

    pub fn number(&mut self, ticket: u32) -> Result<u64> {
        match self.end_of(ticket)? {
            Answer::Number(number) => Ok(number),
            Answer::Session(session) => panic!("{session:?}"),
        }
    }

    pub fn session(&mut self, ticket: u32) -> Result<Option<StoredSession>> {
        match self.end_of(ticket)? {
            Answer::Session(session) => Ok(session),
            Answer::Number(number) => panic!("{number}"),
        }
    }

    /// The number of completed calls.
    pub fn count(&self) -> usize {
        self.results.count
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.fast_path.shut();
    }
}

/// A store whose calls on one session use a fast path.
pub struct FastPathStore {
    store: Arc<RedisStore>,
    harness: Mutex<Harness>,
}

impl FastPathStore {
    pub fn new(store: Arc<RedisStore>) -> Self {
        let harness = Mutex::new(Harness::open(Arc::clone(&store)));
        Self { store, harness }
    }

    fn number(&self, begin: impl FnOnce(&mut Harness) -> u32) -> Result<u64> {
        let mut harness = self.harness.lock().unwrap();
        let ticket = begin(&mut harness);
        harness.number(ticket)
    }
}

impl SessionStore for FastPathStore {
    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        let mut harness = self.harness.lock().unwrap();
        let ticket = harness.begin(|fast_path, ticket| fast_path.create_at(session, created, ticket))?;
        harness.number(ticket).map(drop)
    }

    fn create(&self, session: &Session<'_>) -> Result<()> {
        let mut harness = self.harness.lock().unwrap();
        let ticket = harness.begin(|fast_path, ticket| fast_path.create(session, ticket))?;
        harness.number(ticket).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        let mut harness = self.harness.lock().unwrap();
        if let Some(found) = harness.cached(id) {
            return Ok(Some(found));
        }
        let ticket = harness.get(id);
        harness.session(ticket)
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        let mut harness = self.harness.lock().unwrap();
        let ticket = harness.begin(|fast_path, ticket| fast_path.update(session, ticket))?;
        harness.number(ticket).map(|updated| updated > 0)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.number(|harness| harness.touch(id, expires)).map(|touched| touched > 0)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        let prolong =
            |fast_path: &mut FastPath, ticket| fast_path.touch(id.clone(), expires, Some(enough), ticket);
        self.number(|harness| harness.does(prolong)).map(|touched| touched > 0)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        self.number(|harness| harness.delete(id)).map(drop)
    }

    fn clean(&self) -> Result<u64> {
        self.store.clean()
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        self.store.get_by_user(user)
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.store.delete_by_user(user, except)
    }

    fn size(&self) -> Result<u64> {
        self.store.size()
    }

    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        self.store.ids(after)
    }

    fn sessions(&self, after: Cursor) -> Result<Page> {
        self.store.sessions(after)
    }

    fn clear(&self) -> Result<()> {
        self.store.clear()
    }

    fn stats(&self) -> Result<Stats> {
        self.store.stats()
    }
}
