//! Downloads from real clients in real swarms: opentracker as the tracker; transmission, aria2, rtorrent and
//! libtorrent as seeders, each alone and all together.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::clients::{Client, Friends, Seeder, start_libtorrent};
use common::payload::{FileEntry, Layout, Payload};
use common::process::wait_for;
use common::program::ringtide;
use common::record::real_client_test;
use common::tracker::{Tracker, hex};
use common::workspace;
use tempfile::TempDir;

/// How long a download of up to 1 GiB may take: about a hundred times of what it should.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(180);

/// How long a command that fetches a few bytes may take: transmission lets nobody in before its next ten-second round.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

const PIECE_LEN: u32 = 256 * 1024;

#[test]
fn one_gibibyte_from_transmission() {
    let _test = real_client_test!();
    download_alone(Client::Transmission, &one_gibibyte());
}

#[test]
fn one_gibibyte_from_aria2() {
    let _test = real_client_test!();
    download_alone(Client::Aria2, &one_gibibyte());
}

#[test]
fn one_gibibyte_from_rtorrent() {
    let _test = real_client_test!();
    download_alone(Client::Rtorrent, &one_gibibyte());
}

#[test]
fn one_gibibyte_from_libtorrent() {
    let _test = real_client_test!();
    download_alone(Client::Libtorrent, &one_gibibyte());
}

#[test]
fn many_files_from_transmission() {
    let _test = real_client_test!();
    download_alone(Client::Transmission, &many_files());
}

#[test]
fn many_files_from_aria2() {
    let _test = real_client_test!();
    download_alone(Client::Aria2, &many_files());
}

#[test]
fn many_files_from_rtorrent() {
    let _test = real_client_test!();
    download_alone(Client::Rtorrent, &many_files());
}

#[test]
fn many_files_from_libtorrent() {
    let _test = real_client_test!();
    download_alone(Client::Libtorrent, &many_files());
}

/// One that shows the next piece only when it has heard that the last has arrived (BEP 16).
#[test]
fn from_a_super_seeder() {
    let _test = real_client_test!();
    let layout = Layout::Single(62 * u64::from(PIECE_LEN));
    let (payload, dir) = (Payload::create("super.bin", layout, PIECE_LEN, 16), workspace::temp_dir("super"));
    let torrent = payload.torrent(dir.path(), None);
    let ip = Ipv4Addr::new(127, 0, 0, 5);
    let addr = SocketAddr::from((ip, workspace::free_port(ip.into())));
    let _seeder = start_libtorrent(&torrent, &payload, addr, &["--super"]);
    download(&torrent, &[addr], &payload);
}

/// The only seeder goes in the middle and is back at the same address after 20 s, when the tries to reach it have become
/// rare. `RINGTIDE_OUTAGE` is another number of seconds.
#[test]
fn the_only_seeder_goes_and_comes_back() {
    let _test = real_client_test!();
    let outage =
        env::var("RINGTIDE_OUTAGE").map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    let outage = Duration::from_secs(outage);
    let layout = Layout::Single(40 * u64::from(PIECE_LEN));
    let (payload, dir) =
        (Payload::create("outage.bin", layout, PIECE_LEN, 17), workspace::temp_dir("outage"));
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let ip = Ipv4Addr::new(127, 0, 0, 5);
    let addr = SocketAddr::from((ip, workspace::free_port(ip.into())));
    let start = || start_libtorrent(&torrent, &payload, addr, &["--rate=1000000"]);
    let seeder = start();
    tracker.wait_for_peers(&payload, 1);
    let output = dir.path().join("output");
    let coming_and_going = || {
        wait_for(COMMAND_LIMIT, || output.exists().then_some(())).expect("the download begins");
        thread::sleep(Duration::from_secs(2));
        drop(seeder);
        thread::sleep(outage);
        (start(), Instant::now())
    };
    let run = thread::scope(|scope| {
        let back = scope.spawn(coming_and_going);
        let run =
            ringtide([Path::new("download"), Path::new("-o"), &output, &torrent], outage + DOWNLOAD_LIMIT);
        let (_seeder, since) = back.join().expect("it comes back");
        eprintln!("done {:.1?} after the seeder was back", since.elapsed());
        run
    });
    run.assert_prints(&format!("Downloaded {} to {}.\n", torrent.display(), output.display()));
    assert!(run.elapsed > outage, "done after {:?}, before the seeder had gone", run.elapsed);
    payload.assert_same(&output);
}

/// Each seeder has a quarter of the pieces, in runs of seven, and finds nobody to fetch more from: the download is complete only
/// if it took from all four.
#[test]
fn four_clients_with_a_quarter_each() {
    let _test = real_client_test!();
    download_from_quarters(&Payload::create(
        "quarters.bin",
        Layout::Single(64 * 1024 * 1024 + 4321),
        64 * 1024,
        4,
    ));
}

#[test]
fn four_clients_with_a_quarter_of_many_files_each() {
    let _test = real_client_test!();
    download_from_quarters(&many_files());
}

/// Each of four libtorrents has a quarter of the pieces and is connected to the others. We are told of one of them: the
/// download is complete only if we heard of the others from it (BEP 11).
#[test]
fn three_of_four_peers_are_heard_of_from_the_first() {
    let _test = real_client_test!();
    let payload = Payload::create("exchange.bin", Layout::Single(16 * 1024 * 1024 + 4321), 64 * 1024, 6);
    let dir = workspace::temp_dir("download");
    let torrent = payload.torrent(dir.path(), Some(&dead_tracker()));
    let friends = Friends::start(&torrent, &payload);
    download(&torrent, &friends.addrs[..1], &payload);
    friends.assert_unchanged(&payload);
}

/// Four complete seeders at once: nothing is fetched twice into the wrong place, nothing is left out.
#[test]
fn four_clients_with_everything() {
    let _test = real_client_test!();
    let payload = Payload::create("everything.bin", Layout::Single(128 * 1024 * 1024 + 1), PIECE_LEN, 5);
    let dir = workspace::temp_dir("download");
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let _seeders = Client::ALL.map(|client| Seeder::start(client, &torrent, &payload));
    tracker.wait_for_peers(&payload, 4);
    download(&torrent, &[], &payload);
}

#[test]
fn a_peer_by_hand_without_a_tracker() {
    let _test = real_client_test!();
    let payload = small("by-hand.bin");
    let dir = workspace::temp_dir("download");
    let torrent = payload.torrent(dir.path(), None);
    // Not all of the seeders take a torrent without a tracker.
    let seeders_dir = workspace::temp_dir("seeders");
    let seeders_torrent = payload.torrent(seeders_dir.path(), Some(&dead_tracker()));
    for client in Client::ALL {
        let seeder = Seeder::start(client, &seeders_torrent, &payload);
        download(&torrent, &[seeder.addr], &payload);
    }
}

#[test]
fn a_peer_by_hand_beside_a_dead_tracker() {
    let _test = real_client_test!();
    let payload = small("dead-tracker.bin");
    let dir = workspace::temp_dir("download");
    let torrent = payload.torrent(dir.path(), Some(&dead_tracker()));
    let seeder = Seeder::start(Client::Libtorrent, &torrent, &payload);
    download(&torrent, &[seeder.addr], &payload);
}

#[test]
fn a_peer_by_hand_over_ipv6() {
    let _test = real_client_test!();
    let payload = small("ipv6.bin");
    let dir = workspace::temp_dir("download");
    let torrent = payload.torrent(dir.path(), None);
    for client in [Client::Libtorrent, Client::Transmission] {
        let seeder = Seeder::start_v6(client, &torrent, &payload);
        download(&torrent, &[seeder.addr], &payload);
    }
}

#[test]
fn peers_prints_whom_opentracker_knows() {
    let _test = real_client_test!();
    let payload = small("peers.bin");
    let dir = workspace::temp_dir("peers");
    let tracker = Tracker::start(&[&payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let seeder = Seeder::start(Client::Libtorrent, &torrent, &payload);
    tracker.wait_for_peers(&payload, 1);
    let run = ringtide([Path::new("peers"), &torrent], COMMAND_LIMIT);
    assert_eq!(run.code, Some(0), "stderr:\n{}", run.stderr);
    let expected = seeder.addr.to_string();
    // The tracker may also list the one who asks.
    assert!(run.stdout.lines().any(|line| line == expected), "{expected} is missing in:\n{}", run.stdout);
    assert!(run.stdout.lines().all(|line| line.parse::<SocketAddr>().is_ok()), "stdout:\n{}", run.stdout);
}

#[test]
fn opentracker_is_asked_over_udp() {
    let _test = real_client_test!();
    let payload = small("udp.bin");
    let dir = workspace::temp_dir("udp");
    let tracker = Tracker::start(&[&payload]);
    // The seeder announces over HTTP, so that only our own datagrams are on trial.
    let seeder_dir = workspace::temp_dir("seeder");
    let seeder_torrent = payload.torrent(seeder_dir.path(), Some(&tracker.url()));
    let seeder = Seeder::start(Client::Libtorrent, &seeder_torrent, &payload);
    tracker.wait_for_peers(&payload, 1);
    let torrent = payload.torrent(dir.path(), Some(&tracker.udp_url()));
    let run = ringtide([Path::new("peers"), &torrent], COMMAND_LIMIT);
    let expected = seeder.addr.to_string();
    assert!(run.stdout.lines().any(|line| line == expected), "{expected} is missing: {run:?}");
    for (url, torrent) in [(tracker.udp_url(), &torrent), (tracker.url(), &seeder_torrent)] {
        let run = ringtide([Path::new("peers"), Path::new("--scrape"), torrent], COMMAND_LIMIT);
        assert_eq!(run.code, Some(0), "{run:?}");
        let line = run.stdout.strip_suffix('\n').unwrap_or_default();
        assert!(line.starts_with(&format!("{url}: 1 seeders, ")), "{run:?}");
    }
    download(&torrent, &[], &payload);
}

#[test]
fn handshake_prints_the_peer_id_of_each_client() {
    let _test = real_client_test!();
    let payload = small("handshake.bin");
    let dir = workspace::temp_dir("handshake");
    let torrent = payload.torrent(dir.path(), Some(&dead_tracker()));
    for client in Client::ALL {
        let seeder = Seeder::start(client, &torrent, &payload);
        let peer = seeder.addr.to_string();
        let run = ringtide([Path::new("handshake"), &torrent, Path::new(&peer)], COMMAND_LIMIT);
        let prefix = format!("Peer ID: {}", hex(client.peer_id_prefix().as_bytes()));
        let line = run.stdout.strip_suffix('\n').unwrap_or_default();
        let id = line.strip_prefix("Peer ID: ").unwrap_or_default();
        assert!(line.starts_with(&prefix) && id.len() == 40, "{client:?}: {run:?}");
        assert!(id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{client:?}: {run:?}");
        assert_eq!(run.code, Some(0), "{client:?}: {run:?}");
    }
}

#[test]
fn download_piece_writes_the_first_and_the_last_piece_of_each_client() {
    let _test = real_client_test!();
    let payload = small("pieces.bin");
    let dir = workspace::temp_dir("pieces");
    for client in Client::ALL {
        let tracker = Tracker::start(&[&payload]);
        let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
        let _seeder = Seeder::start(client, &torrent, &payload);
        tracker.wait_for_peers(&payload, 1);
        for index in [0, payload.piece_count() - 1] {
            let output = dir.path().join(format!("{client:?}-{index}"));
            let number = index.to_string();
            let args = [Path::new("download_piece"), Path::new("-o"), &output, &torrent, Path::new(&number)];
            let run = ringtide(args, COMMAND_LIMIT);
            run.assert_prints(&format!("Piece {index} downloaded to {}.\n", output.display()));
            assert!(fs::read(&output).unwrap() == payload.piece(index), "{client:?}: piece {index} differs");
        }
    }
}

fn one_gibibyte() -> Payload {
    Payload::create("gibibyte.bin", Layout::Single(1 << 30), PIECE_LEN, 1)
}

fn small(name: &str) -> Payload {
    Payload::create(name, Layout::Single(3 * 1024 * 1024 + 12_345), 128 * 1024, 2)
}

/// 330 files, some 48 MiB: nested folders, unicode names, empty files (also the first and the last), hundreds of
/// files inside one piece and single files over many pieces.
fn many_files() -> Payload {
    let file =
        |path: &[&str], len| FileEntry { path: path.iter().map(|&part| part.to_owned()).collect(), len };
    let mut files = vec![file(&["empty at the start"], 0)];
    for index in 0..200_u64 {
        files.push(file(
            &["small", &format!("group {}", index % 7), &format!("{index:03}.txt")],
            index * 37 % 1999,
        ));
    }
    for (index, name) in
        ["żółć.dat", "日本語.bin", "Ελλάδα", "смесь ☂ знаков", "naïve café"].iter().enumerate()
    {
        files.push(file(&["ünï", "cödé", name], 700_000 + 65_536 * index as u64));
        files.push(file(&["ünï", "empty", name], 0));
    }
    files.push(file(&["large.bin"], 9 * 1024 * 1024 + 17));
    files.push(file(&["exactly one piece.bin"], PIECE_LEN.into()));
    for index in 0..116_u64 {
        let name = format!("{index}.part");
        files.push(file(&["a", "deep", "tree", "of", "folders", &name], 260_000 + index * index % 31_337));
    }
    files.push(file(&["one byte"], 1));
    files.push(file(&["z", "empty at the end"], 0));
    assert!(files.len() >= 300, "{} files", files.len());
    Payload::create("many files", Layout::Folder(files), PIECE_LEN, 3)
}

/// The announce URL of a tracker that does not exist.
fn dead_tracker() -> String {
    let ip = Ipv4Addr::LOCALHOST;
    format!("http://{}/announce", SocketAddr::from((ip, workspace::free_port(ip.into()))))
}

fn download_alone(client: Client, payload: &Payload) {
    let dir = workspace::temp_dir("download");
    let tracker = Tracker::start(&[payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let _seeder = Seeder::start(client, &torrent, payload);
    tracker.wait_for_peers(payload, 1);
    download(&torrent, &[], payload);
}

fn download_from_quarters(payload: &Payload) {
    let dir = workspace::temp_dir("download");
    let tracker = Tracker::start(&[payload]);
    let torrent = payload.torrent(dir.path(), Some(&tracker.url()));
    let owner = |piece: u32| piece as usize / 7 % Client::ALL.len();
    let count = |quarter| (0..payload.piece_count()).filter(|piece| owner(*piece) == quarter).count() as u32;
    let quarters: Vec<_> =
        (0..Client::ALL.len()).map(|quarter| payload.partial_copy(|piece| owner(piece) == quarter)).collect();
    let start = |(quarter, client)| {
        let data: &TempDir = &quarters[quarter];
        Seeder::start_partial(client, &torrent, payload, data.path(), count(quarter))
    };
    let seeders: Vec<_> = Client::ALL.into_iter().enumerate().map(start).collect();
    tracker.wait_for_peers(payload, 4);
    for (quarter, seeder) in seeders.iter().enumerate() {
        assert_eq!(seeder.piece_count(payload), count(quarter), "{:?} found somebody else", seeder.client);
    }
    download(&torrent, &[], payload);
}

/// Downloads into a new place, with these peers by hand, and compares.
fn download(torrent: &Path, peers: &[SocketAddr], payload: &Payload) {
    let place = workspace::temp_dir("output");
    let output = place.path().join("output");
    let mut args = vec!["download".to_owned()];
    args.extend(peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.to_string()]));
    args.extend(["-o".to_owned(), output.display().to_string(), torrent.display().to_string()]);
    let run = ringtide(&args, DOWNLOAD_LIMIT);
    run.assert_prints(&format!("Downloaded {} to {}.\n", torrent.display(), output.display()));
    eprintln!("{} bytes in {:.2?}", payload.total_len, run.elapsed);
    payload.assert_same(&output);
}
