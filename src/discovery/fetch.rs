//! A file by its URL: a torrent that a user names so.

use std::time::Duration;
use std::{error, fmt};

use super::http::{self, HttpError, Wish};
use super::url::{Scheme, Url, UrlError};
use crate::meta::bencode::{Limits, parse_prefix};
use crate::meta::inflate::unpack;
use crate::meta::torrent::METAINFO_LEN_MAX;

/// Why there is no file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// The URL cannot be fetched.
    Url(UrlError),
    /// `udp` is for trackers.
    NotAFile,
    /// There was no answer.
    Http(HttpError),
    /// The server has no such file for us.
    Status {
        /// The status code.
        status: u16,
        /// The words after it.
        reason: String,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::NotAFile => f.write_str("a udp URL is that of a tracker, not of a file"),
            Self::Http(error) => error.fmt(f),
            Self::Status { status, reason } => write!(f, "HTTP error {status} {reason}"),
        }
    }
}

impl error::Error for FetchError {}

/// Whether a text is meant as a URL that can be fetched.
pub fn is_url(text: &str) -> bool {
    let scheme = text.split("://").next().filter(|scheme| scheme.len() < text.len()).unwrap_or_default();
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Fetches a torrent within `timeout`. What a server has packed is unpacked; bytes that are no
/// bencode come as they are.
///
/// # Errors
/// When there is no such file, or it is not there in time. Neither names the URL, which may hold secrets: say
/// [`masked`](super::masked) of it.
pub fn torrent(url: &str, timeout: Duration) -> Result<Vec<u8>, FetchError> {
    let url = Url::parse(url).map_err(FetchError::Url)?;
    if url.scheme() == Scheme::Udp {
        return Err(FetchError::NotAFile);
    }
    let wish = Wish { len_max: METAINFO_LEN_MAX, timeout, is_whole };
    let reply = http::get(&url, wish).map_err(FetchError::Http)?;
    if !(200..300).contains(&reply.status) {
        return Err(FetchError::Status { status: reply.status, reason: reply.reason });
    }
    match unpack(&reply.body, METAINFO_LEN_MAX, is_bencode) {
        Some(unpacked) => Ok(unpacked),
        None => Ok(reply.body),
    }
}

fn is_whole(body: &[u8]) -> bool {
    is_bencode(body) || unpack(body, METAINFO_LEN_MAX, is_bencode).is_some()
}

fn is_bencode(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'd') && parse_prefix(bytes, Limits::METAINFO).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_files() {
        for text in ["http://h/x.torrent", "HTTPS://h", "https://user:pw@h/"] {
            assert!(is_url(text), "{text}");
        }
        for text in
            ["http:", "http", "x.torrent", "udp://h", "httpx://h", "./http://h", "magnet:?tr=http://h", ""]
        {
            assert!(!is_url(text), "{text}");
        }
    }
}
