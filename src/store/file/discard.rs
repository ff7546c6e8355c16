//! Discards a missing or damaged redo log, so that its store can be opened again. The readable part of the log goes
//! to the data file, see `redo::salvage`.
//!
//! **Order.** First, the log is renamed. Its new name contains the log's id. Then one transaction writes the readable
//! part and removes the log from the data file.
//!
//! - A process that is killed before the commit leaves a store that is still refused, because its log is missing. The
//!   next attempt finds the log by its id and reads the same batches.
//! - A process that is killed after the commit leaves a store without a log.
//! - A new log never overwrites the damaged file.
//!
//! No secret is needed, because rows are copied unchanged and the user tag in them is not encrypted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use heed::{Env, MdbError, WithTls};

use super::errors::{failed, io_failed};
use super::names::{DATA, REDO};
use super::open::{self, Access, FileState};
use super::owner_lock::{Others, OwnerLock};
use super::redo::format::{LogEntry, LogId};
use super::redo::mode_lock::ModeLock;
use super::redo::points::{self, Point};
use super::redo::ring::{LogFault, MISSING, fault_of};
use super::redo::salvage::{Salvaged, salvage};
use super::redo::storage::{Folder, LogFile, LogFiles, open_to_read};
use super::registry::Registered;
use super::rows::{IndexEntries, Rows, TableRows};
use super::start::OPEN;
use super::tables::Tables;
use super::{FileStore, folder, pages, private_files};
use crate::clock::Millis;
use crate::error::{Result, StoreError};

/// The state of a store's redo log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// The store does not need a log.
    NotNeeded,
    /// Opening the store recovers the log.
    Sound,
    /// The store cannot be opened.
    Damaged(LogDamage),
}

/// The damage of a redo log, and the part of it that can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    /// The problem, as a clause.
    pub problem: String,
    /// The log file. An earlier attempt to discard it may have renamed it.
    pub file: Option<PathBuf>,
    pub file_bytes: u64,
    /// When the log was last written.
    pub written_at: Option<Millis>,
    /// When the data file was last written.
    pub data_written_at: Option<Millis>,
    /// Session changes before the damage.
    pub changes: u64,
    /// Whether the data file may have newer states than these changes. In that case only the ends of sessions are
    /// kept.
    pub is_data_ahead: bool,
    /// Readable session changes after the damage. Only the ends of sessions are kept.
    pub later_changes: u64,
    /// The minimum number of missing bytes. 0 if it is unknown.
    pub lost_bytes: u64,
    /// Identifies this state of the log. `discard_log` requires it.
    pub fingerprint: String,
}

/// The result of discarding a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardedLog {
    /// Sessions whose newest state came from the log.
    pub kept: u64,
    /// Sessions that were removed from the data file because the log says that they have ended.
    pub ended: u64,
    /// The log file, if it still exists.
    pub file: Option<PathBuf>,
}

/// A store that this process has opened exclusively, without its secrets.
struct ExclusiveStore {
    // Dropped before the locks.
    env: Env<WithTls>,
    data: File,
    tables: Tables,
    is_encrypted: bool,
    log: Option<LogEntry>,
    dir: PathBuf,
    _mode_lock: Option<Arc<dyn ModeLock>>,
    _owner: OwnerLock,
}

/// A log that cannot be recovered.
struct DamagedLog {
    damage: LogDamage,
    entry: LogEntry,
    salvaged: Salvaged,
}

impl FileStore {
    /// Reports the problem of a store's redo log, if there is one. Needs no secret and changes nothing.
    ///
    /// # Errors
    /// `Locked` if any process, this one included, has the store open. `Damaged` if the data file is damaged too.
    /// `Io`.
    pub fn inspect_log(path: &Path, may_be_on_network: bool) -> Result<LogState> {
        let dir = find(path, may_be_on_network)?;
        let _reserved = Self::reserve(&dir)?;
        inspect(&dir)
    }

    /// Discards a missing or damaged redo log. Keeps its readable part, and renames its file. `fingerprint`
    /// identifies the damage that [`FileStore::inspect_log`] has reported.
    ///
    /// # Errors
    /// As for `inspect_log`. `Locked` if the log has changed since. `Full`. Nothing has changed, unless the outcome
    /// is unknown.
    pub fn discard_log(path: &Path, may_be_on_network: bool, fingerprint: &str) -> Result<DiscardedLog> {
        let dir = find(path, may_be_on_network)?;
        let _reserved = Self::reserve(&dir)?;
        discard(&dir, fingerprint)
    }

    fn reserve(dir: &Path) -> Result<Registered<Self>> {
        OPEN.reserve(dir)?.ok_or_else(|| {
            StoreError::Locked(format!(
                "the store in {} is open in this process: close it first",
                dir.display()
            ))
        })
    }
}

/// Finds the folder of a store.
fn find(path: &Path, may_be_on_network: bool) -> Result<PathBuf> {
    folder::prepare(path, folder::FolderRules { is_created: false, may_be_on_network })
}

/// Reports the problem of the log in a folder.
///
/// # Errors
/// `Locked` if another process has the store open. `Damaged` if the data file is damaged too. `Io`.
fn inspect(dir: &Path) -> Result<LogState> {
    let store = open_exclusively(dir)?;
    Ok(match store.log {
        None => LogState::NotNeeded,
        Some(entry) => {
            examine(&store, entry)?.map_or(LogState::Sound, |found| LogState::Damaged(found.damage))
        }
    })
}

/// Discards the log if its fingerprint is still the same.
///
/// # Errors
/// As for `inspect`. `Locked` if the log has changed. `Full`. Nothing has changed, unless the outcome is unknown.
fn discard(dir: &Path, fingerprint: &str) -> Result<DiscardedLog> {
    let store = open_exclusively(dir)?;
    let found = store.log.map(|entry| examine(&store, entry)).transpose()?.flatten();
    let Some(found) = found.filter(|found| found.damage.fingerprint == fingerprint) else {
        return Err(changed(dir));
    };
    let log = dir.join(REDO);
    let is_renamed = found.damage.file.as_ref() == Some(&log);
    let file = if is_renamed { Some(set_aside(dir, &found.entry.id)?) } else { found.damage.file.clone() };
    points::reach(Point::LogSetAside);
    match commit(&store, &found) {
        Ok((kept, ended)) => {
            points::reach(Point::AfterLogDiscard);
            Ok(DiscardedLog { kept, ended, file })
        }
        Err(error) => {
            if let Some(aside) = file.filter(|_| is_renamed && !error.is_outcome_unknown()) {
                put_back(dir, &aside);
            }
            Err(error)
        }
    }
}

/// Opens a store exclusively. No other process can open it as long as the result exists.
fn open_exclusively(dir: &Path) -> Result<ExclusiveStore> {
    let path = dir.join(DATA);
    let in_use = || {
        StoreError::Locked(format!(
            "another process has the store in {} open, or is opening it. Stop all processes that use the store first",
            dir.display()
        ))
    };
    match open::inspect(dir, &path)? {
        FileState::Sound => {}
        FileState::Missing => return Err(StoreError::Io(format!("no store at {}", dir.display()))),
        FileState::NeverCommitted(damaged) => return Err(damaged),
    }
    let (owner, ()) = OwnerLock::acquire(dir, |owner, _| {
        if owner.others()? == Others::Some {
            return Err(in_use());
        }
        open::prepare_files(dir, owner, FileState::Sound, &mut Vec::new())
    })?;
    let mode_lock = open::mode_lock(dir, Access::Write)?;
    if let Some(lock) = &mode_lock {
        let is_alone = lock.try_exclusive().map_err(|error| io_failed(&dir.display(), "locking", &error))?;
        if !is_alone {
            return Err(in_use());
        }
    }
    check_data(&path)?;
    let lmdb = |error| failed(&path, error);
    let (env, data) = open::open_without_stale_readers(dir, None, Access::Write)?;
    open::see_last_commit(&env).map_err(lmdb)?;
    let log = open::read_log(&env, &path)?;
    let (tables, is_encrypted) = open::open_tables_locked(&env, &path)?;
    Ok(ExclusiveStore {
        env,
        data,
        tables,
        is_encrypted,
        log,
        dir: dir.to_path_buf(),
        _mode_lock: mode_lock,
        _owner: owner,
    })
}

/// Finds the problem of a log. `None` if the log can be recovered.
fn examine(store: &ExclusiveStore, entry: LogEntry) -> Result<Option<DamagedLog>> {
    let log = store.dir.join(REDO);
    let (problem, found) = match Folder(store.dir.clone()).open()? {
        None => (MISSING.into(), open_aside(&store.dir, &entry.id)?),
        Some(file) => match fault_of(&*file, &entry) {
            None => return Ok(None),
            Some(LogFault::Damaged(why)) => (why, Some((log.clone(), file))),
            Some(LogFault::Io(error)) => {
                (format!("the disk fails to read it ({error})"), Some((log.clone(), file)))
            }
        },
    };
    let (file, salvaged) = match found {
        None => (None, Salvaged::default()),
        Some((path, file)) => {
            let salvaged = salvage(&*file, &entry);
            let salvaged = salvaged.map_err(|error| io_failed(&path.display(), "reading", &error))?;
            if salvaged.prefix_changes + salvaged.later_changes == 0
                && path == log
                && let Some((aside, _)) = open_aside(&store.dir, &entry.id)?
            {
                return Err(StoreError::Damaged(format!(
                    "{} contains nothing of this store: {problem}. An earlier attempt has renamed the store's log to {}. To keep \
                     the rest of that log, move {} out of the folder and try again",
                    log.display(),
                    aside.display(),
                    log.display()
                )));
            }
            (Some(path), salvaged)
        }
    };
    let metadata = file.as_ref().and_then(|file| fs::metadata(file).ok());
    let file_bytes = metadata.as_ref().map_or(0, fs::Metadata::len);
    let name = file.as_ref().and_then(|file| file.file_name()).unwrap_or_default().to_string_lossy();
    let (id, applied) = (hex(&entry.id), entry.applied.lsn);
    let damage = LogDamage {
        fingerprint: format!("{id}-{applied}-{name}-{file_bytes}-{:08x}", salvaged.checksum),
        problem,
        file_bytes,
        written_at: metadata.as_ref().and_then(modified_at),
        data_written_at: store.data.metadata().ok().as_ref().and_then(modified_at),
        changes: salvaged.prefix_changes,
        is_data_ahead: salvaged.is_data_ahead,
        later_changes: salvaged.later_changes,
        lost_bytes: salvaged.lost_bytes,
        file,
    };
    Ok(Some(DamagedLog { damage, entry, salvaged }))
}

/// Rejects a damaged data file, because LMDB trusts its pages. No process has it open.
fn check_data(path: &Path) -> Result<()> {
    let walk = || {
        let Some(file) = private_files::open_private(path, false)? else { return Ok(None) };
        let walked = pages::inspect(&file).and_then(|header| {
            header.map(|header| pages::walk(&file, header.txn_id, &mut |_, _| ())).transpose()
        });
        match walked {
            Ok(walk) => Ok(walk.and_then(|walk| walk.findings.into_iter().next())),
            Err(pages::Fault::Io(error)) => Err(io_failed(&path.display(), "reading", &error)),
            Err(fault) => Ok(Some(fault.to_string())),
        }
    };
    match walk()? {
        None => Ok(()),
        Some(fault) => Err(StoreError::Damaged(format!(
            "{} is damaged, with or without its redo log: {fault}. Restore a backup",
            path.display()
        ))),
    }
}

/// Renames the log. The new name is durable when this returns.
fn set_aside(dir: &Path, id: &LogId) -> Result<PathBuf> {
    let log = dir.join(REDO);
    let failed = |error| io_failed(&log.display(), "renaming", &error);
    let mut aside = None;
    for path in aside_paths(dir, id) {
        if !path.try_exists().map_err(failed)? {
            aside = Some(path);
            break;
        }
    }
    let aside = aside.unwrap_or_else(|| unreachable!("the sequence of names is infinite"));
    private_files::make_private(&log)?;
    fs::rename(&log, &aside).map_err(failed)?;
    folder::sync(dir).map_err(|error| {
        put_back(dir, &aside);
        failed(error)
    })?;
    Ok(aside)
}

/// Restores the name of the log. If this fails, the next attempt finds the log under its other name.
fn put_back(dir: &Path, aside: &Path) {
    let _ = fs::rename(aside, dir.join(REDO)).and_then(|()| folder::sync(dir));
}

/// Opens the last file that `set_aside` created from this log.
fn open_aside(dir: &Path, id: &LogId) -> Result<Option<(PathBuf, Arc<dyn LogFile>)>> {
    let mut last = None;
    for path in aside_paths(dir, id) {
        let Some(file) = open_to_read(&path)? else { break };
        last = Some((path, file));
    }
    Ok(last)
}

/// The names for this log after it was set aside, in the order of their use.
fn aside_paths(dir: &Path, id: &LogId) -> impl Iterator<Item = PathBuf> {
    let first = format!("{REDO}.damaged-{}", hex(&id[..4]));
    let dir = dir.to_path_buf();
    (1_u64..).map(move |nth| dir.join(if nth == 1 { first.clone() } else { format!("{first}-{nth}") }))
}

/// Writes the readable part of the log and removes the log from the data file, in one transaction. Returns how many
/// sessions got their state from the log, and how many sessions it ended.
fn commit(store: &ExclusiveStore, found: &DamagedLog) -> Result<(u64, u64)> {
    let path = store.dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    let io = |error| io_failed(&path.display(), "writing", &error);
    let txn = store.env.write_txn().map_err(lmdb)?;
    // The last process may have left a rolled-back meta page that is not durable, see `commit`.
    pages::rewrite_metas(&store.data, u64::from(store.env.stat().page_size)).map_err(io)?;
    store.data.sync_data().map_err(io)?;
    if store.tables.log(&txn).map_err(lmdb)? != Some(found.entry) {
        return Err(changed(&store.dir));
    }
    let mut rows = TableRows::new(txn, store.tables).map_err(lmdb)?;
    let counts = write(&mut rows, store, &found.salvaged).map_err(lmdb)?;
    points::reach(Point::BeforeLogDiscard);
    rows.commit().map_err(|error| {
        let error = lmdb(error);
        // LMDB gives up an environment if it cannot write the meta page. That page may still be on disk.
        match store.env.read_txn() {
            Err(heed::Error::Mdb(MdbError::Panic)) => error.of_unknown_outcome(),
            _ => error,
        }
    })?;
    Ok(counts)
}

fn write(rows: &mut TableRows<'_>, store: &ExclusiveStore, salvaged: &Salvaged) -> heed::Result<(u64, u64)> {
    let indexed_of = |row: &[u8]| IndexEntries::of_stored(row, store.is_encrypted);
    let mut ended = 0;
    for (key, row) in &salvaged.rows {
        match row.as_deref() {
            Some(row) => rows.put(key, (indexed_of(row), row), indexed_of)?,
            None => _ = remove_if(rows, key, indexed_of, |_| true)?,
        }
    }
    for (key, before) in &salvaged.ended {
        ended += u64::from(remove_if(rows, key, indexed_of, |old| old.created < *before)?);
    }
    store.tables.set_log(&mut rows.txn, None)?;
    store.tables.set_next(&mut rows.txn, salvaged.next)?;
    rows.has_changed = true;
    Ok((salvaged.rows.len() as u64, ended))
}

/// Removes the row of a key if `applies` is true for it. Returns whether it removed one.
fn remove_if(
    rows: &mut TableRows<'_>,
    key: &[u8],
    indexed_of: impl FnOnce(&[u8]) -> IndexEntries,
    applies: impl FnOnce(IndexEntries) -> bool,
) -> heed::Result<bool> {
    let Some(old) = rows.read(key, indexed_of)?.filter(|old| applies(*old)) else { return Ok(false) };
    rows.set(key, Some(old), None)?;
    Ok(true)
}

fn changed(dir: &Path) -> StoreError {
    StoreError::Locked(format!(
        "the redo log of the store in {} has changed since its inspection. Nothing was changed: inspect it again",
        dir.display()
    ))
}

fn modified_at(metadata: &fs::Metadata) -> Option<Millis> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Millis::try_from(since.as_millis()).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
