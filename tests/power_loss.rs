//! The power fails, at any moment: what was acknowledged must be there, what was not may be, and nothing else.
//!
//! A run on a store is recorded, write by write and sync by sync. Of many moments of it a file is made that a disk
//! could hold then, and a store is opened on that. `POWER_LOSS_STATES` says of how many, `POWER_LOSS_SEED` of which.
//!
//! The stores here are too small for a redo log, so that each write is a commit of LMDB's. `log_power_loss` has the others.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use libc::{EIO, ENOSPC};
use native_store::clock::Clock;

use disk::image::{Image, Syncs};
use disk::run::{Run, Sum, Used, begin, in_groups, number_from, on_threads, perform, view_of};
use disk::sessions::{self, Draft, FAR, Lane, Model, Op, START, Setup, View, look, outcome};
use disk::{Call, Event, Failure, Fault, Random};

const STATES: u64 = 160;
const PLAIN: Setup = Setup::direct(false);

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

#[test]
fn a_power_loss_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let states = number_from("POWER_LOSS_STATES", STATES).div_ceil(4);
    let mut sum = Sum::default();
    for (name, sealed) in [("groups", false), ("groups, sealed", true)] {
        let run = Run::record(name, Setup::direct(sealed), Image::default(), START, |used| {
            in_groups(60, Model::default(), &mut random, used)
        });
        run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    }
    let run =
        Run::record("threads", PLAIN, Image::default(), START, |used| on_threads(12, &mut random, used));
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    let run = Run::record("failing", PLAIN, Image::default(), START, |used| {
        failing(60, &[Call::Write, Call::Sync], &mut random, used)
    });
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

#[test]
fn one_power_loss_after_another_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let (mut first, mut model, mut now) = (Image::default(), Model::default(), START);
    let mut sum = Sum::default();
    for _ in 0..8 {
        let run = Run::record("again", PLAIN, first, now, |used| in_groups(6, model, &mut random, used));
        let mut next = None;
        run.lose_power(3, run.opening, Syncs::Kept, &mut random, |moment, image| {
            sum.add(&run, moment, run.check(moment, &image));
            next = Some((image, moment.now, moment.reached[0]));
        });
        let (left, then, reached) = next.unwrap();
        let view = view_of(&Used::open(PLAIN, &left, then));
        model = run.lanes[0].model_of(&view, reached, then).unwrap();
        (first, now) = (left, then);
    }
    sum.assert_good();
}

#[test]

fn a_power_loss_after_meta_pages_have_failed_takes_nothing_that_was_acknowledged() {
    let (mut random, _alone) = begin();
    let mut sum = Sum::default();
    let run = Run::record("failing", PLAIN, Image::default(), START, |used| {
        failing(60, &[Call::Write, Call::WriteThrough], &mut random, used)
    });
    run.check_all(60, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

/// It proves that these losses are harsh enough, and that damage is seen.
#[test]
fn without_syncs_stores_are_damaged() {
    let (mut random, _alone) = begin();
    let run = Run::record("groups", PLAIN, Image::default(), START, |used| {
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
        let run = Run::record("making", Setup::direct(sealed), Image::default(), START, |used| {
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
        let run = Run::record("taken back", PLAIN, Image::default(), START, |used| {
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
