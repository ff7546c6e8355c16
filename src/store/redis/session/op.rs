//! The calls of a store, and the meaning of the replies to calls on one session. The worker and the fast path share
//! it.

use std::pin::Pin;
use std::rc::Rc;

use super::super::error;
use super::super::resp::Reply;
use super::super::time::Stamp;
use super::context::Context;
use super::new_session::NewSession;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::Answer;

pub enum Op {
    /// The stamp is set once the creation was sent. It identifies this creation, so that it can be sent again.
    Create(NewSession, Option<Stamp>),
    Get(SessionId),
    Update(NewSession),
    /// `Some(enough)` leaves an expiry from `enough` on unchanged.
    Touch(SessionId, Expiry, Option<Millis>),
    Delete(SessionId),
    /// Any call that is not on one session.
    Cold(Cold),
}

pub type Cold = Box<dyn FnOnce(Rc<Context>) -> Pin<Box<dyn Future<Output = Result<Answer>>>> + Send>;

impl Op {
    /// The approximate size in bytes.
    pub fn len(&self) -> usize {
        const OVERHEAD: usize = 128;
        match self {
            Self::Create(session, _) | Self::Update(session) => OVERHEAD + session.len(),
            _ => OVERHEAD,
        }
    }

    pub fn kind(&self) -> OpKind {
        match self {
            Self::Create(..) => OpKind::Create,
            Self::Get(_) => OpKind::Get,
            Self::Update(_) => OpKind::Update,
            Self::Touch(..) => OpKind::Touch,
            Self::Delete(_) => OpKind::Delete,
            Self::Cold(_) => OpKind::Cold,
        }
    }

    /// Whether `next` gets the same result without a request of its own, if nothing comes between the two.
    pub fn answers(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Get(id), Self::Get(other)) => id == other,
            (Self::Touch(id, expires, enough), Self::Touch(other, expires_too, enough_too)) => {
                id == other && (expires, enough) == (expires_too, enough_too)
            }
            _ => false,
        }
    }

    /// A copy of a call that may share its request.
    pub fn copy(&self) -> Option<Self> {
        match self {
            Self::Get(id) => Some(Self::Get(id.clone())),
            Self::Touch(id, expires, enough) => Some(Self::Touch(id.clone(), *expires, *enough)),
            Self::Create(..) | Self::Update(_) | Self::Delete(_) | Self::Cold(_) => None,
        }
    }

    /// The session that the call reads or changes.
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Get(id) => Some(id),
            _ => self.changes(),
        }
    }

    /// The session that the call changes.
    pub fn changes(&self) -> Option<&SessionId> {
        match self {
            Self::Create(session, _) | Self::Update(session) => Some(&session.id),
            Self::Touch(id, ..) | Self::Delete(id) => Some(id),
            Self::Get(_) | Self::Cold(_) => None,
        }
    }
}

/// The kinds of calls whose replies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    Create,
    Get,
    Update,
    Touch,
    Delete,
    Cold,
}

/// The reply of `CREATE` if the user has no room for another session.
pub const USER_IS_FULL: i64 = -2;

/// The meaning of the replies to a call's request.
#[derive(Debug, PartialEq, Eq)]
pub enum CallReply<'a> {
    /// The call is complete, with this number as its result.
    Number(u64),
    /// `get` found this value.
    Found(&'a [u8]),
    /// `get` found nothing.
    NotFound,
    /// The session is stored. `index_len` is the number of entries in its user's index, or 0 if the request did not
    /// ask for it, or if the session has expired.
    Created {
        index_len: u64,
    },
    /// `create` found a session with the same id, which may have expired.
    Occupied,
    /// The user already has the maximum number of sessions. Nothing has changed.
    UserIsFull,
    /// `update` found a session of another user. Nothing has changed.
    OtherUser,
    /// The new expiry is after the end of the user's index. Nothing has changed.
    OutlivesIndex,
    /// The session no longer has the value that the call expects. Nothing has changed.
    Outdated,
    /// `touch` has only read the head of the record, or nothing.
    Head(&'a [u8]),
    /// The session with this value is deleted.
    Deleted(&'a [u8]),
    /// The server refused the request with this error. Nothing has changed.
    Refused(&'a [u8]),
    /// The server refused a part of a transaction with this error. Other parts may have been carried out.
    PartlyRefused(&'a [u8]),
    Unexpected,
}

impl CallReply<'_> {
    /// The error for a reply with which the call cannot continue.
    pub fn error(&self) -> StoreError {
        match self {
            Self::Refused(refusal) | Self::PartlyRefused(refusal) => error::of_refusal(refusal),
            _ => error::unexpected(),
        }
    }
}

/// Interprets the replies to the request of a call on one session.
pub fn interpret<B: AsRef<[u8]>>(kind: OpKind, replies: &[Reply<B>]) -> CallReply<'_> {
    let reply = match replies {
        [reply] => reply,
        [first, .., last] if kind == OpKind::Create => return interpret_transaction(first, replies, last),
        _ => return CallReply::Unexpected,
    };
    if let Reply::Error(refusal) = reply {
        let refusal = refusal.as_ref();
        return match kind {
            // A value of another type belongs to another app, and is no session.
            OpKind::Get if error::code(refusal) == "WRONGTYPE" => CallReply::NotFound,
            OpKind::Update | OpKind::Touch if error::code(refusal) == "WRONGTYPE" => CallReply::Number(0),
            OpKind::Delete if error::code(refusal) == "WRONGTYPE" => CallReply::Number(1),
            _ => CallReply::Refused(refusal),
        };
    }
    match (kind, reply) {
        (OpKind::Create, Reply::Okay) => CallReply::Created { index_len: 0 },
        (OpKind::Create, Reply::Number(len @ 0..)) => CallReply::Created { index_len: len.unsigned_abs() },
        (OpKind::Create, Reply::Number(USER_IS_FULL)) | (OpKind::Update, Reply::Number(4)) => {
            CallReply::UserIsFull
        }
        (OpKind::Create, Reply::Nil | Reply::Number(_) | Reply::Bytes(_)) => CallReply::Occupied,
        (OpKind::Get, Reply::Bytes(value)) => CallReply::Found(value.as_ref()),
        (OpKind::Get, Reply::Nil) => CallReply::NotFound,
        (OpKind::Update | OpKind::Touch, Reply::Number(number @ (0 | 1))) => {
            CallReply::Number(number.unsigned_abs())
        }
        // The replies to a conditional `SET`.
        (OpKind::Update | OpKind::Touch, Reply::Okay) => CallReply::Number(1),
        (OpKind::Update | OpKind::Touch, Reply::Nil) => CallReply::Outdated,
        (OpKind::Touch, Reply::Bytes(head)) => CallReply::Head(head.as_ref()),
        (OpKind::Update, Reply::Number(2)) => CallReply::OtherUser,
        (OpKind::Update, Reply::Number(3)) | (OpKind::Touch, Reply::Number(2)) => CallReply::OutlivesIndex,
        (OpKind::Delete, Reply::Nil) => CallReply::Number(1),
        (OpKind::Delete, Reply::Bytes(value)) => CallReply::Deleted(value.as_ref()),
        _ => CallReply::Unexpected,
    }
}

/// Interprets the replies to [`super::commands::Creation::transaction`].
fn interpret_transaction<'a, B: AsRef<[u8]>>(
    first: &'a Reply<B>,
    replies: &'a [Reply<B>],
    last: &'a Reply<B>,
) -> CallReply<'a> {
    let refusal = |replies: &'a [Reply<B>]| {
        replies.iter().find_map(|reply| match reply {
            Reply::Error(refusal) => Some(refusal.as_ref()),
            _ => None,
        })
    };
    match last {
        Reply::Array(done) => match (refusal(done), &done[..]) {
            (Some(refusal), _) => CallReply::PartlyRefused(refusal),
            (None, [_, _, _, Reply::Okay]) => CallReply::Created { index_len: 0 },
            (None, [_, _, _, Reply::Okay, Reply::Number(len)]) => {
                CallReply::Created { index_len: len.unsigned_abs() }
            }
            (None, [_, _, _, Reply::Nil, ..]) => CallReply::Occupied,
            _ => CallReply::Unexpected,
        },
        Reply::Error(_) => match refusal(replies) {
            // The server discards a transaction if it has refused one of its commands.
            Some(refusal) if matches!(first, Reply::Okay) => CallReply::Refused(refusal),
            Some(refusal) => CallReply::PartlyRefused(refusal),
            None => CallReply::Unexpected,
        },
        _ => CallReply::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Reply<&[u8]> = Reply::Number(1);
    const REFUSED: Reply<&[u8]> = Reply::Error(b"OOM no");
    const WRONG_TYPE: Reply<&[u8]> = Reply::Error(b"WRONGTYPE no");

    #[test]
    fn replies_to_a_transaction_are_interpreted() {
        let queued = || Reply::Status(&b"QUEUED"[..]);
        let done = |parts: &[Reply<&'static [u8]>]| {
            let mut replies = vec![Reply::Okay, queued(), queued(), queued(), queued()];
            replies.push(Reply::Array(parts.to_vec()));
            replies
        };
        let aborted = Reply::Error(&b"EXECABORT Transaction discarded"[..]);
        let no_multi = Reply::Error(&b"ERR EXEC without MULTI"[..]);
        for (replies, step) in [
            (done(&[DONE, DONE, DONE, Reply::Okay]), CallReply::Created { index_len: 0 }),
            (done(&[DONE, DONE, DONE, Reply::Okay, Reply::Number(7)]), CallReply::Created { index_len: 7 }),
            (done(&[DONE, DONE, DONE, Reply::Nil]), CallReply::Occupied),
            (done(&[DONE, DONE, DONE, Reply::Nil, DONE]), CallReply::Occupied),
            (done(&[DONE, WRONG_TYPE, DONE, Reply::Okay]), CallReply::PartlyRefused(b"WRONGTYPE no")),
            (done(&[DONE, DONE, DONE]), CallReply::Unexpected),
            (vec![Reply::Okay, queued(), REFUSED, queued(), aborted.clone()], CallReply::Refused(b"OOM no")),
            (vec![WRONG_TYPE, DONE, DONE, Reply::Okay, no_multi], CallReply::PartlyRefused(b"WRONGTYPE no")),
            (vec![Reply::Okay, queued()], CallReply::Unexpected),
        ] {
            assert_eq!(interpret(OpKind::Create, &replies), step, "{replies:?}");
        }
    }

    #[test]
    fn replies_are_interpreted() {
        let value = || Reply::Bytes(&b"value"[..]);
        for (kind, replies, step) in [
            (OpKind::Create, vec![Reply::Okay], CallReply::Created { index_len: 0 }),
            (OpKind::Create, vec![Reply::Number(7)], CallReply::Created { index_len: 7 }),
            // The index of a session that has expired may be gone already.
            (OpKind::Create, vec![Reply::Number(0)], CallReply::Created { index_len: 0 }),
            (OpKind::Create, vec![Reply::Number(-1)], CallReply::Occupied),
            (OpKind::Create, vec![Reply::Number(-2)], CallReply::UserIsFull),
            (OpKind::Create, vec![value()], CallReply::Occupied),
            (OpKind::Create, vec![Reply::Nil], CallReply::Occupied),
            (OpKind::Create, vec![REFUSED], CallReply::Refused(b"OOM no")),
            (OpKind::Create, vec![DONE, DONE], CallReply::Unexpected),
            (OpKind::Get, vec![value()], CallReply::Found(b"value")),
            (OpKind::Get, vec![Reply::Nil], CallReply::NotFound),
            (OpKind::Get, vec![DONE], CallReply::Unexpected),
            (OpKind::Update, vec![Reply::Number(0)], CallReply::Number(0)),
            (OpKind::Update, vec![DONE], CallReply::Number(1)),
            (OpKind::Update, vec![Reply::Number(2)], CallReply::OtherUser),
            (OpKind::Update, vec![Reply::Number(-1)], CallReply::Unexpected),
            (OpKind::Update, vec![WRONG_TYPE], CallReply::Number(0)),
            (OpKind::Touch, vec![WRONG_TYPE], CallReply::Number(0)),
            (OpKind::Get, vec![WRONG_TYPE], CallReply::NotFound),
            (OpKind::Delete, vec![WRONG_TYPE], CallReply::Number(1)),
            (OpKind::Create, vec![WRONG_TYPE], CallReply::Refused(b"WRONGTYPE no")),
            (OpKind::Update, vec![REFUSED], CallReply::Refused(b"OOM no")),
            (OpKind::Touch, vec![DONE], CallReply::Number(1)),
            (OpKind::Update, vec![Reply::Number(3)], CallReply::OutlivesIndex),
            (OpKind::Update, vec![Reply::Number(4)], CallReply::UserIsFull),
            (OpKind::Touch, vec![Reply::Number(2)], CallReply::OutlivesIndex),
            (OpKind::Touch, vec![Reply::Okay], CallReply::Number(1)),
            (OpKind::Touch, vec![Reply::Nil], CallReply::Outdated),
            (OpKind::Update, vec![Reply::Okay], CallReply::Number(1)),
            (OpKind::Update, vec![Reply::Nil], CallReply::Outdated),
            (OpKind::Touch, vec![value()], CallReply::Head(b"value")),
            (OpKind::Update, vec![value()], CallReply::Unexpected),
            (OpKind::Delete, vec![Reply::Nil], CallReply::Number(1)),
            (OpKind::Delete, vec![value()], CallReply::Deleted(b"value")),
            (OpKind::Delete, vec![Reply::Okay], CallReply::Unexpected),
            (OpKind::Get, vec![], CallReply::Unexpected),
            (OpKind::Cold, vec![DONE], CallReply::Unexpected),
        ] {
            assert_eq!(interpret(kind, &replies), step, "{kind:?} {replies:?}");
        }
    }
}
