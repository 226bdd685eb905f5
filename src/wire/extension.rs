//! The handshake of the extension protocol (BEP 10): which extensions a peer speaks and under which number.

use crate::meta::bencode;

/// The id of the handshake among extended messages; other ids are those that the receiver's handshake chose.
pub const HANDSHAKE_ID: u8 = 0;

/// What our handshake tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer<'a> {
    /// How many requests we hold without dropping any.
    pub reqq: u32,
    /// The name and version of this client.
    pub version: &'a str,
}

impl Offer<'_> {
    /// The payload of our handshake, a message of [`HANDSHAKE_ID`]. The keys are sorted, as bencode wants it.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        bencode::Writer::new(&mut payload).dict(|dict| {
            dict.key("m").dict(|_| {});
            dict.key("reqq").integer(self.reqq);
            dict.key("v").bytes(self.version);
        });
        payload
    }
}

/// What a peer's handshake tells, as far as it is used. A part that is missing or makes no sense is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offered {
    /// How many requests it holds without dropping any, at least 1.
    pub reqq: Option<u32>,
}

impl Offered {
    /// Reads the payload of a handshake. Peers send all sorts of things here, so nothing in it is an error.
    pub fn parse(payload: &[u8]) -> Self {
        let Ok(document) = bencode::parse(payload, bencode::Limits::PEER_MESSAGE) else {
            return Self::default();
        };
        let number = |key: &str| document.root().get(key)?.as_u64();
        let reqq = number("reqq").filter(|&reqq| reqq > 0).and_then(|reqq| u32::try_from(reqq).ok());
        Self { reqq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_handshake_is_a_sorted_dictionary() {
        let offer = Offer { reqq: 250, version: "ringtide 0.1.0" };
        assert_eq!(offer.encode(), b"d1:mde4:reqqi250e1:v14:ringtide 0.1.0e");
    }

    #[test]
    fn only_what_makes_sense_is_taken_from_theirs() {
        let reqq = |payload: &[u8]| Offered::parse(payload).reqq;
        assert_eq!(reqq(b"d1:md11:ut_metadatai3ee4:reqqi2000e1:v7:someonee"), Some(2000));
        for payload in [
            &b"d4:reqqi0ee"[..],
            b"d4:reqqi-5ee",
            b"d4:reqqi99999999999ee",
            b"d4:reqq3:abce",
            b"d4:reqqi5e",
            b"le",
            b"",
        ] {
            assert_eq!(reqq(payload), None, "{}", payload.escape_ascii());
        }
    }
}
