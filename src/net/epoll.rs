//! Sockets on readiness, for kernels that give no ring: the same operations as in `uring`, done by this thread as soon
//! as the kernel says that they will not wait.
//!
//! An operation happens as a whole in one call of the kernel, while its future is polled and owns what is read or
//! written. So nothing is pending when a future is dropped, and no byte is lost: what was not received is still in the
//! socket.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, Waker, ready};

use socket2::{SockRef, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::scatter::Scatter;
use super::socket;

/// A TCP socket that is tried when epoll says so.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    wait: RefCell<Wait>,
    /// Something was received since this peer last let others have their turn.
    has_received: Cell<bool>,
}

/// What a receive that has to wait shares with whoever cancels it.
#[derive(Debug, Default)]
enum Wait {
    #[default]
    Nobody,
    Receive(Waker),
    Cancelled,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Socket {
    /// A socket that is being connected to the peer.
    pub(super) fn dial(addr: SocketAddr) -> io::Result<Self> {
        let socket = socket::tcp(addr, Type::STREAM.nonblocking())?;
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            // Known to epoll only from here on: one that is not even being connected counts as hung up there.
            _ => {}
        }
        let stream = TcpStream::from_std(StdStream::from(socket))?;
        Ok(Self { stream, wait: RefCell::default(), has_received: Cell::new(false) })
    }

    /// The socket of a peer that has dialed this client.
    pub(super) fn adopt(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        Ok(Self { stream, wait: RefCell::default(), has_received: Cell::new(false) })
    }

    /// Waits until it is connected. [`Socket::shutdown`] ends the attempt.
    pub(super) async fn connected(&self) -> io::Result<()> {
        self.stream.writable().await?;
        match self.stream.take_error()? {
            Some(error) => Err(error),
            // It fails where the attempt was ended without an error.
            None => self.stream.peer_addr().map(drop),
        }
    }

    /// Receives into `buffer`, up to its length. 0 bytes: the peer has closed.
    pub(super) async fn recv(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let result = self.receive(|| self.stream.try_read(&mut buffer)).await;
        (result, buffer)
    }

    /// Receives into the places the scatter is aimed at.
    pub(super) async fn recv_scatter(&self, mut scatter: Box<Scatter>) -> (io::Result<usize>, Box<Scatter>) {
        let attempt = || self.stream.try_io(Interest::READABLE, || scatter.receive(&self.stream));
        let result = self.receive(attempt).await;
        (result, scatter)
    }

    /// Sends some of `bytes[from..]`.
    pub(super) async fn send(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        let attempt = |cx: &mut Context<'_>| loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(&bytes[from..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        };
        let result = poll_fn(attempt).await;
        (result, bytes)
    }

    /// Ends the receive that is waiting on this socket, if one is, with ECANCELED, keeping the connection.
    pub(super) fn cancel(&self) {
        let mut wait = self.wait.borrow_mut();
        if let Wait::Receive(waker) = &*wait {
            waker.wake_by_ref();
            *wait = Wait::Cancelled;
        }
    }

    /// Closes the connection in both directions: operations that wait complete.
    pub(super) fn shutdown(&self) {
        // It fails only where there is no connection any more.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Receives by `attempt` as soon as there is something.
    ///
    /// A receive that was not filled has not emptied the socket for sure: it also ends where the kernel cannot write
    /// on, and only the next one says why. So each is attempted until the socket itself says that it is empty.
    async fn receive(&self, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        if self.has_received.take() {
            // A fast peer would keep the thread from sending its requests, from timers and from all other peers.
            yield_now().await;
        }
        poll_fn(|cx| self.poll_receive(cx, &mut attempt)).await
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        attempt: &mut impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(readiness) = self.stream.poll_read_ready(cx) else { return self.wait(cx) };
            match readiness.and_then(|()| attempt()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.wait.take();
                    self.has_received.set(true);
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn wait(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut wait = self.wait.borrow_mut();
        if matches!(*wait, Wait::Cancelled) {
            *wait = Wait::Nobody;
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        *wait = Wait::Receive(cx.waker().clone());
        Poll::Pending
    }
}
