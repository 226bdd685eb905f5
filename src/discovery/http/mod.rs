//! One HTTP or HTTPS request: blocking, with a deadline for the whole of it and a cap on everything a server sends.
//!
//! `message` knows the bytes of an answer and `proxy` the rules of the environment; both are pure. `line` is a
//! connection with a deadline, `tls` encrypts it, `exchange` asks one address, and `race` the addresses of a host.
//!
//! A redirect leads no further in, see [`scope`](super::scope): behind a proxy as far as the name of the host spells an
//! address.
//!
//! Servers lie about their bodies: about what packed them, how long they are, and whether they come in chunks. So the
//! caller says when a body is whole, and unpacks what he gets by its own bytes.

mod exchange;
mod line;
mod message;
mod proxy;
mod race;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{error, fmt, io};

use self::exchange::{Asking, Response};
use self::proxy::Proxy;
use super::lookup;
use super::mask::masked;
use super::scope::Scope;
use super::tracker::clean_text;
use super::url::{Host, Scheme, Url, UrlError};

/// Redirects followed before giving up.
pub const REDIRECTS_MAX: usize = 5;

/// Bytes of the status line and all headers together, those of answers that only announce another among them.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// What is wished of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Bytes of the largest body that is read.
    pub len_max: usize,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Whether a body is all there, as far as its own bytes tell.
    pub is_whole: fn(&[u8]) -> bool,
}

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpReply {
    /// The status code, such as 200; never a redirect that was followed.
    pub status: u16,
    /// The words after it, fit for a terminal.
    pub reason: String,
    /// What the server says that the body is packed with, fit for a terminal.
    pub encoding: Option<String>,
    /// At most [`Wish::len_max`] bytes.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// What the server says that the body is packed with, where that is something.
    pub(super) fn foreign_encoding(&self) -> Option<&str> {
        let is_none =
            |text: &str| ["", "identity", "none"].iter().any(|none| text.eq_ignore_ascii_case(none));
        self.encoding.as_deref().filter(|text| !is_none(text))
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// It was not there in time.
    TimedOut {
        /// How long was waited.
        timeout: Duration,
    },
    /// The name was not found, or the connection refused or reset.
    Io {
        /// The kind, for programs.
        kind: io::ErrorKind,
        /// The system's words.
        text: String,
    },
    /// The connection cannot be encrypted, or whoever is there not trusted.
    Tls {
        /// Why not.
        text: String,
    },
    /// The proxy of the environment is of no use.
    Proxy {
        /// Which, without its password.
        proxy: String,
        /// Why not.
        text: String,
    },
    /// What came back is not HTTP, or has a head of more than the allowed bytes.
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// The body is larger than [`Wish::len_max`].
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The body is packed in a way that is not understood.
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
        /// Where it leads, without secrets.
        location: String,
        /// Why it is not followed.
        error: UrlError,
    },
    /// A redirect from a server elsewhere into this machine or its network.
    RedirectInward {
        /// Where it leads, without secrets.
        location: String,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { timeout } => write!(f, "no answer within {:.1} s", timeout.as_secs_f32()),
            Self::Io { text, .. } | Self::Tls { text } => f.write_str(text),
            Self::Proxy { proxy, text } => write!(f, "the proxy {proxy}: {text}"),
            Self::Malformed { text } => write!(f, "the answer is not proper HTTP: {text}"),
            Self::TooLarge { max } => write!(f, "the answer is larger than {max} bytes"),
            Self::Compressed { encoding } => write!(f, "the answer is in unasked-for encoding {encoding:?}"),
            Self::TooManyRedirects => write!(f, "redirected more than {REDIRECTS_MAX} times"),
            Self::RedirectWithoutLocation => f.write_str("redirected without saying where to"),
            Self::Redirect { location, error } => write!(f, "redirected to {location:?}: {error}"),
            Self::RedirectInward { location } => {
                write!(f, "redirected to {location:?}, which is inside this machine or its network")
            }
        }
    }
}

impl error::Error for HttpError {}

/// Fetches a URL, following redirects, and waits for all of it.
///
/// A name lookup cannot be interrupted; when it outlasts the deadline, its thread is left behind and ends by itself.
///
/// # Errors
/// When there is no answer within the time, or none that is taken.
pub fn get(url: &Url, wish: Wish) -> Result<HttpReply, HttpError> {
    get_noting(url, wish, &Arc::default())
}

/// The same. `is_sent` is set as soon as a server may have heard of it.
pub(super) fn get_noting(url: &Url, wish: Wish, is_sent: &Arc<AtomicBool>) -> Result<HttpReply, HttpError> {
    let deadline = Deadline { timeout: wish.timeout, at: Instant::now() + wish.timeout };
    let mut url = url.clone();
    let mut scope = Scope::Machine;
    for _ in 0..=REDIRECTS_MAX {
        if url.scheme() == Scheme::Udp {
            return Err(HttpError::Malformed { text: "udp URLs are not for HTTP".to_owned() });
        }
        let response;
        (response, scope) = fetch(&url, wish, scope, is_sent, &deadline)?;
        let Response { head, body, .. } = response;
        if !head.is_redirect() {
            let encoding = head.header("content-encoding").map(|text| clean_text(text.as_bytes()));
            let reason = clean_text(head.reason.as_bytes());
            return Ok(HttpReply { status: head.status, reason, encoding, body });
        }
        let location = head.header("location").ok_or(HttpError::RedirectWithoutLocation)?;
        url = url.resolve(location).map_err(|error| {
            let location = masked(&clean_text(location.as_bytes()));
            HttpError::Redirect { location, error }
        })?;
    }
    Err(HttpError::TooManyRedirects)
}

/// One request, one answer, and the scope of where that came from. Nobody of a narrower scope than `scope` is asked.
fn fetch(
    url: &Url,
    wish: Wish,
    scope: Scope,
    is_sent: &Arc<AtomicBool>,
    deadline: &Deadline,
) -> Result<(Response, Scope), HttpError> {
    let proxy = Proxy::of_environment(url)?;
    let inward = || HttpError::RedirectInward { location: url.masked() };
    let is_direct = proxy.is_none();
    let mut addrs = {
        let url = proxy.as_ref().map_or(url, |proxy| &proxy.url);
        let found = lookup::addresses(url.host(), url.port(), deadline.at);
        found.map_err(|error| race::from_io(&error, deadline))?
    };
    // A proxy finds the address by itself, so only what the name says can be looked at.
    let named = scope_of_name(url.host()).unwrap_or(Scope::Global);
    if is_direct {
        addrs.retain(|addr| Scope::of(addr.ip()) >= scope);
    }
    if addrs.is_empty() || (!is_direct && named < scope) {
        return Err(inward());
    }
    let asking = Asking { url: url.clone(), proxy, wish, is_sent: Arc::clone(is_sent) };
    let response = race::run(&addrs, &Arc::new(asking), deadline)?;
    let reached = if is_direct { Scope::of(response.addr.ip()) } else { named };
    Ok((response, reached))
}

/// The scope of a host whose name tells it.
fn scope_of_name(host: &Host) -> Option<Scope> {
    match host {
        Host::V6(ip) => Some(Scope::of(IpAddr::V6(*ip))),
        Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => Some(Scope::Machine),
        // Other spellings of addresses than this one are looked up as those are, at once and without a server.
        Host::Name(name) => name.parse::<IpAddr>().ok().map(Scope::of).or_else(|| {
            let is_number = name.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b'x'));
            let is_number = is_number && name.starts_with(|c: char| c.is_ascii_digit());
            is_number.then_some(Scope::Machine)
        }),
    }
}

#[derive(Clone, Copy)]
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
}
