//! Finds out which pieces an existing output already holds.

use std::sync::Arc;
use std::sync::mpsc;

use super::{Interrupt, Observer, Request, check_interrupt, total, wanted};
use crate::disk::{DiskError, Found, Output, PieceLease};
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

/// Hashes the pieces that may be there; those that are right are sealed and returned.
///
/// # Errors
/// [`Error::NotOurs`] when there was data and none of it belongs to this torrent.
pub(super) fn existing(
    request: &Request,
    output: &Arc<Output>,
    found: &Found,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Bitfield, Error> {
    let geometry = request.metainfo.geometry;
    let mut have = Bitfield::new(geometry.piece_count());
    let candidates: Vec<PieceIndex> = wanted(request).filter(|&piece| found.may_hold(piece)).collect();
    let total_bytes = candidates.iter().map(|&piece| u64::from(geometry.piece_size(piece))).sum();
    let (verdicts, results) = mpsc::channel();
    let done = move |hashed: &mut Hashed<'_, Check>| hashed.for_each(|verdict| drop(verdicts.send(verdict)));
    let verifier = Verifier::start(request.threads, done).map_err(Error::Thread)?;
    let (mut in_flight, mut in_flight_bytes, mut checked_bytes, mut kept_bytes) = (0, 0, 0, 0);
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
            kept_bytes += u64::from(check.lease.size());
            ours = ours || !check.lease.is_zeroes()?;
            check.lease.seal()?;
            have.set(piece);
        } else {
            // Reserved space reads as zeroes and counts as data on some file systems.
            foreign = foreign || !check.lease.is_zeroes()?;
        }
        observer.checking(checked_bytes, total_bytes);
        check_interrupt(interrupt, Progress { done: kept_bytes, total: total(request) })?;
    }
    if foreign && !ours {
        return Err(Error::NotOurs { path: request.output.clone() });
    }
    Ok(have)
}
