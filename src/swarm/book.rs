//! The peer book: every address that was heard of, what became of it, and which to dial next. Pure: `now` comes in.
//!
//! Addresses come from strangers, so the book is bounded, one source cannot push out the others, and what nobody can
//! be reached at is not written down. Invariant: an address stands in it once, and the counts of connected and
//! dialing addresses are those of its entries.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Addresses the book holds.
pub const BOOK_LEN_MAX: usize = 4096;

/// Addresses from the user among them.
pub const MANUAL_MAX: usize = BOOK_LEN_MAX / 8;

/// IP addresses that stay banned.
pub const BANS_MAX: usize = 4096;

/// Failures in a row after which an address is no longer a reason to go on; see [`Book::is_exhausted`].
pub const HOPE_FAILURES_MAX: u32 = 3;

/// What the count of failures ends at.
const FAILURES_MAX: u32 = 16;

/// The wait before a peer that has delivered is dialed again.
const RETRY_WORKED: Duration = Duration::from_secs(1);

/// Where an address comes from, by rising rank: an address from several keeps the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The peer has dialed this client; the address is not one to dial.
    Incoming,
    /// A tracker's reply.
    Tracker,
    /// The user.
    Manual,
}

impl Source {
    /// How many addresses from this source the book holds.
    const fn share(self) -> usize {
        match self {
            Self::Incoming => BOOK_LEN_MAX / 8,
            Self::Tracker => BOOK_LEN_MAX / 2,
            Self::Manual => MANUAL_MAX,
        }
    }

    /// The wait before the first retry, and what its doubling ends at.
    const fn backoff(self) -> (Duration, Duration) {
        match self {
            Self::Manual => (Duration::from_secs(1), Duration::from_secs(15)),
            Self::Tracker | Self::Incoming => (Duration::from_secs(5), Duration::from_secs(600)),
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

#[derive(Clone, Debug)]
struct Entry {
    addr: SocketAddr,
    source: Source,
    state: State,
    was_tried: bool,
    /// In a row, at most [`FAILURES_MAX`].
    failures: u32,
    /// Whether it is to be dialed encrypted: it did not answer to the plain handshake, and either was not dialed
    /// encrypted since or was connected so.
    encrypted: bool,
}

impl Entry {
    /// Lower is dialed sooner: the untried, then those that have failed least; of these the encrypted, so that a second
    /// try follows the first, and then the user's own before others.
    fn rank(&self) -> (bool, u32, bool, std::cmp::Reverse<Source>) {
        (self.was_tried, self.failures, !self.encrypted, std::cmp::Reverse(self.source))
    }

    /// Whether it may make room for an address that was not tried.
    const fn is_expendable(&self) -> bool {
        match self.state {
            State::Idle { .. } => self.failures > 0,
            State::Useless | State::Banned => true,
            State::Dialing | State::Connected => false,
        }
    }
}

/// The addresses of one torrent's swarm. Ports count: two addresses of one machine are two peers.
#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    places: HashMap<SocketAddr, usize>,
    banned: HashSet<IpAddr>,
    own: Vec<SocketAddr>,
    connected_count: usize,
    dialing_count: usize,
}

impl Book {
    /// An empty book of a client that listens at the addresses `own`, which are never dialed.
    pub fn new(own: &[SocketAddr]) -> Self {
        Self { own: own.iter().map(|&addr| canonical(addr)).collect(), ..Self::default() }
    }

    /// Writes down an address. `true` if it was not known and is worth dialing; one that cannot be a peer's, is
    /// banned or finds no room is left out.
    pub fn add(&mut self, addr: SocketAddr, source: Source, now: Instant) -> bool {
        let addr = canonical(addr);
        if !is_dialable(addr) || self.own.contains(&addr) || self.is_banned(addr) {
            return false;
        }
        if let Some(entry) = self.entry(addr) {
            entry.source = entry.source.max(source);
            return false;
        }
        self.insert(addr, source, State::Idle { retry_at: now })
    }

    /// The address to dial now, if any; it counts as dialing until [`Book::on_connected`] or [`Book::on_closed`].
    ///
    /// Looks at every entry: it is meant to be called a few times a second.
    pub fn next_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_due = |entry: &&mut Entry| matches!(entry.state, State::Idle { retry_at } if retry_at <= now);
        let entry = self.entries.iter_mut().filter(is_due).min_by_key(|entry| entry.rank())?;
        entry.state = State::Dialing;
        entry.was_tried = true;
        self.dialing_count += 1;
        Some(entry.addr)
    }

    /// A connection stands: one that was dialed, or one that came in. `false` if it must be closed, because the
    /// peer is banned, is connected already or finds no room.
    pub fn on_connected(&mut self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        if self.is_banned(addr) {
            return false;
        }
        let Some(entry) = self.entry(addr) else {
            let is_new = self.insert(addr, Source::Incoming, State::Connected);
            self.connected_count += usize::from(is_new);
            return is_new;
        };
        match entry.state {
            State::Connected | State::Useless | State::Banned => return false,
            State::Idle { .. } => entry.state = State::Connected,
            State::Dialing => {
                entry.state = State::Connected;
                self.dialing_count -= 1;
            }
        }
        self.connected_count += 1;
        true
    }

    /// A dial or a connection has ended. Other addresses are ignored.
    pub fn on_closed(&mut self, addr: SocketAddr, outcome: Outcome, now: Instant) {
        let addr = canonical(addr);
        let Some(&place) = self.places.get(&addr) else { return };
        let was_dialing = self.entries[place].state == State::Dialing;
        if !self.leave(place) {
            return;
        }
        let entry = &mut self.entries[place];
        if outcome == Outcome::Unanswered && was_dialing && !entry.encrypted {
            // This way it is untried.
            (entry.encrypted, entry.was_tried) = (true, false);
            entry.state = State::Idle { retry_at: now };
            return;
        }
        entry.was_tried = true;
        // After a dial that failed encrypted, the next is a plain one again.
        entry.encrypted &= !was_dialing;
        match outcome {
            Outcome::Worked => entry.failures = 0,
            Outcome::Failed | Outcome::Unanswered => entry.failures = (entry.failures + 1).min(FAILURES_MAX),
            Outcome::Useless => return entry.state = State::Useless,
        }
        let (first, longest) = entry.source.backoff();
        let wait = match entry.failures {
            0 => RETRY_WORKED,
            failures => first.saturating_mul(1 << (failures - 1)).min(longest),
        };
        entry.state = State::Idle { retry_at: now + wait };
        if entry.source == Source::Incoming {
            self.remove(place);
        }
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
        let mut to_close = Vec::new();
        for place in 0..self.entries.len() {
            let entry = &self.entries[place];
            let is_meant = entry.addr == addr || (whole_machine && entry.addr.ip() == addr.ip());
            if is_meant {
                let known = entry.addr;
                if self.leave(place) {
                    to_close.push(known);
                }
                self.entries[place].state = State::Banned;
            }
        }
        to_close
    }

    /// Whether nothing more is to be had with this address.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        let entry = self.places.get(&addr).map(|&place| &self.entries[place]);
        self.banned.contains(&addr.ip()) || entry.is_some_and(|entry| entry.state == State::Banned)
    }

    /// Whether this address is to be dialed encrypted.
    pub fn is_encrypted(&self, addr: SocketAddr) -> bool {
        self.places.get(&canonical(addr)).is_some_and(|&place| self.entries[place].encrypted)
    }

    /// How many addresses are known, whatever became of them.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many addresses wait for their first dial.
    pub fn untried_count(&self) -> usize {
        let is_untried = |entry: &&Entry| !entry.was_tried && matches!(entry.state, State::Idle { .. });
        self.entries.iter().filter(is_untried).count()
    }

    /// Whether no address is known.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many connections stand.
    pub const fn connected_count(&self) -> usize {
        self.connected_count
    }

    /// How many dials are under way.
    pub const fn dialing_count(&self) -> usize {
        self.dialing_count
    }

    /// When [`Book::next_dial`] has an address again: `now` if it has one, `None` if waiting is of no use.
    pub fn earliest_retry(&self, now: Instant) -> Option<Instant> {
        let retry_at = |entry: &Entry| match entry.state {
            State::Idle { retry_at } => Some(retry_at.max(now)),
            _ => None,
        };
        self.entries.iter().filter_map(retry_at).min()
    }

    /// Whether there is nobody to hope for: no connection, no dial, and no address that has failed fewer than
    /// [`HOPE_FAILURES_MAX`] times in a row. [`Book::next_dial`] still gives such addresses in their time, for whoever
    /// has another reason to go on.
    pub fn is_exhausted(&self) -> bool {
        let is_hope =
            |entry: &Entry| matches!(entry.state, State::Idle { .. }) && entry.failures < HOPE_FAILURES_MAX;
        self.connected_count == 0 && self.dialing_count == 0 && !self.entries.iter().any(is_hope)
    }

    fn entry(&mut self, addr: SocketAddr) -> Option<&mut Entry> {
        self.places.get(&addr).map(|&place| &mut self.entries[place])
    }

    fn insert(&mut self, addr: SocketAddr, source: Source, state: State) -> bool {
        if !self.make_room(source) {
            return false;
        }
        self.places.insert(addr, self.entries.len());
        self.entries.push(Entry { addr, source, state, was_tried: false, failures: 0, encrypted: false });
        true
    }

    /// Sees to it that one more address of that source fits, by leaving out its most hopeless one.
    fn make_room(&mut self, source: Source) -> bool {
        let of_source = self.entries.iter().filter(|entry| entry.source == source).count();
        if of_source < source.share() && self.entries.len() < BOOK_LEN_MAX {
            return true;
        }
        let candidates = self.entries.iter().enumerate().filter(|(_, entry)| {
            entry.is_expendable() && (of_source < source.share() || entry.source == source)
        });
        let worst = candidates
            .max_by_key(|(_, entry)| (matches!(entry.state, State::Useless | State::Banned), entry.failures));
        let Some((place, _)) = worst else { return false };
        self.remove(place);
        true
    }

    fn remove(&mut self, place: usize) {
        let removed = self.entries.swap_remove(place);
        self.places.remove(&removed.addr);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.addr, place);
        }
    }

    /// Takes an entry out of the counts; `false` if it was in none.
    fn leave(&mut self, place: usize) -> bool {
        match self.entries[place].state {
            State::Dialing => self.dialing_count -= 1,
            State::Connected => self.connected_count -= 1,
            State::Idle { .. } | State::Useless | State::Banned => return false,
        }
        true
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

/// Whether a peer can listen there.
fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests {
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
        for text in [
            "1.2.3.4:0",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "5.6.7.8:1",
        ] {
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
        assert_eq!(book.earliest_retry(now), Some(now + secs(5)));
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

    #[derive(Clone, Debug)]
    enum Op {
        Add(u8, Source),
        Dial,
        Connected(u8),
        Closed(u8, Outcome),
        Ban(u8),
        Wait(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let number = || 0u8..24;
        let source = prop_oneof![Just(Source::Tracker), Just(Source::Manual)];
        let outcome = prop_oneof![
            Just(Outcome::Worked),
            Just(Outcome::Failed),
            Just(Outcome::Unanswered),
            Just(Outcome::Useless)
        ];
        let op = prop_oneof![
            4 => (number(), source).prop_map(|(n, source)| Op::Add(n, source)),
            4 => Just(Op::Dial),
            3 => number().prop_map(Op::Connected),
            3 => (number(), outcome).prop_map(|(n, outcome)| Op::Closed(n, outcome)),
            1 => number().prop_map(Op::Ban),
            2 => (0u64..700).prop_map(Op::Wait),
        ];
        proptest::collection::vec(op, 0..200)
    }

    fn check(book: &Book) {
        let count = |state: State| book.entries.iter().filter(|entry| entry.state == state).count();
        assert_eq!(book.connected_count(), count(State::Connected));
        assert_eq!(book.dialing_count(), count(State::Dialing));
        assert_eq!(book.places.len(), book.entries.len());
        for (place, entry) in book.entries.iter().enumerate() {
            assert_eq!(book.places.get(&entry.addr), Some(&place));
            assert!(entry.failures <= FAILURES_MAX);
            if book.banned.contains(&entry.addr.ip()) {
                assert_eq!(entry.state, State::Banned);
            }
        }
    }

    proptest! {
        #[test]
        fn counts_and_places_hold_after_any_sequence(ops in ops()) {
            // Few machines with few ports each, one of them this one, so that bans meet what is in use.
            let peer = |n: u8| {
                let host = if n / 4 == 0 { [127, 0, 0, 1] } else { [10, 0, 0, n / 4] };
                SocketAddr::from((host, u16::from(n % 4) + 1))
            };
            let mut now = Instant::now();
            let mut book = Book::new(&[peer(23)]);
            for op in ops {
                match op {
                    Op::Add(n, source) => {
                        book.add(peer(n), source, now);
                    }
                    Op::Dial => {
                        let due = book.earliest_retry(now) == Some(now);
                        let dialed = book.next_dial(now);
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
