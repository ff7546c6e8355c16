//! The store, and the steps that change its tables together.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::byte_count::ByteCount;
use super::eviction::EvictionList;
use super::last_use::UseCounter;
use super::limits::Limits;
use super::record::{NewRecord, Record, created_at, creation_number};
use super::shard::{Shard, shard_of};
use super::slab::{Layout, Moved};
use super::slot::{MAX_SHARDS, SessionRef, Slot};
use super::table::Table;
use super::user_index::UserIndex;
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::Result;
use crate::events::{Bus, ENDS, Event, Reason};
use crate::session::{Content, Expiry, SessionId, UserKey};
use crate::store::Sweep;
use crate::sync::{Mutex, MutexGuard, lock, try_lock};

/// With so many shards, two threads seldom need the same one. At a million sessions the index of a shard has some 10 000
/// words, and grows in well under a millisecond.
const SHARDS: usize = if cfg!(feature = "shuttle") { 2 } else { MAX_SHARDS };

/// The sessions of most users are in at most so many shards.
const FEW_SHARDS: usize = 4;

/// A store in memory, for any number of threads.
///
/// **Locking**: the eviction list (only in a store with limits), then sessions' shards, then a shard of the user index.
/// A call that locks several sessions' shards takes them in ascending order: `of_user` those it reads, and `detach_all`
/// all of them. So no circle of waiting threads can form.
pub struct MemoryStore {
    pub(super) shards: Box<[CachePadded<Shard>]>,
    pub(super) users: UserIndex,
    list: Option<Mutex<EvictionList>>,
    pub(super) uses: UseCounter,
    pub(super) limits: Limits,
    hasher: RandomState,
    pub(super) clock: Arc<dyn Clock>,
    /// What the tables of sessions and the user index have allocated.
    bytes: ByteCount,
    creations: AtomicU64,
    /// The time of the last creation whose caller gave no time.
    last_created: AtomicI64,
    pub(super) expired: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) last_sweep: Mutex<Option<Sweep>>,
    pub(super) events: Bus,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Limits::default(), Arc::new(SystemClock))
    }
}

impl MemoryStore {
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self::with_shards(limits, clock, SHARDS)
    }

    /// `shards` is [`MAX_SHARDS`] at most.
    pub(super) fn with_shards(limits: Limits, clock: Arc<dyn Clock>, shards: usize) -> Self {
        let (hasher, bytes) = (RandomState::default(), ByteCount::default());
        let layout = match limits.has_capacity() {
            false => Layout::Plain,
            // Moving records costs time. Only where bytes are limited is it worth that.
            true if limits.max_bytes.is_some() => Layout::Dense,
            true => Layout::WithUses,
        };
        let shard = |_| CachePadded::new(Shard::new(Table::new(layout, bytes.clone())));
        Self {
            shards: (0..shards).map(shard).collect(),
            users: UserIndex::new(shards, hasher.clone(), bytes.clone()),
            list: limits.can_evict().then(|| Mutex::new(new_list(&limits, shards))),
            uses: UseCounter::default(),
            limits,
            hasher,
            clock,
            bytes,
            creations: AtomicU64::new(0),
            last_created: AtomicI64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            last_sweep: Mutex::new(None),
            events: Bus::default(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The clock that says which sessions are expired.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The bus on which the store publishes its events.
    pub fn events(&self) -> &Bus {
        &self.events
    }

    /// Calls `read` with a live session's expiry and content. This is [`SessionStore::get`] without the copy.
    ///
    /// **Locking**: `read` runs under the lock of the session's shard. It must be short and must not call the store.
    ///
    /// # Errors
    /// `Corrupt` if its record cannot be read.
    ///
    /// [`SessionStore::get`]: crate::store::SessionStore::get
    pub fn get_with<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Option<T>> {
        self.use_record(id, |expires, record| record.content().map(|content| read(expires, content)))
    }

    /// Calls `read` with a live record and its expiry, under the lock of its shard. Counts a use of the session.
    pub(super) fn use_record<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Record<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let table = shard.read();
        // Both are read under the lock and once: another thread may move the expiry under a shared lock.
        let found = table.find(hash, id).map(|(slot, record)| (slot, record.expires(), record));
        let found = found.filter(|(_, expires, _)| !self.clock.is_past(expires.millis()));
        shard.count_get(found.is_some());
        let Some((slot, expires, record)) = found else { return Ok(None) };
        let mut scan_at = None;
        if self.limits.has_capacity() {
            let used = self.uses.next();
            scan_at = self.uses.is_scan_due(used).then_some(used);
            table.slab().set_used(slot, used);
        }
        let given = read(expires, record);
        drop(table);
        if let Some(at) = scan_at {
            self.scan_early(at);
        }
        given.map(Some)
    }

    pub(super) fn hash(&self, id: &[u8]) -> u64 {
        self.hasher.hash_one(id)
    }

    pub(super) fn shard(&self, hash: u64) -> &Shard {
        &self.shards[shard_of(hash, self.shards.len())]
    }

    pub(super) fn lock_list(&self) -> Option<MutexGuard<'_, EvictionList>> {
        self.list.as_ref().map(lock)
    }

    /// `None` while another call holds it.
    pub(super) fn try_lock_list(&self) -> Option<MutexGuard<'_, EvictionList>> {
        self.list.as_ref().and_then(try_lock)
    }

    pub(super) fn new_list(&self) -> EvictionList {
        new_list(&self.limits, self.shards.len())
    }

    /// The time of a creation now. It is not before that of the last creation, even if the clock was set back.
    pub(super) fn created_now(&self, now: Millis) -> Millis {
        self.last_created.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Gives a new record its creation number, and limits its expiry by `maxLifetime`.
    pub(super) fn number(&self, new: &mut NewRecord, at: Millis) {
        let creations = self.creations.fetch_add(1, Ordering::Relaxed);
        self.keep_creation(new, creation_number(at, creations));
    }

    /// Makes a new record the most recently used one, in a store that has an order of eviction.
    pub(super) fn use_now(&self, new: &mut NewRecord) {
        if self.limits.has_capacity() {
            new.last_use = self.uses.next().with_user(new.has_user);
        }
    }

    /// Gives a new record the creation number of the old one, and limits its expiry by `maxLifetime`.
    pub(super) fn keep_creation(&self, new: &mut NewRecord, created: u64) {
        new.created = created;
        new.expires = self.limits.max_lifetime.end(new.expires, created_at(created));
    }

    /// How many bytes the sessions take, in the tables, the user index and the eviction list.
    pub(super) fn bytes(&self, list: Option<&EvictionList>) -> usize {
        self.bytes.total() + list.map_or(0, EvictionList::bytes)
    }

    /// The ref of a slot in a hash's shard.
    pub(super) fn session_ref(&self, hash: u64, slot: Slot) -> SessionRef {
        SessionRef::new(shard_of(hash, self.shards.len()), slot)
    }

    pub(super) fn is_live(&self, hash: u64, id: &SessionId, now: Millis) -> bool {
        self.shard(hash).read().find(hash, id).is_some_and(|(_, record)| record.is_live(now))
    }

    /// Calls `read` with each session of a user, live or not, as all of them are at one moment. Returns the results in the
    /// order of the sessions' refs.
    ///
    /// **Locking**: `read` runs under the shared locks of the sessions' shards. It must not lock anything.
    pub(super) fn of_user<T>(
        &self,
        user: UserKey<'_>,
        mut read: impl FnMut(SessionRef, Record<'_>) -> Option<T>,
    ) -> Vec<T> {
        // The first look says which shards to lock. Under their locks the refs of these shards cannot change, so a second
        // look is exact. A session that was created in between may be in another shard. Then the loop locks all shards.
        let sessions = self.users.of_user(user);
        let mut wanted = sessions.into_iter().fold(ShardSet::default(), ShardSet::with);
        loop {
            let tables: SmallVec<[_; FEW_SHARDS]> =
                wanted.iter().map(|shard| self.shards[shard].read()).collect();
            let mut sessions = self.users.of_user(user);
            // In the order of memory: with many sessions that is several times as fast.
            sessions.sort_unstable();
            if sessions.iter().all(|session| wanted.rank(session.shard()).is_some()) {
                let read = |session: SessionRef| {
                    let record = tables[wanted.rank(session.shard())?].slab().get(session.slot());
                    // Sessions of another user may have the same hash bits.
                    if record.user() == Some(user) { read(session, record) } else { None }
                };
                return sessions.into_iter().filter_map(read).collect();
            }
            drop(tables);
            wanted = ShardSet::of_all(self.shards.len());
        }
    }

    /// Replaces a live record by a new one of the same id, in all tables. Call it under the lock of its shard.
    pub(super) fn replace(
        &self,
        table: &mut Table,
        list: Option<&mut EvictionList>,
        hash: u64,
        old: Slot,
        new: &NewRecord,
    ) {
        let record = table.slab().get(old);
        let changed = record.user() != new.user();
        let user_before = changed.then(|| self.users.hash(record.user()));
        let before = (table.slab().last_use(old), record.cost());
        let (slot, moved) = table.replace(hash, old, new);
        if changed || slot != old {
            let user = self.users.hash(new.user());
            let (old, slot) = (self.session_ref(hash, old), self.session_ref(hash, slot));
            self.users.replace(user_before.unwrap_or(user), old, user, slot);
        }
        let mut list = list;
        if let Some(list) = list.as_deref_mut() {
            list.remove(before.0, before.1);
            list.insert(new, self.session_ref(hash, slot));
        }
        // Last: the moved record takes the slot of the old one, and may take its entry in the user index.
        self.moved(table, list, hash, moved);
    }

    /// Removes a record from all tables. Call it under the lock of its shard. Returns whether it had expired. A session that
    /// a request ended has not.
    pub(super) fn remove(
        &self,
        table: &mut Table,
        list: Option<&mut EvictionList>,
        hash: u64,
        slot: Slot,
        reason: Reason,
    ) -> bool {
        let record = table.slab().get(slot);
        let reason = if record.is_ended() { Reason::Revoked } else { reason };
        if self.events.wants(ENDS) {
            self.publish_end(record, reason);
        }
        self.users.remove(record.user(), self.session_ref(hash, slot));
        let mut list = list;
        if let Some(list) = list.as_deref_mut() {
            list.remove(table.slab().last_use(slot), record.cost());
        }
        let moved = table.remove(hash, slot);
        if table.len() == 0
            && let Some(list) = list.as_deref_mut()
        {
            list.emptied(shard_of(hash, self.shards.len()));
        }
        self.moved(table, list, hash, moved);
        match reason {
            Reason::Deleted | Reason::Revoked => {}
            Reason::Expired => self.count_expired(1),
            Reason::Evicted | Reason::Replaced => _ = self.evicted.fetch_add(1, Ordering::Relaxed),
        }
        reason == Reason::Expired
    }

    #[cold]
    fn publish_end(&self, record: Record<'_>, reason: Reason) {
        // A deleted record may belong to a session that had expired.
        let is_past = reason == Reason::Deleted && !record.is_live(self.clock.now());
        let reason = if is_past { Reason::Expired } else { reason };
        match record.session_id() {
            Ok(id) => self.events.publish(ENDS, || Event::Ended {
                reason,
                id,
                user: record.user().map(UserKey::to_buf),
            }),
            Err(_) => self.events.publish_unnamed(reason, 1),
        }
    }

    /// Updates all indexes after a record has moved, in the shard of `hash`.
    fn moved(&self, table: &mut Table, list: Option<&mut EvictionList>, hash: u64, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
        let record = table.slab().get(moved.to);
        let (from, to) = (self.session_ref(hash, moved.from), self.session_ref(hash, moved.to));
        let user = self.users.hash(record.user());
        self.users.replace(user, from, user, to);
        if let Some(list) = list {
            list.moved(record.expires().millis(), table.slab().last_use(moved.to), to);
        }
        let hash = self.hash(record.id());
        table.moved(hash, moved);
    }

    pub(super) fn count_expired(&self, sessions: u64) {
        self.expired.fetch_add(sessions, Ordering::Relaxed);
    }

    /// Removes the session of a creation number, under the lock of the eviction list.
    pub(super) fn remove_created(&self, list: &mut EvictionList, hash: u64, created: u64, reason: Reason) {
        let mut table = self.shard(hash).write();
        if let Some((slot, _)) = table.find_created(hash, created) {
            self.remove(&mut table, Some(list), hash, slot, reason);
        }
    }
}

/// An empty eviction list.
fn new_list(limits: &Limits, shards: usize) -> EvictionList {
    EvictionList::new(if limits.has_capacity() { shards } else { 0 })
}

/// The numbers of some shards.
#[derive(Clone, Copy, Default)]
struct ShardSet(u128);

impl ShardSet {
    fn of_all(shards: usize) -> Self {
        Self(u128::MAX >> (MAX_SHARDS - shards))
    }

    fn with(self, session: SessionRef) -> Self {
        Self(self.0 | 1 << session.shard())
    }

    /// The numbers in ascending order.
    fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let shard = (bits != 0).then(|| bits.trailing_zeros())?;
            bits &= bits - 1;
            Some(shard as usize)
        })
    }

    /// How many numbers come before this one, if it is in the set.
    fn rank(self, shard: usize) -> Option<usize> {
        let bit = 1 << shard;
        (self.0 & bit != 0).then(|| (self.0 & (bit - 1)).count_ones() as usize)
    }
}

const _: () = assert!(MAX_SHARDS == u128::BITS as usize);
