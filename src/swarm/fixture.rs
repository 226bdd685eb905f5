//! What the unit tests of this part share: pieces in plain memory, and a desk that hands them out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bitfield::Bitfield;
use super::claim::{Claim, PieceWriter, Progress};
use super::ledger::Ledger;
use super::picker::Picker;
use super::session::{Gossip, Holdings, Work};
use crate::meta::geometry::{BLOCK_LEN, Block, Geometry, PieceIndex};

/// The bytes of one piece.
#[derive(Debug)]
pub(super) struct Memory(pub(super) Vec<u8>);

impl PieceWriter for Memory {
    fn write(&mut self, begin: u32, data: &[u8]) {
        self.0[begin as usize..][..data.len()].copy_from_slice(data);
    }

    fn read(&self, begin: u32, out: &mut [u8]) {
        out.copy_from_slice(&self.0[begin as usize..][..out.len()]);
    }
}

/// What the sessions of a test share.
pub(super) struct Desk {
    pub(super) geometry: Geometry,
    pub(super) ledger: Ledger<Memory>,
    pub(super) complete: Vec<Claim<Memory>>,
    pub(super) claims_asked: u32,
    pub(super) heard: Vec<(SocketAddr, Gossip)>,
}

impl Desk {
    /// Wants all of so many pieces of so many whole blocks.
    pub(super) fn new(piece_count: u32, blocks: u32) -> Self {
        let piece_len = blocks * BLOCK_LEN;
        Self::of(Geometry::new(u64::from(piece_count) * u64::from(piece_len), piece_len).unwrap())
    }

    /// Wants everything.
    pub(super) fn of(geometry: Geometry) -> Self {
        let picker = Picker::new(geometry, &Bitfield::full(geometry.piece_count()), 1);
        let ledger = Ledger::new(geometry, picker);
        Self { geometry, ledger, complete: Vec::new(), claims_asked: 0, heard: Vec::new() }
    }

    pub(super) fn block(&self, piece: u32, index: u32) -> Block {
        self.geometry.block(self.geometry.piece(piece).unwrap(), index)
    }

    /// Everything that is complete is right.
    pub(super) fn verify(&mut self) {
        for claim in self.complete.drain(..) {
            self.ledger.accept(claim.piece());
        }
    }
}

impl Work<Memory> for Desk {
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
    ) -> Option<Claim<Memory>> {
        self.claims_asked += 1;
        let size = |piece| self.geometry.piece_size(piece) as usize;
        self.ledger.claim(peer, has, after, |piece| Some(Memory(vec![0; size(piece)])))
    }
    fn claim_of(&mut self, peer: SocketAddr, pieces: &[PieceIndex]) -> Option<Claim<Memory>> {
        let size = |piece| self.geometry.piece_size(piece) as usize;
        self.ledger.claim_of(peer, pieces, |piece| Some(Memory(vec![0; size(piece)])))
    }
    fn supply(&mut self) -> u64 {
        self.ledger.supply()
    }
    fn give_back(&mut self, claim: Claim<Memory>) {
        self.ledger.give_back(claim);
    }
    fn complete(&mut self, claim: Claim<Memory>) {
        self.ledger.received(claim.piece());
        self.complete.push(claim);
    }
    fn holdings(&mut self) -> Holdings {
        self.ledger.holdings()
    }
    fn hear(&mut self, from: SocketAddr, gossip: Gossip) {
        self.heard.push((from, gossip));
    }
    fn help(&mut self, has: &Bitfield, worth: Duration, helpers: u8) -> Option<Arc<Progress>> {
        self.ledger.help(has, worth, helpers)
    }
}
