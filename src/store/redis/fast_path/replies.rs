//! Reads replies, and completes the calls that they answer.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::cache::CachingResults;
use super::super::connection::Filled;
use super::super::counters::Counters;
use super::super::error::{self, panicked};
use super::super::queue::{Job, Results, Waiter};
use super::super::resp::Reply;
use super::super::routing::{Attempt, NodeId};
use super::super::session::{
    self, CallReply, Cipher, Cold, ConditionalForm, Context, NewSession, Op, StaleEntry, interpret,
};
use super::super::time::Stamp;
use super::FastPath;
use super::primary::{Call, OpenConnection, Pending, PendingCall, Primary};
use crate::error::{Result, StoreError};
use crate::store::Answer;

/// The maximum number of calls that one turn completes. Refused calls do not count.
pub const MAX_COMPLETIONS: usize = 1024;

/// The connection has ended, or is unusable: the server closed it, or sent a reply that no call expects.
struct Ended;

impl FastPath {
    /// Reads once from a server and handles the replies. Returns whether there may be more to read.
    ///
    /// The caller lets the event loop turn before it reads more. The results run JavaScript, which makes new calls.
    /// Reading their replies too could go on forever.
    pub fn turn(&mut self, node: NodeId, results: &mut impl Results) -> bool {
        let Some(at) = self.find(node) else { return false };
        let outcome = self.read(at, results);
        let more = outcome.as_ref().is_ok_and(|more| *more);
        if outcome.is_err() {
            self.store.window.server_closed(self.primaries[at].pending.calls.len());
            self.fail(at);
        }
        self.hand_over(at);
        self.submit();
        more
    }

    /// Reads once and handles the replies, up to a limit. Returns whether there may be more.
    fn read(&mut self, at: usize, results: &mut impl Results) -> Result<bool, Ended> {
        // Handling a reply may change the other primaries.
        let mut primary = mem::take(&mut self.primaries[at]);
        let is_tracked = primary.open.as_ref().is_some_and(|open| open.is_tracked);
        let mut ends = CachingResults { results, cache: self.cache.take(), is_tracked };
        // If this panics, the callers still get a result.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read_from(&mut primary, &mut ends)));
        self.primaries[at] = primary;
        let outcome = outcome.unwrap_or_else(|_| {
            for ticket in mem::take(&mut self.current) {
                ends.refused(ticket, &panicked());
            }
            Err(Ended)
        });
        self.cache = ends.cache;
        outcome
    }

    fn read_from<R: Results>(
        &mut self,
        primary: &mut Primary,
        ends: &mut CachingResults<'_, R>,
    ) -> Result<bool, Ended> {
        let Primary { open, pending, has_buffered, .. } = primary;
        let Some(open) = open else { return Ok(false) };
        if open.has_failed {
            return Err(Ended);
        }
        let mut has_read = false;
        let mut more = true;
        let mut taken = 0;
        *has_buffered = false;
        // One pending call may complete all the calls that share its request.
        while taken + pending.calls.front().map_or(1, |next| next.call.count()) <= MAX_COMPLETIONS {
            let sharing = pending.calls.front().map_or(0, |next| next.call.sharing.len());
            if let Some(len) = self.take_next(open, pending, ends)? {
                open.socket.take(len);
                self.store.window.reply_came(len);
                taken += 1 + sharing;
                continue;
            }
            if has_read {
                return Ok(more);
            }
            match open.fill(ends.cache.as_mut(), &self.store.names).map_err(|_| Ended)? {
                Filled::Ended => return Err(Ended),
                Filled::Nothing => return Ok(false),
                filled => {
                    more = matches!(filled, Filled::Whole);
                    has_read = true;
                }
            }
        }
        *has_buffered = true;
        Ok(true)
    }

    /// Handles the replies to the next call, if they are complete. Returns their length.
    fn take_next(
        &mut self,
        open: &mut OpenConnection,
        pending: &mut Pending,
        ends: &mut CachingResults<'_, impl Results>,
    ) -> Result<Option<usize>, Ended> {
        let found = open.socket.replies(pending.next_replies()).map_err(|_| Ended)?;
        let Some((replies, len)) = found else { return Ok(None) };
        if let Some(cache) = &mut ends.cache {
            let started_at =
                pending.next_deadline().and_then(|at| at.checked_sub(self.store.command_timeout));
            replies.iter().for_each(|reply| cache.note_reply(&mut open.proof, reply, started_at));
        }
        open.draining |= self.take(&replies, &open.cipher, &mut open.conditional_form, pending, ends)?;
        Ok(Some(len))
    }

    /// Handles the replies to a call. Returns whether the connection must not be used any more. Replies that no call
    /// expects end it.
    fn take(
        &mut self,
        replies: &[Reply<&[u8]>],
        cipher: &Cipher,
        conditional_form: &mut ConditionalForm,
        pending: &mut Pending,
        results: &mut impl Results,
    ) -> Result<bool, Ended> {
        if pending.late.pop_front().is_some() {
            pending.progress.answered += 1;
            return Ok(false);
        }
        let call = pending.pop().ok_or(Ended)?;
        pending.progress.answered += 1;
        self.current.clear();
        self.current.extend(call.call.sharing.iter().rev().copied().chain([call.call.ticket]));
        let outcome = self.finish(call, replies, cipher, conditional_form, pending, results);
        self.current.clear();
        outcome.map(|()| replies.iter().any(ends_connection))
    }

    fn finish(
        &mut self,
        call: PendingCall,
        replies: &[Reply<&[u8]>],
        cipher: &Cipher,
        conditional_form: &mut ConditionalForm,
        pending: &mut Pending,
        results: &mut impl Results,
    ) -> Result<(), Ended> {
        let progress = pending.progress;
        let PendingCall { call: Call { op, ticket, deadline, .. }, .. } = &call;
        let (ticket, deadline) = (*ticket, *deadline);
        let mut step = interpret(op.kind(), replies);
        if let Some(id) = op.changes().filter(|_| call.is_conditional) {
            let enough = if let Op::Touch(_, _, enough) = op { *enough } else { None };
            step = session::conditional_reply(step, enough, &self.store.times);
            if let CallReply::Refused(reason) = step {
                conditional_form.record_refusal(reason);
            }
            if step != CallReply::Number(1) {
                self.known.forget(id);
            }
        }
        if let CallReply::Refused(reason) | CallReply::PartlyRefused(reason) = step {
            if matches!(op, Op::Create(..)) {
                self.store.transactions.record_refusal(reason);
            }
            self.retry(call, progress, matches!(step, CallReply::PartlyRefused(_)));
            return Ok(());
        }
        if let Op::Get(id) = op
            && self.fallback.has_earlier(id)
        {
            // The read must see an earlier change, which the worker has not made yet.
            self.retry(call, progress, false);
            return Ok(());
        }
        if let Some(id) = op.changes()
            && self.fallback.has_earlier(id)
        {
            match step {
                // The earlier change must not find the session that this call has created.
                CallReply::Created { .. } => {
                    if self.fallback.has_retries(id) {
                        self.retry_create(call, progress);
                        return Ok(());
                    }
                }
                _ => {
                    self.retry(call, progress, true);
                    return Ok(());
                }
            }
        }
        match (op, step) {
            (_, CallReply::Number(number)) => {
                complete_each(&mut self.current, |ticket| results.number(ticket, number));
            }
            (Op::Get(id), CallReply::Found(value)) => {
                // A change that was sent after this read has made a newer value.
                if !self.store.waits_for_replicas && !pending.has_conditional(id) {
                    self.known.put(id, value);
                }
                let (current, counters) = (&mut self.current, &self.store.counters);
                let opened = cipher.read_live(id, value, &self.store.times, |expires, content| {
                    complete_each(current, |ticket| {
                        results.session(ticket, Some((expires, content)));
                        counters.looked_up(true);
                    });
                });
                match opened {
                    Ok(()) => self.not_found(results),
                    Err(error) => complete_each(&mut self.current, |ticket| results.refused(ticket, &error)),
                }
            }
            (_, CallReply::NotFound) => self.not_found(results),
            (
                _,
                CallReply::Occupied | CallReply::OtherUser | CallReply::OutlivesIndex | CallReply::Outdated,
            ) => {
                self.retry(call, progress, false);
            }
            (Op::Create(session, stamp), CallReply::Created { index_len }) => {
                self.created(session, *stamp, index_len, ticket, deadline, results);
            }
            (_, CallReply::UserIsFull) => {
                let max = self.store.per_user.max.map_or(0, usize::from);
                results.refused(ticket, &StoreError::TooManySessions { max });
            }
            (Op::Delete(id), CallReply::Deleted(value)) => {
                let member = cipher.member(id);
                self.store.counters.deleted(id, || cipher.user_of(&member, value));
                if let Some(stale) = StaleEntry::of(member, value, &self.store.names) {
                    self.follow_up(Waiter::Nobody, async move |context: Rc<Context>| {
                        session::forget_later(&context, stale);
                        Ok(Answer::Number(1))
                    });
                }
                results.number(ticket, 1);
            }
            _ => {
                // This call is handled like those behind it.
                pending.progress.answered -= 1;
                pending.put_back(call);
                return Err(Ended);
            }
        }
        Ok(())
    }

    /// Completes the remaining `get`s: there is no session.
    fn not_found(&mut self, results: &mut impl Results) {
        let counters = &self.store.counters;
        complete_each(&mut self.current, |ticket| {
            results.session(ticket, None);
            counters.looked_up(false);
        });
    }

    fn created(
        &mut self,
        session: &NewSession,
        created: Option<Stamp>,
        index_len: u64,
        ticket: u32,
        deadline: Instant,
        results: &mut impl Results,
    ) {
        Counters::add(&self.store.counters.created, 1);
        let limit = self.store.per_user;
        let is_above = limit.max.is_some_and(|max| index_len > max.get() as u64);
        let ends_others = is_above && limit.ends_beyond().is_some();
        if !ends_others {
            results.number(ticket, 1);
        }
        if !is_above {
            return;
        }
        let (user, id, expires) =
            (session.user().map(|user| user.to_buf()), session.id.clone(), session.expires);
        let waiter =
            if ends_others { Waiter::Ticket { to: Arc::clone(&self.to), ticket } } else { Waiter::Nobody };
        self.follow_up(waiter, async move |context: Rc<Context>| {
            let work = async |attempt: &Attempt| {
                let cipher = session::cipher(&context, attempt).await?;
                let (user, member) =
                    (cipher.user(user.as_ref().map(|user| user.as_key())), cipher.member(&id));
                session::keep_limit(&context, attempt, &user, &member, index_len, created, expires).await;
                Ok(())
            };
            // The session is stored, even if this fails.
            let _ = context.router.within(deadline.into(), work).await;
            Ok(Answer::Number(1))
        });
    }

    /// Lets the worker do the follow-up work of a call that has succeeded.
    fn follow_up<F>(&mut self, waiter: Waiter, work: impl FnOnce(Rc<Context>) -> F + Send + 'static)
    where
        F: Future<Output = Result<Answer>> + 'static,
    {
        let cold: Cold = Box::new(move |context| Box::pin(work(context)));
        // If the worker refuses it, the call has still taken effect.
        let (deadline, is_unknown) = (Instant::now() + self.store.command_timeout, true);
        let job = Job { op: Op::Cold(cold), waiter, deadline: deadline.into(), is_unknown };
        self.store.queue.push_jobs([job]);
        self.has_jobs = true;
    }
}

/// Completes each of the current calls. If that panics, `current` contains the remaining ones.
fn complete_each(current: &mut SmallVec<[u32; 4]>, mut complete: impl FnMut(u32)) {
    while let Some(&ticket) = current.last() {
        complete(ticket);
        current.pop();
    }
}

/// Whether a reply shows that another server must be used, or this one only later.
fn ends_connection(reply: &Reply<&[u8]>) -> bool {
    let Reply::Error(error) = reply else { return false };
    matches!(error::code(error), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH")
}
