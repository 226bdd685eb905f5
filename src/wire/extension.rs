//! The handshake of the extension protocol (BEP 10): which extensions a peer speaks and under which number.

/// The id of the handshake among extended messages; other ids are those that the receiver's handshake chose.
pub const HANDSHAKE_ID: u8 = 0;

/// What our handshake tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer<'a> {
    /// The id under which we take metadata messages (BEP 9), not 0.
    pub ut_metadata: u8,
    /// How many requests we hold without dropping any.
    pub reqq: u32,
    /// The name and version of this client.
    pub version: &'a str,
}

impl Offer<'_> {
    /// The payload of our handshake, a message of [`HANDSHAKE_ID`]. The keys are sorted, as bencode wants it.
    pub fn encode(&self) -> Vec<u8> {
        let Self { ut_metadata, reqq, version } = self;
        let version_len = version.len();
        format!("d1:md11:ut_metadatai{ut_metadata}ee4:reqqi{reqq}e1:v{version_len}:{version}e").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_handshake_is_a_sorted_dictionary() {
        let offer = Offer { ut_metadata: 3, reqq: 250, version: "ringtide 0.1.0" };
        assert_eq!(offer.encode(), b"d1:md11:ut_metadatai3ee4:reqqi250e1:v14:ringtide 0.1.0e");
    }
}
