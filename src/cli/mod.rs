//! The command line: one structure and one short function for each subcommand.
//!
//! stdout is an interface: it carries what the CodeCrafters course prescribes and nothing else, or with `--json` one
//! object (before it, with `--json=events`, one for each event). Progress, notices and errors go to stderr.
//!
//! | part | what it is |
//! |---|---|
//! | `line` | what users type, in the words that argh knows |
//! | `args`, `help` | the commands and their options, and the texts that tell of them |
//! | `source`, `output` | where a torrent comes from, where a download goes |
//! | `info`, `json` | what is printed |
//! | `progress`, `events`, `log` | what is shown meanwhile |

mod args;
mod events;
mod help;
mod info;
mod json;
mod line;
mod log;
mod magnet;
mod output;
mod progress;
mod source;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use self::args::{
    Command, Decode, Download, DownloadPiece, Handshake, Info, MagnetDownload, MagnetDownloadPiece, Parsed,
    Peers, Sources, Transfer,
};
use self::events::Narrator;
use self::output::{Destination, Parents};
use self::source::{Content, Named, Source, Torrent};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::discovery::announcer::{AnnounceConfig, OnceReply, announce_once, scrape_all};
use crate::discovery::dht::{BOOTSTRAP, cache};
use crate::discovery::tracker::{Scrape, Totals};
use crate::discovery::{fetch, masked};
use crate::download::{
    self, DhtReach, Finished, HOSTS_MAX, Interrupt, Observer as _, PEERS_MAX, Patience, RECORD_EVERY, Reach,
    Request, Resolved,
};
use crate::error::{Error, Progress};
use crate::hash::Kernel;
use crate::meta::about::About;
use crate::meta::bencode;
use crate::meta::geometry::PieceIndex;
use crate::meta::hex;
use crate::meta::magnet::{Magnet, PeerAddr};
use crate::meta::text::escape;
use crate::meta::torrent::{InfoHash, Metainfo};
use crate::net::close::CloseReason;
use crate::os;
use crate::os::stop::Unsettled;
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
    os::limits::share_heap();
    os::limits::raise_descriptors();
    let args: Vec<OsString> = args.skip(1).collect();
    run_command(&args).inspect_err(|error| {
        if json::is_asked_for(&args) && !matches!(error, Error::Stdout(_)) {
            // The error decides how this ends, whoever reads it.
            let _ = print(&json::line(&json::failure(error)));
        }
    })
}

fn run_command(args: &[OsString]) -> Result<(), Error> {
    Kernel::forced().map_err(|error| Error::Usage(error.to_string()))?;
    match args::parse(args)? {
        Parsed::Text(text) => print(&text),
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
    let bytes = if args.value == "-" { source::read_stdin()? } else { args.value.as_bytes().to_vec() };
    let document = bencode::parse(&bytes, bencode::Limits::ANY).map_err(Error::Bencode)?;
    let mut json = String::new();
    bencode::to_json(document.root(), &mut json);
    json.push('\n');
    print(&json)
}

fn info(args: &Info) -> Result<(), Error> {
    let Torrent { metainfo, about } = match Source::of(&args.torrent)?.read()? {
        Content::Torrent(torrent) => *torrent,
        Content::Link(link) => {
            let narrator = Narrator::new(false, args.json);
            let patience = Patience::of_seconds(args.timeout);
            let resolved = resolve(&link, &reach(args.sources())?, patience, narrator)?;
            Torrent { metainfo: resolved.metainfo, about: About::default() }
        }
    };
    if args.json.is_some() {
        return print(&json::line(&info::object(&metainfo, &about)));
    }
    let summary = if args.summary { info::summary(&metainfo, &about) } else { String::new() };
    let files = if args.files { info::files(&metainfo) } else { String::new() };
    let text = if args.summary || args.files { summary + &files } else { info::lines(&metainfo) };
    print(&text)
}

fn peers(args: &Peers) -> Result<(), Error> {
    let Named { info_hash, tiers, len } = Source::of(&args.torrent)?.read()?.named();
    let mut config = download::announce_config_of(info_hash, tiers, download::peer_id(), None);
    if args.scrape {
        return scrape(&config, args.json.is_some());
    }
    config.port = PASSING_PORT_MIN + (config.key % u32::from(PASSING_PORTS)) as u16;
    let totals = Totals { uploaded: 0, downloaded: 0, left: len };
    let interrupt = interrupts(progress::TableWish::default())?;
    let once = announce_once(&config, totals, &|| interrupt.load(Ordering::Relaxed) != 0);
    let printed = match (once.answer, interrupt.load(Ordering::Relaxed)) {
        (Ok(answer), _) => print_peers(&answer, info_hash, args.json.is_some()),
        (Err(failed), 0) => Err(Error::no_tracker(&failed.failures)),
        (Err(_), signal) => {
            Err(Error::Interrupted { signal: signal as i32, progress: Progress { done: 0, total: 0 } })
        }
    };
    once.farewell.wait();
    printed
}

fn print_peers(answer: &OnceReply, info_hash: InfoHash, is_json: bool) -> Result<(), Error> {
    let reply = &answer.reply;
    if let Some(warning) = &reply.warning {
        progress::say(format_args!("ringtide: {} warns: {warning}", answer.url));
    }
    let peers = reply.peers.iter().map(ToString::to_string);
    if is_json {
        return print(&json::line(&json!({
            "info_hash": info_hash.to_string(),
            "tracker": answer.url,
            "peers": peers.collect::<Vec<_>>(),
            "interval_seconds": reply.interval.as_secs(),
            "warning": reply.warning,
        })));
    }
    print(&peers.map(|peer| peer + "\n").collect::<String>())
}

/// The first of the ports of which `peers` draws one to announce. Hardly any client listens at one of them, so it tells
/// this client from all others in a tracker's list.
const PASSING_PORT_MIN: u16 = 1024;
/// How many such ports there are.
const PASSING_PORTS: u16 = 5776;

/// Prints what each tracker counts as soon as it has told, or all of it as JSON.
fn scrape(config: &AnnounceConfig, is_json: bool) -> Result<(), Error> {
    if config.tiers.is_empty() {
        return Err(Error::Tracker("the torrent names no tracker".to_owned()));
    }
    let (mut is_answered, mut printed) = (false, Ok(()));
    let mut told = Vec::new();
    scrape_all(config, |url, counted| match counted {
        Ok(_) if printed.is_err() => {}
        Ok(Scrape { seeders, leechers, downloads }) => {
            is_answered = true;
            told.push(json!({
                "url": url, "seeders": seeders, "leechers": leechers, "downloads": downloads,
            }));
            if !is_json {
                let counts = format!("{seeders} seeders, {leechers} leechers, {downloads} downloads");
                printed = print(&format!("{url}: {counts}\n"));
            }
        }
        Err(error) => {
            told.push(json!({ "url": url, "error": error.to_string() }));
            progress::say(format_args!("{url}: cannot be scraped: {error}"));
        }
    });
    printed?;
    if !is_answered {
        return Err(Error::Tracker("no tracker could be scraped".to_owned()));
    }
    if is_json { print(&json::line(&json!({ "trackers": told }))) } else { Ok(()) }
}

fn shake_hands(args: &Handshake) -> Result<(), Error> {
    let Named { info_hash, .. } = Source::of(&args.torrent)?.read()?.named();
    let addr = args.peer;
    let fail = |reason| Error::Peer { addr, reason };
    let theirs = exchange_handshakes(info_hash, addr).map_err(fail)?;
    if theirs.info_hash != info_hash.0 {
        return Err(fail(CloseReason::OtherTorrent));
    }
    let peer_id = hex(&theirs.peer_id);
    if args.json.is_some() {
        return print(&json::line(&json!({
            "info_hash": info_hash.to_string(),
            "peer": addr.to_string(),
            "peer_id": peer_id.to_string(),
            "reserved": hex(&theirs.reserved).to_string(),
        })));
    }
    print(&format!("Peer ID: {peer_id}\n"))
}

fn exchange_handshakes(info_hash: InfoHash, addr: SocketAddr) -> Result<handshake::Handshake, CloseReason> {
    let mut stream =
        TcpStream::connect_timeout(&addr, HANDSHAKE_TIMEOUT).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::DialTimeout,
            _ => CloseReason::Dial(error),
        })?;
    let ours = handshake::Handshake::new(0, info_hash.0, download::peer_id());
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

/// What to download, and where to.
struct Subject<'a> {
    /// What it is named by on the command line.
    torrent: &'a OsStr,
    source: Source,
    output: Option<&'a OsStr>,
    piece: Option<u32>,
    /// Whether peers are shown nothing that the CodeCrafters course does not know.
    plain: bool,
}

fn download_piece(args: &DownloadPiece) -> Result<(), Error> {
    let DownloadPiece { torrent, output, index, .. } = args;
    let (source, output) = (Source::of(torrent)?, output.as_deref());
    transfer(Subject { torrent, source, output, piece: Some(*index), plain: false }, args.options())
}

fn magnet_download_piece(args: &MagnetDownloadPiece) -> Result<(), Error> {
    let MagnetDownloadPiece { link: torrent, output, index, .. } = args;
    let (source, output) = (Source::Link(Box::new(magnet::read(torrent)?)), output.as_deref());
    transfer(Subject { torrent, source, output, piece: Some(*index), plain: true }, args.options())
}

fn download(args: &Download) -> Result<(), Error> {
    let Download { torrent, output, .. } = args;
    let (source, output) = (Source::of(torrent)?, output.as_deref());
    transfer(Subject { torrent, source, output, piece: None, plain: false }, args.options())
}

fn magnet_download(args: &MagnetDownload) -> Result<(), Error> {
    let MagnetDownload { link: torrent, output, .. } = args;
    let (source, output) = (Source::Link(Box::new(magnet::read(torrent)?)), output.as_deref());
    transfer(Subject { torrent, source, output, piece: None, plain: true }, args.options())
}

/// Refuses two things on standard output.
fn check_stdout(output: Option<&OsStr>, is_json: bool) -> Result<(), Error> {
    if is_json && output::is_stdout(output) {
        let text = "-o - puts the content where --json puts its objects; leave one of them out";
        return Err(Error::Usage(text.to_owned()));
    }
    Ok(())
}

/// The path of a destination, and the folders that were made for it: none for standard output, which nothing else may
/// use.
fn prepare(destination: Destination) -> Result<(PathBuf, Option<Parents>), Error> {
    match destination {
        Destination::Path(output) => {
            let parents = Parents::make(&output)?;
            Ok((output, Some(parents)))
        }
        Destination::Stdout => Ok(("-".into(), None)),
    }
}

/// Prints the sentence about the end of a download, beside the content where that is on standard output.
fn tell(sentence: &str, is_content_on_stdout: bool) -> Result<(), Error> {
    if is_content_on_stdout {
        progress::say(format_args!("{}", sentence.trim_end()));
        return Ok(());
    }
    print(sentence)
}

/// Downloads, and prints the sentence or the object that tells of it.
fn transfer(subject: Subject<'_>, options: Transfer) -> Result<(), Error> {
    let Subject { torrent, source, output, piece, plain } = subject;
    log::at(options.verbose);
    check_stdout(output, options.json.is_some())?;
    let reach = Reach { plain, ..reach(options.reach)? };
    let patience = Patience::of_seconds(options.timeout);
    let (threads, record_every) = (threads(options.threads)?, record_every()?);
    let torrent_file = match &source {
        Source::File(path) => Some(path.clone()),
        Source::Stdin | Source::Url(_) | Source::Link(_) => None,
    };
    let content = source.read()?;
    let piece_of = |metainfo: &Metainfo| piece.map(|index| piece_of(metainfo, index)).transpose();
    if let Content::Torrent(torrent) = &content {
        // Before anybody is asked.
        piece_of(&torrent.metainfo)?;
    }
    let mut narrator = Narrator::new(options.quiet, options.json);
    let interrupt = interrupts(narrator.with_table(options.verbose > 0))?;
    let run = |narrator: &mut Narrator| {
        let (metainfo, search, reach, metafile) = match content {
            Content::Torrent(torrent) => (torrent.metainfo, None, reach, None),
            Content::Link(link) => {
                if !link.select.is_empty() {
                    narrator.notice("the link selects files (so=), but all are downloaded");
                }
                let is_whole = piece.is_none();
                let guesses = is_whole.then(|| output::guesses(output, link.name.as_deref()));
                let mut guesses = guesses.into_iter().flatten();
                let resolved = match guesses.find_map(|path| download::recall(&link, &path, &reach)) {
                    Some(resolved) => resolved,
                    None => download::resolve(&link, &reach, patience, &interrupt, narrator)?,
                };
                (resolved.metainfo, resolved.search, resolved.reach, Some(resolved.torrent))
            }
        };
        let piece = piece_of(&metainfo)?;
        let (output, parents) = prepare(output::choose(output, &metainfo, piece))?;
        let request = Request {
            piece,
            metainfo: Arc::new(metainfo),
            torrent: torrent_file,
            output,
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
        let finished = match &parents {
            Some(_) => download::run(&request, search, &interrupt, narrator),
            None => download::to_stdout(&request, search, &interrupt, narrator),
        };
        let finished = finished.inspect_err(|_| parents.iter().for_each(Parents::remove))?;
        Ok((request, finished, parents.is_none()))
    };
    let ran: Result<_, Error> = run(&mut narrator);
    narrator.finish(ran.as_ref().ok().map(|(_, finished, _)| &finished.summary));
    let (request, finished, is_on_stdout) = ran?;
    let printed = match options.json {
        Some(_) => print(&json::line(&result(&request, &finished))),
        None => tell(&sentence(torrent, &request), is_on_stdout),
    };
    // The trackers hear of the end, whoever reads what was printed.
    finished.wait_for_trackers();
    printed
}

/// What the course wants to be told of a download.
fn sentence(torrent: &OsStr, request: &Request) -> String {
    let what = match request.piece {
        Some(piece) => format!("Piece {} downloaded", piece.get()),
        None => {
            let torrent = torrent.to_string_lossy();
            let torrent = if fetch::is_url(&torrent) { masked(&torrent).into() } else { torrent };
            format!("Downloaded {}", escape(&torrent))
        }
    };
    format!("{what} to {}.\n", escape(&request.output.to_string_lossy()))
}

fn piece_of(metainfo: &Metainfo, index: u32) -> Result<PieceIndex, Error> {
    metainfo.geometry.piece(index).ok_or_else(|| {
        let count = metainfo.geometry.piece_count();
        let range = count.checked_sub(1).map_or_else(String::new, |last| format!(": 0 to {last}"));
        Error::Usage(format!("there is no piece {index}, the torrent has {count}{range}"))
    })
}

/// Fetches what a magnet link names, and shows that.
fn resolve(
    link: &Magnet,
    reach: &Reach,
    patience: Patience,
    mut narrator: Narrator,
) -> Result<Resolved, Error> {
    let interrupt = interrupts(narrator.with_table(false))?;
    let resolved = download::resolve(link, reach, patience, &interrupt, &mut narrator);
    narrator.finish(None);
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

/// A finished download for scripts.
fn result(request: &Request, finished: &Finished) -> Value {
    let summary = &finished.summary;
    json!({
        "status": "complete",
        "path": request.output.to_string_lossy(),
        "name": request.metainfo.name,
        "info_hash": request.metainfo.info_hash.to_string(),
        "piece": request.piece.map(PieceIndex::get),
        "bytes": summary.total,
        "bytes_kept": summary.kept,
        "bytes_checked": summary.checked,
        "bytes_wasted": summary.wasted,
        "seconds": summary.elapsed.as_secs_f64(),
        "blocks_direct": summary.hits,
        "blocks_copied": summary.misses,
        "receives": summary.receives,
        "io": finished.io.name(),
        "page_seconds_per_gib": finished.page_price.map(|price| price.as_secs_f64()),
        "backend": summary.backend.name(),
    })
}

/// Makes SIGINT, SIGTERM and SIGHUP end the download in good order, and a later second one end the process at once, or
/// a third where the second would leave behind what was made in vain. What the caller has this process ignore stays
/// ignored. SIGUSR1 expresses a wish for a table of the peers.
fn interrupts(table: progress::TableWish) -> Result<Interrupt, Error> {
    let interrupt = Interrupt::default();
    let told = Arc::clone(&interrupt);
    let heeded = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];
    let heeded = heeded.into_iter().filter(|&signal| !os::signals::is_ignored(signal));
    let mut signals = Signals::new(heeded).map_err(Error::Thread)?;
    let listen = move || {
        let (mut first, mut is_patient) = (None, true);
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                table.store(true, Ordering::Relaxed);
                continue;
            }
            if first.get_or_insert_with(Instant::now).elapsed() > SAME_SIGNAL {
                if !Unsettled::is_any() || !is_patient {
                    progress::briefly(progress::clear);
                    low_level::exit(128 + signal);
                }
                is_patient = false;
                progress::briefly(|| {
                    progress::say(format_args!(
                        "ringtide: ending; once more ends at once and may leave files behind"
                    ));
                });
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

/// The peers that the user names, and those of which he names the host. He hears of it where they are more than would
/// be asked.
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

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}
