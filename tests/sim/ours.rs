//! Our end of a connection: what `net::peer` and `net::scatter` do with a session and a decoder, on plain memory.

use std::net::SocketAddr;
use std::time::Instant;

use ringtide::meta::geometry::{Block, Geometry};
use ringtide::swarm::claim::PieceWriter;
use ringtide::swarm::claims::{Claims, Slot};
use ringtide::swarm::fault::Fault;
use ringtide::swarm::session::Session;
use ringtide::wire::decoder::{Decoder, Event, Limits, Position};
use ringtide::wire::message::PieceHeader;

use super::board::Board;
use super::content::MemoryLease;
use super::rng::Rng;

/// Bytes of a receive that is not aimed.
const BUFFER_LEN: usize = 16 * 1024;

/// One expected message, or the rest of it.
struct Expect {
    slot: Slot,
    block: Block,
    header_from: usize,
    body_from: u32,
}

impl Expect {
    fn room(&self) -> usize {
        PieceHeader::LEN - self.header_from + (self.block.len - self.body_from) as usize
    }
}

/// A receive under way that is aimed at the places of blocks, and holds the claims meanwhile.
struct Aimed {
    claims: Claims<MemoryLease>,
    expects: Vec<Expect>,
    headers: Vec<[u8; PieceHeader::LEN]>,
}

pub struct Ours {
    pub session: Session<MemoryLease>,
    decoder: Decoder,
    /// Bytes in the socket.
    socket: Vec<u8>,
    /// The receive under way; without one of these it is one through the decoder.
    aimed: Option<Aimed>,
    /// Bytes of bodies of blocks so far.
    pub body_bytes: u64,
    /// How many of a thousand receives are aimed, where they can be.
    aim_per_mille: u64,
}

impl Ours {
    pub fn new(addr: SocketAddr, geometry: Geometry, now: Instant, board: &mut Board, rng: &mut Rng) -> Self {
        Self {
            session: Session::new(addr, geometry, now, board),
            decoder: Decoder::new(Limits::of_pieces(geometry.piece_count())),
            socket: Vec::new(),
            aimed: None,
            body_bytes: 0,
            aim_per_mille: [0, 500, 950, 1_000][rng.below(4)],
        }
    }

    /// Bytes came; receives go on until there are none left.
    pub fn deliver(
        &mut self,
        bytes: &[u8],
        now: Instant,
        board: &mut Board,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.socket.extend_from_slice(bytes);
        while !self.socket.is_empty() {
            let room =
                self.aimed.as_ref().map_or(BUFFER_LEN, |aimed| aimed.expects.iter().map(Expect::room).sum());
            let most = room.min(self.socket.len());
            let len = if rng.chance(700) { most } else { rng.range(1, most as u64) as usize };
            let bytes: Vec<u8> = self.socket.drain(..len).collect();
            self.complete(&bytes, now, board, out)?;
            self.post(rng);
        }
        Ok(())
    }

    /// The receive under way is ended by us, with nothing.
    pub fn cancel(
        &mut self,
        now: Instant,
        board: &mut Board,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.complete(&[], now, board, out)?;
        self.post(rng);
        Ok(())
    }

    /// Ends the connection.
    pub fn close(&mut self, board: &mut Board) {
        if let Some(aimed) = self.aimed.take() {
            self.session.put_claims(aimed.claims);
        }
        self.session.close(board);
    }

    /// Starts a receive.
    fn post(&mut self, rng: &mut Rng) {
        assert!(self.aimed.is_none());
        if !rng.chance(self.aim_per_mille) {
            return;
        }
        let most = [1, 3, 64][rng.below(3)];
        let mut first = [0; PieceHeader::LEN];
        let mut header_from = 0;
        let mut expects = Vec::new();
        match self.decoder.position() {
            Position::Control => return,
            Position::Boundary { prefix } => {
                header_from = prefix.len();
                first[..header_from].copy_from_slice(prefix);
            }
            Position::Body { done, header } => {
                let Some((slot, block)) = self.session.arriving() else { return };
                assert_eq!(header, PieceHeader::of(block), "another block is arriving");
                let header_from = PieceHeader::LEN;
                expects.push(Expect { slot, block, header_from, body_from: done });
            }
        }
        for (slot, block) in self.session.expected().take(most) {
            expects.push(Expect { slot, block, header_from, body_from: 0 });
            header_from = 0;
        }
        if expects.is_empty() {
            return;
        }
        let mut claims = self.session.take_claims();
        for expect in &expects {
            let lease = claims.lease_mut(expect.slot).expect("a request belongs to a claim");
            assert_eq!(lease.piece(), expect.block.piece, "a request belongs to its claim");
        }
        let mut headers = vec![[0; PieceHeader::LEN]; expects.len()];
        headers[0] = first;
        self.aimed = Some(Aimed { claims, expects, headers });
    }

    /// The receive under way is over and brought these bytes.
    fn complete(
        &mut self,
        bytes: &[u8],
        now: Instant,
        board: &mut Board,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let spilled = match self.aimed.take() {
            Some(mut aimed) => {
                aimed.land(bytes);
                self.settle(aimed, bytes.len(), now, board)
            }
            None => bytes.to_vec(),
        };
        self.session.heard(now);
        let fed = self.feed(&spilled, now, board);
        self.session.fill(now, board, out);
        fed
    }

    fn settle(&mut self, mut aimed: Aimed, mut left: usize, now: Instant, board: &mut Board) -> Vec<u8> {
        self.session.put_claims(std::mem::take(&mut aimed.claims));
        for (at, expect) in aimed.expects.iter().enumerate() {
            if left == 0 {
                break;
            }
            if expect.header_from < PieceHeader::LEN {
                let got = (expect.header_from + left).min(PieceHeader::LEN);
                let header = &aimed.headers[at][..got];
                if *header != PieceHeader::of(expect.block).encode()[..got] {
                    let spilled = aimed.gather(at, left, self.session.claims());
                    self.decoder.set_boundary();
                    return spilled;
                }
                left -= got - expect.header_from;
                if got < PieceHeader::LEN {
                    self.decoder.set_prefix(header);
                    return Vec::new();
                }
                self.session.start_expected();
            }
            let body_len = (expect.block.len - expect.body_from) as usize;
            if left < body_len {
                self.body_bytes += left as u64;
                self.decoder.set_body(PieceHeader::of(expect.block), expect.body_from + left as u32);
                return Vec::new();
            }
            left -= body_len;
            self.body_bytes += body_len as u64;
            self.session.block_end(now, board);
            self.decoder.set_boundary();
        }
        assert_eq!(left, 0, "more bytes than room");
        Vec::new()
    }

    fn feed(&mut self, mut bytes: &[u8], now: Instant, board: &mut Board) -> Result<(), Fault> {
        while let Some(event) = self.decoder.next(&mut bytes).map_err(Fault::Wire)? {
            match event {
                Event::Message(message) => self.session.message(message, now, board)?,
                Event::BlockStart(header) => self.session.block_start(header)?,
                Event::BlockData { at, data, last, .. } => {
                    self.body_bytes += data.len() as u64;
                    self.session.block_data(at, data);
                    if last {
                        self.session.block_end(now, board);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Aimed {
    /// What the kernel does: fills one place after the other.
    fn land(&mut self, mut bytes: &[u8]) {
        for (expect, header) in self.expects.iter().zip(&mut self.headers) {
            let (now, later) = bytes.split_at(bytes.len().min(PieceHeader::LEN - expect.header_from));
            header[expect.header_from..][..now.len()].copy_from_slice(now);
            let (now, later) =
                later.split_at(later.len().min((expect.block.len - expect.body_from) as usize));
            if let Some(lease) = self.claims.lease_mut(expect.slot) {
                lease.write(expect.block.begin + expect.body_from, now);
            }
            bytes = later;
        }
        assert!(bytes.is_empty());
    }

    /// The bytes from the header of `expects[first]` on, in the order of the stream.
    fn gather(&self, first: usize, mut left: usize, claims: &Claims<MemoryLease>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (expect, header) in self.expects.iter().zip(&self.headers).skip(first) {
            let got = (expect.header_from + left).min(PieceHeader::LEN);
            bytes.extend_from_slice(&header[..got]);
            left -= got - expect.header_from;
            let body = left.min(expect.block.len as usize);
            if body == 0 {
                break;
            }
            let lease = claims.lease(expect.slot).expect("claims do not end in a receive");
            lease.with_bytes(expect.block.begin, body as u32, |landed| bytes.extend_from_slice(landed));
            left -= body;
        }
        bytes
    }
}
