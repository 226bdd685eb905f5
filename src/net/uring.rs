//! Sockets on the io_uring of this thread: the few one-shot operations a peer needs, on tokio-uring's driver.
//!
//! tokio-uring's own types do not do: its receive takes one buffer, its connect hides the socket until it is
//! connected, and none can be cancelled. [`UnsubmittedOneshot`] takes any submission entry, so the operations are made
//! here. What the kernel reads or writes (addresses, buffers, vectors, and the socket itself) is *moved into* the
//! operation and comes back with its completion. When the future of an operation is dropped early the driver keeps
//! these parts until the kernel is done with them. That ownership is what makes the raw pointers in the entries
//! sound; no future needs to run to its end for it. The driver itself must outlive its operations, and its drop does
//! not see to that, so the runtime of a core is never dropped.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use socket2::{SockAddr, Type};
use tokio_uring::{OneshotOutputTransform, Runtime, UnsubmittedOneshot};

use super::scatter::Scatter;
use super::socket;

/// Entries of a submission queue. More would be charged to the locked-memory limit of an ordinary user (64 KiB) and
/// make the ring fail.
const RING_ENTRIES: u32 = 256;
/// The smallest ring worth trying when there is no memory for more.
const RING_ENTRIES_MIN: u32 = 16;

/// The operations that are used.
const OPERATIONS: [u8; 5] = [
    opcode::Connect::CODE,
    opcode::Recv::CODE,
    opcode::RecvMsg::CODE,
    opcode::Send::CODE,
    opcode::AsyncCancel::CODE,
];

/// Tries whether this process can have a ring that is of use: the error tells why not.
///
/// The ring is as small as one can be. It is charged to the limit on locked memory until some time after it is gone.
pub(super) fn probe() -> io::Result<()> {
    let ring: IoUring = modern_or_plain(|builder| builder.build(RING_ENTRIES_MIN))?;
    // To make a ring may be allowed, and to use it not.
    ring.submit()?;
    let mut known = Probe::new();
    let is_old = match ring.submitter().register_probe(&mut known) {
        Ok(()) => !OPERATIONS.iter().all(|&operation| known.is_supported(operation)),
        // A filter may forbid the question alone, and nothing else depends on it.
        Err(error) => error.raw_os_error() == Some(libc::EINVAL),
    };
    if is_old { Err(io::Error::from_raw_os_error(libc::ENOSYS)) } else { Ok(()) }
}

/// The runtime of one core: tokio's timers and tasks over a ring of this thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    modern_or_plain(runtime_of)
}

fn runtime_of(ring: &io_uring::Builder) -> io::Result<Runtime> {
    let mut entries = RING_ENTRIES;
    loop {
        match Runtime::new(tokio_uring::builder().entries(entries).uring_builder(ring)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && entries > RING_ENTRIES_MIN => {
                entries /= 2;
            }
            result => return result,
        }
    }
}

/// Makes something with a ring, with the flags that spare interrupts where the kernel has them.
fn modern_or_plain<T>(make: impl Fn(&io_uring::Builder) -> io::Result<T>) -> io::Result<T> {
    let mut cooperative = tokio_uring::uring_builder();
    // Fewer interrupts of the thread that owns the ring; Linux 5.19 and 6.0.
    cooperative.setup_coop_taskrun().setup_single_issuer();
    match make(&cooperative) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(&tokio_uring::uring_builder()),
        result => result,
    }
}

/// A TCP socket whose operations run on the ring of this thread.
#[derive(Debug)]
pub(super) struct Socket {
    inner: socket2::Socket,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl Socket {
    /// A socket for a peer at that address, not yet connected.
    pub(super) fn new(addr: SocketAddr) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self { inner: socket::tcp(addr, Type::STREAM)? }))
    }

    /// The socket of a peer that has dialed this client.
    pub(super) fn adopt(stream: TcpStream) -> Rc<Self> {
        Rc::new(Self { inner: stream.into() })
    }

    /// Connects to the peer. [`Socket::shutdown`] ends the attempt.
    pub(super) async fn connect(self: &Rc<Self>, addr: SocketAddr) -> io::Result<()> {
        let addr = Box::new(SockAddr::from(addr));
        let entry = opcode::Connect::new(self.fd(), addr.as_ptr().cast(), addr.len()).build();
        self.submit(entry, addr).await.0.map(drop)
    }

    /// Receives into `buffer`, up to its length. 0 bytes: the peer has closed.
    pub(super) async fn recv(self: &Rc<Self>, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let entry = opcode::Recv::new(self.fd(), buffer.as_mut_ptr(), buffer.len() as u32).build();
        self.submit(entry, buffer).await
    }

    /// Receives into the places the scatter is aimed at.
    pub(super) async fn recv_scatter(
        self: &Rc<Self>,
        mut scatter: Box<Scatter>,
    ) -> (io::Result<usize>, Box<Scatter>) {
        let entry = opcode::RecvMsg::new(self.fd(), scatter.message_header()).build();
        self.submit(entry, scatter).await
    }

    /// Sends some of `bytes[from..]`.
    pub(super) async fn send(self: &Rc<Self>, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        let rest = &bytes[from..];
        let entry =
            opcode::Send::new(self.fd(), rest.as_ptr(), rest.len() as u32).flags(libc::MSG_NOSIGNAL).build();
        self.submit(entry, bytes).await
    }

    /// Ends the receive that is pending on this socket with ECANCELED, keeping the connection. On kernels that cannot
    /// (before 5.19) the connection is shut down instead, which ends the receive too.
    pub(super) async fn cancel(self: &Rc<Self>) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(self.fd()).all()).build();
        let (result, ()) = self.submit(entry, ()).await;
        if result.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            self.shutdown();
        }
    }

    /// Closes the connection in both directions: pending operations complete.
    pub(super) fn shutdown(&self) {
        // It fails only where there is no connection any more.
        let _ = self.inner.shutdown(Shutdown::Both);
    }

    fn fd(&self) -> Fd {
        Fd(self.as_raw_fd())
    }

    async fn submit<T: Unpin + 'static>(
        self: &Rc<Self>,
        entry: squeue::Entry,
        data: T,
    ) -> (io::Result<usize>, T) {
        let held = (Rc::clone(self), data);
        UnsubmittedOneshot::new(held, GiveBack(PhantomData), entry).submit().await
    }
}

/// The transform of all operations here: the result, and the parts that were moved in.
struct GiveBack<T>(PhantomData<RefCell<T>>);

impl<T: 'static> OneshotOutputTransform for GiveBack<T> {
    type Output = (io::Result<usize>, T);
    type StoredData = (Rc<Socket>, T);

    fn transform_oneshot_output(self, data: Self::StoredData, entry: cqueue::Entry) -> Self::Output {
        let result =
            usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (result, data.1)
    }
}
