//! Where entities stand, as far as this process knows: what saves a read before a commit.
//!
//! Where an entity stands need not be right. A commit names the head it expects, so what is wrong here costs a conflict
//! or a read, never more. Only that a head is settled must be: what goes on from it trusts that.

use std::sync::atomic::{AtomicUsize, Ordering};

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{CommitId, Head};
use dashmap::DashMap;

use super::layout::DueRow;

/// Entities remembered; as many as may be resident of one kind. About 200 bytes each.
const REMEMBERED: usize = actors::limits::RESIDENT_ENTITIES;

/// An entity's newest head row, without its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The bucket it stands in.
    pub(super) bucket: i32,
    /// Where the entity stands.
    pub(super) head: Head,
    /// The commit that led there.
    pub(super) id: CommitId,
    /// Write time of that commit's list entries.
    pub(super) stamp: i64,
    /// The next commit opens the next bucket.
    pub(super) closed: bool,
    /// That commit changes lists.
    pub(super) listed: bool,
    /// Its list entries are known to be there.
    pub(super) projected: bool,
    /// All that it and every commit before it wrote is known to be at a majority.
    pub(super) settled: bool,
    /// Rows in the bucket.
    pub(super) records: i32,
    /// Bytes in the bucket.
    pub(super) bytes: i64,
    /// Where the entity stood before the bucket's first commit.
    pub(super) base: Head,
    /// Where the newest state was taken.
    pub(super) state: Option<Head>,
    /// The durable alarm.
    pub(super) alarm: Option<DueRow>,
}

impl Standing {
    /// When the entity wants to be woken.
    pub(super) fn alarm_at(&self) -> Option<Millis> {
        self.alarm.map(|alarm| alarm.at)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Standings {
    known: DashMap<EntityKey, Standing>,
    count: AtomicUsize,
}

impl Standings {
    pub(super) fn get(&self, entity: EntityKey) -> Option<Standing> {
        self.known.get(&entity).map(|standing| *standing)
    }

    /// Whether an entity is known to be settled up to the event `seq`.
    pub(super) fn has_settled(&self, entity: EntityKey, seq: u64) -> bool {
        self.known.get(&entity).is_some_and(|known| known.settled && known.head.seq >= seq)
    }

    /// Takes note of where an entity stands, unless something newer is known.
    pub(super) fn note(&self, entity: EntityKey, standing: Standing) {
        // A pass over everything costs less than keeping an order of use on every commit.
        if self.count.load(Ordering::Relaxed) >= REMEMBERED {
            self.known.clear();
            self.count.store(0, Ordering::Relaxed);
        }
        let mut is_new = false;
        let mut place = self.known.entry(entity).or_insert_with(|| {
            is_new = true;
            standing
        });
        let known = *place;
        if standing.head.commit > known.head.commit {
            *place = standing;
        } else if standing.head.commit == known.head.commit && standing.id == known.id {
            place.projected |= standing.projected;
            place.settled |= standing.settled;
        }
        drop(place);
        self.count.fetch_add(usize::from(is_new), Ordering::Relaxed);
    }

    /// What is known may be wrong.
    pub(super) fn forget(&self, entity: EntityKey) {
        if self.known.remove(&entity).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
pub(super) fn standing(seq: u64, commit: u64) -> Standing {
    Standing {
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
    use super::*;

    #[test]
    fn what_is_older_does_not_replace_what_is_newer() {
        let standings = Standings::default();
        let entity = EntityKey::INSTALLATION;
        standings.note(entity, standing(5, 3));
        standings.note(entity, standing(4, 2));
        assert_eq!(standings.get(entity), Some(standing(5, 3)));
        standings.note(entity, standing(9, 4));
        assert_eq!(standings.get(entity), Some(standing(9, 4)));
        standings.forget(entity);
        assert_eq!(standings.get(entity), None);
    }

    #[test]
    fn that_lists_are_up_to_date_and_that_a_commit_is_settled_stays_known_until_the_next_one() {
        let standings = Standings::default();
        let entity = EntityKey::INSTALLATION;
        standings.note(entity, Standing { projected: true, settled: true, ..standing(5, 3) });
        standings.note(entity, standing(5, 3));
        assert!(standings.get(entity).is_some_and(|known| known.projected && known.settled));
        assert!(standings.has_settled(entity, 5) && !standings.has_settled(entity, 6));
        standings.note(entity, standing(6, 4));
        assert!(standings.get(entity).is_some_and(|known| !known.projected && !known.settled));
        assert!(!standings.has_settled(entity, 5));
    }
}
