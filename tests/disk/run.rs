//! Records the disk of a store in use, and checks the store after a power loss at any moment.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use native_store::clock::{Clock, Millis, MockClock};
use native_store::store::FileStore;
use native_store::store::file::Durability;
use tempfile::TempDir;

use super::child::in_child;
use super::image::{Folder, Image, Syncs};
use super::sessions::{
    self, Lane, Model, Op, Outcome, Reached, START, Setup, Verdict, check_usable, judge, look, outcome,
    perform_together,
};
use super::{DATA_FILE, Disk, Event, Random};

const SEED: u64 = 1;

pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Returns the random numbers of a test, and a guard that lets one test run at a time: a child process must not inherit
/// locks that another test holds.
pub fn start_alone() -> (Random, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = number_from("POWER_LOSS_SEED", SEED);
    println!("power loss seed: {seed}");
    (Random::new(seed), alone)
}

/// A store whose disk is recorded.
pub struct RecordedStore {
    pub dir: TempDir,
    pub setup: Setup,
    /// `None` while the store is closed.
    pub store: Option<Arc<FileStore>>,
    pub clock: Arc<MockClock>,
    pub disk: Arc<Disk>,
}

impl RecordedStore {
    /// Opens a store with these files.
    pub fn open(setup: Setup, first: &Image, now: Millis) -> Self {
        let dir = super::temp_dir();
        first.put(dir.path());
        if !first.data.is_empty() {
            // LMDB creates the lock file before it writes data. A store with a lock file is not new, though its data
            // file may be truncated.
            fs::write(dir.path().join("lock.mdb"), []).unwrap();
        }
        let disk = Arc::new(match setup.log {
            Some(_) => Disk::watch_folder(dir.path()),
            None => Disk::watch(&dir.path().join(super::DATA)),
        });
        let (store, clock) = sessions::open(dir.path(), setup, now).unwrap();
        Self { dir, setup, store: Some(store), clock, disk }
    }

    pub fn store(&self) -> &FileStore {
        self.store.as_ref().unwrap_or_else(|| unreachable!("the store is open"))
    }

    pub fn reopen(&mut self) {
        self.store = None;
        let (store, clock) = sessions::open(self.dir.path(), self.setup, self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }
}

/// The operations on a store, and the events of its disk.
pub struct Run {
    pub name: &'static str,
    pub setup: Setup,
    first: Image,
    log: Vec<Event>,
    /// The number of events that opening the store has caused.
    pub opening: usize,
    pub lanes: Arc<Vec<Lane>>,
    /// The progress of the lanes before the first event.
    before: Vec<Reached>,
    /// The lock file of the open store. After a power loss it is still there.
    lock_file: Vec<u8>,
}

/// Counts of the events of a log.
#[derive(Debug, Default)]
pub struct LogUse {
    pub writes: usize,
    pub syncs: usize,
    /// Writes at a lower offset than the write before: after the end of the ring, and at the start of a log.
    pub wraps: usize,
    /// Changes of file names in the folder.
    pub names: usize,
    /// Commits of the data file.
    pub commits: usize,
}

/// A moment of a run.
#[derive(Clone)]
pub struct Moment {
    pub cut: usize,
    pub reached: Vec<Reached>,
    pub now: Millis,
}

impl Run {
    /// Records `work` on a store with these files.
    pub fn record(
        name: &'static str,
        setup: Setup,
        first: Image,
        now: Millis,
        work: impl FnOnce(&mut RecordedStore) -> Vec<Lane>,
    ) -> Self {
        let mut recorded = RecordedStore::open(setup, &first, now);
        let opening = recorded.disk.log_len();
        let lanes = Arc::new(work(&mut recorded));
        let lock_file = fs::read(recorded.dir.path().join("lock.mdb")).unwrap();
        recorded.store = None;
        let before = vec![Reached::default(); lanes.len()];
        let log = recorded.disk.take_log();
        let run = Self { name, setup, first, log, opening, lanes, before, lock_file };
        run.check_log(&Image::of(recorded.dir.path()));
        run
    }

    /// The part of this run that opened the store after a power loss at a moment of `run`.
    pub fn recovery_of(&self, run: &Self, moment: &Moment) -> Self {
        Self {
            name: run.name,
            setup: self.setup,
            first: self.first.clone(),
            log: self.log[..self.opening].to_vec(),
            opening: 0,
            lanes: Arc::clone(&run.lanes),
            before: moment.reached.clone(),
            lock_file: self.lock_file.clone(),
        }
    }

    /// Checks that no write is missing in the events. Otherwise the checks after a power loss would be worthless.
    fn check_log(&self, files: &Image) {
        let mut disk = Folder::new(Syncs::Kept, self.first.clone());
        self.log.iter().for_each(|event| disk.apply(event));
        let all = disk.all();
        assert!(all.data == files.data, "the events lack a write to the data file");
        if self.setup.log.is_some() {
            assert!(all == *files, "the events lack a write to the log");
        }
    }

    pub fn events(&self) -> usize {
        self.log.len()
    }

    /// Counts the events of the log.
    pub fn log_use(&self) -> LogUse {
        let mut seen = LogUse::default();
        let mut last = 0;
        for event in &self.log {
            match event {
                Event::Write { file, at, .. } if *file != DATA_FILE => {
                    seen.writes += 1;
                    seen.wraps += usize::from(*at < last);
                    last = *at;
                }
                Event::Write { durable: true, .. } => seen.commits += 1,
                Event::Sync(file) if *file != DATA_FILE => seen.syncs += 1,
                Event::Named(_) => seen.names += 1,
                _ => {}
            }
        }
        seen
    }

    pub fn moment(&self, cut: usize) -> Moment {
        let is_late = self.setup.log == Some(Durability::EverySec);
        let mut reached = self.before.clone();
        let mut acknowledged: Vec<usize> = reached.iter().map(|reached| reached.acknowledged).collect();
        for event in &self.log[..cut] {
            match *event {
                Event::Started(lane) => reached[lane].started += 1,
                Event::Acknowledged(lane) => {
                    acknowledged[lane] += 1;
                    if !is_late {
                        reached[lane].acknowledged = acknowledged[lane];
                    }
                }
                Event::Sync(file) if file == DATA_FILE => {}
                // Earlier acknowledged operations are in the synced log or in the data file.
                Event::Sync(_) | Event::Settled => {
                    for (reached, &acknowledged) in reached.iter_mut().zip(&acknowledged) {
                        reached.acknowledged = acknowledged;
                    }
                }
                _ => {}
            }
        }
        let times = self.lanes.iter().zip(&reached).map(|(lane, reached)| lane.models[reached.started].0);
        Moment { cut, now: times.max().unwrap_or(START), reached }
    }

    /// Simulates power losses at random moments after an event, and passes each moment and its files to `then`.
    pub fn lose_power(
        &self,
        states: u64,
        from: usize,
        syncs: Syncs,
        random: &mut Random,
        mut then: impl FnMut(&Moment, Image),
    ) {
        let events = (self.log.len() - from) as u64;
        let mut cuts: Vec<usize> = (0..states).map(|_| from + random.below(events + 1) as usize).collect();
        cuts.sort_unstable();
        let mut disk = Folder::new(syncs, self.first.clone());
        let mut at = 0;
        for cut in cuts {
            self.log[at..cut].iter().for_each(|event| disk.apply(event));
            at = cut;
            then(&self.moment(cut), disk.lose_power(self.log.get(cut), random));
        }
    }

    /// Opens a store on the files after a power loss, and judges it.
    pub fn check(&self, moment: &Moment, image: &Image) -> Verdict {
        let dir = super::temp_dir();
        image.put(dir.path());
        fs::write(dir.path().join("lock.mdb"), &self.lock_file).unwrap();
        // A store that uses no log itself must recover a log too.
        let setup = if moment.cut % 4 == 3 { Setup::direct(self.setup.is_encrypted) } else { self.setup };
        in_child(|| {
            let (store, clock) = match sessions::open(dir.path(), setup, moment.now) {
                Ok(opened) => opened,
                Err(error) => return Verdict::unreadable(format!("opening: {error}")),
            };
            let view = match look(&store, self.lanes.len()) {
                Ok(view) => view,
                Err(fault) => return Verdict::unreadable(fault),
            };
            let verdict = judge(&view, &self.lanes, &moment.reached, moment.now);
            match check_usable(&store, &clock, &mut Random::new(1)) {
                Err(fault) if verdict.is_good() => Verdict::unreadable(fault),
                _ => verdict,
            }
        })
    }

    pub fn check_all(&self, states: u64, from: usize, syncs: Syncs, random: &mut Random, sum: &mut Sum) {
        self.lose_power(states, from, syncs, random, |moment, image| {
            sum.add(self, moment, self.check(moment, &image));
        });
    }
}

/// The sums of all verdicts.
#[derive(Default)]
pub struct Sum {
    pub states: usize,
    pub bad: usize,
    pub checked: usize,
    pub lost: usize,
    pub revived: usize,
    pub unreadable: usize,
    pub notes: Vec<String>,
}

impl Sum {
    pub fn add(&mut self, run: &Run, moment: &Moment, verdict: Verdict) {
        self.states += 1;
        self.checked += moment.reached.iter().map(|reached| reached.acknowledged).sum::<usize>();
        self.lost += verdict.lost;
        self.revived += verdict.revived;
        self.unreadable += verdict.unreadable;
        if !verdict.is_good() {
            self.bad += 1;
            let note = format!(
                "{} ({:?}), at event {} of {}: {verdict:?}",
                run.name,
                run.setup,
                moment.cut,
                run.events()
            );
            self.notes.push(note);
        }
    }

    /// Prints the sums, even though the test harness captures the output of tests that pass.
    pub fn assert_good(&self) {
        let Self { states, checked, lost, revived, unreadable, .. } = self;
        let line = format!(
            "power loss states: {states}, acknowledged writes checked: {checked}, lost: {lost}, \
             revived: {revived}, unreadable: {unreadable}\n"
        );
        io::stdout().write_all(line.as_bytes()).unwrap();
        assert!(self.bad == 0, "{:#?}", self.notes);
    }
}

/// Performs groups of operations, and each group is one commit. One thread starts them all, so that a seed always gives
/// the same log.
pub fn in_groups(groups: usize, first: Model, random: &mut Random, recorded: &RecordedStore) -> Vec<Lane> {
    let mut lane = Lane::new(first, recorded.clock.now());
    for _ in 0..groups {
        random_ops(&mut lane, random, recorded);
    }
    vec![lane]
}

/// Performs the random operations that can be queued as a group, and the others one by one.
pub fn random_ops(lane: &mut Lane, random: &mut Random, recorded: &RecordedStore) {
    let many = if random.one_in(3) { 1 } else { 1 + random.below(30) };
    let ops: Vec<Op> = (0..many).map(|_| Op::random(0, recorded.clock.now(), random)).collect();
    let (queued, mut others): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(Op::can_be_queued);
    perform_group(&queued, lane, recorded);
    if random.one_in(40) {
        others.push(Op::Clear);
    }
    others.iter().for_each(|op| perform(op, 0, lane, recorded));
    recorded.clock.advance(random.below(4) as Millis);
}

/// Performs operations in one batch.
pub fn perform_group(ops: &[Op], lane: &mut Lane, recorded: &RecordedStore) {
    ops.iter().for_each(|_| recorded.disk.note(Event::Started(0)));
    let expected: Vec<Outcome> = ops.iter().map(|op| lane.apply(op, recorded.clock.now())).collect();
    let disk = Arc::clone(&recorded.disk);
    let results = perform_together(ops, recorded.store(), move |_| disk.note(Event::Acknowledged(0)));
    assert_eq!(results.into_iter().map(outcome).collect::<Vec<_>>(), expected);
}

pub fn perform(op: &Op, at: usize, lane: &mut Lane, recorded: &RecordedStore) {
    recorded.disk.note(Event::Started(at));
    let expected = lane.apply(op, recorded.clock.now());
    assert_eq!(outcome(op.perform(recorded.store())), expected, "{op:?}");
    recorded.disk.note(Event::Acknowledged(at));
}

/// Performs operations on several threads, each with its own sessions, and sometimes a `clear` of all sessions. The
/// seed does not determine which operations share a commit.
pub fn on_threads(rounds: usize, random: &mut Random, recorded: &RecordedStore) -> Vec<Lane> {
    const THREADS: usize = 4;
    const OPS: usize = 12;
    let mut lanes: Vec<Lane> =
        (0..THREADS).map(|_| Lane::new(Model::default(), recorded.clock.now())).collect();
    for _ in 0..rounds {
        std::thread::scope(|scope| {
            for (at, lane) in lanes.iter_mut().enumerate() {
                let mut random = random.split();
                scope.spawn(move || {
                    for _ in 0..OPS {
                        let op = Op::random(at, recorded.clock.now(), &mut random);
                        perform(&op, at, lane, recorded);
                    }
                });
            }
        });
        if random.one_in(4) {
            (0..THREADS).for_each(|at| recorded.disk.note(Event::Started(at)));
            for lane in &mut lanes {
                assert_eq!(lane.apply(&Op::Clear, recorded.clock.now()), Ok(None) as Outcome);
            }
            Op::Clear.perform(recorded.store()).unwrap();
            (0..THREADS).for_each(|at| recorded.disk.note(Event::Acknowledged(at)));
        }
        recorded.clock.advance(random.below(10) as Millis);
    }
    lanes
}

/// Returns the view of a store after a power loss.
pub fn view_of(recorded: &RecordedStore) -> sessions::View {
    look(recorded.store(), 1).unwrap()
}
