//! Commits: the only way by which anything gets into the file.
//!
//! # A failed sync
//!
//! After a failed `fdatasync` Linux may mark the pages as clean that it could not write. A second one then succeeds
//! and has written nothing. This is what it means for the two parts of a commit:
//!
//! - **The pages of the transaction.** LMDB syncs them before it writes the meta page. If the sync fails there is no
//!   meta page that names them, and the state before, which was synced by its own commit, stays the store. The next
//!   commit writes all of its pages itself. So nothing relies on a page that was given up.
//! - **The meta page.** LMDB writes it through a descriptor with `O_DSYNC`. If that fails the new meta page may be on
//!   disk all the same. LMDB then writes the old transaction number over it ("takes it back"), without a sync. If the
//!   power failed later, the disk could still have the new meta page, whose pages the next commit has overwritten. So
//!   the page that was taken back must be on disk before the next commit writes anything.
//!
//! A sync alone does not ensure that: an earlier one may have failed and marked the page as clean. So `settle_meta`
//! writes both meta pages again, with the bytes that they have, and syncs them. Writing makes them dirty, whatever
//! happened to them before. A sync that then succeeds has written them. This happens before the first commit of each
//! process, as the process before may have left such a page, and before the first commit after a failed one. It holds
//! LMDB's write lock: no other process may change the pages between the read and the write. Where the kernel has dropped
//! the page that was taken back, it reads the new meta page from the disk: then the commit that failed has happened,
//! as docs/guarantees.md says.

use std::sync::atomic::Ordering;

use heed::{AnyTls, MdbError, RoTxn, RwTxn};

use super::apply::{Rules, Write, WriteBatch};
use super::cost::{Costing, Trees};
use super::counters::CounterDelta;
use super::encryption::Encryption;
use super::environment::{Environment, KnownLog, Open};
use super::errors::{log_of_another, read_only};
use super::limits::Limits;
use super::open::Access;
use super::pages;
use super::redo::format::LogEntry;
#[cfg(test)]
use super::redo::points::{self, hooks::CommitFault};
use super::room::{Admission, Need, Usage};
use super::rows::TableRows;
use super::secrets;
use super::tables::Tables;
use super::write_error::WriteError;
use crate::error::{Result, StoreError};
use crate::events::Ends;

impl Environment {
    /// Applies writes in one transaction, and returns when they are on disk. A write that is refused fails alone. An
    /// error fails all writes, and then none has happened, unless the error says that its outcome is unknown.
    pub(super) fn commit(&self, writes: &[&Write]) -> Result<Vec<Result<u64>>> {
        self.commit_with_log(writes, None)
    }

    /// Commits writes likewise, together with what the store says of its log from then on.
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

    /// Changes rows and what the store says of its log, in one transaction, and returns when that is on disk.
    ///
    /// # Errors
    /// Those of `change`, and of a write. Nothing has changed then, unless the error says that its outcome is unknown.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut TableRows<'_>) -> Result<T, WriteError>,
    ) -> Result<T> {
        self.clear_stale_readers();
        self.try_change(change).map_err(|error| error.at(&self.data_path()))
    }

    /// Makes what the data file says now durable. A process that relies on it without a commit of its own calls this first:
    /// the process before may have left a meta page that was taken back.
    ///
    /// # Errors
    /// As for `change`.
    pub(super) fn settle(&self) -> Result<()> {
        if self.must_sync.load(Ordering::Relaxed) { self.change(|_| Ok(())) } else { Ok(()) }
    }

    /// What writes of this process keep to.
    pub(super) fn rules(&self) -> Rules {
        let Limits { per_user, max_lifetime, .. } = self.limits;
        let keeps_times = self.keeps_times.load(Ordering::SeqCst);
        Rules { per_user, lifetime: max_lifetime, keeps_times }
    }

    fn try_change<T>(
        &self,
        change: impl FnOnce(&mut TableRows<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let _turn = self.writer_turn();
        let open = self.open()?;
        let txn = self.write_txn(&open)?;
        if let Err(error) = self.settle_meta(&open, &txn) {
            drop(txn);
            return Err(self.lost(open, error));
        }
        self.check_log(open.tables, &txn)?;
        let mut rows = TableRows::new(txn, open.tables);
        let changed = change(&mut rows)?;
        self.held.check()?;
        finish(rows)?.map_err(|error| self.lost(open, error))?;
        Ok(changed)
    }

    fn try_commit(
        &self,
        writes: &[&Write],
        log: Option<&LogEntry>,
    ) -> Result<(Vec<Result<u64>>, CounterDelta, Ends), WriteError> {
        let _turn = self.writer_turn();
        let open = self.open()?;
        let tables = open.tables;
        let adds = writes.iter().any(|write| write.adds());
        let mut may_wait = true;
        let (txn, usage) = loop {
            let mut txn = self.write_txn(&open)?;
            if let Err(error) = self.settle_meta(&open, &txn) {
                drop(txn);
                return Err(self.lost(open, error));
            }
            self.check_log(tables, &txn)?;
            let trees = Trees::read(tables, &txn)?;
            let usage = self.usage_of(&open, &trees);
            if self.admit(tables, &txn, writes, may_wait, &trees, usage)? == Admission::Now {
                break (txn, usage);
            }
            // An empty commit: it makes the pages reusable that the last transaction freed.
            let next = tables.next(&txn)?;
            tables.set_next(&mut txn, next)?;
            if let Err(error) = txn.commit() {
                return Err(self.lost(open, error));
            }
            may_wait = false;
        };
        let mut rows = TableRows::new(txn, tables);
        let mut batch =
            WriteBatch::new(&mut rows, &self.encryption, self.rules(), self.clock.now(), self.events.ends());
        let refusal = self.add_missing_keys(batch.rows, writes)?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let mark = batch.ended.mark();
            let refused = refusal.as_ref().filter(|_| write.seals());
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
            self.room.check(usage, self.used(&Trees::read(tables, &rows.txn)?))?;
        }
        if log.is_some() {
            tables.set_log(&mut rows.txn, log)?;
            rows.has_changed = true;
        }
        let keys = secrets::wrapped_keys(tables.meta, &rows.txn)?.map(<[u8]>::to_vec);
        self.held.check()?;
        finish(rows)?.map_err(|error| self.lost(open, error))?;
        if refusal.is_none() && writes.iter().any(|write| write.seals()) {
            *self.complete_keys.lock() = keys;
        }
        Ok((outcomes, counted, ended))
    }

    /// Sees to it that the file has the wrapped keys of our secrets, if a write encrypts a session. Opening alone does not
    /// change the file. Returns why those writes must be refused, if no secret opens the store any more.
    fn add_missing_keys(
        &self,
        rows: &mut TableRows<'_>,
        writes: &[&Write],
    ) -> Result<Option<StoreError>, WriteError> {
        let TableRows { tables, txn, has_changed, .. } = rows;
        if !writes.iter().any(|write| write.seals()) || self.has_complete_keys(*tables, txn)? {
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

    /// Whether the file is known to have the wrapped keys of our secrets.
    fn has_complete_keys(&self, tables: Tables, txn: &RoTxn<'_, AnyTls>) -> heed::Result<bool> {
        Ok(match secrets::wrapped_keys(tables.meta, txn)? {
            Some(keys) => self.complete_keys.lock().as_deref() == Some(keys),
            None => matches!(self.encryption, Encryption::Off),
        })
    }

    /// Sees to it that the file has the wrapped keys of our secrets, in a commit of its own if need be.
    ///
    /// # Errors
    /// Why no session can be encrypted; those of a commit.
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

    /// Refuses a transaction where the store has another log than this process knows of: then another process writes to
    /// the store that should have been kept out, as after its lock files were removed.
    fn check_log(&self, tables: Tables, txn: &RoTxn<'_, AnyTls>) -> Result<(), WriteError> {
        let found = tables.log(txn)?.map_or(KnownLog::None, |log| KnownLog::Log(log.id));
        let known = *self.log.lock();
        if known == found || known == KnownLog::Doubtful {
            Ok(())
        } else {
            Err(log_of_another(self.dir()).into())
        }
    }

    /// What is done after a transaction that could not be committed: the environment is opened again, once.
    fn lost(&self, open: Open, error: heed::Error) -> WriteError {
        let reopened = open.reopened;
        // LMDB gives up an environment whose meta page it could not write.
        let may_be_done = matches!(open.env.read_txn(), Err(heed::Error::Mdb(MdbError::Panic)));
        drop(open);
        // If one of these fails, the next commit tries again. Until then a process may be killed, or the power may fail:
        // the sooner the meta page is on disk the better.
        if let Ok(open) = self.reopen(Some(reopened)) {
            let _ = open.env.try_clone_inner_file().map(|data| data.sync_data());
        }
        if may_be_done { WriteError::Uncertain(error) } else { WriteError::Lost(error) }
    }

    /// Makes the meta pages on disk those that are in memory. See the top of this file. `_txn` is LMDB's write lock.
    fn settle_meta(&self, open: &Open, _txn: &RwTxn<'_>) -> heed::Result<()> {
        if self.must_sync.load(Ordering::Relaxed) {
            let data = open.env.try_clone_inner_file()?;
            pages::rewrite_metas(&data, self.page_size).map_err(heed::Error::Io)?;
            data.sync_data().map_err(heed::Error::Io)?;
            self.must_sync.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether there is room for all of the writes at once.
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
        let costing = Costing {
            tables,
            txn,
            encryption: &self.encryption,
            trees,
            page_size: self.page_size,
            free: usage.free / self.page_size,
            max_per_user: self.limits.per_user.ends_beyond(),
        };
        let need = Need {
            pages: costing.of(writes, !self.room.is_ample(usage, 2 * growth))?,
            next: costing.least(),
            adds: writes.iter().any(|write| write.adds()),
            is_least: matches!(writes, [write] if write.part(1).is_none()),
            may_wait,
        };
        let last = (txn.id() as u64).saturating_sub(1);
        // If the free pages cannot be read, none are taken to be free.
        let free = |enough| pages::free(self.data(), last, enough).unwrap_or_default();
        Ok(self.room.admit(self.data(), usage, &need, free)?)
    }
}

/// Commits. The outer error is one of a simulator.
#[allow(clippy::unnecessary_wraps, reason = "without a simulator there is no such error")]
fn finish(rows: TableRows<'_>) -> Result<heed::Result<()>, WriteError> {
    #[cfg(test)]
    if let Some(fault) = points::hooks::simulator().and_then(|simulator| simulator.commit_fault()) {
        return Err(fail(rows, fault));
    }
    Ok(rows.commit())
}

/// Has a commit fail as a simulator wants it.
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
