//! Invariants of a store while several threads use it, and afterwards.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use native_store::clock::{Clock, MockClock, SystemClock};
use native_store::session::{Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKeyBuf};
use native_store::store::memory::{Limits, MemoryStore};
use native_store::store::{Cursor, SessionStore};
use native_store::sweeper::Sweeper;

const THREADS: usize = 4;

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn with_session<T>(session_id: &str, user: &str, expires: i64, call: impl FnOnce(&Session<'_>) -> T) -> T {
    let user = UserKeyBuf::from_text(user);
    let content = Content { user: Some(user.as_key()), body: Body::Plain(FieldOrder::UserFirst) };
    call(&Session { id: id(session_id), expires: Expiry::new(expires).unwrap(), content })
}

/// A small random number generator. A seed always gives the same numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn on_threads(body: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let body = &body;
            scope.spawn(move || body(thread));
        }
    });
}

/// Checks that the user index agrees with the sessions.
fn assert_consistent(store: &MemoryStore, users: u64) {
    let (mut ids, mut cursor) = (0, Some(Cursor::default()));
    while let Some(at) = cursor {
        let (some, next) = store.ids(at).unwrap();
        ids += some.len() as u64;
        cursor = next;
    }
    let by_user = |user| {
        let user = UserKeyBuf::from_text(&format!("user {user}"));
        let sessions = store.get_by_user(user.as_key()).unwrap();
        for session in &sessions {
            assert_eq!(store.get(&session.id).unwrap().unwrap().content().unwrap().user, Some(user.as_key()));
        }
        sessions.len() as u64
    };
    assert_eq!((0..users).map(by_user).sum::<u64>(), ids);
    assert_eq!(store.size(), Ok(ids));
}

#[test]
fn one_of_many_concurrent_creations_of_an_id_succeeds() {
    let store = MemoryStore::default();
    let far = SystemClock.now() + 1_000_000;
    let won = AtomicUsize::new(0);
    on_threads(|thread| {
        for at in 0..5000 {
            let created = with_session(&format!("{at}"), &format!("user {thread}"), far, |session| {
                store.create(session)
            });
            won.fetch_add(usize::from(created.is_ok()), Ordering::Relaxed);
        }
    });
    assert_eq!(won.into_inner(), 5000);
    assert_eq!(store.size(), Ok(5000));
    assert_consistent(&store, THREADS as u64);
}

/// Makes all kinds of calls concurrently, with few ids so that they collide. No call may deadlock, and the store must
/// be consistent afterwards.
fn churn(limits: Limits) {
    const USERS: u64 = 5;
    let clock = Arc::new(MockClock::new(0));
    let store = MemoryStore::new(limits, clock.clone());
    on_threads(|thread| {
        let mut random = Random(thread as u64 + 1);
        for _ in 0..20_000 {
            let session_id = format!("session {}", random.below(50));
            let user = format!("user {}", random.below(USERS));
            let expires = clock.now() + random.below(40) as i64 + 1;
            match random.below(13) {
                0..4 => _ = with_session(&session_id, &user, expires, |session| store.create(session)),
                4 | 5 => _ = with_session(&session_id, &user, expires, |session| store.update(session)),
                6 => _ = store.touch(&id(&session_id), Expiry::moved_to(expires).unwrap()),
                7 => _ = store.get(&id(&session_id)),
                8 => store.delete(&id(&session_id)).unwrap(),
                9 => _ = store.delete_by_user(UserKeyBuf::from_text(&user).as_key(), Some(&id(&session_id))),
                10 => clock.advance(1),
                11 => store.clear().unwrap(),
                _ => _ = store.clean(),
            }
            let stats = store.stats().unwrap();
            assert!(limits.max_sessions.is_none_or(|max| stats.sessions <= Some(max.get() as u64)));
            assert!(limits.max_bytes.is_none_or(|max| stats.bytes <= Some(max.get() as u64)));
        }
    });
    assert_consistent(&store, USERS);
    clock.advance(100);
    store.clean().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes), (Some(0), Some(0)));
}

#[test]
fn concurrent_calls_leave_the_store_consistent() {
    churn(Limits::default());
}

#[test]
fn concurrent_calls_keep_the_limits() {
    churn(Limits {
        max_sessions: NonZeroUsize::new(20),
        max_sessions_per_user: NonZeroUsize::new(8),
        max_bytes: NonZeroUsize::new(10_000),
        ..Limits::default()
    });
}

/// Makes a session with content of this length. An update to another size class moves the record.
fn with_sized_session<T>(
    session_id: &str,
    user: &str,
    len: usize,
    call: impl FnOnce(&Session<'_>) -> T,
) -> T {
    let (user, text) = (UserKeyBuf::from_text(user), "x".repeat(len));
    let body = Body::Json { text: &text, expires: ExpiresForm::Text };
    let content = Content { user: Some(user.as_key()), body };
    call(&Session { id: id(session_id), expires: Expiry::new(FAR_OFF).unwrap(), content })
}

const FAR_OFF: i64 = 1 << 50;

/// Limits that no test reaches. With limits, every change takes the lock of the eviction list.
fn far_limits() -> Limits {
    let far = NonZeroUsize::new(1 << 40);
    Limits { max_sessions: far, max_bytes: far, max_sessions_per_user: far, ..Limits::default() }
}

#[test]
fn no_session_of_a_user_survives_delete_by_user() {
    for limits in [Limits::default(), far_limits()] {
        let store = MemoryStore::new(limits, Arc::new(SystemClock));
        let ann = UserKeyBuf::from_text("ann");
        on_threads(|thread| {
            for at in 0..2000 {
                let session_id = format!("{thread} {at}");
                with_sized_session(&session_id, "ann", 10, |session| store.create(session)).unwrap();
                // Requests in flight rewrite the session while it is ended.
                with_sized_session(&session_id, "ann", 300, |session| store.update(session)).unwrap();
                store.delete_by_user(ann.as_key(), None).unwrap();
                assert_eq!(store.get(&id(&session_id)), Ok(None));
            }
        });
        assert_eq!(store.size(), Ok(0));
    }
}

/// Runs `change` with 0, 1, 2, …, until another thread has checked `LOOKS` times that the user index has ann's session
/// "one". The session is always live.
fn look_while<const LOOKS: usize>(limits: Limits, change: impl Fn(&MemoryStore, usize) + Sync) {
    let store = MemoryStore::new(limits, Arc::new(SystemClock));
    with_sized_session("one", "ann", 10, |session| store.create(session)).unwrap();
    let ann = UserKeyBuf::from_text("ann");
    let is_listed = || {
        let sessions = store.get_by_user(ann.as_key()).unwrap();
        sessions.iter().filter(|session| session.id == id("one")).count() == 1
    };
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let change = scope.spawn(|| {
            (0..).take_while(|_| !is_done.load(Ordering::Relaxed)).for_each(|at| change(&store, at));
        });
        let looker = scope.spawn(|| (0..LOOKS).take_while(|_| is_listed()).count());
        let looks = looker.join().unwrap();
        is_done.store(true, Ordering::Relaxed);
        change.join().unwrap();
        assert_eq!(looks, LOOKS, "the session was missing in the user index");
    });
}

fn look_while_each<const LOOKS: usize>(change: impl Fn(&MemoryStore, usize) + Sync) {
    look_while::<LOOKS>(Limits::default(), &change);
    look_while::<LOOKS>(far_limits(), &change);
}

fn size_of(at: usize) -> usize {
    if at.is_multiple_of(2) { 300 } else { 10 }
}

#[test]
fn the_user_index_has_a_session_while_its_size_changes() {
    look_while_each::<200_000>(|store, at| {
        assert_eq!(with_sized_session("one", "ann", size_of(at), |session| store.update(session)), Ok(true));
    });
}

#[test]
fn the_user_index_has_a_session_while_its_user_changes() {
    const SESSIONS: usize = 20_000;
    for limits in [Limits::default(), far_limits()] {
        let store = MemoryStore::new(limits, Arc::new(SystemClock));
        let user_of =
            |at: usize, is_changed: bool| format!("{} {at}", if is_changed { "new" } else { "old" });
        for at in 0..SESSIONS {
            with_sized_session(&at.to_string(), &user_of(at, false), 10, |session| store.create(session))
                .unwrap();
        }
        let next = AtomicUsize::new(0);
        let is_listed =
            |user: &str| !store.get_by_user(UserKeyBuf::from_text(user).as_key()).unwrap().is_empty();
        thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..SESSIONS {
                    next.store(at, Ordering::Relaxed);
                    let updated = with_sized_session(&at.to_string(), &user_of(at, true), 10, |session| {
                        store.update(session)
                    });
                    assert_eq!(updated, Ok(true));
                }
            });
            let looker = scope.spawn(|| {
                let mut missed = 0;
                while next.load(Ordering::Relaxed) < SESSIONS - 1 {
                    let at = next.load(Ordering::Relaxed);
                    // The order matters: a session that is gone from the old user already belongs to the new one.
                    missed += usize::from(!is_listed(&user_of(at, false)) && !is_listed(&user_of(at, true)));
                }
                missed
            });
            assert_eq!(looker.join().unwrap(), 0, "the session was missing in the user index");
        });
    }
}

#[test]
fn the_user_index_has_a_session_while_others_of_its_user_are_created_and_deleted() {
    look_while_each::<20_000>(|store, at| {
        // More sessions than the flat index can hold for one user, and then fewer again.
        let session_id = format!("other {}", at % 40);
        if (at / 40).is_multiple_of(2) {
            with_sized_session(&session_id, "ann", size_of(at), |session| store.create(session)).unwrap();
        } else {
            store.delete(&id(&session_id)).unwrap();
        }
        store.touch(&id("one"), Expiry::moved_to(FAR_OFF + at as i64).unwrap()).unwrap();
    });
}

#[test]
fn the_user_index_has_a_session_while_others_are_evicted_and_swept() {
    let limits = Limits { max_sessions: NonZeroUsize::new(30), ..Limits::default() };
    look_while::<20_000>(limits, |store, at| {
        // Use the session, so that the others are evicted.
        store.get(&id("one")).unwrap();
        let expires = if at.is_multiple_of(3) { SystemClock.now() + 1 } else { FAR_OFF };
        with_session(&format!("other {at}"), "ann", expires, |session| store.create(session)).unwrap();
        if at.is_multiple_of(7) {
            store.clean().unwrap();
        }
    });
}

#[test]
fn the_sweeper_removes_expired_sessions_and_stops_with_the_store() {
    let store = Arc::new(MemoryStore::default());
    let now = SystemClock.now();
    with_session("dead", "ann", now - 1, |session| store.create(session)).unwrap();
    with_session("live", "ann", now + 1_000_000, |session| store.create(session)).unwrap();
    let swept = Arc::downgrade(&store);
    let sweep = move || {
        let Some(store) = swept.upgrade() else { return ControlFlow::Break(()) };
        store.clean().unwrap();
        ControlFlow::Continue(())
    };
    let sweeper = Sweeper::start(Duration::from_millis(1), sweep).unwrap();
    while store.stats().unwrap().expired == 0 {
        thread::yield_now();
    }
    assert_eq!(store.stats().unwrap().sessions, Some(1));
    drop(sweeper);
    let gone = Arc::downgrade(&store);
    drop(store);
    while gone.strong_count() > 0 {
        thread::yield_now();
    }
}
