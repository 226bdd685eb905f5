//! Trackers that mean no good: each is the first that a torrent names, and the download must complete all the same, from
//! the peer that another names, in little memory and without a word on the terminal that is not ours.
//!
//! What a user hears who has no other tracker is in `failures.rs`, what the HTTP client makes of it in `trackers.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use common::workspace::temp_dir;
use support::content::Content;
use support::memory::{MEMORY_MAX_KIB, Watch, row};
use support::peer::{Peer, Script};
use support::program::{Case, Run, case, in_parallel, ringtide};
use support::tracker::{Tracker, compact, dead_addr, dead_url, ok};

/// A tracker that keeps a download waiting is left for the next; nothing of that takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Cases at a time.
const CASES_MAX: usize = 6;

/// The most that the program may print beside its progress.
const STDERR_LEN_MAX: usize = 2000;

/// Twenty pieces of two blocks.
fn content() -> Content {
    Content::single("content.bin", 20 * 32768, 32768)
}

/// Downloads a torrent that names these trackers in this order, and looks at what came of it.
fn complete(name: &str, content: &Content, trackers: &[&str]) -> Run {
    let dir = temp_dir("hostile");
    content.torrent(&dir.path().join("t"), trackers);
    let running = ringtide(["download", "-o", "out", "t"]).within(dir.path()).start();
    let watch = Watch::start(running.id());
    let run = running.wait(LIMIT);
    let peak = watch.peak();
    run.assert_prints("Downloaded t to out.\n");
    assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "{name}: the content differs");
    let is_odd = |char: char| char.is_control() && char != '\n';
    assert!(run.stderr.len() < STDERR_LEN_MAX && !run.stderr.contains(is_odd), "{name}: {:?}", run.stderr);
    assert!(peak.anonymous_kib < MEMORY_MAX_KIB, "{name}: {peak:?}");
    row("tracker", name, "completed", peak, run.elapsed);
    run
}

/// A few cases at a time, so that they do not wait for each other's processor.
fn run_all(mut cases: Vec<Case<'_>>) {
    while !cases.is_empty() {
        in_parallel(cases.drain(..cases.len().min(CASES_MAX)).collect());
    }
}

/// The hostile tracker comes first, one that names an honest peer second.
fn beside_an_honest_one(trackers: Vec<(&'static str, Tracker)>) {
    let content = &content();
    let cases = trackers.iter().map(|(name, hostile)| {
        case(name, move || {
            let peer = Peer::honest(content);
            complete(name, content, &[&hostile.url(), &Tracker::of(&[peer.addr]).url()]);
            peer.assert_pleased();
            assert!(!hostile.requests().is_empty(), "{name} was asked");
        })
    });
    run_all(cases.collect());
}

/// Sends this and then the same part again and again, for as long as somebody listens.
fn endless(start: &'static str, part: &'static [u8]) -> Tracker {
    Tracker::serving(move |_, _, mut connection| {
        let _ = connection.write_all(start.as_bytes());
        while connection.write_all(part).is_ok() {}
    })
}

/// The same, slowly.
fn dripping(start: &'static str) -> Tracker {
    Tracker::serving(move |_, _, mut connection| {
        let _ = connection.write_all(start.as_bytes());
        while connection.write_all(b"1").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    })
}

#[test]
fn replies_without_end_or_sense_are_left_for_the_next_tracker() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const BODY: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let filler = &[b'x'; 65_536];
    let reset = Tracker::serving(|_, _, mut connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nd8:interval");
        let _ = socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO));
    });
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\xb1\xc8\xcc\x2b\x49".as_slice();
    let with_header = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip].concat();
    beside_an_honest_one(vec![
        ("endless body", endless(BODY, filler)),
        ("endless chunks", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")),
        (
            "a chunk of 2^63 bytes",
            endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", filler),
        ),
        ("endless header", endless("HTTP/1.1 200 OK\r\nX: ", filler)),
        ("endless headers", endless(OK, b"X: y\r\n")),
        ("endless status line", endless("HTTP/1.1 200 ", filler)),
        ("endless 100 Continue", endless("", b"HTTP/1.1 100 Continue\r\n\r\n")),
        (
            "Content-Length of 2^63-1",
            endless("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", filler),
        ),
        (
            "Content-Length of 2^64",
            Tracker::saying("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nde"),
        ),
        ("silence", Tracker::silent()),
        ("a byte at a time, body", dripping(BODY)),
        ("a byte at a time, header", dripping("HTTP/1.1 200 OK\r\nX: ")),
        ("reset in the middle", reset),
        ("gzip, unasked and unsaid", Tracker::replying(gzip)),
        ("gzip, unasked", Tracker::saying(with_header)),
    ]);
}

#[test]
fn redirects_lead_nowhere_else() {
    let redirect = |location: &str| {
        Tracker::saying(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    };
    let growing = Tracker::start(|request, addr| {
        let more = "x".repeat(1500);
        let location = format!("http://{addr}{}&{more}", request.target);
        Some(format!("HTTP/1.1 307 Again\r\nLocation: {location}\r\n\r\n").into_bytes())
    });
    let other = Tracker::start(|_, addr| {
        Some(
            format!("HTTP/1.1 301 Moved\r\nLocation: http://localhost:{}/\r\n\r\n", addr.port()).into_bytes(),
        )
    });
    beside_an_honest_one(vec![
        ("redirect to file:", redirect("file:///etc/passwd")),
        ("redirect to itself", redirect("/announce")),
        ("redirects between two names", other),
        ("redirects that grow", growing),
        ("redirect to no place", redirect("")),
        ("redirect to garbage", redirect("http://\u{202e}\u{1b}[2J:99999/")),
        ("redirect into TLS that is none", redirect("https://127.0.0.1:1/")),
    ]);
}

#[test]
fn bencode_that_is_a_bomb_is_an_error() {
    let unordered = |count: u32| {
        let mut body = b"d".to_vec();
        (0..count).rev().for_each(|key| body.extend(format!("6:{key:06}0:").bytes()));
        body.push(b'e');
        body
    };
    let text = |key: &str| {
        let text = "\u{1b}[2J\u{1b}]0;pwned\u{7}\r".repeat(40_000);
        format!("d{}:{key}{}:{text}e", key.len(), text.len()).into_bytes()
    };
    beside_an_honest_one(vec![
        ("lists in lists", Tracker::replying("l".repeat(1_000_000))),
        ("dictionaries in dictionaries", Tracker::replying("d1:a".repeat(250_000))),
        ("half a million values", Tracker::replying(format!("d5:peersl{}ee", "0:".repeat(500_000)))),
        ("keys out of order", Tracker::replying(unordered(90_000))),
        ("a string of 10^20 bytes", Tracker::replying("d5:peers99999999999999999999:x")),
        ("a string past the end", Tracker::replying("d5:peers1000000:x")),
        (
            "a number of a million digits",
            Tracker::replying(format!("d8:intervali{}ee", "9".repeat(1_000_000))),
        ),
        ("a failure reason of escapes", Tracker::replying(text("failure reason"))),
    ]);
}

/// These are answers. A tracker that names nobody keeps nobody from asking the next.
#[test]
fn answers_that_name_nobody_are_not_the_last_word() {
    let no_peers = b"d8:intervali60e5:peersl\
        i1elede1:xd2:ipi1e4:port1:xed2:ip9:localhost4:porti1eed2:ip9:127.0.0.14:porti70000eeee";
    let wrong_types = b"d8:interval4:soon12:min intervalle5:peersi7e6:peers6de\
        10:tracker idi1e15:warning messagedee";
    let zero_ports =
        [&b"d8:intervali1800e5:peers6000:"[..], &[127, 0, 0, 1, 0, 0].repeat(1000), b"e"].concat();
    let long_id = format!("d5:peers0:10:tracker id1000000:{}e", "x".repeat(1_000_000));
    beside_an_honest_one(vec![
        ("wrong types everywhere", Tracker::replying(wrong_types)),
        ("peers that are none", Tracker::replying(no_peers)),
        ("port 0 only", Tracker::replying(zero_ports)),
        ("nobody, for 10^20 seconds", Tracker::replying("d8:intervali99999999999999999999e5:peers0:e")),
        (
            "nobody, no sooner than in 10^20",
            Tracker::replying("d12:min intervali99999999999999999999e5:peers0:e"),
        ),
        ("a tracker id of a megabyte", Tracker::replying(long_id)),
    ]);
}

/// More peers than anybody can ask, none of whom is there.
#[test]
fn a_flood_of_dead_peers_does_not_hide_the_other_trackers() {
    let port = dead_addr().port();
    let dead = |count: u32| -> Vec<SocketAddr> {
        (0..count).map(|index| SocketAddr::from(([127, 1, (index >> 8) as u8, index as u8], port))).collect()
    };
    let listed: String =
        (0..20_000).map(|index| format!("d2:ip9:127.0.0.{}4:porti{}ee", index % 10, 1 + index % 9)).collect();
    let fitting: Vec<SocketAddr> = dead(170_000);
    beside_an_honest_one(vec![
        ("a million peers", Tracker::of(&dead(1_000_000))),
        ("170,000 dead peers", Tracker::of(&fitting)),
        ("20,000 peers as dictionaries", Tracker::replying(format!("d8:intervali1800e5:peersl{listed}ee"))),
    ]);
}

/// An honest peer among addresses that no peer can have.
#[test]
fn impossible_addresses_do_not_stop_a_download() {
    let content = content();
    let peer = Peer::honest(&content);
    let port = dead_addr().port();
    let odd = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:0.0.0.0"];
    let mut peers: Vec<SocketAddr> =
        odd.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect();
    peers.push(peer.addr);
    // The same again and again.
    peers.extend([peer.addr; 100]);
    complete("impossible addresses", &content, &[&Tracker::of(&peers).url()]);
    assert_eq!(peer.assert_pleased().connections, 1);
}

/// However often a tracker wants to hear of us, it does so only every few seconds.
#[test]
fn senseless_intervals_make_no_noise() {
    let content = &content();
    let intervals = ["i0e", "i-1e", "i-99999999999999999999e", "i99999999999999999999e", "0:", "le"];
    let cases = intervals.iter().map(|interval| {
        case(interval, move || {
            let block_after = Duration::from_millis(40);
            let peer = Peer::start(content, Script { block_after, ..Script::default() });
            let peers = compact(&[peer.addr]);
            let (_, peers) = peers.split_at(peers.windows(7).position(|at| at == b"5:peers").unwrap());
            let head = format!("d8:interval{interval}12:min interval{interval}");
            let tracker = Tracker::replying([head.as_bytes(), peers].concat());
            complete(&format!("interval {interval}"), content, &[&tracker.url()]);
            let events: Vec<_> = tracker.requests().iter().map(support::tracker::Request::event).collect();
            assert_eq!(events, ["started", "completed", "stopped"], "{interval}");
        })
    });
    run_all(cases.collect());
}

#[test]
fn a_warning_is_shown_short_and_harmless() {
    let content = content();
    let peer = Peer::honest(&content);
    let text = "update\u{1b}[2J\u{7}\r\n\u{202e}now ".repeat(40_000);
    let mut body = compact(&[peer.addr]);
    body.pop();
    body.extend(format!("15:warning message{}:{text}e", text.len()).bytes());
    let tracker = Tracker::saying(ok(&body));
    let run = complete("a warning of escapes", &content, &[&tracker.url()]);
    assert!(run.stderr.contains("warns: update\u{fffd}[2J"), "{}", run.stderr);
    assert!(!run.stderr.contains('\u{202e}'), "the text around it keeps its order: {:?}", run.stderr);
}

#[test]
fn more_trackers_than_can_be_asked() {
    let content = content();
    let peer = Peer::honest(&content);
    let good = Tracker::of(&[peer.addr]);
    let mut urls: Vec<String> = (0..30).map(|_| dead_url()).collect();
    urls.push("http://".to_owned());
    urls.push(format!("http://127.0.0.1:1/{}", "x".repeat(100_000)));
    urls.push(good.url());
    urls.extend((0..20_000).map(|number| format!("http://127.0.0.1:1/{number}")));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    complete("20,000 trackers", &content, &urls);
}
