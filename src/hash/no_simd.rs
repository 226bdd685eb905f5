//! What stands for `x86` on other architectures: no kernels but the portable one.

use super::message::{Digest, Message};

/// A kernel that this CPU can run: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Simd {}

/// The names of all kernels of this architecture.
pub(super) const NAMES: &[&str] = &[];

impl Simd {
    /// All kernels that this CPU can run.
    pub(super) fn detect() -> impl Iterator<Item = Self> {
        std::iter::empty()
    }

    /// Its name among [`NAMES`].
    pub(super) const fn name(self) -> &'static str {
        match self {}
    }

    /// How many messages it hashes at a time.
    pub(super) const fn lanes(self) -> usize {
        match self {}
    }

    /// Hashes all messages.
    pub(super) fn digest_many(self, _: &[Message<'_>], _: &mut [Digest]) {
        match self {}
    }
}
