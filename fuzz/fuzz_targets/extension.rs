//! The handshake of the extension protocol: theirs, whatever it is, and ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Limits, Writer, parse};
use ringtide::wire::extension::{Offer, Offered};

fuzz_target!(|payload: &[u8]| {
    if let Some(reqq) = Offered::parse(payload).reqq {
        let stands_there = format!("4:reqqi{reqq}e");
        assert!(reqq > 0 && payload.windows(stands_there.len()).any(|at| at == stands_there.as_bytes()));
    }
    let Some((number, text)) = payload.split_first_chunk::<4>() else { return };
    let reqq = u32::from_be_bytes(*number);
    let expected = Offered { reqq: (reqq > 0).then_some(reqq) };
    let version = String::from_utf8_lossy(text);
    let ours = Offer { reqq, version: &version }.encode();
    let document = parse(&ours, Limits::PEER_MESSAGE).expect("ours is bencode");
    assert_eq!(document.root().get("v").and_then(|it| it.as_str()), Some(&*version));
    assert_eq!(Offered::parse(&ours), expected);

    // A peer's own value under another key changes nothing.
    let mut theirs = Vec::new();
    Writer::new(&mut theirs).dict(|dict| {
        dict.key("m").dict(|m| m.key("ut_metadata").integer(1));
        dict.key("reqq").integer(reqq);
        dict.key("x").bytes(text);
    });
    assert_eq!(Offered::parse(&theirs), expected);
});
