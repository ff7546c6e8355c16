//! The bytes of the redo log. `docs/file-format.md` describes them in tables.
//!
//! A log is a header of one page and a ring of batches. A batch is one commit: it is valid as a whole or not at all.
//! Its records are final states of rows, so replaying a batch twice changes nothing.
//!
//! An LSN counts all bytes that were ever written to the ring, padding included. So it determines the position in the
//! ring and the lap. The checksum of each batch starts with the log's random id. So bytes from an earlier log, or
//! bytes that a client has put into a session, are not taken for a batch.

use crc32fast::Hasher;

use crate::store::file::record::Record;

/// The size of the first page, which precedes the ring.
pub(in crate::store::file) const FILE_HEADER_BYTES: u64 = 4096;
/// The size of a batch header, which precedes the records.
pub(super) const BATCH_HEADER_BYTES: usize = 48;
/// Batches start at multiples of this number.
const ALIGNMENT: usize = 8;

const FILE_MAGIC: &[u8; 8] = b"FNSREDO\0";
const FILE_VERSION: u32 = 1;
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"redo");
/// Replaces the number of records in padding, which fills the rest of the ring.
const PADDING: u32 = u32::MAX;
/// Replaces the length of a deleted row.
const DELETED: u32 = u32::MAX;
/// The bytes of a record before its key.
const RECORD_HEADER_BYTES: usize = 6;

/// The id of a log. It is random and never reused.
pub(in crate::store::file) type LogId = [u8; 16];

/// A position between two batches: its LSN, and the checksum of the previous batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::file) struct Position {
    pub lsn: u64,
    pub crc: u32,
}

/// The store's entry about its log. It is in the unnamed database of the data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::file) struct LogEntry {
    pub id: LogId,
    /// Everything before this position is in the data file.
    pub applied: Position,
    /// Everything before this LSN was synced when the entry was written.
    pub durable: u64,
}

impl LogEntry {
    const BYTES: usize = 40;

    pub(in crate::store::file) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..24].copy_from_slice(&self.applied.lsn.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.applied.crc.to_le_bytes());
        bytes
    }

    pub(in crate::store::file) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        Some(Self {
            id: bytes[..16].try_into().ok()?,
            applied: Position { lsn: u64_at(bytes, 16), crc: u32_at(bytes, 32) },
            durable: u64_at(bytes, 24),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

/// A checksum that starts with the log's id.
pub(super) fn seeded(id: &LogId) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(id);
    hasher
}

/// The first page of a log with a ring of this size.
pub(super) fn file_header(id: &LogId, ring: u64) -> Vec<u8> {
    let mut page = vec![0; FILE_HEADER_BYTES as usize];
    page[..8].copy_from_slice(FILE_MAGIC);
    page[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    page[16..32].copy_from_slice(id);
    page[32..40].copy_from_slice(&ring.to_le_bytes());
    let mut hasher = Hasher::new();
    hasher.update(&page[16..40]);
    page[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    page
}

/// The id and the size of the ring in a first page. The error is the problem.
pub(super) fn parse_file_header(page: &[u8]) -> Result<(LogId, u64), String> {
    if page.len() < 40 || &page[..8] != FILE_MAGIC {
        return Err("it is not a redo log".into());
    }
    let version = u32_at(page, 8);
    if version != FILE_VERSION {
        return Err(format!(
            "it has version {version}, and this version of the package reads {FILE_VERSION}"
        ));
    }
    let mut hasher = Hasher::new();
    hasher.update(&page[16..40]);
    if hasher.finalize() != u32_at(page, 12) {
        return Err("its first page is damaged".into());
    }
    let mut id = LogId::default();
    id.copy_from_slice(&page[16..32]);
    Ok((id, u64_at(page, 32)))
}

/// The size of a row's record in a batch.
pub(super) fn record_bytes(key: &[u8], row: Option<&[u8]>) -> usize {
    RECORD_HEADER_BYTES + key.len() + row.map_or(0, <[u8]>::len)
}

/// The size of a batch whose records have this size.
pub(super) fn batch_bytes(records: usize) -> usize {
    (BATCH_HEADER_BYTES + records).next_multiple_of(ALIGNMENT)
}

/// An unfinished batch. It starts with room for the header.
pub(super) struct BatchWriter {
    bytes: Vec<u8>,
    count: u32,
}

/// The fields of a batch header.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// The size of the batch, this header included.
    pub len: usize,
    pub count: u32,
    pub lsn: u64,
    /// Everything before this LSN was synced when the batch was written.
    pub durable: u64,
    /// The next `created`.
    pub next: u64,
    /// The checksum of the previous batch.
    pub before: u32,
    /// A random number that changes after each recovery. Otherwise a new batch could equal a lost one at the same
    /// position, and the batches after the lost one would follow the new one.
    pub salt: u32,
    pub crc: u32,
}

impl BatchWriter {
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + capacity + ALIGNMENT);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Self { bytes, count: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the batch.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT)
    }

    /// Appends the state of a row. `None` means that the row was deleted.
    pub(super) fn push(&mut self, key: &[u8], row: Option<&[u8]>) {
        let len = row.map_or(DELETED, |row| row.len() as u32);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(row.unwrap_or_default());
        self.count += 1;
    }

    /// Writes the header, and returns the bytes of the batch and their checksum.
    pub(super) fn finish(mut self, id: &LogId, head: BatchHeader) -> (Vec<u8>, u32) {
        let len = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(len, 0);
        let crc = BatchHeader { len, count: self.count, ..head }.write(id, &mut self.bytes);
        (self.bytes, crc)
    }
}

impl BatchHeader {
    /// The bytes and the checksum of padding, which has no records and fills the rest of the ring.
    pub(super) fn padding(self, id: &LogId, len: u64) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        let crc = BatchHeader { len: len as usize, count: PADDING, ..self }.write(id, &mut bytes);
        (bytes, crc)
    }

    /// Writes the header to the start of a batch, and returns the checksum.
    fn write(&self, id: &LogId, batch: &mut [u8]) -> u32 {
        batch[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        batch[8..12].copy_from_slice(&(self.len as u32).to_le_bytes());
        batch[12..16].copy_from_slice(&self.count.to_le_bytes());
        batch[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        batch[24..32].copy_from_slice(&self.durable.to_le_bytes());
        batch[32..40].copy_from_slice(&self.next.to_le_bytes());
        batch[40..44].copy_from_slice(&self.before.to_le_bytes());
        batch[44..48].copy_from_slice(&self.salt.to_le_bytes());
        let mut hasher = seeded(id);
        hasher.update(&batch[8..]);
        let crc = hasher.finalize();
        batch[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the batch header at the start of these bytes, which extend to the end of the ring. `None` if there is no
    /// complete batch of this log, or if the header is not plausible.
    pub(super) fn parse(id: &LogId, bytes: &[u8], is_plausible: impl FnOnce(&Self) -> bool) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES || u32_at(bytes, 0) != BATCH_MAGIC {
            return None;
        }
        let head = Self {
            crc: u32_at(bytes, 4),
            len: u32_at(bytes, 8) as usize,
            count: u32_at(bytes, 12),
            lsn: u64_at(bytes, 16),
            durable: u64_at(bytes, 24),
            next: u64_at(bytes, 32),
            before: u32_at(bytes, 40),
            salt: u32_at(bytes, 44),
        };
        let is_sized = if head.is_padding() { head.len == bytes.len() } else { head.len <= bytes.len() };
        if head.len < BATCH_HEADER_BYTES
            || !is_sized
            || !head.len.is_multiple_of(ALIGNMENT)
            || !is_plausible(&head)
        {
            return None;
        }
        let summed = if head.is_padding() { BATCH_HEADER_BYTES } else { head.len };
        let mut hasher = seeded(id);
        hasher.update(&bytes[8..summed]);
        (hasher.finalize() == head.crc).then_some(head)
    }

    pub(super) fn is_padding(&self) -> bool {
        self.count == PADDING
    }

    /// Calls `visit` with the key and the row of each record in the batch with this header. Returns `false` if the
    /// records do not fit into the batch.
    pub(super) fn records<'b>(
        &self,
        batch: &'b [u8],
        mut visit: impl FnMut(&'b [u8], Option<&'b [u8]>),
    ) -> bool {
        if self.is_padding() {
            return true;
        }
        let mut rest = &batch[BATCH_HEADER_BYTES..self.len];
        for _ in 0..self.count {
            let Some((head, after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else { return false };
            let len = u32_at(head, 0);
            let key_len = usize::from(u16::from_le_bytes([head[4], head[5]]));
            let Some((key, after)) = after.split_at_checked(key_len) else { return false };
            let row_len = if len == DELETED { 0 } else { len as usize };
            let Some((row, after)) = after.split_at_checked(row_len) else { return false };
            let row = (len != DELETED).then_some(row);
            if row.is_some_and(|row| Record::parse(row).is_err()) {
                return false;
            }
            visit(key, row);
            rest = after;
        }
        true
    }
}
