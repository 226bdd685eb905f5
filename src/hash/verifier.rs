//! Threads that hash finished pieces in batches: full lanes when pieces flow, promptly when they trickle.
//!
//! One queue behind one lock. Of the threads without work one at most *gathers*: it waits for the queue to become a
//! full batch, for as long as pieces keep coming within [`patience`] of each other; the others sleep. A submitter wakes
//! a sleeper for the first job of an empty queue, and the gatherer for the job that fills the batch; for all other jobs
//! it wakes nobody.
//!
//! Invariant: while the queue is not empty, a thread gathers, is busy (and looks at the queue afterwards), or has been
//! woken. So no job is forgotten.

use std::collections::VecDeque;
use std::io;
use std::panic;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use smallvec::SmallVec;

use super::kernel::{Kernel, digest_batch};
use super::message::{Digest, Message};

/// A piece to hash, with what its owner wants back beside the digest.
pub trait Job: Send + 'static {
    /// Bytes of the message.
    fn len(&self) -> usize;

    /// Has the message at hand, for jobs whose bytes may have to be read first. Called once, on the thread that hashes
    /// the job and before [`Job::message`], which is not called where this returns the digest: that is for messages too
    /// long to be in memory as a whole.
    fn prepare(&mut self) -> Option<Digest> {
        None
    }

    /// The message, readable as long as the job lives.
    fn message(&self) -> Message<'_>;

    /// Whether the message has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The jobs of a batch, each with its digest.
pub type Hashed<'a, J> = dyn Iterator<Item = (J, Digest)> + 'a;

/// Takes the jobs of a batch back.
type Done<J> = dyn Fn(&mut Hashed<'_, J>) + Send + Sync;

/// The threads that hash jobs.
///
/// The queue has no limit of its own, as nobody should wait in `submit`: whoever submits asks [`Verifier::is_behind`] before
/// it receives more.
///
/// Dropping it abandons: the batches being hashed are finished and reported, the jobs still queued are dropped
/// unhashed. [`Verifier::finish`] hashes them all first. Both wait for the threads, so neither can hang unless `done`
/// does; the one exception is a drop inside `done`, which cannot wait for the thread it runs on.
///
/// A panic in a job or in `done` is a bug and ends the thread it happened on, with the jobs of its batch. It does not go
/// unseen: from then on `submit`, `submit_many` and `flush` panic, and `finish` passes on the panic itself.
pub struct Verifier<J: Job> {
    shared: Arc<Shared<J>>,
}

impl<J: Job> Verifier<J> {
    /// Starts the first thread, of up to `threads` (at least one). Another is started whenever a thread that takes a
    /// batch leaves a full one behind and nobody is idle.
    ///
    /// `done` gets the jobs of a batch back, each with its digest, on the thread that hashed them and with no lock held.
    /// While it runs, that thread hashes nothing. What it does not take is dropped.
    ///
    /// # Errors
    /// Where the thread cannot be started. (If a later one cannot, those there are do its work.)
    pub fn start(
        threads: usize,
        done: impl Fn(&mut Hashed<'_, J>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(Kernel::best().lanes())),
            job_waits: Condvar::new(),
            batch_waits: Condvar::new(),
            idle_waits: Condvar::new(),
            threads_max: threads.max(1),
            done: Box::new(done),
        });
        spawn(&shared, &mut shared.lock())?;
        Ok(Self { shared })
    }

    /// Queues a job.
    ///
    /// # Panics
    /// Where a thread of the verifier has panicked.
    pub fn submit(&self, job: J) {
        self.submit_many([job]);
    }

    /// Queues jobs at the cost of one lock.
    ///
    /// # Panics
    /// Where a thread of the verifier has panicked.
    pub fn submit_many(&self, jobs: impl IntoIterator<Item = J>) {
        let jobs: SmallVec<[_; 1]> = jobs.into_iter().map(|job| (job.len(), job)).collect();
        let mut queue = self.shared.lock();
        queue.assert_sound();
        let (was_empty, was_ready) = (queue.jobs.is_empty(), queue.is_ready());
        queue.push(jobs);
        let wake = if queue.jobs.is_empty() {
            None
        } else if queue.gathering {
            (!was_ready && queue.is_ready()).then_some(&self.shared.batch_waits)
        } else {
            (was_empty && queue.sleepers > 0).then_some(&self.shared.job_waits)
        };
        drop(queue);
        if let Some(wake) = wake {
            wake.notify_one();
        }
    }

    /// Whether so much is queued that whoever submits should receive no more for a moment.
    pub fn is_behind(&self) -> bool {
        self.shared.lock().is_full()
    }

    /// Whether any job is queued, or being hashed.
    pub fn has_jobs(&self) -> bool {
        self.shared.lock().has_jobs()
    }

    /// Has all that is queued hashed without waiting for more, for when no more pieces are under way. Returns at once.
    ///
    /// # Panics
    /// Where a thread of the verifier has panicked.
    pub fn flush(&self) {
        let mut queue = self.shared.lock();
        queue.assert_sound();
        queue.flushing = !queue.jobs.is_empty();
        drop(queue);
        self.shared.batch_waits.notify_one();
    }

    /// Waits until all that is queued is hashed and reported. Not to be called in `done`.
    pub fn settle(&self) {
        let mut queue = self.shared.lock();
        while !queue.panicked && queue.has_jobs() {
            queue.flushing = !queue.jobs.is_empty();
            self.shared.batch_waits.notify_one();
            queue = self.shared.idle_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hashes and reports all that is queued, then ends the threads.
    ///
    /// # Panics
    /// Where a thread of the verifier has panicked: with its panic.
    pub fn finish(self) {
        if let Err(panic) = self.shared.close_and_join() {
            panic::resume_unwind(panic);
        }
    }
}

impl<J: Job> Drop for Verifier<J> {
    fn drop(&mut self) {
        let abandoned = self.shared.lock().take_all();
        drop(abandoned);
        // The panic of a thread was printed when it happened; a drop must not panic again.
        let _ = self.shared.close_and_join();
    }
}

/// What the threads and the [`Verifier`] have in common.
struct Shared<J> {
    queue: Mutex<Queue<J>>,
    /// Idle threads sleep here until there is a job.
    job_waits: Condvar,
    /// The gatherer sleeps here until there is a batch.
    batch_waits: Condvar,
    /// Whoever waits for all jobs to be reported sleeps here.
    idle_waits: Condvar,
    threads_max: usize,
    done: Box<Done<J>>,
}

/// The state behind the lock.
struct Queue<J> {
    /// The jobs with their lengths.
    jobs: VecDeque<(usize, J)>,
    /// The lengths of all jobs together.
    bytes: usize,
    /// The lanes of the best kernel, which a full batch fills at least once.
    lanes: usize,
    /// How many jobs were ever queued, by which the gatherer sees whether they still come.
    submitted: u64,
    /// A thread waits for the queue to become a batch.
    gathering: bool,
    /// The threads that wait for a job.
    sleepers: usize,
    /// The threads that have a batch.
    busy: usize,
    /// All that is queued is ready as it is.
    flushing: bool,
    /// No job comes any more.
    closed: bool,
    /// A thread ended by a panic.
    panicked: bool,
    threads: Vec<JoinHandle<()>>,
}

/// Bytes that make a batch ready however few pieces they are, so that huge pieces neither wait long nor fill the
/// memory. Four pieces of 16 MiB are just enough for four interleaved streams.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes below which full lanes are not enough: a batch is worth waking a thread for, also of small pieces.
const BATCH_BYTES_MIN: usize = 2 * 1024 * 1024;

/// Jobs that make a batch ready however small they are.
const BATCH_LEN_MAX: usize = 256;

/// Bytes queued above which the threads are behind, if there are [`QUEUE_LEN`] jobs too. So pieces never come faster than
/// they are verified for long: the peers wait, as their sockets are not read meanwhile.
const QUEUE_BYTES: usize = 24 * 1024 * 1024;

/// Jobs that fill the lanes of several threads.
const QUEUE_LEN: usize = 128;

/// Bytes queued above which the threads are behind where the pieces are so long that these are fewer jobs.
const QUEUE_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Whether so many jobs of so many bytes are a full batch.
const fn is_batch(jobs: usize, bytes: usize, lanes: usize) -> bool {
    (jobs >= lanes && bytes >= BATCH_BYTES_MIN) || jobs >= BATCH_LEN_MAX || bytes >= BATCH_BYTES_MAX
}

/// What the gatherer waits for another piece at least. Chosen, not tuned: long beside a wake-up, short beside a download.
const PATIENCE_MIN: Duration = Duration::from_millis(2);

/// Bytes per second below which lanes need not be filled: single streams then cost an eighth of a core.
const PATIENCE_RATE: u64 = 256 * 1024 * 1024;

/// How long the gatherer waits for the next piece of `len` bytes: as long as it takes to arrive at a rate at which lanes
/// are worth it. For a full batch of 256 KiB pieces that is at most 48 ms in all, and 3 ms for a lone one.
fn patience(len: usize) -> Duration {
    PATIENCE_MIN + Duration::from_micros(len as u64 * 1_000_000 / PATIENCE_RATE)
}

impl<J> Queue<J> {
    fn new(lanes: usize) -> Self {
        Self {
            jobs: VecDeque::new(),
            bytes: 0,
            lanes,
            submitted: 0,
            gathering: false,
            sleepers: 0,
            busy: 0,
            flushing: false,
            closed: false,
            panicked: false,
            threads: Vec::new(),
        }
    }

    /// Whether the jobs should be hashed without waiting for more.
    fn is_ready(&self) -> bool {
        is_batch(self.jobs.len(), self.bytes, self.lanes) || self.flushing || self.closed
    }

    /// Whether any job is queued, or being hashed.
    fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() || self.busy > 0
    }

    /// Whether the threads cannot keep up.
    fn is_full(&self) -> bool {
        let has_batches = self.jobs.len() >= QUEUE_LEN && self.bytes >= QUEUE_BYTES;
        has_batches || (self.bytes >= QUEUE_BYTES_MAX && self.jobs.len() > 1)
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = (usize, J)>) {
        for (len, job) in jobs {
            self.bytes = self.bytes.saturating_add(len);
            self.submitted += 1;
            self.jobs.push_back((len, job));
        }
    }

    /// Takes the next batch: a full one, or all there is. After the first job it has at most [`BATCH_BYTES_MAX`] bytes.
    fn take_batch(&mut self, batch: &mut Batch<J>) {
        let mut bytes = 0_usize;
        while !is_batch(batch.len(), bytes, self.lanes)
            && let Some((len, _)) = self.jobs.front()
            && (bytes == 0 || bytes.saturating_add(*len) <= BATCH_BYTES_MAX)
            && let Some((len, job)) = self.jobs.pop_front()
        {
            bytes = bytes.saturating_add(len);
            batch.push(job);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.flushing &= !self.jobs.is_empty();
    }

    /// Takes all jobs.
    fn take_all(&mut self) -> VecDeque<(usize, J)> {
        self.bytes = 0;
        std::mem::take(&mut self.jobs)
    }

    fn assert_sound(&self) {
        assert!(!self.panicked, "a verifier thread has panicked");
    }
}

/// Jobs that are hashed together.
type Batch<J> = Vec<J>;

impl<J: Job> Shared<J> {
    /// The queue. No foreign code runs under the lock, so it is whole even after a panic.
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes the jobs and reports them.
    fn hash(&self, batch: &mut Batch<J>) {
        let mut digests = vec![[0; 20]; batch.len()];
        let ready: Vec<_> = batch.iter_mut().map(Job::prepare).collect();
        let messages: Vec<_> = batch
            .iter()
            .zip(&ready)
            .map(|(job, ready)| if ready.is_some() { Message::default() } else { job.message() })
            .collect();
        digest_batch(&messages, &mut digests);
        drop(messages);
        let digests = ready.into_iter().zip(digests).map(|(ready, digest)| ready.unwrap_or(digest));
        (self.done)(&mut batch.drain(..).zip(digests));
    }

    /// Says that no more jobs come, and waits for the threads to end.
    fn close_and_join(&self) -> thread::Result<()> {
        let mut queue = self.lock();
        queue.closed = true;
        let threads = std::mem::take(&mut queue.threads);
        drop(queue);
        self.job_waits.notify_all();
        self.batch_waits.notify_all();
        let me = thread::current().id();
        let others = threads.into_iter().filter(|thread| thread.thread().id() != me);
        others.map(JoinHandle::join).fold(Ok(()), Result::and)
    }
}

/// Starts one more thread.
fn spawn<J: Job>(shared: &Arc<Shared<J>>, queue: &mut Queue<J>) -> io::Result<()> {
    let name = format!("ringtide-hash-{}", queue.threads.len());
    let worker = Arc::clone(shared);
    queue.threads.push(thread::Builder::new().name(name).spawn(move || run(&worker))?);
    Ok(())
}

/// The life of a thread.
fn run<J: Job>(shared: &Arc<Shared<J>>) {
    let _alarm = Alarm(shared);
    let mut batch = Batch::new();
    loop {
        next_batch(shared, &mut batch);
        if batch.is_empty() {
            return;
        }
        shared.hash(&mut batch);
        let mut queue = shared.lock();
        queue.busy -= 1;
        let is_idle = !queue.has_jobs();
        drop(queue);
        if is_idle {
            shared.idle_waits.notify_all();
        }
    }
}

/// Waits for a batch and takes it; takes nothing when no more jobs come.
fn next_batch<J: Job>(shared: &Arc<Shared<J>>, batch: &mut Batch<J>) {
    let mut queue = shared.lock();
    while !queue.is_ready() {
        if queue.jobs.is_empty() || queue.gathering {
            queue.sleepers += 1;
            queue = shared.job_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.sleepers -= 1;
        } else {
            let submitted = queue.submitted;
            queue = gather(shared, queue);
            // Another thread may have taken what was there.
            if queue.submitted == submitted && !queue.jobs.is_empty() {
                break;
            }
        }
    }
    queue.take_batch(batch);
    queue.busy += usize::from(!batch.is_empty());
    if queue.jobs.is_empty() {
        return;
    }
    if queue.sleepers > 0 {
        shared.job_waits.notify_one();
    } else if queue.is_ready() && !queue.closed && queue.threads.len() < shared.threads_max {
        // Without another thread its work is done by those there are.
        if let Err(error) = spawn(shared, &mut queue) {
            tracing::warn!("cannot start another hash thread: {error}");
        }
    }
}

/// Waits until there is a batch, at most for the time that the next piece may take.
fn gather<'q, J>(shared: &'q Shared<J>, mut queue: MutexGuard<'q, Queue<J>>) -> MutexGuard<'q, Queue<J>> {
    let wait = patience(queue.jobs.front().map_or(0, |(len, _)| *len));
    queue.gathering = true;
    (queue, _) = shared.batch_waits.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
    queue.gathering = false;
    queue
}

/// Notes it when its thread ends by a panic.
struct Alarm<'q, J: Job>(&'q Shared<J>);

impl<J: Job> Drop for Alarm<'_, J> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().panicked = true;
            self.0.idle_waits.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use sha1::{Digest as _, Sha1};

    use super::*;

    struct Piece {
        bytes: Vec<u8>,
        dropped: Arc<AtomicUsize>,
    }

    impl Job for Piece {
        fn len(&self) -> usize {
            self.bytes.len()
        }

        fn message(&self) -> Message<'_> {
            Message::from(&self.bytes[..])
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pieces(count: usize, dropped: &Arc<AtomicUsize>) -> impl Iterator<Item = Piece> {
        (0..count).map(|i| Piece { bytes: vec![i as u8; i * 7 % 1000], dropped: Arc::clone(dropped) })
    }

    /// Passes the jobs of a batch on one by one.
    fn each<J>(done: impl Fn(J, Digest)) -> impl Fn(&mut Hashed<'_, J>) {
        move |hashed| hashed.for_each(|(job, digest)| done(job, digest))
    }

    fn assert_right(piece: &Piece, digest: Digest) {
        assert_eq!(digest, <[u8; 20]>::from(Sha1::digest(&piece.bytes)));
    }

    #[test]
    fn a_trickle_is_hashed_piece_by_piece() {
        let (report, reports) = mpsc::channel();
        let verifier =
            Verifier::start(4, each(move |piece, digest| report.send((piece, digest)).unwrap())).unwrap();
        for piece in pieces(20, &Arc::default()) {
            verifier.submit(piece);
            let (piece, digest) = reports.recv().unwrap();
            assert_right(&piece, digest);
        }
        assert_eq!(verifier.shared.lock().threads.len(), 1, "a trickle needs no second thread");
    }

    /// A piece that is hashed bit by bit beforehand when its number is odd.
    struct Long(u8);

    impl Job for Long {
        fn len(&self) -> usize {
            1
        }

        fn prepare(&mut self) -> Option<Digest> {
            (self.0 % 2 == 1).then_some([self.0; 20])
        }

        fn message(&self) -> Message<'_> {
            assert_eq!(self.0 % 2, 0, "its digest is known");
            Message::from(std::slice::from_ref(&self.0))
        }
    }

    #[test]
    fn a_job_may_bring_its_digest() {
        let (report, reports) = mpsc::channel();
        let done = move |job: Long, digest| report.send((job.0, digest)).unwrap();
        let verifier = Verifier::start(2, each(done)).unwrap();
        verifier.submit_many((0..50).map(Long));
        verifier.finish();
        let digests: HashMap<u8, Digest> = reports.iter().collect();
        assert_eq!(digests.len(), 50);
        for (number, digest) in digests {
            let expected = if number % 2 == 1 { [number; 20] } else { Sha1::digest([number]).into() };
            assert_eq!(digest, expected);
        }
    }

    #[test]
    fn a_burst_is_hashed_whole() {
        let dropped = Arc::default();
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let verifier = Verifier::start(
            3,
            each(move |piece: Piece, digest| {
                assert_right(&piece, digest);
                count.fetch_add(1, Ordering::Relaxed);
            }),
        )
        .unwrap();
        verifier.submit_many(pieces(1000, &dropped));
        for piece in pieces(1000, &dropped) {
            verifier.submit(piece);
        }
        verifier.submit_many([]);
        verifier.flush();
        verifier.finish();
        assert_eq!(done.load(Ordering::Relaxed), 2000);
        assert_eq!(dropped.load(Ordering::Relaxed), 2000);
    }

    #[test]
    fn a_flush_reaches_all_that_is_queued_and_ends_with_it() {
        let (report, reports) = mpsc::channel();
        let verifier = Verifier::start(1, each(move |_, _| report.send(()).unwrap())).unwrap();
        verifier.flush();
        assert!(!verifier.shared.lock().flushing, "there was nothing to flush");
        verifier.submit_many(pieces(5, &Arc::default()));
        verifier.flush();
        assert_eq!(reports.iter().take(5).count(), 5);
        assert!(!verifier.shared.lock().flushing);
    }

    #[test]
    fn who_settles_waits_for_all_reports() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let verifier = Verifier::start(
            2,
            each(move |_, _| {
                thread::sleep(Duration::from_micros(100));
                count.fetch_add(1, Ordering::Relaxed);
            }),
        )
        .unwrap();
        verifier.settle();
        for total in [1, 400, 401] {
            let before = done.load(Ordering::Relaxed);
            verifier.submit_many(pieces(total - before, &Arc::default()));
            verifier.settle();
            assert_eq!(done.load(Ordering::Relaxed), total);
        }
    }

    #[test]
    fn a_backlog_starts_another_thread() {
        let (start, started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let verifier = Verifier::start(
            2,
            each(move |_, _| {
                start.send(thread::current().id()).unwrap();
                let _ = released.lock().unwrap().recv();
            }),
        )
        .unwrap();
        verifier.submit_many(pieces(4 * BATCH_LEN_MAX, &Arc::default()));
        // The first batch is stuck in `done`, so the second report is another thread's.
        assert_ne!(started.recv().unwrap(), started.recv().unwrap());
        drop(release);
        verifier.finish();
        assert_eq!(started.iter().count(), 4 * BATCH_LEN_MAX - 2);
    }

    #[test]
    fn a_drop_abandons_what_is_queued() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let (start, started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let verifier = Verifier::start(
            1,
            each(move |_, _| {
                let _ = start.send(());
                let _ = released.lock().unwrap().recv();
                count.fetch_add(1, Ordering::Relaxed);
            }),
        )
        .unwrap();
        verifier.submit_many(pieces(100, &dropped));
        started.recv().unwrap();
        let queued = verifier.shared.lock().jobs.len();
        let waiting = thread::spawn(move || drop(verifier));
        while dropped.load(Ordering::Relaxed) < queued {
            thread::yield_now();
        }
        drop(release);
        waiting.join().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 100 - queued);
        assert_eq!(dropped.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn done_may_drop_the_verifier() {
        let own: Arc<Mutex<Option<Verifier<Piece>>>> = Arc::default();
        let inner = Arc::clone(&own);
        let (report, reports) = mpsc::channel();
        let verifier = Verifier::start(
            1,
            each(move |_, _| {
                drop(inner.lock().unwrap().take());
                report.send(()).unwrap();
            }),
        )
        .unwrap();
        let mut place = own.lock().unwrap();
        verifier.submit_many(pieces(3, &Arc::default()));
        *place = Some(verifier);
        drop(place);
        assert_eq!(reports.recv(), Ok(()));
    }

    #[test]
    fn a_panic_is_passed_on() {
        let verifier = Verifier::start(1, |_| panic!("a bug in done")).unwrap();
        verifier.submit_many(pieces(1, &Arc::default()));
        while !verifier.shared.lock().panicked {
            thread::yield_now();
        }
        let submit = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            verifier.submit_many(pieces(1, &Arc::default()));
        }));
        assert!(submit.is_err());
        let finish = panic::catch_unwind(panic::AssertUnwindSafe(|| verifier.finish()));
        assert_eq!(finish.unwrap_err().downcast_ref(), Some(&"a bug in done"));
    }

    #[test]
    fn who_is_behind_says_so() {
        let mut queue = Queue::new(4);
        queue.push([(QUEUE_BYTES_MAX, 0)]);
        assert!(!queue.is_full(), "one piece may be as long as it likes");
        queue.push([(1, 0)]);
        assert!(queue.is_full());
        queue.take_all();
        queue.push((0..10 * BATCH_LEN_MAX).map(|i| (1, i)));
        assert!(!queue.is_full(), "many small pieces are soon hashed");
        queue.push([(QUEUE_BYTES, 0)]);
        assert!(queue.is_full());
    }

    #[test]
    fn a_batch_of_full_lanes_is_worth_a_wake_up() {
        let mut queue = Queue::new(4);
        let small = BATCH_BYTES_MIN / 8;
        queue.push((0..7).map(|i| (small, i)));
        assert!(!queue.is_ready());
        queue.push((7..20).map(|i| (small, i)));
        assert!(queue.is_ready());
        let mut batch = Batch::new();
        queue.take_batch(&mut batch);
        assert_eq!(batch.len(), 8);
    }

    #[test]
    fn a_batch_is_bounded_in_jobs_and_bytes() {
        let mut queue = Queue::new(4);
        let mut batch = Batch::new();
        queue.push((0..BATCH_LEN_MAX + 1).map(|i| (1, i)));
        queue.take_batch(&mut batch);
        assert_eq!((batch.len(), queue.jobs.len(), queue.bytes), (BATCH_LEN_MAX, 1, 1));
        assert!(!queue.is_ready());
        queue.push([(BATCH_BYTES_MAX, 0), (usize::MAX, 1)]);
        assert!(queue.is_ready());
        for left in [2, 1, 0] {
            batch.clear();
            queue.take_batch(&mut batch);
            assert_eq!((batch.len(), queue.jobs.len()), (1, left));
        }
    }
}
