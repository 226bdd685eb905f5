//! Magnet links in swarms of real clients: peers found in one way at a time, metadata from each client, and content that
//! is the same to the byte.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, iter};

use common::clients::{Client, Crypto, DhtSwarm, Friends, Seeder, start_libtorrent};
use common::namespace::in_namespace;
use common::payload::{FileEntry, Layout, Payload};
use common::program::{Run, ringtide, ringtide_with};
use common::record::real_client_test;
use common::tracker::{Tracker, hex};
use common::workspace;

/// How long a command may take: transmission sends metadata every three seconds, and lets nobody in before its next
/// ten-second round.
const LIMIT: Duration = Duration::from_secs(120);

/// Nodes in the DHT.
const NODES: usize = 10;

#[test]
fn from_libtorrent_that_only_a_udp_tracker_knows() {
    let _test = real_client_test!();
    download_with_udp_tracker(Client::Libtorrent);
}

#[test]
fn from_transmission_that_only_a_udp_tracker_knows() {
    let _test = real_client_test!();
    download_with_udp_tracker(Client::Transmission);
}

#[test]
fn from_the_one_seeder_in_a_dht() {
    let _test = real_client_test!();
    let payload = payload("dht.bin");
    let dir = workspace::temp_dir("dht");
    let torrent = payload.torrent(dir.path(), None);
    let swarm = DhtSwarm::start(NODES, &torrent, &payload);
    let link = payload.link(&[]);
    let cache = dir.path().join("cache");
    let mut node = swarm.addrs[0].to_string();
    let with_dht = |options: &[&str]| {
        download_with(options, &link, &payload, |command| {
            command.env_remove("RINGTIDE_NO_DHT").env("XDG_CACHE_HOME", &cache);
        });
    };
    with_dht(&["--dht-node", &node, "--no-pex"]);
    // A node that does not exist: the seeder is found from those that were kept.
    node = addr_of_nobody().to_string();
    with_dht(&["--dht-node", &node, "--no-pex"]);
}

/// The link names one of four peers with a quarter each.
#[test]
fn three_of_four_peers_are_heard_of_from_the_first() {
    let _test = real_client_test!();
    let payload = payload("exchange.bin");
    let dir = workspace::temp_dir("exchange");
    let torrent = payload.torrent(dir.path(), None);
    let friends = Friends::start(&torrent, &payload);
    let link = payload.link(&[format!("x.pe={}", friends.addrs[0])]);
    download(&[], &link, &payload);
    friends.assert_unchanged(&payload);
}

#[test]
fn from_a_neighbour() {
    let _test = real_client_test!();
    in_namespace("from_a_neighbour", false, || {
        let payload = payload("neighbour.bin");
        let dir = workspace::temp_dir("neighbour");
        let torrent = payload.torrent(dir.path(), None);
        let ip = Ipv4Addr::new(127, 0, 0, 5).into();
        let addr = SocketAddr::new(ip, workspace::free_port(ip));
        let _seeder = start_libtorrent(&torrent, &payload, addr, &["--lsd"]);
        download_with(&[], &payload.link(&[]), &payload, |command| {
            command.env_remove("RINGTIDE_NO_LSD");
        });
    });
}

#[test]
fn from_a_peer_that_the_link_names() {
    let _test = real_client_test!();
    let payload = payload("named.bin");
    let dir = workspace::temp_dir("named");
    let torrent = payload.torrent(dir.path(), Some(&dead_tracker()));
    for client in Client::ALL {
        let seeder = Seeder::start(client, &torrent, &payload);
        download(&[], &payload.link(&[format!("x.pe={}", seeder.addr)]), &payload);
    }
}

#[test]
fn from_a_peer_that_the_link_names_over_ipv6() {
    let _test = real_client_test!();
    let payload = payload("named-ipv6.bin");
    let dir = workspace::temp_dir("named-ipv6");
    let torrent = payload.torrent(dir.path(), None);
    for client in [Client::Libtorrent, Client::Transmission] {
        let seeder = Seeder::start_v6(client, &torrent, &payload);
        assert_eq!(seeder.addr.ip(), Ipv6Addr::LOCALHOST);
        let plain = format!("x.pe=[::1]:{}", seeder.addr.port());
        download(&[], &payload.link(&[plain]), &payload);
        let escaped = format!("x.pe={}", escape(&seeder.addr.to_string()));
        download(&[], &payload.link(&[escaped]), &payload);
    }
}

#[test]
fn metadata_of_more_than_a_mebibyte_from_transmission() {
    let _test = real_client_test!();
    fetch_large_metadata(Client::Transmission);
}

#[test]
fn metadata_of_more_than_a_mebibyte_from_aria2() {
    let _test = real_client_test!();
    fetch_large_metadata(Client::Aria2);
}

#[test]
fn metadata_of_more_than_a_mebibyte_from_rtorrent() {
    let _test = real_client_test!();
    fetch_large_metadata(Client::Rtorrent);
}

#[test]
fn metadata_of_more_than_a_mebibyte_from_libtorrent() {
    let _test = real_client_test!();
    fetch_large_metadata(Client::Libtorrent);
}

#[test]
fn from_clients_that_require_encryption() {
    let _test = real_client_test!();
    let payload = payload("encrypted.bin");
    let dir = workspace::temp_dir("encrypted");
    for (client, crypto) in [
        (Client::Libtorrent, Crypto::Rc4),
        (Client::Transmission, Crypto::Handshake),
        (Client::Aria2, Crypto::Rc4),
        (Client::Rtorrent, Crypto::Rc4),
    ] {
        let tracker = Tracker::start(&[&payload]);
        let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
        let _seeder = Seeder::start_encrypted(client, crypto, &torrent, &payload, &tracker);
        let link = payload.link(&[tracker_parameter(&tracker.url())]);
        download(&[], &link, &payload);
        download(&["--encryption", "require"], &link, &payload);
    }
}

/// What the course prescribes, to the byte.
#[test]
fn the_commands_of_the_course() {
    let _test = real_client_test!();
    let payload = payload("course.bin");
    let dir = workspace::temp_dir("course");
    for client in Client::ALL {
        let tracker = Tracker::start(&[&payload]);
        let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
        let _seeder = Seeder::start(client, &torrent, &payload);
        tracker.wait_for_peers(&payload, 1);
        let link = payload.link(&["dn=course.bin".to_owned(), tracker_parameter(&tracker.url())]);

        let hash = hex(&payload.info_hash);
        let parsed = format!("Tracker URL: {}\nInfo Hash: {hash}\n", tracker.url());
        ringtide(["magnet_parse", &link], LIMIT).assert_prints(&parsed);
        assert_shakes_hands(client, &ringtide(["magnet_handshake", &link], LIMIT));
        let info = ringtide([Path::new("info"), &torrent], LIMIT).stdout;
        assert!(info.starts_with(&format!(
            "Tracker URL: {}\nLength: {}\n",
            tracker.url(),
            payload.total_len
        )));
        ringtide(["magnet_info", &link], LIMIT).assert_prints(&info);
        for index in [0, payload.piece_count() - 1] {
            let output = dir.path().join(format!("{client:?}-{index}"));
            let (out, number) = (output.display().to_string(), index.to_string());
            let run = ringtide(["magnet_download_piece", "-o", &out, &link, &number], LIMIT);
            run.assert_prints(&format!("Piece {index} downloaded to {out}.\n"));
            let piece = fs::read(&output).expect("it was downloaded");
            assert!(piece == payload.piece(index), "{client:?}: piece {index} differs");
        }
        let output = dir.path().join(format!("{client:?}"));
        let out = output.display().to_string();
        let run = ringtide(["magnet_download", "-o", &out, &link], LIMIT);
        run.assert_prints(&format!("Downloaded {link} to {out}.\n"));
        payload.assert_same(&output);
    }
}

fn payload(name: &str) -> Payload {
    Payload::create(name, Layout::Single(6 * 1024 * 1024 + 4321), 64 * 1024, 7)
}

/// 5000 files of some bytes each, whose names are as long as file systems take.
fn many_long_names() -> Payload {
    let file = |index: u64| FileEntry {
        path: vec![
            format!("folder {}", index % 9),
            format!("{index:04} {}", "long name ".repeat(23).trim_end()),
        ],
        len: index * 37 % 199,
    };
    Payload::create("many long names", Layout::Folder((0..5000).map(file).collect()), 16 * 1024, 8)
}

/// An address at which nobody listens.
fn addr_of_nobody() -> SocketAddr {
    let ip = Ipv4Addr::LOCALHOST;
    SocketAddr::from((ip, workspace::free_port(ip.into())))
}

/// The announce URL of a tracker that does not exist.
fn dead_tracker() -> String {
    format!("http://{}/announce", addr_of_nobody())
}

fn tracker_parameter(url: &str) -> String {
    format!("tr={}", escape(url))
}

/// With everything escaped that a link may not contain, and more.
fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What a link names is described as its torrent file is, although it takes 83 requests, and is downloaded.
fn fetch_large_metadata(client: Client) {
    let payload = many_long_names();
    let dir = workspace::temp_dir("large");
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let len = fs::metadata(&torrent).expect("it was written").len();
    assert!(len > (1 << 20) + 1024, "the metainfo has {len} bytes");
    let expected = ringtide([Path::new("info"), &torrent], LIMIT);
    assert!(expected.stdout.starts_with(&format!("Tracker URL: {}\n", tracker.url())));
    let seeder = Seeder::start(client, &torrent, &payload);
    let named = payload.link(&[format!("x.pe={}", seeder.addr)]);
    let run = ringtide(["info", &named], LIMIT);
    let untracked = expected.stdout.replacen(&tracker.url(), "none", 1);
    assert_prints_long(client, &run, &untracked);
    eprintln!("{client:?}: {len} bytes of metadata in {:.2?}", run.elapsed);
    tracker.wait_for_peers(&payload, 1);
    let link = payload.link(&[tracker_parameter(&tracker.url())]);
    assert_prints_long(client, &ringtide(["info", &link], LIMIT), &expected.stdout);
    download(&[], &link, &payload);
}

/// The seeder announces itself over HTTP; the link knows only of UDP.
fn download_with_udp_tracker(client: Client) {
    let payload = payload("udp.bin");
    let dir = workspace::temp_dir("udp");
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let _seeder = Seeder::start(client, &torrent, &payload);
    tracker.wait_for_peers(&payload, 1);
    download(&[], &payload.link(&[tracker_parameter(&tracker.udp_url())]), &payload);
}

/// Downloads into a new place, and compares.
fn download(options: &[&str], link: &str, payload: &Payload) {
    download_with(options, link, payload, |_| {});
}

fn download_with(options: &[&str], link: &str, payload: &Payload, prepare: impl FnOnce(&mut Command)) {
    let place = workspace::temp_dir("output");
    let output = place.path().join("output");
    let out = output.display().to_string();
    let args = iter::once("download").chain(options.iter().copied()).chain(["-o", &out, link]);
    let run = ringtide_with(args, LIMIT, prepare);
    run.assert_prints(&format!("Downloaded {link} to {out}.\n"));
    payload.assert_same(&output);
    eprintln!("{options:?} {link}: {} bytes in {:.2?}", payload.total_len, run.elapsed);
}

/// As [`Run::assert_prints`], for what is too long to be shown.
#[track_caller]
fn assert_prints_long(client: Client, run: &Run, expected: &str) {
    assert_eq!(run.code, Some(0), "{client:?}: {}", run.stderr);
    let differs = run.stdout.lines().zip(expected.lines()).position(|(line, expected)| line != expected);
    assert!(run.stdout == expected, "{client:?}: the lines differ from line {differs:?}");
}

/// Asserts that it is the client that was shaken hands with.
#[track_caller]
fn assert_shakes_hands(client: Client, run: &Run) {
    assert_eq!(run.code, Some(0), "{client:?}: {run:?}");
    let rest = run.stdout.strip_prefix("Peer ID: ").and_then(|rest| rest.strip_suffix('\n'));
    let Some((id, number)) = rest.and_then(|rest| rest.split_once("\nPeer Metadata Extension ID: ")) else {
        panic!("{client:?}: {run:?}");
    };
    assert!(
        id.len() == 40 && id.starts_with(&hex(client.peer_id_prefix().as_bytes())),
        "{client:?}: {run:?}"
    );
    assert!(number.parse::<u8>().is_ok_and(|number| number > 0), "{client:?}: {run:?}");
}
