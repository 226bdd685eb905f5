//! What is said beside pieces: the peer tells of others (BEP 11), of its DHT node (BEP 5), of itself and of us (BEP
//! 10), and is told of others.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16};
use std::time::{Duration, Instant};

use super::clock::UNSENT_MAX;
use super::{Fault, PieceWriter, Session, Work};
use crate::swarm::book::reach;
use crate::wire::extension::{self, Offered};
use crate::wire::message;
use crate::wire::pex::{Contact, LIST_MAX, PeerExchange};

/// How often peers tell of others, and are told (BEP 11).
pub const PEX_EVERY: Duration = Duration::from_secs(60);
/// Messages of the peer exchange that may come early: some clients send a few at first.
pub const PEX_EARLY_MAX: u32 = 4;
/// Messages that are ignored as they come too early, before the peer is closed.
pub const PEX_IGNORED_MAX: u32 = 16;
/// A peer's clock may be a little faster than ours.
const PEX_HEARD_EVERY: Duration = Duration::from_secs(50);
/// Peers that a peer was told of and that were not taken back: more than there are connections.
const TOLD_MAX: usize = 512;

/// What a peer says that is of use to others than its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gossip {
    /// Whom it has connected to and lost.
    Peers(PeerExchange),
    /// The UDP port of its DHT node, at most once.
    DhtPort(NonZeroU16),
    /// The address at which it sees us, as its first extension handshake has it.
    OurAddress(IpAddr),
}

/// How many messages of the peer exchange a peer may send for now: [`PEX_EARLY_MAX`] at first, and then one a minute.
#[derive(Debug)]
pub struct Allowance {
    left: u32,
    /// Since when the next is saved up.
    since: Instant,
    ignored: u32,
}

impl Allowance {
    /// That of a connection that begins.
    pub const fn new(now: Instant) -> Self {
        Self { left: PEX_EARLY_MAX, since: now, ignored: 0 }
    }

    /// Whether a message that comes now is taken.
    ///
    /// # Errors
    /// More than [`PEX_IGNORED_MAX`] in a row were not.
    pub fn take(&mut self, now: Instant) -> Result<bool, Fault> {
        let saved = now.duration_since(self.since).as_secs() / PEX_HEARD_EVERY.as_secs();
        if saved > 0 {
            self.left = self.left.saturating_add(saved as u32).min(PEX_EARLY_MAX);
            (self.since, self.ignored) = (now, 0);
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Ok(true);
        }
        self.ignored += 1;
        if self.ignored > PEX_IGNORED_MAX {
            Err(Fault::PexFlood { ignored: self.ignored })
        } else {
            Ok(false)
        }
    }
}

/// What was heard from the peer beside pieces, and what it was told.
#[derive(Debug)]
pub(super) struct Talk {
    allowance: Allowance,
    was_introduced: bool,
    has_named_node: bool,
    /// The number under which it takes messages of the peer exchange.
    pex_id: Option<NonZeroU8>,
    /// The name of its program, in its own words.
    pub(super) client: Option<Box<str>>,
    tell_at: Instant,
    told: BTreeSet<SocketAddr>,
}

impl Talk {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            allowance: Allowance::new(now),
            was_introduced: false,
            has_named_node: false,
            pex_id: None,
            client: None,
            tell_at: now + PEX_EVERY,
            told: BTreeSet::new(),
        }
    }
}

impl<L: PieceWriter> Session<L> {
    /// Takes a message of the extension protocol. Those of extensions that were not offered say nothing.
    pub(super) fn on_extended(
        &mut self,
        id: u8,
        payload: &[u8],
        now: Instant,
        work: &mut impl Work<L>,
    ) -> Result<(), Fault> {
        match id {
            extension::HANDSHAKE_ID => self.on_offered(Offered::parse(payload), work),
            extension::OUR_PEX_ID if self.terms.pex && self.talk.allowance.take(now)? => {
                let exchange = PeerExchange::parse(payload);
                if !exchange.is_empty() {
                    work.hear(self.addr, Gossip::Peers(exchange));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_offered(&mut self, offered: Offered, work: &mut impl Work<L>) {
        if let Some(reqq) = offered.reqq {
            self.pipeline.set_reqq(reqq.get());
        }
        // A later handshake changes what it names (BEP 10).
        self.talk.pex_id = offered.pex.or(self.talk.pex_id.filter(|_| !offered.ends_pex));
        self.talk.client = offered.client.or(self.talk.client.take());
        let is_first = !std::mem::replace(&mut self.talk.was_introduced, true);
        if let Some(ours) = offered.your_ip.filter(|_| is_first) {
            work.hear(self.addr, Gossip::OurAddress(ours));
        }
    }

    pub(super) fn on_port(&mut self, port: u16, work: &mut impl Work<L>) {
        if let Some(port) = NonZeroU16::new(port)
            && !std::mem::replace(&mut self.talk.has_named_node, true)
        {
            work.hear(self.addr, Gossip::DhtPort(port));
        }
    }

    /// Whether it is time for [`Session::tell_peers`]: a minute after the start, and then once a minute.
    pub fn wants_peers(&self, now: Instant) -> bool {
        self.terms.pex && self.talk.pex_id.is_some() && now >= self.talk.tell_at
    }

    /// Tells the peer of those that are `connected` and were not when it was last told, and of those that no longer
    /// are: [`LIST_MAX`] of each at most, the others next time. Nothing is said of addresses that mean another machine
    /// there.
    pub fn tell_peers(&mut self, connected: &[Contact], now: Instant, out: &mut Vec<u8>) {
        let Some(id) = self.talk.pex_id else { return };
        if out.len() > UNSENT_MAX {
            return;
        }
        self.talk.tell_at = now + PEX_EVERY;
        let told = &mut self.talk.told;
        let is_new = |contact: &&Contact| {
            let is_same_there = reach(contact.addr.ip()) <= reach(self.addr.ip());
            contact.addr != self.addr && is_same_there && !told.contains(&contact.addr)
        };
        let room = LIST_MAX.min(TOLD_MAX - told.len());
        let added: Vec<_> = connected.iter().filter(is_new).take(room).copied().collect();
        let is_connected = |addr: &SocketAddr| connected.iter().any(|contact| contact.addr == *addr);
        let dropped: Vec<_> =
            told.iter().filter(|addr| !is_connected(addr)).take(LIST_MAX).copied().collect();
        told.extend(added.iter().map(|contact| contact.addr));
        told.retain(|addr| !dropped.contains(addr));
        let exchange = PeerExchange { added, dropped };
        if !exchange.is_empty() {
            message::write_extended(out, id.get(), &exchange.encode());
        }
    }
}
