//! The counters behind `stats`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::events::{Bus, ENDS, Event, Reason, SWEEPS};
use crate::session::{SessionId, UserKeyBuf};
use crate::store::{Stats, Sweep};

#[derive(Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub created: AtomicU64,
    pub expired: AtomicU64,
    pub evicted: AtomicU64,
    /// How often the worker has ended sessions that the call did not name: all sessions, those of a user, or those
    /// over a limit.
    pub mass_ends: AtomicU64,
    pub last_sweep: Mutex<Option<Sweep>>,
    /// The error of the last background sweep, if it failed.
    pub sweep_error: Mutex<Option<String>>,
    pub events: Arc<Bus>,
}

impl Counters {
    pub fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    /// Records that a session was deleted by its id. `user` finds its user.
    pub fn deleted(&self, id: &SessionId, user: impl FnOnce() -> Option<UserKeyBuf>) {
        let deleted = || Event::Ended { reason: Reason::Deleted, id: id.clone(), user: user() };
        self.events.publish(ENDS, deleted);
    }

    /// Records that a session ended because its user had too many.
    pub fn replaced(&self) {
        Self::add(&self.evicted, 1);
        self.events.publish_unnamed(Reason::Replaced, 1);
    }

    pub fn swept(&self, sweep: Sweep) {
        let Sweep { at, duration, removed } = sweep;
        Self::add(&self.expired, removed);
        *self.last_sweep.lock() = Some(sweep);
        self.events.publish_unnamed(Reason::Expired, removed);
        self.events.publish(SWEEPS, || Event::Swept { at, duration, removed });
    }

    pub fn set_sweep_error(&self, error: Option<String>) {
        if let Some(error) = &error {
            self.events.publish(SWEEPS, || Event::SweepFailed(error.clone()));
        }
        *self.sweep_error.lock() = error;
    }

    pub fn stats(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sessions: None,
            bytes: None,
            hits: load(&self.hits),
            misses: load(&self.misses),
            created: load(&self.created),
            expired: load(&self.expired),
            evicted: load(&self.evicted),
            last_sweep: *self.last_sweep.lock(),
            log: None,
        }
    }

    pub fn looked_up(&self, found: bool) {
        Self::add(if found { &self.hits } else { &self.misses }, 1);
    }
}
