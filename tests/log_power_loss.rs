//! The power fails while a store has a redo log: what was acknowledged must be there, what was not may be, and nothing
//! else.
//!
//! As `power_loss`, but the data file and the log are recorded in one order, and each loses writes of its own.
//! `POWER_LOSS_STATES` says of how many moments files are made, `POWER_LOSS_SEED` of which.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libc::{EIO, ENOSPC};
use native_store::clock::{Clock, Millis};
use native_store::store::file::Durability::{self, Commit, EverySec};
use native_store::store::{Cursor, SessionStore};

use disk::image::{Image, Syncs};
use disk::logs::{ALWAYS, no_growth, own_log, small_log};
use disk::run::{Moment, Run, Sum, Used, begin, group, number_from, on_threads, perform, some_ops, view_of};
use disk::sessions::{self, Draft, FAR, Lane, Model, Op, START, Setup, judge, look, outcome, peek};
use disk::{Call, Event, Failure, Fault, Random};

/// How many in all tests of this file, about.
const STATES: u64 = 500;

fn states(percent: u64) -> u64 {
    (number_from("POWER_LOSS_STATES", STATES) * percent).div_ceil(100)
}

fn plain(durability: Durability) -> Setup {
    Setup::logged(false, durability)
}

fn sealed(durability: Durability) -> Setup {
    Setup::logged(true, durability)
}

/// Groups of operations, and between them what drains, ends or replaces the log.
fn use_log(groups: usize, first: Model, random: &mut Random, used: &mut Used) -> Vec<Lane> {
    let lane = Lane::new(first, used.clock.now());
    go_on(groups, lane, random, used)
}

fn go_on(groups: usize, mut lane: Lane, random: &mut Random, used: &mut Used) -> Vec<Lane> {
    for _ in 0..groups {
        some_ops(&mut lane, random, used);
        match random.below(16) {
            0 => {
                used.store().ids(Cursor::default()).unwrap();
                used.disk.note(Event::Settled);
            }
            1 => {
                backup(&lane, used);
                used.disk.note(Event::Settled);
            }
            2 => {
                perform(&Op::Clean, 0, &mut lane, used);
                used.disk.note(Event::Settled);
            }
            3 => {
                used.reopen();
                used.disk.note(Event::Settled);
            }
            4 => perform(&Op::Clear, 0, &mut lane, used),
            5 => {
                assert_eq!(used.store().size(), Ok(lane.last().view(used.clock.now()).sessions.len() as u64))
            }
            _ => {}
        }
    }
    vec![lane]
}

/// Small writes until a larger log has taken the place of this one.
fn grow(lane: &mut Lane, random: &mut Random, used: &Used) {
    let small = used.disk.log_file();
    for _ in 0..500 {
        let ops: Vec<Op> = (0..20).map(|_| Op::random(0, used.clock.now(), random)).collect();
        let ops: Vec<Op> = ops.into_iter().filter(|op| op.is_hot() && op.bytes() < 2000).collect();
        group(&ops, lane, used);
        if used.disk.log_file() != small {
            return;
        }
    }
    panic!("the log does not grow");
}

/// A copy needs no log, and has everything.
fn backup(lane: &Lane, used: &Used) {
    let to = disk::temp_dir();
    used.store().backup(to.path(), &mut |_, _| ()).unwrap();
    let (copy, _) = sessions::open(to.path(), Setup::direct(used.setup.sealed), used.clock.now()).unwrap();
    assert!(look(&copy, 1).unwrap() == lane.last().view(used.clock.now()));
}

/// A log of a small fixed size, which wraps and is drained by the writer.
fn in_small_log(groups: usize, random: &mut Random, used: &mut Used) -> Vec<Lane> {
    used.disk.fail(&[no_growth()]);
    use_log(groups, Model::default(), random, used)
}

/// Several threads that write, and some that drain all the time: of those one has to wait for another, and then drains
/// writes that are newer than its list.
fn on_threads_and_drains(random: &mut Random, used: &Used) -> Vec<Lane> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    used.store().ids(Cursor::default()).unwrap();
                    thread::yield_now();
                }
            });
        }
        let lanes = on_threads(12, random, used);
        is_over.store(true, Ordering::Relaxed);
        lanes
    })
}

#[test]
fn a_power_loss_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    let mut runs = Vec::new();
    for setup in [plain(Commit), sealed(Commit), plain(EverySec), sealed(EverySec)] {
        runs.push(Run::record("small log", setup, small_log(), START, |used| {
            in_small_log(80, &mut random, used)
        }));
    }
    for setup in [plain(Commit), sealed(EverySec)] {
        runs.push(Run::record("growing log", setup, small_log(), START, |used| {
            let mut lane = Lane::new(Model::default(), START);
            grow(&mut lane, &mut random, used);
            go_on(20, lane, &mut random, used)
        }));
        runs.push(Run::record("own log", setup, own_log(), START, |used| {
            use_log(15, Model::default(), &mut random, used)
        }));
        runs.push(Run::record("threads", setup, small_log(), START, |used| {
            used.disk.fail(&[no_growth()]);
            on_threads_and_drains(&mut random, used)
        }));
    }
    let share = states(50).div_ceil(runs.len() as u64);
    for run in &runs {
        let seen = run.log_use();
        assert!(seen.writes > 20 && seen.syncs > 0 && seen.commits > 5, "{}: {seen:?}", run.name);
        assert!(run.name != "small log" || seen.wraps > 3, "{}: {seen:?}", run.name);
        assert!(run.name != "growing log" || seen.names > 0, "{}: {seen:?}", run.name);
        println!("{} ({:?}): {seen:?}", run.name, run.setup);
        run.check_all(share, 0, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}

/// Opens the store on what a power loss left, uses it, and has the power fail during the recovery and after it.
fn recover(
    run: &Run,
    moment: &Moment,
    image: &Image,
    random: &mut Random,
    sum: &mut Sum,
) -> Vec<(Moment, Image)> {
    let mut found = None;
    let again = Run::record("recovered", run.setup, image.clone(), moment.now, |used| {
        used.disk.fail(&[no_growth()]);
        // Reads alone: what they show must be on disk, without a drain.
        let view = peek(used.store(), 0).unwrap();
        sum.add(run, moment, judge(&view, &run.lanes, &moment.reached, moment.now));
        let model = run.lanes[0].model_of(&view, moment.reached[0], moment.now);
        found = model.clone();
        used.disk.note(Event::Settled);
        use_log(if random.one_in(3) { 0 } else { 4 }, model.unwrap_or_default(), random, used)
    });
    if found.is_none() {
        return Vec::new();
    }
    let recovery = again.recovery_of(run, moment);
    recovery.check_all(2, 0, Syncs::Kept, random, sum);
    let mut images = Vec::new();
    again.lose_power(3, again.opening, Syncs::Kept, random, |moment, image| {
        images.push((moment.clone(), image));
    });
    // What was seen once is there for good.
    for (moment, image) in &images {
        sum.add(&again, moment, again.check(moment, image));
    }
    images
}

#[test]
fn power_losses_during_and_after_a_recovery_take_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    let setups = [plain(Commit), sealed(Commit), plain(EverySec)];
    let share = states(25).div_ceil(6 * setups.len() as u64);
    for setup in setups {
        let run =
            Run::record("before", setup, small_log(), START, |used| in_small_log(40, &mut random, used));
        let mut images = Vec::new();
        run.lose_power(share, 0, Syncs::Kept, &mut random, |moment, image| {
            images.push((moment.clone(), image));
        });
        for (moment, image) in &images {
            recover(&run, moment, image, &mut random, &mut sum);
        }
    }
    sum.assert_good();
}

#[test]
fn one_power_loss_after_another_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    for setup in [plain(Commit), plain(EverySec)] {
        let (mut first, mut model, mut now) = (small_log(), Model::default(), START);
        for _ in 0..states(5).div_ceil(6) {
            let run = Run::record("again", setup, first, now, |used| {
                used.disk.fail(&[no_growth()]);
                use_log(6, model, &mut random, used)
            });
            let mut next = None;
            run.lose_power(3, 0, Syncs::Kept, &mut random, |moment, image| {
                // Before the store was opened there may be no models of it.
                sum.add(&run, moment, run.check(moment, &image));
                next = Some((image, moment.now, moment.reached[0]));
            });
            let (left, then, reached) = next.unwrap();
            let view = view_of(&Used::open(setup, &left, then));
            model = run.lanes[0].model_of(&view, reached, then).unwrap();
            (first, now) = (left, then);
        }
    }
    sum.assert_good();
}

/// Operations one by one, of which many meet a call of these kinds that fails. An error without an unknown outcome says
/// that nothing has changed, for good.
fn failing(many: usize, calls: &[Call], random: &mut Random, used: &mut Used) -> Vec<Lane> {
    let mut lane = Lane::new(Model::default(), used.clock.now());
    used.disk.fail(&[no_growth()]);
    (0..5).for_each(|_| some_ops(&mut lane, random, used));
    let mut hits = 0;
    for _ in 0..many {
        let call = calls[random.below(calls.len() as u64) as usize];
        let number = if random.one_in(2) { EIO } else { ENOSPC };
        let is_write = matches!(call, Call::Write | Call::WriteThrough | Call::LogWrite);
        let failure = match random.below(4) {
            0 | 1 if is_write => Failure::Doubtful(number),
            2 if call == Call::LogWrite => Failure::Short(random.below(300) as usize),
            _ => Failure::Refused(number),
        };
        let after = random.below(if call == Call::Write { 8 } else { 2 }) as usize;
        let times = if random.one_in(3) { 1 + random.below(4) as usize } else { 1 };
        used.disk.fail(&[Fault { call, after, times, failure }, no_growth()]);
        match random.below(if matches!(call, Call::LogWrite | Call::LogSync) { 12 } else { 3 }) {
            // A drain that fails leaves all as it is.
            0 => _ = used.store().ids(Cursor::default()),
            1 => {
                // Whatever a store could not do when it was closed is done when it is opened again.
                used.store = None;
                hits += usize::from(used.disk.failed_calls() > 0);
                used.disk.fail(&[no_growth()]);
                used.reopen();
                used.disk.note(Event::Settled);
            }
            _ => {}
        }
        let op = change(&lane, random, used.clock.now());
        used.disk.note(Event::Begun(0));
        let expected = lane.apply(&op, used.clock.now());
        let result = op.perform(used.store());
        let is_unknown = result.as_ref().is_err_and(|error| error.is_outcome_unknown());
        let result = outcome(result);
        let failed_calls = used.disk.failed_calls();
        used.disk.fail(&[no_growth()]);
        match result {
            Err("ERR_STORE_FULL" | "ERR_STORE_IO") => {
                assert!(failed_calls > 0, "{op:?} fails on a disk that does not: {result:?}");
                used.disk.note(Event::Begun(0));
                lane.take_back(used.clock.now());
                if is_unknown {
                    // It is known once the store has committed again.
                    let view = match look(used.store(), 1) {
                        Ok(view) => view,
                        Err(_) => {
                            used.reopen();
                            view_of(used)
                        }
                    };
                    if view != lane.last().view(used.clock.now()) {
                        used.disk.note(Event::Begun(0));
                        let model = lane.models[lane.models.len() - 2].1.clone();
                        assert!(model.view(used.clock.now()) == view, "{op:?} has happened in part");
                        lane.models.push((used.clock.now(), model));
                    }
                    used.reopen();
                    settle(&mut lane, used);
                }
                acknowledge(&lane, used);
            }
            result => {
                assert_eq!(result, expected, "{op:?}");
                acknowledge(&lane, used);
            }
        }
        hits += usize::from(failed_calls > 0);
        // A log that has failed is only used again after a while.
        if failed_calls > 0 || random.one_in(10) {
            if random.one_in(2) {
                let now = used.clock.now();
                assert!(view_of(used) == lane.last().view(now), "after {call:?} {failure:?}");
            }
            used.reopen();
            used.disk.note(Event::Settled);
            // Otherwise the next call that fails is one that begins the log, which costs nobody a write.
            if !random.one_in(4) {
                settle(&mut lane, used);
                acknowledge(&lane, used);
            }
        }
    }
    assert!(hits > many / 8, "{hits} of {many}");
    vec![lane]
}

/// A sync of the log fails, and so does what should end the log. The next process finds a log of which the page cache may
/// have more than the disk, and its pages may pass for clean.
fn failing_twice(many: usize, random: &mut Random, used: &mut Used) -> Vec<Lane> {
    let mut lane = Lane::new(Model::default(), used.clock.now());
    used.disk.fail(&[no_growth()]);
    for _ in 0..many {
        some_ops(&mut lane, random, used);
        settle(&mut lane, used);
        let failure = Failure::Refused(if random.one_in(2) { EIO } else { ENOSPC });
        let log = Fault { call: Call::LogSync, after: 0, times: ALWAYS, failure };
        used.disk.fail(&[log, Fault { call: Call::Sync, ..log }, no_growth()]);
        let op = loop {
            let op = change(&lane, random, used.clock.now());
            if op.bytes() < 2000 && op.is_hot() {
                break op;
            }
        };
        used.disk.note(Event::Begun(0));
        let expected = lane.apply(&op, used.clock.now());
        let result = op.perform(used.store());
        match result {
            Err(error) => assert!(error.is_outcome_unknown(), "{error}"),
            result => {
                assert_eq!(outcome(result), expected);
                acknowledge(&lane, used);
            }
        }
        used.store = None;
        assert!(used.disk.failed_calls() > 0);
        used.disk.fail(&[no_growth()]);
        used.reopen();
        let view = peek(used.store(), 0).unwrap();
        if view != lane.last().view(used.clock.now()) {
            used.disk.note(Event::Begun(0));
            lane.take_back(used.clock.now());
            assert!(view == lane.last().view(used.clock.now()));
        }
        acknowledge(&lane, used);
        used.disk.note(Event::Settled);
    }
    vec![lane]
}

/// An operation that cannot but change what is there.
fn change(lane: &Lane, random: &mut Random, now: Millis) -> Op {
    loop {
        let op = if random.one_in(60) { Op::Clear } else { Op::random(0, now, random) };
        let mut model = lane.last().clone();
        if model.apply(&op, now).is_ok() && model.view(now) != lane.last().view(now) {
            return op;
        }
    }
}

/// Notes that everything up to now has ended.
fn acknowledge(lane: &Lane, used: &Used) {
    let events = used.disk.count(|event| matches!(event, Event::Acknowledged(_)));
    (events..lane.models.len() - 1).for_each(|_| used.disk.note(Event::Acknowledged(0)));
}

/// Makes a change that cannot fail.
fn settle(lane: &mut Lane, used: &Used) {
    let id = sessions::id_text(0, 1);
    let op = Op::Touch { id, expires: used.clock.now() + 50 as Millis };
    used.disk.note(Event::Begun(0));
    let expected = lane.apply(&op, used.clock.now());
    assert_eq!(outcome(op.perform(used.store())), expected);
}

#[test]
fn a_power_loss_after_faults_takes_nothing_that_was_acknowledged_and_revives_nothing_that_failed() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    let kinds: [&[Call]; 3] = [
        &[Call::LogWrite, Call::LogSync],
        &[Call::LogWrite, Call::LogSync, Call::Write, Call::Sync],
        &[Call::LogSync, Call::WriteThrough],
    ];
    let share = states(20).div_ceil(2 * (kinds.len() as u64 + 1));
    for setup in [plain(Commit), plain(EverySec)] {
        let run = Run::record("failing twice", setup, small_log(), START, |used| {
            failing_twice(12, &mut random, used)
        });
        run.check_all(share, run.opening, Syncs::Kept, &mut random, &mut sum);
        for calls in kinds {
            let run = Run::record("failing", setup, small_log(), START, |used| {
                failing(50, calls, &mut random, used)
            });
            run.check_all(share, run.opening, Syncs::Kept, &mut random, &mut sum);
        }
    }
    sum.assert_good();
}

/// A commit that concerns the log, and that fails although its meta page comes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenBack {
    /// The one that ends the log, when the store is closed.
    End,
    /// That of a drain, when the store is closed.
    Drain,
    Clear,
    /// The one that begins the log.
    Begin,
}

/// LMDB takes back the meta page of a commit that has failed. The sync fails that should bring that to the disk, and
/// then another process goes on with the log. It must not rely on a meta page that the disk may not have.
#[test]
fn a_commit_about_the_log_that_was_taken_back_does_not_return_when_the_power_fails() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    for taken_back in [TakenBack::End, TakenBack::Drain, TakenBack::Clear, TakenBack::Begin].repeat(2) {
        let mut before = 0;
        let run = Run::record("taken back", plain(Commit), small_log(), START, |used| {
            used.disk.fail(&[no_growth()]);
            let mut lane = Lane::new(Model::default(), used.clock.now());
            (0..5).for_each(|_| some_ops(&mut lane, &mut random, used));
            if taken_back == TakenBack::Begin {
                used.reopen();
                used.store().flush().unwrap();
            } else {
                create(1, &mut lane, &mut random, used);
            }
            if taken_back == TakenBack::End {
                used.store().ids(Cursor::default()).unwrap();
            }
            before = used.disk.log_len();
            let failure = Failure::Doubtful(EIO);
            let meta = Fault { call: Call::WriteThrough, after: 0, times: ALWAYS, failure };
            // After the sync of the pages, which must succeed for the meta page to be written. The first commit of a
            // process syncs once more.
            let after = 1 + usize::from(taken_back == TakenBack::Begin);
            let sync = Fault { call: Call::Sync, after, failure: Failure::Refused(EIO), ..meta };
            used.disk.fail(&[meta, sync, no_growth()]);
            match taken_back {
                TakenBack::Clear => {
                    used.disk.note(Event::Begun(0));
                    lane.apply(&Op::Clear, used.clock.now()).unwrap();
                    let error = Op::Clear.perform(used.store()).unwrap_err();
                    assert!(error.is_outcome_unknown(), "{error}");
                    used.disk.note(Event::Begun(0));
                    lane.take_back(used.clock.now());
                }
                TakenBack::Begin => {
                    used.disk.note(Event::Begun(0));
                    let op = Op::Touch { id: sessions::id_text(0, 1), expires: FAR };
                    lane.apply(&op, used.clock.now()).unwrap();
                    let error = op.perform(used.store()).unwrap_err();
                    println!("begin: {error}");
                    used.disk.note(Event::Begun(0));
                    lane.take_back(used.clock.now());
                }
                TakenBack::End | TakenBack::Drain => {}
            }
            used.store = None;
            assert!(used.disk.failed_calls() > 1);
            used.disk.fail(&[no_growth()]);
            used.reopen();
            assert!(used.disk.failed_calls() == 0);
            (2..8).for_each(|nth| create(nth, &mut lane, &mut random, used));
            acknowledge(&lane, used);
            vec![lane]
        });
        let bad = sum.bad;
        run.check_all(states(10).div_ceil(8), before, Syncs::Kept, &mut random, &mut sum);
        println!("{taken_back:?}: {} bad", sum.bad - bad);
    }
    sum.assert_good();
}

/// A new log has taken its name, and the folder could not be synced. The log is used later, by the same process or the next.
#[test]
fn a_log_whose_name_may_not_be_on_disk_is_not_relied_on() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    for (call, is_reopened) in [(Call::FolderSync, true), (Call::FolderSync, false), (Call::Rename, false)] {
        let run = Run::record("name", plain(Commit), own_log(), START, |used| {
            let mut lane = Lane::new(Model::default(), used.clock.now());
            used.disk.fail(&[Fault { call, after: 0, times: 1, failure: Failure::Refused(EIO) }]);
            create(1, &mut lane, &mut random, used);
            assert_eq!(used.disk.clear_faults(), 1);
            if is_reopened {
                used.reopen();
            } else {
                // Until the store tries again to have a log.
                std::thread::sleep(std::time::Duration::from_millis(1100));
            }
            (2..8).for_each(|nth| create(nth, &mut lane, &mut random, used));
            assert!(used.store().stats().unwrap().log.unwrap().size > 0);
            vec![lane]
        });
        run.check_all(states(3).div_ceil(3), run.opening, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}

/// Else the data file could have a write that is newer than one that the log then loses.
#[test]
fn a_drain_syncs_the_log_before_the_data_file_is_ahead_of_it() {
    let (mut random, _alone) = begin();
    let used = Used::open(plain(EverySec), &small_log(), START);
    used.disk.fail(&[no_growth()]);
    let mut lane = Lane::new(Model::default(), START);
    let log = used.disk.log_file().unwrap();
    for nth in 0..20 {
        used.disk.take_log();
        create(nth, &mut lane, &mut random, &used);
        used.store().ids(Cursor::default()).unwrap();
        // Of the log: whether a write to it is not synced.
        let (mut is_unsynced, mut commits) = (false, 0);
        for event in used.disk.take_log() {
            match event {
                Event::Write { file, .. } if file == log => is_unsynced = true,
                Event::Sync(file) if file == log => is_unsynced = false,
                Event::Write { durable: true, .. } => {
                    commits += 1;
                    assert!(!is_unsynced, "a commit is ahead of the log");
                }
                _ => {}
            }
        }
        assert!(commits > 0);
    }
}

/// Makes a session that is not there, which fits into the log.
fn create(nth: u64, lane: &mut Lane, random: &mut Random, used: &Used) {
    let id = sessions::id_text(0, nth);
    perform(&Op::Delete { id: id.clone() }, 0, lane, used);
    perform(&Op::Create(Draft::new(id, None, FAR, 500, random)), 0, lane, used);
}

/// It proves that these losses are harsh enough, and that damage is seen.
#[test]
fn without_syncs_stores_are_damaged() {
    let (mut random, _alone) = begin();
    let run = Run::record("small log", plain(Commit), small_log(), START, |used| {
        in_small_log(30, &mut random, used)
    });
    for syncs in [Syncs::WriteThroughAlone, Syncs::Ignored] {
        let mut sum = Sum::default();
        run.check_all(30, run.opening, syncs, &mut random, &mut sum);
        let Sum { states, bad, lost, revived, unreadable, .. } = sum;
        let line = format!(
            "{syncs:?}: {bad} of {states} stores are bad: {unreadable} of them unreadable, {lost} sessions lost, \
             {revived} revived\n"
        );
        io::stdout().write_all(line.as_bytes()).unwrap();
        assert!(bad > 0 && unreadable > 0);
    }
}
