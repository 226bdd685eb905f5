//! A whole download: opens the output, keeps what is there, finds peers, runs the cores, and says how it ended.
//!
//! The calling thread is the control thread. It decides whom to dial and when to give up, a few times a second, and
//! never touches the data: that goes from the rings to the output to the verifier.

mod callers;
mod check;
mod control;
mod haul;
mod hearsay;
mod look;
mod metadata;
mod observer;
mod patience;
mod resume;
mod roster;
mod search;
mod stream;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::look::Looked;
pub use self::metadata::{Resolved, recall, resolve, shake_hands};
pub use self::observer::{
    Observer, PEERS_SHOWN_MAX, PeerLine, PeerTable, Searching, Snapshot, Sources, Wait,
};
pub use self::patience::Patience;
use self::resume::{Known, Notes};
pub use self::search::{DhtReach, HOSTS_MAX, Reach, Search};
use self::stream::Stream;
use crate::discovery::announcer::{AnnounceConfig, Farewell, Timing};
use crate::disk::{self, DiskError, Existing, Io, MetaFile, Output, Plan, Site, Target, Verdict};
use crate::error::{Error, Progress};
use crate::meta::geometry::PieceIndex;
use crate::meta::names::Rules;
use crate::meta::torrent::{FileEntry, InfoHash, Metainfo};
use crate::net::backend::Backend;
use crate::net::core;
use crate::net::listener::Listener;
use crate::os::random;
use crate::os::stop::{self, Unsettled};
use crate::swarm::bitfield::Bitfield;
use crate::swarm::book::MANUAL_MAX;
pub use crate::swarm::book::{NotDialable, check_dialable};

/// The port told to trackers by a client that listens nowhere: they want one.
const PORT: u16 = 6881;

/// How often what is verified is synced and recorded, as a rule. Downloads that take less pay nothing for it.
pub const RECORD_EVERY: Duration = Duration::from_secs(5);

/// Peers that a request may name.
pub const PEERS_MAX: usize = MANUAL_MAX;

/// What to download, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// The file that it was read from, which is never written; `None` where there is none.
    pub torrent: Option<PathBuf>,
    /// Where it goes: a file, or for a torrent of several files a folder.
    pub output: PathBuf,
    /// Only this piece, into a file of its own.
    pub piece: Option<PieceIndex>,
    /// The torrent file of what a magnet link stands for, to be kept beside the output for a later run; see [`recall`].
    pub metafile: Option<Arc<[u8]>>,
    /// What to do with an output that is there already.
    pub existing: Existing,
    /// How the output is written.
    pub io: Io,
    /// How bytes get from sockets to memory; `None` for io_uring where there is one, and epoll elsewhere.
    pub backend: Option<Backend>,
    /// Whether to wait until everything is on the disk.
    pub sync: bool,
    /// Cores to use at most, at least 1.
    pub threads: usize,
    /// Where peers come from, and how they are talked to.
    pub reach: Reach,
    /// How often what is verified is written down for a later run: see [`RECORD_EVERY`].
    pub record_every: Duration,
    /// When to give up if nothing comes.
    pub patience: Patience,
}

/// Whether connections to peers are encrypted ([`crate::wire::mse`]), which hides the protocol from networks that
/// hinder it and costs a copy and a cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// None is.
    Off,
    /// Those to peers that do not answer otherwise, and from peers that begin so.
    #[default]
    Prefer,
    /// All are, whoever dials.
    Require,
}

impl Encryption {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

impl FromStr for Encryption {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Off, Self::Prefer, Self::Require]
            .into_iter()
            .find(|encryption| encryption.name() == name)
            .ok_or_else(|| format!("'{name}' is not prefer, require or off"))
    }
}

/// How a download went.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Bytes wanted.
    pub total: u64,
    /// Bytes that were there before and were kept.
    pub kept: u64,
    /// Bytes that were there before and were hashed.
    pub checked: u64,
    /// Bytes that were received and not needed.
    pub wasted: u64,
    /// Blocks that were received straight into their place.
    pub hits: u64,
    /// Blocks that came through the decoder.
    pub misses: u64,
    /// Receives that brought something.
    pub receives: u64,
    /// How bytes got from sockets to memory.
    pub backend: Backend,
    /// From the start to the last verified piece.
    pub elapsed: Duration,
    /// The part of that in which something was fetched.
    pub fetching: Duration,
}

impl Summary {
    /// Adds a further pass, in which all that is there by now is kept.
    fn add(&mut self, pass: &Self) {
        if self.total == 0 {
            self.kept = pass.kept;
        }
        self.total = pass.total;
        self.backend = pass.backend;
        self.fetching += pass.fetching;
        self.wasted += pass.wasted;
        self.hits += pass.hits;
        self.misses += pass.misses;
        self.receives += pass.receives;
    }
}

/// A download that is done. The trackers are being told.
#[derive(Debug)]
pub struct Finished {
    /// How it went.
    pub summary: Summary,
    /// How the output was written.
    pub io: Io,
    /// The CPU time of a GiB of pages for the map, as measured last; `None` where it was not.
    pub page_price: Option<Duration>,
    farewell: Option<Farewell>,
}

impl Finished {
    /// Waits until the trackers have heard of the end, for less than a second. To be called last: a process that exits
    /// before leaves them to find out by themselves.
    pub fn wait_for_trackers(self) {
        if let Some(farewell) = self.farewell {
            farewell.wait();
        }
    }
}

/// A signal that asks for the end; 0 for none.
pub type Interrupt = Arc<AtomicUsize>;

/// Runs a download to its end, with the peers of the search that found out what it is, if there was one.
///
/// # Errors
/// [`Error`] of every kind but usage and reading. What was verified stays in place and is kept by the next run; when
/// nothing was, whatever this run made is removed.
pub fn run(
    request: &Request,
    search: Option<Search>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Finished, Error> {
    run_with(request, None, search, interrupt, observer)
}

/// Runs a download of a single file, or of a piece, whose bytes go to standard output in order, each verified. The
/// output of the request does not count, and nothing is kept for a later run.
///
/// # Errors
/// Those of [`run`], [`Error::Usage`] for several files or a terminal, and [`Error::Stdout`] where nobody reads any
/// more.
pub fn to_stdout(
    request: &Request,
    search: Option<Search>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Finished, Error> {
    let stream = Stream::start(request)?;
    let request = Request {
        output: stream.path(),
        existing: Existing::Keep,
        sync: false,
        metafile: None,
        ..request.clone()
    };
    run_with(&request, Some(stream), search, interrupt, observer)
}

fn run_with(
    request: &Request,
    stream: Option<Stream>,
    search: Option<Search>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Finished, Error> {
    let unsettled = Unsettled::new();
    let started = Instant::now();
    let backend = backend(request, observer)?;
    let Metainfo { info_hash, private, .. } = *request.metainfo;
    let mut search = match search {
        Some(search) => search,
        None => Search::new(info_hash, private, &request.reach)?,
    };
    search.know(&request.metainfo);
    if request.metainfo.symlinks > 0 {
        observer.notice("symbolic links of the torrent are left out: they could lead anywhere");
    }
    let opened = stop::heeding(interrupt, || open(request, stream.is_none(), interrupt, observer));
    let Ready { output, notes, have, known, checked } =
        opened.map_err(|error| ended(error, interrupt, request, 0))?;
    if request.sync {
        output.write_back_early();
    }
    let stream = stream.map(RefCell::new);
    let mut run = Run { request, backend, output, notes, stream, started, interrupt };
    let made = keep_metafile(request, observer);
    let fetched = run.fetch(&mut search, have, known, observer);
    // Where nothing is left of the output, nothing stays beside it.
    if fetched.is_err() && request.output.symlink_metadata().is_err() {
        made.iter().for_each(MetaFile::remove);
    }
    drop(unsettled);
    let farewell = search.finish(fetched.as_ref().is_ok_and(|summary| summary.kept < summary.total));
    let mut summary = match fetched {
        Ok(summary) => summary,
        Err(error) => {
            farewell.into_iter().for_each(Farewell::wait);
            return Err(error);
        }
    };
    if let Err(error) = run.finish(&mut summary, observer) {
        farewell.into_iter().for_each(Farewell::wait);
        return Err(error);
    }
    summary.checked += checked;
    let (io, page_price) = (run.output.io(), run.output.page_price());
    Ok(Finished { summary, io, page_price, farewell })
}

/// What a run works on.
struct Run<'a> {
    request: &'a Request,
    backend: Backend,
    output: Arc<Output>,
    notes: Option<Notes>,
    stream: Option<RefCell<Stream>>,
    started: Instant,
    interrupt: &'a Interrupt,
}

impl Run<'_> {
    /// Fetches what is missing, until all is verified.
    fn fetch(
        &self,
        search: &mut Search,
        mut have: Bitfield,
        mut known: Known,
        observer: &mut dyn Observer,
    ) -> Result<Summary, Error> {
        let mut sum = Summary::default();
        loop {
            let (done, ended) = control::run(self, search, &have, &known, observer);
            let summary = match ended {
                Err(error) if done == 0 => {
                    let error = undo(&self.output, error);
                    // After that there are descriptors for it. A record of an earlier run stays, where it is all that
                    // tells whose the half-done files are.
                    if !known.names_files {
                        self.notes.iter().for_each(Notes::remove);
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
                Ok(summary) => summary,
            };
            sum.add(&summary);
            let wrong = self.check_provisional(&known.provisional, &mut sum, observer)?;
            if wrong.is_empty() {
                sum.elapsed = self.started.elapsed();
                return Ok(sum);
            }
            observer.notice("pieces that were recorded have been changed since, and are fetched again");
            have = Bitfield::full(self.request.metainfo.geometry.piece_count());
            for piece in wrong {
                have.clear(piece);
            }
            known = Known::nothing(self.request.metainfo.geometry);
        }
    }

    /// Does what is left once all is verified, and removes the notes.
    fn finish(&mut self, summary: &mut Summary, observer: &mut dyn Observer) -> Result<(), Error> {
        let (request, interrupt) = (self.request, self.interrupt);
        if let Err(error) = self.check_disturbed(summary, observer) {
            self.notes.iter().for_each(Notes::remove);
            return Err(error);
        }
        observer.finishing(request.sync);
        if let Some(stream) = self.stream.take() {
            stream.into_inner().finish(request, interrupt)?;
        }
        let finished = stop::heeding(interrupt, || self.output.finish(request.sync));
        finished.map_err(|error| ended(error, interrupt, request, total(request)))?;
        self.notes.iter().for_each(Notes::remove);
        Ok(())
    }

    /// Hashes the pieces of files that others have written to during the run.
    fn check_disturbed(&self, sum: &mut Summary, observer: &mut dyn Observer) -> Result<(), Error> {
        let mut disturbed = Bitfield::new(self.request.metainfo.geometry.piece_count());
        self.output.disturbed().for_each(|piece| _ = disturbed.set(piece));
        match self.check_provisional(&disturbed, sum, observer)?.first() {
            Some(&wrong) => Err(self.output.disturbance(wrong).into()),
            None => Ok(()),
        }
    }

    /// Hashes the pieces that were taken to be there. Returns those that are not.
    fn check_provisional(
        &self,
        provisional: &Bitfield,
        sum: &mut Summary,
        observer: &mut dyn Observer,
    ) -> Result<Vec<PieceIndex>, Error> {
        if provisional.count_ones() == 0 {
            return Ok(Vec::new());
        }
        let mut pieces: Vec<_> = wanted(self.request).filter(|&piece| provisional.get(piece)).collect();
        let done = bytes_of(self.request, |piece| !provisional.get(piece));
        let read = |at, out: &mut [u8]| self.output.read(at, out);
        let (request, interrupt) = (self.request, self.interrupt);
        let checked = check::pieces(request, &read, &pieces, done, interrupt, observer, &mut |_| ())?;
        sum.checked += checked.bytes;
        pieces.retain(|&piece| !checked.right.get(piece));
        sum.kept =
            sum.kept.saturating_sub(bytes_of(self.request, |piece| pieces.binary_search(&piece).is_ok()));
        Ok(pieces)
    }
}

/// Keeps the torrent file of a link beside the output. Returns it if it was not there before. Nothing depends on it.
fn keep_metafile(request: &Request, observer: &mut dyn Observer) -> Option<MetaFile> {
    let bytes = request.metafile.as_ref().filter(|_| request.piece.is_none())?;
    let file = MetaFile::beside(&request.output)?;
    let written = file.write(bytes).inspect_err(|error| {
        observer.notice(&format!(
            "{} is not written, so a later run asks peers again: {error}",
            file.path().display()
        ));
    });
    written.is_ok_and(|is_new| is_new).then_some(file)
}

/// The backend that was asked for, if it is to be had. Where none was, it is the one that is.
fn backend(request: &Request, observer: &mut dyn Observer) -> Result<Backend, Error> {
    if request.backend == Some(Backend::Epoll) {
        return Ok(Backend::Epoll);
    }
    match core::probe_uring() {
        Ok(()) => Ok(Backend::Uring),
        Err(error) if request.backend.is_none() => Ok(fall_back(error, observer)),
        Err(error) => Err(Error::Uring(error)),
    }
}

/// The other backend, for want of a ring. The user hears why.
fn fall_back(error: io::Error, observer: &mut dyn Observer) -> Backend {
    observer.notice(&format!("{}; using epoll instead", Error::Uring(error)));
    Backend::Epoll
}

/// Listens where the user wishes. Who wishes for no certain port can do without any.
fn listen(port: Option<u16>) -> Result<Option<Arc<Listener>>, Error> {
    if port == Some(0) {
        return Ok(None);
    }
    match (Listener::start(port), port) {
        (Ok(listener), _) => Ok(Some(Arc::new(listener))),
        (Err(error), Some(port)) => Err(Error::Port { port, error }),
        (Err(error), None) => {
            tracing::warn!("nobody can dial this client: {error}");
            Ok(None)
        }
    }
}

/// What a run announces of a torrent, and to whom. Without a port it listens nowhere.
pub fn announce_config(metainfo: &Metainfo, peer_id: [u8; 20], port: Option<u16>) -> AnnounceConfig {
    announce_config_of(metainfo.info_hash, metainfo.tiers.clone(), peer_id, port)
}

/// What a run announces of a torrent of which only the name is known, and to whom.
pub fn announce_config_of(
    info_hash: InfoHash,
    tiers: Vec<Vec<String>>,
    peer_id: [u8; 20],
    port: Option<u16>,
) -> AnnounceConfig {
    AnnounceConfig {
        tiers,
        info_hash: info_hash.0,
        peer_id,
        port: port.unwrap_or(PORT),
        key: random::number() as u32,
        seed: random::number(),
        timing: Timing::default(),
    }
}

/// The name of this run among peers, BEP 20 style.
pub fn peer_id() -> [u8; 20] {
    let mut id = *b"-Ri0100-............";
    random::fill(&mut id[8..]);
    id
}

/// An output that can be written, and what is known of it.
struct Ready {
    output: Arc<Output>,
    notes: Option<Notes>,
    /// The pieces that are there; they are sealed.
    have: Bitfield,
    known: Known,
    /// Bytes that were hashed.
    checked: u64,
}

/// Looks at what is there, and makes an output of it, under names that its file system takes.
/// Without notes, nothing is kept for a later run.
fn open(
    request: &Request,
    with_notes: bool,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Ready, Error> {
    let rules = disk::rules(&request.output);
    let error = match open_under(rules, request, with_notes, interrupt, observer) {
        // One that does not say what it is, such as a FUSE file system.
        Err(Error::Disk(error)) if error.is_of_names() && rules == Rules::Linux && !is_one_file(request) => {
            error
        }
        opened => return opened,
    };
    let other = match error {
        DiskError::NameTooLong { .. } => Rules::Ecryptfs,
        _ => Rules::Windows,
    };
    let opened =
        open_under(other, request, with_notes, interrupt, observer).map_err(|second| match second {
            Error::Disk(second) if second.is_of_names() => error.into(),
            second => second,
        })?;
    observer.notice("the file system does not take all names of the torrent; some are changed");
    Ok(opened)
}

fn open_under(
    rules: Rules,
    request: &Request,
    with_notes: bool,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Ready, Error> {
    let site = Site::find(plan(request, rules)?, request.existing, request.torrent.as_deref())?;
    let (notes, known) = if with_notes {
        Notes::open(request, &site, observer)
    } else {
        (None, Known::nothing(request.metainfo.geometry))
    };
    let Looked { mut have, known, verdicts, checked } =
        look::around(request, &site, known, interrupt, observer)?;
    if request.io == Io::Mmap && verdicts.contains(&Verdict::Foreign) {
        observer
            .notice("what is there is replaced piece by piece, each once it is verified: it is not mapped");
    }
    let output = site.make(&verdicts)?;
    for piece in wanted(request) {
        // It can be refused by a bug only; then it is fetched once more.
        if have.get(piece) && output.keep(piece).is_err() {
            have.clear(piece);
        }
    }
    let notes = notes.map(|notes| notes.of(&output));
    Ok(Ready { output, notes, have, known, checked })
}

/// Whether the output is one file, whose name is the user's choice.
fn is_one_file(request: &Request) -> bool {
    request.piece.is_some() || request.metainfo.is_single_file
}

fn plan(request: &Request, rules: Rules) -> Result<Plan, Error> {
    let metainfo = &request.metainfo;
    let geometry = metainfo.geometry;
    if let Some(piece) = request.piece {
        return Ok(Plan::piece(&request.output, geometry, piece).with_io(request.io));
    }
    let executable = |path: &PathBuf, file: &FileEntry| file.executable.then(|| path.clone());
    if metainfo.is_single_file {
        let programs = metainfo.files.iter().filter_map(|file| executable(&PathBuf::new(), file));
        return Ok(Plan::file(&request.output, geometry).with_programs(programs).with_io(request.io));
    }
    let paths = metainfo.paths(rules);
    let files = || paths.iter().zip(&metainfo.files);
    let targets = files().map(|(path, file)| {
        let target = if file.pad { Target::Pad } else { Target::File(path.clone()) };
        (target, file.len)
    });
    let programs = files().filter_map(|(path, file)| executable(path, file));
    Ok(Plan::folder(&request.output, geometry, targets)?.with_programs(programs).with_io(request.io))
}

/// The pieces this request is about.
fn wanted(request: &Request) -> impl Iterator<Item = PieceIndex> {
    let geometry = request.metainfo.geometry;
    let only = request.piece;
    geometry.pieces().filter(move |&piece| only.is_none_or(|only| only == piece))
}

/// The bytes of the wanted pieces of which something holds.
fn bytes_of(request: &Request, holds: impl Fn(PieceIndex) -> bool) -> u64 {
    let geometry = request.metainfo.geometry;
    wanted(request).filter(|&piece| holds(piece)).map(|piece| u64::from(geometry.piece_size(piece))).sum()
}

fn total(request: &Request) -> u64 {
    let geometry = request.metainfo.geometry;
    request.piece.map_or(geometry.total_len(), |piece| u64::from(geometry.piece_size(piece)))
}

fn undo(output: &Output, error: Error) -> Error {
    if let Err(undo) = output.undo() {
        tracing::warn!("cannot clean up: {undo}");
    }
    error
}

/// What a failure of the output is to the user, of whose bytes so many are verified: none where he wished for it.
fn ended(error: impl Into<Error>, interrupt: &Interrupt, request: &Request, done: u64) -> Error {
    match error.into() {
        Error::Disk(DiskError::Stopped) => {
            let signal = interrupt.load(Ordering::Relaxed) as i32;
            Error::Interrupted { signal, progress: Progress { done, total: total(request) } }
        }
        error => error,
    }
}

fn check_interrupt(interrupt: &Interrupt, progress: Progress) -> Result<(), Error> {
    match interrupt.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Error::Interrupted { signal: signal as i32, progress }),
    }
}
