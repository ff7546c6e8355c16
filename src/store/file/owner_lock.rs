//! The lock file `owners.lock`: which processes have the store open, and whose turn it is to make its files.
//!
//! LMDB knows processes by their PIDs. Two with one PID, in two containers, would take each other's readers for their
//! own. So would two copies of this package in one process, whose POSIX locks on one file are one lock. The locks here
//! belong to the open file description instead (Linux, fcntl(2)), so that both are refused.

/// Which other processes have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum Others {
    None,
    Some,
    /// The system has no such locks.
    Unknown,
}

/// What versions of this package know, or do not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// The redo log.
    Log,
    /// Records that say when their sessions were created.
    Times,
}

/// What processes say of themselves while they have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) enum Subject {
    UserLimit = 0,
    Lifetime = 1,
}

/// The answer of systems and file systems without such locks: no log is used there, but times are kept.
fn without_locks(feature: Feature) -> bool {
    feature == Feature::Log
}

#[cfg(not(target_os = "linux"))]
pub(super) use fallback::OwnerLock;
#[cfg(target_os = "linux")]
pub(super) use linux::OwnerLock;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::error::{Result, StoreError};
    use crate::store::file::errors::{io_failed, same_pid};
    use crate::store::file::names::OWNERS;
    use crate::store::file::ofd_lock::{self, Kind, Range};
    use crate::store::file::owner_lock::{Feature, Others, Subject, without_locks};
    use crate::store::file::private_files::{create_private, give_to_owner, is_at, open_private};

    /// How long an opener waits for another that makes the files.
    const PATIENCE: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(1);

    /// Each PID has the byte of its number. Behind them, as Linux keeps PIDs below 2^22:
    const TURN: Range = Range::byte(1 << 30);
    const ALL_PIDS: Range = Range { start: 0, length: 1 << 30 };
    /// A process that knows of a feature has a byte for it as well: the one of this number plus its PID.
    fn knows(feature: Feature) -> i64 {
        match feature {
            Feature::Log => 1 << 32,
            Feature::Times => 1 << 33,
        }
    }

    /// A process says a value of a subject by its byte: the one of the subject, plus its PID, plus the value times so many.
    const PIDS: i64 = 1 << 22;
    const SUBJECT: i64 = 1 << 60;
    const SUBJECTS: i64 = 1 << 61;

    /// Held while this process has the store open.
    pub(in super::super) struct OwnerLock {
        file: File,
    }

    impl Drop for OwnerLock {
        fn drop(&mut self) {
            ofd_lock::unlock_all(&self.file);
        }
    }

    /// Held while one process makes or removes the files of a folder.
    pub(in super::super) struct Turn<'a>(&'a File);

    impl Drop for Turn<'_> {
        fn drop(&mut self) {
            ofd_lock::unlock(self.0, TURN);
        }
    }

    impl OwnerLock {
        /// Opens the lock file, creates it if it is missing, and calls `make` while no other process makes or removes
        /// files of the folder. By then this process is known as one that has the store open. `make` learns whether
        /// the lock file is new.
        pub(in super::super) fn mark<T>(
            dir: &Path,
            make: impl FnOnce(&Self, bool) -> Result<T>,
        ) -> Result<(Self, T)> {
            let path = dir.join(OWNERS);
            let failed = |error: io::Error| io_failed(&path.display(), "locking", &error);
            loop {
                let (file, is_new) = open_or_create(dir, &path)?;
                let owner = Self { file };
                let turn = owner.take_turn(&path, PATIENCE)?;
                // The process that had the turn before may have removed the file.
                if !is_at(&owner.file, &path).map_err(failed)? {
                    continue;
                }
                owner.lock_pid(dir)?;
                let made = make(&owner, is_new)?;
                drop(turn);
                return Ok((owner, made));
            }
        }

        /// Looks at the lock file without a lock. `None` if it is missing: then nobody has the store open.
        pub(in super::super) fn look(dir: &Path) -> Result<Option<Self>> {
            Ok(open_private(&dir.join(OWNERS), false)?.map(|file| Self { file }))
        }

        /// Calls `remove` while no other process makes files, unless another has the store open.
        pub(in super::super) fn tidy(&self, dir: &Path, remove: impl FnOnce()) {
            if let Ok(_turn) = self.take_turn(&dir.join(OWNERS), PATIENCE)
                && self.others() == Ok(Others::None)
            {
                remove();
            }
        }

        /// Whether other processes have the store open.
        pub(in super::super) fn others(&self) -> Result<Others> {
            match ofd_lock::find(&self.file, Kind::Exclusive, ALL_PIDS) {
                Ok(None) => Ok(Others::None),
                Ok(Some(_)) => Ok(Others::Some),
                Err(error) if ofd_lock::is_unsupported(&error) => Ok(Others::Unknown),
                Err(error) => Err(io_failed(&OWNERS, "looking at the locks of", &error)),
            }
        }

        /// Whether a process may have the store open whose version of this package does not know of a feature.
        pub(in super::super) fn may_have_old_version(&self, feature: Feature) -> bool {
            match self.has_old_version(feature) {
                Ok(has_old_version) => has_old_version,
                Err(error) if ofd_lock::is_unsupported(&error) => without_locks(feature),
                Err(_) => true,
            }
        }

        fn has_old_version(&self, feature: Feature) -> io::Result<bool> {
            // The first lock that the kernel reports is that of the oldest mark, not that of the lowest PID.
            let mut ranges = vec![ALL_PIDS];
            while let Some(range) = ranges.pop() {
                let Some(pid) = ofd_lock::find(&self.file, Kind::Exclusive, range)? else { continue };
                let pid = pid.max(range.start);
                let is_marked = |byte| {
                    ofd_lock::find(&self.file, Kind::Exclusive, Range::byte(byte))
                        .map(|found| found.is_some())
                };
                // One that closes the store meanwhile has neither mark any more.
                if !is_marked(knows(feature) + pid)? && is_marked(pid)? {
                    return Ok(true);
                }
                let end = range.start + range.length;
                let sides = [
                    Range { start: range.start, length: pid - range.start },
                    Range { start: pid + 1, length: end - pid - 1 },
                ];
                // A length of 0 would mean all that follows.
                ranges.extend(sides.into_iter().filter(|side| side.length > 0));
            }
            Ok(false)
        }

        /// Has other processes know a value of 38 bits for as long as this one has the store open. Returns another value that
        /// one of them has said, if there is any.
        pub(in super::super) fn say(&self, subject: Subject, value: u64) -> io::Result<Option<u64>> {
            let start = SUBJECTS + subject as i64 * SUBJECT;
            let own = start + value as i64 * PIDS;
            ofd_lock::try_lock(
                &self.file,
                Kind::Exclusive,
                Range::byte(own + i64::from(std::process::id())),
            )?;
            let before = Range { start, length: own - start };
            let after = Range { start: own + PIDS, length: start + SUBJECT - own - PIDS };
            // A length of 0 would mean all that follows.
            for range in [before, after].into_iter().filter(|range| range.length > 0) {
                if let Some(other) = ofd_lock::find(&self.file, Kind::Exclusive, range)? {
                    return Ok(Some(((other - start) / PIDS) as u64));
                }
            }
            Ok(None)
        }

        fn take_turn(&self, path: &Path, patience: Duration) -> Result<Turn<'_>> {
            let deadline = Instant::now() + patience;
            loop {
                match ofd_lock::try_lock(&self.file, Kind::Exclusive, TURN) {
                    Ok(true) => return Ok(Turn(&self.file)),
                    Ok(false) if Instant::now() < deadline => thread::sleep(PAUSE),
                    Ok(false) => {
                        return Err(StoreError::Locked(format!(
                            "another process has been opening {} for {} s and does not get on. Is it stopped?",
                            path.display(),
                            patience.as_secs()
                        )));
                    }
                    Err(error) if ofd_lock::is_unsupported(&error) => return Ok(Turn(&self.file)),
                    Err(error) => return Err(io_failed(&path.display(), "locking", &error)),
                }
            }
        }

        /// In this order: a process that sees this PID also sees what it knows.
        fn lock_pid(&self, dir: &Path) -> Result<()> {
            let pid = i64::from(std::process::id());
            for byte in [knows(Feature::Log) + pid, knows(Feature::Times) + pid, pid] {
                match ofd_lock::try_lock(&self.file, Kind::Exclusive, Range::byte(byte)) {
                    Ok(true) => {}
                    Ok(false) => return Err(same_pid(dir)),
                    // LMDB's own answer remains.
                    Err(error) if ofd_lock::is_unsupported(&error) => {}
                    Err(error) => return Err(io_failed(&dir.join(OWNERS).display(), "locking", &error)),
                }
            }
            Ok(())
        }
    }

    fn open_or_create(dir: &Path, path: &Path) -> Result<(File, bool)> {
        loop {
            if let Some(file) = open_private(path, true)? {
                return Ok((file, false));
            }
            match create_private(path) {
                Ok(file) => {
                    give_to_owner(&file, dir);
                    return Ok((file, true));
                }
                // Another process has created it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_failed(&path.display(), "making", &error)),
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::fs;

        use super::*;

        fn mark(dir: &Path) -> Result<OwnerLock> {
            OwnerLock::mark(dir, |_, _| Ok(())).map(|(owner, ())| owner)
        }

        /// The lock file as another process has it open, which holds this range.
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
    }
}

/// Systems without locks of open file descriptions: nothing is locked, and nothing is known.
#[cfg(not(target_os = "linux"))]
mod fallback {
    use std::path::Path;

    use crate::error::Result;
    use crate::store::file::names::LOCK;
    use crate::store::file::owner_lock::{Feature, Others, Subject, without_locks};

    pub(in super::super) struct OwnerLock;

    impl OwnerLock {
        pub(in super::super) fn mark<T>(
            _: &Path,
            make: impl FnOnce(&Self, bool) -> Result<T>,
        ) -> Result<(Self, T)> {
            make(&Self, false).map(|made| (Self, made))
        }

        /// `None` if nobody can have the store open: LMDB makes its lock file first.
        pub(in super::super) fn look(dir: &Path) -> Result<Option<Self>> {
            Ok(dir.join(LOCK).exists().then_some(Self))
        }

        pub(in super::super) fn tidy(&self, _: &Path, _: impl FnOnce()) {}

        pub(in super::super) fn others(&self) -> Result<Others> {
            Ok(Others::Unknown)
        }

        pub(in super::super) fn say(&self, _: Subject, _: u64) -> std::io::Result<Option<u64>> {
            Ok(None)
        }

        pub(in super::super) fn may_have_old_version(&self, feature: Feature) -> bool {
            without_locks(feature)
        }
    }
}
