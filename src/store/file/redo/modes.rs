//! Starts, ends and recovers the log, and shares the store with other processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::quality::RandomState;
use parking_lot::MutexGuard;

use super::drain::Part;
use super::engine::{Base, FIRST_PAUSE, Mode, ModeState, Redo};
use super::format::{LogEntry, Position};
use super::overlay::{OverlayEntry, RowKey, RowState};
use super::points::{self, Point};
use super::ring::{NextFile, Ring};
use crate::error::{Result, StoreError};
use crate::store::file::apply::Write;
use crate::store::file::environment::KnownLog;
use crate::store::file::errors::io_failed;
use crate::store::file::owner_lock::Feature;
use crate::store::file::rows::IndexEntries;

/// The maximum time without a new log after the store was shared or the log has failed.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often a process that shares the store tries to get exclusive access.
const SHARED_PAUSE: Duration = Duration::from_secs(1);

impl Redo {
    /// Starts with a store that was just opened. Recovers the log that the data file names. If there must be no log,
    /// shares the store.
    ///
    /// # Errors
    /// `Damaged` if the log is missing or incomplete. Those of a commit, if the log cannot be written. Nothing was
    /// changed in either case.
    pub(in crate::store::file) fn recover_or_share(&self, log: Option<&LogEntry>) -> Result<()> {
        if let Some(log) = log {
            self.recover(log)?;
            // The previous process may have died before it could end the log for an older version.
            if self.environment.may_have_old_version(Feature::Log) {
                let mut state = points::lock(&self.mode);
                self.end_log(&mut points::lock(&self.base))?;
                postpone_log(&mut state);
            }
        }
        if self.sizes.max == 0 && self.is_exclusive.load(Ordering::SeqCst) { self.share() } else { Ok(()) }
    }

    fn recover(&self, entry: &LogEntry) -> Result<()> {
        let mut newest: HashMap<RowKey, (RowState, u64), RandomState> = HashMap::default();
        let recovered = Ring::recover(&*self.files, entry, |lsn, key, row| {
            newest.insert(key.into(), (row.map(Into::into), lsn));
        })?;
        // Before any append, because the log is only valid if the data file still names it after a power loss.
        self.environment.make_durable()?;
        self.next.store(recovered.next, Ordering::SeqCst);
        self.seed_next()?;
        if !newest.is_empty() {
            self.overlay().mark_uncertain();
        }
        {
            let mut gate = self.overlay().gate();
            for (key, (row, lsn)) in newest {
                let indexed = row.as_deref().map(|row| IndexEntries::of(row, &self.environment.encryption));
                let user = indexed.and_then(|indexed| indexed.user);
                gate.recover(key, OverlayEntry { row, user, lsn, in_base: false });
            }
        }
        let mut state = points::lock(&self.mode);
        state.next_size = recovered.ring.size();
        *self.log.lock() = Some(Arc::new(recovered.ring));
        // In case the log could not be rewritten.
        self.resolve_log(&mut state)
    }

    /// Ends a failed log, and finds out which log the store has if that is uncertain.
    ///
    /// # Errors
    /// Those of a commit. After an error, nothing may be written.
    pub(super) fn resolve_log(&self, state: &mut ModeState) -> Result<()> {
        if !self.must_resolve_log() {
            return Ok(());
        }
        let has_failed = self.ring().is_some_and(|ring| ring.has_failed());
        self.end_log(&mut points::lock(&self.base))?;
        if has_failed {
            state.next_file = NextFile::New;
        }
        postpone_log(state);
        Ok(())
    }

    /// Whether the log has failed, or it is uncertain which log the store has.
    pub(super) fn must_resolve_log(&self) -> bool {
        self.ring().is_some_and(|ring| ring.has_failed())
            || *self.environment.log.lock() == KnownLog::Uncertain
    }

    /// Gets exclusive access if no other process has the store open. Starts a log if there are sessions to write.
    pub(super) fn adjust_mode(&self, state: &mut ModeState, writes: &[&Write]) {
        let (Some(lock), true) = (&self.environment.mode_lock, self.sizes.max > 0) else { return };
        let is_early = || state.not_before.is_some_and(|moment| points::now() < moment);
        if is_early() || self.is_closing.load(Ordering::SeqCst) {
            return;
        }
        if let Mode::Shared = state.mode {
            if !lock.try_exclusive().unwrap_or(false) {
                state.not_before = Some(points::now() + SHARED_PAUSE);
                return;
            }
            if lock.is_requested().unwrap_or(true) {
                let _ = lock.try_shared();
                return postpone_log(state);
            }
            state.mode = Mode::Exclusive;
            self.is_exclusive.store(true, Ordering::SeqCst);
            points::reach(Point::Exclusive);
        }
        let is_wanted = writes.iter().any(|write| write.affects_sessions());
        if is_wanted && self.ring().is_none() && !matches!(self.begin_log(state), Ok(true)) {
            postpone_log(state);
        }
    }

    /// Starts a log. Returns `false` if there is none afterwards.
    fn begin_log(&self, state: &mut ModeState) -> Result<bool> {
        let mut base = points::lock(&self.base);
        let environment = &self.environment;
        let usage = environment.usage_now()?;
        if !environment.quota.is_ample(usage, state.next_size / 4) {
            return Ok(false);
        }
        // The data file on disk may still name an earlier log in the same file.
        environment.make_durable()?;
        // If this fails, the prepared file may already have the name of the log.
        let file = state.next_file;
        if file == NextFile::Prepared {
            state.next_file = NextFile::New;
        }
        let ring = Ring::begin(&*self.files, points::random()?, state.next_size, file)?;
        points::reach(Point::LogCreated);
        let entry = ring.entry(Position::default());
        let begun = environment.change(|rows| {
            rows.tables.set_log(&mut rows.txn, Some(&entry))?;
            rows.has_changed = true;
            Ok(())
        });
        *environment.log.lock() = match &begun {
            Ok(()) => KnownLog::Log(ring.id),
            Err(_) => KnownLog::Uncertain,
        };
        begun?;
        points::reach(Point::LogBegun);
        state.next_file = NextFile::Old;
        state.next_size = ring.size();
        *self.log.lock() = Some(Arc::new(ring));
        // Last: a process of an older version registers in the lock file before it reads the format, and rejects the
        // format with a log.
        if environment.may_have_old_version(Feature::Log) || self.seed_next().is_err() {
            self.end_log(&mut base)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Drains the log and ends it with a commit. After that commit, the log is never read again.
    pub(super) fn end_log(&self, base: &mut Base) -> Result<()> {
        let environment = &self.environment;
        if *environment.log.lock() == KnownLog::Uncertain {
            let found = environment.change(|rows| Ok(rows.tables.log(&rows.txn)?))?;
            self.record_known_log(base, found);
        }
        if let Some(ring) = self.ring() {
            self.drain_under(base, &ring, Part::All)?;
        }
        points::reach(Point::BeforeLogEnd);
        let next = self.next.load(Ordering::SeqCst);
        if *environment.log.lock() != KnownLog::None {
            let ended = environment.change(|rows| {
                rows.tables.set_log(&mut rows.txn, None)?;
                rows.tables.set_next(&mut rows.txn, next)?;
                rows.has_changed = true;
                Ok(())
            });
            if ended.is_ok() {
                *environment.log.lock() = KnownLog::None;
            } else {
                *environment.log.lock() = KnownLog::Uncertain;
            }
            ended?;
        }
        points::reach(Point::AfterLogEnd);
        *self.log.lock() = None;
        Ok(())
    }

    /// Records which log the data file names after a commit with unknown outcome.
    fn record_known_log(&self, base: &mut Base, found: Option<LogEntry>) {
        if let (Some(end), Some(ring), Some(found)) = (base.uncertain_clear, self.ring(), &found)
            && found.id == ring.id
            && found.applied == end
        {
            self.clear_overlay(&ring, end);
        }
        base.uncertain_clear = None;
        *self.environment.log.lock() = found.map_or(KnownLog::None, |found| KnownLog::Log(found.id));
    }

    /// Ends the log and shares the store. Writes continue until little is left to drain.
    pub(super) fn share(&self) -> Result<()> {
        self.drain_most()?;
        let mut state = points::lock(&self.mode);
        self.end_log(&mut points::lock(&self.base))?;
        let Some(lock) = &self.environment.mode_lock else { return Ok(()) };
        let is_shared = lock.try_shared().unwrap_or(false);
        if !is_shared {
            return Err(StoreError::Internal("the lock could not be shared".into()));
        }
        self.is_exclusive.store(false, Ordering::SeqCst);
        state.mode = Mode::Shared;
        postpone_log(&mut state);
        points::reach(Point::Shared);
        Ok(())
    }

    /// Continues with a larger log, whose file is already prepared.
    pub(super) fn grow(&self, size: u64) -> Result<()> {
        self.drain_most()?;
        let mut state = points::lock(&self.mode);
        self.end_log(&mut points::lock(&self.base))?;
        state.next_size = size;
        state.next_file = NextFile::Prepared;
        if !self.begin_log(&mut state)? {
            postpone_log(&mut state);
        }
        Ok(())
    }

    /// Reads the log, and returns its problem, if there is one.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::store::file) fn verify(&self) -> Result<Option<String>> {
        // Prevents drains, which would allow overwriting parts of the log.
        let _base = points::lock(&self.base);
        let Some(ring) = self.ring().filter(|ring| !ring.has_failed()) else { return Ok(None) };
        let path = self.files.path();
        let found = ring.verify().map_err(|error| io_failed(&path.display(), "reading", &error))?;
        Ok(found.map(|problem| format!("{}: {problem}", path.display())))
    }

    /// Ends the log and calls `copy`. No write runs before `copy` returns, so its copy needs no log.
    pub(in crate::store::file) fn without_log<T>(
        &self,
        copy: impl FnOnce(Paused<'_>) -> Result<T>,
    ) -> Result<T> {
        let state = points::lock(&self.mode);
        self.end_log(&mut points::lock(&self.base))?;
        copy(Paused(state))
    }

    /// Stops all writes to the log, because the files are no longer at the store's path. Another store may open them
    /// in their new place and recover the log. Returns whether the batch in progress has ended by the deadline.
    pub(in crate::store::file) fn abandon(&self, deadline: std::time::Instant) -> bool {
        let Some(_state) = self.mode.try_lock_until(deadline) else { return false };
        if let Some(ring) = self.ring() {
            ring.mark_failed();
        }
        self.is_exclusive.store(false, Ordering::SeqCst);
        true
    }

    /// Ends the log before the store is closed. If draining takes too long, the next process recovers the log.
    pub(in crate::store::file) fn close(&self) {
        const LONG: Duration = Duration::from_secs(2);
        let _state = points::lock(&self.mode);
        let mut base = points::lock(&self.base);
        let Some(ring) = self.ring() else { return };
        let is_long = points::limit(self.drains_in(ring.used()) > LONG, ring.used() > 4 << 10);
        if is_long && !ring.has_failed() && (ring.durable() >= ring.written() || ring.sync().is_ok()) {
            return;
        }
        // If this fails, the log remains on disk, as after a kill.
        if self.end_log(&mut base).is_err() && !ring.has_failed() {
            let _ = ring.sync();
        }
    }
}

/// As long as this exists, no write runs.
pub(in crate::store::file) struct Paused<'r>(
    #[allow(dead_code, reason = "it is held")] MutexGuard<'r, ModeState>,
);

/// Prevents a new log for a while.
fn postpone_log(state: &mut ModeState) {
    let now = points::now();
    let was_lately = state.not_before.is_some_and(|moment| now < moment + MAX_PAUSE);
    state.pause = if was_lately { (2 * state.pause).min(MAX_PAUSE) } else { FIRST_PAUSE };
    state.not_before = Some(now + state.pause);
}
