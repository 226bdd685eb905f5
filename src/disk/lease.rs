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
//! 6. Where files are written and not mapped, the windows of a lease are private memory of its own, taken from a pool
//!    and given back when it ends; its files are written by calls that need `&mut PieceLease`, or the lease itself, and
//!    are over when they return. So rules 1, 2 and 5 are all it takes.
//!
//! The acquire of a free piece meets the release of the lease before it, so the new owner sees its bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use super::draft::Draft;
use super::parts::Parts;
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

    /// Seals a free piece.
    pub(super) fn keep(&self, piece: PieceIndex) -> Result<(), Refused> {
        self.change_free(piece, SEALED)
    }

    pub(super) fn is_sealed(&self, piece: PieceIndex) -> bool {
        self.states[piece.at()].load(Ordering::Acquire) == SEALED
    }

    fn take(&self, piece: PieceIndex) -> Result<(), Refused> {
        self.change_free(piece, LEASED)
    }

    fn change_free(&self, piece: PieceIndex, to: u8) -> Result<(), Refused> {
        change(&self.states[piece.at()], FREE, to).map_err(|state| match state {
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

/// The right to write one piece, and to read it. Dropping it gives the piece back as it is: what was written to a map
/// is in the file, what was kept in memory to be written later is not.
pub struct PieceLease {
    output: Arc<Output>,
    piece: PieceIndex,
    size: u32,
    /// What becomes of the piece when the lease ends.
    next: u8,
    bytes: Bytes,
}

/// Where the bytes of a leased piece are.
enum Bytes {
    /// In mapped files.
    Mapped(Parts),
    /// In memory, on their way to files that are written.
    Draft(Box<Draft>),
}

impl PieceLease {
    /// Takes the lease of a piece of `size` bytes; the caller says where the bytes are.
    pub(super) fn take(output: &Arc<Output>, piece: PieceIndex, size: u32) -> Result<Self, Refused> {
        output.leases().take(piece)?;
        let bytes = Bytes::Mapped(Parts::default());
        Ok(Self { output: Arc::clone(output), piece, size, next: FREE, bytes })
    }

    /// The bytes are in mapped files.
    pub(super) fn set_parts(&mut self, parts: Parts) {
        self.bytes = Bytes::Mapped(parts);
    }

    /// The bytes will be in memory.
    pub(super) fn set_draft(&mut self, draft: Draft) {
        self.bytes = Bytes::Draft(Box::new(draft));
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
    pub fn write(&mut self, begin: u32, data: &[u8]) {
        let range = self.range(begin, data.len());
        match &mut self.bytes {
            Bytes::Mapped(parts) => parts.write(&range, data),
            Bytes::Draft(draft) => draft.write(&self.output, &range, data),
        }
    }

    /// Gives the places of `len` bytes from `begin` of the piece to `push`, in order: one, or more where the range
    /// crosses mapped files. False, and nothing is given, where there is no memory for them.
    ///
    /// Making them is safe; having anything write through them is not. Who passes them to the kernel must keep this
    /// lease alive and call nothing else on it until the kernel has completed the operation.
    ///
    /// # Panics
    /// When the range does not lie inside the piece.
    #[must_use]
    pub fn iovecs(&mut self, begin: u32, len: u32, push: &mut impl FnMut(libc::iovec)) -> bool {
        let range = self.range(begin, len as usize);
        match &mut self.bytes {
            Bytes::Mapped(parts) => {
                parts.iovecs(&range, push);
                true
            }
            Bytes::Draft(draft) => draft.iovec(&self.output, &range).map(push).is_some(),
        }
    }

    /// Notes that these bytes were received and will not be written again: where memory is short, they may go to their
    /// file at once. To be called once what wrote them has completed.
    ///
    /// # Panics
    /// When they do not lie inside the piece.
    pub fn landed(&mut self, begin: u32, len: u32) {
        let range = self.range(begin, len as usize);
        if let Bytes::Draft(draft) = &mut self.bytes {
            draft.landed(&self.output, &range);
        }
    }

    /// Notes that these bytes, which are a whole block or several, have been written and are of no use: they are
    /// written again before anybody looks at them.
    ///
    /// # Panics
    /// When they do not lie inside the piece.
    pub fn spoiled(&mut self, begin: u32, len: u32) {
        let range = self.range(begin, len as usize);
        if let Bytes::Draft(draft) = &mut self.bytes {
            draft.spoiled(&self.output, &range);
        }
    }

    /// Notes that nobody will write the piece for a while: memory for what has not landed is given up. Mapped pieces
    /// have none.
    pub fn park(&mut self) {
        if let Bytes::Draft(draft) = &mut self.bytes {
            draft.park(&self.output);
        }
    }

    /// Has all bytes in memory, for [`PieceLease::segments`]; reads those that are only in the files. False where that
    /// would take too much memory, so that they must be looked at by [`PieceLease::show`]. Bytes that nobody has
    /// written are what the files hold. Always true for mapped pieces, and for those that were received without delay.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn load(&mut self) -> Result<bool, DiskError> {
        match &mut self.bytes {
            Bytes::Mapped(_) => self.check_intact().map(|()| true),
            Bytes::Draft(draft) => draft.load(&self.output),
        }
    }

    /// The bytes of the piece in order, cut where mapped files meet. Where the disk failed they are zeroes that nobody
    /// wrote: [`PieceLease::seal`] and [`PieceLease::read`] know.
    ///
    /// # Panics
    /// When they are not all in memory: [`PieceLease::load`] must have said so.
    pub fn segments(&self) -> SmallVec<[&[u8]; 2]> {
        match &self.bytes {
            Bytes::Mapped(parts) => parts.segments().collect(),
            Bytes::Draft(draft) => {
                let bytes = draft.bytes();
                assert!(bytes.is_some(), "piece {} is not in memory", self.piece);
                bytes.into_iter().collect()
            }
        }
    }

    /// Shows the bytes of the piece to `see`, in order, bit by bit, until it returns false. Takes little memory
    /// wherever they are.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn show(&self, mut see: impl FnMut(&[u8]) -> bool) -> Result<(), DiskError> {
        match &self.bytes {
            Bytes::Mapped(parts) => {
                let _ = parts.segments().all(see);
                self.check_intact()
            }
            Bytes::Draft(draft) => draft.show(&self.output, &mut see),
        }
    }

    /// Copies the bytes from `begin` of the piece to `out` until it is full. They must be in memory, as all bytes are
    /// that were aimed at and have not landed.
    ///
    /// # Panics
    /// When they do not lie inside the piece, or are not in memory.
    pub fn copy_out(&self, begin: u32, out: &mut [u8]) {
        let range = self.range(begin, out.len());
        match &self.bytes {
            Bytes::Mapped(parts) => parts.copy_out(&range, out),
            Bytes::Draft(draft) => draft.copy(&self.output, &range, out),
        }
    }

    /// Copies the bytes from `begin` of the piece to `out` until it is full, wherever they are.
    ///
    /// # Errors
    /// What the disk answers.
    ///
    /// # Panics
    /// When they do not lie inside the piece.
    pub fn read(&self, begin: u32, out: &mut [u8]) -> Result<(), DiskError> {
        let range = self.range(begin, out.len());
        match &self.bytes {
            Bytes::Mapped(parts) => {
                parts.copy_out(&range, out);
                self.check_intact()
            }
            Bytes::Draft(draft) => draft.read(&self.output, &range, out),
        }
    }

    /// Whether every byte is zero: what a file holds where nothing was ever written.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn is_zeroes(&self) -> Result<bool, DiskError> {
        let mut zeroes = true;
        self.show(|bytes| {
            zeroes = bytes.iter().all(|&byte| byte == 0);
            zeroes
        })?;
        Ok(zeroes)
    }

    /// The piece will be received soon: has its pages made ready, by another thread. Not for a piece that is only
    /// looked at, as its pages count as changed from then on.
    pub fn prefault(&self) {
        if let Bytes::Mapped(parts) = &self.bytes
            && self.output.works_ahead()
        {
            parts.places().for_each(|(map, range)| self.output.upkeep().ahead(map, &range));
        }
    }

    /// Why these bytes cannot be written by the kernel, where they cannot: for when it says so (EFAULT).
    ///
    /// # Panics
    /// When they do not lie inside the piece.
    pub fn trouble(&self, begin: u32, len: u32) -> Option<DiskError> {
        let range = self.range(begin, len as usize);
        let Bytes::Mapped(parts) = &self.bytes else { return None };
        let (index, at) = parts.first_unwritable(&range)?;
        Some(self.output.cause(index, at))
    }

    /// The piece is verified: nobody can ever write it again. Sooner or later its pages leave this process; the file
    /// keeps them. What was kept in memory is written first.
    ///
    /// # Errors
    /// What the disk answers to that, or why the bytes that were verified are not those of the files. Then the piece is
    /// not sealed but free.
    pub fn seal(mut self) -> Result<(), DiskError> {
        self.check_intact()?;
        match &mut self.bytes {
            Bytes::Mapped(parts) => self.output.verified(parts.places())?,
            Bytes::Draft(draft) => draft.save(&self.output)?,
        }
        self.next = SEALED;
        Ok(())
    }

    /// Whether what was read and written is what the mapped files hold.
    fn check_intact(&self) -> Result<(), DiskError> {
        let Bytes::Mapped(parts) = &self.bytes else { return Ok(()) };
        parts.damage().map_or(Ok(()), |(index, at)| Err(self.output.cause(index, at)))
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
}

impl Drop for PieceLease {
    fn drop(&mut self) {
        // Windows and memory go first: from the moment the piece is free, another lease may make its own.
        match &mut self.bytes {
            Bytes::Mapped(parts) => parts.clear(),
            Bytes::Draft(draft) => draft.end(&self.output),
        }
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
