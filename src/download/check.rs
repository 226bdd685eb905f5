//! Hashes pieces that may be there already.

use std::sync::mpsc::{self, Receiver};

use sha1::{Digest as _, Sha1};

use super::{Interrupt, Observer, Request, check_interrupt, total};
use crate::disk::DiskError;
use crate::error::{Error, Progress};
use crate::hash::{Hashed, Job, Message, Verifier};
use crate::meta::geometry::{BLOCK_LEN, PieceIndex};
use crate::swarm::bitfield::Bitfield;

/// Bytes being hashed at a time: enough for full lanes, little enough to stay in the caches' reach.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// Pieces being hashed at a time.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of the longest piece that is read as a whole; longer ones are hashed bit by bit.
const WHOLE_LEN_MAX: usize = 64 << 20;
/// Bytes of zeroes at the end of a block, from which on it may have been received in part: a kill comes at any byte.
const GAP_LEN: usize = 16;
/// Bytes read at a time of a longer one.
const READ_LEN: usize = 1 << 20;

/// Fills a buffer with the content from an offset on.
pub(super) type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), DiskError> + 'a;

/// Bytes of a piece that was hashed.
pub(super) struct Sight<'a> {
    pub(super) is_right: bool,
    /// Whether a block of the piece ends in zeroes: it may be half done.
    pub(super) has_gap: bool,
    /// Where in the content the bytes are.
    pub(super) at: u64,
    pub(super) bytes: &'a [u8],
}

/// What a check found.
pub(super) struct Checked {
    /// The pieces that are right.
    pub(super) right: Bitfield,
    /// Bytes that were hashed.
    pub(super) bytes: u64,
}

/// A piece that was read.
struct Check {
    piece: PieceIndex,
    bytes: Vec<u8>,
}

impl Job for Check {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn message(&self) -> Message<'_> {
        Message::from(&self.bytes[..])
    }
}

/// Hashes these pieces as `read` gives them, beside `done` bytes that are known to be right, and shows all their bytes
/// to `see`.
///
/// # Errors
/// What the disk answers, and [`Error::Interrupted`].
pub(super) fn pieces(
    request: &Request,
    read: &Read<'_>,
    candidates: &[PieceIndex],
    done: u64,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
    see: &mut dyn FnMut(&Sight<'_>),
) -> Result<Checked, Error> {
    let geometry = request.metainfo.geometry;
    let size = |piece: PieceIndex| geometry.piece_size(piece) as usize;
    let mut checked = Checked { right: Bitfield::new(geometry.piece_count()), bytes: 0 };
    if candidates.is_empty() {
        return Ok(checked);
    }
    let total_bytes = candidates.iter().map(|&piece| size(piece) as u64).sum();
    let mut bench = Bench::start(request)?;
    let mut next = candidates.iter().peekable();
    let mut right_bytes = done;
    loop {
        while bench.has_room()
            && let Some(&piece) = next.next_if(|&&piece| size(piece) <= WHOLE_LEN_MAX)
        {
            bench.submit(read, piece, geometry.piece_offset(piece), size(piece))?;
        }
        let heed = || check_interrupt(interrupt, Progress { done: right_bytes, total: total(request) });
        let (piece, is_right) = match bench.next(request, see) {
            Some(judged) => judged,
            None => match next.next() {
                Some(&piece) => (piece, long_piece(request, read, piece, &heed, see)?),
                None => return Ok(checked),
            },
        };
        checked.bytes += size(piece) as u64;
        if is_right {
            right_bytes += size(piece) as u64;
            checked.right.set(piece);
        }
        observer.checking(checked.bytes, total_bytes);
        check_interrupt(interrupt, Progress { done: right_bytes, total: total(request) })?;
    }
}

/// The pieces that are being hashed.
struct Bench {
    verifier: Verifier<Check>,
    results: Receiver<(Check, [u8; 20])>,
    count: usize,
    bytes: u64,
    /// Memory of pieces that are done, to be used again.
    spare: Vec<Vec<u8>>,
}

impl Bench {
    fn start(request: &Request) -> Result<Self, Error> {
        let (verdicts, results) = mpsc::channel();
        let report =
            move |hashed: &mut Hashed<'_, Check>| hashed.for_each(|verdict| drop(verdicts.send(verdict)));
        let verifier = Verifier::start(request.threads, report).map_err(Error::Thread)?;
        Ok(Self { verifier, results, count: 0, bytes: 0, spare: Vec::new() })
    }

    const fn has_room(&self) -> bool {
        self.count < IN_FLIGHT_MAX && self.bytes < IN_FLIGHT_BYTES
    }

    fn submit(&mut self, read: &Read<'_>, piece: PieceIndex, at: u64, size: usize) -> Result<(), DiskError> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(size, 0);
        read(at, &mut bytes)?;
        self.count += 1;
        self.bytes += size as u64;
        self.verifier.submit(Check { piece, bytes });
        Ok(())
    }

    /// Waits for the next piece, if any is being hashed; whether it is right.
    fn next(&mut self, request: &Request, see: &mut dyn FnMut(&Sight<'_>)) -> Option<(PieceIndex, bool)> {
        if self.count == 0 {
            return None;
        }
        let (Check { piece, bytes }, digest) = self.results.recv().ok()?;
        self.count -= 1;
        self.bytes -= bytes.len() as u64;
        let is_right = digest == *request.metainfo.piece_hash(piece);
        let at = request.metainfo.geometry.piece_offset(piece);
        see(&Sight { is_right, has_gap: has_gap(&bytes), at, bytes: &bytes });
        self.spare.push(bytes);
        Some((piece, is_right))
    }
}

/// Hashes a piece bit by bit, and reads it once more to show it. As that can take seconds, it asks `heed` all the time
/// whether to go on.
fn long_piece(
    request: &Request,
    read: &Read<'_>,
    piece: PieceIndex,
    heed: &dyn Fn() -> Result<(), Error>,
    see: &mut dyn FnMut(&Sight<'_>),
) -> Result<bool, Error> {
    let geometry = request.metainfo.geometry;
    let (start, size) = (geometry.piece_offset(piece), u64::from(geometry.piece_size(piece)));
    let mut buffer = vec![0; READ_LEN];
    let mut each = |use_bytes: &mut dyn FnMut(u64, &[u8])| -> Result<(), Error> {
        for at in (start..start + size).step_by(READ_LEN) {
            heed()?;
            let bytes = &mut buffer[..(start + size - at).min(READ_LEN as u64) as usize];
            read(at, bytes)?;
            use_bytes(at, bytes);
        }
        Ok(())
    };
    let (mut hash, mut any_gap) = (Sha1::new(), false);
    each(&mut |_, bytes| {
        hash.update(bytes);
        any_gap |= has_gap(bytes);
    })?;
    let is_right = hash.finalize()[..] == request.metainfo.piece_hash(piece)[..];
    each(&mut |at, bytes| see(&Sight { is_right, has_gap: any_gap, at, bytes }))?;
    Ok(is_right)
}

fn has_gap(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK_LEN as usize).any(|block| is_zeroes(&block[block.len().saturating_sub(GAP_LEN)..]))
}

/// Whether every byte is zero: what a file holds where nothing was ever written.
pub(super) fn is_zeroes(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_with_half_a_block_may_be_half_done() {
        let block = BLOCK_LEN as usize;
        let received = |len: usize| {
            let mut piece = vec![7; 4 * block];
            piece[block + len..2 * block].fill(0);
            has_gap(&piece)
        };
        assert!(received(0) && received(1) && received(block - GAP_LEN));
        assert!(!received(block - GAP_LEN + 1) && !received(block));
        assert!(!has_gap(&[7, 0]) && has_gap(&[0, 0]));
    }
}
