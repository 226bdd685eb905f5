//! Numbers that nobody can guess, from the kernel.

use std::hash::{BuildHasher, RandomState};

/// Fills `bytes` with random ones.
///
/// The system may give none, as where a filter forbids both the call and `/dev/urandom`. They then come from the
/// standard library's keys for hash tables, which are no secret but differ from run to run.
pub fn fill(bytes: &mut [u8]) {
    if let Err(error) = getrandom::getrandom(bytes) {
        tracing::debug!("no random numbers: {error}");
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = RandomState::new().hash_one(at) as u8;
        }
    }
}

/// Random bytes.
pub fn bytes<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    fill(&mut bytes);
    bytes
}

/// A random number.
pub fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_differ_in_all_of_their_bits() {
        let numbers: HashSet<u64> = (0..256).map(|_| number()).collect();
        assert_eq!(numbers.len(), 256);
        let (all, any) = numbers.iter().fold((u64::MAX, 0), |(all, any), n| (all & n, any | n));
        assert_eq!((all, any), (0, u64::MAX));
    }
}
