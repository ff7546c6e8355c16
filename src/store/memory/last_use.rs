//! When a session was last used: the key of the LRU order.

use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use crate::sync::AtomicU64;

/// The number of a session's last use, and whether the session has a user: a word before its record.
///
/// A later use has a higher number, and no two uses of a store have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LastUse(u64);

/// The lowest bit says whether the session has a user.
const HAS_USER: u64 = 1;

/// Numbers the uses of a store's sessions, and says when the next scan is due.
#[derive(Default)]
pub(super) struct UseCounter(CachePadded<Counts>);

#[derive(Default)]
struct Counts {
    last: AtomicU64,
    next_scan: AtomicU64,
}

/// The difference between the words of two uses in a row.
const STEP: u64 = HAS_USER + 1;

impl LastUse {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn has_user(self) -> bool {
        self.0 & HAS_USER != 0
    }

    /// The same use, of a session with a user or without one.
    pub(super) fn with_user(self, has_user: bool) -> Self {
        Self(self.0 & !HAS_USER | u64::from(has_user))
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl UseCounter {
    /// Counts a use that happens now.
    #[inline]
    pub(super) fn next(&self) -> LastUse {
        LastUse(self.0.last.fetch_add(STEP, Ordering::Relaxed) + STEP)
    }

    /// Whether a scan is due at this use.
    #[inline]
    pub(super) fn is_scan_due(&self, at: LastUse) -> bool {
        at.0 >= self.0.next_scan.load(Ordering::Relaxed)
    }

    /// Makes the next scan due so many uses later.
    pub(super) fn put_off_scan(&self, at: LastUse, uses: usize) {
        self.0.next_scan.store(at.0 + uses as u64 * STEP, Ordering::Relaxed);
    }
}
