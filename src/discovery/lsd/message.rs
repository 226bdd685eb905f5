//! The one message of BEP 14: who shares which torrents and where he listens, in the form of an HTTP header.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::meta::hex;

/// Bytes of a datagram that is read, and written: what no network cuts into parts.
pub const MESSAGE_LEN_MAX: usize = 1400;
/// Info hashes that are read out of a message, and written to one.
pub const INFO_HASHES_MAX: usize = 20;
/// Bytes of a cookie that is kept, and written.
pub const COOKIE_LEN_MAX: usize = 64;

/// An announce to the neighbours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Search {
    /// Where the sender listens.
    pub port: NonZeroU16,
    /// The torrents that it shares, at least one.
    pub info_hashes: Vec<[u8; 20]>,
    /// What the sender knows its own messages by: visible ASCII.
    pub cookie: Option<String>,
}

impl Search {
    /// The datagram for that group. Info hashes beyond [`INFO_HASHES_MAX`] are left out, and so is a cookie that is no
    /// line of at most [`COOKIE_LEN_MAX`] visible characters.
    pub fn encode(&self, group: SocketAddr) -> Vec<u8> {
        let mut text = format!("BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {}\r\n", self.port);
        for info_hash in self.info_hashes.iter().take(INFO_HASHES_MAX) {
            text += &format!("Infohash: {}\r\n", hex(info_hash));
        }
        if let Some(cookie) = self.cookie.as_ref().filter(|cookie| is_cookie(cookie.as_bytes())) {
            text += &format!("cookie: {cookie}\r\n");
        }
        text += "\r\n\r\n";
        text.into_bytes()
    }

    /// Reads a datagram. What is no header that is known, and an info hash that is none, is passed over.
    ///
    /// # Errors
    /// [`SearchError`]: it is no announce that one could follow.
    pub fn parse(datagram: &[u8]) -> Result<Self, SearchError> {
        if datagram.len() > MESSAGE_LEN_MAX {
            return Err(SearchError::TooLong);
        }
        let mut lines = datagram.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        if !lines.next().is_some_and(is_request_line) {
            return Err(SearchError::OtherMessage);
        }
        let (mut port, mut info_hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"port") {
                let told = parse_port(value).ok_or(SearchError::Port)?;
                if port.replace(told).is_some_and(|other| other != told) {
                    return Err(SearchError::Port);
                }
            } else if name.eq_ignore_ascii_case(b"infohash") {
                info_hashes.extend(parse_info_hash(value).filter(|_| info_hashes.len() < INFO_HASHES_MAX));
            } else if name.eq_ignore_ascii_case(b"cookie") && is_cookie(value) {
                cookie = String::from_utf8(value.to_vec()).ok();
            }
        }
        let port = port.ok_or(SearchError::Port)?;
        if info_hashes.is_empty() {
            Err(SearchError::NoInfoHash)
        } else {
            Ok(Self { port, info_hashes, cookie })
        }
    }
}

/// Why a datagram is no announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SearchError {
    /// It is longer than any should be.
    TooLong,
    /// It is another message.
    OtherMessage,
    /// It names no port, one that is none, or several.
    Port,
    /// It names no torrent.
    NoInfoHash,
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "announce of more than {MESSAGE_LEN_MAX} bytes"),
            Self::OtherMessage => write!(f, "no announce, expected BT-SEARCH"),
            Self::Port => write!(f, "announce without a port, or with several"),
            Self::NoInfoHash => write!(f, "announce without an info hash"),
        }
    }
}

impl std::error::Error for SearchError {}

fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let [method, target, version] = std::array::from_fn(|_| words.next().unwrap_or_default());
    let is_version = [&b"HTTP/1.1"[..], b"HTTP/1.0"].iter().any(|known| version.eq_ignore_ascii_case(known));
    method.eq_ignore_ascii_case(b"BT-SEARCH") && target == b"*" && is_version
}

fn parse_port(digits: &[u8]) -> Option<NonZeroU16> {
    // `parse` alone would take a sign.
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn parse_info_hash(digits: &[u8]) -> Option<[u8; 20]> {
    let digits: &[u8; 40] = digits.try_into().ok()?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut info_hash = [0; 20];
    for (byte, pair) in info_hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(info_hash)
}

fn is_cookie(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= COOKIE_LEN_MAX && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "000102030405060708090a0b0c0d0e0f10111213";

    fn hash() -> [u8; 20] {
        std::array::from_fn(|at| at as u8)
    }

    fn port(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn the_text_is_that_of_bep_14() {
        let search =
            Search { port: port(6881), info_hashes: vec![hash(), [0xff; 20]], cookie: Some("me".to_owned()) };
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {HASH}\r\n\
             Infohash: {}\r\ncookie: me\r\n\r\n\r\n",
            "f".repeat(40)
        );
        assert_eq!(search.encode("239.192.152.143:6771".parse().unwrap()), expected.as_bytes());
        let v6 = search.encode("[ff15::efc0:988f]:6771".parse().unwrap());
        assert!(v6.starts_with(b"BT-SEARCH * HTTP/1.1\r\nHost: [ff15::efc0:988f]:6771\r\n"));
    }

    #[test]
    fn what_others_write_is_read() {
        let upper = HASH.to_uppercase();
        for text in [
            format!("BT-SEARCH * HTTP/1.1\r\nHost: x\r\nPort: 7\r\nInfohash: {HASH}\r\n\r\n\r\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {upper}\r\nPort: 7\r\n\r\n"),
            format!("bt-search  *  http/1.0\nPORT:7\nINFOHASH:{HASH}"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 7\r\nPort: 7\r\nInfohash: {HASH}\r\nX-New: y\r\n\r\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 7\r\nInfohash: 12\r\nInfohash: {HASH}\r\nrubbish\r\n\r\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 7\r\nInfohash: {HASH}\r\n\r\nPort: 8\r\n"),
        ] {
            let expected = Search { port: port(7), info_hashes: vec![hash()], cookie: None };
            assert_eq!(Search::parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_announce_is_refused() {
        let line = "BT-SEARCH * HTTP/1.1\r\n";
        let long = format!("{line}Port: 7\r\nInfohash: {HASH}\r\nX: {}", "x".repeat(MESSAGE_LEN_MAX));
        let cases = [
            (String::new(), SearchError::OtherMessage),
            ("M-SEARCH * HTTP/1.1\r\n\r\n".to_owned(), SearchError::OtherMessage),
            ("BT-SEARCH / HTTP/1.1\r\n\r\n".to_owned(), SearchError::OtherMessage),
            (line.to_owned(), SearchError::Port),
            (format!("{line}Port: 0\r\nInfohash: {HASH}\r\n"), SearchError::Port),
            (format!("{line}Port: +7\r\nInfohash: {HASH}\r\n"), SearchError::Port),
            (format!("{line}Port: 65536\r\nInfohash: {HASH}\r\n"), SearchError::Port),
            (format!("{line}Port: 7\r\nPort: 8\r\nInfohash: {HASH}\r\n"), SearchError::Port),
            (format!("{line}Port: 7\r\nInfohash: {HASH}0\r\n"), SearchError::NoInfoHash),
            (format!("{line}Port: 7\r\n\r\nInfohash: {HASH}\r\n"), SearchError::NoInfoHash),
            (long, SearchError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(Search::parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    #[test]
    fn what_would_break_the_message_is_left_out() {
        let group = "239.192.152.143:6771".parse().unwrap();
        let mut search = Search { port: port(65535), info_hashes: vec![hash(); 99], cookie: None };
        for cookie in ["a\r\nPort: 1", "", &"x".repeat(COOKIE_LEN_MAX + 1)] {
            search.cookie = Some(cookie.to_owned());
            let read = Search::parse(&search.encode(group)).unwrap();
            assert_eq!((read.info_hashes.len(), read.cookie), (INFO_HASHES_MAX, None));
        }
        search.cookie = Some("x".repeat(COOKIE_LEN_MAX));
        assert!(search.encode("[ff15::efc0:988f]:6771".parse().unwrap()).len() <= MESSAGE_LEN_MAX);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(
            number in 1u16..,
            info_hashes in proptest::collection::vec(any::<[u8; 20]>(), 1..=INFO_HASHES_MAX),
            cookie in proptest::option::of("[!-~]{1,64}"),
        ) {
            let search = Search { port: port(number), info_hashes, cookie };
            let group = "[ff15::efc0:988f]:6771".parse().unwrap();
            prop_assert_eq!(Search::parse(&search.encode(group)), Ok(search));
        }

        #[test]
        fn anything_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let mut message = b"BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: ".to_vec();
            message.extend(&bytes);
            for datagram in [&bytes, &message] {
                if let Ok(search) = Search::parse(datagram) {
                    prop_assert!((1..=INFO_HASHES_MAX).contains(&search.info_hashes.len()));
                }
            }
        }
    }
}
