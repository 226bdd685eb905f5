//! Who lied: keeps what a failed piece looked like, block by block, until the piece passes and shows which were wrong.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::random::Random;
use super::trial::{TRIAL_BLOCKS, TRIAL_PIECE_BLOCKS_MIN, Trial};
use crate::meta::geometry::PieceIndex;

/// The digest of one block: SHA-1, as nothing else is at hand; a peer that can forge it can forge the piece.
pub type BlockDigest = [u8; 20];

/// Blocks of failed pieces that are remembered, 4 MiB of memory. For more, the pieces that failed first are forgotten.
pub const SUSPECT_BLOCKS_MAX: usize = 1 << 16;

/// Whole pieces of proven liars that are remembered of a piece.
const LIES_MAX: usize = 16;

/// What each peer sent for each block of a piece: one entry a block and peer, however often the piece fails.
type Sent = HashMap<(u32, SocketAddr), BlockDigest>;

/// What is known of a piece that failed.
#[derive(Debug, Default)]
struct Evidence {
    sent: Sent,
    /// What those sent who were the only source of the whole piece, block by block.
    lies: VecDeque<Vec<BlockDigest>>,
    /// Decides which blocks peers are tried with: the same for all, and not known to them.
    seed: u64,
}

impl Evidence {
    fn of(blocks: &[(u32, SocketAddr, BlockDigest)]) -> Self {
        let seed = blocks.iter().fold(0, |seed: u64, (.., digest)| {
            let [a, b, c, d, e, f, g, h, ..] = *digest;
            seed.rotate_left(7) ^ u64::from_le_bytes([a, b, c, d, e, f, g, h])
        });
        Self { sent: Sent::new(), lies: VecDeque::new(), seed }
    }

    /// How many blocks it remembers.
    fn len(&self) -> usize {
        self.sent.len() + self.lies.iter().map(Vec::len).sum::<usize>()
    }
}

/// What each peer sent for the blocks of pieces that failed.
#[derive(Debug, Default)]
pub struct Suspects {
    failed: HashMap<PieceIndex, Evidence>,
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
        let is_tried = blocks.len() >= TRIAL_PIECE_BLOCKS_MIN as usize;
        if let (Some(sole), true, false) = (sole, is_sole, is_tried) {
            return vec![sole];
        }
        let evidence = self.failed.entry(piece).or_insert_with(|| {
            self.order.push_back(piece);
            Evidence::of(&blocks)
        });
        let before = evidence.len();
        let mut liars = Vec::new();
        if let (Some(sole), true) = (sole, is_sole) {
            if evidence.lies.len() == LIES_MAX {
                evidence.lies.pop_front();
            }
            evidence.lies.push_back(blocks.into_iter().map(|(.., digest)| digest).collect());
            liars.push(sole);
        } else {
            for (block, from, digest) in blocks {
                if evidence.sent.insert((block, from), digest).is_some_and(|was| was != digest) {
                    liars.push(from);
                }
            }
        }
        self.block_count = self.block_count + evidence.len() - before;
        self.bound();
        liars.sort_unstable();
        liars.dedup();
        liars
    }

    /// Forgets what failed first, where there is too much.
    fn bound(&mut self) {
        while self.block_count > SUSPECT_BLOCKS_MAX
            && let Some(&oldest) = self.order.front()
        {
            self.forget(oldest);
        }
    }

    /// What a peer is to be asked for before it gets a piece that failed, of so many blocks. `None` for one that it may
    /// have as it is.
    pub fn trial(&self, piece: PieceIndex, peer: SocketAddr, block_count: u32) -> Option<Trial> {
        let evidence = self.failed.get(&piece).filter(|_| block_count >= TRIAL_PIECE_BLOCKS_MIN)?;
        let mut random = Random::new(evidence.seed);
        let mut trial = Trial::default();
        let part = block_count as usize / TRIAL_BLOCKS;
        for start in (0..TRIAL_BLOCKS).map(|at| at * part) {
            let block = start + random.below(part);
            let lies = evidence.lies.iter().filter_map(|lie| lie.get(block).copied()).collect();
            trial.ask(block as u32, evidence.sent.get(&(block as u32, peer)).copied(), lies);
        }
        Some(trial)
    }

    /// Notes what a peer sent in a trial. What it sent before counts.
    pub fn note(&mut self, piece: PieceIndex, peer: SocketAddr, trial: &Trial) {
        let Some(evidence) = self.failed.get_mut(&piece) else { return };
        let before = evidence.len();
        for (block, digest) in trial.answers() {
            evidence.sent.entry((block, peer)).or_insert(digest);
        }
        self.block_count += evidence.len() - before;
        self.bound();
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
        let mut sent: Vec<_> = self.forget(piece).sent.into_iter().collect();
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

    fn forget(&mut self, piece: PieceIndex) -> Evidence {
        let evidence = self.failed.remove(&piece).unwrap_or_default();
        self.order.retain(|&failed| failed != piece);
        self.block_count -= evidence.len();
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;
    use crate::swarm::trial::Verdict;

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
    fn who_wants_a_large_piece_that_failed_is_tried_with_the_same_blocks_twice() {
        let piece = Geometry::new(100, 100).unwrap().piece(0).unwrap();
        let mut suspects = Suspects::default();
        assert_eq!(suspects.trial(piece, peer(1), 100), None);
        let whole = |from, byte| (0..100).map(move |block| (block, from, [byte; 20]));
        assert_eq!(suspects.failed(piece, whole(peer(9), 7)), [peer(9)]);
        assert_eq!(suspects.trial(piece, peer(1), TRIAL_PIECE_BLOCKS_MIN - 1), None);
        let mut answer = |from, byte| {
            let mut trial = suspects.trial(piece, from, 100).unwrap();
            let blocks: Vec<_> = (0..100).filter(|&block| trial.asks(block)).collect();
            assert_eq!(blocks.len(), TRIAL_BLOCKS);
            for &block in &blocks {
                trial.answer(block, [byte; 20]);
            }
            suspects.note(piece, from, &trial);
            (trial.verdict().unwrap(), blocks)
        };
        let (verdict, blocks) = answer(peer(1), 1);
        assert_eq!(verdict, Verdict::Noted);
        assert_eq!(answer(peer(1), 1), (Verdict::Passed, blocks.clone()));
        assert_eq!(answer(peer(1), 2), (Verdict::Suspect, blocks.clone()));
        assert_eq!(answer(peer(2), 7), (Verdict::Suspect, blocks.clone()), "the known lie");
        assert_eq!(answer(peer(3), 5), (Verdict::Noted, blocks));
        assert_eq!(suspects.passed(piece, |_| [1; 20]), [peer(2), peer(3)]);
        assert!(suspects.is_empty());
        assert_eq!(suspects.block_count, 0);
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
