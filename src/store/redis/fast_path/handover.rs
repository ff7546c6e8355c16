//! Hands calls over to the worker: late ones, those of a lost connection, and those that fall back.

use std::sync::Arc;
use std::time::Instant;

use super::super::cache::{NearCache, PROBE};
use super::super::connection::abort;
use super::super::queue::{Job, Waiter};
use super::super::routing::NodeId;
use super::super::session::Op;
use super::FastPath;
use super::fallback::Progress;
use super::primary::{Call, OpenConnection, PendingCall, Primary};

impl FastPath {
    /// Completes the calls whose deadline has passed. Call this after `turn` has found nothing more to read, because
    /// a busy thread may itself be late.
    pub fn expire(&mut self) {
        let now = Instant::now();
        for at in 0..self.primaries.len() {
            if self.primaries[at].is_lost(now, self.store.command_timeout) {
                self.fail(at);
            }
            // A server that answers late still owes the replies to the other calls.
            while let Some(call) = self.primaries[at].pending.pop_late(now) {
                let is_unknown = call.op.changes().is_some();
                let jobs = self.jobs(call, is_unknown);
                self.push(jobs);
            }
            while self.primaries[at].queued.front().is_some_and(|first| now >= first.deadline)
                && let Some(call) = self.take_queued(at)
            {
                self.give_up_unsent(call);
            }
        }
        let late = self.fallback.take_late(now);
        self.push(late);
        self.submit();
    }

    /// Lets the worker report that a call is late. Nothing of the call was sent.
    pub(super) fn give_up_unsent(&mut self, call: Call) {
        let jobs = self.jobs(call, false);
        self.push(jobs);
    }

    /// Ends a connection. Its calls fall back to the worker, which repeats them or reports that they are late.
    pub(super) fn fail(&mut self, at: usize) {
        let Primary { open, pending, .. } = &mut self.primaries[at];
        let Some(open) = open.take() else { return };
        // Before anything is sent on another connection.
        abort(open.socket.socket());
        let (calls, progress) = (pending.take_all(), pending.progress);
        for mut call in calls {
            let (op, was_sent) = (&call.call.op, open.socket.has_sent(call.start));
            let is_unknown = was_sent && op.changes().is_some();
            let follows_retries = op.changes().is_some_and(|id| self.fallback.has_retries(id));
            if was_sent && follows_retries && matches!(op, Op::Create(..)) {
                // Earlier calls on this session are retried, and might change the session that this one may have
                // created. The worker reports it as late.
                call.call.deadline = Instant::now();
                self.retry(call, progress, true);
            } else {
                self.retry(call, progress, is_unknown);
            }
        }
        self.fall_back_queued(at);
        let progress = &mut self.primaries[at].pending.progress;
        progress.answered = progress.sent;
        let node = progress.node;
        self.end(node, open);
        self.hand_over(at);
    }

    pub(super) fn end(&mut self, node: NodeId, open: OpenConnection) {
        // The outcomes of its changes are unknown.
        self.known.clear();
        self.cache.iter_mut().for_each(NearCache::drop_all);
        let socket = open.socket.into_socket();
        abort(&socket);
        self.dead.push((node, socket));
        if self.is_wanted {
            self.store.lost_connection(node);
        }
    }

    /// Gives the worker the calls whose preceding replies have arrived.
    pub(super) fn hand_over(&mut self, at: usize) {
        if self.primaries[at].is_draining() {
            self.fall_back_queued(at);
        }
        let Primary { open, pending, .. } = &mut self.primaries[at];
        if pending.calls.is_empty()
            && let Some(open) = open.take_if(|open| open.draining)
        {
            // No replies to late calls will arrive.
            pending.take_all();
            pending.progress.answered = pending.progress.sent;
            let node = pending.progress.node;
            self.end(node, open);
        }
        let Primary { pending, lost_until, .. } = &mut self.primaries[at];
        if lost_until.take_if(|until| pending.progress.answered >= *until).is_some() {
            self.routes.release(at);
        }
        let primaries = &self.primaries;
        let ready = self.fallback.take_ready(|node| {
            let primary = primaries.iter().find(|primary| primary.node() == node);
            // A removed primary has no pending calls.
            primary.map_or(u64::MAX, |primary| primary.pending.progress.answered)
        });
        self.push(ready);
    }

    /// Records that the worker has completed calls, by their tickets.
    pub fn completed(&mut self, tickets: impl Iterator<Item = u32>) {
        let Self { cache, fallback, .. } = self;
        fallback.completed(tickets.inspect(|&ticket| cache.iter_mut().for_each(|cache| cache.end(ticket))));
    }

    pub(super) fn fall_back_queued(&mut self, at: usize) {
        while let Some(call) = self.take_queued(at) {
            self.fall_back(Some(at), call);
        }
    }

    /// Gives an unsent call to the worker, after the primary has answered the calls before it.
    pub(super) fn fall_back(&mut self, at: Option<usize>, call: Call) {
        let pending = at.map(|at| &self.primaries[at].pending);
        let pending = pending.filter(|pending| pending.may_precede(&call.op));
        let after = pending.map_or_else(Progress::default, |pending| pending.progress);
        for job in self.jobs(call, false) {
            let ready = if self.has_event_loop { self.fallback.add(job, after) } else { Some(job) };
            self.push(ready);
        }
    }

    /// Gives a call that was sent to the worker, which starts it again.
    pub(super) fn retry(&mut self, call: PendingCall, progress: Progress, is_unknown: bool) {
        for job in self.jobs(call.call, is_unknown) {
            let ready = self.fallback.retry(job, progress);
            self.push(ready);
        }
    }

    /// Like `retry`, for a creation that has stored its session.
    pub(super) fn retry_create(&mut self, call: PendingCall, progress: Progress) {
        for job in self.jobs(call.call, true) {
            let ready = self.fallback.retry_create(job, progress);
            self.push(ready);
        }
    }

    fn jobs(&mut self, call: Call, is_unknown: bool) -> impl Iterator<Item = Job> + use<> {
        if let Some(id) = call.op.changes() {
            self.known.forget(id);
        }
        let (to, deadline) = (Arc::clone(&self.to), call.deadline.into());
        call.each().filter(|(_, ticket)| *ticket != PROBE).map(move |(op, ticket)| {
            let waiter = Waiter::Ticket { to: Arc::clone(&to), ticket };
            Job { op, waiter, deadline, is_unknown }
        })
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs = jobs.into_iter().peekable();
        if jobs.peek().is_some() {
            self.store.queue.push_jobs(jobs);
            self.has_jobs = true;
        }
    }
}
