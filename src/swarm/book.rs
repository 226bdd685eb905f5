//! The peer book: every address that was heard of, what became of it, and which to dial next. Pure: `now` comes in.
//!
//! Addresses come from strangers, so the book is bounded, and what nobody can be reached at is not written down. Each
//! source has its share, so that none can push out what another told. Of what peers tell (BEP 11) each teller has a
//! share of its own, and where their common share is full it is taken from whoever told the most; a teller is not
//! believed when it tells of addresses that mean another machine here than there.
//!
//! **Invariants.** An address stands in it once. A source has at most its share, a teller at most
//! [`TELLER_SHARE`]. An entry that waits for a dial is either *waiting* for its time or *due*, in the order in which
//! it will be dialed; no other entry is. All counts are those of the entries: whatever changes an entry goes through
//! `change`, which takes it out of all orders and counts before and puts it back afterwards.
//!
//! Every call takes some steps of a search tree, but for those that say otherwise.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::priority::{OwnAddress, canonical_priority};

/// Addresses the book holds: the sum of all shares.
pub const BOOK_LEN_MAX: usize = {
    let mut sum = 0;
    let mut at = 0;
    while at < Source::ALL.len() {
        sum += Source::ALL[at].share();
        at += 1;
    }
    sum
};

/// Addresses the book holds of those that one peer told of: what it may send at once.
pub const TELLER_SHARE: usize = 100;

/// Addresses from the user among them.
pub const MANUAL_MAX: usize = Source::Manual.share();

/// IP addresses that stay banned.
pub const BANS_MAX: usize = 4096;

/// Failures in a row after which an address is no longer a reason to go on; see [`Book::is_exhausted`].
pub const HOPE_FAILURES_MAX: u32 = 3;

/// What the count of failures ends at.
const FAILURES_MAX: u32 = 16;

/// The wait before a peer that has delivered is dialed again.
const RETRY_WORKED: Duration = Duration::from_secs(1);

/// The wait before the first retry of an address that is worth some packets, and what its doubling ends at: one that
/// the user has named, or that has delivered before. Whoever restarts is found within a few seconds.
const BACKOFF_WORTHY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The same for the other addresses.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Addresses of one machine that are tried again soon when a connection that came from there has ended.
const CALLED_MAX: usize = 8;

/// Where an address comes from, by rising rank: an address from several keeps the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The peer has dialed this client; the address is not one to dial.
    Incoming,
    /// A peer (BEP 11).
    Pex,
    /// The distributed hash table (BEP 5).
    Dht,
    /// A multicast on the local network (BEP 14).
    Lsd,
    /// A tracker's reply.
    Tracker,
    /// The user, or a magnet link's `x.pe`.
    Manual,
}

impl Source {
    /// All of them, in the order of their rank.
    pub const ALL: [Self; 6] = [Self::Incoming, Self::Pex, Self::Dht, Self::Lsd, Self::Tracker, Self::Manual];

    /// How many addresses from this source the book holds.
    pub const fn share(self) -> usize {
        match self {
            Self::Incoming | Self::Lsd | Self::Manual => 512,
            Self::Pex | Self::Dht => 1024,
            // A reply names up to 2000.
            Self::Tracker => 2048,
        }
    }

    /// The longest wait of an address from the moment on at which this source names it again; `None` where the source
    /// does not know whether anybody is there now. A neighbour has spoken itself a moment ago.
    const fn wait_when_named(self) -> Option<Duration> {
        match self {
            Self::Lsd => Some(BACKOFF_WORTHY.0),
            Self::Dht | Self::Tracker => Some(BACKOFF.0),
            Self::Incoming | Self::Pex | Self::Manual => None,
        }
    }
}

/// How a dial or a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has delivered blocks.
    Worked,
    /// It has not: refused, timed out, closed early, broke the protocol.
    Failed,
    /// It has ended the connection without an answer to a plain handshake, which those do that only speak encrypted.
    Unanswered,
    /// It was asked for something else first, and is to be dialed again at once: before all others where it was
    /// connected, and like one that was never tried where it was not.
    Again,
    /// It never will: this client itself, another torrent.
    Useless,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle { retry_at: Instant },
    Dialing,
    Connected,
    Useless,
    Banned,
}

/// Who told of an address: a machine, or one process of this machine. Whoever has an IPv6 address has its whole /64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Teller(IpAddr, u16);

impl Teller {
    fn of(addr: SocketAddr) -> Self {
        match addr.ip() {
            ip if ip.is_loopback() => Self(ip, addr.port()),
            IpAddr::V6(ip) => Self(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(), 0),
            ip @ IpAddr::V4(_) => Self(ip, 0),
        }
    }
}

/// Lower is dialed sooner: those that have just served something else, then the untried, then those that have failed
/// least; of these the encrypted, so that a second try follows the first, and then the user's own before others; of
/// equals the one whose priority both ends agree on, then the one that was heard of first.
type Rank = (bool, bool, u32, bool, Reverse<Source>, Reverse<u32>, u64);

/// Lower makes room sooner.
type Worth = (Source, Reverse<bool>, Reverse<u32>, u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    source: Source,
    /// Who told of it, if its source is a peer.
    teller: Option<Teller>,
    state: State,
    was_tried: bool,
    /// In a row, at most [`FAILURES_MAX`].
    failures: u32,
    /// Whether it is to be dialed encrypted: it did not answer to the plain handshake, and either was not dialed
    /// encrypted since or was connected so.
    encrypted: bool,
    /// Whether it has delivered blocks in this run.
    has_delivered: bool,
    /// It has served something else a moment ago: its next failure is not held against it. Some clients refuse who has
    /// just left until they notice that.
    has_served: bool,
    /// BEP 40; 0 as long as our own address is not known.
    priority: u32,
    /// Rises from entry to entry.
    number: u64,
}

impl Entry {
    const fn rank(&self) -> Rank {
        let Self { has_served, was_tried, failures, encrypted, source, priority, number, .. } = *self;
        (!has_served, was_tried, failures, !encrypted, Reverse(source), Reverse(priority), number)
    }

    /// Its worth, if it may make room for an address that was not tried.
    const fn worth(&self) -> Option<Worth> {
        let is_spent = match self.state {
            State::Idle { .. } if self.failures > 0 => false,
            State::Useless | State::Banned => true,
            State::Idle { .. } | State::Dialing | State::Connected => return None,
        };
        Some((self.source, Reverse(is_spent), Reverse(self.failures), self.number))
    }

    /// The wait before the first retry, and what its doubling ends at.
    const fn backoff(&self) -> (Duration, Duration) {
        if self.has_delivered || matches!(self.source, Source::Manual) { BACKOFF_WORTHY } else { BACKOFF }
    }

    const fn is_untried(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && !self.was_tried
    }

    const fn is_hope(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && self.failures < HOPE_FAILURES_MAX
    }
}

/// How many entries there are of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    connected: usize,
    dialing: usize,
    untried: usize,
    hopes: usize,
    of_source: [usize; Source::ALL.len()],
}

impl Counts {
    /// Counts an entry in with `step` 1 and out with -1.
    fn count(&mut self, entry: &Entry, step: isize) {
        let by = |of: bool| if of { step } else { 0 };
        self.connected = self.connected.wrapping_add_signed(by(matches!(entry.state, State::Connected)));
        self.dialing = self.dialing.wrapping_add_signed(by(matches!(entry.state, State::Dialing)));
        self.untried = self.untried.wrapping_add_signed(by(entry.is_untried()));
        self.hopes = self.hopes.wrapping_add_signed(by(entry.is_hope()));
        let of_source = &mut self.of_source[entry.source as usize];
        *of_source = of_source.wrapping_add_signed(step);
    }
}

/// The addresses of one torrent's swarm. Ports count: two addresses of one machine are two peers.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<SocketAddr, Entry>,
    /// Those that wait for a dial, until their time has come, and afterwards.
    waiting: BTreeSet<(Instant, SocketAddr)>,
    due: BTreeSet<(Rank, SocketAddr)>,
    /// Those that may make room for others.
    expendable: BTreeSet<(Worth, SocketAddr)>,
    tellers: BTreeMap<Teller, usize>,
    counts: Counts,
    numbers: u64,
    banned: HashSet<IpAddr>,
    own: Vec<SocketAddr>,
    own_address: OwnAddress,
}

impl Book {
    /// An empty book of a client that listens at the addresses `own`, which are never dialed.
    pub fn new(own: &[SocketAddr]) -> Self {
        Self { own: own.iter().map(|&addr| canonical(addr)).collect(), ..Self::default() }
    }

    /// Writes down an address. `true` if it was not known and is worth dialing; one that cannot be a peer's, is
    /// banned or finds no room is left out. One that is known, and that the source names as one who is there now, does
    /// not wait for long any more. What a peer tells is for [`Book::add_told`].
    pub fn add(&mut self, addr: SocketAddr, source: Source, now: Instant) -> bool {
        self.add_from(canonical(addr), source, None, now)
    }

    /// Writes down an address that the peer at `teller` told of (BEP 11), as [`Book::add`] does. Addresses of this
    /// machine and of private networks are left out where the teller's is none: they mean others to it.
    pub fn add_told(&mut self, addr: SocketAddr, teller: SocketAddr, now: Instant) -> bool {
        let (addr, teller) = (canonical(addr), canonical(teller));
        reach(addr.ip()) <= reach(teller.ip())
            && self.add_from(addr, Source::Pex, Some(Teller::of(teller)), now)
    }

    fn add_from(&mut self, addr: SocketAddr, source: Source, teller: Option<Teller>, now: Instant) -> bool {
        if check_dialable(addr).is_err() || self.is_own(addr) || self.is_banned(addr) {
            return false;
        }
        if let Some(entry) = self.entries.get(&addr) {
            if entry.source < source && self.make_room(source, teller) {
                self.change(addr, |entry| (entry.source, entry.teller) = (source, teller));
            }
            if let Some(wait) = source.wait_when_named() {
                self.hasten(addr, now + wait);
            }
            return false;
        }
        self.insert(addr, source, teller, State::Idle { retry_at: now })
    }

    /// Has an address that waits for another try wait no longer than that, and its back-off begin anew. How often it is
    /// named is of no account: a try that fails is followed by a wait of the first length at least.
    fn hasten(&mut self, addr: SocketAddr, until: Instant) {
        let waits = |entry: &Entry| matches!(entry.state, State::Idle { retry_at } if retry_at > until);
        if self.entries.get(&addr).is_some_and(waits) {
            self.change(addr, |entry| {
                entry.failures = entry.failures.min(1);
                entry.state = State::Idle { retry_at: until };
            });
        }
    }

    /// The address to dial now, if any; it counts as dialing until [`Book::on_connected`] or [`Book::on_closed`].
    pub fn next_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        while let Some(&(retry_at, addr)) = self.waiting.first()
            && retry_at <= now
        {
            self.waiting.pop_first();
            if let Some(entry) = self.entries.get(&addr) {
                self.due.insert((entry.rank(), addr));
            }
        }
        let &(_, addr) = self.due.first()?;
        self.change(addr, |entry| {
            entry.state = State::Dialing;
            entry.was_tried = true;
        });
        Some(addr)
    }

    /// A connection stands: one that was dialed, or one that came in. `false` if it must be closed, because the
    /// peer is banned, is connected already or finds no room.
    pub fn on_connected(&mut self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        if self.is_banned(addr) {
            return false;
        }
        match self.entries.get(&addr).map(|entry| entry.state) {
            None => self.insert(addr, Source::Incoming, None, State::Connected),
            Some(State::Connected | State::Useless | State::Banned) => false,
            Some(State::Idle { .. } | State::Dialing) => {
                self.change(addr, |entry| entry.state = State::Connected);
                true
            }
        }
    }

    /// A dial or a connection has ended. Other addresses are ignored.
    pub fn on_closed(&mut self, addr: SocketAddr, outcome: Outcome, now: Instant) {
        let addr = canonical(addr);
        let Some(entry) = self.entries.get(&addr) else { return };
        if !matches!(entry.state, State::Dialing | State::Connected) {
            return;
        }
        if entry.source == Source::Incoming && outcome != Outcome::Useless {
            self.remove(addr);
            // Its machine is there, and so may be who listens on it.
            let of_machine = self.entries.range(all_ports(addr.ip())).map(|(&addr, _)| addr);
            for known in of_machine.take(CALLED_MAX).collect::<Vec<_>>() {
                self.hasten(known, now + BACKOFF_WORTHY.0);
            }
            return;
        }
        self.change(addr, |entry| {
            let was_dialing = entry.state == State::Dialing;
            if outcome == Outcome::Unanswered && was_dialing && !entry.encrypted {
                // This way it is untried.
                (entry.encrypted, entry.was_tried) = (true, false);
                entry.state = State::Idle { retry_at: now };
                return;
            }
            if outcome == Outcome::Again {
                (entry.failures, entry.was_tried, entry.has_served) = (0, false, !was_dialing);
                entry.state = State::Idle { retry_at: now };
                return;
            }
            entry.has_delivered |= outcome == Outcome::Worked;
            let has_served = std::mem::take(&mut entry.has_served);
            entry.was_tried = true;
            // After a dial that failed encrypted, the next is a plain one again.
            entry.encrypted &= !was_dialing;
            match outcome {
                Outcome::Worked | Outcome::Again => entry.failures = 0,
                Outcome::Failed | Outcome::Unanswered if has_served => {}
                Outcome::Failed | Outcome::Unanswered => {
                    entry.failures = (entry.failures + 1).min(FAILURES_MAX)
                }
                Outcome::Useless => return entry.state = State::Useless,
            }
            let (first, longest) = entry.backoff();
            let wait = match entry.failures {
                0 => RETRY_WORKED,
                failures => first.saturating_mul(1 << (failures - 1)).min(longest),
            };
            entry.state = State::Idle { retry_at: now + wait };
        });
    }

    /// Bans the machine at this address, and returns those of its addresses that were dialing or connected: they no
    /// longer count, and their connections are to be closed. Of a loopback address only the port is banned, since
    /// peers of this machine all share it.
    pub fn ban(&mut self, addr: SocketAddr) -> Vec<SocketAddr> {
        let addr = canonical(addr);
        let whole_machine = !addr.ip().is_loopback();
        if whole_machine && self.banned.len() < BANS_MAX {
            self.banned.insert(addr.ip());
        }
        let of_machine = if whole_machine { all_ports(addr.ip()) } else { addr..=addr };
        let known: Vec<_> =
            self.entries.range(of_machine).map(|(&addr, entry)| (addr, entry.state)).collect();
        for &(addr, _) in &known {
            self.change(addr, |entry| entry.state = State::Banned);
        }
        let is_open = |state| matches!(state, State::Dialing | State::Connected);
        known.into_iter().filter(|&(_, state)| is_open(state)).map(|(addr, _)| addr).collect()
    }

    /// Whether nothing more is to be had with this address.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        let is_banned = |entry: &Entry| entry.state == State::Banned;
        self.banned.contains(&addr.ip()) || self.entries.get(&addr).is_some_and(is_banned)
    }

    /// Whether this address is to be dialed encrypted.
    pub fn is_encrypted(&self, addr: SocketAddr) -> bool {
        self.entries.get(&canonical(addr)).is_some_and(|entry| entry.encrypted)
    }

    /// Takes a peer's word for the address at which it sees us (BEP 10). When enough of them agree, all addresses get
    /// their priorities, which looks at every entry.
    pub fn on_own_address(&mut self, voter: SocketAddr, ours: IpAddr) {
        let ours = ours.to_canonical();
        let known = self.own_address.known(ours.is_ipv6());
        if !self.own_address.vote(voter.ip(), ours) || self.own_address.known(ours.is_ipv6()) == known {
            return;
        }
        for addr in self.entries.keys().copied().collect::<Vec<_>>() {
            let priority = self.priority(addr);
            self.change(addr, |entry| entry.priority = priority);
        }
    }

    /// The connections that were dialed, so that others can be told where these peers listen. Looks at every entry.
    pub fn dialed(&self) -> impl Iterator<Item = SocketAddr> {
        let is_dialed = |entry: &Entry| entry.state == State::Connected && entry.was_tried;
        self.entries.iter().filter(move |(_, entry)| is_dialed(entry)).map(|(&addr, _)| addr)
    }

    /// How many addresses are known, whatever became of them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many addresses of a source are known.
    pub const fn count(&self, source: Source) -> usize {
        self.counts.of_source[source as usize]
    }

    /// How many addresses wait for their first dial.
    pub const fn untried_count(&self) -> usize {
        self.counts.untried
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many connections stand.
    pub const fn connected_count(&self) -> usize {
        self.counts.connected
    }

    /// How many dials are under way.
    pub const fn dialing_count(&self) -> usize {
        self.counts.dialing
    }

    /// When [`Book::next_dial`] has an address again: `now` if it has one, `None` if waiting is of no use.
    pub fn earliest_retry(&self, now: Instant) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(now);
        }
        self.waiting.first().map(|&(retry_at, _)| retry_at.max(now))
    }

    /// Whether there is nobody to hope for: no connection, no dial, and no address that has failed fewer than
    /// [`HOPE_FAILURES_MAX`] times in a row. [`Book::next_dial`] still gives such addresses in their time, for whoever
    /// has another reason to go on.
    pub const fn is_exhausted(&self) -> bool {
        self.counts.connected == 0 && self.counts.dialing == 0 && self.counts.hopes == 0
    }

    /// Whether this client itself listens there.
    pub fn is_own(&self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        let seen_at = self.own_address.known(addr.is_ipv6());
        let is_seen = |own: &SocketAddr| own.port() == addr.port() && seen_at == Some(addr.ip());
        self.own.iter().any(|own| *own == addr || is_seen(own))
    }

    fn priority(&self, addr: SocketAddr) -> u32 {
        let port = self.own.first().map_or(0, SocketAddr::port);
        let ours = self.own_address.known(addr.is_ipv6()).map(|ip| SocketAddr::new(ip, port));
        ours.and_then(|ours| canonical_priority(ours, addr)).unwrap_or(0)
    }

    fn insert(&mut self, addr: SocketAddr, source: Source, teller: Option<Teller>, state: State) -> bool {
        if !self.make_room(source, teller) {
            return false;
        }
        self.numbers += 1;
        let (priority, number) = (self.priority(addr), self.numbers);
        let entry = Entry {
            source,
            teller,
            state,
            was_tried: false,
            failures: 0,
            encrypted: false,
            has_delivered: false,
            has_served: false,
            priority,
            number,
        };
        self.put(addr, entry);
        true
    }

    /// Sees to it that one more address of that source, or that teller, fits: by leaving out the most hopeless one of
    /// the same, or else one of the teller that told the most. The latter looks at every entry.
    fn make_room(&mut self, source: Source, teller: Option<Teller>) -> bool {
        let told = |teller: Option<Teller>| teller.and_then(|it| self.tellers.get(&it)).copied().unwrap_or(0);
        let is_teller_full = told(teller) >= TELLER_SHARE;
        if !is_teller_full && self.count(source) < source.share() {
            return true;
        }
        let least = (source, Reverse(true), Reverse(u32::MAX), 0);
        let mut expendable = self
            .expendable
            .range((least, SocketAddr::from(([0; 4], 0)))..)
            .take_while(|((of, ..), _)| *of == source)
            .map(|&(_, addr)| addr);
        let is_tellers = |addr: &SocketAddr| self.entries.get(addr).is_some_and(|it| it.teller == teller);
        let found = if is_teller_full { expendable.find(is_tellers) } else { expendable.next() };
        let victim = found.or_else(|| {
            let (&most, &count) = self.tellers.iter().max_by_key(|&(_, count)| count)?;
            let is_fair = is_teller_full || teller.is_none() || count <= told(teller) + 1;
            let is_victim = |entry: &Entry| entry.teller == Some(most) && entry.is_untried();
            if is_fair {
                None
            } else {
                self.entries.iter().find(|(_, it)| is_victim(it)).map(|(&addr, _)| addr)
            }
        });
        victim.is_some_and(|addr| self.remove(addr).is_some())
    }

    /// Changes an entry.
    fn change(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.remove(addr) {
            change(&mut entry);
            self.put(addr, entry);
        }
    }

    fn put(&mut self, addr: SocketAddr, entry: Entry) {
        if let State::Idle { retry_at } = entry.state {
            self.waiting.insert((retry_at, addr));
        }
        if let Some(worth) = entry.worth() {
            self.expendable.insert((worth, addr));
        }
        if let Some(teller) = entry.teller {
            *self.tellers.entry(teller).or_default() += 1;
        }
        self.counts.count(&entry, 1);
        self.entries.insert(addr, entry);
    }

    fn remove(&mut self, addr: SocketAddr) -> Option<Entry> {
        let entry = self.entries.remove(&addr)?;
        if let State::Idle { retry_at } = entry.state {
            self.waiting.remove(&(retry_at, addr));
            self.due.remove(&(entry.rank(), addr));
        }
        if let Some(worth) = entry.worth() {
            self.expendable.remove(&(worth, addr));
        }
        if let Some(teller) = entry.teller
            && let Some(count) = self.tellers.get_mut(&teller)
        {
            *count -= 1;
            if *count == 0 {
                self.tellers.remove(&teller);
            }
        }
        self.counts.count(&entry, -1);
        Some(entry)
    }
}

/// How far from here an address means the same machine: 0 for everywhere, 1 for a private network, 2 for this machine.
pub fn reach(ip: IpAddr) -> u8 {
    match ip.to_canonical() {
        ip if ip.is_loopback() => 2,
        IpAddr::V4(ip) => u8::from(ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => u8::from(ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

/// One name for one peer: IPv4 addresses mapped into IPv6 become IPv4, and an IPv6 flow label does not count.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
            let mut plain = v6;
            plain.set_flowinfo(0);
            SocketAddr::V6(plain)
        }
        _ => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
    }
}

/// The range of all addresses of a machine.
fn all_ports(ip: IpAddr) -> RangeInclusive<SocketAddr> {
    let last = match ip {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), u16::MAX),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, u16::MAX, u32::MAX, u32::MAX).into(),
    };
    SocketAddr::new(ip, 0)..=last
}

/// Why nobody can listen at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotDialable {
    /// It has port 0.
    NoPort,
    /// It means any address of this machine, or of this network.
    Unspecified,
    /// It means a group.
    Multicast,
    /// It means everybody.
    Broadcast,
}

impl fmt::Display for NotDialable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "nobody listens at port 0",
            Self::Unspecified => "it is no address of one machine; for this one it is 127.0.0.1 or [::1]",
            Self::Multicast => "it is a multicast address, not one machine's",
            Self::Broadcast => "it is a broadcast address, not one machine's",
        })
    }
}

impl std::error::Error for NotDialable {}

/// Checks that a peer can listen at an address.
///
/// # Errors
/// Why it cannot.
pub fn check_dialable(addr: SocketAddr) -> Result<(), NotDialable> {
    match addr.ip().to_canonical() {
        _ if addr.port() == 0 => Err(NotDialable::NoPort),
        // All of 0.0.0.0/8 is this network (RFC 1122).
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Err(NotDialable::Unspecified),
        IpAddr::V4(ip) if ip.is_broadcast() => Err(NotDialable::Broadcast),
        ip if ip.is_unspecified() => Err(NotDialable::Unspecified),
        ip if ip.is_multicast() => Err(NotDialable::Multicast),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn numbered(number: usize) -> SocketAddr {
        SocketAddr::from(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 6881))
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_address_is_known_once_by_whatever_name() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        assert!(book.add(addr("1.2.3.4:5"), Source::Tracker, now));
        assert!(!book.add(addr("[::ffff:1.2.3.4]:5"), Source::Manual, now));
        assert!(book.add(addr("1.2.3.4:6"), Source::Tracker, now));
        assert_eq!(book.len(), 2);
        assert_eq!(book.next_dial(now), Some(addr("1.2.3.4:5")));
        assert!(book.on_connected(addr("[::ffff:1.2.3.4]:5")));
        assert_eq!((book.connected_count(), book.dialing_count()), (1, 0));
    }

    #[test]
    fn what_cannot_be_a_peer_is_left_out() {
        let now = Instant::now();
        let mut book = Book::new(&[addr("[::ffff:5.6.7.8]:1")]);
        for (text, expected) in [
            ("1.2.3.4:0", Err(NotDialable::NoPort)),
            ("0.0.0.0:1", Err(NotDialable::Unspecified)),
            ("0.1.2.3:1", Err(NotDialable::Unspecified)),
            ("[::]:1", Err(NotDialable::Unspecified)),
            ("[::ffff:0.0.0.0]:1", Err(NotDialable::Unspecified)),
            ("224.0.0.1:1", Err(NotDialable::Multicast)),
            ("[::ffff:239.1.2.3]:1", Err(NotDialable::Multicast)),
            ("[ff02::1]:1", Err(NotDialable::Multicast)),
            ("255.255.255.255:1", Err(NotDialable::Broadcast)),
            ("5.6.7.8:1", Ok(())),
        ] {
            assert_eq!(check_dialable(addr(text)), expected, "{text}");
            assert!(!book.add(addr(text), Source::Manual, now), "{text}");
        }
        assert!(book.is_empty() && book.is_exhausted());
    }

    #[test]
    fn the_untried_come_first_then_those_that_failed_least() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for number in 0..3 {
            book.add(numbered(number), Source::Tracker, now);
        }
        assert_eq!(book.next_dial(now), Some(numbered(0)));
        assert_eq!(book.untried_count(), 2);
        book.on_closed(numbered(0), Outcome::Failed, now);
        assert_eq!(book.next_dial(now), Some(numbered(1)));
        assert_eq!(book.untried_count(), 1);
        book.on_connected(numbered(1));
        book.on_closed(numbered(1), Outcome::Worked, now);
        book.add(numbered(9), Source::Manual, now);
        let order: Vec<_> = std::iter::from_fn(|| book.next_dial(now + secs(60))).collect();
        assert_eq!(order, [numbered(9), numbered(2), numbered(1), numbered(0)]);
        assert_eq!(book.dialing_count(), 4);
    }

    #[test]
    fn waits_double_up_to_a_limit_and_success_resets_them() {
        let cases = [
            (Source::Tracker, [5, 10, 20, 40, 80, 160, 320, 600, 600]),
            (Source::Manual, [1, 2, 4, 8, 15, 15, 15, 15, 15]),
        ];
        for (source, expected) in cases {
            let mut now = Instant::now();
            let mut book = Book::new(&[]);
            book.add(numbered(1), source, now);
            for wait in expected {
                assert_eq!(book.next_dial(now), Some(numbered(1)));
                book.on_closed(numbered(1), Outcome::Failed, now);
                assert_eq!(book.earliest_retry(now), Some(now + secs(wait)));
                assert_eq!(book.next_dial(now + secs(wait) - Duration::from_millis(1)), None);
                now += secs(wait);
            }
            book.next_dial(now);
            book.on_connected(numbered(1));
            book.on_closed(numbered(1), Outcome::Worked, now);
            assert_eq!(book.earliest_retry(now), Some(now + RETRY_WORKED));
            assert_eq!(book.earliest_retry(now + secs(9)), Some(now + secs(9)));
        }
    }

    #[test]
    fn who_has_delivered_is_tried_often() {
        let mut now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Tracker, now);
        book.next_dial(now);
        book.on_connected(numbered(1));
        book.on_closed(numbered(1), Outcome::Worked, now);
        for wait in [1, 1, 2, 4, 8, 15, 15] {
            assert_eq!(book.earliest_retry(now), Some(now + secs(wait)));
            now += secs(wait);
            assert_eq!(book.next_dial(now), Some(numbered(1)));
            book.on_closed(numbered(1), Outcome::Failed, now);
        }
    }

    #[test]
    fn who_is_named_as_being_there_now_is_tried_soon() {
        let named = [
            (Source::Tracker, 5),
            (Source::Dht, 5),
            (Source::Lsd, 1),
            // Nobody has looked whether it is there.
            (Source::Pex, 600),
            (Source::Manual, 600),
        ];
        for (source, wait) in named {
            let mut now = Instant::now();
            let mut book = Book::new(&[]);
            book.add(numbered(1), Source::Tracker, now);
            for _ in 0..9 {
                now = book.earliest_retry(now).unwrap();
                book.next_dial(now);
                book.on_closed(numbered(1), Outcome::Failed, now);
            }
            assert!(book.is_exhausted());
            // However often it is named, it is not dialed more often.
            for later in [0, 0, 200] {
                book.add(numbered(1), source, now + Duration::from_millis(later));
            }
            assert_eq!(book.earliest_retry(now), Some(now + secs(wait)), "{source:?}");
            assert_eq!(book.is_exhausted(), wait == 600, "{source:?}");
        }
    }

    #[test]
    fn a_machine_that_has_called_is_tried_soon() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for text in ["9.9.9.9:1", "8.8.8.8:1"] {
            book.add(addr(text), Source::Tracker, now);
            book.next_dial(now);
            book.on_closed(addr(text), Outcome::Failed, now);
        }
        assert!(book.on_connected(addr("9.9.9.9:50000")));
        book.on_closed(addr("9.9.9.9:50000"), Outcome::Failed, now);
        assert_eq!(book.next_dial(now + secs(1)), Some(addr("9.9.9.9:1")));
        assert_eq!(book.next_dial(now + secs(1)), None);
    }

    #[test]
    fn a_useless_address_is_never_dialed_again() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Manual, now);
        book.next_dial(now);
        book.on_closed(numbered(1), Outcome::Useless, now);
        assert!(!book.add(numbered(1), Source::Tracker, now));
        assert_eq!((book.earliest_retry(now), book.is_exhausted()), (None, true));
        assert!(!book.on_connected(numbered(1)));
    }

    #[test]
    fn hope_ends_after_a_few_failures_but_not_the_retries() {
        let mut now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Tracker, now);
        for _ in 0..HOPE_FAILURES_MAX {
            assert!(!book.is_exhausted());
            now = book.earliest_retry(now).unwrap();
            assert_eq!(book.next_dial(now), Some(numbered(1)));
            assert!(!book.is_exhausted());
            book.on_closed(numbered(1), Outcome::Failed, now);
        }
        assert!(book.is_exhausted());
        assert_eq!(book.next_dial(now + secs(600)), Some(numbered(1)));
        assert!(book.on_connected(numbered(1)) && !book.is_exhausted());
    }

    #[test]
    fn who_does_not_answer_is_dialed_encrypted_at_once() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for number in 0..3 {
            book.add(numbered(number), Source::Tracker, now);
        }
        assert_eq!(book.next_dial(now), Some(numbered(0)));
        assert_eq!(book.next_dial(now), Some(numbered(1)));
        book.on_closed(numbered(1), Outcome::Unanswered, now);
        assert!(book.is_encrypted(numbered(1)) && !book.is_encrypted(numbered(0)));
        assert_eq!(book.next_dial(now), Some(numbered(1)), "before those that were never dialed");
        assert!(book.on_connected(numbered(1)));
        book.on_closed(numbered(1), Outcome::Failed, now);
        assert!(book.is_encrypted(numbered(1)), "it was connected so");
    }

    #[test]
    fn who_is_wanted_again_is_dialed_like_one_that_was_never_tried() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Tracker, now);
        assert_eq!(book.next_dial(now), Some(numbered(1)));
        book.on_closed(numbered(1), Outcome::Failed, now);
        assert_eq!(book.next_dial(now + secs(5)), Some(numbered(1)));
        assert!(book.on_connected(numbered(1)));
        book.on_closed(numbered(1), Outcome::Again, now + secs(6));
        book.add(numbered(2), Source::Tracker, now);
        assert_eq!((book.untried_count(), book.connected_count()), (2, 0));
        assert_eq!(book.next_dial(now + secs(6)), Some(numbered(1)));
        book.on_closed(numbered(1), Outcome::Failed, now + secs(6));
        assert_eq!(book.next_dial(now + secs(6)), Some(numbered(2)));
        assert_eq!(
            book.next_dial(now + secs(7)),
            Some(numbered(1)),
            "it may not have noticed yet that we left"
        );
        book.on_closed(numbered(1), Outcome::Failed, now + secs(7));
        assert_eq!(book.next_dial(now + secs(11)), None, "but this is a failure");
    }

    #[test]
    fn who_has_served_is_dialed_before_a_crowd_that_said_nothing() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for number in 0..100 {
            book.add(numbered(number), Source::Tracker, now);
        }
        let dialed: Vec<_> = std::iter::from_fn(|| book.next_dial(now)).collect();
        assert!(book.on_connected(numbered(70)));
        for addr in dialed {
            book.on_closed(addr, Outcome::Again, now);
        }
        book.add(numbered(200), Source::Manual, now);
        assert_eq!(book.untried_count(), 101);
        assert_eq!(book.next_dial(now), Some(numbered(70)));
        assert_eq!(book.next_dial(now), Some(numbered(200)));
    }

    #[test]
    fn who_answers_neither_way_backs_off() {
        let mut now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Tracker, now);
        for (failures, wait) in [5, 10, 20].into_iter().enumerate() {
            for encrypted in [false, true] {
                assert_eq!(book.earliest_retry(now), Some(now));
                assert_eq!(book.next_dial(now), Some(numbered(1)));
                assert_eq!(book.is_encrypted(numbered(1)), encrypted, "after {failures} failures");
                book.on_closed(numbered(1), Outcome::Unanswered, now);
            }
            assert_eq!(book.earliest_retry(now), Some(now + secs(wait)));
            now += secs(wait);
        }
        assert!(book.is_exhausted());
    }

    #[test]
    fn whoever_cannot_be_reached_encrypted_is_dialed_plain_again() {
        let mut now = Instant::now();
        let mut book = Book::new(&[]);
        book.add(numbered(1), Source::Tracker, now);
        book.next_dial(now);
        book.on_closed(numbered(1), Outcome::Unanswered, now);
        book.next_dial(now);
        book.on_connected(numbered(1));
        book.on_closed(numbered(1), Outcome::Worked, now);
        now += RETRY_WORKED;
        assert_eq!(book.next_dial(now), Some(numbered(1)));
        assert!(book.is_encrypted(numbered(1)));
        book.on_closed(numbered(1), Outcome::Failed, now);
        assert!(!book.is_encrypted(numbered(1)));
        assert_eq!(book.earliest_retry(now), Some(now + secs(1)));
    }

    #[test]
    fn a_ban_is_for_the_machine_but_not_for_this_one() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for text in ["9.9.9.9:1", "9.9.9.9:2", "9.9.9.9:3", "8.8.8.8:1", "127.0.0.1:1", "127.0.0.1:2"] {
            book.add(addr(text), Source::Tracker, now);
        }
        assert!(book.on_connected(addr("9.9.9.9:2")));
        assert_eq!(book.next_dial(now), Some(addr("9.9.9.9:1")));
        assert_eq!(book.ban(addr("9.9.9.9:2")), [addr("9.9.9.9:1"), addr("9.9.9.9:2")]);
        assert_eq!((book.connected_count(), book.dialing_count()), (0, 0));
        book.on_closed(addr("9.9.9.9:2"), Outcome::Worked, now);
        assert!(book.is_banned(addr("9.9.9.9:77")) && !book.on_connected(addr("9.9.9.9:77")));
        assert!(!book.add(addr("9.9.9.9:77"), Source::Manual, now));
        assert_eq!(book.ban(addr("127.0.0.1:1")), []);
        assert!(book.is_banned(addr("127.0.0.1:1")) && !book.is_banned(addr("127.0.0.1:2")));
        let left: Vec<_> = std::iter::from_fn(|| book.next_dial(now)).collect();
        assert_eq!(left, [addr("8.8.8.8:1"), addr("127.0.0.1:2")]);
    }

    #[test]
    fn incoming_peers_count_and_are_forgotten() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        assert!(book.on_connected(numbered(1)));
        assert!(!book.on_connected(numbered(1)), "connected already");
        book.on_closed(numbered(1), Outcome::Worked, now);
        assert_eq!((book.len(), book.connected_count()), (0, 0));
        book.on_closed(numbered(1), Outcome::Worked, now);
    }

    #[test]
    fn a_source_has_its_share_and_the_failed_make_room() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        let added =
            (0..BOOK_LEN_MAX).filter(|&number| book.add(numbered(number), Source::Tracker, now)).count();
        assert_eq!(added, Source::Tracker.share());
        assert!(book.add(numbered(100_000), Source::Manual, now));
        let failed = book.next_dial(now).unwrap();
        assert_eq!(failed, numbered(100_000));
        book.on_closed(failed, Outcome::Failed, now);
        assert!(!book.add(numbered(100_001), Source::Tracker, now), "the user's addresses stay");
        let failed = book.next_dial(now).unwrap();
        book.on_closed(failed, Outcome::Failed, now);
        assert!(book.add(numbered(100_001), Source::Tracker, now));
        assert_eq!(book.len(), Source::Tracker.share() + 1);
        assert!(book.add(failed, Source::Manual, now), "it was forgotten");
    }

    #[test]
    fn no_source_pushes_out_what_another_told() {
        let now = Instant::now();
        for flooded in [Source::Pex, Source::Dht, Source::Lsd, Source::Tracker, Source::Manual] {
            let mut book = Book::new(&[]);
            let before: Vec<_> = Source::ALL.into_iter().enumerate().skip(1).collect();
            assert!(before.iter().all(|&(number, source)| book.add(numbered(number), source, now)));
            for number in 0..2 * BOOK_LEN_MAX {
                book.add(numbered(1000 + number), flooded, now);
                assert!(book.count(flooded) <= flooded.share() && book.len() <= BOOK_LEN_MAX);
            }
            assert_eq!(book.count(flooded), flooded.share());
            for (number, source) in before {
                assert_eq!(book.entries[&numbered(number)].source, source, "after a flood of {flooded:?}");
            }
        }
    }

    #[test]
    fn a_teller_has_its_share_and_shares_are_fair() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        let teller = |number: usize| SocketAddr::from(([10, 77, (number >> 8) as u8, number as u8], 1000));
        let tell = |book: &mut Book, who: usize, what: Range<usize>| {
            what.filter(|&number| book.add_told(numbered(who * 1000 + number), teller(who), now)).count()
        };
        assert_eq!(tell(&mut book, 0, 0..500), TELLER_SHARE);
        let mut other_port = teller(0);
        other_port.set_port(2000);
        assert!(!book.add_told(numbered(999), other_port, now), "it is the same machine");
        let full = Source::Pex.share() / TELLER_SHARE;
        for who in 1..full {
            assert_eq!(tell(&mut book, who, 0..500), TELLER_SHARE);
        }
        // What is left, and then as much of the others' as makes shares equal.
        let late = tell(&mut book, full, 0..500);
        let fair = Source::Pex.share() / (full + 1);
        assert!((fair - 1..=fair + 1).contains(&late), "{late} of {fair}");
        assert_eq!(book.count(Source::Pex), Source::Pex.share());
        assert!(book.tellers.values().all(|&count| count >= fair - 1));
        // What has failed makes room for more of the same teller.
        let mut book = Book::new(&[]);
        tell(&mut book, 0, 0..TELLER_SHARE);
        tell(&mut book, 1, 0..1);
        let failed = book.next_dial(now).unwrap();
        book.on_closed(failed, Outcome::Failed, now);
        assert_eq!(tell(&mut book, 1, 1..2), 1);
        assert_eq!(tell(&mut book, 0, 500..502), 1);
        assert!(!book.entries.contains_key(&failed));
    }

    #[test]
    fn an_address_from_several_keeps_the_highest_source() {
        let now = Instant::now();
        let mut book = Book::new(&[]);
        assert!(book.add_told(numbered(1), numbered(9), now));
        for source in [Source::Incoming, Source::Dht, Source::Pex, Source::Manual, Source::Tracker] {
            assert!(!book.add(numbered(1), source, now));
        }
        assert_eq!((book.count(Source::Pex), book.count(Source::Manual), book.len()), (0, 1, 1));
        assert!(book.tellers.is_empty(), "it is no longer the teller's");
    }

    #[test]
    fn peers_tell_of_no_place_that_is_another_for_them() {
        let now = Instant::now();
        let (wide, private, here) = ("9.9.9.9:1", "192.168.0.9:1", "127.0.0.1:1");
        let cases = [
            ("8.8.8.8:2", true, true, true),
            ("10.0.0.8:2", false, true, true),
            ("169.254.0.8:2", false, true, true),
            ("[fd00::8]:2", false, true, true),
            ("[fe80::8]:2", false, true, true),
            ("127.0.0.1:2", false, false, true),
            ("[::1]:2", false, false, true),
            ("[::ffff:127.0.0.1]:2", false, false, true),
            ("[2001:db8::8]:2", true, true, true),
        ];
        for (told, to_wide, to_private, to_here) in cases {
            for (teller, expected) in [(wide, to_wide), (private, to_private), (here, to_here)] {
                let is_added = Book::new(&[]).add_told(addr(told), addr(teller), now);
                assert_eq!(is_added, expected, "{told} told by {teller}");
            }
        }
    }

    #[test]
    fn priorities_order_equals_once_our_address_is_known() {
        let now = Instant::now();
        let peers: Vec<_> = (1..=20).map(|n| SocketAddr::from(([50 + n, 60, 70, 80], 6881))).collect();
        let ours: IpAddr = "123.213.32.10".parse().unwrap();
        let priority = |peer: SocketAddr| canonical_priority(SocketAddr::new(ours, 7000), peer).unwrap();
        let mut book = Book::new(&[addr("0.0.0.0:7000")]);
        assert!(peers.iter().all(|&peer| book.add(peer, Source::Tracker, now)));
        book.on_own_address(peers[0], ours);
        assert_eq!(book.next_dial(now), Some(peers[0]), "one voice is none");
        book.on_own_address(peers[1], ours);
        book.add(numbered(1), Source::Manual, now);
        assert_eq!(book.next_dial(now), Some(numbered(1)), "the user's own first");
        let mut expected = peers[1..].to_vec();
        expected.sort_by_key(|&peer| Reverse(priority(peer)));
        let dialed: Vec<_> = std::iter::from_fn(|| book.next_dial(now)).collect();
        assert_eq!(dialed, expected);
        assert!(!book.add(SocketAddr::new(ours, 7000), Source::Tracker, now), "that is us");
        assert!(book.add(SocketAddr::new(ours, 7001), Source::Tracker, now));

        dialed.iter().chain(&[numbered(1)]).for_each(|&peer| assert!(book.on_connected(peer)));
        assert_eq!(book.dialed().count(), dialed.len() + 1);
        let came = addr("99.99.99.99:999");
        assert!(book.on_connected(came) && book.dialed().all(|peer| peer != came));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Add(u8, Source),
        Tell(u8, u8),
        Dial,
        Connected(u8),
        Closed(u8, Outcome),
        Ban(u8),
        Own(u8),
        Wait(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let number = || 0u8..24;
        let source = proptest::sample::select(&Source::ALL[1..]);
        let outcome = prop_oneof![
            Just(Outcome::Worked),
            Just(Outcome::Failed),
            Just(Outcome::Unanswered),
            Just(Outcome::Again),
            Just(Outcome::Useless)
        ];
        let op = prop_oneof![
            4 => (number(), source).prop_map(|(n, source)| Op::Add(n, source)),
            2 => (number(), number()).prop_map(|(n, teller)| Op::Tell(n, teller)),
            4 => Just(Op::Dial),
            3 => number().prop_map(Op::Connected),
            3 => (number(), outcome).prop_map(|(n, outcome)| Op::Closed(n, outcome)),
            1 => number().prop_map(Op::Ban),
            1 => number().prop_map(Op::Own),
            2 => (0u64..700).prop_map(Op::Wait),
        ];
        proptest::collection::vec(op, 0..200)
    }

    /// A few machines with a few ports each, one of them this one, so that bans meet what is in use.
    fn peer(n: u8) -> SocketAddr {
        let host = if n / 4 == 0 { [127, 0, 0, 1] } else { [10, 0, 0, n / 4] };
        SocketAddr::from((host, u16::from(n % 4) + 1))
    }

    /// What the orders and counts should be, from the entries alone.
    fn check(book: &Book) {
        let (mut counts, mut tellers) = (Counts::default(), BTreeMap::<Teller, usize>::new());
        let (mut idle, mut expendable) = (0, 0);
        for (addr, entry) in &book.entries {
            counts.count(entry, 1);
            assert!(entry.failures <= FAILURES_MAX);
            assert_eq!(entry.priority, book.priority(*addr));
            if let Some(teller) = entry.teller {
                assert_eq!(entry.source, Source::Pex);
                *tellers.entry(teller).or_default() += 1;
            }
            if let State::Idle { retry_at } = entry.state {
                let is_waiting = book.waiting.contains(&(retry_at, *addr));
                assert!(is_waiting != book.due.contains(&(entry.rank(), *addr)));
                idle += 1;
            }
            if let Some(worth) = entry.worth() {
                assert!(book.expendable.contains(&(worth, *addr)));
                expendable += 1;
            }
            if book.banned.contains(&addr.ip()) {
                assert_eq!(entry.state, State::Banned);
            }
        }
        assert_eq!(counts, book.counts);
        assert_eq!(tellers, book.tellers);
        assert_eq!((idle, expendable), (book.waiting.len() + book.due.len(), book.expendable.len()));
    }

    /// The address to dial, by looking at each.
    fn slow_next_dial(book: &Book, now: Instant) -> Option<SocketAddr> {
        let is_due = |entry: &Entry| matches!(entry.state, State::Idle { retry_at } if retry_at <= now);
        let due = book.entries.iter().filter(|(_, entry)| is_due(entry));
        due.min_by_key(|(_, entry)| entry.rank()).map(|(&addr, _)| addr)
    }

    proptest! {
        #[test]
        fn orders_and_counts_hold_after_any_sequence(ops in ops()) {
            let mut now = Instant::now();
            let mut book = Book::new(&[peer(23)]);
            for op in ops {
                match op {
                    Op::Add(n, source) => {
                        let is_known = book.entries.contains_key(&peer(n));
                        let may = !book.is_own(peer(n)) && !is_known && !book.is_banned(peer(n));
                        prop_assert_eq!(book.add(peer(n), source, now), may);
                    }
                    Op::Tell(n, teller) => {
                        book.add_told(peer(n), peer(teller), now);
                    }
                    Op::Dial => {
                        let due = book.earliest_retry(now) == Some(now);
                        let expected = slow_next_dial(&book, now);
                        let dialed = book.next_dial(now);
                        prop_assert_eq!(dialed, expected);
                        prop_assert_eq!(dialed.is_some(), due);
                        prop_assert!(dialed.is_none_or(|addr| !book.is_banned(addr) && addr != peer(23)));
                    }
                    Op::Connected(n) => {
                        let before = book.connected_count();
                        let taken = book.on_connected(peer(n));
                        prop_assert_eq!(book.connected_count(), before + usize::from(taken));
                    }
                    Op::Closed(n, outcome) => book.on_closed(peer(n), outcome, now),
                    Op::Ban(n) => {
                        let before = book.connected_count() + book.dialing_count();
                        let to_close = book.ban(peer(n));
                        prop_assert_eq!(book.connected_count() + book.dialing_count() + to_close.len(), before);
                    }
                    Op::Own(n) => book.on_own_address(peer(n), peer(n / 8 * 8 + 4).ip()),
                    Op::Wait(wait) => now += secs(wait),
                }
                check(&book);
                let waiting = book.earliest_retry(now).is_some();
                let active = book.connected_count() + book.dialing_count() > 0;
                prop_assert!(!book.is_exhausted() || !active);
                prop_assert!(active || waiting || book.is_exhausted());
            }
        }
    }
}
