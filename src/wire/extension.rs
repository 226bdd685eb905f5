//! The handshake of the extension protocol (BEP 10): which extensions a peer speaks and under which number.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};

use crate::meta::bencode;

/// The id of the handshake among extended messages; other ids are those that the receiver's handshake chose.
pub const HANDSHAKE_ID: u8 = 0;

/// The number under which we take messages of the metadata exchange (BEP 9).
pub const OUR_METADATA_ID: u8 = 1;

/// The number under which we take messages of the peer exchange (BEP 11).
pub const OUR_PEX_ID: u8 = 2;

/// What our handshake tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer<'a> {
    /// Whether we take part in the metadata exchange, as [`OUR_METADATA_ID`].
    pub metadata: bool,
    /// Whether we take part in the peer exchange, as [`OUR_PEX_ID`].
    pub pex: bool,
    /// How many requests we hold without dropping any.
    pub reqq: u32,
    /// Where we listen, if we do.
    pub port: Option<u16>,
    /// The address at which we see the peer.
    pub your_ip: Option<IpAddr>,
    /// The name and version of this client.
    pub version: &'a str,
}

impl Offer<'_> {
    /// The payload of our handshake, a message of [`HANDSHAKE_ID`]. The keys are sorted, as bencode wants it.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        bencode::Writer::new(&mut payload).dict(|dict| {
            dict.key("m").dict(|names| {
                if self.metadata {
                    names.key("ut_metadata").integer(OUR_METADATA_ID);
                }
                if self.pex {
                    names.key("ut_pex").integer(OUR_PEX_ID);
                }
            });
            if let Some(port) = self.port {
                dict.key("p").integer(port);
            }
            dict.key("reqq").integer(self.reqq);
            dict.key("v").bytes(self.version);
            match self.your_ip.map(|ip| ip.to_canonical()) {
                Some(IpAddr::V4(ip)) => dict.key("yourip").bytes(ip.octets()),
                Some(IpAddr::V6(ip)) => dict.key("yourip").bytes(ip.octets()),
                None => {}
            }
        });
        payload
    }
}

/// What a peer's handshake tells, as far as it is used. A part that is missing or makes no sense is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offered {
    /// The number under which it takes messages of the metadata exchange (BEP 9).
    pub metadata: Option<NonZeroU8>,
    /// The bytes of the info dictionary, if it has one to give.
    pub metadata_size: Option<u64>,
    /// The number under which it takes messages of the peer exchange (BEP 11).
    pub pex: Option<NonZeroU8>,
    /// Whether it says that it takes no messages of the peer exchange, or no longer.
    pub ends_pex: bool,
    /// Where it listens.
    pub port: Option<NonZeroU16>,
    /// How many requests it holds without dropping any.
    pub reqq: Option<NonZeroU32>,
    /// The address at which it sees us.
    pub your_ip: Option<IpAddr>,
    /// The name of its program, which may be any text of up to [`CLIENT_LEN_MAX`] bytes.
    pub client: Option<Box<str>>,
}

impl Offered {
    /// Reads the payload of a handshake. Peers send all sorts of things here, so nothing in it is an error.
    pub fn parse(payload: &[u8]) -> Self {
        let Ok(document) = bencode::parse(payload, bencode::Limits::PEER_MESSAGE) else {
            return Self::default();
        };
        let root = document.root();
        let number = |key: &str| root.get(key)?.as_u64();
        let name = |key: &str| NonZeroU8::new(root.get("m")?.get(key)?.as_u64()?.try_into().ok()?);
        Self {
            metadata: name("ut_metadata"),
            metadata_size: number("metadata_size").filter(|&size| size > 0),
            pex: name("ut_pex"),
            ends_pex: root.get("m").and_then(|names| names.get("ut_pex")?.as_u64()) == Some(0),
            port: number("p").and_then(|port| NonZeroU16::new(port.try_into().ok()?)),
            reqq: number("reqq").and_then(|reqq| NonZeroU32::new(reqq.try_into().ok()?)),
            client: root.get("v").and_then(|name| client(name.as_bytes()?)),
            your_ip: root.get("yourip").and_then(|ip| address(ip.as_bytes()?)),
        }
    }
}

/// Bytes of a program's name that are kept.
pub const CLIENT_LEN_MAX: usize = 64;

/// The beginning of a program's name; `None` for an empty one.
fn client(name: &[u8]) -> Option<Box<str>> {
    let name = &name[..name.len().min(CLIENT_LEN_MAX)];
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into())
}

/// An IP address of either family, by its length.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer<'_> = Offer {
        metadata: false,
        pex: false,
        reqq: 250,
        port: None,
        your_ip: None,
        version: "ringtide 0.1.0",
    };

    #[test]
    fn our_handshake_is_a_sorted_dictionary() {
        assert_eq!(OFFER.encode(), b"d1:mde4:reqqi250e1:v14:ringtide 0.1.0e");
        let offer = Offer {
            metadata: true,
            pex: true,
            port: Some(6881),
            your_ip: Some("::ffff:1.2.3.4".parse().unwrap()),
            ..OFFER
        };
        let expected = b"d1:md11:ut_metadatai1e6:ut_pexi2ee1:pi6881e4:reqqi250e1:v14:ringtide 0.1.06:yourip4:\x01\x02\x03\x04e";
        assert_eq!(offer.encode(), expected);
    }

    #[test]
    fn theirs_is_read() {
        let payload =
            b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi2000e1:v7:someone6:yourip4:\x01\x02\x03\x04e";
        let offered = Offered {
            metadata: NonZeroU8::new(3),
            metadata_size: Some(31235),
            pex: NonZeroU8::new(1),
            ends_pex: false,
            port: NonZeroU16::new(6881),
            reqq: NonZeroU32::new(2000),
            your_ip: Some("1.2.3.4".parse().unwrap()),
            client: Some("someone".into()),
        };
        assert_eq!(Offered::parse(payload), offered);
        let long = [b"d1:v1000:".to_vec(), vec![b'x'; 1000], b"e".to_vec()].concat();
        assert_eq!(Offered::parse(&long).client.unwrap().len(), CLIENT_LEN_MAX);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for payload in [
            &b"d4:reqqi0ee"[..],
            b"d4:reqqi-5ee",
            b"d4:reqqi99999999999ee",
            b"d4:reqq3:abce",
            b"d4:reqqi5e",
            b"d1:md11:ut_metadatai0e6:ut_pexi256eee",
            b"d1:md6:ut_pexi-1eee",
            b"d1:mi3e13:metadata_sizei0ee",
            b"d13:metadata_sizei-1e1:pi65536ee",
            b"d6:yourip5:abcdee",
            b"d6:youripi5ee",
            b"d1:vi5ee",
            b"d1:v0:e",
            b"le",
            b"",
        ] {
            assert_eq!(Offered::parse(payload), Offered::default(), "{}", payload.escape_ascii());
        }
        assert!(Offered::parse(b"d1:md6:ut_pexi0eee").ends_pex);
    }
}
