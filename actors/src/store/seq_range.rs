//! Ranges of a log's sequences.

use std::ops::RangeInclusive;

use minicbor::{Decode, Encode};

use super::Order;

/// The sequences from `first` to `last`, both included. It is empty if `last` comes before `first`: the effect of a
/// request that added no event is the empty range before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SeqRange {
    /// The first sequence.
    #[n(0)]
    pub first: u64,
    /// The last sequence.
    #[n(1)]
    pub last: u64,
}

impl SeqRange {
    /// Every sequence: they begin with 1.
    pub const ALL: Self = Self::from(1);

    /// From one sequence to another, both included.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Self {
        Self { first, last }
    }

    /// This sequence alone.
    #[must_use]
    pub const fn one(seq: u64) -> Self {
        Self::new(seq, seq)
    }

    /// This sequence and all later ones.
    #[must_use]
    pub const fn from(first: u64) -> Self {
        Self::new(first, u64::MAX)
    }

    /// This sequence and all earlier ones.
    #[must_use]
    pub const fn upto(last: u64) -> Self {
        Self::new(1, last)
    }

    /// So many sequences from `first` on.
    #[must_use]
    pub const fn counted(first: u64, count: usize) -> Self {
        match count.checked_sub(1) {
            Some(more) => Self::new(first, first.saturating_add(more as u64)),
            None => Self::new(first, first.saturating_sub(1)),
        }
    }

    /// How many sequences it has.
    #[must_use]
    pub fn len(self) -> usize {
        if self.is_empty() {
            return 0;
        }
        usize::try_from(self.last - self.first).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Whether it has no sequence.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.last < self.first
    }

    /// Whether this sequence is in it.
    #[must_use]
    pub const fn contains(self, seq: u64) -> bool {
        self.first <= seq && seq <= self.last
    }

    /// The part of the range that comes after `seq` in this order; all of it if `seq` is `None`.
    #[must_use]
    pub fn after(self, seq: Option<u64>, order: Order) -> Self {
        match (order, seq) {
            (_, None) => self,
            (Order::Asc, Some(seq)) => Self { first: self.first.max(seq.saturating_add(1)), ..self },
            (Order::Desc, Some(seq)) => Self { last: self.last.min(seq.saturating_sub(1)), ..self },
        }
    }

    /// Its sequences in ascending order.
    #[must_use]
    pub const fn seqs(self) -> RangeInclusive<u64> {
        self.first..=self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_as_many_sequences_as_it_lists_and_contains() {
        let ranges = [
            (SeqRange::new(3, 5), 3),
            (SeqRange::one(7), 1),
            (SeqRange::upto(4), 4),
            (SeqRange::upto(0), 0),
            (SeqRange::counted(6, 2), 2),
            (SeqRange::counted(6, 0), 0),
            (SeqRange::new(9, 3), 0),
        ];
        for (range, len) in ranges {
            assert_eq!((range.len(), range.seqs().count()), (len, len), "{range:?}");
            assert_eq!((0..20).filter(|seq| range.contains(*seq)).count(), len, "{range:?}");
            assert_eq!(range.is_empty(), len == 0, "{range:?}");
        }
    }

    #[test]
    fn the_part_of_a_range_after_a_sequence_depends_on_the_order() {
        let range = SeqRange::new(3, 9);
        for order in [Order::Asc, Order::Desc] {
            assert_eq!(range.after(None, order), range);
            for seq in 0..12 {
                let after: Vec<_> = range.seqs().filter(|other| order.is_after(*other, seq)).collect();
                assert!(range.after(Some(seq), order).seqs().eq(after), "{order:?} {seq}");
            }
        }
        assert_eq!(SeqRange::ALL.after(Some(u64::MAX), Order::Asc), SeqRange::one(u64::MAX));
    }

    #[test]
    fn the_ends_of_all_numbers_are_no_overflow() {
        assert_eq!(SeqRange::new(0, u64::MAX).len(), usize::MAX);
        assert_eq!(SeqRange::one(u64::MAX).len(), 1);
        assert_eq!(SeqRange::counted(u64::MAX, 1), SeqRange::one(u64::MAX));
        assert!(SeqRange::ALL.contains(1) && SeqRange::ALL.contains(u64::MAX) && !SeqRange::ALL.contains(0));
    }

    #[test]
    fn a_seq_range_is_stored_as_a_pair_of_numbers() {
        let bytes = minicbor::to_vec((3_u64, 500_u64)).unwrap();
        assert_eq!(minicbor::to_vec(SeqRange::new(3, 500)).unwrap(), bytes);
        assert_eq!(minicbor::decode::<SeqRange>(&bytes).unwrap(), SeqRange::new(3, 500));
    }
}
