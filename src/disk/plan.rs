//! What the output consists of: which bytes of the content go to which file. Checked when made, trusted from then on.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{DiskError, Io};
use crate::meta::geometry::{Geometry, PieceIndex};

/// Folders that a file may lie below the output folder. Each is an open descriptor while files are made.
pub const FOLDERS_DEEP_MAX: usize = 100;

/// Where a stretch of the content goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To a file: its path below the output folder, of plain names only.
    File(PathBuf),
    /// Nowhere: pad bytes (BEP 47), which are zeroes. They are received and hashed in private memory and never kept.
    Pad,
}

/// A stretch of the content and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// Its first byte in the content.
    pub(super) offset: u64,
    /// Its bytes; 0 for an empty file.
    pub(super) len: u64,
    /// Where it goes. The path of a [`Layout::File`] is empty.
    pub(super) target: Target,
}

/// What stands at the output path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// The only file. A symbolic link there is the user's own and is followed, as cp does.
    File,
    /// A folder with the files below it. It may be a link too; what is below it may not.
    Folder,
}

/// The output of one download.
///
/// Invariant: the spans follow each other without gap or overlap and lie inside the content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) root: PathBuf,
    pub(super) layout: Layout,
    pub(super) spans: Vec<Span>,
    pub(super) geometry: Geometry,
    pub(super) io: Io,
    /// The files that are programs, by their paths as in `spans`.
    pub(super) programs: HashSet<PathBuf>,
}

impl Plan {
    /// The same output, written in this way.
    #[must_use]
    pub const fn with_io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// The same output, in which these files, by their paths below the output folder, are programs; of a single file
    /// the path is empty.
    #[must_use]
    pub fn with_programs(mut self, programs: impl IntoIterator<Item = PathBuf>) -> Self {
        self.programs = programs.into_iter().collect();
        self
    }

    /// The whole content in the file `path`.
    pub fn file(path: impl Into<PathBuf>, geometry: Geometry) -> Self {
        Self::of_one_file(path.into(), geometry, 0, geometry.total_len())
    }

    /// Only the bytes of `piece`, in the file `path`. No other piece can be leased.
    pub fn piece(path: impl Into<PathBuf>, geometry: Geometry, piece: PieceIndex) -> Self {
        let len = u64::from(geometry.piece_size(piece));
        Self::of_one_file(path.into(), geometry, geometry.piece_offset(piece), len)
    }

    fn of_one_file(root: PathBuf, geometry: Geometry, offset: u64, len: u64) -> Self {
        let spans = vec![Span { offset, len, target: Target::File(PathBuf::new()) }];
        Self { root, layout: Layout::File, spans, geometry, io: Io::Auto, programs: HashSet::new() }
    }

    /// The content laid over `targets` (with their lengths in bytes) one after the other, below the folder `path`.
    ///
    /// # Errors
    /// [`DiskError::BadName`] for a path that is empty, absolute, not of plain names or more than
    /// [`FOLDERS_DEEP_MAX`] folders deep; [`DiskError::WrongTotal`] when the lengths do not add up to the content's.
    pub fn folder(
        path: impl Into<PathBuf>,
        geometry: Geometry,
        targets: impl IntoIterator<Item = (Target, u64)>,
    ) -> Result<Self, DiskError> {
        let mut spans = Vec::new();
        let mut offset = 0u64;
        for (target, len) in targets {
            if let Target::File(path) = &target {
                check_name(path)?;
            }
            spans.push(Span { offset, len, target });
            // A sum past 64 bits is as wrong as any other that is not the content's.
            offset = offset.saturating_add(len);
        }
        if offset != geometry.total_len() {
            return Err(DiskError::WrongTotal { files: offset, content: geometry.total_len() });
        }
        Ok(Self {
            root: path.into(),
            layout: Layout::Folder,
            spans,
            geometry,
            io: Io::Auto,
            programs: HashSet::new(),
        })
    }
}

/// The names come cleaned from the metainfo; this is the last look before they reach the system.
fn check_name(path: &Path) -> Result<(), DiskError> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let depth = path.components().count();
    let has_nul = path.as_os_str().as_bytes().contains(&0);
    if plain && !has_nul && (1..=FOLDERS_DEEP_MAX + 1).contains(&depth) {
        Ok(())
    } else {
        Err(DiskError::BadName { path: path.to_path_buf() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> Result<Plan, DiskError> {
        let geometry = Geometry::new(names.len() as u64, 1).unwrap();
        Plan::folder("out", geometry, names.iter().map(|name| (Target::File(name.into()), 1)))
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "/etc/passwd", "..", "a/../../b", "../b", "a/..", "a\0b", "."] {
            assert_eq!(folder(&["fine", name]), Err(DiskError::BadName { path: name.into() }), "{name:?}");
        }
        assert!(folder(&["a", "a b/c", "...", "..a/b.."]).is_ok());
    }

    #[test]
    fn the_depth_is_limited() {
        let deepest = "d/".repeat(FOLDERS_DEEP_MAX) + "f";
        let too_deep = "d/".repeat(FOLDERS_DEEP_MAX + 1) + "f";
        assert!(folder(&[&deepest]).is_ok());
        assert_eq!(folder(&[&too_deep]), Err(DiskError::BadName { path: too_deep.into() }));
    }

    #[test]
    fn lengths_must_add_up() {
        let geometry = Geometry::new(10, 4).unwrap();
        let parts = |a, b| Plan::folder("out", geometry, [(Target::File("a".into()), a), (Target::Pad, b)]);
        assert!(parts(3, 7).is_ok());
        assert_eq!(parts(3, 8), Err(DiskError::WrongTotal { files: 11, content: 10 }));
        assert_eq!(parts(u64::MAX, 2), Err(DiskError::WrongTotal { files: u64::MAX, content: 10 }));
    }
}
