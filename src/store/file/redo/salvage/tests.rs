use super::*;
use crate::store::file::redo::format::{BatchHeader, BatchWriter, LogId, Position, file_header};

const ID: LogId = *b"the id of a log.";
const OTHER: LogId = *b"the id of other.";
const RING: usize = 64 << 10;

/// A file in memory with unreadable pages.
struct Memory {
    bytes: Vec<u8>,
    unreadable: Vec<usize>,
}

impl LogFile for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let pages = at as usize / PAGE..(at as usize + bytes.len()).div_ceil(PAGE);
        if self.unreadable.iter().any(|page| pages.contains(page)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        bytes.copy_from_slice(&self.bytes[at as usize..at as usize + bytes.len()]);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("it is read alone")
    }

    fn sync(&self) -> io::Result<()> {
        unreachable!("it is read alone")
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// A row of a session, identified by its `created`.
fn row(created: u64) -> Vec<u8> {
    let mut row = vec![0; 24 + 100];
    row[16..24].copy_from_slice(&created.to_le_bytes());
    row
}

/// A log, batch by batch.
struct Log {
    file: Memory,
    at: Position,
    /// The offset of each batch.
    places: Vec<usize>,
    entry: LogEntry,
}

impl Log {
    fn new() -> Self {
        let mut bytes = vec![0; FILE_HEADER_BYTES as usize + RING];
        bytes[..FILE_HEADER_BYTES as usize].copy_from_slice(&file_header(&ID, RING as u64));
        Self {
            file: Memory { bytes, unreadable: Vec::new() },
            at: Position::default(),
            places: Vec::new(),
            entry: LogEntry { id: ID, applied: Position::default(), durable: 0 },
        }
    }

    /// Appends a batch with one row.
    fn push(&mut self, key: &str, row: Option<&[u8]>, next: u64) {
        let mut batch = BatchWriter::new(200);
        batch.push(key.as_bytes(), row);
        let Position { lsn, crc: before } = self.at;
        let head = BatchHeader { lsn, before, durable: lsn, next, ..BatchHeader::default() };
        let (bytes, crc) = batch.finish(&ID, head);
        let place = FILE_HEADER_BYTES as usize + self.at.lsn as usize;
        self.places.push(place);
        self.file.bytes[place..place + bytes.len()].copy_from_slice(&bytes);
        self.at = Position { lsn: self.at.lsn + bytes.len() as u64, crc };
    }

    fn damage(&mut self, batch: usize) {
        self.file.bytes[self.places[batch] + 60] ^= 1;
    }

    fn salvage(&self) -> Salvaged {
        salvage(&self.file, &self.entry).unwrap()
    }
}

/// Five sessions are created, and the second one is deleted.
fn six_batches() -> Log {
    let mut log = Log::new();
    for (created, key) in (0..).zip(["a", "b", "c", "d", "e"]) {
        log.push(key, Some(&row(created)), created + 1);
    }
    log.push("b", None, 5);
    log
}

fn keys_of(salvaged: &Salvaged) -> Vec<String> {
    let mut keys: Vec<_> = salvaged.rows.keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
    keys.sort();
    keys
}

fn is_nothing(salvaged: &Salvaged) -> bool {
    salvaged.prefix_changes == 0 && salvaged.later_changes == 0
}

fn ended(salvaged: &Salvaged, key: &str) -> Option<u64> {
    salvaged.ended.get(key.as_bytes()).copied()
}

#[test]
fn batches_before_the_damage_are_kept_and_later_batches_only_end_sessions() {
    let mut log = six_batches();
    log.damage(2);
    let found = log.salvage();
    assert_eq!(keys_of(&found), ["a", "b"]);
    assert_eq!((found.prefix_changes, found.later_changes, found.is_data_ahead), (2, 3, false));
    assert_eq!(ended(&found, "b"), Some(5), "its deletion stands behind the damage");
    // The only known fact about earlier sessions of these ids is that they have ended.
    assert_eq!((ended(&found, "d"), ended(&found, "e"), ended(&found, "a")), (Some(3), Some(4), None));
    assert_eq!(found.next, 5);
    assert_eq!(found.lost_bytes, (log.places[3] - log.places[2]) as u64);
}

/// The data file may have deleted the sessions that the log creates. Replaying the log would bring them back.
#[test]
fn a_prefix_older_than_the_data_file_only_ends_sessions() {
    let mut log = six_batches();
    log.push("a", None, 5);
    log.push("f", Some(&row(5)), 6);
    log.entry.durable = log.at.lsn;
    log.damage(7);
    let found = log.salvage();
    assert_eq!(keys_of(&found), <[&str; 0]>::default());
    assert!(found.is_data_ahead);
    assert_eq!((ended(&found, "a"), ended(&found, "b"), ended(&found, "c")), (Some(5), Some(5), Some(2)));
    assert_eq!(found.prefix_changes, 7);
}

#[test]
fn a_prefix_as_new_as_the_data_file_is_replayed() {
    let mut log = six_batches();
    log.entry.durable = (log.places[4] - FILE_HEADER_BYTES as usize) as u64;
    log.damage(4);
    let found = log.salvage();
    assert_eq!((keys_of(&found).len(), found.is_data_ahead), (4, false));
    log.damage(3);
    assert!(log.salvage().is_data_ahead);
}

#[test]
fn a_damaged_first_page_hides_no_batches() {
    for at in [0, 8, 13, 20, 33] {
        let mut log = six_batches();
        log.file.bytes[at] ^= 1;
        let found = log.salvage();
        assert_eq!((keys_of(&found).len(), found.prefix_changes), (5, 6), "byte {at}");
    }
}

#[test]
fn a_truncated_file_is_read_up_to_its_end() {
    let mut log = six_batches();
    log.file.bytes.truncate(log.places[3] + 7);
    assert_eq!(keys_of(&log.salvage()), ["a", "b", "c"]);
    for len in [0, 1, 39, 4095, 4096, 4097] {
        log.file.bytes.truncate(len);
        assert!(is_nothing(&log.salvage()), "{len} bytes");
    }
}

#[test]
fn unreadable_pages_count_as_damage() {
    let mut log = Log::new();
    for created in 0..100 {
        log.push(&format!("{created:03}"), Some(&row(created)), created + 1);
    }
    log.file.unreadable = vec![2];
    let found = log.salvage();
    let before = log.places.iter().filter(|place| **place < 2 * PAGE).count() as u64;
    let behind = log.places.iter().filter(|place| **place >= 3 * PAGE).count() as u64;
    assert_eq!((found.prefix_changes, found.later_changes), (before - 1, behind));
    log.file.unreadable = vec![0];
    assert_eq!(log.salvage().prefix_changes, 100);
}

#[test]
fn batches_of_another_log_are_ignored() {
    let mut log = six_batches();
    log.entry.id = OTHER;
    assert!(is_nothing(&log.salvage()));
    log.file.bytes[..FILE_HEADER_BYTES as usize].copy_from_slice(&file_header(&OTHER, RING as u64));
    assert!(is_nothing(&log.salvage()));
}

/// The ring may contain rows from the previous lap. They are all in the data file.
#[test]
fn batches_before_the_applied_position_are_ignored() {
    let mut log = six_batches();
    log.entry.applied = log.at;
    log.entry.durable = log.at.lsn;
    let found = log.salvage();
    assert!(is_nothing(&found) && !found.is_data_ahead);
}

#[test]
fn any_bytes_are_survived() {
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for _ in 0..300 {
        let mut log = six_batches();
        for _ in 0..=random() % 20 {
            let at = random() % (FILE_HEADER_BYTES as usize + log.at.lsn as usize);
            log.file.bytes[at] = random() as u8;
        }
        log.file.bytes.truncate(random() % (2 * log.file.bytes.len()));
        log.entry.applied.lsn = [0, 8, 1 << 62, random() as u64][random() % 4];
        log.salvage();
    }
}
