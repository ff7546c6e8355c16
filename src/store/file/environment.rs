//! The open environment of a store: LMDB, views of it, and reopening after a failed commit.
//!
//! A process has one environment for each folder. POSIX locks belong to a process, so LMDB must not open a folder
//! twice.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heed::{Env, MdbError, RoTxn, RwTxn, WithTls};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::counters::Counters;
use super::encryption::Encryption;
use super::errors::failed;
use super::estimate::Trees;
use super::held::HeldFiles;
use super::limits::Limits;
use super::names::DATA;
#[cfg(target_os = "linux")]
use super::names::LOCK;
use super::open::{self, Access, OpenedStore};
use super::owner_lock::{Feature, OwnerLock, PublishedLimit};
use super::quota::{Quota, Usage};
use super::redo::format::LogId;
use super::redo::mode_lock::ModeLock;
use super::redo::overlay::Overlay;
use super::redo::points;
use super::tables::{Table, Tables};
use crate::clock::Clock;
use crate::codec;
use crate::error::{Result, StoreError};
use crate::events::Bus;
use crate::keyring::Secret;
use crate::session::{Content, Expiry};
use crate::store::{CommonLimits, Sweep};

/// How often the reader slots of killed processes are freed if the file does not grow. Until then they keep freed
/// pages from being reused.
const STALE_READER_INTERVAL: Duration = Duration::from_secs(2);

/// LMDB's environment and its tables.
#[derive(Clone)]
pub(super) struct OpenEnv {
    pub env: Env<WithTls>,
    pub tables: Tables,
    /// How often it was reopened.
    pub reopened: u64,
}

/// A consistent view of the store. LMDB does not reuse its pages while it exists, so keep it short. A thread can have
/// only one view at a time.
pub(super) struct View {
    // Dropped before its environment.
    txn: RoTxn<'static, WithTls>,
    open: OpenEnv,
}

impl View {
    pub(super) fn tables(&self) -> Tables {
        self.open.tables
    }
}

impl Deref for View {
    type Target = RoTxn<'static, WithTls>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

/// The log that the data file names, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownLog {
    None,
    Log(LogId),
    /// A failed commit would have changed it, and that commit may be on disk.
    Uncertain,
}

/// The time and the size of the file when stale readers were last freed.
struct Cleared {
    at: Instant,
    last_page: usize,
}

pub(super) struct Environment {
    // Dropped before the owner lock, which shows that the environment is open.
    /// `None` while the environment is being reopened, or if reopening failed.
    open: RwLock<Option<OpenEnv>>,
    reopened: AtomicU64,
    /// Whether the meta pages on disk may differ from those in memory. See `commit`.
    pub must_sync: AtomicBool,
    pub encryption: Encryption,
    pub secrets: Vec<Secret>,
    /// The wrapped keys of the file when they included those of all our secrets.
    pub complete_keys: Mutex<Option<Vec<u8>>>,
    pub limits: Limits,
    /// Whether records contain creation times. See `times`.
    pub has_creation_times: AtomicBool,
    pub clock: Arc<dyn Clock>,
    pub counters: Counters,
    pub events: Bus,
    pub last_sweep: Mutex<Option<Sweep>>,
    pub quota: Quota,
    pub held: HeldFiles,
    data: File,
    pub page_size: u64,
    max_bytes: Option<u64>,
    stale_cleared: Mutex<Cleared>,
    dir: PathBuf,
    pub access: Access,
    /// The newest states of the rows in the redo log.
    pub overlay: Overlay,
    pub log: Mutex<KnownLog>,
    /// Released after the files are closed, and before the owner lock.
    pub mode_lock: Option<Arc<dyn ModeLock>>,
    /// A substitute for LMDB's write lock in a simulation. LMDB's lock would block the thread that runs all
    /// processes.
    pub simulated_lock: Option<Arc<Mutex<()>>>,
    #[cfg(target_os = "linux")]
    lock_wait: super::lock_wakeup::LockWait,
    owner: Mutex<Option<OwnerLock>>,
}

impl Environment {
    pub(super) fn new(
        opened: OpenedStore,
        secrets: Vec<Secret>,
        limits: Limits,
        max_bytes: Option<u64>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let OpenedStore {
            env,
            tables,
            encryption,
            data,
            page_size,
            dir,
            owner,
            access,
            mode_lock,
            log,
            joined: _,
        } = opened;
        let quota = Quota::new(max_bytes, env.info().map_size as u64, page_size);
        Self {
            open: RwLock::new(Some(OpenEnv { env, tables, reopened: 0 })),
            reopened: AtomicU64::new(0),
            must_sync: AtomicBool::new(true),
            encryption,
            secrets,
            complete_keys: Mutex::default(),
            limits,
            has_creation_times: AtomicBool::new(false),
            clock,
            counters: Counters::default(),
            events: Bus::default(),
            last_sweep: Mutex::default(),
            quota,
            held: HeldFiles::new(&dir, &data),
            data,
            page_size,
            max_bytes,
            stale_cleared: Mutex::new(Cleared { at: Instant::now(), last_page: 0 }),
            dir,
            access,
            overlay: Overlay::new(),
            log: Mutex::new(log.map_or(KnownLog::None, |log| KnownLog::Log(log.id))),
            mode_lock,
            simulated_lock: None,
            #[cfg(target_os = "linux")]
            lock_wait: super::lock_wakeup::LockWait::default(),
            owner: Mutex::new(owner),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn data(&self) -> &File {
        &self.data
    }

    pub(super) fn data_path(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Closes the files permanently, because they are no longer at their path. All later calls fail. Returns whether
    /// all calls have released the files by the deadline.
    pub(super) fn retire(&self, deadline: Instant) -> bool {
        let mut open = self.open.write();
        self.held.mark_lost();
        drop(open.take());
        drop(open);
        let left = deadline.saturating_duration_since(Instant::now());
        let is_closed = heed::env_closing_event(&self.dir).is_none_or(|closing| closing.wait_timeout(left));
        if is_closed {
            if let Some(lock) = &self.mode_lock {
                lock.release();
            }
            self.owner.lock().take();
        }
        is_closed
    }

    /// Taken before LMDB's write lock. `None` outside a simulation.
    pub(super) fn lock_simulated_writer(&self) -> Option<MutexGuard<'_, ()>> {
        self.simulated_lock.as_deref().map(points::lock)
    }

    /// Starts a write transaction. Waits while another process has one.
    pub(super) fn write_txn<'e>(&self, open: &'e OpenEnv) -> heed::Result<RwTxn<'e>> {
        #[cfg(target_os = "linux")]
        return self.lock_wait.during(|| open.env.write_txn());
        #[cfg(not(target_os = "linux"))]
        open.env.write_txn()
    }

    /// Wakes the writer after a long wait, because it may be asleep although the lock is free.
    pub(super) fn wake_writer(&self) {
        #[cfg(target_os = "linux")]
        if self.lock_wait.is_long()
            && let Some(_open) = self.open.try_read().and_then(|open| open.clone())
        {
            super::lock_wakeup::wake_sleepers(&self.dir.join(LOCK));
        }
    }

    /// Whether a process without support for a feature may have the store open.
    pub(super) fn may_have_old_version(&self, feature: Feature) -> bool {
        self.owner.lock().as_ref().is_some_and(|owner| owner.may_have_old_version(feature))
    }

    /// Publishes the limits, and returns those of another process if they differ.
    pub(super) fn publish_limits(&self, own: CommonLimits) -> Option<CommonLimits> {
        let owner = self.owner.lock();
        let owner = owner.as_ref().filter(|_| self.access == Access::Write)?;
        // Without file locks, the limits of other processes are unknown.
        let other = |limit, value| owner.publish(limit, value).ok().flatten();
        let (user, lifetime) = (own.user_code(), own.lifetime_code());
        let (other_user, other_lifetime) =
            (other(PublishedLimit::UserLimit, user), other(PublishedLimit::Lifetime, lifetime));
        (other_user.is_some() || other_lifetime.is_some())
            .then(|| CommonLimits::from_codes(other_user.unwrap_or(user), other_lifetime.unwrap_or(lifetime)))
    }

    /// Fails if the store is read without locks and another process has opened it.
    pub(super) fn check_unused(&self) -> Result<()> {
        match self.access {
            Access::ReadUnlocked => open::check_unused(&self.dir, self.owner.lock().as_ref()),
            Access::Write | Access::Read => Ok(()),
        }
    }

    /// The environment. A thread that holds it, or a view of it, must not request it again.
    pub(super) fn open(&self) -> Result<OpenEnv> {
        self.held.ensure_not_lost()?;
        let open = self.open.read().clone();
        match open {
            Some(open) => Ok(open),
            None => self.reopen(None),
        }
    }

    /// A view of the current state.
    pub(super) fn read(&self) -> Result<View> {
        self.check_unused()?;
        let mut open = self.open()?;
        loop {
            let reopened = open.reopened;
            match open.env.clone().static_read_txn() {
                Ok(txn) => return Ok(View { txn, open }),
                // A commit has failed, and the writer has not yet reopened the environment.
                Err(heed::Error::Mdb(MdbError::Panic)) => {
                    drop(open);
                    open = self.reopen(Some(reopened))?;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Reopens the environment, unless another thread has already done so since the reopening with number `was`.
    ///
    /// LMDB gives up an environment if it cannot write the meta page. The data file must be reopened too: the kernel
    /// reports a failed write once to each open file description. After a failed sync, writing the next meta page
    /// would fail as well.
    pub(super) fn reopen(&self, was: Option<u64>) -> Result<OpenEnv> {
        /// A backup may keep the environment open for longer. Then all calls fail until the backup ends.
        const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
        let mut slot = self.open.write();
        if let Some(open) = slot.as_ref().filter(|open| Some(open.reopened) != was) {
            return Ok(open.clone());
        }
        self.must_sync.store(true, Ordering::Relaxed);
        if let Some(open) = slot.take() {
            self.reopened.store(open.reopened + 1, Ordering::Relaxed);
            let closing = open.env.prepare_for_closing();
            closing.wait_timeout(CLOSE_TIMEOUT);
        }
        self.held.check()?;
        let (env, tables, data) = open::reopen(&self.dir, self.max_bytes, self.access)?;
        self.held.check_data(&data)?;
        let open = OpenEnv { env, tables, reopened: self.reopened.load(Ordering::Relaxed) };
        *slot = Some(open.clone());
        Ok(open)
    }

    pub(super) fn get<'t>(
        &self,
        table: Table,
        txn: &'t RoTxn<'_, WithTls>,
        key: &[u8],
    ) -> Result<Option<&'t [u8]>> {
        table.get(txn, key).map_err(|error| self.failed(error))
    }

    /// The current size of the file and its free part.
    pub(super) fn usage_now(&self) -> Result<Usage> {
        let view = self.read()?;
        self.usage(&view).map_err(|error| self.failed(error))
    }

    /// Checks that another session fits into `maxBytes`.
    ///
    /// # Errors
    /// `Full`, and those of a read.
    pub(super) fn check_room(&self) -> Result<()> {
        let usage = self.usage_now()?;
        self.quota.check(Usage { file: 0, free: 0 }, usage.used())
    }

    /// The size of the file and its free part.
    pub(super) fn usage(&self, view: &View) -> heed::Result<Usage> {
        Ok(self.usage_of(&view.open, &Trees::read(view.tables(), view)?))
    }

    pub(super) fn usage_of(&self, open: &OpenEnv, trees: &Trees) -> Usage {
        let file = (open.env.info().last_page_number as u64 + 1) * self.page_size;
        Usage { file, free: file.saturating_sub(self.used(trees)) }
    }

    pub(super) fn used(&self, trees: &Trees) -> u64 {
        const META_PAGES: u64 = 2;
        (META_PAGES + trees.all_pages()) * self.page_size
    }

    /// Frees the reader slots of processes that were killed while they read. Until then the file grows.
    pub(super) fn clear_stale_readers(&self) {
        let Some(open) = self.open.read().clone() else { return };
        let mut cleared = self.stale_cleared.lock();
        let last_page = open.env.info().last_page_number;
        if cleared.at.elapsed() >= STALE_READER_INTERVAL || last_page > cleared.last_page {
            // If this fails, the file grows, and the next batch tries again.
            let _ = open.env.clear_stale_readers();
            *cleared = Cleared { at: Instant::now(), last_page };
        }
    }

    /// Converts an error of LMDB.
    pub(super) fn failed(&self, error: heed::Error) -> StoreError {
        failed(&self.data_path(), error)
    }
}

/// Decodes the content that `get_with` reads.
pub(super) fn decoded<T>(
    read: impl FnOnce(Expiry, Content<'_>) -> T,
) -> impl FnOnce(Expiry, &[u8]) -> Result<T> {
    |expires, content| codec::decode(content).map(|content| read(expires, content))
}
