//! What became of the peers of a run: of those that are connected, were, or could not be reached.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{PEERS_SHOWN_MAX, PeerLine, PeerTable};
use crate::net::close::CloseReason;
use crate::net::shared::PeerReport;

/// Addresses that something is kept of. Of others it is only known how many there were.
const KNOWN_MAX: usize = 4096;

/// The peers of a run.
#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: HashMap<SocketAddr, Entry>,
    /// Addresses that there was no room for.
    others: usize,
}

/// One address.
#[derive(Debug, Default)]
struct Entry {
    /// Sums over the connections that are over.
    past: Sums,
    /// The last report of the connection there is, or of the last one there was.
    last: Option<PeerReport>,
    is_open: bool,
    reason: Option<String>,
}

/// What came over connections.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    useful: u64,
    wasted: u64,
    in_place: u64,
    connected: Duration,
}

impl Sums {
    fn with(self, report: &PeerReport) -> Self {
        Self {
            useful: self.useful + report.tally.useful,
            wasted: self.wasted + report.tally.wasted,
            in_place: self.in_place + report.in_place,
            connected: self.connected + report.connected,
        }
    }
}

impl Roster {
    /// Takes in how a peer stands.
    pub(super) fn report(&mut self, report: PeerReport) {
        if let Some(entry) = self.entry(report.addr) {
            entry.is_open = true;
            entry.last = Some(report);
        }
    }

    /// Notes that a connection has ended, or did not come about. What it had brought was reported before.
    pub(super) fn closed(&mut self, addr: SocketAddr, reason: &CloseReason) {
        let Some(entry) = self.entry(addr) else { return };
        // With the download end all connections, of which the state before says more.
        if matches!(reason, CloseReason::Finished) {
            return;
        }
        if std::mem::take(&mut entry.is_open)
            && let Some(last) = &mut entry.last
        {
            entry.past = entry.past.with(last);
            last.tally = Default::default();
            (last.in_place, last.connected) = (0, Duration::ZERO);
        }
        entry.reason = Some(reason.to_string());
    }

    fn entry(&mut self, addr: SocketAddr) -> Option<&mut Entry> {
        let is_full = self.peers.len() >= KNOWN_MAX;
        if is_full && !self.peers.contains_key(&addr) {
            self.others += 1;
            return None;
        }
        Some(self.peers.entry(addr).or_default())
    }

    /// Those that have sent the most.
    pub(super) fn table(&self) -> PeerTable {
        let mut peers: Vec<_> = self.peers.iter().map(|(&addr, entry)| entry.line(addr)).collect();
        // Who was connected tells more than who was not, and the order of a hash table decides nothing.
        peers.sort_by_key(|line| {
            let is_stranger = line.client.is_none();
            (std::cmp::Reverse((line.useful, line.wasted)), is_stranger, line.addr)
        });
        let others = self.others + peers.len().saturating_sub(PEERS_SHOWN_MAX);
        peers.truncate(PEERS_SHOWN_MAX);
        PeerTable { peers, others }
    }
}

impl Entry {
    fn line(&self, addr: SocketAddr) -> PeerLine {
        let last = self.last.as_ref();
        let sums = last.map_or(self.past, |last| self.past.with(last));
        let Sums { useful, wasted, in_place, connected } = sums;
        let average = (useful as f64 / connected.as_secs_f64().max(1e-3)) as u64;
        PeerLine {
            addr,
            client: last.map(|last| last.client.clone()),
            state: last.filter(|_| self.is_open).map(|last| last.state),
            rate: last.filter(|_| self.is_open).map_or(average, |last| last.rate),
            useful,
            wasted,
            in_place,
            reason: self.reason.clone().filter(|_| !self.is_open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::session::{Standing, Tally};

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn report(port: u16, useful: u64) -> PeerReport {
        PeerReport {
            addr: addr(port),
            client: "somebody".to_owned(),
            state: Standing::Sending,
            rate: 7,
            connected: Duration::from_secs(2),
            tally: Tally { useful, wasted: 1 },
            in_place: 3,
        }
    }

    #[test]
    fn all_connections_of_a_peer_count() {
        let mut roster = Roster::default();
        roster.report(report(1, 50));
        roster.report(report(1, 100));
        roster.closed(addr(1), &CloseReason::Closed);
        let line = &roster.table().peers[0];
        assert_eq!((line.useful, line.wasted, line.in_place, line.rate), (100, 1, 3, 50));
        assert_eq!((line.state, line.reason.as_deref()), (None, Some("it closed the connection")));
        roster.closed(addr(1), &CloseReason::DialTimeout);
        roster.report(report(1, 10));
        let line = &roster.table().peers[0];
        assert_eq!((line.useful, line.wasted, line.in_place, line.rate), (110, 2, 6, 7));
        assert_eq!((line.state, line.reason.as_deref()), (Some(Standing::Sending), None));
        roster.closed(addr(1), &CloseReason::Finished);
        assert_eq!(roster.table().peers[0].state, Some(Standing::Sending));
    }

    #[test]
    fn those_who_have_sent_the_most_are_shown() {
        let mut roster = Roster::default();
        for port in 0..KNOWN_MAX as u16 + 10 {
            roster.closed(addr(port), &CloseReason::DialTimeout);
        }
        roster.report(report(5, 1));
        roster.report(report(6, 2));
        roster.report(report(7, 0));
        let PeerTable { peers, others } = roster.table();
        assert_eq!((peers.len(), others), (PEERS_SHOWN_MAX, KNOWN_MAX + 10 - PEERS_SHOWN_MAX));
        let first: Vec<_> = peers.iter().take(4).map(|line| line.addr.port()).collect();
        assert_eq!(first, [6, 5, 7, 0]);
    }
}
