//! A near cache: sessions that this process has read from Redis, kept so that the next `get` needs no round trip.
//!
//! It belongs to one fast path, and so to one JavaScript thread. Only that thread uses it, so it needs no locks. A
//! [`MemoryStore`] holds the sessions, and enforces `maxBytes` and each expiry.
//!
//! The server notifies each connection of the fast path when a session that was read on it changes (RESP3, `CLIENT
//! TRACKING ON NOLOOP`). These invalidations arrive on the same socket as the replies, in the server's order. So a
//! reply proves that the invalidations of all earlier changes have arrived.
//!
//! **The promise.** Suppose that the server has carried out a change of a session. A `get` that starts more than the
//! network delay later does not return the old session: the invalidation has arrived, and is read first. If the
//! network holds invalidations back, a `get` that starts more than `maxStaleness` later does not return it either.
//!
//! These rules ensure that:
//!
//! 1. *Source.* A session enters the cache only from the reply to a `GET` on the connection that owns its slot now.
//!    The cache drops all sessions when one of these connections ends, when slots move, when the server was emptied,
//!    and when the server says that it is the wrong one (`drop_all`).
//! 2. *Load.* A `get` that misses registers a load before it is sent. Any known change of the session, by an
//!    invalidation or by a call of this process, cancels the load. Only the reply of a registered load enters the
//!    cache. So invalidations may be read ahead of the replies before them.
//! 3. *Own calls.* A session leaves the cache before a call that changes it starts. No load is registered until that
//!    call has completed. The cached session is never changed in place: with `NOLOOP` the server stops tracking a
//!    session after an own write. The next `get` makes the server track it again.
//! 4. *Calls on other sessions.* `deleteByUser`, `clear` and the limit per user end sessions that the call does not
//!    name, on other connections. After such a call only a later proof counts (`note_mass_ends`).
//! 5. *Proof.* A hit needs a reply on the session's connection to a request that was sent at most `maxStaleness` ago
//!    ([`Proof`]). The time of the request counts, because a reply may have been held back as long as any
//!    invalidation. Error replies prove nothing.
//! 6. *Invalidations first.* A hit is returned only after the socket was found empty (`fast_path::cached`).
//! 7. *Time.* The cache drops all sessions after the machine was suspended, because the clock of the proofs stops
//!    then. It also drops them a minute after the first one entered, because no server sends an invalidation for
//!    `SWAPDB` (`note_time`).
//!
//! Absent sessions are not cached, because nearly all ids that are looked up exist. Encrypted sessions are cached as
//! plaintext: the memory of the process contains the secret and the sessions in use anyway. Their cache keys are the
//! blind indexes of their ids, which the invalidations contain.

mod proof;
mod results;
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

pub use proof::{Freshness, Proof};
pub use results::CachingResults;
pub use tracking::{begin_tracking, read_tracking};

/// The ticket of a `get` without a caller, whose reply is a proof.
pub const PROBE: u32 = u32::MAX;

/// How long a session may stay in the cache without being read again.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Two clocks that are read one after the other differ by less, unless the machine was suspended.
const NO_SUSPENSION: Duration = Duration::from_millis(10);

/// Counters of a cache since its store was opened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CacheStats {
    /// `get` calls without a round trip.
    pub hits: u64,
    /// `get` calls with a round trip.
    pub misses: u64,
    /// Sessions that the servers have reported as changed or gone.
    pub invalidations: u64,
    pub sessions: u64,
    pub bytes: u64,
    /// Why the cache is off.
    pub off: Option<String>,
}

/// The pending calls on one session.
#[derive(Default)]
struct SessionCalls {
    /// The number of pending calls that change the session.
    changes: usize,
    /// The `get` whose reply may enter the cache.
    load: Option<u32>,
}

pub struct NearCache {
    sessions: MemoryStore,
    max_staleness: Duration,
    pending: HashMap<SessionId, SessionCalls, RandomState>,
    /// The cache keys of the pending calls. `None` if the call has no key, because there was no cipher yet.
    tickets: HashMap<u32, Option<SessionId>, RandomState>,
    /// The number of pending calls without a key. While there are any, nothing is loaded.
    keyless: usize,
    /// The last count of mass ends, and the time from which a proof counts.
    mass_ends: u64,
    not_before: Option<Instant>,
    /// The time of the last `get`, by two clocks. The second one is `since_boot`.
    time: Option<(Instant, Duration)>,
    /// When the first session entered, by `since_boot`.
    filled_at: Option<Duration>,
    hits: u64,
    misses: u64,
    invalidations: u64,
    /// Why the last connection is not tracked.
    refusal: Option<String>,
}

/// The cache key of a session: its id, or the blind index of its id.
pub fn key<'a>(cipher: &Cipher, id: &'a SessionId) -> Option<Cow<'a, SessionId>> {
    if cipher.is_plain() {
        return Some(Cow::Borrowed(id));
    }
    cipher.id_of(&cipher.member(id)).ok().map(Cow::Owned)
}

impl NearCache {
    pub fn new(options: &CacheOptions, clock: Arc<dyn Clock>) -> Self {
        let limits = Limits {
            // No size limit: the server only has sessions that an app was allowed to store.
            max_session_bytes: usize::MAX,
            max_bytes: Some(options.max_bytes),
            ..Limits::default()
        };
        Self {
            sessions: MemoryStore::new(limits, clock),
            max_staleness: options.max_staleness,
            pending: HashMap::default(),
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
        // The statistics of a memory store never fail.
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

    /// Records whether the server of a new connection sends invalidations, or why not.
    pub fn opened(&mut self, tracking: Result<(), String>) {
        self.refusal = tracking.err();
    }

    /// Calls `read` with the session, if it is cached and live.
    pub fn copy(&self, key: &SessionId, read: impl FnOnce(Expiry, Content<'_>)) -> bool {
        matches!(self.sessions.get_with(key, read), Ok(Some(())))
    }

    pub fn hit(&mut self) {
        self.hits += 1;
    }

    /// Records a call that is about to start. If it changes a session, that session leaves the cache (rules 2 and 3).
    pub fn begin(&mut self, op: &Op, ticket: u32, cipher: Option<&Cipher>) {
        let Some(id) = op.session() else { return };
        let key = cipher.and_then(|cipher| key(cipher, id));
        let is_change = op.changes().is_some();
        self.misses += u64::from(!is_change);
        match key {
            Some(key) if is_change => {
                self.drop_session(&key);
                let key = key.into_owned();
                self.pending.entry(key.clone()).or_default().changes += 1;
                self.tickets.insert(ticket, Some(key));
            }
            None if is_change => {
                self.keyless += 1;
                self.tickets.insert(ticket, None);
            }
            Some(key) if self.keyless == 0 => {
                let key = key.into_owned();
                if let Entry::Vacant(vacant) = self.pending.entry(key.clone()) {
                    vacant.insert(SessionCalls { changes: 0, load: Some(ticket) });
                    self.tickets.insert(ticket, Some(key));
                }
            }
            _ => {}
        }
    }

    /// Records that a call has completed, with any result.
    pub fn end(&mut self, ticket: u32) {
        match self.tickets.remove(&ticket) {
            None => {}
            Some(None) => self.keyless -= 1,
            Some(Some(key)) => self.forget(key, ticket),
        }
    }

    /// Caches a session that a `get` has found on a tracked connection. `end` follows.
    pub fn load(&mut self, ticket: u32, expires: Expiry, content: Content<'_>) {
        let Some(Some(key)) = self.tickets.get(&ticket) else { return };
        let may_enter = self.pending.get(key).is_some_and(|pending| pending.load == Some(ticket));
        if may_enter {
            // An old version may still be there, if it had no proof.
            self.remove(key);
            // A session that is too large for the cache is not cached.
            let _ = self.sessions.create(&Session { id: key.clone(), expires, content });
            self.filled_at.get_or_insert_with(since_boot);
        }
    }

    /// Removes what a completed call had recorded.
    fn forget(&mut self, key: SessionId, ticket: u32) {
        let Entry::Occupied(mut noted) = self.pending.entry(key) else { return };
        let pending = noted.get_mut();
        if pending.load == Some(ticket) {
            pending.load = None;
        } else if pending.changes > 0 {
            pending.changes -= 1;
        }
        if pending.changes == 0 && pending.load.is_none() {
            noted.remove();
        }
    }

    /// Handles all push messages that were read from a socket.
    ///
    /// # Errors
    /// As for [`Socket::next_message`].
    pub fn handle_pushes(
        &mut self,
        socket: &mut Socket,
        cipher: &Cipher,
        names: &Names,
    ) -> Result<(), Malformed> {
        while let Some(message) = socket.next_message()? {
            self.take(&message, cipher, names);
        }
        Ok(())
    }

    fn take(&mut self, message: &[Reply<&[u8]>], cipher: &Cipher, names: &Names) {
        let [Reply::Bytes(b"invalidate"), what] = message else { return };
        let Reply::Array(keys) = what else {
            // All keys: the server was emptied.
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

    /// Records a reply to a request that was sent at `started_at` or later (rules 1 and 5).
    pub fn note_reply(&mut self, proof: &mut Proof, reply: &Reply<&[u8]>, started_at: Option<Instant>) {
        match (reply, started_at) {
            (Reply::Error(error), _) => {
                if matches!(
                    code(error),
                    "MOVED" | "ASK" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN"
                ) {
                    self.drop_all();
                }
            }
            (_, Some(started_at)) => proof.replied(started_at),
            (_, None) => {}
        }
    }

    /// Drops a session, and cancels its load.
    fn drop_session(&mut self, key: &SessionId) {
        self.remove(key);
        if let Some(pending) = self.pending.get_mut(key) {
            pending.load = None;
        }
    }

    fn remove(&self, key: &SessionId) {
        // Deleting in memory never fails.
        let _ = self.sessions.delete(key);
    }

    /// Drops all sessions, and cancels all loads (rule 1).
    pub fn drop_all(&mut self) {
        let _ = self.sessions.clear();
        self.filled_at = None;
        self.pending.values_mut().for_each(|pending| pending.load = None);
    }

    /// The cache keys of all sessions change. Nothing is loaded until the pending calls have completed.
    pub fn forget_keys(&mut self) {
        self.drop_all();
        self.pending.clear();
        self.tickets.values_mut().for_each(|key| *key = None);
        self.keyless = self.tickets.len();
    }

    /// Records the time of a `get`: by a clock that stops while the machine is suspended, and by one that does not
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

    /// Simulates that the machine was suspended since the last `get`.
    #[cfg(test)]
    pub fn suspend(&mut self, by: Duration) {
        self.time = self.time.map(|(at, since_boot)| (at, since_boot.saturating_sub(by)));
    }

    /// Makes the first session older.
    #[cfg(test)]
    pub fn age(&mut self, by: Duration) {
        self.filled_at = self.filled_at.map(|at| at.saturating_sub(by));
    }

    /// Whether no call is recorded.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.tickets.is_empty() && self.keyless == 0
    }

    /// Records how often the worker has ended sessions that a call did not name (rule 4).
    pub fn note_mass_ends(&mut self, mass_ends: u64, now: impl FnOnce() -> Instant) {
        if self.mass_ends != mass_ends {
            self.mass_ends = mass_ends;
            self.not_before = Some(now());
        }
    }

    /// Whether a connection's proof allows a hit (rule 5).
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
    fn a_read_across_a_change_of_keys_does_not_block_the_cache() {
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
