//! Lookups in made-up networks: hundreds of nodes with a virtual clock, lost datagrams, liars and sybils.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use proptest::prelude::*;

use super::super::id::ID_LEN;
use super::super::krpc::push_node;
use super::super::random::Random;
use super::*;
use crate::meta::bencode::{Limits, Value, Writer, parse};

const HASH: [u8; 20] = *b"a torrent's info hsh";
const PORT: u16 = 6881;

/// Where the lookup's datagrams come from.
const OUR_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(5, 6, 7, 8));

/// How long any lookup may take.
const TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    /// Never answers.
    Dead,
    /// Names addresses next to the info hash at which nobody is, and peers that do not exist.
    Liar,
    /// One of many at its address, with an id next to the info hash; names the others.
    Sybil,
}

struct SimNode {
    node: Node,
    manner: Manner,
    stored: Vec<SocketAddr>,
    announced: Vec<u16>,
}

struct Network {
    nodes: Vec<SimNode>,
    by_addr: HashMap<SocketAddr, usize>,
    random: Random,
    loss_per_mille: u64,
    queries: usize,
}

impl Network {
    /// So many nodes of each manner, one address each but for the sybils. The honest ones closest to the info hash
    /// in each family store the peers.
    fn new(seed: u64, manners: &[(Manner, usize)], loss_per_mille: u64, peers: &[SocketAddr]) -> Self {
        let mut network = Self {
            nodes: Vec::new(),
            by_addr: HashMap::new(),
            random: Random::new(seed),
            loss_per_mille,
            queries: 0,
        };
        for &(manner, count) in manners {
            for n in 0..count {
                network.add(manner, n);
            }
        }
        for family in Family::ALL {
            let is_one = |node: &&mut SimNode| {
                node.manner == Manner::Honest && Family::of(node.node.addr.ip()) == family
            };
            let mut honest: Vec<&mut SimNode> = network.nodes.iter_mut().filter(is_one).collect();
            honest.sort_by_key(|node| node.node.id.distance(NodeId(HASH)));
            honest.into_iter().take(CLOSEST).for_each(|node| node.stored = peers.to_vec());
        }
        network
    }

    fn add(&mut self, manner: Manner, n: usize) {
        let number = self.nodes.len() as u32;
        let (ip, port): (IpAddr, u16) = match manner {
            Manner::Sybil => ([66, 6, 6, 6].into(), 1000 + n as u16),
            _ if number.is_multiple_of(4) => {
                (format!("2001:db8:{:x}:{:x}::1", number >> 8, number).parse().unwrap(), 6881)
            }
            _ => ([20 + (number >> 16) as u8, (number >> 8) as u8, number as u8, 1].into(), 6881),
        };
        let id = match manner {
            Manner::Sybil | Manner::Liar => self.next_to_hash(),
            _ => NodeId::of_ip(ip, self.random.bytes()),
        };
        let node = Node { id, addr: SocketAddr::new(ip, port) };
        self.by_addr.insert(node.addr, self.nodes.len());
        self.nodes.push(SimNode { node, manner, stored: Vec::new(), announced: Vec::new() });
    }

    fn next_to_hash(&mut self) -> NodeId {
        let mut id = HASH;
        id[10..].copy_from_slice(&self.random.bytes::<10>());
        NodeId(id)
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        u64::from_be_bytes(self.random.bytes()) % 1000 < per_mille
    }

    fn index(&mut self, len: usize) -> usize {
        (u64::from_be_bytes(self.random.bytes()) % len as u64) as usize
    }

    /// What comes back, if anything does.
    fn answer(&mut self, transmit: &Transmit) -> Option<Vec<u8>> {
        self.queries += 1;
        let index = *self.by_addr.get(&transmit.to)?;
        let loss = self.loss_per_mille;
        if self.nodes[index].manner == Manner::Dead || self.chance(2 * loss) {
            return None;
        }
        let query = parse(&transmit.datagram, Limits::PEER_MESSAGE).unwrap();
        let root = query.root();
        assert_eq!(root.get("ro").and_then(Value::as_u64), Some(1));
        let arguments = root.get("a").unwrap();
        assert_eq!(arguments.get("info_hash").and_then(Value::as_bytes), Some(&HASH[..]));
        let is_announce = root.get("q").and_then(Value::as_bytes) == Some(b"announce_peer");
        if is_announce {
            assert_eq!(arguments.get("token").and_then(Value::as_bytes), Some(&token(transmit.to)[..]));
            let port = arguments.get("port").and_then(Value::as_u64).unwrap();
            self.nodes[index].announced.push(port as u16);
        }
        let (nodes, peers) = if is_announce { (Vec::new(), Vec::new()) } else { self.knowledge(index) };
        Some(reply(root.get("t").unwrap().as_bytes().unwrap(), &self.nodes[index].node, &nodes, &peers))
    }

    /// What a node says to `get_peers`.
    fn knowledge(&mut self, index: usize) -> (Vec<Node>, Vec<SocketAddr>) {
        let target = NodeId(HASH);
        match self.nodes[index].manner {
            Manner::Honest | Manner::Dead => {
                // It knows a part of the others, one at an address, and names the closest of each family.
                let len = self.nodes.len();
                let some: Vec<usize> = (0..60).map(|_| self.index(len)).collect();
                let mut known: Vec<Node> = some.into_iter().map(|index| self.nodes[index].node).collect();
                let own = self.nodes[index].node.id.distance(target);
                let mut all: Vec<Node> = self.nodes.iter().map(|node| node.node).collect();
                all.sort_by_key(|node| node.id.distance(self.nodes[index].node.id));
                known.extend(all.into_iter().take(16));
                known.retain(|node| node.id.distance(target) < own);
                known.sort_by_key(|node| node.id.distance(target));
                let mut ips = HashSet::new();
                known.retain(|node| ips.insert(node.addr.ip()));
                let (v4, v6): (Vec<Node>, Vec<Node>) =
                    known.into_iter().partition(|node| node.addr.is_ipv4());
                let nodes = v4.into_iter().take(8).chain(v6.into_iter().take(8)).collect();
                (nodes, self.nodes[index].stored.clone())
            }
            Manner::Liar => {
                let mut made_up = || {
                    let ip: [u8; 4] = self.random.bytes();
                    SocketAddr::from(([ip[0] % 90 + 100, ip[1], ip[2], ip[3]], 7))
                };
                let addrs: Vec<SocketAddr> = (0..300).map(|_| made_up()).collect();
                let nodes =
                    addrs.iter().take(16).map(|addr| Node { id: self.next_to_hash(), addr: *addr }).collect();
                (nodes, addrs[16..].to_vec())
            }
            Manner::Sybil => {
                let is_sybil = |node: &&SimNode| node.manner == Manner::Sybil;
                (self.nodes.iter().filter(is_sybil).map(|node| node.node).take(100).collect(), Vec::new())
            }
        }
    }

    fn announced(&self) -> Vec<&SimNode> {
        self.nodes.iter().filter(|node| !node.announced.is_empty()).collect()
    }
}

fn token(addr: SocketAddr) -> Vec<u8> {
    format!("token of {addr}").into_bytes()
}

fn reply(transaction: &[u8], from: &Node, nodes: &[Node], peers: &[SocketAddr]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for node in nodes {
        push_node(if node.addr.is_ipv4() { &mut v4 } else { &mut v6 }, node);
    }
    let mut datagram = Vec::new();
    Writer::new(&mut datagram).dict(|root| {
        if from.addr.is_ipv4() {
            root.key("ip").bytes([5, 6, 7, 8, 1, 1]);
        }
        root.key("r").dict(|reply| {
            reply.key("id").bytes(from.id.0);
            reply.key("nodes").bytes(&v4);
            reply.key("nodes6").bytes(&v6);
            reply.key("token").bytes(token(from.addr));
            reply.key("values").list(|list| {
                for peer in peers {
                    let mut compact = Vec::new();
                    push_node(&mut compact, &Node { id: from.id, addr: *peer });
                    list.bytes(&compact[ID_LEN..]);
                }
            });
        });
        root.key("t").bytes(transaction);
        root.key("y").bytes("r");
    });
    datagram
}

fn config(port: Option<u16>) -> LookupConfig {
    LookupConfig { info_hash: HASH, port, v4: true, v6: true }
}

struct Outcome {
    peers: Vec<SocketAddr>,
    lookup: Lookup,
    took: Duration,
}

/// Runs a lookup to its end from these seeds. Answers take 20 to 300 ms.
fn run(network: &mut Network, seeds: &[SocketAddr], port: Option<u16>) -> Outcome {
    let start = Instant::now();
    let mut lookup = Lookup::new(config(port), Identity::new(7), start);
    seeds.iter().for_each(|seed| lookup.add_seed(*seed));
    let mut arrivals: BTreeMap<(Instant, usize), (SocketAddr, Vec<u8>)> = BTreeMap::new();
    let (mut now, mut count, mut peers) = (start, 0, Vec::new());
    loop {
        while let Some(transmit) = lookup.poll_transmit(now) {
            count += 1;
            let delay = Duration::from_millis(20 + network.index(280) as u64);
            if let Some(answer) = network.answer(&transmit) {
                arrivals.insert((now + delay, count), (transmit.to, answer));
            }
        }
        check_limits(&lookup);
        peers.extend(lookup.take_peers());
        if lookup.is_over() {
            return Outcome { peers, lookup, took: now - start };
        }
        let wake_at = lookup.wake_at().expect("something is waited for");
        match arrivals.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= wake_at) {
            Some(at) => {
                now = at;
                let (_, (from, datagram)) = arrivals.pop_first().unwrap();
                lookup.handle(from, &datagram);
            }
            None => now = wake_at,
        }
        assert!(now - start < TIME_MAX, "the lookup does not end");
    }
}

fn check_limits(lookup: &Lookup) {
    for search in &lookup.searches {
        assert!(search.in_flight.len() <= IN_FLIGHT_MAX && search.queries <= QUERIES_MAX);
        assert!(search.in_flight.iter().filter(|query| !query.is_slow).count() <= ALPHA);
        assert!(search.candidates.list().len() <= super::super::candidates::CANDIDATES_MAX);
        assert!(search.seeds.len() <= SEEDS_MAX);
    }
    assert!(lookup.peers.len() <= PEERS_MAX);
}

fn peers() -> Vec<SocketAddr> {
    ["1.1.1.1:1", "[2001:db8:ff::1]:2", "3.3.3.3:3"].map(|peer| peer.parse().unwrap()).to_vec()
}

fn honest_seeds(network: &Network, count: usize) -> Vec<SocketAddr> {
    let honest = network.nodes.iter().filter(|node| node.manner == Manner::Honest);
    honest.map(|node| node.node.addr).take(count).collect()
}

fn expect_peers(outcome: &Outcome) {
    for peer in peers() {
        assert_eq!(outcome.peers.iter().filter(|found| **found == peer).count(), 1, "{peer}");
    }
}

#[test]
fn the_closest_nodes_of_both_families_are_found_and_told() {
    for seed in 0..10 {
        let mut network = Network::new(seed, &[(Manner::Honest, 400)], 0, &peers());
        let seeds = honest_seeds(&network, 2);
        let outcome = run(&mut network, &seeds, Some(PORT));
        expect_peers(&outcome);
        let told = network.announced();
        assert_eq!(told.len(), 2 * CLOSEST);
        assert!(told.iter().all(|node| node.announced == [PORT]));
        assert!(network.queries < 120, "{} queries", network.queries);
        assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
        for family in Family::ALL {
            let is_of = |node: &&SimNode| Family::of(node.node.addr.ip()) == family;
            let mut all: Vec<&SimNode> = network.nodes.iter().filter(is_of).collect();
            all.sort_by_key(|node| node.node.id.distance(NodeId(HASH)));
            let hit = all.iter().take(CLOSEST).filter(|node| !node.announced.is_empty()).count();
            assert!(hit >= CLOSEST - 2, "seed {seed}, {family:?}: {hit} of the closest heard of us");
        }
        let identity = outcome.lookup.into_identity();
        assert_eq!(identity.externals().collect::<Vec<_>>(), [OUR_IP]);
        assert!(identity.id(Family::V4).fits(OUR_IP));
    }
}

#[test]
fn losses_liars_sybils_and_the_dead_do_not_hide_the_peers() {
    let manners = [(Manner::Honest, 400), (Manner::Dead, 150), (Manner::Liar, 25), (Manner::Sybil, 200)];
    for seed in 0..20 {
        let mut network = Network::new(seed, &manners, 50, &peers());
        let seeds = honest_seeds(&network, 4);
        let outcome = run(&mut network, &seeds, Some(PORT));
        expect_peers(&outcome);
        assert!(network.queries <= 2 * (QUERIES_MAX + 2 * CLOSEST), "{} queries", network.queries);
        let asked_sybils = network.nodes.iter().filter(|node| node.manner == Manner::Sybil);
        let asked_sybils = asked_sybils.filter(|node| outcome.lookup.has_asked(node.node.addr)).count();
        assert!(asked_sybils <= 3, "one address is asked {asked_sybils} times");
        let honest = network.announced().iter().filter(|node| node.manner == Manner::Honest).count();
        assert!(honest >= CLOSEST, "seed {seed}: {honest} honest nodes heard of us");
    }
}

#[test]
fn nobody_is_told_without_a_port() {
    let mut network = Network::new(3, &[(Manner::Honest, 200)], 0, &peers());
    let seeds = honest_seeds(&network, 2);
    let outcome = run(&mut network, &seeds, None);
    expect_peers(&outcome);
    assert_eq!(network.announced().len(), 0);
    assert!(
        outcome.lookup.nodes().count() == outcome.lookup.answered() && outcome.lookup.answered() >= CLOSEST
    );
}

#[test]
fn one_family_is_enough() {
    let mut network = Network::new(4, &[(Manner::Honest, 200)], 0, &peers());
    let seed = honest_seeds(&network, 2)[1];
    assert!(seed.is_ipv4());
    let config = LookupConfig { v6: false, ..config(None) };
    let now = Instant::now();
    let mut lookup = Lookup::new(config, Identity::new(1), now);
    lookup.add_seed(seed);
    while let Some(transmit) = lookup.poll_transmit(now) {
        assert!(transmit.to.is_ipv4() && !transmit.datagram.windows(4).any(|at| at == b"want"));
        let answer = network.answer(&transmit).unwrap();
        assert!(lookup.handle(transmit.to, &answer));
    }
    assert!(lookup.is_over() && !lookup.take_peers().is_empty());
}

#[test]
fn without_a_node_it_is_over_at_once_and_a_seed_starts_it_again() {
    let now = Instant::now();
    let mut lookup = Lookup::new(config(Some(PORT)), Identity::new(1), now);
    assert_eq!(lookup.poll_transmit(now), None);
    assert!(lookup.is_over() && lookup.is_poor() && lookup.answered() == 0);
    assert_eq!(lookup.wake_at(), None);
    let seed = "1.2.3.4:5".parse().unwrap();
    lookup.add_seed(seed);
    assert!(!lookup.is_over());
    assert_eq!(lookup.poll_transmit(now).unwrap().to, seed);
    lookup.on_unsent(seed);
    assert_eq!(lookup.poll_transmit(now), None);
    assert!(lookup.is_over() && lookup.has_asked(seed));
    lookup.add_seed(seed);
    assert!(lookup.is_over(), "it was asked already");
}

#[test]
fn after_its_time_no_seed_starts_it_again() {
    let now = Instant::now();
    let mut lookup = Lookup::new(config(None), Identity::new(1), now);
    assert_eq!(lookup.poll_transmit(now + FIND_MAX), None);
    lookup.add_seed("1.2.3.4:5".parse().unwrap());
    assert!(lookup.is_over());
}

#[test]
fn an_answer_counts_from_whom_it_was_asked_of_by_its_name_and_in_time() {
    let now = Instant::now();
    let to: SocketAddr = "1.2.3.4:5".parse().unwrap();
    let node = Node { id: NodeId([1; ID_LEN]), addr: to };
    let mut lookup = Lookup::new(config(None), Identity::new(1), now);
    lookup.add_node(node);
    let transmit = lookup.poll_transmit(now).unwrap();
    assert_eq!(transmit.to, to);
    let query = parse(&transmit.datagram, Limits::PEER_MESSAGE).unwrap();
    let name = query.root().get("t").unwrap().as_bytes().unwrap();
    let right = reply(name, &node, &[], &peers());
    assert!(!lookup.handle("1.2.3.4:6".parse().unwrap(), &right));
    assert!(!lookup.handle("[::1]:5".parse().unwrap(), &right));
    assert!(!lookup.handle(to, &reply(&[0; 4], &node, &[], &peers())));
    assert!(!lookup.handle(to, b"d"));
    let mut late = lookup.clone();
    assert!(lookup.handle("[::ffff:1.2.3.4]:5".parse().unwrap(), &right));
    assert!(!lookup.handle(to, &right), "a second time");
    assert_eq!((lookup.answered(), lookup.take_peers()), (1, peers()));
    assert_eq!(late.wake_at(), Some(now + SLOW_AFTER));
    assert_eq!(late.poll_transmit(now + SLOW_AFTER), None);
    assert_eq!(late.wake_at(), Some(now + QUERY_TIMEOUT));
    assert_eq!(late.poll_transmit(now + QUERY_TIMEOUT), None);
    assert!(!late.handle(to, &right) && late.is_over() && late.answered() == 0);
}

#[test]
fn our_own_address_is_no_peer() {
    let now = Instant::now();
    let mut lookup = Lookup::new(config(Some(PORT)), Identity::new(1), now);
    let ours = SocketAddr::new(OUR_IP, PORT);
    for n in 1..=5 {
        lookup.add_node(Node { id: NodeId([n; ID_LEN]), addr: SocketAddr::from(([9, 9, 9, n], 1)) });
    }
    let mut sent = Vec::new();
    while let Some(transmit) = lookup.poll_transmit(now) {
        sent.push(transmit);
    }
    for (index, transmit) in sent.iter().enumerate() {
        let query = parse(&transmit.datagram, Limits::PEER_MESSAGE).unwrap();
        let name = query.root().get("t").unwrap().as_bytes().unwrap();
        let node = Node { id: NodeId([9; ID_LEN]), addr: transmit.to };
        let named = if index < 3 { Vec::new() } else { vec![ours, SocketAddr::new(OUR_IP, 1)] };
        assert!(lookup.handle(transmit.to, &reply(name, &node, &[], &named)));
    }
    assert_eq!(lookup.take_peers(), [SocketAddr::new(OUR_IP, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the network is made up, the lookup ends within its limits, and finds the peers while it has somebody
    /// honest to ask and few datagrams are lost.
    #[test]
    fn lookups_end(
        seed: u64,
        dead in 0_usize..200,
        liars in 0_usize..200,
        sybils in 0_usize..400,
        loss in 0_u64..400,
    ) {
        let manners = [
            (Manner::Honest, 100), (Manner::Dead, dead), (Manner::Liar, liars), (Manner::Sybil, sybils),
        ];
        let mut network = Network::new(seed, &manners, loss, &peers());
        let seeds = honest_seeds(&network, 3);
        let outcome = run(&mut network, &seeds, Some(PORT));
        prop_assert!(network.queries <= 2 * (QUERIES_MAX + 2 * CLOSEST));
        if loss < 50 && liars < 10 {
            for peer in peers() {
                prop_assert!(outcome.peers.contains(&peer), "{} is missing", peer);
            }
        }
    }
}
