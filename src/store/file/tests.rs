use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::apply::Write;
use super::due::SweepCursor;
use super::record::Record;
use super::tables::Tables;
use super::*;
use crate::clock::{Millis, MockClock};
use crate::session::{Body, ExpiresForm, Expiry, Session, SessionId, UserKey, UserKeyBuf};
use crate::store::conformance::{
    MAX_LIFETIME, MAX_PER_USER, MAX_SESSION_BYTES, START, conformance, id, json, plain,
};
use crate::store::{Answer, Completions, Cursor, Page, SessionStore, Stats, StoredSession, WhenUserIsFull};

#[cfg(target_os = "linux")]
mod discard;
#[cfg(target_os = "linux")]
mod drain;
mod eras;
mod moved;
#[cfg(target_os = "linux")]
mod readers;
mod rotation;
mod times;
mod write_path;

/// A store and its folder, which is deleted on drop.
struct TestStore {
    store: Arc<FileStore>,
    _dir: TempDir,
}

impl SessionStore for TestStore {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.store.create(session)
    }
    fn create_at(&self, session: &Session<'_>, created: Millis) -> Result<()> {
        self.store.create_at(session, created)
    }
    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.store.get(id)
    }
    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.store.update(session)
    }
    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.store.touch(id, expires)
    }

    fn prolong(&self, id: &SessionId, expires: Expiry, enough: Millis) -> Result<bool> {
        self.store.prolong(id, expires, enough)
    }
    fn delete(&self, id: &SessionId) -> Result<()> {
        self.store.delete(id)
    }
    fn clean(&self) -> Result<u64> {
        self.store.clean()
    }
    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        self.store.get_by_user(user)
    }
    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.store.delete_by_user(user, except)
    }
    fn size(&self) -> Result<u64> {
        self.store.size()
    }
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        self.store.ids(after)
    }
    fn sessions(&self, after: Cursor) -> Result<Page> {
        self.store.sessions(after)
    }
    fn clear(&self) -> Result<()> {
        self.store.clear()
    }
    fn stats(&self) -> Result<Stats> {
        self.store.stats()
    }
}

fn options(dir: &Path) -> FileOptions {
    FileOptions {
        path: dir.into(),
        max_session_bytes: NonZeroUsize::new(MAX_SESSION_BYTES),
        sweep_interval: Some(0),
        ..FileOptions::default()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.repeat(4).into_bytes())
}

fn open(secrets: Vec<Secret>, clock: Arc<MockClock>) -> TestStore {
    let dir = new_dir();
    let store = FileStore::open_at(&FileOptions { secrets, ..options(dir.path()) }, clock).unwrap();
    TestStore { store, _dir: dir }
}

mod in_the_open {
    use super::*;
    conformance!(|clock| open(Vec::new(), clock));
}

mod with_a_lifetime {
    use super::*;
    conformance!(lifetime | clock | open_limited(Vec::new(), clock));
}

mod encrypted_with_a_lifetime {
    use super::*;
    conformance!(lifetime | clock | open_limited(vec![secret("first")], clock));
}

fn open_rejecting(secrets: Vec<Secret>, clock: Arc<MockClock>) -> TestStore {
    let dir = new_dir();
    let options = FileOptions {
        secrets,
        max_sessions_per_user: NonZeroUsize::new(MAX_PER_USER),
        when_user_is_full: Some(WhenUserIsFull::Reject),
        ..options(dir.path())
    };
    TestStore { store: FileStore::open_at(&options, clock).unwrap(), _dir: dir }
}

mod that_rejects {
    use super::*;
    conformance!(reject | clock | open_rejecting(Vec::new(), clock));
}

mod that_rejects_encrypted {
    use super::*;
    conformance!(reject | clock | open_rejecting(vec![secret("first"), secret("second")], clock));
}

fn open_limited(secrets: Vec<Secret>, clock: Arc<MockClock>) -> TestStore {
    let dir = new_dir();
    let max_lifetime = Some(MAX_LIFETIME as u64);
    let options = FileOptions { secrets, max_lifetime, ..options(dir.path()) };
    TestStore { store: FileStore::open_at(&options, clock).unwrap(), _dir: dir }
}

mod encrypted {
    use super::*;
    conformance!(|clock| open(vec![secret("first"), secret("second")], clock));
}

fn new_dir() -> TempDir {
    // These tests need no real disk.
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn clock() -> Arc<MockClock> {
    Arc::new(MockClock::new(START))
}

fn reopen(options: &FileOptions) -> Result<Arc<FileStore>> {
    FileStore::open_at(options, clock())
}

fn at(millis: Millis) -> Expiry {
    Expiry::new(START + millis).unwrap()
}

fn ann() -> UserKeyBuf {
    UserKeyBuf::from_text("ann of the users")
}

fn problems(store: &FileStore) -> Vec<String> {
    store.verify(&mut |_, _| ()).unwrap().problems
}

/// Changes the data file without the store, as another program might.
fn tamper(dir: &Path, change: impl FnOnce(&mut heed::RwTxn<'_>, Tables)) {
    let mut options = heed::EnvOpenOptions::new();
    options.map_size(1 << 30).max_dbs(tables::TABLES);
    // SAFETY: no store has it open at the same time.
    let env = unsafe { options.open(dir) }.unwrap();
    let mut txn = env.write_txn().unwrap();
    let tables = Tables::create(&env, &mut txn).unwrap();
    change(&mut txn, tables);
    txn.commit().unwrap();
}

#[test]
fn sessions_survive_a_restart_and_counters_do_not() {
    let dir = new_dir();
    let options = options(dir.path());
    let store = reopen(&options).unwrap();
    store.create(&plain("a", &ann(), at(100))).unwrap();
    drop(store);
    let store = reopen(&options).unwrap();
    assert!(store.get(&id("a")).unwrap().is_some());
    assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), 1);
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.created, stats.hits), (Some(1), 0, 1));
}

#[test]
fn opening_a_folder_again_returns_the_open_store() {
    let dir = new_dir();
    let store = reopen(&options(dir.path())).unwrap();
    let link = dir.path().with_extension("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let twin = reopen(&options(&link)).unwrap();
    std::fs::remove_file(&link).unwrap();
    assert!(Arc::ptr_eq(&store, &twin));
}

#[test]
fn threads_can_open_and_drop_the_same_folder_concurrently() {
    let dir = new_dir();
    let options = options(dir.path());
    thread::scope(|scope| {
        for thread in 0..4 {
            let options = &options;
            scope.spawn(move || {
                for round in 0..25 {
                    let store = reopen(options).unwrap();
                    store.create(&plain(&format!("{thread} {round}"), &ann(), at(100))).unwrap();
                }
            });
        }
    });
    assert_eq!(reopen(&options).unwrap().size(), Ok(100));
}

/// Keeps the results that it receives.
#[derive(Default)]
struct Received(Mutex<Vec<(u32, Result<Answer>)>>);

/// The result of a write.
fn number(number: u64) -> Result<Answer> {
    Ok(Answer::Number(number))
}

impl Completions for Received {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        self.0.lock().extend(done);
    }
}

#[test]
fn dropping_a_store_completes_its_queued_writes() {
    let dir = new_dir();
    let options = options(dir.path());
    let store = reopen(&options).unwrap();
    let received = Arc::new(Received::default());
    let to: Arc<dyn Completions> = received.clone();
    for ticket in 0..1000 {
        store.begin_create(&plain(&format!("{}", ticket / 2), &ann(), at(100)), &to, ticket).unwrap();
    }
    drop(store);
    let mut outcomes = std::mem::take(&mut *received.0.lock());
    outcomes.sort_by_key(|(ticket, _)| *ticket);
    for (at, outcome) in outcomes.iter().enumerate() {
        let expected = if at % 2 == 0 { number(1) } else { Err(StoreError::Exists) };
        assert_eq!(*outcome, (at as u32, expected));
    }
    assert_eq!((outcomes.len(), reopen(&options).unwrap().size()), (1000, Ok(500)));
}

#[test]
fn a_delete_waits_for_the_pending_creation_of_its_session() {
    let dir = new_dir();
    let store = reopen(&options(dir.path())).unwrap();
    let received = Arc::new(Received::default());
    let to: Arc<dyn Completions> = received.clone();
    store.begin_create(&plain("a", &ann(), at(100)), &to, 0).unwrap();
    assert_eq!(store.begin_delete(&id("a"), &to, 1), Ok(true));
    assert_eq!(store.begin_delete(&id("b"), &to, 2), Ok(false));
    store.flush().unwrap();
    assert_eq!(*received.0.lock(), [(0, number(1)), (1, number(1))]);
    assert_eq!(store.size(), Ok(0));
    assert_eq!(store.begin_delete(&id("a"), &to, 3), Ok(false));
}

#[test]
fn a_sweep_reindexes_touched_sessions_and_continues_in_steps() {
    let dir = new_dir();
    let clock = clock();
    let store = FileStore::open_at(&options(dir.path()), clock.clone()).unwrap();
    let is_due = |now| !store.environment().due(&SweepCursor::EXPIRIES, now, 1).unwrap().0.is_empty();
    for session in 0..1000 {
        store.create(&plain(&session.to_string(), &ann(), at(100))).unwrap();
        if session % 2 == 0 {
            store.touch(&id(&session.to_string()), Expiry::moved_to(START + 1000).unwrap()).unwrap();
        }
    }
    assert!(!is_due(START + 99));
    clock.advance(100);
    store.redo().drain_now().unwrap();
    assert!(is_due(START + 100));
    assert_eq!(store.size(), Ok(500));
    assert_eq!(store.clean(), Ok(500));
    assert!(!is_due(START + 999));
    assert_eq!((store.size(), store.clean()), (Ok(500), Ok(0)));
    assert_eq!(problems(&store), [""; 0]);
    clock.advance(900);
    assert_eq!((store.size(), store.clean(), store.stats().unwrap().sessions), (Ok(0), Ok(500), Some(0)));
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn wrong_secrets_are_rejected_and_change_nothing() {
    let dir = new_dir();
    let with = |secrets| FileOptions { secrets, ..options(dir.path()) };
    drop(reopen(&with(vec![secret("first")])).unwrap());
    let before = std::fs::read(dir.path().join(names::DATA)).unwrap();
    for (secrets, words) in [(vec![], "got no secret"), (vec![secret("other")], "got a different secret")] {
        let error = reopen(&with(secrets)).err().unwrap();
        assert_eq!(error.code(), "ERR_INVALID_OPTION");
        let text = error.to_string();
        assert!(text.ends_with(words) && text.contains(dir.path().to_str().unwrap()), "{text}");
    }
    assert!(std::fs::read(dir.path().join(names::DATA)).unwrap() == before);

    let open = new_dir();
    drop(reopen(&options(open.path())).unwrap());
    let error = reopen(&FileOptions { secrets: vec![secret("first")], ..options(open.path()) });
    assert!(error.err().unwrap().to_string().starts_with("secret must be left out"));
}

#[test]
fn an_encrypted_file_contains_no_id_user_or_content() {
    let shows = |secrets| {
        let dir = new_dir();
        let store = reopen(&FileOptions { secrets, ..options(dir.path()) }).unwrap();
        store.create(&plain("the id of it", &ann(), at(100))).unwrap();
        let hex = "0123456789abcdef".repeat(2);
        let text =
            format!(r#"{{"sessionId":"{hex}","userId":"ann of the users","expires":1,"cart":"apples"}}"#);
        store.create(&json(&hex, Some(&ann()), &text, at(100))).unwrap();
        drop(store);
        let bytes = std::fs::read(dir.path().join(names::DATA)).unwrap();
        let packed: Vec<u8> = id(&hex).as_bytes()[1..].to_vec();
        let needles = [&b"the id of it"[..], b"ann of the users", b"apples", hex.as_bytes(), &packed];
        needles.map(|needle| bytes.windows(needle.len()).any(|window| window == needle))
    };
    assert_eq!(shows(Vec::new()), [true; 5]);
    assert_eq!(shows(vec![secret("secret")]), [false; 5]);
}

#[test]
fn a_moved_or_changed_encrypted_record_is_rejected() {
    let dir = new_dir();
    let options = FileOptions { secrets: vec![secret("secret")], ..options(dir.path()) };
    let ben = UserKeyBuf::from_text("ben of the users");
    let store = reopen(&options).unwrap();
    store.create(&plain("a", &ann(), at(100))).unwrap();
    store.create(&plain("b", &ben, at(100))).unwrap();
    drop(store);
    tamper(dir.path(), |txn, tables| {
        let all: Vec<(Vec<u8>, Vec<u8>)> = tables
            .sessions
            .iter(txn)
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
            .collect();
        tables.sessions.put(txn, &all[0].0, &all[1].1).unwrap();
        let mut later = all[1].1.clone();
        later[1] ^= 0x10;
        tables.sessions.put(txn, &all[1].0, &later).unwrap();
    });
    let store = reopen(&options).unwrap();
    for session in ["a", "b"] {
        assert_eq!(store.get(&id(session)).unwrap_err().code(), "ERR_STORE_CORRUPT");
        assert_eq!(store.touch(&id(session), at(200)).unwrap_err().code(), "ERR_STORE_CORRUPT");
    }
    assert!(!problems(&store).is_empty());
}

#[test]
fn verification_finds_inconsistent_entries() {
    type Change = fn(&mut heed::RwTxn<'_>, Tables);
    let changes: [(&str, Change); 6] = [
        ("the user index does not contain it", |txn, tables| tables.users.clear(txn).unwrap()),
        ("the expiry index does not contain it", |txn, tables| tables.expiries.clear(txn).unwrap()),
        ("the user index has an entry without its session", |txn, tables| {
            tables.users.put(txn, &[7; 24], b"nobody").unwrap();
        }),
        ("the expiry index has an entry without its session", |txn, tables| {
            tables.expiries.put(txn, &[7; 16], b"nobody").unwrap();
        }),
        ("it is cut short", |txn, tables| tables.sessions.put(txn, b"\0x", b"short").unwrap()),
        ("names another session", |txn, tables| {
            let (key, mut value) = {
                let (key, value) = tables.sessions.first(txn).unwrap().unwrap();
                (key.to_vec(), value.to_vec())
            };
            let at = value.windows(3).position(|window| window == b":\"a").unwrap();
            value[at + 2] = b'b';
            tables.sessions.put(txn, &key, &value).unwrap();
        }),
    ];
    for (words, change) in changes {
        let dir = new_dir();
        let options = options(dir.path());
        let text = r#"{"sessionId":"a","userId":"ann of the users","expires":1}"#;
        reopen(&options).unwrap().create(&json("a", Some(&ann()), text, at(100))).unwrap();
        tamper(dir.path(), change);
        let found = problems(&reopen(&options).unwrap());
        assert!(found.iter().any(|problem| problem.contains(words)), "{words}: {found:?}");
    }
}

#[test]
fn newer_formats_and_foreign_files_are_rejected_and_not_changed() {
    let dir = new_dir();
    drop(reopen(&options(dir.path())).unwrap());
    tamper(dir.path(), |txn, tables| tables.meta.put(txn, tables::FORMAT, &5_u32.to_le_bytes()).unwrap());
    let refused = |dir: &Path| {
        let before = std::fs::read(dir.join(names::DATA)).unwrap();
        let error = reopen(&options(dir)).err().unwrap();
        assert_eq!(error.code(), "ERR_STORE_CORRUPT");
        assert!(std::fs::read(dir.join(names::DATA)).unwrap() == before);
        error.to_string()
    };
    assert!(refused(dir.path()).contains("format 5, of a newer version"));

    let foreign = new_dir();
    {
        let mut options = heed::EnvOpenOptions::new();
        // SAFETY: no other code has it open.
        let env = unsafe { options.map_size(1 << 20).max_dbs(1).open(foreign.path()) }.unwrap();
        let mut txn = env.write_txn().unwrap();
        let _: tables::Table = env.create_database(&mut txn, Some("theirs")).unwrap();
        txn.commit().unwrap();
    }
    assert!(refused(foreign.path()).contains("not a session store"));
}

#[test]
fn opening_waits_while_another_process_creates_the_file() {
    let made = new_dir();
    drop(reopen(&options(made.path())).unwrap());
    let whole = std::fs::read(made.path().join(names::DATA)).unwrap();
    let is_waited_for = || {
        let dir = new_dir();
        let data = dir.path().join(names::DATA);
        std::fs::write(dir.path().join(names::LOCK), "").unwrap();
        std::fs::write(&data, &whole[..100]).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(12));
                let file = std::fs::File::options().write(true).open(&data).unwrap();
                file.write_all_at(&whole, 0).unwrap();
            });
            reopen(&options(dir.path())).is_ok()
        })
    };
    // An opener retries for 45 ms. On a busy machine the other thread may be later, but not each time.
    assert!((0..50).any(|_| is_waited_for()));
}

#[test]
fn files_that_are_not_stores_are_rejected_without_waiting() {
    let made = new_dir();
    let store = reopen(&options(made.path())).unwrap();
    for session in 0..200 {
        store.create(&plain(&session.to_string(), &ann(), at(100))).unwrap();
    }
    drop(store);
    let whole = std::fs::read(made.path().join(names::DATA)).unwrap();
    let mut overwritten = whole.clone();
    overwritten[..64].fill(b'x');
    for bytes in [&b"no store"[..], &[b'x'; 20_000], &overwritten, &whole[..whole.len() / 2]] {
        let dir = new_dir();
        std::fs::write(dir.path().join(names::LOCK), "").unwrap();
        std::fs::write(dir.path().join(names::DATA), bytes).unwrap();
        let is_refused_at_once = || {
            let begun = std::time::Instant::now();
            assert_eq!(reopen(&options(dir.path())).err().unwrap().code(), "ERR_STORE_CORRUPT");
            begun.elapsed() < Duration::from_millis(40)
        };
        // A wait would take 45 ms. A busy machine may take that long, but not each time.
        assert!((0..50).any(|_| is_refused_at_once()), "{} bytes", bytes.len());
    }
}

#[test]
fn a_backup_is_a_store_with_the_same_sessions() {
    for secrets in [Vec::new(), vec![secret("secret")]] {
        let (dir, copies) = (new_dir(), new_dir());
        let options = FileOptions { secrets, ..options(dir.path()) };
        let store = reopen(&options).unwrap();
        for session in 0..2000 {
            store.create(&plain(&session.to_string(), &ann(), at(100))).unwrap();
        }
        for session in 0..1000 {
            store.delete(&id(&session.to_string())).unwrap();
        }
        let to = copies.path().join("copy");
        let mut received = Vec::new();
        let bytes = store.backup(&to, &mut |copied, total| received.push((copied, total))).unwrap();
        assert_eq!(received.last(), Some(&(bytes, bytes)));
        assert!(bytes < store.file_bytes().unwrap());
        let again = store.backup(&to, &mut |_, _| ()).unwrap_err();
        assert_eq!(again.code(), "ERR_INVALID_OPTION");

        let copy = reopen(&FileOptions { path: to, ..options.clone() }).unwrap();
        assert_eq!(problems(&copy), [""; 0]);
        assert_eq!(copy.size(), Ok(1000));
        assert_eq!(copy.get_by_user(ann().as_key()), store.get_by_user(ann().as_key()));
        // New sessions are younger than those of the original.
        copy.create(&plain("new", &ann(), at(100))).unwrap();
        let sessions = copy.get_by_user(ann().as_key()).unwrap();
        assert_eq!(sessions.last().unwrap().id, id("new"));
    }
}

#[test]
fn a_full_store_rejects_new_sessions_until_others_end() {
    let dir = new_dir();
    let options = FileOptions { max_bytes: std::num::NonZeroU64::new(2 << 20), ..options(dir.path()) };
    let store = reopen(&options).unwrap();
    let text = format!(r#"{{"sessionId":"x","expires":1,"x":"{}"}}"#, "x".repeat(1000));
    let mut filled = Vec::new();
    for round in 0..4 {
        let mut live = 0;
        let refused = loop {
            let session = json(&format!("{round} {live}"), None, &text, at(100));
            match store.create(&session) {
                Ok(()) => live += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, StoreError::Full("maxBytes is 2097152".into()));
        assert_eq!(store.touch(&id(&format!("{round} 0")), at(200)), Ok(true));
        assert_eq!(store.size(), Ok(live));
        assert!(store.file_bytes().unwrap() <= 2 << 20);
        for session in 0..live {
            store.delete(&id(&format!("{round} {session}"))).unwrap();
        }
        filled.push(live);
    }
    let (least, most) = (filled.iter().min().unwrap(), filled.iter().max().unwrap());
    assert!(*least > 500 && *least * 5 > *most * 4, "{filled:?}");
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_full_store_sweeps_expired_sessions_for_a_new_one() {
    let dir = new_dir();
    let clock = clock();
    let options = FileOptions { max_bytes: std::num::NonZeroU64::new(1 << 20), ..options(dir.path()) };
    let store = FileStore::open_at(&options, clock.clone()).unwrap();
    let mut live = 0;
    while store.create(&plain(&live.to_string(), &ann(), at(100))).is_ok() {
        live += 1;
    }
    assert!(live > 500);
    clock.advance(100);
    assert_eq!(store.create(&plain("new", &ann(), at(200))), Ok(()));
    let stats = store.stats().unwrap();
    assert_eq!(stats.sessions, Some(live + 1 - stats.expired));
    // Other writes wait during that sweep, so it removes only what the new session needs.
    assert!(stats.expired > 0 && stats.expired < live / 2, "{} of {live} were swept", stats.expired);
    assert_eq!((store.size(), store.clean()), (Ok(1), Ok(live - stats.expired)));
}

#[test]
fn content_is_stored_byte_for_byte() {
    let dir = new_dir();
    let store = reopen(&options(dir.path())).unwrap();
    let session = json("a", None, "{}", at(100));
    store.create(&session).unwrap();
    let read = store.try_get(&id("a"), |expires, content| {
        let Body::Json { text, expires: ExpiresForm::Text } = content.body else { return None };
        Some((expires, text.to_owned()))
    });
    assert_eq!(read, Ok(Ok(Some(Some((at(100), "{}".to_owned()))))));
}
