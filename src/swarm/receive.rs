//! From received bytes to a session: by a forecast where what comes is known, by the decoder where it is not.
//!
//! Peers answer in order, so what comes next on the socket is known: 13 header bytes, a block, 13 header bytes, a block.
//! A [`Forecast`] names the place of each part, so that a receive can put it there:
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
//! to aim is a matter of price: [`Reach`] keeps what surprises cost below one block in a hundred.

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
    /// Aims at the blocks that the session expects and takes its claims. Returns false, and takes nothing, where nothing
    /// can be foreseen.
    pub fn aim(&mut self, session: &mut Session<L>, decoder: &Decoder) -> bool {
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
        let room = self.reach.blocks() - self.expects.len();
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
                    self.reach.note(true);
                    decoder.set_boundary();
                    return settled;
                }
                left -= got - expect.header_from;
                if got < PieceHeader::LEN {
                    decoder.set_prefix(header);
                    return settled;
                }
                self.reach.note(false);
                session.start_expected();
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
    while let Some(event) = decoder.next(&mut bytes).map_err(Fault::Wire)? {
        match event {
            Event::Message(message) => session.message(message, now, work)?,
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
    Ok(copied)
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
    use super::*;

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
