//! What a peer was asked for and has not sent, in the order in which the answers are expected.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Progress, Slot};
use crate::meta::geometry::Block;

/// A block that was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) block: Block,
    pub(super) target: Target,
}

/// What a block is asked for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A claim of this peer.
    Own(Slot),
    /// The claim of another, in the endgame.
    Help(Arc<Progress>),
}

impl Request {
    /// The peer will not bring it: others may be asked.
    pub(super) fn abandon(&self) {
        if let Target::Help(progress) = &self.target {
            progress.unask(self.block.index());
        }
    }

    const fn is_help(&self) -> bool {
        matches!(self.target, Target::Help(_))
    }
}

/// The queue of requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    queue: VecDeque<Request>,
    /// How many of them are of the endgame. Without any, nobody walks through thousands of others to find them.
    helps: usize,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, block: Block, target: Target) {
        let request = Request { block, target };
        self.helps += usize::from(request.is_help());
        self.queue.push_back(request);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter()
    }

    /// Where the last request for a claim of this peer stands.
    pub(super) fn last_of(&self, slot: Slot) -> Option<usize> {
        self.queue.iter().rposition(|request| matches!(request.target, Target::Own(own) if own == slot))
    }

    pub(super) fn get(&self, at: usize) -> Option<&Request> {
        self.queue.get(at)
    }

    /// Where the request for a block stands.
    pub(super) fn position(&self, block: Block) -> Option<usize> {
        self.queue.iter().position(|request| request.block == block)
    }

    /// Where the last request of the endgame stands for which `condition` holds.
    pub(super) fn last_help(&self, mut condition: impl FnMut(&Request, &Progress) -> bool) -> Option<usize> {
        if self.helps == 0 {
            return None;
        }
        self.queue.iter().rposition(|request| match &request.target {
            Target::Own(_) => false,
            Target::Help(progress) => condition(request, progress),
        })
    }

    /// Turns requests of the endgame into requests for a claim of this peer, where `adopt` has one for the block.
    pub(super) fn adopt_helps(&mut self, mut adopt: impl FnMut(Block) -> Option<Slot>) {
        if self.helps == 0 {
            return;
        }
        for request in self.queue.iter_mut().filter(|request| request.is_help()) {
            if let Some(slot) = adopt(request.block) {
                request.abandon();
                request.target = Target::Own(slot);
                self.helps -= 1;
            }
        }
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Request> {
        let request = self.queue.remove(at)?;
        self.helps -= usize::from(request.is_help());
        Some(request)
    }

    /// Takes out the request that a block answers.
    pub(super) fn take(&mut self, block: Block) -> Option<Request> {
        let at = self.position(block)?;
        if 2 * at >= self.queue.len() {
            return self.remove(at);
        }
        // A peer that reads from its disk in parallel skips a block now and then and goes on in order: the skipped ones
        // are no longer the next to expect. When they come they are found near the end, and nothing else moves.
        self.queue.rotate_left(at);
        self.remove(0)
    }

    /// Takes out all of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> {
        self.helps = 0;
        self.queue.drain(..)
    }
}
