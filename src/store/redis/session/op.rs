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
        const ID: usize = 128;
        match self {
            Self::Create(session, _) | Self::Update(session) => ID + session.len(),
            _ => ID,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Create(..) => Kind::Create,
            Self::Get(_) => Kind::Get,
            Self::Update(_) => Kind::Update,
            Self::Touch(..) => Kind::Touch,
            Self::Delete(_) => Kind::Delete,
            Self::Cold(_) => Kind::Cold,
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
pub enum Kind {
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
pub enum Step<'a> {
    /// The call is complete, with this number as its result.
    Number(u64),
    /// `get` found this value.
    Found(&'a [u8]),
    /// `get` found nothing.
    NotFound,
    /// The session is stored. `index_len` is the number of entries in its user's index, or 0 if the request did not
    /// ask for it.
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
    /// The session with this value is deleted.
    Deleted(&'a [u8]),
    /// The server refused the request with this error. Nothing has changed.
    Refused(&'a [u8]),
    /// The server refused a part of a transaction with this error. Other parts may have been carried out.
    PartlyRefused(&'a [u8]),
    Unexpected,
}

impl Step<'_> {
    /// The error for a reply with which the call cannot continue.
    pub fn error(&self) -> StoreError {
        match self {
            Self::Refused(refusal) | Self::PartlyRefused(refusal) => error::of_refusal(refusal),
            _ => error::unexpected(),
        }
    }
}

/// Interprets the replies to the request of a call on one session.
pub fn interpret<B: AsRef<[u8]>>(kind: Kind, replies: &[Reply<B>]) -> Step<'_> {
    let reply = match replies {
        [reply] => reply,
        [first, .., last] if kind == Kind::Create => return interpret_transaction(first, replies, last),
        _ => return Step::Unexpected,
    };
    if let Reply::Error(refusal) = reply {
        let refusal = refusal.as_ref();
        return match kind {
            // A value of another type belongs to another app, and is no session.
            Kind::Get if error::code(refusal) == "WRONGTYPE" => Step::NotFound,
            Kind::Update | Kind::Touch if error::code(refusal) == "WRONGTYPE" => Step::Number(0),
            Kind::Delete if error::code(refusal) == "WRONGTYPE" => Step::Number(1),
            _ => Step::Refused(refusal),
        };
    }
    match (kind, reply) {
        (Kind::Create, Reply::Okay) => Step::Created { index_len: 0 },
        (Kind::Create, Reply::Number(len @ 1..)) => Step::Created { index_len: len.unsigned_abs() },
        (Kind::Create, Reply::Number(USER_IS_FULL)) | (Kind::Update, Reply::Number(4)) => Step::UserIsFull,
        (Kind::Create, Reply::Nil | Reply::Number(_) | Reply::Bytes(_)) => Step::Occupied,
        (Kind::Get, Reply::Bytes(value)) => Step::Found(value.as_ref()),
        (Kind::Get, Reply::Nil) => Step::NotFound,
        (Kind::Update | Kind::Touch, Reply::Number(number @ (0 | 1))) => Step::Number(number.unsigned_abs()),
        (Kind::Update, Reply::Number(2)) => Step::OtherUser,
        (Kind::Update, Reply::Number(3)) | (Kind::Touch, Reply::Number(2)) => Step::OutlivesIndex,
        (Kind::Delete, Reply::Nil) => Step::Number(1),
        (Kind::Delete, Reply::Bytes(value)) => Step::Deleted(value.as_ref()),
        _ => Step::Unexpected,
    }
}

/// Interprets the replies to [`super::commands::Creation::transaction`].
fn interpret_transaction<'a, B: AsRef<[u8]>>(
    first: &'a Reply<B>,
    replies: &'a [Reply<B>],
    last: &'a Reply<B>,
) -> Step<'a> {
    let refusal = |replies: &'a [Reply<B>]| {
        replies.iter().find_map(|reply| match reply {
            Reply::Error(refusal) => Some(refusal.as_ref()),
            _ => None,
        })
    };
    match last {
        Reply::Array(done) => match (refusal(done), &done[..]) {
            (Some(refusal), _) => Step::PartlyRefused(refusal),
            (None, [_, _, _, Reply::Okay]) => Step::Created { index_len: 0 },
            (None, [_, _, _, Reply::Okay, Reply::Number(len)]) => {
                Step::Created { index_len: len.unsigned_abs() }
            }
            (None, [_, _, _, Reply::Nil, ..]) => Step::Occupied,
            _ => Step::Unexpected,
        },
        Reply::Error(_) => match refusal(replies) {
            // The server discards a transaction if it has refused one of its commands.
            Some(refusal) if matches!(first, Reply::Okay) => Step::Refused(refusal),
            Some(refusal) => Step::PartlyRefused(refusal),
            None => Step::Unexpected,
        },
        _ => Step::Unexpected,
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
        let not_begun = Reply::Error(&b"ERR EXEC without MULTI"[..]);
        for (replies, step) in [
            (done(&[DONE, DONE, DONE, Reply::Okay]), Step::Created { index_len: 0 }),
            (done(&[DONE, DONE, DONE, Reply::Okay, Reply::Number(7)]), Step::Created { index_len: 7 }),
            (done(&[DONE, DONE, DONE, Reply::Nil]), Step::Occupied),
            (done(&[DONE, DONE, DONE, Reply::Nil, DONE]), Step::Occupied),
            (done(&[DONE, WRONG_TYPE, DONE, Reply::Okay]), Step::PartlyRefused(b"WRONGTYPE no")),
            (done(&[DONE, DONE, DONE]), Step::Unexpected),
            (vec![Reply::Okay, queued(), REFUSED, queued(), aborted.clone()], Step::Refused(b"OOM no")),
            (vec![WRONG_TYPE, DONE, DONE, Reply::Okay, not_begun], Step::PartlyRefused(b"WRONGTYPE no")),
            (vec![Reply::Okay, queued()], Step::Unexpected),
        ] {
            assert_eq!(interpret(Kind::Create, &replies), step, "{replies:?}");
        }
    }

    #[test]
    fn replies_are_interpreted() {
        let value = || Reply::Bytes(&b"value"[..]);
        for (kind, replies, step) in [
            (Kind::Create, vec![Reply::Okay], Step::Created { index_len: 0 }),
            (Kind::Create, vec![Reply::Number(7)], Step::Created { index_len: 7 }),
            (Kind::Create, vec![Reply::Number(-1)], Step::Occupied),
            (Kind::Create, vec![Reply::Number(-2)], Step::UserIsFull),
            (Kind::Create, vec![value()], Step::Occupied),
            (Kind::Create, vec![Reply::Nil], Step::Occupied),
            (Kind::Create, vec![REFUSED], Step::Refused(b"OOM no")),
            (Kind::Create, vec![DONE, DONE], Step::Unexpected),
            (Kind::Get, vec![value()], Step::Found(b"value")),
            (Kind::Get, vec![Reply::Nil], Step::NotFound),
            (Kind::Get, vec![DONE], Step::Unexpected),
            (Kind::Update, vec![Reply::Number(0)], Step::Number(0)),
            (Kind::Update, vec![DONE], Step::Number(1)),
            (Kind::Update, vec![Reply::Number(2)], Step::OtherUser),
            (Kind::Update, vec![Reply::Number(-1)], Step::Unexpected),
            (Kind::Update, vec![WRONG_TYPE], Step::Number(0)),
            (Kind::Touch, vec![WRONG_TYPE], Step::Number(0)),
            (Kind::Get, vec![WRONG_TYPE], Step::NotFound),
            (Kind::Delete, vec![WRONG_TYPE], Step::Number(1)),
            (Kind::Create, vec![WRONG_TYPE], Step::Refused(b"WRONGTYPE no")),
            (Kind::Update, vec![REFUSED], Step::Refused(b"OOM no")),
            (Kind::Touch, vec![DONE], Step::Number(1)),
            (Kind::Update, vec![Reply::Number(3)], Step::OutlivesIndex),
            (Kind::Update, vec![Reply::Number(4)], Step::UserIsFull),
            (Kind::Touch, vec![Reply::Number(2)], Step::OutlivesIndex),
            (Kind::Touch, vec![Reply::Nil], Step::Unexpected),
            (Kind::Delete, vec![Reply::Nil], Step::Number(1)),
            (Kind::Delete, vec![value()], Step::Deleted(b"value")),
            (Kind::Delete, vec![Reply::Okay], Step::Unexpected),
            (Kind::Get, vec![], Step::Unexpected),
            (Kind::Cold, vec![DONE], Step::Unexpected),
        ] {
            assert_eq!(interpret(kind, &replies), step, "{kind:?} {replies:?}");
        }
    }
}
