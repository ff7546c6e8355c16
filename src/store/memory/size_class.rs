//! Which sizes the slots of a slab have.

/// The largest chunk of several slots: 4 KiB. So little is unused in small stores too.
pub(super) const CHUNK_WORDS: usize = 1 << OFFSET_BITS;
/// As many bits as tell the words of a chunk apart.
pub(super) const OFFSET_BITS: u32 = 9;

/// As many as a chunk has bits for.
pub(super) const MAX_SLOTS: usize = 64;
/// A record that would leave room for fewer in a chunk has a chunk of its own.
const MIN_SLOTS: usize = 4;

/// A chunk of several slots has at least 256 bytes, or what describes it would be large beside it.
const MIN_CHUNK_WORDS: usize = 32;

/// A new chunk is about this part of its size class. So about this part of the class is unused at most.
const GROWTH: usize = 16;

/// A chunk leaves at most this part of its size to no slot.
const UNUSED_PART: usize = 8;

/// Classes of 64 slots to a chunk, by their words.
const SMALL: usize = CHUNK_WORDS / MAX_SLOTS;

/// A size of slots: the largest of which a certain number fit into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeClass(u8);

impl SizeClass {
    /// Those of 64 slots to a chunk, by their words, and those of fewer, by their number.
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

    /// How many slots the next chunk has in a class that holds so many records.
    ///
    /// The first is as small as possible, so that a lone session takes little. Other chunks of all classes have few
    /// sizes, powers of two: what one class frees, the allocator gives to another.
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

/// How many words of a slab a record of so many takes.
pub(super) fn slot_words(words: usize) -> usize {
    SizeClass::of(words).map_or_else(|| chunk_of_one(words), SizeClass::slot_words)
}

/// How many words of a slab such a record takes if it holds no other.
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
