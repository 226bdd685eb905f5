//! The info dictionary: from values to checked numbers and safe paths.

use std::borrow::Cow;

use super::{
    FILE_LEN_MAX, FILES_MAX, Field, FileEntry, InfoHash, Metainfo, PATH_DEPTH_MAX, PATH_LEN_MAX,
    PIECE_LEN_MAX, PIECES_MAX, TorrentError,
};
use crate::meta::bencode::{Kind, List, Value};
use crate::meta::charset::Charset;
use crate::meta::geometry::Geometry;
use crate::meta::names;

/// Digits of a number that an error repeats.
const DIGITS_SHOWN_MAX: usize = 24;

/// Reads an info dictionary whose texts have that encoding. What stands outside of it is left empty.
pub(super) fn info(info: Value<'_>, charset: Charset) -> Result<Metainfo, TorrentError> {
    expect(info, Field::new("info"), Kind::Dict)?;
    if info.get("pieces").is_none() && info.get("meta version").is_some_and(|it| it.as_u64() == Some(2)) {
        return Err(TorrentError::V2Only);
    }
    let info_hash = InfoHash::of(info.raw());
    let name = name(info, charset).unwrap_or_else(|| info_hash.to_string());
    let piece_len = number(info, Field::new("piece length"), 1, u64::from(PIECE_LEN_MAX))?;
    let content = content(info, &name, piece_len, charset)?;
    let geometry = geometry(content.len(), piece_len)?;
    Ok(Metainfo {
        info_hash,
        geometry,
        piece_hashes: piece_hashes(info, geometry)?,
        name,
        files: content.files,
        is_single_file: content.is_single_file,
        announce: None,
        tiers: Vec::new(),
        private: info.get("private").is_some_and(is_private),
        nodes: Vec::new(),
        web_seeds: Vec::new(),
        symlinks: content.symlinks,
    })
}

/// The encoding that a torrent declares.
pub(super) fn charset(root: Value<'_>) -> Charset {
    let named = root.get("encoding").and_then(Value::as_bytes).map(Charset::named);
    let named = named.filter(|charset| *charset != Charset::default());
    named.or_else(|| root.get("codepage")?.as_u64().map(Charset::code_page)).unwrap_or_default()
}

/// The suggested name, made safe: of the key that is known to be UTF-8 if that has one, else of the usual one.
fn name(info: Value<'_>, charset: Charset) -> Option<String> {
    let known = info.get("name.utf-8").and_then(Value::as_str);
    known.and_then(|name| names::element(name.as_bytes())).or_else(|| {
        let name = info.get("name")?.as_bytes()?;
        names::element(&charset.decode(name))
    })
}

/// Whether the value of `private` means that it is: all but 0. Of a text, what it would be as a number, because who
/// wrote it meant so and a peer too many can cost the account at the tracker.
fn is_private(value: Value<'_>) -> bool {
    let text = value.as_digits().map(str::as_bytes).or_else(|| value.as_bytes()).unwrap_or_default();
    text.iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The files of a torrent.
struct Content {
    files: Vec<FileEntry>,
    is_single_file: bool,
    symlinks: usize,
}

impl Content {
    /// Bytes of all files.
    fn len(&self) -> u64 {
        self.files.last().map_or(0, |file| file.offset + file.len)
    }
}

/// What `files` or `length` say. Of both the first is meant, unless only the other fits the piece hashes.
fn content(info: Value<'_>, name: &str, piece_len: u64, charset: Charset) -> Result<Content, TorrentError> {
    match (info.get("length"), info.get("files")) {
        (None, None) => Err(TorrentError::NeitherLengthNorFiles),
        (Some(_), None) => single_file(info, name),
        (None, Some(files)) => file_list(files, charset),
        (Some(_), Some(files)) => {
            let hashes = info.get("pieces").and_then(Value::as_bytes).map_or(0, |bytes| bytes.len() / 20);
            let fits = |content: &Content| content.len().div_ceil(piece_len) == hashes as u64;
            let listed = file_list(files, charset);
            if listed.as_ref().is_ok_and(fits) {
                return listed;
            }
            single_file(info, name).ok().filter(fits).map_or(listed, Ok)
        }
    }
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
    // A rest that is no hash belongs to no piece.
    let (hashes, _) = bytes.as_chunks::<20>();
    if hashes.len() != geometry.piece_count() as usize {
        return Err(TorrentError::PieceCount { got: hashes.len(), expected: geometry.piece_count() });
    }
    Ok(hashes.into())
}

/// The only file. It is one even if it is called a symbolic link: its bytes are what the hashes are of.
fn single_file(info: Value<'_>, name: &str) -> Result<Content, TorrentError> {
    let len = number(info, Field::new("length"), 0, FILE_LEN_MAX)?;
    let executable = has_attribute(info, b'x');
    let file = FileEntry { path: name.into(), len, offset: 0, pad: false, executable };
    Ok(Content { files: vec![file], is_single_file: true, symlinks: 0 })
}

fn file_list(files: Value<'_>, charset: Charset) -> Result<Content, TorrentError> {
    let mut tree = names::Tree::new();
    let mut offset: u64 = 0;
    let mut content = Content { files: Vec::new(), is_single_file: false, symlinks: 0 };
    for (index, file) in list(files, Field::new("files"))?.enumerate() {
        if index == FILES_MAX {
            return Err(TorrentError::TooManyFiles);
        }
        if file.kind() != Kind::Dict {
            // It has no bytes in the content.
            continue;
        }
        if has_attribute(file, b'l') {
            content.symlinks += 1;
            continue;
        }
        let entry = file_entry(file, index, offset, charset, &mut tree)?;
        let end = offset.checked_add(entry.len).filter(|end| *end <= FILE_LEN_MAX);
        offset = end.ok_or(TorrentError::TotalTooLong)?;
        content.files.push(entry);
    }
    if content.files.is_empty() { Err(TorrentError::NoFiles) } else { Ok(content) }
}

fn file_entry(
    file: Value<'_>,
    index: usize,
    offset: u64,
    charset: Charset,
    tree: &mut names::Tree,
) -> Result<FileEntry, TorrentError> {
    let len = number(file, Field::of_file("length", index), 0, FILE_LEN_MAX)?;
    let pad = has_attribute(file, b'p');
    // Pads are never created, so they need no path and take no name from a file that is.
    let path = if pad {
        format!(".pad/{len}").into()
    } else {
        tree.add(path(file, index, charset)?.iter().map(|element| &**element))
    };
    if path.as_os_str().len() > PATH_LEN_MAX {
        return Err(TorrentError::PathTooLong { file: index });
    }
    Ok(FileEntry { path, len, offset, pad, executable: !pad && has_attribute(file, b'x') })
}

/// The elements of a file's path: of the key that is known to be UTF-8 if that has a name, else of the usual one.
fn path(file: Value<'_>, index: usize, charset: Charset) -> Result<Vec<Cow<'_, [u8]>>, TorrentError> {
    let known = || {
        let elements = file.get("path.utf-8")?.as_list()?.take(PATH_DEPTH_MAX + 1);
        let elements: Vec<Cow<'_, [u8]>> =
            elements.map(|element| Some(element.as_str()?.as_bytes().into())).collect::<Option<_>>()?;
        elements.iter().any(|element| names::element(element).is_some()).then_some(elements)
    };
    let usual = || {
        let field = Field::of_file("path", index);
        let elements = list(file.get("path").ok_or(TorrentError::Missing(field))?, field)?;
        let decoded = |element| Ok(charset.decode(string(element, field)?));
        elements.take(PATH_DEPTH_MAX + 1).map(decoded).collect::<Result<Vec<_>, TorrentError>>()
    };
    let elements = known().map_or_else(usual, Ok)?;
    if elements.len() > PATH_DEPTH_MAX {
        Err(TorrentError::PathTooDeep { file: index })
    } else {
        Ok(elements)
    }
}

/// Whether the flags of a file (BEP 47) have one.
fn has_attribute(file: Value<'_>, flag: u8) -> bool {
    file.get("attr").and_then(Value::as_bytes).is_some_and(|flags| flags.contains(&flag))
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
        _ if digits.is_empty() => "no number".to_owned(),
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
