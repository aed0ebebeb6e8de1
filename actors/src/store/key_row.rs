//! Idempotency keys as they are stored.

use minicbor::{Decode, Encode};

use super::SeqRange;
use crate::clock::Millis;

/// The hash of an idempotency key, scoped to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 16]);

/// The hash of a request with an idempotency key, by which a retry is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// What became of an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEffect {
    /// The events that its request added; the range is empty if it added none.
    Events(SeqRange),
    /// It is held: it had no effect, and requests up to this claim can have none with it; see
    /// [`claims`](crate::workflows::claims).
    Held {
        /// The number of the claim.
        claim: u64,
    },
}

impl KeyEffect {
    /// The stored form: a range of events. No event has the sequence 0, so a range from 0 on is the claim of a held
    /// key.
    #[must_use]
    pub const fn to_stored(self) -> SeqRange {
        match self {
            Self::Events(events) => events,
            Self::Held { claim } => SeqRange::new(0, claim),
        }
    }

    /// The inverse of [`to_stored`](Self::to_stored).
    #[must_use]
    pub const fn from_stored(stored: SeqRange) -> Self {
        match stored.first {
            0 => Self::Held { claim: stored.last },
            _ => Self::Events(stored),
        }
    }
}

/// The row of an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The request it came with.
    pub fingerprint: Fingerprint,
    /// What became of it.
    pub effect: KeyEffect,
    /// When; it is forgotten [`crate::limits::KEY_KEPT_MILLIS`] later.
    pub at: Millis,
}

impl KeyRow {
    /// A key whose request added these events.
    #[must_use]
    pub const fn new(fingerprint: Fingerprint, events: SeqRange, at: Millis) -> Self {
        Self { fingerprint, effect: KeyEffect::Events(events), at }
    }

    /// A key that is [held](KeyEffect::Held) up to this claim.
    #[must_use]
    pub const fn held(fingerprint: Fingerprint, claim: u64, at: Millis) -> Self {
        Self { fingerprint, effect: KeyEffect::Held { claim }, at }
    }

    /// The events that its request added; `None`: it is held.
    #[must_use]
    pub const fn events(&self) -> Option<SeqRange> {
        match self.effect {
            KeyEffect::Events(events) => Some(events),
            KeyEffect::Held { .. } => None,
        }
    }

    /// Up to which claim the key is held; `None`: it has had its effect.
    #[must_use]
    pub const fn held_upto(&self) -> Option<u64> {
        match self.effect {
            KeyEffect::Events(_) => None,
            KeyEffect::Held { claim } => Some(claim),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of users are stored in this form.
    #[test]
    fn a_held_key_is_stored_as_a_range_from_zero_on() {
        for (effect, first, last) in [
            (KeyEffect::Events(SeqRange::new(3, 5)), 3, 5),
            (KeyEffect::Events(SeqRange::new(2, 1)), 2, 1),
            (KeyEffect::Held { claim: 9 }, 0, 9),
            (KeyEffect::Held { claim: 0 }, 0, 0),
        ] {
            assert_eq!(effect.to_stored(), SeqRange::new(first, last));
            assert_eq!(KeyEffect::from_stored(SeqRange::new(first, last)), effect);
        }
    }
}
