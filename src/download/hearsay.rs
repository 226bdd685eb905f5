//! What the peers of a magnet link have said when they were asked for its metadata, counted for the user.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::net::close::CloseReason;

/// Peers of which it is known what they said; what more of them say is not counted.
const PEERS_MAX: usize = 4096;

/// What a peer has said so far; what is told of it comes later here than what is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Said {
    /// There was no connection.
    Unreachable,
    /// It was connected and said nothing of the metadata, not even that it has none.
    Nothing,
    /// It has none.
    HasNone,
    /// It has some, and sent nothing of it.
    Promised,
    /// It does not give what it has.
    Refused,
    /// It sent some of it.
    Gave,
    /// It broke the protocol.
    Broke,
    /// What it sent was wrong.
    Lied,
}

impl Said {
    /// All of them but [`Said::Unreachable`], in the order in which they are told.
    const CONNECTED: [Self; 7] =
        [Self::Promised, Self::Refused, Self::Lied, Self::Gave, Self::HasNone, Self::Broke, Self::Nothing];

    const fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "could not be reached",
            Self::Nothing => "said nothing of it",
            Self::HasNone => "had none",
            Self::Promised => "promised it and sent nothing",
            Self::Refused => "refused it",
            Self::Gave => "sent a part of it",
            Self::Broke => "broke the protocol",
            Self::Lied => "sent a wrong one",
        }
    }
}

/// What all peers have said.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    said: HashMap<SocketAddr, Said>,
}

impl Hearsay {
    /// A peer has introduced itself, and claims to have metadata or not.
    pub(super) fn greeted(&mut self, peer: SocketAddr, has_metadata: bool) {
        self.note(peer, if has_metadata { Said::Promised } else { Said::Nothing });
    }

    /// A peer has sent a piece.
    pub(super) fn gave(&mut self, peer: SocketAddr) {
        self.note(peer, Said::Gave);
    }

    /// A peer does not give a piece.
    pub(super) fn refused(&mut self, peer: SocketAddr) {
        self.note(peer, Said::Refused);
    }

    /// A connection has ended, or did not come about.
    pub(super) fn left(&mut self, peer: SocketAddr, reason: &CloseReason) {
        self.note(
            peer,
            match reason {
                CloseReason::Dial(_) | CloseReason::DialTimeout => Said::Unreachable,
                CloseReason::Poisoned => Said::Lied,
                CloseReason::NoMetadata => Said::HasNone,
                CloseReason::Fault(_) | CloseReason::Handshake(_) | CloseReason::Encryption(_) => Said::Broke,
                _ => Said::Nothing,
            },
        );
    }

    /// Notes what a peer has said, unless it has said more before.
    fn note(&mut self, peer: SocketAddr, said: Said) {
        if self.said.len() < PEERS_MAX || self.said.contains_key(&peer) {
            let known = self.said.entry(peer).or_insert(said);
            *known = said.max(*known);
        }
    }

    /// How many peers were connected and what they said, if there were any.
    pub(super) fn told(&self) -> Option<String> {
        let count = |said: Said| self.said.values().filter(|&&it| it == said).count();
        let unreachable = count(Said::Unreachable);
        let connected = self.said.len() - unreachable;
        if connected == 0 {
            return None;
        }
        let said =
            Said::CONNECTED.into_iter().map(|said| (count(said), said)).filter(|&(count, _)| count > 0);
        let said: Vec<String> = said.map(|(count, said)| format!("{count} {}", said.text())).collect();
        let peers = if connected == 1 { "peer was" } else { "peers were" };
        let mut text = format!("{connected} {peers} connected: {}", said.join(", "));
        if unreachable > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {unreachable} {}", Said::Unreachable.text());
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn what_was_said_most_of_all_is_counted_for_each() {
        let mut hearsay = Hearsay::default();
        hearsay.left(peer(1), &CloseReason::Dial(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(hearsay.told(), None);
        hearsay.greeted(peer(2), true);
        assert_eq!(
            hearsay.told().as_deref(),
            Some("1 peer was connected: 1 promised it and sent nothing; 1 could not be reached")
        );
        for port in 3..6 {
            hearsay.greeted(peer(port), true);
        }
        hearsay.refused(peer(3));
        hearsay.left(peer(3), &CloseReason::Closed);
        hearsay.gave(peer(4));
        hearsay.left(peer(4), &CloseReason::Poisoned);
        hearsay.left(peer(4), &CloseReason::DialTimeout);
        hearsay.greeted(peer(6), false);
        hearsay.left(peer(6), &CloseReason::NoMetadata);
        assert_eq!(
            hearsay.told().as_deref(),
            Some(
                "5 peers were connected: 2 promised it and sent nothing, 1 refused it, 1 sent a wrong one, \
                 1 had none; 1 could not be reached"
            )
        );
    }

    #[test]
    fn it_is_bounded() {
        let mut hearsay = Hearsay::default();
        for number in 0..2 * PEERS_MAX as u16 {
            hearsay.greeted(peer(number), true);
        }
        assert_eq!(hearsay.said.len(), PEERS_MAX);
    }
}
