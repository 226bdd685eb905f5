//! Tells which files of an output somebody else has written to while they were open here.
//!
//! Writes are events of fanotify, which says whether they come from this process. Where that is not to be had (before
//! Linux 5.13, in most containers, on file systems without handles) inotify tells of all writes, and of mapped files
//! these are those of others, as stores to a map are no events. Of what others do through maps of their own neither
//! reports anything, nor does any time of the file that tells them from us.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sys;

/// Files that are watched at most: each takes about a kilobyte of the kernel's memory.
const WATCHES_MAX: usize = 4096;
/// Bytes of an event of inotify before the name, which those of single files do not have.
const EVENT_LEN: usize = 16;
/// Bytes of an event of fanotify before what it is about.
const PROCESS_EVENT_LEN: usize = 24;
/// Bytes of what it is about before the handle: its type and length, the file system, and the length of the handle.
const ABOUT_LEN: usize = 16;
/// Bytes of events that are read at a time.
const BUFFER_LEN: usize = 16 << 10;

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
    watched: Watched,
    files: Vec<Knowledge>,
}

/// The files that are watched, by what the kernel calls them.
enum Watched {
    /// By fanotify: their handles, type and bytes.
    ByProcess(HashMap<Vec<u8>, usize>),
    /// By inotify: the numbers that it gave them, from 1.
    All(Vec<usize>),
}

impl Watched {
    fn len(&self) -> usize {
        match self {
            Self::ByProcess(files) => files.len(),
            Self::All(files) => files.len(),
        }
    }
}

impl Watch {
    /// A watch on none of so many files.
    ///
    /// # Errors
    /// What the system says, which may not have any to give.
    pub(super) fn start(file_count: usize) -> io::Result<Self> {
        let files = vec![Knowledge::None; file_count];
        let (events, watched) = match sys::watch_queue_by_process() {
            Ok(events) => (events, Watched::ByProcess(HashMap::new())),
            Err(_) => (sys::watch_queue()?, Watched::All(Vec::new())),
        };
        Ok(Self { state: Mutex::new(State { events, watched, files }) })
    }

    /// Whether it tells what others write from what this process writes.
    pub(super) fn knows_processes(&self) -> bool {
        matches!(self.lock().watched, Watched::ByProcess(_))
    }

    /// Watches a file from now on, by its index; false where no more can be.
    pub(super) fn add(&self, index: usize, file: &File) -> bool {
        let mut state = self.lock();
        let count = state.watched.len();
        let is_added = count < WATCHES_MAX
            && match state.add(index, file) {
                // The first file tells whether its file system can be watched so.
                Err(_) if count == 0 && state.fall_back().is_ok() => state.add(index, file).is_ok(),
                added => added.is_ok(),
            };
        if is_added {
            state.files[index] = Knowledge::Untouched;
        }
        is_added
    }

    /// Notes that this process is about to write to the files itself. If that cannot be told from what others do, nothing
    /// more is told of any file but what is known to be written.
    pub(super) fn prepare_for_writes(&self) {
        self.look();
        let mut state = self.lock();
        let Watched::All(watched) = &mut state.watched else { return };
        watched.clear();
        for known in state.files.iter_mut().filter(|known| **known == Knowledge::Untouched) {
            *known = Knowledge::None;
        }
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
        let mut state = self.lock();
        let mut buffer = [0; BUFFER_LEN];
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, index: usize, file: &File) -> io::Result<()> {
        match &mut self.watched {
            Watched::ByProcess(files) => {
                files.insert(sys::watch_writes_by_process(&self.events, file)?, index);
            }
            Watched::All(files) => {
                let number = sys::watch_writes(&self.events, file)?;
                if usize::try_from(number) != Ok(files.len() + 1) {
                    return Err(io::Error::other("the watches are not counted from 1"));
                }
                files.push(index);
            }
        }
        Ok(())
    }

    /// Goes on with inotify, as no file is watched yet.
    fn fall_back(&mut self) -> io::Result<()> {
        (self.events, self.watched) = (sys::watch_queue()?, Watched::All(Vec::new()));
        Ok(())
    }

    fn take(&mut self, events: &[u8]) {
        match &self.watched {
            Watched::ByProcess(watched) => take_by_process(events, watched, &mut self.files),
            Watched::All(watched) => take_all(events, watched, &mut self.files),
        }
    }
}

fn take_by_process(mut events: &[u8], watched: &HashMap<Vec<u8>, usize>, files: &mut [Knowledge]) {
    while let Some((head, _)) = events.split_first_chunk::<PROCESS_EVENT_LEN>() {
        let (len, process) = (word(head, 0) as usize, word(head, 20));
        let mask = u64::from_ne_bytes(std::array::from_fn(|at| head[8 + at]));
        let (event, rest) = events.split_at(len.clamp(PROCESS_EVENT_LEN, events.len()));
        events = rest;
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            files.fill(Knowledge::None);
        } else if process != process::id() {
            match handle(&event[PROCESS_EVENT_LEN..]).and_then(|handle| watched.get(handle)) {
                Some(&index) => files[index] = Knowledge::Written,
                // Nobody knows which.
                None => files.fill(Knowledge::None),
            }
        }
    }
}

/// The handle, type and bytes, of what an event is about.
fn handle(about: &[u8]) -> Option<&[u8]> {
    let (head, _) = about.split_first_chunk::<ABOUT_LEN>()?;
    let len = word(head, ABOUT_LEN - 4) as usize;
    about.get(ABOUT_LEN..)?.get(..len.checked_add(4)?)
}

fn take_all(mut events: &[u8], watched: &[usize], files: &mut [Knowledge]) {
    while let Some((head, rest)) = events.split_first_chunk::<EVENT_LEN>() {
        let (watch, mask, name_len) = (word(head, 0), word(head, 4), word(head, 12) as usize);
        events = rest.get(name_len..).unwrap_or_default();
        if mask & libc::IN_Q_OVERFLOW != 0 {
            files.fill(Knowledge::None);
        } else if mask & libc::IN_MODIFY != 0
            && let Some(&index) = (watch as usize).checked_sub(1).and_then(|at| watched.get(at))
        {
            files[index] = Knowledge::Written;
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::process::{Command, Stdio};

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
        file.write_all_at(b"our own", 50_000).unwrap();
        assert_eq!(watch.is_written(), [false, !watch.knows_processes(), false]);
        write_as_another(&file);
        assert_eq!((watch.may_be_written(), watch.is_written()), (vec![true; 3], vec![false, true, false]));
    }

    /// Has another process write to the file.
    fn write_as_another(file: &File) {
        let stdout = Stdio::from(file.try_clone().unwrap());
        assert!(Command::new("echo").arg("other").stdout(stdout).status().unwrap().success());
    }

    #[test]
    fn without_processes_what_is_written_here_ends_the_knowledge() {
        let (one, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let watch = Watch::start(2).unwrap();
        watch.lock().fall_back().unwrap();
        assert!(watch.add(0, &one) && watch.add(1, &other) && !watch.knows_processes());
        write_as_another(&other);
        watch.prepare_for_writes();
        one.write_all_at(b"our own", 0).unwrap();
        assert_eq!((watch.may_be_written(), watch.is_written()), (vec![true; 2], vec![false, true]));
    }

    #[test]
    fn an_event_of_what_is_not_known_ends_the_knowledge() {
        let events = tempfile::tempfile().unwrap();
        let watched = Watched::ByProcess(HashMap::from([(vec![0; 12], 0)]));
        let mut state = State { events, watched, files: vec![Knowledge::Untouched] };
        state.take(&[0; PROCESS_EVENT_LEN - 1]);
        assert_eq!(state.files, [Knowledge::Untouched], "half an event is none");
        for len in [PROCESS_EVENT_LEN, 40, 100] {
            state.files = vec![Knowledge::Untouched];
            state.take(&vec![0x11; len]);
            assert_eq!(state.files, [Knowledge::None], "{len}");
        }
    }
}
