//! Where the records of a shard lie.

use std::sync::atomic::AtomicU64;

use super::record::{Draft, Record};

/// A chunk of cells has 4 KiB at most, so that what is not full yet is little in small stores too.
const CHUNK_WORDS: usize = 1 << OFFSET_BITS;
const OFFSET_BITS: u32 = 9;

/// As many as a `Chunk` has bits for.
const MOST_CELLS: usize = 64;
/// A record that would leave room for fewer in a chunk has a chunk of its own, of its size.
const FEWEST_CELLS: usize = 4;

/// As many as a `Place` can tell apart. A thousand million sessions too large for a cell do not get there.
const MOST_CHUNKS: usize = (1 << (u32::BITS - OFFSET_BITS)) - 1;

const NONE: u32 = u32::MAX;

/// Where a record lies in a slab: the number of its chunk from 1 on, and the word in it.
///
/// It is good as long as the record is not removed. Then another record may get the same one, so that whoever kept
/// it must not take what is there for the record that was. Records have a number of their own for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Records in cells of few sizes, the cells in chunks.
///
/// A record never moves. A free cell is used again by the next record of about its size; a chunk whose cells are all
/// free goes back to the allocator, save one of each size, which `give_back` returns too.
#[derive(Default)]
pub(super) struct Slab {
    /// The words of each chunk. Apart from what only changes need to know, so that they stay in the cache.
    words: Vec<Box<[AtomicU64]>>,
    chunks: Vec<Chunk>,
    /// The first chunk with free cells of each size.
    open: Heads,
    /// The numbers that chunks have left.
    vacant: Vec<u32>,
    len: usize,
}

struct Heads([u32; Size::COUNT]);

impl Default for Heads {
    fn default() -> Self {
        Self([NONE; Size::COUNT])
    }
}

struct Chunk {
    /// A bit for each free cell.
    free: u64,
    /// A bit for each cell; none where there is no chunk of this number.
    cells: u64,
    cell_words: u32,
    /// `None` for a chunk of one record.
    size: Option<Size>,
    /// Its neighbours among the chunks with free cells of its size.
    before: u32,
    after: u32,
}

/// A size of cells: the largest of which a certain number fit into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u8);

impl Size {
    /// Those of 64 to a chunk, by their words, and those of fewer, by their number.
    const COUNT: usize = CHUNK_WORDS / MOST_CELLS + MOST_CELLS;

    /// The smallest that a record fits into.
    fn of(words: usize) -> Option<Self> {
        let cells = CHUNK_WORDS / words;
        match cells {
            MOST_CELLS.. => Some(Self((words - 1) as u8)),
            FEWEST_CELLS.. => Some(Self((CHUNK_WORDS / MOST_CELLS + cells) as u8)),
            _ => None,
        }
    }

    /// How many cells a chunk has, and of how many words.
    fn shape(self) -> (usize, usize) {
        match usize::from(self.0).checked_sub(CHUNK_WORDS / MOST_CELLS) {
            None => (MOST_CELLS, usize::from(self.0) + 1),
            Some(cells) => (cells, CHUNK_WORDS / cells),
        }
    }
}

/// How many words of a slab a record of so many takes.
pub(super) fn cell_words(words: usize) -> usize {
    Size::of(words).map_or(words, |size| size.shape().1)
}

impl Place {
    fn new(chunk: u32, word: usize) -> Self {
        Self((chunk + 1) << OFFSET_BITS | word as u32)
    }

    /// Not 0.
    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn chunk(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize - 1
    }

    fn word(self) -> usize {
        self.0 as usize % CHUNK_WORDS
    }
}

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The record of a place.
    #[inline]
    pub(super) fn get(&self, place: Place) -> Record<'_> {
        Record::at(&self.words[place.chunk()][place.word()..])
    }

    /// The record of a place that may have been left, and be another record's by now.
    pub(super) fn try_get(&self, place: Place) -> Option<Record<'_>> {
        let chunk = self.chunks.get(place.chunk())?;
        let (cell, rest) = (place.word() as u32 / chunk.cell_words, place.word() as u32 % chunk.cell_words);
        let used = (chunk.cells & !chunk.free).checked_shr(cell).unwrap_or(0);
        let is_used = rest == 0 && used & 1 == 1;
        is_used.then(|| self.get(place))
    }

    pub(super) fn insert(&mut self, draft: &Draft) -> Place {
        let number = match Size::of(draft.words()) {
            Some(size) => match self.open.0[usize::from(size.0)] {
                NONE => self.add_chunk(Some(size), draft.words()),
                open => open,
            },
            None => self.add_chunk(None, draft.words()),
        };
        let chunk = &mut self.chunks[number as usize];
        let cell = chunk.free.trailing_zeros();
        chunk.free &= chunk.free - 1;
        let word = (cell * chunk.cell_words) as usize;
        if chunk.free == 0 {
            self.unlink(number);
        }
        self.len += 1;
        let place = Place::new(number, word);
        self.write(place, draft);
        place
    }

    /// Puts a record in the place of another, if it takes the same cell.
    pub(super) fn replace(&mut self, place: Place, draft: &Draft) -> bool {
        let chunk = &self.chunks[place.chunk()];
        let same = chunk.cell_words as usize == cell_words(draft.words());
        if same {
            self.write(place, draft);
        }
        same
    }

    pub(super) fn remove(&mut self, place: Place) {
        let number = place.chunk() as u32;
        let chunk = &mut self.chunks[place.chunk()];
        let was_full = chunk.free == 0;
        chunk.free |= 1 << (place.word() as u32 / chunk.cell_words);
        self.len -= 1;
        if was_full {
            self.link(number);
        }
        let chunk = &self.chunks[place.chunk()];
        // The last with free cells of its size stays: one session that comes and goes should not cost a chunk each time.
        let is_last = chunk.size.is_some() && (chunk.before, chunk.after) == (NONE, NONE);
        if chunk.free == chunk.cells && !is_last {
            self.drop_chunk(number);
        }
    }

    /// How many numbers of chunks there are to look at in a walk.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The places of a chunk's records.
    pub(super) fn places(&self, chunk: usize) -> impl Iterator<Item = Place> + use<> {
        let &Chunk { free, cells, cell_words, .. } = &self.chunks[chunk];
        let mut used = cells & !free;
        std::iter::from_fn(move || {
            let cell = (used != 0).then(|| used.trailing_zeros())?;
            used &= used - 1;
            Some(Place::new(chunk as u32, (cell * cell_words) as usize))
        })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.chunks()).flat_map(|chunk| self.places(chunk)).map(|place| self.get(place))
    }

    /// Gives back the memory of chunks that hold nothing, and of their numbers where most have none.
    pub(super) fn give_back(&mut self) {
        for head in 0..Size::COUNT {
            let number = self.open.0[head];
            if number != NONE && self.chunks[number as usize].is_empty() {
                self.drop_chunk(number);
            }
        }
        if self.vacant.len() > 64 && self.vacant.len() > self.chunks.len() / 2 {
            let last = self.chunks.iter().rposition(|chunk| chunk.cells != 0);
            let keep = last.map_or(0, |last| last + 1);
            self.chunks.truncate(keep);
            self.words.truncate(keep);
            // The lowest are used next, so that the others can be given back.
            self.vacant = (0..keep as u32).rev().filter(|&at| self.chunks[at as usize].cells == 0).collect();
            self.chunks.shrink_to_fit();
            self.words.shrink_to_fit();
        }
    }

    fn write(&mut self, place: Place, draft: &Draft) {
        draft.write(&mut self.words[place.chunk()][place.word()..]);
    }

    /// A chunk with free cells; of one cell if the record is too large for any size.
    fn add_chunk(&mut self, size: Option<Size>, words: usize) -> u32 {
        let (cells, cell_words) = size.map_or((1, words), |size| {
            let (cells, cell_words) = size.shape();
            // Fewer in a shard that has few records, or most of its cells would be free.
            ((self.len / 16).next_power_of_two().max(FEWEST_CELLS).min(cells), cell_words)
        });
        let all = u64::MAX >> (MOST_CELLS - cells);
        let chunk =
            Chunk { free: all, cells: all, cell_words: cell_words as u32, size, before: NONE, after: NONE };
        let words = (0..cells * cell_words).map(|_| AtomicU64::new(0)).collect();
        let number = match self.vacant.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                self.words[number as usize] = words;
                number
            }
            None => {
                assert!(self.chunks.len() < MOST_CHUNKS, "a shard has no number for another chunk");
                self.chunks.push(chunk);
                self.words.push(words);
                (self.chunks.len() - 1) as u32
            }
        };
        self.link(number);
        number
    }

    fn drop_chunk(&mut self, number: u32) {
        self.unlink(number);
        let chunk = &mut self.chunks[number as usize];
        (chunk.cells, chunk.free) = (0, 0);
        self.words[number as usize] = Box::default();
        self.vacant.push(number);
    }

    /// Enters a chunk as the first with free cells of its size.
    fn link(&mut self, number: u32) {
        let Some(size) = self.chunks[number as usize].size else { return };
        let first = std::mem::replace(&mut self.open.0[usize::from(size.0)], number);
        let chunk = &mut self.chunks[number as usize];
        (chunk.before, chunk.after) = (NONE, first);
        if first != NONE {
            self.chunks[first as usize].before = number;
        }
    }

    fn unlink(&mut self, number: u32) {
        let &Chunk { size, before, after, .. } = &self.chunks[number as usize];
        let Some(size) = size else { return };
        match before {
            NONE => self.open.0[usize::from(size.0)] = after,
            before => self.chunks[before as usize].after = after,
        }
        if after != NONE {
            self.chunks[after as usize].before = before;
        }
    }
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.free == self.cells
    }
}
