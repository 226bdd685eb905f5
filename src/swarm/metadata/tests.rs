use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(100);

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1000 + number))
}

/// Bytes that differ from piece to piece.
fn info(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 1009) as u8).collect()
}

fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(METADATA_PIECE_LEN as usize).collect()
}

/// An exchange, the bytes it is after, and a virtual clock.
struct Bench {
    info: Vec<u8>,
    exchange: Exchange,
    now: Instant,
}

impl Bench {
    fn new(len: usize) -> Self {
        let info = info(len);
        Self { exchange: Exchange::new(InfoHash::of(&info)), info, now: Instant::now() }
    }

    fn join(&mut self, number: u16) {
        self.claim(number, self.info.len());
    }

    fn claim(&mut self, number: u16, len: usize) {
        self.exchange.offered(peer(number), len as u64, self.now).unwrap();
    }

    /// The pieces asked of a peer by the next actions.
    fn asked(&mut self, number: u16) -> Vec<u32> {
        requests(&self.exchange.actions(self.now), number)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn data(&mut self, number: u16, piece: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, ExchangeFault> {
        let data = pieces(bytes)[piece as usize];
        let message = MetadataMessage::Data { piece, total_len: Some(bytes.len() as u64), data };
        self.exchange.heard(peer(number), message, self.now)
    }

    fn right(&mut self, number: u16, piece: u32) -> Option<Vec<u8>> {
        let info = self.info.clone();
        self.data(number, piece, &info).unwrap()
    }

    fn wrong(&mut self, number: u16, piece: u32) -> Option<Vec<u8>> {
        let wrong: Vec<u8> = self.info.iter().map(|byte| !byte).collect();
        self.data(number, piece, &wrong).unwrap()
    }
}

fn requests(actions: &[Action], number: u16) -> Vec<u32> {
    let of_peer = |action: &Action| match *action {
        Action::Request { peer: asked, piece } => (asked == peer(number)).then_some(piece),
        Action::Ban(_) => None,
    };
    actions.iter().filter_map(of_peer).collect()
}

const PIECE: usize = METADATA_PIECE_LEN as usize;
const NOTHING: [u32; 0] = [];

#[test]
fn pieces_come_from_several_peers_and_each_starts_with_the_first() {
    let mut bench = Bench::new(9 * PIECE + 5);
    bench.join(1);
    bench.join(2);
    let actions = bench.exchange.actions(bench.now);
    assert_eq!((requests(&actions, 1), requests(&actions, 2)), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
    assert_eq!(bench.right(1, 0), None);
    assert_eq!(bench.asked(1), [4, 5]);
    assert_eq!(bench.right(2, 0), None, "a second one changes nothing");
    assert_eq!(bench.asked(2), [6, 7]);
    for piece in [3, 2, 1] {
        assert_eq!(bench.right(1, piece), None);
    }
    assert_eq!(bench.asked(1), [8, 9]);
    for piece in [4, 5, 8] {
        assert_eq!(bench.right(1, piece), None);
    }
    assert_eq!((bench.right(2, 7), bench.right(2, 6)), (None, None));
    assert_eq!((bench.asked(1), bench.asked(2)), (vec![], vec![]));
    let info = bench.info.clone();
    assert_eq!(bench.right(1, 9), Some(info));
    assert_eq!(bench.exchange.taken(), 10);
}

#[test]
fn of_a_crowd_each_is_asked_for_the_first_piece_alone() {
    let mut bench = Bench::new(9 * PIECE);
    for number in 0..=CROWD_MIN as u16 {
        bench.join(number);
    }
    let actions = bench.exchange.actions(bench.now);
    assert!((0..=CROWD_MIN as u16).all(|number| requests(&actions, number) == [0]));
    assert_eq!(bench.right(1, 0), None);
    assert_eq!(bench.asked(1), [1, 2, 3, 4, 5]);
}

#[test]
fn who_answers_is_asked_for_more_at_a_time() {
    let mut bench = Bench::new(200 * PIECE);
    bench.join(1);
    let (mut held, mut first, mut windows) = (bench.asked(1), 0, Vec::new());
    while windows.len() < 6 {
        windows.push(held.len());
        for piece in held.drain(..) {
            assert_eq!(bench.right(1, piece), None);
        }
        held = bench.asked(1);
        assert!(held[0] > first, "pieces come in their order");
        first = held[0];
    }
    assert_eq!(windows, [4, 8, 16, 32, 32, 32]);
    bench.exchange.heard(peer(1), MetadataMessage::Reject { piece: first }, bench.now).unwrap();
    bench.pass(HOLD_MIN);
    assert_eq!(bench.asked(1).len(), REQUESTS_MIN);
}

#[test]
fn who_takes_one_request_is_asked_in_turn() {
    let mut bench = Bench::new(3 * PIECE);
    bench.join(1);
    bench.exchange.ask_in_turn(peer(1));
    for piece in 0..3 {
        assert_eq!(bench.asked(1), [piece]);
        assert_eq!(bench.asked(1), NOTHING);
        assert_eq!(bench.right(1, piece).is_some(), piece == 2);
    }
}

#[test]
fn what_nobody_asked_for_is_ignored() {
    let mut bench = Bench::new(100);
    assert_eq!(bench.right(1, 0), None);
    bench.join(1);
    assert_eq!(bench.right(1, 0), None);
    assert_eq!(bench.asked(1), [0]);
    bench.join(2);
    assert_eq!(bench.wrong(2, 0), None);
    assert!(bench.right(1, 0).is_some());
}

#[test]
fn who_sent_all_of_it_alone_and_wrong_is_banned() {
    let mut bench = Bench::new(PIECE + 1);
    bench.join(1);
    assert_eq!(bench.asked(1), [0, 1]);
    assert_eq!((bench.wrong(1, 0), bench.wrong(1, 1)), (None, None));
    assert_eq!(bench.exchange.actions(bench.now), [Action::Ban(peer(1))]);
    assert_eq!(bench.exchange.offered(peer(1), 5, bench.now), Err(ExchangeFault::Banned));
    bench.join(2);
    assert_eq!(bench.asked(2), [0, 1]);
    assert_eq!(bench.right(2, 0), None);
    assert!(bench.right(2, 1).is_some());
}

#[test]
fn who_sends_another_first_piece_is_on_its_own() {
    let mut bench = Bench::new(2 * PIECE);
    bench.join(1);
    bench.join(2);
    bench.exchange.actions(bench.now);
    assert_eq!((bench.wrong(2, 0), bench.right(1, 0)), (None, None));
    assert_eq!(bench.wrong(2, 1), None);
    assert_eq!(bench.exchange.actions(bench.now), [Action::Ban(peer(2))]);
    assert!(bench.right(1, 1).is_some());
}

#[test]
fn of_several_sources_each_has_to_prove_itself() {
    let mut bench = Bench::new(3 * PIECE);
    bench.join(1);
    bench.join(2);
    bench.exchange.actions(bench.now);
    assert_eq!((bench.right(1, 0), bench.right(2, 0)), (None, None));
    assert_eq!((bench.wrong(2, 1), bench.right(1, 2)), (None, None));
    // Now each is asked for what it has not sent and is not about to answer.
    assert_eq!((bench.asked(1), bench.asked(2)), (vec![], vec![]));
    assert_eq!(bench.right(2, 2), None);
    assert_eq!(bench.exchange.actions(bench.now), [Action::Ban(peer(2))]);
    assert!(bench.right(1, 1).is_some());
}

#[test]
fn who_has_sent_all_of_it_right_is_found_when_others_have_mixed_in() {
    let mut bench = Bench::new(2 * PIECE);
    bench.join(1);
    bench.join(2);
    bench.exchange.actions(bench.now);
    // The first piece is the liar's, and the same; the second is not.
    assert_eq!((bench.right(2, 0), bench.right(1, 0)), (None, None));
    assert_eq!(bench.wrong(2, 1), None);
    assert_eq!(bench.exchange.actions(bench.now), [Action::Ban(peer(2))]);
    assert!(bench.right(1, 1).is_some());
}

#[test]
fn who_contradicts_itself_is_banned() {
    let mut bench = Bench::new(2 * PIECE);
    bench.join(1);
    bench.exchange.actions(bench.now);
    assert_eq!(bench.wrong(1, 0), None);
    // What it was asked for is given up, and asked for again.
    bench.exchange.evict(bench.now);
    bench.pass(HOLD_MIN);
    assert_eq!(bench.asked(1), [0, 1]);
    assert_eq!(bench.wrong(1, 0), None);
    let source = bench.exchange.sources.get_mut(&peer(1)).unwrap();
    source.ask(0, bench.now);
    assert_eq!(bench.right(1, 0), None);
    assert_eq!(bench.exchange.actions(bench.now), [Action::Ban(peer(1))]);
}

#[test]
fn sizes_do_not_block_each_other() {
    let mut bench = Bench::new(PIECE);
    for number in 1..=3 {
        bench.claim(number, PIECE + 1);
    }
    bench.join(4);
    assert_eq!(bench.asked(4), [0]);
    assert!(bench.right(4, 0).is_some());
}

#[test]
fn no_claim_waits_for_others() {
    let mut bench = Bench::new(PIECE);
    bench.claim(0, METADATA_LEN_MAX as usize);
    for number in 1..300 {
        bench.claim(number, PIECE + usize::from(number));
    }
    bench.join(300);
    let actions = bench.exchange.actions(bench.now);
    assert!((0..=300).all(|number| requests(&actions, number) == [0]));
    assert!(bench.right(300, 0).is_some());
}

#[test]
fn what_cannot_be_metadata_is_refused() {
    let mut bench = Bench::new(PIECE);
    let too_long = u64::from(METADATA_LEN_MAX) + 1;
    for len in [too_long, u64::MAX, 0] {
        assert_eq!(bench.exchange.offered(peer(3), len, bench.now), Err(ExchangeFault::TooLong { len }));
    }
}

#[test]
fn what_lacks_most_makes_room_and_before_it_what_has_stalled() {
    let mut bench = Bench::new(3 * PIECE);
    let large = vec![7; METADATA_LEN_MAX as usize];
    bench.join(9);
    assert_eq!(bench.asked(9), [0, 1, 2]);
    assert_eq!(bench.right(9, 0), None);
    for number in 1..=3 {
        bench.claim(number, large.len() - usize::from(number));
        let mut pending = bench.asked(number);
        // All but one piece of it.
        while let Some(piece) = pending.pop() {
            if piece > 0 || bench.exchange.sources[&peer(number)].claim.is_none() {
                let claimed = &large[usize::from(number)..];
                bench.data(number, piece, claimed).unwrap();
            }
            pending.extend(bench.asked(number).into_iter().filter(|&piece| piece != 1));
        }
        assert!(bench.exchange.held <= HELD_MAX);
    }
    let has_claim = |bench: &Bench, number| bench.exchange.sources[&peer(number)].claim.is_some();
    assert_eq!([1, 2, 3, 9].map(|number| has_claim(&bench, number)), [true, true, false, true]);
    bench.pass(STALLED_AFTER);
    assert_eq!(bench.right(9, 1), None);
    bench.exchange.evict(bench.now);
    assert_eq!([1, 2, 9].map(|number| has_claim(&bench, number)), [false, true, true]);
    assert!(bench.right(9, 2).is_some());
}

#[test]
fn long_metadata_comes_from_many_slow_peers_although_one_of_them_lies() {
    const PEERS: u16 = 40;
    let mut bench = Bench::new(4 << 20);
    let (info, mut wrong) = (bench.info.clone(), bench.info.clone());
    wrong[PIECE..].iter_mut().for_each(|byte| *byte ^= 1);
    for number in 0..PEERS {
        bench.join(number);
    }
    let mut pending: Vec<VecDeque<u32>> = vec![VecDeque::new(); usize::from(PEERS)];
    let (mut complete, mut was_full) = (None, false);
    let started = bench.now;
    while complete.is_none() {
        for action in bench.exchange.actions(bench.now) {
            if let Action::Request { peer, piece } = action {
                pending[usize::from(peer.port() - 1000)].push_back(piece);
            }
        }
        // Each sends ten pieces a second.
        for number in 0..PEERS {
            if let Some(piece) = pending[usize::from(number)].pop_front() {
                let bytes = if number == 0 { &wrong } else { &info };
                complete = complete.or(bench.data(number, piece, bytes).unwrap());
            }
        }
        was_full |= bench.exchange.held > HELD_MAX - PIECE;
        bench.pass(TICK);
        assert!(bench.now < started + Duration::from_secs(120), "it never ends");
    }
    assert!(complete == Some(info) && was_full);
}

#[test]
fn nothing_is_kept_of_peers_that_made_room() {
    let mut bench = Bench::new(3 * PIECE);
    bench.join(1);
    bench.join(2);
    bench.exchange.actions(bench.now);
    assert_eq!((bench.right(1, 0), bench.right(2, 0)), (None, None));
    assert_eq!((bench.wrong(2, 1), bench.right(1, 2)), (None, None));
    assert_eq!(bench.exchange.split.len(), 1, "each is on its own");
    assert!(bench.exchange.evict(bench.now));
    assert_eq!(bench.exchange.split.len(), 1);
    assert!(bench.exchange.evict(bench.now));
    assert!(bench.exchange.split.is_empty());
}

#[test]
fn who_leaves_takes_nothing_away_that_others_may_use() {
    let mut bench = Bench::new(2 * PIECE);
    bench.join(1);
    bench.exchange.actions(bench.now);
    assert_eq!(bench.right(1, 0), None);
    bench.exchange.gone(peer(1));
    bench.join(2);
    assert_eq!(bench.asked(2), [0, 1]);
    assert_eq!(bench.right(2, 0), None);
    assert!(bench.right(2, 1).is_some());
    // What nobody comes for is not kept for ever.
    for number in 0..100 {
        bench.claim(number, 2 * PIECE + usize::from(number));
        bench.exchange.actions(bench.now);
        let bytes = vec![number as u8; 2 * PIECE + usize::from(number)];
        assert_eq!(bench.data(number, 0, &bytes), Ok(None));
        bench.exchange.gone(peer(number));
    }
    assert_eq!(bench.exchange.assemblies.len(), ORPHANS_MAX);
    assert_eq!(bench.exchange.held, ORPHANS_MAX * PIECE);
}

#[test]
fn who_rejects_is_left_alone_for_a_while() {
    let mut bench = Bench::new(3 * PIECE);
    bench.join(1);
    assert_eq!(bench.asked(1), [0, 1, 2]);
    bench.exchange.heard(peer(1), MetadataMessage::Reject { piece: 0 }, bench.now).unwrap();
    assert_eq!(bench.asked(1), NOTHING);
    bench.join(2);
    assert_eq!(bench.asked(2), [0, 1, 2]);
    bench.exchange.gone(peer(2));
    bench.pass(HOLD_MIN);
    assert_eq!(bench.asked(1), [0, 1, 2]);
    bench.exchange.heard(peer(1), MetadataMessage::Reject { piece: 1 }, bench.now).unwrap();
    bench.pass(HOLD_MIN);
    assert_eq!(bench.asked(1), NOTHING, "the second time is longer");
    // An answer that was under way shows that it does answer. It cannot be placed before the first piece.
    assert_eq!(bench.right(1, 2), None);
    assert_eq!(bench.asked(1), [0, 1, 2]);
}

#[test]
fn what_slow_peers_were_asked_for_is_asked_of_ever_more_others() {
    let mut bench = Bench::new(2 * PIECE);
    for number in 0..100 {
        bench.join(number);
    }
    bench.exchange.actions(bench.now);
    for number in 0..100 {
        assert_eq!(bench.right(number, 0), None);
    }
    let mut counts = Vec::new();
    for _ in 0..5 {
        let actions = bench.exchange.actions(bench.now);
        counts.push((0..100).filter(|&number| requests(&actions, number) == [1]).count());
        bench.pass(REASK_AFTER);
    }
    assert_eq!(counts, [1, 3, 12, 48, 36]);
    bench.pass(ANSWER_TIMEOUT);
    bench.exchange.actions(bench.now);
    assert!(bench.exchange.sources[&peer(1)].is_held(bench.now));
    assert!(bench.right(1, 1).is_some(), "late is not too late");
}

#[test]
fn pieces_must_fit_the_claim() {
    let mut bench = Bench::new(PIECE + 10);
    bench.join(1);
    bench.asked(1);
    let data = |piece, total_len, len| MetadataMessage::Data { piece, total_len, data: &[0; PIECE][..len] };
    let mut fault = |message| bench.exchange.heard(peer(1), message, bench.now).unwrap_err();
    let (got, claimed) = (5, PIECE as u32 + 10);
    assert_eq!(fault(data(0, Some(5), PIECE)), ExchangeFault::OtherLen { got, claimed });
    let other = ExchangeFault::PieceLen { piece: 1, got: 11, expected: 10 };
    assert_eq!(fault(data(1, None, 11)), other);
    assert_eq!(other.to_string(), "it sent 11 bytes as piece 1 of the metadata, expected 10");
}

#[test]
fn a_peer_may_change_its_mind_or_leave() {
    let mut bench = Bench::new(PIECE);
    bench.claim(1, 7);
    assert_eq!(bench.asked(1), [0]);
    bench.join(1);
    assert_eq!(bench.asked(1), [0]);
    bench.exchange.gone(peer(1));
    assert!(bench.exchange.sources.is_empty());
    assert_eq!(bench.right(1, 0), None);
    bench.join(1);
    assert_eq!(bench.asked(1), [0]);
    assert!(bench.right(1, 0).is_some());
}

/// How a peer answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    /// With a wrong piece now and then: one in so many.
    Corrupt(u64),
    Silent,
    Rejects,
    /// It claims so many bytes more, and sends noise.
    Longer(u16),
    /// It sends nothing that fits.
    Nonsense,
    /// It answers rightly, but late.
    Late,
    /// It answers wrongly and late.
    LateLiar,
    /// It answers rightly, but never sends the last piece.
    AllButOne,
    /// It is right at first and wrong later.
    CorruptEnd,
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        (1..6u64).prop_map(Manner::Corrupt),
        Just(Manner::Silent),
        Just(Manner::Rejects),
        (1..40_000u16).prop_map(Manner::Longer),
        Just(Manner::Nonsense),
        Just(Manner::Late),
        Just(Manner::LateLiar),
        Just(Manner::AllButOne),
        Just(Manner::CorruptEnd),
        Just(Manner::Honest),
    ]
}

struct Swarm {
    bench: Bench,
    manners: Vec<Manner>,
    gone: HashSet<usize>,
    /// Requests on their way: when each is answered.
    pending: Vec<(Instant, usize, u32)>,
    seed: u64,
}

impl Swarm {
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn step(&mut self) -> Option<Vec<u8>> {
        for action in self.bench.exchange.actions(self.bench.now) {
            match action {
                Action::Request { peer: asked, piece } => {
                    let number = usize::from(asked.port() - 1000);
                    let wait = match self.manners[number] {
                        Manner::Late | Manner::LateLiar => Duration::from_secs(1 + self.random(8)),
                        _ => Duration::from_millis(self.random(300)),
                    };
                    self.pending.push((self.bench.now + wait, number, piece));
                }
                Action::Ban(liar) => {
                    let number = usize::from(liar.port() - 1000);
                    let manner = self.manners[number];
                    assert!(
                        !matches!(manner, Manner::Honest | Manner::Late | Manner::AllButOne),
                        "{manner:?} was banned"
                    );
                    self.gone.insert(number);
                }
            }
        }
        let held = self.bench.exchange.assemblies.values().flat_map(|assembly| assembly.pieces.values());
        let held: usize = held.map(|piece| piece.data.len()).sum();
        assert_eq!(held, self.bench.exchange.held);
        assert!(held <= HELD_MAX);
        self.bench.pass(TICK);
        let now = self.bench.now;
        let (due, later) = self.pending.drain(..).partition(|&(at, ..)| at <= now);
        self.pending = later;
        let due: Vec<(Instant, usize, u32)> = due;
        due.into_iter().find_map(|(_, number, piece)| self.answer(number, piece))
    }

    fn answer(&mut self, number: usize, piece: u32) -> Option<Vec<u8>> {
        if self.gone.contains(&number) {
            return None;
        }
        let is_last = (piece as usize + 1) * PIECE >= self.bench.info.len();
        let is_wrong = match self.manners[number] {
            Manner::AllButOne if is_last => return None,
            Manner::Honest | Manner::Late | Manner::AllButOne => false,
            Manner::CorruptEnd => is_last,
            Manner::Corrupt(one_in) => self.random(one_in) == 0,
            Manner::LateLiar | Manner::Nonsense | Manner::Longer(_) => true,
            Manner::Silent => return None,
            Manner::Rejects => {
                let reject = MetadataMessage::Reject { piece };
                return self.bench.exchange.heard(peer(number as u16), reject, self.bench.now).unwrap();
            }
        };
        let mut bytes = self.bench.info.clone();
        if let Manner::Longer(more) = self.manners[number] {
            bytes.resize(bytes.len() + usize::from(more), 0);
        }
        let mut data = pieces(&bytes)[piece as usize].to_vec();
        if is_wrong {
            data[0] ^= 1;
        }
        if matches!(self.manners[number], Manner::Nonsense) {
            data.pop();
        }
        let message = MetadataMessage::Data { piece, total_len: None, data: &data };
        match self.bench.exchange.heard(peer(number as u16), message, self.bench.now) {
            Ok(complete) => complete,
            Err(_) => {
                assert!(matches!(self.manners[number], Manner::Nonsense));
                self.bench.exchange.gone(peer(number as u16));
                self.gone.insert(number);
                None
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn one_honest_peer_suffices(
        len in 1..8 * PIECE,
        others in prop::collection::vec(manner(), 0..12),
        place: prop::sample::Index,
        seed: u64,
    ) {
        let mut manners = others;
        manners.insert(place.index(manners.len() + 1), Manner::Honest);
        let mut bench = Bench::new(len);
        for (number, manner) in manners.iter().enumerate() {
            let more = if let Manner::Longer(more) = manner { usize::from(*more) } else { 0 };
            bench.claim(number as u16, len + more);
        }
        let info = bench.info.clone();
        let mut swarm = Swarm { bench, manners, gone: HashSet::new(), pending: Vec::new(), seed };
        let complete = (0..6_000).find_map(|_| swarm.step());
        prop_assert_eq!(complete, Some(info));
    }
}

/// How long the last of so many takes to give the metadata among others of that manner, who were there long before.
fn among(others: u16, manner: Manner, len: usize) -> Duration {
    let mut bench = Bench::new(len);
    let more = if let Manner::Longer(more) = manner { usize::from(more) } else { 0 };
    for number in 0..others {
        bench.claim(number, len + more);
    }
    let mut manners = vec![manner; usize::from(others)];
    manners.push(Manner::Honest);
    let info = bench.info.clone();
    let mut swarm = Swarm { bench, manners, gone: HashSet::new(), pending: Vec::new(), seed: 1 };
    // Liars that are right at times may be enough.
    if (0..15).any(|_| swarm.step().is_some()) {
        return Duration::ZERO;
    }
    swarm.bench.join(others);
    let joined = swarm.bench.now;
    assert!((0..600).find_map(|_| swarm.step()) == Some(info), "{manner:?}");
    swarm.bench.now - joined
}

#[test]
fn an_honest_answer_wins_at_once_among_five_hundred_liars() {
    let manners = [
        Manner::Silent,
        Manner::Rejects,
        Manner::Corrupt(1),
        Manner::Corrupt(3),
        Manner::Longer(1),
        Manner::Longer(40_000),
        Manner::Nonsense,
        Manner::LateLiar,
        Manner::CorruptEnd,
    ];
    for manner in manners {
        let took = among(500, manner, 3 * PIECE + 1);
        assert!(took <= Duration::from_secs(2), "{manner:?}: {took:?}");
    }
    let took = among(500, Manner::Corrupt(1), PIECE / 2);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let took = among(500, Manner::Silent, 64 * PIECE);
    assert!(took <= Duration::from_secs(2), "{took:?}");
}

#[test]
fn who_gives_most_of_it_holds_up_nobody() {
    let took = among(500, Manner::AllButOne, 4 * PIECE + 1);
    assert!(took <= Duration::from_secs(2), "{took:?}");
}
