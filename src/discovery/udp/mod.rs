//! Trackers over UDP: BEP 15, with the URL's path and query sent along as BEP 41 has it.
//!
//! `packet` knows the bytes and `exchange` when to send which; both are pure. The shell here runs exchanges on
//! connected sockets, blocking and with a deadline for the whole, so the kernel drops what comes from other addresses.

mod exchange;
mod packet;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{error, fmt};

pub use self::exchange::{CONNECTION_LIFETIME, Connection, Exchange, RESEND_FIRST};
pub use self::packet::{Answer, Ask, Family, PROTOCOL_ID, encode_ask, encode_connect, parse};
use super::lookup;
use super::tracker::ReplyError;
use super::url::Url;
use crate::os::random;

/// How long one address is waited for before the next is asked as well: all that are tried come to their turn within
/// the time of a request.
const ADDR_PATIENCE: Duration = Duration::from_millis(700);

/// How long one socket is listened to while there are several.
const TURN: Duration = Duration::from_millis(25);

/// Bytes of the largest datagram that can come.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UdpError {
    /// It was not there in time.
    TimedOut {
        /// How long was waited.
        timeout: Duration,
    },
    /// The name was not found, or the host has nobody listening.
    Io {
        /// The kind, for programs.
        kind: io::ErrorKind,
        /// The system's words.
        text: String,
    },
}

impl fmt::Display for UdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { timeout } => write!(f, "no answer within {:.1} s", timeout.as_secs_f32()),
            Self::Io { text, .. } => f.write_str(text),
        }
    }
}

impl error::Error for UdpError {}

impl From<io::Error> for UdpError {
    fn from(error: io::Error) -> Self {
        Self::Io { kind: error.kind(), text: error.to_string() }
    }
}

/// The connection that a tracker gave last, with the address it belongs to: spares the next request a round trip.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Option<(SocketAddr, Connection)>>);

impl Memory {
    fn take(&self, now: Instant) -> Option<(SocketAddr, Connection)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        known.filter(|(_, connection)| connection.is_alive(now))
    }

    fn put(&self, known: Option<(SocketAddr, Connection)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Asks a tracker and waits for its answer, at most `timeout`. Of several addresses that its name has, each gets a
/// moment before the next is asked as well, and one that refuses makes room at once. `is_sent` is set as soon as the
/// tracker may have heard of it.
///
/// # Errors
/// The outer one when nobody answered, the inner one when the tracker refuses.
pub fn ask(
    url: &Url,
    ask: Ask<'_>,
    timeout: Duration,
    memory: &Memory,
    is_sent: &AtomicBool,
) -> Result<Result<Answer, ReplyError>, UdpError> {
    let start = Instant::now();
    let end = start + timeout;
    let known = memory.take(start);
    let addrs = match &known {
        Some((addr, _)) => vec![*addr],
        None => lookup::addresses(url.host(), url.port(), end).map_err(|error| late_or(error, timeout))?,
    };
    let mut race =
        Race { ask, is_sent, to_try: addrs.into_iter(), lines: Vec::new(), next_at: start, last_error: None };
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    let mut connection = known.map(|(_, connection)| connection);
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(UdpError::TimedOut { timeout });
        }
        race.open(now, &mut connection);
        if race.lines.is_empty() {
            let none = || io::Error::new(io::ErrorKind::NotFound, "its name has no address");
            return Err(race.last_error.unwrap_or_else(none).into());
        }
        if let Some((addr, connection, answer)) = race.step(end, &mut buffer) {
            memory.put(connection.map(|connection| (addr, connection)));
            return Ok(answer);
        }
    }
}

fn late_or(error: io::Error, timeout: Duration) -> UdpError {
    if error.kind() == io::ErrorKind::TimedOut { UdpError::TimedOut { timeout } } else { error.into() }
}

/// One address that is asked.
struct Line<'a> {
    addr: SocketAddr,
    socket: UdpSocket,
    exchange: Exchange<'a>,
    /// Set when the question itself goes out.
    is_sent: &'a AtomicBool,
}

/// The addresses of one host: those that are asked, and those that still may be.
struct Race<'a> {
    ask: Ask<'a>,
    is_sent: &'a AtomicBool,
    to_try: std::vec::IntoIter<SocketAddr>,
    lines: Vec<Line<'a>>,
    /// When the next address is asked as well.
    next_at: Instant,
    last_error: Option<io::Error>,
}

type Ending = (SocketAddr, Option<Connection>, Result<Answer, ReplyError>);

impl<'a> Race<'a> {
    /// Begins with the next address where there is none yet, or those that there are have had their time.
    fn open(&mut self, now: Instant, known: &mut Option<Connection>) {
        while self.lines.is_empty() || now >= self.next_at {
            let Some(addr) = self.to_try.next() else { return };
            self.next_at = now + ADDR_PATIENCE;
            let seed = random::number();
            let exchange = Exchange::new(self.ask, Family::of(addr.ip()), known.take(), seed, now);
            match connect(addr) {
                Ok(socket) => self.lines.push(Line { addr, socket, exchange, is_sent: self.is_sent }),
                Err(error) => self.last_error = Some(error),
            }
        }
    }

    /// Sends what is due, and listens to each line once. Lines that fail are gone after that.
    fn step(&mut self, end: Instant, buffer: &mut [u8]) -> Option<Ending> {
        let mut place = 0;
        while place < self.lines.len() {
            let until = match (self.lines.len(), self.to_try.len()) {
                (1, 0) => end,
                (1, _) => end.min(self.next_at),
                _ => end.min(Instant::now() + TURN),
            };
            let line = &mut self.lines[place];
            match line.run(until, buffer) {
                Ok(Some(answer)) => return Some((line.addr, line.exchange.connection(), answer)),
                Ok(None) => place += 1,
                Err(error) => {
                    self.last_error = Some(error);
                    self.lines.swap_remove(place);
                }
            }
        }
        None
    }
}

impl Line<'_> {
    /// Sends what is due and listens until the next is, `until` at the latest.
    fn run(&mut self, until: Instant, buffer: &mut [u8]) -> io::Result<Option<Result<Answer, ReplyError>>> {
        if let Some(datagram) = self.exchange.send(Instant::now()) {
            if self.exchange.connection().is_some() {
                self.is_sent.store(true, Ordering::Release);
            }
            match self.socket.send(&datagram) {
                // One that the system has no room for is lost like any other.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => drop(sent?),
            }
        }
        let until = until.min(self.exchange.wake_at());
        // A timeout of zero would be none at all, and short ones end before they began.
        let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(wait))?;
        match self.socket.recv(buffer) {
            Ok(len) => Ok(self.exchange.on_datagram(&buffer[..len], Instant::now())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn connect(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any = match addr {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(addr)?;
    Ok(socket)
}
