//! The locks under a scheduler that tries their interleavings: no order of them deadlocks, and the index by user
//! agrees with the sessions after each. Run with `RUSTFLAGS="--cfg shuttle"`.
#![cfg(shuttle)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use native_store::clock::{Clock, MockClock};
use native_store::session::{Body, Content, Expiry, FieldOrder, Session, SessionId, UserKeyBuf};
use native_store::store::memory::{Limits, MemoryStore};
use native_store::store::{Cursor, SessionStore};
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
    let (mut ids, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let (some, next) = store.ids(at).unwrap();
        ids.extend(some);
        cursor = next;
    }
    let mut indexed: Vec<SessionId> = ["ann", "ben"]
        .iter()
        .flat_map(|name| store.get_by_user(user(name).as_key()).unwrap())
        .map(|session| session.id)
        .collect();
    ids.sort();
    indexed.sort();
    assert_eq!(ids, indexed);
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
fn without_limits() {
    check(
        Limits::default(),
        &[log_in, change_user, log_out_everywhere, use_and_extend, expire_and_sweep],
        |_| {},
    );
}

#[test]
fn with_limits() {
    let limits = Limits {
        max_sessions: NonZeroUsize::new(2),
        max_sessions_per_user: NonZeroUsize::new(2),
        ..Limits::default()
    };
    check(limits, &[log_in, change_user, log_out_everywhere, use_and_extend, expire_and_sweep], |store| {
        assert!(store.stats().unwrap().sessions <= 2);
    });
}

#[test]
fn a_logged_out_session_stays_out() {
    fn log_out(store: &MemoryStore, _: &MockClock) {
        log_in(store, &MockClock::new(0));
        store.delete(&id("a")).unwrap();
    }
    check(Limits::default(), &[log_out, change_user, use_and_extend], |store| {
        assert_eq!(store.get(&id("a")), Ok(None));
    });
}
