//! The files of a FileStore stay within `maxBytes`, whatever ends its sessions.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use native_store::clock::{Clock, Millis, MockClock};
use native_store::error::{Result, StoreError};
use native_store::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};
use native_store::store::file::{FileOptions, Secret};
use native_store::store::{Answer, Completions, FileStore, SessionStore};
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const SIZES: [u64; 2] = [MIB, 4 * MIB];
/// Sizes of the content in bytes. Small records share a page, and large ones take several.
const CONTENTS: [usize; 3] = [0, 1000, 20_000];
const START: Millis = 1_000_000;
const USERS: u64 = 8;

/// Collects the results, with their tickets.
#[derive(Default)]
struct Results(Mutex<Vec<(u32, Result<u64>)>>);

impl Completions for Results {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        let numbers = done.into_iter().map(|(ticket, answer)| match answer {
            Ok(Answer::Number(number)) => (ticket, Ok(number)),
            Ok(Answer::Session(_)) => panic!("a write returned a session"),
            Err(error) => (ticket, Err(error)),
        });
        self.0.lock().unwrap().extend(numbers);
    }
}

/// The id of a live session, and the number of its user.
type Live = (SessionId, u64);

struct Fixture {
    store: Arc<FileStore>,
    clock: Arc<MockClock>,
    max_bytes: u64,
    content: usize,
    made: u64,
    random: u64,
    users: u64,
    live: Vec<Live>,
    dir: TempDir,
}

impl Fixture {
    fn new(max_bytes: u64, content: usize) -> Self {
        // These tests need no real disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let clock = Arc::new(MockClock::new(START));
        let store = open(dir.path(), max_bytes, &clock);
        Self { store, clock, max_bytes, content, made: 0, random: 1, users: USERS, live: Vec::new(), dir }
    }

    fn filled(max_bytes: u64, content: usize) -> Self {
        let mut fixture = Self::new(max_bytes, content);
        fixture.fill();
        fixture
    }

    /// Closes the store, and opens another one in the same folder.
    fn reopen(&mut self, another: impl FnOnce(Arc<MockClock>) -> Arc<FileStore>) {
        let spare = tempfile::tempdir().unwrap();
        self.store = open(spare.path(), MIB, &self.clock);
        self.store = another(self.clock.clone());
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.random >> 33) % end
    }

    /// Makes a session of a random user, and passes it to `call`.
    fn with_session<T>(&mut self, call: impl FnOnce(&FileStore, &Session<'_>) -> T) -> (Live, T) {
        let name = format!("{:08x}{:010x}", self.below(1 << 31), self.made);
        self.made += 1;
        let live = (SessionId::new(&name).unwrap(), self.below(self.users));
        let expires = self.clock.now() + 100;
        let result = with_session(&live, self.content, expires, |session| call(&self.store, session));
        (live, result)
    }

    /// Creates sessions in one batch, and returns how many of them were refused.
    fn create(&mut self, count: usize) -> usize {
        let (results, mut drawn) = (Arc::new(Results::default()), Vec::new());
        for ticket in 0..count as u32 {
            let to: Arc<dyn Completions> = results.clone();
            let start = |store: &FileStore, session: &Session<'_>| store.begin_create(session, &to, ticket);
            let (live, started) = self.with_session(start);
            started.unwrap();
            drawn.push(live);
        }
        self.store.flush().unwrap();
        let mut refused = 0;
        for (ticket, outcome) in results.0.lock().unwrap().drain(..) {
            match outcome {
                Ok(_) => self.live.push(drawn[ticket as usize].clone()),
                Err(StoreError::Full(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        refused
    }

    /// Creates sessions until one is refused, and returns how many were created.
    fn fill(&mut self) -> usize {
        const BATCH: usize = 20;
        let before = self.live.len();
        while self.create(BATCH) == 0 {}
        self.live.len() - before
    }

    /// Deletes random sessions in one batch.
    fn delete(&mut self, count: usize) {
        for at in 0..count {
            let other = at + self.below((self.live.len() - at) as u64) as usize;
            self.live.swap(at, other);
        }
        let results = Arc::new(Results::default());
        let to: Arc<dyn Completions> = results.clone();
        for (id, _) in self.live.drain(..count) {
            assert!(self.store.begin_delete(&id, &to, 0).unwrap());
        }
        self.store.flush().unwrap();
        assert_eq!(*results.0.lock().unwrap(), vec![(0, Ok(1)); count]);
    }

    fn delete_by_user(&mut self, of: u64) {
        let before = self.live.len();
        self.live.retain(|(_, user)| *user != of);
        let ended = self.store.delete_by_user(user(of).as_key(), None).unwrap();
        assert_eq!(ended, (before - self.live.len()) as u64);
    }

    fn apply(&mut self, op: &Op) {
        let now = self.clock.now();
        match *op {
            Op::Create { content, count } => {
                self.content = content;
                self.create(count);
            }
            Op::Update { content } => {
                if let Some(live) = self.draw() {
                    let update = |session: &Session<'_>| self.store.update(session);
                    match with_session(&live, content, now + 100, update) {
                        Ok(updated) => assert!(updated),
                        Err(error) => assert!(matches!(error, StoreError::Full(_)), "{error}"),
                    }
                }
            }
            Op::Touch { count, lives_for } => {
                for _ in 0..count {
                    let expires = Expiry::moved_to(now + lives_for).unwrap();
                    let Some((id, _)) = self.draw() else { return };
                    assert_eq!(self.store.touch(&id, expires), Ok(true));
                }
            }
            Op::Delete { share } => self.delete(self.live.len() / share),
            Op::DeleteByUser { user } => self.delete_by_user(user),
            Op::Clean { after } => {
                self.clock.advance(after);
                self.store.clean().unwrap();
                self.live.retain(|(id, _)| self.store.get(id).unwrap().is_some());
            }
            Op::Clear => {
                self.store.clear().unwrap();
                self.live.clear();
            }
        }
    }

    fn draw(&mut self) -> Option<Live> {
        let at = self.below(self.live.len().max(1) as u64) as usize;
        self.live.get(at).cloned()
    }

    /// Checks the limit and the sessions. The file never shrinks, so its present size is its maximum.
    fn check(&self, what: &str) {
        let length = self.dir.path().join("data.mdb").metadata().unwrap().len();
        let file = self.store.file_bytes().unwrap().max(length);
        let ratio = file as f64 / self.max_bytes as f64;
        let what = format!("{what}: {ratio:.3} of {}, content of {}", self.max_bytes, self.content);
        assert!(ratio <= 1.0, "{what}");
        assert_eq!(self.store.size(), Ok(self.live.len() as u64), "{what}");
        assert_eq!(self.store.verify(&mut |_, _| ()).unwrap().problems, [""; 0], "{what}");
    }
}

fn open(dir: &Path, max_bytes: u64, clock: &Arc<MockClock>) -> Arc<FileStore> {
    let max_bytes = NonZeroU64::new(max_bytes);
    let options =
        FileOptions { path: dir.into(), max_bytes, sweep_interval: Some(0), ..FileOptions::default() };
    FileStore::open_at(&options, clock.clone()).unwrap()
}

fn user(of: u64) -> UserKeyBuf {
    UserKeyBuf::from_text(&format!("user {of}"))
}

fn with_session<T>(live: &Live, content: usize, expires: Millis, call: impl FnOnce(&Session<'_>) -> T) -> T {
    let (id, of) = live;
    let content = "x".repeat(content);
    let text = format!(r#"{{"sessionId":"{id}","userId":"user {of}","expires":1,"x":"{content}"}}"#);
    let user = user(*of);
    let body = Body::Json { text: &text, expires: ExpiresForm::Text };
    let content = Content { user: Some(user.as_key()), body };
    call(&Session { id: id.clone(), expires: Expiry::new(expires).unwrap(), content })
}

fn for_each(test: impl Fn(Fixture)) {
    for max_bytes in SIZES {
        for content in CONTENTS {
            test(Fixture::filled(max_bytes, content));
        }
    }
}

#[test]
fn delete_by_user_stays_within_max_bytes() {
    for_each(|mut fixture| {
        for of in 0..USERS {
            fixture.delete_by_user(of);
        }
        fixture.check("after deleteByUser of each");
        assert_eq!(fixture.live.len(), 0);
        assert!(fixture.fill() > 10);
        fixture.check("filled again");
    });
}

#[test]
fn a_sweep_stays_within_max_bytes() {
    for_each(|mut fixture| {
        fixture.clock.advance(100);
        assert_eq!(fixture.store.clean(), Ok(fixture.live.len() as u64));
        fixture.live.clear();
        fixture.check("after clean");
    });
}

#[test]
fn touches_and_a_sweep_after_them_stay_within_max_bytes() {
    for_each(|mut fixture| {
        let later = Expiry::moved_to(START + 1000).unwrap();
        let (mut touched, mut others) = (Vec::new(), 0);
        for (at, live) in fixture.live.iter().enumerate() {
            if at % 2 == 0 {
                assert_eq!(fixture.store.touch(&live.0, later), Ok(true));
                touched.push(live.clone());
            } else {
                others += 1;
            }
        }
        fixture.check("after touches");
        fixture.clock.advance(100);
        assert_eq!(fixture.store.clean(), Ok(others));
        fixture.live = touched;
        fixture.check("after clean of half");
    });
}

#[test]
fn clearing_and_filling_a_store_stays_within_max_bytes() {
    for_each(|mut fixture| {
        let first = fixture.live.len();
        for _ in 0..2 {
            fixture.store.clear().unwrap();
            fixture.live.clear();
            let filled = fixture.fill();
            assert!(filled * 2 > first, "{filled} after {first}");
        }
        fixture.check("cleared and filled again");
    });
}

#[test]
fn deletes_in_one_batch_stay_within_max_bytes() {
    for_each(|mut fixture| {
        let half = fixture.live.len() / 2;
        fixture.delete(half);
        fixture.check("after deletes of half");
        let left = fixture.live.len();
        for _ in 0..half.div_ceil(20) {
            fixture.create(20);
        }
        let again = fixture.live.len() - left;
        fixture.check(&format!("{again} created again of {half}"));
        // Indexes get new entries at their ends, so their half-empty pages are not filled again.
        assert!(again * 3 > half, "{again} of {half}");
        let all = fixture.live.len();
        fixture.delete(all);
        fixture.check("after deletes of all");
    });
}

#[test]
fn delete_by_user_in_several_transactions_keeps_the_excepted_session() {
    let mut fixture = Fixture::filled(4 * MIB, 0);
    let (kept, of) = fixture.live[0].clone();
    let others = fixture.live.iter().filter(|(id, user)| *user == of && *id != kept).count();
    assert!(others > 1000, "{others}");
    let ended = fixture.store.delete_by_user(user(of).as_key(), Some(&kept));
    assert_eq!(ended, Ok(others as u64));
    fixture.live.retain(|(id, user)| *user != of || *id == kept);
    fixture.check("after deleteByUser");
    assert_eq!(fixture.store.get_by_user(user(of).as_key()).unwrap().len(), 1);
    // No other session of the user is left.
    assert_eq!(fixture.store.delete_by_user(user(of).as_key(), Some(&kept)), Ok(0));
}

#[test]
fn an_encrypted_store_with_a_limit_per_user_stays_within_max_bytes() {
    let mut fixture = Fixture::new(MIB, 500);
    fixture.store = FileStore::open_at(
        &FileOptions {
            path: fixture.dir.path().join("encrypted"),
            max_bytes: NonZeroU64::new(MIB),
            secrets: vec![Secret::new(b"a secret of this test".to_vec())],
            max_sessions_per_user: NonZeroUsize::new(70),
            sweep_interval: Some(0),
            ..FileOptions::default()
        },
        fixture.clock.clone(),
    )
    .unwrap();
    // More sessions than fit, so the oldest of each user are evicted.
    for _ in 0..200 {
        fixture.create(20);
    }
    let stats = fixture.store.stats().unwrap();
    assert!(stats.evicted > 20 && stats.bytes > Some(MIB / 2), "{stats:?}");
    for of in 0..USERS {
        fixture.store.delete_by_user(user(of).as_key(), None).unwrap();
    }
    assert_eq!(fixture.store.size(), Ok(0));
    assert!(fixture.store.file_bytes().unwrap() <= MIB);
}

#[test]
fn a_creation_that_ends_many_sessions_of_its_user_stays_within_max_bytes() {
    for (content, free) in [(0, 100), (0, 400), (0, 1600), (1000, 100), (1000, 300)] {
        let mut fixture = Fixture::new(4 * MIB, content);
        fixture.users = 1;
        fixture.fill();
        let before = fixture.live.len();
        fixture.delete(free);
        let options = FileOptions {
            path: fixture.dir.path().into(),
            max_bytes: NonZeroU64::new(4 * MIB),
            max_sessions_per_user: NonZeroUsize::new(1),
            sweep_interval: Some(0),
            ..FileOptions::default()
        };
        fixture.reopen(|clock| FileStore::open_at(&options, clock).unwrap());
        match fixture.create(1) {
            0 => fixture.live.drain(..fixture.live.len() - 1).for_each(drop),
            refused => assert_eq!(refused, 1),
        }
        fixture.check(&format!("after a creation with {free} of {before} deleted"));
    }
}

#[test]
fn delete_by_user_ends_sessions_in_a_full_store_with_and_without_their_secret() {
    let mut fixture = Fixture::new(MIB, 500);
    fixture.users = 1;
    let path = fixture.dir.path().join("encrypted");
    let open = |names: &[&str], clock| {
        let secrets = names.iter().map(|name| Secret::new(name.repeat(4).into_bytes())).collect();
        let options = FileOptions {
            path: path.clone(),
            max_bytes: NonZeroU64::new(MIB),
            secrets,
            sweep_interval: Some(0),
            ..FileOptions::default()
        };
        FileStore::open_at(&options, clock).unwrap()
    };
    fixture.reopen(|clock| open(&["first"], clock));
    fixture.fill();
    fixture.reopen(|clock| open(&["second", "first"], clock));
    let touched = fixture.live[0].0.clone();
    assert_eq!(fixture.store.touch(&touched, Expiry::moved_to(START + 100).unwrap()), Ok(true));
    fixture.reopen(|clock| open(&["second"], clock));
    assert_eq!(fixture.store.size(), Ok(1));
    assert_eq!(fixture.store.delete_by_user(user(0).as_key(), None), Ok(1));
    fixture.reopen(|clock| open(&["second", "first"], clock));
    assert_eq!(fixture.store.size(), Ok(0));
    assert!(fixture.store.file_bytes().unwrap() <= MIB);
}

/// An operation on a store that is full or nearly full.
#[derive(Debug, Clone)]
enum Op {
    Create { content: usize, count: usize },
    Update { content: usize },
    Touch { count: usize, lives_for: Millis },
    Delete { share: usize },
    DeleteByUser { user: u64 },
    Clean { after: Millis },
    Clear,
}

fn op(content: Range<usize>) -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (content.clone(), 1..200_usize).prop_map(|(content, count)| Op::Create { content, count }),
        2 => content.prop_map(|content| Op::Update { content }),
        2 => (1..100_usize, 1..100_i64).prop_map(|(count, lives_for)| Op::Touch { count, lives_for }),
        2 => (2..20_usize).prop_map(|share| Op::Delete { share }),
        2 => (0..USERS).prop_map(|user| Op::DeleteByUser { user }),
        1 => (1..120_i64).prop_map(|after| Op::Clean { after }),
        1 => Just(Op::Clear),
    ]
}

fn perform(max_bytes: u64, ops: &[Op]) {
    let mut fixture = Fixture::filled(max_bytes, 0);
    for op in ops {
        fixture.apply(op);
    }
    fixture.check(&format!("after {ops:?}"));
}

/// The free pages are from many transactions. LMDB reads them list by list, so it splits some ranges of adjacent pages.
#[test]
fn large_sessions_on_scattered_free_pages_stay_within_max_bytes() {
    for content in [9_000, 14_139, 23_113] {
        perform(
            SIZES[1],
            &[
                Op::Delete { share: 6 },
                Op::Create { content: 14_139, count: 60 },
                Op::Clean { after: 108 },
                Op::Create { content, count: 143 },
            ],
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn random_operations_on_a_full_store_stay_within_max_bytes(
        size in 0..SIZES.len(),
        ops in proptest::collection::vec(op(0..1200), 1..40),
    ) {
        perform(SIZES[size], &ops);
    }

    /// Makes no touches: a touch rewrites a large session, and is not refused if there is no room for that.
    #[test]
    fn random_operations_on_large_sessions_stay_within_max_bytes(
        size in 0..SIZES.len(),
        ops in proptest::collection::vec(op(0..30_000), 1..40),
    ) {
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Touch { .. })).collect();
        perform(SIZES[size], &ops);
    }
}
