//! How long a run waits for something to come before it gives up.
//!
//! What counts as something is for each stage to say. The defaults depend on who is there, because waiting helps where
//! somebody may come back and does not where nobody is known.

use std::time::Duration;

/// Seconds of waiting by default, as long as somebody is connected, or somebody whom a source has named may come back.
pub(super) const DEFAULT: Duration = Duration::from_secs(300);
/// The same where nobody is known who could help.
pub(super) const DEFAULT_NOBODY: Duration = Duration::from_secs(20);
/// The same while a link's metadata is asked of connected peers: it is small, and who has it sends it at once.
pub(super) const DEFAULT_METADATA: Duration = Duration::from_secs(60);

/// How long the user wants to wait when nothing comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Patience {
    /// As long as waiting seems to be of use: the defaults of this module.
    #[default]
    Default,
    /// So long, whatever the prospects are.
    After(Duration),
    /// For ever.
    Forever,
}

impl Patience {
    /// What a number of seconds means on the command line, where 0 is for ever.
    pub const fn of_seconds(asked: Option<u64>) -> Self {
        match asked {
            None => Self::Default,
            Some(0) => Self::Forever,
            Some(seconds) => Self::After(Duration::from_secs(seconds)),
        }
    }

    /// Whether prospects decide, so that a run without any may end early.
    pub const fn is_default(self) -> bool {
        matches!(self, Self::Default)
    }

    /// The time to wait where `default` is the one that fits the prospects; `None` for ever.
    pub const fn limit(self, default: Duration) -> Option<Duration> {
        match self {
            Self::Default => Some(default),
            Self::After(limit) => Some(limit),
            Self::Forever => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_seconds_are_for_ever_and_none_are_the_default() {
        assert_eq!(Patience::of_seconds(None).limit(DEFAULT), Some(DEFAULT));
        assert_eq!(Patience::of_seconds(Some(7)).limit(DEFAULT), Some(Duration::from_secs(7)));
        assert_eq!(Patience::of_seconds(Some(0)).limit(DEFAULT), None);
        let by_prospects = [None, Some(7), Some(0)].map(|asked| Patience::of_seconds(asked).is_default());
        assert_eq!(by_prospects, [true, false, false]);
    }
}
