//! A receiver that takes nothing, as far as the log needs to know: one line when that begins, one now and then, one
//! when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line says that the receiver still takes nothing.
const REMIND: Duration = Duration::from_secs(300);

/// Whether there is trouble, and when a line last said so.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<Instant>,
}

impl Trouble {
    /// Something was not taken. True: a line is due.
    pub(super) fn goes_on(&mut self) -> bool {
        let is_due = self.told.is_none_or(|told| told.elapsed() > REMIND);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }

    /// Something was taken. True: a line has said that nothing was.
    pub(super) fn is_over(&mut self) -> bool {
        self.told.take().is_some()
    }
}
