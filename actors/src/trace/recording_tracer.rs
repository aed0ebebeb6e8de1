//! Spans kept for tests.

use std::sync::Mutex;

use super::{Finished, Tracer};
use crate::sync::LockUnpoisoned;

/// A tracer that keeps everything, and samples every trace unless it is [declining](Self::declining).
#[derive(Debug, Default)]
pub struct RecordingTracer {
    spans: Mutex<Vec<Finished>>,
    declines: bool,
}

impl RecordingTracer {
    /// One that keeps everything, and samples no trace that begins within the node.
    #[must_use]
    pub fn declining() -> Self {
        Self { declines: true, ..Self::default() }
    }

    /// The spans that have ended so far, in the order of their ends.
    pub fn spans(&self) -> Vec<Finished> {
        self.spans.lock_unpoisoned().clone()
    }
}

impl Tracer for RecordingTracer {
    fn record(&self, span: Finished) {
        self.spans.lock_unpoisoned().push(span);
    }

    fn samples(&self, _: [u8; 16]) -> bool {
        !self.declines
    }
}
