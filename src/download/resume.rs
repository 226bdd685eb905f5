//! Resume: what this run believes of the last one's record, and what it writes down for the next.
//!
//! What is believed depends on how the last run ended:
//!
//! - It closed its record, and no file has changed since: the pieces that were synced are there, as far as it could
//!   tell that nobody else wrote to their files during the run, which on some systems it cannot where it writes to
//!   them itself by `pwrite`. Those that were only verified may be lost without a trace where the disk fails later, or with the
//!   machine: if that has not gone down they are not fetched again, and hashed before the download is called done.
//! - It closed its record, and a file has changed since: no piece of it is believed, and no file passes for half done,
//!   for somebody has written after us.
//! - It was killed, the machine went down, or the disk failed: the record stayed open. Its pieces were synced before
//!   they were recorded, but the times of the files cannot tell whether somebody has changed them. They are treated
//!   like those that were only verified.
//! - The record is damaged, of another version or torrent, or the files are others: nothing of it is believed.
//!
//! All other pieces are hashed first, as far as the files hold data there.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::{Observer, Request};
use crate::disk::record::{Record, RecordFile, Standing, Unreadable, boot};
use crate::disk::{DiskError, Output, Site};
use crate::meta::geometry::{Geometry, PieceIndex};
use crate::net::shared::Shared;
use crate::os::clock;
use crate::swarm::bitfield::Bitfield;

/// Between records lies so many times the time that it takes to sync for one.
const SYNC_SHARE: u32 = 10;
/// A record may come so much later than planned before it is no longer believed.
const LATE_MAX: Duration = Duration::from_secs(60);
/// A thread that waits for the disk is waited for so long at the end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What is known of an output before anything is hashed. The sets have no piece in common.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// There and right.
    pub(super) trusted: Bitfield,
    /// Taken to be there, and to be hashed before the end.
    pub(super) provisional: Bitfield,
    /// Whether the files are those of a download of this torrent, though no piece of it may be whole, and others may
    /// have written to them since.
    pub(super) names_files: bool,
    /// Whether nobody has written to the files since.
    pub(super) is_unchanged: bool,
}

impl Known {
    /// Nothing is.
    pub(super) fn nothing(geometry: Geometry) -> Self {
        let none = Bitfield::new(geometry.piece_count());
        Self { trusted: none.clone(), provisional: none, names_files: false, is_unchanged: false }
    }

    /// Whether the piece is in one of the sets.
    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        self.trusted.get(piece) || self.provisional.get(piece)
    }
}

/// The record of an output, and what belongs in each.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    file: RecordFile,
    info_hash: [u8; 20],
    geometry: Geometry,
    files: [u8; 20],
    boot: Option<[u8; 16]>,
}

impl Notes {
    /// Reads the record of an output, and says so where it is of no use. There is none for single pieces, nor where it
    /// would have to replace somebody else's file.
    pub(super) fn open(request: &Request, site: &Site, observer: &mut dyn Observer) -> (Option<Self>, Known) {
        let metainfo = &request.metainfo;
        let geometry = metainfo.geometry;
        let nothing = Known::nothing(geometry);
        let file = if request.piece.is_none() { RecordFile::beside(&request.output) } else { None };
        let Some(file) = file else { return (None, nothing) };
        let path = file.path().display().to_string();
        let notes =
            Self { file, info_hash: metainfo.info_hash.0, geometry, files: site.stamp().files, boot: boot() };
        let known = match notes.read(site) {
            Err(Unusable::Keep(why)) => {
                observer.notice(&format!("{path} {why}: nothing is recorded for resuming"));
                return (None, nothing);
            }
            Err(Unusable::Replace(why)) => {
                observer.notice(&format!("{path} {why}: everything there is checked"));
                nothing
            }
            Err(Unusable::Stale { names_files }) => {
                observer.notice(&format!("{path} is older than the files: everything there is checked"));
                Known { names_files, ..nothing }
            }
            Ok(known) => known.unwrap_or(nothing),
        };
        (Some(notes), known)
    }

    /// What the record says that can be believed; `None` where there is no record.
    fn read(&self, site: &Site) -> Result<Option<Known>, Unusable> {
        let bytes = match self.file.read(self.geometry) {
            Ok(Standing::Ours(bytes)) => bytes,
            Ok(Standing::Free) => return Ok(None),
            Ok(Standing::Doubtful) => return Err(Unusable::replace("may have been written by others")),
            Err(error) => return Err(Unusable::Keep(format!("cannot be read ({error})"))),
        };
        let record = Record::parse(&bytes).map_err(|unreadable| match unreadable {
            Unreadable::Foreign => Unusable::Keep("is no resume record".to_owned()),
            Unreadable::Version(version) => Unusable::replace(format!("is of version {version}")),
            Unreadable::Damaged => Unusable::replace("is damaged"),
        })?;
        if record.info_hash != self.info_hash || record.geometry != self.geometry {
            return Err(Unusable::replace("is of another torrent"));
        }
        self.judge(&record, site).map(Some)
    }

    fn judge(&self, record: &Record, site: &Site) -> Result<Known, Unusable> {
        let found = site.stamp();
        if record.files != found.files {
            return Err(Unusable::replace("is about other files"));
        }
        let piece_count = self.geometry.piece_count();
        let set = |bytes: &[u8]| {
            Bitfield::from_wire(bytes, piece_count).map_err(|_| Unusable::replace("is damaged"))
        };
        let (durable, verified) = (set(&record.durable)?, set(&record.verified)?);
        let mut known = Known { names_files: true, ..Known::nothing(self.geometry) };
        if !record.is_closed {
            if found.written_at > record.open_until {
                return Err(Unusable::Stale { names_files: true });
            }
            known.provisional = durable;
            return Ok(known);
        }
        if record.times != found.times {
            // Our last write came before it, so that what is there and not right may be somebody else's.
            return Err(Unusable::Stale { names_files: false });
        }
        known.is_unchanged = true;
        if self.boot == Some(record.boot) {
            for piece in self.geometry.pieces().filter(|&piece| verified.get(piece) && !durable.get(piece)) {
                known.provisional.set(piece);
            }
        }
        known.trusted = durable;
        Ok(known)
    }

    /// The same for an output that was made since.
    pub(super) fn of(self, output: &Output) -> Self {
        Self { files: output.files_digest(), ..self }
    }

    /// Removes the record: it is of no use, or of no use any more.
    pub(super) fn remove(&self) {
        if let Err(error) = self.file.remove() {
            tracing::warn!("cannot remove {}: {error}", self.file.path().display());
        }
    }

    /// Whether it could be written; why not has been said then.
    fn write(&self, record: &Record, sync: bool) -> bool {
        let written = self.file.write(record, sync);
        if let Err(error) = &written {
            tracing::warn!("cannot write {}: {error}", self.file.path().display());
        }
        written.is_ok()
    }
}

/// Why a record is of no use.
enum Unusable {
    /// It is not ours, so it stays.
    Keep(String),
    /// It may be replaced.
    Replace(String),
    /// It is of these files, but they were written to since. It may be replaced. `names_files` says whether that may
    /// have been us.
    Stale { names_files: bool },
}

impl Unusable {
    fn replace(why: impl Into<String>) -> Self {
        Self::Replace(why.into())
    }
}

/// Writes down what is verified: from time to time, after it was synced, and at an end that is not the last.
pub(super) struct Recorder {
    writer: Writer,
    every: Duration,
    first_at: Instant,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What will be recorded.
#[derive(Debug)]
struct Sets {
    durable: Bitfield,
    verified: Bitfield,
    /// So much of the log of verified pieces has been taken in.
    seen: usize,
    /// What nobody has looked at in this run.
    provisional: Bitfield,
    /// The last record was written, or there shall be none.
    is_final: bool,
    /// A sync has failed: what was verified may be gone.
    is_lost: bool,
}

impl Recorder {
    /// A recorder of a download that begins with the pieces of `have`; those of `known` are recorded already. The first
    /// record is written when the download has lasted for `every`, and others as long after that at least.
    pub(super) fn new(
        notes: Notes,
        every: Duration,
        known: &Known,
        have: &Bitfield,
        output: Arc<Output>,
        shared: Arc<Shared>,
    ) -> Self {
        let (durable, provisional) = (known.trusted.clone(), known.provisional.clone());
        let sets = Arc::new(Mutex::new(Sets {
            durable,
            verified: have.clone(),
            seen: 0,
            provisional,
            is_final: false,
            is_lost: false,
        }));
        let writer = Writer { notes, output, shared, sets };
        // From now on the files change. And should this run be killed before anything is verified, the next one shall
        // know whose they are.
        writer.save_open(every, false);
        Self { writer, every, first_at: clock::now() + every, thread: None }
    }

    /// Starts to write records once the download has lasted so long.
    pub(super) fn tick(&mut self, now: Instant, failed: impl FnOnce() -> Box<dyn Fn(DiskError) + Send>) {
        if self.thread.is_some() || now < self.first_at {
            return;
        }
        let (stop, stopped) = mpsc::channel();
        let (writer, every, failed) = (self.writer.clone(), self.every, failed());
        let work = move || {
            if let Err(error) = writer.run(every, &stopped) {
                failed(error);
            }
        };
        match thread::Builder::new().name("ringtide-record".to_owned()).spawn(work) {
            Ok(thread) => self.thread = Some((stop, thread)),
            Err(error) => {
                tracing::warn!("no thread to write the resume record: {error}");
                self.first_at = now + self.every;
            }
        }
    }

    /// Writes no more records, and waits for the one under way: for a while, or with `sync` until what its sync says is
    /// known. To be called when the connections have ended. The record stays open until it is closed or removed.
    pub(super) fn stop(&mut self, sync: bool) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let deadline = Instant::now() + CLOSE_PATIENCE;
            while !thread.is_finished() && (sync || Instant::now() < deadline) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // A thread that still waits for the disk must not write when that is over.
        lock(&self.writer.sets).is_final = true;
    }

    /// Writes the record of a download that has ended before it was done. To be called when this was stopped, and when
    /// nothing is changed in the files any more, nor in their lengths.
    pub(super) fn close(self) {
        let Writer { notes, output, sets, .. } = &self.writer;
        output.rest();
        let mut sets = lock(sets);
        if sets.is_lost {
            return;
        }
        self.writer.take_verified(&mut sets);
        // The times of the files tell of what happens to them from now on, and not of what happened before.
        for piece in output.doubtful() {
            sets.durable.clear(piece);
        }
        let record = match output.stamp() {
            Ok(stamp) => Record { is_closed: true, times: stamp.times, ..self.writer.record(&sets) },
            Err(error) => return tracing::debug!("no resume record: {error}"),
        };
        notes.write(&record, false);
    }
}

/// What writes a record, on whatever thread.
#[derive(Clone)]
struct Writer {
    notes: Notes,
    output: Arc<Output>,
    shared: Arc<Shared>,
    sets: Arc<Mutex<Sets>>,
}

impl Writer {
    /// Writes records until it is told to stop.
    fn run(&self, every: Duration, stopped: &mpsc::Receiver<()>) -> Result<(), DiskError> {
        let mut pause = Duration::ZERO;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let started = Instant::now();
            let fresh = self.take_verified(&mut lock(&self.sets));
            if let Err(error) = self.output.sync_pieces(fresh.iter().copied()) {
                // Nobody knows what is on the disk of all that was verified.
                let mut sets = lock(&self.sets);
                (sets.is_final, sets.is_lost) = (true, true);
                self.notes.remove();
                return Err(error);
            }
            let mut sets = lock(&self.sets);
            for piece in fresh {
                sets.durable.set(piece);
            }
            drop(sets);
            pause = every.max(started.elapsed() * SYNC_SHARE);
            self.save_open(pause, true);
        }
        Ok(())
    }

    /// Takes in what was verified meanwhile. Returns the pieces that may not be on the disk.
    fn take_verified(&self, sets: &mut Sets) -> Vec<PieceIndex> {
        sets.seen = self.shared.with_verified(|pieces| {
            for &piece in &pieces[sets.seen..] {
                sets.verified.set(piece);
            }
            pieces.len()
        });
        let geometry = self.notes.geometry;
        geometry.pieces().filter(|&piece| sets.verified.get(piece) && !sets.durable.get(piece)).collect()
    }

    /// Writes down the durable pieces while the download goes on; the next record is to follow after `pause`.
    fn save_open(&self, pause: Duration, sync: bool) {
        let mut sets = lock(&self.sets);
        // Where one cannot be written, the others could not either.
        sets.is_final = sets.is_final || !self.notes.write(&self.open_record(&sets, pause), sync);
    }

    fn open_record(&self, sets: &Sets, pause: Duration) -> Record {
        let until = SystemTime::now() + pause + LATE_MAX;
        let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let open_until = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
        let durable = union(&sets.durable, &sets.provisional).to_wire();
        Record { open_until, verified: durable.clone(), durable, ..self.record(sets) }
    }

    fn record(&self, sets: &Sets) -> Record {
        let Notes { info_hash, geometry, files, boot, .. } = self.notes;
        Record {
            info_hash,
            geometry,
            open_until: 0,
            // A boot without a name is never the same as another.
            boot: boot.unwrap_or_default(),
            is_closed: false,
            files,
            times: [0; 20],
            durable: sets.durable.to_wire(),
            verified: union(&sets.verified, &sets.provisional).to_wire(),
        }
    }
}

fn union(one: &Bitfield, other: &Bitfield) -> Bitfield {
    let mut both = one.clone();
    both.set_all(other);
    both
}

fn lock(sets: &Mutex<Sets>) -> std::sync::MutexGuard<'_, Sets> {
    sets.lock().unwrap_or_else(PoisonError::into_inner)
}
