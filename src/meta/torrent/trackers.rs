//! The trackers that a torrent names. A bad one is skipped, because the others still work.

use crate::meta::bencode::{Kind, Value};
use crate::meta::names::acts_on_text;

/// Trackers that are kept, over all tiers.
pub const TRACKERS_MAX: usize = 256;
/// Bytes of a tracker's URL; a longer one is skipped.
pub const URL_LEN_MAX: usize = 2048;

/// The URL of the key `announce`.
pub(super) fn announce(root: Value<'_>) -> Option<String> {
    url(root.get("announce")?)
}

/// The tiers of `announce-list` (BEP 12), or where it has none, `announce` alone. Each tracker is kept once. A list
/// of plain strings, which some programs write, is read as tiers of one.
pub(super) fn tiers(root: Value<'_>, announce: Option<&String>) -> Vec<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut tiers = Vec::new();
    for tier in root.get("announce-list").and_then(Value::as_list).into_iter().flatten() {
        let single = (tier.kind() == Kind::Bytes).then_some(tier);
        let urls = tier.as_list().into_iter().flatten().chain(single).filter_map(url);
        let room = TRACKERS_MAX - seen.len();
        let tier: Vec<String> = urls.filter(|url| seen.insert(url.clone())).take(room).collect();
        if !tier.is_empty() {
            tiers.push(tier);
        }
        if seen.len() == TRACKERS_MAX {
            break;
        }
    }
    if tiers.is_empty() {
        tiers.extend(announce.map(|announce| vec![announce.clone()]));
    }
    tiers
}

fn url(value: Value<'_>) -> Option<String> {
    clean_url(value.as_str()?)
}

/// A URL that can be printed and asked: not empty, not overlong, without spaces and characters that act on a
/// terminal.
pub(in crate::meta) fn clean_url(text: &str) -> Option<String> {
    let url = text.trim();
    let odd = |char: char| acts_on_text(char) || char.is_whitespace();
    (!url.is_empty() && url.len() <= URL_LEN_MAX && !url.contains(odd)).then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::bencode::{Limits, Writer, parse};

    fn trackers(announce: Option<&str>, list: &[&[&str]]) -> (Option<String>, Vec<Vec<String>>) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).dict(|root| {
            if let Some(url) = announce {
                root.key("announce").bytes(url);
            }
            root.key("announce-list").list(|tiers| {
                for tier in list {
                    tiers.list(|urls| tier.iter().for_each(|url| urls.bytes(url)));
                }
            });
        });
        let document = parse(&bytes, Limits::METAINFO).unwrap();
        let announce = super::announce(document.root());
        let tiers = tiers(document.root(), announce.as_ref());
        (announce, tiers)
    }

    #[test]
    fn the_list_goes_before_the_single_one() {
        let (announce, tiers) = trackers(Some(" http://a/ "), &[&["http://b/", "udp://c/"], &["http://d/"]]);
        assert_eq!(announce.as_deref(), Some("http://a/"));
        assert_eq!(tiers, [vec!["http://b/", "udp://c/"], vec!["http://d/"]]);
        assert_eq!(trackers(Some("http://a/"), &[&[], &[""]]).1, [["http://a/"]]);
        assert_eq!(trackers(None, &[]), (None, vec![]));
    }

    #[test]
    fn bad_ones_and_repeated_ones_are_skipped() {
        let long = format!("http://{}/", "a".repeat(URL_LEN_MAX));
        let (announce, tiers) =
            trackers(Some("http://a/\nTracker URL: b"), &[&[&long, "x y", "http://b/"], &["http://b/"]]);
        assert_eq!(announce, None);
        assert_eq!(tiers, [["http://b/"]]);
    }

    #[test]
    fn there_are_at_most_so_many() {
        let urls: Vec<String> = (0..TRACKERS_MAX + 50).map(|number| format!("http://{number}/")).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let (first, second) = urls.split_at(200);
        let (_, tiers) = trackers(None, &[first, second, &["http://late/"]]);
        assert_eq!(tiers.iter().map(Vec::len).collect::<Vec<_>>(), [200, TRACKERS_MAX - 200]);
    }

    #[test]
    fn a_flat_list_is_read_too() {
        let document = parse(b"d13:announce-listl5:a://x5:b://yi1eee", Limits::METAINFO).unwrap();
        assert_eq!(tiers(document.root(), None), [["a://x"], ["b://y"]]);
    }
}
