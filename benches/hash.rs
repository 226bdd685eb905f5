//! Throughput of every SHA-1 kernel that this CPU can run, beside the `sha1` crate.
//!
//! `cargo bench --bench hash`; with `RINGTIDE_BENCH_SMOKE=1` it runs for a moment only, to show that it works. Each
//! round measures every kernel once, so that what else the machine does hits all alike; shown are the median rate and
//! the median, over the rounds, of the ratio to the `sha1` crate in the same round. Every digest is compared with its.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::env;
use std::hint::black_box;
use std::time::Instant;

use ringtide::hash::{Digest, Job, Kernel, Message, Verifier};
use sha1::{Digest as _, Sha1};

/// Pieces hashed in one call.
const BATCH: usize = 16;

const KIB: usize = 1024;

/// One shape of input.
struct Case {
    name: &'static str,
    /// Pieces in memory, and bytes of each.
    pieces: usize,
    piece_len: usize,
    /// Bytes from the start of one piece to the next.
    stride: usize,
    /// How many of them are hashed in one call.
    batch: usize,
    rounds: usize,
}

impl Case {
    /// `pieces` side by side, as they lie in a mapped file.
    const fn new(name: &'static str, pieces: usize, piece_len: usize, rounds: usize) -> Self {
        Self { name, pieces, piece_len, stride: piece_len, batch: BATCH, rounds }
    }
}

fn main() {
    let smoke = env::var_os("RINGTIDE_BENCH_SMOKE").is_some_and(|value| value == "1");
    let staggered =
        Case { stride: 256 * KIB + 320, ..Case::new("16 x 256 KiB, staggered", 16, 256 * KIB, 101) };
    let lone = |batch, name| Case { batch, ..Case::new(name, 16, 256 * KIB, 101) };
    let cases = [
        Case::new("16 x 16 KiB", 16, 16 * KIB, 101),
        Case::new("16 x 256 KiB", 16, 256 * KIB, 101),
        staggered,
        lone(8, "8 x 256 KiB at a time"),
        lone(4, "4 x 256 KiB at a time"),
        lone(2, "2 x 256 KiB at a time"),
        lone(1, "1 x 256 KiB at a time"),
        Case::new("1 GiB, cold, in pieces of 256 KiB", 4096, 256 * KIB, 5),
        Case::new("1 GiB, cold, in pieces of 16 MiB", 64, 16 * KIB * KIB, 5),
    ];
    for mut case in cases {
        if smoke {
            case.pieces = case.pieces.min(BATCH);
            case.piece_len = 16 * KIB;
            case.stride = case.stride.min(16 * KIB + 320);
            case.rounds = 3;
        }
        run(&case);
    }
    run_verifier(if smoke { 100 } else { 200_000 });
}

/// A piece of one byte, so that what the verifier does around the hashing is most of its cost.
struct Tiny;

impl Job for Tiny {
    fn len(&self) -> usize {
        1
    }

    fn message(&self) -> Message<'_> {
        Message::from(&[0_u8; 1][..])
    }
}

/// Measures what a piece costs beside its hashing, when pieces flow: from the submitter to `done`, by one thread.
fn run_verifier(pieces: usize) {
    let seconds = (0..11).map(|_| {
        let verifier = Verifier::start(1, |hashed| {
            hashed.for_each(|(_, digest)| {
                black_box(digest);
            });
        });
        let verifier = verifier.expect("a thread can be started");
        timed(|| {
            (0..pieces).for_each(|_| verifier.submit(Tiny));
            verifier.finish();
        })
    });
    println!("verifier");
    println!("  {:.0} ns a piece of one byte", median(seconds.collect()) * 1e9 / pieces as f64);
}

/// Measures all kernels on one case and prints a line for each.
fn run(case: &Case) {
    let memory = noise(case.pieces * case.stride + PAGE);
    let memory = &memory[memory.as_ptr().align_offset(PAGE)..];
    let messages: Vec<_> =
        (0..case.pieces).map(|i| Message::from(&memory[i * case.stride..][..case.piece_len])).collect();
    let kernels = Kernel::available();
    let mut expected = vec![[0; 20]; case.pieces];
    let mut digests = expected.clone();
    let mut oracle_seconds = Vec::new();
    let mut seconds = vec![Vec::new(); kernels.len()];
    for _ in 0..case.rounds {
        oracle_seconds.push(timed(|| hash_by_sha1_crate(&messages, &mut expected)));
        for (kernel, seconds) in kernels.iter().zip(&mut seconds) {
            digests.fill([0; 20]);
            seconds.push(timed(|| {
                for (messages, digests) in messages.chunks(case.batch).zip(digests.chunks_mut(case.batch)) {
                    kernel.digest_many(messages, digests);
                }
            }));
            assert!(digests == expected, "{kernel} differs from the sha1 crate");
        }
    }
    let gigabytes = (case.pieces * case.piece_len) as f64 / 1e9;
    println!("{}", case.name);
    println!("  {:<12} {:5.2} GB/s", "sha1 crate", gigabytes / median(oracle_seconds.clone()));
    for (kernel, seconds) in kernels.iter().zip(seconds) {
        let ratios = oracle_seconds.iter().zip(&seconds).map(|(oracle, seconds)| oracle / seconds).collect();
        println!(
            "  {:<12} {:5.2} GB/s  {:4.2} x",
            kernel.name(),
            gigabytes / median(seconds),
            median(ratios)
        );
    }
}

/// The pieces of a mapped file start at pages.
const PAGE: usize = 4096;

fn hash_by_sha1_crate(messages: &[Message<'_>], digests: &mut [Digest]) {
    for (message, digest) in messages.iter().zip(digests) {
        let mut hasher = Sha1::new();
        for segment in message.segments() {
            hasher.update(segment);
        }
        *digest = hasher.finalize().into();
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes that repeat nowhere near.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u8).collect()
}
