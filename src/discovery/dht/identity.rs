//! Who we are to other nodes: an id for each address family, which fits the address that others see us at (BEP 42).

use std::net::{IpAddr, SocketAddr};

use super::id::{NodeId, Scope, usable};
use super::random::Random;

/// How many nodes at different addresses have to see us at the same address.
const WITNESSES_MIN: usize = 3;

/// How many of the latest are remembered, per family.
const WITNESSES_MAX: usize = 16;

/// One of the two networks of nodes (BEP 32).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The one of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Our ids, and what they are made from.
#[derive(Clone, Debug)]
pub struct Identity {
    random: Random,
    v4: Face,
    v6: Face,
}

#[derive(Clone, Debug)]
struct Face {
    id: NodeId,
    external: Option<IpAddr>,
    /// Who said what, the latest last.
    witnesses: Vec<(IpAddr, IpAddr)>,
}

impl Identity {
    /// Random ids. Whoever knows the seed can answer in other nodes' names.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut face = || Face { id: NodeId(random.bytes()), external: None, witnesses: Vec::new() };
        let (v4, v6) = (face(), face());
        Self { random, v4, v6 }
    }

    /// Our id among the nodes of a family.
    pub const fn id(&self, family: Family) -> NodeId {
        match family {
            Family::V4 => self.v4.id,
            Family::V6 => self.v6.id,
        }
    }

    /// Where others see us, as far as they agree.
    pub fn externals(&self) -> impl Iterator<Item = IpAddr> {
        [self.v4.external, self.v6.external].into_iter().flatten()
    }

    /// Bytes that nobody can guess.
    pub(super) fn random<const LEN: usize>(&mut self) -> [u8; LEN] {
        self.random.bytes()
    }

    /// A node says that it sees us at `ip`. Enough that agree make it so, and the id fits it from then on.
    pub(super) fn on_witness(&mut self, witness: SocketAddr, ip: IpAddr) {
        let Some(ip) = usable(SocketAddr::new(ip, 1)).map(|addr| addr.ip()) else { return };
        let family = Family::of(ip);
        if Family::of(witness.ip()) != family {
            return;
        }
        let face = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        face.witnesses.retain(|(other, _)| *other != witness.ip());
        if face.witnesses.len() == WITNESSES_MAX {
            face.witnesses.remove(0);
        }
        face.witnesses.push((witness.ip(), ip));
        let agree = |ip| face.witnesses.iter().filter(|(_, said)| *said == ip).count();
        let is_better = face.external.is_none_or(|old| agree(ip) > agree(old));
        if face.external == Some(ip) || agree(ip) < WITNESSES_MIN || !is_better {
            return;
        }
        face.external = Some(ip);
        if Scope::of(ip) == Scope::Global && !face.id.fits(ip) {
            face.id = NodeId::of_ip(ip, self.random.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_id_fits_the_address_that_three_nodes_see() {
        let mut identity = Identity::new(1);
        let before = identity.id(Family::V4);
        for witness in ["1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3", "2.2.2.2:1", "[2001:db8::5]:1"] {
            identity.on_witness(addr(witness), ip("5.6.7.8"));
        }
        assert_eq!((identity.id(Family::V4), identity.externals().count()), (before, 0));
        identity.on_witness(addr("3.3.3.3:1"), ip("5.6.7.8"));
        assert_eq!(identity.externals().collect::<Vec<_>>(), [ip("5.6.7.8")]);
        assert!(identity.id(Family::V4).fits(ip("5.6.7.8")) && identity.id(Family::V4) != before);
    }

    #[test]
    fn a_few_liars_change_nothing() {
        let mut identity = Identity::new(2);
        let honest = |n: u8| SocketAddr::from(([1, 1, 1, n], 1));
        (0..5).for_each(|n| identity.on_witness(honest(n), ip("5.6.7.8")));
        let id = identity.id(Family::V4);
        (10..15).for_each(|n| identity.on_witness(honest(n), ip("9.9.9.9")));
        assert_eq!(identity.id(Family::V4), id);
        (15..17).for_each(|n| identity.on_witness(honest(n), ip("9.9.9.9")));
        assert!(identity.id(Family::V4).fits(ip("9.9.9.9")), "a network can get another address");
    }

    #[test]
    fn an_address_of_the_network_leaves_the_id_alone() {
        let mut identity = Identity::new(3);
        let id = identity.id(Family::V4);
        (0..9).for_each(|n| identity.on_witness(SocketAddr::from(([10, 0, 0, n], 1)), ip("10.0.0.99")));
        assert_eq!(identity.id(Family::V4), id);
        assert_eq!(identity.externals().collect::<Vec<_>>(), [ip("10.0.0.99")]);
        (0..9).for_each(|n| identity.on_witness(SocketAddr::from(([10, 0, 0, n], 1)), ip("0.0.0.0")));
        assert_eq!(identity.externals().count(), 1);
    }
}
