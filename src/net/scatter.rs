//! The speculative receive: one operation that puts many blocks straight into the mapped output.
//!
//! Peers answer requests in order, so what comes next on the socket is known: 13 header bytes, a block, 13 header
//! bytes, a block. The receive is aimed accordingly, header slots on the heap and block bodies at their final place.
//!
//! ```text
//! socket ──▶ [rest of the arriving block] [header][block] [header][block] …      (one RECVMSG)
//! ```
//!
//! 1. [`Scatter::aim`] lays the segments out from the decoder's position and the queue of requests, and takes the
//!    claims along: while the kernel writes, nobody else can reach those places.
//! 2. [`Scatter::settle`] walks the received bytes. While each header is the expected one, the blocks behind them are
//!    simply there. Nothing is copied.
//! 3. At the first header that is another (a HAVE in between, another order, a choke) the rest is gathered out of its
//!    landing places, in stream order, before anything is written; the caller feeds it to the decoder, which copies
//!    each block where it belongs. What landed in the wrong places is overwritten when the right blocks come: a place
//!    is only aimed at while its block is missing.

use std::io;
use std::time::Instant;

use crate::disk::PieceLease;
use crate::meta::geometry::Block;
use crate::swarm::claims::{Claims, Slot};
use crate::swarm::session::{Session, Work};
use crate::wire::decoder::{Decoder, Position};
use crate::wire::message::PieceHeader;

/// Blocks one receive is aimed at, while predictions hold. 64 blocks are 1 MiB, more than is usually there at once.
const SCATTER_BLOCKS_MAX: usize = 64;
/// Blocks one receive is aimed at after predictions failed: what follows a wrong one in the same receive is copied.
const SCATTER_BLOCKS_MIN: usize = 8;
/// Segments of one receive: the kernel takes 1024 (UIO_MAXIOV); a block in a torrent of many small files has several.
const SEGMENTS_MAX: usize = 1024;

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

/// What a receive brought.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Bytes that did not match the prediction, in stream order, for the decoder. Empty in the normal case.
    pub(super) spilled: Vec<u8>,
    /// Blocks that began where they were expected.
    pub(super) hits: u64,
}

/// The target of a speculative receive, and the claims whose memory it is. Reused from receive to receive.
#[derive(Debug)]
pub(super) struct Scatter {
    claims: Claims<PieceLease>,
    expects: Vec<Expect>,
    headers: Box<[[u8; PieceHeader::LEN]; SCATTER_BLOCKS_MAX]>,
    segments: Vec<libc::iovec>,
    /// Blocks to aim the next receive at.
    reach: usize,
    message: Option<Box<libc::msghdr>>,
}

impl Scatter {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            claims: Claims::default(),
            expects: Vec::with_capacity(SCATTER_BLOCKS_MAX),
            headers: Box::new([[0; PieceHeader::LEN]; SCATTER_BLOCKS_MAX]),
            segments: Vec::with_capacity(4 * SCATTER_BLOCKS_MAX),
            reach: SCATTER_BLOCKS_MAX,
            message: None,
        })
    }

    /// Aims at the blocks the session expects and takes its claims. Returns false, and takes nothing, where no
    /// prediction can be made.
    pub(super) fn aim(&mut self, session: &mut Session<PieceLease>, decoder: &Decoder) -> bool {
        self.expects.clear();
        self.segments.clear();
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
        let room = self.reach - self.expects.len();
        for (slot, block) in session.expected().take(room) {
            self.expects.push(Expect { slot, block, header_from, body_from: 0 });
            header_from = 0;
        }
        if self.expects.is_empty() {
            return false;
        }
        self.claims = session.take_claims();
        self.lay_out();
        if self.expects.is_empty() {
            // Not even one block fits: it lies in too many small files.
            session.put_claims(std::mem::take(&mut self.claims));
            return false;
        }
        true
    }

    fn lay_out(&mut self) {
        let mut laid_out = 0;
        for (expect, header) in self.expects.iter().zip(self.headers.iter_mut()) {
            let Some(lease) = self.claims.lease_mut(expect.slot) else { break };
            let before = self.segments.len();
            let header = &mut header[expect.header_from..];
            if !header.is_empty() {
                self.segments
                    .push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() });
            }
            let body_len = expect.block.len - expect.body_from;
            lease.iovecs(expect.block.begin + expect.body_from, body_len, &mut |segment| {
                self.segments.push(segment);
            });
            if self.segments.len() > SEGMENTS_MAX {
                self.segments.truncate(before);
                break;
            }
            laid_out += 1;
        }
        self.expects.truncate(laid_out);
    }

    /// The kernel's description of the target, valid as long as this box lives and is not aimed anew.
    #[expect(
        unsafe_code,
        reason = "the kernel's msghdr has padding on some platforms, so it is made of zeros"
    )]
    pub(super) fn message_header(&mut self) -> *mut libc::msghdr {
        let message = self.message.get_or_insert_with(|| {
            // SAFETY: msghdr is a plain C structure of integers and pointers, for which all zeros is a value.
            Box::new(unsafe { std::mem::zeroed() })
        });
        message.msg_iov = self.segments.as_mut_ptr();
        message.msg_iovlen = self.segments.len() as _;
        &raw mut **message
    }

    /// Gives the claims back to the session and works through the received bytes.
    pub(super) fn settle(
        &mut self,
        received: &io::Result<usize>,
        session: &mut Session<PieceLease>,
        decoder: &mut Decoder,
        now: Instant,
        work: &mut impl Work<PieceLease>,
    ) -> Settled {
        session.put_claims(std::mem::take(&mut self.claims));
        let mut left = *received.as_ref().unwrap_or(&0);
        let mut settled = Settled::default();
        for (at, expect) in self.expects.iter().enumerate() {
            if left == 0 {
                break;
            }
            if expect.header_from < PieceHeader::LEN {
                let got = (expect.header_from + left).min(PieceHeader::LEN);
                let header = &self.headers[at][..got];
                if *header != PieceHeader::of(expect.block).encode()[..got] {
                    settled.spilled = self.gather(at, left, session);
                    self.reach = (self.reach / 2).max(SCATTER_BLOCKS_MIN);
                    decoder.set_boundary();
                    return settled;
                }
                left -= got - expect.header_from;
                if got < PieceHeader::LEN {
                    decoder.set_prefix(header);
                    return settled;
                }
                session.start_expected();
                settled.hits += 1;
            }
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
        debug_assert_eq!(left, 0, "more bytes than room");
        self.reach = (self.reach + 1).min(SCATTER_BLOCKS_MAX);
        settled
    }

    /// The bytes from the header of `expects[first]` on, `left` of them new, in the order of the stream.
    fn gather(&self, first: usize, mut left: usize, session: &Session<PieceLease>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(left + PieceHeader::LEN);
        for (at, expect) in self.expects.iter().enumerate().skip(first) {
            let got = (expect.header_from + left).min(PieceHeader::LEN);
            bytes.extend_from_slice(&self.headers[at][..got]);
            left -= got - expect.header_from;
            let body = left.min(expect.block.len as usize);
            if body == 0 {
                break;
            }
            let start = bytes.len();
            bytes.resize(start + body, 0);
            if let Some(lease) = session.claims().lease(expect.slot) {
                lease.copy_out(expect.block.begin, &mut bytes[start..]);
            }
            left -= body;
        }
        bytes
    }
}
