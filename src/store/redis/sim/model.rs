//! What a session may be seen to be: the contract, for one session id.
//!
//! The model keeps every state in which the session may be, given all that was seen. A call under way may have had its
//! effect or not, at any moment since it began, and more than once, as a request whose answer is lost is sent again. One
//! that failed with an unknown outcome may have it later, but not after a later call of the same process had its own. What
//! is seen rules states out. If none is left, the store has broken its contract.

use std::collections::{BTreeMap, HashSet};

use super::process::ProcessId;
use crate::clock::Millis;

/// A session that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub user: Option<usize>,
    pub expires: Millis,
    pub version: u32,
    /// Servers have lost data since it got its user: the user's index may lack it.
    pub may_be_unnamed: bool,
}

impl Row {
    /// Whether it is what is seen of it.
    fn is(&self, seen: &Self) -> bool {
        (self.user, self.expires, self.version) == (seen.user, seen.expires, seen.version)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Create(Row),
    Update(Row),
    Touch(Millis),
    Delete,
    /// A `clear`, which is not in the order of the calls on the session.
    Clear,
    DeleteByUser(usize),
    Get,
    GetByUser(usize),
}

impl Op {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::GetByUser(_))
    }

    /// Whether it waits for calls that its process began before it on the session.
    fn is_in_order(&self) -> bool {
        !matches!(self, Self::Clear | Self::DeleteByUser(_) | Self::GetByUser(_))
    }
}

/// What a call reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// Whether a session was created, or was there. Of calls that do not say, it is `true`.
    Done(bool),
    Found(Option<Row>),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Saw(Outcome),
    NotDone,
    Unknown,
}

/// What a call has done, as one candidate has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fate {
    Waiting,
    Done(Outcome),
    /// It was done, or not, and will not be any more.
    Settled(Option<Outcome>),
}

#[derive(Debug, Clone)]
struct Call {
    op: Op,
    process: ProcessId,
    begun_at: Millis,
    has_failed: bool,
    /// A server has lost data since it began.
    is_before_loss: bool,
    /// How often a server has stored its session.
    stored: u32,
}

pub(super) type CallId = u64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Candidate {
    row: Option<Row>,
    /// Of each call that is under way or has failed.
    fates: BTreeMap<CallId, Fate>,
}

#[derive(Debug)]
pub(super) struct History {
    /// An entry and its session may be on two servers.
    are_entries_apart: bool,
    /// By how much the clocks of the processes may differ from the servers'.
    clock_margin: Millis,
    calls: BTreeMap<CallId, Call>,
    candidates: Vec<Candidate>,
    next: CallId,
}

impl History {
    pub(super) fn new(are_entries_apart: bool, clock_margin: Millis) -> Self {
        let nothing = Candidate { row: None, fates: BTreeMap::new() };
        Self { are_entries_apart, clock_margin, calls: BTreeMap::new(), candidates: vec![nothing], next: 0 }
    }

    /// How many calls are under way, or have failed and may still have an effect.
    pub(super) fn pending(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn begin(&mut self, op: Op, process: ProcessId, now: Millis) -> CallId {
        let id = self.next;
        self.next += 1;
        let call = Call { op, process, begun_at: now, has_failed: false, is_before_loss: false, stored: 0 };
        self.calls.insert(id, call);
        for candidate in &mut self.candidates {
            candidate.fates.insert(id, Fate::Waiting);
        }
        id
    }

    pub(super) fn end(&mut self, id: CallId, ending: &Ending, now: Millis) -> Result<(), String> {
        let is_read = self.calls[&id].op.is_read();
        match ending {
            Ending::Saw(outcome) => {
                self.expand(now);
                let latest = now + self.clock_margin;
                let is_so = |seen: &Outcome| match (seen, outcome) {
                    (Outcome::Found(Some(seen)), Outcome::Found(Some(row))) => row.is(seen),
                    // It may have expired while the answer was on its way.
                    (Outcome::Found(Some(seen)), Outcome::Found(None)) if seen.expires <= latest => true,
                    (seen, outcome) => seen == outcome,
                };
                self.retain(|candidate| match &candidate.fates[&id] {
                    Fate::Done(seen) | Fate::Settled(Some(seen)) => is_so(seen),
                    _ => false,
                })?;
                self.enter(id, outcome);
            }
            Ending::NotDone if !is_read => {
                self.expand(now);
                self.retain(|candidate| matches!(candidate.fates[&id], Fate::Waiting | Fate::Settled(None)))?;
            }
            Ending::Unknown if !is_read => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.has_failed = true;
                }
                // What it would have reported makes no difference any more, nor whether it was done before.
                for candidate in &mut self.candidates {
                    let is_settled = matches!(candidate.fates[&id], Fate::Settled(_));
                    candidate.fates.insert(id, if is_settled { Fate::Settled(None) } else { Fate::Waiting });
                }
                self.dedup();
                self.forget_settled();
                return Ok(());
            }
            Ending::NotDone | Ending::Unknown => {}
        }
        self.forget(id);
        self.forget_settled();
        Ok(())
    }

    /// A server has stored a session that it did not have. A creation that is stored once more was sent again, and its session
    /// had been ended in between. If the entry is on another server it may have gone with that, and the creation enters the
    /// session again only after this. So until the creation succeeds, the entry may be missing, and for good if the creation
    /// ends with an unknown outcome. All else about such a session must hold, and all of any other session.
    pub(super) fn stored(&mut self, version: u32, now: Millis) {
        let creation = |op: &Op| matches!(op, Op::Create(row) if row.version == version);
        let Some(call) = self.calls.values_mut().find(|call| creation(&call.op)) else { return };
        call.stored += 1;
        if self.are_entries_apart && call.stored > 1 {
            self.expand(now);
            for row in self.candidates.iter_mut().filter_map(|candidate| candidate.row.as_mut()) {
                row.may_be_unnamed |= row.version == version;
            }
            self.dedup();
        }
    }

    /// The entry of a session that was created has a version of its own.
    fn enter(&mut self, id: CallId, outcome: &Outcome) {
        let call = &self.calls[&id];
        let (Op::Create(new), Outcome::Done(true), false) = (&call.op, outcome, call.is_before_loss) else {
            return;
        };
        for candidate in &mut self.candidates {
            if let Some(row) = candidate.row.as_mut().filter(|row| row.version == new.version) {
                row.may_be_unnamed = false;
            }
        }
    }

    /// Nothing is under way any more: what has not happened never does.
    pub(super) fn settle(&mut self, now: Millis) {
        self.expand(now);
        self.calls.clear();
        self.candidates.iter_mut().for_each(|candidate| candidate.fates.clear());
        self.dedup();
    }

    /// Whether a process may take a session for ended.
    fn may_be_over(&self, row: &Row, now: Millis) -> bool {
        row.expires <= now + self.clock_margin
    }

    /// Checks what a server holds while nothing is under way.
    pub(super) fn check(&mut self, truth: Option<&Row>, now: Millis) -> Result<(), String> {
        let live = |row: Option<&Row>| row.filter(|row| row.expires > now).cloned();
        let truth = live(truth);
        let margin = self.clock_margin;
        self.retain(|candidate| match (live(candidate.row.as_ref()), &truth) {
            (Some(row), Some(truth)) => row.is(truth),
            // The sweep of a process whose clock is ahead may have ended it.
            (Some(row), None) => row.expires <= now + margin,
            (None, truth) => truth.is_none(),
        })
    }

    /// Servers have lost data, and hold this now.
    pub(super) fn lose(&mut self, truth: Option<&Row>, now: Millis) {
        self.expand(now);
        self.calls.values_mut().for_each(|call| call.is_before_loss = true);
        for candidate in &mut self.candidates {
            candidate.row = truth.cloned().map(|row| Row { may_be_unnamed: true, ..row });
        }
        self.dedup();
    }

    /// Whether the index of its user must name the session.
    pub(super) fn must_be_named(&self) -> bool {
        self.candidates.iter().all(|candidate| candidate.row.as_ref().is_none_or(|row| !row.may_be_unnamed))
    }

    fn retain(&mut self, keep: impl Fn(&Candidate) -> bool) -> Result<(), String> {
        let before = self.candidates.clone();
        self.candidates.retain(keep);
        if self.candidates.is_empty() {
            return Err(format!("none of these fits: {before:?}, with the calls {:?}", self.calls));
        }
        Ok(())
    }

    fn forget(&mut self, id: CallId) {
        self.calls.remove(&id);
        for candidate in &mut self.candidates {
            candidate.fates.remove(&id);
        }
        self.dedup();
    }

    /// Forgets failed calls that have no effect any more, whichever candidate is right.
    fn forget_settled(&mut self) {
        let is_settled = |id: &CallId| {
            self.candidates.iter().all(|candidate| matches!(candidate.fates[id], Fate::Settled(_)))
        };
        let settled: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(id, call)| call.has_failed && is_settled(id))
            .map(|(id, _)| *id)
            .collect();
        settled.into_iter().for_each(|id| self.forget(id));
    }

    fn dedup(&mut self) {
        let mut seen = HashSet::new();
        self.candidates.retain(|candidate| seen.insert(candidate.clone()));
    }

    /// Adds the states that are there after calls under way had their effect, in any order.
    fn expand(&mut self, now: Millis) {
        let mut seen: HashSet<Candidate> = self.candidates.iter().cloned().collect();
        let mut at = 0;
        while at < self.candidates.len() {
            let row = self.candidates[at].row.as_ref();
            if self.clock_margin > 0 && row.is_some_and(|row| self.may_be_over(row, now)) {
                // The sweep of a process whose clock is ahead may have ended it.
                let ended = Candidate { row: None, ..self.candidates[at].clone() };
                if seen.insert(ended.clone()) {
                    self.candidates.push(ended);
                }
            }
            for (id, call) in &self.calls {
                let is_over = match &self.candidates[at].fates[id] {
                    Fate::Settled(_) => true,
                    // Of a read that was sent again only the last answer counts.
                    Fate::Done(_) => call.op.is_read(),
                    Fate::Waiting => false,
                };
                if is_over {
                    continue;
                }
                for next in self.apply(&self.candidates[at], *id, call, now) {
                    if seen.insert(next.clone()) {
                        self.candidates.push(next);
                    }
                }
            }
            at += 1;
        }
    }

    fn apply(&self, before: &Candidate, id: CallId, call: &Call, now: Millis) -> Vec<Candidate> {
        let mut fates = before.fates.clone();
        if call.op.is_in_order() {
            // Those that its process began before it come first, or never.
            for (other_id, other) in self.calls.range(..id) {
                if other.process == call.process && other.op.is_in_order() && !other.op.is_read() {
                    let fate = match &fates[other_id] {
                        Fate::Done(outcome) => Fate::Settled(Some(outcome.clone())),
                        Fate::Waiting => Fate::Settled(None),
                        settled => settled.clone(),
                    };
                    fates.insert(*other_id, fate);
                }
            }
        }
        let mut all = Vec::new();
        let mut add = |row: Option<Row>, outcome: Outcome| {
            let mut fates = fates.clone();
            fates.insert(id, if call.has_failed { Fate::Waiting } else { Fate::Done(outcome) });
            all.push(Candidate { row, fates });
        };
        let may_be_live = before.row.as_ref().filter(|row| row.expires > call.begun_at - self.clock_margin);
        let may_be_over = before.row.as_ref().is_none_or(|row| self.may_be_over(row, now));
        if let Some(row) = may_be_live {
            let (same, is_named) = (before.row.clone(), !row.may_be_unnamed);
            match &call.op {
                // One that is sent again finds its own session.
                Op::Create(new) => add(same, Outcome::Done(row.version == new.version)),
                Op::Update(new) => {
                    let keeps = if row.user == new.user { !is_named } else { false };
                    let may_be_unnamed = keeps || call.is_before_loss;
                    add(Some(Row { may_be_unnamed, ..new.clone() }), Outcome::Done(true));
                }
                Op::Touch(expires) => {
                    add(Some(Row { expires: *expires, ..row.clone() }), Outcome::Done(true))
                }
                Op::Delete | Op::Clear => add(None, Outcome::Done(true)),
                Op::DeleteByUser(user) => {
                    if row.user == Some(*user) {
                        add(None, Outcome::Done(true));
                    }
                    if row.user != Some(*user) || !is_named {
                        add(same, Outcome::Done(true));
                    }
                }
                Op::Get => add(same, Outcome::Found(Some(row.clone()))),
                Op::GetByUser(user) => {
                    if row.user == Some(*user) {
                        add(same.clone(), Outcome::Found(Some(row.clone())));
                    }
                    if row.user != Some(*user) || !is_named {
                        add(same, Outcome::Found(None));
                    }
                }
            }
        }
        if may_be_over {
            match &call.op {
                Op::Create(new) => {
                    let may_be_unnamed = call.is_before_loss || self.are_entries_apart && call.stored > 1;
                    add(Some(Row { may_be_unnamed, ..new.clone() }), Outcome::Done(true));
                }
                Op::Update(_) | Op::Touch(_) => {
                    // It stays for those whose clocks are behind.
                    add(before.row.clone().filter(|_| self.clock_margin > 0), Outcome::Done(false));
                }
                Op::Delete | Op::Clear | Op::DeleteByUser(_) => add(None, Outcome::Done(true)),
                // It may have expired while the answer was on its way.
                Op::Get | Op::GetByUser(_) => add(before.row.clone(), Outcome::Found(None)),
            }
        }
        all
    }
}
