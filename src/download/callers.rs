//! The peers that have dialed us: their places, and how long they may say nothing.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::listener::{Caller, Listener, Ticket};

/// Who dials speaks at once. A connection that has said nothing for so long gives its place to one that waits.
const SILENCE_MAX: Duration = Duration::from_millis(250);

/// Those who have dialed us and are still there.
#[derive(Debug)]
pub(super) struct Callers {
    listener: Option<Arc<Listener>>,
    inside: HashMap<SocketAddr, (Ticket, Instant)>,
}

impl Callers {
    /// Nobody yet.
    pub(super) fn new(listener: Option<Arc<Listener>>) -> Self {
        Self { listener, inside: HashMap::new() }
    }

    /// Lets in whoever calls.
    pub(super) fn open(&self, take: Box<dyn Fn(Caller) + Send>) {
        if let Some(listener) = &self.listener {
            listener.open(take);
        }
    }

    /// Lets in nobody any more.
    pub(super) fn shut(&self) {
        if let Some(listener) = &self.listener {
            listener.shut();
        }
    }

    /// Notes one who is let in. Gives the connection.
    pub(super) fn admit(&mut self, caller: Caller, now: Instant) -> TcpStream {
        self.inside.insert(caller.addr, (caller.ticket, now));
        caller.stream
    }

    /// A handshake was exchanged with whoever is there.
    pub(super) fn greeted(&mut self, addr: SocketAddr) {
        if let Some((ticket, _)) = self.inside.get_mut(&addr) {
            ticket.greeted();
        }
    }

    /// A connection has ended. Whether it came from one who has never named our torrent.
    pub(super) fn left(&mut self, addr: SocketAddr) -> bool {
        self.inside.remove(&addr).is_some_and(|(ticket, _)| ticket.is_stranger())
    }

    /// Whether somebody is about to say what he wants.
    pub(super) fn has_strangers(&self) -> bool {
        self.inside.values().any(|(ticket, _)| ticket.is_stranger())
    }

    /// Whether somebody waits for the place of one who has spoken.
    pub(super) fn is_full(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.is_full())
    }

    /// Those who have said nothing for long, if others wait.
    pub(super) fn overdue(&self, now: Instant) -> Vec<SocketAddr> {
        if !self.listener.as_ref().is_some_and(|listener| listener.is_crowded()) {
            return Vec::new();
        }
        let is_overdue =
            |(ticket, since): &(Ticket, Instant)| ticket.is_stranger() && now - *since > SILENCE_MAX;
        self.inside.iter().filter(|(_, caller)| is_overdue(caller)).map(|(&addr, _)| addr).collect()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.shut();
    }
}
