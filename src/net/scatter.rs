//! The target of a scatter receive: one operation that puts many blocks straight into the mapped output.
//!
//! What goes where is the matter of a [`Forecast`]; here it is told to the kernel.

use crate::disk::PieceLease;
use crate::swarm::receive::{Forecast, Part, REACH_MAX};
use crate::swarm::session::Session;
use crate::wire::decoder::Decoder;

/// Segments of one receive: the kernel takes 1024 (UIO_MAXIOV); a block in a torrent of many small files has several.
const SEGMENTS_MAX: usize = 1024;

/// A forecast, with the memory in which the kernel finds it described.
#[derive(Debug)]
pub(super) struct Scatter {
    forecast: Forecast<PieceLease>,
    segments: Vec<libc::iovec>,
    message: Option<Box<libc::msghdr>>,
}

impl Scatter {
    pub(super) fn new() -> Box<Self> {
        let segments = Vec::with_capacity(4 * REACH_MAX);
        Box::new(Self { forecast: Forecast::default(), segments, message: None })
    }

    /// Aims at the blocks the session expects and takes its claims: see [`Forecast::aim`].
    pub(super) fn aim(&mut self, session: &mut Session<PieceLease>, decoder: &Decoder) -> bool {
        if !self.forecast.aim(session, decoder) {
            return false;
        }
        if self.lay_out() == 0 {
            // Not even one block fits: it lies in too many small files.
            self.forecast.cancel(session);
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
            lease.iovecs(begin, len, &mut |segment| segments.push(segment));
            // One is for the header behind.
            if segments.len() >= SEGMENTS_MAX {
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

    /// The forecast, to settle it when the receive is complete.
    pub(super) const fn forecast(&mut self) -> &mut Forecast<PieceLease> {
        &mut self.forecast
    }
}

fn segment(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}
