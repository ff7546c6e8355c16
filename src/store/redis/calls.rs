//! The calls on one session.

use std::rc::Rc;
use std::sync::Arc;

use super::commands::{Change, Creation, Entry, Left, created_field, touch};
use super::core::{Call, Core, Counters, Kind};
use super::errors::{self, number};
use super::record::{Record, Stamp};
use super::resp::{CREATE, END_OF_USER, FORGET, RESCORE, Reply, Request, Script, number as text};
use super::vault::{Draft, UserName, Vault};
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::keyring::UnlockError;
use crate::session::{Expiry, SessionId};
use crate::store::StoredSession;

/// Of a value that is none of the store's.
pub(super) const FOREIGN: StoreError = StoreError::Corrupt("it is no session of this store");

impl Core {
    /// Stores a session, unless a live one has its id.
    ///
    /// Its user's index knows it first: an entry without a session is only passed over, but a session without one would
    /// be missed. The index is on another node of a cluster, so it has to have answered before; one server does one
    /// after the other.
    pub(super) async fn create(self: &Rc<Self>, call: &Call, draft: &Draft) -> Result<()> {
        let vault = self.vault(call).await?;
        let created = self.shared.stamp(&self.times);
        let creation = Creation::new(draft, created, &vault, &self.names, &self.times)?;
        let Creation { key, member, user, .. } = &creation;
        let counts = self.options.max_sessions_per_user.is_some();
        let (stored, held) = if user.is_nobody() {
            let set = |mode| creation.set(Request::write(mode));
            (self.get_one(call, key, Kind::Once, set).await?, 0)
        } else if self.topology.is_one_server() {
            let make = |mode| creation.set(creation.entry().enter(Request::write(mode), counts));
            let mut replies = self.ask(call, key, Kind::Once, make).await?;
            let stored = replies.pop().ok_or_else(errors::unexpected)?;
            if let Err(error) = replies.iter().try_for_each(errors::check) {
                // A session must not be without its entry.
                if stored == Reply::Okay {
                    self.take_back(call, key, user, created).await?;
                }
                return Err(error);
            }
            errors::check(&stored)?;
            (stored, held(&replies))
        } else {
            let enter = |mode| creation.entry().enter(Request::write(mode), counts);
            let replies = self.get_all(call, &creation.index, Kind::Aside, enter).await?;
            let set = |mode| creation.set(Request::write(mode));
            (self.get_one(call, key, Kind::Once, set).await?, held(&replies))
        };
        if stored == Reply::Nil {
            let now = text(self.times.now());
            let args: [&[u8]; 3] = [&now, &creation.value, &creation.until];
            match self.run_script(call, Kind::Once, &CREATE, key, &args).await? {
                Reply::Number(1) => {}
                Reply::Bytes(live) => {
                    self.undo_entry(call, &creation.entry(), user, &live).await;
                    return Err(StoreError::Exists);
                }
                _ => return Err(FOREIGN),
            }
        }
        Counters::add(&self.shared.counters.created, 1);
        Box::pin(self.limit(call, user, member, held, Some(created), draft.expires)).await;
        Ok(())
    }

    pub(super) async fn get(&self, call: &Call, id: &SessionId) -> Result<Option<StoredSession>> {
        let vault = self.vault(call).await?;
        let member = vault.member(id);
        let key = self.names.session(&member);
        let make = |mode| Request::read(mode).command(&[b"GET", &key]);
        let found = match self.get_one(call, &key, Kind::Aside, make).await? {
            Reply::Nil => None,
            Reply::Bytes(bytes) => vault.open_live(&member, &bytes, &self.times)?,
            _ => return Err(errors::unexpected()),
        };
        self.shared.counters.looked_up(found.is_some());
        Ok(found)
    }

    /// Replaces a live session. That of another user is left alone at first, as the new one's index must know it before.
    pub(super) async fn update(&self, call: &Call, draft: &Draft) -> Result<bool> {
        let vault = self.vault(call).await?;
        let member = vault.member(&draft.id);
        let key = self.names.session(&member);
        let user = vault.user(draft.user());
        let change = Change::new(draft, key, &member, &user, &vault, &self.times)?;
        loop {
            match self.replace(call, &change, &user, None).await? {
                0 => return Ok(false),
                1 => return Ok(true),
                2 => {}
                _ => return Err(FOREIGN),
            }
            let expires = draft.expires;
            if let Some(found) = Box::pin(self.change_user(call, &change, &member, &user, expires)).await? {
                return Ok(found);
            }
        }
    }

    /// Replaces the live session of another user, and tells whether there is one; `None` if it has changed meanwhile.
    async fn change_user(
        &self,
        call: &Call,
        change: &Change,
        member: &[u8],
        user: &UserName,
        expires: Expiry,
    ) -> Result<Option<bool>> {
        let key = &change.key;
        let get = |mode| Request::read(mode).command(&[b"GET", key]);
        let Reply::Bytes(old) = self.get_one(call, key, Kind::Aside, get).await? else {
            return Ok(Some(false));
        };
        let old = Record::parse(&old)?;
        if old.expires.is_past(self.times.now()) {
            return Ok(Some(false));
        }
        if old.user == user.json {
            return Ok(None);
        }
        let old_user = UserName { json: old.user.to_vec() };
        // With a score of now no one takes it for a leftover meanwhile.
        let index = user.index(&self.names);
        let entry = Entry { index: &index, member, created: self.shared.stamp(&self.times) };
        let mut entered = 0;
        if !user.is_nobody() {
            let counts = self.options.max_sessions_per_user.is_some();
            let enter = |mode| entry.enter(Request::write(mode), counts);
            entered = held(&self.get_all(call, entry.index, Kind::Aside, enter).await?);
        }
        let replaced = self.replace(call, change, &old_user, Some(old.created)).await?;
        if replaced == 1 {
            if !user.is_nobody() {
                self.rescore(call, &entry, old.created).await;
                Box::pin(self.limit(call, user, member, entered, None, expires)).await;
            }
            if !old_user.is_nobody() {
                let index = old_user.index(&self.names);
                self.forget(call, &Entry { index: &index, member, created: old.created }).await;
            }
            return Ok(Some(true));
        }
        if !user.is_nobody() {
            self.forget(call, &entry).await;
        }
        match replaced {
            0 => Ok(Some(false)),
            2 => Ok(None),
            _ => Err(FOREIGN),
        }
    }

    pub(super) async fn touch(
        &self,
        call: &Call,
        id: &SessionId,
        expires: Expiry,
        enough: Option<Millis>,
    ) -> Result<bool> {
        let vault = self.vault(call).await?;
        let key = self.names.session(&vault.member(id));
        let make = |mode| touch(Request::write(mode), &key, expires, enough, &self.times);
        match number(&self.get_one(call, &key, Kind::Repeatable, make).await?)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FOREIGN),
        }
    }

    /// Removes a session. Its entry follows, without being waited for: it is passed over until then.
    pub(super) async fn delete(self: &Rc<Self>, call: &Call, id: &SessionId) -> Result<()> {
        let vault = self.vault(call).await?;
        let member = vault.member(id);
        let key = self.names.session(&member);
        let make = |mode| Request::write(mode).command(&[b"GETDEL", &key]);
        let Reply::Bytes(bytes) = self.get_one(call, &key, Kind::Repeatable, make).await? else {
            return Ok(());
        };
        if let Some(left) = Left::by(member, &bytes, &self.names) {
            self.forget_later(left);
        }
        Ok(())
    }

    /// Removes an entry, for which no one waits.
    pub(super) fn forget_later(self: &Rc<Self>, left: Left) {
        let core = Rc::clone(self);
        self.detach(async move {
            let forgotten = core.step(async |call| {
                core.forget(call, &left.entry()).await;
                Ok(())
            });
            // Else it stays until it is come across.
            let _ = forgotten.await;
        });
    }

    /// Runs a script on a key.
    pub(super) async fn run_script(
        &self,
        call: &Call,
        kind: Kind,
        script: &Script,
        key: &[u8],
        args: &[&[u8]],
    ) -> Result<Reply> {
        self.get_one(call, key, kind, |mode| Request::write(mode).script(script, key, args)).await
    }

    async fn replace(
        &self,
        call: &Call,
        change: &Change,
        user: &UserName,
        created: Option<Stamp>,
    ) -> Result<i64> {
        let make = |mode| change.replace(Request::write(mode), user, created, &self.times);
        number(&self.get_one(call, &change.key, Kind::Once, make).await?)
    }

    /// Ends a session that was created without its entry.
    async fn take_back(&self, call: &Call, key: &[u8], user: &UserName, created: Stamp) -> Result<()> {
        let (now, user, created) = (text(self.times.now()), user.to_match(), created_field(created));
        let args: [&[u8]; 3] = [&now, &user, &created];
        self.run_script(call, Kind::Repeatable, &END_OF_USER, key, &args).await.map(drop)
    }

    /// Undoes an entry for a session that was refused, as another has its id.
    async fn undo_entry(&self, call: &Call, entry: &Entry<'_>, user: &UserName, live: &[u8]) {
        if user.is_nobody() {
            return;
        }
        match Record::parse(live) {
            Ok(live) if live.user == user.json => self.rescore(call, entry, live.created).await,
            _ => self.forget(call, entry).await,
        }
    }

    /// Gives an entry the score of its session. Should it fail, the entry is found all the same.
    async fn rescore(&self, call: &Call, entry: &Entry<'_>, created: Stamp) {
        let (ours, theirs) = (text(entry.created as i64), text(created as i64));
        let args: [&[u8]; 3] = [entry.member, &ours, &theirs];
        let _ = self.run_script(call, Kind::Aside, &RESCORE, entry.index, &args).await;
    }

    /// Removes an entry. Should it fail, the entry is passed over until it is come across again.
    pub(super) async fn forget(&self, call: &Call, entry: &Entry<'_>) {
        let score = text(entry.created as i64);
        let args: [&[u8]; 2] = [entry.member, &score];
        let _ = self.run_script(call, Kind::Aside, &FORGET, entry.index, &args).await;
    }

    /// The store's keys, once it has them: those of encryption are made of what stands in Redis.
    pub(super) async fn vault(&self, call: &Call) -> Result<Arc<Vault>> {
        if let Some(vault) = &*self.vault.borrow() {
            return Ok(Arc::clone(vault));
        }
        let _turn = self.unlocking.lock().await;
        if let Some(vault) = &*self.vault.borrow() {
            return Ok(Arc::clone(vault));
        }
        let vault =
            if self.options.secrets.is_empty() { Vault::Open } else { Box::pin(self.unlock(call)).await? };
        let vault = Arc::new(vault);
        *self.vault.borrow_mut() = Some(Arc::clone(&vault));
        Ok(vault)
    }
}

/// How many entries an index has, if it was asked for: after `ZADD`.
fn held(replies: &[Reply]) -> u64 {
    match replies {
        [_, Reply::Number(held)] => u64::try_from(*held).unwrap_or(0),
        _ => 0,
    }
}

/// Of secrets that are none of those with which a store was begun.
pub(super) fn wrong_secret(error: UnlockError) -> StoreError {
    match error {
        UnlockError::WrongSecret => StoreError::InvalidOption {
            option: "secret",
            expected: "one of those with which the sessions of this prefix were encrypted".into(),
            given: "another".into(),
        },
        UnlockError::Store(error) => error,
    }
}
