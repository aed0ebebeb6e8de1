//! The stages that have begun and not ended: what the process is doing now, what each of it waits for, and since when.
//!
//! Only a node that was told to keeps the list ([`Traces::listed`](super::Traces::listed)); then every stage is on it,
//! whether or not its trace is recorded. It holds as many as there are requests, commands, turns and deliveries at
//! work, each of which has a bound of its own in [`limits`](crate::limits).

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;

use super::{TraceContext, Value};

/// A stage that has not ended.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is done, as the span will be called.
    pub name: String,
    /// Its own place; the span's id names the stage.
    pub context: TraceContext,
    /// The stage that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// Since when.
    pub began: Instant,
    /// What is known of it so far.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The list; see the module.
#[derive(Debug, Default)]
pub struct Underway(DashMap<[u8; 8], Stage>);

impl Underway {
    /// Puts a stage on the list until what is returned is dropped.
    pub fn begin(self: &Arc<Self>, stage: Stage) -> Doing {
        let id = stage.context.span_id;
        self.0.insert(id, stage);
        Doing { list: Arc::clone(self), id }
    }

    /// The `most` stages that have lasted longest, the oldest first, and how many there are.
    #[must_use]
    pub fn oldest(&self, most: usize) -> (Vec<Stage>, usize) {
        // An overloaded node has far more than are shown, so only those are copied.
        let mut all: Vec<_> = self.0.iter().map(|stage| (stage.began, *stage.key())).collect();
        all.sort_unstable();
        let oldest = all.iter().take(most).filter_map(|(_, id)| self.0.get(id));
        (oldest.map(|stage| stage.clone()).collect(), all.len())
    }
}

/// A stage's place on the list, which it leaves when this is dropped.
#[derive(Debug)]
#[must_use = "a stage whose place is dropped has ended"]
pub struct Doing {
    list: Arc<Underway>,
    id: [u8; 8],
}

impl Doing {
    /// More is known of the stage.
    pub fn change(&self, change: impl FnOnce(&mut Stage)) {
        if let Some(mut stage) = self.list.0.get_mut(&self.id) {
            change(&mut stage);
        }
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.list.0.remove(&self.id);
    }
}
