//! Performs random operations on a store and on a simple model. Both must agree after each operation.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use native_store::clock::{Clock, Millis, MockClock};
use native_store::error::StoreError;
use native_store::lifetime::Lifetime;
use native_store::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};
use native_store::store::file::{FileOptions, Secret};
use native_store::store::memory::{Limits, MemoryStore};
use native_store::store::redis::{Address, Login, RedisOptions, Servers};
use native_store::store::{Cursor, FileStore, RedisStore, SessionStore, WhenUserIsFull};
use proptest::prelude::*;

mod redis;

#[derive(Debug, Clone)]
enum Op {
    Create { id: u8, user: Option<u8>, lives_for: Millis, padding: usize },
    Update { id: u8, user: Option<u8>, lives_for: Millis, padding: usize },
    Get { id: u8 },
    Touch { id: u8, lives_for: Millis },
    Prolong { id: u8, lives_for: Millis, enough: Millis },
    Delete { id: u8 },
    DeleteByUser { user: u8, except: Option<u8> },
    Clean,
    Clear,
    Wait { millis: Millis },
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..12_u8;
    let user = proptest::option::weighted(0.7, 0..4_u8);
    let lives_for = -5..60_i64;
    let padding = prop_oneof![4 => Just(0_usize), 1 => 1..400_usize];
    prop_oneof![
        6 => (id.clone(), user.clone(), lives_for.clone(), padding.clone())
            .prop_map(|(id, user, lives_for, padding)| Op::Create { id, user, lives_for, padding }),
        3 => (id.clone(), user, lives_for.clone(), padding)
            .prop_map(|(id, user, lives_for, padding)| Op::Update { id, user, lives_for, padding }),
        3 => id.clone().prop_map(|id| Op::Get { id }),
        2 => (id.clone(), lives_for.clone()).prop_map(|(id, lives_for)| Op::Touch { id, lives_for }),
        2 => (id.clone(), lives_for.clone(), lives_for)
            .prop_map(|(id, lives_for, enough)| Op::Prolong { id, lives_for, enough }),
        2 => id.clone().prop_map(|id| Op::Delete { id }),
        1 => (0..4_u8, proptest::option::of(id))
            .prop_map(|(user, except)| Op::DeleteByUser { user, except }),
        1 => Just(Op::Clean),
        1 => (1..30_i64).prop_map(|millis| Op::Wait { millis }),
        1 => Just(Op::Clear),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = |range: std::ops::Range<usize>| {
        proptest::option::of(range).prop_map(|max: Option<usize>| max.and_then(NonZeroUsize::new))
    };
    (limit(1..5), when_user_is_full(), limit(1..8), max_lifetime()).prop_map(
        |(max_sessions_per_user, when_user_is_full, max_sessions, max_lifetime)| Limits {
            max_sessions_per_user,
            when_user_is_full,
            max_sessions,
            max_lifetime,
            ..Limits::default()
        },
    )
}

fn when_user_is_full() -> impl Strategy<Value = WhenUserIsFull> {
    prop_oneof![Just(WhenUserIsFull::EndOldest), Just(WhenUserIsFull::Reject)]
}

fn max_lifetime() -> impl Strategy<Value = Lifetime> {
    proptest::option::of(1..90_u64).prop_map(Lifetime::new)
}

/// A session of the model.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    id: u8,
    user: Option<u8>,
    expires: Millis,
    text: String,
    created: u64,
    created_at: Millis,
    used: u64,
}

/// The simplest implementation of the contract: a list of live sessions. Expired sessions are removed immediately.
struct Model {
    live: Vec<Entry>,
    limits: Limits,
    ticks: u64,
    evicted: u64,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn expire(&mut self, now: Millis) {
        self.live.retain(|entry| entry.expires > now);
    }

    /// The expiry within `maxLifetime`.
    fn end(&self, expires: Millis, created_at: Millis) -> Millis {
        self.limits.max_lifetime.max().map_or(expires, |max| expires.min(created_at + max as Millis))
    }

    fn end_of(&mut self, id: u8, expires: Millis) -> Millis {
        let created_at = self.find(id).map_or(0, |entry| entry.created_at);
        self.end(expires, created_at)
    }

    fn find(&mut self, id: u8) -> Option<&mut Entry> {
        self.live.iter_mut().find(|entry| entry.id == id)
    }

    fn create(&mut self, entry: Entry, now: Millis) -> Result<(), &'static str> {
        if self.find(entry.id).is_some() {
            return Err("ERR_SESSION_EXISTS");
        }
        if entry.expires <= now {
            return Ok(());
        }
        let entry = Entry { created: self.tick(), used: self.tick(), ..entry };
        let entry = Entry { expires: self.end(entry.expires, entry.created_at), ..entry };
        self.make_room(&entry, None)?;
        self.live.push(entry);
        Ok(())
    }

    fn update(&mut self, entry: Entry, now: Millis) -> Result<bool, &'static str> {
        let Some(at) = self.live.iter().position(|old| old.id == entry.id) else { return Ok(false) };
        if entry.expires <= now {
            self.live.remove(at);
            return Ok(true);
        }
        let Entry { created, created_at, .. } = self.live[at];
        let expires = self.end(entry.expires, created_at);
        let entry = Entry { created, created_at, expires, used: self.tick(), ..entry };
        self.make_room(&entry, Some(entry.id))?;
        self.live.retain(|old| old.id != entry.id);
        self.live.push(entry);
        Ok(true)
    }

    /// Ends sessions to make room for a new one. Changes nothing if it returns an error.
    fn make_room(&mut self, new: &Entry, replaces: Option<u8>) -> Result<(), &'static str> {
        let mut rest: Vec<Entry> =
            self.live.iter().filter(|entry| Some(entry.id) != replaces).cloned().collect();
        let others = rest.len();
        if let (Some(user), Some(max)) = (new.user, self.limits.max_sessions_per_user) {
            while rest.iter().filter(|entry| entry.user == Some(user)).count() >= max.get() {
                if self.limits.when_user_is_full == WhenUserIsFull::Reject {
                    let is_theirs = |old: &Entry| Some(old.id) == replaces && old.user == Some(user);
                    if self.live.iter().any(is_theirs) {
                        break;
                    }
                    return Err("ERR_TOO_MANY_SESSIONS");
                }
                let of_user = rest.iter().filter(|entry| entry.user == Some(user));
                let oldest = of_user.min_by_key(|entry| entry.created).unwrap().id;
                rest.retain(|entry| entry.id != oldest);
            }
        }
        while self.limits.max_sessions.is_some_and(|max| rest.len() >= max.get()) {
            let candidates = rest.iter().filter(|entry| entry.user.is_none() || new.user.is_some());
            let first =
                candidates.min_by_key(|entry| (entry.user.is_some(), entry.used)).map(|entry| entry.id);
            let Some(first) = first else { return Err("ERR_STORE_FULL") };
            rest.retain(|entry| entry.id != first);
        }
        self.evicted += (others - rest.len()) as u64;
        self.live.retain(|entry| Some(entry.id) == replaces || rest.iter().any(|other| other.id == entry.id));
        Ok(())
    }
}

fn session_id(id: u8) -> SessionId {
    // Packed and unpacked ids in one table.
    SessionId::new(&if id.is_multiple_of(2) { format!("{id:036x}") } else { format!("session {id}") })
        .unwrap()
}

fn user_key(user: u8) -> UserKeyBuf {
    UserKeyBuf::from_text(&format!("user {user}"))
}

/// Makes a session for the store and the entry for the model, and passes both to `call`.
fn with_session<T>(
    (id, user, lives_for, padding): (u8, Option<u8>, Millis, usize),
    now: Millis,
    call: impl FnOnce(&Session<'_>, Entry) -> T,
) -> T {
    let text = format!(r#"{{"sessionId":"{}","expires":0,"x":"{}"}}"#, session_id(id), "x".repeat(padding));
    let key = user.map(user_key);
    let body = Body::Json { text: &text, expires: ExpiresForm::Text };
    let content = Content { user: key.as_ref().map(UserKeyBuf::as_key), body };
    let expires = Expiry::new(now + lives_for).unwrap();
    let session = Session { id: session_id(id), expires, content };
    let (expires, created_at) = (expires.millis(), now);
    let entry = Entry { id, user, expires, text: text.clone(), created: 0, created_at, used: 0 };
    call(&session, entry)
}

fn apply(op: &Op, store: &dyn SessionStore, clock: &MockClock, model: &mut Model) {
    let now = clock.now();
    model.expire(now);
    let code = |error: StoreError| error.code();
    match *op {
        Op::Create { id, user, lives_for, padding } => {
            with_session((id, user, lives_for, padding), now, |session, entry| {
                assert_eq!(store.create(session).map_err(code), model.create(entry, now))
            })
        }
        Op::Update { id, user, lives_for, padding } => {
            with_session((id, user, lives_for, padding), now, |session, entry| {
                assert_eq!(store.update(session).map_err(code), model.update(entry, now))
            })
        }
        Op::Get { id } => {
            let used = model.tick();
            let expected = model.find(id);
            let found = store.get(&session_id(id)).unwrap();
            assert_eq!(found.is_some(), expected.is_some());
            if let Some(entry) = expected {
                entry.used = used;
            }
        }
        Op::Touch { id, lives_for } => {
            let used = model.tick();
            let expires = model.end_of(id, now + lives_for);
            let expected = model.find(id);
            let touched = store.touch(&session_id(id), Expiry::moved_to(now + lives_for).unwrap()).unwrap();
            assert_eq!(touched, expected.is_some());
            if let Some(entry) = expected {
                (entry.used, entry.expires) = (used, expires);
            }
        }
        Op::Prolong { id, lives_for, enough } => {
            let used = model.tick();
            let (end, enough_end) = (model.end_of(id, now + lives_for), model.end_of(id, now + enough));
            let expected = model.find(id);
            let expires = Expiry::moved_to(now + lives_for).unwrap();
            assert_eq!(store.prolong(&session_id(id), expires, now + enough), Ok(expected.is_some()));
            if let Some(entry) = expected {
                entry.used = used;
                if entry.expires < enough_end {
                    entry.expires = end;
                }
            }
        }
        Op::Delete { id } => {
            store.delete(&session_id(id)).unwrap();
            model.live.retain(|entry| entry.id != id);
        }
        Op::DeleteByUser { user, except } => {
            let before = model.live.len();
            model.live.retain(|entry| entry.user != Some(user) || Some(entry.id) == except);
            let except = except.map(session_id);
            let ended = store.delete_by_user(user_key(user).as_key(), except.as_ref()).unwrap();
            assert_eq!(ended, (before - model.live.len()) as u64);
        }
        Op::Clean => {
            store.clean().unwrap();
            let live = model.live.len() as u64;
            assert_eq!(store.size().unwrap(), live);
            // RedisStore does not report this number.
            assert!(store.stats().unwrap().sessions.is_none_or(|sessions| sessions == live));
        }
        Op::Clear => {
            store.clear().unwrap();
            model.live.clear();
        }
        Op::Wait { millis } => clock.advance(millis),
    }
    model.expire(clock.now());
}

/// Compares the store with the model, only with calls that do not count as a use of a session.
fn compare(store: &dyn SessionStore, model: &Model) {
    let ids = all_ids(store);
    let mut expected: Vec<SessionId> = model.live.iter().map(|entry| session_id(entry.id)).collect();
    expected.sort();
    assert_eq!(ids, expected);
    assert_eq!(store.size(), Ok(model.live.len() as u64));
    for user in 0..4 {
        let mut expected: Vec<&Entry> = model.live.iter().filter(|entry| entry.user == Some(user)).collect();
        expected.sort_by_key(|entry| entry.created);
        let found = store.get_by_user(user_key(user).as_key()).unwrap();
        assert_eq!(found.len(), expected.len());
        for (session, entry) in found.iter().zip(expected) {
            let Body::Json { text, .. } = session.content().unwrap().body else { panic!("another body") };
            assert_eq!(
                (&session.id, session.expires.millis(), text),
                (&session_id(entry.id), entry.expires, &*entry.text)
            );
        }
    }
    let mut expected: Vec<_> = model
        .live
        .iter()
        .map(|entry| (session_id(entry.id), Some(entry.created_at), entry.expires, entry.text.clone()))
        .collect();
    expected.sort();
    assert_eq!(all_sessions(store), expected);
    let stats = store.stats().unwrap();
    assert_eq!(stats.evicted, model.evicted);
    assert!(model.limits.max_sessions.is_none_or(|max| stats.sessions <= Some(max.get() as u64)));
}

fn all_ids(store: &dyn SessionStore) -> Vec<SessionId> {
    let (mut ids, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let (some, next) = store.ids(at).unwrap();
        ids.extend(some);
        cursor = next;
    }
    ids.sort();
    ids
}

/// Returns the id, creation time, expiry and text of each session.
fn all_sessions(store: &dyn SessionStore) -> Vec<(SessionId, Option<Millis>, Millis, String)> {
    let (mut sessions, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let page = store.sessions(at).unwrap();
        assert_eq!(page.unreadable, 0);
        sessions.extend(page.sessions.iter().map(|session| {
            let Body::Json { text, .. } = session.content().unwrap().body else { panic!("another body") };
            (session.id.clone(), session.created, session.expires.millis(), text.to_owned())
        }));
        cursor = page.next;
    }
    sessions.sort();
    sessions
}

/// Applies an operation to a store with `maxBytes`. The number of evicted sessions depends on the layout of the tables,
/// so it is taken from the store. The model determines which sessions they must be.
fn apply_within_bytes(op: &Op, store: &dyn SessionStore, clock: &MockClock, model: &mut Model) {
    let (is_update, parts) = match *op {
        Op::Create { id, user, lives_for, padding } => (false, (id, user, lives_for, padding)),
        Op::Update { id, user, lives_for, padding } => (true, (id, user, lives_for, padding)),
        _ => return apply(op, store, clock, model),
    };
    let now = clock.now();
    model.expire(now);
    with_session(parts, now, |session, entry| {
        let stored = if is_update { store.update(session) } else { store.create(session).map(|()| true) };
        if stored == Err(StoreError::Exists) || stored == Ok(false) {
            return assert_eq!(model.find(entry.id).is_some(), !is_update);
        }
        if let Err(error) = stored {
            // A session without a user evicts no session of a user, so there may be no room for it.
            assert_eq!((error.code(), entry.user), ("ERR_STORE_FULL", None), "{error}");
            return assert!(model.live.iter().any(|other| other.user.is_some()));
        }
        let ids = all_ids(store);
        let replaced = model.find(entry.id).map(|old| (old.created, old.created_at));
        model.live.retain(|other| other.id != entry.id);
        model.live.sort_by_key(|other| (other.user.is_some(), other.used));
        let evicted = model.live.iter().filter(|other| !ids.contains(&session_id(other.id))).count();
        let removed: Vec<Entry> = model.live.drain(..evicted).collect();
        assert!(entry.user.is_some() || removed.iter().all(|other| other.user.is_none()));
        model.evicted += evicted as u64;
        if entry.expires > now {
            // An update keeps the creation time. A creation may replace an expired session.
            let kept = replaced.filter(|_| is_update);
            let (created, created_at) = kept.unwrap_or_else(|| (model.tick(), entry.created_at));
            let used = model.tick();
            model.live.push(Entry { created, created_at, used, ..entry });
        }
    });
}

/// Creates a temporary directory, in memory if possible: these tests need no real disk.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_memory_store_with_limits_agrees_with_its_model(
        limits in limits(),
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let clock = Arc::new(MockClock::new(1_000_000));
        let store = MemoryStore::new(limits, clock.clone());
        let mut model = Model { live: Vec::new(), limits, ticks: 0, evicted: 0 };
        for op in &ops {
            apply(op, &store, &clock, &mut model);
            compare(&store, &model);
        }
    }

    #[test]
    fn a_memory_store_with_max_bytes_keeps_the_limit_and_the_eviction_order(
        max_bytes in 3000..12_000_usize,
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        // A session without a user may need one more chunk than planned, and evicts no session of a user for it.
        const SLACK: usize = 5000;
        let clock = Arc::new(MockClock::new(1_000_000));
        let limits = Limits { max_bytes: NonZeroUsize::new(max_bytes), ..Limits::default() };
        let store = MemoryStore::new(limits, clock.clone());
        let mut model = Model { live: Vec::new(), limits: Limits::default(), ticks: 0, evicted: 0 };
        for op in &ops {
            apply_within_bytes(op, &store, &clock, &mut model);
            compare(&store, &model);
            let bytes = store.stats().unwrap().bytes.unwrap() as usize;
            let has_visitors = ops.iter().any(|op| {
                matches!(op, Op::Create { user: None, .. } | Op::Update { user: None, .. })
            });
            prop_assert!(bytes <= max_bytes + if has_visitors { SLACK } else { 0 }, "{} bytes", bytes);
        }
    }

    #[test]
    fn a_memory_store_without_limits_agrees_with_its_model(ops in proptest::collection::vec(op(), 1..120)) {
        let clock = Arc::new(MockClock::new(1_000_000));
        let store = MemoryStore::new(Limits::default(), clock.clone());
        let mut model = Model { live: Vec::new(), limits: Limits::default(), ticks: 0, evicted: 0 };
        for op in &ops {
            apply(op, &store, &clock, &mut model);
            compare(&store, &model);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_file_store_agrees_with_its_model(
        max_sessions_per_user in proptest::option::of(1..5_usize),
        when_user_is_full in when_user_is_full(),
        max_lifetime in max_lifetime(),
        is_encrypted in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..80),
        reopened_after in proptest::collection::vec(0..80_usize, 0..3),
    ) {
        let clock = Arc::new(MockClock::new(1_000_000));
        let dir = directory();
        let limits = Limits {
            max_sessions_per_user: max_sessions_per_user.and_then(NonZeroUsize::new),
            when_user_is_full,
            max_lifetime,
            ..Limits::default()
        };
        let mut options = FileOptions {
            path: dir.path().into(),
            secrets: if is_encrypted { vec![Secret::new(vec![7; 32])] } else { Vec::new() },
            max_sessions_per_user: limits.max_sessions_per_user,
            when_user_is_full: Some(when_user_is_full),
            max_lifetime: max_lifetime.max(),
            sweep_interval: Some(0),
            ..FileOptions::default()
        };
        let mut store = FileStore::open_at(&options, clock.clone()).unwrap();
        let mut model = Model { live: Vec::new(), limits, ticks: 0, evicted: 0 };
        for (at, op) in ops.iter().enumerate() {
            apply(op, &*store, &clock, &mut model);
            compare(&*store, &model);
            if reopened_after.contains(&at) {
                drop(store);
                if is_encrypted {
                    // A new secret is first added as the last one, and later moved to the front. All sessions stay
                    // readable.
                    match options.secrets.len() {
                        1 => options.secrets.push(Secret::new(vec![8; 32])),
                        _ => options.secrets.reverse(),
                    }
                }
                store = FileStore::open_at(&options, clock.clone()).unwrap();
                model.evicted = 0;
                compare(&*store, &model);
            }
        }
        let seen = store.verify(&mut |_, _| ()).unwrap();
        prop_assert_eq!(seen.problems, Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_redis_store_agrees_with_its_model(
        max_sessions_per_user in proptest::option::of(1..5_usize),
        when_user_is_full in when_user_is_full(),
        max_lifetime in max_lifetime(),
        is_encrypted in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        static PREFIXES: AtomicU64 = AtomicU64::new(0);
        // Without a server this test is skipped.
        if let Some(port) = redis::port() {
            let clock = Arc::new(MockClock::new(1_000_000));
            let limits = Limits {
                max_sessions_per_user: max_sessions_per_user.and_then(NonZeroUsize::new),
                when_user_is_full,
                max_lifetime,
                ..Limits::default()
            };
            let address = Address { host: "127.0.0.1".into(), port };
            let servers = Servers::Single { address, login: Login::default() };
            let options = RedisOptions {
                prefix: format!("{}:", PREFIXES.fetch_add(1, Ordering::Relaxed)),
                secrets: if is_encrypted { vec![Secret::new(vec![7; 32])] } else { Vec::new() },
                max_sessions_per_user: limits.max_sessions_per_user,
                when_user_is_full,
                max_lifetime: max_lifetime.max(),
                sweep_interval: Some(0),
                command_timeout: Duration::from_secs(10),
                ..RedisOptions::new(servers)
            };
            let store = RedisStore::open_at(&options, clock.clone(), Duration::from_secs(600)).unwrap();
            let mut model = Model { live: Vec::new(), limits, ticks: 0, evicted: 0 };
            for op in &ops {
                apply(op, &*store, &clock, &mut model);
                compare(&*store, &model);
            }
        }
    }
}
