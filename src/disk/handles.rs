//! Open files: a few descriptors for however many files are written.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use crate::os::limits;

/// Files kept open. Pieces come mostly in order, so those that follow each other are in the same few files.
const OPEN_MAX: usize = 64;
/// Of how many descriptors that the process may have one is for such a file.
const OPEN_SHARE: usize = 8;

/// The files used last, by their indices.
pub(super) struct Handles {
    open_max: usize,
    /// The one used last is last.
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

impl Default for Handles {
    fn default() -> Self {
        let open_max = (limits::descriptors() / OPEN_SHARE).clamp(1, OPEN_MAX);
        Self { open_max, open: Mutex::default() }
    }
}

impl Handles {
    /// The file of that index, opened with `open` unless it is.
    pub(super) fn get<E>(
        &self,
        index: usize,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        if let Some(file) = self.find(index) {
            return Ok(file);
        }
        // Without the lock. Should another thread open it too, both descriptors are good.
        let file = Arc::new(open()?);
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        files.push_back((index, Arc::clone(&file)));
        let oldest = if files.len() > self.open_max { files.pop_front() } else { None };
        drop(files);
        drop(oldest);
        Ok(file)
    }

    /// Closes all files that nobody uses at the moment.
    pub(super) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn find(&self, index: usize) -> Option<Arc<File>> {
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = files.iter().rposition(|(open, _)| *open == index)?;
        if at + 1 < files.len() {
            let found = files.remove(at)?;
            files.push_back(found);
        }
        files.back().map(|(_, file)| Arc::clone(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_used_last_stay_open() {
        let handles = Handles { open_max: OPEN_MAX, ..Handles::default() };
        let mut opened = Vec::new();
        let mut get = |index| {
            let file = handles.get(index, || {
                opened.push(index);
                tempfile::tempfile()
            });
            file.unwrap();
        };
        for index in 0..OPEN_MAX {
            get(index);
        }
        get(0);
        get(OPEN_MAX);
        get(0);
        get(1);
        assert_eq!(opened, (0..=OPEN_MAX).chain([1]).collect::<Vec<_>>());
        assert_eq!(handles.open.lock().unwrap().len(), OPEN_MAX);
    }
}
