//! One question to one tracker, whatever it speaks: blocking, with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{error, fmt};

use super::http::{self, HttpError, Wish};
use super::tracker::{Announce, Event, Reply, ReplyError, Scrape, TRACKER_REPLY_LEN_MAX, is_whole};
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
    may_know_us: Arc<AtomicBool>,
}

impl Tracker {
    /// The tracker with that URL, of which nothing is known yet.
    pub fn new(url: Url) -> Self {
        Self { url, memory: udp::Memory::default(), may_know_us: Arc::default() }
    }

    /// Whether an announce that was not taken back since may have reached the tracker, answered or not.
    pub(super) fn may_know_us(&self) -> bool {
        self.may_know_us.load(Ordering::Acquire)
    }

    /// Announces, and waits for the answer at most `timeout`.
    ///
    /// # Errors
    /// When there is no answer, or none of a tracker, or the tracker refuses.
    pub fn announce(&self, announce: &Announce, timeout: Duration) -> Result<Reply, TrackerError> {
        if announce.event == Some(Event::Stopped) {
            self.may_know_us.store(false, Ordering::Release);
            return self.announce_noting(announce, timeout, &Arc::default());
        }
        let answer = self.announce_noting(announce, timeout, &self.may_know_us);
        if matches!(answer, Err(TrackerError::Reply(ReplyError::Refused { .. }))) {
            self.may_know_us.store(false, Ordering::Release);
        }
        answer
    }

    fn announce_noting(
        &self,
        announce: &Announce,
        timeout: Duration,
        is_sent: &Arc<AtomicBool>,
    ) -> Result<Reply, TrackerError> {
        if self.url.scheme() != Scheme::Udp {
            let url = self.url.with_query(&announce.query());
            return read(&http::get_noting(&url, wish(timeout), is_sent)?, Reply::parse);
        }
        match self.ask(Ask::Announce { announce, target: self.url.target() }, timeout, is_sent)? {
            Answer::Announce(reply) => Ok(reply),
            Answer::Scrape(_) => unreachable!("an exchange answers what was asked"),
        }
    }

    /// Asks for the counts of one torrent, and waits for the answer at most `timeout`.
    ///
    /// # Errors
    /// When there is no answer, or none of a tracker, or the tracker refuses or does not know the torrent.
    pub fn scrape(&self, info_hash: [u8; 20], timeout: Duration) -> Result<Scrape, TrackerError> {
        if self.url.scheme() != Scheme::Udp {
            let url = self.url.scrape().ok_or(TrackerError::NoScrape)?;
            let answer =
                http::get(&url.with_query(&super::tracker::scrape_query(&info_hash)), wish(timeout))?;
            return read(&answer, |body| Scrape::parse(body, &info_hash));
        }
        match self.ask(Ask::Scrape { info_hash }, timeout, &AtomicBool::default())? {
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

    fn ask(
        &self,
        question: Ask<'_>,
        timeout: Duration,
        is_sent: &AtomicBool,
    ) -> Result<Answer, TrackerError> {
        udp::ask(&self.url, question, timeout, &self.memory, is_sent)?.map_err(TrackerError::Reply)
    }
}

/// What is wished of a tracker's answer over HTTP.
fn wish(timeout: Duration) -> Wish {
    Wish { len_max: TRACKER_REPLY_LEN_MAX, timeout, is_whole }
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
        // What can be unpacked was, whatever it is said to be.
        Err(ReplyError::Bencode(_)) if is_success && answer.foreign_encoding().is_some() => {
            let encoding = answer.foreign_encoding().unwrap_or_default().to_owned();
            Err(HttpError::Compressed { encoding }.into())
        }
        // Some trackers put their reason under a status of 400 or so: it says more than the status does.
        Err(error) if is_success || matches!(error, ReplyError::Refused { .. }) => {
            Err(TrackerError::Reply(error))
        }
        Ok(reply) if is_success => Ok(reply),
        _ => Err(TrackerError::Status { status: answer.status, reason: answer.reason.clone() }),
    }
}
