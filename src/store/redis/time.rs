//! The time: by the store's clock, and by the servers'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Millis, SystemClock};
use crate::session::Expiry;

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

    /// The stamp of a session that is created now: later than any before it.
    pub fn stamp(&self) -> Stamp {
        let now = self.now().max(0) as Stamp * 1000;
        let after = |before: Stamp| now.max(before + 1);
        let update = |before| Some(after(before));
        let before = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        after(before.unwrap_or_else(|before| before))
    }
}
