//! opentracker, over HTTP and UDP on one port of 127.0.0.1.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::payload::Payload;
use super::process::{Process, wait_for};
use super::workspace;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long clients may take to announce themselves.
const ANNOUNCE_LIMIT: Duration = Duration::from_secs(60);

/// How often a start is tried again with another port.
const START_TRIES_MAX: u32 = 3;

/// A running tracker that knows the torrents it was started for.
pub struct Tracker {
    process: Process,
    addr: SocketAddr,
    _home: TempDir,
}

impl Tracker {
    /// Starts a tracker for these payloads: Debian's opentracker serves only what its whitelist names.
    pub fn start(payloads: &[&Payload]) -> Self {
        for _ in 0..START_TRIES_MAX {
            if let Some(tracker) = Self::try_start(payloads) {
                return tracker;
            }
        }
        panic!("opentracker did not come up in {START_TRIES_MAX} tries");
    }

    fn try_start(payloads: &[&Payload]) -> Option<Self> {
        let home = workspace::temp_dir("opentracker");
        // Started by root it changes its root to this directory and gives up its rights; started by anybody else it
        // only changes into it. A relative path to the whitelist is right in both cases.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
        let whitelist: String = payloads.iter().map(|payload| hex(&payload.info_hash) + "\n").collect();
        fs::write(home.path().join("whitelist"), whitelist).expect("the whitelist is written");
        let port = workspace::free_port(Ipv4Addr::LOCALHOST.into());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = home.path().join("opentracker.conf");
        let text = format!(
            "listen.tcp_udp {addr}\naccess.whitelist whitelist\ntracker.rootdir {}\n",
            home.path().display()
        );
        fs::write(&config, text).expect("the configuration is written");
        let mut command = Command::new("opentracker");
        command.arg("-f").arg(&config);
        let log = home.path().join("log");
        let mut process = Process::spawn("opentracker", &mut command, &log)
            .unwrap_or_else(|error| panic!("opentracker: {error}; scripts/install_clients.sh installs it"));
        wait_for(START_LIMIT, || match process.exited() {
            Some(_) => Some(false),
            None => TcpStream::connect(addr).is_ok().then_some(true),
        })?
        .then_some(Self { process, addr, _home: home })
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// The announce URL of BEP 15.
    pub fn udp_url(&self) -> String {
        format!("udp://{}/announce", self.addr)
    }

    /// Waits until it knows this many peers of a torrent.
    pub fn wait_for_peers(&self, payload: &Payload, count: u64) {
        let found = wait_for(ANNOUNCE_LIMIT, || (self.peer_count(payload) >= count).then_some(()));
        if found.is_none() {
            let known = self.scrape(payload.info_hash);
            panic!("the tracker has {known:?} peers for {}, expected {count}", payload.name);
        }
    }

    /// How many peers of a torrent it knows.
    pub fn peer_count(&self, payload: &Payload) -> u64 {
        self.scrape(payload.info_hash).unwrap_or(0)
    }

    /// How many peers, seeders or not, it has for a torrent.
    fn scrape(&self, info_hash: [u8; 20]) -> io::Result<u64> {
        let escaped = info_hash.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02x}");
            text
        });
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        write!(stream, "GET /scrape?info_hash={escaped} HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(integer_after(&answer, "8:completei") + integer_after(&answer, "10:incompletei"))
    }
}

/// The integer that follows the first `key`; 0 when there is none.
fn integer_after(text: &str, key: &str) -> u64 {
    let digits = text.split_once(key).and_then(|(_, rest)| rest.split_once('e'));
    digits.and_then(|(digits, _)| digits.parse().ok()).unwrap_or(0)
}

/// Lower case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
