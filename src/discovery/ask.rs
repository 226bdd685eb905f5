//! One question to one tracker, whatever it speaks: blocking, with a deadline.

use std::time::Duration;
use std::{error, fmt};

use super::http::{self, HttpError};
use super::tracker::{Announce, Reply, ReplyError, Scrape};
use super::udp::{self, Answer, Ask, UdpError};
use super::url::{Scheme, Url, UrlError};

/// Why a tracker gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrackerError {
    /// The URL cannot be asked.
    Url(UrlError),
    /// There was no answer.
    Http(HttpError),
    /// There was no answer.
    Udp(UdpError),
    /// The server answered with an error and no reason that a tracker would give.
    Status {
        /// The status code.
        status: u16,
        /// The words after it.
        reason: String,
    },
    /// The answer is not what a tracker sends, or a refusal.
    Reply(ReplyError),
    /// The tracker has no place to be scraped at.
    NoScrape,
    /// The operating system gave no thread to ask from.
    NoThread,
}

impl fmt::Display for TrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Udp(error) => error.fmt(f),
            Self::Status { status, reason } => write!(f, "HTTP error {status} {reason}"),
            Self::Reply(error) => error.fmt(f),
            Self::NoScrape => f.write_str("the last part of its path does not begin with announce"),
            Self::NoThread => f.write_str("the system has no thread left to ask it from"),
        }
    }
}

impl error::Error for TrackerError {}

/// A tracker that can be asked again and again, from any thread.
#[derive(Debug)]
pub struct Tracker {
    url: Url,
    memory: udp::Memory,
}

impl Tracker {
    /// The tracker with that URL, of which nothing is known yet.
    pub fn new(url: Url) -> Self {
        Self { url, memory: udp::Memory::default() }
    }

    /// Announces, and waits for the answer at most `timeout` (over HTTP rounded up to a second).
    ///
    /// # Errors
    /// When there is no answer, or none of a tracker, or the tracker refuses.
    pub fn announce(&self, announce: &Announce, timeout: Duration) -> Result<Reply, TrackerError> {
        if self.url.scheme() != Scheme::Udp {
            let answer = http::get(&self.url.with_query(&announce.query()), timeout)?;
            return read(&answer, Reply::parse);
        }
        match self.ask(Ask::Announce { announce, target: self.url.target() }, timeout)? {
            Answer::Announce(reply) => Ok(reply),
            Answer::Scrape(_) => unreachable!("an exchange answers what was asked"),
        }
    }

    /// Asks for the counts of one torrent, and waits for the answer at most `timeout` (over HTTP rounded up to a
    /// second).
    ///
    /// # Errors
    /// When there is no answer, or none of a tracker, or the tracker refuses or does not know the torrent.
    pub fn scrape(&self, info_hash: [u8; 20], timeout: Duration) -> Result<Scrape, TrackerError> {
        if self.url.scheme() != Scheme::Udp {
            let url = self.url.scrape().ok_or(TrackerError::NoScrape)?;
            let answer = http::get(&url.with_query(&super::tracker::scrape_query(&info_hash)), timeout)?;
            return read(&answer, |body| Scrape::parse(body, &info_hash));
        }
        match self.ask(Ask::Scrape { info_hash }, timeout)? {
            Answer::Scrape(counts) => Ok(counts),
            Answer::Announce(_) => unreachable!("an exchange answers what was asked"),
        }
    }

    /// What is said of a tracker that has not answered in time.
    pub(super) fn silence(&self, timeout: Duration) -> TrackerError {
        match self.url.scheme() {
            Scheme::Udp => UdpError::TimedOut { timeout }.into(),
            Scheme::Http | Scheme::Https => HttpError::TimedOut { timeout }.into(),
        }
    }

    fn ask(&self, question: Ask<'_>, timeout: Duration) -> Result<Answer, TrackerError> {
        udp::ask(&self.url, question, timeout, &self.memory)?.map_err(TrackerError::Reply)
    }
}

impl From<HttpError> for TrackerError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<UdpError> for TrackerError {
    fn from(error: UdpError) -> Self {
        Self::Udp(error)
    }
}

/// Reads the body of an HTTP answer, whatever its status.
fn read<T>(
    answer: &http::HttpReply,
    parse: impl FnOnce(&[u8]) -> Result<T, ReplyError>,
) -> Result<T, TrackerError> {
    let is_success = (200..300).contains(&answer.status);
    match parse(&answer.body) {
        // Some trackers put their reason under a status of 400 or so: it says more than the status does.
        Err(error) if is_success || matches!(error, ReplyError::Refused { .. }) => {
            Err(TrackerError::Reply(error))
        }
        Ok(reply) if is_success => Ok(reply),
        _ => Err(TrackerError::Status { status: answer.status, reason: answer.reason.clone() }),
    }
}
