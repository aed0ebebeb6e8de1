//! Permits for drawing memories: some for calls of a model, which take seconds (a minute if it hangs), and others for
//! the fixed phrases, which take a moment. Tasks without a permit wait, first in, first out.
//!
//! A workspace may hold at most its own quarter of the model permits and a shared quarter: so a workspace whose model
//! hangs leaves permits for others. The waiting tasks of a workspace are bounded too.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::id::Address;
use crate::limits;
use crate::tasks::shares::{BoundedPermit, BoundedPermits, SharedPermits};

/// Conversations of a workspace that hold a model's permit or wait for one; further ones come back later. A quarter, so
/// that one workspace does not take the whole bound of waiting conversations.
const MAX_WAITING_PER_WORKSPACE: usize = limits::DRAWING_WAITING / 4;

/// See the module's text. No semaphore here is ever closed.
#[derive(Debug)]
pub(super) struct DrawPermits {
    forms: Semaphore,
    models: BoundedPermits,
}

impl Default for DrawPermits {
    fn default() -> Self {
        let models = BoundedPermits::of(SharedPermits::halved(limits::DRAWING), MAX_WAITING_PER_WORKSPACE);
        Self { forms: Semaphore::new(limits::DRAWING), models }
    }
}

impl DrawPermits {
    /// A permit for the fixed phrases.
    pub(super) async fn for_forms(&self) -> Option<SemaphorePermit<'_>> {
        self.forms.acquire().await.ok()
    }

    /// A permit for asking a model, once there is one; `None`: too many of this workspace wait.
    pub(super) async fn for_model(&self, workspace: Address) -> Option<BoundedPermit> {
        Some(self.models.enter(workspace)?.await)
    }

    /// Whether one more conversation of this workspace may wait for a model's permit.
    pub(super) fn has_room(&self, workspace: Address) -> bool {
        self.models.has_room(workspace)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Permits that a workspace has for itself, and as many are for whoever comes.
    const QUARTER: usize = limits::DRAWING / 4;

    fn workspace(n: u8) -> Address {
        Address([n; 10])
    }

    #[test]
    fn a_hanging_model_of_a_workspace_leaves_places_to_others() {
        let permits = DrawPermits::default();
        let enter = |n| permits.for_model(workspace(n)).now_or_never();
        let mut held: Vec<_> = std::iter::from_fn(|| enter(1)).take(limits::DRAWING).collect();
        assert_eq!(held.len(), 2 * QUARTER, "its own, and those for whoever comes");
        held.extend(std::iter::from_fn(|| enter(2)).take(limits::DRAWING));
        assert_eq!(held.len(), 3 * QUARTER);
        let mut waiting = [1, 1].map(|n| Box::pin(permits.for_model(workspace(n))));
        assert!(waiting.iter_mut().all(|waits| waits.now_or_never().is_none()));
        held.extend(std::iter::from_fn(|| enter(3)).take(limits::DRAWING));
        assert_eq!(held.len(), limits::DRAWING);
        assert!(permits.for_forms().now_or_never().is_some(), "nobody who asks no model waits for one");
        drop(held.drain(QUARTER..=QUARTER).collect::<Vec<_>>());
        let first = waiting[0].as_mut().now_or_never();
        assert!(first.is_some(), "the first of those that wait, also where a place for whoever comes is free");
        assert!(waiting[1].as_mut().now_or_never().is_none());
        drop(held.drain(..1).collect::<Vec<_>>());
        assert!(waiting[1].as_mut().now_or_never().is_some(), "the next one, where one of its own is free");
        drop(first);
        drop((waiting, held));
        assert!(permits.models.is_unused());
    }

    #[test]
    fn a_workspace_with_too_many_waiting_is_sent_away_and_others_not() {
        let permits = DrawPermits::default();
        let mut waiting: Vec<_> =
            (0..MAX_WAITING_PER_WORKSPACE).map(|_| Box::pin(permits.for_model(workspace(1)))).collect();
        let mut held: Vec<_> = waiting.iter_mut().map(|waits| waits.as_mut().now_or_never()).collect();
        assert!(!permits.has_room(workspace(1)));
        assert!(matches!(permits.for_model(workspace(1)).now_or_never(), Some(None)));
        assert!(
            permits.has_room(workspace(2)) && matches!(permits.for_model(workspace(2)).now_or_never(), Some(Some(_)))
        );
        held.pop();
        waiting.pop();
        assert!(permits.has_room(workspace(1)), "one has gone");
    }
}
