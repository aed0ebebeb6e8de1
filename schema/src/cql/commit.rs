//! Committing: the writes that must be durable before, the conditional batch, and the writes that follow from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actors::id::EntityKey;
use actors::store::{Cause, Commit, CommitId, Head, Outcome, StoreError};
use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::CqlStore;
use super::batch::Attempt;
use super::db::count;
use super::heads::{HeadRow, Reading};
use super::known_heads::KnownHead;
use super::layout::{DueKind, DueRow, commit_k, entity_bytes, signed};
use super::plan::{Plan, plan};
use super::session::was_not_begun;
use super::settle::{BucketHead, Observation, PartitionState, Resolution, Settle, Step, Time};

/// How long a commit is tried before its outcome is reported as unknown. Shorter than a command's timeout, so that the
/// caller still gets the answer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(6);
/// Pause before the second step after a failed one; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How often a commit is planned again because its bucket turned out to be closed.
const MAX_PLANS: usize = 3;
/// How long the answer to a commit waits for its list entries.
const LISTS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the answer waits for the list entries of a commit that removes something from the log: its caller should
/// find it removed.
const REDACTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How a planned commit ended.
enum AttemptResult {
    Committed,
    Conflict,
    /// It must be planned again, on the current head.
    Again,
}

impl CqlStore {
    /// See `Store::commit`.
    pub(super) async fn committed(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        for _ in 0..MAX_PLANS {
            let expected = self.expected(commit).await.inspect_err(|_| self.known_heads().forget(commit.entity));
            let known = match expected? {
                HeadComparison::Here(known) => known,
                HeadComparison::Done(head) => return Ok(Outcome::Committed(head)),
                HeadComparison::Elsewhere => {
                    count(&self.db().counters.conflicts);
                    return Ok(Outcome::Conflict);
                }
            };
            let plan = plan(known.as_ref(), commit, self.bucket_size(), self.now())?;
            match self.attempt(commit, known.as_ref(), &plan, deadline).await {
                Ok(AttemptResult::Committed) => return Ok(Outcome::Committed(plan.after.head)),
                Ok(AttemptResult::Conflict) => {
                    count(&self.db().counters.conflicts);
                    self.known_heads().forget(commit.entity);
                    self.withdraw(commit, &plan);
                    return Ok(Outcome::Conflict);
                }
                Ok(AttemptResult::Again) => self.known_heads().forget(commit.entity),
                Err(error) => {
                    self.known_heads().forget(commit.entity);
                    return Err(error);
                }
            }
        }
        Err(StoreError::Unavailable("the entity's bucket kept changing".into()))
    }

    /// The entity as the commit expects it, from memory or read.
    async fn expected(&self, commit: &Commit) -> Result<HeadComparison, StoreError> {
        if commit.expected.is_none() {
            // The condition checks whether it exists; a read would only check one round trip earlier.
            return Ok(HeadComparison::Here(None));
        }
        // A commit on a head copies and relies on everything beneath it, so the head must be settled.
        let known = self.known_heads().get(commit.entity);
        let known = known.filter(|known| known.settled && Some(known.head) == commit.expected);
        let known = match known {
            Some(known) => known,
            None => match self.newest_head(commit.entity, Reading::Settled).await? {
                Some(HeadRow { known, .. }) => known,
                None => return Ok(HeadComparison::Elsewhere),
            },
        };
        if known.id == commit.id {
            if !known.projected {
                self.project_again(commit.entity, &known).await?;
            }
            return Ok(HeadComparison::Done(known.head));
        }
        if Some(known.head) != commit.expected {
            return Ok(HeadComparison::Elsewhere);
        }
        // No commit builds on one whose list entries may be missing.
        if !known.projected {
            self.project_again(commit.entity, &known).await?;
        }
        Ok(HeadComparison::Here(Some(known)))
    }

    async fn attempt(
        &self,
        commit: &Commit,
        known: Option<&KnownHead>,
        plan: &Plan,
        deadline: Instant,
    ) -> Result<AttemptResult, StoreError> {
        // All of this may be in vain: none of it counts before the batch is applied.
        let before = async {
            let carried = self.carried(commit, known, plan);
            let (carried, prepared) = tokio::join!(carried, self.prepare(commit, plan));
            prepared?;
            carried
        };
        let carried = timeout_at(deadline, before)
            .await
            .map_err(|_| StoreError::Unavailable("preparing a commit took too long".into()))??;
        if let Some(sends) = &self.0.sends {
            _ = sends.acquire().await.map(SemaphorePermit::forget);
        }
        let attempt = Attempt::new(commit, plan, carried.as_ref());
        match self.settle(commit, plan, &attempt, deadline).await {
            Resolution::Committed => {}
            Resolution::Conflict => return Ok(AttemptResult::Conflict),
            Resolution::Closed => return Ok(AttemptResult::Again),
            Resolution::Unavailable(why) => return Err(StoreError::Unavailable(why)),
            Resolution::Indeterminate(why) => return Err(StoreError::Indeterminate(why)),
        }
        self.follow_up(commit, known, plan).await;
        Ok(AttemptResult::Committed)
    }

    /// The state to copy into a new bucket, if the commit brings none; also moves the content of the closed bucket.
    async fn carried(
        &self,
        commit: &Commit,
        known: Option<&KnownHead>,
        plan: &Plan,
    ) -> Result<Option<Bytes>, StoreError> {
        let (Some(known), Some(closed)) = (known, plan.follows) else { return Ok(None) };
        self.leave_bucket(commit.entity, closed, known.head).await?;
        if commit.state.is_some() || known.state.is_none() {
            return Ok(None);
        }
        let values = (&entity_bytes(commit.entity)[..], closed);
        let row: Option<(Option<Bytes>,)> = self.db().select_one(&self.db().statements.state, values).await?;
        Ok(row.and_then(|(state,)| state))
    }

    /// Makes durable all rows that must exist once the batch is applied.
    async fn prepare(&self, commit: &Commit, plan: &Plan) -> Result<(), StoreError> {
        let put = async |kind, row: Option<DueRow>| match row {
            Some(row) => self.put_due(commit.entity, kind, row).await,
            None => Ok(()),
        };
        let watched = async {
            put(DueKind::Lists, plan.lists).await?;
            // After the due row by which the scan finds them if the commit is never applied.
            self.put_chunks(commit, plan).await
        };
        let (alarm, erasure, watched) =
            tokio::join!(put(DueKind::Alarm, plan.alarm), put(DueKind::Erasure, plan.erasure), watched);
        alarm.and(erasure).and(watched)
    }

    /// Sends the batch until its outcome is known.
    async fn settle(&self, commit: &Commit, plan: &Plan, attempt: &Attempt<'_>, deadline: Instant) -> Resolution {
        let counters = &self.db().counters;
        let mut settle = Settle::new(plan.expected, plan.after.head);
        let mut step = Step::Send;
        let mut pause = FIRST_PAUSE;
        let mut sent = 0;
        let began = Instant::now();
        let ended = loop {
            let observation = match step {
                // By the rows written before this, the scan takes a commit that is so late for one that never was.
                Step::Send if Instant::now() >= deadline => break settle.out_of_time(),
                Step::Send => {
                    count(&counters.conditional);
                    sent += 1;
                    if sent > 1 {
                        self.metrics_of().retries.add(1);
                    }
                    self.send(attempt).await
                }
                Step::Read => self.read_partition(commit, plan).await,
                Step::End(ended) => break ended,
            };
            if matches!(observation, Observation::Unknown(_)) && !settle.in_doubt() {
                count(&counters.unknown);
            }
            let failed =
                matches!(observation, Observation::Unknown(_) | Observation::Unreadable(_) | Observation::NotBegun(_));
            let time = if Instant::now() + pause < deadline { Time::Left } else { Time::Up };
            step = settle.observe(observation, time);
            if failed && !matches!(step, Step::End(_)) {
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        };
        let took = began.elapsed();
        let recorded = commit.watch.as_ref().and_then(|watch| watch.recorded());
        self.metrics_of().sync.observe(took, recorded, || self.now());
        if let Some(watch) = &commit.watch {
            watch.attempts.store(sent, Ordering::Relaxed);
            watch.sync_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        if ended == Resolution::Committed {
            count(&counters.applied);
            self.metrics_of().batch_commits.record(1);
        }
        if settle.in_doubt() && !matches!(ended, Resolution::Indeterminate(_)) {
            count(&counters.settled);
        }
        ended
    }

    async fn send(&self, attempt: &Attempt<'_>) -> Observation {
        match attempt.send(self.db()).await {
            Ok(None) => Observation::Applied,
            Ok(Some(found)) => Observation::NotApplied(found),
            Err(error) if was_not_begun(&error) => Observation::NotBegun(Cause::of("the driver's call failed", error)),
            Err(error) => Observation::Unknown(Cause::of("the driver's call failed", error)),
        }
    }

    /// Settles the batch's partition, and reads its head.
    async fn read_partition(&self, commit: &Commit, plan: &Plan) -> Observation {
        let found = async {
            let bucket = plan.after.bucket;
            let next = plan.after.head;
            let Some(HeadRow { known, .. }) = self.head_of(commit.entity, bucket, Reading::Settled).await? else {
                return Ok(PartitionState { head: None, mine: false });
            };
            let mine = match known.head.commit.cmp(&next.commit) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => known.id == commit.id,
                std::cmp::Ordering::Greater => self.is_in_log(commit.entity, commit.id, bucket, next).await?,
            };
            Ok::<_, StoreError>(PartitionState {
                head: Some(BucketHead { head: known.head, closed: known.closed }),
                mine,
            })
        };
        found.await.map_or_else(|error| Observation::Unreadable(error.into()), Observation::Read)
    }

    /// Whether the commit that leads to `next` is the one with this id.
    pub(super) async fn is_in_log(
        &self,
        entity: EntityKey,
        id: CommitId,
        bucket: i32,
        next: Head,
    ) -> Result<bool, StoreError> {
        let n = signed(next.seq);
        let k = commit_k(next.commit);
        let name = entity_bytes(entity);
        let values = (&name[..], bucket, n, &k[..]);
        let row: Option<(Bytes,)> = self.db().select_one(&self.db().statements.commit_id, values).await?;
        Ok(row.is_some_and(|(found,)| found[..] == id.0))
    }

    /// Writes the list entries and other results of an applied commit. If that fails or the process ends here, the next
    /// process that loads the entity writes them, or the scan of the due index.
    async fn follow_up(&self, commit: &Commit, before: Option<&KnownHead>, plan: &Plan) {
        let mut known = plan.after;
        if known.listed {
            let follows = self.follow(commit.entity, (commit.id, known.stamp), &commit.views, &commit.redactions);
            let within = if commit.redactions.is_empty() { LISTS_TIMEOUT } else { REDACTION_TIMEOUT };
            match timeout_at(Instant::now() + within, follows).await {
                Ok(Ok(())) => known.projected = true,
                Ok(Err(error)) => tracing::warn!(%error, "secondary index update deferred"),
                Err(_) => tracing::warn!("secondary index update deferred: it took too long"),
            }
        }
        self.known_heads().note(commit.entity, known);
        // The row of a commit that opens a bucket stays until the bucket before is emptied.
        let lists = plan.lists.filter(|_| known.projected && plan.follows.is_none());
        let alarm = before.and_then(|before| before.alarm).filter(|_| commit.alarm.is_some());
        self.forget_later(commit.entity, [(DueKind::Lists, lists), (DueKind::Alarm, alarm)]);
    }

    /// Removes the rows written for a commit that will never be applied.
    fn withdraw(&self, commit: &Commit, plan: &Plan) {
        // A commit with chunks has a row of the due index.
        if plan.lists.is_none() && plan.alarm.is_none() {
            return;
        }
        let store = self.clone();
        let entity = commit.entity;
        let id = commit.id;
        let plan = plan.clone();
        self.spawn(async move {
            let place = (plan.after.bucket, plan.after.head);
            // A commit that was applied long ago and is sent again is refused too, and its rows are in use.
            let took = match store.is_in_log(entity, id, place.0, place.1).await {
                Ok(false) => store.take_back(entity, id, &plan).await,
                Ok(true) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = took {
                tracing::debug!(%error, "could not remove data of a commit that was not applied; it is kept until found");
            }
        });
    }

    async fn take_back(&self, entity: EntityKey, id: CommitId, plan: &Plan) -> Result<(), StoreError> {
        // Before the row that leads to them, in case this ends half way.
        if plan.chunks.is_some() {
            self.delete_chunks(entity, id).await?;
        }
        for (kind, row) in [(DueKind::Lists, plan.lists), (DueKind::Alarm, plan.alarm)] {
            if let Some(row) = row {
                self.forget_due(entity, kind, row).await?;
            }
        }
        Ok(())
    }

    /// Deletes rows of the due index in the background. The scan finds those that remain.
    fn forget_later(&self, entity: EntityKey, rows: [(DueKind, Option<DueRow>); 2]) {
        if rows.iter().all(|(_, row)| row.is_none()) {
            return;
        }
        let store = self.clone();
        self.spawn(async move {
            for (kind, row) in rows {
                if let Some(row) = row
                    && let Err(error) = store.forget_due(entity, kind, row).await
                {
                    tracing::debug!(%error, "could not delete a row of the due index; it is kept until it is found");
                }
            }
        });
    }
}

/// The head of an entity, compared with the commit's expectation.
enum HeadComparison {
    /// The head is the expected one (`None`: the entity must not exist, which the condition checks).
    Here(Option<KnownHead>),
    /// This very commit is its newest.
    Done(Head),
    /// The head is another one.
    Elsewhere,
}
