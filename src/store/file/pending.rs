//! The sessions and users with pending writes. A read waits for these writes only.
//!
//! JavaScript threads add writes, and the writer removes them. A write is here before its call returns, and until it
//! is on disk or rejected. The queue numbers the writes in order. A read that finds its session here waits for the
//! number of the session's last write.
//!
//! **Locking**: `begin` holds a shard of a map while it locks the queue. So the writes of one session have ascending
//! numbers. No thread locks a shard while it holds the queue's lock.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};
use foldhash::quality::RandomState;

use crate::error::Result;
use crate::session::{SessionId, UserKey};

/// The hash of a user. After a collision, reads of one user also wait for writes of the other.
pub(super) type UserHash = u64;

/// The sessions that a write may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// One session and its new user. `None` if the write does not know the user.
    Session { id: SessionId, user: Option<UserHash> },
    /// All sessions of a user. `None` means all users.
    Users(Option<UserHash>),
    /// Changes that no read can see, such as the removal of expired sessions.
    Invisible,
}

#[derive(Default)]
pub(super) struct Pending {
    sessions: Marks<SessionId>,
    /// Writes of one session, by the user that they name.
    owners: Marks<UserHash>,
    users: Marks<Option<UserHash>>,
    hasher: RandomState,
    /// The number of times that writes have ended.
    ended: AtomicU64,
    /// Whether a write of one session may end other sessions of its user (`maxSessionsPerUser` with `"end-oldest"`).
    evicts: bool,
}

/// The result of a read, or the number of the write that it has to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadAttempt<T> {
    Ready(T),
    WaitFor(u64),
}

/// The number of pending writes for each key.
struct Marks<K> {
    marks: DashMap<K, Mark, RandomState>,
    /// The number of all pending writes. It is above 0 whenever `marks` is not empty.
    writes: AtomicUsize,
}

struct Mark {
    /// The number of the last write.
    last: u64,
    writes: usize,
}

impl<K: Eq + Hash> Default for Marks<K> {
    fn default() -> Self {
        Self { marks: DashMap::default(), writes: AtomicUsize::new(0) }
    }
}

impl<K: Eq + Hash> Marks<K> {
    fn begin(&self, key: K, push: impl FnOnce() -> Result<u64>) -> Result<u64> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mark = self.marks.entry(key);
        let last = push().inspect_err(|_| _ = self.writes.fetch_sub(1, Ordering::SeqCst))?;
        match mark {
            Entry::Occupied(mut mark) => {
                let mark = mark.get_mut();
                (mark.last, mark.writes) = (last, mark.writes + 1);
            }
            Entry::Vacant(mark) => _ = mark.insert(Mark { last, writes: 1 }),
        }
        Ok(last)
    }

    fn end(&self, key: &K) {
        self.marks.remove_if_mut(key, |_, mark| {
            mark.writes -= 1;
            mark.writes == 0
        });
        self.writes.fetch_sub(1, Ordering::SeqCst);
    }

    /// If this is empty, all earlier writes are on disk.
    fn is_empty(&self) -> bool {
        self.writes.load(Ordering::SeqCst) == 0
    }

    fn last(&self, key: &K) -> Option<u64> {
        if self.is_empty() { None } else { self.marks.get(key).map(|mark| mark.last) }
    }
}

impl Pending {
    pub(super) fn new(evicts: bool) -> Self {
        Self { evicts, ..Self::default() }
    }

    pub(super) fn hash(&self, user: UserKey<'_>) -> UserHash {
        self.hasher.hash_one(user.as_bytes())
    }

    /// Adds a write. `push` queues it and returns its number.
    pub(super) fn begin(&self, scope: Scope, push: impl FnOnce() -> Result<u64>) -> Result<()> {
        match scope {
            Scope::Session { id, user: Some(user) } => {
                self.owners.begin(user, || self.sessions.begin(id, push)).map(drop)
            }
            Scope::Session { id, user: None } => self.sessions.begin(id, push).map(drop),
            Scope::Users(user) => self.users.begin(user, push).map(drop),
            Scope::Invisible => push().map(drop),
        }
    }

    /// Removes writes that are on disk or were rejected.
    pub(super) fn end<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) {
        // Before the removal, see `read_consistently`.
        self.ended.fetch_add(1, Ordering::SeqCst);
        for scope in scopes {
            match scope {
                Scope::Session { id, user } => {
                    self.sessions.end(id);
                    if let Some(user) = user {
                        self.owners.end(user);
                    }
                }
                Scope::Users(user) => self.users.end(user),
                Scope::Invisible => {}
            }
        }
    }

    /// The number of the session's last pending write.
    pub(super) fn last_write_of_session(&self, id: &SessionId) -> Option<u64> {
        self.sessions.last(id)
    }

    /// Whether no pending write can end sessions of a user. Then a read does not need the user of its session.
    pub(super) fn has_no_user_writes(&self) -> bool {
        self.users.is_empty() && (!self.evicts || self.owners.is_empty())
    }

    /// The number of the last pending write that may end sessions of this user.
    pub(super) fn last_write_of_user(&self, user: Option<UserHash>) -> Option<u64> {
        let evicting = user.filter(|_| self.evicts).and_then(|user| self.owners.last(&user));
        let of_user = user.and_then(|user| self.users.last(&Some(user)));
        evicting.max(of_user).max(self.users.last(&None))
    }

    /// Whether a pending write ends sessions of this user or adds one.
    pub(super) fn affects(&self, user: UserHash) -> bool {
        self.owners.last(&user).is_some() || self.last_write_of_user(Some(user)).is_some()
    }

    /// Changes whenever writes end.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Reads from disk, and then looks for a pending write that the result depends on.
    pub(super) fn read_consistently<T>(
        &self,
        mut read: impl FnMut() -> Result<T>,
        wait_for: impl Fn(&T) -> Option<u64>,
    ) -> Result<ReadAttempt<T>> {
        loop {
            let ended = self.ended();
            let found = read()?;
            if let Some(number) = wait_for(&found) {
                return Ok(ReadAttempt::WaitFor(number));
            }
            // Otherwise a write may have reached the disk after `read`, and have been removed from here before
            // `wait_for`.
            if self.ended() == ended {
                return Ok(ReadAttempt::Ready(found));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;

    fn id(id: &str) -> SessionId {
        SessionId::new(id).unwrap()
    }

    fn user(user: &str) -> Option<UserHash> {
        Some(user.bytes().map(UserHash::from).sum())
    }

    fn session(name: &str, of: Option<UserHash>) -> Scope {
        Scope::Session { id: id(name), user: of }
    }

    fn begin(pending: &Pending, scope: &Scope, number: u64) {
        pending.begin(scope.clone(), || Ok(number)).unwrap();
    }

    #[test]
    fn a_session_is_pending_until_all_its_writes_have_ended() {
        let (pending, scope) = (Pending::default(), session("a", None));
        assert_eq!(pending.last_write_of_session(&id("a")), None);
        begin(&pending, &scope, 1);
        begin(&pending, &scope, 5);
        assert_eq!(
            (pending.last_write_of_session(&id("a")), pending.last_write_of_session(&id("b"))),
            (Some(5), None)
        );
        pending.end([&scope]);
        assert_eq!(pending.last_write_of_session(&id("a")), Some(5));
        pending.end([&scope]);
        assert_eq!(pending.last_write_of_session(&id("a")), None);
    }

    #[test]
    fn a_rejected_write_is_not_pending() {
        let pending = Pending::default();
        for scope in [session("a", user("ann")), Scope::Users(user("ann"))] {
            assert!(pending.begin(scope, || Err(StoreError::Closed)).is_err());
        }
        assert_eq!(pending.last_write_of_session(&id("a")), None);
        assert!(pending.has_no_user_writes() && !pending.affects(user("ann").unwrap()));
        assert!(pending.sessions.marks.is_empty() && pending.owners.marks.is_empty());
    }

    #[test]
    fn user_writes_affect_that_user_and_global_writes_affect_all_users() {
        let (pending, everybody) = (Pending::default(), Scope::Users(None));
        let affects = |name| pending.affects(user(name).unwrap());
        for scope in [session("a", user("ann")), Scope::Users(user("ann"))] {
            begin(&pending, &scope, 3);
            assert_eq!((affects("ann"), affects("bob")), (true, false));
            pending.end([&scope]);
            assert!(!affects("ann"));
        }
        begin(&pending, &Scope::Users(user("ann")), 3);
        assert_eq!(
            (pending.last_write_of_user(user("ann")), pending.last_write_of_user(None)),
            (Some(3), None)
        );
        begin(&pending, &everybody, 4);
        assert_eq!(
            (pending.last_write_of_user(user("ann")), pending.last_write_of_user(None)),
            (Some(4), Some(4))
        );
        assert!(affects("bob"));
    }

    #[test]
    fn a_read_is_repeated_if_a_write_ends_during_it() {
        let (pending, scope) = (Pending::default(), Scope::Users(user("ann")));
        begin(&pending, &scope, 1);
        let mut looks = 0;
        let read = || {
            looks += 1;
            if looks == 1 {
                // The write ends after this read.
                pending.end([&scope]);
            }
            Ok(looks)
        };
        let seen = pending.read_consistently(read, |_| pending.last_write_of_user(user("ann")));
        assert_eq!(seen, Ok(ReadAttempt::Ready(2)));
    }

    #[test]
    fn a_read_returns_the_write_that_it_has_to_wait_for() {
        let pending = Pending::default();
        begin(&pending, &session("a", None), 7);
        let read = |name: &'static str| {
            pending.read_consistently(|| Ok(name), |name| pending.last_write_of_session(&id(name)))
        };
        assert_eq!((read("a"), read("b")), (Ok(ReadAttempt::WaitFor(7)), Ok(ReadAttempt::Ready("b"))));
    }
}
