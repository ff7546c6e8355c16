//! A model of the contract for one session id: which results of calls are allowed.
//!
//! The model keeps each possible state of the session, given all results so far. A pending call may take effect at
//! any moment since it started, or not at all. It may also take effect more than once, because a request whose reply
//! is lost is sent again. A call with an unknown outcome may take effect later, but not after a later call of the
//! same process. Each result rules out states. If none is left, the store has broken its contract.

use std::collections::{BTreeMap, HashSet};

use super::process::ProcessId;
use crate::clock::Millis;

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub user: Option<usize>,
    pub expires: Millis,
    pub version: u32,
    /// Servers have lost data since the session got its user, so the user's index may lack it.
    pub may_be_unnamed: bool,
}

impl Row {
    /// Whether a result shows this session.
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
    /// A `clear`, which is not in order with the calls on the session.
    Clear,
    DeleteByUser(usize),
    Get,
    GetByUser(usize),
}

impl Op {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::GetByUser(_))
    }

    /// Whether it waits for earlier calls of its process on the session.
    fn is_in_order(&self) -> bool {
        !matches!(self, Self::Clear | Self::DeleteByUser(_) | Self::GetByUser(_))
    }
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// Whether the session was created, or existed. Always `true` for calls that do not report it.
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

/// The effect of a call so far, in one candidate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fate {
    Waiting,
    Done(Outcome),
    /// It took effect, or not, and will not any more.
    Settled(Option<Outcome>),
}

#[derive(Debug, Clone)]
struct Call {
    op: Op,
    process: ProcessId,
    started_at: Millis,
    has_failed: bool,
    /// A server has lost data since the call started.
    is_before_loss: bool,
    /// How often a server has stored the session of this call.
    stored: u32,
}

pub(super) type CallId = u64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Candidate {
    row: Option<Row>,
    /// The fate of each call that is pending or has failed.
    fates: BTreeMap<CallId, Fate>,
}

#[derive(Debug)]
pub(super) struct History {
    /// An entry and its session may be on two servers.
    are_entries_apart: bool,
    /// How far the clocks of the processes may differ from the servers'.
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

    /// The number of calls that are pending, or have failed and may still take effect.
    pub(super) fn pending(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn begin(&mut self, op: Op, process: ProcessId, now: Millis) -> CallId {
        let id = self.next;
        self.next += 1;
        let call = Call { op, process, started_at: now, has_failed: false, is_before_loss: false, stored: 0 };
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
                    // It may have expired while the reply was on its way.
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
                // From now on it does not matter what the call would have returned, or whether it took effect before.
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

    /// Records that a server has stored a session that it did not have. If a creation stores its session twice, it
    /// was sent again, and its session had been ended in between. If the entry is on another server, it may have been
    /// removed with that session. The creation adds it again only later. So the entry may be missing until the
    /// creation succeeds, and forever if its outcome is unknown. Everything else about such a session must hold.
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

    /// Records that the entry of a created session has its own version.
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

    /// No call is pending any more, so effects that have not happened never will.
    pub(super) fn settle(&mut self, now: Millis) {
        self.expand(now);
        self.calls.clear();
        self.candidates.iter_mut().for_each(|candidate| candidate.fates.clear());
        self.dedup();
    }

    /// Whether a process may see the session as expired.
    fn may_be_over(&self, row: &Row, now: Millis) -> bool {
        row.expires <= now + self.clock_margin
    }

    /// Checks the data on a server while no call is pending.
    pub(super) fn check(&mut self, truth: Option<&Row>, now: Millis) -> Result<(), String> {
        let live = |row: Option<&Row>| row.filter(|row| row.expires > now).cloned();
        let truth = live(truth);
        let margin = self.clock_margin;
        self.retain(|candidate| match (live(candidate.row.as_ref()), &truth) {
            (Some(row), Some(truth)) => row.is(truth),
            // A process whose clock is ahead may have swept it.
            (Some(row), None) => row.expires <= now + margin,
            (None, truth) => truth.is_none(),
        })
    }

    /// Records that servers have lost data, and their state now.
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

    /// Removes failed calls that can have no further effect in any candidate.
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

    /// Adds the states after pending calls take effect, in any order.
    fn expand(&mut self, now: Millis) {
        let mut seen: HashSet<Candidate> = self.candidates.iter().cloned().collect();
        let mut at = 0;
        while at < self.candidates.len() {
            let row = self.candidates[at].row.as_ref();
            if self.clock_margin > 0 && row.is_some_and(|row| self.may_be_over(row, now)) {
                // A process whose clock is ahead may have swept it.
                let ended = Candidate { row: None, ..self.candidates[at].clone() };
                if seen.insert(ended.clone()) {
                    self.candidates.push(ended);
                }
            }
            for (id, call) in &self.calls {
                let is_over = match &self.candidates[at].fates[id] {
                    Fate::Settled(_) => true,
                    // If a read was sent again, only its last reply counts.
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
            // Earlier calls of the same process take effect before it, or never.
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
        let may_be_live = before.row.as_ref().filter(|row| row.expires > call.started_at - self.clock_margin);
        let may_be_over = before.row.as_ref().is_none_or(|row| self.may_be_over(row, now));
        if let Some(row) = may_be_live {
            let (same, is_named) = (before.row.clone(), !row.may_be_unnamed);
            match &call.op {
                // A repeated creation finds its own session.
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
                    // For processes whose clocks are behind, the session stays live.
                    add(before.row.clone().filter(|_| self.clock_margin > 0), Outcome::Done(false));
                }
                Op::Delete | Op::Clear | Op::DeleteByUser(_) => add(None, Outcome::Done(true)),
                // It may have expired while the reply was on its way.
                Op::Get | Op::GetByUser(_) => add(before.row.clone(), Outcome::Found(None)),
            }
        }
        all
    }
}
