//! The target of a scatter receive: one operation that puts many blocks straight to their places.
//!
//! What goes where is the matter of a [`Forecast`]; here it is told to the kernel.

use std::io;
use std::os::fd::AsRawFd;

use super::socket::Socket;
use crate::disk::{DiskError, PieceLease};
use crate::swarm::receive::{Forecast, Part, REACH_MAX};
use crate::swarm::session::Session;
use crate::wire::decoder::Decoder;
use crate::wire::message::PieceHeader;

/// Segments of one receive: the kernel takes 1024 (UIO_MAXIOV); a block in a torrent of many small files has several.
const SEGMENTS_MAX: usize = 1024;

/// A forecast, with the memory in which the kernel finds it described.
#[derive(Debug)]
pub(super) struct Scatter {
    forecast: Forecast<PieceLease>,
    segments: Vec<libc::iovec>,
    message: Option<Box<libc::msghdr>>,
    /// Blocks aimed at.
    blocks: usize,
}

impl Scatter {
    pub(super) fn new() -> Box<Self> {
        let segments = Vec::with_capacity(4 * REACH_MAX);
        Box::new(Self { forecast: Forecast::default(), segments, message: None, blocks: 0 })
    }

    /// Aims at the blocks the session expects, up to so many, and takes its claims: see [`Forecast::aim`].
    pub(super) fn aim(
        &mut self,
        session: &mut Session<PieceLease>,
        decoder: &Decoder,
        socket: &Socket,
        blocks_max: usize,
    ) -> bool {
        if !self.forecast.aim(session, decoder, |offset| look(socket, offset)) {
            return false;
        }
        self.forecast.truncate(blocks_max);
        self.blocks = self.lay_out();
        if self.blocks == 0 {
            // Not even one block fits: it lies in too many small files, or there is no memory for it.
            self.forecast().cancel(session);
            return false;
        }
        true
    }

    /// Lists the places in the order of the stream. Returns for how many blocks there was room.
    fn lay_out(&mut self) -> usize {
        let segments = &mut self.segments;
        segments.clear();
        let mut count = 0;
        while let Some(Part { header, lease, begin, len }) = self.forecast.part(count) {
            let before = segments.len();
            if !header.is_empty() {
                segments.push(segment(header));
            }
            let has_places = lease.iovecs(begin, len, &mut |segment| segments.push(segment));
            // One is for the header behind.
            if !has_places || segments.len() >= SEGMENTS_MAX {
                segments.truncate(before);
                break;
            }
            count += 1;
        }
        self.forecast.truncate(count);
        segments.push(segment(self.forecast.header_behind()));
        count
    }

    /// The kernel's description of the target, valid as long as this box lives and is not aimed anew.
    #[expect(
        unsafe_code,
        reason = "the kernel's msghdr has padding on some platforms, so it is made of zeros"
    )]
    pub(super) fn message_header(&mut self) -> *mut libc::msghdr {
        let message = self.message.get_or_insert_with(|| {
            // SAFETY: msghdr is a plain C structure of integers and pointers, for which all zeros is a value.
            Box::new(unsafe { std::mem::zeroed() })
        });
        message.msg_iov = self.segments.as_mut_ptr();
        message.msg_iovlen = self.segments.len() as _;
        &raw mut **message
    }

    /// Receives what is in the socket to the places this is aimed at, without waiting for more.
    #[expect(unsafe_code, reason = "nobody wraps a recvmsg to places that are no slices")]
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        let message = self.message_header();
        // SAFETY: the vectors are those of the last aim, or none. They are places in the header slots of the forecast
        // and in the blocks of the leases that it has held since then, and no one else can reach either during the
        // call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// How many blocks it is aimed at.
    pub(super) const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Why the kernel could not write to the places, as far as it can be told. To be asked before the receive is
    /// settled.
    pub(super) fn trouble(&mut self) -> Option<DiskError> {
        let mut at = 0;
        while let Some(Part { lease, begin, len, .. }) = self.forecast.part(at) {
            if let Some(error) = lease.trouble(begin, len) {
                return Some(error);
            }
            at += 1;
        }
        None
    }

    /// The forecast, to settle it when the receive is complete. Its leases may go elsewhere, so this is aimed at
    /// nothing from here on.
    pub(super) fn forecast(&mut self) -> &mut Forecast<PieceLease> {
        self.segments.clear();
        &mut self.forecast
    }
}

/// Bytes of the stream, `offset` behind those that were received, if they are in the socket. They stay there.
///
/// Needs an offset for peeking, which TCP has since Linux 6.9 (over IPv6 since later); before, nothing is seen.
#[expect(unsafe_code, reason = "the option for the offset is in no library")]
fn look(socket: &Socket, offset: usize) -> Option<[u8; PieceHeader::LEN]> {
    let offset = libc::c_int::try_from(offset).ok()?;
    let fd = socket.as_raw_fd();
    let value = (&raw const offset).cast();
    let len = size_of_val(&offset) as libc::socklen_t;
    // SAFETY: the value is one integer, which outlives the call, and its length is given.
    if unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, len) } != 0 {
        return None;
    }
    let mut bytes = [0; PieceHeader::LEN];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the target is as long as is said.
    let got = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    (got == bytes.len() as isize).then_some(bytes)
}

fn segment(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}
