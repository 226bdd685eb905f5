//! Everything peers say after the handshake (BEP 3, BEP 5, BEP 6, BEP 10), and how it is written.
//!
//! A message is four bytes of length, one byte of id and the payload; the length counts id and payload, and a length
//! of 0 is a keep-alive. Numbers are big-endian. A block's message is not a [`Message`]: its 13-byte head is a
//! [`PieceHeader`] and its body goes to its place without passing through here.

use crate::meta::geometry::{BLOCK_LEN, Block};

/// A message of a peer other than a block. Borrows its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Nothing, said to keep the connection.
    KeepAlive,
    /// Requests will not be answered from now on.
    Choke,
    /// Requests will be answered from now on.
    Unchoke,
    /// The sender would request if it were unchoked.
    Interested,
    /// The sender would not request.
    NotInterested,
    /// The sender now has this piece.
    Have(u32),
    /// The pieces that the sender has, one bit each, first piece in the high bit of the first byte.
    Bitfield(&'a [u8]),
    /// The sender asks for these bytes.
    Request(RawBlock),
    /// The sender no longer asks for these bytes.
    Cancel(RawBlock),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// The sender would like to serve this piece (BEP 6).
    Suggest(u32),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The sender will not answer that request (BEP 6).
    Reject(RawBlock),
    /// The sender serves this piece even while it chokes (BEP 6).
    AllowedFast(u32),
    /// A message of the extension protocol (BEP 10).
    Extended {
        /// 0 for its handshake, otherwise a number that the receiver chose in its own.
        id: u8,
        /// What follows.
        payload: &'a [u8],
    },
    /// A message that is not understood here, for its id or for what is not known yet; its payload was skipped.
    Unknown {
        /// That id.
        id: u8,
    },
}

impl<'a> Message<'a> {
    /// The message of that id and payload; `None` where the payload has the wrong length for the id, and for a
    /// block.
    pub fn decode(id: u8, payload: &'a [u8]) -> Option<Self> {
        let (words, rest) = payload.as_chunks::<4>();
        let message = match (id, words, rest) {
            (id::CHOKE, [], []) => Self::Choke,
            (id::UNCHOKE, [], []) => Self::Unchoke,
            (id::INTERESTED, [], []) => Self::Interested,
            (id::NOT_INTERESTED, [], []) => Self::NotInterested,
            (id::HAVE, &[piece], []) => Self::Have(u32::from_be_bytes(piece)),
            (id::BITFIELD, ..) => Self::Bitfield(payload),
            (id::REQUEST, &[index, begin, len], []) => Self::Request(RawBlock::of_wire(index, begin, len)),
            (id::CANCEL, &[index, begin, len], []) => Self::Cancel(RawBlock::of_wire(index, begin, len)),
            (id::PORT, [], &[high, low]) => Self::Port(u16::from_be_bytes([high, low])),
            (id::SUGGEST, &[piece], []) => Self::Suggest(u32::from_be_bytes(piece)),
            (id::HAVE_ALL, [], []) => Self::HaveAll,
            (id::HAVE_NONE, [], []) => Self::HaveNone,
            (id::REJECT, &[index, begin, len], []) => Self::Reject(RawBlock::of_wire(index, begin, len)),
            (id::ALLOWED_FAST, &[piece], []) => Self::AllowedFast(u32::from_be_bytes(piece)),
            (id::EXTENDED, ..) => {
                let (&id, payload) = payload.split_first()?;
                Self::Extended { id, payload }
            }
            (id, ..) if !id::is_known(id) => Self::Unknown { id },
            _ => return None,
        };
        Some(message)
    }

    /// Appends the message to what will be sent. [`Message::Unknown`] is written without a payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => write_payload(out, id::CHOKE, &[]),
            Self::Unchoke => write_payload(out, id::UNCHOKE, &[]),
            Self::Interested => write_payload(out, id::INTERESTED, &[]),
            Self::NotInterested => write_payload(out, id::NOT_INTERESTED, &[]),
            Self::Have(piece) => write_payload(out, id::HAVE, &piece.to_be_bytes()),
            Self::Bitfield(bits) => write_payload(out, id::BITFIELD, bits),
            Self::Request(block) => out.extend_from_slice(&block.encode(id::REQUEST)),
            Self::Cancel(block) => out.extend_from_slice(&block.encode(id::CANCEL)),
            Self::Port(port) => write_payload(out, id::PORT, &port.to_be_bytes()),
            Self::Suggest(piece) => write_payload(out, id::SUGGEST, &piece.to_be_bytes()),
            Self::HaveAll => write_payload(out, id::HAVE_ALL, &[]),
            Self::HaveNone => write_payload(out, id::HAVE_NONE, &[]),
            Self::Reject(block) => out.extend_from_slice(&block.encode(id::REJECT)),
            Self::AllowedFast(piece) => write_payload(out, id::ALLOWED_FAST, &piece.to_be_bytes()),
            Self::Extended { id, payload } => write_extended(out, id, payload),
            Self::Unknown { id } => write_payload(out, id, &[]),
        }
    }
}

/// Three numbers from the wire that may or may not name a block: `Geometry::check_block` tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawBlock {
    /// The piece.
    pub index: u32,
    /// The first byte, counted from the start of the piece.
    pub begin: u32,
    /// The number of bytes.
    pub len: u32,
}

impl RawBlock {
    fn of_wire(index: [u8; 4], begin: [u8; 4], len: [u8; 4]) -> Self {
        Self {
            index: u32::from_be_bytes(index),
            begin: u32::from_be_bytes(begin),
            len: u32::from_be_bytes(len),
        }
    }

    /// The whole message of an id whose payload is these three numbers.
    fn encode(self, id: u8) -> [u8; 17] {
        let mut out = [0; 17];
        out[..4].copy_from_slice(&13u32.to_be_bytes());
        out[4] = id;
        out[5..9].copy_from_slice(&self.index.to_be_bytes());
        out[9..13].copy_from_slice(&self.begin.to_be_bytes());
        out[13..].copy_from_slice(&self.len.to_be_bytes());
        out
    }
}

impl From<Block> for RawBlock {
    fn from(block: Block) -> Self {
        Self { index: block.piece.get(), begin: block.begin, len: block.len }
    }
}

/// What stands before the body of a block: length, id 7, piece and offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PieceHeader {
    /// The piece.
    pub index: u32,
    /// The first byte, counted from the start of the piece.
    pub begin: u32,
    /// Bytes of the body that follows, 1 to [`BLOCK_LEN`].
    pub len: u32,
}

impl PieceHeader {
    /// Bytes of it on the wire.
    pub const LEN: usize = 13;

    /// The header that answers a request for that block.
    pub const fn of(block: Block) -> Self {
        Self { index: block.piece.get(), begin: block.begin, len: block.len }
    }

    /// Its bytes on the wire.
    pub fn encode(self) -> [u8; Self::LEN] {
        debug_assert!((1..=BLOCK_LEN).contains(&self.len));
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&(self.len + LEN_BEFORE_BODY).to_be_bytes());
        out[4] = id::PIECE;
        out[5..9].copy_from_slice(&self.index.to_be_bytes());
        out[9..].copy_from_slice(&self.begin.to_be_bytes());
        out
    }

    /// The header in those bytes; `None` where they start another message, or a body that is empty or longer than
    /// [`BLOCK_LEN`].
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let [l0, l1, l2, l3, id, i0, i1, i2, i3, b0, b1, b2, b3] = *bytes;
        let len = u32::from_be_bytes([l0, l1, l2, l3]).checked_sub(LEN_BEFORE_BODY)?;
        let valid = id == id::PIECE && (1..=BLOCK_LEN).contains(&len);
        valid.then_some(Self {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            begin: u32::from_be_bytes([b0, b1, b2, b3]),
            len,
        })
    }
}

/// Appends a keep-alive.
pub fn write_keep_alive(out: &mut Vec<u8>) {
    Message::KeepAlive.write(out);
}

/// Appends INTERESTED.
pub fn write_interested(out: &mut Vec<u8>) {
    Message::Interested.write(out);
}

/// Appends NOT INTERESTED.
pub fn write_not_interested(out: &mut Vec<u8>) {
    Message::NotInterested.write(out);
}

/// Appends HAVE of a piece.
pub fn write_have(out: &mut Vec<u8>, piece: u32) {
    Message::Have(piece).write(out);
}

/// Appends the request for a block.
pub fn write_request(out: &mut Vec<u8>, block: Block) {
    Message::Request(block.into()).write(out);
}

/// Appends the withdrawal of the request for a block.
pub fn write_cancel(out: &mut Vec<u8>, block: Block) {
    Message::Cancel(block.into()).write(out);
}

/// Appends a message of the extension protocol (BEP 10): `id` 0 is its handshake, others are those that the receiver
/// chose. The payload stays below [`super::decoder::EXTENDED_MAX`], or the receiver closes the connection.
pub fn write_extended(out: &mut Vec<u8>, id: u8, payload: &[u8]) {
    out.extend_from_slice(&wire_len(payload.len() + 2));
    out.extend_from_slice(&[id::EXTENDED, id]);
    out.extend_from_slice(payload);
}

fn write_payload(out: &mut Vec<u8>, id: u8, payload: &[u8]) {
    out.extend_from_slice(&wire_len(payload.len() + 1));
    out.push(id);
    out.extend_from_slice(payload);
}

/// The length prefix; everything written here is far below 4 GiB.
fn wire_len(len: usize) -> [u8; 4] {
    debug_assert!(u32::try_from(len).is_ok());
    (len as u32).to_be_bytes()
}

/// The part of a block's message length that is not its body: id, piece and offset.
pub(super) const LEN_BEFORE_BODY: u32 = 9;

/// The id bytes.
pub(super) mod id {
    pub(crate) const CHOKE: u8 = 0;
    pub(crate) const UNCHOKE: u8 = 1;
    pub(crate) const INTERESTED: u8 = 2;
    pub(crate) const NOT_INTERESTED: u8 = 3;
    pub(crate) const HAVE: u8 = 4;
    pub(crate) const BITFIELD: u8 = 5;
    pub(crate) const REQUEST: u8 = 6;
    pub(crate) const PIECE: u8 = 7;
    pub(crate) const CANCEL: u8 = 8;
    pub(crate) const PORT: u8 = 9;
    pub(crate) const SUGGEST: u8 = 13;
    pub(crate) const HAVE_ALL: u8 = 14;
    pub(crate) const HAVE_NONE: u8 = 15;
    pub(crate) const REJECT: u8 = 16;
    pub(crate) const ALLOWED_FAST: u8 = 17;
    pub(crate) const EXTENDED: u8 = 20;

    /// Whether that id has a meaning here.
    pub(crate) const fn is_known(id: u8) -> bool {
        matches!(id, CHOKE..=PORT | SUGGEST..=ALLOWED_FAST | EXTENDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::Geometry;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = vec![0xee];
        write(&mut out);
        assert_eq!(out.remove(0), 0xee, "writers append");
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_beps() {
        let geometry = Geometry::new(100_000, 40_000).unwrap();
        let block = geometry.block(geometry.piece(2).unwrap(), 1);
        let request = [0, 0, 0, 13, 6, 0, 0, 0, 2, 0, 0, 0x40, 0, 0, 0, 0x0e, 0x20];
        assert_eq!(written(|out| write_request(out, block)), request);
        assert_eq!(written(|out| write_cancel(out, block))[4], 8);
        assert_eq!(written(write_keep_alive), [0, 0, 0, 0]);
        assert_eq!(written(write_interested), [0, 0, 0, 1, 2]);
        assert_eq!(written(write_not_interested), [0, 0, 0, 1, 3]);
        assert_eq!(written(|out| write_have(out, 0x0102_0304)), [0, 0, 0, 5, 4, 1, 2, 3, 4]);
        assert_eq!(written(|out| write_extended(out, 0, b"de")), *b"\0\0\0\x04\x14\0de");
        assert_eq!(written(|out| Message::Port(6881).write(out)), [0, 0, 0, 3, 9, 0x1a, 0xe1]);
    }

    #[test]
    fn a_piece_header_is_length_id_piece_offset() {
        let geometry = Geometry::new(100_000, 40_000).unwrap();
        let header = PieceHeader::of(geometry.block(geometry.piece(2).unwrap(), 1));
        let bytes = [0, 0, 0x0e, 0x29, 7, 0, 0, 0, 2, 0, 0, 0x40, 0];
        assert_eq!(header.encode(), bytes);
        assert_eq!(PieceHeader::decode(&bytes), Some(header));
    }

    #[test]
    fn what_is_not_a_piece_header_is_refused() {
        let header = PieceHeader { index: 1, begin: 2, len: BLOCK_LEN };
        let with = |len: u32, id: u8| {
            let mut bytes = header.encode();
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4] = id;
            PieceHeader::decode(&bytes)
        };
        assert_eq!(with(BLOCK_LEN + 9, 7), Some(header));
        assert_eq!(with(10, 7).map(|header| header.len), Some(1));
        for (len, id) in [(BLOCK_LEN + 10, 7), (9, 7), (0, 7), (u32::MAX, 7), (100, 6)] {
            assert_eq!(with(len, id), None, "length {len}, id {id}");
        }
    }

    #[test]
    fn payloads_of_the_wrong_length_are_refused() {
        let payload = [0; 32];
        let exact = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 4), (6, 12), (8, 12), (9, 2)];
        let fast = [(13, 4), (14, 0), (15, 0), (16, 12), (17, 4)];
        for (id, expected) in exact.into_iter().chain(fast) {
            for len in 0..payload.len() {
                let message = Message::decode(id, &payload[..len]);
                assert_eq!(message.is_some(), len == expected, "id {id}, {len} bytes");
            }
        }
        assert_eq!(Message::decode(20, &[]), None);
        assert_eq!(Message::decode(7, &payload), None);
        assert_eq!(Message::decode(18, &payload), Some(Message::Unknown { id: 18 }));
    }
}
