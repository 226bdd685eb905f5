//! Variables of the environment that switch something.

use std::env;
use std::ffi::{OsStr, OsString};

/// Whether a variable switches on what it is named for: it is there, not empty and not `0`.
pub fn is_on(name: &str) -> bool {
    value(name).is_some_and(|value| value != OsStr::new("0"))
}

/// What a variable says; an empty one says nothing, as if it were not there.
pub fn value(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
