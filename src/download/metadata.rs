//! What a magnet link stands for: its peers are found as those of any torrent, and asked for the info dictionary (BEP
//! 9).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::callers::Callers;
use super::haul::Haul;
use super::hearsay::Hearsay;
use super::patience::{self, Patience};
use super::search::{Input, Reach, Search};
use super::{Interrupt, Observer, Searching, Wait, check_interrupt};
use crate::disk::MetaFile;
use crate::error::{Error, Progress};
use crate::meta::magnet::Magnet;
use crate::meta::text::escape;
use crate::meta::torrent::{Metainfo, TorrentError, info_of, torrent_file};
use crate::meta::units::Bytes;
use crate::net::close::CloseReason;
use crate::net::listener;
use crate::net::metadata::{CONNECTIONS_MAX, Goal, MetadataEvent, MetadataFetch, Places};
use crate::os::{clock, limits};
use crate::swarm::book::Outcome;
use crate::wire::client::client_name;
use crate::wire::extension::Offered;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections being made at a time.
const DIALING_MAX: usize = 256;
/// Peers that are asked at a time to make room for addresses that were not tried.
const PLACES_WANTED_MAX: usize = 64;
/// A connection that is not there by then is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A torrent that was a link.
pub struct Resolved {
    /// What it holds.
    pub metainfo: Metainfo,
    /// The search for its peers, if it may go on as it was begun.
    pub search: Option<Search>,
    /// Where its peers come from: what was asked for, and the peers that the link names.
    pub reach: Reach,
    /// A torrent file of it, to be kept beside the output.
    pub torrent: Arc<[u8]>,
}

impl Resolved {
    fn new(
        magnet: &Magnet,
        info: &[u8],
        search: Option<Search>,
        reach: &Reach,
    ) -> Result<Self, TorrentError> {
        let metainfo = Metainfo::from_magnet(magnet, info)?;
        // Of a private torrent peers come from the trackers and the user (BEP 27).
        let reach = if metainfo.private { reach.clone() } else { reach_of(magnet, reach) };
        let torrent = torrent_file(info, &metainfo.tiers).into();
        Ok(Self { metainfo, search, reach, torrent })
    }
}

/// What the torrent file beside an output says, if it is there and of the link; nobody is asked then.
pub fn recall(magnet: &Magnet, output: &Path, reach: &Reach) -> Option<Resolved> {
    let file = MetaFile::beside(output)?;
    let bytes = file.read().inspect_err(|error| tracing::debug!("{}: {error}", file.path().display()));
    let info = info_of(&bytes.ok()??).ok()?;
    Resolved::new(magnet, &info, None, reach).ok()
}

/// Where peers come from, with those that the link names.
fn reach_of(magnet: &Magnet, reach: &Reach) -> Reach {
    Reach { link_peers: magnet.peers.clone(), ..reach.clone() }
}

/// Fetches what a link stands for.
///
/// # Errors
/// When no peer gives it, when it is no usable torrent, and when the user ends it.
pub fn resolve(
    magnet: &Magnet,
    reach: &Reach,
    patience: Patience,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Resolved, Error> {
    let answer = |event| match event {
        MetadataEvent::Complete(info) => Some(info),
        _ => None,
    };
    let (info, search) = ask(magnet, reach, Goal::Metadata, patience, interrupt, observer, answer)?;
    let mut resolved = Resolved::new(magnet, &info, Some(search), reach).map_err(Error::Metadata)?;
    // What others than the trackers have told of its peers is not used (BEP 27). A new search begins under another
    // name, and the trackers hear that this one is over.
    if let Some(search) = resolved.search.take_if(|_| resolved.metainfo.private) {
        drop(search.finish(false));
    }
    Ok(resolved)
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
    ask(magnet, reach, Goal::Handshake, Patience::Default, interrupt, observer, answer)
        .map(|(answer, _)| answer)
}

/// Asks the link's peers until one of the events is the answer.
fn ask<T>(
    magnet: &Magnet,
    reach: &Reach,
    goal: Goal,
    patience: Patience,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
    answer: impl Fn(MetadataEvent) -> Option<T>,
) -> Result<(T, Search), Error> {
    let reach = reach_of(magnet, reach);
    if magnet.trackers.is_empty() && reach.is_without_source() {
        let detail = "the link names neither a tracker ('tr') nor a peer ('x.pe')".to_owned();
        return Err(Error::NoMetadata(detail));
    }
    let mut search = Search::new(magnet.info_hash, false, &reach)?;
    search.begin(&magnet.tiers())?;
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
        if observer.wants_peers(false) {
            observer.peers(&asking.search.roster.table());
        }
        asking.check_patience()?;
    }
}

/// Logs who has introduced itself.
fn tell(addr: SocketAddr, peer_id: &[u8; 20], offered: &Offered) {
    let client =
        offered.client.as_deref().map_or_else(|| client_name(peer_id), |client| escape(client).to_string());
    match offered.metadata_size {
        Some(size) => tracing::info!("{addr}: is {client}, has metadata of {}", Bytes(size)),
        None => tracing::info!("{addr}: is {client}, has no metadata"),
    }
}

/// The peers that are asked.
struct Asking {
    search: Search,
    fetch: MetadataFetch,
    callers: Callers,
    open: HashSet<SocketAddr>,
    connections_max: usize,
    hearsay: Hearsay,
    haul: Haul,
    patience: Patience,
    /// When somebody was met last who has what is wanted, some of that came, or the first answer of a source.
    last_news: Instant,
}

impl Asking {
    fn start(search: Search, goal: Goal, patience: Patience) -> Result<Self, Error> {
        let outbox = search.outbox();
        let events = Box::new(move |event| drop(outbox.send(Input::Metadata(event))));
        let (info_hash, welcome, pex) = (search.info_hash, search.welcome(), search.reach.pex);
        let fetch = MetadataFetch::start(info_hash, search.peer_id, goal, welcome, pex, events)
            .map_err(Error::Thread)?;
        let callers = Callers::new(search.listener());
        let outbox = search.outbox();
        callers.open(Box::new(move |caller| drop(outbox.send(Input::Caller(caller)))));
        Ok(Self {
            search,
            fetch,
            callers,
            open: HashSet::new(),
            connections_max: limits::connections(CONNECTIONS_MAX),
            hearsay: Hearsay::default(),
            haul: Haul::default(),
            patience,
            last_news: clock::now(),
        })
    }

    fn dial(&mut self) {
        let now = clock::now();
        while self.open.len() < self.connections_max && self.search.book.dialing_count() < DIALING_MAX {
            let Some(addr) = self.search.book.next_dial(now) else { break };
            self.open.insert(addr);
            self.fetch.dial(addr, self.search.encryption(addr), DIAL_TIMEOUT);
        }
        // Who only keeps its place must not keep out one that would give something.
        let wanted = self.search.book.untried_count().min(PLACES_WANTED_MAX);
        if wanted > 0 && self.open.len() >= self.connections_max {
            self.fetch.make_room(wanted, Places::Any);
        } else if wanted > 0 && self.search.book.dialing_count() >= DIALING_MAX {
            self.fetch.make_room(wanted, Places::OfStrangers);
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
                    self.last_news = clock::now();
                }
                return Ok(None);
            }
            Input::Caller(caller) => {
                let addr = caller.addr;
                let may_come = self.open.len() < self.connections_max && !self.search.book.is_banned(addr);
                if may_come && self.open.insert(addr) {
                    self.fetch.adopt(self.callers.admit(caller, clock::now()), addr);
                } else {
                    listener::reset(&caller.stream);
                }
                return Ok(None);
            }
            Input::Net(..) => return Ok(None),
        };
        match &event {
            MetadataEvent::Shook { addr, peer_id, offered, is_caller } => {
                self.callers.greeted(*addr);
                if let Some(size) = offered.metadata_size {
                    self.last_news = clock::now();
                    self.haul.claimed(*addr, size);
                }
                tell(*addr, peer_id, offered);
                self.hearsay.greeted(*addr, offered.metadata_size.is_some());
                self.search.book.on_connected(*addr);
                if *is_caller && let Some(port) = offered.port {
                    // It is where the content is to be had afterwards.
                    let listens = SocketAddr::new(addr.ip(), port.get());
                    self.search.book.add_told(listens, *addr, clock::now());
                }
            }
            MetadataEvent::Pex { from, exchange } => self.search.on_pex(*from, exchange),
            MetadataEvent::DhtNode(node) => self.search.on_dht_node(*node),
            MetadataEvent::Panicked => return Err(Error::Panicked),
            MetadataEvent::Piece { from } => {
                self.last_news = clock::now();
                self.hearsay.gave(*from);
                self.haul.gave(*from);
            }
            MetadataEvent::Refused { from } => self.hearsay.refused(*from),
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
        self.haul.gone(addr);
        if matches!(reason, CloseReason::Poisoned) {
            self.search.ban(addr);
        }
        if !self.callers.left(addr) {
            self.hearsay.left(addr, &reason);
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
            && self.patience.is_default();
        if is_hopeless || self.wait().is_over() {
            return Err(self.nobody());
        }
        Ok(())
    }

    fn wait(&self) -> Wait {
        let book = &self.search.book;
        let default = match book.earliest_retry(clock::now()) {
            _ if book.connected_count() > 0 => patience::DEFAULT_METADATA,
            None if book.dialing_count() == 0 => patience::DEFAULT_NOBODY,
            _ if self.search.is_dry() => patience::DEFAULT_NOBODY,
            _ => patience::DEFAULT,
        };
        Wait { lasted: clock::now().duration_since(self.last_news), limit: self.patience.limit(default) }
    }

    fn searching(&self) -> Searching {
        let peers = self.search.book.connected_count();
        Searching { peers, metadata: self.haul.share(), sources: self.search.sources(), wait: self.wait() }
    }

    /// Why the metadata did not come.
    fn nobody(&self) -> Error {
        match (self.hearsay.told(), self.search.last_trouble()) {
            (Some(told), Some(last)) => Error::NoMetadata(format!("{told}; {last}")),
            (Some(told), None) => Error::NoMetadata(told),
            (None, _) => self.search.nobody().map_or_else(|error| error, Error::NoMetadata),
        }
    }

    /// Closes all connections. The peers are to be dialed again for what they were found for.
    fn stop(mut self) -> Search {
        self.callers.shut();
        self.fetch.stop();
        let now = clock::now();
        for addr in self.open {
            self.search.book.on_closed(addr, Outcome::Again, now);
        }
        self.search
    }
}
