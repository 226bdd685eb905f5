//! The rate of the last few seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What came before does not count any more: long enough for a slow peer to send a block or two, and short enough for a
/// stall to be seen.
const WINDOW: Duration = Duration::from_secs(4);
/// What comes within this time is one sample.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Bytes a second, counted since the first call.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When it was looked, and how many bytes there had been by then, oldest first. At most one is older than the
    /// window.
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes in how many bytes there are by `now`.
    pub(super) fn update(&mut self, now: Instant, bytes: u64) -> f64 {
        if self.samples.back().is_none_or(|&(at, _)| now.duration_since(at) >= SAMPLE_EVERY) {
            self.samples.push_back((now, bytes));
        }
        while self.samples.get(1).is_some_and(|&(at, _)| now.duration_since(at) >= WINDOW) {
            self.samples.pop_front();
        }
        let Some(&(since, before)) = self.samples.front() else { return 0.0 };
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { bytes.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate each tenth of a second, of bytes that come by that function of the tenths.
    fn rates(tenths: u64, bytes: impl Fn(u64) -> u64) -> Vec<f64> {
        let (mut rate, start) = (Rate::default(), Instant::now());
        (0..tenths)
            .map(|tenth| rate.update(start + Duration::from_millis(100 * tenth), bytes(tenth)))
            .collect()
    }

    #[test]
    fn it_is_that_of_the_last_seconds() {
        let steady = rates(200, |tenth| 5_000 + 100 * tenth);
        assert_eq!(steady[0], 0.0, "what was there before has not come");
        assert!(steady[1..].iter().all(|rate| (rate - 1_000.0).abs() < 1.0), "{steady:?}");
        let stalled = rates(100, |tenth| 100 * tenth.min(50));
        assert!((stalled[50] - 1_000.0).abs() < 1.0);
        assert!(stalled[93..].iter().all(|&rate| rate == 0.0), "{stalled:?}");
    }
}
