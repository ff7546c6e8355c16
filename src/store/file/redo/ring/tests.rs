use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const ID: LogId = *b"the id of a log.";
const OTHER: LogId = *b"the id of other.";
const SIZE: u64 = 64 << 10;

/// A log in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<Vec<u8>>>>);

impl Memory {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.0.lock().as_mut().unwrap());
    }
}

impl LogFile for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.change(|all| bytes.copy_from_slice(&all[at as usize..at as usize + bytes.len()]));
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(|all| all[at as usize..at as usize + bytes.len()].copy_from_slice(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

impl LogFiles for Memory {
    fn open(&self) -> Result<Option<Arc<dyn LogFile>>> {
        let has_file = self.0.lock().is_some();
        Ok(has_file.then(|| Arc::new(self.clone()) as Arc<dyn LogFile>))
    }

    fn prepare(&self, len: u64) -> Result<()> {
        *self.0.lock() = Some(vec![0; len as usize]);
        Ok(())
    }

    fn install(&self) -> Result<Arc<dyn LogFile>> {
        Ok(Arc::new(self.clone()))
    }

    fn sync_name(&self) -> Result<()> {
        Ok(())
    }

    fn path(&self) -> PathBuf {
        "redo.log".into()
    }
}

/// A row of a given length, identified by its `created`.
fn row(number: u64, len: usize) -> Vec<u8> {
    let mut row = vec![0; 24 + len];
    row[16..24].copy_from_slice(&number.to_le_bytes());
    row
}

fn append(ring: &Ring, number: u64, len: usize) {
    let mut batch = BatchWriter::new(len);
    batch.push(&number.to_be_bytes(), Some(&row(number, len)));
    ring.append(batch, number + 1).unwrap();
    ring.enter();
}

/// The numbers of the recovered rows, and the next `created`.
fn recover(memory: &Memory, entry: &LogEntry) -> Result<(Vec<u64>, u64)> {
    let mut found = Vec::new();
    let recovered = Ring::recover(memory, entry, |_, key, row| {
        let number = u64::from_be_bytes(key.try_into().unwrap());
        assert_eq!(row.unwrap()[16..24], number.to_le_bytes());
        found.push(number);
    })?;
    Ok((found, recovered.next))
}

fn begin(memory: &Memory) -> Ring {
    Ring::begin(memory, ID, SIZE, NextFile::Old).unwrap()
}

fn refusal(memory: &Memory, entry: &LogEntry) -> String {
    let error = recover(memory, entry).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_CORRUPT");
    error.to_string()
}

#[test]
fn recovery_reads_all_batches_after_the_applied_position() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(ring.applied());
    for number in 0..5 {
        append(&ring, number, 100);
    }
    ring.sync().unwrap();
    let middle = ring.entered();
    append(&ring, 5, 100);
    assert_eq!(recover(&memory, &start), Ok(((0..6).collect(), 6)));
    assert_eq!(recover(&memory, &ring.entry(middle)), Ok((vec![5], 6)));
}

#[test]
fn a_reused_file_has_no_batches_of_the_previous_log() {
    let memory = Memory::default();
    append(&begin(&memory), 1, 100);
    let ring = Ring::begin(&memory, OTHER, SIZE, NextFile::Old).unwrap();
    assert_eq!(recover(&memory, &ring.entry(Position::default())), Ok((vec![], 0)));
}

#[test]
fn a_torn_batch_ends_the_log_unless_it_was_synced() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(Position::default());
    append(&ring, 0, 100);
    ring.sync().unwrap();
    let end = ring.written();
    append(&ring, 1, 100);
    memory.change(|bytes| bytes[(FILE_HEADER_BYTES + end) as usize + 60] ^= 1);
    assert_eq!(recover(&memory, &start), Ok((vec![0], 1)));
    // A later batch says that it was synced.
    ring.sync().unwrap();
    append(&ring, 2, 100);
    assert!(refusal(&memory, &start).contains("a part that was on disk is gone"));
    // The data file may say that too.
    let later = LogEntry { durable: ring.written(), ..start };
    assert!(refusal(&memory, &later).contains("a part that was on disk is gone"));
}

#[test]
fn the_log_of_another_store_is_rejected() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let entry = ring.entry(Position::default());
    assert!(refusal(&memory, &LogEntry { id: OTHER, ..entry }).contains("belongs to another"));
    memory.change(|bytes| bytes.truncate(bytes.len() - 1));
    assert!(refusal(&memory, &entry).contains("its length"));
    memory.change(|bytes| bytes[20] ^= 1);
    assert!(refusal(&memory, &entry).contains("first page is damaged"));
    memory.change(|bytes| bytes[0] ^= 1);
    assert!(refusal(&memory, &entry).contains("not a redo log"));
    *memory.0.lock() = None;
    assert!(refusal(&memory, &entry).contains("missing"));
}

/// A client may store any bytes and guess LSNs.
#[test]
fn batch_headers_inside_a_session_are_ignored() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(Position::default());
    let mut bytes = row(7, 0);
    for lsn in (0..SIZE).step_by(64) {
        let head = BatchHeader { lsn, durable: 1 << 40, next: 9, ..BatchHeader::default() };
        let (forged, _) = BatchWriter::new(0).finish(&OTHER, head);
        bytes.extend_from_slice(&forged);
    }
    let mut batch = BatchWriter::new(bytes.len());
    batch.push(&7_u64.to_be_bytes(), Some(&bytes));
    ring.append(batch, 8).unwrap();
    assert_eq!(recover(&memory, &start), Ok((vec![7], 8)));
}

#[test]
fn a_failed_log_rejects_all_writes() {
    let ring = begin(&Memory::default());
    ring.mark_failed();
    assert!(ring.append(BatchWriter::new(0), 0).is_err() && ring.sync().is_err() && ring.has_failed());
}

/// Recovery depends on these bytes.
#[test]
fn a_batch_has_exactly_these_bytes() {
    let mut batch = BatchWriter::new(0);
    batch.push(b"key", Some(&[0; 24]));
    batch.push(b"gone", None);
    let head = BatchHeader {
        lsn: 0x1122,
        before: 0x3344,
        durable: 0x55,
        next: 0x66,
        salt: 0x77,
        ..BatchHeader::default()
    };
    let (bytes, crc) = batch.finish(&ID, head);
    let mut expected = Vec::new();
    expected.extend_from_slice(b"redo");
    expected.extend_from_slice(&crc.to_le_bytes());
    expected
        .extend_from_slice(b"\x60\0\0\0\x02\0\0\0\x22\x11\0\0\0\0\0\0\x55\0\0\0\0\0\0\0\x66\0\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x44\x33\0\0\x77\0\0\0");
    expected.extend_from_slice(b"\x18\0\0\0\x03\0key");
    expected.extend_from_slice(&[0; 24]);
    expected.extend_from_slice(b"\xff\xff\xff\xff\x04\0gone");
    expected.resize(96, 0);
    assert_eq!(bytes, expected);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&ID);
    hasher.update(&bytes[8..]);
    assert_eq!(hasher.finalize(), crc);
}

proptest! {
    /// Many laps, with batches of every size that fits, and stops at every position.
    #[test]
    fn laps_are_recovered(steps in prop::collection::vec((1_usize..12_000, any::<bool>()), 1..40)) {
        let memory = Memory::default();
        let ring = begin(&memory);
        let (mut applied, mut first, mut count) = (ring.applied(), 0, 0);
        for (len, is_applied) in steps {
            if (batch_bytes_of(len) as u64) > ring.room() || is_applied {
                applied = ring.entered();
                ring.apply(applied);
                first = count;
            }
            append(&ring, count, len);
            count += 1;
            prop_assert!(ring.used() <= SIZE);
            let found = recover(&memory, &ring.entry(applied));
            prop_assert_eq!(found, Ok(((first..count).collect(), count)));
        }
    }
}

fn batch_bytes_of(len: usize) -> usize {
    super::super::format::batch_bytes(6 + 8 + 24 + len)
}

/// A file whose first sync fails. A second sync succeeds if it starts before the first has ended.
#[derive(Default)]
struct FailingOnce(Mutex<usize>);

impl LogFile for FailingOnce {
    fn len(&self) -> io::Result<u64> {
        Ok(SIZE + FILE_HEADER_BYTES)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let nth = {
            let mut syncs = self.0.lock();
            *syncs += 1;
            *syncs
        };
        if nth > 1 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        Err(io::Error::from_raw_os_error(5))
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[test]
fn no_sync_succeeds_while_another_one_fails() {
    let ring = Ring::at(Arc::new(FailingOnce::default()), ID, SIZE, Position::default(), 0);
    let mut batch = BatchWriter::new(0);
    batch.push(b"key", None);
    ring.append(batch, 1).unwrap();
    let failed = std::thread::scope(|scope| {
        let syncs = [(); 2].map(|()| scope.spawn(|| ring.sync().is_err()));
        syncs.map(|sync| sync.join().unwrap())
    });
    assert_eq!((failed, ring.durable()), ([true; 2], 0));
}

#[test]
fn the_oldest_part_ends_with_a_batch_and_is_dropped_once_applied() {
    let ring = begin(&Memory::default());
    assert_eq!(ring.oldest_part(), ring.applied());
    append(&ring, 0, 100);
    assert_eq!(ring.oldest_part(), ring.entered());
    let mut ends = Vec::new();
    for number in 1..30 {
        append(&ring, number, 2000);
        ends.push(ring.entered());
    }
    let first = ring.oldest_part();
    assert!(ends.contains(&first) && (SIZE / PARTS..SIZE / PARTS + 2200).contains(&first.lsn), "{first:?}");
    // A position beyond the end of a part includes that part.
    let beyond = ends[ends.iter().position(|end| *end == first).unwrap() + 1];
    ring.apply(beyond);
    let second = ring.oldest_part();
    assert!(second.lsn > beyond.lsn && second.lsn < ring.entered().lsn, "{second:?}");
    ring.apply(ring.entered());
    assert_eq!(ring.oldest_part(), ring.entered());
}

#[test]
fn a_torn_batch_does_not_become_complete_after_a_recovery() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(Position::default());
    append(&ring, 0, 100);
    ring.sync().unwrap();
    append(&ring, 1, 100);
    let last = (FILE_HEADER_BYTES + ring.written()) as usize - 1;
    memory.change(|bytes| bytes[last] ^= 1);
    assert_eq!(recover(&memory, &start), Ok((vec![0], 1)));
    memory.change(|bytes| bytes[last] ^= 1);
    assert_eq!(recover(&memory, &start), Ok((vec![0], 1)));
}

/// A power loss takes the end of the log, except for a batch after a gap. The next process fills the gap with the
/// same bytes.
#[test]
fn a_lost_batch_does_not_follow_an_equal_new_one_after_a_recovery() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(Position::default());
    append(&ring, 0, 100);
    ring.sync().unwrap();
    let hole = (FILE_HEADER_BYTES + ring.written()) as usize;
    append(&ring, 1, 100);
    let end = (FILE_HEADER_BYTES + ring.written()) as usize;
    append(&ring, 2, 100);
    memory.change(|bytes| bytes[hole..end].fill(0));
    let recovered = Ring::recover(&memory, &start, |_, _, _| ()).unwrap().ring;
    append(&recovered, 1, 100);
    assert_eq!(recovered.written(), end as u64 - FILE_HEADER_BYTES);
    assert_eq!(recover(&memory, &start), Ok((vec![0, 1], 2)));
}

#[test]
fn the_end_mark_does_not_overwrite_undrained_batches() {
    let memory = Memory::default();
    let ring = begin(&memory);
    let start = ring.entry(ring.applied());
    let mut count = 0;
    while ring.room() >= 300 {
        append(&ring, count, 100);
        count += 1;
    }
    ring.sync().unwrap();
    for _ in 0..2 {
        assert_eq!(recover(&memory, &start), Ok(((0..count).collect(), count)));
    }
}
