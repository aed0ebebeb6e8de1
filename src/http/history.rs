//! Permits for reading stored events and messages and rendering them, a page or a part of a stream at a time.
//!
//! Both take processor time by the length of what is stored. If some hundred clients read at once, all threads would be
//! busy with them, and all other requests would wait for seconds: a decision about a review would come after its
//! deadline. A permit is never held while a client receives what was rendered.

use std::thread;
use std::time::Duration;

use actors::id::Address;
use actors::node::Node;
use actors::tasks::shares::{SharedPermit, SharedPermits};
use tokio::time::timeout;

use crate::problem::Problem;

/// How long a page waits for a permit: as long as a command for its answer. The number of connections bounds how many
/// wait.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many permits a store of several servers has for each one of an embedded store: there a reader mostly waits for
/// the store's answer.
const PERMITS_WHILE_WAITING: usize = 16;

/// The permits of the process. One workspace may hold all of them while no other one reads.
#[derive(Clone, Debug)]
pub(crate) struct HistoryPermits(SharedPermits);

impl HistoryPermits {
    /// Those of a process on this node.
    pub(crate) fn of_process(node: &Node) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::of(cores, node.shares_its_store())
    }

    /// As many as keep half of the cores busy, so that the other half is there for everything else.
    fn of(cores: usize, is_shared_store: bool) -> Self {
        let busy = (cores / 2).max(1);
        let many = if is_shared_store { busy * PERMITS_WHILE_WAITING } else { busy };
        Self(SharedPermits::of(many, many))
    }

    /// A permit for a part of a stream of this workspace. The bound of long requests bounds how many wait.
    pub(crate) async fn for_stream(&self, workspace: Address) -> SharedPermit {
        self.0.enter(workspace).await
    }

    /// A permit for a page of this workspace.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(crate) async fn for_page(&self, workspace: Address) -> Result<SharedPermit, Problem> {
        let entered = timeout(PAGE_TIMEOUT, self.0.enter(workspace)).await;
        entered.map_err(|_| {
            Problem::unavailable("overloaded", "too many requests are reading messages and events; retry later", 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn readers_of_histories_leave_half_of_the_cores_to_others() {
        for (cores, most) in [(1, 1), (2, 1), (3, 1), (8, 4)] {
            let permits = HistoryPermits::of(cores, false);
            let enter = || permits.for_stream(Address([1; 10])).now_or_never();
            let held: Vec<_> = std::iter::from_fn(enter).take(99).collect();
            assert_eq!(held.len(), most, "{cores}");
        }
    }

    #[test]
    fn a_page_waits_for_one_part_of_a_crowded_workspace_at_most() {
        let permits = HistoryPermits::of(2, false);
        let [crowded, quiet] = [1, 2].map(|n| Address([n; 10]));
        let held = permits.for_stream(crowded).now_or_never().unwrap();
        let mut streams: Vec<_> = (0..300).map(|_| Box::pin(permits.for_stream(crowded))).collect();
        assert!(streams.iter_mut().all(|waits| waits.now_or_never().is_none()));
        let mut page = Box::pin(permits.for_stream(quiet));
        assert!((&mut page).now_or_never().is_none());
        drop(held);
        assert!(streams.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert!(page.now_or_never().is_some());
    }
}
