//! Reserves the blocks of a file before anything is written to it.
//!
//! A store to a mapped hole allocates on the spot, and on a full disk that is a signal, not an error. So the blocks are
//! taken at the start, by `fallocate` itself: the C library's `posix_fallocate` writes every block where the file
//! system cannot reserve.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{DiskError, cause, sys};

/// What the file system has promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reserved {
    /// The blocks are there.
    Blocks,
    /// Only the length is set; the file system cannot reserve (FAT, exFAT, some network ones).
    LengthOnly,
}

/// Makes `file` (known as `path`) at least `len` bytes long with all blocks reserved where that can be done. What it
/// holds stays. ENOSPC comes back as [`DiskError::NoSpace`] with the numbers left 0 for who knows the whole output.
pub(super) fn reserve(file: &File, len: u64, path: &Path) -> Result<Reserved, DiskError> {
    match sys::allocate(file, len) {
        Ok(()) => Ok(Reserved::Blocks),
        Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            let present = file.metadata().map_err(|err| failed(&err, len, path))?.len();
            if present < len {
                file.set_len(len).map_err(|err| failed(&err, len, path))?;
            }
            Ok(Reserved::LengthOnly)
        }
        Err(err) => Err(failed(&err, len, path)),
    }
}

fn failed(err: &io::Error, len: u64, path: &Path) -> DiskError {
    let path = path.to_path_buf();
    match err.raw_os_error() {
        Some(libc::ENOSPC) => DiskError::NoSpace { path, needed: 0, free: 0 },
        Some(libc::EDQUOT) => DiskError::Quota { path, len },
        Some(libc::EFBIG) => cause::too_big(path, len),
        _ => DiskError::new("reserve the space of", &path, err),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn blocks_are_taken_and_data_stay() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"here before", 0).unwrap();
        assert_eq!(reserve(&file, 1 << 20, Path::new("f")), Ok(Reserved::Blocks));
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 20);
        assert!(metadata.blocks() * sys::STAT_BLOCK_LEN >= 1 << 20);
        let mut read = [0; 11];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"here before");
    }

    #[test]
    fn a_length_past_every_file_system_is_too_big() {
        let file = tempfile::tempfile().unwrap();
        for len in [u64::MAX, 1 << 63] {
            assert_eq!(
                reserve(&file, len, Path::new("f")),
                Err(DiskError::FileTooBig { path: "f".into(), len })
            );
        }
    }
}
