//! The contract of [`SessionStore`](super::SessionStore) as tests that run for every store.
//!
//! `conformance!(open)` in a store's tests runs all of them. `open` takes a clock and returns an empty store without
//! limits, except for a `max_session_bytes` of [`MAX_SESSION_BYTES`]. `conformance!(maybe open)` runs them if `open`
//! returns a store. `conformance!(lifetime open)` runs the tests of a store with a `max_lifetime` of [`MAX_LIFETIME`].
//! `conformance!(reject open)` runs the tests of a store that refuses more than [`MAX_PER_USER`] sessions per user.
//! `lifetime maybe` and `reject maybe` run them if `open` returns a store.

use std::sync::Arc;
use std::thread;

use super::{Cursor, MAX_PAGE_BYTES, MAX_PAGE_SESSIONS, Page, SessionStore, Stats, StoredSession};
use crate::clock::{Clock, Millis, MockClock};
use crate::error::{Result, StoreError};
use crate::session::{
    Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf,
};

/// The `max_session_bytes` that the suite expects.
pub const MAX_SESSION_BYTES: usize = 2000;

/// The `max_lifetime` that the suite expects, in milliseconds.
pub const MAX_LIFETIME: Millis = 1000;

/// The limit per user that the suite expects.
pub const MAX_PER_USER: usize = 2;

/// The start time of the suite's clock.
pub const START: Millis = 1_800_000_000_000;

/// The store under test, and its clock.
pub struct Bench<S> {
    pub store: S,
    pub clock: Arc<MockClock>,
}

impl<S: SessionStore> Bench<S> {
    pub fn new(open: impl FnOnce(Arc<MockClock>) -> S) -> Self {
        let clock = Arc::new(MockClock::new(START));
        Self { store: open(Arc::clone(&clock)), clock }
    }

    /// Runs a test if `open` returns a store.
    pub fn try_run(open: impl FnOnce(Arc<MockClock>) -> Option<S>, test: impl FnOnce(&Self)) {
        let clock = Arc::new(MockClock::new(START));
        if let Some(store) = open(Arc::clone(&clock)) {
            test(&Self { store, clock });
        }
    }

    pub fn in_millis(&self, millis: Millis) -> Expiry {
        Expiry::new(self.clock.now() + millis).unwrap()
    }

    /// Creates a session of FluidAuth's shape that lives for 100 ms.
    fn log_in(&self, session_id: &str, user: &str) {
        self.store.create(&plain(session_id, &UserKeyBuf::from_text(user), self.in_millis(100))).unwrap();
    }

    fn get(&self, session_id: &str) -> Option<StoredSession> {
        self.store.get(&id(session_id)).unwrap()
    }

    fn sessions_of(&self, user: &str) -> Vec<String> {
        let sessions = self.store.get_by_user(UserKeyBuf::from_text(user).as_key()).unwrap();
        sessions.iter().map(|session| session.id.to_string()).collect()
    }

    fn all_ids(&self) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            let (ids, next) = self.store.ids(at).unwrap();
            all.extend(ids.iter().map(ToString::to_string));
            cursor = next;
        }
        all.sort();
        all
    }
}

pub fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

pub fn plain<'a>(session_id: &str, user: &'a UserKeyBuf, expires: Expiry) -> Session<'a> {
    let content = Content { user: Some(user.as_key()), body: Body::Plain(FieldOrder::ExpiresFirst) };
    Session { id: id(session_id), expires, content }
}

pub fn json<'a>(
    session_id: &str,
    user: Option<&'a UserKeyBuf>,
    text: &'a str,
    expires: Expiry,
) -> Session<'a> {
    let body = Body::Json { text, expires: ExpiresForm::Text };
    Session { id: id(session_id), expires, content: Content { user: user.map(UserKeyBuf::as_key), body } }
}

macro_rules! conformance {
    (maybe $open:expr) => {
        $crate::store::conformance::conformance! { $open;
            returns_the_stored_session
            create_refuses_the_id_of_a_live_session_and_keeps_it
            create_takes_the_id_of_an_expired_session
            an_expired_session_is_absent_from_every_call
            a_session_is_live_until_its_expiry_and_not_at_it
            update_replaces_a_live_session
            update_never_creates
            touch_moves_only_the_expiry
            touch_of_an_absent_or_expired_session_does_nothing
            touch_into_the_past_ends_a_session
            prolong_moves_only_the_expiry
            prolong_leaves_an_expiry_that_is_enough
            prolong_of_an_absent_or_expired_session_does_nothing
            concurrent_prolongs_never_shorten_an_expiry
            delete_is_idempotent
            clean_removes_only_expired_sessions
            clean_sees_sessions_that_were_touched
            sessions_are_found_by_user_oldest_first
            the_index_follows_an_update_to_another_user
            users_of_different_types_are_distinct
            anonymous_sessions_are_not_in_the_user_index
            delete_by_user_ends_live_sessions_and_counts_them
            delete_by_user_keeps_the_excepted_one
            ids_returns_each_id_once
            sessions_returns_each_session_once_during_changes
            sessions_have_their_creation_time_and_expiry
            sessions_returns_bounded_pages
            clear_removes_everything
            stats_count
            ids_are_compared_exactly
            a_session_over_the_limit_is_refused_and_changes_nothing
            any_expiry_of_javascript_is_kept
        }
    };
    (lifetime maybe $open:expr) => {
        $crate::store::conformance::conformance! { $open;
            create_ends_a_session_by_its_lifetime
            no_call_moves_a_session_past_its_lifetime
            a_session_within_its_lifetime_can_be_moved
            prolong_accepts_an_expiry_at_the_lifetime_limit
            a_session_past_its_lifetime_is_absent_from_every_call
            create_at_leaves_the_rest_of_the_lifetime
            a_reused_id_gets_a_new_lifetime
        }
    };
    (reject maybe $open:expr) => {
        $crate::store::conformance::conformance! { $open;
            a_full_user_gets_no_more_sessions
            expired_sessions_leave_room
            an_expired_session_needs_no_room
            a_session_of_a_full_user_may_change
            no_update_gives_a_full_user_one_more_session
            a_live_session_with_the_id_is_reported_before_a_full_user
            concurrent_logins_never_exceed_the_limit
            concurrent_changes_of_user_never_exceed_the_limit
        }
    };
    (reject $open:expr) => {
        $crate::store::conformance::conformance!(reject maybe |clock| Some(($open)(clock)));
    };
    (lifetime $open:expr) => {
        $crate::store::conformance::conformance!(lifetime maybe |clock| Some(($open)(clock)));
    };
    ($open:expr; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                $crate::store::conformance::Bench::try_run($open, $crate::store::conformance::$test);
            }
        )*
    };
    ($open:expr) => {
        $crate::store::conformance::conformance!(maybe |clock| Some(($open)(clock)));
    };
}
pub(crate) use conformance;

type Store<S> = Bench<S>;

pub fn returns_the_stored_session<S: SessionStore>(bench: &Store<S>) {
    let (text, number) = (UserKeyBuf::from_text("ann \u{0} é 😀"), UserKeyBuf::from_canonical_json("42"));
    let hostile = r#"{"__proto__":{"a":1},"path":"../../etc","nul":"\u0000","😀":[null]}"#;
    let expires = bench.in_millis(1);
    for session in [
        plain(&"0a".repeat(18), &text, expires),
        plain("not hex", &text, expires),
        json("j", Some(&number), hostile, expires),
        json("k", None, "{}", expires),
    ] {
        bench.store.create(&session).unwrap();
        let found = bench.store.get(&session.id).unwrap().unwrap();
        assert_eq!((&found.id, found.expires), (&session.id, session.expires));
        assert_eq!(found.content(), Ok(session.content));
    }
}

pub fn create_refuses_the_id_of_a_live_session_and_keeps_it<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let ben = UserKeyBuf::from_text("ben");
    let second = bench.store.create(&plain("a", &ben, bench.in_millis(500)));
    assert_eq!(second, Err(StoreError::Exists));
    assert_eq!(bench.sessions_of("ann"), ["a"]);
    assert!(bench.sessions_of("ben").is_empty());
    assert_eq!(bench.get("a").unwrap().expires, bench.in_millis(100));
}

pub fn create_takes_the_id_of_an_expired_session<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    bench.clock.advance(100);
    bench.log_in("a", "ben");
    assert_eq!(bench.sessions_of("ben"), ["a"]);
    assert!(bench.sessions_of("ann").is_empty());
    assert_eq!(bench.store.size(), Ok(1));
}

pub fn an_expired_session_is_absent_from_every_call<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    bench.clock.advance(100);
    let ann = UserKeyBuf::from_text("ann");
    assert_eq!(bench.get("a"), None);
    assert_eq!(bench.store.update(&plain("a", &ann, bench.in_millis(100))), Ok(false));
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(100)), Ok(false));
    assert_eq!(bench.store.get_by_user(ann.as_key()), Ok(vec![]));
    assert_eq!(bench.store.size(), Ok(0));
    assert!(bench.all_ids().is_empty());
    assert_eq!(bench.store.delete_by_user(ann.as_key(), None), Ok(0));
    assert_eq!(bench.get("a"), None);
}

pub fn a_session_is_live_until_its_expiry_and_not_at_it<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    bench.clock.advance(99);
    assert!(bench.get("a").is_some());
    bench.clock.advance(1);
    assert!(bench.get("a").is_none());
}

pub fn update_replaces_a_live_session<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let ann = UserKeyBuf::from_text("ann");
    let new = json("a", Some(&ann), r#"{"cart":[1,2]}"#, bench.in_millis(300));
    assert_eq!(bench.store.update(&new), Ok(true));
    let found = bench.get("a").unwrap();
    assert_eq!((found.content(), found.expires), (Ok(new.content), new.expires));
    assert_eq!(bench.sessions_of("ann"), ["a"]);
    assert_eq!(bench.store.size(), Ok(1));
}

pub fn update_never_creates<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    let session = plain("a", &ann, bench.in_millis(100));
    assert_eq!(bench.store.update(&session), Ok(false));
    bench.store.create(&session).unwrap();
    bench.store.delete(&id("a")).unwrap();
    assert_eq!(bench.store.update(&session), Ok(false));
    assert_eq!(bench.get("a"), None);
    assert!(bench.sessions_of("ann").is_empty());
}

pub fn touch_moves_only_the_expiry<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let before = bench.get("a").unwrap();
    let later = Expiry::moved_to(bench.clock.now() + 1000).unwrap();
    assert_eq!(bench.store.touch(&id("a"), later), Ok(true));
    bench.clock.advance(999);
    let after = bench.get("a").unwrap();
    assert_eq!((after.expires, after.content()), (later, before.content()));
    assert_eq!(bench.sessions_of("ann"), ["a"]);
    bench.clock.advance(1);
    assert_eq!(bench.get("a"), None);
}

pub fn touch_of_an_absent_or_expired_session_does_nothing<S: SessionStore>(bench: &Store<S>) {
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(100)), Ok(false));
    bench.log_in("a", "ann");
    bench.clock.advance(100);
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(100)), Ok(false));
    assert_eq!(bench.get("a"), None);
}

pub fn touch_into_the_past_ends_a_session<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(-1)), Ok(true));
    assert_eq!(bench.get("a"), None);
    assert_eq!(bench.store.clean(), Ok(1));
}

pub fn prolong_moves_only_the_expiry<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let before = bench.get("a").unwrap();
    let (now, later) = (bench.clock.now(), Expiry::moved_to(bench.clock.now() + 1000).unwrap());
    assert_eq!(bench.store.prolong(&id("a"), later, now + 101), Ok(true));
    let after = bench.get("a").unwrap();
    assert_eq!((after.expires, after.content()), (later, before.content()));
    assert_eq!(bench.sessions_of("ann"), ["a"]);
    bench.clock.advance(1000);
    assert_eq!(bench.get("a"), None);
    assert_eq!(bench.store.clean(), Ok(1));
}

pub fn prolong_leaves_an_expiry_that_is_enough<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let before = bench.get("a").unwrap();
    let now = bench.clock.now();
    for (lives_for, enough) in [(1000, 100), (1000, 99), (100, 100), (99, 99), (1, 1), (-1, -1)] {
        let expires = Expiry::moved_to(now + lives_for).unwrap();
        assert_eq!(bench.store.prolong(&id("a"), expires, now + enough), Ok(true));
        assert_eq!(bench.get("a"), Some(before.clone()));
    }
    bench.clock.advance(100);
    assert_eq!(bench.get("a"), None);
}

pub fn prolong_of_an_absent_or_expired_session_does_nothing<S: SessionStore>(bench: &Store<S>) {
    let prolong = || bench.store.prolong(&id("a"), bench.in_millis(100), bench.clock.now() + 100);
    assert_eq!(prolong(), Ok(false));
    bench.log_in("a", "ann");
    bench.clock.advance(100);
    assert_eq!(prolong(), Ok(false));
    assert_eq!(bench.get("a"), None);
    bench.log_in("a", "ann");
    bench.store.delete(&id("a")).unwrap();
    assert_eq!(prolong(), Ok(false));
    assert_eq!(bench.get("a"), None);
}

pub fn concurrent_prolongs_never_shorten_an_expiry<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let now = bench.clock.now();
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut latest = now;
                for round in 0..50 {
                    let until = now + 101 + (round * 7 + thread * 13) % 50;
                    let expires = Expiry::moved_to(until).unwrap();
                    assert_eq!(bench.store.prolong(&id("a"), expires, until), Ok(true));
                    let seen = bench.get("a").unwrap().expires.millis();
                    assert!(seen >= until.max(latest), "moved back");
                    latest = seen;
                }
            });
        }
    });
    assert_eq!(bench.get("a").unwrap().expires.millis(), now + 150);
}

pub fn delete_is_idempotent<S: SessionStore>(bench: &Store<S>) {
    assert_eq!(bench.store.delete(&id("a")), Ok(()));
    bench.log_in("a", "ann");
    bench.log_in("b", "ann");
    assert_eq!(bench.store.delete(&id("a")), Ok(()));
    assert_eq!(bench.store.delete(&id("a")), Ok(()));
    assert_eq!(bench.get("a"), None);
    assert_eq!(bench.sessions_of("ann"), ["b"]);
}

pub fn clean_removes_only_expired_sessions<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    for at in 0..5000 {
        let lives_for = if at % 2 == 0 { 100 } else { 200 };
        bench.store.create(&plain(&format!("{at:x}"), &ann, bench.in_millis(lives_for))).unwrap();
    }
    assert_eq!(bench.store.clean(), Ok(0));
    bench.clock.advance(100);
    assert_eq!(bench.store.clean(), Ok(2500));
    assert_eq!(bench.store.size(), Ok(2500));
    assert_eq!(bench.sessions_of("ann").len(), 2500);
    assert!(bench.get("1").is_some());
    bench.clock.advance(100);
    assert_eq!(bench.store.clean(), Ok(2500));
    assert!(matches!(bench.store.stats().unwrap().sessions, None | Some(0)));
}

pub fn clean_sees_sessions_that_were_touched<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("later", "ann");
    bench.log_in("sooner", "ann");
    bench.store.touch(&id("later"), bench.in_millis(1000)).unwrap();
    bench.store.touch(&id("sooner"), bench.in_millis(10)).unwrap();
    bench.clock.advance(10);
    assert_eq!(bench.store.clean(), Ok(1));
    bench.clock.advance(90);
    assert_eq!(bench.store.clean(), Ok(0));
    assert_eq!(bench.all_ids(), ["later"]);
}

pub fn sessions_are_found_by_user_oldest_first<S: SessionStore>(bench: &Store<S>) {
    let ids: Vec<String> = (0..50).map(|at| format!("{at:02}")).collect();
    for session_id in &ids {
        bench.log_in(session_id, "ann");
        bench.log_in(&format!("of ben {session_id}"), "ben");
    }
    // An update does not make a session younger.
    let ann = UserKeyBuf::from_text("ann");
    bench.store.update(&plain("07", &ann, bench.in_millis(500))).unwrap();
    assert_eq!(bench.sessions_of("ann"), ids);
    assert!(bench.sessions_of("nobody").is_empty());
}

pub fn the_index_follows_an_update_to_another_user<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let ben = UserKeyBuf::from_text("ben");
    bench.store.update(&plain("a", &ben, bench.in_millis(100))).unwrap();
    assert!(bench.sessions_of("ann").is_empty());
    assert_eq!(bench.sessions_of("ben"), ["a"]);
    bench.store.update(&json("a", None, "{}", bench.in_millis(100))).unwrap();
    assert!(bench.sessions_of("ben").is_empty());
    bench.store.update(&plain("a", &ben, bench.in_millis(100))).unwrap();
    assert_eq!(bench.sessions_of("ben"), ["a"]);
}

pub fn users_of_different_types_are_distinct<S: SessionStore>(bench: &Store<S>) {
    let (text, number) = (UserKeyBuf::from_text("42"), UserKeyBuf::from_canonical_json("42"));
    bench.store.create(&plain("text", &text, bench.in_millis(100))).unwrap();
    bench.store.create(&json("number", Some(&number), "{}", bench.in_millis(100))).unwrap();
    assert_eq!(bench.store.delete_by_user(number.as_key(), None), Ok(1));
    assert_eq!(bench.all_ids(), ["text"]);
}

pub fn anonymous_sessions_are_not_in_the_user_index<S: SessionStore>(bench: &Store<S>) {
    bench.store.create(&json("a", None, "{}", bench.in_millis(100))).unwrap();
    assert!(bench.sessions_of("").is_empty());
    let empty = UserKeyBuf::from_text("");
    bench.store.create(&plain("b", &empty, bench.in_millis(100))).unwrap();
    assert_eq!(bench.sessions_of(""), ["b"]);
}

pub fn delete_by_user_ends_live_sessions_and_counts_them<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    for session_id in ["a", "b", "c"] {
        bench.log_in(session_id, "ann");
    }
    bench.log_in("d", "ben");
    bench.store.touch(&id("a"), bench.in_millis(-1)).unwrap();
    assert_eq!(bench.store.delete_by_user(ann.as_key(), None), Ok(2));
    assert_eq!(bench.store.delete_by_user(ann.as_key(), None), Ok(0));
    assert_eq!(bench.all_ids(), ["d"]);
}

pub fn delete_by_user_keeps_the_excepted_one<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    for session_id in ["a", "b", "c"] {
        bench.log_in(session_id, "ann");
    }
    bench.log_in("d", "ben");
    assert_eq!(bench.store.delete_by_user(ann.as_key(), Some(&id("b"))), Ok(2));
    assert_eq!(bench.store.delete_by_user(ann.as_key(), Some(&id("d"))), Ok(1));
    assert_eq!(bench.all_ids(), ["d"]);
}

pub fn ids_returns_each_id_once<S: SessionStore>(bench: &Store<S>) {
    let mut ids: Vec<String> = (0..3000).map(|at| format!("session {at:04}")).collect();
    for session_id in &ids {
        bench.log_in(session_id, "ann");
    }
    assert_eq!(bench.all_ids(), ids);

    // The store may change during the scan. Sessions that stay are returned once.
    let (mut seen, mut cursor, mut round) = (Vec::new(), Some(Cursor::default()), 0);
    while let Some(at) = cursor {
        let (some, next) = bench.store.ids(at).unwrap();
        seen.extend(some.iter().map(ToString::to_string).filter(|id| id.starts_with("session")));
        bench.log_in(&format!("new {round}"), "ann");
        (cursor, round) = (next, round + 1);
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
}

pub fn clear_removes_everything<S: SessionStore>(bench: &Store<S>) {
    for at in 0..2000 {
        bench.log_in(&at.to_string(), &format!("user {}", at % 7));
    }
    bench.store.clear().unwrap();
    assert_eq!(bench.store.size(), Ok(0));
    assert!(bench.sessions_of("user 3").is_empty());
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.expired, stats.evicted), (0, 0));
    assert!(matches!(stats.sessions, None | Some(0)));
    bench.log_in("1", "ann");
    assert_eq!(bench.all_ids(), ["1"]);
}

pub fn stats_count<S: SessionStore>(bench: &Store<S>) {
    // A store that does not count its sessions never returns a count.
    let before = bench.store.stats().unwrap();
    let (sessions, bytes) = (before.sessions.map(|_| 0), before.bytes.map(|_| 0));
    let log = before.log;
    assert_eq!(before, super::Stats { sessions, bytes, log, ..super::Stats::default() });
    let if_known = |sessions: u64| before.sessions.map(|_| sessions);
    bench.log_in("a", "ann");
    bench.log_in("b", "ann");
    bench.get("a");
    bench.get("nobody");
    bench.store.touch(&id("b"), bench.in_millis(1)).unwrap();
    bench.clock.advance(1);
    bench.get("b");
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.sessions, stats.created, stats.hits, stats.misses), (if_known(2), 2, 1, 2));
    assert_eq!((stats.expired, stats.evicted, stats.last_sweep), (0, 0, None));
    // Drains a log into the data file, where the sessions take more bytes.
    bench.all_ids();
    let bytes = bench.store.stats().unwrap().bytes;
    bench.store.clean().unwrap();
    let stats = bench.store.stats().unwrap();
    let sweep = stats.last_sweep.unwrap();
    assert_eq!((stats.sessions, stats.expired), (if_known(1), 1));
    assert_eq!((sweep.at, sweep.removed), (bench.clock.now(), 1));
    assert!(stats.bytes <= bytes && stats.bytes != Some(0));
}

pub fn ids_are_compared_exactly<S: SessionStore>(bench: &Store<S>) {
    let ids = ["A", "a", "a ", "aa", "AA", "aA", "é", "e\u{301}", "../a", "a\u{0}", "a\u{0}b"];
    for (at, session_id) in ids.iter().enumerate() {
        bench.log_in(session_id, &at.to_string());
    }
    for (at, session_id) in ids.iter().enumerate() {
        assert_eq!(bench.sessions_of(&at.to_string()), [*session_id]);
    }
}

pub fn a_session_over_the_limit_is_refused_and_changes_nothing<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let ann = UserKeyBuf::from_text("ann");
    let too_large = "x".repeat(MAX_SESSION_BYTES + 1);
    let error = Err(StoreError::TooLarge { bytes: MAX_SESSION_BYTES + 1, max: MAX_SESSION_BYTES });
    let expires = bench.in_millis(100);
    assert_eq!(bench.store.create(&json("b", Some(&ann), &too_large, expires)), error);
    assert_eq!(bench.store.update(&json("a", Some(&ann), &too_large, expires)), error.map(|()| true));
    let just_right = "x".repeat(MAX_SESSION_BYTES);
    assert_eq!(bench.store.create(&json("c", Some(&ann), &just_right, expires)), Ok(()));
    assert_eq!(bench.sessions_of("ann"), ["a", "c"]);
}

pub fn any_expiry_of_javascript_is_kept<S: SessionStore>(bench: &Store<S>) {
    use crate::iso::MAX_MILLIS;
    let ann = UserKeyBuf::from_text("ann");
    bench.store.create(&plain("last", &ann, Expiry::new(MAX_MILLIS).unwrap())).unwrap();
    bench.store.create(&plain("first", &ann, Expiry::new(-MAX_MILLIS).unwrap())).unwrap();
    assert_eq!(bench.get("last").unwrap().expires.millis(), MAX_MILLIS);
    assert_eq!(bench.get("first"), None);
    assert_eq!(bench.store.clean(), Ok(1));
}

/// The name of a call that moves a session's end, and the call with an expiry.
type Mover<'a> = (&'static str, Box<dyn Fn(Expiry) -> bool + 'a>);

fn movers<S: SessionStore>(bench: &Store<S>) -> [Mover<'_>; 4] {
    let store = &bench.store;
    let text = r#"{"sessionId":"a","expires":0}"#;
    [
        ("touch", Box::new(|expires| store.touch(&id("a"), expires).unwrap())),
        ("prolong", Box::new(|expires| store.prolong(&id("a"), expires, expires.millis()).unwrap())),
        ("update", Box::new(|expires| store.update(&json("a", None, text, expires)).unwrap())),
        (
            "update of a plain one",
            Box::new(|expires| {
                let ann = UserKeyBuf::from_text("ann");
                store.update(&plain("a", &ann, expires)).unwrap()
            }),
        ),
    ]
}

pub fn create_ends_a_session_by_its_lifetime<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    let text = r#"{"sessionId":"b","expires":0}"#;
    bench.store.create(&plain("a", &ann, bench.in_millis(MAX_LIFETIME + 1))).unwrap();
    bench.store.create(&json("b", Some(&ann), text, bench.in_millis(1 << 40))).unwrap();
    bench.store.create(&plain("c", &ann, bench.in_millis(MAX_LIFETIME))).unwrap();
    bench.store.create(&plain("d", &ann, bench.in_millis(1))).unwrap();
    for (name, millis, was_moved) in
        [("a", MAX_LIFETIME, true), ("b", MAX_LIFETIME, true), ("c", MAX_LIFETIME, false), ("d", 1, false)]
    {
        let expires = bench.get(name).unwrap().expires;
        assert_eq!((expires.millis(), expires.was_moved()), (START + millis, was_moved), "{name}");
    }
    let found = bench.store.get_by_user(ann.as_key()).unwrap();
    assert_eq!(found[0].expires.millis(), START + MAX_LIFETIME);
    bench.clock.advance(MAX_LIFETIME - 1);
    assert_eq!(bench.all_ids(), ["a", "b", "c"]);
    bench.clock.advance(1);
    assert_eq!(bench.all_ids(), Vec::<String>::new());
}

pub fn no_call_moves_a_session_past_its_lifetime<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let mut last = START + 100;
    for (at, (call, move_to)) in movers(bench).iter().cycle().take(12).enumerate() {
        bench.clock.advance(83);
        assert!(move_to(bench.in_millis(if at < 6 { 200 } else { 5000 })), "{call}");
        let expires = bench.get("a").unwrap().expires.millis();
        assert_eq!(expires, (bench.clock.now() + if at < 6 { 200 } else { 5000 }).min(START + MAX_LIFETIME));
        last = expires;
    }
    assert_eq!(last, START + MAX_LIFETIME);
    bench.clock.advance(last - bench.clock.now());
    assert_eq!(bench.get("a"), None);
    for (call, move_to) in movers(bench) {
        assert!(!move_to(bench.in_millis(5000)), "{call}");
    }
}

pub fn a_session_within_its_lifetime_can_be_moved<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    for (call, move_to) in movers(bench) {
        for millis in [300, 200] {
            move_to(bench.in_millis(millis));
            let expected = if call == "prolong" { 300 } else { millis };
            assert_eq!(bench.get("a").unwrap().expires.millis(), START + expected, "{call}");
        }
    }
}

pub fn prolong_accepts_an_expiry_at_the_lifetime_limit<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    let far = bench.in_millis(MAX_LIFETIME + 500);
    for _ in 0..2 {
        assert_eq!(bench.store.prolong(&id("a"), far, far.millis() - 10), Ok(true));
        assert_eq!(bench.get("a").unwrap().expires.millis(), START + MAX_LIFETIME);
    }
    // It shortens a session only if that can still move.
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(50)), Ok(true));
    assert_eq!(bench.store.prolong(&id("a"), bench.in_millis(40), bench.clock.now() + 30), Ok(true));
    assert_eq!(bench.get("a").unwrap().expires.millis(), START + 50);
}

pub fn a_session_past_its_lifetime_is_absent_from_every_call<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(1 << 40)), Ok(true));
    bench.clock.advance(MAX_LIFETIME);
    assert_eq!((bench.get("a"), bench.sessions_of("ann")), (None, Vec::new()));
    assert_eq!((bench.store.size(), bench.all_ids()), (Ok(0), Vec::new()));
    assert_eq!(bench.store.clean(), Ok(1));
    assert_eq!(bench.store.delete_by_user(UserKeyBuf::from_text("ann").as_key(), None), Ok(0));
}

pub fn create_at_leaves_the_rest_of_the_lifetime<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    let create_at = |name: &str, created: Millis| {
        bench.store.create_at(&plain(name, &ann, bench.in_millis(5000)), START + created).unwrap();
    };
    create_at("old", 10 - MAX_LIFETIME);
    create_at("young", -10);
    create_at("past", -MAX_LIFETIME);
    create_at("to come", 5000);
    let ends = |name: &str| bench.get(name).map(|session| session.expires.millis() - START);
    assert_eq!((ends("young"), ends("old")), (Some(MAX_LIFETIME - 10), Some(10)));
    assert_eq!((ends("past"), ends("to come")), (None, Some(MAX_LIFETIME)));
    assert_eq!(bench.sessions_of("ann"), ["old", "young", "to come"]);
    bench.clock.advance(5);
    for name in ["young", "old"] {
        assert_eq!(bench.store.touch(&id(name), bench.in_millis(5000)), Ok(true));
    }
    assert_eq!((ends("young"), ends("old")), (Some(MAX_LIFETIME - 10), Some(10)));
    assert_eq!(bench.store.create_at(&plain("old", &ann, bench.in_millis(1)), 0), Err(StoreError::Exists));
}

pub fn sessions_returns_each_session_once_during_changes<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    let long = format!(r#"{{"padding":"{}"}}"#, "x".repeat(600));
    let end = bench.in_millis(10_000);
    let staying: Vec<String> = (0..700).map(|at| format!("session {at:03}")).collect();
    for session_id in &staying {
        bench.store.create(&plain(session_id, &ann, end)).unwrap();
    }
    for at in 0..300 {
        bench.store.create(&plain(&format!("leaving {at:03}"), &ann, end)).unwrap();
    }
    let (mut seen, mut cursor, mut round) = (Vec::new(), Some(Cursor::default()), 0);
    while let Some(at) = cursor {
        let page = bench.store.sessions(at).unwrap();
        assert_eq!(page.unreadable, 0);
        seen.extend(page.sessions.iter().map(|session| session.id.to_string()));
        // Records grow, shrink and disappear, and the tables change with them.
        for at in 0..60 {
            bench.store.create(&plain(&format!("new {round} {at}"), &ann, end)).unwrap();
            bench.store.delete(&id(&format!("leaving {:03}", (round * 60 + at) % 300))).unwrap();
            let changed = id(&staying[(at * 11 + round) % 700]);
            let text = if at % 2 == 0 { &long } else { "{}" };
            assert_eq!(bench.store.update(&json(&changed.to_string(), Some(&ann), text, end)), Ok(true));
            assert_eq!(bench.store.touch(&changed, bench.in_millis(20_000)), Ok(true));
        }
        (cursor, round) = (page.next, round + 1);
    }
    assert!(round > 2, "{round} pages");
    seen.sort();
    let all = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all, "none comes twice");
    seen.retain(|id| id.starts_with("session"));
    assert_eq!(seen, staying);
}

pub fn sessions_have_their_creation_time_and_expiry<S: SessionStore>(bench: &Store<S>) {
    let ann = UserKeyBuf::from_text("ann");
    bench.log_in("a", "ann");
    bench.clock.advance(30);
    bench.log_in("b", "ben");
    bench.store.create_at(&plain("c", &ann, bench.in_millis(400)), START - 5).unwrap();
    bench.store.create_at(&plain("early", &ann, bench.in_millis(1)), START).unwrap();
    bench.clock.advance(30);
    assert_eq!(bench.store.update(&json("a", Some(&ann), "{}", bench.in_millis(300))), Ok(true));
    assert_eq!(bench.store.touch(&id("b"), bench.in_millis(200)), Ok(true));
    let times = |sessions: &[StoredSession]| {
        let time =
            |session: &StoredSession| (session.id.to_string(), session.created, session.expires.millis());
        sessions.iter().map(time).collect::<Vec<_>>()
    };
    let page = bench.store.sessions(Cursor::default()).unwrap();
    let mut all = times(&page.sessions);
    let mut next = page.next;
    while let Some(at) = next {
        let page = bench.store.sessions(at).unwrap();
        all.extend(times(&page.sessions));
        next = page.next;
    }
    all.sort();
    let a = ("a".to_owned(), Some(START), START + 360);
    let b = ("b".to_owned(), Some(START + 30), START + 260);
    let c = ("c".to_owned(), Some(START - 5), START + 430);
    assert_eq!(all, [a.clone(), b, c.clone()]);
    let mut of_ann = times(&bench.store.get_by_user(ann.as_key()).unwrap());
    of_ann.sort();
    assert_eq!(of_ann, [a, c]);
}

pub fn sessions_returns_bounded_pages<S: SessionStore>(bench: &Store<S>) {
    const COUNT: usize = 400;
    /// The excess of a page: sessions that were requested before their size was known, and sessions with the same hash
    /// as the last one.
    const MORE: usize = 16 * MAX_SESSION_BYTES;
    let text = format!(r#"{{"padding":"{}"}}"#, "x".repeat(1500));
    for at in 0..COUNT {
        bench.store.create(&json(&format!("session {at}"), None, &text, bench.in_millis(10_000))).unwrap();
    }
    let (mut seen, mut cursor) = (0, Some(Cursor::default()));
    while let Some(at) = cursor {
        let page = bench.store.sessions(at).unwrap();
        let count = page.sessions.len();
        assert!(count <= MAX_PAGE_SESSIONS + 8, "{count} sessions");
        assert!(count * text.len() <= 2 * MAX_PAGE_BYTES + MORE, "{count} sessions");
        seen += count;
        cursor = page.next;
    }
    assert_eq!(seen, COUNT);
}

pub fn a_reused_id_gets_a_new_lifetime<S: SessionStore>(bench: &Store<S>) {
    bench.log_in("a", "ann");
    bench.clock.advance(60);
    bench.store.delete(&id("a")).unwrap();
    bench.log_in("a", "ann");
    bench.clock.advance(100);
    bench.log_in("a", "ann");
    assert_eq!(bench.store.touch(&id("a"), bench.in_millis(5000)), Ok(true));
    assert_eq!(bench.get("a").unwrap().expires.millis(), START + 160 + MAX_LIFETIME);
}

const FULL: Result<()> = Err(StoreError::TooManySessions { max: MAX_PER_USER });

impl<S: SessionStore> Bench<S> {
    /// The same as `log_in`, but may be refused.
    fn try_log_in(&self, session_id: &str, user: &str) -> Result<()> {
        self.store.create(&plain(session_id, &UserKeyBuf::from_text(user), self.in_millis(100)))
    }

    fn give(&self, session_id: &str, user: &str) -> Result<bool> {
        self.store.update(&plain(session_id, &UserKeyBuf::from_text(user), self.in_millis(200)))
    }

    fn fill(&self) {
        self.log_in("a", "ann");
        self.log_in("b", "ann");
    }
}

pub fn a_full_user_gets_no_more_sessions<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    let before = bench.store.stats().unwrap();
    assert_eq!(bench.try_log_in("c", "ann"), FULL);
    assert_eq!(bench.try_log_in("c", "ann"), FULL, "nor the second time");
    assert_eq!((bench.get("c"), bench.sessions_of("ann")), (None, vec!["a".into(), "b".into()]));
    let after = bench.store.stats().unwrap();
    assert_eq!((after.created, after.evicted), (before.created, 0));
    assert_eq!(bench.try_log_in("c", "ben"), Ok(()), "another user's");
    bench.store.create(&json("d", None, "{}", bench.in_millis(100))).unwrap();
    bench.store.delete(&id("a")).unwrap();
    assert_eq!(bench.try_log_in("e", "ann"), Ok(()));
    assert_eq!(bench.try_log_in("f", "ann"), FULL);
    assert_eq!(bench.store.delete_by_user(UserKeyBuf::from_text("ann").as_key(), None), Ok(2));
    assert_eq!(bench.try_log_in("f", "ann"), Ok(()));
    assert_eq!(bench.all_ids(), ["c", "d", "f"]);
}

pub fn expired_sessions_leave_room<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    bench.store.touch(&id("b"), bench.in_millis(500)).unwrap();
    bench.clock.advance(100);
    assert_eq!(bench.try_log_in("a", "ann"), Ok(()), "of the same id");
    assert_eq!(bench.try_log_in("c", "ann"), FULL);
    bench.clock.advance(400);
    assert_eq!((bench.try_log_in("c", "ann"), bench.try_log_in("d", "ann")), (Ok(()), Ok(())));
    assert_eq!(bench.try_log_in("e", "ann"), FULL);
    assert_eq!(bench.sessions_of("ann"), ["c", "d"]);
}

pub fn an_expired_session_needs_no_room<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    let ann = UserKeyBuf::from_text("ann");
    assert_eq!(bench.store.create(&plain("c", &ann, bench.in_millis(-1))), Ok(()));
    bench.log_in("d", "ben");
    assert_eq!(bench.store.update(&plain("d", &ann, bench.in_millis(-1))), Ok(true));
    assert_eq!((bench.get("c"), bench.get("d")), (None, None));
    assert_eq!(bench.sessions_of("ann"), ["a", "b"]);
}

pub fn a_session_of_a_full_user_may_change<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    assert_eq!(bench.give("a", "ann"), Ok(true));
    assert_eq!(bench.store.touch(&id("b"), bench.in_millis(300)), Ok(true));
    assert_eq!(bench.give("a", "ben"), Ok(true));
    assert_eq!(bench.give("a", "ann"), Ok(true), "it has left room");
    assert_eq!(bench.sessions_of("ann"), ["a", "b"]);
}

pub fn no_update_gives_a_full_user_one_more_session<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    bench.log_in("c", "ben");
    bench.store.create(&json("d", None, "{}", bench.in_millis(100))).unwrap();
    let before = ["c", "d"].map(|session_id| bench.get(session_id));
    for session_id in ["c", "d", "c"] {
        assert_eq!(bench.give(session_id, "ann").map(|_| ()), FULL);
    }
    assert_eq!(["c", "d"].map(|session_id| bench.get(session_id)), before);
    assert_eq!(
        (bench.sessions_of("ann"), bench.sessions_of("ben")),
        (vec!["a".into(), "b".into()], vec!["c".into()])
    );
    assert_eq!(bench.give("e", "ann"), Ok(false), "an absent session is no more than that");
    bench.store.delete(&id("b")).unwrap();
    assert_eq!(bench.give("c", "ann"), Ok(true));
    assert_eq!(bench.give("d", "ann").map(|_| ()), FULL);
    assert_eq!((bench.sessions_of("ann"), bench.sessions_of("ben")), (vec!["a".into(), "c".into()], vec![]));
}

pub fn a_live_session_with_the_id_is_reported_before_a_full_user<S: SessionStore>(bench: &Store<S>) {
    bench.fill();
    assert_eq!(bench.try_log_in("a", "ann"), Err(StoreError::Exists));
    bench.log_in("c", "ben");
    assert_eq!(bench.try_log_in("c", "ann"), Err(StoreError::Exists));
}

pub fn concurrent_logins_never_exceed_the_limit<S: SessionStore>(bench: &Store<S>) {
    concurrently(bench, |name| bench.try_log_in(name, "ann"));
}

pub fn concurrent_changes_of_user_never_exceed_the_limit<S: SessionStore>(bench: &Store<S>) {
    concurrently(bench, |name| {
        bench.log_in(name, name);
        bench.give(name, "ann").map(|_| ())
    });
}

/// Creates sessions for ann from several threads, and ends them when she has reached the limit.
fn concurrently<S: SessionStore>(bench: &Store<S>, log_in: impl Fn(&str) -> Result<()> + Sync) {
    for round in 0..20 {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let log_in = &log_in;
            let each = |at| scope.spawn(move || log_in(&format!("{round} {at}")));
            let threads: Vec<_> = (0..6).map(each).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| *outcome == Ok(()));
        assert_eq!((done.len(), bench.sessions_of("ann").len()), (MAX_PER_USER, MAX_PER_USER));
        assert!(refused.iter().all(|outcome| *outcome == FULL), "{refused:?}");
        bench.store.clear().unwrap();
    }
}

/// `RedisStore` and `FileStore` open as an `Arc`, but the suite needs a `SessionStore`.
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        (**self).create(session)
    }

    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        (**self).create_at(session, created)
    }

    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        (**self).get(id)
    }

    fn update(&self, session: &Session<'_>) -> Result<bool> {
        (**self).update(session)
    }

    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        (**self).touch(id, expires)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        (**self).prolong(id, expires, enough)
    }

    fn delete(&self, id: &SessionId) -> Result<()> {
        (**self).delete(id)
    }

    fn clean(&self) -> Result<u64> {
        (**self).clean()
    }

    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        (**self).get_by_user(user)
    }

    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        (**self).delete_by_user(user, except)
    }

    fn size(&self) -> Result<u64> {
        (**self).size()
    }

    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        (**self).ids(after)
    }

    fn sessions(&self, after: Cursor) -> Result<Page> {
        (**self).sessions(after)
    }

    fn clear(&self) -> Result<()> {
        (**self).clear()
    }

    fn stats(&self) -> Result<Stats> {
        (**self).stats()
    }
}
