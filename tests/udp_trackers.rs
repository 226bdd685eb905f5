//! Trackers over UDP on real sockets, which follow a script; and lists of many trackers, most of them dead.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ringtide::discovery::announcer::{
    AnnounceConfig, AnnounceEvent, Announcer, Timing, announce_once, scrape_all,
};
use ringtide::discovery::ask::{Tracker, TrackerError};
use ringtide::discovery::http::HttpError;
use ringtide::discovery::tracker::{
    Announce, Event, Reply, ReplyError, Scrape, TRACKER_REPLY_LEN_MAX, Totals,
};
use ringtide::discovery::udp::{PROTOCOL_ID, UdpError};
use ringtide::discovery::url::Url;

const PEER: &str = "127.0.0.1:6881";
const CONNECTION: u64 = 0x1122_3344_5566_7788;
const SOON: Duration = Duration::from_secs(10);

/// One datagram that came.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn action(&self) -> u8 {
        self.bytes[11]
    }

    /// An answer to this with that action.
    fn answer(&self, action: u8, body: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, action], &self.bytes[12..16], body].concat()
    }

    /// The proper answer: a connection id, [`PEER`], or some counts.
    fn proper(&self) -> Vec<u8> {
        match self.action() {
            0 => self.answer(0, &CONNECTION.to_be_bytes()),
            1 => self.answer(1, &[&announced(60)[..], &[127, 0, 0, 1, 0x1a, 0xe1]].concat()),
            _ => self.answer(2, &[0, 0, 0, 5, 0, 0, 0, 50, 0, 0, 0, 10]),
        }
    }

    /// The number of the event in an announce.
    fn event(&self) -> u8 {
        self.bytes[83]
    }
}

/// Interval, leechers, seeders.
fn announced(interval_secs: u32) -> Vec<u8> {
    [interval_secs, 1, 1].into_iter().flat_map(u32::to_be_bytes).collect()
}

/// A tracker on a free port of loopback; runs until the test program ends.
struct Server {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets every request and its number from 0, and gives the datagrams to send.
    fn start(ip: &str, mut answer: impl FnMut(&Request, usize) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind(format!("{ip}:0")).unwrap();
        let addr = socket.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            for number in 0.. {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                let request = Request { bytes: buffer[..len].to_vec() };
                log.lock().unwrap().push(request.clone());
                for datagram in answer(&request, number) {
                    let _ = socket.send_to(&datagram, from);
                }
            }
        });
        Self { addr, requests }
    }

    fn good() -> Self {
        Self::start("127.0.0.1", |request, _| vec![request.proper()])
    }

    fn silent() -> Self {
        Self::start("127.0.0.1", |_, _| vec![])
    }

    fn url(&self) -> String {
        format!("udp://{}/announce", self.addr)
    }

    fn tracker(&self) -> Tracker {
        Tracker::new(Url::parse(&self.url()).unwrap())
    }

    fn announce(&self, timeout: Duration) -> Result<Reply, TrackerError> {
        self.tracker().announce(&request(), timeout)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn actions(&self) -> Vec<u8> {
        self.requests().iter().map(Request::action).collect()
    }

    /// The events of the announces so far.
    fn events(&self) -> Vec<u8> {
        self.requests().iter().filter(|request| request.action() == 1).map(Request::event).collect()
    }
}

fn request() -> Announce {
    Announce {
        info_hash: [0xab; 20],
        peer_id: *b"-RT0001-abcdefghijkl",
        port: 6881,
        key: 7,
        totals: Totals::UNKNOWN_LENGTH,
        event: Some(Event::Started),
        tracker_id: None,
    }
}

fn config(tiers: Vec<Vec<String>>) -> AnnounceConfig {
    let Announce { info_hash, peer_id, port, key, .. } = request();
    AnnounceConfig { tiers, info_hash, peer_id, port, key, seed: 1, timing: Timing::default() }
}

fn start(config: AnnounceConfig) -> (Announcer, Receiver<AnnounceEvent>) {
    let (sender, events) = mpsc::channel();
    let totals = Arc::new(|| Totals::UNKNOWN_LENGTH);
    let announcer = Announcer::start(config, totals, Box::new(move |event| drop(sender.send(event))));
    (announcer.unwrap(), events)
}

/// The next event that names peers.
fn next_peers(events: &Receiver<AnnounceEvent>) -> (String, Vec<SocketAddr>) {
    loop {
        if let AnnounceEvent::Peers { url, peers } = events.recv_timeout(Duration::from_secs(20)).unwrap() {
            return (url, peers);
        }
    }
}

fn assert_quick<T>(limit: Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    assert!(took < limit, "took {took:?}, expected less than {limit:?}");
    result
}

fn peers() -> Vec<SocketAddr> {
    vec![PEER.parse().unwrap()]
}

/// A `udp` address where nobody listens.
fn refusing_url() -> String {
    let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("udp://{addr}/announce")
}

#[test]
fn an_announce_asks_for_a_connection_and_then_for_peers() {
    let server = Server::good();
    let reply = server.announce(SOON).unwrap();
    assert_eq!((reply.peers, reply.interval), (peers(), Duration::from_secs(60)));
    let sent = server.requests();
    assert_eq!(server.actions(), [0, 1]);
    assert_eq!(sent[0].bytes[..8], PROTOCOL_ID.to_be_bytes());
    assert_eq!(sent[1].bytes[..8], CONNECTION.to_be_bytes());
    assert_eq!(sent[1].bytes[16..36], [0xab; 20]);
    assert_eq!(sent[1].bytes[64..72], 1_u64.to_be_bytes(), "of an unknown length there is something left");
    assert_eq!(sent[1].bytes[98..], *b"\x02\x09/announce");
    assert_ne!(sent[0].bytes[12..16], sent[1].bytes[12..16]);
}

#[test]
fn a_scrape_brings_the_counts() {
    let counts = Scrape { seeders: 5, leechers: 10, downloads: 50 };
    let server = Server::good();
    assert_eq!(server.tracker().scrape([9; 20], SOON), Ok(counts));
    assert_eq!(server.requests()[1].bytes[16..], [9; 20]);
}

#[test]
fn a_connection_is_used_again_as_long_as_the_tracker_knows_it() {
    let server = Server::good();
    let tracker = server.tracker();
    for _ in 0..3 {
        tracker.announce(&request(), SOON).unwrap();
    }
    assert_eq!(server.actions(), [0, 1, 1, 1]);
    // Forgets every connection after one use: says so, or says nothing.
    for is_told in [true, false] {
        let mut used = 0;
        let server = Server::start("127.0.0.1", move |request, _| {
            used = if request.action() == 0 { 0 } else { used + 1 };
            match (used > 1, is_told) {
                (true, true) => vec![request.answer(3, b"Connection ID missmatch.\0")],
                (true, false) => vec![],
                _ => vec![request.proper()],
            }
        });
        let tracker = server.tracker();
        for _ in 0..2 {
            assert_eq!(tracker.announce(&request(), SOON).unwrap().peers, peers());
        }
        assert_eq!(server.actions(), [0, 1, 1, 0, 1]);
    }
}

#[test]
fn foreign_cut_and_repeated_datagrams_are_nobodys() {
    let server = Server::start("127.0.0.1", |request, _| {
        let proper = request.proper();
        let mut other_transaction = proper.clone();
        other_transaction[7] ^= 1;
        let mut datagrams = vec![vec![], other_transaction.clone(), vec![0xff; 2000]];
        datagrams.extend((0..16).map(|len| proper[..len].to_vec()));
        // Errors and answers to what was not asked, and one to somebody else.
        datagrams.push([&[0, 0, 0, 3], &other_transaction[4..8], b"go away"].concat());
        datagrams.push(request.answer((request.action() + 1) % 3, &[0; 40]));
        datagrams.push(request.answer(77, &[0; 40]));
        datagrams.extend([proper.clone(), proper]);
        datagrams
    });
    assert_eq!(assert_quick(Duration::from_secs(1), || server.announce(SOON)).unwrap().peers, peers());
    assert_eq!(server.actions(), [0, 1], "nothing was asked twice");
}

#[test]
fn only_the_trackers_address_is_listened_to() {
    let liar = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}/", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            let request = Request { bytes: buffer[..len].to_vec() };
            let lie = match request.action() {
                0 => request.answer(0, &[0; 8]),
                _ => request.answer(3, b"a lie"),
            };
            liar.send_to(&lie, from).unwrap();
            thread::sleep(Duration::from_millis(50));
            assert!(request.action() == 0 || request.bytes[..8] == CONNECTION.to_be_bytes());
            socket.send_to(&request.proper(), from).unwrap();
        }
    });
    let reply = Tracker::new(Url::parse(&url).unwrap()).announce(&request(), SOON);
    assert_eq!(reply.unwrap().peers, peers());
}

#[test]
fn lost_and_late_datagrams_cost_little() {
    // Every other one is lost.
    let lossy = Server::start("127.0.0.1", |request, number| match number % 2 {
        0 => vec![],
        _ => vec![request.proper()],
    });
    assert_eq!(assert_quick(Duration::from_secs(3), || lossy.announce(SOON)).unwrap().peers, peers());
    assert_eq!(lossy.actions(), [0, 0, 1, 1]);
    // Slower than the first wait: the answers to the first datagrams count, and their doubles harm nobody.
    let slow = Server::start("127.0.0.1", |request, _| {
        thread::sleep(Duration::from_millis(700));
        vec![request.proper()]
    });
    assert_eq!(assert_quick(Duration::from_secs(5), || slow.announce(SOON)).unwrap().peers, peers());
}

#[test]
fn silence_ends_at_the_deadline_and_a_closed_port_at_once() {
    let timeout = Duration::from_millis(1200);
    let silent = Server::silent();
    let late = Err(TrackerError::Udp(UdpError::TimedOut { timeout }));
    assert_eq!(assert_quick(Duration::from_secs(2), || silent.announce(timeout)), late);
    assert_eq!(silent.actions(), [0, 0]);
    // Noise is as good as silence.
    let noisy = Server::start("127.0.0.1", |request, _| vec![request.answer(9, b"noise"); 50]);
    assert_eq!(assert_quick(Duration::from_secs(2), || noisy.announce(timeout)), late);
    let closed = Tracker::new(Url::parse(&refusing_url()).unwrap());
    let refused = assert_quick(Duration::from_secs(1), || closed.announce(&request(), SOON));
    let kind = std::io::ErrorKind::ConnectionRefused;
    assert!(
        matches!(&refused, Err(TrackerError::Udp(UdpError::Io { kind: known, .. })) if *known == kind),
        "{refused:?}"
    );
    // Too long for a name, so that no name server is asked.
    let unknown = Url::parse(&format!("udp://{}.invalid:1/", "x".repeat(64))).unwrap();
    assert!(matches!(
        Tracker::new(unknown).announce(&request(), SOON),
        Err(TrackerError::Udp(UdpError::Io { .. }))
    ));
}

#[test]
fn a_refusal_is_told_in_the_trackers_words() {
    let refused = Err(TrackerError::Reply(ReplyError::Refused { reason: "not\u{fffd}here".to_owned() }));
    let at_once = Server::start("127.0.0.1", |request, _| vec![request.answer(3, b"not\nhere")]);
    assert_eq!(at_once.announce(SOON), refused);
    let later = Server::start("127.0.0.1", |request, number| match number {
        0 => vec![request.proper()],
        _ => vec![request.answer(3, b"not\nhere\0")],
    });
    assert_eq!(later.announce(SOON), refused);
}

#[test]
fn a_v6_tracker_names_v6_peers() {
    let server = Server::start("[::1]", |request, _| match request.action() {
        1 => {
            let peer = [&[0; 15][..], &[1, 0x1a, 0xe1]].concat();
            vec![request.answer(1, &[announced(60), peer.repeat(2)].concat())]
        }
        _ => vec![request.proper()],
    });
    assert!(server.url().starts_with("udp://[::1]:"));
    let peer: SocketAddr = "[::1]:6881".parse().unwrap();
    assert_eq!(server.announce(SOON).unwrap().peers, [peer, peer]);
}

/// `localhost` is `::1` and 127.0.0.1 on most machines, and the tracker listens on one of them.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let server = Server::good();
    let url = format!("udp://localhost:{}/announce", server.addr.port());
    let tracker = Tracker::new(Url::parse(&url).unwrap());
    let reply = assert_quick(Duration::from_secs(3), || tracker.announce(&request(), SOON));
    assert_eq!(reply.unwrap().peers, peers());
}

#[test]
fn a_reply_of_the_largest_size_is_read_up_to_the_limit() {
    let server = Server::start("127.0.0.1", |request, _| match request.action() {
        1 => vec![request.answer(1, &[announced(60), [127, 0, 0, 1, 0, 9].repeat(10_000)].concat())],
        _ => vec![request.proper()],
    });
    assert_eq!(server.announce(SOON).unwrap().peers.len(), 2000);
}

/// Answers with an HTTP reply over IPv6, and with a redirect to itself at first.
fn http_v6(
    answer: impl Fn(&str, SocketAddr) -> Vec<u8> + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let lines: Vec<String> = BufReader::new(&connection)
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            log.lock().unwrap().push(lines.join("\n"));
            let _ = connection.write_all(&answer(&lines[0], addr));
        }
    });
    (format!("http://{addr}/announce"), requests)
}

fn ask_http(url: &str, timeout: Duration) -> Result<Reply, TrackerError> {
    Tracker::new(Url::parse(url).unwrap()).announce(&request(), timeout)
}

#[test]
fn http_goes_over_ipv6_as_well() {
    let body = b"d8:intervali60e5:peers6:\x7f\x00\x00\x01\x1a\xe1e";
    let (url, requests) = http_v6(move |line, addr| {
        if line.contains("/announce?") {
            return format!("HTTP/1.1 302 Found\r\nLocation: http://{addr}/x\r\n\r\n").into_bytes();
        }
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body, b"rest"]
            .concat()
    });
    assert_eq!(ask_http(&url, SOON).unwrap().peers, peers());
    let requests = requests.lock().unwrap();
    assert!(requests[0].starts_with("GET /announce?info_hash=%AB"), "{requests:?}");
    assert!(requests[1].starts_with("GET /x HTTP/1.1\nHost: [::1]:"), "{requests:?}");
}

#[test]
fn what_comes_over_ipv6_is_bounded_and_checked() {
    let saying = |bytes: Vec<u8>| ask_http(&http_v6(move |_, _| bytes.clone()).0, SOON);
    let large = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 2 << 20]].concat();
    assert_eq!(saying(large), Err(TrackerError::Http(HttpError::TooLarge { max: TRACKER_REPLY_LEN_MAX })));
    for bytes in [
        vec![],
        vec![b'x'; 100_000],
        b"HTTP/1.1 200 OK\r\nX: y".to_vec(),
        b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n\r\n".to_vec(),
        [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 9000], b"\r\n\r\nde"].concat(),
    ] {
        let result = saying(bytes);
        let is_malformed = matches!(&result, Err(TrackerError::Http(HttpError::Malformed { .. })));
        // A server that closes with something unread resets the connection.
        assert!(
            is_malformed || matches!(&result, Err(TrackerError::Http(HttpError::Io { .. }))),
            "{result:?}"
        );
    }
    let status = Err(TrackerError::Status { status: 404, reason: "Not Found".to_owned() });
    assert_eq!(saying(b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec()), status);
}

#[test]
fn an_announcer_works_over_udp_and_says_goodbye_under_the_same_connection() {
    let server = Server::good();
    let (announcer, events) = start(config(vec![vec![server.url()]]));
    assert_eq!(next_peers(&events), (server.url(), peers()));
    assert_quick(Duration::from_millis(800), || announcer.finish(true).wait());
    assert_eq!(server.events(), [2, 1, 3]);
    assert_eq!(server.actions(), [0, 1, 1, 1]);
}

#[test]
fn a_farewell_to_a_tracker_that_fell_silent_never_takes_long() {
    let server = Server::start("127.0.0.1", |request, number| match number {
        0 | 1 => vec![request.proper()],
        _ => vec![],
    });
    let (announcer, events) = start(config(vec![vec![server.url()], vec![Server::silent().url()]]));
    next_peers(&events);
    assert_quick(Duration::from_secs(1), || announcer.finish(true).wait());
    assert_eq!(server.events()[..2], [2, 1]);
}

/// Each tracker hears again when it wants to, whatever the others say.
#[test]
fn intervals_are_kept_for_each_tracker() {
    let every = |secs: u32| {
        Server::start("127.0.0.1", move |request, _| match request.action() {
            1 => vec![request.answer(1, &[&announced(secs)[..], &[127, 0, 0, 1, 0, 9]].concat())],
            _ => vec![request.proper()],
        })
    };
    let (quick, slow) = (every(5), every(8));
    let (_announcer, events) = start(config(vec![vec![quick.url()], vec![slow.url()]]));
    let begin = Instant::now();
    let mut heard = Vec::new();
    while heard.len() < 5 {
        let (url, _) = next_peers(&events);
        heard.push((url == quick.url(), begin.elapsed().as_secs_f32().round() as u32));
    }
    heard[..2].sort_unstable();
    assert_eq!(heard, [(false, 0), (true, 0), (true, 5), (false, 8), (true, 10)]);
}

/// Thirty dead ones: a third refuse, a third are silent, a third have no address.
fn dead_urls(silent: &Server) -> Vec<String> {
    let url = |number: usize| match number % 3 {
        0 => refusing_url(),
        1 => format!("udp://{}/{number}", silent.addr),
        // Too long for a name, so that no name server is asked.
        _ => format!("udp://{}{number}.invalid:1/", "x".repeat(64)),
    };
    (0..30).map(url).collect()
}

#[test]
fn one_living_tracker_in_31_tiers_is_found_at_once() {
    let (silent, good) = (Server::silent(), Server::good());
    let tiers: Vec<_> = dead_urls(&silent).into_iter().chain([good.url()]).map(|url| vec![url]).collect();
    let limit = Duration::from_secs(3);
    let answer =
        assert_quick(limit, || announce_once(&config(tiers.clone()), Totals::default(), &|| false).answer)
            .unwrap();
    assert_eq!(answer.url, good.url());
    assert_quick(limit, || {
        let (announcer, events) = start(config(tiers));
        assert_eq!(next_peers(&events).0, good.url());
        announcer.finish(true).wait();
    });
}

#[test]
fn one_living_tracker_among_30_silent_ones_of_its_tier_is_found_soon() {
    let (silent, good) = (Server::silent(), Server::good());
    let mut tier: Vec<_> = (0..30).map(|number| format!("udp://{}/{number}", silent.addr)).collect();
    tier.push(good.url());
    let config = config(vec![tier]);
    let limit = Duration::from_secs(10);
    let runs = (0..4).map(|seed| {
        let config = AnnounceConfig { seed, ..config.clone() };
        thread::spawn(move || {
            assert_quick(limit, || announce_once(&config, Totals::default(), &|| false).answer).unwrap()
        })
    });
    for answer in runs.collect::<Vec<_>>() {
        assert_eq!(answer.join().unwrap().url, good.url());
    }
    let (announcer, events) = start(config);
    assert_eq!(assert_quick(limit, || next_peers(&events)).0, good.url());
    assert_quick(Duration::from_secs(1), || announcer.finish(true).wait());
}

#[test]
fn a_scrape_asks_all_and_tells_of_each() {
    let (good, silent) = (Server::good(), Server::silent());
    let mut config = config(vec![
        vec![good.url(), "wss://127.0.0.1:1/".to_owned()],
        vec![silent.url(), "http://127.0.0.1:1/x".to_owned(), refusing_url()],
    ]);
    config.timing.once = Duration::from_millis(800);
    let mut answers = Vec::new();
    assert_quick(Duration::from_secs(2), || {
        scrape_all(&config, |url, answer| answers.push((url.to_owned(), answer)));
    });
    assert_eq!(answers.len(), 5);
    let of = |url: &str| &answers.iter().find(|(known, _)| known == url).unwrap().1;
    assert_eq!(of(&good.url()), &Ok(Scrape { seeders: 5, leechers: 10, downloads: 50 }));
    assert!(matches!(of("wss://127.0.0.1:1/"), Err(TrackerError::Url(_))));
    assert!(matches!(of(&silent.url()), Err(TrackerError::Udp(UdpError::TimedOut { .. }))));
    assert_eq!(of("http://127.0.0.1:1/x"), &Err(TrackerError::NoScrape));
}
