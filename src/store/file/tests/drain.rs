//! Interrupted drains.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use super::names::{DATA, REDO};
use super::redo::points::Point;
use super::redo::points::hooks::{Simulator, simulate};
use super::*;

/// Copies the files of a folder after the first commit of a drain. Ranges are small in a simulation.
struct CopyAfterCommit {
    from: PathBuf,
    to: PathBuf,
}

impl Simulator for CopyAfterCommit {
    fn reach(&self, point: Point) {
        if point == Point::AfterDrainCommit && !self.to.join(DATA).exists() {
            for name in [DATA, REDO] {
                fs::copy(self.from.join(name), self.to.join(name)).unwrap();
            }
        }
    }
}

/// Creates ten sessions, deletes them, and drains that in several transactions. Copies the files after the first of
/// these. Returns the log as it was before the deletions.
pub(super) fn copy_in_a_drain(store: &FileStore, from: &Path, to: &Path) -> Vec<u8> {
    let user = UserKeyBuf::from_text("ann");
    let names: Vec<String> = (0..10).map(|at| format!("s{at}")).collect();
    for name in &names {
        store.create(&plain(name, &user, Expiry::new(START + 1_000_000).unwrap())).unwrap();
    }
    let half = fs::read(from.join(REDO)).unwrap();
    for name in &names {
        store.delete(&id(name)).unwrap();
    }
    simulate(Some(Rc::new(CopyAfterCommit { from: from.into(), to: to.into() })));
    store.ids(Cursor::default()).unwrap();
    simulate(None);
    assert!(to.join(DATA).exists(), "nothing was drained");
    half
}

/// The data file has deleted sessions that are live in the readable part of the log. Replaying that part would bring
/// them back.
#[test]
fn a_log_that_ends_before_drained_batches_is_rejected() {
    let (dir, copy) = (new_dir(), new_dir());
    let store = reopen(&options(dir.path())).unwrap();
    let half = copy_in_a_drain(&store, dir.path(), copy.path());
    store.close().unwrap();
    let whole = fs::read(copy.path().join(REDO)).unwrap();
    fs::write(copy.path().join(REDO), half).unwrap();
    let error = reopen(&options(copy.path())).err().unwrap();
    assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{error}");
    fs::write(copy.path().join(REDO), whole).unwrap();
    assert_eq!(reopen(&options(copy.path())).unwrap().size(), Ok(0));
}
