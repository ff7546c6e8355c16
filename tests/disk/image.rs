//! The content of a file and of a folder after a power loss.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use super::{DATA, DATA_FILE, Event, LOG, NEW_LOG, Names, Random};

/// The bytes of a sector. Devices write a whole sector or nothing of it.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// The sync guarantees that the disk keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Kept,
    /// Only writes with `O_DSYNC` are durable, so a meta page may be on disk before the pages that it names.
    WriteThroughAlone,
    /// No guarantee is kept, as with `MDB_NOSYNC`.
    Ignored,
}

/// The maximum number of pending writes on a disk that ignores syncs.
const IN_FLIGHT: usize = 100;

/// A write that may not be on disk.
struct PendingWrite {
    /// The position in the order of writes.
    number: usize,
    at: usize,
    bytes: Vec<u8>,
    /// A sync has failed, so no later sync makes this write durable.
    given_up: bool,
}

/// A file on disk, and its writes that may not be there yet.
pub struct Disk {
    syncs: Syncs,
    durable: Vec<u8>,
    pending: Vec<PendingWrite>,
    next: usize,
    /// For each sector, the last write that is durable in it. Older writes no longer change the sector.
    overtaken: HashMap<usize, usize>,
}

/// The unit in which writes are kept or lost.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Sector,
    Page,
    Write,
    /// The first writes are kept, and all later writes are lost.
    Order,
}

impl Disk {
    pub fn new(syncs: Syncs, durable: Vec<u8>) -> Self {
        Self { syncs, durable, pending: Vec::new(), next: 0, overtaken: HashMap::new() }
    }

    /// Applies an event of this file.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { at, bytes, durable, .. } => {
                let at = *at as usize;
                let write = PendingWrite { number: self.next, at, bytes: bytes.clone(), given_up: false };
                self.next += 1;
                if *durable && self.syncs != Syncs::Ignored {
                    self.make_durable(&write);
                } else {
                    self.pending.push(write);
                }
                if self.syncs != Syncs::Kept && self.pending.len() > IN_FLIGHT {
                    let first = self.pending.remove(0);
                    self.make_durable(&first);
                }
            }
            Event::Sync(_) if self.syncs == Syncs::Kept => {
                let (given_up, synced) =
                    std::mem::take(&mut self.pending).into_iter().partition(|write| write.given_up);
                self.pending = given_up;
                let synced: Vec<PendingWrite> = synced;
                synced.iter().for_each(|write| self.make_durable(write));
                if self.pending.is_empty() {
                    self.overtaken.clear();
                }
            }
            Event::FailedSync(_) => self.pending.iter_mut().for_each(|write| write.given_up = true),
            _ => {}
        }
    }

    /// Makes a write durable, and with it the earlier writes to its sectors.
    fn make_durable(&mut self, write: &PendingWrite) {
        let sectors = sectors(write.at, write.bytes.len());
        let range = sectors.start * SECTOR..sectors.end * SECTOR;
        let mut durable = std::mem::take(&mut self.durable);
        for waiting in self.pending.iter().filter(|waiting| waiting.number < write.number) {
            let from = waiting.at.max(range.start);
            let to = (waiting.at + waiting.bytes.len()).min(range.end);
            if from < to {
                let bytes = &waiting.bytes[from - waiting.at..to - waiting.at];
                self.put(&mut durable, waiting.number, from, bytes);
            }
        }
        self.put(&mut durable, write.number, write.at, &write.bytes);
        self.durable = durable;
        for sector in sectors {
            let first = self.overtaken.entry(sector).or_default();
            *first = (*first).max(write.number);
        }
    }

    /// The file as seen by processes that have it open.
    pub fn all(&self) -> Vec<u8> {
        let mut file = self.durable.clone();
        for write in &self.pending {
            self.put(&mut file, write.number, write.at, &write.bytes);
        }
        file
    }

    /// The file after a power loss at this moment, during the event `in_flight`. Any part of the writes that are
    /// not durable may be there.
    pub fn lose_power(&self, in_flight: Option<&Event>, random: &mut Random) -> Vec<u8> {
        let unit = match random.below(8) {
            0..3 => Unit::Sector,
            3..5 => Unit::Page,
            5 | 6 => Unit::Write,
            _ => Unit::Order,
        };
        // The number of units in ten that are written.
        let share = [1, 5, 9][random.below(3) as usize];
        let mut writes: Vec<(usize, usize, &[u8])> =
            self.pending.iter().map(|write| (write.number, write.at, write.bytes.as_slice())).collect();
        if let Some(Event::Write { at, bytes, .. }) = in_flight {
            writes.push((self.next, *at as usize, bytes));
        }
        let ordered = random.below(writes.len() as u64 + 1) as usize;
        let mut file = self.durable.clone();
        let mut ends = vec![file.len()];
        for (index, &(number, at, bytes)) in writes.iter().enumerate() {
            ends.push(at + bytes.len());
            let size = match unit {
                Unit::Sector => SECTOR,
                Unit::Page => PAGE,
                Unit::Write | Unit::Order => usize::MAX,
            };
            for part in parts(at, bytes.len(), size) {
                let is_written = match unit {
                    Unit::Order => index < ordered,
                    _ => random.below(10) < share,
                };
                if is_written {
                    self.put(&mut file, number, at + part.start, &bytes[part]);
                }
            }
        }
        // The length of the file is independent of the writes: the old length, the new one, or one in between.
        let len = match random.below(4) {
            0 => self.durable.len(),
            1 => ends[random.below(ends.len() as u64) as usize].max(self.durable.len()),
            _ => ends.into_iter().max().unwrap_or_default(),
        };
        file.resize(len, 0);
        file
    }

    /// Puts a part of a write into the file, except in sectors where a later write is durable.
    fn put(&self, file: &mut Vec<u8>, number: usize, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        if self.overtaken.is_empty() {
            return file[at..end].copy_from_slice(bytes);
        }
        for part in parts(at, bytes.len(), SECTOR) {
            let first = self.overtaken.get(&((at + part.start) / SECTOR));
            if first.is_none_or(|&first| number >= first) {
                file[at + part.start..at + part.end].copy_from_slice(&bytes[part]);
            }
        }
    }
}

/// The files of a store's folder.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Image {
    pub data: Vec<u8>,
    pub log: Option<Vec<u8>>,
    pub new_log: Option<Vec<u8>>,
}

impl Image {
    /// Reads the files of a folder.
    pub fn of(dir: &Path) -> Self {
        let read = |name| fs::read(dir.join(name)).ok();
        Self { data: read(DATA).unwrap_or_default(), log: read(LOG), new_log: read(NEW_LOG) }
    }

    /// Creates the files in a folder.
    pub fn put(&self, dir: &Path) {
        let files = [(DATA, Some(&self.data)), (LOG, self.log.as_ref()), (NEW_LOG, self.new_log.as_ref())];
        for (name, bytes) in files {
            if let Some(bytes) = bytes {
                fs::write(dir.join(name), bytes).unwrap();
            }
        }
    }
}

/// A folder on disk, and its changes that may not be there yet. Its files share one order of events, but a power loss
/// keeps or loses each of their writes independently.
pub struct Folder {
    syncs: Syncs,
    files: Vec<Disk>,
    /// The names that are on disk.
    durable: Names,
    /// The names after each change that may not be on disk. A file system keeps the order of such changes.
    pending: Vec<Names>,
}

impl Folder {
    pub fn new(syncs: Syncs, first: Image) -> Self {
        let mut files = vec![Disk::new(syncs, first.data)];
        let mut add = |bytes: Option<Vec<u8>>| {
            bytes.map(|bytes| {
                files.push(Disk::new(syncs, bytes));
                files.len() - 1
            })
        };
        let durable = Names { log: add(first.log), new_log: add(first.new_log) };
        Self { syncs, files, durable, pending: Vec::new() }
    }

    /// Applies an event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { file, .. } | Event::Sync(file) | Event::FailedSync(file) => {
                self.files[*file].apply(event);
            }
            Event::Named(names) => {
                if names.new_log == Some(self.files.len()) {
                    self.files.push(Disk::new(self.syncs, Vec::new()));
                }
                self.pending.push(*names);
            }
            Event::FolderSync if self.syncs == Syncs::Kept => {
                self.durable = self.pending.pop().unwrap_or(self.durable);
                self.pending.clear();
            }
            _ => {}
        }
    }

    fn image(&self, names: Names, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Image {
        Image {
            data: bytes(DATA_FILE),
            log: names.log.map(&mut bytes),
            new_log: names.new_log.map(&mut bytes),
        }
    }

    /// The files as seen by processes that have them open.
    pub fn all(&self) -> Image {
        self.image(*self.pending.last().unwrap_or(&self.durable), |file| self.files[file].all())
    }

    /// The files after a power loss at this moment, during the event `in_flight`.
    pub fn lose_power(&self, in_flight: Option<&Event>, random: &mut Random) -> Image {
        let kept = random.below(self.pending.len() as u64 + 1) as usize;
        let names = kept.checked_sub(1).map_or(self.durable, |last| self.pending[last]);
        self.image(names, |at| {
            let of_file = in_flight.filter(|event| matches!(event, Event::Write { file, .. } if *file == at));
            self.files[at].lose_power(of_file, random)
        })
    }
}

/// The sectors that a write touches.
fn sectors(at: usize, len: usize) -> Range<usize> {
    at / SECTOR..(at + len).div_ceil(SECTOR)
}

/// Splits a write at the boundaries of units of this size.
fn parts(at: usize, len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0_usize;
    std::iter::from_fn(move || {
        let part = from..len.min(from.saturating_add(size - (at + from) % size));
        from = part.end;
        (!part.is_empty()).then_some(part)
    })
}
