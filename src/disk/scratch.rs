//! Room on the disk for pieces that have to leave memory before they are verified, where their files hold bytes of
//! others.
//!
//! It is one file without a name, made when it is first needed and gone with the process. Every piece has a slot of it,
//! which the next piece gets afterwards, so it grows no longer than the pieces that are half done at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The slots of one output.
pub(super) struct Scratch {
    /// Bytes of a slot: those of a whole piece.
    slot_len: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    /// Slots that there are, by their number, and nobody has.
    free: Vec<u64>,
    /// Slots that there are.
    count: u64,
}

/// Room for one piece. It holds any bytes where nothing was written to it.
pub(super) struct Slot {
    file: Arc<File>,
    number: u64,
    start: u64,
}

impl Scratch {
    /// None yet.
    pub(super) fn new(slot_len: u32) -> Self {
        Self { slot_len, state: Mutex::default() }
    }

    /// A slot, in the file that `make` gives where there is none yet.
    pub(super) fn take(&self, make: impl FnOnce() -> io::Result<File>) -> io::Result<Slot> {
        let mut state = self.state();
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(state.file.insert(Arc::new(make()?))),
        };
        let number = state.free.pop().unwrap_or_else(|| {
            state.count += 1;
            state.count - 1
        });
        Ok(Slot { file, number, start: number * u64::from(self.slot_len) })
    }

    /// Takes a slot back.
    pub(super) fn give(&self, slot: Slot) {
        self.state().free.push(slot.number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The file that it is a part of.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes to the slot, from its byte `at` on.
    pub(super) fn write(&self, at: usize, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.start + at as u64)
    }

    /// Reads of the slot, from its byte `at` on, what was written there.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, self.start + at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_and_shares_no_byte() {
        let scratch = Scratch::new(100);
        let take = || scratch.take(tempfile::tempfile).unwrap();
        let (one, two) = (take(), take());
        one.write(0, &[1; 100]).unwrap();
        two.write(90, &[2; 10]).unwrap();
        let read = |slot: &Slot| {
            let mut bytes = [0; 10];
            slot.read(90, &mut bytes).unwrap();
            bytes
        };
        assert_eq!((read(&one), read(&two)), ([1; 10], [2; 10]));
        let number = one.number;
        scratch.give(one);
        let again = scratch.take(|| panic!("there is a file")).unwrap();
        assert_eq!((again.number, again.file().metadata().unwrap().len()), (number, 200));
    }
}
