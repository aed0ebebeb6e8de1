//! The resident entities of one kind, independent of their machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Node;
use super::census::Mailbox;
use crate::alarms::Wake;
use crate::clock::Millis;
use crate::directory::{Bounds, Directory};
use crate::id::EntityKey;
use crate::machine::Effects;

/// Operations of a node on its entities, whatever their machine.
pub(crate) trait Residents: Send + Sync {
    /// As [`Directory::resident`].
    fn resident(&self) -> usize;

    /// As [`Directory::actors`].
    fn actors(&self) -> usize;

    /// As [`Directory::deepest`].
    fn deepest(&self, limit: usize) -> Vec<Mailbox>;

    /// As [`Directory::wake`].
    fn wake(&self, node: &Arc<Node>, entity: EntityKey, waking: Wake) -> bool;

    /// As [`Directory::is_beyond`].
    fn is_beyond(&self, bounds: &Bounds) -> bool;

    /// As [`Directory::sweep`].
    fn sweep(&self, now: Millis, bounds: Bounds) -> BoxFuture<'_, ()>;

    /// As [`Directory::drain`].
    fn drain(&self, deadline: Instant) -> BoxFuture<'_, ()>;
}

impl<M: Effects> Residents for Directory<M> {
    fn resident(&self) -> usize {
        self.resident()
    }

    fn actors(&self) -> usize {
        self.actors()
    }

    fn deepest(&self, limit: usize) -> Vec<Mailbox> {
        self.deepest(limit)
    }

    fn wake(&self, node: &Arc<Node>, entity: EntityKey, waking: Wake) -> bool {
        self.wake(node, entity, waking)
    }

    fn is_beyond(&self, bounds: &Bounds) -> bool {
        self.is_beyond(bounds)
    }

    fn sweep(&self, now: Millis, bounds: Bounds) -> BoxFuture<'_, ()> {
        Box::pin(self.sweep(now, bounds))
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(self.drain(deadline))
    }
}
