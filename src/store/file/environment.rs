//! An open store directory: LMDB's environment in it, and what one transaction does there.
//!
//! One for each directory in a process, as POSIX locks know processes alone: LMDB must not be opened twice.

use std::cell::RefCell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use heed::{Env, MdbError, RoTxn, WithTls};
use parking_lot::{Mutex, RwLock};

use super::apply::{Applier, Fault, Tally, Write};
use super::cost::{Costing, Trees};
use super::directory::{DATA, Owner};
use super::open::{self, Opened};
use super::pages;
use super::record::Record;
use super::room::{Admission, Need, Room, Usage};
use super::tables::{Table, Tables, expiry_entry};
use super::vault::Vault;
use crate::clock::{Clock, Millis};
use crate::codec;
use crate::error::{Result, StoreError};
use crate::keyring::Secret;
use crate::session::{Content, Expiry, SessionId};
use crate::store::Sweep;

/// How long the marks of killed readers may keep freed pages from being used, if the file does not grow for that.
const STALE_FOR: Duration = Duration::from_secs(2);

/// The limits of one session and of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_session_bytes: usize,
    pub max_sessions_per_user: Option<NonZeroUsize>,
}

/// Counters of this process since it opened the store.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub hits: CachePadded<AtomicU64>,
    pub misses: CachePadded<AtomicU64>,
    created: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
}

impl Counters {
    fn add(&self, tally: Tally) {
        self.created.fetch_add(tally.created, Ordering::Relaxed);
        self.expired.fetch_add(tally.expired, Ordering::Relaxed);
        self.evicted.fetch_add(tally.evicted, Ordering::Relaxed);
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            created: self.created.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }
}

/// LMDB's environment, and the tables, which are of that one alone.
#[derive(Clone)]
pub(super) struct Open {
    pub env: Env<WithTls>,
    pub tables: Tables,
    /// How often it was opened before.
    pub reopened: u64,
}

/// A view of the store at one moment. No page that it sees is used again while it is there: it must be short, and a
/// thread has one at a time.
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

/// When the marks of dead readers were last looked for, and how many pages the file had.
struct Cleared {
    at: Instant,
    last_page: usize,
}

pub(super) struct Environment {
    // Dropped before the owner's mark: that says that it is open.
    /// Away while it is opened again, and for as long as that fails.
    open: RwLock<Option<Open>>,
    /// Whether a commit may have left what is not on disk, as LMDB or a process before this one took it back.
    must_sync: AtomicBool,
    reopened: AtomicU64,
    pub vault: Vault,
    secrets: Vec<Secret>,
    must_reseal: AtomicBool,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    pub counters: Counters,
    pub last_sweep: Mutex<Option<Sweep>>,
    room: Room,
    data: File,
    page_size: u64,
    max_bytes: Option<u64>,
    stale_cleared: Mutex<Cleared>,
    dir: PathBuf,
    _owner: Owner,
}

impl Environment {
    pub(super) fn new(
        opened: Opened,
        secrets: Vec<Secret>,
        limits: Limits,
        max_bytes: Option<u64>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Opened { env, tables, vault, must_reseal, data, page_size, dir, owner } = opened;
        let room = Room::new(max_bytes, env.info().map_size as u64, page_size);
        Self {
            open: RwLock::new(Some(Open { env, tables, reopened: 0 })),
            must_sync: AtomicBool::new(true),
            reopened: AtomicU64::new(0),
            vault,
            secrets,
            must_reseal: AtomicBool::new(must_reseal),
            limits,
            clock,
            counters: Counters::default(),
            last_sweep: Mutex::default(),
            room,
            data,
            page_size,
            max_bytes,
            stale_cleared: Mutex::new(Cleared { at: Instant::now(), last_page: 0 }),
            dir,
            _owner: owner,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn data(&self) -> &File {
        &self.data
    }

    /// The environment. Whoever has it, or a view of it, must not ask for another meanwhile.
    pub(super) fn open(&self) -> Result<Open> {
        let open = self.open.read().clone();
        match open {
            Some(open) => Ok(open),
            None => self.reopen(None),
        }
    }

    /// A view of the store as it is now.
    pub(super) fn read(&self) -> Result<View> {
        let mut open = self.open()?;
        loop {
            let reopened = open.reopened;
            match open.env.clone().static_read_txn() {
                Ok(txn) => return Ok(View { txn, open }),
                // A commit has failed, and the writer did not get to it yet.
                Err(heed::Error::Mdb(MdbError::Panic)) => {
                    drop(open);
                    open = self.reopen(Some(reopened))?;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Opens the environment anew, unless another thread has done so since it was this one. LMDB gives up one whose
    /// meta page it could not write; and the kernel tells of an error once for each descriptor, so that after a failed
    /// sync the meta page would be the next to fail.
    fn reopen(&self, was: Option<u64>) -> Result<Open> {
        /// A backup may hold it for longer. Then all calls fail until that has ended.
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
        let (env, tables) = open::reopen(&self.dir, self.max_bytes)?;
        let open = Open { env, tables, reopened: self.reopened.load(Ordering::Relaxed) };
        *place = Some(open.clone());
        Ok(open)
    }

    /// Calls `read` with a live session's expiry and content.
    pub(super) fn get_with<T>(
        &self,
        id: &SessionId,
        read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        let found = self.find(id, read);
        let counter = if matches!(found, Ok(Some(_))) { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn find<T>(&self, id: &SessionId, read: impl FnOnce(Expiry, &[u8]) -> Result<T>) -> Result<Option<T>> {
        let key = self.vault.key(id);
        let txn = self.read()?;
        let Some(bytes) = self.get(txn.tables().sessions, &txn, &key)? else { return Ok(None) };
        let record = Record::parse(bytes)?;
        let expires = record.header.expires;
        if self.clock.is_past(expires.millis()) {
            return Ok(None);
        }
        with_buffer(|buffer| match self.vault.open(&key, record, buffer)? {
            Some(contents) if contents.id == id.as_bytes() => read(expires, contents.content).map(Some),
            _ => Ok(None),
        })
    }

    /// Whether the index by expiry has entries for a sweep.
    pub(super) fn is_due(&self, now: Millis) -> Result<bool> {
        let txn = self.read()?;
        let first = txn.tables().expiries.first(&txn).map_err(|error| self.failed(error))?;
        Ok(first.is_some_and(|(entry, _)| *entry < expiry_entry(now + 1, 0)[..]))
    }

    pub(super) fn get<'t>(
        &self,
        table: Table,
        txn: &'t RoTxn<'_, WithTls>,
        key: &[u8],
    ) -> Result<Option<&'t [u8]>> {
        table.get(txn, key).map_err(|error| self.failed(error))
    }

    /// Applies writes in one transaction, and returns when they are on disk: this is the one way by which anything
    /// gets there. What is refused is refused alone; an error is that of all, and then none has happened.
    pub(super) fn commit(&self, writes: &[&Write]) -> Result<Vec<Result<u64>>> {
        self.clear_stale_readers();
        let (outcomes, tally) = self.try_commit(writes).map_err(|fault| match fault {
            Fault::Refused(error) => error,
            Fault::Broken(error) => self.failed(error),
        })?;
        self.counters.add(tally);
        Ok(outcomes)
    }

    fn try_commit(&self, writes: &[&Write]) -> Result<(Vec<Result<u64>>, Tally), Fault> {
        let open = self.open()?;
        self.sync(&open)?;
        let tables = open.tables;
        let adds = writes.iter().any(|write| write.growth() > 0);
        let mut may_wait = true;
        let (txn, usage) = loop {
            let mut txn = open.env.write_txn()?;
            let trees = Trees::read(tables, &txn)?;
            let usage = self.usage_of(&open, &trees);
            if self.admit(tables, &txn, writes, may_wait, &trees, usage)? == Admission::Now {
                break (txn, usage);
            }
            // Changes nothing, but is the other transaction.
            let next = tables.next(&txn)?;
            tables.set_next(&mut txn, next)?;
            if let Err(error) = txn.commit() {
                return Err(self.lost(open, error));
            }
            may_wait = false;
        };
        let max_per_user = self.limits.max_sessions_per_user;
        let mut applier = Applier::new(txn, tables, &self.vault, max_per_user, self.clock.now());
        // Not at open, which must be harmless: but what is written under a secret must be found by it.
        let reseals = self.must_reseal.load(Ordering::Relaxed) && writes.iter().any(|write| write.seals());
        if reseals {
            open::reseal(tables.meta, &mut applier.txn, &self.secrets, &self.dir)?;
            applier.changed = true;
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            outcomes.push(match applier.apply(write) {
                Ok(number) => Ok(number),
                Err(Fault::Refused(error)) => Err(error),
                Err(broken) => return Err(broken),
            });
        }
        if adds {
            self.room.check(usage, self.used(&Trees::read(tables, &applier.txn)?))?;
        }
        let tally = match applier.commit() {
            Ok(tally) => tally,
            Err(error) => return Err(self.lost(open, error)),
        };
        if reseals {
            self.must_reseal.store(false, Ordering::Relaxed);
        }
        Ok((outcomes, tally))
    }

    /// What becomes of a transaction that could not be committed.
    fn lost(&self, open: Open, error: heed::Error) -> Fault {
        let reopened = open.reopened;
        drop(open);
        // Where one of these fails, the next call tries again.
        if let Ok(open) = self.reopen(Some(reopened)) {
            let _ = self.sync(&open);
        }
        error.into()
    }

    /// Makes it last that a meta page was taken back: if it came back after a power loss, it would tell of pages that
    /// are used again by then.
    fn sync(&self, open: &Open) -> Result<(), Fault> {
        if self.must_sync.load(Ordering::Relaxed) {
            open.env.try_clone_inner_file()?.sync_data().map_err(heed::Error::Io)?;
            self.must_sync.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether there is room for all of the writes at once.
    fn admit(
        &self,
        tables: Tables,
        txn: &RoTxn<'_>,
        writes: &[&Write],
        may_wait: bool,
        trees: &Trees,
        usage: Usage,
    ) -> Result<Admission, Fault> {
        let growth = writes.iter().map(|write| write.growth() as u64).sum::<u64>();
        let costing = Costing {
            tables,
            txn,
            vault: &self.vault,
            trees,
            page_size: self.page_size,
            free: usage.free / self.page_size,
            evicts: self.limits.max_sessions_per_user.is_some(),
        };
        let need = Need {
            pages: costing.of(writes, !self.room.is_ample(usage, 2 * growth))?,
            next: costing.least(),
            adds: growth > 0,
            is_least: matches!(writes, [write] if write.part(1).is_none()),
            may_wait,
        };
        let last = (txn.id() as u64).saturating_sub(1);
        // Where it cannot be read, there is none.
        let free = |enough| pages::free(&self.data, last, enough).unwrap_or_default();
        Ok(self.room.admit(&self.data, usage, &need, free)?)
    }

    /// How large the file is, and how much of it holds nothing.
    pub(super) fn usage(&self, view: &View) -> heed::Result<Usage> {
        Ok(self.usage_of(&view.open, &Trees::read(view.tables(), view)?))
    }

    fn usage_of(&self, open: &Open, trees: &Trees) -> Usage {
        let file = (open.env.info().last_page_number as u64 + 1) * self.page_size;
        Usage { file, free: file.saturating_sub(self.used(trees)) }
    }

    fn used(&self, trees: &Trees) -> u64 {
        const META_PAGES: u64 = 2;
        (META_PAGES + trees.all_pages()) * self.page_size
    }

    /// The bytes that the sessions and their indexes take.
    pub(super) fn bytes(&self, view: &View) -> heed::Result<u64> {
        Ok(Trees::read(view.tables(), view)?.pages() * self.page_size)
    }

    /// A process that was killed while it read leaves its mark behind, and the file grows until that is gone.
    fn clear_stale_readers(&self) {
        let Some(open) = self.open.read().clone() else { return };
        let mut cleared = self.stale_cleared.lock();
        let last_page = open.env.info().last_page_number;
        if cleared.at.elapsed() >= STALE_FOR || last_page > cleared.last_page {
            // Where it fails the file grows, and the next batch tries again.
            let _ = open.env.clear_stale_readers();
            *cleared = Cleared { at: Instant::now(), last_page };
        }
    }

    /// What an error of LMDB's means to a user of the store.
    pub(super) fn failed(&self, error: heed::Error) -> StoreError {
        super::errors::failed(&self.dir.join(DATA), error)
    }
}

/// Decodes the content that `get_with` gives.
pub(super) fn decoded<T>(
    read: impl FnOnce(Expiry, Content<'_>) -> T,
) -> impl FnOnce(Expiry, &[u8]) -> Result<T> {
    |expires, content| codec::decode(content).map(|content| read(expires, content))
}

/// Lends this thread's buffer for opened records.
pub(super) fn with_buffer<T>(call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            let result = call(&mut buffer);
            // One large session should not pin its size for the life of the thread.
            buffer.shrink_to(16 * 1024);
            result
        }
        Err(_) => call(&mut Vec::new()),
    })
}
