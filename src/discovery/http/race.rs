//! One request to a host of several addresses, of which some may be dead, mute or broken (RFC 8305).
//!
//! They are asked one after the other, without waiting long for any: the next gets its turn when one has failed, or has
//! not taken the connection for a moment, or has taken it and said nothing for a while. The first whole answer counts.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange::{Asking, Response};
use super::{Deadline, HttpError};

/// How long an address may take for the connection before the next is tried as well.
const CONNECT_PATIENCE: Duration = Duration::from_millis(300);

/// How long one that is connected may take for the head of its answer before the next is tried as well.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of the stack of a thread that asks one address, with TLS.
const STACK_LEN: usize = 512 * 1024;

/// What is heard of an attempt.
enum News {
    Connected,
    /// The head of an answer is there.
    Answered,
    Ended(Box<Result<Response, HttpError>>),
}

/// How an exchange tells where it is.
pub(super) struct Stages {
    news: Option<Sender<News>>,
    is_over: Arc<AtomicBool>,
}

impl Stages {
    /// For an exchange that nobody competes with.
    fn alone() -> Self {
        Self { news: None, is_over: Arc::default() }
    }

    pub(super) fn connected(&self) {
        self.tell(News::Connected);
    }

    pub(super) fn answered(&self) {
        self.tell(News::Answered);
    }

    /// Whether another one has won, and nobody wants the answer.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn tell(&self, news: News) {
        if let Some(sender) = &self.news {
            // Nobody listens when the race is over.
            let _ = sender.send(news);
        }
    }
}

/// Asks the addresses until one has answered.
///
/// # Errors
/// When all have failed, that of the one that got furthest.
pub(super) fn run(
    addrs: &[SocketAddr],
    asking: &Arc<Asking>,
    deadline: &Deadline,
) -> Result<Response, HttpError> {
    if let [addr] = addrs {
        return asking.exchange(*addr, deadline, &Stages::alone());
    }
    let (sender, queue) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut race =
        Race { to_try: addrs.iter(), running: 0, next_at: Instant::now(), has_head: false, error: None };
    let ended = loop {
        while race.is_next_due() {
            let Some(&addr) = race.to_try.next() else { break };
            race.running += 1;
            race.next_at = Instant::now() + CONNECT_PATIENCE;
            let stages = Stages { news: Some(sender.clone()), is_over: Arc::clone(&is_over) };
            start(addr, asking, deadline, stages, &sender);
        }
        if race.running == 0 {
            break Err(race.error.unwrap_or_else(|| deadline.error()));
        }
        let Ok(left) = deadline.left() else { break Err(deadline.error()) };
        match queue.recv_timeout(race.wait(left)) {
            Ok(News::Connected) => race.next_at = race.next_at.max(Instant::now() + ANSWER_PATIENCE),
            Ok(News::Answered) => race.has_head = true,
            Ok(News::Ended(result)) => match *result {
                Ok(response) => break Ok(response),
                Err(error) => race.on_failed(error),
            },
            Err(_) => {}
        }
    };
    is_over.store(true, Ordering::Relaxed);
    ended
}

/// Asks one address on a thread of its own, or on this one where the system gives none.
fn start(addr: SocketAddr, asking: &Arc<Asking>, deadline: &Deadline, stages: Stages, sender: &Sender<News>) {
    let run = {
        let (asking, deadline, sender) = (Arc::clone(asking), *deadline, sender.clone());
        move || drop(sender.send(News::Ended(Box::new(asking.exchange(addr, &deadline, &stages)))))
    };
    if thread::Builder::new().name("tracker".to_owned()).stack_size(STACK_LEN).spawn(run).is_err() {
        let result = asking.exchange(addr, deadline, &Stages::alone());
        drop(sender.send(News::Ended(Box::new(result))));
    }
}

struct Race<'a> {
    to_try: std::slice::Iter<'a, SocketAddr>,
    running: usize,
    /// When the next address is tried beside the others.
    next_at: Instant,
    /// Whether an answer is on its way.
    has_head: bool,
    error: Option<HttpError>,
}

impl Race<'_> {
    fn is_next_due(&self) -> bool {
        self.to_try.len() > 0 && (self.running == 0 || (!self.has_head && Instant::now() >= self.next_at))
    }

    fn wait(&self, left: Duration) -> Duration {
        if self.to_try.len() == 0 || self.has_head {
            return left;
        }
        left.min(self.next_at.saturating_duration_since(Instant::now()))
    }

    fn on_failed(&mut self, error: HttpError) {
        self.running -= 1;
        self.has_head = false;
        self.next_at = Instant::now();
        if self.error.as_ref().is_none_or(is_unreached) {
            self.error = Some(error);
        }
    }
}

/// Whether nobody was met at all. What somebody says who was is worth more.
fn is_unreached(error: &HttpError) -> bool {
    matches!(
        error,
        HttpError::Io {
            kind: ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable,
            ..
        }
    )
}

/// The system's error as one of a request with this deadline.
pub(super) fn from_io(error: &io::Error, deadline: &Deadline) -> HttpError {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => deadline.error(),
        kind => HttpError::Io { kind, text: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use socket2::{Domain, SockRef, Socket, Type};

    use super::*;
    use crate::discovery::http::Wish;
    use crate::discovery::url::Url;

    /// What a server does with a connection.
    #[derive(Clone, Copy)]
    enum Manner {
        Answers,
        /// It takes the request and says nothing.
        Mute,
        Resets,
        /// It says half of a head and resets.
        Breaks,
        Garbage,
    }

    fn serve(manner: Manner) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for mut connection in listener.incoming().map_while(Result::ok) {
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(match manner {
                    Manner::Answers => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde",
                    Manner::Breaks => b"HTTP/1.1 2",
                    Manner::Garbage => b"garbage",
                    Manner::Mute | Manner::Resets => b"",
                });
                match manner {
                    Manner::Mute => kept.push(connection),
                    Manner::Resets | Manner::Breaks => {
                        let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
                    }
                    Manner::Answers | Manner::Garbage => {}
                }
            }
        });
        addr
    }

    fn socket() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    }

    fn ask(addrs: &[SocketAddr], timeout: Duration) -> (Result<Response, HttpError>, Duration) {
        let wish = Wish { len_max: 100, timeout, is_whole: |body| body == b"de" };
        let url = Url::parse("http://h/").unwrap();
        let asking = Arc::new(Asking { url, proxy: None, wish, is_sent: Arc::default() });
        let started = Instant::now();
        let result = run(addrs, &asking, &Deadline { timeout, at: started + timeout });
        (result, started.elapsed())
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn one_address_that_works_is_enough() {
        let (_refusing, refused) = socket();
        let good = serve(Manner::Answers);
        let [mute, resets, breaks, garbage] =
            [Manner::Mute, Manner::Resets, Manner::Breaks, Manner::Garbage].map(serve);
        for addrs in [
            &[good][..],
            &[good, mute],
            &[mute, good],
            &[refused, good],
            &[resets, good],
            &[breaks, garbage, good],
            &[mute, refused, resets, good],
            &[refused, mute, breaks, mute, good],
        ] {
            let (result, elapsed) = ask(addrs, SOON);
            let response = result.unwrap_or_else(|error| panic!("{addrs:?}: {error}"));
            assert_eq!((response.addr, &response.body[..]), (good, &b"de"[..]));
            assert!(elapsed < Duration::from_secs(5), "{addrs:?}: {elapsed:?}");
        }
    }

    /// Packets to it are lost, as those to an address of a broken IPv6 route.
    #[test]
    fn an_address_that_takes_no_connection_costs_a_moment() {
        let (silent, lost) = socket();
        silent.listen(0).unwrap();
        let waiting: Vec<Socket> = (0..4)
            .map(|_| {
                let (socket, _) = socket();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&lost.into());
                socket
            })
            .collect();
        let (result, elapsed) = ask(&[lost, serve(Manner::Answers)], SOON);
        assert!(result.is_ok() && elapsed < Duration::from_secs(4), "{elapsed:?}");
        drop(waiting);
    }

    #[test]
    fn when_all_fail_the_one_that_got_furthest_is_told_and_the_time_is_kept() {
        let (_refusing, refused) = socket();
        let [mute, garbage] = [Manner::Mute, Manner::Garbage].map(serve);
        for addrs in [&[refused, garbage][..], &[garbage, refused]] {
            assert!(matches!(ask(addrs, SOON).0, Err(HttpError::Malformed { .. })), "{addrs:?}");
        }
        assert!(matches!(
            ask(&[refused, refused], SOON).0,
            Err(HttpError::Io { kind: ErrorKind::ConnectionRefused, .. })
        ));
        let timeout = Duration::from_millis(1500);
        let (result, elapsed) = ask(&[mute, mute, refused], timeout);
        assert!(matches!(result, Err(HttpError::TimedOut { .. })));
        assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
    }
}
