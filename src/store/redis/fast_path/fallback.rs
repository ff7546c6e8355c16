//! Keeps the order of calls that fall back to the worker. After a change of a session has fallen back, later calls on
//! that session fall back too. The worker starts none of them before the primary has answered the calls that were
//! sent to it.

use std::collections::HashMap;
use std::mem;
use std::time::Instant;

use super::super::queue::{Job, Waiter};
use super::super::routing::NodeId;
use super::super::session::Op;
use crate::session::SessionId;

/// How many calls were sent to a primary, and how many of them it has answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub node: NodeId,
    pub sent: u64,
    pub answered: u64,
}

impl Progress {
    pub fn of(node: NodeId) -> Self {
        Self { node, ..Self::default() }
    }

    pub fn is_idle(&self) -> bool {
        self.answered == self.sent
    }
}

/// A session with changes that have fallen back.
#[derive(Default)]
struct Deferred {
    /// The number of changes that the worker has.
    on_worker: usize,
    /// The worker gets the calls below after this many replies of `node`. The retries come first: they were sent
    /// earlier, and are in the order of their replies.
    after: u64,
    node: NodeId,
    retries: Vec<Job>,
    later: Vec<Job>,
}

/// The calls that fall back. Methods that return jobs return those that the worker must start now.
#[derive(Default)]
pub struct Fallback {
    sessions: HashMap<SessionId, Deferred, foldhash::fast::RandomState>,
    /// The keys in `sessions` that wait for replies.
    held: Vec<SessionId>,
    /// The sessions of the changes that the worker has, by ticket.
    tickets: HashMap<u32, SessionId, foldhash::fast::RandomState>,
}

impl Fallback {
    /// Whether new calls on the session must fall back.
    pub fn has(&self, id: &SessionId) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(id)
    }

    /// Whether calls on the session that are older than the pending ones have fallen back.
    pub fn has_earlier(&self, id: &SessionId) -> bool {
        self.sessions.get(id).is_some_and(|deferred| deferred.on_worker > 0 || !deferred.retries.is_empty())
    }

    /// Whether changes of the session that were sent have fallen back.
    pub fn has_retries(&self, id: &SessionId) -> bool {
        self.sessions.get(id).is_some_and(|deferred| !deferred.retries.is_empty())
    }

    /// Whether any call waits for replies.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// The earliest deadline of the calls that wait for replies.
    pub fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.iter().filter_map(|id| self.sessions.get(id));
        held.flat_map(|deferred| deferred.retries.iter().chain(&deferred.later))
            .map(|job| job.deadline.into())
            .min()
    }

    /// Adds a call that was not sent. It waits for the replies to those that were.
    pub fn add(&mut self, job: Job, progress: Progress) -> Option<Job> {
        let waits = !progress.is_idle();
        self.defer(job, waits, progress, |deferred| &mut deferred.later)
    }

    /// Adds a call that was sent. The later calls on the same session must be added too, because the server may have
    /// carried them out first.
    pub fn retry(&mut self, job: Job, progress: Progress) -> Option<Job> {
        self.defer(job, false, progress, |deferred| &mut deferred.retries)
    }

    /// Like `retry`, for a creation that has stored its session. That session is deleted first, so that earlier calls
    /// do not find it, unless one of them deletes it anyway.
    pub fn retry_create(&mut self, job: Job, progress: Progress) -> Vec<Job> {
        let Some(id) = job.op.changes().cloned() else { return vec![job] };
        let (op, deadline) = (Op::Delete(id.clone()), job.deadline);
        let end = Job { op, waiter: Waiter::Nobody, deadline, is_unknown: false };
        if progress.is_idle() && !self.has(&id) {
            return [Some(end), self.retry(job, progress)].into_iter().flatten().collect();
        }
        let ready = self.retry(job, progress);
        if let Some(deferred) = self.sessions.get_mut(&id)
            && !deferred.retries.iter().any(|job| matches!(job.op, Op::Delete(_)))
        {
            deferred.retries.insert(0, end);
        }
        ready.into_iter().collect()
    }

    fn defer(
        &mut self,
        job: Job,
        read_waits: bool,
        progress: Progress,
        queue: impl FnOnce(&mut Deferred) -> &mut Vec<Job>,
    ) -> Option<Job> {
        // A read that was sent has seen the calls sent before it. It waits only for changes that have fallen back.
        let id = job.op.changes().or(job.op.session().filter(|id| read_waits || self.has(id))).cloned();
        let (Some(id), Waiter::Ticket { ticket, .. }) = (id, &job.waiter) else {
            return Some(job);
        };
        let ticket = *ticket;
        let deferred = self.sessions.entry(id.clone()).or_insert_with(|| {
            let after = if progress.is_idle() { 0 } else { progress.sent };
            if after > 0 {
                self.held.push(id.clone());
            }
            Deferred { after, node: progress.node, ..Deferred::default() }
        });
        if deferred.after > 0 {
            queue(deferred).push(job);
            return None;
        }
        if job.op.changes().is_some() {
            deferred.on_worker += 1;
            self.tickets.insert(ticket, id);
        }
        Some(job)
    }

    /// Removes the late calls that wait for replies. The worker reports that they are late.
    pub fn take_late(&mut self, now: Instant) -> Vec<Job> {
        let mut all_late = Vec::new();
        for id in &self.held {
            let Some(deferred) = self.sessions.get_mut(id) else { continue };
            for queue in [&mut deferred.retries, &mut deferred.later] {
                let late = queue.extract_if(.., |job| now >= job.deadline.into());
                let late: Vec<Job> = late.filter(|job| !matches!(job.waiter, Waiter::Nobody)).collect();
                deferred.on_worker += track(&mut self.tickets, id, &late);
                all_late.extend(late);
            }
        }
        all_late
    }

    /// Removes the calls whose awaited replies have arrived. `answered` returns how many a primary has sent.
    pub fn take_ready(&mut self, answered: impl Fn(NodeId) -> u64) -> Vec<Job> {
        let (mut held, mut ready) = (mem::take(&mut self.held), Vec::new());
        held.retain(|id| {
            let Some(deferred) = self.sessions.get_mut(id) else { return false };
            if deferred.after > answered(deferred.node) {
                return true;
            }
            deferred.after = 0;
            let jobs: Vec<Job> = deferred.retries.drain(..).chain(deferred.later.drain(..)).collect();
            deferred.on_worker += track(&mut self.tickets, id, &jobs);
            if deferred.on_worker == 0 {
                self.sessions.remove(id);
            }
            ready.extend(jobs);
            false
        });
        self.held = held;
        ready
    }

    /// Records that the worker has completed calls, by their tickets.
    pub fn completed(&mut self, tickets: impl Iterator<Item = u32>) {
        for ticket in tickets {
            let Some(id) = self.tickets.remove(&ticket) else { continue };
            let Some(deferred) = self.sessions.get_mut(&id) else { continue };
            deferred.on_worker -= 1;
            if deferred.on_worker == 0 && deferred.after == 0 {
                self.sessions.remove(&id);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.tickets.is_empty()
    }
}

/// Records the changes that the worker now has. Returns how many results it will report.
fn track(
    tickets: &mut HashMap<u32, SessionId, foldhash::fast::RandomState>,
    id: &SessionId,
    jobs: &[Job],
) -> usize {
    let mut on_worker = 0;
    for job in jobs {
        if let Waiter::Ticket { ticket, .. } = job.waiter
            && job.op.changes().is_some()
        {
            on_worker += 1;
            tickets.insert(ticket, id.clone());
        }
    }
    on_worker
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Result;
    use crate::store::redis::Answers;
    use crate::store::{Answer, Completions};

    struct Nobody;

    impl Completions for Nobody {
        fn complete(&self, _: Vec<(u32, Result<Answer>)>) {}
    }

    impl Answers for Nobody {}

    fn job(op: Op, ticket: u32) -> Job {
        let waiter = Waiter::Ticket { to: Arc::new(Nobody), ticket };
        Job { op, waiter, deadline: Instant::now().into(), is_unknown: false }
    }

    /// Otherwise a session with constant reads would never return to the fast path.
    #[test]
    fn reads_do_not_keep_a_session_on_the_worker() {
        let id = SessionId::new("a").unwrap();
        for progress in [Progress::default(), Progress { sent: 1, ..Progress::default() }] {
            let mut fallback = Fallback::default();
            let ops = [Op::Delete(id.clone()), Op::Get(id.clone()), Op::Get(id.clone())];
            let mut ready = Vec::new();
            for (ticket, op) in (0..).zip(ops) {
                ready.extend(fallback.add(job(op, ticket), progress));
            }
            ready.extend(fallback.take_ready(|_| 1));
            assert_eq!(ready.len(), 3);
            assert!(fallback.has(&id));
            fallback.completed([0].into_iter());
            assert!(fallback.is_empty(), "{progress:?}");
        }
    }
}
