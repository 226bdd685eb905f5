//! Tells which files of an output somebody else has written to while they were mapped here.
//!
//! Stores to a map are no events of inotify, writes are: so what it reports of mapped files was done by others. Of what
//! others do through maps of their own it reports nothing, and neither does any time of the file that tells them from
//! us.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::sys;

/// Files that are watched at most: each takes about a kilobyte of the kernel's memory.
const WATCHES_MAX: usize = 4096;
/// Bytes of an event before the name, which those of single files do not have.
const EVENT_LEN: usize = 16;

/// What is known of what others did to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Knowledge {
    /// It is not watched: they may have done anything.
    None,
    /// They have not written to it.
    Untouched,
    /// They have.
    Written,
}

/// The files that are watched.
pub(super) struct Watch {
    state: Mutex<State>,
}

struct State {
    /// Where the events are read.
    events: File,
    /// The file of each watch, by the number that the kernel has given it, from 1.
    watched: Vec<usize>,
    files: Vec<Knowledge>,
}

impl Watch {
    /// A watch on none of so many files.
    ///
    /// # Errors
    /// What the system says, which may not have any to give.
    pub(super) fn start(file_count: usize) -> io::Result<Self> {
        let files = vec![Knowledge::None; file_count];
        Ok(Self { state: Mutex::new(State { events: sys::watch_queue()?, watched: Vec::new(), files }) })
    }

    /// Watches a file from now on, by its index; false where no more can be.
    pub(super) fn add(&self, index: usize, file: &File) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.watched.len() >= WATCHES_MAX {
            return false;
        }
        let number = state.watched.len() + 1;
        match sys::watch_writes(&state.events, file) {
            Ok(given) if usize::try_from(given) == Ok(number) => {
                state.watched.push(index);
                state.files[index] = Knowledge::Untouched;
                true
            }
            _ => false,
        }
    }

    /// Tells nothing more of any file but what is known to be written: this process is about to write itself.
    pub(super) fn close(&self) {
        self.look();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.watched.clear();
        state
            .files
            .iter_mut()
            .filter(|known| **known == Knowledge::Untouched)
            .for_each(|known| *known = Knowledge::None);
    }

    /// Whether others may have written to each file: true also for those that are not watched.
    pub(super) fn may_be_written(&self) -> Vec<bool> {
        self.look().into_iter().map(|known| known != Knowledge::Untouched).collect()
    }

    /// Whether others are known to have written to each file.
    pub(super) fn is_written(&self) -> Vec<bool> {
        self.look().into_iter().map(|known| known == Knowledge::Written).collect()
    }

    fn look(&self) -> Vec<Knowledge> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 256 * EVENT_LEN];
        loop {
            match state.events.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => state.take(&buffer[..len]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => {
                    tracing::debug!(%err, "cannot read what others wrote to");
                    state.files.fill(Knowledge::None);
                    break;
                }
            }
        }
        state.files.clone()
    }
}

impl State {
    fn take(&mut self, mut events: &[u8]) {
        while let Some((head, rest)) = events.split_first_chunk::<EVENT_LEN>() {
            let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (watch, mask, name_len) = (word(0), word(4), word(12) as usize);
            events = rest.get(name_len..).unwrap_or_default();
            if mask & libc::IN_Q_OVERFLOW != 0 {
                self.files.fill(Knowledge::None);
            } else if mask & libc::IN_MODIFY != 0
                && let Some(&index) = (watch as usize).checked_sub(1).and_then(|at| self.watched.get(at))
            {
                self.files[index] = Knowledge::Written;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::disk::map::Map;

    #[test]
    fn writes_of_others_are_told_and_stores_to_a_map_are_not() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100_000).unwrap();
        let watch = Watch::start(3).unwrap();
        assert_eq!(watch.may_be_written(), [true; 3]);
        assert!(watch.add(1, &file));
        let map = std::sync::Arc::new(Map::file(&file, 100_000, 1, true).unwrap());
        #[expect(unsafe_code, reason = "the only window of the test")]
        // SAFETY: no other window is made.
        let mut window = unsafe { map.window(0, 100_000) };
        window.write(0, &[1; 100_000]);
        file.sync_all().unwrap();
        assert_eq!(watch.may_be_written(), [true, false, true]);
        file.write_all_at(b"other", 50_000).unwrap();
        assert_eq!((watch.may_be_written(), watch.is_written()), (vec![true; 3], vec![false, true, false]));
    }
}
