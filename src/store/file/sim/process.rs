//! A process that has the store open. It opens and closes the store and runs its threads like `FileStore`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disk::SimFiles;
use super::locks::SimLock;
use super::scheduler::{ProcessId, current};
use super::world::World;
use crate::clock::{Clock, Millis};
use crate::error::{Result, StoreError};
use crate::session::{SessionId, UserKeyBuf};
use crate::store::file::apply::{SWEEP_STEP, Write};
use crate::store::file::due::SweepCursor;
use crate::store::file::encryption::Encryption;
use crate::store::file::environment::Environment;
use crate::store::file::limits::Limits;
use crate::store::file::open::{Access, OpenedStore};
use crate::store::file::options::Durability;
use crate::store::file::record::Record;
use crate::store::file::redo::engine::{Redo, Sizes};
use crate::store::file::redo::join::{join, join_to_read};
use crate::store::file::redo::keeper::Keeper;
use crate::store::file::redo::mode_lock::ModeLock;
use crate::store::file::redo::syncer;
use crate::store::file::verify::{Verification, check_entries};

/// How long a process waits for another one to share the store.
const SHARE_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of writes in a batch.
const BATCH: usize = 16;

pub(super) struct Process {
    pub id: ProcessId,
    pub is_dead: Cell<bool>,
    pub stopped_until: Cell<u64>,
    pub store: RefCell<Option<Rc<Store>>>,
    /// The process writes nothing, like some commands of the CLI.
    is_reader: bool,
}

pub(super) struct Store {
    pub environment: Arc<Environment>,
    pub redo: Redo,
    queue: RefCell<VecDeque<Job>>,
    pub is_closing: Cell<bool>,
    /// The number of threads and clients that use the store.
    users: Cell<usize>,
    writers: Cell<usize>,
    threads: Cell<usize>,
}

struct Job {
    write: Write,
    of: JobKind,
    is_done: Rc<Cell<bool>>,
}

#[derive(Clone, Copy)]
pub(super) enum JobKind {
    Lane(usize, u64),
    Clear,
    Sweep,
}

/// Keeps a store in use until it is dropped.
struct UseGuard(Rc<Store>);

impl UseGuard {
    fn new(store: &Rc<Store>) -> Self {
        store.users.set(store.users.get() + 1);
        Self(Rc::clone(store))
    }
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        self.0.users.set(self.0.users.get() - 1);
    }
}

impl World {
    /// Starts a process, which opens the store.
    pub(super) fn start(self: &Rc<Self>, is_reader: bool) -> Rc<Process> {
        let id = self.processes.borrow().len();
        let process = Rc::new(Process {
            id,
            is_dead: Cell::new(false),
            stopped_until: Cell::new(0),
            store: RefCell::default(),
            is_reader,
        });
        self.processes.borrow_mut().push(Rc::clone(&process));
        let opener = Rc::clone(&process);
        self.spawn(format!("open {id}"), Some(id), move || open(&opener));
        process
    }

    /// A process that has the store open for writing, or also for reading only.
    pub(super) fn any_open(&self, reads: bool) -> Option<Rc<Process>> {
        let processes = self.processes.borrow();
        let open: Vec<_> =
            processes.iter().filter(|process| process.is_open() && (reads || !process.is_reader)).collect();
        let at = if open.is_empty() { return None } else { self.random.borrow_mut().below(open.len()) };
        Some(Rc::clone(open[at]))
    }

    pub(super) fn has_open(&self) -> bool {
        self.processes.borrow().iter().any(|process| process.is_open() && !process.is_reader)
    }

    pub(super) fn alive(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().filter(|process| !process.is_dead.get()).cloned().collect()
    }

    /// Makes a process close the store.
    pub(super) fn close(&self, process: &Rc<Process>) {
        let Some(store) = process.store.borrow().clone().filter(|store| !store.is_closing.replace(true))
        else {
            return;
        };
        let process = Rc::clone(process);
        self.trace(format!("close {}", process.id));
        self.spawn(format!("close {}", process.id), Some(process.id), move || {
            let world = current();
            let waited = Rc::clone(&store);
            world.wait_until(move || waited.queue.borrow().is_empty() && waited.writers.get() == 0);
            store.redo.stop();
            let waited = Rc::clone(&store);
            world.wait_until(move || waited.users.get() == 0);
            store.redo.close();
            world.check_alive();
            world.trace("closed");
            process.is_dead.set(true);
            *process.store.borrow_mut() = None;
            world.locks.lock().release_all(process.id);
        });
    }
}

impl Process {
    fn is_open(&self) -> bool {
        !self.is_dead.get() && self.store.borrow().as_ref().is_some_and(|store| !store.is_closing.get())
    }
}

fn open(process: &Rc<Process>) {
    let world = current();
    match try_open(&world, process.id, process.is_reader) {
        Ok(store) => {
            world.check_alive();
            world.trace(format!("open {}: {:?}", process.id, store.redo.stats()));
            let store = Rc::new(store);
            *process.store.borrow_mut() = Some(Rc::clone(&store));
            let id = process.id;
            let thread = |name: &str, run: fn(&Rc<Store>)| {
                let store = Rc::clone(&store);
                let using = UseGuard::new(&store);
                world.spawn(format!("{name} {id}"), Some(id), move || {
                    let _using = using;
                    run(&store);
                });
            };
            store.writers.set(1);
            thread("writer", write);
            thread("keeper", keep);
            if !process.is_reader {
                thread("sweeper", sweep);
            }
            if world.config.durability == Durability::EverySec {
                // Runs until the log is closed, so it does not use the store.
                world.spawn(format!("syncer {id}"), Some(id), move || sync(&store));
            }
        }
        Err(error) => {
            world.check_alive();
            world.trace(format!("open {}: {error}", process.id));
            let is_expected = match &error {
                StoreError::Locked(_) => process.is_reader || !world.is_calm.get(),
                error if error.is_outcome_unknown() => world.config.has_errors(),
                StoreError::Io(_) | StoreError::Full(_) => {
                    world.config.has_errors() || world.config.read_errors > 0
                }
                _ => false,
            };
            if !is_expected {
                world.fail_here(format!("opening the store: {error}"));
            }
            world.kill(process.id);
        }
    }
}

fn try_open(world: &Rc<World>, id: ProcessId, is_reader: bool) -> Result<Store> {
    let data_file = world.data_file.clone();
    let lock = Arc::new(SimLock { locks: Arc::clone(&world.locks), process: id });
    let read_log = || {
        let txn = data_file.env.read_txn().map_err(|error| StoreError::Io(error.to_string()))?;
        data_file.tables.log(&txn).map_err(|error| StoreError::Io(error.to_string()))
    };
    let needs_log = || Ok(read_log()?.is_some());
    let joined = match is_reader {
        true => join_to_read(&*lock, &data_file.dir, SHARE_TIMEOUT, needs_log)?,
        false => join(&*lock, &data_file.dir, SHARE_TIMEOUT, needs_log)?,
    };
    let log = read_log()?;
    if is_reader && log.is_some() {
        // Another process has to recover the store first.
        lock.release();
        return Err(StoreError::Locked("the store needs its log".into()));
    }
    let limits = Limits {
        max_session_bytes: 1 << 20,
        per_user: world.config.per_user,
        max_lifetime: world.config.max_lifetime,
    };
    let opened = OpenedStore {
        env: data_file.env.clone(),
        tables: data_file.tables,
        encryption: Encryption::Off,
        data: data_file.data.try_clone().map_err(|error| StoreError::Io(error.to_string()))?,
        page_size: data_file.page_size,
        dir: data_file.dir.clone(),
        owner: None,
        access: if is_reader { Access::Read } else { Access::Write },
        mode_lock: Some(lock as Arc<dyn ModeLock>),
        joined,
        log,
    };
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let mut environment = Environment::new(opened, Vec::new(), limits, None, clock);
    environment.simulated_lock = Some(Arc::clone(&world.write_lock));
    let environment = Arc::new(environment);
    let files = SimFiles { disk: Arc::clone(&world.disk), process: id };
    let redo = Redo::new(
        Arc::clone(&environment),
        Box::new(files),
        world.config.durability,
        if is_reader { Sizes::NONE } else { world.config.sizes },
        joined,
    );
    redo.recover_or_share(log.as_ref())?;
    redo.enable_creation_times()?;
    Ok(Store {
        environment,
        redo,
        queue: RefCell::default(),
        is_closing: Cell::new(false),
        users: Cell::new(0),
        writers: Cell::new(0),
        threads: Cell::new(if is_reader { 2 } else { 3 }),
    })
}

fn write(store: &Rc<Store>) {
    let world = current();
    loop {
        let waited = Rc::clone(store);
        world.wait_until(move || {
            !waited.queue.borrow().is_empty()
                || (waited.is_closing.get() && waited.users.get() <= waited.threads.get())
        });
        store.redo.pace();
        world.check_alive();
        let jobs: Vec<Job> = {
            let mut queue = store.queue.borrow_mut();
            let count = queue.len().min(BATCH);
            queue.drain(..count).collect()
        };
        if jobs.is_empty() {
            break;
        }
        let writes: Vec<&Write> = jobs.iter().map(|job| &job.write).collect();
        let outcomes = store.redo.write(&writes);
        world.check_alive();
        if outcomes.len() != jobs.len() {
            world.fail_here(format!("{} outcomes of {} writes", outcomes.len(), jobs.len()));
        }
        let is_logged = store.redo.stats().is_some_and(|log| log.size > 0);
        for (job, outcome) in jobs.iter().zip(outcomes) {
            deliver(&world, job, outcome, is_logged);
        }
    }
    store.writers.set(0);
}

fn deliver(world: &World, job: &Job, outcome: Result<u64>, is_logged: bool) {
    let mut lanes = world.lanes.borrow_mut();
    let may_fail = world.config.has_errors();
    world.trace(match job.of {
        JobKind::Lane(lane, number) => format!("lane {lane} write {number}: {outcome:?}"),
        JobKind::Clear => format!("clear: {outcome:?}"),
        JobKind::Sweep => format!("sweep: {outcome:?}"),
    });
    let is_refusal = |error: &StoreError| matches!(error, StoreError::Io(_) | StoreError::Full(_));
    let judged = match (job.of, &outcome) {
        (JobKind::Lane(lane, number), Ok(changed)) => lanes[lane].end_write(number, Ok(*changed), world),
        (
            JobKind::Lane(lane, number),
            Err(error @ (StoreError::Exists | StoreError::TooManySessions { .. })),
        ) => lanes[lane].end_write(number, Err(error.code()), world),
        (JobKind::Lane(lane, number), Err(error)) if may_fail && error.is_outcome_unknown() => {
            lanes[lane].mark_write_unknown(number, world);
            Ok(())
        }
        (JobKind::Lane(lane, number), Err(error)) if may_fail && is_refusal(error) => {
            lanes[lane].reject_write(number, world)
        }
        (JobKind::Clear, Ok(_)) => {
            world.clearing.set(None);
            lanes.iter_mut().try_for_each(|lane| lane.end_clear(world))
        }
        (JobKind::Clear, Err(error)) if may_fail && error.is_outcome_unknown() => {
            world.clearing.set(None);
            lanes.iter_mut().for_each(|lane| lane.mark_clear_unknown(true, world));
            Ok(())
        }
        (JobKind::Clear, Err(error)) if may_fail && is_refusal(error) => {
            world.clearing.set(None);
            lanes.iter_mut().try_for_each(|lane| lane.reject_clear(world))
        }
        (JobKind::Sweep, Ok(_)) => Ok(()),
        (JobKind::Sweep, Err(error)) if may_fail && (is_refusal(error) || error.is_outcome_unknown()) => {
            Ok(())
        }
        (_, Err(error)) => Err(format!("unexpected: {error}")),
    };
    if let JobKind::Lane(lane, _) = job.of {
        match (&outcome, world.process()) {
            _ if !is_logged => lanes[lane].mark_all_durable(),
            (Ok(_), Some(process)) => world.acknowledge(process),
            _ => {}
        }
    }
    drop(lanes);
    job.is_done.set(true);
    if let Err(problem) = judged {
        world.fail_here(format!("{}: {outcome:?}: {problem}", world.task_name()));
    }
}

fn keep(store: &Rc<Store>) {
    let world = current();
    let mut keeper = Keeper::default();
    while !store.is_closing.get() {
        store.redo.run_due_work(&mut keeper, world.instant());
        let pause = world.random.borrow_mut().between(1_000, 20_000);
        let waited = Rc::clone(store);
        world.sleep_until(pause, move || waited.is_closing.get());
    }
}

fn sync(store: &Store) {
    let world = current();
    loop {
        world.sleep_micros(syncer::INTERVAL.as_micros() as u64);
        store.redo.sync_log();
    }
}

fn sweep(store: &Rc<Store>) {
    let world = current();
    while !store.is_closing.get() {
        let pause = world.random.borrow_mut().between(1_000, 4 * world.config.think_micros + 2_000);
        let waited = Rc::clone(store);
        world.sleep_until(pause, move || waited.is_closing.get());
        if let Err(error) = store.clean(&world) {
            world.expect(&error);
        }
    }
}

impl World {
    /// Reports an error as a violation, unless the disk may fail.
    pub(super) fn expect(&self, error: &StoreError) {
        let is_known = error.is_outcome_unknown() || matches!(error, StoreError::Io(_) | StoreError::Full(_));
        if !(self.config.has_errors() || self.config.read_errors > 0) || !is_known {
            self.fail_here(format!("unexpected: {error}"));
        }
        self.trace(format!("error: {error}"));
    }
}

impl Store {
    /// Queues a write. Sets the cell when it is complete.
    pub(super) fn push(&self, write: Write, of: JobKind) -> Rc<Cell<bool>> {
        let is_done = Rc::new(Cell::new(false));
        self.queue.borrow_mut().push_back(Job { write, of, is_done: Rc::clone(&is_done) });
        is_done
    }

    pub(super) fn using(self: &Rc<Self>) -> impl Drop + use<> {
        UseGuard::new(self)
    }

    /// Like `FileStore::clean`.
    pub(super) fn clean(&self, world: &World) -> Result<()> {
        self.redo.drain_now()?;
        let at = self.environment.clock.now();
        if self.sweep_after(world, SweepCursor::EXPIRIES, at)?
            && let Some(scan) = self.redo.begin_lifetime_scan()?
            && self.sweep_after(world, SweepCursor::SESSIONS, at)?
        {
            self.redo.end_lifetime_scan(scan)?;
        }
        self.redo.enable_creation_times()
    }

    fn sweep_after(&self, world: &World, mut cursor: SweepCursor, at: Millis) -> Result<bool> {
        let mut has_skipped = false;
        while !self.is_closing.get() {
            let next = match self.redo.sweep(&cursor, at) {
                Ok(Some(step)) => {
                    has_skipped |= step.has_skipped;
                    step.next
                }
                Ok(None) | Err(StoreError::Full(_)) => {
                    let (due, next) = self.environment.due(&cursor, at, SWEEP_STEP)?;
                    if due.is_empty() {
                        next
                    } else if self.writers.get() == 0 {
                        break;
                    } else {
                        let is_done = self.push(Write::Sweep { due, now: at }, JobKind::Sweep);
                        world.wait_until(move || is_done.get());
                        // Writes may fail for a long time.
                        if world.config.has_errors() {
                            break;
                        }
                        Some(cursor)
                    }
                }
                Err(error) => return Err(error),
            };
            let Some(next) = next else { return Ok(!has_skipped) };
            cursor = next;
        }
        Ok(false)
    }

    /// Like `FileStore::ids`, with one page.
    pub(super) fn ids(&self) -> Result<Vec<SessionId>> {
        self.redo.drain_now()?;
        let now = self.environment.clock.now();
        let mut ids = Vec::new();
        self.environment.each_row_after(&[], usize::MAX, |key, row| {
            let record = row.and_then(|row| Record::parse(row).ok());
            if record.is_some_and(|record| !record.header.expires.is_past(now)) {
                ids.extend(SessionId::from_packed(key).ok());
            }
            ControlFlow::Continue(())
        })?;
        Ok(ids)
    }

    /// Like `FileStore::find_by_user`. Returns the content and the expiry of each session.
    pub(super) fn by_user<T>(
        &self,
        user: &UserKeyBuf,
        mut see: impl FnMut(&[u8], i64, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let environment = &self.environment;
        let now = environment.clock.now();
        let mut found = Vec::new();
        environment.each_row_of_user(environment.encryption.tag(user.as_key()), |key, row| {
            let record = Record::parse(row)?;
            if !record.header.expires.is_past(now) {
                let seen = see(key, record.header.expires.millis(), record.body);
                found.extend(seen.map(|seen| (record.header.created, seen)));
            }
            Ok(())
        })?;
        found.sort_by_key(|(created, _)| *created);
        Ok(found.into_iter().map(|(_, seen)| seen).collect())
    }

    /// Like `FileStore::size`.
    pub(super) fn size(&self) -> Result<u64> {
        if self.environment.must_scan_to_count()? {
            self.redo.drain_now()?;
        }
        let _base = self.redo.hold_base()?;
        self.environment.live_sessions()
    }

    /// Like `FileStore::backup`. Returns whether the copied file would need a log.
    pub(super) fn backup_needs_log(&self) -> Result<bool> {
        self.redo.without_log(|_paused| {
            let view = self.environment.read()?;
            view.tables().log(&view).map(|log| log.is_some()).map_err(|error| self.environment.failed(error))
        })
    }

    /// Like `FileStore::verify`, without checking LMDB's pages.
    pub(super) fn verify(&self) -> Result<Vec<String>> {
        self.redo.drain_now()?;
        let mut problems: Vec<String> = self.redo.verify()?.into_iter().collect();
        let view = self.environment.read()?;
        let mut seen = Verification::default();
        check_entries(&self.environment, &view, &mut seen, &mut || ())?;
        problems.extend(seen.problems);
        Ok(problems)
    }
}
