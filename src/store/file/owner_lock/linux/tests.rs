use std::fs;

use super::*;

fn mark(dir: &Path) -> Result<OwnerLock> {
    OwnerLock::mark(dir, |_, _| Ok(())).map(|(owner, ())| owner)
}

/// The lock file, opened as by another process that holds this range.
fn held_by_another(dir: &Path, range: Range) -> File {
    let file = open_private(&dir.join(OWNERS), true).unwrap().unwrap();
    assert!(ofd_lock::try_lock(&file, Kind::Exclusive, range).unwrap());
    file
}

fn another_pid() -> Range {
    Range::byte(i64::from(std::process::id()) + 1)
}

#[test]
fn a_pid_has_the_store_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    let error = mark(dir.path()).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains("the same PID"), "{error}");
    drop(owner);
    assert!(mark(dir.path()).is_ok());
}

#[test]
fn others_are_known_by_their_locks_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert!(OwnerLock::look(dir.path()).unwrap().is_none());
    let owner = mark(dir.path()).unwrap();
    assert_eq!(owner.others().unwrap(), Others::None);
    assert_eq!(OwnerLock::look(dir.path()).unwrap().unwrap().others().unwrap(), Others::Some);
    let another = held_by_another(dir.path(), another_pid());
    assert_eq!(owner.others().unwrap(), Others::Some);
    drop(another);
    let opening = held_by_another(dir.path(), TURN);
    assert_eq!(owner.others().unwrap(), Others::None);
    drop(opening);
}

#[test]
fn a_process_of_an_old_version_is_known_by_its_missing_byte() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    let lacks = |feature| owner.has_old_version(feature).unwrap();
    assert!(!lacks(Feature::Log) && !lacks(Feature::Times));
    let another = held_by_another(dir.path(), another_pid());
    assert!(lacks(Feature::Log) && lacks(Feature::Times));
    let knows_log = Range::byte(knows(Feature::Log) + another_pid().start);
    assert!(ofd_lock::try_lock(&another, Kind::Exclusive, knows_log).unwrap());
    assert!(!lacks(Feature::Log) && lacks(Feature::Times));
}

#[test]
fn a_process_of_an_old_version_is_known_whatever_its_pid_is() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    let mut others = Vec::new();
    for pid in [500, 100, 900, 300] {
        let knows_log = held_by_another(dir.path(), Range::byte(knows(Feature::Log) + pid));
        assert!(ofd_lock::try_lock(&knows_log, Kind::Exclusive, Range::byte(pid)).unwrap());
        others.push(knows_log);
    }
    assert!(!owner.has_old_version(Feature::Log).unwrap());
    for pid in [1, 200, 301, 901] {
        let old = held_by_another(dir.path(), Range::byte(pid));
        assert!(owner.has_old_version(Feature::Log).unwrap(), "{pid}");
        drop(old);
        assert!(!owner.has_old_version(Feature::Log).unwrap(), "{pid}");
    }
}

#[test]
fn there_may_be_a_process_of_an_old_version_where_the_locks_cannot_be_read() {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = tempfile::tempdir().unwrap();
    drop(mark(dir.path()).unwrap());
    let options = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).clone();
    let owner = OwnerLock { file: options.open(dir.path().join(OWNERS)).unwrap() };
    let error = owner.has_old_version(Feature::Times).unwrap_err();
    assert!(!ofd_lock::is_unsupported(&error), "{error}");
    assert!(owner.may_have_old_version(Feature::Log) && owner.may_have_old_version(Feature::Times));
}

#[test]
fn other_values_are_known_for_as_long_as_their_processes_have_the_store_open() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    const LAST: u64 = (1 << 38) - 1;
    for (subject, other_subject) in
        [(Subject::UserLimit, Subject::Lifetime), (Subject::Lifetime, Subject::UserLimit)]
    {
        let place = |value: u64| {
            let pid = another_pid().start;
            Range::byte(SUBJECTS + subject as i64 * SUBJECT + value as i64 * PIDS + pid)
        };
        for (own, theirs) in [(0, 7), (7, 0), (7, 8), (LAST, 0), (0, LAST), (LAST, LAST - 1)] {
            ofd_lock::unlock_all(&owner.file);
            assert_eq!(owner.say(subject, own).unwrap(), None);
            let same = held_by_another(dir.path(), place(own));
            assert_eq!(owner.say(subject, own).unwrap(), None);
            let another = held_by_another(dir.path(), place(theirs));
            assert_eq!(owner.say(subject, own).unwrap(), Some(theirs));
            assert_eq!(owner.say(other_subject, own).unwrap(), None);
            drop((same, another));
            assert_eq!(owner.say(subject, own).unwrap(), None);
        }
    }
    assert_eq!(owner.others().unwrap(), Others::None);
}

#[test]
fn files_are_removed_only_by_the_last_process() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    let another = held_by_another(dir.path(), another_pid());
    owner.tidy(dir.path(), || panic!("another has the store open"));
    drop(another);
    let mut is_removed = false;
    owner.tidy(dir.path(), || is_removed = true);
    assert!(is_removed);
}

#[test]
fn whoever_does_not_get_on_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let owner = mark(dir.path()).unwrap();
    let _stopped = held_by_another(dir.path(), TURN);
    let error = owner.take_turn(dir.path(), Duration::ZERO).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains("does not get on"), "{error}");
}

#[test]
fn a_lock_file_that_was_removed_meanwhile_is_not_the_one_that_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OWNERS);
    drop(mark(dir.path()).unwrap());
    let removing = held_by_another(dir.path(), TURN);
    thread::scope(|scope| {
        let opening = scope.spawn(|| mark(dir.path()));
        fs::remove_file(&path).unwrap();
        drop(removing);
        let owner = opening.join().unwrap().unwrap();
        assert!(is_at(&owner.file, &path).unwrap());
    });
}
