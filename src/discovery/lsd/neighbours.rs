//! How much of what neighbours say is listened to. Pure: `now` comes in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Datagrams that are read at once, and then on average a second.
const BURST: u32 = 64;
const PER_SECOND: u32 = 32;
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 512;
/// Addresses of one machine, and of this one, where tests and several clients live.
const PORTS_MAX: usize = 4;
const PORTS_MAX_LOOPBACK: usize = 64;
/// An address is told again after so long: nobody should announce more often.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// An address of which nothing was heard for so long makes room: two announces were missed.
const FORGOTTEN: Duration = Duration::from_secs(660);

/// Who has announced himself.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// When each was told of last.
    told: HashMap<SocketAddr, Instant>,
}

impl Neighbours {
    /// Whether this announce is to be told: not when it was a moment ago, nor when there is no room for one more.
    pub(super) fn tell(&mut self, addr: SocketAddr, now: Instant) -> bool {
        if let Some(told) = self.told.get_mut(&addr) {
            let is_due = now.saturating_duration_since(*told) >= TOLD_AGAIN;
            if is_due {
                *told = now;
            }
            return is_due;
        }
        self.told.retain(|_, told| now.saturating_duration_since(*told) < FORGOTTEN);
        let has_room = self.told.len() < ADDRESSES_MAX && self.ports_of(addr.ip()) < ports_max(addr.ip());
        if has_room {
            self.told.insert(addr, now);
        }
        has_room
    }

    fn ports_of(&self, ip: IpAddr) -> usize {
        self.told.keys().filter(|known| known.ip() == ip).count()
    }
}

fn ports_max(ip: IpAddr) -> usize {
    if ip.to_canonical().is_loopback() { PORTS_MAX_LOOPBACK } else { PORTS_MAX }
}

/// How many datagrams may be read, however many come.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Takes one: the wait before the next may be read, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> Option<Duration> {
        let each = Duration::from_secs(1) / PER_SECOND;
        let gained = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX).min(BURST);
        if gained > 0 {
            self.left = (self.left + gained).min(BURST);
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
        (self.left == 0).then_some(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    #[test]
    fn an_address_is_told_once_a_minute() {
        let (mut neighbours, start) = (Neighbours::default(), Instant::now());
        assert!(neighbours.tell(addr(1, 1), start));
        assert!(!neighbours.tell(addr(1, 1), start + Duration::from_secs(59)));
        assert!(neighbours.tell(addr(1, 1), start + TOLD_AGAIN));
        assert!(!neighbours.tell(addr(1, 1), start + TOLD_AGAIN + Duration::from_secs(1)));
    }

    #[test]
    fn one_machine_has_few_ports_and_all_together_have_their_limit() {
        let (mut neighbours, now) = (Neighbours::default(), Instant::now());
        assert_eq!((1..100).filter(|&port| neighbours.tell(addr(1, port), now)).count(), PORTS_MAX);
        let ours = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!((1..100).filter(|&port| neighbours.tell(ours(port), now)).count(), PORTS_MAX_LOOPBACK);
        let told = (2..=255).flat_map(|host| (1..=4).map(move |port| addr(host, port)));
        let room = ADDRESSES_MAX - PORTS_MAX - PORTS_MAX_LOOPBACK;
        assert_eq!(told.filter(|&addr| neighbours.tell(addr, now)).count(), room);
        assert!(!neighbours.tell(addr(255, 9), now));
        assert!(neighbours.tell(addr(255, 9), now + FORGOTTEN), "the others are forgotten");
        assert_eq!(neighbours.told.len(), 1);
    }

    #[test]
    fn a_flood_is_read_at_a_steady_pace() {
        let start = Instant::now();
        let (mut budget, mut now, mut read) = (Budget::new(start), start, 0);
        while now < start + Duration::from_secs(10) {
            read += 1;
            now += budget.take(now).unwrap_or_default();
        }
        assert!((320..=400).contains(&read), "{read}");
        assert_eq!(budget.take(now + Duration::from_secs(100)), None, "a pause makes up for it");
    }
}
