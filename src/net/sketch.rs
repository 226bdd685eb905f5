//! What the user may hear of one peer: who it is, and what it does and did.
//!
//! Nothing here is touched for a block; what changes is seen by the core's clock.

use std::net::SocketAddr;
use std::time::Instant;

use super::opening::Opened;
use super::shared::PeerReport;
use crate::disk::PieceLease;
use crate::meta::text::escape;
use crate::swarm::session::Session;
use crate::wire::client::client_name;
use crate::wire::handshake;

/// What is known of a peer that has sent its handshake.
#[derive(Debug)]
pub(super) struct Sketch {
    addr: SocketAddr,
    since: Instant,
    /// The name that its id stands for.
    client: String,
    is_introduced: bool,
    is_choked: bool,
    /// Blocks that were received straight into their place.
    pub(super) in_place: u64,
}

impl Sketch {
    /// That of a peer whose handshake has just come.
    pub(super) fn new(addr: SocketAddr, opened: &Opened, now: Instant) -> Self {
        let Opened { theirs, ciphers, .. } = opened;
        let client = client_name(&theirs.peer_id);
        let features = [
            (theirs.has(handshake::EXTENSION), ", extensions"),
            (theirs.has(handshake::FAST), ", fast"),
            (ciphers.is_some(), ", encrypted"),
        ];
        let features: String = features.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        tracing::info!("{addr}: handshake of {client}{features}");
        Self { addr, since: now, client, is_introduced: false, is_choked: true, in_place: 0 }
    }

    /// Tells of what has changed.
    pub(super) fn look(&mut self, session: &Session<PieceLease>) {
        let addr = self.addr;
        if let Some(client) = session.client().filter(|_| !self.is_introduced) {
            self.is_introduced = true;
            tracing::info!("{addr}: is {}", escape(client));
        }
        if session.is_choked() != self.is_choked {
            self.is_choked = session.is_choked();
            tracing::info!("{addr}: {}", if self.is_choked { "chokes us" } else { "unchokes us" });
        }
    }

    /// What there is to say of it by now.
    pub(super) fn report(&self, session: &Session<PieceLease>, now: Instant) -> PeerReport {
        PeerReport {
            addr: self.addr,
            client: session.client().unwrap_or(&self.client).to_owned(),
            state: session.standing(now),
            rate: session.rate(),
            connected: now.saturating_duration_since(self.since),
            tally: session.tally(),
            in_place: self.in_place,
        }
    }
}
