//! One part of the table of sessions, with a lock of its own.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::table::Table;
use crate::clock::Millis;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, read, write};

/// The sessions whose ids hash to this shard.
pub(super) struct Shard {
    table: RwLock<Table>,
    /// No record expires before this, so that a sweep may pass over the shard until then.
    earliest: AtomicI64,
    /// Grows whenever a record appears, in a place of its own or another's, or gets an earlier expiry: whatever could
    /// make a walk in several steps miss one.
    version: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
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
