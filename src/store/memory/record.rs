//! The record of a session: some words of a slab.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::last_use::LastUse;
use super::size_class::{first_chunk_words, slot_words};
use crate::clock::Millis;
use crate::codec;
use crate::error::Result;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::StoredSession;

/// The bytes of a session beside its record: a word in the index and one in the user index, both at their average load of
/// about 0.72, and its share of the list of chunks.
const INDEX_BYTES: usize = 24;

/// What a session takes in the eviction list: scans make entries of 16 bytes for an eighth of the sessions, in three orders.
pub(super) const EVICTION_BYTES: usize = 6;

/// What a store with limits keeps before a record: its last use.
pub(super) const HEAD_WORDS: usize = 1;

/// The bytes of the only session of a store beside its chunk, as measured: two indexes, the lists of chunks and candidates.
const INDEX_BYTES_ALONE: usize = 384;

const WORD: usize = size_of::<u64>();

/// The bits of an `Expiry`. No other word of a record is written under a shared lock.
const EXPIRES: usize = 0;
/// The creation number of the record.
const CREATED: usize = 1;
/// Where its bytes begin: their length in the format of `codec`, and then the length of the packed id, the packed id, and
/// the content in that format.
const BYTES: usize = 2;

/// The longest length of the bytes.
const MAX_LEN_BYTES: usize = 5;

/// The low bits of a creation number count the creations. The others are the time in milliseconds, up to the year 2527.
pub(super) const COUNT_BITS: u32 = 20;

/// The expiry of a session that `end_by_user` ended and whose record is still held. No date of JavaScript is so early.
const ENDED: Expiry = Expiry::from_bits(i64::MIN);

/// The time of that expiry.
pub(super) const LONG_PAST: Millis = i64::MIN >> 1;

/// A buffer that is longer than this is not kept for the next record of its thread.
const MAX_SPARE_BYTES: usize = 4096;

/// A record in a slab. It borrows the slab, so the caller holds a lock of the shard.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(&'a [AtomicU64]);

/// A record that is not in a slab yet.
pub(super) struct NewRecord {
    pub(super) expires: Expiry,
    /// The creation number: see [`creation_number`]. An update keeps it.
    pub(super) created: u64,
    pub(super) has_user: bool,
    /// Set where the record comes into the store.
    pub(super) last_use: LastUse,
    /// The record's bytes, from `start` on.
    bytes: Vec<u8>,
    start: usize,
}

/// The number of a creation, by its time and by how many there were before it in this store: an older session has a smaller
/// one. Two sessions have the same one only if both were created in one millisecond, and 2^20 others between them.
pub(super) fn creation_number(at: Millis, creations: u64) -> u64 {
    const MAX: u64 = u64::MAX >> COUNT_BITS;
    (at.max(0) as u64).min(MAX) << COUNT_BITS | creations & ((1 << COUNT_BITS) - 1)
}

/// When the session of a creation number was created.
pub(super) fn created_at(created: u64) -> Millis {
    (created >> COUNT_BITS) as Millis
}

impl NewRecord {
    pub(super) fn new(session: &Session<'_>, created: u64) -> Self {
        let mut bytes = SPARE.take();
        bytes.clear();
        bytes.extend_from_slice(&[0; MAX_LEN_BYTES]);
        codec::write_len(session.id.as_bytes().len(), &mut bytes);
        bytes.extend_from_slice(session.id.as_bytes());
        codec::encode(&session.content, &mut bytes);
        // The length comes first, in as many bytes as it needs. Here it is written to the end and then moved.
        let end = bytes.len();
        codec::write_len(end - MAX_LEN_BYTES, &mut bytes);
        let start = MAX_LEN_BYTES - (bytes.len() - end);
        bytes.copy_within(end.., start);
        bytes.truncate(end);
        Self {
            expires: session.expires,
            created,
            has_user: session.content.user.is_some(),
            last_use: LastUse::NONE,
            bytes,
            start,
        }
    }

    pub(super) fn is_live(&self, now: Millis) -> bool {
        !self.expires.is_past(now)
    }

    /// The packed id.
    pub(super) fn id(&self) -> &[u8] {
        parts(&self.bytes[MAX_LEN_BYTES..]).0
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        codec::decode_user(parts(&self.bytes[MAX_LEN_BYTES..]).1).unwrap_or_default()
    }

    /// The record's bytes, after their length.
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// About what the session takes in a store with limits, its words in the indexes included.
    pub(super) fn cost(&self) -> usize {
        cost(self.bytes().len())
    }

    /// What it takes as the only session of its store.
    pub(super) fn cost_alone(&self) -> usize {
        first_chunk_words(HEAD_WORDS + self.words()) * WORD + INDEX_BYTES_ALONE
    }

    pub(super) fn words(&self) -> usize {
        words(self.bytes().len())
    }

    /// Writes the record to the beginning of these words.
    pub(super) fn write(&self, to: &mut [AtomicU64]) {
        *to[EXPIRES].get_mut() = self.expires.to_bits() as u64;
        *to[CREATED].get_mut() = self.created;
        for (word, bytes) in to[BYTES..].iter_mut().zip(self.bytes().chunks(WORD)) {
            let mut padded = [0; WORD];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word.get_mut() = u64::from_ne_bytes(padded);
        }
    }
}

thread_local! {
    /// The buffer of the last new record, for the next one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Drop for NewRecord {
    fn drop(&mut self) {
        // One large session must not keep its buffer for the life of the thread.
        self.bytes.clear();
        self.bytes.shrink_to(MAX_SPARE_BYTES);
        SPARE.set(std::mem::take(&mut self.bytes));
    }
}

impl<'a> Record<'a> {
    /// The record at the beginning of these words. They end with its chunk.
    pub(super) fn at(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Reads a word near the end of a record of FluidAuth's shape, which is mostly in the next cache line. So the processor
    /// fetches both lines at once.
    pub(super) fn prefetch(self) {
        const NEAR_THE_END: usize = 5;
        std::hint::black_box(self.0.get(NEAR_THE_END).map(|word| word.load(Ordering::Relaxed)));
    }

    pub(super) fn created(self) -> u64 {
        self.head(CREATED)
    }

    pub(super) fn created_at(self) -> Millis {
        created_at(self.created())
    }

    pub(super) fn expires(self) -> Expiry {
        Expiry::from_bits(self.head(EXPIRES) as i64)
    }

    /// Replaces the expiry if it is still `before`.
    ///
    /// # Errors
    /// The current expiry, if it is another one.
    pub(super) fn move_expires(self, before: Expiry, to: Expiry) -> std::result::Result<(), Expiry> {
        let (before, to) = (before.to_bits() as u64, to.to_bits() as u64);
        let moved = self.0[EXPIRES].compare_exchange(before, to, Ordering::Relaxed, Ordering::Relaxed);
        moved.map(drop).map_err(|bits| Expiry::from_bits(bits as i64))
    }

    /// Ends a live session at once, under a shared lock. Its record stays until it is removed. Returns whether the
    /// session was live.
    pub(super) fn end(self, now: Millis) -> bool {
        let mut before = self.expires();
        while !before.is_past(now) {
            match self.move_expires(before, ENDED) {
                Ok(()) => return true,
                Err(moved) => before = moved,
            }
        }
        false
    }

    /// Whether `end` ended the session.
    pub(super) fn is_ended(self) -> bool {
        self.expires() == ENDED
    }

    pub(super) fn is_live(self, now: Millis) -> bool {
        !self.expires().is_past(now)
    }

    /// The packed id.
    #[inline]
    pub(super) fn id(self) -> &'a [u8] {
        parts(self.bytes()).0
    }

    pub(super) fn user(self) -> Option<UserKey<'a>> {
        codec::decode_user(parts(self.bytes()).1).unwrap_or_default()
    }

    #[inline]
    pub(super) fn content(self) -> Result<Content<'a>> {
        codec::decode(parts(self.bytes()).1)
    }

    pub(super) fn session_id(self) -> Result<SessionId> {
        SessionId::from_packed(self.id())
    }

    /// A copy. `expires` is what the caller read and found live: another thread may move it under a shared lock.
    pub(super) fn to_stored(self, expires: Expiry) -> Result<StoredSession> {
        Ok(StoredSession::new(self.session_id()?, expires, parts(self.bytes()).1))
    }

    /// As `to_stored`, with the time of the creation.
    pub(super) fn to_dated(self, expires: Expiry) -> Result<StoredSession> {
        self.to_stored(expires).map(|session| session.with_creation(Some(self.created_at())))
    }

    /// About what the session takes in a store with limits, its words in the indexes included.
    pub(super) fn cost(self) -> usize {
        let (start, len) = self.range();
        cost(start + len)
    }

    pub(super) fn words(self) -> usize {
        let (start, len) = self.range();
        words(start + len)
    }

    #[inline]
    fn head(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    /// The start of the record's bytes, after their length, and that length.
    #[inline]
    fn range(self) -> (usize, usize) {
        let first = self.head(BYTES).to_ne_bytes();
        // The length is in the first word. The words after it may belong to other records.
        codec::read_len(&first).map_or((0, 0), |(len, rest)| (WORD - rest.len(), len))
    }

    #[inline]
    fn bytes(self) -> &'a [u8] {
        let words = &self.0[BYTES..];
        let (start, len) = self.range();
        assert!(start + len <= size_of_val(words));
        // SAFETY:
        // - These words are initialized memory of one allocation, borrowed for 'a, and the bytes are within them.
        // - Nothing writes them during 'a, though they are atomic. `NewRecord::write` takes an exclusive borrow.
        //   `move_expires` writes through a shared one, but only the first word of a record, which is not among these.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>().add(start), len) }
    }
}

/// The packed id and the content.
#[inline]
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    codec::read_len(bytes).and_then(|(len, rest)| rest.split_at_checked(len)).unwrap_or_default()
}

fn words(bytes: usize) -> usize {
    BYTES + bytes.div_ceil(WORD)
}

fn cost(bytes: usize) -> usize {
    slot_words(HEAD_WORDS + words(bytes)) * WORD + INDEX_BYTES + EVICTION_BYTES
}
