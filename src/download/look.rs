//! Judges what stands at the output path, file by file, before anything is changed.
//!
//! A file belongs to this download when some of it is right, or when it holds nothing but zeroes. Where a record of ours
//! names it, it may also hold nothing but pieces that are half done. All others are somebody else's, also those of which
//! nothing can be told: a small file whose only pieces it shares with others that are not right.

use super::check::{self, Checked, Sight, is_zeroes};
use super::resume::Known;
use super::{Interrupt, Observer, Request, bytes_of, wanted};
use crate::disk::{Existing, Part, Site, Verdict};
use crate::error::Error;
use crate::meta::geometry::PieceIndex;
use crate::swarm::bitfield::Bitfield;

/// So many bytes of a right piece prove whose a file is, or all of a shorter one. Fewer may be alike by chance: many files
/// begin the same.
const PROOF_LEN: u64 = 4096;

/// What was found out of the files.
pub(super) struct Looked {
    /// The pieces that are there.
    pub(super) have: Bitfield,
    /// What was known, without the pieces that were hashed.
    pub(super) known: Known,
    /// What is to become of each file.
    pub(super) verdicts: Vec<Verdict>,
    /// Bytes that were hashed.
    pub(super) checked: u64,
}

/// What is known of one file.
#[derive(Clone, Default)]
struct Traits {
    /// Some of it is right.
    is_proven: bool,
    /// Something of it was recorded, and is not there.
    is_disproved: bool,
    /// It has bytes that are neither right nor zeroes.
    has_others: bool,
    /// Some of those fill a piece, so that they are not the half of one.
    has_full_piece: bool,
}

/// Hashes what may be there and is not known, and judges each file.
///
/// # Errors
/// [`Error::NotOurs`] where a file is somebody else's and nobody said to replace it; those of [`check::pieces`].
pub(super) fn around(
    request: &Request,
    site: &Site,
    known: Known,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Looked, Error> {
    let mut judge = Judge { site, traits: vec![Traits::default(); site.file_count()] };
    let have = known.trusted.clone();
    let mut looked = Looked { have, known, verdicts: Vec::new(), checked: 0 };
    let read = |at, out: &mut [u8]| site.read(at, out);
    let mut check = |judge: &mut Judge<'_>, looked: &mut Looked, pieces: &[PieceIndex]| {
        let done = bytes_of(request, |piece| looked.have.get(piece) || looked.known.provisional.get(piece));
        let see = &mut |sight: &Sight<'_>| judge.see(sight);
        let Checked { right, bytes } = check::pieces(request, &read, pieces, done, interrupt, observer, see)?;
        looked.have.set_all(&right);
        looked.checked += bytes;
        Ok::<_, Error>(())
    };
    if looked.known.is_unchanged {
        judge.believe(&looked.known);
    } else {
        judge.probe(&mut looked, &mut check)?;
    }
    let is_open = |piece: &PieceIndex| {
        site.found().may_hold(*piece) && !looked.have.get(*piece) && !looked.known.provisional.get(*piece)
    };
    let candidates: Vec<_> = wanted(request).filter(is_open).collect();
    check(&mut judge, &mut looked, &candidates)?;
    looked.verdicts = judge.verdicts(&looked.have, looked.known.names_files);
    if request.existing == Existing::Keep {
        refuse_foreign(site, &looked.verdicts)?;
    }
    Ok(looked)
}

fn refuse_foreign(site: &Site, verdicts: &[Verdict]) -> Result<(), Error> {
    let mut foreign = (0..verdicts.len()).filter(|&file| verdicts[file] == Verdict::Foreign);
    match foreign.next() {
        Some(first) => Err(Error::NotOurs { path: site.path(first), others: foreign.count() }),
        None => Ok(()),
    }
}

struct Judge<'a> {
    site: &'a Site,
    traits: Vec<Traits>,
}

impl Judge<'_> {
    /// Takes the files to be as a record says.
    fn believe(&mut self, known: &Known) {
        for (traits, mut pieces) in self.traits.iter_mut().zip(self.site.pieces_of_each()) {
            traits.is_proven = pieces.any(|piece| known.has(piece));
        }
    }

    /// Has one of the recorded pieces of each file hashed, as the record does not tell whether somebody has written there
    /// since. Where it is wrong, the next.
    fn probe(
        &mut self,
        looked: &mut Looked,
        check: &mut impl FnMut(&mut Self, &mut Looked, &[PieceIndex]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if looked.known.provisional.count_ones() == 0 {
            return Ok(());
        }
        let pieces: Vec<Vec<PieceIndex>> = {
            let recorded = |piece: &PieceIndex| looked.known.provisional.get(*piece);
            self.site.pieces_of_each().map(|pieces| pieces.filter(recorded).collect()).collect()
        };
        for (file, pieces) in pieces.into_iter().enumerate() {
            if pieces.is_empty() || pieces.iter().any(|&piece| looked.have.get(piece)) {
                continue;
            }
            self.traits[file].is_disproved = true;
            for piece in pieces {
                if looked.known.provisional.clear(piece) {
                    check(self, looked, &[piece])?;
                }
                if looked.have.get(piece) {
                    self.traits[file].is_disproved = false;
                    break;
                }
            }
        }
        Ok(())
    }

    fn see(&mut self, sight: &Sight<'_>) {
        for Part { file, bytes, .. } in self.site.parts(sight.at, sight.bytes.len()) {
            let bytes = &sight.bytes[bytes];
            if is_zeroes(bytes) {
                continue;
            }
            let traits = &mut self.traits[file];
            if sight.is_right {
                traits.is_proven |= bytes.len() as u64 >= self.site.file_len(file).min(PROOF_LEN);
            } else {
                traits.has_others = true;
                traits.has_full_piece |= !sight.has_gap;
            }
        }
    }

    fn verdicts(&self, have: &Bitfield, names_files: bool) -> Vec<Verdict> {
        let files = self.traits.iter().zip(self.site.pieces_of_each()).enumerate();
        files.map(|(file, (traits, pieces))| self.verdict(file, traits, pieces, have, names_files)).collect()
    }

    fn verdict(
        &self,
        file: usize,
        traits: &Traits,
        mut pieces: impl Iterator<Item = PieceIndex>,
        have: &Bitfield,
        names_files: bool,
    ) -> Verdict {
        let (len, present) = (self.site.file_len(file), self.site.present_len(file));
        if len == 0 && present > Some(0) {
            // All that it holds is too much.
            return Verdict::Foreign;
        }
        if present.is_some() && pieces.all(|piece| have.get(piece)) {
            return Verdict::Whole;
        }
        // Ours have their length from the start.
        let may_be_half_done =
            names_files && present == Some(len) && !traits.is_disproved && !traits.has_full_piece;
        match traits.has_others && !traits.is_proven && !may_be_half_done {
            true => Verdict::Foreign,
            false => Verdict::Ours,
        }
    }
}
