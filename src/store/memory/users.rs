//! The index from a user to the records of that user's sessions.

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::BuildHasher;

use super::record::Record;
use crate::session::UserKey;
use crate::sync::{Mutex, Padded, lock};

/// Users by the hash of their key, in shards.
///
/// **Locking**: each call locks one shard and nothing else. It may be called under the lock of a session's shard,
/// never the other way.
pub(super) struct UserIndex {
    shards: Box<[Padded<Mutex<HashTable<Slot>>>]>,
    hasher: RandomState,
}

/// The sessions of one user. Nearly every user has one: its slot is a pointer to the record, which holds the key.
enum Slot {
    One(Record),
    Many(Box<Many>),
}

struct Many {
    user: Box<[u8]>,
    /// By address, so that one of a hundred thousand sessions of a user is removed as fast as one of two.
    sessions: HashTable<Record>,
}

impl UserIndex {
    pub(super) fn new(shards: usize, hasher: RandomState) -> Self {
        Self { shards: (0..shards).map(|_| Padded::default()).collect(), hasher }
    }

    /// Adds a record; one of no user is left out.
    pub(super) fn insert(&self, record: &Record) {
        let Some(user) = record.user() else { return };
        let hash = self.hash(user);
        let mut table = lock(self.shard(hash));
        match table.entry(hash, |slot| slot.is_of(user), |slot| self.hash_slot(slot)) {
            Entry::Vacant(entry) => {
                entry.insert(Slot::One(record.clone()));
            }
            Entry::Occupied(mut entry) => self.add(entry.get_mut(), user, record),
        }
    }

    /// Removes a record.
    pub(super) fn remove(&self, record: &Record) {
        let Some(user) = record.user() else { return };
        let hash = self.hash(user);
        let mut table = lock(self.shard(hash));
        let Ok(mut entry) = table.find_entry(hash, |slot| slot.is_of(user)) else { return };
        let is_empty = match entry.get_mut() {
            Slot::One(one) => one == record,
            Slot::Many(many) => {
                let address = self.hasher.hash_one(record);
                if let Ok(entry) = many.sessions.find_entry(address, |other| other == record) {
                    entry.remove();
                }
                many.sessions.is_empty()
            }
        };
        if is_empty {
            entry.remove();
        }
    }

    /// Puts a record in the place of another: in one step where both are of one user.
    pub(super) fn replace(&self, old: &Record, new: &Record) {
        match (old.user(), new.user()) {
            (Some(before), Some(now)) if before == now => {
                let hash = self.hash(now);
                let mut table = lock(self.shard(hash));
                let Some(slot) = table.find_mut(hash, |slot| slot.is_of(now)) else { return };
                match slot {
                    Slot::One(one) => *one = new.clone(),
                    Slot::Many(many) => {
                        let address = self.hasher.hash_one(old);
                        if let Ok(entry) = many.sessions.find_entry(address, |other| other == old) {
                            entry.remove();
                        }
                        many.insert(new, &self.hasher);
                    }
                }
            }
            _ => {
                self.insert(new);
                self.remove(old);
            }
        }
    }

    /// The records of a user, in no order.
    pub(super) fn records(&self, user: UserKey<'_>) -> Vec<Record> {
        let hash = self.hash(user);
        match lock(self.shard(hash)).find(hash, |slot| slot.is_of(user)) {
            None => Vec::new(),
            Some(Slot::One(record)) => vec![record.clone()],
            Some(Slot::Many(many)) => many.sessions.iter().cloned().collect(),
        }
    }

    fn add(&self, slot: &mut Slot, user: UserKey<'_>, record: &Record) {
        if let Slot::One(first) = slot {
            let mut many = Many { user: user.as_bytes().into(), sessions: HashTable::new() };
            many.insert(first, &self.hasher);
            *slot = Slot::Many(Box::new(many));
        }
        if let Slot::Many(many) = slot {
            many.insert(record, &self.hasher);
        }
    }

    fn hash(&self, user: UserKey<'_>) -> u64 {
        self.hasher.hash_one(user.as_bytes())
    }

    fn hash_slot(&self, slot: &Slot) -> u64 {
        self.hasher.hash_one(slot.user())
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<Slot>> {
        &self.shards[super::shard_of(hash, self.shards.len())].0
    }
}

impl Slot {
    fn user(&self) -> &[u8] {
        match self {
            Self::One(record) => record.user().map(UserKey::as_bytes).unwrap_or_default(),
            Self::Many(many) => &many.user,
        }
    }

    fn is_of(&self, user: UserKey<'_>) -> bool {
        self.user() == user.as_bytes()
    }
}

impl Many {
    fn insert(&mut self, record: &Record, hasher: &RandomState) {
        self.sessions
            .insert_unique(hasher.hash_one(record), record.clone(), |record| hasher.hash_one(record));
    }
}
