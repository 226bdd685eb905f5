//! The metadata exchange of a magnet link (BEP 9, BEP 10): a thread that dials peers, or takes over those that have
//! dialed us, and asks them for the info dictionary. Whom to ask for what is decided in
//! [`swarm::metadata`](crate::swarm::metadata). What they say of other peers meanwhile is passed on.
//!
//! It is small and short, so it runs on readiness alone, whatever backend the download has: one task a peer, in which
//! reading, writing and being closed race each other. Whatever ends first ends the peer.
//!
//! What is said, and in which order, is an interface, on an encrypted connection too: the handshake, the extension
//! handshake, then requests for metadata.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::num::{NonZeroU8, NonZeroU16};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

use super::backend::{self, Backend};
use super::close::CloseReason;
use super::listener::Welcome;
use super::opening::{BUFFER_LEN, CLIENT, HANDSHAKE_TIMEOUT, Opened, Opening, Progress, REQUESTS_HELD, Way};
use crate::meta::torrent::InfoHash;
use crate::os::clock;
use crate::swarm::fault::Fault;
use crate::swarm::metadata::{Action, Exchange, ExchangeFault};
use crate::swarm::session::{Allowance, KEEP_ALIVE_EVERY};
use crate::wire::decoder::{Decoder, Event, Limits};
use crate::wire::extension::{self, Offer, Offered};
use crate::wire::handshake::{self, Handshake};
use crate::wire::message::{self, Message};
use crate::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use crate::wire::mse;
use crate::wire::pex::PeerExchange;

/// Connections at a time, those being dialed among them; more are refused. A peer takes up to 64 KiB of memory, and a
/// descriptor: of the 1024 that a process has where the limit cannot be raised this leaves enough for all else.
pub const CONNECTIONS_MAX: usize = 640;
/// Those among them that came in: whoever calls cannot keep us from those that we dial.
pub const CALLERS_MAX: usize = 128;
/// Places for those that come in that are kept free, as far as others give nothing.
const CALLERS_SPARE: usize = 16;
/// A peer keeps its place for so long whatever it says, and as long as it gives metadata.
pub const PLACE_MIN: Duration = Duration::from_secs(2);
/// Where nothing at all has come from a peer: three round trips of the slowest.
const MUTE_PLACE_MIN: Duration = Duration::from_secs(1);

/// A peer that has no metadata is given so long to get it.
const METADATA_PATIENCE: Duration = Duration::from_secs(30);
/// A peer that sends nothing at all for so long is given up: some say so little as a keep-alive every two minutes.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long [`MetadataFetch::stop`] waits.
const STOP_PATIENCE: Duration = Duration::from_millis(300);
/// Bytes of a peer, before it is closed: a HAVE for each of millions of pieces, and the metadata several times.
const RECEIVED_MAX: u64 = 192 << 20;
/// Unsent bytes beyond which a peer is neither asked nor answered.
const UNSENT_MAX: usize = 4096;
/// How the ids of rtorrent begin. It never reads again when a second request comes before it has answered the first.
const RTORRENT: &[u8] = b"-lt";

/// What is wanted of the peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Only their extension handshakes.
    Handshake,
    /// The info dictionary.
    Metadata,
}

/// What happened.
#[derive(Debug)]
pub enum MetadataEvent {
    /// A peer has sent its extension handshake.
    Shook {
        /// Which.
        addr: SocketAddr,
        /// The name it gave itself.
        peer_id: [u8; 20],
        /// What it said.
        offered: Offered,
        /// Whether it has dialed us, so that it listens not at `addr` but at the port it offers, if it says so.
        is_caller: bool,
    },
    /// A peer told of others (BEP 11), as often as is usual. The torrent may turn out to be a private one, whose peers
    /// come from its trackers only (BEP 27).
    Pex {
        /// Who told.
        from: SocketAddr,
        /// Whom it told of.
        exchange: PeerExchange,
    },
    /// The DHT node of a peer (BEP 5), at most once for each connection.
    DhtNode(SocketAddr),
    /// A peer is gone, or was never there. Comes once for each [`MetadataFetch::dial`] and each
    /// [`MetadataFetch::adopt`] until the end.
    Closed {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
    /// A piece of the metadata has come that was not there yet, right or wrong.
    Piece {
        /// From whom.
        from: SocketAddr,
    },
    /// A peer does not give a piece of the metadata; comes once for each connection.
    Refused {
        /// Which.
        from: SocketAddr,
    },
    /// The info dictionary, of the right hash. No peer is asked for anything afterwards.
    Complete(Vec<u8>),
    /// A task panicked, which is a bug.
    Panicked,
}

/// Takes what happened; called from the thread of the exchange, which waits for it.
pub type MetadataEventsFn = dyn Fn(MetadataEvent) + Send;

/// A running exchange. Dropping it ends it, without waiting for that.
#[derive(Debug)]
pub struct MetadataFetch {
    commands: UnboundedSender<Command>,
    stopped: mpsc::Receiver<()>,
}

#[derive(Debug)]
enum Command {
    Dial(SocketAddr, Option<mse::Offer>, Duration),
    Adopt(StdStream, SocketAddr),
    Close(SocketAddr),
    MakeRoom(usize, Places),
}

/// Which places are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Places {
    /// Any.
    Any,
    /// Those of peers that have not said what they have, connected or not.
    OfStrangers,
}

impl MetadataFetch {
    /// Starts the thread, which knows no peers yet. With `pex` it takes part in the peer exchange, as far as it
    /// listens; `welcome` is for those who have dialed us.
    ///
    /// # Errors
    /// When the system gives no thread or no epoll.
    pub fn start(
        info_hash: InfoHash,
        peer_id: [u8; 20],
        goal: Goal,
        welcome: Welcome,
        pex: bool,
        events: Box<MetadataEventsFn>,
    ) -> io::Result<Self> {
        let (commands, inbox) = unbounded_channel();
        let stopped = backend::spawn("metadata".to_owned(), Backend::Epoll, move || {
            let exchange = RefCell::new(Exchange::new(info_hash));
            let peers = RefCell::default();
            let complete = Cell::new(false);
            serve(
                inbox,
                Rc::new(Desk { info_hash, peer_id, goal, welcome, pex, events, exchange, peers, complete }),
            )
        })?;
        Ok(Self { commands, stopped })
    }

    /// Connects to a peer, which has so long to be there. With an offer the connection is an encrypted one, or begins
    /// as such. Of two connections to one address the second is refused.
    ///
    /// A peer that closes before it has said anything is told as [`CloseReason::Unanswered`]: it may speak the other
    /// way.
    pub fn dial(&self, addr: SocketAddr, encryption: Option<mse::Offer>, timeout: Duration) {
        let _ = self.commands.send(Command::Dial(addr, encryption, timeout));
    }

    /// Takes over the connection of a peer that has dialed us. It hears nothing before it names our torrent, or
    /// where it is encrypted only a key.
    pub fn adopt(&self, stream: StdStream, addr: SocketAddr) {
        let _ = self.commands.send(Command::Adopt(stream, addr));
    }

    /// Closes the connection to a peer, if there is one.
    pub fn close(&self, addr: SocketAddr) {
        let _ = self.commands.send(Command::Close(addr));
    }

    /// Closes so many connections to peers that give nothing, if there are as many: others wait for their places.
    pub fn make_room(&self, count: usize, places: Places) {
        let _ = self.commands.send(Command::MakeRoom(count, places));
    }

    /// Closes all connections, without an event for each, and waits until that is done, but not for long.
    pub fn stop(self) {
        let Self { commands, stopped } = self;
        drop(commands);
        let _ = stopped.recv_timeout(STOP_PATIENCE);
    }
}

/// What all peers share.
struct Desk {
    info_hash: InfoHash,
    peer_id: [u8; 20],
    goal: Goal,
    welcome: Welcome,
    pex: bool,
    events: Box<MetadataEventsFn>,
    exchange: RefCell<Exchange>,
    peers: RefCell<HashMap<SocketAddr, Rc<Peer>>>,
    complete: Cell<bool>,
}

/// One peer.
struct Peer {
    addr: SocketAddr,
    way: Way,
    /// What will be sent, as it is on the wire.
    out: RefCell<Vec<u8>>,
    /// For what is yet to be said, once it is to be encrypted.
    seal: RefCell<Option<mse::Cipher>>,
    out_ready: Notify,
    closing: RefCell<Option<CloseReason>>,
    closed: Notify,
    /// The number under which it takes messages of the metadata exchange.
    metadata_id: Cell<Option<u8>>,
    /// Since when it has a place.
    since: Instant,
    /// When something was sent last.
    spoke: Cell<Instant>,
    /// Whether a byte came from it.
    has_spoken: Cell<bool>,
}

impl Peer {
    fn new(addr: SocketAddr, way: Way) -> Self {
        let now = clock::now();
        Self {
            addr,
            way,
            out: RefCell::default(),
            seal: RefCell::default(),
            out_ready: Notify::new(),
            closing: RefCell::default(),
            closed: Notify::new(),
            metadata_id: Cell::new(None),
            since: now,
            spoke: Cell::new(now),
            has_spoken: Cell::new(way == Way::Called),
        }
    }

    /// Whether it has not told how it takes messages of the metadata exchange.
    const fn is_stranger(&self) -> bool {
        self.metadata_id.get().is_none()
    }

    /// Ends it for that reason; the first reason counts.
    fn close(&self, reason: CloseReason) {
        self.closing.borrow_mut().get_or_insert(reason);
        self.closed.notify_one();
    }

    async fn closing(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.closing.borrow_mut().take() {
                return reason;
            }
            self.closed.notified().await;
        }
    }

    /// Says something. Here and nowhere else it is encrypted.
    fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = self.out.borrow_mut();
        let said = out.len();
        write(&mut out);
        if let Some(cipher) = &mut *self.seal.borrow_mut() {
            cipher.apply(&mut out[said..]);
        }
        self.spoke.set(clock::now());
        self.out_ready.notify_one();
    }

    /// Sends a message of the metadata exchange, if the peer has said how and takes what it is sent. One that does not
    /// read must not fill our memory, and is left alone by the exchange for its silence.
    fn send_metadata(&self, message: &MetadataMessage<'_>) {
        if let Some(id) = self.metadata_id.get()
            && self.out.borrow().len() < UNSENT_MAX
        {
            self.send(|out| message::write_extended(out, id, &message.encode()));
        }
    }
}

/// Runs until nobody holds the [`MetadataFetch`] any more. The tasks that are left end with the runtime.
async fn serve(mut inbox: UnboundedReceiver<Command>, desk: Rc<Desk>) {
    spawn_local(tick(Rc::clone(&desk)));
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Dial(addr, encryption, timeout) => {
                desk.begin(addr, Way::Dialed(encryption), dial(addr, timeout));
            }
            Command::Adopt(stream, addr) => desk.begin(addr, Way::Called, async { adopt(stream) }),
            Command::Close(addr) => desk.close(addr, CloseReason::Finished),
            Command::MakeRoom(count, places) => {
                desk.make_room(count, |peer| places == Places::Any || peer.is_stranger());
            }
        }
    }
}

async fn tick(desk: Rc<Desk>) {
    let _guard = PanicGuard(&desk);
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        desk.act();
        let places = (desk.callers() + CALLERS_SPARE).saturating_sub(CALLERS_MAX);
        desk.make_room(places, |peer| peer.way == Way::Called);
        desk.keep_alive(clock::now());
    }
}

/// Tells of a task that panics, which the runtime would swallow.
struct PanicGuard<'a>(&'a Desk);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0.events)(MetadataEvent::Panicked);
        }
    }
}

impl Desk {
    /// Runs a peer, on the connection that `connect` gives, in a task of its own.
    fn begin(
        self: &Rc<Self>,
        addr: SocketAddr,
        way: Way,
        connect: impl Future<Output = Result<TcpStream, CloseReason>> + 'static,
    ) {
        if !self.has_place(addr, way) {
            return (self.events)(MetadataEvent::Closed { addr, reason: CloseReason::Crowded });
        }
        let peer = Rc::new(Peer::new(addr, way));
        self.peers.borrow_mut().insert(addr, Rc::clone(&peer));
        let desk = Rc::clone(self);
        spawn_local(async move {
            let _guard = PanicGuard(&desk);
            let reason = race(peer.closing(), run(&peer, &desk, connect)).await;
            tracing::info!("{addr}: closed: {reason}");
            desk.peers.borrow_mut().remove(&addr);
            desk.exchange.borrow_mut().gone(addr);
            desk.act();
            (desk.events)(MetadataEvent::Closed { addr, reason });
        });
    }

    fn has_place(&self, addr: SocketAddr, way: Way) -> bool {
        let peers = self.peers.borrow();
        peers.len() < CONNECTIONS_MAX
            && !peers.contains_key(&addr)
            && (way != Way::Called || self.callers() < CALLERS_MAX)
    }

    /// How many peers have dialed us.
    fn callers(&self) -> usize {
        self.peers.borrow().values().filter(|peer| peer.way == Way::Called).count()
    }

    /// Closes so many of these peers, the longest there first, whose time is over and that give nothing.
    fn make_room(&self, places: usize, may_go: impl Fn(&Peer) -> bool) {
        if places == 0 {
            return;
        }
        let now = clock::now();
        let (peers, exchange) = (self.peers.borrow(), self.exchange.borrow());
        let gives_nothing = |peer: &&Rc<Peer>| {
            let place_min = if peer.has_spoken.get() { PLACE_MIN } else { MUTE_PLACE_MIN };
            may_go(peer) && now >= peer.since + place_min && !exchange.is_worthy(peer.addr, now)
        };
        let mut idle: Vec<_> = peers.values().filter(gives_nothing).collect();
        idle.sort_by_key(|peer| peer.since);
        idle.into_iter().take(places).for_each(|peer| peer.close(CloseReason::Crowded));
    }

    /// Says something to those to whom nothing was said for long, so that they keep the connection.
    fn keep_alive(&self, now: Instant) {
        for peer in self.peers.borrow().values() {
            if !peer.is_stranger() && now.duration_since(peer.spoke.get()) > KEEP_ALIVE_EVERY {
                peer.send(message::write_keep_alive);
            }
        }
    }

    fn close(&self, addr: SocketAddr, reason: CloseReason) {
        if let Some(peer) = self.peers.borrow().get(&addr) {
            peer.close(reason);
        }
    }

    /// Carries out what the exchange wants done.
    fn act(&self) {
        if self.complete.get() {
            return;
        }
        let actions = self.exchange.borrow_mut().actions(clock::now());
        for action in actions {
            match action {
                Action::Request { peer, piece } => {
                    if let Some(peer) = self.peers.borrow().get(&peer) {
                        peer.send_metadata(&MetadataMessage::Request { piece });
                    }
                }
                Action::Ban(addr) => self.close(addr, CloseReason::Poisoned),
            }
        }
    }
}

async fn dial(addr: SocketAddr, timeout: Duration) -> Result<TcpStream, CloseReason> {
    match tokio::time::timeout(timeout, TcpStream::connect(addr)).await {
        Ok(connected) => connected.map_err(CloseReason::Dial),
        Err(_) => Err(CloseReason::DialTimeout),
    }
}

fn adopt(stream: StdStream) -> Result<TcpStream, CloseReason> {
    let is_ready = stream.set_nonblocking(true);
    is_ready.and_then(|()| TcpStream::from_std(stream)).map_err(CloseReason::Io)
}

/// One peer from its connection to close.
async fn run(
    peer: &Peer,
    desk: &Desk,
    connect: impl Future<Output = Result<TcpStream, CloseReason>>,
) -> CloseReason {
    let stream = match connect.await {
        Ok(stream) => stream,
        Err(reason) => return reason,
    };
    let _ = stream.set_nodelay(true);
    let reason = race(write(peer, &stream), read(peer, desk, &stream)).await;
    // A reset would take from the peer what it has not read yet.
    let _ = socket2::SockRef::from(&stream).shutdown(Shutdown::Both);
    reason
}

/// Runs both until one is done; the other is dropped.
async fn race<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => other.as_mut().poll(context),
    })
    .await
}

/// Sends what is left in `out` for as long as the connection lasts.
async fn write(peer: &Peer, stream: &TcpStream) -> CloseReason {
    loop {
        if peer.out.borrow().is_empty() {
            peer.out_ready.notified().await;
            continue;
        }
        if let Err(error) = stream.writable().await {
            return CloseReason::lost(Some(error), peer.has_spoken.get());
        }
        let mut out = peer.out.borrow_mut();
        match stream.try_write(&out) {
            Ok(n) => drop(out.drain(..n)),
            Err(error) if is_retry(&error) => {}
            Err(error) => return CloseReason::lost(Some(error), peer.has_spoken.get()),
        }
    }
}

async fn read(peer: &Peer, desk: &Desk, stream: &TcpStream) -> CloseReason {
    let Err(reason) = converse(peer, desk, stream).await;
    reason
}

async fn converse(
    peer: &Peer,
    desk: &Desk,
    stream: &TcpStream,
) -> Result<std::convert::Infallible, CloseReason> {
    let mut buffer = vec![0; BUFFER_LEN];
    let deadline = clock::now() + HANDSHAKE_TIMEOUT;
    let Opened { theirs, rest, ciphers } = shake_hands(peer, desk, stream, &mut buffer, deadline).await?;
    if !theirs.has(handshake::EXTENSION) {
        return Err(CloseReason::NoMetadata);
    }
    let mut cipher = ciphers.map(|ciphers| {
        *peer.seal.borrow_mut() = Some(ciphers.send);
        ciphers.receive
    });
    let offer = Offer {
        metadata: true,
        pex: desk.pex,
        reqq: REQUESTS_HELD,
        port: None,
        your_ip: Some(peer.addr.ip()),
        version: CLIENT,
    };
    peer.send(|out| message::write_extended(out, extension::HANDSHAKE_ID, &offer.encode()));
    let mut listener = Listener::new(peer, desk, theirs.peer_id);
    listener.take(&rest)?;
    loop {
        let received = receive(peer, stream, &mut buffer, listener.deadline()).await?;
        let received = &mut buffer[..received.ok_or_else(|| listener.overdue())?];
        if let Some(cipher) = &mut cipher {
            cipher.apply(received);
        }
        listener.take(received)?;
    }
}

async fn shake_hands(
    peer: &Peer,
    desk: &Desk,
    stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<Opened, CloseReason> {
    let ours = Handshake::new(handshake::EXTENSION, desk.info_hash.0, desk.peer_id);
    let mut out = Vec::new();
    let mut opening = Opening::new(peer.way, ours, desk.welcome, &mut out);
    loop {
        peer.send(|sent| sent.append(&mut out));
        let received = receive(peer, stream, buffer, deadline).await?;
        let received = received.ok_or(CloseReason::HandshakeTimeout)?;
        opening = match opening.take(&mut buffer[..received], &mut out)? {
            Progress::More(opening) => opening,
            Progress::Opened(opened) => {
                peer.send(|sent| sent.append(&mut out));
                return Ok(opened);
            }
        };
    }
}

/// Receives at least a byte; `None` where none comes before the deadline.
async fn receive(
    peer: &Peer,
    stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<Option<usize>, CloseReason> {
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        match tokio::time::timeout(left, stream.readable()).await {
            Err(_) if clock::now() >= deadline => return Ok(None),
            // The time ran out while the process did not run.
            Err(_) => continue,
            Ok(Err(error)) => return Err(CloseReason::lost(Some(error), peer.has_spoken.get())),
            Ok(Ok(())) => {}
        }
        match stream.try_read(buffer) {
            Ok(0) => return Err(CloseReason::lost(None, peer.has_spoken.get())),
            Ok(n) => {
                peer.has_spoken.set(true);
                return Ok(Some(n));
            }
            Err(error) if is_retry(&error) => {}
            Err(error) => return Err(CloseReason::lost(Some(error), peer.has_spoken.get())),
        }
    }
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The receiving side of a peer after the handshake.
struct Listener<'a> {
    peer: &'a Peer,
    desk: &'a Desk,
    peer_id: [u8; 20],
    decoder: Decoder,
    since: Instant,
    heard: Instant,
    /// Whether its extension handshake has come.
    shook: bool,
    /// How long the metadata is, as it says.
    metadata_size: Option<u64>,
    /// Whether it has said how long the metadata is, and takes part in the exchange.
    has_metadata: bool,
    /// Of messages of the peer exchange.
    allowance: Allowance,
    has_named_node: bool,
    has_refused: bool,
    /// Bytes that have come.
    received: u64,
}

impl<'a> Listener<'a> {
    fn new(peer: &'a Peer, desk: &'a Desk, peer_id: [u8; 20]) -> Self {
        let now = clock::now();
        let decoder = Decoder::new(Limits::before_metadata());
        Self {
            peer,
            desk,
            peer_id,
            decoder,
            since: now,
            heard: now,
            shook: false,
            metadata_size: None,
            has_metadata: false,
            allowance: Allowance::new(now),
            has_named_node: false,
            has_refused: false,
            received: 0,
        }
    }

    /// Until when something must have come.
    fn deadline(&self) -> Instant {
        let silence = self.heard + SILENCE_MAX;
        match (self.shook, self.has_metadata || self.desk.goal == Goal::Handshake) {
            (false, _) => self.since + HANDSHAKE_TIMEOUT,
            (true, false) => silence.min(self.since + METADATA_PATIENCE),
            (true, true) => silence,
        }
    }

    /// Why it is closed when nothing has come by then.
    fn overdue(&self) -> CloseReason {
        match (self.shook, self.has_metadata) {
            (false, _) => CloseReason::HandshakeTimeout,
            (true, false) => CloseReason::NoMetadata,
            (true, true) => CloseReason::Fault(Fault::Silent),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        self.heard = clock::now();
        self.received += bytes.len() as u64;
        // A deadline may pass while bytes that are of no use keep coming.
        if self.heard > self.deadline() {
            return Err(self.overdue());
        }
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Limits::before_metadata()));
        loop {
            match decoder.next(&mut bytes).map_err(|error| CloseReason::Fault(Fault::Wire(error)))? {
                Some(Event::Message(Message::Extended { id: extension::HANDSHAKE_ID, payload })) => {
                    self.on_offer(&Offered::parse(payload))?;
                }
                Some(Event::Message(Message::Extended { id: extension::OUR_METADATA_ID, payload })) => {
                    self.on_metadata(payload)?;
                }
                Some(Event::Message(Message::Extended { id: extension::OUR_PEX_ID, payload })) => {
                    self.on_pex(payload)?;
                }
                Some(Event::Message(Message::Port(port))) => self.on_port(port),
                // Whatever else it says is of no use before the metadata is there.
                Some(Event::Message(_) | Event::BlockStart(_) | Event::BlockData { .. }) => {}
                None => break,
            }
        }
        self.decoder = decoder;
        if self.received > RECEIVED_MAX {
            return Err(CloseReason::Fault(Fault::Chatter { bytes: self.received }));
        }
        self.desk.act();
        Ok(())
    }

    fn on_offer(&mut self, offered: &Offered) -> Result<(), CloseReason> {
        let addr = self.peer.addr;
        if !self.shook {
            self.shook = true;
            let (peer_id, is_caller) = (self.peer_id, self.peer.way == Way::Called);
            let offered = offered.clone();
            (self.desk.events)(MetadataEvent::Shook { addr, peer_id, offered, is_caller });
        }
        if self.desk.goal == Goal::Handshake {
            return Ok(());
        }
        // A later handshake changes what it names (BEP 10).
        let id = offered.metadata.or(self.peer.metadata_id.get().and_then(NonZeroU8::new));
        self.peer.metadata_id.set(id.map(NonZeroU8::get));
        self.metadata_size = offered.metadata_size.or(self.metadata_size);
        // Some name the exchange only when they have something to give.
        if let (Some(_), Some(len)) = (id, self.metadata_size) {
            self.has_metadata = true;
            let told = self.desk.exchange.borrow_mut().offered(addr, len, clock::now());
            told.map_err(close_reason)?;
            if self.peer_id.starts_with(RTORRENT) {
                self.desk.exchange.borrow_mut().ask_in_turn(addr);
            }
            // Nothing goes before the first request, not even the answer to one of the peer's that is here already.
            self.desk.act();
        }
        Ok(())
    }

    fn on_metadata(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        if self.desk.goal == Goal::Handshake || self.desk.complete.get() {
            return Ok(());
        }
        let message =
            MetadataMessage::parse(payload).map_err(|error| CloseReason::Fault(Fault::Metadata(error)))?;
        if let MetadataMessage::Request { piece } = message {
            self.peer.send_metadata(&MetadataMessage::Reject { piece });
        }
        let is_refusal = matches!(message, MetadataMessage::Reject { .. });
        if is_refusal && !std::mem::replace(&mut self.has_refused, true) {
            (self.desk.events)(MetadataEvent::Refused { from: self.peer.addr });
        }
        let (complete, is_new) = {
            let mut exchange = self.desk.exchange.borrow_mut();
            let taken = exchange.taken();
            let complete = exchange.heard(self.peer.addr, message, clock::now());
            (complete, exchange.taken() > taken)
        };
        if is_new {
            (self.desk.events)(MetadataEvent::Piece { from: self.peer.addr });
        }
        if let Some(info) = complete.map_err(close_reason)? {
            self.desk.complete.set(true);
            (self.desk.events)(MetadataEvent::Complete(info));
        }
        Ok(())
    }

    fn on_pex(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        if !self.desk.pex || !self.allowance.take(clock::now()).map_err(CloseReason::Fault)? {
            return Ok(());
        }
        let exchange = PeerExchange::parse(payload);
        if !exchange.is_empty() {
            (self.desk.events)(MetadataEvent::Pex { from: self.peer.addr, exchange });
        }
        Ok(())
    }

    fn on_port(&mut self, port: u16) {
        if let Some(port) = NonZeroU16::new(port)
            && !std::mem::replace(&mut self.has_named_node, true)
        {
            let node = SocketAddr::new(self.peer.addr.ip(), port.get());
            (self.desk.events)(MetadataEvent::DhtNode(node));
        }
    }
}

fn close_reason(fault: ExchangeFault) -> CloseReason {
    match fault {
        ExchangeFault::Banned => CloseReason::Poisoned,
        ExchangeFault::Crowded => CloseReason::Crowded,
        ExchangeFault::TooLong { .. } | ExchangeFault::PieceLen { .. } | ExchangeFault::OtherLen { .. } => {
            CloseReason::Fault(Fault::Exchange(fault))
        }
    }
}

// A request is answered by one message, which must pass the decoder.
const _: () = assert!(METADATA_PIECE_LEN + 1024 < crate::wire::decoder::EXTENDED_MAX);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// A desk, and a peer there that has told how it takes messages of the exchange.
    fn desk() -> (Desk, Rc<Peer>) {
        let info_hash = InfoHash([1; 20]);
        let desk = Desk {
            info_hash,
            peer_id: [2; 20],
            goal: Goal::Metadata,
            welcome: Welcome::Both,
            pex: false,
            events: Box::new(drop),
            exchange: RefCell::new(Exchange::new(info_hash)),
            peers: RefCell::default(),
            complete: Cell::new(false),
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Rc::new(Peer::new(addr, Way::Dialed(None)));
        peer.metadata_id.set(Some(1));
        desk.peers.borrow_mut().insert(addr, Rc::clone(&peer));
        (desk, peer)
    }

    #[test]
    fn who_has_metadata_hears_something_within_ten_seconds() {
        let (desk, peer) = desk();
        let now = peer.since;
        desk.keep_alive(now + Duration::from_secs(7));
        assert!(peer.out.borrow().is_empty());
        desk.keep_alive(now + Duration::from_secs(9));
        assert_eq!(*peer.out.borrow(), [0; 4]);
        peer.out.borrow_mut().clear();
        peer.metadata_id.set(None);
        desk.keep_alive(now + Duration::from_secs(100));
        assert!(peer.out.borrow().is_empty(), "nothing goes before its extension handshake");
    }

    #[test]
    fn who_does_not_read_is_asked_no_more() {
        let (desk, peer) = desk();
        let addr = peer.addr;
        for number in 0..10_000 {
            // It says another size each time, which makes it a new peer of the exchange.
            desk.exchange.borrow_mut().offered(addr, 1_000_000 + number % 2, clock::now()).unwrap();
            desk.act();
        }
        let unsent = peer.out.borrow().len();
        assert!((UNSENT_MAX..UNSENT_MAX + 100).contains(&unsent), "{unsent}");
    }

    #[test]
    fn it_ends_at_once_whoever_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for stops in [true, false] {
            let (told, events) = mpsc::channel();
            let tell = move |event| drop(told.send(event));
            let goal = Goal::Metadata;
            let fetch =
                MetadataFetch::start(InfoHash([1; 20]), [2; 20], goal, Welcome::Both, false, Box::new(tell))
                    .unwrap();
            fetch.dial(addr, None, Duration::from_secs(5));
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; handshake::LEN];
            stream.read_exact(&mut hello).unwrap();
            assert_eq!(hello, Handshake::new(handshake::EXTENSION, [1; 20], [2; 20]).encode());
            fetch.dial(addr, None, Duration::from_secs(5));
            let refused = events.recv_timeout(Duration::from_secs(5)).unwrap();
            assert!(
                matches!(refused, MetadataEvent::Closed { reason: CloseReason::Crowded, .. }),
                "{refused:?}"
            );
            let start = Instant::now();
            if stops {
                fetch.stop();
            } else {
                fetch.close(addr);
                let closed = events.recv_timeout(Duration::from_secs(5)).unwrap();
                assert!(
                    matches!(closed, MetadataEvent::Closed { reason: CloseReason::Finished, .. }),
                    "{closed:?}"
                );
                drop(fetch);
            }
            // The sender of the events goes with the thread.
            assert!(events.recv_timeout(Duration::from_secs(5)).is_err());
            assert_eq!(stream.read(&mut hello).unwrap_or(0), 0, "the connection is closed");
            assert!(start.elapsed() < Duration::from_secs(4));
        }
    }
}
