//! The control thread: whom to dial, what to tell the trackers, when it is over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Interrupt, Observer, Request, Snapshot, Summary, bytes_of, check_interrupt, total, wanted};
use crate::discovery::announcer::{AnnounceConfig, AnnounceEvent, Announcer, Timing};
use crate::discovery::tracker::Totals;
use crate::disk::Output;
use crate::error::{Error, Progress};
use crate::net::close::CloseReason;
use crate::net::core::Core;
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
/// With nobody connected, a download that has received nothing yet gives up after so long.
const PATIENCE_FIRST: Duration = Duration::from_secs(20);
/// With nobody connected, a download that has received something gives up after so long.
const PATIENCE_LOST: Duration = Duration::from_secs(60);
/// With somebody connected, a download to which nothing comes gives up after so long.
const PATIENCE_STALLED: Duration = Duration::from_secs(300);
/// What reaches the control thread.
enum Input {
    Net(Event),
    Announce(AnnounceEvent),
}

/// Runs the download of what is missing. Returns the bytes that are verified at the end, however it ends.
pub(super) fn run(
    request: &Request,
    output: &Arc<Output>,
    have: &Bitfield,
    started: Instant,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> (u64, Result<Summary, Error>) {
    let kept = bytes_of(request, have);
    let mut control = match Control::start(request, output, have, kept) {
        Ok(control) => control,
        Err(error) => return (kept, Err(error)),
    };
    let result = control.run(interrupt, observer);
    let progress = control.progress();
    let elapsed = started.elapsed();
    let summary = result.map(|()| control.summary(elapsed));
    control.stop(summary.is_ok() && kept < total(request));
    (progress.done, summary)
}

struct Control<'a> {
    request: &'a Request,
    shared: Arc<Shared>,
    cores: Vec<Core>,
    /// On which core each peer lives.
    homes: HashMap<SocketAddr, usize>,
    book: Book,
    announcer: Option<Announcer>,
    inbox: Receiver<Input>,
    kept: u64,
    complete: bool,
    /// What went wrong at the trackers in the last round, and whether all of them failed.
    tracker_trouble: Vec<String>,
    trackers_failed: bool,
    tracker_answered: bool,
    last_trouble: Option<(SocketAddr, CloseReason)>,
    received: u64,
    last_received: Instant,
    last_connected: Instant,
}

impl<'a> Control<'a> {
    fn start(request: &'a Request, output: &Arc<Output>, have: &Bitfield, kept: u64) -> Result<Self, Error> {
        let metainfo = &request.metainfo;
        let geometry = metainfo.geometry;
        let mut missing = Bitfield::new(geometry.piece_count());
        for piece in wanted(request).filter(|&piece| !have.get(piece)) {
            missing.set(piece);
        }
        let ledger = Ledger::new(geometry, Picker::new(geometry, &missing, super::random()));
        let complete = ledger.is_complete();
        let (outbox, inbox) = mpsc::channel();
        let net = outbox.clone();
        let events = Box::new(move |event| drop(net.send(Input::Net(event))));
        let peer_id = super::peer_id();
        let (metainfo, output) = (Arc::clone(metainfo), Arc::clone(output));
        let shared =
            Shared::new(metainfo, output, ledger, peer_id, request.threads, events).map_err(Error::Thread)?;
        let now = Instant::now();
        let mut book = Book::new(&[]);
        for &peer in &request.peers {
            book.add(peer, Source::Manual, now);
        }
        let mut control = Self {
            request,
            shared,
            cores: Vec::new(),
            homes: HashMap::new(),
            book,
            announcer: None,
            inbox,
            kept,
            complete,
            tracker_trouble: Vec::new(),
            trackers_failed: false,
            tracker_answered: false,
            last_trouble: None,
            received: 0,
            last_received: now,
            last_connected: now,
        };
        if !complete {
            control.start_announcer(peer_id, outbox)?;
        }
        Ok(control)
    }

    fn start_announcer(&mut self, peer_id: [u8; 20], outbox: mpsc::Sender<Input>) -> Result<(), Error> {
        let metainfo = &self.request.metainfo;
        let config = AnnounceConfig {
            tiers: metainfo.tiers.clone(),
            info_hash: metainfo.info_hash.0,
            peer_id,
            port: super::PORT,
            key: super::random() as u32,
            seed: super::random(),
            timing: Timing::default(),
        };
        let (shared, total, kept) = (Arc::clone(&self.shared), total(self.request), self.kept);
        let totals = move || {
            let verified = shared.counters().verified.load(Ordering::Relaxed);
            Totals { uploaded: 0, downloaded: verified, left: total.saturating_sub(kept + verified) }
        };
        let events = Box::new(move |event| drop(outbox.send(Input::Announce(event))));
        self.announcer = Some(Announcer::start(config, Arc::new(totals), events).map_err(Error::Thread)?);
        Ok(())
    }

    fn run(&mut self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<(), Error> {
        while !self.complete {
            check_interrupt(interrupt, self.progress())?;
            self.dial()?;
            match self.inbox.recv_timeout(TICK) {
                Ok(input) => {
                    self.take(input, observer)?;
                    while let Ok(input) = self.inbox.try_recv() {
                        self.take(input, observer)?;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            observer.downloading(&self.snapshot());
            self.check_patience()?;
        }
        observer.downloading(&self.snapshot());
        Ok(())
    }

    /// Ends all connections and says good-bye to the trackers.
    fn stop(self, completed: bool) {
        for core in &self.cores {
            core.stop();
        }
        if let Some(announcer) = self.announcer {
            announcer.finish(completed);
        }
        for core in self.cores {
            core.join();
        }
    }

    fn take(&mut self, input: Input, observer: &mut dyn Observer) -> Result<(), Error> {
        match input {
            Input::Net(Event::Connected(addr)) => {
                if !self.book.on_connected(addr) {
                    self.close(addr);
                }
            }
            Input::Net(Event::Closed { addr, reason, tally }) => self.on_closed(addr, reason, tally),
            Input::Net(Event::Poisoned(addr)) => {
                tracing::warn!(peer = %addr, "banned: it sent wrong data");
                for addr in self.book.ban(addr) {
                    self.close(addr);
                }
            }
            Input::Net(Event::Disk(error)) => return Err(Error::Disk(error)),
            Input::Net(Event::Complete) => self.complete = true,
            Input::Announce(event) => self.on_announce(event, observer),
        }
        Ok(())
    }

    fn close(&self, addr: SocketAddr) {
        if let Some(&home) = self.homes.get(&addr) {
            self.cores[home].close(addr);
        }
    }

    fn on_closed(&mut self, addr: SocketAddr, reason: CloseReason, tally: Tally) {
        self.homes.remove(&addr);
        let outcome = match &reason {
            CloseReason::OtherTorrent | CloseReason::Ourselves | CloseReason::Poisoned => Outcome::Useless,
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
                self.tracker_trouble.push(format!("{url}: {error}"));
            }
            AnnounceEvent::Exhausted { .. } => self.trackers_failed = true,
        }
    }

    /// Dials as many peers as there is room for, on the core with the fewest.
    fn dial(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        while self.homes.len() < CONNECTIONS_MAX && self.book.dialing_count() < DIALING_MAX {
            let Some(addr) = self.book.next_dial(now) else { break };
            let home = self.home()?;
            self.homes.insert(addr, home);
            self.cores[home].dial(addr);
        }
        Ok(())
    }

    /// The core with the fewest peers; a new one while each has some and more are allowed.
    fn home(&mut self) -> Result<usize, Error> {
        let mut load = vec![0; self.cores.len()];
        for &home in self.homes.values() {
            load[home] += 1;
        }
        let least = (0..load.len()).min_by_key(|&core| load[core]);
        match least {
            Some(core) if load[core] == 0 || self.cores.len() >= self.request.threads => Ok(core),
            _ => {
                let index = self.cores.len();
                self.cores.push(Core::start(index, Arc::clone(&self.shared)).map_err(Error::Uring)?);
                Ok(index)
            }
        }
    }

    /// Gives up when nobody is left to ask, or when nothing has come for too long.
    fn check_patience(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let received = self.shared.counters().received.load(Ordering::Relaxed);
        if received > self.received {
            self.received = received;
            self.last_received = now;
        }
        if self.book.connected_count() > 0 {
            self.last_connected = now;
            let limit = self.request.patience.unwrap_or(PATIENCE_STALLED);
            if now.duration_since(self.last_received) > limit {
                return Err(Error::Stalled { progress: self.progress(), after: limit });
            }
            return Ok(());
        }
        let nobody = self.book.is_empty() && self.trackers_failed;
        if nobody && !self.tracker_answered && self.request.patience.is_none() {
            return Err(self.no_peers());
        }
        let default = if received > 0 { PATIENCE_LOST } else { PATIENCE_FIRST };
        let limit = self.request.patience.unwrap_or(default);
        if now.duration_since(self.last_connected.max(self.last_received)) > limit {
            return Err(self.no_peers());
        }
        Ok(())
    }

    /// Why there is nobody: the trackers' fault if they are the only source and all of them failed.
    fn no_peers(&self) -> Error {
        let trouble = self.tracker_trouble.join("; ");
        if let Some((addr, reason)) = &self.last_trouble {
            let detail = format!("the last one was {addr}: {reason}");
            return Error::NoPeers { progress: self.progress(), detail };
        }
        if !self.tracker_answered {
            return Error::Tracker(if self.request.metainfo.tiers.is_empty() {
                "the torrent names no tracker; give peers with --peer IP:PORT".to_owned()
            } else if trouble.is_empty() {
                "no tracker answered in time".to_owned()
            } else {
                format!("no tracker answered: {trouble}")
            });
        }
        let detail = "the trackers know of none".to_owned();
        Error::NoPeers { progress: self.progress(), detail }
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

    fn summary(&self, elapsed: Duration) -> Summary {
        let counters = self.shared.counters();
        Summary {
            total: total(self.request),
            kept: self.kept,
            wasted: counters.wasted.load(Ordering::Relaxed),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            receives: counters.receives.load(Ordering::Relaxed),
            elapsed,
        }
    }
}
