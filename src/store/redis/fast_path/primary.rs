//! One primary of a fast path: its connection, and its pending calls.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::super::cache::{NearCache, Proof};
use super::super::connection::{Filled, ReplyWindow, Socket};
use super::super::routing::NodeId;
use super::super::session::{Cipher, ConditionalForm, Names, Op};
use super::fallback::Progress;
use crate::session::SessionId;

/// How many unsent bytes a socket may buffer. Beyond that, calls wait before they are encoded, so that late ones are
/// never sent.
const MAX_UNSENT: usize = 256 * 1024;

/// How many pending calls are searched for one on the same session. If there are more, one is assumed.
const MAX_SEARCHED: usize = 1024;

/// How many of the last calls are searched for one to share.
const MAX_SHARED_SEARCHED: usize = 16;

/// The maximum number of calls that share a request. One turn completes all of them.
const MAX_SHARING: usize = 128;

/// How much later a call may start than the call whose request it shares. Both have the deadline of the earlier one.
const SHARED_WITHIN: Duration = Duration::from_millis(10);

/// A call, and the calls that share its request.
pub struct Call {
    pub op: Op,
    pub ticket: u32,
    /// The tickets of equal calls. Only a `get` or a `touch` has them.
    pub sharing: Vec<u32>,
    pub deadline: Instant,
}

impl Call {
    pub fn new(op: Op, ticket: u32, deadline: Instant) -> Self {
        Self { op, ticket, sharing: Vec::new(), deadline }
    }

    /// The number of calls, including those that share the request.
    pub fn count(&self) -> usize {
        1 + self.sharing.len()
    }

    /// Splits it into single calls.
    pub fn each(self) -> impl Iterator<Item = (Op, u32)> {
        let others: Vec<_> =
            self.sharing.iter().filter_map(|&ticket| Some((self.op.copy()?, ticket))).collect();
        [(self.op, self.ticket)].into_iter().chain(others)
    }
}

/// A call that was encoded, and may have been sent.
pub struct PendingCall {
    pub call: Call,
    /// The position of its commands in the stream of all bytes sent.
    pub start: u64,
    /// The number of its commands, each of which gets a reply.
    pub commands: usize,
    /// Whether it expects a known value. If the session has another one, the worker makes the call.
    pub is_conditional: bool,
}

/// A late call, which is complete for its caller but has no reply yet.
pub struct Late {
    deadline: Instant,
    commands: usize,
}

/// An open connection.
pub struct OpenConnection {
    pub socket: Socket,
    pub cipher: Arc<Cipher>,
    pub conditional_form: ConditionalForm,
    /// The server is no longer the right one. It sends the remaining replies, and gets no more requests.
    pub draining: bool,
    /// Writing is not possible any more, but replies may still arrive.
    pub write_closed: bool,
    /// The connection has failed. The next turn ends it.
    pub has_failed: bool,
    /// Whether the server sends invalidations on this connection.
    pub is_tracked: bool,
    pub proof: Proof,
    /// When the socket was last found empty.
    pub empty_at: Instant,
}

impl OpenConnection {
    /// Reads once. Handles all push messages before any reply that was read with them.
    pub fn fill(&mut self, cache: Option<&mut NearCache>, names: &Names) -> io::Result<Filled> {
        let filled = self.socket.fill()?;
        if let (Filled::Whole | Filled::Some, Some(cache)) = (&filled, cache) {
            let handled = cache.handle_pushes(&mut self.socket, &self.cipher, names);
            handled.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        }
        Ok(filled)
    }

    /// Whether requests on this connection will get a reply.
    pub fn is_usable(&self) -> bool {
        !self.draining && !self.write_closed && !self.has_failed
    }
}

/// The calls that were sent, in the order of their replies.
#[derive(Default)]
pub struct Pending {
    pub calls: VecDeque<PendingCall>,
    /// Late calls, whose replies come first.
    pub late: VecDeque<Late>,
    pub progress: Progress,
    /// How many of the calls are changes.
    changes: usize,
    /// How many of the calls on a session are conditional.
    conditional: HashMap<SessionId, u32, RandomState>,
}

impl Pending {
    /// Adds a call that is sent.
    pub fn push(&mut self, call: PendingCall) {
        self.progress.sent += 1;
        self.count(&call);
        self.calls.push_back(call);
    }

    fn count(&mut self, call: &PendingCall) {
        let Some(id) = call.call.op.changes() else { return };
        self.changes += 1;
        if call.is_conditional {
            *self.conditional.entry(id.clone()).or_default() += 1;
        }
    }

    /// Takes the oldest call.
    pub fn pop(&mut self) -> Option<PendingCall> {
        let call = self.calls.pop_front()?;
        self.discount(&call);
        Some(call)
    }

    fn discount(&mut self, call: &PendingCall) {
        let Some(id) = call.call.op.changes() else { return };
        self.changes -= 1;
        if call.is_conditional
            && let Some(count) = self.conditional.get_mut(id)
        {
            *count -= 1;
            if *count == 0 {
                self.conditional.remove(id);
            }
        }
    }

    /// Takes the calls that were not sent, and never will be. They count as sent until the connection ends.
    pub fn take_unsent(&mut self, has_sent: impl Fn(u64) -> bool) -> VecDeque<PendingCall> {
        let sent = self.calls.partition_point(|call| has_sent(call.start));
        let unsent = self.calls.split_off(sent);
        unsent.iter().for_each(|call| self.discount(call));
        unsent
    }

    /// Whether a conditional call on a session has no reply yet. The worker may have to make it.
    pub fn has_conditional(&self, id: &SessionId) -> bool {
        self.conditional.contains_key(id)
    }

    /// Takes the oldest call if it is late. Its reply is still expected.
    pub fn pop_late(&mut self, now: Instant) -> Option<Call> {
        self.calls.front().filter(|first| now >= first.call.deadline)?;
        let PendingCall { call, commands, .. } = self.pop()?;
        self.late.push_back(Late { deadline: call.deadline, commands });
        Some(call)
    }

    /// The deadline of the call whose reply is next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let late = self.late.front().map(|late| late.deadline);
        late.or_else(|| self.calls.front().map(|first| first.call.deadline))
    }

    /// Puts the oldest call back.
    pub fn put_back(&mut self, call: PendingCall) {
        self.count(&call);
        self.calls.push_front(call);
    }

    /// Takes all calls, because no more replies will arrive.
    pub fn take_all(&mut self) -> VecDeque<PendingCall> {
        self.late.clear();
        self.changes = 0;
        self.conditional.clear();
        mem::take(&mut self.calls)
    }

    /// The number of replies to the oldest request.
    pub fn next_replies(&self) -> usize {
        let late = self.late.front().map(|late| late.commands);
        // Without a pending request, one reply is read. It ends the connection.
        late.or(self.calls.front().map(|call| call.commands)).unwrap_or(1)
    }

    /// The number of requests without a reply.
    pub fn len(&self) -> usize {
        self.calls.len() + self.late.len()
    }

    /// Whether a call may go elsewhere only after the pending ones: one of them may be on its session, and one of the
    /// two is a change.
    pub fn may_precede(&self, op: &Op) -> bool {
        if !self.late.is_empty() {
            return true;
        }
        let Some(id) = op.session().filter(|_| self.changes > 0 || op.changes().is_some()) else {
            return false;
        };
        let mut ids = self.calls.iter().map(|call| call.call.op.session());
        self.calls.len() > MAX_SEARCHED || ids.any(|other| other == Some(id))
    }
}

#[derive(Default)]
pub struct Primary {
    pub open: Option<OpenConnection>,
    pub pending: Pending,
    /// Calls that wait to be encoded.
    pub queued: VecDeque<Call>,
    /// Whether replies may be in the buffer that were not handled yet.
    pub has_buffered: bool,
    /// The number of encoded calls since the last flush.
    pub unflushed: usize,
    /// Set when the primary has lost slots. After this many replies, no pending call is on one of them.
    pub lost_until: Option<u64>,
}

impl Primary {
    pub fn new(node: NodeId) -> Self {
        let pending = Pending { progress: Progress::of(node), ..Pending::default() };
        Self { pending, ..Self::default() }
    }

    pub fn node(&self) -> NodeId {
        self.pending.progress.node
    }

    /// Whether no call is pending or queued.
    pub fn is_idle(&self) -> bool {
        self.pending.calls.is_empty() && self.queued.is_empty()
    }

    pub fn is_draining(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.draining)
    }

    /// Whether another call may be encoded.
    pub fn has_room(&self, window: &ReplyWindow) -> bool {
        let Some(open) = &self.open else { return true };
        open.socket.unsent() < MAX_UNSENT && window.has_room(self.pending.len())
    }

    /// Lets a `get` or `touch` share the unsent request of an equal call, unless another call on that session is
    /// between them.
    pub fn share(&mut self, op: &Op, ticket: u32, deadline: Instant) -> bool {
        let Self { open, pending, queued, .. } = self;
        let Some(OpenConnection { socket, .. }) = open else { return false };
        let unsent = pending.calls.iter_mut().rev().take_while(|call| !socket.has_sent(call.start));
        let waiting = queued.iter_mut().rev().chain(unsent.map(|call| &mut call.call));
        let last = waiting.take(MAX_SHARED_SEARCHED).find(|call| call.op.session() == op.session());
        match last {
            Some(call)
                if call.op.answers(op)
                    && call.count() < MAX_SHARING
                    && deadline <= call.deadline + SHARED_WITHIN =>
            {
                call.sharing.push(ticket);
                true
            }
            _ => false,
        }
    }

    /// Whether bytes or calls wait until the socket is writable.
    pub fn waits_for_room(&self, window: &ReplyWindow) -> bool {
        let Some(open) = &self.open else { return false };
        !open.write_closed && (!open.socket.is_flushed() || !self.queued.is_empty() && self.has_room(window))
    }

    /// When the primary needs attention without an event of its socket.
    pub fn next_deadline(&self, timeout: Duration) -> Option<Instant> {
        let Pending { calls, late, .. } = &self.pending;
        let first = match &self.open {
            // The socket reports none of these.
            Some(open) if open.has_failed || self.has_buffered => Some(Instant::now()),
            Some(open) if calls.is_empty() && !late.is_empty() => Some(open.socket.last_read_at() + timeout),
            _ => calls.front().map(|first| first.call.deadline),
        };
        // A queued call may be late before the server has answered the others.
        first.into_iter().chain(self.queued.front().map(|first| first.deadline)).min()
    }

    /// Whether the server is silent although requests are pending, or so late that all further replies are late too.
    pub fn is_lost(&self, now: Instant, timeout: Duration) -> bool {
        let is_silent = |open: &OpenConnection| now >= open.socket.last_read_at() + timeout;
        // Such a late reply is stuck in buffers of the network.
        let is_overdue = self.pending.late.front().is_some_and(|late| now >= late.deadline + timeout);
        is_overdue || self.pending.len() > 0 && self.open.as_ref().is_some_and(is_silent)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::super::connection::RawConnection;
    use super::*;

    #[test]
    fn a_queued_call_has_its_own_deadline() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(RawConnection { socket: Arc::new(stream.into()), tls: None }).unwrap();
        let (now, timeout) = (Instant::now(), Duration::from_secs(1));
        let call = |deadline| Call::new(Op::Get(SessionId::new("a").unwrap()), 0, deadline);
        let open = OpenConnection {
            socket,
            cipher: Arc::new(Cipher::Plain),
            conditional_form: ConditionalForm::default(),
            draining: false,
            write_closed: false,
            has_failed: false,
            is_tracked: false,
            proof: Proof::default(),
            empty_at: now,
        };
        let mut primary = Primary { open: Some(open), ..Primary::default() };
        let (first, second) = (now + timeout / 4, now + timeout / 2);
        primary.pending.push(PendingCall { call: call(first), start: 0, commands: 1, is_conditional: false });
        primary.queued.push_back(call(second));
        assert_eq!(primary.next_deadline(timeout), Some(first));
        assert!(primary.pending.pop_late(first).is_some());
        assert_eq!(primary.next_deadline(timeout), Some(second));
    }
}
