//! The memory for the records of a shard.

use std::sync::atomic::{AtomicU64, Ordering};

use super::last_use::LastUse;
use super::prefetch::prefetch;
use super::record::{HEAD_WORDS, NewRecord, Record};
use super::size_class::{MAX_SLOTS, SizeClass, slot_words};
use super::slot::{MAX_CHUNKS, Slot};

const NONE: u32 = u32::MAX;

/// `give_back` shortens the list of chunks if more than this many numbers, and more than half of all, are vacant.
const MANY_VACANT: usize = 64;

/// Chunks of slots. The slots of a chunk have one size, and a slot has one record.
///
/// A new record takes a free slot of its size class. A chunk without records goes back to the allocator. One such chunk of
/// each size class stays until `give_back`.
///
/// The [`Layout`] says what a slot holds, and whether a record may move to another one.
pub(super) struct Slab {
    layout: Layout,
    /// The words of each chunk. `chunks` is apart from them, because only changes need it: so more of `words` is in the cache.
    words: Vec<Box<[AtomicU64]>>,
    chunks: Vec<Chunk>,
    classes: [Class; SizeClass::COUNT],
    /// The numbers of `chunks` that have no chunk.
    vacant: Vec<u32>,
    len: usize,
    /// How many words all chunks have.
    chunk_words: usize,
}

/// What a slab does for the limits of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A slot has a record and nothing else. A record never moves.
    Plain,
    /// Each slot begins with the session's last use.
    WithUses,
    /// Likewise, and only the newest chunk of each size class has free slots: `remove` moves a record of that chunk to the
    /// slot that becomes free. So the slab takes little more than its records, whatever came and went.
    Dense,
}

/// The records of a size class.
#[derive(Clone, Copy)]
struct Class {
    /// The head of the list of chunks with free slots. In a dense slab the list has all chunks, the newest first.
    head: u32,
    records: u32,
}

struct Chunk {
    /// A bit for each free slot.
    free: u64,
    /// A bit for each slot. No bit is set if there is no chunk of this number.
    slots: u64,
    slot_words: u32,
    /// `None` for a chunk with a single slot for a large record.
    class: Option<SizeClass>,
    /// Its neighbours in the list of its class.
    before: u32,
    after: u32,
}

/// A record that `Slab::remove` has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: Slot,
    pub(super) to: Slot,
}

impl Slab {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            words: Vec::new(),
            chunks: Vec::new(),
            classes: [Class { head: NONE, records: 0 }; SizeClass::COUNT],
            vacant: Vec::new(),
            len: 0,
            chunk_words: 0,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes it has allocated.
    pub(super) fn allocated(&self) -> usize {
        self.chunk_words * size_of::<u64>()
            + self.words.capacity() * size_of::<Box<[AtomicU64]>>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.vacant.capacity() * size_of::<u32>()
    }

    /// The record of a slot.
    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Record<'_> {
        Record::at(&self.words[slot.chunk()][slot.word() + self.layout.head_words()..])
    }

    /// Requests what `remove` changes in the chunk of a slot.
    #[inline]
    pub(super) fn prefetch_chunk(&self, slot: Slot) {
        if let Some(chunk) = self.chunks.get(slot.chunk()) {
            prefetch(chunk);
        }
    }

    /// The last use of a session. [`Layout::Plain`] has none.
    pub(super) fn last_use(&self, slot: Slot) -> LastUse {
        match self.layout {
            Layout::Plain => LastUse::NONE,
            _ => LastUse::from_bits(self.words[slot.chunk()][slot.word()].load(Ordering::Relaxed)),
        }
    }

    /// Records a use of a session, under the lock of its shard, shared or not. Returns the last use, with the session's
    /// user.
    #[inline]
    pub(super) fn set_used(&self, slot: Slot, at: LastUse) -> LastUse {
        let at = at.with_user(self.last_use(slot).has_user());
        if self.layout != Layout::Plain {
            // Another thread may have recorded a later use.
            self.words[slot.chunk()][slot.word()].fetch_max(at.to_bits(), Ordering::Relaxed);
        }
        at
    }

    /// Whether a slot that was used once has a record.
    pub(super) fn is_used(&self, slot: Slot) -> bool {
        let Some(chunk) = self.chunks.get(slot.chunk()) else { return false };
        let (at, rest) = (slot.word() as u32 / chunk.slot_words, slot.word() as u32 % chunk.slot_words);
        let used = chunk.used().checked_shr(at).unwrap_or(0);
        rest == 0 && used & 1 == 1
    }

    pub(super) fn insert(&mut self, record: &NewRecord) -> Slot {
        let words = self.words_of(record);
        let class = SizeClass::of(words);
        let open = class.map(|class| self.classes[class.index()].head);
        let open = open.filter(|&head| head != NONE && self.chunks[head as usize].free != 0);
        let number = open.unwrap_or_else(|| self.add_chunk(class, words));
        let chunk = &mut self.chunks[number as usize];
        let at = chunk.free.trailing_zeros();
        chunk.free &= chunk.free - 1;
        let slot = Slot::new(number, (at * chunk.slot_words) as usize);
        if chunk.free == 0 && !self.is_dense() {
            self.unlink(number);
        }
        if let Some(class) = class {
            self.classes[class.index()].records += 1;
        }
        self.len += 1;
        self.write(slot, record);
        slot
    }

    /// Writes a record over another, if it takes a slot of the same size.
    pub(super) fn replace(&mut self, slot: Slot, record: &NewRecord) -> bool {
        // A slot has the size for its record, so the chunk need not be read.
        let words = self.get(slot).words() + self.layout.head_words();
        let same = slot_words(words) == slot_words(self.words_of(record));
        if same {
            self.write(slot, record);
        }
        same
    }

    /// Removes a record. A dense slab may move another one to its slot.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Moved> {
        let last = self.last_slot(slot).filter(|last| *last != slot);
        if let Some(from) = last {
            self.copy(from, slot);
        }
        self.free(last.unwrap_or(slot));
        if self.is_dense() && self.len == 0 {
            // The lists of chunks count too. Without this, evictions in a small store would free too few bytes.
            self.give_back();
        }
        last.map(|from| Moved { from, to: slot })
    }

    /// In a dense slab, the last used slot in the newest chunk of a slot's class.
    fn last_slot(&self, slot: Slot) -> Option<Slot> {
        let class = self.chunks[slot.chunk()].class.filter(|_| self.is_dense())?;
        let head = self.classes[class.index()].head;
        let chunk = &self.chunks[head as usize];
        let at = chunk.used().ilog2();
        Some(Slot::new(head, (at * chunk.slot_words) as usize))
    }

    fn copy(&mut self, from: Slot, to: Slot) {
        for word in 0..self.chunks[to.chunk()].slot_words as usize {
            let value = self.words[from.chunk()][from.word() + word].load(Ordering::Relaxed);
            *self.words[to.chunk()][to.word() + word].get_mut() = value;
        }
    }

    fn free(&mut self, slot: Slot) {
        let number = slot.chunk() as u32;
        let chunk = &mut self.chunks[slot.chunk()];
        let was_full = chunk.free == 0;
        chunk.free |= 1 << (slot.word() as u32 / chunk.slot_words);
        self.len -= 1;
        if let Some(class) = chunk.class {
            self.classes[class.index()].records -= 1;
        }
        if was_full && !self.is_dense() {
            self.link(number);
        }
        let chunk = &self.chunks[slot.chunk()];
        // The only chunk with free slots of its size stays: a session that comes and goes must not allocate one each time.
        let is_kept =
            !self.is_dense() && chunk.class.is_some() && (chunk.before, chunk.after) == (NONE, NONE);
        if chunk.is_empty() && !is_kept {
            self.drop_chunk(number);
        }
    }

    /// How many chunk numbers there are, vacant ones included.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The slots of a chunk's records.
    pub(super) fn slots(&self, chunk: usize) -> impl Iterator<Item = Slot> + use<> {
        let slot_words = self.chunks[chunk].slot_words;
        let mut used = self.chunks[chunk].used();
        std::iter::from_fn(move || {
            let at = (used != 0).then(|| used.trailing_zeros())?;
            used &= used - 1;
            Some(Slot::new(chunk as u32, (at * slot_words) as usize))
        })
    }

    pub(super) fn all_slots(&self) -> impl Iterator<Item = Slot> {
        (0..self.chunks()).flat_map(|chunk| self.slots(chunk))
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.all_slots().map(|slot| self.get(slot))
    }

    /// Frees the chunks without records, and shortens the lists of chunks if most numbers are vacant.
    pub(super) fn give_back(&mut self) {
        if self.len == 0 {
            *self = Self::new(self.layout);
            return;
        }
        for class in 0..SizeClass::COUNT {
            let number = self.classes[class].head;
            if number != NONE && self.chunks[number as usize].is_empty() {
                self.drop_chunk(number);
            }
        }
        if self.vacant.len() > MANY_VACANT && self.vacant.len() > self.chunks.len() / 2 {
            let last = self.chunks.iter().rposition(|chunk| chunk.slots != 0);
            let keep = last.map_or(0, |last| last + 1);
            self.chunks.truncate(keep);
            self.words.truncate(keep);
            // The lowest numbers are taken first, so that the lists can be shortened again.
            self.vacant = (0..keep as u32).rev().filter(|&at| self.chunks[at as usize].slots == 0).collect();
            self.chunks.shrink_to_fit();
            self.words.shrink_to_fit();
        }
    }

    fn write(&mut self, slot: Slot, record: &NewRecord) {
        let head = self.layout.head_words();
        let words = &mut self.words[slot.chunk()][slot.word()..];
        if head > 0 {
            *words[0].get_mut() = record.last_use.to_bits();
        }
        record.write(&mut words[head..]);
    }

    /// How many words of a slot a record needs.
    fn words_of(&self, record: &NewRecord) -> usize {
        record.words() + self.layout.head_words()
    }

    fn is_dense(&self) -> bool {
        self.layout == Layout::Dense
    }

    /// Adds a chunk with free slots. A record that is too large for any class gets a chunk with one slot.
    fn add_chunk(&mut self, class: Option<SizeClass>, words: usize) -> u32 {
        let (slots, slot_words) = class.map_or((1, slot_words(words)), |class| {
            let records = self.classes[class.index()].records as usize;
            (class.slots_of_next_chunk(records), class.slot_words())
        });
        let all = u64::MAX >> (MAX_SLOTS - slots);
        let chunk =
            Chunk { free: all, slots: all, slot_words: slot_words as u32, class, before: NONE, after: NONE };
        let words: Box<[AtomicU64]> = (0..slots * slot_words).map(|_| AtomicU64::new(0)).collect();
        self.chunk_words += words.len();
        let number = match self.vacant.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                self.words[number as usize] = words;
                number
            }
            None => {
                assert!(self.chunks.len() < MAX_CHUNKS, "a shard has no number for another chunk");
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
        (chunk.slots, chunk.free) = (0, 0);
        self.chunk_words -= self.words[number as usize].len();
        self.words[number as usize] = Box::default();
        self.vacant.push(number);
    }

    /// Makes a chunk the head of its class.
    fn link(&mut self, number: u32) {
        let Some(class) = self.chunks[number as usize].class else { return };
        let first = std::mem::replace(&mut self.classes[class.index()].head, number);
        let chunk = &mut self.chunks[number as usize];
        (chunk.before, chunk.after) = (NONE, first);
        if first != NONE {
            self.chunks[first as usize].before = number;
        }
    }

    fn unlink(&mut self, number: u32) {
        let &Chunk { class, before, after, .. } = &self.chunks[number as usize];
        let Some(class) = class else { return };
        match before {
            NONE => self.classes[class.index()].head = after,
            before => self.chunks[before as usize].after = after,
        }
        if after != NONE {
            self.chunks[after as usize].before = before;
        }
    }
}

impl Layout {
    /// How many words a slot has before its record.
    #[inline]
    fn head_words(self) -> usize {
        if self == Self::Plain { 0 } else { HEAD_WORDS }
    }
}

impl Chunk {
    /// A bit for each slot with a record.
    fn used(&self) -> u64 {
        self.slots & !self.free
    }

    fn is_empty(&self) -> bool {
        self.free == self.slots
    }
}
