//! What the system may refuse, and how it tells a process to end: few descriptors, no threads, no address space, signals,
//! and switches of the environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use common::process::wait_for;
use common::workspace::temp_dir;
use support::content::Content;
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
