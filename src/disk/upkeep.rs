//! The pages of verified pieces: taken out of this process, many pieces at a time.
//!
//! Nobody here reads them again, and without this the resident memory of a download would grow to its size. Each drop
//! is a system call that interrupts the other threads of the process, so pieces are collected first. They may lie
//! anywhere: where they are not neighbours, one call takes a whole stretch with all that is between them. Pieces in
//! flight there lose nothing but a fault at the next touch.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::map::Map;

/// Bytes of verified pieces that stay resident before they are dropped together.
const SWEEP_LEN: usize = 32 << 20;
/// The same in stretches: pieces of many small files, and small pieces in random order.
const SWEEP_COUNT: usize = 4096;
/// Stretches of one file that are dropped each by its own call.
const CALLS_MAX: usize = 16;

/// The stretches of files whose pages are to be dropped.
#[derive(Default)]
pub(super) struct Upkeep(Mutex<Verified>);

#[derive(Default)]
struct Verified {
    stretches: Vec<(Arc<Map>, Range<usize>)>,
    len: usize,
}

impl Upkeep {
    /// Notes that these stretches of files are verified, and drops what has come together if it is enough.
    pub(super) fn verified<'a>(&self, stretches: impl Iterator<Item = (&'a Arc<Map>, Range<usize>)>) {
        let mut verified = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (map, range) in stretches {
            verified.len += range.len();
            verified.stretches.push((Arc::clone(map), range));
        }
        let is_enough = verified.len >= SWEEP_LEN || verified.stretches.len() >= SWEEP_COUNT;
        let swept = if is_enough { std::mem::take(&mut *verified) } else { Verified::default() };
        drop(verified);
        swept.drop_pages();
    }

    /// Drops what has come together.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        std::mem::take(&mut *self.0.lock().unwrap()).drop_pages();
    }
}

impl Verified {
    fn drop_pages(mut self) {
        self.stretches.sort_unstable_by_key(|(map, range)| (Arc::as_ptr(map), range.start));
        for of_one_map in self.stretches.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)) {
            let [(map, first), ..] = of_one_map else { continue };
            let mut joined = vec![first.clone()];
            for (_, range) in &of_one_map[1..] {
                match joined.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => joined.push(range.clone()),
                }
            }
            if joined.len() > CALLS_MAX
                && let Some(last) = joined.pop()
            {
                joined.truncate(1);
                joined[0].end = last.end;
            }
            joined.iter().for_each(|range| map.drop_pages(range));
        }
    }
}
