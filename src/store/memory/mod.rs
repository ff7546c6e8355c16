//! Sessions in the memory of the process.
//!
//! The table is hashbrown's, in shards of our own. DashMap is the same thing ready made, but a sweep of it either holds
//! a shard from end to end or reaches into its raw tables; its locks cannot be handed over, nor checked by a model.

mod ledger;
mod options;
mod record;
mod room;
mod shard;
mod sweep;
mod users;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hashbrown::hash_table::Entry;

pub use options::Limits;

use self::ledger::Ledger;
use self::record::Record;
use self::room::Room;
use self::shard::{Shard, Table};
use self::users::UserIndex;
use super::{Cursor, SessionStore, Stats, StoredSession, Sweep};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::sync::{Mutex, MutexGuard, Padded, lock};

/// Enough that at a million sessions a shard has some 4000: growing one takes well under a millisecond.
const SHARDS: usize = if cfg!(shuttle) { 2 } else { 256 };

/// A store in memory, for any number of threads.
///
/// **Locking**: the ledger (only in a store with limits) before the lock of a session's shard, that before a shard of
/// the index by user. At most one lock of each kind is held at a time.
pub struct MemoryStore {
    shards: Box<[Padded<Shard>]>,
    users: UserIndex,
    ledger: Option<Mutex<Ledger>>,
    limits: Limits,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    next_created: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    last_sweep: Mutex<Option<Sweep>>,
}

/// Why a record goes, for the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Asked,
    Expired,
    Evicted,
}

/// Hash tables take their bits from both ends of a hash: the seven highest, and the lowest.
fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 40) as usize & (shards - 1)
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Limits::default(), Arc::new(SystemClock))
    }
}

impl MemoryStore {
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self::with_shards(limits, clock, SHARDS)
    }

    /// `shards` is a power of two.
    fn with_shards(limits: Limits, clock: Arc<dyn Clock>, shards: usize) -> Self {
        let hasher = RandomState::default();
        Self {
            shards: (0..shards).map(|_| Padded::default()).collect(),
            users: UserIndex::new(shards, hasher.clone()),
            ledger: limits.can_evict().then(|| Mutex::new(Ledger::new(hasher.clone()))),
            limits,
            hasher,
            clock,
            next_created: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            last_sweep: Mutex::new(None),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Calls `read` with a live session's expiry and content, under the lock of its shard: `read` must be short and
    /// must not call the store. This is [`SessionStore::get`] without the copy.
    ///
    /// # Errors
    /// `Corrupt` if its record cannot be read.
    pub fn get_with<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Option<T>> {
        self.use_record(id, |record| record.content().map(|content| read(record.expires(), content)))
    }

    /// Calls `read` with a live record under the lock of its shard, and counts that as a use.
    fn use_record<T>(&self, id: &SessionId, read: impl FnOnce(&Record) -> Result<T>) -> Result<Option<T>> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let table = shard.read();
        // The clock is read under the lock: what was live then is what is given.
        let found = table.find(hash, id).filter(|record| !self.clock.is_past(record.expires().millis()));
        shard.count_get(found.is_some());
        let Some(record) = found else { return Ok(None) };
        let given = read(record);
        let used = self.limits.has_capacity().then(|| record.clone());
        drop(table);
        if let (Some(record), Some(mut ledger)) = (used, self.lock_ledger()) {
            ledger.used(&record);
        }
        given.map(Some)
    }

    fn hash(&self, id: &[u8]) -> u64 {
        self.hasher.hash_one(id)
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[shard_of(hash, self.shards.len())].0
    }

    fn lock_ledger(&self) -> Option<MutexGuard<'_, Ledger>> {
        self.ledger.as_ref().map(lock)
    }

    fn is_live(&self, hash: u64, id: &SessionId, now: Millis) -> bool {
        self.shard(hash).read().find(hash, id).is_some_and(|record| record.is_live(now))
    }

    /// Puts a record in the place of another in all tables, but the table of sessions, where it is already.
    fn replaced(&self, table: &mut Table, ledger: Option<&mut Ledger>, old: &Record, new: &Record) {
        table.bytes = table.bytes + new.bytes() - old.bytes();
        self.users.replace(old, new);
        if let Some(ledger) = ledger {
            ledger.remove(old);
            ledger.insert(new);
        }
    }

    /// Takes a record that has left the table of sessions out of all others. Under the lock of its shard.
    fn removed(&self, table: &mut Table, ledger: Option<&mut Ledger>, record: &Record, reason: Reason) {
        table.bytes -= record.bytes();
        self.users.remove(record);
        if let Some(ledger) = ledger {
            ledger.remove(record);
        }
        match reason {
            Reason::Asked => {}
            Reason::Expired => self.count_expired(1),
            Reason::Evicted => _ = self.evicted.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn count_expired(&self, sessions: u64) {
        self.expired.fetch_add(sessions, Ordering::Relaxed);
    }

    /// Removes a record if it is still the one of its id.
    fn remove_record(&self, ledger: Option<&mut Ledger>, record: &Record, reason: Reason) {
        let hash = self.hash(record.id());
        let mut table = self.shard(hash).write();
        if let Ok(entry) = table.records.find_entry(hash, |other| other == record) {
            entry.remove();
            self.removed(&mut table, ledger, record, reason);
        }
    }
}

impl SessionStore for MemoryStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        session.check_size(self.limits.max_session_bytes)?;
        let record = Record::new(session, self.next_created.fetch_add(1, Ordering::Relaxed));
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        if let Some(ledger) = ledger.as_deref_mut() {
            // Before any session is ended to make room. It holds until the record is in, as no one else can write.
            if self.is_live(hash, &session.id, now) {
                return Err(StoreError::Exists);
            }
            if self.make_room(ledger, &record, None, now)? == Room::NoneForTheDead {
                shard.write().created += 1;
                self.count_expired(1);
                return Ok(());
            }
        }
        let mut table = shard.write();
        let displaced =
            match table.records.entry(hash, |other| other.id() == record.id(), |other| self.hash(other.id()))
            {
                Entry::Vacant(entry) => {
                    entry.insert(record.clone());
                    None
                }
                Entry::Occupied(entry) if entry.get().is_live(now) => return Err(StoreError::Exists),
                Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), record.clone())),
            };
        match displaced {
            None => {
                table.bytes += record.bytes();
                self.users.insert(&record);
                if let Some(mut ledger) = ledger {
                    ledger.insert(&record);
                }
            }
            Some(old) => {
                self.replaced(&mut table, ledger.as_deref_mut(), &old, &record);
                self.count_expired(1);
            }
        }
        table.created += 1;
        shard.note_expiry(session.expires.millis(), true);
        Ok(())
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.use_record(id, Record::to_stored)
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        session.check_size(self.limits.max_session_bytes)?;
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        if let Some(ledger) = ledger.as_deref_mut() {
            let old = shard.read().find(hash, &session.id).filter(|record| record.is_live(now)).cloned();
            let Some(old) = old else { return Ok(false) };
            let record = Record::new(session, old.created());
            if self.make_room(ledger, &record, Some(&old), now)? == Room::NoneForTheDead {
                self.remove_record(Some(ledger), &old, Reason::Expired);
                return Ok(true);
            }
        }
        let mut table = shard.write();
        let Some(mut entry) = table.find_entry(hash, &session.id).filter(|entry| entry.get().is_live(now))
        else {
            return Ok(false);
        };
        let record = Record::new(session, entry.get().created());
        let old = std::mem::replace(entry.get_mut(), record.clone());
        self.replaced(&mut table, ledger.as_deref_mut(), &old, &record);
        shard.note_expiry(session.expires.millis(), true);
        Ok(true)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let ledger = self.lock_ledger();
        // Shared: the expiry is atomic, and readers see the one or the other.
        let table = shard.read();
        let found = table.find(hash, id).filter(|record| !self.clock.is_past(record.expires().millis()));
        let Some(record) = found else { return Ok(false) };
        let is_earlier = expires.millis() < record.expires().millis();
        match ledger {
            Some(mut ledger) => ledger.touch(record, expires),
            None => record.set_expires(expires),
        }
        shard.note_expiry(expires.millis(), is_earlier);
        Ok(true)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        if shard.read().find(hash, id).is_none() {
            return Ok(());
        }
        let mut ledger = self.lock_ledger();
        let mut table = shard.write();
        if let Some(entry) = table.find_entry(hash, id) {
            let (record, _) = entry.remove();
            self.removed(&mut table, ledger.as_deref_mut(), &record, Reason::Asked);
        }
        Ok(())
    }

    fn clean(&self) -> Result<u64> {
        Ok(self.sweep())
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let now = self.clock.now();
        let mut records = self.users.records(user);
        records.retain(|record| record.is_live(now));
        records.sort_unstable_by_key(Record::created);
        records.iter().map(Record::to_stored).collect()
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        let mut ended = 0;
        for record in self.users.records(user) {
            if except.is_some_and(|id| id.as_bytes() == record.id()) {
                continue;
            }
            let hash = self.hash(record.id());
            let mut table = self.shard(hash).write();
            // By id and user: an update may have put another record in its place meanwhile.
            let same = |other: &Record| other.id() == record.id() && other.user() == Some(user);
            if let Ok(entry) = table.records.find_entry(hash, same) {
                let (record, _) = entry.remove();
                ended += u64::from(record.is_live(now));
                self.removed(&mut table, ledger.as_deref_mut(), &record, Reason::Asked);
            }
        }
        Ok(ended)
    }

    fn size(&self) -> Result<u64> {
        let now = self.clock.now();
        let live = |shard: &Shard| {
            let table = shard.read();
            if shard.has_expired(now) {
                table.records.iter().filter(|record| record.is_live(now)).count()
            } else {
                table.records.len()
            }
        };
        Ok(self.shards.iter().map(|shard| live(&shard.0) as u64).sum())
    }

    /// By whole shards, as an id is in the same one for ever; as many as it takes to be worth a call.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        const ENOUGH: usize = 500;
        let now = self.clock.now();
        let mut at = after.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let mut ids = Vec::new();
        while let Some(shard) = self.shards.get(at as usize) {
            if ids.len() >= ENOUGH {
                return Ok((ids, Some(Cursor::from_bytes(&at.to_le_bytes()))));
            }
            let table = shard.0.read();
            for record in table.records.iter().filter(|record| record.is_live(now)) {
                ids.push(record.session_id()?);
            }
            at += 1;
        }
        Ok((ids, None))
    }

    fn clear(&self) -> Result<()> {
        self.remove_all();
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            last_sweep: *lock(&self.last_sweep),
            ..Stats::default()
        };
        for Padded(shard) in &self.shards {
            let (hits, misses) = shard.gets();
            let table = shard.read();
            stats.hits += hits;
            stats.misses += misses;
            stats.sessions += table.records.len() as u64;
            stats.bytes += table.bytes as u64;
            stats.created += table.created;
        }
        // The shards were not seen at one moment; what must never exceed a limit is.
        if let Some(ledger) = self.lock_ledger() {
            (stats.sessions, stats.bytes) = (ledger.sessions() as u64, ledger.bytes() as u64);
        }
        Ok(stats)
    }
}
