//! The end of many sessions at once: all sessions of a user, and all sessions.

use super::core::MemoryStore;
use super::eviction::EvictionList;
use super::record::Record;
use super::shard::shard_of;
use super::slot::SessionRef;
use super::sweep::Pace;
use super::table::Table;
use super::user_index::DetachedUsers;
use crate::clock::Millis;
use crate::events::Reason;
use crate::session::{SessionId, UserKey};
use crate::sync::unlock_fair;

/// `end_by_user` itself removes at most so many records. That takes up to a millisecond, which an event loop can afford.
/// The model checker takes the other path, which has more steps.
pub(super) const DIRECT: usize = if cfg!(feature = "shuttle") { 0 } else { 1000 };

/// How many records `remove_ended` removes in a step.
const STEP: usize = 250;

/// Sessions that [`MemoryStore::end_by_user`] ended. Give it to [`MemoryStore::remove_ended`].
///
/// If it is dropped instead, the next sweep removes the records.
#[must_use = "remove_ended removes the records"]
#[derive(Debug)]
pub struct Ended {
    count: u64,
    records: Vec<EndedRecord>,
}

/// The record of an ended session, by its creation number. A later session of the same id has another number.
#[derive(Debug, Clone, Copy)]
struct EndedRecord {
    hash: u64,
    created: u64,
}

impl Ended {
    /// How many live sessions have ended.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether all records are removed already, so that `remove_ended` has nothing to do.
    pub fn is_removed(&self) -> bool {
        self.records.is_empty()
    }
}

/// The memory of the sessions that [`MemoryStore::detach_all`] removed. Dropping it takes some 100 ms for a million
/// sessions.
#[must_use = "dropping it takes time: do that on a thread that may wait"]
pub struct Cleared {
    tables: Vec<Table>,
    _users: DetachedUsers,
    _list: Option<EvictionList>,
}

impl Cleared {
    /// How many sessions there were, expired ones included.
    pub fn count(&self) -> u64 {
        self.tables.iter().map(|table| table.len() as u64).sum()
    }
}

impl MemoryStore {
    /// Ends the live sessions of a user, except one. No call that begins after it sees them.
    ///
    /// It takes some milliseconds for 50 000 sessions. The records of more than a thousand stay until `remove_ended` or
    /// a sweep removes them.
    pub fn end_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Ended {
        let mut list = self.lock_list();
        let now = self.clock.now();
        let mut last_shard = None;
        let end = |session: SessionRef, record: Record<'_>| {
            let is_kept = except.is_some_and(|id| id.as_bytes() == record.id());
            if is_kept || !record.end(now) {
                return None;
            }
            // Under the lock of the shard, and once is enough: they come shard by shard.
            if last_shard.replace(session.shard()) != Some(session.shard()) {
                self.shards[session.shard()].record_expiry(record.expires().millis(), true);
            }
            Some(EndedRecord { hash: self.hash(record.id()), created: record.created() })
        };
        let mut records = self.of_user(user, end);
        let count = records.len() as u64;
        if records.len() <= DIRECT {
            self.remove_records(list.as_deref_mut(), &records);
            records.clear();
        } else if let Some(list) = list.as_deref_mut() {
            self.by_shard(&records).for_each(|(shard, _)| list.ended(shard));
        }
        Ended { count, records }
    }

    /// Removes the records of ended sessions, in steps as a sweep does. Later sessions of the same ids stay.
    pub fn remove_ended(&self, ended: Ended) {
        let mut pace = Pace::start();
        for step in ended.records.chunks(STEP) {
            let mut list = self.lock_list();
            self.remove_records(list.as_deref_mut(), step);
            pace.end_step(list, None);
        }
    }

    fn remove_records(&self, mut list: Option<&mut EvictionList>, records: &[EndedRecord]) {
        for (shard, records) in self.by_shard(records) {
            let mut table = self.shards[shard].write();
            for &EndedRecord { hash, created } in records {
                let found = table.find_created(hash, created).filter(|(_, record)| record.is_ended());
                if let Some((slot, _)) = found {
                    self.remove(&mut table, list.as_deref_mut(), hash, slot, Reason::Revoked);
                }
            }
            unlock_fair(table);
        }
    }

    /// Records in the order of their shards, by shard.
    fn by_shard<'a>(&self, records: &'a [EndedRecord]) -> impl Iterator<Item = (usize, &'a [EndedRecord])> {
        let shard = |record: &EndedRecord| shard_of(record.hash, self.shards.len());
        let parts = records.chunk_by(move |one, other| shard(one) == shard(other));
        parts.map(move |part| (shard(&part[0]), part))
    }

    /// Removes all sessions from the store at one moment, without freeing their memory. A later call sees an empty store.
    /// The time does not depend on the number of sessions.
    pub fn detach_all(&self) -> Cleared {
        let mut list = self.lock_list();
        // These locks are held until the user index is empty too. So a session that is created at the same time is in all
        // tables or in none.
        let mut tables: Vec<_> = self.shards.iter().map(|shard| shard.write()).collect();
        let users = self.users.detach();
        let list = list.as_deref_mut().map(|list| std::mem::replace(list, self.new_list()));
        let detached = tables.iter_mut().map(|table| table.detach()).collect();
        self.shards.iter().for_each(|shard| shard.set_earliest(Millis::MAX));
        Cleared { tables: detached, _users: users, _list: list }
    }
}
