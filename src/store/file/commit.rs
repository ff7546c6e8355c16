//! Commits: the only way to change the data file.
//!
//! # A failed sync
//!
//! After a failed `fdatasync`, Linux may mark unwritten pages as clean. A second `fdatasync` then succeeds without
//! writing them. This concerns both parts of a commit:
//!
//! - **The pages of the transaction.** LMDB syncs them before it writes the meta page. If that sync fails, no meta
//!   page names them, and the previous state remains, which its own commit has synced. The next commit writes all of
//!   its pages again. So nothing depends on a page that may be lost.
//! - **The meta page.** LMDB writes it through a descriptor with `O_DSYNC`. If that write fails, the new meta page
//!   may still be on disk. LMDB then rolls the page back: it overwrites it with the old transaction number, without a
//!   sync. After a power loss, the disk could still have the new meta page, while the next commit has overwritten its
//!   pages. So the rollback must be on disk before the next commit writes anything.
//!
//! A sync alone is not enough, because an earlier sync may have failed and marked the page as clean. So
//! `sync_meta_pages` rewrites both meta pages with the same bytes, and then syncs them. Rewriting makes the pages
//! dirty, so a successful sync has written them.
//!
//! - This happens before the first commit of each process, because the previous process may have left such a page. It
//!   also happens before the first commit after a failed one.
//! - LMDB's write lock prevents that another process changes the pages between the read and the write.
//! - If the kernel has dropped the rolled-back page, it reads the new meta page from disk. Then the failed commit has
//!   taken effect, as docs/guarantees.md says.

use std::sync::atomic::Ordering;

use heed::{AnyTls, MdbError, RoTxn, RwTxn};

use super::apply::{Write, WriteBatch, WriteRules};
use super::counters::CounterDelta;
use super::encryption::Encryption;
use super::environment::{Environment, KnownLog, OpenEnv};
use super::errors::{log_of_another, read_only};
use super::estimate::{PageEstimator, Trees};
use super::limits::Limits;
use super::open::Access;
use super::pages;
use super::quota::{Admission, Need, Usage};
use super::redo::format::LogEntry;
#[cfg(test)]
use super::redo::points::{self, hooks::CommitFault};
use super::rows::TableRows;
use super::secrets;
use super::tables::Tables;
use super::write_error::WriteError;
use crate::error::{Result, StoreError};
use crate::events::Ends;

impl Environment {
    /// Applies writes in one transaction, and returns when they are on disk. A rejected write fails alone. An error
    /// fails all writes, and none of them has taken effect, unless the error has an unknown outcome.
    pub(super) fn commit(&self, writes: &[&Write]) -> Result<Vec<Result<u64>>> {
        self.commit_with_log(writes, None)
    }

    /// Commits writes, and optionally sets the entry about the log in the same transaction.
    pub(super) fn commit_with_log(
        &self,
        writes: &[&Write],
        log: Option<&LogEntry>,
    ) -> Result<Vec<Result<u64>>> {
        if self.access != Access::Write {
            return Err(read_only(self.dir()));
        }
        self.clear_stale_readers();
        let committed = self.try_commit(writes, log).map_err(|error| error.at(&self.data_path()));
        let (outcomes, counted, ended) = committed?;
        self.counters.add(counted);
        self.events.publish_ends(ended);
        Ok(outcomes)
    }

    /// Changes rows or the entry about the log in one transaction, and returns when the change is on disk.
    ///
    /// # Errors
    /// Those of `change` and of a write. Nothing has changed, unless the error has an unknown outcome.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut TableRows<'_>) -> Result<T, WriteError>,
    ) -> Result<T> {
        self.clear_stale_readers();
        self.try_change(change).map_err(|error| error.at(&self.data_path()))
    }

    /// Makes the visible state of the data file durable. Call this before relying on that state without a commit: the
    /// previous process may have left a rolled-back meta page.
    ///
    /// # Errors
    /// As for `change`.
    pub(super) fn make_durable(&self) -> Result<()> {
        if self.must_sync.load(Ordering::Relaxed) { self.change(|_| Ok(())) } else { Ok(()) }
    }

    /// The rules for the writes of this process.
    pub(super) fn rules(&self) -> WriteRules {
        let Limits { per_user, max_lifetime, .. } = self.limits;
        let has_creation_times = self.has_creation_times.load(Ordering::SeqCst);
        WriteRules { per_user, lifetime: max_lifetime, has_creation_times }
    }

    fn try_change<T>(
        &self,
        change: impl FnOnce(&mut TableRows<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let _turn = self.lock_simulated_writer();
        let open = self.open()?;
        let txn = self.write_txn(&open)?;
        if let Err(error) = self.sync_meta_pages(&open, &txn) {
            drop(txn);
            return Err(self.reopen_after_failure(open, error));
        }
        self.check_log(open.tables, &txn)?;
        let mut rows = TableRows::new(txn, open.tables)?;
        let changed = change(&mut rows)?;
        self.held.check()?;
        finish(rows)?.map_err(|error| self.reopen_after_failure(open, error))?;
        Ok(changed)
    }

    fn try_commit(
        &self,
        writes: &[&Write],
        log: Option<&LogEntry>,
    ) -> Result<(Vec<Result<u64>>, CounterDelta, Ends), WriteError> {
        let _turn = self.lock_simulated_writer();
        let open = self.open()?;
        let tables = open.tables;
        let adds = writes.iter().any(|write| write.may_add());
        let mut may_wait = true;
        let (txn, usage) = loop {
            let mut txn = self.write_txn(&open)?;
            if let Err(error) = self.sync_meta_pages(&open, &txn) {
                drop(txn);
                return Err(self.reopen_after_failure(open, error));
            }
            self.check_log(tables, &txn)?;
            let trees = Trees::read(tables, &txn)?;
            let usage = self.usage_of(&open, &trees);
            if self.admit(tables, &txn, writes, may_wait, &trees, usage)? == Admission::Now {
                break (txn, usage);
            }
            // An empty commit. It makes the pages reusable that the last transaction has freed.
            let next = tables.next(&txn)?;
            tables.set_next(&mut txn, next)?;
            if let Err(error) = txn.commit() {
                return Err(self.reopen_after_failure(open, error));
            }
            may_wait = false;
        };
        let mut rows = TableRows::new(txn, tables)?;
        let mut batch =
            WriteBatch::new(&mut rows, &self.encryption, self.rules(), self.clock.now(), self.events.ends());
        let refusal = self.add_missing_keys(batch.rows, writes)?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let mark = batch.ended.mark();
            let refused = refusal.as_ref().filter(|_| write.encrypts());
            let applied = refused.map_or_else(|| batch.apply(write), |error| Err(error.clone().into()));
            outcomes.push(match applied {
                Ok(number) => Ok(number),
                Err(WriteError::Refused(error)) => {
                    batch.ended.rewind(mark);
                    Err(error)
                }
                Err(lost) => return Err(lost),
            });
        }
        let (counted, ended) = (batch.counted, batch.ended);
        if adds {
            self.quota.check(usage, self.used(&Trees::read(tables, &rows.txn)?))?;
        }
        if log.is_some() {
            tables.set_log(&mut rows.txn, log)?;
            rows.has_changed = true;
        }
        let keys = secrets::wrapped_keys(tables.meta, &rows.txn)?.map(<[u8]>::to_vec);
        self.held.check()?;
        finish(rows)?.map_err(|error| self.reopen_after_failure(open, error))?;
        if refusal.is_none() && writes.iter().any(|write| write.encrypts()) {
            *self.complete_keys.lock() = keys;
        }
        Ok((outcomes, counted, ended))
    }

    /// Adds the missing wrapped keys of our secrets, if a write encrypts a session. Just opening a store does not
    /// change the file. If no secret can open the store any more, returns the error for these writes.
    fn add_missing_keys(
        &self,
        rows: &mut TableRows<'_>,
        writes: &[&Write],
    ) -> Result<Option<StoreError>, WriteError> {
        let TableRows { tables, txn, has_changed, .. } = rows;
        if !writes.iter().any(|write| write.encrypts()) || self.has_complete_keys(*tables, txn)? {
            return Ok(None);
        }
        match secrets::add_missing(*tables, txn, &self.encryption, &self.secrets, self.dir()) {
            Ok(added) => {
                *has_changed |= added;
                Ok(None)
            }
            Err(WriteError::Refused(error)) => Ok(Some(error)),
            Err(lost) => Err(lost),
        }
    }

    /// Whether the file is known to have the wrapped keys of all our secrets.
    fn has_complete_keys(&self, tables: Tables, txn: &RoTxn<'_, AnyTls>) -> heed::Result<bool> {
        Ok(match secrets::wrapped_keys(tables.meta, txn)? {
            Some(keys) => self.complete_keys.lock().as_deref() == Some(keys),
            None => matches!(self.encryption, Encryption::Off),
        })
    }

    /// Adds the missing wrapped keys of our secrets in a separate commit, if there are any.
    ///
    /// # Errors
    /// Those of a commit, and the reason why no session can be encrypted.
    pub(super) fn ensure_keys(&self) -> Result<()> {
        let is_complete = {
            let view = self.read()?;
            self.has_complete_keys(view.tables(), &view).map_err(|error| self.failed(error))?
        };
        if is_complete {
            return Ok(());
        }
        let keys = self.change(|rows| {
            rows.has_changed |= secrets::add_missing(
                rows.tables,
                &mut rows.txn,
                &self.encryption,
                &self.secrets,
                self.dir(),
            )?;
            Ok(secrets::wrapped_keys(rows.tables.meta, &rows.txn)?.map(<[u8]>::to_vec))
        })?;
        *self.complete_keys.lock() = keys;
        Ok(())
    }

    /// Fails if the store has a log that this process does not know. Then another process writes to the store
    /// although it should have been locked out. That can happen after somebody has removed the lock files.
    fn check_log(&self, tables: Tables, txn: &RoTxn<'_, AnyTls>) -> Result<(), WriteError> {
        let found = tables.log(txn)?.map_or(KnownLog::None, |log| KnownLog::Log(log.id));
        let known = *self.log.lock();
        if known == found || known == KnownLog::Uncertain {
            Ok(())
        } else {
            Err(log_of_another(self.dir()).into())
        }
    }

    /// Reopens the environment after a failed commit.
    fn reopen_after_failure(&self, open: OpenEnv, error: heed::Error) -> WriteError {
        let reopened = open.reopened;
        // LMDB gives up an environment if it cannot write the meta page.
        let may_be_done = matches!(open.env.read_txn(), Err(heed::Error::Mdb(MdbError::Panic)));
        drop(open);
        // If this fails, the next commit tries again. Try it now, because the process may be killed or the power may
        // fail before the next commit.
        if let Ok(open) = self.reopen(Some(reopened)) {
            let _ = open.env.try_clone_inner_file().map(|data| data.sync_data());
        }
        if may_be_done { WriteError::Uncertain(error) } else { WriteError::Lost(error) }
    }

    /// Makes the meta pages in memory durable. See the top of this file. `_txn` holds LMDB's write lock.
    fn sync_meta_pages(&self, open: &OpenEnv, _txn: &RwTxn<'_>) -> heed::Result<()> {
        if self.must_sync.load(Ordering::Relaxed) {
            let data = open.env.try_clone_inner_file()?;
            pages::rewrite_metas(&data, self.page_size).map_err(heed::Error::Io)?;
            data.sync_data().map_err(heed::Error::Io)?;
            self.must_sync.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether there is room for all of these writes in one transaction.
    fn admit(
        &self,
        tables: Tables,
        txn: &RoTxn<'_>,
        writes: &[&Write],
        may_wait: bool,
        trees: &Trees,
        usage: Usage,
    ) -> Result<Admission, WriteError> {
        let growth = writes.iter().map(|write| write.growth() as u64).sum::<u64>();
        let estimator = PageEstimator {
            tables,
            txn,
            encryption: &self.encryption,
            trees,
            page_size: self.page_size,
            free: usage.free / self.page_size,
            max_per_user: self.limits.per_user.ends_beyond(),
            lifetime: self.limits.max_lifetime,
        };
        let need = Need {
            pages: estimator.of(writes, !self.quota.is_ample(usage, 2 * growth))?,
            next: estimator.smallest(),
            adds: writes.iter().any(|write| write.may_add()),
            is_smallest: matches!(writes, [write] if write.limited_to(1).is_none()),
            may_wait,
        };
        let last = (txn.id() as u64).saturating_sub(1);
        // If the free pages cannot be read, assume that there are none.
        let free = |enough| pages::free(self.data(), last, enough).unwrap_or_default();
        Ok(self.quota.admit(self.data(), usage, &need, free)?)
    }
}

/// Commits. The outer error comes from a simulator.
#[allow(clippy::unnecessary_wraps, reason = "without a simulator there is no such error")]
fn finish(rows: TableRows<'_>) -> Result<heed::Result<()>, WriteError> {
    #[cfg(test)]
    if let Some(fault) = points::hooks::simulator().and_then(|simulator| simulator.commit_fault()) {
        return Err(fail(rows, fault));
    }
    Ok(rows.commit())
}

/// Makes a commit fail in the way that a simulator has chosen.
#[cfg(test)]
fn fail(rows: TableRows<'_>, fault: CommitFault) -> WriteError {
    let error = heed::Error::Io(std::io::Error::from_raw_os_error(libc::EIO));
    match fault {
        CommitFault::Full => WriteError::Lost(heed::Error::Mdb(MdbError::MapFull)),
        CommitFault::Lost => WriteError::Lost(error),
        CommitFault::Uncertain { is_done } => {
            if is_done && let Err(error) = rows.commit() {
                return WriteError::Lost(error);
            }
            WriteError::Uncertain(error)
        }
    }
}
