//! Decides whether the data file may grow.
//!
//! The file never shrinks. LMDB reuses the pages that a transaction frees after one more transaction, because the
//! last commit must survive a crash. Writes that add sessions leave a reserve free. Writes that end sessions may use
//! it: they copy the pages that they change before they free any.

use std::fs::File;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::estimate::PageEstimate;
use super::pages::Free;
use crate::error::StoreError;

/// The minimum of `maxBytes`.
pub const MIN_MAX_BYTES: u64 = 1 << 20;

/// Enough for two transactions that end a few hundred sessions, or for many small ones.
const RESERVE: u64 = 4 << 20;

/// The reserve is at most an eighth of `maxBytes`.
const RESERVE_DIVISOR: u64 = 8;

/// The factor by which more free pages are read if runs of adjacent pages are needed.
const RUN_SEARCH_FACTOR: u64 = 16;

/// After the file grew because a reader held its free pages, it must not grow again for this long.
const GROWTH_PAUSE: Duration = Duration::from_secs(1);

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

/// The requirements of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The maximum number of pages that it takes before it frees any.
    pub pages: PageEstimate,
    /// The pages that must remain for the next transaction, if this one ends sessions.
    pub next: u64,
    /// Whether it adds sessions.
    pub adds: bool,
    /// Whether it cannot be split.
    pub is_smallest: bool,
    /// Whether it may wait for an empty transaction.
    pub may_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// After another transaction. That one makes the pages reusable that the last transaction has freed.
    AfterAnother,
}

pub(super) struct Quota {
    max_bytes: u64,
    page_size: u64,
    /// Whether the limit is the option `maxBytes`. Otherwise it is the size of the map.
    is_option: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The disk has this many bytes allocated for the file.
    allocated: u64,
    grew_at: Option<Instant>,
    /// The predicted size of the file after the last admitted transaction. `None` without a prediction.
    predicted: Option<u64>,
}

impl Quota {
    pub(super) fn new(max_bytes: Option<u64>, map_size: u64, page_size: u64) -> Self {
        Self {
            max_bytes: max_bytes.map_or(map_size, |max| max.min(map_size)),
            page_size,
            is_option: max_bytes.is_some(),
            state: Mutex::default(),
        }
    }

    /// The maximum size of the file. It is lower for writes that add sessions.
    fn limit(&self, adds: bool) -> u64 {
        if adds { self.max_bytes - RESERVE.min(self.max_bytes / RESERVE_DIVISOR) } else { self.max_bytes }
    }

    /// Whether there is room to rewrite every used page and add `growth` bytes.
    pub(super) fn is_ample(&self, usage: Usage, growth: u64) -> bool {
        usage.file + usage.used() + growth <= self.limit(true)
    }

    /// Checks that a transaction that adds sessions leaves the reserve. If the store was already full, it must not
    /// grow.
    pub(super) fn check(&self, before: Usage, used: u64) -> Result<(), StoreError> {
        if used <= self.limit(true) || used <= before.used() { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> StoreError {
        StoreError::Full(if self.is_option {
            format!("maxBytes is {}", self.max_bytes).into()
        } else {
            "the address space of the process ends here".into()
        })
    }

    /// Decides whether there is room for a transaction. If not, a smaller one may still fit. The smallest transaction
    /// that ends sessions is always admitted, because it can use the reserve. `free` reads up to a number of the
    /// file's free pages.
    pub(super) fn admit(
        &self,
        data: &File,
        usage: Usage,
        need: &Need,
        free: impl FnOnce(u64) -> Free,
    ) -> Result<Admission, StoreError> {
        let mut state = self.state.lock();
        if state.predicted.take().is_some_and(|size| size < usage.file) {
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
        if need.adds && state.grew_at.is_some_and(|at| at.elapsed() < GROWTH_PAUSE) {
            return Err(refusal);
        }
        let may_grow = match (is_on_disk, need.adds) {
            (true, _) => may_grow,
            (false, true) => 0,
            (false, false) => may_grow.min(state.allocated.saturating_sub(usage.file) / self.page_size),
        };
        // Runs of adjacent pages need more free pages to choose from.
        let enough =
            if need.pages.runs.is_empty() { pages + next } else { RUN_SEARCH_FACTOR * (pages + next) };
        let free = free(enough);
        let lacking = free.lacking(need.pages.singles, &need.pages.runs);
        let later = free.listed() + free.pending + may_grow;
        // The next transaction but one can use the pages that this transaction frees.
        if lacking <= may_grow && (need.adds || need.is_smallest || pages + next <= later) {
            state.predicted = Some(limit.max(usage.file + lacking * self.page_size));
            Ok(Admission::Now)
        } else if need.is_smallest && need.may_wait && free.pending > 0 && pages <= later {
            Ok(Admission::AfterAnother)
        } else if need.is_smallest && !need.adds {
            Ok(Admission::Now)
        } else {
            Err(refusal)
        }
    }
}

impl Quota {
    /// Allocates disk space for the file to grow. Returns `false` if the disk is full.
    pub(super) fn reserve(&self, data: &File, usage: Usage, growth: u64) -> bool {
        self.state.lock().allocate(data, usage.file, growth)
    }
}

impl State {
    /// Allocates disk space for the file to grow, and a reserve.
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

/// Allocates disk space without changing the file's length. Returns `false` if the disk or the disk quota is full.
#[cfg(target_os = "linux")]
fn allocate(data: &File, from: u64, bytes: u64) -> bool {
    use std::io::Error;
    use std::os::fd::AsRawFd;
    let (from, bytes) = (from as libc::off_t, bytes as libc::off_t);
    // SAFETY: the descriptor is open as long as `data` exists.
    let result = unsafe { libc::fallocate(data.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) };
    // Some file systems do not support this. There is no reserve then, and a full disk shows only in a write.
    result == 0 || !matches!(Error::last_os_error().raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> bool {
    true
}
