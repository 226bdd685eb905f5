//! The messages of the metadata exchange (BEP 9), inside of extended messages: a small dictionary, and behind that of a
//! DATA the bytes of one piece of the info dictionary.

use std::fmt;

use crate::meta::bencode::{self, Limits, ParseError, Value};

/// Bytes of a piece of metadata; the last one may be shorter.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// A message. Borrows its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataMessage<'a> {
    /// The sender asks for a piece.
    Request {
        /// Its place, from 0.
        piece: u32,
    },
    /// A piece.
    Data {
        /// Its place, from 0.
        piece: u32,
        /// Bytes of all pieces, if the sender says so.
        total_len: Option<u64>,
        /// Its bytes, 1 to [`METADATA_PIECE_LEN`].
        data: &'a [u8],
    },
    /// The sender does not give that piece.
    Reject {
        /// Its place, from 0.
        piece: u32,
    },
    /// A type that is not known here, to be ignored (BEP 9).
    Unknown,
}

/// Why a payload is not a message of the metadata exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataError {
    /// It does not begin with bencode.
    Bencode(ParseError),
    /// A number is missing, is none, or is out of range.
    Number {
        /// Its key.
        key: &'static str,
    },
    /// The bytes behind the dictionary are none or too many.
    DataLen {
        /// How many they are.
        got: usize,
    },
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "a metadata message is not bencode at {error}"),
            Self::Number { key } => write!(f, "a metadata message has no valid `{key}`"),
            Self::DataLen { got } => {
                write!(f, "a metadata message carries {got} bytes, expected 1 to {METADATA_PIECE_LEN}")
            }
        }
    }
}

impl std::error::Error for MetadataError {}

impl<'a> MetadataMessage<'a> {
    /// Reads a payload. Bytes behind a REQUEST or a REJECT are ignored.
    pub fn parse(payload: &'a [u8]) -> Result<Self, MetadataError> {
        let (document, data) =
            bencode::parse_prefix(payload, Limits::PEER_MESSAGE).map_err(MetadataError::Bencode)?;
        let root = document.root();
        let number = |key| root.get(key).and_then(Value::as_u64).ok_or(MetadataError::Number { key });
        let piece = || u32::try_from(number("piece")?).map_err(|_| MetadataError::Number { key: "piece" });
        match number("msg_type")? {
            REQUEST => Ok(Self::Request { piece: piece()? }),
            DATA if data.is_empty() || data.len() > METADATA_PIECE_LEN as usize => {
                Err(MetadataError::DataLen { got: data.len() })
            }
            DATA => Ok(Self::Data { piece: piece()?, total_len: number("total_size").ok(), data }),
            REJECT => Ok(Self::Reject { piece: piece()? }),
            _ => Ok(Self::Unknown),
        }
    }

    /// The payload to send; empty for [`MetadataMessage::Unknown`].
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut dict = |kind, piece: u32, total_len: Option<u64>| {
            bencode::Writer::new(&mut payload).dict(|dict| {
                dict.key("msg_type").integer(kind);
                dict.key("piece").integer(piece);
                if let Some(len) = total_len {
                    dict.key("total_size").integer(len);
                }
            });
        };
        match *self {
            Self::Request { piece } => dict(REQUEST, piece, None),
            Self::Reject { piece } => dict(REJECT, piece, None),
            Self::Data { piece, total_len, data } => {
                dict(DATA, piece, total_len);
                payload.extend_from_slice(data);
            }
            Self::Unknown => {}
        }
        payload
    }
}

/// The values of `msg_type`.
const REQUEST: u64 = 0;
const DATA: u64 = 1;
const REJECT: u64 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_messages_are_those_of_the_bep() {
        let data = MetadataMessage::Data { piece: 0, total_len: Some(34256), data: b"xxx" };
        for (message, bytes) in [
            (MetadataMessage::Request { piece: 0 }, &b"d8:msg_typei0e5:piecei0ee"[..]),
            (data, b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxx"),
            (MetadataMessage::Reject { piece: 7 }, b"d8:msg_typei2e5:piecei7ee"),
        ] {
            assert_eq!(message.encode(), bytes);
            assert_eq!(MetadataMessage::parse(bytes), Ok(message));
        }
    }

    #[test]
    fn what_can_be_understood_is() {
        for (bytes, expected) in [
            (&b"d5:piecei1e8:msg_typei0eerest"[..], MetadataMessage::Request { piece: 1 }),
            (b"d8:msg_typei3ee", MetadataMessage::Unknown),
            (b"d8:msg_typei1e5:piecei2eex", MetadataMessage::Data { piece: 2, total_len: None, data: b"x" }),
        ] {
            assert_eq!(MetadataMessage::parse(bytes), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_is_refused() {
        let long = [&b"d8:msg_typei1e5:piecei0ee"[..], &[0; METADATA_PIECE_LEN as usize + 1]].concat();
        for (bytes, expected) in [
            (&b"le"[..], MetadataError::Number { key: "msg_type" }),
            (b"d8:msg_typei-1e5:piecei0ee", MetadataError::Number { key: "msg_type" }),
            (b"d8:msg_typei0ee", MetadataError::Number { key: "piece" }),
            (b"d8:msg_typei2e5:piecei4294967296ee", MetadataError::Number { key: "piece" }),
            (b"d8:msg_typei1e5:piecei0ee", MetadataError::DataLen { got: 0 }),
            (&long, MetadataError::DataLen { got: METADATA_PIECE_LEN as usize + 1 }),
        ] {
            assert_eq!(MetadataMessage::parse(bytes), Err(expected));
        }
        for bytes in [&b""[..], b"d8:msg_type", b"d8:msg_typei0e", b"x"] {
            assert!(matches!(MetadataMessage::parse(bytes), Err(MetadataError::Bencode(_))));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(piece: u32, len: Option<u64>, data in prop::collection::vec(any::<u8>(), 1..99)) {
            let message = MetadataMessage::Data { piece, total_len: len, data: &data };
            let bytes = message.encode();
            prop_assert_eq!(MetadataMessage::parse(&bytes), Ok(message));
        }
    }
}
