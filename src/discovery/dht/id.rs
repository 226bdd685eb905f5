//! Node ids: the distance between them (BEP 5), and which of them an address may have (BEP 42).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Bytes of a node id, and of an info hash.
pub const ID_LEN: usize = 20;

/// How far two ids are from each other; less is closer.
pub type Distance = [u8; ID_LEN];

/// Names a node, or a place between nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; ID_LEN]);

impl NodeId {
    /// XOR, as a big-endian number.
    pub fn distance(self, other: Self) -> Distance {
        std::array::from_fn(|index| self.0[index] ^ other.0[index])
    }

    /// The id that a node at `ip` may have, for which `random` is the choice that is left (BEP 42).
    pub fn of_ip(ip: IpAddr, random: [u8; ID_LEN]) -> Self {
        let mut id = random;
        let crc = prefix(ip, id[ID_LEN - 1]).to_be_bytes();
        id[0] = crc[0];
        id[1] = crc[1];
        id[2] = (crc[2] & 0xf8) | (id[2] & 0x07);
        Self(id)
    }

    /// Whether a node at `ip` may have this id (BEP 42). Addresses that are not of the internet may have any.
    pub fn fits(self, ip: IpAddr) -> bool {
        Scope::of(ip) < Scope::Global || Self::of_ip(ip, self.0) == self
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The checksum whose first 21 bits are those of the id. The last byte of the id chooses one of eight.
fn prefix(ip: IpAddr, choice: u8) -> u32 {
    const MASK_V4: u32 = 0x030f_3fff;
    const MASK_V6: u64 = 0x0103_070f_1f3f_7fff;
    let choice = choice & 7;
    match ip {
        IpAddr::V4(ip) => {
            let masked = u32::from(ip) & MASK_V4;
            crc32c(&(masked | u32::from(choice) << 29).to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let masked = (u128::from(ip) >> 64) as u64 & MASK_V6;
            crc32c(&(masked | u64::from(choice) << 61).to_be_bytes())
        }
    }
}

/// CRC-32C (Castagnoli), bit by bit: it is taken of 4 or 8 bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 0 { 0 } else { POLYNOMIAL };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shift))
}

/// How far an address reaches, the narrowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// This network: private, link-local, unique local, shared by a carrier.
    Local,
    /// The internet.
    Global,
}

impl Scope {
    /// The scope of an address that is one of a single machine.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) => {
                let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
                if ip.is_private() || ip.is_link_local() || is_shared { Self::Local } else { Self::Global }
            }
            IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_unique_local() => Self::Local,
            IpAddr::V6(_) => Self::Global,
        }
    }
}

/// The address as it is used everywhere here, without zones and with IPv4 as IPv4. `None` where no datagram and no
/// connection can go: port 0, or no address of a single machine.
pub fn usable(addr: SocketAddr) -> Option<SocketAddr> {
    let ip = addr.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    let is_single = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast;
    (is_single && addr.port() != 0).then_some(SocketAddr::new(ip, addr.port()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of BEP 42: address, last byte, and the first three bytes, of which the last 3 bits are free.
    const EXAMPLES: [(&str, u8, [u8; 3]); 5] = [
        ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
        ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
        ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
        ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
        ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
    ];

    #[test]
    fn ids_are_those_of_the_examples() {
        for (ip, choice, head) in EXAMPLES {
            let mut id = [0x77; ID_LEN];
            id[..3].copy_from_slice(&head);
            id[ID_LEN - 1] = choice;
            let ip: IpAddr = ip.parse().unwrap();
            assert!(NodeId(id).fits(ip), "{ip}");
            assert_eq!(NodeId::of_ip(ip, id), NodeId(id));
            id[2] ^= 0x08;
            assert!(!NodeId(id).fits(ip), "{ip}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn addresses_of_a_network_may_have_any_id() {
        for ip in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.9", "169.254.1.1", "100.64.0.1", "::1"] {
            assert!(NodeId([9; ID_LEN]).fits(ip.parse().unwrap()), "{ip}");
        }
        assert!(!NodeId([9; ID_LEN]).fits("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn scopes_are_ordered() {
        for (ip, scope) in [
            ("127.3.2.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("192.168.1.1", Scope::Local),
            ("100.100.0.1", Scope::Local),
            ("fe80::1", Scope::Local),
            ("fd00::1", Scope::Local),
            ("100.128.0.1", Scope::Global),
            ("2001:db8::1", Scope::Global),
        ] {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
        assert!(Scope::Loopback < Scope::Local && Scope::Local < Scope::Global);
    }

    #[test]
    fn addresses_of_nobody_are_not_usable() {
        for addr in ["1.2.3.4:0", "0.0.0.0:1", "0.1.2.3:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1"] {
            assert_eq!(usable(addr.parse().unwrap()), None, "{addr}");
        }
        assert_eq!(usable("[ff02::1]:1".parse().unwrap()), None);
        let mapped = usable("[::ffff:1.2.3.4]:5".parse().unwrap());
        assert_eq!(mapped, Some("1.2.3.4:5".parse().unwrap()));
        assert_eq!(usable("[::1]:5".parse().unwrap()), Some("[::1]:5".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_id_made_for_an_address_fits_it(ip: IpAddr, random: [u8; ID_LEN]) {
            let id = NodeId::of_ip(ip, random);
            prop_assert!(id.fits(ip));
            prop_assert_eq!(&id.0[3..], &random[3..]);
        }
    }
}
