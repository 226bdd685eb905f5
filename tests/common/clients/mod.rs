//! Real clients as seeders.
//!
//! What they have in common is here: a port, a start that is tried again when the port was lost to somebody else, and
//! the wait until the client offers the pieces it should. Its command line and configuration are in its own file.

mod aria2;
mod libtorrent;
mod rtorrent;
mod transmission;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use tempfile::TempDir;

use super::payload::Payload;
use super::probe;
use super::process::{Process, wait_for};
use super::tracker::Tracker;
use super::workspace;

/// How long a client may take to start and to check the hashes of what it has.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// How long a client that was ready may refuse to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How often a start is tried again with another port.
const START_TRIES_MAX: u32 = 3;

/// The clients that the tests know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// transmission-daemon.
    Transmission,
    /// aria2c.
    Aria2,
    /// rtorrent, on rakshasa's libtorrent.
    Rtorrent,
    /// arvidn's libtorrent, through its Python binding.
    Libtorrent,
}

/// Which connections a client takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crypto {
    /// Any.
    Any,
    /// Those that begin encrypted, however they go on.
    Handshake,
    /// Those that are encrypted to their end.
    Rc4,
}

/// What a seeder is asked to do.
pub struct Job<'a> {
    /// The metainfo file.
    torrent: &'a Path,
    /// The download directory.
    data: &'a Path,
    /// Where to listen, and where to connect from.
    addr: SocketAddr,
    /// Whether the content is complete. A seeder of a part must stay one: it does not talk to the addresses
    /// of the other clients, 127.0.0.2 to 127.0.0.5.
    complete: bool,
    /// Which connections it is to take.
    crypto: Crypto,
    /// Whom it connects to, without fetching anything of them; libtorrent only.
    friends: Option<&'a [SocketAddr]>,
    /// A directory for its configuration and state.
    home: PathBuf,
}

impl<'a> Job<'a> {
    /// To offer all that is in `data`, to anybody, from a port and a directory that are to be found yet.
    fn new(torrent: &'a Path, data: &'a Path, ip: IpAddr) -> Self {
        let (addr, home) = (SocketAddr::new(ip, 0), PathBuf::new());
        Self { torrent, data, addr, complete: true, crypto: Crypto::Any, friends: None, home }
    }
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Transmission, Self::Aria2, Self::Rtorrent, Self::Libtorrent];

    /// How its peer ids begin.
    pub const fn peer_id_prefix(self) -> &'static str {
        match self {
            Self::Transmission => "-TR",
            Self::Aria2 => "A2-",
            Self::Rtorrent => "-lt",
            Self::Libtorrent => "-LT",
        }
    }

    /// Its own loopback address, so that nobody takes two clients for one.
    const fn ip(self) -> IpAddr {
        IpAddr::V4(match self {
            Self::Transmission => Ipv4Addr::new(127, 0, 0, 2),
            Self::Aria2 => Ipv4Addr::new(127, 0, 0, 3),
            Self::Rtorrent => Ipv4Addr::new(127, 0, 0, 4),
            Self::Libtorrent => Ipv4Addr::new(127, 0, 0, 5),
        })
    }

    fn command(self, job: &Job<'_>) -> Command {
        match self {
            Self::Transmission => transmission::command(job),
            Self::Aria2 => aria2::command(job),
            Self::Rtorrent => rtorrent::command(job),
            Self::Libtorrent => libtorrent::command(job),
        }
    }
}

/// Starts libtorrent with all content at that address, with more options of its script. It is not waited for.
pub fn start_libtorrent(torrent: &Path, payload: &Payload, addr: SocketAddr, options: &[&str]) -> Process {
    let home = workspace::temp_dir("client").keep();
    let job = Job { addr, home: home.clone(), ..Job::new(torrent, payload.dir(), addr.ip()) };
    let mut command = libtorrent::command(&job);
    Process::spawn("Libtorrent", command.args(options), &home.join("log")).expect("there is a Python")
}

/// A client that offers pieces.
pub struct Seeder {
    /// Which client it is.
    pub client: Client,
    /// Where it listens.
    pub addr: SocketAddr,
    process: Process,
    _home: TempDir,
}

impl Seeder {
    /// Starts a client that has everything, and waits until it offers it.
    pub fn start(client: Client, torrent: &Path, payload: &Payload) -> Self {
        Self::start_at(client, client.ip(), torrent, payload, payload.dir(), payload.piece_count())
    }

    /// The same on `::1`.
    pub fn start_v6(client: Client, torrent: &Path, payload: &Payload) -> Self {
        let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
        Self::start_at(client, ip, torrent, payload, payload.dir(), payload.piece_count())
    }

    /// Starts a client whose download directory `data` holds `piece_count` pieces, and waits until it offers them.
    pub fn start_partial(
        client: Client,
        torrent: &Path,
        payload: &Payload,
        data: &Path,
        piece_count: u32,
    ) -> Self {
        Self::start_at(client, client.ip(), torrent, payload, data, piece_count)
    }

    /// Starts a libtorrent that has `piece_count` pieces in `data`, fetches no others, and connects to its friends.
    fn start_friend(
        torrent: &Path,
        payload: &Payload,
        data: &Path,
        piece_count: u32,
        friends: &[SocketAddr],
    ) -> Self {
        let client = Client::Libtorrent;
        Self::start_as(client, client.ip(), torrent, payload, data, piece_count, Some(friends))
    }

    fn start_at(
        client: Client,
        ip: IpAddr,
        torrent: &Path,
        payload: &Payload,
        data: &Path,
        piece_count: u32,
    ) -> Self {
        Self::start_as(client, ip, torrent, payload, data, piece_count, None)
    }

    fn start_as(
        client: Client,
        ip: IpAddr,
        torrent: &Path,
        payload: &Payload,
        data: &Path,
        piece_count: u32,
        friends: Option<&[SocketAddr]>,
    ) -> Self {
        let complete = piece_count == payload.piece_count();
        let job = Job { complete, friends, ..Job::new(torrent, data, ip) };
        Self::start_until(client, &job, |seeder| seeder.wait_until_ready(payload, piece_count))
    }

    /// Starts a client that has everything and takes only encrypted connections, and waits until the tracker knows it.
    pub fn start_encrypted(
        client: Client,
        crypto: Crypto,
        torrent: &Path,
        payload: &Payload,
        tracker: &Tracker,
    ) -> Self {
        let job = Job { crypto, ..Job::new(torrent, payload.dir(), client.ip()) };
        Self::start_until(client, &job, |seeder| seeder.wait_until_announced(payload, tracker))
    }

    /// Does the job at a free port of its address.
    fn start_until(client: Client, job: &Job<'_>, is_ready: impl Fn(&mut Self) -> bool) -> Self {
        for _ in 0..START_TRIES_MAX {
            let home = workspace::temp_dir("client");
            let addr = SocketAddr::new(job.addr.ip(), workspace::free_port(job.addr.ip()));
            let job = Job { addr, home: home.path().to_owned(), ..*job };
            let log = home.path().join("log");
            let process = Process::spawn(&format!("{client:?}"), &mut client.command(&job), &log)
                .unwrap_or_else(|error| {
                    panic!("{client:?}: {error}; scripts/install_clients.sh installs it")
                });
            let mut seeder = Self { client, addr, process, _home: home };
            if is_ready(&mut seeder) {
                return seeder;
            }
        }
        panic!("{client:?} ended at once in {START_TRIES_MAX} tries");
    }

    /// How many pieces it offers now. Some clients refuse an address for a moment after it left.
    pub fn piece_count(&self, payload: &Payload) -> u32 {
        let look = || probe::look_at(self.addr, payload.info_hash).ok();
        let view = wait_for(ANSWER_LIMIT, look);
        view.unwrap_or_else(|| panic!("{:?} at {} does not answer", self.client, self.addr)).piece_count
    }

    /// True when it offers `piece_count` pieces, false when it ended instead.
    fn wait_until_ready(&mut self, payload: &Payload, piece_count: u32) -> bool {
        let mut last = Err(io::ErrorKind::NotConnected.into());
        let ready = wait_for(READY_LIMIT, || {
            if self.process.exited().is_some() {
                return Some(false);
            }
            last = probe::look_at(self.addr, payload.info_hash).map(|view| view.piece_count);
            matches!(last, Ok(found) if found == piece_count).then_some(true)
        });
        let Some(ready) = ready else {
            panic!("{:?} at {} does not offer {piece_count} pieces, but {last:?}", self.client, self.addr)
        };
        if !ready {
            eprintln!("{:?} ended:\n{}", self.client, self.process.log_tail());
        }
        ready
    }

    /// True when the tracker knows a peer, false when it ended instead.
    fn wait_until_announced(&mut self, payload: &Payload, tracker: &Tracker) -> bool {
        let ready = wait_for(READY_LIMIT, || {
            if self.process.exited().is_some() {
                return Some(false);
            }
            (tracker.peer_count(payload) > 0).then_some(true)
        });
        let Some(ready) = ready else {
            panic!("{:?} at {} does not announce itself", self.client, self.addr)
        };
        if !ready {
            eprintln!("{:?} ended:\n{}", self.client, self.process.log_tail());
        }
        ready
    }
}

/// Four libtorrents, each with a quarter of the pieces and connected to the others.
pub struct Friends {
    /// Where they are.
    pub addrs: Vec<SocketAddr>,
    /// Each with the pieces that it began with.
    seeders: Vec<(Seeder, u32)>,
    _quarters: Vec<TempDir>,
}

impl Friends {
    /// Starts them one after the other and waits until each offers its own pieces, which are runs of seven.
    pub fn start(torrent: &Path, payload: &Payload) -> Self {
        let owner = |piece: u32| piece as usize / 7 % 4;
        let (mut addrs, mut seeders, mut quarters) = (Vec::new(), Vec::new(), Vec::new());
        for quarter in 0..4 {
            let count = (0..payload.piece_count()).filter(|piece| owner(*piece) == quarter).count() as u32;
            let data = payload.partial_copy(|piece| owner(piece) == quarter);
            let seeder = Seeder::start_friend(torrent, payload, data.path(), count, &addrs);
            addrs.push(seeder.addr);
            seeders.push((seeder, count));
            quarters.push(data);
        }
        Self { addrs, seeders, _quarters: quarters }
    }

    /// Asserts that no one has fetched pieces of another.
    pub fn assert_unchanged(&self, payload: &Payload) {
        for (seeder, count) in &self.seeders {
            assert_eq!(seeder.piece_count(payload), *count, "it fetched from the others");
        }
    }
}

/// A DHT of libtorrent sessions, the last of which seeds one torrent.
pub struct DhtSwarm {
    /// Where the nodes are.
    pub addrs: Vec<SocketAddr>,
    _process: Process,
    _home: TempDir,
}

impl DhtSwarm {
    /// Starts `count` nodes and waits until they know each other and the seeder is announced.
    pub fn start(count: usize, torrent: &Path, payload: &Payload) -> Self {
        let home = workspace::temp_dir("dht-swarm");
        let (stdout, stderr) = (home.path().join("stdout"), home.path().join("stderr"));
        let mut command = libtorrent::dht_command(count, torrent, payload.dir());
        let mut process = Process::spawn_split("a DHT of libtorrent", &mut command, &stdout, &stderr)
            .unwrap_or_else(|error| panic!("libtorrent: {error}; scripts/install_clients.sh installs it"));
        let look = || {
            assert!(process.exited().is_none(), "the DHT of libtorrent has ended");
            let said = fs::read_to_string(&stdout).unwrap_or_default();
            said.lines().any(|line| line == "ready").then_some(said)
        };
        let said = wait_for(READY_LIMIT, look).expect("the DHT of libtorrent gets ready");
        let addrs = said.lines().filter_map(|line| line.strip_prefix("node ")?.parse().ok());
        Self { addrs: addrs.collect(), _process: process, _home: home }
    }
}
