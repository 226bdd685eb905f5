//! Any range of the content, written to its files with `pwrite` and read from them with `pread`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::error::Change;
use super::opener::Access;
use super::output::Backing;
use super::{DiskError, Output, cause};

/// Bytes that are written by one call where memory may be cold.
const PART_LEN: usize = 64 << 10;

/// What of a range lies in one file or pad.
struct Stretch<'a> {
    /// The file and where in it; `None` for pad bytes.
    place: Option<(&'a Backing, u64)>,
    /// Its bytes, counted from the start of the range.
    bytes: Range<usize>,
}

impl Output {
    /// Writes `data` to the files that have the content from `at` on. Pad bytes are in none.
    pub(super) fn write(&self, at: u64, data: &[u8]) -> Result<(), DiskError> {
        self.write_by(at, data, |file, data, start| file.write_all_at(data, start))
    }

    /// The same, for what nobody here reads again: around the page cache, where the method is that or becomes that.
    pub(super) fn write_last(&self, at: u64, data: &[u8]) -> Result<(), DiskError> {
        if let Some(uncached) = self.uncached() {
            return self.write_by(at, data, |file, data, start| uncached.write(file, data, start));
        }
        let Some(price) = self.weighed_writes() else { return self.write(at, data) };
        let written = self.write_by(at, data, |file, data, start| {
            price.of(data.len(), || {
                // The pages are as large as the write, and of small ones there are warm ones the longest.
                let mut parts = data.chunks(PART_LEN).zip((start..).step_by(PART_LEN));
                parts.try_for_each(|(part, start)| file.write_all_at(part, start))
            })
        });
        self.avoid_dear_writes();
        written
    }

    fn write_by(
        &self,
        at: u64,
        data: &[u8],
        write: impl Fn(&Arc<File>, &[u8], u64) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        for Stretch { place, bytes } in self.stretches(at, data.len()) {
            let Some((backing, start)) = place else { continue };
            let file = self.file(backing.index, Access::Write)?;
            let data = &data[bytes];
            write(&file, data, start).map_err(|err| {
                cause::of_write("write", &self.tree.path(backing.index), &file, data.len() as u64, &err)
            })?;
            self.tree.cut_surplus(&file, backing.index)?;
            self.start_writeback(&file, start, data.len() as u64);
        }
        Ok(())
    }

    /// Fills `out` with the content from `at` on. Pad bytes are zeroes.
    ///
    /// # Errors
    /// What the disk answers; [`DiskError::Changed`] for a file that is no longer what it was.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DiskError> {
        for Stretch { place, bytes } in self.stretches(at, out.len()) {
            let out = &mut out[bytes];
            let Some((backing, start)) = place else {
                out.fill(0);
                continue;
            };
            self.file(backing.index, Access::Read)?.read_exact_at(out, start).map_err(|err| {
                let path = self.tree.path(backing.index);
                match err.kind() {
                    // The length was right a moment ago; where it is now, nobody knows.
                    io::ErrorKind::UnexpectedEof => {
                        let (found, expected) = (start, start + out.len() as u64);
                        DiskError::Changed { path, change: Change::Resized { found, expected } }
                    }
                    _ => DiskError::new("read", &path, &err),
                }
            })?;
        }
        Ok(())
    }

    /// Whether `data` has nothing but zeroes where the content from `at` on is pad bytes.
    pub(super) fn pads_are_zeroes(&self, at: u64, data: &[u8]) -> bool {
        let mut pads = self.stretches(at, data.len()).filter(|stretch| stretch.place.is_none());
        pads.all(|pad| data[pad.bytes].iter().all(|&byte| byte == 0))
    }

    /// The file, found to be as long as it must be: written behind its end it would grow again, with a hole in it.
    pub(super) fn file(&self, index: usize, access: Access) -> Result<Arc<File>, DiskError> {
        let open = || self.handles.get(index, access, || self.tree.open(index, access));
        let file = match open() {
            Err(DiskError::Io { errno: libc::EMFILE | libc::ENFILE, .. }) => {
                // Those that are kept open for later are the first to do without.
                self.handles.close();
                open()?
            }
            opened => opened?,
        };
        self.tree.check_len(&file, index)?;
        Ok(file)
    }

    fn stretches(&self, at: u64, len: usize) -> impl Iterator<Item = Stretch<'_>> {
        let end = at + len as u64;
        self.spans_in(at..end).map(move |span| {
            let (from, to) = (span.offset.max(at), span.end().min(end));
            Stretch {
                place: span.file.as_ref().map(|file| (file, from - span.offset)),
                bytes: (from - at) as usize..(to - at) as usize,
            }
        })
    }
}
