//! What comes from a tracker over UDP. The first byte says what is asked, of which kind of address and whether under a
//! remembered connection; the rest are datagrams: a byte for how it is made to fit, one for its length, and its bytes.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringtide::discovery::tracker::{
    Announce, INTERVAL_MAX, INTERVAL_MIN, REPLY_PEERS_MAX, Reply, ReplyError, TEXT_LEN_MAX, Totals,
};
use ringtide::discovery::udp::{Answer, Ask, Connection, Exchange, Family, PROTOCOL_ID, RESEND_FIRST, parse};

const ANNOUNCE: Announce = Announce {
    info_hash: [1; 20],
    peer_id: [2; 20],
    port: 6881,
    key: 3,
    totals: Totals::UNKNOWN_LENGTH,
    event: None,
    tracker_id: None,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let ask = match choice & 1 {
        0 => Ask::Announce { announce: &ANNOUNCE, target: "/a?b" },
        _ => Ask::Scrape { info_hash: [4; 20] },
    };
    let family = if choice & 2 == 0 { Family::V4 } else { Family::V6 };
    check_parse(rest, ask, family);
    run_exchange(rest, ask, family, choice & 4 != 0);
});

/// What the datagram says to a slow reader, under whatever transaction it has.
fn check_parse(datagram: &[u8], ask: Ask<'_>, family: Family) {
    let transaction = datagram.get(4..8).map_or(0, number);
    assert_eq!(parse(datagram, ask, !transaction, family), None);
    check(parse(datagram, ask, transaction, family), datagram, ask, family);
}

fn check(parsed: Option<Result<Answer, ReplyError>>, datagram: &[u8], ask: Ask<'_>, family: Family) {
    let action = datagram.get(..4).filter(|_| datagram.len() >= 8).map(number);
    let is_announce = matches!(ask, Ask::Announce { .. });
    match parsed {
        Some(Ok(Answer::Announce(reply))) => {
            assert!(is_announce && action == Some(1) && datagram.len() >= 20);
            check_reply(&reply, datagram, family);
        }
        Some(Ok(Answer::Scrape(counts))) => {
            assert!(!is_announce && action == Some(2) && datagram.len() >= 20);
            let found = [counts.seeders, counts.downloads, counts.leechers];
            assert_eq!(found, [8, 12, 16].map(|at| u64::from(number(&datagram[at..at + 4]))));
        }
        Some(Err(ReplyError::Refused { reason })) => {
            assert_eq!(action, Some(3));
            assert!(reason.chars().count() <= TEXT_LEN_MAX && !reason.contains(char::is_control));
        }
        Some(Err(other)) => panic!("{other}"),
        None => {
            let expected = if is_announce { 1 } else { 2 };
            assert!(action != Some(3) && (action != Some(expected) || datagram.len() < 20));
        }
    }
}

fn check_reply(reply: &Reply, datagram: &[u8], family: Family) {
    let seconds = (number(&datagram[8..12]) as i32).max(0) as u64;
    assert_eq!(reply.interval, Duration::from_secs(seconds).clamp(INTERVAL_MIN, INTERVAL_MAX));
    assert_eq!((&reply.interval_min, &reply.warning, &reply.tracker_id), (&None, &None, &None));
    let ip_len = if family == Family::V4 { 4 } else { 16 };
    let mut expected = Vec::new();
    let mut at = 20;
    while at + ip_len + 2 <= datagram.len() && expected.len() < REPLY_PEERS_MAX {
        let (ip, port) = datagram[at..at + ip_len + 2].split_at(ip_len);
        let ip = match <[u8; 4]>::try_from(ip) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).expect("16 bytes")),
        };
        let port = u16::from(port[0]) << 8 | u16::from(port[1]);
        if port != 0 {
            expected.push(SocketAddr::new(ip, port));
        }
        at += ip_len + 2;
    }
    assert_eq!(reply.peers, expected);
}

/// The datagrams, one after the other, some of them made to fit what was asked last.
fn run_exchange(mut bytes: &[u8], ask: Ask<'_>, family: Family, is_known: bool) {
    let mut now = Instant::now();
    let known = is_known.then(|| Connection::new(7, now));
    let mut exchange = Exchange::new(ask, family, known, 5, now);
    let mut sent = exchange.send(now).expect("the first is due at once");
    check_sent(&sent, ask);
    while let [how, len, rest @ ..] = bytes {
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        bytes = rest;
        // A tracker may give the number of the protocol as that of the connection.
        let is_connecting = sent.len() == 16;
        let mut datagram = Vec::new();
        if how & 1 != 0 {
            let action = if how & 2 != 0 { 3 } else { sent[11] };
            datagram.extend([0, 0, 0, action]);
            datagram.extend(&sent[12..16]);
        }
        datagram.extend(body);
        now += RESEND_FIRST * u32::from(how >> 4);
        let is_ours = datagram.get(4..8) == Some(&sent[12..16]);
        let answer = exchange.on_datagram(&datagram, now);
        assert!(answer.is_none() || is_ours);
        if answer.is_some() {
            assert!(!is_connecting || answer.as_ref().is_some_and(Result::is_err));
            return check(answer, &datagram, ask, family);
        }
        let before = exchange.wake_at();
        if let Some(next) = exchange.send(now) {
            check_sent(&next, ask);
            assert!(before <= now && exchange.wake_at() > now);
            sent = next;
        }
    }
}

/// A request for a connection, or what is asked.
fn check_sent(datagram: &[u8], ask: Ask<'_>) {
    let len = if matches!(ask, Ask::Announce { .. }) { 98 + 2 + 4 } else { 36 };
    let is_connect = datagram[..8] == PROTOCOL_ID.to_be_bytes() && datagram[11] == 0 && datagram.len() == 16;
    assert!(is_connect || (datagram.len() == len && matches!(datagram[11], 1 | 2)), "{datagram:?}");
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}
