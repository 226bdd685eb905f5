//! The bytes of an HTTP/1 answer: its head and how its body is framed (RFC 9112). Pure.
//!
//! Heads are read liberally, as clients that are in use everywhere do, and bounded.

use super::HEAD_LEN_MAX;
use crate::meta::inflate::is_packed;

/// Bytes of the longest line in front of a chunk.
const CHUNK_LINE_LEN_MAX: usize = 1024;

/// What is no HTTP, and why.
pub(super) type Malformed = &'static str;

/// The head of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) reason: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Whether it says to look elsewhere.
    pub(super) const fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// The value of the first header of that name, without white space around it.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The final head with its length, once all of it is there. Heads of status 1xx before it are skipped.
pub(super) fn read_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut start = 0;
    loop {
        let Some(len) = head_len(&bytes[start..]) else {
            let begin = &bytes[start..bytes.len().min(start + MAGIC.len())];
            return match begin {
                begin if !MAGIC.starts_with(begin) => Err("it has no status line"),
                _ if bytes.len() > HEAD_LEN_MAX => Err(TOO_LONG),
                _ => Ok(None),
            };
        };
        let end = start + len;
        if end > HEAD_LEN_MAX {
            return Err(TOO_LONG);
        }
        let head = parse_head(&bytes[start..end])?;
        // 101 is no answer to what was asked, but it is the last one.
        if !(100..200).contains(&head.status) || head.status == 101 {
            return Ok(Some((head, end)));
        }
        start = end;
    }
}

const MAGIC: &[u8] = b"HTTP/";
const TOO_LONG: Malformed = "its head is too long";

/// Bytes up to the end of the first empty line.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let mut line_at = 0;
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
        if matches!(&bytes[line_at..at], b"" | b"\r") {
            return Some(at + 1);
        }
        line_at = at + 1;
    }
    None
}

fn parse_head(bytes: &[u8]) -> Result<Head, Malformed> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|digits| digits.len() == 3).and_then(|digits| digits.parse().ok());
    let Some(status) = status.filter(|_| version.as_bytes().starts_with(MAGIC)) else {
        return Err("it has no status line");
    };
    let reason = words.next().unwrap_or_default().trim().to_owned();
    let header = |line: &str| {
        line.split_once(':').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(Head { status, reason, headers: lines.filter_map(header).collect() })
}

/// Where a body ends.
#[derive(Debug)]
enum Framing {
    ToEnd,
    Len(usize),
    Chunks(Chunks),
}

/// A body that comes in.
#[derive(Debug)]
pub(super) struct Body {
    framing: Framing,
    len_max: usize,
    pub(super) bytes: Vec<u8>,
}

/// Why a body is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyError {
    TooLarge,
    Malformed(Malformed),
}

impl Body {
    /// The body that this head announces, of at most `len_max` bytes.
    pub(super) fn new(head: &Head, len_max: usize) -> Result<Self, BodyError> {
        let is_chunked = head
            .header("transfer-encoding")
            .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
        let framing = match head.header("content-length") {
            _ if is_chunked => Framing::Chunks(Chunks::default()),
            _ if matches!(head.status, 101 | 204 | 304) => Framing::Len(0),
            None => Framing::ToEnd,
            Some(digits) => {
                // Some say it twice in one line.
                let digits = digits.split(',').next().unwrap_or_default().trim();
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(BodyError::Malformed("its length is no number"));
                }
                // One that does not fit in the type is larger than any limit, and so is what says so only if it comes.
                Framing::Len(digits.parse().unwrap_or(usize::MAX))
            }
        };
        Ok(Self { framing, len_max, bytes: Vec::new() })
    }

    /// Takes in what came. Returns whether it is all there.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, BodyError> {
        if let Framing::Chunks(chunks) = &mut self.framing {
            match chunks.feed(bytes, &mut self.bytes, self.len_max) {
                // A server that says chunks and sends none: what it sends may be right all the same.
                Err(BodyError::Malformed(_)) if chunks.is_untouched() && looks_like_content(&chunks.line) => {
                    self.bytes = std::mem::take(&mut chunks.line);
                    self.bytes.extend_from_slice(bytes.get(chunks.taken..).unwrap_or_default());
                    self.framing = Framing::ToEnd;
                }
                fed => return fed,
            }
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        if self.bytes.len() > self.len_max {
            return Err(BodyError::TooLarge);
        }
        Ok(matches!(self.framing, Framing::Len(len) if self.bytes.len() >= len))
    }
}

/// Whether these are the first bytes of a dictionary, or of something that is packed.
fn looks_like_content(bytes: &[u8]) -> bool {
    bytes.starts_with(b"d") || is_packed(bytes)
}

/// Chunks on their way to being a body.
#[derive(Debug, Default)]
struct Chunks {
    state: ChunkState,
    /// The bytes of the line that is being read.
    line: Vec<u8>,
    /// Bytes of the last call up to the end of what is in `line`.
    taken: usize,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data {
        left: usize,
    },
    /// The line break behind the data.
    After,
    /// The last chunk was there. What follows are headers, of which none is of use.
    End,
}

impl Chunks {
    const fn is_untouched(&self) -> bool {
        self.count == 0
    }

    fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>, len_max: usize) -> Result<bool, BodyError> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != ChunkState::End {
            if let ChunkState::Data { left } = self.state {
                let (data, tail) = rest.split_at(left.min(rest.len()));
                body.extend_from_slice(data);
                rest = tail;
                let left = left - data.len();
                self.state = if left == 0 { ChunkState::After } else { ChunkState::Data { left } };
                continue;
            }
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, tail) = rest.split_at(end);
            self.line.extend_from_slice(line);
            rest = tail;
            self.taken = bytes.len() - rest.len();
            if self.line.len() > CHUNK_LINE_LEN_MAX {
                return Err(BodyError::Malformed("the size of a chunk has no end"));
            }
            if !self.line.ends_with(b"\n") {
                if self.state == ChunkState::Size && !may_be_size(&self.line) {
                    return Err(BodyError::Malformed(NO_SIZE));
                }
                break;
            }
            if self.state == ChunkState::After {
                if !self.line.trim_ascii().is_empty() {
                    return Err(BodyError::Malformed("a chunk is longer than it says"));
                }
                self.state = ChunkState::Size;
            } else {
                let left = chunk_size(&self.line).ok_or(BodyError::Malformed(NO_SIZE))?;
                if left > len_max - body.len() {
                    return Err(BodyError::TooLarge);
                }
                self.count += 1;
                self.state = if left == 0 { ChunkState::End } else { ChunkState::Data { left } };
            }
            self.line.clear();
        }
        Ok(self.state == ChunkState::End)
    }
}

const NO_SIZE: Malformed = "the size of a chunk is no number";

/// Whether a line may still become the size of a chunk.
fn may_be_size(begun: &[u8]) -> bool {
    let digits = begun.split(|&byte| byte == b';').next().unwrap_or_default();
    digits.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
}

/// The number in front of a chunk. One that does not fit in the type is larger than any limit.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_number.then(|| usize::from_str_radix(&String::from_utf8_lossy(digits), 16).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        read_head(text.as_bytes()).unwrap().unwrap().0
    }

    /// The body that comes in those parts, and whether it is known to be all.
    fn body(headers: &str, parts: &[&[u8]]) -> Result<(Vec<u8>, bool), BodyError> {
        let head = head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"));
        let mut body = Body::new(&head, 100)?;
        let mut is_whole = false;
        for part in parts {
            is_whole |= body.feed(part)?;
        }
        Ok((body.bytes, is_whole))
    }

    #[test]
    fn heads_are_read_in_every_usual_form() {
        let text = "HTTP/1.1 200 All right\r\nA: 1\r\nb:2 \r\n\r\nbody";
        let (head, len) = read_head(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.status, head.reason.as_str(), &text[len..]), (200, "All right", "body"));
        assert_eq!((head.header("a"), head.header("B"), head.header("c")), (Some("1"), Some("2"), None));
        let bare = read_head(b"HTTP/1.0 404\nX: y\n\n").unwrap().unwrap().0;
        assert_eq!((bare.status, bare.reason.as_str(), bare.header("x")), (404, "", Some("y")));
        let after = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\nHTTP/1.1 301 y\r\n\r\n";
        assert_eq!(read_head(after).unwrap().unwrap().0.status, 301);
        for len in 0..text.len() - 4 {
            assert_eq!(read_head(&text.as_bytes()[..len]), Ok(None), "{len}");
        }
    }

    #[test]
    fn what_is_no_head_is_told_at_once_and_in_any_case_at_the_limit() {
        for text in ["garbage", "<html>", "\n", "HTTX", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(read_head(text.as_bytes()).is_err(), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_LEN_MAX));
        assert_eq!(read_head(long.as_bytes()), Err(TOO_LONG));
        assert_eq!(read_head(format!("{long}\r\n\r\n").as_bytes()), Err(TOO_LONG));
        assert_eq!(read_head("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000).as_bytes()), Err(TOO_LONG));
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        assert_eq!(body("", &[b"ab", b"c"]), Ok((b"abc".to_vec(), false)));
        assert_eq!(body("Content-Length: 3\r\n", &[b"ab", b"c"]), Ok((b"abc".to_vec(), true)));
        assert_eq!(body("Content-Length: 3, 3\r\n", &[b"ab"]), Ok((b"ab".to_vec(), false)));
        let parts: &[&[u8]] = &[b"2;x=y\r", b"\nab\r\n0", b"01\r\nc\r\n0\r\n", b"Trailer: x\r\n\r\n"];
        assert_eq!(body("Transfer-Encoding: gzip, Chunked\r\n", &parts[..3]), Ok((b"abc".to_vec(), true)));
        assert_eq!(body("Transfer-Encoding: chunked\r\n", parts), Ok((b"abc".to_vec(), true)));
        assert_eq!(body("Transfer-Encoding: chunked\nContent-Length: 1\r\n", &parts[..3]).unwrap().0, b"abc");
    }

    #[test]
    fn chunks_that_are_none_are_taken_as_they_are_where_they_look_like_content() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(body(chunked, &[b"d", b"8:int", b"erval\ni1ee"]).unwrap().0, b"d8:interval\ni1ee");
        assert_eq!(body(chunked, &[b"\x1f\x8b\n", b"z"]).unwrap().0, b"\x1f\x8b\nz");
        assert!(matches!(body(chunked, &[b"zzz\r\n"]), Err(BodyError::Malformed(_))));
        assert!(matches!(body(chunked, &[b"1\r\nabc\r\n"]), Err(BodyError::Malformed(_))));
        assert!(matches!(body(chunked, &[&[b'1'; 2000]]), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn bodies_have_a_limit_whatever_they_say() {
        assert_eq!(body("", &[&[0; 100]]).unwrap().0.len(), 100);
        for headers in ["", "Content-Length: 101\r\n", "Content-Length: 99999999999999999999\r\n"] {
            assert_eq!(body(headers, &[&[0; 99], &[0; 2]]), Err(BodyError::TooLarge));
        }
        for size in ["65", "8000000000000000", "ffffffffffffffffffff"] {
            let chunk = format!("{size}\r\n");
            assert_eq!(body("Transfer-Encoding: chunked\r\n", &[chunk.as_bytes()]), Err(BodyError::TooLarge));
        }
        assert!(matches!(body("Content-Length: -1\r\n", &[]), Err(BodyError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn a_body_in_chunks_is_the_same_however_it_comes(
            text in proptest::collection::vec(any::<u8>(), 0..90),
            size in 1_usize..20,
            step in 1_usize..20,
        ) {
            let mut sent = Vec::new();
            for chunk in text.chunks(size) {
                sent.extend(format!("{:x}\r\n", chunk.len()).bytes());
                sent.extend_from_slice(chunk);
                sent.extend(b"\r\n");
            }
            sent.extend(b"0\r\n\r\n");
            let parts: Vec<&[u8]> = sent.chunks(step).collect();
            prop_assert_eq!(body("Transfer-Encoding: chunked\r\n", &parts), Ok((text, true)));
        }

        #[test]
        fn garbage_is_an_error_or_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..300), chunked: bool) {
            let _ = read_head(&bytes);
            let headers = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
            if let Ok((body, _)) = body(headers, &[&bytes]) {
                prop_assert!(body.len() <= 100);
            }
        }
    }
}
