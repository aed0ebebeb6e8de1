//! How much may wait: counted before anything is queued (invariant I7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Refusal;
use crate::limits;

/// Commands that wait or run, and the bytes of their content.
#[derive(Debug, Default)]
pub(super) struct PendingCount {
    pub(super) commands: AtomicUsize,
    bytes: AtomicUsize,
}

impl PendingCount {
    /// Adds a command unless there are too many, or its bytes and those of the others exceed the bound.
    fn add(&self, bytes: usize, max_commands: usize, max_bytes: usize) -> bool {
        // Ordered with the closing.
        let commands = self.commands.fetch_add(1, Ordering::SeqCst);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = commands < max_commands && (before == 0 || before.saturating_add(bytes) <= max_bytes);
        if !fits {
            self.remove(bytes);
        }
        fits
    }

    /// How many commands, and how many bytes.
    pub(super) fn now(&self) -> (usize, usize) {
        (self.commands.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.commands.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The node's pending work, counted before anything is queued.
#[derive(Debug, Default)]
pub struct Admission {
    load: PendingCount,
    closed: AtomicBool,
}

impl Admission {
    /// Commands admitted and not answered yet.
    pub fn in_flight(&self) -> usize {
        self.load.commands.load(Ordering::SeqCst)
    }

    /// Bytes of their content.
    pub fn bytes_in_flight(&self) -> usize {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// Admits nothing any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether [`Admission::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// A position in the entity's queue and in the node's.
pub(super) struct Permit {
    entity: Arc<PendingCount>,
    node: Arc<Admission>,
    bytes: usize,
}

impl Permit {
    pub(super) fn take<R>(entity: &Arc<PendingCount>, node: &Arc<Admission>, bytes: usize) -> Result<Self, Refusal<R>> {
        if !node.load.add(bytes, limits::NODE_COMMANDS, limits::NODE_BYTES) {
            return Err(Refusal::Overloaded);
        }
        // Either this sees that the node is stopping, or the stopping node sees this permit taken, and waits.
        if node.is_closed() {
            node.load.remove(bytes);
            return Err(Refusal::Draining);
        }
        if !entity.add(bytes, limits::ENTITY_COMMANDS, limits::ENTITY_BYTES) {
            node.load.remove(bytes);
            return Err(Refusal::Backlog);
        }
        Ok(Self { entity: Arc::clone(entity), node: Arc::clone(node), bytes })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.entity.remove(self.bytes);
        self.node.load.remove(self.bytes);
    }
}
