//! Who fetches what: the picker, the claims that nobody holds just now, and what is known of pieces that failed.
//!
//! One of these is shared by all peers of a download, behind one lock that is taken per piece, never per block.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::bitfield::Bitfield;
use super::claim::{Claim, Progress};
use super::picker::Picker;
use crate::meta::geometry::{Geometry, PieceIndex};

/// How many half-done claims are looked through for one that a peer can go on with.
const ORPHANS_PROBED_MAX: usize = 64;

/// The state of all pieces of a download.
#[derive(Debug)]
pub struct Ledger<L> {
    geometry: Geometry,
    picker: Picker,
    /// Claims whose peer went away with blocks already there. For the picker they are still claimed.
    orphans: Vec<Claim<L>>,
    in_flight: HashMap<PieceIndex, Arc<Progress>>,
    verified: Vec<PieceIndex>,
}

impl<L> Ledger<L> {
    /// The ledger over a picker that knows which pieces are wanted.
    pub fn new(geometry: Geometry, picker: Picker) -> Self {
        Self { geometry, picker, orphans: Vec::new(), in_flight: HashMap::new(), verified: Vec::new() }
    }

    /// The picker, for availability and counts.
    pub const fn picker(&self) -> &Picker {
        &self.picker
    }

    /// The pieces verified since the start, in order.
    pub fn verified(&self) -> &[PieceIndex] {
        &self.verified
    }

    /// Counts a peer with these pieces.
    pub fn joined(&mut self, has: &Bitfield) {
        self.picker.peer_joined(has);
    }

    /// Counts one piece more of a peer that was counted with `had`. A peer whose last piece this is counts as full
    /// from now on, as [`Ledger::left`] will take it.
    pub fn gained(&mut self, had: &Bitfield, piece: PieceIndex) {
        if had.count_ones() + 1 == self.geometry.piece_count() {
            self.picker.peer_left(had);
            self.picker.peer_joined(&Bitfield::full(self.geometry.piece_count()));
        } else {
            self.picker.peer_has(piece);
        }
    }

    /// Takes back the count of a peer with these pieces.
    pub fn left(&mut self, has: &Bitfield) {
        self.picker.peer_left(has);
    }

    /// Whether the peer has anything that is not verified yet.
    pub fn wants_any(&self, has: &Bitfield) -> bool {
        self.picker.wants_any(has) || self.in_flight.keys().any(|&piece| has.get(piece))
    }

    /// The next piece for a peer: half-done ones first, then the picker's choice. `lease` makes the right to write
    /// it; a piece for which it has none is left alone for now.
    pub fn claim(
        &mut self,
        peer: SocketAddr,
        has: &Bitfield,
        after: Option<PieceIndex>,
        lease: impl FnOnce(PieceIndex) -> Option<L>,
    ) -> Option<Claim<L>> {
        let mut probed = self.orphans.iter().take(ORPHANS_PROBED_MAX);
        if let Some(at) = probed.position(|claim| has.get(claim.piece())) {
            let mut claim = self.orphans.swap_remove(at);
            claim.hand_over(peer);
            return Some(claim);
        }
        let piece = self.picker.claim(has, after)?;
        let Some(lease) = lease(piece) else {
            self.picker.release(piece);
            return None;
        };
        let claim = Claim::new(&self.geometry, piece, lease, peer);
        self.in_flight.insert(piece, Arc::clone(claim.progress()));
        Some(claim)
    }

    /// Takes a claim back from a peer that will not finish it.
    pub fn give_back(&mut self, claim: Claim<L>) {
        if claim.is_untouched() {
            self.in_flight.remove(&claim.piece());
            self.picker.release(claim.piece());
        } else {
            self.orphans.push(claim);
        }
    }

    /// All blocks of the piece are there; it is being verified.
    pub fn received(&mut self, piece: PieceIndex) {
        self.picker.received(piece);
    }

    /// The piece is right.
    pub fn accept(&mut self, piece: PieceIndex) {
        self.in_flight.remove(&piece);
        self.picker.commit(piece);
        self.verified.push(piece);
    }

    /// The piece is wrong and wanted again.
    pub fn reject(&mut self, piece: PieceIndex) {
        self.in_flight.remove(&piece);
        self.picker.reject(piece);
    }

    /// A piece in flight that a peer with nothing else to do can help with. Each call is matched by one of
    /// [`Ledger::stop_helping`].
    pub fn help(&mut self, has: &Bitfield) -> Option<Arc<Progress>> {
        let in_flight = &self.in_flight;
        let closed =
            |piece| in_flight.get(&piece).is_none_or(|progress: &Arc<Progress>| progress.is_closed());
        let piece = self.picker.endgame(has, closed)?;
        self.in_flight.get(&piece).map(Arc::clone)
    }

    /// A helper of that piece is done with it.
    pub fn stop_helping(&mut self, piece: PieceIndex) {
        self.picker.helper_left(piece);
    }

    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        self.picker.is_complete()
    }
}
