//! Torrents that mean no good: refused with one line, or downloaded into the folder that was named and nowhere else, in
//! little memory and soon.
//!
//! The exact error of each malformed sample is in `meta_samples.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::path::Path;

use common::workspace::temp_dir;
use support::content::{Content, samples};
use support::folder::{self, assert_unchanged};
use support::memory::{MEMORY_MAX_KIB, Peak, Watch, row};
use support::peer::Peer;
use support::program::{FAILURE_LIMIT, Run, ringtide};

/// The exit codes, as the README has them.
const BAD_INPUT: i32 = 1;
const BAD_OUTPUT: i32 = 5;

/// Runs the program in a folder and looks at its memory; the row of the table is the caller's.
fn watched(dir: &Path, args: &[&str]) -> (Run, Peak) {
    let running = ringtide(args).within(dir).start();
    let watch = Watch::start(running.id());
    let run = running.wait(FAILURE_LIMIT);
    let peak = watch.peak();
    assert!(peak.anonymous_kib < MEMORY_MAX_KIB, "{peak:?}");
    (run, peak)
}

/// The program ends with that code and that text, and leaves nothing behind.
fn refused(name: &str, torrent: &[u8], code: i32, text: &str) {
    let dir = temp_dir("hostile");
    fs::write(dir.path().join("t"), torrent).unwrap();
    let before = folder::list(dir.path());
    let (run, peak) = watched(dir.path(), &["download", "-o", "out", "--peer", "127.0.0.1:1", "t"]);
    run.assert_fails(code, text);
    assert_unchanged(dir.path(), &before);
    row("torrent", name, &format!("refused, code {code}"), peak, run.elapsed);
}

/// An honest peer brings the content; `expected` are the paths below the output, in the order of the torrent.
fn downloaded(name: &str, content: &Content, expected: &[&str]) {
    let dir = temp_dir("hostile");
    content.torrent(&dir.path().join("t"), &[]);
    let peer = Peer::honest(content);
    let addr = peer.addr.to_string();
    let (run, peak) = watched(dir.path(), &["download", "-o", "out", "--peer", &addr, "t"]);
    run.assert_prints("Downloaded t to out.\n");
    let listing = folder::list(dir.path());
    let mut files: Vec<_> =
        listing.iter().filter(|(_, bytes)| bytes.is_some()).map(|(path, _)| path).collect();
    let mut paths: Vec<_> = expected.iter().map(|path| Path::new("out").join(path)).collect();
    let bytes: Vec<u8> = paths
        .iter()
        .flat_map(|path| listing.get(path).unwrap_or_else(|| panic!("{path:?}: {files:?}")).clone().unwrap())
        .collect();
    assert!(bytes == *content.bytes, "{name}: the content differs");
    paths.push("t".into());
    paths.sort();
    files.sort();
    assert_eq!(files, paths.iter().collect::<Vec<_>>(), "{name}: nothing else was written");
    row("torrent", name, "completed", peak, run.elapsed);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for name in [
        "file-length-overflow",
        "length-negative",
        "length-too-large",
        "more-pieces-than-allowed",
        "negative-file-length",
        "piece-length-wraps-32-bits",
        "piece-length-zero",
        "too-few-pieces",
        "too-many-pieces",
    ] {
        let torrent = fs::read(samples().join(format!("malformed/{name}.torrent"))).unwrap();
        refused(&name.replace('-', " "), &torrent, BAD_INPUT, "t is no usable torrent: ");
    }
    let digits = "9".repeat(10_000_000);
    let long =
        format!("d4:infod6:lengthi{digits}e4:name1:n12:piece lengthi16384e6:pieces20:{}ee", "x".repeat(20));
    refused(
        "a length of ten million digits",
        long.as_bytes(),
        BAD_INPUT,
        "`length` is 999999999999999999999999...",
    );
}

#[test]
fn bencode_that_is_a_bomb_is_refused() {
    const TEXT: &str = "t is no usable torrent: ";
    let nested = |open: &str| open.repeat(10_000_000 / open.len()).into_bytes();
    refused("lists in lists, 10 MB", &nested("l"), BAD_INPUT, TEXT);
    refused("dictionaries in dictionaries, 10 MB", &nested("d1:a"), BAD_INPUT, TEXT);
    let claim = b"d4:infod5:filesl99999999999999999999:x";
    refused("a string of 10^20 bytes", claim, BAD_INPUT, TEXT);
    let values = format!("d4:infol{}ee", "0:".repeat(3_100_000));
    refused("3.1 million values", values.as_bytes(), BAD_INPUT, TEXT);
    let mut unordered = b"d4:infod6:lengthi0ee".to_vec();
    (0..500_000).rev().for_each(|key| unordered.extend(format!("6:{key:06}0:").bytes()));
    unordered.push(b'e');
    refused("half a million keys out of order", &unordered, BAD_INPUT, TEXT);
}

#[test]
fn a_size_that_no_disk_has_is_refused() {
    let (pieces, piece_len) = (200_000u64, 512u64 << 20);
    let mut torrent = format!("d4:infod6:lengthi{}e4:name1:n", pieces * piece_len).into_bytes();
    torrent.extend(format!("12:piece lengthi{piece_len}e6:pieces{}:", 20 * pieces).bytes());
    torrent.resize(torrent.len() + 20 * pieces as usize, 1);
    torrent.extend(b"ee");
    refused("100 TiB", &torrent, BAD_OUTPUT, "out");
}

#[test]
fn names_lead_nowhere_else_and_hide_no_file() {
    let path = |elements: &[&'static str]| elements.iter().map(|it| it.as_bytes()).collect::<Vec<_>>();
    let traversal = [
        (path(&["..", "..", "etc", "passwd"]), 20_000),
        (path(&["/etc/passwd"]), 100),
        (path(&["a", "..", "b"]), 1),
        (path(&["a", ".", "", "c"]), 30_000),
        (path(&[".."]), 7),
        (path(&[]), 7),
        (path(&["..\\..\\windows"]), 7),
        (path(&["~", "x"]), 7),
        (path(&["a/../../d"]), 7),
        (path(&[".ringtide"]), 7),
        (path(&["nul\0", "line\n\u{1b}[31m", "\u{202e}gpj.exe"]), 7),
    ];
    let content = Content::of_files(b"../../evil", &traversal, 16384);
    let expected = [
        "etc/passwd",
        "_etc_passwd",
        "a/b",
        "a/c",
        "_",
        "_.1",
        ".._.._windows",
        "~/x",
        "a_.._.._d",
        "_ringtide",
        "nul_/line__[31m/_gpj.exe",
    ];
    downloaded("names that lead elsewhere", &content, &expected);

    let long: &'static str = Box::leak("long ".repeat(60).into_boxed_str());
    let colliding = [
        (path(&["a.txt"]), 20_000),
        (path(&["a.txt"]), 10),
        (path(&["a.1.txt"]), 20_000),
        (path(&["A.txt"]), 10),
        (path(&["d", "f"]), 10),
        (path(&["d"]), 10),
        (path(&["f"]), 10),
        (path(&["f", "g"]), 10),
        (path(&[long]), 10),
        (path(&[long]), 10),
    ];
    let cut = |end: &str| format!("{}{end}", &long[..255 - end.len()]);
    let (first, second) = (cut(""), cut(".1"));
    let expected = ["a.txt", "a.1.txt", "a.1.1.txt", "A.txt", "d/f", "d.1", "f", "f.1/g", &*first, &*second];
    downloaded("names that collide", &Content::of_files(b"n", &colliding, 16384), &expected);
}

/// Each name would be tried with the numbers of all that were cut to the same, if they were not counted together.
#[test]
fn thousands_of_long_names_that_collide_are_quick() {
    let names: Vec<String> = (0..20_000).map(|index| format!("{}{index:06}", "n".repeat(249))).collect();
    let files: Vec<_> = names.iter().chain(&names).map(|name| (vec![name.as_bytes()], 0)).collect();
    let content = Content::of_files(b"n", &files, 16384);
    let dir = temp_dir("hostile");
    content.torrent(&dir.path().join("t"), &[]);
    let (run, peak) = watched(dir.path(), &["info", "t"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    row("torrent", "40,000 long names that collide (info)", "shown", peak, run.elapsed);
}

#[test]
fn much_of_no_importance_is_passed_over() {
    let name = "n".repeat(5_000_000);
    let dir = temp_dir("hostile");
    let content = Content::single(&name, 100_000, 16384);
    let torrent = content.torrent(&dir.path().join("t"), &[]);
    assert!(fs::metadata(torrent).unwrap().len() > 5_000_000);
    let peer = Peer::honest(&content);
    let args = ["download", "-o", "out", "--peer", &peer.addr.to_string(), "t"];
    let (run, peak) = watched(dir.path(), &args);
    run.assert_prints("Downloaded t to out.\n");
    assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes);
    row("torrent", "a name of 5 MB", "completed", peak, run.elapsed);
}
