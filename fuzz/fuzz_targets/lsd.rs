//! Announces on the local network, read as the slow and obvious version reads them.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use ringtide::discovery::lsd::message::{COOKIE_LEN_MAX, INFO_HASHES_MAX, MESSAGE_LEN_MAX, Search};
use ringtide::discovery::lsd::{GROUP_V4, GROUP_V6, PORT};

fuzz_target!(|datagram: &[u8]| {
    let search = Search::parse(datagram).ok();
    assert_eq!(search, obvious(datagram));
    let Some(search) = search else { return };
    assert!((1..=INFO_HASHES_MAX).contains(&search.info_hashes.len()));
    for group in [SocketAddr::from((GROUP_V4, PORT)), (GROUP_V6, PORT).into()] {
        let bytes = search.encode(group);
        assert!(bytes.len() <= MESSAGE_LEN_MAX);
        assert_eq!(Search::parse(&bytes).as_ref(), Ok(&search));
    }
});

/// The same by way of text: a character for each byte.
fn obvious(datagram: &[u8]) -> Option<Search> {
    let is_space = |c: char| c.is_ascii_whitespace();
    let text: String = datagram.iter().map(|&byte| char::from(byte)).collect();
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches(is_space)).collect();
    let words: Vec<String> =
        lines[0].split(is_space).filter(|word| !word.is_empty()).map(str::to_ascii_uppercase).collect();
    let is_search = words.len() >= 3
        && words[0] == "BT-SEARCH"
        && words[1] == "*"
        && ["HTTP/1.0", "HTTP/1.1"].contains(&words[2].as_str());
    let headers: Vec<(String, &str)> = lines[1..]
        .iter()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim_matches(is_space).to_ascii_lowercase(), value.trim_matches(is_space)))
        .collect();
    let values = |wanted: &str| -> Vec<&str> {
        headers.iter().filter(|(name, _)| name == wanted).map(|&(_, value)| value).collect()
    };
    let ports: Option<Vec<u16>> = values("port")
        .iter()
        .map(|port| port.parse().ok().filter(|&number| number > 0 && !port.starts_with('+')))
        .collect();
    let ports = ports?;
    let info_hashes =
        values("infohash").into_iter().filter_map(unhex).take(INFO_HASHES_MAX).collect::<Vec<_>>();
    let is_line = |cookie: &&&str| {
        (1..=COOKIE_LEN_MAX).contains(&cookie.chars().count()) && cookie.chars().all(|c| c.is_ascii_graphic())
    };
    let cookie = values("cookie").iter().filter(is_line).next_back().map(|&cookie| cookie.to_owned());
    let is_whole = datagram.len() <= MESSAGE_LEN_MAX && is_search && !info_hashes.is_empty();
    let is_one = ports.iter().all(|port| *port == ports[0]);
    let port = (*ports.first()?).try_into().ok()?;
    (is_whole && is_one).then_some(Search { port, info_hashes, cookie })
}

fn unhex(text: &str) -> Option<[u8; 20]> {
    let is_hex = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("two digits");
    is_hex.then(|| std::array::from_fn(byte))
}
