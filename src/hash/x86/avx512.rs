//! SHA-1 with AVX-512: 16 messages at a time, the boolean functions and the rotations one instruction each.
#![expect(unsafe_code, reason = "intrinsics that load and store, and calls of functions that need AVX-512")]

use std::arch::x86_64::*;

use super::prefetch;
use crate::hash::lanes::{self, Runs, State, lane_kernel};
use crate::hash::message::{Digest, Message};
use crate::hash::stream::Block;

/// Messages hashed at a time.
pub(super) const LANES: usize = 16;

/// Proof that this CPU has the instructions of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hash) struct Avx512(());

impl Avx512 {
    /// The proof, where it holds.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Self(()))
    }

    /// Hashes all messages, [`LANES`] at a time.
    pub(super) fn digest_many(self, messages: &[Message<'_>], digests: &mut [Digest]) {
        lanes::digest_many::<LANES, 1>(messages, digests, |states, runs, count| {
            // SAFETY: `self` is the proof that the CPU has the target features of `compress`.
            unsafe { compress(states, runs, count) }
        });
    }
}

type Vector = __m512i;

lane_kernel!("avx512f,avx512bw");

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(words: &[u32; LANES]) -> Vector {
    // SAFETY: 64 bytes are readable behind the reference, and this load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn store(words: &mut [u32; LANES], vector: Vector) {
    // SAFETY: 64 bytes are writable behind the reference, and this store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

/// The 16 big-endian words of a block.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_block(block: &Block) -> Vector {
    // SAFETY: 64 bytes are readable behind the reference, and this load needs no alignment.
    let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order))
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn splat(word: i32) -> Vector {
    _mm512_set1_epi32(word)
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn rotate<const BITS: i32>(a: Vector) -> Vector {
    _mm512_rol_epi32::<BITS>(a)
}

/// `b ? c : d`, bit by bit.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xca>(b, c, d)
}

/// `b ^ c ^ d`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn parity(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0x96>(b, c, d)
}

/// The bits that at least two of three have.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn majority(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xe8>(b, c, d)
}

/// The word that follows those 3, 8, 14 and 16 places before it.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn schedule(w3: Vector, w8: Vector, w14: Vector, w16: Vector) -> Vector {
    rotate::<1>(_mm512_xor_si512(w3, parity(w8, w14, w16)))
}

/// Block `at` of every run, transposed: vector `i` has word `i` of all lanes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_words(runs: &Runs<'_, LANES>, at: usize) -> [Vector; 16] {
    for run in runs {
        prefetch(run, at);
    }
    // Word `4 * k + i` of rows `4 * g..4 * g + 4` is in 128-bit quarter `k` of `squares[g][i]`.
    let squares = [
        load_squares(runs, 0, at),
        load_squares(runs, 4, at),
        load_squares(runs, 8, at),
        load_squares(runs, 12, at),
    ];
    let mut words = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        let even01 = _mm512_shuffle_i32x4::<0x88>(squares[0][i], squares[1][i]);
        let even23 = _mm512_shuffle_i32x4::<0x88>(squares[2][i], squares[3][i]);
        let odd01 = _mm512_shuffle_i32x4::<0xdd>(squares[0][i], squares[1][i]);
        let odd23 = _mm512_shuffle_i32x4::<0xdd>(squares[2][i], squares[3][i]);
        words[i] = _mm512_shuffle_i32x4::<0x88>(even01, even23);
        words[4 + i] = _mm512_shuffle_i32x4::<0x88>(odd01, odd23);
        words[8 + i] = _mm512_shuffle_i32x4::<0xdd>(even01, even23);
        words[12 + i] = _mm512_shuffle_i32x4::<0xdd>(odd01, odd23);
    }
    words
}

/// Block `at` of the four runs from `first`, as four squares of 4 by 4 words side by side, each transposed.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_squares(runs: &Runs<'_, LANES>, first: usize, at: usize) -> [Vector; 4] {
    let (r0, r1) = (load_block(&runs[first][at]), load_block(&runs[first + 1][at]));
    let (r2, r3) = (load_block(&runs[first + 2][at]), load_block(&runs[first + 3][at]));
    let (low01, low23) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpacklo_epi32(r2, r3));
    let (high01, high23) = (_mm512_unpackhi_epi32(r0, r1), _mm512_unpackhi_epi32(r2, r3));
    [
        _mm512_unpacklo_epi64(low01, low23),
        _mm512_unpackhi_epi64(low01, low23),
        _mm512_unpacklo_epi64(high01, high23),
        _mm512_unpackhi_epi64(high01, high23),
    ]
}
