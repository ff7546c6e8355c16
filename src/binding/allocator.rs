//! The addon's allocator.

use std::ffi::{c_int, c_long};

use libmimalloc_sys::{mi_option_get, mi_option_set};

/// With glibc's, a sweep that frees a million small records stalls the thread that allocates beside it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2, for which its crate has no name.
const PURGE_DELAY: c_int = 15;
const DEFAULT_MILLIS: c_long = 10;
const MILLIS: c_long = 1000;

/// Has memory that is free given back to the system after a second, not at once: mostly it is what an index has grown
/// out of, and is used again soon. Giving it back tears large pages apart (`docs/design.md` has figures).
#[napi_derive::module_init]
fn keep_free_memory_for_a_second() {
    // SAFETY: both may be called at any time, and ignore a number that stands for no option.
    unsafe {
        // Another value is what the user has set in the environment, or another version's option.
        if mi_option_get(PURGE_DELAY) == DEFAULT_MILLIS {
            mi_option_set(PURGE_DELAY, MILLIS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: as above.
        let (delay, next) = unsafe { (mi_option_get(PURGE_DELAY), mi_option_get(PURGE_DELAY + 1)) };
        // 16 is `mi_option_use_numa_nodes`, which is in the crate and has another default.
        assert_eq!(libmimalloc_sys::mi_option_use_numa_nodes, PURGE_DELAY + 1);
        assert!(delay == DEFAULT_MILLIS || delay == MILLIS, "{delay}");
        assert_ne!(next, DEFAULT_MILLIS);
    }
}
