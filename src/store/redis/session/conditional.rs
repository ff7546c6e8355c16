//! Changes of a session with a known value. The server makes them only if the session still has that value.
//!
//! The change is computed here as `touch.lua` and `update.lua` compute it. Whatever needs more than that is left to them: an
//! expired session, one near the end of its maximum lifetime, another user, or an index that must be kept for longer.
//! `SET … IFEQ` is as safe as those scripts and takes a fraction of their time. Redis supports it since 8.4, Valkey since
//! 8.1. Older servers get scripts that only compare.
//!
//! A touch that will probably find a late enough expiry only reads the head of the record, and writes nothing.

use smallvec::SmallVec;

use super::super::error;
use super::super::resp::{MOVE, REPLACE, Request, RequestMode, number};
use super::super::time::{Stamp, Times};
use super::commands::{Change, created_field, expires_field};
use super::names::UserField;
use super::op::CallReply;
use super::record::{self, EXPIRES_AT, EXPIRES_LEN, START_LEN, USER_AT};
use super::support::Support;
use crate::clock::Millis;
use crate::session::Expiry;

pub struct ConditionalChange<'a> {
    known: &'a [u8],
    pub value: Vec<u8>,
    until: SmallVec<[u8; 20]>,
    /// Whether it changes nothing but the expiry.
    is_touch: bool,
}

impl<'a> ConditionalChange<'a> {
    /// Moves the expiry of a session with a known value. `None` if that takes a script.
    pub fn touch(known: &'a [u8], expires: Expiry, times: &Times) -> Option<Self> {
        moved(known, expires, times)?;
        let mut value = known.to_vec();
        value.splice(EXPIRES_AT..EXPIRES_AT + EXPIRES_LEN, expires_field(expires));
        Some(Self { known, value, until: number(times.server_time(expires)), is_touch: true })
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
        Some(Self { known, value, until: number(times.server_time(expires)), is_touch: false })
    }
}

/// The form in which a connection sends conditional changes.
#[derive(Default)]
pub struct ConditionalForm {
    /// `SET … IFEQ`. The next connection may be to a newer server.
    set: Support,
    /// The digests of the scripts that the server knows.
    known_scripts: SmallVec<[&'static str; 2]>,
}

impl ConditionalForm {
    pub fn request(&mut self, change: &ConditionalChange<'_>, key: &[u8]) -> Request {
        let ConditionalChange { known, value, until, is_touch } = change;
        if self.set.is_supported() {
            let args: [&[u8]; 7] = [b"SET", key, value, b"IFEQ", known, b"PXAT", until];
            return Request::write(RequestMode::default()).command(&args);
        }
        let script = if *is_touch { &MOVE } else { &REPLACE };
        // The server learns the script from its text. The worker sends other scripts, and so cannot teach it this one.
        let in_full = !self.known_scripts.contains(&script.digest);
        if in_full {
            self.known_scripts.push(script.digest);
        }
        let request = Request::write(RequestMode { in_full, ..RequestMode::default() });
        if *is_touch {
            let field = &value[EXPIRES_AT..EXPIRES_AT + EXPIRES_LEN];
            request.script(script, key, &[&known[..START_LEN], field, until])
        } else {
            request.script(script, key, &[known, value, until])
        }
    }

    /// Records why a server refused a conditional change.
    pub fn record_refusal(&mut self, reason: &[u8]) {
        self.set.record_refusal(reason);
        if error::code(reason) == "NOSCRIPT" {
            self.known_scripts.clear();
        }
    }
}

/// The meaning of the reply to a conditional call. A touch may have sent [`head_request`] instead of a change.
pub fn conditional_reply<'a>(step: CallReply<'a>, enough: Option<Millis>, times: &Times) -> CallReply<'a> {
    match (step, enough) {
        (CallReply::Head(head), Some(enough)) => head_reply(head, enough, times),
        // A script has found another value.
        (CallReply::Number(0), _) => CallReply::Outdated,
        (step, _) => step,
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
fn head_reply(head: &[u8], enough: Millis, times: &Times) -> CallReply<'static> {
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
    (is_live && !is_limited && keeps_index && known.len() >= START_LEN).then_some((old, created))
}
