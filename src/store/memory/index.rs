//! A flat hash table of handles.

/// A handle has this many bits, and is not 0.
pub(super) const HANDLE_BITS: u32 = 39;
const TAG_BITS: u32 = u64::BITS - HANDLE_BITS;
const HANDLE_MASK: u64 = (1 << HANDLE_BITS) - 1;

const FEWEST_SLOTS: usize = 8;

/// Handles by a hash, one word each: the hash's highest bits, the tag, over the handle.
///
/// Open addressing with linear probing. A search reads consecutive words, so that the cache misses once where tables
/// of pointers miss twice. What a handle stands for is not read but by who searches; handles of other hashes with the
/// same tag may be found, and the same hash may come more than once.
///
/// Tags say where words belong, so that growing needs no key: it goes through the words in order, some nanoseconds
/// each. It grows by a quarter or less, for the sake of memory: the load is between two thirds and five sixths.
#[derive(Default)]
pub(super) struct Index {
    /// 0 is an empty slot. There is always one, if there are any.
    slots: Vec<u64>,
    len: usize,
}

/// The part of a hash that an index keeps.
pub(super) fn tag(hash: u64) -> u64 {
    hash >> HANDLE_BITS
}

impl Index {
    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The handles whose hashes have this tag.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> impl Iterator<Item = u64> {
        let mut at = self.home(tag(hash));
        let words = std::iter::from_fn(move || {
            let word = *self.slots.get(at)?;
            at = self.after(at);
            (word != 0).then_some(word)
        });
        words.filter(move |word| tag(*word) == tag(hash)).map(|word| word & HANDLE_MASK)
    }

    /// Adds a handle that is not there with this hash.
    pub(super) fn insert(&mut self, hash: u64, handle: u64) {
        debug_assert!(handle != 0 && handle <= HANDLE_MASK);
        if (self.len + 1) * 6 > self.slots.len() * 5 {
            self.resize(next_size(self.slots.len()));
        }
        self.place(word(hash, handle));
        self.len += 1;
    }

    /// Puts a handle in the place of another.
    pub(super) fn replace(&mut self, hash: u64, old: u64, new: u64) {
        if let Some(at) = self.slot_of(word(hash, old)) {
            self.slots[at] = word(hash, new);
        }
    }

    /// Removes a handle, and tells whether it was there.
    pub(super) fn remove(&mut self, hash: u64, handle: u64) -> bool {
        let Some(at) = self.slot_of(word(hash, handle)) else { return false };
        self.empty(at);
        self.len -= 1;
        let slots = self.slots.len();
        if self.len == 0 {
            self.slots = Vec::new();
        } else if self.len < slots / 8 && slots > 8 * FEWEST_SLOTS {
            self.resize(slots / 4);
        }
        true
    }

    /// Empties a slot, and moves back into it what was pushed on by it: no search meets a gap on its way.
    fn empty(&mut self, at: usize) {
        let (mut gap, mut at) = (at, self.after(at));
        while self.slots[at] != 0 {
            let home = self.home(tag(self.slots[at]));
            if self.distance(home, at) >= self.distance(gap, at) {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.slots[gap] = 0;
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        for word in old.into_iter().filter(|word| *word != 0) {
            self.place(word);
        }
    }

    fn place(&mut self, word: u64) {
        let mut at = self.home(tag(word));
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = word;
    }

    fn slot_of(&self, word: u64) -> Option<usize> {
        let mut at = self.home(tag(word));
        loop {
            match *self.slots.get(at)? {
                0 => return None,
                other if other == word => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// Where a tag belongs. A multiplication takes it to any number of slots, a power of two or not.
    fn home(&self, tag: u64) -> usize {
        ((u128::from(tag) * self.slots.len() as u128) >> TAG_BITS) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// How many steps a search makes from one slot to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

/// 4, 5, 6 or 7 times a power of two: the sizes that allocators have as well.
fn next_size(slots: usize) -> usize {
    if slots < FEWEST_SLOTS { FEWEST_SLOTS } else { slots + (1 << (slots.ilog2() - 2)) }
}

fn word(hash: u64, handle: u64) -> u64 {
    hash & !HANDLE_MASK | handle
}
