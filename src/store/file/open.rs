//! Opening a directory: what is there is looked at before anything is changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use heed::{Env, EnvOpenOptions, RoTxn, WithTls};

use super::directory::{self, DATA, LOCK, Owner};
use super::encryption::Encryption;
use super::errors::{failed, io_failed};
use super::pages::{self, Header};
use super::secrets;
#[cfg(target_os = "linux")]
use super::stale_readers;
use super::tables::{FORMAT, TABLES, Table, Tables};
use crate::error::{Result, StoreError};
use crate::keyring::Secret;

/// The version of the file format: of `tables`, `record` and `encryption`.
const VERSION: u32 = 1;

/// Address space, not memory: a file is mapped as a whole and never again.
const MAP_SIZE: u64 = 64 << 30;
/// Where the process may not have as much.
const MIN_MAP_SIZE: u64 = 64 << 20;

/// Threads that read, of all processes, some of which may have been killed lately.
const MAX_READERS: u32 = 1024;

pub(super) struct Opened {
    pub env: Env<WithTls>,
    pub tables: Tables,
    pub encryption: Encryption,
    pub data: File,
    pub page_size: u64,
    pub dir: PathBuf,
    pub owner: Owner,
}

/// Opens a prepared directory, of which this process has no environment open.
pub(super) fn open(dir: PathBuf, secrets: &[Secret], max_bytes: Option<u64>) -> Result<Opened> {
    let path = dir.join(DATA);
    let state = inspect(&dir, &path)?;
    let owner = Owner::mark(&dir)?;
    if let State::Unborn(damaged) = state {
        make_anew(&path, &owner, damaged)?;
    }
    directory::make_files(&dir)?;
    let lmdb = |error| failed(&path, error);
    #[cfg(target_os = "linux")]
    if stale_readers::may_be_in_table(&dir.join(LOCK), std::process::id()) {
        let env = open_environment(&dir, max_bytes)?;
        drop(env.read_txn().map_err(lmdb)?);
    }
    let env = open_environment(&dir, max_bytes)?;
    env.clear_stale_readers().map_err(lmdb)?;
    let (tables, encryption) = open_tables(&env, secrets, &path)?;
    let data = env.try_clone_inner_file().map_err(lmdb)?;
    let page_size = u64::from(env.stat().page_size);
    Ok(Opened { env, tables, encryption, data, page_size, dir, owner })
}

/// Opens a directory again of which this process had an environment open.
pub(super) fn reopen(dir: &Path, max_bytes: Option<u64>) -> Result<(Env<WithTls>, Tables)> {
    let path = dir.join(DATA);
    let lmdb = |error| failed(&path, error);
    let env = open_environment(dir, max_bytes)?;
    let txn = env.read_txn().map_err(lmdb)?;
    let tables = Tables::open(&env, &txn).map_err(lmdb)?;
    txn.commit().map_err(lmdb)?;
    let tables = tables.ok_or_else(|| StoreError::Damaged(format!("{} has lost a table", path.display())))?;
    Ok((env, tables))
}

enum State {
    Sound,
    /// The first commit of all was cut off, with this error where it cannot be begun anew.
    Unborn(StoreError),
}

/// Refuses what is no store, or only a part of one: LMDB would map it, and the process end where it reads on.
fn inspect(dir: &Path, path: &Path) -> Result<State> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(5);
    let failed = |error| io_failed(&path.display(), "reading", &error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Sound),
        Err(error) => return Err(failed(error)),
    };
    // A store of ours has this beside its file before anything is written to that; what a user has there does not.
    let is_ours = || dir.join(LOCK).exists();
    let mut tries = 1;
    let fault = loop {
        // Waiting mends nothing else than what another process is about. Asked first, as that may end at any moment.
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
fn make_anew(path: &Path, owner: &Owner, damaged: StoreError) -> Result<()> {
    let failed = |error| io_failed(&path.display(), "making", &error);
    if !owner.is_alone().map_err(failed)? {
        return Err(damaged);
    }
    File::options().write(true).open(path).and_then(|file| file.set_len(0)).map_err(failed)
}

fn find_fault(file: &File) -> Result<Option<String>, pages::Fault> {
    let Some(header) = pages::inspect(file)?.filter(Header::is_short) else { return Ok(None) };
    // Pages at its end that hold nothing may never have been written. Only a walk tells.
    let walk = pages::walk(file, header.txn_id, &mut |_, _| ())?;
    // It means nothing where others write meanwhile: but then they have the file open, and it is whole.
    let is_still = pages::inspect(file)?.is_some_and(|now| now.txn_id == header.txn_id);
    Ok(walk.findings.into_iter().next().filter(|_| is_still))
}

fn open_environment(dir: &Path, max_bytes: Option<u64>) -> Result<Env<WithTls>> {
    let page = page_size::get() as u64;
    let wanted = max_bytes.map_or(MAP_SIZE, |max| MAP_SIZE.max(max + (64 << 20)));
    let mut size = usize::try_from(wanted.next_multiple_of(page)).unwrap_or(1 << 30);
    loop {
        let mut options = EnvOpenOptions::new();
        options.map_size(size).max_dbs(TABLES).max_readers(MAX_READERS);
        // SAFETY: the caller has seen to it that this process has it open once, `inspect` that the file is whole;
        // that no one cuts it short meanwhile is asked of the user.
        match unsafe { options.open(dir) } {
            Ok(env) => return Ok(env),
            Err(heed::Error::Io(error))
                if error.kind() == std::io::ErrorKind::OutOfMemory && size as u64 > MIN_MAP_SIZE =>
            {
                size = (size / 2).next_multiple_of(page as usize);
            }
            Err(error) => return Err(failed(&dir.join(DATA), error)),
        }
    }
}

fn open_tables(env: &Env<WithTls>, secrets: &[Secret], path: &Path) -> Result<(Tables, Encryption)> {
    let lmdb = |error| failed(path, error);
    let txn = env.read_txn().map_err(lmdb)?;
    let meta: Option<Table> = env.open_database(&txn, None).map_err(lmdb)?;
    let is_new = meta.is_none_or(|meta| meta.is_empty(&txn).unwrap_or(false));
    // For the table to stay open.
    txn.commit().map_err(lmdb)?;
    if is_new {
        create_tables(env, secrets, path)?;
    }
    let meta =
        meta.ok_or_else(|| StoreError::Damaged(format!("{} is not a session store", path.display())))?;
    let txn = env.read_txn().map_err(lmdb)?;
    check_format(meta, &txn, path)?;
    let encryption = secrets::unlock(meta, &txn, secrets, path).map_err(|error| error.at(path))?;
    let tables = Tables::open(env, &txn).map_err(lmdb)?;
    txn.commit().map_err(lmdb)?;
    let tables = tables.ok_or_else(|| StoreError::Damaged(format!("{} has lost a table", path.display())))?;
    Ok((tables, encryption))
}

/// Makes the tables, if no other process has done so meanwhile.
fn create_tables(env: &Env<WithTls>, secrets: &[Secret], path: &Path) -> Result<()> {
    let lmdb = |error| failed(path, error);
    let mut txn = env.write_txn().map_err(lmdb)?;
    let tables = Tables::create(env, &mut txn).map_err(lmdb)?;
    if tables.meta.get(&txn, FORMAT).map_err(lmdb)?.is_some() {
        return txn.commit().map_err(lmdb);
    }
    tables.meta.put(&mut txn, FORMAT, &VERSION.to_le_bytes()).map_err(lmdb)?;
    if !secrets.is_empty() {
        secrets::create(tables.meta, &mut txn, secrets).map_err(|error| error.at(path))?;
    }
    txn.commit().map_err(lmdb)
}

fn check_format(meta: Table, txn: &RoTxn<'_>, path: &Path) -> Result<()> {
    let format = meta.get(txn, FORMAT).map_err(|error| failed(path, error))?;
    let path = path.display();
    match format.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
        Some(VERSION) => Ok(()),
        Some(newer) if newer > VERSION => Err(StoreError::Damaged(format!(
            "{path} has format {newer}, of a newer version of this package; this one reads up to {VERSION}"
        ))),
        _ => Err(StoreError::Damaged(format!("{path} is a file of LMDB's, but not a session store"))),
    }
}
