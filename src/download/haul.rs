//! How much of a link's metadata has come. Peers may claim different sizes of it, of which at most one is right.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::wire::metadata::METADATA_PIECE_LEN;

/// Sizes that are counted; what comes for others is not shown.
const SIZES_MAX: usize = 64;

/// What has come, by size.
#[derive(Debug, Default)]
pub(super) struct Haul {
    /// The size that each connected peer claims.
    claims: HashMap<SocketAddr, u64>,
    /// Pieces that have come of the metadata of each size.
    pieces: HashMap<u64, u64>,
}

impl Haul {
    /// A peer claims that size.
    pub(super) fn claimed(&mut self, peer: SocketAddr, size: u64) {
        self.claims.insert(peer, size);
    }

    /// A piece came from a peer.
    pub(super) fn gave(&mut self, peer: SocketAddr) {
        let Some(&size) = self.claims.get(&peer) else { return };
        if self.pieces.len() < SIZES_MAX || self.pieces.contains_key(&size) {
            *self.pieces.entry(size).or_default() += 1;
        }
    }

    /// A peer is gone.
    pub(super) fn gone(&mut self, peer: SocketAddr) {
        self.claims.remove(&peer);
    }

    /// The bytes that have come and of how many, of the size of which the largest share has.
    pub(super) fn share(&self) -> Option<(u64, u64)> {
        let bytes = |(&size, &pieces): (&u64, &u64)| ((pieces * METADATA_PIECE_LEN as u64).min(size), size);
        let share = |&(done, size): &(u64, u64)| u128::from(done) * 1000 / u128::from(size.max(1));
        self.pieces.iter().map(bytes).max_by_key(|shares| (share(shares), shares.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liar_does_not_hide_what_has_come() {
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut haul = Haul::default();
        haul.gave(peer(9));
        assert_eq!(haul.share(), None);
        haul.claimed(peer(1), 40_000);
        haul.claimed(peer(2), 1_000_000);
        haul.gave(peer(2));
        assert_eq!(haul.share(), Some((16_384, 1_000_000)));
        haul.gave(peer(1));
        assert_eq!(haul.share(), Some((16_384, 40_000)));
        (0..3).for_each(|_| haul.gave(peer(1)));
        haul.gone(peer(1));
        haul.gave(peer(1));
        assert_eq!(haul.share(), Some((40_000, 40_000)));
    }
}
