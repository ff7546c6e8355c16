use tempfile::TempDir;

use super::*;
use crate::clock::MockClock;
use crate::session::{Expiry, UserKeyBuf};
use crate::store::SessionStore;
use crate::store::conformance::{START, id, json, plain};
use crate::store::file::{FileOptions, FileStore, names};

const FILLER: usize = 8 << 10;

fn open_at(dir: &TempDir) -> Arc<FileStore> {
    let options = FileOptions { path: dir.path().into(), sweep_interval: Some(0), ..FileOptions::default() };
    FileStore::open_at(&options, Arc::new(MockClock::new(START))).unwrap()
}

/// A store with a log. `None` if the system has no log.
fn open(dir: &TempDir) -> Option<Arc<FileStore>> {
    let store = open_at(dir);
    store.create(&plain("first", &ann(), at(1))).unwrap();
    store.redo().ring().is_some().then_some(store)
}

fn ann() -> UserKeyBuf {
    UserKeyBuf::from_text("ann")
}

fn new_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn at(second: i64) -> Expiry {
    Expiry::new(START + 1_000_000 + 1000 * second).unwrap()
}

/// Creates sessions until the log has more than one part.
fn fill(store: &FileStore, ring: &Ring) -> Vec<String> {
    let ann = ann();
    let rest =
        format!(r#""userId":"ann","expires":"2100-01-01T00:00:00.000Z","filler":"{}""#, "x".repeat(FILLER));
    let part = ring.size() / 4 + FILLER as u64;
    let mut ids = Vec::new();
    while ring.used() < part {
        let id = format!("old-{}", ids.len());
        let text = format!(r#"{{"sessionId":"{id}",{rest}}}"#);
        store.create(&json(&id, Some(&ann), &text, at(1))).unwrap();
        ids.push(id);
    }
    ids
}

#[test]
fn a_drain_of_the_oldest_part_skips_newer_parts_and_changed_rows() {
    let dir = new_dir();
    let Some(store) = open(&dir) else { return };
    let redo = store.redo();
    let ring = redo.ring().unwrap();
    let old = fill(&store, &ring);
    let end = ring.oldest_part();
    let (changed, ended) = (id(&old[0]), id(&old[1]));
    store.touch(&changed, at(2)).unwrap();
    store.delete(&ended).unwrap();
    store.create(&plain("new", &ann(), at(1))).unwrap();
    redo.pass(&ring, Part::Oldest, Duration::ZERO).unwrap();

    assert_eq!(ring.applied(), end);
    let overlay = redo.overlay();
    for key in [&changed, &ended, &id("new")] {
        assert!(overlay.entry(key.as_bytes()).is_some_and(|entry| entry.lsn > end.lsn), "{key:?}");
    }
    assert!(
        old[2..].iter().all(|key| overlay.entry(id(key).as_bytes()).is_none_or(|entry| entry.lsn > end.lsn))
    );
    // After a kill, the same sessions are in the data file and in the rest of the log.
    let copy = new_dir();
    for name in [names::DATA, names::REDO] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    for store in [store, open_at(&copy)] {
        let expires = |key| store.get(key).unwrap().map(|found| found.expires.millis());
        assert_eq!((expires(&changed), expires(&ended)), (Some(at(2).millis()), None));
        // "first" and "new" exist, and the ended session does not.
        assert_eq!(store.size(), Ok(old.len() as u64 + 1));
        assert_eq!(store.get_by_user(ann().as_key()).unwrap().len(), old.len() + 1);
        assert_eq!(store.verify(&mut |_, _| ()).unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_writer_without_room_waits_only_for_the_oldest_part() {
    let dir = new_dir();
    let Some(store) = open(&dir) else { return };
    let redo = store.redo();
    let ring = redo.ring().unwrap();
    let old = fill(&store, &ring);
    let (end, entered) = (ring.oldest_part(), ring.entered());
    redo.make_room(&ring).unwrap();
    assert_eq!(ring.applied(), end);
    assert!(end.lsn < entered.lsn, "all of the log was drained");
    assert_eq!(store.size(), Ok(old.len() as u64 + 1));
}
