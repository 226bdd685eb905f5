//! Downloads from real clients that take only encrypted connections.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use common::clients::{Client, Crypto, Seeder, start_libtorrent};
use common::payload::{Layout, Payload};
use common::program::{Run, ringtide};
use common::record::real_client_test;
use common::tracker::Tracker;
use common::workspace;

/// How long a download may take: transmission lets nobody in before its next ten-second round.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn from_libtorrent() {
    let _test = real_client_test!();
    download_from(Client::Libtorrent, Crypto::Rc4);
    download_from(Client::Libtorrent, Crypto::Handshake);
}

#[test]
fn from_transmission() {
    let _test = real_client_test!();
    download_from(Client::Transmission, Crypto::Handshake);
}

#[test]
fn from_aria2() {
    let _test = real_client_test!();
    download_from(Client::Aria2, Crypto::Rc4);
    download_from(Client::Aria2, Crypto::Handshake);
}

#[test]
fn from_rtorrent() {
    let _test = real_client_test!();
    download_from(Client::Rtorrent, Crypto::Rc4);
    download_from(Client::Rtorrent, Crypto::Handshake);
}

/// One that makes only encrypted connections and that nobody can dial, as nobody knows where it is.
#[test]
fn from_libtorrent_that_dials() {
    let _test = real_client_test!();
    for (crypto, encryption) in [("both", "prefer"), ("rc4", "prefer"), ("rc4", "require")] {
        let (payload, dir) = (payload(), workspace::temp_dir("calling"));
        let torrent = payload.torrent(dir.path(), None);
        let port = workspace::free_port(Ipv4Addr::UNSPECIFIED.into()).to_string();
        let ip = Ipv4Addr::new(127, 0, 0, 6);
        let addr = SocketAddr::from((ip, workspace::free_port(ip.into())));
        let options = ["--connect", &format!("127.0.0.1:{port}"), &format!("--encrypted={crypto}")];
        let _seeder = start_libtorrent(&torrent, &payload, addr, &options);
        let args = ["--encryption", encryption, "--timeout", "40", "--port", &port];
        let run = download(&args, &torrent, &payload);
        assert_eq!(count(&run, "blocks_direct") == 0, crypto == "rc4", "{crypto}: {}", run.stdout);
    }
}

/// Who takes any connection is dialed plain, and encrypted where it is required.
#[test]
fn from_clients_that_take_both() {
    let _test = real_client_test!();
    let (payload, dir) = (payload(), workspace::temp_dir("both"));
    for client in Client::ALL {
        let tracker = Tracker::start(&[&payload]);
        let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
        let _seeder = Seeder::start(client, &torrent, &payload);
        tracker.wait_for_peers(&payload, 1);
        let plain = download(&["--encryption", "prefer"], &torrent, &payload);
        assert!(count(&plain, "blocks_direct") > 0, "{client:?} was not dialed plain: {}", plain.stdout);
        let encrypted = download(&["--encryption", "require"], &torrent, &payload);
        assert_eq!(count(&encrypted, "blocks_direct"), 0, "{client:?} was dialed plain");
    }
}

fn payload() -> Payload {
    Payload::create("encrypted.bin", Layout::Single(24 * 1024 * 1024 + 4321), 128 * 1024, 6)
}

/// Downloads from a client that takes only encrypted connections, in each way.
fn download_from(client: Client, crypto: Crypto) {
    let (payload, dir) = (payload(), workspace::temp_dir("encrypted"));
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let _seeder = Seeder::start_encrypted(client, crypto, &torrent, &payload, &tracker);
    for backend in ["epoll", "uring"] {
        download(&["--backend", backend], &torrent, &payload);
        let required = ["--backend", backend, "--encryption", "require"];
        let run = download(&required, &torrent, &payload);
        assert_eq!(count(&run, "blocks_direct"), 0, "{client:?}: not all was encrypted: {}", run.stdout);
    }

    let output = dir.path().join("refused");
    let args = [
        Path::new("download"),
        Path::new("--encryption"),
        Path::new("off"),
        Path::new("--timeout"),
        Path::new("4"),
        Path::new("-q"),
        Path::new("-o"),
        &output,
        &torrent,
    ];
    let run = ringtide(args, LIMIT);
    assert_eq!((run.code, &*run.stdout), (Some(4), ""), "{client:?}: {run:?}");
    assert!(run.stderr.contains("no peers left to ask"), "{client:?}: {run:?}");
    assert!(run.stderr.contains("without an answer"), "{client:?}: {run:?}");
    assert!(run.elapsed < Duration::from_secs(15), "{client:?}: {run:?}");
}

/// Downloads into a new place, and compares.
fn download(options: &[&str], torrent: &Path, payload: &Payload) -> Run {
    let place = workspace::temp_dir("output");
    let output = place.path().join("output");
    let mut args = vec!["download".to_owned(), "--json".to_owned(), "-q".to_owned()];
    args.extend(options.iter().map(|&option| option.to_owned()));
    args.extend(["-o".to_owned(), output.display().to_string(), torrent.display().to_string()]);
    let run = ringtide(&args, LIMIT);
    assert_eq!(run.code, Some(0), "{options:?}: {}", run.stderr);
    payload.assert_same(&output);
    eprintln!("{options:?}: {} bytes in {:.2?}: {}", payload.total_len, run.elapsed, run.stdout.trim_end());
    run
}

/// A number of the summary.
fn count(run: &Run, key: &str) -> u64 {
    let summary: serde_json::Value = serde_json::from_str(&run.stdout).expect("the summary is JSON");
    summary[key].as_u64().expect("it is a number")
}
