//! What is asked of a peer: its own claims, block by block, and what becomes of them when it refuses.

use std::time::{Duration, Instant};

use super::clock::UNSENT_MAX;
use super::{Claim, Fault, Incoming, PieceWriter, RawBlock, Session, Slot, Target, Work};
use crate::meta::geometry::{BLOCK_LEN, Block};
use crate::wire::message;

/// How often a peer that found nothing to claim looks whether that has changed.
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The wait after a peer refused all it was asked for; it doubles each time.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
/// After so many such times in a row, over some 15 s, the peer is closed.
const REFUSALS_MAX: u32 = 6;

/// A peer that gave its pieces back leaves others so long to claim them.
const CHOKED_PAUSE: Duration = Duration::from_millis(200);

/// A piece that one peer alone is to fetch goes back when it will take that one so long; nobody else could have it.
const STUCK_LAG_MIN: Duration = Duration::from_secs(30);
/// Others have so long to claim it.
const STUCK_PAUSE: Duration = Duration::from_secs(1);

/// There was nothing to claim for a peer, or it shall not look.
#[derive(Debug)]
pub(super) struct Dry {
    /// [`Work::supply`] at that time; `None` if it did not look, or has got more pieces since.
    supply: Option<u64>,
    /// When the supply is looked at.
    look_again_at: Instant,
    /// From when on new pieces of the peer are reason enough to look.
    claim_again_at: Instant,
}

impl Dry {
    /// The peer has looked in vain, when `supply` was the number.
    fn looked(supply: u64, now: Instant) -> Self {
        let again_at = now + CLAIM_AGAIN_AFTER;
        Self { supply: Some(supply), look_again_at: again_at, claim_again_at: again_at }
    }

    /// The peer shall not look before then, whatever it tells.
    const fn until(again_at: Instant) -> Self {
        Self { supply: None, look_again_at: again_at, claim_again_at: again_at }
    }

    /// The supply, where a claim may find something: asking the picker for what it has not is dear.
    fn look<L>(&mut self, now: Instant, work: &mut impl Work<L>) -> Option<u64> {
        if now < self.look_again_at {
            return None;
        }
        self.look_again_at = now + CLAIM_AGAIN_AFTER;
        let supply = work.supply();
        (self.supply != Some(supply)).then_some(supply)
    }

    /// The peer has more pieces. A pause stays one, and however many HAVEs come, it looks only so often.
    pub(super) fn on_news(&mut self) {
        self.supply = None;
        self.look_again_at = self.look_again_at.min(self.claim_again_at);
    }
}

/// What a peer's REJECTs (BEP 6) come to, and its chokes. Some among blocks only say that it was asked for too much.
/// One that refuses everything is left alone for a while, or the two would go round in a circle as fast as the network
/// carries them.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// A REJECT came since the last block: the rest of the answers is waited for.
    pending: bool,
    /// How often in a row it refused everything.
    in_a_row: u32,
    pause_until: Option<Instant>,
}

impl Refusals {
    /// A block came that was still wanted.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }

    /// The peer refused all it was asked for: it is asked again after that pause, which doubles each time.
    fn count(&mut self, now: Instant, pause: Duration) -> Result<(), Fault> {
        if self.in_a_row == REFUSALS_MAX {
            return Err(Fault::Refusing { times: REFUSALS_MAX });
        }
        self.pause_until = Some(now + pause * (1 << self.in_a_row));
        self.in_a_row += 1;
        self.pending = false;
        Ok(())
    }
}

impl<L: PieceWriter> Session<L> {
    /// Asks for as many blocks as the window allows. Call after each batch of received messages.
    pub fn fill(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let before = out.len();
        self.show_interest(work, out);
        self.give_back_failed_trials(work, out);
        self.housekeep(now, work, out);
        if out.len() > UNSENT_MAX {
            self.on_unread(work);
        } else if self.may_ask(now) {
            if let Some(snub) = &self.snub {
                // It need only show that it is there. What it takes of its own, others cannot have.
                let may_claim = now >= snub.claim_at;
                self.request_help(now, work, out);
                if may_claim && self.outstanding() == 0 {
                    self.request_own(now, work, out);
                }
            } else {
                self.request_own(now, work, out);
                self.request_help(now, work, out);
            }
        } else if self.choked {
            self.fill_choked(now, work, out);
        }
        self.note_debt(now);
        if out.len() > before {
            self.last_said = now;
        }
    }

    fn show_interest(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if self.has_news {
            self.introduce(work, out);
        }
        // Wanted pieces only ever become fewer, so nothing else makes a peer interesting.
        if std::mem::take(&mut self.has_news) && !self.interested && work.wants_any(&self.has) {
            self.interested = true;
            message::write_interested(out);
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        !self.choked && self.interested && !self.claims_away && !self.is_refusing(now)
    }

    /// Whether it has just refused what it was asked for.
    pub(super) fn is_refusing(&self, now: Instant) -> bool {
        let is_paused = self.refusals.pause_until.is_some_and(|until| now < until);
        is_paused || (self.refusals.pending && self.outstanding() > 0)
    }

    /// The peer does not read, so it is asked for nothing. What it owes nothing of, others could fetch.
    fn on_unread(&mut self, work: &mut impl Work<L>) {
        if self.outstanding() == 0 && !self.claims_away && !self.claims.is_empty() {
            self.drop_claims(work);
        }
    }

    fn request_own(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let window = self.pipeline.window();
        while self.requests.len() < window {
            let Some((slot, block)) = self.claims.next_block().or_else(|| self.claim_next(now, work)) else {
                break;
            };
            self.requests.push(block, Target::Own(slot));
            message::write_request(out, block);
        }
    }

    /// Claims pieces until one has a block to ask for: one that came half-done may be finished by its mailbox.
    fn claim_next(&mut self, now: Instant, work: &mut impl Work<L>) -> Option<(Slot, Block)> {
        let mut supply = match &mut self.dry {
            None => None,
            Some(dry) => Some(dry.look(now, work)?),
        };
        loop {
            let claim = self.claim_suggested(work);
            let claim = claim.or_else(|| work.claim(self.addr, &self.has, self.last_claimed));
            let Some(claim) = claim else {
                // What was given back since the claim would be overlooked, so the number is from before it.
                let Some(supply) = supply else {
                    supply = Some(work.supply());
                    continue;
                };
                self.dry = Some(Dry::looked(supply, now));
                return None;
            };
            self.begin(claim, work);
            if let Some(next) = self.claims.next_block() {
                return Some(next);
            }
        }
    }

    /// Begins with a piece, which may be complete with what helpers have sent.
    pub(super) fn begin(&mut self, mut claim: Claim<L>, work: &mut impl Work<L>) {
        self.dry = None;
        self.last_claimed = Some(claim.piece());
        self.tally.wasted += claim.open_mail(|_| {});
        if claim.is_complete() {
            self.complete(claim, work);
        } else {
            self.take_in(claim);
        }
    }

    /// Takes in a claim. If this peer was helping with it, what it was asked for and is still missing is now for
    /// itself.
    fn take_in(&mut self, claim: Claim<L>) {
        self.claims.insert(claim, &self.geometry);
        self.requests.adopt_helps(|block| self.claims.adopt(block));
        if let Incoming::Help(_, block, bytes) = &self.incoming
            && let Some(slot) = self.claims.adopt(*block)
        {
            self.claims.write(slot, block.begin, bytes);
            self.incoming = Incoming::Own(slot, *block);
        }
    }

    /// All blocks of the claim are there.
    pub(super) fn complete(&mut self, claim: Claim<L>, work: &mut impl Work<L>) {
        self.tally.wasted += claim.discard_mail();
        work.complete(claim);
    }

    /// Takes a choke. A peer drops what was asked of it then (BEP 3), so nobody should wait for it; one of the fast
    /// extension answers or rejects each (BEP 6), and is waited for. Who chokes again and again and never sends a block
    /// refuses everything.
    pub(super) fn on_choke(&mut self, now: Instant, work: &mut impl Work<L>) -> Result<(), Fault> {
        let outstanding = self.outstanding();
        self.choked = true;
        let was_known = if self.terms.fast && outstanding > 0 {
            self.fast.on_choke(outstanding)
        } else {
            self.forget_requests();
            self.drop_claims(work);
            false
        };
        self.dry = Some(Dry::until(now + CHOKED_PAUSE));
        if outstanding > 0 && !was_known { self.refusals.count(now, CHOKED_PAUSE) } else { Ok(()) }
    }

    /// Takes the refusal of a request.
    pub(super) fn on_reject(
        &mut self,
        raw: RawBlock,
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Result<(), Fault> {
        self.check_fast()?;
        let block = self.geometry.check_block(raw.index, raw.begin, raw.len).map_err(Fault::Block)?;
        // Each request is answered once and in order, so this is about the one that was cancelled, if any.
        if self.lapsed.take(block) {
            return Ok(());
        }
        let at = self.requests.position(block);
        let Some(request) = at.and_then(|at| self.requests.remove(at)) else { return Ok(()) };
        if let Target::Own(slot) = request.target {
            self.claims.ask_again(slot, block);
        }
        if self.choked {
            self.fast.forbid(block.piece);
        }
        if self.fast.was_due() {
            return Ok(());
        }
        self.pipeline.on_reject(now);
        self.refusals.pending = true;
        if self.outstanding() == 0 { self.on_refusal(now, work) } else { Ok(()) }
    }

    /// The peer refused all that it was asked for: it keeps nothing that others could fetch.
    fn on_refusal(&mut self, now: Instant, work: &mut impl Work<L>) -> Result<(), Fault> {
        self.drop_claims(work);
        self.refusals.count(now, REFUSED_PAUSE)
    }

    /// Nobody waits for the outstanding requests any more; their blocks may come all the same.
    pub(super) fn forget_requests(&mut self) {
        for request in self.requests.drain() {
            self.lapsed.push(request.block);
        }
    }

    /// Gives all claims back. No request of them is left by then.
    pub(super) fn drop_claims(&mut self, work: &mut impl Work<L>) {
        if let Incoming::Own(_, block) = self.incoming {
            self.incoming = Incoming::Discard { len: block.len, was_asked: true };
        }
        for claim in self.claims.drain() {
            self.let_go(claim, work);
        }
    }

    /// Gives a claim back, unless it is complete with what helpers have sent.
    pub(super) fn let_go(&mut self, mut claim: Claim<L>, work: &mut impl Work<L>) {
        self.tally.wasted += claim.open_mail(|_| {});
        if claim.is_complete() {
            work.complete(claim);
        } else {
            work.give_back(claim);
        }
    }

    /// Gives back the claims that the peer is too slow for and that nobody may help with: after some such tries the
    /// piece is open to all.
    pub(super) fn give_back_stuck(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        while let Some(slot) = self.claims.stuck(STUCK_LAG_MIN) {
            if let Some(claim) = self.withdraw(slot, out) {
                work.give_back(claim);
            }
            self.dry = Some(Dry::until(now + STUCK_PAUSE));
        }
    }

    /// Gives back what the peer was only to show itself with.
    fn give_back_failed_trials(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if self.claims_away {
            return;
        }
        while let Some(slot) = self.claims.failed_trial() {
            if let Some(claim) = self.withdraw(slot, out) {
                self.tally.wasted +=
                    claim.trial().map_or(0, |trial| trial.answers().count() as u64 * u64::from(BLOCK_LEN));
                work.give_back(claim);
            }
        }
    }

    /// Takes a claim out, with all that was asked for it.
    fn withdraw(&mut self, slot: Slot, out: &mut Vec<u8>) -> Option<Claim<L>> {
        while let Some(at) = self.requests.last_of(slot) {
            self.cancel(at, out);
        }
        if let Incoming::Own(own, block) = self.incoming
            && own == slot
        {
            self.incoming = Incoming::Discard { len: block.len, was_asked: true };
        }
        self.claims.take(slot)
    }

    /// Takes back the request for a block.
    pub(super) fn cancel(&mut self, at: usize, out: &mut Vec<u8>) {
        if let Some(request) = self.requests.remove(at) {
            message::write_cancel(out, request.block);
            self.lapsed.push(request.block);
        }
    }

    /// Keeps account of how long the peer has owed something, or could have been asked.
    fn note_debt(&mut self, now: Instant) {
        if self.outstanding() > 0 {
            self.owing_since.get_or_insert(now);
            self.idle_since = None;
        } else {
            self.owing_since = None;
            let can_be_asked = !self.choked && self.interested;
            self.idle_since = can_be_asked.then(|| self.idle_since.unwrap_or(now));
        }
    }
}
