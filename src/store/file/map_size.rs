//! The size of LMDB's memory map.

use crate::error::{Result, StoreError};

/// Address space, not memory. A file is mapped once, as a whole.
const WANTED: u64 = 64 << 30;
const MIN: u64 = 64 << 20;
/// A store uses a quarter of the remaining address space. Other stores need some too.
const DIVISOR: u64 = 4;
/// For later needs of threads, allocators and V8. With 700 MiB left, Node.js 20 ran out of address space under load.
const RESERVE: u64 = 768 << 20;

/// The sizes to try, in descending order. The next one is used if mmap rejects the one before.
pub(super) fn sizes(max_bytes: Option<u64>) -> Result<impl Iterator<Item = usize>> {
    let page = page_size::get() as u64;
    sizes_within(max_bytes, left(), page)
}

fn sizes_within(max_bytes: Option<u64>, left: Option<u64>, page: u64) -> Result<impl Iterator<Item = usize>> {
    let wanted = max_bytes.map_or(WANTED, |max| WANTED.max(max + MIN));
    let first = left.map_or(wanted, |left| wanted.min(left / DIVISOR).min(left.saturating_sub(RESERVE)));
    if first < MIN {
        return Err(StoreError::Io(format!(
            "too little address space: `ulimit -v` lets this process take {} MiB more, and with a store it needs {} MiB",
            left.unwrap_or(0) >> 20,
            (RESERVE + MIN) >> 20
        )));
    }
    Ok(std::iter::successors(Some(first), |size| Some(size / 2))
        .take_while(|size| *size >= MIN)
        .map(move |size| usize::try_from(size.next_multiple_of(page)).unwrap_or(1 << 30)))
}

/// The remaining address space of this process in bytes. `None` without a limit.
#[cfg(target_os = "linux")]
fn left() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(pages * page_size::get() as u64))
}

/// Other systems have no such limit, or do not report it.
#[cfg(not(target_os = "linux"))]
fn left() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sizes(max_bytes: Option<u64>, left: Option<u64>) -> Vec<u64> {
        let sizes = sizes_within(max_bytes, left, 4096).unwrap();
        sizes.map(|size| size as u64).collect()
    }

    #[test]
    fn without_a_limit_the_first_size_has_room_for_the_largest_file() {
        assert_eq!(sizes(None, None)[..3], [64 * GIB, 32 * GIB, 16 * GIB]);
        assert_eq!(sizes(Some(100 * GIB), None)[0], 100 * GIB + MIN);
        assert_eq!(sizes(None, None).last(), Some(&MIN));
    }

    #[test]
    fn a_limit_leaves_the_process_three_quarters_and_768_mib() {
        assert_eq!(sizes(None, Some(4 * GIB))[0], GIB);
        assert_eq!(sizes(None, Some(GIB))[0], GIB / 4);
        assert_eq!(sizes(None, Some(1000 * GIB))[0], 64 * GIB);
        assert_eq!(sizes(None, Some(RESERVE + MIN)), [MIN]);
    }

    #[test]
    fn too_little_address_space_is_rejected_with_the_remaining_size() {
        let error = sizes_within(None, Some(RESERVE + MIN - 1), 4096).err().unwrap();
        assert_eq!(error.code(), "ERR_STORE_IO");
        assert!(error.to_string().contains("831 MiB"), "{error}");
        assert!(error.to_string().contains("832 MiB"), "{error}");
    }
}
