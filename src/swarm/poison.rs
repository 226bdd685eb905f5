//! Who lied: keeps what a failed piece looked like, block by block, until the piece passes and shows which were wrong.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::meta::geometry::PieceIndex;

/// The digest of one block: SHA-1, as nothing else is at hand; a peer that can forge it can forge the piece.
pub type BlockDigest = [u8; 20];

/// Blocks of failed pieces that are remembered, 4 MiB of memory. For more, the pieces that failed first are forgotten.
pub const SUSPECT_BLOCKS_MAX: usize = 1 << 16;

/// What each peer sent for each block of a piece: one entry a block and peer, however often the piece fails.
type Sent = HashMap<(u32, SocketAddr), BlockDigest>;

/// What each peer sent for the blocks of pieces that failed.
#[derive(Debug, Default)]
pub struct Suspects {
    failed: HashMap<PieceIndex, Sent>,
    /// The keys of `failed`, the longest known first.
    order: VecDeque<PieceIndex>,
    /// Entries in all of `failed`.
    block_count: usize,
}

impl Suspects {
    /// A piece failed. Returns who is known to have lied: a single source, or a peer that has sent the same block
    /// differently before. With several, `blocks` (block index, who sent it, its digest) is kept for the day when the
    /// piece passes.
    pub fn failed(
        &mut self,
        piece: PieceIndex,
        blocks: impl Iterator<Item = (u32, SocketAddr, BlockDigest)>,
    ) -> Vec<SocketAddr> {
        let blocks: Vec<_> = blocks.collect();
        let sole = blocks.first().map(|&(_, from, _)| from);
        let is_sole = blocks.iter().all(|&(_, from, _)| Some(from) == sole);
        if let (Some(sole), true) = (sole, is_sole) {
            return vec![sole];
        }
        let sent = self.failed.entry(piece).or_insert_with(|| {
            self.order.push_back(piece);
            Sent::new()
        });
        let before = sent.len();
        let mut liars = Vec::new();
        for (block, from, digest) in blocks {
            if sent.insert((block, from), digest).is_some_and(|was| was != digest) {
                liars.push(from);
            }
        }
        self.block_count += sent.len() - before;
        while self.block_count > SUSPECT_BLOCKS_MAX
            && let Some(&oldest) = self.order.front()
        {
            self.forget(oldest);
        }
        liars.sort_unstable();
        liars.dedup();
        liars
    }

    /// Whether no piece that failed is remembered.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    /// Whether that piece failed before, so that [`Suspects::passed`] is worth its digests.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.failed.contains_key(&piece)
    }

    /// The piece passed: the peers that had sent something else for one of its blocks, in order of their addresses.
    /// `digest` gives the digest of a block of the good piece.
    pub fn passed(&mut self, piece: PieceIndex, digest: impl Fn(u32) -> BlockDigest) -> Vec<SocketAddr> {
        let mut sent: Vec<_> = self.forget(piece).into_iter().collect();
        sent.sort_unstable();
        let mut liars = Vec::new();
        for of_block in sent.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let right = digest(of_block[0].0.0);
            liars.extend(of_block.iter().filter(|(_, was)| *was != right).map(|((_, from), _)| *from));
        }
        liars.sort_unstable();
        liars.dedup();
        liars
    }

    fn forget(&mut self, piece: PieceIndex) -> Sent {
        let sent = self.failed.remove(&piece).unwrap_or_default();
        self.order.retain(|&failed| failed != piece);
        self.block_count -= sent.len();
        sent
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
        assert_eq!(suspects.failed(piece, sole.into_iter()), [peer(1)]);
        assert!(!suspects.contains(piece));

        let mixed = [(0, peer(1), [0; 20]), (1, peer(2), [9; 20]), (2, peer(3), [2; 20])];
        assert_eq!(suspects.failed(piece, mixed.into_iter()), []);
        assert!(suspects.contains(piece));
        assert_eq!(suspects.passed(piece, |block| [block as u8; 20]), vec![peer(2)]);
        assert!(!suspects.contains(piece));
    }

    #[test]
    fn who_sends_a_block_in_two_ways_lies() {
        let piece = Geometry::new(100, 100).unwrap().piece(0).unwrap();
        let mut suspects = Suspects::default();
        let mut fail = |of_2: u8, of_3: u8| {
            suspects.failed(piece, [(0, peer(2), [of_2; 20]), (1, peer(3), [of_3; 20])].into_iter())
        };
        assert_eq!(fail(1, 1), []);
        assert_eq!(fail(1, 1), []);
        assert_eq!(fail(1, 2), [peer(3)]);
        assert_eq!(fail(2, 3), [peer(2), peer(3)]);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_pieces_are_forgotten() {
        let blocks = SUSPECT_BLOCKS_MAX as u32 / 2;
        let geometry = Geometry::new(300, 100).unwrap();
        let [first, second, third] = [0, 1, 2].map(|index| geometry.piece(index).unwrap());
        let mut suspects = Suspects::default();
        let mut fail = |piece| {
            let source = |block: u32| peer(if block.is_multiple_of(2) { 1 } else { 2 });
            suspects.failed(piece, (0..blocks).map(|block| (block, source(block), [0; 20])))
        };
        // The same again takes no more.
        for piece in [first, first, second, second, third] {
            assert_eq!(fail(piece), []);
        }
        assert_eq!([first, second, third].map(|piece| suspects.contains(piece)), [false, true, true]);
        assert_eq!(suspects.passed(second, |_| [1; 20]), [peer(1), peer(2)]);
        assert_eq!(suspects.passed(third, |_| [0; 20]), []);
        assert_eq!((suspects.block_count, suspects.order.len()), (0, 0));
    }
}
