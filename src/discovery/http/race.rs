//! One request to a host of several addresses, of which some may be dead, mute or broken (RFC 8305).
//!
//! They are asked one after the other, without waiting long for any: the next gets its turn when one has failed, or has
//! not taken the connection for a moment, or has taken it and said nothing for a while, or has begun to answer and does
//! not go on. The first whole answer counts.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange::{Asking, Response};
use super::{Deadline, HttpError};
use crate::os::limits;

/// How long an address may take for the connection before the next is tried as well.
const CONNECT_PATIENCE: Duration = Duration::from_millis(300);

/// How long one that is connected may take for the head of its answer before the next is tried as well.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How long one that answers may be without news before the next is tried as well. There are some with the head, and
/// with each larger part of the body.
const BODY_PATIENCE: Duration = Duration::from_secs(3);

/// Of how many descriptors that the process may have one is for an attempt beside others.
const DESCRIPTORS_SHARE: usize = 8;

/// Bytes of the stack of a thread that asks one address, with TLS.
const STACK_LEN: usize = 512 * 1024;

/// What is heard of an attempt.
enum News {
    Connected,
    /// The head of an answer is there, or more of its body.
    Answering,
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

    pub(super) fn answering(&self) {
        self.tell(News::Answering);
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

/// The attempts of this process. One that another has outrun keeps its socket until its deadline.
static ATTEMPTS: Attempts = Attempts(AtomicUsize::new(0));

/// How many attempts are under way.
struct Attempts(AtomicUsize);

/// An attempt that is counted for as long as this lives.
struct Attempt(&'static Attempts);

impl Attempts {
    /// One more, however many there are: without a first one no request gets anywhere.
    fn first(&'static self) -> Attempt {
        self.0.fetch_add(1, Ordering::Relaxed);
        Attempt(self)
    }

    /// One more, if there are fewer than `max`.
    fn another(&'static self, max: usize) -> Option<Attempt> {
        let more = |count| (count < max).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Attempt(self))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
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
        let _attempt = ATTEMPTS.first();
        return asking.exchange(*addr, deadline, &Stages::alone());
    }
    let (sender, queue) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let attempts_max = limits::descriptors() / DESCRIPTORS_SHARE;
    let mut race = Race { to_try: addrs.iter(), running: 0, next_at: Instant::now(), error: None };
    let ended = loop {
        while race.is_next_due() {
            race.next_at = Instant::now() + CONNECT_PATIENCE;
            let is_first = race.running == 0;
            let attempt = if is_first { Some(ATTEMPTS.first()) } else { ATTEMPTS.another(attempts_max) };
            let Some(attempt) = attempt else { break };
            let Some(&addr) = race.to_try.next() else { break };
            race.running += 1;
            let stages = Stages { news: Some(sender.clone()), is_over: Arc::clone(&is_over) };
            start(addr, asking, deadline, attempt, stages, &sender);
        }
        if race.running == 0 {
            break Err(race.error.unwrap_or_else(|| deadline.error()));
        }
        let Ok(left) = deadline.left() else { break Err(deadline.error()) };
        match queue.recv_timeout(race.wait(left)) {
            Ok(News::Connected) => race.wait_for_it(ANSWER_PATIENCE),
            Ok(News::Answering) => race.wait_for_it(BODY_PATIENCE),
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
fn start(
    addr: SocketAddr,
    asking: &Arc<Asking>,
    deadline: &Deadline,
    attempt: Attempt,
    stages: Stages,
    sender: &Sender<News>,
) {
    let run = {
        let (asking, deadline, sender) = (Arc::clone(asking), *deadline, sender.clone());
        move || {
            let result = asking.exchange(addr, &deadline, &stages);
            drop(attempt);
            drop(sender.send(News::Ended(Box::new(result))));
        }
    };
    if thread::Builder::new().name("tracker".to_owned()).stack_size(STACK_LEN).spawn(run).is_err() {
        let _attempt = ATTEMPTS.first();
        let result = asking.exchange(addr, deadline, &Stages::alone());
        drop(sender.send(News::Ended(Box::new(result))));
    }
}

struct Race<'a> {
    to_try: std::slice::Iter<'a, SocketAddr>,
    running: usize,
    /// When the next address is tried beside the others.
    next_at: Instant,
    error: Option<HttpError>,
}

impl Race<'_> {
    fn is_next_due(&self) -> bool {
        self.to_try.len() > 0 && (self.running == 0 || Instant::now() >= self.next_at)
    }

    /// Nobody else is tried for so long.
    fn wait_for_it(&mut self, patience: Duration) {
        self.next_at = self.next_at.max(Instant::now() + patience);
    }

    fn wait(&self, left: Duration) -> Duration {
        if self.to_try.len() == 0 {
            return left;
        }
        left.min(self.next_at.saturating_duration_since(Instant::now()))
    }

    fn on_failed(&mut self, error: HttpError) {
        self.running -= 1;
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
        /// It says the head of an answer and no more.
        Stalls,
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
                    Manner::Stalls => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                    Manner::Breaks => b"HTTP/1.1 2",
                    Manner::Garbage => b"garbage",
                    Manner::Mute | Manner::Resets => b"",
                });
                match manner {
                    Manner::Mute | Manner::Stalls => kept.push(connection),
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
        let [mute, stalls, resets, breaks, garbage] =
            [Manner::Mute, Manner::Stalls, Manner::Resets, Manner::Breaks, Manner::Garbage].map(serve);
        for addrs in [
            &[good][..],
            &[good, mute],
            &[mute, good],
            &[refused, good],
            &[stalls, good],
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

    #[test]
    fn attempts_beside_others_are_bounded_and_first_ones_are_not() {
        static ATTEMPTS: Attempts = Attempts(AtomicUsize::new(0));
        let firsts = [ATTEMPTS.first(), ATTEMPTS.first()];
        let another = ATTEMPTS.another(3);
        assert!(another.is_some() && ATTEMPTS.another(3).is_none());
        drop(firsts);
        assert!(ATTEMPTS.another(3).is_some());
        drop(another);
        assert_eq!(ATTEMPTS.0.load(Ordering::Relaxed), 0);
        let _few = ATTEMPTS.first();
        assert!(ATTEMPTS.another(0).is_none());
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
