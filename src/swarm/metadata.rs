//! The info dictionary of a magnet link, put together from what peers send (BEP 9): whom to ask for which piece, and
//! whom to believe.
//!
//! Only the whole has a hash. Its length is a claim of each peer, and so is every piece. So each peer is asked for the
//! first piece as soon as it takes part, and its answer says to which `Assembly` it belongs: there is one for each size
//! and first piece, in which what its peers send is put together, in parallel. Who never answers holds up nobody, and a
//! piece that does not come is asked of more and more of the others. When the hash is wrong and one peer sent
//! everything, that peer lied. With several, nobody knows which. From then on each of the others has an assembly of its
//! own, in which a wrong hash shows the liar.
//!
//! No assembly waits for another. They are bounded by the bytes that they hold together, [`HELD_MAX`]: where these are
//! used up, one to which nothing comes makes room, or else the one that lacks most, and its peers are left alone for a
//! while. So those that are nearest to their end get there, which proves them right or wrong, however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use crate::meta::torrent::InfoHash;
use crate::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};

/// Bytes of an info dictionary that are fetched from peers: 1.6 million pieces. A torrent file may be larger, but
/// nobody can make this client fetch more than that for a claim.
pub const METADATA_LEN_MAX: u32 = 32 << 20;
/// Bytes that all assemblies hold together: the largest there is, and as much of others.
pub const HELD_MAX: usize = 2 * METADATA_LEN_MAX as usize;
/// Peers that have told a size; more are not listened to.
pub const SOURCES_MAX: usize = 1024;
/// Requests that a peer is asked at a time at first, and after it has rejected one or answered none for long.
pub const REQUESTS_MIN: usize = 4;
/// What that grows to, by one with each answer: some answer all that they hold together, every few seconds. Others
/// reject what goes beyond 64.
pub const REQUESTS_MAX: usize = 32;
/// Peers beyond which each is asked for the first piece alone before it has answered: what all of them send together
/// then is little, even if they are many.
pub const CROWD_MIN: usize = 4;
/// Liars that are remembered, the latest ones.
pub const BANNED_MAX: usize = 1024;
/// After so long a piece is asked of other peers as well: of [`REASK_GROWTH`] in all, after twice that of the square of
/// it, and so on. Some answer every three seconds only, so a piece may come several times.
pub const REASK_AFTER: Duration = Duration::from_millis(300);
/// How many times as many peers are asked for a piece with each [`REASK_AFTER`]: all of a thousand within two seconds.
pub const REASK_GROWTH: usize = 4;
/// A peer that has answered no request for so long is put on hold.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that rejects or does not answer is left alone; doubled each time in a row.
pub const HOLD_MIN: Duration = Duration::from_secs(3);
/// What the doubling ends at.
pub const HOLD_MAX: Duration = Duration::from_secs(48);
/// An assembly to which nothing has come for so long makes room before others do.
pub const STALLED_AFTER: Duration = Duration::from_secs(1);
/// A peer whose last answer is no older is worth its place.
pub const WORTHY_FOR: Duration = Duration::from_secs(5);

/// How often a hold is doubled at most.
const DOUBLINGS_MAX: u32 = 6;
/// Requests given up on whose answers are still taken, per peer.
const LATE_MAX: usize = 64;
/// Assemblies that are kept when their last peer leaves, those that hold most.
const ORPHANS_MAX: usize = 8;
/// How often all peers are looked at; in between those of which something was heard.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// What a peer does wrong in the exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeFault {
    /// It claims more metadata than is fetched.
    TooLong {
        /// Bytes that it claims.
        len: u64,
    },
    /// It sent a piece of metadata of another length than it claimed.
    PieceLen {
        /// The piece.
        piece: u32,
        /// Its bytes.
        got: usize,
        /// What it should have.
        expected: u32,
    },
    /// It sent another length of the whole than it claimed.
    OtherLen {
        /// What it says now.
        got: u64,
        /// What it claimed.
        claimed: u32,
    },
    /// It lied before.
    Banned,
    /// There are [`SOURCES_MAX`] others.
    Crowded,
}

impl fmt::Display for ExchangeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(
                f,
                "it says the metadata has {len} bytes, at most {METADATA_LEN_MAX} are fetched from peers; \
                 use the torrent file"
            ),
            Self::PieceLen { piece, got, expected } => {
                write!(f, "it sent {got} bytes as piece {piece} of the metadata, expected {expected}")
            }
            Self::OtherLen { got, claimed } => {
                write!(f, "it says the metadata has {got} bytes, and said {claimed} before")
            }
            Self::Banned => write!(f, "it sent wrong metadata before"),
            Self::Crowded => write!(f, "there are enough other peers"),
        }
    }
}

impl std::error::Error for ExchangeFault {}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask that peer for a piece.
    Request {
        /// Who.
        peer: SocketAddr,
        /// The piece.
        piece: u32,
    },
    /// Close that peer, which sent wrong metadata; it is forgotten already.
    Ban(SocketAddr),
}

/// The exchange with all peers. After each call that tells it something, and a few times a second,
/// [`Exchange::actions`] must be carried out.
#[derive(Debug)]
pub struct Exchange {
    info_hash: InfoHash,
    sources: BTreeMap<SocketAddr, Source>,
    assemblies: BTreeMap<Claim, Assembly>,
    /// Claims whose peers are no longer mixed.
    split: HashSet<Claim>,
    /// Bytes in all assemblies.
    held: usize,
    banned: VecDeque<SocketAddr>,
    /// Bans that were not told yet.
    bans: Vec<SocketAddr>,
    taken: u64,
    /// Peers of which something was heard since the last actions.
    stirred: BTreeSet<SocketAddr>,
    swept: Option<Instant>,
}

/// The SHA-1 of a first piece.
type Fingerprint = [u8; 20];

/// What an assembly is about: a size and a first piece, and the one peer that it listens to, or none for all of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Claim {
    size: u32,
    first: Fingerprint,
    sole: Option<SocketAddr>,
}

impl Claim {
    /// The same for all peers.
    const fn mixed(self) -> Self {
        Self { sole: None, ..self }
    }
}

/// A peer that claims a size.
#[derive(Debug)]
struct Source {
    size: u32,
    /// Where its pieces go, once it has sent the first.
    claim: Option<Claim>,
    /// The requests under way and since when, at most [`REQUESTS_MAX`].
    asked: Vec<(u32, Instant)>,
    /// How many may be, [`REQUESTS_MIN`] to [`REQUESTS_MAX`].
    window: usize,
    /// Whether only one may be.
    in_turn: bool,
    /// Pieces that were given up on, the latest ones.
    late: VecDeque<u32>,
    /// When it answered last, or was asked with nothing else under way.
    active: Instant,
    /// When it answered last.
    answered: Option<Instant>,
    /// It is left alone until then.
    hold: Option<Instant>,
    /// How often it was put on hold in a row.
    holds: u32,
}

impl Source {
    const fn new(size: u32, now: Instant) -> Self {
        Self {
            size,
            claim: None,
            asked: Vec::new(),
            window: REQUESTS_MIN,
            in_turn: false,
            late: VecDeque::new(),
            active: now,
            answered: None,
            hold: None,
            holds: 0,
        }
    }

    fn is_held(&self, now: Instant) -> bool {
        self.hold.is_some_and(|until| now < until)
    }

    const fn window(&self) -> usize {
        if self.in_turn { 1 } else { self.window }
    }

    fn ask(&mut self, piece: u32, now: Instant) {
        if self.asked.is_empty() {
            self.active = now;
        }
        self.asked.push((piece, now));
    }

    fn is_asked(&self, piece: u32) -> bool {
        self.asked.iter().any(|&(asked, _)| asked == piece)
    }

    /// Leaves it alone for a while. Returns what it was asked for, and is not any more.
    fn put_on_hold(&mut self, now: Instant) -> Vec<u32> {
        let wait = HOLD_MIN.saturating_mul(1 << self.holds.min(DOUBLINGS_MAX)).min(HOLD_MAX);
        self.holds = self.holds.saturating_add(1);
        self.hold = Some(now + wait);
        self.window = REQUESTS_MIN;
        let asked: Vec<u32> = self.asked.drain(..).map(|(piece, _)| piece).collect();
        self.late.extend(&asked);
        self.late.drain(..self.late.len().saturating_sub(LATE_MAX));
        asked
    }

    fn on_answer(&mut self, now: Instant) {
        (self.active, self.answered) = (now, Some(now));
        (self.hold, self.holds) = (None, 0);
        self.window = (self.window + 1).min(REQUESTS_MAX);
    }
}

/// An info dictionary on its way.
#[derive(Debug)]
struct Assembly {
    pieces: BTreeMap<u32, Piece>,
    /// The peers that give it.
    members: BTreeSet<SocketAddr>,
    /// What its members are asked for.
    asked: HashMap<u32, Asked>,
    /// Bytes of all pieces.
    held: usize,
    /// When the last piece came.
    grew: Instant,
}

#[derive(Debug)]
struct Piece {
    data: Box<[u8]>,
    from: SocketAddr,
}

impl Assembly {
    fn new(now: Instant) -> Self {
        let (pieces, members, asked) = (BTreeMap::new(), BTreeSet::new(), HashMap::new());
        Self { pieces, members, asked, held: 0, grew: now }
    }

    /// Counts a peer in, and what it is asked for already.
    fn enter(&mut self, peer: SocketAddr, source: &Source) {
        self.members.insert(peer);
        source.asked.iter().for_each(|&(piece, at)| self.on_asked(piece, at));
    }

    /// One more member is asked for a piece.
    fn on_asked(&mut self, piece: u32, at: Instant) {
        self.asked.entry(piece).or_insert(Asked { since: at, peers: 0 }).peers += 1;
    }

    /// One member less is asked for a piece.
    fn on_settled(&mut self, piece: u32) {
        if let Some(asked) = self.asked.get_mut(&piece) {
            asked.peers -= 1;
            if asked.peers == 0 {
                self.asked.remove(&piece);
            }
        }
    }

    /// Takes a piece, if nobody sent it yet. Returns the bytes by which it has grown.
    fn put(&mut self, piece: u32, data: &[u8], from: SocketAddr, now: Instant) -> usize {
        if self.pieces.contains_key(&piece) {
            return 0;
        }
        self.pieces.insert(piece, Piece { data: data.into(), from });
        self.grew = now;
        self.held += data.len();
        data.len()
    }

    /// All bytes in their order.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.held);
        self.pieces.values().for_each(|piece| bytes.extend_from_slice(&piece.data));
        bytes
    }

    /// The peer that sent all of it, if one did.
    fn sole_source(&self) -> Option<SocketAddr> {
        let first = self.pieces.values().next()?.from;
        self.pieces.values().all(|piece| piece.from == first).then_some(first)
    }

    /// The piece that a peer is asked for next: the first that nobody was asked for, else the one that is waited for
    /// longest of those of which few enough were asked.
    fn choose(&self, count: u32, source: &Source, now: Instant) -> Option<u32> {
        let missing = || (0..count).filter(|piece| !self.pieces.contains_key(piece));
        let is_due = |piece: &u32| self.asked.get(piece).is_some_and(|asked| asked.is_due(now));
        missing().find(|piece| !self.asked.contains_key(piece)).or_else(|| {
            let due = missing().filter(|&piece| !source.is_asked(piece)).filter(is_due);
            due.min_by_key(|piece| self.asked.get(piece).map(|asked| asked.since))
        })
    }
}

/// Since when a piece is waited for, and from how many peers.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Instant,
    peers: usize,
}

impl Asked {
    /// Whether it is to be asked of one more.
    fn is_due(self, now: Instant) -> bool {
        let waits = now.duration_since(self.since).as_millis() / REASK_AFTER.as_millis();
        let waits = u32::try_from(waits).unwrap_or(u32::MAX);
        waits > 0 && self.peers < REASK_GROWTH.saturating_pow(waits)
    }
}

impl Exchange {
    /// An exchange without peers.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            sources: BTreeMap::new(),
            assemblies: BTreeMap::new(),
            split: HashSet::new(),
            held: 0,
            banned: VecDeque::new(),
            bans: Vec::new(),
            taken: 0,
            stirred: BTreeSet::new(),
            swept: None,
        }
    }

    /// A peer takes part and claims that size, perhaps another one than before.
    ///
    /// # Errors
    /// Where the peer is to be closed.
    pub fn offered(&mut self, peer: SocketAddr, len: u64, now: Instant) -> Result<(), ExchangeFault> {
        let size = u32::try_from(len).ok().filter(|&size| (1..=METADATA_LEN_MAX).contains(&size));
        let size = size.ok_or(ExchangeFault::TooLong { len })?;
        if self.banned.contains(&peer) {
            return Err(ExchangeFault::Banned);
        }
        if self.sources.get(&peer).is_some_and(|source| source.size != size) {
            self.gone(peer);
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&peer) {
            return Err(ExchangeFault::Crowded);
        }
        self.sources.entry(peer).or_insert_with(|| Source::new(size, now));
        self.stirred.insert(peer);
        Ok(())
    }

    /// A peer that has [`offered`](Exchange::offered) is to be asked for one piece at a time.
    pub fn ask_in_turn(&mut self, peer: SocketAddr) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.in_turn = true;
        }
    }

    /// A peer is gone.
    pub fn gone(&mut self, peer: SocketAddr) {
        self.stirred.remove(&peer);
        if let Some(source) = self.sources.remove(&peer)
            && let Some(claim) = source.claim
        {
            self.leave(peer, &source, claim);
        }
    }

    /// A peer sent a message. Returns the info dictionary when that completes it.
    ///
    /// # Errors
    /// Where the peer is to be closed.
    pub fn heard(
        &mut self,
        peer: SocketAddr,
        message: MetadataMessage<'_>,
        now: Instant,
    ) -> Result<Option<Vec<u8>>, ExchangeFault> {
        match message {
            MetadataMessage::Request { .. } | MetadataMessage::Unknown => {}
            MetadataMessage::Reject { piece } => {
                if self.settle(peer, piece) {
                    self.put_on_hold(peer, now);
                }
            }
            MetadataMessage::Data { piece, total_len, data } => {
                if self.settle(peer, piece)
                    && let Some(source) = self.sources.get_mut(&peer)
                {
                    check(source.size, piece, total_len, data)?;
                    source.on_answer(now);
                    self.stirred.insert(peer);
                    return Ok(self.take(peer, piece, data, now));
                }
            }
        }
        Ok(None)
    }

    /// What is to be done now. Each action is told once.
    pub fn actions(&mut self, now: Instant) -> Vec<Action> {
        let mut actions: Vec<Action> = self.bans.drain(..).map(Action::Ban).collect();
        if self.swept.is_none_or(|at| now >= at + SWEEP_EVERY) {
            self.swept = Some(now);
            self.sweep(now);
        }
        for peer in std::mem::take(&mut self.stirred) {
            match self.sources.get(&peer).map(|source| source.claim) {
                Some(Some(claim)) => self.ask_on(peer, claim, now, &mut actions),
                Some(None) => self.ask_first(peer, now, &mut actions),
                None => {}
            }
        }
        actions
    }

    /// Whether a peer has answered a moment ago, so that it is worth its place.
    pub fn is_worthy(&self, peer: SocketAddr, now: Instant) -> bool {
        let answered = self.sources.get(&peer).and_then(|source| source.answered);
        answered.is_some_and(|at| now < at + WORTHY_FOR)
    }

    /// Pieces that have come and were not there yet.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Looks at everybody.
    fn sweep(&mut self, now: Instant) {
        let is_overdue = |source: &Source| !source.asked.is_empty() && now >= source.active + ANSWER_TIMEOUT;
        let overdue = self.sources.iter().filter(|(_, source)| is_overdue(source)).map(|(&peer, _)| peer);
        for peer in overdue.collect::<Vec<_>>() {
            self.put_on_hold(peer, now);
        }
        self.stirred.extend(self.sources.keys());
    }

    /// Whether a peer was asked for a piece; if so, it is not any more.
    fn settle(&mut self, peer: SocketAddr, piece: u32) -> bool {
        let Some(source) = self.sources.get_mut(&peer) else { return false };
        let asked = source.asked.iter().position(|&(asked, _)| asked == piece);
        let late = source.late.iter().position(|&late| late == piece);
        if let Some(at) = asked {
            source.asked.swap_remove(at);
            if let Some(assembly) = source.claim.and_then(|claim| self.assemblies.get_mut(&claim)) {
                assembly.on_settled(piece);
            }
        }
        asked.is_some() | late.map(|at| source.late.remove(at)).is_some()
    }

    /// Leaves a peer alone for a while; others are asked instead.
    fn put_on_hold(&mut self, peer: SocketAddr, now: Instant) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let asked = source.put_on_hold(now);
        if let Some(assembly) = source.claim.and_then(|claim| self.assemblies.get_mut(&claim)) {
            asked.into_iter().for_each(|piece| assembly.on_settled(piece));
            self.stirred.extend(assembly.members.first());
        }
    }

    /// Asks a peer that has given nothing yet for the first piece; some expect that to be the first request. While
    /// there are few peers it is asked for more than that: many answer only every few seconds.
    fn ask_first(&mut self, peer: SocketAddr, now: Instant, actions: &mut Vec<Action>) {
        let is_crowd = self.sources.len() > CROWD_MIN;
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if source.is_held(now) || !source.asked.is_empty() {
            return;
        }
        let window = if is_crowd { 1 } else { source.window() };
        for piece in (0..piece_count(source.size)).take(window) {
            source.ask(piece, now);
            actions.push(Action::Request { peer, piece });
        }
    }

    /// Fills the window of a peer of an assembly.
    fn ask_on(&mut self, peer: SocketAddr, claim: Claim, now: Instant, actions: &mut Vec<Action>) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| !source.is_held(now)) else { return };
        let Some(assembly) = self.assemblies.get_mut(&claim) else { return };
        while source.asked.len() < source.window()
            && let Some(piece) = assembly.choose(piece_count(claim.size), source, now)
        {
            source.ask(piece, now);
            assembly.on_asked(piece, now);
            actions.push(Action::Request { peer, piece });
        }
    }

    /// Takes a piece in. Returns the info dictionary when that completes it.
    fn take(&mut self, peer: SocketAddr, piece: u32, data: &[u8], now: Instant) -> Option<Vec<u8>> {
        if piece == 0 && !self.join(peer, fingerprint(data), now) {
            self.ban(peer);
            return None;
        }
        // What comes before the first piece cannot be placed; it is asked for once more.
        let claim = self.sources.get(&peer)?.claim?;
        self.put(claim, piece, data, peer, now);
        self.finish(claim, now)
    }

    /// Counts a peer to those that have sent the same first piece. `false` if it has sent another one before.
    fn join(&mut self, peer: SocketAddr, first: Fingerprint, now: Instant) -> bool {
        let Some(source) = self.sources.get_mut(&peer) else { return true };
        if let Some(claim) = source.claim {
            return claim.first == first;
        }
        let claim = Claim { size: source.size, first, sole: None };
        let claim = Claim { sole: self.split.contains(&claim).then_some(peer), ..claim };
        source.claim = Some(claim);
        self.assemblies.entry(claim).or_insert_with(|| Assembly::new(now)).enter(peer, source);
        true
    }

    /// Puts a piece in its place, and sees to it that there is room for it.
    fn put(&mut self, claim: Claim, piece: u32, data: &[u8], from: SocketAddr, now: Instant) {
        let Some(assembly) = self.assemblies.get_mut(&claim) else { return };
        let grown = assembly.put(piece, data, from, now);
        self.taken += u64::from(grown > 0);
        self.held += grown;
        while self.held > HELD_MAX && self.evict(now) {}
    }

    /// Checks an assembly that may be complete. Returns its bytes if they are right.
    fn finish(&mut self, claim: Claim, now: Instant) -> Option<Vec<u8>> {
        let assembly = self.assemblies.get(&claim)?;
        if assembly.pieces.len() < piece_count(claim.size) as usize {
            return None;
        }
        let assembly = self.remove(claim)?;
        let bytes = assembly.bytes();
        if InfoHash::of(&bytes) == self.info_hash {
            return Some(bytes);
        }
        if let Some(liar) = assembly.sole_source() {
            self.ban(liar);
        }
        // Not even where the liar is known: the next one would be found out no sooner than its pieces have come.
        if assembly.members.iter().any(|peer| self.sources.contains_key(peer)) {
            self.split.insert(claim.mixed());
        }
        self.begin_anew(claim, assembly, now)
    }

    /// Goes on with the peers of an assembly that was wrong, together or each for itself. What a peer has sent need not
    /// be sent again; the first piece is the same for all. Returns the info dictionary if one of them has sent it all.
    fn begin_anew(&mut self, claim: Claim, assembly: Assembly, now: Instant) -> Option<Vec<u8>> {
        let is_split = self.split.contains(&claim.mixed());
        let first = assembly.pieces.get(&0).map(|piece| piece.data.clone());
        let mut claims = BTreeSet::new();
        for peer in assembly.members {
            let Some(source) = self.sources.get_mut(&peer) else { continue };
            let claim = Claim { sole: is_split.then_some(peer), ..claim.mixed() };
            source.claim = Some(claim);
            self.assemblies.entry(claim).or_insert_with(|| Assembly::new(now)).enter(peer, source);
            if let Some(first) = &first {
                self.put(claim, 0, first, peer, now);
            }
            self.stirred.insert(peer);
            claims.insert(claim);
        }
        for (number, Piece { data, from }) in assembly.pieces {
            if let Some(claim) = self.sources.get(&from).and_then(|source| source.claim) {
                self.put(claim, number, &data, from, now);
            }
        }
        claims.into_iter().find_map(|claim| self.finish(claim, now))
    }

    fn ban(&mut self, liar: SocketAddr) {
        if self.banned.len() == BANNED_MAX {
            self.banned.pop_front();
        }
        self.banned.push_back(liar);
        self.bans.push(liar);
        self.gone(liar);
    }

    /// Takes an assembly away to make room. `false` where there is none.
    fn evict(&mut self, now: Instant) -> bool {
        let lacks = |(claim, assembly): &(&Claim, &Assembly)| {
            (now >= assembly.grew + STALLED_AFTER, (claim.size as usize).saturating_sub(assembly.held))
        };
        let Some((&claim, _)) = self.assemblies.iter().max_by_key(lacks) else { return false };
        for peer in self.remove(claim).into_iter().flat_map(|assembly| assembly.members) {
            if let Some(source) = self.sources.get_mut(&peer) {
                source.claim = None;
                drop(source.put_on_hold(now));
                // What is still under way has no place any more, and must not end the hold.
                source.late.clear();
            }
        }
        self.forget_split(claim);
        true
    }

    fn remove(&mut self, claim: Claim) -> Option<Assembly> {
        let assembly = self.assemblies.remove(&claim)?;
        self.held -= assembly.held;
        Some(assembly)
    }

    /// Takes a peer that is gone from its assembly, which others may go on with.
    fn leave(&mut self, peer: SocketAddr, source: &Source, claim: Claim) {
        if claim.sole.is_some() {
            self.remove(claim);
        } else if let Some(assembly) = self.assemblies.get_mut(&claim) {
            assembly.members.remove(&peer);
            source.asked.iter().for_each(|&(piece, _)| assembly.on_settled(piece));
            // What it was asked for is asked of the others.
            self.stirred.extend(assembly.members.first());
        }
        self.forget_split(claim);
        let orphans = self.assemblies.iter().filter(|(_, assembly)| assembly.members.is_empty());
        let least = orphans.clone().min_by_key(|(_, assembly)| assembly.held).map(|(&claim, _)| claim);
        if let Some(claim) = least
            && orphans.count() > ORPHANS_MAX
        {
            self.remove(claim);
        }
    }

    /// Forgets that the peers of a claim are no longer mixed, once none is left.
    fn forget_split(&mut self, claim: Claim) {
        let is_of = |source: &Source| source.claim.is_some_and(|other| other.mixed() == claim.mixed());
        if self.split.contains(&claim.mixed()) && !self.sources.values().any(is_of) {
            self.split.remove(&claim.mixed());
        }
    }
}

fn fingerprint(first: &[u8]) -> Fingerprint {
    Sha1::digest(first).into()
}

const fn piece_count(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

/// Checks a piece against the size that its sender claims.
fn check(size: u32, piece: u32, total_len: Option<u64>, data: &[u8]) -> Result<(), ExchangeFault> {
    if let Some(got) = total_len.filter(|&len| len != u64::from(size)) {
        return Err(ExchangeFault::OtherLen { got, claimed: size });
    }
    let begin = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
    let left = u64::from(size).saturating_sub(begin);
    let expected = left.min(u64::from(METADATA_PIECE_LEN)) as u32;
    if data.len() == expected as usize {
        Ok(())
    } else {
        Err(ExchangeFault::PieceLen { piece, got: data.len(), expected })
    }
}

#[cfg(test)]
mod tests;
