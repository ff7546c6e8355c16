//! Reader slots of killed processes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use super::*;

const DIR: &str = "NATIVE_STORE_TEST_READER_DIR";

/// Runs in a separate process: opens the store, starts to read, and waits until it is killed.
#[test]
#[ignore = "the body of another process"]
fn reader() {
    let dir = std::env::var_os(DIR).expect("the folder of the store");
    let store = reopen(&options(Path::new(&dir))).unwrap();
    let _view = store.environment().read().unwrap();
    println!("\nreads");
    let _ = std::io::stdin().read(&mut [0]);
}

/// A process that reads. It is killed on drop.
struct Reader(Child);

impl Reader {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::file::tests::readers::reader", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(std::result::Result::ok).any(|line| line == "reads"));
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The offsets of this PID's slots in the reader table, and whether each is reading.
fn slots(dir: &Path, pid: u32) -> Vec<(usize, bool)> {
    let bytes = std::fs::read(dir.join(names::LOCK)).unwrap();
    let at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let places = (8..bytes.len() - 8).step_by(8).filter(|&place| at(place) as u32 == pid);
    // A slot starts with its transaction.
    places.map(|place| (place, at(place - 8) != u64::MAX)).collect()
}

#[test]
fn no_view_stays_open_between_two_pages_of_sessions() {
    let dir = new_dir();
    let store = reopen(&options(dir.path())).unwrap();
    let ann = UserKeyBuf::from_text("ann");
    for at in 0..600 {
        store
            .create(&plain(&format!("session {at}"), &ann, Expiry::new(i64::from(i32::MAX) * 1000).unwrap()))
            .unwrap();
    }
    let page = store.sessions(Cursor::default()).unwrap();
    assert!(page.next.is_some());
    let ours = slots(dir.path(), std::process::id());
    assert!(!ours.is_empty() && ours.iter().all(|(_, reads)| !reads), "{ours:?}");
}

#[test]
fn a_process_frees_the_slots_of_a_killed_process_with_its_pid() {
    let dir = new_dir();
    drop(reopen(&options(dir.path())).unwrap());
    // LMDB does not clear the table while this process has the store open.
    let other = Reader::start(dir.path());
    let killed = Reader::start(dir.path());
    let pid = killed.pid();
    drop(killed);
    let left = slots(dir.path(), pid);
    assert!(left.iter().any(|(_, reads)| *reads), "{left:?}");
    // A test cannot choose the PID of a process, so the slots get ours.
    let ours = std::process::id();
    let file = std::fs::File::options().write(true).open(dir.path().join(names::LOCK)).unwrap();
    for (place, _) in &left {
        file.write_all_at(&ours.to_ne_bytes(), *place as u64).unwrap();
    }
    drop(file);
    let store = reopen(&options(dir.path())).unwrap();
    assert!(slots(dir.path(), ours).iter().all(|(_, reads)| !reads));
    assert!(slots(dir.path(), other.pid()).iter().any(|(_, reads)| *reads));
    assert_eq!(store.size(), Ok(0));
}
