//! Checks of overdue rows: whether they are needed, and what else follows from them.
//!
//! An overdue alarm is checked before it is reported, for a second at most. Everything else is done by a task once the
//! page is read, so that no alarm waits for it: commits that are settled, lists that are completed, rows that are
//! deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{Due, ReadLevel, StoreError};
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::{IndexRow, MAX_CONCURRENT_READS};
use crate::cql::CqlStore;
use crate::cql::layout::{DueKind, DueRow, erasure_row, slot, slot_end};

/// A row that is overdue for this long is checked: its commit may never have been applied.
const OVERDUE_MILLIS: u64 = 60_000;
/// After so many checks of entities that failed with transient errors, no more are made: each may take seconds.
const MAX_FAILED_CHECKS: usize = MAX_CONCURRENT_READS;
/// How long a page waits for checks. Alarms that are not checked by then are reported.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(1);
/// Rows that are checked after a page; others are found by a later scan.
const MAX_CHECKED_ROWS: usize = 100_000;

/// The failures of checks.
#[derive(Debug, Default)]
struct Failures {
    /// With a transient error.
    transient: AtomicUsize,
    /// With any error.
    all: AtomicUsize,
}

impl Failures {
    /// Whether no more checks are made: the nodes of those entities may be down.
    fn are_too_many(&self) -> bool {
        self.transient.load(Ordering::Relaxed) >= MAX_FAILED_CHECKS
    }

    /// Counts a failure. Only the first is logged.
    fn add(&self, entity: EntityKey, error: &StoreError) {
        self.transient.fetch_add(usize::from(error.is_transient()), Ordering::Relaxed);
        if self.all.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(?entity, %error, "could not check an overdue entity; its row is kept");
        }
    }
}

/// The checks for one page.
#[derive(Debug)]
pub(super) struct PageChecks {
    now: Millis,
    /// How long the page may still wait.
    left: Duration,
    failures: Failures,
    /// Rows that are not reported as alarms and have to be checked further.
    overdue: Vec<IndexRow>,
}

impl PageChecks {
    /// Those of a page that is read at `now`.
    pub(super) fn at(now: Millis) -> Self {
        Self { now, left: CHECKS_TIMEOUT, failures: Failures::default(), overdue: Vec::new() }
    }
}

impl CqlStore {
    /// The alarms among rows of the index. One whose entity cannot be read in time is among them: it may be a real one.
    pub(super) async fn alarms_of(&self, rows: Vec<IndexRow>, checks: &mut PageChecks) -> Vec<Due> {
        let until = Instant::now() + checks.left;
        let PageChecks { now, failures, .. } = &*checks;
        let reporting = rows.clone().into_iter().map(|found| self.is_reported(found, *now, until, failures));
        let reported: Vec<bool> = stream::iter(reporting).buffered(MAX_CONCURRENT_READS).collect().await;
        checks.left = until.saturating_duration_since(Instant::now());
        let mut alarms = Vec::new();
        for (found, is_reported) in rows.into_iter().zip(reported) {
            if is_reported {
                alarms.push(found.due);
            } else if found.due.at <= checks.now && checks.overdue.len() < MAX_CHECKED_ROWS {
                checks.overdue.push(found);
            }
        }
        alarms
    }

    async fn is_reported(&self, found: IndexRow, now: Millis, until: Instant, failures: &Failures) -> bool {
        let IndexRow { due: Due { at, entity }, row, kind } = found;
        if kind != DueKind::Alarm {
            return false;
        }
        if now.since(at) < OVERDUE_MILLIS || Instant::now() >= until || failures.are_too_many() {
            return true;
        }
        match timeout_at(until, self.newest_head(entity, ReadLevel::Acknowledged.into())).await {
            Ok(Ok(head)) => head.is_some_and(|head| head.known.alarm == Some(row)),
            Ok(Err(error)) => {
                failures.add(entity, &error);
                true
            }
            Err(_) => true,
        }
    }

    /// Has the rest of a page's rows checked in the background, unless those of an earlier page still are: then a later
    /// scan finds them again.
    pub(super) fn check_later(&self, PageChecks { now, overdue, .. }: PageChecks) {
        if overdue.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.0.checking).try_acquire_owned() else { return };
        let store = self.clone();
        self.spawn(async move {
            let _permit = permit;
            store.0.closing.run_until_cancelled(store.check_rows(overdue, now)).await;
        });
    }

    async fn check_rows(&self, rows: Vec<IndexRow>, now: Millis) {
        let failures = Failures::default();
        let checking = rows.into_iter().map(|found| self.check_unless_failing(found, now, &failures));
        stream::iter(checking).buffer_unordered(MAX_CONCURRENT_READS).collect::<()>().await;
        self.doubts().make_room();
    }

    async fn check_unless_failing(&self, found: IndexRow, now: Millis, failures: &Failures) {
        if !failures.are_too_many()
            && let Err(error) = self.check(found, now).await
        {
            failures.add(found.due.entity, &error);
        }
    }

    /// Deletes an overdue row that is unneeded for a while, with the chunks of a commit that was never applied; does
    /// overdue writes that follow from a commit.
    async fn check(&self, found: IndexRow, now: Millis) -> Result<(), StoreError> {
        let IndexRow { due: Due { entity, .. }, row, kind } = found;
        let is_alarm = kind == DueKind::Alarm;
        if kind == DueKind::Erasure {
            return self.erase_now_or_later(entity, row, now).await;
        }
        let mut read_level = ReadLevel::Acknowledged;
        let known = loop {
            let known = self.newest_head(entity, read_level.into()).await?.map(|head| head.known);
            match known {
                // The next scan reports it.
                Some(known) if is_alarm && known.alarm == Some(row) => return Ok(()),
                // Nothing before the newest commit is missing: each commit completes the one before.
                Some(known) if !is_alarm && known.id == row.id => {
                    if known.listed {
                        self.project_again(entity, &known).await?;
                    }
                    self.empty_closed_buckets(entity, known.bucket, now).await?;
                    return self.forget_due(entity, kind, row).await;
                }
                _ if read_level == ReadLevel::Settled => break known,
                _ if !self.doubts().are_over((entity, kind, row)) => return Ok(()),
                // Its commit may be decided but not visible to this read.
                _ => read_level = ReadLevel::Settled,
            }
        };
        let newest = known.map(|known| known.head);
        if !is_alarm && let Some(known) = known {
            self.empty_closed_buckets(entity, known.bucket, now).await?;
        }
        if !is_alarm && !self.sweep_chunks(entity, row.id, newest).await? {
            // Not with every scan: the entity may never commit again. All processes write the same time, so that the
            // rows do not multiply.
            let again = DueRow::new(slot_end(slot(now)), row.id, now);
            self.put_due(entity, kind, again).await?;
        }
        self.forget_due(entity, kind, row).await?;
        self.doubts().end((entity, kind, row));
        Ok(())
    }

    async fn erase_now_or_later(&self, entity: EntityKey, row: DueRow, now: Millis) -> Result<(), StoreError> {
        let kind = DueKind::Erasure;
        if !self.doubts().are_over((entity, kind, row)) {
            // Its commit may be on its way, from a process whose clock is behind.
            return Ok(());
        }
        if let Some(newest) = self.finish_erasure(entity, now).await? {
            let again = erasure_row(entity, newest, now);
            if again == row {
                return Ok(());
            }
            self.put_due(entity, kind, again).await?;
        }
        self.forget_due(entity, kind, row).await?;
        self.doubts().end((entity, kind, row));
        Ok(())
    }

    /// Waits until the rows that a read of the index left to be checked are.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn checked(&self) {
        // It is never closed.
        drop(self.0.checking.acquire().await);
    }
}
