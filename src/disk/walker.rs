//! Steps through the folders of an output one name at a time, never through a symbolic link.
//!
//! A path as a whole would be resolved by the kernel, links and all; a torrent's folder may hold links that someone
//! planted. So each folder is opened inside its parent's descriptor with `O_NOFOLLOW`. The way down to the last folder
//! stays open, because the files of a torrent mostly come sorted by folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Change;
use super::{DiskError, sys};

/// Where a step down stands: the output folder, or some folder below it.
pub(super) struct Walker<'a> {
    root: &'a File,
    /// The path of `root`, for errors.
    root_path: &'a Path,
    way: Vec<(OsString, File)>,
}

/// What to do about a folder that is missing.
pub(super) enum Missing<'a> {
    /// It was there before: [`DiskError::Changed`].
    Refuse,
    /// Make it and put it on the list, by its path below the output folder.
    Make(&'a mut Vec<PathBuf>),
}

impl<'a> Walker<'a> {
    /// A walker that stands in the output folder `root`, known to the user as `root_path`.
    pub(super) const fn new(root: &'a File, root_path: &'a Path) -> Self {
        Self { root, root_path, way: Vec::new() }
    }

    /// The folder it stands in.
    pub(super) fn here(&self) -> &File {
        self.way.last().map_or(self.root, |(_, folder)| folder)
    }

    /// Goes to `folder`, a path of plain names below the output folder.
    pub(super) fn enter(&mut self, folder: &Path, mut missing: Missing<'_>) -> Result<(), DiskError> {
        let shared = self.way.iter().zip(folder.iter()).take_while(|((open, _), name)| open == name).count();
        self.way.truncate(shared);
        for name in folder.iter().skip(shared) {
            let below: PathBuf = self.way.iter().map(|(name, _)| name.as_os_str()).chain([name]).collect();
            let next = self.step(name, below, &mut missing)?;
            self.way.push((name.to_os_string(), next));
        }
        Ok(())
    }

    /// Goes to `folder`, a path of plain names below the output folder, if it is there; whether it is.
    pub(super) fn find(&mut self, folder: &Path) -> Result<bool, DiskError> {
        match self.enter(folder, Missing::Refuse) {
            Ok(()) => Ok(true),
            Err(DiskError::Changed { change: Change::Removed, .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Opens the folder `name` of the present one; `below` is its path below the output folder.
    fn step(&self, name: &OsStr, below: PathBuf, missing: &mut Missing<'_>) -> Result<File, DiskError> {
        let path = self.root_path.join(&below);
        let opened = match (open_folder(self.here(), name), missing) {
            (Err(err), Missing::Make(made)) if err.raw_os_error() == Some(libc::ENOENT) => {
                match sys::make_folder_at(Some(self.here()), name) {
                    Ok(()) => made.push(below),
                    // Someone was faster: then it is theirs, and opened like any other.
                    Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {}
                    Err(err) => return Err(DiskError::new("make the folder", &path, &err)),
                }
                open_folder(self.here(), name)
            }
            (opened, _) => opened,
        };
        opened.map_err(|err| match err.raw_os_error() {
            // It was there, or has just been made.
            Some(libc::ENOENT) => DiskError::Changed { path, change: Change::Removed },
            _ if is_symlink(self.here(), name) => DiskError::Symlink { path },
            _ => DiskError::new("open the folder", &path, &err),
        })
    }
}

fn open_folder(parent: &File, name: &OsStr) -> io::Result<File> {
    sys::open_at(Some(parent), name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW)
}

/// With both `O_DIRECTORY` and `O_NOFOLLOW` a link answers ENOTDIR like any file, so errors need this second look.
fn is_symlink(parent: &File, name: &OsStr) -> bool {
    sys::open_at(Some(parent), name, libc::O_PATH | libc::O_NOFOLLOW)
        .and_then(|file| file.metadata())
        .is_ok_and(|metadata| metadata.is_symlink())
}
