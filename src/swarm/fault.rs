//! What a peer can do wrong. Each closes that peer and is counted; none stops the download.

use std::fmt;

use super::bitfield::BitfieldError;
use super::metadata::ExchangeFault;
use crate::meta::geometry::{Block, BlockError};
use crate::wire::decoder::WireError;
use crate::wire::metadata::MetadataError;

/// Why a peer was closed, for what it sent or failed to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Bytes that are no message.
    Wire(WireError),
    /// A block, or the rejection of one, that does not exist.
    Block(BlockError),
    /// A bitfield that does not fit the torrent.
    Bitfield(BitfieldError),
    /// More than [`SETS_TOLD_MAX`](super::session::SETS_TOLD_MAX) messages that tell all of its pieces.
    SetsTold {
        /// How many.
        times: u32,
    },
    /// HAVE of a piece that does not exist.
    HaveOutOfRange {
        /// The piece it named.
        index: u32,
        /// How many there are.
        piece_count: u32,
    },
    /// Too many blocks that nobody asked for; this was the last.
    Unrequested(Block),
    /// Requests unanswered for [`REQUEST_TIMEOUT`](super::session::REQUEST_TIMEOUT).
    RequestTimeout {
        /// How many.
        outstanding: usize,
    },
    /// It was unchoked and refused all that it was asked for, again and again.
    Refusing {
        /// How often.
        times: u32,
    },
    /// More than [`CHATTER_MAX`](super::session::CHATTER_MAX) of messages without a block.
    Chatter {
        /// How many bytes of them.
        bytes: u64,
    },
    /// A message of the fast extension, which it has not announced (BEP 6: the connection must be closed).
    FastNotAgreed,
    /// Messages of the peer exchange (BEP 11) far too often.
    PexFlood {
        /// How many of them were ignored.
        ignored: u32,
    },
    /// What it sent of the metadata exchange makes no sense.
    Metadata(MetadataError),
    /// It broke the rules of the metadata exchange.
    Exchange(ExchangeFault),
    /// Nothing at all for [`SILENCE_MAX`](super::session::SILENCE_MAX).
    Silent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::Block(error) => error.fmt(f),
            Self::Bitfield(error) => error.fmt(f),
            Self::SetsTold { times } => write!(f, "it told all of its pieces anew, {times} times"),
            Self::HaveOutOfRange { index, piece_count } => {
                write!(f, "it says it has piece {index}, the torrent has {piece_count}")
            }
            Self::Unrequested(block) => write!(
                f,
                "it keeps sending blocks that were not requested, the last at {} of piece {}",
                block.begin, block.piece
            ),
            Self::RequestTimeout { outstanding } => {
                write!(f, "it left {outstanding} requests unanswered for too long")
            }
            Self::Refusing { times } => {
                write!(f, "it refused all that it was asked for, {times} times in a row")
            }
            Self::Chatter { bytes } => write!(f, "it sent {bytes} bytes of messages and no block"),
            Self::FastNotAgreed => {
                write!(f, "it sent a message of the fast extension and has not announced that")
            }
            Self::PexFlood { ignored } => {
                write!(f, "it told of other peers too often, {ignored} times too early")
            }
            Self::Metadata(error) => error.fmt(f),
            Self::Exchange(fault) => fault.fmt(f),
            Self::Silent => write!(f, "it sent nothing for too long"),
        }
    }
}

impl std::error::Error for Fault {}
