//! What the calls on one session say to a server.

use smallvec::SmallVec;

use super::core::Times;
use super::record::{self, Record, Stamp};
use super::resp::{Request, TOUCH, UPDATE, number};
use super::vault::{Draft, Names, UserName, Vault, whole};
use crate::clock::Millis;
use crate::error::Result;
use crate::session::Expiry;

/// An entry of an index.
pub(super) struct Entry<'a> {
    pub index: &'a [u8],
    pub member: &'a [u8],
    pub created: Stamp,
}

impl Entry<'_> {
    /// Adds it, and asks how many the index has then where that counts.
    pub(super) fn enter(&self, request: Request, counts: bool) -> Request {
        let score = number(self.created as i64);
        // A score never falls: what is older may be removed as a leftover.
        let request = request.command(&[b"ZADD", self.index, b"GT", &score, self.member]);
        if counts { request.command(&[b"ZCARD", self.index]) } else { request }
    }
}

/// A session that is to be created.
pub(super) struct Creation {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub until: SmallVec<[u8; 20]>,
    pub member: Vec<u8>,
    pub user: UserName,
    /// That of the user, if there is one.
    pub index: Vec<u8>,
    pub created: Stamp,
}

impl Creation {
    /// # Errors
    /// As for [`Vault::tail`].
    pub(super) fn new(
        draft: &Draft,
        created: Stamp,
        vault: &Vault,
        names: &Names,
        times: &Times,
    ) -> Result<Self> {
        let member = vault.member(&draft.id);
        let user = vault.user(draft.user());
        let value = whole(draft.expires, created, &vault.tail(draft, &member, &user)?);
        let index = if user.is_nobody() { Vec::new() } else { user.index(names) };
        let until = number(times.server_time(draft.expires));
        Ok(Self { key: names.session(&member), value, until, member, user, index, created })
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry { index: &self.index, member: &self.member, created: self.created }
    }

    pub(super) fn set(&self, request: Request) -> Request {
        request.command(&[b"SET", &self.key, &self.value, b"NX", b"PXAT", &self.until])
    }
}

/// What a session is to be replaced with.
pub(super) struct Change {
    pub key: Vec<u8>,
    head: Vec<u8>,
    tail: Vec<u8>,
    until: SmallVec<[u8; 20]>,
}

impl Change {
    /// # Errors
    /// As for [`Vault::tail`].
    pub(super) fn new(
        draft: &Draft,
        key: Vec<u8>,
        member: &[u8],
        user: &UserName,
        vault: &Vault,
        times: &Times,
    ) -> Result<Self> {
        let mut head = Vec::with_capacity(record::CREATED_AT);
        record::write_head(draft.expires, &mut head);
        let until = number(times.server_time(draft.expires));
        Ok(Self { key, head, tail: vault.tail(draft, member, user)?, until })
    }

    /// Replaces the session if it is of this user, and of this creation, where one is given.
    pub(super) fn replace(
        &self,
        request: Request,
        user: &UserName,
        created: Option<Stamp>,
        times: &Times,
    ) -> Request {
        let (now, user) = (number(times.now()), user.to_match());
        let created = created.map(created_field);
        let all: [&[u8]; 5] = [&now, &self.head, &self.tail, &user, &self.until];
        let mut args: SmallVec<[&[u8]; 6]> = SmallVec::from_slice(&all);
        args.extend(created.as_deref());
        request.script(&UPDATE, &self.key, &args)
    }
}

/// Moves the expiry of a session, unless it is at `enough` already or after it.
pub(super) fn touch(
    request: Request,
    key: &[u8],
    expires: Expiry,
    enough: Option<Millis>,
    times: &Times,
) -> Request {
    let (now, until) = (number(times.now()), number(times.server_time(expires)));
    let mut field = Vec::with_capacity(record::EXPIRES_LEN);
    record::write_expires(expires, &mut field);
    let enough = enough.map(number);
    let all: [&[u8]; 3] = [&now, &field, &until];
    let mut args: SmallVec<[&[u8]; 4]> = SmallVec::from_slice(&all);
    args.extend(enough.as_deref());
    request.script(&TOUCH, key, &args)
}

/// The entry that a session has left behind.
pub(super) struct Left {
    index: Vec<u8>,
    member: Vec<u8>,
    created: Stamp,
}

impl Left {
    /// That of a session of which this was the value, unless it had none.
    pub(super) fn by(member: Vec<u8>, value: &[u8], names: &Names) -> Option<Self> {
        // What is no record has no entry.
        let record = Record::parse(value).ok()?;
        let user = UserName { json: record.user.to_vec() };
        (!user.is_nobody()).then(|| Self { index: user.index(names), member, created: record.created })
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry { index: &self.index, member: &self.member, created: self.created }
    }
}

pub(super) fn created_field(created: Stamp) -> Vec<u8> {
    let mut field = Vec::with_capacity(record::CREATED_LEN);
    record::write_created(created, &mut field);
    field
}
