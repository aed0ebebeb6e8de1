//! What was answered to requested retries, for those who repeat their requests.

use minicbor::{Decode, Encode};

use crate::outbox::lane::LaneRow;
use crate::store::KeyHash;

/// Requests for one delivery with idempotency keys whose answers are kept. Who repeats an older one is answered with
/// what there is.
pub const RETRIES_KEPT: usize = 8;

/// What was answered to the newest requests for a delivery that came with idempotency keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Retried {
    /// The idempotency key that the newest one came with.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 16],
    /// How the delivery's lane stood then.
    #[n(1)]
    pub waiting: LaneRow,
    /// Those before it, newest first; `None`: there are none, or an earlier build has noted it.
    #[n(2)]
    pub earlier: Option<Vec<RetriedBefore>>,
}

/// What was answered to an earlier request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetriedBefore {
    /// As [`Retried::key`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 16],
    /// As [`Retried::waiting`].
    #[n(1)]
    pub waiting: LaneRow,
}

impl Retried {
    /// The answer to the request with this key, after the `before` ones.
    #[must_use]
    pub fn with(KeyHash(key): KeyHash, waiting: LaneRow, before: Option<Self>) -> Self {
        let before = before.into_iter().flat_map(Self::all).filter(|retried| retried.key != key);
        let earlier: Vec<_> = before.take(RETRIES_KEPT - 1).collect();
        Self { key, waiting, earlier: Some(earlier).filter(|earlier| !earlier.is_empty()) }
    }

    fn all(self) -> impl Iterator<Item = RetriedBefore> {
        let newest = RetriedBefore { key: self.key, waiting: self.waiting };
        std::iter::once(newest).chain(self.earlier.into_iter().flatten())
    }

    /// How the lane stood for the request with this key, if that is kept.
    #[must_use]
    pub fn answered(self, KeyHash(key): KeyHash) -> Option<LaneRow> {
        self.all().find(|retried| retried.key == key).map(|retried| retried.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;

    #[test]
    fn the_newest_requests_are_kept_each_key_once() {
        let key = |n: u8| KeyHash([n; 16]);
        let waiting = |n: u8| LaneRow::fresh(1, 1, Millis(u64::from(n)));
        let add = |before, n| Some(Retried::with(key(n % 20), waiting(n), before));
        let retried = (0..20).chain([39]).fold(None, add).unwrap();
        let answered = |n: u8| retried.clone().answered(key(n)).map(|waiting| waiting.next_at.0);
        assert_eq!(answered(19), Some(39), "a key that was forgotten and is used again has its newest answer");
        assert_eq!([answered(18), answered(12), answered(11)], [Some(18), Some(12), None]);
        assert_eq!(retried.earlier.as_ref().map(Vec::len), Some(RETRIES_KEPT - 1));
    }
}
