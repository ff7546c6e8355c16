//! A disk that a test can look at, and break: LMDB's calls that write pass through here.
//!
//! A function of the executable comes before the C library's of the same name, also for LMDB's C code. These are the
//! ones by which it writes its data file. What concerns a file that no test watches goes straight on to the kernel,
//! and nothing that is watched is ever really synced: the log alone knows what would have outlived a power loss.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod child;
pub mod image;
pub mod sessions;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use tempfile::TempDir;

/// The store's name for its file of data.
pub const DATA: &str = "data.mdb";

/// What happened to a file, in the order in which it did.
#[derive(Debug, Clone)]
pub enum Event {
    /// `durable`: on disk when the call returned, as the descriptor was opened with `O_DSYNC`.
    Write {
        at: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    Sync,
    /// The kernel may have given up what was written before: a later sync does not speak of it.
    FailedSync,
    /// The test began an operation of this lane.
    Begun(usize),
    /// The next of this lane's operations was acknowledged.
    Acknowledged(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write that a sync makes durable: LMDB's pages.
    Write,
    Sync,
    /// A write that is durable when it returns: LMDB's meta page.
    WriteThrough,
    /// A write of a meta page that a sync makes durable: LMDB takes one back by it, and the store writes both again.
    TakeBack,
}

impl Call {
    fn of_write(fd: c_int, bytes: &[u8], at: off_t) -> Self {
        const PAGE: usize = 4096;
        // SAFETY: it takes no third argument.
        if unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_DSYNC != 0 {
            Self::WriteThrough
        } else if (at as usize) < 2 * PAGE && bytes.len() < PAGE {
            Self::TakeBack
        } else {
            Self::Write
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The call does nothing but fail, with this number.
    Refused(c_int),
    /// The call does its work and fails all the same, so that no one knows what is on the disk. Of a sync that fails so,
    /// Linux tells every descriptor of the file once, when it next syncs.
    Doubtful(c_int),
    /// The call writes this many bytes.
    Short(usize),
}

/// Some of the calls to come fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub call: Call,
    /// How many calls of the kind go well before.
    pub after: usize,
    pub times: usize,
    pub failure: Failure,
}

#[derive(Default)]
struct State {
    log: Vec<Event>,
    faults: Vec<Fault>,
    failed: usize,
    /// The number of the last failure of a sync, for descriptors that were not told of it yet.
    untold: c_int,
}

impl State {
    fn failure(&mut self, call: Call) -> Option<Failure> {
        let fault = self.faults.iter_mut().find(|fault| fault.call == call && fault.times > 0)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        self.failed += 1;
        Some(fault.failure)
    }
}

/// A file's device and inode.
type Identity = (u64, u64);
type Watched = Vec<(Identity, Arc<Mutex<State>>)>;

static WATCHED: Mutex<Watched> = Mutex::new(Vec::new());
static WATCHES: AtomicUsize = AtomicUsize::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(fd: c_int) -> Option<Identity> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is writable; the kernel tells a descriptor that is none.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has filled it.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

fn watched(fd: c_int) -> Option<Arc<Mutex<State>>> {
    if WATCHES.load(Ordering::Acquire) == 0 {
        return None;
    }
    let identity = identity(fd)?;
    lock(&WATCHED).iter().find(|(other, _)| *other == identity).map(|(_, state)| Arc::clone(state))
}

/// Lets every call go straight on to the kernel. For a child of this process, as another thread of the parent may have
/// held a lock when it was made.
pub fn look_away() {
    WATCHES.store(0, Ordering::Release);
}

/// A file that is watched until this is dropped.
pub struct Disk {
    identity: Identity,
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub fn watch(file: &Path) -> Self {
        let file = File::open(file).unwrap();
        let identity = identity(file.as_raw_fd()).unwrap();
        let state = Arc::default();
        lock(&WATCHED).push((identity, Arc::clone(&state)));
        WATCHES.fetch_add(1, Ordering::Release);
        Self { identity, state }
    }

    pub fn note(&self, event: Event) {
        lock(&self.state).log.push(event);
    }

    pub fn log_len(&self) -> usize {
        lock(&self.state).log.len()
    }

    /// The log up to now, which begins anew.
    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.state).log)
    }

    /// Replaces the faults to come.
    pub fn fail(&self, faults: &[Fault]) {
        let mut state = lock(&self.state);
        state.faults = faults.to_vec();
        state.failed = 0;
    }

    /// Clears the faults, and returns how many calls failed because of them.
    pub fn clear_faults(&self) -> usize {
        let mut state = lock(&self.state);
        state.faults.clear();
        state.failed
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&WATCHED).retain(|(identity, _)| *identity != self.identity);
        WATCHES.fetch_sub(1, Ordering::Release);
    }
}

/// A directory in memory where the system has such.
pub fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Makes a store's data file, for the store to be opened on it; an empty one is that of a store to be made.
pub fn data_file(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join(DATA);
    fs::write(&path, bytes).unwrap();
    path
}

fn fail_with(number: c_int) -> ssize_t {
    // SAFETY: it is the calling thread's own.
    unsafe { *libc::__errno_location() = number };
    -1
}

fn raw_pwrite(fd: c_int, bytes: &[u8], at: off_t) -> ssize_t {
    // SAFETY: the bytes are readable; the kernel tells a descriptor that is none.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), at) as ssize_t }
}

fn write(state: &Mutex<State>, fd: c_int, bytes: &[u8], at: off_t) -> ssize_t {
    let call = Call::of_write(fd, bytes, at);
    // Held until the bytes are written, so that the log has the order of the writes.
    let mut state = lock(state);
    let failure = state.failure(call).or_else(|| {
        (call == Call::WriteThrough && set_untold(fd, false)).then_some(Failure::Doubtful(state.untold))
    });
    let part = match failure {
        Some(Failure::Refused(number)) => return fail_with(number),
        Some(Failure::Short(len)) => &bytes[..len.min(bytes.len())],
        _ => bytes,
    };
    let written = raw_pwrite(fd, part, at);
    if written < 0 {
        return written;
    }
    let durable = call == Call::WriteThrough && !matches!(failure, Some(Failure::Doubtful(_)));
    state.log.push(Event::Write { at: at as u64, bytes: part[..written as usize].to_vec(), durable });
    match failure {
        Some(Failure::Doubtful(number)) => fail_with(number),
        _ => written,
    }
}

fn sync(fd: c_int, call: libc::c_long) -> c_int {
    let Some(state) = watched(fd) else {
        // SAFETY: the kernel tells a descriptor that is none.
        return unsafe { libc::syscall(call, fd) as c_int };
    };
    let mut state = lock(&state);
    let untold = set_untold(fd, false).then_some(Failure::Refused(state.untold));
    match state.failure(Call::Sync).or(untold) {
        Some(failure @ (Failure::Refused(number) | Failure::Doubtful(number))) => {
            if let Failure::Doubtful(_) = failure {
                state.untold = number;
                descriptors(fd).for_each(|fd| _ = set_untold(fd, true));
                set_untold(fd, false);
            }
            state.log.push(Event::FailedSync);
            fail_with(number) as c_int
        }
        _ => {
            state.log.push(Event::Sync);
            0
        }
    }
}

/// The descriptors of the same file.
fn descriptors(fd: c_int) -> impl Iterator<Item = c_int> {
    let file = identity(fd);
    let all = fs::read_dir("/proc/self/fd").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |&other| identity(other) == file)
}

/// Notes whether a failed sync is still to be told to a descriptor, and tells whether it was. The note is a flag which
/// goes with the descriptor and its copies, and means nothing to a file.
fn set_untold(fd: c_int, untold: bool) -> bool {
    // SAFETY: the kernel tells a descriptor that is none; with these flags nothing else is changed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let wanted = if untold { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
        if wanted != flags {
            libc::fcntl(fd, libc::F_SETFL, wanted);
        }
        flags & libc::O_NONBLOCK != 0
    }
}

/// # Safety
/// As for pwrite(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller says so.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast(), len) };
    match watched(fd) {
        Some(state) => write(&state, fd, bytes, at),
        None => raw_pwrite(fd, bytes, at),
    }
}

/// By which Rust's standard library writes: the store writes meta pages again itself.
///
/// # Safety
/// As for pwrite(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller says so.
    unsafe { pwrite(fd, bytes, len, at) }
}

/// # Safety
/// As for writev(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(state) = watched(fd) else {
        // SAFETY: the caller says so.
        return unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) as ssize_t };
    };
    // SAFETY: the caller says so.
    let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
    let bytes: Vec<&[u8]> = parts
        .iter()
        // SAFETY: the caller says so.
        .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len) })
        .collect();
    // SAFETY: the descriptor is that of a file.
    let at = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    let written = write(&state, fd, &bytes.concat(), at);
    if written > 0 {
        // SAFETY: as before.
        unsafe { libc::lseek(fd, at + written as off_t, libc::SEEK_SET) };
    }
    written
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// The variety of a test: the same one for the same seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Seeds that are close to each other must not begin alike, and zero is none.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Another, for another thread.
    pub fn split(&mut self) -> Self {
        Self::new(self.below(u64::MAX >> 11))
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}
