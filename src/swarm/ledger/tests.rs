use super::*;
use crate::swarm::claim::{Donation, PieceWriter};

/// Room for anything, kept nowhere.
struct Nowhere;

impl PieceWriter for Nowhere {
    fn write(&mut self, _: u32, _: &[u8]) {}

    fn read(&self, _: u32, _: &mut [u8]) {}
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A ledger that wants all of so many pieces of four blocks.
fn ledger(piece_count: u32) -> Ledger<Nowhere> {
    let geometry = Geometry::new(u64::from(piece_count) * 65_536, 65_536).unwrap();
    Ledger::new(geometry, Picker::new(geometry, &Bitfield::full(piece_count), 1))
}

fn only(ledger: &Ledger<Nowhere>, piece: u32) -> Bitfield {
    let mut has = Bitfield::new(ledger.geometry.piece_count());
    has.set(ledger.geometry.piece(piece).unwrap());
    has
}

fn claim(ledger: &mut Ledger<Nowhere>, port: u16, has: &Bitfield) -> Option<Claim<Nowhere>> {
    ledger.claim(peer(port), has, None, |_| Some(Nowhere))
}

fn donate(ledger: &Ledger<Nowhere>, progress: &Progress, index: u32) -> bool {
    let block = ledger.geometry.block(progress.piece(), index);
    progress.donate(Donation { block, data: vec![0; block.len as usize].into(), from: peer(9) })
}

#[test]
fn a_half_done_claim_is_found_among_many_that_the_peer_cannot_take() {
    let mut ledger = ledger(200);
    let full = Bitfield::full(200);
    let all: Vec<_> = std::iter::from_fn(|| claim(&mut ledger, 1, &full)).collect();
    assert_eq!(all.len(), 200);
    for mut claim in all {
        claim.mark(0);
        ledger.give_back(claim);
    }
    assert_eq!((ledger.orphan_count(), ledger.picker().free()), (200, 0));
    for index in 0..200 {
        let has = only(&ledger, index);
        let claim = claim(&mut ledger, 2, &has).unwrap();
        assert_eq!((claim.piece().get(), claim.source(0)), (index, peer(1)));
    }
    assert_eq!(ledger.orphan_count(), 0);
}

#[test]
fn half_done_claims_are_bounded_and_the_oldest_is_given_up() {
    let count = ORPHANS_MAX as u32 + 1;
    let mut ledger = ledger(count);
    let full = Bitfield::full(count);
    let all: Vec<_> = std::iter::from_fn(|| claim(&mut ledger, 1, &full)).collect();
    let oldest = Arc::clone(all[0].progress());
    for mut claim in all {
        claim.mark(3);
        ledger.give_back(claim);
    }
    assert_eq!((ledger.orphan_count(), ledger.picker().free()), (ORPHANS_MAX, 1));
    assert_eq!(ledger.picker().state(oldest.piece()), PieceState::Wanted);
    assert!(oldest.is_closed(), "helpers of it must know");
}

#[test]
fn helpers_hear_that_an_untouched_claim_was_given_back() {
    let mut ledger = ledger(1);
    let full = Bitfield::full(1);
    let untouched = claim(&mut ledger, 1, &full).unwrap();
    let progress = Arc::clone(untouched.progress());
    assert!(ledger.wants_any(&full));
    ledger.give_back(untouched);
    assert!(progress.is_closed() && !donate(&ledger, &progress, 0));
    assert_eq!(ledger.picker().state(progress.piece()), PieceState::Wanted);
}

#[test]
fn supply_changes_with_all_that_can_be_claimed_again() {
    let mut ledger = ledger(2);
    let full = Bitfield::full(2);
    let mut seen = vec![ledger.supply()];
    let untouched = claim(&mut ledger, 1, &full).unwrap();
    ledger.give_back(untouched);
    seen.push(ledger.supply());
    let mut touched = claim(&mut ledger, 1, &full).unwrap();
    touched.mark(0);
    ledger.give_back(touched);
    seen.push(ledger.supply());
    let complete = claim(&mut ledger, 1, &full).unwrap();
    assert_eq!(ledger.supply(), seen[2], "nothing came back");
    ledger.received(complete.piece());
    ledger.reject(complete.piece());
    seen.push(ledger.supply());
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn help_goes_to_the_claim_that_takes_longest_and_has_blocks_to_ask_for() {
    let mut ledger = ledger(3);
    let full = Bitfield::full(3);
    let claims: Vec<_> = std::iter::from_fn(|| claim(&mut ledger, 1, &full)).collect();
    let secs = Duration::from_secs;
    for (claim, lag) in claims.iter().zip([2, 5, 3]) {
        claim.progress().set_lag(secs(lag));
    }
    let helped = |ledger: &Ledger<Nowhere>, has: &Bitfield, worth, helpers| {
        let progress = ledger.help(has, secs(worth), helpers)?;
        claims.iter().position(|claim| claim.piece() == progress.piece())
    };
    assert_eq!(helped(&ledger, &full, 1, 0), Some(1));
    assert_eq!(helped(&ledger, &full, 5, 0), None, "it is worth it only where it is longer");
    let has = only(&ledger, claims[0].piece().get());
    assert_eq!(helped(&ledger, &has, 1, 0), Some(0));
    while claims[1].progress().ask(0, |_| false).is_some() {}
    assert_eq!(helped(&ledger, &full, 1, 0), Some(2), "all blocks of the other were asked for");
    assert_eq!(helped(&ledger, &full, 1, 1), Some(1), "and may be asked for a second time");
}

#[test]
fn nobody_helps_with_what_nobody_holds() {
    let mut ledger = ledger(1);
    let full = Bitfield::full(1);
    let mut claim = claim(&mut ledger, 1, &full).unwrap();
    claim.mark(0);
    claim.progress().set_lag(Duration::from_secs(9));
    assert!(ledger.help(&full, Duration::ZERO, 0).is_some());
    ledger.give_back(claim);
    assert!(ledger.help(&full, Duration::ZERO, 0).is_none());
}

#[test]
fn a_piece_that_was_wrong_is_fetched_from_one_peer_alone_for_some_tries() {
    let mut ledger = ledger(1);
    let full = Bitfield::full(1);
    let first = claim(&mut ledger, 1, &full).unwrap();
    ledger.received(first.piece());
    ledger.reject(first.piece());
    for port in 0..SOLO_TRIES_MAX as u16 {
        let mut solo = claim(&mut ledger, port, &full).unwrap();
        solo.mark(0);
        solo.progress().set_lag(SOLO_LAG_MAX - Duration::from_millis(1));
        assert!(ledger.help(&full, Duration::ZERO, 9).is_none());
        solo.progress().set_lag(SOLO_LAG_MAX);
        assert!(ledger.help(&full, Duration::ZERO, 9).is_some());
        ledger.give_back(solo);
        assert_eq!(
            (ledger.orphan_count(), ledger.picker().free()),
            (0, 1),
            "what others sent is not mixed in"
        );
    }
    let mut shared = claim(&mut ledger, 7, &full).unwrap();
    shared.mark(0);
    ledger.give_back(shared);
    assert_eq!(ledger.orphan_count(), 1, "it must not be begun anew for ever");
    let last = claim(&mut ledger, 8, &full).unwrap();
    ledger.received(last.piece());
    ledger.accept(last.piece());
    assert!(ledger.is_complete() && ledger.verified() == [last.piece()]);
}

#[test]
fn a_piece_that_is_wrong_again_and_again_is_not_helped_with() {
    let mut ledger = ledger(1);
    let full = Bitfield::full(1);
    for _ in 0..SOLO_FAILURES_MAX {
        let claim = claim(&mut ledger, 1, &full).unwrap();
        ledger.received(claim.piece());
        ledger.reject(claim.piece());
    }
    let claim = claim(&mut ledger, 1, &full).unwrap();
    claim.progress().set_lag(Duration::from_secs(1_000_000));
    assert!(ledger.help(&full, Duration::ZERO, 9).is_none());
}

#[test]
fn a_peer_whose_last_piece_comes_counts_as_full() {
    let mut ledger = ledger(2);
    let mut has = only(&ledger, 0);
    ledger.joined(&has);
    let last = ledger.geometry.piece(1).unwrap();
    ledger.gained(&has, last);
    has.set(last);
    assert!(
        [0, 1].iter().all(|&index| ledger.picker.availability(ledger.geometry.piece(index).unwrap()) == 1)
    );
    ledger.left(&has);
    assert!(
        [0, 1].iter().all(|&index| ledger.picker.availability(ledger.geometry.piece(index).unwrap()) == 0)
    );
}

#[test]
fn a_piece_without_a_lease_stays_free() {
    let mut ledger = ledger(1);
    let full = Bitfield::full(1);
    assert!(ledger.claim(peer(1), &full, None, |_| None).is_none());
    assert_eq!(ledger.picker().free(), 1);
    assert!(claim(&mut ledger, 1, &full).is_some());
}

#[test]
fn what_is_not_free_is_not_refused() {
    let mut ledger = ledger(2);
    let [first, second] = [0, 1].map(|index| ledger.geometry.piece(index).unwrap());
    let suspect = peer(1);
    let failed = ledger.failed.entry(first).or_default();
    failed.postpone(suspect);
    let held = ledger.claim_of(peer(2), &[first], |_| Some(Nowhere)).unwrap();
    let supply = ledger.supply();
    for _ in 0..10 * REFUSALS_PER_PEER {
        assert!(ledger.claim_of(suspect, &[first], |_| Some(Nowhere)).is_none());
    }
    assert_eq!((ledger.supply(), ledger.failed[&first].refusals), (supply, 0));
    ledger.give_back(held);
    let other = ledger.claim_of(suspect, &[first, second], |_| Some(Nowhere)).unwrap();
    assert_eq!((other.piece(), ledger.failed[&first].refusals), (second, 1), "it is left to others for now");
}
