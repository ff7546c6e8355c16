//! Processes share a store, and are killed or stopped at any step of the redo log. No acknowledged write is lost, no
//! ended session comes back, and no process waits for long.
//!
//! Built with the feature `crash-points`. `KILL_ROUNDS` sets the number of rounds of random kills, and `KILL_SEED` the
//! seed.

#![cfg(target_os = "linux")]

mod peers;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use native_store::store::FileStore;
use native_store::store::file::{Durability, LogState};
use tempfile::TempDir;

use peers::model::{
    Model, Op, Row, Rows, Verdict, create, decode, delete, delete_by_user, far, row, touch, update,
};
use peers::{DEADLINE, Kind, PATIENCE, Peer, for_all, open_command};

/// The `commandTimeout` of processes whose calls must time out.
const SHORT_TIMEOUT: Duration = Duration::from_millis(300);
/// The maximum time of such a call on a busy machine.
const SHORT_TIMEOUT_MAX: Duration = Duration::from_secs(8);

/// The steps of a write.
const WRITING: [&str; 6] = ["Decided", "BeforeWrite", "AfterWrite", "BeforeSync", "AfterSync", "Entered"];
/// The steps of a drain that removes the log, in order.
const ENDING: [&str; 5] = ["BeforeDrainCommit", "AfterDrainCommit", "Removed", "BeforeLogEnd", "AfterLogEnd"];

#[test]
#[ignore = "runs in the processes that the tests start"]
fn child() {
    peers::child::serve();
}

/// The folder of a store, and the model of its sessions.
struct Scene {
    what: String,
    kind: Kind,
    model: Model,
    in_flight: Vec<Op>,
    _dir: TempDir,
}

impl Scene {
    fn new(what: &str, durability: Durability, is_encrypted: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kind = Kind { path: dir.path().join("sessions"), durability, is_encrypted };
        let what = format!("{what}, {}, encrypted: {is_encrypted}", durability.name());
        Self { what, kind, model: Model::default(), in_flight: Vec::new(), _dir: dir }
    }

    /// Copies a closed store with sessions of ann, bob and cid.
    fn with_base(what: &str, durability: Durability, is_encrypted: bool) -> Self {
        /// A store of each kind, to be copied.
        static BASES: [OnceLock<Scene>; 4] = [const { OnceLock::new() }; 4];
        let kind = 2 * usize::from(durability == Durability::EverySec) + usize::from(is_encrypted);
        let base = BASES[kind].get_or_init(|| Self::make_base(durability, is_encrypted));
        let scene = Self::new(what, durability, is_encrypted);
        copy_store(&base.kind.path, &scene.kind.path);
        Self { model: base.model.clone(), ..scene }
    }

    fn make_base(durability: Durability, is_encrypted: bool) -> Self {
        let mut scene = Self::new("a base", durability, is_encrypted);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        for user in ["ann", "bob", "cid"] {
            for at in 0..4 {
                scene.write(&mut peer, create(&format!("base-{user}-{at}"), user));
            }
        }
        peer.call("close");
        assert_eq!(format_of(&scene.kind.path), 3, "{}: after a clean close", scene.what);
        scene
    }

    /// Performs a write. Returns `false` if the process has died before its answer.
    fn try_write(&mut self, peer: &mut Peer, op: Op) -> bool {
        match peer.try_call(&op.to_string()) {
            Some(Ok(_)) => {
                self.model.apply(&op);
                true
            }
            Some(Err(error)) => panic!("{}: {op}: {error:?}", self.what),
            None => {
                self.in_flight.push(op);
                false
            }
        }
    }

    fn write(&mut self, peer: &mut Peer, op: Op) {
        assert!(self.try_write(peer, op), "{}: the process has died", self.what);
    }

    /// Performs writes of each kind, on sessions in the data file and on sessions that are only in the log. Returns
    /// `false` if the process has died.
    fn write_each_kind(&mut self, peer: &mut Peer) -> bool {
        let ops = [
            create("a", "ann"),
            delete("base-ann-0"),
            update("base-bob-0", "eve", 2),
            touch("base-ann-1", 60),
            update("a", "bob", 2),
            create("b", "cid"),
            delete_by_user("cid"),
            touch("a", 120),
            Op::Touch { id: "base-bob-1".into(), expires: 1 },
            create("base-ann-0", "ann"),
            delete("a"),
        ];
        ops.into_iter().all(|op| self.try_write(peer, op))
    }

    /// Checks the store in this process, and that another process can write to it, close it, and open it again.
    fn check(&mut self) {
        let started = Instant::now();
        let store = FileStore::open(&self.kind.options(PATIENCE)).unwrap();
        assert!(started.elapsed() < DEADLINE, "{}: opening took {:?}", self.what, started.elapsed());
        let in_flight = std::mem::take(&mut self.in_flight);
        self.model.check(&store, &in_flight, &self.what);
        store.close().unwrap();
        let mut peer = Peer::start();
        peer.open(&self.kind);
        self.write(&mut peer, create("afterwards", "ann"));
        assert_eq!(decode(&peer.call("look")), self.model.rows, "{}: another process", self.what);
        peer.call("close");
        assert_eq!(format_of(&self.kind.path), 3, "{}: after a clean close", self.what);
        let store = FileStore::open(&self.kind.options(PATIENCE)).unwrap();
        self.model.check(&store, &[], &self.what);
        store.close().unwrap();
    }

    /// Expects that a process sees all acknowledged writes.
    fn expect_seen_by(&self, peer: &mut Peer) {
        assert_eq!(decode(&peer.call("look")), self.model.rows, "{}", self.what);
        let ann: Rows = self
            .model
            .rows
            .clone()
            .into_iter()
            .filter(|(_, row): &(String, Row)| row.user == "ann")
            .collect();
        assert_eq!(decode(&peer.call("getByUser ann")), ann, "{}", self.what);
    }

    /// Expects that a new process times out with an error that names the process with this PID.
    fn expect_locked_by(&self, pid: u32) {
        let started = Instant::now();
        let mut opener = Peer::start();
        let answer = opener.try_call(&open_command(&self.kind, SHORT_TIMEOUT));
        let Some(Err((code, message))) = answer else {
            panic!("{}: opened while another process is stopped: {answer:?}", self.what)
        };
        assert_eq!(code, "ERR_STORE_LOCKED", "{}: {message}", self.what);
        assert!(message.contains(&format!("process {pid} ")), "{}: {message}", self.what);
        assert!(started.elapsed() < SHORT_TIMEOUT_MAX, "{}: {:?}", self.what, started.elapsed());
    }

    /// Starts a process that opens the store, writes to it, and must see everything.
    fn open_and_use(&mut self, name: &str) -> Peer {
        let mut opener = Peer::start();
        opener.open(&self.kind);
        self.use_with(&mut opener, name);
        opener
    }

    fn use_with(&mut self, peer: &mut Peer, name: &str) {
        self.expect_seen_by(peer);
        self.write(peer, create(name, "ann"));
        self.write(peer, touch(name, 60));
        self.expect_seen_by(peer);
    }
}

/// Copies a store that no process has open.
fn copy_store(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Returns the format version of a store that no process has open.
fn format_of(path: &Path) -> u32 {
    use heed::types::Bytes;
    // A process must not open the same LMDB file twice.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(path.join("data.mdb"), copy.path().join("data.mdb")).unwrap();
    let mut options = heed::EnvOpenOptions::new();
    options.max_dbs(3);
    // SAFETY: nothing else uses the copy.
    let env = unsafe { options.open(copy.path()) }.unwrap();
    let txn = env.read_txn().unwrap();
    let meta: heed::Database<Bytes, Bytes> = env.open_database(&txn, None).unwrap().unwrap();
    u32::from_le_bytes(meta.get(&txn, b"format").unwrap().unwrap().try_into().unwrap())
}

fn kinds() -> [(Durability, bool); 2] {
    [(Durability::Commit, false), (Durability::EverySec, true)]
}

/// A crash point, the occurrence at which the process crashes, and the kind of store.
type Case = (&'static str, usize, Durability, bool);

fn cases(points: &[&'static str], times: std::ops::RangeInclusive<usize>) -> Vec<Case> {
    let mut cases = Vec::new();
    for point in points {
        for time in times.clone() {
            cases.extend(kinds().map(|(durability, is_encrypted)| (*point, time, durability, is_encrypted)));
        }
    }
    cases
}

/// With "everysec" a write does not sync, so it has fewer steps.
fn is_reached_by_a_write(case: &Case) -> bool {
    !(case.2 == Durability::EverySec && case.0.ends_with("Sync"))
}

// Kills at each step.

#[test]
fn a_kill_at_each_step_of_a_write_loses_nothing() {
    let mut all = cases(&WRITING, 1..=11);
    all.retain(is_reached_by_a_write);
    for_all(&all, |&(point, time, durability, is_encrypted)| {
        let mut scene = Scene::with_base(&format!("{point}:{time}"), durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        assert!(!scene.write_each_kind(&mut peer), "{}: not reached", scene.what);
        peer.wait_for_death(&scene.what);
        scene.check();
    });
}

#[test]
fn a_kill_during_the_start_of_a_log_loses_nothing() {
    for_all(&cases(&["LogCreated", "LogBegun"], 1..=1), |&(point, time, durability, is_encrypted)| {
        let mut scene = Scene::with_base(&format!("{point}:{time}"), durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        assert!(!scene.write_each_kind(&mut peer), "{}: not reached", scene.what);
        peer.wait_for_death(&scene.what);
        scene.check();
    });
}

/// The calls that drain the log or remove it.
const DRAINING: [&str; 4] = ["verify", "clean", "backup", "close"];

#[test]
fn a_kill_at_each_step_of_a_drain_loses_nothing() {
    let mut all = Vec::new();
    for command in DRAINING {
        let points = if matches!(command, "backup" | "close") { &ENDING[..] } else { &ENDING[..3] };
        all.extend(cases(points, 1..=1).into_iter().map(|case| (command, case)));
    }
    // With "everysec" a drain syncs the log first.
    for point in ["BeforeSync", "AfterSync"] {
        all.push(("close", (point, 1, Durability::EverySec, false)));
    }
    for_all(&all, |&(command, (point, time, durability, is_encrypted))| {
        let mut scene = Scene::with_base(&format!("{command}: {point}:{time}"), durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        if scene.write_each_kind(&mut peer) {
            let backup = scene.kind.path.with_file_name("backup");
            let command =
                if command == "backup" { format!("backup {}", backup.display()) } else { command.into() };
            assert_eq!(peer.try_call(&command), None, "{}: not reached", scene.what);
        }
        peer.wait_for_death(&scene.what);
        scene.check();
    });
}

#[test]
fn a_kill_at_each_step_of_clear_removes_all_sessions_or_none() {
    for_all(&cases(&["BeforeClear", "AfterClear"], 1..=1), |&(point, time, durability, is_encrypted)| {
        let mut scene = Scene::with_base(&format!("{point}:{time}"), durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        assert!(!scene.try_write(&mut peer, Op::Clear), "{}: not reached", scene.what);
        peer.wait_for_death(&scene.what);
        if point == "AfterClear" {
            scene.model.apply(&Op::Clear);
            scene.in_flight.clear();
        }
        scene.check();
    });
}

/// Locks LMDB's lock file like a process that waits for the store. The next opener then reads the file instead of
/// initializing it.
fn hold_lock_file(path: &Path) -> File {
    let file = File::options().read(true).write(true).open(path.join("lock.mdb")).unwrap();
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence, lock.l_len) =
        (libc::F_RDLCK as libc::c_short, libc::SEEK_SET as libc::c_short, 1);
    // SAFETY: the descriptor is open, and `lock` is initialized.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) }, 0);
    file
}

/// A robust mutex can lose a wakeup if the threads that compete for it are killed. The mutex is then free, and a thread
/// still sleeps.
#[test]
fn a_writer_does_not_sleep_on_a_free_lock() {
    /// The offset of the lock word of the write lock in the lock file on this system.
    const WORD: u64 = 0x40;
    const HELD_BY_NOBODY_THERE: u32 = 0x8000_0000 | 0x3fff_ffff;
    let mut scene = Scene::with_base("a lost wakeup", Durability::Commit, false);
    let [mut peer, mut other] = [Peer::start(), Peer::start()];
    peer.open(&scene.kind);
    other.open(&scene.kind);
    let lock_file = File::options().write(true).open(scene.kind.path.join("lock.mdb")).unwrap();
    let set = |word: u32| lock_file.write_all_at(&word.to_ne_bytes(), WORD).unwrap();
    set(HELD_BY_NOBODY_THERE);
    let op = create("a", "ann");
    let ticket = peer.send_op(&op);
    assert!(peer.answer_within(ticket, Duration::from_secs(1)).is_err(), "the lock does not hold");
    set(0);
    assert_eq!(peer.answer(ticket), Some(Ok("1".into())));
    scene.model.apply(&op);
    scene.use_with(&mut other, "other");
    other.kill();
    peer.kill();
    scene.check();
}

/// LMDB records a commit in its lock file after it has written the meta page. An opener must not rely on that record.
#[test]
fn a_waiting_opener_sees_a_commit_whose_process_is_killed_in_it() {
    let mut all = Vec::new();
    for kind in kinds() {
        // The first commit starts the log, the second drains it, and the third removes it.
        all.extend([
            ("", 1, kind),
            ("verify", 2, kind),
            ("clear", 2, kind),
            ("close", 2, kind),
            ("close", 3, kind),
        ]);
    }
    for_all(&all, |&(command, commit, (durability, is_encrypted))| {
        let what = format!("commit {commit}: {command}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_die_in_commit(commit);
        peer.open(&scene.kind);
        let held = hold_lock_file(&scene.kind.path);
        if scene.write_each_kind(&mut peer) {
            match command {
                "clear" => assert!(!scene.try_write(&mut peer, Op::Clear), "{what}: not reached"),
                _ => assert_eq!(peer.try_call(command), None, "{what}: not reached"),
            }
        }
        peer.wait_for_death(&what);
        let mut next = Peer::start();
        next.open(&scene.kind);
        let found = decode(&next.call("look"));
        let in_flight = std::mem::take(&mut scene.in_flight);
        assert_eq!(scene.model.judge(&found, &in_flight), Verdict::default(), "{what}: {found:#?}");
        scene.use_with(&mut next, "next");
        next.kill();
        drop(held);
        scene.check();
    });
}

#[test]
fn a_later_kill_of_its_process_does_not_undo_a_clear() {
    for (durability, is_encrypted) in kinds() {
        let mut scene = Scene::with_base("clear", durability, is_encrypted);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        scene.write(&mut peer, Op::Clear);
        scene.write(&mut peer, create("new", "ann"));
        peer.kill();
        scene.check();
    }
}

#[test]
fn a_kill_during_the_sharing_with_openers_loses_nothing() {
    let mut all = Vec::new();
    for openers in 1..=3 {
        let points: Vec<_> = ENDING.into_iter().chain(["Shared"]).collect();
        all.extend(cases(&points, 1..=1).into_iter().map(|case| (openers, case)));
    }
    for point in ["BeforeSync", "AfterSync"] {
        all.push((2, (point, 1, Durability::EverySec, false)));
    }
    for_all(&all, |&(openers, (point, time, durability, is_encrypted))| {
        let what = format!("{openers} openers, {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut others: Vec<Peer> = (0..openers).map(|_| Peer::start()).collect();
        let command = open_command(&scene.kind, PATIENCE);
        let tickets: Vec<u32> = others.iter_mut().map(|other| other.send(&command)).collect();
        peer.wait_for_death(&scene.what);
        for (other, ticket) in others.iter_mut().zip(tickets) {
            assert_eq!(other.answer(ticket), Some(Ok(String::new())), "{what}");
        }
        for (at, other) in others.iter_mut().enumerate() {
            scene.use_with(other, &format!("opener-{at}"));
        }
        others.iter_mut().for_each(|other| scene.expect_seen_by(other));
        others.iter_mut().for_each(Peer::kill);
        scene.check();
    });
}

#[test]
fn a_kill_during_the_restart_of_a_log_loses_nothing() {
    let all: Vec<Case> = [("Exclusive", 1), ("LogCreated", 2), ("LogBegun", 2)]
        .iter()
        .flat_map(|&(point, time)| cases(&[point], time..=time))
        .collect();
    for_all(&all, |&(point, time, durability, is_encrypted)| {
        let mut scene = Scene::with_base(&format!("again {point}:{time}"), durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut other = scene.open_and_use("other");
        other.call("close");
        write_until_crash(&mut scene, &mut peer);
        peer.wait_for_death(&scene.what);
        scene.check();
    });
}

/// Writes until a process that has shared the store uses it exclusively again, and dies or stops at that step.
fn write_until_crash(scene: &mut Scene, peer: &mut Peer) {
    let deadline = Instant::now() + DEADLINE;
    for at in 0.. {
        assert!(Instant::now() < deadline, "{}: not reached", scene.what);
        let op = create(&format!("alone-{at}"), "ann");
        let ticket = peer.send_op(&op);
        match answer_or_stop(peer, ticket) {
            Some(answer) => assert!(answer.is_ok(), "{}: {answer:?}", scene.what),
            None => return scene.in_flight.push(op),
        }
        scene.model.apply(&op);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for an answer. `None` if the process has died or stopped instead.
fn answer_or_stop(peer: &mut Peer, ticket: u32) -> Option<peers::Answer> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match peer.answer_within(ticket, Duration::from_millis(20)) {
            Ok(answer) => return answer,
            Err(_) if peer.is_stopped() => return None,
            Err(_) => assert!(Instant::now() < deadline, "process {} has hung", peer.pid()),
        }
    }
}

#[test]
fn a_kill_during_a_recovery_loses_nothing() {
    let points = ["RecoveryRewritten", "BeforeDrainCommit", "AfterDrainCommit", "Removed", "AfterLogEnd"];
    let mut all = Vec::new();
    for openers in 0..=2 {
        all.extend(cases(&points, 1..=1).into_iter().map(|case| (openers, case)));
    }
    for_all(&all, |&(openers, (point, time, durability, is_encrypted))| {
        let what = format!("recovery and {openers} openers, {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut first = Peer::start();
        first.open(&scene.kind);
        assert!(scene.write_each_kind(&mut first));
        first.kill();
        assert_eq!(format_of(&scene.kind.path), 4, "{what}: after a kill");
        let mut recovering = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        let ticket = recovering.send(&open_command(&scene.kind, PATIENCE));
        if point != "RecoveryRewritten" {
            assert_eq!(recovering.answer(ticket), Some(Ok(String::new())), "{what}");
        }
        let mut others: Vec<Peer> = (0..openers).map(|_| Peer::start()).collect();
        let command = open_command(&scene.kind, PATIENCE);
        let tickets: Vec<u32> = others.iter_mut().map(|other| other.send(&command)).collect();
        if openers == 0 && point != "RecoveryRewritten" {
            recovering.send("close");
        }
        // With openers, one of them may recover the log first.
        if openers == 0 {
            recovering.wait_for_death(&what);
        }
        for (other, ticket) in others.iter_mut().zip(tickets) {
            assert_eq!(other.answer(ticket), Some(Ok(String::new())), "{what}");
            scene.expect_seen_by(other);
        }
        others.iter_mut().for_each(Peer::kill);
        recovering.kill();
        scene.check();
    });
}

/// Flips a bit in the batch with this number.
fn damage_log(path: &Path, nth: usize) {
    let mut log = fs::read(path.join("redo.log")).unwrap();
    let mut at = 4096;
    for _ in 0..nth {
        at += u32::from_le_bytes(log[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    assert_eq!(&log[at..at + 4], b"redo");
    log[at + 50] ^= 1;
    fs::write(path.join("redo.log"), log).unwrap();
}

/// Whether any file of a folder has this content.
fn has_file(path: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(path).unwrap().any(|file| fs::read(file.unwrap().path()).unwrap() == bytes)
}

#[test]
fn a_kill_during_the_discard_of_a_damaged_log_discards_all_of_it_or_nothing() {
    const COMMITS: &str = "the commit itself";
    let points = ["LogSetAside", "BeforeLogDiscard", "AfterLogDiscard", COMMITS];
    let mut all = Vec::new();
    for damaged in [0, 4, 9] {
        all.extend(cases(&points, 1..=1).into_iter().map(|case| (damaged, case)));
    }
    for_all(&all, |&(damaged, (point, time, durability, is_encrypted))| {
        let what = format!("discard, damage in batch {damaged}, {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let path = scene.kind.path.clone();
        let mut first = Peer::start();
        first.open(&scene.kind);
        assert!(scene.write_each_kind(&mut first));
        first.kill();
        damage_log(&path, damaged);
        let mut log = fs::read(path.join("redo.log")).unwrap();
        if durability == Durability::EverySec {
            // With "everysec" nothing proves that the batch was on disk. Damage to the first page is always detected.
            log[20] ^= 1;
            fs::write(path.join("redo.log"), &log).unwrap();
        }

        // The expected sessions are those of a copy whose log is discarded without a kill.
        let twin = Kind { path: path.with_file_name("twin"), ..scene.kind.clone() };
        copy_store(&path, &twin.path);
        assert_eq!(Peer::start().call(&format!("discardLog {}", twin.path.display())), "");
        let store = FileStore::open(&twin.options(PATIENCE)).unwrap();
        let expected = peers::model::look(&store);
        store.close().unwrap();

        let mut killed = match point {
            COMMITS => Peer::start_to_die_in_commit(1),
            _ => Peer::start_to_crash(&format!("{point}:{time}:kill")),
        };
        let command = format!("discardLog {}", path.display());
        assert_eq!(killed.try_call(&command), None, "{what}: not reached");
        killed.wait_for_death(&what);
        assert!(has_file(&path, &log), "{what}");
        let is_done = matches!(point, "AfterLogDiscard" | COMMITS);
        if is_done {
            assert_eq!(FileStore::inspect_log(&path, false), Ok(LogState::NotNeeded), "{what}");
        } else {
            let error = FileStore::open(&scene.kind.options(PATIENCE)).err().unwrap();
            assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{what}: {error}");
            assert_eq!(Peer::start().call(&command), "", "{what}");
        }
        scene.model.rows = expected;
        scene.check();
        assert!(has_file(&path, &log), "{what}");
    });
}

#[test]
fn a_kill_during_the_growth_of_a_log_loses_nothing() {
    let mut all: Vec<Case> = cases(&ENDING, 1..=1);
    all.extend(cases(&["LogCreated", "LogBegun"], 2..=2));
    // The store is not encrypted: that would take seconds in a debug build.
    for_all(&all, |&(point, time, durability, _)| {
        let mut scene = Scene::with_base(&format!("growth: {point}:{time}"), durability, false);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:kill"));
        peer.open(&scene.kind);
        let mut ops = HashMap::new();
        // These writes fill more than half of the first log.
        for at in 0..600 {
            let user = format!("user-{}", at % 20);
            let op = Op::Create { id: format!("large-{at}"), row: row(&user, 1), pad: 6000 };
            ops.insert(peer.send_op(&op), op);
        }
        let mut answered = 0;
        while let Some((ticket, answer)) = peer.next_answer() {
            assert!(answer.is_ok(), "{}: {answer:?}", scene.what);
            scene.model.apply(&ops.remove(&ticket).unwrap());
            answered += 1;
            if answered == 600 {
                break;
            }
        }
        peer.wait_for_death(&scene.what);
        scene.in_flight.extend(ops.into_values());
        scene.check();
    });
}

#[test]
fn a_killed_opener_does_not_block_other_processes() {
    for (durability, is_encrypted) in kinds() {
        let mut scene = Scene::with_base("Requested", durability, is_encrypted);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut opener = Peer::start_to_crash("Requested:1:kill");
        opener.send(&open_command(&scene.kind, PATIENCE));
        opener.wait_for_death(&scene.what);
        scene.use_with(&mut peer, "later");
        let mut other = scene.open_and_use("other");
        scene.use_with(&mut peer, "last");
        other.kill();
        peer.kill();
        scene.check();
    }
}

// Stops at each step.

#[test]
fn a_process_stopped_at_any_step_of_a_write_blocks_others_until_it_continues() {
    let mut all = cases(&WRITING, 2..=3);
    all.extend(cases(&["LogCreated", "LogBegun"], 1..=1));
    all.retain(is_reached_by_a_write);
    for_all(&all, |&(point, time, durability, is_encrypted)| {
        let what = format!("stop at {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:stop"));
        peer.open(&scene.kind);
        let ops = [create("a", "ann"), delete("base-ann-0"), update("base-bob-0", "eve", 2)];
        let mut ops = ops.into_iter();
        // Each operation is a batch.
        let (op, ticket) = loop {
            let op = ops.next().unwrap_or_else(|| panic!("{what}: not reached"));
            let ticket = peer.send_op(&op);
            match answer_or_stop(&mut peer, ticket) {
                Some(answer) => assert!(answer.is_ok(), "{what}: {answer:?}"),
                None => break (op, ticket),
            }
            scene.model.apply(&op);
        };
        peer.wait_for_stop(&what);
        scene.expect_locked_by(peer.pid());
        // A waiting process can open the store as soon as the stopped process continues.
        let mut waiting = Peer::start();
        let open = waiting.send(&open_command(&scene.kind, PATIENCE));
        thread::sleep(Duration::from_millis(50));
        peer.signal(libc::SIGCONT);
        let answer = peer.answer(ticket);
        assert!(matches!(answer, Some(Ok(_))), "{what}: {answer:?}");
        scene.model.apply(&op);
        assert_eq!(waiting.answer(open), Some(Ok(String::new())), "{what}");
        scene.use_with(&mut waiting, "waiting");
        scene.use_with(&mut peer, "stopped");
        scene.expect_seen_by(&mut waiting);
        waiting.call("close");
        peer.call("close");
        scene.check();
    });
}

#[test]
fn a_process_stopped_at_any_step_of_maintenance_blocks_others_until_it_continues() {
    let mut all = Vec::new();
    for command in ["verify", "clean", "clear", "close"] {
        let points = match command {
            "close" => &ENDING[..],
            "clear" => &["BeforeClear", "AfterClear"],
            _ => &ENDING[..3],
        };
        all.extend(cases(points, 1..=1).into_iter().map(|case| (command, case)));
    }
    for_all(&all, |&(command, (point, time, durability, is_encrypted))| {
        let what = format!("{command}: stop at {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:stop"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let ticket = peer.send(command);
        peer.wait_for_stop(&what);
        scene.expect_locked_by(peer.pid());
        peer.signal(libc::SIGCONT);
        let answer = peer.answer(ticket);
        assert!(matches!(answer, Some(Ok(_))), "{what}: {answer:?}");
        if command == "clear" {
            scene.model.apply(&Op::Clear);
        }
        let mut other = scene.open_and_use("other");
        if command != "close" {
            scene.use_with(&mut peer, "stopped");
            scene.expect_seen_by(&mut other);
        }
        other.kill();
        peer.kill();
        scene.check();
    });
}

#[test]
fn a_process_stopped_at_any_step_of_sharing_blocks_the_opener_until_it_continues() {
    let points: Vec<_> = ENDING.into_iter().chain(["Shared"]).collect();
    for_all(&cases(&points, 1..=1), |&(point, time, durability, is_encrypted)| {
        let what = format!("sharing: stop at {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:stop"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut waiting = Peer::start();
        let open = waiting.send(&open_command(&scene.kind, PATIENCE));
        peer.wait_for_stop(&what);
        if point == "Shared" {
            assert_eq!(waiting.answer(open), Some(Ok(String::new())), "{what}");
            scene.use_with(&mut waiting, "beside-the-stopped-one");
        } else {
            scene.expect_locked_by(peer.pid());
        }
        peer.signal(libc::SIGCONT);
        if point != "Shared" {
            assert_eq!(waiting.answer(open), Some(Ok(String::new())), "{what}");
        }
        scene.use_with(&mut waiting, "waiting");
        scene.use_with(&mut peer, "stopped");
        scene.expect_seen_by(&mut waiting);
        waiting.kill();
        peer.kill();
        scene.check();
    });
}

#[test]
fn a_process_stopped_during_the_restart_of_a_log_blocks_others_until_it_continues() {
    let all: Vec<Case> = [("Exclusive", 1), ("LogCreated", 2), ("LogBegun", 2)]
        .iter()
        .flat_map(|&(point, time)| cases(&[point], time..=time))
        .collect();
    for_all(&all, |&(point, time, durability, is_encrypted)| {
        let what = format!("again: stop at {point}:{time}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start_to_crash(&format!("{point}:{time}:stop"));
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut other = scene.open_and_use("other");
        other.call("close");
        write_until_crash(&mut scene, &mut peer);
        peer.wait_for_stop(&what);
        scene.expect_locked_by(peer.pid());
        peer.signal(libc::SIGCONT);
        let op = scene.in_flight.pop().unwrap();
        // The answer to that operation is one of the next answers.
        let deadline = Instant::now() + DEADLINE;
        while peer.take_answers().is_empty() {
            assert!(Instant::now() < deadline, "{what}: hangs");
            thread::sleep(Duration::from_millis(1));
        }
        scene.model.apply(&op);
        let mut other = scene.open_and_use("another");
        scene.use_with(&mut peer, "stopped");
        other.kill();
        peer.kill();
        scene.check();
    });
}

#[test]
fn a_process_stopped_during_a_recovery_blocks_others_until_it_continues() {
    for (durability, is_encrypted) in kinds() {
        let mut scene = Scene::with_base("stop at RecoveryRewritten", durability, is_encrypted);
        let mut first = Peer::start();
        first.open(&scene.kind);
        assert!(scene.write_each_kind(&mut first));
        first.kill();
        let mut recovering = Peer::start_to_crash("RecoveryRewritten:1:stop");
        let ticket = recovering.send(&open_command(&scene.kind, PATIENCE));
        recovering.wait_for_stop(&scene.what);
        scene.expect_locked_by(recovering.pid());
        recovering.signal(libc::SIGCONT);
        assert_eq!(recovering.answer(ticket), Some(Ok(String::new())));
        let mut other = scene.open_and_use("other");
        scene.use_with(&mut recovering, "recovered");
        other.kill();
        recovering.kill();
        scene.check();
    }
}

#[test]
fn a_stopped_opener_does_not_block_other_processes() {
    for (durability, is_encrypted) in kinds() {
        let mut scene = Scene::with_base("stop at Requested", durability, is_encrypted);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        let mut opener = Peer::start_to_crash("Requested:1:stop");
        let ticket = opener.send(&open_command(&scene.kind, PATIENCE));
        opener.wait_for_stop(&scene.what);
        scene.use_with(&mut peer, "later");
        let mut other = scene.open_and_use("other");
        other.call("close");
        scene.use_with(&mut peer, "last");
        opener.signal(libc::SIGCONT);
        assert_eq!(opener.answer(ticket), Some(Ok(String::new())));
        scene.use_with(&mut opener, "opener");
        opener.kill();
        peer.kill();
        scene.check();
    }
}

// Several concurrent openers.

/// No process may use the data file while the log has acknowledged writes.
#[test]
fn openers_that_wait_for_a_killed_process_see_all_of_its_log() {
    let mut all = Vec::new();
    for openers in 2..=3 {
        for round in 0..6 {
            all.extend(kinds().map(|kind| (openers, round, kind)));
        }
    }
    for_all(&all, |&(openers, round, (durability, is_encrypted))| {
        let what = format!("{openers} openers, round {round}");
        let mut scene = Scene::with_base(&what, durability, is_encrypted);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        assert!(scene.write_each_kind(&mut peer));
        // A stopped process cannot share the store, so all openers wait.
        peer.signal(libc::SIGSTOP);
        peer.wait_for_stop(&what);
        let mut others: Vec<Peer> = (0..openers).map(|_| Peer::start()).collect();
        let command = open_command(&scene.kind, PATIENCE);
        let tickets: Vec<u32> = others.iter_mut().map(|other| other.send(&command)).collect();
        thread::sleep(Duration::from_millis(20 + 10 * round));
        peer.kill();
        for (other, ticket) in others.iter_mut().zip(tickets) {
            assert_eq!(other.answer(ticket), Some(Ok(String::new())), "{what}");
            scene.expect_seen_by(other);
            // The deletion of this session is only in the log.
            assert_eq!(other.call(&touch("base-cid-0", 9).to_string()), "0", "{what}");
        }
        for (at, other) in others.iter_mut().enumerate() {
            scene.use_with(other, &format!("opener-{at}"));
        }
        others.iter_mut().for_each(|other| scene.expect_seen_by(other));
        others.iter_mut().for_each(Peer::kill);
        scene.check();
    });
}

/// A store with a log so large that a close leaves it to the next process. No process has the store open.
struct FilledStore {
    dir: TempDir,
    model: Model,
}

/// Creates at least this many sessions, until the log has the minimum size and use in bytes. Then kills the process.
fn fill(durability: Durability, sessions: usize, pad: usize, min_size: u64, min_used: u64) -> FilledStore {
    let dir = tempfile::tempdir().unwrap();
    let kind = Kind { path: dir.path().join("sessions"), durability, is_encrypted: false };
    let mut model = Model::default();
    let mut peer = Peer::start();
    peer.open(&kind);
    let deadline = Instant::now() + 4 * DEADLINE;
    let mut made = 0;
    loop {
        let ops: Vec<Op> = (0..1000)
            .map(|at| {
                let at = made + at;
                Op::Create { id: format!("{at}"), row: row(&format!("user-{}", at % 100), 1), pad }
            })
            .collect();
        made += ops.len();
        let tickets: Vec<u32> = ops.iter().map(|op| peer.send_op(op)).collect();
        for (op, ticket) in ops.iter().zip(tickets) {
            let answer = peer.answer(ticket);
            assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
            model.apply(op);
        }
        let log = peer.call("log");
        let [used, size] = [1, 2].map(|at| log.split(' ').nth(at).unwrap().parse::<u64>().unwrap());
        if made >= sessions && size >= min_size && used >= min_used {
            break;
        }
        assert!(Instant::now() < deadline, "the log does not fill: {log}");
    }
    peer.kill();
    FilledStore { dir, model }
}

impl FilledStore {
    fn copy(&self, what: &str, durability: Durability) -> Scene {
        let scene = Scene::new(what, durability, false);
        copy_store(&self.dir.path().join("sessions"), &scene.kind.path);
        Scene { model: self.model.clone(), ..scene }
    }
}

#[test]
fn openers_that_wait_for_the_close_of_a_store_with_a_large_log_see_all_of_it() {
    const MIB: u64 = 1 << 20;
    let full = fill(Durability::Commit, 10_000, 3000, 16 * MIB, 5 * MIB);
    for round in 0..4 {
        let what = format!("a large log, round {round}");
        let mut scene = full.copy(&what, Durability::Commit);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        scene.write(&mut peer, delete("0"));
        scene.write(&mut peer, touch("1", 60));
        let log = peer.call("log");
        let mut others: Vec<Peer> = (0..2 + round % 2).map(|_| Peer::start()).collect();
        let command = open_command(&scene.kind, PATIENCE);
        // The openers arrive at different moments of the close.
        let close = peer.send("close");
        thread::sleep(Duration::from_millis(3 * round));
        let tickets: Vec<u32> = others.iter_mut().map(|other| other.send(&command)).collect();
        assert_eq!(peer.answer(close), Some(Ok(String::new())), "{what}");
        for (other, ticket) in others.iter_mut().zip(tickets) {
            assert_eq!(other.answer(ticket), Some(Ok(String::new())), "{what}, {log}");
            assert_eq!(other.call(&touch("0", 9).to_string()), "0", "{what}");
            assert_eq!(other.call("size"), scene.model.rows.len().to_string(), "{what}");
        }
        assert_eq!(decode(&others[0].call("look")), scene.model.rows, "{what}");
        others.iter_mut().for_each(Peer::kill);
        if round == 3 {
            scene.check();
        }
    }
}

#[test]
fn a_kill_between_the_transactions_of_a_drain_loses_nothing() {
    // The drain takes two transactions, because one has at most 32 768 sessions.
    let full = fill(Durability::Commit, 36_000, 0, 0, 5 << 19);
    for point in &ENDING[..3] {
        let mut scene = full.copy(&format!("a range of a drain: {point}"), Durability::Commit);
        let mut peer = Peer::start_to_crash(&format!("{point}:1:kill"));
        peer.open(&scene.kind);
        scene.write(&mut peer, delete("0"));
        scene.write(&mut peer, delete("35999"));
        scene.write(&mut peer, update("18000", "ann", 2));
        assert_eq!(peer.try_call("verify"), None, "{}: not reached", scene.what);
        peer.wait_for_death(&scene.what);
        scene.check();
    }
}

#[test]
fn concurrent_openers_of_a_new_store_share_it() {
    for round in 0..8 {
        let mut scene = Scene::new(&format!("new, round {round}"), Durability::Commit, round % 2 == 1);
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::start()).collect();
        let command = open_command(&scene.kind, PATIENCE);
        let tickets: Vec<u32> = peers.iter_mut().map(|peer| peer.send(&command)).collect();
        for (peer, ticket) in peers.iter_mut().zip(tickets) {
            assert_eq!(peer.answer(ticket), Some(Ok(String::new())), "{}", scene.what);
        }
        for (at, peer) in peers.iter_mut().enumerate() {
            scene.use_with(peer, &format!("of-{at}"));
        }
        peers.iter_mut().for_each(|peer| scene.expect_seen_by(peer));
        peers.iter_mut().for_each(Peer::kill);
        scene.check();
    }
}

// A process of a version without logs.

/// Locks the byte of a PID in `owners.lock` like such a process, and no other byte.
fn mark_as_old_version(path: &Path) -> File {
    /// Larger than any PID.
    const PID: i64 = 1 << 29;
    let file = File::options().read(true).write(true).open(path.join("owners.lock")).unwrap();
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (PID as libc::off_t, 1);
    // SAFETY: the descriptor is open, and `lock` is initialized.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
    file
}

fn log_size(peer: &mut Peer) -> u64 {
    peer.call("log").split(' ').nth(2).unwrap().parse().unwrap()
}

#[test]
fn no_log_is_used_while_a_process_of_an_old_version_has_the_store_open() {
    let mut scene = Scene::with_base("an old version", Durability::Commit, false);
    let mark = mark_as_old_version(&scene.kind.path);
    let mut peer = Peer::start();
    peer.open(&scene.kind);
    assert!(scene.write_each_kind(&mut peer));
    assert_eq!(log_size(&mut peer), 0);
    peer.kill();
    assert_eq!(format_of(&scene.kind.path), 3, "no log was started");
    peer = Peer::start();
    peer.open(&scene.kind);
    scene.use_with(&mut peer, "again");
    assert_eq!(log_size(&mut peer), 0);
    drop(mark);
    let deadline = Instant::now() + DEADLINE;
    for at in 0.. {
        scene.write(&mut peer, create(&format!("alone-{at}"), "bob"));
        if log_size(&mut peer) > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "no log starts after the old version has exited");
        thread::sleep(Duration::from_millis(50));
    }
    peer.kill();
    assert_eq!(format_of(&scene.kind.path), 4, "a version without logs must not open it");
    scene.check();
}

/// An old process that has read the format version before the log was started may still use the data file. So the
/// process that recovers the log must also remove it.
#[test]
fn a_recovered_log_is_removed_if_an_old_version_had_the_store_open_at_its_start() {
    for (durability, is_encrypted) in kinds() {
        let mut scene = Scene::with_base("an old version, LogBegun", durability, is_encrypted);
        let mark = mark_as_old_version(&scene.kind.path);
        let mut peer = Peer::start_to_crash("LogBegun:1:kill");
        peer.open(&scene.kind);
        assert!(!scene.try_write(&mut peer, create("a", "ann")));
        peer.wait_for_death(&scene.what);
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        let store_rows = decode(&peer.call("look"));
        assert_eq!(scene.model.judge(&store_rows, &std::mem::take(&mut scene.in_flight)), Verdict::default());
        scene.use_with(&mut peer, "b");
        assert_eq!(log_size(&mut peer), 0, "a log is used while an old version has the store open");
        peer.kill();
        assert_eq!(format_of(&scene.kind.path), 3);
        drop(mark);
        scene.check();
    }
}

// Processes that start and exit at random.

/// A small random number generator. A seed always gives the same numbers.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn millis(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}

/// The state that the workers of a round share.
struct Shared {
    model: Model,
    /// The sessions and users of the calls in flight.
    busy: HashSet<String>,
    in_flight: Vec<Op>,
    acknowledged: u64,
    /// Failed writes, and reads with an unexpected result.
    faults: Vec<String>,
}

const WORKERS: u64 = 3;
const IDS: u64 = 60;
const USERS: u64 = 12;

/// Returns a random write and its sessions and users. `None` if a call in flight concerns one of them.
fn draw(random: &mut Random, shared: &Shared, worker: u64, version: u64) -> Option<(Op, Vec<String>)> {
    let user = format!("user-{worker}-{}", random.below(USERS));
    let (op, about) = if random.chance(6) {
        let mut about: Vec<String> =
            shared.model.rows.iter().filter(|(_, row)| row.user == user).map(|(id, _)| id.clone()).collect();
        about.push(user.clone());
        (Op::DeleteByUser { user }, about)
    } else {
        let id = format!("id-{worker}-{}", random.below(IDS));
        let old = shared.model.rows.get(&id);
        let pad = if random.chance(5) { random.below(40_000) } else { random.below(600) } as usize;
        let mut about = vec![id.clone()];
        about.extend(old.map(|old| old.user.clone()));
        let new = row(&user, version);
        let op = match random.below(10) {
            0..4 if old.is_some() => Op::Update { id, row: new, pad },
            4..6 => Op::Touch { id, expires: far() + version as i64 },
            6 => Op::Touch { id, expires: 1 },
            7 | 8 if old.is_some() => Op::Delete { id },
            // An update must not bring back an ended session.
            9 if old.is_none() => Op::Update { id, row: new, pad },
            _ if old.is_none() => Op::Create { id, row: new, pad },
            _ => Op::Update { id, row: new, pad },
        };
        if matches!(op, Op::Create { .. } | Op::Update { .. }) {
            about.push(user);
        }
        (op, about)
    };
    (!about.iter().any(|one| shared.busy.contains(one))).then_some((op, about))
}

/// A call in flight of a worker's process.
enum PendingCall {
    Write(Op, Vec<String>),
    /// A read of a session of any worker, and its expected result.
    Get(String, Option<Row>),
}

/// Starts one process after the other. Each uses the store for some time, and is killed or closes it.
fn work(kind: &Kind, shared: &Mutex<Shared>, worker: u64, seed: u64, until: Instant) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let random = &mut Random::new(seed);
    thread::sleep(random.millis(120));
    let mut version = seed;
    loop {
        let mut peer = Peer::start();
        let opening = peer.send(&open_command(kind, PATIENCE));
        let is_early_death = random.chance(15);
        if is_early_death {
            thread::sleep(random.millis(40));
        } else {
            assert_eq!(peer.answer(opening), Some(Ok(String::new())), "a process cannot open the store");
        }
        let end = Instant::now() + random.millis(250);
        let max_pending = 1 + random.below(12) as usize;
        let mut pending: HashMap<u32, PendingCall> = HashMap::new();
        while !is_early_death && Instant::now() < end {
            if pending.len() < max_pending {
                version += 1;
                let mut shared = lock();
                if random.chance(15) {
                    let id = format!("id-{}-{}", random.below(WORKERS), random.below(IDS));
                    if shared.busy.insert(id.clone()) {
                        let expected = shared.model.rows.get(&id).cloned();
                        pending.insert(peer.send(&format!("get {id}")), PendingCall::Get(id, expected));
                    }
                } else if let Some((op, about)) = draw(random, &shared, worker, version) {
                    shared.busy.extend(about.iter().cloned());
                    pending.insert(peer.send_op(&op), PendingCall::Write(op, about));
                }
                if random.chance(1) {
                    peer.send(["clean", "size", "verify"][random.below(3) as usize]);
                }
            }
            let answers = peer.take_answers();
            if answers.is_empty() {
                thread::sleep(Duration::from_micros(200));
            }
            settle(&mut lock(), &mut pending, answers);
        }
        if random.chance(30) && !is_early_death {
            let ticket = peer.send("close");
            let is_awaited = random.chance(70);
            if is_awaited {
                assert_eq!(peer.answer(ticket), Some(Ok(String::new())), "a process cannot close the store");
            } else {
                thread::sleep(random.millis(8));
            }
        }
        peer.kill();
        let answers = peer.take_answers();
        let mut shared = lock();
        settle(&mut shared, &mut pending, answers);
        for (_, one) in pending.drain() {
            match one {
                PendingCall::Get(id, _) => _ = shared.busy.remove(&id),
                // The sessions stay busy until the end of the round, because the outcome is unknown.
                PendingCall::Write(op, _) => shared.in_flight.push(op),
            }
        }
        drop(shared);
        if Instant::now() >= until {
            return;
        }
        thread::sleep(random.millis(60));
    }
}

fn settle(
    shared: &mut Shared,
    pending: &mut HashMap<u32, PendingCall>,
    answers: HashMap<u32, peers::Answer>,
) {
    for (ticket, answer) in answers {
        match pending.remove(&ticket) {
            Some(PendingCall::Write(op, about)) => {
                match answer {
                    Ok(_) => shared.acknowledged += 1,
                    Err(error) => shared.faults.push(format!("{op}: {error:?}")),
                }
                shared.model.apply(&op);
                about.iter().for_each(|one| _ = shared.busy.remove(one));
            }
            Some(PendingCall::Get(id, expected)) => {
                let found = answer.as_deref().map(decode).unwrap_or_default();
                let is_closed = matches!(&answer, Err((code, _)) if code == "ERR_STORE_CLOSED");
                if !is_closed && (answer.is_err() || found.get(&id) != expected.as_ref()) {
                    shared.faults.push(format!("get {id}: {answer:?}, not {expected:?}"));
                }
                shared.busy.remove(&id);
            }
            // A maintenance call, which fails if the store was closed before.
            None => match answer {
                Err((code, _)) if code == "ERR_STORE_CLOSED" => {}
                Err(error) => shared.faults.push(format!("maintenance call: {error:?}")),
                Ok(_) => {}
            },
        }
    }
}

#[test]
fn processes_that_are_killed_at_random_lose_nothing() {
    const ROUNDS: u64 = 60;
    const ROUNDS_OF_A_STORE: u64 = 10;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("KILL_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    // Runs with more rounds than the default are not limited in time.
    let end = Instant::now() + Duration::from_secs(if rounds > ROUNDS { 36_000 } else { 25 });
    println!("seed of the kills: {seed}");
    let (mut done, mut acknowledged, mut scene) = (0, 0, None);
    while done < rounds && Instant::now() < end {
        if done % ROUNDS_OF_A_STORE == 0 {
            let (durability, is_encrypted) = [
                (Durability::Commit, false),
                (Durability::EverySec, false),
                (Durability::Commit, true),
                (Durability::EverySec, true),
            ][(done / ROUNDS_OF_A_STORE % 4) as usize];
            scene = Some(Scene::new("kills", durability, is_encrypted));
        }
        let scene = scene.as_mut().unwrap();
        let round_seed = seed.wrapping_mul(1 << 20).wrapping_add(done);
        acknowledged += kill_round(scene, round_seed, done);
        done += 1;
    }
    println!("kill rounds: {done}, acknowledged writes: {acknowledged}, lost: 0, revived: 0, hung: 0");
    assert!(acknowledged > 10 * done, "the processes hardly wrote");
}

fn kill_round(scene: &mut Scene, seed: u64, round: u64) -> u64 {
    scene.what = format!("round {round}, seed {seed}");
    let mut random = Random::new(seed);
    if random.chance(10) {
        let mut peer = Peer::start();
        peer.open(&scene.kind);
        scene.write(&mut peer, Op::Clear);
        peer.kill();
    }
    let shared = Mutex::new(Shared {
        model: std::mem::take(&mut scene.model),
        busy: HashSet::new(),
        in_flight: Vec::new(),
        acknowledged: 0,
        faults: Vec::new(),
    });
    let until = Instant::now() + random.millis(400);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (kind, shared, seed) = (&scene.kind, &shared, random.below(1 << 40));
            scope.spawn(move || work(kind, shared, worker, seed, until));
        }
    });
    let shared = shared.into_inner().unwrap();
    assert_eq!(shared.faults, [""; 0], "{}", scene.what);
    scene.model = shared.model;
    let store = FileStore::open(&scene.kind.options(PATIENCE)).unwrap();
    scene.model.check(&store, &shared.in_flight, &scene.what);
    store.close().unwrap();
    shared.acknowledged
}
