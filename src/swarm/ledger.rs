//! Who fetches what: the picker, the claims that nobody holds just now, and what is known of pieces that failed.
//!
//! One of these is shared by all peers of a download, behind one lock that is taken per piece, never per block.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bitfield::Bitfield;
use super::claim::{Claim, Mailroom, Progress};
use super::picker::{Picker, PieceState};
use super::session::Holdings;
use super::trial::{Trial, Verdict};
use crate::meta::geometry::{Geometry, PieceIndex};

/// Half-done claims that are kept for a peer to go on with. What was received of the oldest is given up for more.
pub const ORPHANS_MAX: usize = 1024;

/// So often in a row a piece that was wrong is begun by one peer alone and not finished, before several may again.
const SOLO_TRIES_MAX: u32 = 3;
/// A piece that was wrong is helped with where one peer alone would take so long, which is long enough to see who is
/// slow.
const SOLO_LAG_MAX: Duration = Duration::from_secs(10);
/// A piece that was wrong so often is not, however long it takes.
const SOLO_FAILURES_MAX: u32 = 3;

/// Pieces that were wrong and that a peer has to leave to others, until it is told that there is none for it.
const REFUSED_MAX: usize = 8;
/// So often a piece that was wrong is refused to each peer that has to leave it to others, while no other takes it. A
/// peer asks some twenty times a second.
const REFUSALS_PER_PEER: usize = 8;
/// Peers that have to leave a piece to others. Where there are more, all get another chance.
const POSTPONED_MAX: usize = 4096;

/// Before the end only pieces that will take so long are helped with.
const HELP_MIDWAY_LAG: Duration = Duration::from_secs(5);

/// A piece that was wrong and has not been right since.
#[derive(Debug, Default)]
struct Failed {
    times: u32,
    /// How often it was claimed since the last time.
    tries: u32,
    /// Those who have not passed the trial: others go before them.
    postponed: HashSet<SocketAddr>,
    /// How often it was refused to them since it was claimed.
    refusals: usize,
}

impl Failed {
    /// From which lag on the next claim is helped with.
    fn help_from(&self) -> Duration {
        match self {
            Self { tries, .. } if *tries > SOLO_TRIES_MAX => Duration::ZERO,
            Self { times, .. } if *times < SOLO_FAILURES_MAX => SOLO_LAG_MAX,
            _ => Duration::MAX,
        }
    }

    /// Whether that peer has to leave the piece to others; not if there are none.
    fn refuses(&mut self, peer: SocketAddr) -> bool {
        let refuses =
            self.postponed.contains(&peer) && self.refusals < REFUSALS_PER_PEER * self.postponed.len();
        self.refusals += usize::from(refuses);
        refuses
    }

    fn postpone(&mut self, peer: SocketAddr) {
        if self.postponed.len() == POSTPONED_MAX {
            self.postponed.clear();
        }
        self.postponed.insert(peer);
    }
}

/// The state of all pieces of a download.
#[derive(Debug)]
pub struct Ledger<L> {
    geometry: Geometry,
    picker: Picker,
    /// Claims whose peer went away with blocks already there. For the picker they are still claimed.
    orphans: VecDeque<Claim<L>>,
    in_flight: HashMap<PieceIndex, Arc<Progress>>,
    /// Pieces that were there at the start.
    kept: Bitfield,
    verified: Vec<PieceIndex>,
    failed: HashMap<PieceIndex, Failed>,
    supply: u64,
    mailroom: Arc<Mailroom>,
}

impl<L> Ledger<L> {
    /// The ledger over a picker that knows which pieces are wanted.
    pub fn new(geometry: Geometry, picker: Picker) -> Self {
        Self {
            geometry,
            picker,
            orphans: VecDeque::new(),
            in_flight: HashMap::new(),
            kept: Bitfield::new(geometry.piece_count()),
            verified: Vec::new(),
            failed: HashMap::new(),
            supply: 0,
            mailroom: Arc::default(),
        }
    }

    /// The same, of a download for which these pieces were there at the start.
    pub fn keeping(mut self, kept: Bitfield) -> Self {
        self.kept = kept;
        self
    }

    /// What peers are told that we have.
    pub fn holdings(&self) -> Holdings {
        let mut pieces = self.kept.clone();
        for &piece in &self.verified {
            pieces.set(piece);
        }
        Holdings { pieces, verified: self.verified.len() }
    }

    /// The picker, for availability and counts.
    pub const fn picker(&self) -> &Picker {
        &self.picker
    }

    /// The pieces verified since the start, in order.
    pub fn verified(&self) -> &[PieceIndex] {
        &self.verified
    }

    /// How many half-done pieces wait for a peer to go on with them.
    pub fn orphan_count(&self) -> usize {
        self.orphans.len()
    }

    /// How often something became claimable again. While this does not change, a peer for which
    /// [`Ledger::claim`] found nothing need not ask again, unless it got more pieces.
    pub const fn supply(&self) -> u64 {
        self.supply
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
        self.picker.wants_any(has)
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
        if let Some(at) = self.orphans.iter().position(|claim| has.get(claim.piece())) {
            return self.adopt(at, peer);
        }
        let piece = self.pick(peer, has, after)?;
        self.begin(peer, piece, lease)
    }

    /// The picker's choice among the pieces that the peer need not leave to others.
    fn pick(&mut self, peer: SocketAddr, has: &Bitfield, after: Option<PieceIndex>) -> Option<PieceIndex> {
        let mut refused = Vec::new();
        let piece = loop {
            let Some(piece) = self.picker.claim(has, after) else { break None };
            if !self.refuses(peer, piece) {
                break Some(piece);
            }
            refused.push(piece);
            if refused.len() == REFUSED_MAX {
                break None;
            }
        };
        for piece in refused {
            self.picker.release(piece);
        }
        piece
    }

    /// Whether the peer has to leave a piece to others. It should look again then.
    fn refuses(&mut self, peer: SocketAddr, piece: PieceIndex) -> bool {
        // Nearly always empty, and looking into it costs a hash.
        let refuses =
            !self.failed.is_empty() && self.failed.get_mut(&piece).is_some_and(|failed| failed.refuses(peer));
        self.supply += u64::from(refuses);
        refuses
    }

    /// The first of these pieces, in their order, that is half-done or free; `lease` as for [`Ledger::claim`].
    pub fn claim_of(
        &mut self,
        peer: SocketAddr,
        pieces: &[PieceIndex],
        lease: impl FnOnce(PieceIndex) -> Option<L>,
    ) -> Option<Claim<L>> {
        for &piece in pieces {
            if let Some(at) = self.orphans.iter().position(|claim| claim.piece() == piece) {
                return self.adopt(at, peer);
            }
            // A piece that another fetches is not there to be refused.
            let is_free = self.picker.state(piece) == PieceState::Wanted;
            if is_free && !self.refuses(peer, piece) && self.picker.claim_piece(piece) {
                return self.begin(peer, piece, lease);
            }
        }
        None
    }

    fn adopt(&mut self, at: usize, peer: SocketAddr) -> Option<Claim<L>> {
        let mut claim = self.orphans.remove(at)?;
        claim.hand_over(peer);
        Some(claim)
    }

    /// Makes the claim of a piece that the picker has given out.
    fn begin(
        &mut self,
        peer: SocketAddr,
        piece: PieceIndex,
        lease: impl FnOnce(PieceIndex) -> Option<L>,
    ) -> Option<Claim<L>> {
        let Some(lease) = lease(piece) else {
            self.picker.release(piece);
            return None;
        };
        let mut is_doubted = false;
        let help_from = self.failed.get_mut(&piece).map_or(Duration::ZERO, |failed| {
            failed.tries += 1;
            failed.refusals = 0;
            is_doubted = !failed.postponed.contains(&peer) && !failed.help_from().is_zero();
            failed.help_from()
        });
        let claim = Claim::new(&self.geometry, piece, lease, peer, help_from, &self.mailroom);
        let claim = if is_doubted { claim.doubted() } else { claim };
        self.in_flight.insert(piece, Arc::clone(claim.progress()));
        Some(claim)
    }

    /// Takes a claim back from a peer that will not finish it.
    pub fn give_back(&mut self, claim: Claim<L>) {
        self.supply += 1;
        if let Some(verdict) = claim.trial().and_then(Trial::verdict)
            && let Some(failed) = self.failed.get_mut(&claim.piece())
        {
            // That was no try of the piece.
            failed.tries = failed.tries.saturating_sub(1);
            if verdict == Verdict::Suspect {
                failed.postpone(claim.owner());
            }
        }
        // Nobody will read what helpers send until somebody holds the claim again.
        claim.progress().set_lag(Duration::ZERO);
        if claim.is_untouched() || !claim.can_be_handed_over() {
            return self.give_up(&claim);
        }
        if self.orphans.len() == ORPHANS_MAX
            && let Some(oldest) = self.orphans.pop_front()
        {
            self.give_up(&oldest);
        }
        self.orphans.push_back(claim);
    }

    fn give_up(&mut self, claim: &Claim<L>) {
        claim.progress().close();
        self.in_flight.remove(&claim.piece());
        self.picker.release(claim.piece());
    }

    /// All blocks of the piece are there; it is being verified.
    pub fn received(&mut self, piece: PieceIndex) {
        self.picker.received(piece);
    }

    /// The piece is right.
    pub fn accept(&mut self, piece: PieceIndex) {
        // Nearly always empty, and looking into it costs a hash.
        if !self.failed.is_empty() {
            self.failed.remove(&piece);
        }
        self.in_flight.remove(&piece);
        self.picker.commit(piece);
        self.verified.push(piece);
    }

    /// The piece is wrong and wanted again, from one peer alone if that can be: either it is right then, which shows
    /// who lied before, or that peer lies. With several sources each time, a liar could spoil it for ever and not be
    /// found.
    pub fn reject(&mut self, piece: PieceIndex) {
        let failed = self.failed.entry(piece).or_default();
        failed.times += 1;
        failed.tries = 0;
        self.supply += 1;
        self.in_flight.remove(&piece);
        self.picker.reject(piece);
    }

    /// The piece in flight that will take the longest, of those that a peer with these pieces can help with: which
    /// take longer than `worth`, and have a block that no more than `helpers` were asked for.
    ///
    /// While pieces are free, whoever holds one has `HELP_MIDWAY_LAG` for it: a peer that lacks all that are free is no
    /// sign of the end, and would fetch a second time what is on its way. Who has to show that it is there, and so
    /// helps anyone, is not held to that.
    pub fn help(&self, has: &Bitfield, worth: Duration, helpers: u8) -> Option<Arc<Progress>> {
        let is_end = self.picker.free() == 0 || worth.is_zero();
        let worth = if is_end { worth } else { worth.max(HELP_MIDWAY_LAG) };
        let mut longest: Option<&Arc<Progress>> = None;
        for progress in self.in_flight.values().filter(|progress| has.get(progress.piece())) {
            // Ties are broken, so that the order of a hash table decides nothing.
            let rank = |progress: &Progress| (progress.lag(), progress.piece());
            let is_longer = longest.is_none_or(|longest| rank(progress) > rank(longest));
            if progress.lag() > worth && is_longer && progress.can_ask(helpers) {
                longest = Some(progress);
            }
        }
        longest.map(Arc::clone)
    }

    /// Whether every piece that is not complete is claimed.
    pub fn is_endgame(&self) -> bool {
        self.picker.free() == 0 && self.in_flight.values().any(|progress| !progress.is_closed())
    }

    /// Whether no piece is missing any block: all that is left is to verify what has come.
    pub fn has_all_blocks(&self) -> bool {
        self.picker.free() == 0 && self.in_flight.values().all(|progress| progress.is_closed())
    }

    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        self.picker.is_complete()
    }
}

#[cfg(test)]
mod tests;
