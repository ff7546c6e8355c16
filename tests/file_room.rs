//! A store in a file stays within `maxBytes`, whatever ends its sessions.

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
/// Bytes of content: some share a page, some have several.
const CONTENTS: [usize; 3] = [0, 1000, 20_000];
const START: Millis = 1_000_000;
const USERS: u64 = 8;

/// Keeps the outcomes, by ticket.
#[derive(Default)]
struct Told(Mutex<Vec<(u32, Result<u64>)>>);

impl Completions for Told {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        let numbers = done.into_iter().map(|(ticket, answer)| match answer {
            Ok(Answer::Number(number)) => (ticket, Ok(number)),
            Ok(Answer::Session(_)) => panic!("a write gave a session"),
            Err(error) => (ticket, Err(error)),
        });
        self.0.lock().unwrap().extend(numbers);
    }
}

/// A live session, and the number of its user.
type Live = (SessionId, u64);

struct Bed {
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

impl Bed {
    fn new(max_bytes: u64, content: usize) -> Self {
        // What is asked here is where pages are, nothing of the disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let clock = Arc::new(MockClock::new(START));
        let store = open(dir.path(), max_bytes, &clock);
        Self { store, clock, max_bytes, content, made: 0, random: 1, users: USERS, live: Vec::new(), dir }
    }

    fn filled(max_bytes: u64, content: usize) -> Self {
        let mut bed = Self::new(max_bytes, content);
        bed.fill();
        bed
    }

    /// Closes the store, then opens another.
    fn reopen(&mut self, another: impl FnOnce(Arc<MockClock>) -> Arc<FileStore>) {
        let spare = tempfile::tempdir().unwrap();
        self.store = open(spare.path(), MIB, &self.clock);
        self.store = another(self.clock.clone());
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.random >> 33) % end
    }

    /// Draws a session of some user, and calls with it.
    fn with_session<T>(&mut self, call: impl FnOnce(&FileStore, &Session<'_>) -> T) -> (Live, T) {
        let name = format!("{:08x}{:010x}", self.below(1 << 31), self.made);
        self.made += 1;
        let live = (SessionId::new(&name).unwrap(), self.below(self.users));
        let expires = self.clock.now() + 100;
        let result = with_session(&live, self.content, expires, |session| call(&self.store, session));
        (live, result)
    }

    /// Creates sessions, some at once, and tells how many were refused.
    fn create(&mut self, count: usize) -> usize {
        let (told, mut drawn) = (Arc::new(Told::default()), Vec::new());
        for ticket in 0..count as u32 {
            let to: Arc<dyn Completions> = told.clone();
            let begin = |store: &FileStore, session: &Session<'_>| store.begin_create(session, &to, ticket);
            let (live, begun) = self.with_session(begin);
            begun.unwrap();
            drawn.push(live);
        }
        self.store.flush().unwrap();
        let mut refused = 0;
        for (ticket, outcome) in told.0.lock().unwrap().drain(..) {
            match outcome {
                Ok(_) => self.live.push(drawn[ticket as usize].clone()),
                Err(StoreError::Full(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        refused
    }

    /// Creates sessions until one finds no room: how many there were.
    fn fill(&mut self) -> usize {
        const AT_ONCE: usize = 20;
        let before = self.live.len();
        while self.create(AT_ONCE) == 0 {}
        self.live.len() - before
    }

    /// Deletes so many at once, in no order.
    fn delete(&mut self, count: usize) {
        for at in 0..count {
            let other = at + self.below((self.live.len() - at) as u64) as usize;
            self.live.swap(at, other);
        }
        let told = Arc::new(Told::default());
        let to: Arc<dyn Completions> = told.clone();
        for (id, _) in self.live.drain(..count) {
            assert!(self.store.begin_delete(&id, &to, 0).unwrap());
        }
        self.store.flush().unwrap();
        assert_eq!(*told.0.lock().unwrap(), vec![(0, Ok(1)); count]);
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

    /// The file never shrinks: as large as it is, it was at most. And nothing else happened than should have.
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

fn for_each(test: impl Fn(Bed)) {
    for max_bytes in SIZES {
        for content in CONTENTS {
            test(Bed::filled(max_bytes, content));
        }
    }
}

#[test]
fn the_sessions_of_a_user_end_within_max_bytes() {
    for_each(|mut bed| {
        for of in 0..USERS {
            bed.delete_by_user(of);
        }
        bed.check("after deleteByUser of each");
        assert_eq!(bed.live.len(), 0);
        assert!(bed.fill() > 10);
        bed.check("filled again");
    });
}

#[test]
fn what_has_expired_is_swept_within_max_bytes() {
    for_each(|mut bed| {
        bed.clock.advance(100);
        assert_eq!(bed.store.clean(), Ok(bed.live.len() as u64));
        bed.live.clear();
        bed.check("after clean");
    });
}

#[test]
fn what_was_touched_is_filed_anew_within_max_bytes() {
    for_each(|mut bed| {
        let later = Expiry::moved_to(START + 1000).unwrap();
        let (mut touched, mut others) = (Vec::new(), 0);
        for (at, live) in bed.live.iter().enumerate() {
            if at % 2 == 0 {
                assert_eq!(bed.store.touch(&live.0, later), Ok(true));
                touched.push(live.clone());
            } else {
                others += 1;
            }
        }
        bed.check("after touches");
        bed.clock.advance(100);
        assert_eq!(bed.store.clean(), Ok(others));
        bed.live = touched;
        bed.check("after clean of half");
    });
}

#[test]
fn a_store_is_cleared_and_filled_within_max_bytes() {
    for_each(|mut bed| {
        let first = bed.live.len();
        for _ in 0..2 {
            bed.store.clear().unwrap();
            bed.live.clear();
            let filled = bed.fill();
            assert!(filled * 2 > first, "{filled} after {first}");
        }
        bed.check("cleared and filled again");
    });
}

#[test]
fn sessions_that_are_deleted_at_once_end_within_max_bytes() {
    for_each(|mut bed| {
        let half = bed.live.len() / 2;
        bed.delete(half);
        bed.check("after deletes of half");
        let left = bed.live.len();
        for _ in 0..half.div_ceil(20) {
            bed.create(20);
        }
        let again = bed.live.len() - left;
        bed.check(&format!("{again} created again of {half}"));
        // Indexes get new entries at their ends, and half-empty pages of theirs stay so.
        assert!(again * 3 > half, "{again} of {half}");
        let all = bed.live.len();
        bed.delete(all);
        bed.check("after deletes of all");
    });
}

#[test]
fn log_out_elsewhere_keeps_its_session_where_it_takes_several_steps() {
    let mut bed = Bed::filled(4 * MIB, 0);
    let (kept, of) = bed.live[0].clone();
    let others = bed.live.iter().filter(|(id, user)| *user == of && *id != kept).count();
    assert!(others > 1000, "{others}");
    let ended = bed.store.delete_by_user(user(of).as_key(), Some(&kept));
    assert_eq!(ended, Ok(others as u64));
    bed.live.retain(|(id, user)| *user != of || *id == kept);
    bed.check("after deleteByUser");
    assert_eq!(bed.store.get_by_user(user(of).as_key()).unwrap().len(), 1);
    // None is left to end.
    assert_eq!(bed.store.delete_by_user(user(of).as_key(), Some(&kept)), Ok(0));
}

#[test]
fn a_full_store_that_is_encrypted_and_limits_users_stays_within_max_bytes() {
    let mut bed = Bed::new(MIB, 500);
    bed.store = FileStore::open_at(
        &FileOptions {
            path: bed.dir.path().join("encrypted"),
            max_bytes: NonZeroU64::new(MIB),
            secrets: vec![Secret::new(b"a secret of this test".to_vec())],
            max_sessions_per_user: NonZeroUsize::new(70),
            sweep_interval: Some(0),
            ..FileOptions::default()
        },
        bed.clock.clone(),
    )
    .unwrap();
    // More than there is room for, so that users' oldest make way.
    for _ in 0..200 {
        bed.create(20);
    }
    let stats = bed.store.stats().unwrap();
    assert!(stats.evicted > 20 && stats.bytes > Some(MIB / 2), "{stats:?}");
    for of in 0..USERS {
        bed.store.delete_by_user(user(of).as_key(), None).unwrap();
    }
    assert_eq!(bed.store.size(), Ok(0));
    assert!(bed.store.file_bytes().unwrap() <= MIB);
}

#[test]
fn a_new_session_that_ends_many_of_its_user_keeps_within_max_bytes() {
    for (content, free) in [(0, 100), (0, 400), (0, 1600), (1000, 100), (1000, 300)] {
        let mut bed = Bed::new(4 * MIB, content);
        bed.users = 1;
        bed.fill();
        let before = bed.live.len();
        bed.delete(free);
        let options = FileOptions {
            path: bed.dir.path().into(),
            max_bytes: NonZeroU64::new(4 * MIB),
            max_sessions_per_user: NonZeroUsize::new(1),
            sweep_interval: Some(0),
            ..FileOptions::default()
        };
        bed.reopen(|clock| FileStore::open_at(&options, clock).unwrap());
        match bed.create(1) {
            0 => bed.live.drain(..bed.live.len() - 1).for_each(drop),
            refused => assert_eq!(refused, 1),
        }
        bed.check(&format!("after a creation with {free} of {before} deleted"));
    }
}

#[test]
fn sessions_of_a_user_end_in_a_full_store_whether_or_not_their_secret_is_there() {
    let mut bed = Bed::new(MIB, 500);
    bed.users = 1;
    let path = bed.dir.path().join("encrypted");
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
    bed.reopen(|clock| open(&["first"], clock));
    bed.fill();
    bed.reopen(|clock| open(&["second", "first"], clock));
    let touched = bed.live[0].0.clone();
    assert_eq!(bed.store.touch(&touched, Expiry::moved_to(START + 100).unwrap()), Ok(true));
    bed.reopen(|clock| open(&["second"], clock));
    assert_eq!(bed.store.size(), Ok(1));
    assert_eq!(bed.store.delete_by_user(user(0).as_key(), None), Ok(1));
    bed.reopen(|clock| open(&["second", "first"], clock));
    assert_eq!(bed.store.size(), Ok(0));
    assert!(bed.store.file_bytes().unwrap() <= MIB);
}

/// What may happen to a store that is full, or nearly so.
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
    let mut bed = Bed::filled(max_bytes, 0);
    for op in ops {
        bed.apply(op);
    }
    bed.check(&format!("after {ops:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_happens_to_a_full_store_happens_within_max_bytes(
        size in 0..SIZES.len(),
        ops in proptest::collection::vec(op(0..1200), 1..40),
    ) {
        perform(SIZES[size], &ops);
    }

    /// A touch of one that has pages of its own writes it anew, and is not refused where that finds no room.
    #[test]
    fn large_sessions_that_are_not_touched_come_and_go_within_max_bytes(
        size in 0..SIZES.len(),
        ops in proptest::collection::vec(op(0..30_000), 1..40),
    ) {
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Touch { .. })).collect();
        perform(SIZES[size], &ops);
    }
}
