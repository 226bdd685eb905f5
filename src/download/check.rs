//! Finds out which pieces an output already holds.

use std::sync::Arc;
use std::sync::mpsc;

use super::{Interrupt, Observer, Request, check_interrupt, total};
use crate::disk::{DiskError, Output, PieceLease};
use crate::error::{Error, Progress};
use crate::hash::{Hashed, Job, Message, Verifier};
use crate::meta::geometry::PieceIndex;
use crate::net::shared;
use crate::swarm::bitfield::Bitfield;

/// Bytes being hashed at a time: enough for full lanes, little enough to stay in the caches' reach.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// Pieces being hashed at a time.
const IN_FLIGHT_MAX: usize = 256;

struct Check {
    lease: PieceLease,
    /// Why the piece could not be read.
    unread: Option<DiskError>,
}

impl Job for Check {
    fn len(&self) -> usize {
        self.lease.size() as usize
    }

    fn prepare(&mut self) -> Option<[u8; 20]> {
        shared::load(&mut self.lease).unwrap_or_else(|err| {
            self.unread = Some(err);
            Some([0; 20])
        })
    }

    fn message(&self) -> Message<'_> {
        self.lease.segments().into_iter().collect()
    }
}

/// What a check found.
pub(super) struct Checked {
    /// The pieces that are right; they are sealed.
    pub(super) right: Bitfield,
    /// Bytes that were hashed.
    pub(super) bytes: u64,
    /// Whether there was data, and none of it belongs to this torrent.
    pub(super) is_foreign: bool,
}

/// Hashes pieces that may be there, beside `done` bytes that are known to be right.
///
/// # Errors
/// What the disk answers, and [`Error::Interrupted`].
pub(super) fn pieces(
    request: &Request,
    output: &Arc<Output>,
    candidates: &[PieceIndex],
    done: u64,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Checked, Error> {
    let geometry = request.metainfo.geometry;
    let mut right = Bitfield::new(geometry.piece_count());
    if candidates.is_empty() {
        return Ok(Checked { right, bytes: 0, is_foreign: false });
    }
    let total_bytes = candidates.iter().map(|&piece| u64::from(geometry.piece_size(piece))).sum();
    let (verdicts, results) = mpsc::channel();
    let report =
        move |hashed: &mut Hashed<'_, Check>| hashed.for_each(|verdict| drop(verdicts.send(verdict)));
    let verifier = Verifier::start(request.threads, report).map_err(Error::Thread)?;
    let (mut in_flight, mut in_flight_bytes, mut checked_bytes, mut right_bytes) = (0, 0, 0, done);
    // Zeroes belong to anybody's file: they prove nothing either way.
    let (mut ours, mut foreign) = (false, false);
    let mut next = candidates.iter();
    loop {
        while in_flight < IN_FLIGHT_MAX && in_flight_bytes < IN_FLIGHT_BYTES {
            let Some(&piece) = next.next() else { break };
            // A piece that cannot be leased is fetched again, and whatever is wrong is told then.
            let Ok(lease) = output.lease(piece) else { continue };
            in_flight += 1;
            in_flight_bytes += u64::from(lease.size());
            verifier.submit(Check { lease, unread: None });
        }
        if in_flight == 0 {
            break;
        }
        let Ok((check, digest)) = results.recv() else { break };
        in_flight -= 1;
        in_flight_bytes -= u64::from(check.lease.size());
        checked_bytes += u64::from(check.lease.size());
        if let Some(err) = check.unread {
            return Err(err.into());
        }
        let piece = check.lease.piece();
        if digest == *request.metainfo.piece_hash(piece) {
            right_bytes += u64::from(check.lease.size());
            ours = ours || !check.lease.is_zeroes()?;
            check.lease.seal()?;
            right.set(piece);
        } else {
            // Reserved space reads as zeroes and counts as data on some file systems.
            foreign = foreign || !check.lease.is_zeroes()?;
        }
        observer.checking(checked_bytes, total_bytes);
        check_interrupt(interrupt, Progress { done: right_bytes, total: total(request) })?;
    }
    Ok(Checked { right, bytes: checked_bytes, is_foreign: foreign && !ours })
}
