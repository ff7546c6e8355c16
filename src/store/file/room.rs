//! Decides whether the file may grow.
//!
//! The file never shrinks. Freed pages are reused by the transaction after the next, as the last one must survive a crash.
//! Writes that add sessions leave a reserve. Writes that end sessions may use it: they copy the pages that they change,
//! which takes room before it frees any.

use std::fs::File;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cost::Pages;
use super::pages::Free;
use crate::error::StoreError;

/// The smallest `maxBytes`.
pub const MIN_MAX_BYTES: u64 = 1 << 20;

/// Enough for two transactions that end some hundred sessions, or for many that end a few.
const RESERVE: u64 = 4 << 20;

/// How long the file must not grow again after it had to grow although it had free pages: a reader held them.
const PAUSE: Duration = Duration::from_secs(1);

/// The size of the file and its free part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub file: u64,
    pub free: u64,
}

impl Usage {
    pub(super) fn used(self) -> u64 {
        self.file - self.free
    }
}

/// What a transaction needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The largest number of pages that it takes before it frees any.
    pub pages: Pages,
    /// The pages that must be left for the next transaction, if this one ends sessions.
    pub next: u64,
    /// Whether it adds sessions.
    pub adds: bool,
    /// Whether it cannot be split.
    pub is_least: bool,
    /// Whether an empty transaction may come before it.
    pub may_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// There is room after another transaction, which makes the pages reusable that the last one freed.
    AfterAnother,
}

pub(super) struct Room {
    max_bytes: u64,
    page_size: u64,
    /// Whether the limit is the option `maxBytes`. Otherwise it is the size of the map.
    is_quota: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The disk has room for this many bytes of the file.
    allocated: u64,
    grew_at: Option<Instant>,
    /// The size of the file after the transaction that was admitted last, unless a reader holds pages.
    promised: Option<u64>,
}

impl Room {
    pub(super) fn new(max_bytes: Option<u64>, map_size: u64, page_size: u64) -> Self {
        Self {
            max_bytes: max_bytes.map_or(map_size, |max| max.min(map_size)),
            page_size,
            is_quota: max_bytes.is_some(),
            state: Mutex::default(),
        }
    }

    /// The largest file for writes that add sessions, and for those that do not.
    fn limit(&self, adds: bool) -> u64 {
        if adds { self.max_bytes - RESERVE.min(self.max_bytes / 8) } else { self.max_bytes }
    }

    /// Whether there is room for a transaction that writes every page in use and `growth` bytes more.
    pub(super) fn is_ample(&self, usage: Usage, growth: u64) -> bool {
        usage.file + usage.used() + growth <= self.limit(true)
    }

    /// Checks that a transaction that adds sessions has left room for ending sessions. A store that was full before need
    /// not be less full.
    pub(super) fn check(&self, before: Usage, used: u64) -> Result<(), StoreError> {
        if used <= self.limit(true) || used <= before.used() { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> StoreError {
        StoreError::Full(if self.is_quota {
            format!("maxBytes is {}", self.max_bytes).into()
        } else {
            "the address space of the process ends here".into()
        })
    }

    /// Decides whether there is room for a transaction. A smaller one may fit if this one does not. The smallest one that
    /// ends sessions is always admitted: it has the reserve. `free` reads the free pages of the file, up to a number.
    pub(super) fn admit(
        &self,
        data: &File,
        usage: Usage,
        need: &Need,
        free: impl FnOnce(u64) -> Free,
    ) -> Result<Admission, StoreError> {
        let mut state = self.state.lock();
        if state.promised.take().is_some_and(|size| size < usage.file) {
            state.grew_at = Some(Instant::now());
        }
        let limit = self.limit(need.adds);
        let may_grow = limit.saturating_sub(usage.file) / self.page_size;
        let pages = need.pages.sum();
        let next = if need.adds { 0 } else { need.next };
        let is_on_disk = state.allocate(data, usage.file, pages.min(may_grow) * self.page_size);
        if is_on_disk && pages + next <= may_grow {
            return Ok(Admission::Now);
        }
        let refusal = if pages > may_grow || is_on_disk {
            self.full()
        } else {
            StoreError::Full("there is no space left on the disk".into())
        };
        if need.adds && state.grew_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(refusal);
        }
        let may_grow = match (is_on_disk, need.adds) {
            (true, _) => may_grow,
            (false, true) => 0,
            (false, false) => may_grow.min(state.allocated.saturating_sub(usage.file) / self.page_size),
        };
        // Finding adjacent pages takes more free pages.
        let enough = if need.pages.runs.is_empty() { pages + next } else { 16 * (pages + next) };
        let free = free(enough);
        let lacking = free.lacking(need.pages.singles, &need.pages.runs);
        let later = free.pages.len() as u64 + free.pending + may_grow;
        // The pages that a transaction frees are room for the one after the next.
        if lacking <= may_grow && (need.adds || need.is_least || pages + next <= later) {
            state.promised = Some(limit.max(usage.file + lacking * self.page_size));
            Ok(Admission::Now)
        } else if need.is_least && need.may_wait && free.pending > 0 && pages <= later {
            Ok(Admission::AfterAnother)
        } else if need.is_least && !need.adds {
            Ok(Admission::Now)
        } else {
            Err(refusal)
        }
    }
}

impl Room {
    /// Allocates room on the disk for the file to grow. Returns `false` if the disk is full.
    pub(super) fn reserve(&self, data: &File, usage: Usage, growth: u64) -> bool {
        self.state.lock().allocate(data, usage.file, growth)
    }
}

impl State {
    /// Allocates room on the disk for the file to grow, and a reserve.
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

/// Allocates room on the disk without changing the file's length. Returns `false` if the disk or the quota is full.
#[cfg(target_os = "linux")]
fn allocate(data: &File, from: u64, bytes: u64) -> bool {
    use std::io::Error;
    use std::os::fd::AsRawFd;
    let (from, bytes) = (from as libc::off_t, bytes as libc::off_t);
    // SAFETY: the descriptor is open for as long as `data` is.
    let result = unsafe { libc::fallocate(data.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) };
    // On a file system that cannot do it there is no reserve: a full disk shows when the file is written.
    result == 0 || !matches!(Error::last_os_error().raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> bool {
    true
}
