//! Memory for pieces that are not written yet: warm, and no more of it than allowed.
//!
//! A [`Buffer`] is address space for one piece. What it costs is the memory behind its blocks, so that is what is
//! counted, block by block ([`Pool::hold`], [`Pool::release`]). A buffer that comes back is the first to be given out
//! again: its pages are there, and likely still in the processor's caches.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blocks::Blocks;
use super::map::Window;
use super::sys;
use crate::meta::geometry::BLOCK_LEN;
use crate::os::limits;

/// Bytes of memory behind all buffers. With more in use, what has landed is not kept in memory. Enough for full batches
/// of pieces of the usual size to be received and hashed at the same time, and for a hundred half-done ones.
const MEMORY_MAX: usize = 32 << 20;

/// Which part of the address space that is left the buffers may take, where it is limited.
const ADDRESS_SPACE_SHARE: u64 = 2;

/// The buffers of one output.
pub(super) struct Pool {
    /// Bytes of a buffer: those of a whole piece.
    buffer_len: u32,
    /// Buffers that wait to be used again. The one that came back last is last.
    free: Mutex<VecDeque<Buffer>>,
    /// Bytes of memory behind those that wait. Changed with `free` locked.
    waiting: AtomicUsize,
    /// Bytes of memory behind the others.
    in_use: AtomicUsize,
    /// Both together are not to be more.
    pub(super) memory_max: usize,
    /// Buffers that there are, and how many there may be for their address space.
    buffers: Arc<AtomicUsize>,
    pub(super) buffers_max: usize,
}

/// Private memory for a piece.
pub(super) struct Buffer {
    pub(super) window: Window,
    /// The blocks that are counted: there is, or may be, memory behind them.
    held: Blocks,
    /// Counts it for as long as it lives.
    _place: Place,
}

/// The place of a buffer among those that there may be.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool of buffers of this length.
    pub(super) fn new(buffer_len: u32) -> Self {
        let left = limits::address_space().map(|left| left / ADDRESS_SPACE_SHARE);
        let buffers_max = left.map_or(usize::MAX, |left| (left / u64::from(buffer_len.max(1))) as usize);
        Self {
            buffer_len,
            free: Mutex::default(),
            waiting: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
            memory_max: MEMORY_MAX,
            buffers: Arc::default(),
            buffers_max,
        }
    }

    /// Whether more is in use than should be.
    pub(super) fn is_over(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) > self.memory_max
    }

    /// Whether so much is in use that what is complete should not wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) > self.memory_max / 4 * 3
    }

    /// Bytes of memory behind the buffers that are used.
    pub(super) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// A buffer with any bytes in it.
    ///
    /// # Errors
    /// Where the process may have no more address space.
    pub(super) fn take(&self) -> io::Result<Buffer> {
        let buffer = match self.pop(VecDeque::pop_back) {
            Some(warm) => warm,
            None => self.make()?,
        };
        self.in_use.fetch_add(self.cost(&buffer), Ordering::Relaxed);
        Ok(buffer)
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: Buffer) {
        let cost = self.cost(&buffer);
        self.in_use.fetch_sub(cost, Ordering::Relaxed);
        if cost > 0 {
            let mut free = self.free();
            free.push_back(buffer);
            self.waiting.fetch_add(cost, Ordering::Relaxed);
            drop(free);
            self.shrink();
        }
    }

    /// Gives up the buffers that have waited longest, as long as there is too much memory.
    fn shrink(&self) {
        let excess = || {
            let all = self.in_use.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed);
            all > self.memory_max
        };
        while excess()
            // Its memory goes back to the system without the lock.
            && let Some(coldest) = self.pop(VecDeque::pop_front)
        {
            drop(coldest);
        }
    }

    /// Counts the memory behind a block.
    pub(super) fn hold(&self, buffer: &mut Buffer, block: u32) {
        if buffer.held.insert(block) {
            self.in_use.fetch_add(self.block_len(), Ordering::Relaxed);
            if self.waiting.load(Ordering::Relaxed) > 0 {
                self.shrink();
            }
        }
    }

    /// Gives up the memory behind these blocks, of which none is needed; they may share a page with one that
    /// `is_needed`.
    pub(super) fn release(&self, buffer: &mut Buffer, blocks: Range<u32>, is_needed: impl Fn(u32) -> bool) {
        let count = self.buffer_len.div_ceil(BLOCK_LEN);
        // Pages are smaller than blocks nearly everywhere.
        let page_blocks = (sys::page_len() as u32 / BLOCK_LEN).max(1);
        let mut first = blocks.start / page_blocks * page_blocks;
        while first < blocks.end {
            let end = (first + page_blocks).min(count);
            if !(first..end).any(&is_needed) {
                let start = first as usize * BLOCK_LEN as usize;
                let len = (end - first) as usize * BLOCK_LEN as usize;
                buffer.window.release(start, len.min(buffer.window.len() - start));
                let released = (first..end).filter(|&block| buffer.held.remove(block)).count();
                self.in_use.fetch_sub(released * self.block_len(), Ordering::Relaxed);
            }
            first = end;
        }
    }

    /// Gives up the memory of all blocks that are not needed.
    pub(super) fn trim(&self, buffer: &mut Buffer, needed: &Blocks) {
        for run in buffer.held.runs_outside(needed) {
            self.release(buffer, run, |block| needed.contains(block));
        }
    }

    fn free(&self) -> MutexGuard<'_, VecDeque<Buffer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self, end: impl FnOnce(&mut VecDeque<Buffer>) -> Option<Buffer>) -> Option<Buffer> {
        let mut free = self.free();
        let buffer = end(&mut free)?;
        self.waiting.fetch_sub(self.cost(&buffer), Ordering::Relaxed);
        Some(buffer)
    }

    fn make(&self) -> io::Result<Buffer> {
        let count = self.buffers.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.buffers));
        if count >= self.buffers_max {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let window = Window::private(self.buffer_len)?;
        let held = Blocks::none(self.buffer_len.div_ceil(BLOCK_LEN));
        Ok(Buffer { window, held, _place: place })
    }

    /// Bytes of memory behind a buffer.
    fn cost(&self, buffer: &Buffer) -> usize {
        buffer.held.count() as usize * self.block_len()
    }

    /// Bytes of memory behind a block, or behind the only one of a small piece.
    fn block_len(&self) -> usize {
        (self.buffer_len as usize).next_multiple_of(sys::page_len()).min(BLOCK_LEN as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_LEN as usize;

    fn in_use(pool: &Pool) -> usize {
        pool.in_use.load(Ordering::Relaxed)
    }

    fn full(pool: &Pool) -> Buffer {
        let mut buffer = pool.take().unwrap();
        for block in 0..pool.buffer_len.div_ceil(BLOCK_LEN) {
            pool.hold(&mut buffer, block);
        }
        buffer
    }

    #[test]
    fn the_last_that_came_back_is_the_first_to_go_and_the_oldest_are_given_up() {
        let mut pool = Pool::new(4 << 20);
        pool.memory_max = 16 << 20;
        let mut buffers: Vec<_> = (0..6).map(|_| full(&pool)).collect();
        assert_eq!((in_use(&pool), pool.is_over()), (6 * (4 << 20), true));
        for (mark, buffer) in buffers.iter_mut().enumerate() {
            buffer.window.write(0, &[mark as u8 + 1]);
        }
        for buffer in buffers {
            pool.give(buffer);
        }
        assert_eq!((in_use(&pool), pool.is_over()), (0, false));
        let marks = (0..6).map(|_| pool.take().unwrap()).map(|buffer| buffer.window.bytes()[0]);
        assert_eq!(marks.collect::<Vec<_>>(), [6, 5, 4, 3, 0, 0]);
    }

    #[test]
    fn only_the_memory_behind_blocks_counts() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take().unwrap();
        assert_eq!(in_use(&pool), 0);
        for block in [3, 3, 4, 9, 63] {
            pool.hold(&mut buffer, block);
            buffer.window.write(block as usize * BLOCK, &[1; BLOCK]);
        }
        assert_eq!(in_use(&pool), 4 * BLOCK);
        let mut needed = Blocks::none(64);
        needed.insert(9);
        pool.trim(&mut buffer, &needed);
        if sys::page_len() <= BLOCK {
            assert_eq!(in_use(&pool), BLOCK);
            assert_eq!(buffer.window.bytes()[63 * BLOCK..], [0; BLOCK], "the memory is gone");
        }
        assert_eq!(buffer.window.bytes()[9 * BLOCK..][..BLOCK], [1; BLOCK]);
        pool.give(buffer);
        assert_eq!(in_use(&pool), 0);
    }

    #[test]
    fn what_waits_makes_room_for_what_is_in_use() {
        let mut pool = Pool::new(1 << 20);
        pool.memory_max = 2 << 20;
        let (one, two) = (full(&pool), full(&pool));
        pool.give(one);
        let mut three = pool.make().unwrap();
        assert_eq!(pool.free().len(), 1);
        pool.hold(&mut three, 5);
        assert_eq!(pool.free().len(), 0);
        assert!(!pool.is_over());
        pool.give(two);
        pool.give(three);
        assert_eq!((pool.free().len(), in_use(&pool)), (2, 0));
        assert_eq!(pool.waiting.load(Ordering::Relaxed), (1 << 20) + BLOCK);
    }

    #[test]
    fn a_buffer_larger_than_what_is_kept_is_given_up() {
        let mut pool = Pool::new(32 << 20);
        pool.memory_max = 16 << 20;
        pool.give(full(&pool));
        assert_eq!(pool.free().len(), 0);
    }

    #[test]
    fn there_are_no_more_buffers_than_there_is_address_space_for() {
        let mut pool = Pool::new(1 << 20);
        pool.buffers_max = 2;
        let (one, mut two) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_err());
        pool.hold(&mut two, 0);
        pool.give(two);
        assert_eq!(pool.free().len(), 1, "it keeps its place");
        let _two = pool.take().unwrap();
        assert!(pool.take().is_err());
        drop(one);
        assert!(pool.take().is_ok());
    }

    #[test]
    fn a_tiny_piece_costs_a_page() {
        let pool = Pool::new(1);
        let _buffer = full(&pool);
        assert_eq!(in_use(&pool), sys::page_len().min(BLOCK));
    }
}
