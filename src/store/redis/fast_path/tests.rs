//! Tests of the fast path: the contract on a real server, and faults on a server that the test plays.

mod cached;
mod clusters;
mod conditional;
mod fake;
mod harness;
mod model;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{io::Write, thread};

use self::fake::{Command, Commands, Conduct, Fake, answer_to_transaction, bulk, is_create};
use self::harness::{FastPathStore, Harness};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::error::{Result, StoreError};
use crate::session::{Expiry, Session, UserKeyBuf};
use crate::store::conformance::{MAX_LIFETIME, conformance, id, json, plain};
use crate::store::redis::RedisOptions;
use crate::store::redis::connection::RawConnection;
use crate::store::redis::queue::MAX_CALLS;
use crate::store::redis::tests::{open_at, options, options_at, rejecting, secret, tls_options};
use crate::store::{Answer, SessionStore, WhenUserIsFull};

mod unencrypted {
    use super::*;
    conformance!(maybe | clock | Some(FastPathStore::new(open_at(&options()?, &clock))));
}

mod over_tls {
    use super::*;
    conformance!(maybe | clock | Some(FastPathStore::new(open_at(&tls_options()?, &clock))));
}

mod with_a_lifetime {
    use super::*;
    conformance!(
        lifetime maybe | clock | {
            let max_lifetime = Some(MAX_LIFETIME as u64);
            Some(FastPathStore::new(open_at(&RedisOptions { max_lifetime, ..options()? }, &clock)))
        }
    );
}

mod encrypted {
    use super::*;
    conformance!(
        maybe | clock | {
            let secrets = vec![secret(1), secret(2)];
            Some(FastPathStore::new(open_at(&RedisOptions { secrets, ..options()? }, &clock)))
        }
    );
}

mod with_a_cache {
    use super::*;
    conformance!(
        maybe | clock | { Some(FastPathStore::new(open_at(&cached::with_cache(options()?), &clock))) }
    );
}

mod encrypted_with_a_cache {
    use super::*;
    conformance!(
        maybe | clock | {
            let options = RedisOptions { secrets: vec![secret(1), secret(2)], ..options()? };
            Some(FastPathStore::new(open_at(&cached::with_cache(options), &clock)))
        }
    );
}

mod with_distant_limits {
    use super::*;
    conformance!(
        maybe | clock | {
            let max_sessions_per_user = NonZeroUsize::new(1 << 40);
            Some(FastPathStore::new(open_at(&RedisOptions { max_sessions_per_user, ..options()? }, &clock)))
        }
    );
}

mod that_rejects {
    use super::*;
    conformance!(reject maybe | clock | Some(FastPathStore::new(open_at(&rejecting()?, &clock))));
}

fn ann() -> UserKeyBuf {
    UserKeyBuf::from_text("ann")
}

fn in_an_hour() -> Expiry {
    Expiry::new(SystemClock.now() + 3_600_000).unwrap()
}

fn session<'a>(session_id: &str, user: &'a UserKeyBuf) -> Session<'a> {
    plain(session_id, user, in_an_hour())
}

fn open_on(fake: &Fake, change: impl FnOnce(&mut RedisOptions)) -> Arc<RedisStore> {
    let mut options = options_at(fake.port);
    options.prefix = String::new();
    options.max_session_bytes = None;
    change(&mut options);
    RedisStore::open(&options).unwrap()
}

/// A fast path whose server the test plays. The worker has another server.
struct Scene {
    harness: Harness,
    peer: Peer,
    fake: Fake,
    store: Arc<RedisStore>,
}

struct Peer {
    socket: TcpStream,
    commands: Commands,
}

impl Peer {
    /// Accepts the fast path's connection to a node.
    fn of(harness: &mut Harness, node: NodeId) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = RawConnection { socket: Arc::new(socket.into()), tls: None };
        let cipher = harness.fast_path.cipher.clone().unwrap_or(Arc::new(Cipher::Plain));
        let tracking = harness.fast_path.cache.is_some().then_some(Ok(()));
        harness.fast_path.take_supply(Supply::Connection(EventLoopConnection {
            node,
            connection,
            cipher,
            tracking,
        }));
        let (socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, commands: Commands::default() }
    }

    /// Receives the next commands.
    fn receive(&mut self, count: usize) -> Vec<Command> {
        (0..count).map(|_| self.commands.next(&self.socket).unwrap()).collect()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn leave(self) {
        // Closing with unread data would be a reset.
        self.socket.shutdown(Shutdown::Write).unwrap();
    }
}

impl Scene {
    fn new() -> Self {
        Self::with(Fake::good(), |_| {})
    }

    fn with(fake: Fake, change: impl FnOnce(&mut RedisOptions)) -> Self {
        let store = open_on(&fake, change);
        let mut harness = Harness::new(Arc::clone(&store));
        harness.takes_supply = false;
        harness.until(|harness| harness.connections == 1);
        let peer = Peer::of(&mut harness, 0);
        Self { harness, peer, fake, store }
    }

    /// Submits the calls, and receives `count` commands of them.
    fn receive(&mut self, count: usize) -> Vec<Command> {
        self.harness.fast_path.submit();
        self.peer.receive(count)
    }

    /// Sends bytes, and waits until the fast path has handled a reply.
    fn send(&mut self, bytes: &[u8]) {
        self.peer.send(bytes);
        let count = self.harness.answered();
        self.harness.until(|harness| harness.answered() > count);
    }

    /// Stores a session on the worker's server.
    fn put(&self, session: &Session<'_>) {
        self.store.create(session).unwrap();
        self.fake.data.lock().unwrap().log.clear();
    }
}

/// The number in a session's JSON.
fn number_in(text: &str) -> usize {
    serde_json::from_str::<serde_json::Value>(text).unwrap()["number"].as_u64().unwrap() as usize
}

const DONE: &[u8] = b":1\r\n";
const CREATED: &[u8] = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n:0\r\n:1\r\n:1\r\n+OK\r\n";
const NIL: &[u8] = b"$-1\r\n";

#[test]
fn calls_that_go_well_do_not_use_the_worker() {
    for options in [options(), tls_options()].into_iter().flatten() {
        goes_well_without_the_worker(&options);
    }
}

fn goes_well_without_the_worker(options: &RedisOptions) {
    let store = RedisStore::open(options).unwrap();
    let mut harness = Harness::open(store);
    let ann = ann();
    let tickets = [
        harness.create(&session("a", &ann)),
        harness.update(&session("a", &ann)),
        harness.touch(&id("a"), in_an_hour()),
        harness.delete(&id("a")),
    ];
    let found = harness.get(&id("a"));
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(1), Ok(1), Ok(1)]);
    assert_eq!(harness.session(found), Ok(None));
    assert_eq!((harness.answered(), harness.count()), (5, 5));
}

#[test]
fn the_oldest_sessions_of_a_user_end_beyond_the_limit() {
    let Some(options) = options() else { return };
    let store =
        RedisStore::open(&RedisOptions { max_sessions_per_user: NonZeroUsize::new(2), ..options }).unwrap();
    let fast_path = FastPathStore::new(Arc::clone(&store));
    for session_id in ["a", "b", "c", "d"] {
        fast_path.create(&session(session_id, &ann())).unwrap();
    }
    let left: Vec<_> =
        fast_path.get_by_user(ann().as_key()).unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(left, ["c", "d"]);
}

#[test]
fn replies_may_be_split_at_every_byte() {
    let mut scene = Scene::new();
    let ann = ann();
    let created = scene.harness.create(&session("a", &ann));
    let value = scene.receive(1)[0][2].clone();
    scene.send(CREATED);
    assert_eq!(scene.harness.number(created), Ok(1));
    let answers = [&bulk(&value)[..], DONE, b":0\r\n", CREATED, NIL].concat();
    for cut in 1..answers.len() {
        let found = scene.harness.get(&id("a"));
        let numbers = [
            // Of another session, as the delete would wait for a conditional `SET`.
            scene.harness.update(&session("c", &ann)),
            scene.harness.touch(&id("b"), in_an_hour()),
            scene.harness.create(&session("b", &ann)),
            scene.harness.delete(&id("a")),
        ];
        scene.receive(5);
        scene.peer.send(&answers[..cut]);
        scene.harness.step();
        scene.peer.send(&answers[cut..]);
        assert_eq!(scene.harness.session(found).unwrap().unwrap().id, id("a"));
        assert_eq!(numbers.map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(0), Ok(1), Ok(1)], "{cut}");
    }
    assert!(scene.fake.log().is_empty());
}

#[test]
fn a_value_of_any_size_is_read() {
    let mut scene = Scene::new();
    let text = format!(r#"{{"cart":"{}"}}"#, "x".repeat(1_000_000));
    let big = json("big", None, &text, in_an_hour());
    let created = scene.harness.create(&big);
    let mut socket = scene.peer.socket.try_clone().unwrap();
    let server = thread::spawn(move || {
        let value = Commands::default().next(&socket).unwrap().swap_remove(2);
        socket.write_all(b"+OK\r\n").unwrap();
        Commands::default().next(&socket).unwrap();
        socket.write_all(&[&bulk(&value), NIL].concat()).unwrap();
    });
    assert_eq!(scene.harness.number(created), Ok(1));
    let tickets = [scene.harness.get(&id("big")), scene.harness.get(&id("small"))];
    let found = tickets.map(|ticket| scene.harness.session(ticket).unwrap());
    assert_eq!(found[0].as_ref().unwrap().content().unwrap(), big.content);
    assert_eq!(found[1], None);
    server.join().unwrap();
}

#[test]
fn calls_fall_back_after_an_invalid_reply() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"*1\r\n$2\r\nhi\r\n", b"+QUEUED\r\n", b"$x\r\n"] {
        let mut scene = Scene::new();
        let ann = ann();
        let found = scene.harness.get(&id("a"));
        let repeated = [scene.harness.touch(&id("a"), in_an_hour()), scene.harness.delete(&id("b"))];
        let writes = [scene.harness.create(&session("c", &ann)), scene.harness.update(&session("d", &ann))];
        scene.receive(5);
        scene.peer.send(garbage);
        assert_eq!(scene.harness.session(found), Ok(None));
        assert_eq!(repeated.map(|ticket| scene.harness.number(ticket)), [Ok(0), Ok(1)]);
        assert_eq!(writes.map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(0)]);
        // The first connection, and the one that replaces it.
        scene.harness.until(|harness| harness.connections == 2);
    }
}

#[test]
fn an_unexpected_reply_ends_the_connection() {
    let mut scene = Scene::new();
    scene.peer.send(NIL);
    scene.harness.until(|harness| harness.socket().is_none());
    let found = scene.harness.get(&id("a"));
    assert_eq!(scene.harness.session(found), Ok(None));
    assert_eq!(scene.fake.log(), ["GET sess#a"]);
}

#[test]
fn unsent_calls_fall_back_when_the_connection_ends() {
    let mut scene = Scene::new();
    let ann = ann();
    scene.peer.leave();
    let tickets = [scene.harness.create(&session("a", &ann)), scene.harness.update(&session("a", &ann))];
    scene.harness.until(|harness| harness.socket().is_none());
    assert_eq!(tickets.map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(1)]);
    assert_eq!(scene.fake.log(), ["create sess#a", "update sess#a"]);
}

#[test]
fn calls_that_were_sent_complete_although_writing_has_ended() {
    let mut scene = Scene::new();
    let ann = ann();
    let sent = scene.harness.create(&session("a", &ann));
    scene.receive(1);
    // The worker does this when its own connection ends.
    scene.harness.socket().unwrap().shutdown(Shutdown::Write).unwrap();
    let not_sent = [scene.harness.create(&session("b", &ann)), scene.harness.update(&session("b", &ann))];
    let after = scene.harness.delete(&id("a"));
    scene.harness.fast_path.submit();
    assert!(!scene.harness.waits_for_room());
    // The end of the connection may come late, or never.
    assert_eq!(not_sent.map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(1)]);
    assert_eq!(scene.fake.log(), ["create sess#b", "update sess#b"]);
    scene.send(CREATED);
    assert_eq!([sent, after].map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(1)]);
    assert!(scene.harness.socket().is_none());
}

#[test]
fn a_connection_without_sent_calls_is_replaced_once_writing_has_ended() {
    let mut scene = Scene::new();
    scene.harness.socket().unwrap().shutdown(Shutdown::Write).unwrap();
    let ticket = scene.harness.create(&session("a", &ann()));
    scene.harness.fast_path.submit();
    // No reply, and no deadline of a call, would end it later.
    assert!(scene.harness.socket().is_none());
    assert_eq!(scene.harness.number(ticket), Ok(1));
}

#[test]
fn partly_sent_calls_fall_back() {
    let mut scene = Scene::new();
    let text = format!(r#"{{"cart":"{}"}}"#, "x".repeat(900_000));
    let mut tickets = Vec::new();
    let mut count = 0;
    while !scene.harness.waits_for_room() {
        tickets.push(scene.harness.create(&json(&format!("{count}"), None, &text, in_an_hour())));
        count += 1;
        scene.harness.fast_path.submit();
    }
    // The last one was written in part.
    tickets.extend((0..3).map(|at| scene.harness.create(&session(&format!("later {at}"), &ann()))));
    scene.peer.leave();
    for ticket in tickets {
        assert_eq!(scene.harness.number(ticket), Ok(1));
    }
}

#[test]
fn refused_calls_fall_back() {
    for (refusal, ends) in [
        (&b"-READONLY You can't write against a read only replica.\r\n"[..], true),
        (b"-LOADING Redis is loading the dataset in memory\r\n", true),
        (b"-MOVED 1 127.0.0.1:1\r\n", false),
        (b"-NOAUTH Authentication required.\r\n", true),
        (b"-NOSCRIPT No matching script.\r\n", false),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", false),
        (b"-ERR\r\n", false),
    ] {
        let mut scene = Scene::new();
        let ann = ann();
        let refused =
            [scene.harness.create(&session("a", &ann)), scene.harness.touch(&id("b"), in_an_hour())];
        let found = scene.harness.get(&id("c"));
        scene.receive(3);
        scene.peer.send(&[&answer_to_transaction(refusal)[..], refusal, NIL].concat());
        assert_eq!(scene.harness.session(found), Ok(None), "it is answered here");
        assert_eq!(refused.map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(0)]);
        assert_eq!(scene.harness.socket().is_none(), ends, "{}", refusal.escape_ascii());
        let mut log = scene.fake.log();
        log.sort();
        // If the server does not know the transaction, the worker sends the script.
        let create = if refusal == b"-ERR\r\n" { "replace sess#a" } else { "create sess#a" };
        assert_eq!(log, [create, "touch sess#b"]);
    }
}

#[test]
fn a_refused_create_stores_nothing() {
    const REFUSED: &[u8] = b"-OOM command not allowed\r\n";
    let refuse = |_, command: &Command| {
        if is_create(command) { Conduct::Answer(REFUSED) } else { Conduct::Do }
    };
    let mut scene = Scene::with(Fake::start(refuse), |_| {});
    let ann = ann();
    let refused = scene.harness.create(&session("a", &ann));
    let changed = scene.harness.update(&session("a", &ann));
    scene.receive(2);
    scene.send(&[&answer_to_transaction(REFUSED)[..], b":0\r\n"].concat());
    assert_eq!(scene.harness.number(refused).unwrap_err().code(), "ERR_STORE_FULL");
    assert!(!scene.fake.has("sess#a"));
    assert_eq!(scene.harness.number(changed), Ok(0), "of a session that never was");
}

#[test]
fn a_server_without_the_transaction_gets_scripts() {
    let unknown = answer_to_transaction(b"-ERR wrong number of arguments for 'pexpireat' command\r\n");
    let discarded =
        [b"+OK\r\n", &b"+QUEUED\r\n".repeat(4)[..], b"-EXECABORT Transaction discarded\r\n"].concat();
    for refusal in [unknown, discarded] {
        let mut scene = Scene::new();
        let ann = ann();
        let refused = scene.harness.create(&session("a", &ann));
        scene.receive(1);
        scene.send(&refusal);
        assert_eq!(scene.harness.number(refused), Ok(1));
        let created = scene.harness.create(&session("b", &ann));
        let commands = scene.receive(1);
        let names = [0, 3, 4].map(|at| String::from_utf8_lossy(&commands[0][at]).into_owned());
        assert_eq!(names, ["EVALSHA", "sess#b", "user#\"ann\""]);
        scene.send(DONE);
        assert_eq!(scene.harness.number(created), Ok(1));
        assert_eq!(scene.fake.log(), ["replace sess#a"]);
    }
}

#[test]
fn a_partly_refused_create_is_completed_or_undone_by_the_worker() {
    const NO_MULTI: &[u8] = b"-ERR unknown command\r\n:0\r\n:1\r\n:1\r\n+OK\r\n-ERR EXEC without MULTI\r\n";
    const NO_ENTRY: &[u8] = b"-ERR unknown command\r\n:0\r\n-OOM\r\n:0\r\n+OK\r\n-ERR EXEC without MULTI\r\n";
    const HALF: &[u8] = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n:0\r\n-WRONGTYPE another's\r\n:0\r\n+OK\r\n";
    let is_script = |command: &Command| command[0].starts_with(b"EVAL") && command.len() > 8;
    for (replies, refusal, log, outcome) in [
        (NO_MULTI, None, "replace sess#a", Ok(1)),
        (NO_ENTRY, Some(&b"-OOM\r\n"[..]), "end sess#a", Err("ERR_STORE_FULL")),
        (HALF, Some(&b"-WRONGTYPE another's\r\n"[..]), "end sess#a", Err("ERR_STORE_CORRUPT")),
    ] {
        let decide = move |_, command: &Command| match refusal {
            Some(refusal) if is_script(command) => Conduct::Answer(refusal),
            _ => Conduct::Do,
        };
        let mut scene = Scene::with(Fake::start(decide), |_| {});
        let created = scene.harness.create(&session("a", &ann()));
        let commands = scene.receive(1);
        scene.fake.data.lock().unwrap().apply(&commands[0]);
        scene.send(replies);
        let created = scene.harness.number(created);
        assert_eq!(scene.fake.has("sess#a"), outcome.is_ok());
        assert_eq!(scene.fake.log(), [log]);
        assert!(!created.as_ref().is_err_and(StoreError::is_outcome_unknown), "{created:?}");
        assert_eq!(created.map_err(|error| error.code()), outcome);
    }
}

#[test]
fn a_create_whose_reply_is_lost_falls_back_and_finds_its_own_session() {
    let mut scene = Scene::new();
    let ann = ann();
    let created = scene.harness.create(&session("a", &ann));
    let commands = scene.receive(1);
    scene.fake.data.lock().unwrap().apply(&commands[0]);
    scene.peer.leave();
    assert_eq!(scene.harness.number(created), Ok(1));
    assert_eq!(scene.fake.log(), ["replace sess#a"]);
    // For another creation the session exists.
    assert_eq!(scene.store.create(&session("a", &ann)), Err(StoreError::Exists));
}

#[test]
fn the_worker_repeats_a_create_whose_reply_is_lost() {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let decide = move |_, command: &Command| {
        let is_lost = is_create(command) && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        if is_lost { Conduct::DoAndEnd(0) } else { Conduct::Do }
    };
    let fake = Fake::start(decide);
    let store = open_on(&fake, |_| {});
    assert_eq!(store.create(&session("a", &ann())), Ok(()));
    assert!(fake.has("sess#a"));
    assert_eq!(store.create(&session("a", &ann())), Err(StoreError::Exists));
}

fn rejects_the_second(options: &mut RedisOptions) {
    options.max_sessions_per_user = NonZeroUsize::new(1);
    options.when_user_is_full = WhenUserIsFull::Reject;
}

#[test]
fn a_repeated_create_does_not_count_its_own_session() {
    let full = Err(StoreError::TooManySessions { max: 1 });
    let mut scene = Scene::with(Fake::good(), rejects_the_second);
    let ann = ann();
    let created = scene.harness.create(&session("a", &ann));
    let commands = scene.receive(1);
    scene.fake.data.lock().unwrap().apply(&commands[0]);
    scene.peer.leave();
    assert_eq!(scene.harness.number(created), Ok(1), "by the fast path first");
    assert_eq!(scene.fake.log(), ["create within the limit sess#a"]);
    assert_eq!(scene.store.create(&session("b", &ann)), full);

    let is_first = std::sync::atomic::AtomicBool::new(true);
    let fake = Fake::start(move |_, command: &Command| {
        let is_lost =
            command[0].starts_with(b"EVAL") && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        if is_lost { Conduct::DoAndEnd(0) } else { Conduct::Do }
    });
    let store = open_on(&fake, rejects_the_second);
    assert_eq!(store.create(&session("a", &ann)), Ok(()), "by the worker");
    assert_eq!(store.create(&session("b", &ann)), full);
    assert_eq!(store.create(&session("a", &ann)), Err(StoreError::Exists));
}

#[test]
fn the_fast_path_refuses_a_create_for_a_full_user() {
    let mut scene = Scene::with(Fake::good(), rejects_the_second);
    let ann = ann();
    let created = scene.harness.create(&session("a", &ann));
    scene.receive(1);
    scene.send(b":-2\r\n");
    assert_eq!(scene.harness.number(created), Err(StoreError::TooManySessions { max: 1 }));
    assert!(scene.fake.log().is_empty());
}

#[test]
fn a_create_succeeds_after_a_transient_error() {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let decide = move |_, command: &Command| {
        let is_refused = is_create(command) && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        if is_refused { Conduct::Answer(b"-LOADING Redis is loading\r\n") } else { Conduct::Do }
    };
    let fake = Fake::start(decide);
    let store = open_on(&fake, |_| {});
    assert_eq!(store.create(&session("a", &ann())), Ok(()));
    assert_eq!(fake.data.lock().unwrap().sets[&b"user#\"ann\""[..]].len(), 1);
}

#[test]
fn a_refusal_after_a_lost_reply_has_an_unknown_outcome() {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let fake = Fake::start(move |_, command: &Command| {
        if !command[0].starts_with(b"EVAL") || is_create(command) {
            Conduct::Do
        } else if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            Conduct::DoAndEnd(0)
        } else {
            Conduct::Answer(b"-OOM command not allowed\r\n")
        }
    });
    let store = open_on(&fake, |_| {});
    store.create(&session("a", &ann())).unwrap();
    let error = store.update(&session("a", &ann())).unwrap_err();
    assert_eq!(error, StoreError::Full("Redis says OOM command not allowed".into()).of_unknown_outcome());
}

#[test]
fn a_create_succeeds_without_time_to_end_older_sessions() {
    let fake = Fake::start(|_, command: &Command| match &command[0][..] {
        _ if is_create(command) => Conduct::Answer(b":5\r\n"),
        b"ZRANGE" => Conduct::Stall,
        _ => Conduct::Do,
    });
    let change = |options: &mut RedisOptions| {
        options.max_sessions_per_user = NonZeroUsize::new(1);
        options.command_timeout = Duration::from_millis(1500);
    };
    let store = open_on(&fake, change);
    assert_eq!(store.create(&session("a", &ann())), Ok(()), "by the worker");
    let mut harness = Harness::open(store);
    let created = harness.create(&session("b", &ann()));
    assert_eq!(harness.number(created), Ok(1), "by the fast path");
}

#[test]
fn calls_fail_at_their_deadline() {
    let command_timeout = Duration::from_millis(300);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let ann = ann();
    let found = scene.harness.get(&id("a"));
    let writes = [
        scene.harness.create(&session("a", &ann)),
        scene.harness.update(&session("a", &ann)),
        scene.harness.touch(&id("a"), in_an_hour()),
        scene.harness.delete(&id("a")),
    ];
    scene.receive(5);
    let started = Instant::now();
    let late = scene.harness.session(found).unwrap_err();
    assert_eq!((late.code(), late.is_outcome_unknown()), ("ERR_STORE_TIMEOUT", false));
    for ticket in writes {
        let late = scene.harness.number(ticket).unwrap_err();
        assert!(late.is_outcome_unknown(), "{late:?}");
    }
    assert!(started.elapsed() < 10 * command_timeout);
    assert!(scene.harness.socket().is_none() && scene.fake.log().is_empty());
}

#[test]
fn late_calls_are_not_sent() {
    let command_timeout = Duration::from_millis(500);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let text = format!(r#"{{"cart":"{}"}}"#, "x".repeat(900_000));
    let create = |scene: &mut Scene, at: usize| {
        let ticket = scene.harness.create(&json(&format!("{at}"), None, &text, in_an_hour()));
        scene.harness.fast_path.submit();
        ticket
    };
    // The peer reads nothing.
    let tickets: Vec<_> = (0..25).map(|at| create(&mut scene, at)).collect();
    assert!(!scene.harness.fast_path.primaries[0].queued.is_empty());
    // Now all calls are late, however long it took to start them.
    pass(command_timeout);
    let outcomes: Vec<_> = tickets.into_iter().map(|ticket| scene.harness.number(ticket)).collect();
    let not_done = |outcome: &Result<u64>| outcome.as_ref().is_err_and(|error| !error.is_outcome_unknown());
    let is_stored = |at: usize| scene.fake.has(&format!("sess#{at}"));
    assert!(outcomes.iter().enumerate().all(|(at, outcome)| !not_done(outcome) || !is_stored(at)));
    let shed = outcomes.iter().filter(|outcome| not_done(outcome)).count();
    assert!((5..25).contains(&shed), "{shed} were not sent: {outcomes:?}");
    assert_eq!(scene.harness.fast_path.queued_bytes, 0);
    assert!(scene.harness.socket().is_none(), "it is reset");
}

#[test]
fn a_call_is_refused_when_too_many_bytes_are_queued() {
    let mut scene = Scene::new();
    let text = format!(r#"{{"cart":"{}"}}"#, "x".repeat(900_000));
    let mut tickets = Vec::new();
    let refused = loop {
        let session = json(&format!("{}", tickets.len()), None, &text, in_an_hour());
        match scene.harness.begin(|fast_path, ticket| fast_path.create(&session, ticket)) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        scene.harness.fast_path.submit();
        assert!(tickets.len() < 100, "there is no limit");
    };
    assert_eq!((refused.code(), refused.is_outcome_unknown()), ("ERR_STORE_BUSY", false));
    scene.peer.leave();
    for ticket in tickets {
        assert_eq!(scene.harness.number(ticket), Ok(1));
    }
}

#[test]
fn a_connection_is_reset_when_its_oldest_reply_is_twice_as_late() {
    let command_timeout = Duration::from_millis(300);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let late = scene.harness.get(&id("a"));
    let others: Vec<_> = (0..8)
        .map(|_| {
            pass(command_timeout / 4);
            let ticket = scene.harness.get(&id("b"));
            scene.harness.fast_path.submit();
            scene.harness.turn();
            scene.harness.expire();
            // The server sends a byte, but no complete reply.
            if scene.harness.socket().is_some() {
                scene.peer.send(b"$");
            }
            ticket
        })
        .collect();
    assert!(scene.harness.session(late).is_err());
    assert!(scene.harness.socket().is_none(), "it is reset");
    for ticket in others {
        let _ = scene.harness.session(ticket);
    }
}

#[test]
fn a_late_reply_does_not_end_the_connection() {
    let command_timeout = Duration::from_millis(3000);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let ann = ann();
    let early = scene.harness.get(&id("a"));
    let late = scene.harness.update(&session("b", &ann));
    scene.receive(2);
    pass(command_timeout / 2);
    scene.send(NIL);
    assert_eq!(scene.harness.session(early), Ok(None));
    let other = scene.harness.create(&session("c", &ann));
    scene.receive(1);
    let error = scene.harness.number(late).unwrap_err();
    assert_eq!((error.code(), error.is_outcome_unknown()), ("ERR_STORE_TIMEOUT", true));
    // The first reply is to the late call, the second one to the other.
    scene.send(&[DONE, CREATED].concat());
    assert_eq!(scene.harness.number(other), Ok(1));
    assert!(scene.harness.socket().is_some() && scene.fake.log().is_empty());
}

#[test]
fn a_call_that_waits_for_other_replies_fails_at_its_own_deadline() {
    let command_timeout = Duration::from_millis(3000);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let ann = ann();
    let started = Instant::now();
    let fell_back = scene.harness.update(&session("a", &ann));
    scene.receive(1);
    pass(command_timeout / 2);
    let other = scene.harness.get(&id("b"));
    scene.receive(1);
    scene.send(b":2\r\n");
    let late = scene.harness.number(fell_back).unwrap_err();
    let took = started.elapsed();
    assert!(took < command_timeout * 14 / 10, "{took:?}");
    assert_eq!(late.code(), "ERR_STORE_TIMEOUT");
    // The connection stays.
    scene.send(NIL);
    assert_eq!(scene.harness.session(other), Ok(None));
    // The session is back on the fast path.
    let changed = scene.harness.update(&session("a", &ann));
    scene.receive(1);
    scene.send(DONE);
    assert_eq!(scene.harness.number(changed), Ok(1));
}

/// Lets time pass.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

#[test]
fn replies_that_arrived_in_time_count_on_a_busy_thread() {
    let command_timeout = Duration::from_millis(1500);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let found = scene.harness.get(&id("a"));
    let changed = scene.harness.update(&session("a", &ann()));
    scene.receive(2);
    scene.peer.send(&[NIL, DONE].concat());
    pass(command_timeout + Duration::from_millis(100));
    scene.harness.turn();
    scene.harness.expire();
    assert_eq!(scene.harness.ended(found), Some(Ok(Answer::Session(None))));
    assert_eq!(scene.harness.ended(changed), Some(Ok(Answer::Number(1))));
    assert!(scene.harness.socket().is_some());
}

#[test]
fn a_change_of_the_user_falls_back() {
    let mut scene = Scene::new();
    scene.put(&session("a", &UserKeyBuf::from_text("ben")));
    let changed = scene.harness.update(&session("a", &ann()));
    scene.receive(1);
    scene.send(b":2\r\n");
    assert_eq!(scene.harness.number(changed), Ok(1));
    let found = scene.store.get(&id("a")).unwrap().unwrap();
    assert_eq!(found.content().unwrap().user, Some(ann().as_key()));
}

#[test]
fn a_read_sees_an_earlier_change_that_falls_back() {
    let mut scene = Scene::new();
    let (ann, ben) = (ann(), UserKeyBuf::from_text("ben"));
    scene.put(&session("a", &ben));
    let value = scene.fake.data.lock().unwrap().strings[&b"sess#a"[..]].clone();
    let changed = scene.harness.update(&session("a", &ann));
    let sent = scene.harness.get(&id("a"));
    scene.receive(2);
    // The server reads the session before the worker changes it.
    scene.send(&[b":2\r\n", &bulk(&value)[..]].concat());
    let made_after = scene.harness.get(&id("a"));
    assert_eq!(scene.harness.number(changed), Ok(1));
    for found in [sent, made_after] {
        let found = scene.harness.session(found).unwrap().unwrap();
        assert_eq!(found.content().unwrap().user, Some(ann.as_key()));
    }
    scene.harness.listen();
    assert!(scene.harness.fast_path.fallback.is_empty());
}

/// The keys that `GET` commands read.
fn read_by(commands: &[Command]) -> Vec<String> {
    let gets = commands.iter().filter(|command| command[0] == b"GET");
    gets.map(|command| String::from_utf8(command[1].clone()).unwrap()).collect()
}

#[test]
fn reads_of_one_session_share_a_request_until_it_is_written() {
    let mut scene = Scene::new();
    let created = scene.harness.create(&session("a", &ann()));
    let value = scene.receive(1)[0][2].clone();
    scene.send(CREATED);
    assert_eq!(scene.harness.number(created), Ok(1));
    let shared: Vec<_> = ["a", "b", "a", "a", "b"].iter().map(|name| scene.harness.get(&id(name))).collect();
    assert_eq!(read_by(&scene.receive(2)), ["sess#a", "sess#b"]);
    // The request was written, so it is no longer shared.
    let own = scene.harness.get(&id("a"));
    assert_eq!(read_by(&scene.receive(1)), ["sess#a"]);
    scene.peer.send(&[&bulk(&value)[..], NIL, NIL].concat());
    let found: Vec<_> = shared.iter().map(|&ticket| scene.harness.session(ticket).unwrap()).collect();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true, false]);
    assert_eq!(scene.harness.session(own), Ok(None));
    let counters = &scene.store.counters;
    let counted = [&counters.hits, &counters.misses].map(|it| it.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(counted, [3, 3]);
    assert!(scene.fake.log().is_empty());
}

#[test]
fn a_read_after_a_change_shares_no_earlier_request() {
    let mut scene = Scene::new();
    let before = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    let changed = scene.harness.delete(&id("a"));
    let after = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    let commands = scene.receive(3);
    assert_eq!(
        commands.iter().map(|command| &command[0][..]).collect::<Vec<_>>(),
        [&b"GET"[..], b"GETDEL", b"GET"]
    );
    scene.peer.send(&[bulk(b"not ours"), NIL.to_vec(), NIL.to_vec()].concat());
    assert_eq!(scene.harness.number(changed), Ok(1));
    for ticket in [before, after].concat() {
        assert_eq!(scene.harness.session(ticket), Ok(None));
    }
}

#[test]
fn reads_that_share_a_request_fall_back_and_fail_one_by_one() {
    let mut scene = Scene::new();
    scene.put(&session("a", &ann()));
    let refused = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    scene.receive(1);
    scene.send(b"-BUSY Redis is busy running a script.\r\n");
    for ticket in refused {
        assert!(scene.harness.session(ticket).unwrap().is_some());
    }
    assert_eq!(scene.fake.log(), ["GET sess#a", "GET sess#a"]);
    let damaged = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    scene.receive(1);
    let record = format!(r#"{{"expires":{:<18},"created":{:<16},"user":oops"#, in_an_hour().millis(), 7);
    scene.send(&bulk(record.as_bytes()));
    for ticket in damaged {
        assert_eq!(scene.harness.session(ticket).unwrap_err().code(), "ERR_STORE_CORRUPT");
    }
    let lost = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    scene.receive(1);
    scene.peer.leave();
    for ticket in lost {
        assert!(scene.harness.session(ticket).unwrap().is_some());
    }
}

#[test]
fn reads_that_share_a_request_are_late_together() {
    let command_timeout = Duration::from_millis(200);
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = command_timeout);
    let late = [scene.harness.get(&id("a")), scene.harness.get(&id("a"))];
    scene.receive(1);
    for ticket in late {
        assert_eq!(scene.harness.session(ticket).unwrap_err().code(), "ERR_STORE_TIMEOUT");
    }
}

#[test]
fn a_turn_completes_a_limited_number_of_calls() {
    let mut scene = Scene::new();
    for _ in 0..3 * MAX_COMPLETIONS {
        scene.harness.get(&id("a"));
    }
    scene.harness.fast_path.submit();
    let pending = &scene.harness.fast_path.primaries[0].pending.calls;
    let (commands, calls) = (pending.len(), pending.iter().map(|each| each.call.count()).sum::<usize>());
    assert!(calls == 3 * MAX_COMPLETIONS && commands < MAX_COMPLETIONS / 4, "{commands} for {calls}");
    scene.peer.receive(commands);
    scene.peer.send(&NIL.repeat(commands));
    scene.harness.until(|harness| harness.fast_path.is_idle());
    assert!(scene.harness.most_at_once <= MAX_COMPLETIONS, "{} at once", scene.harness.most_at_once);
}

#[test]
fn an_unsent_read_sees_an_earlier_change() {
    let mut scene = Scene::new();
    scene.put(&session("a", &ann()));
    let changed = scene.harness.touch(&id("a"), in_an_hour());
    scene.receive(1);
    // The worker does this when its own connection ends.
    scene.harness.socket().unwrap().shutdown(Shutdown::Write).unwrap();
    let not_sent = scene.harness.get(&id("b"));
    scene.harness.fast_path.submit();
    let found = scene.harness.get(&id("a"));
    let of_others = scene.harness.get(&id("c"));
    assert_eq!(
        [not_sent, of_others].map(|get| scene.harness.session(get)),
        [Ok(None), Ok(None)],
        "they do not wait"
    );
    assert_eq!(scene.fake.log(), ["GET sess#b", "GET sess#c"]);
    scene.send(DONE);
    assert_eq!(scene.harness.number(changed), Ok(1));
    assert!(scene.harness.session(found).unwrap().is_some());
}

#[test]
fn changes_of_one_session_keep_their_order_when_one_falls_back() {
    let mut scene = Scene::new();
    let ann = ann();
    scene.put(&session("a", &ann));
    let fell_back = scene.harness.touch(&id("a"), in_an_hour());
    let sent_before = scene.harness.update(&session("a", &ann));
    let elsewhere = scene.harness.touch(&id("b"), in_an_hour());
    scene.receive(3);
    scene.send(b"-BUSY Redis is busy running a script.\r\n");
    let made_after = scene.harness.delete(&id("a"));
    let of_others = scene.harness.touch(&id("c"), in_an_hour());
    scene.receive(1);
    scene.harness.listen();
    assert!(scene.fake.log().is_empty(), "others wait for their answers");
    scene.peer.send(&[DONE, DONE, DONE].concat());
    let all = [fell_back, sent_before, elsewhere, made_after, of_others];
    assert_eq!(all.map(|ticket| scene.harness.number(ticket)), [const { Ok(1) }; 5]);
    assert_eq!(scene.fake.log()[..3], ["touch sess#a", "update sess#a", "GETDEL sess#a"]);
    assert!(scene.harness.fast_path.fallback.is_empty(), "the session is free again");
    let changed = scene.harness.touch(&id("a"), in_an_hour());
    assert_eq!(scene.receive(1)[0][3], b"sess#a");
    scene.send(b":0\r\n");
    assert_eq!(scene.harness.number(changed), Ok(0));
}

#[test]
fn a_create_after_a_fallback_is_not_lost() {
    let ben = UserKeyBuf::from_text("ben");
    for with_delete in [true, false] {
        let mut scene = Scene::new();
        let ann = ann();
        scene.put(&session("a", &ben));
        let fell_back = scene.harness.update(&session("a", &ann));
        let deleted = with_delete.then(|| scene.harness.delete(&id("a")));
        let created = scene.harness.create(&json("a", None, r#"{"of":"the last"}"#, in_an_hour()));
        let mut data = scene.fake.data.lock().unwrap();
        if !with_delete {
            // Another process deletes it.
            let delete: Command = vec![b"GETDEL".to_vec(), b"sess#a".to_vec()];
            data.apply(&delete);
        }
        scene.harness.fast_path.submit();
        let commands = scene.peer.receive(if with_delete { 3 } else { 2 });
        let answers: Vec<_> = commands[1..].iter().map(|command| data.apply(command)).collect();
        drop(data);
        scene.peer.send(&[&b":2\r\n"[..], &answers.concat()].concat());
        assert_eq!(scene.harness.number(created), Ok(1));
        assert_eq!(scene.harness.number(fell_back), Ok(with_delete.into()));
        assert_eq!(deleted.map(|ticket| scene.harness.number(ticket)), with_delete.then_some(Ok(1)));
        let found = scene.store.get(&id("a")).unwrap().expect("it was acknowledged");
        assert!(
            matches!(found.content().unwrap().body, crate::session::Body::Json { text, .. } if text.contains("last"))
        );
    }
}

#[test]
fn calls_fall_back_until_there_is_a_connection() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let decide = move |_, _: &Command| {
        // This fails once the test lets all commands through.
        let _ = wait.lock().unwrap().recv();
        Conduct::Do
    };
    let fake = Fake::start(decide);
    let store = open_on(&fake, |_| {});
    let mut harness = Harness::new(store);
    harness.takes_supply = false;
    let first = harness.touch(&id("a"), in_an_hour());
    harness.fast_path.submit();
    let mut peer = Peer::of(&mut harness, 0);
    let second = harness.delete(&id("a"));
    let other = harness.delete(&id("b"));
    let found = harness.get(&id("c"));
    let after_them = harness.get(&id("a"));
    harness.fast_path.submit();
    assert_eq!(peer.receive(2), [["GETDEL", "sess#b"], ["GET", "sess#c"]].map(|c| c.map(Vec::from).to_vec()));
    peer.send(&[NIL, NIL].concat());
    assert_eq!(harness.number(other), Ok(1));
    assert_eq!(harness.session(found), Ok(None));
    drop(go);
    assert_eq!(harness.session(after_them), Ok(None));
    assert_eq!([first, second].map(|ticket| harness.number(ticket)), [Ok(0), Ok(1)]);
    assert_eq!(fake.log(), ["touch sess#a", "GETDEL sess#a", "GET sess#a"]);
}

#[test]
fn a_fast_path_is_idle_after_its_last_call() {
    let mut scene = Scene::new();
    let ann = ann();
    assert!(scene.harness.fast_path.is_idle());
    let fell_back = scene.harness.touch(&id("a"), in_an_hour());
    let found = scene.harness.get(&id("a"));
    scene.harness.fast_path.start_drain();
    assert!(!scene.harness.fast_path.is_idle());
    scene.peer.receive(2);
    scene.send(b"-BUSY\r\n");
    assert!(!scene.harness.fast_path.is_idle());
    scene.send(NIL);
    assert!(scene.harness.fast_path.is_idle(), "the worker tells of the other");
    assert_eq!(scene.harness.session(found), Ok(None));
    assert_eq!(scene.harness.number(fell_back), Ok(0));
    scene.harness.fast_path.shut();
    assert!(scene.harness.socket().is_none() && !scene.harness.fast_path.take_closed_sockets().is_empty());
    assert!(scene.peer.commands.next(&scene.peer.socket).is_err(), "the connection has ended");
    drop(ann);
}

/// Otherwise the session would be there after its deletion.
#[test]
fn a_drain_keeps_the_order_of_calls_that_were_not_sent() {
    let mut scene = Scene::new();
    // From now on only one call at a time is sent.
    scene.store.window.server_closed(4);
    let created = scene.harness.create(&session("a", &ann()));
    let deleted = scene.harness.delete(&id("a"));
    scene.harness.fast_path.start_drain();
    assert_eq!(scene.harness.fast_path.primaries[0].queued.len(), 1);
    scene.peer.receive(1);
    scene.peer.leave();
    assert_eq!([created, deleted].map(|ticket| scene.harness.number(ticket)), [Ok(1), Ok(1)]);
    assert!(!scene.fake.has("sess#a"), "{:?}", scene.fake.log());
}

#[test]
fn a_store_closes_after_its_fast_path_is_idle() {
    let mut scene = Scene::new();
    let changed = scene.harness.touch(&id("a"), in_an_hour());
    scene.harness.fast_path.start_drain();
    let (store, (done, results)) = (Arc::clone(&scene.store), mpsc::channel());
    let closing = thread::spawn(move || {
        store.flush();
        done.send(()).unwrap();
    });
    scene.peer.receive(1);
    assert!(results.try_recv().is_err());
    scene.send(DONE);
    assert_eq!(scene.harness.number(changed), Ok(1));
    scene.harness.fast_path.shut();
    closing.join().unwrap();
}

#[test]
fn calls_beyond_the_pending_limit_fall_back() {
    // No call may be late, however slow the machine is.
    let mut scene = Scene::with(Fake::good(), |options| options.command_timeout = Duration::from_secs(60));
    for at in 0..MAX_CALLS {
        // Different ids, so that no two share a request.
        scene.harness.get(&id(&(at % 64).to_string()));
    }
    assert_eq!(scene.harness.fast_path.primaries[0].pending.calls.len(), MAX_CALLS);
    let found = scene.harness.get(&id("b"));
    assert_eq!(scene.harness.session(found), Ok(None));
    assert_eq!((scene.harness.count(), scene.fake.log()), (1, vec!["GET sess#b".to_owned()]));
}

#[test]
fn a_damaged_session_is_an_error_and_a_foreign_value_is_a_miss() {
    let mut scene = Scene::new();
    let (damaged, foreign) = (scene.harness.get(&id("a")), scene.harness.get(&id("b")));
    scene.receive(2);
    let record = format!(r#"{{"expires":{:<18},"created":{:<16},"user":oops"#, in_an_hour().millis(), 7);
    scene.send(&[bulk(record.as_bytes()), bulk(b"something else")].concat());
    assert_eq!(scene.harness.session(damaged).unwrap_err().code(), "ERR_STORE_CORRUPT");
    assert_eq!(scene.harness.session(foreign), Ok(None));
    let counters = &scene.store.counters;
    let counted = [&counters.hits, &counters.misses].map(|it| it.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(counted, [0, 1]);
}
