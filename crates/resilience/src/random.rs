//! Where jitter has its randomness from. A policy draws from no other source than the one it was built with.
//!
//! Jitter only has to keep callers apart: nothing here is fit for secrets.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers.
pub trait Random: Send + Sync + 'static {
    /// The next number, evenly spread over all values.
    fn next(&self) -> u64;
}

/// A source of randomness as policies hold it.
pub type SharedRandom = Arc<dyn Random>;

/// `SplitMix64`: one atomic addition and a few multiplications a number, so that threads share it without a lock.
///
/// By Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014), with Vigna's constants.
#[derive(Debug)]
pub struct SplitMix64 {
    state: AtomicU64,
}

/// What the state grows by: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    /// The sequence of this seed: the same in every run.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// A sequence that nobody can foretell, seeded with what the standard library seeds its hash maps with.
    pub fn from_entropy() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// This source, ready to be handed to policies.
    pub fn shared(self) -> SharedRandom {
        Arc::new(self)
    }
}

impl Random for SplitMix64 {
    fn next(&self) -> u64 {
        let state = self.state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A random number as a fraction: at least 0, less than 1.
pub(crate) fn fraction(random: u64) -> f64 {
    // The upper 53 bits are what a double holds without rounding.
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_sequence() {
        // The first values of the reference implementation for the seed 1234567.
        let random = SplitMix64::seeded(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn fractions_never_reach_one() {
        assert_eq!(fraction(0), 0.0);
        assert!(fraction(u64::MAX) < 1.0);
        assert!(fraction(u64::MAX) > 0.999_999_999);
    }
}
