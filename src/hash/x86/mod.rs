//! The kernels for x86-64, and the one place that asks the CPU which of them it can run.
//!
//! Each file below owns one set of instructions and makes it safe: it has a zero-sized proof that this CPU has them,
//! which only its `detect` makes, and all that needs them is a method of the proof.

use super::message::{Digest, Message};
use super::stream::Block;
use avx2::Avx2;
use avx512::Avx512;
use shani::Shani;

mod avx2;
mod avx512;
mod shani;

/// A kernel that this CPU can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Simd {
    /// 16 messages at a time.
    Avx512(Avx512),
    /// 8 messages at a time.
    Avx2(Avx2),
    /// One message at a time.
    Shani(Shani),
    /// Two interleaved messages.
    Shani2(Shani),
    /// Four interleaved messages.
    Shani4(Shani),
}

/// The names of all kernels of this architecture, whether or not this CPU can run them.
pub(super) const NAMES: &[&str] = &["avx512", "shani4", "shani2", "avx2", "shani"];

impl Simd {
    /// All kernels that this CPU can run, by falling throughput over large batches (as a Zen 5 has it).
    pub(super) fn detect() -> impl Iterator<Item = Self> {
        let shani = Shani::detect();
        let kernels = [
            Avx512::detect().map(Self::Avx512),
            shani.map(Self::Shani4),
            shani.map(Self::Shani2),
            Avx2::detect().map(Self::Avx2),
            shani.map(Self::Shani),
        ];
        kernels.into_iter().flatten()
    }

    /// Its name among [`NAMES`].
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Avx512(_) => "avx512",
            Self::Avx2(_) => "avx2",
            Self::Shani(_) => "shani",
            Self::Shani2(_) => "shani2",
            Self::Shani4(_) => "shani4",
        }
    }

    /// How many messages it hashes at a time.
    pub(super) const fn lanes(self) -> usize {
        match self {
            Self::Avx512(_) => avx512::LANES,
            Self::Avx2(_) => avx2::LANES,
            Self::Shani(_) => 1,
            Self::Shani2(_) => 2,
            Self::Shani4(_) => 4,
        }
    }

    /// Hashes all messages.
    pub(super) fn digest_many(self, messages: &[Message<'_>], digests: &mut [Digest]) {
        match self {
            Self::Avx512(avx512) => avx512.digest_many(messages, digests),
            Self::Avx2(avx2) => avx2.digest_many(messages, digests),
            Self::Shani(shani) => shani.digest_many::<1>(messages, digests),
            Self::Shani2(shani) => shani.digest_many::<2>(messages, digests),
            Self::Shani4(shani) => shani.digest_many::<4>(messages, digests),
        }
    }
}

/// How many blocks ahead of the present one memory is asked for.
///
/// Lanes read as many places at once as the hardware's own prefetcher follows only in part. On a Zen 5, 16 lanes over
/// cold memory gain 6 % (pieces of 256 KiB) to 11 % (16 MiB) by it, at any distance from 4 to 64 blocks, and data in a
/// cache loses nothing. Pieces lie at multiples of their length, so the blocks read together fall into the same set of
/// each cache; that costs 2 % at most, as every line is used up by one load.
const PREFETCH_BLOCKS: usize = 16;

/// Asks for the memory that `run` needs [`PREFETCH_BLOCKS`] after block `at`.
#[inline]
fn prefetch(run: &[Block], at: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    let ahead = run.as_ptr().wrapping_add(at + PREFETCH_BLOCKS);
    #[expect(unsafe_code, reason = "the intrinsic that prefetches is an unsafe function up to Rust 1.89")]
    #[allow(unused_unsafe, reason = "newer versions of Rust have it as a safe function")]
    // SAFETY: a prefetch is a hint; any address is allowed and none is read.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast())
    };
}
