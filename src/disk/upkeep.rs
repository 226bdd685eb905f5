//! The pages of mapped files: made ready before pieces arrive, and taken out of this process once they are verified.
//!
//! **Ahead.** The first write to a page makes the kernel find or clear it, enter it in the page table, and at times
//! wait for the disk. A thread does that for the pieces that a peer was asked for, so that the threads of the rings
//! mostly copy. It is a help only: where it comes too late or cannot, the receive itself does the same, or tells the
//! error.
//!
//! **Afterwards.** Nobody here reads verified pieces again, and without this the resident memory of a download would
//! grow to its size. Each drop is a system call that interrupts the other threads of the process, so large pages are
//! collected that are verified as a whole. A piece in flight in a dropped page would lose nothing but a fault at the
//! next touch, yet such a fault on a large page is dear. Only where pieces are verified all over the place and no page
//! becomes whole, everything is dropped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::map::Map;
use super::price::Price;

/// Bytes that are made ready and not verified yet: what one fast peer is asked for at a time. Hundreds of peers are
/// asked for much more, and all of it would be resident.
const AHEAD_LEN_MAX: usize = 48 << 20;
/// Bytes that are made ready before the first piece is asked for, where it is to be known what they cost.
const PROBE_LEN: usize = 4 << 20;
/// Bytes of whole pages that stay resident before they are dropped together.
const SWEEP_LEN: usize = 16 << 20;
/// The same in pages: those of small files are short.
const SWEEP_COUNT: usize = 1024;
/// Bytes of verified pieces, after which everything is dropped if no page was.
const SWEEP_ALL_LEN: usize = 64 << 20;

/// The bytes of a mapped file.
pub(super) type Stretch = (Arc<Map>, Range<usize>);

/// Looks after the pages of an output.
#[derive(Default)]
pub(super) struct Upkeep {
    /// The way to the thread that works ahead, started when there is something for it; `None` where it cannot be.
    ahead: OnceLock<Option<Sender<Stretch>>>,
    /// Held by that thread while it works; true when it shall not any more.
    resting: Arc<Mutex<bool>>,
    /// Bytes of the pages that were ordered and are not verified as a whole.
    ready_len: AtomicUsize,
    verified: Mutex<Verified>,
    /// Of the pages that were made ready.
    price: Arc<Price>,
}

#[derive(Default)]
struct Verified {
    /// Large pages that are verified as a whole.
    whole: Vec<Stretch>,
    whole_len: usize,
    /// Verified bytes since the last sweep, wherever they are, and the maps they are in.
    len: usize,
    maps: Vec<Arc<Map>>,
}

impl Upkeep {
    /// Has the pages of a range made ready, and those around them that belong to the same large page, unless many are
    /// ready and not used yet.
    pub(super) fn ahead(&self, map: &Arc<Map>, range: &Range<usize>) {
        if self.ready_len.load(Ordering::Relaxed) >= AHEAD_LEN_MAX {
            return;
        }
        let Some(thread) = self.ahead.get_or_init(|| start(&self.resting, &self.price)) else { return };
        for page in map.order_pages(range) {
            self.ready_len.fetch_add(page.len(), Ordering::Relaxed);
            // It fails only when the thread is gone, and then nothing needs it.
            let _ = thread.send((Arc::clone(map), page));
        }
    }

    /// Has the first pages of a map made ready at once, to learn what they cost.
    pub(super) fn probe(&self, map: &Map) {
        for page in map.order_pages(&(0..map.len().min(PROBE_LEN))) {
            self.ready_len.fetch_add(page.len(), Ordering::Relaxed);
            self.price.of(page.len(), || map.populate(&page));
        }
    }

    /// What the pages cost that were made ready last.
    pub(super) fn price(&self) -> &Price {
        &self.price
    }

    /// Notes that these stretches of files are verified, and drops the pages that have come together if they are
    /// enough. Returns those that are verified as a whole.
    pub(super) fn verified<'a>(
        &self,
        stretches: impl Iterator<Item = (&'a Arc<Map>, Range<usize>)>,
    ) -> Vec<Stretch> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let before = verified.whole_len;
        for (map, range) in stretches {
            verified.note(map, &range);
        }
        let whole_len = verified.whole_len - before;
        let swept = if verified.is_enough() { std::mem::take(&mut *verified) } else { Verified::default() };
        drop(verified);
        // Pages that were never ordered are among them, so this may count too few, and never for long.
        let _ = self.ready_len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ready| {
            Some(ready.saturating_sub(whole_len))
        });
        swept.drop_pages()
    }

    /// Makes no further pages ready: the files are not changed from here when this has returned.
    pub(super) fn rest(&self) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Drops the pages that have come together.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        std::mem::take(&mut *self.verified.lock().unwrap()).drop_pages();
    }
}

impl Verified {
    fn note(&mut self, map: &Arc<Map>, range: &Range<usize>) {
        self.len += range.len();
        for page in map.note_verified(range) {
            self.whole_len += page.len();
            self.whole.push((Arc::clone(map), page));
        }
        if !self.maps.last().is_some_and(|last| Arc::ptr_eq(last, map)) {
            self.maps.push(Arc::clone(map));
        }
    }

    const fn is_scattered(&self) -> bool {
        self.len >= SWEEP_ALL_LEN
    }

    fn is_enough(&self) -> bool {
        self.whole_len >= SWEEP_LEN
            || self.maps.len().max(self.whole.len()) >= SWEEP_COUNT
            || self.is_scattered()
    }

    fn drop_pages(mut self) -> Vec<Stretch> {
        let is_scattered = self.is_scattered();
        self.whole.sort_unstable_by_key(|(map, range)| (Arc::as_ptr(map), range.start));
        let joined: Vec<_> =
            self.whole.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)).flat_map(join).collect();
        if is_scattered {
            self.maps.sort_unstable_by_key(Arc::as_ptr);
            self.maps.dedup_by_key(|map| Arc::as_ptr(map));
            self.maps.iter().for_each(|map| map.drop_pages(&(0..map.len())));
        } else {
            joined.iter().for_each(|(map, range)| map.drop_pages(range));
        }
        joined
    }
}

/// Joins the neighbours among the stretches of one map, which are in order.
fn join(stretches: &[Stretch]) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for (map, range) in stretches {
        match joined.last_mut() {
            Some((_, last)) if last.end == range.start => last.end = range.end,
            _ => joined.push((Arc::clone(map), range.clone())),
        }
    }
    joined
}

/// Starts the thread that works ahead. It ends with the output, and holds nothing but maps.
fn start(resting: &Arc<Mutex<bool>>, price: &Arc<Price>) -> Option<Sender<Stretch>> {
    let (sender, orders) = mpsc::channel::<Stretch>();
    let (resting, price) = (Arc::clone(resting), Arc::clone(price));
    let work = move || {
        for (map, page) in orders {
            let is_resting = resting.lock().unwrap_or_else(PoisonError::into_inner);
            if !*is_resting {
                price.of(page.len(), || map.populate(&page));
            }
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
    use crate::disk::map::LARGE_PAGE_LEN;

    fn map(len: u64) -> (File, Arc<Map>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let map = Arc::new(Map::file(&file, len, 0, true).unwrap());
        (file, map)
    }

    #[test]
    fn neighbours_are_dropped_together() {
        let (_file, map) = map(1_000);
        let of = |ranges: &[Range<usize>]| {
            let stretches: Vec<_> = ranges.iter().map(|range| (Arc::clone(&map), range.clone())).collect();
            join(&stretches).into_iter().map(|(_, range)| (range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[0..10, 10..20, 30..40]), [(0, 20), (30, 40)]);
    }

    #[test]
    fn what_is_ordered_ahead_is_ordered_once_until_it_is_dropped() {
        const LARGE: usize = LARGE_PAGE_LEN;
        let (_file, map) = map(5 << 20);
        let ordered =
            |range| map.order_pages(&range).map(|chunk| (chunk.start, chunk.end)).collect::<Vec<_>>();
        assert_eq!(ordered(0..10), [(0, LARGE)]);
        assert_eq!(ordered(1_000..LARGE + 1), [(LARGE, 2 * LARGE)]);
        assert_eq!(ordered(0..5 << 20), [(2 * LARGE, 5 << 20)]);
        map.drop_pages(&(0..1));
        assert_eq!(ordered(0..5 << 20), [(0, LARGE)]);
    }

    #[test]
    fn a_page_is_dropped_when_all_of_it_is_verified() {
        const LARGE: usize = LARGE_PAGE_LEN;
        let (_file, map) = map(5 << 20);
        let upkeep = Upkeep::default();
        let whole = |range: Range<usize>| {
            upkeep.verified(std::iter::once((&map, range)));
            let verified = upkeep.verified.lock().unwrap();
            verified.whole.iter().map(|(_, page)| (page.start, page.end)).collect::<Vec<_>>()
        };
        assert_eq!(whole(100..LARGE + 7), []);
        assert_eq!(whole(2 * LARGE..5 << 20), [(2 * LARGE, 5 << 20)]);
        assert_eq!(whole(0..100), [(2 * LARGE, 5 << 20), (0, LARGE)]);
        assert_eq!(whole(LARGE + 7..2 * LARGE).len(), 3);
        let swept = std::mem::take(&mut *upkeep.verified.lock().unwrap()).drop_pages();
        assert_eq!(swept.len(), 1);
        assert_eq!(swept[0].1, 0..5 << 20);
    }

    #[test]
    fn where_no_page_becomes_whole_all_are_dropped() {
        let len = 3 * SWEEP_ALL_LEN;
        let (_file, map) = map(len as u64);
        let upkeep = Upkeep::default();
        let half = LARGE_PAGE_LEN / 2;
        assert_eq!(map.order_pages(&(0..len)).count(), len / LARGE_PAGE_LEN);
        for page in 0..len / LARGE_PAGE_LEN {
            let range = page * LARGE_PAGE_LEN..page * LARGE_PAGE_LEN + half;
            assert_eq!(upkeep.verified(std::iter::once((&map, range))).len(), 0);
        }
        // What was dropped may be ordered again.
        assert_eq!(map.order_pages(&(0..len)).count(), len / LARGE_PAGE_LEN);
        assert!(upkeep.verified.lock().unwrap().len < SWEEP_ALL_LEN);
    }

    #[test]
    fn pages_are_made_ready_unless_they_were_dropped_meanwhile() {
        let (file, map) = map(1 << 20);
        let whole = 0..1 << 20;
        // A hole of the file gets room when its pages are made ready to be written.
        let has_room = || file.metadata().unwrap().blocks() > 0;
        map.populate(&whole);
        assert!(!has_room(), "nobody has ordered that");
        assert_eq!(map.order_pages(&whole).count(), 1);
        map.populate(&whole);
        assert!(has_room());
    }
}
