use std::net::SocketAddr;

use super::*;

struct Memory;

impl PieceWriter for Memory {
    fn write(&mut self, _: u32, _: &[u8]) {}

    fn read(&self, _: u32, _: &mut [u8]) {}
}

fn geometry() -> Geometry {
    Geometry::new(u64::from(BLOCK_LEN) * 12, BLOCK_LEN * 4).unwrap()
}

fn claim(piece: u32) -> Claim<Memory> {
    let geometry = geometry();
    let owner = SocketAddr::from(([127, 0, 0, 1], 1));
    Claim::new(&geometry, geometry.piece(piece).unwrap(), Memory, owner, Duration::ZERO, &Default::default())
}

fn claims(pieces: &[u32]) -> Claims<Memory> {
    let mut claims = Claims::default();
    pieces.iter().for_each(|&piece| claims.insert(claim(piece), &geometry()));
    claims
}

fn asked(claims: &mut Claims<Memory>) -> Vec<(u32, u32)> {
    let next = || claims.next_block().map(|(_, block)| (block.piece.get(), block.index()));
    std::iter::from_fn(next).collect()
}

#[test]
fn blocks_are_asked_for_once_and_in_order() {
    let mut claims = claims(&[2, 0]);
    let (slot, first) = claims.next_block().unwrap();
    assert!(claims.mark(slot, first) && !claims.mark(slot, first));
    assert_eq!(asked(&mut claims), [(2, 1), (2, 2), (2, 3), (0, 0), (0, 1), (0, 2), (0, 3)]);
    assert!(!claims.is_empty());
}

#[test]
fn what_was_refused_is_asked_for_after_the_rest() {
    let mut claims = claims(&[0, 1]);
    let (slot, first) = claims.next_block().unwrap();
    let (_, second) = claims.next_block().unwrap();
    claims.ask_again(slot, second);
    claims.ask_again(slot, first);
    assert_eq!(asked(&mut claims)[..4], [(0, 0), (0, 1), (0, 2), (0, 3)]);
    claims.ask_again(slot, second);
    assert_eq!(claims.unrequested().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [u64::from(BLOCK_LEN) * 3]);
    assert_eq!(asked(&mut claims), [(0, 1)]);
}

#[test]
fn a_slot_of_a_claim_that_is_gone_finds_nothing_even_when_its_place_is_taken() {
    let mut claims = claims(&[0]);
    let (old, block) = claims.next_block().unwrap();
    for block in 0..4 {
        let block = geometry().block(geometry().piece(0).unwrap(), block);
        claims.mark(old, block);
    }
    assert!(claims.take_if_complete(old).is_some() && claims.is_empty());
    claims.insert(claim(1), &geometry());
    let (new, _) = claims.next_block().unwrap();
    assert_ne!(old, new);
    assert!(claims.lease(old).is_none() && claims.lease_mut(old).is_none() && !claims.mark(old, block));
    assert!(claims.take_if_complete(old).is_none() && claims.lease(new).is_some());
    claims.ask_again(old, block);
    assert_eq!(asked(&mut claims), [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn only_a_block_that_is_missing_and_not_asked_for_is_adopted() {
    let mut claims = claims(&[1]);
    let block = |piece, index| geometry().block(geometry().piece(piece).unwrap(), index);
    let (slot, first) = claims.next_block().unwrap();
    assert_eq!(claims.adopt(first), None);
    assert_eq!(claims.adopt(block(0, 2)), None);
    assert_eq!(claims.adopt(block(1, 2)), Some(slot));
    assert_eq!(claims.adopt(block(1, 2)), None);
    claims.mark(slot, block(1, 3));
    assert_eq!(claims.adopt(block(1, 3)), None);
    assert_eq!(asked(&mut claims), [(1, 1)]);
}
