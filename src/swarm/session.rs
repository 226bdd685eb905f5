//! One peer, from the first message after the handshake to the last: what it has, what it was asked for, what comes.
//!
//! No socket and no clock: decoded messages and `now` come in, bytes to send go to the caller's `out`, pieces are
//! claimed from and handed to the caller's [`Work`]. The caller tells of received bytes in the order of the stream:
//! [`Session::message`] for a whole message, [`Session::block_start`], [`Session::block_data`] and
//! [`Session::block_end`] for a block. After a batch of them comes one [`Session::fill`], which asks for more.
//!
//! **Scatter receives.** The requests are a queue in the order in which they were sent, and most peers answer in that
//! order, so a receive can be aimed at the places where the next blocks belong ([`Session::expected`]). While the
//! kernel writes there the claims travel with the receive ([`Session::take_claims`]); nothing that needs them is
//! done until they are back.

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
use crate::wire::extension::{self, Offered};
use crate::wire::message::{self, Message, PieceHeader, RawBlock};

/// A peer that owes us blocks and sends none for so long is closed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that sends nothing at all, not even a keep-alive (BEP 3: every two minutes), is closed.
pub const SILENCE_MAX: Duration = Duration::from_secs(150);
/// We say something at least so often, so that peers keep the connection (BEP 3).
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(100);
/// A peer with nothing to fetch waits so long before it helps others in the endgame: blocks that are on their way
/// anyway arrive meanwhile, and are not fetched twice.
const HELP_AFTER: Duration = Duration::from_millis(150);
/// How often the claims are looked through for mail from helpers, and snubs acted upon.
const HOUSEKEEP_EVERY: Duration = Duration::from_millis(50);
/// A receive that has the claims is ended after so long without a look at them. Only a peer that sends nothing is ever
/// so late.
const CLAIMS_AWAY_MAX: Duration = Duration::from_millis(250);
/// Blocks a helper asks for at once; they are held in private memory.
const HELP_BLOCKS_MAX: usize = 64;
/// Blocks that may come although nobody waits for them any more: cancelled, or asked for before a choke.
const LAPSED_MAX: usize = 4096;
/// Blocks that were never asked for, before the peer is closed.
const UNREQUESTED_MAX: u32 = 16;

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
    /// A claim goes back, with what was fetched of it.
    fn give_back(&mut self, claim: Claim<L>);
    /// All blocks of the claim are there.
    fn complete(&mut self, claim: Claim<L>);
    /// A piece that another peer is slow to fetch.
    fn help(&mut self, has: &Bitfield) -> Option<Arc<Progress>>;
    /// The helper of that piece is done with it.
    fn stop_helping(&mut self, piece: PieceIndex);
}

/// Bytes and blocks of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of blocks that went to their place.
    pub useful: u64,
    /// Bytes of blocks that were not needed: duplicates, late and unrequested ones.
    pub wasted: u64,
}

/// A block that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The block.
    pub block: Block,
    /// The claim it belongs to; `None` for a block fetched in the endgame for another peer's claim.
    pub slot: Option<Slot>,
}

/// Where the bytes of the block that is arriving go.
#[derive(Debug)]
enum Incoming {
    Nothing,
    Own(Slot, Block),
    Help(Block, Vec<u8>),
    Discard(u32),
}

/// The endgame piece this peer helps with; requests went out for its missing blocks from `end` on.
#[derive(Debug)]
struct Help {
    progress: Arc<Progress>,
    end: u32,
}

/// The state machine of one peer.
#[derive(Debug)]
pub struct Session<L> {
    addr: SocketAddr,
    geometry: Geometry,
    has: Bitfield,
    /// A BITFIELD, HAVE_ALL, HAVE_NONE or HAVE came: another bitfield is an error.
    told_pieces: bool,
    choked: bool,
    interested: bool,
    requests: VecDeque<Request>,
    claims: Claims<L>,
    claims_away: bool,
    last_claimed: Option<PieceIndex>,
    incoming: Incoming,
    help: Option<Help>,
    dry_since: Option<Instant>,
    pipeline: Pipeline,
    snubbed: bool,
    /// When mail and snubs were last looked at.
    housekept: Instant,
    lapsed: VecDeque<Block>,
    unrequested: u32,
    have_cursor: usize,
    last_heard: Instant,
    last_said: Instant,
    /// When the oldest request went out that no block has followed yet.
    owing_since: Option<Instant>,
    tally: Tally,
}

impl<L: PieceWriter> Session<L> {
    /// The session of the peer at `addr`, which has just sent its handshake.
    pub fn new(addr: SocketAddr, geometry: Geometry, now: Instant, work: &mut impl Work<L>) -> Self {
        let has = Bitfield::new(geometry.piece_count());
        work.joined(&has);
        Self {
            addr,
            geometry,
            has,
            told_pieces: false,
            choked: true,
            interested: false,
            requests: VecDeque::new(),
            claims: Claims::default(),
            claims_away: false,
            last_claimed: None,
            incoming: Incoming::Nothing,
            help: None,
            dry_since: None,
            pipeline: Pipeline::new(now),
            snubbed: false,
            housekept: now,
            lapsed: VecDeque::new(),
            unrequested: 0,
            have_cursor: 0,
            last_heard: now,
            last_said: now,
            owing_since: None,
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

    /// Whether the peer will not answer requests.
    pub const fn is_choked(&self) -> bool {
        self.choked
    }

    /// How many requests are unanswered.
    pub fn outstanding(&self) -> usize {
        self.requests.len()
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
            Message::Choke => self.on_choke(work),
            Message::Unchoke => self.choked = false,
            Message::Have(index) => self.on_have(index, work)?,
            Message::Bitfield(bytes) => {
                let has = Bitfield::from_wire(bytes, self.geometry.piece_count()).map_err(Fault::Bitfield)?;
                self.on_pieces(has, work)?;
            }
            Message::HaveAll => self.on_pieces(Bitfield::full(self.geometry.piece_count()), work)?,
            Message::HaveNone => self.on_pieces(Bitfield::new(self.geometry.piece_count()), work)?,
            Message::Reject(block) => self.on_reject(block, now)?,
            Message::Extended { id: extension::HANDSHAKE_ID, payload } => {
                if let Some(reqq) = Offered::parse(payload).reqq {
                    self.pipeline.set_reqq(reqq);
                }
            }
            // We serve no blocks, so what peers want or cancel is nothing to us; SUGGEST and ALLOWED_FAST are hints
            // (BEP 6), PORT belongs to the DHT (BEP 5), and other extensions were not offered.
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::AllowedFast(_)
            | Message::Extended { .. }
            | Message::Unknown { .. } => {}
        }
        Ok(())
    }

    /// Takes the header of a block; its bytes follow.
    pub fn block_start(&mut self, header: PieceHeader) -> Result<(), Fault> {
        let block =
            self.geometry.check_block(header.index, header.begin, header.len).map_err(Fault::Block)?;
        if let Some(at) = self.requests.iter().position(|request| request.block == block) {
            // A peer that reads from its disk in parallel skips a block now and then and goes on in order: the skipped
            // ones are no longer the next to expect.
            self.requests.rotate_left(at);
            let request = self.requests.pop_front();
            self.incoming = match request.and_then(|request| request.slot) {
                Some(slot) => Incoming::Own(slot, block),
                None => Incoming::Help(block, Vec::with_capacity(block.len as usize)),
            };
            return Ok(());
        }
        self.incoming = Incoming::Discard(block.len);
        if let Some(at) = self.lapsed.iter().position(|&lapsed| lapsed == block) {
            self.lapsed.remove(at);
            if let Some(slot) = self.claims.missing(block) {
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
            Incoming::Help(_, bytes) => bytes.extend_from_slice(data),
            Incoming::Discard(_) | Incoming::Nothing => {}
        }
    }

    /// Notes that the block is there as a whole.
    pub fn block_end(&mut self, now: Instant, work: &mut impl Work<L>) {
        let len = match std::mem::replace(&mut self.incoming, Incoming::Nothing) {
            Incoming::Nothing => return,
            Incoming::Discard(len) => {
                self.tally.wasted += u64::from(len);
                return;
            }
            Incoming::Own(slot, block) => {
                if let Some(claim) = self.claims.mark(slot, block) {
                    work.complete(claim);
                }
                block.len
            }
            Incoming::Help(block, bytes) => {
                if let Some(help) = &self.help {
                    let data = bytes.into_boxed_slice();
                    help.progress.donate(Donation { block, data, from: self.addr });
                }
                block.len
            }
        };
        self.tally.useful += u64::from(len);
        self.owing_since = None;
        self.snubbed = false;
        self.pipeline.on_block(now, len);
    }

    /// Asks for as many blocks as the window allows. Call after each batch of received messages and each tick.
    pub fn fill(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let before = out.len();
        self.show_interest(work, out);
        if !self.claims_away && now.duration_since(self.housekept) >= HOUSEKEEP_EVERY {
            self.housekept = now;
            self.open_mail(work, out);
            self.on_snub(work, out);
        }
        if !self.choked && self.interested && !self.claims_away {
            self.request_own(work, out);
            self.request_help(now, work, out);
            if !self.requests.is_empty() {
                self.owing_since.get_or_insert(now);
            }
        }
        if out.len() > before {
            self.last_said = now;
        }
    }

    /// The requests in the order in which the answers will come, as far as the receive may be aimed at their places:
    /// up to the first block of the endgame.
    pub fn expected(&self) -> impl Iterator<Item = (Slot, Block)> {
        self.requests.iter().map_while(|request| request.slot.map(|slot| (slot, request.block)))
    }

    /// The block that is arriving, if it goes to one of our claims.
    pub const fn arriving(&self) -> Option<(Slot, Block)> {
        match self.incoming {
            Incoming::Own(slot, block) => Some((slot, block)),
            _ => None,
        }
    }

    /// The header of the first expected block came: its bytes follow.
    pub fn start_expected(&mut self) {
        if let Some(Request { block, slot: Some(slot) }) = self.requests.pop_front() {
            self.incoming = Incoming::Own(slot, block);
        }
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

    /// Ends the session: all that it held goes back.
    pub fn close(&mut self, work: &mut impl Work<L>) {
        debug_assert!(!self.claims_away, "close only after the receive has ended");
        self.requests.clear();
        self.drop_claims(work);
        work.left(&self.has);
        self.has = Bitfield::new(self.geometry.piece_count());
    }

    fn on_choke(&mut self, work: &mut impl Work<L>) {
        self.choked = true;
        // A peer drops what was asked of it when it chokes (BEP 3), or rejects each (BEP 6): either way nobody should
        // wait for this peer.
        self.forget_requests();
        self.drop_claims(work);
    }

    fn on_have(&mut self, index: u32, work: &mut impl Work<L>) -> Result<(), Fault> {
        let piece_count = self.geometry.piece_count();
        let piece = self.geometry.piece(index).ok_or(Fault::HaveOutOfRange { index, piece_count })?;
        self.told_pieces = true;
        if !self.has.get(piece) {
            work.gained(&self.has, piece);
            self.has.set(piece);
        }
        Ok(())
    }

    fn on_pieces(&mut self, has: Bitfield, work: &mut impl Work<L>) -> Result<(), Fault> {
        if self.told_pieces {
            return Err(Fault::BitfieldLate);
        }
        self.told_pieces = true;
        work.left(&self.has);
        work.joined(&has);
        self.has = has;
        Ok(())
    }

    fn on_reject(&mut self, raw: RawBlock, now: Instant) -> Result<(), Fault> {
        let block = self.geometry.check_block(raw.index, raw.begin, raw.len).map_err(Fault::Block)?;
        if let Some(at) = self.requests.iter().position(|request| request.block == block) {
            if let Some(Request { slot: Some(slot), .. }) = self.requests.remove(at) {
                self.claims.ask_again(slot, block);
            }
            self.pipeline.on_reject(now);
        }
        Ok(())
    }

    fn show_interest(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if !self.interested && self.has.count_ones() > 0 && work.wants_any(&self.has) {
            self.interested = true;
            message::write_interested(out);
        }
    }

    fn request_own(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        let window = self.pipeline.window();
        while self.requests.len() < window {
            let Some((slot, block)) = self.claims.next_block().or_else(|| self.claim_next(work)) else {
                break;
            };
            self.requests.push_back(Request { block, slot: Some(slot) });
            message::write_request(out, block);
        }
    }

    /// Claims pieces until one has a block to ask for: one that came half-done may be finished by its mailbox.
    fn claim_next(&mut self, work: &mut impl Work<L>) -> Option<(Slot, Block)> {
        while let Some(mut claim) = work.claim(self.addr, &self.has, self.last_claimed) {
            self.last_claimed = Some(claim.piece());
            self.tally.wasted += claim.open_mail(|_| {});
            if claim.is_complete() {
                work.complete(claim);
                continue;
            }
            self.claims.insert(claim, &self.geometry);
            if let Some(next) = self.claims.next_block() {
                return Some(next);
            }
        }
        None
    }

    /// The endgame: a peer that has nothing of its own to fetch asks for the missing blocks of another's piece.
    fn request_help(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if !self.requests.is_empty() {
            self.dry_since = None;
            return;
        }
        let dry_since = *self.dry_since.get_or_insert(now);
        if self.help.is_none() {
            if now.duration_since(dry_since) < HELP_AFTER {
                return;
            }
            let Some(progress) = work.help(&self.has) else { return };
            let end = progress.block_count();
            self.help = Some(Help { progress, end });
        }
        let Some(help) = &mut self.help else { return };
        let limit = self.pipeline.window().min(HELP_BLOCKS_MAX);
        while self.requests.len() < limit && !help.progress.is_closed() {
            let Some(index) = help.progress.last_missing(help.end) else { break };
            help.end = index;
            let block = self.geometry.block(help.progress.piece(), index);
            self.requests.push_back(Request { block, slot: None });
            message::write_request(out, block);
        }
        if self.requests.is_empty() {
            self.end_help(work);
        }
    }

    fn end_help(&mut self, work: &mut impl Work<L>) {
        if let Some(help) = self.help.take() {
            work.stop_helping(help.progress.piece());
            self.dry_since = None;
        }
    }

    /// Nobody waits for the outstanding requests any more; their blocks may come all the same.
    fn forget_requests(&mut self) {
        self.owing_since = None;
        for request in self.requests.drain(..) {
            lapse(&mut self.lapsed, request.block);
        }
    }

    fn drop_claims(&mut self, work: &mut impl Work<L>) {
        self.end_help(work);
        for claim in self.claims.drain() {
            work.give_back(claim);
        }
    }
}

/// What has to be done on a clock, a few times a second.
impl<L: PieceWriter> Session<L> {
    /// Looks at the clock: stalls, snubs, mail from helpers, the endgame, keep-alives. Returns whether a receive has had
    /// the claims for too long: the caller should end it, without closing the connection.
    pub fn tick(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) -> Result<bool, Fault> {
        if now.duration_since(self.last_heard) > SILENCE_MAX {
            return Err(Fault::Silent);
        }
        if self.owing_since.is_some_and(|since| now.duration_since(since) > REQUEST_TIMEOUT) {
            return Err(Fault::RequestTimeout { outstanding: self.requests.len() });
        }
        self.pipeline.tick(now, self.requests.len());
        self.cancel_useless_help(work, out);
        self.fill(now, work, out);
        if now.duration_since(self.last_said) > KEEP_ALIVE_EVERY {
            message::write_keep_alive(out);
            self.last_said = now;
        }
        Ok(self.claims_away && now.duration_since(self.housekept) > CLAIMS_AWAY_MAX)
    }

    /// Writes HAVE for each newly verified piece that the peer lacks; `verified` is the whole log, in order. At most
    /// `max` a call. Full peers are told nothing: they need nothing.
    pub fn announce_haves(&mut self, verified: &[PieceIndex], max: usize, out: &mut Vec<u8>) {
        let end = verified.len().min(self.have_cursor + max);
        if self.has.is_full() {
            self.have_cursor = verified.len();
            return;
        }
        for &piece in &verified[self.have_cursor..end] {
            if !self.has.get(piece) {
                message::write_have(out, piece.get());
            }
        }
        self.have_cursor = end;
    }

    fn open_mail(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        for slot in self.claims.with_mail() {
            let requests = &mut self.requests;
            let lapsed = &mut self.lapsed;
            let wasted = self.claims.open_mail(slot, |block| {
                if let Some(at) = requests.iter().position(|request| request.block == block) {
                    requests.remove(at);
                    message::write_cancel(out, block);
                    lapse(lapsed, block);
                }
            });
            self.tally.wasted += wasted;
            if let Some(claim) = self.claims.take_if_complete(slot) {
                if let Incoming::Own(arriving, block) = self.incoming
                    && arriving == slot
                {
                    self.incoming = Incoming::Discard(block.len);
                }
                work.complete(claim);
            }
        }
    }

    /// A snubbed peer keeps nothing that others could fetch; it is asked for one block at a time from then on.
    fn on_snub(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if !self.pipeline.is_snubbed() || self.snubbed || matches!(self.incoming, Incoming::Own(..)) {
            return;
        }
        self.snubbed = true;
        for request in &self.requests {
            message::write_cancel(out, request.block);
        }
        self.forget_requests();
        self.drop_claims(work);
    }

    fn cancel_useless_help(&mut self, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if !self.help.as_ref().is_some_and(|help| help.progress.is_closed()) {
            return;
        }
        for request in &self.requests {
            if request.slot.is_none() {
                message::write_cancel(out, request.block);
                lapse(&mut self.lapsed, request.block);
            }
        }
        self.requests.retain(|request| request.slot.is_some());
        self.end_help(work);
    }
}

fn lapse(lapsed: &mut VecDeque<Block>, block: Block) {
    if lapsed.len() == LAPSED_MAX {
        lapsed.pop_front();
    }
    lapsed.push_back(block);
}
