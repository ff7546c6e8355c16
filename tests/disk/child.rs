//! Runs the check of a store in a child process, because a damaged store may crash it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::sessions::Verdict;

/// The time after which a child that hangs is killed, in seconds.
const MAX_SECONDS: u32 = 60;

/// Calls `check` in a child process. LMDB trusts the pages that it maps, so a damaged file may crash it.
///
/// No other thread of this process may use a store at the same time: the child would inherit the locks of that thread.
pub fn in_child(check: impl FnOnce() -> Verdict) -> Verdict {
    let mut ends = [0; 2];
    // SAFETY: `ends` is writable.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both descriptors are open, and nothing else owns them.
    let [mut from, mut to] = ends.map(|fd| unsafe { File::from_raw_fd(fd) });
    // SAFETY: glibc keeps its own locks usable in the child, which uses no other lock that a thread could hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child: {}", std::io::Error::last_os_error());
    if child == 0 {
        super::stop_watching();
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `no_core` is a whole rlimit.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
            libc::alarm(MAX_SECONDS);
        }
        let verdict = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Verdict::unreadable(format!("a panic: {}", text.unwrap_or("without a text")))
        });
        let Verdict { lost, revived, unreadable, note } = verdict;
        let note: String = note.chars().take(1000).collect();
        let written = write!(to, "{lost} {revived} {unreadable} {note}");
        // SAFETY: the child must not run the destructors and exit handlers of the parent.
        unsafe { libc::_exit(i32::from(written.is_err())) }
    }
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: `child` is a child of this process, and `status` is writable.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        return Verdict::unreadable(format!("it died of signal {}", libc::WTERMSIG(status)));
    }
    let mut words = text.splitn(4, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a verdict");
    let (lost, revived, unreadable) = (number(), number(), number());
    Verdict { lost, revived, unreadable, note: words.next().unwrap_or_default().into() }
}
