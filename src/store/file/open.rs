//! Opens a folder. Looks at what is there before it changes anything.

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
use super::pages::{self, Header};
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

/// Threads that read, of all processes, some of which may have been killed lately.
const MAX_READERS: u32 = 1024;

/// How an environment is open. It is opened again in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    /// Reads alone, with a place in LMDB's reader table.
    Read,
    /// Reads alone, without any lock: where this process can write none. Nobody else may have the store open.
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

pub(super) struct Opened {
    pub env: Env<WithTls>,
    pub tables: Tables,
    pub encryption: Encryption,
    pub data: File,
    pub page_size: u64,
    pub dir: PathBuf,
    /// `None` if the lock file was missing when a process opened the store that may not create it.
    pub owner: Option<OwnerLock>,
    pub access: Access,
    /// `None` where the system or the file system has no such locks.
    pub mode_lock: Option<Arc<dyn ModeLock>>,
    pub joined: Joined,
    /// The log that the store needs. This process has the store to itself then.
    pub log: Option<LogEntry>,
}

/// Opens a prepared folder, of which this process has no environment open.
pub(super) fn open(dir: &Path, options: &FileOptions) -> Result<Opened> {
    let path = dir.join(DATA);
    let state = inspect(dir, &path)?;
    match (options.read_only, state) {
        (true, State::Missing) => {
            Err(StoreError::Io(format!("no store at {}, and readOnly creates none", dir.display())))
        }
        (true, State::Unborn(damaged)) => Err(damaged),
        (true, State::Sound) if !may_lock(dir) => open_unlocked(dir, options),
        (_, state) => open_locked(dir, options, state),
    }
}

fn open_locked(dir: &Path, options: &FileOptions, state: State) -> Result<Opened> {
    let mut made = Vec::new();
    let (owner, prepared) = OwnerLock::mark(dir, |owner, is_new| {
        if is_new {
            made.push(OWNERS);
        }
        Ok(prepare_files(dir, owner, state, &mut made))
    })?;
    let access = if options.read_only { Access::Read } else { Access::Write };
    match prepared.and_then(|()| open_parts(dir, options, access)) {
        Ok(opened) => Ok(Opened { owner: Some(owner), ..opened }),
        Err(error) => {
            // Removes the files that this call created, unless another process uses them, or has.
            owner.tidy(dir, || remove_files(dir, &made));
            Err(error)
        }
    }
}

/// Makes what is missing, while no other process does so.
pub(super) fn prepare_files(
    dir: &Path,
    owner: &OwnerLock,
    state: State,
    made: &mut Vec<&'static str>,
) -> Result<()> {
    let path = dir.join(DATA);
    if let State::Unborn(damaged) = state {
        make_anew(&path, owner, damaged)?;
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
    private_files::make_files(dir, made)
}

/// Removes the files that a failed opening has made: those of LMDB before the lock file that guards them. A data file
/// that something was committed to stays, and its locks with it.
fn remove_files(dir: &Path, made: &[&'static str]) {
    let data = private_files::open_private(&dir.join(DATA), false);
    let is_used = matches!(data, Ok(Some(file)) if !pages::is_unborn(&file).unwrap_or(false));
    if is_used {
        return;
    }
    for name in [DATA, LOCK, OWNERS].iter().filter(|name| made.contains(name)) {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Opens a store to which this process can write nothing, not even that it reads: a backup on a read-only file system,
/// or the files of another user.
fn open_unlocked(dir: &Path, options: &FileOptions) -> Result<Opened> {
    let owner = OwnerLock::look(dir)?;
    check_unused(dir, owner.as_ref())?;
    Ok(Opened { owner, ..open_parts(dir, options, Access::ReadUnlocked)? })
}

/// Refuses a store without locks that another process may change meanwhile.
pub(super) fn check_unused(dir: &Path, owner: Option<&OwnerLock>) -> Result<()> {
    // A lock file that was missing may have been made since.
    let others = match owner {
        Some(owner) => owner.others()?,
        None => OwnerLock::look(dir)?.map_or(Ok(Others::None), |owner| owner.others())?,
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

/// Whether this process can write the files by which processes know of each other.
#[cfg(unix)]
fn may_lock(dir: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    const LOCK_FILES: &[&str] = if cfg!(target_os = "linux") { &[OWNERS, LOCK] } else { &[LOCK] };
    let can_write = |path: &Path| accessat(CWD, path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS);
    // A missing one would have to be created.
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

/// Opens what LMDB has in the folder, without an owner.
fn open_parts(dir: &Path, options: &FileOptions, access: Access) -> Result<Opened> {
    let path = dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    let (env, data) = open_without_stale_readers(dir, options.max_bytes.map(u64::from), access)?;
    let mode_lock = if access == Access::ReadUnlocked { None } else { mode_lock(dir, access)? };
    let patience = Duration::from_millis(options.command_timeout.unwrap_or(DEFAULT_COMMAND_TIMEOUT));
    let read_log = || {
        if access == Access::Write {
            see_last_commit(&env).map_err(lmdb)?;
        }
        read_log(&env, &path)
    };
    let needs_log = || Ok(read_log()?.is_some());
    // Before anything is read that means something: the process that has the store to itself may change it.
    let joined = match &mode_lock {
        Some(lock) if access == Access::Write => join(&**lock, dir, patience, needs_log)?,
        Some(lock) => join_to_read(&**lock, dir, patience, needs_log)?,
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
    Ok(Opened {
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

/// Opens the environment, and frees the slots that former readers have left in it.
pub(super) fn open_without_stale_readers(
    dir: &Path,
    max_bytes: Option<u64>,
    access: Access,
) -> Result<(Env<WithTls>, File)> {
    let path = dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    #[cfg(target_os = "linux")]
    if access != Access::ReadUnlocked && stale_readers::may_be_in_table(&dir.join(LOCK), std::process::id()) {
        // Closing an environment frees the slots of this PID, once the environment was read.
        let (env, _) = open_environment(dir, max_bytes, access)?;
        drop(env.read_txn().map_err(lmdb)?);
    }
    // The log is opened when it is needed, which may be much later.
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

/// Makes sure that readers see the last commit. A process that is killed in a commit may have written its meta page and not
/// noted that in the lock file. Readers then see the state before, until somebody takes the write lock.
pub(super) fn see_last_commit(env: &Env<WithTls>) -> heed::Result<()> {
    let last = env.info().last_txn_id;
    let seen = env.read_txn()?.id();
    if seen < last {
        // Without a commit: LMDB repairs the lock file when it gets the lock of a process that has died.
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

/// Opens again a folder of which this process had an environment open. Returns the data file, too.
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

/// Opens the tables, and commits for them to stay open.
fn keep_tables(env: &Env<WithTls>, txn: RoTxn<'_, WithTls>, path: &Path) -> Result<Tables> {
    let lmdb = |error| failed(path, error);
    let tables = Tables::open(env, &txn).map_err(lmdb)?;
    txn.commit().map_err(lmdb)?;
    tables.ok_or_else(|| StoreError::Damaged(format!("{} has lost a table", path.display())))
}

pub(super) enum State {
    /// There is no file, or an empty one.
    Missing,
    Sound,
    /// The first commit of all was cut off, with this error where it cannot be begun anew.
    Unborn(StoreError),
}

/// Refuses what is no store, or only a part of one: LMDB would mmap it and crash with SIGBUS.
pub(super) fn inspect(dir: &Path, path: &Path) -> Result<State> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(5);
    let failed = |error| io_failed(&path.display(), "reading", &error);
    let Some(file) = private_files::open_private(path, false)? else { return Ok(State::Missing) };
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(State::Missing);
    }
    // A store of ours has this beside its file before anything is written to that; what a user has there does not.
    let is_ours = || dir.join(LOCK).exists();
    let mut tries = 1;
    let fault = loop {
        // Retrying only helps while another process is still writing the first pages. Asked first, as that may end at
        // any moment.
        let may_be_begun = pages::may_be_begun(&file).map_err(failed)?;
        let (may_pass, fault) = match find_fault(&file) {
            Ok(None) => return Ok(State::Sound),
            Err(pages::Fault::Io(error)) => return Err(failed(error)),
            Ok(Some(fault)) => (false, fault),
            Err(fault @ pages::Fault::Gone(_)) => (true, fault.to_string()),
            Err(fault) => (may_be_begun && is_ours(), fault.to_string()),
        };
        if !may_pass || tries == TRIES {
            break fault;
        }
        tries += 1;
        thread::sleep(PAUSE);
    };
    let damaged =
        StoreError::Damaged(format!("{} is damaged, or not a session store: {fault}", path.display()));
    if is_ours() && pages::is_unborn(&file).map_err(failed)? {
        Ok(State::Unborn(damaged))
    } else {
        Err(damaged)
    }
}

/// Empties a file that was never committed to, for LMDB to begin it again.
fn make_anew(path: &Path, owner: &OwnerLock, damaged: StoreError) -> Result<()> {
    if owner.others()? != Others::None {
        return Err(damaged);
    }
    let Some(file) = private_files::open_private(path, true)? else { return Ok(()) };
    // Another process may have begun it, and ended, since it was looked at.
    let failed = |error| io_failed(&path.display(), "making", &error);
    if !pages::is_unborn(&file).map_err(failed)? {
        return Ok(());
    }
    file.set_len(0).map_err(failed)
}

fn find_fault(file: &File) -> Result<Option<String>, pages::Fault> {
    let Some(header) = pages::inspect(file)?.filter(Header::is_short) else { return Ok(None) };
    // Pages at its end that hold nothing may never have been written. Only a walk tells.
    let walk = pages::walk(file, header.txn_id, &mut |_, _| ())?;
    // It means nothing where others write meanwhile: but then they have the file open, and it is whole.
    let is_still = pages::inspect(file)?.is_some_and(|now| now.txn_id == header.txn_id);
    Ok(walk.findings.into_iter().next().filter(|_| is_still))
}

/// LMDB opens its files by path. A user who may write to the folder can replace one in this very moment: then this
/// process may have opened what a link leads to, but it does not go on.
fn open_environment(dir: &Path, max_bytes: Option<u64>, access: Access) -> Result<(Env<WithTls>, File)> {
    let (path, lock) = (dir.join(DATA), dir.join(LOCK));
    let lock_before = private_files::check(&lock)?;
    private_files::check(&path)?;
    let env = map_environment(dir, max_bytes, access)?;
    let data = env.try_clone_inner_file().map_err(|error| failed(&path, error))?;
    // Where descriptors cannot be listed, as without /proc, the store is of use all the same.
    let _ = private_files::close_on_exec(&data);
    let is_same_lock = match (lock_before, private_files::check(&lock)?) {
        (Some(before), Some(now)) => private_files::is_same_file(&before, &now),
        // Nobody makes one where nothing can be written.
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
        // At least one: `sizes` refuses to give none.
        let Some(size) = sizes.next() else { return Err(StoreError::Internal("no map size".into())) };
        let mut options = EnvOpenOptions::new();
        options.map_size(size).max_dbs(TABLES).max_readers(MAX_READERS);
        // SAFETY: without locks it is read alone, and `check_unused` has seen that nobody else has it open.
        unsafe { options.flags(access.flags()) };
        // SAFETY: the caller has seen to it that this process has it open once, `inspect` that the file is whole. That
        // no one cuts it short later is asked of the user.
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
    // For the table to stay open.
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

/// Makes the tables, if no other process has done so meanwhile.
fn create_tables(env: &Env<WithTls>, secrets: &[Secret], path: &Path) -> Result<()> {
    let lmdb = |error| failed(path, error);
    let mut txn = env.write_txn().map_err(lmdb)?;
    let tables = Tables::create(env, &mut txn).map_err(lmdb)?;
    if Tables::format(tables.meta, &txn).map_err(lmdb)?.is_some() {
        return txn.commit().map_err(lmdb);
    }
    tables.keep_times(&mut txn).map_err(lmdb)?;
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
