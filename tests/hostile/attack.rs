//! A download from hostile peers with an honest one beside them, and all that is asserted of it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::line::Line;
use super::peer::{Gate, Peer, Script, honest};
use crate::common::workspace::temp_dir;
use crate::support::content::Content;
use crate::support::memory::{self, MEMORY_MAX_KIB, Row, Watch};
use crate::support::program::{Run, ringtide};
use crate::support::tracker::Tracker;

/// A download that is not done by then hangs. Most take less than a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Only attacks whose names contain the value of this variable are run.
const ONLY: &str = "RINGTIDE_HOSTILE_CASE";

/// Attacks of a group that run at a time. Most of what they do is waiting.
const AT_A_TIME: usize = 6;

/// What the log says of connections that nobody is to blame for.
const OVER: &str = "the download is over";

/// What it says of those that are banned while they are connected.
const WRONG: &str = "it sent wrong data";

/// What becomes of a hostile peer.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Its first connection is closed for a reason that contains this.
    Closed(&'static str),
    /// The same, for one of several reasons: which one it is depends on when what it sends arrives.
    OneOf(&'static [&'static str]),
    /// It is banned for wrong data.
    Banned,
    /// It is borne to the end.
    Kept,
    /// Whatever. What it does is over only long after the download.
    Whatever,
}

/// Makes the torrent's tracker, given the addresses of the hostile peers and then of the honest ones.
type MakeTracker = Box<dyn FnOnce(&[SocketAddr]) -> Tracker + Send>;

/// A download, and who tries to spoil it.
pub struct Attack {
    name: &'static str,
    content: Content,
    culprits: Vec<(End, Script)>,
    honest: Vec<Script>,
    args: Vec<&'static str>,
    tracker: Option<MakeTracker>,
}

impl Attack {
    /// A download of a few megabytes, with one honest peer as long as no other is named.
    pub fn new(name: &'static str) -> Self {
        // Four blocks a piece, and a last one that is short.
        let content = Content::single("content", 32 * 65_536 + 5_000, 65_536);
        Self { name, content, culprits: Vec::new(), honest: Vec::new(), args: Vec::new(), tracker: None }
    }

    /// Of that content instead.
    pub fn of(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// With a peer that does this, and what is to become of it.
    pub fn by(
        mut self,
        end: End,
        script: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.culprits.push((end, Arc::new(script)));
        self
    }

    /// With an honest peer that serves like that.
    pub fn beside(mut self, script: Script) -> Self {
        self.honest.push(script);
        self
    }

    /// With more arguments for the program.
    pub fn with(mut self, args: &[&'static str]) -> Self {
        self.args.extend(args);
        self
    }

    /// With a tracker that names the peers, not the command line.
    pub fn told_by(mut self, tracker: impl FnOnce(&[SocketAddr]) -> Tracker + Send + 'static) -> Self {
        self.tracker = Some(Box::new(tracker));
        self
    }

    /// Runs it to its end.
    #[track_caller]
    fn run(self) -> Row {
        let Self { name, content, culprits, honest: others, args, tracker } = self;
        let gate = Arc::<Gate>::default();
        let culprits: Vec<(End, Peer)> = culprits
            .into_iter()
            .map(|(end, script)| (end, Peer::start(&content, gate.turn(), script)))
            .collect();
        let others = if others.is_empty() { vec![honest(Duration::ZERO)] } else { others };
        let others: Vec<Peer> =
            others.into_iter().map(|script| Peer::start(&content, gate.no_turn(), script)).collect();
        let addrs: Vec<_> =
            culprits.iter().map(|(_, peer)| peer.addr).chain(others.iter().map(|peer| peer.addr)).collect();

        let dir = temp_dir("hostile");
        let tracker = tracker.map(|make| make(&addrs));
        let urls: Vec<String> = tracker.iter().map(Tracker::url).collect();
        content.torrent(&dir.path().join("t"), &urls.iter().map(String::as_str).collect::<Vec<_>>());
        let mut line: Vec<String> = ["download", "--json", "-q", "-o", "out"].map(str::to_owned).into();
        line.extend(args.iter().map(|&arg| arg.to_owned()));
        if tracker.is_none() {
            line.extend(addrs.iter().flat_map(|addr| ["--peer".to_owned(), addr.to_string()]));
        }
        line.push("t".to_owned());
        let running = ringtide(line).within(dir.path()).env("RUST_LOG", "ringtide=debug").start();
        let watch = Watch::start(running.id());
        let run = running.wait(LIMIT);
        let peak = watch.peak();

        let log = Log(&run);
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{name}: {}", run.stderr);
        assert!(
            fs::read(dir.path().join("out")).expect("there is an output") == *content.bytes,
            "{name}: the content differs"
        );
        assert_eq!(gate.waiting_for(), 0, "{name}: not everybody had his turn\n{}", run.stderr);
        for (end, peer) in &culprits {
            assert!(log.agrees(peer.addr, *end), "{name}: {} is not {end:?}\n{}", peer.addr, run.stderr);
            assert!(peer.connections() > 0, "{name}: {} was not dialed", peer.addr);
        }
        for peer in &others {
            assert!(
                log.agrees(peer.addr, End::Kept),
                "{name}: the honest {} is blamed\n{}",
                peer.addr,
                run.stderr
            );
        }
        let anonymous = peak.anonymous_kib;
        assert!(anonymous <= MEMORY_MAX_KIB, "{name}: {anonymous} KiB of private memory");
        let summary: Value = serde_json::from_slice(&run.stdout).expect("the summary is JSON");
        let wasted = summary["bytes_wasted"].as_u64();
        assert!(wasted.is_some(), "{name}: {summary}");
        let outcome = log.outcome(&culprits.iter().map(|(_, peer)| peer.addr).collect::<Vec<_>>());
        Row { case: name.to_owned(), outcome, wasted, peak, elapsed: run.elapsed }
    }
}

/// Runs all attacks of a group, and puts what became of them into the table. Names those that failed.
pub fn run_all(group: &'static str, attacks: Vec<Attack>) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let attacks = attacks.into_iter().filter(|attack| attack.name.contains(&only));
    let next = AtomicUsize::new(0);
    let attacks: Vec<_> = attacks.map(|attack| (attack.name, std::sync::Mutex::new(Some(attack)))).collect();
    let work = || {
        let mut failed = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, attack)) = attacks.get(place) else { break };
            let attack = attack.lock().expect("nobody panics with it").take().expect("each is run once");
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack.run())) {
                Ok(row) => memory::add(group, &row),
                Err(_) => failed.push(*name),
            }
        }
        failed
    };
    let failed: Vec<&str> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect()
    });
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// What the program has said of its peers.
struct Log<'a>(&'a Run);

impl Log<'_> {
    /// Why the connections to this address have ended, in that order.
    fn reasons(&self, addr: SocketAddr) -> impl Iterator<Item = &str> {
        let closed = format!(" {addr}: closed: ");
        self.0.stderr.lines().filter_map(move |line| {
            let (_, rest) = line.split_once(&closed)?;
            rest.rsplit_once("; ").map(|(reason, _)| reason)
        })
    }

    fn is_banned(&self, addr: SocketAddr) -> bool {
        let banned = format!(" {addr}: banned: ");
        self.0.stderr.lines().any(|line| line.contains(&banned))
    }

    fn agrees(&self, addr: SocketAddr, end: End) -> bool {
        let is_first = |texts: &[&str]| {
            self.reasons(addr).next().is_some_and(|reason| texts.iter().any(|text| reason.contains(text)))
        };
        match end {
            End::Closed(text) => is_first(&[text]) && !self.is_banned(addr),
            End::OneOf(texts) => is_first(texts),
            End::Banned => self.is_banned(addr),
            End::Kept => !self.is_banned(addr) && self.reasons(addr).all(|reason| reason == OVER),
            End::Whatever => true,
        }
    }

    /// What became of these peers, each way once.
    fn outcome(&self, addrs: &[SocketAddr]) -> String {
        if addrs.is_empty() {
            return "the download completed".to_owned();
        }
        let one = |addr: &SocketAddr| match (self.is_banned(*addr), self.reasons(*addr).next()) {
            (true, Some(reason)) if ![OVER, WRONG].contains(&reason) => {
                format!("closed: {reason}; banned: {WRONG}")
            }
            (true, _) => format!("banned: {WRONG}"),
            (false, None | Some(OVER)) => "kept, the download completed".to_owned(),
            (false, Some(reason)) => format!("closed: {reason}"),
        };
        let mut outcomes: Vec<_> = addrs.iter().map(one).collect();
        let count = outcomes.len();
        outcomes.sort();
        outcomes.dedup();
        let several = if outcomes.len() > 3 {
            format!(" and {} other reasons", outcomes.len() - 2)
        } else {
            String::new()
        };
        outcomes.truncate(if several.is_empty() { 3 } else { 2 });
        let peers = if count > 1 { format!("{count} peers, ") } else { String::new() };
        format!("{peers}{}{several}", outcomes.join("; "))
    }
}
