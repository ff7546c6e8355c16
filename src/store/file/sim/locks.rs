//! The locks between processes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::scheduler::{ProcessId, current};
use crate::store::file::redo::mode_lock::ModeLock;

#[derive(Default)]
pub(super) struct Locks {
    exclusive: Option<ProcessId>,
    shared: BTreeSet<ProcessId>,
    requests: BTreeSet<ProcessId>,
}

impl Locks {
    /// Releases the locks of a process that has ended.
    pub(super) fn release_all(&mut self, of: ProcessId) {
        self.exclusive = self.exclusive.filter(|holder| *holder != of);
        self.shared.remove(&of);
        self.requests.remove(&of);
    }

    pub(super) fn is_used_by_another(&self, than: ProcessId) -> bool {
        self.exclusive.is_some_and(|holder| holder != than)
            || self.shared.iter().any(|holder| *holder != than)
    }
}

pub(super) struct SimLock {
    pub locks: Arc<Mutex<Locks>>,
    pub process: ProcessId,
}

impl SimLock {
    fn trace(&self, what: &str) {
        current().trace(format!("{} {what}", self.process));
    }
}

impl ModeLock for SimLock {
    fn try_exclusive(&self) -> io::Result<bool> {
        current().step("try_exclusive");
        let mut locks = self.locks.lock();
        if locks.is_used_by_another(self.process) {
            return Ok(false);
        }
        locks.shared.remove(&self.process);
        locks.exclusive = Some(self.process);
        drop(locks);
        self.trace("has the store to itself");
        Ok(true)
    }

    fn try_shared(&self) -> io::Result<bool> {
        current().step("try_shared");
        let mut locks = self.locks.lock();
        if locks.exclusive.is_some_and(|holder| holder != self.process) {
            return Ok(false);
        }
        locks.exclusive = None;
        locks.shared.insert(self.process);
        drop(locks);
        self.trace("shares the store");
        Ok(true)
    }

    fn release(&self) {
        current().step("release");
        let mut locks = self.locks.lock();
        locks.exclusive = locks.exclusive.filter(|holder| *holder != self.process);
        locks.shared.remove(&self.process);
    }

    fn request(&self, is_asked: bool) -> io::Result<()> {
        let mut locks = self.locks.lock();
        if is_asked {
            locks.requests.insert(self.process);
        } else {
            locks.requests.remove(&self.process);
        }
        Ok(())
    }

    fn is_requested(&self) -> io::Result<bool> {
        Ok(self.locks.lock().requests.iter().any(|process| *process != self.process))
    }

    fn holder(&self) -> Option<u32> {
        self.locks.lock().exclusive.map(|process| process as u32)
    }
}
