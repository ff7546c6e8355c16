//! Changes of a session by `SET … IFEQ`. The server stores the new value only if the session still has the known one.
//! That is as safe as a script and takes a fraction of its time. Redis supports it since 8.4, Valkey since 8.1.
//!
//! The change is computed here as `touch.lua` and `update.lua` compute it. Whatever needs more than that is left to them: an
//! expired session, one near the end of its maximum lifetime, another user, or an index that must be kept for longer.
//!
//! A touch that will probably find a late enough expiry only reads the head of the record, and writes nothing.

use smallvec::SmallVec;

use super::super::resp::{Request, number};
use super::super::time::{Stamp, Times};
use super::commands::{Change, created_field, expires_field};
use super::names::UserField;
use super::op::CallReply;
use super::record::{self, EXPIRES_AT, EXPIRES_LEN, USER_AT};
use crate::clock::Millis;
use crate::session::Expiry;

pub struct ConditionalSet<'a> {
    known: &'a [u8],
    pub value: Vec<u8>,
    until: SmallVec<[u8; 20]>,
}

impl<'a> ConditionalSet<'a> {
    /// Moves the expiry of a session with a known value. `None` if that takes a script.
    pub fn touch(known: &'a [u8], expires: Expiry, times: &Times) -> Option<Self> {
        moved(known, expires, times)?;
        let mut value = known.to_vec();
        value.splice(EXPIRES_AT..EXPIRES_AT + EXPIRES_LEN, expires_field(expires));
        Some(Self { known, value, until: number(times.server_time(expires)) })
    }

    /// Replaces a session with a known value. `None` if that takes a script.
    pub fn update(
        known: &'a [u8],
        change: &Change,
        user: &UserField,
        expires: Expiry,
        times: &Times,
    ) -> Option<Self> {
        let (_, created) = moved(known, expires, times)?;
        if !known[USER_AT..].starts_with(&user.to_match()) {
            return None;
        }
        let value = change.value(&created_field(created));
        Some(Self { known, value, until: number(times.server_time(expires)) })
    }

    pub fn request(&self, request: Request, key: &[u8]) -> Request {
        request.command(&[b"SET", key, &self.value, b"IFEQ", self.known, b"PXAT", &self.until])
    }
}

/// Whether a touch leaves this live session unchanged, because its expiry is `enough` or later. `head` contains at least
/// the head of the record.
pub fn is_enough(head: &[u8], enough: Millis, times: &Times) -> bool {
    record::times(head).is_ok_and(|(expires, created)| {
        let end = times.end(expires, created);
        // No expiry is later than the end of the maximum lifetime.
        let enough = enough.min(times.lifetime.last(times.created_at(created)));
        !end.is_past(times.now()) && expires.millis() >= enough
    })
}

/// Reads what [`head_reply`] needs.
pub fn head_request(request: Request, key: &[u8]) -> Request {
    request.command(&[b"GETRANGE", key, b"0", &number(USER_AT as i64 - 1)])
}

/// The meaning of a record's head for a touch that expects a late enough expiry.
pub fn head_reply(head: &[u8], enough: Millis, times: &Times) -> CallReply<'static> {
    if head.is_empty() {
        CallReply::Number(0)
    } else if is_enough(head, enough, times) {
        CallReply::Number(1)
    } else {
        CallReply::Outdated
    }
}

/// The expiry and the creation of a live session, if it may get the new expiry without further checks.
fn moved(known: &[u8], expires: Expiry, times: &Times) -> Option<(Expiry, Stamp)> {
    let (old, created) = record::times(known).ok()?;
    let is_live = !times.end(old, created).is_past(times.now());
    let is_limited = times.end(expires, created) != expires;
    let keeps_index = known[USER_AT..].starts_with(b"null")
        || expires.millis() <= old.millis()
        || times.index_end(created, expires) == times.index_end(created, old);
    (is_live && !is_limited && keeps_index).then_some((old, created))
}
