//! Permits for reading stored events, messages and reviews and rendering them, a page or a part of a stream at a time.
//!
//! Both take processor time by the length of what is stored. If some hundred clients read at once, all threads would be
//! busy with them, and all other requests would wait for seconds: a decision about a review would come after its
//! deadline. A permit is never held while a client receives what was rendered.

use std::thread;
use std::time::Duration;

use actors::id::Address;
use actors::node::Node;
use actors::tasks::shares::{SharedPermit, SharedPermits};
use tokio::time::{Instant, timeout};

use crate::problem::Problem;

mod place_in_line;

pub(crate) use place_in_line::PlaceInLine;

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

    /// The place of a stream that waits for such a permit.
    pub(crate) fn place(&self, workspace: Address) -> PlaceInLine {
        let permits = self.0.clone();
        PlaceInLine::new(async move { permits.enter(workspace).await })
    }

    /// A permit for a page of this workspace.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(crate) async fn for_page(&self, workspace: Address) -> Result<SharedPermit, Problem> {
        self.within(PAGE_TIMEOUT, workspace).await
    }

    /// The permits for a page of this workspace for which more may be read than it shows: each covers `part` events or
    /// entries, as many as are read where all are shown.
    pub(crate) fn for_parts(&self, workspace: Address, part: usize) -> PartPermits<'_> {
        PartPermits { permits: self, workspace, wait_left: PAGE_TIMEOUT, part, left: 0, held: None }
    }

    async fn within(&self, wait: Duration, workspace: Address) -> Result<SharedPermit, Problem> {
        let entered = timeout(wait, self.0.enter(workspace)).await;
        entered.map_err(|_| {
            Problem::unavailable("overloaded", "too many requests are reading messages and events; retry later", 1)
        })
    }
}

/// The permits for a page that is read in parts: one at a time, the last of them until the page is rendered. A page of
/// which most is filtered out takes its next permit behind the requests that wait meanwhile.
#[derive(Debug)]
pub(crate) struct PartPermits<'a> {
    permits: &'a HistoryPermits,
    workspace: Address,
    /// How long it may still wait for permits.
    wait_left: Duration,
    part: usize,
    /// How much of the part is not read yet.
    left: usize,
    held: Option<SharedPermit>,
}

impl PartPermits<'_> {
    /// Begins to read so many events or entries, once there is a permit for them.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(crate) async fn read(&mut self, count: usize) -> Result<(), Problem> {
        if self.left == 0 {
            // Returned before the wait for the next one: others may wait for it.
            self.held = None;
            let began = Instant::now();
            self.held = Some(self.permits.within(self.wait_left, self.workspace).await?);
            self.wait_left = self.wait_left.saturating_sub(began.elapsed());
            self.left = self.part;
        }
        self.left = self.left.saturating_sub(count);
        Ok(())
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

    #[tokio::test(start_paused = true)]
    async fn a_page_that_reads_on_waits_behind_those_that_came_meanwhile() {
        let permits = HistoryPermits::of(1, false);
        let [crowded, quiet] = [1, 2].map(|n| Address([n; 10]));
        let mut lists: Vec<_> = (0..4).map(|_| permits.for_parts(crowded, 9)).collect();
        for list in &mut lists {
            // A part ends with the chunk that goes beyond it.
            for count in [5, 5] {
                list.read(count).now_or_never().unwrap().unwrap();
            }
        }
        let mut page = Box::pin(permits.for_page(quiet));
        assert!((&mut page).now_or_never().is_none());
        let mut next = Box::pin(lists[0].read(5));
        assert!((&mut next).now_or_never().is_none());
        assert!(page.now_or_never().unwrap().is_ok());
        assert!((&mut next).now_or_never().unwrap().is_ok(), "its page is read");
    }
}
