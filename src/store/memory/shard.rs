//! One part of the table of sessions, with a lock of its own.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

use super::record::Record;
use crate::clock::Millis;
use crate::session::SessionId;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, read, write};

/// The sessions whose ids hash to this shard.
pub(super) struct Shard {
    table: RwLock<Table>,
    /// No record expires before this, so that a sweep may pass over the shard until then.
    earliest: AtomicI64,
    /// Grows whenever a record appears, moves in the table or gets an earlier expiry: whatever could make a walk
    /// in several steps miss one.
    version: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) records: HashTable<Record>,
    pub(super) bytes: usize,
    pub(super) created: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            table: RwLock::new(Table::default()),
            earliest: AtomicI64::new(Millis::MAX),
            version: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }
}

impl Shard {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        read(&self.table)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        write(&self.table)
    }

    pub(super) fn count_get(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gets(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// To be called under the lock, shared or not, after a record came in or got another expiry.
    pub(super) fn note_expiry(&self, expires: Millis, may_be_missed: bool) {
        self.earliest.fetch_min(expires, Ordering::Relaxed);
        if may_be_missed {
            self.note_move();
        }
    }

    pub(super) fn note_move(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn has_expired(&self, now: Millis) -> bool {
        self.earliest.load(Ordering::Relaxed) <= now
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// To be called under the exclusive lock, with the earliest expiry that is left.
    pub(super) fn set_earliest(&self, expires: Millis) {
        self.earliest.store(expires, Ordering::Relaxed);
    }
}

impl Table {
    pub(super) fn find(&self, hash: u64, id: &SessionId) -> Option<&Record> {
        // The search reads a byte of control before it knows the slot, and each is a line that the cache may miss.
        // It begins at this slot, and mostly ends there: asking for it now lets both misses pass at once.
        let first = hash as usize & self.records.num_buckets().wrapping_sub(1);
        if let Some(slot) = self.records.get_bucket(first) {
            slot.prefetch();
        }
        self.records.find(hash, |record| record.id() == id.as_bytes())
    }

    pub(super) fn find_entry(&mut self, hash: u64, id: &SessionId) -> Option<OccupiedEntry<'_, Record>> {
        self.records.find_entry(hash, |record| record.id() == id.as_bytes()).ok()
    }
}
