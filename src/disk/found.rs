//! What the files held when the output was opened, told from their holes without reading them.
//!
//! It errs on the side of data. Reserved blocks that nothing was written to are holes, but ext4 counts what the page
//! cache has of them as data, and a single fault in a map brings in some megabytes around it. So a stretch that looks
//! like data may be zeroes; one that looks like a hole holds nothing.

use std::fs::File;
use std::io;

use super::sys;
use crate::meta::geometry::{Geometry, PieceIndex};

/// Bits of a word of the piece set.
const WORD_LEN: usize = 64;

/// Which pieces may already be there. A preallocated range that nothing was written to counts as a hole, so the rest
/// of an interrupted download is told apart from what had arrived.
#[derive(Clone, Debug)]
pub struct Found {
    geometry: Geometry,
    words: Box<[u64]>,
    holds_data: bool,
}

impl Found {
    /// Nothing found yet.
    pub(super) fn nothing(geometry: Geometry) -> Self {
        let words = vec![0; (geometry.piece_count() as usize).div_ceil(WORD_LEN)].into();
        Self { geometry, words, holds_data: false }
    }

    /// Whether any file held data. When one did, the pieces that [may be there](Found::may_hold) must be hashed before
    /// anything is written, and each file is judged by what is right in it.
    pub const fn holds_data(&self) -> bool {
        self.holds_data
    }

    /// Whether some of the piece's bytes were there. A piece without any need not be checked.
    pub fn may_hold(&self, piece: PieceIndex) -> bool {
        self.words.get(piece.at() / WORD_LEN).is_some_and(|word| word & bit(piece) != 0)
    }

    /// The pieces of which some bytes were there, in order.
    pub fn candidates(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.geometry.pieces().filter(|&piece| self.may_hold(piece))
    }

    /// Adds what `file` holds, whose first `len` bytes are the content's from `offset`.
    pub(super) fn look_at(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mut at = 0;
        while at < len
            && let Some((start, end)) = sys::next_data(file, at)?
            && start < len
        {
            self.holds_data = true;
            self.mark(offset + start, offset + end.min(len));
            // Data has a length; should a file system say otherwise, the walk still ends.
            at = end.max(at + 1);
        }
        Ok(())
    }

    /// Marks the pieces of the content's bytes `start..end`, which are not none.
    fn mark(&mut self, start: u64, end: u64) {
        let piece_len = u64::from(self.geometry.piece_len());
        let (first, last) = (start / piece_len, (end - 1) / piece_len);
        for index in first..=last {
            if let Some(piece) = u32::try_from(index).ok().and_then(|index| self.geometry.piece(index)) {
                self.words[piece.at() / WORD_LEN] |= bit(piece);
            }
        }
    }
}

const fn bit(piece: PieceIndex) -> u64 {
    1 << (piece.at() % WORD_LEN)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_and_reserved_blocks_are_not_data() {
        let geometry = Geometry::new(100 << 20, 1 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        sys::allocate(&file, 50 << 20).unwrap();
        file.set_len(100 << 20).unwrap();
        let mut found = Found::nothing(geometry);
        found.look_at(&file, 0, 100 << 20).unwrap();
        assert!(!found.holds_data());

        file.write_all_at(&[1; 10], (7 << 20) - 5).unwrap();
        file.write_all_at(&[1], 99 << 20).unwrap();
        found.look_at(&file, 0, 100 << 20).unwrap();
        assert!(found.holds_data());
        assert_eq!(found.candidates().map(PieceIndex::get).collect::<Vec<_>>(), [6, 7, 99]);
    }

    #[test]
    fn the_place_in_the_content_counts_and_the_rest_of_the_file_does_not() {
        let geometry = Geometry::new(3 << 20, 1 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.write_all_at(&[1; 4096], 2 << 20).unwrap();
        let mut found = Found::nothing(geometry);
        found.look_at(&file, 1 << 20, 1 << 20).unwrap();
        assert_eq!(found.candidates().map(PieceIndex::get).collect::<Vec<_>>(), [1]);
    }
}
