//! The place of an output before anything is made or changed there: which files stand there, and what they hold.
//!
//! [`Site::find`] opens what is there to be read, locks it, and refuses what can never be an output. Whose the bytes
//! are is for those to judge who know the hashes of the pieces ([`Site::read`]). Only then [`Site::make`] touches the
//! disk: it makes what is missing, and opens for writing only the files that are to be written.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Change;
use super::opener::{self, Access, FileId, Links, Opener, shown, split};
use super::output::{Placed, pieces_in, place, spans_in};
use super::plan::Layout;
use super::record::{Stamp, Stamper};
use super::tree::{Existing, Tree};
use super::walker::Walker;
use super::{DiskError, Found, Io, Output, Plan, sys, uncached};
use crate::meta::geometry::{Geometry, PieceIndex};

/// The files of an output as they were found.
pub struct Site {
    geometry: Geometry,
    io: Io,
    /// The files that are programs, by their paths below the root.
    programs: HashSet<PathBuf>,
    spans: Box<[Placed]>,
    ground: Ground,
    found: Found,
    stamp: Stamp,
    /// The file that was read last, as pieces are looked at in order.
    open: RefCell<Option<(usize, File)>>,
    /// Whether the file system refuses reads that leave nothing in memory.
    is_cached: Cell<bool>,
}

/// What stands at the output path.
pub(super) struct Ground {
    pub(super) root: PathBuf,
    pub(super) layout: Layout,
    /// The output folder, or the only file, where it is there.
    pub(super) handle: Option<File>,
    pub(super) files: Vec<Standing>,
    /// What locks files below the root.
    pub(super) locks: Vec<File>,
}

/// A file of the output.
pub(super) struct Standing {
    /// Below the root; empty for the only file.
    pub(super) path: PathBuf,
    /// The bytes of the torrent's file.
    pub(super) len: u64,
    pub(super) there: Option<There>,
}

/// A file that was there.
pub(super) struct There {
    pub(super) id: FileId,
    /// Whether its file system counts names, so that a file without any was removed.
    pub(super) counts_names: bool,
    pub(super) len: u64,
    /// The bytes of its blocks.
    pub(super) allocated: u64,
    /// When it was changed: what it holds, and anything else of it.
    changed: [i64; 4],
}

impl There {
    pub(super) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            id: FileId::of(metadata),
            counts_names: metadata.nlink() > 0,
            len: metadata.len(),
            allocated: metadata.blocks().saturating_mul(sys::STAT_BLOCK_LEN),
            changed: [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()],
        }
    }
}

/// Bytes of one file among those of a stretch of the content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The file, by its place among those of the output.
    pub file: usize,
    /// Its first byte of them.
    pub at: u64,
    /// Where they are in the stretch.
    pub bytes: Range<usize>,
}

/// What is to become of a file that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All its bytes are right, or taken to be right for now: it is not written, at most cut.
    Whole,
    /// It is ours, or holds nothing: what it lacks is written to it.
    Ours,
    /// It is somebody else's, and its bytes are to be replaced when others are there.
    Foreign,
}

impl Site {
    /// Opens and locks what is there, and changes nothing. `torrent` is the file that the torrent was read from.
    ///
    /// # Errors
    /// Every [`DiskError`] about what cannot be an output of this torrent, among them [`DiskError::TooLong`] where
    /// `existing` is to be kept.
    pub fn find(plan: Plan, existing: Existing, torrent: Option<&Path>) -> Result<Self, DiskError> {
        sys::ignore_size_signal();
        let Plan { root, layout, spans, geometry, io, programs } = plan;
        let (spans, files) = place(spans);
        let handle = match layout {
            Layout::File => None,
            Layout::Folder => opener::find_root_folder(&root)?,
        };
        if let Some(folder) = &handle {
            opener::lock(folder, &root)?;
        }
        let ground =
            Ground { root, layout, handle, files: Vec::with_capacity(files.len()), locks: Vec::new() };
        let (found, open) = (Found::nothing(geometry), RefCell::default());
        let (stamp, is_cached) = (Stamper::default().finish(), Cell::default());
        let mut site = Self { geometry, io, programs, spans, ground, found, stamp, open, is_cached };
        // One that cannot be looked at is no file that could be written.
        let torrent = torrent.and_then(|path| fs::metadata(path).ok()).map(|metadata| FileId::of(&metadata));
        site.find_files(files, existing, torrent)?;
        Ok(site)
    }

    fn find_files(
        &mut self,
        files: Vec<(PathBuf, u64)>,
        existing: Existing,
        torrent: Option<FileId>,
    ) -> Result<(), DiskError> {
        let Self { spans, ground, found, .. } = self;
        let Ground { root, layout, handle, files: standing, locks } = ground;
        let offsets = spans.iter().filter(|span| span.file.is_some()).map(|span| span.offset);
        let folder = handle.as_ref().map(File::try_clone).transpose();
        let folder = folder.map_err(|err| DiskError::new("open the folder", root, &err))?;
        let mut walker = folder.as_ref().map(|folder| Walker::new(folder, root));
        let locks_max = opener::locks_max();
        let (mut stamper, mut ids) = (Stamper::default(), HashSet::with_capacity(files.len()));
        for ((path, len), offset) in files.into_iter().zip(offsets) {
            let shown = shown(root, &path);
            let opened = match (*layout, &mut walker) {
                (Layout::File, _) => opener::find_file(None, root.as_os_str(), Links::Follow, &shown)?,
                (Layout::Folder, None) => None,
                (Layout::Folder, Some(walker)) => find_below(walker, &path, &shown)?,
            };
            let Some((file, metadata)) = opened else {
                standing.push(Standing { path, len, there: None });
                continue;
            };
            let there = There::of(&metadata);
            if torrent == Some(there.id) {
                return Err(DiskError::IsTheTorrent { path: shown });
            }
            if !ids.insert(there.id) {
                return Err(DiskError::SameFile { path: shown });
            }
            if existing == Existing::Keep && there.len > len {
                return Err(DiskError::TooLong { path: shown, found: there.len, expected: len });
            }
            opener::lock(&file, &shown)?;
            stamper.add(&metadata);
            let looked = if there.len > 0 { found.look_at(&file, offset, len) } else { Ok(()) };
            looked.map_err(|err| DiskError::new("look for data in", &shown, &err))?;
            standing.push(Standing { path, len, there: Some(there) });
            match layout {
                Layout::File => *handle = Some(file),
                Layout::Folder if locks.len() < locks_max => locks.push(file),
                Layout::Folder => {}
            }
        }
        self.stamp = stamper.finish();
        Ok(())
    }

    /// Which pieces may be there.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// What the files are, and when they were changed.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// How many files there are to be.
    pub fn file_count(&self) -> usize {
        self.ground.files.len()
    }

    /// The path of a file, as the user knows it.
    pub fn path(&self, file: usize) -> PathBuf {
        shown(&self.ground.root, &self.ground.files[file].path)
    }

    /// The bytes that a file is to have.
    pub fn file_len(&self, file: usize) -> u64 {
        self.ground.files[file].len
    }

    /// The bytes that a file has; `None` where it is missing.
    pub fn present_len(&self, file: usize) -> Option<u64> {
        self.ground.files[file].there.as_ref().map(|there| there.len)
    }

    /// For each file the pieces that have bytes of it, in order; none for an empty one.
    pub fn pieces_of_each(&self) -> impl Iterator<Item = impl Iterator<Item = PieceIndex> + use<>> + '_ {
        let spans = self.spans.iter().filter(|span| span.file.is_some());
        spans.map(|span| pieces_in(self.geometry, span))
    }

    /// The parts of `len` bytes of the content from `at` that lie in files.
    pub fn parts(&self, at: u64, len: usize) -> impl Iterator<Item = Part> + '_ {
        let end = at + len as u64;
        spans_in(&self.spans, at..end).filter_map(move |span| {
            let (from, to) = (span.offset.max(at), span.end().min(end));
            let bytes = (from - at) as usize..(to - at) as usize;
            Some(Part { file: span.file.as_ref()?.index, at: from - span.offset, bytes })
        })
    }

    /// Fills `out` with the content from `at` on. What is in no file is zeroes, as it will be.
    ///
    /// # Errors
    /// What the disk answers; [`DiskError::Changed`] for a file that is no longer what was found.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DiskError> {
        for Part { file, at, bytes } in self.parts(at, out.len()).collect::<Vec<_>>() {
            let out = &mut out[bytes];
            let there = self.present_len(file).unwrap_or(0).saturating_sub(at);
            let (present, missing) = out.split_at_mut(there.min(out.len() as u64) as usize);
            missing.fill(0);
            if !present.is_empty() {
                self.read_file(file, at, present)?;
            }
        }
        self.fill_pads(at, out);
        Ok(())
    }

    fn fill_pads(&self, at: u64, out: &mut [u8]) {
        let end = at + out.len() as u64;
        for pad in spans_in(&self.spans, at..end).filter(|span| span.file.is_none()) {
            out[(pad.offset.max(at) - at) as usize..(pad.end().min(end) - at) as usize].fill(0);
        }
    }

    fn read_file(&self, file: usize, at: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let mut open = self.open.borrow_mut();
        let opened = match open.take() {
            Some((index, opened)) if index == file => opened,
            _ => self.open_to_read(file)?,
        };
        let path = self.path(file);
        uncached::read_exact(&opened, out, at, &self.is_cached).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let expected = self.present_len(file).unwrap_or(0);
                let found = opened.metadata().map_or(at, |metadata| metadata.len());
                DiskError::Changed { path, change: Change::Resized { found, expected } }
            }
            _ => DiskError::new("read", &path, &err),
        })?;
        *open = Some((file, opened));
        Ok(())
    }

    /// Whether every file is as it was found. Only from now on others are watched.
    fn check_unchanged(&self) -> Result<(), DiskError> {
        let Ground { root, layout, handle, files, .. } = &self.ground;
        let Some(handle) = handle else { return Ok(()) };
        let mut opener = Opener::new(root, *layout, handle);
        for (index, file) in files.iter().enumerate() {
            let Some(there) = &file.there else { continue };
            let opened = opener.open(&file.path, there.id, Access::Read)?;
            let path = || self.path(index);
            let now = opened.metadata().map_err(|err| DiskError::new("look at", &path(), &err))?;
            let now = There::of(&now);
            if (now.len, now.changed) != (there.len, there.changed) {
                return Err(DiskError::Changed { path: path(), change: Change::Written });
            }
        }
        Ok(())
    }

    fn open_to_read(&self, file: usize) -> Result<File, DiskError> {
        let Ground { root, layout, handle, files, .. } = &self.ground;
        let removed = || DiskError::Changed { path: self.path(file), change: Change::Removed };
        let there = files[file].there.as_ref().ok_or_else(removed)?;
        let handle = handle.as_ref().ok_or_else(removed)?;
        Opener::new(root, *layout, handle).open(&files[file].path, there.id, Access::Read)
    }

    /// Makes an output of it: makes the files that are missing, and reserves the space of those that are to be written.
    /// There is a verdict on each file. Where bytes of somebody else are to be replaced, it is by `pwrite`, whatever
    /// the plan says: what is received would land in a map before it is verified.
    ///
    /// # Errors
    /// Every [`DiskError`] about what cannot be made, or written. What was made is gone then, and files that were made
    /// longer have their old length. [`DiskError::Changed`] for a file that somebody has written to since it was found:
    /// what was learned of it need not hold any more.
    pub fn make(self, verdicts: &[Verdict]) -> Result<Arc<Output>, DiskError> {
        self.check_unchanged()?;
        let Self { geometry, io, programs, spans, ground, found, .. } = self;
        let replaces = verdicts.contains(&Verdict::Foreign);
        let io = if replaces { Io::Pwrite } else { io };
        let tree = Tree::make(ground, verdicts, &programs)?;
        Ok(Output::new(geometry, io, tree, spans, !found.holds_data()))
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("root", &self.ground.root).finish_non_exhaustive()
    }
}

/// Opens a file below the output folder, if it is there.
fn find_below(
    walker: &mut Walker<'_>,
    path: &Path,
    shown: &Path,
) -> Result<Option<(File, Metadata)>, DiskError> {
    let (folder, name) = split(path);
    if !walker.find(folder)? {
        return Ok(None);
    }
    opener::find_file(Some(walker.here()), name, Links::Refuse, shown)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_changes_before_the_output_is_made_is_noticed() {
        type Touch = fn(&Path);
        let cases: [Option<Touch>; 3] = [
            None,
            Some(|path| File::options().write(true).open(path).unwrap().write_all_at(&[1], 7).unwrap()),
            Some(|path| File::options().write(true).open(path).unwrap().set_len(9).unwrap()),
        ];
        for touch in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            fs::write(&path, [0; 10]).unwrap();
            let plan = Plan::file(&path, Geometry::new(10, 5).unwrap());
            let site = Site::find(plan, Existing::Keep, None).unwrap();
            // The clock of the file system ticks a few hundred times a second.
            thread::sleep(Duration::from_millis(20));
            touch.into_iter().for_each(|touch| touch(&path));
            let made = site.make(&[Verdict::Whole]).map(drop);
            let expected = DiskError::Changed { path, change: Change::Written };
            assert_eq!(made.err(), touch.map(|_| expected));
        }
    }
}
