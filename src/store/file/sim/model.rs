//! The model: the permitted results, with the sessions as a plain list.
//!
//! A lane has its own ids and users. One client writes to them, either one call at a time or several concurrently. So
//! the model does not need a global order of writes. It keeps every candidate state that is consistent with the
//! results so far. A pending write may happen at any moment after its start, or not at all. The same is true for a
//! write with unknown outcome. Each result excludes candidates. If none is left, the store has violated its contract.

use std::collections::{HashSet, VecDeque};

use super::scheduler::ProcessId;
use super::world::{Config, World};
use crate::clock::{Clock, Millis};
use crate::lifetime::Lifetime;
use crate::store::file::options::Durability;
use crate::store::{UserLimit, WhenUserIsFull};

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub id: usize,
    pub user: Option<usize>,
    pub expires: Millis,
    pub version: u32,
    pub created_at: Millis,
}

/// The options of the store.
#[derive(Debug, Clone, Copy)]
struct Limits {
    per_user: UserLimit,
    lifetime: Lifetime,
}

impl Limits {
    fn of(world: &World) -> Self {
        let Config { per_user, max_lifetime, .. } = &world.config;
        Self { per_user: *per_user, lifetime: *max_lifetime }
    }

    fn end(self, expires: Millis, created_at: Millis) -> Millis {
        expires.min(self.lifetime.last(created_at))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Create(Row),
    Update(Row),
    Touch { id: usize, expires: Millis, enough: Option<Millis> },
    Delete { id: usize },
    DeleteByUser { user: usize, except: Option<usize> },
}

/// The result of a write, or its error code. `None` if it does not matter.
pub(super) type Outcome = Option<Result<u64, &'static str>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Read {
    Get(usize),
    ByUser(usize),
    /// The number of sessions, if the store has only one lane.
    Size,
    Ids,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Session(Option<(u32, Millis)>),
    /// Oldest first.
    Sessions(Vec<(usize, u32, Millis)>),
    Size(u64),
    Ids(Vec<usize>),
}

impl Answer {
    /// Whether this may be the answer after some sessions of `whole` have ended.
    fn is_part_of(&self, whole: &Self) -> bool {
        match (self, whole) {
            (Self::Session(one), Self::Session(whole)) => one.is_none() || one == whole,
            (Self::Sessions(some), Self::Sessions(whole)) => some.iter().all(|one| whole.contains(one)),
            (Self::Size(one), Self::Size(whole)) => one <= whole,
            (Self::Ids(some), Self::Ids(whole)) => some.iter().all(|one| whole.contains(one)),
            _ => false,
        }
    }
}

/// The sessions of a lane, oldest first. An expired session may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct State(Vec<Row>);

impl State {
    fn live(&self, id: usize, now: Millis) -> Option<usize> {
        self.0.iter().position(|row| row.id == id && row.expires > now)
    }

    /// Makes room for another session of a user. `Err` if the user has reached a limit that rejects.
    fn make_room(&mut self, new: &Row, now: Millis, limit: UserLimit) -> Result<(), &'static str> {
        let Some(max) = limit.max.filter(|_| new.user.is_some() && new.expires > now) else { return Ok(()) };
        let is_other = |row: &Row| row.user == new.user && row.id != new.id && row.expires > now;
        let others = self.0.iter().filter(|row| is_other(row)).count();
        let mut surplus = (others + 1).saturating_sub(max.get());
        if surplus > 0 && limit.when_full == WhenUserIsFull::Reject {
            let is_theirs = self.live(new.id, now).is_some_and(|at| self.0[at].user == new.user);
            return if is_theirs { Ok(()) } else { Err("ERR_TOO_MANY_SESSIONS") };
        }
        self.0.retain(|row| {
            let ends = surplus > 0 && is_other(row);
            surplus -= usize::from(ends);
            !ends
        });
        Ok(())
    }

    fn apply(&mut self, op: &Op, now: Millis, limits: Limits) -> Outcome {
        match op {
            Op::Create(row) => {
                if self.live(row.id, now).is_some() {
                    return Some(Err("ERR_SESSION_EXISTS"));
                }
                let new = Row { expires: limits.end(row.expires, now), created_at: now, ..row.clone() };
                if let Err(refusal) = self.make_room(&new, now, limits.per_user) {
                    return Some(Err(refusal));
                }
                self.0.retain(|other| other.id != row.id);
                self.0.push(new);
                Some(Ok(1))
            }
            Op::Update(row) => {
                let Some(at) = self.live(row.id, now) else { return Some(Ok(0)) };
                let created_at = self.0[at].created_at;
                let new = Row { expires: limits.end(row.expires, created_at), created_at, ..row.clone() };
                if let Err(refusal) = self.make_room(&new, now, limits.per_user) {
                    return Some(Err(refusal));
                }
                if let Some(at) = self.live(row.id, now) {
                    self.0[at] = new;
                }
                Some(Ok(1))
            }
            Op::Touch { id, expires, enough } => {
                let Some(at) = self.live(*id, now) else { return Some(Ok(0)) };
                let created_at = self.0[at].created_at;
                if enough.is_none_or(|enough| self.0[at].expires < limits.end(enough, created_at)) {
                    self.0[at].expires = limits.end(*expires, created_at);
                }
                Some(Ok(1))
            }
            Op::Delete { id } => {
                self.0.retain(|row| row.id != *id);
                None
            }
            Op::DeleteByUser { user, except } => {
                let before = self.0.len();
                let ends =
                    |row: &Row| row.user == Some(*user) && row.expires > now && Some(row.id) != *except;
                self.0.retain(|row| !ends(row));
                Some(Ok((before - self.0.len()) as u64))
            }
        }
    }

    fn read(&self, read: &Read, now: Millis) -> Answer {
        let live = || self.0.iter().filter(|row| row.expires > now);
        match read {
            Read::Get(id) => {
                Answer::Session(live().find(|row| row.id == *id).map(|row| (row.version, row.expires)))
            }
            Read::ByUser(user) => {
                let of_user = live().filter(|row| row.user == Some(*user));
                Answer::Sessions(of_user.map(|row| (row.id, row.version, row.expires)).collect())
            }
            Read::Size => Answer::Size(live().count() as u64),
            Read::Ids => {
                let mut ids: Vec<_> = live().map(|row| row.id).collect();
                ids.sort_unstable();
                Answer::Ids(ids)
            }
        }
    }
}

/// The outcome of a pending write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fate {
    Done(Outcome),
    Skipped,
    /// The outcome will never be known. Candidates with the same state can be merged.
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Candidate {
    state: State,
    /// The outcomes of the first pending writes.
    fates: Vec<Fate>,
    answer: Option<Answer>,
    /// Whether the pending `clear` has happened.
    is_cleared: bool,
}

#[derive(Debug, Clone)]
struct UnderWay<T> {
    what: T,
    /// The possible times of its decision.
    times: Vec<Millis>,
    /// The outcome is unknown, and the write may still happen.
    is_unknown: bool,
    number: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Lane {
    candidates: Vec<Candidate>,
    writes: VecDeque<UnderWay<Op>>,
    read: Option<UnderWay<Read>>,
    /// A `clear` that is pending or may still happen.
    clear: Option<Clearing>,
    numbers: u64,
    /// The candidates after each event since everything was durable, with the number of the event.
    history: Vec<(u64, Vec<Candidate>)>,
    /// The process with the pending writes.
    pub process: Option<ProcessId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clearing {
    UnderWay,
    Unknown,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            candidates: vec![Candidate::default()],
            writes: VecDeque::new(),
            read: None,
            clear: None,
            numbers: 0,
            history: vec![(0, vec![Candidate::default()])],
            process: None,
        }
    }
}

impl Lane {
    /// Adds the candidates that pending writes may have caused.
    pub(super) fn expand(&mut self, world: &World) {
        let limits = Limits::of(world);
        let may_skip = world.config.has_errors();
        if self.writes.is_empty() && self.read.is_none() && self.clear.is_none() {
            return;
        }
        let mut seen: HashSet<Candidate> = self.candidates.iter().cloned().collect();
        let mut at = 0;
        while at < self.candidates.len() {
            for candidate in self.successors(&self.candidates[at], limits, may_skip) {
                if seen.insert(candidate.clone()) {
                    self.candidates.push(candidate);
                }
            }
            at += 1;
        }
    }

    fn successors(&self, candidate: &Candidate, limits: Limits, may_skip: bool) -> Vec<Candidate> {
        let mut next = Vec::new();
        if let Some(write) = self.writes.get(candidate.fates.len()) {
            for time in &write.times {
                let mut after = candidate.clone();
                let outcome = after.state.apply(&write.what, *time, limits);
                after.fates.push(if write.is_unknown { Fate::Unknown } else { Fate::Done(outcome) });
                next.push(after);
            }
            if may_skip {
                let mut after = candidate.clone();
                after.fates.push(if write.is_unknown { Fate::Unknown } else { Fate::Skipped });
                next.push(after);
            }
        }
        if let Some(read) = self.read.as_ref().filter(|_| candidate.answer.is_none()) {
            for time in &read.times {
                let answer = Some(candidate.state.read(&read.what, *time));
                next.push(Candidate { answer, ..candidate.clone() });
            }
        }
        if self.clear.is_some() && !candidate.is_cleared {
            next.push(Candidate { state: State::default(), is_cleared: true, ..candidate.clone() });
        }
        next
    }

    fn dedup(&mut self) {
        if self.candidates.len() > 1 {
            let mut seen = HashSet::new();
            self.candidates.retain(|candidate| seen.insert(candidate.clone()));
        }
    }

    /// Keeps the candidates that fit. Fails if there are none.
    fn keep(&mut self, world: &World, fits: impl Fn(&mut Candidate) -> bool) -> Result<(), String> {
        self.expand(world);
        let before = self.candidates.clone();
        self.candidates.retain_mut(|candidate| fits(candidate));
        self.dedup();
        if self.candidates.is_empty() {
            let before: String = before.iter().map(|candidate| format!("\n  {candidate:?}")).collect();
            return Err(format!("none of these fits, at {}:{before}", world.clock.now()));
        }
        Ok(())
    }

    pub(super) fn note_time(&mut self, now: Millis) {
        let writes = self.writes.iter_mut().filter(|write| !write.is_unknown).map(|write| &mut write.times);
        for times in writes.chain(self.read.iter_mut().map(|read| &mut read.times)) {
            times.push(now);
        }
    }

    fn under_way<T>(&mut self, what: T, now: Millis) -> UnderWay<T> {
        self.numbers += 1;
        UnderWay { what, times: vec![now], is_unknown: false, number: self.numbers }
    }

    /// Starts a write. Returns its number.
    pub(super) fn begin_write(&mut self, op: Op, world: &World) -> u64 {
        let write = self.under_way(op, world.clock.now());
        let number = write.number;
        self.writes.push_back(write);
        number
    }

    fn place(&self, number: u64) -> usize {
        self.writes
            .iter()
            .position(|write| write.number == number)
            .unwrap_or_else(|| unreachable!("it is under way"))
    }

    /// Ends a write with this outcome.
    pub(super) fn end_write(
        &mut self,
        number: u64,
        outcome: Result<u64, &'static str>,
        world: &World,
    ) -> Result<(), String> {
        let at = self.place(number);
        self.keep(world, |candidate| {
            let fits = match candidate.fates.get(at) {
                Some(Fate::Done(expected)) => expected.is_none_or(|expected| expected == outcome),
                _ => false,
            };
            candidate.fates.drain(..(at + 1).min(candidate.fates.len()));
            fits
        })?;
        // Earlier writes are decided by now.
        self.writes.drain(..=at);
        if self.clear == Some(Clearing::Unknown) {
            self.forget_clear();
        }
        self.note_event(world);
        Ok(())
    }

    /// A write has failed and has changed nothing.
    pub(super) fn reject_write(&mut self, number: u64, world: &World) -> Result<(), String> {
        let at = self.place(number);
        self.keep(world, |candidate| match candidate.fates.get(at) {
            Some(Fate::Skipped) => {
                candidate.fates.remove(at);
                true
            }
            Some(_) => false,
            None => true,
        })?;
        self.writes.remove(at);
        self.dedup();
        Ok(())
    }

    /// A write has failed, and its outcome is unknown.
    pub(super) fn mark_write_unknown(&mut self, number: u64, world: &World) {
        self.expand(world);
        let at = self.place(number);
        self.writes[at].is_unknown = true;
        for candidate in &mut self.candidates {
            candidate.fates.get_mut(at).into_iter().for_each(|fate| *fate = Fate::Unknown);
        }
        self.dedup();
        self.note_event(world);
    }

    /// The process of the pending writes has ended.
    pub(super) fn kill_writes(&mut self, world: &World) {
        self.expand(world);
        let may_skip = world.config.has_errors();
        let is_prefix = |fates: &[Fate]| {
            let done = fates.iter().take_while(|fate| **fate != Fate::Skipped).count();
            fates[done..].iter().all(|fate| *fate == Fate::Skipped)
        };
        self.candidates.retain(|candidate| may_skip || is_prefix(&candidate.fates));
        self.candidates.iter_mut().for_each(|candidate| candidate.fates.clear());
        self.writes.clear();
        self.dedup();
        self.note_event(world);
    }

    pub(super) fn begin_read(&mut self, read: Read, world: &World) {
        let read = self.under_way(read, world.clock.now());
        self.read = Some(read);
    }

    pub(super) fn end_read(&mut self, answer: &Answer, world: &World) -> Result<(), String> {
        if self.clear.is_some() {
            // During a `clear`, sessions may end one by one.
            self.expand(world);
            let fits = |candidate: &Candidate| {
                candidate.answer.as_ref().is_some_and(|whole| answer.is_part_of(whole))
            };
            let is_known = self.candidates.iter().any(fits);
            self.drop_read();
            return if is_known { Ok(()) } else { Err(format!("none of these fits: {:?}", self.candidates)) };
        }
        if !self.writes.is_empty() {
            // The disk may still have the candidates that this read excludes.
            self.expand(world);
            self.note_event(world);
        }
        self.keep(world, |candidate| candidate.answer.take().as_ref() == Some(answer))?;
        self.read = None;
        Ok(())
    }

    pub(super) fn drop_read(&mut self) {
        self.read = None;
        self.candidates.iter_mut().for_each(|candidate| candidate.answer = None);
        self.dedup();
    }

    pub(super) fn begin_clear(&mut self, world: &World) {
        self.expand(world);
        self.forget_clear();
        self.clear = Some(Clearing::UnderWay);
    }

    fn forget_clear(&mut self) {
        self.clear = None;
        self.candidates.iter_mut().for_each(|candidate| candidate.is_cleared = false);
        self.dedup();
    }

    /// A `clear` has failed and has changed nothing.
    pub(super) fn reject_clear(&mut self, world: &World) -> Result<(), String> {
        self.keep(world, |candidate| !candidate.is_cleared)?;
        self.forget_clear();
        Ok(())
    }

    pub(super) fn is_reading(&self) -> bool {
        self.read.is_some()
    }

    pub(super) fn end_clear(&mut self, world: &World) -> Result<(), String> {
        self.keep(world, |candidate| candidate.is_cleared)?;
        let mut history = std::mem::take(&mut self.history);
        for (_, candidates) in &mut history {
            let mut then = Self { candidates: std::mem::take(candidates), ..self.clone() };
            then.candidates.retain(|candidate| candidate.is_cleared);
            then.forget_clear();
            *candidates = then.candidates;
        }
        history.retain(|(_, candidates)| !candidates.is_empty());
        self.history = history;
        self.forget_clear();
        self.note_event(world);
        Ok(())
    }

    /// A `clear` has failed, or its process has ended.
    pub(super) fn mark_clear_unknown(&mut self, may_come: bool, world: &World) {
        self.expand(world);
        if may_come {
            self.clear = Some(Clearing::Unknown);
        } else {
            self.forget_clear();
        }
        self.note_event(world);
    }

    fn note_event(&mut self, world: &World) {
        world.events.set(world.events.get() + 1);
        if world.config.durability == Durability::EverySec {
            self.history.push((world.events.get(), self.candidates.clone()));
        }
    }

    /// All changes before an event are durable.
    pub(super) fn mark_durable(&mut self, event: u64) {
        let last = self.history.iter().rposition(|(number, _)| *number <= event).unwrap_or(0);
        self.history.drain(..last);
    }

    /// A write to the data file has ended, so everything is durable.
    pub(super) fn mark_all_durable(&mut self) {
        self.mark_durable(u64::MAX);
    }

    /// The number of live sessions, if all candidates agree.
    pub(super) fn live(&self, now: Millis) -> Option<usize> {
        let mut counts = self
            .candidates
            .iter()
            .map(|candidate| candidate.state.0.iter().filter(|row| row.expires > now).count());
        let first = counts.next();
        first.filter(|first| counts.all(|count| count == *first))
    }

    /// From now on, the store may lose changes that were not durable.
    pub(super) fn may_lose(&mut self, world: &World) {
        let history = self.history.clone();
        self.lose_power(world);
        self.history = history;
    }

    /// After a power loss, the store may have lost changes that were not durable.
    pub(super) fn lose_power(&mut self, world: &World) {
        self.expand(world);
        if world.config.durability == Durability::EverySec {
            for (_, candidates) in std::mem::take(&mut self.history) {
                self.candidates.extend(candidates.into_iter().map(|candidate| Candidate {
                    fates: vec![Fate::Skipped; self.writes.len()],
                    answer: None,
                    ..candidate
                }));
            }
            self.dedup();
        }
        self.history = vec![(world.events.get(), self.candidates.clone())];
    }
}
