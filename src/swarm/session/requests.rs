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
#[derive(Debug)]
pub(super) enum Target {
    /// A claim of this peer.
    Own(Slot),
    /// The claim of another, in the endgame.
    Help(Errand),
}

/// A block of another's claim that this peer was asked for. As long as it counts others are not; it no longer does when
/// it is dropped.
#[derive(Debug)]
pub(super) struct Errand {
    progress: Arc<Progress>,
    block: u32,
    counts: bool,
}

impl Errand {
    /// For a block that [`Progress::ask`] gave.
    pub(super) const fn new(progress: Arc<Progress>, block: u32) -> Self {
        Self { progress, block, counts: true }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The peer may bring it, but nobody should wait for that.
    pub(super) fn doubt(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.progress.unask(self.block);
        }
    }

    /// The peer brings something, so it may well bring this.
    fn trust(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.progress.ask_too(self.block);
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.doubt();
    }
}

impl Request {
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
            Target::Help(errand) => condition(request, errand.progress()),
        })
    }

    /// Turns requests of the endgame into requests for a claim of this peer, where `adopt` has one for the block.
    pub(super) fn adopt_helps(&mut self, mut adopt: impl FnMut(Block) -> Option<Slot>) {
        if self.helps == 0 {
            return;
        }
        for request in self.queue.iter_mut().filter(|request| request.is_help()) {
            if let Some(slot) = adopt(request.block) {
                request.target = Target::Own(slot);
                self.helps -= 1;
            }
        }
    }

    /// Doubts, or trusts again, that the peer brings what it was asked for in the endgame.
    pub(super) fn doubt_helps(&mut self, is_doubted: bool) {
        if self.helps == 0 {
            return;
        }
        for request in &mut self.queue {
            match &mut request.target {
                Target::Own(_) => {}
                Target::Help(errand) if is_doubted => errand.doubt(),
                Target::Help(errand) => errand.trust(),
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
