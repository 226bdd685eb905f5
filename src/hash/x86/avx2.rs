//! SHA-1 with AVX2: 8 messages at a time.
#![expect(unsafe_code, reason = "intrinsics that load and store, and calls of functions that need AVX2")]

use std::arch::x86_64::*;

use super::prefetch;
use crate::hash::lanes::{self, Runs, State, lane_kernel};
use crate::hash::message::{Digest, Message};
use crate::hash::stream::Block;

/// Messages hashed at a time.
pub(super) const LANES: usize = 8;

/// Proof that this CPU has the instructions of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hash) struct Avx2(());

impl Avx2 {
    /// The proof, where it holds.
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Hashes all messages, [`LANES`] at a time.
    pub(super) fn digest_many(self, messages: &[Message<'_>], digests: &mut [Digest]) {
        lanes::digest_many::<LANES, 1>(messages, digests, |states, runs, count| {
            // SAFETY: `self` is the proof that the CPU has the target features of `compress`.
            unsafe { compress(states, runs, count) }
        });
    }
}

type Vector = __m256i;

lane_kernel!("avx2");

#[target_feature(enable = "avx2")]
#[inline]
fn load(words: &[u32; LANES]) -> Vector {
    // SAFETY: 32 bytes are readable behind the reference, and this load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(words: &mut [u32; LANES], vector: Vector) {
    // SAFETY: 32 bytes are writable behind the reference, and this store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

/// The 8 big-endian words of half a block, the first half or the second.
#[target_feature(enable = "avx2")]
#[inline]
fn load_half(block: &Block, half: usize) -> Vector {
    let (halves, _) = block.as_chunks::<32>();
    // SAFETY: 32 bytes are readable behind the reference, and this load needs no alignment.
    let bytes = unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) };
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order))
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn splat(word: i32) -> Vector {
    _mm256_set1_epi32(word)
}

#[target_feature(enable = "avx2")]
#[inline]
fn rotate<const BITS: i32>(a: Vector) -> Vector {
    let (left, right) = (_mm_cvtsi32_si128(BITS), _mm_cvtsi32_si128(32 - BITS));
    _mm256_or_si256(_mm256_sll_epi32(a, left), _mm256_srl_epi32(a, right))
}

/// `b ? c : d`, bit by bit.
#[target_feature(enable = "avx2")]
#[inline]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

/// `b ^ c ^ d`.
#[target_feature(enable = "avx2")]
#[inline]
fn parity(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm256_xor_si256(b, _mm256_xor_si256(c, d))
}

/// The bits that at least two of three have.
#[target_feature(enable = "avx2")]
#[inline]
fn majority(b: Vector, c: Vector, d: Vector) -> Vector {
    // The two halves share no bit.
    _mm256_or_si256(_mm256_and_si256(c, d), _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

/// The word that follows those 3, 8, 14 and 16 places before it.
#[target_feature(enable = "avx2")]
#[inline]
fn schedule(w3: Vector, w8: Vector, w14: Vector, w16: Vector) -> Vector {
    rotate::<1>(_mm256_xor_si256(w3, parity(w8, w14, w16)))
}

/// Block `at` of every run, transposed: vector `i` has word `i` of all lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn load_words(runs: &Runs<'_, LANES>, at: usize) -> [Vector; 16] {
    for run in runs {
        prefetch(run, at);
    }
    let mut words = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        // Word `4 * k + i` of rows `4 * g..4 * g + 4` is in 128-bit half `k` of `squares[g][i]`.
        let squares = [load_squares(runs, 0, at, half), load_squares(runs, 4, at, half)];
        for i in 0..4 {
            words[8 * half + i] = _mm256_permute2x128_si256::<0x20>(squares[0][i], squares[1][i]);
            words[8 * half + 4 + i] = _mm256_permute2x128_si256::<0x31>(squares[0][i], squares[1][i]);
        }
    }
    words
}

/// Half of block `at` of the four runs from `first`, as two squares of 4 by 4 words side by side, each transposed.
#[target_feature(enable = "avx2")]
#[inline]
fn load_squares(runs: &Runs<'_, LANES>, first: usize, at: usize, half: usize) -> [Vector; 4] {
    let (r0, r1) = (load_half(&runs[first][at], half), load_half(&runs[first + 1][at], half));
    let (r2, r3) = (load_half(&runs[first + 2][at], half), load_half(&runs[first + 3][at], half));
    let (low01, low23) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpacklo_epi32(r2, r3));
    let (high01, high23) = (_mm256_unpackhi_epi32(r0, r1), _mm256_unpackhi_epi32(r2, r3));
    [
        _mm256_unpacklo_epi64(low01, low23),
        _mm256_unpackhi_epi64(low01, low23),
        _mm256_unpacklo_epi64(high01, high23),
        _mm256_unpackhi_epi64(high01, high23),
    ]
}
