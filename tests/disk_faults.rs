//! Writes or syncs of the disk fail, or only a part is written. The affected write reports an error and is rolled back,
//! other sessions stay as they are, and the store continues to work.
//!
//! The stores here are too small for a redo log, so each write is a commit of LMDB. `log_faults` tests stores with a
//! log.

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
    self, Lane, Model, Op, Outcome, START, Setup, View, check_usable, look, outcome, perform_together,
};
use disk::{Call, Disk, Event, Failure, Fault, Random};

const FULL: &str = "ERR_STORE_FULL";
const IO: &str = "ERR_STORE_IO";

const ALWAYS: usize = usize::MAX;

/// The tests are the same in each run.
const SEED: u64 = 1;

/// A store with sessions, on a disk whose calls can fail.
struct Fixture {
    dir: TempDir,
    disk: Disk,
    is_encrypted: bool,
    store: Option<Arc<FileStore>>,
    clock: Arc<MockClock>,
    lane: Lane,
    random: Random,
}

impl Fixture {
    fn new(is_encrypted: bool) -> Self {
        let dir = disk::temp_dir();
        let disk = Disk::watch(&disk::data_file(dir.path(), &[]));
        let (store, clock) = sessions::open(dir.path(), Setup::direct(is_encrypted), START).unwrap();
        let lane = Lane::new(Model::default(), START);
        let mut fixture =
            Self { dir, disk, is_encrypted, store: Some(store), clock, lane, random: Random::new(SEED) };
        for _ in 0..6 {
            let ops: Vec<Op> = (0..20).map(|_| fixture.random_op()).filter(Op::can_be_queued).collect();
            fixture.perform_together(&ops);
        }
        fixture.check();
        fixture
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

    /// Returns a random operation that changes the view of the store.
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

    /// Performs an operation that must succeed.
    fn perform(&mut self, op: &Op) {
        let expected = self.lane.apply(op, self.clock.now());
        assert_eq!(outcome(op.perform(self.store())), expected, "{op:?}");
    }

    /// Performs an operation that fails with this code, or succeeds although a call has failed. Returns whether it
    /// failed. A failed operation changes nothing.
    fn attempt(&mut self, op: &Op, code: &str) -> bool {
        match outcome(op.perform(self.store())) {
            Err(found @ (FULL | IO)) => {
                assert_eq!(found, code, "{op:?}");
                true
            }
            outcome => {
                assert_eq!(outcome, self.lane.apply(op, self.clock.now()), "{op:?}");
                false
            }
        }
    }

    /// Performs operations that may fail, and returns the codes of the errors. A failed operation changes nothing.
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

    /// Checks that the store has exactly the expected sessions.
    fn check(&self) {
        match look(self.store(), 1) {
            Ok(view) => assert!(view == self.view(), "the store has other sessions than it should"),
            Err(fault) => panic!("{fault}"),
        }
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, clock) =
            sessions::open(self.dir.path(), Setup::direct(self.is_encrypted), self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }

    /// Checks that the store continues to work, and opens again.
    fn finish(mut self) {
        for _ in 0..2 {
            self.check();
            let ops: Vec<Op> = (0..20).map(|_| self.random_op()).filter(Op::can_be_queued).collect();
            assert_eq!(self.perform_together(&ops), Vec::<&str>::new());
            self.check();
            self.reopen();
        }
        let mut random = self.random.clone();
        check_usable(self.store(), &self.clock, &mut random).unwrap();
    }
}

/// Lets the calls of one kind in a commit fail, one call after the other.
fn fail_each(call: Call, failure: Failure, times: usize, code: &str) {
    let mut fixture = Fixture::new(call == Call::Sync);
    let mut failures = 0;
    for after in 0.. {
        fixture.disk.fail(&[Fault { call, after, times, failure }]);
        let op = fixture.change();
        let has_failed = fixture.attempt(&op, code);
        // The disk may still be failing.
        fixture.check();
        if fixture.disk.clear_faults() == 0 {
            assert!(!has_failed);
            break;
        }
        failures += 1;
        // If the disk was full only once, the store may have made room.
        assert!(has_failed || times == 1 && code == FULL, "{call:?} {after}: {failure:?}");
        fixture.check();
        let op = fixture.change();
        fixture.perform(&op);
        fixture.check();
        if fixture.random.one_in(3) {
            fixture.reopen();
        }
    }
    assert!(failures > 0);
    fixture.finish();
}

#[test]
fn a_failed_page_write_fails_only_that_write() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        for times in [1, ALWAYS] {
            fail_each(Call::Write, Failure::Refused(number), times, code);
        }
        fail_each(Call::Write, Failure::Doubtful(number), ALWAYS, code);
    }
}

#[test]
fn a_partial_page_write_fails_only_that_write() {
    for (len, times) in [(0, ALWAYS), (1, 1), (512, ALWAYS), (4095, 1)] {
        fail_each(Call::Write, Failure::Short(len), times, IO);
    }
}

#[test]
fn a_failed_sync_fails_only_that_write() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        for times in [1, ALWAYS] {
            fail_each(Call::Sync, Failure::Refused(number), times, code);
        }
    }
    fail_each(Call::Sync, Failure::Refused(EINTR), 1, IO);
}

#[test]
fn a_failed_meta_page_write_fails_only_that_write() {
    for (number, code) in [(ENOSPC, FULL), (EIO, IO)] {
        fail_each(Call::WriteThrough, Failure::Refused(number), ALWAYS, code);
        fail_each(Call::WriteThrough, Failure::Doubtful(number), ALWAYS, code);
    }
    fail_each(Call::WriteThrough, Failure::Short(60), ALWAYS, IO);
}

/// Each write makes two calls that fail: one in the commit, and one after the file was opened again. The number
/// matters, because a disk may need seconds to fail a call.
#[test]
fn each_write_to_a_failing_disk_makes_two_failing_calls() {
    let mut fixture = Fixture::new(false);
    for _ in 0..3 {
        let failure = Failure::Refused(EIO);
        fixture.disk.fail(&[Fault { call: Call::Sync, after: 0, times: ALWAYS, failure }]);
        let error = fixture.change().perform(fixture.store()).unwrap_err();
        assert_eq!((error.code(), error.is_outcome_unknown()), (IO, false));
        assert_eq!(fixture.disk.clear_faults(), 2);
    }
    fixture.check();
    fixture.finish();
}

/// After a failed sync, the success of the next sync proves nothing: the kernel may have dropped the pages. So the
/// store rewrites the meta pages.
#[test]
fn meta_pages_are_rewritten_only_after_a_failed_commit() {
    let mut fixture = Fixture::new(false);
    let is_rewrite =
        |event: &Event| matches!(event, Event::Write { at, durable: false, .. } if *at < 2 * 4096);
    let rewrites = |fixture: &mut Fixture| {
        fixture.disk.take_log();
        let op = fixture.change();
        fixture.perform(&op);
        fixture.disk.take_log().iter().filter(|event| is_rewrite(event)).count()
    };
    assert_eq!(rewrites(&mut fixture), 0);
    for call in [Call::Sync, Call::WriteThrough] {
        let failure = Failure::Refused(EIO);
        fixture.disk.fail(&[Fault { call, after: 0, times: 1, failure }]);
        let op = fixture.change();
        assert!(fixture.attempt(&op, IO));
        fixture.disk.clear_faults();
        assert_eq!([rewrites(&mut fixture), rewrites(&mut fixture)], [2, 0]);
    }
    // A process does not know whether the last commit of the process before it has failed.
    fixture.reopen();
    assert_eq!([rewrites(&mut fixture), rewrites(&mut fixture)], [2, 0]);
    fixture.finish();
}

/// Linux reports the failed sync once more, on the descriptor with which LMDB writes meta pages.
#[test]
fn a_sync_that_fails_once_fails_at_most_one_write() {
    let mut fixture = Fixture::new(false);
    for (number, code) in [(EIO, IO), (ENOSPC, FULL)] {
        let failure = Failure::Doubtful(number);
        fixture.disk.fail(&[Fault { call: Call::Sync, after: 0, times: 1, failure }]);
        let op = fixture.change();
        assert!(fixture.attempt(&op, code) || code == FULL);
        for _ in 0..3 {
            fixture.check();
            let op = fixture.change();
            fixture.perform(&op);
        }
    }
    fixture.finish();
}

#[test]
fn reads_never_fail_while_commits_do() {
    let mut fixture = Fixture::new(false);
    let store = Arc::clone(fixture.store.as_ref().unwrap());
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
            fixture.disk.fail(&[Fault { call, after: 0, times: ALWAYS, failure: Failure::Doubtful(EIO) }]);
            outcome(fixture.change().perform(fixture.store()))
        });
        let results: Vec<Outcome> = results.collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| *result == Err(IO)), "{results:?}");
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    fixture.disk.clear_faults();
    drop(store);
    fixture.finish();
}

#[test]
fn an_interrupted_write_is_retried() {
    for call in [Call::Write, Call::WriteThrough] {
        let mut fixture = Fixture::new(false);
        for after in 0..4 {
            fixture.disk.fail(&[Fault { call, after, times: 3, failure: Failure::Refused(EINTR) }]);
            for _ in 0..4 {
                let op = fixture.change();
                fixture.perform(&op);
            }
            assert_eq!(fixture.disk.clear_faults(), 3);
        }
        fixture.finish();
    }
}

/// Lets calls fail while groups of operations are performed.
fn fail_groups(calls: &[Call]) {
    let mut fixture = Fixture::new(false);
    let mut counts = [0; 2];
    for _ in 0..50 {
        let call = calls[fixture.random.below(calls.len() as u64) as usize];
        let (number, code) = if fixture.random.one_in(2) { (ENOSPC, FULL) } else { (EIO, IO) };
        let after = fixture.random.below(if call == Call::Write { 8 } else { 3 }) as usize;
        let times = if fixture.random.one_in(2) { ALWAYS } else { 1 + fixture.random.below(4) as usize };
        let ops: Vec<Op> = (0..5).map(|_| fixture.random_op()).filter(Op::can_be_queued).collect();
        fixture.disk.fail(&[Fault { call, after, times, failure: Failure::Refused(number) }]);
        let codes = fixture.perform_together(&ops);
        fixture.check();
        fixture.disk.clear_faults();
        assert!(codes.iter().all(|found| *found == code), "{codes:?}, not {code}");
        counts[usize::from(codes.is_empty())] += 1;
    }
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
    fixture.finish();
}

#[test]
fn a_failed_group_is_retried_and_only_operations_that_fail_alone_are_refused() {
    fail_groups(&[Call::Write, Call::Sync]);
}

#[test]
fn a_group_with_a_failed_meta_page_is_retried_and_only_operations_that_fail_alone_are_refused() {
    fail_groups(&[Call::Write, Call::Sync, Call::WriteThrough]);
}

#[test]
fn a_failed_sweep_is_completed_by_the_next_sweep() {
    let fixture = Fixture::new(false);
    let held = fixture.store().stats().unwrap().sessions.unwrap();
    fixture.clock.advance(1000);
    for (call, number, code) in [(Call::Write, ENOSPC, FULL), (Call::Sync, EIO, IO)] {
        fixture.disk.fail(&[Fault { call, after: 0, times: ALWAYS, failure: Failure::Refused(number) }]);
        assert_eq!(fixture.store().clean().unwrap_err().code(), code);
        assert!(fixture.disk.clear_faults() > 0);
        assert_eq!(fixture.store().stats().unwrap().sessions, Some(held));
    }
    assert_eq!(fixture.store().clean(), Ok(held));
    fixture.finish();
}

#[test]
fn a_store_whose_creation_failed_can_be_created_later() {
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
                check_usable(&store, &clock, &mut Random::new(SEED)).unwrap();
            }
        }
    }
}

/// LMDB rolls back a meta page that it could not write. If the rollback fails too, the write has happened.
#[test]
fn a_store_opens_again_after_a_failed_meta_page_write() {
    for failure in
        [Failure::Refused(ENOSPC), Failure::Refused(EIO), Failure::Doubtful(EIO), Failure::Short(60)]
    {
        for rolls_back in [true, false] {
            let mut fixture = Fixture::new(false);
            let op = fixture.change();
            let fault = Fault { call: Call::WriteThrough, after: 0, times: ALWAYS, failure };
            let other = Fault { call: Call::RollBack, failure: Failure::Refused(EIO), ..fault };
            fixture.disk.fail(&[fault, other][..if rolls_back { 1 } else { 2 }]);
            let error = op.perform(fixture.store()).unwrap_err();
            assert!(error.is_outcome_unknown(), "{error}");
            fixture.disk.clear_faults();
            fixture.reopen();
            let has_happened = look(fixture.store(), 1).unwrap() != fixture.view();
            assert_eq!(has_happened, !rolls_back && matches!(failure, Failure::Doubtful(_)));
            if has_happened {
                fixture.lane.apply(&op, fixture.clock.now()).unwrap();
            }
            fixture.finish();
        }
    }
}
