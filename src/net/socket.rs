//! A peer's socket, on either backend.
//!
//! One rule holds for both: what the kernel reads or writes is moved into an operation and comes back with its result,
//! and a receive is never dropped. Whoever wants it ended shuts the socket down or cancels the receive, and waits.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use socket2::{Domain, Protocol, Type};
use tokio::task::spawn_local;

use super::backend::Backend;
use super::scatter::Scatter;
use super::{epoll, uring};

/// A TCP socket. Its operations are methods of the same names in `uring` and `epoll`.
#[derive(Debug)]
pub(super) enum Socket {
    Uring(Rc<uring::Socket>),
    Epoll(epoll::Socket),
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Uring(socket) => socket.as_raw_fd(),
            Self::Epoll(socket) => socket.as_raw_fd(),
        }
    }
}

impl Socket {
    /// A socket for a peer at that address, not yet connected. To be called on a runtime of that backend.
    pub(super) fn new(backend: Backend, addr: SocketAddr) -> io::Result<Self> {
        match backend {
            Backend::Uring => uring::Socket::new(addr).map(Self::Uring),
            Backend::Epoll => epoll::Socket::dial(addr).map(Self::Epoll),
        }
    }

    /// The socket of a peer that has dialed this client. To be called on a runtime of that backend.
    pub(super) fn adopt(backend: Backend, stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        match backend {
            Backend::Uring => Ok(Self::Uring(uring::Socket::adopt(stream))),
            Backend::Epoll => epoll::Socket::adopt(stream).map(Self::Epoll),
        }
    }

    /// Connects to the peer. [`Socket::shutdown`] ends the attempt.
    pub(super) async fn connect(&self, addr: SocketAddr) -> io::Result<()> {
        match self {
            Self::Uring(socket) => socket.connect(addr).await,
            Self::Epoll(socket) => socket.connected().await,
        }
    }

    /// Receives into `buffer`, up to its length. 0 bytes: the peer has closed.
    pub(super) async fn recv(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(socket) => socket.recv(buffer).await,
            Self::Epoll(socket) => socket.recv(buffer).await,
        }
    }

    /// Receives into the places the scatter is aimed at.
    pub(super) async fn recv_scatter(&self, scatter: Box<Scatter>) -> (io::Result<usize>, Box<Scatter>) {
        match self {
            Self::Uring(socket) => socket.recv_scatter(scatter).await,
            Self::Epoll(socket) => socket.recv_scatter(scatter).await,
        }
    }

    /// Sends some of `bytes[from..]`.
    pub(super) async fn send(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(socket) => socket.send(bytes, from).await,
            Self::Epoll(socket) => socket.send(bytes, from).await,
        }
    }

    /// Has the receive that is pending on this socket end with ECANCELED, keeping the connection.
    pub(super) fn cancel(&self) {
        match self {
            Self::Uring(socket) => {
                let socket = Rc::clone(socket);
                spawn_local(async move { socket.cancel().await });
            }
            Self::Epoll(socket) => socket.cancel(),
        }
    }

    /// Closes the connection in both directions: pending operations complete.
    pub(super) fn shutdown(&self) {
        match self {
            Self::Uring(socket) => socket.shutdown(),
            Self::Epoll(socket) => socket.shutdown(),
        }
    }
}

/// A socket for talking to a peer at that address.
pub(super) fn tcp(addr: SocketAddr, kind: Type) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    // Requests are small and late ones leave the peer idle.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
