//! Waiting for background work: never longer than [`UNTIL_TIMEOUT`], so that a test of a broken promise fails instead
//! of hanging.

use std::thread;
use std::time::{Duration, Instant};

/// The longest wait, in real time: on a busy machine a store outside this process takes seconds.
const UNTIL_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until it is so; the cause is on this runtime, or elsewhere.
pub(crate) async fn until(mut is: impl FnMut() -> bool) {
    seen(async || is().then_some(())).await;
}

/// Checks until there is a value. The runtime's clock is left as it is, even if it is paused.
pub(crate) async fn seen<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < UNTIL_TIMEOUT {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not happen within {UNTIL_TIMEOUT:?}");
}

/// The same on a thread without a runtime.
pub(crate) fn seen_here<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < UNTIL_TIMEOUT {
        if let Some(seen) = look() {
            return seen;
        }
        thread::yield_now();
    }
    panic!("it did not happen within {UNTIL_TIMEOUT:?}");
}
