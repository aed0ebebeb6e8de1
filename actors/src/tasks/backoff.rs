//! Growing pauses between attempts, and retrying transient failures up to a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::StoreError;

/// The first pause between two attempts; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between offers of a report that has no end.
const LONGEST_PAUSE_OF_REPORTS: Duration = Duration::from_secs(10);

/// The pause after `put_off` delays: twice as long each time, beginning with `first`, at most `most`.
#[must_use]
pub(crate) fn pause(first: u64, put_off: u32, most: u64) -> u64 {
    (first << put_off.min(16)).min(most)
}

/// The pauses between attempts at one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// No pause begins after it; `None`: the caller is bounded otherwise.
    until: Option<Instant>,
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// For this time from now.
    pub(crate) fn within(within: Duration) -> Self {
        Self { until: Some(Instant::now() + within), pause: FIRST_PAUSE, longest: MAX_PAUSE }
    }

    /// Without an end.
    pub(crate) fn endless(pause: Duration, longest: Duration) -> Self {
        Self { until: None, pause, longest }
    }

    /// For a report of work whose result is known nowhere else. If other processes write too, `within` this time:
    /// another one may take the work over then. Otherwise without an end: the work would only be done again.
    pub(crate) fn of_report(is_shared: bool, within: Duration) -> Self {
        if is_shared { Self::within(within) } else { Self::endless(FIRST_PAUSE, LONGEST_PAUSE_OF_REPORTS) }
    }

    /// Waits before the next attempt; `false`: it is too late for one.
    pub(crate) async fn wait(&mut self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest);
        true
    }
}

/// Runs an operation that may be done twice, and retries transient failures `within` this time.
///
/// # Errors
///
/// The error of the last attempt.
pub async fn retry_transient<T, F: Future<Output = Result<T, StoreError>>>(
    within: Duration,
    attempt: impl Fn() -> F,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::within(within);
    loop {
        match attempt().await {
            Err(error) if error.is_transient() => {
                if !backoff.wait().await {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}
