//! Injectable time: tests of expiry need no sleep.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as in JavaScript's `Date.now()`.
pub type Millis = i64;

/// The clock of a store.
pub trait Clock: Send + Sync {
    /// Returns the current time in milliseconds since the Unix epoch.
    fn now(&self) -> Millis;

    /// Whether a time is now or earlier.
    fn is_past(&self, time: Millis) -> bool {
        time <= self.now()
    }

    /// Sets the offset to the system clock in milliseconds. Only [`AppClock`] has one.
    fn set_offset(&self, _offset: Millis) {}
}

/// Returns the time since boot. Unlike `Instant`, it includes the time in which the machine was suspended.
pub fn since_boot() -> Duration {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        let time = clock_gettime(CLOCK);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// The system's wall clock, which JavaScript's `Date.now()` reads, too.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as Millis,
            Err(before) => -(before.duration().as_millis() as Millis),
        }
    }

    #[cfg(target_os = "linux")]
    fn is_past(&self, time: Millis) -> bool {
        // Every `get` calls this. Reading the coarse clock takes a few nanoseconds instead of thirty. It lags by up to
        // one kernel tick, at most 10 ms.
        const MARGIN: Millis = 100;
        let mut coarse = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `coarse` is writable.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut coarse) };
        let coarse = coarse.tv_sec * 1000 + coarse.tv_nsec / 1_000_000;
        time <= coarse + MARGIN && time <= self.now()
    }
}

/// JavaScript's clock: the system clock with an offset, for tests that replace `Date`.
#[derive(Debug, Default)]
pub struct AppClock {
    offset: AtomicI64,
}

impl Clock for AppClock {
    fn now(&self) -> Millis {
        SystemClock.now().saturating_add(self.offset.load(Ordering::Relaxed))
    }

    fn is_past(&self, time: Millis) -> bool {
        SystemClock.is_past(time.saturating_sub(self.offset.load(Ordering::Relaxed)))
    }

    fn set_offset(&self, offset: Millis) {
        self.offset.store(offset, Ordering::Relaxed);
    }
}

/// A clock that only moves by [`MockClock::advance`].
#[derive(Debug, Default)]
pub struct MockClock(AtomicI64);

impl MockClock {
    /// Creates a clock that is stopped at `now`.
    pub fn new(now: Millis) -> Self {
        Self(AtomicI64::new(now))
    }

    /// Moves the clock by `millis`, backwards if negative.
    pub fn advance(&self, millis: Millis) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_exact_to_the_millisecond() {
        for _ in 0..1000 {
            let before = SystemClock.now();
            assert!(SystemClock.is_past(before));
            let soon = before + 2;
            let is_past = SystemClock.is_past(soon);
            assert!(!is_past || SystemClock.now() >= soon);
        }
        for millis in [50, 200, 1_000_000] {
            assert!(!SystemClock.is_past(SystemClock.now() + millis));
        }
        assert!(SystemClock.is_past(Millis::MIN / 2));
    }

    #[test]
    fn an_app_clock_follows_its_offset() {
        let clock = AppClock::default();
        let now = SystemClock.now();
        assert!(clock.is_past(now) && !clock.is_past(now + 1_000_000));
        clock.set_offset(2_000_000);
        assert!(clock.now() >= now + 2_000_000 && clock.is_past(now + 1_000_000));
        clock.set_offset(-2_000_000);
        assert!(clock.now() < now && !clock.is_past(now));
    }
}
