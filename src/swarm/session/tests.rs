use std::num::NonZeroU16;

use super::*;
use crate::meta::geometry::BLOCK_LEN;
use crate::swarm::fixture::{Desk, Memory};
use crate::swarm::picker::PieceState;
use crate::swarm::pipeline::{SNUB_AFTER, WINDOW_START};
use crate::wire::decoder::{Decoder, Event, Limits};
use crate::wire::pex::{Contact, Flags, PeerExchange};

/// What we said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Interested,
    NotInterested,
    Have(u32),
    /// Piece and block.
    Request(u32, u32),
    Cancel(u32, u32),
    KeepAlive,
    Bitfield,
}

/// What most peers agree to.
const TERMS: Terms = Terms { fast: true, pex: true };

/// A peer and the session with it.
struct Peer {
    session: Session<Memory>,
    now: Instant,
}

impl Peer {
    fn new(port: u16, desk: &mut Desk, now: Instant) -> Self {
        Self::on_terms(TERMS, port, desk, now)
    }

    fn on_terms(terms: Terms, port: u16, desk: &mut Desk, now: Instant) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut session = Session::new(addr, desk.geometry, terms, now, desk);
        if terms.fast {
            session.introduce(desk, &mut Vec::new());
        }
        Self { session, now }
    }

    /// One that does not speak the fast extension.
    fn plain(port: u16, desk: &mut Desk, now: Instant) -> Self {
        Self::on_terms(Terms { fast: false, ..TERMS }, port, desk, now)
    }

    /// The same as [`Peer::seed`].
    fn plain_seed(port: u16, desk: &mut Desk, now: Instant) -> (Self, Vec<Said>) {
        let mut peer = Self::plain(port, desk, now);
        let has = Bitfield::full(desk.geometry.piece_count());
        peer.tells(Message::Bitfield(&has.to_wire()), desk);
        peer.tells(Message::Unchoke, desk);
        let said = peer.fill(desk);
        (peer, said)
    }

    /// One that has everything, has unchoked us, and was asked for what the window takes.
    fn seed(port: u16, desk: &mut Desk, now: Instant) -> (Self, Vec<Said>) {
        let mut peer = Self::new(port, desk, now);
        peer.tells(Message::HaveAll, desk);
        peer.tells(Message::Unchoke, desk);
        let said = peer.fill(desk);
        (peer, said)
    }

    fn try_tell(&mut self, message: Message<'_>, desk: &mut Desk) -> Result<(), Fault> {
        self.session.heard(self.now);
        self.session.message(message, self.now, desk)
    }

    fn tells(&mut self, message: Message<'_>, desk: &mut Desk) {
        assert_eq!(self.try_tell(message, desk), Ok(()));
    }

    fn rejects(&mut self, block: Block, desk: &mut Desk) {
        self.tells(Message::Reject(block.into()), desk);
    }

    fn begins(&mut self, block: Block) {
        self.session.heard(self.now);
        assert_eq!(self.session.block_start(PieceHeader::of(block)), Ok(()));
    }

    fn ends(&mut self, block: Block, fill: u8, desk: &mut Desk) {
        self.session.block_data(0, &vec![fill; block.len as usize]);
        self.session.block_end(self.now, desk);
    }

    fn sends(&mut self, block: Block, desk: &mut Desk) {
        self.begins(block);
        self.ends(block, 7, desk);
    }

    fn fill(&mut self, desk: &mut Desk) -> Vec<Said> {
        let mut out = Vec::new();
        self.session.fill(self.now, desk, &mut out);
        said(&out)
    }

    fn try_tick(&mut self, desk: &mut Desk) -> Result<Vec<Said>, Fault> {
        let mut out = Vec::new();
        self.session.tick(self.now, desk, &mut out)?;
        Ok(said(&out))
    }

    /// Lets time pass in ticks; what was said meanwhile.
    fn wait(&mut self, millis: u64, desk: &mut Desk) -> Vec<Said> {
        self.try_wait(millis, desk).unwrap()
    }

    fn try_wait(&mut self, millis: u64, desk: &mut Desk) -> Result<Vec<Said>, Fault> {
        let end = self.now + Duration::from_millis(millis);
        let mut all = Vec::new();
        while self.now < end {
            self.now += Duration::from_millis(100);
            all.extend(self.try_tick(desk)?);
        }
        Ok(all)
    }
}

fn said(mut bytes: &[u8]) -> Vec<Said> {
    // Bitfields of any length are skipped.
    let mut decoder = Decoder::new(Limits::before_metadata());
    let mut all = Vec::new();
    while let Some(event) = decoder.next(&mut bytes).unwrap() {
        all.push(match event {
            Event::Message(Message::Interested) => Said::Interested,
            Event::Message(Message::NotInterested) => Said::NotInterested,
            Event::Message(Message::Have(piece)) => Said::Have(piece),
            Event::Message(Message::Request(raw)) => Said::Request(raw.index, raw.begin / BLOCK_LEN),
            Event::Message(Message::Cancel(raw)) => Said::Cancel(raw.index, raw.begin / BLOCK_LEN),
            Event::Message(Message::KeepAlive) => Said::KeepAlive,
            Event::Message(Message::Unknown { id: 5 }) => Said::Bitfield,
            other => panic!("{other:?}"),
        });
    }
    all
}

fn requests(said: &[Said]) -> Vec<(u32, u32)> {
    let request = |&said: &Said| match said {
        Said::Request(piece, block) => Some((piece, block)),
        _ => None,
    };
    said.iter().filter_map(request).collect()
}

fn start() -> Instant {
    Instant::now()
}

#[test]
fn a_choke_gives_everything_back_and_late_blocks_are_no_fault() {
    let mut desk = Desk::new(1, 4);
    let (mut peer, said) = Peer::plain_seed(1, &mut desk, start());
    assert_eq!(requests(&said).len(), 4);
    peer.sends(desk.block(0, 0), &mut desk);
    peer.tells(Message::Choke, &mut desk);
    assert_eq!((peer.session.outstanding(), desk.ledger.orphan_count()), (0, 1));
    assert_eq!(peer.fill(&mut desk), []);
    for index in 1..4 {
        peer.sends(desk.block(0, index), &mut desk);
    }
    let len = u64::from(BLOCK_LEN);
    assert_eq!(peer.session.tally(), Tally { useful: len, wasted: 3 * len });
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(peer.fill(&mut desk), [], "others come first");
    assert_eq!(requests(&peer.wait(200, &mut desk)), [(0, 1), (0, 2), (0, 3)]);
}

#[test]
fn the_rejects_that_follow_a_choke_do_not_count_against_what_was_asked_since() {
    let mut desk = Desk::new(1, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    let window = peer.session.pipeline.window();
    peer.tells(Message::Choke, &mut desk);
    assert_eq!((peer.session.outstanding(), desk.ledger.orphan_count()), (4, 0), "each is answered");
    peer.tells(Message::Unchoke, &mut desk);
    for index in 0..4 {
        peer.rejects(desk.block(0, index), &mut desk);
    }
    assert_eq!(peer.session.pipeline.window(), window);
    assert_eq!(requests(&peer.wait(200, &mut desk)).len(), 4);
    for index in 0..4 {
        peer.sends(desk.block(0, index), &mut desk);
    }
    assert_eq!((desk.complete.len(), peer.session.unrequested), (1, 0));
}

#[test]
fn a_fast_peer_that_chokes_may_answer_or_reject_and_keeps_nothing_then() {
    let mut desk = Desk::new(2, 2);
    let (mut peer, said) = Peer::seed(1, &mut desk, start());
    let asked = requests(&said);
    assert_eq!(asked.len(), 4);
    peer.tells(Message::Choke, &mut desk);
    let (first, second) = (asked[0].0, asked[2].0);
    peer.sends(desk.block(first, 0), &mut desk);
    peer.rejects(desk.block(second, 0), &mut desk);
    peer.rejects(desk.block(second, 1), &mut desk);
    assert_eq!(peer.fill(&mut desk), []);
    let free = desk.geometry.piece(second).unwrap();
    assert_eq!(desk.ledger.picker().state(free), PieceState::Wanted, "others can have it");
    peer.sends(desk.block(first, 1), &mut desk);
    assert_eq!((desk.complete.len(), peer.session.outstanding()), (1, 0));
    assert_eq!(peer.session.tally().wasted, 0);
    assert_eq!(peer.fill(&mut desk), []);
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(requests(&peer.wait(300, &mut desk)), [(second, 0), (second, 1)]);
}

#[test]
fn a_fast_peer_that_chokes_and_is_silent_is_snubbed() {
    let mut desk = Desk::new(1, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    peer.tells(Message::Choke, &mut desk);
    peer.wait(SNUB_AFTER.as_millis() as u64 + 1_000, &mut desk);
    assert_eq!((peer.session.outstanding(), desk.ledger.picker().free()), (0, 1));
}

#[test]
fn allowed_pieces_are_asked_for_while_the_peer_chokes_and_no_others() {
    let mut desk = Desk::new(3, 2);
    let mut peer = Peer::new(1, &mut desk, start());
    peer.tells(Message::AllowedFast(1), &mut desk);
    peer.tells(Message::AllowedFast(77), &mut desk);
    assert_eq!(peer.fill(&mut desk), [], "it has nothing yet");
    peer.tells(Message::Have(0), &mut desk);
    assert_eq!(peer.fill(&mut desk), [Said::Interested]);
    peer.tells(Message::Have(1), &mut desk);
    assert_eq!(requests(&peer.wait(1_100, &mut desk)), [(1, 0), (1, 1)]);
    peer.sends(desk.block(1, 0), &mut desk);
    peer.sends(desk.block(1, 1), &mut desk);
    assert_eq!(peer.wait(3_000, &mut desk), []);
    peer.tells(Message::AllowedFast(2), &mut desk);
    peer.tells(Message::AllowedFast(0), &mut desk);
    peer.tells(Message::Have(2), &mut desk);
    assert_eq!(requests(&peer.fill(&mut desk)), [(2, 0), (2, 1), (0, 0), (0, 1)]);
    // What is rejected all the same is not asked for again.
    peer.rejects(desk.block(2, 0), &mut desk);
    peer.rejects(desk.block(2, 1), &mut desk);
    peer.sends(desk.block(0, 0), &mut desk);
    peer.sends(desk.block(0, 1), &mut desk);
    assert_eq!(peer.wait(5_000, &mut desk), []);
    assert_eq!((desk.complete.len(), desk.ledger.picker().free()), (2, 1));
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(requests(&peer.wait(300, &mut desk)), [(2, 0), (2, 1)]);
}

#[test]
fn allowed_pieces_and_suggestions_are_bounded() {
    let mut desk = Desk::new(1_000, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    for piece in 0..1_000 {
        peer.tells(Message::AllowedFast(piece), &mut desk);
        peer.tells(Message::Suggest(piece), &mut desk);
    }
    peer.tells(Message::HaveAll, &mut desk);
    let mut asked = 0;
    for _ in 0..100 {
        let now = requests(&peer.fill(&mut desk));
        asked += now.len();
        for (piece, index) in now {
            peer.sends(desk.block(piece, index), &mut desk);
        }
    }
    assert_eq!(asked, ALLOWED_MAX);
    peer.tells(Message::Unchoke, &mut desk);
    let asked = requests(&peer.fill(&mut desk));
    assert_eq!(asked[0], (1_000 - SUGGESTED_MAX as u32, 0), "the latest suggestions first");
}

#[test]
fn a_suggested_piece_is_fetched_first_where_nobody_fetches_it() {
    let mut desk = Desk::new(50, 1);
    let (other, said) = Peer::seed(1, &mut desk, start());
    let taken = requests(&said)[0].0;
    let wanted: Vec<u32> = (0..50).filter(|&piece| !requests(&said).contains(&(piece, 0))).collect();
    let mut peer = Peer::new(2, &mut desk, other.now);
    peer.tells(Message::HaveAll, &mut desk);
    for piece in [wanted[7], taken, wanted[3], 50] {
        peer.tells(Message::Suggest(piece), &mut desk);
    }
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(requests(&peer.fill(&mut desk))[..2], [(wanted[7], 0), (wanted[3], 0)]);
}

#[test]
fn a_message_of_the_fast_extension_without_it_is_a_fault() {
    let desk = Desk::new(2, 2);
    let reject = Message::Reject(desk.block(0, 0).into());
    for message in [Message::HaveAll, Message::HaveNone, Message::Suggest(0), Message::AllowedFast(0), reject]
    {
        let mut desk = Desk::new(2, 2);
        let mut peer = Peer::plain(1, &mut desk, start());
        assert_eq!(peer.try_tell(message, &mut desk), Err(Fault::FastNotAgreed), "{message:?}");
    }
}

#[test]
fn gossip_is_passed_on_and_no_more_often_than_it_should_come() {
    let mut desk = Desk::new(1, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    let hello =
        Message::Extended { id: 0, payload: b"d1:md6:ut_pexi3ee1:pi6881e6:yourip4:\x01\x02\x03\x04e" };
    let pex = Message::Extended { id: 2, payload: b"d5:added6:\x05\x06\x07\x08\x1a\xe1e" };
    for _ in 0..2 {
        peer.tells(hello, &mut desk);
        peer.tells(Message::Port(0), &mut desk);
        peer.tells(Message::Port(6882), &mut desk);
    }
    let heard: Vec<_> = desk.heard.drain(..).map(|(_, gossip)| gossip).collect();
    let ours = Gossip::OurAddress("1.2.3.4".parse().unwrap());
    let node = Gossip::DhtPort(NonZeroU16::new(6882).unwrap());
    assert_eq!(heard, [ours, node]);

    for _ in 0..PEX_EARLY_MAX + PEX_IGNORED_MAX {
        peer.tells(pex, &mut desk);
    }
    assert_eq!(desk.heard.len(), PEX_EARLY_MAX as usize);
    let flood = Fault::PexFlood { ignored: PEX_IGNORED_MAX + 1 };
    assert_eq!(peer.try_tell(pex, &mut desk), Err(flood));
    // One a minute is always taken.
    let mut peer = Peer::new(2, &mut desk, start());
    desk.heard.clear();
    for _ in 0..20 {
        peer.tells(pex, &mut desk);
        peer.now += PEX_EVERY;
    }
    assert_eq!(desk.heard.len(), 20);
    peer.tells(Message::Extended { id: 2, payload: b"nonsense" }, &mut desk);
    peer.tells(Message::Extended { id: 9, payload: b"d5:added6:\x05\x06\x07\x08\x1a\xe1e" }, &mut desk);
    assert_eq!(desk.heard.len(), 20);
    // What was not offered is not heard.
    let mut peer = Peer::on_terms(Terms { pex: false, ..TERMS }, 3, &mut desk, start());
    (0..100).for_each(|_| peer.tells(pex, &mut desk));
    assert_eq!(desk.heard.len(), 20);
}

#[test]
fn a_peer_is_told_who_came_and_who_went_once_a_minute() {
    let mut desk = Desk::new(1, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    let contact = |number: u16| Contact { addr: ([10, 0, 0, 1], number).into(), flags: Flags::REACHABLE };
    let tell = |peer: &mut Peer, contacts: &[Contact]| {
        let mut out = Vec::new();
        if peer.session.wants_peers(peer.now) {
            peer.session.tell_peers(contacts, peer.now, &mut out);
        }
        (!out.is_empty()).then(|| {
            let mut decoder = Decoder::new(Limits::of_pieces(1));
            let Ok(Some(Event::Message(Message::Extended { id: 3, payload }))) = decoder.next(&mut &out[..])
            else {
                panic!("{out:?}")
            };
            PeerExchange::parse(payload)
        })
    };
    let all: Vec<_> = (1..=70).map(contact).collect();
    peer.now += PEX_EVERY;
    assert_eq!(tell(&mut peer, &all), None, "it does not take part");
    peer.now = start();
    let mut peer = Peer::new(1, &mut desk, peer.now);
    peer.tells(Message::Extended { id: 0, payload: b"d1:md6:ut_pexi3eee" }, &mut desk);
    assert_eq!(tell(&mut peer, &all), None, "too early");
    peer.now += PEX_EVERY;
    let told = tell(&mut peer, &all).unwrap();
    assert_eq!((&told.added[..], told.dropped.len()), (&all[..50], 0));
    assert_eq!(tell(&mut peer, &all), None, "once a minute");
    peer.now += PEX_EVERY;
    let told = tell(&mut peer, &all[10..]).unwrap();
    assert_eq!((&told.added[..], told.dropped.len()), (&all[50..], 10));
    peer.now += PEX_EVERY;
    assert_eq!(tell(&mut peer, &all[10..]), None, "nothing has changed");
    peer.now += PEX_EVERY;
    assert_eq!(tell(&mut peer, &[]).unwrap().dropped.len(), 50);
    peer.now += PEX_EVERY;
    assert_eq!(tell(&mut peer, &[]).unwrap().dropped.len(), 10);
}

#[test]
fn a_later_handshake_changes_or_ends_what_it_names() {
    let mut desk = Desk::new(1, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    peer.now += PEX_EVERY;
    for (payload, takes_part) in [
        (&b"d1:md6:ut_pexi3eee"[..], true),
        (b"d1:mdee", true),
        (b"d4:reqqi9ee", true),
        (b"d1:md6:ut_pexi0eee", false),
        (b"d1:mdee", false),
        (b"d1:md6:ut_pexi4eee", true),
    ] {
        peer.tells(Message::Extended { id: 0, payload }, &mut desk);
        assert_eq!(peer.session.wants_peers(peer.now), takes_part, "{}", payload.escape_ascii());
    }
}

#[test]
fn a_late_block_that_is_claimed_anew_and_not_yet_asked_for_is_taken_and_not_asked_for() {
    let mut desk = Desk::new(1, 40);
    let (mut peer, _) = Peer::plain_seed(1, &mut desk, start());
    let window = WINDOW_START;
    peer.tells(Message::Choke, &mut desk);
    peer.tells(Message::Extended { id: 0, payload: b"d4:reqqi1ee" }, &mut desk);
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(requests(&peer.wait(200, &mut desk)), [(0, 0)]);
    peer.begins(desk.block(0, window - 1));
    assert_eq!(peer.fill(&mut desk), [], "it is arriving");
    peer.ends(desk.block(0, window - 1), 7, &mut desk);
    let mut asked = Vec::new();
    for index in 0..40 {
        if index != window - 1 {
            peer.sends(desk.block(0, index), &mut desk);
            asked.extend(requests(&peer.fill(&mut desk)));
        }
    }
    assert!(!asked.contains(&(0, window - 1)), "{asked:?}");
    assert_eq!((desk.complete.len(), peer.session.tally().wasted), (1, 0));
}

#[test]
fn unrequested_blocks_are_wasted_and_too_many_are_a_fault() {
    let mut desk = Desk::new(2, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    let block = desk.block(1, 0);
    for _ in 0..UNREQUESTED_MAX {
        peer.sends(block, &mut desk);
    }
    assert_eq!(peer.session.tally().wasted, u64::from(UNREQUESTED_MAX * BLOCK_LEN));
    assert_eq!(peer.session.block_start(PieceHeader::of(block)), Err(Fault::Unrequested(block)));
}

#[test]
fn what_does_not_exist_is_a_fault() {
    let mut desk = Desk::new(2, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    let out_of_range = Err(Fault::HaveOutOfRange { index: 2, piece_count: 2 });
    assert_eq!(peer.try_tell(Message::Have(2), &mut desk), out_of_range);
    let raw = RawBlock { index: 0, begin: 1, len: 5 };
    assert!(matches!(peer.try_tell(Message::Reject(raw), &mut desk), Err(Fault::Block(_))));
    assert!(matches!(peer.try_tell(Message::Bitfield(&[0, 0]), &mut desk), Err(Fault::Bitfield(_))));
    let header = PieceHeader { index: 9, begin: 0, len: 1 };
    assert!(matches!(peer.session.block_start(header), Err(Fault::Block(_))));
}

#[test]
fn a_window_of_one_is_one_request_at_a_time() {
    let mut desk = Desk::new(1, 3);
    let mut peer = Peer::new(1, &mut desk, start());
    peer.tells(Message::Extended { id: 0, payload: b"d4:reqqi1ee" }, &mut desk);
    peer.tells(Message::HaveAll, &mut desk);
    peer.tells(Message::Unchoke, &mut desk);
    for index in 0..3 {
        assert_eq!(requests(&peer.fill(&mut desk)), [(0, index)]);
        assert_eq!(peer.fill(&mut desk), []);
        peer.sends(desk.block(0, index), &mut desk);
    }
    assert_eq!((desk.complete.len(), peer.session.outstanding()), (1, 0));
}

#[test]
fn interest_comes_with_wanted_pieces_and_goes_with_the_last() {
    let mut desk = Desk::new(2, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    assert_eq!(peer.wait(5_000, &mut desk), [], "a peer without pieces");
    peer.tells(Message::Have(0), &mut desk);
    assert_eq!(peer.fill(&mut desk), [Said::Interested]);
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(peer.fill(&mut desk), [Said::Request(0, 0)]);
    peer.sends(desk.block(0, 0), &mut desk);
    assert_eq!(peer.wait(3_000, &mut desk), [], "the piece may still turn out wrong");
    desk.verify();
    assert_eq!(peer.wait(3_000, &mut desk), [Said::NotInterested]);
    peer.tells(Message::Have(0), &mut desk);
    assert_eq!(peer.fill(&mut desk), []);
    peer.tells(Message::Have(1), &mut desk);
    assert_eq!(peer.fill(&mut desk), [Said::Interested, Said::Request(1, 0)]);
    assert!(peer.session.has().is_full());
    peer.session.close(&mut desk);
    assert_eq!(desk.ledger.picker().availability(desk.geometry.piece(0).unwrap()), 0);
}

#[test]
fn a_peer_that_never_answers_is_snubbed_and_then_closed() {
    let mut desk = Desk::new(1, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    let said = peer.wait(SNUB_AFTER.as_millis() as u64 - 1_000, &mut desk);
    assert!(said.iter().all(|said| *said == Said::KeepAlive), "{said:?}");
    let cancels: Vec<_> = (0..4).map(|index| Said::Cancel(0, index)).collect();
    assert_eq!(peer.wait(1_500, &mut desk), cancels);
    assert_eq!(peer.wait(1_500, &mut desk), [Said::Request(0, 0)], "one block shows whether it is there");
    // Keep-alives do not help it.
    let ended = (0..60).find_map(|_| {
        peer.tells(Message::KeepAlive, &mut desk);
        peer.try_wait(1_000, &mut desk).err()
    });
    assert_eq!(ended, Some(Fault::RequestTimeout { outstanding: 1 }));
}

#[test]
fn a_snubbed_peer_leaves_its_pieces_to_others_and_is_forgiven_for_a_block() {
    let mut desk = Desk::new(1, 4);
    let now = start();
    let (mut slow, _) = Peer::seed(1, &mut desk, now);
    let (mut other, said) = Peer::seed(2, &mut desk, now);
    assert_eq!(said, [Said::Interested]);
    while slow.session.snub.is_none() {
        slow.wait(100, &mut desk);
    }
    other.now = slow.now;
    let claimed = requests(&other.wait(200, &mut desk));
    assert_eq!(claimed, [(0, 0), (0, 1), (0, 2), (0, 3)], "it was given back");
    other.wait(3_000, &mut desk);
    slow.now = other.now;
    let probe = requests(&slow.wait(200, &mut desk));
    assert_eq!(probe, [(0, 3)], "the snubbed one is asked to help with one block");
    slow.sends(desk.block(0, 3), &mut desk);
    assert!(slow.session.snub.is_none());
    assert!(other.wait(200, &mut desk).contains(&Said::Cancel(0, 3)), "its block was used");
}

#[test]
fn a_stall_in_the_middle_of_the_last_block_counts() {
    let mut desk = Desk::new(1, 1);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    peer.begins(desk.block(0, 0));
    peer.session.block_data(0, &[1, 2, 3]);
    peer.fill(&mut desk);
    assert_eq!(peer.session.outstanding(), 1);
    peer.wait(21_000, &mut desk);
    assert!(peer.session.snub.is_some() && peer.session.arriving().is_none());
    let ended = (0..60).find_map(|_| peer.try_wait(1_000, &mut desk).err());
    assert!(matches!(ended, Some(Fault::RequestTimeout { .. })), "{ended:?}");
}

#[test]
fn nobody_is_closed_for_being_idle_or_choking() {
    let mut desk = Desk::new(2, 1);
    let now = start();
    let (mut holder, _) = Peer::seed(1, &mut desk, now);
    let (mut idle, _) = Peer::seed(2, &mut desk, now);
    // The idle one helps the other, whose block comes then: that help is called off.
    holder.wait(2_000, &mut desk);
    let asked = requests(&idle.wait(2_000, &mut desk));
    assert!(!asked.is_empty());
    holder.sends(desk.block(0, 0), &mut desk);
    holder.sends(desk.block(1, 0), &mut desk);
    assert!(idle.wait(100, &mut desk).iter().any(|said| matches!(said, Said::Cancel(..))));
    for peer in [&mut holder, &mut idle] {
        for _ in 0..30 {
            peer.tells(Message::KeepAlive, &mut desk);
            peer.wait(10_000, &mut desk);
        }
    }
    let mut desk = Desk::new(1, 4);
    let (mut choker, _) = Peer::seed(1, &mut desk, now);
    choker.tells(Message::Choke, &mut desk);
    for _ in 0..30 {
        choker.tells(Message::KeepAlive, &mut desk);
        choker.wait(10_000, &mut desk);
    }
}

#[test]
fn a_peer_is_idle_when_it_has_sent_nothing_of_use_for_long() {
    let mut desk = Desk::new(1, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    let idle_at = |peer: &Peer, secs| peer.session.is_idle(peer.now + Duration::from_secs(secs));
    assert!(!idle_at(&peer, 30) && idle_at(&peer, 31));
    peer.now += Duration::from_secs(20);
    peer.sends(desk.block(0, 0), &mut desk);
    assert!(!idle_at(&peer, 30));
    peer.now += Duration::from_secs(20);
    assert_eq!(peer.session.block_start(PieceHeader::of(desk.block(0, 0))), Ok(()));
    peer.ends(desk.block(0, 0), 7, &mut desk);
    assert!(idle_at(&peer, 11), "what nobody asked for is of no use");
}

#[test]
fn a_silent_peer_is_closed_and_we_are_never_silent() {
    let mut desk = Desk::new(1, 1);
    let mut peer = Peer::new(1, &mut desk, start());
    // More often than every ten seconds, and never twice within five.
    for _ in 0..15 {
        let said = peer.wait(9_000, &mut desk);
        assert!(matches!(said[..], [Said::KeepAlive] | [Said::KeepAlive, Said::KeepAlive]), "{said:?}");
    }
    let ended = peer.try_wait(16_000, &mut desk);
    assert_eq!(ended, Err(Fault::Silent));
}

#[test]
fn a_peer_that_refuses_everything_is_left_alone_and_then_closed() {
    let mut desk = Desk::new(1, 2);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    let (mut asked, began) = (1, peer.now);
    let fault = loop {
        let mut ended = None;
        for index in [0, 1] {
            let refused = peer.try_tell(Message::Reject(desk.block(0, index).into()), &mut desk);
            ended = ended.or(refused.err());
        }
        if let Some(fault) = ended {
            break fault;
        }
        assert_eq!(desk.ledger.picker().free(), 1, "others may have it meanwhile");
        assert_eq!(peer.fill(&mut desk), []);
        while peer.session.outstanding() == 0 {
            peer.wait(100, &mut desk);
        }
        asked += 1;
        assert!(asked < 100);
    };
    assert_eq!((fault, asked), (Fault::Refusing { times: 6 }, 7));
    assert!(peer.now.duration_since(began) > Duration::from_secs(15));
}

/// Chokes and unchokes a peer that was asked for something until it is closed, at most so often; `before` comes first
/// each time. Returns how often it was asked, and why it was closed.
fn flap(
    peer: &mut Peer,
    desk: &mut Desk,
    before: impl Fn(&mut Peer, &mut Desk, &[(u32, u32)]),
) -> (u32, Option<Fault>) {
    let mut asked = requests(&peer.fill(desk));
    for times in 1..20 {
        before(peer, desk, &asked);
        if let Err(fault) = peer.try_tell(Message::Choke, desk) {
            return (times, Some(fault));
        }
        peer.tells(Message::Unchoke, desk);
        asked.clear();
        while asked.is_empty() {
            asked = requests(&peer.wait(100, desk));
        }
    }
    (20, None)
}

#[test]
fn a_peer_that_chokes_whenever_it_is_asked_is_left_alone_and_then_closed() {
    let mut desk = Desk::new(1, 2);
    let (mut peer, _) = Peer::plain_seed(1, &mut desk, start());
    let began = peer.now;
    assert_eq!(flap(&mut peer, &mut desk, |_, _, _| ()), (7, Some(Fault::Refusing { times: 6 })));
    assert!(peer.now.duration_since(began) > Duration::from_secs(12));
}

#[test]
fn a_peer_that_chokes_often_and_sends_a_block_each_time_is_kept() {
    let mut desk = Desk::new(1, 64);
    let mut peer = Peer::new(1, &mut desk, start());
    peer.tells(Message::HaveAll, &mut desk);
    peer.tells(Message::Unchoke, &mut desk);
    let one_block = |peer: &mut Peer, desk: &mut Desk, asked: &[(u32, u32)]| {
        peer.sends(desk.block(asked[0].0, asked[0].1), desk);
    };
    assert_eq!(flap(&mut peer, &mut desk, one_block), (20, None));
    assert_eq!(peer.session.tally().wasted, 0);
}

#[test]
fn a_peer_that_only_talks_is_closed() {
    let mut desk = Desk::new(2, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    let most = CHATTER_MAX as usize;
    assert_eq!(peer.session.chatted(most), Ok(()));
    assert_eq!(peer.session.chatted(1), Err(Fault::Chatter { bytes: CHATTER_MAX + 1 }));
    peer.sends(desk.block(0, 0), &mut desk);
    assert_eq!(peer.session.chatted(most), Ok(()), "a block makes up for it");

    let mut peer = Peer::new(2, &mut desk, start());
    peer.session.chatted(most).unwrap();
    peer.tells(Message::Have(0), &mut desk);
    assert_eq!(peer.session.chatted(9), Ok(()), "news do not count");
    peer.tells(Message::Have(0), &mut desk);
    assert!(peer.session.chatted(9).is_err(), "they are news once");
}

#[test]
fn some_rejects_among_blocks_only_shrink_the_window() {
    let mut desk = Desk::new(4, 4);
    let (mut peer, said) = Peer::seed(1, &mut desk, start());
    let asked = requests(&said);
    assert_eq!(asked.len(), 16);
    for &(piece, index) in &asked[8..] {
        peer.rejects(desk.block(piece, index), &mut desk);
    }
    assert_eq!(peer.fill(&mut desk), [], "the rest of the answers is waited for");
    for &(piece, index) in &asked[..8] {
        peer.sends(desk.block(piece, index), &mut desk);
        peer.fill(&mut desk);
    }
    assert_eq!((peer.session.outstanding(), desk.complete.len()), (8, 2));
}

/// A holder of the only piece, and a peer that helps it.
fn endgame(blocks: u32) -> (Desk, Peer, Peer, Vec<(u32, u32)>) {
    let mut desk = Desk::new(1, blocks);
    let now = start();
    let (mut holder, _) = Peer::seed(1, &mut desk, now);
    let (mut helper, _) = Peer::seed(2, &mut desk, now);
    holder.wait(1_000, &mut desk);
    helper.now = holder.now - Duration::from_millis(200);
    let asked = requests(&helper.wait(200, &mut desk));
    (desk, holder, helper, asked)
}

#[test]
fn the_endgame_fetches_from_the_back_what_a_stalled_peer_holds() {
    let (mut desk, mut holder, mut helper, mut asked) = endgame(8);
    assert_eq!(asked, [(0, 7), (0, 6)]);
    let mut cancelled = 0;
    while let Some((piece, index)) = asked.pop() {
        helper.sends(desk.block(piece, index), &mut desk);
        asked.extend(requests(&helper.fill(&mut desk)));
        holder.now += Duration::from_millis(100);
        cancelled += holder.try_tick(&mut desk).unwrap().len();
    }
    assert_eq!((desk.complete.len(), cancelled, holder.session.outstanding()), (1, 8, 0));
    let claim = &desk.complete[0];
    assert!(claim.blocks().all(|block| claim.source(block).port() == 2));
    let ended = helper.wait(200, &mut desk);
    assert_eq!((ended, helper.session.outstanding()), (vec![], 0));
}

#[test]
fn silent_helpers_do_not_keep_away_the_one_that_would_bring_the_block() {
    let mut desk = Desk::new(1, 1);
    let now = start();
    let mut silent: Vec<_> = (1..12).map(|port| Peer::seed(port, &mut desk, now).0).collect();
    for _ in 0..150 {
        for peer in &mut silent {
            peer.wait(100, &mut desk);
        }
    }
    let asked: Vec<_> = silent.iter().map(|peer| peer.session.outstanding()).collect();
    assert_eq!(asked, [1; 11], "all were asked for the block");
    let (mut helper, _) = Peer::seed(99, &mut desk, silent[0].now);
    assert_eq!(requests(&helper.wait(300, &mut desk)), [(0, 0)]);
    // One of them brings it after all, and counts again.
    silent[5].sends(desk.block(0, 0), &mut desk);
    silent[0].wait(100, &mut desk);
    assert_eq!(desk.complete.len(), 1);
    assert_eq!(helper.wait(100, &mut desk), [Said::Cancel(0, 0)]);
}

#[test]
fn a_slow_helper_that_brings_a_block_counts_again() {
    let (mut desk, mut holder, mut slow, asked) = endgame(8);
    assert_eq!(asked, [(0, 7), (0, 6)]);
    slow.wait(2_000, &mut desk);
    holder.now = slow.now;
    holder.wait(100, &mut desk);
    slow.sends(desk.block(0, 7), &mut desk);
    let (mut other, _) = Peer::seed(3, &mut desk, slow.now);
    let asked = requests(&other.wait(300, &mut desk));
    assert!(!asked.is_empty() && !asked.contains(&(0, 6)), "{asked:?}");
}

#[test]
fn a_block_that_is_arriving_gives_way_to_the_same_one_from_a_helper() {
    let (mut desk, mut holder, mut helper, asked) = endgame(2);
    assert_eq!(asked, [(0, 1), (0, 0)]);
    let block = desk.block(0, 1);
    holder.begins(block);
    holder.session.block_data(0, &[1; 100]);
    helper.sends(block, &mut desk);
    holder.wait(100, &mut desk);
    assert!(holder.session.arriving().is_none());
    holder.session.block_data(100, &[1; 100]);
    holder.session.block_end(holder.now, &mut desk);
    assert_eq!(holder.session.tally().wasted, u64::from(block.len));
    holder.sends(desk.block(0, 0), &mut desk);
    let claim = &desk.complete[0];
    assert_eq!([0, 1].map(|block| claim.source(block).port()), [1, 2]);
    assert!(claim.lease.0.iter().all(|&byte| byte == 7), "bytes of one peer came over those of another");
    let useless = helper.wait(100, &mut desk);
    assert_eq!(useless, [Said::Cancel(0, 0)]);
}

#[test]
fn a_block_of_help_goes_to_the_claim_it_was_asked_for() {
    // The helper is asked for a block of the first piece, which is finished otherwise, then for one of the second; the
    // block of the first that is arriving must not be taken for one of the second.
    let mut desk = Desk::new(2, 1);
    let now = start();
    let (mut holder, _) = Peer::seed(1, &mut desk, now);
    let (mut helper, _) = Peer::seed(2, &mut desk, now);
    holder.wait(1_000, &mut desk);
    helper.now = holder.now - Duration::from_millis(200);
    let asked = requests(&helper.wait(200, &mut desk));
    let (first, second) = (asked[0].0, 1 - asked[0].0);
    helper.begins(desk.block(first, 0));
    holder.sends(desk.block(first, 0), &mut desk);
    holder.wait(100, &mut desk);
    helper.wait(300, &mut desk);
    helper.ends(desk.block(first, 0), 99, &mut desk);
    holder.wait(100, &mut desk);
    assert_eq!(desk.complete.len(), 1);
    holder.sends(desk.block(second, 0), &mut desk);
    assert!(desk.complete.iter().all(|claim| claim.lease.0.iter().all(|&byte| byte == 7)));
    assert_eq!(helper.session.tally().wasted, u64::from(BLOCK_LEN));
}

#[test]
fn a_helper_that_stood_idle_for_long_asks_once_for_each_block() {
    let mut desk = Desk::new(1, 8);
    let (mut holder, _) = Peer::seed(1, &mut desk, start());
    let (mut helper, _) = Peer::seed(2, &mut desk, start());
    // It may ask for what others were asked for by then, but only it was.
    assert_eq!(helper.wait(3_000, &mut desk), []);
    holder.wait(3_000, &mut desk);
    let asked = requests(&helper.wait(100, &mut desk));
    assert_eq!(asked, [(0, 7), (0, 6)]);
}

#[test]
fn a_helper_that_inherits_the_piece_does_not_ask_twice() {
    let (mut desk, mut holder, mut helper, asked) = endgame(8);
    assert_eq!(asked, [(0, 7), (0, 6)]);
    helper.begins(desk.block(0, 7));
    helper.session.block_data(0, &[7; 50]);
    holder.sends(desk.block(0, 0), &mut desk);
    holder.session.close(&mut desk);
    let inherited = requests(&helper.wait(100, &mut desk));
    assert_eq!(inherited, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    helper.session.block_data(50, &vec![7; BLOCK_LEN as usize - 50]);
    helper.session.block_end(helper.now, &mut desk);
    for index in [6, 1, 2, 3, 4, 5] {
        helper.sends(desk.block(0, index), &mut desk);
    }
    assert_eq!((desk.complete.len(), helper.session.tally().wasted), (1, 0));
    let claim = &desk.complete[0];
    assert!(claim.lease.0.iter().all(|&byte| byte == 7));
    assert_eq!([0, 1, 7].map(|block| claim.source(block).port()), [1, 2, 2]);
}

#[test]
fn mail_that_completes_a_piece_is_not_lost_when_its_holder_leaves() {
    let (mut desk, mut holder, mut helper, asked) = endgame(2);
    for (piece, index) in asked {
        helper.sends(desk.block(piece, index), &mut desk);
    }
    holder.session.close(&mut desk);
    assert_eq!((desk.complete.len(), desk.ledger.orphan_count()), (1, 0));
}

#[test]
fn mail_that_is_of_no_use_at_the_end_is_counted() {
    let (mut desk, mut holder, mut helper, asked) = endgame(8);
    let (piece, index) = asked[0];
    helper.sends(desk.block(piece, index), &mut desk);
    // The holder's own block comes before it has looked at its mail.
    holder.sends(desk.block(piece, index), &mut desk);
    assert_eq!(holder.session.tally().wasted, 0);
    let tally = holder.session.close(&mut desk);
    assert_eq!(tally, Tally { useful: u64::from(BLOCK_LEN), wasted: u64::from(BLOCK_LEN) });
}

#[test]
fn claims_on_their_way_are_left_alone() {
    let mut desk = Desk::new(3, 4);
    let (mut peer, _) = Peer::seed(1, &mut desk, start());
    assert_eq!(peer.session.expected().count(), 12);
    let claims = peer.session.take_claims();
    peer.now += Duration::from_millis(100);
    let mut out = Vec::new();
    assert_eq!(peer.session.tick(peer.now, &mut desk, &mut out), Ok(false));
    assert_eq!(peer.wait(200, &mut desk), []);
    assert_eq!(peer.session.tick(peer.now, &mut desk, &mut out), Ok(true), "they were away for long");
    peer.session.put_claims(claims);
    peer.fill(&mut desk);
    assert_eq!(peer.session.tick(peer.now, &mut desk, &mut out), Ok(false));
    let (_, first) = peer.session.expected().next().unwrap();
    assert!(peer.session.start_requested(first));
    assert_eq!(peer.session.arriving().map(|(_, block)| block), Some(first));
    peer.session.block_end(peer.now, &mut desk);
    assert_eq!(peer.session.tally().useful, u64::from(BLOCK_LEN));
}

#[test]
fn the_picker_is_not_asked_again_until_something_has_changed() {
    let mut desk = Desk::new(3, 1);
    let now = start();
    let (mut holder, _) = Peer::seed(1, &mut desk, now);
    let (mut dry, _) = Peer::seed(2, &mut desk, now);
    let asked = desk.claims_asked;
    for _ in 0..1_000 {
        dry.fill(&mut desk);
    }
    dry.wait(10_000, &mut desk);
    assert_eq!(desk.claims_asked, asked);
    holder.session.close(&mut desk);
    let claimed = requests(&dry.wait(100, &mut desk));
    assert_eq!(claimed.len(), 3);
}

#[test]
fn haves_are_told_once_in_order_and_not_to_seeds_or_those_who_do_not_read() {
    let mut desk = Desk::new(4, 1);
    let verified: Vec<_> = desk.geometry.pieces().collect();
    let mut peer = Peer::new(1, &mut desk, start());
    // A super-seeder waits to hear of the piece that it has shown.
    peer.tells(Message::Have(1), &mut desk);
    let announce = |peer: &mut Peer, max| {
        let mut out = Vec::new();
        peer.session.announce_haves(&verified, max, &mut out);
        said(&out)
    };
    assert_eq!(announce(&mut peer, 3), [Said::Have(0), Said::Have(1), Said::Have(2)]);
    assert_eq!(announce(&mut peer, 3), [Said::Have(3)]);
    assert_eq!(announce(&mut peer, 3), []);
    let mut unread = vec![0; 1 << 20];
    let mut stuck = Peer::new(2, &mut desk, start());
    stuck.session.announce_haves(&verified, 4, &mut unread);
    assert_eq!(unread.len(), 1 << 20);
    let (mut seed, _) = Peer::seed(3, &mut desk, start());
    assert_eq!(announce(&mut seed, 4), []);
}

/// Has one peer bring pieces, which are right.
fn bring(pieces: std::ops::Range<u32>, desk: &mut Desk) {
    let (mut seed, _) = Peer::seed(99, desk, start());
    for piece in pieces {
        seed.sends(desk.block(piece, 0), desk);
    }
    seed.session.close(desk);
    desk.verify();
}

#[test]
fn peers_get_to_know_what_we_have_before_all_else_unless_they_need_nothing() {
    let introduction = |desk: &mut Desk, terms, message: Option<Message<'_>>, millis| {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut peer =
            Peer { session: Session::new(addr, desk.geometry, terms, start(), desk), now: start() };
        let mut out = Vec::new();
        if terms.fast {
            peer.session.introduce(desk, &mut out);
        }
        if let Some(message) = message {
            peer.tells(message, desk);
        }
        peer.session.fill(peer.now, desk, &mut out);
        peer.now += Duration::from_millis(millis);
        peer.session.tick(peer.now, desk, &mut out).unwrap();
        peer.session.announce_haves(desk.ledger.verified(), 99, &mut out);
        out
    };
    let written = |messages: &[Message<'_>]| {
        let mut out = Vec::new();
        messages.iter().for_each(|message| message.write(&mut out));
        out
    };
    let plain = Terms { fast: false, ..TERMS };
    let some = Some(Message::Bitfield(&[0b1010_0000, 0]));
    let mut desk = Desk::new(9, 1);
    let first = written(&[Message::Bitfield(&[0, 0]), Message::Interested]);
    assert_eq!(introduction(&mut desk, plain, some, 0), first);
    assert!(introduction(&mut desk, plain, None, 0).is_empty(), "it has yet to say that it is no seed");
    assert_eq!(introduction(&mut desk, plain, None, 500), written(&[Message::Bitfield(&[0, 0])]));
    assert_eq!(introduction(&mut desk, TERMS, None, 500), written(&[Message::HaveNone]));
    let full = Some(Message::Bitfield(&[0xff, 0x80]));
    assert_eq!(introduction(&mut desk, plain, full, 500), written(&[Message::Interested]));

    // What is here is told at once, and not again piece by piece.
    let mut kept = Bitfield::new(9);
    kept.set(desk.geometry.piece(8).unwrap());
    desk.ledger = desk.ledger.keeping(kept);
    bring(0..2, &mut desk);
    let ours = [0b1100_0000, 0b1000_0000];
    let bitfield = Message::Bitfield(&ours);
    assert_eq!(introduction(&mut desk, TERMS, None, 500), written(&[bitfield]));
    assert_eq!(introduction(&mut desk, plain, some, 0), written(&[bitfield, Message::Interested]));
}

#[test]
fn pieces_may_be_told_again_a_few_times_and_the_last_word_counts() {
    let mut desk = Desk::new(9, 1);
    let count =
        |desk: &Desk| desk.geometry.pieces().map(|piece| desk.ledger.picker().availability(piece)).sum();
    let mut peer = Peer::new(1, &mut desk, start());
    let sets = [
        (Message::Have(3), 1),
        (Message::Bitfield(&[0b1010_0000, 0]), 2),
        (Message::HaveAll, 9),
        (Message::Have(3), 9),
        // Bits behind the last piece mean nothing.
        (Message::Bitfield(&[0b0000_0001, 0xff]), 2),
        (Message::HaveNone, 0),
        (Message::Have(5), 1),
    ];
    for (message, pieces) in sets {
        peer.tells(message, &mut desk);
        assert_eq!((peer.session.has().count_ones(), count(&desk)), (pieces, pieces), "{message:?}");
    }
    for _ in 4..SETS_TOLD_MAX {
        peer.tells(Message::HaveAll, &mut desk);
    }
    let fault = Err(Fault::SetsTold { times: SETS_TOLD_MAX + 1 });
    assert_eq!(peer.try_tell(Message::HaveAll, &mut desk), fault);
}

#[test]
fn pieces_that_are_taken_back_while_they_are_fetched_may_still_come() {
    let mut desk = Desk::new(1, 2);
    let (mut peer, said) = Peer::seed(1, &mut desk, start());
    assert_eq!(requests(&said).len(), 2);
    peer.tells(Message::HaveNone, &mut desk);
    peer.sends(desk.block(0, 0), &mut desk);
    peer.sends(desk.block(0, 1), &mut desk);
    assert_eq!((desk.complete.len(), peer.session.tally().wasted), (1, 0));
}

#[test]
fn blocks_that_are_of_no_use_do_not_put_off_the_end_of_a_peer() {
    let mut desk = Desk::new(20, 40);
    let (mut peer, said) = Peer::seed(1, &mut desk, start());
    let piece = requests(&said)[0].0;
    // What it was asked for is taken from it and comes from another.
    while peer.session.snub.is_none() {
        peer.wait(100, &mut desk);
    }
    let (mut other, _) = Peer::seed(2, &mut desk, peer.now);
    while !desk.complete.iter().any(|claim| claim.piece().get() == piece) {
        let next = other.session.expected().next().expect("it is asked");
        other.sends(next.1, &mut desk);
        other.fill(&mut desk);
    }
    let ended = (0..WINDOW_START).find_map(|index| {
        peer.sends(desk.block(piece, index), &mut desk);
        peer.try_wait(3_000, &mut desk).err()
    });
    assert!(matches!(ended, Some(Fault::RequestTimeout { .. })), "{ended:?}");
    assert!(peer.now < start() + REQUEST_TIMEOUT + Duration::from_secs(10));
    assert!(peer.session.tally().wasted > 0);
}

#[test]
fn a_peer_that_does_not_read_is_asked_for_nothing_and_holds_nothing() {
    let mut desk = Desk::new(400, 64);
    let mut peer = Peer::plain(1, &mut desk, start());
    let mut unread = Vec::new();
    for piece in 0..400 {
        peer.now += Duration::from_secs(1);
        peer.tells(Message::Have(piece), &mut desk);
        peer.tells(Message::Unchoke, &mut desk);
        peer.session.fill(peer.now, &mut desk, &mut unread);
        // Before long it would be closed for that.
        drop(peer.try_tell(Message::Choke, &mut desk));
    }
    let most = clock::UNSENT_MAX + WINDOW_START as usize * 17;
    assert!((clock::UNSENT_MAX..=most).contains(&unread.len()), "{}", unread.len());

    // Blocks that it was asked for before leave it with half a piece and nothing to ask for.
    peer.tells(Message::Unchoke, &mut desk);
    peer.now += Duration::from_secs(1);
    let asked = requests(&peer.fill(&mut desk));
    for &(piece, index) in &asked {
        peer.sends(desk.block(piece, index), &mut desk);
    }
    assert!(!peer.session.claims.is_empty());
    peer.session.fill(peer.now, &mut desk, &mut unread);
    assert_eq!((peer.session.outstanding(), desk.ledger.orphan_count()), (0, 1));
}

#[test]
fn news_do_not_end_the_pause_of_a_peer_that_choked() {
    let mut desk = Desk::new(2, 4);
    let mut peer = Peer::plain(1, &mut desk, start());
    peer.tells(Message::Have(0), &mut desk);
    peer.tells(Message::Unchoke, &mut desk);
    assert_eq!(requests(&peer.fill(&mut desk)).len(), 4);
    peer.tells(Message::Choke, &mut desk);
    peer.tells(Message::Unchoke, &mut desk);
    peer.tells(Message::Have(1), &mut desk);
    assert_eq!(peer.fill(&mut desk), []);
    assert_eq!(requests(&peer.wait(200, &mut desk)).len(), 8);
}

#[test]
fn many_haves_of_what_others_fetch_are_looked_at_once() {
    let mut desk = Desk::new(10, 1);
    let now = start();
    let (_holder, said) = Peer::seed(1, &mut desk, now);
    assert_eq!(requests(&said).len(), 10);
    let mut dry = Peer::new(2, &mut desk, now);
    dry.tells(Message::Unchoke, &mut desk);
    dry.tells(Message::Have(0), &mut desk);
    dry.fill(&mut desk);
    dry.now += Duration::from_secs(1);
    let asked = desk.claims_asked;
    for piece in 1..10 {
        dry.tells(Message::Have(piece), &mut desk);
        dry.fill(&mut desk);
    }
    assert_eq!(desk.claims_asked, asked + 1);
    dry.wait(1_000, &mut desk);
    assert_eq!(desk.claims_asked, asked + 2, "once more for what came after the look");
}

#[test]
fn a_slow_peer_does_not_keep_a_piece_that_nobody_may_help_with() {
    let mut desk = Desk::new(1, 64);
    for _ in 0..3 {
        let full = Bitfield::full(1);
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        let claim = desk.claim(addr, &full, None).unwrap();
        desk.ledger.received(claim.piece());
        desk.ledger.reject(claim.piece());
    }
    let before = desk.ledger.supply();
    let (mut slow, _) = Peer::seed(1, &mut desk, start());
    // A block in two seconds: two minutes for the piece.
    for _ in 0..20 {
        slow.wait(2_000, &mut desk);
        let next = slow.session.expected().next();
        if let Some((_, block)) = next {
            slow.sends(block, &mut desk);
        }
    }
    assert_eq!(desk.ledger.supply() - before, 3, "after so many tries it is open to all");
    assert!(slow.session.outstanding() > 0);
    let progress = desk.ledger.help(&Bitfield::full(1), Duration::from_secs(30), 0);
    assert!(progress.is_some());
}
