//! Sessions of several peers over one ledger, on plain memory, as a sequence of operations: messages, blocks right and
//! wrong, in and out of order, cut anywhere, receives aimed and not, ticks, verdicts, peers that come and go.
//!
//! What must hold: we never break the protocol towards a peer ([`peer::Peer`] keeps account of what it knows), each
//! wrong block of a piece is put down to a peer that sent it wrong, nobody else is banned, nothing is lost when peers go,
//! and one honest peer at the end completes the download to the last byte.
#![no_main]

#[path = "session/ops.rs"]
mod ops;
#[path = "session/peer.rs"]
mod peer;
#[allow(dead_code, unreachable_pub, reason = "the simulated swarm uses more of it")]
#[path = "../../tests/sim"]
mod sim {
    pub mod board;
    pub mod content;
    pub mod rng;
}

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringtide::meta::geometry::Geometry;
use ringtide::swarm::picker::PieceState;
use ringtide::wire::message::Message;

use ops::{Input, Op};
use peer::Peer;
use sim::board::Board;
use sim::content::Content;

/// Peers at a time.
const PEERS: usize = 4;

/// Bytes and piece length: pieces of three blocks with a short last one, many tiny pieces, few of four blocks, one of a
/// few bytes.
const SHAPES: [(u64, u32); 4] = [(164_500, 33_000), (1_950, 100), (195_000, 65_536), (5, 16_384)];

/// Operations of an input that are carried out.
const OPS_MAX: usize = 300;

fuzz_target!(|input: Input| {
    let mut world = World::new(usize::from(input.shape) % SHAPES.len(), input.seed);
    for op in input.ops.into_iter().take(OPS_MAX) {
        world.act(op);
    }
    world.abort();
    world.finish();
});

/// Half of the peers speak the fast extension.
const fn speaks_fast(place: usize) -> bool {
    place.is_multiple_of(2)
}

struct World {
    content: Rc<Content>,
    board: Board,
    now: Instant,
    peers: [Option<Peer>; PEERS],
    banned: Vec<SocketAddr>,
}

impl World {
    fn new(shape: usize, seed: u8) -> Self {
        thread_local! {
            static CONTENTS: [OnceCell<Rc<Content>>; SHAPES.len()] = const { [const { OnceCell::new() }; SHAPES.len()] };
            /// The same for all inputs of a run, so that only the input decides.
            static START: Instant = Instant::now();
        }
        let (total_len, piece_len) = SHAPES[shape];
        let make = || Content::new(Geometry::new(total_len, piece_len).expect("a geometry"), 1);
        let content = CONTENTS.with(|contents| Rc::clone(contents[shape].get_or_init(make)));
        Self {
            board: Board::new(&content, u64::from(seed)),
            content,
            now: START.with(|start| *start),
            peers: [const { None }; PEERS],
            banned: Vec::new(),
        }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Say { peer, what } => self.with(peer, |peer, _, _| peer.says(&what)),
            Op::Answer { peer, at, forged } => self.with(peer, |peer, _, _| peer.answers(at, forged)),
            Op::Push { peer, piece, block, forged } => {
                self.with(peer, |peer, _, _| peer.pushes(piece, block, forged));
            }
            Op::Noise { peer, bytes } => self.with(peer, |peer, _, _| peer.wire.extend(bytes)),
            Op::Deliver { peer, len, aims } => self.with(peer, |peer, now, board| {
                peer.receive(usize::from(len), now, board, aims);
            }),
            Op::DeliverAll { peer, aims } => self.with(peer, |peer, now, board| {
                while peer.is_open && !peer.wire.is_empty() {
                    peer.receive(usize::MAX, now, board, aims);
                }
            }),
            Op::Haves { peer, max } => {
                self.with(peer, |peer, _, board| peer.announce(board, usize::from(max)))
            }
            Op::Leave { peer } => self.with(peer, |peer, _, _| peer.is_open = false),
            Op::Wait { ticks, seconds } => {
                let step = if seconds { Duration::from_secs(1) } else { Duration::from_millis(60) };
                for _ in 0..ticks % 70 {
                    self.tick(step);
                }
            }
            Op::Judge { count } => self.judge(usize::from(count)),
        }
    }

    /// Has the peer of that place do something; where there is none, one comes.
    fn with(&mut self, place: u8, act: impl FnOnce(&mut Peer, Instant, &mut Board)) {
        let place = usize::from(place) % PEERS;
        let addr = SocketAddr::from(([127, 0, 0, 1], 1000 + place as u16));
        if self.banned.contains(&addr) {
            return;
        }
        let (now, board) = (self.now, &mut self.board);
        let peer = self.peers[place]
            .get_or_insert_with(|| Peer::new(addr, speaks_fast(place), &self.content, now, board));
        act(peer, now, board);
        if !peer.is_open {
            self.close(place);
        }
    }

    fn tick(&mut self, step: Duration) {
        self.now += step;
        for place in 0..PEERS {
            if let Some(peer) = &mut self.peers[place] {
                peer.tick(self.now, &mut self.board);
                if !peer.is_open {
                    self.close(place);
                }
            }
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(peer) = self.peers[place].take() {
            peer.close(&mut self.board);
        }
    }

    /// What the verifier and the control thread do.
    fn judge(&mut self, count: usize) {
        let count = count.min(self.board.submitted.len());
        for claim in self.board.submitted.drain(..count).collect::<Vec<_>>() {
            self.board.judge(claim);
        }
        for addr in std::mem::take(&mut self.board.poisoned) {
            let lied = self.board.forgeries.iter().any(|(liar, ..)| *liar == addr);
            assert!(lied, "{addr} was banned and never lied");
            self.banned.push(addr);
            let place = usize::from(addr.port() - 1000);
            if place < PEERS {
                self.close(place);
            }
        }
    }

    /// Closes everything, has all judged that is complete, and looks whether anything was lost.
    fn abort(&mut self) {
        (0..PEERS).for_each(|place| self.close(place));
        self.judge(usize::MAX);
        self.board.check_nothing_leaked();
        let picker = self.board.ledger.picker();
        let geometry = self.content.geometry;
        assert!(geometry.pieces().all(|piece| picker.availability(piece) == 0), "a peer is still counted");
    }

    /// Lets one honest peer bring what is missing.
    fn finish(mut self) {
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut peer = Peer::new(addr, true, &self.content, self.now, &mut self.board);
        peer.says_message(Message::HaveAll);
        peer.says_message(Message::Unchoke);
        let mut rounds = 0;
        while !self.board.ledger.is_complete() {
            assert!(rounds < 200, "an honest peer does not complete the download: {:?}", peer.session);
            rounds += 1;
            while !peer.wire.is_empty() {
                peer.receive(usize::MAX, self.now, &mut self.board, true);
                assert!(peer.is_open, "an honest peer was closed");
            }
            peer.answers_all();
            self.judge(usize::MAX);
            self.now += Duration::from_millis(60);
            peer.tick(self.now, &mut self.board);
            assert!(peer.is_open, "an honest peer was closed");
        }
        assert!(!self.banned.contains(&addr));
        peer.announce(&self.board, usize::MAX);
        peer.close(&mut self.board);
        let geometry = self.content.geometry;
        let picker = self.board.ledger.picker();
        assert!(geometry.pieces().all(|piece| picker.state(piece) == PieceState::Have));
        assert!(self.board.memory.is(&self.content), "the bytes are others");
        assert_eq!(self.board.memory.leases_out(), 0);
    }
}
