//! The handshake of the extension protocol: theirs, whatever it is, and ours.
#![no_main]

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Limits, Writer, parse};
use ringtide::wire::extension::{CLIENT_LEN_MAX, OUR_METADATA_ID, OUR_PEX_ID, Offer, Offered};

fuzz_target!(|payload: &[u8]| {
    if let Some(reqq) = Offered::parse(payload).reqq {
        // There may be zeroes, a sign or spaces around it.
        let stands_there = reqq.to_string();
        assert!(payload.windows(stands_there.len()).any(|at| at == stands_there.as_bytes()));
    }
    let Some((number, text)) = payload.split_first_chunk::<4>() else { return };
    let reqq = u32::from_be_bytes(*number);
    let [flags, .., low] = *number;
    let port = u16::from(low) * 257;
    let version = String::from_utf8_lossy(text);
    let offer = Offer {
        metadata: flags & 1 != 0,
        pex: flags & 2 != 0,
        reqq,
        port: (flags & 4 != 0).then_some(port),
        your_ip: (flags & 8 != 0).then_some(IpAddr::from(*number)),
        version: &version,
    };
    let shown =
        String::from_utf8_lossy(&version.as_bytes()[..version.len().min(CLIENT_LEN_MAX)]).into_owned();
    let expected = Offered {
        metadata: NonZeroU8::new(OUR_METADATA_ID).filter(|_| offer.metadata),
        metadata_size: None,
        pex: NonZeroU8::new(OUR_PEX_ID).filter(|_| offer.pex),
        ends_pex: false,
        port: offer.port.and_then(NonZeroU16::new),
        reqq: NonZeroU32::new(reqq),
        your_ip: offer.your_ip,
        client: (!shown.is_empty()).then(|| shown.into()),
    };
    let ours = offer.encode();
    let document = parse(&ours, Limits::PEER_MESSAGE).expect("ours is bencode");
    assert_eq!(document.root().get("v").and_then(|it| it.as_str()), Some(&*version));
    assert_eq!(Offered::parse(&ours), expected);

    // A peer's own value under another key changes nothing.
    let mut theirs = Vec::new();
    Writer::new(&mut theirs).dict(|dict| {
        dict.key("m").dict(|m| m.key("ut_other").integer(1));
        dict.key("reqq").integer(reqq);
        dict.key("x").bytes(text);
    });
    assert_eq!(Offered::parse(&theirs), Offered { reqq: expected.reqq, ..Offered::default() });
});
