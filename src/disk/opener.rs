//! Opens, makes and removes the files of an output by their names, and knows each again by its identity.
//!
//! Whatever is opened or removed a second time must still be the file that was seen the first time: names can be given
//! to other files meanwhile.

use std::ffi::OsStr;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::Change;
use super::plan::Layout;
use super::walker::{Missing, Walker};
use super::{DiskError, sys};
use crate::os::limits;

/// Files that are locked one by one at most.
const LOCKS_MAX: usize = 256;
/// Descriptors that connections, and those who look for peers, need before any is spent on a lock.
const DESCRIPTORS_FIRST: usize = 64;
/// Of how many descriptors beyond those one may be for a lock.
const LOCKS_SHARE: usize = 4;

/// Which file it is, whatever its name. The time of birth (where the file system has one) tells it from a later file
/// that was given the inode number of a removed one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) born: Option<SystemTime>,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To be looked at.
    Read,
    /// To be looked at and written.
    Write,
}

/// Finds the files of an output again by their names; one after the other is cheap while they share folders.
pub(super) struct Opener<'a> {
    root: &'a Path,
    layout: Layout,
    walker: Walker<'a>,
}

impl<'a> Opener<'a> {
    /// An opener of the output at `root`, with `handle` on its folder; where the output is a file, any will do.
    pub(super) const fn new(root: &'a Path, layout: Layout, handle: &'a File) -> Self {
        Self { root, layout, walker: Walker::new(handle, root) }
    }

    /// Opens the file `below` the root, which must still be the one of that identity.
    pub(super) fn open(&mut self, below: &Path, id: FileId, access: Access) -> Result<File, DiskError> {
        let path = shown(self.root, below);
        let links = Links::of(self.layout);
        let (folder, name) = self.place(below)?;
        let file = match sys::open_at(folder, name, links.flags(access)) {
            Ok(file) => file,
            Err(err) => {
                return Err(match err.raw_os_error() {
                    Some(libc::ENOENT) => DiskError::Changed { path, change: Change::Removed },
                    Some(libc::ELOOP) => DiskError::Changed { path, change: Change::Replaced },
                    _ => not_opened(&path, access, &err),
                });
            }
        };
        match file.metadata() {
            Ok(metadata) if FileId::of(&metadata) == id => Ok(file),
            Ok(_) => Err(DiskError::Changed { path, change: Change::Replaced }),
            Err(err) => Err(DiskError::new("look at", &path, &err)),
        }
    }

    /// Removes the file `below` the root, if it still is the one of that identity.
    pub(super) fn remove(&mut self, below: &Path, id: FileId) -> Result<(), DiskError> {
        let path = shown(self.root, below);
        let (folder, name) = self.place(below)?;
        let metadata = sys::open_at(folder, name, libc::O_PATH | libc::O_NOFOLLOW).and_then(|f| f.metadata());
        if !metadata.is_ok_and(|metadata| FileId::of(&metadata) == id) {
            // Gone, or another file by that name: nothing of ours to remove.
            return Ok(());
        }
        sys::remove_file_at(folder, name).map_err(|err| DiskError::new("remove", &path, &err))
    }

    /// Removes the folder `below` the root, if it is empty.
    pub(super) fn remove_folder(&mut self, below: &Path) -> Result<(), DiskError> {
        let (parent, name) = split(below);
        self.walker.enter(parent, Missing::Refuse)?;
        let removed = sys::remove_folder_at(Some(self.walker.here()), name);
        unless_in_use(removed, &self.root.join(below))
    }

    /// The folder and the name under which a file is opened there.
    fn place<'b>(&'b mut self, below: &'b Path) -> Result<(Option<&'b File>, &'b OsStr), DiskError> {
        if self.layout == Layout::File {
            return Ok((None, self.root.as_os_str()));
        }
        let (folder, name) = split(below);
        self.walker.enter(folder, Missing::Refuse)?;
        Ok((Some(self.walker.here()), name))
    }
}

/// Whether the last name may be a symbolic link.
#[derive(Clone, Copy)]
pub(super) enum Links {
    /// It may: it is the user's own.
    Follow,
    /// It may not: somebody has planted it.
    Refuse,
}

impl Links {
    pub(super) const fn of(layout: Layout) -> Self {
        match layout {
            Layout::File => Self::Follow,
            Layout::Folder => Self::Refuse,
        }
    }

    /// `O_NONBLOCK`: opening a pipe must not wait for its other end. It changes nothing for files.
    const fn flags(self, access: Access) -> libc::c_int {
        let mode = match access {
            Access::Read => libc::O_RDONLY,
            Access::Write => libc::O_RDWR,
        };
        let flags = mode | libc::O_NONBLOCK | libc::O_NOCTTY;
        match self {
            Self::Follow => flags,
            Self::Refuse => flags | libc::O_NOFOLLOW,
        }
    }
}

/// Opens a file that may be there, to be looked at; it must be a regular one. `None` where its name is free.
pub(super) fn find_file(
    folder: Option<&File>,
    name: &OsStr,
    links: Links,
    shown: &Path,
) -> Result<Option<(File, Metadata)>, DiskError> {
    match sys::open_at(folder, name, links.flags(Access::Read)) {
        Ok(file) => {
            let metadata = look_at(&file, shown)?;
            Ok(Some((file, metadata)))
        }
        // A link that leads nowhere has the name, too: that is told when the file cannot be made.
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(err) if folder.is_none() && err.raw_os_error() == Some(libc::ENOTDIR) => {
            Err(in_folder("open", shown, &err))
        }
        Err(err) => Err(not_opened(shown, Access::Read, &err)),
    }
}

/// Makes a file, whose name must be free.
pub(super) fn make_file(
    folder: Option<&File>,
    name: &OsStr,
    links: Links,
    shown: &Path,
) -> Result<File, DiskError> {
    match sys::open_at(folder, name, links.flags(Access::Write) | libc::O_CREAT | libc::O_EXCL) {
        Ok(file) => Ok(file),
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {
            let leads_somewhere = sys::open_at(folder, name, libc::O_PATH).is_ok();
            let path = shown.to_path_buf();
            Err(match leads_somewhere {
                true => DiskError::Changed { path, change: Change::Replaced },
                false => DiskError::Symlink { path },
            })
        }
        Err(err) => Err(in_folder("make", shown, &err)),
    }
}

/// Opens the output folder; `None` where its name is free.
pub(super) fn find_root_folder(root: &Path) -> Result<Option<File>, DiskError> {
    match sys::open_at(None, root.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(folder) => Ok(Some(folder)),
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(err) => Err(DiskError::new("open the folder", root, &err)),
    }
}

/// Makes the output folder, whose parent must exist. Whether it was made: somebody may have been faster.
pub(super) fn make_root_folder(root: &Path) -> Result<(File, bool), DiskError> {
    let is_made = match sys::make_folder_at(None, root.as_os_str()) {
        Ok(()) => true,
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => false,
        Err(err) => return Err(in_folder("make the folder", root, &err)),
    };
    match find_root_folder(root)? {
        Some(folder) => Ok((folder, is_made)),
        None => Err(DiskError::Symlink { path: root.to_path_buf() }),
    }
}

/// Keeps other processes (and other outputs of this one) away from a file or folder for as long as the descriptor
/// lives. A file system without locks gives no such promise, and the download goes on.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(DiskError::Busy { path: path.to_path_buf() }),
        Err(TryLockError::Error(err)) => {
            tracing::debug!(%err, path = %path.display(), "no lock");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// How many files below a folder are locked one by one. Each takes a descriptor, of which the process keeps most for
/// itself; the others are protected by the lock of the folder alone.
pub(super) fn locks_max() -> usize {
    LOCKS_MAX.min(limits::descriptors().saturating_sub(DESCRIPTORS_FIRST) / LOCKS_SHARE)
}

/// What is known of a file, which must be a regular one.
fn look_at(file: &File, shown: &Path) -> Result<Metadata, DiskError> {
    let metadata = file.metadata().map_err(|err| DiskError::new("look at", shown, &err))?;
    let path = shown.to_path_buf();
    if metadata.is_dir() {
        return Err(DiskError::IsAFolder { path });
    }
    if metadata.is_file() { Ok(metadata) } else { Err(DiskError::NotAFile { path }) }
}

/// Why a file that is there cannot be opened.
fn not_opened(path: &Path, access: Access, err: &io::Error) -> DiskError {
    match (err.raw_os_error(), access) {
        (Some(libc::EACCES | libc::EPERM), Access::Read) => {
            DiskError::Unreadable { path: path.to_path_buf() }
        }
        _ => DiskError::new("open", path, err),
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
pub(super) fn unless_in_use(removed: io::Result<()>, path: &Path) -> Result<(), DiskError> {
    match removed {
        Err(err) if !matches!(err.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOENT)) => {
            Err(DiskError::new("remove the folder", path, &err))
        }
        _ => Ok(()),
    }
}

/// The folder that a path lies in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder part and the last name of a path of plain names.
pub(super) fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(OsStr::new("")))
}

/// The path of what lies below the root, as the user knows it: joining an empty path would add a slash.
pub(super) fn shown(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) }
}
