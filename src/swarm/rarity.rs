//! The free pieces sorted by how many peers have them, kept sorted as peers come, announce and go.
//!
//! `order` holds the free pieces (those that may be claimed), rarest first; pieces of one count form a *bucket*, and
//! `ends[c]` is where the bucket of count `c` ends. Within a bucket the order means nothing, so a piece moves to the
//! next bucket by one swap with the piece at the boundary, and enters or leaves `order` by one such swap a bucket.
//!
//! A peer that brings or takes most of the torrent would cost a swap, two cache misses, for each piece. Then only the
//! counts are changed, the order is marked stale, and the next one who needs it sorts it anew in one pass.
//!
//! Invariant, unless stale: `order[place[p]] == p` for each free piece, and `order` is sorted by `counts`.

use super::bitfield::Bitfield;
use crate::meta::geometry::{Geometry, PieceIndex};

/// Free pieces, rarest first, and the counts of all pieces.
#[derive(Debug)]
pub(super) struct Rarity {
    /// How many peers have each piece; peers with all pieces may be counted elsewhere.
    counts: Vec<u16>,
    order: Vec<PieceIndex>,
    /// Where in `order` each free piece stands; of no meaning for others.
    place: Vec<u32>,
    ends: Vec<u32>,
    stale: bool,
}

impl Rarity {
    /// Nobody has anything; the free pieces are told by the first [`Rarity::settle`].
    pub(super) fn new(piece_count: u32) -> Self {
        let len = piece_count as usize;
        Self { counts: vec![0; len], order: Vec::new(), place: vec![0; len], ends: Vec::new(), stale: true }
    }

    /// How many peers have it.
    pub(super) fn count(&self, piece: PieceIndex) -> u16 {
        self.counts[piece.at()]
    }

    /// Sorts the free pieces if that was put off. Pieces of one count come to stand in ascending order.
    pub(super) fn settle(&mut self, free: &Bitfield, geometry: &Geometry) {
        if !self.stale {
            return;
        }
        self.stale = false;
        let pieces = || free.iter_ones().filter_map(|index| geometry.piece(index));
        self.ends.clear();
        self.order.clear();
        for piece in pieces() {
            let bucket = usize::from(self.count(piece));
            if self.ends.len() <= bucket {
                self.ends.resize(bucket + 1, 0);
            }
            self.ends[bucket] += 1;
            // Any order will do until the sort below writes every place of it.
            self.order.push(piece);
        }
        // The lengths become starts, which the pass below moves to the ends.
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        for piece in pieces() {
            let end = &mut self.ends[usize::from(self.counts[piece.at()])];
            let at = *end;
            *end += 1;
            self.put(piece, at);
        }
    }

    /// The buckets of at least that count with their counts, rarest first. Some are empty.
    pub(super) fn buckets(&self, from: u16) -> impl Iterator<Item = (u16, &[PieceIndex])> {
        debug_assert!(!self.stale);
        (from..).take(self.ends.len().saturating_sub(usize::from(from))).map(|count| {
            let start = self.start(count);
            (count, &self.order[start as usize..self.ends[usize::from(count)] as usize])
        })
    }

    /// One more peer has the piece.
    pub(super) fn raise(&mut self, piece: PieceIndex, is_free: bool) {
        let count = self.count(piece);
        self.counts[piece.at()] = count + 1;
        if is_free && !self.stale {
            self.grow(count + 1);
            let end = &mut self.ends[usize::from(count)];
            *end -= 1;
            let to = *end;
            self.swap(piece, to);
        }
    }

    /// One peer less has the piece.
    pub(super) fn lower(&mut self, piece: PieceIndex, is_free: bool) {
        let count = self.count(piece);
        debug_assert!(count > 0, "a peer left that never had piece {piece}");
        self.counts[piece.at()] = count.saturating_sub(1);
        if is_free && !self.stale && count > 0 {
            let end = &mut self.ends[usize::from(count) - 1];
            let to = *end;
            *end += 1;
            self.swap(piece, to);
        }
    }

    /// Counts a peer that has all these pieces in or out, whichever `change` does to one of them.
    pub(super) fn change_all(
        &mut self,
        has: &Bitfield,
        free: &Bitfield,
        geometry: &Geometry,
        change: fn(&mut Self, PieceIndex, bool),
    ) {
        self.stale |= u64::from(has.count_ones()) * SWAP_COST > u64::from(free.count_ones());
        for piece in has.iter_ones().filter_map(|index| geometry.piece(index)) {
            change(self, piece, free.get(piece));
        }
    }

    /// A piece becomes free.
    pub(super) fn insert(&mut self, piece: PieceIndex) {
        if self.stale {
            return;
        }
        let count = self.count(piece);
        self.grow(count);
        // The hole starts behind the last bucket; each bucket above the piece's own gives its first place for it.
        self.order.push(piece);
        let mut hole = self.order.len() as u32 - 1;
        for above in (usize::from(count) + 1..self.ends.len()).rev() {
            self.ends[above] += 1;
            hole = self.fill(hole, self.ends[above - 1]);
        }
        self.put(piece, hole);
        self.ends[usize::from(count)] += 1;
    }

    /// A piece is no longer free.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        if self.stale {
            return;
        }
        // The piece leaves a hole, which each bucket from its own on fills from its end.
        let mut hole = self.place[piece.at()];
        for bucket in usize::from(self.count(piece))..self.ends.len() {
            self.ends[bucket] -= 1;
            hole = self.fill(hole, self.ends[bucket]);
        }
        self.order.pop();
    }

    /// Makes room for the bucket of that count.
    fn grow(&mut self, count: u16) {
        let buckets = usize::from(count) + 1;
        if self.ends.len() < buckets {
            let end = self.ends.last().copied().unwrap_or(0);
            self.ends.resize(buckets, end);
        }
    }

    fn start(&self, count: u16) -> u32 {
        usize::from(count).checked_sub(1).map_or(0, |below| self.ends[below])
    }

    fn put(&mut self, piece: PieceIndex, at: u32) {
        self.order[at as usize] = piece;
        self.place[piece.at()] = at;
    }

    /// Fills the hole from another place, which is the hole then. In an empty bucket the two are one.
    fn fill(&mut self, hole: u32, from: u32) -> u32 {
        if from != hole {
            self.put(self.order[from as usize], hole);
        }
        from
    }

    fn swap(&mut self, piece: PieceIndex, to: u32) {
        let from = self.place[piece.at()];
        self.put(self.order[to as usize], from);
        self.put(piece, to);
    }

    /// Panics unless the invariant of this module holds.
    #[cfg(test)]
    pub(super) fn check(&mut self, free: &Bitfield, geometry: &Geometry) {
        self.settle(free, geometry);
        assert_eq!(self.order.len() as u32, free.count_ones());
        let mut at = 0;
        for (count, bucket) in self.buckets(0) {
            for &piece in bucket {
                assert!(free.get(piece));
                assert_eq!((self.count(piece), self.place[piece.at()]), (count, at));
                at += 1;
            }
        }
        assert_eq!(at as usize, self.order.len(), "the buckets cover the order");
    }
}

/// How many steps of a sort one swap is worth: a swap misses the cache, the sort walks through memory.
const SWAP_COST: u64 = 8;
