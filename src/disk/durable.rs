//! What a resume record needs of an output: which files there are, and that pieces are on the disk.

use std::collections::BTreeSet;

use super::record::Stamp;
use super::tree::sync_to_disk;
use super::{DiskError, Output, Refused};
use crate::meta::geometry::PieceIndex;

impl Output {
    /// What the files were when the output was opened, before anything was done to them.
    pub const fn found_stamp(&self) -> Stamp {
        self.tree.found_stamp()
    }

    /// What the files are now, and when they were changed.
    ///
    /// # Errors
    /// [`DiskError::Changed`] where a file is not the one that was opened, or was cut.
    pub fn stamp(&self) -> Result<Stamp, DiskError> {
        self.tree.stamp()
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
            let file = self.handles.get(index, || self.tree.open(index))?;
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
