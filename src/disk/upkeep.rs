//! The pages of mapped files: made ready before pieces arrive, and taken out of this process once they are verified.
//!
//! **Ahead.** The first write to a page makes the kernel find or clear it, enter it in the page table, and at times wait
//! for the disk. A thread does that for the pieces that a peer was asked for, so that the threads of the rings mostly
//! copy. It is a help only: where it comes too late or cannot, the receive itself does the same, or tells the error.
//!
//! **Afterwards.** Nobody here reads verified pieces again, and without this the resident memory of a download would grow
//! to its size. Each drop is a system call that interrupts the other threads of the process, so pieces are collected
//! first. They may lie anywhere: where they are not neighbours, one call takes a whole stretch with all that is between
//! them. Pieces in flight there lose nothing but a fault at the next touch.

use std::ops::Range;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::map::Map;

/// Bytes of verified pieces that stay resident before they are dropped together.
const SWEEP_LEN: usize = 16 << 20;
/// The same in stretches: pieces of many small files, and small pieces in random order.
const SWEEP_COUNT: usize = 4096;
/// Stretches of one file that are dropped each by its own call.
const CALLS_MAX: usize = 16;

/// The bytes of a mapped file.
pub(super) type Stretch = (Arc<Map>, Range<usize>);

/// Looks after the pages of an output.
#[derive(Default)]
pub(super) struct Upkeep {
    /// The way to the thread that works ahead, started when there is something for it; `None` where it cannot be.
    ahead: OnceLock<Option<Sender<Stretch>>>,
    verified: Mutex<Verified>,
}

#[derive(Default)]
struct Verified {
    stretches: Vec<Stretch>,
    len: usize,
}

impl Upkeep {
    /// Has the pages of a range made ready, and those around them that belong to the same large page.
    pub(super) fn ahead(&self, map: &Arc<Map>, range: &Range<usize>) {
        let Some(thread) = self.ahead.get_or_init(start) else { return };
        for chunk in map.order_chunks(range) {
            // It fails only when the thread is gone, and then nothing needs it.
            let _ = thread.send((Arc::clone(map), chunk));
        }
    }

    /// Notes that these stretches of files are verified, and drops the pages of what has come together if it is enough.
    /// Returns whose pages were dropped.
    pub(super) fn verified<'a>(
        &self,
        stretches: impl Iterator<Item = (&'a Arc<Map>, Range<usize>)>,
    ) -> Vec<Stretch> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        for (map, range) in stretches {
            verified.len += range.len();
            verified.stretches.push((Arc::clone(map), range));
        }
        let is_enough = verified.len >= SWEEP_LEN || verified.stretches.len() >= SWEEP_COUNT;
        let swept = if is_enough { std::mem::take(&mut *verified) } else { Verified::default() };
        drop(verified);
        swept.drop_pages()
    }

    /// Drops the pages of what has come together.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        std::mem::take(&mut *self.verified.lock().unwrap()).drop_pages();
    }
}

impl Verified {
    fn drop_pages(mut self) -> Vec<Stretch> {
        self.stretches.sort_unstable_by_key(|(map, range)| (Arc::as_ptr(map), range.start));
        let joined: Vec<_> =
            self.stretches.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)).flat_map(join).collect();
        for (map, range) in &joined {
            map.drop_pages(range);
        }
        joined
    }
}

/// Joins the neighbours among the stretches of one map, which are in order; all of them, where few are neighbours.
fn join(stretches: &[Stretch]) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for (map, range) in stretches {
        match joined.last_mut() {
            Some((_, last)) if last.end == range.start => last.end = range.end,
            _ => joined.push((Arc::clone(map), range.clone())),
        }
    }
    if joined.len() > CALLS_MAX
        && let Some((_, last)) = joined.pop()
    {
        joined.truncate(1);
        joined[0].1.end = last.end;
    }
    joined
}

/// Starts the thread that works ahead. It ends with the output, and holds nothing but maps.
fn start() -> Option<Sender<Stretch>> {
    let (sender, orders) = mpsc::channel::<Stretch>();
    let work = move || {
        for (map, chunk) in orders {
            map.populate(&chunk);
        }
    };
    match thread::Builder::new().name("ringtide-pages".to_owned()).spawn(work) {
        Ok(_) => Some(sender),
        Err(err) => {
            tracing::debug!(%err, "no thread to work ahead of the receives");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn map(len: u64) -> (File, Arc<Map>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let map = Arc::new(Map::file(&file, len, 0).unwrap());
        (file, map)
    }

    #[test]
    fn neighbours_are_dropped_together_and_many_others_as_one() {
        let (_file, map) = map(1_000);
        let of = |ranges: &[Range<usize>]| {
            let stretches: Vec<_> = ranges.iter().map(|range| (Arc::clone(&map), range.clone())).collect();
            join(&stretches).into_iter().map(|(_, range)| (range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[0..10, 10..20, 30..40]), [(0, 20), (30, 40)]);
        let apart: Vec<_> = (0..30).map(|i| 20 * i..20 * i + 10).collect();
        assert_eq!(of(&apart), [(0, 590)]);
    }

    #[test]
    fn what_is_ordered_ahead_is_ordered_once_until_it_is_dropped() {
        const LARGE: usize = 2 << 20;
        let (_file, map) = map(5 << 20);
        let ordered =
            |range| map.order_chunks(&range).map(|chunk| (chunk.start, chunk.end)).collect::<Vec<_>>();
        assert_eq!(ordered(0..10), [(0, LARGE)]);
        assert_eq!(ordered(1_000..LARGE + 1), [(LARGE, 2 * LARGE)]);
        assert_eq!(ordered(0..5 << 20), [(2 * LARGE, 5 << 20)]);
        map.drop_pages(&(0..1));
        assert_eq!(ordered(0..5 << 20), [(0, LARGE)]);
    }

    #[test]
    fn pages_are_made_ready_unless_they_were_dropped_meanwhile() {
        let (file, map) = map(1 << 20);
        let whole = 0..1 << 20;
        // A hole of the file gets room when its pages are made ready to be written.
        let has_room = || file.metadata().unwrap().blocks() > 0;
        map.populate(&whole);
        assert!(!has_room(), "nobody has ordered that");
        assert_eq!(map.order_chunks(&whole).count(), 1);
        map.populate(&whole);
        assert!(has_room());
    }
}
