//! The time by the store's clock, and by the servers' clock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, Millis, SystemClock};
use crate::lifetime::Lifetime;
use crate::session::Expiry;

/// A user index is kept until a full hour, counted from 37 minutes after the creation of a session, that is after the
/// session's expiry. The scripts contain both numbers. With the offset, a session of a usual lifetime, such as 30
/// minutes or a day, ends in the middle of such an hour. So touches can prolong the session for a while before they
/// must prolong the index.
const HOUR: Millis = 3_600_000;
const HOURS_FROM: Millis = 37 * 60_000;

/// Added to the end of an index, so that rounding of a few milliseconds does no harm.
const INDEX_SLACK: Millis = 60_000;

/// The end of an index if the servers do not share the store's clock: the end of the year 9999.
const END_OF_TIME: Millis = 253_402_300_799_999;

/// The creation time of a session in microseconds since the Unix epoch, by the servers' clock. It also identifies one
/// creation among all creations of the same id.
pub type Stamp = u64;

#[derive(Clone)]
pub struct Times {
    pub clock: Arc<dyn Clock>,
    /// Set if the servers do not share the store's clock. The servers then keep each session this long, whatever its
    /// expiry, and the store itself removes expired sessions.
    pub kept_for: Option<Duration>,
    /// A random number of microseconds, added to each stamp. It distinguishes two stores that create the same session
    /// in one millisecond.
    pub micros: u64,
    /// The maximum lifetime of a session after its creation.
    pub lifetime: Lifetime,
    last_stamp: Arc<AtomicU64>,
    /// How far the servers' clock is ahead of the store's clock. `UNKNOWN` until a server has reported its time.
    server_offset: Arc<AtomicI64>,
    /// How far the servers' clock is ahead of the time since `opened_at`. The store's clock may be set, and this one
    /// stops while the machine is suspended. So neither alone gives the servers' time.
    steady_offset: Arc<AtomicI64>,
    opened_at: Instant,
}

const UNKNOWN: Millis = Millis::MIN;

/// The bound of [`Times::micros`]. At least 500 sessions can be created in one millisecond before a stamp falls into the next
/// one.
const MAX_FIRST_MICROS: u64 = 500;

/// [`Times::micros`] of a new store: random in each process, and another one for each of its stores.
fn first_micros() -> u64 {
    static RANDOM: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0) % MAX_FIRST_MICROS);
    static STORES: AtomicU64 = AtomicU64::new(0);
    // Far apart, because each further session of a millisecond takes the next microsecond.
    const DISTANCE: u64 = 101;
    let store = STORES.fetch_add(1, Ordering::Relaxed) % MAX_FIRST_MICROS;
    (*RANDOM + store * DISTANCE) % MAX_FIRST_MICROS
}

/// A smaller difference between two clocks is ignored.
const IN_STEP: Millis = 1000;

impl Times {
    pub fn new(clock: Arc<dyn Clock>, kept_for: Option<Duration>) -> Self {
        let server_offset = if kept_for.is_some() { 0 } else { UNKNOWN };
        Self {
            clock,
            kept_for,
            micros: first_micros(),
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

    /// When the server expires a session.
    pub fn server_time(&self, expires: Expiry) -> Millis {
        match self.kept_for {
            // The server accepts no earlier time.
            None => expires.millis().max(1),
            Some(kept_for) => SystemClock.now() + kept_for.as_millis() as Millis,
        }
    }

    /// The least time until which the index of a session's user must be kept.
    pub fn index_end(&self, created: Stamp, expires: Expiry) -> Millis {
        if self.kept_for.is_some() {
            return END_OF_TIME;
        }
        let since = (created / 1000) as Millis + HOURS_FROM;
        let hours = (expires.millis() - since).div_euclid(HOUR) + 1;
        // The server accepts no earlier time.
        (since + hours * HOUR + INDEX_SLACK).max(1)
    }

    pub fn knows_server_time(&self) -> bool {
        self.server_offset.load(Ordering::Relaxed) != UNKNOWN
    }

    /// Records the time that a server has reported in response to a request of `asked_at`. `None` means that the
    /// server does not report it: its clock is then taken to agree with the store's.
    pub fn record_server_time(&self, asked_at: Millis, server_time: Option<Millis>) {
        let is_known = self.knows_server_time();
        if self.kept_for.is_some() || is_known && server_time.is_none() {
            return;
        }
        let known = self.offset();
        let offset = server_time.map_or(0, |server_time| server_time - (asked_at + self.now()) / 2);
        // A smaller difference may be network delay. If it is ignored, the stamps of stores on one machine keep their
        // order.
        let offset = if (offset - known).abs() < IN_STEP { known } else { offset };
        self.steady_offset.store(self.now() + offset - self.steady(), Ordering::Relaxed);
        self.server_offset.store(offset, Ordering::Relaxed);
    }

    /// How far the servers' clock is ahead of the store's, or 0 if that is unknown.
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

    /// The earliest and the latest time that the servers' clock may show now.
    fn server_now_bounds(&self) -> (Millis, Millis) {
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

    /// When a session ends: at its expiry, or earlier by its maximum lifetime.
    pub fn end(&self, expires: Expiry, created: Stamp) -> Expiry {
        self.lifetime.end(expires, self.created_at(created))
    }

    /// Whether a session of this creation has ended by its maximum lifetime.
    pub fn is_outlived(&self, created: Stamp) -> bool {
        self.lifetime.last(self.created_at(created)) <= self.now()
    }

    /// The creation time by the store's clock.
    pub fn created_at(&self, created: Stamp) -> Millis {
        (created / 1000) as Millis - self.offset()
    }

    /// The number of milliseconds that a script adds to a session's creation to get the end of its lifetime.
    pub fn lifetime_of_stamp(&self) -> Option<Millis> {
        self.lifetime.is_limited().then(|| self.lifetime.last(0).saturating_sub(self.offset()))
    }

    /// The stamp of a session that was created at `created`, in a request with the stamp `stamp`. A creation time in
    /// the future counts as now.
    ///
    /// The microseconds are a hash of the whole stamp. So a creation that is sent again does not mistake another one
    /// with the same time and session, sent earlier, for itself.
    pub fn stamp_at(&self, created: Millis, stamp: Stamp) -> Stamp {
        let created = created.saturating_add(self.offset()).clamp(0, (stamp / 1000) as Millis);
        created as Stamp * 1000 + (stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000
    }

    /// The lowest stamp that is at most `age` old by the servers' clock. While their time is unknown, no stamp counts
    /// as old.
    pub fn stamp_before(&self, age: Duration) -> Stamp {
        let (now, _) = self.server_now_bounds();
        (now.max(0) as Stamp * 1000).saturating_sub(age.as_micros() as Stamp)
    }

    /// A stamp for a session created now. It is higher than all stamps before.
    pub fn stamp(&self) -> Stamp {
        let (_, now) = self.server_now_bounds();
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
    fn stamps_follow_the_servers_clock() {
        run(async || {
            let clock = Arc::new(MockClock::new(1_000_000));
            let times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
            assert!(!times.knows_server_time());
            // No stamp is known to be old.
            assert_eq!(times.stamp_before(MILLI), 0);
            for (server_time, now) in [
                // A difference that may be network delay does not count.
                (Some(1_000_900), 1_000_000),
                (Some(1_060_000), 1_060_000),
                (Some(1_060_999), 1_060_000),
                (Some(940_000), 940_000),
                // A server that does not report its time changes nothing.
                (None, 940_000),
            ] {
                times.record_server_time(1_000_000, server_time);
                assert!(times.knows_server_time());
                assert_eq!(times.stamp_before(MILLI), (now - 1) as Stamp * 1000, "{server_time:?}");
            }
            let (first, second) = (times.stamp(), times.stamp());
            let micros = times.micros;
            assert_eq!((first, second), (940_000_000 + micros, 940_000_001 + micros));
        });
    }

    /// Two stores that create a session of the same id in one millisecond must be able to tell them apart.
    #[test]
    fn the_stores_of_a_process_have_different_stamps() {
        run(async || {
            let open = || Times::new(Arc::new(MockClock::new(1_000_000)), None).micros;
            let (first, second) = (open(), open());
            assert!(first != second && first.max(second) < MAX_FIRST_MICROS, "{first} {second}");
        });
    }

    #[test]
    fn sessions_with_the_same_creation_time_have_different_stamps() {
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
            // There are only a thousand microseconds, so two stamps may be equal by chance.
            assert!(stamps.len() > 80, "{}", stamps.len());
        });
    }

    #[test]
    fn without_a_reported_time_the_servers_clock_is_taken_to_agree() {
        run(async || {
            let times = Times::new(Arc::new(MockClock::new(1_000_000)), None);
            times.record_server_time(1_000_000, None);
            assert_eq!((times.stamp_before(MILLI), times.stamp() / 1000), (999_999_000, 1_000_000));
        });
    }

    #[test]
    fn ages_are_right_when_the_clock_is_set_or_the_machine_is_suspended() {
        run(async || {
            let (clock, minute) = (Arc::new(MockClock::new(1_000_000)), Duration::from_secs(60));
            let times = Times::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
            times.record_server_time(1_000_000, Some(1_000_000));
            let created = times.stamp();
            let pass = async |millis: u64| {
                clock.advance(millis as i64);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            };
            pass(10_000).await;
            // The clock was set, or the machine was suspended. In neither case may new entries count as old for other
            // machines.
            clock.advance(600_000);
            assert!(created > times.stamp_before(minute));
            assert_eq!(times.stamp() / 1000, 1_610_000);
            pass(49_000).await;
            assert!(created > times.stamp_before(minute));
            pass(2000).await;
            assert!(created < times.stamp_before(minute));
            // The clock is set back.
            clock.advance(-900_000);
            assert!(times.stamp_before(minute) < created);
            assert!(times.stamp() > created + 600_000_000);
            // The server's time shows which of the two happened.
            times.record_server_time(clock.now(), Some(1_061_000));
            assert!(created < times.stamp_before(minute));
        });
    }

    #[test]
    fn servers_that_do_not_share_the_clock_are_ignored() {
        let times = Times::new(Arc::new(MockClock::new(1_000_000)), Some(Duration::from_secs(1)));
        times.record_server_time(1_000_000, Some(5_000_000));
        assert!(times.knows_server_time());
        assert_eq!(times.stamp() / 1000, 1_000_000);
    }
}
