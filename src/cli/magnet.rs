//! The subcommands that take a magnet link.

use std::collections::{HashSet, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::args::{MagnetHandshake, MagnetInfo, MagnetParse};
use super::{describe, print, progress};
use crate::discovery::announcer::announce_once;
use crate::discovery::tracker::Totals;
use crate::download;
use crate::error::Error;
use crate::meta::hex;
use crate::meta::magnet::{Magnet, PeerAddr};
use crate::meta::torrent::Metainfo;
use crate::net::close::CloseReason;
use crate::net::metadata::{Goal, MetadataEvent, MetadataFetch};

/// How long a peer may take to be connected.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers that are dialed or talked to at a time.
const PEERS_AT_ONCE: usize = 32;
/// Peers of all sources that are remembered.
const PEERS_MAX: usize = 4096;
/// Hosts that are looked up.
const HOSTS_MAX: usize = 8;
/// Addresses of one host that are dialed.
const ADDRS_PER_HOST_MAX: usize = 4;
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of `magnet_parse`.
pub(super) fn parse(args: &MagnetParse) -> Result<(), Error> {
    let magnet = read(&args.link)?;
    let tracker = magnet.trackers.first().map_or("none", String::as_str);
    print(&format!("Tracker URL: {tracker}\nInfo Hash: {}\n", magnet.info_hash))
}

/// The lines of `magnet_handshake`, of the first peer that takes part in the metadata exchange.
pub(super) fn shake_hands(args: &MagnetHandshake) -> Result<(), Error> {
    let text = ask(&read(&args.link)?, Goal::Handshake, |event| match event {
        MetadataEvent::Shook { peer_id, offered, .. } => offered
            .metadata
            .map(|id| format!("Peer ID: {}\nPeer Metadata Extension ID: {id}\n", hex(&peer_id))),
        _ => None,
    })?;
    print(&text)
}

/// The lines of `info`, for what a link names.
pub(super) fn info(args: &MagnetInfo) -> Result<(), Error> {
    let magnet = read(&args.link)?;
    let info = ask(&magnet, Goal::Metadata, |event| match event {
        MetadataEvent::Complete(info) => Some(info),
        _ => None,
    })?;
    print(&describe(&Metainfo::from_magnet(&magnet, &info).map_err(Error::Metadata)?))
}

fn read(link: &str) -> Result<Magnet, Error> {
    Magnet::parse(link).map_err(Error::Magnet)
}

/// What happens while peers are asked.
enum Input {
    /// Peers to ask.
    Found(Vec<SocketAddr>),
    /// There will be no more, and why, if there is a reason.
    NoMore(Option<Error>),
    Peer(MetadataEvent),
}

/// Asks the link's peers until one of the events is the answer.
fn ask<T>(magnet: &Magnet, goal: Goal, answer: impl Fn(MetadataEvent) -> Option<T>) -> Result<T, Error> {
    let peer_id = download::peer_id();
    let (inputs, queue) = mpsc::channel();
    let events = inputs.clone();
    let tell = move |event| drop(events.send(Input::Peer(event)));
    let fetch = MetadataFetch::start(magnet.info_hash, peer_id, goal, false, Box::new(tell))
        .map_err(Error::Thread)?;
    find_peers(magnet, peer_id, inputs)?;
    let mut round = Round::default();
    let end = Instant::now() + PATIENCE;
    loop {
        match queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Input::Found(peers)) => round.add(peers),
            Ok(Input::NoMore(error)) => {
                round.sources_done = true;
                round.source_error = error;
            }
            Ok(Input::Peer(MetadataEvent::Closed { addr, reason })) => {
                round.open -= 1;
                round.trouble = Some((addr, reason));
            }
            Ok(Input::Peer(MetadataEvent::Panicked)) => return Err(Error::Panicked),
            Ok(Input::Peer(event)) => {
                if let Some(answer) = answer(event) {
                    fetch.stop();
                    return Ok(answer);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Err(round.failure(true)),
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Panicked),
        }
        while round.open < PEERS_AT_ONCE
            && let Some(addr) = round.waiting.pop_front()
        {
            round.open += 1;
            fetch.dial(addr, None, DIAL_TIMEOUT);
        }
        if round.sources_done && round.open == 0 {
            return Err(round.failure(false));
        }
    }
}

/// Where the search for an answer stands.
#[derive(Default)]
struct Round {
    /// Peers that were not dialed yet.
    waiting: VecDeque<SocketAddr>,
    known: HashSet<SocketAddr>,
    /// Peers that were dialed and are not closed yet.
    open: usize,
    sources_done: bool,
    source_error: Option<Error>,
    /// The peer that was closed last.
    trouble: Option<(SocketAddr, CloseReason)>,
}

impl Round {
    fn add(&mut self, peers: Vec<SocketAddr>) {
        let room = PEERS_MAX - self.known.len();
        let known = &mut self.known;
        self.waiting.extend(peers.into_iter().filter(|&peer| known.insert(peer)).take(room));
    }

    fn failure(self, is_late: bool) -> Error {
        if self.known.is_empty()
            && let Some(error) = self.source_error
        {
            return error;
        }
        let last = self.trouble.map(|(addr, reason)| format!("the last was {addr}: {reason}"));
        let counted = match self.known.len() {
            0 => "nobody was found to ask".to_owned(),
            1 => "1 was asked".to_owned(),
            count => format!("{count} were asked"),
        };
        let late = is_late.then(|| format!("nothing came for {} s", PATIENCE.as_secs()));
        Error::NoMetadata([Some(counted), late, last].into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// Looks for peers on a thread of its own: those that the link names, then those that its trackers name.
fn find_peers(magnet: &Magnet, peer_id: [u8; 20], inputs: Sender<Input>) -> Result<(), Error> {
    let tiers = magnet.trackers.iter().map(|tracker| vec![tracker.clone()]).collect();
    let config = download::announce_config_of(magnet.info_hash, tiers, peer_id, None);
    let (named, has_trackers) = (magnet.peers.clone(), !magnet.trackers.is_empty());
    if named.is_empty() && !has_trackers {
        return Err(Error::NoMetadata(
            "the link names neither a tracker ('tr') nor a peer ('x.pe')".to_owned(),
        ));
    }
    let find = move || {
        let ips = named.iter().filter_map(|peer| match peer {
            PeerAddr::Ip(addr) => Some(*addr),
            PeerAddr::Host { .. } => None,
        });
        // Nobody hears it when the answer is there already.
        let _ = inputs.send(Input::Found(ips.collect()));
        let lookups = resolve(&named, &inputs);
        // How long the content is, is not known yet. What is left must not be 0, as for a seeder no peers are named.
        let totals = Totals { uploaded: 0, downloaded: 0, left: 1 };
        let failure = match announce_once(&config, totals) {
            Ok(answer) => {
                if let Some(warning) = &answer.reply.warning {
                    progress::say(format_args!("ringtide: {} warns: {warning}", answer.url));
                }
                let _ = inputs.send(Input::Found(answer.reply.peers));
                None
            }
            Err(error) => has_trackers.then(|| Error::no_tracker(&error.failures)),
        };
        // A panic of theirs leaves the host out.
        lookups.into_iter().for_each(|lookup| drop(lookup.join()));
        let _ = inputs.send(Input::NoMore(failure));
    };
    thread::Builder::new().name("peers".to_owned()).spawn(find).map(drop).map_err(Error::Thread)
}

/// Looks up the hosts among the peers, each on a thread of its own: a resolver may take its time.
fn resolve(peers: &[PeerAddr], inputs: &Sender<Input>) -> Vec<JoinHandle<()>> {
    let hosts = peers.iter().filter_map(|peer| match peer {
        PeerAddr::Host { name, port } => Some((name.clone(), *port)),
        PeerAddr::Ip(_) => None,
    });
    let look_up = |(name, port): (String, u16)| {
        let inputs = inputs.clone();
        let look_up = move || {
            let addrs = (name.as_str(), port).to_socket_addrs().into_iter().flatten();
            let _ = inputs.send(Input::Found(addrs.take(ADDRS_PER_HOST_MAX).collect()));
        };
        // Without a thread the host is left out.
        thread::Builder::new().name("resolver".to_owned()).spawn(look_up).ok()
    };
    hosts.take(HOSTS_MAX).filter_map(look_up).collect()
}
