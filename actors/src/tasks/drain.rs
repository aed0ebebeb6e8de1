//! Draining: a stopping node waits for its requests, turns, deliveries and commits to end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the condition is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `is_over`, or until `deadline`.
pub(crate) async fn wait(is_over: impl Fn() -> bool, deadline: Instant) {
    while !is_over() && Instant::now() < deadline {
        sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_is_waited_for_and_not_beyond_the_deadline() {
        let begun = Instant::now();
        let soon = begun + CHECK_INTERVAL * 3;
        let deadline = begun + Duration::from_secs(1);
        wait(|| Instant::now() >= soon, deadline).await;
        assert!((soon..soon + CHECK_INTERVAL).contains(&Instant::now()), "{:?}", begun.elapsed());
        wait(|| false, deadline).await;
        assert!((deadline..deadline + CHECK_INTERVAL).contains(&Instant::now()), "{:?}", begun.elapsed());
        wait(|| true, deadline + CHECK_INTERVAL).await;
        assert!(Instant::now() < deadline + CHECK_INTERVAL, "what is over is not waited for");
    }
}
