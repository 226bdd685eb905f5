//! Torrents as other programs write them, which other clients take: downloaded like any other, and the same for the next
//! run.
//!
//! What is read of each odd form is tested in `ringtide::meta`; this is about what becomes of it on the disk and on the
//! network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::workspace::temp_dir;
use flate2::Compression;
use flate2::write::GzEncoder;
use support::content::Content;
use support::peer::Peer;
use support::program::{Program, ringtide};

/// How long a program may take to do what it does at once.
const LIMIT: Duration = Duration::from_secs(20);

/// The exit code where no tracker is there to be asked.
const NO_TRACKER: i32 = 3;

/// `ringtide download -o out MORE t` in that folder.
fn download(dir: &Path, more: &[&str]) -> Program {
    ringtide([&["download", "-o", "out"], more, &["t"]].concat()).within(dir)
}

/// The bytes of the torrent of a content, with what stands before and behind `info`.
fn torrent(content: &Content, before: &[u8], behind: &[u8]) -> Vec<u8> {
    [b"d", before, b"4:info", content.info(), behind].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_stands_around_a_torrent_is_no_hindrance() {
    let content = Content::single("n", 100_000, 16_384);
    let plain = torrent(&content, b"", b"e");
    for (name, bytes) in [
        ("a line feed behind", [&plain[..], b"\r\n"].concat()),
        (
            "a key twice, and numbers that are none",
            torrent(&content, b"3:agei1.5e3:age0:", b"3:zzzi-2.6E+18e4:infodee"),
        ),
        ("gzip", gzip(&plain)),
        ("gzip twice", gzip(&gzip(&plain))),
        ("a mark in front", [b"\xef\xbb\xbf", &plain[..]].concat()),
    ] {
        let dir = temp_dir("odd");
        fs::write(dir.path().join("t"), bytes).unwrap();
        let peer = Peer::honest(&content);
        let run = download(dir.path(), &["--peer", &peer.addr.to_string()]).run();
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "{name}");
    }
}

#[test]
fn a_torrent_that_unpacks_to_too_much_is_refused() {
    let dir = temp_dir("odd");
    fs::write(dir.path().join("t"), gzip(&vec![b'0'; (128 << 20) + 1])).unwrap();
    download(dir.path(), &[])
        .run()
        .assert_fails(1, "packed with gzip: it unpacks to more than 134217728 bytes");
}

#[test]
fn programs_links_and_pads_are_what_their_flags_say() {
    let path = |parts: &[&'static str]| parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>();
    let files = [
        (path(&["run"]), 20_001),
        (path(&[".pad", "notes.txt"]), 50_000),
        (path(&["text"]), 3),
        (path(&["zero"]), 0),
    ];
    let content = Content::of_files(b"n", &files, 16_384)
        .reworded(
            "d6:lengthi20001e",
            "d4:attr1:l4:pathl4:linke12:symlink pathl2:..3:etceed4:attr1:x6:lengthi20001e",
        )
        .reworded("d6:lengthi0e", "d4:attr2:hx6:lengthi0e");
    let dir = temp_dir("odd");
    fs::write(dir.path().join("t"), torrent(&content, b"", b"e")).unwrap();
    let peer = Peer::honest(&content);
    let run = download(dir.path(), &["--peer", &peer.addr.to_string()]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr.matches("symbolic links of the torrent are left out").count(), 1, "{}", run.stderr);

    let out = dir.path().join("out");
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    assert!([read("run"), read(".pad/notes.txt"), read("text")].concat() == *content.bytes);
    assert!(fs::symlink_metadata(out.join("link")).is_err());
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    let plain = mode("text");
    assert_eq!(plain & 0o111, 0);
    assert_eq!((mode("run"), mode("zero")), (plain | (plain & 0o444) >> 2, plain | (plain & 0o444) >> 2));
    assert_eq!(mode(".pad/notes.txt"), plain);

    let again = download(dir.path(), &["--json"]).run();
    assert_eq!(again.code, Some(0), "all is there: {}", again.stderr);
}

#[test]
fn a_single_file_can_be_a_program() {
    let content = Content::single("n", 20_000, 16_384).reworded("d6:length", "d4:attr1:x6:length");
    let dir = temp_dir("odd");
    fs::write(dir.path().join("t"), torrent(&content, b"", b"e")).unwrap();
    let peer = Peer::honest(&content);
    let run = download(dir.path(), &["--peer", &peer.addr.to_string()]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let mode = fs::metadata(dir.path().join("out")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, (mode & 0o444) >> 2);
}

#[test]
fn nodes_of_a_torrent_are_asked_unless_it_is_private() {
    let node = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nodes = format!("5:nodesll9:127.0.0.1i{}eeee", node.local_addr().unwrap().port());
    let public = Content::single("n", 20_000, 16_384);
    let dir = temp_dir("odd");
    let nowhere = "127.0.0.1:1";
    let start = |content: &Content| {
        fs::write(dir.path().join("t"), torrent(content, b"", nodes.as_bytes())).unwrap();
        download(dir.path(), &["--dht-node", nowhere])
            .env("XDG_CACHE_HOME", dir.path().to_str().unwrap())
            .env("RINGTIDE_NO_DHT", "0")
    };
    let mut datagram = [0; 1500];
    start(&public.private()).run().assert_fails(NO_TRACKER, "the torrent names no tracker");
    node.set_nonblocking(true).unwrap();
    assert_eq!(node.recv(&mut datagram).unwrap_err().kind(), io::ErrorKind::WouldBlock, "a private torrent");

    node.set_nonblocking(false).unwrap();
    node.set_read_timeout(Some(LIMIT)).unwrap();
    let mut running = start(&public).start();
    let len = node.recv(&mut datagram).expect("the node is asked");
    running.kill();
    let asked = datagram[..len].windows(20).any(|part| part == public.info_hash);
    assert!(asked, "{}", datagram[..len].escape_ascii());
}

#[test]
fn a_torrent_of_web_seeds_alone_says_so() {
    let content = Content::single("n", 20_000, 16_384);
    for seeds in ["8:url-list16:http://127.0.0.1e", "9:httpseedsl16:http://127.0.0.1ee"] {
        let dir = temp_dir("odd");
        fs::write(dir.path().join("t"), torrent(&content, b"", seeds.as_bytes())).unwrap();
        let text = "the torrent names no tracker, only web seeds (HTTP), which are not supported yet";
        download(dir.path(), &[]).run().assert_fails(NO_TRACKER, text);
    }
}
