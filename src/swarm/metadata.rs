//! The info dictionary of a magnet link, put together from what peers send (BEP 9): whom to ask for which piece, and whom
//! to believe.
//!
//! Only the whole has a hash. Its length is a claim of each peer, and so is every piece, so an `Attempt` puts together
//! what the peers of one claimed size send, in parallel. When the hash is wrong and one peer sent everything, that peer
//! lied. With several, nobody knows which, and from then on each peer of that size has an attempt of its own, in which a
//! wrong hash shows the liar.
//!
//! Several attempts run side by side, within [`ATTEMPTS_MAX`] and [`METADATA_LEN_MAX`] bytes in all. Where more claims wait,
//! an attempt has its turn and then makes room; those that had the fewest turns go next, and each turn of a claim is
//! longer than its last. So one honest peer suffices, whatever the others say, and no claim is waited for in vain.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::meta::torrent::InfoHash;
use crate::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};

/// Bytes of an info dictionary that are fetched from peers, and of all attempts together: 1.6 million pieces. A torrent
/// file may be larger, but nobody can make this client hold more than that for a claim.
pub const METADATA_LEN_MAX: u32 = 32 << 20;
/// Attempts under way at a time.
pub const ATTEMPTS_MAX: usize = 4;
/// Peers that have told a size; more are not listened to.
pub const SOURCES_MAX: usize = 256;
/// Requests that a peer is asked at a time at first, and after it has rejected one or answered none for long.
pub const REQUESTS_MIN: usize = 4;
/// What that grows to, by one with each answer: some answer all that they hold together, every few seconds. Others reject
/// what goes beyond 64.
pub const REQUESTS_MAX: usize = 32;
/// Liars that are remembered, the latest ones.
pub const BANNED_MAX: usize = 1024;
/// After so long a piece is asked of another peer as well.
pub const REASK_AFTER: Duration = Duration::from_secs(2);
/// A peer that has answered no request for so long is put on hold.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that rejects or does not answer is left alone; doubled each time in a row.
pub const HOLD_MIN: Duration = Duration::from_secs(3);
/// What the doubling ends at.
pub const HOLD_MAX: Duration = Duration::from_secs(48);
/// The first turn of an attempt for which others wait; doubled each time.
pub const TURN_MIN: Duration = Duration::from_secs(5);

/// How often a turn and a hold are doubled at most.
const DOUBLINGS_MAX: u32 = 6;
/// Requests given up on whose answers are still taken, per peer.
const LATE_MAX: usize = 64;

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
    attempts: Vec<Attempt>,
    /// Sizes whose peers are no longer mixed.
    split: HashSet<u32>,
    /// How many turns each claim has had.
    turns: HashMap<Claim, u32>,
    banned: VecDeque<SocketAddr>,
    /// Bans that were not told yet.
    bans: Vec<SocketAddr>,
    taken: u64,
}

/// What an attempt is about: a size, and the one peer it listens to, or none for all that claim the size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Claim {
    size: u32,
    sole: Option<SocketAddr>,
}

/// A peer that claims a size.
#[derive(Debug)]
struct Source {
    size: u32,
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
    /// It is left alone until then.
    hold: Option<Instant>,
    /// How often it was put on hold in a row.
    holds: u32,
    /// Whether it was ever asked.
    began: bool,
}

impl Source {
    fn new(size: u32, now: Instant) -> Self {
        Self {
            size,
            asked: Vec::new(),
            window: REQUESTS_MIN,
            in_turn: false,
            late: VecDeque::new(),
            active: now,
            hold: None,
            holds: 0,
            began: false,
        }
    }

    fn is_held(&self, now: Instant) -> bool {
        self.hold.is_some_and(|until| now < until)
    }

    const fn window(&self) -> usize {
        if self.in_turn { 1 } else { self.window }
    }

    /// Leaves it alone for a while; others are asked instead.
    fn put_on_hold(&mut self, now: Instant) {
        let wait = HOLD_MIN.saturating_mul(1 << self.holds.min(DOUBLINGS_MAX)).min(HOLD_MAX);
        self.holds = self.holds.saturating_add(1);
        self.hold = Some(now + wait);
        self.window = REQUESTS_MIN;
        self.late.extend(self.asked.drain(..).map(|(piece, _)| piece));
        self.late.drain(..self.late.len().saturating_sub(LATE_MAX));
    }

    /// Whether it was asked for a piece; if so, it is not any more.
    fn settle(&mut self, piece: u32) -> bool {
        let asked = self.asked.iter().position(|&(asked, _)| asked == piece);
        let late = self.late.iter().position(|&late| late == piece);
        asked.map(|at| self.asked.swap_remove(at)).is_some() | late.map(|at| self.late.remove(at)).is_some()
    }
}

/// An info dictionary on its way.
#[derive(Debug)]
struct Attempt {
    claim: Claim,
    /// As long as the claim says. Zeroed memory costs nothing before something is written there.
    bytes: Vec<u8>,
    /// Who sent each piece.
    from: Vec<Option<SocketAddr>>,
    /// Pieces that nobody sent yet.
    missing: usize,
    /// When it makes room, if others wait.
    turn_ends: Instant,
}

impl Attempt {
    fn new(claim: Claim, turn_ends: Instant) -> Self {
        let count = claim.size.div_ceil(METADATA_PIECE_LEN) as usize;
        let bytes = vec![0; claim.size as usize];
        Self { claim, bytes, from: vec![None; count], missing: count, turn_ends }
    }

    fn misses(&self, piece: u32) -> bool {
        self.from.get(piece as usize).is_some_and(Option::is_none)
    }

    /// Takes a piece, if nobody sent it yet. Tells whether that is so.
    fn put(&mut self, piece: u32, data: &[u8], from: SocketAddr) -> bool {
        let is_new = self.misses(piece);
        if is_new {
            let begin = piece as usize * METADATA_PIECE_LEN as usize;
            self.bytes[begin..begin + data.len()].copy_from_slice(data);
            self.from[piece as usize] = Some(from);
            self.missing -= 1;
        }
        is_new
    }

    /// The peer that sent all of it, if one did.
    fn sole_source(&self) -> Option<SocketAddr> {
        let first = self.from.first().copied()?;
        first.filter(|_| self.from.iter().all(|&from| from == first))
    }

    /// The piece that a peer is asked for next: the first that nobody was asked for, else the one that is waited for
    /// longest. The very first request of a peer is for piece 0, as some expect it, even where it is there already.
    fn choose(&self, source: &Source, asked: &HashMap<u32, Instant>, now: Instant) -> Option<u32> {
        let is_new =
            |piece: u32| self.misses(piece) && !source.asked.iter().any(|&(asked, _)| asked == piece);
        if !source.began {
            return Some(0);
        }
        let pieces = 0..self.from.len() as u32;
        if let Some(fresh) = pieces.clone().find(|&piece| self.misses(piece) && !asked.contains_key(&piece)) {
            return Some(fresh);
        }
        let overdue = |piece: &u32| asked.get(piece).is_some_and(|&at| now >= at + REASK_AFTER);
        pieces.filter(|&piece| is_new(piece)).filter(overdue).min_by_key(|piece| asked.get(piece).copied())
    }
}

impl Exchange {
    /// An exchange without peers.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            sources: BTreeMap::new(),
            attempts: Vec::new(),
            split: HashSet::new(),
            turns: HashMap::new(),
            banned: VecDeque::new(),
            bans: Vec::new(),
            taken: 0,
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
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&peer) {
            return Err(ExchangeFault::Crowded);
        }
        let source = self.sources.entry(peer).or_insert_with(|| Source::new(size, now));
        if source.size != size {
            *source = Source { began: source.began, ..Source::new(size, now) };
        }
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
        self.sources.remove(&peer);
        self.attempts.retain(|attempt| attempt.claim.sole != Some(peer));
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
        let Some(source) = self.sources.get_mut(&peer) else { return Ok(None) };
        match message {
            MetadataMessage::Request { .. } | MetadataMessage::Unknown => Ok(None),
            MetadataMessage::Reject { piece } => {
                if source.settle(piece) {
                    source.put_on_hold(now);
                }
                Ok(None)
            }
            MetadataMessage::Data { piece, total_len, data } => {
                if !source.settle(piece) {
                    return Ok(None);
                }
                check(source.size, piece, total_len, data)?;
                (source.active, source.hold, source.holds) = (now, None, 0);
                source.window = (source.window + 1).min(REQUESTS_MAX);
                Ok(self.take(peer, piece, data))
            }
        }
    }

    /// What is to be done now. Each action is told once.
    pub fn actions(&mut self, now: Instant) -> Vec<Action> {
        let mut actions: Vec<Action> = self.bans.drain(..).map(Action::Ban).collect();
        for source in self.sources.values_mut() {
            if !source.asked.is_empty() && now >= source.active + ANSWER_TIMEOUT {
                source.put_on_hold(now);
            }
        }
        self.forget_claims();
        self.give_turns(now);
        for attempt in &self.attempts {
            request(attempt, &mut self.sources, now, &mut actions);
        }
        actions
    }

    /// Whether any peer has metadata to give, as far as it says.
    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Pieces that have come and were not there yet.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    fn take(&mut self, peer: SocketAddr, piece: u32, data: &[u8]) -> Option<Vec<u8>> {
        let claim = self.claim_of(peer)?;
        let at = self.attempts.iter().position(|attempt| attempt.claim == claim)?;
        self.taken += u64::from(self.attempts[at].put(piece, data, peer));
        if self.attempts[at].missing > 0 {
            return None;
        }
        let attempt = self.attempts.swap_remove(at);
        if InfoHash::of(&attempt.bytes) == self.info_hash {
            return Some(attempt.bytes);
        }
        match attempt.sole_source() {
            Some(liar) => self.ban(liar),
            None => drop(self.split.insert(claim.size)),
        }
        None
    }

    fn ban(&mut self, liar: SocketAddr) {
        if self.banned.len() == BANNED_MAX {
            self.banned.pop_front();
        }
        self.banned.push_back(liar);
        self.bans.push(liar);
        self.gone(liar);
    }

    fn claim_of(&self, peer: SocketAddr) -> Option<Claim> {
        let size = self.sources.get(&peer)?.size;
        Some(Claim { size, sole: self.split.contains(&size).then_some(peer) })
    }

    /// Forgets what no peer claims any more, but for an attempt that may go on with other peers.
    fn forget_claims(&mut self) {
        let sources = &self.sources;
        self.split.retain(|&size| sources.values().any(|source| source.size == size));
        let split = &self.split;
        // A peer may have changed its mind.
        self.attempts.retain(|Attempt { claim, .. }| match claim.sole {
            Some(peer) => sources.get(&peer).is_some_and(|source| source.size == claim.size),
            None => !split.contains(&claim.size),
        });
        self.turns.retain(|claim, _| match claim.sole {
            Some(peer) => sources.contains_key(&peer),
            None => sources.values().any(|source| source.size == claim.size),
        });
    }

    /// Starts the attempts that there is room for, and makes room where the turn of others is over.
    fn give_turns(&mut self, now: Instant) {
        let mut waiting: BTreeMap<Claim, usize> = BTreeMap::new();
        for (&peer, source) in &self.sources {
            if !source.is_held(now)
                && let Some(claim) = self.claim_of(peer)
                && !self.attempts.iter().any(|attempt| attempt.claim == claim)
            {
                *waiting.entry(claim).or_default() += 1;
            }
        }
        let mut order: Vec<(Claim, usize)> = waiting.into_iter().collect();
        // Fewest turns first, then most votes.
        order.sort_by_key(|&(claim, votes)| (self.turns_of(claim), std::cmp::Reverse(votes)));
        for (claim, _) in order {
            if !self.make_room(claim.size, now) {
                return;
            }
            let turns = self.turns.entry(claim).or_default();
            let turn = TURN_MIN * (1 << (*turns).min(DOUBLINGS_MAX));
            *turns = turns.saturating_add(1);
            self.attempts.push(Attempt::new(claim, now + turn));
        }
    }

    fn turns_of(&self, claim: Claim) -> u32 {
        self.turns.get(&claim).copied().unwrap_or(0)
    }

    /// Whether there is room for an attempt of that size, once those whose turn is over have gone.
    fn make_room(&mut self, size: u32, now: Instant) -> bool {
        let stays = |attempt: &&Attempt| now < attempt.turn_ends && !self.is_idle(attempt, now);
        let (count, len) = (self.attempts.iter().filter(stays))
            .fold((0, 0), |(count, len), attempt| (count + 1, len + attempt.bytes.len()));
        if !fits(count, len, size) {
            return false;
        }
        while !fits(self.attempts.len(), self.attempts.iter().map(|it| it.bytes.len()).sum(), size) {
            let over = |attempt: &Attempt| now >= attempt.turn_ends || self.is_idle(attempt, now);
            let ended = self.attempts.iter().enumerate().filter(|(_, attempt)| over(attempt));
            let Some((at, _)) = ended.min_by_key(|(_, attempt)| attempt.turn_ends) else { return false };
            self.attempts.swap_remove(at);
        }
        true
    }

    /// Whether nobody can be asked for it now.
    fn is_idle(&self, attempt: &Attempt, now: Instant) -> bool {
        let claim = attempt.claim;
        let speaks = |(&peer, source): (&SocketAddr, &Source)| {
            source.size == claim.size && claim.sole.is_none_or(|sole| sole == peer) && !source.is_held(now)
        };
        !self.sources.iter().any(speaks)
    }
}

/// Whether one more attempt of that size fits beside so many of so many bytes.
const fn fits(count: usize, len: usize, size: u32) -> bool {
    count < ATTEMPTS_MAX && len + size as usize <= METADATA_LEN_MAX as usize
}

/// Fills the windows of the peers of an attempt.
fn request(
    attempt: &Attempt,
    sources: &mut BTreeMap<SocketAddr, Source>,
    now: Instant,
    actions: &mut Vec<Action>,
) {
    let claim = attempt.claim;
    let takes_part = |peer: SocketAddr, source: &Source| {
        source.size == claim.size && claim.sole.is_none_or(|sole| sole == peer)
    };
    // When each piece was asked for last, by whomever.
    let mut asked: HashMap<u32, Instant> = HashMap::new();
    for (&peer, source) in sources.iter() {
        for &(piece, at) in source.asked.iter().filter(|_| takes_part(peer, source)) {
            asked.entry(piece).and_modify(|latest| *latest = at.max(*latest)).or_insert(at);
        }
    }
    for (&peer, source) in sources.iter_mut() {
        if !takes_part(peer, source) || source.is_held(now) {
            continue;
        }
        while source.asked.len() < source.window()
            && let Some(piece) = attempt.choose(source, &asked, now)
        {
            if source.asked.is_empty() {
                source.active = now;
            }
            source.asked.push((piece, now));
            source.began = true;
            asked.insert(piece, now);
            actions.push(Action::Request { peer, piece });
        }
    }
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
