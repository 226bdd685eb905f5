//! Why bytes are not a torrent that can be downloaded.

use std::fmt;

use super::{FILES_MAX, Foreign, InfoHash, METAINFO_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX, PIECES_MAX};
use crate::meta::bencode::{Kind, ParseError};
use crate::meta::inflate::InflateError;

/// A key of the metainfo, shown as it is written there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// The place in `files` of the dictionary that has it; `None` for keys outside of `files`.
    pub file: Option<usize>,
}

impl Field {
    /// A key of the info dictionary or of the torrent.
    pub const fn new(key: &'static str) -> Self {
        Self { key, file: None }
    }

    /// A key of one file.
    pub const fn of_file(key: &'static str, file: usize) -> Self {
        Self { key, file: Some(file) }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            None => write!(f, "`{}`", self.key),
            Some(file) => write!(f, "`{}` of `files[{file}]`", self.key),
        }
    }
}

/// What is wrong with a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TorrentError {
    /// It is longer than [`METAINFO_LEN_MAX`].
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It is not bencode.
    Bencode(ParseError),
    /// It is packed with gzip and cannot be unpacked.
    Packed(InflateError),
    /// It is a file of another kind.
    Foreign(Foreign),
    /// The outermost value is not a dictionary.
    NotADict {
        /// What it is.
        got: Kind,
    },
    /// A key is not there.
    Missing(Field),
    /// A key has a value of the wrong kind.
    WrongKind {
        /// The key.
        field: Field,
        /// What the value should be.
        expected: Kind,
        /// What it is.
        got: Kind,
    },
    /// A number is too small or too large.
    OutOfRange {
        /// Its key.
        field: Field,
        /// Its digits, shortened where there are very many.
        got: String,
        /// The smallest that is allowed.
        min: u64,
        /// The largest that is allowed.
        max: u64,
    },
    /// It is the info dictionary of another torrent.
    OtherInfoHash {
        /// Its hash.
        got: InfoHash,
        /// The hash it should have.
        expected: InfoHash,
    },
    /// It describes its content for BitTorrent v2 (BEP 52) alone.
    V2Only,
    /// There are more or fewer piece hashes than the content has pieces.
    PieceCount {
        /// How many hashes there are.
        got: usize,
        /// How many pieces the content has.
        expected: u32,
    },
    /// The content has more pieces than [`PIECES_MAX`].
    TooManyPieces {
        /// How many it has.
        count: u64,
    },
    /// Neither `length` nor `files` is there.
    NeitherLengthNorFiles,
    /// The list `files` names no file that could be downloaded.
    NoFiles,
    /// There are more files than [`FILES_MAX`].
    TooManyFiles,
    /// The lengths of the files sum up to more than a number holds.
    TotalTooLong,
    /// A path has more elements than [`PATH_DEPTH_MAX`].
    PathTooDeep {
        /// The file's place in `files`.
        file: usize,
    },
    /// A path has more bytes than [`PATH_LEN_MAX`].
    PathTooLong {
        /// The file's place in `files`.
        file: usize,
    },
}

impl fmt::Display for TorrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => {
                write!(f, "{len} bytes of metainfo, at most {METAINFO_LEN_MAX} are read")
            }
            Self::Bencode(error) => write!(f, "not bencode at {error}"),
            Self::Packed(error) => write!(f, "packed with gzip: {error}"),
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::NotADict { got } => write!(f, "expected {}, got {got}", Kind::Dict),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::WrongKind { field, expected, got } => write!(f, "{field} is {got}, expected {expected}"),
            Self::OutOfRange { field, got, min, max } => {
                write!(f, "{field} is {got}, expected {min} to {max}")
            }
            Self::OtherInfoHash { got, expected } => write!(f, "its info hash is {got}, expected {expected}"),
            Self::V2Only => f.write_str("BitTorrent v2 only: it has no v1 piece hashes to download by"),
            Self::PieceCount { got, expected } => {
                write!(f, "`pieces` has {got} hashes, expected {expected} for the content's length")
            }
            Self::TooManyPieces { count } => write!(f, "{count} pieces, at most {PIECES_MAX} are supported"),
            Self::NeitherLengthNorFiles => f.write_str("neither `length` nor `files` is there"),
            Self::NoFiles => f.write_str("`files` names no file"),
            Self::TooManyFiles => write!(f, "`files` has more than {FILES_MAX} files"),
            Self::TotalTooLong => f.write_str("the lengths of the files sum up to 2^63 bytes or more"),
            Self::PathTooDeep { file } => {
                write!(f, "{} has more than {PATH_DEPTH_MAX} elements", Field::of_file("path", *file))
            }
            Self::PathTooLong { file } => {
                write!(f, "{} is longer than {PATH_LEN_MAX} bytes", Field::of_file("path", *file))
            }
        }
    }
}

impl std::error::Error for TorrentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bencode(error) => Some(error),
            Self::Packed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ParseError> for TorrentError {
    fn from(error: ParseError) -> Self {
        Self::Bencode(error)
    }
}
