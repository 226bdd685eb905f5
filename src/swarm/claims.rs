//! The claims one peer holds, and which of their blocks it was asked for.

use std::collections::VecDeque;
use std::time::Duration;

use super::claim::{BlockSet, Claim, PieceWriter};
use crate::meta::geometry::{BLOCK_LEN, Block, Geometry, PieceIndex};

/// The place of a claim among those of its peer. One of a claim that is gone finds nothing, whatever came in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    at: u32,
    generation: u32,
}

#[derive(Debug)]
struct Held<L> {
    claim: Claim<L>,
    geometry: Geometry,
    requested: BlockSet,
    /// All blocks below were asked for or are there.
    next: u32,
    slot: Slot,
}

impl<L> Held<L> {
    fn next_block(&mut self) -> Option<Block> {
        let count = self.claim.blocks().end;
        while self.next < count {
            let index = self.next;
            self.next += 1;
            if !self.requested.contains(index)
                && !self.claim.progress().has(index)
                && self.claim.may_ask(index)
            {
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
    free: Vec<u32>,
    generation: u32,
    /// Claims that may have blocks to ask for, the one to go on with in front.
    open: VecDeque<Slot>,
    /// There was a claim whose peer is tried.
    has_trials: bool,
}

impl<L> Default for Claims<L> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), generation: 0, open: VecDeque::new(), has_trials: false }
    }
}

impl<L> Claims<L> {
    /// Takes in a claim; its missing blocks are asked for after those of the claims before it.
    pub fn insert(&mut self, claim: Claim<L>, geometry: &Geometry) {
        self.has_trials |= claim.trial().is_some();
        let requested = BlockSet::new(claim.blocks().end);
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.generation = self.generation.wrapping_add(1);
        let slot = Slot { at, generation: self.generation };
        self.slots[at as usize] = Some(Held { claim, geometry: *geometry, requested, next: 0, slot });
        self.open.push_back(slot);
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
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

    /// The next block to ask for of those pieces that `allows` names; it counts as asked for from now on.
    pub fn next_block_of(&mut self, allows: impl Fn(PieceIndex) -> bool) -> Option<(Slot, Block)> {
        let slots = &mut self.slots;
        self.open.iter().find_map(|&slot| {
            let held = slots.get_mut(slot.at as usize)?.as_mut().filter(|held| held.slot == slot)?;
            if allows(held.claim.piece()) { Some((slot, held.next_block()?)) } else { None }
        })
    }

    /// The claims and their pieces.
    pub fn slots(&self) -> Vec<(Slot, PieceIndex)> {
        self.slots.iter().flatten().map(|held| (held.slot, held.claim.piece())).collect()
    }

    /// The peer will not send that block: it is to be asked for again, after those of the other claims.
    pub fn ask_again(&mut self, slot: Slot, block: Block) {
        let Some(held) = self.held_mut(slot) else { return };
        held.requested.remove(block.index());
        held.next = held.next.min(block.index());
        if !self.open.contains(&slot) {
            self.open.push_back(slot);
        }
    }

    /// The claim that lacks that block and has yet to ask for it, where it is coming all the same; it counts as asked
    /// for from now on.
    pub fn adopt(&mut self, block: Block) -> Option<Slot> {
        let index = block.index();
        let held = self.slots.iter_mut().flatten().find(|held| held.claim.piece() == block.piece)?;
        if held.requested.contains(index) || held.claim.progress().has(index) {
            return None;
        }
        held.requested.insert(index);
        Some(held.slot)
    }

    /// Takes a claim out if all its blocks are there.
    pub fn take_if_complete(&mut self, slot: Slot) -> Option<Claim<L>> {
        if self.held(slot)?.claim.is_complete() { self.take(slot) } else { None }
    }

    /// Takes a claim out.
    pub fn take(&mut self, slot: Slot) -> Option<Claim<L>> {
        self.held(slot)?;
        self.free.push(slot.at);
        self.open.retain(|&open| open != slot);
        self.slots[slot.at as usize].take().map(|held| held.claim)
    }

    /// The claims in whose mailbox a helper left blocks.
    pub fn with_mail(&self) -> Vec<Slot> {
        let held = self.slots.iter().flatten();
        held.filter(|held| held.claim.progress().has_mail()).map(|held| held.slot).collect()
    }

    /// A claim that the peer will take at least so long for, where nobody may help with it.
    pub fn stuck(&self, least: Duration) -> Option<Slot> {
        self.slots.iter().flatten().find(|held| held.claim.is_stuck(least)).map(|held| held.slot)
    }

    /// A claim whose trial the peer has not passed.
    pub fn failed_trial(&self) -> Option<Slot> {
        if !self.has_trials {
            return None;
        }
        let has_failed = |held: &&Held<L>| held.claim.trial().is_some_and(|trial| trial.verdict().is_some());
        self.slots.iter().flatten().find(has_failed).map(|held| held.slot)
    }

    /// Says how long the peer will take for a claim.
    pub fn set_lag(&self, slot: Slot, lag: Duration) {
        if let Some(held) = self.held(slot) {
            held.claim.progress().set_lag(lag);
        }
    }

    /// The claims with blocks that were not asked for, in the order in which they will be, and about how many bytes
    /// these are.
    pub fn unrequested(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.open.iter().filter_map(|&slot| {
            let held = self.held(slot)?;
            Some((slot, u64::from(held.claim.blocks().end - held.next) * u64::from(BLOCK_LEN)))
        })
    }

    /// Takes out all claims.
    pub fn drain(&mut self) -> impl Iterator<Item = Claim<L>> + use<L> {
        self.free.clear();
        self.open.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().map(|held| held.claim)
    }

    /// The lease of a claim, for reading back what landed there.
    pub fn lease(&self, slot: Slot) -> Option<&L> {
        self.held(slot).map(|held| &held.claim.lease)
    }

    /// The lease of a claim, for aiming a receive at it.
    pub fn lease_mut(&mut self, slot: Slot) -> Option<&mut L> {
        self.held_mut(slot).map(|held| &mut held.claim.lease)
    }

    fn held(&self, slot: Slot) -> Option<&Held<L>> {
        self.slots.get(slot.at as usize)?.as_ref().filter(|held| held.slot == slot)
    }

    fn held_mut(&mut self, slot: Slot) -> Option<&mut Held<L>> {
        self.slots.get_mut(slot.at as usize)?.as_mut().filter(|held| held.slot == slot)
    }
}

impl<L: PieceWriter> Claims<L> {
    /// Writes bytes at `begin` of the piece of that claim.
    pub fn write(&mut self, slot: Slot, begin: u32, data: &[u8]) {
        if let Some(held) = self.held_mut(slot) {
            held.claim.lease.write(begin, data);
        }
    }

    /// Notes that a block is at its place; false where it was there already.
    pub fn mark(&mut self, slot: Slot, block: Block) -> bool {
        let Some(held) = self.held_mut(slot) else { return false };
        let was_missing = held.claim.mark(block.index());
        if was_missing && self.has_trials {
            // As long as it is sure to be in memory.
            self.answer(slot, block);
        }
        if was_missing && let Some(held) = self.held_mut(slot) {
            held.claim.lease.landed(block.begin, block.len);
        }
        was_missing
    }

    /// Compares what has come for a block of a trial. Who has passed is asked for the rest.
    fn answer(&mut self, slot: Slot, block: Block) {
        let Some(held) = self.held_mut(slot) else { return };
        if held.claim.answer(block) {
            held.next = 0;
            if !self.open.contains(&slot) {
                self.open.push_back(slot);
            }
        }
    }

    /// Copies the blocks in the claim's mailbox to their place, calling `used` for each that was missing. Returns the
    /// bytes that were not.
    pub fn open_mail(&mut self, slot: Slot, used: impl FnMut(Block)) -> u64 {
        self.held_mut(slot).map_or(0, |held| held.claim.open_mail(used))
    }
}

#[cfg(test)]
mod tests;
