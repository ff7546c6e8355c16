//! Which session goes first when the store is full.

use std::collections::BTreeSet;

use foldhash::quality::RandomState;
use hashlink::LinkedHashMap;

use super::users::Handle;
use crate::clock::Millis;

/// What a session takes here, as measured: two nodes, and a slot in a hash table.
pub(super) const LINE_BYTES: usize = 116;

/// The order of eviction, exactly: what has expired, then the sessions of no user, then those of users, the least
/// recently used first.
///
/// A store has one only where it has limits. Its lock is taken **before** the lock of any shard, and every call
/// that changes the store holds it from beginning to end. So what it says of the store is true while it is held: a
/// handle in it is that of the session it stands for. Without its lock a session is known by the number of its
/// creation, which no other gets.
///
/// Where the only limit is that of a user's sessions, it holds nothing but its lock: what those are, the index by user
/// and the records say.
pub(super) struct Ledger {
    has_lines: bool,
    by_expiry: BTreeSet<(Millis, u64)>,
    anonymous: LinkedHashMap<u64, Line, RandomState>,
    users: LinkedHashMap<u64, Line, RandomState>,
    bytes: usize,
}

/// A session as its place among the others is decided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) created: u64,
    pub(super) handle: Handle,
    pub(super) expires: Millis,
    /// What it takes, its line included.
    pub(super) cost: usize,
    pub(super) is_anonymous: bool,
}

impl Ledger {
    pub(super) fn new(hasher: RandomState, has_lines: bool) -> Self {
        Self {
            has_lines,
            by_expiry: BTreeSet::new(),
            anonymous: LinkedHashMap::with_hasher(hasher.clone()),
            users: LinkedHashMap::with_hasher(hasher),
            bytes: 0,
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.by_expiry.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Enters a session as the most recently used.
    pub(super) fn insert(&mut self, line: Line) {
        if !self.has_lines {
            return;
        }
        self.bytes += line.cost;
        self.by_expiry.insert((line.expires, line.created));
        let queue = if line.is_anonymous { &mut self.anonymous } else { &mut self.users };
        queue.insert(line.created, line);
    }

    pub(super) fn remove(&mut self, created: u64) {
        if let Some(line) = self.anonymous.remove(&created).or_else(|| self.users.remove(&created)) {
            self.bytes -= line.cost;
            self.by_expiry.remove(&(line.expires, created));
        }
    }

    /// Makes a session the most recently used, if it is still there.
    pub(super) fn used(&mut self, created: u64) {
        if self.users.to_back(&created).is_none() {
            self.anonymous.to_back(&created);
        }
    }

    /// Moves a session's expiry, which is a use of it.
    pub(super) fn touch(&mut self, created: u64, expires: Millis) {
        self.used(created);
        let line = match self.users.get_mut(&created) {
            None => self.anonymous.get_mut(&created),
            line => line,
        };
        if let Some(line) = line {
            self.by_expiry.remove(&(line.expires, created));
            line.expires = expires;
            self.by_expiry.insert((expires, created));
        }
    }

    fn line(&self, created: u64) -> Option<&Line> {
        self.users.get(&created).or_else(|| self.anonymous.get(&created))
    }

    /// What has expired, the longest ago first.
    pub(super) fn expired(&self, now: Millis) -> impl Iterator<Item = &Line> {
        let past = self.by_expiry.iter().take_while(move |(expires, _)| *expires <= now);
        past.filter_map(|(_, created)| self.line(*created))
    }

    /// The live sessions of no user, the least recently used first.
    pub(super) fn anonymous(&self, now: Millis) -> impl Iterator<Item = &Line> {
        self.anonymous.values().filter(move |line| line.expires > now)
    }

    /// The live sessions of users, the least recently used first.
    pub(super) fn of_users(&self, now: Millis) -> impl Iterator<Item = &Line> {
        self.users.values().filter(move |line| line.expires > now)
    }
}
