//! The messages of the peer exchange: theirs, whatever it is, against a slow reader, and ours.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Limits, parse_prefix};
use ringtide::wire::pex::{Contact, Flags, PeerExchange, TAKEN_MAX};

fuzz_target!(|payload: &[u8]| {
    let exchange = PeerExchange::parse(payload);
    assert_eq!(exchange, slow(payload));

    // What was read is read again from what is written: IPv4 addresses first, also those that came as IPv6 ones.
    let mut sorted = exchange;
    sorted.added.sort_by_key(|contact| contact.addr.is_ipv6());
    sorted.dropped.sort_by_key(SocketAddr::is_ipv6);
    assert_eq!(PeerExchange::parse(&sorted.encode()), sorted);
});

/// One list after the other, address by address.
fn slow(payload: &[u8]) -> PeerExchange {
    let Ok((document, _)) = parse_prefix(payload, Limits::PEER_MESSAGE) else {
        return PeerExchange::default();
    };
    let list = |key: &str| document.root().get(key).and_then(|it| it.as_bytes()).unwrap_or_default();
    let mut exchange = PeerExchange::default();
    for (len, addrs, flags, dropped) in
        [(6, "added", "added.f", "dropped"), (18, "added6", "added6.f", "dropped6")]
    {
        let flags = list(flags);
        for at in 0..list(addrs).len() / len {
            let flags = Flags(flags.get(at).copied().unwrap_or(0));
            if let Some(addr) = address(&list(addrs)[at * len..][..len])
                && exchange.added.len() < TAKEN_MAX
            {
                exchange.added.push(Contact { addr, flags });
            }
        }
        for at in 0..list(dropped).len() / len {
            if let Some(addr) = address(&list(dropped)[at * len..][..len])
                && exchange.dropped.len() < TAKEN_MAX
            {
                exchange.dropped.push(addr);
            }
        }
    }
    exchange
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let ip = match bytes.len() {
        6 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        _ => IpAddr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("16 bytes")).to_canonical(),
    };
    let port = u16::from(bytes[bytes.len() - 2]) << 8 | u16::from(bytes[bytes.len() - 1]);
    (port != 0).then_some(SocketAddr::new(ip, port))
}
