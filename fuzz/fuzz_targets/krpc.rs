//! Datagrams of the DHT: any bytes, and bytes as the compact lists of a proper reply.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ringtide::discovery::dht::id::{NodeId, Scope, usable};
use ringtide::discovery::dht::krpc::{
    Answer, Body, Node, REPLY_NODES_MAX, REPLY_PEERS_MAX, Reply, TOKEN_LEN_MAX,
};
use ringtide::meta::bencode::Writer;

fuzz_target!(|bytes: &[u8]| {
    for sender in ["8.8.8.8", "10.0.0.1", "127.0.0.1", "2001:db8::1"] {
        let sender: IpAddr = sender.parse().expect("an address");
        match Answer::parse(bytes, sender) {
            Ok(Answer { body: Body::Reply(reply), .. }) => check(&reply, sender),
            Ok(Answer { body: Body::Error { .. }, .. }) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        check_compact(bytes, sender);
    }
});

fn check(reply: &Reply, sender: IpAddr) {
    assert!(reply.nodes.len() <= 2 * REPLY_NODES_MAX && reply.peers.len() <= REPLY_PEERS_MAX);
    assert!(reply.token.as_ref().is_none_or(|token| token.len() <= TOKEN_LEN_MAX));
    let addrs = reply.nodes.iter().map(|node| node.addr).chain(reply.peers.iter().copied());
    for addr in addrs {
        assert_eq!(usable(addr), Some(addr));
        assert!(Scope::of(addr.ip()) >= Scope::of(sender));
    }
}

/// What is found is what a naive reader finds.
fn check_compact(bytes: &[u8], sender: IpAddr) {
    let bytes = &bytes[..bytes.len().min(1800)];
    let mut datagram = Vec::new();
    Writer::new(&mut datagram).dict(|root| {
        root.key("r").dict(|reply| {
            reply.key("id").bytes([7; 20]);
            reply.key("nodes").bytes(bytes);
            reply.key("nodes6").bytes(bytes);
            reply.key("token").bytes(bytes);
            reply.key("values").list(|list| bytes.chunks_exact(18).for_each(|entry| list.bytes(entry)));
        });
        root.key("t").bytes("abcd");
        root.key("y").bytes("r");
    });
    let answer = Answer::parse(&datagram, sender).expect("a proper reply");
    let Body::Reply(reply) = answer.body else { panic!("a reply was written") };
    check(&reply, sender);
    let nodes: Vec<Node> = naive_nodes::<26>(bytes, sender).chain(naive_nodes::<38>(bytes, sender)).collect();
    let peers = bytes.chunks_exact(18).filter_map(|entry| naive_addr(entry, sender));
    assert_eq!(answer.transaction, *b"abcd");
    assert_eq!(reply.nodes, nodes);
    assert_eq!(reply.peers, peers.take(REPLY_PEERS_MAX).collect::<Vec<_>>());
    assert_eq!(reply.token.as_deref(), Some(bytes).filter(|token| token.len() <= TOKEN_LEN_MAX));
}

fn naive_nodes<const LEN: usize>(bytes: &[u8], sender: IpAddr) -> impl Iterator<Item = Node> {
    let node = move |entry: &[u8]| {
        let id = NodeId(entry[..20].try_into().expect("20 bytes"));
        Some(Node { id, addr: naive_addr(&entry[20..], sender)? })
    };
    bytes.chunks_exact(LEN).filter_map(node).take(REPLY_NODES_MAX)
}

fn naive_addr(entry: &[u8], sender: IpAddr) -> Option<SocketAddr> {
    let (ip, port) = entry.split_at(entry.len() - 2);
    let ip = match <[u8; 4]>::try_from(ip) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).expect("16 bytes")).to_canonical(),
    };
    let port = u16::from(port[0]) << 8 | u16::from(port[1]);
    let is_nobody = match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] & 0xf0 == 0xe0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.octets()[0] == 0xff,
    };
    (port != 0 && !is_nobody && Scope::of(ip) >= Scope::of(sender)).then_some(SocketAddr::new(ip, port))
}
