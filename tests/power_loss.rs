//! The power fails at any moment. All acknowledged writes must be there, unacknowledged writes may be, and nothing
//! else.
//!
//! Each run records the writes and syncs of a store. For random moments of the run, the test makes a file that a disk
//! could hold at that moment, and opens a store on it. `POWER_LOSS_STATES` sets the number of moments, and
//! `POWER_LOSS_SEED` the seed.
//!
//! The stores here are too small for a redo log, so each write is a commit of LMDB. `log_power_loss` tests stores with
//! a log.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use libc::{EIO, ENOSPC};
use native_store::clock::Clock;

use disk::image::{Image, Syncs};
use disk::run::{RecordedStore, Run, Sum, in_groups, number_from, on_threads, perform, start_alone, view_of};
use disk::sessions::{self, FAR, Lane, Model, Op, START, Setup, TestSession, View, look, outcome};
use disk::{Call, Event, Failure, Fault, Random};

const STATES: u64 = 160;
const PLAIN: Setup = Setup::direct(false);

/// Performs operations one by one. In many of them a call of these kinds fails.
fn failing(many: usize, calls: &[Call], random: &mut Random, recorded: &RecordedStore) -> Vec<Lane> {
    let mut lanes = in_groups(5, Model::default(), random, recorded);
    let lane = &mut lanes[0];
    // Operations that have ended, but are only durable once a later write succeeds.
    let mut unconfirmed = 0;
    for _ in 0..many {
        let call = calls[random.below(calls.len() as u64) as usize];
        let number = if random.one_in(2) { EIO } else { ENOSPC };
        let failure = match call {
            Call::Write | Call::WriteThrough if random.one_in(2) => Failure::Doubtful(number),
            _ => Failure::Refused(number),
        };
        let after = if call == Call::Write { random.below(8) as usize } else { 0 };
        recorded.disk.fail(&[Fault { call, after, times: 1, failure }]);
        let op = Op::random(0, recorded.clock.now(), random);
        recorded.disk.note(Event::Started(0));
        let expected = lane.apply(&op, recorded.clock.now());
        let result = outcome(op.perform(recorded.store()));
        let failed_calls = recorded.disk.clear_faults();
        unconfirmed += 1;
        if let Err("ERR_STORE_FULL" | "ERR_STORE_IO") = result {
            assert!(failed_calls > 0, "{op:?} fails although no call of the disk has failed: {result:?}");
            recorded.disk.note(Event::Started(0));
            lane.roll_back(recorded.clock.now());
            unconfirmed += 1;
        } else {
            assert_eq!(result, expected, "{op:?}");
            (0..std::mem::take(&mut unconfirmed)).for_each(|_| recorded.disk.note(Event::Acknowledged(0)));
        }
    }
    lanes
}

#[test]
fn a_power_loss_loses_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let states = number_from("POWER_LOSS_STATES", STATES).div_ceil(4);
    let mut sum = Sum::default();
    for (name, is_encrypted) in [("groups", false), ("groups, encrypted", true)] {
        let run = Run::record(name, Setup::direct(is_encrypted), Image::default(), START, |recorded| {
            in_groups(60, Model::default(), &mut random, recorded)
        });
        run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    }
    let run = Run::record("threads", PLAIN, Image::default(), START, |recorded| {
        on_threads(12, &mut random, recorded)
    });
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    let run = Run::record("failing", PLAIN, Image::default(), START, |recorded| {
        failing(60, &[Call::Write, Call::Sync], &mut random, recorded)
    });
    run.check_all(states, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

#[test]
fn repeated_power_losses_lose_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let (mut first, mut model, mut now) = (Image::default(), Model::default(), START);
    let mut sum = Sum::default();
    for _ in 0..8 {
        let run =
            Run::record("again", PLAIN, first, now, |recorded| in_groups(6, model, &mut random, recorded));
        let mut next = None;
        run.lose_power(3, run.opening, Syncs::Kept, &mut random, |moment, image| {
            sum.add(&run, moment, run.check(moment, &image));
            next = Some((image, moment.now, moment.reached[0]));
        });
        let (left, then, reached) = next.unwrap();
        let view = view_of(&RecordedStore::open(PLAIN, &left, then));
        model = run.lanes[0].model_of(&view, reached, then).unwrap();
        (first, now) = (left, then);
    }
    sum.assert_good();
}

#[test]
fn a_power_loss_after_failed_meta_page_writes_loses_no_acknowledged_write() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    let run = Run::record("failing", PLAIN, Image::default(), START, |recorded| {
        failing(60, &[Call::Write, Call::WriteThrough], &mut random, recorded)
    });
    run.check_all(60, run.opening, Syncs::Kept, &mut random, &mut sum);
    sum.assert_good();
}

/// Proves that the simulated power losses can damage a store, and that the checks detect it.
#[test]
fn without_syncs_stores_are_damaged() {
    let (mut random, _alone) = start_alone();
    let run = Run::record("groups", PLAIN, Image::default(), START, |recorded| {
        in_groups(30, Model::default(), &mut random, recorded)
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
fn a_power_loss_during_the_creation_of_a_store_leaves_no_store_or_a_complete_one() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    for is_encrypted in [false, true] {
        let run = Run::record("making", Setup::direct(is_encrypted), Image::default(), START, |recorded| {
            vec![Lane::new(Model::default(), recorded.clock.now())]
        });
        run.check_all(30, 0, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}

/// The event after LMDB has rolled back a failed write that had reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another process opens the store before the rollback is on disk.
    Opened,
    /// The sync of the rollback fails, and the kernel may have dropped the rollback.
    SyncFailed,
    /// Both events happen.
    SyncFailedAndOpened,
}

#[test]
fn a_rolled_back_meta_page_does_not_return_after_a_power_loss() {
    let (mut random, _alone) = start_alone();
    let mut sum = Sum::default();
    for then in [Then::Opened, Then::SyncFailed, Then::SyncFailedAndOpened].repeat(3) {
        let mut before = 0;
        let run = Run::record("rolled back", PLAIN, Image::default(), START, |recorded| {
            let mut lanes = in_groups(10, Model::default(), &mut random, recorded);
            let lane = &mut lanes[0];
            let now = recorded.clock.now();
            let [failing, next] = [1, 2].map(|nth| {
                let id = sessions::id_text(0, nth);
                Op::Create(TestSession::new(id, None, FAR, 20_000, &mut random))
            });
            perform(&Op::Clear, 0, lane, recorded);
            before = recorded.disk.log_len();
            let failure = Failure::Doubtful(EIO);
            let meta = Fault { call: Call::WriteThrough, after: 0, times: usize::MAX, failure };
            // The first sync is that of the pages. It must succeed, or LMDB does not write the meta page.
            let sync = Fault { call: Call::Sync, after: 1, failure: Failure::Refused(EIO), ..meta };
            recorded.disk.fail(&[meta, sync][..if then == Then::Opened { 1 } else { 2 }]);
            recorded.disk.note(Event::Started(0));
            lane.apply(&failing, now).unwrap();
            assert_eq!(outcome(failing.perform(recorded.store())), Err("ERR_STORE_IO"));
            assert_eq!(recorded.disk.clear_faults(), if then == Then::Opened { 1 } else { 2 });
            if then != Then::SyncFailed {
                recorded.reopen();
            }
            assert!(look(recorded.store(), 1) == Ok(View::default()), "the failed write has happened");
            recorded.disk.note(Event::Started(0));
            lane.roll_back(now);
            perform(&next, 0, lane, recorded);
            (0..2).for_each(|_| recorded.disk.note(Event::Acknowledged(0)));
            lanes
        });
        run.check_all(40, before, Syncs::Kept, &mut random, &mut sum);
    }
    sum.assert_good();
}
