//! Choices of which a few are frequent and most are rare.

/// Ranks from 0, drawn so that rank r comes in proportion to 1/(r + 1): Zipf's law with exponent 1.
pub(crate) struct Zipf {
    /// For each rank, the share of all draws up to and including it.
    upto: Vec<f64>,
}

impl Zipf {
    /// Over so many ranks, at least one.
    pub(crate) fn new(ranks: u32) -> Self {
        let total: f64 = (1..=ranks.max(1)).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut sum = 0.0;
        let upto = (1..=ranks.max(1)).map(|rank| {
            sum += 1.0 / f64::from(rank) / total;
            sum
        });
        Self { upto: upto.collect() }
    }

    /// The rank of the `nth` draw; the same in every run.
    pub(crate) fn rank(&self, nth: u64) -> usize {
        // The finalizer of splitmix64 turns neighbouring numbers into random-looking ones.
        let mut mixed = nth.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        self.upto.partition_point(|upto| *upto < share).min(self.upto.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_as_often_as_its_share_and_the_last_ones_come_too() {
        let zipf = Zipf::new(1_000);
        let mut counts = vec![0_u32; 1_000];
        (0..100_000).for_each(|nth| counts[zipf.rank(nth)] += 1);
        // 1 / H(1000) is 0.1336.
        assert!((13_000..13_700).contains(&counts[0]), "{}", counts[0]);
        assert!((6_400..7_000).contains(&counts[1]), "{}", counts[1]);
        assert!(counts.iter().filter(|count| **count > 0).count() > 950);
    }
}
