//! Peers on the local network (BEP 14): tells a multicast group which torrent is wanted and where, and hears who else
//! shares it.
//!
//! A thread of its own has a socket for each interface and version of IP. Whatever goes wrong there (no network, no
//! multicast, somebody else on the port) is written to the log and is no error: this is the smallest of our sources.
//! Datagrams come from anybody; the sender counts only when his address is on a local network, and how many are read,
//! and how many peers they may name, is bounded.
//!
//! A torrent that is private (BEP 27) is not for this source. That is for the caller to see to.

mod interfaces;
pub mod message;
mod neighbours;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use self::interfaces::{Interface, LOOPBACK};
use self::message::{MESSAGE_LEN_MAX, Search};
use self::neighbours::{Budget, Neighbours};

/// The port of the groups.
pub const PORT: u16 = 6771;
/// The group on IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// The group on IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// Routers that an announce may pass, and one: it stays on its network.
const HOPS: u32 = 1;
/// The wait between the first announce and the second, which makes up for a first one that got lost. BEP 14 allows one
/// a minute.
const AGAIN_AFTER: Duration = Duration::from_secs(61);
/// The wait between all others.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// What to announce.
#[derive(Clone, Debug)]
pub struct LsdConfig {
    /// Names the torrent.
    pub info_hash: [u8; 20],
    /// Where this client listens. Without one it only hears others.
    pub port: Option<u16>,
    /// Tells our announces from those of others on this machine.
    pub seed: u64,
}

/// Takes the peers that were heard of, as addresses to dial; called from the thread, which waits for it.
pub type PeersFn = dyn Fn(Vec<SocketAddr>) + Send;

/// Announces and hears until it is dropped. Drop does not wait for the thread.
#[derive(Debug)]
pub struct Lsd {
    _stop: oneshot::Sender<Infallible>,
}

impl Lsd {
    /// Starts at once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: LsdConfig, events: Box<PeersFn>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("lsd".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, serve(config, events, stopped)),
                Err(error) => tracing::debug!("no local service discovery: {error}"),
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// Runs until the other end of `stopped` is dropped, and with it all tasks.
async fn serve(config: LsdConfig, events: Box<PeersFn>, stopped: oneshot::Receiver<Infallible>) {
    let service = Rc::new(Service::new(&config, events));
    let port = config.port.and_then(NonZeroU16::new);
    spawn_local(async move {
        let mut wait = AGAIN_AFTER;
        loop {
            service.look_around();
            if let Some(port) = port {
                service.announce(port).await;
            }
            tokio::time::sleep(wait).await;
            wait = EVERY;
        }
    });
    // Nothing is ever sent.
    let _ = stopped.await;
}

/// One of the two groups on one interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Place {
    index: u32,
    is_v6: bool,
}

impl Place {
    fn group(self) -> SocketAddr {
        if self.is_v6 {
            SocketAddrV6::new(GROUP_V6, PORT, 0, self.index).into()
        } else {
            (GROUP_V4, PORT).into()
        }
    }
}

/// A socket, and the task that reads it.
struct Ear {
    socket: Rc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service {
    info_hash: [u8; 20],
    cookie: String,
    events: Box<PeersFn>,
    ears: RefCell<HashMap<Place, Ear>>,
    neighbours: RefCell<Neighbours>,
    budget: RefCell<Budget>,
}

impl Service {
    fn new(config: &LsdConfig, events: Box<PeersFn>) -> Self {
        Self {
            info_hash: config.info_hash,
            cookie: format!("{:016x}", config.seed),
            events,
            ears: RefCell::default(),
            neighbours: RefCell::default(),
            budget: RefCell::new(Budget::new(Instant::now())),
        }
    }

    /// Hears on the interfaces that are up now, and on no others.
    fn look_around(self: &Rc<Self>) {
        let interfaces = interfaces::list();
        let places = interfaces.iter().flat_map(|interface| {
            [(interface.has_v4, false), (interface.has_v6, true)]
                .into_iter()
                .filter(|&(has, _)| has)
                .map(move |(_, is_v6)| (Place { index: interface.index, is_v6 }, interface))
        });
        let places: HashMap<_, _> = places.collect();
        let mut ears = self.ears.borrow_mut();
        ears.retain(|place, ear| places.contains_key(place) && !ear.task.is_finished());
        for (place, interface) in places {
            if ears.contains_key(&place) {
                continue;
            }
            match open(place, &interface.name) {
                Ok(socket) => {
                    let socket = Rc::new(socket);
                    let hear = Rc::clone(self).hear(Rc::clone(&socket), interface.clone());
                    ears.insert(place, Ear { socket, task: spawn_local(hear) });
                }
                Err(error) => tracing::debug!("no {} on {}: {error}", place.group(), interface.name),
            }
        }
    }

    async fn announce(&self, port: NonZeroU16) {
        let cookie = Some(self.cookie.clone());
        let search = Search { port, info_hashes: vec![self.info_hash], cookie };
        let ears = self
            .ears
            .borrow()
            .iter()
            .map(|(&place, ear)| (place, Rc::clone(&ear.socket)))
            .collect::<Vec<_>>();
        for (place, socket) in ears {
            let group = place.group();
            // A host is named without its scope, which means nothing to others.
            let name = SocketAddr::new(group.ip(), group.port());
            if let Err(error) = socket.send_to(&search.encode(name), group).await {
                tracing::debug!("cannot announce to {group}: {error}");
            }
        }
    }

    /// Reads a socket until it fails.
    async fn hear(self: Rc<Self>, socket: Rc<UdpSocket>, interface: Interface) {
        // A byte more than there may be shows what is too long.
        let mut buffer = vec![0; MESSAGE_LEN_MAX + 1];
        loop {
            let (len, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => return tracing::debug!("nothing heard on {}: {error}", interface.name),
            };
            let now = Instant::now();
            if let Some(peer) = self.understand(&buffer[..len], from, &interface)
                && self.neighbours.borrow_mut().tell(peer, now)
            {
                tracing::debug!(%peer, "heard of");
                (self.events)(vec![peer]);
            }
            let wait = self.budget.borrow_mut().take(now);
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// The peer that a datagram tells of, if it is one of our torrent and not ourselves.
    fn understand(&self, datagram: &[u8], from: SocketAddr, interface: &Interface) -> Option<SocketAddr> {
        let search = match Search::parse(datagram) {
            Ok(search) => search,
            Err(error) => {
                tracing::debug!(%from, "{error}");
                return None;
            }
        };
        let is_ours = search.cookie.as_ref() == Some(&self.cookie);
        let is_wanted = search.info_hashes.contains(&self.info_hash);
        let mut peer = from;
        peer.set_port(search.port.get());
        (is_wanted && !is_ours && interface.is_local(from.ip())).then_some(peer)
    }
}

/// A socket of the group on one interface. It shares the port with every other client of this machine.
fn open(place: Place, interface: &str) -> io::Result<UdpSocket> {
    let group = place.group();
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if let Err(error) = socket.bind_device(Some(interface.as_bytes())) {
        // Before Linux 5.7 not every user may. Then announces on IPv4 leave by the default route only.
        tracing::debug!("cannot bind to {interface}: {error}");
    }
    match group {
        SocketAddr::V4(group) => {
            // Bound to the group it gets nothing that was sent to this machine alone.
            socket.bind(&group.into())?;
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Index(place.index))?;
            socket.set_multicast_ttl_v4(HOPS)?;
            if interface == LOOPBACK {
                // By itself the kernel gives no address of this interface to what it sends.
                socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
            }
            // Other clients of this machine are neighbours, too.
            socket.set_multicast_loop_v4(true)?;
        }
        SocketAddr::V6(group) => {
            socket.set_only_v6(true)?;
            socket.bind(&group.into())?;
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(group.ip(), place.index)?;
            socket.set_multicast_if_v6(place.index)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    UdpSocket::from_std(socket.into())
}
