//! The eviction list: which session goes first when the store is full.

use std::collections::{BTreeSet, HashSet};

use foldhash::quality::RandomState;
use hashlink::LinkedHashMap;

use super::record::{NewRecord, Record};
use super::slot::SessionRef;
use crate::clock::Millis;
use crate::session::Expiry;

/// What an entry takes, as measured: two nodes, and a word in a hash table.
pub(super) const ENTRY_BYTES: usize = 116;

/// The exact order of eviction: expired sessions, then sessions without a user, then those of users, the least recently
/// used first.
///
/// Only a store with limits has one. Its lock comes **before** the lock of any shard, and every call that changes the
/// store holds it from beginning to end. So while it is held, its entries are true, and each has the ref of its session.
/// A caller without the lock knows a session by its creation number, which no other entry has.
///
/// If `maxSessionsPerUser` is the only limit, the list has no entries and serves as a lock: the user index and the
/// records say which of a user's sessions is the oldest.
pub(super) struct EvictionList {
    has_entries: bool,
    by_expiry: BTreeSet<(Millis, u64)>,
    anonymous: LruQueue,
    users: LruQueue,
    /// The creation numbers of sessions that were ended, and whose records are still there.
    ended: HashSet<u64, RandomState>,
}

/// What the list has of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The creation number.
    pub(super) created: u64,
    pub(super) session: SessionRef,
    pub(super) expires: Millis,
    /// What the session takes, its entry included.
    pub(super) cost: usize,
    pub(super) is_anonymous: bool,
}

/// Entries by their creation numbers, the least recently used first.
struct LruQueue {
    entries: LinkedHashMap<u64, Entry, RandomState>,
    /// For how many entries it has memory: it keeps that of removed ones.
    allocated: usize,
}

/// A queue gives memory back if an eighth of it, and that of this many entries, is unused.
const MIN_SPARE_ENTRIES: usize = 256;
const SPARE_PART: usize = 8;

/// `ended` shrinks when less than this part of its capacity is in use.
const ENDED_SHRINK_BELOW: usize = 4;

impl Entry {
    pub(super) fn of(record: Record<'_>, session: SessionRef) -> Self {
        let (expires, is_anonymous) = (record.expires(), record.user().is_none());
        Self::new(record.created(), session, expires, record.cost(), is_anonymous)
    }

    pub(super) fn of_new(record: &NewRecord, session: SessionRef) -> Self {
        Self::new(record.created, session, record.expires, record.cost(), !record.has_user)
    }

    fn new(created: u64, session: SessionRef, expires: Expiry, cost: usize, is_anonymous: bool) -> Self {
        let (expires, cost) = (expires.millis(), cost + ENTRY_BYTES);
        Self { created, session, expires, cost, is_anonymous }
    }
}

impl EvictionList {
    pub(super) fn new(hasher: RandomState, has_entries: bool) -> Self {
        Self {
            has_entries,
            by_expiry: BTreeSet::new(),
            anonymous: LruQueue::new(hasher.clone()),
            users: LruQueue::new(hasher.clone()),
            ended: HashSet::with_hasher(hasher),
        }
    }

    /// How many sessions there are, expired and ended ones included.
    pub(super) fn sessions(&self) -> usize {
        self.by_expiry.len()
    }

    /// How many sessions are live.
    pub(super) fn live(&self, now: Millis) -> usize {
        self.sessions() - self.ended.len() - self.expired(now).count()
    }

    /// What the list itself takes.
    pub(super) fn bytes(&self) -> usize {
        self.sessions() * ENTRY_BYTES
    }

    /// Adds a session as the most recently used.
    pub(super) fn insert(&mut self, entry: Entry) {
        if !self.has_entries {
            return;
        }
        self.by_expiry.insert((entry.expires, entry.created));
        let queue = if entry.is_anonymous { &mut self.anonymous } else { &mut self.users };
        queue.insert(entry);
    }

    pub(super) fn remove(&mut self, created: u64) {
        let Some(entry) = self.users.remove(created).or_else(|| self.anonymous.remove(created)) else {
            return;
        };
        self.by_expiry.remove(&(entry.expires, created));
        // A set with many empty places is slow to search for the next one.
        if self.ended.remove(&created) && self.ended.len() < self.ended.capacity() / ENDED_SHRINK_BELOW {
            self.ended.shrink_to_fit();
        }
    }

    /// Makes a session the most recently used, if it is still there.
    pub(super) fn used(&mut self, created: u64) {
        if self.users.entries.to_back(&created).is_none() {
            self.anonymous.entries.to_back(&created);
        }
    }

    /// Moves a session's expiry, which counts as a use.
    pub(super) fn touch(&mut self, created: u64, expires: Millis) {
        self.used(created);
        if let Some(entry) = find_mut(&mut self.users, &mut self.anonymous, created) {
            self.by_expiry.remove(&(entry.expires, created));
            entry.expires = expires;
            self.by_expiry.insert((expires, created));
        }
    }

    /// Sets where a session is now.
    pub(super) fn moved(&mut self, created: u64, session: SessionRef) {
        if let Some(entry) = find_mut(&mut self.users, &mut self.anonymous, created) {
            entry.session = session;
        }
    }

    /// Marks sessions that have ended, and whose records are to be removed. They go before all others. Their entries
    /// stay as they are: looking up many would take long.
    pub(super) fn end(&mut self, sessions: impl ExactSizeIterator<Item = u64>) {
        if self.has_entries {
            self.ended.extend(sessions);
        }
    }

    pub(super) fn entry(&self, created: u64) -> Option<&Entry> {
        self.users.entries.get(&created).or_else(|| self.anonymous.entries.get(&created))
    }

    /// Sessions that have ended or expired: those first that ended by request, then the longest expired.
    pub(super) fn past(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        self.ended.iter().filter_map(|created| self.entry(*created)).chain(self.expired(now))
    }

    fn expired(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        let past = self.by_expiry.iter().take_while(move |(expires, _)| *expires <= now);
        past.filter(|(_, created)| !self.ended.contains(created))
            .filter_map(|(_, created)| self.entry(*created))
    }

    fn is_live(&self, entry: &Entry, now: Millis) -> bool {
        entry.expires > now && !self.ended.contains(&entry.created)
    }

    /// The live sessions without a user, the least recently used first.
    pub(super) fn anonymous(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        self.anonymous.entries.values().filter(move |entry| self.is_live(entry, now))
    }

    /// The live sessions of users, the least recently used first.
    pub(super) fn of_users(&self, now: Millis) -> impl Iterator<Item = &Entry> {
        self.users.entries.values().filter(move |entry| self.is_live(entry, now))
    }
}

fn find_mut<'a>(users: &'a mut LruQueue, anonymous: &'a mut LruQueue, created: u64) -> Option<&'a mut Entry> {
    match users.entries.get_mut(&created) {
        None => anonymous.entries.get_mut(&created),
        entry => entry,
    }
}

impl LruQueue {
    fn new(hasher: RandomState) -> Self {
        Self { entries: LinkedHashMap::with_hasher(hasher), allocated: 0 }
    }

    fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry.created, entry);
        self.allocated = self.allocated.max(self.entries.len());
    }

    fn remove(&mut self, created: u64) -> Option<Entry> {
        let entry = self.entries.remove(&created);
        let spare = self.allocated - self.entries.len();
        if spare > MIN_SPARE_ENTRIES && spare > self.allocated / SPARE_PART {
            self.entries.shrink_to_fit();
            self.allocated = self.entries.len();
        }
        entry
    }
}
