//! Two clocks: spans are timed by the one that never jumps, and told by the one that people read.

use std::time::{Duration, Instant, SystemTime};

/// Clocks that are so far apart at most have not been set; reading both takes a while on a busy machine.
const AGREES: Duration = Duration::from_millis(100);

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "what is shown to people is not decided on")]
    pub(super) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The same one while both clocks still agree about it, so that spans of one trace that are sent apart stay in
    /// order; now, where somebody has set the wall clock since.
    pub(super) fn still(self) -> Self {
        let now = Self::now();
        let told = self.wall(now.steady);
        let apart = told.duration_since(now.wall).unwrap_or_else(|error| error.duration());
        if apart < AGREES { self } else { now }
    }

    /// What the wall clock says of a moment.
    pub(super) fn wall(self, at: Instant) -> SystemTime {
        let ago = self.steady.saturating_duration_since(at);
        self.wall.checked_sub(ago).unwrap_or(self.wall) + at.saturating_duration_since(self.steady)
    }
}
