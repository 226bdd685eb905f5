//! Judges what stands at the output path, file by file, before anything is changed.
//!
//! A file belongs to this download when some of it is right, or when it holds nothing but zeroes. Where a record of
//! ours names it, it may also hold nothing but pieces that are half done. All others are somebody else's, also those of
//! which nothing can be told: a small file whose only pieces it shares with others that are not right.

use std::cell::OnceCell;

use sha1::{Digest as _, Sha1};

use super::check::{self, Checked, Sight, is_zeroes};
use super::resume::Known;
use super::{Interrupt, Observer, Request, bytes_of, wanted};
use crate::disk::{Existing, Part, Site, Verdict};
use crate::error::Error;
use crate::meta::geometry::PieceIndex;
use crate::swarm::bitfield::Bitfield;

/// So many bytes of a right piece prove whose a file is, or all of a shorter one. Fewer may be alike by chance: many
/// files begin the same.
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
    let holes = Holes { request, site, of_zeroes: Default::default() };
    let is_open = |piece: &PieceIndex| {
        (site.found().may_hold(*piece) || holes.may_be_right(*piece))
            && !looked.have.get(*piece)
            && !looked.known.provisional.get(*piece)
    };
    let candidates: Vec<_> = wanted(request).filter(is_open).collect();
    check(&mut judge, &mut looked, &candidates)?;
    looked.verdicts = judge.verdicts(&looked.have, &looked.known);
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

/// Pieces that are right where nothing was ever written: they are nothing but zeroes.
struct Holes<'a> {
    request: &'a Request,
    site: &'a Site,
    /// The hash of zeroes, of a whole piece and of a shorter one at the end.
    of_zeroes: [OnceCell<[u8; 20]>; 2],
}

impl Holes<'_> {
    /// Whether the piece is nothing but zeroes, and lies in files that reach so far.
    fn may_be_right(&self, piece: PieceIndex) -> bool {
        let Self { request, site, of_zeroes } = self;
        let geometry = request.metainfo.geometry;
        let len = geometry.piece_size(piece);
        let is_there = |part: Part| {
            let end = part.at + part.bytes.len() as u64;
            site.present_len(part.file).is_some_and(|present| present >= end)
        };
        // Hashing a long piece takes a while, so only where it may help.
        site.parts(geometry.piece_offset(piece), len as usize).all(is_there) && {
            let of_zeroes = &of_zeroes[usize::from(len < geometry.piece_len())];
            request.metainfo.piece_hash(piece) == of_zeroes.get_or_init(|| hash_of_zeroes(len as usize))
        }
    }
}

fn hash_of_zeroes(len: usize) -> [u8; 20] {
    let (zeroes, mut hash) = ([0; 64 << 10], Sha1::new());
    let mut left = len;
    while left > 0 {
        let now = left.min(zeroes.len());
        hash.update(&zeroes[..now]);
        left -= now;
    }
    hash.finalize().into()
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

    /// Has one of the recorded pieces of each file hashed, as the record does not tell whether somebody has written
    /// there since. Where it is wrong, others.
    fn probe(
        &mut self,
        looked: &mut Looked,
        check: &mut impl FnMut(&mut Self, &mut Looked, &[PieceIndex]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if looked.known.provisional.count_ones() == 0 {
            return Ok(());
        }
        let mut left: Vec<(usize, Vec<PieceIndex>)> = {
            let recorded = |piece: &PieceIndex| looked.known.provisional.get(*piece);
            let pieces = self.site.pieces_of_each().map(|pieces| pieces.filter(recorded).collect());
            pieces.enumerate().filter(|(_, pieces): &(_, Vec<_>)| !pieces.is_empty()).collect()
        };
        // More of each file in every round, so that there are few of them however much is wrong.
        let mut each = 1;
        loop {
            let have = &looked.have;
            left.retain(|(_, pieces)| !pieces.iter().any(|&piece| have.get(piece)));
            let mut round = Vec::new();
            for (_, pieces) in &left {
                let next = pieces.iter().filter(|&&piece| looked.known.provisional.clear(piece));
                round.extend(next.take(each));
            }
            if round.is_empty() {
                break;
            }
            round.sort_unstable();
            check(self, looked, &round)?;
            each *= 2;
        }
        for (file, _) in left {
            self.traits[file].is_disproved = true;
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

    fn verdicts(&self, have: &Bitfield, known: &Known) -> Vec<Verdict> {
        let files = self.traits.iter().zip(self.site.pieces_of_each()).enumerate();
        files.map(|(file, (traits, pieces))| self.verdict(file, traits, pieces, have, known)).collect()
    }

    fn verdict(
        &self,
        file: usize,
        traits: &Traits,
        mut pieces: impl Iterator<Item = PieceIndex>,
        have: &Bitfield,
        known: &Known,
    ) -> Verdict {
        let (len, present) = (self.site.file_len(file), self.site.present_len(file));
        if len == 0 && present > Some(0) {
            // All that it holds is too much.
            return Verdict::Foreign;
        }
        // What is only taken to be there does not have to be written either, but nothing may be cut for it.
        let is_there =
            |piece: PieceIndex| have.get(piece) || present == Some(len) && known.provisional.get(piece);
        if present.is_some() && pieces.all(is_there) {
            return Verdict::Whole;
        }
        // Ours have their length from the start.
        let may_be_half_done =
            known.names_files && present == Some(len) && !traits.is_disproved && !traits.has_full_piece;
        match traits.has_others && !traits.is_proven && !may_be_half_done {
            true => Verdict::Foreign,
            false => Verdict::Ours,
        }
    }
}
