//! The folder is removed, moved or replaced while the store is open.

use super::*;

fn expect_lost<T: std::fmt::Debug>(result: Result<T>, dir: &Path) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_IO");
    let text = error.to_string();
    assert!(
        text.contains("were removed, moved or replaced") && text.contains(dir.to_str().unwrap()),
        "{text}"
    );
}

type Loss = (&'static str, fn(&Path, &FileStore));

const LOSSES: [Loss; 4] = [
    ("removed", |dir, _| std::fs::remove_dir_all(dir).unwrap()),
    ("moved", |dir, _| std::fs::rename(dir, dir.with_extension("moved")).unwrap()),
    ("data file removed", |dir, _| std::fs::remove_file(dir.join(names::DATA)).unwrap()),
    ("replaced by a backup", |dir, store| {
        let backup = dir.with_extension("backup");
        store.backup(&backup, &mut |_, _| ()).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::rename(&backup, dir).unwrap();
    }),
];

#[test]
fn no_write_to_an_unreachable_file_is_acknowledged() {
    for (what, lose) in LOSSES {
        let place = new_dir();
        let dir = place.path().join("store");
        let store = reopen(&options(&dir)).unwrap();
        store.create(&plain("a", &ann(), at(100))).unwrap();
        lose(&dir, &store);
        for _ in 0..2 {
            expect_lost(store.create(&plain("b", &ann(), at(100))), &dir);
            expect_lost(store.touch(&id("a"), at(200)), &dir);
        }
        // Otherwise, sessions that another process has ended would still be live here.
        expect_lost(store.get(&id("a")), &dir);
        assert!(problems(&store)[0].contains("were removed, moved or replaced"), "{what}");
    }
}

#[test]
fn a_sweep_or_a_verification_detects_a_lost_folder_without_writes() {
    for (what, lose) in LOSSES {
        let place = new_dir();
        let dir = place.path().join("store");
        let store = reopen(&options(&dir)).unwrap();
        lose(&dir, &store);
        if what == "removed" {
            assert!(problems(&store)[0].contains("were removed, moved or replaced"));
        } else {
            expect_lost(store.clean(), &dir);
        }
        expect_lost(store.size(), &dir);
    }
}

#[test]
fn a_store_that_has_lost_its_folder_stays_failed_if_the_folder_comes_back() {
    let place = new_dir();
    let (dir, moved) = (place.path().join("store"), place.path().join("moved"));
    let store = reopen(&options(&dir)).unwrap();
    store.create(&plain("a", &ann(), at(100))).unwrap();
    std::fs::rename(&dir, &moved).unwrap();
    expect_lost(store.create(&plain("b", &ann(), at(100))), &dir);
    std::fs::rename(&moved, &dir).unwrap();
    expect_lost(store.create(&plain("b", &ann(), at(100))), &dir);
    drop(store);
    let store = reopen(&options(&dir)).unwrap();
    assert_eq!(store.create(&plain("b", &ann(), at(100))), Ok(()));
    assert_eq!(store.size(), Ok(2));
}

#[test]
fn a_folder_with_another_name_is_the_same_folder() {
    let place = new_dir();
    let (dir, link) = (place.path().join("store"), place.path().join("link"));
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let store = reopen(&options(&link)).unwrap();
    std::fs::remove_file(&link).unwrap();
    assert_eq!(store.create(&plain("a", &ann(), at(100))), Ok(()));
}

/// Sessions that are only in the log are there too.
#[test]
fn a_moved_folder_can_be_opened_at_its_new_path() {
    let place = new_dir();
    let (dir, moved) = (place.path().join("store"), place.path().join("moved"));
    let former = reopen(&options(&dir)).unwrap();
    former.create(&plain("a", &ann(), at(100))).unwrap();
    std::fs::rename(&dir, &moved).unwrap();
    let store = reopen(&options(&moved)).unwrap();
    assert!(store.get(&id("a")).unwrap().is_some());
    store.create(&plain("b", &ann(), at(100))).unwrap();
    expect_lost(former.create(&plain("c", &ann(), at(100))), &dir);
    expect_lost(former.get(&id("a")), &dir);
    drop(former);
    assert_eq!(store.size(), Ok(2));
    drop(store);
    assert_eq!(reopen(&options(&moved)).unwrap().size(), Ok(2));
}
