//! The claims one peer holds, and which of their blocks it was asked for.

use std::collections::VecDeque;

use super::claim::{BlockSet, Claim, PieceWriter};
use crate::meta::geometry::{Block, Geometry};

/// The place of a claim among those of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

#[derive(Debug)]
struct Held<L> {
    claim: Claim<L>,
    geometry: Geometry,
    requested: BlockSet,
    /// All blocks below were asked for or are there.
    next: u32,
}

impl<L> Held<L> {
    fn next_block(&mut self) -> Option<Block> {
        let count = self.claim.blocks().end;
        while self.next < count {
            let index = self.next;
            self.next += 1;
            if !self.requested.contains(index) && !self.claim.progress().has(index) {
                self.requested.insert(index);
                return Some(self.geometry.block(self.claim.piece(), index));
            }
        }
        None
    }
}

/// The claims of one peer. They move, all together, into a receive that writes to them.
#[derive(Debug)]
pub struct Claims<L> {
    slots: Vec<Option<Held<L>>>,
    free: Vec<Slot>,
    /// Claims that may have blocks to ask for, the one to go on with in front.
    open: VecDeque<Slot>,
}

impl<L> Default for Claims<L> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), open: VecDeque::new() }
    }
}

impl<L> Claims<L> {
    /// Takes in a claim; its missing blocks are asked for after those of the claims before it.
    pub fn insert(&mut self, claim: Claim<L>, geometry: &Geometry) {
        let requested = BlockSet::new(claim.blocks().end);
        let held = Some(Held { claim, geometry: *geometry, requested, next: 0 });
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot.0 as usize] = held;
            slot
        } else {
            self.slots.push(held);
            Slot(self.slots.len() as u32 - 1)
        };
        self.open.push_back(slot);
    }

    /// The next block to ask for; it counts as asked for from now on.
    pub fn next_block(&mut self) -> Option<(Slot, Block)> {
        while let Some(&slot) = self.open.front() {
            let block = self.held_mut(slot).and_then(Held::next_block);
            if let Some(block) = block {
                return Some((slot, block));
            }
            self.open.pop_front();
        }
        None
    }

    /// The peer will not send that block: it is to be asked for again, first of all.
    pub fn ask_again(&mut self, slot: Slot, block: Block) {
        if let Some(held) = self.held_mut(slot) {
            held.requested.remove(block.index());
            held.next = held.next.min(block.index());
            self.open.push_front(slot);
        }
    }

    /// The claim that still lacks that block.
    pub fn missing(&self, block: Block) -> Option<Slot> {
        let at = self.slots.iter().position(|held| {
            held.as_ref().is_some_and(|held| {
                held.claim.piece() == block.piece && !held.claim.progress().has(block.index())
            })
        });
        at.map(|at| Slot(at as u32))
    }

    /// Notes that a block is at its place; returns the claim if that was its last.
    pub fn mark(&mut self, slot: Slot, block: Block) -> Option<Claim<L>> {
        self.held_mut(slot)?.claim.mark(block.index());
        self.take_if_complete(slot)
    }

    /// Takes a claim out if all its blocks are there.
    pub fn take_if_complete(&mut self, slot: Slot) -> Option<Claim<L>> {
        if !self.slots[slot.0 as usize].as_ref()?.claim.is_complete() {
            return None;
        }
        self.free.push(slot);
        // The slot may be used again at once, so it must not be found open for the claim before.
        self.open.retain(|&open| open != slot);
        self.slots[slot.0 as usize].take().map(|held| held.claim)
    }

    /// The claims in whose mailbox a helper left blocks.
    pub fn with_mail(&self) -> Vec<Slot> {
        let has_mail =
            |held: &Option<Held<L>>| held.as_ref().is_some_and(|held| held.claim.progress().has_mail());
        let slots = self.slots.iter().enumerate().filter(|(_, held)| has_mail(held));
        slots.map(|(at, _)| Slot(at as u32)).collect()
    }

    /// Takes out all claims.
    pub fn drain(&mut self) -> impl Iterator<Item = Claim<L>> {
        self.free.clear();
        self.open.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().map(|held| held.claim)
    }

    /// The lease of a claim, for reading back what landed there.
    pub fn lease(&self, slot: Slot) -> Option<&L> {
        self.slots.get(slot.0 as usize)?.as_ref().map(|held| &held.claim.lease)
    }

    /// The lease of a claim, for aiming a receive at it.
    pub fn lease_mut(&mut self, slot: Slot) -> Option<&mut L> {
        self.held_mut(slot).map(|held| &mut held.claim.lease)
    }

    fn held_mut(&mut self, slot: Slot) -> Option<&mut Held<L>> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }
}

impl<L: PieceWriter> Claims<L> {
    /// Writes bytes at `begin` of the piece of that claim.
    pub fn write(&mut self, slot: Slot, begin: u32, data: &[u8]) {
        if let Some(held) = self.held_mut(slot) {
            held.claim.lease.write(begin, data);
        }
    }

    /// Copies the blocks in the claim's mailbox to their place, calling `used` for each that was missing. Returns the
    /// bytes that were not.
    pub fn open_mail(&mut self, slot: Slot, used: impl FnMut(Block)) -> u64 {
        self.held_mut(slot).map_or(0, |held| held.claim.open_mail(used))
    }
}
