//! The 68 bytes that open a connection in both directions (BEP 3).

use std::fmt;

/// Bytes of a handshake on the wire.
pub const LEN: usize = 68;

/// The reserved bit of a peer that speaks the extension protocol (BEP 10), `reserved[5] & 0x10`.
pub const EXTENSION: u64 = 1 << 20;

/// The reserved bit of a peer that speaks the fast extension (BEP 6), `reserved[7] & 0x04`.
pub const FAST: u64 = 1 << 2;

/// What a peer says first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Eight bytes of feature bits, see [`Handshake::has`].
    pub reserved: [u8; 8],
    /// The SHA-1 of the torrent's info dictionary.
    pub info_hash: [u8; 20],
    /// The name that the peer gave itself.
    pub peer_id: [u8; 20],
}

/// The info hash in the first bytes of a handshake; `None` while it has not come. It fails as soon as what has come
/// cannot become a handshake: who is called does not have to wait for the rest of it.
pub fn called(bytes: &[u8]) -> Result<Option<[u8; 20]>, HandshakeError> {
    let head = &bytes[..bytes.len().min(PROTOCOL.len())];
    match head.first() {
        Some(&got) if got != PROTOCOL[0] => Err(HandshakeError::ProtocolLength { got }),
        _ if !PROTOCOL.starts_with(head) => Err(HandshakeError::Protocol),
        _ => Ok(bytes.get(28..).and_then(|rest| rest.first_chunk()).copied()),
    }
}

impl Handshake {
    /// A handshake that announces the given features: [`EXTENSION`], [`FAST`], their union or 0.
    pub const fn new(features: u64, info_hash: [u8; 20], peer_id: [u8; 20]) -> Self {
        Self { reserved: features.to_be_bytes(), info_hash, peer_id }
    }

    /// Whether it announces all of these features.
    pub const fn has(&self, features: u64) -> bool {
        u64::from_be_bytes(self.reserved) & features == features
    }

    /// The bytes to send.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let (head, rest) = out.split_at_mut(PROTOCOL.len());
        head.copy_from_slice(PROTOCOL);
        let (reserved, rest) = rest.split_at_mut(8);
        reserved.copy_from_slice(&self.reserved);
        let (info_hash, peer_id) = rest.split_at_mut(20);
        info_hash.copy_from_slice(&self.info_hash);
        peer_id.copy_from_slice(&self.peer_id);
        out
    }

    /// What those bytes say. Whether the info hash is ours is for the caller to compare.
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self, HandshakeError> {
        let (head, rest) = bytes.split_at(PROTOCOL.len());
        if head[0] != PROTOCOL[0] {
            return Err(HandshakeError::ProtocolLength { got: head[0] });
        }
        if head != PROTOCOL {
            return Err(HandshakeError::Protocol);
        }
        let mut handshake = Self::new(0, [0; 20], [0; 20]);
        let (reserved, rest) = rest.split_at(8);
        handshake.reserved.copy_from_slice(reserved);
        let (info_hash, peer_id) = rest.split_at(20);
        handshake.info_hash.copy_from_slice(info_hash);
        handshake.peer_id.copy_from_slice(peer_id);
        Ok(handshake)
    }
}

/// Why 68 bytes are not a handshake: the other end is not a BitTorrent peer, or it is an encrypted one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// The first byte is not the length of the protocol's name.
    ProtocolLength {
        /// That byte.
        got: u8,
    },
    /// The name has the right length but is another one.
    Protocol,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ProtocolLength { got } => {
                write!(f, "handshake starts with byte {got}, expected {}", PROTOCOL[0])
            }
            Self::Protocol => write!(f, "handshake names another protocol, expected \"BitTorrent protocol\""),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// The protocol's name behind its length.
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_that_of_bep_3() {
        let bytes = Handshake::new(EXTENSION | FAST, [0xaa; 20], [0xbb; 20]).encode();
        assert_eq!(&bytes[..20], b"\x13BitTorrent protocol");
        assert_eq!(bytes[20..28], [0, 0, 0, 0, 0, 0x10, 0, 0x04]);
        assert_eq!(bytes[28..48], [0xaa; 20]);
        assert_eq!(bytes[48..], [0xbb; 20]);
    }

    #[test]
    fn features_are_single_bits() {
        let both = Handshake::new(EXTENSION | FAST, [0; 20], [0; 20]);
        assert!(both.has(EXTENSION) && both.has(FAST) && both.has(EXTENSION | FAST));
        let one = Handshake::new(EXTENSION, [0; 20], [0; 20]);
        assert!(one.has(EXTENSION) && !one.has(FAST) && !one.has(EXTENSION | FAST));
    }

    #[test]
    fn another_protocol_is_refused() {
        let good = Handshake::new(0, [1; 20], [2; 20]).encode();
        let mut wrong_length = good;
        wrong_length[0] = 18;
        assert_eq!(Handshake::decode(&wrong_length), Err(HandshakeError::ProtocolLength { got: 18 }));
        let mut wrong_name = good;
        wrong_name[19] = b'L';
        assert_eq!(Handshake::decode(&wrong_name), Err(HandshakeError::Protocol));
    }

    #[test]
    fn a_caller_is_known_by_its_info_hash_or_sent_away_at_once() {
        let good = Handshake::new(0, [1; 20], [2; 20]).encode();
        for len in 0..=LEN {
            let expected = (len >= 48).then_some([1; 20]);
            assert_eq!(called(&good[..len]), Ok(expected), "{len} bytes");
        }
        assert_eq!(called(b"\x14"), Err(HandshakeError::ProtocolLength { got: 0x14 }));
        assert_eq!(called(b"GET / HTTP/1.1"), Err(HandshakeError::ProtocolLength { got: b'G' }));
        assert_eq!(called(b"\x13BitTorrenT"), Err(HandshakeError::Protocol));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20]) {
            let handshake = Handshake { reserved, info_hash, peer_id };
            prop_assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
        }
    }
}
