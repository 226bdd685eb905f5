//! The magnet link of a torrent, for people who want to pass it on.

use std::fmt::Write as _;

use super::torrent::Metainfo;

/// The link with the torrent's name, trackers and web seeds.
pub fn magnet_link(metainfo: &Metainfo) -> String {
    let mut link = format!("magnet:?xt=urn:btih:{}", metainfo.info_hash);
    let mut parameter = |key: &str, value: &str| {
        link.push_str(key);
        push_encoded(&mut link, value);
    };
    parameter("&dn=", &metainfo.name);
    metainfo.tiers.iter().flatten().for_each(|url| parameter("&tr=", url));
    metainfo.web_seeds.iter().for_each(|url| parameter("&ws=", url));
    link
}

/// Appends a text with all but letters, digits and `-._~` as `%XX`.
fn push_encoded(link: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            link.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(link, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::magnet::Magnet;

    #[test]
    fn the_link_says_what_the_torrent_says() {
        let bytes =
            b"d8:announce14:http://t/a?b=c4:infod6:lengthi1e4:name5:a & b12:piece lengthi16384e6:pieces20:\
                      aaaaaaaaaaaaaaaaaaaae8:url-list12:http://w/\xc3\xa9#e";
        let metainfo = Metainfo::parse(bytes).unwrap();
        let link = magnet_link(&metainfo);
        assert!(
            link.ends_with("&dn=a%20%26%20b&tr=http%3A%2F%2Ft%2Fa%3Fb%3Dc&ws=http%3A%2F%2Fw%2F%C3%A9%23")
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.info_hash, metainfo.info_hash);
        assert_eq!((magnet.name.as_deref(), magnet.tiers()), (Some("a & b"), metainfo.tiers));
        assert_eq!(magnet.web_seeds, metainfo.web_seeds);
    }
}
