//! Detects reader slots that a killed process with our PID has left.
//!
//! LMDB keeps a reader table in `lock.mdb`. It does not reuse pages that a reader may still see. A process that is
//! killed while it reads leaves its slot. `mdb_reader_check` frees the slots of dead processes, but skips its own
//! PID, because those slots may be in use. So if a process gets the PID of a killed one, the old slot stays, and the
//! file grows until the process ends.
//!
//! Before this process opens the store, every slot with its PID is stale, because the owner lock excludes a second
//! process with that PID. When an environment is closed after a read, LMDB frees all slots of its PID. So it is
//! enough to open the environment, read once and close it.

use std::fs;
use std::path::Path;

/// Whether a slot in the reader table may have this PID. False positives only cost one extra open.
pub(super) fn may_be_in_table(lock_file: &Path, pid: u32) -> bool {
    // Only before the store is open, because closing a descriptor of this file would release the locks of this
    // process.
    let Ok(bytes) = fs::read(lock_file) else { return false };
    bytes.as_chunks().0.iter().any(|word| u32::from_ne_bytes(*word) == pid)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_found_anywhere_in_the_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [&[0; 72][..], &77_u32.to_ne_bytes(), &[0; 52]].concat()).unwrap();
        assert!(may_be_in_table(file.path(), 77));
        assert!(!may_be_in_table(file.path(), 78));
        assert!(!may_be_in_table(&file.path().with_extension("none"), 77));
    }
}
