//! SHA-1 of pieces: many at a time in SIMD lanes, and the threads that do it.
//!
//! A piece is a [`Message`]: its bytes in place, in as many segments as it lies in. A [`Kernel`] hashes a batch of
//! messages; [`digest_batch`] picks the cheapest for the batch at hand. The [`Verifier`] gathers finished pieces
//! into batches and hashes them on its own threads. Nothing here knows of peers, pieces' expected digests or files.
//!
//! Unsafe code is only in `x86`, one file an instruction set; its safety rests on proofs that only detection makes.

pub use self::kernel::{Kernel, KernelError, Step, digest_batch, plan};
pub use self::message::{Digest, Message};
pub use self::verifier::{Hashed, Job, Verifier};

mod kernel;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod message;
#[cfg(target_arch = "x86_64")]
mod stream;
mod verifier;

#[cfg(not(target_arch = "x86_64"))]
#[path = "no_simd.rs"]
mod simd;
#[cfg(target_arch = "x86_64")]
#[path = "x86/mod.rs"]
mod simd;
