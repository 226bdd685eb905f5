//! The addresses of a host, before a deadline.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use super::url::Host;

/// Addresses of one host name that are tried.
const ADDRS_MAX: usize = 16;

/// Bytes of the stack of a thread that looks up a name; resolvers are frugal, but not our own code.
const STACK_LEN: usize = 256 * 1024;

/// The first [`ADDRS_MAX`] addresses of a host, IPv6 and IPv4 in turn, so that a broken one of the two is not all that
/// is tried first. A lookup cannot be interrupted: one that outlasts `end` is left behind with its thread and ends by
/// itself.
///
/// # Errors
/// When the name has no address, or none before `end`.
pub(super) fn addresses(host: &Host, port: u16, end: Instant) -> io::Result<Vec<SocketAddr>> {
    let name = match host {
        Host::V6(ip) => return Ok(vec![SocketAddr::from((*ip, port))]),
        Host::Name(name) => match name.parse::<Ipv4Addr>() {
            Ok(ip) => return Ok(vec![SocketAddr::from((ip, port))]),
            Err(_) => name.clone(),
        },
    };
    let (answers, queue) = mpsc::channel();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Nobody hears it after the deadline.
        let _ = answers.send(found.map(|addrs| in_turn(addrs.collect())));
    };
    thread::Builder::new().name("resolver".to_owned()).stack_size(STACK_LEN).spawn(look_up)?;
    match queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(Ok(addrs)) if addrs.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"))
        }
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the name lookup failed")),
    }
}

/// Both families in turn, beginning with that of the first address; each keeps its order.
fn in_turn(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv6() == is_first_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    while mixed.len() < ADDRS_MAX {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            break;
        }
        for addr in pair.into_iter().flatten() {
            if !mixed.contains(&addr) {
                mixed.push(addr);
            }
        }
    }
    mixed.truncate(ADDRS_MAX);
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_come_in_turn() {
        let found = addrs(&["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let expected = addrs(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(in_turn(found), expected);
        assert_eq!(in_turn(Vec::new()), []);
        let many: Vec<SocketAddr> = (0..99).map(|n| SocketAddr::from(([10, 0, 0, n], 1))).collect();
        assert_eq!(in_turn(many.clone()), many[..ADDRS_MAX]);
    }

    #[test]
    fn an_address_is_its_own_and_a_name_that_is_none_is_an_error() {
        let end = Instant::now() + std::time::Duration::from_secs(5);
        let host = |text: &str| Host::Name(text.to_owned());
        assert_eq!(addresses(&host("127.0.0.1"), 7, end).unwrap(), addrs(&["127.0.0.1:7"]));
        assert_eq!(addresses(&Host::V6("::1".parse().unwrap()), 7, end).unwrap(), addrs(&["[::1]:7"]));
        // Too long for a name, so that no name server is asked.
        assert!(addresses(&host(&"x".repeat(64)), 7, end).is_err());
    }
}
