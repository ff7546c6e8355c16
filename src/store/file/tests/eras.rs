//! The parts of the user index.

use super::*;

/// A store where one long session remains from each short era.
#[test]
fn long_sessions_among_short_ones_leave_few_eras() {
    const ERA: usize = 32;
    const ROUNDS: usize = 400;
    let dir = new_dir();
    let clock = clock();
    let store = FileStore::open_at(&options(dir.path()), clock.clone()).unwrap();
    let to: Arc<dyn Completions> = Arc::new(Received::default());
    for round in 0..ROUNDS {
        let now = clock.now();
        store
            .create(&plain(&format!("long {round}"), &ann(), Expiry::new(now + 1_000_000).unwrap()))
            .unwrap();
        for short in 0..ERA {
            let user = UserKeyBuf::from_text(&format!("user {short}"));
            let session = format!("short {round} {short}");
            store.begin_create(&plain(&session, &user, Expiry::new(now + 10).unwrap()), &to, 0).unwrap();
        }
        store.flush().unwrap();
        clock.advance(10);
        store.clean().unwrap();
    }
    let environment = store.environment();
    let txn = environment.read().unwrap();
    let eras = txn.tables().count_eras(&txn, u64::MAX).unwrap();
    drop(txn);
    // 128, and one more for each doubling. Without a limit there would be 400.
    assert!((100..=128 + 9).contains(&eras), "{eras}");
    let sessions = store.get_by_user(ann().as_key()).unwrap();
    let ids: Vec<String> = sessions.iter().map(|session| session.id.to_string()).collect();
    let expected: Vec<String> = (0..ROUNDS).map(|round| format!("long {round}")).collect();
    assert_eq!(ids, expected, "oldest first");
    assert_eq!(problems(&store), [""; 0]);
}
