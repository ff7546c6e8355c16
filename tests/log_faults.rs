//! The disk refuses to write or to sync while a store has a redo log. A write that reports an error without an unknown
//! outcome has changed nothing, for good. Nothing hangs, reads go on, and the store works again once the disk does.
//!
//! As `disk_faults`, whose stores have no log.

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
    self, Lane, Model, Op, START, Setup, View, look, outcome, peek, perform_together, use_up,
};
use disk::{Call, DATA_FILE, Disk, Event, Failure, Fault, Random};

const FULL: &str = "ERR_STORE_FULL";
const IO: &str = "ERR_STORE_IO";

/// No call takes as long, also while the disk fails. One that hangs ends by its deadline of 10 s.
const PATIENCE: Duration = Duration::from_secs(9);

static INJECTIONS: AtomicUsize = AtomicUsize::new(0);

/// The tests run one at a time, so that none is late because of another.
fn begin() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print_injections(test: &str, before: usize) {
    let all = INJECTIONS.load(Ordering::Relaxed);
    let line = format!("log faults: {} injections ({test}), {all} in all\n", all - before);
    io::stdout().write_all(line.as_bytes()).unwrap();
}

/// A store with a log that has something in it, on a disk that can be made to fail.
struct Bed {
    dir: TempDir,
    disk: Disk,
    setup: Setup,
    store: Option<Arc<FileStore>>,
    clock: Arc<MockClock>,
    lane: Lane,
    random: Random,
    /// Calls that fail all along.
    standing: Vec<Fault>,
}

impl Bed {
    fn new(setup: Setup, first: &Image) -> Self {
        let dir = disk::temp_dir();
        let empty = Image { data: Vec::new(), ..first.clone() };
        empty.put(dir.path());
        let disk = Disk::watch_folder(dir.path());
        disk.fail(&[no_growth()]);
        let (store, clock) = sessions::open(dir.path(), setup, START).unwrap();
        let lane = Lane::new(Model::default(), START);
        let standing = vec![no_growth()];
        let mut bed =
            Self { dir, disk, setup, store: Some(store), clock, lane, random: Random::new(1), standing };
        (0..4).for_each(|_| bed.fill());
        bed.check();
        bed
    }

    fn store(&self) -> &FileStore {
        self.store.as_ref().unwrap()
    }

    fn view(&self) -> View {
        self.lane.last().view(self.clock.now())
    }

    /// Small operations at once, which the log takes.
    fn fill(&mut self) {
        let ops: Vec<Op> = (0..12).map(|_| Op::random(0, self.clock.now(), &mut self.random)).collect();
        let ops: Vec<Op> = ops.into_iter().filter(|op| op.is_hot() && op.bytes() < 2000).collect();
        for (op, result) in ops.iter().zip(perform_together(&ops, self.store(), |_| ())) {
            assert_eq!(outcome(result), self.lane.apply(op, self.clock.now()), "{op:?}");
        }
    }

    /// An operation that cannot but change what is there, of so many bytes at least and at most.
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

    /// Does what may fail because of the disk.
    fn attempt(&mut self, op: &Op) -> Attempt {
        let begun = Instant::now();
        let result = op.perform(self.store());
        assert!(begun.elapsed() < PATIENCE, "{op:?} took {:?}", begun.elapsed());
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

    /// Reads go on, whatever the disk does.
    fn check_reads(&self, context: &str) {
        let seen = peek(self.store(), 0).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        assert!(seen == self.view(), "{context}: a read sees other sessions than it should");
    }

    /// The store has exactly what it should.
    fn check(&self) {
        match look(self.store(), 1) {
            Ok(view) => assert!(view == self.view(), "the store has other sessions than it should"),
            Err(fault) => panic!("{fault}"),
        }
    }

    /// What a process sees that opens the store after this one was killed now.
    fn view_if_killed(&self) -> Result<View, String> {
        let image = Image::of(self.dir.path());
        let dir = disk::temp_dir();
        image.put(dir.path());
        let opened = sessions::open(dir.path(), Setup::direct(self.setup.sealed), self.clock.now());
        let (store, _) = opened.map_err(|error| format!("opening after a kill: {error}"))?;
        look(&store, 1)
    }

    /// After a failed sync the kernel may take pages for clean that it could not write. So a log that has failed is
    /// neither written nor synced again by the process that has seen it.
    fn check_no_retries(&self, events: &[Event], context: &str) {
        let mut failed = Vec::new();
        for event in events {
            match *event {
                Event::Sync(file) | Event::Write { file, .. } => {
                    assert!(!failed.contains(&file), "{context}: the log is used again after a failed sync");
                }
                Event::FailedSync(file) if file != DATA_FILE => {
                    assert!(!failed.contains(&file), "{context}: a failed sync is made again");
                    failed.push(file);
                }
                _ => {}
            }
        }
    }

    fn close(&mut self) {
        let begun = Instant::now();
        self.store = None;
        assert!(begun.elapsed() < PATIENCE, "closing took {:?}", begun.elapsed());
    }

    /// Opens the store again, on a disk that works. A log is used from the next write on.
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

    /// The store works, and opens again.
    fn finish(mut self) {
        self.disk.fail(&self.standing);
        for _ in 0..2 {
            self.check();
            self.fill();
            self.check();
            self.reopen();
        }
        let mut random = self.random.clone();
        use_up(self.store(), &self.clock, &mut random).unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    /// It has changed nothing.
    Failed,
    Unknown,
}

/// What a store does when its disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A write that the log takes.
    Small,
    /// A group of writes.
    Group,
    /// A write that is too large for the log.
    Large,
    /// A write that begins the log.
    First,
    Clear,
    /// Everything in the log goes to the data file.
    Drain,
    Clean,
    /// The log is ended and begun again.
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
    /// What must have happened before the disk fails.
    fn prepare(self, bed: &mut Bed) {
        if self == Self::First {
            bed.reopen();
        } else {
            bed.fill();
            bed.fill();
        }
    }

    /// Does it while the disk fails, and returns the operations whose outcome is unknown.
    fn perform(self, bed: &mut Bed) -> Vec<Op> {
        let op = match self {
            Self::Small | Self::First => bed.change(0..2000),
            Self::Large => bed.change(32_000..60_000),
            Self::Clear => Op::Clear,
            Self::Group => {
                let ops: Vec<Op> = (0..6)
                    .map(|_| Op::random(0, bed.clock.now(), &mut bed.random))
                    .filter(Op::is_hot)
                    .collect();
                let begun = Instant::now();
                let mut unknown = Vec::new();
                for (op, result) in ops.iter().zip(perform_together(&ops, bed.store(), |_| ())) {
                    match result {
                        Err(error) if matches!(error.code(), FULL | IO) => {
                            if error.is_outcome_unknown() {
                                unknown.push(op.clone());
                            }
                        }
                        result => {
                            assert_eq!(outcome(result), bed.lane.apply(op, bed.clock.now()), "{op:?}");
                        }
                    }
                }
                assert!(begun.elapsed() < PATIENCE);
                return unknown;
            }
            Self::Drain => {
                let _ = bed.store().ids(Cursor::default());
                return Vec::new();
            }
            Self::Clean => {
                let _ = bed.store().clean();
                return Vec::new();
            }
            Self::Backup => {
                let to = disk::temp_dir();
                let _ = bed.store().backup(to.path(), &mut |_, _| ());
                return Vec::new();
            }
            Self::Close => {
                bed.close();
                return Vec::new();
            }
        };
        match bed.attempt(&op) {
            Attempt::Unknown => vec![op],
            Attempt::Done | Attempt::Failed => Vec::new(),
        }
    }
}

/// Has an action meet faults, and checks what is there while the disk fails, after a kill, and once it works again.
fn inject(bed: &mut Bed, action: Action, faults: &[Fault]) -> usize {
    let context = format!("{action:?} of {:?} with {faults:?}", bed.setup);
    action.prepare(bed);
    bed.fail(faults);
    let unknown = action.perform(bed);
    let failed = bed.disk.failed_calls();
    let is_closed = bed.store.is_none();
    if unknown.is_empty() && !is_closed {
        bed.check_reads(&context);
        if let Ok(view) = bed.view_if_killed() {
            assert!(view == bed.view(), "{context}: after a kill there are other sessions");
        }
    }
    bed.check_no_retries(&bed.disk.take_log(), &context);
    bed.disk.fail(&bed.standing);
    if is_closed {
        bed.reopen();
    }
    if !unknown.is_empty() {
        // All or nothing of it. Which it is, is certain after this.
        let view = look(bed.store(), 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        if view != bed.view() {
            unknown.iter().for_each(|op| _ = bed.lane.apply(op, bed.clock.now()));
        }
    }
    let seen = look(bed.store(), 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
    assert!(seen == bed.view(), "{context}: the store has other sessions than it should");
    // The store works again, without being opened again.
    bed.fill();
    bed.check_reads(&context);
    bed.reopen();
    let seen = look(bed.store(), 1).unwrap_or_else(|fault| panic!("{context}, opened again: {fault}"));
    assert!(seen == bed.view(), "{context}, opened again: the store has other sessions than it should");
    failed
}

/// Has each of an action's calls of a kind fail in turn. Returns how many there were.
fn fail_each(bed: &mut Bed, action: Action, call: Call, failure: Failure, times: usize) -> usize {
    /// Of the many pages of a large commit the first ones will do.
    const MAX: usize = 12;
    for after in 0..MAX {
        if inject(bed, action, &[Fault { call, after, times, failure }]) == 0 {
            return after;
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
    }
    MAX
}

fn fail_all(test: &str, calls: &[Call], failures: &[(Failure, usize)]) {
    let _alone = begin();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let mut hits = vec![0; calls.len()];
    for setup in [Setup::logged(false, Commit), Setup::logged(true, EverySec)] {
        let mut bed = Bed::new(setup, &small_log());
        for action in ACTIONS {
            for (call, hits) in calls.iter().zip(&mut hits) {
                for (failure, times) in failures {
                    *hits += fail_each(&mut bed, action, *call, *failure, *times);
                }
            }
        }
        bed.finish();
    }
    print_injections(test, before);
    assert!(hits.iter().all(|&hits| hits > 0), "{calls:?}: {hits:?}");
}

#[test]
fn a_log_that_cannot_be_written_or_synced_fails_its_writes_alone() {
    let failures = [
        (Failure::Refused(EIO), 1),
        (Failure::Refused(ENOSPC), ALWAYS),
        (Failure::Doubtful(EIO), 1),
        (Failure::Doubtful(ENOSPC), ALWAYS),
    ];
    fail_all("log", &[Call::LogWrite, Call::LogSync], &failures);
}

#[test]
fn a_log_that_is_written_in_part_fails_its_writes_alone() {
    let failures = [(Failure::Short(0), ALWAYS), (Failure::Short(1), 1), (Failure::Short(30), 3)];
    fail_all("short", &[Call::LogWrite], &failures);
}

#[test]
fn a_data_file_that_cannot_be_written_or_synced_loses_nothing_of_the_log() {
    let failures =
        [(Failure::Refused(EIO), 1), (Failure::Refused(ENOSPC), ALWAYS), (Failure::Refused(EIO), ALWAYS)];
    fail_all("data", &[Call::Write, Call::Sync], &failures);
}

#[test]
fn a_meta_page_that_cannot_be_written_loses_nothing_of_the_log() {
    let failures = [
        (Failure::Refused(EIO), ALWAYS),
        (Failure::Doubtful(EIO), ALWAYS),
        (Failure::Doubtful(ENOSPC), 1),
        (Failure::Short(60), ALWAYS),
    ];
    fail_all("meta", &[Call::WriteThrough], &failures);
}

/// Neither the log nor the data file takes a write: then its outcome is unknown, and later writes fail.
#[test]
fn a_disk_that_fails_for_both_files_leaves_an_unknown_outcome() {
    let _alone = begin();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let mut unknown = 0;
    for setup in [Setup::logged(false, Commit), Setup::logged(false, EverySec)] {
        let mut bed = Bed::new(setup, &small_log());
        for log in [Call::LogWrite, Call::LogSync] {
            for data in [Call::Write, Call::Sync, Call::WriteThrough] {
                for failure in [Failure::Refused(EIO), Failure::Doubtful(EIO), Failure::Refused(ENOSPC)] {
                    let context = format!("{log:?} and {data:?}: {failure:?} ({setup:?})");
                    (0..2).for_each(|_| bed.fill());
                    let fault = |call, failure| Fault { call, after: 0, times: ALWAYS, failure };
                    // A sync that fails late fails the next one of each descriptor, too.
                    let of_data = if data == Call::Sync { Failure::Refused(EIO) } else { failure };
                    bed.fail(&[fault(log, failure), fault(data, of_data)]);
                    let op = bed.change(0..2000);
                    let killed = match bed.attempt(&op) {
                        Attempt::Done => continue,
                        Attempt::Failed => false,
                        Attempt::Unknown => true,
                    };
                    INJECTIONS.fetch_add(1, Ordering::Relaxed);
                    unknown += usize::from(killed);
                    bed.check_reads(&context);
                    let next = bed.change(0..2000);
                    assert_ne!(bed.attempt(&next), Attempt::Done, "{context}");
                    bed.check_reads(&context);
                    if killed {
                        let view = bed.view_if_killed().unwrap_or_else(|fault| panic!("{context}: {fault}"));
                        let mut model = bed.lane.last().clone();
                        let _ = model.apply(&op, bed.clock.now());
                        assert!(view == bed.view() || view == model.view(bed.clock.now()), "{context}");
                    }
                    bed.check_no_retries(&bed.disk.take_log(), &context);
                    bed.disk.fail(&bed.standing);
                    bed.fill();
                    bed.check();
                    bed.reopen();
                    bed.check();
                }
            }
        }
        bed.finish();
    }
    print_injections("both", before);
    assert!(unknown > 0);
}

/// A log that the store makes, and one that takes the place of a smaller one.
#[test]
fn a_log_that_cannot_be_made_costs_no_write() {
    let _alone = begin();
    let before = INJECTIONS.load(Ordering::Relaxed);
    let calls =
        [Call::NewLogWrite, Call::NewLogSync, Call::Rename, Call::FolderSync, Call::LogWrite, Call::LogSync];
    for call in calls {
        for failure in [Failure::Refused(EIO), Failure::Refused(ENOSPC), Failure::Doubtful(EIO)] {
            for after in 0..6 {
                let mut bed = Bed::new(Setup::direct(false), &own_log());
                bed.setup = Setup::logged(false, Commit);
                bed.standing.clear();
                bed.reopen();
                bed.disk.take_log();
                bed.disk.fail(&[Fault { call, after, times: 1, failure }]);
                let op = bed.change(0..2000);
                let done = bed.attempt(&op);
                if bed.disk.failed_calls() == 0 {
                    break;
                }
                INJECTIONS.fetch_add(1, Ordering::Relaxed);
                let context = format!("{call:?} {after}: {failure:?}");
                assert!(done == Attempt::Done || after > 0, "{context}");
                bed.check_reads(&context);
                let view = bed.view_if_killed().unwrap_or_else(|fault| panic!("{context}: {fault}"));
                assert!(view == bed.view(), "{context}: after a kill there are other sessions");
                bed.disk.fail(&[]);
                bed.fill();
                bed.check();
                bed.reopen();
                bed.fill();
                assert!(bed.store().stats().unwrap().log.unwrap().size > 0, "{context}: there is no log");
                let leftover = bed.dir.path().join(disk::NEW_LOG);
                assert!(!leftover.exists(), "{context}: a part of a log is left");
                bed.check();
            }
        }
    }
    print_injections("making", before);
}

/// A log that cannot give way to a larger one costs no write, and the store has a log again after a while.
#[test]
fn a_log_that_cannot_grow_costs_no_write() {
    let _alone = begin();
    let before = INJECTIONS.load(Ordering::Relaxed);
    for call in [Call::NewLogWrite, Call::NewLogSync, Call::Rename, Call::FolderSync] {
        let mut bed = Bed::new(Setup::logged(false, Commit), &small_log());
        bed.standing.clear();
        bed.disk.fail(&[Fault { call, after: 0, times: 1, failure: Failure::Refused(EIO) }]);
        let begun = Instant::now();
        while bed.disk.failed_calls() == 0 {
            assert!(begun.elapsed() < 5 * PATIENCE, "{call:?}: the log does not grow");
            bed.fill();
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
        bed.fill();
        bed.check_reads("a log that cannot grow");
        let begun = Instant::now();
        while bed.store().stats().unwrap().log.unwrap().size == 0 {
            assert!(begun.elapsed() < 2 * PATIENCE, "{call:?}: there is no log again");
            std::thread::sleep(Duration::from_millis(50));
            bed.fill();
        }
        bed.check();
        bed.finish();
    }
    print_injections("growing", before);
}

/// After a failed sync the log gives way to a new file.
#[test]
fn a_log_that_has_failed_is_replaced_by_a_new_file() {
    let _alone = begin();
    for (call, failure) in [
        (Call::LogSync, Failure::Refused(EIO)),
        (Call::LogSync, Failure::Doubtful(EIO)),
        (Call::LogWrite, Failure::Refused(ENOSPC)),
    ] {
        let mut bed = Bed::new(Setup::logged(false, Commit), &small_log());
        bed.fill();
        let old = bed.disk.log_file();
        bed.disk.take_log();
        bed.disk.fail(&[Fault { call, after: 0, times: 1, failure }]);
        let op = bed.change(0..2000);
        assert_eq!(bed.attempt(&op), Attempt::Failed);
        let begun = Instant::now();
        while bed.disk.log_file() == old {
            assert!(begun.elapsed() < 3 * PATIENCE, "there is no new log");
            std::thread::sleep(Duration::from_millis(100));
            let op = bed.change(0..2000);
            assert_eq!(bed.attempt(&op), Attempt::Done);
        }
        INJECTIONS.fetch_add(1, Ordering::Relaxed);
        bed.check_no_retries(&bed.disk.take_log(), "replaced");
        assert!(bed.store().stats().unwrap().log.unwrap().used > 0);
        bed.check();
        bed.finish();
    }
}

/// A killed process leaves a log, and the disk fails while the next one recovers it.
#[test]
fn a_recovery_that_fails_is_made_again() {
    let _alone = begin();
    let before = INJECTIONS.load(Ordering::Relaxed);
    for setup in [Setup::logged(false, Commit), Setup::logged(true, EverySec)] {
        let mut bed = Bed::new(setup, &small_log());
        (0..3).for_each(|_| bed.fill());
        let image = Image::of(bed.dir.path());
        let calls =
            [Call::LogRead, Call::LogWrite, Call::LogSync, Call::Write, Call::Sync, Call::WriteThrough];
        for (call, opened_with) in calls
            .iter()
            .flat_map(|call| [setup, Setup::direct(setup.sealed)].map(|opened_with| (*call, opened_with)))
        {
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
                    let begun = Instant::now();
                    let opened = sessions::open(dir.path(), opened_with, bed.clock.now());
                    let failed = opened.as_ref().err().map(|error| error.code());
                    assert!(matches!(failed, None | Some(FULL | IO)), "{context}: {failed:?}");
                    if let Ok((store, _)) = &opened {
                        let seen = peek(store, 0).unwrap_or_else(|fault| panic!("{context}: {fault}"));
                        assert!(seen == bed.view(), "{context}: a read sees other sessions");
                        // It commits, and may fail.
                        let _ = store.ids(Cursor::default());
                    }
                    drop(opened);
                    assert!(begun.elapsed() < PATIENCE, "{context}: {:?}", begun.elapsed());
                    if disk.failed_calls() == 0 {
                        assert_eq!(failed, None, "{context}");
                        break;
                    }
                    INJECTIONS.fetch_add(1, Ordering::Relaxed);
                    disk.fail(&[no_growth()]);
                    let (store, clock) = sessions::open(dir.path(), setup, bed.clock.now())
                        .unwrap_or_else(|error| panic!("{context}, opened again: {error}"));
                    let seen = look(&store, 1).unwrap_or_else(|fault| panic!("{context}: {fault}"));
                    assert!(seen == bed.view(), "{context}: opened again, it has other sessions");
                    use_up(&store, &clock, &mut Random::new(1)).unwrap();
                }
            }
        }
        bed.finish();
    }
    print_injections("recovery", before);
}
