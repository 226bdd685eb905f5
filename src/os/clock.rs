//! The time that this process ran, for everything that gives up after a while.
//!
//! A process that was stopped (SIGSTOP, Ctrl-Z, a debugger, a machine that was paused) has missed what came meanwhile,
//! and must not count that time against its peers. Nothing tells it that it was stopped. But its threads look at the
//! clock many times a second for as long as it runs, so where nobody did for long, nobody could.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A longer time in which no thread has looked at the clock is one in which none ran. While peers are
/// connected or looked for, threads look ten times a second. While files are made, checked or synced for longer, that
/// time does not count either, which does no harm: nobody waits for a peer then.
const GAP_MAX: Duration = Duration::from_secs(2);

/// The clock of this process.
static CLOCK: Clock = Clock::new();

/// Now, if the clock had stood still whenever this process did. Not to be mixed with [`Instant::now`].
pub fn now() -> Instant {
    let real = Instant::now();
    real.checked_sub(CLOCK.stopped(since_start(real))).unwrap_or(real)
}

fn since_start(now: Instant) -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    now.saturating_duration_since(*START.get_or_init(|| now))
}

/// What is known of the time, in nanoseconds since the start.
struct Clock {
    /// When a thread looked last.
    looked: AtomicU64,
    /// For how long none could, in all.
    stopped: AtomicU64,
    /// Held by who changes both.
    changing: Mutex<()>,
}

impl Clock {
    const fn new() -> Self {
        Self { looked: AtomicU64::new(0), stopped: AtomicU64::new(0), changing: Mutex::new(()) }
    }

    /// For how long the process has not run, up to `real`.
    fn stopped(&self, real: Duration) -> Duration {
        let real = nanos(real);
        if self.gap(real) > nanos(GAP_MAX) {
            let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have seen it first.
            let gap = self.gap(real);
            if gap > nanos(GAP_MAX) {
                self.stopped.fetch_add(gap, Ordering::Relaxed);
                self.looked.store(real, Ordering::Release);
            }
        } else if self.gap(real) > nanos(GAP_MAX) / 8 {
            // Now and then is enough, and spares the threads of the rings a line of memory that all of them write.
            self.looked.fetch_max(real, Ordering::Release);
        }
        Duration::from_nanos(self.stopped.load(Ordering::Relaxed))
    }

    fn gap(&self, real: u64) -> u64 {
        real.saturating_sub(self.looked.load(Ordering::Acquire))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_nobody_looked_does_not_count() {
        let clock = Clock::new();
        let at = |millis| clock.stopped(Duration::from_millis(millis));
        let mut real = 0;
        for _ in 0..100 {
            real += 100;
            assert_eq!(at(real), Duration::ZERO);
        }
        // Since the last look that was noted, which a thread may do without for a quarter of a second.
        let stopped = at(real + 7_000);
        assert!((7_000..=7_250).contains(&stopped.as_millis()), "{stopped:?}");
        assert_eq!(at(real + 7_100), stopped);
        // A thread that had read the time before it was stopped.
        assert_eq!(at(real + 10), stopped);
        let twice = at(real + 7_100 + 3_600_000);
        assert!(twice > stopped + Duration::from_secs(3_600), "{twice:?}");
    }

    #[test]
    fn it_goes_on_while_it_is_looked_at() {
        let (mut last, start) = (now(), Instant::now());
        while start.elapsed() < Duration::from_millis(50) {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
