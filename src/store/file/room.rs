//! Whether the file may grow.
//!
//! The file never shrinks, but what is freed in it is used again. New sessions may make it grow up to a reserve, and
//! beyond that only take what is free in it. What ends sessions may use the reserve: copying the pages that it changes
//! takes room before it gives any.

use std::fs::File;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::StoreError;

/// The smallest `maxBytes`.
pub const MIN_MAX_BYTES: u64 = 1 << 20;

/// Enough for a transaction that ends some hundred sessions.
const RESERVE: u64 = 4 << 20;

/// For how long the file must not be made to grow again once it had to, though it had free pages: a reader holds them.
const PAUSE: Duration = Duration::from_secs(1);

/// How large the file is, in bytes, and how much of that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub file: u64,
    pub free: u64,
}

/// What a transaction asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// The most that it may take before it gives anything back.
    pub bytes: u64,
    /// Whether it adds sessions.
    pub adds: bool,
}

pub(super) struct Room {
    max_bytes: u64,
    /// Whether the user asked for this limit; otherwise it is that of the map.
    is_quota: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The disk is known to have room for this much of the file.
    allocated: u64,
    grew_at: Option<Instant>,
    /// The size of the file when a transaction was let in for its free pages.
    promised: Option<u64>,
}

impl Room {
    pub(super) fn new(max_bytes: Option<u64>, map_size: u64) -> Self {
        Self {
            max_bytes: max_bytes.map_or(map_size, |max| max.min(map_size)),
            is_quota: max_bytes.is_some(),
            state: Mutex::default(),
        }
    }

    /// Whether there is room for a transaction. A smaller one may fit where this does not.
    pub(super) fn admit(&self, data: &File, usage: Usage, need: Need) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.promised.take().is_some_and(|size| size < usage.file) {
            state.grew_at = Some(Instant::now());
        }
        let reserve = if need.adds { RESERVE.min(self.max_bytes / 8) } else { 0 };
        let refusal = if usage.file + need.bytes > self.max_bytes - reserve {
            StoreError::Full(if self.is_quota {
                format!("maxBytes is {}", self.max_bytes).into()
            } else {
                "the address space of the process ends here".into()
            })
        } else if !state.allocate(data, usage.file, need.bytes) {
            StoreError::Full("there is no space left on the disk".into())
        } else {
            return Ok(());
        };
        let is_pinned = need.adds && state.grew_at.is_some_and(|at| at.elapsed() < PAUSE);
        // What made the file larger than it should be was no session, and none may take its place.
        let exceeds = need.adds && usage.file - usage.free + need.bytes > self.max_bytes - reserve;
        // Freed pages are apart from each other: a value of many pages may not fit between them. And those that the
        // last transaction freed are not to be had in the next.
        if is_pinned || exceeds || usage.free < 2 * need.bytes + reserve / 4 {
            return Err(refusal);
        }
        state.promised = Some(usage.file);
        Ok(())
    }
}

impl State {
    /// Makes sure that the disk has room for the file to grow, and a reserve after that.
    fn allocate(&mut self, data: &File, file: u64, growth: u64) -> bool {
        if self.allocated >= file + growth + RESERVE / 2 {
            return true;
        }
        let has_room = allocate(data, file, growth + RESERVE);
        if has_room {
            self.allocated = file + growth + RESERVE;
        }
        has_room
    }
}

/// Takes room on the disk without changing the file's length; `false` if there is none.
#[cfg(target_os = "linux")]
fn allocate(data: &File, from: u64, bytes: u64) -> bool {
    use std::io::Error;
    use std::os::fd::AsRawFd;
    let (from, bytes) = (from as libc::off_t, bytes as libc::off_t);
    // SAFETY: the descriptor is open for as long as `data` is.
    let result = unsafe { libc::fallocate(data.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) };
    // A file system that cannot do it has no reserve: a full disk then shows when the file is written.
    result == 0 || !matches!(Error::last_os_error().raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> bool {
    true
}
