//! The time: by the store's clock, and by the servers'.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, Millis, SystemClock};
use crate::lifetime::Lifetime;
use crate::session::Expiry;

/// The index of a user is kept for whole hours from 37 minutes after the creation of a session on, until one is after the
/// session's expiry. Scripts know both numbers too. A session of a usual lifetime, such as 30 minutes or a day, is then in
/// the midst of an hour: it is touched for a while before the index has to be kept longer.
const HOUR: Millis = 3_600_000;
const HOURS_FROM: Millis = 37 * 60_000;

/// How much longer the index is kept, so that what moves by some milliseconds does not matter.
const INDEX_SLACK: Millis = 60_000;

/// As long as an index is kept if the servers do not know the store's clock: up to the year 9999.
const END_OF_TIME: Millis = 253_402_300_799_999;

/// When a session was created, in microseconds since the Unix epoch by the servers' clock: its age, and what tells it from
/// another of its id.
pub type Stamp = u64;

#[derive(Clone)]
pub struct Times {
    pub clock: Arc<dyn Clock>,
    /// For a clock that is not the servers': how long these keep each session, whatever its expiry. Then the store
    /// removes what has expired itself.
    pub kept_for: Option<Duration>,
    /// The microseconds of its stamps, by chance: two stores that create the same session in one millisecond are told apart.
    pub micros: u64,
    /// How long a session may live after its creation.
    pub lifetime: Lifetime,
    last_stamp: Arc<AtomicU64>,
    /// How far the servers' clock is ahead of the store's; `UNKNOWN` until one of them has said what time it is.
    server_offset: Arc<AtomicI64>,
    /// How far it is ahead of the time since `opened_at`. The store's clock may be set, and this one stands still while the
    /// machine sleeps: neither alone says what time it is by the servers' clock.
    steady_offset: Arc<AtomicI64>,
    opened_at: Instant,
}

const UNKNOWN: Millis = Millis::MIN;

/// Clocks that differ by less are in step.
const IN_STEP: Millis = 1000;

impl Times {
    pub fn new(clock: Arc<dyn Clock>, kept_for: Option<Duration>) -> Self {
        let server_offset = if kept_for.is_some() { 0 } else { UNKNOWN };
        Self {
            clock,
            kept_for,
            // So many may be created in the same millisecond before a stamp is one of the next millisecond.
            micros: RandomState::new().hash_one(0) % 500,
            lifetime: Lifetime::UNLIMITED,
            last_stamp: Arc::default(),
            server_offset: Arc::new(server_offset.into()),
            steady_offset: Arc::default(),
            opened_at: Instant::now(),
        }
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
        let since = (created / 1000) as Millis + HOURS_FROM;
        let hours = (expires.millis() - since).div_euclid(HOUR) + 1;
        // Before its time the server has none.
        (since + hours * HOUR + INDEX_SLACK).max(1)
    }

    pub fn knows_servers(&self) -> bool {
        self.server_offset.load(Ordering::Relaxed) != UNKNOWN
    }

    /// Takes the time that a server said, which was asked at `asked_at` and has just answered. `None` if it does not say:
    /// then its clock is taken to be in step.
    pub fn learn(&self, asked_at: Millis, server_time: Option<Millis>) {
        let is_known = self.knows_servers();
        if self.kept_for.is_some() || is_known && server_time.is_none() {
            return;
        }
        let known = self.offset();
        let offset = server_time.map_or(0, |server_time| server_time - (asked_at + self.now()) / 2);
        // What differs by less is the network's delay, too. The stamps of stores on one machine keep their order so.
        let offset = if (offset - known).abs() < IN_STEP { known } else { offset };
        self.steady_offset.store(self.now() + offset - self.steady(), Ordering::Relaxed);
        self.server_offset.store(offset, Ordering::Relaxed);
    }

    /// How far the servers' clock is ahead, as far as it is known.
    fn offset(&self) -> Millis {
        match self.server_offset.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            offset => offset,
        }
    }

    /// The time since the store was opened.
    fn steady(&self) -> Millis {
        self.opened_at.elapsed().as_millis() as Millis
    }

    /// The time by the servers' clock, as far as it is known: the earliest and the latest that it may be.
    fn servers_now(&self) -> (Millis, Millis) {
        let now = match self.server_offset.load(Ordering::Relaxed) {
            UNKNOWN => return (0, self.now()),
            offset => self.now() + offset,
        };
        if self.kept_for.is_some() {
            return (now, now);
        }
        let steady = self.steady() + self.steady_offset.load(Ordering::Relaxed);
        (now.min(steady), now.max(steady))
    }

    /// When a session ends by its lifetime, if not before.
    pub fn end(&self, expires: Expiry, created: Stamp) -> Expiry {
        self.lifetime.end(expires, self.created_at(created))
    }

    /// When a session was created, by the store's clock.
    pub fn created_at(&self, created: Stamp) -> Millis {
        (created / 1000) as Millis - self.offset()
    }

    /// What a script adds to the milliseconds of a creation to know when the session's lifetime ends.
    pub fn lifetime_of_stamp(&self) -> Option<Millis> {
        self.lifetime.is_limited().then(|| self.lifetime.last(0).saturating_sub(self.offset()))
    }

    /// The stamp of a session that was created at this time, if it is sent with this stamp. A time that is yet to come counts
    /// as the present.
    ///
    /// Its microseconds are of the whole stamp: a creation that is sent again is not to take one of the same time and session,
    /// which was sent a while before, for its own.
    pub fn stamp_at(&self, created: Millis, stamp: Stamp) -> Stamp {
        let created = created.saturating_add(self.offset()).clamp(0, (stamp / 1000) as Millis);
        created as Stamp * 1000 + (stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000
    }

    /// The oldest stamp of what is no older than this by the servers' clock. Until their time is known nothing is older.
    pub fn stamp_before(&self, age: Duration) -> Stamp {
        let (now, _) = self.servers_now();
        (now.max(0) as Stamp * 1000).saturating_sub(age.as_micros() as Stamp)
    }

    /// The stamp of a session that is created now: later than any before it.
    pub fn stamp(&self) -> Stamp {
        let (_, now) = self.servers_now();
        let now = now.max(0) as Stamp * 1000 + self.micros;
        let after = |before: Stamp| now.max(before + 1);
        let update = |before| Some(after(before));
        let before = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        after(before.unwrap_or_else(|before| before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MockClock;

    const MILLI: Duration = Duration::from_millis(1);

    /// Runs a test in simulated time.
    fn run(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test());
    }

    #[test]
    fn stamps_go_by_the_servers_clock_once_that_is_known() {
        run(async || {
            let clock = Arc::new(MockClock::new(1_000_000));
            let times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
            assert!(!times.knows_servers());
            // Nothing is known to be old.
            assert_eq!(times.stamp_before(MILLI), 0);
            for (server_time, now) in [
                // What may be the network's delay is none of the clocks'.
                (Some(1_000_900), 1_000_000),
                (Some(1_060_000), 1_060_000),
                (Some(1_060_999), 1_060_000),
                (Some(940_000), 940_000),
                // One that does not say makes no difference any more.
                (None, 940_000),
            ] {
                times.learn(1_000_000, server_time);
                assert!(times.knows_servers());
                assert_eq!(times.stamp_before(MILLI), (now - 1) as Stamp * 1000, "{server_time:?}");
            }
            let (first, second) = (times.stamp(), times.stamp());
            let micros = times.micros;
            assert_eq!((first, second), (940_000_000 + micros, 940_000_001 + micros));
        });
    }

    #[test]
    fn sessions_that_are_created_at_one_past_time_are_told_apart() {
        run(async || {
            let clock = Arc::new(MockClock::new(2_000_000));
            let times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
            let stamps: std::collections::HashSet<_> = (0..100)
                .map(|_| {
                    clock.advance(10);
                    let stamp = times.stamp();
                    assert_eq!(times.stamp_at(1_000_000, stamp), times.stamp_at(1_000_000, stamp));
                    times.stamp_at(1_000_000, stamp)
                })
                .collect();
            assert!(stamps.iter().all(|stamp| stamp / 1000 == 1_000_000));
            // Of a thousand microseconds two may get the same by chance.
            assert!(stamps.len() > 80, "{}", stamps.len());
        });
    }

    #[test]
    fn servers_that_do_not_say_their_time_are_taken_to_be_in_step() {
        run(async || {
            let times = Times::new(Arc::new(MockClock::new(1_000_000)), None);
            times.learn(1_000_000, None);
            assert_eq!((times.stamp_before(MILLI), times.stamp() / 1000), (999_999_000, 1_000_000));
        });
    }

    #[test]
    fn nothing_ages_by_a_clock_that_is_set_nor_gets_younger_while_the_machine_sleeps() {
        run(async || {
            let (clock, minute) = (Arc::new(MockClock::new(1_000_000)), Duration::from_secs(60));
            let times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
            times.learn(1_000_000, Some(1_000_000));
            let created = times.stamp();
            let pass = async |millis: u64| {
                clock.advance(millis as i64);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            };
            pass(10_000).await;
            // The clock is set, or this was sleep. Creations of now are not old for other machines in either case.
            clock.advance(600_000);
            assert!(created > times.stamp_before(minute));
            assert_eq!(times.stamp() / 1000, 1_610_000);
            pass(49_000).await;
            assert!(created > times.stamp_before(minute));
            pass(2000).await;
            assert!(created < times.stamp_before(minute));
            // It is set back.
            clock.advance(-900_000);
            assert!(times.stamp_before(minute) < created);
            assert!(times.stamp() > created + 600_000_000);
            // The server says which it was.
            times.learn(clock.now(), Some(1_061_000));
            assert!(created < times.stamp_before(minute));
        });
    }

    #[test]
    fn servers_that_do_not_know_the_stores_clock_have_no_say() {
        let times = Times::new(Arc::new(MockClock::new(1_000_000)), Some(Duration::from_secs(1)));
        times.learn(1_000_000, Some(5_000_000));
        assert!(times.knows_servers());
        assert_eq!(times.stamp() / 1000, 1_000_000);
    }
}
