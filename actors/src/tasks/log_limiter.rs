//! Rate-limited log lines, for failures that every request may meet: the first is logged, then one in a while, with the
//! number of those left out.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::LockUnpoisoned;

/// The default shortest time between two lines.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub struct LogLimiter {
    pause: Duration,
    state: Mutex<LimiterState>,
}

#[derive(Debug)]
struct LimiterState {
    /// When the newest line was logged.
    at: Option<Instant>,
    /// How many were left out since.
    left_out: u64,
}

/// A line to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// How many were left out since the line before; `None`: none.
    pub left_out: Option<u64>,
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimiter {
    /// One line per second; nothing was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::every(DEFAULT_INTERVAL)
    }

    /// One line per `pause`.
    #[must_use]
    pub const fn every(pause: Duration) -> Self {
        Self { pause, state: Mutex::new(LimiterState { at: None, left_out: 0 }) }
    }

    /// Returns the line if it is to be logged now; otherwise counts it.
    pub fn line(&self, now: Instant) -> Option<Line> {
        let mut state = self.state.lock_unpoisoned();
        if state.at.is_some_and(|at| now.saturating_duration_since(at) < self.pause) {
            state.left_out += 1;
            return None;
        }
        state.at = Some(now);
        let left_out = std::mem::take(&mut state.left_out);
        Some(Line { left_out: Some(left_out).filter(|left_out| *left_out > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_logged_and_then_one_a_second_with_a_count() {
        let limiter = LogLimiter::new();
        let begin = Instant::now();
        let after = |millis| limiter.line(begin + Duration::from_millis(millis)).map(|line| line.left_out);
        assert_eq!(after(0), Some(None));
        assert_eq!([after(0), after(400), after(999)], [None; 3]);
        assert_eq!(after(1_000), Some(Some(3)));
        assert_eq!([after(1_500), after(1_999)], [None; 2]);
        assert_eq!(after(60_000), Some(Some(2)), "however long it was quiet");
        assert_eq!(after(61_000), Some(None), "nothing was left out");
    }
}
