//! The index from a user to the sessions of that user.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use super::index::{self, Index};
use super::slab::Place;
use crate::session::UserKey;
use crate::sync::{Mutex, Padded, lock};

/// Where a session is: its shard and its place there. It takes [`index::HANDLE_BITS`] bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Handle(u64);

impl Handle {
    pub(super) fn new(shard: usize, place: Place) -> Self {
        Self((shard as u64) << u32::BITS | u64::from(place.to_bits()))
    }

    pub(super) fn shard(self) -> usize {
        (self.0 >> u32::BITS) as usize
    }

    pub(super) fn place(self) -> Place {
        Place::from_bits(self.0 as u32)
    }
}

/// Handles by the hash of a session's user, in shards.
///
/// It holds no user: what it gives for one may be another's, with the same part of the hash. Whoever asks looks at
/// the records, under the locks of their shards. An entry changes under the lock of its session's shard, so that
/// while that is held the handles of that shard are those of its records.
///
/// **Locking**: each call locks one shard and nothing else. It may be called under locks of sessions' shards, never
/// the other way.
pub(super) struct UserIndex {
    shards: Box<[Padded<Mutex<Shard>>]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    few: Index,
    /// By tag. Equal hashes lie side by side in an index, where finding one of a hundred thousand would take a
    /// hundred thousand steps.
    many: HashMap<u64, HashSet<Handle, RandomState>, RandomState>,
}

/// How many sessions of a user are few.
const FEW: usize = 16;

impl UserIndex {
    pub(super) fn new(shards: usize, hasher: RandomState) -> Self {
        Self { shards: (0..shards).map(|_| Padded::default()).collect(), hasher }
    }

    /// Adds a session; one of no user is left out.
    pub(super) fn insert(&self, user: Option<UserKey<'_>>, handle: Handle) {
        let Some(hash) = self.hash(user) else { return };
        let mut shard = lock(self.shard(hash));
        let Shard { few, many } = &mut *shard;
        if let Some(handles) = many.get_mut(&index::tag(hash)) {
            handles.insert(handle);
            return;
        }
        few.insert(hash, handle.0);
        if few.find(hash).nth(FEW).is_some() {
            let handles: HashSet<_, _> = few.find(hash).map(Handle).collect();
            for handle in &handles {
                few.remove(hash, handle.0);
            }
            many.insert(index::tag(hash), handles);
        }
    }

    pub(super) fn remove(&self, user: Option<UserKey<'_>>, handle: Handle) {
        let Some(hash) = self.hash(user) else { return };
        let mut shard = lock(self.shard(hash));
        if shard.few.remove(hash, handle.0) {
            return;
        }
        if let Some(handles) = shard.many.get_mut(&index::tag(hash)) {
            handles.remove(&handle);
            if handles.is_empty() {
                shard.many.remove(&index::tag(hash));
            }
        }
    }

    /// Replaces the entry of a session that has another slot or another user now.
    ///
    /// The new entry comes first: a thread that looks at any moment finds the session by one of the two, and then waits
    /// for the lock of its shard. If both are the same entry, it stays.
    pub(super) fn replace(
        &self,
        before: Option<UserKey<'_>>,
        old: Handle,
        after: Option<UserKey<'_>>,
        new: Handle,
    ) {
        let entry =
            |user, handle| self.hash(user).map(|hash| (self.shard_of(hash), index::tag(hash), handle));
        if entry(before, old) != entry(after, new) {
            self.insert(after, new);
            self.remove(before, old);
        }
    }

    /// The handles of a user's sessions, and perhaps some of others', in order.
    pub(super) fn handles(&self, user: UserKey<'_>) -> Vec<Handle> {
        let Some(hash) = self.hash(Some(user)) else { return Vec::new() };
        let shard = lock(self.shard(hash));
        let few = shard.few.find(hash).map(Handle);
        let many = shard.many.get(&index::tag(hash)).into_iter().flatten().copied();
        let mut handles: Vec<Handle> = few.chain(many).collect();
        drop(shard);
        handles.sort_unstable();
        handles
    }

    /// How many sessions a user has, or more.
    pub(super) fn at_most(&self, user: UserKey<'_>) -> usize {
        let Some(hash) = self.hash(Some(user)) else { return 0 };
        let shard = lock(self.shard(hash));
        shard.few.find(hash).count() + shard.many.get(&index::tag(hash)).map_or(0, HashSet::len)
    }

    fn hash(&self, user: Option<UserKey<'_>>) -> Option<u64> {
        user.map(|user| self.hasher.hash_one(user.as_bytes()))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[self.shard_of(hash)].0
    }

    fn shard_of(&self, hash: u64) -> usize {
        super::shard_of(hash, self.shards.len())
    }
}
