//! A host at work: one connection of it.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use ringtide::meta::geometry::{Block, Geometry};
use ringtide::swarm::bitfield::Bitfield;
use ringtide::wire::decoder::{Decoder, Event, Limits};
use ringtide::wire::message::{self, Message, PieceHeader, RawBlock};

use super::board::{Board, Forgery};
use super::content::Content;
use super::rng::Rng;
use super::script::{Lie, Script, Told, Violation};

/// A host, whether connected or not.
pub struct Host {
    pub addr: SocketAddr,
    pub script: Script,
    pub content: Rc<Content>,
}

impl Host {
    pub fn geometry(&self) -> Geometry {
        self.content.geometry
    }

    fn told_all(&self) -> bool {
        self.script.lies.is_some() || self.script.pieces.is_full()
    }
}

/// What a host wants of the world after it was told something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Nothing,
    /// To unchoke in a while.
    Unchoke,
}

/// One connection of a host.
pub struct Connection {
    decoder: Decoder,
    queue: VecDeque<RawBlock>,
    pub choking: bool,
    pub interested: bool,
    unchoking: bool,
    has_choked: bool,
    /// Pieces that it serves while it chokes.
    allowed: HashSet<u32>,
    /// What is on its way to the wire.
    pub wire: VecDeque<u8>,
    served: u32,
    pub sent: u64,
    pub pumping: bool,
    /// HAVE messages that wait for a gap between blocks.
    haves: VecDeque<u32>,
}

impl Connection {
    pub fn new(host: &Host, rng: &mut Rng) -> Self {
        let mut connection = Self {
            decoder: Decoder::new(Limits::of_pieces(host.geometry().piece_count())),
            queue: VecDeque::new(),
            choking: true,
            interested: false,
            unchoking: false,
            has_choked: false,
            allowed: HashSet::new(),
            wire: VecDeque::new(),
            served: 0,
            sent: 0,
            pumping: false,
            haves: VecDeque::new(),
        };
        connection.greet(host, rng);
        connection
    }

    /// Whether there is anything to send, now or once there is room.
    pub fn is_busy(&self, host: &Host) -> bool {
        !self.wire.is_empty() || !self.haves.is_empty() || (!self.queue.is_empty() && !self.is_stalled(host))
    }

    fn is_stalled(&self, host: &Host) -> bool {
        host.script.stalls_after.is_some_and(|blocks| self.served >= blocks)
    }

    fn greet(&mut self, host: &Host, rng: &mut Rng) {
        if let Some(reqq) = host.script.reqq {
            let payload = format!("d1:md11:ut_metadatai3ee4:reqqi{reqq}e1:v4:Scame");
            let mut out = Vec::new();
            message::write_extended(&mut out, 0, payload.as_bytes());
            self.wire.extend(out);
        }
        match host.script.violates {
            Some((Violation::LongBitfield, _)) => {
                return self.say(Message::Bitfield(&vec![0; host.geometry().piece_count() as usize / 8 + 2]));
            }
            Some((Violation::SpareBits, _)) if !host.geometry().piece_count().is_multiple_of(8) => {
                let piece_count = host.geometry().piece_count();
                let pieces =
                    if host.told_all() { Bitfield::full(piece_count) } else { host.script.pieces.clone() };
                let mut bits = pieces.to_wire();
                *bits.last_mut().expect("there are pieces") |= 1;
                return self.say(Message::Bitfield(&bits));
            }
            _ => {}
        }
        self.tell_pieces(host, rng);
        if host.script.fast {
            for _ in 0..host.script.allows {
                let piece = rng.below(host.geometry().piece_count() as usize) as u32;
                self.allow(piece);
            }
        }
    }

    fn allow(&mut self, piece: u32) {
        self.allowed.insert(piece);
        self.say(Message::AllowedFast(piece));
    }

    fn tell_pieces(&mut self, host: &Host, rng: &mut Rng) {
        let piece_count = host.geometry().piece_count();
        let pieces = if host.told_all() { &Bitfield::full(piece_count) } else { &host.script.pieces };
        match host.script.told {
            Told::Fast if pieces.is_full() => self.say(Message::HaveAll),
            Told::Fast if pieces.count_ones() == 0 => self.say(Message::HaveNone),
            Told::Bitfield | Told::Fast => self.say(Message::Bitfield(&pieces.to_wire())),
            Told::Haves => self.haves.extend(pieces.iter_ones()),
            Told::Lazy => {
                let mut some = pieces.clone();
                for index in pieces.iter_ones().filter(|_| rng.chance(100)) {
                    some.clear(host.geometry().piece(index).unwrap());
                    self.haves.push_back(index);
                }
                self.say(Message::Bitfield(&some.to_wire()));
            }
        }
    }

    fn say(&mut self, message: Message<'_>) {
        let mut out = Vec::new();
        message.write(&mut out);
        self.wire.extend(out);
    }

    /// Tells of a piece that the host got.
    pub fn gain(&mut self, piece: u32) {
        self.haves.push_back(piece);
    }

    pub fn keep_alive(&mut self) {
        self.say(Message::KeepAlive);
    }

    /// Takes what we sent.
    pub fn hear(&mut self, mut bytes: &[u8], host: &Host, board: &Board, rng: &mut Rng) -> Wish {
        let mut wish = Wish::Nothing;
        while !bytes.is_empty() {
            let split = rng.range(1, bytes.len() as u64) as usize;
            let (mut part, rest) = bytes.split_at(if rng.chance(500) { bytes.len() } else { split });
            bytes = rest;
            let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Limits::of_pieces(1)));
            while let Some(event) = decoder.next(&mut part).expect("we speak the protocol") {
                let Event::Message(message) = event else { panic!("we serve no blocks") };
                if self.take(message, host, board) == Wish::Unchoke {
                    wish = Wish::Unchoke;
                }
            }
            self.decoder = decoder;
        }
        wish
    }

    fn take(&mut self, message: Message<'_>, host: &Host, board: &Board) -> Wish {
        match message {
            Message::Interested => {
                assert!(!self.interested, "we said twice that we are interested");
                self.interested = true;
                if self.choking && !self.unchoking {
                    self.unchoking = true;
                    return Wish::Unchoke;
                }
            }
            Message::NotInterested => {
                assert!(self.interested, "we said twice that we are not interested");
                self.interested = false;
            }
            Message::Request(raw) => self.asked(raw, host),
            Message::Cancel(raw) => {
                if let Some(at) = self.queue.iter().position(|&queued| queued == raw) {
                    self.queue.remove(at);
                    if host.script.fast {
                        self.say(Message::Reject(raw));
                    }
                }
            }
            Message::Have(index) => {
                let piece = host.geometry().piece(index).expect("we have no such piece");
                assert!(board.memory.is_sealed(piece), "we said we have a piece that was not verified");
            }
            Message::Bitfield(bytes) => {
                let pieces = Bitfield::from_wire(bytes, host.geometry().piece_count()).expect("it fits");
                let is_there =
                    |index| host.geometry().piece(index).is_some_and(|piece| board.memory.is_sealed(piece));
                assert!(pieces.iter_ones().all(is_there), "we said we have what was not verified");
            }
            Message::HaveNone => assert!(host.script.fast, "it does not speak the fast extension"),
            Message::KeepAlive => {}
            other => panic!("we said {other:?}"),
        }
        Wish::Nothing
    }

    fn asked(&mut self, raw: RawBlock, host: &Host) {
        let block = host.geometry().check_block(raw.index, raw.begin, raw.len).expect("no such block");
        assert!(self.interested, "we asked without being interested");
        assert!(host.told_all() || host.script.pieces.get(block.piece), "we asked for what it has not");
        if self.choking && !self.allowed.contains(&raw.index) {
            assert!(self.has_choked, "we asked before we were unchoked");
            if host.script.fast {
                self.say(Message::Reject(raw));
            }
            return;
        }
        self.queue.push_back(raw);
        // Who chokes and unchokes may be asked by one who has yet to hear of it, and who sends a block that he was not
        // asked for has answered a request that he does not know.
        let keeps_count = host.script.is_lawful() && !self.has_choked;
        assert!(!keeps_count || self.queue.len() <= host.script.reqq(), "we asked for too much at once");
    }

    /// Chokes or unchokes.
    pub fn flip(&mut self, host: &Host) {
        self.unchoking = false;
        self.choking = !self.choking;
        if !self.choking {
            return self.say(Message::Unchoke);
        }
        self.has_choked = true;
        self.say(Message::Choke);
        if !host.script.answers_choked {
            for raw in std::mem::take(&mut self.queue) {
                if self.allowed.contains(&raw.index) {
                    self.queue.push_back(raw);
                } else if host.script.fast {
                    self.say(Message::Reject(raw));
                }
            }
        }
    }

    /// Puts the next things to say on the wire, as far as there is room.
    pub fn fill(&mut self, host: &Host, rng: &mut Rng, forgeries: &mut HashSet<Forgery>) {
        while self.wire.len() < host.script.backlog {
            let many = host.script.told == Told::Haves || self.queue.is_empty();
            while let Some(index) = self.haves.pop_front() {
                self.say(Message::Have(index));
                if !many {
                    break;
                }
            }
            if self.is_stalled(host) || self.queue.is_empty() {
                return;
            }
            let at = if host.script.shuffles { rng.below(self.queue.len()) } else { 0 };
            if let Some(raw) = self.queue.remove(at) {
                self.answer(raw, host, rng, forgeries);
            }
        }
    }

    fn answer(&mut self, raw: RawBlock, host: &Host, rng: &mut Rng, forgeries: &mut HashSet<Forgery>) {
        let script = &host.script;
        if let Some((violation, after)) = script.violates
            && self.served >= after
        {
            self.violate(violation, raw, host);
        }
        if rng.chance(script.chats) {
            self.chat(raw, host, rng);
        }
        let block = host.geometry().check_block(raw.index, raw.begin, raw.len).unwrap();
        if rng.chance(script.rejects) {
            return self.say(Message::Reject(raw));
        }
        if rng.chance(script.forgets) {
            return;
        }
        self.served += 1;
        if !script.pieces.get(block.piece) {
            match script.lies {
                Some(Lie::Reject) => return self.say(Message::Reject(raw)),
                Some(Lie::Garbage) => return self.send(block, true, host, rng, forgeries),
                _ => return,
            }
        }
        let times = 1 + u32::from(rng.chance(script.duplicates));
        for _ in 0..times {
            self.send(block, rng.chance(script.corrupts), host, rng, forgeries);
        }
        if rng.chance(script.unrequested) {
            let piece =
                host.geometry().piece(rng.below(host.geometry().piece_count() as usize) as u32).unwrap();
            let other = host.geometry().block(piece, 0);
            self.send(other, false, host, rng, forgeries);
        }
    }

    fn send(
        &mut self,
        block: Block,
        falsified: bool,
        host: &Host,
        rng: &mut Rng,
        forgeries: &mut HashSet<Forgery>,
    ) {
        self.wire.extend(PieceHeader::of(block).encode());
        let start = self.wire.len();
        self.wire.extend(host.content.block(block));
        if falsified {
            let at = start + rng.below(block.len as usize);
            self.wire[at] ^= 1 << rng.below(8);
            forgeries.insert((host.addr, block.piece.get(), block.index()));
        }
    }

    fn chat(&mut self, raw: RawBlock, host: &Host, rng: &mut Rng) {
        match rng.below(8) {
            0 => self.say(Message::KeepAlive),
            1 => self.say(Message::Have(raw.index)),
            2 => self.say(Message::Unknown { id: 77 }),
            3 => self.say(Message::Port(6881)),
            4 if host.script.fast => {
                let piece = rng.below(host.geometry().piece_count() as usize) as u32;
                self.say(Message::Suggest(piece));
            }
            5 if host.script.fast && self.allowed.len() < 10 => self.allow(raw.index),
            6 => self.say(Message::Request(raw)),
            _ => self.say(Message::NotInterested),
        }
    }

    fn violate(&mut self, violation: Violation, raw: RawBlock, host: &Host) {
        let piece_count = host.geometry().piece_count();
        match violation {
            // Said at the start, or cannot be said in this torrent.
            Violation::LongBitfield | Violation::SpareBits => {}
            Violation::SecondBitfield => {
                self.say(Message::Bitfield(&vec![0; piece_count.div_ceil(8) as usize]));
            }
            Violation::HaveOutOfRange => self.say(Message::Have(piece_count)),
            Violation::ShortBlock => {
                self.wire.extend(PieceHeader { index: raw.index, begin: raw.begin, len: 1 }.encode());
                self.wire.push_back(0);
                self.wire.extend(PieceHeader { index: raw.index, begin: 3, len: 5 }.encode());
                self.wire.extend([0; 5]);
            }
            Violation::NoSuchPiece => {
                self.wire.extend(PieceHeader { index: piece_count, begin: 0, len: 4 }.encode());
                self.wire.extend([0; 4]);
            }
            Violation::RejectOfNothing => {
                self.say(Message::Reject(RawBlock { index: u32::MAX, begin: 1, len: 0 }));
            }
            Violation::HugeMessage => self.wire.extend([0xff, 0xff, 0xff, 0xff, 5]),
        }
    }
}
