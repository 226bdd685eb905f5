//! Magnet links (BEP 9): the name of a torrent, and where to look for peers that have it.
//!
//! A link comes from a stranger, so it is taken apart with limits and without trust in what is in it: texts that act
//! on a terminal are kept out, URLs that cannot be asked are left out. What is not understood is skipped, except for
//! that which decides what is downloaded: the info hash and the choice of files.
//!
//! Links come through pages, mails, shells and clipboards, which leave marks on them: [`is_magnet`] and
//! [`Magnet::parse`] look through quotes and brackets around a link, line breaks in it, the character references of
//! HTML and percent-encoding of the whole. An info hash alone is a link without trackers.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::names;
use super::torrent::{InfoHash, TRACKERS_MAX, clean_url};

/// Bytes of a link.
pub const LINK_LEN_MAX: usize = 64 * 1024;
/// Addresses of peers that are kept.
pub const PEERS_MAX: usize = 256;
/// Web seeds that are kept.
pub const WEB_SEEDS_MAX: usize = 64;
/// Bytes of the name of a host, as in DNS.
pub const HOST_LEN_MAX: usize = 253;

/// Bytes of a link that an error repeats.
const SHOWN_MAX: usize = 24;

/// What a link says. Each tracker, peer and web seed is there once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Magnet {
    /// The torrent: the first `xt=urn:btih:` of the link.
    pub info_hash: InfoHash,
    /// The suggested name (`dn`) as an element of a path, see [`names::element`].
    pub name: Option<String>,
    /// The trackers (`tr`) in their order, at most [`TRACKERS_MAX`].
    pub trackers: Vec<String>,
    /// The peers (`x.pe`) in their order, at most [`PEERS_MAX`].
    pub peers: Vec<PeerAddr>,
    /// The web seeds (`ws`) in their order, at most [`WEB_SEEDS_MAX`].
    pub web_seeds: Vec<String>,
    /// The files to download (`so`, BEP 53) by their places in the torrent: ascending ranges with gaps in between.
    /// Without any, all files are meant.
    pub select: Vec<RangeInclusive<u64>>,
}

/// Where a peer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerAddr {
    /// An IP address.
    Ip(SocketAddr),
    /// A host that a resolver may know: ASCII letters, digits, `-`, `_` and dots.
    Host {
        /// Its name.
        name: String,
        /// The port, not 0.
        port: u16,
    },
}

impl PeerAddr {
    /// Reads `ip:port`, `[ipv6]:port` or `host:port`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return (addr.port() != 0).then_some(Self::Ip(addr));
        }
        let (name, port) = text.rsplit_once(':')?;
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| is_port && port != 0)?;
        if let Ok(ip) = name.parse::<Ipv6Addr>() {
            return Some(Self::Ip((ip, port).into()));
        }
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        // What ends in a number is an IPv4 address that went wrong.
        let is_named = name.bytes().next_back().is_some_and(|byte| !byte.is_ascii_digit());
        let fits = is_named && name.len() <= HOST_LEN_MAX && !name.starts_with(['.', '-']);
        (fits && name.bytes().all(is_host)).then(|| Self::Host { name: name.to_owned(), port })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// Why a text is not a link to a torrent that can be downloaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MagnetError {
    /// It is longer than [`LINK_LEN_MAX`].
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It does not begin with `magnet:?`, and is no info hash.
    NotAMagnet {
        /// How it begins, fit for a terminal.
        got: String,
    },
    /// It names no torrent: it has no `xt=urn:btih:`.
    NoInfoHash,
    /// It names a torrent of BitTorrent v2 (BEP 52) alone.
    V2Only,
    /// The info hash has neither 40 digits of base 16 nor 32 of base 32.
    HashLen {
        /// Its characters.
        got: usize,
    },
    /// The info hash has a character that is no digit.
    HashDigit {
        /// The character.
        got: char,
        /// Its place in the info hash, from 0.
        at: usize,
        /// The base: 16 or 32.
        base: u8,
    },
    /// A choice of files (`so`) is not a list of numbers and ranges.
    Select {
        /// The part that is neither, fit for a terminal.
        got: String,
    },
}

impl fmt::Display for MagnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "{len} bytes, at most {LINK_LEN_MAX} are read"),
            Self::NotAMagnet { got } => write!(f, "it begins with '{got}', expected 'magnet:?'"),
            Self::NoInfoHash => f.write_str(
                "it names no torrent: 'xt=urn:btih:' and the info hash are missing; copy the whole link, in quotes",
            ),
            Self::V2Only => {
                f.write_str("BitTorrent v2 only: it has no 'xt=urn:btih:' (v1), 'urn:btmh:' is not supported")
            }
            Self::HashLen { got } => {
                write!(f, "the info hash behind 'xt=urn:btih:' has {got} characters, expected 40 or 32")
            }
            Self::HashDigit { got, at, base } => write!(
                f,
                "character {at} of the info hash is '{}', expected a digit of base {base}",
                got.escape_default()
            ),
            Self::Select { got } => {
                write!(f, "'so' has '{got}', expected numbers of files and ranges as in 'so=0,2,4-6'")
            }
        }
    }
}

impl std::error::Error for MagnetError {}

/// Whether a text means to be a magnet link, rather than the path of a file. An info hash alone, for which
/// [`is_info_hash`] asks, could be either.
pub fn is_magnet(text: &str) -> bool {
    text.len() <= LINK_LEN_MAX && query(&plain(text)).is_some() || is_info_hash(text)
}

/// Whether a text is an info hash and nothing else: 40 digits of base 16 or 32 of base 32, maybe behind `urn:btih:`.
pub fn is_info_hash(text: &str) -> bool {
    text.len() <= LINK_LEN_MAX && info_hash(topic(&plain(text))).is_ok()
}

impl Magnet {
    /// The trackers, each in a tier of its own: a link says nothing of tiers.
    pub fn tiers(&self) -> Vec<Vec<String>> {
        self.trackers.iter().map(|tracker| vec![tracker.clone()]).collect()
    }

    /// Reads a link, or an info hash alone. Names of parameters may have any case and a number behind a dot (`tr.1`);
    /// those that are not known are skipped. A link has no fragment: `#` is a character like others.
    ///
    /// # Errors
    /// Where it does not say which torrent, or which files of it, or is too long.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        let link = link.trim();
        if link.len() > LINK_LEN_MAX {
            return Err(MagnetError::TooLong { len: link.len() });
        }
        let link = plain(link);
        let mut found = Found::default();
        if let Some(query) = query(&link) {
            for parameter in query.split('&') {
                let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                found.take(&stem(&percent_decode(key.as_bytes())), value)?;
            }
        } else {
            let hash = info_hash(topic(&link));
            found.info_hash = Some(hash.map_err(|_| not_a_magnet(&link))?);
        }
        found.finish()
    }
}

/// The parameters of a link: what follows `magnet:` and the slashes and the question mark behind it, of which there
/// may be any.
fn query(link: &str) -> Option<&str> {
    let rest = strip_prefix(link, "magnet:")?.trim_start_matches('/');
    Some(rest.strip_prefix('?').unwrap_or(rest))
}

/// An info hash without what says that it is one.
fn topic(text: &str) -> &str {
    ["urn:btih:", "btih:"].into_iter().find_map(|prefix| strip_prefix(text, prefix)).unwrap_or(text)
}

/// A link without the marks of the way it came.
fn plain(text: &str) -> Cow<'_, str> {
    let mut link = Cow::Borrowed(bare(text));
    if link.contains(['\r', '\n', '\t']) {
        link = link.replace(['\r', '\n', '\t'], "").into();
    }
    for _ in 0..WRAPPINGS_MAX {
        if is_encoded(&link) {
            let decoded = percent_decode(link.as_bytes());
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            link = bare(&decoded).to_owned().into();
        }
        if link.contains('&') {
            link = dereference(&link).into();
        }
    }
    link
}

/// How often a link is unwrapped: each program on its way may have encoded what it got.
const WRAPPINGS_MAX: usize = 3;

/// A text without white space, and without quotes and brackets that are around it or were left at its end.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(inner) = BRACKETS.iter().find_map(|(open, close)| {
        let inner = text.strip_prefix(*open)?;
        Some(inner.strip_suffix(*close).unwrap_or(inner).trim())
    }) {
        text = inner;
    }
    // None of these stands in a link as it is.
    text.trim_end_matches(['"', '<', '>', '`']).trim()
}

/// What stands around links in texts.
const BRACKETS: [(char, char); 8] = [
    ('<', '>'),
    ('(', ')'),
    ('[', ']'),
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{201c}', '\u{201d}'),
    ('\u{feff}', '\u{feff}'),
];

/// Whether a link is percent-encoded as a whole, so that it does not begin as one or none of its parameters has a
/// value.
fn is_encoded(link: &str) -> bool {
    let Some(rest) = strip_prefix(link, "magnet") else { return strip_prefix(link, "urn%").is_some() };
    match rest.strip_prefix(':') {
        None => rest.starts_with('%'),
        Some(rest) => !rest.contains('=') && rest.contains("%3"),
    }
}

/// A text with the characters that references of HTML stand for, as in a link that was copied out of a page's source.
fn dereference(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(';').and_then(|(name, rest)| Some((referred(name)?, rest))) {
            Some((char, rest)) => {
                plain.push(char);
                plain.push_str(rest);
            }
            None => {
                plain.push('&');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The character of a reference, given its name.
fn referred(name: &str) -> Option<char> {
    let number = |digits: &str, radix| char::from_u32(u32::from_str_radix(digits, radix).ok()?);
    match name.strip_prefix('#') {
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => number(digits, 16),
            None => number(digits, 10),
        },
        None => match name {
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "nbsp" => Some(' '),
            _ => None,
        },
    }
}

/// What was found of a link so far.
#[derive(Default)]
struct Found {
    info_hash: Option<InfoHash>,
    /// What was wrong with the first info hash that is none.
    wrong_hash: Option<MagnetError>,
    has_v2: bool,
    name: Option<String>,
    trackers: Vec<String>,
    peers: Vec<PeerAddr>,
    web_seeds: Vec<String>,
    select: Vec<RangeInclusive<u64>>,
}

impl Found {
    fn take(&mut self, key: &str, value: &str) -> Result<(), MagnetError> {
        match key {
            "xt" => self.take_topic(value),
            "dn" if self.name.is_none() => {
                // A space is written as a plus here. URLs have no spaces, so there a plus is a plus.
                self.name = names::element(&percent_decode(value.replace('+', " ").as_bytes()));
            }
            "tr" => add(&mut self.trackers, url(value), TRACKERS_MAX),
            "ws" => add(&mut self.web_seeds, url(value), WEB_SEEDS_MAX),
            "x.pe" => {
                let peer = percent_decode(value.as_bytes());
                let peer = str::from_utf8(&peer).ok().and_then(|text| PeerAddr::parse(text.trim()));
                add(&mut self.peers, peer, PEERS_MAX);
            }
            "so" => {
                let value = percent_decode(value.as_bytes());
                for part in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    if !part.is_empty() {
                        let range = range(part).ok_or_else(|| MagnetError::Select { got: shown(part) })?;
                        self.select.push(range);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_topic(&mut self, value: &str) {
        let value = percent_decode(value.as_bytes());
        let value = String::from_utf8_lossy(&value);
        let value = value.trim();
        self.has_v2 |= strip_prefix(value, "urn:btmh:").is_some();
        let digits = topic(value);
        let is_named = digits.len() < value.len();
        match info_hash(whole_hash(digits)) {
            // Without a name it may be anything else.
            Err(_) if !is_named => {}
            Ok(hash) => self.info_hash = self.info_hash.or(Some(hash)),
            Err(error) => self.wrong_hash = self.wrong_hash.take().or(Some(error)),
        }
    }

    fn finish(self) -> Result<Magnet, MagnetError> {
        let info_hash = match (self.info_hash, self.wrong_hash, self.has_v2) {
            (Some(hash), ..) => hash,
            (None, Some(error), _) => return Err(error),
            (None, None, true) => return Err(MagnetError::V2Only),
            (None, None, false) => return Err(MagnetError::NoInfoHash),
        };
        Ok(Magnet {
            info_hash,
            name: self.name,
            trackers: self.trackers,
            peers: self.peers,
            web_seeds: self.web_seeds,
            select: merged(self.select),
        })
    }
}

/// Adds what is not there yet, if there is room.
fn add<T: PartialEq>(list: &mut Vec<T>, item: Option<T>, max: usize) {
    if let Some(item) = item
        && list.len() < max
        && !list.contains(&item)
    {
        list.push(item);
    }
}

fn not_a_magnet(link: &str) -> MagnetError {
    MagnetError::NotAMagnet { got: shown(link.as_bytes()) }
}

/// The start of a text, fit for a terminal.
fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(SHOWN_MAX)];
    let dots = if start.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", start.escape_ascii())
}

/// The name of a parameter in lower case, without the number behind it: `tr.1` is `tr`.
fn stem(key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key).trim().to_ascii_lowercase();
    match key.rsplit_once('.') {
        Some((stem, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => stem.to_owned(),
        _ => key,
    }
}

fn url(value: &str) -> Option<String> {
    let value = percent_decode(value.as_bytes());
    clean_url(str::from_utf8(&value).ok()?)
}

/// The info hash at the start of a text, if something is behind it that is no part of one.
fn whole_hash(text: &str) -> &str {
    let len = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    if matches!(len, 32 | 40) { &text[..len] } else { text }
}

/// Reads the digits of an info hash, in any case.
fn info_hash(digits: &str) -> Result<InfoHash, MagnetError> {
    let (base, bits): (u8, u32) = match digits.chars().count() {
        40 => (16, 4),
        32 => (32, 5),
        got => return Err(MagnetError::HashLen { got }),
    };
    let mut hash = [0; 20];
    let mut bytes = hash.iter_mut();
    let (mut pending, mut count) = (0u32, 0);
    for (at, got) in digits.chars().enumerate() {
        let digit = digit(got, base).ok_or(MagnetError::HashDigit { got, at, base })?;
        pending = pending << bits | digit;
        count += bits;
        if count >= 8
            && let Some(byte) = bytes.next()
        {
            count -= 8;
            *byte = (pending >> count) as u8;
            pending &= (1 << count) - 1;
        }
    }
    Ok(InfoHash(hash))
}

/// The value of a digit of base 16, or of base 32 (RFC 4648).
fn digit(char: char, base: u8) -> Option<u32> {
    match (base, char.to_ascii_lowercase()) {
        (16, _) => char.to_digit(16),
        (_, letter @ 'a'..='z') => Some(u32::from(letter) - u32::from('a')),
        (_, number @ '2'..='7') => Some(u32::from(number) - u32::from('2') + 26),
        _ => None,
    }
}

/// A number, or two with a dash in between that do not descend.
fn range(text: &[u8]) -> Option<RangeInclusive<u64>> {
    let text = str::from_utf8(text).ok()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| -> Option<u64> {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok())?
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// The same numbers in ascending ranges with gaps in between.
fn merged(mut ranges: Vec<RangeInclusive<u64>>) -> Vec<RangeInclusive<u64>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What follows a prefix, whatever its case.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// The bytes that `%XX` stands for; a percent sign without two digits behind it stands for itself.
pub fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match tail {
            [high, low, behind @ ..] if *first == b'%' => hex_byte(*high, *low).inspect(|_| rest = behind),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
    }
    bytes.into()
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "ad42ce8109f54c99613ce38f9b4d87e70f24a165";
    const BASE32: &str = "VVBM5AIJ6VGJSYJ44OHZWTMH44HSJILF";

    fn with(rest: &str) -> Magnet {
        Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}{rest}")).unwrap()
    }

    #[test]
    fn the_link_of_the_course_is_read() {
        let magnet =
            with("&dn=magnet1.gif&tr=http%3A%2F%2Fbittorrent-test-tracker.codecrafters.io%2Fannounce");
        assert_eq!(magnet.info_hash.to_string(), HEX);
        assert_eq!(magnet.name.as_deref(), Some("magnet1.gif"));
        assert_eq!(magnet.trackers, ["http://bittorrent-test-tracker.codecrafters.io/announce"]);
        assert!(magnet.peers.is_empty() && magnet.web_seeds.is_empty() && magnet.select.is_empty());
    }

    #[test]
    fn the_hash_has_many_forms() {
        for link in [
            format!("magnet:?xt=urn:btih:{}", HEX.to_uppercase()),
            format!("MAGNET:?XT=URN:BTIH:{BASE32}"),
            format!("magnet:?xt=urn:btih:{}", BASE32.to_lowercase()),
            format!(" magnet:?dn=x&xt.1=urn%3Abtih%3A{HEX}\n"),
            format!("magnet:?xt=urn:btmh:1220{}&amp;xt=urn:btih:{HEX}", "00".repeat(32)),
            format!(
                "magnet:?xt=urn:sha1:{BASE32}&xt=urn:btih:12&xt=urn:btih:{HEX}&xt=urn:btih:{}",
                "0".repeat(40)
            ),
        ] {
            assert_eq!(Magnet::parse(&link).unwrap().info_hash.to_string(), HEX, "{link}");
        }
    }

    #[test]
    fn what_names_no_torrent_is_refused() {
        let not_a_magnet = |got: &str| MagnetError::NotAMagnet { got: got.to_owned() };
        let digit = |got, at, base| MagnetError::HashDigit { got, at, base };
        for (link, error) in [
            (String::new(), not_a_magnet("")),
            ("magnet%20.torrent".to_owned(), not_a_magnet("magnet .torrent")),
            ("debian\x1b[31m.torrent".to_owned(), not_a_magnet("debian\\x1b[31m.torrent")),
            ("magnet:?".to_owned(), MagnetError::NoInfoHash),
            (format!("magnet:?dn=x&btih={HEX}"), MagnetError::NoInfoHash),
            (format!("magnet:?xt=urn:btmh:1220{}", "00".repeat(32)), MagnetError::V2Only),
            ("magnet:?xt=urn:btih:".to_owned(), MagnetError::HashLen { got: 0 }),
            (format!("magnet:?xt=urn:btih:{HEX}0"), MagnetError::HashLen { got: 41 }),
            (format!("magnet:?xt=urn:btih:{}g", &HEX[1..]), digit('g', 39, 16)),
            (format!("magnet:?xt=urn:btih:1{}", &BASE32[1..]), digit('1', 0, 32)),
            (format!("magnet:?xt=urn:btih:{}é", &BASE32[1..]), digit('é', 31, 32)),
            (format!("magnet:?{}", "a".repeat(LINK_LEN_MAX)), MagnetError::TooLong { len: LINK_LEN_MAX + 8 }),
        ] {
            assert_eq!(Magnet::parse(&link), Err(error), "{link}");
        }
    }

    #[test]
    fn texts_are_fit_for_a_terminal_and_for_a_file_system() {
        for (value, name) in [
            ("a+b%20c.iso", Some("a b c.iso")),
            ("..%2F..%2Fetc", Some(".._.._etc")),
            ("%1b[31m%0a", Some("_[31m_")),
            ("caf%c3%a9%ff", Some("café_")),
            ("100%", Some("100%")),
            ("%4", Some("%4")),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(with(&format!("&dn={value}")).name.as_deref(), name, "{value}");
        }
        let trackers =
            "&tr=http://a/x?y=1+2&tr.1=udp://b:1&TR.2=http%3A%2F%2Fa%2Fx%3Fy%3D1%2B2&tr=&tr=a%0ab&tr=%ff";
        assert_eq!(with(trackers).trackers, ["http://a/x?y=1+2", "udp://b:1"]);
        assert_eq!(with("&ws=http://w/&ws=http://w/#ws=x").web_seeds, ["http://w/", "http://w/#ws=x"]);
    }

    #[test]
    fn peers_are_addresses_or_names() {
        let magnet = with(
            "&x.pe=1.2.3.4:5&x.pe=%5B::1%5D:6&x.pe=[2001:db8::1]:7&x.pe.1=seed.example:8&x.pe=1.2.3.4:0&x.pe=h\
             &x.pe=:9&x.pe=1.2.3:9&x.pe=h:+9&x.pe=a%20b:9&x.pe=h:65536",
        );
        let told: Vec<String> = magnet.peers.iter().map(PeerAddr::to_string).collect();
        assert_eq!(told, ["1.2.3.4:5", "[::1]:6", "[2001:db8::1]:7", "seed.example:8"]);
        assert!(matches!(magnet.peers[3], PeerAddr::Host { .. }));
    }

    #[test]
    fn files_are_ranges() {
        assert_eq!(with("&so=0,2,4,6-8").select, [0..=0, 2..=2, 4..=4, 6..=8]);
        assert_eq!(with("&so=6-8%2C4,5&so=0-1,1-3").select, [0..=8]);
        assert_eq!(with("&so=").select, []);
        for part in ["x", "-", "1-", "-1", "3-2", "+1", "99999999999999999999"] {
            let link = format!("magnet:?xt=urn:btih:{HEX}&so=1,{part}");
            assert_eq!(Magnet::parse(&link), Err(MagnetError::Select { got: part.to_owned() }));
        }
    }

    #[test]
    fn lists_have_an_end() {
        let many: String =
            (0..400).map(|n| format!("&tr=http://{n}/&ws=http://{n}/&x.pe=1.2.3.4:{}", n + 1)).collect();
        let magnet = with(&many);
        assert_eq!(magnet.trackers.len(), TRACKERS_MAX);
        assert_eq!((magnet.peers.len(), magnet.web_seeds.len()), (PEERS_MAX, WEB_SEEDS_MAX));
    }

    #[test]
    fn links_are_told_from_paths() {
        assert!(is_magnet("magnet:?xt=x") && is_magnet(" Magnet:x"));
        assert!(!is_magnet("magnet.torrent") && !is_magnet("./magnet:") && !is_magnet("magné"));
        assert!(!is_magnet("") && !is_magnet("https://a/?magnet:?xt=x") && !is_magnet("magnet"));
        for hash in [HEX, &HEX.to_ascii_uppercase(), BASE32, &BASE32.to_ascii_lowercase()] {
            assert!(
                is_info_hash(hash) && is_magnet(hash) && is_info_hash(&format!("urn:btih:{hash}")),
                "{hash}"
            );
            assert!(!is_info_hash(&hash[1..]) && !is_info_hash(&format!("{hash}.torrent")));
            assert!(!is_info_hash(&format!("./{hash}")) && !is_info_hash(&format!("magnet:?xt={hash}")));
        }
    }

    #[test]
    fn a_number_sign_is_a_character_of_the_link() {
        for (dn, name) in
            [("a #1", "a #1"), ("%23a", "#a"), ("#", "#"), ("it&#039;s", "it's"), ("it&#x27;s", "it's")]
        {
            let link = format!("magnet:?dn={dn}&tr=http://a/#x&xt=urn:btih:{HEX}&tr=http://b/");
            let magnet = Magnet::parse(&link).unwrap();
            assert_eq!((magnet.info_hash.to_string(), magnet.name.as_deref()), (HEX.to_owned(), Some(name)));
            assert_eq!(magnet.trackers, ["http://a/#x", "http://b/"]);
        }
        assert_eq!(Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}#files")).unwrap(), with(""));
    }

    #[test]
    fn a_link_is_found_in_what_was_made_of_it() {
        let expected = with("&dn=a b&tr=http://t/a?x=1");
        let link = format!("magnet:?xt=urn:btih:{HEX}&dn=a+b&tr=http%3A%2F%2Ft%2Fa%3Fx%3D1");
        let encode = |text: &str| {
            let byte = |byte: u8| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            };
            text.bytes().map(byte).collect::<String>()
        };
        let rest = link.strip_prefix("magnet:?").unwrap();
        let mut half = link.clone();
        half.insert(40, '\n');
        for changed in [
            format!("MAGNET:?{rest}"),
            format!("magnet:///?{rest}"),
            format!("magnet://?{rest}"),
            format!("magnet:/?{rest}"),
            format!("magnet:{rest}"),
            format!("  {link}\r\n"),
            format!("\"{link}\""),
            format!("'{link}'"),
            format!("<{link}>"),
            format!("(<{link}>)"),
            format!("{link}\""),
            format!("{link}>"),
            half,
            link.replace('&', "&amp;"),
            link.replace('&', "&amp;amp;"),
            link.replace('&', "&#38;"),
            link.replace('&', "&&"),
            link.replace("a+b", "a b"),
            link.replace("xt=", "xt.1="),
            link.replace("urn:btih:", ""),
            link.replace("urn:btih:", "btih:"),
            link.replace("urn:btih:", "URN:BTIH:"),
            link.replace("urn:btih:", "urn%3Abtih%3A"),
            link.replace(HEX, BASE32),
            link.replace(HEX, &BASE32.to_lowercase()),
            link.replace("xt=", "xt=urn:sha1:VVBM5AIJ6VGJSYJ44OHZWTMH44HSJILF&xt=urn:ed2k:1&xt="),
            encode(&link),
            encode(&encode(&link)),
            format!("magnet:{}", encode(&format!("?{rest}"))),
            format!("magnet:?{}", encode(rest)),
        ] {
            assert!(is_magnet(&changed), "{changed}");
            assert_eq!(Magnet::parse(&changed).as_ref(), Ok(&expected), "{changed}");
        }
        for bare in [HEX.to_owned(), HEX.to_uppercase(), BASE32.to_lowercase(), format!(" {HEX}\n")] {
            assert_eq!(Magnet::parse(&bare), Ok(with("")), "{bare}");
        }
        let two = format!("magnet:?xt=urn:btih:{}&xt=urn:btih:{HEX}&xt.1=urn:btih:{HEX}", "0".repeat(40));
        assert_eq!(Magnet::parse(&two).unwrap().info_hash, InfoHash([0; 20]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(hash: [u8; 20], name in "[^/\\\\]{1,40}", url in "http://[!-~]{1,60}") {
            let hash = InfoHash(hash);
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let link = format!("magnet:?tr={}&dn={}&xt=urn:btih:{hash}", encode(&url), encode(&name));
            let magnet = Magnet::parse(&link).unwrap();
            prop_assert_eq!(magnet.info_hash, hash);
            prop_assert_eq!(magnet.name, names::element(name.as_bytes()));
            prop_assert_eq!(magnet.trackers, [url]);
        }

        #[test]
        fn no_text_is_too_odd(text in "(magnet:\\?)?(xt=urn:btih:)?.{0,80}") {
            if let Err(error) = Magnet::parse(&text) {
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
}
