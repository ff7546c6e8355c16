//! A part of the sessions, with a lock of its own.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::table::Table;
use crate::clock::Millis;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, read, write};

/// The sessions whose ids hash to this shard.
pub(super) struct Shard {
    table: RwLock<Table>,
    /// No record expires before this. A sweep skips the shard until then.
    earliest: AtomicI64,
    /// Grows when a slot gets a record, or a record an earlier expiry. A sweep in several steps may miss such a record.
    version: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The shard of a hash, by its lowest bits. An index uses the highest.
///
/// The shards grow in size from the first to the last, which gets twice as many sessions. So they do not all grow their
/// indexes at once, and a smaller shard soon uses the memory that a larger one frees. With equal shards a session took 5
/// bytes more, of a million.
pub(super) fn shard_of(hash: u64, shards: usize) -> usize {
    const PARTS: usize = 4096;
    const FULL: usize = 128;
    /// 2 to the power of 1 / FULL.
    const STEP: f64 = 1.005_429_901_112_802_8;
    static SHARDS: [u8; PARTS] = {
        let (mut of_part, mut part, mut shard, mut end) = ([0; PARTS], 0, 0, STEP);
        while part < PARTS {
            while 1.0 + part as f64 / PARTS as f64 >= end && shard < FULL - 1 {
                (shard, end) = (shard + 1, end * STEP);
            }
            of_part[part] = shard as u8;
            part += 1;
        }
        of_part
    };
    usize::from(SHARDS[hash as usize % PARTS]) * shards / FULL
}

impl Shard {
    pub(super) fn new(table: Table) -> Self {
        Self {
            table: RwLock::new(table),
            earliest: AtomicI64::new(Millis::MAX),
            version: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

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

    /// How many calls of `get` found a live session, and how many did not.
    pub(super) fn gets(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Reports the expiry of a record that is new or has another expiry. Call it under the lock, shared or not. A running
    /// sweep may miss a record that is new or expires earlier than before: `may_be_missed`.
    pub(super) fn record_expiry(&self, expires: Millis, may_be_missed: bool) {
        self.earliest.fetch_min(expires, Ordering::Relaxed);
        if may_be_missed {
            self.version.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn has_expired(&self, now: Millis) -> bool {
        self.earliest.load(Ordering::Relaxed) <= now
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Sets the earliest expiry that is left. Call it under the exclusive lock.
    pub(super) fn set_earliest(&self, expires: Millis) {
        self.earliest.store(expires, Ordering::Relaxed);
    }
}
