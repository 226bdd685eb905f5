//! The nodes that one lookup knows of, closest to its target first.
//!
//! Whoever owns one address can claim any number of nodes there, close to any target. So an address has one node that
//! counts, the first that answers, and a few that are known of before.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::id::{Distance, NodeId};
use super::krpc::{Node, Transaction};

/// Nodes that are known of at a time. The farthest that were not asked make room for closer ones.
pub(super) const CANDIDATES_MAX: usize = 256;

/// Of those, nodes whose id does not fit their address. Anybody can make up any number of them next to the target.
pub(super) const MISFITS_MAX: usize = CANDIDATES_MAX / 2;

/// Nodes at one place that are known of before one answers. More than one, so that who names a wrong port or id for
/// somebody else's address does not hide the right one.
const PER_PLACE_MAX: usize = 2;

/// Queries that one place gets in a lookup.
const QUERIES_PER_PLACE_MAX: u8 = 3;

/// What one owner has for certain: an address, or the 64 bits of a network. On this machine a port is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place(IpAddr, u16);

impl Place {
    pub(super) fn of(addr: SocketAddr) -> Self {
        match addr.ip() {
            ip if ip.is_loopback() => Self(ip, addr.port()),
            ip @ IpAddr::V4(_) => Self(ip, 0),
            IpAddr::V6(ip) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Self(Ipv6Addr::from(network).into(), 0)
            }
        }
    }
}

/// How far it is with a node. One that fails is not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Fresh,
    /// Nobody waits for a slow one, but its answer counts.
    Asked {
        transaction: Transaction,
        is_slow: bool,
    },
    Answered {
        token: Option<Vec<u8>>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) node: Node,
    pub(super) state: State,
    distance: Distance,
    /// Whether its address may have its id (BEP 42).
    fits: bool,
}

/// Which of the nodes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    All,
    /// Those whose id fits their address. Ids next to a target are then hard to come by.
    Fitting,
}

#[derive(Clone, Debug)]
pub(super) struct Candidates {
    target: NodeId,
    /// By distance, and by address where that is the same.
    list: Vec<Candidate>,
    /// Whom not to ask again. As few as there are queries in a lookup.
    asked: HashSet<SocketAddr>,
    asked_places: HashMap<Place, u8>,
}

impl Candidates {
    pub(super) fn new(target: NodeId) -> Self {
        Self { target, list: Vec::new(), asked: HashSet::new(), asked_places: HashMap::new() }
    }

    /// Adds a node that somebody named. What cannot be of use is left out.
    pub(super) fn name(&mut self, node: Node) {
        let place = Place::of(node.addr);
        let queries = self.asked_places.get(&place).copied().unwrap_or_default();
        if self.asked.contains(&node.addr) || queries >= QUERIES_PER_PLACE_MAX {
            return;
        }
        let mut rivals = self.list.iter().filter(|other| Place::of(other.node.addr) == place);
        let is_taken = rivals.clone().any(|other| other.is_answered() || other.node == node);
        if is_taken || rivals.by_ref().count() >= PER_PLACE_MAX {
            return;
        }
        self.insert(node, State::Fresh);
        if self.list.iter().filter(|candidate| !candidate.fits).count() > MISFITS_MAX {
            self.drop_farthest(|candidate| !candidate.fits);
        }
        if self.list.len() > CANDIDATES_MAX {
            self.drop_farthest(|_| true);
        }
    }

    /// Drops the farthest node of some that was not asked.
    fn drop_farthest(&mut self, is_one: impl Fn(&Candidate) -> bool) {
        let is_one = |candidate: &Candidate| candidate.state == State::Fresh && is_one(candidate);
        if let Some(farthest) = self.list.iter().rposition(is_one) {
            self.list.remove(farthest);
        }
    }

    fn insert(&mut self, node: Node, state: State) {
        let distance = node.id.distance(self.target);
        let key = (distance, node.addr);
        let at = self.list.partition_point(|other| (other.distance, other.node.addr) < key);
        let fits = node.id.fits(node.addr.ip());
        self.list.insert(at, Candidate { node, state, distance, fits });
    }

    /// The closest node that is worth a query: there are fewer than `count` closer ones that have answered or may be
    /// about to.
    pub(super) fn next(&self, view: View, count: usize) -> Option<SocketAddr> {
        let mut closer = 0;
        for candidate in self.in_view(view) {
            match candidate.state {
                State::Fresh if self.is_place_busy(candidate.node.addr) => {}
                State::Fresh => return Some(candidate.node.addr),
                State::Asked { is_slow: true, .. } => {}
                State::Asked { is_slow: false, .. } | State::Answered { .. } => closer += 1,
            }
            if closer == count {
                return None;
            }
        }
        None
    }

    fn is_place_busy(&self, addr: SocketAddr) -> bool {
        let place = Place::of(addr);
        let is_busy = |other: &Candidate| matches!(other.state, State::Asked { .. });
        self.list.iter().any(|other| is_busy(other) && Place::of(other.node.addr) == place)
    }

    fn in_view(&self, view: View) -> impl Iterator<Item = &Candidate> {
        self.list.iter().filter(move |candidate| view == View::All || candidate.fits)
    }

    /// Whether this address was not asked yet, and may be.
    pub(super) fn may_ask(&self, addr: SocketAddr) -> bool {
        !self.asked.contains(&addr)
    }

    /// A query is on its way there; its sender need not be known as a node.
    pub(super) fn on_asked(&mut self, addr: SocketAddr, transaction: Transaction) {
        self.asked.insert(addr);
        let queries = self.asked_places.entry(Place::of(addr)).or_default();
        *queries = queries.saturating_add(1);
        let mut is_first = true;
        // Of two ids for one address the closer one is asked.
        self.list.retain_mut(|candidate| {
            if candidate.node.addr != addr {
                return true;
            }
            candidate.state = State::Asked { transaction, is_slow: false };
            std::mem::take(&mut is_first)
        });
    }

    /// Its answer is not waited for any longer.
    pub(super) fn on_slow(&mut self, slow: Transaction) {
        for candidate in &mut self.list {
            if let State::Asked { transaction, is_slow } = &mut candidate.state
                && *transaction == slow
            {
                *is_slow = true;
            }
        }
    }

    /// It does not answer, or not as it should.
    pub(super) fn on_failed(&mut self, addr: SocketAddr) {
        self.list.retain(|candidate| candidate.node.addr != addr);
    }

    /// It has answered, under an id that may be another than the one it was known by. True when it counts.
    pub(super) fn on_answered(&mut self, node: Node, token: Option<Vec<u8>>) -> bool {
        let place = Place::of(node.addr);
        let is_taken =
            self.list.iter().any(|other| other.is_answered() && Place::of(other.node.addr) == place);
        self.on_failed(node.addr);
        if is_taken {
            return false;
        }
        let is_asked = |other: &Candidate| matches!(other.state, State::Asked { .. });
        self.list.retain(|other| is_asked(other) || Place::of(other.node.addr) != place);
        self.insert(node, State::Answered { token });
        true
    }

    /// Those that have answered and count, the closest first.
    pub(super) fn answered(&self, view: View) -> impl Iterator<Item = (&Node, Option<&[u8]>)> {
        self.in_view(view).filter_map(|candidate| match &candidate.state {
            State::Answered { token } => Some((&candidate.node, token.as_deref())),
            State::Fresh | State::Asked { .. } => None,
        })
    }

    #[cfg(test)]
    pub(super) fn list(&self) -> &[Candidate] {
        &self.list
    }
}

impl Candidate {
    const fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::dht::id::ID_LEN;

    fn node(first: u8, addr: &str) -> Node {
        let mut id = [0; ID_LEN];
        id[0] = first;
        Node { id: NodeId(id), addr: addr.parse().unwrap() }
    }

    fn empty() -> Candidates {
        Candidates::new(NodeId([0; ID_LEN]))
    }

    #[test]
    fn the_closest_are_asked_first_and_only_while_they_can_be_better() {
        let mut candidates = empty();
        (1..=9).rev().for_each(|n| candidates.name(node(n, &format!("10.0.0.{n}:1"))));
        for n in 1..=3 {
            let next = candidates.next(View::All, 3).unwrap();
            assert_eq!(next, format!("10.0.0.{n}:1").parse().unwrap());
            candidates.on_asked(next, [n; 4]);
        }
        assert_eq!(candidates.next(View::All, 3), None);
        candidates.on_slow([2; 4]);
        assert_eq!(candidates.next(View::All, 3), Some("10.0.0.4:1".parse().unwrap()));
        candidates.on_failed("10.0.0.1:1".parse().unwrap());
        candidates.on_asked("10.0.0.4:1".parse().unwrap(), [4; 4]);
        assert_eq!(candidates.next(View::All, 3), Some("10.0.0.5:1".parse().unwrap()));
    }

    #[test]
    fn one_address_has_one_node() {
        let mut candidates = empty();
        for port in 1..100 {
            candidates.name(node(port as u8, &format!("1.2.3.4:{port}")));
            candidates.name(node(port as u8, &format!("[2001:db8::{port}]:7")));
            candidates.name(node(port as u8, &format!("127.0.0.1:{port}")));
        }
        assert_eq!(candidates.list().len(), 2 * PER_PLACE_MAX + 99);
        let first: SocketAddr = "1.2.3.4:1".parse().unwrap();
        candidates.on_asked(first, [1; 4]);
        assert!(candidates.is_place_busy("1.2.3.4:2".parse().unwrap()));
        assert!(candidates.on_answered(node(1, "1.2.3.4:1"), None));
        candidates.name(node(1, "1.2.3.4:50"));
        assert!(!candidates.on_answered(node(3, "1.2.3.4:60"), None));
        let there = candidates.list().iter().filter(|other| other.node.addr.ip() == first.ip());
        assert_eq!(there.count(), 1);
    }

    #[test]
    fn a_failed_node_is_not_asked_again_and_its_place_not_often() {
        let mut candidates = empty();
        for port in 1..=10_u8 {
            let addr = format!("1.2.3.4:{port}");
            candidates.name(node(1, &addr));
            if let Some(next) = candidates.next(View::All, 8) {
                candidates.on_asked(next, [port; 4]);
                candidates.on_failed(next);
            }
            candidates.name(node(1, &addr));
        }
        assert_eq!(candidates.asked.len(), usize::from(QUERIES_PER_PLACE_MAX));
    }

    #[test]
    fn the_farthest_make_room() {
        let mut candidates = empty();
        for n in (0..=255_u8).rev() {
            candidates.name(node(n, &format!("10.0.0.{n}:1")));
            candidates.name(node(n, &format!("10.0.1.{n}:1")));
        }
        assert_eq!(candidates.list().len(), CANDIDATES_MAX);
        assert_eq!(candidates.list().last().unwrap().node.id.0[0], 127);
    }

    #[test]
    fn misfits_leave_room_for_others() {
        let mut candidates = empty();
        for n in 0..=255_u8 {
            let ip = [8, 8, n, 1].into();
            candidates.name(Node { id: NodeId::of_ip(ip, [n; ID_LEN]), addr: SocketAddr::new(ip, 1) });
        }
        for n in 0..=255_u8 {
            candidates.name(node(0, &format!("9.9.{n}.1:1")));
            candidates.name(node(0, &format!("9.9.{n}.2:1")));
        }
        let misfits = candidates.list().iter().filter(|candidate| !candidate.fits).count();
        assert_eq!((candidates.list().len(), misfits), (CANDIDATES_MAX, MISFITS_MAX));
    }

    #[test]
    fn an_id_that_does_not_fit_is_left_out_of_that_view() {
        let mut candidates = empty();
        candidates.name(node(1, "8.8.8.8:1"));
        let ip = "9.9.9.9".parse().unwrap();
        let fitting = Node { id: NodeId::of_ip(ip, [7; ID_LEN]), addr: SocketAddr::new(ip, 1) };
        candidates.name(fitting);
        assert_eq!(candidates.next(View::All, 8), Some("8.8.8.8:1".parse().unwrap()));
        assert_eq!(candidates.next(View::Fitting, 8), Some(fitting.addr));
    }
}
