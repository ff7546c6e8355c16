//! The newest states of the rows that are in the log and not yet in the data file.
//!
//! **Invariants**
//! - A reader looks here first, and opens its view of the data file afterwards. An entry is removed only after its
//!   row is in the data file, and only if it has not changed since. So a reader without an entry finds the row in its
//!   view.
//! - Entries change only under the gate: the writer enters a batch, and a drain removes committed rows. To see a
//!   consistent state of the overlay and the data file, open the view while holding the gate.
//! - The gate contains the rows of a batch that is decided and not yet entered.
//!
//! **Locking**: lock the gate before the shards of the maps. Never lock two shards at the same time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry as Slot};
use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::points;
use crate::store::file::encryption::UserTag;

/// The key of a row in the table of sessions.
pub(in crate::store::file) type RowKey = Arc<[u8]>;
/// A row. `None` means that it was deleted.
pub(in crate::store::file) type RowState = Option<Arc<[u8]>>;

/// Enough shards that a scan of one does not delay the writer for long.
const SHARDS: usize = 128;

pub(in crate::store::file) struct Overlay {
    rows: DashMap<RowKey, OverlayEntry, RandomState>,
    /// The users of the rows, with the keys of their sessions.
    users: DashMap<UserTag, Keys, RandomState>,
    gate: Mutex<DecidedRows>,
    len: AtomicUsize,
    /// The number of rows here that are not deletions.
    puts: AtomicUsize,
    /// The number of keys here that have a row in the data file.
    in_base: AtomicUsize,
    /// The number of events after which entries may say wrongly that the data file lacks their row: recoveries and
    /// failed drains.
    failures: AtomicU64,
    /// The number of these events that were followed by a complete drain.
    past_failures: AtomicU64,
}

#[derive(Debug, Clone)]
pub(in crate::store::file) struct OverlayEntry {
    pub row: RowState,
    /// The user of the row.
    pub user: Option<UserTag>,
    /// The end of its batch in the log.
    pub lsn: u64,
    /// Whether the data file has a row with this key.
    pub in_base: bool,
}

/// The rows of a batch that is decided and not yet entered.
pub(in crate::store::file) type DecidedRows = HashMap<RowKey, DecidedRow, RandomState>;

#[derive(Debug, Clone)]
pub(in crate::store::file) struct DecidedRow {
    pub row: RowState,
    pub user: Option<UserTag>,
    pub in_base: bool,
}

/// Most users have one session.
enum Keys {
    One(RowKey),
    Many(HashSet<RowKey, RandomState>),
}

impl Keys {
    fn insert(&mut self, key: RowKey) {
        match self {
            Self::Many(keys) => _ = keys.insert(key),
            Self::One(one) if *one == key => {}
            Self::One(one) => {
                let both = [Arc::clone(one), key];
                *self = Self::Many(both.into_iter().collect());
            }
        }
    }

    /// Returns whether the user has no more keys.
    fn remove(&mut self, key: &RowKey) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Many(keys) => {
                keys.remove(key);
                keys.is_empty()
            }
        }
    }

    fn to_vec(&self) -> Vec<RowKey> {
        match self {
            Self::One(key) => vec![Arc::clone(key)],
            Self::Many(keys) => keys.iter().cloned().collect(),
        }
    }
}

impl Overlay {
    pub(in crate::store::file) fn new() -> Self {
        let map = || DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS);
        Self {
            rows: map(),
            users: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS),
            gate: Mutex::default(),
            len: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
            in_base: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            past_failures: AtomicU64::new(0),
        }
    }

    pub(in crate::store::file) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    pub(in crate::store::file) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state of a row. `None` if the row is not here, so that the data file decides.
    pub(in crate::store::file) fn get(&self, key: &[u8]) -> Option<RowState> {
        if self.is_empty() { None } else { self.rows.get(key).map(|entry| entry.row.clone()) }
    }

    pub(in crate::store::file) fn entry(&self, key: &[u8]) -> Option<OverlayEntry> {
        if self.is_empty() { None } else { self.rows.get(key).map(|entry| entry.clone()) }
    }

    /// The keys of a user's sessions.
    pub(in crate::store::file) fn keys_of_user(&self, user: &UserTag) -> Vec<RowKey> {
        self.users.get(user).map_or_else(Vec::new, |keys| keys.to_vec())
    }

    /// The keys of all rows whose last change has at most this LSN. Locks one shard after another.
    pub(in crate::store::file) fn keys_up_to(&self, lsn: u64) -> Vec<RowKey> {
        let found = self.rows.iter().filter(|entry| entry.lsn <= lsn);
        found.map(|entry| Arc::clone(entry.key())).collect()
    }

    /// Calls `visit` with each row that is not a deletion.
    pub(in crate::store::file) fn each_row(&self, mut visit: impl FnMut(&[u8])) {
        for entry in self.rows.iter() {
            if let Some(row) = &entry.row {
                visit(row);
            }
        }
    }

    pub(in crate::store::file) fn gate(&self) -> Gate<'_> {
        Gate { overlay: self, decided: points::lock(&self.gate) }
    }

    /// The number of rows here that are not deletions. Exact under the gate.
    pub(in crate::store::file) fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }

    /// The number of keys here that have a row in the data file. Exact under the gate, unless `is_uncertain`.
    pub(in crate::store::file) fn in_base(&self) -> usize {
        self.in_base.load(Ordering::SeqCst)
    }

    pub(in crate::store::file) fn is_uncertain(&self) -> bool {
        self.failures() > self.past_failures.load(Ordering::SeqCst) && !self.is_empty()
    }

    pub(in crate::store::file) fn mark_uncertain(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    pub(in crate::store::file) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Records a complete drain that started after this many failures.
    pub(in crate::store::file) fn mark_certain(&self, failures: u64) {
        self.past_failures.fetch_max(failures, Ordering::SeqCst);
    }
}

/// The right to change the overlay.
pub(in crate::store::file) struct Gate<'o> {
    overlay: &'o Overlay,
    /// The batch that the writer is deciding, or that is decided and not yet entered.
    pub decided: MutexGuard<'o, DecidedRows>,
}

impl Gate<'_> {
    /// Whether a key is in the overlay or in the batch in progress.
    pub(in crate::store::file) fn has(&self, key: &[u8]) -> bool {
        self.decided.contains_key(key) || (!self.overlay.is_empty() && self.overlay.rows.contains_key(key))
    }

    /// Enters the batch in progress.
    pub(in crate::store::file) fn enter(&mut self, lsn: u64) {
        for (key, DecidedRow { row, user, in_base }) in self.decided.drain() {
            self.overlay.put(key, OverlayEntry { row, user, lsn, in_base });
        }
    }

    /// Enters a row that was read from the log.
    pub(in crate::store::file) fn recover(&mut self, key: RowKey, entry: OverlayEntry) {
        self.overlay.put(key, entry);
    }

    /// Removes an entry that the data file has, unless it has changed since.
    pub(in crate::store::file) fn remove_drained(&mut self, key: &RowKey, drained: &OverlayEntry) {
        let overlay = self.overlay;
        let is_same = overlay.rows.get(key).is_some_and(|entry| entry.lsn == drained.lsn);
        if is_same && let Some((_, entry)) = overlay.rows.remove(key) {
            overlay.len.fetch_sub(1, Ordering::SeqCst);
            overlay.in_base.fetch_sub(usize::from(entry.in_base), Ordering::SeqCst);
            overlay.puts.fetch_sub(usize::from(entry.row.is_some()), Ordering::SeqCst);
            overlay.leave(entry.user, key);
        }
        self.set_in_base(key, drained.row.is_some());
    }

    /// Records whether the data file has a row with this key.
    pub(in crate::store::file) fn set_in_base(&mut self, key: &[u8], in_base: bool) {
        if let Some(row) = self.decided.get_mut(key) {
            row.in_base = in_base;
        }
        if let Some(mut entry) = self.overlay.rows.get_mut(key)
            && entry.in_base != in_base
        {
            entry.in_base = in_base;
            if in_base {
                self.overlay.in_base.fetch_add(1, Ordering::SeqCst);
            } else {
                self.overlay.in_base.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Removes all entries.
    pub(in crate::store::file) fn clear(&mut self) {
        self.overlay.rows.clear();
        self.overlay.users.clear();
        self.overlay.len.store(0, Ordering::SeqCst);
        self.overlay.puts.store(0, Ordering::SeqCst);
        self.overlay.in_base.store(0, Ordering::SeqCst);
    }
}

impl Overlay {
    fn put(&self, key: RowKey, new: OverlayEntry) {
        let (user, in_base, has_row) = (new.user, new.in_base, new.row.is_some());
        // First, so that no reader takes the overlay for empty.
        self.len.fetch_add(1, Ordering::SeqCst);
        self.in_base.fetch_add(usize::from(in_base), Ordering::SeqCst);
        self.puts.fetch_add(usize::from(has_row), Ordering::SeqCst);
        let old = match self.rows.entry(Arc::clone(&key)) {
            Slot::Occupied(mut slot) => Some(slot.insert(new)),
            Slot::Vacant(slot) => {
                slot.insert(new);
                None
            }
        };
        let old_user = old.as_ref().filter(|old| old.row.is_some()).and_then(|old| old.user);
        let user = user.filter(|_| has_row);
        if let Some(old) = old {
            self.len.fetch_sub(1, Ordering::SeqCst);
            self.in_base.fetch_sub(usize::from(old.in_base), Ordering::SeqCst);
            self.puts.fetch_sub(usize::from(old.row.is_some()), Ordering::SeqCst);
        }
        if old_user != user {
            self.leave(old_user, &key);
            if let Some(user) = user {
                match self.users.entry(user) {
                    Slot::Occupied(mut keys) => keys.get_mut().insert(key),
                    Slot::Vacant(slot) => _ = slot.insert(Keys::One(key)),
                }
            }
        }
    }

    fn leave(&self, user: Option<UserTag>, key: &RowKey) {
        if let Some(user) = user {
            self.users.remove_if_mut(&user, |_, keys| keys.remove(key));
        }
    }
}
