//! Numbers that follow from a seed, and that nobody who has seen some of them can continue: transaction ids are what
//! keeps a stranger from answering in a node's name.

use sha1::{Digest, Sha1};

/// SHA-1 of the seed and a counter.
#[derive(Clone, Debug)]
pub(super) struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub(super) fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        const { assert!(LEN <= 20) };
        self.count = self.count.wrapping_add(1);
        let digest = Sha1::new().chain_update(self.seed.to_be_bytes()).chain_update(self.count.to_be_bytes());
        let digest: [u8; 20] = digest.finalize().into();
        std::array::from_fn(|index| digest[index])
    }
}
