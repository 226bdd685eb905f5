//! Where other peers may dial us: a listening socket, and a thread that takes what comes.
//!
//! Whoever calls is a stranger, and may be a thousand. So a [`Ticket`] stands for each connection that came in: how
//! many there are is bounded, in all, of one machine, and of those that have not said yet what they want. Where there
//! is no place the thread waits and the rest stay in the kernel's queue, which is bounded too.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::os::limits;
use crate::wire::mse::Offer;

/// Connections that came in, at a time. Less than there may be in all: some places are only for those that are dialed.
pub const CALLERS_MAX: usize = 160;
/// Those among them that have sent no whole handshake.
pub const STRANGERS_MAX: usize = 64;
/// Connections from one machine, but for this one. Several peers may live behind one address.
const CALLERS_PER_IP_MAX: usize = 8;
/// Connections that wait in the kernel.
const BACKLOG: i32 = 128;
/// The ports that are tried where the user wishes for none.
const USUAL_PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;
/// The wait after the system gave no connection, most likely for want of descriptors; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// What the doubling ends at.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Which of those who dial us are let in, and how the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Welcome {
    /// Who speaks unencrypted.
    Plain,
    /// Everybody. Who offers both ways goes on unencrypted.
    #[default]
    Both,
    /// Who speaks encrypted, to the end.
    Encrypted,
}

impl Welcome {
    /// What may be selected in an encrypted handshake, if one may come.
    pub(super) const fn encryption(self) -> Option<Offer> {
        match self {
            Self::Plain => None,
            Self::Both => Some(Offer::Either),
            Self::Encrypted => Some(Offer::Rc4),
        }
    }
}

/// Takes a connection that came in; called from the listener's thread.
pub type CallersFn = dyn Fn(Caller) + Send;

/// A listening socket with its thread. Dropping it ends both.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    socket: TcpListener,
    door: Arc<Door>,
}

impl Listener {
    /// Listens on all addresses of this machine, IPv6 and IPv4: at `port`, or without a wish at one of the usual ports
    /// or, when they are all taken, at any.
    ///
    /// # Errors
    /// When the port, or any at all, is not to be had, or the system gives no thread.
    pub fn start(port: Option<u16>) -> io::Result<Self> {
        let socket = match port {
            Some(port) => bind(port)?,
            None => USUAL_PORTS.chain([0]).map(bind).find(Result::is_ok).unwrap_or_else(|| bind(0))?,
        };
        let port = socket.local_addr()?.port();
        let (accepting, door) = (socket.try_clone()?, Arc::<Door>::default());
        let inside = Arc::clone(&door);
        thread::Builder::new().name("listener".to_owned()).spawn(move || accept(&accepting, &inside))?;
        Ok(Self { port, socket, door })
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Has `callers` take what comes from now on. Before, and after [`Listener::shut`], every connection is closed.
    pub fn open(&self, callers: Box<CallersFn>) {
        *lock(&self.door.callers) = Some(callers);
    }

    /// Closes what comes from now on.
    pub fn shut(&self) {
        *lock(&self.door.callers) = None;
    }

    /// Whether a connection waits because too many others have not said what they want, or for want of descriptors.
    pub fn is_crowded(&self) -> bool {
        let hall = lock(&self.door.hall);
        hall.is_short || (hall.is_waiting && hall.strangers >= STRANGERS_MAX.min(callers_max()))
    }

    /// Whether a connection waits because there are [`CALLERS_MAX`], or as many as there are descriptors for.
    pub fn is_full(&self) -> bool {
        let hall = lock(&self.door.hall);
        hall.is_waiting && hall.callers >= callers_max()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.door.hall).is_over = true;
        self.door.freed.notify_all();
        // On Linux this ends an accept that waits. It fails only where nobody listens any more.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

/// A connection that came in.
#[derive(Debug)]
pub struct Caller {
    /// The connection.
    pub stream: TcpStream,
    /// Its other end; an IPv4 address is told as one.
    pub addr: SocketAddr,
    /// To be kept for as long as the connection lasts.
    pub ticket: Ticket,
}

/// The place of a connection, which is free for another when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    door: Arc<Door>,
    ip: IpAddr,
    is_stranger: bool,
}

impl Ticket {
    /// It has sent its handshake.
    pub fn greeted(&mut self) {
        if std::mem::take(&mut self.is_stranger) {
            lock(&self.door.hall).strangers -= 1;
            self.door.freed.notify_one();
        }
    }

    /// Whether it has yet to send its handshake.
    pub const fn is_stranger(&self) -> bool {
        self.is_stranger
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut hall = lock(&self.door.hall);
        hall.callers -= 1;
        hall.strangers -= usize::from(self.is_stranger);
        if let Some(count) = hall.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                hall.by_ip.remove(&self.ip);
            }
        }
        self.door.freed.notify_one();
    }
}

/// What the listener, its thread and the tickets share.
#[derive(Default)]
struct Door {
    hall: Mutex<Hall>,
    freed: Condvar,
    callers: Mutex<Option<Box<CallersFn>>>,
}

/// Who is in.
#[derive(Debug, Default)]
struct Hall {
    callers: usize,
    strangers: usize,
    by_ip: HashMap<IpAddr, usize>,
    is_waiting: bool,
    /// The system gave no connection.
    is_short: bool,
    is_over: bool,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("hall", &self.hall).finish_non_exhaustive()
    }
}

impl Hall {
    fn is_full(&self) -> bool {
        let callers_max = callers_max();
        self.callers >= callers_max || self.strangers >= STRANGERS_MAX.min(callers_max)
    }
}

impl Door {
    /// A place for a connection from there, as soon as there is one; `None` for one too many of its machine, and when
    /// the listener has ended.
    fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Ticket> {
        let mut hall = lock(&self.hall);
        let is_ours = ip.is_loopback();
        if !is_ours && hall.by_ip.get(&ip).is_some_and(|&count| count >= CALLERS_PER_IP_MAX) {
            return None;
        }
        while hall.is_full() && !hall.is_over {
            hall.is_waiting = true;
            hall = self.freed.wait(hall).unwrap_or_else(PoisonError::into_inner);
        }
        hall.is_waiting = false;
        if hall.is_over {
            return None;
        }
        hall.is_short = false;
        hall.callers += 1;
        hall.strangers += 1;
        *hall.by_ip.entry(ip).or_default() += 1;
        Some(Ticket { door: Arc::clone(self), ip, is_stranger: true })
    }
}

/// Connections that came in, at a time, where descriptors may be few.
fn callers_max() -> usize {
    limits::connections(2 * CALLERS_MAX).div_ceil(2)
}

/// Takes connections until the listener is dropped.
fn accept(socket: &TcpListener, door: &Arc<Door>) {
    let mut backoff = BACKOFF_MIN;
    while !lock(&door.hall).is_over {
        match socket.accept() {
            Ok((stream, addr)) => {
                backoff = BACKOFF_MIN;
                let addr = canonical(addr);
                match (door.admit(addr.ip()), &*lock(&door.callers)) {
                    (Some(ticket), Some(callers)) => callers(Caller { stream, addr, ticket }),
                    _ => reset(&stream),
                }
            }
            // It was gone before it was taken.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
            Err(error) => {
                let mut hall = lock(&door.hall);
                if hall.is_over {
                    return;
                }
                hall.is_short = true;
                tracing::debug!("cannot accept a connection: {error}");
                // A ticket that is dropped may be the descriptor that is missing.
                let _ = door.freed.wait_timeout(hall, backoff);
                backoff = (2 * backoff).min(BACKOFF_MAX);
            }
        }
    }
}

/// Has the connection leave nothing behind in the kernel when it is closed.
pub fn reset(stream: &TcpStream) {
    // It fails only where the other side has reset it already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A socket that listens at that port of every address, or at one that the kernel chooses for 0.
fn bind(port: u16) -> io::Result<TcpListener> {
    match bind_at((Ipv6Addr::UNSPECIFIED, port).into()) {
        // A machine, or a sandbox, without IPv6.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            bind_at((Ipv4Addr::UNSPECIFIED, port).into())
        }
        result => result,
    }
}

fn bind_at(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run that still linger do not keep us from their port.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// IPv4 addresses come in disguise to a socket of both kinds.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        // With its scope, without which a link-local address is none.
        IpAddr::V6(_) => addr,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn listener() -> (Listener, mpsc::Receiver<Caller>) {
        let listener = Listener::start(None).unwrap();
        let (callers, inbox) = mpsc::channel();
        listener.open(Box::new(move |caller| drop(callers.send(caller))));
        (listener, inbox)
    }

    fn dial(listener: &Listener) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, listener.port())).unwrap()
    }

    #[test]
    fn both_kinds_of_addresses_are_told_as_they_are() {
        let (listener, inbox) = listener();
        let stream = dial(&listener);
        assert_eq!(inbox.recv_timeout(LIMIT).unwrap().addr, stream.local_addr().unwrap());
        // Where there is no IPv6 there is nothing to show.
        if let Ok(stream) = TcpStream::connect((Ipv6Addr::LOCALHOST, listener.port())) {
            assert_eq!(inbox.recv_timeout(LIMIT).unwrap().addr, stream.local_addr().unwrap());
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_or_another_is_found() {
        let first = Listener::start(None).unwrap();
        let second = Listener::start(None).unwrap();
        assert_ne!(first.port(), second.port());
        let error = Listener::start(Some(first.port())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn strangers_beyond_the_limit_wait_until_one_has_spoken_or_is_gone() {
        let (listener, inbox) = listener();
        let mut streams: Vec<_> = (0..STRANGERS_MAX).map(|_| dial(&listener)).collect();
        let mut inside: Vec<_> = streams.iter().map(|_| inbox.recv_timeout(LIMIT).unwrap()).collect();
        assert!(!listener.is_crowded());
        streams.extend([dial(&listener), dial(&listener), dial(&listener)]);
        assert!(inbox.recv_timeout(Duration::from_millis(100)).is_err());
        assert!(listener.is_crowded() && !listener.is_full());
        inside[7].ticket.greeted();
        inside[7].ticket.greeted();
        let next = inbox.recv_timeout(LIMIT).unwrap();
        assert!(inbox.recv_timeout(Duration::from_millis(100)).is_err());
        drop(next);
        inbox.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn the_places_of_one_machine_are_few_unless_it_is_ours() {
        let door = Arc::<Door>::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let mut tickets: Vec<_> = (0..CALLERS_PER_IP_MAX).map(|_| door.admit(ip).unwrap()).collect();
        assert!(door.admit(ip).is_none());
        let others: Vec<_> = (0..20).map(|_| door.admit(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
        tickets.pop();
        assert!(door.admit(ip).is_some());
        drop((tickets, others));
        let hall = lock(&door.hall);
        assert_eq!((hall.callers, hall.strangers, hall.by_ip.len()), (0, 0, 0));
    }

    #[test]
    fn who_comes_before_or_after_is_sent_away_and_the_port_is_free_in_the_end() {
        let (listener, inbox) = listener();
        listener.shut();
        let mut stream = dial(&listener);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        let port = listener.port();
        drop(listener);
        assert!(inbox.recv_timeout(LIMIT).is_err(), "the thread has ended");
        let mut tries = 0;
        while Listener::start(Some(port)).is_err() {
            tries += 1;
            assert!(tries < 100, "the port is still taken");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
