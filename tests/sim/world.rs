//! Hosts, connections and time.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringtide::swarm::book::{Book, Outcome, Source};
use ringtide::swarm::claim::Claim;
use ringtide::swarm::fault::Fault;
use ringtide::swarm::picker::PieceState;

use super::board::Board;
use super::content::{Content, MemoryLease};
use super::host::{Connection, Host, Wish};
use super::ours::Ours;
use super::rng::Rng;
use super::scenario::Scenario;

pub const MILLIS: u64 = 1_000;
pub const SECS: u64 = 1_000 * MILLIS;

/// How often a core looks at its clock.
const TICK: u64 = 100 * MILLIS;
/// HAVE messages a peer and tick.
const HAVES_PER_TICK_MAX: usize = 64;

enum Event {
    Tick,
    Connected { host: usize },
    ToHost { link: usize, bytes: Vec<u8> },
    ToUs { link: usize, bytes: Vec<u8> },
    Eof { link: usize },
    Pump { link: usize },
    Flip { link: usize },
    KeepAlive { link: usize },
    Cancel { link: usize },
    Gain { host: usize },
    Verdict(Box<Claim<MemoryLease>>),
}

struct Timed {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What will happen, in order.
#[derive(Default)]
struct Agenda {
    now: u64,
    events: BinaryHeap<Reverse<Timed>>,
    count: u64,
}

impl Agenda {
    fn after(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse(Timed { at: self.now + delay, number: self.count, event }));
    }
}

/// A connection, both ends.
struct Link {
    host: usize,
    ours: Ours,
    theirs: Connection,
    /// Chokes of the host that are on the agenda.
    flips: u32,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Microseconds to the last verified piece.
    pub took: u64,
    /// Bytes of blocks that came.
    pub received: u64,
    /// The same by host, in the order of the scenario.
    pub received_from: Vec<u64>,
    /// Bytes that sessions say were of no use.
    pub wasted: u64,
    pub faults: u32,
    pub banned: BTreeSet<SocketAddr>,
}

pub struct World {
    epoch: Instant,
    agenda: Agenda,
    rng: Rng,
    scenario: Scenario,
    content: Rc<Content>,
    hosts: Vec<Host>,
    links: BTreeMap<usize, Link>,
    links_made: usize,
    board: Board,
    book: Book,
    verifying: usize,
    report: Report,
    useful: u64,
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let mut rng = Rng::new(scenario.seed ^ 0x5eed);
        let content = Content::new(scenario.geometry, scenario.seed);
        let epoch = Instant::now();
        let mut book = Book::new(&[]);
        let mut hosts = Vec::new();
        for (number, script) in scenario.scripts.iter().enumerate() {
            let addr = SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 6881));
            let source = if rng.chance(500) { Source::Manual } else { Source::Tracker };
            assert!(book.add(addr, source, epoch));
            hosts.push(Host { addr, script: script.clone(), content: Rc::clone(&content) });
        }
        let report = Report {
            took: 0,
            received: 0,
            received_from: vec![0; hosts.len()],
            wasted: 0,
            faults: 0,
            banned: BTreeSet::new(),
        };
        Self {
            epoch,
            agenda: Agenda::default(),
            board: Board::new(&content, rng.next()),
            rng,
            scenario,
            content,
            hosts,
            links: BTreeMap::new(),
            links_made: 0,
            book,
            verifying: 0,
            report,
            useful: 0,
        }
    }

    /// Runs until everything is there.
    pub fn run(mut self) -> Report {
        self.agenda.after(0, Event::Tick);
        for host in 0..self.hosts.len() {
            if let Some(every) = self.hosts[host].script.gains {
                self.agenda.after(every, Event::Gain { host });
            }
        }
        let mut aborts = self.scenario.aborts.clone();
        while !self.board.ledger.is_complete() {
            if aborts.first().is_some_and(|&at| self.agenda.now >= at) {
                aborts.remove(0);
                self.abort();
            }
            self.step();
        }
        self.report.took = self.agenda.now;
        self.finish()
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_micros(self.agenda.now)
    }

    fn step(&mut self) {
        let Reverse(Timed { at, event, .. }) = self.agenda.events.pop().expect("the clock ticks for ever");
        self.agenda.now = at;
        assert!(at <= self.scenario.deadline, "not done after {} s\n{}", at / SECS, self.describe());
        match event {
            Event::Tick => self.tick(),
            Event::Connected { host } => self.connected(host),
            Event::ToHost { link, bytes } => self.deliver_to_host(link, &bytes),
            Event::ToUs { link, bytes } => {
                self.ours(link, |ours, now, board, rng, out| ours.deliver(&bytes, now, board, rng, out));
            }
            Event::Cancel { link } => {
                self.ours(link, |ours, now, board, rng, out| ours.cancel(now, board, rng, out));
            }
            Event::Eof { link } => self.close(link, None),
            Event::Pump { link } => self.pump(link),
            Event::Flip { link } => self.flip(link),
            Event::KeepAlive { link } => {
                if let Some(there) = self.links.get_mut(&link) {
                    there.theirs.keep_alive();
                    self.agenda.after(100 * SECS, Event::KeepAlive { link });
                    self.wake(link);
                }
            }
            Event::Gain { host } => self.gain(host),
            Event::Verdict(claim) => {
                self.verifying -= 1;
                self.board.judge(*claim);
            }
        }
        self.serve_board();
    }

    /// What the verifier's threads and the control thread do.
    fn serve_board(&mut self) {
        for claim in self.board.submitted.drain(..) {
            self.verifying += 1;
            let delay = self.rng.range(10, 5 * MILLIS);
            self.agenda.after(delay, Event::Verdict(Box::new(claim)));
        }
        for addr in std::mem::take(&mut self.board.poisoned) {
            let host = self.hosts.iter().find(|host| host.addr == addr).expect("a host");
            assert!(!host.script.is_truthful(), "{addr} was banned and is truthful: {:?}", host.script);
            self.report.banned.insert(addr);
            for addr in self.book.ban(addr) {
                let host = self.hosts.iter().position(|host| host.addr == addr);
                let links = self.links.iter().filter(|(_, link)| Some(link.host) == host);
                for link in links.map(|(&link, _)| link).collect::<Vec<_>>() {
                    self.close(link, None);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.agenda.after(TICK, Event::Tick);
        let now = self.now();
        while let Some(addr) = self.book.next_dial(now) {
            let host = self.hosts.iter().position(|host| host.addr == addr).expect("a host");
            self.agenda.after(3 * self.hosts[host].script.latency, Event::Connected { host });
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let mut overdue = false;
            self.ours(link, |ours, now, board, _, out| {
                overdue = ours.session.tick(now, board, out)?;
                ours.session.announce_haves(board.ledger.verified(), HAVES_PER_TICK_MAX, out);
                Ok(())
            });
            if overdue {
                self.agenda.after(self.rng.range(0, MILLIS), Event::Cancel { link });
            }
        }
    }

    fn connected(&mut self, host: usize) {
        let now = self.now();
        if !self.book.on_connected(self.hosts[host].addr) {
            return;
        }
        let there = &self.hosts[host];
        let (board, rng) = (&mut self.board, &mut self.rng);
        let mut ours = Ours::new(there.addr, there.geometry(), there.script.fast, now, board, rng);
        let fresh = ours.cancel(now, board, rng, &mut Vec::new());
        assert_eq!(fresh, Ok(()));
        let theirs = Connection::new(there, rng);
        let stays_alive = there.script.is_lawful() || rng.chance(500);
        self.links_made += 1;
        let link = self.links_made;
        self.links.insert(link, Link { host, ours, theirs, flips: 0 });
        if stays_alive {
            self.agenda.after(100 * SECS, Event::KeepAlive { link });
        }
        self.wake(link);
    }

    /// Lets our end of a connection act, sends what it says, and closes it if it says so.
    fn ours(
        &mut self,
        link: usize,
        act: impl FnOnce(&mut Ours, Instant, &mut Board, &mut Rng, &mut Vec<u8>) -> Result<(), Fault>,
    ) {
        let now = self.now();
        let Some(there) = self.links.get_mut(&link) else { return };
        let mut out = Vec::new();
        let acted = act(&mut there.ours, now, &mut self.board, &mut self.rng, &mut out);
        if !out.is_empty() {
            let latency = self.hosts[there.host].script.latency;
            self.agenda.after(latency, Event::ToHost { link, bytes: out });
        }
        if let Err(fault) = acted {
            self.close(link, Some(fault));
        }
    }

    fn deliver_to_host(&mut self, link: usize, bytes: &[u8]) {
        let Some(there) = self.links.get_mut(&link) else { return };
        let host = &self.hosts[there.host];
        if there.theirs.hear(bytes, host, &self.board, &mut self.rng) == Wish::Unchoke {
            there.flips += 1;
            self.agenda.after(host.script.unchoke_after, Event::Flip { link });
        }
        self.wake(link);
    }

    fn flip(&mut self, link: usize) {
        let Some(there) = self.links.get_mut(&link) else { return };
        let host = &self.hosts[there.host];
        there.flips -= 1;
        there.theirs.flip(host);
        if let Some((after, again)) = host.script.chokes
            && there.flips == 0
        {
            there.flips += 1;
            let wait = if there.theirs.choking { again } else { after };
            self.agenda.after(self.rng.range(wait / 2, wait * 2), Event::Flip { link });
        }
        self.wake(link);
    }

    fn gain(&mut self, host: usize) {
        let there = &mut self.hosts[host];
        let missing: Vec<_> =
            there.geometry().pieces().filter(|&piece| !there.script.pieces.get(piece)).collect();
        if missing.is_empty() {
            return;
        }
        let piece = missing[self.rng.below(missing.len())];
        there.script.pieces.set(piece);
        if let Some(every) = there.script.gains {
            self.agenda.after(every, Event::Gain { host });
        }
        let links = self.links.iter_mut().filter(|(_, link)| link.host == host);
        let told: Vec<usize> = links
            .map(|(&number, link)| {
                link.theirs.gain(piece.get());
                number
            })
            .collect();
        for link in told {
            self.wake(link);
        }
    }

    /// Starts sending, unless the host does so already.
    fn wake(&mut self, link: usize) {
        let Some(there) = self.links.get_mut(&link) else { return };
        if !there.theirs.pumping && there.theirs.is_busy(&self.hosts[there.host]) {
            there.theirs.pumping = true;
            self.agenda.after(0, Event::Pump { link });
        }
    }

    /// Sends for a few milliseconds.
    fn pump(&mut self, link: usize) {
        let Some(there) = self.links.get_mut(&link) else { return };
        let host = &self.hosts[there.host];
        let script = &host.script;
        there.theirs.fill(host, &mut self.rng, &mut self.board.forgeries);
        let quantum = (32 * 1024 * SECS / script.rate).clamp(2 * MILLIS, 50 * MILLIS);
        let mut len = (script.rate * quantum / SECS) as usize;
        let ends = script.dies_after.map(|after| after.saturating_sub(there.theirs.sent) as usize);
        len = len.min(ends.unwrap_or(usize::MAX)).min(there.theirs.wire.len());
        let bytes: Vec<u8> = there.theirs.wire.drain(..len).collect();
        there.theirs.sent += len as u64;
        if len > 0 {
            self.agenda.after(script.latency, Event::ToUs { link, bytes });
        }
        if ends == Some(len) && script.dies_after.is_some() {
            return self.agenda.after(script.latency, Event::Eof { link });
        }
        there.theirs.pumping = there.theirs.is_busy(host);
        if there.theirs.pumping {
            self.agenda.after((len as u64 * SECS / script.rate).max(100), Event::Pump { link });
        }
    }

    fn close(&mut self, link: usize, fault: Option<Fault>) {
        let Some(mut there) = self.links.remove(&link) else { return };
        there.ours.close(&mut self.board);
        let script = &self.hosts[there.host].script;
        if let Some(fault) = fault {
            self.report.faults += 1;
            assert!(!script.is_lawful(), "{fault:?} of a lawful host: {script:?}\n{}", self.describe());
        }
        let tally = there.ours.session.tally();
        self.report.wasted += tally.wasted;
        self.report.received += there.ours.body_bytes;
        self.report.received_from[there.host] += there.ours.body_bytes;
        self.useful += tally.useful;
        let outcome = if tally.useful > 0 { Outcome::Worked } else { Outcome::Failed };
        let (addr, now) = (self.hosts[there.host].addr, self.now());
        self.book.on_closed(addr, outcome, now);
    }

    /// Closes everything, waits for the verifier, and looks whether anything was lost.
    fn abort(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(link, None);
        }
        self.serve_board();
        let events = std::mem::take(&mut self.agenda.events);
        for Reverse(timed) in events.into_sorted_vec().into_iter().rev() {
            match timed.event {
                Event::Verdict(claim) => {
                    self.verifying -= 1;
                    self.board.judge(*claim);
                }
                _ => self.agenda.events.push(Reverse(timed)),
            }
        }
        assert_eq!(self.verifying, 0);
        self.serve_board();
        self.board.check_nothing_leaked();
    }

    fn finish(mut self) -> Report {
        self.abort();
        let geometry = self.content.geometry;
        let picker = self.board.ledger.picker();
        assert!(geometry.pieces().all(|piece| picker.state(piece) == PieceState::Have));
        assert!(geometry.pieces().all(|piece| picker.availability(piece) == 0), "a peer is still counted");
        assert!(self.board.memory.is(&self.content), "the bytes are others");
        assert_eq!(self.board.memory.leases_out(), 0);
        for host in self.hosts.iter().filter(|host| host.script.corrupts == 1_000) {
            let caught = self.board.caught.contains(&host.addr);
            assert!(!caught || self.report.banned.contains(&host.addr), "{} lied and went free", host.addr);
        }
        self.report
    }

    /// What a failure should show.
    fn describe(&self) -> String {
        let picker = self.board.ledger.picker();
        let mut text = format!(
            "{} us, {} of {} pieces missing, {} free, {} half-done\n",
            self.agenda.now,
            picker.remaining(),
            self.content.geometry.piece_count(),
            picker.free(),
            self.board.ledger.orphan_count(),
        );
        for link in self.links.values() {
            let host = &self.hosts[link.host];
            text += &format!("{}: {:?}\nreceived by {:?}\n", host.addr, host.script, link.ours.session);
        }
        text
    }
}
