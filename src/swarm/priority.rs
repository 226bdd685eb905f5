//! Canonical peer priority (BEP 40): both ends of a connection come to the same number, which nobody can choose. And
//! our own address, which only others can tell us.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Peers that must see us at an address before it is taken for ours: BEP 40 says not to trust one.
pub const VOTES_MIN: usize = 2;

/// Peers whose word is kept.
pub const VOTERS_MAX: usize = 64;

/// The priority of a connection between two addresses, whichever of them is ours; higher is better. `None` between IPv4
/// and IPv6, as there are no such connections.
pub fn canonical_priority(one: SocketAddr, other: SocketAddr) -> Option<u32> {
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    if one_ip == other_ip {
        return Some(of_pair(one.port().to_be_bytes(), other.port().to_be_bytes()));
    }
    match (one_ip, other_ip) {
        (IpAddr::V4(one), IpAddr::V4(other)) => Some(of_masked(one.octets(), other.octets(), 2)),
        (IpAddr::V6(one), IpAddr::V6(other)) => Some(of_masked(one.octets(), other.octets(), 6)),
        _ => None,
    }
}

/// Of each address count the first `prefix` bytes as they are, those in which the two agree and one more; of the rest
/// only every other bit, so that who has a network cannot make up the priority he likes.
fn of_masked<const N: usize>(one: [u8; N], other: [u8; N], prefix: usize) -> u32 {
    let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let whole = if common < prefix { prefix } else { common + 1 };
    let mask = |mut ip: [u8; N]| {
        ip.iter_mut().skip(whole).for_each(|byte| *byte &= 0x55);
        ip
    };
    of_pair(mask(one), mask(other))
}

fn of_pair<const N: usize>(one: [u8; N], other: [u8; N]) -> u32 {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    crc32c(first.into_iter().chain(second))
}

/// The CRC-32C, bit by bit: it is taken of a few bytes, and rarely.
fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

/// What peers say our address is, one word a peer and family.
#[derive(Debug, Default)]
pub struct OwnAddress {
    votes: BTreeMap<(IpAddr, bool), IpAddr>,
}

impl OwnAddress {
    /// Takes a peer's word. `true` if what [`OwnAddress::known`] says may have changed.
    pub fn vote(&mut self, voter: IpAddr, ours: IpAddr) -> bool {
        let ours = ours.to_canonical();
        let key = (voter.to_canonical(), ours.is_ipv6());
        if self.votes.len() == VOTERS_MAX && !self.votes.contains_key(&key) {
            return false;
        }
        self.votes.insert(key, ours) != Some(ours)
    }

    /// Our address of that family: the one that most peers name, if more than one does.
    pub fn known(&self, is_ipv6: bool) -> Option<IpAddr> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for ours in self.votes.values().filter(|ours| ours.is_ipv6() == is_ipv6) {
            *counts.entry(*ours).or_default() += 1;
        }
        let (ours, count) = counts.into_iter().max_by_key(|&(_, count)| count)?;
        (count >= VOTES_MIN).then_some(ours)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn priority(one: &str, other: &str) -> Option<u32> {
        canonical_priority(one.parse().unwrap(), other.parse().unwrap())
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(*b"123456789"), 0xe306_9283);
        assert_eq!(crc32c([]), 0);
    }

    #[test]
    fn the_examples_of_the_bep() {
        assert_eq!(priority("123.213.32.10:1", "98.76.54.32:2"), Some(0xec2d_7224));
        assert_eq!(priority("123.213.32.10:1", "123.213.32.234:2"), Some(0x9956_8189));
    }

    #[test]
    fn the_mask_follows_the_common_prefix() {
        let of = |bytes: &[u8]| Some(crc32c(bytes.iter().copied()));
        let cases = [
            ("230.12.123.3:1", "230.12.123.1:1", of(b"\xe6\x0c\x7b\x01\xe6\x0c\x7b\x03")),
            ("230.12.23.1:1", "230.12.123.3:1", of(b"\xe6\x0c\x17\x01\xe6\x0c\x7b\x01")),
            ("230.120.23.1:1", "230.12.123.3:1", of(b"\xe6\x0c\x51\x01\xe6\x78\x15\x01")),
            ("230.12.123.3:1234", "230.12.123.3:300", of(b"\x01\x2c\x04\xd2")),
            ("[::ffff:230.12.123.3]:1", "230.12.123.1:1", of(b"\xe6\x0c\x7b\x01\xe6\x0c\x7b\x03")),
            ("1.2.3.4:1", "[2001:db8::1]:1", None),
        ];
        for (one, other, expected) in cases {
            assert_eq!(priority(one, other), expected, "{one} and {other}");
        }
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let pair = |one: &str, other: &str| of(&[v6(one), v6(other)].concat());
        assert_eq!(
            priority(
                "[2015:7693:6cd9:a56a:e47f:7101:483e:800a]:1",
                "[b1fa:9ff2:fbdc:23b9:3618:332c:216c:5b4a]:1"
            ),
            pair("2015:7693:6cd9:0540:4455:5101:4014:0000", "b1fa:9ff2:fbdc:0111:1410:1104:0144:5140"),
        );
        assert_eq!(
            priority("[1:2:3:ff00:ffff::ffff]:1", "[1:2:3:ee00::]:1"),
            pair("1:2:3:ee00::", "1:2:3:ff00:5555::5555"),
        );
    }

    #[test]
    fn our_address_is_what_most_say() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut own = OwnAddress::default();
        assert!(own.vote(ip("1.1.1.1"), ip("9.9.9.9")));
        assert!(!own.vote(ip("::ffff:1.1.1.1"), ip("::ffff:9.9.9.9")), "the same word again");
        assert_eq!(own.known(false), None);
        own.vote(ip("2.2.2.2"), ip("8.8.8.8"));
        assert_eq!(own.known(false), None);
        own.vote(ip("3.3.3.3"), ip("9.9.9.9"));
        assert_eq!((own.known(false), own.known(true)), (Some(ip("9.9.9.9")), None));
        own.vote(ip("1.1.1.1"), ip("8.8.8.8"));
        own.vote(ip("1.1.1.1"), ip("2001:db8::1"));
        own.vote(ip("4.4.4.4"), ip("2001:db8::1"));
        assert_eq!((own.known(false), own.known(true)), (Some(ip("8.8.8.8")), Some(ip("2001:db8::1"))));
        for voter in 0..1000_u32 {
            own.vote(IpAddr::from((voter | 0x0a00_0000).to_be_bytes()), ip("7.7.7.7"));
        }
        assert_eq!(own.votes.len(), VOTERS_MAX);
    }

    proptest! {
        #[test]
        fn both_ends_come_to_the_same(one: ([u8; 4], u16), other: ([u8; 4], u16), six: ([u8; 16], [u8; 16])) {
            let (one, other) = (SocketAddr::from(one), SocketAddr::from(other));
            prop_assert_eq!(canonical_priority(one, other), canonical_priority(other, one));
            let (one, other) = (SocketAddr::from((six.0, 1)), SocketAddr::from((six.1, 2)));
            prop_assert_eq!(canonical_priority(one, other), canonical_priority(other, one));
        }
    }
}
