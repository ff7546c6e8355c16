//! The power fails while a store has a redo log. All acknowledged writes must be there, unacknowledged writes may be,
//! and nothing else.
//!
//! `power_loss` describes the method. Here the data file and the log are recorded in one order, and each of them loses
//! writes independently. `POWER_LOSS_STATES` sets the number of moments, and `POWER_LOSS_SEED` the seed.

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
use disk::run::{
    Moment, RecordedStore, Run, Sum, number_from, on_threads, perform, perform_group, random_ops,
    start_alone, view_of,
};
use disk::sessions::{self, FAR, Lane, Model, Op, START, Setup, TestSession, judge, look, outcome, peek};
use disk::{Call, Event, Failure, Fault, Random};

/// The approximate number of power losses in all tests of this file.
const STATES: u64 = 500;

fn states(percent: u64) -> u64 {
    (number_from("POWER_LOSS_STATES", STATES) * percent).div_ceil(100)
}

fn plain(durability: Durability) -> Setup {
    Setup::logged(false, durability)
}

fn encrypted(durability: Durability) -> Setup {
    Setup::logged(true, durability)
}

/// Performs groups of operations. Between them, the log is drained, removed or replaced.
fn use_log(groups: usize, first: Model, random: &mut Random, recorded: &mut RecordedStore) -> Vec<Lane> {
    let lane = Lane::new(first, recorded.clock.now());
    continue_use(groups, lane, random, recorded)
}

fn continue_use(
    groups: usize,
    mut lane: Lane,
    random: &mut Random,
    recorded: &mut RecordedStore,
) -> Vec<Lane> {
    for _ in 0..groups {
        random_ops(&mut lane, random, recorded);
        match random.below(16) {
            0 => {
                recorded.store().ids(Cursor::default()).unwrap();
                recorded.disk.note(Event::Settled);
            }
            1 => {
                backup(&lane, recorded);
                recorded.disk.note(Event::Settled);
            }
            2 => {
                perform(&Op::Clean, 0, &mut lane, recorded);
                recorded.disk.note(Event::Settled);
            }
            3 => {
                recorded.reopen();
                recorded.disk.note(Event::Settled);
            }
            4 => perform(&Op::Clear, 0, &mut lane, recorded),
            5 => {
                assert_eq!(
                    recorded.store().size(),
                    Ok(lane.last().view(recorded.clock.now()).sessions.len() as u64)
                )
            }
            _ => {}
        }
    }
    vec![lane]
}

/// Performs small writes until a larger log replaces this one.
fn grow(lane: &mut Lane, random: &mut Random, recorded: &RecordedStore) {
    let small = recorded.disk.log_file();
    for _ in 0..500 {
        let ops: Vec<Op> = (0..20).map(|_| Op::random(0, recorded.clock.now(), random)).collect();
        let ops: Vec<Op> = ops.into_iter().filter(|op| op.can_be_queued() && op.bytes() < 2000).collect();
        perform_group(&ops, lane, recorded);
        if recorded.disk.log_file() != small {
            return;
        }
    }
    panic!("the log does not grow");
}

/// Makes a backup, and checks that it has all sessions and needs no log.
fn backup(lane: &Lane, recorded: &RecordedStore) {
    let to = disk::temp_dir();
    recorded.store().backup(to.path(), &mut |_, _| ()).unwrap();
    let (copy, _) =
        sessions::open(to.path(), Setup::direct(recorded.setup.is_encrypted), recorded.clock.now()).unwrap();
    assert!(look(&copy, 1).unwrap() == lane.last().view(recorded.clock.now()));
}

/// Uses a log of a small fixed size, so that it wraps and the writer drains it.
fn in_small_log(groups: usize, random: &mut Random, recorded: &mut RecordedStore) -> Vec<Lane> {
    recorded.disk.fail(&[no_growth()]);
    use_log(groups, Model::default(), random, recorded)
}

/// Runs threads that write, and threads that drain all the time. A drain that has waited for another drain also takes
/// writes that are newer than its list.
fn on_threads_and_drains(random: &mut Random, recorded: &RecordedStore) -> Vec<Lane> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    recorded.store().ids(Cursor::default()).unwrap();
                    thread::yield_now();
                }
            });
        }
        let lanes = on_threads(12, random, recorded);
        is_over.store(true, Ordering::Relaxed);
        lanes
    })
}

#[test]
fn a_power_loss_loses_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    let mut runs = Vec::new();
    for setup in [plain(Commit), encrypted(Commit), plain(EverySec), encrypted(EverySec)] {
        runs.push(Run::record("small log", setup, small_log(), START, |recorded| {
            in_small_log(80, &mut random, recorded)
        }));
    }
    for setup in [plain(Commit), encrypted(EverySec)] {
        runs.push(Run::record("growing log", setup, small_log(), START, |recorded| {
            let mut lane = Lane::new(Model::default(), START);
            grow(&mut lane, &mut random, recorded);
            continue_use(20, lane, &mut random, recorded)
        }));
        runs.push(Run::record("own log", setup, own_log(), START, |recorded| {
            use_log(15, Model::default(), &mut random, recorded)
        }));
        runs.push(Run::record("threads", setup, small_log(), START, |recorded| {
            recorded.disk.fail(&[no_growth()]);
            on_threads_and_drains(&mut random, recorded)
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

/// Opens the store on the files after a power loss, and uses it. Simulates power losses during the recovery and after
/// it.
fn recover(
    run: &Run,
    moment: &Moment,
    image: &Image,
    random: &mut Random,
    sum: &mut Sum,
) -> Vec<(Moment, Image)> {
    let mut found = None;
    let again = Run::record("recovered", run.setup, image.clone(), moment.now, |recorded| {
        recorded.disk.fail(&[no_growth()]);
        // Only reads: the sessions that they return must be on disk without a drain.
        let view = peek(recorded.store(), 0).unwrap();
        sum.add(run, moment, judge(&view, &run.lanes, &moment.reached, moment.now));
        let model = run.lanes[0].model_of(&view, moment.reached[0], moment.now);
        found = model.clone();
        recorded.disk.note(Event::Settled);
        use_log(if random.one_in(3) { 0 } else { 4 }, model.unwrap_or_default(), random, recorded)
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
    // Sessions that were read once must stay.
    for (moment, image) in &images {
        sum.add(&again, moment, again.check(moment, image));
    }
    images
}

#[test]
fn power_losses_during_and_after_a_recovery_lose_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    let setups = [plain(Commit), encrypted(Commit), plain(EverySec)];
    let share = states(25).div_ceil(6 * setups.len() as u64);
    for setup in setups {
        let run = Run::record("before", setup, small_log(), START, |recorded| {
            in_small_log(40, &mut random, recorded)
        });
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
fn repeated_power_losses_lose_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    for setup in [plain(Commit), plain(EverySec)] {
        let (mut first, mut model, mut now) = (small_log(), Model::default(), START);
        for _ in 0..states(5).div_ceil(6) {
            let run = Run::record("again", setup, first, now, |recorded| {
                recorded.disk.fail(&[no_growth()]);
                use_log(6, model, &mut random, recorded)
            });
            let mut next = None;
            run.lose_power(3, 0, Syncs::Kept, &mut random, |moment, image| {
                sum.add(&run, moment, run.check(moment, &image));
                next = Some((image, moment.now, moment.reached[0]));
            });
            let (left, then, reached) = next.unwrap();
            let view = view_of(&RecordedStore::open(setup, &left, then));
            model = run.lanes[0].model_of(&view, reached, then).unwrap();
            (first, now) = (left, then);
        }
    }
    sum.assert_good();
}

/// Performs operations one by one. In many of them a call of these kinds fails. After an error without an unknown
/// outcome, the operation must never have an effect.
fn failing(many: usize, calls: &[Call], random: &mut Random, recorded: &mut RecordedStore) -> Vec<Lane> {
    let mut lane = Lane::new(Model::default(), recorded.clock.now());
    recorded.disk.fail(&[no_growth()]);
    (0..5).for_each(|_| random_ops(&mut lane, random, recorded));
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
        recorded.disk.fail(&[Fault { call, after, times, failure }, no_growth()]);
        match random.below(if matches!(call, Call::LogWrite | Call::LogSync) { 12 } else { 3 }) {
            // A failed drain changes no session.
            0 => _ = recorded.store().ids(Cursor::default()),
            1 => {
                // If closing the store fails to drain the log, the next open does it.
                recorded.store = None;
                hits += usize::from(recorded.disk.failed_calls() > 0);
                recorded.disk.fail(&[no_growth()]);
                recorded.reopen();
                recorded.disk.note(Event::Settled);
            }
            _ => {}
        }
        let op = change(&lane, random, recorded.clock.now());
        recorded.disk.note(Event::Started(0));
        let expected = lane.apply(&op, recorded.clock.now());
        let result = op.perform(recorded.store());
        let is_unknown = result.as_ref().is_err_and(|error| error.is_outcome_unknown());
        let result = outcome(result);
        let failed_calls = recorded.disk.failed_calls();
        recorded.disk.fail(&[no_growth()]);
        match result {
            Err("ERR_STORE_FULL" | "ERR_STORE_IO") => {
                assert!(failed_calls > 0, "{op:?} fails although no call of the disk has failed: {result:?}");
                recorded.disk.note(Event::Started(0));
                lane.roll_back(recorded.clock.now());
                if is_unknown {
                    // The outcome is known once the store has committed again.
                    let view = match look(recorded.store(), 1) {
                        Ok(view) => view,
                        Err(_) => {
                            recorded.reopen();
                            view_of(recorded)
                        }
                    };
                    if view != lane.last().view(recorded.clock.now()) {
                        recorded.disk.note(Event::Started(0));
                        let model = lane.models[lane.models.len() - 2].1.clone();
                        assert!(model.view(recorded.clock.now()) == view, "{op:?} has happened in part");
                        lane.models.push((recorded.clock.now(), model));
                    }
                    recorded.reopen();
                    settle(&mut lane, recorded);
                }
                acknowledge(&lane, recorded);
            }
            result => {
                assert_eq!(result, expected, "{op:?}");
                acknowledge(&lane, recorded);
            }
        }
        hits += usize::from(failed_calls > 0);
        // The store does not use a failed log again until some time later.
        if failed_calls > 0 || random.one_in(10) {
            if random.one_in(2) {
                let now = recorded.clock.now();
                assert!(view_of(recorded) == lane.last().view(now), "after {call:?} {failure:?}");
            }
            recorded.reopen();
            recorded.disk.note(Event::Settled);
            // Otherwise the next failing call would be one that starts the log, and no write would fail.
            if !random.one_in(4) {
                settle(&mut lane, recorded);
                acknowledge(&lane, recorded);
            }
        }
    }
    assert!(hits > many / 8, "{hits} of {many}");
    vec![lane]
}

/// A sync of the log fails, and so does the commit that removes the log. The next process finds a log whose page cache
/// may have more than the disk, although its pages are marked as clean.
fn failing_twice(many: usize, random: &mut Random, recorded: &mut RecordedStore) -> Vec<Lane> {
    let mut lane = Lane::new(Model::default(), recorded.clock.now());
    recorded.disk.fail(&[no_growth()]);
    for _ in 0..many {
        random_ops(&mut lane, random, recorded);
        settle(&mut lane, recorded);
        let failure = Failure::Refused(if random.one_in(2) { EIO } else { ENOSPC });
        let log = Fault { call: Call::LogSync, after: 0, times: ALWAYS, failure };
        recorded.disk.fail(&[log, Fault { call: Call::Sync, ..log }, no_growth()]);
        let op = loop {
            let op = change(&lane, random, recorded.clock.now());
            if op.bytes() < 2000 && op.can_be_queued() {
                break op;
            }
        };
        recorded.disk.note(Event::Started(0));
        let expected = lane.apply(&op, recorded.clock.now());
        let result = op.perform(recorded.store());
        // The store may have given up the log before the operation came. Then it failed without an effect.
        let mut is_unknown = false;
        match result {
            Err(error) => {
                is_unknown = error.is_outcome_unknown();
                if !is_unknown {
                    recorded.disk.note(Event::Started(0));
                    lane.roll_back(recorded.clock.now());
                }
            }
            result => {
                assert_eq!(outcome(result), expected);
                acknowledge(&lane, recorded);
            }
        }
        recorded.store = None;
        assert!(recorded.disk.failed_calls() > 0);
        recorded.disk.fail(&[no_growth()]);
        recorded.reopen();
        let view = peek(recorded.store(), 0).unwrap();
        if is_unknown && view != lane.last().view(recorded.clock.now()) {
            recorded.disk.note(Event::Started(0));
            lane.roll_back(recorded.clock.now());
        }
        assert!(view == lane.last().view(recorded.clock.now()), "{op:?}");
        acknowledge(&lane, recorded);
        recorded.disk.note(Event::Settled);
    }
    vec![lane]
}

/// Returns a random operation that changes the view of the store.
fn change(lane: &Lane, random: &mut Random, now: Millis) -> Op {
    loop {
        let op = if random.one_in(60) { Op::Clear } else { Op::random(0, now, random) };
        let mut model = lane.last().clone();
        if model.apply(&op, now).is_ok() && model.view(now) != lane.last().view(now) {
            return op;
        }
    }
}

/// Records that all operations up to now are acknowledged.
fn acknowledge(lane: &Lane, recorded: &RecordedStore) {
    let events = recorded.disk.count(|event| matches!(event, Event::Acknowledged(_)));
    (events..lane.models.len() - 1).for_each(|_| recorded.disk.note(Event::Acknowledged(0)));
}

/// Performs an operation that cannot fail.
fn settle(lane: &mut Lane, recorded: &RecordedStore) {
    let id = sessions::id_text(0, 1);
    let op = Op::Touch { id, expires: recorded.clock.now() + 50 as Millis };
    recorded.disk.note(Event::Started(0));
    let expected = lane.apply(&op, recorded.clock.now());
    assert_eq!(outcome(op.perform(recorded.store())), expected);
}

#[test]
fn a_power_loss_after_faults_loses_no_acknowledged_write_and_keeps_no_failed_write() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    let kinds: [&[Call]; 3] = [
        &[Call::LogWrite, Call::LogSync],
        &[Call::LogWrite, Call::LogSync, Call::Write, Call::Sync],
        &[Call::LogSync, Call::WriteThrough],
    ];
    let share = states(20).div_ceil(2 * (kinds.len() as u64 + 1));
    for setup in [plain(Commit), plain(EverySec)] {
        let run = Run::record("failing twice", setup, small_log(), START, |recorded| {
            failing_twice(12, &mut random, recorded)
        });
        run.check_all(share, run.opening, Syncs::Kept, &mut random, &mut sum);
        for calls in kinds {
            let run = Run::record("failing", setup, small_log(), START, |recorded| {
                failing(50, calls, &mut random, recorded)
            });
            run.check_all(share, run.opening, Syncs::Kept, &mut random, &mut sum);
        }
    }
    sum.assert_good();
}

/// A commit about the log that fails although its meta page reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RolledBack {
    /// The removal of the log when the store is closed.
    End,
    /// A drain when the store is closed.
    Drain,
    Clear,
    /// The start of the log.
    Start,
}

/// LMDB rolls back the meta page of a failed commit, the sync of the rollback fails, and another process continues with
/// the log. It must not rely on a meta page that may not be on disk.
#[test]
fn a_rolled_back_commit_about_the_log_does_not_return_after_a_power_loss() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    for rolled_back in [RolledBack::End, RolledBack::Drain, RolledBack::Clear, RolledBack::Start].repeat(2) {
        let mut before = 0;
        let run = Run::record("rolled back", plain(Commit), small_log(), START, |recorded| {
            recorded.disk.fail(&[no_growth()]);
            let mut lane = Lane::new(Model::default(), recorded.clock.now());
            (0..5).for_each(|_| random_ops(&mut lane, &mut random, recorded));
            if rolled_back == RolledBack::Start {
                recorded.reopen();
                recorded.store().flush().unwrap();
            } else {
                create(1, &mut lane, &mut random, recorded);
            }
            if rolled_back == RolledBack::End {
                recorded.store().ids(Cursor::default()).unwrap();
            }
            before = recorded.disk.log_len();
            let failure = Failure::Doubtful(EIO);
            let meta = Fault { call: Call::WriteThrough, after: 0, times: ALWAYS, failure };
            // The first sync is that of the pages. It must succeed, or LMDB does not write the meta page. The first
            // commit of a process makes one more sync.
            let after = 1 + usize::from(rolled_back == RolledBack::Start);
            let sync = Fault { call: Call::Sync, after, failure: Failure::Refused(EIO), ..meta };
            recorded.disk.fail(&[meta, sync, no_growth()]);
            match rolled_back {
                RolledBack::Clear => {
                    recorded.disk.note(Event::Started(0));
                    lane.apply(&Op::Clear, recorded.clock.now()).unwrap();
                    let error = Op::Clear.perform(recorded.store()).unwrap_err();
                    assert!(error.is_outcome_unknown(), "{error}");
                    recorded.disk.note(Event::Started(0));
                    lane.roll_back(recorded.clock.now());
                }
                RolledBack::Start => {
                    recorded.disk.note(Event::Started(0));
                    let op = Op::Touch { id: sessions::id_text(0, 1), expires: FAR };
                    lane.apply(&op, recorded.clock.now()).unwrap();
                    let error = op.perform(recorded.store()).unwrap_err();
                    println!("start: {error}");
                    recorded.disk.note(Event::Started(0));
                    lane.roll_back(recorded.clock.now());
                }
                RolledBack::End | RolledBack::Drain => {}
            }
            recorded.store = None;
            assert!(recorded.disk.failed_calls() > 1);
            recorded.disk.fail(&[no_growth()]);
            recorded.reopen();
            assert!(recorded.disk.failed_calls() == 0);
            (2..8).for_each(|nth| create(nth, &mut lane, &mut random, recorded));
            acknowledge(&lane, recorded);
            vec![lane]
        });
        let bad = sum.bad;
        run.check_all(states(10).div_ceil(8), before, Syncs::Kept, &mut random, &mut sum);
        println!("{rolled_back:?}: {} bad", sum.bad - bad);
    }
    sum.assert_good();
}

/// A new log was renamed to its final name, and the sync of the folder failed. The same process or the next one uses
/// the log later.
#[test]
fn a_store_does_not_rely_on_a_log_whose_name_may_not_be_on_disk() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    for (call, is_reopened) in [(Call::FolderSync, true), (Call::FolderSync, false), (Call::Rename, false)] {
        let run = Run::record("name", plain(Commit), own_log(), START, |recorded| {
            let mut lane = Lane::new(Model::default(), recorded.clock.now());
            recorded.disk.fail(&[Fault { call, after: 0, times: 1, failure: Failure::Refused(EIO) }]);
            create(1, &mut lane, &mut random, recorded);
            assert_eq!(recorded.disk.clear_faults(), 1);
            if is_reopened {
                recorded.reopen();
            } else {
                // The store does not try to start a log again until one second has passed.
                std::thread::sleep(std::time::Duration::from_millis(1100));
            }
            (2..8).for_each(|nth| create(nth, &mut lane, &mut random, recorded));
            assert!(recorded.store().stats().unwrap().log.unwrap().size > 0);
            vec![lane]
        });
        run.check_all(states(3).div_ceil(3), run.opening, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}

/// Otherwise the data file could have a write that is newer than a write that the log then loses.
#[test]
fn a_drain_syncs_the_log_before_it_commits() {
    let (mut random, _alone) = start_alone();
    let recorded = RecordedStore::open(plain(EverySec), &small_log(), START);
    recorded.disk.fail(&[no_growth()]);
    let mut lane = Lane::new(Model::default(), START);
    let log = recorded.disk.log_file().unwrap();
    for nth in 0..20 {
        recorded.disk.take_log();
        create(nth, &mut lane, &mut random, &recorded);
        recorded.store().ids(Cursor::default()).unwrap();
        // Whether a write to the log is not synced.
        let (mut is_unsynced, mut commits) = (false, 0);
        for event in recorded.disk.take_log() {
            match event {
                Event::Write { file, .. } if file == log => is_unsynced = true,
                Event::Sync(file) if file == log => is_unsynced = false,
                Event::Write { durable: true, .. } => {
                    commits += 1;
                    assert!(!is_unsynced, "a commit contains writes that are not synced in the log");
                }
                _ => {}
            }
        }
        assert!(commits > 0);
    }
}

/// Creates a session that does not exist and fits into the log.
fn create(nth: u64, lane: &mut Lane, random: &mut Random, recorded: &RecordedStore) {
    let id = sessions::id_text(0, nth);
    perform(&Op::Delete { id: id.clone() }, 0, lane, recorded);
    perform(&Op::Create(TestSession::new(id, None, FAR, 500, random)), 0, lane, recorded);
}

/// Proves that the simulated power losses can damage a store, and that the checks detect it.
#[test]
fn without_syncs_stores_are_damaged() {
    let (mut random, _alone) = start_alone();
    let run = Run::record("small log", plain(Commit), small_log(), START, |recorded| {
        in_small_log(30, &mut random, recorded)
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
