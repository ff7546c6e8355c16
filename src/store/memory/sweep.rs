//! Removing what has expired, in steps too short to be felt.

use std::thread;
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::record::Record;
use super::shard::Shard;
use super::table::Table;
use super::{MemoryStore, Reason};
use crate::clock::Millis;
use crate::store::Sweep;
use crate::sync::{MutexGuard, Padded, RwLockWriteGuard, hand_over, hand_over_mutex, lock};

/// How many records a step looks at under its lock.
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
        let (mut removed, mut earliest) = (0, Millis::MAX);
        let version = shard.version();
        let mut next = Some(0);
        while let Some(from) = next {
            let now = self.clock.now();
            if !shard.has_expired(now) {
                return removed;
            }
            let mut ledger = self.lock_ledger();
            let mut table = shard.write();
            next =
                self.remove_step(&mut table, ledger.as_deref_mut(), from, STEP, Reason::Expired, |record| {
                    let expires = record.expires();
                    let is_past = expires.is_past(now);
                    if is_past {
                        removed += 1;
                    } else {
                        earliest = earliest.min(expires.millis());
                    }
                    is_past
                });
            // Otherwise a record may have slipped past the steps: the next sweep looks again.
            if next.is_none() && shard.version() == version {
                shard.set_earliest(earliest);
            }
            pace.end_step(ledger, table);
        }
        removed
    }

    /// Removes every session, in steps as a sweep does.
    pub(super) fn remove_all(&self) {
        let mut pace = Pace::start();
        for Padded(shard) in &self.shards {
            let version = shard.version();
            let mut next = Some(0);
            while let Some(from) = next {
                let mut ledger = self.lock_ledger();
                let mut table = shard.write();
                let mut remove = |from, most| {
                    let ledger = ledger.as_deref_mut();
                    self.remove_step(&mut table, ledger, from, most, Reason::Asked, |_| true)
                };
                next = remove(from, STEP);
                // An update may have put a session where the steps had been already: then whatever is there goes now.
                if next.is_none() && shard.version() != version {
                    remove(0, usize::MAX);
                }
                pace.end_step(ledger, table);
            }
        }
    }

    /// Looks at `most` records or a few more, from a chunk on, and removes those that `goes` names. Gives the chunk to
    /// go on from.
    fn remove_step(
        &self,
        table: &mut Table,
        mut ledger: Option<&mut Ledger>,
        from: usize,
        most: usize,
        reason: Reason,
        mut goes: impl FnMut(Record<'_>) -> bool,
    ) -> Option<usize> {
        let (mut seen, mut chunk) = (0, from);
        while seen < most && chunk < table.slab.chunks() {
            for place in table.slab.places(chunk) {
                seen += 1;
                let record = table.slab.get(place);
                if goes(record) {
                    let hash = self.hash(record.id());
                    self.remove(table, ledger.as_deref_mut(), hash, place, reason);
                }
            }
            // A number that stands for no chunk costs a little too.
            seen += 1;
            chunk += 1;
        }
        let is_done = chunk >= table.slab.chunks();
        if is_done {
            table.slab.give_back();
        }
        (!is_done).then_some(chunk)
    }
}
