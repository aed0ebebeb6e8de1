//! Log lines about a receiver that accepts nothing, or not everything: one when that begins, one now and then, one when
//! it is over.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line says that it is still so.
const REMINDER_INTERVAL: Duration = Duration::from_secs(300);

/// Whether there is trouble, and when it was last logged.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    told: Option<Instant>,
}

impl FailureLog {
    /// A batch was not accepted. Returns whether a line is due.
    pub(super) fn goes_on(&mut self) -> bool {
        let is_due = self.told.is_none_or(|told| told.elapsed() > REMINDER_INTERVAL);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }

    /// A batch was accepted. Returns whether the trouble had been logged.
    pub(super) fn is_over(&mut self) -> bool {
        self.told.take().is_some()
    }
}
