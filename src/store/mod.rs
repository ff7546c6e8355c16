//! The contract that every store keeps, and the stores.

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

/// What happens when a user gets one more live session than `maxSessionsPerUser` allows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenUserIsFull {
    /// The user's oldest sessions end.
    #[default]
    EndOldest,
    /// The call is refused. A session that is the user's already is none more: its updates are not refused.
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

/// How many live sessions a user may have, and what happens beyond that.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserLimit {
    pub max: Option<NonZeroUsize>,
    pub when_full: WhenUserIsFull,
}

impl UserLimit {
    /// The limit beyond which a user's oldest sessions end.
    pub fn ends_beyond(self) -> Option<NonZeroUsize> {
        self.max.filter(|_| self.when_full == WhenUserIsFull::EndOldest)
    }

    /// The limit beyond which a user gets no more sessions.
    pub fn rejects_beyond(self) -> Option<NonZeroUsize> {
        self.max.filter(|_| self.when_full == WhenUserIsFull::Reject)
    }
}

/// Keeps login sessions.
///
/// A session whose expiry is at or before the present is **expired**, and every call but [`clean`] and [`stats`]
/// treats it as absent, whether or not its record is still held. A session that is there and not expired is
/// **live**. Ids are compared exactly. Content is only data: no value in it has a meaning to a store.
///
/// Each call takes effect at one moment between its beginning and its end, whatever other threads do. The user index
/// changes at that same moment: no call sees one without the other. A call that returns an error has changed nothing.
///
/// A store may limit a session's [`Lifetime`]. Then no call, and no other process, moves the session's end past it. A
/// session's `expires` is that end: no later than the limit, whatever was given.
///
/// There are two exceptions. Calls that look at every session go through the store part by part, and see each part at a
/// moment of its own. [`delete_by_user`] ends one session after another: until it returns, other threads may still see
/// some of them.
///
/// [`clean`]: SessionStore::clean
/// [`stats`]: SessionStore::stats
/// [`delete_by_user`]: SessionStore::delete_by_user
pub trait SessionStore: Send + Sync {
    /// Stores a new session.
    ///
    /// # Errors
    /// `Exists` if a live session has its id. `TooLarge`. `Full` where the store's limits leave no room for it.
    /// `TooManySessions` if its user has as many as allowed, and the store refuses more.
    fn create(&self, session: &Session<'_>) -> Result<()>;

    /// As `create`, but the session was created at that time: in another store, say. A time that is yet to come counts as
    /// the present.
    ///
    /// # Errors
    /// As for `create`.
    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()>;

    /// Returns a copy of a live session.
    ///
    /// # Errors
    /// `Corrupt` if its record cannot be read.
    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>>;

    /// Replaces the live session of the same id. Returns whether there was one. Never creates one: a request in flight
    /// must not bring back a session that was logged out.
    ///
    /// # Errors
    /// `TooLarge`; `Full` as for `create`; `TooManySessions` as for `create`, if the session was not the user's before.
    fn update(&self, session: &Session<'_>) -> Result<bool>;

    /// Moves the expiry of a live session and leaves its content alone. Returns whether there was a live session.
    ///
    /// # Errors
    /// None in memory; those of the medium in other stores.
    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool>;

    /// As `touch`, but leaves an expiry that is at `enough` or later. Returns whether the session is live. Concurrent
    /// calls never shorten an expiry set by another, provided `enough <= expires`.
    ///
    /// # Errors
    /// As for `touch`.
    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool>;

    /// Removes a session. An absent or expired one is no error, and costs no write.
    ///
    /// # Errors
    /// As for `touch`.
    fn delete(&self, id: &SessionId) -> Result<()>;

    /// Removes the records of expired sessions. Returns how many. Other threads can use the store at the same time: no
    /// lock is held for longer than a short step takes.
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
    /// As for `touch`. Where a full disk has no room to end all of them at once, those stay ended that were before the
    /// error.
    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64>;

    /// Returns how many sessions are live.
    ///
    /// # Errors
    /// As for `touch`.
    fn size(&self) -> Result<u64>;

    /// Returns the next ids of live sessions after a cursor, and the cursor after them; `None` is the end. It may return
    /// no ids and a cursor. The store may change between the calls: from the first cursor to the end, a session that is
    /// there all the time is returned exactly once.
    ///
    /// # Errors
    /// As for `get`.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)>;

    /// As `ids`, but returns a page of whole sessions. It leaves out those that cannot be read, and counts them. A page holds
    /// about [`MAX_PAGE_SESSIONS`] sessions at most, and ends after about [`MAX_PAGE_BYTES`]. Between two calls the store
    /// holds no lock, no transaction and no session for the caller.
    ///
    /// # Errors
    /// As for `touch`.
    fn sessions(&self, after: Cursor) -> Result<Page>;

    /// Removes every session that is there when the call begins.
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

/// A session as a store gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    pub id: SessionId,
    pub expires: Expiry,
    /// When it was created. Known in what `get_by_user` and `sessions` return, save of a session in a file that an older
    /// version of this package has written. `get` need not say it.
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
    /// How many sessions a write concerned.
    Number(u64),
    /// What a `get` found.
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
    /// The cursor as bytes, to be kept outside.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The cursor of these bytes. No bytes are the beginning. Any other bytes end the scan early or repeat ids.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// Counters of a store since it was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sessions held now, expired ones that await a sweep included. `None` if it takes a look at each of them to know.
    pub sessions: Option<u64>,
    /// Bytes that they take, the store's overhead included. `None` likewise.
    pub bytes: Option<u64>,
    /// `get` calls that found a live session.
    pub hits: u64,
    /// `get` calls that found none.
    pub misses: u64,
    /// Sessions created.
    pub created: u64,
    /// Sessions removed because they had expired.
    pub expired: u64,
    /// Live sessions removed to make room.
    pub evicted: u64,
    pub last_sweep: Option<Sweep>,
    /// Of a store in a file that may use a redo log.
    pub log: Option<LogStats>,
}

/// The redo log of a store in a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Whether this process has the store to itself. Otherwise its writes go to the data file, without a log.
    pub is_exclusive: bool,
    /// The bytes of the log that are not in the data file yet.
    pub used: u64,
    /// The most bytes that the log can hold. 0 while there is none.
    pub size: u64,
}

/// One run of [`SessionStore::clean`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// When it began.
    pub at: Millis,
    /// How many milliseconds it took.
    pub duration: Millis,
    /// How many sessions it removed.
    pub removed: u64,
}

/// Calls `clean` for a background sweep, until nobody holds the store.
pub(crate) fn clean_while_open<S: SessionStore + 'static>(
    store: &Arc<S>,
) -> impl FnMut() -> ControlFlow<()> + Send + 'static {
    let store = Arc::downgrade(store);
    move || {
        let Some(store) = store.upgrade() else { return ControlFlow::Break(()) };
        // What a failed sweep leaves behind, the next one removes.
        let _ = store.clean();
        ControlFlow::Continue(())
    }
}

/// As [`check_same`], for an option with named values.
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

/// Rejects options that conflict with those the store was opened with. Each has its name, what was given, and what the
/// store has. `what` is what both openers share: a name, or a path.
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
