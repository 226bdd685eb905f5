//! Magnet links with the built program: its lines, byte for byte, and what it says to peers and trackers, in which order.
//! Peers lie in all the ways they can; one honest peer beside them suffices. What no line of the program tells of the
//! exchange is seen in the library: encrypted peers, those that call, and what they say beside metadata.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::tracker::hex;
use common::workspace::temp_dir;
use ringtide::meta::torrent::InfoHash;
use ringtide::net::close::CloseReason;
use ringtide::net::listener::Welcome;
use ringtide::net::metadata::{CALLERS_MAX, Goal, MetadataEvent, MetadataFetch};
use ringtide::swarm::fault::Fault;
use ringtide::swarm::session::{PEX_EARLY_MAX, PEX_IGNORED_MAX};
use ringtide::wire::mse::{MseError, Offer};
use support::content::Content;
use support::encrypted::Front;
use support::mse::Answers;
use support::peer::{PEER_ID, handshake};
use support::program::{case, in_parallel, ringtide};
use support::tracker::{Tracker, dead_addr};

/// How long a stage of the course may take.
const STAGE_LIMIT: Duration = Duration::from_secs(10);

/// The bytes of a piece of metadata.
const PIECE_LEN: usize = 16 * 1024;

/// How a peer answers requests for metadata.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// One byte of each piece is wrong.
    Corrupt,
    /// One byte of the last piece is wrong.
    CorruptEnd,
    Rejects,
    /// It says nothing any more.
    Silent,
    /// It answers with what is no bencode.
    Garbage,
    /// It answers with a byte too few.
    Short,
    /// It answers with another total size than it has claimed.
    OtherTotal,
    /// It sends pieces that nobody asked for before the one that was.
    Unasked,
    /// It closes the connection.
    Closes,
    /// It takes the connection and never says a word.
    Mute,
}

/// A peer that has metadata and nothing else.
#[derive(Clone)]
struct Script {
    info_hash: [u8; 20],
    info: Arc<[u8]>,
    manner: Manner,
    /// What it says the size is, if it says so.
    size: Option<i128>,
    /// The number under which it takes messages of metadata.
    id: u8,
    /// The wait before it says anything.
    hello_after: Duration,
    /// The wait before each answer.
    answer_after: Duration,
    /// What it says between its handshake and the extension handshake.
    before: Vec<u8>,
    /// What it says after the extension handshake.
    after: Vec<u8>,
    /// Whether it speaks the extension protocol at all.
    extension: bool,
}

impl Script {
    fn honest(content: &Content) -> Self {
        let bits = vec![0xff; content.piece_count().div_ceil(8)];
        Self {
            info_hash: content.info_hash,
            info: content.info().into(),
            manner: Manner::Honest,
            size: Some(content.info().len() as i128),
            id: 123,
            hello_after: Duration::ZERO,
            answer_after: Duration::ZERO,
            before: message(5, &bits),
            after: Vec::new(),
            extension: true,
        }
    }

    fn of(content: &Content, manner: Manner) -> Self {
        Self { manner, ..Self::honest(content) }
    }

    /// An honest peer that leaves the others time to do their worst.
    fn late(content: &Content) -> Self {
        Self { hello_after: Duration::from_millis(400), ..Self::honest(content) }
    }

    /// All that it says unasked.
    fn hello(&self) -> Vec<u8> {
        let mut hello = handshake(&self.info_hash);
        if self.extension {
            hello[25] |= 0x10;
        }
        hello.extend(&self.before);
        if self.extension {
            let size = self.size.map_or(String::new(), |size| format!("13:metadata_sizei{size}e"));
            let offer = format!("d1:md11:ut_metadatai{}e6:ut_pexi1ee{size}1:v1:xe", self.id);
            hello.extend(extended(0, offer.as_bytes()));
        }
        hello.extend(&self.after);
        hello
    }
}

struct Peer {
    addr: SocketAddr,
    faults: Arc<Mutex<Vec<String>>>,
    /// Pieces it was asked for.
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Peer {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (faults, asked) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let (fault_log, asked_log) = (Arc::clone(&faults), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, faults, asked) =
                    (script.clone(), Arc::clone(&fault_log), Arc::clone(&asked_log));
                thread::spawn(move || {
                    if let Ok(Err(fault)) = talk(stream, &script, &asked) {
                        faults.lock().unwrap().push(fault);
                    }
                });
            }
        });
        Self { addr, faults, asked }
    }

    #[track_caller]
    fn assert_pleased(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "the peer complains: {faults:?}");
    }
}

fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 1).to_be_bytes(), &[id][..], payload].concat()
}

fn extended(id: u8, payload: &[u8]) -> Vec<u8> {
    message(20, &[&[id], payload].concat())
}

/// The next message that is not a keep-alive: its id and payload.
fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u32::from_be_bytes(len).clamp(1, 4096) as usize];
    stream.read_exact(&mut message)?;
    Ok((message.remove(0), message))
}

/// The number behind a key, however deep it stands.
fn number_of(bytes: &[u8], key: &str) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (_, rest) = text.split_once(&format!("{}:{key}i", key.len()))?;
    rest.split('e').next()?.parse().ok()
}

/// Serves until the other side leaves (the outer error) or says something it should not (the inner one).
type Served = io::Result<Result<(), String>>;

/// Serves one that has dialed.
fn talk(mut stream: TcpStream, script: &Script, asked: &Mutex<Vec<usize>>) -> Served {
    if script.manner == Manner::Mute {
        return io::copy(&mut stream, &mut io::sink()).map(|_| Ok(()));
    }
    if let Err(fault) = read_handshake(&mut stream)? {
        return Ok(Err(fault));
    }
    thread::sleep(script.hello_after);
    stream.write_all(&script.hello())?;
    serve(stream, script, asked)
}

/// Dials, and serves once it is answered, which must not be before the torrent is named.
fn call(addr: SocketAddr, script: &Script) -> Served {
    let mut stream = TcpStream::connect(addr)?;
    let hello = script.hello();
    let (before, after) = hello.split_at(47);
    stream.write_all(before)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    if !stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        return Ok(Err("an answer to nothing".to_owned()));
    }
    stream.set_read_timeout(None)?;
    stream.write_all(after)?;
    if let Err(fault) = read_handshake(&mut stream)? {
        return Ok(Err(fault));
    }
    serve(stream, script, &Mutex::default())
}

fn read_handshake(stream: &mut TcpStream) -> Served {
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs)?;
    if theirs[20..28] != [0, 0, 0, 0, 0, 0x10, 0, 0] {
        return Ok(Err(format!("reserved bytes {:02x?}", &theirs[20..28])));
    }
    Ok(Ok(()))
}

fn serve(mut stream: TcpStream, script: &Script, asked: &Mutex<Vec<usize>>) -> Served {
    let (id, payload) = read_message(&mut stream)?;
    let ours = number_of(&payload, "ut_metadata");
    if id != 20 || payload[0] != 0 || !ours.is_some_and(|id| (1..256).contains(&id)) {
        return Ok(Err(format!("the first message is {id}: {}", payload.escape_ascii())));
    }
    let ours = ours.unwrap() as u8;
    let mut is_first = true;
    loop {
        let (id, payload) = read_message(&mut stream)?;
        let is_request = id == 20 && payload[0] == script.id && number_of(&payload, "msg_type") == Some(0);
        let Some(piece) = number_of(&payload, "piece").filter(|_| is_request) else {
            return Ok(Err(format!("a message {id}: {}", payload.escape_ascii())));
        };
        if is_first && payload[1..] != *b"d8:msg_typei0e5:piecei0ee" {
            return Ok(Err(format!("the first request is {}", payload.escape_ascii())));
        }
        is_first = false;
        asked.lock().unwrap().push(piece);
        thread::sleep(script.answer_after);
        answer(&mut stream, script, ours, piece)?;
        if script.manner == Manner::Closes {
            return Ok(Ok(()));
        }
    }
}

fn answer(stream: &mut TcpStream, script: &Script, id: u8, piece: usize) -> io::Result<()> {
    let Some(data) = script.info.chunks(PIECE_LEN).nth(piece) else {
        return stream.write_all(&extended(id, &data_message(piece, 1, &[0; PIECE_LEN])));
    };
    let mut data = data.to_vec();
    let mut total = script.size.unwrap_or(0) as usize;
    let is_last = (piece + 1) * PIECE_LEN >= script.info.len();
    match script.manner {
        Manner::Silent => return Ok(()),
        Manner::Rejects => {
            let reject = format!("d8:msg_typei2e5:piecei{piece}ee");
            return stream.write_all(&extended(id, reject.as_bytes()));
        }
        Manner::Garbage => return stream.write_all(&extended(id, b"d8:msg_typei1e5:piecei01ee\xff")),
        Manner::Corrupt => data[0] ^= 1,
        Manner::CorruptEnd if is_last => data[0] ^= 1,
        Manner::Short => drop(data.pop()),
        Manner::OtherTotal => total += 1,
        Manner::Unasked => {
            for other in (0..64).filter(|&other| other != piece) {
                stream.write_all(&extended(id, &data_message(other, total, &[7; PIECE_LEN])))?;
            }
        }
        Manner::Honest | Manner::CorruptEnd | Manner::Closes | Manner::Mute => {}
    }
    stream.write_all(&extended(id, &data_message(piece, total, &data)))
}

fn data_message(piece: usize, total: usize, data: &[u8]) -> Vec<u8> {
    let mut payload = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{total}ee").into_bytes();
    payload.extend(data);
    payload
}

/// A link with these trackers, percent-encoded, and these peers.
fn link(content: &Content, trackers: &[&str], peers: &[SocketAddr]) -> String {
    let mut link = format!("magnet:?xt=urn:btih:{}&dn=x", hex(&content.info_hash));
    for tracker in trackers {
        let encoded: String = tracker.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let _ = write!(link, "&tr={encoded}");
    }
    for peer in peers {
        let _ = write!(link, "&x.pe={peer}");
    }
    link
}

/// What `info` prints for the torrent file with that tracker.
fn info_of(content: &Content, dir: &Path, trackers: &[&str]) -> Vec<u8> {
    let torrent = content.torrent(&dir.join(hex(&content.info_hash)), trackers);
    ringtide(["info".as_ref(), torrent.as_os_str()]).run().stdout
}

const LINK: &str = "magnet:?xt=urn:btih:ad42ce8109f54c99613ce38f9b4d87e70f24a165&dn=magnet1.gif\
                    &tr=http%3A%2F%2Fbittorrent-test-tracker.codecrafters.io%2Fannounce";

#[test]
fn parse_prints_tracker_and_hash() {
    ringtide(["magnet_parse", LINK]).run().assert_prints(
        "Tracker URL: http://bittorrent-test-tracker.codecrafters.io/announce\n\
         Info Hash: ad42ce8109f54c99613ce38f9b4d87e70f24a165\n",
    );
    let base32 = "MAGNET:?xt=urn:btih:VVBM5AIJ6VGJSYJ44OHZWTMH44HSJILF";
    ringtide(["magnet_parse", base32])
        .run()
        .assert_prints("Tracker URL: none\nInfo Hash: ad42ce8109f54c99613ce38f9b4d87e70f24a165\n");
}

#[test]
fn what_is_no_link_is_refused() {
    for (link, text) in [
        ("debian.torrent", "it begins with 'debian.torrent', expected 'magnet:?'"),
        ("magnet:?dn=x", "'xt=urn:btih:' and the info hash are missing"),
        ("magnet:?xt=urn:btih:abc", "has 3 characters, expected 40 or 32"),
        ("magnet:?xt=urn:btmh:1220aa", "BitTorrent v2 only"),
    ] {
        for command in ["magnet_parse", "magnet_handshake", "magnet_info"] {
            ringtide([command, link]).run().assert_fails(1, text);
        }
    }
    ringtide(["magnet_parse"]).run().assert_fails(2, "magnet_parse --help");
}

#[test]
fn handshake_prints_the_peers_id_and_number() {
    let content = Content::sample("single");
    for id in [1, 3, 123, 255] {
        let peer = Peer::start(Script { id, ..Script::honest(&content) });
        let tracker = Tracker::of(&[peer.addr]);
        let link = link(&content, &[&tracker.url()], &[]);
        let expected = format!("Peer ID: {}\nPeer Metadata Extension ID: {id}\n", hex(PEER_ID));
        ringtide(["magnet_handshake", &link]).run_within(STAGE_LIMIT).assert_prints(expected);
        peer.assert_pleased();
        assert!(peer.asked.lock().unwrap().is_empty(), "it was asked for metadata");
        let [request, farewell] = &tracker.requests()[..] else { panic!("one announce, taken back") };
        assert_eq!(farewell.bytes("event"), b"stopped");
        assert_eq!(request.number("left"), 1);
        assert_eq!(request.bytes("info_hash"), content.info_hash);
        assert_eq!((request.bytes("peer_id").len(), request.number("compact")), (20, 1));
    }
}

#[test]
fn handshake_takes_the_first_that_takes_part() {
    let content = Content::sample("single");
    let plain = Peer::start(Script { extension: false, ..Script::honest(&content) });
    let slow = Peer::start(Script { hello_after: Duration::from_secs(8), ..Script::honest(&content) });
    let good = Peer::start(Script { id: 9, ..Script::late(&content) });
    let link = link(&content, &[], &[dead_addr(), plain.addr, slow.addr, good.addr]);
    let expected = format!("Peer ID: {}\nPeer Metadata Extension ID: 9\n", hex(PEER_ID));
    ringtide(["magnet_handshake", &link]).run_within(Duration::from_secs(5)).assert_prints(expected);
}

#[test]
fn info_is_that_of_the_torrent() {
    let dir = temp_dir("magnet");
    for name in ["single", "multi", "odd-pieces", "padded", "one-piece", "legacy"] {
        let content = Content::sample(name);
        let peer = Peer::start(Script::honest(&content));
        let tracker = Tracker::of(&[peer.addr]);
        let expected = info_of(&content, dir.path(), &[&tracker.url()]);
        assert!(!expected.is_empty());
        let link = link(&content, &[&tracker.url()], &[]);
        ringtide(["magnet_info", &link]).run_within(STAGE_LIMIT).assert_prints(expected);
        peer.assert_pleased();
    }
}

#[test]
fn one_honest_peer_suffices() {
    let dir = temp_dir("magnet");
    // Three pieces of metadata.
    let content = Content::single("content", 2_000 * 16, 16);
    let expected = info_of(&content, dir.path(), &[]);
    let honest = Script::honest(&content);
    let len = honest.size.unwrap();
    let with_size = |size| Script { size: Some(size), manner: Manner::Corrupt, ..honest.clone() };
    let after = |after: Vec<u8>| Script { after, manner: Manner::Silent, ..honest.clone() };
    let haves: Vec<u8> = (0..5_000u32).flat_map(|piece| message(4, &piece.to_be_bytes())).collect();
    let scripts = [
        ("corrupt", Script::of(&content, Manner::Corrupt)),
        ("corrupt at the end", Script::of(&content, Manner::CorruptEnd)),
        ("rejects", Script::of(&content, Manner::Rejects)),
        ("silent", Script::of(&content, Manner::Silent)),
        ("garbage", Script::of(&content, Manner::Garbage)),
        ("short", Script::of(&content, Manner::Short)),
        ("other total", Script::of(&content, Manner::OtherTotal)),
        ("unasked", Script::of(&content, Manner::Unasked)),
        ("closes", Script::of(&content, Manner::Closes)),
        ("smaller size", with_size(len - 1)),
        ("larger size", with_size(len + 1)),
        ("largest size", with_size(32 << 20)),
        ("huge size", with_size(i128::from(u64::MAX))),
        ("absurd size", with_size(1 << 100)),
        ("negative size", with_size(-1)),
        ("no size", Script { size: None, ..honest.clone() }),
        ("no extension", Script { extension: false, ..honest.clone() }),
        ("no bitfield", Script { before: Vec::new(), ..Script::late(&content) }),
        ("long bitfield", Script { before: message(5, &vec![0; 400_000]), ..with_size(1) }),
        ("too long bitfield", Script { before: message(5, &vec![0; 600_000]), ..with_size(1) }),
        ("haves", Script { before: haves, ..Script::late(&content) }),
        ("broken stream", after(vec![0xff; 100])),
        ("block", after(message(7, &[0; 8 + 16384]))),
        (
            "unchoke, keep-alive, unknown",
            after([message(1, &[]), vec![0; 4], message(99, &[1; 99])].concat()),
        ),
        ("asks itself", after(extended(1, b"d8:msg_typei0e5:piecei0ee").repeat(100))),
    ];
    let cases = scripts.into_iter().map(|(name, script)| {
        let (content, expected) = (&content, &expected);
        case(name, move || {
            let bad = Peer::start(script);
            let good = Peer::start(Script::late(content));
            let link = link(content, &[], &[bad.addr, good.addr]);
            ringtide(["magnet_info", &link]).run_within(2 * STAGE_LIMIT).assert_prints(expected);
            good.assert_pleased();
        })
    });
    in_parallel(cases.collect());
}

#[test]
fn one_honest_peer_suffices_among_many() {
    let dir = temp_dir("magnet");
    let content = Content::single("content", 5_000 * 16, 16);
    let expected = info_of(&content, dir.path(), &[]);
    let manners = [Manner::Corrupt, Manner::CorruptEnd, Manner::Silent, Manner::Rejects, Manner::Unasked];
    let mut peers: Vec<Peer> =
        manners.iter().cycle().take(15).map(|&manner| Peer::start(Script::of(&content, manner))).collect();
    peers.insert(7, Peer::start(Script::late(&content)));
    let addrs: Vec<SocketAddr> = peers.iter().map(|peer| peer.addr).collect();
    let link = link(&content, &[], &addrs);
    ringtide(["magnet_info", &link]).run().assert_prints(expected);
}

#[test]
fn long_metadata_comes_from_several_peers() {
    let dir = temp_dir("magnet");
    let content = Content::single("content", 80_000 * 4, 4);
    assert!(content.info().len() > 1_500_000);
    let expected = info_of(&content, dir.path(), &[]);
    let slow = Script { answer_after: Duration::from_millis(20), ..Script::honest(&content) };
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(slow.clone())).collect();
    let addrs: Vec<SocketAddr> = peers.iter().map(|peer| peer.addr).collect();
    let tracker = Tracker::of(&addrs);
    let link = link(&content, &[], &addrs);
    ringtide(["magnet_info", &link]).run_within(STAGE_LIMIT).assert_prints(expected);
    for peer in &peers {
        peer.assert_pleased();
        assert!(peer.asked.lock().unwrap().len() > 10, "the work was not shared");
    }
    drop(tracker);
}

#[test]
fn metadata_of_the_right_hash_may_be_no_torrent() {
    let content = Content::of_info(b"d4:name1:xe");
    let peer = Peer::start(Script::honest(&content));
    let link = link(&content, &[], &[peer.addr]);
    ringtide(["magnet_info", &link])
        .run()
        .assert_fails(1, "the link names no usable torrent: `piece length` is missing");
}

#[test]
fn without_peers_it_says_why() {
    let content = Content::sample("single");
    let fails = |trackers: &[&str], peers: &[SocketAddr], code, text: &str| {
        let link = link(&content, trackers, peers);
        for command in ["magnet_handshake", "magnet_info"] {
            ringtide([command, &link]).run().assert_fails(code, text);
        }
    };
    fails(&[], &[], 4, "the link names neither a tracker ('tr') nor a peer ('x.pe')");
    fails(&["udp://127.0.0.1:1"], &[], 3, "udp");
    fails(&[&support::tracker::dead_url()], &[], 3, "no tracker answered");
    fails(&[&Tracker::of(&[]).url()], &[], 4, "the trackers know of none");
    let dead = dead_addr();
    fails(&[], &[dead], 4, &format!("the last one was {dead}: cannot connect"));
    let plain = Peer::start(Script { extension: false, ..Script::honest(&content) });
    fails(&[], &[plain.addr], 4, "it has no metadata to give");
    let huge = Peer::start(Script { size: Some(1 << 40), ..Script::honest(&content) });
    let link = link(&content, &[], &[huge.addr]);
    ringtide(["magnet_info", &link]).run().assert_fails(4, "use the torrent file");
}

/// An exchange of metadata, and what it tells.
struct Exchange {
    fetch: MetadataFetch,
    events: Receiver<MetadataEvent>,
    /// For those that call.
    listener: TcpListener,
}

impl Exchange {
    fn start(content: &Content, pex: bool) -> Self {
        let (tell, events) = mpsc::channel();
        let tell = move |event| drop(tell.send(event));
        let hash = InfoHash(content.info_hash);
        let fetch = MetadataFetch::start(
            hash,
            *b"-RT0001-000000000000",
            Goal::Metadata,
            Welcome::Both,
            pex,
            Box::new(tell),
        )
        .unwrap();
        Self { fetch, events, listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    fn dial(&self, addr: SocketAddr, encryption: Option<Offer>) {
        self.fetch.dial(addr, encryption, STAGE_LIMIT);
    }

    fn port(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Takes over the next that calls.
    fn adopt(&self) {
        let (stream, addr) = self.listener.accept().unwrap();
        self.fetch.adopt(stream, addr);
    }

    #[track_caller]
    fn next(&self) -> MetadataEvent {
        self.events.recv_timeout(STAGE_LIMIT).unwrap()
    }

    /// Why the next peer was closed.
    #[track_caller]
    fn closed(&self) -> CloseReason {
        loop {
            match self.next() {
                MetadataEvent::Closed { reason, .. } => return reason,
                MetadataEvent::Complete(_) => panic!("there was metadata"),
                _ => {}
            }
        }
    }

    /// The metadata, from one who has called or one who was dialed.
    #[track_caller]
    fn metadata(&self, calls: bool) -> Vec<u8> {
        loop {
            match self.next() {
                MetadataEvent::Complete(info) => return info,
                MetadataEvent::Shook { is_caller, .. } => assert_eq!(is_caller, calls),
                MetadataEvent::Piece { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Content with several pieces of metadata.
fn long() -> Content {
    Content::single("content", 2_000 * 16, 16)
}

#[test]
fn metadata_comes_over_encrypted_connections() {
    let content = long();
    for (offer, select) in [(Offer::Rc4, 2), (Offer::Either, 2), (Offer::Either, 1)] {
        let peer = Peer::start(Script::honest(&content));
        let front = Front::of(peer.addr, content.info_hash, &Answers { select, ..Answers::default() });
        let exchange = Exchange::start(&content, true);
        exchange.dial(front.addr, None);
        let reason = exchange.closed();
        assert!(matches!(reason, CloseReason::Unanswered(_)), "{reason}");
        exchange.dial(front.addr, Some(offer));
        assert_eq!(exchange.metadata(false), content.info());
        assert_eq!(front.opened.load(Ordering::Relaxed), 1);
        peer.assert_pleased();
    }
}

#[test]
fn encrypted_handshakes_that_lead_nowhere_say_so() {
    let content = long();
    let exchange = Exchange::start(&content, true);
    let peer = Peer::start(Script::honest(&content));
    exchange.dial(peer.addr, Some(Offer::Either));
    let reason = exchange.closed();
    assert!(matches!(reason, CloseReason::Unanswered(_)), "{reason}");
    let front = Front::of(peer.addr, content.info_hash, &Answers { select: 1, ..Answers::default() });
    exchange.dial(front.addr, Some(Offer::Rc4));
    let reason = exchange.closed();
    assert!(matches!(reason, CloseReason::Encryption(MseError::Selected { got: 1, .. })), "{reason}");
    exchange.dial(peer.addr, None);
    assert_eq!(exchange.metadata(false), content.info());
}

#[test]
fn metadata_comes_from_one_who_calls() {
    let content = long();
    let exchange = Exchange::start(&content, true);
    let (addr, script) = (exchange.port(), Script::honest(&content));
    let caller = thread::spawn(move || call(addr, &script));
    exchange.adopt();
    assert_eq!(exchange.metadata(true), content.info());
    exchange.fetch.stop();
    // The outer error is our leaving.
    if let Ok(Err(fault)) = caller.join().unwrap() {
        panic!("the peer complains: {fault}");
    }
}

#[test]
fn who_calls_for_something_else_hears_nothing() {
    let exchange = Exchange::start(&long(), true);
    for (said, expected) in [
        (handshake(&[9; 20]), "it serves another torrent"),
        // It may be the beginning of a key, as long as it is no handshake.
        (b"GET / HTTP/1.1\r\n".to_vec(), "it closed the connection"),
        (vec![19], "it closed the connection"),
        (Vec::new(), "it closed the connection"),
    ] {
        let mut stream = TcpStream::connect(exchange.port()).unwrap();
        stream.write_all(&said).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        exchange.adopt();
        assert_eq!(exchange.closed().to_string(), expected);
        let heard = stream.read(&mut [0]);
        assert!(!matches!(heard, Ok(1..)), "{heard:?}");
    }
}

#[test]
fn callers_leave_places_for_those_that_are_dialed() {
    let content = long();
    let exchange = Exchange::start(&content, true);
    let idle = || {
        let stream = TcpStream::connect(exchange.port()).unwrap();
        exchange.adopt();
        stream
    };
    let _idle: Vec<_> = (0..CALLERS_MAX).map(|_| idle()).collect();
    let one_too_many = idle();
    let reason = exchange.closed();
    assert!(matches!(reason, CloseReason::Crowded), "{reason}");
    drop(one_too_many);
    let peer = Peer::start(Script::honest(&content));
    exchange.dial(peer.addr, None);
    assert_eq!(exchange.metadata(false), content.info());
}

/// Peers at one port of as many addresses as there are scripts.
fn crowd(scripts: Vec<Script>) -> Vec<SocketAddr> {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let addr = |number: usize| SocketAddr::from(([127, 3, (number >> 8) as u8, number as u8], port));
    let addrs = (0..scripts.len()).map(addr).collect();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(SocketAddr::V4(ours)) = stream.local_addr() else { continue };
            let [_, _, high, low] = ours.ip().octets();
            let script = scripts[usize::from(high) << 8 | usize::from(low)].clone();
            let serve = move || drop(talk(stream, &script, &Mutex::default()));
            thread::Builder::new().stack_size(256 << 10).spawn(serve).unwrap();
        }
    });
    addrs
}

#[test]
fn a_crowd_of_liars_does_not_hold_up_the_honest_one() {
    let dir = temp_dir("magnet");
    let content = Content::single("content", 5_000 * 16, 16);
    let silent = Script::of(&content, Manner::Silent);
    let of_size = |size: i128| Script { size: Some(size), ..silent.clone() };
    let len = content.info().len() as i128;
    let mixed = |number: usize| match number % 8 {
        0 => of_size(16),
        1 => of_size(32 << 20),
        2 => of_size(len + number as i128),
        3 => Script::of(&content, Manner::Corrupt),
        4 => Script::of(&content, Manner::CorruptEnd),
        5 => Script::of(&content, Manner::Rejects),
        6 => Script { answer_after: Duration::from_secs(3), ..Script::honest(&content) },
        _ => silent.clone(),
    };
    let crowds = [
        ("mute", vec![Script::of(&content, Manner::Mute); 300]),
        ("small claims", vec![of_size(16); 50]),
        ("the same claim", vec![silent.clone(); 120]),
        ("the largest claim", vec![of_size(32 << 20); 120]),
        ("of all kinds", (0..300).map(mixed).collect()),
    ];
    for (name, mut scripts) in crowds {
        scripts.push(Script::honest(&content));
        let addrs = crowd(scripts);
        // The tracker names the honest one last.
        let tracker = Tracker::of(&addrs);
        let link = link(&content, &[&tracker.url()], &[]);
        let run = ringtide(["magnet_info", &link]).run();
        run.assert_prints(info_of(&content, dir.path(), &[&tracker.url()]));
        // It takes some tenths of a second on a quiet machine.
        assert!(run.elapsed < Duration::from_secs(6), "{name}: {:?}", run.elapsed);
    }
}

#[test]
fn what_peers_said_is_told_when_nothing_came() {
    let content = long();
    let silent = Script { size: Some(16), ..Script::of(&content, Manner::Silent) };
    let mut scripts = vec![silent; 50];
    scripts.push(Script::of(&content, Manner::Rejects));
    scripts.push(Script::of(&content, Manner::Corrupt));
    scripts.push(Script { extension: false, ..Script::honest(&content) });
    let mut addrs = crowd(scripts);
    addrs.push(dead_addr());
    let link = link(&content, &[], &addrs);
    let run = ringtide(["info", "--no-dht", "--no-lsd", "--timeout", "3", &link]).run();
    let told = "no peer gave the torrent's metadata: 53 peers were connected: 50 promised it and sent nothing, \
                1 refused it, 1 sent a wrong one, 1 had none; 1 could not be reached; the last one was ";
    run.assert_fails(4, told);
}

/// What is kept beside an output of a link, and who may be gone then.
#[test]
fn a_link_is_known_again_without_anybody() {
    let dir = temp_dir("magnet");
    let within = |args: &[&str]| ringtide(args).within(dir.path());
    let (content, other) = (long(), Content::single("other", 3_000 * 16, 16));
    let seeder = support::peer::Peer::honest(&content);
    let peer = Peer::start(Script::honest(&content));
    let alone = link(&content, &[&support::tracker::dead_url()], &[]);
    let named = link(&content, &[], &[peer.addr, seeder.addr]);
    let done = |link: &str| format!("Downloaded {link} to out.\n");
    within(&["magnet_download", "-o", "out", &named]).run().assert_prints(done(&named));
    let kept = dir.path().join("out.ringtide.torrent");
    // It is a torrent file like any other.
    let said = within(&["info", "out.ringtide.torrent"]).run();
    assert_eq!(said.stdout, info_of(&content, temp_dir("magnet").path(), &[]));
    // Complete, and nobody is there.
    let at_once = Duration::from_secs(3);
    within(&["magnet_download", "-o", "out", &alone]).run_within(at_once).assert_prints(done(&alone));
    // Interrupted, and nobody who has metadata is there.
    std::fs::remove_file(dir.path().join("out")).unwrap();
    let seeded = link(&content, &[], &[seeder.addr]);
    within(&["download", "-o", "out", &seeded]).run_within(3 * at_once).assert_prints(done(&seeded));
    // Nobody's word is taken: what is there is of another hash, a text, a link to the right one.
    let right = std::fs::read(&kept).unwrap();
    std::fs::rename(&kept, dir.path().join("right")).unwrap();
    let unused =
        |program: support::program::Program| program.run().assert_fails(3, "no tracker answered").len();
    let refused = || within(&["magnet_download", "-o", "out", &alone]);
    for theirs in [&b"notes"[..], b"d4:infode1:xi1ee", &right[..right.len() - 1]] {
        std::fs::write(&kept, theirs).unwrap();
        unused(refused());
        assert_eq!(std::fs::read(&kept).unwrap(), theirs);
    }
    other.torrent(&kept, &[]);
    unused(refused());
    std::fs::remove_file(&kept).unwrap();
    std::os::unix::fs::symlink(dir.path().join("right"), &kept).unwrap();
    unused(refused());
    assert!(kept.is_symlink());
    // A piece alone keeps nothing.
    std::fs::remove_file(&kept).unwrap();
    within(&["magnet_download_piece", "-o", "piece", &named, "0"])
        .run()
        .assert_prints("Piece 0 downloaded to piece.\n");
    assert!(!dir.path().join("piece.ringtide.torrent").exists());
}

#[test]
fn a_download_that_leaves_nothing_leaves_no_torrent_file_either() {
    let dir = temp_dir("magnet");
    let content = long();
    let peer = Peer::start(Script::honest(&content));
    let link = link(&content, &[], &[peer.addr]);
    let args = ["magnet_download", "-o", "out", "--timeout", "2", "--no-dht", "--no-lsd", &link];
    ringtide(args).within(dir.path()).run().assert_fails(4, "0 B of 31.2 KiB are verified");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_peers_tell_of_others_is_passed_on() {
    let content = long();
    let others = extended(2, b"d5:added6:\x05\x06\x07\x08\x1a\xe1e");
    let talk = |count: u32, pex: bool| {
        let exchange = Exchange::start(&content, pex);
        exchange.dial(exchange.port(), None);
        let (mut stream, _) = exchange.listener.accept().unwrap();
        assert_eq!(read_handshake(&mut stream).unwrap(), Ok(()));
        let script = Script { size: None, ..Script::honest(&content) };
        stream.write_all(&script.hello()).unwrap();
        let (id, offer) = read_message(&mut stream).unwrap();
        assert_eq!((id, offer[0], number_of(&offer, "ut_metadata")), (20, 0, Some(1)));
        assert_eq!(number_of(&offer, "ut_pex"), pex.then_some(2));
        stream.write_all(&message(9, &[0x1a, 0xe1]).repeat(2)).unwrap();
        stream.write_all(&others.repeat(count as usize)).unwrap();
        // One who floods may be closed before.
        let _ = stream.shutdown(Shutdown::Write);
        let MetadataEvent::Shook { is_caller: false, .. } = exchange.next() else { panic!("no handshake") };
        let MetadataEvent::DhtNode(node) = exchange.next() else { panic!("no node") };
        assert_eq!(node, (Ipv4Addr::LOCALHOST, 0x1ae1).into());
        let mut told = 0;
        loop {
            match exchange.next() {
                MetadataEvent::Pex { from, exchange: others } => {
                    assert_eq!((from, others.dropped.len()), (exchange.port(), 0));
                    assert_eq!(others.added[0].addr, "5.6.7.8:6881".parse().unwrap());
                    told += 1;
                }
                MetadataEvent::Closed { reason, .. } => return (told, reason),
                other => panic!("{other:?}"),
            }
        }
    };
    let patience = PEX_EARLY_MAX + PEX_IGNORED_MAX;
    let (told, reason) = talk(patience, true);
    assert!(told == PEX_EARLY_MAX && matches!(reason, CloseReason::Closed), "{told}, {reason}");
    let (told, reason) = talk(patience + 1, true);
    let is_flood = matches!(reason, CloseReason::Fault(Fault::PexFlood { .. }));
    assert!(told == PEX_EARLY_MAX && is_flood, "{told}, {reason}");
    let (told, reason) = talk(patience + 1, false);
    assert!(told == 0 && matches!(reason, CloseReason::Closed), "{told}, {reason}");
}
