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
/// Permits for each core. Another request waits for so many pages or parts at most, each some milliseconds; with fewer, a
/// read that waits for the disk would hold up too many others.
const PERMITS_PER_CORE: usize = 4;
/// Permits for each core with a store of several servers: there a reader mostly waits for the store's answer.
const PERMITS_PER_CORE_OF_SHARED_STORE: usize = 16;

/// The permits of the process. One workspace may hold all of them while no other one reads.
#[derive(Clone, Debug)]
pub(crate) struct HistoryPermits(SharedPermits);

impl HistoryPermits {
    /// Those of a process on this node.
    pub(crate) fn of_process(node: &Node) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::of(cores, node.shares_its_store())
    }

    fn of(cores: usize, is_shared_store: bool) -> Self {
        let per_core = if is_shared_store { PERMITS_PER_CORE_OF_SHARED_STORE } else { PERMITS_PER_CORE };
        let many = cores * per_core;
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
    fn readers_of_histories_are_a_few_for_each_core() {
        for (cores, is_shared_store, most) in [(1, false, 4), (2, false, 8), (2, true, 32)] {
            let permits = HistoryPermits::of(cores, is_shared_store);
            let enter = || permits.for_stream(Address([1; 10])).now_or_never();
            let held: Vec<_> = std::iter::from_fn(enter).take(99).collect();
            assert_eq!(held.len(), most, "{cores}");
        }
    }

    #[test]
    fn a_page_waits_for_one_part_of_a_crowded_workspace_at_most() {
        let permits = HistoryPermits::of(1, false);
        let [crowded, quiet] = [1, 2].map(|n| Address([n; 10]));
        let mut held: Vec<_> = (0..4).map(|_| permits.for_stream(crowded).now_or_never().unwrap()).collect();
        let mut streams: Vec<_> = (0..300).map(|_| Box::pin(permits.for_stream(crowded))).collect();
        assert!(streams.iter_mut().all(|waits| waits.now_or_never().is_none()));
        let mut page = Box::pin(permits.for_stream(quiet));
        assert!((&mut page).now_or_never().is_none());
        held.pop();
        assert!(streams.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert!(page.now_or_never().is_some());
    }
}
