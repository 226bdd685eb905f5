//! The search for the peers of one torrent: all sources of addresses, the book in which they meet, and the inbox of the
//! control thread.
//!
//! It is the part of a run that a magnet link needs twice, and that goes on in between: the torrent's metadata is
//! fetched from the peers first, then its content.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::roster::Roster;
use super::{Encryption, Observer, Sources, announce_config_of, listen, peer_id};
use crate::discovery::announcer::{AnnounceEvent, Announcer, Farewell, TotalsFn};
use crate::discovery::ask::TrackerError;
use crate::discovery::dht::{Dht, DhtConfig, DhtEvent};
use crate::discovery::lsd::{Lsd, LsdConfig};
use crate::discovery::tracker::{HostPeer, Totals};
use crate::error::Error;
use crate::meta::magnet::PeerAddr;
use crate::meta::torrent::{InfoHash, Metainfo};
use crate::net::close::CloseReason;
use crate::net::listener::{Caller, Listener, Welcome};
use crate::net::metadata::MetadataEvent;
use crate::net::shared::Event;
use crate::os::{clock, limits, random};
use crate::swarm::book::{Book, Outcome, Source};
use crate::wire::mse;
use crate::wire::pex::PeerExchange;

/// Hosts that are looked up, the user's and a link's.
pub const HOSTS_MAX: usize = 32;
/// Hosts of peers that trackers name and that are looked up in one search: a stranger has this machine ask its name
/// servers for no more.
const TOLD_HOSTS_MAX: usize = 32;
/// Addresses of one host that are dialed.
const ADDRS_PER_HOST_MAX: usize = 4;
/// With fewer descriptors the local network is not asked: what it takes of them is more than a connection does.
const LSD_DESCRIPTORS_MIN: usize = 48;
/// Neighbours that have heard of us dial within this time.
const NEIGHBOURS_PATIENCE: Duration = Duration::from_secs(5);
/// How often sources are asked for more.
const MORE_EVERY: Duration = Duration::from_secs(1);

/// Where peers may come from, and how they are talked to.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Peers to ask beside those that are found. Of more than [`PEERS_MAX`](super::PEERS_MAX) the others are left out.
    pub peers: Vec<SocketAddr>,
    /// The same by the names of their hosts, which are looked up. Of more than [`HOSTS_MAX`] the others are left out.
    pub hosts: Vec<PeerAddr>,
    /// Peers that a magnet link names.
    pub link_peers: Vec<PeerAddr>,
    /// Where other peers may dial us: `None` for one of the usual ports or else any, `Some(0)` for nowhere.
    pub port: Option<u16>,
    /// The DHT (BEP 5), if it may be asked. Never done for a private torrent (BEP 27).
    pub dht: Option<DhtReach>,
    /// Whether to announce to the local network, and listen to it (BEP 14). Never done for a private torrent.
    pub lsd: bool,
    /// Whether to learn of peers from peers, and tell them of others (BEP 11). Never done for a private torrent.
    pub pex: bool,
    /// Whether connections to peers are encrypted.
    pub encryption: Encryption,
    /// Whether to leave the fast extension (BEP 6) out, and announce nothing but the extension protocol.
    pub plain: bool,
}

/// Where a search in the DHT begins.
#[derive(Clone, Debug, Default)]
pub struct DhtReach {
    /// `host:port` of nodes that are always there.
    pub bootstrap: Vec<String>,
    /// Where nodes are kept from run to run.
    pub cache: Option<PathBuf>,
}

impl Reach {
    /// Whether it names nobody who could know peers.
    pub(super) const fn is_without_source(&self) -> bool {
        self.peers.is_empty()
            && self.hosts.is_empty()
            && self.link_peers.is_empty()
            && self.dht.is_none()
            && !self.lsd
    }

    /// The same for a torrent that peers may come to only from its trackers (BEP 27).
    fn private(&self) -> Self {
        Self { dht: None, lsd: false, pex: false, ..self.clone() }
    }
}

/// What reaches the control thread.
pub(super) enum Input {
    /// From the cores and the verifier of a pass, which are numbered.
    Net(u32, Event),
    Metadata(MetadataEvent),
    Caller(Caller),
    Found(Found),
}

/// What a source of peers says.
pub(super) enum Found {
    Announce(AnnounceEvent),
    Dht(DhtEvent),
    Peers(Source, Vec<SocketAddr>),
    /// The addresses of a host that was named, or what the user is told.
    Host(Result<Vec<SocketAddr>, String>),
}

/// The totals that trackers are told, as whoever uses the peers counts them.
type Counted = Arc<Mutex<Arc<TotalsFn>>>;

/// Nodes of the DHT that are looked up by name for one torrent, beside those that everybody asks.
const NODE_NAMES_MAX: usize = 8;

/// A running search. Dropping it ends it, and waits until the trackers have heard so, for less than a second.
pub struct Search {
    pub(super) info_hash: InfoHash,
    pub(super) peer_id: [u8; 20],
    pub(super) book: Book,
    /// What became of the peers.
    pub(super) roster: Roster,
    pub(super) reach: Reach,
    listener: Option<Arc<Listener>>,
    announcer: Option<Announcer>,
    totals: Counted,
    dht: Option<Dht>,
    dht_is_done: bool,
    lsd: Option<Lsd>,
    outbox: Sender<Input>,
    inbox: Receiver<Input>,
    passes: u32,
    started: Instant,
    more_at: Instant,
    /// Hosts that are being looked up.
    lookups: usize,
    trackers: usize,
    /// Nodes of the DHT that the torrent names.
    nodes: Vec<PeerAddr>,
    /// Whether the torrent could be had from web servers, too.
    has_web_seeds: bool,
    /// What went wrong last at each tracker since one answered, and whether all of them failed.
    tracker_trouble: Vec<(String, TrackerError)>,
    trackers_failed: bool,
    tracker_answered: bool,
    /// Hosts that trackers have named and that were looked up.
    told_hosts: HashSet<(String, u16)>,
    last_trouble: Option<(SocketAddr, CloseReason)>,
}

impl Search {
    /// Opens the port. Nobody is asked before [`Search::begin`].
    ///
    /// # Errors
    /// Where the user's port is not to be had.
    pub(super) fn new(info_hash: InfoHash, is_private: bool, reach: &Reach) -> Result<Self, Error> {
        let listener = listen(reach.port)?;
        let reach = if is_private { reach.private() } else { reach.clone() };
        let (outbox, inbox) = mpsc::channel();
        let now = clock::now();
        let mut book = Book::new(&own_addresses(listener.as_deref()));
        for &peer in &reach.peers {
            if book.is_own(peer)
                || listener.as_ref().is_some_and(|it| it.port() == peer.port() && is_here(peer))
            {
                return Err(Error::Usage(format!(
                    "--peer {peer} is where this run listens itself; give another --peer or --port"
                )));
            }
            book.add(peer, Source::Manual, now);
        }
        for peer in &reach.link_peers {
            if let PeerAddr::Ip(addr) = peer {
                book.add(*addr, Source::Manual, now);
            }
        }
        Ok(Self {
            info_hash,
            peer_id: peer_id(),
            book,
            roster: Roster::default(),
            reach,
            listener,
            announcer: None,
            // How long the content is, is not known yet.
            totals: Arc::new(Mutex::new(Arc::new(|| Totals::UNKNOWN_LENGTH))),
            dht: None,
            dht_is_done: false,
            lsd: None,
            outbox,
            inbox,
            passes: 0,
            started: now,
            more_at: now,
            lookups: 0,
            trackers: 0,
            nodes: Vec::new(),
            has_web_seeds: false,
            tracker_trouble: Vec::new(),
            trackers_failed: false,
            tracker_answered: false,
            told_hosts: HashSet::new(),
            last_trouble: None,
        })
    }

    /// Has the search use what a torrent says beside its trackers. To be called before [`Search::begin`].
    pub(super) fn know(&mut self, metainfo: &Metainfo) {
        self.nodes.clone_from(&metainfo.nodes);
        self.has_web_seeds = !metainfo.web_seeds.is_empty();
    }

    /// Starts to ask everybody who may know peers, unless that was done before.
    ///
    /// # Errors
    /// Where the system gives no thread for the trackers. The other sources are left out then.
    pub(super) fn begin(&mut self, tiers: &[Vec<String>]) -> Result<(), Error> {
        if self.announcer.is_some() {
            return Ok(());
        }
        let (port, info_hash) = (self.port(), self.info_hash);
        self.started = clock::now();
        self.trackers = tiers.iter().map(Vec::len).sum();
        let config = announce_config_of(info_hash, tiers.to_vec(), self.peer_id, port);
        let counted = Arc::clone(&self.totals);
        let totals = move || {
            let totals = Arc::clone(&counted.lock().unwrap_or_else(PoisonError::into_inner));
            totals()
        };
        let events = self.sender(Found::Announce);
        self.announcer = Some(Announcer::start(config, Arc::new(totals), events).map_err(Error::Thread)?);
        if let Some(DhtReach { bootstrap, cache }) = self.reach.dht.clone() {
            // The torrent's own know its peers rather than those that everybody asks.
            let names =
                self.nodes.iter().filter(|node| matches!(node, PeerAddr::Host { .. })).take(NODE_NAMES_MAX);
            let bootstrap = names.map(PeerAddr::to_string).chain(bootstrap).collect();
            let config = DhtConfig { info_hash: info_hash.0, bootstrap, cache, port, seed: random::number() };
            self.dht = or_none("DHT", Dht::start(config, self.sender(Found::Dht)));
            for node in &self.nodes {
                if let (Some(dht), PeerAddr::Ip(addr)) = (&self.dht, node) {
                    dht.add_node(*addr);
                }
            }
        }
        if self.reach.lsd && limits::descriptors() >= LSD_DESCRIPTORS_MIN {
            let config = LsdConfig { info_hash: info_hash.0, port, seed: random::number() };
            let peers = self.sender(|peers| Found::Peers(Source::Lsd, peers));
            self.lsd = or_none("local service discovery", Lsd::start(config, peers));
        }
        self.look_up_hosts();
        Ok(())
    }

    /// Has the trackers told these totals from now on.
    pub(super) fn count_by(&self, totals: Arc<TotalsFn>) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// Who is asked for peers.
    pub(super) const fn sources(&self) -> Sources {
        Sources { trackers: self.trackers, dht: self.dht.is_some(), lsd: self.lsd.is_some() }
    }

    /// Where we listen, if we do.
    pub(super) fn port(&self) -> Option<u16> {
        self.listener.as_ref().map(|listener| listener.port())
    }

    /// Which of those who dial us are let in.
    pub(super) const fn welcome(&self) -> Welcome {
        match self.reach.encryption {
            Encryption::Off => Welcome::Plain,
            Encryption::Prefer => Welcome::Both,
            Encryption::Require => Welcome::Encrypted,
        }
    }

    /// Who lets in those who dial us.
    pub(super) fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.clone()
    }

    /// A way into the inbox.
    pub(super) fn outbox(&self) -> Sender<Input> {
        self.outbox.clone()
    }

    /// The number of a pass that begins now, for its [`Input::Net`].
    pub(super) const fn next_pass(&mut self) -> u32 {
        self.passes += 1;
        self.passes
    }

    /// The next input, if one comes so soon.
    pub(super) fn next(&self, wait: Duration) -> Option<Input> {
        self.inbox.recv_timeout(wait).ok()
    }

    /// Takes in what a source says. Returns whether it is the first answer that may bring peers, which deserve their
    /// time however long the answer took.
    pub(super) fn on_found(&mut self, found: Found, observer: &mut dyn Observer) -> bool {
        match found {
            Found::Announce(event) => self.on_announce(event, observer),
            Found::Dht(DhtEvent::Peers(peers)) => {
                self.add(Source::Dht, &peers);
                false
            }
            Found::Dht(DhtEvent::Finished { nodes }) => {
                tracing::info!("DHT: {nodes} nodes have answered");
                !std::mem::replace(&mut self.dht_is_done, true) && nodes > 0
            }
            Found::Peers(source, peers) => {
                self.add(source, &peers);
                false
            }
            Found::Host(answer) => {
                self.lookups -= 1;
                match answer {
                    Ok(peers) => self.add(Source::Manual, &peers),
                    Err(text) => observer.notice(&text),
                }
                true
            }
        }
    }

    fn on_announce(&mut self, event: AnnounceEvent, observer: &mut dyn Observer) -> bool {
        match event {
            AnnounceEvent::Peers { url, peers } => {
                tracing::info!("tracker {url}: {} peers", peers.len());
                self.trackers_failed = false;
                self.tracker_trouble.clear();
                self.add(Source::Tracker, &peers);
                return !std::mem::replace(&mut self.tracker_answered, true);
            }
            AnnounceEvent::Warning { url, text } => observer.notice(&format!("{url} warns: {text}")),
            AnnounceEvent::Failed { url, error } => {
                tracing::info!("tracker {url}: {error}");
                self.tracker_trouble.retain(|(known, _)| *known != url);
                self.tracker_trouble.push((url, error));
            }
            AnnounceEvent::Hosts { url, hosts } => {
                tracing::debug!(%url, hosts = hosts.len(), "names of peers");
                self.look_up_told(hosts);
            }
            AnnounceEvent::Exhausted { .. } => self.trackers_failed = true,
        }
        false
    }

    fn add(&mut self, source: Source, peers: &[SocketAddr]) {
        let now = clock::now();
        let added = peers.iter().filter(|&&peer| self.book.add(peer, source, now)).count();
        tracing::info!("{source:?}: {added} new peers, {} told", peers.len());
    }

    /// Takes in what a peer tells of others (BEP 11).
    pub(super) fn on_pex(&mut self, from: SocketAddr, exchange: &PeerExchange) {
        let now = clock::now();
        let added =
            exchange.added.iter().filter(|contact| self.book.add_told(contact.addr, from, now)).count();
        tracing::info!("{from}: tells of {} peers, {added} of them new", exchange.added.len());
    }

    /// Takes in where a peer's DHT node is (BEP 5).
    pub(super) fn on_dht_node(&self, node: SocketAddr) {
        if let Some(dht) = &self.dht {
            dht.add_node(node);
        }
    }

    /// A connection has ended, on which something useful came or not.
    pub(super) fn on_closed(&mut self, addr: SocketAddr, reason: CloseReason, was_useful: bool) {
        let outcome = match &reason {
            CloseReason::OtherTorrent | CloseReason::Ourselves | CloseReason::Poisoned => Outcome::Useless,
            // It is not the peer that had too little.
            reason if reason.is_shortage() => Outcome::Again,
            CloseReason::Unanswered(_) if self.reach.encryption == Encryption::Prefer => Outcome::Unanswered,
            // What it has delivered before does not make it worth another try at once.
            CloseReason::Fault(_) => Outcome::Failed,
            _ if was_useful => Outcome::Worked,
            _ => Outcome::Failed,
        };
        self.book.on_closed(addr, outcome, clock::now());
        self.roster.closed(addr, &reason);
        self.last_trouble = Some((addr, reason));
    }

    /// Notes that a peer sent wrong data. Returns the addresses to be closed.
    pub(super) fn ban(&mut self, addr: SocketAddr) -> Vec<SocketAddr> {
        self.last_trouble = Some((addr, CloseReason::Poisoned));
        tracing::warn!("{addr}: banned: it sent wrong data");
        self.book.ban(addr)
    }

    /// How the dial of a peer is encrypted, if it is.
    pub(super) fn encryption(&self, addr: SocketAddr) -> Option<mse::Offer> {
        match self.reach.encryption {
            Encryption::Off => None,
            Encryption::Prefer => self.book.is_encrypted(addr).then_some(mse::Offer::Either),
            Encryption::Require => Some(mse::Offer::Rc4),
        }
    }

    /// Asks for more peers, of each source as often as it allows.
    pub(super) fn request_more(&mut self) {
        let now = clock::now();
        if now < self.more_at {
            return;
        }
        self.more_at = now + MORE_EVERY;
        if let Some(announcer) = &self.announcer {
            announcer.request_more();
        }
        if let Some(dht) = &self.dht {
            dht.request_more();
        }
    }

    /// Whether no source is left that may name somebody: all trackers have failed, and the others have had their time.
    pub(super) fn is_dry(&self) -> bool {
        let dht_is_done = self.dht.is_none() || self.dht_is_done;
        let lsd_is_done =
            self.lsd.is_none() || clock::now().duration_since(self.started) >= NEIGHBOURS_PATIENCE;
        self.lookups == 0 && self.trackers_failed && !self.tracker_answered && dht_is_done && lsd_is_done
    }

    /// The peer whose connection ended last, and why it did.
    pub(super) fn last_trouble(&self) -> Option<String> {
        let (addr, reason) = self.last_trouble.as_ref()?;
        let hint = match (reason, self.reach.encryption) {
            (CloseReason::Unanswered(_), Encryption::Off) => "; it may speak only encrypted",
            (CloseReason::Unanswered(_), Encryption::Require) => "; it may speak only unencrypted",
            _ => "",
        };
        Some(format!("the last one was {addr}: {reason}{hint}"))
    }

    /// Why there is nobody, if it is not for want of a source that works.
    pub(super) fn nobody(&self) -> Result<String, Error> {
        if let Some(last) = self.last_trouble() {
            return Ok(last);
        }
        let others = match (self.dht.is_some(), self.lsd.is_some()) {
            (true, true) => ", and neither the DHT nor the local network has any",
            (true, false) => ", and the DHT has none",
            (false, true) => ", and the local network has none",
            (false, false) => "",
        };
        if self.tracker_answered {
            return Ok(match self.book.len() {
                0 => format!("the trackers know of none{others}"),
                known => format!("none of the {known} that are known has answered yet"),
            });
        }
        if self.dht_is_done && self.trackers == 0 {
            return Ok(format!("there is no tracker to ask{others}{}", self.web_seeds()));
        }
        Err(match (self.trackers > 0, self.tracker_trouble.is_empty()) {
            (false, _) => {
                let web_seeds = self.web_seeds();
                Error::Tracker(format!(
                    "the torrent names no tracker{web_seeds}; give peers with --peer IP:PORT"
                ))
            }
            (true, true) => Error::Tracker("no tracker answered in time".to_owned()),
            (true, false) => Error::no_tracker(&self.tracker_trouble),
        })
    }

    /// What is told of web seeds where there is nobody else.
    const fn web_seeds(&self) -> &'static str {
        if self.has_web_seeds { ", only web seeds (HTTP), which are not supported yet" } else { "" }
    }

    /// Ends the search and starts to say good-bye to the trackers.
    pub(super) fn finish(mut self, completed: bool) -> Option<Farewell> {
        self.announcer.take().map(|announcer| announcer.finish(completed))
    }

    /// Looks up the hosts that peers are at, each on a thread of its own: a resolver may take its time.
    fn look_up_hosts(&mut self) {
        let hosts = self.reach.hosts.iter().chain(&self.reach.link_peers).filter_map(|peer| match peer {
            PeerAddr::Host { name, port } => Some((name.clone(), *port)),
            PeerAddr::Ip(_) => None,
        });
        for (name, port) in hosts.take(HOSTS_MAX).collect::<Vec<_>>() {
            let found = self.sender(Found::Host);
            let look_up = move || {
                let addrs = (name.as_str(), port).to_socket_addrs();
                let addrs = addrs.map(|addrs| addrs.take(ADDRS_PER_HOST_MAX).collect());
                found(addrs.map_err(|error| format!("the peer {name}:{port} cannot be looked up: {error}")));
            };
            let thread = thread::Builder::new().name("resolver".to_owned()).spawn(look_up);
            self.lookups += usize::from(or_none("lookup of a host", thread).is_some());
        }
    }

    /// Looks up the hosts of peers that a tracker names, unless that was done before.
    fn look_up_told(&mut self, hosts: Vec<HostPeer>) {
        for HostPeer { name, port, .. } in hosts {
            if self.told_hosts.len() == TOLD_HOSTS_MAX || !self.told_hosts.insert((name.clone(), port)) {
                continue;
            }
            let found = self.sender(|peers| Found::Peers(Source::Tracker, peers));
            let look_up = move || match (name.as_str(), port).to_socket_addrs() {
                Ok(addrs) => found(addrs.take(ADDRS_PER_HOST_MAX).collect()),
                Err(error) => tracing::debug!("{name}: {error}"),
            };
            let thread = thread::Builder::new().name("resolver".to_owned()).spawn(look_up);
            or_none("lookup of a host", thread);
        }
    }

    fn sender<T: 'static>(&self, found: impl Fn(T) -> Found + Send + 'static) -> Box<dyn Fn(T) + Send> {
        let outbox = self.outbox.clone();
        Box::new(move |value| drop(outbox.send(Input::Found(found(value)))))
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        if let Some(announcer) = self.announcer.take() {
            announcer.finish(false).wait();
        }
    }
}

/// A source of peers is left out where the system does not give what it needs.
fn or_none<T>(what: &str, result: std::io::Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!("no {what}: {error}")).ok()
}

/// Whether an address is one of this machine: sockets can be bound there.
fn is_here(addr: SocketAddr) -> bool {
    UdpSocket::bind((addr.ip(), 0)).is_ok()
}

/// What the address of a client that listens looks like from this machine.
fn own_addresses(listener: Option<&Listener>) -> Vec<SocketAddr> {
    let at = |port| [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    listener.map(|listener| at(listener.port())).into_iter().flatten().collect()
}
