//! Open files: a few descriptors for however many files are written.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::opener::Access;
use crate::os::limits;

/// Files kept open. Pieces come mostly in order, so those that follow each other are in the same few files.
const OPEN_MAX: usize = 64;
/// Of how many descriptors that the process may have one is for such a file.
const OPEN_SHARE: usize = 8;

/// The files used last, by their indices.
pub(super) struct Handles {
    open_max: usize,
    /// The one used last is last.
    open: Mutex<VecDeque<Handle>>,
}

struct Handle {
    index: usize,
    access: Access,
    file: Arc<File>,
}

impl Default for Handles {
    fn default() -> Self {
        let open_max = (limits::descriptors() / OPEN_SHARE).clamp(1, OPEN_MAX);
        Self { open_max, open: Mutex::default() }
    }
}

impl Handles {
    /// The file of that index, opened with `open` unless it is open for that already.
    pub(super) fn get<E>(
        &self,
        index: usize,
        access: Access,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        if let Some(file) = self.find(index, access) {
            return Ok(file);
        }
        // Without the lock. Should another thread open it too, both descriptors are good.
        let file = Arc::new(open()?);
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        files.push_back(Handle { index, access, file: Arc::clone(&file) });
        let oldest = if files.len() > self.open_max { files.pop_front() } else { None };
        drop(files);
        drop(oldest);
        Ok(file)
    }

    /// Closes all files that nobody uses at the moment.
    pub(super) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn find(&self, index: usize, access: Access) -> Option<Arc<File>> {
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // What may be written may also be looked at.
        let suits = |open: &Handle| open.access == access || open.access == Access::Write;
        let at = files.iter().rposition(|open| open.index == index && suits(open))?;
        if at + 1 < files.len() {
            let found = files.remove(at)?;
            files.push_back(found);
        }
        files.back().map(|open| Arc::clone(&open.file))
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
            let file = handles.get(index, Access::Write, || {
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

    #[test]
    fn what_is_open_to_be_looked_at_is_opened_again_to_be_written() {
        let handles = Handles { open_max: OPEN_MAX, ..Handles::default() };
        let opened = |access| {
            let mut is_new = false;
            let file = handles.get(7, access, || {
                is_new = true;
                tempfile::tempfile()
            });
            file.unwrap();
            is_new
        };
        let accesses = [Access::Read, Access::Read, Access::Write, Access::Write, Access::Read];
        assert_eq!(accesses.map(opened), [true, false, true, false, false]);
    }
}
