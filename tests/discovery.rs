//! Where the built program looks for peers, and where it does not, with everything switched on: each test has a network
//! namespace of its own, in which every packet is seen and a silent world is lost beyond loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::namespace::in_namespace;
use common::process::wait_for;
use common::tracker::hex;
use common::workspace::{free_port, temp_dir};
use ringtide::discovery::lsd::{GROUP_V4, PORT};
use support::capture::{Capture, Packet};
use support::content::Content;
use support::memory::{MEMORY_MAX_KIB, Watch};
use support::peer::{Gossip, Peer, Script, Seen, number_of};
use support::program::{Program, Running, case, in_parallel, ringtide};
use support::rumour::{Server, neighbour};
use support::tracker::{Tracker, compact, dead_addr, dead_url, ok};
use tempfile::TempDir;

/// A process ends within this time after its download is complete.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// The first peer is dialed within this time after a tracker has named it.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// Far more than a small download takes, whoever is silent beside it.
const LIMIT: Duration = Duration::from_secs(30);

/// What was on its way when a search ended has passed by then.
const GRACE: Duration = Duration::from_millis(500);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn content() -> Content {
    Content::single("content", (1 << 20) + 12_345, 64 << 10)
}

/// A link with these trackers, percent-encoded.
fn link(content: &Content, trackers: &[&str]) -> String {
    let mut link = format!("magnet:?xt=urn:btih:{}", hex(&content.info_hash));
    for tracker in trackers {
        let encoded: String = tracker.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let _ = write!(link, "&tr={encoded}");
    }
    link
}

/// The program, with every source of peers that the arguments do not switch off.
fn with_everything(dir: &TempDir, args: &[&str]) -> Program {
    let cache = dir.path().join("cache");
    ringtide(["download", "-q", "-o", "out"].iter().chain(args)).within(dir.path()).prepared(|command| {
        command.env_remove("RINGTIDE_NO_DHT").env_remove("RINGTIDE_NO_LSD").env("XDG_CACHE_HOME", cache);
    })
}

/// Waits for the end of a download, which must be complete, and gives when it came.
#[track_caller]
fn complete(running: Running, limit: Duration, dir: &TempDir, content: &Content) -> Instant {
    let run = running.wait(limit);
    let ended = Instant::now();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "the content differs");
    ended
}

#[track_caller]
fn assert_exit(ended: Instant, peer: &Seen) {
    let took = ended - peer.block_at.expect("it has served");
    eprintln!("it ended {took:.2?} after the last block");
    assert!(took < EXIT_LIMIT, "{took:?} from the last block to the end of the process");
}

/// A tracker that names a slow seeder, and others who tell of peers that nobody else knows.
struct Gossips {
    dir: TempDir,
    tracker: Tracker,
    peer: Peer,
    /// The node that the program begins at, and the one that the peer tells of.
    nodes: [Server; 2],
    neighbour: SocketAddr,
    /// Known from the DHT, from PEX, and from the neighbour.
    rumours: [SocketAddr; 3],
    capture: Capture,
}

impl Gossips {
    fn start(content: &Content, script: Script) -> Self {
        let [by_dht, by_pex] = [1, 2].map(|host| SocketAddr::from(([198, 51, 100, host], 7000)));
        let by_lsd = SocketAddr::from((LOOPBACK, 7003));
        let nodes = [(); 2].map(|()| Server::dht_node(&[by_dht]));
        let gossip = Gossip { peers: vec![by_pex], dht_port: Some(nodes[1].addr.port()) };
        let peer = Peer::start(content, Script { gossip: Some(gossip), ..script });
        let tracker = Tracker::of(&[peer.addr]);
        let capture = Capture::start();
        let neighbour = neighbour(&[content.info_hash], by_lsd.port());
        let rumours = [by_dht, by_pex, by_lsd];
        Self { dir: temp_dir("gossips"), tracker, peer, nodes, neighbour, rumours, capture }
    }

    fn run(&self, content: &Content, torrent: &str) -> (Vec<Packet>, Seen) {
        let port = free_port(LOOPBACK).to_string();
        let node = self.nodes[0].addr.to_string();
        let running = with_everything(&self.dir, &["--port", &port, "--dht-node", &node, torrent]).start();
        let ended = complete(running, LIMIT, &self.dir, content);
        let seen = self.peer.assert_pleased();
        assert_exit(ended, &seen);
        let own = |packet: &Packet| {
            let tcp = i32::from(packet.protocol) == libc::IPPROTO_TCP;
            let is_tracker = packet.concerns(self.tracker.addr());
            tcp && (is_tracker || packet.concerns(self.peer.addr)) || packet.from == self.neighbour
        };
        let (known, others): (Vec<_>, _) = self.capture.packets().into_iter().partition(own);
        for addr in [self.tracker.addr(), self.peer.addr] {
            assert!(known.iter().any(|packet| packet.to == addr), "the capture is blind");
        }
        (others, seen)
    }

    /// Whether the packets show the DHT, the local network, and a dial of everybody that is told of.
    #[track_caller]
    fn assert_all_asked(&self, packets: &[Packet], nodes: usize) {
        let is_to = |addr: SocketAddr| packets.iter().any(|packet| packet.to == addr);
        for addr in self.nodes.iter().take(nodes).map(|node| node.addr).chain(self.rumours) {
            assert!(is_to(addr), "nothing went to {addr}: {packets:?}");
        }
        assert!(is_to((GROUP_V4, PORT).into()), "no announce to the local network: {packets:?}");
    }
}

/// A download that takes so long that everybody who is told of is asked in it, too.
fn slow() -> Script {
    Script { block_after: Duration::from_millis(110), ..Script::default() }
}

fn offers_pex(seen: &Seen) -> bool {
    let offers: Vec<_> = seen.extended.iter().filter(|said| said[0] == 0).collect();
    assert!(!offers.is_empty(), "no extension handshake");
    offers.iter().any(|offer| number_of(offer, "ut_pex").is_some_and(|number| number > 0))
}

#[test]
fn a_public_torrent_asks_everybody() {
    in_namespace("a_public_torrent_asks_everybody", true, || {
        let content = content();
        let gossips = Gossips::start(&content, slow());
        content.torrent(&gossips.dir.path().join("t"), &[&gossips.tracker.url()]);
        let (packets, seen) = gossips.run(&content, "t");
        gossips.assert_all_asked(&packets, 2);
        assert!(offers_pex(&seen));
    });
}

#[test]
fn a_private_torrent_speaks_to_its_tracker_and_its_peers_alone() {
    in_namespace("a_private_torrent_speaks_to_its_tracker_and_its_peers_alone", true, || {
        let content = content().private();
        let gossips = Gossips::start(&content, slow());
        content.torrent(&gossips.dir.path().join("t"), &[&gossips.tracker.url()]);
        let (packets, seen) = gossips.run(&content, "t");
        assert!(packets.is_empty(), "{packets:?}");
        assert!(gossips.nodes.iter().all(|node| node.datagrams().is_empty()));
        assert!(!offers_pex(&seen));
        let said = seen.extended.iter().map(|said| said[0]).collect::<Vec<_>>();
        assert!(said.iter().all(|&number| number == 0), "extended messages {said:?}");
    });
}

/// What a link stands for is not known before its metadata is there. From then on nobody hears of it or is dialed but
/// whom the trackers name.
#[test]
fn a_link_that_turns_out_private_leaves_all_others() {
    in_namespace("a_link_that_turns_out_private_leaves_all_others", true, || {
        let content = content().private();
        let script = Script { bitfield_after: Duration::from_millis(1500), ..slow() };
        let gossips = Gossips::start(&content, script);
        let (packets, seen) = gossips.run(&content, &link(&content, &[&gossips.tracker.url()]));
        let known_at = seen.metadata_at.unwrap();
        let (before, after): (Vec<_>, Vec<_>) =
            packets.into_iter().partition(|packet| packet.at < known_at + GRACE);
        gossips.assert_all_asked(&before, 1);
        // The kernel takes its time to tell routers that nobody here listens to a group any more.
        let is_ours =
            |packet: &Packet| [libc::IPPROTO_TCP, libc::IPPROTO_UDP].contains(&packet.protocol.into());
        let after: Vec<_> = after.into_iter().filter(is_ours).collect();
        assert!(after.is_empty(), "{after:?}");
        // The connection for the content.
        let offers: Vec<_> = seen.extended.iter().filter(|said| said[0] == 0).collect();
        assert_eq!(number_of(offers.last().unwrap(), "ut_pex"), None);
    });
}

/// A tracker that lives, and when it has answered first.
struct Living {
    url: String,
    answered_at: Arc<Mutex<Option<Instant>>>,
}

impl Living {
    /// Names that peer over HTTP, and takes the farewell without a word.
    fn http(peer: SocketAddr) -> Self {
        let answered_at = Arc::<Mutex<Option<Instant>>>::default();
        let log = Arc::clone(&answered_at);
        let tracker = Tracker::start(move |request, _| {
            if matches!(&*request.event(), "completed" | "stopped") {
                return None;
            }
            log.lock().unwrap().get_or_insert_with(Instant::now);
            Some(ok(&compact(&[peer])))
        });
        Self { url: tracker.url(), answered_at }
    }

    /// The same over UDP.
    fn udp(peer: SocketAddr) -> Self {
        let answered_at = Arc::<Mutex<Option<Instant>>>::default();
        let log = Arc::clone(&answered_at);
        let server = Server::tracker(LOOPBACK, &[peer], true, move || {
            log.lock().unwrap().get_or_insert_with(Instant::now);
        });
        Self { url: server.url(), answered_at }
    }
}

/// 30 trackers that are of no use, each in one of the ways in which they are.
fn dead_trackers() -> Vec<String> {
    let mut urls: Vec<String> = (0..8).map(|_| dead_url()).collect();
    urls.extend((0..6).map(|_| Tracker::silent().url()));
    urls.extend((1..5).map(|host| format!("http://198.51.100.{host}/announce")));
    urls.extend((0..6).map(|_| Server::silent().url()));
    urls.extend((0..2).map(|_| format!("udp://{}/announce", dead_addr())));
    urls.extend((0..2).map(|host| format!("http://tracker{host}.invalid/announce")));
    urls.extend((0..2).map(|host| format!("udp://tracker{host}.invalid:6969/announce")));
    assert_eq!(urls.len(), 30);
    urls
}

#[derive(Clone, Copy)]
enum Named {
    OneTier,
    OwnTiers,
    Link,
}

fn beside_dead_trackers(named: Named, living: fn(SocketAddr) -> Living) {
    let (dir, content) = (temp_dir("dead-trackers"), content());
    let peer = Peer::start(&content, Script { gossip: Some(Gossip::default()), ..Script::default() });
    let living = living(peer.addr);
    let mut urls = dead_trackers();
    urls.insert(17, living.url.clone());
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let path = dir.path().join("t");
    let link = link(&content, &urls);
    let torrent = match named {
        Named::OneTier => {
            content.torrent_of_tiers(&path, &[&urls]);
            "t"
        }
        Named::OwnTiers => {
            content.torrent(&path, &urls);
            "t"
        }
        Named::Link => &link,
    };
    let running = with_everything(&dir, &["--no-dht", "--no-lsd", torrent]).start();
    let ended = complete(running, LIMIT, &dir, &content);
    let seen = peer.assert_pleased();
    let answered_at = living.answered_at.lock().unwrap().unwrap();
    let dialed = seen.first_at.unwrap().saturating_duration_since(answered_at);
    eprintln!("dialed {dialed:.2?} after the answer");
    assert!(dialed < DIAL_LIMIT, "dialed {dialed:?} after the answer");
    assert_exit(ended, &seen);
}

#[test]
fn one_living_tracker_among_30_dead_ones_is_enough() {
    in_namespace("one_living_tracker_among_30_dead_ones_is_enough", true, || {
        in_parallel(vec![
            case("one tier, HTTP", || beside_dead_trackers(Named::OneTier, Living::http)),
            case("one tier, UDP", || beside_dead_trackers(Named::OneTier, Living::udp)),
            case("31 tiers, HTTP", || beside_dead_trackers(Named::OwnTiers, Living::http)),
            case("31 tiers, UDP", || beside_dead_trackers(Named::OwnTiers, Living::udp)),
            case("link, HTTP", || beside_dead_trackers(Named::Link, Living::http)),
            case("link, UDP", || beside_dead_trackers(Named::Link, Living::udp)),
        ]);
    });
}

/// Everything is under way when the last piece comes: names are looked up, nodes and trackers are silent, dials are
/// unanswered, somebody has dialed and says nothing.
#[test]
fn nothing_that_is_under_way_delays_the_end() {
    in_namespace("nothing_that_is_under_way_delays_the_end", true, || {
        let (dir, content) = (temp_dir("end"), content());
        let unheard = |host| SocketAddr::from(([198, 51, 100, host], 7000));
        let gossip = Gossip { peers: (1..100).map(unheard).collect(), dht_port: None };
        let peer = Peer::start(&content, Script { gossip: Some(gossip), ..slow() });
        let (http, udp) = (Living::http(peer.addr), Living::udp(unheard(200)));
        let (node, silent) = (Server::dht_node(&[unheard(201)]), Server::silent());
        neighbour(&[content.info_hash], 7003);
        for torrent in ["t", &link(&content, &[&http.url, &udp.url])] {
            content.torrent(&dir.path().join("t"), &[&http.url, &udp.url]);
            let port = free_port(LOOPBACK);
            let (node, silent) = (node.addr.to_string(), silent.addr.to_string());
            let _ = fs::remove_file(dir.path().join("out"));
            let mut args = vec![torrent, "--port"];
            let number = port.to_string();
            args.push(&number);
            for node in [&node, &silent, "nobody.invalid:6881"] {
                args.extend(["--dht-node", node]);
            }
            let running = with_everything(&dir, &args).start();
            let caller = wait_for(LIMIT, || TcpStream::connect((LOOPBACK, port)).ok()).unwrap();
            let ended = complete(running, LIMIT, &dir, &content);
            assert_exit(ended, &peer.assert_pleased());
            drop(caller);
        }
    });
}

/// Thousands of dead addresses, of which some refuse and some say nothing, from everybody who may tell of any; one that
/// lives is named behind almost all of them.
#[test]
fn one_living_peer_among_thousands_of_dead_ones_is_found() {
    in_namespace("one_living_peer_among_thousands_of_dead_ones_is_found", true, || {
        let (dir, content) = (temp_dir("book"), content());
        let port = dead_addr().port();
        let silent = |net: u8, count: u16| {
            (0..count).map(move |host| {
                let [high, low] = host.to_be_bytes();
                SocketAddr::from(([198, net, high, low], 7000))
            })
        };
        let refusing = (0..1400_u16).map(|host| {
            let [high, low] = host.to_be_bytes();
            SocketAddr::from(([127, 1, high, low], port))
        });
        let living = Peer::honest(&content);
        let mut named: Vec<SocketAddr> = silent(60, 600).chain(refusing).collect();
        // Of one reply 2000 addresses are read.
        named.insert(1990, living.addr);
        let tracker = Tracker::of(&named);
        // They tell of others and serve nothing.
        let gossips: Vec<Peer> = (0..10)
            .map(|net| {
                let gossip = Gossip { peers: silent(70 + net, 100).collect(), dht_port: None };
                let script = Script { gossip: Some(gossip), blocks_max: 0, ..Script::default() };
                Peer::start(&content, script)
            })
            .collect();
        let node = Server::dht_node(&silent(90, 150).collect::<Vec<_>>()).addr.to_string();
        content.torrent(&dir.path().join("t"), &[&tracker.url()]);
        let by_hand: Vec<String> = gossips.iter().map(|peer| peer.addr.to_string()).collect();
        let mut args = vec!["--dht-node", &node, "t"];
        args.extend(by_hand.iter().flat_map(|peer| ["--peer", peer]));
        let started = Instant::now();
        let running = with_everything(&dir, &args).start();
        let watch = Watch::start(running.id());
        let ended = complete(running, Duration::from_secs(180), &dir, &content);
        let (took, peak) = (ended - started, watch.peak());
        eprintln!("it took {took:.1?} and {} KiB", peak.anonymous_kib);
        assert!(took < Duration::from_secs(120), "{took:?}");
        assert!(peak.anonymous_kib < MEMORY_MAX_KIB, "{peak:?}");
        let told = gossips.iter().filter(|peer| peer.seen().extended.iter().any(|said| said[0] == 0)).count();
        assert_eq!(told, gossips.len(), "not all were heard");
        living.assert_pleased();
    });
}
