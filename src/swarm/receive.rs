//! From received bytes to a session: by a forecast where what comes is known, by the decoder where it is not.
//!
//! Peers answer in order, so what comes next on the socket is known: 13 header bytes, a block, 13 header bytes, a
//! block. A [`Forecast`] names the place of each part, so that a receive can put it there:
//!
//! ```text
//! socket ──▶ [rest of the arriving block] [header][block] [header][block] … [header]
//! ```
//!
//! 1. [`Forecast::aim`] takes the expected blocks from the decoder's position and the queue of requests, and takes the
//!    claims along: while a receive writes, nobody else can reach those places.
//! 2. [`Forecast::settle`] walks the received bytes. While each header is the expected one, the blocks behind them are
//!    simply there. Nothing is copied.
//! 3. At the first header that is another (a HAVE in between, another order, a choke) the rest is gathered out of its
//!    landing places, in stream order, before anything is written; the caller gives it to [`feed`], which copies
//!    each block where it belongs. What landed in the wrong places is overwritten when the right blocks come: a place
//!    is only aimed at while its block is missing.
//!
//! A receive ends with the header of the block behind the last expected one. Whatever block that turns out to be, the
//! next receive is aimed at its place; so with a reach of one block no order of the answers costs a copy, and how far
//! to aim is a matter of price: the reach keeps what surprises cost below one block in a hundred. Where that makes the
//! reach short, the headers that are in the socket already are *looked at* first. That is dearer than to foresee them,
//! and far cheaper than many short receives.

use std::time::Instant;

use super::claim::PieceWriter;
use super::claims::{Claims, Slot};
use super::fault::Fault;
use super::session::{Session, Work};
use crate::meta::geometry::Block;
use crate::wire::decoder::{Decoder, Event, Position};
use crate::wire::message::PieceHeader;

/// Blocks one receive is aimed at, while forecasts hold. 64 blocks are 1 MiB, more than is usually there at once.
pub const REACH_MAX: usize = 64;

/// One expected message, or the rest of it.
#[derive(Clone, Copy, Debug)]
struct Expect {
    slot: Slot,
    block: Block,
    /// Bytes of the header that were there before this receive.
    header_from: usize,
    /// Bytes of the body that were there before this receive.
    body_from: u32,
}

/// The places of one expected block.
#[derive(Debug)]
pub struct Part<'a, L> {
    /// Of the header, or the rest of it; empty where it was there before.
    pub header: &'a mut [u8],
    /// The lease of the piece of the block.
    pub lease: &'a mut L,
    /// Where in the piece the body, or the rest of it, begins.
    pub begin: u32,
    /// Bytes of the body that are still to come.
    pub len: u32,
}

/// What a receive brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Bytes that were not foreseen, in stream order, for [`feed`]. In the normal case there are none, or those of one
    /// header.
    pub spilled: Vec<u8>,
    /// Blocks whose body began to arrive at its place.
    pub direct: u64,
}

/// What a receive is expected to bring, and the claims whose memory that goes to. Reused from receive to receive.
#[derive(Debug)]
pub struct Forecast<L> {
    claims: Claims<L>,
    expects: Vec<Expect>,
    /// One for each expected block and one for the header behind.
    headers: Box<[[u8; PieceHeader::LEN]; REACH_MAX + 1]>,
    reach: Reach,
}

impl<L> Default for Forecast<L> {
    fn default() -> Self {
        Self {
            claims: Claims::default(),
            expects: Vec::with_capacity(REACH_MAX),
            headers: Box::new([[0; PieceHeader::LEN]; REACH_MAX + 1]),
            reach: Reach::default(),
        }
    }
}

impl<L: PieceWriter> Forecast<L> {
    /// Aims at the blocks that the session expects and takes its claims. Returns false, and takes nothing, where
    /// nothing can be foreseen.
    ///
    /// `look` tells 13 bytes of the stream, so many bytes behind those that were received, without receiving them;
    /// `None` where they are not there yet, or where that cannot be done.
    pub fn aim(
        &mut self,
        session: &mut Session<L>,
        decoder: &Decoder,
        look: impl FnMut(usize) -> Option<[u8; PieceHeader::LEN]>,
    ) -> bool {
        self.expects.clear();
        let mut header_from = 0;
        match decoder.position() {
            Position::Control => return false,
            Position::Boundary { prefix } => {
                header_from = prefix.len();
                self.headers[0][..header_from].copy_from_slice(prefix);
            }
            Position::Body { done, .. } => {
                let Some((slot, block)) = session.arriving() else { return false };
                let header_from = PieceHeader::LEN;
                self.expects.push(Expect { slot, block, header_from, body_from: done });
            }
        }
        let is_seen = self.reach.is_short() && self.look_ahead(session, header_from, look);
        let room = if is_seen { 0 } else { self.reach.blocks() - self.expects.len() };
        for (slot, block) in session.expected().take(room) {
            self.expects.push(Expect { slot, block, header_from, body_from: 0 });
            header_from = 0;
        }
        if self.expects.is_empty() {
            return false;
        }
        self.claims = session.take_claims();
        true
    }

    /// Expects the blocks whose headers are in the socket. Returns whether it is known what comes behind the arriving
    /// block, be it a block or not.
    fn look_ahead(
        &mut self,
        session: &Session<L>,
        mut header_from: usize,
        mut look: impl FnMut(usize) -> Option<[u8; PieceHeader::LEN]>,
    ) -> bool {
        let mut is_seen = false;
        let mut at =
            self.expects.first().map_or(0, |arriving| arriving.block.len - arriving.body_from) as usize;
        while self.expects.len() < REACH_MAX {
            let Some(seen) = look(at) else { break };
            is_seen = true;
            let mut header = self.headers[0];
            header[header_from..].copy_from_slice(&seen[..PieceHeader::LEN - header_from]);
            let Some((slot, block)) = requested_by(session, &header) else { break };
            // A block that comes twice is the decoder's.
            if self.expects.iter().any(|expect| expect.block == block) {
                break;
            }
            self.expects.push(Expect { slot, block, header_from, body_from: 0 });
            at += PieceHeader::LEN - header_from + block.len as usize;
            header_from = 0;
        }
        is_seen
    }

    /// The places of the expected block number `at`, counted from 0; `None` behind the last.
    pub fn part(&mut self, at: usize) -> Option<Part<'_, L>> {
        let Expect { slot, block, header_from, body_from } = *self.expects.get(at)?;
        let lease = self.claims.lease_mut(slot)?;
        let header = &mut self.headers[at][header_from..];
        Some(Part { header, lease, begin: block.begin + body_from, len: block.len - body_from })
    }

    /// Expects no more than the first `count` blocks: the receive has no room for others.
    pub fn truncate(&mut self, count: usize) {
        self.expects.truncate(count);
    }

    /// The place of the header behind the last expected block. The receive ends there.
    pub fn header_behind(&mut self) -> &mut [u8; PieceHeader::LEN] {
        &mut self.headers[self.expects.len()]
    }

    /// Gives the claims back to the session as they are, without a receive.
    pub fn cancel(&mut self, session: &mut Session<L>) {
        session.put_claims(std::mem::take(&mut self.claims));
    }

    /// Gives the claims back to the session and works through the `received` bytes that have come to the places.
    pub fn settle(
        &mut self,
        received: usize,
        session: &mut Session<L>,
        decoder: &mut Decoder,
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Settled {
        session.put_claims(std::mem::take(&mut self.claims));
        session.set_flooded(self.expects.len() == REACH_MAX && received == self.room());
        let settled = self.walk(received, session, decoder, now, work);
        session.set_flooded(false);
        settled
    }

    /// How many bytes a receive can bring.
    fn room(&self) -> usize {
        let room = |expect: &Expect| {
            PieceHeader::LEN - expect.header_from + (expect.block.len - expect.body_from) as usize
        };
        self.expects.iter().map(room).sum::<usize>() + PieceHeader::LEN
    }

    /// Goes through the received bytes in the order of the stream.
    fn walk(
        &mut self,
        received: usize,
        session: &mut Session<L>,
        decoder: &mut Decoder,
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Settled {
        let mut left = received;
        let mut settled = Settled::default();
        for (at, expect) in self.expects.iter().enumerate() {
            if left == 0 {
                return settled;
            }
            if expect.header_from < PieceHeader::LEN {
                let got = (expect.header_from + left).min(PieceHeader::LEN);
                let header = &self.headers[at][..got];
                if *header != PieceHeader::of(expect.block).encode()[..got] {
                    settled.spilled = self.gather(at, left, session);
                    self.spoil(at, left, session);
                    self.reach.note(true);
                    decoder.set_boundary();
                    return settled;
                }
                left -= got - expect.header_from;
                if got < PieceHeader::LEN {
                    decoder.set_prefix(header);
                    return settled;
                }
                let is_surprise = !session.start_requested(expect.block);
                self.reach.note(is_surprise);
            }
            settled.direct += u64::from(left > 0 && expect.body_from == 0);
            let body_len = (expect.block.len - expect.body_from) as usize;
            if left < body_len {
                let done = expect.body_from + left as u32;
                decoder.set_body(PieceHeader::of(expect.block), done);
                return settled;
            }
            left -= body_len;
            session.block_end(now, work);
            decoder.set_boundary();
        }
        debug_assert!(left <= PieceHeader::LEN, "more bytes than room");
        let header = &self.headers[self.expects.len()][..left];
        if let Some((_, next)) = session.expected().next() {
            let is_surprise = *header != PieceHeader::of(next).encode()[..left];
            if is_surprise || left == PieceHeader::LEN {
                self.reach.note(is_surprise);
            }
        }
        settled.spilled = header.to_vec();
        settled
    }

    /// Tells of the places from `expects[first]` on to which bytes came that were gathered, `left` of them.
    fn spoil(&self, first: usize, mut left: usize, session: &mut Session<L>) {
        for expect in &self.expects[first..] {
            left = left.saturating_sub(PieceHeader::LEN - expect.header_from);
            if left == 0 {
                return;
            }
            session.spoiled(expect.slot, expect.block);
            left = left.saturating_sub(expect.block.len as usize);
        }
    }

    /// The bytes from the header of `expects[first]` on, `left` of them new, in the order of the stream.
    fn gather(&self, first: usize, mut left: usize, session: &Session<L>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(left + PieceHeader::LEN);
        for (expect, header) in self.expects.iter().zip(&*self.headers).skip(first) {
            let got = (expect.header_from + left).min(PieceHeader::LEN);
            bytes.extend_from_slice(&header[..got]);
            left -= got - expect.header_from;
            let body = left.min(expect.block.len as usize);
            if body == 0 {
                break;
            }
            let start = bytes.len();
            bytes.resize(start + body, 0);
            if let Some(lease) = session.claims().lease(expect.slot) {
                lease.read(expect.block.begin, &mut bytes[start..]);
            }
            left -= body;
        }
        bytes.extend_from_slice(&self.headers[self.expects.len()][..left]);
        bytes
    }
}

/// The block that a header announces, and the claim that it was requested for.
fn requested_by<L: PieceWriter>(
    session: &Session<L>,
    header: &[u8; PieceHeader::LEN],
) -> Option<(Slot, Block)> {
    let header = PieceHeader::decode(header)?;
    let block = session.geometry().check_block(header.index, header.begin, header.len).ok()?;
    Some((session.requested(block)?, block))
}

/// Gives bytes to the decoder and what it finds to the session. Returns how many blocks began to be copied.
///
/// # Errors
/// What the peer did wrong. The bytes behind it are lost.
pub fn feed<L: PieceWriter>(
    session: &mut Session<L>,
    decoder: &mut Decoder,
    mut bytes: &[u8],
    now: Instant,
    work: &mut impl Work<L>,
) -> Result<u64, Fault> {
    let mut copied = 0;
    loop {
        let before = bytes.len();
        let Some(event) = decoder.next(&mut bytes).map_err(Fault::Wire)? else {
            // The start of a message. Of blocks there is but the head.
            session.chatted(before)?;
            return Ok(copied);
        };
        match event {
            Event::Message(message) => {
                session.chatted(before - bytes.len())?;
                session.message(message, now, work)?;
            }
            Event::BlockStart(header) => session.block_start(header)?,
            Event::BlockData { at, data, last, .. } => {
                copied += u64::from(at == 0);
                session.block_data(at, data);
                if last {
                    session.block_end(now, work);
                }
            }
        }
    }
}

/// How far to aim: the price of a surprise is what was received behind it, which is copied, half the reach or so. Over
/// the last thousands of headers the reach is kept such that this is at most half a block in a hundred.
#[derive(Debug)]
struct Reach {
    headers: u32,
    surprises: u32,
}

/// Headers for each block of reach and surprise.
const HEADERS_PER_SURPRISE: u32 = 100;
/// Headers after which older ones count half.
const HEADERS_MAX: u32 = 16 * 1024;

impl Default for Reach {
    /// The first surprise leaves the reach as it is, the second halves it.
    fn default() -> Self {
        Self { headers: HEADERS_PER_SURPRISE * REACH_MAX as u32, surprises: 0 }
    }
}

impl Reach {
    fn blocks(&self) -> usize {
        let bearable = (self.headers / HEADERS_PER_SURPRISE).checked_div(self.surprises);
        bearable.map_or(REACH_MAX, |blocks| (blocks as usize).clamp(1, REACH_MAX))
    }

    /// Whether looking ahead is worth it.
    fn is_short(&self) -> bool {
        self.blocks() < REACH_MAX / 4
    }

    /// Notes that a header came, and whether it was another than the expected one.
    const fn note(&mut self, is_surprise: bool) {
        self.headers += 1;
        self.surprises += is_surprise as u32;
        if self.headers >= HEADERS_MAX {
            self.headers /= 2;
            self.surprises /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::meta::geometry::{BLOCK_LEN, Geometry};
    use crate::swarm::fixture::{Desk, Memory};
    use crate::swarm::session::Terms;
    use crate::wire::decoder::Limits;
    use crate::wire::message::Message;

    /// The byte that block number `block` of the content is full of.
    fn fill(block: usize) -> u8 {
        (block % 251) as u8 + 1
    }

    const PIECES: u32 = 40;
    const BLOCKS_A_PIECE: u32 = 4;

    /// Downloads from a peer that answers the request at the place that `order` says, with a HAVE before it now and
    /// then, in receives of at most those lengths. Returns how many blocks were received in place and how many were
    /// copied.
    fn download(orders: &[usize], haves: &[bool], lens: &[usize], can_look: bool) -> (u64, u64) {
        let piece_len = BLOCKS_A_PIECE * BLOCK_LEN;
        let geometry = Geometry::new(u64::from(PIECES * piece_len) - 100, piece_len).unwrap();
        let mut desk = Desk::of(geometry);
        let now = Instant::now();
        let mut session = Session::new(
            SocketAddr::from(([127, 0, 0, 1], 1)),
            geometry,
            Terms { fast: true, pex: false },
            now,
            &mut desk,
        );
        session.message(Message::HaveAll, now, &mut desk).unwrap();
        session.message(Message::Unchoke, now, &mut desk).unwrap();
        let mut decoder = Decoder::new(Limits::of_pieces(PIECES));
        let (mut ours, mut theirs) = (Decoder::new(Limits::of_pieces(PIECES)), Forecast::default());
        let (mut asked, mut stream, mut out) = (Vec::new(), VecDeque::new(), Vec::new());
        let (mut direct, mut copied) = (0, 0);
        let mut orders = orders.iter().cycle();
        let mut haves = haves.iter().cycle();
        let mut lens = lens.iter().cycle();
        while desk.complete.len() < PIECES as usize {
            session.fill(now, &mut desk, &mut out);
            let said = std::mem::take(&mut out);
            let mut said = &said[..];
            while let Ok(Some(event)) = ours.next(&mut said) {
                if let Event::Message(Message::Request(raw)) = event {
                    asked.push(geometry.check_block(raw.index, raw.begin, raw.len).unwrap());
                }
            }
            while stream.len() < 20 * BLOCK_LEN as usize && !asked.is_empty() {
                let at = *orders.next().unwrap() % asked.len();
                let block: Block = asked.remove(at);
                if *haves.next().unwrap() {
                    stream.extend([0, 0, 0, 5, 4, 0, 0, 0, 0]);
                }
                let number = block.piece.get() * BLOCKS_A_PIECE + block.index();
                stream.extend(PieceHeader::of(block).encode());
                stream.extend(std::iter::repeat_n(fill(number as usize), block.len as usize));
            }
            let bytes = stream.make_contiguous();
            let look = |at: usize| bytes.get(at..).filter(|_| can_look)?.first_chunk().copied();
            let mut len = (*lens.next().unwrap()).min(bytes.len());
            let spilled = if theirs.aim(&mut session, &decoder, look) {
                len = land(&mut theirs, &bytes[..len]);
                let settled = theirs.settle(len, &mut session, &mut decoder, now, &mut desk);
                direct += settled.direct;
                settled.spilled
            } else {
                bytes[..len].to_vec()
            };
            stream.drain(..len);
            copied += feed(&mut session, &mut decoder, &spilled, now, &mut desk).unwrap();
        }
        for claim in &desk.complete {
            for (at, byte) in claim.lease.0.iter().enumerate() {
                let block = claim.piece().get() * BLOCKS_A_PIECE + at as u32 / BLOCK_LEN;
                assert_eq!(*byte, fill(block as usize), "piece {} at {at}", claim.piece());
            }
        }
        (direct, copied)
    }

    /// What the kernel does: fills one place after the other. Returns how much there was room for.
    fn land(forecast: &mut Forecast<Memory>, bytes: &[u8]) -> usize {
        let mut left = bytes;
        for at in 0.. {
            let Some(Part { header, lease, begin, len }) = forecast.part(at) else { break };
            let (now, later) = left.split_at(left.len().min(header.len()));
            header[..now.len()].copy_from_slice(now);
            let (now, later) = later.split_at(later.len().min(len as usize));
            lease.write(begin, now);
            left = later;
        }
        let (now, later) = left.split_at(left.len().min(PieceHeader::LEN));
        forecast.header_behind()[..now.len()].copy_from_slice(now);
        bytes.len() - later.len()
    }

    proptest! {
        #[test]
        fn every_block_comes_to_its_place_once(
            orders in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..12_usize], 1..60),
            haves in proptest::collection::vec(proptest::bool::weighted(0.1), 1..60),
            lens in proptest::collection::vec(1..400_000_usize, 1..60),
            can_look: bool,
        ) {
            let (direct, copied) = download(&orders, &haves, &lens, can_look);
            prop_assert_eq!(direct + copied, u64::from(PIECES * BLOCKS_A_PIECE));
        }
    }

    #[test]
    fn blocks_in_order_are_never_copied() {
        let lens = [1, 100_000, 16_384, 13, 7, 65_536, 20];
        assert_eq!(download(&[0], &[false], &lens, false), (u64::from(PIECES * BLOCKS_A_PIECE), 0));
    }

    #[test]
    fn a_socket_with_more_than_a_receive_takes_stops_the_growth() {
        let geometry = Geometry::new(u64::from(1_000 * BLOCK_LEN), BLOCK_LEN).unwrap();
        let mut desk = Desk::of(geometry);
        let now = Instant::now();
        let mut session = Session::new(
            SocketAddr::from(([127, 0, 0, 1], 1)),
            geometry,
            Terms { fast: true, pex: false },
            now,
            &mut desk,
        );
        session.message(Message::HaveAll, now, &mut desk).unwrap();
        session.message(Message::Unchoke, now, &mut desk).unwrap();
        let mut decoder = Decoder::new(Limits::of_pieces(1_000));
        let mut forecast = Forecast::default();
        // The window before and after a receive of so many blocks.
        let mut receive = |blocks: usize| {
            session.fill(now, &mut desk, &mut Vec::new());
            let expected: Vec<_> = session.expected().map(|(_, block)| block).collect();
            let mut bytes = Vec::new();
            for block in &expected[..blocks] {
                bytes.extend(PieceHeader::of(*block).encode());
                bytes.resize(bytes.len() + block.len as usize, 0);
            }
            if blocks == REACH_MAX {
                // The header behind. It is left out of what follows, so it comes again.
                bytes.extend(PieceHeader::of(expected[blocks]).encode());
            }
            assert!(forecast.aim(&mut session, &decoder, |_| None));
            assert_eq!(land(&mut forecast, &bytes), bytes.len());
            forecast.settle(bytes.len(), &mut session, &mut decoder, now, &mut desk);
            session.fill(now, &mut desk, &mut Vec::new());
            (expected.len(), session.expected().count())
        };
        let mut window = 0;
        while window <= 2 * REACH_MAX {
            let (before, after) = receive(10);
            assert_eq!(after, before + 10);
            window = after;
        }
        let (before, after) = receive(REACH_MAX);
        assert_eq!(after, before, "the socket holds more");
        let (before, after) = receive(REACH_MAX - 1);
        assert_eq!(after, before + REACH_MAX - 1, "it ran dry");
    }

    #[test]
    fn surprises_shorten_the_reach_and_quiet_restores_it() {
        let mut reach = Reach::default();
        assert_eq!(reach.blocks(), REACH_MAX);
        reach.note(true);
        assert_eq!(reach.blocks(), REACH_MAX);
        (0..20).for_each(|_| reach.note(true));
        assert_eq!(reach.blocks(), 3);
        (0..200).for_each(|_| reach.note(true));
        assert_eq!(reach.blocks(), 1);
        (0..100_000).for_each(|_| reach.note(false));
        assert_eq!(reach.blocks(), REACH_MAX);
    }

    #[test]
    fn what_surprises_cost_stays_below_a_block_in_a_hundred() {
        for every in [3, 30, 300, 3_000] {
            let mut reach = Reach::default();
            let mut cost = 0;
            for header in 0..100_000 {
                let is_surprise = header % every == 0;
                cost += usize::from(is_surprise) * (reach.blocks() - 1) / 2;
                reach.note(is_surprise);
            }
            assert!(cost < 1_000, "a surprise every {every} headers costs {cost} blocks of 100000");
        }
    }
}
