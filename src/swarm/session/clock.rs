//! What has to be done from time to time: stalls, snubs, mail from helpers, interest lost, HAVEs, keep-alives.

use std::time::{Duration, Instant};

use super::{Fault, Holdings, Incoming, PieceIndex, PieceWriter, Session, Target, Work};
use crate::wire::message::{self, Message};

/// A peer that owes us blocks and sends none for so long is closed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that sends nothing at all, not even a keep-alive (BEP 3: every two minutes), is closed.
pub const SILENCE_MAX: Duration = Duration::from_secs(150);
/// We say something at least so often, so that peers keep the connection. Two minutes are usual (BEP 3), but rqbit
/// closes after ten seconds, and aria2 takes two within five for a flood.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(8);
/// A peer that has not told all pieces by then gets to know which we have.
const INTRODUCED_AFTER: Duration = Duration::from_millis(500);
/// How often the claims are looked through for mail from helpers, and snubs acted upon.
const HOUSEKEEP_EVERY: Duration = Duration::from_millis(50);
/// A receive that has the claims is ended after so long without a look at them. Only a peer that sends nothing is ever
/// so late.
const CLAIMS_AWAY_MAX: Duration = Duration::from_millis(250);
/// How often a peer is looked at that may have nothing more for us.
const INTEREST_CHECK_EVERY: Duration = Duration::from_secs(1);
/// After a snub others have so long to claim what the peer had.
const SNUBBED_PAUSE: Duration = Duration::from_secs(1);
/// A peer that has sent nothing of use for so long may be closed where others wait for its place: long enough for one
/// that serves many in turn to come to us.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A snubbed peer that still sends nothing loses what it has again after so long.
const SNUB_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The longest time between two ticks that counts: a process that was stopped blames nobody.
const TICK_MAX: Duration = Duration::from_secs(1);
/// With so many bytes unsent, HAVEs and requests wait: a peer that does not read must not fill our memory. What is
/// being sent is another such buffer at most.
pub(super) const UNSENT_MAX: usize = 64 * 1024;

/// What becomes of a peer that owes us blocks for too long, until it sends one.
#[derive(Debug)]
pub(super) struct Snub {
    /// It takes nothing of its own before.
    pub(super) claim_at: Instant,
    /// What it has by then is taken away again.
    again_at: Instant,
}

impl<L: PieceWriter> Session<L> {
    /// Looks at the clock and does as [`Session::fill`]. Returns whether a receive has had the claims for too long: the
    /// caller should end it, without closing the connection.
    pub fn tick(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) -> Result<bool, Fault> {
        if now.duration_since(self.last_heard) > SILENCE_MAX {
            return Err(Fault::Silent);
        }
        let since_tick = now.duration_since(std::mem::replace(&mut self.ticked, now));
        if self.outstanding() > 0 {
            self.owed_for += since_tick.min(TICK_MAX);
        }
        if self.owed_for > REQUEST_TIMEOUT {
            return Err(Fault::RequestTimeout { outstanding: self.outstanding() });
        }
        self.pipeline.tick(now, self.outstanding());
        self.doubt_slow_help();
        self.cancel_useless_help(out);
        self.lose_interest(now, work, out);
        if now.duration_since(self.began) >= INTRODUCED_AFTER {
            self.introduce(work, out);
        }
        self.fill(now, work, out);
        if now.duration_since(self.last_said) > KEEP_ALIVE_EVERY {
            message::write_keep_alive(out);
            self.last_said = now;
        }
        Ok(self.claims_away && now.duration_since(self.housekept) > CLAIMS_AWAY_MAX)
    }

    /// Whether the peer has sent nothing of use for long.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.useful_at) > IDLE_MAX
    }

    /// Tells the peer which pieces we have, unless it knows or needs nothing. A peer of the fast extension has to hear
    /// it before all else (BEP 6), any other need not hear it at all (BEP 3); but some tell HAVE only to who has sent a
    /// BITFIELD, be it one without a bit.
    pub fn introduce(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if self.was_introduced || (self.has.is_full() && !self.terms.fast) {
            return;
        }
        self.was_introduced = true;
        let Holdings { pieces, verified } = work.holdings();
        self.have_cursor = verified;
        if self.terms.fast && pieces.count_ones() == 0 {
            Message::HaveNone.write(out);
        } else {
            Message::Bitfield(&pieces.to_wire()).write(out);
        }
    }

    /// Writes HAVE for each newly verified piece; `verified` is the whole log, in order. At most `max` a call. A peer
    /// that told of the piece hears of it too: a super-seeder shows no other until it knows that one to have arrived
    /// (BEP 16). Full peers are told nothing: they need nothing.
    pub fn announce_haves(&mut self, verified: &[PieceIndex], max: usize, out: &mut Vec<u8>) {
        if self.has.is_full() {
            self.have_cursor = verified.len();
        }
        if out.len() > UNSENT_MAX || !self.was_introduced {
            return;
        }
        let end = verified.len().min(self.have_cursor.saturating_add(max));
        for &piece in &verified[self.have_cursor..end] {
            message::write_have(out, piece.get());
        }
        self.have_cursor = end;
    }

    /// What needs the claims and need not be done for each receive.
    pub(super) fn housekeep(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if self.claims_away || now.duration_since(self.housekept) < HOUSEKEEP_EVERY {
            return;
        }
        self.housekept = now;
        self.open_mail(work, out);
        self.on_snub(now, work, out);
        self.tell_lags(now);
        self.give_back_stuck(now, work, out);
        self.cancel_useless_help(out);
    }

    fn open_mail(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        for slot in self.claims.with_mail() {
            let mut used = Vec::new();
            self.tally.wasted += self.claims.open_mail(slot, |block| used.push(block));
            for block in used {
                if let Some(at) = self.requests.position(block) {
                    self.cancel(at, out);
                }
                // The helper's bytes are there and put down to the helper: none of this peer may come over them.
                if matches!(self.incoming, Incoming::Own(_, arriving) if arriving == block) {
                    self.incoming = Incoming::Discard { len: block.len, was_asked: true };
                }
            }
            if let Some(claim) = self.claims.take_if_complete(slot) {
                self.complete(claim, work);
            }
        }
    }

    /// A snubbed peer keeps nothing that others could fetch; it is asked for one block at a time from then on. Where
    /// that is a block of its own because nobody else fetches anything, others get their chance from time to time.
    fn on_snub(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let is_due = self.snub.as_ref().is_none_or(|snub| now >= snub.again_at);
        if !self.pipeline.is_snubbed() || !is_due {
            return;
        }
        self.snub = Some(Snub { claim_at: now + SNUBBED_PAUSE, again_at: now + SNUB_AGAIN_AFTER });
        while !self.requests.is_empty() {
            self.cancel(0, out);
        }
        self.drop_claims(work);
    }

    /// Says of each claim how long it will take: at the peer's rate, after what was asked for before, and at least as
    /// long as nothing has come.
    fn tell_lags(&self, now: Instant) {
        let quiet = self.owing_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let rate = self.pipeline.rate();
        let mut bytes = 0;
        let mut lag_behind = |len: u64| {
            bytes += len;
            (bytes * 1_000).checked_div(rate).map_or(quiet, |millis| quiet.max(Duration::from_millis(millis)))
        };
        if let Incoming::Own(slot, block) = self.incoming {
            self.claims.set_lag(slot, lag_behind(u64::from(block.len)));
        }
        for request in self.requests.iter() {
            let lag = lag_behind(u64::from(request.block.len));
            if let Target::Own(slot) = request.target {
                self.claims.set_lag(slot, lag);
            }
        }
        for (slot, len) in self.claims.unrequested() {
            self.claims.set_lag(slot, lag_behind(len));
        }
    }

    /// Frees the peer's slot for others when it has nothing more for us.
    fn lose_interest(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let is_busy = self.claims_away || !self.claims.is_empty() || self.outstanding() > 0;
        if !self.interested || is_busy || now.duration_since(self.interest_checked) < INTEREST_CHECK_EVERY {
            return;
        }
        self.interest_checked = now;
        if !work.wants_any(&self.has) {
            self.interested = false;
            message::write_not_interested(out);
        }
    }
}
