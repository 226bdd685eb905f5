//! The output of a download: opened once, then leased piece by piece.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::draft::Draft;
use super::handles::Handles;
use super::lease::Leases;
use super::map::{LARGE_PAGE_LEN, Map, Window};
use super::method::{Need, Room};
use super::opener::Access;
use super::parts::Parts;
use super::plan::{Span, Target};
use super::pool::{Buffer, Pool};
use super::price::{DEAR_PAGES, DEAR_WRITES, Price};
use super::scratch::Scratch;
use super::tree::{Existing, Tree};
use super::uncached::Uncached;
use super::upkeep::Upkeep;
use super::watch::Watch;
use super::{DiskError, Found, Io, PieceLease, Plan, Refused, Site, Verdict, guard, sys};
use crate::meta::geometry::{Geometry, PieceIndex};

/// Maps of files that are kept once made. The kernel's own limit (`vm.max_map_count`) is 65530 for a process as a rule;
/// the maps of further files, which there are where the user insists on maps, live only as long as leases need them.
const MAPS_KEPT_MAX: usize = 16 * 1024;

/// Bytes of an output from which on a thread makes its pages ready.
const LARGE_LEN: u64 = 64 << 20;

/// The files of a download, preallocated; mapped when a piece of theirs is first leased, or written piece by piece.
///
/// Descriptors: one for the folder (or the only file); a file's own is closed once it is mapped, and of those that are
/// written a few stay open. So neither many files nor large ones run into the limits of a process.
pub struct Output {
    pub(super) geometry: Geometry,
    /// How the files are to be written.
    io: Io,
    /// Whether they are written piece by piece. Where the user leaves it open that begins as soon as a map cannot be
    /// had, or is dear.
    is_written: AtomicBool,
    /// Whether it is looked at what writing costs, to do it around the page cache where that is cheaper.
    weighs_writes: AtomicBool,
    writes: Price,
    /// Whether whole pieces are written around the page cache.
    is_uncached: AtomicBool,
    uncached: Uncached,
    pub(super) tree: Tree,
    pub(super) spans: Box<[Placed]>,
    leases: Leases,
    /// For files that are mapped.
    maps_kept: AtomicUsize,
    upkeep: Upkeep,
    /// Whether verified pieces are written back at once.
    writes_back: AtomicBool,
    /// Whether the files held nothing. A page that is made ready or written counts as changed as a whole, and large
    /// ones reach far: what was there before is not written again for its neighbours.
    is_fresh: bool,
    /// What others write to the files; `None` where that cannot be told from what is written here.
    pub(super) watch: Option<Watch>,
    /// For files that are written.
    pub(super) pool: Pool,
    pub(super) handles: Handles,
    /// For pieces in files of others, that have to leave memory before they are verified.
    pub(super) scratch: Scratch,
}

/// A stretch of the content and where it is.
pub(super) struct Placed {
    /// Its first byte in the content.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) len: u64,
    /// Its file; `None` for pad bytes.
    pub(super) file: Option<Backing>,
}

impl Placed {
    pub(super) const fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// A file and its map, if it is mapped. There is never more than one map of a file.
pub(super) struct Backing {
    /// Its index in the tree.
    pub(super) index: usize,
    map: Mutex<MapSlot>,
}

#[derive(Default)]
struct MapSlot {
    /// The map, while anyone holds it.
    current: Weak<Map>,
    /// Holds the map of one of the first [`MAPS_KEPT_MAX`] files.
    kept: Option<Arc<Map>>,
}

impl Output {
    /// Makes or opens the files and reserves their space, for whoever need not know what they hold before. Nothing is
    /// known to be right: [`Site::make`] is for where something may be.
    ///
    /// # Errors
    /// Those of [`Site::find`] and [`Site::make`].
    pub fn open(plan: Plan, existing: Existing) -> Result<(Arc<Self>, Found), DiskError> {
        let site = Site::find(plan, existing, None)?;
        let found = site.found().clone();
        let verdicts = vec![Verdict::Ours; site.file_count()];
        Ok((site.make(&verdicts)?, found))
    }

    /// The output of these files, which are as long as they must be. `is_fresh` says that they held nothing.
    pub(super) fn new(
        geometry: Geometry,
        io: Io,
        tree: Tree,
        spans: Box<[Placed]>,
        is_fresh: bool,
    ) -> Arc<Self> {
        // A piece may be said to be longer than all there is.
        let buffer_len = u64::from(geometry.piece_len()).min(geometry.total_len()) as u32;
        let mut output = Self {
            geometry,
            io,
            is_written: AtomicBool::new(matches!(io, Io::Pwrite | Io::Uncached)),
            weighs_writes: AtomicBool::new(false),
            writes: Price::default(),
            is_uncached: AtomicBool::new(io == Io::Uncached),
            uncached: Uncached::default(),
            tree,
            spans,
            leases: Leases::new(geometry.piece_count()),
            maps_kept: AtomicUsize::new(0),
            upkeep: Upkeep::default(),
            writes_back: AtomicBool::new(false),
            is_fresh,
            watch: None,
            pool: Pool::new(buffer_len),
            handles: Handles::default(),
            scratch: Scratch::new(buffer_len),
        };
        if io == Io::Auto {
            *output.is_written.get_mut() = !(Room::now().has(output.need()) && output.is_mappable());
        }
        let watch = output.tree.watch();
        output.watch = watch.filter(|watch| output.io() == Io::Mmap || watch.knows_processes());
        if output.io() == Io::Mmap {
            output.probe();
        }
        Arc::new(output)
    }

    /// How the files are written: never [`Io::Auto`].
    pub fn io(&self) -> Io {
        if !self.is_written.load(Ordering::Relaxed) {
            Io::Mmap
        } else if self.is_uncached.load(Ordering::Relaxed) {
            Io::Uncached
        } else {
            Io::Pwrite
        }
    }

    /// The CPU time of a GiB of pages for the map, as measured last; `None` where few were made ready ahead.
    pub fn page_price(&self) -> Option<Duration> {
        self.upkeep.price().latest()
    }

    /// The lease of a piece: the right to write it until the lease is dropped.
    ///
    /// Where files are mapped, the first lease of a piece in a file opens and maps it (two quick system calls for a
    /// file at the top). Where they are written, nothing happens yet.
    ///
    /// # Errors
    /// See [`Refused`]. [`DiskError::Changed`] when a file to map is not the one that was opened, or was cut.
    pub fn lease(self: &Arc<Self>, piece: PieceIndex) -> Result<PieceLease, Refused> {
        let range = self.range(piece).ok_or(Refused::Outside)?;
        let size = self.geometry.piece_size(piece);
        let mut lease = PieceLease::take(self, piece, size)?;
        if self.io() == Io::Mmap && !self.instead_of_dear_pages() {
            match self.parts(&lease, range.clone()) {
                Ok(parts) => {
                    lease.set_parts(parts);
                    return Ok(lease);
                }
                Err(error) if self.instead_of_maps(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut files = self.spans_in(range.clone()).filter_map(|span| span.file.as_ref());
        let waits = files.any(|file| self.tree.holds_others(file.index));
        lease.set_draft(Draft::new(range.start, size, waits));
        Ok(lease)
    }

    /// The windows on a piece.
    fn parts(&self, lease: &PieceLease, range: Range<u64>) -> Result<Parts, DiskError> {
        let mut parts = Parts::default();
        for span in self.spans_in(range) {
            self.extend(&mut parts, lease, span)?;
        }
        debug_assert_eq!(parts.filled(), lease.size(), "the spans have no gap");
        Ok(parts)
    }

    /// Has all further leases write their pieces, if the error says that there are no maps for them. Returns whether
    /// they do.
    fn instead_of_maps(&self, error: &DiskError) -> bool {
        if self.io != Io::Auto || !matches!(error, DiskError::NoMaps { .. }) {
            return false;
        }
        if self.leave_maps() {
            tracing::info!("{error}; writing it from now on");
        }
        true
    }

    /// The same, if the pages of the maps have turned out to be dear; and around the page cache once those that are written
    /// are, too.
    fn instead_of_dear_pages(&self) -> bool {
        if self.io != Io::Auto || !self.upkeep.price().is_above(DEAR_PAGES) || self.tree.is_in_memory() {
            return false;
        }
        self.weighs_writes.store(true, Ordering::Relaxed);
        if self.leave_maps() {
            let seconds = self.page_price().unwrap_or_default().as_secs_f64();
            tracing::info!("memory is cold: large pages cost {seconds:.1} s/GiB; writing from now on");
        }
        true
    }

    /// What writing costs, where that is looked at.
    pub(super) fn weighed_writes(&self) -> Option<&Price> {
        self.weighs_writes.load(Ordering::Relaxed).then_some(&self.writes)
    }

    /// Has all that is written from now on go around the page cache if what was written was dear.
    pub(super) fn avoid_dear_writes(&self) {
        if self.writes.is_above(DEAR_WRITES) && !self.is_uncached.swap(true, Ordering::Relaxed) {
            let seconds = self.writes.latest().unwrap_or_default().as_secs_f64();
            tracing::info!("memory is cold: writing costs {seconds:.1} s/GiB; uncached from now on");
        }
    }

    /// Has all further leases write their pieces; whether they were mapped before. What is leased goes on in its maps:
    /// what is stored to a map and what is written to its file meet in the same pages of the page cache on every file
    /// system that is mapped here, and they are bytes of different pieces.
    fn leave_maps(&self) -> bool {
        if self.is_written.load(Ordering::Relaxed) {
            return false;
        }
        // Before anything is written.
        if let Some(watch) = &self.watch {
            watch.prepare_for_writes();
        }
        if self.is_written.swap(true, Ordering::Relaxed) {
            return false;
        }
        for file in self.spans.iter().filter_map(|span| span.file.as_ref()) {
            file.map.lock().unwrap_or_else(PoisonError::into_inner).kept = None;
        }
        true
    }

    /// Makes a few pages ready to learn what they cost, where the method depends on it.
    fn probe(&self) {
        if self.io != Io::Auto || !self.works_ahead() {
            return;
        }
        let mut files = self.spans.iter().filter_map(|span| Some((span.file.as_ref()?, span.len)));
        let Some((file, len)) = files.find(|&(_, len)| len >= LARGE_PAGE_LEN as u64) else { return };
        // A look only: whatever is wrong is told when the file is needed.
        if let Ok(map) = self.map(file, len) {
            self.upkeep.probe(&map);
        }
    }

    /// Has the disk write verified pieces as they come, for a download that will wait for it in the end.
    pub fn write_back_early(&self) {
        self.writes_back.store(true, Ordering::Relaxed);
    }

    /// Whether pieces in memory, on their way to files that are written, take so much of it that no complete one should
    /// wait. Never so where the files are mapped.
    pub fn is_crowded(&self) -> bool {
        self.pool.is_crowded()
    }

    /// Bytes of memory that pieces take on their way to files that are written; 0 where the files are mapped.
    pub fn memory_in_use(&self) -> usize {
        self.pool.in_use()
    }

    /// To be called when every piece is sealed: whether all files are still in place. With `sync` it waits until they
    /// are on the disk, their names too, and learns of every error of writing them back.
    ///
    /// # Errors
    /// [`DiskError::Changed`] for a file that was removed, replaced or cut; with `sync` also what the disk answers.
    pub fn finish(&self, sync: bool) -> Result<(), DiskError> {
        let finished = self.tree.finish(sync);
        if sync && finished.is_err() {
            self.forget_cached();
        }
        finished
    }

    /// Has the system forget the bytes that are in memory and not changed, as a sync has failed: what could not be
    /// written stays there and counts as written, and the next run would believe it.
    pub(super) fn forget_cached(&self) {
        self.maps().for_each(|(_, map)| map.drop_pages(&(0..map.len())));
        self.tree.forget_cached();
    }

    /// The error for a map that the kernel could not write to (EFAULT), where [`PieceLease::trouble`] finds no reason.
    pub fn write_error(&self) -> DiskError {
        DiskError::Unwritable { path: self.tree.root().to_owned() }
    }

    /// What is wrong with a mapped file that this process has touched where it could not be had: what was read from it
    /// is not what it holds.
    pub fn damage(&self) -> Option<DiskError> {
        if !guard::is_any_damaged() {
            return None;
        }
        self.maps().find_map(|(index, map)| Some(self.cause(index, map.damage()? as u64)))
    }

    /// Leaves everything as it was found: removes exactly the files and folders that were made, and gives files that
    /// were made longer their old length (their holes may have become reserved space). For a download that
    /// failed before anything was verified, or that was refused because the files are someone else's.
    ///
    /// No piece can be leased afterwards. Let all leases go first: while one is out, files of ours that were there
    /// before are not cut, because its owner may still write to what would be cut off.
    ///
    /// # Errors
    /// The first one; what can be undone is undone all the same.
    pub fn undo(&self) -> Result<(), DiskError> {
        let all_in = self.leases.close();
        self.tree.undo(all_in)
    }

    /// Gives files of others that were to be replaced, and of which no byte was, their old length: for a download that
    /// failed before it came to them. No piece can be leased afterwards.
    ///
    /// # Errors
    /// The first one.
    pub fn restore_untouched(&self) -> Result<(), DiskError> {
        // A lease that is out writes to these files only when it is sealed, and not at all once they are shorter.
        self.leases.close();
        let files = self.spans.iter().filter(|span| span.file.is_some());
        let is_sealed = |piece| self.leases.is_sealed(piece);
        let touched: Vec<_> = files.map(|span| pieces_in(self.geometry, span).any(is_sealed)).collect();
        self.tree.restore_untouched(|file| touched[file])
    }

    pub(super) const fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Whether a thread should make pages ready: it is worth one, and changes nothing that was there before.
    pub(super) fn works_ahead(&self) -> bool {
        let ends = self.spans.first().zip(self.spans.last());
        self.is_fresh && ends.is_some_and(|(first, last)| last.end() - first.offset >= LARGE_LEN)
    }

    /// Whether whole pieces are written around the page cache, and how.
    pub(super) fn uncached(&self) -> Option<&Uncached> {
        self.is_uncached.load(Ordering::Relaxed).then_some(&self.uncached)
    }

    pub(super) const fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Notes that a piece in these mapped files is verified. Every now and then it looks whether they are still in
    /// their place: a map of a file that was removed takes everything, for nothing.
    pub(super) fn verified<'a>(
        &self,
        places: impl Iterator<Item = (&'a Arc<Map>, Range<usize>)>,
    ) -> Result<(), DiskError> {
        let swept = self.upkeep.verified(places);
        if let Some(index) = swept.first().and_then(|(map, _)| map.file_index()) {
            self.tree.open(index, Access::Write)?;
        }
        if !self.writes_back.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (map, range) in swept {
            let Some(index) = map.file_index() else { continue };
            if let Ok(file) = self.file(index, Access::Write) {
                self.start_writeback(&file, range.start as u64, range.len() as u64);
            }
        }
        Ok(())
    }

    /// Has the disk write a range, if it is to write early. What goes wrong then is told at the end: everything is
    /// written in any case.
    pub(super) fn start_writeback(&self, file: &File, from: u64, len: u64) {
        if self.writes_back.load(Ordering::Relaxed)
            && let Err(err) = sys::start_writeback(file, from, len)
        {
            tracing::debug!(%err, "cannot start to write back verified pieces");
        }
    }

    /// The bytes of a piece in the content, when the output covers them all.
    pub(super) fn range(&self, piece: PieceIndex) -> Option<Range<u64>> {
        let piece = self.geometry.piece(piece.get())?;
        let start = self.geometry.piece_offset(piece);
        let end = start + u64::from(self.geometry.piece_size(piece));
        let covered = self.spans.first()?.offset..=self.spans.last()?.end();
        (covered.contains(&start) && covered.contains(&end)).then_some(start..end)
    }

    /// The spans that have bytes of this range of the content, in its order.
    pub(super) fn spans_in(&self, range: Range<u64>) -> impl Iterator<Item = &Placed> {
        spans_in(&self.spans, range)
    }

    /// Adds to the parts of a lease the window on what `span` has of its bytes, from the first that they lack.
    #[expect(unsafe_code, reason = "here the contract of Map::window is kept")]
    fn extend(&self, parts: &mut Parts, lease: &PieceLease, span: &Placed) -> Result<(), DiskError> {
        let missing = lease.size() - parts.filled();
        let at = self.geometry.piece_offset(lease.piece()) + u64::from(parts.filled());
        let end = span.end().min(at + u64::from(missing));
        assert!(span.offset <= at && at < end, "a gap around the span at {}", span.offset);
        // At most `missing`.
        let len = (end - at) as u32;
        let window = match &span.file {
            Some(file) => {
                let map = self.map(file, span.len)?;
                // SAFETY: the lease is the only one of its piece, its windows so far end before `at`, and the bytes of
                // other pieces lie before or behind the piece. They are other bytes of memory too, for no two spans
                // overlap or are the same file, and `map` is the only map of this one.
                unsafe { map.window(at - span.offset, len) }
            }
            None => self.pad(len)?,
        };
        parts.add(window);
        Ok(())
    }

    /// A buffer for a piece that will be written; `None` where there is no address space for one.
    pub(super) fn take_buffer(&self) -> Option<Buffer> {
        self.pool.take().inspect_err(|error| tracing::debug!("no memory for a piece: {error}")).ok()
    }

    fn pad(&self, len: u32) -> Result<Window, DiskError> {
        Window::private(len)
            .map_err(|err| map_error("get memory for the pad bytes of", self.tree.root().to_owned(), &err))
    }

    /// Whether the files can be mapped, as far as the file system and the first of them tell.
    fn is_mappable(&self) -> bool {
        if self.tree.is_unmappable() {
            return false;
        }
        let mut files = self.spans.iter().filter(|span| span.len > 0);
        let Some(first) = files.find_map(|span| span.file.as_ref()) else { return true };
        // A look only: whatever else is wrong is told when the file is needed.
        !matches!(self.make_map(first, 1), Err(DiskError::NotMappable { .. } | DiskError::NoMaps { .. }))
    }

    /// What the files take when all of them are mapped.
    fn need(&self) -> Need {
        let mapped = || self.spans.iter().filter(|span| span.file.is_some() && span.len > 0);
        let piece_len = u64::from(self.geometry.piece_len()).max(1);
        let (mut piece, mut files_here, mut files_a_piece) = (None, 0, 0);
        for span in mapped() {
            // All files that begin in one piece, and the one that reaches into it.
            let begins_in = span.offset / piece_len;
            files_here = if piece == Some(begins_in) { files_here + 1 } else { 2 };
            files_a_piece = files_a_piece.max(files_here);
            piece = Some(begins_in);
        }
        let bytes = mapped().fold(0, |sum: u64, span| sum.saturating_add(span.len));
        Need { files: mapped().count(), files_a_piece, bytes }
    }

    /// The maps there are, with the indices of their files.
    fn maps(&self) -> impl Iterator<Item = (usize, Arc<Map>)> {
        self.spans.iter().filter_map(|span| {
            let file = span.file.as_ref()?;
            let slot = file.map.lock().unwrap_or_else(PoisonError::into_inner);
            Some((file.index, slot.current.upgrade()?))
        })
    }

    /// The map of a file of `len` bytes.
    fn map(&self, file: &Backing, len: u64) -> Result<Arc<Map>, DiskError> {
        let mut slot = file.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = slot.current.upgrade() {
            return Ok(map);
        }
        let map = Arc::new(self.make_map(file, len)?);
        slot.current = Arc::downgrade(&map);
        if self.maps_kept.fetch_add(1, Ordering::Relaxed) < MAPS_KEPT_MAX {
            slot.kept = Some(Arc::clone(&map));
        }
        Ok(map)
    }

    fn make_map(&self, file: &Backing, len: u64) -> Result<Map, DiskError> {
        let opened = self.tree.open(file.index, Access::Write)?;
        Map::file(&opened, len, file.index, self.is_fresh).map_err(|err| {
            let path = self.tree.path(file.index);
            match err.raw_os_error() {
                Some(libc::ENODEV | libc::EACCES | libc::EINVAL) => DiskError::NotMappable { path },
                _ => map_error("map", path, &err),
            }
        })
    }
}

/// The error of a map: where there is no room for it, it says so.
fn map_error(action: &'static str, path: PathBuf, error: &io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN) => DiskError::NoMaps { path },
        _ => DiskError::new(action, &path, error),
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

/// The spans that have bytes of this range of the content, in its order.
pub(super) fn spans_in(spans: &[Placed], range: Range<u64>) -> impl Iterator<Item = &Placed> {
    let first = spans.partition_point(|span| span.end() <= range.start);
    let spans = spans[first..].iter().take_while(move |span| span.offset < range.end);
    // Empty files lie between the others.
    spans.filter(|span| span.len > 0)
}

/// The pieces that have bytes of a span, in order; none of an empty one.
pub(super) fn pieces_in(geometry: Geometry, span: &Placed) -> impl Iterator<Item = PieceIndex> + use<> {
    let piece_len = u64::from(geometry.piece_len());
    let (first, behind) = (span.offset / piece_len, span.end().div_ceil(piece_len));
    let indices = if span.len > 0 { first..behind } else { 0..0 };
    indices.filter_map(move |index| geometry.piece(u32::try_from(index).ok()?))
}

/// Gives every file span the index of its file, and the files their order.
pub(super) fn place(spans: Vec<Span>) -> (Box<[Placed]>, Vec<(PathBuf, u64)>) {
    let mut files = Vec::new();
    let place = |Span { offset, len, target }| {
        let file = match target {
            Target::Pad => None,
            Target::File(path) => {
                files.push((path, len));
                Some(Backing { index: files.len() - 1, map: Mutex::default() })
            }
        };
        Placed { offset, len, file }
    };
    let placed = spans.into_iter().map(place).collect();
    (placed, files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::stop;

    #[test]
    fn past_the_limit_a_map_lives_only_as_long_as_its_leases() {
        let folder = tempfile::tempdir().unwrap();
        let geometry = Geometry::new(10, 5).unwrap();
        let plan = Plan::file(folder.path().join("f"), geometry);
        let (mut output, _) = Output::open(plan, Existing::Keep).unwrap();
        *Arc::get_mut(&mut output).unwrap().maps_kept.get_mut() = MAPS_KEPT_MAX;

        let mapped = || {
            let slot = output.spans[0].file.as_ref().unwrap().map.lock().unwrap();
            assert!(slot.kept.is_none());
            slot.current.upgrade().is_some()
        };
        let (first, second) = (geometry.piece(0).unwrap(), geometry.piece(1).unwrap());
        let mut one = output.lease(first).unwrap();
        let two = output.lease(second).unwrap();
        one.write(0, b"hello");
        drop(one);
        assert!(mapped());
        two.seal().unwrap();
        output.upkeep.sweep();
        assert!(!mapped());
        assert_eq!(output.lease(first).unwrap().segments()[0], b"hello");
    }

    #[test]
    fn where_a_map_cannot_be_had_pieces_are_written_unless_the_user_insists() {
        for (io, is_written) in [(Io::Auto, true), (Io::Mmap, false)] {
            let folder = tempfile::tempdir().unwrap();
            let geometry = Geometry::new(10, 5).unwrap();
            let path = folder.path().join("f");
            let (output, _) = Output::open(Plan::file(&path, geometry).with_io(io), Existing::Keep).unwrap();
            assert_eq!(output.io(), Io::Mmap);
            let (first, second) = (geometry.piece(0).unwrap(), geometry.piece(1).unwrap());
            let mut one = output.lease(first).unwrap();
            one.write(0, b"hello");
            let error = map_error("map", path.clone(), &io::Error::from_raw_os_error(libc::ENOMEM));
            assert_eq!(output.instead_of_maps(&error), is_written);
            assert_eq!(output.io() == Io::Pwrite, is_written);
            let mut two = output.lease(second).unwrap();
            two.write(0, b"world");
            two.seal().unwrap();
            one.seal().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"helloworld");
            assert!(output.lease(first).is_err());
        }
    }

    #[test]
    fn where_pages_are_dear_pieces_are_written_and_where_writes_are_dear_uncached() {
        for io in [Io::Auto, Io::Mmap] {
            let folder = tempfile::tempdir().unwrap();
            let geometry = Geometry::new(15, 5).unwrap();
            let path = folder.path().join("f");
            let (output, _) = Output::open(Plan::file(&path, geometry).with_io(io), Existing::Keep).unwrap();
            let lease = |index| output.lease(geometry.piece(index).unwrap()).unwrap();
            let fetch = |mut lease: PieceLease, data: &[u8; 5]| {
                lease.write(0, data);
                lease.seal().unwrap();
            };
            // A file of memory has no other place.
            let adapts = io == Io::Auto && !output.tree.is_in_memory();
            let mapped = lease(0);
            output.upkeep.price().paid(1 << 30, DEAR_PAGES * 2);
            let written = lease(1);
            assert_eq!(output.io(), if adapts { Io::Pwrite } else { Io::Mmap });
            fetch(mapped, b"hello");
            fetch(written, b", all");
            output.writes.paid(1 << 30, DEAR_WRITES * 2);
            output.avoid_dear_writes();
            fetch(lease(2), b" five");
            assert!(!adapts || output.io() == Io::Uncached);
            assert_eq!(std::fs::read(&path).unwrap(), b"hello, all five");
            assert!(
                !adapts
                    || output.doubtful().next().is_none()
                    || !output.watch.as_ref().unwrap().knows_processes()
            );
        }
    }

    #[test]
    fn many_files_or_many_in_a_piece_are_not_mapped() {
        for (count, len, piece_len, expected) in
            [(600, 10, 16_384, Io::Pwrite), (600, 16_384, 16_384, Io::Mmap), (500, 10, 16_384, Io::Mmap)]
        {
            let folder = tempfile::tempdir().unwrap();
            let geometry = Geometry::new(count * len, piece_len).unwrap();
            let files = (0..count).map(|n| (Target::File(n.to_string().into()), len));
            let plan = Plan::folder(folder.path().join("out"), geometry, files).unwrap();
            let (output, _) = Output::open(plan.clone(), Existing::Keep).unwrap();
            assert_eq!(output.io(), expected, "{count} files of {len} bytes");
            drop(output);
            let (output, _) = Output::open(plan.with_io(Io::Mmap), Existing::Keep).unwrap();
            assert_eq!(output.io(), Io::Mmap);
        }
    }

    #[test]
    fn a_wish_for_the_end_is_heeded_while_files_are_made_and_leaves_nothing() {
        for signal in [0, 2] {
            let folder = tempfile::tempdir().unwrap();
            let geometry = Geometry::new(20, 16).unwrap();
            let files = ["a/b", "c"].map(|name| (Target::File(name.into()), 10));
            let plan = Plan::folder(folder.path().join("out"), geometry, files).unwrap();
            let opened =
                stop::heeding(&Arc::new(AtomicUsize::new(signal)), || Output::open(plan, Existing::Keep));
            assert_eq!(opened.err(), (signal != 0).then_some(DiskError::Stopped));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), usize::from(signal == 0));
        }
    }

    #[test]
    fn leases_move_between_threads() {
        const fn is_send<T: Send>() {}
        const fn is_sync<T: Sync>() {}
        is_send::<PieceLease>();
        is_send::<Arc<Output>>();
        is_sync::<Output>();
    }
}
