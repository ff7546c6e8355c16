//! The sizes of a slab's slots.

/// The largest chunk with several slots: 4 KiB. So a small store leaves little unused, too.
pub(super) const CHUNK_WORDS: usize = 1 << OFFSET_BITS;
/// The bits of a word's number in its chunk.
pub(super) const OFFSET_BITS: u32 = 9;

/// A chunk has a bit for each slot.
pub(super) const MAX_SLOTS: usize = 64;
/// A record that would leave room for fewer in a chunk has a chunk of its own.
const MIN_SLOTS: usize = 4;

/// A chunk with several slots has at least 256 bytes. Otherwise its entry in the list of chunks would weigh too much.
const MIN_CHUNK_WORDS: usize = 32;

/// A new chunk adds about this part to its size class. So at most about this part of the class is unused.
const GROWTH: usize = 16;

/// At most this part of a chunk is in no slot.
const UNUSED_PART: usize = 8;

/// The classes with 64 slots in a chunk, by their words.
const SMALL: usize = CHUNK_WORDS / MAX_SLOTS;

/// A size of slots: the largest of which a certain number fit into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeClass(u8);

impl SizeClass {
    /// The classes with 64 slots in a chunk, by their words, and those with fewer slots, by the number of slots.
    pub(super) const COUNT: usize = SMALL + MAX_SLOTS;

    /// The smallest class that a record fits into; `None` for a record with a chunk of its own.
    pub(super) fn of(words: usize) -> Option<Self> {
        match CHUNK_WORDS / words {
            MAX_SLOTS.. => Some(Self((words - 1) as u8)),
            slots @ MIN_SLOTS.. => Some(Self((SMALL + slots) as u8)),
            _ => None,
        }
    }

    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    pub(super) fn slot_words(self) -> usize {
        self.shape().1
    }

    /// How many slots the next chunk of a class gets that has so many records.
    ///
    /// The first chunk is as small as possible, so that a lone session takes little. All other chunks are about a power of two
    /// in size, so that the allocator can give the memory of one class to another.
    pub(super) fn slots_of_next_chunk(self, records: usize) -> usize {
        let (max, words) = self.shape();
        let mut size = (records / GROWTH * words).next_power_of_two().max(MIN_CHUNK_WORDS);
        while records > 0 && size < CHUNK_WORDS && size % words > size / UNUSED_PART {
            size *= 2;
        }
        (size / words).clamp(1, max)
    }

    /// How many slots a full chunk has, and of how many words.
    fn shape(self) -> (usize, usize) {
        match usize::from(self.0).checked_sub(SMALL) {
            None => (MAX_SLOTS, usize::from(self.0) + 1),
            Some(slots) => (slots, CHUNK_WORDS / slots),
        }
    }
}

/// How many words a slab needs for a record of so many words.
pub(super) fn slot_words(words: usize) -> usize {
    SizeClass::of(words).map_or_else(|| chunk_of_one(words), SizeClass::slot_words)
}

/// As `slot_words`, for the only record of a slab.
pub(super) fn first_chunk_words(words: usize) -> usize {
    SizeClass::of(words)
        .map_or_else(|| chunk_of_one(words), |class| class.slots_of_next_chunk(0) * class.slot_words())
}

/// The size of a chunk for one record: 4, 5, 6 or 7 times a power of two, as the allocator rounds it up anyway. So
/// these words count, and a record may grow into them. Larger records need a chunk of exactly their size: see
/// `record::WHOLE_CHUNK`.
fn chunk_of_one(words: usize) -> usize {
    const MAX_ROUNDED: usize = 8192;
    if words > MAX_ROUNDED { words } else { words.next_multiple_of(1 << (words.ilog2() - 2)) }
}
