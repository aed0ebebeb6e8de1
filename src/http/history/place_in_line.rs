//! A place in the line for a permit, kept while its stream sends a comment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::sync::LockUnpoisoned as _;
use actors::tasks::shares::SharedPermit;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How long a permit is kept for its stream, which takes it at once unless its client reads nothing.
const OFFER_TIMEOUT: Duration = Duration::from_secs(1);

/// A place in the line. A task waits there, because a stream is not run while its client reads nothing, and would then
/// keep the permit that it is given.
#[derive(Debug)]
pub(crate) struct PlaceInLine {
    offer: Arc<Mutex<Option<SharedPermit>>>,
    /// `None` once the permit was offered.
    reached: Option<oneshot::Receiver<()>>,
    task: AbortHandle,
}

impl PlaceInLine {
    /// The place of a task that waits for `permit`.
    pub(super) fn new(permit: impl Future<Output = SharedPermit> + Send + 'static) -> Self {
        let offer = Arc::new(Mutex::new(None));
        let (reached, is_reached) = oneshot::channel();
        let offered = Arc::clone(&offer);
        let waiting = async move {
            let permit = permit.await;
            *offered.lock_unpoisoned() = Some(permit);
            _ = reached.send(());
            sleep(OFFER_TIMEOUT).await;
            *offered.lock_unpoisoned() = None;
        };
        Self { offer, reached: Some(is_reached), task: tokio::spawn(waiting).abort_handle() }
    }

    /// The permit, once it is this place's turn; `None`: that was more than a second ago. If the wait is cancelled, the
    /// place is kept.
    pub(crate) async fn permit(&mut self) -> Option<SharedPermit> {
        if let Some(reached) = &mut self.reached {
            // An error is the end of the runtime, which ends the stream too.
            _ = reached.await;
            self.reached = None;
        }
        self.offer.lock_unpoisoned().take()
    }
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use actors::id::Address;
    use futures_util::FutureExt as _;
    use tokio::task::yield_now;

    use super::*;
    use crate::http::history::HistoryPermits;

    const WORKSPACE: Address = Address([1; 10]);

    /// Two places behind the holders of all permits, the first of which was looked at.
    async fn two_places() -> (HistoryPermits, Vec<SharedPermit>, [PlaceInLine; 2]) {
        let permits = HistoryPermits::of(1, false);
        let held = std::iter::from_fn(|| permits.for_stream(WORKSPACE).now_or_never()).take(99).collect();
        let mut first = permits.place(WORKSPACE);
        yield_now().await;
        assert!(first.permit().now_or_never().is_none());
        let second = permits.place(WORKSPACE);
        yield_now().await;
        (permits, held, [first, second])
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_keeps_its_order_while_its_holder_does_something_else() {
        let (_permits, mut held, [mut first, mut second]) = two_places().await;
        held.pop();
        yield_now().await;
        assert!(second.permit().now_or_never().is_none());
        assert!(first.permit().now_or_never().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_its_place_does_not_take_goes_to_the_next_in_a_second() {
        let (_permits, mut held, [mut first, mut second]) = two_places().await;
        held.pop();
        let begun = tokio::time::Instant::now();
        assert!(second.permit().await.is_some());
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert!(first.permit().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_place_holds_nobody_up() {
        let (_permits, mut held, [first, mut second]) = two_places().await;
        drop(first);
        yield_now().await;
        held.pop();
        yield_now().await;
        assert!(second.permit().now_or_never().unwrap().is_some());
    }
}
