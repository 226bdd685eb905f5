//! The network interfaces of this machine, as the kernel lists them below `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Interfaces that are used. A machine with more has them for other purposes.
const INTERFACES_MAX: usize = 16;

/// The network namespace of this thread, which `/proc/net` need not be.
const FOLDER: &str = "/proc/thread-self/net";

/// The interface of the machine itself.
pub(super) const LOOPBACK: &str = "lo";

/// An interface that is up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// Whether it takes part in multicast, in either version of IP.
    pub(super) has_v4: bool,
    pub(super) has_v6: bool,
    /// The networks behind it, without a router in between.
    networks: Vec<Network>,
}

impl Interface {
    /// Whether somebody whose datagram came in here is on a local network.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_private = match ip {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
        };
        let is_nobody = ip.is_unspecified() || ip.is_multicast();
        let is_near = is_private || self.name == LOOPBACK || self.networks.iter().any(|net| net.contains(ip));
        is_near && !is_nobody
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    /// Bits that all its addresses begin with; not 0.
    prefix_len: u32,
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        let differing = match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => u128::from(u32::from(net) ^ u32::from(ip)) << 96,
            (IpAddr::V6(net), IpAddr::V6(ip)) => u128::from(net) ^ u128::from(ip),
            _ => return false,
        };
        differing.leading_zeros() >= self.prefix_len
    }
}

/// The interfaces that are up.
pub(super) fn list() -> Vec<Interface> {
    // What cannot be read is not there: a kernel without IPv6, or a sandbox.
    let read = |name| fs::read_to_string(format!("{FOLDER}/{name}")).unwrap_or_default();
    parse(&read("igmp"), &read("igmp6"), &read("route"), &read("if_inet6"))
}

fn parse(igmp: &str, igmp6: &str, route: &str, if_inet6: &str) -> Vec<Interface> {
    let mut found = BTreeMap::<u32, Interface>::new();
    for (text, is_v6) in [(igmp, false), (igmp6, true)] {
        for line in text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())) {
            let mut words = line.split_whitespace();
            let (Some(index), Some(name)) = (words.next(), words.next()) else { continue };
            let Ok(index) = index.parse() else { continue };
            if found.len() >= INTERFACES_MAX && !found.contains_key(&index) {
                continue;
            }
            let interface = found.entry(index).or_default();
            interface.index = index;
            interface.name = name.trim_end_matches(':').to_owned();
            *if is_v6 { &mut interface.has_v6 } else { &mut interface.has_v4 } = true;
        }
    }
    let networks: Vec<_> =
        route.lines().filter_map(on_link_v4).chain(if_inet6.lines().filter_map(on_link_v6)).collect();
    for interface in found.values_mut() {
        let behind = networks.iter().filter(|(name, _)| *name == interface.name);
        interface.networks = behind.map(|&(_, network)| network).collect();
    }
    found.into_values().collect()
}

/// The network behind an interface that a line of the table of IPv4 routes tells of.
fn on_link_v4(line: &str) -> Option<(&str, Network)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, destination, gateway, _flags, _references, _use, _metric, mask, ..] = words[..] else {
        return None;
    };
    // The bytes of an address, taken for a number of this machine.
    let address = |text| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let prefix_len = u32::from(address(mask)?).count_ones();
    let is_on_link = address(gateway)?.is_unspecified() && prefix_len > 0;
    is_on_link.then_some((name, Network { address: address(destination)?.into(), prefix_len }))
}

/// The network that a line of the list of our IPv6 addresses tells of.
fn on_link_v6(line: &str) -> Option<(&str, Network)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [address, _index, prefix_len, _scope, _flags, name] = words[..] else { return None };
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let prefix_len = u32::from_str_radix(prefix_len, 16).ok().filter(|&len| len > 0)?;
    Some((name, Network { address: address.into(), prefix_len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
        1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
        2\teth0      :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
        30\tbr-0123456789a:     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
    const IGMP6: &str = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
        2    eth0            ff020000000000000000000000000001     1 0000000C 0\n\
        2    eth0            ff010000000000000000000000000001     1 00000008 0\n";
    const IF_INET6: &str = "20010db8000000010000000000000005 02 40 00 80     eth0\n\
        00000000000000000000000000000001 01 80 10 80       lo\n";

    fn interfaces() -> Vec<Interface> {
        // As a kernel of this machine's byte order writes them.
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let line = |destination, gateway, mask| {
            let [destination, gateway, mask] = [destination, gateway, mask].map(word);
            format!("eth0\t{destination}\t{gateway}\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let route = ["Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
            .to_owned()]
        .into_iter()
        .chain([
            line([0; 4], [203, 0, 113, 1], [0; 4]),
            line([203, 0, 113, 0], [0; 4], [255, 255, 255, 128]),
            line([198, 51, 100, 0], [203, 0, 113, 1], [255, 255, 255, 0]),
        ])
        .collect::<String>();
        parse(IGMP, IGMP6, &route, IF_INET6)
    }

    #[test]
    fn what_the_kernel_lists_is_read() {
        let found: Vec<_> = interfaces()
            .into_iter()
            .map(|found| (found.index, found.name, found.has_v4, found.has_v6))
            .collect();
        let expected = [(1, "lo", true, true), (2, "eth0", true, true), (30, "br-0123456789a", true, false)];
        assert_eq!(found, expected.map(|(index, name, v4, v6)| (index, name.to_owned(), v4, v6)));
    }

    #[test]
    fn neighbours_are_told_from_strangers() {
        let [lo, eth0, ..] = &interfaces()[..] else { panic!("two interfaces") };
        let cases = [
            ("10.1.2.3", true),
            ("192.168.0.9", true),
            ("172.16.5.4", true),
            ("169.254.1.1", true),
            ("127.0.0.1", true),
            ("203.0.113.127", true),
            ("203.0.113.128", false),
            ("198.51.100.7", false),
            ("8.8.8.8", false),
            ("0.0.0.0", false),
            ("239.192.152.143", false),
            ("::1", true),
            ("fe80::1", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:0:1::99", true),
            ("2001:db8:0:2::99", false),
            ("ff15::efc0:988f", false),
        ];
        for (ip, expected) in cases {
            assert_eq!(eth0.is_local(ip.parse().unwrap()), expected, "{ip}");
        }
        // What comes over the loopback interface comes from this machine.
        assert!(lo.is_local("198.18.0.1".parse().unwrap()));
        assert!(!lo.is_local("0.0.0.0".parse().unwrap()));
    }

    #[test]
    fn rubbish_is_no_interface() {
        assert_eq!(parse("1\n2 \nx y\n999999999999 z\n", "?", "a b c", "1 2 3 4 5 6 7"), []);
        let many: String = (1..100).map(|index| format!("{index}\tif{index} : 1 V3\n")).collect();
        assert_eq!(parse(&many, "", "", "").len(), INTERFACES_MAX);
    }

    #[test]
    fn this_machine_has_its_interfaces_listed() {
        // A sandbox may have none at all, and hide what there is.
        for interface in list() {
            assert!(interface.index > 0 && !interface.name.is_empty(), "{interface:?}");
        }
    }
}
