//! State shared by the writer's thread and its callers: the reason for a failed store, and counters.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::clock::Clock;
use actors::metrics::StoreMetrics;
use actors::store::StoreError;
use actors::trace::TraceContext;

use super::options::OnFatal;
use super::queue::QUEUE_BYTES;
use super::space::Space;

/// The state shared by the writer and its callers.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    /// Why the store accepts nothing any more, once it has failed.
    pub(super) ended: OnceLock<String>,
    pub(super) space: Space,
    queued_bytes: AtomicUsize,
    on_fatal: OnFatal,
    pub(super) batches: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) metrics: StoreMetrics,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>, on_fatal: OnFatal, space: Space) -> Self {
        Self {
            clock,
            ended: OnceLock::new(),
            space,
            queued_bytes: AtomicUsize::new(0),
            on_fatal,
            batches: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            metrics: StoreMetrics::default(),
        }
    }

    pub(super) fn usable(&self) -> Result<(), StoreError> {
        self.ended.get().map_or(Ok(()), |reason| Err(StoreError::Unavailable(reason.clone().into())))
    }

    /// Ends the store because of a failure.
    pub(super) fn fail(&self, reason: &str) {
        if self.ended.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "the store has failed and accepts no more requests");
            (self.on_fatal)(reason.to_owned());
        }
    }

    /// A commit of so many bytes enters the queue; `false`: it had too many bytes already.
    pub(super) fn enters(&self, bytes: usize) -> bool {
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.queued_commits.add(1);
        self.metrics.queued_bytes.add(signed(bytes));
        before <= QUEUE_BYTES
    }

    /// It leaves the queue.
    pub(super) fn leaves(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.queued_commits.add(-1);
        self.metrics.queued_bytes.add(-signed(bytes));
    }

    pub(super) fn counted(&self, commits: u64) {
        if commits > 0 {
            self.batches.fetch_add(1, Ordering::Relaxed);
            self.metrics.batch_commits.record(commits);
        }
        self.commits.fetch_add(commits, Ordering::Relaxed);
    }

    /// A batch was made durable; `recorded`: the trace context of a recorded commit in it, if there is one.
    pub(super) fn synced(&self, took: Duration, recorded: Option<TraceContext>) {
        self.metrics.sync.observe(took, recorded, || self.clock.now());
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
