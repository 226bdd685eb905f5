//! Peers that dial ringtide: seeders that nobody could reach, strangers, and floods of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::confine::limit_descriptors;
use common::process::wait_for;
use common::workspace::{free_port, temp_dir};
use serde_json::Value;
use support::content::Content;
use support::encrypted::CallingFront;
use support::peer::{Peer, Script, handshake};
use support::program::{FAILURE_LIMIT, Program, Run, Running, case, in_parallel, ringtide};
use support::tracker::{Tracker, dead_url};
use tempfile::TempDir;

/// Most connections that ringtide has at a time, and descriptors besides.
const DESCRIPTORS_MAX: usize = 320 + 80;

/// A torrent of its own for each test: a port may be another test's by the time that a seeder dials it again.
fn content() -> Content {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("incoming {}", COUNT.fetch_add(1, Ordering::Relaxed));
    Content::single(&name, (4 << 20) + 12_345, 128 << 10)
}

/// A download of which only the tracker knows, and that names nobody.
struct Unknown {
    dir: TempDir,
    content: Content,
    tracker: Arc<Tracker>,
    backend: &'static str,
}

impl Unknown {
    fn new(backend: &'static str) -> Self {
        let (dir, content, tracker) = (temp_dir("incoming"), content(), Arc::new(Tracker::of(&[])));
        content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        Self { dir, content, tracker, backend }
    }

    fn program(&self, options: &[&str]) -> Program {
        let args =
            ["download", "--json", "-q", "-o", "out", "--backend", self.backend, "--timeout", "25", "t"];
        ringtide(args.iter().chain(options)).within(self.dir.path()).env("RUST_LOG", "ringtide=debug")
    }

    /// The port that the tracker was told of.
    fn port(&self) -> u16 {
        let announced = || self.tracker.requests().first().map(|request| request.number("port"));
        wait_for(FAILURE_LIMIT, announced).expect("it announces itself") as u16
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).unwrap();
        stream.set_read_timeout(Some(FAILURE_LIMIT)).unwrap();
        stream
    }

    /// An honest seeder that learns of the download from the tracker.
    fn seeder(&self, script: Script) -> Peer {
        let tracker = Arc::clone(&self.tracker);
        Peer::calling(&self.content, script, move || {
            let port = tracker.requests().first()?.number("port");
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)))
        })
    }

    #[track_caller]
    fn assert_complete(&self, run: &Run) {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        assert!(fs::read(self.dir.path().join("out")).unwrap() == *self.content.bytes, "the content differs");
    }

    /// Has a seeder dial a download that this was done to, which must be complete soon.
    #[track_caller]
    fn survive(self, harm: impl FnOnce(&Self, &Running)) {
        let running = self.program(&[]).start();
        harm(&self, &running);
        let seeder = self.seeder(Script::default());
        let run = running.wait(FAILURE_LIMIT);
        self.assert_complete(&run);
        seeder.assert_pleased();
    }
}

/// Asserts that the other side closes, having said nothing, before `limit`.
#[track_caller]
fn assert_sent_away(mut stream: TcpStream, limit: Duration) {
    let started = Instant::now();
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut said);
    assert!(said.is_empty(), "it said {}", said.escape_ascii());
    assert!(started.elapsed() < limit, "it took {:?}", started.elapsed());
}

const SOON: Duration = Duration::from_secs(5);

fn on_each_backend(test: fn(&'static str)) {
    in_parallel(vec![case("auto", move || test("auto")), case("epoll", move || test("epoll"))]);
}

#[test]
fn a_seeder_that_nobody_can_dial_serves_everything() {
    on_each_backend(|backend| {
        let unknown = Unknown::new(backend);
        let seeder = unknown.seeder(Script { reqq: Some(500), ..Script::default() });
        let run = unknown.program(&[]).run();
        unknown.assert_complete(&run);
        let seen = seeder.assert_pleased();
        assert_eq!(seen.pieces().len(), unknown.content.piece_count());
        assert_eq!(seen.connections, 1, "it was closed in between");
        let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(summary["bytes_wasted"].as_u64(), Some(0), "{summary}");
    });
}

#[test]
fn beside_a_dead_tracker_callers_are_waited_for_as_long_as_the_user_says() {
    for (ip, seeders) in [("127.0.0.1", 1), ("::1", 1), ("127.0.0.1", 5)] {
        if TcpListener::bind((ip, 0)).is_err() {
            continue;
        }
        let (content, dir) = (content(), temp_dir("incoming"));
        content.torrent(&dir.path().join("t"), &[&dead_url()]);
        let port = free_port(Ipv4Addr::UNSPECIFIED.into());
        let to = SocketAddr::new(ip.parse().unwrap(), port);
        let seeders: Vec<_> =
            (0..seeders).map(|_| Peer::calling(&content, Script::default(), move || Some(to))).collect();
        let number = port.to_string();
        let args = ["download", "-q", "-o", "out", "--timeout", "20", "--port", &number, "t"];
        ringtide(args).within(dir.path()).run().assert_prints("Downloaded t to out.\n");
        assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "the content differs");
        seeders.iter().for_each(|seeder| drop(seeder.assert_pleased()));
    }
}

#[test]
fn who_calls_for_something_else_is_sent_away_at_once() {
    on_each_backend(|backend| {
        Unknown::new(backend).survive(|unknown, _| {
            for hello in [
                handshake(&[7; 20]),
                // Keys that are none.
                vec![0; 96],
                vec![0xff; 96],
            ] {
                let mut stream = unknown.dial();
                stream.write_all(&hello).unwrap();
                assert_sent_away(stream, SOON);
            }
        });
    });
}

/// Anything that is not the protocol's name may be a key, so it gets one, and its time to go on.
#[test]
fn who_speaks_neither_way_hears_a_key_at_most() {
    on_each_backend(|backend| {
        Unknown::new(backend).survive(|unknown, _| {
            for (hello, is_key) in [
                (b"GET / HTTP/1.1\r\n\r\n".to_vec(), false),
                (b"\x13BitTorrent Protocol".to_vec(), false),
                (vec![0xa5; 96], true),
                // Behind the longest padding comes nothing that shows that the secret is known.
                (vec![0xa5; 96 + 512 + 20], true),
                (vec![0xa5; 100_000], true),
            ] {
                let mut stream = unknown.dial();
                // It may be sent away before it has said all.
                let _ = stream.write_all(&hello);
                if hello.len() < 600 {
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                }
                let (started, mut said) = (Instant::now(), Vec::new());
                let _ = stream.read_to_end(&mut said);
                assert!(said.len() <= 96 + 512, "it said {} bytes", said.len());
                assert!(is_key || said.is_empty(), "it said {}", said.escape_ascii());
                assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
            }
        });
    });
}

#[test]
fn a_seeder_that_dials_encrypted_serves_everything() {
    on_each_backend(|backend| {
        // What is provided, what is allowed, and what is selected of it.
        for (provide, encryption, select) in
            [(2, "prefer", 2), (3, "prefer", 1), (1, "prefer", 1), (2, "require", 2), (3, "require", 2)]
        {
            let unknown = Unknown::new(backend);
            let tracker = Arc::clone(&unknown.tracker);
            let front = CallingFront::start(unknown.content.info_hash, provide, move || {
                let port = tracker.requests().first()?.number("port");
                Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)))
            });
            let addr = front.addr;
            let seeder = Peer::calling(&unknown.content, Script::default(), move || Some(addr));
            let run = unknown.program(&["--encryption", encryption]).run();
            unknown.assert_complete(&run);
            seeder.assert_pleased();
            let selected = front.selected.lock().unwrap().clone();
            assert_eq!(selected, [select], "{provide}, {encryption}");
            let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
            assert_eq!(summary["blocks_direct"].as_u64() == Some(0), select == 2, "{summary}");
        }
    });
}

#[test]
fn who_dials_in_a_way_that_is_not_allowed_is_sent_away() {
    let unknown = Unknown::new("auto");
    let running = unknown.program(&["--encryption", "require"]).start();
    let mut stream = unknown.dial();
    stream.write_all(&handshake(&unknown.content.info_hash)).unwrap();
    assert_sent_away(stream, SOON);
    drop(running);
    let unknown = Unknown::new("auto");
    let running = unknown.program(&["--encryption", "off"]).start();
    let mut stream = unknown.dial();
    stream.write_all(&[0xa5; 96]).unwrap();
    assert_sent_away(stream, SOON);
    drop(running);
}

#[test]
fn who_says_nothing_or_drips_is_closed_in_time_and_holds_up_nobody() {
    on_each_backend(|backend| {
        Unknown::new(backend).survive(|unknown, _| {
            let silent = unknown.dial();
            let mut half = unknown.dial();
            half.write_all(&handshake(&unknown.content.info_hash)[..47]).unwrap();
            thread::spawn(move || {
                for &byte in b"\x13BitTorrent protocol" {
                    // It ends with the download.
                    if half.write_all(&[byte]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            });
            assert_sent_away(silent, Duration::from_secs(15));
        });
    });
}

#[test]
fn a_caller_hears_our_handshake_once_it_has_named_the_torrent() {
    let unknown = Unknown::new("auto");
    let running = unknown.program(&[]).start();
    let mut stream = unknown.dial();
    let hello = handshake(&unknown.content.info_hash);
    stream.write_all(&hello[..48]).unwrap();
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs).unwrap();
    assert_eq!(theirs[..20], *b"\x13BitTorrent protocol");
    assert_eq!(theirs[28..48], unknown.content.info_hash);
    // One that gives itself our own name is ourselves.
    stream.write_all(&theirs[48..]).unwrap();
    assert_sent_away(stream, SOON);
    // The extension handshake of another tells where we listen.
    let mut stream = unknown.dial();
    let mut hello = hello;
    hello[25] |= 0x10;
    stream.write_all(&hello).unwrap();
    let port = format!("1:pi{}e", unknown.port());
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(&port) {
        let mut bytes = [0; 500];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "it closed after {}", said.escape_ascii());
        said.extend(&bytes[..n]);
    }
    drop(running);
}

#[test]
fn a_liar_that_calls_is_banned_and_nobody_dials_it() {
    on_each_backend(|backend| {
        let unknown = Unknown::new(backend);
        let running = unknown.program(&[]).start();
        let liar = unknown.seeder(Script { corrupt: true, blocks_max: 40, ..Script::default() });
        wait_for(FAILURE_LIMIT, || (liar.seen().connections > 1).then_some(())).expect("it is closed");
        let seeder = unknown.seeder(Script::default());
        let run = running.wait(FAILURE_LIMIT);
        unknown.assert_complete(&run);
        seeder.assert_pleased();
        assert!(run.stderr.contains("banned: it sent wrong data"), "{}", run.stderr);
        assert!(!run.stderr.contains("cannot connect"), "{}", run.stderr);
    });
}

#[test]
fn a_flood_of_connections_neither_takes_all_descriptors_nor_keeps_out_a_seeder() {
    on_each_backend(|backend| {
        Unknown::new(backend).survive(|unknown, running| {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, unknown.port()));
            let flood: Vec<_> = (0..4)
                .map(|_| {
                    thread::spawn(move || {
                        let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok();
                        (0..250).filter_map(connect).collect::<Vec<_>>()
                    })
                })
                .collect();
            let folder = format!("/proc/{}/fd", running.id());
            let flood: Vec<_> = flood.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let open = fs::read_dir(folder).map_or(0, Iterator::count);
            assert!(open < DESCRIPTORS_MAX, "{open} descriptors");
            // They stay for as long as the test runs.
            std::mem::forget(flood);
        });
    });
}

#[test]
fn where_descriptors_run_out_a_seeder_still_gets_through() {
    on_each_backend(|backend| {
        let unknown = Unknown::new(backend);
        let running = unknown.program(&[]).prepared(|command| limit_descriptors(command, 60)).start();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, unknown.port()));
        let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok();
        let flood: Vec<_> = (0..100).filter_map(connect).collect();
        let seeder = unknown.seeder(Script::default());
        let run = running.wait(FAILURE_LIMIT);
        unknown.assert_complete(&run);
        let said = run.stderr.matches("cannot accept a connection").count();
        assert!(said < 200, "it has tried {said} times");
        seeder.assert_pleased();
        drop(flood);
    });
}

#[test]
fn a_flood_does_not_keep_ringtide_from_dialing() {
    let (content, dir) = (content(), temp_dir("incoming"));
    let peer = Peer::start(&content, Script { block_after: Duration::from_millis(5), ..Script::default() });
    let tracker = Tracker::of(&[peer.addr]);
    content.torrent(&dir.path().join("t"), &[&tracker.url()]);
    let port = free_port(Ipv4Addr::UNSPECIFIED.into());
    let number = port.to_string();
    let running =
        ringtide(["download", "-q", "-o", "out", "--port", &number, "t"]).within(dir.path()).start();
    let flood = thread::spawn(move || {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut seen = false;
        // Until there is nobody left to call.
        loop {
            match TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
                Ok(_) => seen = true,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused && seen => return,
                Err(_) => {}
            }
        }
    });
    running.wait(FAILURE_LIMIT).assert_prints("Downloaded t to out.\n");
    flood.join().unwrap();
    peer.assert_pleased();
}

#[test]
fn a_port_of_the_users_that_is_taken_is_an_error_and_leaves_no_trace() {
    let (content, dir) = (content(), temp_dir("incoming"));
    content.torrent(&dir.path().join("t"), &[]);
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let number = taken.local_addr().unwrap().port().to_string();
    let run = ringtide(["download", "-o", "out", "--port", &number, "t"]).within(dir.path()).run();
    let text = format!("cannot listen on port {number}: address already in use; give another --port, or 0");
    run.assert_fails(2, &text);
    assert!(!dir.path().join("out").exists());
    let run = ringtide(["download", "-o", "out", "--port", "65536", "t"]).within(dir.path()).run();
    run.assert_fails(2, "ringtide: ");
}

#[test]
fn several_downloads_listen_at_once_and_one_nowhere() {
    let downloads: Vec<_> = (0..12).map(|_| Unknown::new("auto")).collect();
    let running: Vec<_> = downloads.iter().map(|unknown| unknown.program(&[]).start()).collect();
    let mut ports: Vec<_> = downloads.iter().map(Unknown::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), running.len(), "{ports:?}");
    for ip in [Ipv4Addr::LOCALHOST.to_ipv6_mapped(), Ipv6Addr::LOCALHOST] {
        assert!(TcpListener::bind((ip, 0)).is_err() || TcpStream::connect((ip, ports[0])).is_ok(), "{ip}");
    }
    drop(running);
    let nowhere = Unknown::new("auto");
    let running = nowhere.program(&["--port", "0"]).start();
    assert_eq!(nowhere.port(), 6881, "trackers want a port");
    let listening = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap().filter(|thread| {
        let name = fs::read_to_string(thread.as_ref().unwrap().path().join("comm")).unwrap_or_default();
        name.trim() == "listener"
    });
    assert_eq!(listening.count(), 0);
}
