//! Applies writes, one after another, within one transaction.
//!
//! A write that is refused has changed nothing. So the others of its transaction can be committed.

use std::num::NonZeroUsize;

use heed::RwTxn;

use super::counters::CounterDelta;
use super::encryption::{Contents, Encryption, Key, UserTag};
use super::pending::{Pending, Scope};
use super::record::{Header, Record};
use super::secrets;
use super::tables::{Tables, expiry_entry, indexed_expiry_of, user_entry};
use super::write_error::WriteError;
use crate::clock::Millis;
use crate::codec;
use crate::error::StoreError;
use crate::session::{Expiry, Session, SessionId, UserKey, UserKeyBuf};

/// The maximum number of expiry index entries that a sweep reads in one transaction.
pub(super) const SWEEP_STEP: usize = 200;

/// A pending write.
pub(super) enum Write {
    Create(NewRecord),
    Update(NewRecord),
    Touch {
        id: SessionId,
        expires: Expiry,
        /// An expiry at this moment or later stays as it is.
        enough: Option<Millis>,
    },
    Delete {
        id: SessionId,
    },
    DeleteByUser {
        user: UserKeyBuf,
        except: Option<SessionId>,
        max: usize,
    },
    Sweep {
        now: Millis,
        max: usize,
    },
    Clear,
    /// Removes the wrapped keys that no record needs. See `secrets`.
    DropUnusedKeys,
}

/// A session to be written.
pub(super) struct NewRecord {
    pub id: SessionId,
    pub expires: Expiry,
    user: Option<UserKeyBuf>,
    content: Vec<u8>,
}

impl NewRecord {
    pub(super) fn new(session: &Session<'_>) -> Self {
        let mut content = Vec::new();
        codec::encode(&session.content, &mut content);
        let user = session.content.user.map(UserKey::to_buf);
        Self { id: session.id.clone(), expires: session.expires, user, content }
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        self.user.as_ref().map(UserKeyBuf::as_key)
    }
}

impl Write {
    /// Whether it encrypts a session with the first secret.
    pub(super) fn seals(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Update(_) | Self::Touch { .. })
    }

    /// What it concerns: reads of that wait for it.
    pub(super) fn scope(&self, pending: &Pending) -> Scope {
        let hash = |user: &UserKeyBuf| pending.hash(user.as_key());
        match self {
            Self::Create(record) | Self::Update(record) => {
                Scope::Session { id: record.id.clone(), user: record.user.as_ref().map(hash) }
            }
            Self::Touch { id, .. } | Self::Delete { id } => Scope::Session { id: id.clone(), user: None },
            Self::DeleteByUser { user, .. } => Scope::Users(Some(hash(user))),
            Self::Clear => Scope::Users(None),
            Self::Sweep { .. } | Self::DropUnusedKeys => Scope::Unseen,
        }
    }

    /// About how many bytes it adds to the file; 0 for what makes room.
    pub(super) fn growth(&self) -> usize {
        match self {
            Self::Create(record) | Self::Update(record) => record.content.len() + 512,
            _ => 0,
        }
    }

    /// The largest size of the record that it writes.
    pub(super) fn record_bytes(&self) -> usize {
        /// The bytes of an encrypted record, without its id and content.
        const OVERHEAD: usize = 128;
        match self {
            Self::Create(record) | Self::Update(record) => {
                record.id.as_bytes().len() + record.content.len() + OVERHEAD
            }
            _ => 0,
        }
    }

    /// A smaller write that ends at most this many sessions. `None` if the write cannot be split.
    pub(super) fn part(&self, max: usize) -> Option<Self> {
        match self {
            Self::DeleteByUser { user, except, max: all } if max < *all => {
                Some(Self::DeleteByUser { user: user.clone(), except: except.clone(), max })
            }
            Self::Sweep { now, max: all } if max < *all => Some(Self::Sweep { now: *now, max }),
            _ => None,
        }
    }
}

/// The writes of one transaction.
pub(super) struct WriteBatch<'a, 'e> {
    pub txn: RwTxn<'e>,
    pub tables: Tables,
    pub encryption: &'a Encryption,
    pub max_per_user: Option<NonZeroUsize>,
    /// One moment for the whole transaction.
    pub now: Millis,
    pub counted: CounterDelta,
    /// Whether there is anything to commit.
    pub changed: bool,
    next_created: Option<u64>,
    buffer: Vec<u8>,
}

/// A record's header and user, copied out of the transaction.
#[derive(Clone, Copy)]
struct Found {
    header: Header,
    /// `None` as well if the record is unreadable.
    user: Option<UserTag>,
    is_expired: bool,
    /// Whether the secret of the record is in the list.
    is_readable: bool,
}

impl Found {
    /// Whether `get` would return the session.
    fn is_live(self) -> bool {
        !self.is_expired && self.is_readable
    }
}

impl<'a, 'e> WriteBatch<'a, 'e> {
    pub(super) fn new(
        txn: RwTxn<'e>,
        tables: Tables,
        encryption: &'a Encryption,
        max_per_user: Option<NonZeroUsize>,
        now: Millis,
    ) -> Self {
        Self {
            txn,
            tables,
            encryption,
            max_per_user,
            now,
            counted: CounterDelta::default(),
            changed: false,
            next_created: None,
            buffer: Vec::new(),
        }
    }

    /// Applies a write, and returns how many sessions it changed.
    pub(super) fn apply(&mut self, write: &Write) -> Result<u64, WriteError> {
        match write {
            Write::Create(record) => self.create(record),
            Write::Update(record) => self.update(record),
            Write::Touch { id, expires, enough } => self.touch(id, *expires, *enough),
            Write::Delete { id } => self.delete(id),
            Write::DeleteByUser { user, except, max } => {
                self.delete_by_user(user.as_key(), except.as_ref(), *max)
            }
            Write::Sweep { now, max } => Ok(self.sweep(*now, *max)?),
            Write::Clear => Ok(self.clear()?),
            Write::DropUnusedKeys => {
                self.changed |= secrets::drop_unused(self.tables, &mut self.txn, self.encryption)?;
                Ok(0)
            }
        }
    }

    /// Commits the writes, and returns when they are on disk.
    pub(super) fn commit(mut self) -> heed::Result<CounterDelta> {
        if self.changed {
            if let Some(next) = self.next_created {
                self.tables.set_next(&mut self.txn, next)?;
            }
            self.txn.commit()?;
        }
        Ok(self.counted)
    }

    fn create(&mut self, record: &NewRecord) -> Result<u64, WriteError> {
        let key = self.encryption.key(&record.id);
        let created = self.next()?;
        let user = record.user().map(|user| self.encryption.tag(user));
        let indexed_expiry = record.expires.millis();
        let header = Header { expires: record.expires, indexed_expiry, created };
        let value = self.encode(&key, header, user, record)?;
        // One descent of the tree looks the key up and inserts the record.
        if let Some(old) = self.tables.sessions.get_or_put(&mut self.txn, &key, &value)? {
            let old = self.found(old);
            if old.is_live() {
                return Err(StoreError::Exists.into());
            }
            self.remove(&key, old)?;
            self.counted.expired += u64::from(old.is_expired);
            self.tables.sessions.put(&mut self.txn, &key, &value)?;
        }
        self.changed = true;
        self.make_room_for_user(user, record.expires, created)?;
        self.tables.expiries.put(&mut self.txn, &expiry_entry(indexed_expiry, created), &key)?;
        if let Some(user) = user {
            self.tables.users.put(&mut self.txn, &user_entry(user, created), &key)?;
        }
        self.next_created = Some(self.tables.created_after(&self.txn, created)?);
        self.counted.created += 1;
        Ok(1)
    }

    fn update(&mut self, record: &NewRecord) -> Result<u64, WriteError> {
        let key = self.encryption.key(&record.id);
        let Some(old) = self.find(&key)?.filter(|old| old.is_live()) else { return Ok(0) };
        let user = record.user().map(|user| self.encryption.tag(user));
        let indexed_expiry = old.header.indexed_expiry.min(record.expires.millis());
        let header = Header { expires: record.expires, indexed_expiry, created: old.header.created };
        let value = self.encode(&key, header, user, record)?;
        self.make_room_for_user(user, record.expires, header.created)?;
        self.tables.sessions.put(&mut self.txn, &key, &value)?;
        self.reindex(&key, old.header, indexed_expiry)?;
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

    fn touch(&mut self, id: &SessionId, expires: Expiry, enough: Option<Millis>) -> Result<u64, WriteError> {
        let key = self.encryption.key(id);
        let Some(old) = self.find(&key)?.filter(|old| old.is_live()) else { return Ok(0) };
        if enough.is_some_and(|enough| old.header.expires.millis() >= enough) {
            return Ok(1);
        }
        let indexed_expiry = old.header.indexed_expiry.min(expires.millis());
        let header = Header { expires, indexed_expiry, ..old.header };
        let Some(value) = self.with_header(&key, header)? else { return Ok(0) };
        self.tables.sessions.put(&mut self.txn, &key, &value)?;
        self.reindex(&key, old.header, indexed_expiry)?;
        self.changed = true;
        Ok(1)
    }

    fn delete(&mut self, id: &SessionId) -> Result<u64, WriteError> {
        let key = self.encryption.key(id);
        let Some(found) = self.find(&key)? else { return Ok(0) };
        self.remove(&key, found)?;
        Ok(1)
    }

    /// Ends the user's sessions, and returns how many of them were live. A session whose secret is not in the list ends
    /// too: the secret may come back, and the session with it.
    fn delete_by_user(
        &mut self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        max: usize,
    ) -> Result<u64, WriteError> {
        let encryption = self.encryption;
        let except = except.map(|id| encryption.key(id));
        let mut sessions = self.of_user(encryption.tag(user))?;
        sessions.retain(|(key, found)| !found.is_expired && except.as_deref() != Some(&key[..]));
        sessions.truncate(max);
        for (key, found) in &sessions {
            self.remove(key, *found)?;
        }
        Ok(count_live(&sessions))
    }

    /// Ends the user's oldest sessions, so that there is room for one more. A session that is expired needs no room.
    fn make_room_for_user(
        &mut self,
        user: Option<UserTag>,
        expires: Expiry,
        except: u64,
    ) -> heed::Result<()> {
        let (Some(user), Some(max)) = (user, self.max_per_user) else { return Ok(()) };
        if expires.is_past(self.now) {
            return Ok(());
        }
        let mut others = self.of_user(user)?;
        others.retain(|(_, found)| !found.is_expired && found.header.created != except);
        let surplus = (others.len() + 1).saturating_sub(max.get());
        for (key, found) in &others[..surplus] {
            self.remove(key, *found)?;
        }
        self.counted.evicted += count_live(&others[..surplus]);
        Ok(())
    }

    /// Makes one step of a sweep, and returns how many sessions it removed.
    fn sweep(&mut self, now: Millis, max: usize) -> heed::Result<u64> {
        let mut due = Vec::with_capacity(max);
        for entry in self.tables.expiries.iter(&self.txn)?.take(max) {
            let (entry, key) = entry?;
            if indexed_expiry_of(entry).is_some_and(|expiry| expiry > now) {
                break;
            }
            due.push((entry.to_vec(), key.to_vec()));
        }
        let mut removed = 0;
        for (entry, key) in due {
            let names =
                |found: &Found| expiry_entry(found.header.indexed_expiry, found.header.created)[..] == entry;
            match self.find(&key)?.filter(names) {
                Some(found) if found.header.expires.is_past(now) => {
                    self.remove(&key, found)?;
                    removed += 1;
                }
                Some(found) => {
                    let indexed_expiry = found.header.expires.millis();
                    self.set_indexed_expiry(&key, Header { indexed_expiry, ..found.header })?;
                    self.reindex(&key, found.header, indexed_expiry)?;
                }
                None => _ = self.tables.expiries.delete(&mut self.txn, &entry)?,
            }
            self.changed = true;
        }
        self.counted.expired += removed;
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
        // An unreadable record is treated as expired: it can be replaced, but is not swept.
        let Ok(record) = Record::parse(bytes) else {
            let header = Header { expires: Expiry::LONG_AGO, indexed_expiry: 0, created: 0 };
            return Found { header, user: None, is_expired: true, is_readable: false };
        };
        Found {
            header: record.header,
            user: self.encryption.tag_of(record).unwrap_or_default(),
            is_expired: record.header.expires.is_past(self.now),
            is_readable: self.encryption.can_read(record),
        }
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
        record: &NewRecord,
    ) -> Result<Vec<u8>, StoreError> {
        let contents = Contents { id: record.id.as_bytes(), content: &record.content };
        let mut value = Vec::new();
        self.encryption.write_record(key, header, user, &contents, &mut value)?;
        Ok(value)
    }

    /// Returns the record's bytes with another header. `None` if its secret is not in the list.
    fn with_header(&mut self, key: &[u8], header: Header) -> Result<Option<Vec<u8>>, WriteError> {
        let Some(bytes) = self.tables.sessions.get(&self.txn, key)? else { return Ok(None) };
        let record = Record::parse(bytes)?;
        let user = self.encryption.tag_of(record)?;
        let Some(contents) = self.encryption.decrypt(key, record, &mut self.buffer)? else { return Ok(None) };
        let mut value = Vec::with_capacity(bytes.len());
        self.encryption.write_record(key, header, user, &contents, &mut value)?;
        Ok(Some(value))
    }

    /// Updates `indexed_expiry`, which the encryption does not cover. So the record need not be decrypted.
    fn set_indexed_expiry(&mut self, key: &[u8], header: Header) -> heed::Result<()> {
        let Some(bytes) = self.tables.sessions.get(&self.txn, key)? else { return Ok(()) };
        let Ok(record) = Record::parse(bytes) else { return Ok(()) };
        let mut value = Vec::with_capacity(bytes.len());
        header.write(&mut value);
        value.extend_from_slice(record.body);
        self.tables.sessions.put(&mut self.txn, key, &value)
    }

    /// Moves a record's entry in the expiry index.
    fn reindex(&mut self, key: &[u8], old: Header, indexed_expiry: Millis) -> heed::Result<()> {
        if indexed_expiry != old.indexed_expiry {
            self.tables.expiries.delete(&mut self.txn, &expiry_entry(old.indexed_expiry, old.created))?;
            self.tables.expiries.put(&mut self.txn, &expiry_entry(indexed_expiry, old.created), key)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8], found: Found) -> heed::Result<()> {
        let Header { indexed_expiry, created, .. } = found.header;
        self.tables.sessions.delete(&mut self.txn, key)?;
        self.tables.expiries.delete(&mut self.txn, &expiry_entry(indexed_expiry, created))?;
        if let Some(user) = found.user {
            self.tables.users.delete(&mut self.txn, &user_entry(user, created))?;
        }
        self.changed = true;
        Ok(())
    }
}

fn count_live(sessions: &[(Vec<u8>, Found)]) -> u64 {
    sessions.iter().filter(|(_, found)| found.is_live()).count() as u64
}
