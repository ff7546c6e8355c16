//! Takes batches of writes to disk, through the log if this process has opened the store exclusively.
//!
//! A batch is decided, written to the log, synced, entered into the overlay and reported, in this order. None of it
//! is visible before it is on disk, so a failure has nothing to undo. With `durability: "everysec"` it is entered and
//! reported before the sync, which follows within about a second.
//!
//! Some writes go directly to the data file, after the log is drained:
//! - writes that end very many sessions
//! - writes to a nearly full store
//! - writes to the whole store

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::join::Joined;
use super::overlay::Overlay;
use super::points::{self, Point};
use super::ring::{self, NextFile, Ring};
use super::rows::LoggedRows;
use super::storage::LogFiles;
use crate::error::{Result, StoreError};
use crate::events::{ENDS, Ends};
use crate::store::LogStats;
use crate::store::file::apply::{Write, WriteBatch};
use crate::store::file::counters::CounterDelta;
use crate::store::file::direct::{PANICKED, write_all};
use crate::store::file::environment::{Environment, KnownLog};
use crate::store::file::errors::files_replaced;
use crate::store::file::options::Durability;
use crate::store::file::write_error::WriteError;

/// A batch uses at most a quarter of the ring.
const BATCH_DIVISOR: u64 = 4;
/// If a batch could use less than a sixteenth of the ring, part of the log is drained first.
const MIN_BATCH_DIVISOR: u64 = 16;
/// The maximum growth of the data file for each byte in the log. A split page is left half full.
const DATA_GROWTH: u64 = 2;
/// The bytes of a record in the log and in the indexes, without its key and row.
const RECORD_OVERHEAD: u64 = 128;

/// The number of drains after which a call stops trying to count rows.
const MAX_DRAINS: usize = 8;
/// The initial estimate of the nanoseconds to drain a KiB of the log.
const INITIAL_DRAIN_COST: u64 = 60_000;

/// How long no new log starts after the store was shared or the log has failed. The time doubles if that soon happens
/// again.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The sizes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::file) struct Sizes {
    pub first: u64,
    /// The maximum size. 0 disables the log.
    pub max: u64,
}

impl Sizes {
    /// Disables the log.
    pub(in crate::store::file) const NONE: Self = Self { first: 0, max: 0 };
}

/// Whether this process has exclusive access to the store.
pub(super) enum Mode {
    Exclusive,
    Shared,
}

pub(super) struct ModeState {
    pub mode: Mode,
    /// Until this time no log starts and the store stays shared.
    pub not_before: Option<Instant>,
    /// The next duration of that state.
    pub pause: Duration,
    /// The time and size of the last batch in the log.
    pub last_batch: Option<(Instant, usize)>,
    pub next_file: NextFile,
    /// The size of the next log.
    pub next_size: u64,
}

/// The right to write to the data file while there may be a log.
pub(in crate::store::file) struct Base {
    /// The end position of a `clear` whose commit has failed and may be on disk.
    pub(super) uncertain_clear: Option<super::format::Position>,
}

pub(in crate::store::file) struct Redo {
    pub(super) environment: Arc<Environment>,
    pub(super) files: Box<dyn LogFiles>,
    pub(super) durability: Durability,
    pub(super) sizes: Sizes,
    /// Held while a batch is written, and while the mode changes.
    pub(super) mode: Mutex<ModeState>,
    pub(super) base: Mutex<Base>,
    /// The log. It changes only while both the mode and the base are locked.
    pub(super) log: Mutex<Option<Arc<Ring>>>,
    /// The next `created`, once the batch in progress is entered.
    pub(super) next: AtomicU64,
    pub(super) is_exclusive: AtomicBool,
    /// Wakes the keeper to check the log now.
    pub(super) wake: Condvar,
    pub(super) is_awake: Mutex<bool>,
    pub(super) is_closing: AtomicBool,
    /// The recent cost of a drain, in nanoseconds for each KiB of the log.
    pub(super) drain_cost: AtomicU64,
    /// Whether the log is being drained in order to end it.
    pub(super) is_emptying: AtomicBool,
}

impl Redo {
    /// Takes over an open store. Call `recover_or_share` to recover its log, if there is one.
    pub(in crate::store::file) fn new(
        environment: Arc<Environment>,
        files: Box<dyn LogFiles>,
        durability: Durability,
        sizes: Sizes,
        joined: Joined,
    ) -> Self {
        let is_exclusive = joined == Joined::Exclusive;
        let mode = if is_exclusive { Mode::Exclusive } else { Mode::Shared };
        Self {
            environment,
            files,
            durability,
            sizes,
            mode: Mutex::new(ModeState {
                mode,
                not_before: None,
                pause: FIRST_PAUSE,
                last_batch: None,
                next_file: NextFile::Old,
                next_size: sizes.first,
            }),
            base: Mutex::new(Base { uncertain_clear: None }),
            log: Mutex::default(),
            next: AtomicU64::new(0),
            is_exclusive: AtomicBool::new(is_exclusive),
            wake: Condvar::new(),
            is_awake: Mutex::new(false),
            is_closing: AtomicBool::new(false),
            drain_cost: AtomicU64::new(INITIAL_DRAIN_COST),
            is_emptying: AtomicBool::new(false),
        }
    }

    pub(super) fn overlay(&self) -> &Overlay {
        &self.environment.overlay
    }

    /// The log. Does not wait for writes to the data file.
    pub(super) fn ring(&self) -> Option<Arc<Ring>> {
        self.log.lock().clone()
    }

    /// Prevents commits of drains, so that rows can be counted: after such a commit, and before the overlay drops the
    /// rows, they are in both. Drains first if the overlay may be wrong about which of its rows are also in the data
    /// file.
    ///
    /// # Errors
    /// Those of a commit.
    pub(in crate::store::file) fn hold_base(&self) -> Result<MutexGuard<'_, Base>> {
        for _ in 0..MAX_DRAINS {
            let base = points::lock(&self.base);
            // After locking, because the drain that held the lock may have failed.
            if !self.overlay().is_uncertain() {
                return Ok(base);
            }
            drop(base);
            self.drain_now()?;
        }
        Err(StoreError::Io("the log cannot be drained: several attempts have failed".into()))
    }

    /// Whether `hold_base` would have to wait.
    pub(in crate::store::file) fn is_draining(&self) -> bool {
        self.base.is_locked()
    }

    /// The counters of the log. `None` if this system, this file system or the size of the store does not allow a
    /// log.
    pub(in crate::store::file) fn stats(&self) -> Option<LogStats> {
        if self.sizes.max == 0 {
            return None;
        }
        let ring = self.ring();
        Some(LogStats {
            is_exclusive: self.is_exclusive.load(Ordering::SeqCst),
            used: ring.as_ref().map_or(0, |ring| ring.used()),
            size: ring.as_ref().map_or(0, |ring| ring.size()),
        })
    }

    /// Fails if the log has failed and was not replaced since.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::store::file) fn check(&self) -> Result<()> {
        match self.ring() {
            Some(ring) => ring.check().map_err(|error| ring::failed(&*self.files, &error)),
            None => Ok(()),
        }
    }

    /// Checks that a write would succeed: there is room on the disk and below `maxBytes`, and the log accepts writes.
    /// Without a log, checks the data file instead.
    ///
    /// # Errors
    /// `Full`, and those of a write.
    pub(in crate::store::file) fn probe(&self) -> Result<()> {
        self.resolve_log(&mut points::lock(&self.mode))?;
        let environment = &self.environment;
        environment.check_room()?;
        if !environment.quota.reserve(environment.data(), environment.usage_now()?, 0) {
            return Err(StoreError::Full("there is no space left on the disk".into()));
        }
        match self.ring() {
            Some(ring) => ring.sync().map_err(|error| ring::failed(&*self.files, &error)),
            None => environment.change(|_| Ok(())),
        }
    }

    /// Writes a batch, and returns when the durability requirement is met. Each write has its own outcome.
    pub(in crate::store::file) fn write(&self, writes: &[&Write]) -> Vec<Result<u64>> {
        let write = || {
            let mut state = points::lock(&self.mode);
            self.write_in_mode(&mut state, writes)
        };
        catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| {
            // The log may contain a batch that the overlay does not.
            if let Some(ring) = self.ring() {
                ring.mark_failed();
            }
            writes.iter().map(|_| Err(PANICKED)).collect()
        })
    }

    fn write_in_mode(&self, state: &mut ModeState, writes: &[&Write]) -> Vec<Result<u64>> {
        if let Err(error) = self.resolve_log(state) {
            return writes.iter().map(|_| Err(error.clone())).collect();
        }
        self.adjust_mode(state, writes);
        let mut outcomes = Vec::with_capacity(writes.len());
        while outcomes.len() < writes.len() {
            let rest = &writes[outcomes.len()..];
            // After a part of the batch, it may be unknown which log the store has.
            if let Err(error) = self.resolve_log(state) {
                outcomes.extend(rest.iter().map(|_| Err(error.clone())));
                break;
            }
            let Some(ring) = self.ring() else {
                outcomes.extend(write_all(&self.environment, rest));
                break;
            };
            let sessions = rest.iter().take_while(|write| write.affects_sessions()).count();
            match (sessions, rest[0]) {
                (0, Write::Clear) => outcomes.push(self.clear(&ring)),
                (0, _) => outcomes.extend(self.write_directly(&ring, &rest[..1])),
                _ => outcomes.extend(self.write_to_log(state, &ring, &rest[..sessions])),
            }
        }
        // Now, because there may never be another write.
        let _ = self.resolve_log(state);
        outcomes
    }

    /// Writes as many of the first writes to the log as fit into one batch.
    fn write_to_log(&self, state: &mut ModeState, ring: &Arc<Ring>, writes: &[&Write]) -> Vec<Result<u64>> {
        let all = |error: &StoreError| writes.iter().map(|_| Err(error.clone())).collect::<Vec<_>>();
        let max = ring.size() / BATCH_DIVISOR;
        loop {
            let refusal = match writes.iter().any(|write| write.encrypts()) {
                true => self.environment.ensure_keys().err(),
                false => None,
            };
            match self.has_room(ring, writes) {
                Ok(true) => {}
                Ok(false) => return self.write_directly(ring, writes),
                Err(error) => return all(&error),
            }
            let room = ring.room().min(max);
            let decided = if room < ring.size() / MIN_BATCH_DIVISOR {
                DecidedBatch::default()
            } else {
                match self.decide(writes, room, refusal.as_ref()) {
                    Ok(decided) => decided,
                    Err(error) => return all(&error),
                }
            };
            if !decided.outcomes.is_empty() {
                return self.append(state, ring, decided);
            }
            if room == max {
                return self.write_directly(ring, &writes[..1]);
            }
            if let Err(error) = self.make_room(ring) {
                return all(&error);
            }
        }
    }

    /// Whether the data file has room for the log and these writes.
    fn has_room(&self, ring: &Ring, writes: &[&Write]) -> Result<bool> {
        let environment = &self.environment;
        let batch = writes.iter().map(|write| write.record_bytes() as u64 + RECORD_OVERHEAD).sum::<u64>();
        let growth = DATA_GROWTH * (ring.used() + batch);
        let usage = environment.usage_now()?;
        Ok(environment.quota.is_ample(usage, growth)
            && environment.quota.reserve(environment.data(), usage, growth))
    }

    /// Decides as many writes as fit into a batch of this size.
    fn decide(
        &self,
        writes: &[&Write],
        max_bytes: u64,
        refusal: Option<&StoreError>,
    ) -> Result<DecidedBatch> {
        let environment = &self.environment;
        let lost = |error: WriteError| error.at(&environment.data_path());
        let max_records = (max_bytes as usize).saturating_sub(super::format::batch_bytes(0) + 8);
        let mut gate = self.overlay().gate();
        // A panic may have left some rows here.
        gate.decided.clear();
        let view = environment.read()?;
        let next = self.next.load(Ordering::SeqCst);
        let mut rows =
            LoggedRows::new(self.overlay(), gate, view, next).map_err(|error| lost(error.into()))?;
        let mut batch = WriteBatch::new(
            &mut rows,
            &environment.encryption,
            environment.rules(),
            environment.clock.now(),
            environment.events.ends(),
        );
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let (counted, ended) = (batch.counted, batch.ended.mark());
            let refused = refusal.filter(|_| write.encrypts());
            let applied = match refused {
                Some(error) => Err(WriteError::Refused(error.clone())),
                None => batch.apply_to_sessions(write),
            };
            match applied {
                Ok(changed) if batch.rows.accept(max_records) => outcomes.push(Ok(changed.unwrap_or(0))),
                Ok(_) => {
                    batch.counted = counted;
                    batch.ended.rewind(ended);
                    break;
                }
                Err(WriteError::Refused(error)) => {
                    batch.rows.refuse();
                    batch.counted = counted;
                    batch.ended.rewind(ended);
                    outcomes.push(Err(error));
                }
                Err(error) => {
                    batch.rows.cancel();
                    return Err(lost(error));
                }
            }
        }
        let (counted, ended) = (batch.counted, batch.ended);
        let (records, next) = rows.finish();
        points::reach(Point::Decided);
        Ok(DecidedBatch { outcomes, records: Some(records), next, counted, ended })
    }

    /// Writes a decided batch to the log and enters it into the overlay.
    fn append(&self, state: &mut ModeState, ring: &Arc<Ring>, decided: DecidedBatch) -> Vec<Result<u64>> {
        let DecidedBatch { outcomes, records, next, counted, ended } = decided;
        let records = records.filter(|records| !records.is_empty());
        // Writes without changes depend only on rows that are already on disk.
        let Some(records) = records else { return outcomes };
        let bytes = records.len();
        // Rejections fail too, because they may depend on a failed write of this batch.
        let fail = |error: StoreError| outcomes.iter().map(|_| Err(error.clone())).collect();
        if let Err(error) = self.check_files(ring) {
            self.overlay().gate().decided.clear();
            return fail(error);
        }
        let written = ring.append(records, next).and_then(|()| match self.durability {
            Durability::Commit => ring.sync(),
            Durability::EverySec => Ok(()),
        });
        if let Err(error) = written {
            self.overlay().gate().decided.clear();
            let error = ring::failed(&*self.files, &error);
            // If the data file names no log any more, nothing can bring the batch back.
            return fail(match self.resolve_log(state) {
                Ok(()) => error,
                Err(_) => error.of_unknown_outcome(),
            });
        }
        self.next.store(next, Ordering::SeqCst);
        self.overlay().gate().enter(ring.written());
        points::reach(Point::InOverlay);
        ring.enter();
        points::reach(Point::Entered);
        state.last_batch = Some((points::now(), bytes));
        self.environment.counters.add(counted);
        self.environment.events.publish_ends(ended);
        if ring.used() > ring.size() / 2 {
            self.wake();
        }
        outcomes
    }

    fn check_files(&self, ring: &Ring) -> Result<()> {
        self.environment.held.check()?;
        match ring.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.environment.held.mark_lost();
                Err(files_replaced(self.environment.dir()))
            }
            Err(error) => Err(ring::failed(&*self.files, &error)),
        }
    }

    /// Delays the next batch if the log is filling up or is about to end. Writes then add less to the log than a
    /// drain removes. Otherwise the log could fill up, and a write would have to wait for a drain.
    pub(in crate::store::file) fn pace(&self) {
        let delay = self.delay();
        if !delay.is_zero() {
            points::sleep(delay);
        }
    }

    fn delay(&self) -> Duration {
        const MAX: Duration = Duration::from_millis(100);
        const FREE_BELOW: f64 = 0.6;
        /// Multiples of the time that a drain of the last batch takes.
        const WHILE_EMPTYING: f64 = 3.0;
        const WHILE_FILLING: f64 = 1.1;
        const INCREASE: f64 = 4.0;
        let Some(ring) = self.ring() else { return Duration::ZERO };
        let fill = ring.used() as f64 / ring.size() as f64;
        let times = match self.is_emptying.load(Ordering::SeqCst) {
            true => WHILE_EMPTYING,
            false if fill > FREE_BELOW => WHILE_FILLING + INCREASE * (fill - FREE_BELOW),
            false => return Duration::ZERO,
        };
        let Some((last, bytes)) = points::lock(&self.mode).last_batch else { return Duration::ZERO };
        let wanted = self.drains_in(bytes as u64).mul_f64(times);
        wanted.saturating_sub(points::now() - last).min(MAX)
    }

    /// The estimated duration of a drain of this many bytes.
    pub(super) fn drains_in(&self, bytes: u64) -> Duration {
        Duration::from_nanos(self.drain_cost.load(Ordering::Relaxed).saturating_mul(bytes) / 1024)
    }

    /// Drains the log, and then writes to the data file. Later batches in the log are newer.
    fn write_directly(&self, ring: &Arc<Ring>, writes: &[&Write]) -> Vec<Result<u64>> {
        let drained = self.drain_all(ring);
        if let Err(error) = drained {
            return writes.iter().map(|_| Err(error.clone())).collect();
        }
        let outcomes = write_all(&self.environment, writes);
        match self.seed_next() {
            Ok(()) => outcomes,
            // Otherwise the log could assign the same `created` twice.
            Err(_) => {
                ring.mark_failed();
                outcomes
            }
        }
    }

    /// Continues the creation numbers where the data file is.
    pub(super) fn seed_next(&self) -> Result<()> {
        let view = self.environment.read()?;
        let next = view.tables().next(&view).map_err(|error| self.environment.failed(error))?;
        self.next.fetch_max(next, Ordering::SeqCst);
        Ok(())
    }

    /// Clears the tables and skips the log in one commit. Then clears the overlay.
    fn clear(&self, ring: &Arc<Ring>) -> Result<u64> {
        let mut base = points::lock(&self.base);
        let end = ring.entered();
        let held = self.held_for_event();
        points::reach(Point::BeforeClear);
        let cleared = catch_unwind(AssertUnwindSafe(|| {
            self.environment.commit_with_log(&[&Write::Clear], Some(&ring.entry(end)))
        }));
        let cleared = cleared.unwrap_or(Err(PANICKED));
        points::reach(Point::AfterClear);
        match cleared {
            Ok(mut outcomes) => {
                self.clear_overlay(ring, end);
                outcomes.swap_remove(0).map(|in_file| held.unwrap_or(in_file))
            }
            Err(error) => {
                // The commit may still be on disk.
                base.uncertain_clear = Some(end);
                *self.environment.log.lock() = KnownLog::Uncertain;
                Err(error)
            }
        }
    }

    /// The number of sessions that a `clear` ends, if anybody listens. The tables alone do not contain logged
    /// sessions.
    fn held_for_event(&self) -> Option<u64> {
        let is_wanted = self.environment.events.wants(ENDS) && !self.overlay().is_uncertain();
        if is_wanted { self.environment.stats().ok()?.sessions } else { None }
    }

    /// Clears the overlay after a `clear`.
    pub(super) fn clear_overlay(&self, ring: &Ring, end: super::format::Position) {
        self.overlay().gate().clear();
        ring.apply(end);
    }
}

/// The result of deciding the first writes of a batch.
#[derive(Default)]
struct DecidedBatch {
    outcomes: Vec<Result<u64>>,
    records: Option<super::format::BatchWriter>,
    next: u64,
    counted: CounterDelta,
    ended: Ends,
}
