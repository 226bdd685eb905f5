use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn geometry(piece_count: u32) -> Geometry {
    Geometry::new(u64::from(piece_count), 1).unwrap()
}

fn set(geometry: Geometry, pieces: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut bits = Bitfield::new(geometry.piece_count());
    for index in pieces {
        bits.set(geometry.piece(index).unwrap());
    }
    bits
}

/// A picker that wants everything.
fn picker(piece_count: u32, seed: u64) -> Picker {
    Picker::new(geometry(piece_count), &Bitfield::full(piece_count), seed)
}

/// The slow obvious picker: it knows every peer and counts anew each time.
struct Oracle {
    geometry: Geometry,
    states: Vec<PieceState>,
    peers: Vec<Peer>,
}

struct Peer {
    has: Bitfield,
    last: Option<PieceIndex>,
}

impl Oracle {
    fn availability(&self, piece: PieceIndex) -> u32 {
        self.peers.iter().filter(|peer| peer.has.get(piece)).count() as u32
    }

    fn in_state(&self, state: PieceState) -> impl Iterator<Item = PieceIndex> {
        self.geometry.pieces().filter(move |piece| self.states[piece.at()] == state)
    }

    fn nth_in_state(&self, state: PieceState, nth: Index) -> Option<PieceIndex> {
        let pieces: Vec<_> = self.in_state(state).collect();
        (!pieces.is_empty()).then(|| *nth.get(&pieces))
    }

    fn is_free_at(&self, piece: PieceIndex, peer: usize) -> bool {
        self.states[piece.at()] == PieceState::Wanted && self.peers[peer].has.get(piece)
    }

    /// Whether a peer may be given that piece, or none.
    fn check_claim(&self, peer: usize, claimed: Option<PieceIndex>) -> bool {
        let free = self.geometry.pieces().filter(|&piece| self.is_free_at(piece, peer));
        let rarest = free.map(|piece| self.availability(piece)).min();
        if claimed.map(|piece| self.availability(piece)) != rarest {
            return false;
        }
        let next = self.peers[peer].last.and_then(|piece| self.geometry.piece(piece.get() + 1));
        let next =
            next.filter(|&next| self.is_free_at(next, peer) && Some(self.availability(next)) == rarest);
        claimed.is_none_or(|piece| self.is_free_at(piece, peer)) && (next.is_none() || next == claimed)
    }

    fn check(&self, picker: &Picker) {
        for piece in self.geometry.pieces() {
            assert_eq!(picker.state(piece), self.states[piece.at()]);
            assert_eq!(picker.availability(piece), self.availability(piece));
            assert_eq!(picker.free.get(piece), picker.state(piece) == PieceState::Wanted);
        }
        let open = |state: &PieceState| !matches!(state, PieceState::Unwanted | PieceState::Have);
        let remaining = self.states.iter().filter(|state| open(state)).count();
        assert_eq!(picker.remaining() as usize, remaining);
        assert_eq!(picker.is_complete(), remaining == 0);
        for peer in &self.peers {
            let mut pieces = self.geometry.pieces();
            let wants = pieces.any(|piece| peer.has.get(piece) && open(&self.states[piece.at()]));
            assert_eq!(picker.wants_any(&peer.has), wants);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A peer comes with about so many quarters of the pieces.
    Join(u8, u64),
    Has(Index, Index),
    Leave(Index),
    Claim(Index),
    Move(PieceState, PieceState, Index),
}

fn op() -> impl Strategy<Value = Op> {
    use PieceState::{Claimed, Have, Verifying, Wanted};
    let index = any::<Index>;
    let transitions = [
        (Claimed, Wanted),
        (Claimed, Verifying),
        (Claimed, Verifying),
        (Verifying, Have),
        (Verifying, Wanted),
    ];
    prop_oneof![
        2 => (0u8..=4, any::<u64>()).prop_map(|(quarters, seed)| Op::Join(quarters, seed)),
        4 => (index(), index()).prop_map(|(peer, piece)| Op::Has(peer, piece)),
        1 => index().prop_map(Op::Leave),
        8 => index().prop_map(Op::Claim),
        6 => (prop::sample::select(transitions.to_vec()), index())
            .prop_map(|((from, to), piece)| Op::Move(from, to, piece)),
    ]
}

fn step(picker: &mut Picker, oracle: &mut Oracle, op: &Op) {
    let peers = oracle.peers.len();
    match *op {
        Op::Join(quarters, seed) => {
            let mut random = Random::new(seed);
            let pieces = 0..oracle.geometry.piece_count();
            let has = set(oracle.geometry, pieces.filter(|_| random.below(4) < usize::from(quarters)));
            picker.peer_joined(&has);
            oracle.peers.push(Peer { has, last: None });
        }
        Op::Move(from, to, nth) => {
            let Some(piece) = oracle.nth_in_state(from, nth) else { return };
            match (from, to) {
                (PieceState::Claimed, PieceState::Wanted) => picker.release(piece),
                (PieceState::Claimed, _) => picker.received(piece),
                (PieceState::Verifying, PieceState::Have) => picker.commit(piece),
                _ => picker.reject(piece),
            }
            oracle.states[piece.at()] = to;
        }
        _ if peers == 0 => {}
        Op::Has(peer, piece) => {
            let piece = oracle.geometry.piece(piece.index(oracle.states.len()) as u32).unwrap();
            if oracle.peers[peer.index(peers)].has.set(piece) {
                picker.peer_has(piece);
            }
        }
        Op::Leave(peer) => {
            let peer = oracle.peers.swap_remove(peer.index(peers));
            picker.peer_left(&peer.has);
        }
        Op::Claim(peer) => {
            let at = peer.index(peers);
            let peer = &mut oracle.peers[at];
            let claimed = picker.claim(&peer.has, peer.last);
            assert!(oracle.check_claim(at, claimed), "peer {at} was given {claimed:?}");
            if let Some(piece) = claimed {
                oracle.states[piece.at()] = PieceState::Claimed;
                oracle.peers[at].last = claimed;
            }
        }
    }
}

proptest! {
    #[test]
    fn it_agrees_with_the_oracle(
        piece_count in 1u32..200, unwanted in vec(any::<Index>(), 0..10), seed: u64, ops in vec(op(), 0..200),
    ) {
        let geometry = geometry(piece_count);
        let mut wanted = Bitfield::full(piece_count);
        for index in unwanted {
            wanted.clear(geometry.piece(index.index(piece_count as usize) as u32).unwrap());
        }
        let state = |piece| if wanted.get(piece) { PieceState::Wanted } else { PieceState::Unwanted };
        let states = geometry.pieces().map(state).collect();
        let mut oracle = Oracle { geometry, states, peers: Vec::new() };
        let mut picker = Picker::new(geometry, &wanted, seed);
        for op in &ops {
            step(&mut picker, &mut oracle, op);
            oracle.check(&picker);
        }
        picker.rarity.check(&picker.free, &geometry);
    }

    /// As above, but the order of rarity is looked at after each step, so that it is never stale by luck.
    #[test]
    fn the_order_of_rarity_stays_sorted(piece_count in 1u32..100, seed: u64, ops in vec(op(), 0..100)) {
        let geometry = geometry(piece_count);
        let states = vec![PieceState::Wanted; piece_count as usize];
        let mut oracle = Oracle { geometry, states, peers: Vec::new() };
        let mut picker = picker(piece_count, seed);
        for op in &ops {
            step(&mut picker, &mut oracle, op);
            picker.rarity.check(&picker.free, &geometry);
        }
    }
}

#[test]
fn the_rarest_piece_goes_first() {
    let mut picker = picker(100, 1);
    let most = set(geometry(100), (0..100).filter(|&index| index != 42));
    let all = Bitfield::full(100);
    (0..5).for_each(|_| picker.peer_joined(&most));
    picker.peer_joined(&all);
    assert_eq!(picker.claim(&all, None).map(PieceIndex::get), Some(42));
}

#[test]
fn a_peer_with_one_of_very_many_pieces_is_served() {
    let geometry = geometry(100_000);
    let mut picker = picker(100_000, 1);
    let one = set(geometry, [77_777]);
    let others = set(geometry, 0..99_999);
    picker.peer_joined(&others);
    picker.peer_joined(&one);
    // Piece 77 777 is the only one of two peers, so the probes end among the others.
    assert_eq!(picker.claim(&one, None).map(PieceIndex::get), Some(77_777));
    assert_eq!(picker.claim(&one, None), None);
    assert!(picker.wants_any(&one), "it is claimed, not yet here");
}

/// Peers of the given speeds (pieces a round) download everything; how many claims did not continue the last one.
fn jumps(piece_count: u32, speeds: &[u32], seed: u64) -> u32 {
    let mut picker = picker(piece_count, seed);
    let all = Bitfield::full(piece_count);
    speeds.iter().for_each(|_| picker.peer_joined(&all));
    let mut last = vec![None; speeds.len()];
    let mut jumps = 0;
    while !picker.is_complete() {
        for (peer, &speed) in speeds.iter().enumerate() {
            for _ in 0..speed {
                let claimed = picker.claim(&all, last[peer]);
                if let Some(piece) = last[peer] {
                    picker.received(piece);
                    picker.commit(piece);
                }
                let next = last[peer].map(|piece| piece.get() + 1);
                jumps += u32::from(claimed.is_some() && claimed.map(PieceIndex::get) != next);
                last[peer] = claimed;
            }
        }
    }
    jumps
}

#[test]
fn one_seed_is_read_in_order_from_a_random_start() {
    let starts: Vec<_> = (0..20)
        .map(|seed| {
            let jumps = jumps(10_000, &[1], seed);
            assert!(jumps < 20, "seed {seed}: {jumps} of 10000 claims");
            let mut picker = picker(10_000, seed);
            let all = Bitfield::full(10_000);
            picker.peer_joined(&all);
            picker.claim(&all, None).unwrap().get()
        })
        .collect();
    assert!(starts.iter().any(|&start| start > 5_000) && starts.iter().any(|&start| start < 5_000));
}

#[test]
fn many_seeds_are_read_in_few_places() {
    const PIECE_LEN: u32 = 256 << 10;
    let piece_count = 4_000;
    let geometry = Geometry::new(u64::from(piece_count) * u64::from(PIECE_LEN), PIECE_LEN).unwrap();
    let all = Bitfield::full(piece_count);
    let speeds: Vec<u32> = [2, 1, 1, 1].repeat(16);
    for seed in 0..20 {
        let mut picker = Picker::new(geometry, &all, seed);
        let mut last = vec![None; speeds.len()];
        last.iter().for_each(|_| picker.peer_joined(&all));
        while !picker.is_complete() {
            for (peer, &speed) in speeds.iter().enumerate() {
                for _ in 0..speed {
                    let claimed = picker.claim(&all, last[peer]);
                    if let Some(piece) = last[peer] {
                        picker.received(piece);
                        picker.commit(piece);
                    }
                    last[peer] = claimed;
                }
            }
            let mut places: Vec<_> = last
                .iter()
                .flatten()
                .map(|piece: &PieceIndex| piece.get() / (EXTENT_LEN / PIECE_LEN))
                .collect();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() <= 10, "seed {seed}: {} peers at work in {places:?}", last.len());
        }
    }
}
