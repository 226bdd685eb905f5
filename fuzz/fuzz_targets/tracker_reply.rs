//! The body of a tracker's answer over HTTP.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ringtide::discovery::tracker::{
    INTERVAL_MAX, INTERVAL_MIN, REPLY_PEERS_MAX, Reply, ReplyError, TEXT_LEN_MAX, TRACKER_ID_LEN_MAX,
};
use ringtide::meta::bencode::Writer;

fuzz_target!(|bytes: &[u8]| {
    match Reply::parse(bytes) {
        Ok(reply) => check(&reply),
        Err(ReplyError::Refused { reason }) => check_text(&reason),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    check_compact(bytes);
});

fn check(reply: &Reply) {
    assert!(reply.peers.len() <= REPLY_PEERS_MAX);
    assert!(reply.peers.iter().all(|peer| peer.port() != 0));
    assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&reply.interval));
    assert!(reply.interval_min.is_none_or(|wait| wait <= INTERVAL_MAX));
    assert!(reply.tracker_id.as_ref().is_none_or(|id| id.len() <= TRACKER_ID_LEN_MAX));
    if let Some(warning) = &reply.warning {
        check_text(warning);
    }
}

/// Fit for a terminal.
fn check_text(text: &str) {
    assert!(text.chars().count() <= TEXT_LEN_MAX && !text.contains(char::is_control), "{text:?}");
}

/// The bytes as compact lists, in a proper reply: the peers are those that a naive reader finds.
fn check_compact(bytes: &[u8]) {
    let mut body = Vec::new();
    Writer::new(&mut body).dict(|reply| {
        reply.key("interval").integer(1800);
        reply.key("peers").bytes(bytes);
        reply.key("peers6").bytes(bytes);
    });
    let reply = Reply::parse(&body).expect("a proper reply");
    let port = |high, low| u16::from(high) << 8 | u16::from(low);
    let v4 = bytes.chunks_exact(6).map(|entry| {
        let ip = IpAddr::from([entry[0], entry[1], entry[2], entry[3]]);
        SocketAddr::new(ip, port(entry[4], entry[5]))
    });
    let v6 = bytes.chunks_exact(18).map(|entry| {
        let mut ip = [0u8; 16];
        ip.copy_from_slice(&entry[..16]);
        SocketAddr::new(IpAddr::from(ip), port(entry[16], entry[17]))
    });
    let expected: Vec<SocketAddr> =
        v4.chain(v6).filter(|peer| peer.port() != 0).take(REPLY_PEERS_MAX).collect();
    assert_eq!(reply.peers, expected);
}
