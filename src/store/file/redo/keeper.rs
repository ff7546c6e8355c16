//! The thread that looks after the log. It drains the log, ends it after a failure, and shares the store with other
//! processes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::drain::Part;
use super::engine::Redo;
use super::format::FILE_HEADER_BYTES;
use super::points;
use super::ring::Ring;
use crate::store::file::environment::KnownLog;

/// How often the thread checks for requests of other processes, which wait for about that long.
const INTERVAL: Duration = Duration::from_millis(20);
/// The maximum age of rows in a log that is not filling up.
const MAX_AGE: Duration = Duration::from_secs(30);
/// The pause between two transactions of a drain that is not urgent.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// The pause after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause after there was no room for a larger log.
const GROWTH_PAUSE: Duration = Duration::from_secs(60);
/// The factor by which a log grows.
const GROWTH: u64 = 4;

/// The state of the thread.
#[derive(Default)]
pub(in crate::store::file) struct Keeper {
    /// When the log got its first row since it was empty.
    filled_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// Until this time the log does not grow, because there was no room for a larger one.
    grows_at: Option<Instant>,
}

impl Redo {
    /// Starts the thread.
    pub(in crate::store::file) fn spawn_keeper(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let redo = Arc::clone(self);
        thread::Builder::new().name("session-log".into()).spawn(move || {
            let mut keeper = Keeper::default();
            while !redo.is_closing.load(Ordering::SeqCst) {
                // After a panic, this process must still share the store.
                let _ = catch_unwind(AssertUnwindSafe(|| redo.run_due_work(&mut keeper, Instant::now())));
                let mut is_awake = redo.is_awake.lock();
                if !std::mem::take(&mut *is_awake) && !redo.is_closing.load(Ordering::SeqCst) {
                    redo.wake.wait_for(&mut is_awake, INTERVAL);
                }
                *is_awake = false;
            }
        })
    }

    /// Wakes the thread to check now.
    pub(super) fn wake(&self) {
        *self.is_awake.lock() = true;
        self.wake.notify_one();
    }

    /// Stops the thread, and prevents new logs.
    pub(in crate::store::file) fn stop(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Does the work that is due at this time.
    pub(in crate::store::file) fn run_due_work(&self, keeper: &mut Keeper, now: Instant) {
        self.environment.wake_writer();
        let Some(lock) = &self.environment.mode_lock else { return };
        if !self.is_exclusive.load(Ordering::SeqCst) || keeper.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let is_uncertain = *self.environment.log.lock() == KnownLog::Uncertain;
        let done = if lock.is_requested().unwrap_or(false) {
            keeper.filled_since = None;
            self.share()
        } else if is_uncertain {
            self.resolve_log(&mut points::lock(&self.mode))
        } else {
            self.ring().map_or(Ok(()), |ring| self.keep_log(keeper, &ring, now))
        };
        keeper.retry_at = done.is_err().then(|| now + RETRY_PAUSE);
    }

    fn keep_log(&self, keeper: &mut Keeper, ring: &Arc<Ring>, now: Instant) -> crate::error::Result<()> {
        if self.must_resolve_log() {
            // Now, because there may never be another write.
            return self.resolve_log(&mut points::lock(&self.mode));
        }
        let used = ring.used();
        if used == 0 {
            keeper.filled_since = None;
            return Ok(());
        }
        let since = *keeper.filled_since.get_or_insert(now);
        let is_pressed = used > ring.size() / 2;
        if is_pressed || now >= since + MAX_AGE {
            keeper.filled_since = None;
            match is_pressed {
                true => self.pass(ring, Part::Oldest, Duration::ZERO)?,
                false => self.pass(ring, Part::All, DRAIN_PAUSE)?,
            }
            let may_grow = ring.size() < self.sizes.max && keeper.grows_at.is_none_or(|at| now >= at);
            if is_pressed && may_grow {
                let size = (GROWTH * ring.size()).min(self.sizes.max);
                match self.files.prepare(size + FILE_HEADER_BYTES) {
                    Ok(()) => self.grow(size)?,
                    // The log keeps its size.
                    Err(_) => keeper.grows_at = Some(now + GROWTH_PAUSE),
                }
            }
        }
        Ok(())
    }
}
