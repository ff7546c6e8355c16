//! The contract, on a server that these tests start, and what only this store does. Where no redis-server is installed
//! most of them do nothing, and say so.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::server::{free_port, port};
use super::resp::Reply;
use super::session::GRACE;
use super::*;
use crate::clock::MockClock;
use crate::error::Outcome;
use crate::session::UserKeyBuf;
use crate::store::conformance::{MAX_SESSION_BYTES, START, conformance, id, json, plain};

#[path = "../../../tests/redis/mod.rs"]
mod server;
mod simulated;

pub(super) fn options_at(port: u16) -> RedisOptions {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    let address = Address { host: "127.0.0.1".into(), port };
    let servers = Servers::Single { address, login: Login::default() };
    RedisOptions {
        // What patterns know is only text.
        prefix: format!("test*[{}]:", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        // The first to connect may find the server starting.
        command_timeout: Duration::from_secs(10),
        max_session_bytes: NonZeroUsize::new(MAX_SESSION_BYTES),
        sweep_interval: Some(0),
        ..RedisOptions::new(servers)
    }
}

/// The options of a store of its own; `None` where there is no server.
pub(super) fn options() -> Option<RedisOptions> {
    port().map(options_at)
}

/// With a clock that stands still the server keeps sessions for as long as a test takes.
pub(super) fn open_at(options: &RedisOptions, clock: &Arc<MockClock>) -> Arc<RedisStore> {
    RedisStore::open_at(options, Arc::clone(clock) as Arc<dyn Clock>, Duration::from_secs(600)).unwrap()
}

pub(super) fn secret(byte: u8) -> Secret {
    Secret::new(vec![byte; 32])
}

mod in_the_open {
    use super::*;
    conformance!(maybe | clock | Some(open_at(&options()?, &clock)));
}

mod encrypted {
    use super::*;
    conformance!(
        maybe | clock | {
            let secrets = vec![secret(1), secret(2)];
            Some(open_at(&RedisOptions { secrets, ..options()? }, &clock))
        }
    );
}

mod with_distant_limits {
    use super::*;
    conformance!(
        maybe | clock | {
            let max_sessions_per_user = NonZeroUsize::new(1 << 40);
            Some(open_at(&RedisOptions { max_sessions_per_user, ..options()? }, &clock))
        }
    );
}

fn ann() -> UserKeyBuf {
    UserKeyBuf::from_text("ann")
}

fn in_millis(millis: i64) -> Expiry {
    Expiry::new(SystemClock.now() + millis).unwrap()
}

/// Asks the server of a store behind its back.
fn ask(store: &RedisStore, command: &[&[u8]]) -> Reply {
    let command: Vec<Vec<u8>> = command.iter().map(|arg| arg.to_vec()).collect();
    let work = async move |context: Rc<Context>| {
        context
            .router
            .step(async |attempt| {
                let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                let make = |mode| resp::Request::write(mode).command(&args);
                context.router.get_one(attempt, b"", routing::Effect::Main, make).await
            })
            .await
            .map(Told)
    };
    wait(|done| store.begin(work, done)).unwrap().0
}

/// An answer on its way to another thread.
struct Told(Reply);

fn text(value: Reply) -> String {
    match value {
        Reply::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_is_json_that_others_can_read() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let expires = Expiry::new(START + 1000).unwrap();
    store.create(&plain("a", &ann(), expires)).unwrap();
    let key = format!("{}sess:a", options.prefix);
    let expected = concat!(
        r#"{"expires":1800000001000     ,"created":1800000000000000,"user":"ann","#,
        r#""session":{"sessionId":"a","expires":"2027-01-15T08:00:01.000Z","userId":"ann"}  }"#,
    );
    assert_eq!(text(ask(&store, &[b"GET", key.as_bytes()])), expected);
    store.touch(&id("a"), Expiry::moved_to(START + 2000).unwrap()).unwrap();
    let touched = text(ask(&store, &[b"GET", key.as_bytes()]));
    assert_eq!(touched, expected.replacen("1800000001000 ", " 1800000002000", 1));
    let value: serde_json::Value = serde_json::from_str(&touched).unwrap();
    assert_eq!(value["expires"], START + 2000);
    assert_eq!(value["session"]["userId"], "ann");
}

#[test]
fn the_server_ends_a_session_at_its_expiry_and_no_sooner() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let expires = in_millis(150);
    store.create(&plain("a", &ann(), expires)).unwrap();
    let key = format!("{}sess:a", options.prefix);
    let left = match ask(&store, &[b"PTTL", key.as_bytes()]) {
        Reply::Number(left) => left,
        other => panic!("{other:?}"),
    };
    assert!(left > 0 && left <= 150, "{left}");
    store.touch(&id("a"), in_millis(300)).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(store.get(&id("a")).unwrap().is_some());
    thread::sleep(Duration::from_millis(150));
    assert_eq!(ask(&store, &[b"EXISTS", key.as_bytes()]), Reply::Number(0));
}

#[test]
fn a_sweep_forgets_sessions_that_the_server_has_ended() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let (expires, index) =
        (Expiry::new(START + 1_000_000).unwrap(), format!("{}user:\"ann\"", options.prefix));
    let count = || ask(&store, &[b"ZCARD", index.as_bytes()]);
    for session_id in ["a", "b"] {
        store.create(&plain(session_id, &ann(), expires)).unwrap();
    }
    ask(&store, &[b"DEL", format!("{}sess:a", options.prefix).as_bytes()]);
    assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
    // It might be of a creation that is under way.
    assert_eq!((store.clean(), count()), (Ok(0), Reply::Number(2)));
    clock.advance(GRACE.as_millis() as i64 + 1);
    assert_eq!((store.clean(), count()), (Ok(1), Reply::Number(1)));
    assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
}

#[test]
fn a_session_that_was_refused_leaves_no_trace_in_an_index() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let expires = Expiry::new(START + 1000).unwrap();
    let ben = UserKeyBuf::from_text("ben");
    store.create(&plain("a", &ann(), expires)).unwrap();
    let index = |user: &str| format!("{}user:\"{user}\"", options.prefix);
    assert_eq!(store.create(&plain("a", &ann(), expires)), Err(StoreError::Exists));
    assert_eq!(store.create(&plain("a", &ben, expires)), Err(StoreError::Exists));
    assert_eq!(ask(&store, &[b"EXISTS", index("ben").as_bytes()]), Reply::Number(0));
    store.delete(&id("a")).unwrap();
    store.flush();
    // The entry got the version of the refused one.
    clock.advance(GRACE.as_millis() as i64 + 1);
    store.clean().unwrap();
    assert_eq!(ask(&store, &[b"EXISTS", index("ann").as_bytes()]), Reply::Number(0));
}

#[test]
fn an_entry_that_a_session_comes_back_to_is_not_removed_by_who_saw_it_before() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let expires = Expiry::new(START + 1000).unwrap();
    let [ben, cid] = ["ben", "cid"].map(UserKeyBuf::from_text);
    let index = format!("{}user:\"ben\"", options.prefix);
    let version = || text(ask(&store, &[b"ZSCORE", index.as_bytes(), b"a"]));
    store.create(&plain("a", &ben, expires)).unwrap();
    let mut seen = vec![version()];
    for _ in 0..3 {
        store.update(&plain("a", &cid, expires)).unwrap();
        assert_eq!(ask(&store, &[b"EXISTS", index.as_bytes()]), Reply::Number(0));
        store.update(&plain("a", &ben, expires)).unwrap();
        // Of other processes that are slow.
        for version in &seen {
            ask(
                &store,
                &[b"EVAL", resp::FORGET.text.as_bytes(), b"1", index.as_bytes(), b"a", version.as_bytes()],
            );
        }
        assert_eq!(store.get_by_user(ben.as_key()).unwrap().len(), 1);
        seen.push(version());
    }
    assert!(store.get_by_user(cid.as_key()).unwrap().is_empty());
}

#[test]
fn a_session_is_in_its_index_whoever_changes_its_user_at_the_same_time() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let users = ["ann", "ben", "cid"].map(UserKeyBuf::from_text);
    store.create(&plain("a", &users[0], in_millis(600_000))).unwrap();
    for round in 0..100 {
        thread::scope(|scope| {
            for thread in 0..3 {
                let (options, users) = (&options, &users);
                scope.spawn(move || {
                    let store = RedisStore::open(options).unwrap();
                    let user = &users[(round + thread) % 3];
                    assert_eq!(store.update(&plain("a", user, in_millis(600_000))), Ok(true));
                });
            }
        });
        let found = store.get(&id("a")).unwrap().unwrap();
        let user = found.content().unwrap().user.unwrap();
        assert_eq!(store.get_by_user(user).unwrap().len(), 1, "round {round}");
    }
}

#[test]
fn a_users_oldest_sessions_end_when_there_are_too_many() {
    let Some(options) = options() else { return };
    let options = RedisOptions { max_sessions_per_user: NonZeroUsize::new(2), ..options };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let expires = Expiry::new(START + 1000).unwrap();
    for session_id in ["a", "b", "c", "d"] {
        store.create(&plain(session_id, &ann(), expires)).unwrap();
    }
    let left: Vec<_> = store.get_by_user(ann().as_key()).unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(left, ["c", "d"]);
    assert_eq!(store.stats().unwrap().evicted, 2);
}

#[test]
fn a_user_of_any_length_has_an_index() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let long = UserKeyBuf::from_text(&"é".repeat(500));
    store.create(&plain("a", &long, Expiry::new(START + 1000).unwrap())).unwrap();
    assert_eq!(store.get_by_user(long.as_key()).unwrap().len(), 1);
    clock.advance(1000);
    assert_eq!(store.clean(), Ok(1));
}

#[test]
fn secrets_may_rotate() {
    let Some(options) = options() else { return };
    let with = |secrets: &[u8]| {
        let secrets = secrets.iter().copied().map(secret).collect();
        open_at(&RedisOptions { secrets, ..options.clone() }, &Arc::new(MockClock::new(START)))
    };
    let expires = Expiry::new(START + 1000).unwrap();
    with(&[1]).create(&plain("a", &ann(), expires)).unwrap();
    let both = with(&[2, 1]);
    assert!(both.get(&id("a")).unwrap().is_some());
    both.create(&json("b", Some(&ann()), r#"{"cart":[]}"#, expires)).unwrap();
    let new = with(&[2]);
    assert_eq!(new.get(&id("a")), Ok(None));
    let left = new.get_by_user(ann().as_key()).unwrap();
    assert_eq!(left.iter().map(|session| session.id.to_string()).collect::<Vec<_>>(), ["b"]);
    let refused = with(&[3]).get(&id("b")).unwrap_err();
    assert_eq!(refused.code(), "ERR_INVALID_OPTION");
    let key = format!("{}*", options.prefix.replace(['*', '['], "?").replace(']', "?"));
    let Reply::Array(keys) = ask(&new, &[b"KEYS", key.as_bytes()]) else { panic!("no keys") };
    let shows = |value: &Reply| text(value.clone()).ends_with("sess:b");
    assert!(keys.len() >= 3 && !keys.iter().any(shows));
}

#[test]
fn a_foreign_value_is_corrupt_and_stays() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let key = format!("{}sess:a", options.prefix);
    let later = Expiry::new(START + 1000).unwrap();
    for set in [&[b"SET", key.as_bytes(), b"something else"][..], &[b"LPUSH", key.as_bytes(), b"x"]] {
        ask(&store, &[b"DEL", key.as_bytes()]);
        ask(&store, set);
        for error in [
            store.get(&id("a")).unwrap_err(),
            store.touch(&id("a"), later).unwrap_err(),
            store.update(&plain("a", &ann(), later)).unwrap_err(),
            store.create(&plain("a", &ann(), later)).unwrap_err(),
        ] {
            assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{error}");
        }
        assert_eq!(ask(&store, &[b"EXISTS", key.as_bytes()]), Reply::Number(1));
    }
}

#[test]
fn calls_end_by_their_deadline_where_there_is_no_server() {
    let command_timeout = Duration::from_millis(200);
    let options = RedisOptions { command_timeout, ..options_at(free_port()) };
    let store = RedisStore::open(&options).unwrap();
    let begun = Instant::now();
    let error = store.create(&plain("a", &ann(), in_millis(1000))).unwrap_err();
    let took = begun.elapsed();
    assert!(took >= command_timeout && took < 2 * command_timeout, "{took:?}");
    let StoreError::Unavailable { reason, outcome: Outcome::NotDone } = error else { panic!("{error:?}") };
    assert!(reason.contains("connection refused"), "{reason}");
    assert_eq!(store.size().unwrap_err().code(), "ERR_STORE_UNAVAILABLE");
}
