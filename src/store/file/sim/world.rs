//! The state of a simulation: threads, processes, disk, locks, clock, model, and the faults of the seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heed::{Env, WithTls};
use parking_lot::Mutex;

use super::disk::{Disk, LogWrite};
use super::locks::Locks;
use super::model::Lane;
use super::process::Process;
use super::scheduler::{Killed, ProcessId, Scheduler};
use crate::clock::{Clock, MockClock};
use crate::lifetime::Lifetime;
use crate::store::conformance::START;
use crate::store::file::options::Durability;
use crate::store::file::redo::engine::Sizes;
use crate::store::file::redo::points::Point;
use crate::store::file::redo::points::hooks::{CommitFault, Simulator};
use crate::store::file::tables::Tables;
use crate::store::simulation::Random;
use crate::store::{UserLimit, WhenUserIsFull};

/// The data file of a thread's simulations. Each simulation starts with an empty one.
#[derive(Clone)]
pub(super) struct DataFile {
    pub dir: PathBuf,
    pub env: Env<WithTls>,
    pub tables: Tables,
    pub data: Arc<File>,
    pub page_size: u64,
}

/// Settings that the seed decides once. Probabilities are per million.
#[derive(Debug, Clone)]
pub(super) struct Config {
    #[allow(dead_code, reason = "the trace shows it")]
    pub seed: u64,
    pub lanes: usize,
    pub ids: usize,
    pub ops: usize,
    pub max_processes: usize,
    pub durability: Durability,
    pub per_user: UserLimit,
    pub max_lifetime: Lifetime,
    pub sizes: Sizes,
    pub max_content: usize,
    /// The duration of a step.
    pub step_micros: u64,
    /// The maximum time between two operations of a client.
    pub think_micros: u64,
    /// Another thread runs at a point.
    pub switches: u32,
    /// A process is killed at a point.
    pub kills: u32,
    /// The power fails at a point.
    pub power_losses: u32,
    /// A process is stopped at a point.
    pub stops: u32,
    pub log_errors: u32,
    pub read_errors: u32,
    pub commit_errors: u32,
    /// A commit takes seconds.
    pub slow_commits: u32,
    /// The time between two events of the director.
    pub chaos_micros: u64,
    /// The weight of each kind of operation.
    pub weights: [usize; OPS],
}

pub(super) const OPS: usize = 13;

/// The maximum time from an acknowledgement to the end of the sync: the interval, and the time until the thread runs
/// and has synced.
const MAX_SYNC_DELAY: Duration = Duration::from_millis(1_500);

/// Writes to the log that were acknowledged before their sync.
struct Unsynced {
    last: LogWrite,
    /// The time of the acknowledgement, in microseconds.
    since: u64,
}

impl Config {
    pub(super) fn new(seed: u64, random: &mut Random) -> Self {
        let mut chance = |of: &[u32]| *random.pick(of);
        let kills = chance(&[0, 0, 2_000, 5_000, 20_000]);
        let power_losses = chance(&[0, 0, 1_000, 5_000, 15_000]);
        let stops = chance(&[0, 0, 3_000]);
        let log_errors = chance(&[0, 0, 10_000, 50_000, 150_000]);
        let commit_errors = chance(&[0, 0, 20_000, 100_000, 300_000]);
        let read_errors = chance(&[0, 0, 0, 20_000]);
        let is_lax = chance(&[0, 0, 1]) == 1;
        let switches = chance(&[50_000, 300_000, 1_000_000]);
        let ring = *random.pick(&[32_u64, 48, 64]) << 10;
        let max = *random.pick(&[ring, ring, 4 * ring]);
        let mut weights = [30, 10, 20, 12, 5, 25, 12, 2, 3, 3, 1, 2, 1];
        for weight in &mut weights {
            *weight = (*weight * *random.pick(&[0, 1, 1, 1, 3])).max(1);
        }
        weights[7] = *random.pick(&[0, 0, 1, 4]);
        let think_micros = *random.pick(&[10, 2_000, 300_000, 3_000_000]);
        let is_long = random.chance(250_000);
        Self {
            seed,
            lanes: random.between(1, 4) as usize,
            ids: random.between(2, 5) as usize,
            ops: if is_long { random.between(30, 90) } else { random.between(8, 30) } as usize,
            max_processes: *random.pick(&[1, 1, 2, 3]),
            durability: if is_lax { Durability::EverySec } else { Durability::Commit },
            per_user: UserLimit {
                max: NonZeroUsize::new(random.below(3)),
                when_full: if seed % 4 < 2 { WhenUserIsFull::EndOldest } else { WhenUserIsFull::Reject },
            },
            max_lifetime: Lifetime::new(*random.pick(&[None, None, Some(2_000), Some(60_000)])),
            sizes: Sizes { first: ring, max },
            max_content: *random.pick(&[64, 900, 4000, 12_000]),
            step_micros: *random.pick(&[1, 20, 500]),
            think_micros,
            switches,
            kills,
            power_losses,
            stops,
            log_errors,
            read_errors,
            commit_errors,
            // Not a random number, because that would change what all other seeds do.
            slow_commits: if seed.is_multiple_of(4) { 300_000 } else { 0 },
            chaos_micros: 1_000 + think_micros * random.pick(&[1, 4, 20]),
            weights,
        }
    }

    /// Whether a write may fail for a reason that the model does not know.
    pub(super) fn has_errors(&self) -> bool {
        self.log_errors + self.commit_errors > 0
    }
}

pub(super) struct World {
    pub config: Config,
    pub scheduler: Scheduler,
    pub random: RefCell<Random>,
    pub clock: Arc<MockClock>,
    base: Instant,
    pub data_file: DataFile,
    pub disk: Arc<Mutex<Disk>>,
    pub locks: Arc<Mutex<Locks>>,
    /// LMDB's write lock.
    pub write_lock: Arc<Mutex<()>>,
    pub processes: RefCell<Vec<Rc<Process>>>,
    pub lanes: RefCell<Vec<Lane>>,
    /// The process with a pending `clear`.
    pub clearing: Cell<Option<ProcessId>>,
    /// The number of completed operations. It shows what a power loss may undo.
    pub events: Cell<u64>,
    /// Faults are switched off.
    pub is_calm: Cell<bool>,
    /// The writes to the log that were acknowledged before their sync.
    unsynced: RefCell<Vec<Unsynced>>,
    pub clients: Cell<usize>,
    /// Whether only the memory of a process may have some acknowledged state.
    has_dropped: Cell<bool>,
    violation: RefCell<Option<String>>,
    is_over: Cell<bool>,
    trace: RefCell<VecDeque<String>>,
    /// How often each event has happened, if the whole trace is kept.
    pub counts: RefCell<BTreeMap<String, u64>>,
    /// A hash of all events.
    pub digest: Cell<u64>,
}

impl World {
    pub(super) fn new(config: Config, random: Random, data_file: DataFile) -> Rc<Self> {
        let lanes = (0..config.lanes).map(|_| Lane::default()).collect();
        Rc::new(Self {
            scheduler: Scheduler::default(),
            random: RefCell::new(random),
            clock: Arc::new(MockClock::new(START)),
            base: Instant::now(),
            data_file,
            disk: Arc::default(),
            locks: Arc::default(),
            write_lock: Arc::default(),
            processes: RefCell::default(),
            lanes: RefCell::new(lanes),
            clearing: Cell::new(None),
            events: Cell::new(0),
            is_calm: Cell::new(false),
            unsynced: RefCell::default(),
            clients: Cell::new(config.lanes),
            has_dropped: Cell::new(false),
            violation: RefCell::default(),
            is_over: Cell::new(false),
            trace: RefCell::default(),
            counts: RefCell::default(),
            digest: Cell::new(0),
            config,
        })
    }

    pub(super) fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.random.borrow_mut().chance(per_million)
    }

    /// Whether a fault happens now.
    pub(super) fn fault_happens(&self, per_million: u32) -> bool {
        !self.is_calm.get() && self.chance(per_million)
    }

    pub(super) fn trace(&self, what: impl Into<String>) {
        const KEPT: usize = 150;
        let what = what.into();
        if super::keeps_all() {
            let name: String =
                what.chars().filter(|char| !char.is_ascii_digit()).take_while(|char| *char != ':').collect();
            *self.counts.borrow_mut().entry(name).or_default() += 1;
        }
        let digest = what.bytes().fold(self.digest.get(), |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.digest.set(digest);
        let mut trace = self.trace.borrow_mut();
        if trace.len() == KEPT && !super::keeps_all() {
            trace.pop_front();
        }
        trace.push_back(format!("{:>10} us  {:<12} {what}", self.scheduler.time.get(), self.task_name()));
    }

    pub(super) fn traced(&self) -> String {
        self.trace.borrow().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Records a violation. The simulation ends.
    pub(super) fn fail(&self, what: String) {
        self.trace(format!("VIOLATION {what}"));
        self.violation.borrow_mut().get_or_insert(what);
        self.is_over.set(true);
    }

    /// Records a violation, and ends the running thread.
    pub(super) fn fail_here(&self, what: String) -> ! {
        self.fail(what);
        std::panic::resume_unwind(Box::new(Killed))
    }

    pub(super) fn end(&self) {
        self.is_over.set(true);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.violation.borrow().clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub(super) fn is_dead(&self, process: ProcessId) -> bool {
        self.processes.borrow()[process].is_dead.get()
    }

    pub(super) fn stopped_until(&self, process: ProcessId) -> u64 {
        self.processes.borrow()[process].stopped_until.get()
    }

    pub(super) fn kill(&self, process: ProcessId) {
        let process = Rc::clone(&self.processes.borrow()[process]);
        if !process.is_dead.replace(true) {
            self.trace(format!("kill {}", process.id));
            self.locks.lock().release_all(process.id);
            self.unsynced.borrow_mut().clear();
            let mut lanes = self.lanes.borrow_mut();
            if self.has_dropped.replace(false) {
                lanes.iter_mut().for_each(|lane| lane.lose_power(self));
            }
            for lane in lanes.iter_mut().filter(|lane| lane.process == Some(process.id)) {
                lane.process = None;
                lane.kill_writes(self);
            }
            if self.clearing.get() == Some(process.id) {
                self.clearing.set(None);
                lanes.iter_mut().for_each(|lane| lane.mark_clear_unknown(false, self));
            }
        }
    }

    pub(super) fn lose_power(&self) {
        self.trace("power loss");
        let all = self.processes.borrow().len();
        (0..all).for_each(|process| self.kill(process));
        self.disk.lock().lose_power(self);
        self.lanes.borrow_mut().iter_mut().for_each(|lane| lane.lose_power(self));
    }

    /// The kernel drops unwritten pages. With `everysec` they may be the only copy of an acknowledged write.
    pub(super) fn drop_clean(&self) {
        if self.disk.lock().drop_clean() {
            self.trace("clean pages are dropped");
            // A process may still have it in memory, until it is killed.
            self.has_dropped.set(true);
            self.lanes.borrow_mut().iter_mut().for_each(|lane| lane.may_lose(self));
        }
    }

    pub(super) fn advance(&self, millis: u64) {
        self.trace(format!("{millis} ms pass"));
        self.scheduler.time.set(self.scheduler.time.get() + millis * 1000);
        // No thread runs during this time.
        self.unsynced.borrow_mut().iter_mut().for_each(|unsynced| unsynced.since += millis * 1000);
        self.clock.advance(millis as i64);
        let now = self.clock.now();
        self.lanes.borrow_mut().iter_mut().for_each(|lane| lane.note_time(now));
    }

    /// Starts a sync. Returns the number of the events that it will make durable.
    pub(super) fn begin_sync(&self) -> u64 {
        self.events.get()
    }

    pub(super) fn end_sync(&self, begun: u64, last: LogWrite) {
        self.check_sync_delays();
        let is_synced = |write: LogWrite| write.inode == last.inode && write.number <= last.number;
        self.unsynced.borrow_mut().retain(|unsynced| !is_synced(unsynced.last));
        self.lanes.borrow_mut().iter_mut().for_each(|lane| lane.mark_durable(begun));
    }

    /// Records that the process, which has a log, has acknowledged a write.
    pub(super) fn acknowledge(&self, process: ProcessId) {
        self.check_sync_delays();
        let Some(last) = self.disk.lock().last_unsynced() else { return };
        // A stopped process syncs when it continues.
        let since = self.scheduler.time.get().max(self.stopped_until(process));
        self.unsynced.borrow_mut().push(Unsynced { last, since });
    }

    /// Checks that acknowledged writes are synced in time, however long a drain takes. If the log can fail, they may be
    /// drained instead.
    fn check_sync_delays(&self) {
        let now = self.scheduler.time.get();
        let since = self.unsynced.borrow().iter().map(|unsynced| unsynced.since).min();
        let delay = Duration::from_micros(now.saturating_sub(since.unwrap_or(now)));
        if delay > MAX_SYNC_DELAY && self.config.log_errors == 0 {
            self.fail(format!("an acknowledged write was not synced for {delay:?}"));
        }
    }

    /// A step of the disk or the locks. A fault may happen here.
    pub(super) fn step(&self, what: &str) {
        self.at(what, false);
    }

    fn at(&self, what: &str, waits: bool) {
        if std::thread::panicking() {
            return;
        }
        self.check_alive();
        if !waits {
            // Waiting processes try this often, so faults are not useful here.
            if !matches!(what, "try_exclusive" | "try_shared" | "Requested") {
                self.trace(what);
            }
            if let Some(process) = self.process() {
                self.maybe_fault(process);
            }
        }
        if waits {
            // The holder of the lock may be stopped for a long time.
            let micros = *self.random.borrow_mut().pick(&[0, 0, 100, 5_000]);
            self.sleep_micros(micros);
        } else if self.chance(self.config.switches) {
            self.yield_now();
        }
        self.check_alive();
    }

    fn maybe_fault(&self, process: ProcessId) {
        if self.fault_happens(self.config.kills) {
            self.kill(process);
        } else if self.fault_happens(self.config.power_losses) {
            self.lose_power();
        } else if self.fault_happens(self.config.stops) {
            let micros = *self.random.borrow_mut().pick(&[10_000, 2_000_000, 20_000_000]);
            self.stop(process, micros);
        }
    }

    pub(super) fn stop(&self, process: ProcessId, micros: u64) {
        self.trace(format!("stop {process} for {micros} us"));
        let until = self.scheduler.time.get() + micros;
        self.processes.borrow()[process].stopped_until.set(until);
        self.unsynced.borrow_mut().iter_mut().for_each(|unsynced| unsynced.since = unsynced.since.max(until));
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.scheduler.time.get())
    }
}

impl Simulator for World {
    fn reach(&self, point: Point) {
        if matches!(point, Point::AfterLogEnd | Point::AfterClear) {
            // Nothing depends on the log any more.
            self.unsynced.borrow_mut().clear();
        }
        match point {
            Point::Waiting => self.at("", true),
            _ => self.at(&format!("{point:?}"), false),
        }
    }

    fn sleep(&self, pause: Duration) {
        self.sleep_micros(pause.as_micros() as u64);
    }

    fn now(&self) -> Instant {
        self.instant()
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.borrow_mut();
        bytes.fill_with(|| random.next() as u8);
    }

    fn commit_fault(&self) -> Option<CommitFault> {
        self.step("commit");
        if self.fault_happens(self.config.slow_commits) {
            let micros = self.random.borrow_mut().between(2_000_000, 3_000_000);
            self.trace(format!("a commit takes {micros} us"));
            self.sleep_micros(micros);
        }
        if !self.fault_happens(self.config.commit_errors) {
            return None;
        }
        let fault = match self.random.borrow_mut().below(4) {
            0 => CommitFault::Full,
            1 => CommitFault::Lost,
            2 => CommitFault::Uncertain { is_done: false },
            _ => CommitFault::Uncertain { is_done: true },
        };
        self.trace(format!("{fault:?}"));
        Some(fault)
    }
}
