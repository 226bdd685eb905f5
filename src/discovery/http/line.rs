//! The connection below a request: blocking, and never longer than its deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a request is written to and an answer is read from.
pub(super) trait Stream: Read + Write + Send {
    /// Has reads end with [`io::ErrorKind::WouldBlock`] after this time; `None` is for the deadline alone.
    fn limit_wait(&mut self, wait: Option<Duration>);
}

/// A TCP connection that ends at a deadline, however slowly bytes come and go.
pub(super) struct Line {
    socket: TcpStream,
    end: Instant,
    wait: Option<Duration>,
}

impl Line {
    pub(super) fn open(addr: SocketAddr, end: Instant) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&addr, left(end)?)?;
        Ok(Self { socket, end, wait: None })
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = left(self.end)?;
            self.socket.set_read_timeout(Some(self.wait.map_or(left, |wait| wait.min(left))))?;
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.wait.is_none() => {}
                read => return read,
            }
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.end)?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Stream for Line {
    fn limit_wait(&mut self, wait: Option<Duration>) {
        self.wait = wait;
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
