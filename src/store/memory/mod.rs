//! Sessions in the memory of the process.
//!
//! A flat table: an index of words that point into a slab, in shards of our own. `docs/design.md` has what else was
//! measured.

#[cfg(any(test, fuzzing))]
pub mod check;
mod index;
mod ledger;
mod options;
mod record;
mod room;
mod shard;
mod slab;
mod sweep;
mod table;
mod users;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

pub use options::Limits;

use self::ledger::{Ledger, Line};
use self::record::{Draft, Record};
use self::room::Room;
use self::shard::Shard;
use self::slab::Place;
use self::table::Table;
use self::users::{Handle, UserIndex};
use super::{Cursor, SessionStore, Stats, StoredSession, Sweep};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId, UserKey, UserKeyBuf};
use crate::sync::{Mutex, MutexGuard, Padded, lock};

/// Enough that threads seldom meet, and that at a million sessions the index of a shard has some 10 000 words: growing
/// one takes well under a millisecond. A [`Handle`] has bits for 128.
const SHARDS: usize = if cfg!(shuttle) { 2 } else { 128 };

/// A store in memory, for any number of threads.
///
/// **Locking**: the ledger (only in a store with limits) before the lock of a session's shard, that before a shard of
/// the index by user. At most one lock of each kind is held at a time, save that `of_user` holds those of several
/// shards, shared and in their order, where no one waits for a shard who holds another.
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

/// The shard of a hash, by its lowest bits: an index takes its own from the highest.
///
/// The last shard gets twice as much as the first, and each a little more than the one before. So they do not all
/// outgrow their tables at once, and what one leaves the next smaller one soon takes: with equal shards a million
/// sessions took 5 bytes each more.
fn shard_of(hash: u64, shards: usize) -> usize {
    const PARTS: usize = 4096;
    const FULL: usize = 128;
    /// 2 to the power of 1 / FULL.
    const STEP: f64 = 1.005_429_901_112_802_8;
    static SHARDS: [u8; PARTS] = {
        let (mut of_part, mut part, mut shard, mut end) = ([0; PARTS], 0, 0, STEP);
        while part < PARTS {
            while 1.0 + part as f64 / PARTS as f64 >= end && shard < FULL - 1 {
                (shard, end) = (shard + 1, end * STEP);
            }
            of_part[part] = shard as u8;
            part += 1;
        }
        of_part
    };
    usize::from(SHARDS[hash as usize % PARTS]) * shards / FULL
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

    /// `shards` is 128 at most.
    fn with_shards(limits: Limits, clock: Arc<dyn Clock>, shards: usize) -> Self {
        let hasher = RandomState::default();
        Self {
            shards: (0..shards).map(|_| Padded::default()).collect(),
            users: UserIndex::new(shards, hasher.clone()),
            ledger: limits
                .can_evict()
                .then(|| Mutex::new(Ledger::new(hasher.clone(), limits.has_capacity()))),
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
    fn use_record<T>(&self, id: &SessionId, read: impl FnOnce(Record<'_>) -> Result<T>) -> Result<Option<T>> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let table = shard.read();
        // The clock is read under the lock: what was live then is what is given.
        let found = table.find(hash, id).map(|(_, record)| record);
        let found = found.filter(|record| !self.clock.is_past(record.expires().millis()));
        shard.count_get(found.is_some());
        let Some(record) = found else { return Ok(None) };
        let given = read(record);
        // By the number of its creation: its place may be another's when the ledger is locked.
        let used = self.limits.has_capacity().then(|| record.created());
        drop(table);
        if let (Some(created), Some(mut ledger)) = (used, self.lock_ledger()) {
            ledger.used(created);
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

    /// The handle of a place in a hash's shard.
    fn handle(&self, hash: u64, place: Place) -> Handle {
        Handle::new(shard_of(hash, self.shards.len()), place)
    }

    fn is_live(&self, hash: u64, id: &SessionId, now: Millis) -> bool {
        self.shard(hash).read().find(hash, id).is_some_and(|(_, record)| record.is_live(now))
    }

    /// What `read` makes of a user's sessions, live or not, all as they are at one moment.
    fn of_user<T>(&self, user: UserKey<'_>, mut read: impl FnMut(Handle, Record<'_>) -> T) -> Vec<T> {
        // The handles say which shards to lock, and under the locks of these they are asked for again: as no one can
        // change them then, they are the truth. Should one be of yet another shard, the second try locks all of them.
        let mut shards: Vec<usize> = self.users.handles(user).into_iter().map(Handle::shard).collect();
        shards.dedup();
        loop {
            let tables: Vec<_> = shards.iter().map(|&shard| self.shards[shard].0.read()).collect();
            let table = |handle: Handle| shards.binary_search(&handle.shard()).map(|at| &tables[at]);
            let handles = self.users.handles(user);
            let found: Result<Vec<_>, usize> =
                handles.iter().map(|&handle| Ok((handle, table(handle)?.slab.get(handle.place())))).collect();
            if let Ok(mut records) = found {
                // Another user's may have the same part of a hash.
                records.retain(|(_, record)| record.user() == Some(user));
                return records.into_iter().map(|(handle, record)| read(handle, record)).collect();
            }
            drop(tables);
            shards = (0..self.shards.len()).collect();
        }
    }

    /// Enters a record that has come into a table of sessions in all others. Under the lock of its shard.
    fn inserted(&self, ledger: Option<&mut Ledger>, draft: &Draft, handle: Handle) {
        self.users.insert(draft.user(), handle);
        if let Some(ledger) = ledger {
            ledger.insert(draft.line(handle));
        }
    }

    /// Tells all tables but that of sessions that a record was put in the place of another. Under the lock of its
    /// shard. `was_of` is given where the user is another now.
    fn replaced(
        &self,
        ledger: Option<&mut Ledger>,
        draft: &Draft,
        was_of: Option<Option<UserKeyBuf>>,
        old: Handle,
        new: Handle,
    ) {
        if was_of.is_some() || old != new {
            let before = was_of.as_ref().map_or(draft.user(), |user| user.as_ref().map(UserKeyBuf::as_key));
            self.users.replace(before, old, draft.user(), new);
        }
        if let Some(ledger) = ledger {
            ledger.remove(draft.created);
            ledger.insert(draft.line(new));
        }
    }

    /// Takes a record out of all tables. Under the lock of its shard.
    fn remove(
        &self,
        table: &mut Table,
        ledger: Option<&mut Ledger>,
        hash: u64,
        place: Place,
        reason: Reason,
    ) {
        let record = table.slab.get(place);
        self.users.remove(record.user(), self.handle(hash, place));
        if let Some(ledger) = ledger {
            ledger.remove(record.created());
        }
        table.remove(hash, place);
        match reason {
            Reason::Asked => {}
            Reason::Expired => self.count_expired(1),
            Reason::Evicted => _ = self.evicted.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn count_expired(&self, sessions: u64) {
        self.expired.fetch_add(sessions, Ordering::Relaxed);
    }

    /// Moves the expiry of a live session, unless it is at `enough` or after it, and tells whether there was one.
    fn move_expiry(&self, id: &SessionId, expires: Expiry, enough: Option<Millis>) -> bool {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let ledger = self.lock_ledger();
        let table = shard.read();
        let Some((_, record)) = table.find(hash, id) else { return false };
        let mut before = record.expires();
        // The lock is shared, and the expiry atomic: another may move it between the look and the move.
        let after = loop {
            if self.clock.is_past(before.millis()) {
                return false;
            }
            if enough.is_some_and(|enough| before.millis() >= enough) {
                break before;
            }
            match record.move_expires(before, expires) {
                Ok(()) => break expires,
                Err(meanwhile) => before = meanwhile,
            }
        };
        if let Some(mut ledger) = ledger {
            ledger.touch(record.created(), after.millis());
        }
        shard.note_expiry(after.millis(), after.millis() < before.millis());
        true
    }

    /// Removes a session by its line in the ledger, under whose lock its handle is good.
    fn remove_line(&self, ledger: &mut Ledger, line: &Line, reason: Reason) {
        let mut table = self.shards[line.handle.shard()].0.write();
        let place = line.handle.place();
        let record = table.slab.try_get(place).filter(|record| record.created() == line.created);
        if let Some(hash) = record.map(|record| self.hash(record.id())) {
            self.remove(&mut table, Some(ledger), hash, place, reason);
        }
    }
}

impl SessionStore for MemoryStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        session.check_size(self.limits.max_session_bytes)?;
        let draft = Draft::new(session, self.next_created.fetch_add(1, Ordering::Relaxed));
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        if let Some(ledger) = ledger.as_deref_mut() {
            // Before any session is ended to make room. It holds until the record is in, as no one else can write.
            if self.is_live(hash, &session.id, now) {
                return Err(StoreError::Exists);
            }
            if self.make_room(ledger, &draft, None, now)? == Room::NoneForTheDead {
                shard.write().created += 1;
                self.count_expired(1);
                return Ok(());
            }
        }
        let mut table = shard.write();
        match table.find(hash, &session.id).map(|(place, record)| (place, record.is_live(now))) {
            None => {}
            Some((_, true)) => return Err(StoreError::Exists),
            Some((place, false)) => {
                self.remove(&mut table, ledger.as_deref_mut(), hash, place, Reason::Expired)
            }
        }
        let place = table.insert(hash, &draft);
        self.inserted(ledger.as_deref_mut(), &draft, self.handle(hash, place));
        table.created += 1;
        shard.note_expiry(session.expires.millis(), true);
        Ok(())
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.use_record(id, |record| record.to_stored())
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        session.check_size(self.limits.max_session_bytes)?;
        let mut draft = Draft::new(session, 0);
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        if let Some(ledger) = ledger.as_deref_mut() {
            let table = shard.read();
            let old = table.find(hash, &session.id).filter(|(_, record)| record.is_live(now));
            let old = old.map(|(place, record)| record.line(self.handle(hash, place)));
            drop(table);
            let Some(old) = old else { return Ok(false) };
            if self.make_room(ledger, &draft, Some(&old), now)? == Room::NoneForTheDead {
                self.remove_line(ledger, &old, Reason::Expired);
                return Ok(true);
            }
        }
        let mut table = shard.write();
        let Some((old, record)) = table.find(hash, &session.id).filter(|(_, record)| record.is_live(now))
        else {
            return Ok(false);
        };
        draft.created = record.created();
        let was_of = (record.user() != draft.user()).then(|| record.user().map(UserKey::to_buf));
        let new = table.replace(hash, old, &draft);
        self.replaced(ledger.as_deref_mut(), &draft, was_of, self.handle(hash, old), self.handle(hash, new));
        shard.note_expiry(session.expires.millis(), true);
        Ok(true)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        Ok(self.move_expiry(id, expires, None))
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        Ok(self.move_expiry(id, expires, Some(enough)))
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        if shard.read().find(hash, id).is_none() {
            return Ok(());
        }
        let mut ledger = self.lock_ledger();
        let mut table = shard.write();
        if let Some((place, _)) = table.find(hash, id) {
            self.remove(&mut table, ledger.as_deref_mut(), hash, place, Reason::Asked);
        }
        Ok(())
    }

    fn clean(&self) -> Result<u64> {
        Ok(self.sweep())
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let now = self.clock.now();
        let live =
            |_, record: Record<'_>| record.is_live(now).then(|| (record.created(), record.to_stored()));
        let mut sessions: Vec<_> = self.of_user(user, live).into_iter().flatten().collect();
        sessions.sort_unstable_by_key(|(created, _)| *created);
        sessions.into_iter().map(|(_, session)| session).collect()
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        let mut ledger = self.lock_ledger();
        let now = self.clock.now();
        let mut ended = 0;
        // By id: an update may put a session in another place meanwhile.
        for id in self.of_user(user, |_, record| record.session_id()) {
            let id = id?;
            if except == Some(&id) {
                continue;
            }
            let hash = self.hash(id.as_bytes());
            let mut table = self.shard(hash).write();
            // An update may have given it to another user.
            let found = table.find(hash, &id).filter(|(_, record)| record.user() == Some(user));
            if let Some((place, record)) = found {
                ended += u64::from(record.is_live(now));
                self.remove(&mut table, ledger.as_deref_mut(), hash, place, Reason::Asked);
            }
        }
        Ok(ended)
    }

    fn size(&self) -> Result<u64> {
        let now = self.clock.now();
        let live = |shard: &Shard| {
            let table = shard.read();
            if shard.has_expired(now) {
                table.slab.records().filter(|record| record.is_live(now)).count()
            } else {
                table.len()
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
            for record in table.slab.records().filter(|record| record.is_live(now)) {
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
            stats.sessions += table.len() as u64;
            stats.bytes += table.bytes as u64;
            stats.created += table.created;
        }
        // The shards were not seen at one moment; what must never exceed a limit is.
        if let Some(ledger) = self.lock_ledger().filter(|_| self.limits.has_capacity()) {
            (stats.sessions, stats.bytes) = (ledger.sessions() as u64, ledger.bytes() as u64);
        }
        Ok(stats)
    }
}
