//! Return times of lanes that find no room: each gets a different one, so that a hundred thousand logs waiting for one
//! receiver come back a few at a time, and hold only their alarms meanwhile.

use crate::clock::Millis;

/// After how long the first lane without room comes back.
pub(super) const CROWDED_MILLIS: u64 = 2_000;
/// The time between two such returns: 40 a second, since each costs a commit for nothing.
pub(super) const APART_MILLIS: u64 = 25;
/// The time between two returns if deliveries arrive, so that returning lanes find room.
pub(super) const APART_WELL_MILLIS: u64 = 1;
/// The longest such time; lanes beyond it come back together, which takes 144,000 of them.
pub(super) const MAX_RETURN_MILLIS: u64 = 3_600_000;

/// When a lane that finds no room at `now` comes back: after the one that was sent away `last`, not before `soonest`.
/// `finds_room`: deliveries have arrived.
pub(super) fn next(last: Millis, soonest: Millis, finds_room: bool, now: Millis) -> Millis {
    let apart = if finds_room { APART_WELL_MILLIS } else { APART_MILLIS };
    let furthest = now.plus(MAX_RETURN_MILLIS);
    // No lane was sent that far: the clock was set back since, and this one need not wait as long.
    let last = if last > furthest { Millis(0) } else { last };
    last.max(soonest).plus(apart).min(furthest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_spread_over_at_most_an_hour() {
        let now = Millis(1_000_000);
        let mut last = Millis(0);
        for n in 1..=MAX_RETURN_MILLIS / APART_MILLIS {
            last = next(last, now, false, now);
            assert_eq!(last, now.plus(n * APART_MILLIS));
        }
        assert_eq!(next(last, now, false, now), now.plus(MAX_RETURN_MILLIS));
        assert_eq!(next(Millis(0), now, true, now), now.plus(APART_WELL_MILLIS));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_extend_a_refusal() {
        let before = Millis(100_000_000);
        let now = Millis(90_000_000);
        let last = next(Millis(0), before, false, before);
        let last = next(last, now.plus(CROWDED_MILLIS), false, now);
        assert_eq!(last, now.plus(CROWDED_MILLIS + APART_MILLIS));
        assert_eq!(next(last, now, false, now), last.plus(APART_MILLIS), "and the others come after that one");
    }
}
