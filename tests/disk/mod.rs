//! A disk that records and fails calls: all calls that write the files of a store pass through this module.
//!
//! A function of the executable replaces the function of the C library with that name, also for the C code of LMDB. The
//! functions here are those that write LMDB's data file and the redo log. Calls for files that no test watches go
//! directly to the kernel. Watched files are never really synced: only the events record which writes would survive a
//! power loss. All files of a folder share one list of events.

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

/// The name of the data file.
pub const DATA: &str = "data.mdb";
/// The name of the redo log.
pub const LOG: &str = "redo.log";
/// The name of a log that is being created.
pub const NEW_LOG: &str = "redo.log.new";

/// The number of the data file among the watched files of a folder.
pub const DATA_FILE: usize = 0;

/// An event in a folder. Files are numbered in the order of their creation.
#[derive(Debug, Clone)]
pub enum Event {
    /// `durable`: on disk when the call returns, because the descriptor was opened with `O_DSYNC`.
    Write {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    Sync(usize),
    /// The kernel may have dropped the writes before this sync, and a later sync does not report that.
    FailedSync(usize),
    /// A name was added, removed or changed. The change is on disk after the next `FolderSync`.
    Named(Names),
    FolderSync,
    FailedFolderSync,
    /// The test started an operation of this lane.
    Started(usize),
    /// The next operation of this lane was acknowledged.
    Acknowledged(usize),
    /// All acknowledged operations are durable, whatever the durability of the store.
    Settled,
}

/// The numbers of the files of a folder, apart from the data file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub log: Option<usize>,
    pub new_log: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write to the data file that needs a sync to be durable: the pages of LMDB.
    Write,
    Sync,
    /// A write that is durable when it returns: the meta page of LMDB.
    WriteThrough,
    /// A write of a meta page that needs a sync to be durable. LMDB uses it to roll back a meta page, and the store to
    /// rewrite both.
    RollBack,
    LogWrite,
    LogSync,
    LogRead,
    /// A write to a log that is being created.
    NewLogWrite,
    NewLogSync,
    /// The rename of a new log to its final name.
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
        // SAFETY: F_GETFL takes no third argument.
        if unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_DSYNC != 0 {
            Self::WriteThrough
        } else if (at as usize) < 2 * PAGE && bytes.len() < PAGE {
            Self::RollBack
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
    /// The call does nothing and fails with this errno.
    Refused(c_int),
    /// The call does its work and fails nevertheless, so the state of the disk is unknown. Linux reports such a failed
    /// sync once to each descriptor of the file, at its next sync.
    Doubtful(c_int),
    /// The call writes only this many bytes.
    Short(usize),
}

/// Lets some of the next calls fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub call: Call,
    /// The number of calls of this kind that succeed before.
    pub after: usize,
    pub times: usize,
    pub failure: Failure,
}

/// A file's device and inode.
type Identity = (u64, u64);

struct WatchedFile {
    identity: Identity,
    /// Keeps the inode from being reused.
    _file: File,
    /// The errno of the last failed sync, for descriptors to which it was not reported yet.
    unreported: c_int,
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
        self.files.push(WatchedFile { identity, _file: file, unreported: 0 });
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
    /// The folder, if its logs are watched too.
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
    // SAFETY: `stat` is writable, and the kernel refuses a bad descriptor.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has filled `stat`.
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
    // The first write to a log that is being created.
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

/// Passes all later calls directly to the kernel. A child process needs this: another thread of its parent may have
/// held a lock at the time of the fork.
pub fn stop_watching() {
    WATCHES.store(0, Ordering::Release);
}

/// Watches a data file, or a folder with its logs, until it is dropped.
pub struct Disk(Arc<Watched>);

impl Disk {
    /// Watches only a data file.
    pub fn watch(file: &Path) -> Self {
        Self::start(None, State::default(), file)
    }

    /// Watches the data file and the logs in a folder.
    pub fn watch_folder(folder: &Path) -> Self {
        let folder = fs::canonicalize(folder).unwrap();
        let identity = identity(File::open(&folder).unwrap().as_raw_fd()).unwrap();
        let disk = Self::start(Some((folder.clone(), identity)), State::default(), &folder.join(DATA));
        {
            let mut state = lock(&disk.0.state);
            let mut number = |name| File::open(folder.join(name)).ok().map(|file| state.add(file));
            let names = Names { log: number(LOG), new_log: number(NEW_LOG) };
            state.names = names;
        }
        disk
    }

    fn start(folder: Option<(PathBuf, Identity)>, mut state: State, data: &Path) -> Self {
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

    /// Returns the events up to now, and starts a new list.
    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().log)
    }

    /// Counts the events up to now that match.
    pub fn count(&self, is_one: impl Fn(&Event) -> bool) -> usize {
        self.state().log.iter().filter(|event| is_one(event)).count()
    }

    /// The number of the present log file.
    pub fn log_file(&self) -> Option<usize> {
        self.state().names.log
    }

    /// Replaces the faults.
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

    /// The number of calls that the present faults have failed.
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

/// Creates a temporary directory, in memory if possible.
pub fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Creates the data file of a store. A store that is opened on an empty file is new.
pub fn data_file(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join(DATA);
    fs::write(&path, bytes).unwrap();
    path
}

fn fail_with(number: c_int) -> ssize_t {
    // SAFETY: the location is valid, and belongs to the calling thread.
    unsafe { *libc::__errno_location() = number };
    -1
}

fn raw_pwrite(fd: c_int, bytes: &[u8], at: off_t) -> ssize_t {
    // SAFETY: the bytes are readable, and the kernel refuses a bad descriptor.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), at) as ssize_t }
}

fn raw_pread(fd: c_int, bytes: &mut [u8], at: off_t) -> ssize_t {
    // SAFETY: the bytes are writable, and the kernel refuses a bad descriptor.
    unsafe { libc::syscall(libc::SYS_pread64, fd, bytes.as_mut_ptr(), bytes.len(), at) as ssize_t }
}

fn write((watched, file): &(Arc<Watched>, usize), fd: c_int, bytes: &[u8], at: off_t) -> ssize_t {
    // The lock is held until the bytes are written, so that events and writes have the same order.
    let mut state = lock(&watched.state);
    let call = Call::of_write(fd, state.role(*file), bytes, at);
    let failure = state.failure(call).or_else(|| {
        let unreported = state.files[*file].unreported;
        (call == Call::WriteThrough && set_unreported(fd, false)).then_some(Failure::Doubtful(unreported))
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
    let unreported = set_unreported(fd, false).then_some(Failure::Refused(state.files[file].unreported));
    match state.failure(call).or(unreported) {
        Some(failure @ (Failure::Refused(number) | Failure::Doubtful(number))) => {
            if let Failure::Doubtful(_) = failure {
                state.files[file].unreported = number;
                descriptors(fd).for_each(|fd| _ = set_unreported(fd, true));
                set_unreported(fd, false);
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

/// Syncs a watched folder. `None` if the descriptor is not that of a watched folder.
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

/// All descriptors of the same file.
fn descriptors(fd: c_int) -> impl Iterator<Item = c_int> {
    let file = identity(fd);
    let all = fs::read_dir("/proc/self/fd").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |&other| identity(other) == file)
}

/// Marks whether a failed sync has yet to be reported to a descriptor, and returns the previous mark. The mark is a
/// status flag that the descriptor shares with its copies, and that has no effect on these files.
fn set_unreported(fd: c_int, unreported: bool) -> bool {
    // SAFETY: the kernel refuses a bad descriptor, and nothing but the flags is changed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let wanted = if unreported { flags | libc::O_NOATIME } else { flags & !libc::O_NOATIME };
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
    // SAFETY: guaranteed by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast(), len) };
    match watched(fd) {
        Some(watched) => write(&watched, fd, bytes, at),
        None => raw_pwrite(fd, bytes, at),
    }
}

/// Called by Rust's standard library, with which the store rewrites meta pages.
///
/// # Safety
/// As for pwrite(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: guaranteed by the caller.
    unsafe { pwrite(fd, bytes, len, at) }
}

/// # Safety
/// As for writev(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(watched) = watched(fd) else {
        // SAFETY: guaranteed by the caller.
        return unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) as ssize_t };
    };
    // SAFETY: guaranteed by the caller.
    let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
    let bytes: Vec<&[u8]> = parts
        .iter()
        // SAFETY: guaranteed by the caller.
        .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len) })
        .collect();
    // SAFETY: lseek takes any descriptor.
    let at = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    let written = write(&watched, fd, &bytes.concat(), at);
    if written > 0 {
        // SAFETY: lseek takes any descriptor.
        unsafe { libc::lseek(fd, at + written as off_t, libc::SEEK_SET) };
    }
    written
}

/// Called by Rust's standard library to read.
///
/// # Safety
/// As for pread(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: guaranteed by the caller.
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
/// `path` must be a valid C string.
unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: guaranteed by the caller.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// # Safety
/// As for rename(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: guaranteed by the caller.
    let raw = || unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int
    };
    // SAFETY: guaranteed by the caller.
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
    // SAFETY: guaranteed by the caller.
    let raw = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int };
    // SAFETY: guaranteed by the caller.
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

/// A small random number generator. A seed always gives the same numbers.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Mix the seed, so that close seeds give different numbers. The state must not be zero.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Derives a generator for another thread.
    pub fn split(&mut self) -> Self {
        Self::new(self.below(u64::MAX >> 11))
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}
