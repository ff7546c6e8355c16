//! The time: by the store's clock, and by the servers'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Millis, SystemClock};
use crate::session::Expiry;

/// For how long the index of a user is kept from the creation of a session on: for so many milliseconds, or 2, 4, 8, …
/// times as long, until that is after the session's expiry. Scripts know it too.
const INDEX_SPAN: Millis = 86_400_000;

/// How much longer the index is kept, so that what moves by some milliseconds does not matter.
const INDEX_SLACK: Millis = 60_000;

/// As long as an index is kept if the servers do not know the store's clock: up to the year 9999.
const END_OF_TIME: Millis = 253_402_300_799_999;

/// When a session was created, in microseconds since the Unix epoch: its age, and what tells it from another of its id.
pub type Stamp = u64;

#[derive(Clone)]
pub struct Times {
    pub clock: Arc<dyn Clock>,
    /// For a clock that is not the servers': how long these keep each session, whatever its expiry. Then the store
    /// removes what has expired itself.
    pub kept_for: Option<Duration>,
    last_stamp: Arc<AtomicU64>,
}

impl Times {
    pub fn new(clock: Arc<dyn Clock>, kept_for: Option<Duration>) -> Self {
        Self { clock, kept_for, last_stamp: Arc::default() }
    }

    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// When the server is to end a session.
    pub fn server_time(&self, expires: Expiry) -> Millis {
        match self.kept_for {
            // Before its time there is none.
            None => expires.millis().max(1),
            Some(kept_for) => SystemClock.now() + kept_for.as_millis() as Millis,
        }
    }

    /// Until when at least the index of a session's user has to be kept.
    pub fn index_end(&self, created: Stamp, expires: Expiry) -> Millis {
        if self.kept_for.is_some() {
            return END_OF_TIME;
        }
        let created = (created / 1000) as Millis;
        let mut span = INDEX_SPAN;
        while created.saturating_add(span) < expires.millis() {
            span *= 2;
        }
        created.saturating_add(span + INDEX_SLACK)
    }

    /// The stamp of a session that is created now: later than any before it.
    pub fn stamp(&self) -> Stamp {
        let now = self.now().max(0) as Stamp * 1000;
        let after = |before: Stamp| now.max(before + 1);
        let update = |before| Some(after(before));
        let before = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        after(before.unwrap_or_else(|before| before))
    }
}
