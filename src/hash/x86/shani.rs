//! SHA-1 with the SHA extensions: one message, or several interleaved.
#![expect(
    unsafe_code,
    reason = "intrinsics that load and store, and calls of functions that need the extensions"
)]

use std::arch::x86_64::*;

use super::prefetch;
use crate::hash::lanes::{self, Runs, State};
use crate::hash::message::{Digest, Message};
use crate::hash::stream::Block;

/// Proof that this CPU has the instructions of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hash) struct Shani(());

impl Shani {
    /// The proof, where it holds.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1"))
        .then_some(Self(()))
    }

    /// Hashes all messages, `STREAMS` at a time.
    pub(super) fn digest_many<const STREAMS: usize>(self, messages: &[Message<'_>], digests: &mut [Digest]) {
        lanes::digest_many::<1, STREAMS>(messages, digests, |states, runs, count| {
            // SAFETY: `self` is the proof that the CPU has the target features of `compress`.
            unsafe { compress(states, runs, count) }
        });
    }
}

type Vector = __m128i;

/// What a stream has in registers: `a, b, c, d` from the highest word down, and `e` in the highest word.
type Registers = [Vector; 2];

/// Calls a macro with the numbers of all 20 steps of four rounds.
macro_rules! all_fours {
    ($four:ident) => {
        all_fours!(@ $four 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
    };
    (@ $four:ident $($number:literal)*) => { $( $four!($number); )* };
}

/// Takes the first `count` blocks of every run into the state of its stream.
///
/// The instructions do four rounds each and wait for one another; the streams are interleaved four rounds by four, so
/// that one works while the other waits. For why there are loops over indices and no closures see [`lane_kernel`].
///
/// [`lane_kernel`]: lanes::lane_kernel
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress<const STREAMS: usize>(
    states: &mut [State<1>; STREAMS],
    runs: &[Runs<'_, 1>; STREAMS],
    count: usize,
) {
    let mut totals = [[_mm_setzero_si128(); 2]; STREAMS];
    for i in 0..STREAMS {
        totals[i] = load(&states[i]);
    }
    for at in 0..count {
        let mut words = [[_mm_setzero_si128(); 4]; STREAMS];
        for i in 0..STREAMS {
            let [run] = runs[i];
            prefetch(run, at);
            words[i] = load_words(&run[at]);
        }
        let mut registers = totals;
        macro_rules! four_rounds {
            ($four:expr) => {
                for i in 0..STREAMS {
                    four_rounds::<{ $four }, { $four / 5 }>(&mut registers[i], &mut words[i]);
                }
            };
        }
        all_fours!(four_rounds);
        for i in 0..STREAMS {
            let [abcd, e] = registers[i];
            totals[i] = [_mm_add_epi32(totals[i][0], abcd), _mm_sha1nexte_epu32(e, totals[i][1])];
        }
    }
    for i in 0..STREAMS {
        store(&mut states[i], totals[i]);
    }
}

/// Step `FOUR` of 20: four rounds. `FUNCTION` is `FOUR / 5`, which the instruction wants as a constant.
///
/// Behind every step but the last, `registers[1]` holds the state before it, of which `sha1nexte` makes the next `e`.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn four_rounds<const FOUR: usize, const FUNCTION: i32>(registers: &mut Registers, words: &mut [Vector; 4]) {
    if FOUR >= 4 {
        let [w0, w1] = [words[FOUR % 4], words[(FOUR + 1) % 4]];
        let [w2, w3] = [words[(FOUR + 2) % 4], words[(FOUR + 3) % 4]];
        words[FOUR % 4] = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(w0, w1), w2), w3);
    }
    let word = words[FOUR % 4];
    let [abcd, e] = *registers;
    let e = if FOUR == 0 { _mm_add_epi32(e, word) } else { _mm_sha1nexte_epu32(e, word) };
    *registers = [_mm_sha1rnds4_epu32::<FUNCTION>(abcd, e), abcd];
}

/// The state as the instructions want it.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn load(state: &State<1>) -> Registers {
    let [[a], [b], [c], [d], [e]] = *state;
    [_mm_set_epi32(a as i32, b as i32, c as i32, d as i32), _mm_set_epi32(e as i32, 0, 0, 0)]
}

/// The state as the rest of the crate wants it.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn store(state: &mut State<1>, [abcd, e]: Registers) {
    *state = [
        [_mm_extract_epi32::<3>(abcd) as u32],
        [_mm_extract_epi32::<2>(abcd) as u32],
        [_mm_extract_epi32::<1>(abcd) as u32],
        [_mm_extract_epi32::<0>(abcd) as u32],
        [_mm_extract_epi32::<3>(e) as u32],
    ];
}

/// The 16 big-endian words of a block, the first in the highest place.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn load_words(block: &Block) -> [Vector; 4] {
    let (quarters, _) = block.as_chunks::<16>();
    [
        load_quarter(&quarters[0]),
        load_quarter(&quarters[1]),
        load_quarter(&quarters[2]),
        load_quarter(&quarters[3]),
    ]
}

/// Four big-endian words of a block, the first in the highest place.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn load_quarter(quarter: &[u8; 16]) -> Vector {
    // SAFETY: 16 bytes are readable behind the reference, and this load needs no alignment.
    let bytes = unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) };
    _mm_shuffle_epi8(bytes, _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f))
}
