//! libtorrent dials us: because it is told to, and because each has heard of the other on the local network (BEP 14).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use common::clients::start_libtorrent;
use common::namespace;
use common::payload::{Layout, Payload};
use common::process::wait_for;
use common::program::ringtide;
use common::record::real_client_test;
use common::workspace::{free_port, temp_dir};
use ringtide::discovery::lsd::message::Search;
use ringtide::discovery::lsd::{GROUP_V4, Lsd, LsdConfig, PORT};

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// By then what was sent over loopback has arrived.
const SETTLED: Duration = Duration::from_millis(500);

fn payload(name: &str) -> Payload {
    Payload::create(name, Layout::Single(3 * 1024 * 1024 + 12_345), 128 * 1024, 6)
}

fn loopback(host: u8) -> SocketAddr {
    let ip = Ipv4Addr::new(127, 0, 0, host);
    (ip, free_port(ip.into())).into()
}

#[test]
fn libtorrent_that_is_told_to_dials_a_download_that_knows_nobody() {
    let _test = real_client_test!();
    let payload = payload("callee.bin");
    let dir = temp_dir("callee");
    let torrent = payload.torrent(dir.path(), None);
    let port = free_port(Ipv4Addr::UNSPECIFIED.into()).to_string();
    let _seeder =
        start_libtorrent(&torrent, &payload, loopback(5), &["--connect", &format!("127.0.0.1:{port}")]);
    let output = dir.path().join("output");
    let (out, torrent) = (output.display().to_string(), torrent.display().to_string());
    let run = ringtide(["download", "--timeout", "30", "--port", &port, "-o", &out, &torrent], LIMIT);
    run.assert_prints(&format!("Downloaded {torrent} to {out}.\n"));
    payload.assert_same(&output);
}

#[test]
fn neighbours_find_each_other() {
    let _test = real_client_test!();
    namespace::in_namespace("neighbours_find_each_other", false, || {
        ours_hear_each_other();
        a_flood_is_survived();
        libtorrent_and_ours_hear_each_other();
    });
}

/// What one end has heard of.
struct Heard {
    _lsd: Lsd,
    peers: Receiver<Vec<SocketAddr>>,
}

impl Heard {
    fn start(info_hash: [u8; 20], port: Option<u16>, seed: u64) -> Self {
        let (events, peers) = mpsc::channel();
        let config = LsdConfig { info_hash, port, seed };
        let lsd = Lsd::start(config, Box::new(move |peers| drop(events.send(peers)))).unwrap();
        Self { _lsd: lsd, peers }
    }

    /// Waits until it has heard of that address.
    #[track_caller]
    fn wait_for(&self, addr: SocketAddr) {
        let heard =
            wait_for(LIMIT, || self.peers.try_iter().flatten().any(|peer| peer == addr).then_some(()));
        heard.unwrap_or_else(|| panic!("{addr} was not heard of"));
    }

    /// All that it has heard of by now.
    fn settled(&self) -> Vec<SocketAddr> {
        thread::sleep(SETTLED);
        self.peers.try_iter().flatten().collect()
    }
}

fn ours_hear_each_other() {
    let (ours, other) = ([1; 20], [2; 20]);
    let ear = Heard::start(ours, None, 1);
    let mute = Heard::start(other, None, 2);
    thread::sleep(SETTLED);
    let loud = Heard::start(ours, Some(7001), 3);
    let _elsewhere = Heard::start(other, Some(7002), 4);
    assert_eq!(ear.settled(), [SocketAddr::from((Ipv4Addr::LOCALHOST, 7001))]);
    assert_eq!(mute.settled(), [SocketAddr::from((Ipv4Addr::LOCALHOST, 7002))]);
    assert_eq!(loud.settled(), [], "it hears itself");
    // What has ended hears nothing, and its thread is gone.
    let threads = || {
        let names = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "lsd").count()
    };
    assert_eq!(threads(), 4);
    drop((ear, mute, loud, _elsewhere));
    wait_for(LIMIT, || (threads() == 0).then_some(())).expect("the threads end");
}

/// Thousands of datagrams name thousands of peers, and rubbish: few of them are told, and a real one still is.
fn a_flood_is_survived() {
    let ear = Heard::start([1; 20], None, 1);
    thread::sleep(SETTLED);
    let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
    // As the kernel picks the interface of a multicast datagram by the route to it, and there is none here.
    socket2::SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let group = SocketAddr::from((GROUP_V4, PORT));
    for number in 1..=5000_u16 {
        let search = Search { port: number.try_into().unwrap(), info_hashes: vec![[1; 20]], cookie: None };
        socket.send_to(&search.encode(group), group).unwrap();
        socket.send_to(&[0xff; 1472], group).unwrap();
    }
    let told = ear.settled().len();
    assert!((1..=64).contains(&told), "{told} peers");
    // What is queued in the kernel is read first.
    let started = Instant::now();
    let end = loop {
        let other = Heard::start([1; 20], Some(7003), 5);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7003));
        if ear.settled().contains(&addr) {
            break started.elapsed();
        }
        drop(other);
        assert!(started.elapsed() < LIMIT, "it is deaf");
    };
    eprintln!("heard again after {end:.1?}");
}

fn libtorrent_and_ours_hear_each_other() {
    let payload = payload("neighbour.bin");
    let dir = temp_dir("neighbour");
    let torrent = payload.torrent(dir.path(), None);
    let ear = Heard::start(payload.info_hash, None, 7);
    thread::sleep(SETTLED);
    let addr = loopback(1);
    let _seeder = start_libtorrent(&torrent, &payload, addr, &["--lsd"]);
    ear.wait_for(addr);
    // Now it is up: what we announce makes it dial.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let _loud = Heard::start(payload.info_hash, Some(listener.local_addr().unwrap().port()), 8);
    let (calls, inbox) = mpsc::channel();
    thread::spawn(move || calls.send(listener.accept().unwrap().0));
    let mut call: TcpStream = inbox.recv_timeout(LIMIT).expect("it dials");
    call.set_read_timeout(Some(LIMIT)).unwrap();
    let mut hello = [0; 48];
    call.read_exact(&mut hello).unwrap();
    assert_eq!((&hello[..20], &hello[28..]), (&b"\x13BitTorrent protocol"[..], &payload.info_hash[..]));
}
