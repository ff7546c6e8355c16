//! What only `MemoryStore` does: its limits, and its steps while other threads use it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::*;
use crate::clock::MockClock;
use crate::error::{Result, StoreError};
use crate::lifetime::Lifetime;
use crate::session::UserKeyBuf;
use crate::store::conformance::{
    self, Bench, MAX_LIFETIME, MAX_PER_USER, MAX_SESSION_BYTES, conformance, id, json, plain,
};
use crate::store::{Cursor, SessionStore, WhenUserIsFull};

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

/// The list must not change what is promised, however far away its limits.
mod with_distant_limits {
    use super::*;
    conformance!(|clock: Arc<MockClock>| {
        let far = NonZeroUsize::new(1 << 40);
        let limits = Limits { max_sessions: far, max_bytes: far, max_sessions_per_user: far, ..unlimited() };
        MemoryStore::new(limits, clock)
    });
}

/// Here the list is a lock and nothing else.
mod with_a_distant_limit_of_a_user {
    use super::*;
    conformance!(|clock: Arc<MockClock>| {
        let limits = Limits { max_sessions_per_user: NonZeroUsize::new(1 << 40), ..unlimited() };
        MemoryStore::new(limits, clock)
    });
}

fn rejecting() -> Limits {
    let max_sessions_per_user = NonZeroUsize::new(MAX_PER_USER);
    Limits { max_sessions_per_user, when_user_is_full: WhenUserIsFull::Reject, ..unlimited() }
}

mod that_rejects {
    use super::*;
    conformance!(reject |clock: Arc<MockClock>| MemoryStore::new(rejecting(), clock));
}

mod that_rejects_with_distant_limits {
    use super::*;
    conformance!(reject |clock: Arc<MockClock>| {
        let far = NonZeroUsize::new(1 << 40);
        MemoryStore::new(Limits { max_sessions: far, max_bytes: far, ..rejecting() }, clock)
    });
}

mod with_a_lifetime {
    use super::*;
    conformance!(lifetime |clock: Arc<MockClock>| MemoryStore::new(lifetime(), clock));
}

mod with_a_lifetime_and_distant_limits {
    use super::*;
    conformance!(lifetime |clock: Arc<MockClock>| {
        let far = NonZeroUsize::new(1 << 40);
        MemoryStore::new(Limits { max_sessions: far, max_bytes: far, max_sessions_per_user: far, ..lifetime() }, clock)
    });
}

fn lifetime() -> Limits {
    Limits { max_lifetime: Lifetime::new(Some(MAX_LIFETIME as u64)), ..unlimited() }
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
fn the_oldest_goes_first_after_the_clock_was_set_back() {
    let limits = Limits { max_sessions_per_user: NonZeroUsize::new(2), ..Limits::default() };
    let bench = open(limits);
    create(&bench, "first", "ann").unwrap();
    bench.clock.advance(-500);
    create(&bench, "second", "ann").unwrap();
    create(&bench, "third", "ann").unwrap();
    assert_eq!(live(&bench), ["second", "third"]);
}

/// A store with `maxBytes` in one shard, so that its chunks and indexes are not random.
fn with_max_bytes(max: usize) -> Bench<MemoryStore> {
    let limits = Limits { max_bytes: NonZeroUsize::new(max), ..Limits::default() };
    Bench::new(|clock| MemoryStore::with_shards(limits, clock, 1))
}

fn bytes(bench: &Bench<MemoryStore>) -> usize {
    bench.store.stats().unwrap().bytes.unwrap() as usize
}

#[test]
fn bytes_are_kept_within_their_limit() {
    const MAX: usize = 64 << 10;
    let bench = with_max_bytes(MAX);
    let ann = UserKeyBuf::from_text("ann");
    let mut ids = Vec::new();
    for at in 0..1000 {
        create(&bench, &format!("{at:04}"), "ann").unwrap();
        ids.push(format!("{at:04}"));
        assert!(bytes(&bench) <= MAX);
    }
    let held = live(&bench);
    assert_eq!(held, ids[1000 - held.len()..], "the least recently used went");
    // Far fewer than that, and room would be wasted.
    assert!(held.len() > 200, "{}", held.len());

    // An update that grows makes room too, but not by ending itself.
    let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(MAX / 2));
    assert_eq!(bench.store.update(&json(&held[0], Some(&ann), &text, bench.in_millis(1000))), Ok(true));
    let left = live(&bench);
    assert!(bytes(&bench) <= MAX && left.contains(&held[0]) && left.len() < held.len());

    let huge = "x".repeat(MAX);
    let error = bench.store.create(&json("huge", Some(&ann), &huge, bench.in_millis(1000))).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_FULL");
    assert_eq!(live(&bench), left);
}

/// Some sizes of slots leave no room in a chunk smaller than 4 KiB.
#[test]
fn a_session_alone_keeps_the_limit_or_is_refused() {
    let ann = UserKeyBuf::from_text("ann");
    let (mut stored, mut refused) = (0, 0);
    for (max, size) in
        [1000, 3000, 10_000].into_iter().flat_map(|max| (0..max).step_by(3).map(move |size| (max, size)))
    {
        let bench = with_max_bytes(max);
        let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(size));
        match bench.store.create(&json("one", Some(&ann), &text, bench.in_millis(1000))) {
            Ok(()) => stored += 1,
            Err(error) => {
                assert_eq!((error.code(), bytes(&bench)), ("ERR_STORE_FULL", 0));
                refused += 1;
            }
        }
        assert!(bytes(&bench) <= max, "{} bytes of {max} after one of {size}", bytes(&bench));
    }
    assert!(stored > 3 * refused, "{stored} stored, {refused} refused");
}

/// An expired session may need a new chunk, but it evicts no live session.
#[test]
fn bytes_are_kept_within_their_limit_by_sessions_that_have_expired() {
    const MAX: usize = 64 << 10;
    let ann = UserKeyBuf::from_text("ann");
    for size in (0..2000).step_by(100) {
        let bench = with_max_bytes(MAX);
        (0..500).for_each(|at| create(&bench, &format!("{at}"), "ann").unwrap());
        let held = live(&bench);
        let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(size));
        bench.store.create(&json("expired", Some(&ann), &text, bench.in_millis(0))).unwrap();
        assert!(bytes(&bench) <= MAX, "{} bytes after one of {size}", bytes(&bench));
        assert_eq!(live(&bench), held, "it evicts no live session");
    }
}

/// In a small store each session has a shard for itself, whose lists and index take more than the session.
#[test]
fn a_small_limit_leaves_room_for_some_sessions() {
    const MAX: usize = 20_000;
    let bench = open(Limits { max_bytes: NonZeroUsize::new(MAX), ..Limits::default() });
    for at in 0..3000 {
        create(&bench, &at.to_string(), "ann").unwrap();
        assert!(bytes(&bench) <= MAX);
    }
    assert!(live(&bench).len() > 15, "{} sessions", live(&bench).len());
}

/// A read may scan for the next sessions to evict, and that takes memory. It makes no room for it.
#[test]
fn bytes_are_kept_within_their_limit_by_reads() {
    const MAX: usize = 20_000;
    for count in 50..150 {
        let limits = Limits { max_bytes: NonZeroUsize::new(MAX), ..Limits::default() };
        let bench = Bench::new(|clock| MemoryStore::with_shards(limits, clock, 32));
        for at in 0..count {
            create(&bench, &at.to_string(), ["", "ann"][at % 2]).unwrap();
        }
        for at in 0..3000 {
            bench.store.get(&id(&(at % count).to_string())).unwrap();
        }
        assert!(bytes(&bench) <= MAX, "{} bytes after reads of {count}", bytes(&bench));
    }
}

/// Sessions that stay in use among many that go must not hold the memory of those.
#[test]
fn bytes_are_kept_within_their_limit_when_some_sessions_outlive_all_others() {
    const MAX: usize = 1 << 20;
    const KEPT: usize = 40;
    let bench = with_max_bytes(MAX);
    let (ann, mut kept) = (UserKeyBuf::from_text("ann"), Vec::new());
    for at in 0..24_000 {
        // Larger ones from round to round.
        let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(at / 1000 * 40));
        let session_id = at.to_string();
        bench.store.create(&json(&session_id, Some(&ann), &text, bench.in_millis(1000))).unwrap();
        if at % KEPT == 0 {
            kept.push(session_id);
        }
        if at % 200 == 0 {
            kept.iter().for_each(|session_id| drop(bench.store.get(&id(session_id)).unwrap()));
        }
        assert!(bytes(&bench) <= MAX, "at {at}");
    }
    let stats = bench.store.stats().unwrap();
    assert!(kept.iter().all(|session_id| bench.store.get(&id(session_id)).unwrap().is_some()));
    // They take 400 kB by themselves. The rest of the memory holds others.
    let sessions = stats.sessions.unwrap();
    assert!(sessions as usize > kept.len() + 300, "{sessions} sessions");
}

#[test]
fn expired_and_anonymous_sessions_go_first_for_bytes_too() {
    let bench = with_max_bytes(64 << 10);
    create(&bench, "used least", "ann").unwrap();
    create(&bench, "expires", "ann").unwrap();
    bench.store.touch(&id("expires"), bench.in_millis(5)).unwrap();
    (0..50).for_each(|at| create(&bench, &format!("visitor {at}"), "").unwrap());
    bench.clock.advance(5);
    let mut at = 0;
    while live(&bench).contains(&"used least".into()) {
        create(&bench, &format!("user {at}"), "ben").unwrap();
        at += 1;
        let stats = bench.store.stats().unwrap();
        assert!(stats.evicted == 0 || stats.expired == 1, "the expired one goes first");
    }
    assert!(!live(&bench).iter().any(|id| id.starts_with("visitor")), "sessions without a user go next");
    assert!(live(&bench).contains(&"user 10".into()));
    let users = live(&bench);
    (0..200).for_each(|at| drop(create(&bench, &format!("visitor {at}"), "")));
    assert!(users.iter().all(|id| live(&bench).contains(id)), "a visitor ends no session of a user");
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
    assert_eq!((stats.sessions, stats.bytes), (Some(0), Some(0)));
    let list = bench.store.lock_list().unwrap();
    assert_eq!((list.sessions(), list.bytes()), (0, 0));
}

/// From a slot to a chunk of its own, over the length from which a record needs all of its chunk.
#[test]
fn sessions_of_every_length_are_kept() {
    for limits in each_kind_of_store() {
        let bench = open(Limits { max_session_bytes: 1 << 20, ..limits });
        let ann = UserKeyBuf::from_text("ann");
        let lengths = (0..2000).step_by(37).chain(65_400..65_600).chain([100_000, 200_001]);
        for (before, len) in lengths.enumerate() {
            let text = "x".repeat(len);
            let session = json("a", Some(&ann), &text, bench.in_millis(1000));
            if before == 0 {
                bench.store.create(&session).unwrap();
            } else {
                assert_eq!(bench.store.update(&session), Ok(true));
            }
            let found = bench.store.get(&id("a")).unwrap().unwrap();
            assert_eq!(found.content().unwrap(), session.content);
        }
    }
}

#[test]
fn a_session_takes_about_what_design_md_says() {
    const SESSIONS: usize = 50_000;
    let bench = Bench::new(|clock| MemoryStore::with_shards(unlimited(), clock, 4));
    for at in 0..SESSIONS {
        let user = UserKeyBuf::from_text(&format!("user{at:04}"));
        bench.store.create(&plain(&format!("{at:036x}"), &user, bench.in_millis(1000))).unwrap();
    }
    // 48 bytes of record, a word in each of two indexes, and its part of what describes the chunk.
    let each = bytes(&bench) / SESSIONS;
    assert!((68..=76).contains(&each), "{each} bytes");
}

/// Ends so many sessions of a user that their records stay for `remove_ended`.
fn end_many(limits: Limits) -> (Bench<MemoryStore>, Ended, usize) {
    let many = removal::DIRECT + 500;
    let bench = open(limits);
    for at in 0..many {
        create(&bench, &format!("{at:05}"), "ann").unwrap();
    }
    create(&bench, "of ben", "ben").unwrap();
    let kept = id("00003");
    let ended = bench.store.end_by_user(UserKeyBuf::from_text("ann").as_key(), Some(&kept));
    assert_eq!((ended.count(), ended.is_removed()), (many as u64 - 1, false));
    (bench, ended, many)
}

fn each_kind_of_store() -> [Limits; 4] {
    let far = NonZeroUsize::new(1 << 40);
    [
        unlimited(),
        Limits { max_sessions: far, ..unlimited() },
        Limits { max_bytes: far, ..unlimited() },
        Limits { max_sessions_per_user: far, ..unlimited() },
    ]
}

#[test]
fn no_call_sees_the_ended_sessions_of_a_user_before_their_records_are_removed() {
    for limits in each_kind_of_store() {
        let (bench, ended, many) = end_many(limits);
        let ann = UserKeyBuf::from_text("ann");
        let of_ann = || {
            let sessions = bench.store.get_by_user(ann.as_key()).unwrap();
            sessions.iter().map(|session| session.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((of_ann(), bench.store.size()), (vec!["00003".to_owned()], Ok(2)));
        assert_eq!(bench.store.get(&id("00001")), Ok(None));
        assert_eq!(bench.store.touch(&id("00001"), bench.in_millis(2000)), Ok(false));
        assert_eq!(bench.store.prolong(&id("00001"), bench.in_millis(2000), 0), Ok(false));
        assert_eq!(bench.store.update(&plain("00001", &ann, bench.in_millis(2000))), Ok(false));
        assert_eq!(live(&bench), ["00003", "of ben"]);
        assert_eq!(bench.store.delete_by_user(ann.as_key(), Some(&id("00003"))), Ok(0));
        // The same ids again, for ann and for another.
        create(&bench, "00001", "ann").unwrap();
        create(&bench, "00002", "ben").unwrap();
        assert_eq!(bench.store.stats().unwrap().sessions, Some(many as u64 + 1));

        bench.store.remove_ended(ended);
        assert_eq!((of_ann(), bench.store.size()), (vec!["00003".to_owned(), "00001".to_owned()], Ok(4)));
        let stats = bench.store.stats().unwrap();
        assert_eq!((stats.sessions, stats.expired, stats.evicted), (Some(4), 0, 0));
        assert_eq!(bench.store.clean(), Ok(0));
        assert_eq!(live(&bench), ["00001", "00002", "00003", "of ben"]);
    }
}

#[test]
fn a_sweep_removes_what_remove_ended_has_not() {
    for limits in each_kind_of_store() {
        let (bench, ended, _) = end_many(limits);
        assert_eq!(bench.store.clean(), Ok(0), "they have not expired");
        assert_eq!(live(&bench), ["00003", "of ben"]);
        let stats = bench.store.stats().unwrap();
        assert_eq!((stats.sessions, stats.expired), (Some(2), 0));
        bench.store.remove_ended(ended);
        assert_eq!(live(&bench), ["00003", "of ben"]);
    }
}

#[test]
fn ended_sessions_are_the_first_to_go_when_the_store_is_full() {
    let many = removal::DIRECT + 500;
    let (bench, ended, _) = end_many(max_sessions(many + 1));
    for at in 0..many - 1 {
        create(&bench, &format!("visitor {at}"), "").unwrap();
        assert_eq!(evicted(&bench), 0);
    }
    bench.store.remove_ended(ended);
    assert_eq!(bench.store.size(), Ok(many as u64 + 1));
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.expired, stats.evicted), (0, 0));
    create(&bench, "one more", "ben").unwrap();
    assert_eq!(evicted(&bench), 1);
}

#[test]
fn a_cleared_store_is_empty_before_its_memory_is_freed() {
    for limits in each_kind_of_store() {
        let bench = open(limits);
        (0..100).for_each(|at| create(&bench, &at.to_string(), &format!("user {}", at % 5)).unwrap());
        let cleared = bench.store.detach_all();
        let user = UserKeyBuf::from_text("user 3");
        assert_eq!((bench.store.size(), bytes(&bench), live(&bench).len()), (Ok(0), 0, 0));
        assert_eq!(bench.store.get_by_user(user.as_key()), Ok(Vec::new()));
        (0..100).for_each(|at| create(&bench, &at.to_string(), &format!("user {}", at % 5)).unwrap());
        let before = bytes(&bench);
        drop(cleared);
        assert_eq!((bench.store.size(), bytes(&bench)), (Ok(100), before));
        assert_eq!(bench.store.get_by_user(user.as_key()).unwrap().len(), 20);
        assert_eq!(bench.store.stats().unwrap().created, 200);
    }
}

#[test]
fn the_end_of_an_absent_session_waits_for_no_writer() {
    let bench = open(max_sessions(100));
    create(&bench, "a", "ann").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Writers hold the list, and readers the session's shard.
        let list = bench.store.lock_list();
        let tables: Vec<_> = bench.store.shards.iter().map(|shard| shard.read()).collect();
        scope.spawn(|| sender.send(bench.store.delete(&id("absent"))).unwrap());
        let deleted = receiver.recv_timeout(std::time::Duration::from_secs(30));
        drop((tables, list));
        assert_eq!(deleted, Ok(Ok(())));
    });
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
    assert_eq!(bench.store.stats().unwrap().sessions, Some(0));
}
