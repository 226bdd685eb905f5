//! The files of an output as the file system sees them: made or found, reserved, opened again, checked, undone.
//!
//! Two steps, so that what can be refused is refused before anything is changed: [`Tree::claim`] makes what is missing
//! and looks at what is there; [`Tree::reserve`] takes the room. Every file is remembered by its identity, and
//! whatever is opened or removed later must still be that file.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::error::Change;
use super::plan::Layout;
use super::prealloc::{self, Reserved};
use super::record::{Stamp, Stamper};
use super::walker::{Missing, Walker};
use super::{DiskError, cause, method, sys};

/// How often the room on a disk that seems full is looked at, and the wait before another look.
const ROOM_LOOKS_MAX: u32 = 20;
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// What to do with files that are there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Keep what they hold: shorter ones are made longer, longer ones refused.
    Keep,
    /// Empty them first.
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
    found_stamp: Stamp,
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
    /// The bytes it had when it was found and has again after [`Tree::undo`].
    len_before: u64,
    /// The bytes of its blocks when it was found.
    allocated_before: u64,
}

/// Which file it is, whatever its name. The time of birth (where the file system has one) tells it from a later file
/// that was given the inode number of a removed one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }
}

impl Tree {
    /// Makes or opens the root and every one of `files` (path and length). Whatever it made is gone again when it
    /// fails; files that were there are not touched at all.
    pub(super) fn claim(
        root: PathBuf,
        layout: Layout,
        files: Vec<(PathBuf, u64)>,
        existing: Existing,
    ) -> Result<Self, DiskError> {
        let (handle, root_created) = match layout {
            Layout::File => open_file(None, root.as_os_str(), Links::Follow, &root)?,
            Layout::Folder => open_root_folder(&root)?,
        };
        let found_stamp = Stamper::default().finish();
        let (folders, entries) = (Vec::new(), Vec::new());
        let mut tree = Self { root, layout, handle, root_created, folders, entries, found_stamp };
        let mut stamper = Stamper::default();
        let claimed = tree.lock().and_then(|()| match layout {
            Layout::File => tree.claim_only(&files, existing, &mut stamper),
            Layout::Folder => tree.claim_each(files, existing, &mut stamper),
        });
        match claimed {
            Ok(()) => {
                tree.found_stamp = stamper.finish();
                Ok(tree)
            }
            Err(err) => Err(tree.give_up(err)),
        }
    }

    /// Makes every file as long as it must be and takes its blocks. `look` sees each kept file that is not empty
    /// before that, with its index.
    ///
    /// # Errors
    /// The caller must then pass the error through [`Tree::give_up`].
    pub(super) fn reserve(
        &mut self,
        existing: Existing,
        mut look: impl FnMut(usize, &File) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        self.check_room()?;
        let Self { root, layout, handle, entries, .. } = self;
        let mut opener = Opener::new(root, *layout, handle);
        let mut length_only = false;
        for (index, entry) in entries.iter_mut().enumerate() {
            let path = shown(root, &entry.path);
            if entry.len == 0 && entry.len_before == 0 {
                continue;
            }
            let file = opener.open(entry)?;
            if existing == Existing::Overwrite && entry.len_before > 0 {
                file.set_len(0).map_err(|err| DiskError::new("empty", &path, &err))?;
                entry.len_before = 0;
            } else if entry.len_before > 0 {
                look(index, &file).map_err(|err| DiskError::new("look for data in", &path, &err))?;
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
    pub(super) fn make_programs(&self, programs: &HashSet<PathBuf>) -> Result<(), DiskError> {
        let mut opener = Opener::new(&self.root, self.layout, &self.handle);
        for entry in self.entries.iter().filter(|entry| entry.created && programs.contains(&entry.path)) {
            let file = opener.open(entry)?;
            let shown = shown(&self.root, &entry.path);
            let metadata = look_at(&file, &shown)?;
            let mode = metadata.mode();
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

    /// Opens a file again, by its index, for reading and writing.
    pub(super) fn open(&self, index: usize) -> Result<File, DiskError> {
        let entry = &self.entries[index];
        let file = Opener::new(&self.root, self.layout, &self.handle).open(entry)?;
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
            Ok(metadata) if metadata.len() == entry.len => Ok(()),
            Ok(metadata) => {
                let change = Change::Resized { found: metadata.len(), expected: entry.len };
                Err(DiskError::Changed { path: self.path(index), change })
            }
            Err(err) => Err(DiskError::new("look at", &self.path(index), &err)),
        }
    }

    /// Whether the output lies on a file system that is better not mapped.
    pub(super) fn is_unmappable(&self) -> bool {
        method::is_unmappable(&self.handle)
    }

    /// The output path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file, as the user knows it.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        shown(&self.root, &self.entries[index].path)
    }

    /// Whether every file is still where and what it was; with `sync`, that it is also on the disk, folders and all.
    pub(super) fn finish(&self, sync: bool) -> Result<(), DiskError> {
        let mut opener = Opener::new(&self.root, self.layout, &self.handle);
        for (index, entry) in self.entries.iter().enumerate() {
            let file = opener.open(entry)?;
            self.check_len(&file, index)?;
            if sync {
                sync_to_disk(&file, &shown(&self.root, &entry.path))?;
            }
        }
        if sync { self.sync_folders() } else { Ok(()) }
    }

    /// What the files were when they were found, before anything was done to them.
    pub(super) const fn found_stamp(&self) -> Stamp {
        self.found_stamp
    }

    /// What the files are and when they were changed; they must be as long as they are to be.
    pub(super) fn stamp(&self) -> Result<Stamp, DiskError> {
        let mut opener = Opener::new(&self.root, self.layout, &self.handle);
        let mut stamper = Stamper::default();
        for (index, entry) in self.entries.iter().enumerate() {
            let file = opener.open(entry)?;
            // One that was cut is not what was verified.
            self.check_len(&file, index)?;
            let metadata = file.metadata();
            stamper.add(&metadata.map_err(|err| DiskError::new("look at", &self.path(index), &err))?);
        }
        Ok(stamper.finish())
    }

    /// Has the system forget what it keeps of the files in memory and believes to be on the disk.
    pub(super) fn forget_cached(&self) {
        let mut opener = Opener::new(&self.root, self.layout, &self.handle);
        for entry in &self.entries {
            if let Ok(file) = opener.open(entry) {
                sys::forget_cached(&file);
            }
        }
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

    /// Removes the files and folders that were made, and with `cut` makes those longer ones as long as they were.
    /// What is not ours (any more) stays. Tries everything; the first error is given.
    pub(super) fn undo(&self, cut: bool) -> Result<(), DiskError> {
        let mut opener = Opener::new(&self.root, self.layout, &self.handle);
        let mut first = None;
        let mut note = |undone| match undone {
            // Someone was there before us.
            Ok(()) | Err(DiskError::Changed { .. }) => {}
            Err(err) => _ = first.get_or_insert(err),
        };
        for entry in &self.entries {
            note(match (entry.created, cut) {
                (true, _) => opener.remove(entry),
                (false, true) => opener.cut(entry),
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

    /// Keeps a second process (and a second output of this one) away for as long as this one lives. A file system
    /// without locks gives no such promise, and the download goes on.
    fn lock(&self) -> Result<(), DiskError> {
        match self.handle.try_lock() {
            Err(TryLockError::WouldBlock) => Err(DiskError::Busy { path: self.root.clone() }),
            Err(TryLockError::Error(err)) => {
                tracing::debug!(%err, "the output cannot be locked");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn claim_only(
        &mut self,
        files: &[(PathBuf, u64)],
        existing: Existing,
        stamper: &mut Stamper,
    ) -> Result<(), DiskError> {
        for (path, len) in files {
            let metadata = look_at(&self.handle, &self.root)?;
            stamper.add(&metadata);
            self.entries.push(Entry::new(path.clone(), *len, &metadata, self.root_created));
        }
        self.entries.iter().try_for_each(|entry| entry.check_fits(existing, &self.root))
    }

    fn claim_each(
        &mut self,
        files: Vec<(PathBuf, u64)>,
        existing: Existing,
        stamper: &mut Stamper,
    ) -> Result<(), DiskError> {
        let mut walker = Walker::new(&self.handle, &self.root);
        let mut ids = HashSet::with_capacity(files.len());
        for (path, len) in files {
            let shown = self.root.join(&path);
            let (folder, name) = split(&path);
            walker.enter(folder, Missing::Make(&mut self.folders))?;
            let (file, created) = open_file(Some(walker.here()), name, Links::Refuse, &shown)?;
            let metadata = look_at(&file, &shown)?;
            stamper.add(&metadata);
            let entry = Entry::new(path, len, &metadata, created);
            let first = ids.insert(entry.id);
            let fits = entry.check_fits(existing, &shown);
            self.entries.push(entry);
            if !first {
                return Err(DiskError::SameFile { path: shown });
            }
            fits?;
        }
        Ok(())
    }

    /// Refuses at once what cannot fit, instead of filling the disk first. A file system that does not tell its size
    /// is asked by reserving only.
    ///
    /// It looks more than once: xfs counts the room of a removed file some moments later, and whoever has just made room
    /// on a full disk is the one who is here.
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

    /// Bytes that the files had no blocks for.
    fn needed(&self, which: impl Fn(&Entry) -> bool) -> u64 {
        self.entries
            .iter()
            .filter(|entry| which(entry))
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
    fn new(path: PathBuf, len: u64, metadata: &Metadata, created: bool) -> Self {
        Self {
            path,
            len,
            id: FileId::of(metadata),
            counts_names: metadata.nlink() > 0,
            created,
            len_before: metadata.len(),
            allocated_before: metadata.blocks().saturating_mul(sys::STAT_BLOCK_LEN),
        }
    }

    fn check_fits(&self, existing: Existing, shown: &Path) -> Result<(), DiskError> {
        if existing == Existing::Keep && self.len_before > self.len {
            let path = shown.to_path_buf();
            return Err(DiskError::TooLong { path, found: self.len_before, expected: self.len });
        }
        Ok(())
    }
}

/// Finds the files of a tree again by their names; one after the other is cheap while they share folders.
struct Opener<'a> {
    root: &'a Path,
    layout: Layout,
    walker: Walker<'a>,
}

impl<'a> Opener<'a> {
    const fn new(root: &'a Path, layout: Layout, handle: &'a File) -> Self {
        Self { root, layout, walker: Walker::new(handle, root) }
    }

    fn open(&mut self, entry: &Entry) -> Result<File, DiskError> {
        let path = shown(self.root, &entry.path);
        let links = self.links();
        let (folder, name) = self.place(entry)?;
        let file = match sys::open_at(folder, name, links.flags()) {
            Ok(file) => file,
            Err(err) => {
                return Err(match err.raw_os_error() {
                    Some(libc::ENOENT) => DiskError::Changed { path, change: Change::Removed },
                    Some(libc::ELOOP) => DiskError::Changed { path, change: Change::Replaced },
                    Some(libc::EROFS) => DiskError::TurnedReadOnly { path },
                    _ => DiskError::new("open", &path, &err),
                });
            }
        };
        match file.metadata() {
            Ok(metadata) if FileId::of(&metadata) == entry.id => Ok(file),
            Ok(_) => Err(DiskError::Changed { path, change: Change::Replaced }),
            Err(err) => Err(DiskError::new("look at", &path, &err)),
        }
    }

    fn remove(&mut self, entry: &Entry) -> Result<(), DiskError> {
        let path = shown(self.root, &entry.path);
        let (folder, name) = self.place(entry)?;
        let metadata = sys::open_at(folder, name, libc::O_PATH | libc::O_NOFOLLOW).and_then(|f| f.metadata());
        if !metadata.is_ok_and(|metadata| FileId::of(&metadata) == entry.id) {
            // Gone, or another file by that name: nothing of ours to remove.
            return Ok(());
        }
        sys::remove_file_at(folder, name).map_err(|err| DiskError::new("remove", &path, &err))
    }

    fn cut(&mut self, entry: &Entry) -> Result<(), DiskError> {
        let path = shown(self.root, &entry.path);
        let file = self.open(entry)?;
        let metadata = file.metadata().map_err(|err| DiskError::new("look at", &path, &err))?;
        if metadata.len() > entry.len_before {
            file.set_len(entry.len_before).map_err(|err| DiskError::new("cut", &path, &err))?;
        }
        Ok(())
    }

    fn remove_folder(&mut self, folder: &Path) -> Result<(), DiskError> {
        let (parent, name) = split(folder);
        self.walker.enter(parent, Missing::Refuse)?;
        let removed = sys::remove_folder_at(Some(self.walker.here()), name);
        unless_in_use(removed, &self.root.join(folder))
    }

    /// The folder and the name under which a file is opened there.
    fn place<'b>(&'b mut self, entry: &'b Entry) -> Result<(Option<&'b File>, &'b OsStr), DiskError> {
        if self.layout == Layout::File {
            return Ok((None, self.root.as_os_str()));
        }
        let (folder, name) = split(&entry.path);
        self.walker.enter(folder, Missing::Refuse)?;
        Ok((Some(self.walker.here()), name))
    }

    const fn links(&self) -> Links {
        match self.layout {
            Layout::File => Links::Follow,
            Layout::Folder => Links::Refuse,
        }
    }
}

/// Whether the last name may be a symbolic link.
#[derive(Clone, Copy)]
enum Links {
    Follow,
    Refuse,
}

impl Links {
    /// `O_NONBLOCK`: opening a pipe must not wait for its other end. It changes nothing for files.
    const fn flags(self) -> libc::c_int {
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY;
        match self {
            Self::Follow => flags,
            Self::Refuse => flags | libc::O_NOFOLLOW,
        }
    }
}

/// What is known of a file, which must be a regular one.
fn look_at(file: &File, shown: &Path) -> Result<Metadata, DiskError> {
    let metadata = file.metadata().map_err(|err| DiskError::new("look at", shown, &err))?;
    if metadata.is_file() { Ok(metadata) } else { Err(DiskError::NotAFile { path: shown.to_path_buf() }) }
}

/// Makes the file, or opens it when it is there; whether it was made.
fn open_file(
    folder: Option<&File>,
    name: &OsStr,
    links: Links,
    shown: &Path,
) -> Result<(File, bool), DiskError> {
    match sys::open_at(folder, name, links.flags() | libc::O_CREAT | libc::O_EXCL) {
        Ok(file) => return Ok((file, true)),
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {}
        Err(err) => return Err(in_folder("make", shown, &err)),
    }
    match sys::open_at(folder, name, links.flags()) {
        Ok(file) => Ok((file, false)),
        // The name exists and leads nowhere.
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {
            Err(DiskError::Symlink { path: shown.to_path_buf() })
        }
        Err(err) => Err(DiskError::new("open", shown, &err)),
    }
}

/// Makes the output folder, or opens it when it is there; whether it was made. Its parent must exist.
fn open_root_folder(root: &Path) -> Result<(File, bool), DiskError> {
    let open = || sys::open_at(None, root.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY);
    match open() {
        Ok(folder) => return Ok((folder, false)),
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {}
        Err(err) => return Err(DiskError::new("open the folder", root, &err)),
    }
    match sys::make_folder_at(None, root.as_os_str()) {
        Ok(()) => {}
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {
            return Err(DiskError::Symlink { path: root.to_path_buf() });
        }
        Err(err) => return Err(in_folder("make the folder", root, &err)),
    }
    match open() {
        Ok(folder) => Ok((folder, true)),
        Err(err) => Err(DiskError::new("open the folder", root, &err)),
    }
}

/// The error of making `path`: when a folder on the way is missing or is none, it is that folder's.
fn in_folder(action: &'static str, path: &Path, err: &io::Error) -> DiskError {
    let folder = parent(path);
    match err.raw_os_error() {
        Some(libc::ENOENT) if path.as_os_str().is_empty() => DiskError::BadName { path: PathBuf::new() },
        Some(libc::ENOENT) => DiskError::FolderMissing { folder: folder.to_path_buf() },
        Some(libc::ENOTDIR) => DiskError::NotAFolder { path: folder.to_path_buf() },
        _ => DiskError::new(action, path, err),
    }
}

/// Removing a folder that others have put something in, or have removed, is no failure.
fn unless_in_use(removed: io::Result<()>, path: &Path) -> Result<(), DiskError> {
    match removed {
        Err(err) if !matches!(err.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOENT)) => {
            Err(DiskError::new("remove the folder", path, &err))
        }
        _ => Ok(()),
    }
}

pub(super) fn sync_to_disk(file: &File, path: &Path) -> Result<(), DiskError> {
    match file.sync_all() {
        // What cannot be synced (folders, on some file systems) answers EINVAL.
        Err(err) if err.raw_os_error() != Some(libc::EINVAL) => {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            Err(cause::of_write("write to the disk", path, file, len, &err))
        }
        _ => Ok(()),
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder part and the last name of a path of plain names.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(OsStr::new("")))
}

/// Joining an empty path would add a slash.
fn shown(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) }
}
