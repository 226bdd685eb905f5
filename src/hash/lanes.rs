//! The walk of many messages through a kernel of many lanes, and the rounds that all lane kernels share.
//!
//! A kernel runs `GROUPS` groups of `LANES` lanes in step, one message a lane. A lane whose message is over takes the
//! next one; when there is none it repeats the blocks of a lane that has one and its digest is ignored, so kernels know
//! no masks. Messages of equal length, the usual case, therefore go through in one run a segment.

use super::message::{Digest, Message};
use super::stream::{Block, Stream};

/// The five words of SHA-1's state, each for all lanes of a group.
pub(super) type State<const LANES: usize> = [[u32; LANES]; 5];

/// The blocks that each lane of a group reads next.
pub(super) type Runs<'m, const LANES: usize> = [&'m [Block]; LANES];

/// SHA-1's first state (FIPS 180-4, 5.3.1).
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// SHA-1's constants, one for every 20 rounds (FIPS 180-4, 4.2.1).
pub(super) const ROUND_CONSTANTS: [i32; 4] =
    [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc_u32 as i32, 0xca62_c1d6_u32 as i32];

/// One message in a lane and where its digest goes.
struct Lane<'m> {
    stream: Stream<'m>,
    digest: &'m mut Digest,
}

/// Hashes all messages with a kernel: `compress(states, runs, count)` takes the first `count` blocks of every run into
/// the state of its lane.
pub(super) fn digest_many<const LANES: usize, const GROUPS: usize>(
    messages: &[Message<'_>],
    digests: &mut [Digest],
    compress: impl Fn(&mut [State<LANES>; GROUPS], &[Runs<'_, LANES>; GROUPS], usize),
) {
    let mut waiting = messages.iter().zip(digests);
    let mut states = [[[0; LANES]; 5]; GROUPS];
    let mut lanes: [[Option<Lane<'_>>; LANES]; GROUPS] = [const { [const { None }; LANES] }; GROUPS];
    loop {
        for (group, state) in lanes.iter_mut().zip(&mut states) {
            for (at, lane) in group.iter_mut().enumerate() {
                if lane.as_ref().is_none_or(|lane| lane.stream.blocks().is_empty()) {
                    finish(lane.take(), state, at);
                    *lane = waiting.next().map(|(message, digest)| begin(message, digest, state, at));
                }
            }
        }
        let running = || lanes.iter().flatten().flatten().map(|lane| lane.stream.blocks());
        let Some(shortest) = running().min_by_key(|run| run.len()) else { return };
        let runs = lanes.each_ref().map(|group| {
            group.each_ref().map(|lane| lane.as_ref().map_or(shortest, |lane| lane.stream.blocks()))
        });
        let count = shortest.len();
        compress(&mut states, &runs, count);
        for lane in lanes.iter_mut().flatten().flatten() {
            lane.stream.advance(count);
        }
    }
}

/// Puts a message into the lane `at` of a group.
fn begin<'m, const LANES: usize>(
    message: &'m Message<'_>,
    digest: &'m mut Digest,
    state: &mut State<LANES>,
    at: usize,
) -> Lane<'m> {
    for (word, start) in state.iter_mut().zip(START) {
        word[at] = start;
    }
    Lane { stream: Stream::new(message), digest }
}

/// Writes the digest of the message that ended in the lane `at` of a group.
fn finish<const LANES: usize>(lane: Option<Lane<'_>>, state: &State<LANES>, at: usize) {
    let Some(lane) = lane else { return };
    let (bytes, _) = lane.digest.as_chunks_mut::<4>();
    for (bytes, word) in bytes.iter_mut().zip(state) {
        *bytes = word[at].to_be_bytes();
    }
}

/// Makes the lane kernel `compress` of an instruction set, in a module that has for its `Vector` of `LANES` words the
/// functions called below, all with the same target features.
///
/// Walk-through, for each block of all lanes:
/// 1. `load_words` reads 64 bytes a lane and transposes them: one vector for each of the 16 words.
/// 2. 80 rounds, unrolled. The state is an array whose roles rotate by index, the message schedule a ring of 16
///    vectors; all indices are constants, so both live in registers (or, with 16 registers, on the stack).
///
/// Nothing that runs for each block is a closure or takes one, as `array::map` and `array::from_fn` do. A closure has
/// the target features of the function around it and is never inlined into the helper, which has none; and unless the
/// helper itself is inlined here, which takes one codegen unit or link-time optimization, each of its steps is a call
/// with vectors in memory: with 16 units and without such optimization, kernels written so run 19 to 38 times slower.
/// What is called here has no features that `compress` lacks and is `#[inline]`, so that it is in the same unit however
/// the crate is built; the rounds are a macro, so that their indices are constants from the start.
///
/// The rounds are one chain of dependent additions and rotations: by their latencies 320 of a block's 390 cycles on a
/// Zen 5 with AVX-512. A second, interleaved group of 16 lanes was tried (with the compiler kept from pulling the groups
/// apart again). Half filled it ran 16 messages of 16 KiB at 6.9 GB/s, so filled perhaps at 14 instead of 10; but 32 of
/// 256 KiB, which outgrow the second-level cache, ran at 10.0 instead of 9.7, for batches of twice the size. So there
/// is one group.
macro_rules! lane_kernel {
    ($features:literal) => {
        #[doc = "Takes the first `count` blocks of every run into the state of its lane."]
        #[target_feature(enable = $features)]
        fn compress([state]: &mut [State<LANES>; 1], [runs]: &[Runs<'_, LANES>; 1], count: usize) {
            let [a, b, c, d, e] = state;
            let mut total = [load(a), load(b), load(c), load(d), load(e)];
            for at in 0..count {
                let mut words = load_words(runs, at);
                let mut state = total;
                macro_rules! round {
                    ($round:expr) => {
                        $crate::hash::lanes::round!($round, state, words)
                    };
                }
                $crate::hash::lanes::all_rounds!(round);
                total = [
                    add(total[0], state[0]),
                    add(total[1], state[1]),
                    add(total[2], state[2]),
                    add(total[3], state[3]),
                    add(total[4], state[4]),
                ];
            }
            store(a, total[0]);
            store(b, total[1]);
            store(c, total[2]);
            store(d, total[3]);
            store(e, total[4]);
        }
    };
}

/// One of the 80 rounds (FIPS 180-4, 6.1.2). Word `i` of the state is at `(i - ROUND) mod 5`.
macro_rules! round {
    ($round:expr, $state:ident, $words:ident) => {{
        const ROUND: usize = $round;
        const A: usize = (80 - ROUND) % 5;
        const B: usize = (81 - ROUND) % 5;
        const C: usize = (82 - ROUND) % 5;
        const D: usize = (83 - ROUND) % 5;
        const E: usize = (84 - ROUND) % 5;
        if ROUND >= 16 {
            $words[ROUND % 16] = schedule(
                $words[(ROUND + 13) % 16],
                $words[(ROUND + 8) % 16],
                $words[(ROUND + 2) % 16],
                $words[ROUND % 16],
            );
        }
        let mixed = match ROUND / 20 {
            0 => choose($state[B], $state[C], $state[D]),
            2 => majority($state[B], $state[C], $state[D]),
            _ => parity($state[B], $state[C], $state[D]),
        };
        let constant = splat($crate::hash::lanes::ROUND_CONSTANTS[ROUND / 20]);
        let known = add(add($state[E], add($words[ROUND % 16], constant)), mixed);
        $state[E] = add(known, rotate::<5>($state[A]));
        $state[B] = rotate::<30>($state[B]);
    }};
}

/// Calls a macro with the numbers of all 80 rounds.
macro_rules! all_rounds {
    ($round:ident) => {
        $crate::hash::lanes::all_rounds!(@ten $round 0 10 20 30 40 50 60 70);
    };
    (@ten $round:ident $($ten:literal)*) => {
        $( $round!($ten); $round!($ten + 1); $round!($ten + 2); $round!($ten + 3); $round!($ten + 4);
           $round!($ten + 5); $round!($ten + 6); $round!($ten + 7); $round!($ten + 8); $round!($ten + 9); )*
    };
}

pub(super) use {all_rounds, lane_kernel, round};
