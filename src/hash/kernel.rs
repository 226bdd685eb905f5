//! The choice of a kernel: which ones this CPU can run, which one is forced, which one is cheapest for a batch.
//!
//! Invariant: a [`Kernel`] exists only where this CPU can run it, so hashing with one needs no check.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use sha1::{Digest as _, Sha1};

use super::message::{Digest, Message};
use super::simd::{self, Simd};
use crate::os::env;

/// The environment variable that forces a kernel, for tests and measurements: one of the names of [`Kernel::name`].
const FORCE_VARIABLE: &str = "RINGTIDE_SHA1";

/// The name of the kernel that every CPU can run.
const PORTABLE: &str = "portable";

/// A way of hashing that this CPU can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(Way);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The `sha1` crate, one message at a time.
    Portable,
    Simd(Simd),
}

impl Kernel {
    /// All kernels that this CPU can run, the one with the highest throughput over a large batch first.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Kernel>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Simd::detect().map(Way::Simd).chain([Way::Portable]).map(Self).collect())
    }

    /// The kernel that large batches go to: the forced one, else the first of [`Kernel::available`].
    pub fn best() -> Self {
        forced().unwrap_or(Self::available()[0])
    }

    /// The kernel that `RINGTIDE_SHA1` names, if it is set; it is read once.
    ///
    /// # Errors
    /// Where it names no kernel, or one that this CPU cannot run. [`plan`] and [`Kernel::best`] then choose as if it
    /// were not set, so a program that wants to refuse asks here first.
    pub fn forced() -> Result<Option<Self>, KernelError> {
        forced_or_error().clone()
    }

    /// Its name: `avx512`, `avx2`, `shani4`, `shani2`, `shani` or `portable`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Way::Portable => PORTABLE,
            Way::Simd(simd) => simd.name(),
        }
    }

    /// How many messages it hashes at a time.
    pub const fn lanes(self) -> usize {
        match self.0 {
            Way::Portable => 1,
            Way::Simd(simd) => simd.lanes(),
        }
    }

    /// Hashes all messages, of any and of unequal lengths, `digests[i]` being that of `messages[i]`. Cheapest when
    /// their number is a multiple of [`Kernel::lanes`] and their lengths are equal.
    ///
    /// # Panics
    /// Where there are not as many digests as messages.
    pub fn digest_many(self, messages: &[Message<'_>], digests: &mut [Digest]) {
        assert_eq!(messages.len(), digests.len(), "every message needs a place for its digest");
        match self.0 {
            Way::Portable => {
                for (message, digest) in messages.iter().zip(digests) {
                    *digest = digest_portable(message);
                }
            }
            Way::Simd(simd) => simd.digest_many(messages, digests),
        }
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        if let Some(kernel) = Self::available().iter().find(|kernel| kernel.name() == name) {
            return Ok(*kernel);
        }
        Err(match simd::NAMES.iter().find(|known| **known == name) {
            Some(name) => KernelError::Unsupported { name },
            None => KernelError::Unknown { name: name.to_owned() },
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name is not that of a kernel that can run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelError {
    /// There is no kernel of this name on this architecture.
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// This CPU lacks the instructions.
    Unsupported {
        /// The kernel asked for.
        name: &'static str,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => write!(f, "no SHA-1 kernel is called {name:?}")?,
            Self::Unsupported { name } => write!(f, "this CPU cannot run the SHA-1 kernel {name}")?,
        }
        f.write_str(", expected one of")?;
        Kernel::available().iter().try_for_each(|kernel| write!(f, " {kernel}"))
    }
}

impl std::error::Error for KernelError {}

/// What to do with the first messages of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The cheapest kernel for them.
    pub kernel: Kernel,
    /// How many they are: 1 to the number asked for.
    pub count: usize,
}

/// The least number of messages for which 16 lanes are cheapest.
///
/// Lanes cost the same however many are in use. In microseconds for 16 KiB of each message, on a Zen 5: one message by
/// `shani` 8.2, two by `shani2` 9.0, three or four by `shani4` 13.5, and up to 16 by `avx512` 26.5. So six are cheaper
/// as four and two, and seven, as four and three, are not.
const AVX512_MESSAGES_MIN: usize = 7;

/// The least number of messages for which four interleaved streams are cheapest; see [`AVX512_MESSAGES_MIN`].
const SHANI4_MESSAGES_MIN: usize = 3;

/// The least number of messages for which 8 lanes are cheaper than the portable kernel, where there is no SHA-NI. An
/// estimate, not measured on such a CPU: software SHA-1 is said to reach 0.7 GB/s there, a fraction of what lanes do.
const AVX2_MESSAGES_MIN: usize = 3;

/// How a batch of `messages` (at least one) of equal length is hashed at the least cost: the first step of it. The rest
/// of the batch is planned anew. A forced kernel takes all.
pub fn plan(messages: usize) -> Step {
    if let Some(kernel) = forced() {
        return Step { kernel, count: messages };
    }
    let kernel = cheapest(messages, Kernel::available());
    Step { kernel, count: messages.min(kernel.lanes()) }
}

/// The cheapest of the kernels at hand for a number of messages.
fn cheapest(messages: usize, kernels: &[Kernel]) -> Kernel {
    let ladder = [
        ("avx512", AVX512_MESSAGES_MIN),
        ("shani4", SHANI4_MESSAGES_MIN),
        ("shani2", 2),
        ("shani", 1),
        ("avx2", AVX2_MESSAGES_MIN),
    ];
    let rungs = ladder.iter().filter(|(_, messages_min)| messages >= *messages_min);
    rungs
        .filter_map(|(name, _)| kernels.iter().find(|kernel| kernel.name() == *name))
        .next()
        .copied()
        .unwrap_or(Kernel(Way::Portable))
}

/// Hashes a batch at the least cost, `digests[i]` being that of `messages[i]`.
///
/// # Panics
/// Where there are not as many digests as messages.
pub fn digest_batch(mut messages: &[Message<'_>], mut digests: &mut [Digest]) {
    assert_eq!(messages.len(), digests.len(), "every message needs a place for its digest");
    while !messages.is_empty() {
        let Step { kernel, count } = plan(messages.len());
        let (now, later) = digests.split_at_mut(count);
        kernel.digest_many(&messages[..count], now);
        (messages, digests) = (&messages[count..], later);
    }
}

/// The digest of one message, by the `sha1` crate.
fn digest_portable(message: &Message<'_>) -> Digest {
    let mut hasher = Sha1::new();
    for segment in message.segments() {
        hasher.update(segment);
    }
    hasher.finalize().into()
}

/// The forced kernel, if there is one that can run.
fn forced() -> Option<Kernel> {
    forced_or_error().as_ref().copied().unwrap_or(None)
}

fn forced_or_error() -> &'static Result<Option<Kernel>, KernelError> {
    static FORCED: OnceLock<Result<Option<Kernel>, KernelError>> = OnceLock::new();
    FORCED.get_or_init(|| env::value(FORCE_VARIABLE).map(|name| name.to_string_lossy().parse()).transpose())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Bytes that repeat nowhere near.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    fn digests_by(kernel: Kernel, messages: &[Message<'_>]) -> Vec<Digest> {
        let mut digests = vec![[0; 20]; messages.len()];
        kernel.digest_many(messages, &mut digests);
        digests
    }

    fn hex(digest: &Digest) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vectors_of_fips_180_hold() {
        let million = vec![b'a'; 1_000_000];
        let vectors: [(&[u8], &str); 4] = [
            (b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            (&million, "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ];
        let messages = vectors.map(|(bytes, _)| Message::from(bytes));
        for kernel in Kernel::available() {
            for (digest, (_, expected)) in digests_by(*kernel, &messages).iter().zip(vectors) {
                assert_eq!(hex(digest), expected, "{kernel}");
            }
        }
    }

    #[test]
    fn every_kernel_agrees_with_the_sha1_crate_on_every_short_length() {
        let bytes = noise(4096);
        let messages: Vec<_> = (0..=bytes.len()).map(|len| Message::from(&bytes[..len])).collect();
        let expected: Vec<_> = messages.iter().map(digest_portable).collect();
        for kernel in Kernel::available() {
            assert!(digests_by(*kernel, &messages) == expected, "{kernel}");
        }
    }

    #[test]
    fn every_kernel_agrees_with_the_sha1_crate_on_every_split() {
        let bytes = noise(200);
        let splits = (0..=bytes.len()).map(|at| {
            let (head, tail) = bytes.split_at(at);
            Message::from_iter([head, &[], tail])
        });
        let messages: Vec<_> = splits.collect();
        let expected = digest_portable(&Message::from(&bytes[..]));
        for kernel in Kernel::available() {
            assert!(digests_by(*kernel, &messages).iter().all(|digest| *digest == expected), "{kernel}");
        }
    }

    #[test]
    fn a_batch_of_any_size_is_hashed() {
        let bytes = noise(500);
        let messages: Vec<_> = (0..50).map(|i| Message::from(&bytes[i..450 + i])).collect();
        for count in 0..=messages.len() {
            let mut digests = vec![[0; 20]; count];
            digest_batch(&messages[..count], &mut digests);
            assert!(
                digests.iter().eq(messages[..count].iter().map(digest_portable).collect::<Vec<_>>().iter())
            );
        }
    }

    #[test]
    fn small_batches_go_to_narrow_kernels() {
        let ladder = ["avx512", "shani4", "shani2", "shani", "avx2"];
        let kernels: Vec<Kernel> = ladder.iter().filter_map(|name| name.parse().ok()).collect();
        if kernels.len() < 5 {
            return;
        }
        let chosen = |messages, kernels: &[Kernel]| cheapest(messages, kernels).name();
        let all = [1, 2, 3, 6, 7, 16].map(|messages| chosen(messages, &kernels));
        assert_eq!(all, ["shani", "shani2", "shani4", "shani4", "avx512", "avx512"]);
        assert_eq!([1, 2, 16].map(|messages| chosen(messages, &kernels[1..])), ["shani", "shani2", "shani4"]);
        assert_eq!([2, 3, 16].map(|messages| chosen(messages, &kernels[4..])), ["portable", "avx2", "avx2"]);
        assert_eq!(chosen(16, &[]), "portable");
    }

    #[test]
    fn kernels_are_found_by_name() {
        for kernel in Kernel::available() {
            assert_eq!(kernel.name().parse(), Ok(*kernel));
        }
        let missing = "AVX512".parse::<Kernel>();
        assert_eq!(missing, Err(KernelError::Unknown { name: "AVX512".to_owned() }));
        let message = missing.unwrap_err().to_string();
        assert!(message.starts_with("no SHA-1 kernel is called \"AVX512\", expected one of "), "{message}");
        assert!(message.ends_with(" portable"), "{message}");
    }

    /// Lengths with a bias to the ends of blocks, where padding changes its shape.
    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![0usize..20_000, (0usize..300, 54usize..66).prop_map(|(blocks, rest)| blocks * 64 + rest)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_kernel_agrees_with_the_sha1_crate_on_random_messages(
            shapes in vec((length(), 0usize..64, vec(any::<prop::sample::Index>(), 0..6)), 1..40),
        ) {
            let bytes = noise(20_000 + 64);
            let messages: Vec<_> = shapes
                .iter()
                .map(|(len, start, cuts)| {
                    let bytes = &bytes[*start..start + len];
                    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(len + 1)).chain([0, *len]).collect();
                    cuts.sort_unstable();
                    Message::from_iter(cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]))
                })
                .collect();
            let expected: Vec<_> = messages.iter().map(digest_portable).collect();
            for kernel in Kernel::available() {
                prop_assert!(digests_by(*kernel, &messages) == expected, "{}", kernel);
            }
        }
    }
}
