//! The torrents of `test_samples/` (made by `scripts/make_samples.py`) and random ones, through the parsers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use proptest::prelude::*;
use ringtide::meta::bencode::{self, Kind, Limits, ParseError, Reason, Value, Writer};
use ringtide::meta::torrent::{
    FILE_LEN_MAX, Field, Foreign, InfoHash, Metainfo, PIECE_LEN_MAX, TorrentError,
};
use sha1::{Digest, Sha1};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_samples")
}

fn sample(name: &str) -> Vec<u8> {
    let path = samples().join(format!("{name}.torrent"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn torrent_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let mut names: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".torrent")?.to_owned())).collect();
    names.sort();
    names
}

/// What a good sample must be: its name, info hash, total length, piece length, pieces, files and payload.
type Good = (&'static str, &'static str, u64, u32, u32, usize, &'static str);

const GOOD: [Good; 10] = [
    ("legacy", "02e27f4ce0b0630a9b114ea4b9fb037b5d251edb", 37, 32, 2, 2, "vieilles données"),
    ("multi", "7d8db6411d1824f378fdec8b98ad6b470b347357", 214_327, 16384, 14, 23, "multi"),
    ("no-tracker", "f4622a0653eb67b17b6099b18f3edbbfbb815a65", 36, 16384, 1, 1, "tiny.txt"),
    ("odd-pieces", "3504f5657861f767e347ddd7d9a098fc25c6dcb6", 345_679, 50_001, 7, 1, "single.bin"),
    ("one-piece", "3b9e0370f5895e8bdfd2696e252f707d7488626f", 345_679, 1 << 20, 1, 1, "single.bin"),
    ("padded", "1729ad39471071f4d02de2ae6757d777a1be55c3", 94_265, 16384, 6, 6, "padded"),
    ("pieces-of-1", "89cf52a8d51560259ed60b725e35486661b03cc9", 36, 1, 36, 1, "tiny.txt"),
    ("pieces-of-7", "695d08a8c7372f3eb904dee2f41ac3b4b7857011", 100, 7, 15, 1, "sevens.bin"),
    ("single", "754bf51a51e0c744c99824b79af28a2b58fd0947", 345_679, 32_768, 11, 1, "single.bin"),
    ("zero-length", "f3e382171d065fc1ac827a4bc7f987cd78f434e3", 0, 16384, 0, 1, "zero-length.bin"),
];

/// The content of a torrent from the payload of the samples, pads as zeros.
fn content(metainfo: &Metainfo) -> Vec<u8> {
    let mut content = Vec::new();
    for file in &metainfo.files {
        assert_eq!(file.offset, content.len() as u64);
        if file.pad {
            content.resize(content.len() + usize::try_from(file.len).unwrap(), 0);
            continue;
        }
        let mut path = samples().join("payload").join(&metainfo.name);
        if !metainfo.is_single_file {
            path.push(&file.path);
        }
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(bytes.len() as u64, file.len, "{}", path.display());
        content.extend(bytes);
    }
    content
}

#[test]
fn good_samples_match_their_payload() {
    assert_eq!(torrent_names(&samples()), GOOD.map(|(name, ..)| name));
    for (name, info_hash, total_len, piece_len, piece_count, file_count, payload) in GOOD {
        let metainfo = Metainfo::parse(&sample(name)).unwrap();
        assert_eq!(metainfo.info_hash.to_string(), info_hash, "{name}");
        let geometry = metainfo.geometry;
        assert_eq!(
            (geometry.total_len(), geometry.piece_len(), geometry.piece_count()),
            (total_len, piece_len, piece_count),
            "{name}"
        );
        assert_eq!((metainfo.files.len(), &*metainfo.name), (file_count, payload), "{name}");
        assert_eq!(metainfo.is_single_file, file_count == 1, "{name}");
        let content = content(&metainfo);
        assert_eq!(content.len() as u64, total_len, "{name}");
        for piece in geometry.pieces() {
            let start = usize::try_from(geometry.piece_offset(piece)).unwrap();
            let bytes = &content[start..start + geometry.piece_size(piece) as usize];
            assert_eq!(metainfo.piece_hash(piece)[..], Sha1::digest(bytes)[..], "{name}: piece {piece}");
        }
    }
}

#[test]
fn samples_keep_their_details() {
    let single = Metainfo::parse(&sample("single")).unwrap();
    let announce = "http://127.0.0.1:6969/announce";
    assert_eq!(single.announce.as_deref(), Some(announce));
    assert_eq!(single.tiers, [[announce]]);

    let multi = Metainfo::parse(&sample("multi")).unwrap();
    assert_eq!(multi.tiers, [vec![announce, "http://127.0.0.1:6970/announce"], vec!["udp://127.0.0.1:6969"]]);
    let paths: Vec<_> = multi.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert!(
        paths.contains(&"names/日本語/音楽 🎵.bin") && paths.contains(&"deep/er/and/deeper/still/leaf.bin")
    );
    assert_eq!(multi.files.iter().filter(|file| file.len == 0).count(), 3);

    let padded = Metainfo::parse(&sample("padded")).unwrap();
    let pads: Vec<_> = padded.files.iter().map(|file| file.pad).collect();
    assert_eq!(pads, [false, true, false, false, true, false]);
    assert!(padded.files.iter().filter(|file| !file.pad).all(|file| file.offset.is_multiple_of(16384)));

    let bare = Metainfo::parse(&sample("no-tracker")).unwrap();
    assert!(bare.announce.is_none() && bare.tiers.is_empty() && bare.private && !single.private);
    let legacy = Metainfo::parse(&sample("legacy")).unwrap();
    assert_eq!(legacy.files[0].path, Path::new("résumé.txt"));
}

#[test]
fn hostile_names_stay_inside_and_distinct() {
    let long = "long ".repeat(60);
    let cut = |suffix: &str| format!("{}{suffix}", &long[..255 - suffix.len()]);
    let cases: [(&str, &str, Vec<String>); 5] = [
        ("collisions", "collisions", {
            let mut paths: Vec<String> = ["a.txt", "a.1.txt", "A.txt", "a.1.1.txt", "a.2.txt", "d/f", "d.1"]
                .map(String::from)
                .to_vec();
            paths.extend(["f", "f.1/g", "f.1/h"].map(String::from));
            paths.extend([cut(".txt"), cut(".1.txt"), "x_y".into(), "x_y.1".into()]);
            paths
        }),
        ("dot-dot-name", "", vec![String::new()]),
        (
            "odd-names",
            "odd_names",
            [
                "nul_.txt",
                "new_line",
                "_[31mred",
                "gpj._exe",
                "caf_",
                "_ringtide",
                "_ringtide-resume/x",
                &format!("{}.txt", "日".repeat(83)),
                "__",
            ]
            .map(String::from)
            .to_vec(),
        ),
        (
            "traversal",
            ".._.._evil",
            ["etc/passwd", "_etc_passwd", "a/b", "a/c", "_", "_.1", ".._.._windows", "~/x", "a_.._.._d"]
                .map(String::from)
                .to_vec(),
        ),
        ("traversal-single", "_etc_passwd", vec!["_etc_passwd".into()]),
    ];
    assert_eq!(torrent_names(&samples().join("hostile")), cases.clone().map(|(name, ..)| name));
    for (name, folder, mut paths) in cases {
        let metainfo = Metainfo::parse(&sample(&format!("hostile/{name}"))).unwrap();
        let mut folder = folder.to_owned();
        if folder.is_empty() {
            folder = metainfo.info_hash.to_string();
            paths = vec![folder.clone()];
        }
        let got: Vec<_> = metainfo.files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!((&metainfo.name, got), (&folder, paths.iter().map(String::as_str).collect()), "{name}");
        check(&metainfo);
    }
}

/// What code behind the parser relies on.
fn check(metainfo: &Metainfo) {
    let geometry = metainfo.geometry;
    assert_eq!(metainfo.piece_hashes().len(), geometry.piece_count() as usize);
    assert!(!metainfo.files.is_empty() && ordinary(Path::new(&metainfo.name)));
    assert_eq!(Path::new(&metainfo.name).components().count(), 1);
    let mut offset = 0;
    let mut paths = std::collections::HashSet::new();
    for file in &metainfo.files {
        assert_eq!(file.offset, offset);
        offset += file.len;
        assert!(ordinary(&file.path), "{:?}", file.path);
        assert!(file.pad || paths.insert(&file.path), "{:?} twice", file.path);
    }
    let mut folders = paths.iter().flat_map(|path| path.ancestors().skip(1));
    assert!(!folders.any(|folder| paths.contains(&folder.to_path_buf())));
    assert_eq!(offset, geometry.total_len());
}

fn ordinary(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn bad(offset: usize, reason: Reason) -> TorrentError {
    TorrentError::Bencode(ParseError { offset, reason })
}

fn wrong(field: Field, expected: Kind, got: Kind) -> TorrentError {
    TorrentError::WrongKind { field, expected, got }
}

fn range(field: Field, got: &str, min: u64, max: u64) -> TorrentError {
    TorrentError::OutOfRange { field, got: got.to_owned(), min, max }
}

/// The exact error of each malformed sample whose defect is one of bencode.
fn malformed_bencode() -> Vec<(&'static str, TorrentError)> {
    vec![
        ("depth-bomb", bad(103, Reason::TooDeep { max: 100 })),
        ("empty", TorrentError::Foreign(Foreign::Empty)),
        ("huge-string-length", bad(69, Reason::StringPastEnd { left: 62 })),
        ("key-not-string", bad(1, Reason::KeyNotString)),
        ("key-without-value", bad(11, Reason::MissingValue)),
        ("negative-length-string", bad(69, Reason::NegativeLength)),
        ("not-bencode", TorrentError::Foreign(Foreign::WebPage)),
        ("truncated-dict", bad(132, Reason::UnexpectedEnd { expected: "a value or 'e'" })),
        ("truncated-string", bad(108, Reason::StringPastEnd { left: 12 })),
    ]
}

/// The exact error of each malformed sample that is bencode.
fn malformed_torrents() -> Vec<(&'static str, TorrentError)> {
    use Kind::{Bytes, Dict, Integer, List};
    use TorrentError::{Missing, PieceCount, TooManyPieces};
    let of = Field::new;
    let piece_len = |got| range(of("piece length"), got, 1, u64::from(PIECE_LEN_MAX));
    let in_file = Field::of_file;
    vec![
        ("empty-file-list", TorrentError::NoFiles),
        ("file-length-overflow", TorrentError::TotalTooLong),
        ("files-not-list", wrong(of("files"), List, Dict)),
        ("info-not-dict", wrong(of("info"), Dict, Bytes)),
        ("negative-zero", PieceCount { got: 1, expected: 0 }),
        ("no-digits", range(of("length"), "no number", 0, FILE_LEN_MAX)),
        ("not-a-digit", range(of("length"), "0x14", 0, FILE_LEN_MAX)),
        ("length-negative", range(of("length"), "-20", 0, FILE_LEN_MAX)),
        ("length-not-integer", wrong(of("length"), Integer, Bytes)),
        ("length-too-large", range(of("length"), "9223372036854775808", 0, FILE_LEN_MAX)),
        ("more-pieces-than-allowed", TooManyPieces { count: (1 << 22) + 1 }),
        ("negative-file-length", range(in_file("length", 1), "-20", 0, FILE_LEN_MAX)),
        ("neither-length-nor-files", TorrentError::NeitherLengthNorFiles),
        ("no-file-length", Missing(in_file("length", 1))),
        ("no-info", Missing(of("info"))),
        ("no-path", Missing(in_file("path", 0))),
        ("no-piece-length", Missing(of("piece length"))),
        ("no-pieces", Missing(of("pieces"))),
        ("not-a-dict", TorrentError::NotADict { got: List }),
        ("path-element-not-string", wrong(in_file("path", 0), Bytes, Integer)),
        ("path-not-list", wrong(in_file("path", 0), List, Bytes)),
        ("path-too-deep", TorrentError::PathTooDeep { file: 0 }),
        ("path-too-long", TorrentError::PathTooLong { file: 0 }),
        ("piece-length-negative", piece_len("-16384")),
        ("piece-length-not-integer", wrong(of("piece length"), Integer, Bytes)),
        ("piece-length-too-large", piece_len("536870913")),
        ("piece-length-wraps-32-bits", piece_len("4294983680")),
        ("piece-length-zero", piece_len("0")),
        ("pieces-not-string", wrong(of("pieces"), Bytes, List)),
        ("too-few-pieces", PieceCount { got: 1, expected: 2 }),
        ("too-many-pieces", PieceCount { got: 2, expected: 1 }),
        ("v2-only", TorrentError::V2Only),
    ]
}

/// The malformed samples that other clients can use all the same.
const TAKEN: [&str; 10] = [
    "duplicate-key",
    "file-not-dict",
    "leading-zero",
    "leading-zero-string",
    "length-and-files",
    "name-not-string",
    "pieces-not-multiple-of-20",
    "symlink",
    "symlink-single",
    "trailing-bytes",
];

#[test]
fn what_others_can_use_is_taken() {
    for name in TAKEN {
        let metainfo = Metainfo::parse(&sample(&format!("malformed/{name}"))).unwrap();
        check(&metainfo);
        assert_eq!((metainfo.files.len(), metainfo.geometry.total_len()), (1, 20), "{name}");
    }
}

#[test]
fn each_malformed_sample_gives_its_error() {
    let mut expected = malformed_bencode();
    expected.extend(malformed_torrents());
    expected.sort_by_key(|(name, _)| *name);
    let mut names: Vec<_> = expected.iter().map(|(name, _)| *name).chain(TAKEN).collect();
    names.sort_unstable();
    assert_eq!(torrent_names(&samples().join("malformed")), names);
    let mut failures = Vec::new();
    for (name, error) in expected {
        let got = Metainfo::parse(&sample(&format!("malformed/{name}")));
        if got != Err(error.clone()) {
            failures.push(format!("{name}: expected {error:?}, got {:?}", got.map(|_| "a torrent")));
        }
        let line = error.to_string();
        assert!(!line.contains('\n') && !line.ends_with('.') && line.len() < 120, "{line}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A value that owns its parts, to make random bencode from.
#[derive(Clone, PartialEq, Debug)]
enum Node {
    Bytes(Vec<u8>),
    Integer(i128),
    List(Vec<Self>),
    Dict(BTreeMap<Vec<u8>, Self>),
}

impl Node {
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Bytes(bytes) => writer.bytes(bytes),
            Self::Integer(number) => writer.integer(*number),
            Self::List(nodes) => writer.list(|list| nodes.iter().for_each(|node| node.write(list))),
            Self::Dict(entries) => {
                writer.dict(|dict| entries.iter().for_each(|(key, node)| node.write(&mut dict.key(key))));
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Writer::new(&mut bytes));
        bytes
    }

    fn read(value: Value<'_>) -> Self {
        match value.kind() {
            Kind::Bytes => Self::Bytes(value.as_bytes().unwrap().to_vec()),
            Kind::Integer => Self::Integer(value.as_digits().unwrap().parse().unwrap()),
            Kind::List => Self::List(value.as_list().unwrap().map(Self::read).collect()),
            Kind::Dict => {
                let entries = value.as_dict().unwrap();
                Self::Dict(entries.map(|(key, value)| (key.to_vec(), Self::read(value))).collect())
            }
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    let bytes = || prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "\\PC{0,10}".prop_map(Vec::from)];
    let leaf = prop_oneof![bytes().prop_map(Node::Bytes), any::<i128>().prop_map(Node::Integer)];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Node::List),
            prop::collection::btree_map(bytes(), inner, 0..8).prop_map(Node::Dict),
        ]
    })
}

/// Bytes that are often nearly bencode.
fn almost_bencode() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"ilde0123:-".as_slice()), any::<u8>()];
    prop::collection::vec(byte, 0..60)
}

/// One change: a place, bytes to remove there, and bytes to put there instead.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    (any::<prop::sample::Index>(), 0..4usize, prop::collection::vec(any::<u8>(), 0..4))
}

proptest! {
    #[test]
    fn what_was_written_is_read_again(node in node(), rest in "[a-z]{0,5}") {
        let bytes = node.encode();
        let document = bencode::parse(&bytes, Limits::METAINFO).unwrap();
        prop_assert_eq!(document.root().raw(), &bytes[..]);
        prop_assert_eq!(&Node::read(document.root()), &node);
        let mut json = String::new();
        bencode::to_json(document.root(), &mut json);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
        let longer = [&bytes, rest.as_bytes()].concat();
        let (document, left) = bencode::parse_prefix(&longer, Limits::METAINFO).unwrap();
        prop_assert_eq!((document.root().raw(), left), (&bytes[..], rest.as_bytes()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in almost_bencode()) {
        match bencode::parse(&bytes, Limits::TRACKER) {
            Ok(document) => {
                let mut json = String::new();
                bencode::to_json(document.root(), &mut json);
                prop_assert_eq!(document.root().raw(), &bytes[..]);
            }
            Err(error) => prop_assert!(error.offset <= bytes.len()),
        }
    }

    #[test]
    fn changed_torrents_are_read_or_refused(
        name in prop::sample::select(&["multi", "padded", "legacy", "hostile/collisions", "pieces-of-7"][..]),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut bytes = sample(name);
        for (place, removed, added) in changes {
            let start = place.index(bytes.len());
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, added);
        }
        if let Ok(metainfo) = Metainfo::parse(&bytes) {
            check(&metainfo);
        }
    }
}

/// A changed byte seldom hits a number or a name, so these are made from parts that are nearly right.
mod generated {
    use super::*;

    fn length() -> impl Strategy<Value = i128> {
        prop_oneof![0..100_000i128, Just(-1), Just(1 << 62), Just(i128::from(u64::MAX)), any::<i128>()]
    }

    fn file() -> impl Strategy<Value = (i128, Vec<String>, Option<&'static str>)> {
        let element = "(\\.{1,2}|\\.pad|[a-c/]{1,2}|\\PC{0,5})";
        let attr = prop::option::weighted(0.2, prop::sample::select(&["p", "x", "l", "hp"][..]));
        (prop_oneof![9 => 0..1000i128, 1 => length()], prop::collection::vec(element, 0..4), attr)
    }

    proptest! {
        #[test]
        fn any_files_are_read_or_refused(
            files in prop::collection::vec(file(), 0..12),
            piece_len in prop_oneof![1..2000i128, length()],
            extra in prop_oneof![9 => Just(0usize), 1 => 1..30usize],
        ) {
            let total: i128 = files.iter().map(|(len, ..)| len.clamp(&0, &(1 << 40))).sum();
            let count = usize::try_from((total / piece_len.clamp(1, 1 << 20)).min(10_000)).unwrap();
            let exact = total % piece_len.max(1) == 0;
            let mut info = Vec::new();
            Writer::new(&mut info).dict(|info| {
                info.key("files").list(|list| files.iter().for_each(|(len, path, attr)| list.dict(|file| {
                    if let Some(attr) = attr {
                        file.key("attr").bytes(attr);
                    }
                    file.key("length").integer(*len);
                    file.key("path").list(|list| path.iter().for_each(|element| list.bytes(element)));
                })));
                info.key("piece length").integer(piece_len);
                info.key("pieces").bytes(vec![1; (count + usize::from(!exact)) * 20 + extra]);
            });
            if let Ok(metainfo) = Metainfo::from_info(&info) {
                check(&metainfo);
                prop_assert_eq!(metainfo.info_hash, InfoHash::of(&info));
            }
        }
    }
}
