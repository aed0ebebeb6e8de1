//! States of entities whose actor has left, so that the next command needs no read. An actor costs about 7 KiB whatever
//! it runs, its state about three: `docs/decisions/0045-state-outlives-its-actor.md`.

use dashmap::DashMap;

use crate::clock::Millis;
use crate::host::EntityCache;
use crate::id::EntityKey;
use crate::machine::Machine;

/// The states of entities without an actor. There is never a second writer: storing the state here is the last thing
/// that an actor does about the entity, and the next actor, which begins after it has ended, takes the state first.
pub(super) struct ParkedStates<M: Machine> {
    /// Each with the time when the entity was last used.
    known: DashMap<EntityKey, (Millis, Box<EntityCache<M>>)>,
}

impl<M: Machine> Default for ParkedStates<M> {
    fn default() -> Self {
        Self { known: DashMap::new() }
    }
}

impl<M: Machine> ParkedStates<M> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn put(&self, entity: EntityKey, known: Box<EntityCache<M>>, used_at: Millis) {
        self.known.insert(entity, (used_at, known));
    }

    pub(super) fn take(&self, entity: EntityKey) -> Option<Box<EntityCache<M>>> {
        self.known.remove(&entity).map(|(_, (_, known))| known)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.known.clear();
    }

    /// Drops the states that were not used for `idle_millis`, and the least recently used ones beyond `cap`.
    pub(super) fn forget(&self, now: Millis, idle_millis: u64, cap: usize) {
        self.known.retain(|_, (used_at, _)| now.since(*used_at) < idle_millis);
        let excess = self.known.len().saturating_sub(cap);
        if excess > 0 {
            let mut oldest: Vec<(Millis, EntityKey)> = self.known.iter().map(|kept| (kept.0, *kept.key())).collect();
            oldest.sort_unstable_by_key(|(used_at, _)| *used_at);
            for (_, entity) in oldest.into_iter().take(excess) {
                self.known.remove(&entity);
            }
        }
    }
}
