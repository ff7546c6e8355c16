//! The user index: the sessions of each user.
//!
//! An index is a sorted set of sessions. It names every live session of its user. It may also name sessions that have
//! ended or belong to another user now. Readers ignore those entries, because each session contains its user, and
//! remove them.
//!
//! The score of an entry is its version, in microseconds since the Unix epoch by the servers' clock. An entry never
//! gets the same version twice. These rules keep an entry as long as its session lives, in any race of processes:
//!
//! 1. An entry is removed only by its version (`FORGET`). The remover has read the version first. Then it has seen
//!    that the session is not the user's, or has ended it.
//! 2. A session becomes the user's only after its entry got a new version, or atomically with that on a single
//!    server. So either the remover of rule 1 has the new version, or it removes nothing.
//! 3. The remover may have the new version if it looked at the session between the two steps. So after a change of
//!    the user the entry gets yet another version (`ENTER`). To save a round trip, a creation in a cluster does not
//!    do that. Instead, no process removes an entry younger than `GRACE`, and a pending creation has completed by
//!    then. The one exception is the entry of a session that was just ended, if its version is that session's
//!    creation (`may_forget`). If two creations in a cluster have added the same entry, it gets a version that is
//!    neither's.
//!
//! The server expires an index. These rules keep an index longer than any session that it names:
//!
//! 4. Each session sets a least time for the end of its user's index (`Times::index_end`). It depends only on the
//!    session's creation and expiry. `ENTER` and creations only move the end of an index later, and they do so before
//!    the session is the user's.
//! 5. A touch or an update moves an expiry later only if that least time stays the same, or after the index was
//!    prolonged (`prolong`). The session's script decides that, because it sees the creation and both expiries. The
//!    index was prolonged for one creation and one user, so the script also compares these.
//!
//! If the server has evicted an index, `prolong` restores the lost entry: a session that lives on is added again once
//! an hour. That breaks no rule, because the session is the user's already, and the version of the new entry is the
//! current time.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::time::timeout_at;

use super::super::error::{self, unless_foreign};
use super::super::resp::{END_OF_USER, FORGET, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::cipher::Cipher;
use super::commands::{Entry, ExistingEntry, StaleEntry, created_field};
use super::context::Context;
use super::names::{UserField, hex};
use super::record::{self, AFTER_USER, Record};
use super::window::Window;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId, UserKey};
use crate::store::StoredSession;

/// For how long an entry without a session may belong to a pending call, by the servers' clock ([`is_old`]). On a
/// single server, a creation may lower the version of an entry by as much as its deadline. A change of the user that
/// has set the version may take as long again.
pub const GRACE: Duration = Duration::from_secs(120);

/// How many sessions are requested together.
pub const BATCH_SIZE: usize = 512;

/// The reply of `END_OF_USER` if the session has another user, or does not exist.
pub const NOT_OWNED: Reply = Reply::Number(0);

/// What an index entry refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    Live(Stamp),
    /// The session has expired, but still exists.
    Expired(Stamp),
    Absent,
    /// A session of another user, or a value that is not a record.
    Another,
}

pub async fn get_by_user(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    user: UserKey<'_>,
) -> Result<Vec<StoredSession>> {
    let user = cipher.user(Some(user));
    let index = user.index(&context.names);
    let entries = entries(context, attempt, &index).await?;
    let now = context.times.now();
    let (mut found, mut stale) = (Vec::new(), Vec::new());
    let (mut rest, mut window) = (&entries[..], Window::new());
    while let Some(batch) = window.take(&mut rest) {
        let mut bytes = 0;
        let keys = batch.iter().map(|(member, _)| context.names.session(member));
        let values = join_all(keys.map(async |key| {
            let get = |mode| Request::read(mode).command(&[b"GET", &key]);
            context.router.get_one(attempt, &key, Effect::None, get).await
        }));
        for ((member, score), value) in batch.iter().zip(values.await) {
            let value = unless_foreign(value, Reply::Nil)?;
            bytes += if let Reply::Bytes(value) = &value { value.len() } else { 0 };
            let record = match &value {
                Reply::Bytes(bytes) => Record::parse(bytes).ok(),
                _ => None,
            };
            let Some(record) = record.filter(|record| record.user == user.json) else {
                stale.push((member.clone(), *score));
                continue;
            };
            let expires = context.times.end(record.expires, record.created);
            let record = Record { expires, ..record };
            if !expires.is_past(now)
                && let Some(session) = cipher.decode(member, record)?
            {
                let created = context.times.created_at(record.created);
                found.push((record.created, session.with_creation(Some(created))));
            }
        }
        window.adapt(batch.len(), bytes);
    }
    remove_stale(context, attempt, &index, &stale).await;
    found.sort_by_key(|(created, _)| *created);
    Ok(found.into_iter().map(|(_, session)| session).collect())
}

/// Ends all sessions of a user but `except`. If some fail, the others end all the same.
pub async fn delete_by_user(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    user: UserKey<'_>,
    except: Option<&SessionId>,
) -> Result<u64> {
    let user = cipher.user(Some(user));
    let index = user.index(&context.names);
    let except = except.map(|id| cipher.member(id));
    let mut entries = entries(context, attempt, &index).await?;
    entries.retain(|(member, _)| Some(member) != except.as_ref());
    let (now, to_match) = (text(context.times.now()), user.to_match());
    let (mut live, mut failed) = (0, None);
    for batch in entries.chunks(BATCH_SIZE) {
        let ends = join_all(batch.iter().map(async |(member, _)| {
            let args: [&[u8]; 2] = [&now, &to_match];
            let key = context.names.session(member);
            let ended = context.router.run_script(attempt, Effect::Main, &END_OF_USER, &key, &args).await;
            if let Ok(Reply::Number(_)) = ended {
                attempt.changed_nothing();
            }
            unless_foreign(ended, NOT_OWNED)
        }));
        let (mut own, mut stale) = (Vec::new(), Vec::new());
        for (entry, end) in batch.iter().zip(ends.await) {
            match end {
                Ok(Reply::Bytes(created)) => {
                    let is_outlived = |created| context.times.is_outlived(created);
                    live += u64::from(!record::created_of(&created).is_some_and(is_outlived));
                    let is_own = created == created_field(entry.1);
                    if is_own { &mut own } else { &mut stale }.push(entry.clone());
                }
                Ok(_) => stale.push(entry.clone()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        forget_all(context, attempt, &index, &own).await;
        remove_stale(context, attempt, &index, &stale).await;
    }
    failed.map_or(Ok(live), Err)
}

/// Ends the oldest sessions of a user who is over the limit. Of two concurrent creations, neither ends the younger
/// session. A session that has just become the user's may end any other. If a full user gets no more sessions,
/// nothing ends, and only stale entries are removed.
pub async fn keep_limit(
    context: &Context,
    attempt: &Attempt,
    user: &UserField,
    member: &[u8],
    index_len: u64,
    created: Option<Stamp>,
    expires: Expiry,
) {
    let Some(max) = context.options.max_sessions_per_user else { return };
    if index_len <= max.get() as u64 || expires.is_past(context.times.now()) {
        return;
    }
    // The session is stored. If this fails or takes too long, the next creation does it.
    let ended = end_surplus(context, attempt, user, member, max.get(), created);
    let _ = timeout_at(attempt.deadline, ended).await;
}

/// Whether the user has no room for this session, because of other live sessions.
pub async fn is_full(
    context: &Context,
    attempt: &Attempt,
    user: &UserField,
    member: &[u8],
    max: NonZeroUsize,
) -> Result<bool> {
    let others = live_others(context, attempt, user, member, max.get()).await?;
    Ok(others.len() >= max.get())
}

async fn end_surplus(
    context: &Context,
    attempt: &Attempt,
    user: &UserField,
    member: &[u8],
    max: usize,
    created: Option<Stamp>,
) -> Result<()> {
    let index = user.index(&context.names);
    let mut others = live_others(context, attempt, user, member, max).await?;
    if context.options.user_limit().rejects_beyond().is_some() {
        return Ok(());
    }
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(max);
    let (now, to_match) = (text(context.times.now()), user.to_match());
    let older = others.into_iter().filter(|(theirs, _)| created.is_none_or(|ours| *theirs < ours));
    for (theirs, entry) in older.take(surplus) {
        let key = context.names.session(&entry.0);
        let args: [&[u8]; 3] = [&now, &to_match, &created_field(theirs)];
        let ended = context.router.run_script(attempt, Effect::None, &END_OF_USER, &key, &args).await;
        if let Reply::Bytes(_) = unless_foreign(ended, NOT_OWNED)? {
            context.counters.replaced();
            if may_forget(context, entry.1, theirs) {
                forget(context, attempt, &Entry { index: &index, member: &entry.0, version: entry.1 }).await;
            }
        }
    }
    Ok(())
}

/// The other live sessions of a user, if the index names more than `max`: their creations and entries. Removes stale
/// entries.
async fn live_others(
    context: &Context,
    attempt: &Attempt,
    user: &UserField,
    member: &[u8],
    max: usize,
) -> Result<Vec<(Stamp, (Vec<u8>, Stamp))>> {
    let index = user.index(&context.names);
    let entries = entries(context, attempt, &index).await?;
    let (mut others, mut stale) = (Vec::new(), Vec::new());
    if entries.len() <= max {
        return Ok(others);
    }
    for batch in entries.chunks(BATCH_SIZE) {
        for (entry, named) in batch.iter().zip(look_up(context, attempt, batch, &Owner::Is(user)).await?) {
            match named {
                EntryState::Live(created) if entry.0 != member => others.push((created, entry.clone())),
                EntryState::Live(_) | EntryState::Expired(_) => {}
                EntryState::Absent | EntryState::Another => stale.push(entry.clone()),
            }
        }
    }
    remove_stale(context, attempt, &index, &stale).await;
    Ok(others)
}

/// The entries of an index, with their versions.
pub async fn entries(context: &Context, attempt: &Attempt, index: &[u8]) -> Result<Vec<(Vec<u8>, Stamp)>> {
    some_entries(context, attempt, index, 0, -1).await
}

pub async fn some_entries(
    context: &Context,
    attempt: &Attempt,
    index: &[u8],
    first: i64,
    last: i64,
) -> Result<Vec<(Vec<u8>, Stamp)>> {
    let (first, last) = (text(first), text(last));
    let make = |mode| Request::read(mode).command(&[b"ZRANGE", index, &first, &last, b"WITHSCORES"]);
    context.router.get_one(attempt, index, Effect::None, make).await.and_then(entries_of)
}

/// Parses a reply that lists entries with their scores.
pub fn entries_of(reply: Reply) -> Result<Vec<(Vec<u8>, Stamp)>> {
    let Reply::Array(values) = reply else { return Err(error::unexpected()) };
    let mut entries = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(Reply::Bytes(member)), Some(Reply::Bytes(score))) = (values.next(), values.next()) {
        entries.push((member, parse_version(&score)));
    }
    Ok(entries)
}

/// Looks up what entries refer to. Reads no more of each session than that takes.
pub async fn look_up(
    context: &Context,
    attempt: &Attempt,
    entries: &[(Vec<u8>, Stamp)],
    owner: &Owner<'_>,
) -> Result<Vec<EntryState>> {
    let now = context.times.now();
    let last = text(owner.last_byte());
    let found = join_all(entries.iter().map(async |(member, _)| {
        let key = context.names.session(member);
        let make = |mode| Request::read(mode).command(&[b"GETRANGE", &key, b"0", &last]);
        let reply = context.router.ask(attempt, &key, Effect::None, make).await?;
        Ok(match reply.first() {
            Some(Reply::Bytes(bytes)) if bytes.is_empty() => EntryState::Absent,
            Some(Reply::Bytes(bytes)) => match record::end(bytes, &context.times) {
                Err(_) => EntryState::Another,
                Ok(_) if !owner.owns(bytes) => EntryState::Another,
                Ok((expires, created)) if expires.is_past(now) => EntryState::Expired(created),
                Ok((_, created)) => EntryState::Live(created),
            },
            Some(reply) => unless_foreign(error::check(reply), ()).map(|()| EntryState::Another)?,
            None => EntryState::Another,
        })
    }));
    found.await.into_iter().collect()
}

/// Removes stale entries that are old enough. Returns how many.
pub async fn remove_stale(
    context: &Context,
    attempt: &Attempt,
    index: &[u8],
    stale: &[(Vec<u8>, Stamp)],
) -> u64 {
    let old: Vec<_> = stale.iter().filter(|(_, version)| is_old(context, *version)).cloned().collect();
    forget_all(context, attempt, index, &old).await
}

/// Whether an entry is too old to belong to a pending creation.
pub fn is_old(context: &Context, version: Stamp) -> bool {
    version < context.times.stamp_before(GRACE)
}

/// Whether the entry of an ended session may be removed.
pub fn may_forget(context: &Context, version: Stamp, created: Stamp) -> bool {
    version == created || is_old(context, version)
}

/// Removes entries, and returns how many. If that fails, a later reader finds and removes them.
pub async fn forget_all(
    context: &Context,
    attempt: &Attempt,
    index: &[u8],
    entries: &[(Vec<u8>, Stamp)],
) -> u64 {
    let mut forgotten = 0;
    for batch in entries.chunks(BATCH_SIZE) {
        let scores: Vec<_> = batch.iter().map(|(_, score)| text(*score as i64)).collect();
        let args: Vec<&[u8]> =
            batch.iter().zip(&scores).flat_map(|((member, _), score)| [&member[..], &score[..]]).collect();
        match context.router.run_script(attempt, Effect::None, &FORGET, index, &args).await {
            Ok(Reply::Number(number)) => forgotten += u64::try_from(number).unwrap_or(0),
            _ => return forgotten,
        }
    }
    forgotten
}

/// Adds an entry, and keeps the index at least until `until`. Returns how many entries the index has.
pub async fn enter(
    context: &Context,
    attempt: &Attempt,
    entry: &Entry<'_>,
    until: Millis,
    existing: ExistingEntry,
) -> Result<u64> {
    let make = |mode| entry.enter(Request::write(mode), until, existing);
    match context.router.get_one(attempt, entry.index, Effect::None, make).await? {
        Reply::Number(entries) => Ok(entries.unsigned_abs()),
        _ => Err(error::unexpected()),
    }
}

/// Keeps the index of a session's user at least until `until`. If the index has lost the session's entry, adds it
/// again.
pub async fn prolong(
    context: &Context,
    attempt: &Attempt,
    user: &UserField,
    member: &[u8],
    until: Millis,
) -> Result<()> {
    if user.is_nobody() {
        return Ok(());
    }
    let index = user.index(&context.names);
    let entry = Entry { index: &index, member, version: context.times.stamp() };
    match enter(context, attempt, &entry, until, ExistingEntry::Keep).await {
        // Either the index is kept long enough, or it is lost and there is no memory for a new one.
        Err(StoreError::Full(_)) => Ok(()),
        // A value of another type belongs to another app.
        outcome => unless_foreign(outcome.map(drop), ()),
    }
}

/// The version of an entry. `None` if there is no entry.
pub async fn version(
    context: &Context,
    attempt: &Attempt,
    index: &[u8],
    member: &[u8],
) -> Result<Option<Stamp>> {
    let make = |mode| Request::read(mode).command(&[b"ZSCORE", index, member]);
    match context.router.get_one(attempt, index, Effect::None, make).await? {
        Reply::Nil => Ok(None),
        Reply::Bytes(score) => Ok(Some(parse_version(&score))),
        _ => Err(error::unexpected()),
    }
}

/// A score that is not a version counts as the oldest.
fn parse_version(score: &[u8]) -> Stamp {
    let score = std::str::from_utf8(score).ok().and_then(|score| score.parse::<f64>().ok());
    score.unwrap_or(0.0) as Stamp
}

/// Removes the entry of a refused session, unless the live session with its id has the same user.
pub async fn undo_entry(
    context: &Context,
    attempt: &Attempt,
    entry: &Entry<'_>,
    user: &UserField,
    live: &[u8],
) {
    let is_theirs = Record::parse(live).is_ok_and(|live| live.user == user.json);
    if !user.is_nobody() && !is_theirs {
        forget(context, attempt, entry).await;
    }
}

/// Removes an entry. If that fails, readers ignore the entry until one of them removes it.
pub async fn forget(context: &Context, attempt: &Attempt, entry: &Entry<'_>) {
    let version = text(entry.version as i64);
    let args: [&[u8]; 2] = [entry.member, &version];
    let _ = context.router.run_script(attempt, Effect::None, &FORGET, entry.index, &args).await;
}

/// Removes an entry in the background.
pub fn forget_later(context: &Rc<Context>, left: StaleEntry) {
    let owned = Rc::clone(context);
    context.tasks.spawn(async move {
        let forgotten = owned.router.step(async |attempt| {
            forget(&owned, attempt, &left.entry()).await;
            Ok(())
        });
        // If this fails, a later reader removes the entry.
        let _ = forgotten.await;
    });
}

/// The user of an index.
pub enum Owner<'a> {
    Is(&'a UserField),
    /// The user's JSON, from the index's key.
    Text(Vec<u8>),
    /// The hash of the user, as hex.
    Hash(Vec<u8>),
}

impl Owner<'_> {
    pub fn of(index: &[u8], users: &[u8]) -> Option<Self> {
        let name = index.strip_prefix(users)?;
        Some(match name.strip_prefix(b"sha256:") {
            Some(hash) => Self::Hash(hash.to_vec()),
            None => Self::Text(name.to_vec()),
        })
    }

    fn json(&self) -> Option<&[u8]> {
        match self {
            Self::Is(user) => Some(&user.json),
            Self::Text(json) => Some(json),
            Self::Hash(_) => None,
        }
    }

    /// The last byte of a record that is needed for the comparison.
    fn last_byte(&self) -> i64 {
        match self.json() {
            Some(json) => (record::USER_AT + json.len() + AFTER_USER.len()) as i64 - 1,
            None => -1,
        }
    }

    fn owns(&self, record: &[u8]) -> bool {
        match self {
            Self::Is(UserField { json }) | Self::Text(json) => record
                .get(record::USER_AT..)
                .and_then(|rest| rest.strip_prefix(&json[..]))
                .is_some_and(|rest| rest.starts_with(AFTER_USER)),
            Self::Hash(hash) => {
                Record::parse(record).is_ok_and(|record| hex(&Sha256::digest(record.user)) == *hash)
            }
        }
    }
}
