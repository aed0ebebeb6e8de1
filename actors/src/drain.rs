//! Waiting for what is under way to end, while a node stops.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `is_over`, or until `deadline`.
pub(crate) async fn wait(is_over: impl Fn() -> bool, deadline: Instant) {
    while !is_over() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}
