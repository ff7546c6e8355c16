//! How much address space a store takes for its file.

use crate::error::{Result, StoreError};

/// Address space, not memory: a file is mapped as a whole, once.
const WANTED: u64 = 64 << 30;
const MIN: u64 = 64 << 20;
/// The share of what the process may still take. Threads, V8 and other stores need the rest.
const SHARE: u64 = 4;

/// The sizes to try, the largest first: each is taken if mmap refuses the one before.
pub(super) fn sizes(max_bytes: Option<u64>) -> Result<impl Iterator<Item = usize>> {
    let page = page_size::get() as u64;
    sizes_within(max_bytes, left(), page)
}

fn sizes_within(max_bytes: Option<u64>, left: Option<u64>, page: u64) -> Result<impl Iterator<Item = usize>> {
    let wanted = max_bytes.map_or(WANTED, |max| WANTED.max(max + MIN));
    let first = left.map_or(wanted, |left| wanted.min(left / SHARE));
    if first < MIN {
        return Err(StoreError::Io(format!(
            "a store needs {} MiB of address space, and this process may only take {} MiB more, of which a store takes \
             a quarter (see `ulimit -v`)",
            MIN >> 20,
            left.unwrap_or(0) >> 20
        )));
    }
    Ok(std::iter::successors(Some(first), |size| Some(size / 2))
        .take_while(|size| *size >= MIN)
        .map(move |size| usize::try_from(size.next_multiple_of(page)).unwrap_or(1 << 30)))
}

/// The bytes of address space that this process may still take, if there is a limit.
#[cfg(target_os = "linux")]
fn left() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(pages * page_size::get() as u64))
}

/// Other systems do not say, or set no such limits.
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
    fn a_limit_leaves_the_process_three_quarters() {
        assert_eq!(sizes(None, Some(2 * GIB))[0], GIB / 2);
        assert_eq!(sizes(None, Some(1000 * GIB))[0], 64 * GIB);
        assert_eq!(sizes(None, Some(256 << 20)), [MIN]);
    }

    #[test]
    fn too_little_is_refused_with_what_is_left() {
        let error = sizes_within(None, Some(255 << 20), 4096).err().unwrap();
        assert_eq!(error.code(), "ERR_STORE_IO");
        assert!(error.to_string().contains("255 MiB"), "{error}");
    }
}
