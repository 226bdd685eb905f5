//! What can go wrong, each as a user meets it: one clear line on stderr, the documented exit code, soon, and nothing
//! left behind that was not asked for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::confine::is_root;
use common::process::wait_for;
use common::workspace::{free_port, temp_dir};
use support::content::{Content, samples, torrents_in};
use support::folder::{self, assert_unchanged};
use support::peer::{Hello, Peer, Script};
use support::program::{Case, FAILURE_LIMIT, Program, Run, Running, case, in_parallel, ringtide};
use support::tracker::{Tracker, compact, dead_addr, dead_url, ok};
use tempfile::TempDir;

/// The exit codes, as the README has them.
const BAD_INPUT: i32 = 1;
const USAGE: i32 = 2;
const NO_TRACKER: i32 = 3;
const NO_PEERS: i32 = 4;
const BAD_OUTPUT: i32 = 5;

/// How long a download of a few hundred kilobytes over the loopback may take.
const SOON: Duration = Duration::from_secs(10);

/// How long Ctrl-C may take.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A folder with `t`, a torrent of this content and these trackers.
struct Place {
    dir: TempDir,
    content: Content,
}

impl Place {
    fn new(content: &Content, trackers: &[&str]) -> Self {
        let dir = temp_dir("failure");
        content.torrent(&dir.path().join("t"), trackers);
        Self { dir, content: content.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ringtide ARGS`, the folder being the working folder.
    fn ringtide(&self, args: &[&str]) -> Program {
        ringtide(args).within(self.dir.path())
    }

    /// `ringtide download -o out ARGS t`.
    fn download(&self, args: &[&str]) -> Program {
        self.ringtide(&[&["download", "-o", "out"], args, &["t"]].concat())
    }

    /// Downloads from that peer, which must succeed.
    #[track_caller]
    fn complete_from(&self, peer: &Peer) -> Run {
        let run = self.download(&["--peer", &peer.addr.to_string()]).run_within(SOON);
        run.assert_prints("Downloaded t to out.\n");
        assert!(fs::read(self.path("out")).unwrap() == *self.content.bytes, "the content differs");
        run
    }

    /// Runs what must fail that way and change nothing.
    #[track_caller]
    fn refuses(&self, program: Program, code: i32, text: &str) {
        let before = folder::list(self.dir.path());
        program.run().assert_fails(code, text);
        assert_unchanged(self.dir.path(), &before);
    }
}

/// Twenty pieces of two blocks, but for the last, which has one that is short.
fn content() -> Content {
    Content::single("content.bin", 19 * 32768 + 5000, 32768)
}

/// The malformed samples that other clients can use, and this one too: see `meta_samples.rs`.
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
fn malformed_torrents_are_refused() {
    let place = Place::new(&content(), &[]);
    let folder = samples().join("malformed");
    let mut names = torrents_in(&folder);
    names.retain(|name| !TAKEN.contains(&name.as_str()));
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let path = folder.join(format!("{name}.torrent"));
        let path = path.to_str().unwrap();
        let text = format!("ringtide: {path} is no usable torrent: ");
        place.refuses(place.ringtide(&["info", path]), BAD_INPUT, &text);
        place.refuses(place.ringtide(&["download", "-o", "out", path]), BAD_INPUT, &text);
    }
}

#[test]
fn torrents_that_cannot_be_read_are_told() {
    let place = Place::new(&content(), &[]);
    fs::create_dir(place.path("folder")).unwrap();
    let huge = fs::File::create(place.path("huge")).unwrap();
    huge.set_len((128 << 20) + 1).unwrap();
    let cases = [
        ("missing", "cannot read missing: no such file or directory"),
        ("folder", "cannot read folder: is a directory"),
        ("/proc/self/mem", "cannot read /proc/self/mem: input/output error"),
        ("t/t", "cannot read t/t: not a directory"),
        ("huge", "huge is larger than the 134217728 bytes that a torrent may have"),
    ];
    for (torrent, text) in cases {
        place.refuses(place.ringtide(&["info", torrent]), BAD_INPUT, text);
        place.refuses(place.ringtide(&["peers", torrent]), BAD_INPUT, text);
        place.refuses(place.ringtide(&["handshake", torrent, "127.0.0.1:1"]), BAD_INPUT, text);
        place.refuses(place.ringtide(&["download_piece", "-o", "out", torrent, "0"]), BAD_INPUT, text);
        place.refuses(place.ringtide(&["download", "-o", "out", torrent]), BAD_INPUT, text);
    }
}

#[test]
fn wrong_addresses_and_pieces_are_usage_errors() {
    let place = Place::new(&content(), &[]);
    for wrong in ["", "127.0.0.1", "127.0.0.1:", ":6881", "127.0.0.1:70000", "1.2.3:4", "[::1]", "a b:1"] {
        let text = format!("'{wrong}' is not IP:PORT");
        place.refuses(place.ringtide(&["handshake", "t", wrong]), USAGE, &text);
        place.refuses(place.download(&["--peer", wrong]), USAGE, &text);
    }
    for (wrong, reason) in [
        ("127.0.0.1:0", "nobody listens at port 0"),
        ("[::1]:0", "nobody listens at port 0"),
        ("0.0.0.0:6881", "it is no address of one machine"),
        ("[::]:6881", "it is no address of one machine"),
        ("[::ffff:0.0.0.0]:6881", "it is no address of one machine"),
        ("224.0.0.1:6881", "it is a multicast address"),
        ("[ff02::1]:6881", "it is a multicast address"),
        ("255.255.255.255:6881", "it is a broadcast address"),
    ] {
        let text = format!("'{wrong}' is no peer: {reason}");
        place.refuses(place.ringtide(&["handshake", "t", wrong]), USAGE, &text);
        place.refuses(place.download(&["--peer", wrong]), USAGE, &text);
    }
    place.refuses(place.ringtide(&["handshake", "t", "peer:6881"]), USAGE, "'peer:6881' is not IP:PORT");
    let port = free_port(Ipv4Addr::LOCALHOST.into()).to_string();
    for ip in ["127.0.0.1", "[::1]", "127.1.2.3"] {
        let own = format!("{ip}:{port}");
        let text = format!("--peer {own} is where this run listens itself");
        place.refuses(place.download(&["--port", &port, "--peer", &own]), USAGE, &text);
    }
    let piece = |index: &str| place.ringtide(&["download_piece", "-o", "out", "t", index]);
    place.refuses(piece("20"), USAGE, "there is no piece 20, the torrent has 20: 0 to 19");
    place.refuses(piece("4294967295"), USAGE, "there is no piece 4294967295");
    place.refuses(piece("4294967296"), USAGE, "'4294967296'");
    let empty = Place::new(&Content::sample("zero-length"), &[]);
    let none = empty.ringtide(&["download_piece", "-o", "out", "t", "0"]);
    empty.refuses(none, USAGE, "there is no piece 0, the torrent has 0");
}

/// The user may name a host instead of an address.
#[test]
fn a_peer_may_be_named_by_its_host() {
    let honest = Peer::honest(&content());
    let place = Place::new(&content(), &[]);
    let named = format!("localhost:{}", honest.addr.port());
    place.download(&["--peer", &named]).run_within(SOON).assert_prints("Downloaded t to out.\n");
    // One that nobody knows is told, and is no reason to wait.
    let place = Place::new(&content(), &[]);
    let run = place.download(&["--peer", "nobody.invalid:6881"]).run();
    assert_eq!(run.code, Some(NO_TRACKER), "{run:?}");
    assert!(run.stderr.contains("the peer nobody.invalid:6881 cannot be looked up: "), "{run:?}");
}

/// Either all peers that are named are asked, or none is and the user hears why.
#[test]
fn more_peers_than_are_asked_are_a_usage_error() {
    let place = Place::new(&content(), &[]);
    let honest = Peer::honest(&content());
    let port = dead_addr().port();
    let dead = |number| format!("127.67.{}.{}:{port}", number >> 8, number & 0xff);
    let mut named: Vec<String> = (0..511).map(dead).collect();
    named.push(honest.addr.to_string());
    let args = |named: &[String]| -> Vec<String> {
        named.iter().flat_map(|peer| ["--peer".to_owned(), peer.clone()]).collect()
    };
    let most = args(&named);
    let most: Vec<&str> = most.iter().map(String::as_str).collect();
    let too_many = [&most, ["--peer", "127.0.0.1:1"].as_slice()].concat();
    let text = "--peer is given 513 times, at most 512 are taken";
    place.refuses(place.download(&too_many), USAGE, text);
    let piece = [&["download_piece", "-o", "out"], too_many.as_slice(), &["t", "0"]].concat();
    place.refuses(place.ringtide(&piece), USAGE, text);
    place.download(&most).run_within(FAILURE_LIMIT).assert_prints("Downloaded t to out.\n");
}

/// Trackers that give no peers. Each is met by `peers` and by `download`, which has nobody else to ask.
#[test]
fn trackers_that_fail_are_named() {
    let silent = Tracker::silent();
    let large = Tracker::replying(vec![b'x'; 10 << 20]);
    let large_and_endless =
        Tracker::saying([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 10 << 20]].concat());
    let garbage = Tracker::saying(vec![0xff; 5000]);
    let page = Tracker::replying(b"<!DOCTYPE html>\n<title>Welcome</title>\n");
    let missing = Tracker::saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let refusing = Tracker::replying(b"d14:failure reason31:this\ntorrent is not \x1b[31mwantede");
    let empty = Tracker::saying("");
    let turning = Tracker::saying("HTTP/1.1 301 Moved\r\nLocation: /announce\r\n\r\n");
    let cases: Vec<(String, &str)> = vec![
        (dead_url(), "Connection refused"),
        (silent.url(), "no "),
        (large.url(), "the answer is larger than 1048576 bytes"),
        (large_and_endless.url(), "the answer is larger than 1048576 bytes"),
        (garbage.url(), "the answer is not proper HTTP"),
        (page.url(), "the answer is not that of a tracker"),
        (missing.url(), "HTTP error 404 Not Found"),
        (refusing.url(), "the tracker refuses: this\u{fffd}torrent is not \u{fffd}[31mwanted"),
        (empty.url(), "the answer is not proper HTTP"),
        (turning.url(), "redirected more than 5 times"),
        ("udp://127.0.0.1:9/announce".to_owned(), "Connection refused"),
        ("wss://127.0.0.1:9/announce".to_owned(), "wss"),
    ];
    let runs = cases.iter().map(|(url, text)| {
        case(url, move || {
            let place = Place::new(&content(), &[url]);
            let before = folder::list(place.dir.path());
            let (peers, download) = (place.ringtide(&["peers", "t"]).start(), place.download(&[]).start());
            let line = peers.wait(FAILURE_LIMIT);
            let line = line.assert_fails(NO_TRACKER, text);
            assert!(line.starts_with(&format!("ringtide: no tracker answered: {url}: ")), "{line}");
            download.wait(FAILURE_LIMIT).assert_fails(NO_TRACKER, text);
            assert_unchanged(place.dir.path(), &before);
        })
    });
    let untracked = case("none", || {
        let place = Place::new(&content(), &[]);
        place.refuses(place.ringtide(&["peers", "t"]), NO_TRACKER, "the torrent names no tracker");
        let text = "the torrent names no tracker; give peers with --peer IP:PORT";
        place.refuses(place.download(&[]), NO_TRACKER, text);
    });
    let many = case("many", || {
        let urls: Vec<String> = (0..40).map(|_| dead_url()).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let place = Place::new(&content(), &urls);
        place.refuses(place.ringtide(&["peers", "t"]), NO_TRACKER, "; and 37 more");
        place.refuses(place.download(&[]), NO_TRACKER, "; and 37 more");
    });
    in_parallel(runs.chain([untracked, many]).collect());
}

/// Peers from which nothing is to be had, whether the tracker or the user names them.
#[test]
fn peers_that_do_not_help_are_told() {
    let content = content();
    let peer = |hello| Peer::start(&content, Script { hello, ..Script::default() });
    let long_message = [0x7f, 0xff, 0xff, 0xff, 7].to_vec();
    let wrong_bitfield = [0, 0, 0, 9, 5, 1, 2, 3, 4, 5, 6, 7, 8].to_vec();
    let no_such_piece = [0, 0, 0, 5, 4, 0, 0, 0, 20].to_vec();
    let other = Content::single("other.bin", 100_000, 32768);
    let cases = [
        ("dead", None, "cannot connect: Connection refused"),
        ("closing", Some(peer(Hello::Close)), "it closed the connection"),
        ("of another torrent", Some(Peer::honest(&other)), "it serves another torrent"),
        (
            "saying garbage",
            Some(peer(Hello::Bytes(vec![0xff; 999]))),
            "handshake starts with byte 255, expected 19",
        ),
        ("saying HTTP", Some(peer(Hello::Bytes(vec![b'H'; 68]))), "handshake starts with byte 72"),
        (
            "sending a long message",
            Some(peer(Hello::ProperThen(long_message))),
            "a message announces 2147483647 bytes",
        ),
        (
            "sending a wrong bitfield",
            Some(peer(Hello::ProperThen(wrong_bitfield))),
            "message of id 5 announces 9 bytes, expected 4",
        ),
        ("having a piece too many", Some(peer(Hello::ProperThen(no_such_piece))), "it says it has piece 20"),
    ];
    let runs = cases.iter().flat_map(|(name, peer, text)| {
        let addr = peer.as_ref().map_or_else(dead_addr, |peer| peer.addr);
        let content = &content;
        let by_tracker = move || {
            let tracker = Tracker::of(&[addr]);
            let place = Place::new(content, &[&tracker.url()]);
            let text = format!("no peers left to ask: the last one was {addr}: {text}");
            // Who was named may come back, so the user says how long to wait.
            place.refuses(place.download(&["--timeout", "3"]), NO_PEERS, &text);
        };
        let by_hand = move || {
            let place = Place::new(content, &[&dead_url()]);
            let started = Instant::now();
            let download = place.download(&["--peer", &addr.to_string()]);
            place.refuses(download, NO_PEERS, text);
            // Nobody else can be hoped for, so there is no reason to wait long.
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        };
        [case(name, by_tracker), case(name, by_hand)]
    });
    let nobody = case("nobody", || {
        let tracker = Tracker::of(&[]);
        let place = Place::new(&content, &[&tracker.url()]);
        place.refuses(place.download(&[]), NO_PEERS, "the trackers know of none");
    });
    let more = silent_cases(&content).into_iter().chain(corrupt_cases(&content));
    in_parallel(runs.chain([nobody]).chain(more).collect());
}

/// Peers that say nothing, or nothing of use.
fn silent_cases(content: &Content) -> [Case<'_>; 2] {
    let with = |script, more: &'static [&str], text: &'static str| {
        move || {
            let peer = Peer::start(content, script);
            let place = Place::new(content, &[]);
            place.refuses(
                place.download(&[&["--peer", &*peer.addr.to_string()], more].concat()),
                NO_PEERS,
                text,
            );
        }
    };
    let silent = Script { hello: Hello::Silent, ..Script::default() };
    let idle = Script { blocks_max: 0, ..Script::default() };
    let idle_text = "nothing came from any peer for 2 s; 0 B of 612.9 KiB are verified";
    [
        case("no handshake", with(silent, &[], "no handshake in time")),
        case("no block", with(idle, &["--timeout", "2"], idle_text)),
    ]
}

/// Nobody but a peer whose every block is wrong.
fn corrupt_cases(content: &Content) -> [Case<'_>; 3] {
    let corrupt = || Peer::start(content, Script { corrupt: true, ..Script::default() });
    let text = "it sent wrong data; 0 B of 612.9 KiB are verified";
    let by_hand = move || {
        let peer = corrupt();
        let place = Place::new(content, &[]);
        place.refuses(place.download(&["--peer", &peer.addr.to_string()]), NO_PEERS, text);
        assert_eq!(peer.seen().connections, 1);
    };
    let by_tracker = move || {
        let peer = corrupt();
        let tracker = Tracker::of(&[peer.addr]);
        let place = Place::new(content, &[&tracker.url()]);
        place.refuses(place.download(&[]), NO_PEERS, text);
        assert_eq!(peer.seen().connections, 1);
    };
    // Part of the content is there; what the corrupt peer sends must not be added to it.
    let after_a_part = move || {
        let place = Place::new(content, &[]);
        let half = 10 * content.piece_len;
        fs::write(place.path("out"), &content.bytes[..half]).unwrap();
        let run = place.download(&["--peer", &corrupt().addr.to_string()]).run();
        run.assert_fails(NO_PEERS, "320.0 KiB of 612.9 KiB are verified; run the same command again");
        let honest = Peer::honest(content);
        place.complete_from(&honest);
        assert_eq!(honest.assert_pleased().pieces(), (10..20).collect());
    };
    [
        case("corrupt, by hand", by_hand),
        case("corrupt, by a tracker", by_tracker),
        case("corrupt, after a part", after_a_part),
    ]
}

#[test]
fn handshakes_that_fail_are_told() {
    let content = content();
    let peer = |hello| Peer::start(&content, Script { hello, ..Script::default() });
    let other = Content::single("other.bin", 100_000, 32768);
    let cases = [
        ("dead", dead_addr(), "cannot connect: Connection refused"),
        ("closing", peer(Hello::Close).addr, "it closed the connection"),
        ("of another torrent", Peer::honest(&other).addr, "it serves another torrent"),
        (
            "saying garbage",
            peer(Hello::Bytes(vec![0xff; 999])).addr,
            "handshake starts with byte 255, expected 19",
        ),
        (
            "another protocol",
            peer(Hello::Bytes([b"\x13", &[b'x'; 67][..]].concat())).addr,
            "handshake names another protocol",
        ),
        ("silent", peer(Hello::Silent).addr, "no handshake in time"),
        ("short", peer(Hello::Bytes(b"\x13BitTorrent".to_vec())).addr, "no handshake in time"),
        ("dripping", peer(Hello::Drip).addr, "no handshake in time"),
    ];
    let runs = cases.iter().map(|(name, addr, text)| {
        let place = Place::new(&content, &[]);
        case(name, move || {
            let text = format!("ringtide: peer {addr}: {text}");
            let text = text.trim_end_matches(": ");
            place.refuses(place.ringtide(&["handshake", "t", &addr.to_string()]), NO_PEERS, text);
        })
    });
    in_parallel(runs.collect());
}

#[test]
fn outputs_that_cannot_be_made_are_told_before_anybody_is_asked() {
    let content = content();
    let peer = Peer::honest(&content);
    let addr = peer.addr.to_string();
    let place = Place::new(&content, &[]);
    fs::write(place.path("file"), b"not ours").unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("dangling")).unwrap();
    assert!(Command::new("mkfifo").arg(place.path("fifo")).status().unwrap().success());
    let long = "x".repeat(300);
    let cases = [
        ("file/out", "file is not a folder"),
        ("dangling", "dangling is a symbolic link"),
        ("fifo", "fifo is a pipe, device or socket, expected a file"),
        ("/dev/null", "/dev/null is a pipe, device or socket, expected a file"),
        ("/proc/ringtide", "/proc"),
        ("/sys/ringtide", "/sys/ringtide"),
        (&long, "too long for the file system"),
    ];
    for (output, text) in cases {
        for more in [&[][..], &["--overwrite"]] {
            let args = [&["download", "-o", output, "--peer", &addr, "t"], more].concat();
            place.refuses(place.ringtide(&args), BAD_OUTPUT, text);
            let args = [&["download_piece", "-o", output, "--peer", &addr, "t", "0"], more].concat();
            place.refuses(place.ringtide(&args), BAD_OUTPUT, text);
        }
    }
    let folder = Place::new(&Content::folder("f", &[100_000, 0, 100_000], 32768), &[]);
    fs::write(folder.path("file"), b"not ours").unwrap();
    fs::create_dir_all(folder.path("blocked/d/f02")).unwrap();
    let into = |output| folder.ringtide(&["download", "-o", output, "--peer", &addr, "t"]);
    folder.refuses(into("file"), BAD_OUTPUT, "file is not a folder");
    folder.refuses(into("file/new/out"), BAD_OUTPUT, "file");
    folder.refuses(into("blocked"), BAD_OUTPUT, "blocked/d/f02 is a folder, expected a file");
    assert_eq!(peer.seen().connections, 0);
}

/// Runs a program while its disk is filled up.
const FILLED: &[&str] = &[
    "sh",
    "-c",
    "(sleep 0.1; cat /dev/zero >disk/filler 2>&-) & \"$@\"; code=$?; wait; rm disk/filler; exit $code",
    "sh",
];

/// The same, and what was reserved for its output is taken away.
const ROBBED: &[&str] = &[
    "sh",
    "-c",
    "(until [ -s disk/out ]; do sleep 0.01; done; fallocate -p -o 0 -l 700000 disk/out
          cat /dev/zero >disk/filler 2>&-) & \"$@\"; code=$?; wait; rm disk/filler; exit $code",
    "sh",
];

/// A small file system of the program's own, which ends with it, so there is nothing to clear up.
#[test]
fn a_full_or_read_only_disk_is_told() {
    if !is_root() {
        let may_be_left_out = std::env::var_os("RINGTIDE_NO_ROOT").is_some();
        assert!(may_be_left_out, "only root can mount a disk; RINGTIDE_NO_ROOT=1 leaves this test out");
        return;
    }
    let content = content();
    let peer = Peer::honest(&content);
    let place = Place::new(&content, &[]);
    fs::create_dir(place.path("disk")).unwrap();
    // Mounts a file system, puts `left` into it, runs the program and lists what is there then.
    let script = r#"
        set -e
        options=$1 torrent=$PWD/$2; shift 2
        mount -t tmpfs -o "$options" tmpfs disk
        "$@" || code=$?
        ls -A disk >listing
        exit ${code:-0}
    "#;
    let peer = &peer;
    let from = |peer: &Peer, options: &str, before: &[&str], command: &str, more: &[&str]| {
        let (binary, addr) = (env!("CARGO_BIN_EXE_ringtide"), peer.addr.to_string());
        let args = ["--mount", "sh", "-c", script, "sh", options, "t"];
        let run = [command, "-o", "disk/out", "--peer", &addr, "t"];
        let args = [&args, before, &[binary], &run, more].concat();
        Program::new("unshare", args).within(place.dir.path()).run()
    };
    let on_disk = |options: &str, before: &[&str], command: &str, more: &[&str]| {
        from(peer, options, before, command, more)
    };
    let left = || fs::read_to_string(place.path("listing")).unwrap();

    let needed = content.bytes.len();
    let full = on_disk("size=256k", &[], "download", &[]);
    full.assert_fails(
        BAD_OUTPUT,
        &format!("not enough room for disk/out: it needs {needed} more bytes, 262144 are free"),
    );
    assert_eq!(left(), "");
    let none = on_disk("size=16k", &[], "download_piece", &["3"]);
    none.assert_fails(BAD_OUTPUT, "not enough room for disk/out: it needs 32768 more bytes, 16384 are free");
    assert_eq!(left(), "");
    let no_names = on_disk("size=4m,nr_inodes=1", &[], "download", &[]);
    no_names.assert_fails(BAD_OUTPUT, "no room for one more name: disk/out");
    assert_eq!(left(), "");
    let read_only = on_disk("ro", &[], "download", &[]);
    read_only.assert_fails(BAD_OUTPUT, "disk/out is on a read-only file system");
    assert_eq!(left(), "");
    assert_eq!(peer.seen().connections, 0, "it is told before anybody is asked");
    // What fills the disk later cannot take what was reserved.
    for io in ["mmap", "pwrite"] {
        let enough = on_disk("size=700k", FILLED, "download", &["--io", io]);
        enough.assert_prints("Downloaded t to disk/out.\n");
        assert_eq!(left(), "out\n");
    }
    // Even where someone takes away what was reserved, mapped or not, that is no SIGBUS.
    let late = Peer::start(&content, Script { unchoke_after: Duration::from_secs(1), ..Script::default() });
    for io in ["mmap", "pwrite"] {
        let gone = from(&late, "size=700k", ROBBED, "download", &["--io", io]);
        gone.assert_fails(
            BAD_OUTPUT,
            "the disk is full: 0 bytes are free, and disk/out needs more; make room",
        );
        assert_eq!(left(), "");
    }
}

#[test]
fn a_foreign_file_stays_untouched_unless_told_otherwise() {
    let content = content();
    let peer = Peer::honest(&content);
    let addr = peer.addr.to_string();
    let place = Place::new(&content, &[]);
    let args = ["--peer", &*addr];
    let same_length: Vec<u8> = content.bytes.iter().map(|byte| !byte).collect();
    for foreign in [b"my diary".to_vec(), vec![b'x'; 200_000], same_length] {
        fs::write(place.path("out"), &foreign).unwrap();
        place.refuses(place.download(&args), BAD_OUTPUT, "out already holds something else");
        assert_eq!(peer.seen().connections, 0, "nobody is asked");
    }
    let longer = [&*content.bytes, b"more"].concat();
    fs::write(place.path("out"), &longer).unwrap();
    let text =
        "out exists and has 627596 bytes where the torrent's file has 627592, use --overwrite to replace it";
    place.refuses(place.download(&args), BAD_OUTPUT, text);
    let piece = ["download_piece", "-o", "out", "--peer", &addr, "t", "19"];
    place.refuses(place.ringtide(&piece), BAD_OUTPUT, "use --overwrite to replace it");
    assert_eq!(peer.seen().connections, 0, "nobody is asked");

    place.download(&["--overwrite", "--peer", &addr]).run().assert_prints("Downloaded t to out.\n");
    assert!(fs::read(place.path("out")).unwrap() == *content.bytes);
    fs::write(place.path("out"), b"my diary").unwrap();
    place
        .ringtide(&[&piece[..], &["--overwrite"]].concat())
        .run()
        .assert_prints("Piece 19 downloaded to out.\n");
    assert!(fs::read(place.path("out")).unwrap() == content.piece(19));
    peer.assert_pleased();
}

#[test]
fn a_folder_with_foreign_files_stays_untouched() {
    let content = Content::folder("f", &[100_000, 0, 100_000], 32768);
    let peer = Peer::honest(&content);
    let addr = peer.addr.to_string();
    let place = Place::new(&content, &[]);
    fs::create_dir_all(place.path("out/d")).unwrap();
    fs::write(place.path("out/d/f00"), vec![b'x'; 99_999]).unwrap();
    fs::write(place.path("out/mine"), b"mine").unwrap();
    place.refuses(place.download(&["--peer", &addr]), BAD_OUTPUT, "out/d/f00 already holds something else");
    fs::write(place.path("out/d/f01"), b"not empty").unwrap();
    place.refuses(place.download(&["--peer", &addr]), BAD_OUTPUT, "out/d/f01 exists and has 9 bytes");
    place.download(&["--peer", &addr, "--overwrite"]).run().assert_prints("Downloaded t to out.\n");
    // What the torrent does not name is nobody's business.
    assert_eq!(fs::read(place.path("out/mine")).unwrap(), b"mine");
    assert!(fs::read(place.path("out/d/f02")).unwrap() == content.bytes[100_000..]);
}

#[test]
fn an_existing_part_is_kept_and_only_the_rest_is_fetched() {
    let content = content();
    let place = Place::new(&content, &[]);
    let half = 10 * content.piece_len;
    let mut damaged = content.bytes.to_vec();
    damaged[3 * content.piece_len + 7] ^= 1;
    damaged[627_591] ^= 1;
    let mut with_hole = content.bytes.to_vec();
    with_hole[half..half + 5 * content.piece_len].fill(0);
    let cases: [(&[u8], Vec<usize>); 4] = [
        (&content.bytes[..half], (10..20).collect()),
        (&content.bytes[..half + 100], (10..20).collect()),
        (&damaged, vec![3, 19]),
        (&with_hole, (10..15).collect()),
    ];
    for (before, missing) in cases {
        fs::write(place.path("out"), before).unwrap();
        let peer = Peer::honest(&content);
        let run = place.complete_from(&peer);
        assert!(run.stderr.contains(" kept, all verified"), "{}", run.stderr);
        let seen = peer.assert_pleased();
        assert_eq!(seen.pieces().into_iter().collect::<Vec<_>>(), missing);
        let blocks: usize = missing.iter().map(|&piece| content.piece(piece).len().div_ceil(16384)).sum();
        assert_eq!(seen.blocks.len(), blocks, "each block once");
    }
}

#[test]
fn a_complete_output_needs_nobody() {
    let cases = [
        ("single", "single.bin"),
        ("multi", "multi"),
        ("padded", "padded"),
        ("zero-length", "zero-length.bin"),
    ];
    for (name, payload) in cases {
        let tracker = Tracker::silent();
        let place = Place::new(&Content::sample(name), &[&dead_url(), &tracker.url()]);
        let source = samples().join("payload").join(payload);
        assert!(Command::new("cp").arg("-r").arg(source).arg(place.path("out")).status().unwrap().success());
        let before = folder::list(place.dir.path());
        let run = place.download(&[]).run_within(Duration::from_secs(2));
        run.assert_prints("Downloaded t to out.\n");
        assert_unchanged(place.dir.path(), &before);
        assert!(tracker.requests().is_empty(), "{name}: nothing is missing, so nobody is asked");
    }
    let content = content();
    let place = Place::new(&content, &[&dead_url()]);
    fs::write(place.path("out"), content.piece(19)).unwrap();
    let piece = ["download_piece", "-o", "out", "t", "19"];
    place.ringtide(&piece).run().assert_prints("Piece 19 downloaded to out.\n");
}

/// A download that has got a few pieces and then nothing more, for as long as it runs.
fn half_way(place: &Place, blocks_max: usize, tracker: impl FnOnce(&Peer) -> Tracker) -> (Running, Tracker) {
    let peer = Peer::start(&place.content, Script { blocks_max, ..Script::default() });
    let tracker = tracker(&peer);
    place.content.torrent(&place.path("t"), &[&tracker.url()]);
    let running = place.download(&[]).start();
    let served = wait_for(SOON, || (peer.seen().blocks.len() == blocks_max).then_some(()));
    assert!(served.is_some(), "{} blocks were asked for", peer.seen().blocks.len());
    wait_for(SOON, || (!peer.seen().handshakes.is_empty()).then_some(())).expect("it has connected");
    // The last piece is verified meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    (running, tracker)
}

/// The bytes that the line of an ended download says are verified, whose pieces are of whole KiB but for the last.
fn verified_bytes(line: &str) -> usize {
    let (_, rest) = line.split_once("interrupted; ").unwrap_or_else(|| panic!("{line}"));
    let kib = rest.split_once(" KiB of ").unwrap_or_else(|| panic!("{line}")).0;
    (kib.parse::<f64>().unwrap() * 1024.0) as usize
}

#[test]
fn an_interrupted_download_says_how_far_it_got_and_goes_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let content = content();
        let place = Place::new(&content, &[]);
        let (running, tracker) = half_way(&place, 17, |peer| Tracker::of(&[peer.addr]));
        let asked = Instant::now();
        running.signal(signal);
        let run = running.wait(SOON);
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        let line = run.assert_fails(code, " of 612.9 KiB are verified; run the same command again to go on");
        let done = verified_bytes(line);
        // The pieces of one peer are fetched one after the other, so seventeen blocks are eight pieces.
        assert!(done >= 7 * content.piece_len && done <= 8 * content.piece_len + 5000, "{line}");
        let events: Vec<_> = tracker.requests().iter().map(support::tracker::Request::event).collect();
        assert_eq!(events, ["started", "stopped"]);

        content.torrent(&place.path("t"), &[]);
        let peer = Peer::honest(&content);
        place.complete_from(&peer);
        let fetched: usize =
            peer.assert_pleased().pieces().iter().map(|&piece| content.piece(piece).len()).sum();
        let missing = content.bytes.len() - done;
        assert!(
            fetched.abs_diff(missing) < 100,
            "what was verified is not fetched again: {fetched}, {missing}"
        );
    }
}

#[test]
fn an_interrupt_with_nothing_verified_leaves_nothing() {
    for content in [content(), Content::folder("f", &[100_000, 0, 100_000], 32768)] {
        for blocks in [0, 1] {
            let place = Place::new(&content, &[]);
            let (running, _tracker) = half_way(&place, blocks, |peer| Tracker::of(&[peer.addr]));
            assert!(place.path("out").exists());
            let asked = Instant::now();
            // Twice at a time, as `timeout` does it, is once.
            running.signal("INT");
            running.signal("INT");
            let run = running.wait(SOON);
            assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
            let line = run.assert_fails(130, "ringtide: interrupted; 0 B of ");
            assert!(line.ends_with(" are verified"), "{line}");
            assert_eq!(folder::names(&folder::list(place.dir.path())).len(), 1, "only the torrent is left");
        }
    }
    // What was there before is there again, as it was.
    let content = content();
    let place = Place::new(&content, &[]);
    fs::write(place.path("out"), vec![0; 1000]).unwrap();
    let (running, _tracker) = half_way(&place, 0, |peer| Tracker::of(&[peer.addr]));
    running.signal("INT");
    running.wait(SOON).assert_fails(130, "interrupted");
    assert_eq!(fs::read(place.path("out")).unwrap(), vec![0; 1000]);
}

/// A tracker that has answered once and no more delays the end, but not for long; a second signal ends it at once.
#[test]
fn an_interrupt_does_not_wait_for_a_tracker() {
    let once = |peer: &Peer| {
        let body = compact(&[peer.addr]);
        Tracker::start(move |request, _| (request.event() == "started").then(|| ok(&body)))
    };
    let content = content();
    let place = Place::new(&content, &[]);
    let (running, _tracker) = half_way(&place, 4, once);
    let asked = Instant::now();
    running.signal("INT");
    running.wait(SOON).assert_fails(130, "64.0 KiB of 612.9 KiB are verified");
    assert!(asked.elapsed() < 2 * AT_ONCE, "{:?}", asked.elapsed());

    let place = Place::new(&content, &[]);
    let (running, _tracker) = half_way(&place, 4, once);
    let asked = Instant::now();
    running.signal("INT");
    std::thread::sleep(Duration::from_millis(350));
    running.signal("INT");
    assert_eq!(running.wait(SOON).code, Some(130));
    assert!(asked.elapsed() < Duration::from_millis(700), "{:?}", asked.elapsed());
}

#[test]
fn a_killed_download_goes_on() {
    let content = content();
    let place = Place::new(&content, &[]);
    let (mut running, _tracker) = half_way(&place, 17, |peer| Tracker::of(&[peer.addr]));
    running.kill();
    content.torrent(&place.path("t"), &[]);
    let peer = Peer::honest(&content);
    place.complete_from(&peer);
    let blocks = peer.assert_pleased().blocks.len();
    assert!(blocks <= 39 - 14, "{blocks} blocks of 39 were fetched again");
}

#[test]
fn a_second_run_into_the_same_output_is_refused() {
    let content = content();
    let place = Place::new(&content, &[]);
    let (running, _tracker) = half_way(&place, 4, |peer| Tracker::of(&[peer.addr]));
    let peer = Peer::honest(&content);
    let second = place.download(&["--overwrite", "--peer", &peer.addr.to_string()]);
    second.run().assert_fails(BAD_OUTPUT, "another process is writing out");
    running.signal("INT");
    running.wait(SOON).assert_fails(130, "64.0 KiB of 612.9 KiB are verified");
    content.torrent(&place.path("t"), &[]);
    place.complete_from(&peer);
}

#[test]
fn a_peer_that_falls_silent_does_not_hold_up_the_others() {
    let content = content();
    let content = &content;
    let runs = [(0, "0"), (1, "1"), (5, "5"), (17, "17"), (38, "38")].map(|(blocks_max, name)| {
        case(name, move || {
            let silent = Peer::start(content, Script { blocks_max, ..Script::default() });
            let unchoke_after = Duration::from_millis(300);
            let honest = Peer::start(content, Script { unchoke_after, ..Script::default() });
            let place = Place::new(content, &[&Tracker::of(&[silent.addr]).url()]);
            place.complete_from(&honest);
            assert_eq!(silent.assert_pleased().blocks.len(), blocks_max);
            let fetched = honest.assert_pleased().blocks.len();
            assert!(
                fetched <= 39 - blocks_max + 2,
                "{fetched} blocks came where {blocks_max} of 39 were there"
            );
        })
    });
    in_parallel(runs.into());
}

#[test]
fn a_corrupt_peer_is_banned_and_the_download_completes() {
    let content = content();
    let corrupt = Peer::start(&content, Script { corrupt: true, ..Script::default() });
    // Late and slow, so that the corrupt one is asked first and would be dialed again before the end.
    let (unchoke_after, block_after) = (Duration::from_millis(300), Duration::from_millis(60));
    let honest = Peer::start(&content, Script { unchoke_after, block_after, ..Script::default() });
    let tracker = Tracker::of(&[corrupt.addr, honest.addr]);
    let place = Place::new(&content, &[&tracker.url()]);
    let run = place.download(&[]).env("RUST_LOG", "ringtide=warn").run();
    run.assert_prints("Downloaded t to out.\n");
    assert!(fs::read(place.path("out")).unwrap() == *content.bytes, "the content differs");
    let seen = corrupt.assert_pleased();
    assert!(!seen.blocks.is_empty(), "the corrupt one was asked");
    assert_eq!(seen.connections, 1, "and is not asked again");
    let banned =
        run.stderr.lines().find(|line| line.contains("banned")).unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(banned.contains(&corrupt.addr.to_string()), "{banned}");
    // Half-done pieces that the corrupt one left are found wrong only when they are complete.
    let fetched = honest.assert_pleased().blocks.len();
    assert!((39..=43).contains(&fetched), "{fetched} blocks of 39");
}

#[test]
fn an_output_that_changes_under_the_download_is_told() {
    let content = content();
    let cut = |place: &Place| {
        fs::File::options().write(true).open(place.path("out")).unwrap().set_len(100).unwrap()
    };
    let removed = |place: &Place| fs::remove_file(place.path("out")).unwrap();
    let replaced = |place: &Place| {
        fs::rename(place.path("out"), place.path("elsewhere")).unwrap();
        fs::write(place.path("out"), b"mine").unwrap();
    };
    type Change = fn(&Place);
    let cases: [(&str, Change); 3] = [("cut", cut), ("removed", removed), ("replaced", replaced)];
    let runs = cases.iter().map(|(name, change)| {
        let content = &content;
        case(name, move || {
            let slow = Script { block_after: Duration::from_millis(40), ..Script::default() };
            let peer = Peer::start(content, slow);
            let place = Place::new(content, &[]);
            let running = place.download(&["--peer", &peer.addr.to_string()]).start();
            wait_for(SOON, || (peer.seen().blocks.len() > 8).then_some(())).expect("it downloads");
            change(&place);
            let run = running.wait(SOON);
            run.assert_fails(BAD_OUTPUT, "out ");
            if *name == "replaced" {
                assert_eq!(fs::read(place.path("out")).unwrap(), b"mine");
            }
        })
    });
    in_parallel(runs.collect());
}

/// The names of files come from strangers; the content of a file that is none of theirs must survive.
#[test]
fn links_inside_the_output_are_not_followed() {
    let content = Content::folder("f", &[100_000, 0, 100_000], 32768);
    let peer = Peer::honest(&content);
    let place = Place::new(&content, &[]);
    fs::create_dir_all(place.path("out/d")).unwrap();
    fs::write(place.path("mine"), b"mine").unwrap();
    std::os::unix::fs::symlink(place.path("mine"), place.path("out/d/f00")).unwrap();
    let download = || place.download(&["--overwrite", "--peer", &peer.addr.to_string()]);
    place.refuses(download(), BAD_OUTPUT, "out/d/f00 is a symbolic link");
    fs::remove_file(place.path("out/d/f00")).unwrap();
    fs::remove_dir(place.path("out/d")).unwrap();
    fs::create_dir(place.path("else")).unwrap();
    fs::write(place.path("else/f01"), b"").unwrap();
    std::os::unix::fs::symlink(place.path("else"), place.path("out/d")).unwrap();
    place.refuses(download(), BAD_OUTPUT, "out/d is ");
}
