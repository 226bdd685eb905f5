//! Leases: the move-only right to write the bytes of one piece.
//!
//! # Why no write can reach bytes that belong to someone else
//!
//! 1. A piece is free, leased, sealed or closed: one atomic byte. Only the change from free to leased makes a
//!    [`PieceLease`], and it is one compare-exchange, so of two threads one gets the lease.
//! 2. A lease cannot be copied. Its end (drop) is the only way back to free; [`PieceLease::seal`] goes to sealed, from
//!    where nothing leads on. So at most one lease of a piece lives at any time, and none after it was verified.
//! 3. Pieces do not overlap in the content, spans do not overlap in the content, and no two spans are the same file
//!    (checked when the output is opened). At most one map of a file exists at a time. So the windows of two leases
//!    have no byte in common, which is the contract of [`Map::window`](super::map::Map::window).
//! 4. A lease owns its windows and lets go of them before the piece is free. A window owns its map, so the memory stays
//!    mapped as long as the lease lives; a lease that is leaked keeps its piece for ever.
//! 5. Writes by this process need `&mut PieceLease`, reads `&PieceLease`. The kernel's writes go to the places given by
//!    [`PieceLease::iovecs`], and whoever gives these to the kernel must own the lease, unused, until the operation is
//!    complete. Then a late completion finds the piece still leased: it was neither given to anyone else nor verified.
//!
//! The acquire of a free piece meets the release of the lease before it, so the new owner sees its bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{fmt, mem};

use smallvec::SmallVec;

use super::map::Window;
use super::{DiskError, Output};
use crate::meta::geometry::PieceIndex;

const FREE: u8 = 0;
const LEASED: u8 = 1;
const SEALED: u8 = 2;
const CLOSED: u8 = 3;

/// Why a piece cannot be leased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Someone has its lease.
    Leased,
    /// It is verified.
    Sealed,
    /// The output was undone.
    Closed,
    /// The output does not cover all of its bytes.
    Outside,
    /// Its memory cannot be had.
    Disk(DiskError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leased => f.write_str("the piece is leased"),
            Self::Sealed => f.write_str("the piece is verified"),
            Self::Closed => f.write_str("the output was undone"),
            Self::Outside => f.write_str("the piece is not part of the output"),
            Self::Disk(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(err) => Some(err),
            _ => None,
        }
    }
}

impl From<DiskError> for Refused {
    fn from(err: DiskError) -> Self {
        Self::Disk(err)
    }
}

/// The state of every piece.
pub(super) struct Leases {
    states: Box<[AtomicU8]>,
}

impl Leases {
    pub(super) fn new(piece_count: u32) -> Self {
        Self { states: (0..piece_count).map(|_| AtomicU8::new(FREE)).collect() }
    }

    /// Lets no free piece be leased any more; whether no lease is out.
    pub(super) fn close(&self) -> bool {
        let mut all_in = true;
        for state in &self.states {
            all_in &= change(state, FREE, CLOSED) != Err(LEASED);
        }
        all_in
    }

    fn take(&self, piece: PieceIndex) -> Result<(), Refused> {
        change(&self.states[piece.at()], FREE, LEASED).map_err(|state| match state {
            LEASED => Refused::Leased,
            SEALED => Refused::Sealed,
            _ => Refused::Closed,
        })
    }

    /// Ends a lease. Only its owner may call this.
    fn end(&self, piece: PieceIndex, to: u8) {
        let ended = change(&self.states[piece.at()], LEASED, to);
        debug_assert_eq!(ended, Ok(()), "a lease of piece {piece} was out that nobody took");
    }
}

fn change(state: &AtomicU8, from: u8, to: u8) -> Result<(), u8> {
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
}

/// The right to write one piece, and to read it. Dropping it gives the piece back as it is.
pub struct PieceLease {
    output: Arc<Output>,
    piece: PieceIndex,
    size: u32,
    /// What becomes of the piece when the lease ends.
    next: u8,
    /// The bytes of the piece in order, without gap.
    parts: SmallVec<[Part; 1]>,
}

/// The part of a piece that lies in one file or pad.
struct Part {
    /// Its first byte, counted from the start of the piece.
    begin: usize,
    window: Window,
}

impl Part {
    fn end(&self) -> usize {
        self.begin + self.window.len()
    }

    /// What this part has of the piece's `range`, which it meets: counted from the start of the part.
    fn clip(&self, range: &Range<usize>) -> Range<usize> {
        range.start.max(self.begin) - self.begin..range.end.min(self.end()) - self.begin
    }
}

impl PieceLease {
    /// Takes the lease of a piece of `size` bytes; the caller adds the windows on them.
    pub(super) fn take(output: &Arc<Output>, piece: PieceIndex, size: u32) -> Result<Self, Refused> {
        output.leases().take(piece)?;
        Ok(Self { output: Arc::clone(output), piece, size, next: FREE, parts: SmallVec::new() })
    }

    /// Adds the window on the next bytes of the piece.
    pub(super) fn add(&mut self, window: Window) {
        let begin = self.filled() as usize;
        debug_assert!(begin + window.len() <= self.size as usize, "more windows than piece");
        self.parts.push(Part { begin, window });
    }

    /// How many of its bytes have a window.
    pub(super) fn filled(&self) -> u32 {
        // At most the size of the piece.
        self.parts.last().map_or(0, Part::end) as u32
    }

    /// The piece.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// Its bytes, counted.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Copies `data` to `begin` of the piece. For bytes that are already in memory; the receive path has the kernel
    /// write into [`PieceLease::iovecs`].
    ///
    /// # Panics
    /// When the data do not lie inside the piece.
    pub fn write(&mut self, begin: u32, mut data: &[u8]) {
        let range = self.range(begin, data.len());
        for part in self.meeting_mut(&range) {
            let inside = part.clip(&range);
            let (now, later) = data.split_at(inside.len());
            part.window.write(inside.start, now);
            data = later;
        }
    }

    /// Gives the places of `len` bytes from `begin` of the piece to `push`, in order: one, or more where the range
    /// crosses files.
    ///
    /// Making them is safe; having anything write through them is not. Who passes them to the kernel must keep this
    /// lease alive and call nothing else on it until the kernel has completed the operation.
    ///
    /// # Panics
    /// When the range does not lie inside the piece.
    pub fn iovecs(&mut self, begin: u32, len: u32, push: &mut impl FnMut(libc::iovec)) {
        let range = self.range(begin, len as usize);
        for part in self.meeting_mut(&range) {
            let inside = part.clip(&range);
            push(part.window.target(inside.start, inside.len()));
        }
    }

    /// The bytes of the piece in order, cut where files meet.
    pub fn segments(&self) -> SmallVec<[&[u8]; 2]> {
        self.parts.iter().map(|part| part.window.bytes()).collect()
    }

    /// Copies the bytes from `begin` of the piece to `out` until it is full.
    ///
    /// # Panics
    /// When they do not lie inside the piece.
    pub fn copy_out(&self, begin: u32, mut out: &mut [u8]) {
        let range = self.range(begin, out.len());
        for part in self.parts[self.first_meeting(&range)..].iter().take_while(|part| meets(part, &range)) {
            let inside = part.clip(&range);
            let (now, later) = mem::take(&mut out).split_at_mut(inside.len());
            now.copy_from_slice(&part.window.bytes()[inside]);
            out = later;
        }
    }

    /// Whether every byte is zero: what a file holds where nothing was ever written.
    pub fn is_zeroes(&self) -> bool {
        self.parts.iter().all(|part| part.window.bytes().iter().all(|&byte| byte == 0))
    }

    /// The piece is verified: nobody can ever write it again. Sooner or later its pages leave this process; the file
    /// keeps them.
    pub fn seal(mut self) {
        self.next = SEALED;
        self.output.upkeep().verified(self.parts.iter().filter_map(|part| part.window.place()));
    }

    fn range(&self, begin: u32, len: usize) -> Range<usize> {
        let end = (begin as usize).checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.size as usize),
            "{len} bytes at {begin} leave piece {} of {} bytes",
            self.piece,
            self.size
        );
        begin as usize..begin as usize + len
    }

    fn meeting_mut<'a>(&'a mut self, range: &'a Range<usize>) -> impl Iterator<Item = &'a mut Part> {
        let first = self.first_meeting(range);
        self.parts[first..].iter_mut().take_while(|part| meets(part, range))
    }

    /// A piece of many tiny files has many parts, and a block of it only a few of them.
    fn first_meeting(&self, range: &Range<usize>) -> usize {
        self.parts.partition_point(|part| part.end() <= range.start)
    }
}

fn meets(part: &Part, range: &Range<usize>) -> bool {
    part.begin < range.end && range.start < part.end()
}

impl Drop for PieceLease {
    fn drop(&mut self) {
        // The windows go first: from the moment the piece is free, another lease may make its own.
        self.parts.clear();
        self.output.leases().end(self.piece, self.next);
    }
}

impl fmt::Debug for PieceLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PieceLease")
            .field("piece", &self.piece)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
