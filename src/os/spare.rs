//! Descriptors kept back for opens that must not fail because connections have taken all others.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::limits;

/// Descriptors that are kept at most: a file and the folders on the way to it, from two threads.
const SPARES_MAX: usize = 4;
/// Of how many descriptors one is kept.
const SPARES_SHARE: usize = 10;

static SPARES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Takes as many descriptors as are to be kept, if they are to be had. Returns how many are kept.
pub fn refill() -> usize {
    let count = (limits::descriptors() / SPARES_SHARE).clamp(1, SPARES_MAX);
    let mut spares = lock();
    while spares.len() < count
        && let Ok(spare) = File::open("/dev/null")
    {
        spares.push(spare);
    }
    spares.len()
}

/// Opens something, if need be with the descriptors that were kept.
///
/// # Errors
/// What `open` answers when it is not for want of descriptors, or none is kept any more.
pub fn open<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match open() {
            Err(error) if is_full(&error) && lock().pop().is_some() => {}
            result => return result,
        }
    }
}

/// Whether an error says that there are no descriptors left, for this process or on this machine.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn lock() -> MutexGuard<'static, Vec<File>> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_given_up_for_an_open_and_taken_again() {
        refill();
        let kept = lock().len();
        assert!(kept > 0);
        let mut failures = 1;
        let opened = open(|| {
            failures -= 1;
            if failures >= 0 { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(7) }
        });
        assert_eq!((opened.unwrap(), lock().len()), (7, kept - 1));
        let mut calls = 0;
        let refused = open(|| {
            calls += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::ENFILE))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), calls, lock().len()), (Some(libc::ENFILE), kept, 0));
        refill();
        assert_eq!(lock().len(), kept);
        assert!(open(|| Err::<(), _>(io::Error::from_raw_os_error(libc::EACCES))).is_err());
        assert_eq!(lock().len(), kept);
    }
}
