//! Who tells of peers over UDP: a tracker (BEP 15), a node of the DHT (BEP 5), and a neighbour (BEP 14).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A group of BEP 14.
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 192, 152, 143), 6771);

/// How often the neighbour announces himself.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(100);

/// The node id of the DHT node.
const NODE_ID: &[u8; 20] = b"a node for all tests";

/// A datagram and when it came.
pub type Arrival = (Instant, Vec<u8>);

/// A server on a free port, until the test program ends.
pub struct Server {
    /// Where it is.
    pub addr: SocketAddr,
    datagrams: Arc<Mutex<Vec<Arrival>>>,
}

impl Server {
    /// `answer` gets every datagram.
    fn start(ip: IpAddr, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("a loopback address can be bound");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let datagrams = Arc::<Mutex<Vec<_>>>::default();
        let log = Arc::clone(&datagrams);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // Somebody may have left before he was answered, which is told here.
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                log.lock().expect("no thread panics with it").push((Instant::now(), buffer[..len].to_vec()));
                if let Some(answer) = answer(&buffer[..len]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { addr, datagrams }
    }

    /// What came so far, and when.
    pub fn datagrams(&self) -> Vec<Arrival> {
        self.datagrams.lock().expect("no thread panics with it").clone()
    }

    /// A tracker that names these peers, and where `is_mute_at_end` answers no `completed` and no `stopped`. Before it
    /// names them it says so.
    pub fn tracker(
        ip: IpAddr,
        peers: &[SocketAddr],
        is_mute_at_end: bool,
        answers: impl Fn() + Send + 'static,
    ) -> Self {
        let peers = peers.iter().flat_map(compact).collect::<Vec<u8>>();
        Self::start(ip, move |request| {
            let transaction = request.get(12..16)?;
            let is_end = request.get(83).is_some_and(|&event| event == 1 || event == 3);
            match request[11] {
                0 => Some([&[0; 4], transaction, &[7; 8]].concat()),
                1 if is_end && is_mute_at_end => None,
                1 => {
                    answers();
                    Some([&[0, 0, 0, 1], transaction, &[0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1], &peers].concat())
                }
                _ => None,
            }
        })
    }

    /// One that hears and never says anything.
    pub fn silent() -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into(), |_| None)
    }

    /// A node of the DHT that knows these peers of every torrent, and no other node.
    pub fn dht_node(peers: &[SocketAddr]) -> Self {
        let values: Vec<u8> = peers.iter().flat_map(|peer| [b"6:", &compact(peer)[..]].concat()).collect();
        Self::start(Ipv4Addr::LOCALHOST.into(), move |query| {
            let at = query.windows(3).rposition(|window| window == b"1:t")? + 3;
            let len = usize::from(query.get(at)?.checked_sub(b'0')?);
            let transaction = query.get(at..at + 2 + len)?;
            let mut answer = [b"d1:rd2:id20:", &NODE_ID[..]].concat();
            if query.windows(12).any(|window| window == b"1:q9:get_pee") {
                answer.extend(b"5:nodes0:5:token1:x6:valuesl");
                answer.extend(&values);
                answer.push(b'e');
            }
            answer.extend(b"e1:t");
            answer.extend(transaction);
            answer.extend(b"1:y1:re");
            Some(answer)
        })
    }

    /// The announce URL, of a tracker.
    pub fn url(&self) -> String {
        format!("udp://{}/announce", self.addr)
    }
}

/// A neighbour that announces these torrents at that port again and again, until the test program ends. Gives the address
/// from which he does.
pub fn neighbour(info_hashes: &[[u8; 20]], port: u16) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback address can be bound");
    // As the kernel picks the interface of a multicast datagram by the route to it, and there may be none.
    socket2::SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("it is an interface");
    let addr = socket.local_addr().expect("a bound socket has an address");
    let mut text = format!("BT-SEARCH * HTTP/1.1\r\nHost: {}:{}\r\nPort: {port}\r\n", GROUP.0, GROUP.1);
    for hash in info_hashes {
        text.push_str(&format!("Infohash: {}\r\n", crate::common::tracker::hex(hash)));
    }
    text.push_str("\r\n\r\n");
    thread::spawn(move || {
        loop {
            let _ = socket.send_to(text.as_bytes(), GROUP);
            thread::sleep(ANNOUNCE_EVERY);
        }
    });
    addr
}

fn compact(peer: &SocketAddr) -> Vec<u8> {
    let port = peer.port().to_be_bytes();
    match peer.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &port].concat(),
        IpAddr::V6(ip) => [&ip.octets()[..], &port].concat(),
    }
}
