//! One search for the peers of a torrent, from a few nodes to those that are closest to its info hash. Pure: datagrams
//! and `now` come in, datagrams and peers go out.
//!
//! Each of the two families is a network of its own (BEP 32), and is searched on its own; nodes of either name nodes of
//! both. In each the closest nodes that have not answered are asked, until none is closer than the [`CLOSEST`] that
//! have. That holds for all nodes, and once more for those alone whose id fits their address (BEP 42): who has many
//! addresses may put a node at each next to the info hash, but not one whose id fits.
//!
//! The order of calls: [`Lookup::add_node`], [`Lookup::add_seed`] and [`Lookup::handle`] at any time; after that
//! [`Lookup::poll_transmit`] until it has nothing, [`Lookup::take_peers`], and a wait until [`Lookup::wake_at`].

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidates::{Candidates, View};
use super::id::{NodeId, usable};
use super::identity::{Family, Identity};
use super::krpc::{Answer, Body, Node, Query, Reply, Transaction, Want};

/// How many of the closest nodes a lookup wants to have asked, and announces to: K of BEP 5.
pub const CLOSEST: usize = 8;

/// Queries of a family that are waited for at a time.
pub const ALPHA: usize = 8;

/// Queries of a family that may still be answered.
pub const IN_FLIGHT_MAX: usize = 24;

/// How long an answer may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// After this a query no longer keeps others from being sent. Most nodes that are there answer sooner.
pub const SLOW_AFTER: Duration = Duration::from_millis(500);

/// Queries of a family in one lookup, beside the announces. Usual lookups need 30 to 100.
pub const QUERIES_MAX: usize = 240;

/// How long nodes are looked for, whatever they say.
pub const FIND_MAX: Duration = Duration::from_secs(30);

/// Peers that one lookup hands out.
pub const PEERS_MAX: usize = 2000;

/// Of those, peers that only nodes with an id that does not fit their address have named.
pub const DOUBTFUL_PEERS_MAX: usize = PEERS_MAX / 2;

/// Addresses to begin at, per family, that are kept until they are asked.
pub const SEEDS_MAX: usize = 64;

/// What to look for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupConfig {
    /// Names the torrent.
    pub info_hash: [u8; 20],
    /// Where we listen for peers; with it the torrent is announced.
    pub port: Option<u16>,
    /// Whether datagrams can be sent over IPv4.
    pub v4: bool,
    /// Whether datagrams can be sent over IPv6.
    pub v6: bool,
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Its bytes.
    pub datagram: Vec<u8>,
}

/// A running lookup.
#[derive(Clone, Debug)]
pub struct Lookup {
    config: LookupConfig,
    started: Instant,
    identity: Identity,
    searches: Vec<Search>,
    peers: HashSet<SocketAddr>,
    doubtful_peers: usize,
    /// Of the peers, what was not handed out yet.
    found: Vec<SocketAddr>,
}

impl Lookup {
    /// A lookup that knows nobody yet.
    pub fn new(config: LookupConfig, identity: Identity, now: Instant) -> Self {
        let families = [(config.v4, Family::V4), (config.v6, Family::V6)].into_iter();
        let searches = families.filter(|(is_there, _)| *is_there);
        let searches = searches.map(|(_, family)| Search::new(family, NodeId(config.info_hash))).collect();
        Self {
            config,
            started: now,
            identity,
            searches,
            peers: HashSet::new(),
            doubtful_peers: 0,
            found: Vec::new(),
        }
    }

    /// Adds a node whose id is known, perhaps from a time before.
    pub fn add_node(&mut self, node: Node) {
        let Some(addr) = usable(node.addr) else { return };
        if let Some(search) = self.search(addr) {
            search.candidates.name(Node { addr, ..node });
        }
    }

    /// Adds an address at which there may be a node. It is asked while few others have answered.
    pub fn add_seed(&mut self, addr: SocketAddr) {
        let Some(addr) = usable(addr) else { return };
        if let Some(search) = self.search(addr) {
            search.add_seed(addr);
        }
    }

    /// Takes a datagram. True when it is the answer to a query that is waiting for one.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(from) = usable(from) else { return false };
        let Ok(answer) = Answer::parse(datagram, from.ip()) else { return false };
        let Some(search) = self.search(from) else { return false };
        let Some(query) = search.take(answer.transaction, from) else { return false };
        match (query.kind, answer.body) {
            (Kind::Find, Body::Reply(reply)) => self.on_found(from, reply),
            (Kind::Find, Body::Error { .. }) => search.candidates.on_failed(from),
            (Kind::Announce, _) => {}
        }
        true
    }

    fn on_found(&mut self, from: SocketAddr, reply: Reply) {
        if let Some(ip) = reply.your_ip {
            self.identity.on_witness(from, ip);
        }
        let node = Node { id: reply.id, addr: from };
        let counts = self.search(from).is_some_and(|search| search.candidates.on_answered(node, reply.token));
        // A second node at one address may be its owner's next try to be heard.
        if counts {
            reply.nodes.into_iter().for_each(|node| self.add_node(node));
            let is_doubtful = !node.id.fits(from.ip());
            reply.peers.into_iter().for_each(|peer| self.add_peer(peer, is_doubtful));
        }
    }

    fn add_peer(&mut self, peer: SocketAddr, is_doubtful: bool) {
        let is_ours =
            self.config.port == Some(peer.port()) && self.identity.externals().any(|ip| ip == peer.ip());
        let is_full = is_doubtful && self.doubtful_peers >= DOUBTFUL_PEERS_MAX;
        if is_ours || is_full || self.peers.len() >= PEERS_MAX || !self.peers.insert(peer) {
            return;
        }
        self.doubtful_peers += usize::from(is_doubtful);
        self.found.push(peer);
    }

    /// The next datagram to send now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let config = self.config;
        let may_find = now.saturating_duration_since(self.started) < FIND_MAX;
        for search in &mut self.searches {
            search.expire(now);
            let Some(step) = search.next(may_find, config.port.is_some()) else { continue };
            let transaction = search.unused_transaction(&mut self.identity);
            let sender = self.identity.id(search.family);
            let datagram = match &step {
                Step::Find(_) => {
                    // Alone, a family is what is meant where nothing is said.
                    let want =
                        if config.v4 && config.v6 { Want { v4: true, v6: true } } else { Want::default() };
                    Query::GetPeers { info_hash: config.info_hash, want }.encode(transaction, sender)
                }
                Step::Announce(_, token) => {
                    let port = config.port.unwrap_or_default();
                    let query = Query::AnnouncePeer { info_hash: config.info_hash, port, token };
                    query.encode(transaction, sender)
                }
            };
            let to = search.on_sent(step, transaction, now);
            return Some(Transmit { to, datagram });
        }
        None
    }

    /// The datagram could not be sent: no answer is waited for.
    pub fn on_unsent(&mut self, to: SocketAddr) {
        if let Some(search) = self.search(to) {
            search.on_unsent(to);
        }
    }

    /// Peers that were found since the last call. Over a lookup there are at most [`PEERS_MAX`], each once, without
    /// our own address as far as it is known.
    pub fn take_peers(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.found)
    }

    /// When to call [`Lookup::poll_transmit`] again, if no datagram comes before. `None` when nothing is waited for.
    pub fn wake_at(&self) -> Option<Instant> {
        let in_flight = self.searches.iter().flat_map(|search| &search.in_flight);
        in_flight.map(|query| query.sent + if query.is_slow { QUERY_TIMEOUT } else { SLOW_AFTER }).min()
    }

    /// Whether there is nobody left to ask and nothing left to wait for, which [`Lookup::poll_transmit`] has seen.
    pub fn is_over(&self) -> bool {
        self.searches.iter().all(Search::is_over)
    }

    /// How many nodes have answered.
    pub fn answered(&self) -> usize {
        self.searches.iter().map(|search| search.candidates.answered(View::All).count()).sum()
    }

    /// Whether fewer nodes than a lookup wants have answered, in a family that can be used.
    pub fn is_poor(&self) -> bool {
        self.searches.iter().any(|search| search.is_poor())
    }

    /// Whether a node was asked at this address, or could not be.
    pub fn has_asked(&self, addr: SocketAddr) -> bool {
        let family = Family::of(addr.ip());
        let search = self.searches.iter().find(|search| search.family == family);
        search.is_some_and(|search| !search.candidates.may_ask(addr))
    }

    /// The nodes that have answered, those of a family together, the closest first.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.searches.iter().flat_map(|search| search.candidates.answered(View::All)).map(|(node, _)| *node)
    }

    /// Who we are, for the next lookup.
    pub fn into_identity(self) -> Identity {
        self.identity
    }

    fn search(&mut self, addr: SocketAddr) -> Option<&mut Search> {
        let family = Family::of(addr.ip());
        self.searches.iter_mut().find(|search| search.family == family)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Find,
    Announce,
}

#[derive(Clone, Debug)]
struct InFlight {
    transaction: Transaction,
    to: SocketAddr,
    sent: Instant,
    is_slow: bool,
    kind: Kind,
}

enum Step {
    Find(SocketAddr),
    Announce(SocketAddr, Vec<u8>),
}

/// The lookup among the nodes of one family.
#[derive(Clone, Debug)]
struct Search {
    family: Family,
    candidates: Candidates,
    seeds: VecDeque<SocketAddr>,
    in_flight: Vec<InFlight>,
    queries: usize,
    /// Once the closest nodes are found, those that are still to hear of us.
    announces: Option<VecDeque<(SocketAddr, Vec<u8>)>>,
    /// Whether it has ended for lack of time or queries, so that no seed starts it again.
    is_spent: bool,
}

impl Search {
    fn new(family: Family, target: NodeId) -> Self {
        Self {
            family,
            candidates: Candidates::new(target),
            seeds: VecDeque::new(),
            in_flight: Vec::new(),
            queries: 0,
            announces: None,
            is_spent: false,
        }
    }

    fn add_seed(&mut self, addr: SocketAddr) {
        let is_known = self.seeds.contains(&addr) || !self.candidates.may_ask(addr);
        if is_known || self.is_spent || self.seeds.len() == SEEDS_MAX {
            return;
        }
        self.seeds.push_back(addr);
        if self.is_poor() && self.is_over() {
            self.announces = None;
        }
    }

    fn is_poor(&self) -> bool {
        self.candidates.answered(View::All).take(CLOSEST).count() < CLOSEST
    }

    fn is_over(&self) -> bool {
        self.in_flight.is_empty() && self.announces.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// Gives up queries that nobody has answered in time.
    fn expire(&mut self, now: Instant) {
        for query in &mut self.in_flight {
            if !query.is_slow && now.saturating_duration_since(query.sent) >= SLOW_AFTER {
                query.is_slow = true;
                self.candidates.on_slow(query.transaction);
            }
        }
        let late = |query: &mut InFlight| now.saturating_duration_since(query.sent) >= QUERY_TIMEOUT;
        for query in self.in_flight.extract_if(.., late).filter(|query| query.kind == Kind::Find) {
            self.candidates.on_failed(query.to);
        }
    }

    fn next(&mut self, may_find: bool, is_announced: bool) -> Option<Step> {
        let waited_for = self.in_flight.iter().filter(|query| !query.is_slow).count();
        if self.in_flight.len() >= IN_FLIGHT_MAX || waited_for >= ALPHA {
            return None;
        }
        if self.announces.is_none() {
            self.is_spent = !may_find || self.queries >= QUERIES_MAX;
            if !self.is_spent
                && let Some(addr) = self.next_to_ask()
            {
                return Some(Step::Find(addr));
            }
            if !self.in_flight.is_empty() {
                return None;
            }
            self.seeds.clear();
            self.announces = Some(if is_announced { self.closest() } else { VecDeque::new() });
        }
        let (addr, token) = self.announces.as_mut()?.pop_front()?;
        Some(Step::Announce(addr, token))
    }

    /// Seeds and known nodes take turns, as do the two views of those, so that none of them can starve another.
    fn next_to_ask(&mut self) -> Option<SocketAddr> {
        let views =
            if self.queries & 2 == 0 { [View::All, View::Fitting] } else { [View::Fitting, View::All] };
        let known = views.into_iter().find_map(|view| self.candidates.next(view, CLOSEST));
        if !self.is_poor() || (known.is_some() && self.queries & 1 == 1) {
            return known;
        }
        let candidates = &self.candidates;
        self.seeds.retain(|seed| candidates.may_ask(*seed));
        self.seeds.pop_front().or(known)
    }

    /// The closest nodes that gave tokens, in both views.
    fn closest(&self) -> VecDeque<(SocketAddr, Vec<u8>)> {
        let mut closest = VecDeque::new();
        for view in [View::All, View::Fitting] {
            let willing =
                self.candidates.answered(view).filter_map(|(node, token)| Some((node.addr, token?)));
            for (addr, token) in willing.take(CLOSEST) {
                if !closest.iter().any(|(other, _)| *other == addr) {
                    closest.push_back((addr, token.to_vec()));
                }
            }
        }
        closest
    }

    fn unused_transaction(&self, identity: &mut Identity) -> Transaction {
        loop {
            let transaction = identity.random();
            if !self.in_flight.iter().any(|query| query.transaction == transaction) {
                return transaction;
            }
        }
    }

    fn on_sent(&mut self, step: Step, transaction: Transaction, now: Instant) -> SocketAddr {
        let (to, kind) = match step {
            Step::Find(to) => {
                self.queries += 1;
                self.candidates.on_asked(to, transaction);
                (to, Kind::Find)
            }
            Step::Announce(to, _) => (to, Kind::Announce),
        };
        self.in_flight.push(InFlight { transaction, to, sent: now, is_slow: false, kind });
        to
    }

    fn on_unsent(&mut self, to: SocketAddr) {
        self.in_flight.retain(|query| query.to != to);
        self.candidates.on_failed(to);
    }

    /// The query that this answers: the node asked answers, by the name of the query.
    fn take(&mut self, transaction: Transaction, from: SocketAddr) -> Option<InFlight> {
        let is_it = |query: &InFlight| query.transaction == transaction && query.to == from;
        let at = self.in_flight.iter().position(is_it)?;
        Some(self.in_flight.swap_remove(at))
    }
}

#[cfg(test)]
mod tests;
