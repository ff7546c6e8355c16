//! Points where tests can observe, stop or kill the process. Other builds do nothing here.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Result;
use crate::keyring::random;

/// A step of the log's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store::file) enum Point {
    /// A batch was decided, but not written.
    Decided,
    BeforeWrite,
    AfterWrite,
    BeforeSync,
    AfterSync,
    /// The overlay has a batch that the log has not yet marked as entered.
    InOverlay,
    /// A batch is entered, but not reported.
    Entered,
    /// A transaction has rows of the log and is about to be committed.
    BeforeDrainCommit,
    AfterDrainCommit,
    /// The drained rows were removed from the overlay.
    Removed,
    /// A log is in the folder, and the data file does not name it.
    LogCreated,
    /// The data file names a log that is empty.
    LogBegun,
    /// The log is drained, and the data file still names it.
    BeforeLogEnd,
    AfterLogEnd,
    /// This process has shared access.
    Shared,
    /// This process has exclusive access.
    Exclusive,
    BeforeClear,
    AfterClear,
    RecoveryRewritten,
    /// A damaged log was renamed, and the data file still names it.
    LogSetAside,
    BeforeLogDiscard,
    AfterLogDiscard,
    /// This process requests shared access.
    Requested,
    /// A thread waits, or would have to wait for a lock.
    #[cfg_attr(not(test), allow(dead_code, reason = "a real thread waits by itself"))]
    Waiting,
}

pub(in crate::store::file) use hooks::reach;

/// Sleeps, and returns the actual duration, because a system may wake threads late. In a simulation, another thread
/// runs instead.
pub(in crate::store::file) fn sleep(pause: Duration) -> Duration {
    #[cfg(test)]
    if let Some(simulator) = hooks::simulator() {
        simulator.sleep(pause);
        return pause;
    }
    let begun = Instant::now();
    std::thread::sleep(pause);
    begun.elapsed()
}

/// The current time, which is simulated in a simulation.
pub(in crate::store::file) fn now() -> Instant {
    #[cfg(test)]
    if let Some(simulator) = hooks::simulator() {
        return simulator.now();
    }
    Instant::now()
}

/// Random bytes. A simulator derives them from its seed.
///
/// # Errors
/// `Io` if the system has none.
pub(in crate::store::file) fn random<const N: usize>() -> Result<[u8; N]> {
    #[cfg(test)]
    if let Some(simulator) = hooks::simulator() {
        let mut bytes = [0; N];
        simulator.random(&mut bytes);
        return Ok(bytes);
    }
    random::bytes()
}

/// Selects a limit. A simulation uses a small log and needs smaller limits.
pub(in crate::store::file) fn limit<T>(real: T, simulated: T) -> T {
    #[cfg(test)]
    if hooks::simulator().is_some() {
        return simulated;
    }
    let _ = simulated;
    real
}

/// Locks a mutex. In a simulation, other threads run while the mutex is held elsewhere.
pub(in crate::store::file) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    if hooks::is_set() {
        loop {
            if let Some(guard) = mutex.try_lock() {
                return guard;
            }
            reach(Point::Waiting);
        }
    }
    mutex.lock()
}

#[cfg(not(any(test, feature = "crash-points")))]
mod hooks {
    use super::Point;

    #[inline(always)]
    pub(in crate::store::file) fn reach(_: Point) {}
}

/// Calls the simulator of the thread.
#[cfg(test)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is no simulator"))]
pub(in crate::store::file) mod hooks {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use super::Point;

    /// Controls chance, time and disk. The default implementation is that of the real system.
    pub(in crate::store::file) trait Simulator {
        fn reach(&self, _: Point) {}

        fn sleep(&self, pause: Duration) {
            std::thread::sleep(pause);
        }

        fn now(&self) -> Instant {
            Instant::now()
        }

        fn random(&self, bytes: &mut [u8]) {
            getrandom::fill(bytes).unwrap();
        }

        /// The fault of the commit that is about to start. `None` means success.
        fn commit_fault(&self) -> Option<CommitFault> {
            None
        }
    }

    /// How a commit of the data file fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::store::file) enum CommitFault {
        /// There is no room for its pages.
        Full,
        /// Its pages could not be written. The commit is not on disk.
        Lost,
        /// Its meta page could not be written.
        Uncertain { is_done: bool },
    }

    thread_local! {
        static SIMULATOR: RefCell<Option<Rc<dyn Simulator>>> = const { RefCell::new(None) };
    }

    pub(in crate::store::file) fn simulate(simulator: Option<Rc<dyn Simulator>>) {
        SIMULATOR.set(simulator);
    }

    pub(in crate::store::file) fn simulator() -> Option<Rc<dyn Simulator>> {
        SIMULATOR.with_borrow(Option::clone)
    }

    pub(in crate::store::file) fn is_set() -> bool {
        SIMULATOR.with_borrow(Option::is_some)
    }

    pub(in crate::store::file) fn reach(point: Point) {
        if let Some(simulator) = simulator() {
            simulator.reach(point);
        }
    }
}

/// Kills or stops the process at a point. `NATIVE_STORE_CRASH_POINT=AfterSync:3:kill` kills it when it reaches
/// `AfterSync` for the third time.
#[cfg(all(feature = "crash-points", not(test)))]
mod hooks {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Point;

    struct Plan {
        point: String,
        left: AtomicUsize,
        signal: libc::c_int,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let parse = || {
            let text = std::env::var("NATIVE_STORE_CRASH_POINT").ok()?;
            let mut parts = text.split(':');
            let point = parts.next()?.into();
            let left = parts.next()?.parse().ok().map(AtomicUsize::new)?;
            let signal = match parts.next()? {
                "stop" => libc::SIGSTOP,
                _ => libc::SIGKILL,
            };
            Some(Plan { point, left, signal })
        };
        PLAN.get_or_init(parse).as_ref()
    }

    pub(in crate::store::file) fn reach(point: Point) {
        let Some(plan) = plan().filter(|plan| plan.point == format!("{point:?}")) else { return };
        if plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // A signal to the process could stop another thread first, and this one would continue.
            // SAFETY: `raise` has no memory preconditions.
            unsafe { libc::raise(plan.signal) };
        }
    }
}
