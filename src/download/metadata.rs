//! What a magnet link stands for: its peers are found as those of any torrent, and asked for the info dictionary (BEP 9).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use super::callers::Callers;
use super::search::{Input, Reach, Search};
use super::{Interrupt, Observer, Searching, Wait, check_interrupt};
use crate::error::{Error, Progress};
use crate::meta::magnet::{Magnet, PeerAddr};
use crate::meta::torrent::Metainfo;
use crate::net::close::CloseReason;
use crate::net::listener;
use crate::net::metadata::{CONNECTIONS_MAX, Goal, MetadataEvent, MetadataFetch};
use crate::swarm::book::Outcome;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections being made at a time.
const DIALING_MAX: usize = 32;
/// A connection that is not there by then is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// When to give up, if no peer that has what is wanted was met for so long, and nothing of it came.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same with nobody connected.
const PATIENCE_ALONE: Duration = Duration::from_secs(20);

/// A torrent that was a link.
pub struct Resolved {
    /// What it holds.
    pub metainfo: Metainfo,
    /// The search for its peers, if it may go on as it was begun.
    pub search: Option<Search>,
}

/// Fetches what a link stands for.
///
/// # Errors
/// When no peer gives it, when it is no usable torrent, and when the user ends it.
pub fn resolve(
    magnet: &Magnet,
    reach: &Reach,
    patience: Option<Duration>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Resolved, Error> {
    let answer = |event| match event {
        MetadataEvent::Complete(info) => Some(info),
        _ => None,
    };
    let (info, search) = ask(magnet, reach, Goal::Metadata, patience, interrupt, observer, answer)?;
    let metainfo = Metainfo::from_magnet(magnet, &info).map_err(Error::Metadata)?;
    let search = if metainfo.private {
        // What others than the trackers have told of its peers is not used (BEP 27). A new search begins under another
        // name, and the trackers hear that this one is over.
        drop(search.finish(false));
        None
    } else {
        Some(search)
    };
    Ok(Resolved { metainfo, search })
}

/// Exchanges handshakes with a peer that has a link's torrent: its id, and the number under which it takes messages of
/// the metadata exchange.
///
/// # Errors
/// When no peer takes part in that, and when the user ends it.
pub fn shake_hands(
    magnet: &Magnet,
    reach: &Reach,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<([u8; 20], NonZeroU8), Error> {
    let answer = |event| match event {
        MetadataEvent::Shook { peer_id, offered, .. } => offered.metadata.map(|id| (peer_id, id)),
        _ => None,
    };
    ask(magnet, reach, Goal::Handshake, None, interrupt, observer, answer).map(|(answer, _)| answer)
}

/// Asks the link's peers until one of the events is the answer.
fn ask<T>(
    magnet: &Magnet,
    reach: &Reach,
    goal: Goal,
    patience: Option<Duration>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
    answer: impl Fn(MetadataEvent) -> Option<T>,
) -> Result<(T, Search), Error> {
    let mut reach = reach.clone();
    reach.peers.extend(magnet.peers.iter().filter_map(|peer| match peer {
        PeerAddr::Ip(addr) => Some(*addr),
        PeerAddr::Host { .. } => None,
    }));
    if magnet.trackers.is_empty() && magnet.peers.is_empty() && reach.is_without_source() {
        let detail = "the link names neither a tracker ('tr') nor a peer ('x.pe')".to_owned();
        return Err(Error::NoMetadata(detail));
    }
    let mut search = Search::new(magnet.info_hash, false, &reach)?;
    search.begin(&magnet.tiers(), &magnet.peers)?;
    let mut asking = Asking::start(search, goal, patience)?;
    loop {
        check_interrupt(interrupt, Progress { done: 0, total: 0 })?;
        asking.dial();
        if let Some(input) = asking.search.next(TICK)
            && let Some(event) = asking.take(input, observer)?
            && let Some(answer) = answer(event)
        {
            return Ok((answer, asking.stop()));
        }
        observer.searching(&asking.searching());
        asking.check_patience()?;
    }
}

/// The peers that are asked.
struct Asking {
    search: Search,
    fetch: MetadataFetch,
    callers: Callers,
    open: HashSet<SocketAddr>,
    patience: Option<Duration>,
    /// When somebody was met last who has what is wanted, some of that came, or the first answer of a source.
    last_news: Instant,
}

impl Asking {
    fn start(search: Search, goal: Goal, patience: Option<Duration>) -> Result<Self, Error> {
        let outbox = search.outbox();
        let events = Box::new(move |event| drop(outbox.send(Input::Metadata(event))));
        let (info_hash, pex) = (search.info_hash, search.reach.pex);
        let fetch =
            MetadataFetch::start(info_hash, search.peer_id, goal, pex, events).map_err(Error::Thread)?;
        let callers = Callers::new(search.listener());
        let outbox = search.outbox();
        callers.open(Box::new(move |caller| drop(outbox.send(Input::Caller(caller)))));
        Ok(Self { search, fetch, callers, open: HashSet::new(), patience, last_news: Instant::now() })
    }

    fn dial(&mut self) {
        let now = Instant::now();
        while self.open.len() < CONNECTIONS_MAX && self.search.book.dialing_count() < DIALING_MAX {
            let Some(addr) = self.search.book.next_dial(now) else { break };
            self.open.insert(addr);
            self.fetch.dial(addr, self.search.encryption(addr), DIAL_TIMEOUT);
        }
        for addr in self.callers.overdue(now) {
            self.fetch.close(addr);
        }
    }

    /// Takes in what came. Returns what may be the answer.
    fn take(&mut self, input: Input, observer: &mut dyn Observer) -> Result<Option<MetadataEvent>, Error> {
        let event = match input {
            Input::Metadata(event) => event,
            Input::Found(found) => {
                if self.search.on_found(found, observer) {
                    self.last_news = Instant::now();
                }
                return Ok(None);
            }
            Input::Caller(caller) => {
                let addr = caller.addr;
                let may_come = self.open.len() < CONNECTIONS_MAX && !self.search.book.is_banned(addr);
                if may_come && self.open.insert(addr) {
                    self.fetch.adopt(self.callers.admit(caller, Instant::now()), addr);
                } else {
                    listener::reset(&caller.stream);
                }
                return Ok(None);
            }
            Input::Net(..) => return Ok(None),
        };
        match &event {
            MetadataEvent::Shook { addr, offered, is_caller, .. } => {
                self.callers.greeted(*addr);
                if offered.metadata_size.is_some() {
                    self.last_news = Instant::now();
                }
                self.search.book.on_connected(*addr);
                if *is_caller && let Some(port) = offered.port {
                    // It is where the content is to be had afterwards.
                    let listens = SocketAddr::new(addr.ip(), port.get());
                    self.search.book.add_told(listens, *addr, Instant::now());
                }
            }
            MetadataEvent::Pex { from, exchange } => self.search.on_pex(*from, exchange),
            MetadataEvent::DhtNode(node) => self.search.on_dht_node(*node),
            MetadataEvent::Panicked => return Err(Error::Panicked),
            MetadataEvent::Piece => self.last_news = Instant::now(),
            MetadataEvent::Closed { .. } | MetadataEvent::Complete(_) => {}
        }
        if let MetadataEvent::Closed { addr, reason } = event {
            self.on_closed(addr, reason);
            return Ok(None);
        }
        Ok(Some(event))
    }

    fn on_closed(&mut self, addr: SocketAddr, reason: CloseReason) {
        self.open.remove(&addr);
        if matches!(reason, CloseReason::Poisoned) {
            self.search.ban(addr);
        }
        if !self.callers.left(addr) {
            self.search.on_closed(addr, reason, false);
        }
    }

    fn check_patience(&mut self) -> Result<(), Error> {
        let is_alone = self.search.book.connected_count() == 0;
        if is_alone {
            self.search.request_more();
        }
        let is_hopeless = is_alone
            && self.search.book.is_exhausted()
            && !self.callers.has_strangers()
            && self.search.is_dry()
            && self.patience.is_none();
        if is_hopeless || self.wait().is_over() {
            return Err(match self.search.nobody() {
                Ok(detail) => Error::NoMetadata(detail),
                Err(error) => error,
            });
        }
        Ok(())
    }

    fn wait(&self) -> Wait {
        let default = if self.search.book.connected_count() == 0 { PATIENCE_ALONE } else { PATIENCE };
        Wait { lasted: self.last_news.elapsed(), limit: Some(self.patience.unwrap_or(default)) }
    }

    fn searching(&self) -> Searching {
        let peers = self.search.book.connected_count();
        Searching { peers, metadata: None, sources: self.search.sources(), wait: self.wait() }
    }

    /// Closes all connections. The peers are to be dialed again for what they were found for.
    fn stop(mut self) -> Search {
        self.callers.shut();
        self.fetch.stop();
        let now = Instant::now();
        for addr in self.open {
            self.search.book.on_closed(addr, Outcome::Again, now);
        }
        self.search
    }
}
