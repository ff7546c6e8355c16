/// A set of page numbers below a bound.
pub(super) struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    pub(super) fn new(len: u64) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn get(&self, at: u64) -> bool {
        self.words.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Sets a bit, and returns whether it was set before.
    pub(super) fn set(&mut self, at: u64) -> bool {
        let Some(word) = self.words.get_mut((at / 64) as usize) else { return false };
        let bit = 1 << (at % 64);
        let was = *word & bit > 0;
        *word |= bit;
        was
    }

    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn count_common(&self, other: &Self) -> u64 {
        self.words.iter().zip(&other.words).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}
