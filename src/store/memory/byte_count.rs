//! How many bytes the parts of a store have allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The sum over all parts that share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ByteCount(Arc<AtomicUsize>);

impl ByteCount {
    pub(super) fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Corrects the sum after a part has allocated or freed memory. `counted` is what the part added before.
    #[inline]
    pub(super) fn update(&self, counted: &mut usize, allocated: usize) {
        if *counted != allocated {
            self.0.fetch_add(allocated.wrapping_sub(*counted), Ordering::Relaxed);
            *counted = allocated;
        }
    }
}
