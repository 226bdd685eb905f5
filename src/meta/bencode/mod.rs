//! Bencode (BEP 3): a parser without copies, a writer of canonical form, and a JSON view.
//!
//! [`parse`] makes a [`Document`]: one flat vector of 16-byte tokens in input order, each with the span it was
//! read from. A container's token also knows where its subtree ends, so walking and skipping need no recursion and
//! hostile nesting cannot overflow the stack, neither while parsing nor on drop nor on output. A [`Value`] is a
//! cursor into it. Spans are kept because hashes are taken over the bytes as they came ([`Value::raw`]), never over
//! a re-encoding.
//!
//! What other programs write and read is taken ([`Form::Lenient`]), as hashes do not depend on the meaning of the
//! bytes. Who looks at a value with `decode` is told of all that BEP 3 does not allow ([`Form::Strict`]), but for the
//! order of keys, which old torrents have in any.

mod encode;
mod error;
mod json;
mod parse;

use std::fmt;

pub use encode::{DictWriter, Writer};
pub use error::{ParseError, Reason};
pub use json::to_json;
pub use parse::{Form, Limits, parse, parse_prefix};

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A byte string, `5:hello`.
    Bytes,
    /// An integer of any length, `i52e`.
    Integer,
    /// A list, `l..e`.
    List,
    /// A dictionary, `d..e`.
    Dict,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "a string",
            Self::Integer => "an integer",
            Self::List => "a list",
            Self::Dict => "a dictionary",
        })
    }
}

/// One value of the input. Spans are `u32`, which [`parse`] ensures by refusing longer input.
#[derive(Clone, Copy)]
struct Token {
    /// Its first byte in the input.
    start: u32,
    /// One past its last byte.
    end: u32,
    /// The token after its subtree.
    next: u32,
    kind: Kind,
    /// Bytes before its content: of a string the length and the colon, else 1.
    head: u8,
}

/// A parsed input: the bytes, and where its values are in them.
pub struct Document<'a> {
    bytes: &'a [u8],
    tokens: Vec<Token>,
}

impl<'a> Document<'a> {
    /// The outermost value.
    pub const fn root(&self) -> Value<'_> {
        Value { doc: self, index: 0 }
    }

    fn value(&'a self, index: u32) -> Value<'a> {
        Value { doc: self, index }
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} tokens in {} bytes)", self.tokens.len(), self.root().raw().len())
    }
}

/// A value of a [`Document`]: a cursor, cheap to copy.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    doc: &'a Document<'a>,
    index: u32,
}

impl<'a> Value<'a> {
    /// What it is.
    pub fn kind(self) -> Kind {
        self.token().kind
    }

    /// The bytes that it was parsed from, from its first to its last.
    pub fn raw(self) -> &'a [u8] {
        let token = self.token();
        &self.doc.bytes[token.start as usize..token.end as usize]
    }

    /// Where [`Value::raw`] starts in the input.
    pub fn offset(self) -> usize {
        self.token().start as usize
    }

    /// The content, if it is a string.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        (self.kind() == Kind::Bytes).then(|| &self.raw()[self.token().head as usize..])
    }

    /// The content, if it is a string of UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The decimal digits with their sign, if it is an integer. Of any length; of an odd one ([`Form::Lenient`]) the
    /// text that stands for them.
    pub fn as_digits(self) -> Option<&'a str> {
        if self.kind() != Kind::Integer {
            return None;
        }
        let raw = self.raw();
        std::str::from_utf8(&raw[1..raw.len() - 1]).ok()
    }

    /// The number, if it is an integer that fits.
    pub fn as_i64(self) -> Option<i64> {
        self.as_number()?.try_into().ok()
    }

    /// The number, if it is an integer that fits.
    pub fn as_u64(self) -> Option<u64> {
        self.as_number()?.try_into().ok()
    }

    fn as_number(self) -> Option<i128> {
        self.as_digits()?.trim().parse().ok()
    }

    /// The elements in order, if it is a list.
    pub fn as_list(self) -> Option<List<'a>> {
        (self.kind() == Kind::List).then(|| List(self.children()))
    }

    /// The keys and values in input order, if it is a dictionary.
    pub fn as_dict(self) -> Option<Dict<'a>> {
        (self.kind() == Kind::Dict).then(|| Dict(self.children()))
    }

    /// The value of a key, if it is a dictionary that has it; of a key that is there twice, the first. Looks at every
    /// key in turn.
    pub fn get(self, key: impl AsRef<[u8]>) -> Option<Self> {
        let key = key.as_ref();
        self.as_dict()?.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn children(self) -> Children<'a> {
        Children { doc: self.doc, index: self.index + 1, end: self.token().next }
    }

    fn token(self) -> Token {
        self.doc.tokens[self.index as usize]
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = String::new();
        to_json(*self, &mut json);
        f.write_str(&json)
    }
}

/// The tokens directly inside a container.
#[derive(Clone)]
struct Children<'a> {
    doc: &'a Document<'a>,
    index: u32,
    end: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.index == self.end {
            return None;
        }
        let value = self.doc.value(self.index);
        self.index = value.token().next;
        Some(value)
    }
}

/// The elements of a list.
#[derive(Clone)]
pub struct List<'a>(Children<'a>);

impl<'a> Iterator for List<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.0.next()
    }
}

/// The entries of a dictionary.
#[derive(Clone)]
pub struct Dict<'a>(Children<'a>);

impl<'a> Iterator for Dict<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next()?.as_bytes()?;
        Some((key, self.0.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_content_and_their_span() {
        let bytes = b"d4:infod6:lengthi-12ee4:listl0:2:abee";
        let document = parse(bytes, Limits::METAINFO).unwrap();
        let root = document.root();
        assert_eq!(root.raw(), bytes);
        let info = root.get("info").unwrap();
        assert_eq!((info.raw(), info.offset()), (&b"d6:lengthi-12ee"[..], 7));
        let length = info.get("length").unwrap();
        assert_eq!((length.as_i64(), length.as_u64(), length.as_digits()), (Some(-12), None, Some("-12")));
        let list: Vec<_> = root.get("list").unwrap().as_list().unwrap().map(Value::as_bytes).collect();
        assert_eq!(list, [Some(&b""[..]), Some(b"ab")]);
        assert!(root.as_list().is_none() && root.as_bytes().is_none() && length.get("x").is_none());
        assert!(root.get("length").is_none(), "keys of inner dictionaries are not found");
    }

    #[test]
    fn integers_of_any_length_keep_their_digits() {
        let digits = "9".repeat(1000);
        let bytes = format!("i{digits}e");
        let document = parse(bytes.as_bytes(), Limits::METAINFO).unwrap();
        assert_eq!(document.root().as_digits(), Some(&*digits));
        assert_eq!(document.root().as_u64(), None);
        for (number, as_i64, as_u64) in [
            (i128::from(u64::MAX), None, Some(u64::MAX)),
            (i128::from(u64::MAX) + 1, None, None),
            (i128::from(i64::MIN), Some(i64::MIN), None),
            (i128::from(i64::MIN) - 1, None, None),
            (0, Some(0), Some(0)),
        ] {
            let bytes = format!("i{number}e");
            let document = parse(bytes.as_bytes(), Limits::METAINFO).unwrap();
            assert_eq!((document.root().as_i64(), document.root().as_u64()), (as_i64, as_u64), "{number}");
        }
    }

    #[test]
    fn tokens_stay_small() {
        assert_eq!(size_of::<Token>(), 16);
    }
}
