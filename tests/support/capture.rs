//! All that passes the loopback interface: in a network namespace of the test's own that is every packet there is.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::raw::c_int;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of a packet that are looked at: its addresses.
const HEAD_LEN: usize = 128;

/// Bytes of packets that may wait to be read.
const BUFFER_LEN: usize = 32 << 20;

/// By then what was sent over loopback has been captured.
const SETTLED: Duration = Duration::from_millis(300);

/// One packet. What has no ports has port 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// When it was captured.
    pub at: Instant,
    /// The number of its protocol.
    pub protocol: u8,
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
}

impl Packet {
    /// Whether it goes to or comes from there.
    pub fn concerns(&self, addr: SocketAddr) -> bool {
        self.from == addr || self.to == addr
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let v4 =
            |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?)));
        let v6 = |at: usize| {
            Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?)))
        };
        let (protocol, from, to, ports) = match bytes.first()? >> 4 {
            4 => (*bytes.get(9)?, v4(12)?, v4(16)?, usize::from(bytes[0] & 15) * 4),
            _ => (*bytes.get(6)?, v6(8)?, v6(24)?, 40),
        };
        let port = |at: usize| match (i32::from(protocol), bytes.get(at..at + 2)) {
            (libc::IPPROTO_TCP | libc::IPPROTO_UDP, Some(&[high, low])) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        let (from, to) = (SocketAddr::new(from, port(ports)), SocketAddr::new(to, port(ports + 2)));
        Some(Self { at: Instant::now(), protocol, from, to })
    }
}

/// A capture, until the test program ends.
pub struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
}

impl Capture {
    /// Captures from now on. It takes the right to, which everybody has in a network namespace of his own.
    pub fn start() -> Self {
        let all = c_int::from((libc::ETH_P_ALL as u16).to_be());
        let mut socket = Socket::new(Domain::from(libc::AF_PACKET), Type::DGRAM, Some(Protocol::from(all)))
            .expect("packets may be captured here");
        let _ = socket.set_recv_buffer_size(BUFFER_LEN);
        let packets = Arc::<Mutex<Vec<Packet>>>::default();
        let log = Arc::clone(&packets);
        thread::spawn(move || {
            let mut head = [0; HEAD_LEN];
            loop {
                let len = socket.read(&mut head).expect("packets can be read");
                log.lock().expect("no thread panics with it").extend(Packet::parse(&head[..len]));
            }
        });
        Self { packets }
    }

    /// What was sent until now. On loopback each packet passes twice.
    pub fn packets(&self) -> Vec<Packet> {
        thread::sleep(SETTLED);
        self.packets.lock().expect("no thread panics with it").clone()
    }
}
