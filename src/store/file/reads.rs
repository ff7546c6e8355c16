//! Reads of the store.
//!
//! No result contains a session that the list of secrets cannot decrypt. If the secrets open every wrapped key, there
//! is no such session (see `secrets`). Otherwise, `size` and `stats` read every record.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::Ordering;

use super::apply::Write;
use super::encryption::UserTag;
use super::environment::{Environment, View};
use super::estimate::Trees;
use super::record::Record;
use super::rows::{IndexEntries, table_keys_of_user};
use super::secrets::{self, KeysInUse};
use super::tables::{created_of, expiry_entry};
use super::write_error::WriteError;
use crate::error::{Result, StoreError};
use crate::scratch::with_buffer;
use crate::session::{Expiry, SessionId};
use crate::store::{Stats, StoredSession};

/// The maximum number of records that one view reads in a scan of the whole store.
const SCAN_STEP: usize = 10_000;

impl Environment {
    /// Calls `read` with the expiry and the content of a live session.
    pub(super) fn get_with<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        let found = self.find(id, read);
        let counter = if matches!(found, Ok(Some(_))) { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn find<T>(&self, id: &SessionId, read: impl FnOnce(Expiry, &[u8]) -> Result<T>) -> Result<Option<T>> {
        let key = self.encryption.key(id);
        let decode = |row: &[u8]| {
            let record = Record::parse(row)?;
            let expires = record.header.end(self.limits.max_lifetime);
            if self.clock.is_past(expires.millis()) {
                return Ok(None);
            }
            with_buffer(|buffer| match self.encryption.decrypt(&key, record, buffer)? {
                Some(contents) if contents.id == id.as_bytes() => read(expires, contents.content).map(Some),
                _ => Ok(None),
            })
        };
        self.read_row(&key, decode)?.unwrap_or(Ok(None))
    }

    /// Calls `read` with a row from the overlay or the data file.
    pub(super) fn read_row<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        // The overlay first: a row that has left it is already in the data file.
        if let Some(row) = self.overlay.get(key) {
            self.held.ensure_not_lost()?;
            return Ok(row.as_deref().map(read));
        }
        let txn = self.read()?;
        Ok(self.get(txn.tables().sessions, &txn, key)?.map(read))
    }

    /// The session of a record, with its creation time. `None` if no secret in the list decrypts it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn stored_session(&self, key: &[u8], record: Record<'_>) -> Result<Option<StoredSession>> {
        with_buffer(|buffer| {
            let Some(contents) = self.encryption.decrypt(key, record, buffer)? else { return Ok(None) };
            let (id, expires) =
                (SessionId::from_packed(contents.id)?, record.header.end(self.limits.max_lifetime));
            let session = StoredSession::new(id, expires, contents.content);
            Ok(Some(session.with_creation(record.header.created_at)))
        })
    }

    /// Calls `visit` with the key and the row of each of the user's sessions, in no particular order.
    pub(super) fn each_row_of_user(
        &self,
        user: UserTag,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let failed = |error| self.failed(error);
        let (txn, keys) = {
            // The gate makes the overlay and the view consistent.
            let _gate = self.overlay.gate();
            let txn = self.read()?;
            let mut keys = table_keys_of_user(txn.tables(), &txn, user).map_err(failed)?;
            keys.extend(self.overlay.keys_of_user(&user).iter().map(|key| key.to_vec()));
            keys.sort_unstable();
            keys.dedup();
            let keys: Vec<_> = keys.into_iter().map(|key| (self.overlay.get(&key), key)).collect();
            (txn, keys)
        };
        for (newer, key) in &keys {
            let row = match newer {
                Some(row) => row.as_deref(),
                None => self.get(txn.tables().sessions, &txn, key)?,
            };
            if let Some(row) = row
                && IndexEntries::of(row, &self.encryption).user == Some(user)
            {
                visit(key, row)?;
            }
        }
        Ok(())
    }

    /// Calls `visit` with the current state of the rows after a key, as far as the data file has these rows. A deleted
    /// row is `None`. Stops after `max` rows, or when `visit` breaks.
    pub(super) fn each_row_after(
        &self,
        after: &[u8],
        max: usize,
        mut visit: impl FnMut(&[u8], Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<()> {
        let failed = |error| self.failed(error);
        let start = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        // The gate makes the overlay and the view consistent.
        let _gate = self.overlay.gate();
        let txn = self.read()?;
        let rows = txn.tables().sessions.range(&txn, &(start, Bound::Unbounded)).map_err(failed)?;
        for entry in rows.take(max) {
            let (key, row) = entry.map_err(failed)?;
            let seen = match self.overlay.get(key) {
                Some(newer) => visit(key, newer.as_deref()),
                None => visit(key, Some(row)),
            };
            if seen.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The number of live sessions.
    pub(super) fn live_sessions(&self) -> Result<u64> {
        let failed = |error| self.failed(error);
        let now = self.clock.now();
        let gate = self.overlay.gate();
        let txn = self.read()?;
        let tables = txn.tables();
        let lifetime = self.limits.max_lifetime;
        if self.must_scan(&txn)? {
            drop(gate);
            return self.count_readable(&txn, |record| !record.header.end(lifetime).is_past(now));
        }
        // The overlay's rows are counted at the end. From the other rows, subtract the expired ones. They are at the
        // start of the expiry index.
        let mut live = tables.sessions.len(&txn).map_err(failed)? - self.overlay.in_base() as u64;
        let later = expiry_entry(now + 1, 0);
        let due = (Bound::Unbounded, Bound::Excluded(&later[..]));
        for entry in tables.expiries.range(&txn, &due).map_err(failed)? {
            let (entry, key) = entry.map_err(failed)?;
            if self.overlay.entry(key).is_some() {
                continue;
            }
            let Some(bytes) = self.get(tables.sessions, &txn, key)? else { continue };
            let is_expired = |record: Record<'_>| {
                Some(record.header.created) == created_of(entry) && record.header.expires.is_past(now)
            };
            live -= u64::from(Record::parse(bytes).is_ok_and(is_expired));
        }
        self.overlay.each_row(|row| {
            live += u64::from(Record::parse(row).is_ok_and(|record| !record.header.expires.is_past(now)));
        });
        Ok(live)
    }

    pub(super) fn stats(&self) -> Result<Stats> {
        let failed = |error| self.failed(error);
        let gate = self.overlay.gate();
        let txn = self.read()?;
        let sessions = if self.opens_all(&txn)? {
            let in_file = txn.tables().sessions.len(&txn).map_err(failed)?;
            in_file + self.overlay.puts() as u64 - self.overlay.in_base() as u64
        } else {
            drop(gate);
            self.count_readable(&txn, |_| true)?
        };
        let counted = self.counters.totals();
        Ok(Stats {
            sessions: Some(sessions),
            bytes: Some(Trees::read(txn.tables(), &txn).map_err(failed)?.pages() * self.page_size),
            hits: self.counters.hits.load(Ordering::Relaxed),
            misses: self.counters.misses.load(Ordering::Relaxed),
            created: counted.created,
            expired: counted.expired,
            evicted: counted.evicted,
            last_sweep: *self.last_sweep.lock(),
            log: None,
        })
    }

    /// Whether counting the live sessions requires reading every record. That is so if a secret may be missing, or if
    /// a record's expiry may be later than `maxLifetime` allows.
    pub(super) fn must_scan_to_count(&self) -> Result<bool> {
        self.must_scan(&self.read()?)
    }

    fn must_scan(&self, txn: &View) -> Result<bool> {
        Ok(self.limits.max_lifetime.is_limited() || !self.opens_all(txn)?)
    }

    /// Whether our secrets can decrypt every record.
    pub(super) fn opens_all_records(&self) -> Result<bool> {
        self.opens_all(&self.read()?)
    }

    fn opens_all(&self, txn: &View) -> Result<bool> {
        secrets::opens_all(txn.tables().meta, txn, &self.encryption).map_err(|error| self.error(error))
    }

    fn count_readable(&self, txn: &View, counts: impl Fn(&Record<'_>) -> bool) -> Result<u64> {
        let failed = |error| self.failed(error);
        let mut count = 0;
        for entry in txn.tables().sessions.iter(txn).map_err(failed)? {
            let (_, bytes) = entry.map_err(failed)?;
            let is_counted = |record: Record<'_>| self.encryption.can_read(record) && counts(&record);
            count += u64::from(Record::parse(bytes).is_ok_and(is_counted));
        }
        Ok(count)
    }

    /// Whether a chunk of a `deleteByUser` has left sessions of the user. The number of ended sessions does not
    /// show that: it is 0 if the chunk ended only sessions that were not live.
    pub(super) fn has_rest(&self, write: &Write) -> Result<bool> {
        let Write::DeleteByUser { user, except, .. } = write else { return Ok(false) };
        let failed = |error| self.failed(error);
        let except = except.as_ref().map(|id| self.encryption.key(id));
        let now = self.clock.now();
        let txn = self.read()?;
        let tables = txn.tables();
        let mut has_rest = false;
        let each = tables.each_of_user(&txn, self.encryption.tag(user.as_key()), |created, key| {
            let is_left =
                |record: Record<'_>| record.header.created == created && !record.header.expires.is_past(now);
            has_rest |= except.as_deref() != Some(key)
                && tables
                    .sessions
                    .get(&txn, key)?
                    .is_some_and(|bytes| Record::parse(bytes).is_ok_and(is_left));
            Ok(())
        });
        each.map_err(failed)?;
        Ok(has_rest)
    }

    /// Whether the file has unused wrapped keys, or does not record yet that it has none. Free of cost while the
    /// secrets open every wrapped key.
    pub(super) fn has_unused_keys(&self) -> Result<bool> {
        let is_settled = {
            let txn = self.read()?;
            self.opens_all(&txn)?
        };
        if is_settled {
            return Ok(false);
        }
        let in_use = self.scan_keys_in_use()?;
        let txn = self.read()?;
        secrets::has_unused(txn.tables().meta, &txn, &self.encryption, &in_use)
            .map_err(|error| self.error(error))
    }

    /// Reads the key id of every record. Uses several views, because a long one would keep pages from being reused.
    fn scan_keys_in_use(&self) -> Result<KeysInUse> {
        let failed = |error| self.failed(error);
        let mut in_use = KeysInUse::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let txn = self.read()?;
            let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut last = None;
            let mut seen = 0;
            let rest = txn.tables().sessions.range(&txn, &(start, Bound::Unbounded)).map_err(failed)?;
            for entry in rest.take(SCAN_STEP) {
                let (key, bytes) = entry.map_err(failed)?;
                (last, seen) = (Some(key), seen + 1);
                in_use.extend(Record::parse(bytes).ok().and_then(|record| self.encryption.key_id(record)));
            }
            if seen < SCAN_STEP {
                return Ok(in_use);
            }
            after = last.map(<[u8]>::to_vec);
        }
    }

    fn error(&self, error: WriteError) -> StoreError {
        error.at(&self.data_path())
    }
}
