//! What a resume record needs of an output: which files there are, and that pieces are on the disk.

use std::collections::BTreeSet;

use super::error::Change;
use super::opener::Access;
use super::output::pieces_in;
use super::record::Stamp;
use super::tree::sync_to_disk;
use super::watch::Watch;
use super::{DiskError, Output, Refused};
use crate::meta::geometry::PieceIndex;

impl Output {
    /// A digest of which files there are, as it stands in their stamp.
    pub fn files_digest(&self) -> [u8; 20] {
        self.tree.files_digest()
    }

    /// What the files are now, and when they were changed.
    ///
    /// # Errors
    /// [`DiskError::Changed`] where a file is not the one that was opened, or was cut.
    pub fn stamp(&self) -> Result<Stamp, DiskError> {
        self.tree.stamp()
    }

    /// The pieces of which nobody can tell whether others have written to them since they were verified.
    pub fn doubtful(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let may_be_written = self.watch.as_ref().map(Watch::may_be_written);
        self.pieces_in_files(move |file| may_be_written.as_ref().is_none_or(|written| written[file]))
    }

    /// The pieces in files that others have written to meanwhile, as far as that can be told.
    pub fn disturbed(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let is_written = self.watch.as_ref().map(Watch::is_written);
        self.pieces_in_files(move |file| is_written.as_ref().is_some_and(|written| written[file]))
    }

    /// The error for a file that others have written to, by one of the pieces that are wrong since.
    pub fn disturbance(&self, piece: PieceIndex) -> DiskError {
        let written = self.watch.as_ref().map(Watch::is_written).unwrap_or_default();
        let mut files = self.files_of(piece);
        let path = files.find(|&file| written.get(file) == Some(&true)).map(|file| self.tree.path(file));
        let path = path.unwrap_or_else(|| self.tree.root().to_path_buf());
        DiskError::Changed { path, change: Change::Written }
    }

    fn pieces_in_files<'a>(
        &'a self,
        which: impl Fn(usize) -> bool + 'a,
    ) -> impl Iterator<Item = PieceIndex> + 'a {
        let spans =
            self.spans.iter().filter(move |span| span.file.as_ref().is_some_and(|file| which(file.index)));
        spans.flat_map(|span| pieces_in(self.geometry, span))
    }

    /// Seals a free piece that is known to be right.
    ///
    /// # Errors
    /// Where it is not free.
    pub fn keep(&self, piece: PieceIndex) -> Result<(), Refused> {
        self.leases().keep(piece)
    }

    /// Waits until these pieces are on the disk, and so is how their files find them.
    ///
    /// # Errors
    /// What the disk answers, also to writes of before.
    pub fn sync_pieces(&self, pieces: impl Iterator<Item = PieceIndex>) -> Result<(), DiskError> {
        let files: BTreeSet<usize> = pieces.flat_map(|piece| self.files_of(piece)).collect();
        for index in files {
            // What was right from the start need not be writable.
            let file = self.file(index, Access::Read)?;
            sync_to_disk(&file, &self.tree.path(index)).inspect_err(|_| self.forget_cached())?;
        }
        Ok(())
    }

    /// Changes nothing in the files any more but what leases write.
    pub fn rest(&self) {
        self.upkeep().rest();
    }

    /// The files that have bytes of a piece, by their index in the tree.
    fn files_of(&self, piece: PieceIndex) -> impl Iterator<Item = usize> + '_ {
        let spans = self.spans_in(self.range(piece).unwrap_or_default());
        spans.filter_map(|span| span.file.as_ref()).map(|file| file.index)
    }
}
