//! One session in memory: some words of a slab.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::{LINE_BYTES, Line};
use super::slab;
use super::users::Handle;
use crate::clock::Millis;
use crate::codec;
use crate::error::Result;
use crate::session::{Content, Expiry, Session, SessionId, UserKey};
use crate::store::StoredSession;

/// What a session costs beside its record: a word in the table of sessions and one in the index by user, both at the
/// load of about 0.72 that they have on average, and its share of what tells of its chunk.
const SLOTS_BYTES: usize = 24;

const WORD: usize = size_of::<u64>();

/// The bits of an `Expiry`. The one word that is written under a shared lock.
const EXPIRES: usize = 0;
/// The number of the record's creation, over the length of its bytes.
const CREATED: usize = 1;
/// Where its bytes begin: the length of the packed id, the packed id, and the content as `codec` has it.
const BYTES: usize = 2;

/// A hundred thousand creations a second get there in 89 years.
const LEN_BITS: u32 = 16;
/// From here on the length is not that of the bytes, but says how many of the chunk's last word are not in use: the
/// record has the chunk for itself.
const WHOLE_CHUNK: usize = (1 << LEN_BITS) - WORD;

/// A session in a slab that is borrowed, and so under a lock of its shard.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(&'a [AtomicU64]);

/// A session that is not in a slab yet.
pub(super) struct Draft {
    pub(super) expires: Expiry,
    /// Counts the creations of a store: an older session has a smaller one. No two creations have the same one, and
    /// an update keeps it.
    pub(super) created: u64,
    bytes: Vec<u8>,
}

impl Draft {
    pub(super) fn new(session: &Session<'_>, created: u64) -> Self {
        let mut bytes = SPARE.take();
        bytes.clear();
        codec::write_len(session.id.as_bytes().len(), &mut bytes);
        bytes.extend_from_slice(session.id.as_bytes());
        codec::encode(&session.content, &mut bytes);
        Self { expires: session.expires, created, bytes }
    }

    pub(super) fn is_live(&self, now: Millis) -> bool {
        !self.expires.is_past(now)
    }

    pub(super) fn user(&self) -> Option<UserKey<'_>> {
        codec::decode_user(parts(&self.bytes).1).unwrap_or_default()
    }

    /// What the session would take, slots in the tables included.
    pub(super) fn cost(&self) -> usize {
        cost(self.bytes.len())
    }

    pub(super) fn line(&self, handle: Handle) -> Line {
        Line {
            created: self.created,
            handle,
            expires: self.expires.millis(),
            cost: self.cost() + LINE_BYTES,
            is_anonymous: self.user().is_none(),
        }
    }

    pub(super) fn words(&self) -> usize {
        words(self.bytes.len())
    }

    /// Writes the record to the beginning of these words.
    pub(super) fn write(&self, to: &mut [AtomicU64]) {
        let len = self.bytes.len();
        let len = if len < WHOLE_CHUNK { len } else { WHOLE_CHUNK + len.next_multiple_of(WORD) - len };
        *to[EXPIRES].get_mut() = self.expires.to_bits() as u64;
        *to[CREATED].get_mut() = self.created << LEN_BITS | len as u64;
        for (word, bytes) in to[BYTES..].iter_mut().zip(self.bytes.chunks(WORD)) {
            let mut padded = [0; WORD];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word.get_mut() = u64::from_ne_bytes(padded);
        }
    }
}

thread_local! {
    /// The bytes of the last draft, to be written over by the next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One large session should not pin its size for the life of the thread.
        self.bytes.truncate(0);
        self.bytes.shrink_to(4096);
        SPARE.set(std::mem::take(&mut self.bytes));
    }
}

impl<'a> Record<'a> {
    /// The record at the beginning of these words, which end with its chunk.
    pub(super) fn at(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Reads a word of a record of FluidAuth's that lies mostly in the next line of the cache, for the sake of the
    /// cache alone: both lines are on their way at once, though the first says where in the second to read.
    pub(super) fn prefetch(self) {
        const NEAR_THE_END: usize = 5;
        std::hint::black_box(self.0.get(NEAR_THE_END).map(|word| word.load(Ordering::Relaxed)));
    }

    pub(super) fn created(self) -> u64 {
        self.head(CREATED) >> LEN_BITS
    }

    pub(super) fn expires(self) -> Expiry {
        Expiry::from_bits(self.head(EXPIRES) as i64)
    }

    /// Moves an expiry that is still `before`; else tells what it is.
    pub(super) fn move_expires(self, before: Expiry, to: Expiry) -> std::result::Result<(), Expiry> {
        let (before, to) = (before.to_bits() as u64, to.to_bits() as u64);
        let moved = self.0[EXPIRES].compare_exchange(before, to, Ordering::Relaxed, Ordering::Relaxed);
        moved.map(drop).map_err(|bits| Expiry::from_bits(bits as i64))
    }

    pub(super) fn is_live(self, now: Millis) -> bool {
        !self.expires().is_past(now)
    }

    /// The packed id.
    pub(super) fn id(self) -> &'a [u8] {
        parts(self.bytes()).0
    }

    pub(super) fn user(self) -> Option<UserKey<'a>> {
        codec::decode_user(parts(self.bytes()).1).unwrap_or_default()
    }

    pub(super) fn content(self) -> Result<Content<'a>> {
        codec::decode(parts(self.bytes()).1)
    }

    pub(super) fn session_id(self) -> Result<SessionId> {
        SessionId::from_packed(self.id())
    }

    pub(super) fn to_stored(self) -> Result<StoredSession> {
        Ok(StoredSession::new(self.session_id()?, self.expires(), parts(self.bytes()).1))
    }

    pub(super) fn line(self, handle: Handle) -> Line {
        Line {
            created: self.created(),
            handle,
            expires: self.expires().millis(),
            cost: self.cost() + LINE_BYTES,
            is_anonymous: self.user().is_none(),
        }
    }

    /// What the session takes, slots in the tables included.
    pub(super) fn cost(self) -> usize {
        cost(self.bytes().len())
    }

    fn head(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    fn bytes(self) -> &'a [u8] {
        let words = &self.0[BYTES..];
        let all = size_of_val(words);
        let len = match (self.head(CREATED) & ((1 << LEN_BITS) - 1)) as usize {
            len @ ..WHOLE_CHUNK => len,
            unused => all - (unused - WHOLE_CHUNK),
        };
        assert!(len <= all);
        // SAFETY:
        // - These words are initialized memory of one allocation, borrowed for 'a, and `len` is within them.
        // - Nothing writes them meanwhile, though they are atomic: that takes an exclusive borrow (`Draft::write`);
        //   `move_expires` writes through a shared one, but only the first word, which is not among these.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) }
    }
}

/// The packed id and the content.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    codec::read_len(bytes).and_then(|(len, rest)| rest.split_at_checked(len)).unwrap_or_default()
}

fn words(bytes: usize) -> usize {
    BYTES + bytes.div_ceil(WORD)
}

fn cost(bytes: usize) -> usize {
    slab::cell_words(words(bytes)) * WORD + SLOTS_BYTES
}
