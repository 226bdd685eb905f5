//! The right to fetch one piece, and what has been fetched of it so far.
//!
//! A [`Claim`] is move-only: the peer that holds it is the only one that writes the piece, through the lease inside.
//! When its peer goes away the claim moves on, half-done, to the next one. [`Progress`] is the part others may look
//! at: in the endgame a second peer reads from it which blocks are missing, fetches them into private memory and
//! leaves them in the mailbox; only the holder of the claim copies them to their place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use crate::meta::geometry::{BLOCK_LEN, Block, Geometry, PieceIndex};

/// The right to write one piece of the output. `disk` has the real one; tests write to plain memory.
pub trait PieceWriter {
    /// Writes `data` at byte `begin` of the piece.
    fn write(&mut self, begin: u32, data: &[u8]);
}

/// A set of blocks of one piece. Pieces of up to 4 MiB fit without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    words: SmallVec<[u64; 4]>,
}

impl BlockSet {
    /// The empty set for a piece of `block_count` blocks.
    pub fn new(block_count: u32) -> Self {
        Self { words: SmallVec::from_elem(0, block_count.div_ceil(64) as usize) }
    }

    /// Whether the block of this index is in the set.
    pub fn contains(&self, block: u32) -> bool {
        self.words[(block / 64) as usize] & (1 << (block % 64)) != 0
    }

    /// Adds a block.
    pub fn insert(&mut self, block: u32) {
        self.words[(block / 64) as usize] |= 1 << (block % 64);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u32) {
        self.words[(block / 64) as usize] &= !(1 << (block % 64));
    }
}

/// A block that a helper fetched in the endgame, on its way to the holder of the claim.
#[derive(Debug)]
pub struct Donation {
    /// Which block.
    pub block: Block,
    /// Its bytes, `block.len` of them.
    pub data: Box<[u8]>,
    /// Who sent it.
    pub from: SocketAddr,
}

/// What is there of one piece in flight. Written by the holder of the claim, read by helpers on any thread.
#[derive(Debug)]
pub struct Progress {
    piece: PieceIndex,
    block_count: u32,
    received: Box<[AtomicU64]>,
    mail: Mutex<Vec<Donation>>,
    has_mail: AtomicBool,
    closed: AtomicBool,
}

impl Progress {
    fn new(geometry: &Geometry, piece: PieceIndex) -> Self {
        let block_count = geometry.block_count(piece);
        let received = (0..block_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self {
            piece,
            block_count,
            received,
            mail: Mutex::default(),
            has_mail: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The piece this is about.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// Whether a block is at its place already.
    pub fn has(&self, block: u32) -> bool {
        self.received[(block / 64) as usize].load(Ordering::Relaxed) & (1 << (block % 64)) != 0
    }

    /// Whether the piece needs no more blocks: it is complete.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The last missing block below `end`: helpers go backward, so that they meet the owner, who goes forward, as
    /// late as possible.
    pub fn last_missing(&self, end: u32) -> Option<u32> {
        (0..end.min(self.block_count)).rev().find(|&block| !self.has(block))
    }

    /// How many blocks the piece has.
    pub const fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Leaves a fetched block for the holder of the claim.
    pub fn donate(&self, donation: Donation) {
        if self.is_closed() {
            return;
        }
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(donation);
        self.has_mail.store(true, Ordering::Release);
    }

    /// Whether [`Progress::donate`] left something. One load, so the owner can ask after each receive.
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    fn take_mail(&self) -> Vec<Donation> {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    /// Only the holder of the claim writes, so load and store need not be one operation.
    fn set(&self, block: u32) {
        let word = &self.received[(block / 64) as usize];
        word.store(word.load(Ordering::Relaxed) | (1 << (block % 64)), Ordering::Relaxed);
    }
}

/// The exclusive right to fetch one piece.
#[derive(Debug)]
pub struct Claim<L> {
    /// Where the piece's bytes go.
    pub lease: L,
    progress: Arc<Progress>,
    missing: u32,
    owner: SocketAddr,
    /// Who sent the blocks that `owner` did not; empty for nearly every piece.
    others: HashMap<u32, SocketAddr>,
}

impl<L> Claim<L> {
    /// The claim of a piece nothing is there of yet, held by `owner`.
    pub fn new(geometry: &Geometry, piece: PieceIndex, lease: L, owner: SocketAddr) -> Self {
        let progress = Progress::new(geometry, piece);
        Self {
            lease,
            missing: progress.block_count,
            progress: Arc::new(progress),
            owner,
            others: HashMap::new(),
        }
    }

    /// The part that helpers may see.
    pub const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The piece.
    pub fn piece(&self) -> PieceIndex {
        self.progress.piece
    }

    /// Whether nothing of the piece is there, so that nothing is lost with the claim.
    pub fn is_untouched(&self) -> bool {
        self.missing == self.progress.block_count && !self.progress.has_mail()
    }

    /// Whether all blocks are at their place.
    pub const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Notes that a block is at its place. A block that was there already changes nothing.
    pub fn mark(&mut self, block: u32) {
        if self.progress.has(block) {
            return;
        }
        self.progress.set(block);
        self.missing -= 1;
        if self.missing == 0 {
            self.progress.closed.store(true, Ordering::Relaxed);
        }
    }

    /// Hands the claim to another peer, remembering who sent what is there so far.
    pub fn hand_over(&mut self, to: SocketAddr) {
        if to == self.owner {
            return;
        }
        let owner = self.owner;
        for block in 0..self.progress.block_count {
            if self.progress.has(block) {
                self.others.entry(block).or_insert(owner);
            }
        }
        self.owner = to;
    }

    /// Who sent a block that is there.
    pub fn source(&self, block: u32) -> SocketAddr {
        self.others.get(&block).copied().unwrap_or(self.owner)
    }

    /// The blocks of the piece, by index.
    pub fn blocks(&self) -> std::ops::Range<u32> {
        0..self.progress.block_count
    }
}

impl<L: PieceWriter> Claim<L> {
    /// Copies what helpers left in the mailbox to its place and calls `used` for each block that was still missing.
    /// Returns the bytes that were no longer needed.
    pub fn open_mail(&mut self, mut used: impl FnMut(Block)) -> u64 {
        let mut wasted = 0;
        for Donation { block, data, from } in self.progress.take_mail() {
            let index = block.begin / BLOCK_LEN;
            if self.progress.has(index) {
                wasted += data.len() as u64;
                continue;
            }
            self.lease.write(block.begin, &data);
            if from != self.owner {
                self.others.insert(index, from);
            }
            self.mark(index);
            used(block);
        }
        wasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(Vec<u8>);

    impl PieceWriter for Memory {
        fn write(&mut self, begin: u32, data: &[u8]) {
            self.0[begin as usize..][..data.len()].copy_from_slice(data);
        }
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn claim(blocks: u32) -> (Geometry, Claim<Memory>) {
        let geometry = Geometry::new(u64::from(blocks * BLOCK_LEN), blocks * BLOCK_LEN).unwrap();
        let piece = geometry.piece(0).unwrap();
        let memory = Memory(vec![0; (blocks * BLOCK_LEN) as usize]);
        (geometry, Claim::new(&geometry, piece, memory, peer(1)))
    }

    #[test]
    fn a_piece_is_complete_when_each_block_was_marked_once() {
        let (_, mut claim) = claim(130);
        assert!(claim.is_untouched());
        for block in claim.blocks() {
            assert!(!claim.is_complete());
            claim.mark(block);
            claim.mark(block);
        }
        assert!(claim.is_complete());
        assert!(claim.progress().is_closed());
        assert_eq!(claim.source(129), peer(1));
    }

    #[test]
    fn donations_fill_gaps_and_are_attributed() {
        let (geometry, mut claim) = claim(3);
        let piece = claim.piece();
        claim.mark(0);
        let progress = Arc::clone(claim.progress());
        assert_eq!(progress.last_missing(3), Some(2));
        assert_eq!(progress.last_missing(2), Some(1));
        assert_eq!(progress.last_missing(1), None);
        for index in [0, 2] {
            let block = geometry.block(piece, index);
            let data = vec![7; block.len as usize].into();
            progress.donate(Donation { block, data, from: peer(2) });
        }
        assert!(progress.has_mail());
        let mut used = Vec::new();
        let wasted = claim.open_mail(|block| used.push(block.index()));
        assert_eq!((wasted, used), (u64::from(BLOCK_LEN), vec![2]));
        assert!(!progress.has_mail());
        assert_eq!(claim.source(0), peer(1));
        assert_eq!(claim.source(2), peer(2));
        assert_eq!(claim.lease.0[2 * BLOCK_LEN as usize], 7);
        claim.mark(1);
        assert!(claim.is_complete());
    }

    #[test]
    fn a_handed_over_claim_remembers_who_sent_what() {
        let (_, mut claim) = claim(3);
        claim.mark(1);
        claim.hand_over(peer(2));
        claim.mark(0);
        claim.hand_over(peer(3));
        claim.mark(2);
        assert_eq!([0, 1, 2].map(|block| claim.source(block)), [peer(2), peer(1), peer(3)]);
    }
}
