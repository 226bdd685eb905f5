//! Why a peer's connection ended.

use std::fmt;
use std::io;

use crate::os::limits;
use crate::swarm::fault::Fault;
use crate::wire::handshake::HandshakeError;
use crate::wire::mse::MseError;

/// Why a connection ended, or did not come about.
#[derive(Debug)]
pub enum CloseReason {
    /// No connection: refused, unreachable, or no socket to be had.
    Dial(io::Error),
    /// No connection in time.
    DialTimeout,
    /// No handshake in time.
    HandshakeTimeout,
    /// The peer ended the connection, in good order or with this error, before a byte came from it: what it was told is
    /// not what it speaks, or it wants nothing of us.
    Unanswered(Option<io::Error>),
    /// What came was no handshake of an encrypted connection.
    Encryption(MseError),
    /// What came was no BitTorrent handshake.
    Handshake(HandshakeError),
    /// The peer has dialed us unencrypted, where that is not allowed.
    Unencrypted,
    /// The peer serves another torrent.
    OtherTorrent,
    /// The peer is this process.
    Ourselves,
    /// The peer closed the connection.
    Closed,
    /// The connection broke.
    Io(io::Error),
    /// The peer broke the protocol or stalled.
    Fault(Fault),
    /// The peer sent wrong data.
    Poisoned,
    /// It sent nothing for long, and others wait for its place.
    Crowded,
    /// The peer has no metadata to give, or does not speak of it (BEP 9).
    NoMetadata,
    /// The output failed, which is not the peer's fault.
    Disk,
    /// The download is over.
    Finished,
}

impl CloseReason {
    /// Whether there was no connection because this machine has no more of what one takes.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Dial(error) | Self::Io(error) if limits::is_shortage(error))
    }

    /// Why a connection ended that the peer has closed, or that broke with this error. A peer that has dialed us was
    /// told nothing that it could have left unanswered, and counts as one that `has_spoken`.
    pub(super) fn lost(error: Option<io::Error>, has_spoken: bool) -> Self {
        match (error, has_spoken) {
            (error, false) => Self::Unanswered(error),
            (None, true) => Self::Closed,
            (Some(error), true) => Self::Io(error),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => write!(f, "cannot connect: {error}"),
            Self::DialTimeout => write!(f, "no connection in time"),
            Self::HandshakeTimeout => write!(f, "no handshake in time"),
            Self::Unanswered(None) => write!(f, "it closed the connection without an answer"),
            Self::Unanswered(Some(error)) => write!(f, "connection lost without an answer: {error}"),
            Self::Encryption(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Unencrypted => write!(f, "it speaks unencrypted, which is not allowed"),
            Self::OtherTorrent => write!(f, "it serves another torrent"),
            Self::Ourselves => write!(f, "it is this process"),
            Self::Closed => write!(f, "it closed the connection"),
            Self::Io(error) => write!(f, "connection lost: {error}"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Poisoned => write!(f, "it sent wrong data"),
            Self::Crowded => write!(f, "it sent nothing for long and others wait for its place"),
            Self::NoMetadata => write!(f, "it has no metadata to give"),
            Self::Disk => write!(f, "the output failed"),
            Self::Finished => write!(f, "the download is over"),
        }
    }
}
