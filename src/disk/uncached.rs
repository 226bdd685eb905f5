//! Writes whose pages leave the page cache as soon as the disk has them, and reads whose pages do not stay there, so that
//! the next ones take the same memory.
//!
//! Memory that was used a moment ago is there, which cannot be said of free memory on a virtual machine (see
//! [`price`](super::price)). Linux 6.14 and later do that for a write that asks for it (`RWF_DONTCACHE`) on file systems
//! that can (ext4, XFS). Elsewhere, and where writes are small, some are gathered and the disk is told to write them, and
//! some MiB later their pages are forgotten, if they are written by then.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::sys;

/// Bytes of a write that is worth a write to the disk of its own.
const LARGE_LEN: usize = 256 << 10;

/// Bytes of smaller ones that are gathered before the disk is given them, in as few stretches as they make.
const GATHERED_LEN: u64 = 4 << 20;

/// Stretches that are gathered at most: those of small files are short.
const GATHERED_MAX: usize = 1024;

/// Bytes that the disk is given before they are forgotten.
const BEHIND_LEN: u64 = 32 << 20;

/// The same in stretches.
const BEHIND_MAX: usize = 8 * GATHERED_MAX;

/// How files are written around the page cache.
#[derive(Default)]
pub(super) struct Uncached {
    /// Whether the kernel or a file system has refused to do it by itself.
    is_refused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was written since the disk was given something.
    gathered: Vec<Stretch>,
    gathered_len: u64,
    /// What the disk was given and is to be forgotten, in order.
    behind: VecDeque<Stretch>,
    behind_len: u64,
}

/// A part of a file. One that nobody has open any more is left to the kernel.
struct Stretch {
    file: Weak<File>,
    range: Range<u64>,
}

impl Uncached {
    /// Writes `data` at `at` of the file.
    ///
    /// # Errors
    /// Those of a write.
    pub(super) fn write(&self, file: &Arc<File>, mut data: &[u8], mut at: u64) -> io::Result<()> {
        while data.len() >= LARGE_LEN && !self.is_refused.load(Ordering::Relaxed) {
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
        if !data.is_empty() {
            file.write_all_at(data, at)?;
            self.wrote(Stretch { file: Arc::downgrade(file), range: at..at + data.len() as u64 });
        }
        Ok(())
    }

    fn wrote(&self, stretch: Stretch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gathered_len += stretch.range.end - stretch.range.start;
        state.gathered.push(stretch);
        if state.gathered_len < GATHERED_LEN && state.gathered.len() < GATHERED_MAX {
            return;
        }
        state.gathered_len = 0;
        let given = joined(std::mem::take(&mut state.gathered));
        state.behind_len += given.iter().map(|stretch| stretch.range.end - stretch.range.start).sum::<u64>();
        let mut forgotten = Vec::new();
        while (state.behind_len > BEHIND_LEN || state.behind.len() > BEHIND_MAX)
            && let Some(stretch) = state.behind.pop_front()
        {
            state.behind_len -= stretch.range.end - stretch.range.start;
            forgotten.push(stretch);
        }
        let files: Vec<_> =
            given.iter().map(|stretch| (stretch.file.upgrade(), stretch.range.clone())).collect();
        state.behind.extend(given);
        drop(state);
        for (file, Range { start, end }) in files {
            if let Some(file) = file
                && let Err(err) = sys::start_writeback(&file, start, end - start)
            {
                tracing::debug!(%err, "cannot start to write back");
            }
        }
        for Stretch { file, range: Range { start, end } } in forgotten {
            if let Some(file) = file.upgrade() {
                sys::forget_range(&file, start, end - start);
            }
        }
    }
}

/// The same in as few stretches as can be.
fn joined(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_unstable_by_key(|stretch| (stretch.file.as_ptr(), stretch.range.start));
    stretches.dedup_by(|next, last| {
        let follows = last.file.ptr_eq(&next.file) && last.range.end == next.range.start;
        if follows {
            last.range.end = next.range.end;
        }
        follows
    });
    stretches
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
            let state = uncached.state.lock().unwrap();
            assert!(state.gathered_len < GATHERED_LEN && state.behind_len <= BEHIND_LEN);
            assert_eq!(state.behind.len(), if is_refused { 8 } else { 0 });
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
    fn small_writes_in_any_order_are_given_to_the_disk_together() {
        let uncached = Uncached::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let data = [7; 16 << 10];
        for part in (0..512).rev() {
            uncached.write(&file, &data, part * data.len() as u64).unwrap();
        }
        let state = uncached.state.lock().unwrap();
        let ranges: Vec<_> = state.behind.iter().map(|stretch| stretch.range.clone()).collect();
        assert_eq!(ranges, [4 << 20..8 << 20, 0..4 << 20]);
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
