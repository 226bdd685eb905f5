//! Magnet links: whatever is accepted must be fit for those who use it, and read back as itself.
#![no_main]

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;
use ringtide::meta::magnet::{Magnet, PEERS_MAX, PeerAddr, WEB_SEEDS_MAX, is_magnet};
use ringtide::meta::names;
use ringtide::meta::torrent::{TRACKERS_MAX, URL_LEN_MAX};

fuzz_target!(|text: &str| {
    let magnet = match Magnet::parse(text) {
        Ok(magnet) => magnet,
        Err(error) => {
            let line = error.to_string();
            return assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
        }
    };
    assert!(is_magnet(text));
    check(&magnet);
    // Written in another way it says the same.
    assert_eq!(Magnet::parse(&rewritten(&magnet)), Ok(magnet));
});

fn check(magnet: &Magnet) {
    if let Some(name) = &magnet.name {
        assert_eq!(names::element(name.as_bytes()).as_ref(), Some(name));
    }
    let lens = (magnet.trackers.len(), magnet.peers.len(), magnet.web_seeds.len());
    assert!(lens.0 <= TRACKERS_MAX && lens.1 <= PEERS_MAX && lens.2 <= WEB_SEEDS_MAX, "{lens:?}");
    for url in magnet.trackers.iter().chain(&magnet.web_seeds) {
        assert!(!url.is_empty() && url.len() <= URL_LEN_MAX, "{url:?}");
        assert!(!url.contains(|char: char| char.is_whitespace() || names::acts_on_text(char)), "{url:?}");
    }
    for peer in &magnet.peers {
        let (port, text) = match peer {
            PeerAddr::Ip(addr) => (addr.port(), addr.to_string()),
            PeerAddr::Host { name, port } => (*port, name.clone()),
        };
        assert!(port != 0 && text.bytes().all(|byte| byte.is_ascii_graphic()), "{peer}");
    }
    let ends =
        magnet.select.windows(2).all(|pair| u128::from(*pair[0].end()) + 1 < u128::from(*pair[1].start()));
    assert!(ends && magnet.select.iter().all(|range| range.start() <= range.end()), "{:?}", magnet.select);
}

/// Everything percent-encoded, the numbers in decimal, the hash in base 32 and last.
fn rewritten(magnet: &Magnet) -> String {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut link = "MAGNET:?x.unknown=1".to_owned();
    let mut add = |key: &str, value: &str| drop(write!(link, "&{key}={}", encode(value)));
    magnet.trackers.iter().enumerate().for_each(|(at, url)| add(&format!("tr.{at}"), url));
    magnet.web_seeds.iter().for_each(|url| add("ws", url));
    magnet.peers.iter().for_each(|peer| add("X.PE", &peer.to_string()));
    magnet.name.iter().for_each(|name| add("dn", name));
    magnet.select.iter().rev().for_each(|range| add("so", &format!("{}-{}", range.start(), range.end())));
    add("xt", &format!("urn:btih:{}", base32(&magnet.info_hash.0)));
    link
}

fn base32(bytes: &[u8; 20]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |bits: &[u8]| bits.iter().fold(0, |digit, bit| digit << 1 | usize::from(*bit));
    bits.chunks(5).map(|bits| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[digit(bits)])).collect()
}
