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

#[cfg(not(target_os = "linux"))]
pub(super) use fallback::OwnerLock;
#[cfg(target_os = "linux")]
pub(super) use linux::OwnerLock;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::error::{Result, StoreError};
    use crate::store::file::errors::{io_failed, same_pid};
    use crate::store::file::names::OWNERS;
    use crate::store::file::owner_lock::Others;
    use crate::store::file::private_files::{create_private, give_to_owner, is_at, open_private};

    /// How long an opener waits for another that makes the files.
    const PATIENCE: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(1);

    /// A range of the file that is locked. Each PID has the byte of its number.
    #[derive(Clone, Copy)]
    struct Range {
        start: libc::off_t,
        length: libc::off_t,
    }

    /// Behind the PIDs, which Linux keeps below 2^22.
    const TURN: Range = Range { start: 1 << 30, length: 1 };
    const ALL_PIDS: Range = Range { start: 0, length: 1 << 30 };

    /// Held while this process has the store open.
    pub(in super::super) struct OwnerLock {
        file: File,
    }

    /// Held while one process makes or removes the files of a folder.
    pub(in super::super) struct Turn<'a>(&'a File);

    impl Drop for Turn<'_> {
        fn drop(&mut self) {
            // The end of the open file would release it as well.
            let _ = fcntl(self.0, libc::F_OFD_SETLK, libc::F_UNLCK, TURN);
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
            match fcntl(&self.file, libc::F_OFD_GETLK, libc::F_WRLCK, ALL_PIDS) {
                Ok(found) if found.l_type == libc::F_UNLCK as libc::c_short => Ok(Others::None),
                Ok(_) => Ok(Others::Some),
                // The kernel or the file system has no such locks.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Others::Unknown),
                Err(error) => Err(io_failed(&OWNERS, "looking at the locks of", &error)),
            }
        }

        fn take_turn(&self, path: &Path, patience: Duration) -> Result<Turn<'_>> {
            let deadline = Instant::now() + patience;
            loop {
                match fcntl(&self.file, libc::F_OFD_SETLK, libc::F_WRLCK, TURN) {
                    Ok(_) => return Ok(Turn(&self.file)),
                    Err(error) if is_held(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
                    Err(error) if is_held(&error) => {
                        return Err(StoreError::Locked(format!(
                            "another process has been opening {} for {} s and does not get on. Is it stopped?",
                            path.display(),
                            patience.as_secs()
                        )));
                    }
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Turn(&self.file)),
                    Err(error) => return Err(io_failed(&path.display(), "locking", &error)),
                }
            }
        }

        fn lock_pid(&self, dir: &Path) -> Result<()> {
            let pid = Range { start: libc::off_t::from(std::process::id()), length: 1 };
            match fcntl(&self.file, libc::F_OFD_SETLK, libc::F_WRLCK, pid) {
                Ok(_) => Ok(()),
                Err(error) if is_held(&error) => Err(same_pid(dir)),
                // LMDB's own answer remains.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                Err(error) => Err(io_failed(&dir.join(OWNERS).display(), "locking", &error)),
            }
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

    fn is_held(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
    }

    fn fcntl(file: &File, command: libc::c_int, kind: libc::c_int, range: Range) -> io::Result<libc::flock> {
        let mut lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: range.start,
            l_len: range.length,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, and `lock` is a whole flock. rustix has no locks of open file descriptions.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
            0 => Ok(lock),
            _ => Err(io::Error::last_os_error()),
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
            fcntl(&file, libc::F_OFD_SETLK, libc::F_WRLCK, range).unwrap();
            file
        }

        fn another_pid() -> Range {
            Range { start: libc::off_t::from(std::process::id()) + 1, length: 1 }
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
    use crate::store::file::owner_lock::Others;

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
    }
}
