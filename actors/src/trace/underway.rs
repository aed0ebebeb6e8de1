//! The running stages: what the process is doing now, what each stage waits for, and since when.
//!
//! Only a node configured for it keeps the list ([`Traces::listed`](super::Traces::listed)); then every stage is
//! listed, whether or not its trace is recorded. It has as many entries as there are running requests, commands, turns
//! and deliveries, each of which has a bound of its own in [`limits`](crate::limits).

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;

use super::{TraceContext, Value};

/// A running stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The span's name.
    pub name: String,
    /// Its own trace context; the span's id identifies the stage.
    pub context: TraceContext,
    /// Its parent stage.
    pub parent: Option<[u8; 8]>,
    /// When it began.
    pub began: Instant,
    /// Its attributes so far.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The list; see the module.
#[derive(Debug, Default)]
pub struct Underway(DashMap<[u8; 8], Stage>);

impl Underway {
    /// Lists a stage until the returned value is dropped.
    pub fn begin(self: &Arc<Self>, stage: Stage) -> StageEntry {
        let id = stage.context.span_id;
        self.0.insert(id, stage);
        StageEntry { list: Arc::clone(self), id }
    }

    /// The `most` oldest stages, the oldest first, and how many there are in all.
    #[must_use]
    pub fn oldest(&self, most: usize) -> (Vec<Stage>, usize) {
        // An overloaded node has far more than are listed, so only the listed ones are copied.
        let mut all: Vec<_> = self.0.iter().map(|stage| (stage.began, *stage.key())).collect();
        all.sort_unstable();
        let oldest = all.iter().take(most).filter_map(|(_, id)| self.0.get(id));
        (oldest.map(|stage| stage.clone()).collect(), all.len())
    }
}

/// A stage's entry in the list, removed when this is dropped.
#[derive(Debug)]
#[must_use = "a stage whose place is dropped has ended"]
pub struct StageEntry {
    list: Arc<Underway>,
    id: [u8; 8],
}

impl StageEntry {
    /// Changes the listed stage.
    pub fn change(&self, change: impl FnOnce(&mut Stage)) {
        if let Some(mut stage) = self.list.0.get_mut(&self.id) {
            change(&mut stage);
        }
    }
}

impl Drop for StageEntry {
    fn drop(&mut self) {
        self.list.0.remove(&self.id);
    }
}
