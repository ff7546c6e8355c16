//! A flat hash table of small numbers.

use super::prefetch::prefetch;

/// A value has this many bits, and is not 0.
pub(super) const VALUE_BITS: u32 = 39;
const TAG_BITS: u32 = u64::BITS - VALUE_BITS;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

const MIN_SIZE: usize = 8;

/// The highest load, as a fraction: longer runs would make searches slow.
const MAX_LOAD: (usize, usize) = (5, 6);

/// An index with less than an eighth of its words in use gets a quarter of its size. Then it is half full, so that it
/// neither grows nor shrinks again soon.
const SHRINK_BELOW: usize = 8;
const SHRINK_BY: usize = 4;

/// Values by a hash, one word each. The word has the tag, which is the hash's highest bits, and the value.
///
/// Open addressing with linear probing: a search reads consecutive words and misses the cache once. A table of pointers
/// misses twice. The index does not know the keys. So `find` may also return values of other hashes with the same tag, and
/// the caller compares. A hash may have several values.
///
/// A tag determines where its word belongs, so growing needs no key. The index grows by a quarter at most, to save memory:
/// the load is between two thirds and five sixths.
#[derive(Default)]
pub(super) struct Index {
    /// 0 is an empty word. An index with words always has an empty one.
    words: Vec<u64>,
    len: usize,
}

/// The part of a hash that an index keeps.
pub(super) fn tag(hash: u64) -> u64 {
    hash >> VALUE_BITS
}

impl Index {
    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.words.len()
    }

    pub(super) fn allocated(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// Requests the words that a search or an insertion reads.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(word) = self.words.get(self.home(tag(hash))) {
            prefetch(word);
        }
    }

    /// The values whose hashes have this tag.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> impl Iterator<Item = u64> {
        let mut at = self.home(tag(hash));
        let run = std::iter::from_fn(move || {
            let word = *self.words.get(at)?;
            at = self.after(at);
            (word != 0).then_some(word)
        });
        run.filter(move |word| tag(*word) == tag(hash)).map(|word| word & VALUE_MASK)
    }

    /// The next values in the order of their tags, from a tag on: at least `count`, or all that are left. Returns them with
    /// their tags, and the tag at which the next page begins. `None` is the end.
    ///
    /// A tag does not change when the index grows or shrinks. So a value that stays in the index is on exactly one page.
    pub(super) fn page(&self, from: u64, count: usize) -> (Vec<(u64, u64)>, Option<u64>) {
        let is_wrapped = |at: usize, word: u64| self.home(tag(word)) > at;
        let (mut words, mut next) = (Vec::new(), None);
        for (at, &word) in self.words.iter().enumerate().skip(self.home(from)) {
            if word == 0 && words.len() >= count {
                // A word whose home is before a gap is before the gap too.
                next = Some(((at as u64) << TAG_BITS).div_ceil(self.words.len() as u64));
                break;
            }
            if word != 0 && tag(word) >= from && !is_wrapped(at, word) {
                words.push(word);
            }
        }
        if next.is_none() {
            let first_run = self.words.iter().copied().enumerate().take_while(|(_, word)| *word != 0);
            let wrapped = first_run.filter(|&(at, word)| tag(word) >= from && is_wrapped(at, word));
            words.extend(wrapped.map(|(_, word)| word));
        }
        words.sort_unstable();
        (words.into_iter().map(|word| (tag(word), word & VALUE_MASK)).collect(), next)
    }

    /// Adds a value that is not there with this hash.
    pub(super) fn insert(&mut self, hash: u64, value: u64) {
        debug_assert!(value != 0 && value <= VALUE_MASK);
        if (self.len + 1) * MAX_LOAD.1 > self.words.len() * MAX_LOAD.0 {
            self.resize(next_size(self.words.len()));
        }
        self.put(word(hash, value));
        self.len += 1;
    }

    /// Replaces a value of this hash by another.
    pub(super) fn replace(&mut self, hash: u64, old: u64, new: u64) {
        if let Some(at) = self.find_word(word(hash, old)) {
            self.words[at] = word(hash, new);
        }
    }

    /// Removes a value. Returns whether it was there.
    pub(super) fn remove(&mut self, hash: u64, value: u64) -> bool {
        let Some(at) = self.find_word(word(hash, value)) else { return false };
        self.empty(at);
        self.len -= 1;
        let size = self.words.len();
        if self.len == 0 {
            self.words = Vec::new();
        } else if self.len < size / SHRINK_BELOW && size > SHRINK_BELOW * MIN_SIZE {
            self.resize(size / SHRINK_BY);
        }
        true
    }

    /// Empties a word. Moves later words of the run back, so that no search stops at a gap too early.
    fn empty(&mut self, at: usize) {
        let (mut gap, mut at) = (at, self.after(at));
        while self.words[at] != 0 {
            let home = self.home(tag(self.words[at]));
            if self.distance(home, at) >= self.distance(gap, at) {
                self.words[gap] = self.words[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.words[gap] = 0;
    }

    fn resize(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.words, vec![0; size]);
        for word in old.into_iter().filter(|word| *word != 0) {
            self.put(word);
        }
    }

    fn put(&mut self, word: u64) {
        let mut at = self.home(tag(word));
        while self.words[at] != 0 {
            at = self.after(at);
        }
        self.words[at] = word;
    }

    fn find_word(&self, word: u64) -> Option<usize> {
        let mut at = self.home(tag(word));
        loop {
            match *self.words.get(at)? {
                0 => return None,
                other if other == word => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// Where a tag belongs, for any size of the index.
    fn home(&self, tag: u64) -> usize {
        ((u128::from(tag) * self.words.len() as u128) >> TAG_BITS) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.words.len() { 0 } else { at + 1 }
    }

    /// How many steps a search makes from one word to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.words.len() - from }
    }
}

/// The next of the sizes that are 4, 5, 6 or 7 times a power of two. Allocators have these sizes as well.
fn next_size(size: usize) -> usize {
    if size < MIN_SIZE { MIN_SIZE } else { size + (1 << (size.ilog2() - 2)) }
}

fn word(hash: u64, value: u64) -> u64 {
    hash & !VALUE_MASK | value
}
