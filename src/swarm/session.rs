//! One peer, from the first message after the handshake to the last: what it has, what it was asked for, what comes.
//!
//! No socket and no clock: decoded messages and `now` come in, bytes to send go to the caller's `out`, pieces are
//! claimed from and handed to the caller's [`Work`]. The caller tells of received bytes in the order of the stream:
//! [`Session::message`] for a whole message, [`Session::block_start`], [`Session::block_data`] and
//! [`Session::block_end`] for a block. After a batch of them comes one [`Session::fill`], which asks for more, and a
//! few times a second one [`Session::tick`].
//!
//! **Scatter receives.** The requests are a queue in the order in which they were sent, and most peers answer in that
//! order, so a receive can be aimed at the places where the next blocks belong ([`Session::expected`]). While the
//! kernel writes there the claims travel with the receive ([`Session::take_claims`]); nothing that needs them is
//! done until they are back.
//!
//! **Invariants.** A request of this peer's own claims is for a block that is missing there, and stands in the queue
//! once; it leaves the queue before its claim leaves the session. While claims are held some block of them is
//! requested, arriving, or yet to be asked for.
//!
//! `fetch` has what is asked of a peer, `requests` the queue of it, `help` the endgame, `fast` what is special where
//! both ends speak the fast extension, `clock` what has to be done from time to time, `gossip` what is said beside
//! pieces, `standing` what an observer sees of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bitfield::Bitfield;
use super::claim::{Claim, Donation, PieceWriter, Progress};
use super::claims::{Claims, Slot};
use super::fault::Fault;
use super::pipeline::Pipeline;
use crate::meta::geometry::{Block, Geometry, PieceIndex};
use crate::wire::message::{Message, PieceHeader, RawBlock};

mod clock;
mod fast;
mod fetch;
mod gossip;
mod help;
mod requests;
mod standing;

use requests::{Errand, Request, Requests, Target};

pub use clock::{KEEP_ALIVE_EVERY, REQUEST_TIMEOUT, SILENCE_MAX};
pub use fast::{ALLOWED_MAX, SUGGESTED_MAX};
pub use gossip::{Allowance, Gossip, PEX_EARLY_MAX, PEX_EVERY, PEX_IGNORED_MAX};
pub use standing::Standing;

/// Blocks that may come although nobody waits for them any more: cancelled, or asked for before a choke.
const LAPSED_MAX: usize = 4096;
/// Blocks that were never asked for, before the peer is closed.
const UNREQUESTED_MAX: u32 = 16;
/// Bytes of messages without a block in between, before the peer is closed: more than the longest bitfield of a torrent
/// that is taken, and more than a peer that is never asked for anything says in a month. HAVE of a piece that it had
/// not told of does not count.
pub const CHATTER_MAX: u64 = 2 << 20;
/// Messages that tell all pieces of a peer, before it is closed: each costs a walk over the pieces, and one is enough.
pub const SETS_TOLD_MAX: u32 = 16;
/// Bytes of a HAVE.
const HAVE_LEN: u64 = 9;

/// Where a session gets pieces to fetch and leaves what it fetched. One lock per call is fine: all are per piece.
pub trait Work<L> {
    /// A peer with these pieces is there.
    fn joined(&mut self, has: &Bitfield);
    /// A peer that was counted with `had` now has `piece` too.
    fn gained(&mut self, had: &Bitfield, piece: PieceIndex);
    /// The peer counted with these pieces is gone.
    fn left(&mut self, has: &Bitfield);
    /// Whether the peer has anything that is still wanted.
    fn wants_any(&mut self, has: &Bitfield) -> bool;
    /// The next piece for this peer, if it has one that nobody fetches.
    fn claim(&mut self, peer: SocketAddr, has: &Bitfield, after: Option<PieceIndex>) -> Option<Claim<L>>;
    /// The first of these pieces that nobody fetches, in this order.
    fn claim_of(&mut self, peer: SocketAddr, pieces: &[PieceIndex]) -> Option<Claim<L>>;
    /// A number that changes when a piece can be claimed that could not be before.
    fn supply(&mut self) -> u64;
    /// A claim goes back, with what was fetched of it.
    fn give_back(&mut self, claim: Claim<L>);
    /// All blocks of the claim are there.
    fn complete(&mut self, claim: Claim<L>);
    /// A piece that its holder will take longer than `worth` to fetch, with a block that at most so many `helpers` were
    /// asked for.
    fn help(&mut self, has: &Bitfield, worth: Duration, helpers: u8) -> Option<Arc<Progress>>;
    /// What we have, for the peer to know.
    fn holdings(&mut self) -> Holdings;
    /// A peer said something that is no matter of its session.
    fn hear(&mut self, _from: SocketAddr, _gossip: Gossip) {}
}

/// The pieces that we have at some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Which.
    pub pieces: Bitfield,
    /// How many of them were verified since the start: so much of the log that [`Session::announce_haves`] reads.
    pub verified: usize,
}

/// What both ends of a connection have agreed on in their handshakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// The fast extension (BEP 6).
    pub fast: bool,
    /// The peer exchange (BEP 11): we have offered it, so the peer may.
    pub pex: bool,
}

/// Bytes and blocks of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of blocks that went to their place.
    pub useful: u64,
    /// Bytes of blocks that were not needed: duplicates, late and unrequested ones.
    pub wasted: u64,
}

/// Where the bytes of the block that is arriving go.
#[derive(Debug)]
enum Incoming {
    Nothing,
    Own(Slot, Block),
    Help(Errand, Block, Vec<u8>),
    Discard {
        len: u32,
        /// Whether it was asked for once, so that the peer does as it was told.
        was_asked: bool,
    },
}

/// Blocks that may still come although nobody waits for them, oldest first.
#[derive(Debug, Default)]
struct Lapsed(VecDeque<Block>);

impl Lapsed {
    fn push(&mut self, block: Block) {
        if self.0.len() == LAPSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(block);
    }

    /// Whether that block was to be expected; it is not a second time.
    fn take(&mut self, block: Block) -> bool {
        let at = self.0.iter().position(|&lapsed| lapsed == block);
        at.is_some_and(|at| self.0.remove(at).is_some())
    }
}

/// The state machine of one peer.
#[derive(Debug)]
pub struct Session<L> {
    addr: SocketAddr,
    geometry: Geometry,
    terms: Terms,
    has: Bitfield,
    /// BITFIELD, HAVE_ALL and HAVE_NONE that came.
    sets_told: u32,
    /// It knows what we have, but for what [`Session::announce_haves`] has yet to tell.
    was_introduced: bool,
    began: Instant,
    choked: bool,
    interested: bool,
    /// It has pieces that were not looked at for interest.
    has_news: bool,
    interest_checked: Instant,

    requests: Requests,
    claims: Claims<L>,
    claims_away: bool,
    last_claimed: Option<PieceIndex>,
    /// There was nothing to claim.
    dry: Option<fetch::Dry>,
    refusals: fetch::Refusals,
    fast: fast::Fast,
    talk: gossip::Talk,
    incoming: Incoming,
    lapsed: Lapsed,
    unrequested: u32,
    /// Bytes of messages since the last block that was wanted.
    chatter: u64,
    /// When it last sent a block that was wanted, or the session began.
    useful_at: Instant,

    helping: help::Helping,
    /// Since when it could be asked and owes nothing.
    idle_since: Option<Instant>,
    /// Since when it owes something without a break and has sent no block.
    owing_since: Option<Instant>,
    pipeline: Pipeline,
    /// For how long it has owed something since its last block that was wanted, in ticks: not while it is idle or
    /// chokes us.
    owed_for: Duration,
    ticked: Instant,
    /// It owed something for so long that its claims were taken away.
    snub: Option<clock::Snub>,
    /// When mail and snubs were last looked at.
    housekept: Instant,
    have_cursor: usize,
    last_heard: Instant,
    last_said: Instant,
    tally: Tally,
}

impl<L: PieceWriter> Session<L> {
    /// The session of the peer at `addr`, which has just sent its handshake.
    pub fn new(
        addr: SocketAddr,
        geometry: Geometry,
        terms: Terms,
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Self {
        let has = Bitfield::new(geometry.piece_count());
        work.joined(&has);
        Self {
            addr,
            geometry,
            terms,
            has,
            sets_told: 0,
            was_introduced: false,
            began: now,
            choked: true,
            interested: false,
            has_news: false,
            interest_checked: now,
            requests: Requests::default(),
            claims: Claims::default(),
            claims_away: false,
            last_claimed: None,
            dry: None,
            refusals: fetch::Refusals::default(),
            fast: fast::Fast::default(),
            talk: gossip::Talk::new(now),
            incoming: Incoming::Nothing,
            lapsed: Lapsed::default(),
            unrequested: 0,
            chatter: 0,
            useful_at: now,
            helping: help::Helping::default(),
            idle_since: None,
            owing_since: None,
            pipeline: Pipeline::new(now),
            owed_for: Duration::ZERO,
            ticked: now,
            snub: None,
            housekept: now,
            have_cursor: 0,
            last_heard: now,
            last_said: now,
            tally: Tally::default(),
        }
    }

    /// The peer's pieces.
    pub const fn has(&self) -> &Bitfield {
        &self.has
    }

    /// What came so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// How many requests are unanswered; one whose block is arriving counts.
    pub fn outstanding(&self) -> usize {
        let is_arriving = matches!(self.incoming, Incoming::Own(..) | Incoming::Help(..));
        self.requests.len() + usize::from(is_arriving)
    }

    /// Notes that bytes came from the peer.
    pub const fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Takes a whole message that is no block.
    pub fn message(
        &mut self,
        message: Message<'_>,
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Result<(), Fault> {
        match message {
            Message::Choke => self.on_choke(now, work)?,
            Message::Unchoke => self.choked = false,
            Message::Have(index) => self.on_have(index, work)?,
            Message::Bitfield(bytes) => {
                let has = Bitfield::from_wire(bytes, self.geometry.piece_count()).map_err(Fault::Bitfield)?;
                self.on_pieces(has, work)?;
            }
            Message::HaveAll => {
                self.check_fast()?;
                self.on_pieces(Bitfield::full(self.geometry.piece_count()), work)?;
            }
            Message::HaveNone => {
                self.check_fast()?;
                self.on_pieces(Bitfield::new(self.geometry.piece_count()), work)?;
            }
            Message::Reject(raw) => self.on_reject(raw, now, work)?,
            Message::Suggest(index) => self.on_suggest(index)?,
            Message::AllowedFast(index) => self.on_allowed_fast(index)?,
            Message::Extended { id, payload } => self.on_extended(id, payload, now, work)?,
            Message::Port(port) => self.on_port(port, work),
            // We serve no blocks, so what peers want or cancel is nothing to us.
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Unknown { .. } => {}
        }
        Ok(())
    }

    /// Notes that many bytes of messages that are no blocks.
    pub fn chatted(&mut self, bytes: usize) -> Result<(), Fault> {
        self.chatter += bytes as u64;
        if self.chatter > CHATTER_MAX { Err(Fault::Chatter { bytes: self.chatter }) } else { Ok(()) }
    }

    /// Takes the header of a block; its bytes follow.
    pub fn block_start(&mut self, header: PieceHeader) -> Result<(), Fault> {
        let block =
            self.geometry.check_block(header.index, header.begin, header.len).map_err(Fault::Block)?;
        if let Some(Request { target, .. }) = self.requests.take(block) {
            self.incoming = match target {
                Target::Own(slot) => Incoming::Own(slot, block),
                Target::Help(errand) => Incoming::Help(errand, block, Vec::with_capacity(block.len as usize)),
            };
            return Ok(());
        }
        let was_asked = self.lapsed.take(block);
        self.incoming = Incoming::Discard { len: block.len, was_asked };
        if was_asked {
            if let Some(slot) = self.claims.adopt(block) {
                self.incoming = Incoming::Own(slot, block);
            }
        } else {
            self.unrequested += 1;
            if self.unrequested > UNREQUESTED_MAX {
                return Err(Fault::Unrequested(block));
            }
        }
        Ok(())
    }

    /// Takes the bytes at `at` of the block that [`Session::block_start`] announced.
    pub fn block_data(&mut self, at: u32, data: &[u8]) {
        match &mut self.incoming {
            Incoming::Own(slot, block) => self.claims.write(*slot, block.begin + at, data),
            Incoming::Help(_, _, bytes) => bytes.extend_from_slice(data),
            Incoming::Discard { .. } | Incoming::Nothing => {}
        }
    }

    /// Notes whether the blocks that follow come out of a socket that holds more than one receive takes.
    pub const fn set_flooded(&mut self, flooded: bool) {
        self.pipeline.set_flooded(flooded);
    }

    /// Notes that the block is there as a whole.
    pub fn block_end(&mut self, now: Instant, work: &mut impl Work<L>) {
        let (len, was_useful) = match std::mem::replace(&mut self.incoming, Incoming::Nothing) {
            Incoming::Nothing => return,
            Incoming::Discard { len, was_asked: false } => {
                self.tally.wasted += u64::from(len);
                return;
            }
            Incoming::Discard { len, was_asked: true } => (len, false),
            Incoming::Own(slot, block) => {
                let was_missing = self.claims.mark(slot, block);
                debug_assert!(was_missing, "a block was requested that was not missing");
                if let Some(claim) = self.claims.take_if_complete(slot) {
                    self.complete(claim, work);
                }
                (block.len, was_missing)
            }
            Incoming::Help(errand, block, bytes) => {
                let donation = Donation { block, data: bytes.into_boxed_slice(), from: self.addr };
                (block.len, errand.progress().donate(donation))
            }
        };
        if was_useful {
            self.tally.useful += u64::from(len);
            self.useful_at = now;
            self.refusals.forgive();
            self.owed_for = Duration::ZERO;
            self.snub = None;
            self.chatter = 0;
        } else {
            self.tally.wasted += u64::from(len);
        }
        self.trust_help();
        self.owing_since = None;
        self.pipeline.on_block(now, len);
    }

    /// The requests in the order in which the answers will come, as far as the receive may be aimed at their places:
    /// up to the first block of the endgame.
    pub fn expected(&self) -> impl Iterator<Item = (Slot, Block)> {
        self.requests.iter().map_while(|request| match request.target {
            Target::Own(slot) => Some((slot, request.block)),
            Target::Help(_) => None,
        })
    }

    /// The block that is arriving, if it goes to one of our claims.
    pub const fn arriving(&self) -> Option<(Slot, Block)> {
        match self.incoming {
            Incoming::Own(slot, block) => Some((slot, block)),
            _ => None,
        }
    }

    /// The claim that a block was requested for, unless it is another peer's.
    pub fn requested(&self, block: Block) -> Option<Slot> {
        match self.requests.get(self.requests.position(block)?)?.target {
            Target::Own(slot) => Some(slot),
            Target::Help(_) => None,
        }
    }

    /// The header of a requested block came: its bytes follow. Returns whether that was the one to expect.
    pub fn start_requested(&mut self, block: Block) -> bool {
        debug_assert!(matches!(self.incoming, Incoming::Nothing));
        let is_expected = self.requests.get(0).is_some_and(|request| request.block == block);
        if let Some(Request { block, target: Target::Own(slot) }) = self.requests.take(block) {
            self.incoming = Incoming::Own(slot, block);
        }
        is_expected
    }

    /// The cut of the content.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Lets the claims go with a receive whose target they are.
    pub fn take_claims(&mut self) -> Claims<L> {
        debug_assert!(!self.claims_away, "one receive at a time");
        self.claims_away = true;
        std::mem::take(&mut self.claims)
    }

    /// The receive is over and the claims are back.
    pub fn put_claims(&mut self, claims: Claims<L>) {
        debug_assert!(self.claims_away);
        self.claims_away = false;
        self.claims = claims;
    }

    /// The claims, for gathering bytes that landed in them by a wrong guess.
    pub const fn claims(&self) -> &Claims<L> {
        &self.claims
    }

    /// Notes that bytes came to the place of a block that do not belong there; they have been gathered.
    pub fn spoiled(&mut self, slot: Slot, block: Block) {
        if let Some(lease) = self.claims.lease_mut(slot) {
            lease.spoiled(block.begin, block.len);
        }
    }

    /// Ends the session: all that it held goes back. Returns what came in all, with what is of no use now.
    pub fn close(&mut self, work: &mut impl Work<L>) -> Tally {
        debug_assert!(!self.claims_away, "close only after the receive has ended");
        self.forget_requests();
        self.incoming = Incoming::Nothing;
        self.drop_claims(work);
        work.left(&self.has);
        self.has = Bitfield::new(self.geometry.piece_count());
        self.tally
    }

    fn on_have(&mut self, index: u32, work: &mut impl Work<L>) -> Result<(), Fault> {
        let piece_count = self.geometry.piece_count();
        let piece = self.geometry.piece(index).ok_or(Fault::HaveOutOfRange { index, piece_count })?;
        if !self.has.get(piece) {
            work.gained(&self.has, piece);
            self.has.set(piece);
            self.chatter = self.chatter.saturating_sub(HAVE_LEN);
            self.on_news();
        }
        Ok(())
    }

    /// Takes what the peer has, whatever it has said before: some say HAVE before BITFIELD, or BITFIELD anew when they
    /// have looked at their disk.
    fn on_pieces(&mut self, has: Bitfield, work: &mut impl Work<L>) -> Result<(), Fault> {
        self.sets_told += 1;
        if self.sets_told > SETS_TOLD_MAX {
            return Err(Fault::SetsTold { times: self.sets_told });
        }
        work.left(&self.has);
        work.joined(&has);
        self.has = has;
        self.on_news();
        Ok(())
    }

    fn on_news(&mut self) {
        self.has_news = true;
        if let Some(dry) = &mut self.dry {
            dry.on_news();
        }
    }
}

#[cfg(test)]
mod tests;
