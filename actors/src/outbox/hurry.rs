//! Notifies a lane's step of retries that are requested while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use tokio::sync::Notify;

/// Which event a retry was requested for. Of two requests the greater one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// One behind the lane's first one, which goes now too, but only if its receiver still wants it.
    OfLater,
    /// The lane's first one, which the step is about.
    OfHead,
}

/// See the module's text. Several requests before one is taken count as one, for the first event if any of them is.
#[derive(Debug, Default)]
pub(super) struct Hurry {
    of_head: AtomicBool,
    notify: Notify,
}

impl Hurry {
    /// A retry was requested.
    pub(super) fn tell(&self, heard: Heard) {
        self.of_head.fetch_or(heard == Heard::OfHead, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Waits for a requested retry. Nothing is taken if the wait is given up.
    pub(super) async fn heard(&self) -> Heard {
        self.notify.notified().await;
        if self.of_head.swap(false, Ordering::SeqCst) { Heard::OfHead } else { Heard::OfLater }
    }

    /// Takes a requested retry, if there is one.
    pub(super) fn take(&self) -> Option<Heard> {
        self.heard().now_or_never()
    }
}
