//! Writes or syncs of the disk fail while a store has a redo log. A write whose error has no unknown outcome never
//! changes anything. No call hangs, reads continue to work, and so does the store once the disk works again.
//!
//! `disk_faults` tests the same for stores without a log.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libc::{EIO, ENOSPC};
use native_store::clock::{Clock, MockClock};
use native_store::store::file::Durability::{Commit, EverySec};
use native_store::store::{Cursor, FileStore, SessionStore};
use tempfile::TempDir;

use disk::image::Image;
use disk::logs::{ALWAYS, no_growth, own_log, small_log};
use disk::sessions::{
    self, Lane, Model, Op, START, Setup, View, check_usable, look, outcome, peek, perform_together,
};
use disk::{Call, DATA_FILE, Disk, Event, Failure, Fault, Random};

const FULL: &str = "ERR_STORE_FULL";
const IO: &str = "ERR_STORE_IO";

/// The maximum time of a call, even while the disk fails. It is shorter than the deadline of a call, 10 s.
const PATIENCE: Duration = Duration::from_secs(9);

static INJECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Lets one test run at a time, so that the load of another test delays no call.
fn start_alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print_injections(test: &str, before: usize) {
    let all = INJECTIONS.load(Ordering::Relaxed);
    let line = format!("log faults: {} injections ({test}), {all} in all\n", all - before);
    io::stdout().write_all(line.as_bytes()).unwrap();
}

/// A store with batches in its log, on a disk whose calls can fail.
struct Fixture {
    dir: TempDir,
    disk: Disk,
    setup: Setup,
    store: Option<Arc<FileStore>>,
    clock: Arc<MockClock>,
    lane: Lane,
    random: Random,
    /// Faults that stay.
    standing: Vec<Fault>,
}

impl Fixture {
    fn new(setup: Setup, first: &Image) -> Self {
        let dir = disk::temp_dir();
        let empty = Image { data: Vec::new(), ..first.clone() };
        empty.put(dir.path());
        let disk = Disk::watch_folder(dir.path());
        disk.fail(&[no_growth()]);
        let (store, clock) = sessions::open(dir.path(), setup, START).unwrap();
        let lane = Lane::new(Model::default(), START);
        let standing = vec![no_growth()];
        let mut fixture =
            Self { dir, disk, setup, store: Some(store), clock, lane, random: Random::new(1), standing };
        (0..4).for_each(|_| fixture.fill());
        fixture.check();
        fixture
    }

    fn store(&self) -> &FileStore {
        self.store.as_ref().unwrap()
    }

    fn view(&self) -> View {
        self.lane.last().view(self.clock.now())
    }

    /// Performs a batch of operations that are small enough for the log.
    fn fill(&mut self) {
        let ops: Vec<Op> = (0..12).map(|_| Op::random(0, self.clock.now(), &mut self.random)).collect();
        let ops: Vec<Op> = ops.into_iter().filter(|op| op.can_be_queued() && op.bytes() < 2000).collect();
        for (op, result) in ops.iter().zip(perform_together(&ops, self.store(), |_| ())) {
            assert_eq!(outcome(result), self.lane.apply(op, self.clock.now()), "{op:?}");
        }
    }

    /// Returns a random operation of a size in this range that changes the view of the store.
    fn change(&mut self, bytes: std::ops::Range<usize>) -> Op {
        loop {
            let op = Op::random(0, self.clock.now(), &mut self.random);
            let mut model = self.lane.last().clone();
            let outcome = model.apply(&op, self.clock.now());
            if bytes.contains(&op.bytes()) && outcome.is_ok() && model.view(self.clock.now()) != self.view() {
                return op;
            }
        }
    }

    /// Performs an operation that may fail because of the disk.
    fn attempt(&mut self, op: &Op) -> Attempt {
        let started = Instant::now();
        let result = op.perform(self.store());
        assert!(started.elapsed() < PATIENCE, "{op:?} took {:?}", started.elapsed());
        match result {
            Err(error) if matches!(error.code(), FULL | IO) => {
                if error.is_outcome_unknown() {
                    Attempt::Unknown
                } else {
                    Attempt::Failed
                }
            }
            result => {
                assert_eq!(outcome(result), self.lane.apply(op, self.clock.now()), "{op:?}");
                Attempt::Done
            }
        }
    }

    /// Checks that reads work while the disk fails.
    fn check_reads(&self, context: &str) {
        let seen = peek(self.store(), 0).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        assert!(seen == self.view(), "{context}: a read sees other sessions than it should");
    }

    /// Checks that the store has exactly the expected sessions.
    fn check(&self) {
        match look(self.store(), 1) {
            Ok(view) => assert!(view == self.view(), "the store has other sessions than it should"),
            Err(fault) => panic!("{fault}"),
        }
    }

    /// The view of a process that opens the store as if this process were killed now.
    fn view_if_killed(&self) -> Result<View, String> {
        let image = Image::of(self.dir.path());
        let dir = disk::temp_dir();
        image.put(dir.path());
        let opened = sessions::open(dir.path(), Setup::direct(self.setup.is_encrypted), self.clock.now());
        let (store, _) = opened.map_err(|error| format!("opening after a kill: {error}"))?;
        look(&store, 1)
    }

    /// After a failed sync the kernel may mark pages as clean that it could not write. So the process that has seen the
    /// failure must neither write nor sync that log again.
    fn check_no_retries(&self, events: &[Event], context: &str) {
        let mut failed = Vec::new();
        for event in events {
            match *event {
                Event::Sync(file) | Event::Write { file, .. } => {
                    assert!(!failed.contains(&file), "{context}: the log is used again after a failed sync");
                }
                Event::FailedSync(file) if file != DATA_FILE => {
                    assert!(!failed.contains(&file), "{context}: a failed sync is retried");
                    failed.push(file);
                }
                _ => {}
            }
        }
    }

    fn close(&mut self) {
        let started = Instant::now();
        self.store = None;
        assert!(started.elapsed() < PATIENCE, "closing took {:?}", started.elapsed());
    }

    /// Opens the store again on a working disk. The next write starts a log.
    fn reopen(&mut self) {
        self.close();
        self.disk.fail(&self.standing);
        let (store, clock) = sessions::open(self.dir.path(), self.setup, self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }

    fn fail(&self, faults: &[Fault]) {
        let mut all = faults.to_vec();
        all.extend(&self.standing);
        self.disk.take_log();
        self.disk.fail(&all);
    }

    /// Checks that the store works, and opens again.
    fn finish(mut self) {
        self.disk.fail(&self.standing);
        for _ in 0..2 {
            self.check();
            self.fill();
            self.check();
            self.reopen();
        }
        let mut random = self.random.clone();
        check_usable(self.store(), &self.clock, &mut random).unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    /// The operation has changed nothing.
    Failed,
    Unknown,
}

/// The action of a store during which its disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A write that fits into the log.
    Small,
    /// A group of writes.
    Group,
    /// A write that is too large for the log.
    Large,
    /// A write that starts the log.
    First,
    Clear,
    /// The store drains the log to the data file.
    Drain,
    Clean,
    /// The store removes the log, and starts it again.
    Backup,
    Close,
}

const ACTIONS: [Action; 9] = [
    Action::Small,
    Action::Group,
    Action::Large,
    Action::First,
    Action::Clear,
    Action::Drain,
    Action::Clean,
    Action::Backup,
    Action::Close,
];

impl Action {
    /// Prepares the store before the disk fails.
    fn prepare(self, fixture: &mut Fixture) {
        if self == Self::First {
            fixture.reopen();
        } else {
            fixture.fill();
            fixture.fill();
        }
    }

    /// Performs the action while the disk fails, and returns the operations whose outcome is unknown.
    fn perform(self, fixture: &mut Fixture) -> Vec<Op> {
        let op = match self {
            Self::Small | Self::First => fixture.change(0..2000),
            Self::Large => fixture.change(32_000..60_000),
            Self::Clear => Op::Clear,
            Self::Group => {
                let ops: Vec<Op> = (0..6)
                    .map(|_| Op::random(0, fixture.clock.now(), &mut fixture.random))
                    .filter(Op::can_be_queued)
                    .collect();
                let started = Instant::now();
                let mut unknown = Vec::new();
                for (op, result) in ops.iter().zip(perform_together(&ops, fixture.store(), |_| ())) {
                    match result {
                        Err(error) if matches!(error.code(), FULL | IO) => {
                            if error.is_outcome_unknown() {
                                unknown.push(op.clone());
                            }
                        }
                        result => {
                            assert_eq!(
                                outcome(result),
                                fixture.lane.apply(op, fixture.clock.now()),
                                "{op:?}"
                            );
                        }
                    }
                }
                assert!(started.elapsed() < PATIENCE);
                return unknown;
            }
            Self::Drain => {
                let _ = fixture.store().ids(Cursor::default());
                return Vec::new();
            }
            Self::Clean => {
                let _ = fixture.store().clean();
                return Vec::new();
            }
            Self::Backup => {
                let to = disk::temp_dir();
                let _ = fixture.store().backup(to.path(), &mut |_, _| ());
                return Vec::new();
            }
            Self::Close => {
                fixture.close();
                return Vec::new();
            }
        };
        match fixture.attempt(&op) {
            Attempt::Unknown => vec![op],
            Attempt::Done | Attempt::Failed => Vec::new(),
        }
    }
}

/// Performs an action with faults. Checks the sessions while the disk fails, after a kill, and once the disk works
/// again. Returns the number of failed calls.
fn inject(fixture: &mut Fixture, action: Action, faults: &[Fault]) -> usize {
    let context = format!("{action:?} of {:?} with {faults:?}", fixture.setup);
    action.prepare(fixture);
    fixture.fail(faults);
    let unknown = action.perform(fixture);
    let failed = fixture.disk.failed_calls();
    let is_closed = fixture.store.is_none();
    if unknown.is_empty() && !is_closed {
        fixture.check_reads(&context);
        if let Ok(view) = fixture.view_if_killed() {
            assert!(view == fixture.view(), "{context}: after a kill there are other sessions");
        }
    }
    fixture.check_no_retries(&fixture.disk.take_log(), &context);
    fixture.disk.fail(&fixture.standing);
    if is_closed {
        fixture.reopen();
    }
    if !unknown.is_empty() {
        // Either all of it has happened or nothing. This call settles which.
        let view = look(fixture.store(), 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        if view != fixture.view() {
            unknown.iter().for_each(|op| _ = fixture.lane.apply(op, fixture.clock.now()));
        }
    }
    let seen = look(fixture.store(), 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
    assert!(seen == fixture.view(), "{context}: the store has other sessions than it should");
    // The store works again even if it was not opened again.
    fixture.fill();
    fixture.check_reads(&context);
    fixture.reopen();
    let seen = look(fixture.store(), 1).unwrap_or_else(|fault| panic!("{context}, opened again: {fault}"));
    assert!(seen == fixture.view(), "{context}, opened again: the store has other sessions than it should");
    failed
}

/// Lets the calls of one kind in an action fail, one call after the other. Returns the number of failed calls.
fn fail_each(fixture: &mut Fixture, action: Action, call: Call, failure: Failure, times: usize) -> usize {
    /// A large commit writes many pages, and the first ones are enough.
    const MAX: usize = 12;
    for after in 0..MAX {
        if inject(fixture, action, &[Fault { call, after, times, failure }]) == 0 {
            return after;
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
    }
    MAX
}

fn fail_all(test: &str, calls: &[Call], failures: &[(Failure, usize)]) {
    let _alone = start_alone();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let mut hits = vec![0; calls.len()];
    for setup in [Setup::logged(false, Commit), Setup::logged(true, EverySec)] {
        let mut fixture = Fixture::new(setup, &small_log());
        for action in ACTIONS {
            for (call, hits) in calls.iter().zip(&mut hits) {
                for (failure, times) in failures {
                    *hits += fail_each(&mut fixture, action, *call, *failure, *times);
                }
            }
        }
        fixture.finish();
    }
    print_injections(test, before);
    assert!(hits.iter().all(|&hits| hits > 0), "{calls:?}: {hits:?}");
}

#[test]
fn a_failed_write_or_sync_of_the_log_fails_only_its_writes() {
    let failures = [
        (Failure::Refused(EIO), 1),
        (Failure::Refused(ENOSPC), ALWAYS),
        (Failure::Doubtful(EIO), 1),
        (Failure::Doubtful(ENOSPC), ALWAYS),
    ];
    fail_all("log", &[Call::LogWrite, Call::LogSync], &failures);
}

#[test]
fn a_partial_write_of_the_log_fails_only_its_writes() {
    let failures = [(Failure::Short(0), ALWAYS), (Failure::Short(1), 1), (Failure::Short(30), 3)];
    fail_all("short", &[Call::LogWrite], &failures);
}

#[test]
fn a_failed_write_or_sync_of_the_data_file_loses_nothing_of_the_log() {
    let failures =
        [(Failure::Refused(EIO), 1), (Failure::Refused(ENOSPC), ALWAYS), (Failure::Refused(EIO), ALWAYS)];
    fail_all("data", &[Call::Write, Call::Sync], &failures);
}

#[test]
fn a_failed_meta_page_write_loses_nothing_of_the_log() {
    let failures = [
        (Failure::Refused(EIO), ALWAYS),
        (Failure::Doubtful(EIO), ALWAYS),
        (Failure::Doubtful(ENOSPC), 1),
        (Failure::Short(60), ALWAYS),
    ];
    fail_all("meta", &[Call::WriteThrough], &failures);
}

/// Both the log and the data file fail. The outcome of the write is unknown, and later writes fail.
#[test]
fn a_failure_of_both_files_leaves_an_unknown_outcome() {
    let _alone = start_alone();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let mut unknown = 0;
    for setup in [Setup::logged(false, Commit), Setup::logged(false, EverySec)] {
        let mut fixture = Fixture::new(setup, &small_log());
        for log in [Call::LogWrite, Call::LogSync] {
            for data in [Call::Write, Call::Sync, Call::WriteThrough] {
                for failure in [Failure::Refused(EIO), Failure::Doubtful(EIO), Failure::Refused(ENOSPC)] {
                    let context = format!("{log:?} and {data:?}: {failure:?} ({setup:?})");
                    (0..2).for_each(|_| fixture.fill());
                    let fault = |call, failure| Fault { call, after: 0, times: ALWAYS, failure };
                    // A doubtful sync would also fail the next sync of each descriptor.
                    let data_failure = if data == Call::Sync { Failure::Refused(EIO) } else { failure };
                    fixture.fail(&[fault(log, failure), fault(data, data_failure)]);
                    let op = fixture.change(0..2000);
                    let killed = match fixture.attempt(&op) {
                        Attempt::Done => continue,
                        Attempt::Failed => false,
                        Attempt::Unknown => true,
                    };
                    INJECTIONS.fetch_add(1, Ordering::Relaxed);
                    unknown += usize::from(killed);
                    fixture.check_reads(&context);
                    let next = fixture.change(0..2000);
                    assert_ne!(fixture.attempt(&next), Attempt::Done, "{context}");
                    fixture.check_reads(&context);
                    if killed {
                        let view =
                            fixture.view_if_killed().unwrap_or_else(|fault| panic!("{context}: {fault}"));
                        let mut model = fixture.lane.last().clone();
                        let _ = model.apply(&op, fixture.clock.now());
                        assert!(
                            view == fixture.view() || view == model.view(fixture.clock.now()),
                            "{context}"
                        );
                    }
                    fixture.check_no_retries(&fixture.disk.take_log(), &context);
                    fixture.disk.fail(&fixture.standing);
                    fixture.fill();
                    fixture.check();
                    fixture.reopen();
                    fixture.check();
                }
            }
        }
        fixture.finish();
    }
    print_injections("both", before);
    assert!(unknown > 0);
}

/// The store creates a log, and a larger one that replaces it.
#[test]
fn a_failed_creation_of_the_log_loses_no_write() {
    let _alone = start_alone();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let calls =
        [Call::NewLogWrite, Call::NewLogSync, Call::Rename, Call::FolderSync, Call::LogWrite, Call::LogSync];
    for call in calls {
        for failure in [Failure::Refused(EIO), Failure::Refused(ENOSPC), Failure::Doubtful(EIO)] {
            for after in 0..6 {
                let mut fixture = Fixture::new(Setup::direct(false), &own_log());
                fixture.setup = Setup::logged(false, Commit);
                fixture.standing.clear();
                fixture.reopen();
                fixture.disk.take_log();
                fixture.disk.fail(&[Fault { call, after, times: 1, failure }]);
                let op = fixture.change(0..2000);
                let done = fixture.attempt(&op);
                if fixture.disk.failed_calls() == 0 {
                    break;
                }
                INJECTIONS.fetch_add(1, Ordering::Relaxed);
                let context = format!("{call:?} {after}: {failure:?}");
                assert!(done == Attempt::Done || after > 0, "{context}");
                fixture.check_reads(&context);
                let view = fixture.view_if_killed().unwrap_or_else(|fault| panic!("{context}: {fault}"));
                assert!(view == fixture.view(), "{context}: after a kill there are other sessions");
                fixture.disk.fail(&[]);
                fixture.fill();
                fixture.check();
                fixture.reopen();
                fixture.fill();
                assert!(fixture.store().stats().unwrap().log.unwrap().size > 0, "{context}: there is no log");
                let leftover = fixture.dir.path().join(disk::NEW_LOG);
                assert!(!leftover.exists(), "{context}: an incomplete log is left");
                fixture.check();
            }
        }
    }
    print_injections("creating", before);
}

/// Replacing the log by a larger one fails. No write is lost, and the store has a log again later.
#[test]
fn a_failed_growth_of_the_log_loses_no_write() {
    let _alone = start_alone();
    let before = INJECTIONS.load(Ordering::Relaxed);
    for call in [Call::NewLogWrite, Call::NewLogSync, Call::Rename, Call::FolderSync] {
        let mut fixture = Fixture::new(Setup::logged(false, Commit), &small_log());
        fixture.standing.clear();
        fixture.disk.fail(&[Fault { call, after: 0, times: 1, failure: Failure::Refused(EIO) }]);
        let started = Instant::now();
        while fixture.disk.failed_calls() == 0 {
            assert!(started.elapsed() < 5 * PATIENCE, "{call:?}: the log does not grow");
            fixture.fill();
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
        fixture.fill();
        fixture.check_reads("a log that cannot grow");
        let started = Instant::now();
        while fixture.store().stats().unwrap().log.unwrap().size == 0 {
            assert!(started.elapsed() < 2 * PATIENCE, "{call:?}: there is no log again");
            std::thread::sleep(Duration::from_millis(50));
            fixture.fill();
        }
        fixture.check();
        fixture.finish();
    }
    print_injections("growing", before);
}

/// The store does not use a log file again after a failed write or sync.
#[test]
fn a_failed_log_is_replaced_by_a_new_file() {
    let _alone = start_alone();
    for (call, failure) in [
        (Call::LogSync, Failure::Refused(EIO)),
        (Call::LogSync, Failure::Doubtful(EIO)),
        (Call::LogWrite, Failure::Refused(ENOSPC)),
    ] {
        let mut fixture = Fixture::new(Setup::logged(false, Commit), &small_log());
        fixture.fill();
        let old = fixture.disk.log_file();
        fixture.disk.take_log();
        fixture.disk.fail(&[Fault { call, after: 0, times: 1, failure }]);
        let op = fixture.change(0..2000);
        assert_eq!(fixture.attempt(&op), Attempt::Failed);
        let started = Instant::now();
        while fixture.disk.log_file() == old {
            assert!(started.elapsed() < 3 * PATIENCE, "no new log was created");
            std::thread::sleep(Duration::from_millis(100));
            let op = fixture.change(0..2000);
            assert_eq!(fixture.attempt(&op), Attempt::Done);
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
        fixture.check_no_retries(&fixture.disk.take_log(), "replaced");
        assert!(fixture.store().stats().unwrap().log.unwrap().used > 0);
        fixture.check();
        fixture.finish();
    }
}

/// A killed process leaves a log, and the disk fails while the next process recovers it.
#[test]
fn a_failed_recovery_is_retried_by_the_next_process() {
    let _alone = start_alone();
    let before = INJECTIONS.load(Ordering::Relaxed);
    for setup in [Setup::logged(false, Commit), Setup::logged(true, EverySec)] {
        let mut fixture = Fixture::new(setup, &small_log());
        (0..3).for_each(|_| fixture.fill());
        let image = Image::of(fixture.dir.path());
        let calls =
            [Call::LogRead, Call::LogWrite, Call::LogSync, Call::Write, Call::Sync, Call::WriteThrough];
        for (call, opened_with) in calls.iter().flat_map(|call| {
            [setup, Setup::direct(setup.is_encrypted)].map(|opened_with| (*call, opened_with))
        }) {
            for (failure, times) in [
                (Failure::Refused(EIO), 1),
                (Failure::Refused(ENOSPC), ALWAYS),
                (Failure::Doubtful(EIO), 1),
                (Failure::Doubtful(EIO), ALWAYS),
            ] {
                for after in 0..12 {
                    let context = format!("{call:?} {after}: {failure:?} x{times} ({opened_with:?})");
                    let dir = disk::temp_dir();
                    image.put(dir.path());
                    let disk = Disk::watch_folder(dir.path());
                    disk.fail(&[Fault { call, after, times, failure }, no_growth()]);
                    let started = Instant::now();
                    let opened = sessions::open(dir.path(), opened_with, fixture.clock.now());
                    let failed = opened.as_ref().err().map(|error| error.code());
                    assert!(matches!(failed, None | Some(FULL | IO)), "{context}: {failed:?}");
                    if let Ok((store, _)) = &opened {
                        let seen = peek(store, 0).unwrap_or_else(|fault| panic!("{context}: {fault}"));
                        assert!(seen == fixture.view(), "{context}: a read sees other sessions");
                        // This call commits, and may fail.
                        let _ = store.ids(Cursor::default());
                    }
                    drop(opened);
                    assert!(started.elapsed() < PATIENCE, "{context}: {:?}", started.elapsed());
                    if disk.failed_calls() == 0 {
                        assert_eq!(failed, None, "{context}");
                        break;
                    }
                    INJECTIONS.fetch_add(1, Ordering::Relaxed);
                    disk.fail(&[no_growth()]);
                    let (store, clock) = sessions::open(dir.path(), setup, fixture.clock.now())
                        .unwrap_or_else(|error| panic!("{context}, opened again: {error}"));
                    let seen = look(&store, 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
                    assert!(seen == fixture.view(), "{context}: opened again, it has other sessions");
                    check_usable(&store, &clock, &mut Random::new(1)).unwrap();
                }
            }
        }
        fixture.finish();
    }
    print_injections("recovery", before);
}
