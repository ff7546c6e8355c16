//! Removal of expired sessions, in short steps.

use std::thread;
use std::time::{Duration, Instant};

use super::candidates::{Order, expiry_key};
use super::core::MemoryStore;
use super::eviction::EvictionList;
use super::shard::Shard;
use super::slot::Slot;
use super::table::Table;
use crate::clock::Millis;
use crate::events::{Event, Reason, SWEEPS};
use crate::store::Sweep;
use crate::sync::{MutexGuard, RwLockWriteGuard, lock, unlock_fair, unlock_fair_mutex};

/// How many records a step reads under its lock.
pub(super) const STEP: usize = 1000;

/// How many records a step removes under the lock of the eviction list.
const LIST_STEP: usize = 250;

/// How long a sweep works before it sleeps for the same time.
const WORK: Duration = Duration::from_micros(200);

/// Sleeps between steps. Otherwise a thread that waits for a lock on the sweeper's processor would wait for the end of the
/// sweeper's time slice, some milliseconds later.
pub(super) struct Pace {
    rested: Instant,
}

impl Pace {
    pub(super) fn start() -> Self {
        Self { rested: Instant::now() }
    }

    /// Ends a step: threads that wait for its locks get them first.
    pub(super) fn end_step(
        &mut self,
        list: Option<MutexGuard<'_, EvictionList>>,
        table: Option<RwLockWriteGuard<'_, Table>>,
    ) {
        table.map(unlock_fair);
        list.map(unlock_fair_mutex);
        let worked = self.rested.elapsed();
        if worked >= WORK {
            thread::sleep(worked);
            self.rested = Instant::now();
        }
    }
}

impl MemoryStore {
    pub(super) fn sweep(&self) -> u64 {
        let at = self.clock.now();
        let mut pace = Pace::start();
        let removed = if self.limits.has_capacity() {
            self.sweep_by_list(at, &mut pace)
        } else {
            self.shards.iter().map(|shard| self.sweep_shard(shard, &mut pace)).sum()
        };
        let duration = self.clock.now() - at;
        *lock(&self.last_sweep) = Some(Sweep { at, duration, removed });
        self.events.publish(SWEEPS, || Event::Swept { at, duration, removed });
        removed
    }

    /// Removes the expired sessions that the eviction list finds.
    fn sweep_by_list(&self, now: Millis, pace: &mut Pace) -> u64 {
        let mut removed = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            let mut is_done = false;
            while !is_done && let Some(mut list) = self.lock_list() {
                let mut table = shard.write();
                let mut left = LIST_STEP;
                while left > 0
                    && let Some(slot) = list.take_first(Order::Expiry, number, table.slab(), expiry_key(now))
                {
                    removed += u64::from(self.remove_expired(&mut table, Some(&mut list), slot));
                    left -= 1;
                }
                is_done = left > 0;
                self.trim_list(&mut list);
                if is_done {
                    table.give_back();
                    shard.set_earliest(list.earliest(number));
                }
                pace.end_step(Some(list), Some(table));
            }
        }
        removed
    }

    fn sweep_shard(&self, shard: &Shard, pace: &mut Pace) -> u64 {
        let (mut removed, mut earliest) = (0, Millis::MAX);
        let version = shard.version();
        let mut next = Some(0);
        while let Some(from) = next {
            let now = self.clock.now();
            if !shard.has_expired(now) {
                return removed;
            }
            let mut list = self.lock_list();
            let mut table = shard.write();
            let (mut seen, mut chunk) = (0, from);
            while seen < STEP && chunk < table.slab().chunks() {
                for slot in table.slab().slots(chunk) {
                    seen += 1;
                    let expires = table.slab().get(slot).expires();
                    if expires.is_past(now) {
                        removed += u64::from(self.remove_expired(&mut table, list.as_deref_mut(), slot));
                    } else {
                        earliest = earliest.min(expires.millis());
                    }
                }
                // A vacant chunk number costs a little too.
                seen += 1;
                chunk += 1;
            }
            next = (chunk < table.slab().chunks()).then_some(chunk);
            if next.is_none() {
                table.give_back();
                // Another version means that the steps may have missed a record. Then the next sweep looks again.
                if shard.version() == version {
                    shard.set_earliest(earliest);
                }
            }
            pace.end_step(list, Some(table));
        }
        removed
    }

    fn remove_expired(&self, table: &mut Table, list: Option<&mut EvictionList>, slot: Slot) -> bool {
        let hash = self.hash(table.slab().get(slot).id());
        self.remove(table, list, hash, slot, Reason::Expired)
    }
}
