//! Sets of the blocks of one piece.

use std::ops::Range;

use smallvec::SmallVec;

/// Bits of a word.
const WORD_LEN: u32 = u64::BITS;

/// A set of blocks. Pieces of up to 1 MiB fit without an allocation.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    words: SmallVec<[u64; 1]>,
}

/// Blocks that follow each other, by their indices.
pub(super) type Runs = SmallVec<[Range<u32>; 4]>;

impl Blocks {
    /// The empty set for a piece of `count` blocks.
    pub(super) fn none(count: u32) -> Self {
        Self { words: SmallVec::from_elem(0, count.div_ceil(WORD_LEN) as usize) }
    }

    /// Whether the block is in the set. Blocks that the piece does not have are not.
    pub(super) fn contains(&self, block: u32) -> bool {
        let word = self.words.get((block / WORD_LEN) as usize);
        word.is_some_and(|word| word & (1 << (block % WORD_LEN)) != 0)
    }

    /// Adds a block; whether it was not there yet.
    pub(super) fn insert(&mut self, block: u32) -> bool {
        let is_new = !self.contains(block);
        self.words[(block / WORD_LEN) as usize] |= 1 << (block % WORD_LEN);
        is_new
    }

    /// Takes a block out; whether it was there.
    pub(super) fn remove(&mut self, block: u32) -> bool {
        let was_there = self.contains(block);
        self.words[(block / WORD_LEN) as usize] &= !(1 << (block % WORD_LEN));
        was_there
    }

    /// Adds blocks.
    pub(super) fn insert_run(&mut self, run: Range<u32>) {
        for block in run {
            self.insert(block);
        }
    }

    /// Takes blocks out.
    pub(super) fn remove_run(&mut self, run: Range<u32>) {
        for block in run {
            self.remove(block);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The blocks of the set.
    pub(super) fn runs(&self) -> Runs {
        runs(self.words.iter().copied())
    }

    /// The blocks of both sets.
    pub(super) fn runs_in(&self, other: &Self) -> Runs {
        runs(self.words.iter().zip(&other.words).map(|(ours, theirs)| ours & theirs))
    }

    /// The blocks of this set that `other` does not have. Theirs may be shorter.
    pub(super) fn runs_outside(&self, other: &Self) -> Runs {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        runs(self.words.iter().zip(theirs).map(|(ours, theirs)| ours & !theirs))
    }
}

/// The ones in a row of words.
fn runs(words: impl Iterator<Item = u64>) -> Runs {
    let mut runs = Runs::new();
    for (base, mut word) in (0..).step_by(WORD_LEN as usize).zip(words) {
        while word != 0 {
            let first = word.trailing_zeros();
            let end = first + (word >> first).trailing_ones();
            word &= u64::MAX.checked_shl(end).unwrap_or(0);
            match runs.last_mut() {
                Some(last) if last.end == base + first => last.end = base + end,
                _ => runs.push(base + first..base + end),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_across_words() {
        let mut set = Blocks::none(200);
        for block in [0, 1, 5, 62, 63, 64, 65, 127, 128, 199] {
            assert!(set.insert(block));
        }
        assert!(!set.insert(5));
        assert_eq!(set.runs()[..], [0..2, 5..6, 62..66, 127..129, 199..200]);
        assert_eq!(set.count(), 10);
        let mut other = Blocks::none(200);
        other.insert_run(0..64);
        other.insert_run(190..191);
        assert_eq!(set.runs_in(&other)[..], [0..2, 5..6, 62..64]);
        assert_eq!(set.runs_outside(&other)[..], [64..66, 127..129, 199..200]);
        assert_eq!(other.runs()[..], [0..64, 190..191]);
        other.remove_run(10..64);
        assert_eq!(other.runs()[..], [0..10, 190..191]);
        assert!(set.remove(5) && !set.remove(5) && !set.contains(5));
    }
}
