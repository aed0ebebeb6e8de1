//! A commit that is being timed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::telemetry;
use crate::metrics::CommitEnd;
use crate::node::Node;
use crate::store::{Commit, CommitWatch, Outcome, StoreError};
use crate::trace::{Span, SpanKind, TraceContext, names};

/// Times a commit from its submission to the store until its outcome is known.
pub(crate) struct Timing {
    began: Instant,
    span: Span,
    watch: Option<Arc<CommitWatch>>,
}

impl Timing {
    /// The commit goes to the store now, as a child of `batch`.
    pub(crate) fn begin(node: &Node, batch: Option<TraceContext>, commit: &mut Commit) -> Self {
        let mut span = node.span(names::COMMIT, SpanKind::Client, batch);
        if let Some(context) = span.context() {
            let size = commit.records.len() + commit.rows.len() + commit.keys.len() + commit.views.len();
            telemetry::of_store(&mut span, node, names::COMMIT);
            // A single commit is no batch.
            if size > 1 {
                span.set(names::DB_BATCH_SIZE, size);
            }
            commit.watch = Some(Arc::new(CommitWatch::new(context, span.recorded().is_some())));
        }
        Self { began: Instant::now(), span, watch: commit.watch.clone() }
    }

    /// Ends the span with the commit's outcome.
    pub(crate) fn end(mut self, node: &Node, outcome: &Result<Outcome, StoreError>) {
        let (end, word) = match outcome {
            Ok(Outcome::Committed(_)) => (CommitEnd::Committed, "committed"),
            Ok(Outcome::Conflict) => (CommitEnd::Conflict, "conflict"),
            Err(StoreError::Indeterminate(_)) => (CommitEnd::Indeterminate, "indeterminate"),
            Err(_) => (CommitEnd::Failed, "failed"),
        };
        node.metrics.commit.of(end).observe(self.began.elapsed(), self.span.recorded(), || node.now());
        let Some(watch) = self.watch else { return };
        self.span.set(names::OUTCOME, word);
        if outcome.is_err() {
            self.span.fail(word);
        }
        let known =
            |value: &std::sync::atomic::AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|value| *value > 0);
        if let Some(commits) = known(&watch.batch_commits) {
            self.span.set(names::STORE_BATCH, commits);
        }
        if let Some(nanos) = known(&watch.sync_nanos) {
            self.span.set(names::STORE_SYNC_MS, nanos as f64 / 1e6);
        }
        if let Some(attempts) = known(&watch.attempts) {
            self.span.set(names::STORE_ATTEMPTS, attempts);
        }
    }
}
