//! The smallest HTTP client there is, for what `minreq` cannot take: an IPv6 address in the place of the host. It speaks
//! HTTP/1.0, so an answer is a head and then a body, which ends with the connection or at its `Content-Length`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What came back, with the body as it was sent.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Why nothing came back.
pub(super) enum Failure {
    Io(io::Error),
    Malformed(&'static str),
    /// The body is longer than allowed.
    TooLarge,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The most that is read.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) head_len_max: usize,
    pub(super) body_len_max: usize,
}

/// Sends `request`, the head of an HTTP/1.0 request with its empty line, and reads the answer to its end.
pub(super) fn exchange(
    addr: SocketAddr,
    request: &[u8],
    limits: Limits,
    end: Instant,
) -> Result<Response, Failure> {
    let mut stream = TcpStream::connect_timeout(&addr, left(end)?)?;
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut part = vec![0; 16 * 1024];
    let mut head = None;
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        let len = match stream.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        bytes.extend_from_slice(&part[..len]);
        if head.is_none() {
            head = read_head(&bytes, limits.head_len_max)?;
        }
        let Some((head_len, response)) = &mut head else {
            if len == 0 {
                return Err(Failure::Malformed("it ends within its head"));
            }
            continue;
        };
        let whole = content_len(response).map_or(usize::MAX, |body| head_len.saturating_add(body));
        if bytes.len().min(whole) - *head_len > limits.body_len_max {
            return Err(Failure::TooLarge);
        }
        if len == 0 || bytes.len() >= whole {
            response.body = bytes[*head_len..bytes.len().min(whole)].to_vec();
            break;
        }
    }
    let (_, response) = head.ok_or(Failure::Malformed("it has no head"))?;
    Ok(response)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn content_len(response: &Response) -> Option<usize> {
    let found = response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    found.and_then(|(_, value)| value.parse().ok())
}

/// The head with its bytes, once it is there as a whole.
fn read_head(bytes: &[u8], len_max: usize) -> Result<Option<(usize, Response)>, Failure> {
    let Some(len) = bytes.windows(4).position(|at| at == b"\r\n\r\n").map(|at| at + 4) else {
        let too_long = bytes.len() > len_max;
        return if too_long { Err(Failure::Malformed("its head is too long")) } else { Ok(None) };
    };
    if len > len_max {
        return Err(Failure::Malformed("its head is too long"));
    }
    let text = String::from_utf8_lossy(&bytes[..len]);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|digits| digits.len() == 3).and_then(|digits| digits.parse().ok());
    let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
        return Err(Failure::Malformed("it has no status line"));
    };
    let reason = words.next().unwrap_or_default().to_owned();
    let split =
        |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(split).collect();
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        return Err(Failure::Malformed("it has chunks, which HTTP/1.0 has not"));
    }
    Ok(Some((len, Response { status, reason, headers, body: Vec::new() })))
}
