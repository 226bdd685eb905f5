//! What all cores of a download share: who fetches what, the verifier, the counters, and the way to the control
//! thread. Nothing here is touched per block but by one relaxed addition per receive.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::close::CloseReason;
use super::listener::Welcome;
use crate::disk::{DiskError, Io, Output, PieceLease, Refused};
use crate::hash::{Hashed, Job, Message, Verifier};
use crate::meta::geometry::{BLOCK_LEN, Geometry, PieceIndex};
use crate::meta::torrent::{InfoHash, Metainfo};
use crate::swarm::bitfield::Bitfield;
use crate::swarm::claim::{Claim, PieceWriter, Progress};
use crate::swarm::ledger::Ledger;
use crate::swarm::poison::Suspects;
pub use crate::swarm::session::Standing as PeerState;
use crate::swarm::session::{Gossip, Holdings, Tally, Work};
use crate::wire::pex::{Contact, PeerExchange};

impl PieceWriter for PieceLease {
    fn write(&mut self, begin: u32, data: &[u8]) {
        Self::write(self, begin, data);
    }

    fn read(&self, begin: u32, out: &mut [u8]) {
        self.copy_out(begin, out);
    }

    fn landed(&mut self, begin: u32, len: u32) {
        Self::landed(self, begin, len);
    }

    fn spoiled(&mut self, begin: u32, len: u32) {
        Self::spoiled(self, begin, len);
    }
}

/// The digest of a piece that is too long to be hashed in memory as a whole; `None` for all others, whose bytes are in
/// memory afterwards.
///
/// # Errors
/// What the disk answers where bytes had to be read back.
pub fn load(lease: &mut PieceLease) -> Result<Option<[u8; 20]>, DiskError> {
    if lease.load()? {
        return Ok(None);
    }
    let mut hash = Sha1::new();
    lease.show(|bytes| {
        hash.update(bytes);
        true
    })?;
    Ok(Some(hash.finalize().into()))
}

/// How a peer stands.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Which.
    pub addr: SocketAddr,
    /// The name of its program: what it says, or what its id stands for. Any characters may be in it.
    pub client: String,
    /// What it does.
    pub state: PeerState,
    /// Bytes a second that come from it of late.
    pub rate: u64,
    /// How long it has been connected.
    pub connected: Duration,
    /// What has come over this connection.
    pub tally: Tally,
    /// Blocks of it that were received straight into their place.
    pub in_place: u64,
}

/// What cores and verifier tell the control thread. All of it is rare.
#[derive(Debug)]
pub enum Event {
    /// A peer answered the handshake.
    Connected(SocketAddr),
    /// A peer is gone, or was never there.
    Closed {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: CloseReason,
        /// What it had sent.
        tally: Tally,
    },
    /// How a peer stands whose connection is about to be told as [`Event::Closed`].
    Left(PeerReport),
    /// How the peers of a core stand, which was asked for.
    Census(Vec<PeerReport>),
    /// A peer sent wrong data.
    Poisoned(SocketAddr),
    /// A peer told of others.
    Pex {
        /// Who told.
        from: SocketAddr,
        /// Whom it told of.
        exchange: PeerExchange,
    },
    /// The DHT node of a peer (BEP 5).
    DhtNode(SocketAddr),
    /// The address at which a peer sees us (BEP 10).
    OurAddress {
        /// The peer's end of the connection.
        from: SocketAddr,
        /// What it says.
        ours: IpAddr,
    },
    /// The output cannot take what came.
    Disk(DiskError),
    /// Every wanted piece is verified.
    Complete,
    /// A task of a core panicked, which is a bug.
    Panicked,
}

/// Sums over the whole download, for progress and summary.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes received from peers, whatever they were.
    pub received: AtomicU64,
    /// Bytes of blocks that were not needed, and of pieces that failed.
    pub wasted: AtomicU64,
    /// Bytes of pieces verified since the start.
    pub verified: AtomicU64,
    /// Receives that brought something.
    pub receives: AtomicU64,
    /// Blocks that were received straight into their place.
    pub hits: AtomicU64,
    /// Blocks that came through the decoder.
    pub misses: AtomicU64,
    /// Peers that send, as of the last ticks of their cores. The only one that falls.
    pub sending: AtomicUsize,
    /// Bytes of blocks that came as a whole and were still missing.
    pub useful: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}

/// Takes what happened to the control thread; called from any thread.
pub type EventsFn = dyn Fn(Event) + Send + Sync;

/// The part that the verifier's threads need too.
struct Board {
    ledger: Mutex<Ledger<PieceLease>>,
    suspects: Mutex<Suspects>,
    counters: Counters,
    events: Box<EventsFn>,
}

/// What we tell peers of ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// The name of this run.
    pub peer_id: [u8; 20],
    /// Where we listen, if we do.
    pub port: Option<u16>,
    /// Whom we let in where we listen.
    pub welcome: Welcome,
    /// The features that our handshake announces, of [`crate::wire::handshake`].
    pub features: u64,
    /// Whether we take part in the peer exchange (BEP 11).
    pub pex: bool,
}

/// What all cores share.
pub struct Shared {
    board: Arc<Board>,
    verifier: Verifier<Verify>,
    output: Arc<Output>,
    metainfo: Arc<Metainfo>,
    greeting: Greeting,
    /// How many connections are to end so that others can be made.
    places_wanted: AtomicUsize,
    /// Blocks that receives are aimed at.
    aimed: AtomicUsize,
    /// Whom peers are told of.
    contacts: Mutex<Arc<[Contact]>>,
}

/// Blocks that are in memory of this process, or may come there as receives are aimed at them: 30 MiB. A receive that
/// waits takes none, but all may come at once.
const PRIVATE_MAX: usize = 1920;
/// Which part of those that are left one receive gets.
const AIMED_SHARE: usize = 8;
/// Blocks that a receive may be aimed at however many others there are.
const AIMED_MIN: usize = 2;

impl Shared {
    /// The shared state of a download of the pieces that the ledger wants, verified on up to `threads` threads, by a
    /// client of that name that listens at `port`, if it does.
    pub fn new(
        metainfo: Arc<Metainfo>,
        output: Arc<Output>,
        ledger: Ledger<PieceLease>,
        greeting: Greeting,
        threads: usize,
        events: Box<EventsFn>,
    ) -> std::io::Result<Arc<Self>> {
        let board = Arc::new(Board {
            ledger: Mutex::new(ledger),
            suspects: Mutex::default(),
            counters: Counters::default(),
            events,
        });
        let verdicts = Arc::clone(&board);
        let verifier = Verifier::start(threads, move |hashed| verdicts.judge(hashed))?;
        let (places_wanted, aimed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let contacts = Mutex::new(Arc::default());
        Ok(Arc::new(Self { board, verifier, output, metainfo, greeting, places_wanted, aimed, contacts }))
    }

    /// The sums so far.
    pub fn counters(&self) -> &Counters {
        &self.board.counters
    }

    /// The cut of the content.
    pub fn geometry(&self) -> Geometry {
        self.metainfo.geometry
    }

    /// The torrent's info hash.
    pub fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash
    }

    /// Our peer id.
    pub const fn peer_id(&self) -> [u8; 20] {
        self.greeting.peer_id
    }

    /// What our handshake announces, of [`crate::wire::handshake`].
    pub(super) const fn features(&self) -> u64 {
        self.greeting.features
    }

    /// Where we listen, if we do.
    pub const fn port(&self) -> Option<u16> {
        self.greeting.port
    }

    /// Whom we let in where we listen.
    pub(super) const fn welcome(&self) -> Welcome {
        self.greeting.welcome
    }

    /// Whether connections take part in the peer exchange.
    pub(super) const fn allows_pex(&self) -> bool {
        self.greeting.pex
    }

    /// Sets whom peers are told of.
    pub fn set_contacts(&self, contacts: Arc<[Contact]>) {
        *lock(&self.contacts) = contacts;
    }

    /// Whom to tell peers of.
    pub(super) fn contacts(&self) -> Arc<[Contact]> {
        Arc::clone(&lock(&self.contacts))
    }

    /// Waits until all pieces that are complete are judged. For when no peer is left that completes others.
    pub fn settle(&self) {
        self.verifier.settle();
    }

    /// Asks so many peers that send nothing to make room for others; what was asked before no longer counts.
    pub fn want_places(&self, count: usize) {
        self.places_wanted.store(count, Ordering::Relaxed);
    }

    /// Whether the place of a peer that sends nothing is wanted, which it is to give then.
    pub(super) fn gives_place(&self) -> bool {
        let taken = |wanted: usize| wanted.checked_sub(1);
        self.places_wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Calls `f` with the log of verified pieces, under a lock that every peer needs now and then.
    pub fn with_verified<T>(&self, f: impl FnOnce(&[PieceIndex]) -> T) -> T {
        f(lock(&self.board.ledger).verified())
    }

    /// Whether every piece that is missing is being fetched.
    pub fn is_endgame(&self) -> bool {
        lock(&self.board.ledger).is_endgame()
    }

    /// Whether more has come than can be verified, or written, for the moment.
    pub(super) fn is_behind(&self) -> bool {
        // Memory that is not held by complete pieces will not become free by waiting.
        self.verifier.is_behind() || (self.output.is_crowded() && self.verifier.has_jobs())
    }

    /// Blocks that one more receive may be aimed at: a part of those that there is memory for, so that some is left for
    /// the next.
    pub(super) fn aim_room(&self) -> usize {
        match self.output.io() {
            Io::Pwrite | Io::Uncached => {
                let in_use = self.output.memory_in_use() / BLOCK_LEN as usize;
                let left = PRIVATE_MAX.saturating_sub(in_use + self.aimed.load(Ordering::Relaxed));
                (left / AIMED_SHARE).max(AIMED_MIN)
            }
            Io::Mmap | Io::Auto => usize::MAX,
        }
    }

    /// Notes that a receive is aimed at so many blocks.
    pub(super) fn aimed(&self, blocks: usize) {
        self.aimed.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Notes that a receive that was aimed at so many blocks is over.
    pub(super) fn unaimed(&self, blocks: usize) {
        self.aimed.fetch_sub(blocks, Ordering::Relaxed);
    }

    /// What is wrong with an output from which something was read that it does not hold.
    pub(super) fn damage(&self) -> Option<DiskError> {
        self.output.damage()
    }

    /// The error of an output whose map the kernel could not write to.
    pub(super) fn write_error(&self) -> DiskError {
        self.output.write_error()
    }

    pub(super) fn tell(&self, event: Event) {
        (self.board.events)(event);
    }
}

/// One peer's way to the shared state.
pub(super) struct Desk<'a>(pub(super) &'a Shared);

impl Desk<'_> {
    fn ledger(&self) -> MutexGuard<'_, Ledger<PieceLease>> {
        lock(&self.0.board.ledger)
    }

    fn lease(&self, piece: PieceIndex) -> Option<PieceLease> {
        match self.0.output.lease(piece) {
            Ok(lease) => Some(lease),
            Err(Refused::Disk(error)) => {
                self.0.tell(Event::Disk(error));
                None
            }
            // Nobody else is given what the picker gives out, so this is the end of the download at most.
            Err(refused) => {
                tracing::debug!(%piece, "no lease: {refused}");
                None
            }
        }
    }

    /// Has a peer show itself before it gets a piece that was wrong.
    fn doubt(&self, mut claim: Claim<PieceLease>) -> Claim<PieceLease> {
        if claim.is_doubted() {
            let suspects = lock(&self.0.board.suspects);
            let trial = suspects.trial(claim.piece(), claim.owner(), claim.blocks().end);
            drop(suspects);
            if let Some(trial) = trial {
                claim.begin_trial(trial);
            }
        }
        claim
    }
}

impl Work<PieceLease> for Desk<'_> {
    fn joined(&mut self, has: &Bitfield) {
        self.ledger().joined(has);
    }

    fn gained(&mut self, had: &Bitfield, piece: PieceIndex) {
        self.ledger().gained(had, piece);
    }

    fn left(&mut self, has: &Bitfield) {
        self.ledger().left(has);
    }

    fn wants_any(&mut self, has: &Bitfield) -> bool {
        self.ledger().wants_any(has)
    }

    fn claim(
        &mut self,
        peer: SocketAddr,
        has: &Bitfield,
        after: Option<PieceIndex>,
    ) -> Option<Claim<PieceLease>> {
        let claim = self.ledger().claim(peer, has, after, |piece| self.lease(piece))?;
        claim.lease.prefault();
        Some(self.doubt(claim))
    }

    fn claim_of(&mut self, peer: SocketAddr, pieces: &[PieceIndex]) -> Option<Claim<PieceLease>> {
        let claim = self.ledger().claim_of(peer, pieces, |piece| self.lease(piece))?;
        claim.lease.prefault();
        Some(self.doubt(claim))
    }

    fn supply(&mut self) -> u64 {
        self.ledger().supply()
    }

    fn give_back(&mut self, mut claim: Claim<PieceLease>) {
        claim.lease.park();
        if let Some(trial) = claim.trial() {
            lock(&self.0.board.suspects).note(claim.piece(), claim.owner(), trial);
        }
        self.ledger().give_back(claim);
    }

    fn complete(&mut self, claim: Claim<PieceLease>) {
        let piece = claim.piece();
        let has_all_blocks = {
            let mut ledger = self.ledger();
            ledger.received(piece);
            ledger.has_all_blocks()
        };
        let expected = *self.0.metainfo.piece_hash(piece);
        self.0.verifier.submit(Verify { claim, expected, lost: None });
        if has_all_blocks || self.0.output.is_crowded() {
            // Nothing follows that would fill the lanes, or there is no memory to wait for it.
            self.0.verifier.flush();
        }
    }

    fn help(&mut self, has: &Bitfield, worth: Duration, helpers: u8) -> Option<Arc<Progress>> {
        self.ledger().help(has, worth, helpers)
    }

    fn holdings(&mut self) -> Holdings {
        self.ledger().holdings()
    }

    fn hear(&mut self, from: SocketAddr, gossip: Gossip) {
        self.0.tell(match gossip {
            Gossip::Peers(exchange) => Event::Pex { from, exchange },
            Gossip::DhtPort(port) => Event::DhtNode(SocketAddr::new(from.ip(), port.get())),
            Gossip::OurAddress(ours) => Event::OurAddress { from, ours },
        });
    }
}

/// A complete piece on its way through the verifier.
#[derive(Debug)]
struct Verify {
    claim: Claim<PieceLease>,
    expected: [u8; 20],
    /// Why the piece could not be read back.
    lost: Option<DiskError>,
}

impl Job for Verify {
    fn len(&self) -> usize {
        self.claim.lease.size() as usize
    }

    fn prepare(&mut self) -> Option<[u8; 20]> {
        load(&mut self.claim.lease).unwrap_or_else(|err| {
            self.lost = Some(err);
            Some([0; 20])
        })
    }

    fn message(&self) -> Message<'_> {
        self.claim.lease.segments().into_iter().collect()
    }
}

/// The pieces of a batch that are right.
#[derive(Default)]
struct Right {
    pieces: Vec<PieceIndex>,
    bytes: u64,
}

impl Board {
    /// What becomes of pieces whose digests are known. Runs on the verifier's threads.
    fn judge(&self, hashed: &mut Hashed<'_, Verify>) {
        // Pieces that are being judged become suspects nowhere else, so one look is enough.
        let has_suspects = !lock(&self.suspects).is_empty();
        let mut right = Right::default();
        for (job, digest) in hashed {
            let judged = match job.lost {
                Some(err) => Err(err),
                None if digest == job.expected => self.seal(job.claim, has_suspects, &mut right),
                None => self.reject(job.claim),
            };
            // It leaves the piece as it is for the picker, being verified: the download cannot go on.
            if let Err(err) = judged {
                (self.events)(Event::Disk(err));
            }
        }
        self.accept(&right);
    }

    fn seal(&self, claim: Claim<PieceLease>, has_suspects: bool, right: &mut Right) -> Result<(), DiskError> {
        let piece = claim.piece();
        if has_suspects {
            for liar in self.liars(&claim)? {
                (self.events)(Event::Poisoned(liar));
            }
        }
        let len = u64::from(claim.lease.size());
        claim.lease.seal()?;
        right.pieces.push(piece);
        right.bytes += len;
        Ok(())
    }

    /// Notes sealed pieces, at the cost of one lock: for small pieces it is what they cost most.
    fn accept(&self, right: &Right) {
        if right.pieces.is_empty() {
            return;
        }
        let complete = {
            let mut ledger = lock(&self.ledger);
            right.pieces.iter().for_each(|&piece| ledger.accept(piece));
            ledger.is_complete()
        };
        Counters::add(&self.counters.verified, right.bytes);
        if complete {
            (self.events)(Event::Complete);
        }
    }

    fn reject(&self, claim: Claim<PieceLease>) -> Result<(), DiskError> {
        let piece = claim.piece();
        tracing::warn!(%piece, "piece failed its hash check");
        Counters::add(&self.counters.wasted, u64::from(claim.lease.size()));
        let blocks = claim
            .blocks()
            .map(|block| Ok((block, claim.source(block), block_digest(&claim.lease, block)?)))
            .collect::<Result<Vec<_>, _>>()?;
        let liars = lock(&self.suspects).failed(piece, blocks.into_iter());
        for liar in liars {
            (self.events)(Event::Poisoned(liar));
        }
        // The lease goes first: whoever claims the piece next needs it.
        drop(claim);
        lock(&self.ledger).reject(piece);
        Ok(())
    }

    fn liars(&self, claim: &Claim<PieceLease>) -> Result<Vec<SocketAddr>, DiskError> {
        if !lock(&self.suspects).contains(claim.piece()) {
            return Ok(Vec::new());
        }
        // Hashed without the lock, which every accepted piece takes.
        let digests: Vec<_> =
            claim.blocks().map(|block| block_digest(&claim.lease, block)).collect::<Result<_, _>>()?;
        Ok(lock(&self.suspects).passed(claim.piece(), |block| digests[block as usize]))
    }
}

fn block_digest(lease: &PieceLease, block: u32) -> Result<[u8; 20], DiskError> {
    let begin = block * BLOCK_LEN;
    let len = (lease.size() - begin).min(BLOCK_LEN);
    let mut bytes = vec![0; len as usize];
    lease.read(begin, &mut bytes)?;
    Ok(Sha1::digest(&bytes).into())
}

/// A panic of another thread leaves the state as good as any crash would; the download goes on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
