//! Opens a store folder. Checks the existing files before it changes anything.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use heed::{Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::encryption::Encryption;
use super::errors::{failed, io_failed, open_failed};
use super::map_size;
use super::names::{DATA, LOCK, OWNERS, REDO};
use super::options::{DEFAULT_COMMAND_TIMEOUT, FileOptions};
use super::owner_lock::{Others, OwnerLock};
use super::pages::{self, FileHeader};
use super::private_files;
use super::redo::format::LogEntry;
use super::redo::join::{Joined, join, join_to_read};
#[cfg(target_os = "linux")]
use super::redo::mode_lock::DataFileLock;
use super::redo::mode_lock::ModeLock;
use super::secrets;
#[cfg(target_os = "linux")]
use super::stale_readers;
use super::tables::{NEWEST_VERSION, TABLES, Table, Tables, log_of, needs_log};
use crate::error::{Result, StoreError};
use crate::keyring::Secret;

/// The maximum number of reader slots for all processes. Slots of recently killed processes count too.
const MAX_READERS: u32 = 1024;

/// How an environment was opened. `reopen` uses the same mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    /// Only reads, with a slot in LMDB's reader table.
    Read,
    /// Only reads, without locks, because this process cannot write lock files. No other process may have the store
    /// open.
    ReadUnlocked,
}

impl Access {
    fn flags(self) -> EnvFlags {
        match self {
            Self::Write => EnvFlags::empty(),
            Self::Read => EnvFlags::READ_ONLY,
            Self::ReadUnlocked => EnvFlags::READ_ONLY | EnvFlags::NO_LOCK,
        }
    }
}

pub(super) struct OpenedStore {
    pub env: Env<WithTls>,
    pub tables: Tables,
    pub encryption: Encryption,
    pub data: File,
    pub page_size: u64,
    pub dir: PathBuf,
    /// `None` if a process that may not create the lock file opened the store without it.
    pub owner: Option<OwnerLock>,
    pub access: Access,
    /// `None` if the system or the file system does not support these locks.
    pub mode_lock: Option<Arc<dyn ModeLock>>,
    pub joined: Joined,
    /// The log that the store needs. If there is one, this process has opened the store exclusively.
    pub log: Option<LogEntry>,
}

/// Opens a prepared folder. This process must not have another environment open there.
pub(super) fn open(dir: &Path, options: &FileOptions) -> Result<OpenedStore> {
    let path = dir.join(DATA);
    let state = inspect(dir, &path)?;
    match (options.read_only, state) {
        (true, FileState::Missing) => {
            Err(StoreError::Io(format!("no store at {}, and readOnly creates none", dir.display())))
        }
        (true, FileState::NeverCommitted(damaged)) => Err(damaged),
        (true, FileState::Sound) if !may_lock(dir) => open_unlocked(dir, options),
        (_, state) => open_locked(dir, options, state),
    }
}

fn open_locked(dir: &Path, options: &FileOptions, state: FileState) -> Result<OpenedStore> {
    let mut created = Vec::new();
    let (owner, prepared) = OwnerLock::acquire(dir, |owner, is_new| {
        if is_new {
            created.push(OWNERS);
        }
        Ok(prepare_files(dir, owner, state, &mut created))
    })?;
    let access = if options.read_only { Access::Read } else { Access::Write };
    match prepared.and_then(|()| open_parts(dir, options, access)) {
        Ok(opened) => Ok(OpenedStore { owner: Some(owner), ..opened }),
        Err(error) => {
            // Remove the files that this call created, unless another process uses or has used them.
            owner.remove_if_alone(dir, || remove_files(dir, &created));
            Err(error)
        }
    }
}

/// Creates the missing files. The caller holds the setup lock.
pub(super) fn prepare_files(
    dir: &Path,
    owner: &OwnerLock,
    state: FileState,
    created: &mut Vec<&'static str>,
) -> Result<()> {
    let path = dir.join(DATA);
    if let FileState::NeverCommitted(damaged) = state {
        reset_uncommitted(&path, owner, damaged)?;
    }
    let has_lock = private_files::check(&dir.join(LOCK))?.is_some();
    let has_data = private_files::check(&path)?.is_some();
    if has_data && !has_lock && owner.others()? == Others::Some {
        return Err(StoreError::Locked(format!(
            "{} is gone while another process has the store open: two processes without it in common destroy the \
             store. Stop all processes that use the store, then start them again. Never remove this file",
            dir.join(LOCK).display()
        )));
    }
    private_files::create_files(dir, created)
}

/// Removes the files that a failed attempt has created: those of LMDB before the lock file that protects them. A data
/// file with a commit stays, and so do its lock files.
fn remove_files(dir: &Path, created: &[&'static str]) {
    let data = private_files::open_private(&dir.join(DATA), false);
    let is_used = matches!(data, Ok(Some(file)) if !pages::is_never_committed(&file).unwrap_or(false));
    if is_used {
        return;
    }
    for name in [DATA, LOCK, OWNERS].iter().filter(|name| created.contains(name)) {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Opens a store without write access, not even to the lock files: a backup on a read-only file system, or the files
/// of another user.
fn open_unlocked(dir: &Path, options: &FileOptions) -> Result<OpenedStore> {
    let owner = OwnerLock::open_existing(dir)?;
    check_unused(dir, owner.as_ref())?;
    Ok(OpenedStore { owner, ..open_parts(dir, options, Access::ReadUnlocked)? })
}

/// Rejects a store without locks if another process may change it at the same time.
pub(super) fn check_unused(dir: &Path, owner: Option<&OwnerLock>) -> Result<()> {
    // The lock file may have been created since.
    let others = match owner {
        Some(owner) => owner.others()?,
        None => OwnerLock::open_existing(dir)?.map_or(Ok(Others::None), |owner| owner.others())?,
    };
    if others == Others::None {
        return Ok(());
    }
    Err(StoreError::Locked(format!(
        "{} is open in another process, and this one may not write to its lock files, which every reader has to. Run \
         this as the user of that process, or read a backup",
        dir.display()
    )))
}

/// Whether this process can write the lock files.
#[cfg(unix)]
fn may_lock(dir: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    const LOCK_FILES: &[&str] = if cfg!(target_os = "linux") { &[OWNERS, LOCK] } else { &[LOCK] };
    let can_write = |path: &Path| accessat(CWD, path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS);
    // A missing lock file would have to be created.
    let may_use = |name: &&str| match can_write(&dir.join(name)) {
        Err(rustix::io::Errno::NOENT) => can_write(dir).is_ok(),
        answer => answer.is_ok(),
    };
    LOCK_FILES.iter().all(may_use)
}

#[cfg(not(unix))]
fn may_lock(_: &Path) -> bool {
    true
}

/// Opens the LMDB environment of a folder, without the owner lock.
fn open_parts(dir: &Path, options: &FileOptions, access: Access) -> Result<OpenedStore> {
    let path = dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    let (env, data) = open_without_stale_readers(dir, options.max_bytes.map(u64::from), access)?;
    let mode_lock = if access == Access::ReadUnlocked { None } else { mode_lock(dir, access)? };
    let timeout = Duration::from_millis(options.command_timeout.unwrap_or(DEFAULT_COMMAND_TIMEOUT));
    let read_log = || {
        if access == Access::Write {
            see_last_commit(&env).map_err(lmdb)?;
        }
        read_log(&env, &path)
    };
    let needs_log = || Ok(read_log()?.is_some());
    // Join before reading anything important: a process with exclusive access may still change it.
    let joined = match &mode_lock {
        Some(lock) if access == Access::Write => join(&**lock, dir, timeout, needs_log)?,
        Some(lock) => join_to_read(&**lock, dir, timeout, needs_log)?,
        None => Joined::Shared,
    };
    let (tables, encryption) = open_tables(&env, &options.secrets, &path, access)?;
    let log = read_log()?;
    if log.is_some() && mode_lock.is_none() && access == Access::Write {
        return Err(StoreError::Io(format!(
            "the store in {} has a redo log, and this system or file system has no locks that allow to use it. Open the \
             store where it was used last, and close it there",
            dir.display()
        )));
    }
    let page_size = u64::from(env.stat().page_size);
    Ok(OpenedStore {
        env,
        tables,
        encryption,
        data,
        page_size,
        dir: dir.to_path_buf(),
        owner: None,
        access,
        mode_lock,
        joined,
        log,
    })
}

/// Opens the environment, and frees reader slots of former processes with this PID.
pub(super) fn open_without_stale_readers(
    dir: &Path,
    max_bytes: Option<u64>,
    access: Access,
) -> Result<(Env<WithTls>, File)> {
    let path = dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    #[cfg(target_os = "linux")]
    if access != Access::ReadUnlocked && stale_readers::may_be_in_table(&dir.join(LOCK), std::process::id()) {
        // Closing an environment that has read frees the slots of this PID.
        let (env, _) = open_environment(dir, max_bytes, access)?;
        drop(env.read_txn().map_err(lmdb)?);
    }
    // Check the log file now, because it may be opened much later.
    private_files::open_private(&dir.join(REDO), access == Access::Write)?;
    let (env, data) = open_environment(dir, max_bytes, access)?;
    env.clear_stale_readers().map_err(lmdb)?;
    Ok((env, data))
}

#[cfg(target_os = "linux")]
pub(super) fn mode_lock(dir: &Path, access: Access) -> Result<Option<Arc<dyn ModeLock>>> {
    let lock = DataFileLock::open(dir, access == Access::Write)?;
    Ok(lock.map(|lock| Arc::new(lock) as Arc<dyn ModeLock>))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn mode_lock(_: &Path, _: Access) -> Result<Option<Arc<dyn ModeLock>>> {
    Ok(None)
}

/// Makes sure that readers see the last commit. A process that is killed during a commit may have written its meta
/// page without updating the lock file. Then readers see the previous state until a process takes the write lock.
pub(super) fn see_last_commit(env: &Env<WithTls>) -> heed::Result<()> {
    let last = env.info().last_txn_id;
    let seen = env.read_txn()?.id();
    if seen < last {
        // Not committed: LMDB repairs the lock file when it takes over the lock of a dead process.
        drop(env.write_txn()?);
    }
    Ok(())
}

/// The log that the store needs.
pub(super) fn read_log(env: &Env<WithTls>, path: &Path) -> Result<Option<LogEntry>> {
    let lmdb = |error| failed(path, error);
    let txn = env.read_txn().map_err(lmdb)?;
    let meta: Option<Table> = env.open_database(&txn, None).map_err(lmdb)?;
    let Some(meta) = meta else { return Ok(None) };
    let found = log_of(meta, &txn).map_err(lmdb)?;
    match (Tables::format(meta, &txn).map_err(lmdb)?, found) {
        (Some(version @ 1..=NEWEST_VERSION), None) if needs_log(version) => {
            Err(StoreError::Damaged(format!("{} does not say which redo log it needs", path.display())))
        }
        (_, found) => Ok(found),
    }
}

/// Reopens a folder after this process has closed its environment. Also returns the data file.
pub(super) fn reopen(
    dir: &Path,
    max_bytes: Option<u64>,
    access: Access,
) -> Result<(Env<WithTls>, Tables, File)> {
    let path = dir.join(DATA);
    let (env, data) = open_environment(dir, max_bytes, access)?;
    let txn = env.read_txn().map_err(|error| failed(&path, error))?;
    let tables = keep_tables(&env, txn, &path)?;
    Ok((env, tables, data))
}

/// Opens the tables, and commits so that they stay open.
fn keep_tables(env: &Env<WithTls>, txn: RoTxn<'_, WithTls>, path: &Path) -> Result<Tables> {
    let lmdb = |error| failed(path, error);
    let tables = Tables::open(env, &txn).map_err(lmdb)?;
    txn.commit().map_err(lmdb)?;
    tables.ok_or_else(|| StoreError::Damaged(format!("{} has lost a table", path.display())))
}

pub(super) enum FileState {
    /// The file is missing or empty.
    Missing,
    Sound,
    /// The first commit was interrupted, so that the file never had any content. The error is for callers that cannot
    /// create it again.
    NeverCommitted(StoreError),
}

/// Rejects a foreign or incomplete file. LMDB would mmap it and crash with SIGBUS.
pub(super) fn inspect(dir: &Path, path: &Path) -> Result<FileState> {
    const TRIES: u32 = 10;
    const RETRY_INTERVAL: Duration = Duration::from_millis(5);
    let failed = |error| io_failed(&path.display(), "reading", &error);
    let Some(file) = private_files::open_private(path, false)? else { return Ok(FileState::Missing) };
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(FileState::Missing);
    }
    // Our stores create `lock.mdb` before they write to the data file. Other files of the user have no `lock.mdb`.
    let is_ours = || dir.join(LOCK).exists();
    let mut tries = 1;
    let fault = loop {
        // Retrying only helps while another process writes the first pages. Check that first, because it may finish
        // at any moment.
        let may_be_initializing = pages::may_be_initializing(&file).map_err(failed)?;
        let (may_pass, fault) = match find_fault(&file) {
            Ok(None) => return Ok(FileState::Sound),
            Err(pages::Fault::Io(error)) => return Err(failed(error)),
            Ok(Some(fault)) => (false, fault),
            Err(fault @ pages::Fault::Gone(_)) => (true, fault.to_string()),
            Err(fault) => (may_be_initializing && is_ours(), fault.to_string()),
        };
        if !may_pass || tries == TRIES {
            break fault;
        }
        tries += 1;
        thread::sleep(RETRY_INTERVAL);
    };
    let damaged =
        StoreError::Damaged(format!("{} is damaged, or not a session store: {fault}", path.display()));
    if is_ours() && pages::is_never_committed(&file).map_err(failed)? {
        Ok(FileState::NeverCommitted(damaged))
    } else {
        Err(damaged)
    }
}

/// Empties a file without any commit, so that LMDB can initialise it again.
fn reset_uncommitted(path: &Path, owner: &OwnerLock, damaged: StoreError) -> Result<()> {
    if owner.others()? != Others::None {
        return Err(damaged);
    }
    let Some(file) = private_files::open_private(path, true)? else { return Ok(()) };
    // Another process may have initialised it and closed it since the check.
    let failed = |error| io_failed(&path.display(), "creating", &error);
    if !pages::is_never_committed(&file).map_err(failed)? {
        return Ok(());
    }
    file.set_len(0).map_err(failed)
}

fn find_fault(file: &File) -> Result<Option<String>, pages::Fault> {
    let Some(header) = pages::inspect(file)?.filter(FileHeader::is_short) else { return Ok(None) };
    // Empty pages at the end may never have been written. Only a page walk can show that.
    let walk = pages::walk(file, header.txn_id, &mut |_, _| ())?;
    // A walk during another process's commit proves nothing. But in that case the file is sound.
    let is_still = pages::inspect(file)?.is_some_and(|now| now.txn_id == header.txn_id);
    Ok(walk.findings.into_iter().next().filter(|_| is_still))
}

/// Opens the environment. LMDB opens its files by path, so a user with write access to the folder may replace one at
/// this moment. This process may then open the target of a link, but it does not use it.
fn open_environment(dir: &Path, max_bytes: Option<u64>, access: Access) -> Result<(Env<WithTls>, File)> {
    let (path, lock) = (dir.join(DATA), dir.join(LOCK));
    let lock_before = private_files::check(&lock)?;
    private_files::check(&path)?;
    let env = map_environment(dir, max_bytes, access)?;
    let data = env.try_clone_inner_file().map_err(|error| failed(&path, error))?;
    // The store works without this, such as where /proc is missing.
    let _ = private_files::close_on_exec(&data);
    let is_same_lock = match (lock_before, private_files::check(&lock)?) {
        (Some(before), Some(now)) => private_files::is_same_file(&before, &now),
        // Without write access, nobody creates a lock file.
        (None, None) => true,
        _ => false,
    };
    let is_at =
        private_files::is_at(&data, &path).map_err(|error| io_failed(&path.display(), "opening", &error))?;
    if is_at && is_same_lock { Ok((env, data)) } else { Err(super::errors::files_replaced(dir)) }
}

fn map_environment(dir: &Path, max_bytes: Option<u64>, access: Access) -> Result<Env<WithTls>> {
    let mut sizes = map_size::sizes(max_bytes)?.peekable();
    loop {
        // There is at least one size: `sizes` fails otherwise.
        let Some(size) = sizes.next() else { return Err(StoreError::Internal("no map size".into())) };
        let mut options = EnvOpenOptions::new();
        options.map_size(size).max_dbs(TABLES).max_readers(MAX_READERS);
        // SAFETY: without locks, the environment is read-only, and `check_unused` has checked that no other process
        // has it open.
        unsafe { options.flags(access.flags()) };
        // SAFETY: the caller guarantees that this process opens it once, and `inspect` has checked that the file is
        // complete. The documentation forbids truncating it later.
        match unsafe { options.open(dir) } {
            Ok(env) => return Ok(env),
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && sizes.peek().is_some() => {}
            Err(error) => return Err(open_failed(dir, error)),
        }
    }
}

fn open_tables(
    env: &Env<WithTls>,
    secrets: &[Secret],
    path: &Path,
    access: Access,
) -> Result<(Tables, Encryption)> {
    let lmdb = |error| failed(path, error);
    let txn = env.read_txn().map_err(lmdb)?;
    let meta: Option<Table> = env.open_database(&txn, None).map_err(lmdb)?;
    let is_new = meta.is_none_or(|meta| meta.is_empty(&txn).unwrap_or(false));
    // A commit keeps the table open.
    txn.commit().map_err(lmdb)?;
    if is_new && access == Access::Write {
        create_tables(env, secrets, path)?;
    }
    let meta =
        meta.ok_or_else(|| StoreError::Damaged(format!("{} is not a session store", path.display())))?;
    let txn = env.read_txn().map_err(lmdb)?;
    check_format(meta, &txn, path)?;
    let encryption = secrets::unlock(meta, &txn, secrets, path).map_err(|error| error.at(path))?;
    Ok((keep_tables(env, txn, path)?, encryption))
}

/// Opens the tables without a secret. Returns whether the store is encrypted.
pub(super) fn open_tables_locked(env: &Env<WithTls>, path: &Path) -> Result<(Tables, bool)> {
    let lmdb = |error| failed(path, error);
    let txn = env.read_txn().map_err(lmdb)?;
    let tables = keep_tables(env, txn, path)?;
    let txn = env.read_txn().map_err(lmdb)?;
    check_format(tables.meta, &txn, path)?;
    let is_encrypted = secrets::wrapped_keys(tables.meta, &txn).map_err(lmdb)?.is_some();
    Ok((tables, is_encrypted))
}

/// Creates the tables, unless another process has done so.
fn create_tables(env: &Env<WithTls>, secrets: &[Secret], path: &Path) -> Result<()> {
    let lmdb = |error| failed(path, error);
    let mut txn = env.write_txn().map_err(lmdb)?;
    let tables = Tables::create(env, &mut txn).map_err(lmdb)?;
    if Tables::format(tables.meta, &txn).map_err(lmdb)?.is_some() {
        return txn.commit().map_err(lmdb);
    }
    tables.enable_creation_times(&mut txn).map_err(lmdb)?;
    if !secrets.is_empty() {
        secrets::create(tables.meta, &mut txn, secrets).map_err(|error| error.at(path))?;
    }
    txn.commit().map_err(lmdb)
}

fn check_format(meta: Table, txn: &RoTxn<'_>, path: &Path) -> Result<()> {
    let format = Tables::format(meta, txn).map_err(|error| failed(path, error))?;
    let path = path.display();
    match format {
        Some(1..=NEWEST_VERSION) => Ok(()),
        Some(newer) if newer > NEWEST_VERSION => Err(StoreError::Damaged(format!(
            "{path} has format {newer}, of a newer version of this package; this one reads up to {NEWEST_VERSION}"
        ))),
        _ => Err(StoreError::Damaged(format!("{path} is a file of LMDB's, but not a session store"))),
    }
}
