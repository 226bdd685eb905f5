//! The datagrams of BEP 15. All integers are big-endian. Pure.
//!
//! An answer is hostile, and anybody can send one: what does not belong to what was asked is nobody's, and says nothing
//! of the tracker.

use std::net::IpAddr;
use std::time::Duration;

use crate::discovery::tracker::{
    Announce, Event, INTERVAL_MAX, INTERVAL_MIN, Reply, ReplyError, Scrape, clean_text, push_compact,
};

/// The first 8 bytes of a connect request.
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// The option of BEP 41 that carries the path and the query of the URL, up to 255 bytes of them.
const URL_DATA: u8 = 2;

/// What a tracker is asked.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// For peers.
    Announce {
        /// What it is told. The `tracker_id` has no place in a datagram.
        announce: &'a Announce,
        /// Path and query of the URL, in visible ASCII.
        target: &'a str,
    },
    /// For the counts of one torrent.
    Scrape {
        /// Names the torrent.
        info_hash: [u8; 20],
    },
}

/// What a tracker answers, when it does not refuse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To an announce. Over UDP there are no warnings and no `min interval`.
    Announce(Reply),
    /// To a scrape.
    Scrape(Scrape),
}

/// Which kind of address the tracker is asked at: it answers with peers of that kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// 6 bytes a peer.
    V4,
    /// 18 bytes a peer.
    V6,
}

impl Family {
    /// The kind of that address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The datagram that asks for a connection id: 16 bytes.
pub fn encode_connect(transaction: u32) -> Vec<u8> {
    head(PROTOCOL_ID, CONNECT, transaction)
}

/// The datagram that asks for something under a connection id: 98 bytes and the options for an announce, 36 for a
/// scrape.
pub fn encode_ask(ask: Ask<'_>, connection_id: u64, transaction: u32) -> Vec<u8> {
    match ask {
        Ask::Announce { announce, target } => {
            let mut datagram = head(connection_id, ANNOUNCE, transaction);
            push_announce(&mut datagram, announce);
            push_target(&mut datagram, target);
            datagram
        }
        Ask::Scrape { info_hash } => {
            let mut datagram = head(connection_id, SCRAPE, transaction);
            datagram.extend(info_hash);
            datagram
        }
    }
}

fn head(connection_id: u64, action: u32, transaction: u32) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(128);
    datagram.extend(connection_id.to_be_bytes());
    datagram.extend(action.to_be_bytes());
    datagram.extend(transaction.to_be_bytes());
    datagram
}

fn push_announce(datagram: &mut Vec<u8>, announce: &Announce) {
    let event: u32 = match announce.event {
        None => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    };
    datagram.extend(announce.info_hash);
    datagram.extend(announce.peer_id);
    for total in [announce.totals.downloaded, announce.totals.left, announce.totals.uploaded] {
        datagram.extend(total.to_be_bytes());
    }
    datagram.extend(event.to_be_bytes());
    // Our address: that which the datagram comes from.
    datagram.extend([0; 4]);
    datagram.extend(announce.key.to_be_bytes());
    datagram.extend(announce.peers_wanted().to_be_bytes());
    datagram.extend(announce.port.to_be_bytes());
}

/// Nothing where there is nothing to say, since not every tracker likes what is behind an announce.
fn push_target(datagram: &mut Vec<u8>, target: &str) {
    if target == "/" {
        return;
    }
    for part in target.as_bytes().chunks(255) {
        datagram.extend([URL_DATA, part.len() as u8]);
        datagram.extend(part);
    }
}

/// What a datagram says that comes while a connection is asked for.
pub(super) fn parse_connect(datagram: &[u8], transaction: u32) -> Option<Result<u64, ReplyError>> {
    let (action, body) = open(datagram, transaction)?;
    match action {
        CONNECT => Some(Ok(u64::from_be_bytes(*body.first_chunk()?))),
        ERROR => Some(Err(refusal(body))),
        _ => None,
    }
}

/// What a datagram says that comes while the tracker is asked under `transaction`: `None` if it is no answer to that.
pub fn parse(
    datagram: &[u8],
    ask: Ask<'_>,
    transaction: u32,
    family: Family,
) -> Option<Result<Answer, ReplyError>> {
    let (action, body) = open(datagram, transaction)?;
    match (action, ask) {
        (ANNOUNCE, Ask::Announce { .. }) => Some(Ok(Answer::Announce(parse_announce(body, family)?))),
        (SCRAPE, Ask::Scrape { .. }) => Some(Ok(Answer::Scrape(parse_scrape(body)?))),
        (ERROR, _) => Some(Err(refusal(body))),
        _ => None,
    }
}

/// The action and what is behind the transaction id, if that is ours.
fn open(datagram: &[u8], transaction: u32) -> Option<(u32, &[u8])> {
    let (action, rest) = datagram.split_first_chunk()?;
    let (theirs, body) = rest.split_first_chunk()?;
    (u32::from_be_bytes(*theirs) == transaction).then_some((u32::from_be_bytes(*action), body))
}

fn refusal(body: &[u8]) -> ReplyError {
    // Some end their words as C does.
    let text = body.strip_suffix(b"\0").unwrap_or(body);
    ReplyError::Refused { reason: clean_text(text) }
}

/// Interval, leechers, seeders, peers. A cut peer at the end is dropped.
fn parse_announce(body: &[u8], family: Family) -> Option<Reply> {
    let (interval, rest) = body.split_first_chunk()?;
    let compact = rest.get(8..)?;
    let seconds = u64::try_from(i32::from_be_bytes(*interval)).unwrap_or(0);
    let mut peers = Vec::new();
    match family {
        Family::V4 => push_compact::<6>(&mut peers, compact),
        Family::V6 => push_compact::<18>(&mut peers, compact),
    }
    Some(Reply {
        peers,
        hosts: Vec::new(),
        interval: Duration::from_secs(seconds).clamp(INTERVAL_MIN, INTERVAL_MAX),
        interval_min: None,
        warning: None,
        tracker_id: None,
    })
}

/// Seeders, downloads, leechers of the first torrent, the only one that was asked for.
fn parse_scrape(body: &[u8]) -> Option<Scrape> {
    let count = |at: usize| Some(u64::from(u32::from_be_bytes(*body.get(at..)?.first_chunk()?)));
    Some(Scrape { seeders: count(0)?, downloads: count(4)?, leechers: count(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tracker::{REPLY_PEERS_MAX, Totals};

    fn announce() -> Announce {
        Announce {
            info_hash: [0xab; 20],
            peer_id: *b"-RT0001-abcdefghijkl",
            port: 6881,
            key: 7,
            totals: Totals { uploaded: 1, downloaded: 2, left: 3 },
            event: Some(Event::Started),
            tracker_id: None,
        }
    }

    const SCRAPE_ASK: Ask<'_> = Ask::Scrape { info_hash: [9; 20] };

    #[test]
    fn requests_are_laid_out_as_the_bep_says() {
        assert_eq!(encode_connect(5), [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 5]);
        let sent = encode_ask(Ask::Announce { announce: &announce(), target: "/" }, 1 << 56, 6);
        assert_eq!(sent.len(), 98);
        assert_eq!(sent[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 6]);
        assert_eq!((&sent[16..36], &sent[36..56]), (&[0xab; 20][..], &b"-RT0001-abcdefghijkl"[..]));
        let numbers = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(sent[56..80], numbers);
        assert_eq!(sent[80..98], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 200, 0x1a, 0xe1]);
        let scrape = encode_ask(SCRAPE_ASK, 1, 2);
        assert_eq!(scrape[..16], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2]);
        assert_eq!(scrape[16..], [9; 20]);
    }

    #[test]
    fn events_have_numbers_and_who_leaves_wants_nobody() {
        for (event, number, wanted) in
            [(None, 0, 200), (Some(Event::Completed), 1, 200), (Some(Event::Stopped), 3, 0)]
        {
            let announce = Announce { event, ..announce() };
            let sent = encode_ask(Ask::Announce { announce: &announce, target: "/" }, 0, 0);
            assert_eq!((sent[83], sent[95]), (number, wanted), "{event:?}");
        }
    }

    #[test]
    fn path_and_query_follow_in_parts_of_255_bytes() {
        let options =
            |target: &str| encode_ask(Ask::Announce { announce: &announce(), target }, 0, 0).split_off(98);
        assert_eq!(options("/a?b"), b"\x02\x04/a?b");
        let long = format!("/{}", "x".repeat(299));
        let expected = [&[2, 255][..], &long.as_bytes()[..255], &[2, 45], &long.as_bytes()[255..]].concat();
        assert_eq!(options(&long), expected);
    }

    #[test]
    fn what_does_not_answer_the_question_is_nobodys() {
        let announce = announce();
        let ask = Ask::Announce { announce: &announce, target: "/" };
        let proper = [0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 2, 127, 0, 0, 1, 0, 9, 7];
        let Some(Ok(Answer::Announce(reply))) = parse(&proper, ask, 5, Family::V4) else { panic!() };
        assert_eq!(reply.interval, Duration::from_secs(60));
        assert_eq!(reply.peers, ["127.0.0.1:9".parse().unwrap()]);
        for len in 0..20 {
            assert_eq!(parse(&proper[..len], ask, 5, Family::V4), None, "{len} bytes");
        }
        assert_eq!(parse(&proper, ask, 6, Family::V4), None, "another transaction");
        assert_eq!(parse(&proper, SCRAPE_ASK, 5, Family::V4), None, "another action");
        assert_eq!(parse_connect(&proper, 5), None, "another action");
        for action in [0, 2, 4, 255] {
            let mut other = proper;
            other[3] = action;
            assert_eq!(parse(&other, ask, 5, Family::V4), None, "action {action}");
        }
        assert_eq!(parse_connect(&[0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7], 5), None);
        let connected = parse_connect(&[0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9], 5);
        assert_eq!(connected, Some(Ok(0x0102_0304_0506_0708)));
    }

    #[test]
    fn peers_of_a_v6_tracker_have_18_bytes() {
        let announce = announce();
        let ask = Ask::Announce { announce: &announce, target: "/" };
        let mut datagram = vec![0, 0, 0, 1, 0, 0, 0, 5, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend([[0; 15].as_slice(), &[1, 0x1a, 0xe1]].concat().repeat(REPLY_PEERS_MAX + 1));
        let Some(Ok(Answer::Announce(reply))) = parse(&datagram, ask, 5, Family::V6) else { panic!() };
        assert_eq!((reply.peers.len(), reply.interval), (REPLY_PEERS_MAX, INTERVAL_MIN));
        assert_eq!(reply.peers[7], "[::1]:6881".parse().unwrap());
    }

    #[test]
    fn a_refusal_is_told_in_the_trackers_words() {
        let refused = Some(Err(ReplyError::Refused { reason: "no\u{fffd}[2J".to_owned() }));
        let datagram = b"\0\0\0\x03\0\0\0\x05no\x1b[2J\0";
        assert_eq!(parse(datagram, SCRAPE_ASK, 5, Family::V4), refused);
        assert_eq!(parse_connect(datagram, 6), None);
        assert!(matches!(parse_connect(datagram, 5), Some(Err(_))));
    }

    #[test]
    fn a_scrape_counts_seeders_downloads_and_leechers() {
        let datagram = [0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 255, 255, 255, 255];
        let expected = Scrape { seeders: 1, leechers: u32::MAX.into(), downloads: 2 };
        assert_eq!(parse(&datagram, SCRAPE_ASK, 5, Family::V4), Some(Ok(Answer::Scrape(expected))));
        assert_eq!(parse(&datagram[..19], SCRAPE_ASK, 5, Family::V4), None);
    }
}
