//! What is particular to the store in memory: its limits, and its steps under other threads' feet.

use std::num::NonZeroUsize;

use super::*;
use crate::clock::MockClock;
use crate::session::UserKeyBuf;
use crate::store::conformance::{self, Bench, MAX_SESSION_BYTES, conformance, id, json, plain};

fn unlimited() -> Limits {
    Limits { max_session_bytes: MAX_SESSION_BYTES, ..Limits::default() }
}

fn open(limits: Limits) -> Bench<MemoryStore> {
    Bench::new(|clock| MemoryStore::new(limits, clock))
}

mod without_limits {
    use super::*;
    conformance!(|clock: Arc<MockClock>| MemoryStore::new(unlimited(), clock));
}

/// The ledger must not change what is promised, however far away its limits.
mod with_distant_limits {
    use super::*;
    conformance!(|clock: Arc<MockClock>| {
        let far = NonZeroUsize::new(1 << 40);
        let limits = Limits { max_sessions: far, max_bytes: far, max_sessions_per_user: far, ..unlimited() };
        MemoryStore::new(limits, clock)
    });
}

/// Here the ledger is a lock and nothing else.
mod with_a_distant_limit_of_a_user {
    use super::*;
    conformance!(|clock: Arc<MockClock>| {
        let limits = Limits { max_sessions_per_user: NonZeroUsize::new(1 << 40), ..unlimited() };
        MemoryStore::new(limits, clock)
    });
}

/// A table of one shard makes the sweep take many steps.
mod in_one_shard {
    use super::*;
    conformance!(|clock: Arc<MockClock>| MemoryStore::with_shards(unlimited(), clock, 1));
}

fn max_sessions(max: usize) -> Limits {
    Limits { max_sessions: NonZeroUsize::new(max), ..Limits::default() }
}

/// Creates a session of a user, or of none for `""`, that lives for 1000 ms.
fn create(bench: &Bench<MemoryStore>, session_id: &str, user: &str) -> Result<()> {
    let user = UserKeyBuf::from_text(user);
    let user = (user.as_key().text() != Some(b"")).then_some(&user);
    bench.store.create(&json(session_id, user, "{}", bench.in_millis(1000)))
}

fn live(bench: &Bench<MemoryStore>) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let (some, next) = bench.store.ids(at).unwrap();
        ids.extend(some.iter().map(ToString::to_string));
        cursor = next;
    }
    ids.sort();
    ids
}

fn evicted(bench: &Bench<MemoryStore>) -> u64 {
    bench.store.stats().unwrap().evicted
}

/// A few sessions of a user are in the index itself, more in a set beside it: see `users::FEW`.
#[test]
fn a_user_may_have_any_number_of_sessions() {
    let bench = open(unlimited());
    let of_ann = |bench: &Bench<MemoryStore>| {
        let sessions = bench.store.get_by_user(UserKeyBuf::from_text("ann").as_key()).unwrap();
        sessions.iter().map(|session| session.id.to_string()).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for at in 0..100 {
        create(&bench, &format!("{at:03}"), "ann").unwrap();
        create(&bench, &format!("other-{at}"), &format!("user-{at}")).unwrap();
        expected.push(format!("{at:03}"));
        assert_eq!(of_ann(&bench), expected);
    }
    for at in (0..100).rev().step_by(2) {
        bench.store.delete(&id(&expected.remove(at))).unwrap();
        assert_eq!(of_ann(&bench), expected);
    }
    let kept = id("000");
    let ended = bench.store.delete_by_user(UserKeyBuf::from_text("ann").as_key(), Some(&kept)).unwrap();
    assert_eq!((ended, of_ann(&bench)), (49, vec!["000".to_owned()]));
    bench.store.delete(&kept).unwrap();
    create(&bench, "again", "ann").unwrap();
    assert_eq!((of_ann(&bench), bench.store.size()), (vec!["again".to_owned()], Ok(101)));
}

#[test]
fn the_least_recently_used_goes_first() {
    let bench = open(max_sessions(3));
    for session_id in ["a", "b", "c"] {
        create(&bench, session_id, "ann").unwrap();
    }
    bench.store.get(&id("a")).unwrap();
    bench.store.touch(&id("b"), bench.in_millis(2000)).unwrap();
    create(&bench, "d", "ann").unwrap();
    assert_eq!(live(&bench), ["a", "b", "d"]);
    create(&bench, "e", "ann").unwrap();
    assert_eq!(live(&bench), ["b", "d", "e"]);
    assert_eq!(evicted(&bench), 2);
}

#[test]
fn expired_sessions_go_before_live_ones() {
    let bench = open(max_sessions(2));
    create(&bench, "old", "ann").unwrap();
    create(&bench, "used", "ann").unwrap();
    bench.store.touch(&id("used"), bench.in_millis(5)).unwrap();
    bench.clock.advance(5);
    create(&bench, "new", "ann").unwrap();
    assert_eq!(live(&bench), ["new", "old"]);
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.expired, stats.evicted), (1, 0));
}

#[test]
fn anonymous_sessions_go_before_those_of_users() {
    let bench = open(max_sessions(3));
    create(&bench, "user", "ann").unwrap();
    create(&bench, "visitor 1", "").unwrap();
    create(&bench, "visitor 2", "").unwrap();
    create(&bench, "visitor 3", "").unwrap();
    assert_eq!(live(&bench), ["user", "visitor 2", "visitor 3"]);
    create(&bench, "user 2", "ben").unwrap();
    create(&bench, "user 3", "ben").unwrap();
    assert_eq!(live(&bench), ["user", "user 2", "user 3"]);
}

#[test]
fn an_anonymous_session_never_pushes_a_user_out() {
    let bench = open(max_sessions(2));
    create(&bench, "a", "ann").unwrap();
    create(&bench, "b", "ben").unwrap();
    assert_eq!(create(&bench, "visitor", "").unwrap_err().code(), "ERR_STORE_FULL");
    assert_eq!(live(&bench), ["a", "b"]);
    assert_eq!(evicted(&bench), 0);
}

#[test]
fn a_session_that_has_expired_already_pushes_no_one_out() {
    let bench = open(max_sessions(1));
    create(&bench, "a", "ann").unwrap();
    let ben = UserKeyBuf::from_text("ben");
    assert_eq!(bench.store.create(&plain("dead", &ben, bench.in_millis(-1))), Ok(()));
    assert_eq!(live(&bench), ["a"]);
    assert_eq!(bench.store.stats().unwrap().expired, 1);
}

#[test]
fn a_refused_create_ends_no_one() {
    let bench = open(max_sessions(2));
    create(&bench, "a", "ann").unwrap();
    create(&bench, "b", "ben").unwrap();
    assert_eq!(create(&bench, "b", "ben"), Err(StoreError::Exists));
    assert_eq!(live(&bench), ["a", "b"]);
}

#[test]
fn a_users_oldest_session_goes_where_there_are_too_many() {
    let limits = Limits { max_sessions_per_user: NonZeroUsize::new(2), ..Limits::default() };
    let bench = open(limits);
    for session_id in ["a", "b", "c"] {
        create(&bench, session_id, "ann").unwrap();
        create(&bench, &format!("visitor {session_id}"), "").unwrap();
    }
    create(&bench, "d", "ben").unwrap();
    assert_eq!(live(&bench), ["b", "c", "d", "visitor a", "visitor b", "visitor c"]);
    // Becoming ann's counts as well: b is older than c, and d older than neither, but it is the one that comes.
    let ann = UserKeyBuf::from_text("ann");
    assert_eq!(bench.store.update(&plain("d", &ann, bench.in_millis(1000))), Ok(true));
    assert_eq!(live(&bench), ["c", "d", "visitor a", "visitor b", "visitor c"]);
    assert_eq!(evicted(&bench), 2);
}

#[test]
fn expired_sessions_of_a_user_do_not_count() {
    let limits = Limits { max_sessions_per_user: NonZeroUsize::new(2), ..Limits::default() };
    let bench = open(limits);
    create(&bench, "old", "ann").unwrap();
    create(&bench, "dead", "ann").unwrap();
    bench.store.touch(&id("dead"), bench.in_millis(1)).unwrap();
    bench.clock.advance(1);
    create(&bench, "new", "ann").unwrap();
    assert_eq!(live(&bench), ["new", "old"]);
    assert_eq!(evicted(&bench), 0);
}

#[test]
fn bytes_are_kept_within_their_limit() {
    // What keeps the order of eviction counts too.
    let scratch = open(Limits { max_bytes: NonZeroUsize::new(1 << 40), ..Limits::default() });
    create(&scratch, "a", "ann").unwrap();
    let one = scratch.store.stats().unwrap().bytes as usize;
    let bench = open(Limits { max_bytes: NonZeroUsize::new(3 * one), ..Limits::default() });
    for session_id in ["a", "b", "c", "d"] {
        create(&bench, session_id, "ann").unwrap();
    }
    assert_eq!(live(&bench), ["b", "c", "d"]);

    // An update that grows makes room too, but not by ending itself.
    let (ann, text) = (UserKeyBuf::from_text("ann"), format!("{{\"pad\":\"{}\"}}", "x".repeat(one)));
    assert_eq!(bench.store.update(&json("b", Some(&ann), &text, bench.in_millis(1000))), Ok(true));
    assert_eq!(live(&bench), ["b"]);
    assert!(bench.store.stats().unwrap().bytes as usize <= 3 * one);

    let huge = "x".repeat(3 * one);
    let error = bench.store.create(&json("huge", Some(&ann), &huge, bench.in_millis(1000))).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_FULL");
    assert_eq!(live(&bench), ["b"]);
}

#[test]
fn the_tables_are_empty_when_the_sessions_are_gone() {
    let bench = open(max_sessions(100));
    for at in 0..1000 {
        create(&bench, &at.to_string(), &format!("user {}", at % 10)).unwrap();
    }
    bench.store.delete_by_user(UserKeyBuf::from_text("user 3").as_key(), None).unwrap();
    bench.clock.advance(1000);
    bench.store.clean().unwrap();
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes), (0, 0));
    let ledger = bench.store.lock_ledger().unwrap();
    assert_eq!((ledger.sessions(), ledger.bytes()), (0, 0));
    assert_eq!(ledger.of_users(0).count(), 0);
}

#[test]
fn a_record_costs_about_what_it_says() {
    let bench = open(Limits::default());
    let user = UserKeyBuf::from_text("user1234");
    bench.store.create(&plain(&"0f".repeat(18), &user, bench.in_millis(1000))).unwrap();
    // 48 bytes of record, and its slots.
    assert_eq!(bench.store.stats().unwrap().bytes, 48 + 24);
}

#[test]
fn a_sweep_that_is_disturbed_leaves_the_rest_to_the_next() {
    let bench = Bench::new(|clock| MemoryStore::with_shards(unlimited(), clock, 1));
    let user = UserKeyBuf::from_text("ann");
    for at in 0..10_000 {
        bench.store.create(&plain(&at.to_string(), &user, bench.in_millis(at % 100))).unwrap();
    }
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for at in 10_000..20_000 {
                bench.store.create(&plain(&at.to_string(), &user, bench.in_millis(at % 100))).unwrap();
            }
        });
        while !churn.is_finished() {
            bench.clock.advance(1);
            bench.store.clean().unwrap();
        }
    });
    bench.clock.advance(conformance::START);
    bench.store.clean().unwrap();
    assert_eq!(bench.store.stats().unwrap().sessions, 0);
}
