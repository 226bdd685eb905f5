//! The six subcommands as their contract has them: the built program against golden outputs, byte for byte, with
//! trackers and peers that are as strict as those of the CodeCrafters course.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::confine::keep_to_this_machine;
use common::tracker::hex;
use common::workspace::temp_dir;
use support::content::{Content, samples, torrents_in};
use support::folder;
use support::peer::{Hello, PEER_ID, Peer, Script, handshake};
use support::program::{Program, Run, broken_pipe, case, in_parallel, ringtide};
use support::tracker::{Request, Tracker, compact, dictionaries, ok};

/// How long a stage of the course may take.
const STAGE_LIMIT: Duration = Duration::from_secs(10);

/// The samples that have one file, and their payload.
const SINGLE_FILES: &[&str] =
    &["single", "odd-pieces", "one-piece", "pieces-of-1", "pieces-of-7", "no-tracker", "zero-length"];

/// The samples that have a folder of files, and the name of that folder.
const FOLDERS: &[(&str, &str)] = &[("multi", "multi"), ("padded", "padded"), ("legacy", "vieilles données")];

/// The rows of `decode`.
const DECODED: &[(&str, &str)] = &[
    ("5:hello", "\"hello\"\n"),
    ("0:", "\"\"\n"),
    ("i52e", "52\n"),
    ("i-52e", "-52\n"),
    ("i0e", "0\n"),
    ("i4294967300e", "4294967300\n"),
    ("i170141183460469231731687303715884105728e", "170141183460469231731687303715884105728\n"),
    ("l5:helloi52ee", "[\"hello\",52]\n"),
    ("le", "[]\n"),
    ("lli4eei5ee", "[[4],5]\n"),
    ("d3:foo3:bar5:helloi52ee", "{\"foo\":\"bar\",\"hello\":52}\n"),
    ("de", "{}\n"),
    ("d1:ali1ed1:bleee1:cdee", "{\"a\":[1,{\"b\":[]}],\"c\":{}}\n"),
    ("12:a \"b\" \\ \té\n", "\"a \\\"b\\\" \\\\ \\té\\n\"\n"),
];

/// What is no bencoded value, and a part of what is said about it.
const UNDECODABLE: &[(&str, &str)] = &[
    ("", "byte 0"),
    ("5:hell", "byte 0"),
    ("5:helloo", "byte 7"),
    ("-1:a", "byte 0"),
    ("05:hello", "byte 0"),
    ("i52", "byte 3"),
    ("ie", "byte 1"),
    ("i-0e", "byte 2"),
    ("i03e", "byte 1"),
    ("i1x", "byte 2"),
    ("i--1e", "byte 2"),
    ("li1e", "byte 4"),
    ("d1:ae", "byte 4"),
    ("di1ei2ee", "byte 1"),
    ("i1ei2e", "byte 3"),
    ("hello", "byte 0"),
    ("--help-me", "byte 0"),
];

#[test]
fn decode_prints_json() {
    for (value, json) in DECODED {
        ringtide(["decode", value]).run().assert_prints(json);
        ringtide(["decode", "-"]).input(value.as_bytes()).run().assert_prints(json);
    }
}

#[test]
fn decode_shows_bytes_that_are_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let value = b"d2:\xfa\x0bl1:\xffee";
    let json = "{\"<hex>fa0b</hex>\":[\"<hex>ff</hex>\"]}\n";
    ringtide([OsStr::new("decode"), OsStr::from_bytes(value)]).run().assert_prints(json);
    ringtide(["decode", "-"]).input(value).run().assert_prints(json);
    ringtide(["decode", "-"]).input(b"3:\0a\0").run().assert_prints("\"\\u0000a\\u0000\"\n");
}

#[test]
fn decode_refuses_what_is_no_bencode_and_says_where() {
    for (value, place) in UNDECODABLE {
        ringtide(["decode", value]).run().assert_fails(1, place);
        ringtide(["decode", "-"]).input(value.as_bytes()).run().assert_fails(1, place);
    }
    let line = ringtide(["decode", "i03e"]).run();
    assert_eq!(line.stderr, "ringtide: not bencode: byte 1: a number with a leading zero\n");
}

#[test]
fn decode_survives_deep_nesting() {
    let bomb = "l".repeat(100_000);
    ringtide(["decode", "-"]).input(bomb.as_bytes()).run().assert_fails(1, "byte");
}

#[test]
fn info_prints_what_the_torrent_says() {
    for name in torrents_in(&samples()) {
        let path = samples().join(format!("{name}.torrent"));
        ringtide(["info".as_ref(), path.as_os_str()]).run().assert_prints(golden_info(&name));
    }
}

#[test]
fn info_of_a_folder_lists_its_files() {
    let golden = golden_info("multi");
    let (_, files) = golden.split_once("\nFiles:\n").unwrap();
    assert_eq!(files.lines().count(), 23);
    assert!(!golden_info("single").contains("Files:"));
}

#[test]
fn info_shows_hostile_names_on_a_line_each() {
    for name in torrents_in(&samples().join("hostile")) {
        let path = samples().join(format!("hostile/{name}.torrent"));
        let run = ringtide(["info".as_ref(), path.as_os_str()]).run();
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        let text = String::from_utf8(run.stdout).unwrap();
        assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{name}: {text:?}");
        let files = text.split_once("Files:\n").map_or("", |(_, files)| files);
        for line in files.lines() {
            let (len, path) = line.split_once(' ').unwrap();
            assert!(len.parse::<u64>().is_ok(), "{name}: {line:?}");
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{name}: {line:?}");
        }
    }
    let dir = temp_dir("info");
    let content = Content::single("a", 1, 16384);
    let torrent = content.torrent(&dir.path().join("t"), &["http://a/\x1b[31m\nLength: 7"]);
    let run = ringtide(["info".as_ref(), torrent.as_os_str()]).run();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.starts_with("Tracker URL: none\nLength: 1\n"), "{text:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let dir = temp_dir("pipe");
    // More than a pipe holds.
    let content = Content::single("long", 1 << 20, 64);
    let torrent = content.torrent(&dir.path().join("long.torrent"), &[]);
    let script = "\"$0\" info \"$1\" | head -n 1; exit ${PIPESTATUS[0]}";
    let binary = env!("CARGO_BIN_EXE_ringtide").as_ref();
    let run = Program::new("bash", ["-c".as_ref(), script.as_ref(), binary, torrent.as_os_str()]).run();
    run.assert_prints("Tracker URL: none\n");
    assert_eq!(run.stderr, "");

    let single = samples().join("single.torrent");
    let args: &[&[&str]] = &[
        &["info", single.to_str().unwrap()],
        &["decode", "i1e"],
        &["--help"],
        &["download", "--help"],
        &["--version"],
    ];
    for args in args {
        let output = Command::new(env!("CARGO_BIN_EXE_ringtide")).args(*args).stdout(broken_pipe()).output();
        let output = output.unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{args:?}");
    }
    // A failure stays one, whoever reads it.
    let failure = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringtide")).args(args).stdout(broken_pipe()).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = failure(&["info", "--json", "/nowhere"]);
    assert!(code == Some(1) && stderr.starts_with("ringtide: ") && stderr.contains("/nowhere"), "{stderr}");
    assert_eq!(failure(&["download", "--json"]).0, Some(2));
    // Nor does it take stderr for granted.
    let status = Command::new(env!("CARGO_BIN_EXE_ringtide"))
        .args(["info", "/nowhere"])
        .stderr(broken_pipe())
        .status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn trackers_hear_of_the_end_although_nobody_reads_what_is_printed() {
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("deaf");
    for args in [&["download", "-o", "a", "t"][..], &["download", "--json", "-o", "b", "t"]] {
        let body = compact(&[peer.addr]);
        let tracker = Tracker::start(move |request, _| {
            // What follows is not on its way before this is answered.
            if request.event() == "completed" {
                std::thread::sleep(Duration::from_millis(200));
            }
            Some(ok(&body))
        });
        content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringtide"));
        keep_to_this_machine(&mut command);
        let status = command.args(args).current_dir(dir.path()).stdout(broken_pipe()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{args:?}");
        let events: Vec<_> = tracker.requests().iter().map(Request::event).collect();
        assert_eq!(events, ["started", "completed", "stopped"], "{args:?}");
    }
}

#[test]
fn an_output_that_cannot_be_printed_is_a_failure() {
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringtide")).args(["decode", "i1e"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "ringtide: cannot write to standard output: no space left on device\n");
}

/// All subcommands.
const COMMANDS: [&str; 11] = [
    "decode",
    "info",
    "peers",
    "handshake",
    "download_piece",
    "download",
    "magnet_parse",
    "magnet_handshake",
    "magnet_info",
    "magnet_download_piece",
    "magnet_download",
];

#[test]
fn help_has_an_example_for_the_program_and_each_subcommand() {
    let help = |args: &[&str]| {
        let run = ringtide(args).run();
        assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{args:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let all = help(&["--help"]);
    assert!(all.contains("Examples:\n  ringtide "), "{all}");
    for same in [&["help"][..], &["-h"], &["-q", "--help"]] {
        assert_eq!(help(same), all, "{same:?}");
    }
    for command in COMMANDS {
        let is_there = all.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert!(is_there, "{command} is not in\n{all}");
        let text = help(&[command, "--help"]);
        assert!(text.starts_with(&format!("Usage: ringtide {command} ")), "{text}");
        assert!(text.contains(&format!("Examples:\n  ringtide {command} ")), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for same in [&["help", command][..], &[command, "-h"], &["--json", command, "x", "--help"]] {
            assert_eq!(help(same), text, "{same:?}");
        }
    }
    for args in [&["--version"][..], &["-V"], &["version"], &["download", "-V"]] {
        assert_eq!(help(args), format!("ringtide {}\n", env!("CARGO_PKG_VERSION")));
    }
}

/// A link that names nobody to ask.
const LINK: &str = "magnet:?xt=urn:btih:abababababababababababababababababababab";

#[test]
fn what_makes_no_sense_is_said_in_one_line() {
    let single = samples().join("single.torrent");
    let single = single.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&[], "no command given; see 'ringtide --help'"),
        (&["frobnicate"], "'frobnicate' is neither a command nor a torrent; see 'ringtide --help'"),
        (&["downlaod", single], "'downlaod' is no command, did you mean 'download'? see 'ringtide --help'"),
        (&["--frobnicate"], "there is no option --frobnicate; see 'ringtide --help'"),
        (&["--hlep"], "there is no option --hlep, did you mean --help? see 'ringtide --help'"),
        (&["help", "inof"], "'inof' is no command, did you mean 'info'?"),
        (&["decode"], "VALUE is missing; see 'ringtide decode --help'"),
        (
            &["decode", "i1e", "i2e"],
            "'i2e' is one argument too many; decode takes VALUE; see 'ringtide decode",
        ),
        (&["info"], "TORRENT is missing; see 'ringtide info --help'"),
        (&["info", "--frob", single], "there is no option --frob; see 'ringtide info --help'"),
        (&["info", "--summry", single], "there is no option --summry, did you mean --summary?"),
        (&["peers"], "TORRENT is missing; see 'ringtide peers --help'"),
        (&["handshake", single], "PEER is missing; see 'ringtide handshake --help'"),
        (&["handshake", single, "127.0.0.1"], "'127.0.0.1' is not IP:PORT or [IPV6]:PORT"),
        (&["handshake", single, "127.0.0.1:0"], "'127.0.0.1:0' is no peer: nobody listens at port 0"),
        (&["handshake", single, "127.0.0.1:65536"], "'127.0.0.1:65536' is not IP:PORT"),
        (&["handshake", single, "::1:6881"], "'::1:6881' is not IP:PORT"),
        (&["handshake", single, "localhost:6881"], "'localhost:6881' is not IP:PORT"),
        (&["download_piece", "-o", "/tmp/x", single], "INDEX is missing; see 'ringtide download_piece"),
        (
            &["download_piece", "-o", "/tmp/x", single, "x"],
            "INDEX: 'x' is not a whole number from 0 to 4294967295; see 'ringtide download_piece --help'",
        ),
        (&["download_piece", "-o", "/tmp/x", single, "-1"], "INDEX: '-1' is not a whole number"),
        (&["download_piece", "-o", "/tmp/x", single, "+1"], "INDEX: '+1' is not a whole number"),
        (
            &["download_piece", "-o", "/tmp/x", single, "11"],
            "there is no piece 11, the torrent has 11: 0 to 10",
        ),
        (&["download", single, "-o"], "--output needs a value: OUT; see 'ringtide download --help'"),
        (&["download", single, "--sync=yes"], "--sync takes no value, got 'yes'; see 'ringtide download"),
        (&["download", single, "-qz"], "there is no option -z; see 'ringtide download --help'"),
        (&["download", single, "-quiet"], "there is no option -quiet, did you mean --quiet?"),
        (&["download", single, "--json=xml"], "--json: 'xml' is not object or events"),
        (&["download", "-o", "/tmp/x", "--peer", "nobody", single], "'nobody' is not IP:PORT"),
        (&["download", "-o", "/tmp/x", "--threads", "0", single], "--threads takes a number of 1 or more"),
        (
            &["download", "-o", "/tmp/x", "--timeout", "soon", single],
            "--timeout: 'soon' is not a whole number",
        ),
        (&["download", "-o", "/tmp/x", "--port", "65536", single], "--port: '65536' is not a whole number"),
        (&["download", "-o", "/tmp/x", "--threads=", single], "--threads: '' is not a whole number"),
        (&["download", "-o", "/tmp/x", "--io", "dma", single], "'dma' is not mmap, pwrite, uncached or auto"),
        (
            &["download", "-o", "/tmp/x", "--backend", "select", single],
            "'select' is not uring, epoll or auto",
        ),
        (&["download", "-o", "-", "--json", single], "-o - puts the content where --json puts its objects"),
        (
            &["magnet_download", "-o", "-", "--json", LINK],
            "-o - puts the content where --json puts its objects",
        ),
        (&["download", "-o", "", single], "cannot be the name of an output file"),
    ];
    for (args, text) in cases {
        let code = if text.contains("output file") { 5 } else { 2 };
        ringtide(*args).run().assert_fails(code, text);
    }
}

#[test]
fn peers_prints_every_form_in_the_trackers_order() {
    let v4 = addrs(&["178.62.82.89:51470", "165.232.33.77:51467", "178.62.85.20:51489", "10.0.0.1:1"]);
    let mixed = addrs(&["178.62.82.89:51470", "[2001:db8::1]:6881", "[::1]:65535"]);
    let v6 = addrs(&["[2001:db8::2]:80"]);
    let forms = [
        (ok(&compact(&v4)), &v4),
        (ok(&dictionaries(&v4)), &v4),
        (ok(&compact(&mixed)), &mixed),
        (ok(&dictionaries(&mixed)), &mixed),
        (ok(&compact(&v6)), &v6),
        (ok(&compact(&[])), &Vec::new()),
    ];
    let content = Content::sample("single");
    for (answer, peers) in forms {
        let dir = temp_dir("peers");
        let tracker = Tracker::saying(answer);
        let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        let run = ringtide(["peers".as_ref(), torrent.as_os_str()]).run_within(STAGE_LIMIT);
        run.assert_prints(peers.iter().map(|peer| format!("{peer}\n")).collect::<String>());
        assert_eq!(run.stderr, "");
        let events: Vec<_> = tracker.requests().iter().map(Request::event).collect();
        assert_eq!(events, ["", "stopped"]);
    }
}

#[test]
fn peers_follows_a_redirect() {
    let content = Content::sample("single");
    let dir = temp_dir("redirect");
    let peers = addrs(&["178.62.82.89:51470"]);
    let tracker = redirecting(compact(&peers));
    let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
    ringtide(["peers".as_ref(), torrent.as_os_str()]).run().assert_prints("178.62.82.89:51470\n");
    let requests = tracker.requests();
    // The question and the farewell, each at both places.
    assert_eq!(requests.len(), 4);
    check_announce(&requests[1], &content, content.bytes.len());
}

#[test]
fn a_warning_of_the_tracker_goes_to_stderr() {
    let dir = temp_dir("warning");
    let tracker =
        Tracker::replying(b"d8:intervali60e5:peers6:\x7f\0\0\x01\x1a\xe115:warning message5:oh\ndee");
    let torrent = Content::sample("single").torrent(&dir.path().join("t"), &[&tracker.url()]);
    let run = ringtide(["peers".as_ref(), torrent.as_os_str()]).run();
    run.assert_prints("127.0.0.1:6881\n");
    assert_eq!(run.stderr, format!("ringtide: {} warns: oh\u{fffd}de\n", tracker.url()));
}

#[test]
fn trackers_are_told_who_asks_and_for_what() {
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("announce");
    let tracker = Tracker::of(&[peer.addr]);
    let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
    let torrent = torrent.to_str().unwrap();
    for _ in 0..3 {
        ringtide(["peers", torrent]).run().assert_prints(format!("{}\n", peer.addr));
    }
    let piece = dir.path().join("piece");
    let piece = piece.to_str().unwrap();
    ringtide(["download_piece", "-o", piece, torrent, "10"])
        .run()
        .assert_prints(format!("Piece 10 downloaded to {piece}.\n"));
    let requests = tracker.requests();
    let events: Vec<_> = requests.iter().map(Request::event).collect();
    assert_eq!(events, ["", "stopped", "", "stopped", "", "stopped", "started", "completed", "stopped"]);
    for request in &requests[..6] {
        check_announce(request, &content, content.bytes.len());
    }
    check_announce(&requests[6], &content, content.piece(10).len());
    let ids: Vec<_> = requests.iter().map(|request| request.bytes("peer_id").to_vec()).collect();
    let mut different: Vec<_> = ids.iter().step_by(2).take(4).cloned().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 4, "a peer id came twice");
    assert!(ids[6..].iter().all(|id| *id == ids[6]), "one run has one peer id");
    let seen = peer.assert_pleased();
    assert_eq!(seen.handshakes[0].1[..], ids[6], "peers and trackers know it by the same id");
}

#[test]
fn handshake_prints_the_peers_id() {
    let content = Content::sample("single");
    let dir = temp_dir("handshake");
    let torrent = content.torrent(&dir.path().join("t"), &[]);
    let mut peers = vec![Peer::honest(&content), late(&content), one_at_a_time(&content)];
    peers.extend(on_ipv6(&content));
    // The whole answer, and then more in the same breath.
    let greeting = [handshake(&content.info_hash), vec![0; 4], vec![0, 0, 0, 1, 1]].concat();
    peers.push(Peer::start(&content, Script { hello: Hello::Bytes(greeting), ..Script::default() }));
    for peer in peers {
        let args = ["handshake", torrent.to_str().unwrap(), &peer.addr.to_string()];
        let run = ringtide(args).run_within(STAGE_LIMIT);
        run.assert_prints(format!("Peer ID: {}\n", hex(PEER_ID)));
        assert_eq!(run.stderr, "");
        let seen = peer.assert_pleased();
        let [(reserved, peer_id)] = seen.handshakes[..] else { panic!("{:?}", seen.handshakes) };
        assert!(matches!(reserved, [0, 0, 0, 0, 0, 0 | 0x10, 0, 0]), "{reserved:?}");
        check_peer_id(&peer_id);
    }
}

#[test]
fn download_piece_writes_each_piece() {
    for name in ["single", "odd-pieces", "one-piece", "pieces-of-7", "multi", "padded"] {
        let content = Content::sample(name);
        let peer = Peer::honest(&content);
        let dir = temp_dir("piece");
        let tracker = Tracker::of(&[peer.addr]);
        let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        let torrent = torrent.to_str().unwrap();
        let last = content.piece_count() - 1;
        for index in [0, last / 2, last] {
            let out = dir.path().join(format!("piece-{index}"));
            let args = ["download_piece", "-o", out.to_str().unwrap(), torrent, &index.to_string()];
            let run = ringtide(args).run_within(STAGE_LIMIT);
            run.assert_prints(format!("Piece {index} downloaded to {}.\n", out.display()));
            assert!(fs::read(&out).unwrap() == content.piece(index), "{name}: piece {index} differs");
            fs::remove_file(out).unwrap();
        }
        let expected = std::collections::BTreeSet::from([0, last / 2, last]);
        assert_eq!(peer.assert_pleased().pieces(), expected, "{name}");
    }
}

#[test]
fn download_writes_a_single_file() {
    for name in SINGLE_FILES {
        let content = Content::sample(name);
        let peer = Peer::honest(&content);
        let dir = temp_dir("download");
        let tracker = Tracker::of(&[peer.addr]);
        content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        // The paths are printed as they were given.
        let run = ringtide(["download", "-o", "./out", "./t"]).within(dir.path()).run_within(2 * STAGE_LIMIT);
        run.assert_prints("Downloaded ./t to ./out.\n");
        assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "{name} differs");
        let block_count: usize =
            (0..content.piece_count()).map(|piece| content.piece(piece).len().div_ceil(16384)).sum();
        assert_eq!(peer.assert_pleased().blocks.len(), block_count, "{name}: each block is fetched once");
        assert_eq!(folder::names(&folder::list(dir.path())).len(), 2, "{name}: nothing else is left");
    }
}

#[test]
fn download_writes_a_folder() {
    for (name, payload) in FOLDERS {
        let content = Content::sample(name);
        let peer = Peer::honest(&content);
        let dir = temp_dir("download");
        let tracker = Tracker::of(&[peer.addr]);
        let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        let out = dir.path().join("out");
        let args = ["download", "-o", out.to_str().unwrap(), torrent.to_str().unwrap()];
        let run = ringtide(args).run_within(2 * STAGE_LIMIT);
        run.assert_prints(format!("Downloaded {} to {}.\n", torrent.display(), out.display()));
        peer.assert_pleased();
        folder::assert_unchanged(&out, &folder::list(&samples().join("payload").join(payload)));
    }
}

#[test]
fn both_ways_to_write_give_the_same_output_and_go_on_with_each_other() {
    let (_, payload) = FOLDERS[1];
    let content = Content::sample("padded");
    let expected = folder::list(&samples().join("payload").join(payload));
    for (first, second) in
        [("mmap", "pwrite"), ("pwrite", "mmap"), ("auto", "uncached"), ("uncached", "mmap")]
    {
        let dir = temp_dir("download");
        content.torrent(&dir.path().join("t"), &[]);
        let download = |peer: &Peer, io: &str| {
            let peer = peer.addr.to_string();
            let args = ["download", "-o", "out", "--json", "--io", io, "--peer", &peer, "t"];
            let run = ringtide(args).within(dir.path()).run_within(2 * STAGE_LIMIT);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            folder::assert_unchanged(&dir.path().join("out"), &expected);
            serde_json::from_slice::<serde_json::Value>(&run.stdout).unwrap()
        };
        let peer = Peer::honest(&content);
        let summary = download(&peer, first);
        assert_eq!(summary["io"], if first == "auto" { "mmap" } else { first });
        assert_eq!(peer.assert_pleased().pieces().len(), content.piece_count());

        let peer = Peer::honest(&content);
        let summary = download(&peer, second);
        assert_eq!(summary["io"], second);
        assert_eq!(summary["bytes_kept"], summary["bytes"], "all of it is kept");
        assert_eq!(peer.seen().connections, 0);
    }
}

#[test]
fn download_takes_every_kind_of_tracker_and_peer() {
    let content = Content::sample("single");
    let with = |peer: &Peer, tracker: fn(&[SocketAddr]) -> Tracker| download_with(&content, peer, tracker);
    let honest = || Peer::honest(&content);
    in_parallel(vec![
        case("dictionaries", || with(&honest(), |peers| Tracker::replying(dictionaries(peers)))),
        case("a redirect", || with(&honest(), |peers| redirecting(compact(peers)))),
        case("a late bitfield", || with(&late(&content), Tracker::of)),
        case("one request at a time", || with(&one_at_a_time(&content), Tracker::of)),
        case("IPv6", || on_ipv6(&content).iter().for_each(|peer| with(peer, Tracker::of))),
    ]);
}

#[test]
fn options_may_stand_anywhere_and_have_the_usual_spellings() {
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let addr = peer.addr.to_string();
    let dir = temp_dir("options");
    content.torrent(&dir.path().join("t"), &[]);
    let runs: &[&[&str]] = &[
        &["download", "t", "-o", "a", "--peer", &addr],
        &["download", "--peer", &addr, "--output", "b", "--sync", "--threads", "1", "t"],
        &["download", "-o", "c", "-q", "--timeout", "9", "--peer", &addr, "--peer", &addr, "--", "t"],
        &["download", "--output=d", "--threads=1", &format!("--peer={addr}"), "t"],
        &["download", "-qoe", "--peer", &addr, "t"],
        &["download", "t", "--peer", &addr, "-o=f", "--timeout", "9"],
        &["--peer", &addr, "-o", "x", "download", "-o", "g", "t"],
        &["-o", "h", "--peer", &addr, "t"],
    ];
    for (args, out) in runs.iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        let run = ringtide(*args).within(dir.path()).run();
        run.assert_prints(format!("Downloaded t to {out}.\n"));
        assert_eq!(run.stderr.is_empty(), matches!(out, "c" | "e"), "{}", run.stderr);
        assert!(fs::read(dir.path().join(out)).unwrap() == *content.bytes);
    }
    let run =
        ringtide(["download_piece", "t", "3", "--peer", &addr, "--output", "p"]).within(dir.path()).run();
    run.assert_prints("Piece 3 downloaded to p.\n");
    peer.assert_pleased();
}

/// What `-o` means, and what is meant without it.
#[test]
fn outputs_are_where_users_expect_them() {
    let (one, many) = (Content::sample("single"), Content::sample("multi"));
    let peers = [Peer::honest(&one), Peer::honest(&many)];
    let dir = temp_dir("output");
    let torrents = [one.torrent(&dir.path().join("one"), &[]), many.torrent(&dir.path().join("many"), &[])];
    fs::create_dir(dir.path().join("there")).unwrap();
    let name = |content: &Content| meta_name(&content.torrent(&dir.path().join("named"), &[]));
    let names = [name(&one), name(&many)];
    let download = |command: &str, at: usize, more: &[&str]| {
        let (torrent, peer) = (torrents[at].to_str().unwrap(), peers[at].addr.to_string());
        let args = [&[command, "-q", "--json", "--peer", &peer, torrent], more].concat();
        let run = ringtide(args).within(dir.path()).run();
        assert_eq!(run.code, Some(0), "{more:?}: {}", run.stderr);
        let told: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert!(dir.path().join(told["path"].as_str().unwrap()).exists(), "{told}");
        assert_eq!((&told["status"], &told["name"]), (&"complete".into(), &names[at].clone().into()));
        told["path"].as_str().unwrap().to_owned()
    };
    for at in [0, 1] {
        let own = &names[at];
        assert_eq!(download("download", at, &[]), *own);
        assert_eq!(download("download", at, &["-o", "there"]), format!("there/{own}"));
        assert_eq!(download("download", at, &["-o", "there/"]), format!("there/{own}"));
        assert_eq!(download("download", at, &["-o", "."]), format!("./{own}"));
        assert_eq!(download("download", at, &["-o", &format!("new-{at}/")]), format!("new-{at}/{own}"));
        assert_eq!(download("download", at, &["-o", &format!("a/b/{at}")]), format!("a/b/{at}"));
        assert_eq!(download("download_piece", at, &["0"]), format!("{own}.piece-0"));
        assert_eq!(download("download_piece", at, &["0", "-o", "there"]), format!("there/{own}.piece-0"));
    }
    // A folder that is the output already goes on to be it.
    assert_eq!(download("download", 1, &["-o", "a/b/1"]), "a/b/1");
    fs::remove_file(
        fs::read_dir(dir.path().join("a/b/1"))
            .unwrap()
            .find_map(|entry| {
                let path = entry.unwrap().path();
                path.is_file().then_some(path)
            })
            .unwrap(),
    )
    .unwrap();
    assert_eq!(download("download", 1, &["-o", "a/b/1/"]), "a/b/1/");
    peers.iter().for_each(|peer| drop(peer.assert_pleased()));
}

/// The folders above an output that are made for nothing are removed again.
#[test]
fn folders_that_were_made_for_nothing_are_removed() {
    let dir = temp_dir("parents");
    Content::sample("single").torrent(&dir.path().join("t"), &[]);
    fs::create_dir(dir.path().join("there")).unwrap();
    for output in ["new/er/out", "there/new/", "there/out"] {
        let args = ["download", "-q", "-o", output, "--peer", "127.0.0.1:1", "--timeout", "1", "t"];
        ringtide(args).within(dir.path()).run().assert_fails(4, "no peers");
        assert!(!dir.path().join("new").exists() && dir.path().join("there").is_dir());
        assert_eq!(fs::read_dir(dir.path().join("there")).unwrap().count(), 0, "{output}");
    }
}

#[test]
fn a_torrent_is_taken_from_wherever_it_is() {
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("source");
    let tracker = Tracker::of(&[peer.addr]);
    let path = content.torrent(&dir.path().join("t.torrent"), &[&tracker.url()]);
    let bytes = fs::read(&path).unwrap();
    let served = bytes.clone();
    let web = Tracker::start(move |request, _| {
        Some(if request.target == "/t.torrent" { ok(&served) } else { b"HTTP/1.1 404 Gone\r\n\r\n".to_vec() })
    });
    let url = web.url().replace("/announce", "/t.torrent");
    let link = format!("magnet:?xt=urn:btih:{}&tr={}", hex(&content.info_hash), tracker.url());
    let file_url = format!("file://{}", path.display());
    let info = String::from_utf8(ringtide(["info", "t.torrent"]).within(dir.path()).run().stdout).unwrap();
    let addr = peer.addr.to_string();
    for source in ["t.torrent", "-", &url, &file_url, &link] {
        let run = |args: &[&str]| ringtide(args).within(dir.path()).input(&bytes).run();
        if source != link {
            run(&["info", source]).assert_prints(&info);
            run(&["-q", "-o", "bare", source]).assert_prints(format!("Downloaded {source} to bare.\n"));
            fs::remove_file(dir.path().join("bare")).unwrap();
            run(&["download_piece", "-o", "p", source, "1"]).assert_prints("Piece 1 downloaded to p.\n");
            fs::remove_file(dir.path().join("p")).unwrap();
        }
        run(&["peers", source]).assert_prints(format!("{addr}\n"));
        run(&["handshake", source, &addr]).assert_prints(format!("Peer ID: {}\n", hex(PEER_ID)));
    }
    let mut announced = tracker.requests().into_iter().filter(|request| request.event().is_empty());
    assert_eq!(
        announced.next_back().unwrap().number("left"),
        1,
        "the length of a link's content is not known"
    );
    let missing = url.replace("t.torrent", "gone.torrent");
    ringtide(["info", &missing]).run().assert_fails(1, &format!("cannot fetch {missing}: HTTP error 404"));
    // A file wins over what else its name could mean.
    let odd = "magnet:?xt=odd";
    fs::copy(&path, dir.path().join(odd)).unwrap();
    ringtide(["info", odd]).within(dir.path()).run().assert_prints(&info);
    peer.assert_pleased();
}

#[test]
fn names_that_are_not_text_are_taken() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("bytes");
    let (torrent, out) = (OsStr::from_bytes(b"t\xff"), OsStr::from_bytes(b"\xe9/out"));
    content.torrent(&dir.path().join(torrent), &[]);
    for spelling in
        [vec!["-o".into(), out.to_owned()], vec![OsString::from_vec(b"--output=\xe9/out".to_vec())]]
    {
        let mut args =
            vec!["download".into(), torrent.to_owned(), "--peer".into(), peer.addr.to_string().into()];
        args.extend(spelling);
        let run = ringtide(args).within(dir.path()).run();
        run.assert_prints("Downloaded t\u{fffd} to \u{fffd}/out.\n");
        assert!(fs::read(dir.path().join(out)).unwrap() == *content.bytes);
        fs::remove_file(dir.path().join(out)).unwrap();
    }
}

#[test]
fn info_has_a_summary_a_list_of_files_and_json() {
    let info = |name: &str, option: &str| {
        let path = samples().join(format!("{name}.torrent"));
        let run = ringtide(["info".as_ref(), option.as_ref(), path.as_os_str()]).run();
        assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{name}");
        String::from_utf8(run.stdout).unwrap()
    };
    let summary = info("single", "--summary");
    for line in [
        "Size:        337.6 KiB (345679 bytes) in 1 file",
        "Pieces:      11 of 32.0 KiB (32768 bytes)",
        "Info hash:   754bf51a51e0c744c99824b79af28a2b58fd0947",
        "Private:     no",
        "Trackers:    tier 1: http://127.0.0.1:6969/announce",
        "Web seeds:   none",
    ] {
        assert!(summary.lines().any(|told| told == line), "{line:?} is not in\n{summary}");
    }
    let link = summary.lines().find_map(|line| line.strip_prefix("Magnet link: ")).unwrap();
    ringtide(["magnet_parse", link]).run().assert_prints(
        "Tracker URL: http://127.0.0.1:6969/announce\nInfo Hash: 754bf51a51e0c744c99824b79af28a2b58fd0947\n",
    );
    let files = info("multi", "--files");
    assert_eq!(files.lines().count(), 23);
    let numbers: Vec<&str> = files.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!((numbers[0], numbers[22]), ("1", "23"));
    for name in torrents_in(&samples()) {
        let told: serde_json::Value = serde_json::from_str(&info(&name, "--json")).unwrap();
        let golden = golden_info(&name);
        assert!(golden.contains(told["info_hash"].as_str().unwrap()), "{name}");
        assert!(golden.contains(&format!("Length: {}\n", told["bytes"])), "{name}");
        let hashes = told["piece_hashes"].as_array().unwrap();
        assert_eq!(hashes.len() as u64, told["piece_count"].as_u64().unwrap(), "{name}");
        let sum: u64 =
            told["files"].as_array().unwrap().iter().map(|file| file["bytes"].as_u64().unwrap()).sum();
        assert!(name == "padded" || sum == told["bytes"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn every_command_tells_its_result_and_its_failure_as_json() {
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("json");
    let tracker = Tracker::of(&[peer.addr]);
    let torrent = content.torrent(&dir.path().join("t"), &[&tracker.url()]);
    let (torrent, addr) = (torrent.to_str().unwrap(), peer.addr.to_string());
    let told = |args: &[&str], code: i32| -> serde_json::Value {
        let run = ringtide(args).within(dir.path()).run();
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    };
    assert_eq!(told(&["decode", "i1e", "--json"], 0), 1);
    assert_eq!(told(&["info", torrent, "--json"], 0)["piece_count"], content.piece_count());
    assert_eq!(told(&["peers", "--json", torrent], 0)["peers"][0], *addr);
    assert_eq!(told(&["handshake", "--json", torrent, &addr], 0)["peer_id"], hex(PEER_ID));
    let piece = told(&["download_piece", "--json", torrent, "3", "-o", "p"], 0);
    assert_eq!((&piece["piece"], &piece["path"]), (&3.into(), &"p".into()));
    let whole = told(&["download", "--json", torrent, "-o", "out"], 0);
    assert_eq!(whole["info_hash"], hex(&content.info_hash));
    assert_eq!((&whole["path"], &whole["status"]), (&"out".into(), &"complete".into()));
    let link = format!("magnet:?xt=urn:btih:{}&dn=a&tr=http://t/&x.pe={addr}", hex(&content.info_hash));
    let parsed = told(&["magnet_parse", &link, "--json"], 0);
    assert_eq!((&parsed["name"], &parsed["peers"][0]), (&"a".into(), &(*addr).into()));

    for (args, code, kind) in [
        (&["decode", "--json", "x"][..], 1, "input"),
        (&["info", "--json", "nowhere"], 1, "input"),
        (&["magnet_parse", "--json", "nowhere"], 1, "input"),
        (&["magnet_info", "--json", "nowhere"], 1, "input"),
        (&["magnet_handshake", "--json", "nowhere"], 1, "input"),
        (&["magnet_download", "--json", "nowhere"], 1, "input"),
        (&["magnet_download_piece", "--json", "nowhere", "1"], 1, "input"),
        (&["download", "--json"], 2, "usage"),
        (&["--json", "downlaod"], 2, "usage"),
        (&["download_piece", "--json=events", torrent, "99"], 2, "usage"),
        (&["handshake", "--json", torrent, "127.0.0.1:1"], 4, "peers"),
        (&["download", "--json", "-o", "t/t", torrent], 5, "output"),
    ] {
        let error = &told(args, code)["error"];
        assert_eq!((&error["code"], &error["kind"]), (&code.into(), &kind.into()), "{args:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{args:?}");
    }
}

#[test]
fn events_come_before_the_result() {
    let content = Content::sample("single");
    let dir = temp_dir("events");
    content.torrent(&dir.path().join("t"), &[]);
    let download = |peer: SocketAddr| {
        let args =
            ["download", "--json=events", "--timeout", "1", "-o", "out", "--peer", &peer.to_string(), "t"];
        let run = ringtide(args).within(dir.path()).run();
        let text = String::from_utf8(run.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let peer = one_at_a_time(&content);
    let mut lines = download(peer.addr);
    let result = lines.pop().unwrap();
    assert_eq!((&result["status"], &result["event"]), (&"complete".into(), &serde_json::Value::Null));
    assert!(lines.iter().any(|line| line["event"] == "downloading"), "{lines:?}");
    for line in &lines {
        assert!(line["event"].is_string() && line["seconds"].is_number(), "{line}");
    }
    fs::remove_file(dir.path().join("out")).unwrap();
    let mut lines = download("127.0.0.1:1".parse().unwrap());
    let error = lines.pop().unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["bytes_verified"]), (&4.into(), &0.into()));
}

#[test]
fn what_strangers_and_arguments_hide_is_shown() {
    let hidden = "a\u{1b}[31m\u{202e}b\u{200b}\u{e0041}";
    let shown = "a\\u{1b}[31m\\u{202e}b\\u{200b}\\u{e0041}";
    for args in
        [&["decode", "i1e", hidden][..], &[hidden], &["info", hidden], &["info", "--peer", hidden, "x"]]
    {
        let run = ringtide(args).run();
        assert!(run.stderr.contains(shown), "{args:?}: {:?}", run.stderr);
    }
    let value = format!("{}:{hidden}", hidden.len());
    ringtide(["decode", &value]).run().assert_prints("\"a\\u001b[31m\\u202eb\\u200b\\udb40\\udc41\"\n");
    let told: serde_json::Value = serde_json::from_slice(&ringtide(["--json", hidden]).run().stdout).unwrap();
    assert!(told["error"]["message"].as_str().unwrap().contains(hidden), "JSON has the text itself");
}

/// The same by the script that the course calls. It builds the release binary when that is missing or stale, which
/// is not part of the limits.
#[test]
fn the_contract_holds_through_the_scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in ["your_program.sh", "your_bittorrent.sh"] {
        let script = root.join(script);
        let program = |args: &[&str]| Program::new(&script, args);
        let version = program(&["--version"]).run_within(Duration::from_secs(20 * 60));
        version.assert_prints(format!("ringtide {}\n", env!("CARGO_PKG_VERSION")));
        contract(&|args| program(args).within(root).run_within(STAGE_LIMIT));
    }
}

/// Every row of the contract.
fn contract(run: &dyn Fn(&[&str]) -> Run) {
    for (value, json) in DECODED {
        run(&["decode", value]).assert_prints(json);
    }
    run(&["info", "test_samples/single.torrent"]).assert_prints(golden_info("single"));
    let content = Content::sample("single");
    let peer = Peer::honest(&content);
    let dir = temp_dir("contract");
    let tracker = Tracker::of(&[peer.addr]);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let torrent = path("t.torrent");
    content.torrent(Path::new(&torrent), &[&tracker.url()]);
    run(&["peers", &torrent]).assert_prints(format!("{}\n", peer.addr));
    let hello = run(&["handshake", &torrent, &peer.addr.to_string()]);
    hello.assert_prints(format!("Peer ID: {}\n", hex(PEER_ID)));
    let piece = path("piece-3");
    run(&["download_piece", "-o", &piece, &torrent, "3"])
        .assert_prints(format!("Piece 3 downloaded to {piece}.\n"));
    assert!(fs::read(&piece).unwrap() == content.piece(3));
    let out = path("out");
    run(&["download", "-o", &out, &torrent]).assert_prints(format!("Downloaded {torrent} to {out}.\n"));
    assert!(fs::read(&out).unwrap() == *content.bytes);
    assert_eq!(run(&["decode", "nonsense"]).code, Some(1), "the exit code comes through");
    peer.assert_pleased();
}

fn download_with(content: &Content, peer: &Peer, tracker: impl Fn(&[SocketAddr]) -> Tracker) {
    let dir = temp_dir("download");
    let tracker = tracker(&[peer.addr]);
    content.torrent(&dir.path().join("t"), &[&tracker.url()]);
    let run = ringtide(["download", "-o", "out", "t"]).within(dir.path()).run_within(2 * STAGE_LIMIT);
    run.assert_prints("Downloaded t to out.\n");
    assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes);
    peer.assert_pleased();
}

fn late(content: &Content) -> Peer {
    let after = Duration::from_millis(700);
    Peer::start(content, Script { bitfield_after: after, unchoke_after: after, ..Script::default() })
}

fn one_at_a_time(content: &Content) -> Peer {
    Peer::start(content, Script { block_after: Duration::from_millis(10), ..Script::default() })
}

/// A peer at `::1`; none where the machine has no IPv6.
fn on_ipv6(content: &Content) -> Option<Peer> {
    let ip = std::net::Ipv6Addr::LOCALHOST.into();
    let peer = Peer::try_start(content, Script { ip, ..Script::default() });
    peer.inspect_err(|error| eprintln!("IPv6 is not tested, this machine has none: {error}")).ok()
}

/// Sends whoever asks to another path, the query included, and answers there.
fn redirecting(body: Vec<u8>) -> Tracker {
    Tracker::start(move |request, addr| {
        let (path, query) = request.target.split_once('?').unwrap();
        Some(match path {
            "/announce" => {
                format!("HTTP/1.1 301 Moved Permanently\r\nLocation: http://{addr}/moved?{query}\r\n\r\n")
                    .into_bytes()
            }
            _ => ok(&body),
        })
    })
}

/// What the course's tracker checks, the first time that it hears of a run.
#[track_caller]
fn check_announce(request: &Request, content: &Content, len: usize) {
    assert_eq!(request.bytes("info_hash"), content.info_hash);
    check_peer_id(request.bytes("peer_id"));
    assert!(request.number("port") <= 65535);
    assert_eq!((request.number("uploaded"), request.number("downloaded")), (0, 0));
    assert_eq!(request.number("left"), len as u64);
    assert_eq!(request.bytes("compact"), b"1");
}

#[track_caller]
fn check_peer_id(id: &[u8]) {
    assert_eq!(id.len(), 20, "{id:?}");
    assert_ne!(id, b"00112233445566778899");
}

fn golden_info(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/info-{name}.txt"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The name that a torrent suggests.
fn meta_name(torrent: &Path) -> String {
    ringtide::meta::torrent::Metainfo::parse(&fs::read(torrent).unwrap()).unwrap().name
}

fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
