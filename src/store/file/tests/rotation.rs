//! Rotation of secrets: the view of a process without a secret, and the secrets that open the store.

use super::*;

/// A store folder that is opened with changing lists of secrets.
struct Rotated {
    dir: TempDir,
    clock: Arc<MockClock>,
    max_per_user: Option<usize>,
    when_user_is_full: WhenUserIsFull,
}

impl Rotated {
    fn new() -> Self {
        Self {
            dir: new_dir(),
            clock: clock(),
            max_per_user: None,
            when_user_is_full: WhenUserIsFull::default(),
        }
    }

    fn open(&self, names: &[&str]) -> Result<Arc<FileStore>> {
        let options = FileOptions {
            secrets: names.iter().map(|name| secret(name)).collect(),
            max_sessions_per_user: self.max_per_user.and_then(NonZeroUsize::new),
            when_user_is_full: Some(self.when_user_is_full),
            ..options(self.dir.path())
        };
        FileStore::open_at(&options, self.clock.clone())
    }

    /// Opens the store. Touches each of the sessions, or creates it if it does not exist.
    fn write(&self, names: &[&str], sessions: &[&str]) -> Arc<FileStore> {
        let store = self.open(names).unwrap();
        for session in sessions {
            if !store.touch(&id(session), at(100)).unwrap() {
                store.create(&plain(session, &ann(), at(100))).unwrap();
            }
        }
        store
    }
}

fn ids_of(sessions: &[StoredSession]) -> Vec<String> {
    sessions.iter().map(|session| session.id.to_string()).collect()
}

fn all_ids(store: &FileStore) -> usize {
    let (mut count, mut cursor) = (0, Some(Cursor::default()));
    while let Some(after) = cursor {
        let (ids, next) = store.ids(after).unwrap();
        count += ids.len();
        cursor = next;
    }
    count
}

/// The number of sessions that each kind of call returns.
fn counts(store: &FileStore, sessions: &[&str]) -> [usize; 5] {
    let found = sessions.iter().filter(|session| store.get(&id(session)).unwrap().is_some());
    [
        found.count(),
        store.get_by_user(ann().as_key()).unwrap().len(),
        all_ids(store),
        store.size().unwrap() as usize,
        store.stats().unwrap().sessions.unwrap() as usize,
    ]
}

#[test]
fn secrets_are_rotated() {
    let rotated = Rotated::new();
    drop(rotated.write(&["first secret"], &["kept", "touched", "updated"]));
    let both = rotated.open(&["second secret", "first secret"]).unwrap();
    assert_eq!(both.get_by_user(ann().as_key()).unwrap().len(), 3);
    both.touch(&id("touched"), at(200)).unwrap();
    both.update(&plain("updated", &ann(), at(200))).unwrap();
    drop(both);

    let new = rotated.open(&["second secret"]).unwrap();
    assert_eq!(ids_of(&new.get_by_user(ann().as_key()).unwrap()), ["touched", "updated"]);
    // An unreadable session is absent: it authenticates nobody, and its id is free.
    assert_eq!(new.get(&id("kept")), Ok(None));
    assert_eq!(new.touch(&id("kept"), at(200)), Ok(false));
    assert_eq!(new.update(&plain("kept", &ann(), at(200))), Ok(false));
    assert_eq!(new.verify(&mut |_, _| ()).unwrap().unreadable, 1);
    assert_eq!(new.create(&plain("kept", &ann(), at(200))), Ok(()));
    // It had not expired.
    assert_eq!(new.stats().unwrap().expired, 0);
    assert_eq!(problems(&new), [""; 0]);
}

#[test]
fn a_session_without_its_secret_is_not_counted() {
    let rotated = Rotated::new();
    drop(rotated.write(&["first secret"], &["a", "b"]));
    let both = rotated.write(&["second secret", "first secret"], &["c"]);
    assert_eq!(counts(&both, &["a", "b", "c"]), [3; 5]);
    drop(both);
    let new = rotated.open(&["second secret"]).unwrap();
    assert_eq!(counts(&new, &["a", "b", "c"]), [1; 5]);
    drop(new);
    assert_eq!(counts(&rotated.open(&["first secret"]).unwrap(), &["a", "b", "c"]), [2; 5]);
}

#[test]
fn sessions_that_end_without_their_secret_do_not_come_back_with_it() {
    type End = fn(&FileStore);
    let ends: [End; 4] = [
        |store| assert_eq!(store.delete_by_user(ann().as_key(), Some(&id("b"))), Ok(0)),
        |store| store.delete(&id("a")).unwrap(),
        |store| store.create(&plain("a", &UserKeyBuf::from_text("ben"), at(100))).unwrap(),
        |store| store.clear().unwrap(),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let rotated = Rotated::new();
        drop(rotated.write(&["first secret"], &["a"]));
        drop(rotated.write(&["second secret", "first secret"], &["b"]));
        let new = rotated.open(&["second secret"]).unwrap();
        end(&new);
        assert_eq!(problems(&new), [""; 0]);
        drop(new);
        let both = rotated.open(&["second secret", "first secret"]).unwrap();
        let sessions = both.get_by_user(ann().as_key()).unwrap();
        assert!(!ids_of(&sessions).contains(&"a".into()), "after end {number}");
        assert_eq!(problems(&both), [""; 0]);
    }
}

#[test]
fn delete_by_user_counts_only_live_sessions() {
    let rotated = Rotated::new();
    drop(rotated.write(&["first secret"], &["a", "b"]));
    drop(rotated.write(&["second secret", "first secret"], &["c"]));
    let new = rotated.open(&["second secret"]).unwrap();
    assert_eq!(new.delete_by_user(ann().as_key(), None), Ok(1));
    assert_eq!((new.size(), new.stats().unwrap().sessions), (Ok(0), Some(0)));
    drop(new);
    let both = rotated.open(&["second secret", "first secret"]).unwrap();
    assert_eq!(counts(&both, &["a", "b", "c"]), [0; 5]);
}

#[test]
fn a_delete_by_user_chunk_without_live_sessions_is_not_the_last_one() {
    let rotated = Rotated::new();
    drop(rotated.write(&["first secret"], &["a", "b"]));
    drop(rotated.write(&["second secret", "first secret"], &["c"]));
    let new = rotated.open(&["second secret"]).unwrap();
    let part = || Write::DeleteByUser { user: ann(), except: Some(id("c")), max: 1 };
    for (ended, has_rest) in [(0, true), (0, false), (0, false)] {
        assert_eq!(new.write(part()), Ok(ended));
        new.redo().drain_now().unwrap();
        assert_eq!(new.environment().has_rest(&part()), Ok(has_rest));
    }
    assert_eq!(new.size(), Ok(1));
}

#[test]
fn sessions_without_their_secret_count_towards_the_limit_of_their_user() {
    let rotated = Rotated { max_per_user: Some(2), ..Rotated::new() };
    drop(rotated.write(&["first secret"], &["a", "b"]));
    drop(rotated.write(&["second secret", "first secret"], &["c"]));
    let new = rotated.write(&["second secret"], &["d"]);
    // "a" was replaced by "c", and "b" by "d". This process could not read "b", so "b" was not live here.
    assert_eq!(new.stats().unwrap().evicted, 0);
    drop(new);
    let both = rotated.open(&["second secret", "first secret"]).unwrap();
    assert_eq!(ids_of(&both.get_by_user(ann().as_key()).unwrap()), ["c", "d"]);
}

#[test]
fn no_login_is_rejected_because_of_sessions_without_their_secret() {
    let when_user_is_full = WhenUserIsFull::Reject;
    let rotated = Rotated { max_per_user: Some(1), when_user_is_full, ..Rotated::new() };
    drop(rotated.write(&["first secret"], &["a"]));
    let both = rotated.open(&["second secret", "first secret"]).unwrap();
    assert_eq!(both.create(&plain("b", &ann(), at(100))), Err(StoreError::TooManySessions { max: 1 }));
    // This session is encrypted with the second secret. Without it, that secret could not open the store.
    assert_eq!(both.create(&plain("c", &UserKeyBuf::from_text("ben"), at(100))), Ok(()));
    drop(both);
    let new = rotated.open(&["second secret"]).unwrap();
    assert_eq!(new.create(&plain("b", &ann(), at(100))), Ok(()));
    let refused = new.create(&plain("d", &ann(), at(100)));
    assert_eq!(refused, Err(StoreError::TooManySessions { max: 1 }));
    assert_eq!(new.delete(&id("b")), Ok(()));
    assert_eq!(new.update(&plain("c", &ann(), at(100))), Ok(true));
}

#[test]
fn a_late_process_with_an_old_list_of_secrets_locks_nobody_out() {
    let rotated = Rotated::new();
    drop(rotated.write(&["old secret"], &["a"]));
    drop(rotated.write(&["old secret", "new secret"], &["b"]));
    drop(rotated.write(&["new secret", "old secret"], &["c"]));
    let late = rotated.write(&["old secret"], &["d"]);
    // Its sweep does not remove the key either, because a session needs the new secret.
    late.clean().unwrap();
    drop(late);
    let new = rotated.open(&["new secret"]).unwrap();
    assert_eq!(ids_of(&new.get_by_user(ann().as_key()).unwrap()), ["c"]);
}

#[test]
fn a_sweep_without_an_unused_secret_locks_that_secret_out() {
    let rotated = Rotated::new();
    drop(rotated.write(&["old secret"], &["a"]));
    drop(rotated.write(&["new secret", "old secret"], &["b"]));
    let new = rotated.open(&["new secret"]).unwrap();
    // The key stays as long as a session needs it.
    new.clean().unwrap();
    drop(new);
    let old = rotated.open(&["old secret"]).unwrap();
    old.delete(&id("a")).unwrap();
    drop(old);
    let new = rotated.open(&["new secret"]).unwrap();
    new.clean().unwrap();
    assert_eq!(new.environment().has_unused_keys(), Ok(false));
    drop(new);
    let error = rotated.open(&["old secret"]).err().unwrap();
    assert_eq!(error.code(), "ERR_INVALID_OPTION");
    assert_eq!(counts(&rotated.open(&["new secret"]).unwrap(), &["b"]), [1; 5]);
}

#[test]
fn an_empty_store_keeps_its_secrets() {
    let rotated = Rotated::new();
    drop(rotated.write(&["old secret", "new secret"], &["a"]));
    let old = rotated.open(&["old secret"]).unwrap();
    old.clear().unwrap();
    old.clean().unwrap();
    drop(old);
    assert!(rotated.open(&["new secret"]).is_ok());
}

#[test]
fn a_running_process_restores_its_locked_out_secret_before_it_encrypts() {
    let rotated = Rotated::new();
    let both = rotated.write(&["old secret", "new secret"], &["a"]);
    // Another process has dropped the old secret.
    let open = both.environment().open().unwrap();
    let mut txn = open.env.write_txn().unwrap();
    let exact = {
        let bytes = secrets::wrapped_keys(open.tables.meta, &txn).unwrap().unwrap();
        let mut wrapped = crate::keyring::WrappedKeys::decode(bytes).unwrap();
        wrapped.remove_first(1, |_| true);
        wrapped.encode()
    };
    open.tables.meta.put(&mut txn, tables::WRAPPED_KEYS, &exact).unwrap();
    txn.commit().unwrap();
    drop(open);
    both.create(&plain("b", &ann(), at(100))).unwrap();
    drop(both);
    assert_eq!(rotated.open(&["old secret"]).unwrap().get(&id("b")).map(|found| found.is_some()), Ok(true));
}

/// Version 0.1.0 wrote the keys of its own list only, and no `covered`.
#[test]
fn wrapped_keys_of_an_earlier_version_may_not_cover_all_records() {
    let rotated = Rotated::new();
    drop(rotated.write(&["first secret"], &["a"]));
    drop(rotated.write(&["second secret", "first secret"], &["b"]));
    tamper(rotated.dir.path(), |txn, tables| {
        let bytes = tables.meta.get(txn, tables::WRAPPED_KEYS).unwrap().unwrap();
        let mut wrapped = crate::keyring::WrappedKeys::decode(bytes).unwrap();
        wrapped.remove_first(1, |_| true);
        tables.meta.put(txn, tables::WRAPPED_KEYS, &wrapped.encode()).unwrap();
    });
    let new = rotated.open(&["second secret"]).unwrap();
    assert_eq!(counts(&new, &["a", "b"]), [1; 5]);
    // A record whose key was lost may still be readable, so the sweep does not set `covered`.
    new.clean().unwrap();
    assert_eq!(counts(&new, &["a", "b"]), [1; 5]);
    new.delete_by_user(ann().as_key(), Some(&id("b"))).unwrap();
    new.redo().drain_now().unwrap();
    assert_eq!(new.environment().has_unused_keys(), Ok(true));
    new.clean().unwrap();
    assert_eq!(new.environment().has_unused_keys(), Ok(false));
    assert_eq!(counts(&new, &["a", "b"]), [1; 5]);
}

#[test]
fn there_is_room_for_a_new_secret_after_many() {
    let rotated = Rotated::new();
    let names: Vec<String> = (0..20).map(|number| format!("secret of number {number}")).collect();
    drop(rotated.write(&[&names[0]], &["first"]));
    // Each secret encrypts one session and is then left out. There are no sweeps.
    for pair in names.windows(2) {
        let store = rotated.write(&[&pair[1], &pair[0]], &[&pair[1]]);
        if pair[1] != names[19] {
            store.delete(&id(&pair[1])).unwrap();
        }
    }
    // The keys that were dropped for lack of room were unused.
    assert!(rotated.open(&[&names[1]]).is_err());
    for name in [&names[0], &names[19]] {
        assert_eq!(all_ids(&rotated.open(&[name]).unwrap()), 1);
    }
}
