//! Rows of the due index that no commit seems to need.

use std::time::Duration;

use actors::id::EntityKey;
use dashmap::DashMap;
use tokio::time::Instant;

use crate::cql::layout::{DueKind, DueRow};

/// Rows whose need is doubted; of more, the others are doubted once there is room.
const MAX_DOUBTS: usize = 100_000;
/// A row that is still doubted after this time was deleted by another process.
const DELETED_AFTER: Duration = Duration::from_secs(600);

/// A row by its whole key: rows of an erasure have the same id for each minute, and for entities of other kinds.
pub(super) type RowKey = (EntityKey, DueKind, DueRow);

/// Rows that were unneeded when first checked, and when that was.
#[derive(Debug)]
pub(in crate::cql) struct Doubts {
    since: DashMap<RowKey, Instant>,
    lasting: Duration,
    most: usize,
}

impl Doubts {
    /// Doubts that last this long.
    pub(in crate::cql) fn lasting(lasting: Duration) -> Self {
        Self { since: DashMap::new(), lasting, most: MAX_DOUBTS }
    }

    /// Whether a row was unneeded for long enough; it is not if there is no room to note since when.
    pub(super) fn are_over(&self, row: RowKey) -> bool {
        if let Some(since) = self.since.get(&row) {
            return since.elapsed() >= self.lasting;
        }
        // Forgetting others to make room would begin their doubts anew each time, and none would ever be over.
        if self.since.len() >= self.most {
            return false;
        }
        self.since.insert(row, Instant::now());
        self.lasting.is_zero()
    }

    /// A row is needed, or was deleted.
    pub(super) fn end(&self, row: RowKey) {
        self.since.remove(&row);
    }

    /// Forgets rows that other processes deleted, if there is no room.
    pub(super) fn make_room(&self) {
        if self.since.len() >= self.most {
            self.since.retain(|_, since| since.elapsed() < DELETED_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::id::Address;
    use tokio::time::advance;

    use super::*;
    use crate::cql::layout::erasure_row;

    const MINUTE: Duration = Duration::from_secs(60);

    fn doubts(most: usize) -> Doubts {
        Doubts { most, ..Doubts::lasting(MINUTE) }
    }

    fn conversation(n: u8) -> EntityKey {
        EntityKey::conversation(Address([1; 10]), Address([n; 10]))
    }

    /// The row of an erasure at this minute.
    fn erasure(entity: EntityKey, minute: u64) -> RowKey {
        (entity, DueKind::Erasure, erasure_row(entity, Millis(minute * 60_000), Millis(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn rows_beyond_the_bound_are_deleted_after_those_before() {
        let doubts = doubts(2);
        let mut rows: Vec<_> = (1..=3).map(|n| erasure(conversation(n), 1)).collect();
        let mut left = Vec::new();
        for _ in 0..4 {
            rows.retain(|row| {
                let is_over = doubts.are_over(*row);
                if is_over {
                    doubts.end(*row);
                }
                !is_over
            });
            left.push(rows.len());
            advance(MINUTE).await;
        }
        assert_eq!(left, [3, 1, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_others_deleted_take_no_room_for_ever() {
        let doubts = doubts(1);
        let [deleted, row] = [1, 2].map(|n| erasure(conversation(n), 1));
        assert!(!doubts.are_over(deleted));
        let mut minutes = 0;
        while !doubts.are_over(row) {
            doubts.make_room();
            advance(MINUTE).await;
            minutes += 1;
            assert!(minutes < 20);
        }
        assert_eq!(minutes, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_is_doubted_apart_from_those_with_the_same_id() {
        let conversation = conversation(1);
        let contact = EntityKey::contact(conversation.workspace, conversation.id);
        let row = erasure(conversation, 1);
        for other in [erasure(contact, 1), erasure(conversation, 2)] {
            let doubts = doubts(9);
            assert_eq!(row.2.id, other.2.id);
            assert!(!doubts.are_over(row));
            advance(MINUTE).await;
            assert!(!doubts.are_over(other), "it was not seen before");
            doubts.end(other);
            assert!(doubts.are_over(row));
        }
    }
}
