//! Pseudo-random numbers, for tests that do many things in a random order.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A sequence of numbers: the same seed, the same numbers. A failing test prints its seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number from 0 up to below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Puts items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for n in (1..items.len()).rev() {
            let other = usize::try_from(self.below(n as u64 + 1)).unwrap_or(n);
            items.swap(n, other);
        }
    }

    /// A number that no other run has, for names of things that runs share.
    #[must_use]
    pub fn unforeseen() -> u64 {
        RandomState::new().build_hasher().finish()
    }
}
