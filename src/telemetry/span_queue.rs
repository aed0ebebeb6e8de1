//! The bounded queue of spans to be sent; a span that finds it full is dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use actors::metrics::Counter;
use actors::sync::LockUnpoisoned as _;
use actors::trace::{Finished, Tracer};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::Notify;

use super::sampling::Sampling;
use crate::config::otel::Batching;

/// A span that has ended.
#[derive(Debug)]
pub enum Ended {
    /// A stage of a message's life, from the actors or the front door.
    Stage(Finished),
    /// A piece of code, from `tracing`.
    Code(Box<SpanData>),
}

/// The counts of spans by outcome.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accepted by the receiver.
    pub exported: Counter,
    /// Dropped, because the queue was full.
    pub overflowed: Counter,
    /// Dropped, because the receiver did not accept them.
    pub refused: Counter,
}

/// See the module's text.
#[derive(Debug)]
pub struct SpanQueue {
    spans: Mutex<VecDeque<Ended>>,
    batching: Batching,
    /// The queue is no longer empty.
    first: Notify,
    /// The queue fills a batch.
    full: Notify,
    counts: Counts,
}

impl SpanQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(batching: Batching) -> Self {
        let spans = Mutex::new(VecDeque::new());
        Self { spans, batching, first: Notify::new(), full: Notify::new(), counts: Counts::default() }
    }

    /// Takes a span, or drops it if the queue is full.
    pub fn push(&self, span: Ended) {
        let mut spans = self.lock();
        if spans.len() >= self.batching.queue {
            drop(spans);
            self.counts.overflowed.inc();
            return;
        }
        spans.push_back(span);
        let length = spans.len();
        drop(spans);
        if length == 1 {
            self.first.notify_one();
        }
        if length == self.batching.batch {
            self.full.notify_one();
        }
    }

    /// The oldest spans, as many as are sent together.
    pub fn take(&self) -> VecDeque<Ended> {
        let mut spans = self.lock();
        let length = spans.len().min(self.batching.batch);
        spans.drain(..length).collect()
    }

    /// Puts spans back that were taken and are not sent yet, before all others. The queue may be longer than its bound
    /// by them, until they are taken again.
    pub fn put_back(&self, spans: VecDeque<Ended>) {
        let mut waiting = self.lock();
        for span in spans.into_iter().rev() {
            waiting.push_front(span);
        }
    }

    /// Completes when there is a span to send and it has waited for the delay, or the queue fills a batch.
    pub async fn ready(&self) {
        loop {
            let waiting = self.len();
            if waiting >= self.batching.batch {
                return;
            }
            if waiting > 0 {
                // A notification of an earlier batch may be left over; sending too early is harmless.
                drop(tokio::time::timeout(self.batching.delay, self.full.notified()).await);
                return;
            }
            self.first.notified().await;
        }
    }

    /// The length of the queue.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The counts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bounds and pace.
    pub fn batching(&self) -> &Batching {
        &self.batching
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.spans.lock_unpoisoned()
    }
}

/// Puts the actors' spans into the queue.
#[derive(Debug)]
pub struct Recorder {
    /// The queue.
    pub waiting: std::sync::Arc<SpanQueue>,
    /// Which traces that begin within the node are recorded.
    pub sampling: std::sync::Arc<Sampling>,
}

impl Tracer for Recorder {
    fn record(&self, span: Finished) {
        self.waiting.push(Ended::Stage(span));
    }

    fn samples(&self, trace_id: [u8; 16]) -> bool {
        self.sampling.begins(&trace_id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use actors::trace::{SpanKind, TraceContext};

    use super::*;

    fn named(name: &'static str) -> Ended {
        let now = Instant::now();
        Ended::Stage(Finished {
            name: name.into(),
            kind: SpanKind::Internal,
            context: TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 },
            parent: None,
            links: Vec::new(),
            began: now,
            ended: now,
            attributes: Vec::new(),
            error: None,
        })
    }

    fn names(spans: &VecDeque<Ended>) -> Vec<&str> {
        spans.iter().filter_map(|span| if let Ended::Stage(stage) = span { Some(&*stage.name) } else { None }).collect()
    }

    #[test]
    fn spans_that_did_not_fit_a_request_are_taken_before_all_others() {
        let queue = SpanQueue::new(Batching { queue: 4, batch: 3, delay: Duration::ZERO, timeout: Duration::ZERO });
        for name in ["a", "b", "c", "d"] {
            queue.push(named(name));
        }
        let mut taken = queue.take();
        taken.pop_front();
        queue.put_back(taken);
        assert_eq!(names(&queue.take()), ["b", "c", "d"]);
    }
}
