//! The rows of sessions and their index entries, as a trait for `apply`.
//!
//! The same code decides a write, whether its rows go directly to the data file (`TableRows`) or first to the redo
//! log (`redo::rows`).

use heed::{AnyTls, RoTxn, RwTxn};

use super::encryption::{Encryption, UserTag, stored_tag};
use super::record::Record;
use super::tables::{Tables, expiry_entry, user_entry};
use crate::clock::Millis;
use crate::error::Result;
use crate::lifetime::Lifetime;

/// The index entries of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntries {
    pub indexed_expiry: Millis,
    pub created: u64,
    pub user: Option<UserTag>,
}

impl IndexEntries {
    /// The index entries of a stored row. An unreadable row has default values.
    pub(super) fn of(row: &[u8], encryption: &Encryption) -> Self {
        Self::with_tag(row, |record| encryption.tag_of(record))
    }

    /// Same as `of`, without the secrets of the store.
    pub(super) fn of_stored(row: &[u8], is_encrypted: bool) -> Self {
        Self::with_tag(row, |record| stored_tag(record, is_encrypted))
    }

    fn with_tag(row: &[u8], tag_of: impl FnOnce(Record<'_>) -> Result<Option<UserTag>>) -> Self {
        let Ok(record) = Record::parse(row) else {
            return Self { indexed_expiry: 0, created: 0, user: None };
        };
        Self {
            indexed_expiry: record.header.indexed_expiry,
            created: record.header.created,
            user: tag_of(record).unwrap_or_default(),
        }
    }
}

/// A new row and its index entries.
pub(super) type NewRow<'r> = (IndexEntries, &'r [u8]);

pub(super) trait Rows {
    /// Calls `read` with a row.
    fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> heed::Result<Option<T>>;

    /// Replaces a row and its index entries. `old` has the present index entries, and is `None` if there is no row.
    fn set(&mut self, key: &[u8], old: Option<IndexEntries>, new: Option<NewRow<'_>>) -> heed::Result<()>;

    /// The keys of all sessions that may belong to the user, without duplicates.
    fn keys_of_user(&self, user: UserTag) -> heed::Result<Vec<Vec<u8>>>;

    /// The `created` of the next session.
    fn next_created(&mut self) -> heed::Result<u64>;

    /// Reserves this `created` for a session.
    fn reserve_created(&mut self, created: u64) -> heed::Result<()>;
}

/// The rows of the data file in a transaction.
pub(super) struct TableRows<'e> {
    pub txn: RwTxn<'e>,
    pub tables: Tables,
    /// Whether the transaction has changes to commit.
    pub has_changed: bool,
    next_created: Option<u64>,
    /// The limit that the rows respect. See `due`.
    lifetime: Option<Lifetime>,
}

impl<'e> TableRows<'e> {
    pub(super) fn new(txn: RwTxn<'e>, tables: Tables) -> heed::Result<Self> {
        let lifetime = tables.indexed_lifetime(&txn)?.map(|indexed| Lifetime::new(Some(indexed.max)));
        Ok(Self { txn, tables, has_changed: false, next_created: None, lifetime })
    }

    /// Replaces a row and its index entries. Inserting a new row needs only one descent of the tree, which also finds
    /// the old row.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        new: NewRow<'_>,
        indexed_of: impl FnOnce(&[u8]) -> IndexEntries,
    ) -> heed::Result<()> {
        let (indexed, bytes) = new;
        match self.tables.sessions.get_or_put(&mut self.txn, key, bytes)?.map(indexed_of) {
            Some(old) => self.set(key, Some(old), Some(new)),
            None => {
                self.has_changed = true;
                self.check_lifetime(bytes)?;
                self.set_entries(key, None, Some(indexed))
            }
        }
    }

    /// Removes the limit from the data file if a new row does not respect it.
    fn check_lifetime(&mut self, row: &[u8]) -> heed::Result<()> {
        if let Some(lifetime) = self.lifetime
            && Record::parse(row).is_ok_and(|record| record.header.ends_before_entry(lifetime))
        {
            self.tables.remove_indexed_lifetime(&mut self.txn)?;
            self.lifetime = None;
        }
        Ok(())
    }

    /// Replaces the index entries of a row.
    fn set_entries(
        &mut self,
        key: &[u8],
        old: Option<IndexEntries>,
        new: Option<IndexEntries>,
    ) -> heed::Result<()> {
        let Self { txn, tables, .. } = self;
        let expiry = |indexed: IndexEntries| expiry_entry(indexed.indexed_expiry, indexed.created);
        let (old_expiry, new_expiry) = (old.map(expiry), new.map(expiry));
        if old_expiry != new_expiry {
            if let Some(entry) = old_expiry {
                tables.expiries.delete(txn, &entry)?;
            }
            if let Some(entry) = new_expiry {
                tables.expiries.put(txn, &entry, key)?;
            }
        }
        let user = |indexed: IndexEntries| indexed.user.map(|user| user_entry(user, indexed.created));
        let (old_user, new_user) = (old.and_then(user), new.and_then(user));
        if old_user != new_user {
            if let Some(entry) = old_user {
                tables.users.delete(txn, &entry)?;
            }
            if let Some(entry) = new_user {
                tables.users.put(txn, &entry, key)?;
            }
        }
        Ok(())
    }

    /// Commits the changes, and returns when they are on disk.
    pub(super) fn commit(mut self) -> heed::Result<()> {
        if !self.has_changed {
            return Ok(());
        }
        if let Some(next) = self.next_created {
            self.tables.set_next(&mut self.txn, next)?;
        }
        self.txn.commit()
    }
}

impl Rows for TableRows<'_> {
    fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> heed::Result<Option<T>> {
        Ok(self.tables.sessions.get(&self.txn, key)?.map(read))
    }

    fn set(&mut self, key: &[u8], old: Option<IndexEntries>, new: Option<NewRow<'_>>) -> heed::Result<()> {
        self.has_changed = true;
        match new {
            Some((_, bytes)) => {
                self.tables.sessions.put(&mut self.txn, key, bytes)?;
                self.check_lifetime(bytes)?;
            }
            None => _ = self.tables.sessions.delete(&mut self.txn, key)?,
        }
        self.set_entries(key, old, new.map(|(indexed, _)| indexed))
    }

    fn keys_of_user(&self, user: UserTag) -> heed::Result<Vec<Vec<u8>>> {
        table_keys_of_user(self.tables, &self.txn, user)
    }

    fn next_created(&mut self) -> heed::Result<u64> {
        self.next_created.map_or_else(|| self.tables.next(&self.txn), Ok)
    }

    fn reserve_created(&mut self, created: u64) -> heed::Result<()> {
        self.next_created = Some(self.tables.created_after(&self.txn, created)?);
        Ok(())
    }
}

/// The user's keys in the user index of the data file.
pub(super) fn table_keys_of_user(
    tables: Tables,
    txn: &RoTxn<'_, AnyTls>,
    user: UserTag,
) -> heed::Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    tables.each_of_user(txn, user, |_, key| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}
