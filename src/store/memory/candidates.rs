//! The sessions of a shard that go first when the store is full.

use std::cmp::Reverse;

use super::slab::Slab;
use super::slot::Slot;
use crate::clock::Millis;

/// An order in which sessions go. The first session has the lowest key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All sessions, by their expiry.
    Expiry,
    /// The sessions without a user, by their last use.
    Anonymous,
    /// The sessions of users, by their last use.
    Users,
}

/// Above the key of every session.
pub(super) const NO_KEY: u64 = u64::MAX;

/// A scan takes this part of the shard's sessions, and at least one.
const SCAN_PART: usize = 8;

/// The first sessions of a shard in one order.
///
/// A scan of the shard takes an eighth of its sessions, the first ones. When these are used up, the next scan follows. So
/// an eviction costs eight steps of a scan on average, and a use of a session needs no lock.
///
/// A key may grow at any time without a notice here. Two invariants make the order exact:
/// - A session has an entry with its key or a lower one, or its key is `rest` or higher.
/// - The caller reports every key that is new or lower than before (`add`, `lower`).
#[derive(Debug)]
pub(super) struct Candidates {
    /// Keys and slots, the first session last. A session may have got another key since, and the slot another session.
    entries: Vec<(u64, Slot)>,
    /// No session without an entry has a lower key.
    rest: u64,
}

impl Order {
    pub(super) fn of_users(has_user: bool) -> Self {
        if has_user { Self::Users } else { Self::Anonymous }
    }

    /// The key of a session in a slot, if the order has the session.
    fn key(self, slab: &Slab, slot: Slot) -> Option<u64> {
        if self == Self::Expiry {
            return Some(expiry_key(slab.get(slot).expires().millis()));
        }
        let used = slab.last_use(slot);
        (Self::of_users(used.has_user()) == self).then(|| used.to_bits())
    }
}

/// The key of an expiry in `Order::Expiry`.
pub(super) fn expiry_key(expires: Millis) -> u64 {
    expires as u64 ^ 1 << (u64::BITS - 1)
}

/// The expiry of a key.
pub(super) fn expiry_of_key(key: u64) -> Millis {
    (key ^ 1 << (u64::BITS - 1)) as Millis
}

impl Candidates {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), rest: NO_KEY }
    }

    /// A key that no session of the shard is below.
    pub(super) fn bound(&self) -> u64 {
        self.entries.last().map_or(self.rest, |&(key, _)| key.min(self.rest))
    }

    /// Adds a session, or one that has a lower key now or another slot. Only a scan allocates.
    pub(super) fn add(&mut self, key: u64, slot: Slot) {
        if key >= self.rest {
            return;
        }
        if self.entries.is_empty() {
            self.lower(key);
            return;
        }
        let reversed = |&(key, slot): &(u64, Slot)| Reverse((key, slot.to_bits()));
        let Err(at) = self.entries.binary_search_by_key(&reversed(&(key, slot)), reversed) else { return };
        if self.entries.len() < self.entries.capacity() {
            self.entries.insert(at, (key, slot));
            return;
        }
        // The last ones to go make room.
        let dropped = self.entries.len().div_ceil(4);
        self.lower(self.entries[dropped - 1].0);
        self.entries.drain(..dropped);
        self.add(key, slot);
    }

    /// Frees the entries. The next look scans the shard.
    pub(super) fn free(&mut self) {
        self.lower(self.bound());
        self.entries = Vec::new();
    }

    /// Makes the next look scan the shard if no entry has a key below this one.
    pub(super) fn lower(&mut self, key: u64) {
        self.rest = self.rest.min(key);
    }

    /// The session that goes first, with its key. Call it under the exclusive lock of the shard.
    pub(super) fn first(&mut self, order: Order, slab: &Slab) -> Option<(u64, Slot)> {
        loop {
            match self.entries.last() {
                Some(&(key, slot)) if key <= self.rest => {
                    let current = if slab.is_used(slot) { order.key(slab, slot) } else { None };
                    if current == Some(key) {
                        return Some((key, slot));
                    }
                    self.entries.pop();
                    if let Some(current) = current {
                        self.add(current, slot);
                    }
                }
                None if self.rest == NO_KEY => return None,
                _ => self.scan(order, slab),
            }
        }
    }

    /// Drops the entry that `first` gave.
    pub(super) fn pop(&mut self) {
        self.entries.pop();
    }

    /// Takes the first sessions of the shard.
    pub(super) fn scan(&mut self, order: Order, slab: &Slab) {
        let keys = slab.all_slots().filter_map(|slot| Some((order.key(slab, slot)?, slot)));
        let mut entries: Vec<_> = keys.collect();
        let taken = (slab.len() / SCAN_PART).max(1);
        self.rest = NO_KEY;
        if entries.len() > taken {
            self.rest = entries.select_nth_unstable_by_key(taken, |&(key, _)| key).1.0;
            entries.truncate(taken);
        }
        entries.sort_unstable_by_key(|&(key, slot)| Reverse((key, slot.to_bits())));
        entries.shrink_to_fit();
        self.entries = entries;
    }

    /// What the entries have allocated.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, Slot)>()
    }
}
