//! The requests of calls on one session.

use std::num::NonZeroUsize;

use smallvec::SmallVec;

use super::super::resp::{
    CREATE, CREATE_WITHIN_LIMIT, ENTER, Request, TOUCH, UPDATE, UPDATE_WITHIN_LIMIT, number,
};
use super::super::time::{Stamp, Times};
use super::cipher::Cipher;
use super::names::{Names, UserField};
use super::new_session::NewSession;
use super::record::{self, Record};
use crate::clock::Millis;
use crate::error::Result;
use crate::session::Expiry;
use crate::store::UserLimit;

/// An entry of a user index. Its score is its version.
pub struct Entry<'a> {
    pub index: &'a [u8],
    pub member: &'a [u8],
    pub version: Stamp,
}

/// What to do if the entry exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingEntry {
    /// Leave it unchanged, and report that.
    Keep,
    /// Give it a new version.
    Renew,
}

impl Entry<'_> {
    /// Adds the entry, and keeps the index at least until `until`.
    pub fn enter(&self, request: Request, until: Millis, existing: ExistingEntry) -> Request {
        let (version, until) = (number(self.version as i64), number(until));
        let args: [&[u8]; 4] = [self.member, &version, &until, b"again"];
        request.script(&ENTER, self.index, if existing == ExistingEntry::Renew { &args } else { &args[..3] })
    }
}

/// A session to create.
pub struct Creation {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub until: SmallVec<[u8; 20]>,
    pub member: Vec<u8>,
    pub user: UserField,
    /// The key of the user's index. Empty if the session has no user.
    pub index: Vec<u8>,
    /// The least time until which the index must be kept.
    pub index_end: Millis,
    pub expires: Expiry,
    pub created: Stamp,
    /// The version of the entry. It equals `created`, unless the session was created in another store.
    pub version: Stamp,
}

impl Creation {
    /// # Errors
    /// As for [`Cipher::tail`].
    pub fn new(
        session: &NewSession,
        stamp: Stamp,
        cipher: &Cipher,
        names: &Names,
        times: &Times,
    ) -> Result<Self> {
        let created = session.created_at.map_or(stamp, |created_at| times.stamp_at(created_at, stamp));
        let expires = times.end(session.expires, created);
        let member = cipher.member(&session.id);
        let user = cipher.user(session.user());
        let value = whole(expires, created, &cipher.tail(session, &member, &user)?);
        let index = if user.is_nobody() { Vec::new() } else { user.index(names) };
        let until = number(times.server_time(expires));
        let index_end = times.index_end(created, expires);
        let (key, version) = (names.session(&member), stamp);
        Ok(Self { key, value, until, member, user, index, index_end, expires, created, version })
    }

    pub fn entry(&self) -> Entry<'_> {
        Entry { index: &self.index, member: &self.member, version: self.version }
    }

    /// Creates the session if the server has none with its id, together with its entry. The entry must never have had
    /// this `version`. `counts` asks for the number of entries in the index.
    pub fn transaction(&self, request: Request, version: Stamp, counts: bool) -> Request {
        if self.user.is_nobody() {
            return self.set(request);
        }
        let (version, end) = (number(version as i64), number(self.index_end));
        // Prolongs an existing index, or sets the end of a new one. In this order the end is never too early.
        let mut request = request
            .command(&[b"MULTI"])
            .command(&[b"PEXPIREAT", &self.index, &end, b"GT"])
            .command(&[b"ZADD", &self.index, &version, &self.member])
            .command(&[b"PEXPIREAT", &self.index, &end, b"NX"]);
        request = self.set(request);
        if counts {
            request = request.command(&[b"ZCARD", &self.index]);
        }
        request.command(&[b"EXEC"])
    }

    /// Creates the session unless a live one has its id. `entry` is the version of its entry, if the server also has
    /// the index. `may_be_stored`: an earlier attempt may have stored this session, which its stamp identifies.
    pub fn script(
        &self,
        request: Request,
        entry: Option<Stamp>,
        limit: UserLimit,
        may_be_stored: bool,
        times: &Times,
    ) -> Request {
        let now = times.now();
        // An expired session needs no room.
        let room = limit.rejects_beyond().filter(|_| !self.expires.is_past(now));
        let now = number(now);
        // Only a repeated creation may find itself, because two processes may produce the same stamp.
        let created = if may_be_stored { created_field(self.created) } else { Vec::new() };
        let (version, end) = (number(entry.unwrap_or(0) as i64), number(self.index_end));
        let args: [&[u8]; 8] =
            [&now, &self.value, &self.until, &created, &self.member, &version, &end, b"count"];
        if entry.is_none() || self.user.is_nobody() {
            return request.script(&CREATE, &self.key, &args[..4]);
        }
        let keys: [&[u8]; 2] = [&self.key, &self.index];
        if let Some(max) = room {
            let sessions = &self.key[..self.key.len() - self.member.len()];
            let room = limit_args(max, &self.user, times);
            let args = [&args[..], &[&room.max, sessions, &room.user, &room.lifetime]].concat();
            return request.script_on(&CREATE_WITHIN_LIMIT, &keys, &args);
        }
        request.script_on(&CREATE, &keys, if limit.max.is_some() { &args } else { &args[..7] })
    }

    /// Whether the creation needs the script even if the server supports transactions.
    pub fn needs_script(&self, limit: UserLimit) -> bool {
        !self.user.is_nobody() && limit.rejects_beyond().is_some()
    }

    pub fn set(&self, request: Request) -> Request {
        request.command(&[b"SET", &self.key, &self.value, b"NX", b"PXAT", &self.until])
    }
}

/// The new content of a session.
pub struct Change {
    pub key: Vec<u8>,
    head: Vec<u8>,
    tail: Vec<u8>,
    until: SmallVec<[u8; 20]>,
}

impl Change {
    /// # Errors
    /// As for [`Cipher::tail`].
    pub fn new(
        session: &NewSession,
        key: Vec<u8>,
        member: &[u8],
        user: &UserField,
        cipher: &Cipher,
        times: &Times,
    ) -> Result<Self> {
        let mut head = Vec::with_capacity(record::CREATED_AT);
        record::write_head(session.expires, &mut head);
        let until = number(times.server_time(session.expires));
        Ok(Self { key, head, tail: cipher.tail(session, member, user)?, until })
    }

    /// The value that the session gets. `created` is its creation as the record contains it.
    pub fn value(&self, created: &[u8]) -> Vec<u8> {
        [&self.head, created, &self.tail].concat()
    }

    /// Replaces the session if it has this user. With `created`, it must also be of that creation, and the caller has
    /// prolonged the user's index.
    pub fn replace(
        &self,
        request: Request,
        user: &UserField,
        created: Option<Stamp>,
        times: &Times,
    ) -> Request {
        let (now, user) = (number(times.now()), user.to_match());
        let (created, lifetime) = (created.map(created_field), times.lifetime_of_stamp().map(number));
        let all: [&[u8]; 5] = [&now, &self.head, &self.tail, &user, &self.until];
        let mut args: SmallVec<[&[u8]; 7]> = SmallVec::from_slice(&all);
        push_optional(&mut args, [created.as_deref(), lifetime.as_deref()]);
        request.script(&UPDATE, &self.key, &args)
    }

    /// Replaces a session of this user and creation by one of another user, unless that user has no room for it. The
    /// server also holds the other user's index, which contains the entry.
    pub fn reassign(
        &self,
        request: Request,
        (user, created): (&UserField, Stamp),
        (new_user, entry): (&UserField, &Entry<'_>),
        max: NonZeroUsize,
        times: &Times,
    ) -> Request {
        let (now, user, created) = (number(times.now()), user.to_match(), created_field(created));
        let (version, room) = (number(entry.version as i64), limit_args(max, new_user, times));
        let sessions = &self.key[..self.key.len() - entry.member.len()];
        let args: [&[u8]; 13] = [
            &now,
            &self.head,
            &self.tail,
            &user,
            &self.until,
            &created,
            &room.lifetime,
            entry.member,
            &version,
            &room.max,
            sessions,
            &room.user,
            &room.lifetime,
        ];
        request.script_on(&UPDATE_WITHIN_LIMIT, &[&self.key, entry.index], &args)
    }
}

/// The arguments of `room.lua`.
struct LimitArgs {
    max: SmallVec<[u8; 20]>,
    user: Vec<u8>,
    lifetime: SmallVec<[u8; 20]>,
}

fn limit_args(max: NonZeroUsize, user: &UserField, times: &Times) -> LimitArgs {
    // A limit above 2^53 is no limit in practice, and Lua could not represent it exactly.
    let max = number(i64::try_from(max.get()).unwrap_or(i64::MAX));
    let lifetime = times.lifetime_of_stamp().map(number).unwrap_or_default();
    LimitArgs { max, user: user.to_match(), lifetime }
}

/// Reads a session.
pub fn get_request(request: Request, key: &[u8]) -> Request {
    request.command(&[b"GET", key])
}

/// Deletes a session and returns its value, which names the user whose index contains it.
pub fn delete_request(request: Request, key: &[u8]) -> Request {
    request.command(&[b"GETDEL", key])
}

/// Moves the expiry of a session, unless it is `enough` or later already. `prolonged` is the creation and user, as
/// [`record::owner`] returns them, whose index was prolonged.
pub fn touch_request(
    request: Request,
    key: &[u8],
    expires: Expiry,
    enough: Option<Millis>,
    prolonged: Option<&[u8]>,
    times: &Times,
) -> Request {
    let (now, until) = (number(times.now()), number(times.server_time(expires)));
    let field = expires_field(expires);
    let enough = enough.map(number).unwrap_or_default();
    let lifetime = times.lifetime_of_stamp().map(number);
    let all: [&[u8]; 4] = [&now, &field, &until, &enough];
    let mut args: SmallVec<[&[u8]; 6]> = SmallVec::from_slice(&all);
    push_optional(&mut args, [lifetime.as_deref(), prolonged]);
    request.script(&TOUCH, key, &args)
}

/// Appends optional arguments. A missing one before a given one is an empty string.
fn push_optional<'a, const MAX: usize>(args: &mut SmallVec<[&'a [u8]; MAX]>, last: [Option<&'a [u8]>; 2])
where
    [&'a [u8]; MAX]: smallvec::Array<Item = &'a [u8]>,
{
    let given = last.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
    args.extend(last.into_iter().take(given).map(Option::unwrap_or_default));
}

/// The entry of a deleted session. It can be removed if its version is still the session's creation.
pub struct StaleEntry {
    index: Vec<u8>,
    member: Vec<u8>,
    version: Stamp,
}

impl StaleEntry {
    /// The entry of the session with this value. `None` if the session has no user.
    pub fn of(member: Vec<u8>, value: &[u8], names: &Names) -> Option<Self> {
        // A value that is not a record has no entry.
        let record = Record::parse(value).ok()?;
        let user = UserField { json: record.user.to_vec() };
        (!user.is_nobody()).then(|| Self { index: user.index(names), member, version: record.created })
    }

    pub fn entry(&self) -> Entry<'_> {
        Entry { index: &self.index, member: &self.member, version: self.version }
    }
}

/// An expiry as a record contains it.
pub fn expires_field(expires: Expiry) -> Vec<u8> {
    let mut field = Vec::with_capacity(record::EXPIRES_LEN);
    record::write_expires(expires, &mut field);
    field
}

pub fn created_field(created: Stamp) -> Vec<u8> {
    let mut field = Vec::with_capacity(record::CREATED_LEN);
    record::write_created(created, &mut field);
    field
}

/// A whole record.
fn whole(expires: Expiry, created: Stamp, tail: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record::USER_AT + tail.len());
    record::write_head(expires, &mut bytes);
    record::write_created(created, &mut bytes);
    bytes.extend_from_slice(tail);
    bytes
}
