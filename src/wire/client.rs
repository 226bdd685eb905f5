//! The names of peers' programs, as far as their ids tell (BEP 20).

/// The programs that are met, by the two letters of their ids.
const NAMES: &[(&[u8; 2], &str)] = &[
    (b"A2", "aria2"),
    (b"AG", "Ares"),
    (b"AZ", "Vuze"),
    (b"BC", "BitComet"),
    (b"BI", "BiglyBT"),
    (b"BT", "BitTorrent"),
    (b"DE", "Deluge"),
    (b"FD", "Free Download Manager"),
    (b"FL", "Folx"),
    (b"FW", "FrostWire"),
    (b"KT", "KTorrent"),
    (b"LT", "libtorrent"),
    (b"PI", "PicoTorrent"),
    (b"Ri", "ringtide"),
    (b"SD", "Xunlei"),
    (b"TL", "Tribler"),
    (b"TR", "Transmission"),
    (b"TX", "Tixati"),
    (b"UM", "uTorrent Mac"),
    (b"UT", "uTorrent"),
    (b"WW", "WebTorrent"),
    (b"XL", "Xunlei"),
    (b"lt", "rTorrent"),
    (b"qB", "qBittorrent"),
    (b"rQ", "rqbit"),
];

/// The name and version of the program that calls itself by that id, or the readable beginning of the id.
pub fn client_name(peer_id: &[u8; 20]) -> String {
    if let [b'-', one, two, version @ .., b'-'] = &peer_id[..8]
        && let Some((_, name)) = NAMES.iter().find(|(letters, _)| *letters == &[*one, *two])
    {
        return format!("{name}{}", dotted(version));
    }
    let readable = peer_id.iter().take(8).take_while(|byte| byte.is_ascii_graphic());
    let readable: String = readable.map(|&byte| char::from(byte)).collect();
    if readable.is_empty() { "unknown".to_owned() } else { readable }
}

/// The digits of a version, of which letters are those above 9, with dots between them. Zeroes at the end say nothing.
fn dotted(version: &[u8]) -> String {
    let Some(mut digits) =
        version.iter().map(|&digit| char::from(digit).to_digit(36)).collect::<Option<Vec<_>>>()
    else {
        return String::new();
    };
    while digits.len() > 2 && digits.last() == Some(&0) {
        digits.pop();
    }
    let digits: Vec<String> = digits.iter().map(u32::to_string).collect();
    format!(" {}", digits.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_ids() {
        for (id, name) in [
            (b"-TR4060-abcdefghijkl", "Transmission 4.0.6"),
            (b"-lt0D80-abcdefghijkl", "rTorrent 0.13.8"),
            (b"-LT20B0-\x00bcdefghijkl", "libtorrent 2.0.11"),
            (b"-qB5000-abcdefghijkl", "qBittorrent 5.0"),
            (b"-TR_4.0-abcdefghijkl", "Transmission"),
            (b"-??1000-abcdefghijkl", "-??1000-"),
            (b"A2-1-36-0-abcdefghij", "A2-1-36-"),
            (b"M7-9-2--abcdefghijkl", "M7-9-2--"),
            (b"exbc\x08\x01abcdefghijklmn", "exbc"),
            (b"\x1b[31mabcdefghijklmno", "unknown"),
            (b"-TR\xff\xff\xff\xff-abcdefghijkl", "Transmission"),
        ] {
            assert_eq!(client_name(id), name, "{}", id.escape_ascii());
        }
    }
}
