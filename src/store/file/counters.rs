//! The counters of this process since it opened the store.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub hits: CachePadded<AtomicU64>,
    pub misses: CachePadded<AtomicU64>,
    created: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
}

/// The counter changes of a transaction. They are added after its commit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterDelta {
    pub created: u64,
    pub expired: u64,
    pub evicted: u64,
}

impl Counters {
    pub(super) fn add(&self, delta: CounterDelta) {
        self.created.fetch_add(delta.created, Ordering::Relaxed);
        self.expired.fetch_add(delta.expired, Ordering::Relaxed);
        self.evicted.fetch_add(delta.evicted, Ordering::Relaxed);
    }

    /// The sum of all changes.
    pub(super) fn totals(&self) -> CounterDelta {
        CounterDelta {
            created: self.created.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }
}
