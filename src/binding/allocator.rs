//! The addon's allocator.

use std::ffi::{c_int, c_long};

use libmimalloc_sys::{mi_option_get, mi_option_set};

/// With glibc's allocator, a sweep that frees a million small records stalls other threads that allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2, which the crate does not export.
const PURGE_DELAY: c_int = 15;
const DEFAULT_MILLIS: c_long = 10;
const MILLIS: c_long = 1000;

/// Returns free memory to the system after a second, not immediately. Most of it is the old table of an index that
/// grew, and is soon reused. Returning it splits huge pages (figures: `docs/design.md`).
#[napi_derive::module_init]
fn keep_free_memory_for_a_second() {
    // SAFETY: both may be called at any time, and ignore an unknown option.
    unsafe {
        // Another value was set by the user in the environment, or belongs to another version's option.
        if mi_option_get(PURGE_DELAY) == DEFAULT_MILLIS {
            mi_option_set(PURGE_DELAY, MILLIS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purge_delay_option_has_the_right_number() {
        // SAFETY: as above.
        let (delay, next) = unsafe { (mi_option_get(PURGE_DELAY), mi_option_get(PURGE_DELAY + 1)) };
        // 16 is `mi_option_use_numa_nodes`, which is in the crate and has another default.
        assert_eq!(libmimalloc_sys::mi_option_use_numa_nodes, PURGE_DELAY + 1);
        assert!(delay == DEFAULT_MILLIS || delay == MILLIS, "{delay}");
        assert_ne!(next, DEFAULT_MILLIS);
    }
}
