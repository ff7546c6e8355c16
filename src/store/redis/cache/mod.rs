//! A near cache: sessions that this process has read from Redis, kept so that the next `get` needs no round trip.
//!
//! It belongs to one fast path, and so to one JavaScript thread. It has no locks of its own, and no thread but that one
//! ever reads or changes it. The sessions lie in a [`MemoryStore`], which keeps `maxBytes` and every expiry.
//!
//! The server tells each connection of the fast path which of the sessions that were read on it have changed (RESP3,
//! `CLIENT TRACKING ON NOLOOP`). Replies and messages come by one socket, in the order of the server. So a reply proves
//! that all messages of earlier changes have come.
//!
//! **What it promises.** Let a change of a session be carried out by the server. A `get` that begins more than the network's
//! delay later does not find the session as it was before: its message has come, and is read first. Where the network
//! holds messages back, a `get` that begins more than `maxStaleness` later does not.
//!
//! These rules make that so:
//!
//! 1. *Source.* A session enters the cache only by the reply to a `GET` on the connection that its slot has now. All
//!    sessions leave when any of these connections ends, when slots move, when the server has been emptied, and when it
//!    says that it is the wrong one (`drop_all`).
//! 2. *Load.* A `get` that misses is noted before it is sent. Any change of the session that is heard of, be it a message or
//!    a call of this process, crosses the note out. Only a reply whose note still stands enters the cache. So it does not
//!    matter that messages are read ahead of the replies before them.
//! 3. *Own calls.* A session leaves the cache before a call that changes it is begun, and no load of it is noted until that
//!    call has ended. It is never changed in place: after an own write under `NOLOOP` the server no longer tells of the
//!    session. The next `get` has it told again.
//! 4. *Calls on other sessions.* `deleteByUser`, `clear` and the limit of a user's sessions end sessions that the call does
//!    not name, on other connections. After such a call only a proof that was asked for later counts (`note_mass_ends`).
//! 5. *Proof.* A hit needs a reply on the session's connection to a request that was sent at most `maxStaleness` ago
//!    ([`Proof`]). It counts from the sending: a reply may have been held back for as long as any message. Errors prove
//!    nothing.
//! 6. *Messages first.* A hit is given after the socket was found empty (`fast_path::cached`).
//! 7. *Time.* All sessions leave when the machine was suspended, as the time of a proof stands still meanwhile. They also
//!    leave a minute after the first of them came: no server sends a message of `SWAPDB` (`note_time`).
//!
//! A session that is absent is not cached: nearly all ids that are looked up are those of sessions. Encrypted sessions are
//! cached as plaintext: the process has the secret and the sessions in use in its memory anyway. They are found by the
//! blind index of their ids, as that is what the server's messages have.

mod ends;
mod proof;
mod tracking;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::connection::Socket;
use super::error::code;
use super::options::CacheOptions;
use super::resp::{Malformed, Reply};
use super::session::{Cipher, Names, Op};
use crate::clock::{Clock, since_boot};
use crate::session::{Content, Expiry, Session, SessionId};
use crate::store::SessionStore;
use crate::store::memory::{Limits, MemoryStore};

pub use ends::Ends;
pub use proof::{Freshness, Proof};
pub use tracking::{begin_tracking, read_tracking};

/// The ticket of a `get` that no caller has made: its reply is a proof.
pub const PROBE: u32 = u32::MAX;

/// One hit of so many counts as a use of its session, by which the least recently used one goes first. To count each
/// would make a hit take half as long again.
const USED_EVERY: u64 = 8;

/// For how long a session may be in the cache, whatever the server says of it.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Two clocks that are read one after the other differ by less, unless the machine was suspended.
const NO_SUSPENSION: Duration = Duration::from_millis(10);

/// Counters of a cache since its store was opened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CacheStats {
    /// `get` calls that needed no round trip.
    pub hits: u64,
    /// `get` calls that did.
    pub misses: u64,
    /// Sessions that servers have said are changed or gone.
    pub invalidations: u64,
    pub sessions: u64,
    pub bytes: u64,
    /// Why nothing is cached now.
    pub off: Option<String>,
}

/// What is under way on one session.
#[derive(Default)]
struct UnderWay {
    /// Calls that change it.
    changes: usize,
    /// The `get` whose reply may enter the cache.
    load: Option<u32>,
}

pub struct NearCache {
    sessions: MemoryStore,
    max_staleness: Duration,
    under_way: HashMap<SessionId, UnderWay, RandomState>,
    /// The sessions of the calls under way, as `key` has them. `None` where there was no key yet.
    tickets: HashMap<u32, Option<SessionId>, RandomState>,
    /// How many of the calls have no key. While there are any, nothing is loaded.
    keyless: usize,
    /// The mass ends that were noted, and from when on a proof counts.
    mass_ends: u64,
    not_before: Option<Instant>,
    /// The time before the last `get`, by two clocks: `since_boot` is the second.
    time: Option<(Instant, Duration)>,
    /// When the first of the sessions came, by `since_boot`.
    filled_at: Option<Duration>,
    hits: u64,
    misses: u64,
    invalidations: u64,
    /// Why the last connection has no tracking.
    refusal: Option<String>,
}

/// What a session is called in the cache: its id, or the blind index of that.
pub fn key<'a>(cipher: &Cipher, id: &'a SessionId) -> Option<Cow<'a, SessionId>> {
    if cipher.is_plain() {
        return Some(Cow::Borrowed(id));
    }
    cipher.id_of(&cipher.member(id)).ok().map(Cow::Owned)
}

impl NearCache {
    pub fn new(options: &CacheOptions, clock: Arc<dyn Clock>) -> Self {
        let limits = Limits {
            // What the server has, an app was allowed to store.
            max_session_bytes: usize::MAX,
            max_bytes: Some(options.max_bytes),
            ..Limits::default()
        };
        Self {
            sessions: MemoryStore::new(limits, clock),
            max_staleness: options.max_staleness,
            under_way: HashMap::default(),
            tickets: HashMap::default(),
            keyless: 0,
            mass_ends: 0,
            not_before: None,
            time: None,
            filled_at: None,
            hits: 0,
            misses: 0,
            invalidations: 0,
            refusal: None,
        }
    }

    pub fn stats(&self) -> CacheStats {
        // A store in memory always knows.
        let held = self.sessions.stats().unwrap_or_default();
        CacheStats {
            hits: self.hits,
            misses: self.misses,
            invalidations: self.invalidations,
            sessions: held.sessions.unwrap_or(0),
            bytes: held.bytes.unwrap_or(0),
            off: self.refusal.clone(),
        }
    }

    /// A connection was opened, whose server tells of changes, or has said why it does not.
    pub fn opened(&mut self, tracking: Result<(), String>) {
        self.refusal = tracking.err();
    }

    /// Calls `read` with a session that is live by the clock.
    pub fn copy(&self, key: &SessionId, read: impl FnOnce(Expiry, Content<'_>)) -> bool {
        let found = if self.hits.is_multiple_of(USED_EVERY) {
            self.sessions.get_with(key, read)
        } else {
            self.sessions.peek_with(key, read)
        };
        matches!(found, Ok(Some(())))
    }

    pub fn hit(&mut self) {
        self.hits += 1;
    }

    /// Notes a call that is about to begin. A session that it changes leaves the cache (rules 2 and 3).
    pub fn begin(&mut self, op: &Op, ticket: u32, cipher: Option<&Cipher>) {
        let Some(id) = op.session() else { return };
        let key = cipher.and_then(|cipher| key(cipher, id));
        let is_change = op.changes().is_some();
        self.misses += u64::from(!is_change);
        match key {
            Some(key) if is_change => {
                self.drop_session(&key);
                let key = key.into_owned();
                self.under_way.entry(key.clone()).or_default().changes += 1;
                self.tickets.insert(ticket, Some(key));
            }
            None if is_change => {
                self.keyless += 1;
                self.tickets.insert(ticket, None);
            }
            Some(key) if self.keyless == 0 => {
                let key = key.into_owned();
                if let Entry::Vacant(vacant) = self.under_way.entry(key.clone()) {
                    vacant.insert(UnderWay { changes: 0, load: Some(ticket) });
                    self.tickets.insert(ticket, Some(key));
                }
            }
            _ => {}
        }
    }

    /// A call has ended, whatever came of it.
    pub fn end(&mut self, ticket: u32) {
        match self.tickets.remove(&ticket) {
            None => {}
            Some(None) => self.keyless -= 1,
            Some(Some(key)) => self.forget(key, ticket),
        }
    }

    /// A `get` has found a session by a reply on a connection that is tracked. `end` is called next.
    pub fn load(&mut self, ticket: u32, expires: Expiry, content: Content<'_>) {
        let Some(Some(key)) = self.tickets.get(&ticket) else { return };
        let may_enter = self.under_way.get(key).is_some_and(|under_way| under_way.load == Some(ticket));
        if may_enter {
            // It may be there yet, where there was no proof that it is current.
            self.remove(key);
            // One that has no room is not cached.
            let _ = self.sessions.create(&Session { id: key.clone(), expires, content });
            self.filled_at.get_or_insert_with(since_boot);
        }
    }

    /// Crosses out what a call that has ended had noted.
    fn forget(&mut self, key: SessionId, ticket: u32) {
        let Entry::Occupied(mut noted) = self.under_way.entry(key) else { return };
        let under_way = noted.get_mut();
        if under_way.load == Some(ticket) {
            under_way.load = None;
        } else if under_way.changes > 0 {
            under_way.changes -= 1;
        }
        if under_way.changes == 0 && under_way.load.is_none() {
            noted.remove();
        }
    }

    /// Takes all messages of a server that have been read from its socket.
    ///
    /// # Errors
    /// As for [`Socket::next_message`].
    pub fn hear(&mut self, socket: &mut Socket, cipher: &Cipher, names: &Names) -> Result<(), Malformed> {
        while let Some(message) = socket.next_message()? {
            self.take(&message, cipher, names);
        }
        Ok(())
    }

    fn take(&mut self, message: &[Reply<&[u8]>], cipher: &Cipher, names: &Names) {
        let [Reply::Bytes(b"invalidate"), what] = message else { return };
        let Reply::Array(keys) = what else {
            // All of them: the server was emptied.
            self.invalidations += self.sessions.size().unwrap_or(0);
            return self.drop_all();
        };
        for key in keys {
            let Reply::Bytes(key) = key else { continue };
            let member = key.strip_prefix(&names.sessions[..]);
            if let Some(Ok(key)) = member.map(|member| cipher.id_of(member)) {
                self.invalidations += 1;
                self.drop_session(&key);
            }
        }
    }

    /// Takes note of a reply to a request that was begun at a time (rules 1 and 5).
    pub fn note_reply(&mut self, proof: &mut Proof, reply: &Reply<&[u8]>, begun_at: Option<Instant>) {
        match (reply, begun_at) {
            (Reply::Error(error), _) => {
                if matches!(
                    code(error),
                    "MOVED" | "ASK" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN"
                ) {
                    self.drop_all();
                }
            }
            (_, Some(begun_at)) => proof.replied(begun_at),
            (_, None) => {}
        }
    }

    /// Drops a session, and crosses out what loads it.
    fn drop_session(&mut self, key: &SessionId) {
        self.remove(key);
        if let Some(under_way) = self.under_way.get_mut(key) {
            under_way.load = None;
        }
    }

    fn remove(&self, key: &SessionId) {
        // In memory that does not fail.
        let _ = self.sessions.delete(key);
    }

    /// Drops all sessions, and crosses out what loads any (rule 1).
    pub fn drop_all(&mut self) {
        let _ = self.sessions.clear();
        self.filled_at = None;
        self.under_way.values_mut().for_each(|under_way| under_way.load = None);
    }

    /// Sessions are called otherwise from now on: nothing is loaded until the calls under way have ended.
    pub fn forget_keys(&mut self) {
        self.drop_all();
        self.under_way.clear();
        self.tickets.values_mut().for_each(|key| *key = None);
        self.keyless = self.tickets.len();
    }

    /// Takes the time before a `get`, by a clock that stands still while the machine is suspended and by one that goes on
    /// (rule 7).
    pub fn note_time(&mut self, now: Instant, since_boot: Duration) {
        let before = self.time.replace((now, since_boot));
        let was_suspended = before.is_some_and(|(at, booted)| {
            since_boot.saturating_sub(booted) > now.saturating_duration_since(at) + NO_SUSPENSION
        });
        let is_old = self.filled_at.is_some_and(|filled_at| since_boot.saturating_sub(filled_at) > MAX_AGE);
        if was_suspended || is_old {
            self.drop_all();
        }
    }

    /// Has the last `get` be as if the machine had been suspended since, for so long.
    #[cfg(test)]
    pub fn suspend(&mut self, by: Duration) {
        self.time = self.time.map(|(at, since_boot)| (at, since_boot.saturating_sub(by)));
    }

    /// Has its first session be older.
    #[cfg(test)]
    pub fn age(&mut self, by: Duration) {
        self.filled_at = self.filled_at.map(|at| at.saturating_sub(by));
    }

    /// Whether it has nothing noted.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.tickets.is_empty() && self.keyless == 0
    }

    /// Takes how often the worker has ended sessions that a call did not name (rule 4).
    pub fn note_mass_ends(&mut self, mass_ends: u64, now: impl FnOnce() -> Instant) {
        if self.mass_ends != mass_ends {
            self.mass_ends = mass_ends;
            self.not_before = Some(now());
        }
    }

    /// Whether a hit may be given on a connection (rule 5).
    pub fn freshness(&self, proof: &Proof, now: Instant) -> Freshness {
        proof.freshness(now, self.max_staleness, self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MockClock;
    use crate::session::{Body, FieldOrder};

    #[test]
    fn a_read_whose_session_has_another_key_by_then_does_not_keep_the_cache_empty() {
        let options = CacheOptions {
            max_bytes: std::num::NonZeroUsize::new(1 << 20).unwrap(),
            max_staleness: Duration::from_secs(1),
        };
        let mut cache = NearCache::new(&options, Arc::new(MockClock::new(0)));
        cache.begin(&Op::Get(SessionId::new("a").unwrap()), 7, Some(&Cipher::Plain));
        cache.forget_keys();
        assert!(!cache.is_idle());
        let content = Content { user: None, body: Body::Plain(FieldOrder::UserFirst) };
        cache.load(7, Expiry::new(1000).unwrap(), content);
        cache.end(7);
        assert!(cache.is_idle());
        assert_eq!(cache.stats().sessions, 0);
    }
}
