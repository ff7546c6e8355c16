//! The rows of a batch for the log. Reads look at the batch, the overlay and the data file, in this order.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::format::{BatchWriter, record_bytes};
use super::overlay::{DecidedRow, Gate, Overlay, RowKey, RowState};
use crate::store::file::encryption::UserTag;
use crate::store::file::environment::View;
use crate::store::file::rows::{IndexEntries, NewRow, Rows, table_keys_of_user};

/// A batch that is being decided.
///
/// The view is opened under the gate. As long as the gate is held, no row leaves the overlay for a newer state of the
/// data file that the view lacks.
pub(super) struct LoggedRows<'o> {
    overlay: &'o Overlay,
    gate: Gate<'o>,
    view: View,
    /// The keys of the batch, in the order of its writes.
    order: Vec<RowKey>,
    /// The sessions in the batch that may belong to each user.
    users: HashMap<UserTag, Vec<RowKey>, RandomState>,
    /// The bytes of the batch's records.
    bytes: usize,
    next: u64,
    /// The first `created` that the data file does not know.
    first_in_log: u64,
    /// The changes of the current write.
    staged: Vec<(RowKey, DecidedRow)>,
    staged_next: u64,
}

impl<'o> LoggedRows<'o> {
    pub(super) fn new(overlay: &'o Overlay, gate: Gate<'o>, view: View, next: u64) -> heed::Result<Self> {
        let first_in_log = view.tables().next(&view)?;
        Ok(Self {
            overlay,
            gate,
            view,
            order: Vec::new(),
            users: HashMap::default(),
            bytes: 0,
            next,
            first_in_log,
            staged: Vec::new(),
            staged_next: next,
        })
    }

    /// Adds the changes of the current write to the batch. Returns `false` and drops them if the records would exceed
    /// `max_bytes`.
    pub(super) fn accept(&mut self, max_bytes: usize) -> bool {
        let mut bytes = self.bytes;
        for (key, new) in &self.staged {
            bytes += record_bytes(key, new.row.as_deref());
            if let Some(old) = self.gate.decided.get(key) {
                bytes -= record_bytes(key, old.row.as_deref());
            }
        }
        if bytes > max_bytes {
            self.refuse();
            return false;
        }
        self.bytes = bytes;
        self.next = self.staged_next;
        for (key, new) in self.staged.drain(..) {
            if let Some(user) = new.user {
                self.users.entry(user).or_default().push(Arc::clone(&key));
            }
            if self.gate.decided.insert(Arc::clone(&key), new).is_none() {
                self.order.push(key);
            }
        }
        true
    }

    /// Drops the changes of the current write.
    pub(super) fn refuse(&mut self) {
        self.staged.clear();
        self.staged_next = self.next;
    }

    /// Drops the whole batch.
    pub(super) fn cancel(&mut self) {
        self.gate.decided.clear();
    }

    /// Finishes the batch, and releases the gate and the view. Returns the records and the next `created`.
    pub(super) fn finish(self) -> (BatchWriter, u64) {
        let mut batch = BatchWriter::new(self.bytes);
        for key in &self.order {
            if let Some(decided) = self.gate.decided.get(key) {
                batch.push(key, decided.row.as_deref());
            }
        }
        (batch, self.next)
    }

    /// A row's state if it is newer than the data file, and whether the data file has a row with this key.
    fn newer(&self, key: &[u8]) -> Option<(RowState, bool)> {
        if let Some(decided) = self.gate.decided.get(key) {
            return Some((decided.row.clone(), decided.in_base));
        }
        self.overlay.entry(key).map(|entry| (entry.row, entry.in_base))
    }
}

impl Rows for LoggedRows<'_> {
    fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> heed::Result<Option<T>> {
        match self.newer(key) {
            Some((row, _)) => Ok(row.as_deref().map(read)),
            None => Ok(self.view.tables().sessions.get(&self.view, key)?.map(read)),
        }
    }

    fn set(&mut self, key: &[u8], old: Option<IndexEntries>, new: Option<NewRow<'_>>) -> heed::Result<()> {
        // Without a newer state, `old` is the row of the data file.
        let in_base = self.newer(key).map_or(old.is_some(), |(_, in_base)| in_base);
        let user = new.and_then(|(indexed, _)| indexed.user);
        let row = new.map(|(_, bytes)| bytes.into());
        self.staged.push((key.into(), DecidedRow { row, user, in_base }));
        Ok(())
    }

    fn keys_of_user(&self, user: UserTag) -> heed::Result<Vec<Vec<u8>>> {
        let mut keys = table_keys_of_user(self.view.tables(), &self.view, user)?;
        let newer = self.overlay.keys_of_user(&user);
        let in_batch = self.users.get(&user).into_iter().flatten();
        keys.extend(newer.iter().chain(in_batch).map(|key| key.to_vec()));
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    fn next_created(&mut self) -> heed::Result<u64> {
        Ok(self.staged_next)
    }

    fn reserve_created(&mut self, created: u64) -> heed::Result<()> {
        let newer = (self.overlay.len() + self.gate.decided.len()) as u64;
        self.staged_next =
            self.view.tables().created_after_logged(&self.view, created, newer, self.first_in_log)?;
        Ok(())
    }
}
