//! What the sample torrents of `tests/meta_samples.rs` are too small or too special to show.

use super::*;
use crate::meta::bencode::{Kind, Writer};

/// A single file of 3 bytes in one piece, with one key more.
fn info_with(key: &str, value: &[u8]) -> Vec<u8> {
    let mut entries: Vec<(&str, Vec<u8>)> = vec![
        ("length", b"i3e".to_vec()),
        ("name", b"1:n".to_vec()),
        ("piece length", b"i16384e".to_vec()),
        ("pieces", [b"20:".as_slice(), &[7; 20]].concat()),
    ];
    entries.retain(|(name, _)| *name != key);
    entries.push((key, value.to_vec()));
    entries.sort();
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).dict(|dict| entries.iter().for_each(|(key, value)| dict.key(key).raw(value)));
    bytes
}

/// The same with `files` instead of `length`; each file is 3 bytes long.
fn files_with(paths: &[&[&str]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).dict(|info| {
        info.key("files").list(|files| {
            for path in paths {
                files.dict(|file| {
                    file.key("length").integer(3);
                    file.key("path").list(|list| path.iter().for_each(|element| list.bytes(element)));
                });
            }
        });
        info.key("piece length").integer(1 << 29);
        info.key("pieces").bytes([0; 20]);
    });
    bytes
}

#[test]
fn an_info_dictionary_alone_is_enough() {
    let bytes = info_with("private", b"i1e");
    let metainfo = Metainfo::from_info(&bytes).unwrap();
    assert_eq!(metainfo.info_hash, InfoHash::of(&bytes));
    assert!(metainfo.private && metainfo.is_single_file && metainfo.tiers.is_empty());
    let piece = metainfo.geometry.piece(0).unwrap();
    assert_eq!(metainfo.piece_hash(piece), &[7; 20]);
    assert_eq!(metainfo.files, [FileEntry { path: "n".into(), len: 3, offset: 0, pad: false }]);
}

#[test]
fn a_name_is_never_lacking() {
    for (key, value, expected) in [
        ("name", &b"2:.."[..], None),
        ("name", b"0:", None),
        ("name.utf-8", b"2:\xc3\xa9", Some("é")),
        ("name", b"9:/tmp/evil", Some("_tmp_evil")),
    ] {
        let metainfo = Metainfo::from_info(&info_with(key, value)).unwrap();
        let hash = metainfo.info_hash.to_string();
        assert_eq!(metainfo.name, expected.unwrap_or(&hash));
    }
}

#[test]
fn hybrids_are_read_as_v1() {
    assert!(Metainfo::from_info(&info_with("meta version", b"i2e")).is_ok());
}

#[test]
fn numbers_of_any_size_are_refused_or_fit() {
    let field = Field::new("piece length");
    let max = u64::from(PIECE_LEN_MAX);
    for got in ["0", "-1", "536870913", "4294967297", "18446744073709551616"] {
        let bytes = info_with("piece length", format!("i{got}e").as_bytes());
        let error = TorrentError::OutOfRange { field, got: got.to_owned(), min: 1, max };
        assert_eq!(Metainfo::from_info(&bytes), Err(error));
    }
    let long = info_with("piece length", format!("i{}e", "9".repeat(100_000)).as_bytes());
    let error = Metainfo::from_info(&long).unwrap_err().to_string();
    assert_eq!(error, "`piece length` is 999999999999999999999999..., expected 1 to 536870912");
}

#[test]
fn the_largest_number_of_pieces_is_read() {
    let count = PIECES_MAX as usize;
    let torrent = |count: usize| {
        let mut bytes = format!("d6:lengthi{count}e12:piece lengthi1e6:pieces{}:", count * 20).into_bytes();
        bytes.resize(bytes.len() + count * 20, 1);
        bytes.push(b'e');
        bytes
    };
    let metainfo = Metainfo::from_info(&torrent(count)).unwrap();
    assert_eq!(metainfo.geometry.piece_count(), PIECES_MAX);
    assert_eq!(metainfo.piece_hashes().len(), count);
    let too_many = TorrentError::TooManyPieces { count: count as u64 + 1 };
    assert_eq!(Metainfo::from_info(&torrent(count + 1)), Err(too_many));
}

#[test]
fn long_metainfo_is_not_looked_at() {
    let len = METAINFO_LEN_MAX + 1;
    assert_eq!(Metainfo::parse(&vec![b'x'; len]), Err(TorrentError::TooLong { len }));
}

#[test]
fn files_and_their_paths_are_bounded() {
    let one: &[&str] = &["x"];
    let most = Metainfo::from_info(&files_with(&vec![one; FILES_MAX])).unwrap();
    assert_eq!(most.files.len(), FILES_MAX);
    assert_eq!(most.files[FILES_MAX - 1].path, PathBuf::from(format!("x.{}", FILES_MAX - 1)));
    let too_many = Metainfo::from_info(&files_with(&vec![one; FILES_MAX + 1]));
    assert_eq!(too_many, Err(TorrentError::TooManyFiles));

    let deep = vec!["d"; PATH_DEPTH_MAX + 1];
    assert!(Metainfo::from_info(&files_with(&[one, &deep[1..]])).is_ok());
    assert_eq!(Metainfo::from_info(&files_with(&[one, &deep])), Err(TorrentError::PathTooDeep { file: 1 }));
    let long = "n".repeat(200);
    assert_eq!(
        Metainfo::from_info(&files_with(&[&[&*long; 16]])),
        Err(TorrentError::PathTooLong { file: 0 })
    );
}

#[test]
fn pads_take_no_names() {
    let paths: &[&[&str]] = &[&[".pad", "3"], &[".pad", "3"], &[".pad"], &["a", ".pad", "3"]];
    let metainfo = Metainfo::from_info(&files_with(paths)).unwrap();
    let files: Vec<_> = metainfo.files.iter().map(|file| (file.path.to_str().unwrap(), file.pad)).collect();
    assert_eq!(files, [(".pad/3", true), (".pad/3", true), (".pad", false), ("a/.pad/3", false)]);
}

#[test]
fn errors_read_well() {
    let of = |key, value: &[u8]| Metainfo::from_info(&info_with(key, value)).unwrap_err();
    let wrong =
        TorrentError::WrongKind { field: Field::new("pieces"), expected: Kind::Bytes, got: Kind::Integer };
    assert_eq!(of("pieces", b"i1e"), wrong);
    assert_eq!(wrong.to_string(), "`pieces` is an integer, expected a string");
    let missing = TorrentError::Missing(Field::of_file("path", 3));
    assert_eq!(missing.to_string(), "`path` of `files[3]` is missing");
    let bencode = Metainfo::parse(b"d4:info").unwrap_err();
    assert_eq!(
        bencode.to_string(),
        "not bencode at byte 7: expected a value or 'e', got the end of the input"
    );
    assert_eq!(Metainfo::parse(b"le").unwrap_err().to_string(), "expected a dictionary, got a list");
}

#[test]
fn an_info_dictionary_gets_the_trackers_of_its_link() {
    let info = b"d6:lengthi3e4:name1:n12:piece lengthi4e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let link = |hash| format!("magnet:?xt=urn:btih:{hash}&tr=http://a/&tr=http://b/");
    let magnet = Magnet::parse(&link(InfoHash::of(info))).unwrap();
    let metainfo = Metainfo::from_magnet(&magnet, info).unwrap();
    assert_eq!(metainfo.announce.as_deref(), Some("http://a/"));
    assert_eq!(metainfo.tiers, [["http://a/"], ["http://b/"]]);
    let other = Magnet::parse(&link(InfoHash([0; 20]))).unwrap();
    let expected = TorrentError::OtherInfoHash { got: InfoHash::of(info), expected: InfoHash([0; 20]) };
    assert_eq!(Metainfo::from_magnet(&other, info), Err(expected));
}
