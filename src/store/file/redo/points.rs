//! The steps between which tests look, stop and kill. In a build without tests all of this is nothing.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Result;
use crate::keyring::random;

/// A step of the log's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store::file) enum Point {
    /// A batch was decided, and nothing of it is written.
    Decided,
    BeforeWrite,
    AfterWrite,
    BeforeSync,
    AfterSync,
    /// The overlay has a batch, and the log does not count it as entered.
    InOverlay,
    /// The overlay has a batch, and nobody was told.
    Entered,
    /// A transaction has rows of the log, and is not committed.
    BeforeDrainCommit,
    AfterDrainCommit,
    /// Rows that are in the data file were removed from the overlay.
    Removed,
    /// A log is in the folder, and the data file does not name it.
    LogCreated,
    /// The data file names a log that is empty.
    LogBegun,
    /// The log is drained, and the data file still names it.
    BeforeLogEnd,
    AfterLogEnd,
    /// The lock lets others in.
    Shared,
    /// The lock keeps others out.
    Exclusive,
    BeforeClear,
    AfterClear,
    RecoveryRewritten,
    /// A damaged log has another name, and the data file still names it.
    LogSetAside,
    BeforeLogDiscard,
    AfterLogDiscard,
    /// This process waits for another to share the store.
    Requested,
    /// A thread waits, or would have to wait for a lock.
    #[cfg_attr(not(test), allow(dead_code, reason = "a real thread waits by itself"))]
    Waiting,
}

pub(in crate::store::file) use hooks::reach;

/// Waits, and returns for how long: a system wakes threads late. Under a simulator another thread gets its turn instead.
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

/// The time that a simulator may keep.
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

/// A limit of the real store. A simulator has a small log, and the limit that fits it.
pub(in crate::store::file) fn limit<T>(real: T, simulated: T) -> T {
    #[cfg(test)]
    if hooks::simulator().is_some() {
        return simulated;
    }
    let _ = simulated;
    real
}

/// Locks a mutex. Under a simulator another thread gets its turn while the mutex is held.
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

/// Calls the thread's simulator.
#[cfg(test)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is no simulator"))]
pub(in crate::store::file) mod hooks {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use super::Point;

    /// Decides all that is left to chance, to time and to the disk. By default that is as without a simulator.
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

        /// What becomes of the commit that is about to begin. `None`: it succeeds.
        fn commit_fault(&self) -> Option<CommitFault> {
            None
        }
    }

    /// How a commit of the data file fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::store::file) enum CommitFault {
        /// There is no room for its pages.
        Full,
        /// Its pages could not be written. It is not on disk.
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

/// Ends or stops the process at a step: `NATIVE_STORE_CRASH_POINT=AfterSync:3:kill` at the third time that it is reached.
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
            // To this thread: one that goes to the process may stop another thread first, and this one goes on.
            // SAFETY: it has no memory to be wrong about.
            unsafe { libc::raise(plan.signal) };
        }
    }
}
