//! The messages of the peer exchange (BEP 11): whom the sender has connected to and lost since its last message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::meta::bencode::{self, Value};

/// Addresses in each list of ours, of both families together: what BEP 11 allows.
pub const LIST_MAX: usize = 50;

/// Addresses that are taken of each list of a peer's, of both families together. libtorrent sends so many in its first
/// message, for which BEP 11 makes an exception; Transmission sends 50.
pub const TAKEN_MAX: usize = 100;

/// What is said of an added peer, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// It prefers encrypted connections.
    pub const ENCRYPTION: Self = Self(0x01);
    /// It has everything, or at least asks for nothing.
    pub const SEED: Self = Self(0x02);
    /// It takes connections over uTP (BEP 29).
    pub const UTP: Self = Self(0x04);
    /// It takes part in hole punching (BEP 55).
    pub const HOLEPUNCH: Self = Self(0x08);
    /// The sender has connected to it, and not the other way round.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all of these are set.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// A peer that somebody tells of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Contact {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What is said of it.
    pub flags: Flags,
}

/// A message of the peer exchange, either way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerExchange {
    /// Peers that the sender has connected to since its last message.
    pub added: Vec<Contact>,
    /// Peers that it has lost since.
    pub dropped: Vec<SocketAddr>,
}

impl PeerExchange {
    /// Reads the payload of a message. Nothing in it is an error: what makes no sense is left out, a cut address at the
    /// end of a list, port 0, and all that is above [`TAKEN_MAX`]. IPv4 addresses come first.
    pub fn parse(payload: &[u8]) -> Self {
        let Ok((document, _)) = bencode::parse_prefix(payload, bencode::Limits::PEER_MESSAGE) else {
            return Self::default();
        };
        let list = |key: &str| document.root().get(key).and_then(Value::as_bytes).unwrap_or_default();
        let added = contacts::<6>(list("added"), list("added.f"))
            .chain(contacts::<18>(list("added6"), list("added6.f")));
        let dropped = contacts::<6>(list("dropped"), &[]).chain(contacts::<18>(list("dropped6"), &[]));
        Self {
            added: added.take(TAKEN_MAX).collect(),
            dropped: dropped.take(TAKEN_MAX).map(|contact| contact.addr).collect(),
        }
    }

    /// The payload of a message. A message of ours has at most [`LIST_MAX`] addresses a list.
    pub fn encode(&self) -> Vec<u8> {
        let (mut added, mut added6) = (Compact::default(), Compact::default());
        for contact in &self.added {
            let list = if is_v4(contact.addr) { &mut added } else { &mut added6 };
            list.push(contact.addr, contact.flags);
        }
        let (mut dropped, mut dropped6) = (Compact::default(), Compact::default());
        for &addr in &self.dropped {
            let list = if is_v4(addr) { &mut dropped } else { &mut dropped6 };
            list.push(addr, Flags::default());
        }
        let mut payload = Vec::new();
        bencode::Writer::new(&mut payload).dict(|dict| {
            dict.key("added").bytes(&added.addrs);
            dict.key("added.f").bytes(&added.flags);
            dict.key("added6").bytes(&added6.addrs);
            dict.key("added6.f").bytes(&added6.flags);
            dict.key("dropped").bytes(&dropped.addrs);
            dict.key("dropped6").bytes(&dropped6.addrs);
        });
        payload
    }

    /// Whether it tells nothing.
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }
}

/// A list of addresses of one family, as it is sent.
#[derive(Default)]
struct Compact {
    addrs: Vec<u8>,
    flags: Vec<u8>,
}

impl Compact {
    fn push(&mut self, addr: SocketAddr, flags: Flags) {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => self.addrs.extend(ip.octets()),
            IpAddr::V6(ip) => self.addrs.extend(ip.octets()),
        }
        self.addrs.extend(addr.port().to_be_bytes());
        self.flags.push(flags.0);
    }
}

fn is_v4(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_ipv4()
}

/// The addresses in a list of `N` bytes each: 4 or 16 of the IP address, then 2 of the port. Flags that are missing are
/// not set.
fn contacts<'a, const N: usize>(list: &'a [u8], flags: &'a [u8]) -> impl Iterator<Item = Contact> + 'a {
    let flags = flags.iter().copied().chain(std::iter::repeat(0));
    list.as_chunks::<N>().0.iter().zip(flags).filter_map(|(entry, flags)| {
        let (ip, port) = entry.split_last_chunk::<2>()?;
        let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
            (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)).to_canonical(),
            _ => return None,
        };
        let port = u16::from_be_bytes(*port);
        (port != 0).then(|| Contact { addr: SocketAddr::new(ip, port), flags: Flags(flags) })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(addr: &str, flags: u8) -> Contact {
        Contact { addr: addr.parse().unwrap(), flags: Flags(flags) }
    }

    #[test]
    fn ours_is_a_sorted_dictionary() {
        let exchange = PeerExchange {
            added: vec![contact("1.2.3.4:5", 0x10), contact("[::1]:6", 2), contact("[::ffff:9.8.7.6]:7", 0)],
            dropped: vec!["4.3.2.1:258".parse().unwrap()],
        };
        let expected = b"d5:added12:\x01\x02\x03\x04\0\x05\x09\x08\x07\x06\0\x077:added.f2:\x10\0\
            6:added618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x068:added6.f1:\x027:dropped6:\x04\x03\x02\x01\x01\x028:dropped60:e";
        assert_eq!(exchange.encode(), expected);
        assert_eq!(
            PeerExchange::default().encode(),
            b"d5:added0:7:added.f0:6:added60:8:added6.f0:7:dropped0:8:dropped60:e"
        );
    }

    #[test]
    fn theirs_is_read() {
        let payload =
            b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\0\x017:added.f2:\x02\x118:dropped618:\
            \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e";
        let exchange = PeerExchange::parse(payload);
        assert_eq!(exchange.added, [contact("1.2.3.4:6881", 2), contact("5.6.7.8:1", 0x11)]);
        assert!(exchange.added[1].flags.has(Flags::REACHABLE) && !exchange.added[1].flags.has(Flags::SEED));
        assert_eq!(exchange.dropped, ["[2001:db8::1]:6881".parse().unwrap()]);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for payload in [
            &b""[..],
            b"de",
            b"le",
            b"i5e",
            b"d5:added",
            b"d5:addedi5ee",
            b"d5:addedlee",
            b"d5:added5:\x01\x02\x03\x04\x05e",
            b"d5:added6:\x01\x02\x03\x04\0\0e",
            b"d6:added617:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0e",
            b"d7:added.f5:\x01\x02\x03\x04\x05e",
            &b"l".repeat(30_000),
        ] {
            assert!(PeerExchange::parse(payload).is_empty(), "{}", payload.escape_ascii());
        }
        let one = [contact("1.2.3.4:5", 0)];
        assert_eq!(PeerExchange::parse(b"d5:added8:\x01\x02\x03\x04\0\x05\x09\x097:added.f0:e").added, one);
        assert_eq!(PeerExchange::parse(b"d5:added6:\x01\x02\x03\x04\0\x05eand more").added, one);
        let mapped = b"d6:added618:\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\0\x05e";
        assert_eq!(PeerExchange::parse(mapped).added, one);
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many = |count: usize| [&b"\x01\x02\x03\x04\0\x05"[..]].repeat(count).concat();
        for count in [TAKEN_MAX - 1, TAKEN_MAX, TAKEN_MAX + 1, 4000] {
            let mut payload = Vec::new();
            bencode::Writer::new(&mut payload).dict(|dict| {
                dict.key("added").bytes(many(count));
                dict.key("dropped").bytes(many(count));
            });
            let exchange = PeerExchange::parse(&payload);
            assert_eq!(exchange.added.len(), count.min(TAKEN_MAX));
            assert_eq!(exchange.dropped.len(), count.min(TAKEN_MAX));
        }
    }

    fn addr() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical()),
        ];
        (ip, 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(
            added in proptest::collection::vec((addr(), any::<u8>()), 0..LIST_MAX),
            dropped in proptest::collection::vec(addr(), 0..LIST_MAX),
        ) {
            let added = added.into_iter().map(|(addr, flags)| Contact { addr, flags: Flags(flags) }).collect();
            let mut exchange = PeerExchange { added, dropped };
            let parsed = PeerExchange::parse(&exchange.encode());
            exchange.added.sort_by_key(|contact| contact.addr.is_ipv6());
            exchange.dropped.sort_by_key(SocketAddr::is_ipv6);
            prop_assert_eq!(parsed, exchange);
        }

        #[test]
        fn nothing_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let exchange = PeerExchange::parse(&payload);
            prop_assert!(exchange.added.iter().all(|contact| contact.addr.port() != 0));
        }
    }
}
