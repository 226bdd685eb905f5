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
    assert_eq!(
        metainfo.files,
        [FileEntry { path: "n".into(), len: 3, offset: 0, pad: false, executable: false }]
    );
}

#[test]
fn a_name_is_never_lacking() {
    for (key, value, expected) in [
        ("name", &b"2:.."[..], None),
        ("name", b"0:", None),
        ("name", b"i7e", None),
        ("name.utf-8", b"2:\xc3\xa9", Some("é")),
        ("name", b"9:/tmp/evil", Some("_tmp_evil")),
        ("name.utf-8", b"i7e", Some("n")),
        ("name.utf-8", b"0:", Some("n")),
        ("name.utf-8", b"2:..", Some("n")),
        ("name.utf-8", b"1:\xff", Some("n")),
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

/// The content of a torrent in one piece, whose `files` are these.
fn listed(files: &str) -> Result<Metainfo, TorrentError> {
    Metainfo::from_info(
        format!("d5:filesl{files}e12:piece lengthi9999e6:pieces20:{}e", "x".repeat(20)).as_bytes(),
    )
}

/// The path of each file, its bytes, and whether it is a pad and a program.
fn told(metainfo: &Metainfo) -> Vec<(&str, u64, bool, bool)> {
    let files = metainfo.files.iter();
    files.map(|file| (file.path.to_str().unwrap(), file.len, file.pad, file.executable)).collect()
}

#[test]
fn a_file_is_what_its_flags_say() {
    let file = "d6:lengthi3e4:pathl4:.pad1:3ee";
    let pad = "d4:attr1:p6:lengthi3e4:pathl4:.pad1:3ee";
    let bare_pad = "d4:attr2:xp6:lengthi4ee";
    let program = "d4:attr2:xh6:lengthi3e4:pathl1:aee";
    let link = "d4:attr1:l4:pathl1:le12:symlink pathl2:..1:xee";
    let long_link = "d4:attr1:l6:lengthi9e4:pathl1:lee";
    let metainfo = listed(&[pad, file, link, pad, bare_pad, long_link, program, file].concat()).unwrap();
    let expected = [
        (".pad/3", 3, true, false),
        (".pad/3", 3, false, false),
        (".pad/3", 3, true, false),
        (".pad/4", 4, true, false),
        ("a", 3, false, true),
        (".pad/3.1", 3, false, false),
    ];
    assert_eq!((told(&metainfo), metainfo.symlinks), (expected.to_vec(), 2));
    assert_eq!(listed(&[link, link].concat()), Err(TorrentError::NoFiles));
    assert_eq!(told(&listed(&["4:text", program].concat()).unwrap()), [("a", 3, false, true)]);
    let single = |flag: &[u8]| Metainfo::from_info(&info_with("attr", flag)).unwrap();
    assert_eq!(told(&single(b"1:x")), [("n", 3, false, true)]);
    assert_eq!(told(&single(b"1:p")), [("n", 3, false, false)]);
    assert_eq!(told(&single(b"1:l")), [("n", 3, false, false)]);
    assert_eq!(told(&single(b"i1e")), [("n", 3, false, false)]);
}

#[test]
fn of_two_paths_the_one_that_names_a_file_counts() {
    let path_of = |utf8: &str| {
        let file = listed(&format!("d6:lengthi3e4:pathl1:a1:be10:path.utf-8{utf8}e"));
        file.map(|metainfo| metainfo.files[0].path.to_str().unwrap().to_owned())
    };
    assert_eq!(path_of("l1:a2:\u{e9}e"), Ok("a/\u{e9}".to_owned()));
    for neither in ["i5e", "le", "l0:e", "l1:.2:..e", "2:bb", "l1:ai3ee", "d1:ai1ee"] {
        assert_eq!(path_of(neither), Ok("a/b".to_owned()), "{neither}");
    }
}

#[test]
fn of_length_and_files_the_one_that_fits_counts() {
    let files = |len: u32, listed: &str| {
        let info = format!(
            "d5:files{listed}6:lengthi{len}e4:name1:n12:piece lengthi4e6:pieces40:{}e",
            "x".repeat(40)
        );
        Metainfo::from_info(info.as_bytes())
            .map(|it| (it.is_single_file, it.geometry.total_len()))
            .map_err(|error| error.to_string())
    };
    let file = "ld6:lengthi5e4:pathl1:aeee";
    assert_eq!(files(8, file), Ok((false, 5)));
    assert_eq!(files(99, file), Ok((false, 5)));
    for misfit in ["ld6:lengthi50e4:pathl1:aeee", "le", "4:text", "ld6:lengthi5eee"] {
        assert_eq!(files(8, misfit), Ok((true, 8)), "{misfit}");
    }
    let neither = files(99, "ld6:lengthi50e4:pathl1:aeee");
    assert_eq!(neither, Err("`pieces` has 2 hashes, expected 13 for the content's length".to_owned()));
}

#[test]
fn a_torrent_is_private_unless_it_says_0() {
    for (value, private) in [
        ("i0e", false),
        ("i1e", true),
        ("i2e", true),
        ("i-1e", true),
        ("i1000000000000000000000000000000e", true),
        ("i01e", true),
        ("i00e", false),
        ("i-0e", false),
        ("1:1", true),
        ("1:0", false),
        ("0:", false),
        ("le", false),
    ] {
        let metainfo = Metainfo::from_info(&info_with("private", value.as_bytes())).unwrap();
        assert_eq!(metainfo.private, private, "{value}");
    }
}

/// A torrent around [`info_with`], which is the same one whatever stands around it.
fn around(before: &[u8], info: &[u8], after: &[u8]) -> Result<Metainfo, TorrentError> {
    Metainfo::parse(&[before, b"4:info", info, after].concat())
}

#[test]
fn what_stands_around_the_info_dictionary_is_read_as_others_write_it() {
    let info = info_with("name", b"1:n");
    let expected = Metainfo::from_info(&info).unwrap();
    for after in [
        "e\n",
        "e\r\n",
        "e\0\0\0",
        "e<!-- ad -->",
        "3:zzzi1.5ee",
        "3:zzzi-2.6E+18ee",
        "3:zzzi007ee",
        "4:info0:e",
    ] {
        assert_eq!(around(b"d", &info, after.as_bytes()).as_ref(), Ok(&expected), "{after:?}");
    }
    for before in ["\u{feff}d", "\r\nd", "d3:agei12.5e", "d03:agei1e", "d3:zzz0:3:aaa0:"] {
        assert_eq!(around(before.as_bytes(), &info, b"e").as_ref(), Ok(&expected), "{before:?}");
    }
    let twice = around(b"d8:announce5:a://x8:announce5:b://y", &info, b"e").unwrap();
    assert_eq!((twice.info_hash, twice.announce.as_deref()), (expected.info_hash, Some("a://x")));
}

#[test]
fn an_odd_info_dictionary_is_hashed_as_it_stands() {
    let odd =
        b"d6:pieces20:xxxxxxxxxxxxxxxxxxxx4:name05:n.txt4:name1:m6:lengthi03e12:piece lengthi+4e3:zzzi1.5ee";
    let metainfo = around(b"d", odd, b"e").unwrap();
    assert_eq!(metainfo, Metainfo::from_info(odd).unwrap());
    assert_eq!((metainfo.info_hash, &*metainfo.name), (InfoHash::of(odd), "n.txt"));
    assert_eq!((metainfo.geometry.total_len(), metainfo.geometry.piece_len()), (3, 4));
    let longer = [&odd[..], b"\n"].concat();
    let error = Metainfo::from_info(&longer).unwrap_err().to_string();
    assert_eq!(error, format!("not bencode at byte {}: 1 bytes after the end of the value", odd.len()));
}

#[test]
fn a_rest_of_a_hash_is_left_out() {
    let pieces = |len: usize| {
        Metainfo::from_info(&info_with("pieces", format!("{len}:{}", "x".repeat(len)).as_bytes()))
    };
    for len in [20, 21, 39] {
        assert_eq!(pieces(len).unwrap().piece_hashes().len(), 1, "{len}");
    }
    assert_eq!(pieces(19), Err(TorrentError::PieceCount { got: 0, expected: 1 }));
    assert_eq!(pieces(40), Err(TorrentError::PieceCount { got: 2, expected: 1 }));
}

#[test]
fn names_are_decoded_as_the_torrent_declares() {
    let info = info_with("name", b"8:\xd6\xd0\xce\xc4.txt");
    let named = |around_it: &str| around(format!("d{around_it}").as_bytes(), &info, b"e").unwrap().name;
    assert_eq!(named("8:encoding3:GBK"), "中文.txt");
    assert_eq!(named("8:codepagei936e"), "中文.txt");
    assert_eq!(named("8:codepagei936e8:encoding7:klingon"), "中文.txt");
    assert_eq!(named("8:encodingi5e"), "____.txt");
    assert_eq!(named("8:encoding5:UTF-8"), "____.txt");
    let files =
        "d5:filesld6:lengthi3e4:pathl2:\u{e9}4:a.bceee12:piece lengthi4e6:pieces20:xxxxxxxxxxxxxxxxxxxxe";
    let path =
        |name: &str| around(b"d8:encoding4:big5", name.as_bytes(), b"e").unwrap().files[0].path.clone();
    assert_eq!(path(files), PathBuf::from("\u{e9}/a.bc"), "what is UTF-8 stays");
}

#[test]
fn a_torrent_tells_where_else_its_content_is() {
    let (public, private) = (info_with("private", b"i0e"), info_with("private", b"i1e"));
    let after = b"5:nodesll7:1.2.3.4i5eee8:url-list5:a://xe";
    let metainfo = around(b"d", &public, after).unwrap();
    assert_eq!(metainfo.nodes, [PeerAddr::Ip(([1, 2, 3, 4], 5).into())]);
    assert_eq!(metainfo.web_seeds, ["a://x"]);
    assert_eq!(around(b"d", &private, after).unwrap().nodes, []);
}

#[test]
fn files_of_other_kinds_are_named() {
    for (bytes, expected) in [
        (&b"<html>"[..], Foreign::WebPage),
        (b"", Foreign::Empty),
        (b"7z\xbc\xaf\x27\x1c", Foreign::Format("a 7z archive")),
        (b"magnet:?xt=urn:btih:x", Foreign::MagnetLink),
    ] {
        assert_eq!(Metainfo::parse(bytes), Err(TorrentError::Foreign(expected)));
    }
}

#[test]
fn paths_follow_the_rules_of_the_file_system() {
    let metainfo = listed(
        "d6:lengthi1e4:pathl2:a?1:xeed6:lengthi1e4:pathl2:A_1:Xeed4:attr1:p6:lengthi1eed6:lengthi1e4:pathl3:conee",
    )
    .unwrap();
    let paths =
        |rules| metainfo.paths(rules).into_iter().map(|path| path.into_os_string().into_string().unwrap());
    assert!(paths(names::Rules::Linux).eq(["a?/x", "A_/X", ".pad/1", "con"]));
    assert!(paths(names::Rules::Windows).eq(["a_/x", "a_/X.1", ".pad/1", "_con"]));
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
