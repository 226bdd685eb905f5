//! The files of an output once they are to be written: made or kept, reserved, opened again, checked, undone.
//!
//! Every file is remembered by its identity, and whatever is opened or removed later must still be that file. One that
//! is longer than it is to be keeps its surplus until bytes of it were replaced by verified ones, or all others are
//! right.

use std::collections::{BTreeSet, HashSet};
use std::env;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::error::Change;
use super::opener::{self, Access, FileId, Links, Opener, find_file, parent, shown, split, unless_in_use};
use super::plan::Layout;
use super::prealloc::{self, Reserved};
use super::record::{Stamp, Stamper};
use super::site::{Ground, Standing, There, Verdict};
use super::walker::{Missing, Walker};
use super::watch::Watch;
use super::{DiskError, cause, method, sys};
use crate::os::{spare, stop};

/// How often the room on a disk that seems full is looked at, and the wait before another look.
const ROOM_LOOKS_MAX: u32 = 20;
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Descriptors that undoing takes: a folder and what is in it.
const UNDO_DESCRIPTORS: usize = 2;

/// What to do with files that are there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Keep what they hold: shorter ones are made longer, longer ones and those of others refused.
    Keep,
    /// Replace what of them is wrong.
    Overwrite,
}

/// All files of an output.
pub(super) struct Tree {
    root: PathBuf,
    layout: Layout,
    /// The output folder, or the only file. Holds the lock against a second process.
    handle: File,
    root_created: bool,
    /// The folders that were made below the root, in that order.
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
    /// What locks files below the root.
    locks: Mutex<Vec<File>>,
}

/// One file.
struct Entry {
    /// Below the root; empty for the only file.
    path: PathBuf,
    /// The bytes of the torrent's file.
    len: u64,
    id: FileId,
    /// Whether its file system counts names, so that a file without any was removed.
    counts_names: bool,
    created: bool,
    verdict: Verdict,
    /// The bytes it had when it was found and has again after [`Tree::undo`].
    len_before: u64,
    /// The bytes of its blocks when it was found.
    allocated_before: u64,
}

impl Tree {
    /// Makes what is missing on the ground, and makes every file that is to be written as long as it must be, with
    /// blocks. Whatever was made is gone again when it fails.
    /// The `programs`, by their paths, can be run.
    pub(super) fn make(
        ground: Ground,
        verdicts: &[Verdict],
        programs: &HashSet<PathBuf>,
    ) -> Result<Self, DiskError> {
        let Ground { root, layout, handle, files, locks } = ground;
        let (handle, root_created) = match (handle, layout) {
            (Some(handle), _) => (handle, false),
            (None, Layout::File) => (opener::make_file(None, root.as_os_str(), Links::Follow, &root)?, true),
            (None, Layout::Folder) => opener::make_root_folder(&root)?,
        };
        let (folders, entries) = (Vec::new(), Vec::with_capacity(files.len()));
        let mut tree =
            Self { root, layout, handle, root_created, folders, entries, locks: Mutex::new(locks) };
        let locked = if root_created { opener::lock(&tree.handle, &tree.root) } else { Ok(()) };
        let made = locked
            .and_then(|()| tree.make_files(files, verdicts))
            .and_then(|()| tree.reserve())
            .and_then(|()| tree.make_programs(programs));
        match made {
            Ok(()) => Ok(tree),
            Err(err) => Err(tree.give_up(err)),
        }
    }

    /// Makes the files that are missing.
    fn make_files(&mut self, files: Vec<Standing>, verdicts: &[Verdict]) -> Result<(), DiskError> {
        let Self { root, layout, handle, folders, entries, locks, .. } = self;
        let locks = locks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut walker = Walker::new(handle, root);
        for (Standing { path, len, there }, verdict) in files.into_iter().zip(verdicts) {
            let shown = shown(root, &path);
            let look_at = |file: &File| match file.metadata() {
                Ok(metadata) => Ok(There::of(&metadata)),
                Err(err) => Err(DiskError::new("look at", &shown, &err)),
            };
            let (there, created) = match (there, *layout) {
                (Some(there), _) => (there, false),
                (None, Layout::File) => (look_at(handle)?, true),
                (None, Layout::Folder) => {
                    let (folder, name) = split(&path);
                    walker.enter(folder, Missing::Make(folders))?;
                    let made = opener::make_file(Some(walker.here()), name, Links::Refuse, &shown);
                    let file = made.map_err(|err| {
                        match find_file(Some(walker.here()), name, Links::Refuse, &shown) {
                            // Where the file system folds case, it may have been made under another name.
                            Ok(Some((_, metadata))) if is_among(entries, FileId::of(&metadata)) => {
                                DiskError::SameFile { path: shown.clone() }
                            }
                            _ => err,
                        }
                    })?;
                    let there = look_at(&file)?;
                    if locks.len() < opener::locks_max() {
                        opener::lock(&file, &shown)?;
                        locks.push(file);
                    }
                    (there, true)
                }
            };
            let There { id, counts_names, len: len_before, allocated: allocated_before, .. } = there;
            let verdict = *verdict;
            let entry = Entry { path, len, id, counts_names, created, verdict, len_before, allocated_before };
            entries.push(entry);
        }
        Ok(())
    }

    /// Makes every file that is to be written as long as it must be, and takes its blocks. One that has a surplus and
    /// all its other bytes right is cut.
    fn reserve(&mut self) -> Result<(), DiskError> {
        self.check_room()?;
        let Self { root, layout, handle, entries, .. } = self;
        let mut opener = Opener::new(root, *layout, handle);
        let mut length_only = false;
        for entry in entries.iter() {
            let path = shown(root, &entry.path);
            if entry.is_done() {
                continue;
            }
            let file = opener.open(&entry.path, entry.id, Access::Write)?;
            if entry.verdict == Verdict::Whole {
                entry.cut_surplus(&file, &path)?;
            }
            length_only |=
                entry.len > 0 && prealloc::reserve(&file, entry.len, &path)? == Reserved::LengthOnly;
        }
        if length_only {
            tracing::warn!("the file system of {} cannot reserve space: it may fill up", root.display());
        }
        Ok(())
    }

    /// Lets those who may read these files run them, as far as this output has made them.
    fn make_programs(&self, programs: &HashSet<PathBuf>) -> Result<(), DiskError> {
        let mut opener = self.opener();
        for entry in self.entries.iter().filter(|entry| entry.created && programs.contains(&entry.path)) {
            let file = opener.open(&entry.path, entry.id, Access::Read)?;
            let shown = shown(&self.root, &entry.path);
            let mode = file.metadata().map_err(|err| DiskError::new("look at", &shown, &err))?.mode();
            // The umask has decided who may read.
            let permissions = Permissions::from_mode(mode | (mode & 0o444) >> 2);
            match file.set_permissions(permissions) {
                // A file system without permissions.
                Err(err) if matches!(err.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP)) => {}
                set => set.map_err(|err| DiskError::new("make executable", &shown, &err))?,
            }
        }
        Ok(())
    }

    /// Opens a file again, by its index. To be looked at, any file is; those that are right already need not be
    /// writable.
    pub(super) fn open(&self, index: usize, access: Access) -> Result<File, DiskError> {
        let entry = &self.entries[index];
        let opened = self.opener().open(&entry.path, entry.id, access);
        let file = opened.map_err(|err| match err {
            // It was writable when the output was made.
            DiskError::ReadOnly { path } => DiskError::TurnedReadOnly { path },
            err => err,
        })?;
        self.check_len(&file, index)?;
        Ok(file)
    }

    /// Whether a file that was opened is still there, and as long as it must be.
    pub(super) fn check_len(&self, file: &File, index: usize) -> Result<(), DiskError> {
        let entry = &self.entries[index];
        match file.metadata() {
            Ok(metadata) if metadata.nlink() == 0 && entry.counts_names => {
                Err(DiskError::Changed { path: self.path(index), change: Change::Removed })
            }
            Ok(metadata) if metadata.len() == entry.len || entry.has_surplus(metadata.len()) => Ok(()),
            Ok(metadata) => {
                let change = Change::Resized { found: metadata.len(), expected: entry.len };
                Err(DiskError::Changed { path: self.path(index), change })
            }
            Err(err) => Err(DiskError::new("look at", &self.path(index), &err)),
        }
    }

    /// Whether a file holds bytes of others that nothing but verified ones may replace: all it has, or what is too
    /// much.
    pub(super) fn holds_others(&self, index: usize) -> bool {
        let entry = &self.entries[index];
        entry.verdict == Verdict::Foreign || entry.len_before > entry.len
    }

    /// A file without a name, as close to the output as can be.
    pub(super) fn make_scratch(&self) -> io::Result<File> {
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        let beside = match self.layout {
            Layout::Folder => sys::open_at(Some(&self.handle), OsStr::new("."), flags),
            Layout::File => sys::open_at(None, parent(&self.root).as_os_str(), flags),
        };
        // The folder may be closed to us though its file is not, and not all file systems have such files.
        beside.or_else(|err| sys::open_at(None, env::temp_dir().as_os_str(), flags).map_err(|_| err))
    }

    /// Cuts what a file has beyond its length since before the download: verified bytes have replaced others of it.
    pub(super) fn cut_surplus(&self, file: &File, index: usize) -> Result<(), DiskError> {
        self.entries[index].cut_surplus(file, &self.path(index))
    }

    /// A digest of which files there are.
    pub(super) fn files_digest(&self) -> [u8; 20] {
        let mut stamper = Stamper::default();
        self.entries.iter().for_each(|entry| stamper.identify(entry.id.inode, entry.id.born));
        stamper.finish().files
    }

    fn opener(&self) -> Opener<'_> {
        Opener::new(&self.root, self.layout, &self.handle)
    }

    /// Watches what others write to the files, as far as that can be had.
    pub(super) fn watch(&self) -> Option<Watch> {
        let watch = Watch::start(self.entries.len()).ok()?;
        let mut opener = self.opener();
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.len > 0) {
            let is_added =
                opener.open(&entry.path, entry.id, Access::Read).is_ok_and(|file| watch.add(index, &file));
            if !is_added {
                break;
            }
        }
        Some(watch)
    }

    /// Whether the output lies on a file system that is better not mapped.
    pub(super) fn is_unmappable(&self) -> bool {
        method::is_unmappable(&self.handle)
    }

    /// Whether the output lies on a file system that is nothing but memory.
    pub(super) fn is_in_memory(&self) -> bool {
        method::is_in_memory(&self.handle)
    }

    /// The output path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file, as the user knows it.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        shown(&self.root, &self.entries[index].path)
    }

    /// Whether every file is still where and what it was, and no longer than that; with `sync`, that it is also on the
    /// disk, folders and all.
    pub(super) fn finish(&self, sync: bool) -> Result<(), DiskError> {
        let mut opener = self.opener();
        for (index, entry) in self.entries.iter().enumerate() {
            let access = if entry.len_before > entry.len { Access::Write } else { Access::Read };
            let file = opener.open(&entry.path, entry.id, access)?;
            let path = shown(&self.root, &entry.path);
            entry.cut_surplus(&file, &path)?;
            self.check_len(&file, index)?;
            if sync {
                sync_to_disk(&file, &path)?;
            }
        }
        if sync { self.sync_folders() } else { Ok(()) }
    }

    /// What the files are and when they were changed; they must be as long as they are to be, but for those of others
    /// that got their old length back.
    pub(super) fn stamp(&self) -> Result<Stamp, DiskError> {
        let mut opener = self.opener();
        let mut stamper = Stamper::default();
        for (index, entry) in self.entries.iter().enumerate() {
            let file = opener.open(&entry.path, entry.id, Access::Read)?;
            let metadata = file.metadata();
            let metadata = metadata.map_err(|err| DiskError::new("look at", &self.path(index), &err))?;
            if entry.verdict != Verdict::Foreign || metadata.len() != entry.len_before {
                // One that was cut is not what was verified.
                self.check_len(&file, index)?;
            }
            stamper.add(&metadata);
        }
        Ok(stamper.finish())
    }

    /// Has the system forget what it keeps of the files in memory and believes to be on the disk.
    pub(super) fn forget_cached(&self) {
        let mut opener = self.opener();
        for entry in &self.entries {
            if let Ok(file) = opener.open(&entry.path, entry.id, Access::Read) {
                sys::forget_cached(&file);
            }
        }
    }

    /// Gives the files of others, those of which `is_touched` says that nothing was put there, their old length.
    pub(super) fn restore_untouched(&self, is_touched: impl Fn(usize) -> bool) -> Result<(), DiskError> {
        let mut opener = self.opener();
        let foreign = |entry: &Entry| entry.verdict == Verdict::Foreign;
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| foreign(entry));
        for (_, entry) in entries.filter(|(index, _)| !is_touched(*index)) {
            entry.cut_back(&mut opener, &self.root)?;
        }
        Ok(())
    }

    /// Undoes what was done, as far as it can be told, and completes the error that was the reason.
    pub(super) fn give_up(&self, err: DiskError) -> DiskError {
        if let Err(err) = self.undo(true) {
            tracing::warn!(%err, "the output could not be removed completely");
        }
        match err {
            // Only now is what this output had taken free again.
            DiskError::NoSpace { .. } => DiskError::NoSpace {
                path: self.root.clone(),
                needed: self.needed(|_| true),
                free: sys::space(&self.handle).map_or(0, |space| space.available),
            },
            err => err,
        }
    }

    /// Removes the files and folders that were made, and makes longer ones as long as they were: those of others, and
    /// with `cut` all. A lease that is still out writes to those of others only when it is sealed, and not to what was
    /// cut. What is not ours (any more) stays. Tries everything; the first error is given.
    pub(super) fn undo(&self, cut: bool) -> Result<(), DiskError> {
        if spare::refill() < UNDO_DESCRIPTORS {
            // Without descriptors nothing could be undone; the root stays locked.
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).clear();
            spare::refill();
        }
        let mut opener = self.opener();
        let mut first = None;
        let mut note = |undone| match undone {
            // Someone was there before us.
            Ok(()) | Err(DiskError::Changed { .. }) => {}
            Err(err) => _ = first.get_or_insert(err),
        };
        for entry in &self.entries {
            note(match (entry.created, cut || entry.verdict == Verdict::Foreign) {
                (true, _) => opener.remove(&entry.path, entry.id),
                (false, true) => entry.cut_back(&mut opener, &self.root),
                (false, false) => Ok(()),
            });
        }
        for folder in self.folders.iter().rev() {
            note(opener.remove_folder(folder));
        }
        if self.root_created && self.layout == Layout::Folder {
            let removed = sys::remove_folder_at(None, self.root.as_os_str());
            note(unless_in_use(removed, &self.root));
        }
        first.map_or(Ok(()), Err)
    }

    /// Refuses at once what cannot fit, instead of filling the disk first. A file system that does not tell its size
    /// is asked by reserving only.
    ///
    /// It looks more than once: xfs counts the room of a removed file some moments later, and whoever has just made
    /// room on a full disk is the one who is here.
    fn check_room(&self) -> Result<(), DiskError> {
        let Ok(metadata) = self.handle.metadata() else { return Ok(()) };
        // A folder below the root may be another file system, with room of its own.
        let needed = self.needed(|entry| entry.id.device == metadata.dev());
        let mut looks = 1;
        loop {
            let Ok(space) = sys::space(&self.handle) else { return Ok(()) };
            if space.total == 0 || needed <= space.free {
                return Ok(());
            }
            if needed > space.total || looks == ROOM_LOOKS_MAX {
                return Err(DiskError::NoSpace { path: self.root.clone(), needed, free: space.available });
            }
            looks += 1;
            thread::sleep(ROOM_PAUSE);
        }
    }

    /// Bytes that the files had no blocks for, and are to get.
    fn needed(&self, which: impl Fn(&Entry) -> bool) -> u64 {
        self.entries
            .iter()
            .filter(|entry| which(entry) && !entry.is_done())
            .fold(0, |sum, entry| sum.saturating_add(entry.len.saturating_sub(entry.allocated_before)))
    }

    /// A name is on the disk when its folder is.
    fn sync_folders(&self) -> Result<(), DiskError> {
        if self.layout == Layout::Folder {
            let folders: BTreeSet<&Path> =
                self.entries.iter().flat_map(|entry| entry.path.ancestors().skip(1)).collect();
            let mut walker = Walker::new(&self.handle, &self.root);
            for folder in folders {
                walker.enter(folder, Missing::Refuse)?;
                sync_to_disk(walker.here(), &self.root.join(folder))?;
            }
        }
        let parent = parent(&self.root);
        let folder = File::open(parent).map_err(|err| DiskError::new("open the folder", parent, &err))?;
        sync_to_disk(&folder, parent)
    }
}

impl Entry {
    /// Whether it is as it is to be, so that it is not written, and gets no block for its holes.
    fn is_done(&self) -> bool {
        self.len == self.len_before && (self.len == 0 || self.verdict == Verdict::Whole)
    }

    /// Whether `len` is the length that it had before, and more than it is to have.
    const fn has_surplus(&self, len: u64) -> bool {
        self.len_before > self.len && len == self.len_before
    }

    fn cut_surplus(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        if self.len_before <= self.len {
            return Ok(());
        }
        let metadata = file.metadata().map_err(|err| DiskError::new("look at", path, &err))?;
        if !self.has_surplus(metadata.len()) {
            return Ok(());
        }
        file.set_len(self.len).map_err(|err| DiskError::new("cut", path, &err))
    }

    /// Gives a file that was made longer its old length.
    fn cut_back(&self, opener: &mut Opener<'_>, root: &Path) -> Result<(), DiskError> {
        if self.len_before >= self.len {
            return Ok(());
        }
        let path = shown(root, &self.path);
        let file = opener.open(&self.path, self.id, Access::Write)?;
        let metadata = file.metadata().map_err(|err| DiskError::new("look at", &path, &err))?;
        if metadata.len() > self.len_before {
            file.set_len(self.len_before).map_err(|err| DiskError::new("cut", &path, &err))?;
        }
        Ok(())
    }
}

fn is_among(entries: &[Entry], id: FileId) -> bool {
    entries.iter().any(|entry| entry.id == id)
}

/// Waits until a file, or a folder, is on the disk.
pub(super) fn sync_to_disk(file: &File, path: &Path) -> Result<(), DiskError> {
    match stop::check().and_then(|()| file.sync_all()) {
        // What cannot be synced (folders, on some file systems) answers EINVAL.
        Err(err) if err.raw_os_error() != Some(libc::EINVAL) => {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            Err(cause::of_write("write to the disk", path, file, len, &err))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Plan, Site};
    use crate::meta::geometry::Geometry;

    #[test]
    fn a_file_that_is_whole_gets_no_blocks_and_needs_no_room() {
        const LEN: u64 = 1 << 20;
        for (verdict, needed) in [(Verdict::Whole, 0), (Verdict::Ours, LEN)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            // All of it is a hole.
            File::create(&path).unwrap().set_len(LEN).unwrap();
            let plan = Plan::file(&path, Geometry::new(LEN, 1 << 14).unwrap());
            let output = Site::find(plan, Existing::Keep, None).unwrap().make(&[verdict]).unwrap();
            assert_eq!(output.tree.needed(|_| true), needed);
            let blocks = File::open(&path).unwrap().metadata().unwrap().blocks();
            assert_eq!(blocks * sys::STAT_BLOCK_LEN >= LEN, verdict == Verdict::Ours);
        }
    }
}
