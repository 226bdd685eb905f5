//! What a torrent is named by on the command line: a file, standard input, a URL or a magnet link.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::discovery::{fetch, masked};
use crate::error::Error;
use crate::meta::about::About;
use crate::meta::magnet::{Magnet, is_magnet};
use crate::meta::torrent::{InfoHash, METAINFO_LEN_MAX, Metainfo};

/// How long the fetch of a torrent from a URL may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// The name of standard input among files.
const STDIN: &str = "-";

/// Where a torrent is.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Stdin,
    Url(String),
    Link(Box<Magnet>),
}

/// What is known of a torrent.
pub(super) enum Content {
    /// All of it.
    Torrent(Box<Torrent>),
    /// Its name, and where to ask for the rest.
    Link(Box<Magnet>),
}

/// A torrent as it was read.
pub(super) struct Torrent {
    pub(super) metainfo: Metainfo,
    pub(super) about: About,
}

/// What trackers and peers have to be told of a torrent.
pub(super) struct Named {
    pub(super) info_hash: InfoHash,
    pub(super) tiers: Vec<Vec<String>>,
    /// Bytes of the content; 1 where they are not known or there are none, as trackers want to hear of some.
    pub(super) len: u64,
}

impl Source {
    /// What a word means. A file of that name is meant before all else.
    pub(super) fn of(word: &OsStr) -> Result<Self, Error> {
        if word == STDIN {
            return Ok(Self::Stdin);
        }
        let path = Path::new(word);
        let Some(text) = word.to_str().filter(|_| !path.exists()) else {
            return Ok(Self::File(path.to_owned()));
        };
        if fetch::is_url(text) {
            return Ok(Self::Url(text.to_owned()));
        }
        if let Some(path) = file_url(text) {
            return Ok(Self::File(path));
        }
        if is_magnet(text) {
            return Magnet::parse(text).map(|link| Self::Link(Box::new(link))).map_err(Error::Magnet);
        }
        Ok(Self::File(path.to_owned()))
    }

    /// Reads the torrent, or the link.
    pub(super) fn read(self) -> Result<Content, Error> {
        let (name, bytes) = match self {
            Self::Link(link) => return Ok(Content::Link(link)),
            Self::File(path) => {
                let file = File::open(&path).map_err(|error| Error::Read { path: path.clone(), error })?;
                let bytes = read_limited(file, &path)?;
                (path, bytes)
            }
            Self::Stdin => (STDIN.into(), read_stdin()?),
            Self::Url(url) => {
                let bytes = fetch::torrent(&url, FETCH_TIMEOUT);
                let url = masked(&url);
                (url.clone().into(), bytes.map_err(|error| Error::Fetch { url, why: error.to_string() })?)
            }
        };
        let metainfo = Metainfo::parse(&bytes).map_err(|error| Error::Torrent { path: name, error })?;
        Ok(Content::Torrent(Box::new(Torrent { metainfo, about: About::parse(&bytes) })))
    }
}

impl Content {
    /// Its name on the network, and its trackers.
    pub(super) fn named(self) -> Named {
        match self {
            Self::Link(link) => Named { info_hash: link.info_hash, tiers: link.tiers(), len: 1 },
            Self::Torrent(torrent) => {
                let Metainfo { info_hash, geometry, tiers, .. } = torrent.metainfo;
                Named { info_hash, tiers, len: geometry.total_len().max(1) }
            }
        }
    }
}

/// Whether a word without a command before it names a torrent, rather than being misspelt.
pub(super) fn is_likely(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let looks_like_a_path = bytes.contains(&b'/') || bytes.to_ascii_lowercase().ends_with(b".torrent");
    let text = word.to_str().unwrap_or_default();
    word == STDIN || looks_like_a_path || Path::new(word).exists() || is_magnet(text)
}

/// The path that a `file:` URL of this machine stands for.
fn file_url(text: &str) -> Option<PathBuf> {
    let rest = text.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    path.starts_with('/').then(|| {
        let bytes = crate::meta::magnet::percent_decode(path.as_bytes());
        PathBuf::from(OsStr::from_bytes(&bytes))
    })
}

/// Everything on standard input, up to what a torrent may have.
pub(super) fn read_stdin() -> Result<Vec<u8>, Error> {
    read_limited(io::stdin().lock(), Path::new(STDIN))
}

fn read_limited(source: impl Read, path: &Path) -> Result<Vec<u8>, Error> {
    let max = METAINFO_LEN_MAX as u64;
    let mut bytes = Vec::new();
    let read = source.take(max + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| Error::Read { path: path.to_owned(), error })?;
    if read as u64 > max { Err(Error::TooLarge { path: path.to_owned(), max }) } else { Ok(bytes) }
}
