//! Where a torrent says that its content is to be had: trackers, nodes of the DHT, web seeds. A bad one is skipped,
//! because the others still work.

use crate::meta::bencode::{Kind, List, Value};
use crate::meta::magnet::{PeerAddr, WEB_SEEDS_MAX};
use crate::meta::names::acts_on_text;

/// Trackers that are kept, over all tiers.
pub const TRACKERS_MAX: usize = 256;
/// Bytes of a tracker's URL; a longer one is skipped.
pub const URL_LEN_MAX: usize = 2048;
/// Nodes of the DHT that are kept.
pub const NODES_MAX: usize = 32;

/// The URL of the key `announce`; of a list, which some programs write, the first.
pub(super) fn announce(root: Value<'_>) -> Option<String> {
    each(root.get("announce")?).find_map(url)
}

/// The tiers of `announce-list` (BEP 12), or where it has none, `announce` alone. Each tracker is kept once. A list
/// of plain strings and a plain string, which some programs write, are read as tiers of one.
pub(super) fn tiers(root: Value<'_>, announce: Option<&String>) -> Vec<Vec<String>> {
    let mut tiers = distinct(root.get("announce-list").into_iter().flat_map(each));
    if tiers.is_empty() {
        tiers = distinct(root.get("announce").into_iter().flat_map(each));
    }
    if tiers.is_empty() {
        tiers.extend(announce.map(|announce| vec![announce.clone()]));
    }
    tiers
}

/// The URLs of each tier that were in none before.
fn distinct<'a>(values: impl Iterator<Item = Value<'a>>) -> Vec<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut tiers = Vec::new();
    for tier in values {
        let room = TRACKERS_MAX - seen.len();
        let urls = each(tier).filter_map(url);
        let tier: Vec<String> = urls.filter(|url| seen.insert(url.clone())).take(room).collect();
        if !tier.is_empty() {
            tiers.push(tier);
        }
        if seen.len() == TRACKERS_MAX {
            break;
        }
    }
    tiers
}

/// The web seeds of the keys `url-list` (BEP 19) and `httpseeds` (BEP 17).
pub(super) fn web_seeds(root: Value<'_>) -> Vec<String> {
    let values = ["url-list", "httpseeds"].into_iter().filter_map(|key| root.get(key)).flat_map(each);
    let mut seeds: Vec<String> = Vec::new();
    for seed in values.filter_map(url) {
        if seeds.len() < WEB_SEEDS_MAX && !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}

/// The nodes of the key `nodes` (BEP 5): lists of a host and a port, or such texts as `host:port`.
pub(super) fn nodes(root: Value<'_>) -> Vec<PeerAddr> {
    let nodes = root.get("nodes").and_then(Value::as_list).into_iter().flatten().filter_map(node);
    nodes.take(NODES_MAX).collect()
}

fn node(value: Value<'_>) -> Option<PeerAddr> {
    let Some(mut pair) = value.as_list() else { return PeerAddr::parse(value.as_str()?.trim()) };
    let host = pair.next()?.as_str()?.trim();
    let port = pair.next()?;
    let port = port.as_u64().or_else(|| port.as_str()?.trim().parse().ok())?;
    PeerAddr::parse(&format!("{host}:{port}"))
}

/// The elements of a list, or the value itself if it is none.
fn each(value: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    let single = (value.kind() == Kind::Bytes).then_some(value);
    value.as_list().into_iter().flat_map(|list: List<'_>| list).chain(single)
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

    fn read<T>(bytes: &[u8], read: impl Fn(Value<'_>) -> T) -> T {
        read(parse(bytes, Limits::METAINFO).unwrap().root())
    }

    #[test]
    fn other_forms_of_the_lists_are_read_too() {
        let both = |bytes: &[u8]| read(bytes, |root| (announce(root), tiers(root, announce(root).as_ref())));
        let one = |url: &str| Some(url.to_owned());
        let tier = |urls: &[&str]| urls.iter().map(|url| vec![(*url).to_owned()]).collect::<Vec<_>>();
        assert_eq!(both(b"d13:announce-listl5:a://x5:b://yi1eee"), (None, tier(&["a://x", "b://y"])));
        assert_eq!(both(b"d13:announce-list5:a://xe"), (None, tier(&["a://x"])));
        assert_eq!(both(b"d8:announcel5:a://x5:b://yee"), (one("a://x"), tier(&["a://x", "b://y"])));
        assert_eq!(both(b"d8:announcei5e13:announce-listdee"), (None, vec![]));
        assert_eq!(both(b"d8:announce5:a://x13:announce-listi5ee"), (one("a://x"), tier(&["a://x"])));
    }

    #[test]
    fn web_seeds_stand_under_two_keys_in_two_forms() {
        let seeds = |bytes: &[u8]| read(bytes, web_seeds);
        assert_eq!(seeds(b"d8:url-list5:a://xe"), ["a://x"]);
        assert_eq!(seeds(b"d9:httpseedsl5:c://ze8:url-listl5:a://x5:a://x0:ee"), ["a://x", "c://z"]);
        assert_eq!(seeds(b"d8:url-listi1ee"), Vec::<String>::new());
    }

    #[test]
    fn nodes_are_addresses_or_names() {
        let nodes = read(
            b"d5:nodesll9:127.0.0.1i6881eel11:router.testi80eel3:::1i9eel5:[::2]2:10el1:ai0eel1:bi65536ee\
              l1:ci-1eeli1ei2ee9:1.2.3.4:5i7eleee",
            nodes,
        );
        let told: Vec<String> = nodes.iter().map(PeerAddr::to_string).collect();
        assert_eq!(told, ["127.0.0.1:6881", "router.test:80", "[::1]:9", "[::2]:10", "1.2.3.4:5"]);
    }
}
