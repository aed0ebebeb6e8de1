//! The chain of batches: detects a lost, altered or added batch or log row.
//!
//! Every batch replaces one row with the number of batches, a hash over all of them in order, and the number of all log
//! rows with the sum of their hashes. The hash proves the order; number and sum can be compared with one scan of the
//! log in any order, because addition commutes.

use super::layout::{self, Fields};
use super::log_row::RowHash;

/// The newest link of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// How many batches there were.
    pub(super) batch: u64,
    /// The hash over all of them.
    pub(super) hash: [u8; 32],
    /// How many log rows there are.
    pub(super) rows: u64,
    /// The sum of their hashes, modulo 2^128.
    pub(super) sum: u128,
}

/// The next link while its batch is being built.
pub(super) struct Link {
    next: Chain,
    hasher: blake3::Hasher,
}

impl Chain {
    /// Begins the next link.
    pub(super) fn link(&self) -> Link {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash);
        Link { next: Self { batch: self.batch + 1, ..*self }, hasher }
    }

    /// The row's value, sealed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(8 + 32 + 8 + 16 + 4);
        value.extend_from_slice(&self.batch.to_le_bytes());
        value.extend_from_slice(&self.hash);
        value.extend_from_slice(&self.rows.to_le_bytes());
        value.extend_from_slice(&self.sum.to_le_bytes());
        layout::seal(&layout::META, value).0
    }

    /// The inverse of [`Chain::encode`].
    pub(super) fn decode(sealed: &[u8]) -> Option<Self> {
        let mut fields = Fields(layout::unseal(&layout::META, sealed)?);
        let chain = Self {
            batch: fields.u64()?,
            hash: fields.bytes()?,
            rows: fields.u64()?,
            sum: fields.bytes().map(u128::from_le_bytes)?,
        };
        fields.end().then_some(chain)
    }

    /// Counts a log row.
    pub(super) fn count(&mut self, hash: RowHash) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(hash));
    }
}

impl Link {
    /// The number of the batch.
    pub(super) fn batch(&self) -> u64 {
        self.next.batch
    }

    /// Adds a log row.
    pub(super) fn log_row(&mut self, hash: RowHash) {
        self.next.count(hash);
        self.hasher.update(&hash);
    }

    /// Adds any other write by its checksum.
    pub(super) fn other(&mut self, checksum: u32) {
        self.hasher.update(&checksum.to_le_bytes());
    }

    /// The chain with this link.
    pub(super) fn close(mut self) -> Chain {
        self.next.hash = *self.hasher.finalize().as_bytes();
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_back() {
        let chain = Chain { batch: 5, hash: [7; 32], rows: 9, sum: u128::MAX };
        assert_eq!(Chain::decode(&chain.encode()), Some(chain));
        assert_eq!(Chain::decode(&chain.encode()[1..]), None);
    }

    #[test]
    fn the_hash_tells_order_and_the_sum_does_not() {
        let build = |hashes: [RowHash; 2]| {
            let mut link = Chain::default().link();
            hashes.into_iter().for_each(|hash| link.log_row(hash));
            link.close()
        };
        let one = build([[1; 16], [0xff; 16]]);
        let other = build([[0xff; 16], [1; 16]]);
        assert_eq!((one.rows, one.sum), (other.rows, other.sum));
        assert_ne!(one.hash, other.hash);
    }
}
