//! The contract of every store, and the stores.

mod common_limits;
pub mod file;
pub mod memory;
pub mod redis;

#[cfg(test)]
mod conformance;
mod page;
#[cfg(test)]
mod simulation;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::Millis;
use crate::codec;
use crate::error::{Result, StoreError};
#[cfg(doc)]
use crate::lifetime::Lifetime;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};

pub use common_limits::{CommonLimits, LimitsDiffer};
pub use file::FileStore;
pub use memory::MemoryStore;
pub use page::{MAX_PAGE_BYTES, MAX_PAGE_SESSIONS, Page};
pub use redis::RedisStore;

/// The default of `maxSessionBytes`.
pub const DEFAULT_MAX_SESSION_BYTES: usize = 1 << 20;

/// What happens when a user would exceed `maxSessionsPerUser`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenUserIsFull {
    /// The user's oldest sessions end.
    #[default]
    EndOldest,
    /// The call is refused. Updates of the user's existing sessions are not.
    Reject,
}

impl WhenUserIsFull {
    /// The option's value in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOldest => "end-oldest",
            Self::Reject => "reject",
        }
    }
}

/// The maximum number of live sessions of a user, and what happens beyond it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserLimit {
    pub max: Option<NonZeroUsize>,
    pub when_full: WhenUserIsFull,
}

impl UserLimit {
    /// The limit beyond which the user's oldest sessions end.
    pub fn ends_beyond(self) -> Option<NonZeroUsize> {
        self.max.filter(|_| self.when_full == WhenUserIsFull::EndOldest)
    }

    /// The limit beyond which new sessions of the user are refused.
    pub fn rejects_beyond(self) -> Option<NonZeroUsize> {
        self.max.filter(|_| self.when_full == WhenUserIsFull::Reject)
    }
}

/// A store of sessions.
///
/// A session is **expired** from its expiry on. Every call but [`clean`] and [`stats`] treats it as absent, even while
/// its record still exists. A session that exists and has not expired is **live**. Ids are compared exactly. Content is
/// only data: no value in it has a meaning to a store.
///
/// Each call is atomic: it takes effect at one moment between its start and its end. The user index changes at the same
/// moment, so no call sees one without the other. A call that returns an error has changed nothing.
///
/// A store may limit a session's [`Lifetime`]. Then no call, in no process, moves the session's end past it. The
/// `expires` of a session is at most that limit, whatever the caller passed.
///
/// Two exceptions to atomicity: calls that read every session go through the store in parts, and see each part at a
/// different moment. [`delete_by_user`] ends one session after another: until it returns, other threads may still see
/// some of them.
///
/// [`clean`]: SessionStore::clean
/// [`stats`]: SessionStore::stats
/// [`delete_by_user`]: SessionStore::delete_by_user
pub trait SessionStore: Send + Sync {
    /// Stores a new session.
    ///
    /// # Errors
    /// `Exists` if a live session has its id. `TooLarge`. `Full` if the store's limits leave no room. `TooManySessions`
    /// if the user has as many as allowed, and the store refuses more.
    fn create(&self, session: &Session<'_>) -> Result<()>;

    /// The same as `create`, with a creation time, for example from another store. A future time counts as now.
    ///
    /// # Errors
    /// As for `create`.
    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()>;

    /// Returns a copy of a live session.
    ///
    /// # Errors
    /// `Corrupt` if its record cannot be read.
    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>>;

    /// Replaces the live session with the same id. Returns whether there was one. Never creates a session: a request in
    /// flight must not bring back a session that was logged out.
    ///
    /// # Errors
    /// `TooLarge`. `Full` as for `create`. `TooManySessions` as for `create`, if the session belonged to another user
    /// before.
    fn update(&self, session: &Session<'_>) -> Result<bool>;

    /// Moves the expiry of a live session and keeps its content. Returns whether there was a live session.
    ///
    /// # Errors
    /// None in memory. I/O and network errors in other stores.
    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool>;

    /// The same as `touch`, but keeps an expiry that is at `enough` or later. Returns whether the session is live.
    /// Concurrent calls never shorten an expiry set by another, provided `enough <= expires`.
    ///
    /// # Errors
    /// As for `touch`.
    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool>;

    /// Removes a session. Succeeds without a write if the session is absent or expired.
    ///
    /// # Errors
    /// As for `touch`.
    fn delete(&self, id: &SessionId) -> Result<()>;

    /// Removes the records of expired sessions. Returns how many. It holds locks only for short steps, so other threads
    /// can use the store.
    ///
    /// # Errors
    /// As for `touch`.
    fn clean(&self) -> Result<u64>;

    /// Returns the live sessions of a user, oldest first.
    ///
    /// # Errors
    /// As for `get`.
    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>>;

    /// Ends the sessions of a user, except one. Returns how many live sessions it ended.
    ///
    /// # Errors
    /// As for `touch`. If a full disk has no room to end all of them in one transaction, the sessions that ended before
    /// the error stay ended.
    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64>;

    /// Returns how many sessions are live.
    ///
    /// # Errors
    /// As for `touch`.
    fn size(&self) -> Result<u64>;

    /// Returns a page of ids of live sessions after a cursor, and the next cursor, or `None` at the end. A page before
    /// the end may be empty. The store may change between the calls: a session that lives throughout the scan is
    /// returned exactly once.
    ///
    /// # Errors
    /// As for `get`.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)>;

    /// The same as `ids`, but returns a page of whole sessions. It skips and counts unreadable sessions. A page has at
    /// most about [`MAX_PAGE_SESSIONS`] sessions, and ends after about [`MAX_PAGE_BYTES`]. Between two calls the store
    /// holds no lock, no transaction and no session for the caller.
    ///
    /// # Errors
    /// As for `touch`.
    fn sessions(&self, after: Cursor) -> Result<Page>;

    /// Removes every session that exists when the call starts.
    ///
    /// # Errors
    /// As for `touch`.
    fn clear(&self) -> Result<()>;

    /// Returns counters since the store was opened.
    ///
    /// # Errors
    /// As for `touch`.
    fn stats(&self) -> Result<Stats>;
}

/// A session that a store returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    pub id: SessionId,
    pub expires: Expiry,
    /// When it was created. `get_by_user` and `sessions` set it, except for a session in a file that an older version
    /// wrote. `get` may leave it out.
    pub created: Option<Millis>,
    content: Box<[u8]>,
}

impl StoredSession {
    pub(crate) fn new(id: SessionId, expires: Expiry, content: &[u8]) -> Self {
        Self { id, expires, created: None, content: content.into() }
    }

    pub(crate) fn with_creation(self, created: Option<Millis>) -> Self {
        Self { created, ..self }
    }

    /// # Errors
    /// `Corrupt` if its record cannot be read.
    pub fn content(&self) -> Result<Content<'_>> {
        codec::decode(&self.content)
    }
}

/// The result of a call that completes later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// How many sessions a write affected.
    Number(u64),
    /// The result of a `get`.
    Session(Option<StoredSession>),
}

/// Receives the results of calls, keyed by ticket.
pub trait Completions: Send + Sync {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>);
}

/// A resume token of [`SessionStore::ids`] or [`SessionStore::sessions`]. Its bytes are opaque.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cursor(Box<[u8]>);

impl Cursor {
    /// The bytes of the cursor, for callers to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Restores a cursor. No bytes are the start. Bytes that are not from `as_bytes` end the scan early or repeat ids.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// Counters of a store since it was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sessions held now, including expired ones that await a sweep. `None` if the store would have to read each one to
    /// know.
    pub sessions: Option<u64>,
    /// Bytes that they take with the store's overhead. `None` in the same case.
    pub bytes: Option<u64>,
    /// `get` calls that found a live session.
    pub hits: u64,
    /// `get` calls that found no live session.
    pub misses: u64,
    /// Sessions created.
    pub created: u64,
    /// Sessions removed because they had expired.
    pub expired: u64,
    /// Live sessions removed to make room.
    pub evicted: u64,
    pub last_sweep: Option<Sweep>,
    /// Only for a FileStore that may use a redo log.
    pub log: Option<LogStats>,
}

/// The redo log of a FileStore.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Whether only this process has the store open. Otherwise its writes go to the data file, without a log.
    pub is_exclusive: bool,
    /// Bytes in the log that are not in the data file yet.
    pub used: u64,
    /// The capacity of the log in bytes. 0 while there is none.
    pub size: u64,
}

/// One run of [`SessionStore::clean`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// When it started.
    pub at: Millis,
    /// How many milliseconds it took.
    pub duration: Millis,
    /// How many sessions it removed.
    pub removed: u64,
}

/// Returns a function for [`Sweeper`](crate::sweeper::Sweeper) that calls `clean`, and breaks once the store is
/// dropped.
pub(crate) fn clean_while_open<S: SessionStore + 'static>(
    store: &Arc<S>,
) -> impl FnMut() -> ControlFlow<()> + Send + 'static {
    let store = Arc::downgrade(store);
    move || {
        let Some(store) = store.upgrade() else { return ControlFlow::Break(()) };
        // If a sweep fails, the next one removes the rest.
        let _ = store.clean();
        ControlFlow::Continue(())
    }
}

/// The same as [`check_same`], for an option with named values.
pub(crate) fn check_same_name(
    option: &'static str,
    given: Option<&'static str>,
    actual: &'static str,
    what: &str,
) -> Result<()> {
    match given.filter(|given| *given != actual) {
        None => Ok(()),
        Some(given) => Err(StoreError::InvalidOption {
            option,
            expected: format!("{actual:?}, as the open store of this {what} has it"),
            given: format!("{given:?}"),
        }),
    }
}

/// Rejects options that conflict with those that the store was opened with. Each option has its name, the given value,
/// and the store's value. `what` is the identity that both openers share: a name, or a path.
pub(crate) fn check_same(options: &[(&'static str, Option<u64>, Option<u64>)], what: &str) -> Result<()> {
    for &(option, given, actual) in options {
        if let Some(given) = given.filter(|_| given != actual) {
            let actual = actual.map_or("left out".into(), |actual| actual.to_string());
            return Err(StoreError::InvalidOption {
                option,
                expected: format!("{actual}, as the open store of this {what} has it"),
                given: given.to_string(),
            });
        }
    }
    Ok(())
}
