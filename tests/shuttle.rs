//! Model checks of the locks: no interleaving deadlocks, and the user index agrees with the sessions during and after
//! each call. Built with the feature `shuttle`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use native_store::clock::{Clock, MockClock};
use native_store::session::{Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKeyBuf};
use native_store::store::memory::{Limits, MemoryStore};
use native_store::store::{Cursor, SessionStore, WhenUserIsFull};
use shuttle::sync::atomic::AtomicBool;
use shuttle::thread;

const SCHEDULES: usize = 2000;

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn user(name: &str) -> UserKeyBuf {
    UserKeyBuf::from_text(name)
}

fn with_session<T>(session_id: &str, name: &str, call: impl FnOnce(&Session<'_>) -> T) -> T {
    let key = user(name);
    let content = Content { user: Some(key.as_key()), body: Body::Plain(FieldOrder::UserFirst) };
    call(&Session { id: id(session_id), expires: Expiry::new(100).unwrap(), content })
}

/// Like `with_session`, but with another size class, so that an update moves the record to another slot.
fn with_large_session<T>(session_id: &str, name: &str, call: impl FnOnce(&Session<'_>) -> T) -> T {
    let (key, text) = (user(name), "x".repeat(300));
    let body = Body::Json { text: &text, expires: ExpiresForm::Text };
    let content = Content { user: Some(key.as_key()), body };
    call(&Session { id: id(session_id), expires: Expiry::new(100).unwrap(), content })
}

fn check(limits: Limits, threads: &'static [fn(&MemoryStore, &MockClock)], after: fn(&MemoryStore)) {
    shuttle::check_pct(
        move || {
            let clock = Arc::new(MockClock::new(0));
            let store = Arc::new(MemoryStore::new(limits, clock.clone()));
            let spawn = |body: &fn(&MemoryStore, &MockClock)| {
                let (store, clock, body) = (store.clone(), clock.clone(), *body);
                thread::spawn(move || body(&store, &clock))
            };
            for thread in threads.iter().map(spawn).collect::<Vec<_>>() {
                thread.join().unwrap();
            }
            assert_index_agrees(&store);
            after(&store);
        },
        SCHEDULES,
        3,
    );
}

fn assert_index_agrees(store: &MemoryStore) {
    let mut indexed: Vec<SessionId> = ["ann", "ben"]
        .iter()
        .flat_map(|name| store.get_by_user(user(name).as_key()).unwrap())
        .map(|session| session.id)
        .collect();
    indexed.sort();
    assert_eq!(ids_of(store), indexed);
}

fn log_in(store: &MemoryStore, _: &MockClock) {
    for session_id in ["a", "b", "c"] {
        let _ = with_session(session_id, "ann", |session| store.create(session));
    }
}

fn change_user(store: &MemoryStore, _: &MockClock) {
    for session_id in ["b", "a"] {
        let _ = with_session(session_id, "ben", |session| store.update(session));
    }
}

fn log_in_ben(store: &MemoryStore, _: &MockClock) {
    for session_id in ["d", "e"] {
        let _ = with_session(session_id, "ben", |session| store.create(session));
    }
}

fn log_out_everywhere(store: &MemoryStore, _: &MockClock) {
    store.delete_by_user(user("ann").as_key(), Some(&id("c"))).unwrap();
    store.delete(&id("a")).unwrap();
}

fn use_and_extend(store: &MemoryStore, clock: &MockClock) {
    let _ = store.get(&id("b"));
    let _ = store.touch(&id("b"), Expiry::moved_to(clock.now() + 500).unwrap());
}

fn expire_and_sweep(store: &MemoryStore, clock: &MockClock) {
    clock.advance(100);
    store.clean().unwrap();
    store.clear().unwrap();
}

#[test]
fn the_user_index_agrees_without_limits() {
    check(
        Limits::default(),
        &[log_in, change_user, log_out_everywhere, use_and_extend, expire_and_sweep],
        |_| {},
    );
}

#[test]
fn the_user_index_and_the_limits_agree() {
    let limits = Limits {
        max_sessions: NonZeroUsize::new(2),
        max_sessions_per_user: NonZeroUsize::new(2),
        ..Limits::default()
    };
    check(limits, &[log_in, change_user, log_out_everywhere, use_and_extend, expire_and_sweep], |store| {
        assert!(store.stats().unwrap().sessions.unwrap() <= 2);
    });
}

#[test]
fn a_user_limit_that_rejects_is_kept_and_evicts_nothing() {
    let limits = Limits {
        max_sessions_per_user: NonZeroUsize::new(2),
        when_user_is_full: WhenUserIsFull::Reject,
        ..Limits::default()
    };
    check(limits, &[log_in, change_user, log_in_ben, use_and_extend], |store| {
        for name in ["ann", "ben"] {
            assert!(store.get_by_user(user(name).as_key()).unwrap().len() <= 2);
        }
        assert_eq!(store.stats().unwrap().evicted, 0);
    });
}

#[test]
fn a_deleted_session_stays_deleted() {
    fn log_out(store: &MemoryStore, _: &MockClock) {
        log_in(store, &MockClock::new(0));
        store.delete(&id("a")).unwrap();
    }
    check(Limits::default(), &[log_out, change_user, use_and_extend], |store| {
        assert_eq!(store.get(&id("a")), Ok(None));
    });
}

/// The user of a live session.
fn user_of(store: &MemoryStore, session_id: &str) -> Option<UserKeyBuf> {
    let session = store.get(&id(session_id)).unwrap()?;
    session.content().unwrap().user.map(|user| user.to_buf())
}

fn is_listed(store: &MemoryStore, name: &str, session_id: &str) -> bool {
    store.get_by_user(user(name).as_key()).unwrap().iter().any(|session| session.id == id(session_id))
}

/// Compares the user index with the session "a" while other threads change the store.
///
/// The changes must not create "a" again after its end, and must not return it from "ben" to "ann".
fn look(store: &MemoryStore) {
    let before = user_of(store, "a");
    let (of_ann, of_ben) = (is_listed(store, "ann", "a"), is_listed(store, "ben", "a"));
    let after = user_of(store, "a");
    if before == after {
        assert_eq!(of_ann, before == Some(user("ann")), "listed for ann, but its user is {before:?}");
        assert_eq!(of_ben, before == Some(user("ben")), "listed for ben, but its user is {before:?}");
    }
    if before.is_some() && after.is_some() {
        assert!(of_ann || of_ben, "not listed, though its user was {before:?} before and is {after:?} after");
    }
}

/// Checks the user index while `change` runs. If `is_filled`, the store starts with the sessions "b" and "a" of "ann".
fn look_during(limits: Limits, is_filled: bool, change: fn(&MemoryStore, &MockClock)) {
    shuttle::check_pct(
        move || {
            let clock = Arc::new(MockClock::new(0));
            let store = Arc::new(MemoryStore::new(limits, clock.clone()));
            if is_filled {
                with_session("b", "ann", |session| store.create(session)).unwrap();
                with_session("a", "ann", |session| store.create(session)).unwrap();
            }
            let looker = {
                let store = store.clone();
                thread::spawn(move || (0..2).for_each(|_| look(&store)))
            };
            let changer = {
                let (store, clock) = (store.clone(), clock.clone());
                thread::spawn(move || change(&store, &clock))
            };
            looker.join().unwrap();
            changer.join().unwrap();
            look(&store);
            assert_index_agrees(&store);
        },
        SCHEDULES,
        3,
    );
}

/// Limits that no test reaches. With limits, every call also takes the lock of the eviction list.
fn far_limits() -> Limits {
    let far = NonZeroUsize::new(1 << 30);
    Limits { max_sessions: far, max_bytes: far, max_sessions_per_user: far, ..Limits::default() }
}

/// Runs `change` without limits, and with limits that it does not reach.
fn look_during_each(is_filled: bool, change: fn(&MemoryStore, &MockClock)) {
    look_during(Limits::default(), is_filled, change);
    look_during(far_limits(), is_filled, change);
}

#[test]
fn the_user_index_agrees_during_a_create() {
    look_during_each(false, |store, _| with_session("a", "ann", |session| store.create(session)).unwrap());
}

#[test]
fn the_user_index_agrees_during_an_update_that_changes_the_size() {
    look_during_each(true, |store, _| {
        assert_eq!(with_large_session("a", "ann", |session| store.update(session)), Ok(true));
        assert_eq!(with_session("a", "ann", |session| store.update(session)), Ok(true));
    });
}

#[test]
fn the_user_index_agrees_during_an_update_that_changes_the_user() {
    look_during_each(true, |store, _| {
        assert_eq!(with_session("a", "ben", |session| store.update(session)), Ok(true));
    });
}

#[test]
fn the_user_index_agrees_during_an_update_that_changes_the_user_and_the_size() {
    look_during_each(true, |store, _| {
        assert_eq!(with_large_session("a", "ben", |session| store.update(session)), Ok(true));
    });
}

#[test]
fn the_user_index_agrees_during_a_touch() {
    look_during_each(true, |store, _| {
        assert_eq!(store.touch(&id("a"), Expiry::moved_to(500).unwrap()), Ok(true));
    });
}

#[test]
fn the_user_index_agrees_during_a_delete() {
    look_during_each(true, |store, _| store.delete(&id("a")).unwrap());
}

/// With `maxBytes` the removal of "b" may move "a" to the slot of "b".
#[test]
fn the_user_index_agrees_while_a_session_moves() {
    look_during_each(true, |store, _| store.delete(&id("b")).unwrap());
}

#[test]
fn end_by_user_ends_all_sessions_before_it_returns() {
    look_during_each(true, |store, _| {
        let ended = store.end_by_user(user("ann").as_key(), None);
        assert_eq!((ended.count(), user_of(store, "a"), user_of(store, "b")), (2, None, None));
        assert_eq!(store.get_by_user(user("ann").as_key()), Ok(Vec::new()));
        store.remove_ended(ended);
    });
}

#[test]
fn the_user_index_agrees_during_a_delete_by_user() {
    look_during_each(true, |store, _| {
        assert_eq!(store.delete_by_user(user("ann").as_key(), None), Ok(2));
    });
}

#[test]
fn the_user_index_agrees_during_an_eviction() {
    let limits = Limits { max_sessions: NonZeroUsize::new(2), ..Limits::default() };
    look_during(limits, true, |store, _| {
        for session_id in ["c", "d", "e"] {
            with_session(session_id, "ann", |session| store.create(session)).unwrap();
        }
    });
}

#[test]
fn the_user_index_agrees_during_an_eviction_by_a_limit_of_the_user() {
    let limits = Limits { max_sessions_per_user: NonZeroUsize::new(2), ..Limits::default() };
    look_during(limits, true, |store, _| {
        for session_id in ["c", "d"] {
            with_session(session_id, "ann", |session| store.create(session)).unwrap();
        }
    });
}

#[test]
fn the_user_index_agrees_during_a_sweep() {
    look_during_each(true, |store, clock| {
        assert_eq!(store.touch(&id("b"), Expiry::moved_to(500).unwrap()), Ok(true));
        clock.advance(100);
        assert_eq!(store.clean(), Ok(1));
    });
}

#[test]
fn the_user_index_agrees_during_a_clear() {
    look_during_each(true, |store, _| store.clear().unwrap());
}

/// "Log out everywhere" must not miss a session that a request in flight saves.
fn log_out_during(change: fn(&MemoryStore, &MockClock)) {
    fn log_out(store: &MemoryStore, _: &MockClock) {
        store.delete_by_user(user("ann").as_key(), None).unwrap();
        assert_ne!(user_of(store, "a"), Some(user("ann")));
        assert!(!is_listed(store, "ann", "a"));
    }
    for limits in [Limits::default(), far_limits()] {
        shuttle::check_pct(
            move || {
                let clock = Arc::new(MockClock::new(0));
                let store = Arc::new(MemoryStore::new(limits, clock.clone()));
                with_session("a", "ann", |session| store.create(session)).unwrap();
                let threads = [log_out, change].map(|body| {
                    let (store, clock) = (store.clone(), clock.clone());
                    thread::spawn(move || body(&store, &clock))
                });
                for thread in threads {
                    thread.join().unwrap();
                }
                assert_index_agrees(&store);
            },
            SCHEDULES,
            3,
        );
    }
}

#[test]
fn delete_by_user_ends_a_session_whose_size_changes() {
    log_out_during(|store, _| {
        let _ = with_large_session("a", "ann", |session| store.update(session));
        let _ = with_session("a", "ann", |session| store.update(session));
    });
}

#[test]
fn delete_by_user_ends_a_session_that_is_touched() {
    log_out_during(|store, clock| {
        let _ = store.touch(&id("a"), Expiry::moved_to(clock.now() + 500).unwrap());
        let _ = store.prolong(&id("a"), Expiry::moved_to(clock.now() + 900).unwrap(), clock.now() + 800);
    });
}

#[test]
fn delete_by_user_ends_a_session_that_another_removal_moves() {
    log_out_during(|store, _| {
        let _ = with_session("b", "ben", |session| store.create(session));
        store.delete(&id("b")).unwrap();
    });
}

/// A session that is created or updated while the store is cleared is in all tables or in none.
#[test]
fn the_tables_agree_after_clear_with_concurrent_creations_and_updates() {
    fn clear(store: &MemoryStore, _: &MockClock) {
        drop(store.detach_all());
        let _ = with_session("d", "ben", |session| store.create(session));
        store.clear().unwrap();
        let _ = with_session("e", "ben", |session| store.create(session));
    }
    fn rewrite(store: &MemoryStore, _: &MockClock) {
        let _ = with_session("a", "ann", |session| store.create(session));
        let _ = with_large_session("a", "ben", |session| store.update(session));
    }
    fn agrees(store: &MemoryStore) {
        assert_eq!(user_of(store, "e"), Some(user("ben")));
        assert_eq!(Some(store.size().unwrap()), store.stats().unwrap().sessions);
        // This would find an entry whose session a clear has removed.
        for name in ["ann", "ben"] {
            store.delete_by_user(user(name).as_key(), None).unwrap();
        }
        let stats = store.stats().unwrap();
        assert_eq!((store.size(), stats.sessions), (Ok(0), Some(0)));
    }
    for limits in [Limits::default(), far_limits()] {
        check(limits, &[clear, rewrite, log_in, log_out_everywhere], agrees);
    }
}

/// If a session is created again between the two steps, the new session must survive.
#[test]
fn remove_ended_leaves_sessions_that_were_created_again() {
    fn log_out(store: &MemoryStore, _: &MockClock) {
        let ended = store.end_by_user(user("ann").as_key(), None);
        let _ = with_session("a", "ann", |session| store.create(session));
        store.remove_ended(ended);
        assert_eq!(user_of(store, "a"), Some(user("ann")));
        assert!(is_listed(store, "ann", "a"));
    }
    fn touch(store: &MemoryStore, clock: &MockClock) {
        let _ = with_session("a", "ann", |session| store.create(session));
        let _ = store.touch(&id("a"), Expiry::moved_to(clock.now() + 500).unwrap());
        store.clean().unwrap();
    }
    for limits in [Limits::default(), far_limits()] {
        check(limits, &[log_out, touch, use_and_extend], |_| {});
    }
}

/// The live sessions.
fn ids_of(store: &MemoryStore) -> Vec<SessionId> {
    let (mut ids, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let (some, next) = store.ids(at).unwrap();
        ids.extend(some);
        cursor = next;
    }
    ids.sort();
    ids
}

/// Runs two calls at once in a store that has room for `filled`, which were created in this order.
fn at_once_in_full_store(
    filled: &'static [&'static str],
    one: fn(&MemoryStore, &MockClock, &AtomicBool),
    other: fn(&MemoryStore, &MockClock, &AtomicBool),
    after: fn(&MemoryStore, &MockClock),
) {
    shuttle::check_pct(
        move || {
            let clock = Arc::new(MockClock::new(0));
            let max = NonZeroUsize::new(filled.len());
            let limits = Limits { max_sessions: max, ..Limits::default() };
            let store = Arc::new(MemoryStore::new(limits, clock.clone()));
            for session_id in filled {
                with_session(session_id, "ann", |session| store.create(session)).unwrap();
            }
            let is_done = Arc::new(AtomicBool::new(false));
            let threads = [one, other].map(|body| {
                let (store, clock, is_done) = (store.clone(), clock.clone(), is_done.clone());
                thread::spawn(move || body(&store, &clock, &is_done))
            });
            for thread in threads {
                thread.join().unwrap();
            }
            after(&store, &clock);
            assert_index_agrees(&store);
        },
        SCHEDULES,
        3,
    );
}

/// Each creation finds the session that is the least recently used of all when it evicts one.
#[test]
fn a_session_whose_use_has_ended_is_not_evicted_before_others() {
    at_once_in_full_store(
        &["a", "b", "c"],
        |store, _, is_used| {
            let is_live = store.get(&id("a")).unwrap().is_some();
            is_used.store(is_live, Ordering::SeqCst);
        },
        |store, _, is_used| {
            if is_used.load(Ordering::SeqCst) {
                with_session("d", "ben", |session| store.create(session)).unwrap();
                assert_eq!(ids_of(store), ["a", "c", "d"].map(id));
            } else {
                // Before the use or after it.
                store.get(&id("b")).unwrap();
                with_session("d", "ben", |session| store.create(session)).unwrap();
                let left = ids_of(store);
                assert!(left == ["b", "c", "d"].map(id) || left == ["a", "b", "d"].map(id), "{left:?}");
            }
        },
        |store, _| assert_eq!(store.stats().unwrap().evicted, 1),
    );
}

/// A use of a session that is deleted at the same time is no use of the session that gets its slot.
#[test]
fn a_use_of_a_deleted_session_changes_no_other_one() {
    at_once_in_full_store(
        &["a", "b"],
        |store, _, _| {
            let _ = store.get(&id("a"));
            let _ = store.touch(&id("a"), Expiry::moved_to(500).unwrap());
        },
        |store, _, _| {
            store.delete(&id("a")).unwrap();
            with_session("x", "ann", |session| store.create(session)).unwrap();
            store.get(&id("b")).unwrap();
            assert_eq!(store.stats().unwrap().sessions, Some(2));
            with_session("y", "ann", |session| store.create(session)).unwrap();
            assert_eq!(ids_of(store), ["b", "y"].map(id));
        },
        |store, _| assert_eq!(ids_of(store), ["b", "y"].map(id)),
    );
}

/// A thread that has taken the number of a use may record it after another thread has recorded a later one.
#[test]
fn the_later_of_two_uses_counts() {
    at_once_in_full_store(
        &["a", "b"],
        |store, _, _| _ = store.get(&id("a")),
        |store, _, _| {
            store.get(&id("b")).unwrap();
            store.get(&id("a")).unwrap();
            with_session("c", "ann", |session| store.create(session)).unwrap();
            assert_eq!(ids_of(store), ["a", "c"].map(id));
        },
        |store, _| assert_eq!(ids_of(store), ["a", "c"].map(id)),
    );
}

/// The eviction list hears of a session that is to expire earlier, whatever it looks at in between.
#[test]
fn a_session_that_expires_earlier_than_before_goes_first() {
    at_once_in_full_store(
        &["a", "b", "c", "d"],
        |store, _, is_done| {
            let is_early = store.touch(&id("c"), Expiry::moved_to(10).unwrap()).unwrap();
            is_done.store(is_early, Ordering::SeqCst);
        },
        |store, _, is_done| {
            with_session("e", "ann", |session| store.create(session)).unwrap();
            if !is_done.load(Ordering::SeqCst) {
                with_session("f", "ann", |session| store.create(session)).unwrap();
            }
            store.clean().unwrap();
        },
        |store, clock| {
            clock.advance(50);
            let before = store.stats().unwrap();
            let has_expired = store.size().unwrap() < before.sessions.unwrap();
            with_session("g", "ann", |session| store.create(session)).unwrap();
            let stats = store.stats().unwrap();
            let gone = (stats.evicted - before.evicted, stats.expired - before.expired);
            assert_eq!(gone, if has_expired { (0, 1) } else { (1, 0) });
        },
    );
}

/// The threads look at the limit during each other's calls.
#[test]
fn a_full_store_keeps_its_limit_while_sessions_are_used_ended_and_created() {
    fn fill(store: &MemoryStore, _: &MockClock, _: &AtomicBool) {
        for session_id in ["d", "e", "a"] {
            let _ = with_session(session_id, "ben", |session| store.create(session));
            assert!(store.stats().unwrap().sessions.unwrap() <= 3);
        }
    }
    fn use_and_end(store: &MemoryStore, clock: &MockClock, _: &AtomicBool) {
        let _ = store.get(&id("a"));
        let _ = with_large_session("b", "ann", |session| store.update(session));
        store.delete_by_user(user("ann").as_key(), Some(&id("a"))).unwrap();
        assert!(store.stats().unwrap().sessions.unwrap() <= 3);
        clock.advance(100);
        store.clean().unwrap();
    }
    at_once_in_full_store(&["a", "b", "c"], fill, use_and_end, |store, _| {
        let (stats, size) = (store.stats().unwrap(), store.size());
        assert_eq!(size, Ok(ids_of(store).len() as u64));
        store.clean().unwrap();
        assert!(stats.sessions >= store.stats().unwrap().sessions);
        store.clear().unwrap();
        assert_eq!(store.stats().unwrap().bytes, Some(0));
    });
}
