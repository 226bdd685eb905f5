//! Writes whose pages leave the page cache as soon as the disk has them, and reads whose pages do not stay there, so that
//! the next ones take the same memory.
//!
//! Memory that was used a moment ago is there, which cannot be said of free memory on a virtual machine (see
//! [`price`](super::price)). Linux 6.14 and later do that for a write that asks for it (`RWF_DONTCACHE`) on file systems
//! that can (ext4, XFS). Elsewhere the write is started, and some MiB later the pages are forgotten, if they are written
//! by then.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::sys;

/// Bytes that the disk is given before they are forgotten.
const BEHIND_LEN: u64 = 32 << 20;

/// How files are written around the page cache.
#[derive(Default)]
pub(super) struct Uncached {
    /// Whether the kernel or a file system has refused to do it by itself.
    is_refused: AtomicBool,
    behind: Mutex<Behind>,
}

/// What was written and is to be forgotten, in order. A file that nobody has open any more is left to the kernel.
#[derive(Default)]
struct Behind {
    ranges: VecDeque<(Weak<File>, u64, u64)>,
    len: u64,
}

impl Uncached {
    /// Writes `data` at `at` of the file.
    ///
    /// # Errors
    /// Those of a write.
    pub(super) fn write(&self, file: &Arc<File>, mut data: &[u8], mut at: u64) -> io::Result<()> {
        while !self.is_refused.load(Ordering::Relaxed) && !data.is_empty() {
            match sys::write_uncached(file, data, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (data, at) = (&data[n..], at + n as u64),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if is_refusal(&err) => {
                    tracing::debug!(%err, "no uncached writes here; forgetting pages by hand");
                    self.is_refused.store(true, Ordering::Relaxed);
                }
                Err(err) => return Err(err),
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        file.write_all_at(data, at)?;
        let len = data.len() as u64;
        if let Err(err) = sys::start_writeback(file, at, len) {
            tracing::debug!(%err, "cannot start to write back");
        }
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.len += len;
        behind.ranges.push_back((Arc::downgrade(file), at, len));
        while behind.len > BEHIND_LEN
            && let Some((file, at, len)) = behind.ranges.pop_front()
        {
            behind.len -= len;
            if let Some(file) = file.upgrade() {
                sys::forget_range(&file, at, len);
            }
        }
        Ok(())
    }
}

/// Fills `out` from `at` of the file on, so that pages that were not in memory before leave it again, where that can be
/// had; `is_refused` keeps whether it cannot.
///
/// # Errors
/// Those of a read; [`io::ErrorKind::UnexpectedEof`] where the file ends before.
pub(super) fn read_exact(
    file: &File,
    mut out: &mut [u8],
    mut at: u64,
    is_refused: &Cell<bool>,
) -> io::Result<()> {
    while !is_refused.get() && !out.is_empty() {
        match sys::read_uncached(file, out, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (out, at) = (&mut out[n..], at + n as u64),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) if is_refusal(&err) => is_refused.set(true),
            Err(err) => return Err(err),
        }
    }
    file.read_exact_at(out, at)
}

fn is_refusal(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_whoever_forgets_it() {
        for is_refused in [false, true] {
            let uncached = Uncached { is_refused: AtomicBool::new(is_refused), ..Uncached::default() };
            let file = Arc::new(tempfile::tempfile().unwrap());
            let data: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
            for part in 0..80 {
                uncached.write(&file, &data, part << 20).unwrap();
            }
            let behind = uncached.behind.lock().unwrap();
            assert!(behind.len <= BEHIND_LEN && behind.ranges.len() <= 32);
            let mut read = vec![0; data.len()];
            for part in 0..80 {
                file.read_exact_at(&mut read, part << 20).unwrap();
                assert!(read == data);
                read.fill(0);
                read_exact(&file, &mut read, part << 20, &Cell::new(is_refused)).unwrap();
                assert!(read == data);
            }
            let error = read_exact(&file, &mut read, (80 << 20) - 1, &Cell::new(is_refused)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn errors_of_the_disk_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"x").unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let error = Uncached::default().write(&file, b"abc", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
