//! The user index: which sessions a user has.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::byte_count::ByteCount;
use super::index::{self, Index};
use super::shard::shard_of;
use super::slot::SessionRef;
use crate::session::UserKey;
use crate::sync::{Mutex, MutexGuard, lock};

/// Session refs by the hash of the session's user, in shards.
///
/// It holds no users. Its refs for a user may include those of another user with the same hash bits. So the caller compares
/// the records, under the locks of their shards. An entry changes only under the lock of its session's shard. So while
/// that is held, the refs of that shard are those of its records.
///
/// **Locking**: each call locks one shard of the user index at a time and nothing else. Call it under locks of sessions'
/// shards, never take such a lock inside it.
pub(super) struct UserIndex {
    shards: Box<[CachePadded<Mutex<UserShard>>]>,
    hasher: RandomState,
    bytes: ByteCount,
}

#[derive(Default)]
struct UserShard {
    few: Index,
    /// By tag. In an index, equal hashes lie side by side, and a search among 100 000 of them would take 100 000 steps.
    many: HashMap<u64, RefSet, RandomState>,
    /// The bytes of the sets in `many`.
    set_bytes: usize,
    /// Its part of `UserIndex::bytes`.
    counted: usize,
}

/// Needs no allocation for the few sessions that most users have.
pub(super) type UserSessions = SmallVec<[SessionRef; FEW_OF_MOST]>;

const FEW_OF_MOST: usize = 4;

type RefSet = HashSet<SessionRef, RandomState>;

/// A user with more sessions than this has a set. A search among so many words reads two or three cache lines.
const FEW: usize = 16;

/// A set shrinks when it uses less than this part of its capacity.
const SET_SHRINKS_BELOW: usize = 4;

/// The entries that `clear` removed, to be dropped.
pub(super) struct DetachedUsers {
    _shards: Vec<UserShard>,
}

/// The lock of a user's entries, for a session that is about to be added.
pub(super) struct Reserved<'a> {
    bytes: &'a ByteCount,
    hash: u64,
    shard: MutexGuard<'a, UserShard>,
}

/// An entry: its shard and tag, and the session.
#[derive(Clone, Copy, PartialEq, Eq)]
struct UserEntry {
    shard: usize,
    tag: u64,
    session: SessionRef,
}

impl UserIndex {
    pub(super) fn new(shards: usize, hasher: RandomState, bytes: ByteCount) -> Self {
        Self { shards: (0..shards).map(|_| CachePadded::default()).collect(), hasher, bytes }
    }

    /// Begins to add a session whose place is not known yet. `None` without a user.
    ///
    /// **Locking**: holds the lock of the user's shard. So the processor may fetch the entry while the caller finds a slot.
    pub(super) fn reserve(&self, user: Option<UserKey<'_>>) -> Option<Reserved<'_>> {
        let hash = self.hash(user)?;
        let shard = self.lock(hash);
        shard.few.prefetch(hash);
        Some(Reserved { bytes: &self.bytes, hash, shard })
    }

    pub(super) fn remove(&self, user: Option<UserKey<'_>>, session: SessionRef) {
        if let Some(hash) = self.hash(user) {
            self.change(hash, |shard| shard.remove(hash, session));
        }
    }

    /// Replaces the entry of a session that has another slot or another user now, given the hashes of both users.
    ///
    /// A thread finds one of the two entries at any moment, and then waits for the lock of the session's shard. If the entries
    /// are in different shards, the new one is added first. If two users have the same hash bits, both entries may be
    /// the same, which stays.
    pub(super) fn replace(&self, before: Option<u64>, old: SessionRef, after: Option<u64>, new: SessionRef) {
        if before.map(|hash| self.entry(hash, old)) == after.map(|hash| self.entry(hash, new)) {
            return;
        }
        if let Some(hash) = after.filter(|_| before == after) {
            // In this order the index needs no memory for both.
            return self.change(hash, |shard| {
                shard.remove(hash, old);
                shard.insert(hash, new);
            });
        }
        if let Some(hash) = after {
            self.change(hash, |shard| shard.insert(hash, new));
        }
        if let Some(hash) = before {
            self.change(hash, |shard| shard.remove(hash, old));
        }
    }

    /// The sessions of a user, and perhaps some of others.
    pub(super) fn of_user(&self, user: UserKey<'_>) -> UserSessions {
        let Some(hash) = self.hash(Some(user)) else { return UserSessions::new() };
        let shard = self.lock(hash);
        match shard.many.get(&index::tag(hash)) {
            Some(many) => many.iter().copied().collect(),
            None => shard.few.find(hash).map(SessionRef::from_bits).collect(),
        }
    }

    /// At least as many as the user has sessions.
    pub(super) fn at_most(&self, user: UserKey<'_>) -> usize {
        let Some(hash) = self.hash(Some(user)) else { return 0 };
        let shard = self.lock(hash);
        shard.many.get(&index::tag(hash)).map_or_else(|| shard.few.find(hash).count(), HashSet::len)
    }

    /// Takes all entries out at once. Call it under the exclusive locks of all sessions' shards, so that no entry
    /// belongs to a session that is still there.
    pub(super) fn detach(&self) -> DetachedUsers {
        let detach = |shard: &CachePadded<Mutex<UserShard>>| {
            let mut shard = lock(shard);
            self.bytes.update(&mut shard.counted, 0);
            std::mem::take(&mut *shard)
        };
        DetachedUsers { _shards: self.shards.iter().map(detach).collect() }
    }

    fn change(&self, hash: u64, change: impl FnOnce(&mut UserShard)) {
        let mut shard = self.lock(hash);
        change(&mut shard);
        shard.count_bytes(&self.bytes);
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, UserShard> {
        lock(&self.shards[shard_of(hash, self.shards.len())])
    }

    fn entry(&self, hash: u64, session: SessionRef) -> UserEntry {
        UserEntry { shard: shard_of(hash, self.shards.len()), tag: index::tag(hash), session }
    }

    pub(super) fn hash(&self, user: Option<UserKey<'_>>) -> Option<u64> {
        user.map(|user| self.hasher.hash_one(user.as_bytes()))
    }
}

impl Reserved<'_> {
    pub(super) fn insert(mut self, session: SessionRef) {
        self.shard.insert(self.hash, session);
        self.shard.count_bytes(self.bytes);
    }
}

impl UserShard {
    fn insert(&mut self, hash: u64, session: SessionRef) {
        let Self { few, many, set_bytes, .. } = self;
        if let Some(set) = many.get_mut(&index::tag(hash)) {
            let before = bytes_of(set);
            set.insert(session);
            *set_bytes += bytes_of(set) - before;
            return;
        }
        few.insert(hash, session.to_bits());
        if few.find(hash).nth(FEW).is_some() {
            let set: RefSet = few.find(hash).map(SessionRef::from_bits).collect();
            for session in &set {
                few.remove(hash, session.to_bits());
            }
            *set_bytes += bytes_of(&set);
            many.insert(index::tag(hash), set);
        }
    }

    fn remove(&mut self, hash: u64, session: SessionRef) {
        if self.few.remove(hash, session.to_bits()) {
            return;
        }
        if let Some(set) = self.many.get_mut(&index::tag(hash)) {
            self.set_bytes -= bytes_of(set);
            set.remove(&session);
            if set.len() < set.capacity() / SET_SHRINKS_BELOW {
                set.shrink_to_fit();
            }
            self.set_bytes += bytes_of(set);
            if set.is_empty() {
                self.set_bytes -= bytes_of(set);
                self.many.remove(&index::tag(hash));
            }
            if self.many.is_empty() {
                self.many.shrink_to_fit();
            }
        }
    }

    fn count_bytes(&mut self, bytes: &ByteCount) {
        let allocated = self.allocated();
        bytes.update(&mut self.counted, allocated);
    }

    fn allocated(&self) -> usize {
        let entry = size_of::<(u64, RefSet)>();
        self.few.allocated() + self.set_bytes + hash_table_bytes(self.many.capacity(), entry)
    }
}

fn bytes_of(set: &RefSet) -> usize {
    hash_table_bytes(set.capacity(), size_of::<SessionRef>())
}

/// What a hash table of the standard library allocates: a control byte for each bucket, of which seven eighths may be in
/// use.
fn hash_table_bytes(capacity: usize, entry: usize) -> usize {
    let buckets = if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() };
    buckets * (entry + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::UserKeyBuf;
    use crate::store::memory::slot::Slot;

    fn session(number: u32) -> SessionRef {
        SessionRef::new(0, Slot::new(number, 0))
    }

    fn insert(index: &UserIndex, user: &UserKeyBuf, session: SessionRef) {
        index.reserve(Some(user.as_key())).unwrap().insert(session);
    }

    /// Two users whose entries the index cannot tell apart.
    fn users_of_one_tag(index: &UserIndex) -> (UserKeyBuf, UserKeyBuf) {
        let mut seen = HashMap::new();
        (0..)
            .find_map(|number| {
                let user = UserKeyBuf::from_text(&format!("user {number}"));
                let hash = index.hash(Some(user.as_key())).unwrap();
                let entry = index.entry(hash, session(0));
                seen.insert((entry.shard, entry.tag), user.clone()).map(|twin| (twin, user))
            })
            .unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "it looks at some thousand hashes")]
    fn a_session_keeps_its_entry_when_it_goes_to_a_user_of_the_same_hash_bits() {
        let index = UserIndex::new(1, RandomState::default(), ByteCount::default());
        let (ann, ben) = users_of_one_tag(&index);
        // Few sessions, and then so many that they are in a set.
        for sessions in [1, FEW as u32 + 4] {
            (0..sessions).for_each(|number| insert(&index, &ann, session(number)));
            let hash = |user: &UserKeyBuf| index.hash(Some(user.as_key()));
            index.replace(hash(&ann), session(0), hash(&ben), session(0));
            assert_eq!(index.of_user(ben.as_key()).len(), sessions as usize);
            assert!(index.of_user(ben.as_key()).contains(&session(0)));
            (0..sessions).for_each(|number| index.remove(Some(ann.as_key()), session(number)));
            assert_eq!(index.at_most(ben.as_key()), 0);
        }
    }

    #[test]
    fn replace_adds_and_removes_entries_of_sessions_with_and_without_a_user() {
        let index = UserIndex::new(4, RandomState::default(), ByteCount::default());
        let ann = UserKeyBuf::from_text("ann");
        let hash = index.hash(Some(ann.as_key()));
        index.replace(None, session(1), hash, session(1));
        assert_eq!(index.of_user(ann.as_key()).as_slice(), [session(1)]);
        index.replace(hash, session(1), hash, session(2));
        assert_eq!(index.of_user(ann.as_key()).as_slice(), [session(2)]);
        index.replace(hash, session(2), None, session(2));
        assert_eq!(index.at_most(ann.as_key()), 0);
    }

    #[test]
    fn a_session_that_gets_another_slot_needs_no_more_memory() {
        let bytes = ByteCount::default();
        let index = UserIndex::new(1, RandomState::default(), bytes.clone());
        let ann = UserKeyBuf::from_text("ann");
        (0..FEW as u32).for_each(|number| insert(&index, &ann, session(number)));
        let before = bytes.total();
        let hash = index.hash(Some(ann.as_key()));
        index.replace(hash, session(0), hash, session(99));
        assert_eq!((bytes.total(), index.at_most(ann.as_key())), (before, FEW));
    }

    #[test]
    fn no_bytes_are_left_when_all_sessions_are_gone() {
        let bytes = ByteCount::default();
        let index = UserIndex::new(4, RandomState::default(), bytes.clone());
        let user = |number: u32| UserKeyBuf::from_text(&format!("user {}", number % 3));
        (0..1000).for_each(|number| insert(&index, &user(number), session(number)));
        assert!(bytes.total() > 1000 * size_of::<u64>());
        (0..1000).for_each(|number| index.remove(Some(user(number).as_key()), session(number)));
        assert_eq!(bytes.total(), 0);
        insert(&index, &user(0), session(0));
        drop(index.detach());
        assert_eq!(bytes.total(), 0);
    }
}
