//! The bytes of a piece in mapped files: one [`Window`] for each file it lies in.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::map::{Map, Window};

/// The windows on a piece, in order and without gap.
#[derive(Default)]
pub(super) struct Parts(SmallVec<[Part; 1]>);

/// The part of a piece that lies in one file or pad.
struct Part {
    /// Its first byte, counted from the start of the piece.
    begin: usize,
    window: Window,
}

impl Part {
    fn end(&self) -> usize {
        self.begin + self.window.len()
    }

    fn meets(&self, range: &Range<usize>) -> bool {
        self.begin < range.end && range.start < self.end()
    }

    /// What this part has of the piece's `range`, which it meets: counted from the start of the part.
    fn clip(&self, range: &Range<usize>) -> Range<usize> {
        range.start.max(self.begin) - self.begin..range.end.min(self.end()) - self.begin
    }
}

impl Parts {
    /// Adds the window on the next bytes of the piece.
    pub(super) fn add(&mut self, window: Window) {
        self.0.push(Part { begin: self.filled() as usize, window });
    }

    /// How many bytes of the piece have a window.
    pub(super) fn filled(&self) -> u32 {
        // At most the size of the piece.
        self.0.last().map_or(0, Part::end) as u32
    }

    /// Copies `data` to the start of `range`, which is as long.
    pub(super) fn write(&mut self, range: &Range<usize>, mut data: &[u8]) {
        for part in self.meeting_mut(range) {
            let inside = part.clip(range);
            let (now, later) = data.split_at(inside.len());
            part.window.write(inside.start, now);
            data = later;
        }
    }

    /// The places of a range, for a system call to fill.
    pub(super) fn iovecs(&mut self, range: &Range<usize>, push: &mut impl FnMut(libc::iovec)) {
        for part in self.meeting_mut(range) {
            let inside = part.clip(range);
            push(part.window.target(inside.start, inside.len()));
        }
    }

    /// All bytes, in one slice a part.
    pub(super) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|part| part.window.bytes())
    }

    /// Copies a range to `out`, which is as long.
    pub(super) fn copy_out(&self, range: &Range<usize>, mut out: &mut [u8]) {
        let parts = self.0[self.first_meeting(range)..].iter();
        for part in parts.take_while(|part| part.meets(range)) {
            let inside = part.clip(range);
            let (now, later) = mem::take(&mut out).split_at_mut(inside.len());
            now.copy_from_slice(&part.window.bytes()[inside]);
            out = later;
        }
    }

    /// The mapped files it lies in, and where.
    pub(super) fn places(&self) -> impl Iterator<Item = (&Arc<Map>, Range<usize>)> {
        self.0.iter().filter_map(|part| part.window.place())
    }

    /// The first damaged file among them, by its index, and where it is damaged: see [`Map::damage`].
    pub(super) fn damage(&self) -> Option<(usize, u64)> {
        self.places().find_map(|(map, _)| Some((map.file_index()?, map.damage()? as u64)))
    }

    /// The first place of a range that cannot be written: the index of its file and where in it.
    pub(super) fn first_unwritable(&self, range: &Range<usize>) -> Option<(usize, u64)> {
        let parts = self.0[self.first_meeting(range)..].iter();
        parts.take_while(|part| part.meets(range)).find_map(|part| {
            let (map, place) = part.window.place()?;
            let inside = part.clip(range);
            let at = map.first_unwritable(&(place.start + inside.start..place.start + inside.end))?;
            Some((map.file_index()?, at as u64))
        })
    }

    /// Lets go of all windows.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn meeting_mut<'a>(&'a mut self, range: &'a Range<usize>) -> impl Iterator<Item = &'a mut Part> {
        let first = self.first_meeting(range);
        self.0[first..].iter_mut().take_while(|part| part.meets(range))
    }

    /// A piece of many tiny files has many parts, and a block of it only a few of them.
    fn first_meeting(&self, range: &Range<usize>) -> usize {
        self.0.partition_point(|part| part.end() <= range.start)
    }
}
