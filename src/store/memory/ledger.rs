//! Which session goes first when the store is full.

use std::collections::BTreeSet;
use std::collections::btree_set;

use foldhash::quality::RandomState;
use hashlink::LinkedHashSet;

use super::record::Record;
use crate::clock::Millis;
use crate::session::Expiry;

/// The order of eviction, exactly: what has expired, then the sessions of no user, then those of users, the least
/// recently used first.
///
/// A store has one only where it has limits. Its lock is taken **before** the lock of any shard, and every call
/// that changes the store holds it from beginning to end. So what it says of the store is true while it is held.
pub(super) struct Ledger {
    by_expiry: BTreeSet<(Millis, Record)>,
    anonymous: LinkedHashSet<Record, RandomState>,
    users: LinkedHashSet<Record, RandomState>,
    bytes: usize,
}

impl Ledger {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            by_expiry: BTreeSet::new(),
            anonymous: LinkedHashSet::with_hasher(hasher.clone()),
            users: LinkedHashSet::with_hasher(hasher),
            bytes: 0,
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.by_expiry.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Enters a record as the most recently used.
    pub(super) fn insert(&mut self, record: &Record) {
        self.bytes += record.bytes();
        self.by_expiry.insert((record.expires().millis(), record.clone()));
        self.queue_of(record).insert(record.clone());
    }

    pub(super) fn remove(&mut self, record: &Record) {
        if self.by_expiry.remove(&(record.expires().millis(), record.clone())) {
            self.bytes -= record.bytes();
            self.queue_of(record).remove(record);
        }
    }

    /// Makes a record the most recently used, if it is still there.
    pub(super) fn used(&mut self, record: &Record) {
        self.queue_of(record).to_back(record);
    }

    /// Moves a record's expiry, in the record as well.
    pub(super) fn touch(&mut self, record: &Record, expires: Expiry) {
        self.by_expiry.remove(&(record.expires().millis(), record.clone()));
        record.set_expires(expires);
        self.by_expiry.insert((expires.millis(), record.clone()));
        self.used(record);
    }

    /// What has expired, the longest ago first.
    pub(super) fn expired(&self, now: Millis) -> impl Iterator<Item = &Record> {
        let all: btree_set::Iter<'_, _> = self.by_expiry.iter();
        all.take_while(move |(expires, _)| *expires <= now).map(|(_, record)| record)
    }

    /// The live sessions of no user, the least recently used first.
    pub(super) fn anonymous(&self, now: Millis) -> impl Iterator<Item = &Record> {
        self.anonymous.iter().filter(move |record| record.is_live(now))
    }

    /// The live sessions of users, the least recently used first.
    pub(super) fn of_users(&self, now: Millis) -> impl Iterator<Item = &Record> {
        self.users.iter().filter(move |record| record.is_live(now))
    }

    fn queue_of(&mut self, record: &Record) -> &mut LinkedHashSet<Record, RandomState> {
        if record.user().is_none() { &mut self.anonymous } else { &mut self.users }
    }
}
