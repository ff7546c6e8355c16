//! The disk with the log.
//!
//! A write goes to the page cache, and a sync writes its sectors to disk. At a power loss, each unsynced sector
//! independently gets one of its versions or is torn. A failed sync leaves unwritten sectors clean. A later sync then
//! succeeds without them, and the kernel may read them from disk again at any time.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;

use super::scheduler::{ProcessId, current};
use super::world::World;
use crate::error::{Result, StoreError};
use crate::store::file::redo::storage::{LogFile, LogFiles};

const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

#[derive(Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    log: Name,
    prepared: Option<usize>,
}

/// The name of a file.
#[derive(Default)]
struct Name {
    inode: Option<usize>,
    /// Other files that the name may lead to on disk.
    others: Vec<Option<usize>>,
}

/// A write to a log file.
#[derive(Clone, Copy)]
pub(super) struct LogWrite {
    pub inode: usize,
    pub number: u64,
}

struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// The writes to each sector since its last sync, in order, with their numbers.
    dirty: BTreeMap<usize, Vec<(u64, Sector)>>,
    writes: u64,
    /// Clean sectors that the disk does not have, because their sync has failed.
    falsely_clean: Vec<usize>,
}

impl Inode {
    fn zeros(len: usize) -> Self {
        let bytes = vec![0; len];
        Self {
            cache: bytes.clone(),
            disk: bytes,
            dirty: BTreeMap::new(),
            writes: 0,
            falsely_clean: Vec::new(),
        }
    }

    fn sector(bytes: &[u8], at: usize) -> Sector {
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(&bytes[at * SECTOR..(at + 1) * SECTOR]);
        sector
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        self.cache[at..at + bytes.len()].copy_from_slice(bytes);
        self.writes += 1;
        for sector in at / SECTOR..=(at + bytes.len() - 1) / SECTOR {
            let version = Self::sector(&self.cache, sector);
            self.dirty.entry(sector).or_default().push((self.writes, version));
            self.falsely_clean.retain(|falsely_clean| *falsely_clean != sector);
        }
    }

    fn put(&mut self, at: usize, sector: &Sector) {
        self.disk[at * SECTOR..(at + 1) * SECTOR].copy_from_slice(sector);
    }

    /// Replaces the content by what is on disk after a power loss.
    fn lose_power(&mut self, world: &World) {
        let mut random = world.random.borrow_mut();
        for (at, versions) in std::mem::take(&mut self.dirty) {
            match random.below(4) {
                0 => {}
                1 => {
                    let (_, version) = *random.pick(&versions);
                    self.put(at, &version);
                }
                2 => {
                    // A torn sector: the disk has only a part of it.
                    let (old, new) = (Self::sector(&self.disk, at), random.pick(&versions).1);
                    let split = random.below(SECTOR);
                    let (mut torn, rest) = if random.chance(500_000) { (old, new) } else { (new, old) };
                    torn[split..].copy_from_slice(&rest[split..]);
                    self.put(at, &torn);
                }
                _ => {
                    let (_, version) = versions[versions.len() - 1];
                    self.put(at, &version);
                }
            }
        }
        self.falsely_clean.clear();
        self.cache.copy_from_slice(&self.disk);
    }

    /// Makes the kernel drop clean pages. Returns whether any bytes were lost.
    fn drop_clean(&mut self) -> bool {
        let has_lost = !self.falsely_clean.is_empty();
        for at in std::mem::take(&mut self.falsely_clean) {
            let range = at * SECTOR..(at + 1) * SECTOR;
            self.cache[range.clone()].copy_from_slice(&self.disk[range]);
        }
        has_lost
    }
}

impl Disk {
    pub(super) fn lose_power(&mut self, world: &World) {
        let others = std::mem::take(&mut self.log.others);
        if !others.is_empty() && world.random.borrow_mut().chance(500_000) {
            let at = world.random.borrow_mut().below(others.len());
            self.log.inode = others[at];
        }
        self.prepared = self.prepared.filter(|_| world.random.borrow_mut().chance(500_000));
        self.inodes.iter_mut().for_each(|inode| inode.lose_power(world));
    }

    /// The last write to the log, unless it is synced.
    pub(super) fn last_unsynced(&self) -> Option<LogWrite> {
        let inode = self.log.inode?;
        let Inode { dirty, writes, .. } = &self.inodes[inode];
        (!dirty.is_empty()).then_some(LogWrite { inode, number: *writes })
    }

    fn remove(&mut self) {
        let old = self.log.inode.take();
        self.log.others.push(old);
    }

    /// Makes the kernel drop unwritten clean pages. Returns whether there were any.
    pub(super) fn drop_clean(&mut self) -> bool {
        self.inodes.iter_mut().map(Inode::drop_clean).fold(false, |has_lost, lost| has_lost | lost)
    }
}

/// The disk as one process sees it.
pub(super) struct SimFiles {
    pub disk: Arc<Mutex<Disk>>,
    pub process: ProcessId,
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

fn world() -> Rc<World> {
    current()
}

fn broken(kind: &str, errno: i32) -> io::Error {
    world().trace(format!("{kind} fails"));
    io::Error::from_raw_os_error(errno)
}

fn errno() -> i32 {
    if world().random.borrow_mut().chance(300_000) { libc::ENOSPC } else { libc::EIO }
}

impl SimFiles {
    fn failed(&self, what: &str) -> StoreError {
        let error = broken(what, errno());
        StoreError::Io(format!("{what}: {error}"))
    }
}

impl LogFiles for SimFiles {
    fn open(&self) -> Result<Option<Arc<dyn LogFile>>> {
        let world = world();
        world.step("open");
        if world.fault_happens(world.config.read_errors) {
            return Err(self.failed("opening the log"));
        }
        let inode = self.disk.lock().log.inode;
        let open = |inode| Arc::new(SimFile { disk: Arc::clone(&self.disk), inode }) as Arc<dyn LogFile>;
        Ok(inode.map(open))
    }

    fn prepare(&self, len: u64) -> Result<()> {
        let world = world();
        world.step("prepare");
        self.disk.lock().prepared = None;
        if world.fault_happens(world.config.log_errors) {
            return Err(self.failed("preparing a log"));
        }
        world.step("prepared");
        let mut disk = self.disk.lock();
        disk.inodes.push(Inode::zeros(len as usize));
        disk.prepared = Some(disk.inodes.len() - 1);
        Ok(())
    }

    fn install(&self) -> Result<Arc<dyn LogFile>> {
        let world = world();
        world.step("install");
        if world.fault_happens(world.config.log_errors) {
            return Err(self.failed("renaming the log"));
        }
        let inode = {
            let mut disk = self.disk.lock();
            let Some(inode) = disk.prepared.take() else { return Err(self.failed("finding the new log")) };
            let old = disk.log.inode.replace(inode);
            disk.log.others.push(old);
            inode
        };
        world.step("renamed");
        if world.fault_happens(world.config.log_errors) {
            self.disk.lock().remove();
            return Err(self.failed("syncing the folder"));
        }
        self.disk.lock().log.others.clear();
        world.step("installed");
        Ok(Arc::new(SimFile { disk: Arc::clone(&self.disk), inode }))
    }

    fn sync_name(&self) -> Result<()> {
        let world = world();
        world.step("sync_name");
        if world.fault_happens(world.config.log_errors) {
            return Err(self.failed("syncing the folder"));
        }
        self.disk.lock().log.others.clear();
        world.step("name synced");
        Ok(())
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/simulated/{}/redo.log", self.process))
    }
}

impl LogFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let world = world();
        world.step("read");
        if world.fault_happens(world.config.read_errors) {
            return Err(broken("a read", libc::EIO));
        }
        let disk = self.disk.lock();
        let at = at as usize;
        bytes.copy_from_slice(&disk.inodes[self.inode].cache[at..at + bytes.len()]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let world = world();
        world.step("write");
        if world.fault_happens(world.config.log_errors) {
            let part = world.random.borrow_mut().below(bytes.len() + 1);
            self.disk.lock().inodes[self.inode].write(&bytes[..part], at as usize);
            return Err(broken("a write", errno()));
        }
        self.disk.lock().inodes[self.inode].write(bytes, at as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let world = world();
        world.step("sync");
        let begun = world.begin_sync();
        // Earlier writes are on disk when this returns. Later ones may not be.
        let last = self.disk.lock().inodes[self.inode].writes;
        let fails = world.fault_happens(world.config.log_errors);
        if !fails {
            world.step("syncing");
        }
        let mut disk = self.disk.lock();
        let inode = &mut disk.inodes[self.inode];
        for (at, versions) in std::mem::take(&mut inode.dirty) {
            let (written, rest): (Vec<_>, Vec<_>) =
                versions.into_iter().partition(|(number, _)| *number <= last);
            match written.last() {
                Some(_) if fails && world.random.borrow_mut().chance(500_000) => inode.falsely_clean.push(at),
                Some((_, version)) => inode.put(at, version),
                None => {}
            }
            if !rest.is_empty() {
                inode.dirty.insert(at, rest);
            }
        }
        if fails {
            drop(disk);
            return Err(broken("a sync", errno()));
        }
        drop(disk);
        world.end_sync(begun, LogWrite { inode: self.inode, number: last });
        Ok(())
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(self.disk.lock().log.inode == Some(self.inode))
    }
}
