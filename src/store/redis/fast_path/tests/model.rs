//! A model test: random calls on a few sessions, with random faults, compared with all possible states.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use proptest::prelude::*;

use super::clusters::open_in_cluster;
use super::fake::{Command, Conduct, Fake};
use super::harness::Harness;
use super::{ann, number_in, open_on};
use crate::clock::{Clock, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Body, Expiry, UserKeyBuf};
use crate::store::Answer;
use crate::store::conformance::{id, json};

#[derive(Debug, Clone, Copy)]
enum Call {
    Create {
        user: bool,
    },
    Update {
        user: bool,
    },
    Touch,
    /// A touch that leaves a late enough expiry unchanged.
    Prolong,
    Delete,
    Get,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Call(usize, Call),
    Submit,
    /// Waits until the oldest call completes.
    Wait,
    WaitForAll,
    /// Once no call is pending, another process deletes a session.
    OthersDelete(usize),
    /// Likewise, and gives it an earlier expiry.
    OthersShorten(usize),
    /// Moves a half of the slots to another node of a cluster.
    MoveSlots(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![
        3 => any::<bool>().prop_map(|user| Call::Create { user }),
        3 => any::<bool>().prop_map(|user| Call::Update { user }),
        2 => Just(Call::Touch),
        3 => Just(Call::Prolong),
        2 => Just(Call::Delete),
        4 => Just(Call::Get),
    ];
    let step = prop_oneof![
        16 => (0..3_usize, call).prop_map(|(session, call)| Step::Call(session, call)),
        2 => Just(Step::Submit),
        2 => Just(Step::Wait),
        2 => Just(Step::WaitForAll),
        1 => (0..3_usize).prop_map(Step::OthersDelete),
        1 => (0..3_usize).prop_map(Step::OthersShorten),
        2 => (0..2_usize).prop_map(Step::MoveSlots),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The faults for the commands of the fast path, one after the other.
fn faults() -> impl Strategy<Value = Vec<Conduct>> {
    let fault = prop_oneof![
        12 => Just(Conduct::Do),
        1 => Just(Conduct::Answer(b"-NOSCRIPT No matching script.\r\n")),
        1 => Just(Conduct::Answer(b"-OOM command not allowed\r\n")),
        1 => Just(Conduct::Answer(b"-BUSY Redis is busy running a script.\r\n")),
        1 => Just(Conduct::Answer(b"-UNSUPPORTED\r\n")),
        1 => Just(Conduct::Answer(b"-READONLY You can't write.\r\n")),
        1 => Just(Conduct::End),
        1 => (0..9_usize).prop_map(Conduct::DoAndEnd),
        1 => Just(Conduct::DoAndCorrupt),
    ];
    // After a fault, most calls go to the worker for a while.
    prop_oneof![Just(Vec::new()), proptest::collection::vec(fault, 0..60)]
}

/// A stored session: the number of the call that wrote it, and whether others have given it an earlier expiry.
type State = Option<(usize, bool)>;

/// The possible states of a session, which may be absent.
type States = Vec<State>;

/// The result of a change in a state, and the new state.
fn done(call: Call, number: usize, state: State) -> Option<(u64, State)> {
    match (call, state) {
        (Call::Create { .. }, None) => Some((1, Some((number, false)))),
        (Call::Create { .. }, Some(_)) | (Call::Get, _) => None,
        (Call::Update { .. }, Some(_)) => Some((1, Some((number, false)))),
        (Call::Touch | Call::Prolong, Some((writer, _))) => Some((1, Some((writer, false)))),
        (Call::Update { .. } | Call::Touch | Call::Prolong, None) => Some((0, None)),
        (Call::Delete, _) => Some((1, None)),
    }
}

/// The possible states after a change, given its outcome.
fn after(states: &States, call: Call, number: usize, outcome: &Result<Answer>) -> States {
    let done = |state| done(call, number, state);
    let states = states.iter().copied();
    let mut left: States = match outcome {
        Ok(Answer::Number(results)) => states
            .filter_map(|state| done(state).filter(|(number, _)| number == results))
            .map(|it| it.1)
            .collect(),
        Err(StoreError::Exists) => states.filter(Option::is_some).collect(),
        Err(error) if error.is_outcome_unknown() => {
            states.flat_map(|state| [Some(state), done(state).map(|it| it.1)]).flatten().collect()
        }
        other => panic!("{call:?}: {other:?}"),
    };
    left.sort_unstable();
    left.dedup();
    left
}

struct Checker {
    /// The expiry that all calls give.
    expires: Expiry,
    states: HashMap<usize, States>,
    /// The calls whose outcome was not checked yet.
    pending: VecDeque<(u32, usize, Call, usize)>,
    ended: usize,
}

impl Checker {
    fn states(&mut self, session: usize) -> &mut States {
        self.states.entry(session).or_insert_with(|| vec![None])
    }

    /// Waits for the oldest call, and checks that changes of a session took effect in order.
    fn wait(&mut self, harness: &mut Harness) {
        let Some((ticket, session, call, number)) = self.pending.pop_front() else { return };
        let outcome = harness.end_of(ticket);
        self.ended += 1;
        if matches!(call, Call::Get) {
            assert!(matches!(outcome, Ok(Answer::Session(_))), "{outcome:?}");
            return;
        }
        let mut before = self.states(session).clone();
        // Calls that were sent behind one that fell back may have taken effect before it, and again after it.
        for &(_, _, later, number) in self.pending.iter().filter(|later| later.1 == session) {
            let too_soon: States =
                before.iter().filter_map(|&state| done(later, number, state)).map(|it| it.1).collect();
            before.extend(too_soon);
        }
        let left = after(&before, call, number, &outcome);
        assert!(!left.is_empty(), "{call:?} of {session} ended with {outcome:?}, but it was {before:?}");
        *self.states(session) = left;
    }

    fn wait_for_all(&mut self, harness: &mut Harness) {
        while !self.pending.is_empty() {
            self.wait(harness);
        }
        (0..3).for_each(|session| self.look(harness, session));
    }

    /// Changes a session as another process does.
    fn others_change(&mut self, fake: &Fake, session: usize, is_shortened: bool) {
        let Some((writer, _)) = self.states(session)[0] else { return };
        let key = format!("sess#{session}").into_bytes();
        let mut data = fake.data.lock().unwrap();
        let shortened = is_shortened.then(|| {
            let mut value = data.strings[&key].clone();
            let earlier = self.expires.millis() - 60_000;
            value[11..29].copy_from_slice(format!("{earlier:<18}").as_bytes());
            value
        });
        data.put(&key, shortened);
        *self.states(session) = vec![is_shortened.then_some((writer, true))];
    }

    /// Reads a session without pending changes.
    fn look(&mut self, harness: &mut Harness, session: usize) {
        let ticket = harness.get(&id(&session.to_string()));
        let found = harness.session(ticket).unwrap();
        self.ended += 1;
        let found = found.map(|found| match found.content().unwrap().body {
            Body::Json { text, .. } => (number_in(text), found.expires.millis() < self.expires.millis()),
            Body::Plain(_) => panic!("none was written"),
        });
        let states = self.states(session);
        assert!(states.contains(&found), "{session} is {found:?}, but could be {states:?}");
        *states = vec![found];
    }
}

fn run(steps: &[Step], faults: Vec<Conduct>, nodes: usize, is_old: bool) {
    let faults = Mutex::new(VecDeque::from(faults));
    let decide = move |is_fast, _: &Command| {
        let fault = if is_fast { faults.lock().unwrap().pop_front() } else { None };
        fault.unwrap_or(Conduct::Do)
    };
    let fake = if nodes > 1 { Fake::start_cluster(nodes, decide) } else { Fake::start(decide) };
    fake.data.lock().unwrap().is_old = is_old;
    let mut harness =
        Harness::open(if nodes > 1 { open_in_cluster(&fake, |_| {}) } else { open_on(&fake, |_| {}) });
    let (ann, ben) = (ann(), UserKeyBuf::from_text("ben"));
    let expires = Expiry::new(SystemClock.now() + 3_600_000).unwrap();
    let (states, pending) = (HashMap::new(), VecDeque::new());
    let mut checker = Checker { expires, states, pending, ended: 0 };
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Call(session, call) => {
                let session_id = session.to_string();
                let text = format!(r#"{{"number":{number}}}"#);
                let of = |user| json(&session_id, Some(if user { &ann } else { &ben }), &text, expires);
                let ticket = match call {
                    Call::Create { user } => harness.create(&of(user)),
                    Call::Update { user } => harness.update(&of(user)),
                    Call::Touch => harness.touch(&id(&session_id), expires),
                    Call::Prolong => harness.prolong(&id(&session_id), expires),
                    Call::Delete => harness.delete(&id(&session_id)),
                    Call::Get => harness.get(&id(&session_id)),
                };
                checker.pending.push_back((ticket, session, call, number));
            }
            Step::Submit => harness.fast_path.submit(),
            Step::MoveSlots(half) if nodes > 1 => fake.slots.lock().unwrap().move_half(half),
            Step::MoveSlots(_) => {}
            Step::Wait => checker.wait(&mut harness),
            Step::WaitForAll => checker.wait_for_all(&mut harness),
            Step::OthersDelete(session) | Step::OthersShorten(session) => {
                checker.wait_for_all(&mut harness);
                checker.others_change(&fake, session, matches!(step, Step::OthersShorten(_)));
            }
        }
    }
    checker.wait_for_all(&mut harness);
    assert!(harness.fast_path.is_idle() && harness.fast_path.fallback.is_empty());
    assert_eq!(harness.count(), checker.ended, "each call ends once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn calls_complete_once_and_in_order_despite_faults(steps in steps(), faults in faults(), is_old: bool) {
        run(&steps, faults, 1, is_old);
    }

    #[test]
    fn calls_complete_once_and_in_order_while_slots_move(steps in steps(), faults in faults(), is_old: bool) {
        run(&steps, faults, 3, is_old);
    }
}
