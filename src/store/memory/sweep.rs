//! Removing what has expired, in steps too short to be felt.

use std::thread;
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::shard::{Shard, Table};
use super::{MemoryStore, Reason};
use crate::clock::Millis;
use crate::store::Sweep;
use crate::sync::{MutexGuard, Padded, RwLockWriteGuard, hand_over, hand_over_mutex, lock};

/// How many places of a table a step looks at under its lock.
const STEP: usize = 1000;

/// How long a sweep works before it rests for as long.
const WORK: Duration = Duration::from_micros(200);

/// Rests between steps. A thread that was woken for a lock may have to wait for the end of the sweeper's time slice,
/// some milliseconds, where both are on one processor; a thread that sleeps has none.
struct Pace {
    rested: Instant,
}

impl Pace {
    fn start() -> Self {
        Self { rested: Instant::now() }
    }

    /// Ends a step: whoever waits for its locks comes next.
    fn end_step(&mut self, ledger: Option<MutexGuard<'_, Ledger>>, table: RwLockWriteGuard<'_, Table>) {
        hand_over(table);
        ledger.map(hand_over_mutex);
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
        let removed = self.shards.iter().map(|Padded(shard)| self.sweep_shard(shard, &mut pace)).sum();
        *lock(&self.last_sweep) = Some(Sweep { at, duration: self.clock.now() - at, removed });
        removed
    }

    fn sweep_shard(&self, shard: &Shard, pace: &mut Pace) -> u64 {
        let (mut removed, mut next, mut earliest) = (0, 0, Millis::MAX);
        let version = shard.version();
        loop {
            let now = self.clock.now();
            if !shard.has_expired(now) {
                return removed;
            }
            let mut ledger = self.lock_ledger();
            let mut table = shard.write();
            let end = table.records.num_buckets().min(next + STEP);
            for bucket in next..end {
                let Ok(entry) = table.records.get_bucket_entry(bucket) else { continue };
                let expires = entry.get().expires();
                if expires.is_past(now) {
                    let (record, _) = entry.remove();
                    self.removed(&mut table, ledger.as_deref_mut(), &record, Reason::Expired);
                    removed += 1;
                } else {
                    earliest = earliest.min(expires.millis());
                }
            }
            next = end;
            let is_done = next >= table.records.num_buckets();
            if is_done {
                // Otherwise a record may have slipped past the steps: the next sweep looks again.
                if shard.version() == version {
                    shard.set_earliest(earliest);
                }
                self.give_back(shard, &mut table);
            }
            pace.end_step(ledger, table);
            if is_done {
                return removed;
            }
        }
    }

    /// Gives the memory of a table back that is nearly empty.
    fn give_back(&self, shard: &Shard, table: &mut Table) {
        let (len, capacity) = (table.records.len(), table.records.capacity());
        if capacity > 64 && len < capacity / 8 {
            table.records.shrink_to(len * 2, |record| self.hash(record.id()));
            shard.note_move();
        }
    }

    /// Removes every session, a shard at a time.
    pub(super) fn remove_all(&self) {
        let mut pace = Pace::start();
        for Padded(shard) in &self.shards {
            let mut ledger = self.lock_ledger();
            let mut table = shard.write();
            for record in std::mem::take(&mut table.records) {
                self.removed(&mut table, ledger.as_deref_mut(), &record, Reason::Asked);
            }
            pace.end_step(ledger, table);
        }
    }
}
