//! The handshake: 68 bytes and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtide::wire::handshake::{EXTENSION, FAST, Handshake, HandshakeError, LEN};

fuzz_target!(|bytes: &[u8]| {
    let Some(bytes) = bytes.first_chunk::<LEN>() else { return };
    let proper = bytes[..20] == *b"\x13BitTorrent protocol";
    match Handshake::decode(bytes) {
        Ok(handshake) => {
            assert!(proper);
            assert_eq!(handshake.encode(), *bytes);
            assert_eq!(handshake.has(EXTENSION), bytes[25] & 0x10 != 0);
            assert_eq!(handshake.has(FAST), bytes[27] & 0x04 != 0);
        }
        Err(HandshakeError::ProtocolLength { got }) => assert!(got == bytes[0] && got != 19),
        Err(HandshakeError::Protocol) => assert!(bytes[0] == 19 && !proper),
    }
});
