//! Downloads over long links, and the relay that makes links long.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::relay::{Link, Passage, Relay, Way};
use common::workspace::temp_dir;
use support::content::Content;
use support::peer::{Peer, Script};
use support::program::ringtide;

/// How long a download may hang: far more than it takes.
const LIMIT: Duration = Duration::from_secs(120);

const BLOCK_LEN: usize = 16 << 10;
/// A REQUEST, and a PIECE without its block.
const REQUEST_LEN: usize = 17;
const PIECE_HEADER_LEN: usize = 13;
/// At least the bytes of a side's handshakes and of what else it says before the blocks: the requests and blocks among
/// them are not counted.
const OPENING_LEN: usize = 512;

/// The most requests that were under way at once while the first `blocks_max` blocks came, as seen from the client's
/// end; some fewer rather than more.
fn most_outstanding(passages: &[Passage], blocks_max: usize) -> usize {
    let (mut asked, mut came, mut most) = (0, 0, 0);
    for passage in passages {
        match passage.way {
            Way::Up => asked += passage.bytes,
            Way::Down => came += passage.bytes,
        }
        let requests = asked.saturating_sub(OPENING_LEN) / REQUEST_LEN;
        let blocks = came.div_ceil(PIECE_HEADER_LEN + BLOCK_LEN);
        if blocks > blocks_max {
            break;
        }
        most = most.max(requests.saturating_sub(blocks));
    }
    most
}

/// Downloads 24 MiB through a link from a peer that takes so many requests, and looks at what passed.
fn download(link: Link, reqq: Option<u32>) -> Vec<Passage> {
    let content = Content::single("long", (24 << 20) + 12_345, 256 << 10);
    let peer = Peer::start(&content, Script { reqq, ..Script::default() });
    let relay = Relay::start(peer.addr, link).unwrap();
    let dir = temp_dir("long-links");
    let torrent = content.torrent(&dir.path().join("t"), &[]);
    let output = dir.path().join("out");
    let args = ["download", "-o", output.to_str().unwrap(), "--peer", &relay.addr.to_string()];
    let run = ringtide(args.into_iter().chain([torrent.to_str().unwrap()])).run_within(LIMIT);
    run.assert_prints(format!("Downloaded {} to {}.\n", torrent.display(), output.display()));
    assert!(fs::read(&output).unwrap() == *content.bytes, "the content differs");
    let seen = peer.assert_pleased();
    assert_eq!(seen.connections, 1);
    assert_eq!(seen.blocks.len(), content.bytes.len().div_ceil(BLOCK_LEN), "each block is asked for once");
    relay.passages()
}

#[test]
fn the_window_grows_with_each_block_to_what_a_peer_takes_that_does_not_say() {
    let passages = download(delay(10), None);
    let most = most_outstanding(&passages, 250);
    assert!(most >= 120, "{most} requests were outstanding");
    let most = most_outstanding(&passages, usize::MAX);
    assert!(most <= 250, "{most} requests were outstanding");
}

#[test]
fn the_window_grows_with_each_block_over_a_long_link() {
    let passages = download(delay(50), Some(500));
    // It doubles each round trip: when 240 blocks have come, twice as many have been asked for.
    let most = most_outstanding(&passages, 300);
    assert!(most >= 120, "{most} requests were outstanding");
    let most = most_outstanding(&passages, usize::MAX);
    assert!((400..=500).contains(&most), "{most} requests were outstanding");
}

#[test]
fn the_window_grows_beyond_what_fills_a_link() {
    let rate = Some(50_000_000);
    let passages = download(Link { up: rate, down: rate, ..delay(50) }, Some(2_000));
    // 305 blocks are on their way when it is full.
    let most = most_outstanding(&passages, 600);
    assert!((400..=616).contains(&most), "{most} requests were outstanding");
}

/// Both ends of a connection through such a link.
fn connected(link: Link) -> (Relay, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(listener.local_addr().unwrap(), link).unwrap();
    let client = TcpStream::connect(relay.addr).unwrap();
    let (upstream, _) = listener.accept().unwrap();
    for stream in [&client, &upstream] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }
    (relay, client, upstream)
}

fn delay(millis: u64) -> Link {
    Link { delay: Duration::from_millis(millis), ..Link::default() }
}

/// Bytes in which a shift or a swap shows.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[test]
fn the_relay_passes_bytes_and_ends_both_ways() {
    let rated = Link { up: Some(40_000_000), down: Some(1_000_000), ..delay(20) };
    for link in [Link::default(), delay(30), rated] {
        let (relay, client, upstream) = connected(link);
        let (up, down) = (bytes(3_000_001), bytes(200_003));
        thread::scope(|scope| {
            for (mut stream, ours, theirs) in [(&client, &up, &down), (&upstream, &down, &up)] {
                scope.spawn(move || {
                    stream.write_all(ours).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).unwrap();
                    assert!(received == *theirs, "{link:?}: {} bytes came", received.len());
                });
            }
        });
        let passed = |way| -> usize {
            relay.passages().iter().filter(|passage| passage.way == way).map(|passage| passage.bytes).sum()
        };
        assert_eq!((passed(Way::Up), passed(Way::Down)), (up.len(), down.len()));
    }
}

#[test]
fn no_byte_of_the_relay_is_early() {
    let rate = 10_000_000;
    let link = Link { up: Some(rate), ..delay(60) };
    let (_relay, mut client, mut upstream) = connected(link);
    let started = Instant::now();
    client.write_all(&bytes(1_000_000)).unwrap();
    let mut received = 0;
    let mut buffer = [0; 4096];
    while received < 1_000_000 {
        received += upstream.read(&mut buffer).unwrap();
        let soonest = link.delay + Duration::from_secs_f64(received as f64 / rate as f64);
        assert!(started.elapsed() >= soonest, "{received} bytes after {:?}", started.elapsed());
    }
    let started = Instant::now();
    upstream.write_all(b"a").unwrap();
    client.read_exact(&mut buffer[..1]).unwrap();
    assert!(started.elapsed() >= link.delay);
}

#[test]
fn a_reset_passes_the_relay() {
    for resets_client in [true, false] {
        let (_relay, client, upstream) = connected(delay(10));
        let (from, mut to) = if resets_client { (client, upstream) } else { (upstream, client) };
        socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO)).unwrap();
        drop(from);
        let error = to.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn an_upstream_that_is_gone_resets_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(listener.local_addr().unwrap(), delay(10)).unwrap();
    drop(listener);
    let mut client = TcpStream::connect(relay.addr).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_relay_ends_with_its_owner() {
    // Bytes that are hours away, in both directions, and an end that is idle.
    let (relay, mut client, mut upstream) = connected(delay(10_000_000));
    client.write_all(b"up").unwrap();
    upstream.write_all(b"down").unwrap();
    let addr = relay.addr;
    drop(relay);
    for mut stream in [client, upstream] {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "a byte came");
    }
    TcpStream::connect(addr).unwrap_err();
}

#[test]
fn a_receiver_that_takes_nothing_stops_the_sender() {
    let (_relay, mut client, mut upstream) = connected(Link { up: Some(100_000_000), ..delay(1) });
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let chunk = bytes(1 << 20);
    let mut sent = 0;
    // What the relay holds, and the buffers of four sockets.
    let held_max = 100 << 20;
    while sent <= held_max {
        match client.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent <= held_max, "{sent} bytes were taken");
    drop(client);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match upstream.read(&mut buffer).unwrap() {
            0 => break,
            n => received += n,
        }
    }
    assert_eq!(received, sent);
}
