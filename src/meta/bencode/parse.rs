//! Bytes to tokens, in one pass and with an explicit stack.

use super::{Document, Kind, ParseError, Reason, Token};

/// How much an input may ask of the parser. Memory is at most 16 bytes a token and some 20 a level, beside a key
/// table for the dictionary that is being closed, when it is not in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How many lists and dictionaries may be inside each other.
    pub depth_max: usize,
    /// How many values, dictionary keys counted, there may be.
    pub tokens_max: usize,
    /// How what other programs write and read is taken that BEP 3 does not allow.
    pub form: Form,
}

/// Which inputs are bencode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// What BEP 3 allows, with the keys of a dictionary in any order.
    Strict,
    /// Also what cannot be misread: a key twice, of which the first counts ([`Value::get`](super::Value::get)); zeros
    /// in front of a number; and in the place of an integer another text, such as `i1.5e`, which is no number to
    /// whoever wants one.
    Lenient,
}

impl Limits {
    /// For `.torrent` files and info dictionaries: 100 levels and 3 M values as in libtorrent. All
    /// piece hashes are one value; a file takes about 8, so hundreds of thousands of files fit.
    pub const METAINFO: Self = Self { depth_max: 100, tokens_max: 3_000_000, form: Form::Lenient };
    /// For tracker replies: 8 levels as in Transmission, and room for as many peers as fit 1 MiB, 7 values each.
    pub const TRACKER: Self = Self { depth_max: 8, tokens_max: 1 << 18, form: Form::Lenient };
    /// For messages of peers (BEP 10, BEP 9), which are one or two small dictionaries.
    pub const PEER_MESSAGE: Self = Self { depth_max: 8, tokens_max: 1024, form: Form::Lenient };
    /// For whatever a user wants to look at, who is told of everything that is odd.
    pub const ANY: Self = Self { depth_max: 4096, tokens_max: 3_000_000, form: Form::Strict };
}

/// Parses an input that is one value and nothing else.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Document<'_>, ParseError> {
    let (document, rest) = parse_prefix(bytes, limits)?;
    if rest.is_empty() {
        return Ok(document);
    }
    let reason = Reason::TrailingBytes { count: rest.len() };
    Err(ParseError { offset: bytes.len() - rest.len(), reason })
}

/// Parses the value at the start of an input and returns what follows it, as in a `ut_metadata` message (BEP 9).
pub fn parse_prefix(bytes: &[u8], limits: Limits) -> Result<(Document<'_>, &[u8]), ParseError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(ParseError { offset: 0, reason: Reason::InputTooLong });
    }
    let mut parser = Parser { bytes, at: 0, tokens: Vec::new(), open: Vec::new(), limits };
    parser.step()?;
    while !parser.open.is_empty() {
        parser.step()?;
    }
    let rest = &bytes[parser.at..];
    Ok((Document { bytes, tokens: parser.tokens }, rest))
}

/// A list or dictionary whose end was not seen yet.
struct Open {
    /// Its token.
    token: u32,
    /// Of a dictionary, what comes next.
    place: Place,
    /// Of a dictionary, the token of its latest key.
    key: Option<u32>,
    /// Of a dictionary, whether its keys were in ascending order so far.
    ascending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Element,
    Key,
    Value,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    tokens: Vec<Token>,
    open: Vec<Open>,
    limits: Limits,
}

impl Parser<'_> {
    /// Reads one string or integer, or the start or end of one container.
    fn step(&mut self) -> Result<(), ParseError> {
        let expected = if self.open.is_empty() { "a value" } else { "a value or 'e'" };
        let byte = self.peek(expected)?;
        let place = self.open.last().map_or(Place::Element, |open| open.place);
        if byte == b'e' && !self.open.is_empty() {
            return self.close(place);
        }
        if self.tokens.len() == self.limits.tokens_max {
            return self.fail(Reason::TooManyTokens { max: self.limits.tokens_max });
        }
        match (place, byte) {
            (Place::Key, b'0'..=b'9' | b'-') => return self.key(),
            (Place::Key, b'i' | b'l' | b'd') => return self.fail(Reason::KeyNotString),
            (Place::Value, _) => self.set_place(Place::Key),
            _ => {}
        }
        match byte {
            b'0'..=b'9' | b'-' => self.string(),
            b'i' => self.integer(),
            b'l' => self.container(Kind::List, Place::Element),
            b'd' => self.container(Kind::Dict, Place::Key),
            got => self.fail(Reason::UnexpectedByte { got, expected }),
        }
    }

    fn key(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let token = self.tokens.len() as u32;
        self.string()?;
        let Some(open) = self.open.last() else { return Ok(()) };
        if let Some(before) = open.key.filter(|_| self.is_strict()) {
            match self.content(before).cmp(self.content(token)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    return Err(ParseError { offset: start, reason: Reason::DuplicateKey });
                }
                std::cmp::Ordering::Greater => self.set_unordered(),
            }
        }
        if let Some(open) = self.open.last_mut() {
            open.key = Some(token);
            open.place = Place::Value;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), ParseError> {
        const EXPECTED: &str = "a digit or ':'";
        let start = self.at;
        if self.peek(EXPECTED)? == b'-' {
            return self.fail(Reason::NegativeLength);
        }
        let digits = self.digits(EXPECTED)?;
        match self.peek(EXPECTED)? {
            b':' => self.at += 1,
            got => return self.fail(Reason::UnexpectedByte { got, expected: EXPECTED }),
        }
        let left = self.bytes.len() - self.at;
        let body = self.at;
        let Ok(head) = u8::try_from(body - start) else {
            return Err(ParseError { offset: start, reason: self.long_length(&digits) });
        };
        // A length too long for the type is longer than the input, too.
        match parse_number(&self.bytes[digits]).filter(|len| *len <= left) {
            Some(len) => self.at += len,
            None => return Err(ParseError { offset: start, reason: Reason::StringPastEnd { left } }),
        }
        self.push(Kind::Bytes, start, head);
        Ok(())
    }

    /// What is wrong with the length of a string that has more digits than a token counts.
    fn long_length(&self, digits: &std::ops::Range<usize>) -> Reason {
        match self.bytes[digits.start] {
            b'0' => Reason::LeadingZero,
            _ => Reason::StringPastEnd { left: self.bytes.len() - digits.end - 1 },
        }
    }

    fn integer(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let proper = self.proper_integer();
        // Behind a value that stands alone may be anything.
        let may_be_odd = !self.is_strict() && !self.open.is_empty();
        match may_be_odd.then(|| odd_integer(&self.bytes[start..])).flatten() {
            Some(len) => self.at = start + len,
            None => proper?,
        }
        self.push(Kind::Integer, start, 1);
        Ok(())
    }

    /// Passes over an integer as BEP 3 has it.
    fn proper_integer(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        let negative = self.peek("a digit or '-'")? == b'-';
        self.at += usize::from(negative);
        let digits = self.digits("a digit")?;
        if negative && self.bytes[digits.start] == b'0' {
            return Err(ParseError { offset: digits.start, reason: Reason::NegativeZero });
        }
        match self.peek("a digit or 'e'")? {
            b'e' => self.at += 1,
            got => return self.fail(Reason::UnexpectedByte { got, expected: "a digit or 'e'" }),
        }
        Ok(())
    }

    /// Passes over a run of at least one digit.
    fn digits(&mut self, expected: &'static str) -> Result<std::ops::Range<usize>, ParseError> {
        let start = self.at;
        let got = self.peek(expected)?;
        if !got.is_ascii_digit() {
            return self.fail(Reason::UnexpectedByte { got, expected });
        }
        self.at += self.bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if got == b'0' && self.at - start > 1 && self.is_strict() {
            return Err(ParseError { offset: start, reason: Reason::LeadingZero });
        }
        Ok(start..self.at)
    }

    fn container(&mut self, kind: Kind, place: Place) -> Result<(), ParseError> {
        if self.open.len() == self.limits.depth_max {
            return self.fail(Reason::TooDeep { max: self.limits.depth_max });
        }
        let token = self.tokens.len() as u32;
        self.open.push(Open { token, place, key: None, ascending: true });
        self.at += 1;
        self.push(kind, self.at - 1, 1);
        Ok(())
    }

    fn close(&mut self, place: Place) -> Result<(), ParseError> {
        if place == Place::Value {
            return self.fail(Reason::MissingValue);
        }
        let Some(open) = self.open.pop() else { return Ok(()) };
        self.at += 1;
        let next = self.tokens.len() as u32;
        let token = &mut self.tokens[open.token as usize];
        token.end = self.at as u32;
        token.next = next;
        if open.ascending { Ok(()) } else { self.check_unordered(open.token) }
    }

    /// Looks for a key that occurs twice in a dictionary that is not in order.
    fn check_unordered(&self, dict: u32) -> Result<(), ParseError> {
        let mut keys = Vec::new();
        let mut index = dict + 1;
        while index < self.tokens[dict as usize].next {
            keys.push((self.content(index), self.tokens[index as usize].start));
            let value = index + 1;
            index = self.tokens[value as usize].next;
        }
        keys.sort_unstable();
        let duplicates = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1);
        match duplicates.min() {
            None => Ok(()),
            Some(offset) => Err(ParseError { offset: offset as usize, reason: Reason::DuplicateKey }),
        }
    }

    /// Adds a token that ends where the parser is; a container's end is set when it is closed.
    fn push(&mut self, kind: Kind, start: usize, head: u8) {
        let next = self.tokens.len() as u32 + 1;
        self.tokens.push(Token { start: start as u32, end: self.at as u32, next, kind, head });
    }

    /// The content of a string token.
    fn content(&self, token: u32) -> &[u8] {
        let token = &self.tokens[token as usize];
        &self.bytes[token.start as usize + token.head as usize..token.end as usize]
    }

    fn is_strict(&self) -> bool {
        self.limits.form == Form::Strict
    }

    fn set_place(&mut self, place: Place) {
        if let Some(open) = self.open.last_mut() {
            open.place = place;
        }
    }

    fn set_unordered(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.ascending = false;
        }
    }

    fn peek(&self, expected: &'static str) -> Result<u8, ParseError> {
        let end = ParseError { offset: self.at, reason: Reason::UnexpectedEnd { expected } };
        self.bytes.get(self.at).copied().ok_or(end)
    }

    fn fail<T>(&self, reason: Reason) -> Result<T, ParseError> {
        Err(ParseError { offset: self.at, reason })
    }
}

/// The length of what stands at the start in the place of an integer: `i`, a text that looks like a number, `e`. The
/// `e` of an exponent is told from the last one by what follows it, which no other value starts with.
fn odd_integer(bytes: &[u8]) -> Option<usize> {
    let is_text = |byte: &u8| matches!(byte, b'+' | b'-' | b'.' | b' ') || byte.is_ascii_alphanumeric();
    let mut end = 1 + bytes[1..].iter().take_while(|byte| **byte != b'e' && is_text(byte)).count();
    if bytes.get(end) != Some(&b'e') {
        return None;
    }
    end += 1;
    let sign = usize::from(matches!(bytes.get(end), Some(b'+' | b'-')));
    let digits = bytes[end + sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_exponent = digits > 0 && bytes.get(end + sign + digits) == Some(&b'e');
    Some(if is_exponent { end + sign + digits + 1 } else { end })
}

fn parse_number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Limits = Limits { form: Form::Strict, ..Limits::METAINFO };

    fn error(bytes: impl AsRef<[u8]>) -> (usize, Reason) {
        let error = parse(bytes.as_ref(), STRICT).unwrap_err();
        (error.offset, error.reason)
    }

    #[test]
    fn what_others_write_is_read_where_it_has_one_meaning() {
        for (odd, number) in [
            ("i007e", Some(7)),
            ("i-007e", Some(-7)),
            ("i-0e", Some(0)),
            ("i+7e", Some(7)),
            ("i 7 e", Some(7)),
            ("i1.5e", None),
            ("i-2.6E+18e", None),
            ("i-2.6e+18e", None),
            ("i1e9e", None),
            ("i0x10e", None),
            ("inane", None),
            ("ie", None),
            ("i-e", None),
        ] {
            let whole = format!("l{odd}2:abi3ee");
            let document = parse(whole.as_bytes(), Limits::METAINFO).unwrap();
            let values: Vec<_> = document.root().as_list().unwrap().collect();
            assert_eq!(values.len(), 3, "{odd}");
            assert_eq!((values[0].kind(), values[0].as_i64()), (Kind::Integer, number), "{odd}");
            assert_eq!(values[0].raw(), odd.as_bytes());
            assert_eq!((values[1].as_str(), values[2].as_u64()), (Some("ab"), Some(3)), "{odd}");
            assert!(parse(whole.as_bytes(), STRICT).is_err(), "{odd}");
        }
        for neither in ["i", "li5", "li5:e", "i1.5e", "i\ne", "i5\0e", "i(e"] {
            assert!(parse(neither.as_bytes(), Limits::METAINFO).is_err(), "{neither}");
        }
        let zeros = |count: usize| format!("{}5:hello", "0".repeat(count));
        let document =
            parse(zeros(250).as_bytes(), Limits::METAINFO).map(|it| it.root().as_bytes().map(<[u8]>::len));
        assert_eq!(document, Ok(Some(5)));
        let error = parse(zeros(300).as_bytes(), Limits::METAINFO).unwrap_err();
        assert_eq!((error.offset, error.reason), (0, Reason::LeadingZero));
    }

    #[test]
    fn the_first_of_two_keys_counts() {
        for twice in ["d1:ai1e1:ai2e1:bi3ee", "d1:bi3e1:ai1e1:ai2ee", "d1:ai1e1:bi3e1:ai2ee"] {
            let document = parse(twice.as_bytes(), Limits::METAINFO).unwrap();
            let root = document.root();
            assert_eq!(root.raw(), twice.as_bytes());
            assert_eq!(
                (root.get("a").unwrap().as_u64(), root.get("b").unwrap().as_u64()),
                (Some(1), Some(3))
            );
        }
    }

    fn unexpected(got: u8, expected: &'static str) -> Reason {
        Reason::UnexpectedByte { got, expected }
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(error("i03e"), (1, Reason::LeadingZero));
        assert_eq!(error("i00e"), (1, Reason::LeadingZero));
        assert_eq!(error("i-03e"), (2, Reason::LeadingZero));
        assert_eq!(error("i-0e"), (2, Reason::NegativeZero));
        assert_eq!(error("05:hello"), (0, Reason::LeadingZero));
        assert_eq!(error("-5:hello"), (0, Reason::NegativeLength));
        assert_eq!(error("ie"), (1, unexpected(b'e', "a digit")));
        assert_eq!(error("i-e"), (2, unexpected(b'e', "a digit")));
        assert_eq!(error("i+1e"), (1, unexpected(b'+', "a digit")));
        assert_eq!(error("i1 e"), (2, unexpected(b' ', "a digit or 'e'")));
        assert_eq!(error("i1-1e"), (2, unexpected(b'-', "a digit or 'e'")));
        assert!(parse(b"i0e", Limits::METAINFO).is_ok() && parse(b"0:", Limits::METAINFO).is_ok());
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = b"d1:ad2:bcli-12e3:xyzee1:dlee";
        assert!(parse(whole, Limits::METAINFO).is_ok());
        for cut in 0..whole.len() {
            let (offset, reason) = error(&whole[..cut]);
            assert!(offset <= cut);
            let cut_string = matches!(reason, Reason::StringPastEnd { .. });
            assert!(cut_string || matches!(reason, Reason::UnexpectedEnd { .. }), "{cut}: {reason}");
        }
    }

    #[test]
    fn strings_end_inside_the_input() {
        assert_eq!(error("5:hell"), (0, Reason::StringPastEnd { left: 4 }));
        assert_eq!(error("l18446744073709551617:e"), (1, Reason::StringPastEnd { left: 1 }));
        assert_eq!(error(format!("{}:a", "9".repeat(300))), (0, Reason::StringPastEnd { left: 1 }));
        assert_eq!(error("5hello"), (1, unexpected(b'h', "a digit or ':'")));
    }

    #[test]
    fn dictionaries_have_each_key_once_in_any_order() {
        assert!(parse(b"d1:bi1e1:ai2ee", Limits::METAINFO).is_ok());
        assert_eq!(error("d1:ai1e1:ai2ee"), (7, Reason::DuplicateKey));
        assert_eq!(error("d1:bi1e1:ad1:xle1:yi3ee1:bi2ee"), (23, Reason::DuplicateKey));
        assert_eq!(error("di1e1:ae"), (1, Reason::KeyNotString));
        assert_eq!(error("dlei1ee"), (1, Reason::KeyNotString));
        assert_eq!(error("d1:ae"), (4, Reason::MissingValue));
        assert_eq!(error("d1:ai1ex"), (7, unexpected(b'x', "a value or 'e'")));
        assert_eq!(error("d-1:ai1ee"), (1, Reason::NegativeLength));
    }

    #[test]
    fn what_follows_the_value_is_an_error_or_is_returned() {
        assert_eq!(error("i1ei2e"), (3, Reason::TrailingBytes { count: 3 }));
        assert_eq!(error("e"), (0, unexpected(b'e', "a value")));
        let (document, rest) = parse_prefix(b"d1:ai1eerest", Limits::PEER_MESSAGE).unwrap();
        assert_eq!((document.root().raw(), rest), (&b"d1:ai1ee"[..], &b"rest"[..]));
    }

    #[test]
    fn the_limits_hold_exactly() {
        let nested = |depth: usize| format!("{}{}", "l".repeat(depth), "e".repeat(depth));
        assert!(parse(nested(100).as_bytes(), Limits::METAINFO).is_ok());
        assert_eq!(error(nested(101)), (100, Reason::TooDeep { max: 100 }));
        let limits = Limits { depth_max: 2, tokens_max: 3, form: Form::Strict };
        assert!(parse(b"d1:ai1ee", limits).is_ok());
        let too_many = ParseError { offset: 5, reason: Reason::TooManyTokens { max: 3 } };
        assert_eq!(parse(b"l0:0:i1ee", limits).unwrap_err(), too_many);
    }
}
