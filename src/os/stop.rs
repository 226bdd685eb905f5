//! The wish of the user that this process ends, where long work of the system is done for it.
//!
//! A thread that makes many files or reserves much room looks at nothing else meanwhile. Within [`heeding`] the calls
//! that do so ask here first, and are refused once an end is wished for; what puts things back is not among them.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// The signal that this thread heeds.
    static HEEDED: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// Pieces of work that will either be kept or undone, and are neither yet.
static UNSETTLED: AtomicUsize = AtomicUsize::new(0);

/// Does `work`, in which [`check`] fails as soon as `signal` is not 0.
pub fn heeding<T>(signal: &Arc<AtomicUsize>, work: impl FnOnce() -> T) -> T {
    let before = HEEDED.replace(Some(Arc::clone(signal)));
    let done = work();
    HEEDED.set(before);
    done
}

/// Whether to go on.
///
/// # Errors
/// ECANCELED where an end is wished for.
pub fn check() -> io::Result<()> {
    let is_wished =
        HEEDED.with_borrow(|signal| signal.as_ref().is_some_and(|s| s.load(Ordering::Relaxed) != 0));
    if is_wished { Err(io::Error::from_raw_os_error(libc::ECANCELED)) } else { Ok(()) }
}

/// Stands for work that would leave something behind if the process ended in the middle of it.
#[derive(Debug)]
pub struct Unsettled(());

impl Unsettled {
    /// Work begins.
    #[expect(
        clippy::new_without_default,
        reason = "it counts as long as it lives, so it is made on purpose only"
    )]
    pub fn new() -> Self {
        UNSETTLED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Whether there is any.
    pub fn is_any() -> bool {
        UNSETTLED.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        UNSETTLED.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn only_what_heeds_a_signal_is_refused_after_it() {
        let signal = Arc::new(AtomicUsize::new(0));
        heeding(&signal, || {
            assert!(check().is_ok());
            signal.store(2, Ordering::Relaxed);
            assert_eq!(check().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            assert!(thread::spawn(|| check().is_ok()).join().unwrap());
        });
        assert!(check().is_ok());
    }
}
