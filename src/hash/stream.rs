//! The walk over a message in blocks of 64 bytes.
//!
//! Invariant of [`Stream`]: the blocks it has handed out, in order, are the padded message (FIPS 180-4, 5.1.1), each
//! byte once. Whole blocks inside a segment are read where they lie; only the blocks that straddle two segments and
//! the padded end are gathered in a small buffer.

use std::slice;

use super::message::Message;

/// What SHA-1 takes in at a time.
pub(super) type Block = [u8; BLOCK_LEN];

/// Bytes of a [`Block`].
const BLOCK_LEN: usize = 64;

/// Where the message's length in bits stands in its last block.
const LENGTH_AT: usize = BLOCK_LEN - 8;

/// A walk over the blocks of one padded message.
///
/// [`Stream::blocks`] shows the blocks that can be read next, [`Stream::advance`] says how many were; the walk is over
/// when there are none left.
pub(super) struct Stream<'m> {
    /// The segments behind `rest`.
    segments: slice::Iter<'m, &'m [u8]>,
    /// What is unread of the present segment.
    rest: &'m [u8],
    /// Bytes of the whole message.
    len: u64,
    /// The gathered block, or the last two.
    gathered: [Block; 2],
    /// How many blocks of `gathered`, from its end, are unread. While there are any they come before `rest`.
    gathered_left: usize,
    /// The end was gathered, nothing comes behind `gathered`.
    ended: bool,
}

impl<'m> Stream<'m> {
    /// The walk over a message, at its start.
    pub(super) fn new(message: &'m Message<'_>) -> Self {
        let mut stream = Self {
            segments: message.segments().iter(),
            rest: &[],
            len: message.len() as u64,
            gathered: [[0; BLOCK_LEN]; 2],
            gathered_left: 0,
            ended: false,
        };
        stream.prepare();
        stream
    }

    /// The next blocks that lie side by side; none when the message is over.
    pub(super) fn blocks(&self) -> &[Block] {
        if self.gathered_left > 0 {
            &self.gathered[self.gathered.len() - self.gathered_left..]
        } else if self.ended {
            &[]
        } else {
            self.rest.as_chunks().0
        }
    }

    /// Leaves the first `count` of [`Stream::blocks`] behind.
    pub(super) fn advance(&mut self, count: usize) {
        if self.gathered_left > 0 {
            self.gathered_left -= count;
        } else {
            self.rest = &self.rest[count * BLOCK_LEN..];
        }
        self.prepare();
    }

    /// Makes [`Stream::blocks`] non-empty unless the message is over.
    fn prepare(&mut self) {
        while !self.ended && self.gathered_left == 0 && self.rest.len() < BLOCK_LEN {
            if self.rest.is_empty()
                && let Some(segment) = self.segments.next()
            {
                self.rest = segment;
            } else {
                self.gather();
            }
        }
    }

    /// Copies the next block from as many segments as it lies in, or the end of the message with its padding.
    fn gather(&mut self) {
        let mut block = [0; BLOCK_LEN];
        let mut filled = 0;
        loop {
            let taken = self.rest.len().min(BLOCK_LEN - filled);
            block[filled..filled + taken].copy_from_slice(&self.rest[..taken]);
            self.rest = &self.rest[taken..];
            filled += taken;
            if filled == BLOCK_LEN {
                self.gathered[1] = block;
                self.gathered_left = 1;
                return;
            }
            match self.segments.next() {
                Some(segment) => self.rest = segment,
                None => return self.end(block, filled),
            }
        }
    }

    /// Gathers the last block or two: the last `filled` bytes of the message, the padding, the length.
    fn end(&mut self, mut block: Block, filled: usize) {
        block[filled] = 0x80;
        self.ended = true;
        self.gathered_left = 1;
        if filled >= LENGTH_AT {
            self.gathered[0] = block;
            self.gathered_left = 2;
            block = [0; BLOCK_LEN];
        }
        block[LENGTH_AT..].copy_from_slice(&(self.len * 8).to_be_bytes());
        self.gathered[1] = block;
    }
}
