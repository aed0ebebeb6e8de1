//! Notifies a lane's step of retries that are requested while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use tokio::sync::Notify;

/// Which event a retry was requested for. Of two requests the greater one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RetryOf {
    /// One after the lane's first one, which goes now too, but only if its receiver still wants it.
    LaterEvent,
    /// The lane's first one, which the step is about.
    Head,
}

/// Requested retries, from the courier to the step. Several requests before one is taken count as one, for the first
/// event if any of them is.
#[derive(Debug, Default)]
pub(super) struct RetrySignal {
    of_head: AtomicBool,
    notify: Notify,
}

impl RetrySignal {
    /// A retry was requested.
    pub(super) fn send(&self, requested: RetryOf) {
        self.of_head.fetch_or(requested == RetryOf::Head, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Waits for a requested retry. Nothing is taken if the wait is given up.
    pub(super) async fn received(&self) -> RetryOf {
        self.notify.notified().await;
        if self.of_head.swap(false, Ordering::SeqCst) { RetryOf::Head } else { RetryOf::LaterEvent }
    }

    /// Takes a requested retry, if there is one.
    pub(super) fn take(&self) -> Option<RetryOf> {
        self.received().now_or_never()
    }
}
