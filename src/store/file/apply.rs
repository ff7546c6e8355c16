//! One write after another within a transaction.
//!
//! A write that is refused has changed nothing, so that the others of its transaction stand.

use std::num::NonZeroUsize;

use heed::RwTxn;

use super::pending::Scope;
use super::record::{Header, Record};
use super::tables::{Tables, created_after, expiry_entry, filed_of, user_entry};
use super::vault::{Contents, Key, UserTag, Vault};
use crate::clock::Millis;
use crate::codec;
use crate::error::StoreError;
use crate::session::{Expiry, Session, SessionId, UserKey, UserKeyBuf};

/// How many entries of the index by expiry a sweep looks at in one transaction, at most.
pub(super) const SWEEP_STEP: usize = 200;

/// What is to change.
pub(super) enum Write {
    Create(Draft),
    Update(Draft),
    Touch {
        id: SessionId,
        expires: Expiry,
        /// An expiry from here on stays as it is.
        enough: Option<Millis>,
    },
    Delete {
        id: SessionId,
    },
    DeleteByUser {
        user: UserKeyBuf,
        except: Option<SessionId>,
        most: usize,
    },
    Sweep {
        now: Millis,
        most: usize,
    },
    Clear,
}

/// A session to be written.
pub(super) struct Draft {
    pub id: SessionId,
    pub expires: Expiry,
    user: Option<UserKeyBuf>,
    content: Vec<u8>,
}

impl Draft {
    pub(super) fn new(session: &Session<'_>) -> Self {
        let mut content = Vec::new();
        codec::encode(&session.content, &mut content);
        let user = session.content.user.map(UserKey::to_buf);
        Self { id: session.id.clone(), expires: session.expires, user, content }
    }
}

impl Write {
    /// Whether it writes a session under the first secret.
    pub(super) fn seals(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Update(_) | Self::Touch { .. })
    }

    /// What it concerns: reads of that wait for it.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Create(draft) | Self::Update(draft) => {
                Scope::Session { id: draft.id.clone(), user: draft.user.clone() }
            }
            Self::Touch { id, .. } | Self::Delete { id } => Scope::Session { id: id.clone(), user: None },
            Self::DeleteByUser { user, .. } => Scope::Users(Some(user.clone())),
            Self::Clear => Scope::Users(None),
            Self::Sweep { .. } => Scope::Expired,
        }
    }

    /// About how many bytes it adds to the file; 0 for what makes room.
    pub(super) fn growth(&self) -> usize {
        match self {
            Self::Create(draft) | Self::Update(draft) => draft.content.len() + 512,
            _ => 0,
        }
    }

    /// How many bytes the record has that it writes, at most.
    pub(super) fn record_bytes(&self) -> usize {
        /// Those of a sealed record beside its id and content.
        const OVERHEAD: usize = 128;
        match self {
            Self::Create(draft) | Self::Update(draft) => {
                draft.id.as_bytes().len() + draft.content.len() + OVERHEAD
            }
            _ => 0,
        }
    }

    /// A part of it that concerns no more than so many sessions, where it has parts.
    pub(super) fn part(&self, most: usize) -> Option<Self> {
        match self {
            Self::DeleteByUser { user, except, most: all } if most < *all => {
                Some(Self::DeleteByUser { user: user.clone(), except: except.clone(), most })
            }
            Self::Sweep { now, most: all } if most < *all => Some(Self::Sweep { now: *now, most }),
            _ => None,
        }
    }
}

/// Why a write has no effect.
pub(super) enum Fault {
    /// This one alone, and it has changed nothing.
    Refused(StoreError),
    /// The transaction is lost.
    Broken(heed::Error),
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// What a transaction adds to the store's counters once it is committed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub created: u64,
    pub expired: u64,
    pub evicted: u64,
}

/// Applies writes within one transaction.
pub(super) struct Applier<'a, 'e> {
    pub txn: RwTxn<'e>,
    pub tables: Tables,
    pub vault: &'a Vault,
    pub max_per_user: Option<NonZeroUsize>,
    /// One moment for all of the transaction.
    pub now: Millis,
    pub tally: Tally,
    /// Whether there is anything to commit.
    pub changed: bool,
    next_created: Option<u64>,
    buffer: Vec<u8>,
}

/// A record's header and user, copied out of the transaction.
#[derive(Clone, Copy)]
struct Found {
    header: Header,
    /// Of an unreadable record it is not known.
    user: Option<UserTag>,
    live: bool,
}

impl<'a, 'e> Applier<'a, 'e> {
    pub(super) fn new(
        txn: RwTxn<'e>,
        tables: Tables,
        vault: &'a Vault,
        max_per_user: Option<NonZeroUsize>,
        now: Millis,
    ) -> Self {
        Self {
            txn,
            tables,
            vault,
            max_per_user,
            now,
            tally: Tally::default(),
            changed: false,
            next_created: None,
            buffer: Vec::new(),
        }
    }

    /// Applies a write and gives its number: how many sessions it concerned.
    pub(super) fn apply(&mut self, write: &Write) -> Result<u64, Fault> {
        match write {
            Write::Create(draft) => self.create(draft),
            Write::Update(draft) => self.update(draft),
            Write::Touch { id, expires, enough } => self.touch(id, *expires, *enough),
            Write::Delete { id } => self.delete(id),
            Write::DeleteByUser { user, except, most } => {
                self.delete_by_user(user.as_key(), except.as_ref(), *most)
            }
            Write::Sweep { now, most } => Ok(self.sweep(*now, *most)?),
            Write::Clear => Ok(self.clear()?),
        }
    }

    /// Commits what was applied, and returns when it is on disk.
    pub(super) fn commit(mut self) -> heed::Result<Tally> {
        if self.changed {
            if let Some(next) = self.next_created {
                self.tables.set_next(&mut self.txn, next)?;
            }
            self.txn.commit()?;
        }
        Ok(self.tally)
    }

    fn create(&mut self, draft: &Draft) -> Result<u64, Fault> {
        let vault = self.vault;
        let key = vault.key(&draft.id);
        let created = self.next()?;
        let user = draft.user.as_ref().map(|user| vault.tag(user.as_key()));
        let header = Header { expires: draft.expires, filed: draft.expires.millis(), created };
        let value = self.encode(&key, header, user, draft)?;
        // One way down the tree tells whether it is there and puts it in its place.
        if let Some(old) = self.tables.sessions.get_or_put(&mut self.txn, &key, &value)? {
            let old = self.found(old);
            if old.live {
                return Err(StoreError::Exists.into());
            }
            self.remove(&key, old)?;
            self.tally.expired += 1;
            self.tables.sessions.put(&mut self.txn, &key, &value)?;
        }
        self.changed = true;
        self.make_room_for_user(user, draft.expires, Some(created))?;
        self.tables.expiries.put(&mut self.txn, &expiry_entry(header.filed, created), &key)?;
        if let Some(user) = user {
            self.tables.users.put(&mut self.txn, &user_entry(user, created), &key)?;
        }
        self.next_created = Some(created_after(created, self.tables.sessions.len(&self.txn)?));
        self.tally.created += 1;
        Ok(1)
    }

    fn update(&mut self, draft: &Draft) -> Result<u64, Fault> {
        let vault = self.vault;
        let key = vault.key(&draft.id);
        let Some(old) = self.find(&key)?.filter(|old| old.live) else { return Ok(0) };
        let user = draft.user.as_ref().map(|user| vault.tag(user.as_key()));
        let filed = old.header.filed.min(draft.expires.millis());
        let header = Header { expires: draft.expires, filed, created: old.header.created };
        let value = self.encode(&key, header, user, draft)?;
        self.make_room_for_user(user, draft.expires, Some(header.created))?;
        self.tables.sessions.put(&mut self.txn, &key, &value)?;
        self.refile(&key, old.header, filed)?;
        if user != old.user {
            if let Some(user) = old.user {
                self.tables.users.delete(&mut self.txn, &user_entry(user, header.created))?;
            }
            if let Some(user) = user {
                self.tables.users.put(&mut self.txn, &user_entry(user, header.created), &key)?;
            }
        }
        self.changed = true;
        Ok(1)
    }

    fn touch(&mut self, id: &SessionId, expires: Expiry, enough: Option<Millis>) -> Result<u64, Fault> {
        let vault = self.vault;
        let key = vault.key(id);
        let Some(old) = self.find(&key)?.filter(|old| old.live) else { return Ok(0) };
        if enough.is_some_and(|enough| old.header.expires.millis() >= enough) {
            return Ok(1);
        }
        let filed = old.header.filed.min(expires.millis());
        let header = Header { expires, filed, ..old.header };
        let Some(value) = self.with_header(&key, header)? else { return Ok(0) };
        self.tables.sessions.put(&mut self.txn, &key, &value)?;
        self.refile(&key, old.header, filed)?;
        self.changed = true;
        Ok(1)
    }

    fn delete(&mut self, id: &SessionId) -> Result<u64, Fault> {
        let vault = self.vault;
        let key = vault.key(id);
        let Some(found) = self.find(&key)? else { return Ok(0) };
        self.remove(&key, found)?;
        Ok(1)
    }

    fn delete_by_user(
        &mut self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        most: usize,
    ) -> Result<u64, Fault> {
        let vault = self.vault;
        let except = except.map(|id| vault.key(id));
        let mut sessions = self.of_user(vault.tag(user))?;
        sessions.retain(|(key, found)| found.live && except.as_deref() != Some(&key[..]));
        sessions.truncate(most);
        for (key, found) in &sessions {
            self.remove(key, *found)?;
        }
        Ok(sessions.len() as u64)
    }

    /// Ends a user's oldest sessions, for one more to have room. One that is expired ends none.
    fn make_room_for_user(
        &mut self,
        user: Option<UserTag>,
        expires: Expiry,
        but: Option<u64>,
    ) -> heed::Result<()> {
        let (Some(user), Some(max)) = (user, self.max_per_user) else { return Ok(()) };
        if expires.is_past(self.now) {
            return Ok(());
        }
        let mut others = self.of_user(user)?;
        others.retain(|(_, found)| found.live && Some(found.header.created) != but);
        let surplus = (others.len() + 1).saturating_sub(max.get());
        for (key, found) in &others[..surplus] {
            self.remove(key, *found)?;
            self.tally.evicted += 1;
        }
        Ok(())
    }

    /// A step of a sweep, and how many sessions it removed.
    fn sweep(&mut self, now: Millis, most: usize) -> heed::Result<u64> {
        let mut due = Vec::with_capacity(most);
        for entry in self.tables.expiries.iter(&self.txn)?.take(most) {
            let (entry, key) = entry?;
            if filed_of(entry).is_some_and(|filed| filed > now) {
                break;
            }
            due.push((entry.to_vec(), key.to_vec()));
        }
        let mut removed = 0;
        for (entry, key) in due {
            let names = |found: &Found| expiry_entry(found.header.filed, found.header.created)[..] == entry;
            match self.find(&key)?.filter(names) {
                Some(found) if found.header.expires.is_past(now) => {
                    self.remove(&key, found)?;
                    removed += 1;
                }
                Some(found) => {
                    let header = Header { filed: found.header.expires.millis(), ..found.header };
                    self.set_filed(&key, header)?;
                    self.refile(&key, found.header, header.filed)?;
                }
                None => _ = self.tables.expiries.delete(&mut self.txn, &entry)?,
            }
            self.changed = true;
        }
        self.tally.expired += removed;
        Ok(removed)
    }

    fn clear(&mut self) -> heed::Result<u64> {
        let removed = self.tables.sessions.len(&self.txn)?;
        for table in [self.tables.sessions, self.tables.users, self.tables.expiries] {
            table.clear(&mut self.txn)?;
        }
        self.changed |= removed > 0;
        Ok(removed)
    }

    fn next(&mut self) -> heed::Result<u64> {
        self.next_created.map_or_else(|| self.tables.next(&self.txn), Ok)
    }

    fn find(&self, key: &[u8]) -> heed::Result<Option<Found>> {
        Ok(self.tables.sessions.get(&self.txn, key)?.map(|bytes| self.found(bytes)))
    }

    fn found(&self, bytes: &[u8]) -> Found {
        // What is no record counts as an expired one: it may be replaced, and a sweep does not meet it.
        let Ok(record) = Record::parse(bytes) else {
            let header = Header { expires: Expiry::LONG_AGO, filed: 0, created: 0 };
            return Found { header, user: None, live: false };
        };
        let live = !record.header.expires.is_past(self.now) && self.vault.knows(record);
        let user = self.vault.tag_of(record).unwrap_or_default();
        Found { header: record.header, user, live }
    }

    /// The sessions of a user, oldest first.
    fn of_user(&self, user: UserTag) -> heed::Result<Vec<(Vec<u8>, Found)>> {
        let mut all = Vec::new();
        self.tables.each_of_user(&self.txn, user, |created, key| {
            if let Some(found) = self.find(key)?.filter(|found| found.header.created == created) {
                all.push((key.to_vec(), found));
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn encode(
        &self,
        key: &Key<'_>,
        header: Header,
        user: Option<UserTag>,
        draft: &Draft,
    ) -> Result<Vec<u8>, StoreError> {
        let contents = Contents { id: draft.id.as_bytes(), content: &draft.content };
        let mut value = Vec::new();
        self.vault.write_record(key, header, user, &contents, &mut value)?;
        Ok(value)
    }

    /// A record's bytes with another header; `None` if they cannot be opened for want of their secret.
    fn with_header(&mut self, key: &[u8], header: Header) -> Result<Option<Vec<u8>>, Fault> {
        let Some(bytes) = self.tables.sessions.get(&self.txn, key)? else { return Ok(None) };
        let record = Record::parse(bytes)?;
        let user = self.vault.tag_of(record)?;
        let Some(contents) = self.vault.open(key, record, &mut self.buffer)? else { return Ok(None) };
        let mut value = Vec::with_capacity(bytes.len());
        self.vault.write_record(key, header, user, &contents, &mut value)?;
        Ok(Some(value))
    }

    /// Notes where the index by expiry has a record. Nothing is bound to that, so that the record stays sealed.
    fn set_filed(&mut self, key: &[u8], header: Header) -> heed::Result<()> {
        let Some(bytes) = self.tables.sessions.get(&self.txn, key)? else { return Ok(()) };
        let Ok(record) = Record::parse(bytes) else { return Ok(()) };
        let mut value = Vec::with_capacity(bytes.len());
        header.write(&mut value);
        value.extend_from_slice(record.body);
        self.tables.sessions.put(&mut self.txn, key, &value)
    }

    /// Moves a record's entry in the index by expiry.
    fn refile(&mut self, key: &[u8], old: Header, filed: Millis) -> heed::Result<()> {
        if filed != old.filed {
            self.tables.expiries.delete(&mut self.txn, &expiry_entry(old.filed, old.created))?;
            self.tables.expiries.put(&mut self.txn, &expiry_entry(filed, old.created), key)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8], found: Found) -> heed::Result<()> {
        let Header { filed, created, .. } = found.header;
        self.tables.sessions.delete(&mut self.txn, key)?;
        self.tables.expiries.delete(&mut self.txn, &expiry_entry(filed, created))?;
        if let Some(user) = found.user {
            self.tables.users.delete(&mut self.txn, &user_entry(user, created))?;
        }
        self.changed = true;
        Ok(())
    }
}
