//! What pages of the page cache cost, measured while they are paid for.
//!
//! A page that the machine has is filled with zeroes, which costs 0.2 CPU seconds a GiB. On a virtual machine whose host
//! takes free memory back (a balloon with free page reporting, as most clouds have) the host must find one first, and
//! that costs ten times as much. Large pages are the coldest: free blocks of their size are what is given back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::sys;

/// Bytes over which a price is formed.
const WINDOW_LEN: usize = 4 << 20;

/// CPU time of a GiB of pages that are made ready for a map, above which writing is cheaper.
pub(super) const DEAR_PAGES: Duration = Duration::from_millis(800);

/// CPU time of a GiB that is written, copy and pages, above which writing around the page cache is cheaper.
pub(super) const DEAR_WRITES: Duration = Duration::from_millis(500);

/// The price of pages that were made ready, or written.
#[derive(Default)]
pub(super) struct Price {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the window that is not full yet.
    cpu: Duration,
    len: usize,
    /// Of the last full window, a GiB.
    latest: Option<Duration>,
}

impl Price {
    /// Makes `len` bytes of pages ready by `pay`, and measures what that takes of this thread's CPU time.
    pub(super) fn of<T>(&self, len: usize, pay: impl FnOnce() -> T) -> T {
        let before = sys::thread_cpu();
        let paid = pay();
        self.paid(len, sys::thread_cpu().saturating_sub(before));
        paid
    }

    /// Notes what `len` bytes of pages took.
    pub(super) fn paid(&self, len: usize, cpu: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cpu += cpu;
        state.len += len;
        if state.len >= WINDOW_LEN {
            state.latest = Some(state.cpu.mul_f64((1u64 << 30) as f64 / state.len as f64));
            (state.cpu, state.len) = (Duration::ZERO, 0);
        }
    }

    /// CPU time a GiB; `None` before enough was paid for.
    pub(super) fn latest(&self) -> Option<Duration> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).latest
    }

    /// Whether a GiB costs more than that.
    pub(super) fn is_above(&self, limit: Duration) -> bool {
        self.latest().is_some_and(|latest| latest > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_that_of_the_last_window() {
        let price = Price::default();
        price.paid(WINDOW_LEN / 2, Duration::from_millis(4));
        assert_eq!((price.latest(), price.is_above(DEAR_PAGES)), (None, false));
        price.paid(WINDOW_LEN / 2, Duration::from_millis(4));
        assert_eq!(price.latest(), Some(Duration::from_millis(2048)));
        assert!(price.is_above(DEAR_PAGES));
        price.paid(WINDOW_LEN, Duration::from_millis(1));
        assert_eq!(price.latest(), Some(Duration::from_millis(256)));
        assert!(!price.is_above(DEAR_WRITES));
    }

    #[test]
    fn what_is_paid_is_this_threads_time() {
        let price = Price::default();
        price.of(WINDOW_LEN, || std::thread::sleep(Duration::from_millis(30)));
        assert!(price.latest().unwrap() < Duration::from_secs(1), "waiting costs nothing");
    }
}
