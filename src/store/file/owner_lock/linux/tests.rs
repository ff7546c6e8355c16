use std::fs;

use super::*;

fn acquire(dir: &Path) -> Result<OwnerLock> {
    OwnerLock::acquire(dir, |_, _| Ok(())).map(|(owner, ())| owner)
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
fn a_second_open_with_the_same_pid_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    let error = acquire(dir.path()).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains("the same PID"), "{error}");
    drop(owner);
    assert!(acquire(dir.path()).is_ok());
}

#[test]
fn other_processes_are_detected_by_their_locks() {
    let dir = tempfile::tempdir().unwrap();
    assert!(OwnerLock::open_existing(dir.path()).unwrap().is_none());
    let owner = acquire(dir.path()).unwrap();
    assert_eq!(owner.others().unwrap(), Others::None);
    assert_eq!(OwnerLock::open_existing(dir.path()).unwrap().unwrap().others().unwrap(), Others::Some);
    let another = held_by_another(dir.path(), another_pid());
    assert_eq!(owner.others().unwrap(), Others::Some);
    drop(another);
    let opening = held_by_another(dir.path(), SETUP);
    assert_eq!(owner.others().unwrap(), Others::None);
    drop(opening);
}

#[test]
fn an_old_version_is_detected_by_its_missing_byte() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    let lacks = |feature| owner.has_old_version(feature).unwrap();
    assert!(!lacks(Feature::Log) && !lacks(Feature::CreationTimes));
    let another = held_by_another(dir.path(), another_pid());
    assert!(lacks(Feature::Log) && lacks(Feature::CreationTimes));
    let knows_log = Range::byte(feature_offset(Feature::Log) + another_pid().start);
    assert!(ofd_lock::try_lock(&another, Kind::Exclusive, knows_log).unwrap());
    assert!(!lacks(Feature::Log) && lacks(Feature::CreationTimes));
}

#[test]
fn an_old_version_is_detected_among_any_other_pids() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    let mut others = Vec::new();
    for pid in [500, 100, 900, 300] {
        let knows_log = held_by_another(dir.path(), Range::byte(feature_offset(Feature::Log) + pid));
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
fn unreadable_locks_may_hide_an_old_version() {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = tempfile::tempdir().unwrap();
    drop(acquire(dir.path()).unwrap());
    let options = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).clone();
    let owner = OwnerLock { file: options.open(dir.path().join(OWNERS)).unwrap() };
    let error = owner.has_old_version(Feature::CreationTimes).unwrap_err();
    assert!(!ofd_lock::is_unsupported(&error), "{error}");
    assert!(owner.may_have_old_version(Feature::Log) && owner.may_have_old_version(Feature::CreationTimes));
}

#[test]
fn published_values_are_visible_while_their_process_has_the_store_open() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    const LAST: u64 = (1 << 38) - 1;
    for (limit, other_limit) in [
        (PublishedLimit::UserLimit, PublishedLimit::Lifetime),
        (PublishedLimit::Lifetime, PublishedLimit::UserLimit),
    ] {
        let place = |value: u64| {
            let pid = another_pid().start;
            Range::byte(FIRST_LIMIT + limit as i64 * LIMIT_RANGE + value as i64 * PID_RANGE + pid)
        };
        for (own, theirs) in [(0, 7), (7, 0), (7, 8), (LAST, 0), (0, LAST), (LAST, LAST - 1)] {
            ofd_lock::unlock_all(&owner.file);
            assert_eq!(owner.publish(limit, own).unwrap(), None);
            let same = held_by_another(dir.path(), place(own));
            assert_eq!(owner.publish(limit, own).unwrap(), None);
            let another = held_by_another(dir.path(), place(theirs));
            assert_eq!(owner.publish(limit, own).unwrap(), Some(theirs));
            assert_eq!(owner.publish(other_limit, own).unwrap(), None);
            drop((same, another));
            assert_eq!(owner.publish(limit, own).unwrap(), None);
        }
    }
    assert_eq!(owner.others().unwrap(), Others::None);
}

#[test]
fn files_are_removed_only_by_the_last_process() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    let another = held_by_another(dir.path(), another_pid());
    owner.remove_if_alone(dir.path(), || panic!("another has the store open"));
    drop(another);
    let mut is_removed = false;
    owner.remove_if_alone(dir.path(), || is_removed = true);
    assert!(is_removed);
}

#[test]
fn a_stalled_opener_blocks_others_only_until_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let owner = acquire(dir.path()).unwrap();
    let _stopped = held_by_another(dir.path(), SETUP);
    let error = owner.lock_setup(dir.path(), Duration::ZERO).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_LOCKED");
    assert!(error.to_string().contains("has not finished"), "{error}");
}

#[test]
fn a_lock_file_that_is_removed_during_the_wait_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OWNERS);
    drop(acquire(dir.path()).unwrap());
    let removing = held_by_another(dir.path(), SETUP);
    thread::scope(|scope| {
        let opening = scope.spawn(|| acquire(dir.path()));
        fs::remove_file(&path).unwrap();
        drop(removing);
        let owner = opening.join().unwrap().unwrap();
        assert!(is_at(&owner.file, &path).unwrap());
    });
}
