//! The sessions and users whose writes are under way, so that a read can wait for these and for no others.
//!
//! JavaScript threads fill it, the writer empties it. A write is in here before its call returns, and until it is on
//! disk or refused. Each write has a number, in the order of the queue. A read that finds its session here waits for the
//! number of the last write.
//!
//! **Locking**: `begin` holds a shard of a map while it takes the lock of the queue, so that the numbers of one session
//! rise in the order of its writes. Nobody takes a shard under the lock of the queue.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};
use foldhash::quality::RandomState;

use crate::error::Result;
use crate::session::{SessionId, UserKey};

/// Stands for a user. If two users have one, reads of the one wait for writes of the other.
pub(super) type UserHash = u64;

/// What a write concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// A session, which will belong to `user`: `None` for a write that does not say.
    Session { id: SessionId, user: Option<UserHash> },
    /// The sessions of one user, or for `None` of all.
    Users(Option<UserHash>),
    /// What no read sees, such as expired sessions.
    Unseen,
}

#[derive(Default)]
pub(super) struct Pending {
    sessions: Marks<SessionId>,
    /// By the user that a write of one session names.
    owners: Marks<UserHash>,
    users: Marks<Option<UserHash>>,
    hasher: RandomState,
    /// How often writes have ended.
    ended: AtomicU64,
    /// Whether a write of one session may end others of its user, as `maxSessionsPerUser` with `"end-oldest"` does.
    evicts: bool,
}

/// What a read found, or the number of the write that it has to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    Now(T),
    After(u64),
}

/// The writes under way of each key.
struct Marks<K> {
    marks: DashMap<K, Mark, RandomState>,
    /// How many there are in all. It is above zero whenever `marks` is not empty.
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

    /// Where it is empty, every write that was begun before is on disk.
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

    /// Enters a write, whose number `push` gives.
    pub(super) fn begin(&self, scope: Scope, push: impl FnOnce() -> Result<u64>) -> Result<()> {
        match scope {
            Scope::Session { id, user: Some(user) } => {
                self.owners.begin(user, || self.sessions.begin(id, push)).map(drop)
            }
            Scope::Session { id, user: None } => self.sessions.begin(id, push).map(drop),
            Scope::Users(user) => self.users.begin(user, push).map(drop),
            Scope::Unseen => push().map(drop),
        }
    }

    /// Takes out writes that are on disk, or were refused.
    pub(super) fn end<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) {
        // First: see `look`.
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
                Scope::Unseen => {}
            }
        }
    }

    /// The last write of a session that is under way.
    pub(super) fn of_session(&self, id: &SessionId) -> Option<u64> {
        self.sessions.last(id)
    }

    /// Whether no write that may end a user's sessions is under way. Then a read need not ask whose a session is.
    pub(super) fn has_no_users(&self) -> bool {
        self.users.is_empty() && (!self.evicts || self.owners.is_empty())
    }

    /// The last write that may end sessions of this user, or of all users.
    pub(super) fn of_users(&self, user: Option<UserHash>) -> Option<u64> {
        let evicting = user.filter(|_| self.evicts).and_then(|user| self.owners.last(&user));
        let of_user = user.and_then(|user| self.users.last(&Some(user)));
        evicting.max(of_user).max(self.users.last(&None))
    }

    /// Whether a write is under way that ends sessions of this user, or gives the user one.
    pub(super) fn concerns(&self, user: UserHash) -> bool {
        self.owners.last(&user).is_some() || self.of_users(Some(user)).is_some()
    }

    /// Changes whenever writes end.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Looks at the disk, and then, by what it found there, for the write that it has to wait for.
    pub(super) fn look<T>(
        &self,
        mut read: impl FnMut() -> Result<T>,
        wait_for: impl Fn(&T) -> Option<u64>,
    ) -> Result<Seen<T>> {
        loop {
            let ended = self.ended();
            let found = read()?;
            if let Some(number) = wait_for(&found) {
                return Ok(Seen::After(number));
            }
            // Otherwise a write may have reached the disk after `read` looked there, and left before it was asked for.
            if self.ended() == ended {
                return Ok(Seen::Now(found));
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
    fn a_session_has_its_last_write_until_all_of_them_have_ended() {
        let (pending, scope) = (Pending::default(), session("a", None));
        assert_eq!(pending.of_session(&id("a")), None);
        begin(&pending, &scope, 1);
        begin(&pending, &scope, 5);
        assert_eq!((pending.of_session(&id("a")), pending.of_session(&id("b"))), (Some(5), None));
        pending.end([&scope]);
        assert_eq!(pending.of_session(&id("a")), Some(5));
        pending.end([&scope]);
        assert_eq!(pending.of_session(&id("a")), None);
    }

    #[test]
    fn a_write_that_is_not_queued_leaves_nothing() {
        let pending = Pending::default();
        for scope in [session("a", user("ann")), Scope::Users(user("ann"))] {
            assert!(pending.begin(scope, || Err(StoreError::Closed)).is_err());
        }
        assert_eq!(pending.of_session(&id("a")), None);
        assert!(pending.has_no_users() && !pending.concerns(user("ann").unwrap()));
        assert!(pending.sessions.marks.is_empty() && pending.owners.marks.is_empty());
    }

    #[test]
    fn writes_of_a_user_concern_that_user_and_those_of_all_users_everybody() {
        let (pending, everybody) = (Pending::default(), Scope::Users(None));
        let concerns = |name| pending.concerns(user(name).unwrap());
        for scope in [session("a", user("ann")), Scope::Users(user("ann"))] {
            begin(&pending, &scope, 3);
            assert_eq!((concerns("ann"), concerns("bob")), (true, false));
            pending.end([&scope]);
            assert!(!concerns("ann"));
        }
        begin(&pending, &Scope::Users(user("ann")), 3);
        assert_eq!((pending.of_users(user("ann")), pending.of_users(None)), (Some(3), None));
        begin(&pending, &everybody, 4);
        assert_eq!((pending.of_users(user("ann")), pending.of_users(None)), (Some(4), Some(4)));
        assert!(concerns("bob"));
    }

    #[test]
    fn a_look_that_a_write_overtook_is_made_again() {
        let (pending, scope) = (Pending::default(), Scope::Users(user("ann")));
        begin(&pending, &scope, 1);
        let mut looks = 0;
        let read = || {
            looks += 1;
            if looks == 1 {
                // The write ends after this look at the disk.
                pending.end([&scope]);
            }
            Ok(looks)
        };
        let seen = pending.look(read, |_| pending.of_users(user("ann")));
        assert_eq!(seen, Ok(Seen::Now(2)));
    }

    #[test]
    fn a_look_gives_the_write_that_it_has_to_wait_for() {
        let pending = Pending::default();
        begin(&pending, &session("a", None), 7);
        let look = |name: &'static str| pending.look(|| Ok(name), |name| pending.of_session(&id(name)));
        assert_eq!((look("a"), look("b")), (Ok(Seen::After(7)), Ok(Seen::Now("b"))));
    }
}
