//! Sessions in a file: they outlive the process, and several processes share them.
//!
//! LMDB keeps them, in a directory of their own. Reads are made on the calling thread and never wait; writes go to
//! one thread, which makes transactions of them (see `writer`). Whoever opens a directory a second time in a process
//! gets the store that is open already.

mod apply;
mod backup;
mod cost;
mod directory;
mod environment;
mod errors;
mod open;
mod options;
mod pages;
mod record;
mod registry;
mod room;
mod tables;
mod vault;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use self::apply::{Draft, SWEEP_STEP, Write};
use self::environment::{Environment, Limits, decoded, with_buffer};
use self::record::Record;
use self::registry::Registered;
use self::tables::{created_of, expiry_entry};
use self::writer::{GONE, Queue, Waiter};
use super::{Cursor, SessionStore, Stats, StoredSession, Sweep};
use crate::clock::{Clock, Millis, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::{DEFAULT_MAX_SESSION_BYTES, clean_while_open};
use crate::sweeper::{DEFAULT_SWEEP_INTERVAL, Sweeper};

pub use crate::keyring::Secret;
pub use options::FileOptions;
pub use room::MIN_MAX_BYTES;
pub use verify::Verification;
pub use writer::Completions;

/// How many ids a page of them has at most.
const PAGE: usize = 1000;

/// A store in a directory. The last to let go of it writes what is queued and closes the files.
pub struct FileStore {
    environment: Option<Arc<Environment>>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    sweeper: OnceLock<Sweeper>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    options: FileOptions,
    // Last, as its end lets others open the directory again.
    _registered: Registered,
}

impl FileStore {
    /// Opens the store in the directory of the options, and makes it if it is not there.
    ///
    /// # Errors
    /// `InvalidOption` for an option out of range, a path to a file, secrets that are none of the store's, and if the
    /// store is open in this process with another value of an option. `Locked` if a process that cannot be told from this one has it open. `Damaged`
    /// if what is there is no store, a part of one, or of a newer version: nothing is changed then. `Full`, `Io`.
    pub fn open(options: &FileOptions) -> Result<Arc<Self>> {
        Self::open_at(options, Arc::new(SystemClock))
    }

    /// Opens it with a clock of its own.
    ///
    /// # Errors
    /// As for [`FileStore::open`].
    pub fn open_at(options: &FileOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        options.check()?;
        let dir = directory::prepare(&options.path)?;
        let store = registry::open(&dir, |registered| Self::start(&dir, options, clock, registered))?;
        store.check_same(options)?;
        Ok(store)
    }

    fn start(
        dir: &Path,
        options: &FileOptions,
        clock: Arc<dyn Clock>,
        registered: Registered,
    ) -> Result<Arc<Self>> {
        let max_bytes = options.max_bytes.map(u64::from);
        let opened = open::open(dir.to_path_buf(), &options.secrets, max_bytes)?;
        let limits = Limits {
            max_session_bytes: options.max_session_bytes.map_or(DEFAULT_MAX_SESSION_BYTES, usize::from),
            max_sessions_per_user: options.max_sessions_per_user,
        };
        let environment =
            Arc::new(Environment::new(opened, options.secrets.clone(), limits, max_bytes, clock));
        let queue = Arc::new(Queue::new());
        let no_thread =
            |error| StoreError::Io(format!("no thread for the store in {}: {error}", dir.display()));
        let writer = {
            let (environment, queue) = (Arc::clone(&environment), Arc::clone(&queue));
            thread::Builder::new()
                .name("session-writer".into())
                .spawn(move || writer::run(&environment, &queue))
                .map_err(no_thread)?
        };
        let store = Arc::new(Self {
            environment: Some(environment),
            queue,
            writer: Some(writer),
            sweeper: OnceLock::new(),
            readers: Mutex::default(),
            options: options.clone(),
            _registered: registered,
        });
        if store.sweep_interval() > 0 {
            let interval = Duration::from_millis(store.sweep_interval());
            let _ = store.sweeper.set(Sweeper::start(interval, clean_while_open(&store)).map_err(no_thread)?);
        }
        Ok(store)
    }

    fn sweep_interval(&self) -> u64 {
        self.options.sweep_interval.unwrap_or(DEFAULT_SWEEP_INTERVAL)
    }

    /// Whoever opens it later must mean the same by what is said.
    fn check_same(&self, given: &FileOptions) -> Result<()> {
        let limits = self.environment().limits;
        let max_per_user = |options: &FileOptions| options.max_sessions_per_user.map(|max| max.get() as u64);
        let pairs = [
            ("maxBytes", given.max_bytes.map(u64::from), self.options.max_bytes.map(u64::from)),
            (
                "maxSessionBytes",
                given.max_session_bytes.map(|max| max.get() as u64),
                Some(limits.max_session_bytes as u64),
            ),
            ("maxSessionsPerUser", max_per_user(given), max_per_user(&self.options)),
            ("sweepInterval", given.sweep_interval, Some(self.sweep_interval())),
        ];
        super::check_same(&pairs, "path")?;
        if given.secrets == self.options.secrets {
            return Ok(());
        }
        Err(StoreError::InvalidOption {
            option: "secret",
            expected: "the same as that of the open store of this path".into(),
            given: if given.secrets.is_empty() { "none".into() } else { "another".into() },
        })
    }

    fn environment(&self) -> &Arc<Environment> {
        // It is taken when the store is dropped, and not before.
        self.environment.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    /// The directory, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        self.environment().dir()
    }

    pub fn max_session_bytes(&self) -> usize {
        self.environment().limits.max_session_bytes
    }

    /// The bytes of the data file.
    ///
    /// # Errors
    /// `Io`.
    pub fn file_bytes(&self) -> Result<u64> {
        let environment = self.environment();
        let txn = environment.read()?;
        let usage = environment.usage(&txn).map_err(|error| environment.failed(error))?;
        Ok(usage.file)
    }

    /// Calls `read` with a live session's expiry and content: [`SessionStore::get`] without the copy. `read` must not
    /// call the store.
    ///
    /// # Errors
    /// As for `get`.
    pub fn get_with<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Option<T>> {
        self.environment().get_with(id, decoded(read))
    }

    /// Begins [`SessionStore::create`]: queues it, for `kick`, and has `to` told of its end. The number is 1.
    ///
    /// # Errors
    /// `TooLarge`; nothing is queued then.
    pub fn begin_create(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Create(self.draft(session)?), to, ticket);
        Ok(())
    }

    /// Begins [`SessionStore::update`]. The number is 1 if there was a live session, or 0.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_update(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Update(self.draft(session)?), to, ticket);
        Ok(())
    }

    /// Begins [`SessionStore::touch`], or `prolong` where `enough` is given. The number is 1 if there was a live session,
    /// or 0.
    pub fn begin_touch(
        &self,
        id: &SessionId,
        expires: Expiry,
        enough: Option<Millis>,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) {
        self.begin(Write::Touch { id: id.clone(), expires, enough }, to, ticket);
    }

    /// Begins [`SessionStore::delete`], unless there is nothing to delete: then it tells `false` and queues nothing.
    ///
    /// # Errors
    /// Those of a read.
    pub fn begin_delete(&self, id: &SessionId, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        let found = self.must_delete(id)?;
        if found {
            self.begin(Write::Delete { id: id.clone() }, to, ticket);
        }
        Ok(found)
    }

    /// Has the writer begin with what is queued.
    pub fn kick(&self) {
        self.queue.kick();
    }

    /// Waits for the writes that were begun before.
    ///
    /// # Errors
    /// `Io` if the writer has gone.
    pub fn flush(&self) -> Result<()> {
        self.write(Write::Nothing).map(drop)
    }

    /// Has the store wait for a thread that reads it, before it closes the file. LMDB clears the mark of a thread in its
    /// table of readers when that ends: were the table taken away at that very moment, the process would end.
    pub fn adopt(&self, thread: Option<JoinHandle<()>>) {
        let mut readers = self.readers.lock();
        let (ended, mut others): (Vec<_>, Vec<_>) = readers.drain(..).partition(JoinHandle::is_finished);
        ended.into_iter().for_each(wait_for);
        others.extend(thread);
        *readers = others;
    }

    fn begin(&self, write: Write, to: &Arc<dyn Completions>, ticket: u32) {
        self.queue.push(write, Waiter::Ticket { to: Arc::clone(to), ticket });
    }

    fn draft(&self, session: &Session<'_>) -> Result<Draft> {
        session.check_size(self.max_session_bytes())?;
        Ok(Draft::new(session))
    }

    /// Whether there is a live session of this id, or one on its way into the file.
    fn must_delete(&self, id: &SessionId) -> Result<bool> {
        // In this order: a creation leaves the queue after it is in the file.
        if self.queue.may_create(id.as_bytes()) {
            return Ok(true);
        }
        let environment = self.environment();
        let key = environment.vault.key(id);
        let txn = environment.read()?;
        let Some(bytes) = environment.get(txn.tables().sessions, &txn, &key)? else { return Ok(false) };
        // An unreadable record is there all the same.
        let is_past = |record: Record<'_>| environment.clock.is_past(record.header.expires.millis());
        Ok(!Record::parse(bytes).is_ok_and(is_past))
    }

    /// Queues a write and waits for its end.
    fn write(&self, write: Write) -> Result<u64> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.queue.push(write, Waiter::Thread(sender));
        self.queue.kick();
        receiver.recv().unwrap_or(Err(GONE))
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.queue.close();
        self.writer.take().into_iter().for_each(wait_for);
        self.readers.get_mut().drain(..).for_each(wait_for);
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.stop();
        }
        // The last of it: this closes the files, before another may open them.
        self.environment = None;
    }
}

/// Waits for the end of a thread, unless it is this one.
fn wait_for(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        // If it panicked, it has ended all the same.
        let _ = thread.join();
    }
}

impl SessionStore for FileStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.write(Write::Create(self.draft(session)?)).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.environment()
            .get_with(id, |expires, content| Ok(StoredSession::new(id.clone(), expires, content)))
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.write(Write::Update(self.draft(session)?)).map(|updated| updated > 0)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.write(Write::Touch { id: id.clone(), expires, enough: None }).map(|touched| touched > 0)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        let enough = Some(enough);
        self.write(Write::Touch { id: id.clone(), expires, enough }).map(|touched| touched > 0)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        if self.must_delete(id)? {
            self.write(Write::Delete { id: id.clone() })?;
        }
        Ok(())
    }

    /// In steps of a transaction each, between which others write.
    fn clean(&self) -> Result<u64> {
        let environment = self.environment();
        let at = environment.clock.now();
        let mut removed = 0;
        while environment.is_due(at)? {
            removed += self.write(Write::Sweep { now: at, most: SWEEP_STEP })?;
        }
        let duration = environment.clock.now() - at;
        *environment.last_sweep.lock() = Some(Sweep { at, duration, removed });
        Ok(removed)
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let environment = self.environment();
        let failed = |error| environment.failed(error);
        let now = environment.clock.now();
        let tag = environment.vault.tag(user);
        let txn = environment.read()?;
        let tables = txn.tables();
        // The tag is a hash; what counts is the user.
        let mut found = Vec::new();
        let each = tables.each_of_user(&txn, tag, |created, key| {
            found.push((created, key.to_vec()));
            Ok(())
        });
        each.map_err(failed)?;
        let mut sessions = Vec::with_capacity(found.len());
        for (created, key) in found {
            let Some(bytes) = environment.get(tables.sessions, &txn, &key)? else { continue };
            let record = Record::parse(bytes)?;
            let header = record.header;
            if header.created != created || header.expires.is_past(now) {
                continue;
            }
            let session = with_buffer(|buffer| {
                let Some(contents) = environment.vault.open(&key, record, buffer)? else { return Ok(None) };
                let id = SessionId::from_packed(contents.id)?;
                Ok(Some(StoredSession::new(id, header.expires, contents.content)))
            })?;
            if let Some(session) = session
                && session.content()?.user == Some(user)
            {
                sessions.push(session);
            }
        }
        Ok(sessions)
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.write(Write::DeleteByUser { user: user.to_buf(), except: except.cloned(), most: usize::MAX })
    }

    /// All that are there, less those that are expired: an expired session stands among the due.
    fn size(&self) -> Result<u64> {
        let environment = self.environment();
        let failed = |error| environment.failed(error);
        let now = environment.clock.now();
        let txn = environment.read()?;
        let tables = txn.tables();
        let mut live = tables.sessions.len(&txn).map_err(failed)?;
        let later = expiry_entry(now + 1, 0);
        let due = (Bound::Unbounded, Bound::Excluded(&later[..]));
        for entry in tables.expiries.range(&txn, &due).map_err(failed)? {
            let (entry, key) = entry.map_err(failed)?;
            let Some(bytes) = environment.get(tables.sessions, &txn, key)? else { continue };
            let is_expired = |record: Record<'_>| {
                Some(record.header.created) == created_of(entry) && record.header.expires.is_past(now)
            };
            live -= u64::from(Record::parse(bytes).is_ok_and(is_expired));
        }
        Ok(live)
    }

    /// In the order of the keys, which a session never changes.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        let environment = self.environment();
        let failed = |error| environment.failed(error);
        let now = environment.clock.now();
        let txn = environment.read()?;
        let tables = txn.tables();
        let start = after.as_bytes();
        let rest =
            (if start.is_empty() { Bound::Unbounded } else { Bound::Excluded(start) }, Bound::Unbounded);
        let (mut ids, mut last, mut seen) = (Vec::new(), None, 0);
        for entry in tables.sessions.range(&txn, &rest).map_err(failed)?.take(PAGE) {
            let (key, bytes) = entry.map_err(failed)?;
            (last, seen) = (Some(key), seen + 1);
            // One that cannot be read has no id to give; the others have.
            let Ok(record) = Record::parse(bytes) else { continue };
            if !record.header.expires.is_past(now) {
                ids.extend(with_buffer(|buffer| {
                    let contents = environment.vault.open(key, record, buffer).ok()??;
                    SessionId::from_packed(contents.id).ok()
                }));
            }
        }
        Ok((ids, last.filter(|_| seen == PAGE).map(Cursor::from_bytes)))
    }

    fn clear(&self) -> Result<()> {
        self.write(Write::Clear).map(drop)
    }

    fn stats(&self) -> Result<Stats> {
        let environment = self.environment();
        let failed = |error| environment.failed(error);
        let txn = environment.read()?;
        let (counters, tally) = (&environment.counters, environment.counters.tally());
        Ok(Stats {
            sessions: txn.tables().sessions.len(&txn).map_err(failed)?,
            bytes: environment.bytes(&txn).map_err(failed)?,
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            created: tally.created,
            expired: tally.expired,
            evicted: tally.evicted,
            last_sweep: *environment.last_sweep.lock(),
        })
    }
}
