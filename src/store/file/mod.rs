//! Sessions in a file: they outlive the process, and several processes share them.
//!
//! LMDB keeps them, in a folder of their own. Writes go to one thread, which makes transactions of them (see `writer`).
//! A read is made on the calling thread, at once, unless a write of the same session is under way (see `pending`). The
//! second opener of a folder in a process gets the store that is open already.

mod apply;
mod backup;
mod commit;
mod cost;
mod counters;
mod direct;
mod directory;
mod discard;
mod encryption;
mod environment;
mod errors;
mod held;
mod limits;
#[cfg(target_os = "linux")]
mod lock_wakeup;
mod map_size;
mod names;
mod network;
#[cfg(target_os = "linux")]
mod ofd_lock;
mod open;
mod options;
mod owner_lock;
mod pages;
mod pending;
mod private_files;
mod queue;
mod reads;
mod record;
mod redo;
mod registry;
mod room;
mod rows;
mod secrets;
#[cfg(all(test, target_os = "linux"))]
mod sim;
#[cfg(target_os = "linux")]
mod stale_readers;
mod tables;
mod times;
mod verify;
mod write_error;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::apply::{NewRecord, SWEEP_STEP, Write};
use self::environment::{Environment, decoded};
use self::limits::Limits;
use self::open::{Access, Opened};
use self::pending::{Pending, Seen};
use self::queue::{Queue, Reader, Waiter};
use self::record::Record;
use self::redo::engine::{Redo, Sizes};
use self::redo::storage::Folder;
use self::registry::{Registered, Registry, Retire};
use super::{Completions, Cursor, Page, SessionStore, Stats, StoredSession, Sweep};
use crate::clock::{AppClock, Clock, Millis};
use crate::error::{Outcome, Result, StoreError};
use crate::events::{Bus, Event, SWEEPS};
use crate::executor::Executor;
use crate::lifetime::Lifetime;
use crate::scratch::with_buffer;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::{CommonLimits, LimitsDiffer};
use crate::store::{DEFAULT_MAX_SESSION_BYTES, UserLimit, WhenUserIsFull, check_same_name, clean_while_open};
use crate::sweeper::{DEFAULT_SWEEP_INTERVAL, Sweeper};
use crate::sync::join;

pub use crate::keyring::Secret;
pub use discard::{DiscardedLog, LogDamage, LogState};
pub use options::{DEFAULT_COMMAND_TIMEOUT, Durability, FileOptions};
pub use room::MIN_MAX_BYTES;
pub use verify::Verification;

/// How many records are looked at for a page of ids or sessions.
const PAGE: usize = 1000;

/// Threads for calls that look at many sessions, and for those that read the whole file: `verify` must not hold up a
/// user's `getByUser`.
const TASK_THREADS: usize = 2;
const UPKEEP_THREADS: usize = 1;
/// A probe may hang with the disk, and no other call is to hang with it.
const PROBE_THREADS: usize = 1;

/// The stores that are open in this process.
static OPEN: Registry<FileStore> = Registry::new();

/// A store in a folder. Dropping the last handle writes what is queued and closes the files.
pub struct FileStore {
    environment: Option<Arc<Environment>>,
    queue: Arc<Queue>,
    /// `None` once the store is dropped.
    redo: Option<Arc<Redo>>,
    writer: Option<JoinHandle<()>>,
    /// The thread that looks after the log, where there can be one.
    keeper: Option<JoinHandle<()>>,
    sweeper: OnceLock<Sweeper>,
    tasks: Executor,
    upkeep: Executor,
    probes: Executor,
    clock: Arc<dyn Clock>,
    handles: AtomicUsize,
    /// Whether the last handle has ended.
    is_closing: AtomicBool,
    options: FileOptions,
    limits_differ: Mutex<Option<LimitsDiffer>>,
    // After the files, as its end lets others open the folder again.
    _registered: Registered<Self>,
    ended: Ended,
}

/// Ends last. Then those that hold a receiver of its channels know that the files are closed.
#[derive(Default)]
struct Ended(Mutex<Vec<mpsc::SyncSender<()>>>);

impl FileStore {
    /// Opens the store in the folder of the options, and makes it if it is missing.
    ///
    /// # Errors
    /// `InvalidOption` for an option out of range, a path to a file, wrong secrets, and if the store is open in this process
    /// with another value of an option. `Locked` if a process with the same PID has the store open. `Damaged` if the file is
    /// no store, a part of one, or of a newer version: nothing is changed then. `Full`, `Io`.
    pub fn open(options: &FileOptions) -> Result<Arc<Self>> {
        Self::open_at(options, Arc::new(AppClock::default()))
    }

    /// Opens the store with another clock.
    ///
    /// # Errors
    /// As for [`FileStore::open`].
    pub fn open_at(options: &FileOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        options.check()?;
        let rules = directory::Rules {
            is_created: !options.read_only,
            may_be_on_network: options.allow_network_file_system,
        };
        let dir = directory::prepare(&options.path, rules)?;
        let store = OPEN.open(&dir, |registered| Self::start(&dir, options, clock, registered))?;
        store.check_same(options)?;
        Ok(store)
    }

    fn start(
        dir: &Path,
        options: &FileOptions,
        clock: Arc<dyn Clock>,
        registered: Registered<Self>,
    ) -> Result<Arc<Self>> {
        let max_bytes = options.max_bytes.map(u64::from);
        let opened = open_recovered(dir, options, &clock)?;
        let (joined, log) = (opened.joined, opened.log);
        let sizes = log_sizes(&opened, options);
        let limits = Limits {
            max_session_bytes: options.max_session_bytes.map_or(DEFAULT_MAX_SESSION_BYTES, usize::from),
            per_user: options.user_limit(),
            max_lifetime: Lifetime::new(options.max_lifetime),
        };
        let environment =
            Environment::new(opened, options.secrets.clone(), limits, max_bytes, Arc::clone(&clock));
        let environment = Arc::new(environment);
        let own = CommonLimits { per_user: limits.per_user, max_lifetime: options.max_lifetime };
        let other = if options.is_tool { None } else { environment.say_limits(own) };
        let limits_differ = Mutex::new(other.map(|other| LimitsDiffer { own, other }));
        let timeout = options.command_timeout.unwrap_or(DEFAULT_COMMAND_TIMEOUT);
        let pending = Pending::new(limits.per_user.ends_beyond().is_some());
        let queue = Arc::new(Queue::new(Duration::from_millis(timeout), pending));
        let no_thread =
            |error| StoreError::Io(format!("no thread for the store in {}: {error}", dir.display()));
        let files = Box::new(Folder(dir.to_path_buf()));
        let durability = options.durability.unwrap_or_default();
        let redo = Redo::new(Arc::clone(&environment), files, durability, sizes, joined);
        let redo = Arc::new(redo);
        redo.begin(log.as_ref())?;
        // With another error, as of a full disk, sessions can be read and ended all the same. The sweep tries again.
        if let Err(error @ StoreError::Locked(_)) = redo.keep_times() {
            return Err(error);
        }
        let keeper = if sizes.max > 0 { Some(redo.start().map_err(no_thread)?) } else { None };
        let writer = {
            let (environment, redo, queue) =
                (Arc::clone(&environment), Arc::clone(&redo), Arc::clone(&queue));
            thread::Builder::new()
                .name("session-writer".into())
                .spawn(move || writer::run(&environment, &redo, &queue))
        };
        let writer = writer.inspect_err(|_| redo.stop()).map_err(no_thread)?;
        let store = Arc::new(Self {
            environment: Some(environment),
            queue,
            redo: Some(redo),
            writer: Some(writer),
            keeper,
            sweeper: OnceLock::new(),
            tasks: Executor::new(TASK_THREADS),
            upkeep: Executor::new(UPKEEP_THREADS),
            probes: Executor::new(PROBE_THREADS),
            clock,
            handles: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            options: options.clone(),
            limits_differ,
            _registered: registered,
            ended: Ended::default(),
        });
        if store.sweep_interval() > 0 && !options.read_only {
            let interval = Duration::from_millis(store.sweep_interval());
            let _ = store.sweeper.set(Sweeper::start(interval, clean_while_open(&store)).map_err(no_thread)?);
        }
        Ok(store)
    }

    /// Says what is wrong with the redo log of a store, if anything is. Needs no secret, and changes nothing.
    ///
    /// # Errors
    /// `Locked` if a process has the store open, also this one. `Damaged` if the data file is damaged as well. `Io`.
    pub fn inspect_log(path: &Path, may_be_on_network: bool) -> Result<LogState> {
        let dir = discard::find(path, may_be_on_network)?;
        let _reserved = Self::reserve(&dir)?;
        discard::inspect(&dir)
    }

    /// Gives up a redo log that is missing or damaged. Keeps the readable part of it, and the file under another name. The
    /// fingerprint is that of the damage that [`FileStore::inspect_log`] has found.
    ///
    /// # Errors
    /// As for `inspect_log`; `Locked` if the log is not as it was then; `Full`. Nothing has changed then, unless the outcome is
    /// unknown.
    pub fn discard_log(path: &Path, may_be_on_network: bool, fingerprint: &str) -> Result<DiscardedLog> {
        let dir = discard::find(path, may_be_on_network)?;
        let _reserved = Self::reserve(&dir)?;
        discard::discard(&dir, fingerprint)
    }

    fn reserve(dir: &Path) -> Result<Registered<Self>> {
        OPEN.reserve(dir)?.ok_or_else(|| {
            StoreError::Locked(format!(
                "the store in {} is open in this process: close it first",
                dir.display()
            ))
        })
    }

    fn sweep_interval(&self) -> u64 {
        self.options.sweep_interval.unwrap_or(DEFAULT_SWEEP_INTERVAL)
    }

    /// Rejects options that differ from those of the open store.
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
            ("maxLifetime", given.max_lifetime, self.options.max_lifetime),
            ("sweepInterval", given.sweep_interval, Some(self.sweep_interval())),
            ("commandTimeout", given.command_timeout, Some(self.queue.timeout().as_millis() as u64)),
        ];
        super::check_same(&pairs, "path")?;
        let durability = self.options.durability.unwrap_or_default().name();
        check_same_name("durability", given.durability.map(Durability::name), durability, "path")?;
        let when_full = given.when_user_is_full.map(WhenUserIsFull::name);
        check_same_name("whenUserIsFull", when_full, limits.per_user.when_full.name(), "path")?;
        if given.read_only != self.options.read_only {
            return Err(StoreError::InvalidOption {
                option: "readOnly",
                expected: format!("{}, as of the open store of this path", self.options.read_only),
                given: given.read_only.to_string(),
            });
        }
        if given.secrets == self.options.secrets {
            return Ok(());
        }
        let (expected, given) = match (self.options.secrets.is_empty(), given.secrets.is_empty()) {
            (true, _) => {
                ("left out, as this process has the store of this path open without one", "a secret")
            }
            (_, true) => ("given, as this process has the store of this path open with one", "no secret"),
            _ => ("the same as that of the open store of this path", "a different secret"),
        };
        Err(StoreError::InvalidOption { option: "secret", expected: expected.into(), given: given.into() })
    }

    fn environment(&self) -> &Arc<Environment> {
        // It is taken when the store is dropped, and not before.
        self.environment.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    fn redo(&self) -> &Redo {
        self.redo.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    /// The absolute path of the folder, without symbolic links.
    pub fn path(&self) -> &Path {
        self.environment().dir()
    }

    pub fn max_session_bytes(&self) -> usize {
        self.environment().limits.max_session_bytes
    }

    pub fn max_lifetime(&self) -> Lifetime {
        self.environment().limits.max_lifetime
    }

    /// The limits of another process that had the store open before with other limits. They are given once.
    pub fn take_limits_differ(&self) -> Option<LimitsDiffer> {
        self.limits_differ.lock().take()
    }

    /// The bytes of the data file.
    ///
    /// # Errors
    /// `Io`.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(self.environment().usage_now()?.file)
    }

    /// Whether `stats` need not wait or read the records: all of them can be decrypted, none was recovered lately, and no
    /// drain is under way.
    ///
    /// # Errors
    /// Those of a read.
    pub fn has_quick_stats(&self) -> Result<bool> {
        let environment = self.environment();
        Ok(!environment.overlay.is_unsure()
            && !self.redo().is_draining()
            && environment.opens_all_records()?)
    }

    /// Where calls that look at many sessions run.
    pub fn tasks(&self) -> &Executor {
        &self.tasks
    }

    /// Where calls that read the whole file run.
    pub fn upkeep(&self) -> &Executor {
        &self.upkeep
    }

    /// Where it publishes what happens.
    pub fn events(&self) -> &Bus {
        &self.environment().events
    }

    /// Where probes run.
    pub fn probes(&self) -> &Executor {
        &self.probes
    }

    /// Checks that the store can write: the folder is there, what was begun is written, the log and the data file take
    /// writes, and there is room. Of a store that is read only, that it can be read.
    ///
    /// # Errors
    /// `Timeout`, `Io`, `Full`; those of a write.
    pub fn probe(&self) -> Result<()> {
        let environment = self.environment();
        environment.held.check()?;
        if self.options.read_only {
            return environment.read().map(drop);
        }
        self.flush()?;
        self.redo().probe()
    }

    /// What keeps the store from writing, as far as that is known without a write.
    pub fn problem(&self) -> Option<StoreError> {
        let environment = self.environment();
        if self.options.read_only {
            return environment.held.ensure().err();
        }
        environment
            .held
            .ensure()
            .and_then(|()| self.redo().check())
            .and_then(|()| environment.check_room())
            .err()
    }

    /// How many bytes the calls take that wait for the disk, and the most that they may take.
    pub fn queued_bytes(&self) -> (usize, usize) {
        (self.queue.bytes(), queue::MAX_BYTES)
    }

    /// The clock that says which sessions are expired.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Calls `read` with a live session's expiry and content: [`SessionStore::get`] without the copy. If a write of the
    /// session is under way, it gives a ticket for [`FileStore::begin_get`] instead. `read` must not call the store.
    ///
    /// # Errors
    /// As for `get`.
    pub fn try_get<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, Content<'_>) -> T,
    ) -> Result<Result<Option<T>, MustWait>> {
        Ok(match self.see(id, decoded(read))? {
            Seen::Now(found) => Ok(found),
            Seen::After(number) => Err(MustWait(number)),
        })
    }

    /// Begins a `get` that has to wait for a write. `to` receives the session.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_get(
        &self,
        id: &SessionId,
        wait: MustWait,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        let reader = Reader {
            after: wait.0,
            session: Some(id.clone()),
            waiter: Waiter::Ticket { to: Arc::clone(to), ticket },
            deadline: self.queue.deadline(),
        };
        if let Some(reader) = self.queue.wait(reader)? {
            let ended = queue::Ended { readers: vec![reader], ..queue::Ended::default() };
            writer::deliver(self.environment(), &self.queue, ended);
        }
        Ok(())
    }

    fn see<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
    ) -> Result<Seen<Option<T>>> {
        match self.queue.pending.of_session(id) {
            Some(number) => Ok(Seen::After(number)),
            None => writer::see(self.environment(), &self.queue, id, read),
        }
    }

    /// Begins [`SessionStore::create`]: queues it until `wake`. `to` receives 1.
    ///
    /// # Errors
    /// `TooLarge`; `Busy` if too many writes wait. Nothing is queued then.
    pub fn begin_create(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Create(self.new_record(session)?), to, ticket)
    }

    /// Begins [`SessionStore::create_at`]. `to` receives 1.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_create_at(
        &self,
        session: &Session<'_>,
        created: Millis,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(Write::Create(self.dated_record(session, created)?), to, ticket)
    }

    /// Begins [`SessionStore::update`]. `to` receives 1 if there was a live session, else 0.
    ///
    /// # Errors
    /// As for `begin_create`.
    pub fn begin_update(&self, session: &Session<'_>, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Update(self.new_record(session)?), to, ticket)
    }

    /// Begins [`SessionStore::touch`], or `prolong` where `enough` is given. `to` receives 1 if there was a live session,
    /// else 0.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_touch(
        &self,
        id: &SessionId,
        expires: Expiry,
        enough: Option<Millis>,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(Write::Touch { id: id.clone(), expires, enough }, to, ticket)
    }

    /// Begins [`SessionStore::delete`]; gives `false` and queues nothing if there is nothing to delete.
    ///
    /// # Errors
    /// Those of a read; `Busy`.
    pub fn begin_delete(&self, id: &SessionId, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        let found = self.must_delete(id)?;
        if found {
            self.begin(Write::Delete { id: id.clone() }, to, ticket)?;
        }
        Ok(found)
    }

    /// Begins [`SessionStore::delete_by_user`]. `to` receives how many live sessions it ended.
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_delete_by_user(
        &self,
        user: UserKey<'_>,
        except: Option<&SessionId>,
        to: &Arc<dyn Completions>,
        ticket: u32,
    ) -> Result<()> {
        self.begin(delete_by_user(user, except), to, ticket)
    }

    /// Begins [`SessionStore::clear`].
    ///
    /// # Errors
    /// `Busy`.
    pub fn begin_clear(&self, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.begin(Write::Clear, to, ticket)
    }

    /// Has the writer begin with what is queued.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Ends the calls whose time is over with `Timeout`; gives the time until the next one is.
    pub fn expire(&self) -> Option<Duration> {
        writer::deliver(self.environment(), &self.queue, self.queue.expire(Instant::now()));
        self.queue.next_deadline().map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Waits for the writes that were begun before.
    ///
    /// # Errors
    /// `Timeout`.
    pub fn flush(&self) -> Result<()> {
        self.queue.last().map_or(Ok(()), |number| self.wait_for(number, self.deadline()))
    }

    /// When a call that begins now has to end.
    pub fn deadline(&self) -> Instant {
        self.queue.deadline()
    }

    /// # Errors
    /// `Timeout` after the deadline of a call that has not begun.
    pub fn check_time(&self, deadline: Instant) -> Result<()> {
        if Instant::now() < deadline { Ok(()) } else { Err(self.queue.late(Outcome::NotDone)) }
    }

    /// How long a call may take.
    pub fn command_timeout(&self) -> Duration {
        self.queue.timeout()
    }

    /// Counts one more user of the store, who ends with [`FileStore::end_handle`].
    pub fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
        self.is_closing.store(false, Ordering::SeqCst);
    }

    /// Counts one user less. A sweep under way ends early after the last of them.
    pub fn end_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.is_closing.store(true, Ordering::SeqCst);
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Closes the store. If this was the last handle, waits until the files are closed. Calls under way, such as a backup,
    /// end first.
    ///
    /// # Errors
    /// `Timeout`.
    pub fn close(self: Arc<Self>) -> Result<()> {
        if self.handles.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let (sender, ended) = mpsc::sync_channel(0);
        self.ended.0.lock().push(sender);
        let timeout = self.command_timeout();
        drop(self);
        match ended.recv_timeout(timeout) {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(StoreError::Timeout {
                waited_for: "a call that is under way, such as a backup,",
                millis: timeout.as_millis() as u64,
                outcome: Outcome::NotDone,
            }),
            _ => Ok(()),
        }
    }

    fn begin(&self, write: Write, to: &Arc<dyn Completions>, ticket: u32) -> Result<()> {
        self.queue.push(write, Waiter::Ticket { to: Arc::clone(to), ticket })
    }

    fn new_record(&self, session: &Session<'_>) -> Result<NewRecord> {
        session.check_size(self.max_session_bytes())?;
        Ok(NewRecord::new(session))
    }

    fn dated_record(&self, session: &Session<'_>, created: Millis) -> Result<NewRecord> {
        let mut record = self.new_record(session)?;
        record.created_at = Some(created);
        Ok(record)
    }

    /// Whether there is a live session of this id, or a write to it under way.
    fn must_delete(&self, id: &SessionId) -> Result<bool> {
        // In this order: a write is no longer under way once it is in the file.
        if self.queue.pending.of_session(id).is_some() {
            return Ok(true);
        }
        let environment = self.environment();
        // An unreadable record is there all the same.
        let lifetime = environment.limits.max_lifetime;
        let is_past = |record: Record<'_>| environment.clock.is_past(record.header.end(lifetime).millis());
        let is_live = |row: &[u8]| !Record::parse(row).is_ok_and(is_past);
        environment.read_row(&environment.encryption.key(id), is_live).map(|found| found.unwrap_or(false))
    }

    /// The live sessions of a user that are on disk, oldest first.
    fn find_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        let tag = environment.encryption.tag(user);
        let mut sessions = Vec::new();
        environment.each_row_of_user(tag, |key, row| {
            let record = Record::parse(row)?;
            let (created, expires) = (record.header.created, record.header.end(lifetime));
            if expires.is_past(now) {
                return Ok(());
            }
            // The tag is a hash; what counts is the user.
            if let Some(session) = environment.dated(key, record)?
                && session.content()?.user == Some(user)
            {
                sessions.push((created, session));
            }
            Ok(())
        })?;
        sessions.sort_unstable_by_key(|(created, _)| *created);
        Ok(sessions.into_iter().map(|(_, session)| session).collect())
    }

    /// Queues a write and waits for its end.
    fn write(&self, write: Write) -> Result<u64> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.queue.push(write, Waiter::Thread(sender))?;
        self.queue.wake();
        self.result(&receiver)
    }

    /// Waits for the end of a write, by its number.
    fn wait_for(&self, number: u64, deadline: Instant) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let reader = Reader { after: number, session: None, waiter: Waiter::Thread(sender), deadline };
        if self.queue.wait(reader)?.is_some() {
            return Ok(());
        }
        self.queue.wake();
        self.result(&receiver).map(drop)
    }

    /// The result of a call in the queue, by its deadline. Ends others whose time is over before.
    fn result(&self, receiver: &mpsc::Receiver<Result<u64>>) -> Result<u64> {
        loop {
            let next = self.queue.next_deadline().unwrap_or_else(Instant::now);
            match receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(StoreError::Closed),
                Err(mpsc::RecvTimeoutError::Timeout) => _ = self.expire(),
            }
        }
    }

    /// Sweeps in steps of a transaction each, between which others write.
    fn sweep(&self) -> Result<u64> {
        let environment = self.environment();
        // A sweep comes by even where nobody writes.
        environment.held.check()?;
        // A sweep passes over what is in the log.
        self.redo().drain_now()?;
        let at = environment.clock.now();
        let (mut removed, mut after) = (0, None);
        // Not after the last user has closed the store: the next one goes on.
        while !self.is_closing() {
            match self.redo().sweep(after.as_deref(), at) {
                Ok(Some(step)) => {
                    removed += step.removed;
                    after = step.next;
                    if after.is_none() {
                        break;
                    }
                }
                // Without a log, or where there is too little room for such a step.
                Ok(None) | Err(StoreError::Full(_)) => {
                    if !environment.is_due(at)? {
                        break;
                    }
                    removed += self.write(Write::Sweep { now: at, max: SWEEP_STEP })?;
                    after = None;
                }
                Err(error) => return Err(error),
            }
        }
        if !self.is_closing() && environment.has_unused_keys()? {
            self.write(Write::DropUnusedKeys)?;
        }
        let duration = environment.clock.now() - at;
        *environment.last_sweep.lock() = Some(Sweep { at, duration, removed });
        environment.events.publish(SWEEPS, || Event::Swept { at, duration, removed });
        self.redo().keep_times()?;
        Ok(removed)
    }

    /// [`SessionStore::get_by_user`] by a deadline.
    ///
    /// # Errors
    /// As for that.
    pub fn get_by_user_until(&self, user: UserKey<'_>, deadline: Instant) -> Result<Vec<StoredSession>> {
        self.check_time(deadline)?;
        let (pending, begun) = (&self.queue.pending, self.queue.last());
        let Some(begun) = begun else { return self.find_by_user(user) };
        if !pending.concerns(pending.hash(user)) {
            let ended = pending.ended();
            let found = self.find_by_user(user)?;
            let is_written = |session: &StoredSession| pending.of_session(&session.id).is_some();
            // Else a write may have ended one of them between the look at the disk and the look for writes.
            if !found.iter().any(is_written) && pending.ended() == ended {
                return Ok(found);
            }
        }
        self.wait_for(begun, deadline)?;
        self.find_by_user(user)
    }
}

/// Opens a folder. A store that needs its log is recovered first where this process is to read alone: what is read has to
/// be in the data file.
fn open_recovered(dir: &Path, options: &FileOptions, clock: &Arc<dyn Clock>) -> Result<Opened> {
    /// Another process may open the store in between, and be killed.
    const TRIES: u32 = 10;
    for _ in 0..TRIES {
        let opened = open::open(dir, options)?;
        if opened.log.is_none() || opened.access == Access::Write {
            return Ok(opened);
        }
        drop(opened);
        let writable = FileOptions { read_only: false, ..options.clone() };
        recover_and_close(dir, &writable, clock).map_err(|error| match error {
            StoreError::Damaged(_) => error,
            error => StoreError::Io(format!(
                "the store in {} was not closed before its process ended, and readOnly cannot recover its log ({error}). \
                 Open it without readOnly once",
                dir.display()
            )),
        })?;
    }
    Err(StoreError::Io(format!("the log of the store in {} could not be drained", dir.display())))
}

fn recover_and_close(dir: &Path, options: &FileOptions, clock: &Arc<dyn Clock>) -> Result<()> {
    let opened = open::open(dir, options)?;
    let (joined, log) = (opened.joined, opened.log);
    let limits = Limits {
        max_session_bytes: DEFAULT_MAX_SESSION_BYTES,
        per_user: UserLimit::default(),
        max_lifetime: Lifetime::UNLIMITED,
    };
    let max_bytes = options.max_bytes.map(u64::from);
    let environment =
        Arc::new(Environment::new(opened, options.secrets.clone(), limits, max_bytes, Arc::clone(clock)));
    let files = Box::new(Folder(dir.to_path_buf()));
    Redo::new(environment, files, Durability::Commit, Sizes::NONE, joined).begin(log.as_ref())
}

/// How large the log may be. It takes at most a sixteenth of what the store may.
fn log_sizes(opened: &Opened, options: &FileOptions) -> Sizes {
    const FIRST: u64 = 4 << 20;
    const MAX: u64 = 16 << 20;
    const SHARE: u64 = 16;
    let max = options.max_bytes.map_or(MAX, |max| (u64::from(max) / SHARE).min(MAX)) / 4096 * 4096;
    let is_possible = opened.access == Access::Write
        && opened.mode_lock.is_some()
        && max >= FIRST
        && network::overwrites_in_place(&opened.dir);
    if is_possible { Sizes { first: FIRST, max } } else { Sizes::NONE }
}

/// The number of the write that a `get` has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MustWait(u64);

fn delete_by_user(user: UserKey<'_>, except: Option<&SessionId>) -> Write {
    Write::DeleteByUser { user: user.to_buf(), except: except.cloned(), max: usize::MAX }
}

impl Retire for FileStore {
    fn is_current(&self) -> bool {
        self.environment().held.check().is_ok()
    }

    fn retire(&self, deadline: Instant) -> bool {
        self.environment().held.lose();
        self.redo().give_up(deadline) && self.environment().retire(deadline)
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.queue.close();
        self.writer.take().into_iter().for_each(join);
        self.redo().stop();
        self.keeper.take().into_iter().for_each(join);
        self.tasks.close();
        self.upkeep.close();
        self.probes.close();
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.stop();
        }
        self.redo().close();
        self.redo = None;
        // The last of it: this closes the files, before another may open them.
        self.environment = None;
    }
}

impl SessionStore for FileStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.write(Write::Create(self.new_record(session)?)).map(drop)
    }

    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        self.write(Write::Create(self.dated_record(session, created)?)).map(drop)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        let stored = |expires, content: &[u8]| Ok(StoredSession::new(id.clone(), expires, content));
        let mut seen = self.see(id, stored)?;
        loop {
            match seen {
                Seen::Now(found) => return Ok(found),
                Seen::After(number) => self.wait_for(number, self.deadline())?,
            }
            // Later writes of the session need not be waited for.
            seen = writer::see(self.environment(), &self.queue, id, stored)?;
        }
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.write(Write::Update(self.new_record(session)?)).map(|updated| updated > 0)
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

    fn clean(&self) -> Result<u64> {
        self.sweep()
            .inspect_err(|error| self.events().publish(SWEEPS, || Event::SweepFailed(error.to_string())))
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        self.get_by_user_until(user, self.deadline())
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.write(delete_by_user(user, except))
    }

    fn size(&self) -> Result<u64> {
        let environment = self.environment();
        if environment.must_scan_to_count()? {
            self.redo().drain_now()?;
        }
        let _base = self.redo().hold_base()?;
        environment.live_sessions()
    }

    /// In the order of the keys, which a session never changes.
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        if after.as_bytes().is_empty() {
            // Sessions that are in the log alone are in no page.
            self.redo().drain_now()?;
        }
        let (mut ids, mut last, mut seen) = (Vec::new(), None, 0);
        environment.each_row_after(after.as_bytes(), PAGE, |key, row| {
            (last, seen) = (Some(Cursor::from_bytes(key)), seen + 1);
            // One that cannot be read has no id to give; the others have.
            let record = row.and_then(|row| Record::parse(row).ok());
            if let Some(record) = record.filter(|record| !record.header.end(lifetime).is_past(now)) {
                ids.extend(with_buffer(|buffer| {
                    let contents = environment.encryption.decrypt(key, record, buffer).ok()??;
                    SessionId::from_packed(contents.id).ok()
                }));
            }
            ControlFlow::Continue(())
        })?;
        Ok((ids, last.filter(|_| seen == PAGE)))
    }

    /// In the order of the keys, as `ids`. The view of each page ends with the call.
    fn sessions(&self, after: Cursor) -> Result<Page> {
        let environment = self.environment();
        let (now, lifetime) = (environment.clock.now(), environment.limits.max_lifetime);
        if after.as_bytes().is_empty() {
            self.redo().drain_now()?;
        }
        let (mut page, mut rows, mut last) = (Page::default(), 0, Cursor::default());
        environment.each_row_after(after.as_bytes(), PAGE, |key, row| {
            rows += 1;
            match row.map(Record::parse) {
                None => {}
                Some(Ok(record)) if record.header.end(lifetime).is_past(now) => {}
                Some(record) => {
                    let session = record.and_then(|record| environment.dated(key, record));
                    if let Some(session) = session.transpose() {
                        page.add(session);
                    }
                }
            }
            if page.is_full() || rows == PAGE {
                last = Cursor::from_bytes(key);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        page.next = Some(last).filter(|last| !last.as_bytes().is_empty());
        Ok(page)
    }

    fn clear(&self) -> Result<()> {
        self.write(Write::Clear).map(drop)
    }

    fn stats(&self) -> Result<Stats> {
        let log = self.redo().stats();
        let _base = self.redo().hold_base()?;
        let stats = self.environment().stats()?;
        let in_log = log.map_or(0, |log| log.used);
        Ok(Stats { bytes: stats.bytes.map(|bytes| bytes + in_log), log, ..stats })
    }
}
