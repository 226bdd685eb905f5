//! All arithmetic on pieces, blocks and byte offsets, in one immutable value.
//!
//! Words: a torrent's content is one stream of `total_len` bytes (its files laid end to end). It is cut into
//! *pieces* of `piece_len` bytes, each with a SHA-1 digest; the last may be shorter. A piece is asked for in
//! *blocks* of [`BLOCK_LEN`] bytes; its last may be shorter (BEP 3).

use std::fmt;

/// Bytes of a block: what one request asks for. Peers close a connection that asks for more (BEP 3).
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The index of a piece that exists: made by [`Geometry::piece`], so it is checked once and trusted from then on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The index as it stands on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index for slices that have one entry a piece.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One block of a piece that exists: `begin` is a multiple of [`BLOCK_LEN`] and `len` reaches to the next block or
/// to the end of the piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Block {
    /// The piece it belongs to.
    pub piece: PieceIndex,
    /// Its first byte, counted from the start of the piece.
    pub begin: u32,
    /// Its bytes, 1 to [`BLOCK_LEN`].
    pub len: u32,
}

impl Block {
    /// Its place among the blocks of its piece.
    pub const fn index(self) -> u32 {
        self.begin / BLOCK_LEN
    }
}

/// Why three numbers do not name a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// There is no piece of this index.
    NoSuchPiece {
        /// The index asked for.
        index: u32,
        /// How many pieces there are.
        piece_count: u32,
    },
    /// The offset is not a multiple of [`BLOCK_LEN`] inside the piece, or the length is not that of the block there.
    NotABlock {
        /// The piece.
        index: u32,
        /// The offset inside it.
        begin: u32,
        /// The length.
        len: u32,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoSuchPiece { index, piece_count } => {
                write!(f, "piece {index} does not exist, the torrent has {piece_count}")
            }
            Self::NotABlock { index, begin, len } => {
                write!(f, "{len} bytes at {begin} of piece {index} are not one of its blocks")
            }
        }
    }
}

/// How `total_len` bytes are cut into pieces and blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    total_len: u64,
    piece_len: u32,
    piece_count: u32,
}

impl Geometry {
    /// The geometry of `total_len` bytes in pieces of `piece_len`; `None` where `piece_len` is 0 or the number of
    /// pieces does not fit 32 bits.
    pub fn new(total_len: u64, piece_len: u32) -> Option<Self> {
        if piece_len == 0 {
            return None;
        }
        let piece_count = u32::try_from(total_len.div_ceil(u64::from(piece_len))).ok()?;
        Some(Self { total_len, piece_len, piece_count })
    }

    /// Bytes of the whole content.
    pub const fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Bytes of every piece but the last.
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many pieces there are.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// The piece of that index, if it exists.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count).then_some(PieceIndex(index))
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// The first byte of a piece in the content.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_len)
    }

    /// The bytes of a piece: `piece_len`, or less for the last.
    pub fn piece_size(&self, piece: PieceIndex) -> u32 {
        let left = self.total_len - self.piece_offset(piece);
        left.min(u64::from(self.piece_len)) as u32
    }

    /// How many blocks a piece has.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_size(piece).div_ceil(BLOCK_LEN)
    }

    /// The block of that place in its piece, which must be below [`Geometry::block_count`].
    pub fn block(&self, piece: PieceIndex, index: u32) -> Block {
        let begin = index * BLOCK_LEN;
        let size = self.piece_size(piece);
        assert!(begin < size, "block {index} is past the end of piece {piece}");
        Block { piece, begin, len: (size - begin).min(BLOCK_LEN) }
    }

    /// The block that three numbers from the wire name.
    pub fn check_block(&self, index: u32, begin: u32, len: u32) -> Result<Block, BlockError> {
        let piece =
            self.piece(index).ok_or(BlockError::NoSuchPiece { index, piece_count: self.piece_count })?;
        let not_a_block = BlockError::NotABlock { index, begin, len };
        if !begin.is_multiple_of(BLOCK_LEN) || begin >= self.piece_size(piece) {
            return Err(not_a_block);
        }
        let block = self.block(piece, begin / BLOCK_LEN);
        if block.len == len { Ok(block) } else { Err(not_a_block) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_piece_and_block_are_short() {
        let geometry = Geometry::new(100_000, 40_000).unwrap();
        assert_eq!(geometry.piece_count(), 3);
        let last = geometry.piece(2).unwrap();
        assert_eq!(geometry.piece_size(last), 20_000);
        assert_eq!(geometry.block_count(last), 2);
        assert_eq!(geometry.block(last, 1), Block { piece: last, begin: 16_384, len: 3_616 });
        assert_eq!(geometry.piece(3), None);
    }

    #[test]
    fn what_is_not_a_block_is_refused() {
        let geometry = Geometry::new(100_000, 40_000).unwrap();
        assert_eq!(
            geometry.check_block(3, 0, 16_384),
            Err(BlockError::NoSuchPiece { index: 3, piece_count: 3 })
        );
        for (begin, len) in [(1, 16_384), (0, 16_383), (0, 0), (49_152, 16_384), (32_768, 16_384)] {
            assert_eq!(
                geometry.check_block(0, begin, len),
                Err(BlockError::NotABlock { index: 0, begin, len })
            );
        }
        assert!(geometry.check_block(0, 32_768, 7_232).is_ok());
    }

    #[test]
    fn the_limits_of_32_bits_hold() {
        assert_eq!(Geometry::new(1, 0), None);
        assert_eq!(Geometry::new(u64::from(u32::MAX) + 1, 1), None);
        assert_eq!(Geometry::new(0, 1).unwrap().piece_count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_and_blocks_cover_every_byte_once(total_len in 0u64..3_000_000, piece_len in 1u32..300_000) {
            let geometry = Geometry::new(total_len, piece_len.max(total_len as u32 / 1000 + 1)).unwrap();
            let mut next = 0;
            for piece in geometry.pieces() {
                prop_assert_eq!(geometry.piece_offset(piece), next);
                let mut inside = 0;
                for index in 0..geometry.block_count(piece) {
                    let block = geometry.block(piece, index);
                    prop_assert_eq!(block.begin, inside);
                    prop_assert_eq!(block.index(), index);
                    prop_assert_eq!(geometry.check_block(piece.get(), block.begin, block.len), Ok(block));
                    inside += block.len;
                }
                prop_assert_eq!(inside, geometry.piece_size(piece));
                next += u64::from(inside);
            }
            prop_assert_eq!(next, total_len);
        }
    }
}
