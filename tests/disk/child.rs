//! Looking at a store that may be damaged, in a process that may die of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::sessions::Verdict;

/// After this many seconds a child does not end on its own.
const PATIENCE: u32 = 60;

/// Calls `check` in a child of this process. LMDB trusts the pages it maps: of a damaged file it may die.
///
/// No other thread of this process may use a store meanwhile, as the child would inherit the locks that it holds.
pub fn in_child(check: impl FnOnce() -> Verdict) -> Verdict {
    let mut ends = [0; 2];
    // SAFETY: `ends` is writable.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both are open, and no one else's.
    let [mut from, mut to] = ends.map(|fd| unsafe { File::from_raw_fd(fd) });
    // SAFETY: the child uses what glibc makes usable in it, and no lock that another thread could hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child: {}", std::io::Error::last_os_error());
    if child == 0 {
        super::look_away();
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `no_core` is a whole rlimit.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
            libc::alarm(PATIENCE);
        }
        let verdict = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Verdict::unreadable(format!("a panic: {}", text.unwrap_or("of no text")))
        });
        let Verdict { lost, revived, unreadable, note } = verdict;
        let note: String = note.chars().take(1000).collect();
        let written = write!(to, "{lost} {revived} {unreadable} {note}");
        // SAFETY: nothing of the parent's is to be cleaned up here.
        unsafe { libc::_exit(i32::from(written.is_err())) }
    }
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: it is this process's child, `status` is writable.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        return Verdict::unreadable(format!("it died of signal {}", libc::WTERMSIG(status)));
    }
    let mut words = text.splitn(4, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a verdict");
    let (lost, revived, unreadable) = (number(), number(), number());
    Verdict { lost, revived, unreadable, note: words.next().unwrap_or_default().into() }
}
