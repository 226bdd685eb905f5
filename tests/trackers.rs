//! Announces over real sockets, to servers that follow a script: good, slow, broken and hostile ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use ringtide::discovery::announcer::{AnnounceConfig, AnnounceEvent, Announcer, Timing, announce_once};
use ringtide::discovery::ask::{Tracker, TrackerError};
use ringtide::discovery::http::{self, HttpError};
use ringtide::discovery::tracker::{Announce, Reply, ReplyError, TRACKER_REPLY_LEN_MAX, Totals};
use ringtide::discovery::url::{Url, UrlError};

const PEER: &str = "127.0.0.1:6881";
const REPLY: &[u8] = b"d8:intervali60e5:peers6:\x7f\x00\x00\x01\x1a\xe1e";
const TOTALS: Totals = Totals { uploaded: 1, downloaded: 2, left: 3 };

/// Panics that were printed: a hostile server must cause none.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A server on a free port of this machine; runs until the test program ends.
struct Server {
    addr: SocketAddr,
    /// The request lines, in order of arrival.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers every connection on a thread of its own: `serve` gets the request's target, and the server's address.
    fn start(serve: impl Fn(&str, SocketAddr, TcpStream) + Send + Sync + 'static) -> Self {
        static COUNTED: Once = Once::new();
        COUNTED.call_once(|| {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                PANICS.fetch_add(1, Ordering::Relaxed);
                print(info);
            }));
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (serve, log) = (Arc::new(serve), Arc::clone(&requests));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (Ok(connection), serve, log) = (connection, Arc::clone(&serve), Arc::clone(&log)) else {
                    return;
                };
                thread::spawn(move || {
                    let mut lines = BufReader::new(&connection).lines();
                    let Some(Ok(first)) = lines.next() else { return };
                    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    log.lock().unwrap().push(target.clone());
                    serve(&target, addr, connection);
                });
            }
        });
        Self { addr, requests }
    }

    /// Sends the same bytes to whoever asks.
    fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, _, mut connection| drop(connection.write_all(&bytes)))
    }

    /// A proper reply with that body.
    fn replying(body: &[u8]) -> Self {
        Self::saying(ok(body))
    }

    fn silent() -> Self {
        Self::start(|_, _, connection| {
            thread::sleep(Duration::from_secs(60));
            drop(connection);
        })
    }

    fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    fn announce(&self, timeout: Duration) -> Result<Reply, TrackerError> {
        announce(&self.url(), timeout)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The `event` of each request so far, `-` for none.
    fn events(&self) -> Vec<String> {
        let event = |target: String| {
            let (_, event) = target.split_once("&event=").unwrap_or(("", "-"));
            event.split('&').next().unwrap_or_default().to_owned()
        };
        self.requests().into_iter().map(event).collect()
    }
}

fn announce(url: &str, timeout: Duration) -> Result<Reply, TrackerError> {
    Tracker::new(Url::parse(url).unwrap()).announce(&request(), timeout)
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn request() -> Announce {
    Announce {
        info_hash: [0xab; 20],
        peer_id: *b"-RT0001-abcdefghijkl",
        port: 6881,
        key: 7,
        totals: TOTALS,
        event: None,
        tracker_id: None,
    }
}

fn config(tiers: &[&[String]]) -> AnnounceConfig {
    let Announce { info_hash, peer_id, port, key, .. } = request();
    let tiers = tiers.iter().map(|tier| tier.to_vec()).collect();
    AnnounceConfig { tiers, info_hash, peer_id, port, key, seed: 1, timing: Timing::default() }
}

fn start(config: AnnounceConfig) -> (Announcer, Receiver<AnnounceEvent>) {
    let (sender, events) = mpsc::channel();
    let announcer =
        Announcer::start(config, Arc::new(|| TOTALS), Box::new(move |event| drop(sender.send(event))));
    (announcer.unwrap(), events)
}

fn next(events: &Receiver<AnnounceEvent>) -> AnnounceEvent {
    events.recv_timeout(Duration::from_secs(20)).expect("an event")
}

/// The address of a port on which nobody listens.
fn refusing_url() -> String {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{addr}/announce")
}

fn assert_quick<T>(limit: Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    assert!(took < limit, "took {took:?}, expected less than {limit:?}");
    result
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn an_announce_carries_the_parameters_and_brings_peers() {
    let server = Server::replying(REPLY);
    assert_eq!(server.announce(SOON).unwrap().peers, [PEER.parse().unwrap()]);
    let expected = format!("/announce?{}", request().query());
    assert_eq!(server.requests(), [expected]);
    announce(&format!("http://{}/a?passkey=1", server.addr), SOON).unwrap();
    assert!(server.requests()[1].starts_with("/a?passkey=1&info_hash=%AB%AB"), "{:?}", server.requests());
}

#[test]
fn every_form_of_peer_list_is_read() {
    let v6 = b"d6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x01e";
    assert_eq!(Server::replying(v6).announce(SOON).unwrap().peers, ["[2001:db8::1]:1".parse().unwrap()]);
    let dicts = b"d5:peersld2:ip9:127.0.0.14:porti6881eed2:ip3:::14:porti9eeee";
    let expected: [SocketAddr; 2] = [PEER.parse().unwrap(), "[::1]:9".parse().unwrap()];
    assert_eq!(Server::replying(dicts).announce(SOON).unwrap().peers, expected);
}

#[test]
fn replies_without_a_length_and_in_chunks_are_read() {
    let mut until_close = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
    until_close.extend(REPLY);
    assert!(Server::saying(until_close).announce(SOON).is_ok());
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in REPLY.chunks(7) {
        chunked.extend(format!("{:x}\r\n", part.len()).bytes());
        chunked.extend(part);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    assert!(Server::saying(chunked).announce(SOON).is_ok());
}

#[test]
fn redirects_are_followed_whether_relative_or_absolute() {
    let server = Server::start(|target, addr, mut connection| {
        let query = target.split_once('?').unwrap_or_default().1;
        let location = match target {
            target if target.starts_with("/announce?") => format!("/second?{query}"),
            target if target.starts_with("/second?") => format!("http://{addr}/third/?{query}"),
            target if target.starts_with("/third/?") => format!("fourth?{query}"),
            _ => return drop(connection.write_all(&ok(REPLY))),
        };
        let _ = write!(connection, "HTTP/1.1 301 Moved\r\nlocation: {location}\r\n\r\n");
    });
    assert!(server.announce(SOON).is_ok());
    let last = server.requests().pop().unwrap();
    assert_eq!(last, format!("/third/fourth?{}", request().query()));
}

#[test]
fn redirects_have_an_end_and_lead_to_http_only() {
    let turning = Server::saying("HTTP/1.1 302 Found\r\nLocation: /announce\r\n\r\n");
    assert_eq!(turning.announce(SOON), Err(TrackerError::Http(HttpError::TooManyRedirects)));
    assert_eq!(turning.requests().len(), 1 + http::REDIRECTS_MAX);
    let location = "file:///etc/passwd".to_owned();
    let error = UrlError::Scheme { scheme: "file".to_owned() };
    for (location, error) in [(location, error), ("udp://127.0.0.1:1/".to_owned(), UrlError::UdpRedirect)] {
        assert_eq!(
            Server::saying(format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\n\r\n")).announce(SOON),
            Err(TrackerError::Http(HttpError::Redirect { location, error }))
        );
    }
    assert_eq!(
        Server::saying("HTTP/1.1 301 Moved\r\n\r\n").announce(SOON),
        Err(TrackerError::Http(HttpError::RedirectWithoutLocation))
    );
}

#[test]
fn a_large_reply_is_cut_off() {
    let server = Server::start(|_, _, mut connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let part = [b'x'; 64 * 1024];
        for _ in 0..160 {
            if connection.write_all(&part).is_err() {
                return;
            }
        }
    });
    assert_eq!(
        server.announce(SOON),
        Err(TrackerError::Http(HttpError::TooLarge { max: TRACKER_REPLY_LEN_MAX }))
    );
    let longest = [b"d1:x1048565:".as_slice(), &vec![b'x'; TRACKER_REPLY_LEN_MAX - 13], b"e"].concat();
    assert_eq!(longest.len(), TRACKER_REPLY_LEN_MAX);
    assert!(matches!(Server::replying(&longest).announce(SOON), Err(TrackerError::Reply(_))));
}

#[test]
fn silence_and_drips_end_at_the_deadline() {
    let timeout = Duration::from_millis(900);
    let late = Err(TrackerError::Http(HttpError::TimedOut { timeout }));
    let drip = |prefix: &'static [u8]| {
        Server::start(move |_, _, mut connection| {
            let _ = connection.write_all(prefix);
            while connection.write_all(b"1").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    for server in [
        Server::silent(),
        drip(b"HTTP/1."),
        drip(b"HTTP/1.1 200 OK\r\nX: "),
        drip(b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        assert_eq!(assert_quick(Duration::from_secs(3), || server.announce(timeout)), late);
    }
}

#[test]
fn what_is_not_a_trackers_answer_is_an_error() {
    let malformed = |server: Server| {
        let result = server.announce(SOON);
        assert!(matches!(result, Err(TrackerError::Http(HttpError::Malformed { .. }))), "{result:?}");
    };
    malformed(Server::saying(""));
    malformed(Server::saying("garbage\n"));
    malformed(Server::saying(vec![0xff; 1000]));
    malformed(Server::saying("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"));
    malformed(Server::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"));
    let html = Server::replying(b"<html>").announce(SOON);
    assert!(matches!(html, Err(TrackerError::Reply(ReplyError::Bencode(_)))), "{html:?}");
    assert_eq!(Server::replying(b"le").announce(SOON), Err(TrackerError::Reply(ReplyError::NotADictionary)));
    assert_eq!(
        Server::saying("HTTP/1.1 500 Oh No\r\nContent-Length: 2\r\n\r\nde").announce(SOON),
        Err(TrackerError::Status { status: 500, reason: "Oh No".to_owned() })
    );
    assert_eq!(
        Server::saying("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nxx").announce(SOON),
        Err(TrackerError::Http(HttpError::Compressed { encoding: "gzip".to_owned() }))
    );
}

#[test]
fn a_refusal_is_told_in_the_trackers_words() {
    let refused = Err(TrackerError::Reply(ReplyError::Refused { reason: "not here".to_owned() }));
    assert_eq!(Server::replying(b"d14:failure reason8:not heree").announce(SOON), refused);
    let under_400 = "HTTP/1.1 400 Bad Request\r\n\r\nd14:failure reason8:not heree";
    assert_eq!(Server::saying(under_400).announce(SOON), refused);
}

#[test]
fn heads_beyond_the_limit_are_errors_without_a_panic() {
    let flood = |start: &'static [u8]| {
        Server::start(move |_, _, mut connection| {
            let _ = connection.write_all(start);
            for _ in 0..1000 {
                if connection.write_all(&[b'x'; 4096]).is_err() {
                    return;
                }
            }
        })
    };
    // A bare line feed as the last byte that fits, which the client's arithmetic does not survive.
    let bare = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; 8191], b"\n\r\n"].concat();
    let servers = [flood(b""), flood(b"HTTP/1.1 200 OK\r\nX: "), Server::saying(bare)];
    for server in servers {
        let result = server.announce(SOON);
        assert!(matches!(result, Err(TrackerError::Http(HttpError::Malformed { .. }))), "{result:?}");
    }
    // The same after the body; how much of the limit is left then depends on the headers before it.
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".as_slice();
    for len in 8155..8167 {
        let server = Server::saying([chunked, &vec![b'x'; len], b"\n\r\n"].concat());
        assert!(server.announce(SOON).is_err());
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a panic was printed");
}

#[test]
fn a_refused_connection_and_an_unknown_host_are_errors() {
    let result = announce(&refusing_url(), SOON);
    let refused = std::io::ErrorKind::ConnectionRefused;
    assert!(
        matches!(&result, Err(TrackerError::Http(HttpError::Io { kind, .. })) if *kind == refused),
        "{result:?}"
    );
    // Too long for a name, so that no name server is asked.
    assert!(announce(&format!("http://{}.invalid/announce", "x".repeat(64)), SOON).is_err());
}

#[test]
fn tls_that_is_none_is_an_error() {
    let server = Server::replying(REPLY);
    let url = format!("https://{}/announce", server.addr);
    assert!(matches!(announce(&url, Duration::from_secs(2)), Err(TrackerError::Http(_))));
}

#[test]
fn asking_once_goes_past_the_dead_and_the_silent() {
    let (silent, good) = (Server::silent(), Server::replying(REPLY));
    let tiers = config(&[&["wss://127.0.0.1:1/".to_owned(), refusing_url()], &[silent.url()], &[good.url()]]);
    let once = assert_quick(Duration::from_secs(5), || announce_once(&tiers, TOTALS, &|| false));
    let answer = once.answer.unwrap();
    // The tracker lists this client, too.
    assert_eq!((answer.url, answer.reply.peers), (good.url(), vec![]));
    assert_quick(Duration::from_secs(2), || once.farewell.wait());
    assert_eq!(good.events(), ["-", "stopped"]);
}

#[test]
fn a_warning_is_told_once() {
    let body = |text: &str| format!("d8:intervali60e5:peers0:15:warning message{}:{text}e", text.len());
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, _, mut connection| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        // The same four times, and then ever new ones.
        let text = if number < 4 { "old".to_owned() } else { number.to_string() };
        let _ = connection.write_all(&ok(body(&text).as_bytes()));
    });
    let mut config = config(&[&[server.url()]]);
    config.timing.more_min = Duration::from_millis(1);
    let (announcer, events) = start(config);
    let mut warnings = Vec::new();
    let mut answers = 0;
    while answers < 12 {
        match next(&events) {
            AnnounceEvent::Warning { text, .. } => warnings.push(text),
            AnnounceEvent::Peers { .. } => {
                answers += 1;
                announcer.request_more();
            }
            _ => {}
        }
    }
    assert_eq!(warnings, ["old", "4", "5"]);
}

#[test]
fn asking_once_ends_although_nobody_answers() {
    let silent = Server::silent();
    let timeout = Duration::from_millis(1500);
    let mut config = config(&[&[silent.url()], &["wss://127.0.0.1:1/".to_owned()]]);
    config.timing.once = timeout;
    let failed = assert_quick(Duration::from_secs(4), || announce_once(&config, TOTALS, &|| false).answer)
        .unwrap_err();
    let wss = TrackerError::Url(UrlError::Scheme { scheme: "wss".to_owned() });
    let late = TrackerError::Http(HttpError::TimedOut { timeout });
    assert_eq!(failed.failures, [(silent.url(), late), ("wss://127.0.0.1:1/".to_owned(), wss)]);
    assert_eq!(
        failed.to_string(),
        format!(
            "no tracker has answered: {}: no answer within 1.5 s; wss://127.0.0.1:1/: URLs of scheme wss are \
             not supported, only http, https and udp",
            silent.url()
        )
    );
    config.tiers.clear();
    assert_eq!(
        announce_once(&config, TOTALS, &|| false).answer.unwrap_err().to_string(),
        "the torrent names no tracker"
    );
    assert!(Timing::default().once < Duration::from_secs(15));
}

#[test]
fn an_announcer_finds_the_tracker_that_works_and_says_goodbye() {
    let (silent, good) = (Server::silent(), Server::replying(REPLY));
    let dead = refusing_url();
    let (announcer, events) = start(config(&[std::slice::from_ref(&dead), &[silent.url()], &[good.url()]]));
    // The tiers are asked side by side.
    let answers = [next(&events), next(&events)];
    assert!(answers.iter().any(|event| matches!(event, AnnounceEvent::Failed { url, .. } if *url == dead)));
    let peers = vec![PEER.parse().unwrap()];
    assert!(answers.contains(&AnnounceEvent::Peers { url: good.url(), peers }));
    while silent.events().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_quick(Duration::from_secs(1), || announcer.finish(true).wait());
    assert_eq!(good.events(), ["started", "completed", "stopped"]);
    assert_eq!(silent.events(), ["started", "stopped"], "it may have heard");
}

#[test]
fn a_regular_announce_follows_the_interval_and_more_is_asked_for_early() {
    let quick = b"d8:intervali5e5:peers0:10:tracker id2:id15:warning message3:heye";
    let server = Server::replying(quick);
    let mut settings = config(&[&[server.url()]]);
    settings.timing.more_min = Duration::from_millis(300);
    let (announcer, events) = start(settings);
    let warning = AnnounceEvent::Warning { url: server.url(), text: "hey".to_owned() };
    let peers = AnnounceEvent::Peers { url: server.url(), peers: Vec::new() };
    let begin = Instant::now();
    assert_eq!([next(&events), next(&events)], [warning, peers.clone()]);
    announcer.request_more();
    announcer.request_more();
    assert_eq!(next(&events), peers);
    let early = begin.elapsed();
    assert!(early >= Duration::from_millis(290) && early < Duration::from_secs(4), "{early:?}");
    assert_eq!(next(&events), peers);
    assert!(begin.elapsed() - early >= Duration::from_millis(4900));
    announcer.finish(false).wait();
    assert_eq!(server.events(), ["started", "-", "-", "stopped"]);
    assert!(server.requests()[1..].iter().all(|target| target.ends_with("&trackerid=id")));
}

#[test]
fn failures_are_retried_after_growing_waits() {
    let dead = refusing_url();
    let mut settings = config(&[&[dead.clone(), "wss://127.0.0.1:1/".to_owned()]]);
    settings.timing.retry_min = Duration::from_millis(50);
    settings.timing.retry_max = Duration::from_millis(120);
    let (_announcer, events) = start(settings);
    let mut waits = Vec::new();
    let mut failed = Vec::new();
    while waits.len() < 4 {
        match next(&events) {
            AnnounceEvent::Exhausted { retry_in } => waits.push(retry_in.unwrap().as_millis()),
            AnnounceEvent::Failed { url, .. } => failed.push(url),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [50, 100, 120, 120]);
    assert_eq!(failed.iter().filter(|url| url.starts_with("wss")).count(), 1);
    assert_eq!(failed.iter().filter(|url| **url == dead).count(), 4);
}

#[test]
fn a_torrent_whose_trackers_cannot_be_asked_is_told_so_once() {
    let wss = "wss://127.0.0.1:1/announce".to_owned();
    let (announcer, events) = start(config(&[std::slice::from_ref(&wss)]));
    let error = TrackerError::Url(UrlError::Scheme { scheme: "wss".to_owned() });
    assert_eq!(next(&events), AnnounceEvent::Failed { url: wss, error });
    assert_eq!(next(&events), AnnounceEvent::Exhausted { retry_in: None });
    announcer.request_more();
    assert!(events.recv_timeout(Duration::from_millis(200)).is_err());
    assert_quick(Duration::from_millis(800), || announcer.finish(true).wait());
}

#[test]
fn a_farewell_never_takes_long() {
    // Answers the first announce and then nothing more.
    let server = Server::start(|target, _, mut connection| {
        if target.contains("event=started") {
            let _ = connection.write_all(&ok(REPLY));
        } else {
            thread::sleep(Duration::from_secs(60));
        }
    });
    let (announcer, events) = start(config(&[&[server.url()]]));
    assert!(matches!(next(&events), AnnounceEvent::Peers { .. }));
    assert_quick(Duration::from_millis(1300), || announcer.finish(true).wait());
    let (announcer, _events) = start(config(&[&[Server::silent().url()]]));
    assert_quick(Duration::from_millis(800), || announcer.finish(true).wait());
}

#[test]
fn a_server_may_close_late_or_early() {
    // The whole body is there but the connection stays open: the length says where it ends.
    let server = Server::start(|_, _, mut connection| {
        let _ = connection.write_all(&ok(REPLY));
        let _ = connection.read(&mut [0; 1]);
        thread::sleep(Duration::from_secs(60));
    });
    assert!(assert_quick(Duration::from_secs(5), || server.announce(SOON)).is_ok());
    let cut = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nd8:intervali60e");
    assert!(matches!(cut.announce(SOON), Err(TrackerError::Reply(ReplyError::Bencode(_)))));
}
