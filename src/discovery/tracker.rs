//! The tracker protocol over HTTP: the query of an announce and the reply to it (BEP 3), and of a scrape (BEP 48).
//! Pure. What is announced and what is answered are the same over UDP.
//!
//! A reply is hostile. Nothing in it can fail the whole but a `failure reason` and bytes that are not a bencoded
//! dictionary: a part that is missing, out of range or of the wrong type is left out.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::url::{host_name, push_percent};
use crate::meta::bencode::{Limits, ParseError, Value, parse_prefix};
use crate::meta::inflate::unpack;
use crate::meta::names::acts_on_text;

/// Bytes of the largest reply that is read over HTTP, as it comes and unpacked.
pub const TRACKER_REPLY_LEN_MAX: usize = 1024 * 1024;

/// Peers taken from one reply.
pub const REPLY_PEERS_MAX: usize = 2000;

/// Names of peers taken from one reply.
pub const REPLY_HOSTS_MAX: usize = 16;

/// Peers asked for.
pub const PEERS_WANTED: u32 = 200;

/// The shortest time between two regular announces, whatever the tracker says.
pub const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// The longest time between two regular announces, whatever the tracker says.
pub const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The time between two regular announces where the tracker names none.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Bytes of the longest `tracker id` that is sent back.
pub const TRACKER_ID_LEN_MAX: usize = 256;

/// Characters of a tracker's message that are shown.
pub const TEXT_LEN_MAX: usize = 300;

/// What an announce reports beside the numbers; a regular one reports nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first announce of a download.
    Started,
    /// The last missing piece has come in during this run.
    Completed,
    /// The download is ended, whether complete or not.
    Stopped,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}

/// How much has been moved so far, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Sent to peers since the start.
    pub uploaded: u64,
    /// Received from peers since the start.
    pub downloaded: u64,
    /// Still missing. Trackers give no peers to who claims 0; where the length is unknown, 1 is usual.
    pub left: u64,
}

impl Totals {
    /// At the start of a download whose length is not known yet, as that of a magnet link.
    pub const UNKNOWN_LENGTH: Self = Self { uploaded: 0, downloaded: 0, left: 1 };
}

/// What a tracker is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announce {
    /// Names the torrent.
    pub info_hash: [u8; 20],
    /// Names this run.
    pub peer_id: [u8; 20],
    /// Where this client would listen.
    pub port: u16,
    /// Lets the tracker know this client again from another address.
    pub key: u32,
    /// What has been moved.
    pub totals: Totals,
    /// Why now; `None` for a regular announce.
    pub event: Option<Event>,
    /// The `tracker id` of the tracker's last reply, if it sent one.
    pub tracker_id: Option<Vec<u8>>,
}

impl Announce {
    /// The parameters of the request's query: `info_hash=%12…&peer_id=…`, without a `?` or `&` in front.
    pub fn query(&self) -> String {
        let mut query = String::with_capacity(320);
        query.push_str("info_hash=");
        push_encoded(&mut query, &self.info_hash);
        query.push_str("&peer_id=");
        push_encoded(&mut query, &self.peer_id);
        let Totals { uploaded, downloaded, left } = self.totals;
        let wanted = self.peers_wanted();
        // Writing into a `String` cannot fail.
        let _ = write!(
            query,
            "&port={}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&numwant={wanted}&key={:08x}",
            self.port, self.key
        );
        if let Some(event) = self.event {
            query.push_str("&event=");
            query.push_str(event.name());
        }
        if let Some(id) = &self.tracker_id {
            query.push_str("&trackerid=");
            push_encoded(&mut query, id);
        }
        query
    }

    /// Who leaves needs nobody.
    pub(super) fn peers_wanted(&self) -> u32 {
        if self.event == Some(Event::Stopped) { 0 } else { PEERS_WANTED }
    }
}

/// The parameter of a scrape's query (BEP 48), without a `?` or `&` in front.
pub fn scrape_query(info_hash: &[u8; 20]) -> String {
    let mut query = "info_hash=".to_owned();
    push_encoded(&mut query, info_hash);
    query
}

/// What a tracker answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The peers, in the tracker's order: those of `peers`, then those of `peers6`.
    pub peers: Vec<SocketAddr>,
    /// Peers of which the tracker gives a name instead of an address; at most [`REPLY_HOSTS_MAX`].
    pub hosts: Vec<HostPeer>,
    /// When to announce again; [`INTERVAL_MIN`] to [`INTERVAL_MAX`].
    pub interval: Duration,
    /// The soonest that the tracker wants to hear again; at most [`INTERVAL_MAX`].
    pub interval_min: Option<Duration>,
    /// What the tracker wants the user to know.
    pub warning: Option<String>,
    /// To be sent back with the next announce.
    pub tracker_id: Option<Vec<u8>>,
}

/// A peer at a host that has to be looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPeer {
    /// The host, as resolvers take it.
    pub name: String,
    /// Never 0.
    pub port: u16,
    /// How many of [`Reply::peers`] are before it in the tracker's list.
    pub place: usize,
}

/// Why a reply is of no use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplyError {
    /// It is not bencoded.
    Bencode(ParseError),
    /// It is something else than a dictionary.
    NotADictionary,
    /// A scrape's answer says nothing of the torrent.
    UnknownTorrent,
    /// The tracker refuses; the words are its own.
    Refused {
        /// The `failure reason`.
        reason: String,
    },
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "the answer is not that of a tracker: {error}"),
            Self::NotADictionary => f.write_str("the answer is not that of a tracker: expected a dictionary"),
            Self::UnknownTorrent => f.write_str("the tracker does not know the torrent"),
            Self::Refused { reason } => write!(f, "the tracker refuses: {reason}"),
        }
    }
}

impl std::error::Error for ReplyError {}

impl Reply {
    /// Reads the body of a tracker's answer, packed or not. Bytes after the dictionary are ignored, since some trackers
    /// end theirs with a line break.
    pub fn parse(body: &[u8]) -> Result<Self, ReplyError> {
        let unpacked = unpacked(body);
        let (document, _) = parse_prefix(&unpacked, Limits::TRACKER).map_err(ReplyError::Bencode)?;
        let root = accepted(document.root())?;
        let (mut peers, mut hosts) = (Vec::new(), Vec::new());
        if let Some(list) = root.get("peers") {
            push_peers(&mut peers, &mut hosts, list);
        }
        if let Some(compact) = root.get("peers6").and_then(Value::as_bytes) {
            push_compact::<18>(&mut peers, compact);
        }
        let interval = root.get("interval").and_then(seconds).unwrap_or(INTERVAL_DEFAULT);
        let tracker_id = root.get("tracker id").and_then(Value::as_bytes);
        Ok(Self {
            peers,
            hosts,
            interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
            interval_min: root.get("min interval").and_then(seconds).map(|wait| wait.min(INTERVAL_MAX)),
            warning: root.get("warning message").and_then(Value::as_bytes).map(clean_text),
            tracker_id: tracker_id.filter(|id| id.len() <= TRACKER_ID_LEN_MAX).map(<[u8]>::to_vec),
        })
    }
}

/// How many take part in a torrent, as far as a tracker knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scrape {
    /// Peers that have everything.
    pub seeders: u64,
    /// Peers that do not.
    pub leechers: u64,
    /// Downloads that were completed.
    pub downloads: u64,
}

impl Scrape {
    /// Reads the body of a tracker's answer (BEP 48). A number that is missing, negative or no number is 0.
    pub fn parse(body: &[u8], info_hash: &[u8; 20]) -> Result<Self, ReplyError> {
        let unpacked = unpacked(body);
        let (document, _) = parse_prefix(&unpacked, Limits::TRACKER).map_err(ReplyError::Bencode)?;
        let root = accepted(document.root())?;
        let counts = root.get("files").and_then(|files| files.get(info_hash));
        let counts = counts.filter(|counts| counts.as_dict().is_some()).ok_or(ReplyError::UnknownTorrent)?;
        let count = |key: &str| counts.get(key).and_then(Value::as_u64).unwrap_or(0);
        Ok(Self { seeders: count("complete"), leechers: count("incomplete"), downloads: count("downloaded") })
    }
}

/// Whether a body, packed or not, is one bencoded value and perhaps something behind it.
pub(super) fn is_whole(body: &[u8]) -> bool {
    parse_prefix(&unpacked(body), Limits::TRACKER).is_ok()
}

/// The body without what it is packed in. Its own bytes decide: what is bencode stays as it is.
fn unpacked(body: &[u8]) -> Cow<'_, [u8]> {
    let is_right = |bytes: &[u8]| parse_prefix(bytes, Limits::TRACKER).is_ok();
    unpack(body, TRACKER_REPLY_LEN_MAX, is_right).map_or(Cow::Borrowed(body), Cow::Owned)
}

/// A dictionary that is no refusal.
fn accepted(root: Value<'_>) -> Result<Value<'_>, ReplyError> {
    if root.as_dict().is_none() {
        return Err(ReplyError::NotADictionary);
    }
    match root.get("failure reason").and_then(Value::as_bytes) {
        Some(reason) => Err(ReplyError::Refused { reason: clean_text(reason) }),
        None => Ok(root),
    }
}

/// An integer as a time: a negative one is none, one too large for 64 bits is as long as possible.
fn seconds(value: Value<'_>) -> Option<Duration> {
    let digits = value.as_digits()?;
    let count = if digits.starts_with('-') { 0 } else { value.as_u64().unwrap_or(u64::MAX) };
    Some(Duration::from_secs(count))
}

/// The value of `peers`: a string of 6 bytes a peer (BEP 23) or a list of dictionaries (BEP 3).
fn push_peers(peers: &mut Vec<SocketAddr>, hosts: &mut Vec<HostPeer>, list: Value<'_>) {
    if let Some(compact) = list.as_bytes() {
        push_compact::<6>(peers, compact);
    }
    for entry in list.as_list().into_iter().flatten() {
        let text = entry.get("ip").and_then(Value::as_str).map(|text| text.trim_matches(['[', ']']));
        let port = entry.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let (Some(text), Some(port)) = (text, port) else { continue };
        if let Ok(ip) = text.parse::<IpAddr>() {
            push_peer(peers, SocketAddr::new(ip, port));
        } else if let Some(name) = host_name(text)
            && port != 0
            && hosts.len() < REPLY_HOSTS_MAX
        {
            hosts.push(HostPeer { name, port, place: peers.len() });
        }
    }
}

/// Addresses of `N` bytes each: 4 (BEP 23) or 16 (BEP 7) of the IP address, then 2 of the port. A cut one at the end
/// is dropped.
pub(super) fn push_compact<const N: usize>(peers: &mut Vec<SocketAddr>, compact: &[u8]) {
    for entry in compact.chunks_exact(N) {
        let (ip, port) = entry.split_at(N - 2);
        let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
            (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)),
            _ => return,
        };
        push_peer(peers, SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])));
    }
}

fn push_peer(peers: &mut Vec<SocketAddr>, peer: SocketAddr) {
    if peer.port() != 0 && peers.len() < REPLY_PEERS_MAX {
        peers.push(peer);
    }
}

/// A server's words, fit for a terminal: UTF-8 without characters that act on it or on the text around them, at most
/// [`TEXT_LEN_MAX`] characters.
pub(super) fn clean_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let visible = |c: char| if acts_on_text(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(TEXT_LEN_MAX).map(visible).collect()
}

fn push_encoded(query: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            query.push(char::from(byte));
        } else {
            push_percent(query, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: impl AsRef<[u8]>) -> Reply {
        Reply::parse(body.as_ref()).unwrap()
    }

    fn peers(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_query_has_raw_bytes_percent_encoded() {
        let mut info_hash = *b"abcXYZ019-._~ %&=+/\0";
        info_hash[19] = 0xff;
        let mut announce = Announce {
            info_hash,
            peer_id: *b"-RT0001-abcdefghijkl",
            port: 6881,
            key: 0xab,
            totals: Totals { uploaded: 1, downloaded: 2, left: 3 },
            event: None,
            tracker_id: None,
        };
        let regular = "info_hash=abcXYZ019-._~%20%25%26%3D%2B%2F%FF&peer_id=-RT0001-abcdefghijkl&port=6881\
            &uploaded=1&downloaded=2&left=3&compact=1&numwant=200&key=000000ab";
        assert_eq!(announce.query(), regular);
        announce.event = Some(Event::Stopped);
        announce.tracker_id = Some(b"\x00id".to_vec());
        let stopped = regular.replace("numwant=200", "numwant=0") + "&event=stopped&trackerid=%00id";
        assert_eq!(announce.query(), stopped);
    }

    #[test]
    fn compact_peers_keep_their_order() {
        let mut body = b"d8:intervali60e12:min intervali30e5:peers20:".to_vec();
        body.extend([127, 0, 0, 1, 0x1a, 0xe1, 9, 9, 9, 9, 0, 0, 10, 0, 0, 1, 0, 1, 7, 7]);
        body.extend(b"6:peers618:");
        body.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        body.extend([0x1a, 0xe2]);
        body.extend(b"e\n");
        let reply = parse(&body);
        assert_eq!(reply.peers, peers(&["127.0.0.1:6881", "10.0.0.1:1", "[2001:db8::1]:6882"]));
        assert_eq!(reply.interval, Duration::from_secs(60));
        assert_eq!(reply.interval_min, Some(Duration::from_secs(30)));
        assert_eq!((reply.warning, reply.tracker_id), (None, None));
    }

    #[test]
    fn peers_as_dictionaries() {
        let reply = parse(
            "d5:peersld2:ip9:127.0.0.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti1eed2:ip3:::14:porti2ee\
             d2:ip11:example.com4:porti3eed2:ip7:1.1.1.14:porti0eed2:ip7:1.1.1.14:porti65536ee\
             d2:ip7:1.1.1.1ed4:porti5eei5e3:abcd2:ipi1e4:port1:1ed2:ip7:2.2.2.24:porti6eeee",
        );
        assert_eq!(reply.peers, peers(&["127.0.0.1:1", "[::1]:2", "2.2.2.2:6"]));
    }

    #[test]
    fn parts_of_the_wrong_type_are_left_out() {
        let reply = parse(
            "d14:failure reasoni1e8:interval2:3012:min intervalle5:peersi1e6:peers6le10:tracker idi1e\
             15:warning messageli1eee",
        );
        let nothing = Reply {
            peers: Vec::new(),
            hosts: Vec::new(),
            interval: INTERVAL_DEFAULT,
            interval_min: None,
            warning: None,
            tracker_id: None,
        };
        assert_eq!(reply, nothing);
        assert_eq!(parse("de"), nothing);
    }

    #[test]
    fn intervals_are_kept_in_bounds() {
        for (text, expected, expected_min) in [
            ("-1", INTERVAL_MIN, Duration::ZERO),
            ("0", INTERVAL_MIN, Duration::ZERO),
            ("7", Duration::from_secs(7), Duration::from_secs(7)),
            ("99999999", INTERVAL_MAX, INTERVAL_MAX),
            ("99999999999999999999999", INTERVAL_MAX, INTERVAL_MAX),
            ("-99999999999999999999999", INTERVAL_MIN, Duration::ZERO),
        ] {
            let reply = parse(format!("d8:intervali{text}e12:min intervali{text}ee"));
            assert_eq!((reply.interval, reply.interval_min), (expected, Some(expected_min)), "{text}");
        }
    }

    #[test]
    fn a_refusal_is_an_error_in_the_trackers_words() {
        let reason = |text: &str| Err(ReplyError::Refused { reason: text.to_owned() });
        assert_eq!(Reply::parse(b"d14:failure reason4:nope5:peers0:e"), reason("nope"));
        assert_eq!(Reply::parse(b"d14:failure reason6:a\x1b[2J\xffe"), reason("a\u{fffd}[2J\u{fffd}"));
        let long = format!("d14:failure reason1000:{}e", "x".repeat(1000));
        assert_eq!(Reply::parse(long.as_bytes()), reason(&"x".repeat(TEXT_LEN_MAX)));
        assert_eq!(parse("d15:warning message3:heye").warning.as_deref(), Some("hey"));
    }

    #[test]
    fn a_scrape_counts_who_is_there() {
        let hash = [0xfe; 20];
        let body = |counts: &str| [b"d5:filesd20:", &hash[..], counts.as_bytes(), b"ee"].concat();
        let scrape = |seeders, leechers, downloads| Ok(Scrape { seeders, leechers, downloads });
        for (body, expected) in [
            (body("d8:completei5e10:downloadedi50e10:incompletei10ee"), scrape(5, 10, 50)),
            (body("d8:completei-5e10:incomplete1:xe"), scrape(0, 0, 0)),
            (body("le"), Err(ReplyError::UnknownTorrent)),
            (b"d5:filesdee".to_vec(), Err(ReplyError::UnknownTorrent)),
            (b"de".to_vec(), Err(ReplyError::UnknownTorrent)),
            (b"le".to_vec(), Err(ReplyError::NotADictionary)),
            (b"d14:failure reason2:noe".to_vec(), Err(ReplyError::Refused { reason: "no".to_owned() })),
        ] {
            assert_eq!(Scrape::parse(&body, &hash), expected, "{}", body.escape_ascii());
        }
        assert_eq!(
            scrape_query(b"abc%&=0123456789/\0\xff\n"),
            "info_hash=abc%25%26%3D0123456789%2F%00%FF%0A"
        );
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        assert_eq!(Reply::parse(b"le"), Err(ReplyError::NotADictionary));
        for body in [&b""[..], b"<html>", b"d5:peers", b"d5:peers9999999999:e", &b"d1:a".repeat(9)] {
            assert!(matches!(Reply::parse(body), Err(ReplyError::Bencode(_))), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let mut body = format!("d5:peers{}:", 6 * (REPLY_PEERS_MAX + 1)).into_bytes();
        body.extend([1; 6].repeat(REPLY_PEERS_MAX + 1));
        body.push(b'e');
        assert_eq!(parse(&body).peers.len(), REPLY_PEERS_MAX);
        assert_eq!(parse(format!("d10:tracker id999:{}e", "x".repeat(999))).tracker_id, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reply::parse(&body);
            let _ = Scrape::parse(&body, &[0; 20]);
        }

        #[test]
        fn no_reply_like_text_makes_it_panic(body in "d(5:peers|6:peers6|8:interval|l|d|e|i-?[0-9]{0,3}e|[0-9]{1,2}:|.){0,30}") {
            let _ = Reply::parse(body.as_bytes());
        }
    }
}
