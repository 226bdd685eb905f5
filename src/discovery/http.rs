//! One HTTP or HTTPS request: blocking, with a deadline for the whole of it and a cap on everything a server sends.
//!
//! `minreq` does the protocol. What it leaves to its caller is done here: it has no cap on a body, follows redirects
//! to wherever they lead, and panics on a reply whose head exceeds its limit in a certain way (a subtraction
//! underflows; built without overflow checks, the limit would be gone instead, which is why the manifest keeps them
//! on). Such a panic is caught and becomes an error like any other. What it cannot take, an IPv6 address as the host of
//! an `http` URL, goes through `plain`.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};
use std::{error, fmt};

use super::plain::{self, Failure, Limits};
use super::url::{Host, Scheme, Url, UrlError};

/// Bytes of the largest body that is read.
pub const TRACKER_REPLY_LEN_MAX: usize = 1024 * 1024;

/// Redirects followed before giving up.
pub const REDIRECTS_MAX: usize = 5;

/// Bytes of the status line, and of all headers together.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Bytes taken from the connection at a time.
const READ_LEN: usize = 16 * 1024;

const USER_AGENT: &str = concat!("ringtide/", env!("CARGO_PKG_VERSION"));

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpReply {
    /// The status code, such as 200; never a redirect that was followed.
    pub status: u16,
    /// The words after it.
    pub reason: String,
    /// At most [`TRACKER_REPLY_LEN_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// It was not there in time.
    TimedOut {
        /// How long was waited.
        timeout: Duration,
    },
    /// The name was not found, or the connection refused, reset or not trusted.
    Io {
        /// The kind, for programs.
        kind: io::ErrorKind,
        /// The system's words.
        text: String,
    },
    /// What came back is not HTTP, or has a head of more than the allowed bytes.
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// The body is larger than [`TRACKER_REPLY_LEN_MAX`].
    TooLarge,
    /// The body is compressed, which was not asked for.
    Compressed {
        /// The `Content-Encoding`.
        encoding: String,
    },
    /// More than [`REDIRECTS_MAX`] redirects.
    TooManyRedirects,
    /// A redirect that does not say where to.
    RedirectWithoutLocation,
    /// A redirect to what is not followed.
    Redirect {
        /// Where it leads.
        location: String,
        /// Why it is not followed.
        error: UrlError,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { timeout } => write!(f, "no answer within {:.1} s", timeout.as_secs_f32()),
            Self::Io { text, .. } => f.write_str(text),
            Self::Malformed { text } => write!(f, "the answer is not proper HTTP: {text}"),
            Self::TooLarge => write!(f, "the answer is larger than {TRACKER_REPLY_LEN_MAX} bytes"),
            Self::Compressed { encoding } => write!(f, "the answer is in unasked-for encoding {encoding:?}"),
            Self::TooManyRedirects => write!(f, "redirected more than {REDIRECTS_MAX} times"),
            Self::RedirectWithoutLocation => f.write_str("redirected without saying where to"),
            Self::Redirect { location, error } => write!(f, "redirected to {location:?}: {error}"),
        }
    }
}

impl error::Error for HttpError {}

/// Fetches `url`, following redirects, and waits for all of it, at most `timeout` rounded up to a second. Never
/// panics.
///
/// A name lookup or a TLS handshake cannot be interrupted; when it outlasts the deadline, the thread that `minreq`
/// runs it on is left behind and ends by itself.
pub fn get(url: &Url, timeout: Duration) -> Result<HttpReply, HttpError> {
    let deadline = Deadline { timeout, at: Instant::now() + timeout };
    let mut url = url.clone();
    for _ in 0..=REDIRECTS_MAX {
        match contain_panics(|| fetch(&url, &deadline))? {
            Answer::Final(reply) => return Ok(reply),
            Answer::Redirect { location } => {
                url = url.resolve(&location).map_err(|error| HttpError::Redirect { location, error })?;
            }
        }
    }
    Err(HttpError::TooManyRedirects)
}

enum Answer {
    Final(HttpReply),
    Redirect { location: String },
}

struct Deadline {
    timeout: Duration,
    at: Instant,
}

impl Deadline {
    const fn error(&self) -> HttpError {
        HttpError::TimedOut { timeout: self.timeout }
    }

    /// What is left of the time, which must be something.
    fn left(&self) -> Result<Duration, HttpError> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.error()) } else { Ok(left) }
    }

    fn io_error(&self, error: &io::Error) -> HttpError {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => self.error(),
            // `minreq` wraps what it dislikes about chunks and trailers in errors of this kind.
            io::ErrorKind::Other => HttpError::Malformed { text: error.to_string() },
            kind => HttpError::Io { kind, text: error.to_string() },
        }
    }
}

/// One request, one answer.
fn fetch(url: &Url, deadline: &Deadline) -> Result<Answer, HttpError> {
    match (url.scheme(), url.host()) {
        (Scheme::Http, Host::V6(ip)) => fetch_plain(url, SocketAddr::from((*ip, url.port())), deadline),
        (Scheme::Udp, _) => Err(HttpError::Malformed { text: "udp URLs are not for HTTP".to_owned() }),
        _ => fetch_named(url, deadline),
    }
}

fn fetch_plain(url: &Url, addr: SocketAddr, deadline: &Deadline) -> Result<Answer, HttpError> {
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target(),
        url.authority()
    );
    let limits = Limits { head_len_max: HEAD_LEN_MAX, body_len_max: TRACKER_REPLY_LEN_MAX };
    let response = plain::exchange(addr, request.as_bytes(), limits, deadline.at);
    let response = response.map_err(|failure| match failure {
        Failure::Io(error) => deadline.io_error(&error),
        Failure::Malformed(text) => HttpError::Malformed { text: text.to_owned() },
        Failure::TooLarge => HttpError::TooLarge,
    })?;
    let find = |name: &str| {
        let found = response.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    if let Some(redirect) = redirect(response.status, find)? {
        return Ok(redirect);
    }
    let reason = super::tracker::clean_text(response.reason.trim().as_bytes());
    Ok(Answer::Final(HttpReply { status: response.status, reason, body: response.body }))
}

/// What status and headers say: where to look instead, or that the body cannot be read.
fn redirect(status: u16, header: impl Fn(&str) -> Option<String>) -> Result<Option<Answer>, HttpError> {
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        let location = header("location").ok_or(HttpError::RedirectWithoutLocation)?;
        return Ok(Some(Answer::Redirect { location }));
    }
    match header("content-encoding") {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(HttpError::Compressed { encoding })
        }
        _ => Ok(None),
    }
}

fn fetch_named(url: &Url, deadline: &Deadline) -> Result<Answer, HttpError> {
    // `minreq` counts in seconds.
    let timeout_secs = deadline.left()?.as_millis().div_ceil(1000) as u64;
    let response = minreq::get(url.to_string())
        .with_header("User-Agent", USER_AGENT)
        .with_header("Accept", "*/*")
        .with_header("Connection", "close")
        .with_follow_redirects(false)
        .with_max_headers_size(HEAD_LEN_MAX)
        .with_max_status_line_length(HEAD_LEN_MAX)
        .with_timeout(timeout_secs)
        .send_lazy();
    let response = response.map_err(|error| match error {
        minreq::Error::IoError(error) => deadline.io_error(&error),
        error => HttpError::Malformed { text: error.to_string() },
    })?;
    let header = |name: &str| {
        let found = response.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    // This is how `minreq` says that the first line is none of HTTP.
    if response.status_code == 503 && response.reason_phrase == "Server did not provide a status line" {
        return Err(HttpError::Malformed { text: "it has no status line".to_owned() });
    }
    match redirect(response.status_code, header)? {
        Some(redirect) => Ok(redirect),
        None => read_body(response, deadline).map(Answer::Final),
    }
}

fn read_body(mut response: minreq::ResponseLazy, deadline: &Deadline) -> Result<HttpReply, HttpError> {
    let mut body = Vec::new();
    let mut part = vec![0; READ_LEN];
    loop {
        deadline.left()?;
        let len = response.read(&mut part).map_err(|error| deadline.io_error(&error))?;
        if len == 0 {
            break;
        }
        if body.len() + len > TRACKER_REPLY_LEN_MAX {
            return Err(HttpError::TooLarge);
        }
        body.extend_from_slice(&part[..len]);
    }
    let reason = super::tracker::clean_text(response.reason_phrase.trim().as_bytes());
    Ok(HttpReply { status: response.status_code, reason, body })
}

/// Runs `ask`; a panic inside it is an error, and one inside `minreq` is not even printed.
fn contain_panics<T>(ask: impl FnOnce() -> Result<T, HttpError>) -> Result<T, HttpError> {
    static QUIETED: Once = Once::new();
    QUIETED.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|place| place.file().contains("minreq")) {
                print(info);
            }
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| {
        Err(HttpError::Malformed { text: format!("its head is larger than {HEAD_LEN_MAX} bytes") })
    })
}
