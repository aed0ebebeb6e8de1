//! The stored answers to requested retries, for requests that repeat an idempotency key.

use minicbor::{Decode, Encode};

use crate::outbox::lane::LaneRow;
use crate::store::KeyHash;

/// How many answers to keyed retry requests are kept for one delivery. The replay of an older request shows the
/// delivery as it is now.
pub(crate) const RETRIES_KEPT: usize = 8;

/// The answers to the newest keyed retry requests for a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Retried {
    /// The idempotency key of the newest request.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 16],
    /// The state of the delivery's lane then.
    #[n(1)]
    pub waiting: LaneRow,
    /// The earlier ones, newest first, each without any before it; `None`: there are none, or an earlier build wrote
    /// this row.
    #[n(2)]
    pub earlier: Option<Vec<Self>>,
}

impl Retried {
    /// Adds the answer to the request with this key to those `before` it.
    #[must_use]
    pub fn with(KeyHash(key): KeyHash, waiting: LaneRow, before: Option<Self>) -> Self {
        let before = before.into_iter().flat_map(Self::all).filter(|retried| retried.key != key);
        let earlier: Vec<_> = before.take(RETRIES_KEPT - 1).collect();
        Self { key, waiting, earlier: Some(earlier).filter(|earlier| !earlier.is_empty()) }
    }

    /// The answers one by one, newest first.
    fn all(mut self) -> impl Iterator<Item = Self> {
        let earlier = self.earlier.take();
        std::iter::once(self).chain(earlier.into_iter().flatten())
    }

    /// The state of the lane in the answer to this key, if it is kept.
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
        let waiting = |n: u8| LaneRow::new(1, 1, Millis(u64::from(n)));
        let add = |before, n| Some(Retried::with(key(n % 20), waiting(n), before));
        let retried = (0..20).chain([39]).fold(None, add).unwrap();
        let answered = |n: u8| retried.clone().answered(key(n)).map(|waiting| waiting.next_at.0);
        assert_eq!(answered(19), Some(39), "a key that was forgotten and is used again has its newest answer");
        assert_eq!([answered(18), answered(12), answered(11)], [Some(18), Some(12), None]);
        assert_eq!(retried.earlier.as_ref().map(Vec::len), Some(RETRIES_KEPT - 1));
    }
}
