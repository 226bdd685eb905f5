//! A stream of bytes cut into messages, however the socket split it.
//!
//! The caller owns the bytes and pulls events out of them ([`Decoder::next`]). What may be long is never gathered:
//! the body of a block is handed out as it arrives, a message of an unknown id is skipped. What must be whole to be
//! understood is read in place where the input has all of it, and collected in one buffer otherwise, which grows with
//! the bytes that came and not with the length that was announced.
//!
//! Some bytes of the stream may never pass through here: a receive that scatters expected blocks to their final places
//! leaves the decoder out. It asks for the [`Position`] before, and sets the new one afterwards.
//!
//! Invariant: between calls the decoder stands at the start of a message with up to 12 bytes of it seen
//! (`head[..head_len]`, never a whole message or block header), inside the body of a block with at least one byte
//! missing, inside another message, or at an error that every further call repeats.

use std::fmt;

use super::message::{LEN_BEFORE_BODY, Message, PieceHeader, id};
use crate::meta::geometry::BLOCK_LEN;
use crate::meta::torrent::PIECES_MAX;

/// The longest message that is taken in, counted as on the wire without its four bytes of length.
pub const MESSAGE_MAX: u32 = 1 << 20;

/// The longest EXTENDED that is taken in, counted likewise: handshakes are far shorter, and a block of metadata with
/// its dictionary fits (BEP 9). Each connection may have one such message half-received, and there are hundreds of
/// them.
pub const EXTENDED_MAX: u32 = 32 * 1024;

/// How long messages may be whose length the protocol leaves open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the bits of a BITFIELD: exactly, or while the pieces are unknown, at most.
    pub bitfield_len: u32,
    /// Whether it is not known yet how many pieces there are. What a BITFIELD says cannot be understood then, so it is
    /// skipped like a message of an unknown id.
    pub pieces_unknown: bool,
    /// The longest EXTENDED, counted as on the wire with both its id bytes.
    pub extended_max: u32,
}

impl Limits {
    /// The limits of a torrent of that many pieces.
    pub const fn of_pieces(piece_count: u32) -> Self {
        Self { bitfield_len: piece_count.div_ceil(8), pieces_unknown: false, extended_max: EXTENDED_MAX }
    }

    /// The limits of a torrent of which only the info hash is known.
    pub const fn before_metadata() -> Self {
        Self { pieces_unknown: true, ..Self::of_pieces(PIECES_MAX) }
    }

    /// Whether a message of that id is skipped instead of collected.
    const fn skips(&self, id: u8) -> bool {
        !id::is_known(id) || (id == id::BITFIELD && self.pieces_unknown)
    }

    /// Checks the announced length of a message whose id is not here yet: bytes of which nothing can come need not be
    /// waited for.
    fn check_any(&self, len: u32) -> Result<(), WireError> {
        let max = MESSAGE_MAX.max(self.bitfield_len + 1).max(self.extended_max);
        if len <= max { Ok(()) } else { Err(WireError::TooLong { len, max }) }
    }

    /// Checks the announced length of a message, which counts its id.
    fn check(&self, id: u8, len: u32) -> Result<(), WireError> {
        let (min, max) = match id {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => (1, 1),
            id::HAVE_ALL | id::HAVE_NONE => (1, 1),
            id::HAVE | id::SUGGEST | id::ALLOWED_FAST => (5, 5),
            id::REQUEST | id::CANCEL | id::REJECT => (13, 13),
            id::PORT => (3, 3),
            id::BITFIELD if self.pieces_unknown => (1, self.bitfield_len + 1),
            id::BITFIELD => (self.bitfield_len + 1, self.bitfield_len + 1),
            id::PIECE => (LEN_BEFORE_BODY + 1, LEN_BEFORE_BODY + BLOCK_LEN),
            id::EXTENDED => (2, self.extended_max),
            _ => (1, MESSAGE_MAX),
        };
        if (min..=max).contains(&len) { Ok(()) } else { Err(WireError::Length { id, len, min, max }) }
    }
}

/// What the stream holds next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// A block begins; its body follows in one or more [`Event::BlockData`].
    BlockStart(PieceHeader),
    /// The next bytes of the body of a block, at least one.
    BlockData {
        /// The block.
        header: PieceHeader,
        /// Where in its body these bytes belong.
        at: u32,
        /// The bytes.
        data: &'a [u8],
        /// Whether they end the block.
        last: bool,
    },
}

/// Where in the stream the decoder stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position<'a> {
    /// At the start of a message, or so little into it that it may still become an expected block.
    Boundary {
        /// The bytes of it that were seen: 0 to 12, at most the length, the id of a block and a part of the rest.
        prefix: &'a [u8],
    },
    /// In the body of a block, whose header is done with.
    Body {
        /// The block.
        header: PieceHeader,
        /// Bytes of its body that were seen, below `header.len`.
        done: u32,
    },
    /// Inside a message that is not a block; the next bytes must go to the decoder.
    Control,
}

/// What breaks a stream for good. The peer is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// A message has a length that no id allows.
    TooLong {
        /// The announced length.
        len: u32,
        /// The longest there is.
        max: u32,
    },
    /// A message has a length that its id does not allow.
    Length {
        /// The id.
        id: u8,
        /// The announced length, which counts the id.
        len: u32,
        /// The shortest allowed.
        min: u32,
        /// The longest allowed.
        max: u32,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { len, max } => {
                write!(f, "a message announces {len} bytes, expected {max} at most")
            }
            Self::Length { id, len, min, max } if min == max => {
                write!(f, "message of id {id} announces {len} bytes, expected {min}")
            }
            Self::Length { id, len, min, max } => {
                write!(f, "message of id {id} announces {len} bytes, expected {min} to {max}")
            }
        }
    }
}

impl std::error::Error for WireError {}

/// Cuts one peer's stream, from behind its handshake to its end.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    /// The start of the message at hand while `state` is [`State::Head`].
    head: [u8; PieceHeader::LEN],
    /// `0 <= head_len < PieceHeader::LEN` between calls.
    head_len: usize,
    /// The payload so far while `state` is [`State::Control`]; what the last event borrows, directly afterwards.
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before or inside the bytes that tell what a message is.
    Head,
    /// In the payload of a message that must be whole; `left` is what `buffer` misses.
    Control { id: u8, left: u32 },
    /// In the payload of a message that nobody looks at.
    Skip { id: u8, left: u32 },
    /// In the body of a block.
    Body { header: PieceHeader, done: u32 },
    /// Behind bytes that are not the protocol.
    Failed(WireError),
}

/// What a complete head begins.
enum Begun {
    KeepAlive,
    Block(PieceHeader),
    /// Another message, with so many bytes of payload.
    Other {
        id: u8,
        len: u32,
    },
}

impl Decoder {
    /// A decoder at the first byte behind the handshake.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head, head: [0; PieceHeader::LEN], head_len: 0, buffer: Vec::new() }
    }

    /// Takes the next event off the front of `input`. `None` says that the event needs more bytes than there are:
    /// then `input` is empty and everything in it is remembered. An error is final.
    pub fn next<'e, 'i: 'e>(&'e mut self, input: &mut &'i [u8]) -> Result<Option<Event<'e>>, WireError> {
        if matches!(self.state, State::Head) {
            match self.head(input) {
                Ok(None) => return Ok(None),
                Ok(Some(Begun::KeepAlive)) => return Ok(Some(Event::Message(Message::KeepAlive))),
                Ok(Some(Begun::Block(header))) => {
                    self.state = State::Body { header, done: 0 };
                    return Ok(Some(Event::BlockStart(header)));
                }
                Ok(Some(Begun::Other { id, len })) if self.limits.skips(id) => {
                    self.state = State::Skip { id, left: len };
                }
                Ok(Some(Begun::Other { id, len })) => self.start_control(id, len),
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
        match self.state {
            State::Head => Ok(None),
            State::Body { header, done } => Ok(self.body(header, done, input)),
            State::Control { id, left } => self.control(id, left, input),
            State::Skip { id, left } => Ok(self.skip(id, left, input)),
            State::Failed(error) => Err(error),
        }
    }

    /// Where the decoder stands. At an error it says [`Position::Control`], so that the next bytes come here.
    pub fn position(&self) -> Position<'_> {
        match self.state {
            State::Head => Position::Boundary { prefix: &self.head[..self.head_len] },
            State::Body { header, done } => Position::Body { header, done },
            State::Control { .. } | State::Skip { .. } | State::Failed(_) => Position::Control,
        }
    }

    /// Moves to the start of a message: the bytes up to there were used without the decoder.
    pub fn set_boundary(&mut self) {
        self.set_prefix(&[]);
    }

    /// Moves to behind the first bytes of a block's header, 0 to 12 that are known to be such.
    pub fn set_prefix(&mut self, bytes: &[u8]) {
        debug_assert!(self.may_move());
        debug_assert!(self.limits.begins_block(bytes), "{bytes:?} does not begin a block");
        self.state = State::Head;
        self.head_len = bytes.len();
        self.head[..bytes.len()].copy_from_slice(bytes);
    }

    /// Moves into the body of a block, `done` bytes from its start; the events up to there do not come any more.
    pub fn set_body(&mut self, header: PieceHeader, done: u32) {
        debug_assert!(self.may_move());
        debug_assert!(done < header.len && header.len <= BLOCK_LEN);
        self.head_len = 0;
        self.state = State::Body { header, done };
    }

    /// Only blocks are received without the decoder, so only around blocks may it be moved.
    const fn may_move(&self) -> bool {
        matches!(self.state, State::Head | State::Body { .. })
    }

    /// Collects the head of a message, and forgets it when it is complete.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Begun>, WireError> {
        if !self.fill_head(4, input) {
            return Ok(None);
        }
        let [l0, l1, l2, l3, ..] = self.head;
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len == 0 {
            self.head_len = 0;
            return Ok(Some(Begun::KeepAlive));
        }
        self.limits.check_any(len)?;
        if !self.fill_head(5, input) {
            return Ok(None);
        }
        let id = self.head[4];
        self.limits.check(id, len)?;
        if id != id::PIECE {
            self.head_len = 0;
            return Ok(Some(Begun::Other { id, len: len - 1 }));
        }
        if !self.fill_head(PieceHeader::LEN, input) {
            return Ok(None);
        }
        self.head_len = 0;
        Ok(PieceHeader::decode(&self.head).map(Begun::Block))
    }

    /// Brings the head to at least `len` bytes; false where the input ends before.
    fn fill_head(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let missing = len.saturating_sub(self.head_len);
        let bytes = take(input, missing as u32);
        self.head[self.head_len..self.head_len + bytes.len()].copy_from_slice(bytes);
        self.head_len += bytes.len();
        bytes.len() == missing
    }

    fn start_control(&mut self, id: u8, len: u32) {
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
        self.state = State::Control { id, left: len };
    }

    fn control<'e, 'i: 'e>(
        &'e mut self,
        id: u8,
        left: u32,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'e>>, WireError> {
        let bytes = take(input, left);
        let left = left - bytes.len() as u32;
        let contiguous = left == 0 && self.buffer.is_empty();
        if !contiguous {
            self.buffer.extend_from_slice(bytes);
        }
        if left > 0 {
            self.state = State::Control { id, left };
            return Ok(None);
        }
        self.state = State::Head;
        let payload = if contiguous { bytes } else { &self.buffer };
        debug_assert!(Message::decode(id, payload).is_some(), "the length of id {id} was checked");
        Ok(Message::decode(id, payload).map(Event::Message))
    }

    fn skip<'a>(&mut self, id: u8, left: u32, input: &mut &'a [u8]) -> Option<Event<'a>> {
        let left = left - take(input, left).len() as u32;
        if left > 0 {
            self.state = State::Skip { id, left };
            return None;
        }
        self.state = State::Head;
        Some(Event::Message(Message::Unknown { id }))
    }

    fn body<'a>(&mut self, header: PieceHeader, done: u32, input: &mut &'a [u8]) -> Option<Event<'a>> {
        let data = take(input, header.len - done);
        if data.is_empty() {
            return None;
        }
        let at = done;
        let done = done + data.len() as u32;
        let last = done == header.len;
        self.state = if last { State::Head } else { State::Body { header, done } };
        Some(Event::BlockData { header, at, data, last })
    }
}

impl Limits {
    /// Whether these bytes may be the start of a block's header and are not all of it.
    fn begins_block(&self, bytes: &[u8]) -> bool {
        let len = bytes.first_chunk::<4>().map(|&len| u32::from_be_bytes(len));
        let len_fits = len.is_none_or(|len| self.check(id::PIECE, len).is_ok());
        bytes.len() < PieceHeader::LEN && len_fits && bytes.get(4).is_none_or(|&id| id == id::PIECE)
    }
}

/// Takes up to `len` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], len: u32) -> &'a [u8] {
    let (front, back) = input.split_at(input.len().min(len as usize));
    *input = back;
    front
}

/// A buffer that one long message made larger than this is given back at the next message.
const BUFFER_KEPT_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
