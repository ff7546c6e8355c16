//! Tests of RedisStore: the contract, on a server that these tests start, and what is specific to this store. Without
//! a redis-server, most of them print that and do nothing.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::server::{free_port, port, tls_port};
use super::resp::Reply;
use super::session::GRACE;
use super::*;
use crate::clock::MockClock;
use crate::error::Outcome;
use crate::session::UserKeyBuf;
use crate::store::WhenUserIsFull;
use crate::store::conformance::{
    MAX_LIFETIME, MAX_PER_USER, MAX_SESSION_BYTES, START, conformance, id, json, plain,
};

mod conditional;
mod scripted;
#[path = "../../../tests/redis/mod.rs"]
pub(super) mod server;
mod simulated;

pub(super) fn options_at(port: u16) -> RedisOptions {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    let address = Address { host: "127.0.0.1".into(), port };
    let servers = Servers::Single { address, login: Login::default() };
    RedisOptions {
        // Its special characters are ordinary text for the store.
        prefix: format!("test*[{}]:", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        // The first store may connect while the server is starting.
        command_timeout: Duration::from_secs(10),
        max_session_bytes: NonZeroUsize::new(MAX_SESSION_BYTES),
        sweep_interval: Some(0),
        ..RedisOptions::new(servers)
    }
}

/// Options with a unique prefix. `None` if there is no server.
pub(super) fn options() -> Option<RedisOptions> {
    port().map(options_at)
}

/// The same, over TLS.
pub(super) fn tls_options() -> Option<RedisOptions> {
    let mut options = options_at(tls_port()?);
    options.servers.login_mut().is_tls = true;
    options.tls.accept_any = true;
    Some(options)
}

/// Opens a store whose clock stands still. The server keeps its sessions longer than a test runs.
pub(super) fn open_at(options: &RedisOptions, clock: &Arc<MockClock>) -> Arc<RedisStore> {
    RedisStore::open_at(options, Arc::clone(clock) as Arc<dyn Clock>, Duration::from_secs(600)).unwrap()
}

pub(super) fn secret(byte: u8) -> Secret {
    Secret::new(vec![byte; 32])
}

mod unencrypted {
    use super::*;
    conformance!(maybe | clock | Some(open_at(&options()?, &clock)));
}

mod with_a_lifetime {
    use super::*;
    conformance!(
        lifetime maybe | clock | {
            let max_lifetime = Some(MAX_LIFETIME as u64);
            Some(open_at(&RedisOptions { max_lifetime, ..options()? }, &clock))
        }
    );
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

pub(super) fn rejecting() -> Option<RedisOptions> {
    let max_sessions_per_user = NonZeroUsize::new(MAX_PER_USER);
    Some(RedisOptions { max_sessions_per_user, when_user_is_full: WhenUserIsFull::Reject, ..options()? })
}

mod that_rejects {
    use super::*;
    conformance!(reject maybe | clock | Some(open_at(&rejecting()?, &clock)));
}

mod that_rejects_encrypted {
    use super::*;
    conformance!(
        reject maybe | clock | {
            let secrets = vec![secret(1), secret(2)];
            let max_lifetime = Some(3_600_000);
            Some(open_at(&RedisOptions { secrets, max_lifetime, ..rejecting()? }, &clock))
        }
    );
}

fn ann() -> UserKeyBuf {
    UserKeyBuf::from_text("ann")
}

fn in_millis(millis: i64) -> Expiry {
    Expiry::new(SystemClock.now() + millis).unwrap()
}

/// Sends a command to a store's server, bypassing the store.
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
            .map(SendReply)
    };
    wait(|done| store.begin(work, done)).unwrap().0
}

/// A reply on its way to another thread.
struct SendReply(Reply);

fn text(value: Reply) -> String {
    match value {
        Reply::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A proxy may also deny keys that a script has not declared.
#[test]
fn a_creation_fails_if_the_sessions_of_a_full_user_cannot_be_counted() {
    let Some(mut options) = rejecting() else { return };
    options.prefix = "limit-with-acl:".into();
    let clock = Arc::new(MockClock::new(START));
    let all = open_at(&options, &clock);
    let expires = Expiry::new(START + 1000).unwrap();
    for taken in ["a", "b"] {
        all.create(&plain(taken, &ann(), expires)).unwrap();
    }
    let rules: [&[u8]; 7] = [b"on", b">pw", b"+@all", b"&*", b"~*:user#*", b"~*:sess#c", b"~*:limits"];
    ask(&all, &[&[&b"ACL"[..], b"SETUSER", b"part", b"reset"], &rules[..]].concat());
    let credentials = Credentials { username: Some("part".into()), password: "pw".to_owned().into() };
    let mut part = options.clone();
    part.servers.login_mut().auth = Auth::Credentials(credentials);
    let refused = open_at(&part, &clock).create(&plain("c", &ann(), expires)).unwrap_err();
    ask(&all, &[b"ACL", b"DELUSER", b"part"]);
    assert_eq!((refused.code(), all.get(&id("c"))), ("ERR_STORE_UNAVAILABLE", Ok(None)), "{refused}");
    all.clear().unwrap();
}

#[test]
fn a_record_is_readable_json() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let expires = Expiry::new(START + 1000).unwrap();
    store.create(&plain("a", &ann(), expires)).unwrap();
    let key = format!("{}sess#a", options.prefix);
    let head = r#"{"expires":1800000001000     ,"created":"#;
    let created = START as u64 * 1000 + store.times.micros;
    let tail = r#""session":{"sessionId":"a","expires":"2027-01-15T08:00:01.000Z","userId":"ann"}  }"#;
    let expected = format!(r#"{head}{created},"user":"ann",{tail}"#);
    assert_eq!(text(ask(&store, &[b"GET", key.as_bytes()])), expected);
    store.touch(&id("a"), Expiry::moved_to(START + 2000).unwrap()).unwrap();
    let touched = text(ask(&store, &[b"GET", key.as_bytes()]));
    assert_eq!(touched, expected.replacen("1800000001000 ", " 1800000002000", 1));
    let value: serde_json::Value = serde_json::from_str(&touched).unwrap();
    assert_eq!(value["expires"], START + 2000);
    assert_eq!(value["session"]["userId"], "ann");
}

#[test]
fn a_session_that_has_outlived_a_new_lifetime_counts_as_absent() {
    for max_sessions_per_user in [None, NonZeroUsize::new(1)] {
        let Some(options) = options() else { return };
        let clock = Arc::new(MockClock::new(START));
        let limited = RedisOptions {
            max_lifetime: Some(1000),
            max_sessions_per_user,
            when_user_is_full: WhenUserIsFull::Reject,
            ..options.clone()
        };
        let (unlimited, limited) = (open_at(&options, &clock), open_at(&limited, &clock));
        let expires = Expiry::new(START + 1_000_000).unwrap();
        for session_id in ["a", "b"] {
            unlimited.create(&plain(session_id, &ann(), expires)).unwrap();
        }
        clock.advance(1001);
        assert_eq!(limited.get(&id("a")), Ok(None));
        assert_eq!(limited.create(&plain("a", &ann(), expires)), Ok(()));
        assert_eq!(limited.create(&plain("a", &ann(), expires)), Err(StoreError::Exists));
        assert!(limited.get(&id("a")).unwrap().is_some());
        assert_eq!(limited.delete_by_user(ann().as_key(), None), Ok(1), "the other one had ended");
        assert_eq!(unlimited.size(), Ok(0));
    }
}

#[test]
fn the_server_expires_a_session_exactly_at_its_expiry() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let key = format!("{}sess#a", options.prefix);
    let created = in_millis(HOUR);
    store.create(&plain("a", &ann(), created)).unwrap();
    let asked = SystemClock.now();
    let end = end_of(&store, &key) - created.millis();
    assert!((0..=SystemClock.now() - asked).contains(&end), "{end}");
    let touched = in_millis(300);
    assert_eq!(store.touch(&id("a"), touched), Ok(true));
    while ask(&store, &[b"EXISTS", key.as_bytes()]) == Reply::Number(1) {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(SystemClock.now() >= touched.millis());
}

#[test]
fn a_sweep_removes_the_entries_of_expired_sessions() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let (expires, index) =
        (Expiry::new(START + 1_000_000).unwrap(), format!("{}user#\"ann\"", options.prefix));
    let count = || ask(&store, &[b"ZCARD", index.as_bytes()]);
    for session_id in ["a", "b"] {
        store.create(&plain(session_id, &ann(), expires)).unwrap();
    }
    ask(&store, &[b"DEL", format!("{}sess#a", options.prefix).as_bytes()]);
    assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
    // The entry might belong to a pending creation.
    assert_eq!((store.clean(), count()), (Ok(0), Reply::Number(2)));
    clock.advance(GRACE.as_millis() as i64 + 1);
    assert_eq!((store.clean(), count()), (Ok(1), Reply::Number(1)));
    assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
}

#[test]
fn clearing_an_index_removes_the_sessions_that_it_still_names() {
    for secrets in [Vec::new(), vec![secret(1)]] {
        let Some(options) = options() else { return };
        let clock = Arc::new(MockClock::new(START));
        let store = open_at(&RedisOptions { secrets, ..options }, &clock);
        let expires = Expiry::new(START + 1_000_000).unwrap();
        let long = UserKeyBuf::from_text(&"é".repeat(500));
        let clear_indexes = || {
            let work = async |context: Rc<Context>| session::clear_indexes(&context, &mut false).await;
            wait(|done| store.begin(work, done)).unwrap();
        };
        let named = || [ann(), long.clone()].map(|user| store.get_by_user(user.as_key()).unwrap().len());
        store.create(&plain("a", &ann(), expires)).unwrap();
        store.create(&plain("b", &long, expires)).unwrap();
        clear_indexes();
        assert_eq!((named(), store.size()), ([1, 1], Ok(2)), "entries of creations that may be under way");
        clock.advance(GRACE.as_millis() as i64 + 1);
        store.create(&plain("c", &ann(), expires)).unwrap();
        clear_indexes();
        assert_eq!((named(), store.size()), ([1, 0], Ok(1)));
        assert_eq!(store.get(&id("a")), Ok(None));
    }
}

#[test]
fn the_entry_of_a_refused_creation_is_removed_once_it_is_old() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let expires = Expiry::new(START + 1000).unwrap();
    let ben = UserKeyBuf::from_text("ben");
    store.create(&plain("a", &ann(), expires)).unwrap();
    let index = |user: &str| format!("{}user#\"{user}\"", options.prefix);
    assert_eq!(store.create(&plain("a", &ann(), expires)), Err(StoreError::Exists));
    assert_eq!(store.create(&plain("a", &ben, expires)), Err(StoreError::Exists));
    assert_eq!(store.get_by_user(ben.as_key()).unwrap(), []);
    store.delete(&id("a")).unwrap();
    store.flush();
    // The entries have the versions of the refused creations, which might be pending.
    clock.advance(GRACE.as_millis() as i64 + 1);
    store.clean().unwrap();
    for user in ["ann", "ben"] {
        assert_eq!(ask(&store, &[b"EXISTS", index(user).as_bytes()]), Reply::Number(0), "{user}");
    }
}

#[test]
fn an_entry_is_not_removed_by_an_old_version() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let expires = Expiry::new(START + 1000).unwrap();
    let [ben, cid] = ["ben", "cid"].map(UserKeyBuf::from_text);
    let index = format!("{}user#\"ben\"", options.prefix);
    let version = || text(ask(&store, &[b"ZSCORE", index.as_bytes(), b"a"]));
    store.create(&plain("a", &ben, expires)).unwrap();
    let mut seen = vec![version()];
    for _ in 0..3 {
        store.update(&plain("a", &cid, expires)).unwrap();
        assert!(store.get_by_user(ben.as_key()).unwrap().is_empty());
        store.update(&plain("a", &ben, expires)).unwrap();
        // Slow processes try to remove the entry by an old version.
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
fn the_entry_of_a_pending_creation_survives_the_end_of_the_previous_session() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(START));
    let store = open_at(&options, &clock);
    let [ann, ben] = ["ann", "ben"].map(UserKeyBuf::from_text);
    let index = format!("{}user#\"ann\"", options.prefix);
    let enter = |version: &str| ask(&store, &[b"ZADD", index.as_bytes(), version.as_bytes(), b"a"]);
    let entry = || ask(&store, &[b"ZSCORE", index.as_bytes(), b"a"]);
    let ends: [(&str, &dyn Fn()); 3] = [
        ("ended with all of its user", &|| assert_eq!(store.delete_by_user(ann.as_key(), None), Ok(1))),
        ("given to another user", &|| {
            let update = store.update(&plain("a", &ben, Expiry::new(clock.now() + 1000).unwrap()));
            assert_eq!(update, Ok(true));
        }),
        ("swept", &|| {
            clock.advance(1001);
            assert!(store.clean().unwrap() > 0);
        }),
    ];
    for (what, end) in ends {
        store.create(&plain("a", &ann, Expiry::new(clock.now() + 1000).unwrap())).unwrap();
        let under_way = (clock.now() * 1000 + 500_000).to_string();
        enter(&under_way);
        end();
        assert_eq!(text(entry()), under_way, "{what}");
        // Once no creation can be pending, the entry is removed.
        store.delete(&SessionId::new("a").unwrap()).unwrap();
        clock.advance(GRACE.as_millis() as i64 + 1000);
        assert!(store.get_by_user(ann.as_key()).unwrap().is_empty());
        assert_eq!(entry(), Reply::Nil, "{what}");
    }
}

#[test]
fn an_existing_entry_gets_a_new_version() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let index = format!("{}user#\"ann\"", options.prefix);
    let entry = || text(ask(&store, &[b"ZSCORE", index.as_bytes(), b"a"]));
    let first = (START * 1000 - 1).to_string();
    ask(&store, &[b"ZADD", index.as_bytes(), first.as_bytes(), b"a"]);
    store.create(&plain("a", &ann(), Expiry::new(START + 1000).unwrap())).unwrap();
    let created = START as u64 * 1000 + store.times.micros;
    assert_eq!(entry(), created.to_string());
    let enter = [b"EVAL", resp::ENTER.text.as_bytes(), b"1", index.as_bytes(), b"a"];
    for (version, entered) in [("5", created + 1), ("9000000000000000", 9_000_000_000_000_001)] {
        ask(&store, &[&enter[..], &[version.as_bytes(), b"9000000000000", b"again"]].concat());
        assert_eq!(entry(), entered.to_string());
    }
}

const HOUR: i64 = 3_600_000;

fn end_of(store: &RedisStore, index: &str) -> i64 {
    match ask(store, &[b"PTTL", index.as_bytes()]) {
        Reply::Number(left) if left > 0 => SystemClock.now() + left,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_outlives_every_session_that_it_names() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let index = format!("{}user#\"ann\"", options.prefix);
    let end = || end_of(&store, &index) - SystemClock.now();
    let is_near = |actual: i64, expected: i64| (expected..expected + 120_000).contains(&actual);
    let hours = |hours: i64| hours * HOUR + 37 * 60_000;
    store.create(&plain("a", &ann(), in_millis(1000))).unwrap();
    assert!(is_near(end(), hours(0)), "{}", end());
    for (session_id, millis, expected) in [("b", HOUR * 5 / 2, 2), ("c", HOUR / 2, 2), ("d", HOUR * 7 / 2, 3)]
    {
        store.create(&plain(session_id, &ann(), in_millis(millis))).unwrap();
        assert!(is_near(end(), hours(expected)), "{session_id}: {}", end());
    }
    // If all sessions have ended, the index is kept as long as a new one.
    store.delete_by_user(ann().as_key(), None).unwrap();
    store.create(&plain("e", &ann(), in_millis(HOUR / 4))).unwrap();
    assert!(is_near(end(), hours(0)), "{}", end());
    // A call that moves the session's expiry later prolongs the index first.
    store.touch(&id("e"), in_millis(HOUR / 2)).unwrap();
    assert!(is_near(end(), hours(0)), "{}", end());
    store.touch(&id("e"), in_millis(HOUR * 5 / 4)).unwrap();
    assert!(is_near(end(), hours(1)), "{}", end());
    store.update(&plain("e", &ann(), in_millis(HOUR * 61 / 2))).unwrap();
    assert!(is_near(end(), hours(30)), "{}", end());
    store.touch(&id("e"), in_millis(HOUR * 3 / 2)).unwrap();
    assert!(is_near(end(), hours(30)), "{}", end());
    // When the session gets another user, that user's index is kept as long.
    let ben = UserKeyBuf::from_text("ben");
    store.update(&plain("e", &ben, in_millis(HOUR * 17 / 2))).unwrap();
    let of_ben = end_of(&store, &format!("{}user#\"ben\"", options.prefix)) - SystemClock.now();
    assert!(is_near(of_ben, hours(8)), "{of_ben}");
}

/// The clock of a machine that is wrong.
struct SkewedClock(i64);

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        SystemClock.now() + self.0
    }
}

#[test]
fn versions_follow_the_servers_clock() {
    let Some(options) = options() else { return };
    let index = format!("{}user#\"ann\"", options.prefix);
    for skew in [-20 * 60_000, 20 * 60_000] {
        let store = RedisStore::start(&options, Times::new(Arc::new(SkewedClock(skew)), None)).unwrap();
        store.create(&plain("a", &ann(), in_millis(HOUR))).unwrap();
        let version: f64 = text(ask(&store, &[b"ZSCORE", index.as_bytes(), b"a"])).parse().unwrap();
        let age = SystemClock.now() - version as i64 / 1000;
        assert!(age.abs() < 10_000, "{age} ms");
        // An entry may belong to a pending creation for two minutes by the server's clock, whatever this machine's
        // clock shows.
        let entry = |age: i64| ((SystemClock.now() - age) * 1000).to_string();
        ask(
            &store,
            &[b"ZADD", index.as_bytes(), entry(1000).as_bytes(), b"new", entry(150_000).as_bytes(), b"old"],
        );
        assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
        let left = |member: &[u8]| ask(&store, &[b"ZSCORE", index.as_bytes(), member]) != Reply::Nil;
        assert!(left(b"new") && !left(b"old"), "with a skew of {skew} ms");
        store.clear().unwrap();
        ask(&store, &[b"DEL", index.as_bytes()]);
    }
}

#[test]
fn a_lost_entry_is_restored_when_its_index_is_prolonged() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let index = format!("{}user#\"ann\"", options.prefix);
    for (session_id, is_touched) in [("a", true), ("b", false)] {
        store.create(&plain(session_id, &ann(), in_millis(HOUR / 2))).unwrap();
        ask(&store, &[b"DEL", index.as_bytes()]);
        if is_touched {
            assert_eq!(store.touch(&id(session_id), in_millis(3 * HOUR)), Ok(true));
        } else {
            assert_eq!(store.update(&plain(session_id, &ann(), in_millis(3 * HOUR))), Ok(true));
        }
        assert!(end_of(&store, &index) - SystemClock.now() > 3 * HOUR);
        assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
        store.delete(&id(session_id)).unwrap();
    }
}

/// The scripts and the store must agree on when an index has to be prolonged.
#[test]
fn the_scripts_and_the_store_agree_on_the_end_of_an_index() {
    let Some(options) = options() else { return };
    let clock = Arc::new(MockClock::new(0));
    let store = open_at(&options, &clock);
    let times = Times::new(Arc::new(SystemClock), None);
    let key = format!("{}sess#a", options.prefix);
    for created in [0, 1, 999, 1_800_000_000_000_999, 1_800_000_000_001_000] {
        let at = created / 1000 + 37 * 60_000;
        for (from, to) in [
            (1, 2),
            (HOUR, HOUR + 1),
            (HOUR - 1, HOUR),
            (HOUR, 2 * HOUR - 1),
            (2 * HOUR, 1),
            (-5, 5),
            (5, 2400 * HOUR),
        ] {
            let (from, to) = (at + from, at + to);
            let head =
                format!(r#"{{"expires":{from:<18},"created":{created:<16},"user":"ann","session":{{}}}}"#);
            ask(&store, &[b"SET", key.as_bytes(), head.as_bytes()]);
            let end = |expires| times.index_end(created as u64, Expiry::new(expires).unwrap());
            let needs_more = end(to) > end(from);
            let moved = format!("{to:<18}");
            let until = (SystemClock.now() + 60_000).to_string();
            let script = resp::TOUCH.text.as_bytes();
            let touch =
                [b"EVAL", script, b"1", key.as_bytes(), b"-9999", moved.as_bytes(), until.as_bytes(), b""];
            let expected = if needs_more { 2 } else { 1 };
            assert_eq!(ask(&store, &touch), Reply::Number(expected), "{created}: {from} to {to}");
            ask(&store, &[b"SET", key.as_bytes(), head.as_bytes()]);
            let before = format!(r#"{{"expires":{moved},"created":"#);
            let script = resp::UPDATE.text.as_bytes();
            let (after, user) = (br#","user":"ann","session":{}}"#, br#""ann","se"#);
            let update = [
                b"EVAL",
                script,
                b"1",
                key.as_bytes(),
                b"-9999",
                before.as_bytes(),
                after,
                user,
                until.as_bytes(),
            ];
            let expected = if needs_more { 3 } else { 1 };
            assert_eq!(ask(&store, &update), Reply::Number(expected), "{created}: {from} to {to}");
        }
    }
}

#[test]
fn a_touch_with_a_past_expiry_removes_the_session() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    store.create(&plain("a", &ann(), in_millis(60_000))).unwrap();
    assert_eq!(store.touch(&id("a"), in_millis(-1000)), Ok(true));
    assert_eq!(store.get(&id("a")), Ok(None));
    assert_eq!(ask(&store, &[b"EXISTS", format!("{}sess#a", options.prefix).as_bytes()]), Reply::Number(0));
}

#[test]
fn a_sweep_samples_indexes_and_continues_while_many_entries_are_stale() {
    let Some(options) = options() else { return };
    let store = RedisStore::open(&options).unwrap();
    let users = 300;
    let user = |number: usize| UserKeyBuf::from_text(&format!("user {number}"));
    let index = |number: usize| format!("{}user#\"user {number}\"", options.prefix);
    let entries = || -> i64 {
        let len = |number| match ask(&store, &[b"ZCARD", index(number).as_bytes()]) {
            Reply::Number(len) => len,
            other => panic!("{other:?}"),
        };
        (0..users).map(len).sum()
    };
    for number in 0..users {
        store.create(&plain(&format!("{number}"), &user(number), in_millis(600_000))).unwrap();
    }
    assert_eq!((store.clean(), entries()), (Ok(0), users as i64));
    // Adds many stale entries, to one index and to all indexes.
    for number in 0..users {
        for more in 0..if number == 0 { 2000 } else { 9 } {
            let member = format!("gone {more}");
            ask(&store, &[b"ZADD", index(number).as_bytes(), b"1", member.as_bytes()]);
        }
    }
    let mut sweeps = 0;
    while entries() > users as i64 * 11 / 10 {
        assert!(store.clean().is_ok());
        sweeps += 1;
        assert!(sweeps < 50, "{} entries are left", entries());
    }
    assert_eq!(store.size(), Ok(users as u64));
    for number in 0..users {
        assert_eq!(store.get_by_user(user(number).as_key()).unwrap().len(), 1);
    }
}

#[test]
fn concurrent_changes_of_the_user_keep_the_session_in_its_index() {
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

/// For any order of calls and any race, the index names each live session, and the server keeps it longer than them.
#[test]
fn an_index_outlives_its_sessions_in_any_race() {
    let Some(options) = options() else { return };
    let users = ["ann", "ben"].map(UserKeyBuf::from_text);
    let stores: Vec<_> = (0..4).map(|_| RedisStore::open(&options).unwrap()).collect();
    for round in 0..60_usize {
        let hours = |thread: usize| ((round * 7 + thread * 5) % 23) as i64;
        stores[0].create(&plain("a", &users[0], in_millis(HOUR / 2))).unwrap();
        thread::scope(|scope| {
            for (thread, store) in stores.iter().enumerate() {
                let (users, expires) = (&users, in_millis(HOUR / 4 + hours(thread) * HOUR));
                scope.spawn(move || match (round + thread) % 4 {
                    0 | 1 => assert_eq!(store.touch(&id("a"), expires), Ok(true)),
                    2 => assert_eq!(store.update(&plain("a", &users[round % 2], expires)), Ok(true)),
                    _ => {
                        store.get_by_user(users[0].as_key()).unwrap();
                        store.clean().unwrap();
                        assert_eq!(store.update(&plain("a", &users[1], expires)), Ok(true));
                    }
                });
            }
        });
        let found = stores[0].get(&id("a")).unwrap().unwrap();
        let user = found.content().unwrap().user.unwrap().to_buf();
        assert_eq!(stores[1].get_by_user(user.as_key()).unwrap().len(), 1, "round {round}");
        let name = if user == users[0] { "ann" } else { "ben" };
        let end = end_of(&stores[0], &format!("{}user#\"{name}\"", options.prefix));
        assert!(end > found.expires.millis(), "round {round}: {} ms too early", found.expires.millis() - end);
        stores[2].delete(&id("a")).unwrap();
    }
}

#[test]
fn the_oldest_sessions_of_a_user_end_beyond_the_limit() {
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
    let shows = |value: &Reply| text(value.clone()).ends_with("sess#b");
    assert!(keys.len() >= 3 && !keys.iter().any(shows));
}

#[test]
fn a_foreign_value_is_not_a_session_and_is_kept() {
    let Some(options) = options() else { return };
    let store = open_at(&options, &Arc::new(MockClock::new(START)));
    let key = format!("{}sess#a", options.prefix);
    let later = Expiry::new(START + 1000).unwrap();
    for set in [&[b"SET", key.as_bytes(), b"something else"][..], &[b"LPUSH", key.as_bytes(), b"x"]] {
        ask(&store, &[b"DEL", key.as_bytes()]);
        ask(&store, set);
        assert_eq!(store.get(&id("a")), Ok(None));
        assert_eq!(store.touch(&id("a"), later), Ok(false));
        assert_eq!(store.update(&plain("a", &ann(), later)), Ok(false));
        // The foreign value is not overwritten.
        let error = store.create(&plain("a", &ann(), later)).unwrap_err();
        assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{error}");
        assert_eq!((store.size(), store.clear()), (Ok(0), Ok(())));
        assert_eq!(ask(&store, &[b"EXISTS", key.as_bytes()]), Reply::Number(1));
    }
}

#[test]
fn a_prefix_must_not_contain_the_mark() {
    for (prefix, is_taken) in
        [("", true), ("a:", true), ("sess", true), ("a:sess:", true), ("a#", false), ("#", false)]
    {
        let given = RedisOptions { prefix: prefix.into(), ..options_at(1) };
        assert_eq!(
            given.check().map_err(|error| error.code()),
            if is_taken { Ok(()) } else { Err("ERR_INVALID_OPTION") }
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_two_prefixes_share_a_key(
        prefixes in proptest::collection::hash_set("(sess|user|seal|sweep|:|a){0,4}", 2),
        members in proptest::array::uniform2("(sess|user|seal|sweep|:|a|#){0,4}"),
    ) {
        let keys: Vec<Vec<Vec<u8>>> = prefixes.iter().zip(&members).map(|(prefix, member)| {
            let names = session::Names::new(prefix);
            let user = [&names.users[..], member.as_bytes()].concat();
            vec![names.session(member.as_bytes()), user, names.wrapped_keys, names.sweep]
        }).collect();
        for key in &keys[0] {
            proptest::prop_assert!(!keys[1].contains(key), "{}", key.escape_ascii());
        }
        // No prefix finds the keys of the other by the start of its own.
        let prefixes: Vec<_> = prefixes.iter().collect();
        for (one, other) in [(0, 1), (1, 0)] {
            let names = session::Names::new(prefixes[one]);
            for key in &keys[other] {
                proptest::prop_assert!(!key.starts_with(&names.sessions) && !key.starts_with(&names.users));
            }
        }
    }
}

#[test]
fn calls_fail_at_their_deadline_without_a_server() {
    let command_timeout = Duration::from_millis(200);
    let options = RedisOptions { command_timeout, ..options_at(free_port()) };
    let store = RedisStore::open(&options).unwrap();
    let started = Instant::now();
    let error = store.create(&plain("a", &ann(), in_millis(1000))).unwrap_err();
    let took = started.elapsed();
    assert!(took >= command_timeout && took < 20 * command_timeout, "{took:?}");
    let StoreError::Unavailable { reason, outcome: Outcome::NotDone } = error else { panic!("{error:?}") };
    assert!(reason.contains("connection refused"), "{reason}");
    assert_eq!(store.size().unwrap_err().code(), "ERR_STORE_UNAVAILABLE");
}
