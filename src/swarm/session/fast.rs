//! The fast extension (BEP 6), as far as it is about what to ask for: pieces that a peer serves even while it chokes,
//! pieces that it would like to serve, and what is asked of it at a choke, all of which it answers or rejects.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Claim, Fault, Incoming, PieceWriter, Session, Slot, Target, Work};
use crate::meta::geometry::{Block, PieceIndex};
use crate::wire::message;

/// Pieces that a peer may allow while it chokes: it sends about ten. Those above are ignored.
pub const ALLOWED_MAX: usize = 32;
/// Suggestions that are kept, the latest.
pub const SUGGESTED_MAX: usize = 16;
/// A choking peer of whose allowed pieces none is free waits so long before it looks again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a peer of the fast extension has said.
#[derive(Debug, Default)]
pub(super) struct Fast {
    /// Pieces that may be asked for while it chokes.
    allowed: Vec<PieceIndex>,
    /// Pieces that it would like to be asked for, the latest last.
    suggested: VecDeque<PieceIndex>,
    look_again_at: Option<Instant>,
    /// Requests that were unanswered when it choked. The rejection of so many says nothing new.
    rejects_due: usize,
}

impl Fast {
    /// Notes that requests will be rejected since the peer chokes. Returns whether that was known of all of them.
    pub(super) const fn on_choke(&mut self, outstanding: usize) -> bool {
        let was_known = outstanding <= self.rejects_due;
        self.rejects_due = outstanding;
        was_known
    }

    /// Whether the rejection that came was to be expected after a choke.
    pub(super) const fn was_due(&mut self) -> bool {
        let was_due = self.rejects_due > 0;
        self.rejects_due = self.rejects_due.saturating_sub(1);
        was_due
    }

    /// A piece that was rejected while the peer chokes is not allowed, whatever it said.
    pub(super) fn forbid(&mut self, piece: PieceIndex) {
        self.allowed.retain(|&allowed| allowed != piece);
    }
}

impl<L: PieceWriter> Session<L> {
    /// Messages of the extension may come only if both have announced it in their handshakes.
    pub(super) const fn check_fast(&self) -> Result<(), Fault> {
        if self.terms.fast { Ok(()) } else { Err(Fault::FastNotAgreed) }
    }

    /// A piece that does not exist is no piece to ask for, and nothing worse.
    pub(super) fn on_allowed_fast(&mut self, index: u32) -> Result<(), Fault> {
        self.check_fast()?;
        let fast = &mut self.fast;
        if let Some(piece) = self.geometry.piece(index)
            && fast.allowed.len() < ALLOWED_MAX
            && !fast.allowed.contains(&piece)
        {
            fast.allowed.push(piece);
            fast.look_again_at = None;
        }
        Ok(())
    }

    pub(super) fn on_suggest(&mut self, index: u32) -> Result<(), Fault> {
        self.check_fast()?;
        let suggested = &mut self.fast.suggested;
        if let Some(piece) = self.geometry.piece(index)
            && !suggested.contains(&piece)
        {
            if suggested.len() == SUGGESTED_MAX {
                suggested.pop_front();
            }
            suggested.push_back(piece);
        }
        Ok(())
    }

    /// The first of the suggested pieces that nobody fetches. What is behind it stays for the next time.
    pub(super) fn claim_suggested(&mut self, work: &mut impl Work<L>) -> Option<Claim<L>> {
        if self.fast.suggested.is_empty() {
            return None;
        }
        let mut pieces: Vec<_> = self.fast.suggested.drain(..).filter(|&piece| self.has.get(piece)).collect();
        let claim = work.claim_of(self.addr, &pieces)?;
        let at = pieces.iter().position(|&piece| piece == claim.piece());
        self.fast.suggested.extend(pieces.drain(at.map_or(0, |at| at + 1)..));
        Some(claim)
    }

    /// Asks a choking peer for blocks of the pieces that it allows, and gives back what it does not.
    pub(super) fn fill_choked(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if self.claims_away {
            return;
        }
        if self.may_ask_choked(now) {
            let window = self.pipeline.window();
            while self.requests.len() < window {
                let Some((slot, block)) = self.next_allowed(now, work) else { break };
                self.requests.push(block, Target::Own(slot));
                message::write_request(out, block);
            }
        }
        self.give_back_choked(work);
    }

    /// Not before all requests from before the choke are answered.
    fn may_ask_choked(&self, now: Instant) -> bool {
        !self.fast.allowed.is_empty()
            && self.interested
            && self.snub.is_none()
            && (self.fast.rejects_due == 0 || self.outstanding() == 0)
            && !self.is_refusing(now)
    }

    fn next_allowed(&mut self, now: Instant, work: &mut impl Work<L>) -> Option<(Slot, Block)> {
        loop {
            let allowed = &self.fast.allowed;
            if let Some(next) = self.claims.next_block_of(|piece| allowed.contains(&piece)) {
                return Some(next);
            }
            if self.fast.look_again_at.is_some_and(|at| now < at) {
                return None;
            }
            let has = |piece: &PieceIndex| self.has.get(*piece);
            let pieces: Vec<_> = allowed.iter().copied().filter(has).collect();
            let claim = if pieces.is_empty() { None } else { work.claim_of(self.addr, &pieces) };
            let Some(claim) = claim else {
                self.fast.look_again_at = Some(now + LOOK_AGAIN_AFTER);
                return None;
            };
            self.begin(claim, work);
        }
    }

    /// Others can have what a choking peer was not asked for.
    fn give_back_choked(&mut self, work: &mut impl Work<L>) {
        if self.outstanding() == 0 {
            self.fast.rejects_due = 0;
            if !self.claims.is_empty() {
                self.drop_claims(work);
            }
            return;
        }
        for (slot, piece) in self.claims.slots() {
            let is_arriving = matches!(self.incoming, Incoming::Own(arriving, _) if arriving == slot);
            let is_asked = is_arriving || self.requests.last_of(slot).is_some();
            if !is_asked
                && !self.fast.allowed.contains(&piece)
                && let Some(claim) = self.claims.take(slot)
            {
                self.let_go(claim, work);
            }
        }
    }
}
