//! Locks that show which processes may write: either one process with a log, or several without one.
//!
//! The locks are on bytes of `data.mdb` far beyond its end, where LMDB has no locks. Nobody removes this file by
//! mistake, and a process notices if it was replaced. The locks end with the process.
//!
//! - `MODE`: held exclusively by a process with exclusive access, and shared by processes that share the store.
//! - `REQUEST`: held shared by a process that wants to share the store and waits for `MODE`.
//! - `HOLDER` plus a PID: held by the process with exclusive access, for error messages.

use std::io;

/// The locks of one process on one store. The simulator implements them too.
pub(in crate::store::file) trait ModeLock: Send + Sync {
    /// Tries to get exclusive access.
    fn try_exclusive(&self) -> io::Result<bool>;

    /// Tries to get shared access. If this process has exclusive access, the change is atomic.
    fn try_shared(&self) -> io::Result<bool>;

    fn release(&self);

    /// Starts or stops requesting shared access from the process with exclusive access.
    fn request(&self, is_asked: bool) -> io::Result<()>;

    /// Whether another process requests shared access.
    fn is_requested(&self) -> io::Result<bool>;

    /// The PID of the process with exclusive access.
    fn holder(&self) -> Option<u32>;
}

#[cfg(target_os = "linux")]
pub(in crate::store::file) use linux::DataFileLock;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use super::ModeLock;
    use crate::error::Result;
    use crate::store::file::names::DATA;
    use crate::store::file::ofd_lock::{self, Kind, Range};
    use crate::store::file::private_files::open_private;

    const BASE: i64 = 1 << 62;
    const MODE: Range = Range::byte(BASE);
    const REQUEST: Range = Range::byte(BASE + 1);
    const HOLDERS: Range = Range { start: BASE + (1 << 32), length: 1 << 30 };

    /// Locks on the data file. They use their own open file, because an open file description owns its locks.
    pub(in crate::store::file) struct DataFileLock(File);

    impl DataFileLock {
        /// `None` if the data file is missing, or if the system or the file system does not support these locks.
        pub(in crate::store::file) fn open(dir: &Path, is_writable: bool) -> Result<Option<Self>> {
            let Some(file) = open_private(&dir.join(DATA), is_writable)? else { return Ok(None) };
            Ok(ofd_lock::find(&file, Kind::Shared, MODE).is_ok().then_some(Self(file)))
        }

        fn holder_byte() -> Range {
            Range::byte(HOLDERS.start + i64::from(std::process::id()))
        }
    }

    impl Drop for DataFileLock {
        fn drop(&mut self) {
            ofd_lock::unlock_all(&self.0);
        }
    }

    impl ModeLock for DataFileLock {
        fn try_exclusive(&self) -> io::Result<bool> {
            let is_locked = ofd_lock::try_lock(&self.0, Kind::Exclusive, MODE)?;
            if is_locked {
                ofd_lock::try_lock(&self.0, Kind::Exclusive, Self::holder_byte())?;
            }
            Ok(is_locked)
        }

        fn try_shared(&self) -> io::Result<bool> {
            let is_locked = ofd_lock::try_lock(&self.0, Kind::Shared, MODE)?;
            if is_locked {
                ofd_lock::unlock(&self.0, Self::holder_byte());
            }
            Ok(is_locked)
        }

        fn release(&self) {
            ofd_lock::unlock(&self.0, Self::holder_byte());
            ofd_lock::unlock(&self.0, MODE);
        }

        fn request(&self, is_asked: bool) -> io::Result<()> {
            if !is_asked {
                ofd_lock::unlock(&self.0, REQUEST);
                return Ok(());
            }
            ofd_lock::try_lock(&self.0, Kind::Shared, REQUEST).map(drop)
        }

        fn is_requested(&self) -> io::Result<bool> {
            ofd_lock::find(&self.0, Kind::Exclusive, REQUEST).map(|found| found.is_some())
        }

        fn holder(&self) -> Option<u32> {
            let found = ofd_lock::find(&self.0, Kind::Exclusive, HOLDERS).ok()??;
            u32::try_from(found - HOLDERS.start).ok()
        }
    }
}
