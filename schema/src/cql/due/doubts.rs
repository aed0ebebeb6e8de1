//! Rows of the due index that no commit seems to need.

use std::time::Duration;

use actors::store::CommitId;
use dashmap::DashMap;
use tokio::time::Instant;

use crate::cql::layout::DueKind;

/// Rows whose need is doubted; of more, the others are doubted once there is room.
const MAX_DOUBTS: usize = 100_000;
/// A row that is still doubted after this time was deleted by another process.
const DELETED_AFTER: Duration = Duration::from_secs(600);

/// Rows that were unneeded when first checked, and when that was.
#[derive(Debug)]
pub(in crate::cql) struct Doubts {
    since: DashMap<(CommitId, DueKind), Instant>,
    lasting: Duration,
    most: usize,
}

impl Doubts {
    /// Doubts that last this long.
    pub(in crate::cql) fn lasting(lasting: Duration) -> Self {
        Self { since: DashMap::new(), lasting, most: MAX_DOUBTS }
    }

    /// Whether a row was unneeded for long enough; it is not if there is no room to note since when.
    pub(super) fn are_over(&self, row: CommitId, kind: DueKind) -> bool {
        let row = (row, kind);
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
    pub(super) fn end(&self, row: CommitId, kind: DueKind) {
        self.since.remove(&(row, kind));
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
    use tokio::time::advance;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn doubts(most: usize) -> Doubts {
        Doubts { most, ..Doubts::lasting(MINUTE) }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_beyond_the_bound_are_deleted_after_those_before() {
        let doubts = doubts(2);
        let mut rows: Vec<_> = (1..=3).map(|n| CommitId([n; 16])).collect();
        let mut left = Vec::new();
        for _ in 0..4 {
            rows.retain(|row| {
                let is_over = doubts.are_over(*row, DueKind::Lists);
                if is_over {
                    doubts.end(*row, DueKind::Lists);
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
        let [deleted, row] = [1, 2].map(|n| CommitId([n; 16]));
        assert!(!doubts.are_over(deleted, DueKind::Alarm));
        let mut minutes = 0;
        while !doubts.are_over(row, DueKind::Alarm) {
            doubts.make_room();
            advance(MINUTE).await;
            minutes += 1;
            assert!(minutes < 20);
        }
        assert_eq!(minutes, 12);
    }
}
