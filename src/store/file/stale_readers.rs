//! Reader slots that a killed process has left behind, where this process has got its PID.
//!
//! LMDB keeps a table of readers in `lock.mdb`. Pages that a reader may still see are not reused. A process that is
//! killed while it reads leaves its slot behind. `mdb_reader_check` frees the slots of dead processes, but skips those
//! of its own PID: LMDB cannot know that they are not its own. So a process that gets the PID of a killed one would
//! keep the old slot, and the file would grow until that process ends.
//!
//! Before this process has the store open, no slot of its PID is its own: the owner's lock refuses a second process of
//! that PID. LMDB frees all slots of its PID when an environment is closed that has read. So opening, reading once and
//! closing frees them.

use std::fs;
use std::path::Path;

/// Whether a slot in the reader table may have this PID. It may say so of other bytes: that costs an opening.
pub(super) fn may_be_in_table(lock_file: &Path, pid: u32) -> bool {
    // Not while the store is open: closing a descriptor of the file would release the locks of this process.
    let Ok(bytes) = fs::read(lock_file) else { return false };
    bytes.as_chunks().0.iter().any(|word| u32::from_ne_bytes(*word) == pid)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_found_at_any_place_of_the_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [&[0; 72][..], &77_u32.to_ne_bytes(), &[0; 52]].concat()).unwrap();
        assert!(may_be_in_table(file.path(), 77));
        assert!(!may_be_in_table(file.path(), 78));
        assert!(!may_be_in_table(&file.path().with_extension("none"), 77));
    }
}
