//! What the command line may say.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use argh::{ArgsInfo, FromArgs, SubCommandInfo};

use super::help;
use super::line::{self, Line, bytes};
use crate::disk::{Existing, Io};
use crate::download::{Encryption, check_dialable};
use crate::error::Error;
use crate::meta::magnet::PeerAddr;
use crate::net::backend::Backend;

/// Downloads torrents, fast, and verifies every byte.
#[derive(FromArgs, ArgsInfo, Debug)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub(super) enum Command {
    Decode(Decode),
    Info(Info),
    Peers(Peers),
    Handshake(Handshake),
    DownloadPiece(DownloadPiece),
    Download(Download),
    MagnetParse(MagnetParse),
    MagnetHandshake(MagnetHandshake),
    MagnetInfo(MagnetInfo),
    MagnetDownloadPiece(MagnetDownloadPiece),
    MagnetDownload(MagnetDownload),
}

/// Print a bencoded value as JSON.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "decode", example = "{command_name} d3:foo3:bar5:helloi52ee")]
pub(super) struct Decode {
    /// the value, or - to read it from standard input
    #[argh(positional, from_str_fn(os_string))]
    pub(super) value: OsString,
    /// print one JSON object, also of a failure
    #[expect(dead_code, reason = "the result is JSON anyway, and for failures the whole line is looked at")]
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// Print what a torrent file says: tracker, length, info hash, pieces, files.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "info", example = "{command_name} debian.torrent")]
pub(super) struct Info {
    /// a torrent: a file, - for standard input, a URL or a magnet link in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) torrent: OsString,
    /// print name, sizes, trackers and origin, for people
    #[argh(switch)]
    pub(super) summary: bool,
    /// print the files with their numbers and sizes
    #[argh(switch)]
    pub(super) files: bool,
    /// print one JSON object, also of a failure; --json=events: first a line for each event
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
    /// of a magnet link: ask this peer too, as IP:PORT, [IPV6]:PORT or HOST:PORT; may be given several times
    #[argh(option, from_str_fn(peer_or_host), arg_name = "host:port")]
    peer: Vec<PeerAddr>,
    /// of a magnet link: do not ask the DHT for peers
    #[argh(switch)]
    no_dht: bool,
    /// of a magnet link: do not look for peers on the local network
    #[argh(switch)]
    no_lsd: bool,
    /// of a magnet link: give up when no peer had it for so long (default: 60, 20 with nobody to ask; 0: never)
    #[argh(option, from_str_fn(number), arg_name = "seconds")]
    pub(super) timeout: Option<u64>,
}

impl Info {
    /// Where peers come from.
    pub(super) fn sources(&self) -> Sources {
        Sources {
            peer: self.peer.clone(),
            dht_node: (!self.no_dht).then(Vec::new),
            lsd: !self.no_lsd,
            pex: true,
            ..Sources::default()
        }
    }
}

/// Print the peers that the torrent's trackers know of, one a line.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "peers", example = "{command_name} debian.torrent")]
pub(super) struct Peers {
    /// a torrent: a file, - for standard input, a URL or a magnet link in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) torrent: OsString,
    /// print how many peers each tracker counts instead, one tracker a line
    #[argh(switch)]
    pub(super) scrape: bool,
    /// print one JSON object, also of a failure
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// Exchange handshakes with a peer and print its peer id.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "handshake", example = "{command_name} debian.torrent 192.0.2.7:6881")]
pub(super) struct Handshake {
    /// a torrent: a file, - for standard input, a URL or a magnet link in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) torrent: OsString,
    /// the peer, as IP:PORT or [IPV6]:PORT
    #[argh(positional, from_str_fn(peer))]
    pub(super) peer: SocketAddr,
    /// print one JSON object, also of a failure
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// Defines subcommands that transfer content, with the options that all of them have beside their own arguments.
macro_rules! transfers {
    ($($(#[$attribute:meta])* struct $name:ident { $($own:tt)* })*) => { $(
        $(#[$attribute])*
        pub(super) struct $name {
            /// where it goes: a path, a folder (or DIR/) in which it gets its own name, or - for standard output
            /// (default: its own name, here)
            #[argh(option, short = 'o', long = "output", from_str_fn(os_string), arg_name = "out")]
            pub(super) output: Option<OsString>,
            /// print one JSON object instead of the sentence, also of a failure; --json=events: first a line for each
            /// event
            #[argh(option, from_str_fn(json), arg_name = "what")]
            pub(super) json: Option<Json>,
            $($own)*
            /// ask this peer too, as IP:PORT, [IPV6]:PORT or HOST:PORT; may be given several times
            #[argh(option, from_str_fn(peer_or_host), arg_name = "host:port")]
            peer: Vec<PeerAddr>,
            /// let peers dial us at this port (default: one of 6881 to 6889, or any if they are taken; 0: nowhere)
            #[argh(option, from_str_fn(number), arg_name = "n")]
            port: Option<u16>,
            /// do not ask the DHT for peers
            #[argh(switch)]
            no_dht: bool,
            /// begin in the DHT at this node, as HOST:PORT (default: well-known ones); may be given several times
            #[argh(option, arg_name = "host:port")]
            dht_node: Vec<String>,
            /// do not look for peers on the local network
            #[argh(switch)]
            no_lsd: bool,
            /// do not exchange addresses with peers
            #[argh(switch)]
            no_pex: bool,
            /// encrypt connections: prefer, require or off (default: prefer, for peers that do not answer otherwise)
            #[argh(option, default = "Encryption::Prefer", from_str_fn(encryption), arg_name = "when")]
            encryption: Encryption,
            /// replace what is wrong in files that hold something else; what is right is kept
            #[argh(switch)]
            overwrite: bool,
            /// how to write: mmap, pwrite, uncached or auto (default: auto, which maps where that is good)
            #[argh(option, default = "Io::Auto", from_str_fn(io), arg_name = "method")]
            io: Io,
            /// how to receive: uring, epoll or auto (default: auto, which takes io_uring where the kernel gives one)
            #[argh(option, from_str_fn(backend), arg_name = "name")]
            backend: Option<Option<Backend>>,
            /// wait until everything is on the disk
            #[argh(switch)]
            sync: bool,
            /// use at most so many cores (default: those the process may use)
            #[argh(option, from_str_fn(number), arg_name = "n")]
            threads: Option<usize>,
            /// give up when nothing came for so long (default: 300, 20 with nobody to ask; 0: never)
            #[argh(option, from_str_fn(number), arg_name = "seconds")]
            timeout: Option<u64>,
            /// print nothing but errors on stderr
            #[argh(switch, short = 'q')]
            quiet: bool,
            /// tell what peers and trackers do, and at the end what became of each peer; twice: everything
            #[argh(switch, short = 'v')]
            verbose: u8,
        }

        impl $name {
            /// The options that all transfers have.
            pub(super) fn options(&self) -> Transfer {
                Transfer {
                    reach: Sources {
                        peer: self.peer.clone(),
                        port: self.port,
                        dht_node: (!self.no_dht).then(|| self.dht_node.clone()),
                        lsd: !self.no_lsd,
                        pex: !self.no_pex,
                        encryption: self.encryption,
                    },
                    existing: if self.overwrite { Existing::Overwrite } else { Existing::Keep },
                    io: self.io,
                    backend: self.backend.flatten(),
                    sync: self.sync,
                    threads: self.threads,
                    timeout: self.timeout,
                    quiet: self.quiet,
                    verbose: self.verbose,
                    json: self.json,
                }
            }
        }
    )* };
}

transfers! {
    /// Download one piece of a torrent into a file.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "download_piece", example = "{command_name} -o piece-0 debian.torrent 0")]
    struct DownloadPiece {
        /// a torrent: a file, - for standard input, a URL or a magnet link in quotes
        #[argh(positional, from_str_fn(os_string))]
        pub(super) torrent: OsString,
        /// the piece, counted from 0
        #[argh(positional, from_str_fn(number))]
        pub(super) index: u32,
    }

    /// Download a torrent: into a file, or into a folder if it has several files.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "download",
        example = "{command_name} -o debian.iso debian.torrent",
        note = "'ringtide TORRENT' means the same as 'ringtide download TORRENT'.",
        note = "What is there already is kept: an interrupted download goes on when the same command is run again."
    )]
    struct Download {
        /// a torrent: a file, - for standard input, a URL or a magnet link in quotes
        #[argh(positional, from_str_fn(os_string))]
        pub(super) torrent: OsString,
    }

    /// Download one piece of what a magnet link names into a file.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "magnet_download_piece",
        example = "{command_name} -o piece-0 'magnet:?xt=urn:btih:...' 0"
    )]
    struct MagnetDownloadPiece {
        /// the magnet link, in quotes
        #[argh(positional, from_str_fn(os_string))]
        pub(super) link: OsString,
        /// the piece, counted from 0
        #[argh(positional, from_str_fn(number))]
        pub(super) index: u32,
    }

    /// Download what a magnet link names: into a file, or into a folder if it has several files.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "magnet_download",
        example = "{command_name} -o debian.iso 'magnet:?xt=urn:btih:...'"
    )]
    struct MagnetDownload {
        /// the magnet link, in quotes
        #[argh(positional, from_str_fn(os_string))]
        pub(super) link: OsString,
    }
}

/// What a command line says of a transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) reach: Sources,
    pub(super) existing: Existing,
    pub(super) io: Io,
    pub(super) backend: Option<Backend>,
    pub(super) sync: bool,
    pub(super) threads: Option<usize>,
    pub(super) timeout: Option<u64>,
    pub(super) quiet: bool,
    /// How often it was asked to tell more.
    pub(super) verbose: u8,
    pub(super) json: Option<Json>,
}

/// What a command line says of where peers come from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) peer: Vec<PeerAddr>,
    pub(super) port: Option<u16>,
    /// Nodes of the DHT; without any, well-known ones.
    pub(super) dht_node: Option<Vec<String>>,
    pub(super) lsd: bool,
    pub(super) pex: bool,
    pub(super) encryption: Encryption,
}

/// Print what a magnet link says: tracker, info hash.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "magnet_parse", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetParse {
    /// the magnet link, in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) link: OsString,
    /// print one JSON object, also of a failure
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// Exchange handshakes with a peer of a magnet link and print its peer id.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "magnet_handshake", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetHandshake {
    /// the magnet link, in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) link: OsString,
    /// print one JSON object, also of a failure
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// Print what the torrent of a magnet link says, which peers tell.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "magnet_info", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetInfo {
    /// the magnet link, in quotes
    #[argh(positional, from_str_fn(os_string))]
    pub(super) link: OsString,
    /// print one JSON object, also of a failure
    #[argh(option, from_str_fn(json), arg_name = "what")]
    pub(super) json: Option<Json>,
}

/// What is printed as JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Json {
    /// The result.
    Object,
    /// A line for each event, and then the result.
    Events,
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Text for stdout and nothing else.
    Text(String),
    /// A command to run.
    Command(Command),
}

/// All commands and their options, as argh knows them.
pub(super) fn commands() -> &'static [SubCommandInfo] {
    static COMMANDS: OnceLock<Vec<SubCommandInfo>> = OnceLock::new();
    COMMANDS.get_or_init(Args::get_subcommands)
}

/// Makes sense of the arguments after the program's name.
pub(super) fn parse(args: &[OsString]) -> Result<Parsed, Error> {
    let words = match line::read(args, commands())? {
        Line::Help(command) => return Ok(Parsed::Text(help::of(command, commands()))),
        Line::Version => return Ok(Parsed::Text(format!("ringtide {}\n", env!("CARGO_PKG_VERSION")))),
        Line::Command(words) => words,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Args::from_args(&["ringtide"], &words)
        .map(|args| Parsed::Command(args.command))
        .map_err(|exit| Error::Usage(complaint(&exit.output, words.first().unwrap_or(&""))))
}

/// What argh dislikes of a value, in one line: the argument, what was given, what was expected. All else that argh
/// could dislike was looked at before.
fn complaint(output: &str, command: &str) -> String {
    let told = ["Error parsing option '", "Error parsing positional argument '"].iter().find_map(|start| {
        let (name, rest) = output.strip_prefix(start)?.split_once("' with value '")?;
        let (value, expected) = rest.rsplit_once("': ")?;
        let name = if name.starts_with('-') { name.to_owned() } else { name.to_uppercase() };
        let value = bytes::from_text(value);
        let expected = expected.trim_end();
        // Some say all of it.
        let has_value = expected.starts_with('\'');
        let value = if has_value { String::new() } else { format!("'{}' is not ", value.to_string_lossy()) };
        Some(format!("{name}: {value}{expected}"))
    });
    let text = told.unwrap_or_else(|| output.split_whitespace().collect::<Vec<_>>().join(" "));
    format!("{text}; see 'ringtide {command} --help'")
}

#[expect(clippy::unnecessary_wraps, reason = "argh wants a Result")]
fn os_string(value: &str) -> Result<OsString, String> {
    Ok(bytes::from_text(value))
}

/// A whole number that its type can hold.
fn number<T: FromStr + Bounded>(value: &str) -> Result<T, String> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("a whole number from 0 to {}", T::MAX))
}

/// A type of numbers with an end.
trait Bounded {
    /// The last one.
    const MAX: u64;
}

impl Bounded for u16 {
    const MAX: u64 = Self::MAX as u64;
}

impl Bounded for u32 {
    const MAX: u64 = Self::MAX as u64;
}

impl Bounded for u64 {
    const MAX: Self = Self::MAX;
}

impl Bounded for usize {
    const MAX: u64 = Self::MAX as u64;
}

fn json(what: &str) -> Result<Json, String> {
    match what {
        "object" => Ok(Json::Object),
        "events" => Ok(Json::Events),
        _ => Err("object or events, as in --json or --json=events".to_owned()),
    }
}

fn encryption(when: &str) -> Result<Encryption, String> {
    when.parse().map_err(|_| "prefer, require or off".to_owned())
}

fn io(method: &str) -> Result<Io, String> {
    method.parse().map_err(|_| "mmap, pwrite, uncached or auto".to_owned())
}

fn backend(name: &str) -> Result<Option<Backend>, String> {
    if name == "auto" {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| "uring, epoll or auto".to_owned())
}

fn peer(value: &str) -> Result<SocketAddr, String> {
    let addr = value.parse().map_err(|_| format!("'{value}' is not IP:PORT or [IPV6]:PORT"))?;
    check_dialable(addr).map(|()| addr).map_err(|error| format!("'{value}' is no peer: {error}"))
}

/// A peer, or the name of its host, which is looked up later.
fn peer_or_host(value: &str) -> Result<PeerAddr, String> {
    if let Ok(addr) = value.parse::<SocketAddr>() {
        return peer(value).map(|_| PeerAddr::Ip(addr));
    }
    PeerAddr::parse(value).ok_or_else(|| format!("'{value}' is not IP:PORT, [IPV6]:PORT or HOST:PORT"))
}
