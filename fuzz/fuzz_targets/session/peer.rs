//! One connection: our end of it, what is on the wire, and what the peer knows of us.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use ringtide::meta::geometry::{Block, Geometry};
use ringtide::swarm::bitfield::Bitfield;
use ringtide::swarm::pipeline::{REQQ_DEFAULT, WINDOW_MAX};
use ringtide::swarm::receive::{Forecast, Part, feed};
use ringtide::swarm::session::{Session, Terms};
use ringtide::wire::decoder::{Decoder, Event, Limits};
use ringtide::wire::extension::Offered;
use ringtide::wire::message::{Message, PieceHeader, RawBlock};

use super::ops::Say;
use super::sim::board::Board;
use super::sim::content::{Content, MemoryLease, land};

/// Bytes of a receive that is not aimed.
const BUFFER_LEN: usize = 16 * 1024;

pub struct Peer {
    addr: SocketAddr,
    content: Rc<Content>,
    pub session: Session<MemoryLease>,
    decoder: Decoder,
    forecast: Forecast<MemoryLease>,
    /// A receive is under way that goes to the places of the forecast.
    is_aimed: bool,
    /// What the peer has sent and we have not received.
    pub wire: Vec<u8>,
    /// What the peer has been asked for and has not answered, whatever became of it since.
    queue: Vec<Block>,
    pub is_open: bool,
    ours: Decoder,
    theirs: Decoder,
    known: Known,
}

/// What we may do, by what we have received.
struct Known {
    geometry: Geometry,
    /// Whether the peer speaks the fast extension: it answers or rejects what it was asked for before a choke.
    fast: bool,
    /// Pieces that may be asked for while it chokes.
    allowed: Bitfield,
    has: Bitfield,
    is_choking: bool,
    is_interested: bool,
    reqq: usize,
    /// Requests that wait for an answer.
    asked: Vec<Block>,
    /// Requests that do not, but may be answered all the same.
    lapsed: Vec<Block>,
    /// The body of the block that is arriving.
    body: Vec<u8>,
    told: Bitfield,
}

impl Peer {
    pub fn new(addr: SocketAddr, fast: bool, content: &Rc<Content>, now: Instant, board: &mut Board) -> Self {
        let geometry = content.geometry;
        let limits = Limits::of_pieces(geometry.piece_count());
        Self {
            addr,
            content: Rc::clone(content),
            session: Session::new(addr, geometry, Terms { fast, pex: true }, now, board),
            decoder: Decoder::new(limits),
            forecast: Forecast::default(),
            is_aimed: false,
            wire: Vec::new(),
            queue: Vec::new(),
            is_open: true,
            ours: Decoder::new(limits),
            theirs: Decoder::new(limits),
            known: Known {
                geometry,
                fast,
                allowed: Bitfield::new(geometry.piece_count()),
                has: Bitfield::new(geometry.piece_count()),
                is_choking: true,
                is_interested: false,
                reqq: REQQ_DEFAULT as usize,
                asked: Vec::new(),
                lapsed: Vec::new(),
                body: Vec::new(),
                told: Bitfield::new(geometry.piece_count()),
            },
        }
    }

    pub fn says(&mut self, what: &Say) {
        let raw = |piece: u8, block: u8| {
            let block = self.block_at(piece, block);
            RawBlock::from(block)
        };
        match *what {
            Say::Choke => self.says_message(Message::Choke),
            Say::Unchoke => self.says_message(Message::Unchoke),
            Say::HaveAll => self.says_message(Message::HaveAll),
            Say::HaveNone => self.says_message(Message::HaveNone),
            Say::Have(piece) => self.says_message(Message::Have(piece.into())),
            Say::Bitfield(bits) => {
                let bytes = bits.to_be_bytes();
                let len = (self.content.geometry.piece_count().div_ceil(8) as usize).min(4);
                self.says_message(Message::Bitfield(&bytes[..len]));
            }
            Say::Reject(at) => {
                if let Some(block) = self.take_request(at) {
                    self.says_message(Message::Reject(block.into()));
                }
            }
            Say::RejectAny { piece, block } => self.says_message(Message::Reject(raw(piece, block))),
            Say::Reqq(reqq) => {
                let payload = format!("d4:reqqi{reqq}ee");
                self.says_message(Message::Extended { id: 0, payload: payload.as_bytes() });
            }
            Say::Extended { id, ref payload } => self.says_message(Message::Extended { id: id % 4, payload }),
            Say::KeepAlive => self.says_message(Message::KeepAlive),
            Say::Request { piece, block } => self.says_message(Message::Request(raw(piece, block))),
            Say::Suggest(piece) => self.says_message(Message::Suggest(piece.into())),
            Say::AllowedFast(piece) => self.says_message(Message::AllowedFast(piece.into())),
            Say::Unknown(id) => self.says_message(Message::Unknown { id: id | 0x80 }),
        }
    }

    pub fn says_message(&mut self, message: Message<'_>) {
        message.write(&mut self.wire);
    }

    pub fn answers(&mut self, at: u8, forged: bool) {
        if let Some(block) = self.take_request(at) {
            self.sends(block, forged);
        }
    }

    pub fn answers_all(&mut self) {
        for block in std::mem::take(&mut self.queue) {
            self.sends(block, false);
        }
    }

    pub fn pushes(&mut self, piece: u8, block: u8, forged: bool) {
        self.sends(self.block_at(piece, block), forged);
    }

    fn take_request(&mut self, at: u8) -> Option<Block> {
        let at = usize::from(at).checked_rem(self.queue.len())?;
        Some(self.queue.remove(at))
    }

    fn block_at(&self, piece: u8, block: u8) -> Block {
        let geometry = self.content.geometry;
        let piece = geometry.piece(u32::from(piece) % geometry.piece_count()).expect("a piece");
        geometry.block(piece, u32::from(block) % geometry.block_count(piece))
    }

    fn sends(&mut self, block: Block, forged: bool) {
        self.wire.extend(PieceHeader::of(block).encode());
        let start = self.wire.len();
        self.wire.extend(self.content.block(block));
        if forged {
            self.wire[start] ^= 1;
        }
    }

    /// The receive under way brings up to so many bytes. Then we ask for more and start the next.
    pub fn receive(&mut self, len: usize, now: Instant, board: &mut Board, aims: bool) {
        let room = if self.is_aimed { self.room() } else { BUFFER_LEN };
        let bytes: Vec<u8> = self.wire.drain(..len.min(room).min(self.wire.len())).collect();
        self.hear(&bytes, board);
        let (session, decoder) = (&mut self.session, &mut self.decoder);
        let spilled = if std::mem::take(&mut self.is_aimed) {
            land(&mut self.forecast, &bytes);
            self.forecast.settle(bytes.len(), session, decoder, now, board).spilled
        } else {
            bytes
        };
        session.heard(now);
        if feed(session, decoder, &spilled, now, board).is_err() {
            self.is_open = false;
            return;
        }
        let mut out = Vec::new();
        session.fill(now, board, &mut out);
        self.check(&out, board);
        if aims {
            let wire = &self.wire;
            let look = |at: usize| wire.get(at..)?.first_chunk().copied();
            self.is_aimed = self.forecast.aim(&mut self.session, &self.decoder, look);
        }
    }

    pub fn tick(&mut self, now: Instant, board: &mut Board) {
        let mut out = Vec::new();
        let ticked = self.session.tick(now, board, &mut out);
        if ticked.is_ok() {
            self.check(&out, board);
        }
        match ticked {
            // The receive has had the claims for too long: it is ended, with nothing.
            Ok(true) => self.receive(0, now, board, false),
            Ok(false) => {}
            Err(_) => self.is_open = false,
        }
    }

    pub fn announce(&mut self, board: &Board, max: usize) {
        let mut out = Vec::new();
        self.session.announce_haves(board.ledger.verified(), max, &mut out);
        self.check(&out, board);
    }

    pub fn close(mut self, board: &mut Board) {
        if self.is_aimed {
            self.forecast.cancel(&mut self.session);
        }
        self.session.close(board);
    }

    /// Bytes that the receive under way has places for.
    fn room(&mut self) -> usize {
        let room = |part: Part<'_, MemoryLease>| part.header.len() + part.len as usize;
        let rooms = (0..).map_while(|at| self.forecast.part(at).map(room));
        rooms.sum::<usize>() + PieceHeader::LEN
    }

    /// Notes what we receive. A body that is wrong is one that the peer falsified.
    fn hear(&mut self, mut bytes: &[u8], board: &mut Board) {
        let known = &mut self.known;
        // What comes behind an error is never looked at.
        while let Ok(Some(event)) = self.theirs.next(&mut bytes) {
            match event {
                Event::Message(message) => known.hear(message),
                Event::BlockStart(header) => known.block_start(header),
                Event::BlockData { header, data, last, .. } => {
                    known.body.extend_from_slice(data);
                    if !last {
                        continue;
                    }
                    let body = std::mem::take(&mut known.body);
                    if let Ok(block) = known.geometry.check_block(header.index, header.begin, header.len)
                        && body != self.content.block(block)
                    {
                        board.forgeries.insert((self.addr, header.index, block.index()));
                    }
                }
            }
        }
    }

    /// Looks at what we say.
    fn check(&mut self, mut out: &[u8], board: &Board) {
        while let Some(event) = self.ours.next(&mut out).expect("we speak the protocol") {
            let Event::Message(message) = event else { panic!("we serve no blocks") };
            if let Message::Request(raw) = message {
                self.queue.push(self.known.asked_for(raw, board));
            } else {
                self.known.check(message, board);
            }
        }
        let arriving = self.session.outstanding().checked_sub(self.known.asked.len());
        assert!(matches!(arriving, Some(0 | 1)), "{:?} outstanding: {:?}", arriving, self.known.asked);
    }
}

impl Known {
    fn hear(&mut self, message: Message<'_>) {
        let len = self.geometry.piece_count();
        match message {
            Message::Choke => {
                self.is_choking = true;
                if !self.fast {
                    self.lapsed.append(&mut self.asked);
                }
            }
            Message::AllowedFast(index) => {
                if let Some(piece) = self.geometry.piece(index) {
                    self.allowed.set(piece);
                }
            }
            Message::Unchoke => self.is_choking = false,
            Message::HaveAll => self.has = Bitfield::full(len),
            // It may take back what it has told, and still be asked for the rest of a piece that was begun.
            Message::HaveNone => {}
            Message::Bitfield(bytes) => {
                if let Ok(told) = Bitfield::from_wire(bytes, len) {
                    self.has.set_all(&told);
                }
            }
            Message::Have(index) => {
                if let Some(piece) = self.geometry.piece(index) {
                    self.has.set(piece);
                }
            }
            Message::Reject(raw) => {
                if let Ok(block) = self.geometry.check_block(raw.index, raw.begin, raw.len)
                    && !take(&mut self.lapsed, block)
                {
                    // What it rejects while it chokes it no longer allows.
                    if take(&mut self.asked, block) && self.is_choking {
                        self.allowed.clear(block.piece);
                    }
                }
            }
            Message::Extended { id: 0, payload } => {
                if let Some(reqq) = Offered::parse(payload).reqq {
                    self.reqq = reqq.get().clamp(1, WINDOW_MAX) as usize;
                }
            }
            _ => {}
        }
    }

    fn block_start(&mut self, header: PieceHeader) {
        if let Ok(block) = self.geometry.check_block(header.index, header.begin, header.len)
            && !take(&mut self.asked, block)
        {
            take(&mut self.lapsed, block);
        }
    }

    fn asked_for(&mut self, raw: RawBlock, board: &Board) -> Block {
        let block = self.geometry.check_block(raw.index, raw.begin, raw.len).expect("we asked for no block");
        assert!(self.is_interested, "we asked without being interested");
        assert!(!self.is_choking || self.allowed.get(block.piece), "we asked while choked");
        assert!(self.has.get(block.piece), "we asked for what it has not");
        assert!(!board.memory.is_sealed(block.piece), "we asked for what we have");
        assert!(!self.asked.contains(&block), "we asked twice for {block:?}");
        self.asked.push(block);
        assert!(self.asked.len() <= self.reqq, "we asked for more than the {} that it takes", self.reqq);
        block
    }

    fn check(&mut self, message: Message<'_>, board: &Board) {
        match message {
            Message::Interested => assert!(!std::mem::replace(&mut self.is_interested, true)),
            Message::NotInterested => assert!(std::mem::replace(&mut self.is_interested, false)),
            Message::Cancel(raw) => {
                let block = self.geometry.check_block(raw.index, raw.begin, raw.len).expect("a block");
                assert!(take(&mut self.asked, block), "we cancelled what we had not asked for");
                self.lapsed.push(block);
            }
            Message::Have(index) => {
                let piece = self.geometry.piece(index).expect("we have no such piece");
                assert!(board.memory.is_sealed(piece), "we said we have a piece that was not verified");
                assert!(self.told.set(piece), "we said twice that we have piece {index}");
            }
            Message::Bitfield(bytes) => {
                let pieces = Bitfield::from_wire(bytes, self.geometry.piece_count()).expect("it fits");
                for piece in pieces.iter_ones().filter_map(|index| self.geometry.piece(index)) {
                    assert!(board.memory.is_sealed(piece), "we said we have a piece that was not verified");
                    assert!(self.told.set(piece), "we said twice what we have");
                }
            }
            Message::HaveNone => assert!(self.fast),
            Message::KeepAlive => {}
            other => panic!("we said {other:?}"),
        }
    }
}

fn take(blocks: &mut Vec<Block>, block: Block) -> bool {
    let at = blocks.iter().position(|&it| it == block);
    at.is_some_and(|at| {
        blocks.remove(at);
        true
    })
}
