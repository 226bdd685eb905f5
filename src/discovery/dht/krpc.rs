//! The messages of the DHT (BEP 5): our queries as bytes, and the answers to them. Pure.
//!
//! A datagram is hostile. What makes it an answer at all is needed (a transaction id of ours, a kind, the node's id);
//! any other part that is missing, too long or of the wrong type is left out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::id::{ID_LEN, NodeId, Scope, usable};
use crate::meta::bencode::{DictWriter, Form, Limits, ParseError, Value, Writer, parse_prefix};

/// Bytes of the longest datagram that is read. Common nodes send at most 1,500.
pub const DATAGRAM_LEN_MAX: usize = 8 * 1024;

/// Bytes of the longest token that is kept; common ones have 4 to 20. Without its token a node gets no announce.
pub const TOKEN_LEN_MAX: usize = 128;

/// Nodes of one family taken from one answer. Common nodes name 8, a few 16.
pub const REPLY_NODES_MAX: usize = 16;

/// Peers taken from one answer: about as many as fit into 1,500 bytes.
pub const REPLY_PEERS_MAX: usize = 200;

/// Two letters for the program, two bytes for its version.
const VERSION: &[u8; 4] = b"Ri\x01\x00";

/// As many values as fit the longest datagram as peers, each of 8 bytes.
const LIMITS: Limits = Limits { depth_max: 8, tokens_max: DATAGRAM_LEN_MAX / 8, form: Form::Lenient };

/// Names a query among ours. Random, since who knows it can answer in the node's name.
pub type Transaction = [u8; 4];

/// A node of the DHT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name, which decides what it stores.
    pub id: NodeId,
    /// Where it answers.
    pub addr: SocketAddr,
}

/// Which nodes an answer is to name (BEP 32). Without a word, those of the family that the query came over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// Those on IPv4.
    pub v4: bool,
    /// Those on IPv6.
    pub v6: bool,
}

impl Want {
    fn write(self, arguments: &mut DictWriter<'_>) {
        if !self.v4 && !self.v6 {
            return;
        }
        arguments.key("want").list(|list| {
            if self.v4 {
                list.bytes("n4");
            }
            if self.v6 {
                list.bytes("n6");
            }
        });
    }
}

/// What we ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query<'a> {
    /// Whether the node is there.
    Ping,
    /// Which nodes are closest to an id.
    FindNode {
        /// The id.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// Which peers a torrent has, and which nodes are closest to its info hash.
    GetPeers {
        /// Names the torrent.
        info_hash: [u8; 20],
        /// Of which families the nodes are to be.
        want: Want,
    },
    /// That this address is a peer of a torrent.
    AnnouncePeer {
        /// Names the torrent.
        info_hash: [u8; 20],
        /// Where we listen for peers.
        port: u16,
        /// From the node's answer to `get_peers`.
        token: &'a [u8],
    },
}

impl Query<'_> {
    /// The datagram. It says that we answer no queries (BEP 43).
    pub fn encode(&self, transaction: Transaction, sender: NodeId) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(160);
        Writer::new(&mut datagram).dict(|query| {
            query.key("a").dict(|arguments| {
                arguments.key("id").bytes(sender.0);
                self.write_arguments(arguments);
            });
            query.key("q").bytes(self.method());
            query.key("ro").integer(1);
            query.key("t").bytes(transaction);
            query.key("v").bytes(VERSION);
            query.key("y").bytes("q");
        });
        datagram
    }

    const fn method(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::FindNode { .. } => "find_node",
            Self::GetPeers { .. } => "get_peers",
            Self::AnnouncePeer { .. } => "announce_peer",
        }
    }

    fn write_arguments(&self, arguments: &mut DictWriter<'_>) {
        match self {
            Self::Ping => {}
            Self::FindNode { target, want } => {
                arguments.key("target").bytes(target.0);
                want.write(arguments);
            }
            Self::GetPeers { info_hash, want } => {
                arguments.key("info_hash").bytes(info_hash);
                want.write(arguments);
            }
            Self::AnnouncePeer { info_hash, port, token } => {
                arguments.key("implied_port").integer(0);
                arguments.key("info_hash").bytes(info_hash);
                arguments.key("port").integer(*port);
                arguments.key("token").bytes(token);
            }
        }
    }
}

/// An answer to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Which query it is to.
    pub transaction: Transaction,
    /// What it says.
    pub body: Body,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// What was asked for.
    Reply(Reply),
    /// That the node does not do it.
    Error {
        /// Its reason, such as 203 for a token that is not its own.
        code: Option<i64>,
    },
}

/// What a node tells. All addresses are [`usable`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Who it is.
    pub id: NodeId,
    /// Nodes it knows: at most [`REPLY_NODES_MAX`] of `nodes`, and then of `nodes6`.
    pub nodes: Vec<Node>,
    /// Peers of the torrent, at most [`REPLY_PEERS_MAX`].
    pub peers: Vec<SocketAddr>,
    /// To be given back with an announce; at most [`TOKEN_LEN_MAX`] bytes.
    pub token: Option<Vec<u8>>,
    /// Where it sees us (BEP 42).
    pub your_ip: Option<IpAddr>,
}

/// Why a datagram is of no use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// It is not bencoded.
    Bencode(ParseError),
    /// It is longer than [`DATAGRAM_LEN_MAX`].
    TooLong,
    /// It is no answer: a query, or nothing of the DHT.
    NoAnswer,
    /// Its transaction id is none of ours.
    Transaction,
    /// It is a reply, but says not who it is from.
    NoId,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "not bencoded: {error}"),
            Self::TooLong => write!(f, "longer than {DATAGRAM_LEN_MAX} bytes"),
            Self::NoAnswer => f.write_str("not an answer"),
            Self::Transaction => f.write_str("not an answer to a query of ours"),
            Self::NoId => f.write_str("a reply without the id of its sender"),
        }
    }
}

impl std::error::Error for Unusable {}

impl Answer {
    /// Reads a datagram that came from `sender`.
    ///
    /// Nodes and peers with an address of narrower scope than the sender's are left out: nobody on the internet can
    /// tell us whom to talk to in this network.
    pub fn parse(datagram: &[u8], sender: IpAddr) -> Result<Self, Unusable> {
        if datagram.len() > DATAGRAM_LEN_MAX {
            return Err(Unusable::TooLong);
        }
        let (document, _) = parse_prefix(datagram, LIMITS).map_err(Unusable::Bencode)?;
        let root = document.root();
        let text = |key: &str| root.get(key).and_then(Value::as_bytes);
        let kind = text("y").ok_or(Unusable::NoAnswer)?;
        if kind != b"r" && kind != b"e" {
            return Err(Unusable::NoAnswer);
        }
        let transaction = text("t").and_then(|id| id.try_into().ok()).ok_or(Unusable::Transaction)?;
        let body = if kind == b"e" {
            let code = root.get("e").and_then(|error| error.as_list()?.next()?.as_i64());
            Body::Error { code }
        } else {
            let reply = root.get("r").ok_or(Unusable::NoId)?;
            Body::Reply(Reply::read(reply, text("ip"), Scope::of(sender))?)
        };
        Ok(Self { transaction, body })
    }
}

impl Reply {
    fn read(reply: Value<'_>, ip: Option<&[u8]>, scope: Scope) -> Result<Self, Unusable> {
        let text = |key: &str| reply.get(key).and_then(Value::as_bytes);
        let id = text("id").and_then(|id| id.try_into().ok()).map(NodeId).ok_or(Unusable::NoId)?;
        let is_believable = |addr: &SocketAddr| Scope::of(addr.ip()) >= scope;
        let nodes =
            |list: Vec<Node>| list.into_iter().filter(|node| is_believable(&node.addr)).take(REPLY_NODES_MAX);
        let v4 = text("nodes").map(read_nodes::<6>).unwrap_or_default();
        let v6 = text("nodes6").map(read_nodes::<18>).unwrap_or_default();
        let peers = reply.get("values").and_then(Value::as_list).into_iter().flatten();
        let peers = peers.filter_map(Value::as_bytes).flat_map(read_peers);
        let token = text("token").filter(|token| token.len() <= TOKEN_LEN_MAX);
        Ok(Self {
            id,
            nodes: nodes(v4).chain(nodes(v6)).collect(),
            peers: peers.filter(is_believable).take(REPLY_PEERS_MAX).collect(),
            token: token.map(<[u8]>::to_vec),
            your_ip: ip.and_then(read_ip),
        })
    }
}

/// Compact node infos: an id and an address of `ADDR_LEN` bytes each. A rest is ignored, as are unusable addresses.
pub(super) fn read_nodes<const ADDR_LEN: usize>(compact: &[u8]) -> Vec<Node> {
    let node = |entry: &[u8]| {
        let (id, addr) = entry.split_first_chunk::<ID_LEN>()?;
        Some(Node { id: NodeId(*id), addr: read_addr(addr)? })
    };
    compact.chunks_exact(ID_LEN + ADDR_LEN).filter_map(node).collect()
}

/// One entry of `values`: an address; of IPv4 perhaps several, as some old nodes have all their peers in one entry.
fn read_peers(entry: &[u8]) -> impl Iterator<Item = SocketAddr> {
    let len = if entry.len() == 18 { 18 } else { 6 };
    entry.chunks_exact(len).filter_map(read_addr)
}

/// A compact address, if anybody can be there.
fn read_addr(compact: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = compact.split_last_chunk::<2>()?;
    usable(SocketAddr::new(raw_ip(ip)?, u16::from_be_bytes(*port)))
}

/// The value of `ip`: an address with our port, which some leave out.
fn read_ip(compact: &[u8]) -> Option<IpAddr> {
    let ip = match compact.len() {
        6 | 18 => &compact[..compact.len() - 2],
        _ => compact,
    };
    raw_ip(ip)
}

fn raw_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// Adds a compact node info: 26 bytes for an IPv4 address, 38 for an IPv6 one.
pub(super) fn push_node(compact: &mut Vec<u8>, node: &Node) {
    compact.extend(node.id.0);
    match node.addr.ip() {
        IpAddr::V4(ip) => compact.extend(ip.octets()),
        IpAddr::V6(ip) => compact.extend(ip.octets()),
    }
    compact.extend(node.addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meta::bencode::parse;

    const ID: NodeId = NodeId(*b"abcdefghij0123456789");
    const HASH: [u8; 20] = *b"mnopqrstuvwxyz123456";
    const GLOBAL: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

    fn read(datagram: &[u8]) -> Result<Answer, Unusable> {
        Answer::parse(datagram, GLOBAL)
    }

    fn reply(datagram: &[u8]) -> Reply {
        match read(datagram).unwrap().body {
            Body::Reply(reply) => reply,
            Body::Error { code } => panic!("error {code:?}"),
        }
    }

    #[test]
    fn queries_are_canonical() {
        let tail = "2:roi1e1:t4:abcd1:v4:Ri\x01\x001:y1:qe";
        let both = Want { v4: true, v6: true };
        for (query, head) in [
            (Query::Ping, "d1:ad2:id20:abcdefghij0123456789e1:q4:ping"),
            (
                Query::FindNode { target: NodeId(HASH), want: Want { v4: true, v6: false } },
                "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n4ee1:q9:find_node",
            ),
            (
                Query::GetPeers { info_hash: HASH, want: both },
                "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:get_peers",
            ),
            (
                Query::GetPeers { info_hash: HASH, want: Want::default() },
                "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers",
            ),
            (
                Query::AnnouncePeer { info_hash: HASH, port: 6881, token: b"aoeu" },
                "d1:ad2:id20:abcdefghij012345678912:implied_porti0e9:info_hash20:mnopqrstuvwxyz123456\
                 4:porti6881e5:token4:aoeue1:q13:announce_peer",
            ),
        ] {
            let datagram = query.encode(*b"abcd", ID);
            assert_eq!(
                datagram.escape_ascii().to_string(),
                format!("{head}{tail}").as_bytes().escape_ascii().to_string()
            );
            assert_eq!(read(&datagram), Err(Unusable::NoAnswer));
        }
    }

    #[test]
    fn a_whole_reply_is_read() {
        let mut datagram = Vec::new();
        let node_v4 = Node { id: NodeId(HASH), addr: "9.8.7.6:6881".parse().unwrap() };
        let node_v6 = Node { id: ID, addr: "[2001:db8::1]:1".parse().unwrap() };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        push_node(&mut v4, &node_v4);
        push_node(&mut v6, &node_v6);
        v4.extend(b"cut");
        Writer::new(&mut datagram).dict(|root| {
            root.key("ip").bytes(b"\x05\x06\x07\x08\x1a\xe1");
            root.key("r").dict(|reply| {
                reply.key("id").bytes(ID.0);
                reply.key("nodes").bytes(&v4);
                reply.key("nodes6").bytes(&v6);
                reply.key("token").bytes("aoeu");
                reply.key("values").list(|list| {
                    list.bytes(b"\x01\x02\x03\x04\x00\x05");
                    list.integer(7);
                    list.bytes(b"\x01\x02\x03\x04\x00\x00");
                    list.bytes(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x00\x06");
                    list.bytes(b"\x01\x02\x03\x05\x00\x05\x01\x02\x03\x06\x00\x05");
                });
            });
            root.key("t").bytes("abcd");
            root.key("y").bytes("r");
        });
        datagram.extend(b"trailing");
        let peers = ["1.2.3.4:5", "[2001:db8::2]:6", "1.2.3.5:5", "1.2.3.6:5"];
        let expected = Reply {
            id: ID,
            nodes: vec![node_v4, node_v6],
            peers: peers.map(|peer| peer.parse().unwrap()).to_vec(),
            token: Some(b"aoeu".to_vec()),
            your_ip: Some("5.6.7.8".parse().unwrap()),
        };
        assert_eq!(read(&datagram), Ok(Answer { transaction: *b"abcd", body: Body::Reply(expected) }));
    }

    #[test]
    fn parts_that_make_no_sense_are_left_out() {
        let expected = Reply { id: ID, nodes: vec![], peers: vec![], token: None, your_ip: None };
        for rest in [
            "",
            "5:nodesi1e5:token0:",
            "5:nodesle6:nodes6de5:tokenle6:valuesde",
            "5:nodes3:abc6:nodes63:abc6:valuesl1:ai3ele0:e",
        ] {
            let datagram = format!("d2:ip3:abc1:rd2:id20:abcdefghij0123456789{rest}e1:t4:abcd1:y1:re");
            let mut reply = reply(datagram.as_bytes());
            reply.token = reply.token.filter(|token| !token.is_empty());
            assert_eq!(reply, expected, "{rest}");
        }
        let token = "x".repeat(TOKEN_LEN_MAX + 1);
        let datagram =
            format!("d1:rd2:id20:abcdefghij01234567895:token{}:{token}e1:t4:abcd1:y1:re", token.len());
        assert_eq!(reply(datagram.as_bytes()).token, None);
    }

    #[test]
    fn what_is_no_answer_of_use_is_told() {
        for (datagram, error) in [
            ("d1:rd2:id20:abcdefghij0123456789e1:t4:abcde", Unusable::NoAnswer),
            ("d1:rd2:id20:abcdefghij0123456789e1:t4:abcd1:y1:xe", Unusable::NoAnswer),
            ("le", Unusable::NoAnswer),
            ("d1:rd2:id20:abcdefghij0123456789e1:t2:ab1:y1:re", Unusable::Transaction),
            ("d1:rd2:id20:abcdefghij0123456789e1:y1:re", Unusable::Transaction),
            ("d1:rd2:id19:abcdefghij012345678e1:t4:abcd1:y1:re", Unusable::NoId),
            ("d1:t4:abcd1:y1:re", Unusable::NoId),
        ] {
            assert_eq!(read(datagram.as_bytes()), Err(error), "{datagram}");
        }
        assert!(matches!(read(b""), Err(Unusable::Bencode(_))));
        assert_eq!(read(&vec![b'i'; DATAGRAM_LEN_MAX + 1]), Err(Unusable::TooLong));
    }

    #[test]
    fn errors_are_answers() {
        for (datagram, code) in [
            ("d1:eli203e9:Bad tokene1:t4:abcd1:y1:ee", Some(203)),
            ("d1:e3:abc1:t4:abcd1:y1:ee", None),
            ("d1:t4:abcd1:y1:ee", None),
        ] {
            let expected = Answer { transaction: *b"abcd", body: Body::Error { code } };
            assert_eq!(read(datagram.as_bytes()), Ok(expected));
        }
    }

    #[test]
    fn nobody_names_addresses_narrower_than_their_own() {
        let mut nodes = Vec::new();
        for addr in ["127.0.0.2:1", "192.168.0.2:1", "9.9.9.9:1"] {
            push_node(&mut nodes, &Node { id: ID, addr: addr.parse().unwrap() });
        }
        let mut datagram = Vec::new();
        Writer::new(&mut datagram).dict(|root| {
            root.key("r").dict(|reply| {
                reply.key("id").bytes(ID.0);
                reply.key("nodes").bytes(&nodes);
                reply.key("values").list(|list| {
                    nodes.chunks_exact(26).for_each(|node| list.bytes(&node[20..]));
                });
            });
            root.key("t").bytes("abcd");
            root.key("y").bytes("r");
        });
        for (sender, count) in [("127.0.0.1", 3), ("10.0.0.1", 2), ("8.8.8.8", 1)] {
            let Body::Reply(reply) = Answer::parse(&datagram, sender.parse().unwrap()).unwrap().body else {
                panic!("a reply was sent")
            };
            assert_eq!((reply.nodes.len(), reply.peers.len()), (count, count), "{sender}");
        }
    }

    #[test]
    fn one_answer_names_so_many_and_no_more() {
        let mut datagram = Vec::new();
        Writer::new(&mut datagram).dict(|root| {
            root.key("r").dict(|reply| {
                reply.key("id").bytes(ID.0);
                reply.key("nodes").bytes(vec![1; 26 * 50]);
                reply.key("nodes6").bytes(vec![0x20; 38 * 50]);
                reply.key("values").list(|list| (0..300).for_each(|_| list.bytes([1; 6])));
            });
            root.key("t").bytes("abcd");
            root.key("y").bytes("r");
        });
        let reply = reply(&datagram);
        assert_eq!((reply.nodes.len(), reply.peers.len()), (2 * REPLY_NODES_MAX, REPLY_PEERS_MAX));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&datagram);
        }

        #[test]
        fn a_query_is_bencode_with_what_was_asked(port: u16, token: Vec<u8>, transaction: Transaction) {
            let datagram = Query::AnnouncePeer { info_hash: HASH, port, token: &token }.encode(transaction, ID);
            let document = parse(&datagram, Limits::METAINFO).unwrap();
            let arguments = document.root().get("a").unwrap();
            prop_assert_eq!(arguments.get("port").unwrap().as_u64(), Some(u64::from(port)));
            prop_assert_eq!(arguments.get("token").unwrap().as_bytes(), Some(&*token));
            prop_assert_eq!(document.root().get("t").unwrap().as_bytes(), Some(&transaction[..]));
        }
    }
}
