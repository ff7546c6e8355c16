use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::MockClock;
use crate::session::{Expiry, UserKeyBuf};
use crate::store::SessionStore;
use crate::store::conformance::{START, id, json, plain};
use crate::store::file::{Durability, FileOptions, FileStore};

/// How long the test waits for other threads.
const PATIENCE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn everysec_syncs_while_a_drain_waits_for_the_disk() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let options = FileOptions {
        path: dir.path().into(),
        sweep_interval: Some(0),
        durability: Some(Durability::EverySec),
        ..FileOptions::default()
    };
    let store = FileStore::open_at(&options, Arc::new(MockClock::new(START))).unwrap();
    let expires = Expiry::new(START + 1_000_000).unwrap();
    let ann = UserKeyBuf::from_text("ann");
    store.create(&plain("first", &ann, expires)).unwrap();
    let redo = store.redo();
    // Other systems have no log.
    let Some(ring) = redo.ring() else { return };

    // The drain cannot write to the data file, as if the disk were slow.
    let base = redo.hold_base().unwrap();
    let text = format!(
        r#"{{"sessionId":"filler","userId":"ann","expires":"2100-01-01T00:00:00.000Z","filler":"{}"}}"#,
        "x".repeat(64 << 10)
    );
    store.create(&json("filler", Some(&ann), &text, expires)).unwrap();
    while ring.used() <= ring.size() / 2 {
        store.update(&json("filler", Some(&ann), &text, expires)).unwrap();
    }
    // By now the thread that drains waits.
    thread::sleep(Duration::from_millis(200));
    store.delete(&id("first")).unwrap();
    let written = ring.written();
    wait_until("the log was not synced", || ring.durable() >= written);
    assert!(ring.used() > ring.size() / 2, "the log was drained");
    drop(base);
    store.close().unwrap();
}
