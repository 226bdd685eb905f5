//! The bytes of a piece in private memory, on their way to files that are written instead of mapped.
//!
//! The memory is taken when the first bytes are aimed at it, for a peer is asked for many more pieces than arrive at a
//! time. Every block of the piece is in one of these states:
//!
//! ```text
//! away ──touched──▶ here, unsaved ──landed──▶ here, unsaved, landed ──saved──▶ away (in the files)
//!  └───────────────── loaded ─────────────▶ here (and in the files) ──touched──▶ here, unsaved
//! ```
//!
//! A piece is saved as a whole when it is sealed. Only when the drafts of all pieces together take too much memory
//! (`Pool::is_over`) a block that has landed is saved at once and its memory given up: it must be read back to be
//! hashed, which costs, but bounds what half-done pieces of slow peers can hold.
//!
//! Where there is no address space for a draft at all, its bytes go to the files as they come and none is ever here.
//!
//! A piece whose files hold bytes of others *waits*: nothing of it reaches them before it is sealed, for nothing would
//! bring back what it replaced. What would be saved before goes to a slot of the scratch file, and from there to the
//! files when the piece is sealed.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::blocks::{Blocks, Runs};
use super::pool::Buffer;
use super::scratch::Slot;
use super::{DiskError, Output, cause};
use crate::meta::geometry::BLOCK_LEN;

/// Bytes that are read back to have a piece in memory as a whole; with more away it is read bit by bit.
const LOAD_MAX: u32 = 4 << 20;
/// Bytes read at a time where a piece is read bit by bit.
const READ_LEN: usize = 256 << 10;

/// The draft of one piece.
pub(super) struct Draft {
    /// The first byte of the piece in the content.
    start: u64,
    size: u32,
    buffer: Option<Buffer>,
    /// The blocks whose bytes are in the buffer; those of all others are in the files, if anywhere.
    here: Blocks,
    /// The blocks whose bytes are only in the buffer.
    unsaved: Blocks,
    /// The blocks that were received as a whole.
    landed: Blocks,
    /// There was no memory when it was needed first: what is written goes to the files at once.
    is_direct: bool,
    /// Why bytes that were to go to the files at once are not there.
    lost: Option<DiskError>,
    /// Whether nothing may reach the files before the piece is sealed.
    waits: bool,
    slot: Option<Slot>,
    /// The blocks whose bytes are in the slot, and are to go to the files.
    aside: Blocks,
}

impl Draft {
    /// The draft of the piece of `size` bytes from `start` of the content, that `waits` where its files hold bytes of
    /// others.
    pub(super) fn new(start: u64, size: u32, waits: bool) -> Self {
        let none = Blocks::none(size.div_ceil(BLOCK_LEN));
        Self {
            start,
            size,
            buffer: None,
            here: none.clone(),
            unsaved: none.clone(),
            landed: none.clone(),
            is_direct: false,
            lost: None,
            waits,
            slot: None,
            aside: none,
        }
    }

    /// Copies `data` to the start of `range`, which is as long. Where there is no memory they are put away at once;
    /// should that fail, whoever wants to have the piece will hear of it.
    pub(super) fn write(&mut self, output: &Output, range: &Range<usize>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if let Some(buffer) = self.touch(output, range) {
            buffer.window.write(range.start, data);
        } else if let Err(error) = self.put_away(output, range.start, data) {
            self.lost.get_or_insert(error);
        }
    }

    /// The place of a range, for a system call to fill; `None` where there is no memory.
    pub(super) fn iovec(&mut self, output: &Output, range: &Range<usize>) -> Option<libc::iovec> {
        Some(self.touch(output, range)?.window.target(range.start, range.len()))
    }

    /// The bytes, if they are all here.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let buffer = self.buffer.as_ref().filter(|_| self.is_here(&(0..self.size as usize)))?;
        Some(&buffer.window.bytes()[..self.size as usize])
    }

    /// Copies a range to `out`, which is as long. Of a draft without memory it is what was put away, or nothing where
    /// that cannot be read: the digest will tell.
    ///
    /// # Panics
    /// When a block of the range is away.
    pub(super) fn copy(&self, output: &Output, range: &Range<usize>, out: &mut [u8]) {
        if !self.is_direct {
            self.copy_out(range, out);
        } else if let Err(error) = self.bring(output, range.start, out) {
            tracing::debug!("cannot read back what was written: {error}");
        }
    }

    fn copy_out(&self, range: &Range<usize>, out: &mut [u8]) {
        assert!(self.is_here(range), "bytes {range:?} of a piece are not in memory");
        if let Some(buffer) = &self.buffer {
            out.copy_from_slice(&buffer.window.bytes()[range.clone()]);
        }
    }

    /// Copies a range to `out`, which is as long, from the files where its blocks are away.
    pub(super) fn read(
        &self,
        output: &Output,
        range: &Range<usize>,
        out: &mut [u8],
    ) -> Result<(), DiskError> {
        self.check_lost()?;
        for (part, is_here) in self.stretches(range) {
            let out = &mut out[part.start - range.start..part.end - range.start];
            if is_here {
                self.copy_out(&part, out);
            } else {
                self.bring(output, part.start, out)?;
            }
        }
        Ok(())
    }

    /// Shows the whole piece to `see`, in order, as long as it wants more.
    pub(super) fn show(&self, output: &Output, mut see: impl FnMut(&[u8]) -> bool) -> Result<(), DiskError> {
        self.check_lost()?;
        let mut copy = Vec::new();
        for (part, is_here) in self.stretches(&(0..self.size as usize)) {
            if is_here && let Some(buffer) = &self.buffer {
                if !see(&buffer.window.bytes()[part]) {
                    return Ok(());
                }
                continue;
            }
            for at in part.clone().step_by(READ_LEN) {
                copy.resize(READ_LEN.min(part.end - at), 0);
                self.bring(output, at, &mut copy)?;
                if !see(&copy) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads back what is away; false, and nothing is done, where that would take too much memory.
    pub(super) fn load(&mut self, output: &Output) -> Result<bool, DiskError> {
        self.check_lost()?;
        let missing = self.away();
        if missing.is_empty() {
            return Ok(true);
        }
        let missing_len: usize = missing.iter().map(|run| self.bytes_of(run).len()).sum();
        if missing_len > LOAD_MAX as usize || output.pool.is_over() {
            return Ok(false);
        }
        let Some(mut buffer) = self.buffer.take().or_else(|| output.take_buffer()) else { return Ok(false) };
        let loaded = missing.iter().try_for_each(|run| {
            let bytes = self.bytes_of(run);
            run.clone().for_each(|block| output.pool.hold(&mut buffer, block));
            self.bring(output, bytes.start, &mut buffer.window.bytes_mut()[bytes])
        });
        self.buffer = Some(buffer);
        loaded?;
        missing.into_iter().for_each(|run| self.here.insert_run(run));
        Ok(true)
    }

    /// The blocks that lie in this range as a whole have been received.
    pub(super) fn landed(&mut self, output: &Output, range: &Range<usize>) {
        let Some(buffer) = &mut self.buffer else { return };
        let first = range.start.div_ceil(BLOCK_LEN as usize) as u32;
        let end = if range.end == self.size as usize {
            self.size.div_ceil(BLOCK_LEN)
        } else {
            range.end as u32 / BLOCK_LEN
        };
        for block in first..end {
            self.landed.insert(block);
            output.pool.hold(buffer, block);
        }
        if output.pool.is_over() {
            self.spill(output);
        }
    }

    /// What was written to the blocks of this range is of no use: its memory counts, and is given up under pressure.
    pub(super) fn spoiled(&mut self, output: &Output, range: &Range<usize>) {
        let Some(buffer) = &mut self.buffer else { return };
        let blocks = blocks_of(range);
        for block in blocks.clone() {
            output.pool.hold(buffer, block);
        }
        if output.pool.is_over() {
            let (landed, others) = (&self.landed, blocks.clone());
            output.pool.release(buffer, blocks, |block| landed.contains(block) || !others.contains(&block));
        }
    }

    /// Nobody writes the piece for now: gives up what has not landed, and under pressure also saves what has.
    pub(super) fn park(&mut self, output: &Output) {
        let Some(buffer) = &mut self.buffer else { return };
        for run in self.here.runs_outside(&self.landed) {
            self.here.remove_run(run.clone());
            self.unsaved.remove_run(run.clone());
            // What was aimed at may have memory though nothing landed.
            run.for_each(|block| output.pool.hold(buffer, block));
        }
        output.pool.trim(buffer, &self.here);
        if output.pool.is_over() {
            self.spill(output);
        }
    }

    /// Saves all blocks: the piece is verified.
    pub(super) fn save(&mut self, output: &Output) -> Result<(), DiskError> {
        self.check_lost()?;
        let mut copy = Vec::new();
        for bytes in self.aside.runs().iter().map(|run| self.bytes_of(run)) {
            for at in bytes.clone().step_by(READ_LEN) {
                copy.resize(READ_LEN.min(bytes.end - at), 0);
                self.bring(output, at, &mut copy)?;
                output.write_last(self.start + at as u64, &copy)?;
            }
        }
        let Some(buffer) = &self.buffer else { return Ok(()) };
        for run in self.unsaved.runs() {
            let bytes = self.bytes_of(&run);
            output.write_last(self.start + bytes.start as u64, &buffer.window.bytes()[bytes])?;
            self.unsaved.remove_run(run);
        }
        Ok(())
    }

    /// Gives back the memory, and what else it has taken.
    pub(super) fn end(&mut self, output: &Output) {
        if let Some(slot) = self.slot.take() {
            output.scratch.give(slot);
        }
        if let Some(mut buffer) = self.buffer.take() {
            for block in self.here.runs().into_iter().flatten() {
                output.pool.hold(&mut buffer, block);
            }
            output.pool.give(buffer);
        }
    }

    /// Puts away what has landed and gives up its memory. What cannot be put away stays, and [`Draft::save`] will tell.
    fn spill(&mut self, output: &Output) {
        let Some(mut buffer) = self.buffer.take() else { return };
        for run in self.unsaved.runs_in(&self.landed) {
            let bytes = self.bytes_of(&run);
            let (at, bytes) = (bytes.start, &buffer.window.bytes()[bytes]);
            // Pad bytes are in no file, and read back as zeroes.
            if !self.waits && !output.pads_are_zeroes(self.start + at as u64, bytes) {
                continue;
            }
            if let Err(err) = self.put_away(output, at, bytes) {
                tracing::debug!("cannot make room in memory: {err}");
                break;
            }
            self.unsaved.remove_run(run.clone());
            self.here.remove_run(run);
        }
        output.pool.trim(&mut buffer, &self.here);
        self.buffer = Some(buffer);
    }

    /// Writes bytes of the piece, from its byte `at` on, to where they may be before it is verified.
    fn put_away(&mut self, output: &Output, at: usize, data: &[u8]) -> Result<(), DiskError> {
        if !self.waits {
            return output.write(self.start + at as u64, data);
        }
        let error = |err| DiskError::new("keep what came for", output.tree.root(), &err);
        let slot = match &mut self.slot {
            Some(slot) => slot,
            none => none.insert(output.scratch.take(|| output.tree.make_scratch()).map_err(error)?),
        };
        slot.write(at, data).map_err(|err| of_scratch(slot, output.tree.root(), data.len(), &err))?;
        self.aside.insert_run(blocks_of(&(at..at + data.len())));
        Ok(())
    }

    /// Fills `out` with bytes of the piece that are away, from its byte `at` on.
    fn bring(&self, output: &Output, at: usize, out: &mut [u8]) -> Result<(), DiskError> {
        let Some(slot) = &self.slot else { return output.read(self.start + at as u64, out) };
        for (part, is_aside) in parts_in(&self.aside, &(at..at + out.len())) {
            let out = &mut out[part.start - at..part.end - at];
            if is_aside {
                slot.read(part.start, out)
                    .map_err(|err| DiskError::new("read what came for", output.tree.root(), &err))?;
            } else {
                output.read(self.start + part.start as u64, out)?;
            }
        }
        Ok(())
    }

    /// The buffer, about to be changed in this range.
    fn touch(&mut self, output: &Output, range: &Range<usize>) -> Option<&mut Buffer> {
        if self.buffer.is_none() && !self.is_direct {
            self.buffer = output.take_buffer();
            // Not even later: blocks that are half in memory and half in the files would be neither.
            self.is_direct = self.buffer.is_none();
        }
        if self.is_direct {
            return None;
        }
        for block in blocks_of(range) {
            let is_new = self.here.insert(block);
            debug_assert!(!is_new || !self.landed.contains(block), "block {block} had landed and was saved");
            self.unsaved.insert(block);
        }
        self.buffer.as_mut()
    }

    fn check_lost(&self) -> Result<(), DiskError> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    fn is_here(&self, range: &Range<usize>) -> bool {
        blocks_of(range).all(|block| self.here.contains(block))
    }

    /// The blocks that are not here.
    fn away(&self) -> Runs {
        let mut away = Runs::new();
        let mut end = 0;
        for run in self.here.runs() {
            if run.start > end {
                away.push(end..run.start);
            }
            end = run.end;
        }
        let count = self.size.div_ceil(BLOCK_LEN);
        if end < count {
            away.push(end..count);
        }
        away
    }

    /// A range in parts that are here or away.
    fn stretches(&self, range: &Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> {
        parts_in(&self.here, range)
    }

    fn bytes_of(&self, blocks: &Range<u32>) -> Range<usize> {
        let end = (blocks.end as usize * BLOCK_LEN as usize).min(self.size as usize);
        blocks.start as usize * BLOCK_LEN as usize..end
    }
}

/// The blocks that have bytes in a range.
fn blocks_of(range: &Range<usize>) -> Range<u32> {
    range.start as u32 / BLOCK_LEN..(range.end as u32).div_ceil(BLOCK_LEN)
}

/// A range of a piece in parts whose blocks are in the set or not; whether they are.
fn parts_in(set: &Blocks, range: &Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> {
    let end = range.end;
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let start = at;
        let is_in = set.contains(start as u32 / BLOCK_LEN);
        while at < end && set.contains(at as u32 / BLOCK_LEN) == is_in {
            at = (at / BLOCK_LEN as usize * BLOCK_LEN as usize + BLOCK_LEN as usize).min(end);
        }
        Some((start..at, is_in))
    })
}

/// What it means that bytes could not be written to the scratch of the output at `root`.
fn of_scratch(slot: &Slot, root: &Path, len: usize, err: &io::Error) -> DiskError {
    cause::of_write("keep what came for", root, slot.file(), len as u64, err)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Existing, Io, PieceLease, Plan, Site, Target, Verdict};
    use crate::meta::geometry::{Geometry, PieceIndex};

    #[test]
    fn without_memory_the_bytes_go_to_the_files_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let geometry = Geometry::new(100_000, 50_000).unwrap();
        let files =
            [(Target::File("a".into()), 20_000), (Target::Pad, 10_000), (Target::File("b".into()), 70_000)];
        let plan = Plan::folder(folder.path().join("out"), geometry, files).unwrap();
        let (mut output, _) = Output::open(plan.with_io(Io::Pwrite), Existing::Keep).unwrap();
        Arc::get_mut(&mut output).unwrap().pool.buffers_max = 0;
        let mut content: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        content[20_000..30_000].fill(0);
        let mut lease = output.lease(geometry.piece(0).unwrap()).unwrap();
        assert!(!lease.iovecs(0, 16_384, &mut |_| {}), "the kernel has nowhere to write");
        for (at, part) in content.chunks(7_000).enumerate() {
            lease.write(at as u32 * 7_000, part);
        }
        lease.landed(0, 50_000);
        let mut copy = vec![0; 40_000];
        lease.copy_out(5_000, &mut copy);
        assert!(copy == content[5_000..45_000]);
        assert_eq!(lease.load(), Ok(false));
        let mut shown = Vec::new();
        lease
            .show(|bytes| {
                shown.extend_from_slice(bytes);
                true
            })
            .unwrap();
        assert!(shown == content);
        lease.seal().unwrap();
        assert!(fs::read(folder.path().join("out/a")).unwrap() == content[..20_000]);
        assert!(fs::read(folder.path().join("out/b")).unwrap()[..20_000] == content[30_000..]);
    }

    /// One step of the comparison with the naive content.
    #[derive(Clone, Debug)]
    enum Step {
        /// A block is received: into the places given to the kernel, or copied in two halves.
        Receive { piece: u32, block: u32, by_kernel: bool },
        /// A block is received in part, and so are bytes that are not its own.
        Begin { piece: u32, block: u32 },
        /// What came to the place of a block was another.
        Spoil { piece: u32, block: u32 },
        /// The peer goes away.
        Park { piece: u32 },
        /// The piece is looked at in every way.
        Look { piece: u32 },
        /// The lease is given back.
        Drop { piece: u32 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let place = || (any::<u32>(), any::<u32>());
        let step = prop_oneof![
            12 => (place(), any::<bool>())
                .prop_map(|((piece, block), by_kernel)| Step::Receive { piece, block, by_kernel }),
            3 => place().prop_map(|(piece, block)| Step::Begin { piece, block }),
            3 => place().prop_map(|(piece, block)| Step::Spoil { piece, block }),
            1 => any::<u32>().prop_map(|piece| Step::Park { piece }),
            2 => any::<u32>().prop_map(|piece| Step::Look { piece }),
            1 => any::<u32>().prop_map(|piece| Step::Drop { piece }),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// A leased piece as it is used: which of its blocks are there.
    struct Fetch {
        lease: PieceLease,
        have: Vec<bool>,
    }

    impl Fetch {
        /// Receives a block of `content`, which is that of the piece.
        fn receive(&mut self, block: usize, content: &[u8], by_kernel: bool) {
            let range = range_of(block, content.len());
            let data = &content[range.clone()];
            if by_kernel {
                let mut places = Vec::new();
                let push = &mut |place| places.push(place);
                assert!(self.lease.iovecs(range.start as u32, data.len() as u32, push));
                assert_eq!(places.len(), 1);
                fill(&places[0], data);
            } else {
                let (one, two) = data.split_at(data.len() / 2);
                self.lease.write(range.start as u32, one);
                self.lease.write((range.start + one.len()) as u32, two);
            }
            let mut out = vec![0; data.len()];
            self.lease.copy_out(range.start as u32, &mut out);
            assert_eq!(out, data);
            self.have[block] = true;
            self.lease.landed(range.start as u32, data.len() as u32);
        }

        /// What is there is right, wherever it is.
        fn look(&mut self, content: &[u8]) {
            let mut shown = Vec::new();
            self.lease
                .show(|bytes| {
                    shown.extend_from_slice(bytes);
                    true
                })
                .unwrap();
            assert_eq!(shown.len(), content.len());
            let loaded = self.lease.load().unwrap().then(|| self.lease.segments().concat());
            for block in (0..self.have.len()).filter(|&block| self.have[block]) {
                let range = range_of(block, content.len());
                let mut read = vec![0; range.len()];
                self.lease.read(range.start as u32, &mut read).unwrap();
                assert_eq!(read, content[range.clone()]);
                assert_eq!(shown[range.clone()], content[range.clone()]);
                assert!(loaded.as_ref().is_none_or(|loaded| loaded[range.clone()] == content[range]));
            }
        }
    }

    fn range_of(block: usize, size: usize) -> Range<usize> {
        let start = block * BLOCK_LEN as usize;
        start..(start + BLOCK_LEN as usize).min(size)
    }

    /// Does what the kernel does.
    #[expect(unsafe_code, reason = "stands for the kernel")]
    fn fill(place: &libc::iovec, data: &[u8]) {
        assert_eq!(place.iov_len, data.len());
        // SAFETY: the lease that gave the place is borrowed by nobody meanwhile and lives on.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), place.iov_base.cast(), data.len()) }
    }

    fn open(plan: Plan, memory_max: usize) -> Arc<Output> {
        let (mut output, _) = Output::open(plan.with_io(Io::Pwrite), Existing::Keep).unwrap();
        Arc::get_mut(&mut output).unwrap().pool.memory_max = memory_max;
        output
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Files, pads and pieces of any lengths, blocks in any order, memory for none, some or all of them: what was
        /// received is there at every step, and in the files once the pieces are sealed.
        #[test]
        fn any_order_of_blocks_agrees_with_a_vector(
            lens in proptest::collection::vec((prop_oneof![0u64..100, 0u64..90_000], any::<bool>()), 1..8),
            piece_len in prop_oneof![1u32..200_000, Just(65_536)],
            blocks_in_memory in prop_oneof![Just(0), 1usize..6, Just(1_000)],
            steps in steps(),
        ) {
            let total_len: u64 = lens.iter().map(|(len, _)| len).sum();
            prop_assume!(total_len > 0 && total_len / u64::from(piece_len) < 3_000);
            let geometry = Geometry::new(total_len, piece_len).unwrap();
            let targets: Vec<_> = lens.iter().enumerate().map(|(index, &(len, is_pad))| {
                let target = if is_pad { Target::Pad } else { Target::File(format!("d/{index}").into()) };
                (target, len)
            }).collect();
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("out");
            let plan = Plan::folder(&root, geometry, targets.clone()).unwrap();
            let output = open(plan, blocks_in_memory * BLOCK_LEN as usize);

            let mut content: Vec<u8> = (0..total_len).map(|at| (at * 7 + at / 251) as u8 | 1).collect();
            let mut start = 0;
            for (target, len) in &targets {
                let end = start + *len as usize;
                // Some torrents have pad bytes that are not zero.
                if *target == Target::Pad && len % 3 > 0 {
                    content[start..end].fill(0);
                }
                start = end;
            }
            let of = |piece: PieceIndex| {
                let start = geometry.piece_offset(piece) as usize;
                start..start + geometry.piece_size(piece) as usize
            };
            let mut fetches: Vec<Option<Fetch>> = Vec::new();
            fetches.resize_with(geometry.piece_count() as usize, || None);
            let begin = |piece: PieceIndex| Fetch {
                lease: output.lease(piece).unwrap(),
                have: vec![false; geometry.block_count(piece) as usize],
            };

            for step in steps {
                let (Step::Receive { piece, .. } | Step::Begin { piece, .. } | Step::Spoil { piece, .. } | Step::Park { piece }
                    | Step::Look { piece } | Step::Drop { piece }) = step;
                let piece = geometry.piece(piece % geometry.piece_count()).unwrap();
                let content = &content[of(piece)];
                let fetch = fetches[piece.at()].get_or_insert_with(|| begin(piece));
                match step {
                    Step::Receive { block, by_kernel, .. } => {
                        let block = block as usize % fetch.have.len();
                        if !fetch.have[block] {
                            fetch.receive(block, content, by_kernel);
                        }
                    }
                    Step::Begin { block, .. } => {
                        let block = block as usize % fetch.have.len();
                        if !fetch.have[block] {
                            fetch.lease.write(block as u32 * BLOCK_LEN, &[0xEE; 1]);
                        }
                    }
                    Step::Spoil { block, .. } => {
                        let block = block as usize % fetch.have.len();
                        if !fetch.have[block] {
                            let (begin, len) = (block as u32 * BLOCK_LEN, range_of(block, content.len()).len());
                            fetch.lease.write(begin, &vec![0xEE; len]);
                            fetch.lease.spoiled(begin, len as u32);
                        }
                    }
                    Step::Park { .. } => fetch.lease.park(),
                    Step::Look { .. } => fetch.look(content),
                    Step::Drop { .. } => fetches[piece.at()] = None,
                }
            }
            for piece in geometry.pieces() {
                let content = &content[of(piece)];
                let mut fetch = fetches[piece.at()].take().unwrap_or_else(|| begin(piece));
                for block in 0..fetch.have.len() {
                    if !fetch.have[block] {
                        fetch.receive(block, content, block % 2 == 0);
                    }
                }
                fetch.look(content);
                fetch.lease.seal().unwrap();
            }
            output.finish(false).unwrap();
            let mut start = 0;
            for (target, len) in &targets {
                let end = start + *len as usize;
                if let Target::File(path) = target {
                    prop_assert_eq!(&fs::read(root.join(path)).unwrap(), &content[start..end]);
                }
                start = end;
            }
        }
    }

    #[test]
    fn what_landed_is_written_at_once_only_where_memory_is_short() {
        const SIZE: u32 = 64 * BLOCK_LEN;
        let temp = tempfile::tempdir().unwrap();
        let geometry = Geometry::new(u64::from(SIZE), SIZE).unwrap();
        let piece = geometry.piece(0).unwrap();
        for (memory_max, written) in [(SIZE, 0), (0, 7)] {
            let path = temp.path().join(format!("{memory_max}"));
            let output = open(Plan::file(&path, geometry), memory_max as usize);
            let mut lease = output.lease(piece).unwrap();
            lease.write(BLOCK_LEN, &[7; BLOCK_LEN as usize]);
            assert_eq!(fs::read(&path).unwrap()[BLOCK_LEN as usize], 0, "not landed");
            lease.landed(BLOCK_LEN, BLOCK_LEN);
            assert_eq!(fs::read(&path).unwrap()[BLOCK_LEN as usize], written);
            drop(lease);
            assert_eq!(fs::read(&path).unwrap()[BLOCK_LEN as usize], written);
        }
    }

    /// An output whose only file is somebody else's, with nothing for memory, or not even address space.
    fn foreign(path: &Path, size: u32, buffers_max: usize) -> Arc<Output> {
        let geometry = Geometry::new(u64::from(size), size).unwrap();
        let plan = Plan::file(path, geometry).with_io(Io::Mmap);
        let site = Site::find(plan, Existing::Overwrite, None).unwrap();
        let mut output = site.make(&[Verdict::Foreign]).unwrap();
        let pool = &mut Arc::get_mut(&mut output).unwrap().pool;
        (pool.memory_max, pool.buffers_max) = (0, buffers_max);
        output
    }

    #[test]
    fn what_is_not_verified_replaces_nothing_of_others_however_short_memory_is() {
        const SIZE: u32 = 64 * BLOCK_LEN + 5;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        let theirs: Vec<u8> = (0..SIZE + 100).map(|at| (at % 249) as u8).collect();
        let content: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        for buffers_max in [usize::MAX, 0] {
            fs::write(&path, &theirs).unwrap();
            let output = foreign(&path, SIZE, buffers_max);
            assert_eq!(output.io(), Io::Pwrite, "a map would take what comes at once");
            for is_right in [false, true] {
                let mut lease = output.lease(output.geometry.piece(0).unwrap()).unwrap();
                for (block, bytes) in content.chunks(BLOCK_LEN as usize).enumerate() {
                    let begin = block as u32 * BLOCK_LEN;
                    lease.write(begin, bytes);
                    lease.landed(begin, bytes.len() as u32);
                    if block % 9 == 0 {
                        lease.park();
                    }
                }
                let mut shown = Vec::new();
                lease
                    .show(|bytes| {
                        shown.extend_from_slice(bytes);
                        true
                    })
                    .unwrap();
                assert!(shown == content, "it is somewhere");
                assert!(fs::read(&path).unwrap() == theirs, "and not there");
                assert!(output.memory_in_use() <= 2 * BLOCK_LEN as usize);
                match is_right {
                    true => lease.seal().unwrap(),
                    false => drop(lease),
                }
            }
            assert!(fs::read(&path).unwrap() == content);
            assert_eq!(temp.path().read_dir().unwrap().count(), 1, "the scratch has no name");
        }
    }

    #[test]
    fn a_parked_piece_keeps_what_landed_and_nothing_else() {
        const SIZE: u32 = 64 * BLOCK_LEN;
        let temp = tempfile::tempdir().unwrap();
        let geometry = Geometry::new(u64::from(SIZE), SIZE).unwrap();
        let output = open(Plan::file(temp.path().join("f"), geometry), SIZE as usize);
        let mut lease = output.lease(geometry.piece(0).unwrap()).unwrap();
        lease.write(0, &[7; SIZE as usize]);
        lease.landed(5 * BLOCK_LEN, 2 * BLOCK_LEN);
        lease.park();
        assert!(lease.load().unwrap(), "what is not here is taken from the file");
        let expected = |at| if (5..7).contains(&(at as u32 / BLOCK_LEN)) { 7 } else { 0 };
        assert!(lease.segments()[0].iter().enumerate().all(|(at, &byte)| byte == expected(at)));
    }

    #[test]
    fn too_much_is_not_loaded_but_shown() {
        let size = LOAD_MAX + 5;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let geometry = Geometry::new(u64::from(size), size).unwrap();
        let output = open(Plan::file(&path, geometry), usize::MAX);
        let mut lease = output.lease(geometry.piece(0).unwrap()).unwrap();
        assert_eq!(lease.load(), Ok(false));
        let mut shown = Vec::new();
        lease
            .show(|bytes| {
                assert!(bytes.len() <= READ_LEN);
                shown.extend_from_slice(bytes);
                true
            })
            .unwrap();
        assert!(shown == content);
        assert_eq!(lease.is_zeroes(), Ok(false));
    }

    #[test]
    fn a_short_last_piece_may_use_the_buffer_of_a_long_one() {
        const PIECE_LEN: u32 = 128 * BLOCK_LEN;
        let temp = tempfile::tempdir().unwrap();
        let geometry = Geometry::new(u64::from(PIECE_LEN + BLOCK_LEN), PIECE_LEN).unwrap();
        let output = open(Plan::file(temp.path().join("f"), geometry), 1 << 30);
        let [long, short] = [0, 1].map(|index| geometry.piece(index).unwrap());
        let mut lease = output.lease(long).unwrap();
        lease.write(0, &vec![1; PIECE_LEN as usize]);
        lease.seal().unwrap();
        let mut lease = output.lease(short).unwrap();
        lease.write(0, &vec![2; BLOCK_LEN as usize]);
        lease.landed(0, BLOCK_LEN);
        lease.park();
        assert!(lease.load().unwrap());
        lease.seal().unwrap();
        let expected = [vec![1; PIECE_LEN as usize], vec![2; BLOCK_LEN as usize]].concat();
        assert!(fs::read(temp.path().join("f")).unwrap() == expected);
    }
}
