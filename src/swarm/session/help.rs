//! The endgame: a peer with nothing of its own to fetch fetches blocks of others' claims, into private memory.
//!
//! It helps where the holder will take the longest, and only where it will be sooner; it asks for no more than it sends
//! in a moment, and for blocks that nobody else was asked for. Only when it has stood idle for long does it take that a
//! helper failed too, and asks for what was asked of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{PieceWriter, Progress, Request, Session, Target, Work};
use crate::meta::geometry::{BLOCK_LEN, Block};
use crate::wire::message;

/// A peer with nothing to fetch waits so long before it helps: what is on its way anyway arrives meanwhile.
const HELP_AFTER: Duration = Duration::from_millis(100);
/// How often it looks for someone to help, when there was nobody.
const HELP_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A helper is asked for as many blocks as it sends in this time.
const HELP_SPAN: Duration = Duration::from_millis(250);
/// Blocks a helper is asked for at once, at most; they are held in private memory.
const HELP_BLOCKS_MAX: usize = 64;
/// A holder is helped if it will take longer than the helper by this much, which covers the way by the mailbox.
const HELP_GAIN_MIN: Duration = Duration::from_millis(200);
/// For each such time that it stood idle, a peer takes one helper more of a block for slow.
const HELPER_SLOW_AFTER: Duration = Duration::from_secs(1);
/// Helpers that may be asked for one block.
const HELPERS_MAX: u8 = 4;

/// What a peer helps with.
#[derive(Debug, Default)]
pub(super) struct Helping {
    /// The claim it was last asked for blocks of.
    current: Option<Arc<Progress>>,
    look_again_at: Option<Instant>,
}

impl<L: PieceWriter> Session<L> {
    /// Asks for blocks of others' claims, if there is nothing else to ask for.
    pub(super) fn request_help(&mut self, now: Instant, work: &mut impl Work<L>, out: &mut Vec<u8>) {
        if !self.claims.is_empty() || !(self.snub.is_some() || self.dry.is_some()) {
            self.helping = Helping::default();
            return;
        }
        while self.requests.len() < self.help_blocks() {
            let Some((progress, block)) = self.next_help(now, work) else { return };
            self.requests.push(block, Target::Help(progress));
            message::write_request(out, block);
        }
    }

    fn next_help(&mut self, now: Instant, work: &mut impl Work<L>) -> Option<(Arc<Progress>, Block)> {
        let idle = self.idle_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let helpers = (idle.as_secs() / HELPER_SLOW_AFTER.as_secs()).min(u64::from(HELPERS_MAX - 1)) as u8;
        if let Some(progress) = &self.helping.current {
            if let Some(block) = self.ask_for(progress, helpers) {
                return Some((Arc::clone(progress), block));
            }
            self.helping.current = None;
        } else if idle < HELP_AFTER && self.requests.is_empty() && self.snub.is_none() {
            return None;
        }
        if self.helping.look_again_at.is_some_and(|at| now < at) {
            return None;
        }
        let found = work.help(&self.has, self.help_worth(), helpers);
        let block = found.as_ref().and_then(|progress| self.ask_for(progress, helpers));
        let (Some(progress), Some(block)) = (found, block) else {
            self.helping.look_again_at = Some(now + HELP_AGAIN_AFTER);
            return None;
        };
        self.helping.current = Some(Arc::clone(&progress));
        Some((progress, block))
    }

    /// A block of another's claim that this peer was not asked for.
    fn ask_for(&self, progress: &Progress, helpers: u8) -> Option<Block> {
        let block = |index| self.geometry.block(progress.piece(), index);
        progress.ask(helpers, |index| self.requests.position(block(index)).is_some()).map(block)
    }

    fn help_blocks(&self) -> usize {
        if self.snub.is_some() {
            return 1;
        }
        let window = self.pipeline.window();
        let blocks = match self.pipeline.rate() {
            // It has not sent for long enough to know. At first the window grows with each block.
            0 => window / 8,
            rate => (rate.saturating_mul(HELP_SPAN.as_millis() as u64) / 1_000) as usize / BLOCK_LEN as usize,
        };
        blocks.clamp(1, HELP_BLOCKS_MAX).min(window)
    }

    /// How long a holder must take for this peer to be sooner. One that must show that it is there helps anyone.
    fn help_worth(&self) -> Duration {
        if self.snub.is_some() {
            return Duration::ZERO;
        }
        let block_millis = (u64::from(BLOCK_LEN) * 1_000).checked_div(self.pipeline.rate()).unwrap_or(0);
        HELP_GAIN_MIN + HELP_SPAN.max(Duration::from_millis(block_millis))
    }

    /// Cancels what came from elsewhere meanwhile.
    pub(super) fn cancel_useless_help(&mut self, out: &mut Vec<u8>) {
        let is_useless = |request: &Request, of: &Progress| of.is_closed() || of.has(request.block.index());
        while let Some(at) = self.requests.last_help(is_useless) {
            self.cancel(at, out);
        }
    }
}
