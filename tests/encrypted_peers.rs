//! Downloads from scripted peers over encrypted connections: what is selected, what is refused, and those that break the
//! encrypted handshake.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::content::Content;
use support::encrypted::Front;
use support::mse::{Answers, Responder};
use support::peer::{Peer, Script};
use support::program::{Run, ringtide};

/// The exit code for peers that are of no help.
const NO_PEERS: i32 = 4;

/// A public key, padding, and the encrypted part of the shortest answer: what a hostile peer may break off in.
const ANSWER_LEN: usize = 96 + 77 + 8 + 4 + 2 + 3;

fn content() -> Content {
    Content::single("encrypted", (4 << 20) + 12_345, 64 << 10)
}

/// Downloads from these peers into a folder of its own; gives the run and the output, if there is one.
fn download(content: &Content, args: &[&str], peers: &[SocketAddr]) -> (Run, Option<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let torrent = content.torrent(&dir.path().join("t"), &[]);
    let output = dir.path().join("out");
    let mut line: Vec<String> = ["download", "--json", "-q", "-o"].map(str::to_owned).into();
    line.push(output.to_str().unwrap().to_owned());
    line.extend(args.iter().map(|&arg| arg.to_owned()));
    line.extend(peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.to_string()]));
    line.push(torrent.to_str().unwrap().to_owned());
    let is_logged = peers.len() > 1;
    let program = ringtide(line).env("RUST_LOG", if is_logged { "ringtide=debug" } else { "off" });
    (program.run(), fs::read(&output).ok())
}

/// The same, to the right end. Gives the blocks that were received in place, and those that were copied.
fn complete(content: &Content, args: &[&str], peers: &[SocketAddr]) -> (u64, u64) {
    let (run, bytes) = download(content, args, peers);
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    assert!(bytes.unwrap() == *content.bytes, "{args:?}: the content differs");
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(summary["bytes_wasted"], 0);
    (summary["blocks_direct"].as_u64().unwrap(), summary["blocks_copied"].as_u64().unwrap())
}

#[test]
fn who_answers_only_encrypted_is_found() {
    let content = content();
    for backend in ["uring", "epoll"] {
        // RC4 is decrypted in a buffer; a connection that goes on as a plain one is received like one.
        for select in [1, 2] {
            let honest = Peer::honest(&content);
            let front = Front::of(honest.addr, content.info_hash, &Answers { select, ..Answers::default() });
            let (direct, copied) = complete(&content, &["--backend", backend], &[front.addr]);
            let is_plain = select == 1;
            assert!(if is_plain { direct > 0 } else { direct == 0 && copied > 0 }, "{direct}, {copied}");
            assert_eq!(front.opened.load(Ordering::Relaxed), 1);
            assert_eq!(front.refused.load(Ordering::Relaxed), 1, "plain comes first");
            honest.assert_pleased();
        }
        let honest = Peer::honest(&content);
        let front = Front::of(honest.addr, content.info_hash, &Answers::default());
        let args = ["--backend", backend, "--encryption", "require"];
        assert_eq!(complete(&content, &args, &[front.addr]).0, 0);
        assert_eq!(front.opened.load(Ordering::Relaxed), 1);
        assert_eq!(front.refused.load(Ordering::Relaxed), 0, "never plain");
        honest.assert_pleased();
    }
}

#[test]
fn who_answers_plain_is_not_dialed_encrypted() {
    let content = content();
    for args in [&["--encryption", "off"][..], &["--encryption", "prefer"], &[]] {
        let honest = Peer::honest(&content);
        let (direct, copied) = complete(&content, args, &[honest.addr]);
        assert!(direct > 9 * copied, "{args:?}: {direct}, {copied}");
        assert_eq!(honest.assert_pleased().connections, 1);
    }
}

#[test]
fn what_is_ruled_out_is_not_done() {
    let content = content();
    let honest = Peer::honest(&content);
    let front = Front::of(honest.addr, content.info_hash, &Answers::default());
    let (run, _) = download(&content, &["--encryption", "off", "--timeout", "3"], &[front.addr]);
    run.assert_fails(NO_PEERS, "without an answer; it may speak only encrypted");
    assert_eq!((front.opened.load(Ordering::Relaxed), honest.seen().connections), (0, 0));

    // It reads more than it was sent as a handshake, and finds another protocol.
    let (run, _) = download(&content, &["--encryption", "require", "--timeout", "3"], &[honest.addr]);
    run.assert_fails(NO_PEERS, "no peers left to ask");
    assert!(honest.seen().blocks.is_empty());

    // Plain is not among what is provided where encryption is required.
    let lax = Front::of(honest.addr, content.info_hash, &Answers { select: 1, ..Answers::default() });
    let (run, _) = download(&content, &["--encryption", "require", "--timeout", "3"], &[lax.addr]);
    run.assert_fails(NO_PEERS, "selects 0x1, expected one bit of 0x2");
}

#[test]
fn there_are_three_ways() {
    let (run, _) = download(&content(), &["--encryption", "maybe"], &[]);
    run.assert_fails(2, "'maybe' is not prefer, require or off");
}

/// How a hostile peer ends, once it has said all that it says.
#[derive(Clone, Copy)]
enum End {
    Reset,
    Close,
    Silence,
}

/// A peer that speaks the encrypted handshake up to some place.
struct Hostile {
    /// What the log says of it.
    reasons: &'static [&'static str],
    addr: SocketAddr,
    dialed: Arc<AtomicUsize>,
}

/// What a hostile peer sends, given the program's first bytes and the rest of the conversation.
type Talk = Box<dyn Fn(&mut TcpStream, &[u8]) -> std::io::Result<()> + Send + Sync>;

impl Hostile {
    fn start(reasons: &'static [&'static str], end: End, talk: Talk) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let dialed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&dialed);
        let talk = Arc::new(talk);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (talk, count) = (Arc::clone(&talk), Arc::clone(&count));
                thread::spawn(move || {
                    let mut hello = vec![0; 4096];
                    let received = stream.read(&mut hello).unwrap_or(0);
                    if received == 0 || hello.starts_with(b"\x13BitTorrent protocol") {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = talk(&mut stream, &hello[..received]);
                    match end {
                        End::Close => {}
                        End::Reset => {
                            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                        }
                        End::Silence => thread::sleep(Duration::from_secs(60)),
                    }
                });
            }
        });
        Self { reasons, addr, dialed }
    }

    /// Answers as it should, but says no more than `said` bytes.
    fn answering(reasons: &'static [&'static str], end: End, answers: Answers, said: usize) -> Self {
        let info_hash = content().info_hash;
        let talk: Talk = Box::new(move |stream, hello| {
            let mut responder = Responder::new(info_hash, answers.clone());
            let (mut left, mut input) = (said, hello.to_vec());
            loop {
                let mut out = Vec::new();
                responder.receive(&input, &mut out).unwrap();
                let len = out.len().min(left);
                stream.write_all(&out[..len])?;
                left -= len;
                if left == 0 || responder.is_done() {
                    return Ok(());
                }
                input.resize(4096, 0);
                let received = stream.read(&mut input)?;
                if received == 0 {
                    return Ok(());
                }
                input.truncate(received);
            }
        });
        Self::start(reasons, end, talk)
    }
}

fn hostile_peers() -> Vec<Hostile> {
    let saying = |reasons, bytes: Vec<u8>| {
        Hostile::start(reasons, End::Silence, Box::new(move |stream, _| stream.write_all(&bytes)))
    };
    let selecting = |reasons, select| {
        Hostile::answering(reasons, End::Silence, Answers { select, ..Answers::default() }, 9999)
    };
    let key = support::mse::power(None, &[9; 20]);
    let mut peers = vec![
        saying(&["the public key is trivial"], vec![0; 96]),
        saying(&["the public key is trivial"], vec![0xff; 4000]),
        saying(&["no verification constant"], [&key[..], &[0; 1 << 20]].concat()),
        saying(&["no verification constant", "the download is over"], [&key[..], &[0; 520]].concat()),
        saying(&["the download is over"], [&key[..], &[0; 519]].concat()),
        selecting(&["selects 0x0, expected one bit of"], 0),
        selecting(&["selects 0x3, expected one bit of"], 3),
        selecting(&["selects 0x4, expected one bit of"], 4),
        Hostile::answering(
            &["announces 513 bytes of padding"],
            End::Silence,
            Answers { pad_d: vec![0; 513], ..Answers::default() },
            9999,
        ),
        Hostile::answering(
            &["no verification constant"],
            End::Silence,
            Answers { pad_b: vec![0; 520], ..Answers::default() },
            9999,
        ),
    ];
    let gone = &["closed the connection", "connection lost"];
    for said in [0, 1, 95, 96, 97, 173, 174, 180, 181, 187, ANSWER_LEN - 1, ANSWER_LEN] {
        peers.push(Hostile::answering(gone, End::Reset, Answers::default(), said));
        peers.push(Hostile::answering(gone, End::Close, Answers::default(), said));
        peers.push(Hostile::answering(&["the download is over"], End::Silence, Answers::default(), said));
    }
    peers
}

#[test]
fn broken_handshakes_hold_up_nothing() {
    let content = content();
    for mode in ["prefer", "require"] {
        for backend in ["uring", "epoll"] {
            // It waits, so that the others have their turn.
            let script = Script { bitfield_after: Duration::from_secs(2), ..Script::default() };
            let honest = Peer::start(&content, script);
            let front = Front::of(honest.addr, content.info_hash, &Answers::default());
            let hostile = hostile_peers();
            let mut addrs: Vec<_> = hostile.iter().map(|peer| peer.addr).collect();
            addrs.push(front.addr);
            let (run, bytes) = download(&content, &["--encryption", mode, "--backend", backend], &addrs);
            assert_eq!(run.code, Some(0), "{mode}, {backend}: {}", run.stderr);
            assert!(bytes.unwrap() == *content.bytes, "{mode}, {backend}: the content differs");
            assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
            for Hostile { reasons, addr, dialed } in &hostile {
                assert!(dialed.load(Ordering::Relaxed) > 0, "{mode}, {backend}: {addr} was not dialed");
                let peer = format!(" {addr}: ");
                let told = run
                    .stderr
                    .lines()
                    .any(|line| line.contains(&peer) && reasons.iter().any(|reason| line.contains(reason)));
                let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains(&peer)).collect();
                assert!(told, "{mode}, {backend}: expected {reasons:?} in:\n{}", lines.join("\n"));
            }
            honest.assert_pleased();
        }
    }
}
