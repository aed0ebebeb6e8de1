//! The writer's cache of entities' heads.

use std::collections::HashMap;

use actors::id::EntityKey;

use super::log_row::KnownHead;

/// A bounded map that drops entries not used for a while: two generations, of which the older one is dropped when the
/// younger one is full. Every operation is one or two look-ups, and there is no list to maintain.
#[derive(Debug)]
pub(super) struct Heads {
    young: HashMap<EntityKey, KnownHead>,
    old: HashMap<EntityKey, KnownHead>,
    generation: usize,
}

impl Heads {
    /// Remembers at least the last `capacity` entities, and at most twice as many.
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation: capacity.max(1) }
    }

    /// The cached head of an entity.
    pub(super) fn get(&mut self, entity: EntityKey) -> Option<KnownHead> {
        if let Some(known) = self.young.get(&entity) {
            return Some(*known);
        }
        let known = self.old.remove(&entity)?;
        self.put(entity, known);
        Some(known)
    }

    /// Caches an entity's head.
    pub(super) fn put(&mut self, entity: EntityKey, known: KnownHead) {
        if self.young.len() >= self.generation && !self.young.contains_key(&entity) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(entity, known);
    }
}

#[cfg(test)]
mod tests {
    use actors::id::Address;
    use actors::store::{CommitId, Head};

    use super::*;

    fn entity(n: u64) -> EntityKey {
        EntityKey::conversation(Address([1; 10]), Address::derive("heads", &[&n.to_le_bytes()]))
    }

    fn known_head(seq: u64) -> KnownHead {
        KnownHead {
            head: Head { seq, commit: seq },
            id: CommitId([0; 16]),
            hash: [0; 16],
            alarm: None,
            state_commit: 0,
        }
    }

    #[test]
    fn the_cache_of_heads_is_bounded_and_never_outdated() {
        let mut heads = Heads::new(10);
        for n in 0..1_000 {
            heads.put(entity(n % 37), known_head(n));
            if let Some(found) = heads.get(entity(n % 37 / 2)) {
                assert_eq!(found.head.seq % 37, n % 37 / 2);
                assert!(found.head.seq + 37 > n, "the newest of its entity");
            }
            assert!(heads.young.len() + heads.old.len() <= 20);
            assert_eq!(heads.get(entity(n % 37)), Some(known_head(n)));
        }
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut heads = Heads::new(10);
        (0..100).for_each(|n| heads.put(entity(n), known_head(n)));
        assert!((90..100).all(|n| heads.get(entity(n)).is_some()));
    }
}
