//! Finds out what is wrong with a file of the output that can no longer be written or read.
//!
//! A system call that fails names the reason. An access to a map does not: all there is to know is that a page could
//! not be had, be it that the file was cut short, that the disk is full or that it fails. So the same is tried again in
//! ways that are answered.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::opener::Access;
use super::{DiskError, Output, sys};
use crate::os::limits;

impl Output {
    /// Why a mapped file, by its index, cannot be written or read at `at`.
    pub(super) fn cause(&self, index: usize, at: u64) -> DiskError {
        match self.tree.open(index, Access::Write) {
            Ok(file) => of_page(&file, &self.tree.path(index), at),
            Err(err) => err,
        }
    }
}

/// Why the page at `at` of a file that is still in its place cannot be had.
fn of_page(file: &File, path: &Path, at: u64) -> DiskError {
    let page_len = sys::page_len() as u64;
    let left = file.metadata().map_or(0, |metadata| metadata.size().saturating_sub(at));
    // It changes nothing where the page has its blocks, and answers where it has none.
    if let Err(err) = sys::allocate_inside(file, at, left.clamp(1, page_len))
        && !matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
    {
        return of_write("write", path, file, page_len, &err);
    }
    if let Err(err) = file.read_exact_at(&mut [0], at) {
        return DiskError::new("read", path, &err);
    }
    match sys::space(file) {
        Ok(space) if space.is_read_only => DiskError::TurnedReadOnly { path: path.to_path_buf() },
        Ok(space) if space.available < DiskError::FULL_BELOW => {
            DiskError::Full { path: path.to_path_buf(), free: space.available }
        }
        _ => DiskError::Unwritable { path: path.to_path_buf() },
    }
}

/// What it means that `len` bytes of a file could not be written that could be before.
pub(super) fn of_write(
    action: &'static str,
    path: &Path,
    file: &File,
    len: u64,
    err: &io::Error,
) -> DiskError {
    let path_owned = || path.to_path_buf();
    match err.raw_os_error() {
        Some(libc::ENOSPC) => {
            let free = sys::space(file).map_or(0, |space| space.available);
            DiskError::Full { path: path_owned(), free }
        }
        Some(libc::EDQUOT) => DiskError::Quota { path: path_owned(), len },
        Some(libc::EFBIG) => too_big(path_owned(), file.metadata().map_or(len, |metadata| metadata.len())),
        Some(libc::EROFS) => DiskError::TurnedReadOnly { path: path_owned() },
        _ => DiskError::new(action, path, err),
    }
}

/// What it means that a file of `len` bytes is too big (EFBIG): for this process, or for the file system.
pub(super) fn too_big(path: PathBuf, len: u64) -> DiskError {
    match limits::file_size() {
        Some(limit) if limit < len => DiskError::FileLimit { path, len, limit },
        _ => DiskError::FileTooBig { path, len },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(errno: i32) -> DiskError {
        let file = tempfile::tempfile().unwrap();
        of_write("write", Path::new("f"), &file, 7, &io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn what_the_system_says_about_a_write_is_told_apart() {
        let path = || PathBuf::from("f");
        assert!(matches!(answer(libc::ENOSPC), DiskError::Full { free, .. } if free > 0));
        assert_eq!(answer(libc::EDQUOT), DiskError::Quota { path: path(), len: 7 });
        assert_eq!(answer(libc::EFBIG), DiskError::FileTooBig { path: path(), len: 0 });
        assert_eq!(answer(libc::EROFS), DiskError::TurnedReadOnly { path: path() });
        assert_eq!(answer(libc::EIO), DiskError::Failing { action: "write", path: path() });
        let other = DiskError::Io { action: "write", path: path(), errno: libc::ENOMEM };
        assert_eq!(answer(libc::ENOMEM), other);
    }

    #[test]
    fn a_sound_page_is_no_explanation() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        assert_eq!(of_page(&file, Path::new("f"), 8192), DiskError::Unwritable { path: "f".into() });
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    }
}
