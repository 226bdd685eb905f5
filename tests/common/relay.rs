//! A TCP relay that behaves like a long, fat link: what goes in at one end comes out at the other a chosen time later,
//! and no faster than a chosen rate.
//!
//! ```text
//! client ──read──▶ [short queue] ──rate──▶ [delay line] ──write──▶ upstream        (and the same the other way)
//! ```
//!
//! Each direction has a thread that reads and one that writes. The reader stamps every chunk with the time at which its
//! last byte has left the rate limit plus the delay, and the writer sends it then. So a thread that wakes late makes a
//! chunk late but takes nothing from the rate. The reader is at most [`QUEUE`] ahead of the rate, and the line holds more
//! than a delay's worth of bytes only while the receiver does not take them; when it is full the reader stops, and the
//! sender's socket fills up as it would before a real link.
//!
//! The end of a stream and a reset travel like bytes. Connections are accepted at once: only bytes are delayed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The largest chunk: 0.7 ms of 100 MB/s.
const CHUNK_MAX: usize = 64 << 10;
/// The smallest one that a low rate leads to.
const CHUNK_MIN: usize = 1 << 10;
/// Chunks up to this length are kept in buffers of their own length, so that many small ones do not need much memory.
const SMALL: usize = 4 << 10;
/// How far the reader may be ahead of the rate.
const QUEUE: Duration = Duration::from_millis(10);
/// What a delay line holds beside twice the bytes that are on their way.
const SLACK: usize = 4 << 20;
/// The most that a delay line holds.
const LINE_MAX: usize = 256 << 20;

/// What a link does to the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// How long each byte takes from one end to the other: half of a round trip.
    pub delay: Duration,
    /// Bytes a second from the client to the upstream; `None` for as many as come.
    pub up: Option<u64>,
    /// Bytes a second from the upstream to the client.
    pub down: Option<u64>,
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// Bytes that passed the client's end of the relay.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// When: after they were received from the client, or before they were sent to it.
    pub at: Instant,
    /// In which direction.
    pub way: Way,
    /// How many.
    pub bytes: usize,
}

/// A running relay. Dropping it resets its connections and ends its threads.
pub struct Relay {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    link: Link,
    over: AtomicBool,
    connections: Mutex<Vec<Running>>,
    log: Arc<Mutex<Vec<Passage>>>,
}

/// A connection, which its threads own: it closes when they have ended.
struct Running {
    connection: Weak<Connection>,
    threads: [JoinHandle<()>; 4],
}

impl Relay {
    /// A relay to `upstream` on a free port of the loopback interface.
    pub fn start(upstream: SocketAddr, link: Link) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            link,
            over: AtomicBool::new(false),
            connections: Mutex::default(),
            log: Arc::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accept(&listener))
        };
        Ok(Self { addr, shared, acceptor: Some(acceptor) })
    }

    /// All that passed the client's end so far, over all connections, in that order.
    pub fn passages(&self) -> Vec<Passage> {
        lock(&self.shared.log).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        if TcpStream::connect(self.addr).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
        let connections = std::mem::take(&mut *lock(&self.shared.connections));
        for connection in connections.iter().filter_map(|running| running.connection.upgrade()) {
            connection.cut();
        }
        for thread in connections.into_iter().flat_map(|running| running.threads) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            match TcpStream::connect(self.upstream) {
                Ok(upstream) => self.connect(client, upstream),
                Err(_) => reset_on_close(&client),
            }
        }
    }

    fn connect(&self, client: TcpStream, upstream: TcpStream) {
        for stream in [&client, &upstream] {
            // Without it small messages would wait for each other, on top of the delay.
            let _ = stream.set_nodelay(true);
        }
        let Link { delay, up, down } = self.link;
        let log = Arc::clone(&self.log);
        let (up, down) = (Lane::new(delay, up), Lane::new(delay, down));
        let connection = Arc::new(Connection { client, upstream, up, down, log });
        let run = |work: fn(&Connection)| {
            let connection = Arc::clone(&connection);
            thread::spawn(move || work(&connection))
        };
        let threads = [
            run(|c| c.up.fill(&c.client, |bytes| c.note(Way::Up, bytes))),
            run(|c| c.up.drain(&c.upstream, &c.down, |_| {})),
            run(|c| c.down.fill(&c.upstream, |_| {})),
            run(|c| c.down.drain(&c.client, &c.up, |bytes| c.note(Way::Down, bytes))),
        ];
        lock(&self.connections).push(Running { connection: Arc::downgrade(&connection), threads });
    }
}

struct Connection {
    client: TcpStream,
    upstream: TcpStream,
    up: Lane,
    down: Lane,
    log: Arc<Mutex<Vec<Passage>>>,
}

impl Connection {
    fn note(&self, way: Way, bytes: usize) {
        let mut log = lock(&self.log);
        log.push(Passage { at: Instant::now(), way, bytes });
    }

    /// Ends it at once, whatever is on its way.
    fn cut(&self) {
        for lane in [&self.up, &self.down] {
            lane.close();
        }
        for stream in [&self.client, &self.upstream] {
            reset_on_close(stream);
            // Wakes a thread that reads or writes.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One direction of a connection.
struct Lane {
    delay: Duration,
    rate: Option<u64>,
    capacity: usize,
    line: Mutex<Line>,
    /// For the writer: there is something on the line.
    loaded: Condvar,
    /// For the reader: there is room on it.
    relieved: Condvar,
}

/// What is on its way.
#[derive(Default)]
struct Line {
    /// In the order of arrival, with the times of it.
    queue: VecDeque<(Instant, Cargo)>,
    bytes: usize,
    /// Buffers that were sent and can be filled again.
    spares: Vec<Vec<u8>>,
    closed: bool,
}

enum Cargo {
    /// So many bytes at the start of the buffer.
    Bytes(Vec<u8>, usize),
    End,
    Reset,
}

impl Lane {
    fn new(delay: Duration, rate: Option<u64>) -> Self {
        let on_their_way = rate.map_or(LINE_MAX as f64, |rate| rate as f64 * delay.as_secs_f64());
        let capacity = (2 * on_their_way as usize + SLACK).min(LINE_MAX);
        Self {
            delay,
            rate,
            capacity,
            line: Mutex::default(),
            loaded: Condvar::new(),
            relieved: Condvar::new(),
        }
    }

    /// Reads from `from` until its end and lets all of it arrive in its time.
    fn fill(&self, mut from: &TcpStream, note: impl Fn(usize)) {
        let chunk = self.rate.map_or(CHUNK_MAX, |rate| {
            // A millisecond's worth.
            usize::try_from(rate / 1_000).unwrap_or(CHUNK_MAX).clamp(CHUNK_MIN, CHUNK_MAX)
        });
        let mut buffer = vec![0; chunk];
        let mut through_at = Instant::now();
        loop {
            let read = from.read(&mut buffer);
            let now = Instant::now();
            let len = *read.as_ref().unwrap_or(&0);
            let cargo = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => Cargo::Reset,
                Ok(0) => Cargo::End,
                Ok(n) if n <= SMALL => Cargo::Bytes(buffer[..n].to_vec(), n),
                Ok(n) => {
                    let spare = lock(&self.line).spares.pop();
                    let spare = spare.unwrap_or_else(|| vec![0; chunk]);
                    Cargo::Bytes(std::mem::replace(&mut buffer, spare), n)
                }
            };
            let is_last = matches!(cargo, Cargo::End | Cargo::Reset);
            if !is_last {
                note(len);
            }
            let takes = self.rate.map_or(0.0, |rate| len as f64 / rate as f64);
            through_at = through_at.max(now) + Duration::from_secs_f64(takes);
            let is_open = self.put(through_at + self.delay, cargo)
                && (is_last || through_at <= now + QUEUE || self.wait_until(through_at - QUEUE));
            if is_last || !is_open {
                return;
            }
        }
    }

    /// Writes to `to` what arrives. `back` is the other direction.
    fn drain(&self, mut to: &TcpStream, back: &Self, note: impl Fn(usize)) {
        loop {
            match self.take() {
                Some(Cargo::Bytes(buffer, len)) => {
                    note(len);
                    if to.write_all(&buffer[..len]).is_err() {
                        // The receiver is gone, of which the sender hears one delay later.
                        back.put(Instant::now() + back.delay, Cargo::Reset);
                        return self.close();
                    }
                    self.recycle(buffer, len);
                }
                Some(Cargo::End) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return self.close();
                }
                Some(Cargo::Reset) => {
                    reset_on_close(to);
                    // Wakes the thread that reads from there, and sends no FIN before the RST.
                    let _ = to.shutdown(Shutdown::Read);
                    back.close();
                    return self.close();
                }
                None => return,
            }
        }
    }

    /// Puts cargo on the line, when there is room; whether the line is still open.
    fn put(&self, at: Instant, cargo: Cargo) -> bool {
        let mut line = lock(&self.line);
        if let Cargo::Bytes(_, len) = cargo {
            while !line.closed && line.bytes + len > self.capacity {
                line = self.relieved.wait(line).unwrap_or_else(PoisonError::into_inner);
            }
            line.bytes += len;
        }
        line.queue.push_back((at, cargo));
        if line.queue.len() == 1 {
            self.loaded.notify_one();
        }
        !line.closed
    }

    /// Waits for the next cargo to arrive; `None` when the line was closed.
    fn take(&self) -> Option<Cargo> {
        let mut line = lock(&self.line);
        loop {
            if line.closed {
                return None;
            }
            let Some(&(at, _)) = line.queue.front() else {
                line = self.loaded.wait(line).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            if at <= now {
                break;
            }
            line = self.loaded.wait_timeout(line, at - now).unwrap_or_else(PoisonError::into_inner).0;
        }
        line.queue.pop_front().map(|(_, cargo)| cargo)
    }

    fn recycle(&self, buffer: Vec<u8>, len: usize) {
        let mut line = lock(&self.line);
        if line.bytes + CHUNK_MAX > self.capacity {
            self.relieved.notify_one();
        }
        line.bytes -= len;
        if len > SMALL {
            line.spares.push(buffer);
        }
    }

    /// Waits; whether the line is still open.
    fn wait_until(&self, at: Instant) -> bool {
        let mut line = lock(&self.line);
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if line.closed || left.is_zero() {
                return !line.closed;
            }
            line = self.relieved.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing more passes here.
    fn close(&self) {
        let mut line = lock(&self.line);
        line.closed = true;
        line.queue.clear();
        line.spares.clear();
        self.loaded.notify_all();
        self.relieved.notify_all();
    }
}

/// With no time to linger, closing is a reset.
fn reset_on_close(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
