//! Mapped memory: one [`Map`] for a file (or for private bytes), and [`Window`]s into it.
//!
//! A window is the only way to touch mapped bytes. Making one is the one unsafe step, and its contract is
//! exclusiveness: while a window lives, no other window covers any of its bytes. From there on `&mut Window` writes
//! and `&Window` reads like any other owned memory. [`super::lease`] keeps the contract.
//!
//! What other processes may do to the file behind a shared map cannot be ruled out by any program:
//! - They may write into it. Then the bytes that are hashed are not the bytes that arrived, and the digest says so.
//!   Nothing but the digest is ever derived from mapped bytes: no length, no index, no branch.
//! - They may cut it short, the disk may fail to read a page, or, on a file system that cannot reserve space or that
//!   copies on write, no room may be left. Then a copy made by the kernel for a system call fails with EFAULT, and a
//!   load or a store of this process meets zeroes that [`super::guard`] puts there: the map is damaged, which
//!   [`Map::damage`] tells.

#![expect(unsafe_code, reason = "copies to and from mapped memory, and drops its pages")]

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{io, ptr, slice};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::guard::Guard;
use super::sys;

/// Bytes of a large page of the page cache. Where it is another number nothing goes wrong.
pub(super) const LARGE_PAGE_LEN: usize = 2 << 20;

/// Memory that is a file, or private zeroes.
pub(super) struct Map {
    /// Of a file. It stands before the memory, and so it goes before the memory does.
    guard: Option<Guard>,
    memory: MmapRaw,
    kind: Kind,
    /// The large pages that were ordered to be made ready and not dropped since: one bit each.
    ordered: Box<[AtomicU64]>,
    /// Verified bytes of each large page.
    verified: Box<[AtomicU32]>,
}

/// What is behind the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, shared: what is written is in the file. With the index of the file.
    File(usize),
    /// Memory of this process, zero at first and gone with the map.
    Private,
}

impl Map {
    /// Maps the first `len` bytes of a file that is open for reading and writing, in large pages where that can be.
    /// `len` is above 0. The index is for whoever asks the map for it.
    pub(super) fn file(file: &File, len: u64, index: usize, in_large_pages: bool) -> io::Result<Self> {
        let memory = MmapOptions::new().len(address_len(len)?).map_raw(file)?;
        let guard = Some(Guard::new(memory.as_ptr(), memory.len())?);
        if in_large_pages && memory.len() >= LARGE_PAGE_LEN {
            // One fault for 2 MiB instead of one for 4 to 64 KiB, which is most of what a mapped write costs beside the
            // copy. Kernels and file systems without large pages in the page cache refuse or ignore it. With it the
            // second advice only means: one large page a fault, and no small ones read ahead in between. Without it, it
            // would mean pages of 4 KiB.
            let _ = memory.advise(Advice::HugePage).and_then(|()| memory.advise(Advice::Random));
        }
        let pages = memory.len().div_ceil(LARGE_PAGE_LEN);
        let ordered = (0..pages.div_ceil(u64::BITS as usize)).map(|_| AtomicU64::new(0)).collect();
        let verified = (0..pages).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { guard, memory, kind: Kind::File(index), ordered, verified })
    }

    /// Takes all pages that `range` touches out of this process; the file keeps them. Whoever has a window on them
    /// meets the same bytes at the next touch.
    ///
    /// # Panics
    /// When the range does not lie inside the map, or the map is of private bytes, which are nowhere else.
    pub(super) fn drop_pages(&self, range: &Range<usize>) {
        assert!(matches!(self.kind, Kind::File(_)) && range.end <= self.memory.len(), "no file at {range:?}");
        if self.damage().is_some() {
            // Some of its pages are the guard's, and would lose what was written to them.
            return;
        }
        // Whole large pages: a part of one would have to be split first.
        let pages = large_pages(range);
        let first = pages.start * LARGE_PAGE_LEN;
        let end = (pages.end * LARGE_PAGE_LEN).min(self.memory.len());
        if pages.len() == self.verified.len() {
            self.ordered.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        } else {
            for page in pages {
                let (word, bit) = bit_of(page);
                self.ordered[word].fetch_and(!bit, Ordering::Relaxed);
            }
        }
        // SAFETY: the map is shared with its file, so dropping pages changes no byte that anyone reads, only from
        // where the next read takes it; `first..end` lies inside the map, whose own start is a page's.
        let dropped =
            unsafe { self.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
        // It only saves memory, and the kernel refuses it for locked pages alone.
        if let Err(err) = dropped {
            tracing::debug!(%err, "cannot drop the pages of verified pieces");
        }
    }

    /// The large pages that `range` touches and that were not ordered yet: now they are.
    pub(super) fn order_pages(&self, range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let is_new = |page: &usize| {
            let (word, bit) = bit_of(*page);
            self.ordered[word].fetch_or(bit, Ordering::Relaxed) & bit == 0
        };
        large_pages(range).filter(is_new).map(|page| self.large_page(page))
    }

    /// Notes that `range`, which was not verified before, is. Returns the large pages that are verified as a whole
    /// since.
    pub(super) fn note_verified(&self, range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        large_pages(range).map(|page| (page, self.large_page(page))).filter_map(move |(page, bytes)| {
            let len = (range.end.min(bytes.end) - range.start.max(bytes.start)) as u32;
            let before = self.verified[page].fetch_add(len, Ordering::Relaxed);
            (before + len == bytes.len() as u32).then_some(bytes)
        })
    }

    /// The bytes of a large page, clipped to the map.
    fn large_page(&self, page: usize) -> Range<usize> {
        page * LARGE_PAGE_LEN..((page + 1) * LARGE_PAGE_LEN).min(self.memory.len())
    }

    /// Makes a large page of [`Map::order_pages`] ready to be written, unless it was dropped meanwhile.
    pub(super) fn populate(&self, page: &Range<usize>) {
        let (word, bit) = bit_of(page.start / LARGE_PAGE_LEN);
        if self.ordered[word].load(Ordering::Relaxed) & bit == 0 {
            return;
        }
        // Changes no byte. It fails before Linux 5.14 and where there is no room; who writes there will learn of that.
        if let Err(err) = self.memory.advise_range(Advice::PopulateWrite, page.start, page.len()) {
            tracing::trace!(%err, "cannot make pages ready");
        }
    }

    /// The first page of `range` that cannot be written, by its offset; `None` where all can be, or where that cannot
    /// be told (before Linux 5.14). Pages that can be written count as changed afterwards.
    pub(super) fn first_unwritable(&self, range: &Range<usize>) -> Option<usize> {
        let page_len = sys::page_len();
        (range.start / page_len * page_len..range.end).step_by(page_len).find(|&page| {
            let len = page_len.min(self.memory.len() - page);
            let populated = self.memory.advise_range(Advice::PopulateWrite, page, len);
            populated.is_err_and(|err| err.raw_os_error() != Some(libc::EINVAL))
        })
    }

    /// Where the first page was that could not be had when this process touched it. From then on nothing that was read
    /// from the map counts, nor what was written to it.
    pub(super) fn damage(&self) -> Option<usize> {
        self.guard.as_ref()?.damage()
    }

    /// Its bytes, counted.
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// The index of the mapped file; `None` for private bytes.
    pub(super) const fn file_index(&self) -> Option<usize> {
        match self.kind {
            Kind::File(index) => Some(index),
            Kind::Private => None,
        }
    }

    /// `len` bytes of private zeroes that take no room until they are written. `len` is above 0.
    fn private(len: u32) -> io::Result<Self> {
        let memory = MmapOptions::new().len(address_len(u64::from(len))?).no_reserve_swap().map_anon()?;
        let memory = MmapRaw::from(memory);
        // Pages of their usual size, so that what is written is what there is memory for. Kernels without others
        // refuse.
        let _ = memory.advise(Advice::NoHugePage);
        Ok(Self {
            guard: None,
            memory,
            kind: Kind::Private,
            ordered: Box::default(),
            verified: Box::default(),
        })
    }

    /// The window on `len` bytes from `start`.
    ///
    /// # Panics
    /// When the window does not lie inside the map.
    ///
    /// # Safety
    /// - While the window lives, no other window, of this or of any other map of the same file, covers any of its
    ///   bytes.
    pub(super) unsafe fn window(self: &Arc<Self>, start: u64, len: u32) -> Window {
        let end = start.checked_add(u64::from(len));
        assert!(
            end.is_some_and(|end| end <= self.memory.len() as u64),
            "window {start}+{len} leaves a map of {} bytes",
            self.memory.len()
        );
        Window { map: Arc::clone(self), start: start as usize, len: len as usize }
    }
}

/// The exclusive right to a range of a [`Map`]. Every place in it is counted from its own start.
///
/// Invariant: `start + len <= map.memory.len()`, and the memory stays mapped while the window holds the map.
pub(super) struct Window {
    map: Arc<Map>,
    start: usize,
    len: usize,
}

impl Window {
    /// A window on `len` private bytes, zero at first, that take no room until they are written. `len` is above 0.
    pub(super) fn private(len: u32) -> io::Result<Self> {
        let map = Arc::new(Map::private(len)?);
        // SAFETY: the map was made for this window alone.
        Ok(unsafe { map.window(0, len) })
    }

    /// Its bytes, counted.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Copies `data` to `at`. Panics when it does not fit.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "nobody else may use the bytes meanwhile")]
    pub(super) fn write(&mut self, at: usize, data: &[u8]) {
        let target = self.address(at, data.len());
        // SAFETY: `address` has checked that the target lies inside the window; the window is the only right to those
        // bytes and `&mut self` the only use of it, so `data` cannot overlap them; bytes need no alignment.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let start = self.address(0, self.len);
        // SAFETY: `address` has checked that the bytes lie inside the window; mapped memory is always initialised; the
        // window is the only right to them and is borrowed, so nothing of this process writes meanwhile.
        unsafe { slice::from_raw_parts(start, self.len) }
    }

    /// Its bytes, to be changed.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.address(0, self.len);
        // SAFETY: as in `bytes`; the window is the only right to them and is borrowed for this alone.
        unsafe { slice::from_raw_parts_mut(start, self.len) }
    }

    /// The place of `len` bytes from `at`, for a system call to fill. Panics when they leave the window.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "nobody else may use the bytes meanwhile")]
    pub(super) fn target(&mut self, at: usize, len: usize) -> libc::iovec {
        libc::iovec { iov_base: self.address(at, len).cast(), iov_len: len }
    }

    /// Gives up the memory behind `len` private bytes from `at`, which are zero then. `at` must be the first byte of a
    /// page; memory that is shared with a file keeps what it has.
    pub(super) fn release(&mut self, at: usize, len: usize) {
        let start = self.start + at;
        assert!(start.is_multiple_of(sys::page_len()) && at + len <= self.len, "not the pages of a window");
        if self.map.kind != Kind::Private {
            return;
        }
        // SAFETY: the map is private and this window, which is borrowed, the only one, so nobody reads the bytes that
        // change; the range lies inside the map, but for the rest of its last page, which nobody uses.
        let released =
            unsafe { self.map.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len) };
        // It only saves memory, and the kernel refuses it for locked pages alone.
        if let Err(err) = released {
            tracing::debug!(%err, "cannot give up the memory of blocks that were written");
        }
    }

    /// The mapped file it is a window on, and where; `None` for private bytes.
    pub(super) fn place(&self) -> Option<(&Arc<Map>, Range<usize>)> {
        matches!(self.map.kind, Kind::File(_)).then_some((&self.map, self.start..self.start + self.len))
    }

    fn address(&self, at: usize, len: usize) -> *mut u8 {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {at} leave a window of {}",
            self.len
        );
        self.map.memory.as_mut_ptr().wrapping_add(self.start + at)
    }
}

/// The large pages that a range touches.
const fn large_pages(range: &Range<usize>) -> Range<usize> {
    range.start / LARGE_PAGE_LEN..range.end.div_ceil(LARGE_PAGE_LEN)
}

/// The word and the bit of a large page in a set of them.
const fn bit_of(page: usize) -> (usize, u64) {
    (page / u64::BITS as usize, 1 << (page % u64::BITS as usize))
}

/// A length as the address space counts; an error where it is too large for it.
fn address_len(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn mapped(len: u64) -> (File, Arc<Map>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let map = Arc::new(Map::file(&file, len, 0, true).unwrap());
        (file, map)
    }

    #[test]
    fn what_a_window_writes_is_in_the_file_and_stays_there_without_its_pages() {
        let (file, map) = mapped(100_000);
        // SAFETY: the only window of the test.
        let mut window = unsafe { map.window(5_000, 90_000) };
        let data: Vec<u8> = (0..90_000u32).map(|i| (i % 251) as u8).collect();
        window.write(0, &data);
        map.drop_pages(&window.place().unwrap().1);
        assert_eq!(window.bytes(), data);
        let mut read = vec![0; 90_000];
        file.read_exact_at(&mut read, 5_000).unwrap();
        assert_eq!(read, data);
    }

    #[test]
    fn a_file_that_was_cut_can_be_touched_but_not_trusted() {
        let page = sys::page_len();
        let (file, map) = mapped(4 * page as u64);
        // SAFETY: the only window of the test.
        let mut window = unsafe { map.window(0, 4 * page as u32) };
        window.write(0, &vec![1; 4 * page]);
        assert_eq!((map.damage(), map.first_unwritable(&(5..4 * page))), (None, None));
        file.set_len(2 * page as u64).unwrap();
        assert_eq!((map.damage(), map.first_unwritable(&(5..4 * page))), (None, Some(2 * page)));
        window.write(2 * page, &[2; 5]);
        assert_eq!(window.bytes()[2 * page..2 * page + 6], [2, 2, 2, 2, 2, 0]);
        assert_eq!(map.damage(), Some(2 * page));
        map.drop_pages(&(0..4 * page));
        assert_eq!(window.bytes()[page..][..page], vec![1; page], "the rest is as it was");
    }

    #[test]
    fn private_bytes_are_zeroes_that_keep_what_is_written() {
        let mut window = Window::private(10_000).unwrap();
        assert_eq!(window.bytes(), [0; 10_000]);
        window.write(9_999, &[7]);
        assert_eq!(window.bytes()[9_999], 7);
        assert!(window.place().is_none());
    }

    #[test]
    fn released_bytes_are_zeroes_and_their_neighbours_stay() {
        let page = sys::page_len();
        let mut window = Window::private(3 * page as u32 + 5).unwrap();
        window.bytes_mut().fill(1);
        window.release(page, page);
        window.release(3 * page, 5);
        let expected = [vec![1; page], vec![0; page], vec![1; page], vec![0; 5]].concat();
        assert_eq!(window.bytes(), expected);
    }

    #[test]
    #[should_panic(expected = "leaves a map of 10 bytes")]
    fn a_window_past_the_map_is_refused() {
        let (_file, map) = mapped(10);
        // SAFETY: the only window of the test, and it is never made.
        let _window = unsafe { map.window(5, 6) };
    }

    #[test]
    #[should_panic(expected = "leave a window of 5")]
    fn a_write_past_the_window_is_refused() {
        let (_file, map) = mapped(10);
        // SAFETY: the only window of the test.
        let mut window = unsafe { map.window(0, 5) };
        window.write(3, &[0; 3]);
    }
}
