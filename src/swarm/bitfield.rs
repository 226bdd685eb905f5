//! Which pieces somebody has: one bit a piece, in words, with the number of set bits at hand.
//!
//! Invariant: bits past the last piece are 0, and `ones` is the number of set bits.

use std::fmt;
use std::ops::Range;

use crate::meta::geometry::PieceIndex;

/// A set of the pieces of one torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// The empty set, for `len` pieces.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(WORD) as usize], len, ones: 0 }
    }

    /// The set of all `len` pieces.
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(WORD) as usize];
        if let Some(last) = words.last_mut() {
            *last = !spare(len);
        }
        Self { words, len, ones: len }
    }

    /// The set in the payload of a BITFIELD message (BEP 3): piece 0 is the high bit of the first byte. The spare bits
    /// behind the last piece should be zeros and are not in all clients, so they are not looked at.
    pub fn from_wire(bytes: &[u8], len: u32) -> Result<Self, BitfieldError> {
        let expected = len.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitfieldError::Length { got: bytes.len(), expected });
        }
        let (whole, rest) = bytes.as_chunks::<8>();
        let mut words: Vec<u64> = whole.iter().map(|&chunk| u64::from_be_bytes(chunk)).collect();
        if !rest.is_empty() {
            let mut chunk = [0; 8];
            chunk[..rest.len()].copy_from_slice(rest);
            words.push(u64::from_be_bytes(chunk));
        }
        if let Some(last) = words.last_mut() {
            *last &= !spare(len);
        }
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words, len, ones })
    }

    /// The payload of a BITFIELD message.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// How many pieces the torrent has.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether the torrent has no pieces at all. For an empty set see [`Bitfield::count_ones`].
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pieces are in the set.
    pub const fn count_ones(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is in the set.
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether the piece is in the set.
    pub fn get(&self, piece: PieceIndex) -> bool {
        self.words[piece.at() / WORD as usize] & bit(piece) != 0
    }

    /// Puts the piece in; false where it was in already.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        debug_assert!(piece.get() < self.len);
        let word = &mut self.words[piece.at() / WORD as usize];
        let changed = *word & bit(piece) == 0;
        *word |= bit(piece);
        self.ones += u32::from(changed);
        changed
    }

    /// Puts in all pieces of another set of the same torrent.
    pub fn set_all(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.ones = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// Takes the piece out; false where it was not in.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        let word = &mut self.words[piece.at() / WORD as usize];
        let changed = *word & bit(piece) != 0;
        *word &= !bit(piece);
        self.ones -= u32::from(changed);
        changed
    }

    /// The indices of the pieces in the set, in order.
    pub fn iter_ones(&self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(0..).flat_map(|(&word, at)| ones_of_word(word, at))
    }

    /// The bits, 64 pieces a word: piece `i` is bit `63 - i % 64` of word `i / 64`. Decode with [`ones_of_word`].
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The indices in `range` of the pieces that are in both sets, in order. The sets are of one torrent.
    pub fn common_in(&self, other: &Self, range: Range<u32>) -> impl Iterator<Item = u32> {
        debug_assert!(self.len == other.len && range.end <= self.len);
        let words = range.start / WORD..range.end.div_ceil(WORD);
        words
            .flat_map(|at| ones_of_word(self.words[at as usize] & other.words[at as usize], at))
            .skip_while(move |&index| index < range.start)
            .take_while(move |&index| index < range.end)
    }

    /// Whether some piece is in both sets, which are of one torrent.
    pub fn intersects(&self, other: &Self) -> bool {
        debug_assert_eq!(self.len, other.len);
        self.words.iter().zip(&other.words).any(|(ours, theirs)| ours & theirs != 0)
    }
}

/// The indices of the pieces whose bits are set in word number `at` of [`Bitfield::words`], in order.
pub fn ones_of_word(mut word: u64, at: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let leading = word.leading_zeros();
        word &= !(HIGH >> leading);
        Some(at * WORD + leading)
    })
}

/// Why the payload of a BITFIELD message is not a set of pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitfieldError {
    /// It has too few or too many bytes.
    Length {
        /// Its bytes.
        got: usize,
        /// The bytes for this torrent.
        expected: usize,
    },
}

impl fmt::Display for BitfieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { got, expected } => write!(f, "bitfield is {got} bytes long, expected {expected}"),
        }
    }
}

impl std::error::Error for BitfieldError {}

/// The bits of the last word that stand for no piece.
const fn spare(len: u32) -> u64 {
    match len % WORD {
        0 => 0,
        used => u64::MAX >> used,
    }
}

fn bit(piece: PieceIndex) -> u64 {
    HIGH >> (piece.get() % WORD)
}

/// Pieces a word.
const WORD: u32 = u64::BITS;

/// The bit of the first piece of a word.
const HIGH: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::meta::geometry::Geometry;

    #[test]
    fn the_first_piece_is_the_high_bit_of_the_first_byte() {
        let geometry = Geometry::new(11, 1).unwrap();
        let mut bits = Bitfield::new(11);
        assert!(bits.set(geometry.piece(0).unwrap()));
        assert!(bits.set(geometry.piece(10).unwrap()));
        assert_eq!(bits.to_wire(), [0b1000_0000, 0b0010_0000]);
        assert_eq!(Bitfield::from_wire(&[0x80, 0x20], 11), Ok(bits));
    }

    #[test]
    fn wrong_lengths_are_refused_and_spare_bits_left_out() {
        for (len, expected) in [(0, 0), (1, 1), (8, 1), (9, 2), (64, 8), (65, 9)] {
            for got in (0..12).filter(|&got| got != expected) {
                let error = BitfieldError::Length { got, expected };
                assert_eq!(Bitfield::from_wire(&vec![0; got], len), Err(error));
            }
            assert_eq!(Bitfield::from_wire(&vec![0; expected], len), Ok(Bitfield::new(len)));
            assert_eq!(Bitfield::from_wire(&vec![0xff; expected], len), Ok(Bitfield::full(len)));
        }
    }

    proptest! {
        #[test]
        fn common_pieces_are_those_of_both_sets(
            pairs in vec((any::<bool>(), any::<bool>()), 1..300),
            from in 0..300u32,
            count in 0..300u32,
        ) {
            let len = pairs.len() as u32;
            let geometry = Geometry::new(u64::from(len), 1).unwrap();
            let (mut ours, mut theirs) = (Bitfield::new(len), Bitfield::new(len));
            for (piece, &(in_ours, in_theirs)) in geometry.pieces().zip(&pairs) {
                let _ = in_ours && ours.set(piece);
                let _ = in_theirs && theirs.set(piece);
            }
            let range = from.min(len)..(from + count).min(len);
            let expected: Vec<u32> =
                range.clone().filter(|&index| pairs[index as usize] == (true, true)).collect();
            prop_assert_eq!(ours.common_in(&theirs, range).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn the_full_set_has_every_piece() {
        for len in [0, 1, 63, 64, 65, 200] {
            let full = Bitfield::full(len);
            assert!(full.is_full());
            assert!(full.iter_ones().eq(0..len));
            assert_eq!(Bitfield::from_wire(&full.to_wire(), len), Ok(full));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(len in 1u32..300, ops in vec((any::<u32>(), any::<bool>()), 0..400)) {
            let geometry = Geometry::new(u64::from(len), 1).unwrap();
            let mut bits = Bitfield::new(len);
            let mut naive = vec![false; len as usize];
            for (index, value) in ops {
                let piece = geometry.piece(index % len).unwrap();
                let changed = if value { bits.set(piece) } else { bits.clear(piece) };
                prop_assert_eq!(changed, naive[piece.at()] != value);
                naive[piece.at()] = value;
            }
            prop_assert!(geometry.pieces().all(|piece| bits.get(piece) == naive[piece.at()]));
            prop_assert!(bits.iter_ones().eq((0..len).filter(|&i| naive[i as usize])));
            prop_assert_eq!(bits.count_ones() as usize, naive.iter().filter(|&&set| set).count());
            prop_assert_eq!(Bitfield::from_wire(&bits.to_wire(), len), Ok(bits));
        }

        #[test]
        fn intersection_is_that_of_sets(a in vec(any::<bool>(), 130), b in vec(any::<bool>(), 130)) {
            let geometry = Geometry::new(130, 1).unwrap();
            let bits = |naive: &[bool]| {
                let mut bits = Bitfield::new(130);
                geometry.pieces().filter(|piece| naive[piece.at()]).for_each(|piece| { bits.set(piece); });
                bits
            };
            let have_one_in_common = a.iter().zip(&b).any(|(&a, &b)| a && b);
            prop_assert_eq!(bits(&a).intersects(&bits(&b)), have_one_in_common);
            prop_assert!(!bits(&a).intersects(&Bitfield::new(130)));
        }
    }
}
