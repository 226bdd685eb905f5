//! Bytes as lower-case hexadecimal text, in one place.

use std::fmt;

/// The bytes as lower-case hexadecimal digits, two a byte.
///
/// ```
/// assert_eq!(ringtide::meta::hex(&[0xfa, 0x0b]).to_string(), "fa0b");
/// ```
pub const fn hex(bytes: &[u8]) -> Hex<'_> {
    Hex(bytes)
}

/// What [`hex`] returns: shown with [`fmt::Display`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
