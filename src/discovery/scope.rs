//! How far an address reaches. Pure.
//!
//! A server elsewhere must not be able to have this machine ask its own services, or those of its network, for
//! anything: a redirect may lead to an address of the same scope or a wider one. Behind a proxy, which looks names up
//! by itself, this holds for names that spell an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where an address can be reached; a narrower one is less than a wider one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// From this machine only.
    Machine,
    /// From the same link. Clouds keep the credentials of a machine at such an address.
    Link,
    /// From the same private network.
    Private,
    /// From anywhere.
    Global,
}

impl Scope {
    /// The scope of an address. An IPv6 address that carries an IPv4 one has that one's.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => carried(ip).map_or_else(|| Self::of_v6(ip), Self::of_v4),
        }
    }

    const fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            // A connection to "this network" comes out at this machine.
            [127 | 0, ..] => Self::Machine,
            [169, 254, ..] | [224..=255, ..] => Self::Link,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [192, 0, 0, _] | [198, 18..=19, ..] => Self::Private,
            _ => Self::Global,
        }
    }

    const fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Machine,
            [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => Self::Link,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            _ => Self::Global,
        }
    }
}

/// The IPv4 address inside one that is mapped, compatible, translated (RFC 6052) or tunnelled (6to4).
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_has_its_scope() {
        for (scope, ips) in [
            (
                Scope::Machine,
                "127.0.0.1 127.9.9.9 0.0.0.0 ::1 :: ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::",
            ),
            (Scope::Link, "169.254.169.254 fe80::1 ff02::1 255.255.255.255 224.0.0.1 ::ffff:169.254.169.254"),
            (
                Scope::Private,
                "10.0.0.1 172.16.0.1 172.31.9.9 192.168.1.1 100.64.0.1 fd00::1 fc00::1 fec0::1 ::ffff:10.1.2.3",
            ),
            (
                Scope::Global,
                "1.1.1.1 172.32.0.1 100.128.0.1 192.167.0.1 2001:db8::1 2002:101:101:: ::ffff:8.8.8.8",
            ),
        ] {
            for ip in ips.split(' ') {
                assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
            }
        }
        assert!(
            Scope::Machine < Scope::Link && Scope::Link < Scope::Private && Scope::Private < Scope::Global
        );
    }
}
