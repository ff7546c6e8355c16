//! The eviction list: which session goes first when the store is full.

use super::candidates::{Candidates, NO_KEY, Order, expiry_key, expiry_of_key};
use super::last_use::LastUse;
use super::record::{EVICTION_BYTES, LONG_PAST, NewRecord};
use super::slab::Slab;
use super::slot::{SessionRef, Slot};
use crate::clock::Millis;

const ORDERS: [Order; 3] = [Order::Expiry, Order::Anonymous, Order::Users];

/// The exact order of eviction: expired sessions, then sessions without a user, then those of users, the least recently
/// used first.
///
/// Only a store with limits has one. Its lock comes **before** the lock of any shard. Every call that creates, updates
/// or removes a session holds it from beginning to end. A use of a session and a later expiry only change the session's
/// own words, without this lock.
///
/// If `maxSessionsPerUser` is the only limit, the list is empty and serves as a lock: the user index and the records say
/// which of a user's sessions is the oldest.
pub(super) struct EvictionList {
    orders: [ShardCandidates; ORDERS.len()],
    /// The sessions without a user, and those of users.
    totals: [Total; 2],
    /// What the candidates have allocated.
    bytes: usize,
    /// The shard of the next early scan.
    next_scanned: usize,
}

/// The candidates of each shard, and their bounds side by side: the lowest is found in a few cache lines.
struct ShardCandidates {
    candidates: Box<[Candidates]>,
    bounds: Box<[u64]>,
}

/// Some sessions, and what they cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) sessions: usize,
    pub(super) cost: usize,
}

impl EvictionList {
    /// A list for so many shards, or for none if it is only a lock.
    pub(super) fn new(shards: usize) -> Self {
        let of_order = |_| ShardCandidates {
            candidates: (0..shards).map(|_| Candidates::new()).collect(),
            bounds: vec![NO_KEY; shards].into(),
        };
        Self { orders: ORDERS.map(of_order), totals: [Total::default(); 2], bytes: 0, next_scanned: 0 }
    }

    /// Whether it is more than a lock.
    fn has_order(&self) -> bool {
        !self.orders[0].bounds.is_empty()
    }

    /// How many sessions there are, expired and ended ones included.
    pub(super) fn sessions(&self) -> usize {
        self.totals.iter().map(|total| total.sessions).sum()
    }

    /// The sessions with a user or those without one, expired and ended ones included.
    pub(super) fn total(&self, has_user: bool) -> Total {
        self.totals[usize::from(has_user)]
    }

    /// What the list itself takes. It counts the entries of scans to come. Otherwise a store with `maxBytes` would end
    /// sessions to make room for a scan.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.max(self.sessions() * EVICTION_BYTES)
    }

    /// Adds a session, or a new record of one.
    pub(super) fn insert(&mut self, new: &NewRecord, session: SessionRef) {
        if !self.has_order() {
            return;
        }
        let total = &mut self.totals[usize::from(new.has_user)];
        *total = Total { sessions: total.sessions + 1, cost: total.cost + new.cost() };
        self.moved(new.expires.millis(), new.last_use, session);
    }

    /// Forgets a session that had this last use and this cost.
    pub(super) fn remove(&mut self, last_use: LastUse, cost: usize) {
        if !self.has_order() {
            return;
        }
        let total = &mut self.totals[usize::from(last_use.has_user())];
        *total = Total { sessions: total.sessions - 1, cost: total.cost - cost };
    }

    /// Records where a session is now.
    pub(super) fn moved(&mut self, expires: Millis, last_use: LastUse, session: SessionRef) {
        if self.has_order() {
            self.expires_earlier(expires, session);
            self.used(last_use, session);
        }
    }

    /// Records an expiry that may be earlier than before. Only for a store with an order.
    pub(super) fn expires_earlier(&mut self, expires: Millis, session: SessionRef) {
        self.change(Order::Expiry, session.shard(), |all| all.add(expiry_key(expires), session.slot()));
    }

    /// Records the last use of a session that may have no entry yet.
    pub(super) fn used(&mut self, last_use: LastUse, session: SessionRef) {
        let order = Order::of_users(last_use.has_user());
        self.change(order, session.shard(), |all| all.add(last_use.to_bits(), session.slot()));
    }

    /// Records that some sessions of a shard were ended, and that their records are still there. They go before all others.
    pub(super) fn ended(&mut self, shard: usize) {
        if self.has_order() {
            self.change(Order::Expiry, shard, |all| all.lower(expiry_key(LONG_PAST)));
        }
    }

    /// The shard whose first session may go before those of all other shards, and a key that no session is below. `None` if
    /// all keys are above `max`.
    pub(super) fn first_shard(&self, order: Order, max: u64) -> Option<(usize, u64)> {
        let bounds = &self.orders[order as usize].bounds;
        let lowest = bounds.iter().copied().min().filter(|&lowest| lowest <= max && lowest != NO_KEY)?;
        bounds.iter().position(|&bound| bound == lowest).map(|shard| (shard, lowest))
    }

    /// Takes the first session of a shard if its key is not above `max`. The caller removes or uses the session.
    pub(super) fn take_first(&mut self, order: Order, shard: usize, slab: &Slab, max: u64) -> Option<Slot> {
        self.change(order, shard, |all| {
            // Without this, a sweep would scan shards in which nothing has expired.
            if all.bound() > max {
                return None;
            }
            let (_, slot) = all.first(order, slab).filter(|&(key, _)| key <= max)?;
            all.pop();
            Some(slot)
        })
    }

    /// The shard whose turn it is to be scanned early.
    pub(super) fn next_scanned(&mut self) -> usize {
        let shard = self.next_scanned;
        self.next_scanned = (shard + 1) % self.orders[0].bounds.len();
        shard
    }

    /// Scans a shard before an eviction needs that. The lock of the shard may be shared.
    pub(super) fn scan_early(&mut self, shard: usize, slab: &Slab) {
        for order in [Order::Anonymous, Order::Users] {
            if self.total(order == Order::Users).sessions > 0 {
                self.change(order, shard, |all| all.scan(order, slab));
            }
        }
    }

    /// No session of the shard expires before this.
    pub(super) fn earliest(&self, shard: usize) -> Millis {
        match self.orders[Order::Expiry as usize].bounds[shard] {
            NO_KEY => Millis::MAX,
            key => expiry_of_key(key),
        }
    }

    /// Frees the candidates of all shards. The next look at a shard scans it.
    pub(super) fn free_candidates(&mut self) {
        let all = self.orders.iter_mut().flat_map(|order| order.candidates.iter_mut());
        all.for_each(Candidates::free);
        self.bytes = 0;
    }

    /// Frees the candidates of an empty shard.
    pub(super) fn emptied(&mut self, shard: usize) {
        if self.has_order() {
            ORDERS.iter().for_each(|&order| self.change(order, shard, |all| *all = Candidates::new()));
        }
    }

    fn change<T>(&mut self, order: Order, shard: usize, change: impl FnOnce(&mut Candidates) -> T) -> T {
        let ShardCandidates { candidates, bounds } = &mut self.orders[order as usize];
        let of_shard = &mut candidates[shard];
        let before = of_shard.bytes();
        let changed = change(of_shard);
        self.bytes = self.bytes + of_shard.bytes() - before;
        bounds[shard] = of_shard.bound();
        changed
    }
}
