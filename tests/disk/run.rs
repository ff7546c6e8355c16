//! A store that is used while its disk is recorded, and what a power loss at any moment of that leaves.

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
    self, Lane, Model, Op, Outcome, Reached, START, Setup, Verdict, judge, look, outcome, perform_together,
    use_up,
};
use super::{DATA_FILE, Disk, Event, Random};

const SEED: u64 = 1;

pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The variety of a test, which runs alone: a child must not inherit locks that another test holds.
pub fn begin() -> (Random, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = number_from("POWER_LOSS_SEED", SEED);
    println!("power loss seed: {seed}");
    (Random::new(seed), alone)
}

/// A store that is used, and whose disk is recorded.
pub struct Used {
    pub dir: TempDir,
    pub setup: Setup,
    /// Away while it is opened again.
    pub store: Option<Arc<FileStore>>,
    pub clock: Arc<MockClock>,
    pub disk: Arc<Disk>,
}

impl Used {
    /// Opens a store whose files are these.
    pub fn open(setup: Setup, first: &Image, now: Millis) -> Self {
        let dir = super::temp_dir();
        first.put(dir.path());
        if !first.data.is_empty() {
            // It is there before anything is written to a data file: one that is cut off is known by it.
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
        self.store.as_ref().unwrap_or_else(|| unreachable!("it is open"))
    }

    pub fn reopen(&mut self) {
        self.store = None;
        let (store, clock) = sessions::open(self.dir.path(), self.setup, self.clock.now()).unwrap();
        (self.store, self.clock) = (Some(store), clock);
    }
}

/// What was done to a store, and what of it came to the disk.
pub struct Run {
    pub name: &'static str,
    pub setup: Setup,
    first: Image,
    log: Vec<Event>,
    /// How many of the events opened the store.
    pub opening: usize,
    pub lanes: Arc<Vec<Lane>>,
    /// How far the lanes had come before the first event.
    before: Vec<Reached>,
    /// As it is while the store is open: nobody tidies it when the power fails.
    lock_file: Vec<u8>,
}

/// How often something happened to a log.
#[derive(Debug, Default)]
pub struct LogUse {
    pub writes: usize,
    pub syncs: usize,
    /// How often a write began before the one before it: at the end of the ring, and at the beginning of a log.
    pub wraps: usize,
    /// Changes of names in the folder.
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
    /// Has a store used, which begins with these files.
    pub fn record(
        name: &'static str,
        setup: Setup,
        first: Image,
        now: Millis,
        work: impl FnOnce(&mut Used) -> Vec<Lane>,
    ) -> Self {
        let mut used = Used::open(setup, &first, now);
        let opening = used.disk.log_len();
        let lanes = Arc::new(work(&mut used));
        let lock_file = fs::read(used.dir.path().join("lock.mdb")).unwrap();
        used.store = None;
        let before = vec![Reached::default(); lanes.len()];
        let log = used.disk.take_log();
        let run = Self { name, setup, first, log, opening, lanes, before, lock_file };
        run.check_log(&Image::of(used.dir.path()));
        run
    }

    /// The part of the run that opened the store, after a power loss at a moment of another run.
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

    /// A write by a call that is not recorded would make all that follows worthless.
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

    /// How the log was used.
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
                Event::Begun(lane) => reached[lane].begun += 1,
                Event::Acknowledged(lane) => {
                    acknowledged[lane] += 1;
                    if !is_late {
                        reached[lane].acknowledged = acknowledged[lane];
                    }
                }
                Event::Sync(file) if file == DATA_FILE => {}
                // What was acknowledged before is in the log that is synced, or in the data file.
                Event::Sync(_) | Event::Settled => {
                    for (reached, &acknowledged) in reached.iter_mut().zip(&acknowledged) {
                        reached.acknowledged = acknowledged;
                    }
                }
                _ => {}
            }
        }
        let times = self.lanes.iter().zip(&reached).map(|(lane, reached)| lane.models[reached.begun].0);
        Moment { cut, now: times.max().unwrap_or(START), reached }
    }

    /// Has the power fail so many times from an event on, and hands out the moments and the files.
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

    /// Opens a store on what a power loss left, and compares.
    pub fn check(&self, moment: &Moment, image: &Image) -> Verdict {
        let dir = super::temp_dir();
        image.put(dir.path());
        fs::write(dir.path().join("lock.mdb"), &self.lock_file).unwrap();
        // A store that is to have no log recovers one, too.
        let setup = if moment.cut % 4 == 3 { Setup::direct(self.setup.sealed) } else { self.setup };
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
            match use_up(&store, &clock, &mut Random::new(1)) {
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

/// What became of stores.
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

    /// Prints it, even where the test harness keeps what a good test prints to itself.
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

/// Operations in groups, each of which is one commit: begun by one thread, so that a seed gives one log.
pub fn in_groups(groups: usize, first: Model, random: &mut Random, used: &Used) -> Vec<Lane> {
    let mut lane = Lane::new(first, used.clock.now());
    for _ in 0..groups {
        some_ops(&mut lane, random, used);
    }
    vec![lane]
}

/// A group of operations, and then the others one by one.
pub fn some_ops(lane: &mut Lane, random: &mut Random, used: &Used) {
    let many = if random.one_in(3) { 1 } else { 1 + random.below(30) };
    let ops: Vec<Op> = (0..many).map(|_| Op::random(0, used.clock.now(), random)).collect();
    let (hot, mut cold): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(Op::is_hot);
    group(&hot, lane, used);
    if random.one_in(40) {
        cold.push(Op::Clear);
    }
    cold.iter().for_each(|op| perform(op, 0, lane, used));
    used.clock.advance(random.below(4) as Millis);
}

/// Does them at once.
pub fn group(ops: &[Op], lane: &mut Lane, used: &Used) {
    ops.iter().for_each(|_| used.disk.note(Event::Begun(0)));
    let expected: Vec<Outcome> = ops.iter().map(|op| lane.apply(op, used.clock.now())).collect();
    let disk = Arc::clone(&used.disk);
    let results = perform_together(ops, used.store(), move |_| disk.note(Event::Acknowledged(0)));
    assert_eq!(results.into_iter().map(outcome).collect::<Vec<_>>(), expected);
}

pub fn perform(op: &Op, at: usize, lane: &mut Lane, used: &Used) {
    used.disk.note(Event::Begun(at));
    let expected = lane.apply(op, used.clock.now());
    assert_eq!(outcome(op.perform(used.store())), expected, "{op:?}");
    used.disk.note(Event::Acknowledged(at));
}

/// Operations of several threads at once, each on sessions of its own, and now and then one on those of all. Which of
/// them share a commit is not in the seed.
pub fn on_threads(rounds: usize, random: &mut Random, used: &Used) -> Vec<Lane> {
    const THREADS: usize = 4;
    const OPS: usize = 12;
    let mut lanes: Vec<Lane> = (0..THREADS).map(|_| Lane::new(Model::default(), used.clock.now())).collect();
    for _ in 0..rounds {
        std::thread::scope(|scope| {
            for (at, lane) in lanes.iter_mut().enumerate() {
                let mut random = random.split();
                scope.spawn(move || {
                    for _ in 0..OPS {
                        let op = Op::random(at, used.clock.now(), &mut random);
                        perform(&op, at, lane, used);
                    }
                });
            }
        });
        if random.one_in(4) {
            (0..THREADS).for_each(|at| used.disk.note(Event::Begun(at)));
            for lane in &mut lanes {
                assert_eq!(lane.apply(&Op::Clear, used.clock.now()), Ok(None) as Outcome);
            }
            Op::Clear.perform(used.store()).unwrap();
            (0..THREADS).for_each(|at| used.disk.note(Event::Acknowledged(at)));
        }
        used.clock.advance(random.below(10) as Millis);
    }
    lanes
}

/// What a store shows after the power was lost.
pub fn view_of(used: &Used) -> sessions::View {
    look(used.store(), 1).unwrap()
}
