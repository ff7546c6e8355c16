//! An open store folder: LMDB's environment, views of it, and opening it again after a failed commit.
//!
//! A process has one for each folder. POSIX locks belong to a process, so LMDB must not open a folder twice.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heed::{Env, MdbError, RoTxn, RwTxn, WithTls};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::cost::Trees;
use super::counters::Counters;
use super::encryption::Encryption;
use super::errors::failed;
use super::held::HeldFiles;
use super::limits::Limits;
use super::names::DATA;
#[cfg(target_os = "linux")]
use super::names::LOCK;
use super::open::{self, Access, Opened};
use super::owner_lock::{Feature, OwnerLock, Subject};
use super::redo::format::LogId;
use super::redo::mode_lock::ModeLock;
use super::redo::overlay::Overlay;
use super::redo::points;
use super::room::{Room, Usage};
use super::tables::{Table, Tables};
use crate::clock::Clock;
use crate::codec;
use crate::error::{Result, StoreError};
use crate::events::Bus;
use crate::keyring::Secret;
use crate::session::{Content, Expiry};
use crate::store::{CommonLimits, Sweep};

/// How long the slots of killed readers may keep freed pages from being reused, if the file does not grow meanwhile.
const STALE_FOR: Duration = Duration::from_secs(2);

/// LMDB's environment, and its tables.
#[derive(Clone)]
pub(super) struct Open {
    pub env: Env<WithTls>,
    pub tables: Tables,
    /// How often it was opened before.
    pub reopened: u64,
}

/// A view of the store at one moment. Pages that it sees are not reused while it exists: keep it short. A thread has
/// one view at a time.
pub(super) struct View {
    // Dropped before its environment.
    txn: RoTxn<'static, WithTls>,
    open: Open,
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

/// What this process knows of the log that the data file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownLog {
    None,
    Log(LogId),
    /// A commit that was to change it has failed, and may be on disk.
    Doubtful,
}

/// When stale readers were last cleared, and how many pages the file had then.
struct Cleared {
    at: Instant,
    last_page: usize,
}

pub(super) struct Environment {
    // Dropped before the owner's lock, which says that it is open.
    /// `None` while the environment is being reopened, or if reopening failed.
    open: RwLock<Option<Open>>,
    reopened: AtomicU64,
    /// Whether the meta pages on disk may differ from those in memory. See `commit`.
    pub must_sync: AtomicBool,
    pub encryption: Encryption,
    pub secrets: Vec<Secret>,
    /// The wrapped keys of the file, as they were when they had those of all our secrets.
    pub complete_keys: Mutex<Option<Vec<u8>>>,
    pub limits: Limits,
    /// Whether records say when their sessions were created. See `times`.
    pub keeps_times: AtomicBool,
    pub clock: Arc<dyn Clock>,
    pub counters: Counters,
    pub events: Bus,
    pub last_sweep: Mutex<Option<Sweep>>,
    pub room: Room,
    pub held: HeldFiles,
    data: File,
    pub page_size: u64,
    max_bytes: Option<u64>,
    stale_cleared: Mutex<Cleared>,
    dir: PathBuf,
    pub access: Access,
    /// The newest states of rows that are in the redo log.
    pub overlay: Overlay,
    pub log: Mutex<KnownLog>,
    /// Let go after the files are closed, and before the PID.
    pub mode_lock: Option<Arc<dyn ModeLock>>,
    /// The processes of a simulation share it. LMDB's own lock would hold up the thread that lets the others go on.
    pub turn: Option<Arc<Mutex<()>>>,
    #[cfg(target_os = "linux")]
    lock_wait: super::lock_wakeup::LockWait,
    owner: Mutex<Option<OwnerLock>>,
}

impl Environment {
    pub(super) fn new(
        opened: Opened,
        secrets: Vec<Secret>,
        limits: Limits,
        max_bytes: Option<u64>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Opened {
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
        let room = Room::new(max_bytes, env.info().map_size as u64, page_size);
        Self {
            open: RwLock::new(Some(Open { env, tables, reopened: 0 })),
            reopened: AtomicU64::new(0),
            must_sync: AtomicBool::new(true),
            encryption,
            secrets,
            complete_keys: Mutex::default(),
            limits,
            keeps_times: AtomicBool::new(false),
            clock,
            counters: Counters::default(),
            events: Bus::default(),
            last_sweep: Mutex::default(),
            room,
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
            turn: None,
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

    /// Closes the files for good, as they are no longer at their path. Calls fail from then on. Returns whether no call
    /// has them open any more.
    pub(super) fn retire(&self, deadline: Instant) -> bool {
        let mut open = self.open.write();
        self.held.lose();
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

    /// Taken before LMDB's write lock. Without a simulation there is nothing to take.
    pub(super) fn writer_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.as_deref().map(points::lock)
    }

    /// Begins a transaction that writes, once no other process has one.
    pub(super) fn write_txn<'e>(&self, open: &'e Open) -> heed::Result<RwTxn<'e>> {
        #[cfg(target_os = "linux")]
        return self.lock_wait.during(|| open.env.write_txn());
        #[cfg(not(target_os = "linux"))]
        open.env.write_txn()
    }

    /// Wakes the writer if it has waited for long: it may sleep before a lock that is free.
    pub(super) fn wake_writer(&self) {
        #[cfg(target_os = "linux")]
        if self.lock_wait.is_long()
            && let Some(_open) = self.open.try_read().and_then(|open| open.clone())
        {
            super::lock_wakeup::wake_sleepers(&self.dir.join(LOCK));
        }
    }

    /// Whether a process may have the store open whose version of this package does not know of a feature.
    pub(super) fn may_have_old_version(&self, feature: Feature) -> bool {
        self.owner.lock().as_ref().is_some_and(|owner| owner.may_have_old_version(feature))
    }

    /// Has other processes know the limits, and returns those of one that has others.
    pub(super) fn say_limits(&self, own: CommonLimits) -> Option<CommonLimits> {
        let owner = self.owner.lock();
        let owner = owner.as_ref().filter(|_| self.access == Access::Write)?;
        // Where the system has no such locks, nothing is known of others.
        let other = |subject, value| owner.say(subject, value).ok().flatten();
        let (user, lifetime) = (own.user_code(), own.lifetime_code());
        let (other_user, other_lifetime) =
            (other(Subject::UserLimit, user), other(Subject::Lifetime, lifetime));
        (other_user.is_some() || other_lifetime.is_some())
            .then(|| CommonLimits::from_codes(other_user.unwrap_or(user), other_lifetime.unwrap_or(lifetime)))
    }

    /// Fails if another process has opened a store that is read without locks.
    pub(super) fn check_unused(&self) -> Result<()> {
        match self.access {
            Access::ReadUnlocked => open::check_unused(&self.dir, self.owner.lock().as_ref()),
            Access::Write | Access::Read => Ok(()),
        }
    }

    /// The environment. A thread that has it, or a view of it, must not ask for it again.
    pub(super) fn open(&self) -> Result<Open> {
        self.held.ensure()?;
        let open = self.open.read().clone();
        match open {
            Some(open) => Ok(open),
            None => self.reopen(None),
        }
    }

    /// A view of the store as it is now.
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

    /// Opens the environment again, unless another thread has done so since it was `was`. LMDB gives up an environment
    /// whose meta page it could not write. And the kernel reports a failed write once to each open file description: after
    /// a failed sync the next meta page would fail as well.
    pub(super) fn reopen(&self, was: Option<u64>) -> Result<Open> {
        /// A backup may keep the environment open for longer. Then all calls fail until the backup has ended.
        const PATIENCE: Duration = Duration::from_secs(2);
        let mut place = self.open.write();
        if let Some(open) = place.as_ref().filter(|open| Some(open.reopened) != was) {
            return Ok(open.clone());
        }
        self.must_sync.store(true, Ordering::Relaxed);
        if let Some(open) = place.take() {
            self.reopened.store(open.reopened + 1, Ordering::Relaxed);
            let closing = open.env.prepare_for_closing();
            closing.wait_timeout(PATIENCE);
        }
        self.held.check()?;
        let (env, tables, data) = open::reopen(&self.dir, self.max_bytes, self.access)?;
        self.held.check_data(&data)?;
        let open = Open { env, tables, reopened: self.reopened.load(Ordering::Relaxed) };
        *place = Some(open.clone());
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

    /// How large the file is now, and how much of it is free.
    pub(super) fn usage_now(&self) -> Result<Usage> {
        let view = self.read()?;
        self.usage(&view).map_err(|error| self.failed(error))
    }

    /// Checks that a session fits into `maxBytes`.
    ///
    /// # Errors
    /// `Full`; those of a read.
    pub(super) fn check_room(&self) -> Result<()> {
        let usage = self.usage_now()?;
        self.room.check(Usage { file: 0, free: 0 }, usage.used())
    }

    /// How large the file is, and how much of it is free.
    pub(super) fn usage(&self, view: &View) -> heed::Result<Usage> {
        Ok(self.usage_of(&view.open, &Trees::read(view.tables(), view)?))
    }

    pub(super) fn usage_of(&self, open: &Open, trees: &Trees) -> Usage {
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
        if cleared.at.elapsed() >= STALE_FOR || last_page > cleared.last_page {
            // If it fails, the file grows, and the next batch tries again.
            let _ = open.env.clear_stale_readers();
            *cleared = Cleared { at: Instant::now(), last_page };
        }
    }

    /// The store's error for an error of LMDB.
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
