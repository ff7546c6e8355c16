//! The power fails, at any moment: what was acknowledged must be there, what was not may be, and nothing else.
//!
//! A run on a store is recorded, write by write and sync by sync. Of many moments of it a file is made that a disk
//! could hold then, and a store is opened on that. `POWER_LOSS_STATES` says of how many, `POWER_LOSS_SEED` of which.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use libc::{EIO, ENOSPC};
use native_store::clock::{Clock, Millis, MockClock};
use native_store::store::FileStore;
use tempfile::TempDir;

use disk::child::in_child;
use disk::image::{self, Syncs};
use disk::sessions::{
    self, Draft, FAR, Lane, Model, Op, Outcome, Reached, START, Verdict, View, judge, look, outcome,
    perform_together, use_up,
};
use disk::{Call, Disk, Event, Failure, Fault, Random};

const STATES: u64 = 160;
const SEED: u64 = 1;

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The variety of a test, which runs alone: a child must not inherit locks that another test holds.
fn begin() -> (Random, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = number_from("POWER_LOSS_SEED", SEED);
    println!("power loss seed: {seed}");
    (Random::new(seed), alone)
}

/// A store that is used, and whose disk is recorded.
struct Used {
    dir: TempDir,
    sealed: bool,
    /// Away while it is opened again.
    store: Option<Arc<FileStore>>,
    clock: Arc<MockClock>,
    disk: Arc<Disk>,
}

impl Used {
    /// Opens a store whose data file is `first`.
    fn open(sealed: bool, first: &[u8], now: Millis) -> Self {
        let dir = disk::temp_dir();
        let disk = Arc::new(Disk::watch(&disk::data_file(dir.path(), first)));
        let (store, clock) = sessions::open(dir.path(), sealed, now).unwrap();
        Self { dir, sealed, store: Some(store), clock, disk }
    }

    fn store(&self) -> &FileStore {
        self.store.as_ref().unwrap_or_else(|| unreachable!("it is open"))
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, clock) = sessions::open(self.dir.path(), self.sealed, self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }
}

/// What was done to a store, and what of it came to the disk.
struct Run {
    name: &'static str,
    sealed: bool,
    first: Vec<u8>,
    log: Vec<Event>,
    /// How many of the events opened the store.
    opening: usize,
    lanes: Vec<Lane>,
    /// As it is while the store is open: nobody tidies it when the power fails.
    lock_file: Vec<u8>,
}

/// A moment of a run.
struct Moment {
    cut: usize,
    reached: Vec<Reached>,
    now: Millis,
}

impl Run {
    /// Has a store used, which begins with `first` in its data file.
    fn record(
        name: &'static str,
        sealed: bool,
        first: Vec<u8>,
        now: Millis,
        work: impl FnOnce(&mut Used) -> Vec<Lane>,
    ) -> Self {
        let mut used = Used::open(sealed, &first, now);
        let opening = used.disk.log_len();
        let lanes = work(&mut used);
        let lock_file = fs::read(used.dir.path().join("lock.mdb")).unwrap();
        used.store = None;
        let run = Self { name, sealed, first, log: used.disk.take_log(), opening, lanes, lock_file };
        run.check_log(&fs::read(used.dir.path().join(disk::DATA)).unwrap());
        run
    }

    /// A write by a call that is not recorded would make all that follows worthless.
    fn check_log(&self, file: &[u8]) {
        let mut disk = image::Disk::new(Syncs::Kept, self.first.clone());
        self.log.iter().for_each(|event| disk.apply(event));
        assert!(disk.all() == file, "the log does not tell what is in the file");
    }

    fn moment(&self, cut: usize) -> Moment {
        let mut reached = vec![Reached::default(); self.lanes.len()];
        for event in &self.log[..cut] {
            match *event {
                Event::Begun(lane) => reached[lane].begun += 1,
                Event::Acknowledged(lane) => reached[lane].acknowledged += 1,
                Event::Write { .. } | Event::Sync | Event::FailedSync => {}
            }
        }
        let times = self.lanes.iter().zip(&reached).map(|(lane, reached)| lane.models[reached.begun].0);
        Moment { cut, now: times.max().unwrap_or(START), reached }
    }

    /// Has the power fail so many times from an event on, and hands out the moments and the files.
    fn lose_power(
        &self,
        states: u64,
        from: usize,
        syncs: Syncs,
        random: &mut Random,
        mut then: impl FnMut(&Moment, Vec<u8>),
    ) {
        let events = (self.log.len() - from) as u64;
        let mut cuts: Vec<usize> = (0..states).map(|_| from + random.below(events + 1) as usize).collect();
        cuts.sort_unstable();
        let mut disk = image::Disk::new(syncs, self.first.clone());
        let mut at = 0;
        for cut in cuts {
            self.log[at..cut].iter().for_each(|event| disk.apply(event));
            at = cut;
            then(&self.moment(cut), disk.lose_power(self.log.get(cut), random));
        }
    }

    /// Opens a store on what a power loss left, and compares.
    fn check(&self, moment: &Moment, file: &[u8]) -> Verdict {
        let dir = disk::temp_dir();
        disk::data_file(dir.path(), file);
        fs::write(dir.path().join("lock.mdb"), &self.lock_file).unwrap();
        in_child(|| {
            let (store, clock) = match sessions::open(dir.path(), self.sealed, moment.now) {
                Ok(opened) => opened,
                Err(error) => return Verdict::unreadable(format!("opening: {error}")),
            };
            let view = match look(&store, self.lanes.len()) {
                Ok(view) => view,
                Err(fault) => return Verdict::unreadable(fault),
            };
            let verdict = judge(&view, &self.lanes, &moment.reached, moment.now);
            match use_up(&store, &clock, &mut Random::new(1)) {
                Err(fault) if verdict.is_good() => Verdict::unreadable(fault),
                _ => verdict,
            }
        })
    }

    fn check_all(&self, states: u64, from: usize, syncs: Syncs, random: &mut Random, sum: &mut Sum) {
        self.lose_power(states, from, syncs, random, |moment, file| {
            sum.add(self, moment, self.check(moment, &file));
        });
    }
}

/// What became of stores.
#[derive(Default)]
struct Sum {
    states: usize,
    bad: usize,
    checked: usize,
    lost: usize,
    revived: usize,
    unreadable: usize,
    notes: Vec<String>,
}

impl Sum {
    fn add(&mut self, run: &Run, moment: &Moment, verdict: Verdict) {
        self.states += 1;
        self.checked += moment.reached.iter().map(|reached| reached.acknowledged).sum::<usize>();
        self.lost += verdict.lost;
        self.revived += verdict.revived;
        self.unreadable += verdict.unreadable;
        if !verdict.is_good() {
            self.bad += 1;
            let note = format!("{}, at event {} of {}: {verdict:?}", run.name, moment.cut, run.log.len());
            self.notes.push(note);
        }
    }

    /// Tells it, even where the test harness keeps what a good test prints to itself.
    fn assert_good(&self) {
        let Self { states, checked, lost, revived, unreadable, .. } = self;
        let line = format!(
            "power loss states: {states}, acknowledged writes checked: {checked}, lost: {lost}, \
             revived: {revived}, unreadable: {unreadable}\n"
        );
        io::stdout().write_all(line.as_bytes()).unwrap();
        assert!(self.bad == 0, "{:#?}", self.notes);
    }
}

/// Operations in groups, each of which is one commit: begun by one thread, so that a seed gives one log.
fn in_groups(groups: usize, first: Model, random: &mut Random, used: &Used) -> Vec<Lane> {
    let mut lane = Lane::new(first, used.clock.now());
    for _ in 0..groups {
        let many = if random.one_in(3) { 1 } else { 1 + random.below(30) };
        let ops: Vec<Op> = (0..many).map(|_| Op::random(0, used.clock.now(), random)).collect();
        let (hot, mut cold): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(Op::is_hot);
        group(&hot, &mut lane, used);
        if random.one_in(40) {
            cold.push(Op::Clear);
        }
        cold.iter().for_each(|op| perform(op, 0, &mut lane, used));
        used.clock.advance(random.below(4) as Millis);
    }
    vec![lane]
}

/// Does them at once.
fn group(ops: &[Op], lane: &mut Lane, used: &Used) {
    ops.iter().for_each(|_| used.disk.note(Event::Begun(0)));
    let expected: Vec<Outcome> = ops.iter().map(|op| lane.apply(op, used.clock.now())).collect();
    let disk = Arc::clone(&used.disk);
    let results = perform_together(ops, used.store(), move |_| disk.note(Event::Acknowledged(0)));
    assert_eq!(results.into_iter().map(outcome).collect::<Vec<_>>(), expected);
}

/// Operations one by one, of which many meet a call of these kinds that fails.
fn failing(many: usize, calls: &[Call], random: &mut Random, used: &Used) -> Vec<Lane> {
    let mut lanes = in_groups(5, Model::default(), random, used);
    let lane = &mut lanes[0];
    // What has ended, but is not sure to last before the next write does.
    let mut ends = 0;
    for _ in 0..many {
        let call = calls[random.below(calls.len() as u64) as usize];
        let number = if random.one_in(2) { EIO } else { ENOSPC };
        let failure = match call {
            Call::Write | Call::WriteThrough if random.one_in(2) => Failure::Doubtful(number),
            _ => Failure::Refused(number),
        };
        let after = if call == Call::Write { random.below(8) as usize } else { 0 };
        used.disk.fail(&[Fault { call, after, times: 1, failure }]);
        let op = Op::random(0, used.clock.now(), random);
        used.disk.note(Event::Begun(0));
        let expected = lane.apply(&op, used.clock.now());
        let result = outcome(op.perform(used.store()));
        let failed_calls = used.disk.clear_faults();
        ends += 1;
        if let Err("ERR_STORE_FULL" | "ERR_STORE_IO") = result {
            assert!(failed_calls > 0, "{op:?} fails on a disk that does not: {result:?}");
            used.disk.note(Event::Begun(0));
            lane.take_back(used.clock.now());
            ends += 1;
        } else {
            assert_eq!(result, expected, "{op:?}");
            (0..std::mem::take(&mut ends)).for_each(|_| used.disk.note(Event::Acknowledged(0)));
        }
    }
    lanes
}

fn perform(op: &Op, at: usize, lane: &mut Lane, used: &Used) {
    used.disk.note(Event::Begun(at));
    let expected = lane.apply(op, used.clock.now());
    assert_eq!(outcome(op.perform(used.store())), expected, "{op:?}");
    used.disk.note(Event::Acknowledged(at));
}

/// Operations of several threads at once, each on sessions of its own, and now and then one on those of all. Which of
/// them share a commit is not in the seed.
fn on_threads(rounds: usize, random: &mut Random, used: &Used) -> Vec<Lane> {
    const THREADS: usize = 4;
    const OPS: usize = 12;
    let mut lanes: Vec<Lane> = (0..THREADS).map(|_| Lane::new(Model::default(), used.clock.now())).collect();
    for _ in 0..rounds {
        thread::scope(|scope| {
            for (at, lane) in lanes.iter_mut().enumerate() {
                let mut random = random.split();
                scope.spawn(move || {
                    for _ in 0..OPS {
                        let op = Op::random(at, used.clock.now(), &mut random);
                        perform(&op, at, lane, used);
                    }
                });
            }
        });
        if random.one_in(4) {
            (0..THREADS).for_each(|at| used.disk.note(Event::Begun(at)));
            for lane in &mut lanes {
                assert_eq!(lane.apply(&Op::Clear, used.clock.now()), Ok(None) as Outcome);
            }
            Op::Clear.perform(used.store()).unwrap();
            (0..THREADS).for_each(|at| used.disk.note(Event::Acknowledged(at)));
        }
        used.clock.advance(random.below(10) as Millis);
    }
    lanes
}

#[test]
fn a_power_loss_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let states = number_from("POWER_LOSS_STATES", STATES).div_ceil(4);
    let mut sum = Sum::default();
    for (name, sealed) in [("groups", false), ("groups, sealed", true)] {
        let run = Run::record(name, sealed, Vec::new(), START, |used| {
            in_groups(60, Model::default(), &mut random, used)
        });
        run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    }
    let run = Run::record("threads", false, Vec::new(), START, |used| on_threads(12, &mut random, used));
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    let run = Run::record("failing", false, Vec::new(), START, |used| {
        failing(60, &[Call::Write, Call::Sync], &mut random, used)
    });
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

#[test]
fn one_power_loss_after_another_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let (mut file, mut model, mut now) = (Vec::new(), Model::default(), START);
    let mut sum = Sum::default();
    for _ in 0..8 {
        let run = Run::record("again", false, file, now, |used| in_groups(6, model, &mut random, used));
        let mut next = None;
        run.lose_power(3, run.opening, Syncs::Kept, &mut random, |moment, file| {
            sum.add(&run, moment, run.check(moment, &file));
            next = Some((file, moment.now, moment.reached[0]));
        });
        let (left, then, reached) = next.unwrap();
        let view = look(Used::open(false, &left, then).store(), 1).unwrap();
        model = run.lanes[0].model_of(&view, reached, then).unwrap();
        (file, now) = (left, then);
    }
    sum.assert_good();
}

#[test]

fn a_power_loss_after_meta_pages_have_failed_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    let run = Run::record("failing", false, Vec::new(), START, |used| {
        failing(60, &[Call::Write, Call::WriteThrough], &mut random, used)
    });
    run.check_all(60, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

/// It proves that these losses are harsh enough, and that damage is seen.
#[test]
fn without_syncs_stores_are_damaged() {
    let (mut random, _alone) = begin();
    let run = Run::record("groups", false, Vec::new(), START, |used| {
        in_groups(30, Model::default(), &mut random, used)
    });
    for syncs in [Syncs::WriteThroughAlone, Syncs::Ignored] {
        let mut sum = Sum::default();
        run.check_all(30, run.opening, syncs, &mut random, &mut sum);
        let Sum { states, bad, lost, revived, unreadable, .. } = sum;
        println!(
            "{syncs:?}: {bad} of {states} stores are bad: {unreadable} of them unreadable, {lost} sessions lost, \
             {revived} revived"
        );
        assert!(bad > 0 && unreadable > 0);
    }
}

#[test]

fn a_power_loss_while_a_store_is_made_leaves_none_or_a_whole_one() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    for sealed in [false, true] {
        let run = Run::record("making", sealed, Vec::new(), START, |used| {
            vec![Lane::new(Model::default(), used.clock.now())]
        });
        run.check_all(30, 0, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}

/// What follows a write that failed but came to the disk, and that LMDB has taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another process opens the store before what LMDB wrote is on disk.
    Opened,
    /// The sync fails that should bring it there. The kernel may then have given it up.
    SyncFailed,
    /// Both.
    SyncFailedAndOpened,
}

#[test]
fn a_meta_page_that_was_taken_back_does_not_return_when_the_power_fails() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    for then in [Then::Opened, Then::SyncFailed, Then::SyncFailedAndOpened].repeat(3) {
        let mut before = 0;
        let run = Run::record("taken back", false, Vec::new(), START, |used| {
            let mut lanes = in_groups(10, Model::default(), &mut random, used);
            let lane = &mut lanes[0];
            let now = used.clock.now();
            let [failing, next] = [1, 2].map(|nth| {
                let id = sessions::id_text(0, nth);
                Op::Create(Draft::new(id, None, FAR, 20_000, &mut random))
            });
            perform(&Op::Clear, 0, lane, used);
            before = used.disk.log_len();
            let failure = Failure::Doubtful(EIO);
            let meta = Fault { call: Call::WriteThrough, after: 0, times: usize::MAX, failure };
            // After the sync of the pages, which must succeed for the meta page to be written.
            let sync = Fault { call: Call::Sync, after: 1, failure: Failure::Refused(EIO), ..meta };
            used.disk.fail(&[meta, sync][..if then == Then::Opened { 1 } else { 2 }]);
            used.disk.note(Event::Begun(0));
            lane.apply(&failing, now).unwrap();
            assert_eq!(outcome(failing.perform(used.store())), Err("ERR_STORE_IO"));
            assert_eq!(used.disk.clear_faults(), if then == Then::Opened { 1 } else { 2 });
            if then != Then::SyncFailed {
                used.reopen();
            }
            assert!(look(used.store(), 1) == Ok(View::default()), "the write that failed has happened");
            used.disk.note(Event::Begun(0));
            lane.take_back(now);
            perform(&next, 0, lane, used);
            (0..2).for_each(|_| used.disk.note(Event::Acknowledged(0)));
            lanes
        });
        run.check_all(40, before, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}
