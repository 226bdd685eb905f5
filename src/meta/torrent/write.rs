//! A torrent file made of an info dictionary that came from peers, and what is needed to know it again.

use super::{TorrentError, open};
use crate::meta::bencode::{Value, Writer};

/// What the key `created by` of a file says that this program made of a link.
const CREATED_BY: &[u8] = b"ringtide";

/// A torrent file of an info dictionary, whose bytes must be bencode, with these trackers.
pub fn torrent_file(info: &[u8], tiers: &[Vec<String>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(info.len() + 1024);
    Writer::new(&mut bytes).dict(|root| {
        if let Some(announce) = tiers.iter().flatten().next() {
            root.key("announce").bytes(announce);
            root.key("announce-list").list(|list| {
                for tier in tiers {
                    list.list(|urls| tier.iter().for_each(|url| urls.bytes(url)));
                }
            });
        }
        root.key("created by").bytes(CREATED_BY);
        root.key("info").raw(info);
    });
    bytes
}

/// The info dictionary of a torrent file, as it stands there.
///
/// # Errors
/// Where the bytes are no torrent file. What is in the dictionary is not looked at.
pub fn info_of(torrent: &[u8]) -> Result<Vec<u8>, TorrentError> {
    let document = open(torrent)?;
    let info = document.root().get("info").map(|info| info.raw().to_vec());
    info.ok_or(TorrentError::Missing(super::Field::new("info")))
}

/// Whether a file is one that [`torrent_file`] has made.
pub fn is_our_torrent_file(bytes: &[u8]) -> bool {
    open(bytes).is_ok_and(|document| {
        let creator = document.root().get("created by").and_then(Value::as_bytes);
        creator == Some(CREATED_BY) && document.root().get("info").is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::torrent::{InfoHash, Metainfo};

    const INFO: &[u8] = b"d6:lengthi3e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";

    #[test]
    fn what_is_made_is_a_torrent_of_the_same_hash() {
        let tiers = [vec!["http://a/".to_owned(), "http://b/".to_owned()], vec!["udp://c:1/".to_owned()]];
        for tiers in [&tiers[..], &[]] {
            let bytes = torrent_file(INFO, tiers);
            let metainfo = Metainfo::parse(&bytes).unwrap();
            assert_eq!((metainfo.info_hash, &metainfo.tiers[..]), (InfoHash::of(INFO), tiers));
            assert_eq!(metainfo.announce.as_deref(), tiers.first().map(|_| "http://a/"));
            assert_eq!(info_of(&bytes).unwrap(), INFO);
            assert!(is_our_torrent_file(&bytes));
        }
    }

    #[test]
    fn the_files_of_others_are_not_ours() {
        let theirs = [b"d10:created by8:ringtida4:info", INFO, b"e"].concat();
        assert_eq!(info_of(&theirs).unwrap(), INFO);
        let no_info = b"d10:created by8:ringtidee";
        for bytes in [&theirs[..], no_info, b"", b"text", b"le", &torrent_file(INFO, &[])[..40]] {
            assert!(!is_our_torrent_file(bytes), "{}", bytes.escape_ascii());
        }
        assert!(info_of(no_info).is_err() && info_of(b"text").is_err());
    }
}
