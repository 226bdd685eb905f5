//! A download that goes to standard output: the bytes lie in a file without a name, and each piece is copied from there
//! once all before it are verified.
//!
//! A reader that is slow holds up nothing but the copying, for the file has room for all of the content. One that
//! closes its end ends the download.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Interrupt, Request, check_interrupt, total};
use crate::disk::DiskError;
use crate::error::{Error, Progress};
use crate::meta::geometry::PieceIndex;
use crate::net::shared::Shared;
use crate::os::{env, random};
use crate::swarm::bitfield::Bitfield;

/// Bytes that are copied at a time.
const COPY_LEN: usize = 256 << 10;
/// How often the end is looked for while the last bytes go out.
const TICK: Duration = Duration::from_millis(100);

/// The file without a name, and the thread that copies from it.
pub(super) struct Stream {
    scratch: Arc<File>,
    desk: Arc<Desk>,
    verified: Bitfield,
    /// Pieces of the log of verified ones that were looked at.
    seen: usize,
    /// The first piece that is not verified.
    next: u32,
}

/// What the thread and its owner share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that may go out, and that have.
    ready: u64,
    written: u64,
    /// Why no more can.
    failed: Option<io::Error>,
}

impl Stream {
    /// Makes the file for what a request asks for.
    ///
    /// # Errors
    /// Where standard output is a terminal or the content several files, or the system gives no file or thread.
    pub(super) fn start(request: &Request) -> Result<Self, Error> {
        if io::stdout().is_terminal() {
            return Err(Error::Usage(
                "-o - would write the content to the terminal; pipe it somewhere".to_owned(),
            ));
        }
        if request.piece.is_none() && !request.metainfo.is_single_file {
            return Err(Error::Usage("-o - is for a single file, and the torrent has several".to_owned()));
        }
        let folder = env::value("TMPDIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let scratch = nameless(&folder)
            .map_err(|error| DiskError::new("make a temporary file in", &folder, &error))
            .map(Arc::new)?;
        let desk = Arc::<Desk>::default();
        let (source, inside) = (Arc::clone(&scratch), Arc::clone(&desk));
        let copy = move || inside.copy(&source);
        thread::Builder::new().name("stdout".to_owned()).spawn(copy).map_err(Error::Thread)?;
        let verified = Bitfield::new(request.metainfo.geometry.piece_count());
        let next = request.piece.map_or(0, PieceIndex::get);
        Ok(Self { scratch, desk, verified, seen: 0, next })
    }

    /// Where the file can be opened, by this process alone.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.scratch.as_raw_fd()).into()
    }

    /// Lets go out what is verified by now.
    ///
    /// # Errors
    /// When nothing can go out any more.
    pub(super) fn advance(&mut self, request: &Request, shared: &Shared) -> Result<(), Error> {
        let (verified, seen) = (&mut self.verified, &mut self.seen);
        shared.with_verified(|log| {
            log[*seen..].iter().for_each(|&piece| _ = verified.set(piece));
            *seen = log.len();
        });
        let geometry = request.metainfo.geometry;
        let is_there = |piece: &PieceIndex| verified.get(*piece);
        let before = self.next;
        while geometry.piece(self.next).as_ref().is_some_and(is_there) {
            self.next += 1;
        }
        let first = request.piece.map_or(0, |piece| geometry.piece_offset(piece));
        let end = (u64::from(self.next) * u64::from(geometry.piece_len())).min(geometry.total_len());
        let mut state = self.desk.lock();
        if self.next > before {
            state.ready = end - first;
            self.desk.changed.notify_all();
        }
        state.failed.take().map_or(Ok(()), |error| Err(Error::Stdout(error)))
    }

    /// Waits until all has gone out.
    ///
    /// # Errors
    /// When it cannot, and when the user ends it.
    pub(super) fn finish(self, request: &Request, interrupt: &Interrupt) -> Result<(), Error> {
        let total = total(request);
        let mut state = self.desk.lock();
        state.ready = total;
        self.desk.changed.notify_all();
        while state.written < total {
            if let Some(error) = state.failed.take() {
                return Err(Error::Stdout(error));
            }
            check_interrupt(interrupt, Progress { done: total, total })?;
            state = self.desk.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Desk {
    /// Copies what may go out, for as long as it can.
    fn copy(&self, source: &File) {
        let mut buffer = vec![0; COPY_LEN];
        let mut at = 0;
        loop {
            let mut state = self.lock();
            while state.ready == at {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let len = (state.ready - at).min(COPY_LEN as u64) as usize;
            drop(state);
            let part = &mut buffer[..len];
            let copied = source.read_exact_at(part, at).and_then(|()| {
                let mut stdout = io::stdout().lock();
                stdout.write_all(part).and_then(|()| stdout.flush())
            });
            let mut state = self.lock();
            match copied {
                Ok(()) => at += len as u64,
                Err(error) => state.failed = Some(error),
            }
            state.written = at;
            self.changed.notify_all();
            if state.failed.is_some() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file in that folder that no name leads to, and that is gone with its last descriptor.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        return Ok(file);
    }
    // Not every file system has such files.
    let path = folder.join(format!(".ringtide-{:016x}", random::number()));
    let file = options.create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_nameless_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = nameless(folder.path()).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        assert_eq!((file.metadata().unwrap().nlink(), fs::read_dir(folder.path()).unwrap().count()), (0, 0));
        assert!(nameless(&folder.path().join("missing")).is_err());
    }
}
