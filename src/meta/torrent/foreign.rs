//! What a file is that was taken for a torrent.

use std::fmt;

/// A kind of file that is no torrent and is told by how it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// Nothing, or nothing but white space.
    Empty,
    /// A web page, or another text in tags: what a site gives to who is not logged in.
    WebPage,
    /// A text that holds a magnet link.
    MagnetLink,
    /// The address of a page or of a torrent.
    Address,
    /// JSON, as of an interface that tells of an error.
    Json,
    /// Text of two bytes a character: a torrent does not survive being saved as that.
    Utf16,
    /// A file of one of these formats, by its name.
    Format(&'static str),
}

/// How the files of a format begin, and its name.
const FORMATS: [(&[u8], &str); 11] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\xfd7zXZ\0", "packed with xz"),
    (b"BZh", "packed with bzip2"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (b"\x04\x22\x4d\x18", "packed with lz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"-----BEGIN ", "an encrypted or signed message"),
];

impl Foreign {
    /// What bytes are that are no bencode, if it can be told.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            return Some(Self::Utf16);
        }
        if let Some((_, name)) = FORMATS.iter().find(|(start, _)| bytes.starts_with(start)) {
            return Some(Self::Format(name));
        }
        let text = bytes.trim_ascii_start();
        let starts_with =
            |word: &[u8]| text.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
        match text.first() {
            None => Some(Self::Empty),
            Some(b'<') => Some(Self::WebPage),
            Some(b'{' | b'[') => Some(Self::Json),
            _ if starts_with(b"magnet:") => Some(Self::MagnetLink),
            _ if starts_with(b"http://") || starts_with(b"https://") => Some(Self::Address),
            _ => None,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty"),
            Self::WebPage => f.write_str("a web page, not a torrent; the site may want you to log in"),
            Self::MagnetLink => {
                f.write_str("a text with a magnet link, not a torrent; give the link itself, in quotes")
            }
            Self::Address => f.write_str("a text with an address, not a torrent; fetch what is there"),
            Self::Json => f.write_str("JSON, not a torrent"),
            Self::Utf16 => f.write_str("UTF-16 text, not a torrent; torrents cannot be saved as text"),
            Self::Format(name) => write!(f, "{name}, not a torrent; unpack it first"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_start() {
        for (bytes, expected) in [
            (&b""[..], Some("the file is empty")),
            (b" \r\n", Some("the file is empty")),
            (b"\n<!DOCTYPE html>", Some("a web page, not a torrent; the site may want you to log in")),
            (b"PK\x03\x04\x14", Some("a zip archive, not a torrent; unpack it first")),
            (b"\xfd7zXZ\0\0", Some("packed with xz, not a torrent; unpack it first")),
            (b"\xff\xfed\0", Some("UTF-16 text, not a torrent; torrents cannot be saved as text")),
            (b"{\"error\":1}", Some("JSON, not a torrent")),
            (
                b"Magnet:?xt=",
                Some("a text with a magnet link, not a torrent; give the link itself, in quotes"),
            ),
            (b"https://a/b", Some("a text with an address, not a torrent; fetch what is there")),
            (b"PK", None),
            (b"d8:announce", None),
        ] {
            assert_eq!(
                Foreign::of(bytes).map(|it| it.to_string()).as_deref(),
                expected,
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
