//! A tracker that says what the test tells it to and remembers what it was told.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long a silent server keeps a connection: longer than any test waits.
const SILENCE: Duration = Duration::from_secs(120);

/// An HTTP server on a free port of a loopback address, until the test program ends.
pub struct Tracker {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// One request: its path and the parameters of its query, percent-decoded.
#[derive(Clone, Debug)]
pub struct Request {
    /// All of it, as it came.
    pub target: String,
    parameters: Vec<(String, Vec<u8>)>,
}

impl Request {
    fn parse(target: &str) -> Self {
        let (_, query) = target.split_once('?').unwrap_or((target, ""));
        let parameters = query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (key.to_owned(), percent_decode(value))
        });
        Self { target: target.to_owned(), parameters: parameters.collect() }
    }

    /// The bytes of a parameter, which must be there exactly once.
    #[track_caller]
    pub fn bytes(&self, key: &str) -> &[u8] {
        let mut found = self.parameters.iter().filter(|(name, _)| name == key);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => panic!("{key} is not there exactly once: {}", self.target),
        }
    }

    /// A parameter as a decimal number without sign or leading zeros.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        let text = String::from_utf8(self.bytes(key).to_vec()).expect("a number is text");
        let number = text.parse().unwrap_or_else(|_| panic!("{key} is {text:?}"));
        assert_eq!(format!("{number}"), text, "{key}");
        number
    }

    /// The `event`, empty where there is none.
    pub fn event(&self) -> String {
        let event = self.parameters.iter().find(|(name, _)| name == "event");
        event.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

impl Tracker {
    /// Answers every request with the bytes that `answer` gives; `None` leaves it waiting.
    pub fn start(answer: impl Fn(&Request, SocketAddr) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::serving(move |request, addr, connection| send(connection, answer(request, addr)))
    }

    /// Has every request served on a thread of its own, which is told the tracker's address, too.
    pub fn serving(serve: impl Fn(&Request, SocketAddr, TcpStream) + Send + Sync + 'static) -> Self {
        Self::serving_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    fn serving_at(
        ip: IpAddr,
        serve: impl Fn(&Request, SocketAddr, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("the loopback address can be bound");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (serve, log) = (Arc::new(serve), Arc::clone(&requests));
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (serve, log) = (Arc::clone(&serve), Arc::clone(&log));
                thread::spawn(move || {
                    let Some(request) = read_request(&connection) else { return };
                    log.lock().expect("no thread panics with it").push(request.clone());
                    serve(&request, addr, connection);
                });
            }
        });
        Self { addr, requests }
    }

    /// Sends the same bytes to whoever asks, whether they are HTTP or not.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, _| Some(bytes.clone()))
    }

    /// Answers with this body.
    pub fn replying(body: impl AsRef<[u8]>) -> Self {
        Self::saying(ok(body.as_ref()))
    }

    /// Names these peers, in the compact form.
    pub fn of(peers: &[SocketAddr]) -> Self {
        Self::replying(compact(peers))
    }

    /// The same on `::1`.
    pub fn of_v6(peers: &[SocketAddr]) -> Self {
        let answer = ok(&compact(peers));
        Self::serving_at(Ipv6Addr::LOCALHOST.into(), move |_, _, connection| {
            send(connection, Some(answer.clone()));
        })
    }

    /// Takes connections and requests and never says a word.
    pub fn silent() -> Self {
        Self::start(|_, _| None)
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no thread panics with it").clone()
    }
}

/// The announce URL of a tracker that is not there.
pub fn dead_url() -> String {
    format!("http://{}/announce", dead_addr())
}

/// An address of this machine where nobody listens, nor will before the test program ends.
pub fn dead_addr() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&any.into()).expect("the loopback address can be bound");
    let addr = socket.local_addr().expect("a bound socket has an address");
    // Bound but not listening it refuses connections, and nobody else gets its port.
    std::mem::forget(socket);
    addr.as_socket().expect("an IPv4 address")
}

/// A proper HTTP answer with that body.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The body that names these peers in the compact form: `peers` (BEP 23) and, where there are any, `peers6` (BEP 7).
pub fn compact(peers: &[SocketAddr]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for peer in peers {
        let list = match peer.ip() {
            IpAddr::V4(ip) => {
                v4.extend(ip.octets());
                &mut v4
            }
            IpAddr::V6(ip) => {
                v6.extend(ip.octets());
                &mut v6
            }
        };
        list.extend(peer.port().to_be_bytes());
    }
    let mut body = format!("d8:completei1e10:incompletei0e8:intervali1800e5:peers{}:", v4.len()).into_bytes();
    body.extend(v4);
    if !v6.is_empty() {
        body.extend(format!("6:peers6{}:", v6.len()).bytes());
        body.extend(v6);
    }
    body.push(b'e');
    body
}

/// The body that names these peers in the form of BEP 3: a dictionary each.
pub fn dictionaries(peers: &[SocketAddr]) -> Vec<u8> {
    let mut body = b"d8:intervali1800e5:peersl".to_vec();
    for peer in peers {
        let ip = peer.ip().to_string();
        body.extend(format!("d2:ip{}:{ip}7:peer id20:-XX0000-0123456789ab", ip.len()).bytes());
        body.extend(format!("4:porti{}ee", peer.port()).bytes());
    }
    body.extend(b"ee");
    body
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let mut words = first.split(' ');
    assert_eq!(words.next(), Some("GET"), "{first}");
    Some(Request::parse(words.next()?))
}

fn send(mut connection: TcpStream, answer: Option<Vec<u8>>) {
    match answer {
        // The client may have enough of it before the end.
        Some(bytes) => drop(connection.write_all(&bytes)),
        None => thread::sleep(SILENCE),
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(&rest[..2]).expect("two hexadecimal digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    bytes
}
