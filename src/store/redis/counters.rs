//! What a store counts for `stats`.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::Sweep;

#[derive(Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub created: AtomicU64,
    pub expired: AtomicU64,
    pub evicted: AtomicU64,
    pub last_sweep: Mutex<Option<Sweep>>,
}

impl Counters {
    pub fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    pub fn looked_up(&self, found: bool) {
        Self::add(if found { &self.hits } else { &self.misses }, 1);
    }
}
