//! The info dictionary: from values to checked numbers and safe paths.

use super::{
    FILE_LEN_MAX, FILES_MAX, Field, FileEntry, InfoHash, Metainfo, PATH_DEPTH_MAX, PATH_LEN_MAX,
    PIECE_LEN_MAX, PIECES_MAX, TorrentError,
};
use crate::meta::bencode::{Kind, List, Value};
use crate::meta::geometry::Geometry;
use crate::meta::names;

/// Digits of a number that an error repeats.
const DIGITS_SHOWN_MAX: usize = 24;

/// Reads an info dictionary. The trackers stand outside of it and are left empty.
pub(super) fn info(info: Value<'_>) -> Result<Metainfo, TorrentError> {
    expect(info, Field::new("info"), Kind::Dict)?;
    if info.get("pieces").is_none() && info.get("meta version").is_some_and(|it| it.as_u64() == Some(2)) {
        return Err(TorrentError::V2Only);
    }
    let info_hash = InfoHash::of(info.raw());
    let name = match preferred(info, "name.utf-8", "name") {
        Some((key, name)) => names::element(string(name, Field::new(key))?),
        None => None,
    };
    let name = name.unwrap_or_else(|| info_hash.to_string());
    let piece_len = number(info, Field::new("piece length"), 1, u64::from(PIECE_LEN_MAX))?;
    let (files, is_single_file) = match (info.get("length"), info.get("files")) {
        (Some(_), Some(_)) => return Err(TorrentError::LengthAndFiles),
        (None, None) => return Err(TorrentError::NeitherLengthNorFiles),
        (Some(_), None) => (vec![single_file(info, &name)?], true),
        (None, Some(files)) => (file_list(files)?, false),
    };
    let total_len = files.last().map_or(0, |file| file.offset + file.len);
    let geometry = geometry(total_len, piece_len)?;
    Ok(Metainfo {
        info_hash,
        geometry,
        piece_hashes: piece_hashes(info, geometry)?,
        name,
        files,
        is_single_file,
        announce: None,
        tiers: Vec::new(),
        private: info.get("private").is_some_and(|private| private.as_u64() == Some(1)),
    })
}

fn geometry(total_len: u64, piece_len: u64) -> Result<Geometry, TorrentError> {
    let count = total_len.div_ceil(piece_len);
    let geometry = u32::try_from(piece_len).ok().and_then(|piece_len| Geometry::new(total_len, piece_len));
    geometry.filter(|it| it.piece_count() <= PIECES_MAX).ok_or(TorrentError::TooManyPieces { count })
}

/// One hash for each piece.
fn piece_hashes(info: Value<'_>, geometry: Geometry) -> Result<Box<[[u8; 20]]>, TorrentError> {
    let pieces = info.get("pieces").ok_or(TorrentError::Missing(Field::new("pieces")))?;
    let bytes = string(pieces, Field::new("pieces"))?;
    let (hashes, rest) = bytes.as_chunks::<20>();
    if !rest.is_empty() {
        return Err(TorrentError::PiecesLen { len: bytes.len() });
    }
    if hashes.len() != geometry.piece_count() as usize {
        return Err(TorrentError::PieceCount { got: hashes.len(), expected: geometry.piece_count() });
    }
    Ok(hashes.into())
}

fn single_file(info: Value<'_>, name: &str) -> Result<FileEntry, TorrentError> {
    let len = number(info, Field::new("length"), 0, FILE_LEN_MAX)?;
    if has_attribute(info, b'l') {
        return Err(TorrentError::Symlink { file: None });
    }
    Ok(FileEntry { path: name.into(), len, offset: 0, pad: false })
}

fn file_list(files: Value<'_>) -> Result<Vec<FileEntry>, TorrentError> {
    let mut tree = names::Tree::new();
    let mut offset: u64 = 0;
    let mut entries = Vec::new();
    for (index, file) in list(files, Field::new("files"))?.enumerate() {
        if index == FILES_MAX {
            return Err(TorrentError::TooManyFiles);
        }
        let entry = file_entry(file, index, offset, &mut tree)?;
        let end = offset.checked_add(entry.len).filter(|end| *end <= FILE_LEN_MAX);
        offset = end.ok_or(TorrentError::TotalTooLong)?;
        entries.push(entry);
    }
    if entries.is_empty() { Err(TorrentError::NoFiles) } else { Ok(entries) }
}

fn file_entry(
    file: Value<'_>,
    index: usize,
    offset: u64,
    tree: &mut names::Tree,
) -> Result<FileEntry, TorrentError> {
    expect(file, Field::of_file("entry", index), Kind::Dict)?;
    let len = number(file, Field::of_file("length", index), 0, FILE_LEN_MAX)?;
    if has_attribute(file, b'l') {
        return Err(TorrentError::Symlink { file: Some(index) });
    }
    let (key, path) =
        preferred(file, "path.utf-8", "path").ok_or(TorrentError::Missing(Field::of_file("path", index)))?;
    let field = Field::of_file(key, index);
    let elements = list(path, field)?.take(PATH_DEPTH_MAX + 1).map(|element| string(element, field));
    let elements: Vec<&[u8]> = elements.collect::<Result<_, _>>()?;
    if elements.len() > PATH_DEPTH_MAX {
        return Err(TorrentError::PathTooDeep { file: index });
    }
    let pad = has_attribute(file, b'p') || (elements.len() > 1 && elements[0] == b".pad");
    // Pads are never created, so they take no name from a file that is; many have the same one.
    let path = if pad { names::Tree::new().add(elements) } else { tree.add(elements) };
    if path.as_os_str().len() > PATH_LEN_MAX {
        return Err(TorrentError::PathTooLong { file: index });
    }
    Ok(FileEntry { path, len, offset, pad })
}

/// Whether the flags of a file (BEP 47) have one.
fn has_attribute(file: Value<'_>, flag: u8) -> bool {
    file.get("attr").and_then(Value::as_bytes).is_some_and(|flags| flags.contains(&flag))
}

/// The value of the key that is known to be UTF-8, else of the usual one.
fn preferred<'a>(
    dict: Value<'a>,
    utf8: &'static str,
    usual: &'static str,
) -> Option<(&'static str, Value<'a>)> {
    [utf8, usual].into_iter().find_map(|key| Some((key, dict.get(key)?)))
}

fn number(dict: Value<'_>, field: Field, min: u64, max: u64) -> Result<u64, TorrentError> {
    let value = dict.get(field.key).ok_or(TorrentError::Missing(field))?;
    expect(value, field, Kind::Integer)?;
    if let Some(number) = value.as_u64().filter(|number| (min..=max).contains(number)) {
        return Ok(number);
    }
    let digits = value.as_digits().unwrap_or_default();
    let got = match digits.get(..DIGITS_SHOWN_MAX) {
        Some(start) if start.len() < digits.len() => format!("{start}..."),
        _ => digits.to_owned(),
    };
    Err(TorrentError::OutOfRange { field, got, min, max })
}

fn string(value: Value<'_>, field: Field) -> Result<&[u8], TorrentError> {
    value.as_bytes().ok_or_else(|| wrong_kind(value, field, Kind::Bytes))
}

fn list(value: Value<'_>, field: Field) -> Result<List<'_>, TorrentError> {
    value.as_list().ok_or_else(|| wrong_kind(value, field, Kind::List))
}

fn expect(value: Value<'_>, field: Field, kind: Kind) -> Result<(), TorrentError> {
    if value.kind() == kind { Ok(()) } else { Err(wrong_kind(value, field, kind)) }
}

fn wrong_kind(value: Value<'_>, field: Field, expected: Kind) -> TorrentError {
    TorrentError::WrongKind { field, expected, got: value.kind() }
}
