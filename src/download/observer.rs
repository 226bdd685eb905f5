//! What a download tells of itself while it runs, for whoever shows it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::shared::PeerState;

/// Where a download stands.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Bytes verified, those found in place among them.
    pub done: u64,
    /// Bytes wanted.
    pub total: u64,
    /// Bytes that were in place before.
    pub kept: u64,
    /// Bytes received from peers in this run, whatever they were.
    pub received: u64,
    /// Peers connected.
    pub peers: usize,
    /// Those of them that have sent something of use within the last few seconds.
    pub sending: usize,
    /// Whether every piece that is missing is being fetched.
    pub is_endgame: bool,
    /// Who is asked for peers.
    pub sources: Sources,
    /// The wait for something to come.
    pub wait: Wait,
}

/// How the search for what a magnet link stands for goes.
#[derive(Clone, Copy, Debug)]
pub struct Searching {
    /// Peers connected.
    pub peers: usize,
    /// Bytes of the metadata that have come, and of how many, as far as a peer has told.
    pub metadata: Option<(u64, u64)>,
    /// Who is asked for peers.
    pub sources: Sources,
    /// The wait for something to come.
    pub wait: Wait,
}

/// Who is asked for peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Trackers that the torrent names.
    pub trackers: usize,
    /// Whether the DHT is.
    pub dht: bool,
    /// Whether the local network is.
    pub lsd: bool,
}

/// A time in which nothing came that is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wait {
    /// How long it has lasted.
    pub lasted: Duration,
    /// The download gives up after so long; `None` for never.
    pub limit: Option<Duration>,
}

impl Wait {
    /// How long it may still last; `None` for ever.
    pub fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.lasted))
    }

    /// Whether it has lasted too long.
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.lasted > limit)
    }
}

/// The peers of a download, those that have sent the most first.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    /// At most [`PEERS_SHOWN_MAX`].
    pub peers: Vec<PeerLine>,
    /// How many more there were.
    pub others: usize,
}

/// Peers in a [`PeerTable`].
pub const PEERS_SHOWN_MAX: usize = 50;

/// What became of one peer.
#[derive(Clone, Debug)]
pub struct PeerLine {
    /// Where it is.
    pub addr: SocketAddr,
    /// The name of its program, as it says, or `None` where no connection came about. Any characters may be in it.
    pub client: Option<String>,
    /// What it does; `None` when the connection is over.
    pub state: Option<PeerState>,
    /// Bytes a second: of late, or of the whole connection when that is over.
    pub rate: u64,
    /// Bytes of blocks that went to their place.
    pub useful: u64,
    /// Bytes of blocks that were not needed.
    pub wasted: u64,
    /// Blocks that were received straight into their place.
    pub in_place: u64,
    /// Why the last connection ended, if it did.
    pub reason: Option<String>,
}

/// Is told how it goes, a few times a second.
pub trait Observer {
    /// The peers of a magnet link are being looked for, and asked what it stands for.
    fn searching(&mut self, searching: &Searching);
    /// What was there before is being checked: so many bytes of so many.
    fn checking(&mut self, done: u64, total: u64);
    /// The download is running.
    fn downloading(&mut self, snapshot: &Snapshot);
    /// Everything is verified, and with `sync` it is waited for that it is on the disk.
    fn finishing(&mut self, _sync: bool) {}
    /// Something the user should know, as one line.
    fn notice(&mut self, text: &str);
    /// Whether a table of the peers is wanted: now, or when the download `is_over`.
    fn wants_peers(&mut self, _is_over: bool) -> bool {
        false
    }
    /// The table that was wanted.
    fn peers(&mut self, _table: &PeerTable) {}
}
