//! Verification: reads everything and reports problems. It neither changes nor repairs anything.

use super::FileStore;
use super::environment::{Environment, View};
use super::errors::io_failed;
use super::pages;
use super::record::Record;
use super::tables::{Tables, created_of, expiry_entry, indexed_expiry_of, user_entry};
use crate::codec;
use crate::error::{Result, StoreError};
use crate::json::SessionFields;
use crate::scratch::with_buffer;
use crate::session::{Body, SessionId};

/// The maximum number of described problems. The others are only counted.
const MAX_DESCRIBED: usize = 20;

/// The maximum number of attempts to read a snapshot. Two commits may happen before its first page is read.
const TRIES: u32 = 100;

/// The result of [`FileStore::verify`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verification {
    pub sessions: u64,
    /// Expired sessions that the next sweep removes.
    pub expired: u64,
    /// Sessions that the list of secrets cannot decrypt.
    pub unreadable: u64,
    pub pages: u64,
    /// Descriptions of the first problems.
    pub problems: Vec<String>,
    /// The number of all problems.
    pub found: u64,
}

impl Verification {
    fn note(&mut self, problem: impl FnOnce() -> String) {
        self.found += 1;
        if self.problems.len() < MAX_DESCRIBED {
            self.problems.push(problem());
        }
    }
}

impl FileStore {
    /// Reads the whole file: the structure of its pages, each session, and both indexes. It sees a consistent
    /// snapshot while other calls write. The file may grow until it is complete. `progress` receives the completed
    /// steps and their total.
    ///
    /// If the store's folder was removed, moved or replaced, it reports only that problem and does not read the file.
    ///
    /// # Errors
    /// Those of a read. A problem in the file is not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
        let environment = self.environment();
        let failed = |error| environment.failed(error);
        if let Err(error) = environment.held.check() {
            let mut seen = Verification::default();
            seen.note(|| error.to_string());
            return Ok(seen);
        }
        // Drain the log to verify its sessions in the data file. Later batches are verified in the log.
        self.redo().drain_now()?;
        let log_problem = self.redo().verify()?;
        let mut tries = 0;
        loop {
            let txn = environment.read()?;
            let Tables { sessions, users, expiries, .. } = txn.tables();
            let mut entries = 0;
            for table in [sessions, users, expiries] {
                entries += table.len(&txn).map_err(failed)?;
            }
            let mut walked = 0;
            let walk = pages::walk(environment.data(), txn.id() as u64, &mut |seen, total| {
                walked = total;
                progress(seen, total + entries);
            });
            // Changes by another process are not damage.
            environment.check_unused()?;
            tries += 1;
            let walk = match walk {
                Ok(walk) => walk,
                Err(pages::Fault::Gone(_)) if tries < TRIES => continue,
                Err(pages::Fault::Io(error)) => {
                    return Err(io_failed(&environment.dir().display(), "reading", &error));
                }
                Err(fault) => {
                    let mut seen = Verification::default();
                    seen.note(|| format!("{fault}"));
                    return Ok(seen);
                }
            };
            let is_sound = walk.is_sound();
            let mut seen = Verification {
                pages: walk.pages,
                problems: walk.findings,
                found: walk.found,
                ..Verification::default()
            };
            if !is_sound {
                // LMDB trusts its pages, so it must not read damaged ones.
                seen.found += 1;
                seen.problems.push("the sessions were not checked, because the pages are damaged".into());
                return Ok(seen);
            }
            if let Some(problem) = log_problem {
                seen.note(|| problem);
            }
            let mut done = walked;
            check_entries(environment, &txn, &mut seen, &mut || {
                done += 1;
                if done.is_multiple_of(1000) {
                    progress(done, walked + entries);
                }
            })?;
            environment.check_unused()?;
            progress(walked + entries, walked + entries);
            return Ok(seen);
        }
    }
}

pub(super) fn check_entries(
    environment: &Environment,
    txn: &View,
    seen: &mut Verification,
    step: &mut dyn FnMut(),
) -> Result<()> {
    let failed = |error| environment.failed(error);
    let Tables { sessions, users, expiries, .. } = txn.tables();
    let now = environment.clock.now();
    for (at, entry) in sessions.iter(txn).map_err(failed)?.enumerate() {
        let (key, bytes) = entry.map_err(failed)?;
        seen.sessions += 1;
        if let Err(problem) = check_session(environment, txn, key, bytes, now, seen)? {
            seen.note(|| format!("session {} of the table: {problem}", at + 1));
        }
        step();
    }
    let record_of = |key: &[u8]| -> Result<Option<Record<'_>>> {
        Ok(environment.get(sessions, txn, key)?.and_then(|bytes| Record::parse(bytes).ok()))
    };
    for entry in users.iter(txn).map_err(failed)? {
        let (entry, key) = entry.map_err(failed)?;
        let names = |record: &Record<'_>| {
            environment
                .encryption
                .tag_of(*record)
                .is_ok_and(|tag| tag.is_some_and(|tag| user_entry(tag, record.header.created)[..] == *entry))
        };
        if record_of(key)?.filter(names).is_none() {
            seen.note(|| "the user index has an entry without its session".into());
        }
        step();
    }
    for entry in expiries.iter(txn).map_err(failed)? {
        let (entry, key) = entry.map_err(failed)?;
        let names = |record: &Record<'_>| {
            let header = record.header;
            (indexed_expiry_of(entry), created_of(entry))
                == (Some(header.indexed_expiry), Some(header.created))
        };
        if record_of(key)?.filter(names).is_none() {
            seen.note(|| "the expiry index has an entry without its session".into());
        }
        step();
    }
    Ok(())
}

/// Returns the problem of a session as the inner error.
fn check_session(
    environment: &Environment,
    txn: &View,
    key: &[u8],
    bytes: &[u8],
    now: i64,
    seen: &mut Verification,
) -> Result<Result<(), String>> {
    let tables = txn.tables();
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let header = record.header;
    seen.expired += u64::from(header.end(environment.limits.max_lifetime).is_past(now));
    if header.indexed_expiry > header.expires.millis()
        || environment.get(tables.expiries, txn, &expiry_entry(header.indexed_expiry, header.created))?
            != Some(key)
    {
        return Ok(Err("the expiry index does not contain it".into()));
    }
    let tag = match environment.encryption.tag_of(record) {
        Ok(tag) => tag,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Some(tag) = tag
        && environment.get(tables.users, txn, &user_entry(tag, header.created))? != Some(key)
    {
        return Ok(Err("the user index does not contain it".into()));
    }
    let content = with_buffer(|buffer| -> Result<bool, StoreError> {
        let Some(contents) = environment.encryption.decrypt(key, record, buffer)? else { return Ok(false) };
        let id = SessionId::from_packed(contents.id)?;
        let content = codec::decode(contents.content)?;
        if let Body::Json { text, .. } = content.body
            && SessionFields::parse(text)?.id != id
        {
            return Err(StoreError::Corrupt("its JSON names another session"));
        }
        Ok(true)
    });
    Ok(match content {
        Ok(readable) => {
            seen.unreadable += u64::from(!readable);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    })
}
