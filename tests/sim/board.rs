//! What all sessions share, as in `net::shared`: the ledger, the suspects, the way to the verifier.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringtide::meta::geometry::{BLOCK_LEN, PieceIndex};
use ringtide::swarm::bitfield::Bitfield;
use ringtide::swarm::claim::{Claim, Progress};
use ringtide::swarm::ledger::Ledger;
use ringtide::swarm::picker::{Picker, PieceState};
use ringtide::swarm::poison::Suspects;
use ringtide::swarm::session::{Holdings, Work};
use sha1::{Digest, Sha1};

use super::content::{Content, Memory, MemoryLease};

/// A block that somebody falsified.
pub type Forgery = (SocketAddr, u32, u32);

pub struct Board {
    pub ledger: Ledger<MemoryLease>,
    pub memory: Rc<Memory>,
    content: Rc<Content>,
    suspects: Suspects,
    /// Complete claims that the verifier has yet to take.
    pub submitted: Vec<Claim<MemoryLease>>,
    /// Peers to ban.
    pub poisoned: Vec<SocketAddr>,
    /// All blocks that were ever falsified, as the hosts tell.
    pub forgeries: HashSet<Forgery>,
    /// Hosts of which a falsified block was in a piece that failed.
    pub caught: HashSet<SocketAddr>,
    pub pieces_failed: u32,
}

impl Board {
    pub fn new(content: &Rc<Content>, seed: u64) -> Self {
        let geometry = content.geometry;
        let picker = Picker::new(geometry, &Bitfield::full(geometry.piece_count()), seed);
        Self {
            ledger: Ledger::new(geometry, picker),
            memory: Memory::new(geometry),
            content: Rc::clone(content),
            suspects: Suspects::default(),
            submitted: Vec::new(),
            poisoned: Vec::new(),
            forgeries: HashSet::new(),
            caught: HashSet::new(),
            pieces_failed: 0,
        }
    }

    /// What becomes of a piece that was hashed.
    pub fn judge(&mut self, claim: Claim<MemoryLease>) {
        let size = claim.lease.size();
        let digest: [u8; 20] = claim.lease.with_bytes(0, size, |bytes| Sha1::digest(bytes)).into();
        if digest == self.content.digest(claim.piece()) { self.accept(claim) } else { self.reject(claim) }
    }

    fn accept(&mut self, claim: Claim<MemoryLease>) {
        let piece = claim.piece();
        if self.suspects.contains(piece) {
            let liars = self.suspects.passed(piece, |block| block_digest(&claim.lease, block));
            self.poisoned.extend(liars);
        }
        claim.lease.seal();
        self.ledger.accept(piece);
    }

    fn reject(&mut self, claim: Claim<MemoryLease>) {
        let piece = claim.piece();
        self.pieces_failed += 1;
        self.check_blame(&claim);
        let blocks =
            claim.blocks().map(|block| (block, claim.source(block), block_digest(&claim.lease, block)));
        self.poisoned.extend(self.suspects.failed(piece, blocks));
        drop(claim);
        self.ledger.reject(piece);
    }

    fn doubt(&self, mut claim: Claim<MemoryLease>) -> Claim<MemoryLease> {
        if claim.is_doubted()
            && let Some(trial) = self.suspects.trial(claim.piece(), claim.owner(), claim.blocks().end)
        {
            claim.begin_trial(trial);
        }
        claim
    }

    /// Each wrong block must be put down to a host that falsified that very block.
    fn check_blame(&mut self, claim: &Claim<MemoryLease>) {
        for index in claim.blocks() {
            let block = self.content.geometry.block(claim.piece(), index);
            let right = self.content.block(block);
            if claim.lease.with_bytes(block.begin, block.len, |bytes| bytes == right) {
                continue;
            }
            let source = claim.source(index);
            assert!(
                self.forgeries.contains(&(source, block.piece.get(), index)),
                "block {index} of piece {} is wrong and put down to {source}, which sent it right",
                block.piece
            );
            self.caught.insert(source);
        }
    }

    /// With no session left, nothing may be lost: what is not there is wanted, or half-done and waits for a peer.
    pub fn check_nothing_leaked(&self) {
        let count = |state| {
            let geometry = self.content.geometry;
            geometry.pieces().filter(|&piece| self.ledger.picker().state(piece) == state).count()
        };
        assert!(self.submitted.is_empty());
        assert_eq!(count(PieceState::Verifying), 0);
        assert_eq!(count(PieceState::Claimed), self.memory.leases_out(), "claims and leases differ");
        assert_eq!(self.ledger.orphan_count(), self.memory.leases_out(), "a claim was lost");
    }
}

fn block_digest(lease: &MemoryLease, block: u32) -> [u8; 20] {
    let begin = block * BLOCK_LEN;
    lease.with_bytes(begin, (lease.size() - begin).min(BLOCK_LEN), |bytes| Sha1::digest(bytes)).into()
}

impl Work<MemoryLease> for Board {
    fn joined(&mut self, has: &Bitfield) {
        self.ledger.joined(has);
    }

    fn gained(&mut self, had: &Bitfield, piece: PieceIndex) {
        self.ledger.gained(had, piece);
    }

    fn left(&mut self, has: &Bitfield) {
        self.ledger.left(has);
    }

    fn wants_any(&mut self, has: &Bitfield) -> bool {
        self.ledger.wants_any(has)
    }

    fn claim(
        &mut self,
        peer: SocketAddr,
        has: &Bitfield,
        after: Option<PieceIndex>,
    ) -> Option<Claim<MemoryLease>> {
        let memory = &self.memory;
        let claim = self.ledger.claim(peer, has, after, |piece| Some(memory.lease(piece)))?;
        Some(self.doubt(claim))
    }

    fn claim_of(&mut self, peer: SocketAddr, pieces: &[PieceIndex]) -> Option<Claim<MemoryLease>> {
        let claim = self.ledger.claim_of(peer, pieces, |piece| Some(self.memory.lease(piece)))?;
        Some(self.doubt(claim))
    }
    fn supply(&mut self) -> u64 {
        self.ledger.supply()
    }

    fn give_back(&mut self, claim: Claim<MemoryLease>) {
        if let Some(trial) = claim.trial() {
            self.suspects.note(claim.piece(), claim.owner(), trial);
        }
        self.ledger.give_back(claim);
    }

    fn complete(&mut self, claim: Claim<MemoryLease>) {
        self.ledger.received(claim.piece());
        self.submitted.push(claim);
    }

    fn holdings(&mut self) -> Holdings {
        self.ledger.holdings()
    }

    fn help(&mut self, has: &Bitfield, worth: Duration, helpers: u8) -> Option<Arc<Progress>> {
        self.ledger.help(has, worth, helpers)
    }
}
