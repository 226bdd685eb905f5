//! The control thread: whom to dial, what to tell the trackers, when it is over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::callers::Callers;
use super::patience;
use super::resume::{Known, Recorder};
use super::search::{Input, Reach, Search};
use super::stream::Stream;
use super::{
    Interrupt, Observer, Request, Run, Snapshot, Summary, Wait, bytes_of, check_interrupt, fall_back, total,
    wanted,
};
use crate::discovery::tracker::Totals;
use crate::error::{Error, Progress};
use crate::net::backend::Backend;
use crate::net::close::CloseReason;
use crate::net::core::Core;
use crate::net::listener::{self, Caller};
use crate::net::shared::{Event, Greeting, Shared};
use crate::os::{clock, limits, random, spare};
use crate::swarm::bitfield::Bitfield;
use crate::swarm::book::Outcome;
use crate::swarm::ledger::Ledger;
use crate::swarm::picker::Picker;
use crate::wire::handshake;
use crate::wire::pex::{Contact, Flags};

/// What our handshake announces.
const FEATURES: u64 = handshake::EXTENSION | handshake::FAST;
/// How often progress is told and timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections at a time, those being made included.
const CONNECTIONS_MAX: usize = 320;
/// Connections being made at a time.
const DIALING_MAX: usize = 128;
/// A connection that is not there by then is given up, and one that is there without a handshake so long after that.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while more addresses wait for their first try than there is room for: one packet or two may get lost.
const DIAL_TIMEOUT_CROWDED: Duration = Duration::from_secs(4);
/// Peers that are asked at a time to make room for addresses that were not tried.
const PLACES_WANTED_MAX: usize = 16;
/// Somebody who has been connected for so long is more than one that is thrown out at once, again and again.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// When the system has no more of what a connection takes, nobody is dialed for so long.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
/// How often one more connection is tried after that.
const SHORTAGE_OVER: Duration = Duration::from_secs(10);
/// How often the cores get to know whom peers may be told of.
const CONTACTS_EVERY: Duration = Duration::from_secs(10);

/// Runs the download of the pieces that are neither in `have` nor `known`. Returns the bytes that are there at the end,
/// however it ends. The search for peers goes on afterwards.
pub(super) fn run(
    run: &Run<'_>,
    search: &mut Search,
    have: &Bitfield,
    known: &Known,
    observer: &mut dyn Observer,
) -> (u64, Result<Summary, Error>) {
    let kept = bytes_of(run.request, |piece| have.get(piece) || known.provisional.get(piece));
    let mut control = match Control::start(run, search, have, known, kept) {
        Ok(control) => control,
        Err(error) => {
            restore_untouched(run, kept);
            return (kept, Err(error));
        }
    };
    let mut result = control.run(run.interrupt, observer);
    control.stop();
    // Only now: pieces are verified, and waste is counted, until the last connection has ended.
    let (done, summary) = (control.progress().done, control.summary());
    let mut recorder = control.recorder.take();
    if let Some(recorder) = &mut recorder {
        recorder.stop(run.request.sync && result.is_ok());
    }
    let trouble = control.part(observer);
    if observer.wants_peers(true) {
        observer.peers(&control.search.roster.table());
    }
    // After trouble nobody knows what has become of what was verified: the record stays open, and its pieces are
    // hashed.
    let is_sound = trouble.is_none() && !matches!(result, Err(Error::Disk(_) | Error::Panicked));
    if result.is_ok()
        && let Some(trouble) = trouble
    {
        result = Err(trouble);
    }
    if result.is_err() {
        restore_untouched(run, done);
        if let Some(recorder) = recorder
            && is_sound
            && done > 0
        {
            recorder.close();
        }
    }
    (done, result.map(|()| summary))
}

/// Gives files of others that nothing was put into their old length, where the output stays. Before the record is
/// closed, which knows their lengths.
fn restore_untouched(run: &Run<'_>, done: u64) {
    if done > 0
        && let Err(error) = run.output.restore_untouched()
    {
        tracing::warn!("cannot clean up: {error}");
    }
}

struct Control<'a> {
    request: &'a Request,
    search: &'a mut Search,
    /// Which pass of the search this is.
    pass: u32,
    /// What the cores run on.
    backend: Backend,
    shared: Arc<Shared>,
    cores: Vec<Core>,
    /// Cores to start at most; fewer than asked for where the system gives no more.
    cores_max: usize,
    /// On which core each peer lives.
    homes: HashMap<SocketAddr, usize>,
    callers: Callers,
    places: Places,
    /// When the cores are told next whom peers may be told of; never where there is no peer exchange.
    contacts_at: Option<Instant>,
    recorder: Option<Recorder>,
    /// Where verified pieces go in order, if anywhere.
    stream_to: Option<&'a RefCell<Stream>>,
    kept: u64,
    complete: bool,
    /// So many cores have yet to tell how their peers stand, for a table that is wanted.
    census: Option<usize>,
    started: Instant,
    /// Bytes of blocks that came as a whole and were missing, and when more were noticed.
    useful: u64,
    last_block: Instant,
    /// Since when somebody has been connected without a gap.
    connected_since: Option<Instant>,
    /// When last somebody was connected who stayed.
    last_connected: Instant,
}

/// How many connections there may be, which is less where the system has no more of what they take.
struct Places {
    count: usize,
    /// When the count changes next, or may.
    grows_at: Instant,
    /// Until when nobody is dialed.
    short_until: Instant,
}

impl Places {
    fn new(now: Instant) -> Self {
        Self { count: limits::connections(CONNECTIONS_MAX), grows_at: now, short_until: now }
    }

    /// With so many connections there was nothing left for another.
    fn on_shortage(&mut self, connected: usize, now: Instant) {
        self.count = self.count.min(connected).max(1);
        self.short_until = now + SHORTAGE_PAUSE;
        self.grows_at = now + SHORTAGE_OVER;
    }

    fn are_short(&self, now: Instant) -> bool {
        now < self.short_until
    }

    /// Others may have given back what was missing.
    fn grow(&mut self, now: Instant) {
        if now >= self.grows_at {
            self.count = (self.count + 1).min(limits::connections(CONNECTIONS_MAX));
            self.grows_at = now + SHORTAGE_OVER;
        }
    }
}

impl<'a> Control<'a> {
    fn start(
        run: &'a Run<'a>,
        search: &'a mut Search,
        have: &Bitfield,
        known: &Known,
        kept: u64,
    ) -> Result<Self, Error> {
        let (request, backend) = (run.request, run.backend);
        let metainfo = &request.metainfo;
        let geometry = metainfo.geometry;
        let mut missing = Bitfield::new(geometry.piece_count());
        for piece in wanted(request).filter(|&piece| !have.get(piece) && !known.provisional.get(piece)) {
            missing.set(piece);
        }
        let mut there = have.clone();
        there.set_all(&known.provisional);
        let picker = Picker::new(geometry, &missing, random::number());
        let picker = if run.stream.is_some() { picker.in_order() } else { picker };
        let ledger = Ledger::new(geometry, picker).keeping(there);
        let complete = ledger.is_complete();
        let (pass, outbox) = (search.next_pass(), search.outbox());
        let events = Box::new(move |event| drop(outbox.send(Input::Net(pass, event))));
        let (metainfo, output) = (Arc::clone(metainfo), Arc::clone(&run.output));
        let features = if search.reach.plain { handshake::EXTENSION } else { FEATURES };
        let Search { peer_id, reach: Reach { pex, .. }, .. } = *search;
        let greeting = Greeting { peer_id, port: search.port(), welcome: search.welcome(), features, pex };
        let shared = Shared::new(metainfo, output, ledger, greeting, request.threads, events)
            .map_err(Error::Thread)?;
        let recorder = run.notes.clone().filter(|_| !complete).map(|notes| {
            let (output, shared) = (Arc::clone(&run.output), Arc::clone(&shared));
            Recorder::new(notes, request.record_every, known, have, output, shared)
        });
        let now = clock::now();
        let contacts_at = pex.then_some(now);
        let callers = Callers::new(search.listener());
        if !complete {
            let (total, shared) = (total(request), Arc::clone(&shared));
            search.count_by(Arc::new(move || {
                let verified = shared.counters().verified.load(Ordering::Relaxed);
                Totals { uploaded: 0, downloaded: verified, left: total.saturating_sub(kept + verified) }
            }));
        }
        Ok(Self {
            request,
            search,
            pass,
            backend,
            shared,
            cores: Vec::new(),
            cores_max: request.threads,
            homes: HashMap::new(),
            callers,
            places: Places::new(now),
            contacts_at,
            recorder,
            stream_to: run.stream.as_ref(),
            kept,
            complete,
            census: None,
            started: now,
            useful: 0,
            last_block: now,
            connected_since: None,
            last_connected: now,
        })
    }

    /// Has peers looked for, and lets in those who dial us. Before that the first core is there: neither must take the
    /// descriptors that it needs to start.
    fn open_door(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        if self.complete {
            return Ok(());
        }
        self.home(observer)?;
        self.search.begin(&self.request.metainfo.tiers)?;
        if self.shared.port().is_some() {
            let outbox = self.search.outbox();
            self.callers.open(Box::new(move |caller| drop(outbox.send(Input::Caller(caller)))));
        }
        Ok(())
    }

    fn run(&mut self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<(), Error> {
        self.open_door(observer)?;
        while !self.complete {
            check_interrupt(interrupt, self.progress())?;
            self.dial(observer)?;
            let mut wait = TICK;
            while let Some(input) = self.search.next(wait) {
                self.take(input, observer)?;
                wait = Duration::ZERO;
            }
            self.record();
            self.stream()?;
            self.tell_contacts();
            observer.downloading(&self.snapshot());
            self.show_peers(observer);
            self.check_patience()?;
        }
        observer.downloading(&self.snapshot());
        Ok(())
    }

    fn stream(&self) -> Result<(), Error> {
        let stream = self.stream_to.map(RefCell::borrow_mut);
        stream.map_or(Ok(()), |mut stream| stream.advance(self.request, &self.shared))
    }

    fn record(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let (outbox, pass) = (self.search.outbox(), self.pass);
            recorder.tick(clock::now(), || {
                Box::new(move |error| drop(outbox.send(Input::Net(pass, Event::Disk(error)))))
            });
        }
    }

    /// Shows the peers when that is wanted, and all cores have told.
    fn show_peers(&mut self, observer: &mut dyn Observer) {
        if observer.wants_peers(false) && self.census.is_none() {
            self.cores.iter().for_each(Core::take_census);
            self.census = Some(self.cores.len());
        }
        if self.census == Some(0) {
            self.census = None;
            observer.peers(&self.search.roster.table());
        }
    }

    /// Tells the cores whom peers may be told of: those that were dialed, as they listen there.
    fn tell_contacts(&mut self) {
        let now = clock::now();
        if self.contacts_at.is_some_and(|at| now >= at) {
            self.contacts_at = Some(now + CONTACTS_EVERY);
            let contacts = self.search.book.dialed().map(|addr| Contact { addr, flags: Flags::REACHABLE });
            self.shared.set_contacts(contacts.collect());
        }
    }

    /// Takes in what has come until the last connection ended. Those that had not ended by themselves are for the next
    /// pass to dial again. Returns what went wrong that nobody has looked at yet.
    fn part(&mut self, observer: &mut dyn Observer) -> Option<Error> {
        let mut trouble = None;
        while let Some(input) = self.search.next(Duration::ZERO) {
            let late = match input {
                Input::Net(pass, Event::Poisoned(addr)) if pass == self.pass => {
                    self.search.ban(addr);
                    continue;
                }
                Input::Net(pass, Event::Closed { addr, reason, .. }) if pass == self.pass => {
                    self.search.roster.closed(addr, &reason);
                    None
                }
                Input::Net(pass, event @ (Event::Left(_) | Event::Disk(_) | Event::Panicked))
                    if pass == self.pass =>
                {
                    self.on_event(event).err()
                }
                Input::Found(found) => {
                    self.search.on_found(found, observer);
                    None
                }
                Input::Net(..) | Input::Metadata(_) | Input::Caller(_) => None,
            };
            trouble = trouble.or(late);
        }
        let now = clock::now();
        for (addr, _) in self.homes.drain() {
            self.search.book.on_closed(addr, Outcome::Again, now);
        }
        trouble
    }

    /// Ends all connections.
    fn stop(&mut self) {
        self.callers.shut();
        for core in &self.cores {
            core.stop();
        }
        for core in self.cores.drain(..) {
            core.join();
        }
        self.shared.settle();
    }

    fn take(&mut self, input: Input, observer: &mut dyn Observer) -> Result<(), Error> {
        match input {
            Input::Net(pass, event) if pass == self.pass => self.on_event(event),
            // What is left of a pass, or of the search for the metadata, that is over.
            Input::Net(..) | Input::Metadata(_) => Ok(()),
            Input::Caller(caller) => self.on_caller(caller, observer),
            Input::Found(found) => {
                if self.search.on_found(found, observer) {
                    self.last_connected = clock::now();
                }
                Ok(())
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Connected(addr) => {
                self.callers.greeted(addr);
                if !self.search.book.on_connected(addr) {
                    self.close(addr, CloseReason::Crowded);
                }
            }
            Event::Closed { addr, reason, tally } => {
                self.homes.remove(&addr);
                let is_stranger = self.callers.left(addr);
                if reason.is_shortage() {
                    self.places.on_shortage(self.homes.len(), clock::now());
                }
                if !is_stranger {
                    self.search.on_closed(addr, reason, tally.useful > 0);
                }
            }
            Event::Left(report) => self.search.roster.report(report),
            Event::Census(reports) => {
                reports.into_iter().for_each(|report| self.search.roster.report(report));
                self.census = self.census.map(|due| due.saturating_sub(1));
            }
            Event::Poisoned(addr) => {
                for addr in self.search.ban(addr) {
                    self.close(addr, CloseReason::Poisoned);
                }
            }
            Event::Pex { from, exchange } => self.search.on_pex(from, &exchange),
            Event::OurAddress { from, ours } => self.search.book.on_own_address(from, ours),
            Event::DhtNode(node) => self.search.on_dht_node(node),
            Event::Disk(error) => return Err(Error::Disk(error)),
            Event::Complete => self.complete = true,
            Event::Panicked => return Err(Error::Panicked),
        }
        Ok(())
    }

    fn close(&self, addr: SocketAddr, reason: CloseReason) {
        if let Some(&home) = self.homes.get(&addr) {
            self.cores[home].close(addr, reason);
        }
    }

    /// Gives one who has dialed us to the core with the fewest peers, if he may stay.
    fn on_caller(&mut self, caller: Caller, observer: &mut dyn Observer) -> Result<(), Error> {
        let addr = caller.addr;
        let is_full = self.homes.len() >= self.places.count;
        if is_full || self.homes.contains_key(&addr) || self.search.book.is_banned(addr) {
            listener::reset(&caller.stream);
            return Ok(());
        }
        let home = self.home(observer)?;
        self.homes.insert(addr, home);
        let stream = self.callers.admit(caller, clock::now());
        self.cores[home].adopt(stream, addr);
        Ok(())
    }

    /// Dials as many peers as there is room for, on the core with the fewest.
    fn dial(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let now = clock::now();
        // Before others take what an open of the output has given back.
        spare::refill();
        self.places.grow(now);
        while self.homes.len() < self.places.count
            && !self.places.are_short(now)
            && self.search.book.dialing_count() < DIALING_MAX
        {
            let Some(addr) = self.search.book.next_dial(now) else { break };
            let home = self.home(observer)?;
            self.homes.insert(addr, home);
            let is_crowded =
                self.search.book.untried_count() + self.search.book.dialing_count() > DIALING_MAX;
            let timeout = if is_crowded { DIAL_TIMEOUT_CROWDED } else { DIAL_TIMEOUT };
            self.cores[home].dial(addr, self.search.encryption(addr), timeout);
        }
        // Peers that only keep their place must not keep out those that would serve.
        let is_full = self.homes.len() >= self.places.count;
        let wanted = if is_full { self.search.book.untried_count().min(PLACES_WANTED_MAX) } else { 0 };
        let wanted = wanted.max(usize::from(self.callers.is_full()));
        self.shared.want_places(wanted);
        for addr in self.callers.overdue(now) {
            self.close(addr, CloseReason::HandshakeTimeout);
        }
        Ok(())
    }

    /// The core with the fewest peers; a new one while each has some and more are allowed.
    fn home(&mut self, observer: &mut dyn Observer) -> Result<usize, Error> {
        let mut load = vec![0; self.cores.len()];
        for &home in self.homes.values() {
            load[home] += 1;
        }
        let least = (0..load.len()).min_by_key(|&core| load[core]);
        match least {
            Some(core) if load[core] == 0 || self.cores.len() >= self.cores_max => Ok(core),
            _ => {
                let index = self.cores.len();
                match (self.start_core(index, observer), least) {
                    (Ok(core), _) => {
                        self.cores.push(core);
                        Ok(index)
                    }
                    (Err(error), Some(core)) => {
                        tracing::warn!("no further core: {error}");
                        self.cores_max = self.cores.len();
                        Ok(core)
                    }
                    (Err(error), None) => Err(match self.backend {
                        Backend::Uring if !is_want_of_threads(&error) => Error::Uring(error),
                        Backend::Uring | Backend::Epoll => Error::Thread(error),
                    }),
                }
            }
        }
    }

    /// Starts a core. The first may still find that there is no ring: others take of what the user may lock, too.
    fn start_core(&mut self, index: usize, observer: &mut dyn Observer) -> io::Result<Core> {
        match Core::start(index, self.backend, Arc::clone(&self.shared)) {
            Err(error)
                if index == 0
                    && self.backend == Backend::Uring
                    && self.request.backend.is_none()
                    && !is_want_of_threads(&error) =>
            {
                self.backend = fall_back(error, observer);
                Core::start(index, self.backend, Arc::clone(&self.shared))
            }
            result => result,
        }
    }

    /// Gives up when nobody is left to ask, or when nothing has come for too long.
    fn check_patience(&mut self) -> Result<(), Error> {
        let now = clock::now();
        self.look_for_news(now);
        let wait = self.wait(now);
        if self.search.book.connected_count() > 0 {
            return match wait.limit {
                Some(after) if wait.is_over() => Err(Error::Stalled { progress: self.progress(), after }),
                _ => Ok(()),
            };
        }
        self.search.request_more();
        let is_over = self.request.patience.is_default() && self.is_hopeless(now);
        if is_over || wait.is_over() {
            let progress = self.progress();
            return Err(self
                .search
                .nobody()
                .map_or_else(|error| error, |detail| Error::NoPeers { progress, detail }));
        }
        Ok(())
    }

    /// Notes whether something came, and whether somebody is there.
    fn look_for_news(&mut self, now: Instant) {
        let useful = self.shared.counters().useful.load(Ordering::Relaxed);
        if useful > self.useful {
            self.useful = useful;
            self.last_block = now;
        }
        if self.search.book.connected_count() == 0 {
            self.connected_since = None;
        } else if now.duration_since(*self.connected_since.get_or_insert(now)) >= SETTLED_AFTER {
            self.last_connected = now;
        }
    }

    /// How long nothing has come, and how long that may be: the user's wish, or what suits the case.
    fn wait(&self, now: Instant) -> Wait {
        let since = match self.search.book.connected_count() {
            0 => self.last_connected.max(self.last_block),
            _ => self.last_block,
        };
        // Whom only the user has named, and nobody has met, is a wrong address as a rule.
        let may_come = self.may_return(now) && (self.useful > 0 || !self.search.is_dry());
        let is_promising = self.search.book.connected_count() > 0 || may_come;
        let default = if is_promising { patience::DEFAULT } else { patience::DEFAULT_NOBODY };
        let limit = self.request.patience.limit(default);
        Wait { lasted: now.saturating_duration_since(since), limit }
    }

    /// Whether there is an address that waiting may help with: one that is not banned and not of another torrent.
    fn may_return(&self, now: Instant) -> bool {
        self.search.book.dialing_count() > 0 || self.search.book.earliest_retry(now).is_some()
    }

    /// Whether waiting is of no use, with nobody connected: no source has ever answered, and of the addresses that are
    /// known none is left (or, as long as nothing has come, none that has not failed several times).
    fn is_hopeless(&self, now: Instant) -> bool {
        let nobody = if self.useful > 0 { !self.may_return(now) } else { self.search.book.is_exhausted() };
        nobody && !self.callers.has_strangers() && self.search.is_dry()
    }

    fn snapshot(&self) -> Snapshot {
        let Progress { done, total } = self.progress();
        let counters = self.shared.counters();
        Snapshot {
            done,
            total,
            kept: self.kept,
            received: counters.received.load(Ordering::Relaxed),
            peers: self.search.book.connected_count(),
            sending: counters.sending.load(Ordering::Relaxed),
            is_endgame: self.shared.is_endgame(),
            sources: self.search.sources(),
            wait: self.wait(clock::now()),
        }
    }

    fn progress(&self) -> Progress {
        let verified = self.shared.counters().verified.load(Ordering::Relaxed);
        Progress { done: self.kept + verified, total: total(self.request) }
    }

    fn summary(&self) -> Summary {
        let counters = self.shared.counters();
        Summary {
            total: total(self.request),
            kept: self.kept,
            wasted: counters.wasted.load(Ordering::Relaxed),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            receives: counters.receives.load(Ordering::Relaxed),
            backend: self.backend,
            fetching: clock::now().saturating_duration_since(self.started),
            ..Summary::default()
        }
    }
}

/// Whether a core could not start because the user may have no more threads, which has nothing to do with its backend.
fn is_want_of_threads(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_costs_places_for_a_while() {
        let start = Instant::now();
        let mut places = Places::new(start);
        let all = places.count;
        assert!(!places.are_short(start));
        places.on_shortage(7, start);
        assert_eq!((places.count, places.are_short(start)), (7, true));
        places.grow(start + SHORTAGE_OVER / 2);
        assert_eq!((places.count, places.are_short(start + SHORTAGE_PAUSE)), (7, false));
        places.on_shortage(0, start);
        assert_eq!(places.count, 1, "one is always tried");
        let ever = (1..=all as u32 + 1).map(|n| start + n * SHORTAGE_OVER);
        ever.for_each(|now| places.grow(now));
        assert_eq!(places.count, all);
    }
}
