//! Bencode shown as JSON, for people and for scripts.

use std::fmt::Write as _;

use super::{Kind, Value};
use crate::meta::hex;
use crate::meta::text::{escape_json, is_hidden};

/// Appends a value as compact JSON: keys in input order, integers with all their digits, and strings that are not
/// UTF-8 as `"<hex>fa0b</hex>"`. No recursion: tokens are in output order already, so a stack of open ends is enough.
pub fn to_json(value: Value<'_>, out: &mut String) {
    let tokens = &value.doc.tokens;
    let mut open: Vec<Open> = Vec::new();
    let mut index = value.index;
    loop {
        let value = value.doc.value(index);
        if let Some(container) = open.last_mut() {
            container.separate(out);
        }
        match value.kind() {
            Kind::Bytes => push_string(value.as_bytes().unwrap_or_default(), out),
            Kind::Integer => push_integer(value.as_digits().unwrap_or_default(), out),
            Kind::List => out.push('['),
            Kind::Dict => out.push('{'),
        }
        if matches!(value.kind(), Kind::List | Kind::Dict) {
            let is_dict = value.kind() == Kind::Dict;
            open.push(Open { end: tokens[index as usize].next, is_dict, count: 0 });
        }
        index += 1;
        while let Some(container) = open.pop_if(|container| container.end == index) {
            out.push(if container.is_dict { '}' } else { ']' });
        }
        if open.is_empty() {
            return;
        }
    }
}

/// A container whose end was not written yet.
struct Open {
    /// The token after its subtree.
    end: u32,
    is_dict: bool,
    /// Tokens written directly inside it; in a dictionary the odd ones are values.
    count: usize,
}

impl Open {
    /// Writes what stands before its next token.
    fn separate(&mut self, out: &mut String) {
        if self.is_dict && self.count % 2 == 1 {
            out.push(':');
        } else if self.count > 0 {
            out.push(',');
        }
        self.count += 1;
    }
}

/// An odd integer is no number in JSON either, and is shown as a string.
fn push_integer(digits: &str, out: &mut String) {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let has_zeros = unsigned.len() > 1 && unsigned.starts_with('0');
    if unsigned.is_empty() || has_zeros || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        push_string(digits.as_bytes(), out);
    } else {
        out.push_str(digits);
    }
}

fn push_string(bytes: &[u8], out: &mut String) {
    out.push('"');
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().for_each(|char| push_char(char, out)),
        // Writing to a string cannot fail.
        Err(_) => drop(write!(out, "<hex>{}</hex>", hex(bytes))),
    }
    out.push('"');
}

/// Escapes what RFC 8259 demands, and all else that would not be seen or act upon a terminal.
fn push_char(char: char, out: &mut String) {
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_hidden(char) => out.push_str(&escape_json(char.encode_utf8(&mut [0; 4]))),
        _ => out.push(char),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, parse};
    use super::*;

    fn json(bytes: &[u8]) -> String {
        let document = parse(bytes, Limits::ANY).unwrap();
        let mut out = String::new();
        to_json(document.root(), &mut out);
        out
    }

    #[test]
    fn the_contract_of_decode() {
        for (bytes, expected) in [
            ("5:hello", r#""hello""#),
            ("i52e", "52"),
            ("i-52e", "-52"),
            ("i4294967300e", "4294967300"),
            ("l5:helloi52ee", r#"["hello",52]"#),
            ("le", "[]"),
            ("lli4eei5ee", "[[4],5]"),
            ("d3:foo3:bar5:helloi52ee", r#"{"foo":"bar","hello":52}"#),
            ("de", "{}"),
        ] {
            assert_eq!(json(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn order_and_digits_stay_and_strings_are_escaped() {
        assert_eq!(json(b"d1:bd1:xle1:ydee1:al0:i1eee"), r#"{"b":{"x":[],"y":{}},"a":["",1]}"#);
        let digits = "123456789".repeat(20);
        assert_eq!(json(format!("i-{digits}e").as_bytes()), format!("-{digits}"));
        assert_eq!(json(b"2:\xfa\x0b"), r#""<hex>fa0b</hex>""#);
        assert_eq!(json("12:a\"\\\n\r\t\0\u{85}é/".as_bytes()), r#""a\"\\\n\r\t\u0000\u0085é/""#);
        assert_eq!(json("10:\u{202e}\u{200b}\u{e0041}".as_bytes()), r#""\u202e\u200b\udb40\udc41""#);
    }

    #[test]
    fn what_is_no_integer_is_a_string() {
        let document = parse(b"li1.5ei007eiei-5ee", Limits::METAINFO).unwrap();
        let mut out = String::new();
        to_json(document.root(), &mut out);
        assert_eq!(out, r#"["1.5","007","",-5]"#);
    }

    #[test]
    fn a_value_inside_is_shown_alone() {
        let document = parse(b"d1:al1:x1:yee", Limits::ANY).unwrap();
        let mut out = String::new();
        to_json(document.root().get("a").unwrap(), &mut out);
        assert_eq!(out, r#"["x","y"]"#);
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let depth = Limits::ANY.depth_max;
        let bytes = format!("{}{}", "l".repeat(depth), "e".repeat(depth));
        assert_eq!(json(bytes.as_bytes()).len(), 2 * depth);
    }
}
