//! What an observer sees of a peer: whether it sends, and if not, why.

use std::fmt;
use std::time::{Duration, Instant};

use super::{PieceWriter, Session};

/// A peer sends if something of use has come within this time, which even a slow one does not take for a block.
const SENDING_WITHIN: Duration = Duration::from_secs(5);

/// What a peer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It sends what is wanted.
    Sending,
    /// It was asked for something, and nothing has come for some seconds.
    Silent,
    /// It lets us ask for nothing.
    Choked,
    /// It lets us ask, and was asked for nothing.
    Idle,
    /// It has nothing that is wanted.
    Unneeded,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sending => "sending",
            Self::Silent => "silent",
            Self::Choked => "choked",
            Self::Idle => "idle",
            Self::Unneeded => "unneeded",
        })
    }
}

impl<L: PieceWriter> Session<L> {
    /// What the peer does.
    pub fn standing(&self, now: Instant) -> Standing {
        let is_within = |since: Instant| now.saturating_duration_since(since) <= SENDING_WITHIN;
        let has_sent = self.tally.useful > 0 && is_within(self.useful_at);
        let is_at_it = self.arriving().is_some() && is_within(self.last_heard);
        if has_sent || is_at_it {
            Standing::Sending
        } else if self.outstanding() > 0 {
            Standing::Silent
        } else if !self.interested {
            Standing::Unneeded
        } else if self.choked {
            Standing::Choked
        } else {
            Standing::Idle
        }
    }

    /// Whether the peer lets us ask for nothing, but for what it allows all the same (BEP 6).
    pub const fn is_choked(&self) -> bool {
        self.choked
    }

    /// The name of the peer's program, if it has told. Any characters may be in it.
    pub fn client(&self) -> Option<&str> {
        self.talk.client.as_deref()
    }

    /// Bytes a second that come from the peer of late.
    pub fn rate(&self) -> u64 {
        self.pipeline.rate()
    }
}
