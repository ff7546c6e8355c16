//! Creation times in stores that an older version has written or has open.

use std::num::NonZeroU64;
use std::rc::Rc;

use super::apply::Write;
use super::estimate::{PageEstimate, PageEstimator, Trees};
use super::redo::points::hooks::{CommitFault, Simulator, simulate};
use super::*;
use crate::codec;

const HOUR: Millis = 3_600_000;

fn limited(dir: &Path, max_lifetime: Millis) -> FileOptions {
    FileOptions { max_lifetime: Some(max_lifetime as u64), ..options(dir) }
}

fn log_in(store: &FileStore, name: &str, expires: Expiry) {
    store.create(&plain(name, &UserKeyBuf::from_text("ann"), expires)).unwrap();
}

fn end_of(store: &FileStore, name: &str) -> Option<Millis> {
    store.get(&id(name)).unwrap().map(|session| session.expires.millis() - START)
}

fn format(dir: &Path) -> Option<u32> {
    let mut format = None;
    tamper(dir, |txn, tables| format = Tables::format(tables.meta, txn).unwrap());
    format
}

/// Creates a store of an older version, with one session.
fn made_before(dir: &Path) {
    let store = reopen(&options(dir)).unwrap();
    log_in(&store, "old", at(100 * HOUR));
    drop(store);
    make_older(dir);
}

/// Converts a store with one session to an older version.
fn make_older(dir: &Path) {
    tamper(dir, |txn, tables| {
        let (key, row) = {
            let (key, row) = tables.sessions.first(txn).unwrap().unwrap();
            let Record { header, body } = Record::parse(row).unwrap();
            let mut row = Vec::new();
            record::Header { created_at: None, ..header }.write(&mut row);
            row.extend_from_slice(body);
            (key.to_vec(), row)
        };
        tables.sessions.put(txn, &key, &row).unwrap();
        tables.meta.put(txn, tables::FORMAT, &1_u32.to_le_bytes()).unwrap();
    });
}

#[test]
fn the_lifetime_of_an_older_session_starts_with_its_first_write() {
    let dir = new_dir();
    made_before(dir.path());
    let clock = clock();
    let open = || FileStore::open_at(&limited(dir.path(), HOUR), clock.clone()).unwrap();
    let store = open();
    clock.advance(5 * HOUR);
    assert_eq!(end_of(&store, "old"), Some(100 * HOUR));
    // It is written even if the present expiry is late enough.
    assert_eq!(store.prolong(&id("old"), at(200 * HOUR), START + 150 * HOUR), Ok(true));
    assert_eq!(end_of(&store, "old"), Some(6 * HOUR));
    drop(store);
    let store = open();
    clock.advance(HOUR - 1);
    assert_eq!(store.touch(&id("old"), at(100 * HOUR)), Ok(true));
    assert_eq!(end_of(&store, "old"), Some(6 * HOUR));
    clock.advance(1);
    assert_eq!((end_of(&store, "old"), store.size()), (None, Ok(0)));
}

#[test]
fn a_lifetime_limit_applies_to_sessions_stored_without_it() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: &FileOptions| FileStore::open_at(options, clock.clone()).unwrap();
    let store = open(&options(dir.path()));
    log_in(&store, "a", at(100 * HOUR));
    clock.advance(HOUR);
    log_in(&store, "b", at(100 * HOUR));
    drop(store);
    let store = open(&limited(dir.path(), 2 * HOUR));
    assert_eq!((end_of(&store, "a"), end_of(&store, "b")), (Some(2 * HOUR), Some(3 * HOUR)));
    clock.advance(HOUR);
    assert_eq!((end_of(&store, "a"), end_of(&store, "b")), (None, Some(3 * HOUR)));
    assert_eq!((store.size(), store.ids(Cursor::default()).unwrap().0), (Ok(1), vec![id("b")]));
    let ann = UserKeyBuf::from_text("ann");
    assert_eq!(store.get_by_user(ann.as_key()).unwrap().len(), 1);
    assert_eq!(store.touch(&id("a"), at(5 * HOUR)), Ok(false));
    assert_eq!(store.update(&plain("a", &ann, at(5 * HOUR))), Ok(false));
    assert_eq!(store.delete_by_user(ann.as_key(), None), Ok(1));
    log_in(&store, "a", at(5 * HOUR));
    assert_eq!(end_of(&store, "a"), Some(4 * HOUR));
}

#[test]
fn a_session_that_was_ended_after_its_lifetime_does_not_come_back_without_the_limit() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: &FileOptions| FileStore::open_at(options, clock.clone()).unwrap();
    let store = open(&options(dir.path()));
    store.create(&plain("a", &UserKeyBuf::from_text("ben"), at(100 * HOUR))).unwrap();
    for name in ["b", "c"] {
        log_in(&store, name, at(100 * HOUR));
    }
    drop(store);
    clock.advance(3 * HOUR);
    let store = open(&limited(dir.path(), 2 * HOUR));
    store.delete(&id("a")).unwrap();
    assert_eq!(store.delete_by_user(UserKeyBuf::from_text("ann").as_key(), Some(&id("c"))), Ok(0));
    drop(store);
    let store = open(&options(dir.path()));
    let ends = ["a", "b", "c"].map(|name| end_of(&store, name));
    assert_eq!(ends, [None, None, Some(100 * HOUR)]);
}

/// Logs in one session an hour, with an expiry in the distant future.
fn log_in_hourly(store: &FileStore, clock: &MockClock, names: std::ops::Range<u32>) {
    for name in names {
        log_in(store, &name.to_string(), at(10_000 * HOUR));
        clock.advance(HOUR);
    }
}

fn open_with(options: FileOptions, max_bytes: Option<NonZeroU64>, clock: &Arc<MockClock>) -> Arc<FileStore> {
    FileStore::open_at(&FileOptions { max_bytes, ..options }, clock.clone()).unwrap()
}

/// With `max_bytes` that is too small for a log, writes go to the data file directly.
const WITH_AND_WITHOUT_LOG: [Option<NonZeroU64>; 2] = [None, NonZeroU64::new(8 << 20)];

#[test]
fn a_sweep_removes_sessions_past_a_lowered_lifetime() {
    for max_bytes in WITH_AND_WITHOUT_LOG {
        let dir = new_dir();
        let clock = clock();
        let open = |options| open_with(options, max_bytes, &clock);
        let store = open(limited(dir.path(), 5000 * HOUR));
        assert_eq!(store.clean(), Ok(0));
        log_in_hourly(&store, &clock, 0..1000);
        drop(store);
        let store = open(limited(dir.path(), 400 * HOUR));
        assert_eq!((store.size(), store.stats().unwrap().sessions), (Ok(399), Some(1000)));
        assert_eq!(store.clean(), Ok(601));
        assert_eq!((store.size(), store.stats().unwrap().sessions), (Ok(399), Some(399)));
        assert_eq!(store.stats().unwrap().expired, 601);
        // The sweep has moved the entries of the others.
        clock.advance(100 * HOUR);
        assert_eq!(store.clean(), Ok(100));
        drop(store);
        let store = open(limited(dir.path(), 100 * HOUR));
        assert_eq!((store.clean(), store.clean()), (Ok(299), Ok(0)));
        assert_eq!(problems(&store), [""; 0]);
    }
}

#[test]
fn a_sweep_removes_sessions_that_a_process_without_a_lifetime_has_written() {
    for max_bytes in WITH_AND_WITHOUT_LOG {
        let dir = new_dir();
        let clock = clock();
        let open = |options| open_with(options, max_bytes, &clock);
        let store = open(limited(dir.path(), 50 * HOUR));
        log_in_hourly(&store, &clock, 0..10);
        assert_eq!(store.clean(), Ok(0));
        drop(store);
        let store = open(options(dir.path()));
        log_in_hourly(&store, &clock, 10..30);
        drop(store);
        clock.advance(40 * HOUR);
        let store = open(limited(dir.path(), 50 * HOUR));
        assert_eq!((store.clean(), store.size()), (Ok(21), Ok(9)));
        assert_eq!(problems(&store), [""; 0]);
    }
}

/// Copies the files of an open store, as a killed process leaves them.
fn killed(dir: &TempDir) -> TempDir {
    let copy = new_dir();
    for name in [names::DATA, names::REDO] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
#[cfg(target_os = "linux")]
fn a_sweep_removes_sessions_that_a_process_without_a_lifetime_has_left_in_the_log_of_another() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: FileOptions| FileStore::open_at(&options, clock.clone()).unwrap();
    let store = open(limited(dir.path(), 5 * HOUR));
    assert_eq!(store.clean(), Ok(0));
    log_in_hourly(&store, &clock, 0..10);
    let dir = killed(&dir);
    drop(store);
    let store = open(options(dir.path()));
    log_in_hourly(&store, &clock, 10..20);
    let dir = killed(&dir);
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    assert_eq!((store.clean(), store.stats().unwrap().sessions), (Ok(16), Some(4)));
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_longer_lifetime_ends_no_session_earlier() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: FileOptions| FileStore::open_at(&options, clock.clone()).unwrap();
    let store = open(options(dir.path()));
    log_in_hourly(&store, &clock, 0..10);
    drop(store);
    let store = open(limited(dir.path(), 20 * HOUR));
    assert_eq!(store.clean(), Ok(0));
    drop(store);
    clock.advance(20 * HOUR);
    let store = open(limited(dir.path(), 25 * HOUR));
    assert_eq!((store.clean(), store.size()), (Ok(6), Ok(4)));
    drop(store);
    clock.advance(20 * HOUR);
    let store = open(options(dir.path()));
    assert_eq!((store.clean(), store.size()), (Ok(0), Ok(4)));
    assert_eq!(problems(&store), [""; 0]);
    drop(store);
    let store = open(limited(dir.path(), 20 * HOUR));
    assert_eq!((store.clean(), store.size()), (Ok(4), Ok(0)));
}

/// The number of the last transaction.
fn last_transaction(store: &FileStore) -> usize {
    store.environment().read().unwrap().id()
}

#[test]
fn a_full_store_has_room_after_a_sweep_with_a_lowered_lifetime() {
    let pad = "x".repeat(3000);
    let fill = |store: &FileStore, prefix: &str| {
        let mut created = 0;
        loop {
            let name = format!("{prefix}{created}");
            let text = format!(r#"{{"sessionId":"{name}","expires":1,"pad":"{pad}"}}"#);
            match store.create(&json(&name, None, &text, at(10_000 * HOUR))) {
                Ok(()) => created += 1,
                Err(error) => break (created, error.code()),
            }
        }
    };
    for mib in [1, 8] {
        let dir = new_dir();
        let clock = clock();
        let open = |options: FileOptions| {
            let max_bytes = NonZeroU64::new(mib << 20);
            let options = FileOptions { max_bytes, max_session_bytes: None, ..options };
            FileStore::open_at(&options, clock.clone()).unwrap()
        };
        let store = open(options(dir.path()));
        let (created, code) = fill(&store, "a");
        assert_eq!(code, "ERR_STORE_FULL");
        drop(store);
        clock.advance(2 * HOUR);
        let store = open(limited(dir.path(), HOUR));
        let before = last_transaction(&store);
        assert_eq!(fill(&store, "b"), (0, "ERR_STORE_FULL"));
        // At most the one that frees pages, however many sessions there are.
        let commits = last_transaction(&store) - before;
        assert!(commits <= 1, "{commits} commits with {created} sessions");
        assert_eq!(store.clean(), Ok(created));
        let (created_later, code) = fill(&store, "b");
        assert_eq!((code, store.stats().unwrap().sessions), ("ERR_STORE_FULL", Some(created_later)));
        // The free pages are more scattered now.
        assert!(created_later > created - created / 20, "{created_later} of {created}");
        assert_eq!(problems(&store), [""; 0]);
    }
}

#[test]
fn an_interrupted_or_disturbed_scan_does_not_complete() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: FileOptions| FileStore::open_at(&options, clock.clone()).unwrap();
    let begin = |store: &FileStore| store.environment().begin_lifetime_scan().unwrap();
    let end = |store: &FileStore, scan| store.environment().end_lifetime_scan(scan).unwrap();
    let store = open(options(dir.path()));
    log_in_hourly(&store, &clock, 0..10);
    assert_eq!(begin(&store), None);
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    let interrupted = begin(&store).unwrap();
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    let before = last_transaction(&store);
    assert_eq!((begin(&store), last_transaction(&store)), (Some(interrupted), before));
    drop(store);
    // Scans with another limit start again.
    let store = open(limited(dir.path(), 6 * HOUR));
    let longer = begin(&store).unwrap();
    assert_ne!(longer.max, interrupted.max);
    end(&store, interrupted);
    assert_eq!(begin(&store), Some(longer));
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    let scan = begin(&store).unwrap();
    assert!(scan.max == interrupted.max && scan != interrupted);
    end(&store, longer);
    assert_eq!(begin(&store), Some(scan));
    drop(store);
    // A process without a limit writes before the end of the scan.
    let store = open(options(dir.path()));
    log_in(&store, "new", at(10_000 * HOUR));
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    end(&store, scan);
    assert!(begin(&store).is_some_and(|again| again != scan));
    assert_eq!((store.clean(), begin(&store)), (Ok(6), None));
    drop(store);
    // Without changes, a longer limit needs no scan.
    assert_eq!(begin(&open(limited(dir.path(), 6 * HOUR))), None);
    assert_ne!(begin(&open(limited(dir.path(), 4 * HOUR))), None);
}

#[test]
#[cfg(target_os = "linux")]
fn a_scan_that_skips_a_session_in_the_log_does_not_complete() {
    let dir = new_dir();
    let clock = clock();
    let open = |options: FileOptions| FileStore::open_at(&options, clock.clone()).unwrap();
    let store = open(options(dir.path()));
    log_in_hourly(&store, &clock, 0..10);
    drop(store);
    let store = open(limited(dir.path(), 5 * HOUR));
    let indexed = || {
        let view = store.environment().read().unwrap();
        view.tables().indexed_lifetime(&view).unwrap().unwrap()
    };
    assert_eq!(store.touch(&id("9"), at(10_000 * HOUR)), Ok(true));
    let mut removed = 0;
    store.sweep_past_lifetime(clock.now(), &mut removed).unwrap();
    assert_eq!((removed, indexed().is_complete()), (6, false));
    assert_eq!(store.clean(), Ok(0));
    assert!(indexed().is_complete());
}

#[test]
fn older_versions_reject_a_new_store() {
    let dir = new_dir();
    drop(reopen(&options(dir.path())).unwrap());
    assert_eq!(format(dir.path()), Some(3));
}

/// The lock file, opened as by a process of an older version with a log.
#[cfg(target_os = "linux")]
fn older_process(dir: &Path) -> std::fs::File {
    use crate::store::file::ofd_lock::{self, Kind, Range};
    let file = private_files::open_private(&dir.join(names::OWNERS), true).unwrap().unwrap();
    let pid = i64::from(std::process::id()) + 1;
    for byte in [(1 << 32) + pid, pid] {
        assert!(ofd_lock::try_lock(&file, Kind::Exclusive, Range::byte(byte)).unwrap());
    }
    file
}

#[test]
#[cfg(target_os = "linux")]
fn records_stay_readable_for_an_older_version_that_has_the_store_open() {
    let dir = new_dir();
    made_before(dir.path());
    let older = older_process(dir.path());
    let error = reopen(&limited(dir.path(), HOUR)).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains("knows of no maxLifetime"), "{error}");
    let store = reopen(&options(dir.path())).unwrap();
    log_in(&store, "new", at(100 * HOUR));
    assert_eq!(store.touch(&id("old"), at(100 * HOUR)), Ok(true));
    drop(store);
    assert_eq!(format(dir.path()), Some(1));
    tamper(dir.path(), |txn, tables| {
        for entry in tables.sessions.iter(txn).unwrap() {
            assert_eq!(Record::parse(entry.unwrap().1).unwrap().header.created_at, None);
        }
    });
    drop(older);
    let store = reopen(&limited(dir.path(), HOUR)).unwrap();
    log_in(&store, "newer", at(100 * HOUR));
    assert_eq!(end_of(&store, "newer"), Some(HOUR));
    drop(store);
    assert_eq!(format(dir.path()), Some(3));
}

#[test]
#[cfg(target_os = "linux")]
fn a_sweep_enables_creation_times_after_the_older_version_has_closed() {
    let dir = new_dir();
    made_before(dir.path());
    let older = older_process(dir.path());
    let store = reopen(&options(dir.path())).unwrap();
    let has_creation_times = || store.environment().rules().has_creation_times;
    assert_eq!((store.clean(), has_creation_times()), (Ok(0), false));
    drop(older);
    assert_eq!((store.clean(), has_creation_times()), (Ok(0), true));
    log_in(&store, "new", at(100 * HOUR));
    drop(store);
    assert_eq!(format(dir.path()), Some(3));
    let store = reopen(&limited(dir.path(), HOUR)).unwrap();
    assert_eq!((end_of(&store, "new"), end_of(&store, "old")), (Some(HOUR), Some(100 * HOUR)));
}

#[test]
#[cfg(target_os = "linux")]
fn a_failed_recovery_leaves_a_format_that_the_older_version_can_open() {
    let (dir, copy) = (new_dir(), new_dir());
    let store = reopen(&options(dir.path())).unwrap();
    log_in(&store, "old", at(100 * HOUR));
    std::fs::copy(dir.path().join(names::DATA), copy.path().join(names::DATA)).unwrap();
    drop(store);
    tamper(copy.path(), |txn, tables| tables.meta.put(txn, tables::FORMAT, &2_u32.to_le_bytes()).unwrap());
    let error = reopen(&options(copy.path())).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{error}");
    assert_eq!(format(copy.path()), Some(2));
}

/// A disk without room for a commit.
struct FullDisk;

impl Simulator for FullDisk {
    fn commit_fault(&self) -> Option<CommitFault> {
        Some(CommitFault::Full)
    }
}

#[test]
fn a_store_opens_on_a_full_disk_and_enforces_lifetimes_once_there_is_room() {
    let dir = new_dir();
    made_before(dir.path());
    simulate(Some(Rc::new(FullDisk)));
    let opened = reopen(&limited(dir.path(), HOUR));
    let cleaned = opened.as_ref().map(|store| store.clean());
    simulate(None);
    assert_eq!(cleaned.unwrap().unwrap_err().code(), "ERR_STORE_FULL");
    let store = opened.unwrap();
    assert_eq!(end_of(&store, "old"), Some(100 * HOUR));
    assert_eq!(store.clean(), Ok(0));
    assert_eq!(store.touch(&id("old"), at(200 * HOUR)), Ok(true));
    assert_eq!(end_of(&store, "old"), Some(HOUR));
    drop(store);
    assert_eq!(format(dir.path()), Some(3));
}

#[test]
fn the_first_write_with_room_enforces_lifetimes_without_a_sweep() {
    let dir = new_dir();
    made_before(dir.path());
    simulate(Some(Rc::new(FullDisk)));
    let opened = reopen(&limited(dir.path(), HOUR));
    simulate(None);
    let store = opened.unwrap();
    assert_eq!((end_of(&store, "old"), store.environment().lacks_creation_times()), (Some(100 * HOUR), true));
    assert_eq!(store.touch(&id("old"), at(200 * HOUR)), Ok(true));
    assert_eq!((end_of(&store, "old"), store.environment().lacks_creation_times()), (Some(HOUR), false));
    drop(store);
    assert_eq!(format(dir.path()), Some(3));
}

/// The exact page estimate of a write, without free pages.
fn estimate(store: &FileStore, write: &Write) -> PageEstimate {
    let environment = store.environment();
    let view = environment.read().unwrap();
    let trees = Trees::read(view.tables(), &view).unwrap();
    let estimator = PageEstimator {
        tables: view.tables(),
        txn: &view,
        encryption: &environment.encryption,
        trees: &trees,
        page_size: environment.page_size,
        free: 0,
        max_per_user: None,
        lifetime: environment.limits.max_lifetime,
    };
    estimator.of(&[write], true).unwrap()
}

#[test]
fn the_page_estimate_includes_the_creation_time_that_a_touch_adds() {
    let dir = new_dir();
    let options = FileOptions { max_session_bytes: None, ..options(dir.path()) };
    let store = reopen(&options).unwrap();
    let page_size = store.environment().page_size;
    let text = |pad| format!(r#"{{"sessionId":"old","expires":1,"pad":"{}"}}"#, "x".repeat(pad));
    let record_bytes = |pad| {
        let (text, mut bytes) = (text(pad), Vec::new());
        codec::encode(&json("old", None, &text, at(HOUR)).content, &mut bytes);
        24 + bytes.len()
    };
    // Without the creation time, it just fits into two pages.
    let pad = 5000 + (2 * page_size as usize - 16 - record_bytes(5000));
    assert_eq!(record_bytes(pad), 2 * page_size as usize - 16);
    store.create(&json("old", None, &text(pad), at(HOUR))).unwrap();
    drop(store);
    make_older(dir.path());
    let store = reopen(&options).unwrap();
    let environment = store.environment();
    let overflow_pages = || {
        let view = environment.read().unwrap();
        view.tables().sessions.stat(&view).unwrap().overflow_pages
    };
    assert_eq!(overflow_pages(), 2);
    let estimate = estimate(&store, &Write::Touch { id: id("old"), expires: at(HOUR), enough: None });
    assert_eq!(store.touch(&id("old"), at(HOUR)), Ok(true));
    store.redo().drain_now().unwrap();
    assert_eq!((estimate.runs, overflow_pages()), (vec![3], 3));
}

/// The pages of the data file, without the meta pages.
fn data_pages(store: &FileStore) -> Vec<Vec<u8>> {
    let page_size = store.environment().page_size as usize;
    let data = std::fs::read(store.environment().data_path()).unwrap();
    data.chunks(page_size).skip(2).map(<[u8]>::to_vec).collect()
}

#[test]
fn the_page_estimate_includes_both_pages_of_a_moved_entry() {
    const SESSIONS: Millis = 50_000;
    let dir = new_dir();
    let clock = clock();
    clock.advance(SESSIONS * HOUR);
    let open = |options: FileOptions| {
        // Too small for a log.
        let max_bytes = NonZeroU64::new(32 << 20);
        FileStore::open_at(&FileOptions { max_bytes, ..options }, clock.clone()).unwrap()
    };
    let max_lifetime = 2 * SESSIONS * HOUR;
    let store = open(options(dir.path()));
    let creates: Vec<Write> = (0..SESSIONS)
        .map(|session| {
            // Some entries are far away. These are scattered over the expiry index, before and after their move.
            let lifetime = max_lifetime + if session % 250 == 0 { 1125 * HOUR } else { -100 * HOUR };
            let created = session * HOUR;
            let name = format!("{session:05}");
            let text = format!(r#"{{"sessionId":"{name}","expires":1}}"#);
            let anonymous = json(&name, None, &text, at(created + lifetime));
            Write::Create(store.new_record_at(&anonymous, START + created).unwrap())
        })
        .collect();
    for creates in creates.chunks(5000) {
        store.environment().commit(&creates.iter().collect::<Vec<_>>()).unwrap();
    }
    drop(store);
    let store = open(limited(dir.path(), max_lifetime));
    let environment = store.environment();
    let (mut due, mut cursor) = (Vec::new(), SweepCursor::SESSIONS);
    loop {
        let (found, next) = environment.due(&cursor, clock.now(), 200).unwrap();
        due.extend(found);
        let Some(next) = next else { break };
        cursor = next;
    }
    assert_eq!(due.len(), 200);
    let sweep = Write::Sweep { due, now: clock.now() };
    let estimate = estimate(&store, &sweep).sum();
    let before = data_pages(&store);
    assert_eq!(environment.commit(&[&sweep]), Ok(vec![Ok(0)]));
    let after = data_pages(&store);
    let written = after.iter().enumerate().filter(|(page, bytes)| before.get(*page) != Some(bytes)).count();
    assert!(written > 400 && estimate >= written as u64, "{estimate} of {written}");
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_record_with_a_changed_creation_time_does_not_decrypt() {
    let dir = new_dir();
    let options = FileOptions { secrets: vec![secret("first")], ..limited(dir.path(), HOUR) };
    let store = reopen(&options).unwrap();
    log_in(&store, "a", at(HOUR / 2));
    drop(store);
    for created_at in [Some(START + HOUR), None] {
        let mut before = Vec::new();
        tamper(dir.path(), |txn, tables| {
            let (key, row) = {
                let (key, row) = tables.sessions.first(txn).unwrap().unwrap();
                before = row.to_vec();
                let Record { header, body } = Record::parse(row).unwrap();
                let mut row = Vec::new();
                record::Header { created_at, ..header }.write(&mut row);
                row.extend_from_slice(body);
                (key.to_vec(), row)
            };
            tables.sessions.put(txn, &key, &row).unwrap();
        });
        let store = reopen(&options).unwrap();
        assert_eq!(store.get(&id("a")).unwrap_err().code(), "ERR_STORE_CORRUPT");
        drop(store);
        tamper(dir.path(), |txn, tables| {
            let key = tables.sessions.first(txn).unwrap().unwrap().0.to_vec();
            tables.sessions.put(txn, &key, &before).unwrap();
        });
    }
    assert_eq!(end_of(&reopen(&options).unwrap(), "a"), Some(HOUR / 2));
}
