//! The command line: one structure and one short function for each subcommand.
//!
//! stdout is an interface: it carries what the CodeCrafters course prescribes and nothing else. Progress, notices and
//! errors go to stderr.

mod args;
mod log;
mod magnet;
mod progress;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use args::{
    Command, Decode, Download, DownloadPiece, Handshake, Info, MagnetDownload, MagnetDownloadPiece, Parsed,
    Peers, Sources, Transfer,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::discovery::announcer::{AnnounceConfig, OnceReply, announce_once, scrape_all};
use crate::discovery::dht::{BOOTSTRAP, cache};
use crate::discovery::tracker::{Scrape, Totals};
use crate::download::{
    self, DhtReach, Finished, HOSTS_MAX, Interrupt, Observer as _, PEERS_MAX, Patience, RECORD_EVERY, Reach,
    Request, Resolved,
};
use crate::error::{Error, Progress};
use crate::hash::Kernel;
use crate::meta::bencode;
use crate::meta::geometry::PieceIndex;
use crate::meta::hex;
use crate::meta::magnet::{PeerAddr, is_magnet};
use crate::meta::text::escape;
use crate::meta::torrent::{METAINFO_LEN_MAX, Metainfo};
use crate::net::close::CloseReason;
use crate::os;
use crate::wire::handshake;

/// How long `handshake` waits for a connection and for the answer, each.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Signals so soon after the first are the same wish: `timeout` and some shells signal the process and then its group.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// Runs the command that the arguments name, the first being the program's own name.
///
/// # Errors
/// What the user should be told, with the exit code of the process.
pub fn run(args: impl Iterator<Item = OsString>) -> Result<(), Error> {
    log::from_environment();
    Kernel::forced().map_err(|error| Error::Usage(error.to_string()))?;
    match args::parse(args.skip(1).collect())? {
        Parsed::Help(text) => print(&text),
        Parsed::Command(Command::Decode(args)) => decode(&args),
        Parsed::Command(Command::Info(args)) => info(&args),
        Parsed::Command(Command::Peers(args)) => peers(&args),
        Parsed::Command(Command::Handshake(args)) => shake_hands(&args),
        Parsed::Command(Command::DownloadPiece(args)) => download_piece(&args),
        Parsed::Command(Command::Download(args)) => download(&args),
        Parsed::Command(Command::MagnetParse(args)) => magnet::parse(&args),
        Parsed::Command(Command::MagnetHandshake(args)) => magnet::shake_hands(&args),
        Parsed::Command(Command::MagnetInfo(args)) => magnet::info(&args),
        Parsed::Command(Command::MagnetDownloadPiece(args)) => magnet_download_piece(&args),
        Parsed::Command(Command::MagnetDownload(args)) => magnet_download(&args),
    }
}

fn decode(args: &Decode) -> Result<(), Error> {
    let mut input = Vec::new();
    let bytes = if args.value.as_bytes() == b"-" {
        read_limited(io::stdin().lock(), Path::new("-"), &mut input)?;
        &input
    } else {
        args.value.as_bytes()
    };
    let document = bencode::parse(bytes, bencode::Limits::ANY).map_err(Error::Bencode)?;
    let mut json = String::new();
    bencode::to_json(document.root(), &mut json);
    json.push('\n');
    print(&json)
}

fn info(args: &Info) -> Result<(), Error> {
    if is_magnet(&args.torrent) {
        let patience = Patience::of_seconds(args.timeout);
        let resolved = resolve(&args.torrent, &reach(args.sources())?, patience, false)?;
        return print(&describe(&resolved.metainfo));
    }
    print(&describe(&read_torrent(&args.torrent)?))
}

/// The lines of `info`.
fn describe(metainfo: &Metainfo) -> String {
    use std::fmt::Write as _;
    let geometry = metainfo.geometry;
    let announce = metainfo.announce.as_deref().or_else(|| Some(metainfo.tiers.first()?.first()?.as_str()));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Tracker URL: {}", escape(announce.unwrap_or("none")));
    let _ = writeln!(text, "Length: {}", geometry.total_len());
    let _ = writeln!(text, "Info Hash: {}", metainfo.info_hash);
    let _ = writeln!(text, "Piece Length: {}", geometry.piece_len());
    text.push_str("Piece Hashes:\n");
    for piece in geometry.pieces() {
        let _ = writeln!(text, "{}", hex(metainfo.piece_hash(piece)));
    }
    if !metainfo.is_single_file {
        text.push_str("Files:\n");
        for file in metainfo.files.iter().filter(|file| !file.pad) {
            let _ = writeln!(text, "{} {}", file.len, escape(&file.path.to_string_lossy()));
        }
    }
    text
}

fn peers(args: &Peers) -> Result<(), Error> {
    let metainfo = read_torrent(&args.torrent)?;
    let mut config = download::announce_config(&metainfo, download::peer_id(), None);
    if args.scrape {
        return scrape(&config);
    }
    config.port = PASSING_PORT_MIN + (config.key % u32::from(PASSING_PORTS)) as u16;
    let totals = Totals { uploaded: 0, downloaded: 0, left: metainfo.geometry.total_len().max(1) };
    let interrupt = interrupts(progress::TableWish::default())?;
    let once = announce_once(&config, totals, &|| interrupt.load(Ordering::Relaxed) != 0);
    let printed = match (once.answer, interrupt.load(Ordering::Relaxed)) {
        (Ok(answer), _) => print_peers(&answer),
        (Err(failed), 0) => Err(Error::no_tracker(&failed.failures)),
        (Err(_), signal) => {
            Err(Error::Interrupted { signal: signal as i32, progress: Progress { done: 0, total: 0 } })
        }
    };
    once.farewell.wait();
    printed
}

fn print_peers(answer: &OnceReply) -> Result<(), Error> {
    if let Some(warning) = &answer.reply.warning {
        progress::say(format_args!("ringtide: {} warns: {warning}", answer.url));
    }
    print(&answer.reply.peers.iter().map(|peer| format!("{peer}\n")).collect::<String>())
}

/// The first of the ports of which `peers` draws one to announce. Hardly any client listens at one of them, so it tells
/// this client from all others in a tracker's list.
const PASSING_PORT_MIN: u16 = 1024;
/// How many such ports there are.
const PASSING_PORTS: u16 = 5776;

/// Prints what each tracker counts as soon as it has told.
fn scrape(config: &AnnounceConfig) -> Result<(), Error> {
    if config.tiers.is_empty() {
        return Err(Error::Tracker("the torrent names no tracker".to_owned()));
    }
    let mut is_answered = false;
    let mut printed = Ok(());
    scrape_all(config, |url, counted| match counted {
        Ok(_) if printed.is_err() => {}
        Ok(Scrape { seeders, leechers, downloads }) => {
            is_answered = true;
            printed =
                print(&format!("{url}: {seeders} seeders, {leechers} leechers, {downloads} downloads\n"));
        }
        Err(error) => progress::say(format_args!("{url}: cannot be scraped: {error}")),
    });
    printed?;
    if is_answered { Ok(()) } else { Err(Error::Tracker("no tracker could be scraped".to_owned())) }
}

fn shake_hands(args: &Handshake) -> Result<(), Error> {
    let metainfo = read_torrent(&args.torrent)?;
    let addr = args.peer;
    let fail = |reason| Error::Peer { addr, reason };
    let theirs = exchange_handshakes(&metainfo, addr).map_err(fail)?;
    if theirs.info_hash != metainfo.info_hash.0 {
        return Err(fail(CloseReason::OtherTorrent));
    }
    print(&format!("Peer ID: {}\n", hex(&theirs.peer_id)))
}

fn exchange_handshakes(metainfo: &Metainfo, addr: SocketAddr) -> Result<handshake::Handshake, CloseReason> {
    let mut stream =
        TcpStream::connect_timeout(&addr, HANDSHAKE_TIMEOUT).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::DialTimeout,
            _ => CloseReason::Dial(error),
        })?;
    let ours = handshake::Handshake::new(0, metainfo.info_hash.0, download::peer_id());
    stream.write_all(&ours.encode()).map_err(CloseReason::Io)?;
    let mut answer = [0; handshake::LEN];
    read_until(&mut stream, &mut answer, Instant::now() + HANDSHAKE_TIMEOUT)?;
    handshake::Handshake::decode(&answer).map_err(CloseReason::Handshake)
}

/// Fills the buffer before the deadline, however slowly the bytes come.
fn read_until(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> Result<(), CloseReason> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CloseReason::HandshakeTimeout);
        }
        stream.set_read_timeout(Some(left)).map_err(CloseReason::Io)?;
        match stream.read(buffer) {
            Ok(0) => return Err(CloseReason::Closed),
            Ok(n) => buffer = &mut buffer[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The read timeout; the deadline is looked at again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(CloseReason::Io(error)),
        }
    }
    Ok(())
}

/// What to download.
struct Subject<'a> {
    /// A file, or a magnet link.
    torrent: &'a str,
    output: &'a str,
    piece: Option<u32>,
    /// Whether peers are shown nothing that the CodeCrafters course does not know.
    plain: bool,
}

fn download_piece(args: &DownloadPiece) -> Result<(), Error> {
    let DownloadPiece { torrent, output, index, .. } = args;
    let subject = Subject { torrent, output, piece: Some(*index), plain: false };
    transfer(&subject, args.options(), |_| format!("Piece {index} downloaded to {output}.\n"))
}

fn magnet_download_piece(args: &MagnetDownloadPiece) -> Result<(), Error> {
    let MagnetDownloadPiece { link, output, index, .. } = args;
    magnet::read(link)?;
    let subject = Subject { torrent: link, output, piece: Some(*index), plain: true };
    transfer(&subject, args.options(), |_| format!("Piece {index} downloaded to {output}.\n"))
}

fn download(args: &Download) -> Result<(), Error> {
    let Download { torrent, output, .. } = args;
    let subject = Subject { torrent, output, piece: None, plain: false };
    transfer(&subject, args.options(), |finished| {
        if args.json { json(finished) } else { format!("Downloaded {torrent} to {output}.\n") }
    })
}

fn magnet_download(args: &MagnetDownload) -> Result<(), Error> {
    let MagnetDownload { link, output, .. } = args;
    magnet::read(link)?;
    let subject = Subject { torrent: link, output, piece: None, plain: true };
    transfer(&subject, args.options(), |_| format!("Downloaded {link} to {output}.\n"))
}

/// Downloads, and prints the text that tells of it.
fn transfer(
    subject: &Subject<'_>,
    options: Transfer,
    text: impl Fn(&Finished) -> String,
) -> Result<(), Error> {
    log::at(options.verbose);
    let reach = Reach { plain: subject.plain, ..reach(options.reach)? };
    let patience = Patience::of_seconds(options.timeout);
    let (threads, record_every) = (threads(options.threads)?, record_every()?);
    let is_magnet = is_magnet(subject.torrent);
    let torrent = if is_magnet { None } else { Some(read_torrent(subject.torrent)?) };
    let piece_of = |metainfo: &Metainfo| subject.piece.map(|index| piece_of(metainfo, index)).transpose();
    // Before anybody is asked.
    torrent.as_ref().map(piece_of).transpose()?;
    let mut observer = progress::Reporter::new(options.quiet);
    let interrupt = interrupts(observer.with_table(options.verbose > 0))?;
    let run = |observer: &mut progress::Reporter| {
        let (metainfo, search, reach, metafile) = match torrent {
            Some(metainfo) => (metainfo, None, reach, None),
            None => {
                let link = magnet::read(subject.torrent)?;
                if !link.select.is_empty() {
                    observer.notice("the link selects files (so=), but all are downloaded");
                }
                let kept =
                    subject.piece.is_none().then(|| download::recall(&link, subject.output.as_ref(), &reach));
                let resolved = match kept.flatten() {
                    Some(resolved) => resolved,
                    None => download::resolve(&link, &reach, patience, &interrupt, observer)?,
                };
                (resolved.metainfo, resolved.search, resolved.reach, Some(resolved.torrent))
            }
        };
        let request = Request {
            piece: piece_of(&metainfo)?,
            metainfo: Arc::new(metainfo),
            torrent: (!is_magnet).then(|| subject.torrent.into()),
            output: subject.output.into(),
            metafile,
            existing: options.existing,
            io: options.io,
            backend: options.backend,
            sync: options.sync,
            threads,
            reach,
            record_every,
            patience,
        };
        download::run(&request, search, &interrupt, observer)
    };
    let finished = run(&mut observer);
    observer.finish(finished.as_ref().ok().map(|finished| &finished.summary));
    let finished = finished?;
    print(&text(&finished))?;
    finished.wait_for_trackers();
    Ok(())
}

fn piece_of(metainfo: &Metainfo, index: u32) -> Result<PieceIndex, Error> {
    metainfo.geometry.piece(index).ok_or_else(|| {
        let count = metainfo.geometry.piece_count();
        let range = count.checked_sub(1).map_or_else(String::new, |last| format!(": 0 to {last}"));
        Error::Usage(format!("there is no piece {index}, the torrent has {count}{range}"))
    })
}

/// Fetches what a magnet link names, and shows that.
fn resolve(link: &str, reach: &Reach, patience: Patience, quiet: bool) -> Result<Resolved, Error> {
    let mut observer = progress::Reporter::new(quiet);
    let interrupt = interrupts(observer.with_table(false))?;
    let resolved = download::resolve(&magnet::read(link)?, reach, patience, &interrupt, &mut observer);
    observer.finish(None);
    resolved
}

/// Where peers come from, as the command line and the environment say.
fn reach(sources: Sources) -> Result<Reach, Error> {
    let dht = sources.dht_node.filter(|_| !os::env::is_on(NO_DHT_VARIABLE)).map(|nodes| {
        let well_known = || BOOTSTRAP.iter().map(|&node| node.to_owned()).collect();
        let bootstrap = if nodes.is_empty() { well_known() } else { nodes };
        DhtReach { bootstrap, cache: cache::default_path() }
    });
    let (peers, hosts) = peers_to_ask(sources.peer)?;
    Ok(Reach {
        peers,
        hosts,
        link_peers: Vec::new(),
        port: sources.port,
        dht,
        lsd: sources.lsd && !os::env::is_on(NO_LSD_VARIABLE),
        pex: sources.pex,
        encryption: sources.encryption,
        plain: false,
    })
}

/// Where it is on, the DHT is not asked.
const NO_DHT_VARIABLE: &str = "RINGTIDE_NO_DHT";
/// Where it is on, the local network is not asked.
const NO_LSD_VARIABLE: &str = "RINGTIDE_NO_LSD";

/// The summary as one line of JSON; the README documents the keys.
fn json(finished: &Finished) -> String {
    let summary = &finished.summary;
    let object = serde_json::json!({
        "bytes": summary.total,
        "bytes_kept": summary.kept,
        "bytes_checked": summary.checked,
        "bytes_wasted": summary.wasted,
        "seconds": summary.elapsed.as_secs_f64(),
        "blocks_direct": summary.hits,
        "blocks_copied": summary.misses,
        "receives": summary.receives,
        "io": finished.io.name(),
        "backend": summary.backend.name(),
    });
    format!("{object}\n")
}

/// Makes SIGINT, SIGTERM and SIGHUP end the download in good order, and a later second one end the process at once. What
/// the caller has this process ignore stays ignored. SIGUSR1 expresses a wish for a table of the peers.
fn interrupts(table: progress::TableWish) -> Result<Interrupt, Error> {
    let interrupt = Interrupt::default();
    let told = Arc::clone(&interrupt);
    let heeded = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];
    let heeded = heeded.into_iter().filter(|&signal| !os::signals::is_ignored(signal));
    let mut signals = Signals::new(heeded).map_err(Error::Thread)?;
    let listen = move || {
        let mut first = None;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                table.store(true, Ordering::Relaxed);
                continue;
            }
            if first.get_or_insert_with(Instant::now).elapsed() > SAME_SIGNAL {
                progress::clear();
                low_level::exit(128 + signal);
            }
            told.store(signal as usize, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(Error::Thread)?;
    Ok(interrupt)
}

/// The cores to use: as asked, or those the process may use.
fn threads(asked: Option<usize>) -> Result<usize, Error> {
    match asked {
        Some(0) => Err(Error::Usage("--threads takes a number of 1 or more".to_owned())),
        Some(threads) => Ok(threads.min(THREADS_MAX)),
        None => Ok(thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)),
    }
}

/// The peers that the user names, and those of which he names the host. He hears of it where they are more than would be
/// asked.
fn peers_to_ask(named: Vec<PeerAddr>) -> Result<(Vec<SocketAddr>, Vec<PeerAddr>), Error> {
    let (mut peers, mut hosts) = (Vec::new(), Vec::new());
    for peer in named {
        match peer {
            PeerAddr::Ip(addr) => peers.push(addr),
            host @ PeerAddr::Host { .. } => hosts.push(host),
        }
    }
    match (peers.len(), hosts.len()) {
        (0..=PEERS_MAX, 0..=HOSTS_MAX) => Ok((peers, hosts)),
        (0..=PEERS_MAX, count) => {
            Err(Error::Usage(format!("--peer names {count} hosts, at most {HOSTS_MAX} are looked up")))
        }
        (count, _) => {
            Err(Error::Usage(format!("--peer is given {count} times, at most {PEERS_MAX} are taken")))
        }
    }
}

/// How often the resume record is written.
fn record_every() -> Result<Duration, Error> {
    let Some(value) = os::env::value(RECORD_VARIABLE) else { return Ok(RECORD_EVERY) };
    let millis = value.to_str().and_then(|text| text.parse().ok());
    millis.map(Duration::from_millis).ok_or_else(|| {
        Error::Usage(format!("{RECORD_VARIABLE} is {}, expected milliseconds", value.display()))
    })
}

/// Overrides how often the resume record is written, in milliseconds.
const RECORD_VARIABLE: &str = "RINGTIDE_RECORD_MS";

/// More cores than that do not make a download faster.
const THREADS_MAX: usize = 64;

fn read_torrent(path: &str) -> Result<Metainfo, Error> {
    let path = Path::new(path);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| Error::Read { path: path.to_owned(), error })?;
    read_limited(file, path, &mut bytes)?;
    Metainfo::parse(&bytes).map_err(|error| Error::Torrent { path: path.to_owned(), error })
}

fn read_limited(source: impl Read, path: &Path, into: &mut Vec<u8>) -> Result<(), Error> {
    let max = METAINFO_LEN_MAX as u64;
    let read = source.take(max + 1).read_to_end(into);
    let read = read.map_err(|error| Error::Read { path: path.to_owned(), error })?;
    if read as u64 > max { Err(Error::TooLarge { path: path.to_owned(), max }) } else { Ok(()) }
}

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}
