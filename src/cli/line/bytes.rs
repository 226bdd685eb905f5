//! Words of any bytes as text and back, because argh takes nothing but text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The first of the 256 characters that stand for a byte each: the end of a plane for private use.
const FIRST: u32 = 0x10_ff00;

/// A text that stands for these bytes and for no others. Text stands for itself, unless it has characters of that kind.
pub(in crate::cli) fn to_text(word: &OsStr) -> String {
    let mut text = String::with_capacity(word.len());
    for chunk in word.as_bytes().utf8_chunks() {
        for char in chunk.valid().chars() {
            if byte(char).is_some() {
                char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.extend(stand_in(byte)));
            } else {
                text.push(char);
            }
        }
        chunk.invalid().iter().for_each(|&byte| text.extend(stand_in(byte)));
    }
    text
}

/// The bytes that a text of [`to_text`] stands for.
pub(in crate::cli) fn from_text(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for char in text.chars() {
        match byte(char) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    OsString::from_vec(bytes)
}

/// The character for a byte; there is always one.
fn stand_in(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
}

fn byte(char: char) -> Option<u8> {
    (char as u32).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stands_for_itself() {
        assert_eq!(to_text(OsStr::new("a é 日本 \u{e000}")), "a é 日本 \u{e000}");
        assert_eq!(to_text(OsStr::from_bytes(b"\xff")), "\u{10ffff}");
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>, text in "(a|\u{10ff41}|\u{10ffff}|\\PC){0,9}") {
            for word in [OsStr::from_bytes(&bytes), OsStr::new(&text)] {
                prop_assert_eq!(from_text(&to_text(word)), word);
            }
        }
    }
}
