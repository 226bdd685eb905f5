//! Text of strangers, fit to be shown: what a terminal would act upon, and what nobody would see, becomes visible.
//!
//! Names, messages and URLs come from torrents, peers and trackers, and arguments from wherever they were copied.
//! Whoever prints sends the whole text through [`escape`] last. Escaping twice is the same as escaping once.

use std::fmt::{self, Write as _};

/// The text with each hidden character as an escape of Rust: `\n`, `\u{1b}`, `\u{202e}`.
///
/// ```
/// assert_eq!(ringtide::meta::text::escape("a\x1b[31m\u{200b}é").to_string(), "a\\u{1b}[31m\\u{200b}é");
/// ```
pub const fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// What [`escape`] returns: shown with [`fmt::Display`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each_part(self.0, |part| match part {
            Part::Plain(text) => f.write_str(text),
            Part::Hidden('\n') => f.write_str("\\n"),
            Part::Hidden('\r') => f.write_str("\\r"),
            Part::Hidden('\t') => f.write_str("\\t"),
            Part::Hidden(char) => write!(f, "{}", char.escape_unicode()),
        })
    }
}

/// A JSON text with each hidden character as `\u` and four digits of base 16, or two of these. JSON has them nowhere
/// but inside of strings, so the value stays the same.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    // Writing to a string cannot fail.
    let _ = each_part(json, |part| match part {
        Part::Plain(text) => out.write_str(text),
        Part::Hidden(char) => {
            char.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
        }
    });
    out
}

/// A stretch of a text.
enum Part<'a> {
    /// Characters that are seen as they are.
    Plain(&'a str),
    /// One that is not.
    Hidden(char),
}

fn each_part<'a>(text: &'a str, mut take: impl FnMut(Part<'a>) -> fmt::Result) -> fmt::Result {
    let mut rest = text;
    while let Some((at, char)) = rest.char_indices().find(|&(_, char)| is_hidden(char)) {
        take(Part::Plain(&rest[..at]))?;
        take(Part::Hidden(char))?;
        rest = &rest[at + char.len_utf8()..];
    }
    take(Part::Plain(rest))
}

/// Whether a character acts on a terminal or on the order of the text around it, ends a line, or is not seen: controls,
/// and what Unicode calls ignorable by default. U+FE0F and U+FE0E are not meant, which choose the look of an emoji.
pub const fn is_hidden(char: char) -> bool {
    // Nothing of ASCII but its controls: nearly all text is decided here.
    if char.is_ascii() {
        return char.is_ascii_control();
    }
    matches!(char,
        // Controls above ASCII, and the hyphen that shows only at the end of a line.
        '\u{80}'..='\u{9f}' | '\u{ad}'
        // Joiners and marks without a look; fillers of Hangul, Khmer and Mongolian.
        | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{3164}' | '\u{ffa0}'
        // Spaces of no width, marks of direction, ends of lines and paragraphs, overrides and isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Selectors of variants, the byte order mark, annotations, and what is no character.
        | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        // Formats of shorthand and of music; tags and the other selectors of variants.
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_hidden_is_shown() {
        for (text, escaped) in [
            ("", ""),
            ("plain é 日本 \u{2764}\u{fe0f} \\ \"", "plain é 日本 \u{2764}\u{fe0f} \\ \""),
            ("\x1b]0;title\x07\x7f\0", "\\u{1b}]0;title\\u{7}\\u{7f}\\u{0}"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("evil\u{202e}gpj.exe\u{2066}\u{2069}", "evil\\u{202e}gpj.exe\\u{2066}\\u{2069}"),
            ("\u{feff}a\u{200b}\u{200d}b\u{2028}", "\\u{feff}a\\u{200b}\\u{200d}b\\u{2028}"),
            ("\u{e0041}\u{e007f}\u{e0100}", "\\u{e0041}\\u{e007f}\\u{e0100}"),
        ] {
            assert_eq!(escape(text).to_string(), escaped);
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"a\u{202e}": ["\u{e0041}x", "é\u{7f}", "\u{1b}"]});
        let json = escape_json(&value.to_string());
        assert_eq!(json, r#"{"a\u202e":["\udb40\udc41x","é\u007f","\u001b"]}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_once_is_enough(text in "(\\PC|\\p{C}|[\u{200b}-\u{206f}]){0,40}") {
            let once = escape(&text).to_string();
            prop_assert!(!once.contains(is_hidden));
            prop_assert_eq!(escape(&once).to_string(), once);
        }
    }
}
