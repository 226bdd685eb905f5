//! Who lied: keeps what a failed piece looked like, block by block, until the piece passes and shows which were wrong.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::meta::geometry::PieceIndex;

/// The digest of one block: SHA-1, as nothing else is at hand; a peer that can forge it can forge the piece.
pub type BlockDigest = [u8; 20];

/// Failed pieces that are remembered at a time. With more, the oldest knowledge is of little use.
const SUSPECT_PIECES_MAX: usize = 256;

/// What each peer sent for the blocks of pieces that failed.
#[derive(Debug, Default)]
pub struct Suspects {
    failed: HashMap<PieceIndex, Vec<(u32, SocketAddr, BlockDigest)>>,
}

impl Suspects {
    /// A piece failed. With a single source that peer is the liar and is returned; with several, `blocks` (block
    /// index, who sent it, its digest) is kept for the day when the piece passes.
    pub fn failed(
        &mut self,
        piece: PieceIndex,
        blocks: impl Iterator<Item = (u32, SocketAddr, BlockDigest)>,
    ) -> Option<SocketAddr> {
        let blocks: Vec<_> = blocks.collect();
        let first = blocks.first()?.1;
        if blocks.iter().all(|&(_, from, _)| from == first) {
            return Some(first);
        }
        if self.failed.len() >= SUSPECT_PIECES_MAX && !self.failed.contains_key(&piece) {
            return None;
        }
        let known = self.failed.entry(piece).or_default();
        for block in blocks {
            // One entry a block and peer is enough, and bounds what a piece that fails again and again can take.
            known.retain(|&(index, from, _)| (index, from) != (block.0, block.1));
            known.push(block);
        }
        None
    }

    /// Whether that piece failed before, so that [`Suspects::passed`] is worth its digests.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.failed.contains_key(&piece)
    }

    /// The piece passed: the peers that had sent something else for one of its blocks. `digest` gives the digest of a
    /// block of the good piece.
    pub fn passed(&mut self, piece: PieceIndex, digest: impl Fn(u32) -> BlockDigest) -> Vec<SocketAddr> {
        let mut liars = Vec::new();
        for (block, from, was) in self.failed.remove(&piece).unwrap_or_default() {
            if was != digest(block) && !liars.contains(&from) {
                liars.push(from);
            }
        }
        liars
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_sole_source_is_known_at_once_and_one_among_many_when_the_piece_passes() {
        let piece = Geometry::new(100, 100).unwrap().piece(0).unwrap();
        let mut suspects = Suspects::default();
        let sole = [(0, peer(1), [0; 20]), (1, peer(1), [1; 20])];
        assert_eq!(suspects.failed(piece, sole.into_iter()), Some(peer(1)));
        assert!(!suspects.contains(piece));

        let mixed = [(0, peer(1), [0; 20]), (1, peer(2), [9; 20]), (2, peer(3), [2; 20])];
        assert_eq!(suspects.failed(piece, mixed.into_iter()), None);
        assert!(suspects.contains(piece));
        assert_eq!(suspects.passed(piece, |block| [block as u8; 20]), vec![peer(2)]);
        assert!(!suspects.contains(piece));
    }
}
