//! Calls that leave a lane for the store's thread, and their order: the changes of a session that follow one that strayed
//! go there too, and none begins there before what was sent here has been answered.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::super::core::{Job, Op, Waiter};
use super::{Lane, Waiting};
use crate::session::SessionId;

/// The sessions of calls that the store's thread has, by the tickets of those.
pub(super) type Tickets = HashMap<u32, SessionId, foldhash::fast::RandomState>;

/// A session of which changes are with the store's thread, or are to be.
#[derive(Default)]
pub(super) struct Astray {
    /// How many the thread has.
    begun: usize,
    /// After how many answers it may begin the others: first those that were sent before, in the order of their answers.
    after: u64,
    again: Vec<Job>,
    later: Vec<Job>,
}

impl Astray {
    /// Whether there are calls that are begun anew among those that wait.
    pub(super) fn repeats(&self) -> bool {
        !self.again.is_empty()
    }

    /// When the first of those that wait for answers is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again.iter().chain(&self.later).map(|job| job.deadline.into()).min()
    }
}

impl Lane {
    /// Leaves a call that was not sent to the store's thread.
    pub(super) fn divert(&mut self, op: Op, ticket: u32, deadline: Instant) {
        let job = self.job(op, ticket, deadline, false);
        // Where no connection ever comes, that thread alone keeps the order.
        if self.is_wanted { self.leave(job, |astray| &mut astray.later) } else { self.push(job) }
    }

    /// Leaves a call to the store's thread, which begins it anew; and with it those after it that change the same
    /// session, which the server may have done before it now.
    pub(super) fn repeat(&mut self, call: Waiting, is_unknown: bool) {
        let job = self.job(call.op, call.ticket, call.deadline, is_unknown);
        self.leave(job, |astray| &mut astray.again);
    }

    /// As `repeat`, of a session that is created: it ends first, unless one of those before it ends it anyway.
    pub(super) fn create_anew(&mut self, call: Waiting) {
        let Some(id) = call.op.changes().cloned() else { return };
        let deadline = call.deadline.into();
        let end = Job { op: Op::Delete(id.clone()), waiter: Waiter::Nobody, deadline, is_unknown: false };
        if self.answered == self.sent && !self.astray.contains_key(&id) {
            self.push(end);
            return self.repeat(call, true);
        }
        self.repeat(call, true);
        if let Some(astray) = self.astray.get_mut(&id)
            && !astray.again.iter().any(|job| matches!(job.op, Op::Delete(_)))
        {
            astray.again.insert(0, end);
        }
    }

    fn leave(&mut self, job: Job, queue: impl FnOnce(&mut Astray) -> &mut Vec<Job>) {
        let (Some(id), Waiter::Ticket { ticket, .. }) = (job.op.changes().cloned(), &job.waiter) else {
            return self.push(job);
        };
        let ticket = *ticket;
        let astray = self.astray.entry(id.clone()).or_insert_with(|| {
            let after = if self.answered < self.sent { self.sent } else { 0 };
            if after > 0 {
                self.held.push(id.clone());
            }
            Astray { after, ..Astray::default() }
        });
        if astray.after > 0 {
            return queue(astray).push(job);
        }
        astray.begun += 1;
        self.tickets.insert(ticket, id);
        self.push(job);
    }

    pub(super) fn job(&self, op: Op, ticket: u32, deadline: Instant, is_unknown: bool) -> Job {
        let waiter = Waiter::Ticket { to: Arc::clone(&self.to), ticket };
        Job { op, waiter, deadline: deadline.into(), is_unknown }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.store.shared.push_jobs([job]);
        self.has_jobs = true;
    }

    /// Has the store's thread say of what waits for answers, and is late, that it is.
    pub(super) fn give_up_late(&mut self) {
        let now = Instant::now();
        for id in &self.held {
            let Some(astray) = self.astray.get_mut(id) else { continue };
            let Astray { again, later, begun, .. } = astray;
            for queue in [again, later] {
                let late = queue.extract_if(.., |job| now >= job.deadline.into());
                let late: Vec<Job> = late.filter(|job| !matches!(job.waiter, Waiter::Nobody)).collect();
                *begun += note(&mut self.tickets, id, &late);
                self.has_jobs |= !late.is_empty();
                self.store.shared.push_jobs(late);
            }
        }
    }

    /// Has the store's thread begin what had to wait for answers that have come.
    pub(super) fn hand_over(&mut self) {
        let mut held = mem::take(&mut self.held);
        held.retain(|id| {
            let Some(astray) = self.astray.get_mut(id) else { return false };
            if astray.after > self.answered {
                return true;
            }
            astray.after = 0;
            let jobs: Vec<Job> = astray.again.drain(..).chain(astray.later.drain(..)).collect();
            astray.begun += note(&mut self.tickets, id, &jobs);
            if astray.begun == 0 {
                self.astray.remove(id);
            }
            self.store.shared.push_jobs(jobs);
            self.has_jobs = true;
            false
        });
        self.held = held;
        if self.waiting.is_empty()
            && let Some(open) = self.open.take_if(|open| open.is_ending)
        {
            self.end(open);
        }
    }

    /// Calls have ended that were with the store's thread.
    pub fn ended(&mut self, tickets: impl Iterator<Item = u32>) {
        if self.tickets.is_empty() {
            return;
        }
        for ticket in tickets {
            let Some(id) = self.tickets.remove(&ticket) else { continue };
            let Some(astray) = self.astray.get_mut(&id) else { continue };
            astray.begun -= 1;
            if astray.begun == 0 && astray.after == 0 {
                self.astray.remove(&id);
            }
        }
    }
}

/// Notes whose changes the store's thread has from now on, and tells how many of them will be told of.
fn note(tickets: &mut Tickets, id: &SessionId, jobs: &[Job]) -> usize {
    let mut begun = 0;
    for job in jobs {
        if let Waiter::Ticket { ticket, .. } = job.waiter {
            begun += 1;
            tickets.insert(ticket, id.clone());
        }
    }
    begun
}
