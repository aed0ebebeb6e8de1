//! A cache of entities' heads, which saves a read before a commit.
//!
//! A cached head need not be current. A commit names the head it expects, so a wrong entry costs a conflict or a read,
//! never more. Only the mark that a head is settled must be right: commits on that head rely on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{CommitId, Head};
use dashmap::DashMap;

use super::layout::DueRow;

/// Entities of a generation; as many as may be resident of one kind. About 200 bytes each.
const HEADS_PER_GENERATION: usize = actors::limits::RESIDENT_ENTITIES;

/// An entity's newest head row, without its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownHead {
    /// The bucket of the head.
    pub(super) bucket: i32,
    /// The entity's head.
    pub(super) head: Head,
    /// The commit that led there.
    pub(super) id: CommitId,
    /// Write time of that commit's list entries.
    pub(super) stamp: i64,
    /// The next commit opens the next bucket.
    pub(super) closed: bool,
    /// The commit changes lists.
    pub(super) listed: bool,
    /// Its list entries are known to exist.
    pub(super) projected: bool,
    /// All writes of this and every earlier commit are known to be at a majority.
    pub(super) settled: bool,
    /// Rows in the bucket.
    pub(super) records: i32,
    /// Bytes in the bucket.
    pub(super) bytes: i64,
    /// The entity's head before the bucket's first commit.
    pub(super) base: Head,
    /// The head of the newest state.
    pub(super) state: Option<Head>,
    /// The durable alarm.
    pub(super) alarm: Option<DueRow>,
}

impl KnownHead {
    /// Whether both are of the same commit.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.head.commit == other.head.commit && self.id == other.id
    }

    /// When the entity wants to be woken.
    pub(super) fn alarm_at(&self) -> Option<Millis> {
        self.alarm.map(|alarm| alarm.at)
    }
}

/// The known heads. There are two generations: when the younger one is full the older one is dropped and the
/// younger one takes its place, so that recently used heads are kept without an order of use.
#[derive(Debug, Default)]
pub(super) struct KnownHeads {
    generations: [DashMap<EntityKey, KnownHead>; 2],
    /// The index of the younger one.
    younger: AtomicUsize,
    /// Entities added to it.
    count: AtomicUsize,
}

impl KnownHeads {
    pub(super) fn get(&self, entity: EntityKey) -> Option<KnownHead> {
        let [younger, older] = self.generations();
        let known = younger.get(&entity).map(|known| *known);
        known.or_else(|| {
            let (_, known) = older.remove(&entity)?;
            self.put(entity, known);
            Some(known)
        })
    }

    fn generations(&self) -> [&DashMap<EntityKey, KnownHead>; 2] {
        let [even, odd] = &self.generations;
        if self.younger.load(Ordering::Acquire) == 0 { [even, odd] } else { [odd, even] }
    }

    /// Whether an entity is known to be settled up to the event `seq`.
    pub(super) fn has_settled(&self, entity: EntityKey, seq: u64) -> bool {
        self.get(entity).is_some_and(|known| known.settled && known.head.seq >= seq)
    }

    /// Caches an entity's head, unless a newer one is known.
    pub(super) fn note(&self, entity: EntityKey, known: KnownHead) {
        // Moves the entry from the older generation to the younger one.
        self.get(entity);
        self.put(entity, known);
    }

    fn put(&self, entity: EntityKey, known: KnownHead) {
        let [younger, older] = self.generations();
        let mut is_new = false;
        let mut place = younger.entry(entity).or_insert_with(|| {
            is_new = true;
            known
        });
        if known.head.commit > place.head.commit {
            *place = known;
        } else if known.is_of(&place) {
            place.projected |= known.projected;
            place.settled |= known.settled;
        }
        drop(place);
        // Of several concurrent writers exactly one sees that the map is full.
        if is_new && self.count.fetch_add(1, Ordering::Relaxed) + 1 == HEADS_PER_GENERATION {
            older.clear();
            self.younger.fetch_xor(1, Ordering::AcqRel);
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// Drops an entry that may be wrong.
    pub(super) fn forget(&self, entity: EntityKey) {
        for generation in self.generations() {
            generation.remove(&entity);
        }
    }
}

#[cfg(test)]
pub(super) fn known_head(seq: u64, commit: u64) -> KnownHead {
    KnownHead {
        bucket: 0,
        head: Head { seq, commit },
        id: CommitId([commit as u8; 16]),
        stamp: 0,
        closed: false,
        listed: false,
        projected: false,
        settled: false,
        records: 0,
        bytes: 0,
        base: Head { seq: 0, commit: 0 },
        state: None,
        alarm: None,
    }
}

#[cfg(test)]
mod tests {
    use actors::id::Address;

    use super::*;

    #[test]
    fn an_older_head_does_not_replace_a_newer_one() {
        let known_heads = KnownHeads::default();
        let entity = EntityKey::INSTALLATION;
        known_heads.note(entity, known_head(5, 3));
        known_heads.note(entity, known_head(4, 2));
        assert_eq!(known_heads.get(entity), Some(known_head(5, 3)));
        known_heads.note(entity, known_head(9, 4));
        assert_eq!(known_heads.get(entity), Some(known_head(9, 4)));
        known_heads.forget(entity);
        assert_eq!(known_heads.get(entity), None);
    }

    #[test]
    fn a_used_head_stays_known_and_others_are_forgotten() {
        let known_heads = KnownHeads::default();
        let entity = |n: usize| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&n.to_le_bytes());
            EntityKey { id: Address(id), ..EntityKey::INSTALLATION }
        };
        let [used, noted, unused] = [0, 1, 2];
        let first = 0..HEADS_PER_GENERATION;
        let second = HEADS_PER_GENERATION..2 * HEADS_PER_GENERATION;
        for n in first {
            known_heads.note(entity(n), known_head(5, 3));
        }
        assert_eq!(known_heads.get(entity(used)), Some(known_head(5, 3)));
        known_heads.note(entity(noted), known_head(4, 2));
        assert_eq!(known_heads.get(entity(noted)), Some(known_head(5, 3)), "what is older replaces nothing");
        for n in second {
            known_heads.note(entity(n), known_head(5, 3));
        }
        assert_eq!(known_heads.get(entity(used)), Some(known_head(5, 3)));
        assert_eq!(known_heads.get(entity(noted)), Some(known_head(5, 3)));
        assert_eq!(known_heads.get(entity(unused)), None);
        assert!(known_heads.generations.iter().all(|generation| generation.len() <= HEADS_PER_GENERATION));
        known_heads.forget(entity(used));
        assert_eq!(known_heads.get(entity(used)), None);
    }

    #[test]
    fn a_settled_head_stays_known_until_the_next_commit() {
        let known_heads = KnownHeads::default();
        let entity = EntityKey::INSTALLATION;
        known_heads.note(entity, KnownHead { projected: true, settled: true, ..known_head(5, 3) });
        known_heads.note(entity, known_head(5, 3));
        assert!(known_heads.get(entity).is_some_and(|known| known.projected && known.settled));
        assert!(known_heads.has_settled(entity, 5) && !known_heads.has_settled(entity, 6));
        known_heads.note(entity, known_head(6, 4));
        assert!(known_heads.get(entity).is_some_and(|known| !known.projected && !known.settled));
        assert!(!known_heads.has_settled(entity, 5));
    }
}
