//! One peer on one core: dial (unless it has dialed us), handshake, then receive and request until one side closes.
//!
//! Three parties touch a [`Peer`], all on the same thread: its reader (the task that runs [`run`]), its writer (a task
//! that sends what the others leave in `out`, so that a receive and a send go to the kernel together), and the core's
//! clock, a few times a second. No borrow is held across an await.
//!
//! A receive is never dropped and never put under a timeout, as its bytes would be lost: whoever wants a peer gone
//! notes the reason and shuts the socket down, and the receive ends by itself.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::backend::Backend;
use super::close::CloseReason;
use super::opening::{BUFFER_LEN, CLIENT, HANDSHAKE_TIMEOUT, Opened, Opening, Progress, REQUESTS_HELD, Way};
use super::scatter::Scatter;
use super::shared::{Counters, Desk, Event, PeerReport, Shared};
use super::sketch::Sketch;
use super::socket::Socket;
use crate::disk::{DiskError, PieceLease};
use crate::meta::units::Bytes;
use crate::os::clock;
use crate::swarm::receive::feed;
use crate::swarm::session::{Session, Standing, Tally, Terms};
use crate::wire::decoder::{Decoder, Limits};
use crate::wire::extension;
use crate::wire::handshake::{self, Handshake};
use crate::wire::message;
use crate::wire::mse;

/// Bytes received at a time from a peer that is read through the decoder because predictions keep failing, or because
/// it is encrypted.
const BUFFER_LEN_DECODING: usize = 128 * 1024;
/// HAVE messages written per peer and tick.
const HAVES_PER_TICK_MAX: usize = 1024;
/// After so many blocks it is looked at how many of them were copied because the prediction had failed.
const JUDGED_BLOCKS: u64 = 512;
/// Receives through the decoder, for a peer of whose blocks most were copied, before predictions are tried again.
const DECODED_RECEIVES: u32 = 64;
/// The wait before another look where pieces are not verified as fast as they come.
const BEHIND_PAUSE: Duration = Duration::from_millis(1);

/// Encrypts what is sent.
struct Seal {
    cipher: mse::Cipher,
    /// So many bytes that wait to be sent are from before.
    plain: usize,
}

impl Seal {
    /// Encrypts the next bytes that are sent.
    fn apply(&mut self, bytes: &mut [u8]) {
        let plain = self.plain.min(bytes.len());
        self.plain -= plain;
        self.cipher.apply(&mut bytes[plain..]);
    }
}

/// Where a peer stands.
enum Phase {
    Dialing { deadline: Instant, timeout: Duration },
    Handshaking { deadline: Instant },
    Talking(Box<Talk>),
}

/// A peer after the handshake.
struct Talk {
    session: Session<PieceLease>,
    decoder: Decoder,
    sketch: Sketch,
}

/// One peer.
pub(super) struct Peer {
    addr: SocketAddr,
    way: Way,
    socket: Socket,
    phase: RefCell<Phase>,
    out: RefCell<Vec<u8>>,
    /// For the bytes in `out`, once they are to be encrypted.
    seal: RefCell<Option<Seal>>,
    out_ready: Notify,
    closing: RefCell<Option<CloseReason>>,
    over: Cell<bool>,
}

impl Peer {
    /// A peer about to be dialed, encrypted if there is an offer for that, which is given up when it is not there
    /// within `timeout`, and again when it is there and has not shaken hands within that.
    pub(super) fn new(
        addr: SocketAddr,
        backend: Backend,
        encryption: Option<mse::Offer>,
        timeout: Duration,
    ) -> io::Result<Rc<Self>> {
        let phase = Phase::Dialing { deadline: clock::now() + timeout, timeout };
        Ok(Self::of(addr, Socket::new(backend, addr)?, Way::Dialed(encryption), phase))
    }

    /// A peer that has dialed us.
    pub(super) fn adopt(stream: TcpStream, addr: SocketAddr, backend: Backend) -> io::Result<Rc<Self>> {
        let phase = Phase::Handshaking { deadline: clock::now() + HANDSHAKE_TIMEOUT };
        Ok(Self::of(addr, Socket::adopt(backend, stream)?, Way::Called, phase))
    }

    fn of(addr: SocketAddr, socket: Socket, way: Way, phase: Phase) -> Rc<Self> {
        Rc::new(Self {
            addr,
            way,
            socket,
            phase: RefCell::new(phase),
            out: RefCell::default(),
            seal: RefCell::default(),
            out_ready: Notify::new(),
            closing: RefCell::default(),
            over: Cell::new(false),
        })
    }

    /// Where it is.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends the connection for that reason; the first reason counts.
    pub(super) fn close(&self, reason: CloseReason) {
        self.closing.borrow_mut().get_or_insert(reason);
        self.socket.shutdown();
        self.out_ready.notify_one();
    }

    /// Looks at the clock. Called a few times a second by the core.
    pub(super) fn tick(&self, shared: &Shared, now: Instant) {
        let overdue = match &mut *self.phase.borrow_mut() {
            Phase::Dialing { deadline, .. } => (now > *deadline).then_some(CloseReason::DialTimeout),
            Phase::Handshaking { deadline } => (now > *deadline).then_some(CloseReason::HandshakeTimeout),
            Phase::Talking(talk) => {
                let ticked = self.tick_session(&mut talk.session, shared, now);
                talk.sketch.look(&talk.session);
                ticked.err()
            }
        };
        if let Some(reason) = overdue {
            self.close(reason);
        }
        self.flush();
    }

    /// How it stands, once it has sent its handshake.
    pub(super) fn report(&self, now: Instant) -> Option<PeerReport> {
        match &*self.phase.borrow() {
            Phase::Talking(talk) => Some(talk.sketch.report(&talk.session, now)),
            Phase::Dialing { .. } | Phase::Handshaking { .. } => None,
        }
    }

    /// Whether it has sent something of use within the last few seconds.
    pub(super) fn is_sending(&self, now: Instant) -> bool {
        match &*self.phase.borrow() {
            Phase::Talking(talk) => talk.session.standing(now) == Standing::Sending,
            Phase::Dialing { .. } | Phase::Handshaking { .. } => false,
        }
    }

    fn tick_session(
        &self,
        session: &mut Session<PieceLease>,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), CloseReason> {
        let mut out = self.out.borrow_mut();
        let wants_claims = session.tick(now, &mut Desk(shared), &mut out).map_err(CloseReason::Fault)?;
        if session.is_idle(now) && shared.gives_place() {
            return Err(CloseReason::Crowded);
        }
        shared.with_verified(|verified| session.announce_haves(verified, HAVES_PER_TICK_MAX, &mut out));
        if session.wants_peers(now) {
            session.tell_peers(&shared.contacts(), now, &mut out);
        }
        if wants_claims {
            self.socket.cancel();
        }
        Ok(())
    }

    /// Tells which pieces we have.
    fn introduce(&self, shared: &Shared) {
        if let Phase::Talking(talk) = &mut *self.phase.borrow_mut() {
            talk.session.introduce(&mut Desk(shared), &mut self.out.borrow_mut());
        }
    }

    /// Leaves bytes to the writer.
    fn send(&self, bytes: &[u8]) {
        self.out.borrow_mut().extend_from_slice(bytes);
        self.flush();
    }

    /// Encrypts whatever is left to the writer from now on.
    fn seal(&self, cipher: mse::Cipher) {
        *self.seal.borrow_mut() = Some(Seal { cipher, plain: self.out.borrow().len() });
    }

    /// Wakes the writer if there is something to send.
    fn flush(&self) {
        if !self.out.borrow().is_empty() {
            self.out_ready.notify_one();
        }
    }

    /// The reason to end, if there is one already.
    fn check_closing(&self) -> Result<(), CloseReason> {
        self.closing.borrow_mut().take().map_or(Ok(()), Err)
    }
}

/// Runs one peer from dial, or from its call, to close and reports how it ended.
pub(super) async fn run(peer: Rc<Peer>, shared: &Shared) {
    spawn_local(write(Rc::clone(&peer)));
    let Err(reason) = talk(&peer, shared).await;
    let reason = peer.closing.borrow_mut().take().unwrap_or(reason);
    peer.over.set(true);
    peer.close(CloseReason::Finished);
    let mut report = peer.report(clock::now());
    let tally = match &mut *peer.phase.borrow_mut() {
        Phase::Talking(talk) => talk.session.close(&mut Desk(shared)),
        Phase::Dialing { .. } | Phase::Handshaking { .. } => Tally::default(),
    };
    report.iter_mut().for_each(|report| report.tally = tally);
    Counters::add(&shared.counters().wasted, tally.wasted);
    tracing::info!(
        "{}: closed: {reason}; {} of use, {} wasted",
        peer.addr,
        Bytes(tally.useful),
        Bytes(tally.wasted)
    );
    report.into_iter().for_each(|report| shared.tell(Event::Left(report)));
    shared.tell(Event::Closed { addr: peer.addr, reason, tally });
}

/// Sends what is left in `out`, until the peer is closed.
async fn write(peer: Rc<Peer>) {
    let mut bytes = Vec::new();
    while !peer.over.get() {
        std::mem::swap(&mut bytes, &mut *peer.out.borrow_mut());
        if bytes.is_empty() {
            peer.out_ready.notified().await;
            continue;
        }
        // Here and nowhere else, so once for each byte: what a send did not take is sent as it is.
        if let Some(seal) = &mut *peer.seal.borrow_mut() {
            seal.apply(&mut bytes);
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let (result, back) = peer.socket.send(bytes, sent).await;
            bytes = back;
            match result {
                Ok(n) => sent += n,
                // A cancel meant for the receive may hit the send; nothing of it was taken then.
                Err(error) if is_retry(&error) && peer.closing.borrow().is_none() => {}
                Err(error) => return peer.close(CloseReason::Io(error)),
            }
        }
        bytes.clear();
    }
}

async fn talk(peer: &Rc<Peer>, shared: &Shared) -> Result<std::convert::Infallible, CloseReason> {
    if let Way::Dialed(_) = peer.way {
        peer.socket.connect(peer.addr).await.map_err(CloseReason::Dial)?;
        peer.check_closing()?;
        tracing::info!("{}: connected", peer.addr);
        let mut phase = peer.phase.borrow_mut();
        if let Phase::Dialing { timeout, .. } = *phase {
            *phase = Phase::Handshaking { deadline: clock::now() + timeout.min(HANDSHAKE_TIMEOUT) };
        }
    }
    let opened = shake_hands(peer, shared).await?;
    let sketch = Sketch::new(peer.addr, &opened, clock::now());
    let Opened { theirs, rest, ciphers } = opened;
    let cipher = ciphers.map(|ciphers| {
        peer.seal(ciphers.send);
        ciphers.receive
    });
    let geometry = shared.geometry();
    let now = clock::now();
    let offers_pex = theirs.has(handshake::EXTENSION) && shared.allows_pex();
    // Whoever has not heard it from us takes the messages of the fast extension for faults.
    let fast = theirs.has(handshake::FAST) && shared.features() & handshake::FAST != 0;
    let terms = Terms { fast, pex: offers_pex };
    let session = Session::new(peer.addr, geometry, terms, now, &mut Desk(shared));
    let limits = Limits::of_pieces(geometry.piece_count());
    let talk = Box::new(Talk { session, decoder: Decoder::new(limits), sketch });
    *peer.phase.borrow_mut() = Phase::Talking(talk);
    shared.tell(Event::Connected(peer.addr));
    if terms.fast {
        // Exactly one message must tell which pieces we have, before all others (BEP 6).
        peer.introduce(shared);
    }
    if theirs.has(handshake::EXTENSION) {
        let offer = extension::Offer {
            metadata: false,
            pex: terms.pex,
            reqq: REQUESTS_HELD,
            port: shared.port(),
            your_ip: Some(peer.addr.ip()),
            version: CLIENT,
        };
        message::write_extended(&mut peer.out.borrow_mut(), extension::HANDSHAKE_ID, &offer.encode());
    }
    let mut reader = Reader::new(peer, shared, cipher);
    reader.take(&rest, now)?;
    loop {
        reader.receive().await?;
    }
}

/// Exchanges handshakes.
async fn shake_hands(peer: &Peer, shared: &Shared) -> Result<Opened, CloseReason> {
    let features = shared.features();
    let ours = Handshake::new(features, shared.info_hash().0, shared.peer_id());
    let mut has_spoken = peer.way == Way::Called;
    let (mut buffer, mut out) = (vec![0; BUFFER_LEN], Vec::new());
    let mut opening = Opening::new(peer.way, ours, shared.welcome(), &mut out);
    loop {
        peer.send(&out);
        out.clear();
        let (result, back) = peer.socket.recv(buffer).await;
        buffer = back;
        peer.check_closing()?;
        let received = match result {
            Ok(0) => return Err(CloseReason::lost(None, has_spoken)),
            Ok(received) => received,
            Err(error) => return Err(CloseReason::lost(Some(error), has_spoken)),
        };
        has_spoken = true;
        let progress = opening.take(&mut buffer[..received], &mut out)?;
        opening = match progress {
            Progress::More(opening) => opening,
            Progress::Opened(opened) => {
                peer.send(&out);
                return Ok(opened);
            }
        };
    }
}

/// The receiving side of a peer after the handshake.
struct Reader<'a> {
    peer: &'a Rc<Peer>,
    shared: &'a Shared,
    scatter: Option<Box<Scatter>>,
    buffer: Vec<u8>,
    /// Blocks since the predictions were last judged, and how many of them were where they were expected.
    blocks: u64,
    hits: u64,
    /// Bytes of its blocks that were of use, as far as they are in the counters.
    useful: u64,
    /// Receives still to go through the decoder.
    decode_next: u32,
    /// What comes is encrypted: it has to be in a buffer before it can be put in its place.
    cipher: Option<mse::Cipher>,
}

impl<'a> Reader<'a> {
    fn new(peer: &'a Rc<Peer>, shared: &'a Shared, cipher: Option<mse::Cipher>) -> Self {
        let buffer = vec![0; if cipher.is_some() { BUFFER_LEN_DECODING } else { BUFFER_LEN }];
        Self { peer, shared, scatter: None, buffer, blocks: 0, hits: 0, useful: 0, decode_next: 0, cipher }
    }

    /// Receives once, by a scatter if what comes can be predicted, and works through what came.
    async fn receive(&mut self) -> Result<(), CloseReason> {
        while self.shared.is_behind() {
            tokio::time::sleep(BEHIND_PAUSE).await;
            self.peer.check_closing()?;
        }
        if self.cipher.is_some() {
            return self.receive_decoded().await;
        }
        let mut scatter = self.scatter.take().unwrap_or_else(Scatter::new);
        let socket = &self.peer.socket;
        let aimed = self.decode_next == 0
            && self.with_talk(|talk| {
                scatter.aim(&mut talk.session, &talk.decoder, socket, self.shared.aim_room())
            });
        if aimed {
            let blocks = scatter.blocks();
            self.shared.aimed(blocks);
            let (result, back) = self.peer.socket.recv_scatter(scatter).await;
            self.shared.unaimed(blocks);
            self.scatter = Some(back);
            self.settle(result)
        } else {
            self.scatter = Some(scatter);
            self.decode_next = self.decode_next.saturating_sub(1);
            self.receive_decoded().await
        }
    }

    fn settle(&mut self, result: io::Result<usize>) -> Result<(), CloseReason> {
        let Some(mut scatter) = self.scatter.take() else { return Ok(()) };
        let now = clock::now();
        // The kernel could not write to a place: no room behind it, or a file was cut short.
        let is_fault = result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT));
        let trouble = is_fault.then(|| scatter.trouble().unwrap_or_else(|| self.shared.write_error()));
        let received = *result.as_ref().unwrap_or(&0);
        let settled = self.with_talk(|talk| {
            let Talk { session, decoder, sketch } = talk;
            let settled = scatter.forecast().settle(received, session, decoder, now, &mut Desk(self.shared));
            sketch.in_place += settled.direct;
            settled
        });
        self.scatter = Some(scatter);
        if let Some(error) = trouble {
            return Err(self.fail(error));
        }
        self.check(result, now)?;
        let counters = self.shared.counters();
        Counters::add(&counters.hits, settled.direct);
        Counters::add(&counters.received, received as u64);
        let copied = self.take(&settled.spilled, now)?;
        self.blocks += settled.direct + copied;
        self.hits += settled.direct;
        self.judge();
        Ok(())
    }

    /// Demotes a peer whose answers cannot be predicted to the decoder, for a while.
    fn judge(&mut self) {
        if self.blocks < JUDGED_BLOCKS {
            return;
        }
        if self.hits < self.blocks / 2 {
            self.decode_next = DECODED_RECEIVES;
            self.buffer = vec![0; BUFFER_LEN_DECODING];
        }
        (self.blocks, self.hits) = (0, 0);
    }

    async fn receive_decoded(&mut self) -> Result<(), CloseReason> {
        let (result, buffer) = self.peer.socket.recv(std::mem::take(&mut self.buffer)).await;
        self.buffer = buffer;
        let now = clock::now();
        let received = self.check(result, now)?;
        Counters::add(&self.shared.counters().received, received as u64);
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(&mut buffer[..received]);
        }
        let taken = self.take(&buffer[..received], now);
        self.buffer = buffer;
        taken.map(drop)
    }

    /// The received length; 0 where a receive was only cancelled.
    fn check(&self, result: io::Result<usize>, now: Instant) -> Result<usize, CloseReason> {
        self.peer.check_closing()?;
        match result {
            Ok(0) => Err(CloseReason::Closed),
            Ok(n) => {
                self.with_talk(|talk| talk.session.heard(now));
                Counters::add(&self.shared.counters().receives, 1);
                Ok(n)
            }
            Err(error) if is_retry(&error) => Ok(0),
            Err(error) => Err(CloseReason::Io(error)),
        }
    }

    /// Ends the download, as the output failed.
    fn fail(&self, error: DiskError) -> CloseReason {
        self.shared.tell(Event::Disk(error));
        CloseReason::Disk
    }

    /// Feeds bytes to the session, then asks for more blocks. Returns how many were copied.
    fn take(&mut self, bytes: &[u8], now: Instant) -> Result<u64, CloseReason> {
        let shared = self.shared;
        if let Some(error) = shared.damage() {
            // What was gathered out of the map may not be what the peer sent: it must not be blamed.
            return Err(self.fail(error));
        }
        let work = &mut Desk(shared);
        let (fed, useful) = self.with_talk(|talk| {
            let Talk { session, decoder, .. } = talk;
            let fed = feed(session, decoder, bytes, now, work);
            session.fill(now, work, &mut self.peer.out.borrow_mut());
            (fed, session.tally().useful)
        });
        self.peer.flush();
        Counters::add(&shared.counters().useful, useful - self.useful);
        self.useful = useful;
        let copied = fed.map_err(CloseReason::Fault)?;
        Counters::add(&shared.counters().misses, copied);
        Ok(copied)
    }

    fn with_talk<T>(&self, f: impl FnOnce(&mut Talk) -> T) -> T {
        match &mut *self.peer.phase.borrow_mut() {
            Phase::Talking(talk) => f(talk),
            Phase::Dialing { .. } | Phase::Handshaking { .. } => {
                unreachable!("a reader comes after the handshake")
            }
        }
    }
}

/// Errors after which the same operation is simply done again.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
}
