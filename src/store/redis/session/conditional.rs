//! Changes of a session by `SET … IFEQ`. The server stores the new value only if the session still has the known one.
//! That is as safe as a script and takes a fraction of its time. Redis supports it since 8.4, Valkey since 8.1.
//!
//! The change is computed here as `touch.lua` and `update.lua` compute it. Whatever needs more than that is left to them: an
//! expired session, one near the end of its maximum lifetime, another user, or an index that must be kept for longer.

use smallvec::SmallVec;

use super::super::resp::{Request, number};
use super::super::time::{Stamp, Times};
use super::commands::{Change, created_field, expires_field};
use super::names::UserField;
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
    pub fn touch(known: &'a [u8], expires: Expiry, enough: Option<Millis>, times: &Times) -> Option<Self> {
        let (old, _) = moved(known, expires, times)?;
        // With a maximum lifetime, its end may be enough too.
        if enough.is_some_and(|enough| old.millis() >= enough || times.lifetime.is_limited()) {
            return None;
        }
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
