//! Tests of the near cache: on a server that the test plays, and a model test of two processes on one server.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::fake::Conduct;
use super::*;
use crate::session::Body;
use crate::store::redis::CacheOptions;
use crate::store::redis::counters::Counters;
use crate::store::{Answer, StoredSession};

pub fn with_cache(options: RedisOptions) -> RedisOptions {
    let cache = CacheOptions {
        max_bytes: NonZeroUsize::new(1 << 20).unwrap(),
        max_staleness: Duration::from_secs(60),
    };
    RedisOptions { cache: Some(cache), ..options }
}

fn cached_scene() -> Scene {
    Scene::with(Fake::good(), |options| *options = with_cache(options.clone()))
}

fn message(session_id: &str) -> Vec<u8> {
    let key = format!("sess#{session_id}");
    [b">2\r\n$10\r\ninvalidate\r\n*1\r\n", &bulk(key.as_bytes())[..]].concat()
}

const EMPTIED: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

fn record(session_id: &str, number: usize) -> Vec<u8> {
    let expires = in_an_hour().millis();
    let text = format!(r#"{{"sessionId":"{session_id}","number":{number}}}"#);
    format!(r#"{{"expires":{expires:<18},"created":{:<16},"user":"ann","session":{text}}}"#, 1).into_bytes()
}

fn number_of(found: &StoredSession) -> usize {
    match found.content().unwrap().body {
        Body::Json { text, .. } => number_in(text),
        Body::Plain(_) => panic!("none was written"),
    }
}

impl Scene {
    /// The cached session's number.
    fn cached(&mut self, session_id: &str) -> Option<usize> {
        // The cache must check the socket again for what the test has just sent.
        thread::sleep(Duration::from_micros(10));
        self.harness.cached(&id(session_id)).as_ref().map(number_of)
    }

    /// Starts a `get`, and receives its command.
    fn ask(&mut self, session_id: &str) -> u32 {
        assert_eq!(self.cached(session_id), None);
        let ticket = self.harness.get(&id(session_id));
        assert_eq!(self.receive(1)[0], [&b"GET"[..], format!("sess#{session_id}").as_bytes()]);
        ticket
    }

    /// Loads a session into the cache.
    fn load(&mut self, session_id: &str, number: usize) {
        let ticket = self.ask(session_id);
        self.peer.send(&bulk(&record(session_id, number)));
        assert_eq!(number_of(&self.harness.session(ticket).unwrap().unwrap()), number);
        assert_eq!(self.cached(session_id), Some(number));
    }
}

#[test]
fn a_cached_session_is_returned_until_its_invalidation() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    scene.load("b", 2);
    assert_eq!((scene.cached("a"), scene.cached("b")), (Some(1), Some(2)));
    scene.peer.send(&message("a"));
    assert_eq!((scene.cached("a"), scene.cached("b")), (None, Some(2)));
    scene.load("a", 3);
    scene.peer.send(EMPTIED);
    assert_eq!((scene.cached("a"), scene.cached("b")), (None, None));
    let stats = scene.harness.fast_path.cache_stats().unwrap();
    assert_eq!((stats.hits, stats.misses, stats.invalidations, stats.sessions), (6, 3, 3, 0));
}

#[test]
fn an_absent_session_is_not_cached() {
    let mut scene = cached_scene();
    for _ in 0..2 {
        let ticket = scene.ask("a");
        scene.peer.send(NIL);
        assert_eq!(scene.harness.session(ticket), Ok(None));
    }
}

/// The classic race of a cache: the reply is from before the change, and is read before or after the invalidation.
#[test]
fn a_session_that_changes_during_its_load_is_not_cached() {
    let mut scene = cached_scene();
    let reply = bulk(&record("a", 1));
    for said in [[&reply[..], &message("a")].concat(), [&message("a"), &reply[..]].concat()] {
        let ticket = scene.ask("a");
        scene.peer.send(&said);
        assert!(scene.harness.session(ticket).unwrap().is_some());
        assert_eq!(scene.cached("a"), None);
    }
    let ticket = scene.ask("a");
    scene.peer.send(&[&reply[..], EMPTIED].concat());
    assert!(scene.harness.session(ticket).unwrap().is_some());
    assert_eq!(scene.cached("a"), None);
}

/// A hit reads invalidations ahead of the replies before them.
#[test]
fn a_hit_leaves_the_replies_to_the_next_turn() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let ticket = scene.ask("b");
    scene.peer.send(&[&bulk(&record("b", 2))[..], &message("b"), &message("a")].concat());
    assert_eq!(scene.cached("a"), None);
    // No poll of the socket reports what was read.
    assert!(scene.harness.fast_path.next_deadline().unwrap() <= Instant::now());
    scene.harness.turn();
    assert!(matches!(scene.harness.ended(ticket), Some(Ok(Answer::Session(Some(_))))));
    assert_eq!(scene.cached("b"), None);
}

/// A hit may read more replies than it waits for, and leave them to the next turn.
#[test]
fn invalidations_behind_large_replies_count() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let more = format!(r#""number":2,"more":"{}""#, "x".repeat(600_000));
    let big = String::from_utf8(record("big", 2)).unwrap().replace(r#""number":2"#, &more);
    let tickets = [scene.ask("c"), scene.ask("big")];
    let mut socket = scene.peer.socket.try_clone().unwrap();
    let said = [&bulk(&record("c", 3))[..], &message("c"), &bulk(big.as_bytes()), &message("a")].concat();
    let writer = thread::spawn(move || socket.write_all(&said).unwrap());
    // Until all bytes have arrived, the old session may be returned.
    while scene.cached("a").is_some() {}
    assert_eq!(scene.cached("c"), None);
    for ticket in tickets {
        let _ = scene.harness.end_of(ticket);
    }
    writer.join().unwrap();
    let ticket = scene.ask("d");
    scene.peer.send(NIL);
    assert_eq!(scene.harness.session(ticket), Ok(None));
    assert_eq!((scene.cached("a"), scene.cached("c")), (None, None));
}

/// Replies before the end of a connection still count.
#[test]
fn a_hit_that_finds_the_end_of_the_connection_loses_no_reply() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let ann = ann();
    let updated = scene.harness.update(&session("b", &ann));
    scene.receive(1);
    scene.peer.send(DONE);
    scene.peer.leave();
    thread::sleep(Duration::from_micros(10));
    assert_eq!(scene.harness.cached(&id("a")), None);
    assert_eq!(scene.harness.number(updated), Ok(1));
    assert!(scene.fake.log().is_empty(), "the worker has it done again");
}

#[test]
fn invalidations_may_arrive_in_pieces_and_by_thousands() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let message = message("a");
    for cut in 1..message.len() {
        scene.peer.send(&message[..cut]);
        assert_eq!(scene.cached("a"), Some(1));
        scene.peer.send(&message[cut..]);
        assert_eq!(scene.cached("a"), None);
        scene.load("a", 1);
    }
    let mut socket = scene.peer.socket.try_clone().unwrap();
    let many = message.repeat(20_000);
    let writer = thread::spawn(move || socket.write_all(&many).unwrap());
    let received = |harness: &Harness| harness.fast_path.cache_stats().unwrap().invalidations;
    scene.harness.until(|harness| received(harness) == (message.len() - 1) as u64 + 20_000);
    writer.join().unwrap();
    scene.load("a", 2);
    let open = scene.harness.fast_path.primaries[0].open.as_ref().unwrap();
    assert_eq!(open.socket.unread(), 0);
}

#[test]
fn an_own_change_empties_the_cache_when_it_starts() {
    let mut scene = cached_scene();
    let ann = ann();
    type Change = fn(&mut Harness, &Session<'_>) -> u32;
    let changes: [(Change, &[u8]); 4] = [
        (|harness, session| harness.update(session), DONE),
        (|harness, session| harness.touch(&session.id, session.expires), DONE),
        (|harness, session| harness.delete(&session.id), NIL),
        (|harness, session| harness.create(session), CREATED),
    ];
    for (change, done) in changes {
        scene.load("a", 1);
        // This read is sent before the change, and answered after it has started.
        scene.peer.send(&message("a"));
        let before = scene.ask("a");
        let changed = change(&mut scene.harness, &session("a", &ann));
        scene.receive(1);
        assert_eq!(scene.cached("a"), None);
        let within = scene.ask("a");
        scene.peer.send(&bulk(&record("a", 1)));
        assert!(scene.harness.session(before).unwrap().is_some());
        assert_eq!(scene.cached("a"), None);
        scene.peer.send(&[done, &bulk(&record("a", 2))[..]].concat());
        assert_eq!(scene.harness.number(changed), Ok(1));
        assert!(scene.harness.session(within).unwrap().is_some());
        // From here on the session is tracked again.
        scene.load("a", 2);
        scene.peer.send(&message("a"));
    }
}

#[test]
fn a_change_that_falls_back_empties_the_cache_too() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let changed = scene.harness.delete(&id("a"));
    scene.receive(1);
    scene.peer.send(b"-LOADING Redis is loading the dataset in memory\r\n");
    assert_eq!(scene.harness.number(changed), Ok(1));
    assert_eq!(scene.cached("a"), None);
    let ticket = scene.harness.get(&id("a"));
    assert_eq!(scene.harness.session(ticket), Ok(None));
}

#[test]
fn the_cache_is_emptied_when_its_server_is_lost_or_wrong() {
    let refusals: [&[u8]; 3] =
        [b"-MOVED 1 127.0.0.1:1\r\n", b"-CLUSTERDOWN The cluster is down\r\n", b"-READONLY no\r\n"];
    for refusal in refusals.into_iter().map(Some).chain([None]) {
        let mut scene = cached_scene();
        scene.load("a", 1);
        if let Some(refusal) = refusal {
            let ticket = scene.ask("b");
            scene.peer.send(refusal);
            assert_eq!(scene.harness.session(ticket), Ok(None));
        } else {
            scene.peer.leave();
        }
        thread::sleep(Duration::from_micros(10));
        assert_eq!(scene.harness.cached(&id("a")), None);
        assert_eq!(scene.harness.fast_path.cache_stats().unwrap().sessions, 0);
    }
}

#[test]
fn a_hit_needs_a_recent_proof() {
    let mut scene = cached_scene();
    let age = |scene: &mut Scene, seconds| {
        let open = scene.harness.fast_path.primaries[0].open.as_mut().unwrap();
        open.proof.age(Duration::from_secs(seconds));
    };
    scene.load("a", 1);
    age(&mut scene, 29);
    assert_eq!(scene.cached("a"), Some(1));
    // A single request without a caller renews a proof that is getting old.
    age(&mut scene, 2);
    assert_eq!((scene.cached("a"), scene.cached("a")), (Some(1), Some(1)));
    assert_eq!(scene.receive(1)[0], [&b"GET"[..], b"sess#a"]);
    scene.send(&bulk(&record("a", 1)));
    age(&mut scene, 29);
    assert_eq!((scene.cached("a"), scene.harness.fast_path.is_idle()), (Some(1), true));
    // Without a reply the proof is stale, and invalidations prove nothing.
    age(&mut scene, 32);
    scene.peer.send(&message("b"));
    assert_eq!(scene.cached("a"), None);
    // The session is still cached, and the next reply proves that it is current.
    let ticket = scene.ask("b");
    scene.peer.send(NIL);
    assert_eq!(scene.harness.session(ticket), Ok(None));
    assert_eq!(scene.cached("a"), Some(1));
    // An error proves nothing.
    age(&mut scene, 61);
    let ticket = scene.harness.touch(&id("c"), in_an_hour());
    scene.receive(1);
    scene.peer.send(b"-OOM command not allowed\r\n");
    assert_eq!(scene.harness.number(ticket), Ok(0));
    assert_eq!(scene.cached("a"), None);
}

/// A proof would look younger than it is.
#[test]
fn the_cache_is_emptied_after_a_suspension() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let suspend = |scene: &mut Scene, by| scene.harness.fast_path.cache.as_mut().unwrap().suspend(by);
    suspend(&mut scene, Duration::from_millis(500));
    assert_eq!(scene.cached("a"), None);
    scene.load("a", 2);
    // The reply to an earlier request is not cached.
    let ticket = scene.ask("b");
    suspend(&mut scene, Duration::from_millis(500));
    assert_eq!(scene.cached("a"), None);
    scene.peer.send(&bulk(&record("b", 1)));
    assert!(scene.harness.session(ticket).unwrap().is_some());
    assert_eq!(scene.cached("b"), None);
}

/// `SWAPDB` causes no invalidations.
#[test]
fn the_cache_is_emptied_after_a_minute() {
    let mut scene = cached_scene();
    let age = |scene: &mut Scene, seconds| {
        scene.harness.fast_path.cache.as_mut().unwrap().age(Duration::from_secs(seconds));
    };
    scene.load("a", 1);
    age(&mut scene, 30);
    scene.load("b", 1);
    age(&mut scene, 29);
    assert_eq!((scene.cached("a"), scene.cached("b")), (Some(1), Some(1)));
    age(&mut scene, 2);
    assert_eq!((scene.cached("a"), scene.cached("b")), (None, None));
    scene.load("a", 2);
}

#[test]
fn a_failed_probe_completes_no_call() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    let open = scene.harness.fast_path.primaries[0].open.as_mut().unwrap();
    open.proof.age(Duration::from_secs(31));
    assert_eq!(scene.cached("a"), Some(1));
    scene.receive(1);
    let count = scene.harness.count();
    scene.send(b"-MOVED 1 127.0.0.1:1\r\n");
    assert_eq!((scene.harness.count(), scene.cached("a")), (count, None));
    scene.load("a", 1);
    let open = scene.harness.fast_path.primaries[0].open.as_mut().unwrap();
    open.proof.age(Duration::from_secs(31));
    assert_eq!(scene.cached("a"), Some(1));
    scene.peer.leave();
    scene.harness.until(|harness| harness.socket().is_none());
    assert!(scene.harness.fast_path.is_idle());
    assert_eq!((scene.harness.count(), scene.fake.log()), (count + 1, vec![]));
}

#[test]
fn mass_ends_make_the_cache_stale() {
    let mut scene = cached_scene();
    scene.load("a", 1);
    Counters::add(&scene.store.counters.mass_ends, 1);
    assert_eq!(scene.cached("a"), None);
    // The invalidation arrives before the next reply.
    let ticket = scene.ask("b");
    scene.peer.send(&[&message("a"), NIL].concat());
    assert_eq!(scene.harness.session(ticket), Ok(None));
    assert_eq!(scene.cached("a"), None);
    scene.load("a", 2);
}

#[test]
fn a_server_without_tracking_turns_the_cache_off() {
    let mut scene = cached_scene();
    let open = scene.harness.fast_path.primaries[0].open.as_mut().unwrap();
    open.is_tracked = false;
    scene.harness.fast_path.cache.as_mut().unwrap().opened(Err("no".into()));
    for _ in 0..2 {
        let ticket = scene.ask("a");
        scene.peer.send(&bulk(&record("a", 1)));
        assert!(scene.harness.session(ticket).unwrap().is_some());
    }
    assert_eq!(scene.harness.fast_path.cache_stats().unwrap().off, Some("no".into()));
}

/// Before the first connection, the cache key of a changed session is unknown.
#[test]
fn nothing_is_loaded_during_a_change_that_started_without_a_connection() {
    let gate = Arc::new(Mutex::new(()));
    let shut = Arc::clone(&gate);
    let closed = gate.lock().unwrap();
    let fake = Fake::start(move |_, command: &Command| {
        if command[0] == b"GETDEL" {
            drop(shut.lock());
        }
        Conduct::Do
    });
    let store = open_on(&fake, |options| *options = with_cache(options.clone()));
    let mut harness = Harness::new(Arc::clone(&store));
    harness.takes_supply = false;
    harness.until(|harness| harness.connections == 1);
    let deleted = harness.delete(&id("a"));
    harness.fast_path.submit();
    let peer = Peer::of(&mut harness, 0);
    let mut scene = Scene { harness, peer, fake, store };
    let ticket = scene.ask("b");
    scene.peer.send(&bulk(&record("b", 1)));
    assert!(scene.harness.session(ticket).unwrap().is_some());
    assert_eq!(scene.cached("b"), None);
    drop(closed);
    assert_eq!(scene.harness.number(deleted), Ok(1));
    scene.load("b", 1);
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Create,
    Update,
    Touch,
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Get {
        process: usize,
        session: usize,
    },
    Change {
        process: usize,
        session: usize,
        change: Change,
    },
    Submit(usize),
    /// A process waits for its oldest call.
    Wait(usize),
    /// Another client changes a session, or deletes it.
    Put {
        session: usize,
        is_live: bool,
    },
    Empty,
    /// Moves a half of the slots to another node of a cluster.
    MoveSlots(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change =
        prop_oneof![Just(Change::Create), Just(Change::Update), Just(Change::Touch), Just(Change::Delete)];
    let step = prop_oneof![
        10 => (0..2_usize, 0..3_usize).prop_map(|(process, session)| Step::Get { process, session }),
        4 => (0..2_usize, 0..3_usize, change)
            .prop_map(|(process, session, change)| Step::Change { process, session, change }),
        2 => (0..2_usize).prop_map(Step::Submit),
        8 => (0..2_usize).prop_map(Step::Wait),
        2 => (0..3_usize, any::<bool>()).prop_map(|(session, is_live)| Step::Put { session, is_live }),
        1 => Just(Step::Empty),
        1 => (0..2_usize).prop_map(Step::MoveSlots),
    ];
    proptest::collection::vec(step, 1..80)
}

fn faults() -> impl Strategy<Value = Vec<Conduct>> {
    let fault = prop_oneof![
        30 => Just(Conduct::Do),
        1 => Just(Conduct::Answer(b"-OOM command not allowed\r\n")),
        1 => Just(Conduct::Answer(b"-READONLY You can't write.\r\n")),
        1 => Just(Conduct::End),
        1 => (0..9_usize).prop_map(Conduct::DoAndEnd),
        1 => Just(Conduct::DoAndCorrupt),
    ];
    proptest::collection::vec(fault, 0..60)
}

/// A pending call.
struct StartedCall {
    ticket: u32,
    session: usize,
    /// `None` for a `get`.
    change: Option<Change>,
    number: usize,
    /// The oldest state that it may see.
    floor: usize,
}

/// Two processes on one server. No `get` may find an older state than the last one acknowledged before it started.
struct World<'a> {
    fake: &'a Fake,
    processes: [Harness; 2],
    pending: [VecDeque<StartedCall>; 2],
    /// For each session, the index of the last acknowledged state.
    floors: HashMap<usize, usize>,
    hits: usize,
}

impl World<'_> {
    /// All states of a session so far.
    fn history(&self, session: usize) -> Vec<Option<usize>> {
        let data = self.fake.data.lock().unwrap();
        let key = format!("sess#{session}").into_bytes();
        let Some(history) = data.history.get(&key) else { return vec![None] };
        let number = |value: &Vec<u8>| {
            let value = serde_json::from_slice::<serde_json::Value>(value).unwrap();
            value["session"]["number"].as_u64().unwrap() as usize
        };
        history.iter().map(|value| value.as_ref().map(number)).collect()
    }

    fn floor(&self, session: usize) -> usize {
        self.floors.get(&session).copied().unwrap_or(0)
    }

    /// From now on, no `get` may find an older state than this one.
    fn acknowledged(&mut self, session: usize, state: usize) {
        let floor = self.floors.entry(session).or_default();
        *floor = state.max(*floor);
    }

    /// Checks the result of a `get`. `floor` was the oldest state that it may see.
    fn check(&self, session: usize, found: Option<&StoredSession>, floor: usize, how: &str) {
        let (found, history) = (found.map(number_of), self.history(session));
        let last = history.iter().rposition(|state| *state == found);
        assert!(
            last.is_some_and(|last| last >= floor),
            "{how} of {session} found {found:?}, but from {floor} on it was {history:?}"
        );
    }

    fn wait(&mut self, process: usize) {
        let Some(StartedCall { ticket, session, change, number, floor }) = self.pending[process].pop_front()
        else {
            return;
        };
        let outcome = self.processes[process].end_of(ticket);
        let history = self.history(session);
        match (change, outcome) {
            (None, Ok(Answer::Session(found))) => self.check(session, found.as_ref(), floor, "a get"),
            (None, other) => panic!("{other:?}"),
            (Some(Change::Create | Change::Update), Ok(Answer::Number(1))) => {
                let written = history.iter().position(|state| *state == Some(number)).unwrap();
                self.acknowledged(session, written);
            }
            (Some(Change::Delete), Ok(_)) => {
                let ended = history[floor..].iter().position(Option::is_none).unwrap();
                self.acknowledged(session, floor + ended);
            }
            (Some(_), _) => {}
        }
    }

    fn step(&mut self, number: usize, step: Step) {
        let (ann, expires) = (ann(), in_an_hour());
        match step {
            Step::Get { process, session } => {
                let (session_id, floor) = (id(&session.to_string()), self.floor(session));
                let found = self.processes[process].cached(&session_id);
                if found.is_some() {
                    self.hits += 1;
                    return self.check(session, found.as_ref(), floor, "a hit");
                }
                let ticket = self.processes[process].get(&session_id);
                self.pending[process].push_back(StartedCall { ticket, session, change: None, number, floor });
            }
            Step::Change { process, session, change } => {
                let (session_id, floor) = (session.to_string(), self.floor(session));
                let text = format!(r#"{{"sessionId":"{session}","number":{number}}}"#);
                let new = json(&session_id, Some(&ann), &text, expires);
                let harness = &mut self.processes[process];
                let ticket = match change {
                    Change::Create => harness.create(&new),
                    Change::Update => harness.update(&new),
                    Change::Touch => harness.touch(&new.id, expires),
                    Change::Delete => harness.delete(&new.id),
                };
                let change = Some(change);
                self.pending[process].push_back(StartedCall { ticket, session, change, number, floor });
                assert_eq!(self.processes[process].cached(&new.id), None, "its own change");
            }
            Step::Submit(process) => self.processes[process].fast_path.submit(),
            Step::Wait(process) => self.wait(process),
            Step::Put { session, is_live } => {
                let key = format!("sess#{session}").into_bytes();
                let value = is_live.then(|| record(&session.to_string(), number));
                self.fake.data.lock().unwrap().put(&key, value);
                self.all_acknowledged(session);
            }
            Step::Empty => {
                self.fake.data.lock().unwrap().empty();
                (0..3).for_each(|session| self.all_acknowledged(session));
            }
            Step::MoveSlots(half) => {
                // A single server has no slots to move.
                if self.processes[0].fast_path.primaries.len() > 1 {
                    self.fake.slots.lock().unwrap().move_half(half);
                }
            }
        }
    }

    /// Records that the test itself has made the current state of a session.
    fn all_acknowledged(&mut self, session: usize) {
        // No reply arrives faster.
        thread::sleep(Duration::from_micros(10));
        let last = self.history(session).len() - 1;
        // A pending call may have changed it since.
        let is_quiet =
            self.pending.iter().flatten().all(|call| call.session != session || call.change.is_none());
        if is_quiet {
            self.acknowledged(session, last);
        }
    }
}

fn run(steps: &[Step], faults: Vec<Conduct>, nodes: usize) -> usize {
    let faults = Mutex::new(VecDeque::from(faults));
    let decide = move |is_fast, _: &Command| {
        let fault = if is_fast { faults.lock().unwrap().pop_front() } else { None };
        fault.unwrap_or(Conduct::Do)
    };
    let fake = if nodes > 1 { Fake::start_cluster(nodes, decide) } else { Fake::start(decide) };
    let open = || {
        let change = |options: &mut RedisOptions| *options = with_cache(options.clone());
        Harness::open(if nodes > 1 {
            clusters::open_in_cluster(&fake, change)
        } else {
            open_on(&fake, change)
        })
    };
    let processes = [open(), open()];
    let mut world =
        World { fake: &fake, processes, pending: Default::default(), floors: HashMap::new(), hits: 0 };
    for (number, step) in steps.iter().enumerate() {
        // 0 is the number of no call.
        world.step(number + 1, *step);
    }
    for process in 0..2 {
        while !world.pending[process].is_empty() {
            world.wait(process);
        }
        assert!(world.processes[process].fast_path.cache.as_ref().unwrap().is_idle());
    }
    world.hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_get_returns_an_older_state_than_the_last_acknowledged(steps in steps(), faults in faults()) {
        run(&steps, faults, 1);
    }

    #[test]
    fn no_get_returns_an_older_state_while_slots_move(steps in steps(), faults in faults()) {
        run(&steps, faults, 3);
    }
}

#[test]
fn the_model_has_hits() {
    let get = |process| Step::Get { process, session: 0 };
    let steps = [
        Step::Put { session: 0, is_live: true },
        get(0),
        Step::Wait(0),
        get(0),
        get(0),
        Step::Change { process: 1, session: 0, change: Change::Delete },
        Step::Wait(1),
        get(0),
        Step::Wait(0),
    ];
    assert_eq!(run(&steps, vec![], 1), 2);
}
