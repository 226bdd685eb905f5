//! What the command line may say.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use argh::{FromArgs, SubCommands};

use crate::disk::{Existing, Io};
use crate::download::{Encryption, check_dialable};
use crate::error::Error;
use crate::meta::magnet::PeerAddr;
use crate::net::backend::Backend;

/// Downloads torrents, fast, and verifies every byte.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} download -o debian.iso debian.torrent",
    note = "'{command_name} COMMAND --help' tells more of a command."
)]
struct Args {
    /// print the version and exit
    #[argh(switch, short = 'V')]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

/// The subcommands.
#[derive(FromArgs, Debug)]
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
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "decode", example = "{command_name} d3:foo3:bar5:helloi52ee")]
pub(super) struct Decode {
    /// the value, or - to read it from standard input
    #[argh(positional, from_str_fn(os_string))]
    pub(super) value: OsString,
}

/// Print what a torrent file says: tracker, length, info hash, pieces, files.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "info", example = "{command_name} debian.torrent")]
pub(super) struct Info {
    /// the torrent file, or a magnet link in quotes
    #[argh(positional)]
    pub(super) torrent: String,
    /// of a magnet link: ask this peer too, as IP:PORT, [IPV6]:PORT or HOST:PORT; may be given several times
    #[argh(option, from_str_fn(peer_or_host), arg_name = "host:port")]
    peer: Vec<PeerAddr>,
    /// of a magnet link: do not ask the DHT for peers
    #[argh(switch)]
    no_dht: bool,
    /// of a magnet link: do not look for peers on the local network
    #[argh(switch)]
    no_lsd: bool,
    /// of a magnet link: give up when no peer had it for so many seconds; 0: never (default: 60, or 20 where nobody is known)
    #[argh(option, arg_name = "seconds")]
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
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "peers", example = "{command_name} debian.torrent")]
pub(super) struct Peers {
    /// the torrent file
    #[argh(positional)]
    pub(super) torrent: String,
    /// print how many peers each tracker counts instead, one tracker a line
    #[argh(switch)]
    pub(super) scrape: bool,
}

/// Exchange handshakes with a peer and print its peer id.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "handshake", example = "{command_name} debian.torrent 192.0.2.7:6881")]
pub(super) struct Handshake {
    /// the torrent file
    #[argh(positional)]
    pub(super) torrent: String,
    /// the peer, as IP:PORT or [IPV6]:PORT
    #[argh(positional, from_str_fn(peer))]
    pub(super) peer: SocketAddr,
}

/// Defines subcommands that transfer content, with the options that all of them have beside their own arguments.
macro_rules! transfers {
    ($($(#[$attribute:meta])* struct $name:ident { $($own:tt)* })*) => { $(
        $(#[$attribute])*
        pub(super) struct $name {
            /// where it goes
            #[argh(option, short = 'o', long = "output", arg_name = "out")]
            pub(super) output: String,
            $($own)*
            /// ask this peer too, as IP:PORT, [IPV6]:PORT or HOST:PORT; may be given several times
            #[argh(option, from_str_fn(peer_or_host), arg_name = "host:port")]
            peer: Vec<PeerAddr>,
            /// let peers dial us at this port (default: one of 6881 to 6889, or any if they are taken; 0: nowhere)
            #[argh(option, arg_name = "n")]
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
            #[argh(option, default = "Encryption::Prefer", arg_name = "when")]
            encryption: Encryption,
            /// replace what the output holds
            #[argh(switch)]
            overwrite: bool,
            /// how to write: mmap, pwrite or auto (default: auto, which maps where the file system is good at it)
            #[argh(option, default = "Io::Auto", arg_name = "method")]
            io: Io,
            /// how to receive: uring, epoll or auto (default: auto, which takes io_uring where the kernel gives one)
            #[argh(option, from_str_fn(backend), arg_name = "name")]
            backend: Option<Option<Backend>>,
            /// wait until everything is on the disk
            #[argh(switch)]
            sync: bool,
            /// use at most so many cores (default: those the process may use)
            #[argh(option, arg_name = "n")]
            threads: Option<usize>,
            /// give up when nothing came for so many seconds; 0: never (default: 300, or 20 where nobody is known who could help)
            #[argh(option, arg_name = "seconds")]
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
                }
            }
        }
    )* };
}

transfers! {
    /// Download one piece of a torrent into a file.
    #[derive(FromArgs, Debug)]
    #[argh(subcommand, name = "download_piece", example = "{command_name} -o piece-0 debian.torrent 0")]
    struct DownloadPiece {
        /// the torrent file, or a magnet link in quotes
        #[argh(positional)]
        pub(super) torrent: String,
        /// the piece, counted from 0
        #[argh(positional)]
        pub(super) index: u32,
    }

    /// Download a torrent: into a file, or into a folder if it has several files.
    #[derive(FromArgs, Debug)]
    #[argh(
        subcommand,
        name = "download",
        example = "{command_name} -o debian.iso debian.torrent",
        note = "What is there already is kept: an interrupted download goes on when the same command is run again."
    )]
    struct Download {
        /// the torrent file, or a magnet link in quotes
        #[argh(positional)]
        pub(super) torrent: String,
        /// print a summary as a JSON object instead of the sentence
        #[argh(switch)]
        pub(super) json: bool,
    }

    /// Download one piece of what a magnet link names into a file.
    #[derive(FromArgs, Debug)]
    #[argh(
        subcommand,
        name = "magnet_download_piece",
        example = "{command_name} -o piece-0 'magnet:?xt=urn:btih:...' 0"
    )]
    struct MagnetDownloadPiece {
        /// the magnet link, in quotes
        #[argh(positional)]
        pub(super) link: String,
        /// the piece, counted from 0
        #[argh(positional)]
        pub(super) index: u32,
    }

    /// Download what a magnet link names: into a file, or into a folder if it has several files.
    #[derive(FromArgs, Debug)]
    #[argh(
        subcommand,
        name = "magnet_download",
        example = "{command_name} -o debian.iso 'magnet:?xt=urn:btih:...'"
    )]
    struct MagnetDownload {
        /// the magnet link, in quotes
        #[argh(positional)]
        pub(super) link: String,
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
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "magnet_parse", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetParse {
    /// the magnet link, in quotes
    #[argh(positional)]
    pub(super) link: String,
}

/// Exchange handshakes with a peer of a magnet link and print its peer id.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "magnet_handshake", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetHandshake {
    /// the magnet link, in quotes
    #[argh(positional)]
    pub(super) link: String,
}

/// Print what the torrent of a magnet link says, which peers tell.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "magnet_info", example = "{command_name} 'magnet:?xt=urn:btih:...'")]
pub(super) struct MagnetInfo {
    /// the magnet link, in quotes
    #[argh(positional)]
    pub(super) link: String,
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Text for stdout and nothing else.
    Help(String),
    /// A command to run.
    Command(Command),
}

/// Makes sense of the arguments after the program's name.
pub(super) fn parse(args: Vec<OsString>) -> Result<Parsed, Error> {
    // A bencoded value may be any bytes, also such that look like an option or are not text.
    if let [command, value] = args.as_slice()
        && command == "decode"
        && value != "--help"
        && value != "help"
    {
        return Ok(Parsed::Command(Command::Decode(Decode { value: value.clone() })));
    }
    let texts = args.iter().map(|arg| text(arg)).collect::<Result<Vec<_>, _>>()?;
    match Args::from_args(&["ringtide"], &texts) {
        Ok(Args { version: true, .. }) => {
            Ok(Parsed::Help(format!("ringtide {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Ok(Args { command: Some(command), .. }) => Ok(Parsed::Command(command)),
        Ok(Args { command: None, .. }) => {
            Err(Error::Usage("no command given; see 'ringtide --help'".to_owned()))
        }
        Err(exit) if exit.status.is_ok() => Ok(Parsed::Help(exit.output)),
        Err(exit) => Err(Error::Usage(one_line(&exit.output, &texts))),
    }
}

fn text(arg: &OsStr) -> Result<&str, Error> {
    arg.to_str().ok_or_else(|| Error::Usage(format!("'{}' is not valid UTF-8", arg.to_string_lossy())))
}

/// argh's complaints have several lines and begin with a capital; one line in the manner of our own errors is easier to
/// read and to grep.
fn one_line(output: &str, args: &[&str]) -> String {
    let text = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let complaint = text.split(" Run ringtide").next().unwrap_or_default().trim_end_matches('.');
    let mut rest = complaint.chars();
    let first = rest.next().map(|char| char.to_ascii_lowercase());
    let first = first.map(String::from).unwrap_or_default();
    let command = args.first().filter(|&arg| Command::COMMANDS.iter().any(|command| command.name == *arg));
    let command = command.map(|name| format!(" {name}")).unwrap_or_default();
    format!("{first}{}; see 'ringtide{command} --help'", rest.as_str())
}

#[expect(clippy::unnecessary_wraps, reason = "argh wants a Result")]
fn os_string(value: &str) -> Result<OsString, String> {
    Ok(value.into())
}

fn backend(name: &str) -> Result<Option<Backend>, String> {
    if name == "auto" { Ok(None) } else { name.parse().map(Some) }
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
