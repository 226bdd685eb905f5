//! Whose process this is.

#![expect(unsafe_code, reason = "libc is the only way to ask who the user is")]

/// The number of the user whose rights count for this process.
pub fn effective() -> u32 {
    // SAFETY: a question without arguments that always has an answer.
    unsafe { libc::geteuid() }
}
