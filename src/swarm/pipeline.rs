//! How many blocks to keep requested at one peer: its *window*.
//!
//! A peer sends at its full rate only while it always has requests at hand, so the window must be above rate times
//! round trip; more than that is of no use and makes the end of a download wait for slow peers. Neither rate nor round
//! trip is known at first, and both change.
//!
//! - **Growing** (at the start, and after a snub): one more for every block received, so the window doubles each
//!   round trip. It ends when the rate has not risen for [`FLAT_ROUNDS`] rounds of [`ROUND`]. Rounds are long, and one
//!   flat one is not believed, because blocks come in bursts and a single quiet moment must not stop the growth.
//!   Blocks out of a *flooded* socket add nothing: with more in it than a receive takes, we are what is slow, and more
//!   requests would only make bytes wait there, for memory that is cold when they are hashed.
//! - **Holding**: the window is [`HOLD`] of the rate. As that is many round trips of what the present window brings,
//!   a window that became too small for its peer grows back by itself, by a large factor each round. It does not grow
//!   after a round in which most blocks came out of a flooded socket.
//! - **Snubbed**: no block for [`SNUB_AFTER`] while requests were out. The window is 1 until a block comes.
//!
//! Over all of it stands a ceiling: what the peer says it takes (`reqq`, BEP 10), [`REQQ_DEFAULT`] if it says nothing,
//! [`WINDOW_MAX`] at most. A REJECT halves the window and the ceiling, which then rises again slowly.
//!
//! A block costs a few additions; rates are measured per round, in [`Pipeline::tick`].

use std::time::{Duration, Instant};

use crate::meta::geometry::BLOCK_LEN;

/// The largest window: 31 MiB on their way, a rate of 100 MB/s over a round trip of 300 ms.
pub const WINDOW_MAX: u32 = 2_000;

/// The smallest window of a peer that is not snubbed and does not reject.
pub const WINDOW_MIN: u32 = 5;

/// The window of a new peer: one piece of 256 KiB.
pub const WINDOW_START: u32 = 16;

/// How many requests a peer takes that does not say so (BEP 10).
pub const REQQ_DEFAULT: u32 = 250;

/// How much time of the peer's rate is kept requested.
pub const HOLD: Duration = Duration::from_secs(3);

/// Over how long a rate is measured.
pub const ROUND: Duration = Duration::from_secs(1);

/// How many rounds in a row must not bring a better rate, for the growth to end.
pub const FLAT_ROUNDS: u32 = 2;

/// How long a peer may owe us a block.
pub const SNUB_AFTER: Duration = Duration::from_secs(20);

/// REJECTs that come within this time of one that counted are of the same cause.
pub const REJECT_SPACING: Duration = Duration::from_secs(1);

/// The window of one peer.
#[derive(Debug)]
pub struct Pipeline {
    phase: Phase,
    /// Blocks. `1 <= window`; what counts is the smaller of it and `ceiling`.
    window: u32,
    /// What the peer takes, `1 <= limit <= WINDOW_MAX`.
    limit: u32,
    /// What it takes after it rejected, `1 <= ceiling <= limit`.
    ceiling: u32,
    round_started: Instant,
    round_bytes: u64,
    /// Of these, the bytes that came out of a flooded socket.
    round_flooded: u64,
    /// Whether the blocks that come now do.
    flooded: bool,
    /// Bytes a second; `None` before the end of the first round that brought any.
    rate: Option<u64>,
    /// Since when the peer owes us a block, if any is out.
    quiet_since: Instant,
    rejected_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// `best` is the best rate of a round, in bytes a second; `flat` the rounds since that did not better it.
    Growing {
        best: u64,
        flat: u32,
    },
    Holding,
    Snubbed,
}

impl Pipeline {
    /// The window of a peer that connected now.
    pub const fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Growing { best: 0, flat: 0 },
            window: WINDOW_START,
            limit: REQQ_DEFAULT,
            ceiling: REQQ_DEFAULT,
            round_started: now,
            round_bytes: 0,
            round_flooded: 0,
            flooded: false,
            rate: None,
            quiet_since: now,
            rejected_at: None,
        }
    }

    /// How many blocks to keep requested, at least 1.
    pub fn window(&self) -> usize {
        self.window.min(self.ceiling) as usize
    }

    /// Bytes a second that the peer sends, smoothed over a few seconds.
    pub fn rate(&self) -> u64 {
        self.rate.unwrap_or(0)
    }

    /// Whether it owes us a block for so long that its blocks should be asked of others.
    pub const fn is_snubbed(&self) -> bool {
        matches!(self.phase, Phase::Snubbed)
    }

    /// The peer said how many requests it takes. The number is its own, so it is bounded here.
    pub fn set_reqq(&mut self, reqq: u32) {
        self.limit = reqq.clamp(1, WINDOW_MAX);
        self.ceiling = if self.rejected_at.is_some() { self.ceiling.min(self.limit) } else { self.limit };
    }

    /// Whether the blocks of the next calls come out of a socket that holds more than a receive takes.
    pub const fn set_flooded(&mut self, flooded: bool) {
        self.flooded = flooded;
    }

    /// A block of that many bytes came.
    pub fn on_block(&mut self, now: Instant, bytes: u32) {
        self.round_bytes += u64::from(bytes);
        self.quiet_since = now;
        if self.flooded {
            self.round_flooded += u64::from(bytes);
        }
        match self.phase {
            Phase::Holding => {}
            Phase::Growing { .. } if self.flooded => {}
            Phase::Growing { .. } => self.window = (self.window + 1).min(self.ceiling),
            Phase::Snubbed => {
                self.phase = Phase::Growing { best: 0, flat: 0 };
                self.window = WINDOW_MIN;
            }
        }
    }

    /// The peer will not answer a request (BEP 6). Not for the rejects that follow a choke: they say nothing about
    /// how many requests it takes.
    pub fn on_reject(&mut self, now: Instant) {
        if self.rejected_at.is_some_and(|at| now.saturating_duration_since(at) < REJECT_SPACING) {
            return;
        }
        self.rejected_at = Some(now);
        self.ceiling = (self.window.min(self.ceiling) / 2).max(1);
        if !self.is_snubbed() {
            self.window = self.ceiling;
            self.phase = Phase::Holding;
        }
    }

    /// Time passed; to be called a few times a second. `outstanding` is how many blocks are requested and not here.
    pub fn tick(&mut self, now: Instant, outstanding: usize) {
        if outstanding == 0 {
            self.quiet_since = now;
            // A peer that is asked for nothing sends nothing: no rate can be seen in that.
            if self.round_bytes == 0 {
                self.round_started = now;
            }
        } else if now.saturating_duration_since(self.quiet_since) >= SNUB_AFTER {
            self.phase = Phase::Snubbed;
            self.window = 1;
        }
        let elapsed = now.saturating_duration_since(self.round_started);
        if elapsed >= ROUND {
            self.end_round(elapsed);
            self.round_started = now;
            (self.round_bytes, self.round_flooded) = (0, 0);
        }
    }

    fn end_round(&mut self, elapsed: Duration) {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let sample = self.round_bytes.saturating_mul(1_000) / millis;
        self.rate = match self.rate {
            None if sample == 0 => None,
            None => Some(sample),
            Some(rate) => Some(rate.midpoint(sample)),
        };
        self.ceiling = (self.ceiling + self.ceiling.div_ceil(RECOVERY)).min(self.limit);
        match &mut self.phase {
            // The first block is still on its way, or the round trip is longer than a round.
            Phase::Growing { .. } if sample == 0 => {}
            Phase::Growing { best, flat } if sample > *best + *best / NOTICEABLE => {
                *best = sample;
                *flat = 0;
            }
            Phase::Growing { flat, .. } => {
                *flat += 1;
                if *flat >= FLAT_ROUNDS {
                    self.phase = Phase::Holding;
                }
            }
            Phase::Holding | Phase::Snubbed => {}
        }
        if self.phase == Phase::Holding {
            // A rise counts at once and a fall by halves, so one quiet round does little.
            let window = window_of(self.rate().max(sample)).min(self.ceiling);
            let was_flooded = 2 * self.round_flooded > self.round_bytes;
            self.window = if was_flooded { window.min(self.window) } else { window };
        }
    }
}

/// The blocks that a rate brings in [`HOLD`], within the bounds of any window.
fn window_of(rate: u64) -> u32 {
    let blocks = rate.saturating_mul(HOLD.as_secs()) / u64::from(BLOCK_LEN);
    blocks.clamp(u64::from(WINDOW_MIN), u64::from(WINDOW_MAX)) as u32
}

/// A better rate is better by at least one part in so many.
const NOTICEABLE: u64 = 8;

/// In each round the ceiling rises by one part in so many, which doubles it in 12 rounds.
const RECOVERY: u32 = 16;

#[cfg(test)]
mod tests;
