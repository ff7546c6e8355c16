//! The address of a record: its slot, and with its shard a session ref.

use super::index::VALUE_BITS;
use super::size_class::{CHUNK_WORDS, OFFSET_BITS};

/// The most chunks that a `Slot` can number. That is enough for 10^9 sessions with a chunk each, in 128 shards.
pub(super) const MAX_CHUNKS: usize = (1 << (u32::BITS - OFFSET_BITS)) - 1;

/// The slot of a record in a slab: the number of its chunk from 1 on, and the word in it.
///
/// It is valid only under a lock of its shard. Without the lock, the record may be removed and another record may get the
/// slot. `Record::created` distinguishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) fn new(chunk: u32, word: usize) -> Self {
        Self((chunk + 1) << OFFSET_BITS | word as u32)
    }

    /// Not 0.
    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn chunk(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize - 1
    }

    pub(super) fn word(self) -> usize {
        self.0 as usize % CHUNK_WORDS
    }
}

/// The shard and the slot of a session, in [`VALUE_BITS`] bits: the user index has one word for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionRef(u64);

/// The most shards that a `SessionRef` can number.
pub(super) const MAX_SHARDS: usize = 1 << (VALUE_BITS - u32::BITS);

impl SessionRef {
    pub(super) fn new(shard: usize, slot: Slot) -> Self {
        Self((shard as u64) << u32::BITS | u64::from(slot.to_bits()))
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn shard(self) -> usize {
        (self.0 >> u32::BITS) as usize
    }

    pub(super) fn slot(self) -> Slot {
        Slot::from_bits(self.0 as u32)
    }
}
