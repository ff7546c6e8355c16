//! Opens a store, or returns the store that this process has already opened in the folder.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::environment::Environment;
use super::limits::Limits;
use super::open::{self, Access, OpenedStore};
use super::options::{DEFAULT_COMMAND_TIMEOUT, Durability, FileOptions};
use super::pending::Pending;
use super::queue::Queue;
use super::redo::engine::{Redo, Sizes};
use super::redo::format::FILE_HEADER_BYTES;
use super::redo::storage::Folder;
use super::redo::syncer::Syncer;
use super::registry::{Registered, Registry};
use super::{ClosedSignal, FileStore, folder, network, writer};
use crate::clock::{AppClock, Clock};
use crate::error::{Result, StoreError};
use crate::executor::Executor;
use crate::lifetime::Lifetime;
use crate::store::{
    CommonLimits, DEFAULT_MAX_SESSION_BYTES, LimitsDiffer, UserLimit, WhenUserIsFull, check_same,
    check_same_name, clean_while_open,
};
use crate::sweeper::{DEFAULT_SWEEP_INTERVAL, Sweeper};

/// Threads for calls that read many sessions, and threads for calls that read the whole file. They are separate
/// because `verify` must not delay a user's `getByUser`.
const TASK_THREADS: usize = 2;
const UPKEEP_THREADS: usize = 1;
/// A probe may hang with the disk. It must not block other calls.
const PROBE_THREADS: usize = 1;

/// The open stores of this process.
pub(super) static OPEN: Registry<FileStore> = Registry::new();

impl FileStore {
    /// Opens the store in the folder of the options. Creates the store if it is missing.
    ///
    /// # Errors
    /// - `InvalidOption`: an option is out of range, the path is a file, or the secrets are wrong. Also if the store
    ///   is open in this process with a different option.
    /// - `Locked`: a process with the same PID has the store open.
    /// - `Damaged`: the file is incomplete, comes from a newer version, or is not a session store. Nothing was
    ///   changed.
    /// - `Full`, `Io`.
    pub fn open(options: &FileOptions) -> Result<Arc<Self>> {
        Self::open_at(options, Arc::new(AppClock::default()))
    }

    /// Opens the store with another clock.
    ///
    /// # Errors
    /// As for [`FileStore::open`].
    pub fn open_at(options: &FileOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        options.check()?;
        let rules = folder::FolderRules {
            is_created: !options.read_only,
            may_be_on_network: options.allow_network_file_system,
        };
        let dir = folder::prepare(&options.path, rules)?;
        let store = OPEN.open(&dir, |registered| Self::start(&dir, options, clock, registered))?;
        store.check_same(options)?;
        Ok(store)
    }

    pub(super) fn start(
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
        let other = if options.is_tool { None } else { environment.publish_limits(own) };
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
        redo.recover_or_share(log.as_ref())?;
        // Other errors, such as a full disk, must not stop reads and deletions. The next sweep tries again.
        if let Err(error @ StoreError::Locked(_)) = redo.enable_creation_times() {
            return Err(error);
        }
        let keeper = if sizes.max > 0 { Some(redo.spawn_keeper().map_err(no_thread)?) } else { None };
        let syncer = match (durability, sizes.max) {
            (Durability::Commit, _) | (_, 0) => None,
            (Durability::EverySec, _) => Some(Syncer::start(&redo).map_err(|error| {
                redo.stop();
                no_thread(error)
            })?),
        };
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
            syncer,
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
            ended: ClosedSignal::default(),
        });
        if store.sweep_interval() > 0 && !options.read_only {
            let interval = Duration::from_millis(store.sweep_interval());
            let _ = store.sweeper.set(Sweeper::start(interval, clean_while_open(&store)).map_err(no_thread)?);
        }
        Ok(store)
    }

    pub(super) fn sweep_interval(&self) -> u64 {
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
        check_same(&pairs, "path")?;
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
}

/// Opens a folder. If the store needs its log and this process may only read, recovers the log first: a read-only
/// process reads the data file alone.
fn open_recovered(dir: &Path, options: &FileOptions, clock: &Arc<dyn Clock>) -> Result<OpenedStore> {
    /// Between two attempts, another process may open the store and be killed.
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
    Redo::new(environment, files, Durability::Commit, Sizes::NONE, joined).recover_or_share(log.as_ref())
}

/// The size limits of the log: at most a sixteenth of `maxBytes`.
fn log_sizes(opened: &OpenedStore, options: &FileOptions) -> Sizes {
    const FIRST: u64 = 4 << 20;
    const MAX: u64 = 16 << 20;
    const DIVISOR: u64 = 16;
    let max = options.max_bytes.map_or(MAX, |max| (u64::from(max) / DIVISOR).min(MAX)) / FILE_HEADER_BYTES
        * FILE_HEADER_BYTES;
    let is_possible = opened.access == Access::Write
        && opened.mode_lock.is_some()
        && max >= FIRST
        && network::overwrites_in_place(&opened.dir);
    if is_possible { Sizes { first: FIRST, max } } else { Sizes::NONE }
}
