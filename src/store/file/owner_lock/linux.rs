use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Result, StoreError};
use crate::store::file::errors::{io_failed, same_pid};
use crate::store::file::names::OWNERS;
use crate::store::file::ofd_lock::{self, Kind, Range};
use crate::store::file::owner_lock::{Feature, Others, PublishedLimit, assumes_old_version};
use crate::store::file::private_files::{create_private, give_to_owner, is_at, open_private};

/// How long an opener waits while another process creates the files.
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// The byte with the number of a PID shows that this process has the store open. Linux keeps PIDs below 2^22, so the
/// other bytes come after them.
const SETUP: Range = Range::byte(1 << 30);
const ALL_PIDS: Range = Range { start: 0, length: 1 << 30 };
/// A process that supports a feature also locks the byte at this offset plus its PID.
fn feature_offset(feature: Feature) -> i64 {
    match feature {
        Feature::Log => 1 << 32,
        Feature::CreationTimes => 1 << 33,
    }
}

/// A process publishes a value by locking one byte. Its position is the start of the limit's range, plus the value
/// times `PID_RANGE`, plus the PID.
const PID_RANGE: i64 = 1 << 22;
const LIMIT_RANGE: i64 = 1 << 60;
const FIRST_LIMIT: i64 = 1 << 61;

/// Held while this process has the store open.
pub(in crate::store::file) struct OwnerLock {
    file: File,
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        ofd_lock::unlock_all(&self.file);
    }
}

/// Held while one process creates or removes files in a folder.
pub(in crate::store::file) struct SetupLock<'a>(&'a File);

impl Drop for SetupLock<'_> {
    fn drop(&mut self) {
        ofd_lock::unlock(self.0, SETUP);
    }
}

impl OwnerLock {
    /// Opens or creates the lock file and registers this process. Then calls `create`, while no other process creates
    /// or removes files in the folder. The argument of `create` says whether the lock file is new.
    pub(in crate::store::file) fn acquire<T>(
        dir: &Path,
        create: impl FnOnce(&Self, bool) -> Result<T>,
    ) -> Result<(Self, T)> {
        let path = dir.join(OWNERS);
        let failed = |error: io::Error| io_failed(&path.display(), "locking", &error);
        loop {
            let (file, is_new) = open_or_create(dir, &path)?;
            let owner = Self { file };
            let setup = owner.lock_setup(&path, TIMEOUT)?;
            // The last holder of the setup lock may have removed the file.
            if !is_at(&owner.file, &path).map_err(failed)? {
                continue;
            }
            owner.lock_pid(dir)?;
            let created = create(&owner, is_new)?;
            drop(setup);
            return Ok((owner, created));
        }
    }

    /// Opens the lock file without locking it. `None` if it is missing, because then no process has the store open.
    pub(in crate::store::file) fn open_existing(dir: &Path) -> Result<Option<Self>> {
        Ok(open_private(&dir.join(OWNERS), false)?.map(|file| Self { file }))
    }

    /// Calls `remove` if no other process has the store open. No process creates files during the call.
    pub(in crate::store::file) fn remove_if_alone(&self, dir: &Path, remove: impl FnOnce()) {
        if let Ok(_setup) = self.lock_setup(&dir.join(OWNERS), TIMEOUT)
            && self.others() == Ok(Others::None)
        {
            remove();
        }
    }

    /// Whether other processes have the store open.
    pub(in crate::store::file) fn others(&self) -> Result<Others> {
        match ofd_lock::find(&self.file, Kind::Exclusive, ALL_PIDS) {
            Ok(None) => Ok(Others::None),
            Ok(Some(_)) => Ok(Others::Some),
            Err(error) if ofd_lock::is_unsupported(&error) => Ok(Others::Unknown),
            Err(error) => Err(io_failed(&OWNERS, "reading the locks of", &error)),
        }
    }

    /// Whether a process without support for a feature may have the store open.
    pub(in crate::store::file) fn may_have_old_version(&self, feature: Feature) -> bool {
        match self.has_old_version(feature) {
            Ok(has_old_version) => has_old_version,
            Err(error) if ofd_lock::is_unsupported(&error) => assumes_old_version(feature),
            Err(_) => true,
        }
    }

    fn has_old_version(&self, feature: Feature) -> io::Result<bool> {
        // The kernel reports the oldest lock first, not the lowest PID.
        let mut ranges = vec![ALL_PIDS];
        while let Some(range) = ranges.pop() {
            let Some(pid) = ofd_lock::find(&self.file, Kind::Exclusive, range)? else { continue };
            let pid = pid.max(range.start);
            let is_marked = |byte| {
                ofd_lock::find(&self.file, Kind::Exclusive, Range::byte(byte)).map(|found| found.is_some())
            };
            // A process that is closing the store right now holds neither byte.
            if !is_marked(feature_offset(feature) + pid)? && is_marked(pid)? {
                return Ok(true);
            }
            let end = range.start + range.length;
            let sides = [
                Range { start: range.start, length: pid - range.start },
                Range { start: pid + 1, length: end - pid - 1 },
            ];
            // A length of 0 would mean "up to the end".
            ranges.extend(sides.into_iter().filter(|side| side.length > 0));
        }
        Ok(false)
    }

    /// Publishes a value of at most 38 bits for as long as this process has the store open. Returns a different value
    /// that another process has published, if there is one.
    pub(in crate::store::file) fn publish(
        &self,
        limit: PublishedLimit,
        value: u64,
    ) -> io::Result<Option<u64>> {
        let start = FIRST_LIMIT + limit as i64 * LIMIT_RANGE;
        let own = start + value as i64 * PID_RANGE;
        ofd_lock::try_lock(&self.file, Kind::Exclusive, Range::byte(own + i64::from(std::process::id())))?;
        let before = Range { start, length: own - start };
        let after = Range { start: own + PID_RANGE, length: start + LIMIT_RANGE - own - PID_RANGE };
        // A length of 0 would mean "up to the end".
        for range in [before, after].into_iter().filter(|range| range.length > 0) {
            if let Some(other) = ofd_lock::find(&self.file, Kind::Exclusive, range)? {
                return Ok(Some(((other - start) / PID_RANGE) as u64));
            }
        }
        Ok(None)
    }

    fn lock_setup(&self, path: &Path, timeout: Duration) -> Result<SetupLock<'_>> {
        let deadline = Instant::now() + timeout;
        loop {
            match ofd_lock::try_lock(&self.file, Kind::Exclusive, SETUP) {
                Ok(true) => return Ok(SetupLock(&self.file)),
                Ok(false) if Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
                Ok(false) => {
                    return Err(StoreError::Locked(format!(
                        "another process has been opening {} for {} s and has not finished. Is it stopped?",
                        path.display(),
                        timeout.as_secs()
                    )));
                }
                Err(error) if ofd_lock::is_unsupported(&error) => return Ok(SetupLock(&self.file)),
                Err(error) => return Err(io_failed(&path.display(), "locking", &error)),
            }
        }
    }

    /// Locks the byte of the PID last. So a process that sees it also sees the bytes of the features.
    fn lock_pid(&self, dir: &Path) -> Result<()> {
        let pid = i64::from(std::process::id());
        for byte in [feature_offset(Feature::Log) + pid, feature_offset(Feature::CreationTimes) + pid, pid] {
            match ofd_lock::try_lock(&self.file, Kind::Exclusive, Range::byte(byte)) {
                Ok(true) => {}
                Ok(false) => return Err(same_pid(dir)),
                // Without these locks, only LMDB's own checks remain.
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
            Err(error) => return Err(io_failed(&path.display(), "creating", &error)),
        }
    }
}

#[cfg(test)]
mod tests;
