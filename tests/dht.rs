//! Peers from a DHT of real nodes: libtorrent sessions on loopback addresses of their own, one of which seeds.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::clients::DhtSwarm;
use common::payload::{Layout, Payload};
use common::record::real_client_test;
use common::workspace;
use ringtide::discovery::dht::lookup::CLOSEST;
use ringtide::discovery::dht::{Dht, DhtConfig, DhtEvent};

/// Nodes in the network.
const NODES: usize = 10;

/// How long a lookup may take: much less, but for a machine that is busy.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// A seeder is found from one node, and again from the nodes that were kept; then one lookup tells of us, and another
/// finds us beside the seeder.
#[test]
fn peers_are_found_and_told_among_libtorrent_nodes() {
    let _test = real_client_test!();
    let payload = Payload::create("dht.bin", Layout::Single(300_000), 32 * 1024, 9);
    let dir = workspace::temp_dir("dht");
    let torrent = payload.torrent(dir.path(), None);
    let swarm = DhtSwarm::start(NODES, &torrent, &payload);
    let seeder = *swarm.addrs.last().unwrap();
    let cache = dir.path().join("cache/ringtide/dht");
    let look = |bootstrap: Vec<String>, cache: Option<&PathBuf>, port| {
        let config =
            DhtConfig { info_hash: payload.info_hash, bootstrap, cache: cache.cloned(), port, seed: 1 };
        let (sender, events) = mpsc::channel();
        let dht = Dht::start(config, Box::new(move |event| drop(sender.send(event)))).unwrap();
        (dht, events)
    };

    let (dht, events) = look(vec![swarm.addrs[0].to_string()], Some(&cache), None);
    let (peers, nodes) = one_lookup(&events);
    assert_eq!(peers, BTreeSet::from([seeder]));
    assert!(nodes >= CLOSEST, "{nodes} nodes");
    drop(dht);
    assert_ended(&events);
    assert!(fs::metadata(&cache).unwrap().len() > 26 * (CLOSEST as u64 - 1));

    let (_dht, events) = look(Vec::new(), Some(&cache), Some(54_321));
    let (peers, nodes) = one_lookup(&events);
    assert_eq!(peers, BTreeSet::from([seeder]));
    assert!(nodes >= CLOSEST, "{nodes} nodes");

    let (dht, events) = look(vec!["nobody.invalid:1".to_owned()], None, None);
    dht.add_node(swarm.addrs[1]);
    let (peers, _) = one_lookup(&events);
    assert_eq!(peers, BTreeSet::from([seeder, "127.0.0.1:54321".parse().unwrap()]));
}

/// The peers of one lookup, and how many nodes have answered.
fn one_lookup(events: &Receiver<DhtEvent>) -> (BTreeSet<SocketAddr>, usize) {
    let start = Instant::now();
    let mut all = BTreeSet::new();
    loop {
        let left = LOOKUP_LIMIT.saturating_sub(start.elapsed());
        match events.recv_timeout(left).expect("a lookup ends") {
            DhtEvent::Peers(peers) => peers.into_iter().for_each(|peer| {
                assert!(all.insert(peer), "{peer} twice");
            }),
            DhtEvent::Finished { nodes } => {
                eprintln!("{} peers of {nodes} nodes in {:.2?}", all.len(), start.elapsed());
                return (all, nodes);
            }
        }
    }
}

/// A dropped node of the DHT says nothing more, and soon.
fn assert_ended(events: &Receiver<DhtEvent>) {
    assert_eq!(events.recv_timeout(LOOKUP_LIMIT), Err(mpsc::RecvTimeoutError::Disconnected));
}
