//! Metainfo (BEP 3): what a torrent holds, checked once, so that everything behind it can trust the numbers.
//!
//! After [`Metainfo::parse`] these hold: there is one hash for each piece of the geometry; the files lie end to end
//! from 0 to the total length in their order; their paths are safe and distinct (see [`names`]).
//! The bytes may come from a stranger, so every length, count and sum has a limit or is checked.

mod error;
mod foreign;
mod read;
mod trackers;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

pub use self::error::{Field, TorrentError};
pub use self::foreign::Foreign;
pub(super) use self::trackers::clean_url;
pub use self::trackers::{NODES_MAX, TRACKERS_MAX, URL_LEN_MAX};
pub use self::write::{info_of, is_our_torrent_file, torrent_file};
use super::bencode::{self, Document, Kind, Limits};
use super::charset::Charset;
use super::geometry::{Geometry, PieceIndex};
use super::hex;
use super::inflate::{inflate, is_gzip};
use super::magnet::{Magnet, PeerAddr};
use super::names;

/// Bytes of metainfo: room for [`PIECES_MAX`] hashes (80 MiB) and as many paths.
pub const METAINFO_LEN_MAX: usize = 128 << 20;
/// Pieces: 1 TiB in pieces of 256 KiB.
pub const PIECES_MAX: u32 = 1 << 22;
/// Bytes of a piece.
pub const PIECE_LEN_MAX: u32 = 512 << 20;
/// Files, pad files counted.
pub const FILES_MAX: usize = 1 << 18;
/// Elements of the path of a file.
pub const PATH_DEPTH_MAX: usize = 100;
/// Bytes of the path of a file, made safe: what is left of Linux' 4096 when the output folder has a path as well.
pub const PATH_LEN_MAX: usize = 3072;
/// Bytes of a file: what an offset of the kernel can be.
pub const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// What some editors put in front of a text.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The SHA-1 of the info dictionary's bytes: the name of a torrent everywhere on the network. Shown as 40 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// The hash of an info dictionary, given its bytes as they came.
    pub fn of(info: &[u8]) -> Self {
        Self(Sha1::digest(info).into())
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({self})")
    }
}

/// One file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Where it belongs: relative to the output folder, safe, and distinct from the paths of all other files that
    /// are not pads. The torrent's name is not part of it, except that it is the whole path of a single file.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
    /// Its first byte in the content.
    pub offset: u64,
    /// Whether it only fills up a piece (BEP 47): its bytes are zeros, and it is not written.
    pub pad: bool,
    /// Whether it is a program (BEP 47).
    pub executable: bool,
}

/// What a torrent says about its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    /// The torrent's name on the network.
    pub info_hash: InfoHash,
    /// How the content is cut into pieces.
    pub geometry: Geometry,
    piece_hashes: Box<[[u8; 20]]>,
    /// The suggested name of the file or folder, made safe; the info hash where there is none.
    pub name: String,
    /// The files, in the order of their bytes in the content; at least one.
    pub files: Vec<FileEntry>,
    /// Whether the content is one file instead of a folder.
    pub is_single_file: bool,
    /// The tracker of the key `announce`.
    pub announce: Option<String>,
    /// All trackers: lists to try in order (BEP 12), none of them empty. From `announce-list`, else `announce`.
    pub tiers: Vec<Vec<String>>,
    /// Whether peers may come only from the trackers (BEP 27).
    pub private: bool,
    /// The nodes of the DHT that the torrent names (BEP 5), at most [`NODES_MAX`]. A private torrent has none.
    pub nodes: Vec<PeerAddr>,
    /// The web seeds (BEP 17, BEP 19), at most [`WEB_SEEDS_MAX`](super::magnet::WEB_SEEDS_MAX).
    pub web_seeds: Vec<String>,
    /// The symbolic links (BEP 47) that were left out of the files. They could lead out of the output folder, and have
    /// no bytes in the content.
    pub symlinks: usize,
}

impl Metainfo {
    /// Reads a `.torrent` file, also one that is packed with gzip. What stands behind the end of the torrent, such as a
    /// line feed, is of no concern.
    pub fn parse(bytes: &[u8]) -> Result<Self, TorrentError> {
        let unpacked = unpacked(bytes)?;
        let bytes = unpacked.strip_prefix(UTF8_MARK).unwrap_or(&unpacked).trim_ascii_start();
        let document = open(bytes).map_err(|error| match Foreign::of(bytes) {
            Some(foreign) if !matches!(error, TorrentError::TooLong { .. }) => TorrentError::Foreign(foreign),
            _ => error,
        })?;
        let root = document.root();
        let info = root.get("info").ok_or(TorrentError::Missing(Field::new("info")))?;
        let mut metainfo = read::info(info, read::charset(root))?;
        metainfo.announce = trackers::announce(root);
        metainfo.tiers = trackers::tiers(root, metainfo.announce.as_ref());
        metainfo.web_seeds = trackers::web_seeds(root);
        if !metainfo.private {
            metainfo.nodes = trackers::nodes(root);
        }
        Ok(metainfo)
    }

    /// Reads an info dictionary alone, as peers send it (BEP 9). It knows no trackers, and ends where the bytes end.
    pub fn from_info(info: &[u8]) -> Result<Self, TorrentError> {
        let document = open(info)?;
        let root = document.root();
        match info.len() - root.raw().len() {
            0 => read::info(root, Charset::default()),
            count => {
                let reason = bencode::Reason::TrailingBytes { count };
                Err(bencode::ParseError { offset: root.raw().len(), reason }.into())
            }
        }
    }

    /// Reads the info dictionary that a link names, as peers send it (BEP 9), with the link's trackers: each in a tier
    /// of its own, as a link says nothing of tiers.
    pub fn from_magnet(magnet: &Magnet, info: &[u8]) -> Result<Self, TorrentError> {
        let got = InfoHash::of(info);
        if got != magnet.info_hash {
            return Err(TorrentError::OtherInfoHash { got, expected: magnet.info_hash });
        }
        let (announce, tiers) = (magnet.trackers.first().cloned(), magnet.tiers());
        Ok(Self { announce, tiers, web_seeds: magnet.web_seeds.clone(), ..Self::from_info(info)? })
    }

    /// The paths of all files in their order, on a file system with these rules: as they are on Linux, else with names
    /// that the file system takes, again distinct.
    pub fn paths(&self, rules: names::Rules) -> Vec<PathBuf> {
        let mut tree = names::Tree::with_rules(rules);
        let path = |file: &FileEntry| match rules {
            _ if file.pad => file.path.clone(),
            names::Rules::Linux => file.path.clone(),
            _ => tree.add(file.path.iter().map(OsStrExt::as_bytes)),
        };
        self.files.iter().map(path).collect()
    }

    /// The SHA-1 that a piece must have.
    pub fn piece_hash(&self, piece: PieceIndex) -> &[u8; 20] {
        &self.piece_hashes[piece.at()]
    }

    /// The hashes of all pieces in order.
    pub fn piece_hashes(&self) -> &[[u8; 20]] {
        &self.piece_hashes
    }
}

/// The torrent in a file, which may be packed with gzip, and again.
fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, TorrentError> {
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..PACKINGS_MAX {
        if !is_gzip(&bytes) {
            break;
        }
        bytes = inflate(&bytes, METAINFO_LEN_MAX).map_err(TorrentError::Packed)?.into();
    }
    Ok(bytes)
}

/// How often a torrent may be packed: by its maker and by a server.
const PACKINGS_MAX: usize = 2;

/// Parses the dictionary at the start of bytes of a length that is allowed.
fn open(bytes: &[u8]) -> Result<Document<'_>, TorrentError> {
    if bytes.len() > METAINFO_LEN_MAX {
        return Err(TorrentError::TooLong { len: bytes.len() });
    }
    let (document, _) = bencode::parse_prefix(bytes, Limits::METAINFO)?;
    match document.root().kind() {
        Kind::Dict => Ok(document),
        got => Err(TorrentError::NotADict { got }),
    }
}

#[cfg(test)]
mod tests;
