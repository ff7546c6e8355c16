//! The calls of `SessionStore`.

use std::sync::atomic::Ordering;

use super::capacity::{Fit, Replaced};
use super::core::MemoryStore;
use super::eviction::EvictionList;
use super::record::{NewRecord, Record};
use super::shard::Shard;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::events::Reason;
use crate::session::{Expiry, Session, SessionId, UserKey};
use crate::store::{Cursor, MAX_PAGE_SESSIONS, Page, SessionStore, Stats, StoredSession};
use crate::sync::{MutexGuard, lock};

/// A page of `ids` has at least so many, unless it is the last: it should be worth a call.
const MIN_IDS: usize = 500;

/// How many records `sessions` reads before it ends a page: many of them may have expired.
const LOOKS: usize = 4 * MAX_PAGE_SESSIONS;

impl SessionStore for MemoryStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.create_session(session, None)
    }

    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        self.create_session(session, Some(created))
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.use_record(id, |expires, record| record.to_stored(expires))
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        session.check_size(self.limits.max_session_bytes)?;
        let mut new = NewRecord::new(session, 0);
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut list = self.lock_list();
        if let Some(list) = list.as_deref_mut() {
            let now = self.clock.now();
            let table = shard.read();
            let old = table.find(hash, &session.id).filter(|(_, record)| record.is_live(now));
            let old = old.map(|(_, record)| Replaced {
                created: record.created(),
                has_user: record.user().is_some(),
                cost: record.cost(),
                is_of_same_user: record.user() == new.user(),
            });
            drop(table);
            let Some(old) = old else { return Ok(false) };
            self.keep_creation(&mut new, old.created);
            if self.make_room(list, &new, Some(&old), now)? == Fit::AlreadyExpired {
                self.remove_created(list, hash, old.created, Reason::Expired);
                return Ok(true);
            }
        }
        let mut table = shard.write();
        let found = table.find(hash, &session.id);
        let found = found.filter(|(_, record)| !self.clock.is_past(record.expires().millis()));
        let Some((old, record)) = found else { return Ok(false) };
        self.keep_creation(&mut new, record.created());
        self.use_now(&mut new);
        self.replace(&mut table, list.as_deref_mut(), hash, old, &new);
        shard.record_expiry(new.expires.millis(), true);
        drop(table);
        if let Some(list) = list.as_deref_mut() {
            self.trim(list, &new, self.clock.now());
        }
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
        // All writers need the lock of the eviction list. A request with an unknown cookie must not hold them up.
        if self.limits.can_evict() && shard.read().find(hash, id).is_none() {
            return Ok(());
        }
        let mut list = self.lock_list();
        let mut table = shard.write();
        if let Some((slot, _)) = table.find_to_remove(hash, id) {
            self.remove(&mut table, list.as_deref_mut(), hash, slot, Reason::Deleted);
        }
        Ok(())
    }

    fn clean(&self) -> Result<u64> {
        Ok(self.sweep())
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let now = self.clock.now();
        let copy = |_, record: Record<'_>| {
            // Read once: another thread may move it under a shared lock.
            let expires = record.expires();
            (!expires.is_past(now)).then(|| (record.created(), record.to_dated(expires)))
        };
        let mut sessions = self.of_user(user, copy);
        sessions.sort_unstable_by_key(|(created, _)| *created);
        sessions.into_iter().map(|(_, session)| session).collect()
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        let ended = self.end_by_user(user, except);
        let count = ended.count();
        self.remove_ended(ended);
        Ok(count)
    }

    fn size(&self) -> Result<u64> {
        let now = self.clock.now();
        let live = |shard: &Shard| {
            let table = shard.read();
            if shard.has_expired(now) {
                table.slab().records().filter(|record| record.is_live(now)).count()
            } else {
                table.len()
            }
        };
        Ok(self.shards.iter().map(|shard| live(shard) as u64).sum())
    }

    /// A page has whole shards: an id is always in the same one.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        let now = self.clock.now();
        let mut at = after.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let mut ids = Vec::new();
        while let Some(shard) = self.shards.get(at as usize) {
            if ids.len() >= MIN_IDS {
                return Ok((ids, Some(Cursor::from_bytes(&at.to_le_bytes()))));
            }
            let table = shard.read();
            for record in table.slab().records().filter(|record| record.is_live(now)) {
                ids.push(record.session_id()?);
            }
            at += 1;
        }
        Ok((ids, None))
    }

    /// In the order of the shards, and in a shard in the order of the ids' tags. A session keeps both when its record moves.
    fn sessions(&self, after: Cursor) -> Result<Page> {
        let now = self.clock.now();
        let start = after.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (mut at, mut tag) = ((start >> u32::BITS) as usize, u64::from(start as u32));
        let (mut page, mut looks) = (Page::default(), 0);
        while let Some(shard) = self.shards.get(at) {
            if page.is_full() || looks >= LOOKS {
                page.next = Some(Cursor::from_bytes(&((at as u64) << u32::BITS | tag).to_le_bytes()));
                break;
            }
            let table = shard.read();
            let (records, mut next) = table.page(tag, page.room());
            looks += records.len() + 1;
            let mut last = None;
            for (tag, record) in records {
                // Sessions of one tag are on one page: the cursor is a tag.
                if page.is_full() && last != Some(tag) {
                    next = Some(tag);
                    break;
                }
                last = Some(tag);
                let expires = record.expires();
                if !expires.is_past(now) {
                    page.add(record.to_dated(expires));
                }
            }
            (at, tag) = next.map_or((at + 1, 0), |tag| (at, tag));
        }
        Ok(page)
    }

    fn clear(&self) -> Result<()> {
        drop(self.detach_all());
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            last_sweep: *lock(&self.last_sweep),
            log: None,
            ..Stats::default()
        };
        let mut sessions = 0;
        for shard in &self.shards {
            let (hits, misses) = shard.gets();
            let table = shard.read();
            stats.hits += hits;
            stats.misses += misses;
            sessions += table.len() as u64;
            stats.created += table.created;
        }
        // The shards were not read at one moment. Under the lock of the list the number is exact.
        let list = self.lock_list().filter(|_| self.limits.has_capacity());
        if let Some(list) = &list {
            sessions = list.sessions() as u64;
        }
        let bytes = self.bytes(list.as_deref()) as u64;
        Ok(Stats { sessions: Some(sessions), bytes: Some(bytes), ..stats })
    }
}

impl MemoryStore {
    fn create_session(&self, session: &Session<'_>, created: Option<Millis>) -> Result<()> {
        session.check_size(self.limits.max_session_bytes)?;
        let mut new = NewRecord::new(session, 0);
        let hash = self.hash(session.id.as_bytes());
        let shard = self.shard(hash);
        let mut list = self.lock_list();
        let now = self.clock.now();
        // A creation in the future would make the session's lifetime longer.
        let created = created.map_or_else(|| self.created_now(now), |created| created.min(now));
        self.number(&mut new, created);
        if let Some(list) = list.as_deref_mut() {
            // Checked before any session ends to make room. The lock of the list keeps it true until the record is in.
            if self.is_live(hash, &session.id, now) {
                return Err(StoreError::Exists);
            }
            if self.make_room(list, &new, None, now)? == Fit::AlreadyExpired {
                shard.write().created += 1;
                self.count_expired(1);
                return Ok(());
            }
        }
        let mut table = shard.write();
        let mut entry = self.users.reserve(new.user());
        match table.find(hash, &session.id).map(|(slot, record)| (slot, record.is_live(now))) {
            None => {}
            Some((_, true)) => return Err(StoreError::Exists),
            Some((slot, false)) => {
                drop(entry);
                self.remove(&mut table, list.as_deref_mut(), hash, slot, Reason::Expired);
                entry = self.users.reserve(new.user());
            }
        }
        self.use_now(&mut new);
        let session = self.session_ref(hash, table.insert(hash, &new));
        if let Some(entry) = entry {
            entry.insert(session);
        }
        if let Some(list) = list.as_deref_mut() {
            list.insert(&new, session);
        }
        table.created += 1;
        shard.record_expiry(new.expires.millis(), true);
        drop(table);
        if let Some(list) = list.as_deref_mut() {
            self.trim(list, &new, now);
        }
        Ok(())
    }

    /// Moves the expiry of a live session, unless it is at `enough` or later. Returns whether there was a live session.
    fn move_expiry(&self, id: &SessionId, expires: Expiry, enough: Option<Millis>) -> bool {
        // A limit of users counts live sessions: none may expire later than it was counted.
        let list = if self.limits.max_sessions_per_user.is_some() { self.lock_list() } else { None };
        match self.try_move_expiry(id, expires, enough, list) {
            Some(found) => found,
            None => self.try_move_expiry(id, expires, enough, self.lock_list()) == Some(true),
        }
    }

    /// As `move_expiry`. `None` if that needs the lock of the eviction list: the list has to know of an earlier expiry.
    fn try_move_expiry(
        &self,
        id: &SessionId,
        expires: Expiry,
        enough: Option<Millis>,
        mut list: Option<MutexGuard<'_, EvictionList>>,
    ) -> Option<bool> {
        let hash = self.hash(id.as_bytes());
        let shard = self.shard(hash);
        let table = shard.read();
        let Some((slot, record)) = table.find(hash, id) else { return Some(false) };
        let (lifetime, created) = (self.limits.max_lifetime, record.created_at());
        let expires = lifetime.end(expires, created);
        // The end of its lifetime is as far as an expiry can get.
        let enough = enough.map(|enough| enough.min(lifetime.last(created)));
        let has_order = self.limits.has_capacity();
        let mut before = record.expires();
        // The lock is shared and the expiry atomic: another thread may move it between the look and the move.
        let after = loop {
            if self.clock.is_past(before.millis()) {
                return Some(false);
            }
            if enough.is_some_and(|enough| before.millis() >= enough) {
                break before;
            }
            if has_order && list.is_none() && expires.millis() < before.millis() {
                return None;
            }
            match record.move_expires(before, expires) {
                Ok(()) => break expires,
                Err(moved) => before = moved,
            }
        };
        let is_earlier = after.millis() < before.millis();
        if has_order {
            table.slab().set_used(slot, self.uses.next());
            if let Some(list) = list.as_deref_mut().filter(|_| is_earlier) {
                list.expires_earlier(after.millis(), self.session_ref(hash, slot));
            }
        }
        shard.record_expiry(after.millis(), is_earlier);
        Some(true)
    }
}
