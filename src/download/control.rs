//! The control thread: whom to dial, what to tell the trackers, when it is over.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::callers::Callers;
use super::resume::{Known, Recorder};
use super::{
    Interrupt, Observer, Request, Run, Snapshot, Summary, bytes_of, check_interrupt, fall_back, total, wanted,
};
use crate::discovery::announcer::{AnnounceEvent, Announcer, Farewell};
use crate::discovery::http::TrackerError;
use crate::discovery::tracker::Totals;
use crate::error::{Error, Progress};
use crate::net::backend::Backend;
use crate::net::close::CloseReason;
use crate::net::core::Core;
use crate::net::listener::{self, Caller};
use crate::net::shared::{Event, Shared};
use crate::swarm::bitfield::Bitfield;
use crate::swarm::book::{Book, Outcome, Source};
use crate::swarm::ledger::Ledger;
use crate::swarm::picker::Picker;
use crate::swarm::session::Tally;

/// How often progress is told and timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections at a time, those being made included.
const CONNECTIONS_MAX: usize = 320;
/// Connections being made at a time.
const DIALING_MAX: usize = 64;
/// A connection that is not there by then is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while more addresses wait for their first try than there is room for: one packet or two may get lost.
const DIAL_TIMEOUT_CROWDED: Duration = Duration::from_secs(4);
/// Peers that are asked at a time to make room for addresses that were not tried.
const PLACES_WANTED_MAX: usize = 16;
/// Somebody who has been connected for so long is more than one that is thrown out at once, again and again.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// With nobody connected, a download that has received nothing yet gives up after so long.
const PATIENCE_FIRST: Duration = Duration::from_secs(20);
/// The same while there are addresses that were not tried: thousands of dead ones take about that long.
const PATIENCE_UNTRIED: Duration = Duration::from_secs(180);
/// With nobody connected, a download that has received something gives up after so long.
const PATIENCE_LOST: Duration = Duration::from_secs(60);
/// With somebody connected, a download to which nothing comes gives up after so long.
const PATIENCE_STALLED: Duration = Duration::from_secs(300);

/// What reaches the control thread.
enum Input {
    Net(Event),
    Caller(Caller),
    Announce(AnnounceEvent),
}

/// Runs the download of the pieces that are neither in `have` nor `known`. Returns the bytes that are there at the end,
/// however it ends.
pub(super) fn run(
    run: &Run<'_>,
    have: &Bitfield,
    known: &Known,
    observer: &mut dyn Observer,
) -> (u64, Result<(Summary, Option<Farewell>), Error>) {
    let kept = bytes_of(run.request, |piece| have.get(piece) || known.provisional.get(piece));
    let mut control = match Control::start(run, have, known, kept) {
        Ok(control) => control,
        Err(error) => return (kept, Err(error)),
    };
    let mut result = control.run(run.interrupt, observer);
    // What is only taken to be there may turn out not to be.
    let completes = kept < total(run.request) && known.provisional.count_ones() == 0;
    let farewell = control.stop(result.is_ok() && completes);
    // Only now: pieces are verified, and waste is counted, until the last connection has ended.
    let (done, summary) = (control.progress().done, control.summary());
    let mut recorder = control.recorder.take();
    if let Some(recorder) = recorder.as_mut().filter(|_| result.is_ok()) {
        recorder.stop(run.request.sync);
    }
    let trouble = control.late_trouble();
    if let Some(recorder) = recorder {
        match (&result, &trouble) {
            // Who knows what has become of what was verified: the record stays open, and its pieces are hashed.
            (Ok(()) | Err(Error::Disk(_) | Error::Panicked), _) | (_, Some(_)) => recorder.drop_open(),
            _ if done == 0 => recorder.drop_open(),
            _ => recorder.close(),
        }
    }
    if result.is_ok()
        && let Some(trouble) = trouble
    {
        result = Err(trouble);
    }
    if let Err(error) = result {
        if let Some(farewell) = farewell {
            farewell.wait();
        }
        return (done, Err(error));
    }
    (done, Ok((summary, farewell)))
}

struct Control<'a> {
    request: &'a Request,
    /// What the cores run on.
    backend: Backend,
    shared: Arc<Shared>,
    cores: Vec<Core>,
    /// Cores to start at most; fewer than asked for where the system gives no more.
    cores_max: usize,
    /// On which core each peer lives.
    homes: HashMap<SocketAddr, usize>,
    book: Book,
    callers: Callers,
    announcer: Option<Announcer>,
    recorder: Option<Recorder>,
    outbox: mpsc::Sender<Input>,
    inbox: Receiver<Input>,
    kept: u64,
    complete: bool,
    /// What went wrong last at each tracker since one answered, and whether all of them failed.
    tracker_trouble: Vec<(String, TrackerError)>,
    trackers_failed: bool,
    tracker_answered: bool,
    last_trouble: Option<(SocketAddr, CloseReason)>,
    /// Blocks that have come, and when the last was noticed.
    blocks: u64,
    last_block: Instant,
    /// Since when somebody has been connected without a gap.
    connected_since: Option<Instant>,
    /// When last somebody was connected who stayed.
    last_connected: Instant,
}

impl<'a> Control<'a> {
    fn start(run: &Run<'a>, have: &Bitfield, known: &Known, kept: u64) -> Result<Self, Error> {
        let (request, backend) = (run.request, run.backend);
        let metainfo = &request.metainfo;
        let geometry = metainfo.geometry;
        let mut missing = Bitfield::new(geometry.piece_count());
        for piece in wanted(request).filter(|&piece| !have.get(piece) && !known.provisional.get(piece)) {
            missing.set(piece);
        }
        let ledger = Ledger::new(geometry, Picker::new(geometry, &missing, super::random()));
        let complete = ledger.is_complete();
        let (outbox, inbox) = mpsc::channel();
        let net = outbox.clone();
        let events = Box::new(move |event| drop(net.send(Input::Net(event))));
        let peer_id = super::peer_id();
        let (metainfo, output) = (Arc::clone(metainfo), Arc::clone(&run.output));
        let port = run.listener.as_ref().map(|listener| listener.port());
        let shared = Shared::new(metainfo, output, ledger, peer_id, port, request.threads, events)
            .map_err(Error::Thread)?;
        let recorder = run.notes.clone().filter(|_| !complete).map(|notes| {
            let (output, shared) = (Arc::clone(&run.output), Arc::clone(&shared));
            Recorder::new(notes, request.record_every, known, have, output, shared)
        });
        let now = Instant::now();
        let mut book = Book::new(&super::own_addresses(port));
        for &peer in &request.peers {
            book.add(peer, Source::Manual, now);
        }
        let mut control = Self {
            request,
            backend,
            shared,
            cores: Vec::new(),
            cores_max: request.threads,
            homes: HashMap::new(),
            book,
            callers: Callers::new(run.listener.clone()),
            announcer: None,
            recorder,
            outbox: outbox.clone(),
            inbox,
            kept,
            complete,
            tracker_trouble: Vec::new(),
            trackers_failed: false,
            tracker_answered: false,
            last_trouble: None,
            blocks: 0,
            last_block: now,
            connected_since: None,
            last_connected: now,
        };
        if !complete {
            control.start_announcer(peer_id, outbox)?;
        }
        Ok(control)
    }

    fn start_announcer(&mut self, peer_id: [u8; 20], outbox: mpsc::Sender<Input>) -> Result<(), Error> {
        let config = super::announce_config(&self.request.metainfo, peer_id, self.shared.port());
        let (shared, total, kept) = (Arc::clone(&self.shared), total(self.request), self.kept);
        let totals = move || {
            let verified = shared.counters().verified.load(Ordering::Relaxed);
            Totals { uploaded: 0, downloaded: verified, left: total.saturating_sub(kept + verified) }
        };
        let events = Box::new(move |event| drop(outbox.send(Input::Announce(event))));
        self.announcer = Some(Announcer::start(config, Arc::new(totals), events).map_err(Error::Thread)?);
        Ok(())
    }

    /// Lets in those who dial us. Before that the first core is there: strangers must not take what it needs to start.
    fn open_door(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        if self.shared.port().is_some() && !self.complete {
            self.home(observer)?;
            let outbox = self.outbox.clone();
            self.callers.open(Box::new(move |caller| drop(outbox.send(Input::Caller(caller)))));
        }
        Ok(())
    }

    fn run(&mut self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<(), Error> {
        self.open_door(observer)?;
        while !self.complete {
            check_interrupt(interrupt, self.progress())?;
            self.dial(observer)?;
            match self.inbox.recv_timeout(TICK) {
                Ok(input) => {
                    self.take(input, observer)?;
                    while let Ok(input) = self.inbox.try_recv() {
                        self.take(input, observer)?;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.record();
            observer.downloading(&self.snapshot());
            self.check_patience()?;
        }
        observer.downloading(&self.snapshot());
        Ok(())
    }

    fn record(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let outbox = &self.outbox;
            recorder.tick(Instant::now(), || {
                let outbox = outbox.clone();
                Box::new(move |error| drop(outbox.send(Input::Net(Event::Disk(error)))))
            });
        }
    }

    /// What went wrong that nobody has looked at yet.
    fn late_trouble(&self) -> Option<Error> {
        self.inbox.try_iter().find_map(|input| match input {
            Input::Net(Event::Disk(error)) => Some(Error::Disk(error)),
            Input::Net(Event::Panicked) => Some(Error::Panicked),
            _ => None,
        })
    }

    /// Ends all connections and starts to say good-bye to the trackers.
    fn stop(&mut self, completed: bool) -> Option<Farewell> {
        self.callers.shut();
        for core in &self.cores {
            core.stop();
        }
        let farewell = self.announcer.take().map(|announcer| announcer.finish(completed));
        for core in self.cores.drain(..) {
            core.join();
        }
        self.shared.settle();
        farewell
    }

    fn take(&mut self, input: Input, observer: &mut dyn Observer) -> Result<(), Error> {
        match input {
            Input::Net(Event::Connected(addr)) => {
                self.callers.greeted(addr);
                if !self.book.on_connected(addr) {
                    self.close(addr, CloseReason::Crowded);
                }
            }
            Input::Caller(caller) => self.on_caller(caller, observer)?,
            Input::Net(Event::Closed { addr, reason, tally }) => self.on_closed(addr, reason, tally),
            Input::Net(Event::Poisoned(addr)) => {
                self.last_trouble = Some((addr, CloseReason::Poisoned));
                tracing::warn!(peer = %addr, "banned: it sent wrong data");
                for addr in self.book.ban(addr) {
                    self.close(addr, CloseReason::Poisoned);
                }
            }
            Input::Net(Event::Disk(error)) => return Err(Error::Disk(error)),
            Input::Net(Event::Complete) => self.complete = true,
            Input::Net(Event::Panicked) => return Err(Error::Panicked),
            Input::Announce(event) => self.on_announce(event, observer),
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
        let is_full = self.homes.len() >= CONNECTIONS_MAX;
        if is_full || self.homes.contains_key(&addr) || self.book.is_banned(addr) {
            listener::reset(&caller.stream);
            return Ok(());
        }
        let home = self.home(observer)?;
        self.homes.insert(addr, home);
        let stream = self.callers.admit(caller, Instant::now());
        self.cores[home].adopt(stream, addr);
        Ok(())
    }

    fn on_closed(&mut self, addr: SocketAddr, reason: CloseReason, tally: Tally) {
        self.homes.remove(&addr);
        if self.callers.left(addr) {
            return;
        }
        let outcome = match &reason {
            CloseReason::OtherTorrent | CloseReason::Ourselves | CloseReason::Poisoned => Outcome::Useless,
            // What it has delivered before does not make it worth another try at once.
            CloseReason::Fault(_) => Outcome::Failed,
            _ if tally.useful > 0 => Outcome::Worked,
            _ => Outcome::Failed,
        };
        self.book.on_closed(addr, outcome, Instant::now());
        self.last_trouble = Some((addr, reason));
    }

    fn on_announce(&mut self, event: AnnounceEvent, observer: &mut dyn Observer) {
        match event {
            AnnounceEvent::Peers { url, peers } => {
                tracing::debug!(%url, peers = peers.len(), "announced");
                if !self.tracker_answered {
                    // Its peers deserve their time, however long the answer took.
                    self.last_connected = Instant::now();
                }
                self.tracker_answered = true;
                self.trackers_failed = false;
                self.tracker_trouble.clear();
                let now = Instant::now();
                for peer in peers {
                    self.book.add(peer, Source::Tracker, now);
                }
            }
            AnnounceEvent::Warning { url, text } => observer.notice(&format!("{url} warns: {text}")),
            AnnounceEvent::Failed { url, error } => {
                tracing::debug!(%url, "announce failed: {error}");
                self.tracker_trouble.retain(|(known, _)| *known != url);
                self.tracker_trouble.push((url, error));
            }
            AnnounceEvent::Exhausted { .. } => self.trackers_failed = true,
        }
    }

    /// Dials as many peers as there is room for, on the core with the fewest.
    fn dial(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let now = Instant::now();
        while self.homes.len() < CONNECTIONS_MAX && self.book.dialing_count() < DIALING_MAX {
            let Some(addr) = self.book.next_dial(now) else { break };
            let home = self.home(observer)?;
            self.homes.insert(addr, home);
            let is_crowded = self.book.untried_count() + self.book.dialing_count() > DIALING_MAX;
            self.cores[home].dial(addr, if is_crowded { DIAL_TIMEOUT_CROWDED } else { DIAL_TIMEOUT });
        }
        // Peers that only keep their place must not keep out those that would serve.
        let is_full = self.homes.len() >= CONNECTIONS_MAX;
        let wanted = if is_full { self.book.untried_count().min(PLACES_WANTED_MAX) } else { 0 };
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
                        Backend::Uring => Error::Uring(error),
                        Backend::Epoll => Error::Thread(error),
                    }),
                }
            }
        }
    }

    /// Starts a core. The first may still find that there is no ring: others take of what the user may lock, too.
    fn start_core(&mut self, index: usize, observer: &mut dyn Observer) -> io::Result<Core> {
        match Core::start(index, self.backend, Arc::clone(&self.shared)) {
            Err(error) if index == 0 && self.backend == Backend::Uring && self.request.backend.is_none() => {
                self.backend = fall_back(error, observer);
                Core::start(index, self.backend, Arc::clone(&self.shared))
            }
            result => result,
        }
    }

    /// Gives up when nobody is left to ask, or when nothing has come for too long.
    fn check_patience(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let blocks = self.block_count();
        if blocks > self.blocks {
            self.blocks = blocks;
            self.last_block = now;
        }
        if self.book.connected_count() > 0 {
            if now.duration_since(*self.connected_since.get_or_insert(now)) >= SETTLED_AFTER {
                self.last_connected = now;
            }
            let limit = self.request.patience.unwrap_or(PATIENCE_STALLED);
            if now.duration_since(self.last_block) > limit {
                return Err(Error::Stalled { progress: self.progress(), after: limit });
            }
            return Ok(());
        }
        self.connected_since = None;
        if let Some(announcer) = &self.announcer {
            // As often as the trackers allow.
            announcer.request_more();
        }
        let default = match blocks {
            _ if self.book.untried_count() > 0 => PATIENCE_UNTRIED,
            1.. if self.may_return(now) => PATIENCE_LOST,
            _ => PATIENCE_FIRST,
        };
        let limit = self.request.patience.unwrap_or(default);
        let is_over = self.request.patience.is_none() && self.is_hopeless(now);
        if is_over || now.duration_since(self.last_connected.max(self.last_block)) > limit {
            return Err(self.no_peers());
        }
        Ok(())
    }

    /// Blocks that have come. The count of received bytes would not do: a peer that only chats brings nothing.
    fn block_count(&self) -> u64 {
        let counters = self.shared.counters();
        counters.hits.load(Ordering::Relaxed) + counters.misses.load(Ordering::Relaxed)
    }

    /// Whether there is an address that waiting may help with: one that is not banned and not of another torrent.
    fn may_return(&self, now: Instant) -> bool {
        self.book.dialing_count() > 0 || self.book.earliest_retry(now).is_some()
    }

    /// Whether waiting is of no use, with nobody connected: no tracker has ever answered, and of the addresses that the
    /// user gave none is left (or, as long as nothing has come, none that has not failed several times).
    fn is_hopeless(&self, now: Instant) -> bool {
        let nobody = if self.blocks > 0 { !self.may_return(now) } else { self.book.is_exhausted() };
        nobody && !self.callers.has_strangers() && self.trackers_failed && !self.tracker_answered
    }

    /// Why there is nobody: the trackers' fault if they are the only source and all of them failed.
    fn no_peers(&self) -> Error {
        let progress = self.progress();
        if let Some((addr, reason)) = &self.last_trouble {
            let detail = format!("the last one was {addr}: {reason}");
            return Error::NoPeers { progress, detail };
        }
        if self.tracker_answered {
            let detail = match self.book.len() {
                0 => "the trackers know of none".to_owned(),
                known => format!("none of the {known} that the trackers know of has answered yet"),
            };
            return Error::NoPeers { progress, detail };
        }
        if self.request.metainfo.tiers.is_empty() {
            return Error::Tracker("the torrent names no tracker; give peers with --peer IP:PORT".to_owned());
        }
        if self.tracker_trouble.is_empty() {
            return Error::Tracker("no tracker answered in time".to_owned());
        }
        Error::no_tracker(&self.tracker_trouble)
    }

    fn snapshot(&self) -> Snapshot {
        let Progress { done, total } = self.progress();
        let received = self.shared.counters().received.load(Ordering::Relaxed);
        Snapshot { done, total, received, peers: self.book.connected_count() }
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
            ..Summary::default()
        }
    }
}
