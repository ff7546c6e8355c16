//! The disk refuses to write, to sync, or writes a part only: the write that it hits is reported and undone, nothing
//! else is harmed, and the store goes on.
//!
//! The stores here are too small for a redo log, so that each write is a commit of LMDB's. `log_faults` has the others.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libc::{EINTR, EIO, ENOSPC};
use native_store::clock::{Clock, MockClock};
use native_store::store::{FileStore, SessionStore};
use tempfile::TempDir;

use disk::sessions::{
    self, Lane, Model, Op, Outcome, START, Setup, View, look, outcome, perform_together, use_up,
};
use disk::{Call, Disk, Event, Failure, Fault, Random};

const FULL: &str = "ERR_STORE_FULL";
const IO: &str = "ERR_STORE_IO";

const ALWAYS: usize = usize::MAX;

/// All is the same in each run.
const SEED: u64 = 1;

/// A store with sessions in it, on a disk that can be made to fail.
struct Bed {
    dir: TempDir,
    disk: Disk,
    sealed: bool,
    store: Option<Arc<FileStore>>,
    clock: Arc<MockClock>,
    lane: Lane,
    random: Random,
}

impl Bed {
    fn new(sealed: bool) -> Self {
        let dir = disk::temp_dir();
        let disk = Disk::watch(&disk::data_file(dir.path(), &[]));
        let (store, clock) = sessions::open(dir.path(), Setup::direct(sealed), START).unwrap();
        let lane = Lane::new(Model::default(), START);
        let mut bed = Self { dir, disk, sealed, store: Some(store), clock, lane, random: Random::new(SEED) };
        for _ in 0..6 {
            let ops: Vec<Op> = (0..20).map(|_| bed.random_op()).filter(Op::is_hot).collect();
            bed.perform_together(&ops);
        }
        bed.check();
        bed
    }

    fn store(&self) -> &FileStore {
        self.store.as_ref().unwrap()
    }

    fn view(&self) -> View {
        self.lane.last().view(self.clock.now())
    }

    fn random_op(&mut self) -> Op {
        Op::random(0, self.clock.now(), &mut self.random)
    }

    /// An operation that cannot but change what is there.
    fn change(&mut self) -> Op {
        loop {
            let op = if self.random.one_in(30) { Op::Clear } else { self.random_op() };
            let mut model = self.lane.last().clone();
            let outcome = model.apply(&op, self.clock.now());
            if outcome.is_ok() && model.view(self.clock.now()) != self.view() {
                return op;
            }
        }
    }

    /// Does what must go well.
    fn perform(&mut self, op: &Op) {
        let expected = self.lane.apply(op, self.clock.now());
        assert_eq!(outcome(op.perform(self.store())), expected, "{op:?}");
    }

    /// Does what should fail with this code, unless that it did once was no harm. What failed has not happened.
    fn attempt(&mut self, op: &Op, code: &str) -> bool {
        match outcome(op.perform(self.store())) {
            Err(met @ (FULL | IO)) => {
                assert_eq!(met, code, "{op:?}");
                true
            }
            outcome => {
                assert_eq!(outcome, self.lane.apply(op, self.clock.now()), "{op:?}");
                false
            }
        }
    }

    /// Does what may fail, and tells which codes were met. What failed has not happened.
    fn perform_together(&mut self, ops: &[Op]) -> Vec<&'static str> {
        let mut codes = Vec::new();
        for (op, result) in ops.iter().zip(perform_together(ops, self.store(), |_| ())) {
            match outcome(result) {
                Err(code @ (FULL | IO)) => codes.push(code),
                outcome => assert_eq!(outcome, self.lane.apply(op, self.clock.now()), "{op:?}"),
            }
        }
        codes
    }

    /// The store has exactly what it should.
    fn check(&self) {
        match look(self.store(), 1) {
            Ok(view) => assert!(view == self.view(), "the store has other sessions than it should"),
            Err(fault) => panic!("{fault}"),
        }
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, clock) =
            sessions::open(self.dir.path(), Setup::direct(self.sealed), self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }

    /// The store goes on, and opens again.
    fn finish(mut self) {
        for _ in 0..2 {
            self.check();
            let ops: Vec<Op> = (0..20).map(|_| self.random_op()).filter(Op::is_hot).collect();
            assert_eq!(self.perform_together(&ops), Vec::<&str>::new());
            self.check();
            self.reopen();
        }
        let mut random = self.random.clone();
        use_up(self.store(), &self.clock, &mut random).unwrap();
    }
}

/// Has each of a commit's calls of a kind fail in turn.
fn fail_each(call: Call, failure: Failure, times: usize, code: &str) {
    let mut bed = Bed::new(call == Call::Sync);
    let mut failures = 0;
    for after in 0.. {
        bed.disk.fail(&[Fault { call, after, times, failure }]);
        let op = bed.change();
        let has_failed = bed.attempt(&op, code);
        // The disk may still fail.
        bed.check();
        if bed.disk.clear_faults() == 0 {
            assert!(!has_failed);
            break;
        }
        failures += 1;
        // Where there was no room for once, the store may have made some.
        assert!(has_failed || times == 1 && code == FULL, "{call:?} {after}: {failure:?}");
        bed.check();
        let op = bed.change();
        bed.perform(&op);
        bed.check();
        if bed.random.one_in(3) {
            bed.reopen();
        }
    }
    assert!(failures > 0);
    bed.finish();
}

#[test]
fn a_page_that_cannot_be_written_fails_its_write_alone() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        for times in [1, ALWAYS] {
            fail_each(Call::Write, Failure::Refused(number), times, code);
        }
        fail_each(Call::Write, Failure::Doubtful(number), ALWAYS, code);
    }
}

#[test]
fn a_page_that_is_written_in_part_fails_its_write_alone() {
    for (len, times) in [(0, ALWAYS), (1, 1), (512, ALWAYS), (4095, 1)] {
        fail_each(Call::Write, Failure::Short(len), times, IO);
    }
}

#[test]
fn a_sync_that_fails_fails_its_write_alone() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        for times in [1, ALWAYS] {
            fail_each(Call::Sync, Failure::Refused(number), times, code);
        }
    }
    fail_each(Call::Sync, Failure::Refused(EINTR), 1, IO);
}

#[test]

fn a_meta_page_that_cannot_be_written_fails_its_write_alone() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        fail_each(Call::WriteThrough, Failure::Refused(number), ALWAYS, code);
        fail_each(Call::WriteThrough, Failure::Doubtful(number), ALWAYS, code);
    }
    fail_each(Call::WriteThrough, Failure::Short(60), ALWAYS, IO);
}

/// Each attempt costs two calls that fail: one of the commit, and one after the file was opened again. A disk may need
/// seconds to fail one.
#[test]
fn a_disk_that_fails_is_asked_twice_for_each_write() {
    let mut bed = Bed::new(false);
    for _ in 0..3 {
        let failure = Failure::Refused(EIO);
        bed.disk.fail(&[Fault { call: Call::Sync, after: 0, times: ALWAYS, failure }]);
        let error = bed.change().perform(bed.store()).unwrap_err();
        assert_eq!((error.code(), error.is_outcome_unknown()), (IO, false));
        assert_eq!(bed.disk.clear_faults(), 2);
    }
    bed.check();
    bed.finish();
}

/// The sync that should bring it to the disk has failed, and the next one must not be believed: it may have nothing to
/// write. So the meta pages are written again.
#[test]
fn meta_pages_are_written_again_after_a_failed_commit_and_not_after_a_good_one() {
    let mut bed = Bed::new(false);
    let is_rewrite =
        |event: &Event| matches!(event, Event::Write { at, durable: false, .. } if *at < 2 * 4096);
    let rewrites = |bed: &mut Bed| {
        bed.disk.take_log();
        let op = bed.change();
        bed.perform(&op);
        bed.disk.take_log().iter().filter(|event| is_rewrite(event)).count()
    };
    assert_eq!(rewrites(&mut bed), 0);
    for call in [Call::Sync, Call::WriteThrough] {
        let failure = Failure::Refused(EIO);
        bed.disk.fail(&[Fault { call, after: 0, times: 1, failure }]);
        let op = bed.change();
        assert!(bed.attempt(&op, IO));
        bed.disk.clear_faults();
        assert_eq!([rewrites(&mut bed), rewrites(&mut bed)], [2, 0]);
    }
    // A process does not know how the one before it has ended.
    bed.reopen();
    assert_eq!([rewrites(&mut bed), rewrites(&mut bed)], [2, 0]);
    bed.finish();
}

/// As Linux tells of it again by the descriptor through which LMDB writes meta pages.
#[test]

fn a_sync_that_fails_once_fails_one_write() {
    let mut bed = Bed::new(false);
    for (number, code) in [(EIO, IO), (ENOSPC, FULL)] {
        let failure = Failure::Doubtful(number);
        bed.disk.fail(&[Fault { call: Call::Sync, after: 0, times: 1, failure }]);
        let op = bed.change();
        assert!(bed.attempt(&op, code) || code == FULL);
        for _ in 0..3 {
            bed.check();
            let op = bed.change();
            bed.perform(&op);
        }
    }
    bed.finish();
}

#[test]

fn reads_never_fail_while_commits_do() {
    let mut bed = Bed::new(false);
    let store = Arc::clone(bed.store.as_ref().unwrap());
    let sessions = store.size().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut reads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(store.size(), Ok(sessions));
                    reads += 1;
                }
                reads
            })
        });
        let calls = [Call::Write, Call::Sync, Call::WriteThrough].repeat(20);
        let results = calls.into_iter().map(|call| {
            bed.disk.fail(&[Fault { call, after: 0, times: ALWAYS, failure: Failure::Doubtful(EIO) }]);
            outcome(bed.change().perform(bed.store()))
        });
        let results: Vec<Outcome> = results.collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| *result == Err(IO)), "{results:?}");
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    bed.disk.clear_faults();
    drop(store);
    bed.finish();
}

#[test]
fn an_interrupted_write_is_made_again() {
    for call in [Call::Write, Call::WriteThrough] {
        let mut bed = Bed::new(false);
        for after in 0..4 {
            bed.disk.fail(&[Fault { call, after, times: 3, failure: Failure::Refused(EINTR) }]);
            for _ in 0..4 {
                let op = bed.change();
                bed.perform(&op);
            }
            assert_eq!(bed.disk.clear_faults(), 3);
        }
        bed.finish();
    }
}

/// Has calls fail under groups of operations.
fn fail_groups(calls: &[Call]) {
    let mut bed = Bed::new(false);
    let mut met = [0; 2];
    for _ in 0..50 {
        let call = calls[bed.random.below(calls.len() as u64) as usize];
        let (number, code) = if bed.random.one_in(2) { (ENOSPC, FULL) } else { (EIO, IO) };
        let after = bed.random.below(if call == Call::Write { 8 } else { 3 }) as usize;
        let times = if bed.random.one_in(2) { ALWAYS } else { 1 + bed.random.below(4) as usize };
        let ops: Vec<Op> = (0..5).map(|_| bed.random_op()).filter(Op::is_hot).collect();
        bed.disk.fail(&[Fault { call, after, times, failure: Failure::Refused(number) }]);
        let codes = bed.perform_together(&ops);
        bed.check();
        bed.disk.clear_faults();
        assert!(codes.iter().all(|met| *met == code), "{codes:?}, not {code}");
        met[usize::from(codes.is_empty())] += 1;
    }
    assert!(met.iter().all(|&times| times > 5), "{met:?}");
    bed.finish();
}

#[test]
fn of_a_group_only_what_fails_alone_is_refused() {
    fail_groups(&[Call::Write, Call::Sync]);
}

#[test]

fn of_a_group_whose_meta_page_cannot_be_written_only_what_fails_alone_is_refused() {
    fail_groups(&[Call::Write, Call::Sync, Call::WriteThrough]);
}

#[test]
fn a_sweep_that_fails_leaves_the_rest_to_the_next() {
    let bed = Bed::new(false);
    let held = bed.store().stats().unwrap().sessions.unwrap();
    bed.clock.advance(1000);
    for (call, number, code) in [(Call::Write, ENOSPC, FULL), (Call::Sync, EIO, IO)] {
        bed.disk.fail(&[Fault { call, after: 0, times: ALWAYS, failure: Failure::Refused(number) }]);
        assert_eq!(bed.store().clean().unwrap_err().code(), code);
        assert!(bed.disk.clear_faults() > 0);
        assert_eq!(bed.store().stats().unwrap().sessions, Some(held));
    }
    assert_eq!(bed.store().clean(), Ok(held));
    bed.finish();
}

#[test]
fn a_store_that_could_not_be_made_can_be_made_later() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        for call in [Call::Write, Call::Sync, Call::WriteThrough] {
            for after in 0.. {
                let dir = disk::temp_dir();
                let disk = Disk::watch(&disk::data_file(dir.path(), &[]));
                disk.fail(&[Fault { call, after, times: ALWAYS, failure: Failure::Refused(number) }]);
                let failed = sessions::open(dir.path(), Setup::direct(false), START).err();
                if disk.clear_faults() == 0 {
                    assert_eq!(failed, None);
                    break;
                }
                assert_eq!(failed.unwrap().code(), code, "{call:?} {after}");
                let (store, clock) = sessions::open(dir.path(), Setup::direct(false), START).unwrap();
                use_up(&store, &clock, &mut Random::new(SEED)).unwrap();
            }
        }
    }
}

/// LMDB takes back the meta page that it could not write. If it cannot do that either, the write has happened.
#[test]
fn a_store_whose_meta_page_could_not_be_written_opens_again() {
    for failure in
        [Failure::Refused(ENOSPC), Failure::Refused(EIO), Failure::Doubtful(EIO), Failure::Short(60)]
    {
        for takes_back in [true, false] {
            let mut bed = Bed::new(false);
            let op = bed.change();
            let fault = Fault { call: Call::WriteThrough, after: 0, times: ALWAYS, failure };
            let other = Fault { call: Call::TakeBack, failure: Failure::Refused(EIO), ..fault };
            bed.disk.fail(&[fault, other][..if takes_back { 1 } else { 2 }]);
            let error = op.perform(bed.store()).unwrap_err();
            assert!(error.is_outcome_unknown(), "{error}");
            bed.disk.clear_faults();
            bed.reopen();
            let has_happened = look(bed.store(), 1).unwrap() != bed.view();
            assert_eq!(has_happened, !takes_back && matches!(failure, Failure::Doubtful(_)));
            if has_happened {
                bed.lane.apply(&op, bed.clock.now()).unwrap();
            }
            bed.finish();
        }
    }
}
