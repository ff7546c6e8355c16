//! The sessions of a user, and the care of the indexes that name them.
//!
//! An index is a sorted set of sessions by their creation. It names every live session of its user, as its entry is
//! made first; and it may name others, which have ended or are another user's now. Those are passed over, as each
//! session says itself whose it is, and removed when they are come across: only if nothing has changed their score, and
//! not before they are old enough to be no part of a creation under way.

use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::commands::{Entry, created_field};
use super::core::{Call, Core, Counters, Kind};
use super::errors::{self, number};
use super::record::{self, AFTER_USER, Record, Stamp};
use super::resp::{END_EXPIRED, END_OF_USER, FORGET, Reply, Request, number as text};
use super::vault::{UserName, hex};
use super::walks::Walk;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId, UserKey};
use crate::store::{StoredSession, Sweep};

/// For how long an entry without a session may be that of a creation under way.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// How many sessions are asked for at once.
pub(super) const AT_ONCE: usize = 512;

/// As `END_OF_USER` has it of a session that is another user's, or none.
const NOT_THEIRS: Reply = Reply::Number(0);

/// What is of another type than the store's is somebody else's, and is not to keep a call from all the others.
pub(super) fn unless_foreign<T>(outcome: Result<T>, otherwise: T) -> Result<T> {
    match outcome {
        Err(StoreError::Corrupt(_)) => Ok(otherwise),
        outcome => outcome,
    }
}

/// What a session's record says to an index that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Live(Stamp),
    /// It is still there, but over.
    Expired,
    Absent,
    /// Of another user now, or no record.
    Another,
}

impl Core {
    pub(super) async fn get_by_user(&self, call: &Call, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let vault = self.vault(call).await?;
        let user = vault.user(Some(user));
        let index = user.index(&self.names);
        let entries = self.entries(call, &index).await?;
        let now = self.times.now();
        let (mut found, mut stale) = (Vec::new(), Vec::new());
        for some in entries.chunks(AT_ONCE) {
            let keys = some.iter().map(|(member, _)| self.names.session(member));
            let values = join_all(keys.map(async |key| {
                let get = |mode| Request::read(mode).command(&[b"GET", &key]);
                self.get_one(call, &key, Kind::Aside, get).await
            }));
            for ((member, score), value) in some.iter().zip(values.await) {
                let value = unless_foreign(value, Reply::Nil)?;
                let record = match &value {
                    Reply::Bytes(bytes) => Record::parse(bytes).ok(),
                    _ => None,
                };
                let Some(record) = record.filter(|record| record.user == user.json) else {
                    stale.push((member.clone(), *score));
                    continue;
                };
                if !record.expires.is_past(now)
                    && let Some(session) = vault.open(member, record)?
                {
                    found.push((record.created, session));
                }
            }
        }
        self.tidy(call, &index, &stale).await;
        found.sort_by_key(|(created, _)| *created);
        Ok(found.into_iter().map(|(_, session)| session).collect())
    }

    /// Ends a user's sessions, save one; all that can be, if some cannot.
    pub(super) async fn delete_by_user(
        &self,
        call: &Call,
        user: UserKey<'_>,
        except: Option<&SessionId>,
    ) -> Result<u64> {
        let vault = self.vault(call).await?;
        let user = vault.user(Some(user));
        let index = user.index(&self.names);
        let except = except.map(|id| vault.member(id));
        let mut entries = self.entries(call, &index).await?;
        entries.retain(|(member, _)| Some(member) != except.as_ref());
        let (now, to_match) = (text(self.times.now()), user.to_match());
        let (mut live, mut failed) = (0, None);
        for some in entries.chunks(AT_ONCE) {
            let ends = join_all(some.iter().map(async |(member, _)| {
                let args: [&[u8]; 2] = [&now, &to_match];
                let key = self.names.session(member);
                let ended = self.run_script(call, Kind::Repeatable, &END_OF_USER, &key, &args).await;
                number(&unless_foreign(ended, NOT_THEIRS)?)
            }));
            let (mut ended, mut stale) = (Vec::new(), Vec::new());
            for (entry, end) in some.iter().zip(ends.await) {
                match end {
                    Ok(1) => {
                        live += 1;
                        ended.push(entry.clone());
                    }
                    Ok(2) => ended.push(entry.clone()),
                    Ok(_) => stale.push(entry.clone()),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            self.forget_all(call, &index, &ended).await;
            self.tidy(call, &index, &stale).await;
        }
        match failed {
            None => Ok(live),
            Some(error) => Err(call.in_part(error)),
        }
    }

    /// Ends the oldest sessions of a user who has more than the limit. Of two creations at once neither ends the younger
    /// one; a session that changed its user ends any but itself.
    pub(super) async fn limit(
        &self,
        call: &Call,
        user: &UserName,
        member: &[u8],
        held: u64,
        created: Option<Stamp>,
        expires: Expiry,
    ) {
        let Some(max) = self.options.max_sessions_per_user else { return };
        if held <= max.get() as u64 || expires.is_past(self.times.now()) {
            return;
        }
        // The session is stored; should this fail, the next creation sees to it.
        let _ = self.end_surplus(call, user, member, max.get(), created).await;
    }

    async fn end_surplus(
        &self,
        call: &Call,
        user: &UserName,
        member: &[u8],
        max: usize,
        created: Option<Stamp>,
    ) -> Result<()> {
        let index = user.index(&self.names);
        let entries = self.entries(call, &index).await?;
        let (mut others, mut stale) = (Vec::new(), Vec::new());
        for some in entries.chunks(AT_ONCE) {
            for (entry, named) in some.iter().zip(self.look_up(call, some, &Owner::Is(user)).await?) {
                match named {
                    Named::Live(created) if entry.0 != member => others.push((created, entry.clone())),
                    Named::Live(_) | Named::Expired => {}
                    Named::Absent | Named::Another => stale.push(entry.clone()),
                }
            }
        }
        self.tidy(call, &index, &stale).await;
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(max);
        let (now, to_match) = (text(self.times.now()), user.to_match());
        let older = others.into_iter().filter(|(theirs, _)| created.is_none_or(|ours| *theirs < ours));
        for (theirs, entry) in older.take(surplus) {
            let key = self.names.session(&entry.0);
            let args: [&[u8]; 3] = [&now, &to_match, &created_field(theirs)];
            let ended = self.run_script(call, Kind::Aside, &END_OF_USER, &key, &args).await;
            if unless_foreign(ended, NOT_THEIRS)? == Reply::Number(1) {
                Counters::add(&self.shared.counters.evicted, 1);
                self.forget(call, &Entry { index: &index, member: &entry.0, created: entry.1 }).await;
            }
        }
        Ok(())
    }

    /// The entries of an index, the oldest first.
    async fn entries(&self, call: &Call, index: &[u8]) -> Result<Vec<(Vec<u8>, Stamp)>> {
        self.some_entries(call, index, 0, -1).await
    }

    async fn some_entries(
        &self,
        call: &Call,
        index: &[u8],
        first: i64,
        last: i64,
    ) -> Result<Vec<(Vec<u8>, Stamp)>> {
        let (first, last) = (text(first), text(last));
        let make = |mode| Request::read(mode).command(&[b"ZRANGE", index, &first, &last, b"WITHSCORES"]);
        let Reply::Array(values) = self.get_one(call, index, Kind::Aside, make).await? else {
            return Err(errors::unexpected());
        };
        let mut entries = Vec::with_capacity(values.len() / 2);
        let mut values = values.into_iter();
        while let (Some(Reply::Bytes(member)), Some(Reply::Bytes(score))) = (values.next(), values.next()) {
            // A score that is none of ours is as old as can be.
            let score = std::str::from_utf8(&score).ok().and_then(|score| score.parse::<f64>().ok());
            entries.push((member, score.unwrap_or(0.0) as Stamp));
        }
        Ok(entries)
    }

    /// What the sessions of some entries are, without reading more of them than that takes.
    async fn look_up(
        &self,
        call: &Call,
        entries: &[(Vec<u8>, Stamp)],
        owner: &Owner<'_>,
    ) -> Result<Vec<Named>> {
        let now = self.times.now();
        let last = text(owner.last_byte());
        let found = join_all(entries.iter().map(async |(member, _)| {
            let key = self.names.session(member);
            let make = |mode| Request::read(mode).command(&[b"GETRANGE", &key, b"0", &last]);
            let reply = self.ask(call, &key, Kind::Aside, make).await?;
            Ok(match reply.first() {
                Some(Reply::Bytes(bytes)) if bytes.is_empty() => Named::Absent,
                Some(Reply::Bytes(bytes)) => match record::times(bytes) {
                    Err(_) => Named::Another,
                    Ok(_) if !owner.owns(bytes) => Named::Another,
                    Ok((expires, _)) if expires.is_past(now) => Named::Expired,
                    Ok((_, created)) => Named::Live(created),
                },
                Some(reply) => unless_foreign(errors::check(reply), ()).map(|()| Named::Another)?,
                None => Named::Another,
            })
        }));
        found.await.into_iter().collect()
    }

    /// Removes entries whose sessions are not there, if they are old enough; how many.
    async fn tidy(&self, call: &Call, index: &[u8], stale: &[(Vec<u8>, Stamp)]) -> u64 {
        let oldest = self.oldest_of_creations_under_way();
        let old: Vec<_> = stale.iter().filter(|(_, score)| *score < oldest).cloned().collect();
        self.forget_all(call, index, &old).await
    }

    /// A creation that is under way has no older entry.
    pub(super) fn oldest_of_creations_under_way(&self) -> Stamp {
        (self.times.now().max(0) as Stamp * 1000).saturating_sub(GRACE.as_micros() as Stamp)
    }

    /// Removes entries; how many. Those that it fails to remove are come across again.
    async fn forget_all(&self, call: &Call, index: &[u8], entries: &[(Vec<u8>, Stamp)]) -> u64 {
        let mut forgotten = 0;
        for some in entries.chunks(AT_ONCE) {
            let scores: Vec<_> = some.iter().map(|(_, score)| text(*score as i64)).collect();
            let args: Vec<&[u8]> =
                some.iter().zip(&scores).flat_map(|((member, _), score)| [&member[..], &score[..]]).collect();
            match self.run_script(call, Kind::Aside, &FORGET, index, &args).await {
                Ok(Reply::Number(number)) => forgotten += u64::try_from(number).unwrap_or(0),
                _ => return forgotten,
            }
        }
        forgotten
    }

    /// Goes through all indexes and removes what they name in vain; how many sessions have expired, as far as that
    /// shows: the server ends those itself, and what it leaves behind are their entries.
    pub(super) async fn clean(&self) -> Result<u64> {
        let (at, begun) = (self.times.now(), Instant::now());
        self.step(async |call| self.keep_seal(call).await).await?;
        let mut removed = 0;
        let mut walk = Walk::new(&self.names.users);
        while let Some(indexes) = self.step(async |call| self.walk_on(call, &mut walk).await).await? {
            for index in indexes {
                removed += self.clean_index(&index).await?;
            }
        }
        if self.times.kept_for.is_some() {
            removed += self.end_expired().await?;
        }
        Counters::add(&self.shared.counters.expired, removed);
        let duration = begun.elapsed().as_millis() as i64;
        *self.shared.counters.last_sweep.lock() = Some(Sweep { at, duration, removed });
        Ok(removed)
    }

    async fn clean_index(&self, index: &[u8]) -> Result<u64> {
        let Some(owner) = Owner::of(index, &self.names.users) else { return Ok(0) };
        let (mut first, mut removed) = (0, 0);
        loop {
            let (entries, gone) = self
                .step(async |call| {
                    let last = first + AT_ONCE as i64 - 1;
                    let entries = self.some_entries(call, index, first, last).await;
                    let entries = unless_foreign(entries, Vec::new())?;
                    let named = self.look_up(call, &entries, &owner).await?;
                    let (mut expired, mut absent, mut others) = (Vec::new(), Vec::new(), Vec::new());
                    for (entry, named) in entries.iter().zip(named) {
                        match named {
                            Named::Live(_) => {}
                            Named::Expired => expired.push(entry.clone()),
                            Named::Absent => absent.push(entry.clone()),
                            Named::Another => others.push(entry.clone()),
                        }
                    }
                    let ended = self.end_each(call, &expired).await?;
                    removed += ended.len() as u64;
                    let mut gone = self.forget_all(call, index, &ended).await;
                    let forgotten = self.tidy(call, index, &absent).await;
                    removed += forgotten;
                    gone += forgotten + self.tidy(call, index, &others).await;
                    Ok((entries.len(), gone))
                })
                .await?;
            if entries < AT_ONCE {
                return Ok(removed);
            }
            first += entries as i64 - gone as i64;
        }
    }

    /// Removes those of some entries' sessions that are expired by now, and tells which.
    async fn end_each(&self, call: &Call, entries: &[(Vec<u8>, Stamp)]) -> Result<Vec<(Vec<u8>, Stamp)>> {
        let now = text(self.times.now());
        let ends = join_all(entries.iter().map(async |(member, _)| {
            let key = self.names.session(member);
            self.run_script(call, Kind::Aside, &END_EXPIRED, &key, &[&now]).await
        }));
        let mut ended = Vec::new();
        for (entry, end) in entries.iter().zip(ends.await) {
            if unless_foreign(end, NOT_THEIRS)? == Reply::Number(1) {
                ended.push(entry.clone());
            }
        }
        Ok(ended)
    }

    /// Removes the expired sessions of no user, which no index names.
    async fn end_expired(&self) -> Result<u64> {
        let mut removed = 0;
        let mut walk = Walk::new(&self.names.sessions);
        while let Some(keys) = self.step(async |call| self.walk_on(call, &mut walk).await).await? {
            let entries: Vec<_> =
                keys.iter().map(|key| (key[self.names.sessions.len()..].to_vec(), 0)).collect();
            removed += self.step(async |call| self.end_each(call, &entries).await).await?.len() as u64;
        }
        Ok(removed)
    }

    /// Sweeps every so often: one process of all that use the prefix does, if it gets the lock.
    pub(super) async fn sweep(self: std::rc::Rc<Self>) {
        let interval = self.options.sweep_interval.unwrap_or(crate::sweeper::DEFAULT_SWEEP_INTERVAL);
        if interval == 0 {
            return;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(interval)).await;
            let until = text(i64::try_from(interval).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX)));
            let lock = &self.names.sweep;
            let taken = self.step(async |call| {
                let make = |mode| Request::read(mode).command(&[b"SET", lock, b"1", b"NX", b"PX", &until]);
                self.get_one(call, lock, Kind::Aside, make).await
            });
            if matches!(taken.await, Ok(Reply::Okay)) {
                // A failed sweep leaves only garbage behind, which the next one removes.
                let _ = self.clean().await;
            }
        }
    }
}

/// Whose sessions an index names.
enum Owner<'a> {
    Is(&'a UserName),
    /// As an index's key says it.
    Text(Vec<u8>),
    /// By the hash of the user, as hex.
    Hash(Vec<u8>),
}

impl Owner<'_> {
    fn of(index: &[u8], users: &[u8]) -> Option<Self> {
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

    /// How much of a record it takes to know.
    fn last_byte(&self) -> i64 {
        match self.json() {
            Some(json) => (record::USER_AT + json.len() + AFTER_USER.len()) as i64 - 1,
            None => -1,
        }
    }

    fn owns(&self, record: &[u8]) -> bool {
        match self {
            Self::Is(UserName { json }) | Self::Text(json) => record
                .get(record::USER_AT..)
                .and_then(|rest| rest.strip_prefix(&json[..]))
                .is_some_and(|rest| rest.starts_with(AFTER_USER)),
            Self::Hash(hash) => {
                Record::parse(record).is_ok_and(|record| hex(&Sha256::digest(record.user)) == *hash)
            }
        }
    }
}
