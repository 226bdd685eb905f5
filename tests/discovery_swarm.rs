//! Real seeders that are on IPv6 and nowhere else, and trackers that are, too. The trackers follow a script: Debian's
//! opentracker knows IPv4 only.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::clients::{Client, Seeder};
use common::payload::{Layout, Payload};
use common::program::ringtide;
use common::record::real_client_test;
use common::tracker::hex;
use common::workspace;
use support::rumour::Server;
use support::tracker::{Tracker, dead_url};

/// Far more than a download takes: transmission lets nobody in before its next ten-second round.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_udp_tracker_and_peers_on_ipv6_alone() {
    let _test = real_client_test!();
    from_each_client(&[Client::Libtorrent, Client::Aria2], "udp6.bin", |peers| {
        let tracker = Server::tracker(IpAddr::V6(Ipv6Addr::LOCALHOST), peers, false, || ());
        (tracker.url(), Box::new(move || !tracker.datagrams().is_empty()))
    });
}

#[test]
fn an_http_tracker_and_peers_on_ipv6_alone() {
    let _test = real_client_test!();
    from_each_client(&[Client::Libtorrent, Client::Aria2, Client::Transmission], "http6.bin", |peers| {
        let tracker = Tracker::of_v6(peers);
        (tracker.url(), Box::new(move || !tracker.requests().is_empty()))
    });
}

/// A tracker's URL, and whether it was asked.
type Asked = (String, Box<dyn Fn() -> bool>);

/// Downloads from each client alone, by the torrent and by a link.
fn from_each_client(clients: &[Client], name: &str, tracker: impl Fn(&[SocketAddr]) -> Asked) {
    let payload = Payload::create(name, Layout::Single(3 * 1024 * 1024 + 12_345), 128 * 1024, 2);
    for &client in clients {
        // Not all clients take a torrent without a tracker.
        let seeders_dir = workspace::temp_dir("seeder");
        let seeder =
            Seeder::start_v6(client, &payload.torrent(seeders_dir.path(), Some(&dead_url())), &payload);
        let dir = workspace::temp_dir("ipv6");
        for is_link in [false, true] {
            let (url, is_asked) = tracker(&[seeder.addr]);
            let subject = if is_link {
                format!("magnet:?xt=urn:btih:{}&tr={url}", hex(&payload.info_hash))
            } else {
                payload.torrent(dir.path(), Some(&url)).display().to_string()
            };
            let output = dir.path().join(format!("output-{is_link}"));
            let out = output.display().to_string();
            let run = ringtide(["download", "-o", &out, &subject], LIMIT);
            run.assert_prints(&format!("Downloaded {subject} to {out}.\n"));
            payload.assert_same(&output);
            assert!(is_asked(), "{url} was not asked");
            eprintln!("{client:?}: {:.2?}", run.elapsed);
        }
    }
}
