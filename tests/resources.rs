//! What the system may refuse, and how it tells a process to end: few descriptors, no threads, no address space, signals,
//! and switches of the environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::confine::{limit_address_space, limit_descriptors, limit_threads};
use common::process::wait_for;
use common::workspace::temp_dir;
use support::content::Content;
use support::folder;
use support::peer::{Peer, Script};
use support::program::{Program, ringtide};
use tempfile::TempDir;

/// How long a download of a few hundred kilobytes over the loopback may take.
const SOON: Duration = Duration::from_secs(20);

/// A folder with `t`, a torrent of this content without trackers.
struct Place {
    dir: TempDir,
    content: Content,
}

impl Place {
    fn new(content: Content) -> Self {
        let dir = temp_dir("resources");
        content.torrent(&dir.path().join("t"), &[]);
        Self { dir, content }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The arguments of `ringtide download -o out ARGS t`.
    fn args<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        [&["download", "-o", "out"], args, &["t"]].concat()
    }

    fn download(&self, args: &[&str]) -> Program {
        ringtide(self.args(args)).within(self.dir.path())
    }
}

fn content() -> Content {
    Content::single("content.bin", 19 * 32768 + 5000, 32768)
}

/// The signals that a process ignores, and those that it handles, as sets of bits.
fn dispositions(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let set = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    (set("SigIgn:"), set("SigCgt:"))
}

/// Whether a child has ended that nobody has waited for.
fn has_ended(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[test]
fn a_signal_that_the_caller_ignores_stays_ignored() {
    let place = Place::new(content());
    let peer = Peer::start(&place.content, Script { blocks_max: 0, ..Script::default() });
    let addr = peer.addr.to_string();
    let script = ["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringtide")];
    let args = [&script[..], &place.args(&["--peer", &addr])].concat();
    let running = Program::new("/bin/sh", args).within(place.dir.path()).start();
    let handled = bit(libc::SIGINT) | bit(libc::SIGTERM);
    wait_for(SOON, || (dispositions(running.id()).1 & handled == handled).then_some(())).unwrap();
    let (ignored, caught) = dispositions(running.id());
    assert_eq!((ignored & bit(libc::SIGHUP), caught & bit(libc::SIGHUP)), (bit(libc::SIGHUP), 0));
    wait_for(SOON, || (!peer.seen().handshakes.is_empty()).then_some(())).unwrap();
    running.signal("HUP");
    running.signal("TERM");
    running.wait(SOON).assert_fails(143, "interrupted");
}

#[test]
fn only_a_value_that_is_not_empty_and_not_0_switches_a_source_off() {
    for (value, is_asked) in [("", true), ("0", true), ("1", false), ("no", false)] {
        let place = Place::new(content());
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        node.set_read_timeout(Some(SOON)).unwrap();
        let addr = node.local_addr().unwrap().to_string();
        let download = place.download(&["--dht-node", &addr, "--timeout", "3"]).env("RINGTIDE_NO_DHT", value);
        let mut running = download.start();
        if is_asked {
            assert!(node.recv(&mut [0; 1500]).is_ok(), "'{value}' has switched the DHT off");
            running.kill();
        } else {
            running.wait(SOON).assert_fails(3, "the torrent names no tracker");
            node.set_nonblocking(true).unwrap();
            assert!(node.recv(&mut [0; 1500]).is_err(), "'{value}' has not switched the DHT off");
        }
    }
}

#[test]
fn an_empty_variable_is_as_if_it_were_not_there() {
    let place = Place::new(content());
    let info = |name| ringtide(["info", "t"]).within(place.dir.path()).env(name, "").run();
    for name in ["RINGTIDE_SHA1", "RINGTIDE_RECORD_MS", "RUST_LOG"] {
        let run = info(name);
        assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{name}");
    }
    let peer = Peer::honest(&place.content);
    let download = place.download(&["--peer", &peer.addr.to_string()]);
    download.env("RINGTIDE_RECORD_MS", "").run().assert_prints("Downloaded t to out.\n");
    assert!(fs::read(place.path("out")).unwrap() == *place.content.bytes);
}

/// The bytes of all files below a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_in(&path) } else { path.metadata().unwrap().len() }).sum()
}

/// The arguments that name these peers.
fn named(peers: &[Peer]) -> Vec<String> {
    peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.addr.to_string()]).collect()
}

#[test]
fn more_peers_than_descriptors_are_no_failure() {
    let content = Content::folder("f", &[200_000, 10, 0, 300_000, 7, 123_456], 16384);
    let peers: Vec<_> = (0..60).map(|_| Peer::honest(&content)).collect();
    let named = named(&peers);
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    for (limit, backend, io) in [
        (24, "epoll", "mmap"),
        (28, "auto", "pwrite"),
        (32, "uring", "mmap"),
        (32, "epoll", "pwrite"),
        (64, "auto", "auto"),
    ] {
        let place = Place::new(content.clone());
        let download = place.download(&[&["--backend", backend, "--io", io], &named[..]].concat());
        let run = download.prepared(|command| limit_descriptors(command, limit)).run_within(SOON);
        assert_eq!(run.code, Some(0), "{limit} descriptors, {backend}, {io}: {}", run.stderr);
        assert_eq!(bytes_in(&place.path("out")), content.bytes.len() as u64);
    }
}

#[test]
fn nothing_is_left_of_a_failure_where_descriptors_are_few() {
    let content = Content::folder("f", &[1000; 200], 16384);
    let place = Place::new(content);
    let peers: Vec<_> = (0..40).map(|n| format!("127.0.0.{}:9", n + 2)).collect();
    let named: Vec<&str> = peers.iter().flat_map(|addr| ["--peer", addr]).collect();
    let download = place.download(&[&["--timeout", "2"], &named[..]].concat());
    download.prepared(|command| limit_descriptors(command, 24)).run().assert_fails(4, "no peers left to ask");
    assert_eq!(folder::names(&folder::list(place.dir.path())).len(), 1, "only the torrent is left");
}

#[test]
fn a_single_file_does_with_sixteen_descriptors() {
    let place = Place::new(content());
    let peers: Vec<_> = (0..20).map(|_| Peer::honest(&place.content)).collect();
    let named = named(&peers);
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let run = place.download(&named).prepared(|command| limit_descriptors(command, 16)).run_within(SOON);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::read(place.path("out")).unwrap() == *place.content.bytes);
}

#[test]
fn a_want_of_threads_is_one_line() {
    for count in 1..=8 {
        let place = Place::new(content());
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let download = place.download(&["--peer", "127.0.0.1:9", "--timeout", "2"]);
        let run = download.prepared(|command| limit_threads(command, count)).run();
        assert!(matches!(run.code, Some(4 | 6)), "{count} threads: {run:?}");
        let lines: Vec<_> = run.stderr.lines().filter(|line| !line.contains("using epoll instead")).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("ringtide: "), "{count} threads: {}", run.stderr);
        assert!(!place.path("out").exists());
    }
}

#[test]
fn little_address_space_is_no_failure() {
    let content = Content::single("content.bin", 56 << 20, 4 << 20);
    let peers: Vec<_> = (0..8).map(|_| Peer::honest(&content)).collect();
    let named = named(&peers);
    for io in ["auto", "pwrite"] {
        let place = Place::new(content.clone());
        let args: Vec<&str> = ["--io", io].into_iter().chain(named.iter().map(String::as_str)).collect();
        let limited = place.download(&args).prepared(|command| limit_address_space(command, 144 << 20));
        let run = limited.run_within(SOON);
        assert_eq!(run.code, Some(0), "{io}: {}", run.stderr);
        assert!(fs::read(place.path("out")).unwrap() == *content.bytes);
    }
}

#[test]
fn the_time_in_which_it_was_stopped_does_not_count() {
    let place = Place::new(content());
    let peer = Peer::start(&place.content, Script { blocks_max: 3, ..Script::default() });
    let running = place.download(&["--peer", &peer.addr.to_string(), "--timeout", "3"]).start();
    wait_for(SOON, || (peer.seen().blocks.len() == 3).then_some(())).unwrap();
    running.signal("STOP");
    std::thread::sleep(Duration::from_secs(5));
    running.signal("CONT");
    assert!(
        wait_for(Duration::from_secs(1), || has_ended(running.id()).then_some(())).is_none(),
        "it has given up"
    );
    running.wait(SOON).assert_fails(4, "");
}

#[test]
fn a_single_file_streams_to_stdout_in_order() {
    let place = Place::new(content());
    let peer = Peer::honest(&place.content);
    let addr = peer.addr.to_string();
    let to_stdout = |args: &[&str]| {
        ringtide([&["download", "-o", "-", "--peer", &addr], args, &["t"]].concat()).within(place.dir.path())
    };
    for args in [&[][..], &["--io", "pwrite"], &["--backend", "epoll"], &["--sync"]] {
        let run = to_stdout(args).run();
        assert!(run.stdout == *place.content.bytes, "{args:?}: {} bytes, {}", run.stdout.len(), run.stderr);
        assert!(run.code == Some(0) && run.stderr.contains("Downloaded t to -."), "{args:?}: {}", run.stderr);
    }
    assert_eq!(folder::names(&folder::list(place.dir.path())).len(), 1, "only the torrent is left");
    let blocks: Vec<usize> = peer.seen().blocks.iter().map(|block| block.0).collect();
    let first = &blocks[..39];
    assert!(first.is_sorted(), "the pieces were not asked for in order: {first:?}");

    let piece = ["download_piece", "-o", "-", "--peer", &addr, "t", "7"];
    let run = ringtide(piece).within(place.dir.path()).run();
    assert!(run.stdout == place.content.piece(7), "{}", run.stderr);
}

#[test]
fn a_reader_of_the_stream_that_goes_away_ends_it_in_good_order() {
    let place = Place::new(content());
    let peer = Peer::start(&place.content, Script { blocks_max: 12, ..Script::default() });
    let script = format!(
        "{{ '{}' download -o - --peer {} t; echo \"rc $?\" >&2; }} | head -c 10 >/dev/null",
        env!("CARGO_BIN_EXE_ringtide"),
        peer.addr
    );
    let run = Program::new("/bin/sh", ["-c", &script]).within(place.dir.path()).run();
    assert!(run.stderr.ends_with("rc 0\n"), "{}", run.stderr);
    assert_eq!(folder::names(&folder::list(place.dir.path())).len(), 1);
}

#[test]
fn several_files_do_not_stream() {
    let place = Place::new(Content::folder("f", &[100, 200], 16384));
    let run = ringtide(["download", "-o", "-", "t"]).within(place.dir.path()).run();
    run.assert_fails(2, "-o - is for a single file, and the torrent has several");
}
