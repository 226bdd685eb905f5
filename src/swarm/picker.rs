//! Which piece to ask of whom: rarest first, contiguous where that is a tie.
//!
//! A piece is *free* while it is wanted and nobody has claimed it. A peer *claims* whole pieces; a claim ends as
//! received (the piece is verifying) or released (free again), and verifying ends as committed or rejected:
//!
//! ```text
//!             claim              received              commit
//!   Wanted ──────────▶ Claimed ───────────▶ Verifying ─────────▶ Have
//!     ▲                   │ release             │ reject
//!     └───────────────────┴─────────────────────┘
//! ```
//!
//! The one claim is what makes a piece's bytes have one owner. Peers that help with a claimed piece at the end do not
//! own it, and the picker knows nothing of them.
//!
//! A claim looks at the rarest free pieces that the peer has. Among equally rare ones it takes the one behind the
//! peer's last, so that a fast peer writes the disk in order, or else goes where other peers are at work: the content
//! is cut into *extents* of 4 MiB, and those that were begun are finished before another is begun, at random.
//! So hundreds of peers write to a few places, which the page cache holds in large pages, instead of to hundreds.
//!
//! Where the content is wanted in order, a claim takes the first free piece that the peer has.
//!
//! Cost: a claim tries at most [`PROBES_MAX`] pieces and, where none of them hits, because the peer has few of the free
//! ones, it scans words of 64 pieces. It compares some hundred pieces of the begun extents. Pieces that change state or
//! count take a step for each possible count of peers, at most. Only a peer that comes or goes with a part of the
//! pieces costs a step a piece, and one pass over the free pieces at the next claim. Memory: 11.25 bytes a piece.

use smallvec::SmallVec;

use super::bitfield::{Bitfield, ones_of_word};
use super::random::Random;
use super::rarity::Rarity;
use crate::meta::geometry::{Geometry, PieceIndex};

/// How far a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceState {
    /// Not to be downloaded.
    Unwanted,
    /// Free: to be downloaded, by nobody yet.
    Wanted,
    /// Some peer downloads it.
    Claimed,
    /// All bytes are here and are being hashed.
    Verifying,
    /// Here and correct.
    Have,
}

/// Hands out the pieces of one torrent. At most 65 535 peers may be joined at a time.
///
/// Each transition panics where the piece is not in the state that it starts from: that is an error of the caller,
/// never of a peer.
#[derive(Debug)]
pub struct Picker {
    geometry: Geometry,
    states: Vec<PieceState>,
    /// The pieces in [`PieceState::Wanted`].
    free: Bitfield,
    /// The pieces that are wanted and not yet [`PieceState::Have`].
    missing: Bitfield,
    /// Counts the peers that have a piece, but for those counted in `seeds`.
    rarity: Rarity,
    /// Peers with all pieces that are not counted piece by piece.
    seeds: u32,
    /// Extents with claimed pieces and, when last looked at, free ones; the oldest first.
    begun: SmallVec<[u32; EXTENTS_BEGUN_MAX]>,
    /// Pieces of an extent.
    extent_pieces: u32,
    random: Random,
    /// Whether pieces are claimed from the first to the last, however rare they are.
    in_order: bool,
}

/// What a look at the rarest pieces found.
enum Probe {
    /// One of the rarest free pieces of the peer.
    Found(PieceIndex),
    /// The peer has no free piece.
    Nothing,
    /// Too many pieces were tried.
    GaveUp,
}

impl Picker {
    /// A picker of the `wanted` pieces, with no peers. The seed decides all random choices.
    pub fn new(geometry: Geometry, wanted: &Bitfield, seed: u64) -> Self {
        let piece_count = geometry.piece_count();
        assert_eq!(wanted.len(), piece_count, "the wanted pieces are those of another torrent");
        let state = |piece| if wanted.get(piece) { PieceState::Wanted } else { PieceState::Unwanted };
        Self {
            geometry,
            states: geometry.pieces().map(state).collect(),
            free: wanted.clone(),
            missing: wanted.clone(),
            rarity: Rarity::new(piece_count),
            seeds: 0,
            begun: SmallVec::new(),
            extent_pieces: (EXTENT_LEN / geometry.piece_len()).clamp(1, EXTENT_PIECES_MAX),
            random: Random::new(seed),
            in_order: false,
        }
    }

    /// The same picker, which claims pieces from the first to the last.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// How far the piece is.
    pub fn state(&self, piece: PieceIndex) -> PieceState {
        self.states[piece.at()]
    }

    /// How many joined peers have the piece.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        u32::from(self.rarity.count(piece)) + self.seeds
    }

    /// How many wanted pieces are not yet [`PieceState::Have`].
    pub const fn remaining(&self) -> u32 {
        self.missing.count_ones()
    }

    /// Whether every wanted piece is [`PieceState::Have`].
    pub const fn is_complete(&self) -> bool {
        self.remaining() == 0
    }

    /// How many pieces wait to be claimed.
    pub const fn free(&self) -> u32 {
        self.free.count_ones()
    }

    /// Whether a peer with these pieces has one that is wanted and not yet [`PieceState::Have`], claimed or not: then
    /// we are interested (BEP 3).
    pub fn wants_any(&self, has: &Bitfield) -> bool {
        if has.is_full() { !self.is_complete() } else { has.intersects(&self.missing) }
    }

    /// A peer with these pieces came.
    pub fn peer_joined(&mut self, has: &Bitfield) {
        if has.is_full() {
            self.seeds += 1;
        } else {
            self.rarity.change_all(has, &self.free, &self.geometry, Rarity::raise);
        }
    }

    /// A peer that had joined without this piece has it now.
    pub fn peer_has(&mut self, piece: PieceIndex) {
        self.rarity.raise(piece, self.free.get(piece));
    }

    /// A peer went that has these pieces by now: those of [`Picker::peer_joined`] and of every [`Picker::peer_has`].
    pub fn peer_left(&mut self, has: &Bitfield) {
        // Which of the full peers goes does not matter: one that grew full was counted piece by piece, but leaves the
        // same sums behind as one that came full.
        if has.is_full() && self.seeds > 0 {
            self.seeds -= 1;
        } else {
            self.rarity.change_all(has, &self.free, &self.geometry, Rarity::lower);
        }
    }

    /// Claims a piece for a peer with these pieces: the rarest free one (of very many, one of the rarest). Of equally
    /// rare ones it is the one behind `after`, the piece that the peer claimed last, or else one of an extent that was
    /// begun, or else a random one, at the start of a run of free pieces if there is one near. `None` says that the
    /// peer has no free piece.
    pub fn claim(&mut self, has: &Bitfield, after: Option<PieceIndex>) -> Option<PieceIndex> {
        if self.free.count_ones() == 0 {
            return None;
        }
        self.rarity.settle(&self.free, &self.geometry);
        let piece = self.choose(has, after)?;
        self.take_free(piece);
        Some(piece)
    }

    /// Claims that piece. `false` if it is not free.
    pub fn claim_piece(&mut self, piece: PieceIndex) -> bool {
        if !self.free.get(piece) {
            return false;
        }
        self.rarity.settle(&self.free, &self.geometry);
        self.take_free(piece);
        true
    }

    fn take_free(&mut self, piece: PieceIndex) {
        self.move_piece(piece, PieceState::Wanted, PieceState::Claimed);
        self.rarity.remove(piece);
        self.free.clear(piece);
        self.begin_extent(piece);
    }

    /// A claimed piece is given up: it is free again.
    pub fn release(&mut self, piece: PieceIndex) {
        self.move_piece(piece, PieceState::Claimed, PieceState::Wanted);
        self.make_free(piece);
    }

    /// All bytes of a claimed piece are here.
    pub fn received(&mut self, piece: PieceIndex) {
        self.move_piece(piece, PieceState::Claimed, PieceState::Verifying);
    }

    /// A verifying piece is correct.
    pub fn commit(&mut self, piece: PieceIndex) {
        self.move_piece(piece, PieceState::Verifying, PieceState::Have);
        self.missing.clear(piece);
    }

    /// A verifying piece is not correct: it is free again.
    pub fn reject(&mut self, piece: PieceIndex) {
        self.move_piece(piece, PieceState::Verifying, PieceState::Wanted);
        self.make_free(piece);
    }

    fn choose(&mut self, has: &Bitfield, after: Option<PieceIndex>) -> Option<PieceIndex> {
        if self.in_order {
            let first = self.free.common_in(has, 0..self.free.len()).next()?;
            return self.geometry.piece(first);
        }
        let next = after
            .and_then(|piece| self.geometry.piece(piece.get() + 1))
            .filter(|&piece| self.is_free_at(piece, has));
        let piece = match self.probe(has, next) {
            Probe::Found(piece) => piece,
            Probe::Nothing => return None,
            Probe::GaveUp => self.scan(has)?,
        };
        let count = self.rarity.count(piece);
        let next = next.filter(|&next| self.rarity.count(next) <= count);
        next.filter(|&next| self.begun.contains(&self.extent(next)))
            .or_else(|| self.in_begun_extent(has, count))
            .or(next)
            .or_else(|| Some(self.start_of_run(piece, has)))
    }

    const fn extent(&self, piece: PieceIndex) -> u32 {
        piece.get() / self.extent_pieces
    }

    /// A free piece of the peer, no less rare than `count` says, in an extent that was begun.
    fn in_begun_extent(&mut self, has: &Bitfield, count: u16) -> Option<PieceIndex> {
        let (free, extent_pieces) = (&self.free, self.extent_pieces);
        let pieces = |extent: u32| {
            let start = extent * extent_pieces;
            start..start.saturating_add(extent_pieces).min(free.len())
        };
        self.begun.retain(|extent| free.common_in(free, pieces(*extent)).next().is_some());
        self.begun
            .iter()
            .flat_map(|&extent| free.common_in(has, pieces(extent)))
            .take(EXTENT_CANDIDATES_MAX)
            .filter_map(|index| self.geometry.piece(index))
            .find(|&piece| self.rarity.count(piece) <= count)
    }

    /// Notes that the extent of a piece was begun. The oldest is forgotten for it where many are.
    fn begin_extent(&mut self, piece: PieceIndex) {
        let extent = self.extent(piece);
        if self.extent_pieces > 1 && !self.begun.contains(&extent) {
            if self.begun.len() == EXTENTS_BEGUN_MAX {
                self.begun.remove(0);
            }
            self.begun.push(extent);
        }
    }

    /// Looks for the rarest free pieces of a peer, from a random one on in each bucket. Ends early at the bucket of
    /// `next`, if that is a free piece of the peer.
    fn probe(&mut self, has: &Bitfield, next: Option<PieceIndex>) -> Probe {
        // What a peer without all pieces has is counted at least once: for itself.
        let least = u16::from(!has.is_full());
        let mut probes = 0;
        for (count, bucket) in self.rarity.buckets(least).filter(|(_, bucket)| !bucket.is_empty()) {
            if let Some(next) = next.filter(|&next| self.rarity.count(next) == count) {
                return Probe::Found(next);
            }
            let (before, from) = bucket.split_at(self.random.below(bucket.len()));
            for &piece in from.iter().chain(before) {
                if has.get(piece) {
                    return Probe::Found(piece);
                }
                probes += 1;
                if probes == PROBES_MAX {
                    return Probe::GaveUp;
                }
            }
        }
        Probe::Nothing
    }

    /// The rarest of the first free pieces of a peer, from a random word of 64 pieces on.
    fn scan(&mut self, has: &Bitfield) -> Option<PieceIndex> {
        let words = self.free.words().len();
        let from = self.random.below(words);
        (from..words)
            .chain(0..from)
            .flat_map(|at| ones_of_word(self.free.words()[at] & has.words()[at], at as u32))
            .take(CANDIDATES_MAX)
            .filter_map(|index| self.geometry.piece(index))
            .min_by_key(|&piece| self.rarity.count(piece))
    }

    /// The first of the equally rare free pieces that end in `piece`, if it is near. Not where the piece before it is
    /// claimed: whoever holds that will want to go on here.
    fn start_of_run(&self, piece: PieceIndex, has: &Bitfield) -> PieceIndex {
        let mut start = piece;
        for _ in 0..RUN_MAX {
            let before = start.get().checked_sub(1).and_then(|index| self.geometry.piece(index));
            match before {
                Some(before) if self.state(before) == PieceState::Claimed => return piece,
                Some(before)
                    if self.is_free_at(before, has)
                        && self.rarity.count(before) == self.rarity.count(piece) =>
                {
                    start = before;
                }
                _ => return start,
            }
        }
        piece
    }

    fn is_free_at(&self, piece: PieceIndex, has: &Bitfield) -> bool {
        self.free.get(piece) && has.get(piece)
    }

    fn make_free(&mut self, piece: PieceIndex) {
        self.free.set(piece);
        self.rarity.insert(piece);
    }

    fn move_piece(&mut self, piece: PieceIndex, from: PieceState, to: PieceState) {
        let state = &mut self.states[piece.at()];
        assert_eq!(*state, from, "piece {piece} cannot become {to:?}");
        *state = to;
    }
}

/// Pieces that a claim tries, before it scans words for what the peer has.
pub const PROBES_MAX: usize = 256;

/// Bytes of an extent. Two of the largest pages of the page cache, so that one is whole wherever the pieces begin.
const EXTENT_LEN: u32 = 4 << 20;

/// Pieces of an extent, however small they are: a claim looks through its words.
const EXTENT_PIECES_MAX: u32 = 4096;

/// Free pieces of extents that a claim compares.
const EXTENT_CANDIDATES_MAX: usize = 256;

/// Extents that are kept in mind. Peers that have different pieces begin different ones.
const EXTENTS_BEGUN_MAX: usize = 16;

/// Pieces that such a scan compares.
const CANDIDATES_MAX: usize = 64;

/// How far before a random piece the start of its run is looked for.
const RUN_MAX: usize = 64;

#[cfg(test)]
mod tests;
