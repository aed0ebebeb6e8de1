//! The queue of spans to be sent: bounded; a span that finds it full is dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actors::metrics::Counter;
use actors::trace::{Finished, Tracer};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::Notify;

use super::sampling::Sampling;
use crate::config::otel::Batching;

/// A span that has ended.
#[derive(Debug)]
pub enum Ended {
    /// A stage of a message's life, as the actors and the door tell it.
    Stage(Finished),
    /// A piece of code, as `tracing` reports it.
    Code(Box<SpanData>),
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken by the receiver.
    pub exported: Counter,
    /// Dropped, because too many waited.
    pub overflowed: Counter,
    /// Dropped, because the receiver did not take them.
    pub refused: Counter,
}

/// See the module's text.
#[derive(Debug)]
pub struct Waiting {
    spans: Mutex<VecDeque<Ended>>,
    batching: Batching,
    /// One waits that did not before.
    first: Notify,
    /// So many wait that they fill a batch.
    full: Notify,
    counts: Counts,
}

impl Waiting {
    /// None yet.
    #[must_use]
    pub fn new(batching: Batching) -> Self {
        let spans = Mutex::new(VecDeque::new());
        Self { spans, batching, first: Notify::new(), full: Notify::new(), counts: Counts::default() }
    }

    /// Takes a span, or drops it where too many wait.
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

    /// The oldest that wait, as many as are sent together.
    pub fn take(&self) -> Vec<Ended> {
        let mut spans = self.lock();
        let length = spans.len().min(self.batching.batch);
        spans.drain(..length).collect()
    }

    /// Completes when there is something to send and it has waited for its time, or fills a batch.
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

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What became of spans so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bounds and pace.
    pub fn batching(&self) -> &Batching {
        &self.batching
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        // Nothing panics while it is held.
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What actors tell goes to those that wait.
#[derive(Debug)]
pub struct Recorder {
    /// Where to.
    pub waiting: std::sync::Arc<Waiting>,
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
