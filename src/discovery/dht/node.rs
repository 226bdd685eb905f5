//! The sockets and threads of the DHT: one thread decides, and during a lookup one for each socket receives. A name is
//! resolved on a thread of its own, which may hang for as long as it likes.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::cache;
use super::identity::Identity;
use super::krpc::{DATAGRAM_LEN_MAX, Node};
use super::lookup::{CLOSEST, Lookup, LookupConfig};
use super::schedule::Schedule;

/// Hosts that are asked for a start, and addresses that are taken for each.
const HOSTS_MAX: usize = 16;

/// Addresses of [`Dht::add_node`] that are kept, the latest.
const HINTS_MAX: usize = 32;

/// Datagrams that wait to be looked at; what comes beyond is lost, as datagrams are.
const DATAGRAMS_QUEUED_MAX: usize = 256;

/// How long nodes of a time before are asked alone.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(1);

/// How long names are waited for where there is nobody else.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(10);

/// How soon a thread that receives notices that nothing is wanted any more.
const RECEIVE_PATIENCE: Duration = Duration::from_millis(250);

/// How long one datagram may take to leave.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// What to look for, and where to begin.
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// Names the torrent. One that is private (BEP 27) must not be looked for.
    pub info_hash: [u8; 20],
    /// `host:port` of nodes that are always there, see [`super::BOOTSTRAP`]; at most 16 are used.
    pub bootstrap: Vec<String>,
    /// Where nodes are kept for the next run, see [`cache::default_path`].
    pub cache: Option<PathBuf>,
    /// Where we listen for peers; with it the torrent is announced.
    pub port: Option<u16>,
    /// What nobody else may know: it decides the ids of queries.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DhtEvent {
    /// Peers, each once in a lookup, as soon as a node has named them.
    Peers(Vec<SocketAddr>),
    /// A lookup is over.
    Finished {
        /// How many nodes have answered in it.
        nodes: usize,
    },
}

/// Takes what happened; called from the DHT's thread, which waits for it.
pub type EventsFn = dyn Fn(DhtEvent) + Send;

/// A node of the DHT that looks for the peers of one torrent: at once, and again when asked to. Dropping it ends that
/// without waiting; an event may still be on its way.
#[derive(Debug)]
pub struct Dht {
    inputs: Sender<Input>,
}

impl Dht {
    /// Starts the first lookup.
    ///
    /// # Errors
    /// When the system gives no thread. A network that cannot be used is none: lookups then find nobody.
    pub fn start(config: DhtConfig, events: Box<EventsFn>) -> io::Result<Self> {
        let (inputs, queue) = mpsc::channel();
        let coordinator = Coordinator::new(config, events, inputs.clone());
        thread::Builder::new().name("dht".to_owned()).spawn(move || coordinator.run(&queue))?;
        Ok(Self { inputs })
    }

    /// Tells of an address where there may be a node, such as a peer's with the port of its `port` message (BEP 5).
    pub fn add_node(&self, addr: SocketAddr) {
        // The thread lives for as long as `self`.
        let _ = self.inputs.send(Input::Node(addr));
    }

    /// Asks for another lookup, as soon as that is polite: 30 s after the first began, and each time twice as long
    /// after the one before, up to 15 min. To be called whenever there are too few peers.
    pub fn request_more(&self) {
        // The thread lives for as long as `self`.
        let _ = self.inputs.send(Input::More);
    }
}

impl Drop for Dht {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Quit);
    }
}

enum Input {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Node(SocketAddr),
    More,
    Resolved { host: usize, addrs: Vec<SocketAddr> },
    Quit,
}

/// One of [`DhtConfig::bootstrap`].
struct Host {
    text: String,
    addrs: Vec<SocketAddr>,
    is_being_resolved: bool,
}

/// A lookup and what it needs.
struct Round {
    lookup: Lookup,
    sockets: Sockets,
    started: Instant,
}

struct Coordinator {
    config: DhtConfig,
    events: Box<EventsFn>,
    inputs: Sender<Input>,
    identity: Identity,
    schedule: Schedule,
    round: Option<Round>,
    /// Nodes that have answered, the latest first; at most [`cache::NODES_MAX`].
    known: Vec<Node>,
    hints: VecDeque<SocketAddr>,
    hosts: Vec<Host>,
    /// Datagrams in the queue of inputs.
    queued: Arc<AtomicUsize>,
}

impl Coordinator {
    fn new(mut config: DhtConfig, events: Box<EventsFn>, inputs: Sender<Input>) -> Self {
        let hosts = std::mem::take(&mut config.bootstrap).into_iter().take(HOSTS_MAX);
        let hosts = hosts.map(|text| Host { text, addrs: Vec::new(), is_being_resolved: false }).collect();
        Self {
            identity: Identity::new(config.seed),
            schedule: Schedule::new(config.port.is_some(), Instant::now()),
            config,
            events,
            inputs,
            round: None,
            known: Vec::new(),
            hints: VecDeque::new(),
            hosts,
            queued: Arc::default(),
        }
    }

    fn run(mut self, queue: &Receiver<Input>) {
        self.known = self.config.cache.as_deref().map(cache::load).unwrap_or_default();
        loop {
            self.advance(Instant::now());
            let input = match self.wake_at() {
                Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => queue.recv().map_err(RecvTimeoutError::from),
            };
            match input {
                Ok(Input::Datagram { from, bytes }) => self.on_datagram(from, &bytes),
                Ok(Input::Node(addr)) => self.on_hint(addr),
                Ok(Input::More) if self.round.is_none() => self.schedule.on_more(),
                Ok(Input::Resolved { host, addrs }) => self.on_resolved(host, addrs),
                Ok(Input::More) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::Quit) | Err(RecvTimeoutError::Disconnected) => return self.keep_nodes(),
            }
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant) {
        if self.round.is_none() && self.schedule.next_at().is_some_and(|at| at <= now) {
            self.start_round(now);
        }
        self.offer_bootstrap(now);
        let Some(round) = &mut self.round else { return };
        while let Some(transmit) = round.lookup.poll_transmit(now) {
            if round.sockets.send(&transmit.datagram, transmit.to).is_err() {
                round.lookup.on_unsent(transmit.to);
            }
        }
        let peers = round.lookup.take_peers();
        if !peers.is_empty() {
            (self.events)(DhtEvent::Peers(peers));
        }
        self.end_round(now);
    }

    fn start_round(&mut self, now: Instant) {
        let sockets = Sockets::open(&self.inputs, &self.queued);
        let config = LookupConfig {
            info_hash: self.config.info_hash,
            port: self.config.port,
            v4: sockets.v4.is_some(),
            v6: sockets.v6.is_some(),
        };
        let mut lookup = Lookup::new(config, self.identity.clone(), now);
        self.known.iter().for_each(|node| lookup.add_node(*node));
        self.hints.iter().for_each(|addr| lookup.add_seed(*addr));
        self.round = Some(Round { lookup, sockets, started: now });
        self.schedule.on_started(now);
        (0..self.hosts.len()).for_each(|host| self.resolve(host));
    }

    /// Has a name resolved that has no addresses yet.
    fn resolve(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.is_being_resolved || !host.addrs.is_empty() {
            return;
        }
        if let Ok(addr) = host.text.parse() {
            return host.addrs.push(addr);
        }
        let (text, inputs) = (host.text.clone(), self.inputs.clone());
        let resolve = move || {
            let addrs = text.to_socket_addrs().into_iter().flatten().take(HOSTS_MAX).collect();
            // Nobody hears it when the DHT has ended.
            let _ = inputs.send(Input::Resolved { host: index, addrs });
        };
        host.is_being_resolved = thread::Builder::new().name("dht-name".to_owned()).spawn(resolve).is_ok();
    }

    fn on_resolved(&mut self, host: usize, addrs: Vec<SocketAddr>) {
        self.hosts[host].is_being_resolved = false;
        let is_of_use = !addrs.is_empty();
        self.hosts[host].addrs = addrs;
        if is_of_use && self.round.is_none() {
            self.schedule.on_hint();
        }
    }

    fn on_hint(&mut self, addr: SocketAddr) {
        if self.hints.contains(&addr) {
            return;
        }
        if self.hints.len() == HINTS_MAX {
            self.hints.pop_front();
        }
        self.hints.push_back(addr);
        match &mut self.round {
            Some(round) => round.lookup.add_seed(addr),
            None => self.schedule.on_hint(),
        }
    }

    fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        if let Some(round) = &mut self.round {
            round.lookup.handle(from, bytes);
        }
    }

    /// The hosts that everybody asks are asked where no others answer.
    fn offer_bootstrap(&mut self, now: Instant) {
        let Some(round) = &mut self.round else { return };
        let is_alone = self.known.is_empty() || round.lookup.is_over();
        if round.lookup.is_poor() && (is_alone || now >= round.started + BOOTSTRAP_PATIENCE) {
            let addrs = self.hosts.iter().flat_map(|host| &host.addrs);
            addrs.for_each(|addr| round.lookup.add_seed(*addr));
        }
    }

    /// Whether a lookup that has nobody to ask waits for a name.
    fn awaits_names(&self, round: &Round, now: Instant) -> bool {
        let is_late = now >= round.started + RESOLVE_PATIENCE;
        round.lookup.answered() == 0 && !is_late && self.hosts.iter().any(|host| host.is_being_resolved)
    }

    fn end_round(&mut self, now: Instant) {
        let is_over = |round: &Round| round.lookup.is_over() && !self.awaits_names(round, now);
        if !self.round.as_ref().is_some_and(is_over) {
            return;
        }
        self.keep_nodes();
        let Some(Round { lookup, .. }) = self.round.take() else { return };
        let nodes = lookup.answered();
        if nodes == 0 {
            // Perhaps they have moved.
            self.hosts.iter_mut().for_each(|host| host.addrs.clear());
        }
        self.identity = lookup.into_identity();
        self.schedule.on_over(nodes < CLOSEST);
        (self.events)(DhtEvent::Finished { nodes });
    }

    /// Remembers who has answered and forgets who has not, here and in the file.
    fn keep_nodes(&mut self) {
        let Some(Round { lookup, .. }) = &self.round else { return };
        let is_host = |node: &Node| self.hosts.iter().any(|host| host.addrs.contains(&node.addr));
        let mut nodes: Vec<Node> = lookup.nodes().filter(|node| !is_host(node)).collect();
        if lookup.answered() == 0 {
            // The network is down, which says nothing about them.
            return;
        }
        nodes.extend(self.known.iter().filter(|node| !lookup.has_asked(node.addr)));
        nodes.truncate(cache::NODES_MAX);
        self.known = nodes;
        if let Some(path) = &self.config.cache {
            // The next run does without.
            let _ = cache::save(path, &self.known);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let Some(round) = &self.round else { return self.schedule.next_at() };
        let now = Instant::now();
        let later = |wait| Some(round.started + wait).filter(|at| *at > now);
        let waits = [round.lookup.wake_at(), later(BOOTSTRAP_PATIENCE), later(RESOLVE_PATIENCE)];
        waits.into_iter().flatten().min()
    }
}

/// The sockets of one lookup, and the threads that receive from them for as long as they are here.
struct Sockets {
    v4: Option<Arc<UdpSocket>>,
    v6: Option<Arc<UdpSocket>>,
    is_over: Arc<AtomicBool>,
}

impl Sockets {
    /// A socket of each family that there is.
    fn open(inputs: &Sender<Input>, queued: &Arc<AtomicUsize>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let open = |any: SocketAddr| {
            let socket = Arc::new(bind(any).ok()?);
            let receiver = DatagramReceiver {
                socket: socket.clone(),
                inputs: inputs.clone(),
                queued: queued.clone(),
                is_over: is_over.clone(),
            };
            thread::Builder::new().name("dht-receive".to_owned()).spawn(move || receiver.run()).ok()?;
            Some(socket)
        };
        let v4 = open((Ipv4Addr::UNSPECIFIED, 0).into());
        let v6 = open((Ipv6Addr::UNSPECIFIED, 0).into());
        Self { v4, v6, is_over }
    }

    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(datagram, to).map(|_| ())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn bind(any: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(any), Type::DGRAM, None)?;
    if any.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_read_timeout(Some(RECEIVE_PATIENCE))?;
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    socket.bind(&any.into())?;
    Ok(socket.into())
}

/// Puts what arrives at a socket in the queue of inputs.
struct DatagramReceiver {
    socket: Arc<UdpSocket>,
    inputs: Sender<Input>,
    queued: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl DatagramReceiver {
    fn run(self) {
        // One byte more, so that a longer datagram is not taken for one of that length.
        let mut buffer = [0; DATAGRAM_LEN_MAX + 1];
        while !self.is_over.load(Ordering::Relaxed) {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => self.pass_on(from, &buffer[..len]),
                Err(error) if is_passing(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn pass_on(&self, from: SocketAddr, datagram: &[u8]) {
        if self.queued.load(Ordering::Relaxed) >= DATAGRAMS_QUEUED_MAX {
            return;
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        // Nobody hears it when the DHT has ended, which ends this thread as well.
        let _ = self.inputs.send(Input::Datagram { from, bytes: datagram.to_vec() });
    }
}

/// Whether the socket goes on after that: nothing has come, or an earlier datagram was refused.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock,
    };
    let passing = [ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock];
    passing.contains(&error.kind())
}
