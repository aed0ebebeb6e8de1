//! Waiting for what happens by itself: never longer than [`PATIENCE`], so that a test whose promise is broken fails
//! instead of hanging.

use std::thread;
use std::time::{Duration, Instant};

/// Longest that anything is waited for, in real time: on a busy machine a store elsewhere takes its seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so; what it waits for happens on this runtime, or elsewhere.
pub(crate) async fn until(mut is: impl FnMut() -> bool) {
    seen(async || is().then_some(())).await;
}

/// Looks until something is seen. The clock of the runtime is not touched: where it stands, it stands.
pub(crate) async fn seen<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not happen within {PATIENCE:?}");
}

/// The same on a thread of its own, where there is no runtime.
pub(crate) fn seen_here<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(seen) = look() {
            return seen;
        }
        thread::yield_now();
    }
    panic!("it did not happen within {PATIENCE:?}");
}
