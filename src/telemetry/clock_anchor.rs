//! Two clocks: spans are timed by the monotonic clock, and reported in wall-clock time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clocks at most this many nanoseconds apart have not been set; reading both takes a while on a busy machine.
const MAX_CLOCK_SKEW_NANOS: u64 = 100_000_000;

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockAnchor {
    steady: Instant,
    /// In nanoseconds since 1970.
    wall: u64,
}

impl ClockAnchor {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "what is shown to people is not decided on")]
    pub(super) fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { steady: Instant::now(), wall: nanos(wall) }
    }

    /// The same one while both clocks still agree about it, so that separately sent spans of one trace stay in order;
    /// now, if the wall clock has been set since.
    pub(super) fn still(self) -> Self {
        let now = Self::now();
        if self.nanos(now.steady).abs_diff(now.wall) < MAX_CLOCK_SKEW_NANOS { self } else { now }
    }

    /// The wall-clock time of a moment, in nanoseconds since 1970.
    pub(super) fn nanos(self, at: Instant) -> u64 {
        match at.checked_duration_since(self.steady) {
            Some(later) => self.wall.saturating_add(nanos(later)),
            None => self.wall.saturating_sub(nanos(self.steady.saturating_duration_since(at))),
        }
    }
}

/// A time's nanoseconds, at most 584 years of them.
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_and_after_a_moment_convert_to_the_nanosecond() {
        let moment = ClockAnchor { steady: Instant::now(), wall: 1_735_689_600_000_000_000 };
        let apart = Duration::new(3, 7);
        assert_eq!(moment.nanos(moment.steady + apart), 1_735_689_603_000_000_007);
        assert_eq!(moment.nanos(moment.steady.checked_sub(apart).unwrap()), 1_735_689_596_999_999_993);
        assert_eq!(moment.nanos(moment.steady), 1_735_689_600_000_000_000);
    }

    #[test]
    fn a_clock_that_was_set_is_trusted() {
        let now = ClockAnchor::now();
        let set = ClockAnchor { wall: now.wall - 2 * MAX_CLOCK_SKEW_NANOS, ..now };
        assert_eq!((now.still().wall, set.still().wall >= now.wall), (now.wall, true));
    }
}
