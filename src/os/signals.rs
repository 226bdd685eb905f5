//! Which signals the caller of this process wants to be left alone.

#![expect(unsafe_code, reason = "libc is the only way to ask what is done about a signal")]

use std::mem::MaybeUninit;
use std::ptr;

/// Whether a signal is ignored, as `nohup` has it for SIGHUP and a shell without job control for the SIGINT of what it
/// runs in the background. Who handled it all the same would undo that.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no new action is given, and the present one goes to a structure of its type.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call above succeeded, so it has filled the structure.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rust_ignores_is_ignored() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGTERM));
        assert!(!is_ignored(-1));
    }
}
