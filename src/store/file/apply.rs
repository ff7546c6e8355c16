//! Applies writes to the rows of sessions, one after another.
//!
//! A rejected write changes nothing, so the other writes of its batch can be committed.

use std::num::NonZeroUsize;
use std::ops::Bound;

use heed::{AnyTls, RoTxn};

use super::counters::CounterDelta;
use super::encryption::{Contents, Encryption, Key, UserTag};
use super::pending::{Pending, Scope};
use super::record::{Header, Record};
use super::rows::{IndexEntries, Rows, TableRows};
use super::secrets;
use super::tables::{Tables, expiry_entry};
use super::write_error::WriteError;
use crate::clock::Millis;
use crate::codec;
use crate::error::StoreError;
use crate::events::{Ends, Reason};
use crate::lifetime::Lifetime;
use crate::session::{Expiry, Session, SessionId, UserKey, UserKeyBuf};
use crate::store::UserLimit;

/// The maximum number of expiry index entries that a sweep reads in one transaction.
pub(super) const SWEEP_STEP: usize = 200;

/// A pending write.
pub(super) enum Write {
    Create(NewRecord),
    Update(NewRecord),
    Touch {
        id: SessionId,
        expires: Expiry,
        /// A session whose expiry is at this time or later keeps it.
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
        due: Vec<DueEntry>,
        now: Millis,
    },
    Clear,
    /// Removes the wrapped keys that no record needs. See `secrets`.
    DropUnusedKeys,
}

/// A new session, or the new state of one.
pub(super) struct NewRecord {
    pub id: SessionId,
    pub expires: Expiry,
    /// The creation time. `None` is the time of the write.
    pub created_at: Option<Millis>,
    user: Option<UserKeyBuf>,
    content: Vec<u8>,
}

impl NewRecord {
    pub(super) fn new(session: &Session<'_>) -> Self {
        let mut content = Vec::new();
        codec::encode(&session.content, &mut content);
        let user = session.content.user.map(UserKey::to_buf);
        Self { id: session.id.clone(), expires: session.expires, created_at: None, user, content }
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        self.user.as_ref().map(UserKeyBuf::as_key)
    }
}

impl Write {
    /// Whether it encrypts a session with the first secret.
    pub(super) fn encrypts(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Update(_) | Self::Touch { .. })
    }

    /// Whether it affects single sessions or the sessions of one user. Other writes affect the whole store.
    pub(super) fn affects_sessions(&self) -> bool {
        !matches!(self, Self::Sweep { .. } | Self::Clear | Self::DropUnusedKeys)
    }

    /// The sessions or users whose reads have to wait for this write.
    pub(super) fn scope(&self, pending: &Pending) -> Scope {
        let hash = |user: &UserKeyBuf| pending.hash(user.as_key());
        match self {
            Self::Create(record) | Self::Update(record) => {
                Scope::Session { id: record.id.clone(), user: record.user.as_ref().map(hash) }
            }
            Self::Touch { id, .. } | Self::Delete { id } => Scope::Session { id: id.clone(), user: None },
            Self::DeleteByUser { user, .. } => Scope::Users(Some(hash(user))),
            Self::Clear => Scope::Users(None),
            Self::Sweep { .. } | Self::DropUnusedKeys => Scope::Invisible,
        }
    }

    /// Whether it may add a session or enlarge one.
    pub(super) fn may_add(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Update(_))
    }

    /// The approximate number of bytes that it adds to the file. 0 if it adds none.
    pub(super) fn growth(&self) -> usize {
        /// The bytes of the key, the header and the index entries.
        const OVERHEAD: usize = 512;
        match self {
            Self::Create(record) | Self::Update(record) => record.content.len() + OVERHEAD,
            // A record of an older version gets a creation time.
            Self::Touch { .. } => Header::CREATION_TIME_LEN,
            _ => 0,
        }
    }

    /// The maximum size of the record that it writes.
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

    /// A smaller write, which ends at most this many sessions. `None` if the write cannot be split.
    pub(super) fn limited_to(&self, max: usize) -> Option<Self> {
        match self {
            Self::DeleteByUser { user, except, max: all } if max < *all => {
                Some(Self::DeleteByUser { user: user.clone(), except: except.clone(), max })
            }
            Self::Sweep { due, now } if max < due.len() => {
                Some(Self::Sweep { due: due[..max].to_vec(), now: *now })
            }
            _ => None,
        }
    }
}

/// The limits and the record format that all writes of this process use.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct WriteRules {
    pub per_user: UserLimit,
    pub lifetime: Lifetime,
    /// Whether records contain creation times.
    pub has_creation_times: bool,
}

/// Applies several writes to the same rows.
pub(super) struct WriteBatch<'a, R> {
    pub rows: &'a mut R,
    encryption: &'a Encryption,
    rules: WriteRules,
    /// All writes of a batch have the same time.
    now: Millis,
    pub counted: CounterDelta,
    pub ended: Ends,
    buffer: Vec<u8>,
}

/// The header and the user of a stored record.
#[derive(Clone, Copy)]
struct Found {
    header: Header,
    /// `None` if there is no user, or if the record is unreadable.
    user: Option<UserTag>,
    is_expired: bool,
    /// Whether the list of secrets can decrypt the record.
    is_readable: bool,
}

impl Found {
    /// Whether `get` would return the session.
    fn is_live(self) -> bool {
        !self.is_expired && self.is_readable
    }

    fn indexed(self) -> IndexEntries {
        let Header { indexed_expiry, created, .. } = self.header;
        IndexEntries { indexed_expiry, created, user: self.user }
    }
}

impl<'a, R: Rows> WriteBatch<'a, R> {
    pub(super) fn new(
        rows: &'a mut R,
        encryption: &'a Encryption,
        rules: WriteRules,
        now: Millis,
        ended: Ends,
    ) -> Self {
        let (counted, buffer) = (CounterDelta::default(), Vec::new());
        Self { rows, encryption, rules, now, counted, ended, buffer }
    }

    /// Applies a write to sessions, and returns how many it changed. `None` if the write affects the whole store.
    pub(super) fn apply_to_sessions(&mut self, write: &Write) -> Result<Option<u64>, WriteError> {
        match write {
            Write::Create(record) => self.create(record),
            Write::Update(record) => self.update(record),
            Write::Touch { id, expires, enough } => self.touch(id, *expires, *enough),
            Write::Delete { id } => self.delete(id),
            Write::DeleteByUser { user, except, max } => {
                self.delete_by_user(user.as_key(), except.as_ref(), *max)
            }
            Write::Sweep { .. } | Write::Clear | Write::DropUnusedKeys => return Ok(None),
        }
        .map(Some)
    }

    fn create(&mut self, record: &NewRecord) -> Result<u64, WriteError> {
        let key = self.encryption.key(&record.id);
        let old = self.find(&key)?;
        if old.is_some_and(Found::is_live) {
            return Err(StoreError::Exists.into());
        }
        let created = self.rows.next_created()?;
        // A creation time in the future would extend the session's lifetime.
        let created_at = record.created_at.map_or(self.now, |created_at| created_at.min(self.now));
        let expires = self.rules.lifetime.end(record.expires, created_at);
        let created_at = Some(created_at).filter(|_| self.rules.has_creation_times);
        let header = Header { expires, indexed_expiry: expires.millis(), created, created_at };
        let (indexed, row) = self.encode(&key, header, record)?;
        self.check_room_for_user(indexed.user, expires, &key)?;
        if old.is_some_and(|old| old.is_expired) {
            self.record_end(&key, Reason::Expired)?;
        }
        self.rows.set(&key, old.map(Found::indexed), Some((indexed, &row)))?;
        self.make_room_for_user(indexed.user, expires, &key)?;
        self.rows.reserve_created(created)?;
        self.counted.expired += u64::from(old.is_some_and(|old| old.is_expired));
        self.counted.created += 1;
        Ok(1)
    }

    fn update(&mut self, record: &NewRecord) -> Result<u64, WriteError> {
        let key = self.encryption.key(&record.id);
        let Some(old) = self.find(&key)?.filter(|old| old.is_live()) else { return Ok(0) };
        let header = self.moved(old.header, record.expires);
        let (indexed, row) = self.encode(&key, header, record)?;
        if indexed.user != old.user {
            self.check_room_for_user(indexed.user, header.expires, &key)?;
        }
        self.make_room_for_user(indexed.user, header.expires, &key)?;
        self.rows.set(&key, Some(old.indexed()), Some((indexed, &row)))?;
        Ok(1)
    }

    fn touch(&mut self, id: &SessionId, expires: Expiry, enough: Option<Millis>) -> Result<u64, WriteError> {
        let key = self.encryption.key(id);
        let Some(old) = self.find(&key)?.filter(|old| old.is_live()) else { return Ok(0) };
        let kept = self.moved(old.header, old.header.expires);
        let last = kept.created_at.map_or(Millis::MAX, |created_at| self.rules.lifetime.last(created_at));
        // An expiry cannot be later than the end of the lifetime.
        let is_enough = enough.is_some_and(|enough| kept.expires.millis() >= enough.min(last));
        let header = if is_enough { kept } else { self.moved(old.header, expires) };
        let is_limited = self.rules.lifetime.is_limited();
        let is_same = header.expires == old.header.expires && header.created_at == old.header.created_at;
        if (is_enough && !is_limited) || (is_limited && is_same) {
            return Ok(1);
        }
        let Some((indexed, row)) = self.with_header(&key, header)? else { return Ok(0) };
        self.rows.set(&key, Some(old.indexed()), Some((indexed, &row)))?;
        Ok(1)
    }

    /// The header of a session whose expiry moves.
    ///
    /// If the record has no creation time, an older version of this package has written it. It gets the current time.
    /// The entry in the expiry index usually stays where it is, and a sweep moves it later. An entry that is already
    /// due moves now: otherwise the sweep would read a session that is always in use again and again.
    fn moved(&self, old: Header, expires: Expiry) -> Header {
        let created_at = old.created_at.or(Some(self.now).filter(|_| self.rules.has_creation_times));
        let expires = created_at.map_or(expires, |created_at| self.rules.lifetime.end(expires, created_at));
        let new = expires.millis();
        let indexed_expiry = if old.indexed_expiry <= self.now { new } else { old.indexed_expiry.min(new) };
        Header { expires, indexed_expiry, created_at, ..old }
    }

    fn delete(&mut self, id: &SessionId) -> Result<u64, WriteError> {
        let key = self.encryption.key(id);
        let Some(found) = self.find(&key)? else { return Ok(0) };
        self.remove(&key, found, if found.is_expired { Reason::Expired } else { Reason::Deleted })?;
        Ok(1)
    }

    /// Ends the user's sessions, and returns how many of them were live. Also ends sessions that no secret in the
    /// list decrypts, and those past `max_lifetime`. Otherwise they would come back together with their secret, or for a
    /// process with a longer lifetime.
    fn delete_by_user(
        &mut self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        max: usize,
    ) -> Result<u64, WriteError> {
        let encryption = self.encryption;
        let except = except.map(|id| encryption.key(id));
        let mut sessions = self.of_user(encryption.tag(user))?;
        let is_past = |found: &Found| found.header.expires.is_past(self.now);
        sessions.retain(|(key, found)| !is_past(found) && except.as_deref() != Some(&key[..]));
        sessions.truncate(max);
        for (key, found) in &sessions {
            self.remove(key, *found, if found.is_expired { Reason::Expired } else { Reason::Revoked })?;
        }
        Ok(count_live(&sessions))
    }

    /// Rejects another session of a user who has reached the limit, if the limit rejects.
    ///
    /// # Errors
    /// `TooManySessions`.
    fn check_room_for_user(
        &self,
        user: Option<UserTag>,
        expires: Expiry,
        except: &[u8],
    ) -> Result<(), WriteError> {
        let Some(max) = self.rules.per_user.rejects_beyond() else { return Ok(()) };
        // Undecryptable sessions do not count, because no call lists them for the user to end.
        match &self.surplus_of_user(max, user, expires, except, Found::is_live)?[..] {
            [] => Ok(()),
            _ => Err(StoreError::TooManySessions { max: max.get() }.into()),
        }
    }

    /// Ends the user's oldest sessions to make room for another one.
    fn make_room_for_user(
        &mut self,
        user: Option<UserTag>,
        expires: Expiry,
        except: &[u8],
    ) -> heed::Result<()> {
        let Some(max) = self.rules.per_user.ends_beyond() else { return Ok(()) };
        let surplus = self.surplus_of_user(max, user, expires, except, |found| !found.is_expired)?;
        for (key, found) in &surplus {
            self.remove(key, *found, Reason::Replaced)?;
        }
        self.counted.evicted += count_live(&surplus);
        Ok(())
    }

    /// The oldest of the user's counted sessions that have to end before another one fits. An expired session needs
    /// no room.
    fn surplus_of_user(
        &self,
        max: NonZeroUsize,
        user: Option<UserTag>,
        expires: Expiry,
        except: &[u8],
        counts: impl Fn(Found) -> bool,
    ) -> heed::Result<Vec<(Vec<u8>, Found)>> {
        let Some(user) = user.filter(|_| !expires.is_past(self.now)) else { return Ok(Vec::new()) };
        let mut others = self.of_user(user)?;
        others.retain(|(key, found)| counts(*found) && key != except);
        others.truncate((others.len() + 1).saturating_sub(max.get()));
        Ok(others)
    }

    fn find(&self, key: &[u8]) -> heed::Result<Option<Found>> {
        self.rows.read(key, |bytes| self.found(bytes))
    }

    fn found(&self, bytes: &[u8]) -> Found {
        // An unreadable record is treated as expired: it can be replaced, but a sweep does not remove it.
        let Ok(record) = Record::parse(bytes) else {
            let header = Header { expires: Expiry::MIN, indexed_expiry: 0, created: 0, created_at: None };
            return Found { header, user: None, is_expired: true, is_readable: false };
        };
        Found {
            header: record.header,
            user: self.encryption.tag_of(record).unwrap_or_default(),
            is_expired: record.header.end(self.rules.lifetime).is_past(self.now),
            is_readable: self.encryption.can_read(record),
        }
    }

    /// The sessions of a user, oldest first.
    fn of_user(&self, user: UserTag) -> heed::Result<Vec<(Vec<u8>, Found)>> {
        let mut all = Vec::new();
        for key in self.rows.keys_of_user(user)? {
            if let Some(found) = self.find(&key)?.filter(|found| found.user == Some(user)) {
                all.push((key, found));
            }
        }
        all.sort_unstable_by_key(|(_, found)| found.header.created);
        Ok(all)
    }

    fn encode(
        &self,
        key: &Key<'_>,
        header: Header,
        record: &NewRecord,
    ) -> Result<(IndexEntries, Vec<u8>), StoreError> {
        let user = record.user().map(|user| self.encryption.tag(user));
        let contents = Contents { id: record.id.as_bytes(), content: &record.content };
        let mut bytes = Vec::new();
        self.encryption.write_record(key, header, user, &contents, &mut bytes)?;
        Ok((indexed(header, user), bytes))
    }

    /// Returns the record with another header. `None` if no secret in the list decrypts it.
    fn with_header(
        &mut self,
        key: &[u8],
        header: Header,
    ) -> Result<Option<(IndexEntries, Vec<u8>)>, WriteError> {
        let Self { encryption, buffer, .. } = self;
        let rewrite = |row: &[u8]| -> Result<Option<(IndexEntries, Vec<u8>)>, StoreError> {
            let record = Record::parse(row)?;
            let user = encryption.tag_of(record)?;
            let Some(contents) = encryption.decrypt(key, record, buffer)? else { return Ok(None) };
            let mut bytes = Vec::with_capacity(row.len());
            encryption.write_record(key, header, user, &contents, &mut bytes)?;
            Ok(Some((indexed(header, user), bytes)))
        };
        Ok(self.rows.read(key, rewrite)?.transpose()?.flatten())
    }

    fn remove(&mut self, key: &[u8], found: Found, reason: Reason) -> heed::Result<()> {
        self.record_end(key, reason)?;
        self.rows.set(key, Some(found.indexed()), None)
    }
}

impl<R: Rows> WriteBatch<'_, R> {
    /// Adds a session that is about to end to the events, if anybody listens.
    fn record_end(&mut self, key: &[u8], reason: Reason) -> heed::Result<()> {
        if !self.ended.is_wanted() {
            return Ok(());
        }
        let Self { rows, encryption, ended, buffer, .. } = self;
        let note = |row: &[u8]| -> Result<bool, StoreError> {
            let contents = match ended.has_room() {
                true => encryption.decrypt(key, Record::parse(row)?, buffer)?,
                false => None,
            };
            let Some(contents) = contents else { return Ok(false) };
            ended.add(reason, SessionId::from_packed(contents.id)?, codec::decode_user(contents.content)?);
            Ok(true)
        };
        // A session with an unreadable record is counted without its id.
        if rows.read(key, note)? != Some(Ok(true)) {
            ended.add_unnamed(reason);
        }
        Ok(())
    }
}

/// Writes to the whole store. They go to the data file directly.
impl WriteBatch<'_, TableRows<'_>> {
    /// Applies a write, and returns how many sessions it changed.
    pub(super) fn apply(&mut self, write: &Write) -> Result<u64, WriteError> {
        if let Some(changed) = self.apply_to_sessions(write)? {
            return Ok(changed);
        }
        Ok(match write {
            Write::Sweep { due, now } => self.sweep(due, *now)?.len() as u64,
            Write::Clear => self.clear()?,
            _ => {
                let TableRows { tables, txn, has_changed, .. } = self.rows;
                *has_changed |= secrets::drop_unused(*tables, txn, self.encryption)?;
                0
            }
        })
    }

    /// Removes the expired sessions among the due index entries, and moves the entries of the others. Returns the
    /// removed keys.
    pub(super) fn sweep(&mut self, due: &[DueEntry], now: Millis) -> heed::Result<Vec<Vec<u8>>> {
        let mut removed = Vec::new();
        for (entry, key) in due {
            let names =
                |found: &Found| expiry_entry(found.header.indexed_expiry, found.header.created)[..] == *entry;
            match self.find(key)?.filter(names) {
                Some(found) if found.header.end(self.rules.lifetime).is_past(now) => {
                    self.remove(key, found, Reason::Expired)?;
                    removed.push(key.clone());
                }
                Some(found) => self.reindex(key, found)?,
                None => _ = self.rows.tables.expiries.delete(&mut self.rows.txn, entry)?,
            }
            self.rows.has_changed = true;
        }
        self.counted.expired += removed.len() as u64;
        Ok(removed)
    }

    /// Moves a session's entry in the expiry index to its actual expiry. Encryption does not cover `indexed_expiry`,
    /// so the record does not have to be decrypted.
    fn reindex(&mut self, key: &[u8], found: Found) -> heed::Result<()> {
        let end = found.header.end(self.rules.lifetime);
        let header = Header { indexed_expiry: end.millis(), ..found.header };
        let rewrite = |row: &[u8]| {
            let mut bytes = Vec::with_capacity(row.len());
            header.write(&mut bytes);
            bytes.extend_from_slice(Record::parse(row).map_or(&[][..], |record| record.body));
            bytes
        };
        let Some(bytes) = self.rows.read(key, rewrite)? else { return Ok(()) };
        let new = (indexed(header, found.user), &bytes[..]);
        self.rows.set(key, Some(found.indexed()), Some(new))
    }

    fn clear(&mut self) -> heed::Result<u64> {
        let TableRows { tables, txn, has_changed, .. } = self.rows;
        let removed = tables.sessions.len(txn)?;
        for table in [tables.sessions, tables.users, tables.expiries] {
            table.clear(txn)?;
        }
        *has_changed |= removed > 0;
        Ok(removed)
    }
}

/// An entry of the expiry index, and the key of its session.
pub(super) type DueEntry = (Vec<u8>, Vec<u8>);

/// The first due entries of the expiry index after a position.
pub(super) fn due_entries(
    tables: Tables,
    txn: &RoTxn<'_, AnyTls>,
    after: Bound<&[u8]>,
    now: Millis,
    max: usize,
) -> heed::Result<Vec<DueEntry>> {
    let later = expiry_entry(now + 1, 0);
    let due = (after, Bound::Excluded(&later[..]));
    let mut entries = Vec::with_capacity(max);
    for entry in tables.expiries.range(txn, &due)?.take(max) {
        let (entry, key) = entry?;
        entries.push((entry.to_vec(), key.to_vec()));
    }
    Ok(entries)
}

fn indexed(header: Header, user: Option<UserTag>) -> IndexEntries {
    IndexEntries { indexed_expiry: header.indexed_expiry, created: header.created, user }
}

fn count_live(sessions: &[(Vec<u8>, Found)]) -> u64 {
    sessions.iter().filter(|(_, found)| found.is_live()).count() as u64
}
