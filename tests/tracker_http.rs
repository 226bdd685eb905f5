//! HTTP and HTTPS as trackers speak it in the wild: bodies that are packed or mislabelled, certificates of all kinds,
//! passwords, proxies, redirects inward; and what of a URL reaches the terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::in_namespace;
use common::process::wait_for;
use common::workspace::temp_dir;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use ringtide::discovery::ask::{Tracker as Client, TrackerError};
use ringtide::discovery::fetch;
use ringtide::discovery::http::HttpError;
use ringtide::discovery::tracker::{Announce, Reply, TRACKER_REPLY_LEN_MAX, Totals};
use ringtide::discovery::url::Url;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::content::Content;
use support::program::{Program, ringtide};
use support::tracker::{Request, Tracker, compact, dead_addr, dead_url, ok};

const SOON: Duration = Duration::from_secs(10);
const PEER: &str = "192.0.2.7:6881";

fn reply() -> Vec<u8> {
    compact(&[PEER.parse().unwrap()])
}

fn announce(url: &str) -> Result<Reply, TrackerError> {
    let announce = Announce {
        info_hash: [0xab; 20],
        peer_id: *b"-RT0001-abcdefghijkl",
        port: 6881,
        key: 7,
        totals: Totals::UNKNOWN_LENGTH,
        event: None,
        tracker_id: None,
    };
    Client::new(Url::parse(url).unwrap()).announce(&announce, SOON)
}

fn packed<W: Write>(
    bytes: &[u8],
    mut encoder: W,
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> Vec<u8> {
    encoder.write_all(bytes).unwrap();
    finish(encoder).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    packed(bytes, GzEncoder::new(Vec::new(), Compression::default()), GzEncoder::finish)
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    packed(bytes, ZlibEncoder::new(Vec::new(), Compression::default()), ZlibEncoder::finish)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    packed(bytes, DeflateEncoder::new(Vec::new(), Compression::default()), DeflateEncoder::finish)
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for chunk in bytes.chunks(7) {
        sent.extend(format!("{:x}\r\n", chunk.len()).bytes());
        sent.extend_from_slice(chunk);
        sent.extend(b"\r\n");
    }
    sent.extend(b"0\r\n\r\n");
    sent
}

/// Answers with this head and body, and keeps the connection if it is to.
fn saying(headers: &str, body: &[u8], keeps: bool) -> Tracker {
    let answer = [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat();
    Tracker::serving(move |_, _, mut connection| {
        let _ = connection.write_all(&answer);
        if keeps {
            let _ = connection.read(&mut [0]);
            thread::sleep(Duration::from_secs(60));
        }
    })
}

#[test]
fn the_body_decides_whatever_the_headers_say() {
    let plain = reply();
    let bodies = [
        plain.clone(),
        gzip(&plain),
        zlib(&plain),
        deflate(&plain),
        gzip(&gzip(&plain)),
        zlib(&gzip(&plain)),
    ];
    let encodings =
        ["", "Content-Encoding: \r\n", "content-encoding: none\r\n", "Content-Encoding: utf-8\r\n"]
            .into_iter()
            .chain([
                "Content-Encoding: identity\r\n",
                "Content-Encoding: x-gzip\r\n",
                "Content-Encoding: gzip\r\n",
            ])
            .chain([
                "Content-Encoding: deflate\r\n",
                "Content-Encoding: br\r\n",
                "Content-Encoding: gzip, gzip\r\n",
            ]);
    for encoding in encodings {
        for body in &bodies {
            for (headers, body) in [
                (encoding.to_owned(), body.clone()),
                (format!("{encoding}Content-Length: {}\r\n", body.len()), body.clone()),
                (format!("{encoding}Transfer-Encoding: chunked\r\n"), chunked(body)),
            ] {
                let peers = announce(&saying(&headers, &body, false).url()).map(|reply| reply.peers);
                assert_eq!(peers, Ok(vec![PEER.parse().unwrap()]), "{headers:?}");
            }
        }
    }
}

#[test]
fn lengths_that_are_wrong_cost_a_moment_at_most() {
    let body = reply();
    let cases = [
        ("longer, then closed", format!("Content-Length: {}\r\n", body.len() + 9), body.clone(), false),
        ("longer, and kept", format!("Content-Length: {}\r\n", body.len() + 9), body.clone(), true),
        ("shorter", "Content-Length: 9\r\n".to_owned(), body.clone(), false),
        ("shorter, and kept", "Content-Length: 9\r\n".to_owned(), body.clone(), true),
        ("none, and kept", String::new(), body.clone(), true),
        ("packed, none, and kept", String::new(), gzip(&body), true),
        ("no chunks, but said so", "Transfer-Encoding: chunked\r\n".to_owned(), body.clone(), false),
    ];
    for (name, headers, body, keeps) in cases {
        let start = Instant::now();
        let peers = announce(&saying(&headers, &body, keeps).url()).map(|reply| reply.peers);
        assert_eq!(peers, Ok(vec![PEER.parse().unwrap()]), "{name}");
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn a_bomb_and_what_cannot_be_unpacked_are_errors() {
    let bomb = gzip(&[b"d1:x99999999:".as_slice(), &vec![0; 16 * TRACKER_REPLY_LEN_MAX]].concat());
    assert!(bomb.len() < TRACKER_REPLY_LEN_MAX);
    for body in [bomb.clone(), gzip(&bomb), gzip(b"<html>")] {
        assert!(matches!(announce(&saying("", &body, false).url()), Err(TrackerError::Reply(_))));
    }
    let brotli = saying("Content-Encoding: br\r\n", b"\x0b\x02\x80de\x03", false);
    let encoding = "br".to_owned();
    assert_eq!(announce(&brotli.url()), Err(TrackerError::Http(HttpError::Compressed { encoding })));
}

#[test]
fn a_torrent_is_fetched_by_its_url() {
    let torrent =
        fs::read(Content::single("x", 40_000, 16_384).torrent(&temp_dir("fetch").path().join("t"), &[]));
    let torrent = torrent.unwrap();
    for body in [torrent.clone(), gzip(&torrent), deflate(&torrent)] {
        assert_eq!(fetch::torrent(&saying("", &body, false).url(), SOON).unwrap(), torrent);
    }
    let page = saying("", b"<html>", false);
    assert_eq!(fetch::torrent(&page.url(), SOON).unwrap(), b"<html>", "the caller says what it is not");
    let missing = Tracker::saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(fetch::torrent(&missing.url(), SOON).unwrap_err().to_string(), "HTTP error 404 Not Found");
    assert!(fetch::torrent("udp://127.0.0.1:1/", SOON).is_err());
}

/// A server that keeps the heads of all requests.
struct Server {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets each head with the connection.
    fn start(
        ip: &str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&heads), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                thread::spawn(move || match tls {
                    None => Self::serve(connection, &log, &*answer),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        Self::serve(StreamOwned::new(session, connection), &log, &*answer);
                    }
                });
            }
        });
        Self { addr, heads }
    }

    fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> Vec<u8>) {
        let Some(head) = read_head(&mut stream) else { return };
        log.lock().unwrap().push(head.clone());
        // Whoever does not like the certificate is gone by now.
        let _ = stream.write_all(&answer(&head)).and_then(|()| stream.flush());
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// The program asked for the peers of a torrent with these trackers.
fn peers(folder: &Path, trackers: &[&str]) -> Program {
    let torrent = Content::single("x", 40_000, 16_384).torrent(&folder.join("t"), trackers);
    ringtide(["peers".as_ref(), torrent.as_os_str()])
}

#[test]
fn a_user_is_authorized_and_not_passed_on() {
    let dir = temp_dir("authorization");
    let other = Server::start("127.0.0.1", None, |_| ok(&reply()));
    let location = format!("http://{}/elsewhere", other.addr);
    let server = Server::start("127.0.0.1", None, move |head| {
        let to = if head.starts_with("GET /announce") { "/again" } else { location.as_str() };
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n").into_bytes()
    });
    let url = format!("http://Aladdin:open%20sesame@{}/announce", server.addr);
    peers(dir.path(), &[&url]).run().assert_prints(format!("{PEER}\n"));
    let is_told = |head: &String| head.contains("\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n");
    assert_eq!(server.heads().iter().take(2).map(is_told).collect::<Vec<_>>(), [true, true]);
    assert!(!other.heads()[0].contains("uthorization"), "{:?}", other.heads());
}

#[test]
fn secrets_of_urls_reach_no_terminal() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let dir = temp_dir("secrets");
    let refusing = Tracker::replying("d14:failure reason2:noe");
    let warning = Tracker::replying(b"d8:intervali60e5:peers6:\x7f\0\0\x01\x1a\xe115:warning message2:ohe");
    let leading = Tracker::saying(format!("HTTP/1.1 301 x\r\nLocation: ftp://h/{KEY}\r\n\r\n"));
    let with = |tracker: &Tracker| format!("http://me:hush@{}/{KEY}/announce?passkey=shh", tracker.addr());
    for (tracker, code) in [(&refusing, 3), (&warning, 0), (&leading, 3)] {
        for arguments in [&["peers", "t"][..], &["peers", "--scrape", "t"]] {
            let url = with(tracker);
            Content::single("x", 40_000, 16_384).torrent(&dir.path().join("t"), &[&url]);
            let run = ringtide(arguments).within(dir.path()).env("RUST_LOG", "trace").run();
            assert!(code == run.code.unwrap() || arguments.len() == 3, "{run:?}");
            let text = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert!(text.contains(&tracker.addr().to_string()), "{text}");
            for secret in ["hush", "shh", KEY] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
    }
}

/// What signs for servers, and a place where it is trusted.
struct Issuer {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Issuer {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server with a certificate for these names until the end of that year.
    fn server(&self, ip: &str, names: &[&str], year: i32) -> Server {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        serve_tls(ip, cert.der().clone(), &key)
    }
}

fn serve_tls(ip: &str, cert: rustls::pki_types::CertificateDer<'static>, key: &KeyPair) -> Server {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
    Server::start(ip, Some(Arc::new(config)), |_| ok(&reply()))
}

#[test]
fn certificates_are_trusted_as_the_system_says() {
    let dir = temp_dir("trust");
    let issuer = Issuer::new();
    let trusted = dir.path().join("trusted.pem");
    fs::write(&trusted, issuer.pem()).unwrap();
    // As `c_rehash` names them.
    let folder = dir.path().join("certs");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("0a1b2c3d.0"), issuer.pem()).unwrap();
    let places = [("SSL_CERT_FILE", &trusted), ("SSL_CERT_DIR", &folder)];
    let v4 = issuer.server("127.0.0.1", &["127.0.0.1", "localhost"], 2200);
    let v6 = issuer.server("[::1]", &["::1"], 2200);
    let urls = [
        format!("127.0.0.1:{}", v4.addr.port()),
        format!("localhost:{}", v4.addr.port()),
        v6.addr.to_string(),
    ];
    for (variable, place) in places {
        for host in &urls {
            let program = peers(dir.path(), &[&format!("https://{host}/announce")]);
            let program = program
                .env("SSL_CERT_FILE", "")
                .env("SSL_CERT_DIR", "")
                .env(variable, place.to_str().unwrap());
            program.run().assert_prints(format!("{PEER}\n"));
        }
    }
    let fails = |host: &str, words: &str| {
        let program = peers(dir.path(), &[&format!("https://{host}/announce")]);
        program
            .env("SSL_CERT_DIR", "")
            .env("SSL_CERT_FILE", trusted.to_str().unwrap())
            .run()
            .assert_fails(3, words);
    };
    let expired = issuer.server("127.0.0.1", &["127.0.0.1"], 2001);
    fails(&expired.addr.to_string(), "its certificate has expired");
    fails(&issuer.server("127.0.0.1", &["other.example"], 2200).addr.to_string(), "for another name");
    let stranger = Issuer::new().server("127.0.0.1", &["127.0.0.1"], 2200);
    fails(&stranger.addr.to_string(), "from nobody who is trusted here; SSL_CERT_FILE");
    fails(&greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n").to_string(), "does not speak TLS; try http instead");
    fails(&greeting(b"").to_string(), "it closed the connection instead of beginning TLS");
    for server in [expired, stranger] {
        assert!(server.heads().is_empty(), "the request went to whom nobody trusts");
    }
}

/// Says this to whoever connects, hears what he has to say, and closes.
fn greeting(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(bytes);
        }
    });
    addr
}

/// What `openssl req -x509` makes: it signs for itself, and says that it may sign for others.
#[test]
fn a_certificate_that_is_trusted_itself_serves() {
    let dir = temp_dir("self-signed");
    for (year, expected) in [(2200, None), (2001, Some("has expired"))] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let trusted = dir.path().join("trusted.pem");
        let server = serve_tls("127.0.0.1", cert.der().clone(), &key);
        let ask = |host: &str, pem: &str| {
            fs::write(&trusted, pem).unwrap();
            let program = peers(dir.path(), &[&format!("https://{host}:{}/", server.addr.port())]);
            program.env("SSL_CERT_DIR", "").env("SSL_CERT_FILE", trusted.to_str().unwrap()).run()
        };
        match expected {
            None => ask("localhost", &cert.pem()).assert_prints(format!("{PEER}\n")),
            Some(words) => drop(ask("localhost", &cert.pem()).assert_fails(3, words).to_owned()),
        }
        if expected.is_none() {
            ask("127.0.0.1", &cert.pem()).assert_fails(3, "for another name");
            ask("localhost", &Issuer::new().pem()).assert_fails(3, "from nobody who is trusted here");
        }
    }
}

#[test]
fn proxies_of_the_environment_are_gone_through() {
    let dir = temp_dir("proxy");
    let proxy = Server::start("127.0.0.1", None, |_| ok(&reply()));
    let value = format!("http://user:p%40ss@{}", proxy.addr);
    // Nobody can look this name up; the proxy can.
    let url = "http://tracker.invalid:81/announce";
    peers(dir.path(), &[url]).env("http_proxy", &value).run().assert_prints(format!("{PEER}\n"));
    let head = proxy.heads()[0].clone();
    assert!(head.starts_with("GET http://tracker.invalid:81/announce?info_hash="), "{head}");
    assert!(head.contains("\r\nHost: tracker.invalid:81\r\n"), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n"), "{head}");
    let direct = Tracker::replying(reply());
    let count = proxy.heads().len();
    peers(dir.path(), &[&direct.url()])
        .env("http_proxy", &value)
        .env("no_proxy", "example.org,127.0.0.0/8")
        .run()
        .assert_prints(format!("{PEER}\n"));
    peers(dir.path(), &[&direct.url()]).env("HTTP_PROXY", &value).run().assert_prints(format!("{PEER}\n"));
    assert_eq!(proxy.heads().len(), count, "the proxy was asked");
    let run = peers(dir.path(), &[&direct.url()]).env("all_proxy", "socks5://user:hush@127.0.0.1:1").run();
    let line = run.assert_fails(3, "of all_proxy: proxies of kind socks5 are not supported");
    assert!(!line.contains("hush"), "{line}");
    let dead = format!("http://{}", dead_addr());
    peers(dir.path(), &[&direct.url()]).env("http_proxy", &dead).run().assert_fails(3, "refused");
}

/// Passes connections on to where it is asked to, and keeps what it was asked.
fn tunnel() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heads);
    thread::spawn(move || {
        for mut near in listener.incoming().map_while(Result::ok) {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let Some(head) = read_head(&mut near) else { return };
                let to = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(head);
                let Ok(mut far) = TcpStream::connect(to) else {
                    return drop(near.write_all(b"HTTP/1.1 502 Not There\r\n\r\n"));
                };
                near.write_all(b"HTTP/1.1 200 Connected\r\nX: y\r\n\r\n").unwrap();
                let (mut from, mut back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut far));
                let _ = std::io::copy(&mut back, &mut near);
            });
        }
    });
    (addr, heads)
}

#[test]
fn https_goes_through_a_proxy_in_a_tunnel() {
    let dir = temp_dir("tunnel");
    let issuer = Issuer::new();
    let trusted = dir.path().join("trusted.pem");
    fs::write(&trusted, issuer.pem()).unwrap();
    let server = issuer.server("127.0.0.1", &["127.0.0.1"], 2200);
    let (proxy, heads) = tunnel();
    let ask = |url: &str| {
        let program = peers(dir.path(), &[url]).env("https_proxy", &proxy.to_string());
        program.env("SSL_CERT_DIR", "").env("SSL_CERT_FILE", trusted.to_str().unwrap()).run()
    };
    ask(&format!("https://u:pw@{}/announce", server.addr)).assert_prints(format!("{PEER}\n"));
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.addr)), "{head}");
    assert!(!head.contains("uthorization"), "{head}");
    assert!(server.heads()[0].contains("\r\nAuthorization: Basic dTpwdw==\r\n"));
    ask(&format!("https://{}/announce", dead_addr()))
        .assert_fails(3, "it answers with HTTP error 502 Not There");
}

#[test]
fn peers_with_names_are_looked_up_in_their_place() {
    let dir = temp_dir("names");
    let tracker = Tracker::replying(
        "d8:intervali60e5:peersld2:ip7:1.1.1.14:porti1eed2:ip9:localhost4:porti2ee\
         d2:ip9:127.0.0.34:porti3eed2:ip12:nope.invalid4:porti4eed2:ip5:[::1]4:porti5eeee",
    );
    let run = peers(dir.path(), &[&tracker.url()]).run();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(
        ["127.0.0.1:2", "[::1]:2"]
            .iter()
            .any(|second| { text == format!("1.1.1.1:1\n{second}\n127.0.0.3:3\n[::1]:5\n") }),
        "{text}"
    );
}

/// A tracker that names everybody who has announced, whoever asks, and another.
fn remembering() -> Tracker {
    Tracker::start(|request, _| {
        let own = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 9), request.number("port") as u16));
        Some(ok(&compact(&[own, PEER.parse().unwrap()])))
    })
}

fn events(tracker: &Tracker) -> Vec<String> {
    tracker.requests().iter().map(Request::event).collect()
}

#[test]
fn peers_shows_others_only_and_leaves_nothing_behind() {
    let dir = temp_dir("phantom");
    let (tracker, mute) = (remembering(), Tracker::silent());
    peers(dir.path(), &[&tracker.url()]).run().assert_prints(format!("{PEER}\n"));
    assert_eq!(events(&tracker), ["", "stopped"]);
    let requests = tracker.requests();
    assert_eq!(requests[0].bytes("peer_id"), requests[1].bytes("peer_id"));
    assert_eq!(requests[0].number("port"), requests[1].number("port"));
    assert_eq!(requests[1].number("numwant"), 0);
    // One that has heard and not answered is told as well, and that takes no long.
    let run = peers(dir.path(), &[&mute.url(), &tracker.url()]).run();
    run.assert_prints(format!("{PEER}\n"));
    assert!(run.elapsed < Duration::from_secs(4), "{:?}", run.elapsed);
    let told = wait_for(SOON, || (events(&mute) == ["", "stopped"]).then_some(()));
    assert!(told.is_some() || events(&mute).is_empty(), "{:?}", events(&mute));
}

#[test]
fn an_interrupted_question_is_taken_back() {
    let dir = temp_dir("interrupted");
    let link = |tracker: &Tracker| {
        let url = tracker.url().replace(':', "%3A").replace('/', "%2F");
        format!("magnet:?xt=urn:btih:{}&tr={url}", "ab".repeat(20))
    };
    let (mute, silent) = (Tracker::silent(), Tracker::replying("d8:intervali1800e5:peers0:e"));
    Content::single("x", 40_000, 16_384).torrent(&dir.path().join("t"), &[&mute.url()]);
    let links = [link(&mute), link(&silent)];
    for (arguments, tracker, first) in [
        (vec!["peers", "t"], &mute, ""),
        (vec!["magnet_info", &links[0]], &mute, "started"),
        (vec!["magnet_info", &links[1]], &silent, "started"),
        (vec!["magnet_handshake", &links[1]], &silent, "started"),
        (vec!["info", &links[1]], &silent, "started"),
        (vec!["magnet_download", "-o", "out", &links[1]], &silent, "started"),
    ] {
        let before = events(tracker).len();
        let running = ringtide(&arguments).within(dir.path()).start();
        assert!(wait_for(SOON, || (events(tracker).len() > before).then_some(())).is_some(), "{arguments:?}");
        let asked = Instant::now();
        running.signal("INT");
        let run = running.wait(SOON);
        assert_eq!(run.code, Some(130), "{run:?}");
        assert!(asked.elapsed() < Duration::from_millis(1500), "{arguments:?}: {:?}", asked.elapsed());
        assert_eq!(events(tracker)[before..], [first, "stopped"], "{arguments:?}");
    }
}

#[test]
fn a_search_that_fails_is_taken_back() {
    let dir = temp_dir("failed");
    let tracker = Tracker::of(&[dead_addr()]);
    let url = tracker.url().replace(':', "%3A").replace('/', "%2F");
    let link = format!("magnet:?xt=urn:btih:{}&tr={url}", "ab".repeat(20));
    for arguments in
        [&["info", "--timeout", "1", &link][..], &["magnet_download", "--timeout", "1", "-o", "out", &link]]
    {
        let before = tracker.requests().len();
        let run = ringtide(arguments).within(dir.path()).run();
        assert_ne!(run.code, Some(0));
        assert_eq!(events(&tracker)[before..], ["started", "stopped"], "{arguments:?}");
    }
    let dead =
        ringtide(["info", "--timeout", "1", &link.replace(&url, &dead_url())]).within(dir.path()).run();
    assert!(dead.elapsed < Duration::from_secs(5), "nobody has to be told: {:?}", dead.elapsed);
}

#[test]
fn redirects_lead_no_further_in() {
    in_namespace("redirects_lead_no_further_in", true, || {
        let dir = temp_dir("inward");
        let inside = Tracker::replying(reply());
        let port = inside.addr().port();
        let hosts =
            ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"];
        for host in hosts {
            let location = format!("http://{host}:{port}/announce");
            let from = location.clone();
            let leading = move |_: &str| format!("HTTP/1.1 302 x\r\nLocation: {from}\r\n\r\n").into_bytes();
            let outside = Server::start("192.0.2.1", None, leading.clone());
            let run = peers(dir.path(), &[&format!("http://{}/announce", outside.addr)]).run();
            run.assert_fails(3, "which is inside this machine or its network");
            assert!(!outside.heads().is_empty());
            // From the inside to the inside is nobody's harm.
            let neighbour = Server::start("127.0.0.1", None, leading);
            if host == "127.0.0.1" {
                let run = peers(dir.path(), &[&format!("http://{}/announce", neighbour.addr)]).run();
                run.assert_prints(format!("{PEER}\n"));
            }
        }
        let expected = 2;
        assert_eq!(inside.requests().len(), expected, "only the neighbour's: {:?}", inside.requests());
    });
}
