//! Time and randomness as arguments.
//!
//! Nothing in this crate reads the wall clock or draws random bytes on its own: a decision gets `now` and its ids as
//! arguments, and the code that runs decisions holds a [`Clock`] and an [`Entropy`]. Tests pass ones they control.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub u64);

impl Millis {
    /// This time and `millis` more; the last representable time when that overflows.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// How many milliseconds have passed from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The lower 48 bits, with which ids and the keys of lists ordered by time begin: they sort as times do, and last
    /// until the year 10889.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 6] {
        let [_, _, time @ ..] = self.0.to_be_bytes();
        time
    }

    /// The inverse of [`Millis::to_bytes`].
    #[must_use]
    pub fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the machine's clock is read")]
    fn now(&self) -> Millis {
        // A clock before 1970 is a broken machine; 0 keeps every deadline in the future instead of firing them all.
        Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
    }
}

/// A clock that moves only when it is advanced.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Millis) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Advances the clock.
    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the clock, backwards too.
    pub fn set(&self, now: Millis) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// A source of unpredictable bytes: a keyed counter, so that it costs one hash and never blocks.
///
/// The seed is 32 bytes of the operating system's randomness in production and a constant in tests. The bytes are
/// good enough for ids; secrets are drawn from the operating system where they are made.
#[derive(Debug)]
pub struct Entropy {
    seed: [u8; 32],
    drawn: AtomicU64,
}

impl Entropy {
    /// A source that yields the same bytes for the same seed.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }

    /// The next 16 bytes.
    pub fn draw(&self) -> [u8; 16] {
        self.draw_two()[0]
    }

    /// Twice 16 bytes, at the price of one draw.
    pub fn draw_two(&self) -> [[u8; 16]; 2] {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.seed, &n.to_le_bytes());
        let mut two = [[0; 16]; 2];
        two.as_flattened_mut().copy_from_slice(hash.as_bytes());
        two
    }

    /// The next eight bytes of a cheaper kind: no two are equal and none is all zero, but they are predictable. For
    /// values that must differ and protect nothing, at a twentieth of the cost.
    pub(crate) fn draw_distinct(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.seed;
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        // An odd step visits every number once.
        let n = u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Zero is the mix of zero alone.
        if n == 0 { self.draw_distinct() } else { mixed(n).to_le_bytes() }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014), which maps no two numbers to one.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn distinct_ids_are_never_the_same_nor_all_zero() {
        // The counter passes the number whose mix is zero.
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(3).wrapping_neg().to_le_bytes());
        let entropy = Entropy::seeded(seed);
        let drawn: HashSet<[u8; 8]> = std::iter::repeat_with(|| entropy.draw_distinct()).take(10_000).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(!drawn.contains(&[0; 8]));
    }
}
