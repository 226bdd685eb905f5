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
        // A digest at a time: `info` shows as many as there are pieces.
        self.0.chunks(CHUNK_LEN).try_for_each(|bytes| {
            let mut text = [0; 2 * CHUNK_LEN];
            for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
                digits[0] = DIGITS[usize::from(byte >> 4)];
                digits[1] = DIGITS[usize::from(byte & 0xf)];
            }
            f.write_str(str::from_utf8(&text[..2 * bytes.len()]).map_err(|_| fmt::Error)?)
        })
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes shown at a time.
const CHUNK_LEN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for len in [0, 1, 19, 20, 21, 256] {
            assert_eq!(hex(&bytes[..len]).to_string(), expected[..2 * len]);
        }
    }
}
