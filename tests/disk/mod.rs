//! A disk that a test can look at, and break: the calls that write the files of a store pass through here.
//!
//! A function of the executable comes before the C library's of the same name, also for LMDB's C code. These are the
//! ones by which LMDB writes its data file, and the store its redo log. What concerns a file that no test watches goes
//! straight on to the kernel. Nothing that is watched is ever really synced: the events alone know what would have
//! outlived a power loss. All files of a folder have their events in one order.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod child;
pub mod image;
pub mod logs;
pub mod run;
pub mod sessions;

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{c_char, c_int, c_void, iovec, off_t, size_t, ssize_t};
use tempfile::TempDir;

/// The store's name for its file of data.
pub const DATA: &str = "data.mdb";
/// The store's name for its redo log.
pub const LOG: &str = "redo.log";
/// The store's name for a log that is being made.
pub const NEW_LOG: &str = "redo.log.new";

/// The number of the data file among the watched files of a folder.
pub const DATA_FILE: usize = 0;

/// What happened in a folder, in the order in which it did. Files are numbered in the order in which they were made.
#[derive(Debug, Clone)]
pub enum Event {
    /// `durable`: on disk when the call returned, as the descriptor was opened with `O_DSYNC`.
    Write {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    Sync(usize),
    /// The kernel may have given up what was written before: a later sync does not speak of it.
    FailedSync(usize),
    /// The folder has a name more or less, or a file under another name. It is on disk after the next `FolderSync`.
    Named(Names),
    FolderSync,
    FailedFolderSync,
    /// The test began an operation of this lane.
    Begun(usize),
    /// The next of this lane's operations was acknowledged.
    Acknowledged(usize),
    /// All that was acknowledged is durable, whatever the durability of the store is.
    Settled,
}

/// Which files a folder has beside the data file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub log: Option<usize>,
    pub new_log: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write to the data file that a sync makes durable: LMDB's pages.
    Write,
    Sync,
    /// A write that is durable when it returns: LMDB's meta page.
    WriteThrough,
    /// A write of a meta page that a sync makes durable: LMDB takes one back by it, and the store writes both again.
    TakeBack,
    LogWrite,
    LogSync,
    LogRead,
    /// A write to a log that is being made.
    NewLogWrite,
    NewLogSync,
    /// A new log takes its name.
    Rename,
    FolderSync,
}

impl Call {
    fn of_write(fd: c_int, role: Role, bytes: &[u8], at: off_t) -> Self {
        const PAGE: usize = 4096;
        match role {
            Role::NewLog => return Self::NewLogWrite,
            Role::Log => return Self::LogWrite,
            Role::Data => {}
        }
        // SAFETY: it takes no third argument.
        if unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_DSYNC != 0 {
            Self::WriteThrough
        } else if (at as usize) < 2 * PAGE && bytes.len() < PAGE {
            Self::TakeBack
        } else {
            Self::Write
        }
    }

    fn of_sync(role: Role) -> Self {
        match role {
            Role::Data => Self::Sync,
            Role::Log => Self::LogSync,
            Role::NewLog => Self::NewLogSync,
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

/// A file's device and inode.
type Identity = (u64, u64);

struct WatchedFile {
    identity: Identity,
    /// It keeps the inode from being used again.
    _file: File,
    /// The number of the last failure of a sync, for descriptors that were not told of it yet.
    untold: c_int,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Data,
    Log,
    NewLog,
}

#[derive(Default)]
struct State {
    files: Vec<WatchedFile>,
    names: Names,
    log: Vec<Event>,
    faults: Vec<Fault>,
    failed: usize,
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

    fn role(&self, file: usize) -> Role {
        match file {
            DATA_FILE => Role::Data,
            file if self.names.new_log == Some(file) => Role::NewLog,
            _ => Role::Log,
        }
    }

    /// Adds a file, and returns its number.
    fn add(&mut self, file: File) -> usize {
        let identity = identity(file.as_raw_fd()).unwrap();
        self.files.push(WatchedFile { identity, _file: file, untold: 0 });
        self.files.len() - 1
    }

    fn name(&mut self, names: Names) {
        if self.names != names {
            self.names = names;
            self.log.push(Event::Named(names));
        }
    }
}

struct Watched {
    /// The folder whose logs are watched, too.
    folder: Option<(PathBuf, Identity)>,
    state: Mutex<State>,
}

static WATCHED: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());
static WATCHES: AtomicUsize = AtomicUsize::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(fd: c_int) -> Option<Identity> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is writable; the kernel refuses a bad descriptor.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has filled it.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

fn all_watched() -> Vec<Arc<Watched>> {
    if WATCHES.load(Ordering::Acquire) == 0 { Vec::new() } else { lock(&WATCHED).clone() }
}

/// The watched file of a descriptor, and its number.
fn watched(fd: c_int) -> Option<(Arc<Watched>, usize)> {
    let all = all_watched();
    if all.is_empty() {
        return None;
    }
    let identity = identity(fd)?;
    for watched in &all {
        let state = lock(&watched.state);
        if let Some(file) = state.files.iter().position(|file| file.identity == identity) {
            drop(state);
            return Some((Arc::clone(watched), file));
        }
    }
    // The first write to a log that is being made.
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let watched = all.iter().find(|watched| watched.is_new_log(&path))?;
    let mut state = lock(&watched.state);
    let file = state.add(File::open(&path).ok()?);
    let names = Names { new_log: Some(file), ..state.names };
    state.name(names);
    drop(state);
    Some((Arc::clone(watched), file))
}

impl Watched {
    fn is_new_log(&self, path: &Path) -> bool {
        self.is_named(path, NEW_LOG)
    }

    fn is_named(&self, path: &Path, name: &str) -> bool {
        self.folder.as_ref().is_some_and(|(folder, _)| path == folder.join(name))
    }
}

/// Lets every call go straight on to the kernel. For a child of this process, as another thread of the parent may have
/// held a lock when it was made.
pub fn look_away() {
    WATCHES.store(0, Ordering::Release);
}

/// A data file, or a folder with its logs, that is watched until this is dropped.
pub struct Disk(Arc<Watched>);

impl Disk {
    /// Watches a data file alone.
    pub fn watch(file: &Path) -> Self {
        Self::begin(None, State::default(), file)
    }

    /// Watches the data file and the logs in a folder.
    pub fn watch_folder(folder: &Path) -> Self {
        let folder = fs::canonicalize(folder).unwrap();
        let identity = identity(File::open(&folder).unwrap().as_raw_fd()).unwrap();
        let disk = Self::begin(Some((folder.clone(), identity)), State::default(), &folder.join(DATA));
        {
            let mut state = lock(&disk.0.state);
            let mut number = |name| File::open(folder.join(name)).ok().map(|file| state.add(file));
            let names = Names { log: number(LOG), new_log: number(NEW_LOG) };
            state.names = names;
        }
        disk
    }

    fn begin(folder: Option<(PathBuf, Identity)>, mut state: State, data: &Path) -> Self {
        state.add(File::open(data).unwrap());
        let watched = Arc::new(Watched { folder, state: Mutex::new(state) });
        lock(&WATCHED).push(Arc::clone(&watched));
        WATCHES.fetch_add(1, Ordering::Release);
        Self(watched)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    pub fn note(&self, event: Event) {
        self.state().log.push(event);
    }

    pub fn log_len(&self) -> usize {
        self.state().log.len()
    }

    /// The events up to now. Later ones begin a new list.
    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().log)
    }

    /// How many of the events up to now are such.
    pub fn count(&self, is_one: impl Fn(&Event) -> bool) -> usize {
        self.state().log.iter().filter(|event| is_one(event)).count()
    }

    /// The number of the file that is the log now.
    pub fn log_file(&self) -> Option<usize> {
        self.state().names.log
    }

    /// Replaces the faults to come.
    pub fn fail(&self, faults: &[Fault]) {
        let mut state = self.state();
        state.faults = faults.to_vec();
        state.failed = 0;
    }

    /// Clears the faults, and returns how many calls failed because of them.
    pub fn clear_faults(&self) -> usize {
        let mut state = self.state();
        state.faults.clear();
        state.failed
    }

    /// How many calls have failed because of the present faults.
    pub fn failed_calls(&self) -> usize {
        self.state().failed
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&WATCHED).retain(|watched| !Arc::ptr_eq(watched, &self.0));
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
    // SAFETY: the bytes are readable; the kernel refuses a bad descriptor.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), at) as ssize_t }
}

fn raw_pread(fd: c_int, bytes: &mut [u8], at: off_t) -> ssize_t {
    // SAFETY: the bytes are writable; the kernel refuses a bad descriptor.
    unsafe { libc::syscall(libc::SYS_pread64, fd, bytes.as_mut_ptr(), bytes.len(), at) as ssize_t }
}

fn write((watched, file): &(Arc<Watched>, usize), fd: c_int, bytes: &[u8], at: off_t) -> ssize_t {
    // Held until the bytes are written, so that the events have the order of the writes.
    let mut state = lock(&watched.state);
    let call = Call::of_write(fd, state.role(*file), bytes, at);
    let failure = state.failure(call).or_else(|| {
        let untold = state.files[*file].untold;
        (call == Call::WriteThrough && set_untold(fd, false)).then_some(Failure::Doubtful(untold))
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
    let bytes = part[..written as usize].to_vec();
    state.log.push(Event::Write { file: *file, at: at as u64, bytes, durable });
    match failure {
        Some(Failure::Doubtful(number)) => fail_with(number),
        _ => written,
    }
}

fn sync(fd: c_int, call: libc::c_long) -> c_int {
    let Some((watched, file)) = watched(fd) else {
        return sync_folder(fd).unwrap_or_else(|| {
            // SAFETY: the kernel refuses a bad descriptor.
            unsafe { libc::syscall(call, fd) as c_int }
        });
    };
    let mut state = lock(&watched.state);
    let call = Call::of_sync(state.role(file));
    let untold = set_untold(fd, false).then_some(Failure::Refused(state.files[file].untold));
    match state.failure(call).or(untold) {
        Some(failure @ (Failure::Refused(number) | Failure::Doubtful(number))) => {
            if let Failure::Doubtful(_) = failure {
                state.files[file].untold = number;
                descriptors(fd).for_each(|fd| _ = set_untold(fd, true));
                set_untold(fd, false);
            }
            state.log.push(Event::FailedSync(file));
            fail_with(number) as c_int
        }
        _ => {
            state.log.push(Event::Sync(file));
            0
        }
    }
}

/// Syncs a watched folder. `None` if the descriptor is of something else.
fn sync_folder(fd: c_int) -> Option<c_int> {
    let all = all_watched();
    if all.is_empty() {
        return None;
    }
    let found = identity(fd)?;
    let is_it = |watched: &&Arc<Watched>| matches!(&watched.folder, Some((_, folder)) if *folder == found);
    let mut state = lock(&all.iter().find(is_it)?.state);
    match state.failure(Call::FolderSync) {
        Some(Failure::Refused(number) | Failure::Doubtful(number)) => {
            state.log.push(Event::FailedFolderSync);
            Some(fail_with(number) as c_int)
        }
        _ => {
            state.log.push(Event::FolderSync);
            Some(0)
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
    // SAFETY: the kernel refuses a bad descriptor; with these flags nothing else is changed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let wanted = if untold { flags | libc::O_NOATIME } else { flags & !libc::O_NOATIME };
        if wanted != flags {
            libc::fcntl(fd, libc::F_SETFL, wanted);
        }
        flags & libc::O_NOATIME != 0
    }
}

/// # Safety
/// As for pwrite(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller says so.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast(), len) };
    match watched(fd) {
        Some(watched) => write(&watched, fd, bytes, at),
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
    let Some(watched) = watched(fd) else {
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
    let written = write(&watched, fd, &bytes.concat(), at);
    if written > 0 {
        // SAFETY: as before.
        unsafe { libc::lseek(fd, at + written as off_t, libc::SEEK_SET) };
    }
    written
}

/// By which Rust's standard library reads.
///
/// # Safety
/// As for pread(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller says so.
    let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast(), len) };
    if let Some((watched, file)) = watched(fd)
        && file != DATA_FILE
        && let Some(failure) = lock(&watched.state).failure(Call::LogRead)
    {
        return match failure {
            Failure::Refused(number) | Failure::Doubtful(number) => fail_with(number),
            Failure::Short(len) => {
                let len = len.min(bytes.len());
                raw_pread(fd, &mut bytes[..len], at)
            }
        };
    }
    raw_pread(fd, bytes, at)
}

/// # Safety
/// It is a string of C's.
unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: the caller says so.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// # Safety
/// As for rename(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller says so.
    let raw = || unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int
    };
    // SAFETY: the caller says so.
    let (source, target) = unsafe { (path_of(from), path_of(to)) };
    let all = all_watched();
    let is_it = |watched: &&Arc<Watched>| watched.is_new_log(source) && watched.is_named(target, LOG);
    let Some(watched) = all.iter().find(is_it) else { return raw() };
    let mut state = lock(&watched.state);
    let failure = state.failure(Call::Rename);
    if let Some(Failure::Refused(number)) = failure {
        return fail_with(number) as c_int;
    }
    let result = raw();
    if result == 0 {
        let names = Names { log: state.names.new_log, new_log: None };
        state.name(names);
    }
    match failure {
        Some(Failure::Doubtful(number)) => fail_with(number) as c_int,
        _ => result,
    }
}

/// # Safety
/// As for unlink(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller says so.
    let raw = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int };
    // SAFETY: the caller says so.
    let name = unsafe { path_of(path) };
    let all = all_watched();
    let Some(watched) = all.iter().find(|watched| watched.is_new_log(name)) else { return raw() };
    let mut state = lock(&watched.state);
    let result = raw();
    if result == 0 {
        let names = Names { new_log: None, ..state.names };
        state.name(names);
    }
    result
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
